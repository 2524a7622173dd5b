//! The loops over keys by hand: the risk pattern and the counts.
//!
//! Pattern: a heap brings the transactions of all users into the order of (event time, partition, offset)
//! as the watermark
//! passes them; then a user's last transaction is all there is to remember. What may time out waits in a
//! queue, which is
//! in the order of time by itself.

use hashbrown::HashTable;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::rc::Rc;
use tidegate::record::{Stamped, Text};
use tidegate::time::Millis;
use tidegate_dataflows::catalogue::DEFAULTS;
use tidegate_dataflows::records::{Event, Transaction};

/// A transaction in the order of the contract.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    time: Millis,
    partition: u32,
    offset: u64,
    hash: u64,
    transaction: Rc<Transaction>,
}

struct User {
    hash: u64,
    last: Rc<Transaction>,
    /// Something followed the last one in time, so that it cannot time out. Here: it was replaced by that.
    number: u64,
}

/// A transaction that may time out.
struct Expiry {
    at: Millis,
    hash: u64,
    number: u64,
    transaction: Rc<Transaction>,
}

/// What is found.
pub enum Finding<'a> {
    /// Neighbours that match.
    Match(&'a Transaction, &'a Transaction),
    /// Nothing followed in time.
    Timeout(&'a Transaction),
}

/// The pattern's users.
#[derive(Default)]
pub struct Patterns {
    waiting: BinaryHeap<Reverse<Waiting>>,
    users: HashTable<User>,
    expiries: VecDeque<Expiry>,
    passed: u64,
}

impl Patterns {
    /// Takes in a transaction. Gives false if it is late.
    pub fn transaction(&mut self, record: &Stamped<Transaction>) -> bool {
        if record.value.occurred_at < record.watermark {
            return false;
        }
        self.waiting.push(Reverse(Waiting {
            time: record.value.occurred_at,
            partition: record.origin.partition,
            offset: record.origin.offset,
            hash: record.hash,
            transaction: Rc::new(record.value.clone()),
        }));
        true
    }

    /// Passes everything before the watermark; gives what was found.
    pub fn pass(&mut self, watermark: Millis, mut give: impl FnMut(Finding<'_>)) {
        while self
            .waiting
            .peek()
            .is_some_and(|Reverse(first)| first.time < watermark)
        {
            let Some(Reverse(Waiting {
                time,
                hash,
                transaction,
                ..
            })) = self.waiting.pop()
            else {
                break;
            };
            self.expire(time, &mut give);
            self.follow(hash, transaction, &mut give);
        }
        self.expire(watermark, &mut give);
    }

    fn follow(&mut self, hash: u64, second: Rc<Transaction>, give: &mut impl FnMut(Finding<'_>)) {
        let config = DEFAULTS.risk_pattern;
        self.passed += 1;
        let is = |user: &User| user.hash == hash && user.last.user_id == second.user_id;
        match self.users.find_mut(hash, is) {
            Some(user) => {
                let first = std::mem::replace(&mut user.last, Rc::clone(&second));
                user.number = self.passed;
                let in_time = second.occurred_at - first.occurred_at < config.within_ms;
                if in_time && first.amount > config.limit && first.location != second.location {
                    give(Finding::Match(&first, &second));
                }
            }
            None => {
                let user = User {
                    hash,
                    last: Rc::clone(&second),
                    number: self.passed,
                };
                self.users.insert_unique(hash, user, |user| user.hash);
            }
        }
        if second.amount > config.limit {
            let at = second.occurred_at + config.within_ms;
            self.expiries.push_back(Expiry {
                at,
                hash,
                number: self.passed,
                transaction: second,
            });
        }
    }

    /// Whatever is still its user's last transaction `within` later has timed out.
    fn expire(&mut self, upto: Millis, give: &mut impl FnMut(Finding<'_>)) {
        while let Some(first) = self.expiries.front() {
            if first.at > upto {
                break;
            }
            let is = |user: &User| user.hash == first.hash && user.number == first.number;
            if self.users.find(first.hash, is).is_some() {
                give(Finding::Timeout(&first.transaction));
            }
            self.expiries.pop_front();
        }
    }
}

struct Counted {
    hash: u64,
    key: Text,
    count: i64,
    /// The last epoch that changed it.
    epoch: usize,
}

/// The counts of all keys.
#[derive(Default)]
pub struct Counts {
    numbers: HashTable<usize>,
    keys: Vec<Counted>,
    changed: Vec<usize>,
}

impl Counts {
    /// Counts an event.
    pub fn event(&mut self, event: &Stamped<Event>, epoch: usize) {
        let keys = &mut self.keys;
        let is = |at: &usize| keys[*at].hash == event.hash && keys[*at].key == event.key;
        let at = match self.numbers.find(event.hash, is) {
            Some(at) => *at,
            None => {
                // No epoch has this number.
                keys.push(Counted {
                    hash: event.hash,
                    key: event.key.clone(),
                    count: 0,
                    epoch: usize::MAX,
                });
                self.numbers
                    .insert_unique(event.hash, keys.len() - 1, |at| keys[*at].hash);
                keys.len() - 1
            }
        };
        let counted = &mut keys[at];
        counted.count += 1;
        if counted.epoch != epoch {
            counted.epoch = epoch;
            self.changed.push(at);
        }
    }

    /// Gives the keys that the epoch changed.
    pub fn finish(&mut self, mut give: impl FnMut(&Text, i64)) {
        for at in self.changed.drain(..) {
            give(&self.keys[at].key, self.keys[at].count);
        }
    }
}

//! The alerts loop by hand: two hash tables, no engine.
//!
//! ```text
//!  settings ─► customers: their interests ─┐
//!                                          ├─► accounts: interests of authorized customers ◄── entries
//!  authorizations ─────────────────────────┘   kept joined, as the engine keeps them
//! ```
//!
//! It reads the contract for itself and shares no code with the dataflow beyond records, hash and hash
//! table, so that
//! equal outputs say something. Changes are applied in their order; nothing is ever taken back.

use hashbrown::HashTable;
use std::rc::Rc;
use tidegate::record::{Stamped, Text, Write, key_hash};
use tidegate_dataflows::records::{
    AccountAuthorizations, AccountEntry, Address, Channel, CustomerAlertSettings, Direction, RuleType,
};

/// Entries whose accounts are looked for together, so that their cache misses overlap.
const TOGETHER: usize = 32;

/// A rule, each kind and parameter once.
pub struct Rule {
    /// Its kind.
    pub kind: RuleType,
    /// Minor units; 0 where the kind has none.
    pub threshold: i64,
    /// Where the kind has one.
    pub counterparty: Option<Text>,
    channels: u8,
}

/// What a customer wants to hear of an account in one currency.
pub struct Interest {
    /// The customer.
    pub customer: Text,
    currency: Text,
    rules: Vec<Rule>,
    addresses: Rc<[Address]>,
}

struct Account {
    hash: u64,
    key: Text,
    authorized: Vec<Text>,
    /// Of everybody whose settings name the account.
    interests: Vec<Rc<Interest>>,
    /// The rules of those who are authorized, flat: what most entries look at lies in one place.
    watches: Vec<Watch>,
}

/// A rule, with all that decides whether it is met.
struct Watch {
    threshold: i64,
    kind: RuleType,
    currency: Text,
    interest: Rc<Interest>,
    /// Its place in the interest.
    rule: usize,
}

struct Customer {
    hash: u64,
    key: Text,
    accounts: Vec<Text>,
}

/// The loop's tables.
#[derive(Default)]
pub struct Alerts {
    accounts: HashTable<Account>,
    customers: HashTable<Customer>,
}

impl Alerts {
    /// Applies a write to the authorizations.
    pub fn authorize(&mut self, write: &Write<AccountAuthorizations>) {
        let account = account(&mut self.accounts, write.hash, &write.key);
        account.authorized = write
            .value
            .as_ref()
            .map_or_else(Vec::new, |row| row.customers.clone());
        account.join();
    }

    /// Applies a write to the settings.
    pub fn settings(&mut self, write: &Write<CustomerAlertSettings>) {
        let is = |customer: &Customer| customer.hash == write.hash && customer.key == write.key;
        let entry = self.customers.entry(write.hash, is, |customer| customer.hash);
        let make = || Customer {
            hash: write.hash,
            key: write.key.clone(),
            accounts: Vec::new(),
        };
        let mut slot = entry.or_insert_with(make);
        let customer = slot.get_mut();
        let mut touched = std::mem::take(&mut customer.accounts);
        for key in &touched {
            let account = account(&mut self.accounts, key_hash(key.as_bytes()), key);
            account
                .interests
                .retain(|interest| interest.customer != write.key);
        }
        for (key, interest) in write.value.as_ref().map_or_else(Vec::new, interests) {
            account(&mut self.accounts, key_hash(key.as_bytes()), &key)
                .interests
                .push(Rc::new(interest));
            customer.accounts.push(key.clone());
            touched.push(key);
        }
        for key in touched {
            account(&mut self.accounts, key_hash(key.as_bytes()), &key).join();
        }
    }

    /// Gives every message of these entries: entry, interest, rule, address.
    pub fn entries(
        &self,
        entries: &[Stamped<AccountEntry>],
        mut give: impl FnMut(&Stamped<AccountEntry>, &Interest, &Rule, &Address),
    ) {
        for entries in entries.chunks(TOGETHER) {
            let mut found = [None; TOGETHER];
            for (entry, found) in entries.iter().zip(&mut found) {
                let is = |account: &Account| account.hash == entry.hash && account.key == entry.key;
                *found = self.accounts.find(entry.hash, is);
            }
            // The first watch of each, so that those misses overlap too.
            let firsts = found
                .iter()
                .flatten()
                .filter_map(|account: &&Account| account.watches.first());
            std::hint::black_box(firsts.fold(0, |sum: i64, watch| sum ^ watch.threshold));
            for (entry, account) in entries.iter().zip(found) {
                for watch in account.iter().flat_map(|account| &account.watches) {
                    if watch.is_met(&entry.value) {
                        watch.tell(entry, &mut give);
                    }
                }
            }
        }
    }
}

impl Watch {
    fn is_met(&self, entry: &AccountEntry) -> bool {
        if self.currency != entry.currency {
            return false;
        }
        let is_credit = entry.direction == Direction::Credit;
        let after = i128::from(entry.balance_after);
        let before = after
            - if is_credit {
                i128::from(entry.amount)
            } else {
                -i128::from(entry.amount)
            };
        let threshold = i128::from(self.threshold);
        match self.kind {
            RuleType::BalanceAbove => before <= threshold && threshold < after,
            RuleType::BalanceBelow => after < threshold && threshold <= before,
            RuleType::CreditedAbove => is_credit && self.threshold < entry.amount,
            RuleType::DebitedAbove => !is_credit && self.threshold < entry.amount,
            RuleType::CreditedFrom => {
                is_credit && self.interest.rules[self.rule].counterparty == entry.counterparty
            }
        }
    }

    fn tell(
        &self,
        entry: &Stamped<AccountEntry>,
        give: &mut impl FnMut(&Stamped<AccountEntry>, &Interest, &Rule, &Address),
    ) {
        let rule = &self.interest.rules[self.rule];
        for address in self
            .interest
            .addresses
            .iter()
            .filter(|address| rule.channels & bit(address.channel) != 0)
        {
            give(entry, &self.interest, rule, address);
        }
    }
}

impl Account {
    /// The watches of the authorized.
    fn join(&mut self) {
        self.watches.clear();
        for interest in self
            .interests
            .iter()
            .filter(|interest| self.authorized.contains(&interest.customer))
        {
            let watch = |(at, rule): (usize, &Rule)| Watch {
                threshold: rule.threshold,
                kind: rule.kind,
                currency: interest.currency.clone(),
                interest: Rc::clone(interest),
                rule: at,
            };
            self.watches.extend(interest.rules.iter().enumerate().map(watch));
        }
    }
}

fn account<'a>(accounts: &'a mut HashTable<Account>, hash: u64, key: &Text) -> &'a mut Account {
    let is = |account: &Account| account.hash == hash && account.key == *key;
    let make = || {
        let (authorized, interests, watches) = (Vec::new(), Vec::new(), Vec::new());
        Account {
            hash,
            key: key.clone(),
            authorized,
            interests,
            watches,
        }
    };
    accounts
        .entry(hash, is, |account| account.hash)
        .or_insert_with(make)
        .into_mut()
}

fn bit(channel: Channel) -> u8 {
    1 << channel as u8
}

/// The interests in a customer's settings by account: one for each account and currency, each rule once.
fn interests(settings: &CustomerAlertSettings) -> Vec<(Text, Interest)> {
    let mut addresses = settings.addresses.clone();
    addresses.sort_unstable();
    addresses.dedup();
    let addresses: Rc<[Address]> = addresses.into();
    let mut interests = Vec::<(Text, Interest)>::new();
    for named in &settings.accounts {
        let same = |(account, interest): &(Text, Interest)| {
            *account == named.account_id && interest.currency == named.currency
        };
        let at = interests.iter().position(same).unwrap_or_else(|| {
            let (customer, currency) = (settings.customer_id.clone(), named.currency.clone());
            let interest = Interest {
                customer,
                currency,
                rules: Vec::new(),
                addresses: Rc::clone(&addresses),
            };
            interests.push((named.account_id.clone(), interest));
            interests.len() - 1
        });
        let rules = &mut interests[at].1.rules;
        for rule in &named.alerts {
            let of_counterparty = rule.r#type == RuleType::CreditedFrom;
            let threshold = if of_counterparty {
                0
            } else {
                rule.threshold.unwrap_or(0)
            };
            let counterparty = rule.counterparty.clone().filter(|_| of_counterparty);
            let channels = rule.channels.iter().fold(0, |bits, channel| bits | bit(*channel));
            let same = |other: &&mut Rule| {
                (other.kind, other.threshold, &other.counterparty) == (rule.r#type, threshold, &counterparty)
            };
            match rules.iter_mut().find(same) {
                Some(other) => other.channels |= channels,
                None => rules.push(Rule {
                    kind: rule.r#type,
                    threshold,
                    counterparty,
                    channels,
                }),
            }
        }
    }
    interests
}

//! The records of one key in order of (event time, origin), with their copies: a sorted multiset.
//!
//! Records come nearly in order and leave from the front, so a deque is the whole data structure. Each record
//! is a state row of its own, (name, record) -> copies; a checkpoint writes those that changed since the one
//! before. A record whose copies are back at 0 is dropped at once, unless a checkpoint holds its row: then it
//! waits for the next, which removes it.

use super::late::Timed;
use super::slots::state_row;
use crate::checkpoint::row::StateRow;
use crate::time::{Diff, Millis};
use serde::Serialize;
use std::collections::VecDeque;

/// One distinct record.
struct Entry<V> {
    record: Timed<V>,
    /// How many times it is there. Below 0 only within an epoch: a retraction can arrive before what it
    /// retracts.
    copies: Diff,
    /// A checkpoint holds its row.
    stored: bool,
    /// That row is out of date.
    changed: bool,
}

/// The records of one key.
pub(super) struct Timeline<V>(VecDeque<Entry<V>>);

impl<V> Default for Timeline<V> {
    fn default() -> Self {
        Timeline(VecDeque::new())
    }
}

impl<V: Ord + Clone + Serialize> Timeline<V> {
    /// Whether it holds nothing, not even a row to remove.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds copies of a record and gives its place, and how many copies there were before.
    /// [`Timeline::settle`] that place.
    pub fn add(&mut self, record: Timed<V>, diff: Diff) -> (usize, Diff) {
        // Most records are the last of their key so far: ask there first.
        let last_is_before = self.0.back().is_none_or(|last| last.record < record);
        let place = if last_is_before {
            Err(self.0.len())
        } else {
            self.0.binary_search_by(|entry| entry.record.cmp(&record))
        };
        let at = place.unwrap_or_else(|at| {
            let (copies, stored, changed) = (0, false, false);
            self.0.insert(
                at,
                Entry {
                    record,
                    copies,
                    stored,
                    changed,
                },
            );
            at
        });
        let entry = &mut self.0[at];
        entry.changed = true;
        entry.copies += diff;
        (at, entry.copies - diff)
    }

    /// Drops the record at this place if nothing is left of it.
    pub fn settle(&mut self, at: usize) {
        if self.0[at].copies == 0 && !self.0[at].stored {
            self.0.remove(at);
        }
    }

    /// Takes back a record that a checkpoint holds.
    pub fn restore(&mut self, record: Timed<V>, copies: Diff) {
        let (at, _) = self.add(record, copies);
        (self.0[at].stored, self.0[at].changed) = (true, false);
    }

    /// The first record and its copies, which may be none.
    pub fn first(&self) -> Option<(&Timed<V>, Diff)> {
        self.0.front().map(|entry| (&entry.record, entry.copies))
    }

    /// Leaves one copy of the first record.
    pub fn leave_one(&mut self) {
        if let Some(first) = self.0.front_mut() {
            first.changed |= first.copies != 1;
            first.copies = 1;
        }
    }

    /// The nearest record before this place that is there.
    pub fn before(&self, at: usize) -> Option<&Timed<V>> {
        let mut entries = self.0.range(..at).rev();
        entries.find(|entry| entry.copies > 0).map(|entry| &entry.record)
    }

    /// The nearest record after this place that is there.
    pub fn after(&self, at: usize) -> Option<&Timed<V>> {
        let mut entries = self.0.range(at + 1..);
        entries.find(|entry| entry.copies > 0).map(|entry| &entry.record)
    }

    /// The record at this place.
    pub fn at(&self, at: usize) -> &Timed<V> {
        &self.0[at].record
    }

    /// The records of these event times, both ends included, with their copies; none that are not there.
    pub fn between(&self, from: Millis, to: Millis) -> impl Iterator<Item = (&Timed<V>, Diff)> {
        let start = self.0.partition_point(|entry| entry.record.time < from);
        self.0
            .range(start..)
            .take_while(move |entry| entry.record.time <= to)
            .filter(|entry| entry.copies != 0)
            .map(|entry| (&entry.record, entry.copies))
    }

    /// Takes the first record out; what a checkpoint holds of it is `gone`.
    pub fn forget_first(&mut self, name: u8, gone: &mut Vec<StateRow>) -> Option<Timed<V>> {
        let entry = self.0.pop_front()?;
        if entry.stored {
            gone.push(state_row::<Diff>(entry.record.hash, &(name, &entry.record), None));
        }
        Some(entry.record)
    }

    /// Gives the rows that changed since the last call, under the name of this timeline among those of its
    /// operator.
    pub fn changed(&mut self, name: u8, rows: &mut Vec<StateRow>) {
        self.0.retain_mut(|entry| {
            let there = entry.copies != 0;
            if entry.changed && (there || entry.stored) {
                let value = there.then_some(&entry.copies);
                rows.push(state_row(entry.record.hash, &(name, &entry.record), value));
                entry.stored = there;
                entry.changed = false;
            }
            there
        });
    }
}

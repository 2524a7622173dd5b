//! Neighbours: a pattern of two records that follow each other in a key's order of (event time, partition,
//! offset).
//!
//! Of neighbours `(a, b)` it is a **match** when `a` opens the pattern, `b` is less than `within` after `a`,
//! and `b` closes what `a` opened. An opening `a` with no record less than `within` after it is a
//! **timeout**. Overlapping matches all count. Ties are ordered by origin; equal records are neighbours of
//! each other.
//!
//! ```text
//!  update ──► timeline of the key ─┬─ Eager: +match as soon as it holds, -match when it no longer does
//!                 ▲                ├─ Final: the match once its second record is final
//!  watermark ─► timers by time ────┴─ both: the timeout once it is certain
//! ```
//!
//! **Final** is every record before the global watermark `W`: what is on time is at or after it, so nothing
//! can come before such a record or be retracted there. An update before `W` is a correction that comes too
//! late, and is refused.
//!
//! **State shrinks** to the records at or after `W` and at most one final record per key. For a final record
//! `a`:
//! - If its neighbour `b` is final too, all about `a` is decided: match, timeout or neither. It is dropped.
//!   As a barrier it is not needed: what is before it had `a` itself for a neighbour and is decided for the
//!   same reason.
//! - Otherwise `a` is the last final record of its key. If it does not open the pattern it begins neither a
//!   match nor a timeout and is dropped. If it opens, it waits for its neighbour, at the longest until `W`
//!   has reached `a + within`: then whatever comes is `within` after it, so it is a timeout, and is dropped.
//!
//! Dropping retracts nothing: an eager match of a dropped record stands for good.
//!
//! **State rows** are (0, record) -> copies. Which matches hold follows from the records. The watermark is
//! not state: until it is told again after a restart nothing becomes final, and no match or timeout is found
//! twice, for whatever was decided was dropped.

use super::late::{Refused, Timed, accepted};
use super::slots::{Slot, Slots, Timers, decode};
use super::timeline::Timeline;
use super::{Context, Core, Side, drive};
use crate::checkpoint::row::StateRow;
use crate::operators::drive::Batch;
use crate::record::{Messages, Text, Updates};
use crate::time::{BEFORE_ALL, Diff, Epoch, Millis};
use differential_dataflow::ExchangeData;
use differential_dataflow::consolidation::consolidate_updates;
use serde::{Deserialize, Serialize};

/// When matches are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Emit {
    /// Once, when nothing can come between the two any more.
    Final,
    /// At once, and taken back when something comes between.
    Eager,
}

/// Whether the second record closes what the first one opened.
pub type Closes<V> = dyn Fn(&V, &V) -> bool;

/// What makes neighbours a match.
pub struct Pattern<V> {
    /// Whether a record can be the first of a match, and can time out.
    pub opens: Box<dyn Fn(&V) -> bool>,
    /// Whether a record closes what its neighbour before it opened.
    pub closes: Box<Closes<V>>,
    /// The second record comes less than this after the first, milliseconds; at least 1.
    pub within: Millis,
    /// When matches are given. Timeouts are given when they are certain.
    pub emit: Emit,
}

impl<V> Pattern<V> {
    fn matches(&self, first: &Timed<V>, second: &Timed<V>) -> bool {
        second.time < self.expiry(first)
            && (self.opens)(&first.value)
            && (self.closes)(&first.value, &second.value)
    }

    /// When an opening record times out.
    fn expiry(&self, record: &Timed<V>) -> Millis {
        record.time.saturating_add(self.within.max(1))
    }
}

/// What is found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Found<V> {
    /// Neighbours that match.
    Match(Timed<V>, Timed<V>),
    /// An opening record that nothing followed in time.
    Timeout(Timed<V>),
}

/// What the search gives.
pub struct Findings<'s, V: ExchangeData> {
    /// Neighbours that match, in the order of the key within an epoch once sorted.
    pub matches: Updates<'s, (Timed<V>, Timed<V>)>,
    /// Opening records that nothing followed in time.
    pub timeouts: Updates<'s, Timed<V>>,
    /// Corrections that came too late.
    pub refused: Updates<'s, Refused>,
}

/// Searches the records of each key for the pattern.
pub fn neighbours<'s, V: ExchangeData>(
    context: &Context<'s>,
    name: &str,
    records: Updates<'s, Timed<V>>,
    watermark: Messages<'s, Millis>,
    pattern: Pattern<V>,
) -> Findings<'s, V> {
    let watermarks = vec![(Side::Left, watermark)];
    let core = Neighbours::new(pattern);
    let (found, refused) = accepted(drive(context, name, core, records, None, watermarks));
    let (matches, timeouts) = accepted(found.map(|found| match found {
        Found::Match(first, second) => Ok((first, second)),
        Found::Timeout(record) => Err(record),
    }));
    Findings {
        matches,
        timeouts,
        refused,
    }
}

/// The records of one key that are not decided.
struct Open<V> {
    key: Text,
    hash: u64,
    records: Timeline<V>,
}

impl<V> Default for Open<V> {
    fn default() -> Self {
        Open {
            key: Text::default(),
            hash: 0,
            records: Timeline::default(),
        }
    }
}

impl<V> Slot for Open<V> {
    fn hash(&self) -> u64 {
        self.hash
    }
}

/// The name of the only timeline in state rows.
const RECORDS: u8 = 0;

/// The core of [`neighbours`].
pub(super) struct Neighbours<V> {
    pattern: Pattern<V>,
    watermark: Millis,
    slots: Slots<Open<V>>,
    /// When a record is final, and when it times out.
    timers: Timers,
    /// What this epoch found and took back, one update at a time; its net is given.
    found: Batch<Result<Found<V>, Refused>>,
    /// Rows of dropped records that a checkpoint still holds.
    gone: Vec<StateRow>,
}

impl<V: ExchangeData> Neighbours<V> {
    /// No records.
    pub fn new(pattern: Pattern<V>) -> Self {
        Neighbours {
            pattern,
            watermark: BEFORE_ALL,
            slots: Slots::default(),
            timers: Timers::default(),
            found: Vec::new(),
            gone: Vec::new(),
        }
    }

    /// The slot of a record, with timers for when it is final and when it times out.
    fn slot(&mut self, record: &Timed<V>) -> u32 {
        let hash = record.hash;
        let is = |open: &Open<V>| open.hash == hash && open.key == record.key;
        let make = || Open {
            key: record.key.clone(),
            hash,
            ..Open::default()
        };
        let at = self.slots.find_or_insert(hash, is, make);
        self.timers.add(record.time.saturating_add(1), at);
        if (self.pattern.opens)(&record.value) {
            self.timers.add(self.pattern.expiry(record), at);
        }
        at
    }

    fn free_if_empty(&mut self, at: u32) {
        if self.slots[at].records.is_empty() {
            self.slots.remove(at);
        }
    }

    /// Drops what is decided at the front of a key's records, and gives what was found.
    fn decide(&mut self, at: u32, epoch: Epoch) {
        let (watermark, pattern) = (self.watermark, &self.pattern);
        let records = &mut self.slots[at].records;
        while let Some((first, copies)) = records.first()
            && first.time < watermark
        {
            if copies > 0 {
                let next = records.after(0).filter(|next| next.time < watermark);
                let opens = (pattern.opens)(&first.value);
                let expired = match next {
                    Some(next) => next.time >= pattern.expiry(first),
                    None => watermark >= pattern.expiry(first),
                };
                if pattern.emit == Emit::Final {
                    let with_next = next.filter(|next| pattern.matches(first, next));
                    let (once, twice) = (with_next.cloned(), copies > 1 && pattern.matches(first, first));
                    self.found.extend(once.map(|next| {
                        let found = Found::Match(first.clone(), next);
                        (Ok(found), epoch, 1)
                    }));
                    if twice {
                        let found = Found::Match(first.clone(), first.clone());
                        self.found.push((Ok(found), epoch, copies - 1));
                    }
                }
                if opens && expired {
                    self.found.push((Ok(Found::Timeout(first.clone())), epoch, 1));
                }
                if opens && !expired && next.is_none() {
                    if copies > 1 {
                        records.leave_one();
                        self.slots.touch(at);
                    }
                    return;
                }
            }
            records.forget_first(RECORDS, &mut self.gone);
        }
        self.free_if_empty(at);
    }

    /// Emit::Eager: the matches around a record of which there were `before` copies and are `after`.
    fn rematch(&mut self, at: u32, place: usize, before: Diff, after: Diff, epoch: Epoch) {
        let (pattern, records) = (&self.pattern, &self.slots[at].records);
        let record = records.at(place);
        let (previous, next) = (records.before(place), records.after(place));
        let found = &mut self.found;
        let mut count = |first: Option<&Timed<V>>, second: Option<&Timed<V>>, diff: Diff| {
            if let (Some(first), Some(second)) = (first, second)
                && diff != 0
                && pattern.matches(first, second)
            {
                found.push((Ok(Found::Match(first.clone(), second.clone())), epoch, diff));
            }
        };
        // With copies, the record stands between its neighbours and has the rest of its copies for neighbours
        // itself.
        for (copies, sign) in [(before, -1), (after, 1)] {
            if copies <= 0 {
                count(previous, next, sign);
            } else {
                count(previous, Some(record), sign);
                count(Some(record), Some(record), sign * (copies - 1));
                count(Some(record), next, sign);
            }
        }
    }
}

impl<V: ExchangeData> Core for Neighbours<V> {
    type Left = Timed<V>;
    type Right = ();
    type Out = Result<Found<V>, Refused>;

    fn left_hash(left: &Timed<V>) -> u64 {
        left.hash
    }
    fn right_hash((): &()) -> u64 {
        0
    }

    fn left(&mut self, epoch: Epoch, batch: &mut Batch<Timed<V>>, out: &mut Batch<Self::Out>) {
        for (record, _, diff) in batch.drain(..) {
            if record.time < self.watermark {
                out.push((Err(Refused::new(record, self.watermark)), epoch, diff));
                continue;
            }
            let at = self.slot(&record);
            let (place, before) = self.slots[at].records.add(record, diff);
            if self.pattern.emit == Emit::Eager {
                self.rematch(at, place, before, before + diff, epoch);
            }
            self.slots[at].records.settle(place);
            self.slots.touch(at);
            self.free_if_empty(at);
        }
    }

    fn watermark(&mut self, _: Side, watermark: Millis) {
        self.watermark = self.watermark.max(watermark);
    }

    fn finish(&mut self, epoch: Epoch, out: &mut Batch<Self::Out>) {
        while let Some(due) = self.timers.due(self.watermark) {
            for at in due {
                self.decide(at, epoch);
            }
        }
        consolidate_updates(&mut self.found);
        out.append(&mut self.found);
    }

    fn restore(&mut self, row: &StateRow) -> Result<(), String> {
        if let Some(((_, record), copies)) = decode::<(u8, Timed<V>), Diff>(row)? {
            let at = self.slot(&record);
            self.slots[at].records.restore(record, copies);
        }
        Ok(())
    }

    fn changed(&mut self, rows: &mut Vec<StateRow>) {
        rows.append(&mut self.gone);
        for at in self.slots.take_changed() {
            self.slots[at].records.changed(RECORDS, rows);
            self.free_if_empty(at);
        }
    }
}

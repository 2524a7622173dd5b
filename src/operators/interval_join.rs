//! Interval join: the pairs of a left and a right record of one key whose event times are at most `within`
//! apart.
//!
//! Each pair once, as soon as both are there, with the product of their differences; a retraction retracts
//! the pairs of what it retracts. Within an epoch only the net is given. No order is promised.
//!
//! ```text
//!  right update ─► pairs with the lefts so far ──► timeline of rights ─┬─ forgotten by the other
//!  left update ──► pairs with the rights so far ─► timeline of lefts ──┘  side's watermark
//! ```
//!
//! **When a record is late** is the source's affair: when `event time + within + grace` is not ahead of its
//! own partition's watermark. **When it may be forgotten** follows from that. A partner on time has an event
//! time above `W - within - grace`, where `W` is the global watermark of the *other* side, and lies at most
//! `within` after the record. So none can come once `W` has reached `event time + 2 * within + grace`, and
//! one may come as long as it has not. A record that arrives when it could already be forgotten (its own side
//! lags) is joined and forgotten in one epoch.
//!
//! **What it refuses**: an update that is late even by the global watermark of its own side. Everything it
//! could pair with is still there until then, so until then a correction is exact; afterwards it is refused.
//!
//! **State rows** are (side, record) -> copies. The watermarks are not state: before they are told again
//! after a restart nothing is forgotten, and a record that need not have been kept is forgotten then.

use super::late::{Refused, Timed, accepted, refused_of};
use super::slots::{Slot, Slots, Timers, decode};
use super::timeline::Timeline;
use super::{Context, Core, Side, drive};
use crate::checkpoint::row::StateRow;
use crate::operators::drive::Batch;
use crate::record::{Messages, Text, Updates};
use crate::time::{BEFORE_ALL, Diff, Epoch, Millis};
use differential_dataflow::ExchangeData;
use differential_dataflow::consolidation::consolidate_updates;

/// How far apart partners may be, and how late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Greatest distance of the event times of a pair, milliseconds.
    pub within: Millis,
    /// How much longer a record is waited for, milliseconds of event time.
    pub grace: Millis,
}

impl Interval {
    /// The watermark of its own partition at which a record of this event time is late.
    pub fn late_at(&self, time: Millis) -> Millis {
        time.saturating_add(self.within).saturating_add(self.grace)
    }

    /// The global watermark of the other side at which a record of this event time is forgotten.
    fn forgotten_at(&self, time: Millis) -> Millis {
        self.late_at(time.saturating_add(self.within))
    }
}

/// A left record and a right record.
pub type Pair<L, R> = (Timed<L>, Timed<R>);

/// What an interval join gives.
pub struct Joined<'s, L: ExchangeData, R: ExchangeData> {
    /// The pairs.
    pub pairs: Updates<'s, Pair<L, R>>,
    /// Corrections of the left side that came too late.
    pub refused_left: Updates<'s, Refused>,
    /// Corrections of the right side that came too late.
    pub refused_right: Updates<'s, Refused>,
}

/// Joins two inputs, each with its global watermark.
pub fn interval_join<'s, L: ExchangeData, R: ExchangeData>(
    context: &Context<'s>,
    name: &str,
    left: (Updates<'s, Timed<L>>, Messages<'s, Millis>),
    right: (Updates<'s, Timed<R>>, Messages<'s, Millis>),
    interval: Interval,
) -> Joined<'s, L, R> {
    let watermarks = vec![(Side::Left, left.1), (Side::Right, right.1)];
    let core = IntervalJoin::new(interval);
    let (pairs, refused) = accepted(drive(context, name, core, left.0, Some(right.0), watermarks));
    Joined {
        pairs,
        refused_left: refused_of(refused.clone(), Side::Left),
        refused_right: refused_of(refused, Side::Right),
    }
}

/// The records of one key.
struct Partners<L, R> {
    key: Text,
    hash: u64,
    left: Timeline<L>,
    right: Timeline<R>,
}

impl<L, R> Default for Partners<L, R> {
    fn default() -> Self {
        let (key, hash) = (Text::default(), 0);
        let (left, right) = (Timeline::default(), Timeline::default());
        Partners {
            key,
            hash,
            left,
            right,
        }
    }
}

impl<L, R> Slot for Partners<L, R> {
    fn hash(&self) -> u64 {
        self.hash
    }
}

/// The names of the timelines in state rows.
const LEFT: u8 = 0;
const RIGHT: u8 = 1;

/// The core of [`interval_join`].
pub(super) struct IntervalJoin<L, R> {
    interval: Interval,
    left_watermark: Millis,
    right_watermark: Millis,
    slots: Slots<Partners<L, R>>,
    /// Lefts to forget, by watermarks of the right side.
    lefts: Timers,
    /// Rights to forget, by watermarks of the left side.
    rights: Timers,
    /// The epoch's output: netted only if there was a retraction.
    pairs: Batch<Result<Pair<L, R>, (Side, Refused)>>,
    retracted: bool,
    /// Rows of forgotten records that a checkpoint still holds.
    gone: Vec<StateRow>,
}

impl<L: ExchangeData, R: ExchangeData> IntervalJoin<L, R> {
    /// No records.
    pub fn new(interval: Interval) -> Self {
        IntervalJoin {
            interval,
            left_watermark: BEFORE_ALL,
            right_watermark: BEFORE_ALL,
            slots: Slots::default(),
            lefts: Timers::default(),
            rights: Timers::default(),
            pairs: Vec::new(),
            retracted: false,
            gone: Vec::new(),
        }
    }

    fn slot(&mut self, key: &Text, hash: u64) -> u32 {
        let is = |partners: &Partners<L, R>| partners.hash == hash && partners.key == *key;
        let make = || Partners {
            key: key.clone(),
            hash,
            ..Partners::default()
        };
        self.slots.find_or_insert(hash, is, make)
    }

    /// Gives a slot without records back.
    fn free_if_empty(&mut self, at: u32) {
        let partners = &self.slots[at];
        if partners.left.is_empty() && partners.right.is_empty() {
            self.slots.remove(at);
        }
    }

    fn forget(&mut self) {
        while let Some(due) = self.lefts.due(self.right_watermark) {
            for at in due {
                let left = &mut self.slots[at].left;
                forget(left, LEFT, self.interval, self.right_watermark, &mut self.gone);
                self.free_if_empty(at);
            }
        }
        while let Some(due) = self.rights.due(self.left_watermark) {
            for at in due {
                let right = &mut self.slots[at].right;
                forget(right, RIGHT, self.interval, self.left_watermark, &mut self.gone);
                self.free_if_empty(at);
            }
        }
    }
}

/// The partners of a record of this event time, with their copies.
fn partners<V: ExchangeData>(
    others: &Timeline<V>,
    time: Millis,
    within: Millis,
) -> impl Iterator<Item = (&Timed<V>, Diff)> {
    others.between(time.saturating_sub(within), time.saturating_add(within))
}

/// Keeps copies of a record, or takes them back.
fn keep<V: ExchangeData>(own: &mut Timeline<V>, record: Timed<V>, diff: Diff) {
    let (place, _) = own.add(record, diff);
    own.settle(place);
}

/// Drops the records that the other side's watermark has left without partners to come.
fn forget<V: ExchangeData>(
    own: &mut Timeline<V>,
    name: u8,
    interval: Interval,
    others: Millis,
    gone: &mut Vec<StateRow>,
) {
    while let Some((first, _)) = own.first()
        && interval.forgotten_at(first.time) <= others
    {
        own.forget_first(name, gone);
    }
}

impl<L: ExchangeData, R: ExchangeData> Core for IntervalJoin<L, R> {
    type Left = Timed<L>;
    type Right = Timed<R>;
    type Out = Result<Pair<L, R>, (Side, Refused)>;

    fn left_hash(left: &Timed<L>) -> u64 {
        left.hash
    }
    fn right_hash(right: &Timed<R>) -> u64 {
        right.hash
    }

    fn right(&mut self, epoch: Epoch, batch: &mut Batch<Timed<R>>, out: &mut Batch<Self::Out>) {
        for (record, _, diff) in batch.drain(..) {
            self.retracted |= diff < 0;
            if self.interval.late_at(record.time) <= self.right_watermark {
                let refused = Refused::new(record, self.right_watermark);
                out.push((Err((Side::Right, refused)), epoch, diff));
                continue;
            }
            let at = self.slot(&record.key, record.hash);
            let slot = &mut self.slots[at];
            for (left, copies) in partners(&slot.left, record.time, self.interval.within) {
                let pair = (left.clone(), record.clone());
                self.pairs.push((Ok(pair), epoch, copies * diff));
            }
            self.rights.add(self.interval.forgotten_at(record.time), at);
            keep(&mut slot.right, record, diff);
            self.slots.touch(at);
            self.free_if_empty(at);
        }
    }

    fn left(&mut self, epoch: Epoch, batch: &mut Batch<Timed<L>>, out: &mut Batch<Self::Out>) {
        for (record, _, diff) in batch.drain(..) {
            self.retracted |= diff < 0;
            if self.interval.late_at(record.time) <= self.left_watermark {
                let refused = Refused::new(record, self.left_watermark);
                out.push((Err((Side::Left, refused)), epoch, diff));
                continue;
            }
            let at = self.slot(&record.key, record.hash);
            let slot = &mut self.slots[at];
            for (right, copies) in partners(&slot.right, record.time, self.interval.within) {
                let pair = (record.clone(), right.clone());
                self.pairs.push((Ok(pair), epoch, copies * diff));
            }
            self.lefts.add(self.interval.forgotten_at(record.time), at);
            keep(&mut slot.left, record, diff);
            self.slots.touch(at);
            self.free_if_empty(at);
        }
    }

    fn watermark(&mut self, side: Side, watermark: Millis) {
        match side {
            Side::Left => self.left_watermark = self.left_watermark.max(watermark),
            Side::Right => self.right_watermark = self.right_watermark.max(watermark),
        }
    }

    fn finish(&mut self, _: Epoch, out: &mut Batch<Self::Out>) {
        // Copies can be negative only where this epoch retracted: a retraction may have come before its
        // insertion.
        if std::mem::take(&mut self.retracted) {
            consolidate_updates(&mut self.pairs);
        }
        out.append(&mut self.pairs);
        self.forget();
    }

    fn restore(&mut self, row: &StateRow) -> Result<(), String> {
        match row.key.first() {
            Some(&LEFT) => {
                if let Some(((_, record), copies)) = decode::<(u8, Timed<L>), Diff>(row)? {
                    let at = self.slot(&record.key, record.hash);
                    self.lefts.add(self.interval.forgotten_at(record.time), at);
                    self.slots[at].left.restore(record, copies);
                }
                Ok(())
            }
            Some(&RIGHT) => {
                if let Some(((_, record), copies)) = decode::<(u8, Timed<R>), Diff>(row)? {
                    let at = self.slot(&record.key, record.hash);
                    self.rights.add(self.interval.forgotten_at(record.time), at);
                    self.slots[at].right.restore(record, copies);
                }
                Ok(())
            }
            name => Err(format!("a state row of no known timeline: {name:?}")),
        }
    }

    fn changed(&mut self, rows: &mut Vec<StateRow>) {
        rows.append(&mut self.gone);
        for at in self.slots.take_changed() {
            self.slots[at].left.changed(LEFT, rows);
            self.slots[at].right.changed(RIGHT, rows);
            self.free_if_empty(at);
        }
    }
}

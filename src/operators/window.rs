//! Tumbling windows: count, sum, least and greatest amount per key and window, exact under retraction.
//!
//! A window is `[k * size, (k + 1) * size)` over event time, floored, also below zero. It closes when the global
//! watermark reaches its end plus the grace; then its state is gone, and a later update for it is refused, never a new
//! window.
//!
//! ```text
//!  update ─► slot of (key, window): count, sum, amounts ─┬─ Final: one row when the window closes
//!                 ▲                                      └─ Changes: -old +new for each epoch that changed the row
//!  watermark ─► timers by closing time
//! ```
//!
//! **Retraction** needs the amounts themselves: when the least one goes, the next is the least. A window keeps few amounts
//! as a list in its slot, many as a map, so that neither a window of one order nor one of a million is slow. A window
//! whose count is back at 0 is no row.
//!
//! **Ties** do not matter: all four figures are symmetric. **State rows** are (key, window) -> amounts; the figures are
//! recomputed. The watermark is not state: until the run loop tells it again after a restart, nothing closes.
//!
//! The sum is kept in 128 bits and clamped to 64 on output.

use super::late::{Refused, Timed, accepted};
use super::slots::{Slot, Slots, Timers, decode, state_row};
use super::{Context, Core, Side, drive};
use crate::checkpoint::row::StateRow;
use crate::operators::drive::Batch;
use crate::record::{Messages, Text, Updates};
use crate::time::{BEFORE_ALL, Diff, Epoch, Millis};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// When rows are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Emit {
    /// Once per window, when it closes.
    Final,
    /// In every epoch in which the row changed.
    Changes,
}

/// Which windows, and when their rows are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tumbling {
    /// Length of a window, milliseconds; at least 1.
    pub size: Millis,
    /// How long after its end a window stays open, milliseconds of event time.
    pub grace: Millis,
    /// When rows are given.
    pub emit: Emit,
}

impl Tumbling {
    /// The start of the window that `time` falls into.
    #[inline]
    fn start(&self, time: Millis) -> Millis {
        let size = self.size.max(1);
        time.div_euclid(size).saturating_mul(size)
    }

    /// The end of the window that starts at `start`, exclusive.
    pub fn end(&self, start: Millis) -> Millis {
        start.saturating_add(self.size.max(1))
    }

    /// The watermark that closes the window of `time`: a record whose watermark has reached it is late.
    pub fn closes(&self, time: Millis) -> Millis {
        self.closing(self.start(time))
    }

    /// The watermark that closes the window that starts at `start`.
    #[inline]
    fn closing(&self, start: Millis) -> Millis {
        self.end(start).saturating_add(self.grace)
    }
}

/// The row of one key and window.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Aggregate {
    /// The key.
    pub key: Text,
    /// Start of the window, inclusive.
    pub start: Millis,
    /// The figures.
    pub figures: Figures,
}

/// What a window adds up to; its count is above 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Figures {
    /// Number of records.
    pub count: i64,
    /// Sum of the amounts, clamped to 64 bits.
    pub sum: i64,
    /// Least amount.
    pub min: i64,
    /// Greatest amount.
    pub max: i64,
}

/// Aggregates `measures`, whose values are amounts, over tumbling windows. Gives the rows and the refused corrections.
pub fn tumbling<'s>(
    context: &Context<'s>,
    name: &str,
    measures: Updates<'s, Timed<i64>>,
    watermark: Messages<'s, Millis>,
    tumbling: Tumbling,
) -> (Updates<'s, Aggregate>, Updates<'s, Refused>) {
    let watermarks = vec![(Side::Left, watermark)];
    let core = Windows::new(tumbling);
    accepted(drive(context, name, core, measures, None, watermarks))
}

/// A list of amounts longer than this becomes a map.
const FEW: usize = 32;

/// The amounts of one window, as a multiset.
enum Amounts {
    /// Each copy an element, in any order. Five of them lie in the slot itself.
    Few(SmallVec<[i64; 5]>),
    /// Copies by amount. They may be negative within an epoch: a retraction can arrive before what it retracts.
    Many(BTreeMap<i64, Diff>),
}

impl Amounts {
    #[inline]
    fn add(&mut self, amount: i64, diff: Diff) {
        if let Amounts::Few(few) = self {
            if diff == 1 && few.len() < FEW {
                return few.push(amount);
            }
            if diff == -1
                && let Some(at) = few.iter().position(|other| *other == amount)
            {
                few.swap_remove(at);
                return;
            }
        }
        self.add_many(amount, diff);
    }

    #[cold]
    fn add_many(&mut self, amount: i64, diff: Diff) {
        let mut many = match std::mem::take(self) {
            Amounts::Few(few) => {
                let mut many = BTreeMap::new();
                few.into_iter()
                    .for_each(|amount| *many.entry(amount).or_default() += 1);
                many
            }
            Amounts::Many(many) => many,
        };
        let copies = many.entry(amount).or_default();
        *copies += diff;
        if *copies == 0 {
            many.remove(&amount);
        }
        *self = Amounts::Many(many);
    }

    /// Least and greatest amount.
    fn extremes(&self) -> Option<(i64, i64)> {
        match self {
            Amounts::Few(few) => Some((*few.iter().min()?, *few.iter().max()?)),
            Amounts::Many(many) => {
                let mut present = many
                    .iter()
                    .filter(|(_, copies)| **copies > 0)
                    .map(|(amount, _)| *amount);
                let least = present.next()?;
                Some((least, present.next_back().unwrap_or(least)))
            }
        }
    }

    /// Amounts and copies, as a state row holds them.
    fn copies(&self) -> Vec<(i64, Diff)> {
        match self {
            Amounts::Few(few) => few.iter().map(|amount| (*amount, 1)).collect(),
            Amounts::Many(many) => many.iter().map(|(amount, copies)| (*amount, *copies)).collect(),
        }
    }
}

impl Default for Amounts {
    fn default() -> Self {
        Amounts::Few(SmallVec::new())
    }
}

/// One key and window.
#[derive(Default)]
struct Window {
    key: Text,
    hash: u64,
    start: Millis,
    count: i64,
    sum: i128,
    amounts: Amounts,
    /// A checkpoint holds a row of it.
    stored: bool,
    /// It is in the list of this epoch's changes.
    listed: bool,
}

impl Slot for Window {
    #[inline]
    fn hash(&self) -> u64 {
        slot_hash(self.hash, self.start)
    }
}

impl Window {
    #[inline]
    fn add(&mut self, amount: i64, diff: Diff) {
        self.count += diff;
        self.sum += i128::from(amount) * i128::from(diff);
        self.amounts.add(amount, diff);
    }

    fn figures(&self) -> Option<Figures> {
        if self.count <= 0 {
            return None;
        }
        let (min, max) = self.amounts.extremes()?;
        let sum = self.sum.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        let count = self.count;
        Some(Figures { count, sum, min, max })
    }

    fn row(&self, figures: Figures) -> Aggregate {
        Aggregate {
            key: self.key.clone(),
            start: self.start,
            figures,
        }
    }
}

/// Mixes the window into the hash of the key; an odd factor keeps different windows of a key apart.
#[inline]
fn slot_hash(hash: u64, start: Millis) -> u64 {
    hash ^ start.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The core of [`tumbling`].
pub(super) struct Windows {
    tumbling: Tumbling,
    watermark: Millis,
    slots: Slots<Window>,
    closing: Timers,
    /// Emit::Changes: the windows this epoch has touched, with the row each had before it.
    touched: Vec<(u32, Option<Figures>)>,
    /// Rows of closed windows that a checkpoint still holds.
    gone: Vec<StateRow>,
}

impl Windows {
    /// No windows.
    pub fn new(tumbling: Tumbling) -> Self {
        Windows {
            tumbling,
            watermark: BEFORE_ALL,
            slots: Slots::new(),
            closing: Timers::default(),
            touched: Vec::new(),
            gone: Vec::new(),
        }
    }

    #[inline]
    fn slot(&mut self, key: Text, hash: u64, start: Millis) -> u32 {
        let is = |window: &Window| window.start == start && window.hash == hash && window.key == key;
        let make = || Window {
            key: key.clone(),
            hash,
            start,
            ..Window::default()
        };
        let (at, new) = self.slots.find_or_insert(slot_hash(hash, start), is, make);
        if new {
            self.closing.add(self.tumbling.closing(start), at);
        }
        at
    }

    fn close(&mut self, at: u32, epoch: Epoch, out: &mut Batch<Result<Aggregate, Refused>>) {
        let window = self.slots.remove(at);
        if window.stored {
            self.gone
                .push(state_row::<()>(window.hash, &(&window.key, window.start), None));
        }
        if self.tumbling.emit == Emit::Final
            && let Some(figures) = window.figures()
        {
            let (key, start) = (window.key, window.start);
            out.push((Ok(Aggregate { key, start, figures }), epoch, 1));
        }
    }
}

impl Core for Windows {
    type Left = Timed<i64>;
    type Right = ();
    type Out = Result<Aggregate, Refused>;

    fn left_hash(left: &Timed<i64>) -> u64 {
        left.hash
    }
    fn right_hash((): &()) -> u64 {
        0
    }

    fn left(&mut self, epoch: Epoch, batch: &mut Batch<Timed<i64>>, out: &mut Batch<Self::Out>) {
        for (measure, _, diff) in batch.drain(..) {
            let start = self.tumbling.start(measure.time);
            if self.tumbling.closing(start) <= self.watermark {
                out.push((Err(Refused::new(measure, self.watermark)), epoch, diff));
                continue;
            }
            let at = self.slot(measure.key, measure.hash, start);
            let window = &mut self.slots[at];
            if self.tumbling.emit == Emit::Changes && !window.listed {
                window.listed = true;
                self.touched.push((at, window.figures()));
            }
            window.add(measure.value, diff);
            self.slots.touch(at);
        }
    }

    fn watermark(&mut self, _: Side, watermark: Millis) {
        self.watermark = self.watermark.max(watermark);
    }

    fn finish(&mut self, epoch: Epoch, out: &mut Batch<Self::Out>) {
        for (at, old) in self.touched.drain(..) {
            let window = &mut self.slots[at];
            window.listed = false;
            let new = window.figures();
            if old != new {
                out.extend(old.map(|figures| (Ok(window.row(figures)), epoch, -1)));
                out.extend(new.map(|figures| (Ok(window.row(figures)), epoch, 1)));
            }
        }
        while let Some(due) = self.closing.due(self.watermark) {
            for at in due {
                self.close(at, epoch, out);
            }
        }
    }

    fn restore(&mut self, row: &StateRow) -> Result<(), String> {
        if let Some(((key, start), amounts)) = decode::<(Text, Millis), Vec<(i64, Diff)>>(row)? {
            let at = self.slot(key, row.hash, start);
            self.slots[at].stored = true;
            for (amount, copies) in amounts {
                self.slots[at].add(amount, copies);
            }
        }
        Ok(())
    }

    fn changed(&mut self, rows: &mut Vec<StateRow>) {
        rows.append(&mut self.gone);
        for at in self.slots.take_changed() {
            let window = &mut self.slots[at];
            // Free slots, and windows that came and went between two checkpoints, hold no copies and have no row.
            let copies = window.amounts.copies();
            let value = (!copies.is_empty()).then_some(&copies);
            if value.is_some() || window.stored {
                rows.push(state_row(window.hash, &(&window.key, window.start), value));
            }
            window.stored = value.is_some();
        }
    }
}

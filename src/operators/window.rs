//! Tumbling windows: count, sum, least and greatest amount per key and window, exact under retraction.
//!
//! A window is `[k * size, (k + 1) * size)` over event time, floored, also below zero. It closes when the
//! global watermark reaches its end plus the grace; then its state is gone, and a later update for it is
//! refused, never a new window.
//!
//! ```text
//!  update ─► window by start ─► slot of the key: ─┬─ Final: one row when the window closes
//!                  ▲            count, sum, amounts └─ Changes: -old +new for each epoch that changed it
//!  watermark ──────┘ closes the first windows, whole
//! ```
//!
//! The open windows lie in order of their start, which is the order in which they close: an epoch looks at
//! the first one, however many are open. Each has its own table of keys, so closing one is a walk through
//! memory and nothing else.
//!
//! **Retraction** needs the amounts themselves (`amounts.rs`): when the least one goes, the next is the
//! least. A window whose count is back at 0 is no row.
//!
//! **Ties** do not matter: all four figures are symmetric. **State rows** are (key, window) -> amounts; the
//! figures are recomputed. The watermark is not state: until the run loop tells it again after a restart,
//! nothing closes.
//!
//! The sum is kept in 128 bits and clamped to 64 on output.

use super::amounts::Amounts;
use super::late::{Refused, Timed, accepted};
use super::slots::{Slot, Slots, decode, state_row};
use super::{Context, Core, Side, drive};
use crate::checkpoint::row::StateRow;
use crate::operators::drive::Batch;
use crate::record::{Messages, Text, Updates};
use crate::time::{BEFORE_ALL, Diff, Epoch, Millis};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

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

/// Aggregates `measures`, whose values are amounts, over tumbling windows. Gives the rows and the refused
/// corrections.
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

/// One key of one window.
#[derive(Default)]
// Two cache lines: a window of many keys is as fast as memory answers.
#[repr(align(64))]
struct Group {
    key: Text,
    hash: u64,
    count: i64,
    sum: i128,
    amounts: Amounts,
    /// A checkpoint holds a row of it.
    stored: bool,
    /// It is in the list of this epoch's changes.
    listed: bool,
}

impl Slot for Group {
    #[inline]
    fn hash(&self) -> u64 {
        self.hash
    }
}

impl Group {
    #[inline]
    fn is_of(&self, key: &Text, hash: u64) -> bool {
        self.hash == hash && self.key == *key
    }

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
}

/// The slot of a key in a window.
fn slot(window: &mut Slots<Group>, key: &Text, hash: u64) -> u32 {
    let make = || Group {
        key: key.clone(),
        hash,
        ..Group::default()
    };
    window.find_or_insert(hash, |group| group.is_of(key, hash), make)
}

/// The core of [`tumbling`].
pub(super) struct Windows {
    tumbling: Tumbling,
    watermark: Millis,
    /// The open windows by start, which is also the order in which they close.
    open: BTreeMap<Millis, Slots<Group>>,
    /// Emit::Changes: what this epoch has touched, by window, with the figures each key had before it.
    touched: BTreeMap<Millis, Vec<(u32, Option<Figures>)>>,
    /// The open windows that changed since the last checkpoint.
    changed: BTreeSet<Millis>,
    /// The slots of the updates at hand, first as the tables see it, then for sure; kept for their memory.
    likely: Vec<Option<u32>>,
    slots: Vec<u32>,
    /// The memory of the window that closed last, for the next that opens.
    spare: Slots<Group>,
    /// Rows of closed windows that a checkpoint still holds.
    gone: Vec<StateRow>,
}

impl Windows {
    /// No windows.
    pub fn new(tumbling: Tumbling) -> Self {
        Windows {
            tumbling,
            watermark: BEFORE_ALL,
            open: BTreeMap::new(),
            touched: BTreeMap::new(),
            changed: BTreeSet::new(),
            likely: Vec::new(),
            slots: Vec::new(),
            spare: Slots::default(),
            gone: Vec::new(),
        }
    }

    /// Adds updates of one open window.
    fn add(&mut self, start: Millis, run: &[(Timed<i64>, Epoch, Diff)]) {
        self.changed.insert(start);
        let spare = || std::mem::take(&mut self.spare);
        let window = self.open.entry(start).or_insert_with(spare);
        // Step by step for all, not record by record: memory answers many questions in the time of one, if
        // asked at once.
        self.likely.clear();
        let likely = run.iter().map(|(measure, _, _)| window.likely(measure.hash));
        self.likely.extend(likely);
        self.slots.clear();
        let confirmed = std::iter::zip(&self.likely, run).map(|(likely, (measure, _, _))| match likely {
            Some(at) if window[*at].is_of(&measure.key, measure.hash) => *at,
            _ => slot(window, &measure.key, measure.hash),
        });
        self.slots.extend(confirmed);
        if self.tumbling.emit == Emit::Changes {
            let touched = self.touched.entry(start).or_default();
            for &at in &self.slots {
                let group = &mut window[at];
                if !std::mem::replace(&mut group.listed, true) {
                    touched.push((at, group.figures()));
                }
            }
        }
        for (&at, (measure, _, diff)) in std::iter::zip(&self.slots, run) {
            window.touch(at);
            window[at].add(measure.value, *diff);
        }
    }

    fn close(
        &mut self,
        start: Millis,
        mut window: Slots<Group>,
        epoch: Epoch,
        out: &mut Batch<Result<Aggregate, Refused>>,
    ) {
        self.changed.remove(&start);
        for group in window.drain() {
            if group.stored {
                self.gone
                    .push(state_row::<()>(group.hash, &(&group.key, start), None));
            }
            if self.tumbling.emit == Emit::Final
                && let Some(figures) = group.figures()
            {
                let key = group.key;
                out.push((Ok(Aggregate { key, start, figures }), epoch, 1));
            }
        }
        self.spare = window;
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
        let mut rest = &batch[..];
        // Neighbouring updates mostly fall into one window: it is looked up once for all of them.
        while let Some((first, _, _)) = rest.first() {
            let start = self.tumbling.start(first.time);
            let end = self.tumbling.end(start);
            let same = |(measure, _, _): &(Timed<i64>, Epoch, Diff)| (start..end).contains(&measure.time);
            let length = rest
                .iter()
                .position(|update| !same(update))
                .unwrap_or(rest.len())
                .max(1);
            let (run, after) = rest.split_at(length);
            rest = after;
            if self.tumbling.closing(start) <= self.watermark {
                let refused = |measure: &Timed<i64>| Err(Refused::new(measure.clone(), self.watermark));
                out.extend(
                    run.iter()
                        .map(|(measure, _, diff)| (refused(measure), epoch, *diff)),
                );
            } else {
                self.add(start, run);
            }
        }
        batch.clear();
    }

    fn watermark(&mut self, _: Side, watermark: Millis) {
        self.watermark = self.watermark.max(watermark);
    }

    fn finish(&mut self, epoch: Epoch, out: &mut Batch<Self::Out>) {
        while let Some((start, touched)) = self.touched.pop_first() {
            let Some(window) = self.open.get_mut(&start) else {
                continue;
            };
            for (at, old) in touched {
                let group = &mut window[at];
                group.listed = false;
                let new = group.figures();
                if old != new {
                    let row = |figures| {
                        Ok(Aggregate {
                            key: group.key.clone(),
                            start,
                            figures,
                        })
                    };
                    out.extend(old.map(|figures| (row(figures), epoch, -1)));
                    out.extend(new.map(|figures| (row(figures), epoch, 1)));
                }
            }
        }
        while let Some(first) = self.open.first_entry()
            && self.tumbling.closing(*first.key()) <= self.watermark
        {
            let (start, window) = first.remove_entry();
            self.close(start, window, epoch, out);
        }
    }

    fn restore(&mut self, row: &StateRow) -> Result<(), String> {
        if let Some(((key, start), amounts)) = decode::<(Text, Millis), Vec<(i64, Diff)>>(row)? {
            let window = self.open.entry(start).or_default();
            let at = slot(window, &key, row.hash);
            window[at].stored = true;
            for (amount, copies) in amounts {
                window[at].add(amount, copies);
            }
        }
        Ok(())
    }

    fn changed(&mut self, rows: &mut Vec<StateRow>) {
        rows.append(&mut self.gone);
        while let Some(start) = self.changed.pop_first() {
            let Some(window) = self.open.get_mut(&start) else {
                continue;
            };
            for at in window.take_changed() {
                let group = &mut window[at];
                // A key that came and went between two checkpoints holds no copies and has no row.
                let copies = group.amounts.copies();
                let value = (!copies.is_empty()).then_some(&copies);
                if value.is_some() || group.stored {
                    rows.push(state_row(group.hash, &(&group.key, start), value));
                }
                group.stored = value.is_some();
            }
        }
    }
}

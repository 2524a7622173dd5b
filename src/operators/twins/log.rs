//! Histories as a log gives them, for the operators that work by event time, and a way to run a bare core on
//! them.
//!
//! A few partitions hold records in disorder, with ties; each has its own watermark, and only what is on time
//! by it is in the history, so that the global watermark is always consistent with what comes. Beside the
//! records there are equal copies, retractions of records that are not settled yet, epochs without anything,
//! and partitions that end.

use super::{Random, Script};
use crate::operators::drive::{Batch, Core, Side};
use crate::operators::late::{Refused, Timed};
use crate::record::{Origin, Text};
use crate::time::{AFTER_ALL, BEFORE_ALL, Epoch, Millis};
use differential_dataflow::consolidation::consolidate_updates;
use std::collections::BTreeMap;

/// The updates of one input, and its global watermark after each epoch in which it rose.
#[derive(Clone, Debug)]
pub struct Log {
    /// By epoch.
    pub updates: Batch<Timed<i64>>,
    /// Rising.
    pub watermarks: Vec<(Epoch, Millis)>,
}

/// Which histories to draw.
pub struct Shape<'a> {
    /// Number of epochs.
    pub epochs: Epoch,
    /// Values are below this.
    pub values: u64,
    /// The watermark at which a record of an event time is late.
    pub late_at: &'a dyn Fn(Millis) -> Millis,
    /// Whether every partition ends with the last epoch.
    pub ends: bool,
    /// How often in a hundred an epoch has a correction of what is settled, at most one. No log has any.
    pub corrections: u64,
}

/// A record that any history may hold.
fn record(random: &mut Random, now: Millis, values: u64, origin: Origin) -> Timed<i64> {
    let key = *random.pick(&["a", "b", "c"]);
    Timed {
        time: now - random.below(24) as Millis,
        origin,
        value: random.below(values) as i64,
        key: Text::from(key),
        // Equal hashes of different keys must not matter.
        hash: if key == "c" { 1 << 32 } else { 7 << 32 },
    }
}

/// Draws a history.
pub fn log(random: &mut Random, shape: &Shape) -> Log {
    let partitions = 1 + random.below(3) as u32;
    let disorder = random.below(20) as Millis;
    let (mut updates, mut watermarks, mut live) = (Batch::new(), Vec::new(), Vec::new());
    let mut greatest = vec![BEFORE_ALL; partitions as usize];
    let (mut global, mut now, mut offset) = (BEFORE_ALL, 0, 0);
    for epoch in 0..shape.epochs {
        for partition in 0..partitions {
            let records = if random.percent(30) { 0 } else { random.below(5) };
            for _ in 0..records {
                now += random.below(9) as Millis;
                offset += random.below(3);
                let record = record(random, now, shape.values, Origin { partition, offset });
                let greatest = &mut greatest[partition as usize];
                if (shape.late_at)(record.time) > greatest.saturating_sub(disorder) {
                    let copies = if random.percent(10) { 2 } else { 1 };
                    updates.push((record.clone(), epoch, copies));
                    live.extend(std::iter::repeat_n(record.clone(), copies as usize));
                }
                *greatest = record.time.max(*greatest);
            }
        }
        for _ in 0..random.below(3) {
            let at = random.below(live.len().max(1) as u64) as usize;
            let settled = |record: &Timed<i64>| (shape.late_at)(record.time) <= global;
            if live.get(at).is_some_and(|record| !settled(record)) {
                updates.push((live.swap_remove(at), epoch, -1));
            }
        }
        if random.percent(shape.corrections) {
            let correction = record(random, now - 60, shape.values, Origin::default());
            if (shape.late_at)(correction.time) <= global {
                updates.push((correction, epoch, *random.pick(&[1, -1])));
            }
        }
        if shape.ends && epoch + 1 == shape.epochs {
            greatest.fill(AFTER_ALL);
        }
        let least = greatest.iter().min().copied().unwrap_or(BEFORE_ALL);
        let after = if least == AFTER_ALL {
            AFTER_ALL
        } else {
            least.saturating_sub(disorder)
        };
        if after > global {
            global = after;
            watermarks.push((epoch, global));
        }
    }
    Log { updates, watermarks }
}

impl Log {
    /// The global watermark after this epoch.
    pub fn after(&self, epoch: Epoch) -> Millis {
        let mut reached = self.watermarks.iter().filter(|(at, _)| *at <= epoch);
        reached
            .next_back()
            .map_or(BEFORE_ALL, |(_, watermark)| *watermark)
    }

    /// The global watermark that is known while this epoch's updates come.
    pub fn before(&self, epoch: Epoch) -> Millis {
        epoch
            .checked_sub(1)
            .map_or(BEFORE_ALL, |before| self.after(before))
    }

    /// The first epoch after which the global watermark has reached `time`.
    pub fn reaches(&self, time: Millis) -> Option<Epoch> {
        let mut reached = self.watermarks.iter().filter(|(_, watermark)| *watermark >= time);
        reached.next().map(|(epoch, _)| *epoch)
    }

    /// The script of an operator with this log as its only input.
    pub fn script(&self, epochs: Epoch) -> Script<Timed<i64>, ()> {
        Script {
            left: self.updates.clone(),
            right: Vec::new(),
            watermarks: self.marks(Side::Left).collect(),
            epochs,
        }
    }

    /// Takes out what is behind the watermark when it comes, and gives it as what is refused.
    pub fn take_refused<T>(&mut self, late_at: impl Fn(Millis) -> Millis) -> Batch<Result<T, Refused>> {
        let mut refused = Vec::new();
        for (record, epoch, diff) in std::mem::take(&mut self.updates) {
            let watermark = self.before(epoch);
            if late_at(record.time) <= watermark {
                refused.push((Err(Refused::new(record, watermark)), epoch, diff));
            } else {
                self.updates.push((record, epoch, diff));
            }
        }
        refused
    }

    /// Whether every partition has ended.
    pub fn has_ended(&self) -> bool {
        let last = self.watermarks.last();
        last.is_some_and(|(_, watermark)| *watermark == AFTER_ALL)
    }

    /// The watermarks as a script has them.
    pub fn marks(&self, side: Side) -> impl Iterator<Item = (Epoch, Side, Millis)> {
        self.watermarks
            .iter()
            .map(move |(epoch, watermark)| (*epoch, side, *watermark))
    }
}

/// Runs the script on a bare core: with a cut after some epochs, and after some cuts a restart from all rows
/// cut so far, where the watermarks are told again, as the run loop tells them. Gives the consolidated
/// updates and the rows of a last cut.
///
/// What needs a watermark that is known at every moment is tested this way: corrections of what is settled.
pub fn run_bare<C: Core<Out: Ord>>(
    make: impl Fn() -> C,
    script: &Script<C::Left, C::Right>,
    random: &mut Random,
) -> (Batch<C::Out>, usize) {
    let (mut core, mut updates, mut state) = (make(), Vec::new(), BTreeMap::new());
    let (mut marks, mut given) = (BTreeMap::new(), Vec::new());
    for epoch in 0..script.epochs {
        let mut left: Vec<_> = script
            .left
            .iter()
            .filter(|update| update.1 == epoch)
            .cloned()
            .collect();
        let mut right: Vec<_> = script
            .right
            .iter()
            .filter(|update| update.1 == epoch)
            .cloned()
            .collect();
        random.shuffle(&mut left);
        random.shuffle(&mut right);
        core.right(epoch, &mut right, &mut given);
        core.left(epoch, &mut left, &mut given);
        for (_, side, watermark) in script.watermarks.iter().filter(|(at, _, _)| *at == epoch) {
            core.watermark(*side, *watermark);
            marks.insert(*side, *watermark);
        }
        core.finish(epoch, &mut given);
        assert_net(&given);
        updates.append(&mut given);
        let restart = random.percent(30);
        if restart || epoch + 1 == script.epochs || random.percent(30) {
            let mut rows = Vec::new();
            core.changed(&mut rows);
            for row in rows {
                match row.value {
                    Some(_) => state.insert(row.key.clone(), row),
                    None => state.remove(&row.key),
                };
            }
        }
        if restart {
            core = make();
            for row in state.values() {
                core.restore(row).expect("an own row decodes");
            }
            for (side, watermark) in &marks {
                core.watermark(*side, *watermark);
            }
            core.finish(epoch, &mut given);
            assert!(given.is_empty(), "a restart alone gives nothing");
        }
    }
    consolidate_updates(&mut updates);
    (updates, state.len())
}

/// Within an epoch only the net is given: messages are made of it, and no message can be unsent.
fn assert_net<D: Ord + Clone>(given: &Batch<D>) {
    let volume = |updates: &Batch<D>| updates.iter().map(|(_, _, diff)| diff.abs()).sum::<i64>();
    let mut net = given.clone();
    consolidate_updates(&mut net);
    assert_eq!(volume(&net), volume(given), "updates that cancel each other");
    assert!(given.iter().all(|(_, _, diff)| *diff != 0), "updates of nothing");
}

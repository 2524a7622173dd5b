//! The running count of every key.
//!
//! **Meaning.** The output is the collection of (key, count) over all updates so far, with their
//! differences summed. For every key whose count differs at the end of an epoch from what it was before,
//! the epoch gives the old row with -1 and the new one with +1. A count of 0 is no row. The order of
//! updates does not matter and there are no ties.
//!
//! **Refuses** nothing: a key that has been retracted more often than inserted has a negative count, as
//! in differential's own `count`, until the insertion comes.
//!
//! **State.** A row per key whose count is not 0. A restored operator goes on silently: counts are
//! effects, and those before the checkpoint have happened.

use super::table::{Table, read_state_row, state_row};
use super::{Context, Core, drive};
use crate::checkpoint::row::StateRow;
use crate::operators::drive::Batch;
use crate::record::{Text, Updates};
use crate::time::{Diff, Epoch};

/// The count of each key of `keys`, which come with their [`crate::record::key_hash`]. `name` is unique
/// in the job.
pub fn count<'s>(
    context: &Context<'s>,
    name: &str,
    keys: Updates<'s, (Text, u64)>,
) -> Updates<'s, (Text, Diff)> {
    drive(context, name, Count::new(), keys, None, Vec::new())
}

/// What is known of one key.
struct Counted {
    /// The count up to the last update taken in.
    count: Diff,
    /// The count before the epoch; only while the epoch is being taken in, and only if the epoch touched
    /// the key.
    before: Option<Diff>,
    /// The key is among those changed since the last cut.
    changed: bool,
}

impl Counted {
    fn of(count: Diff) -> Self {
        Counted {
            count,
            before: None,
            changed: false,
        }
    }
}

/// The pure half of [`count`].
pub(super) struct Count {
    /// Keys whose count is not 0, and those that the epoch touched.
    counts: Table<Counted>,
    /// Keys that the epoch touched.
    touched: Vec<(u64, Text)>,
    /// Keys changed since the last cut.
    changed: Table<()>,
}

impl Count {
    /// Nothing counted yet.
    pub(super) fn new() -> Self {
        Count {
            counts: Table::new(),
            touched: Vec::new(),
            changed: Table::new(),
        }
    }
}

impl Core for Count {
    type Left = (Text, u64);
    type Right = ();
    type Out = (Text, Diff);

    fn left_hash((_, hash): &(Text, u64)) -> u64 {
        *hash
    }
    fn right_hash((): &()) -> u64 {
        0
    }

    fn left(&mut self, _epoch: Epoch, batch: &mut Batch<(Text, u64)>, _out: &mut Batch<(Text, Diff)>) {
        for ((key, hash), _, diff) in batch.drain(..) {
            let counted = self.counts.get_or_insert_with(hash, &key, || Counted::of(0));
            if counted.before.is_none() {
                counted.before = Some(counted.count);
                self.touched.push((hash, key));
            }
            counted.count += diff;
        }
    }

    fn finish(&mut self, epoch: Epoch, out: &mut Batch<(Text, Diff)>) {
        // Every touched key is here once, however many updates it had.
        for (hash, key) in std::mem::take(&mut self.touched) {
            let Some(counted) = self.counts.get_mut(hash, &key) else {
                continue;
            };
            let (count, before) = (counted.count, counted.before.take().unwrap_or(0));
            if count != before && !std::mem::replace(&mut counted.changed, true) {
                self.changed.insert(hash, &key, ());
            }
            if count == 0 {
                self.counts.remove(hash, &key);
            }
            if count == before {
                continue;
            }
            if before != 0 {
                out.push(((key.clone(), before), epoch, -1));
            }
            if count != 0 {
                out.push(((key, count), epoch, 1));
            }
        }
    }

    fn restore(&mut self, row: &StateRow) -> Result<(), String> {
        if let Some((key, count)) = read_state_row::<Diff>(row)? {
            self.counts.insert(row.hash, &key, Counted::of(count));
        }
        Ok(())
    }

    fn changed(&mut self, rows: &mut Vec<StateRow>) {
        for (hash, key, ()) in self.changed.drain() {
            let counted = self.counts.get_mut(hash, &key);
            let count = counted.map(|counted| {
                counted.changed = false;
                counted.count
            });
            rows.push(state_row(hash, &key, count.as_ref()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs an epoch of updates of keys.
    fn epoch(counts: &mut Count, keys: &[(&str, Diff)]) -> Batch<(Text, Diff)> {
        let mut out = Vec::new();
        let updates = keys.iter().map(|(key, diff)| (((*key).into(), 3), 0, *diff));
        counts.left(0, &mut updates.collect(), &mut out);
        counts.finish(0, &mut out);
        out
    }

    fn changed(counts: &mut Count) -> Vec<Option<(Text, Diff)>> {
        let mut rows = Vec::new();
        counts.changed(&mut rows);
        let mut rows: Vec<_> = rows
            .iter()
            .map(|row| read_state_row(row).expect("a row"))
            .collect();
        rows.sort();
        rows
    }

    #[test]
    fn a_cut_gives_what_changed_since_the_last() {
        let mut counts = Count::new();
        epoch(&mut counts, &[("a", 1), ("b", 2), ("c", 1), ("c", -1)]);
        epoch(&mut counts, &[("a", 1)]);
        assert_eq!(
            changed(&mut counts),
            [Some(("a".into(), 2)), Some(("b".into(), 2))]
        );
        assert_eq!(epoch(&mut counts, &[("a", 1), ("a", -1)]), []);
        assert_eq!(changed(&mut counts), []);
        assert_eq!(epoch(&mut counts, &[("b", -2)]), [(("b".into(), 2), 0, -1)]);
        assert_eq!(changed(&mut counts), [None]);
    }
}

//! A log of writes to a table becomes the collection of its rows.
//!
//! ```text
//!  writes ──exchange by key──► per epoch: the last write of each key ──► -old row, +new row
//! ```
//!
//! **Meaning.** The row of a key is the value of its last write: the later epoch wins, and within one
//! epoch the greatest origin, in whatever order the writes arrive. A tombstone removes the row. The
//! output is exact: a write that changes nothing gives nothing, any other gives the old row with -1 and
//! the new one with +1.
//!
//! **Ties.** None: an origin is one write. That all writes of a key stand in one partition is the input's
//! contract; where they do not, partition comes before offset.
//!
//! **Refuses** nothing. Writes are effects and are never taken back: their difference is taken to be +1.
//!
//! **State.** A row per live key. After a restore the operator first repeats all its rows, at the epoch
//! of the checkpoint, because what is built on them downstream (arrangements, indices) starts empty.

use super::table::{Table, read_state_row, state_row};
use super::{Context, Core, drive};
use crate::checkpoint::row::StateRow;
use crate::operators::drive::Batch;
use crate::record::{Record, Text, Updates, Write};
use crate::time::Epoch;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A row of a keyed collection. The value is shared: a clone costs no copy of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(bound(serialize = "R: Serialize", deserialize = "R: Deserialize<'de>"))]
pub struct Row<R> {
    /// [`crate::record::key_hash`] of the key; first, so that rows sort without comparing strings.
    pub hash: u64,
    /// The row's key.
    pub key: Text,
    /// The row.
    pub value: Arc<R>,
}

/// The collection of rows that `writes` leave behind. `name` is unique in the job.
pub fn upsert<'s, R: Record>(
    context: &Context<'s>,
    name: &str,
    writes: Updates<'s, Write<R>>,
) -> Updates<'s, Row<R>> {
    drive(context, name, Upsert::new(), writes, None, Vec::new())
}

/// The pure half of [`upsert`].
pub(super) struct Upsert<R> {
    /// The live rows.
    rows: Table<Arc<R>>,
    /// Writes of the epoch.
    writes: Vec<Write<R>>,
    /// Rows of the checkpoint that have not been repeated yet.
    restored: Vec<Row<R>>,
    /// Keys written since the last cut.
    changed: Table<()>,
}

impl<R: Record> Upsert<R> {
    /// An empty table.
    pub(super) fn new() -> Self {
        Upsert {
            rows: Table::new(),
            writes: Vec::new(),
            restored: Vec::new(),
            changed: Table::new(),
        }
    }

    /// Applies the last write of a key.
    fn apply(&mut self, epoch: Epoch, write: Write<R>, out: &mut Batch<Row<R>>) {
        let Write { key, hash, value, .. } = write;
        // A write that repeats the row, or removes one that is not there, must cost nothing downstream.
        let old = self.rows.get(hash, &key);
        if old.map(Arc::as_ref) == value.as_ref() {
            return;
        }
        self.changed.insert(hash, &key, ());
        let row = |value| Row {
            hash,
            key: key.clone(),
            value,
        };
        let old = match value {
            Some(value) => {
                let value = Arc::new(value);
                out.push((row(Arc::clone(&value)), epoch, 1));
                self.rows.insert(hash, &key, value)
            }
            None => self.rows.remove(hash, &key),
        };
        out.extend(old.map(|value| (row(value), epoch, -1)));
    }
}

impl<R: Record> Core for Upsert<R> {
    type Left = Write<R>;
    type Right = ();
    type Out = Row<R>;

    fn left_hash(write: &Write<R>) -> u64 {
        write.hash
    }
    fn right_hash((): &()) -> u64 {
        0
    }

    fn left(&mut self, _epoch: Epoch, batch: &mut Batch<Write<R>>, _out: &mut Batch<Row<R>>) {
        self.writes.extend(batch.drain(..).map(|(write, _, _)| write));
    }

    fn finish(&mut self, epoch: Epoch, out: &mut Batch<Row<R>>) {
        out.extend(self.restored.drain(..).map(|row| (row, epoch, 1)));
        // Taken, not drained: the room that a table's backlog needed is given back.
        let mut writes = std::mem::take(&mut self.writes);
        writes.sort_unstable_by(|a, b| (a.hash, &a.key, a.origin).cmp(&(b.hash, &b.key, b.origin)));
        let mut writes = writes.into_iter().peekable();
        while let Some(write) = writes.next() {
            let last = writes
                .peek()
                .is_none_or(|next| (next.hash, &next.key) != (write.hash, &write.key));
            if last {
                self.apply(epoch, write, out);
            }
        }
    }

    fn restore(&mut self, row: &StateRow) -> Result<(), String> {
        if let Some((key, value)) = read_state_row::<R>(row)? {
            let (hash, value) = (row.hash, Arc::new(value));
            self.rows.insert(hash, &key, Arc::clone(&value));
            self.restored.push(Row { hash, key, value });
        }
        Ok(())
    }

    fn changed(&mut self, rows: &mut Vec<StateRow>) {
        for (hash, key, ()) in self.changed.drain() {
            let value = self.rows.get(hash, &key);
            rows.push(state_row(hash, &key, value.map(Arc::as_ref)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Origin;
    use crate::replay_log::Flat;
    use crate::replay_log::row::{Places, Strings};
    use crate::time::Millis;

    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    struct Number(u64);

    impl Flat for Number {
        type Row = [u64; 1];
        const LAYOUT: &'static str = "Number";
        fn to_row(&self, _strings: &mut Strings) -> Self::Row {
            [self.0]
        }
        fn from_row(row: &Self::Row, _strings: &Places<'_>) -> Option<Self> {
            Some(Number(row[0]))
        }
    }

    impl Record for Number {
        const NAME: &'static str = "Number";
        const SCHEMA: &'static str = r#""long""#;
        fn event_time(&self) -> Option<Millis> {
            None
        }
        fn check(&self, _key: &str) -> Result<(), String> {
            Ok(())
        }
    }

    /// Runs an epoch of writes (key, value) in this order and gives (key, value, diff) in the order of
    /// the output.
    fn epoch(table: &mut Upsert<Number>, writes: &[(&str, Option<u64>)]) -> Vec<(String, u64, i64)> {
        let mut out = Vec::new();
        for (offset, (key, value)) in (0..).zip(writes) {
            let origin = Origin { partition: 0, offset };
            let write = Write {
                key: (*key).into(),
                hash: 5,
                origin,
                value: value.map(Number),
            };
            table.left(0, &mut vec![(write, 0, 1)], &mut out);
        }
        table.finish(0, &mut out);
        let updates = out.into_iter();
        updates
            .map(|(row, _, diff)| (row.key.into(), row.value.0, diff))
            .collect()
    }

    fn changed(table: &mut Upsert<Number>) -> Vec<(String, Option<u64>)> {
        let mut rows = Vec::new();
        table.changed(&mut rows);
        let mut rows: Vec<_> = rows
            .iter()
            .map(|row| {
                let key: String = postcard::from_bytes(&row.key).expect("a key");
                let value = row.value.as_ref();
                (
                    key,
                    value.map(|value| postcard::from_bytes(value).expect("a value")),
                )
            })
            .collect();
        rows.sort();
        rows
    }

    #[test]
    fn a_cut_gives_what_changed_since_the_last() {
        let mut table = Upsert::new();
        epoch(&mut table, &[("a", Some(1)), ("b", Some(2)), ("c", None)]);
        assert_eq!(
            changed(&mut table),
            [("a".into(), Some(1)), ("b".into(), Some(2))]
        );
        let nothing = epoch(&mut table, &[("a", Some(9)), ("a", Some(1))]);
        assert_eq!((nothing, changed(&mut table)), (vec![], vec![]));
        let gone = epoch(&mut table, &[("b", None)]);
        assert_eq!(gone, [("b".into(), 2, -1)]);
        assert_eq!(changed(&mut table), [("b".into(), None)]);
    }

    #[test]
    fn a_row_that_does_not_decode_is_named() {
        let key = postcard::to_stdvec("a").expect("a key").into_boxed_slice();
        let row = StateRow {
            operator: 0,
            hash: 0,
            key,
            value: Some([0xff].into()),
        };
        let error = Upsert::<Number>::new().restore(&row).expect_err("no number");
        assert!(error.contains("value"), "{error}");
    }
}

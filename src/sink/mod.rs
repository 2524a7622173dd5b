//! Sinks: what makes sealed epochs visible, once. The contract for files, and for Kafka.
//!
//! ```text
//!  workers: Rows ─► seal: all shares are there ─► SealedEpoch ─► committer thread ─► Sink::commit
//!                                                 bounded queue  all that waits      one transaction
//! ```
//!
//! One [`Sink`] writes one output shard. Its one promise: [`Sink::commit`] makes the rows, the bindings and
//! the progress of several epochs durable and visible together, or says that it did not; it never answers
//! `Ok` on an unknown outcome. Within an output, rows come by epoch, then by (rank, bytes), whatever order
//! the workers delivered them in.
//!
//! Epochs that are already committed (a replay comes to them again) are passed over. Sinks run on plain
//! threads ([`committer`]) and know nothing of dataflows.

pub mod captured;
pub mod committer;
pub mod encode;
pub mod files;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod kill_test;
pub mod message;
pub mod progress_log;
pub mod progress_topic;
pub mod seal;
pub mod topics;
pub mod unreliable;

use crate::checkpoint::binding::Binding;
use crate::error::Result;
use crate::record::Rank;
use crate::time::Epoch;
use serde::{Deserialize, Serialize};

/// Messages to one output, encoded in its format where they were made: an arena and an index. Travels between
/// workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Rows {
    /// Index of the output in the plan.
    pub output: u16,
    /// Complete messages, one after another (JSON: whole lines); less than 4 GiB.
    pub bytes: Vec<u8>,
    /// Where each message lies, in any order.
    pub index: Vec<Row>,
}

/// One message of [`Rows`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Row {
    /// Its place among the messages of its output and epoch.
    pub rank: Rank,
    /// First byte in the arena.
    pub start: u32,
    /// Byte after the last.
    pub end: u32,
}

impl Rows {
    /// No messages yet.
    pub fn new(output: u16) -> Self {
        Rows {
            output,
            ..Rows::default()
        }
    }

    /// Adds the message that `encode` appends to the arena.
    pub fn push<E>(
        &mut self,
        rank: Rank,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.bytes.len();
        if let Err(error) = encode(&mut self.bytes) {
            self.bytes.truncate(start);
            return Err(error);
        }
        let end = self.bytes.len();
        assert!(
            u32::try_from(end).is_ok(),
            "an arena of {end} bytes is full: hand rows over sooner"
        );
        self.index.push(Row {
            rank,
            start: start as u32,
            end: end as u32,
        });
        Ok(())
    }

    /// The messages with their ranks.
    pub fn messages(&self) -> impl Iterator<Item = (Rank, &[u8])> {
        self.index
            .iter()
            .map(|row| (row.rank, &self.bytes[row.start as usize..row.end as usize]))
    }
}

/// An epoch that may be committed: nothing can be added to it, and what it contains is on record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealedEpoch {
    /// The epoch.
    pub epoch: Epoch,
    /// The shard's messages, from all workers.
    pub rows: Vec<Rows>,
    /// What the epoch contains; replaying it gives the same rows.
    pub binding: Binding,
}

impl SealedEpoch {
    /// Whether it has a message.
    pub fn has_rows(&self) -> bool {
        self.rows.iter().any(|rows| !rows.index.is_empty())
    }

    /// Its messages in the order in which they are written: by output, then by (rank, bytes).
    pub fn ordered(&self) -> Vec<(u16, &[u8])> {
        let of_output = |rows| Rows::messages(rows).map(|(rank, bytes)| (rows.output, rank, bytes));
        let mut messages: Vec<_> = self.rows.iter().flat_map(of_output).collect();
        messages.sort_unstable();
        messages
            .into_iter()
            .map(|(output, _, bytes)| (output, bytes))
            .collect()
    }

    /// Its binding, if replaying it could have any effect: an epoch that took nothing and gave nothing has
    /// none.
    pub fn effective_binding(&self) -> Option<Binding> {
        (!self.binding.partitions.is_empty() || self.has_rows()).then(|| self.binding.clone())
    }
}

/// What writes one output shard.
pub trait Sink: Send {
    /// The greatest committed epoch, 0 before the first.
    fn committed(&self) -> Epoch;

    /// Commits these epochs, ascending, in one transaction. After an error nothing more may be committed.
    fn commit(&mut self, epochs: Vec<SealedEpoch>) -> Result<()>;

    /// Bindings up to this epoch are needed no more.
    fn forget(&mut self, oldest: Epoch) -> Result<()>;
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn messages_are_ordered_whatever_worker_made_them() {
        let rows = |output, messages: &[(u64, &str)]| {
            let mut rows = Rows::new(output);
            for (rank, text) in messages {
                let encode = |bytes: &mut Vec<u8>| {
                    bytes.extend_from_slice(text.as_bytes());
                    Ok::<(), ()>(())
                };
                rows.push(Rank(*rank, 0, 0), encode).unwrap();
            }
            rows
        };
        let [one, two] = [rows(1, &[(2, "b"), (1, "z")]), rows(1, &[(2, "a"), (0, "q")])];
        let other = rows(0, &[(9, "x")]);
        let expected: Vec<(u16, &[u8])> = vec![(0, b"x"), (1, b"q"), (1, b"z"), (1, b"a"), (1, b"b")];
        for rows in [
            vec![one.clone(), two.clone(), other.clone()],
            vec![other, two, one],
        ] {
            let sealed = SealedEpoch {
                epoch: 1,
                rows,
                binding: Binding::default(),
            };
            assert_eq!(sealed.ordered(), expected);
        }
    }

    #[test]
    fn failed_encoding_leaves_no_bytes() {
        let mut rows = Rows::new(0);
        let failed = rows.push(Rank::default(), |bytes| {
            bytes.push(1);
            Err("no")
        });
        assert_eq!((failed, &rows), (Err("no"), &Rows::new(0)));
    }
}

//! A binding says what an epoch contains. Replaying it gives the same epoch again.
//!
//! Every worker emits its share of `binding(e)` for every epoch it closes, with or without records; only when
//! all shares are there may epoch `e` be committed. An empty frontier proves nothing (timely reports a dying
//! worker as completion).

use crate::time::{Epoch, InputClock, Millis};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What one epoch takes from one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PartitionBinding {
    /// Index of the input in the plan.
    pub input: u16,
    /// Partition of the input.
    pub partition: u32,
    /// First position of the epoch.
    pub start: u64,
    /// Position after the epoch; a position, never a count.
    pub end: u64,
    /// Greatest event time among the valid records so far.
    pub greatest: Option<Millis>,
    /// Greatest as-of time so far (tables: message time), which places the next message in a finite run.
    pub as_of: Option<Millis>,
    /// The floor the partition got by waking in this epoch.
    pub floor: Option<Millis>,
    /// Inactive from this epoch on.
    pub idle: bool,
    /// Ended with this epoch.
    pub ended: bool,
    /// The path of a file partition, with the first binding that names the partition.
    pub path: Option<String>,
    /// Of a table's topic: the messages themselves, for compaction may remove them before a replay.
    #[serde(default)]
    pub kept: Option<Kept>,
}

/// Messages that are durable with the binding of their epoch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kept {
    /// Here, as texts, one after the other; the source knows how to read them.
    Inline(Vec<String>),
    /// In an object of the state store, of this name.
    Object(String),
}

/// One worker's share of an epoch's binding. It says also that all the worker's epochs up to this one are
/// closed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Share {
    /// The epoch.
    pub epoch: Epoch,
    /// The worker.
    pub worker: u32,
    /// Its partitions that changed in this epoch.
    pub partitions: Vec<PartitionBinding>,
    /// The epoch ends with a checkpoint.
    pub cut: bool,
}

/// What an epoch contains: the union of all shares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The epoch.
    pub epoch: Epoch,
    /// All partitions that changed, ordered by (input, partition).
    pub partitions: Vec<PartitionBinding>,
    /// What came out in the shard that this binding is recorded for, by output; none without history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Vec<Digest>>,
}

/// What an epoch gave to one output of a shard; without a message there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Digest {
    /// Index of the output in the plan.
    pub output: u16,
    /// Messages.
    pub messages: u64,
    /// What they take, bytes; of a file, what it has grown by.
    pub bytes: u64,
    /// XXH3 of all of it, in the order written.
    pub hash: u64,
}

impl Binding {
    /// The same without the messages it keeps: what positions are folded from.
    pub fn without_messages(&self) -> Binding {
        let without = |share: &PartitionBinding| PartitionBinding {
            path: share.path.clone(),
            kept: None,
            ..*share
        };
        Binding {
            epoch: self.epoch,
            partitions: self.partitions.iter().map(without).collect(),
            outputs: None,
        }
    }
}

/// What is known of one partition at some epoch: where to read on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionPosition {
    /// Next position to read.
    pub offset: u64,
    /// Greatest as-of time so far.
    pub as_of: Option<Millis>,
    /// Path of a file partition; name of a topic.
    pub path: Option<String>,
}

/// Everything the bindings up to an epoch add up to. Manifests carry it; start folds later bindings into it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Positions {
    /// One clock per input of the plan.
    pub clocks: Vec<InputClock>,
    /// By input, then by partition.
    pub partitions: Vec<BTreeMap<u32, PartitionPosition>>,
}

impl Positions {
    /// Before the first epoch of a plan whose inputs have these bounds of out-of-orderness.
    pub fn new(max_out_of_orderness_ms: impl IntoIterator<Item = Millis>) -> Self {
        let clocks: Vec<_> = max_out_of_orderness_ms.into_iter().map(InputClock::new).collect();
        let partitions = vec![BTreeMap::new(); clocks.len()];
        Positions { clocks, partitions }
    }

    /// Folds one epoch in.
    pub fn apply(&mut self, binding: &Binding) {
        for share in &binding.partitions {
            let input = usize::from(share.input);
            let position = self.partitions[input].entry(share.partition).or_default();
            position.offset = share.end;
            position.as_of = position.as_of.max(share.as_of);
            if share.path.is_some() {
                position.path.clone_from(&share.path);
            }
            self.clocks[input].apply(share);
        }
        for clock in &mut self.clocks {
            clock.close_epoch();
        }
    }
}

//! Why a start is refused, in the words the person at the terminal reads: what is wrong, with the facts, and
//! the way out.
//!
//! One variant per case of [`super::decide`]; the same reasons say despite what a start goes on.

use crate::error::{Error, Kind};
use crate::time::Epoch;

/// Why a start is refused, and the way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// An output that was never ours has content.
    #[error(
        "{path} exists and is not empty; remove it, or set append to keep its content and write after it"
    )]
    OutputNotEmpty {
        /// The file.
        path: String,
    },
    /// Another plan ran here.
    #[error(
        "the state is of another plan (hash {found:016x}, now {own:016x}); restore the job file, or start \
         with a new state and new outputs"
    )]
    PlanChanged {
        /// What the state says.
        found: u64,
        /// What the job says.
        own: u64,
    },
    /// Another number of output shards ran here.
    #[error(
        "the state is of {found} output shards, the job has {own}; their number is fixed at the first start"
    )]
    ShardsChanged {
        /// What the state says.
        found: usize,
        /// What the job says.
        own: usize,
    },
    /// A progress record is unreadable.
    #[error(
        "{file} is damaged at byte {offset}: {reason}; restore it together with its outputs, or start anew"
    )]
    ProgressDamaged {
        /// The log.
        file: String,
        /// Byte offset of the record.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// Outputs were written, their progress is gone.
    #[error(
        "output shard {shard} has begun and its progress log is missing or empty; restore it, or start anew"
    )]
    ProgressMissing {
        /// The shard.
        shard: usize,
    },
    /// An older copy of outputs and progress lies there.
    #[error(
        "output shard {shard} has committed epoch {upper}, less than checkpoint {checkpoint}: an older \
         copy of the outputs was restored; restore the newer one"
    )]
    ProgressBehind {
        /// The shard.
        shard: usize,
        /// What it has committed.
        upper: Epoch,
        /// The epoch of the newest checkpoint.
        checkpoint: Epoch,
    },
    /// State and progress were written by different starts of the same number.
    #[error(
        "output shard {shard} was written by another history of generation {generation} than the state \
         directory; restore what belongs together"
    )]
    OtherHistory {
        /// The shard.
        shard: usize,
        /// The generation.
        generation: u64,
    },
    /// The outputs have commits, the state has not begun.
    #[error(
        "the outputs have commits up to epoch {upper}, but the state is empty: it was lost, or is another \
         job's"
    )]
    StateLost {
        /// The greatest committed epoch.
        upper: Epoch,
    },
    /// The state directory is an older copy.
    #[error(
        "the outputs were written by generation {generation}, which the state does not know: it is an \
         older copy"
    )]
    StateStale {
        /// The generation of the outputs.
        generation: u64,
    },
    /// The bindings do not reach back to the checkpoint.
    #[error(
        "no readable checkpoint is as new as epoch {reach}, before which bindings are gone (newest: \
         {checkpoint}); restore the state directory"
    )]
    BindingMissing {
        /// The newest usable checkpoint's epoch, 0 if none.
        checkpoint: Epoch,
        /// Bindings are there above this epoch.
        reach: Epoch,
    },
    /// The same, and the state directory is not the outputs' own.
    #[error("{cause}; and nothing in it can be gone on from: {missing}")]
    NotRecoverable {
        /// What is wrong with the state directory.
        cause: Box<Reason>,
        /// What is missing.
        missing: Box<Reason>,
    },
    /// Committed content of an output is gone.
    #[error("{path} has {found} bytes, less than the {recorded} that are committed; restore it")]
    OutputShorter {
        /// The file.
        path: String,
        /// What is committed.
        recorded: u64,
        /// What is there.
        found: u64,
    },
    /// An output that the progress does not know.
    #[error(
        "{path} is not among the outputs that the progress log records; paths of outputs are fixed at the \
         first start"
    )]
    OutputUnknown {
        /// The file.
        path: String,
    },
}

impl From<Reason> for Error {
    fn from(reason: Reason) -> Error {
        let kind = match reason {
            Reason::OutputNotEmpty { .. } => Kind::Configuration,
            _ => Kind::StateDamaged,
        };
        Error::new(kind, reason.to_string())
    }
}

//! Every limit of the engine, with its unit and its relation to the others.

use std::time::Duration;

/// Longest message: a line or a value longer than this is UNDECODABLE. Setting `max_record_bytes`.
pub const MAX_RECORD_BYTES: usize = 8 << 20;

/// A dead letter's value is cut here.
pub const DEAD_LETTER_VALUE_BYTES: usize = 512 << 10;

/// A reader hands over bytes in blocks of at most this size ...
pub const BLOCK_BYTES: usize = 256 << 10;

/// ... but never keeps more than this in flight over all partitions of a worker: with many partitions blocks shrink.
pub const READ_AHEAD_BYTES: usize = 32 << 20;

/// Smallest block, however many partitions there are.
pub const BLOCK_BYTES_MIN: usize = 4 << 10;

/// An epoch holds at most this many records over all partitions of all inputs of the job.
pub const EPOCH_RECORDS: usize = 100_000;

/// Epochs of one worker that are read and not yet committed, in records: beyond it the source waits.
pub const IN_FLIGHT_RECORDS: usize = 8 * EPOCH_RECORDS;

/// The same in epochs, so that epochs without records do not pile up.
pub const IN_FLIGHT_EPOCHS: usize = 4_096;

/// Encoded rows that are sealed and not committed: beyond it the source waits.
pub const IN_FLIGHT_BYTES: usize = 256 << 20;

/// A Kafka transaction holds epochs of at most so many bytes of rows, or one epoch: what is in it must be
/// acknowledged within [`COMMIT`](crate::kafka::producer::COMMIT).
pub const TRANSACTION_BYTES: usize = 16 << 20;

/// Epochs without output wait for a commit in groups of at most so many.
pub const GROUP_EPOCHS: usize = 1_024;

/// How many ticks of a finite run are announced ahead.
pub const ANNOUNCED_EPOCHS: usize = 64;

/// Commits of epochs without output are put off this long.
pub const EMPTY_COMMIT: Duration = Duration::from_secs(1);

/// How long a worker without work parks before it looks at its queues again.
pub const PARK: Duration = Duration::from_millis(1);

/// The same in a live run, where the end of an epoch is known beforehand: at most until then, and at most this
/// long.
pub const PARK_LIVE: Duration = Duration::from_millis(10);

/// How often a followed file that stands at its end is looked at again.
pub const FOLLOW: Duration = Duration::from_millis(2);

/// How often a followed input is searched for new files.
pub const DISCOVER: Duration = Duration::from_secs(1);

/// A request to the schema registry may take this long in all ...
pub const REGISTRY_TIMEOUT: Duration = Duration::from_secs(10);

/// ... and is tried again after this pause, which doubles with every failure ...
pub const REGISTRY_RETRY: Duration = Duration::from_millis(100);

/// ... up to this one.
pub const REGISTRY_RETRY_MAX: Duration = Duration::from_secs(10);

/// Longest answer of the schema registry.
pub const REGISTRY_ANSWER_BYTES: u64 = 1 << 20;

/// A block of the replay log is written when it holds about so much ...
pub const REPLAY_BLOCK_BYTES: usize = 256 << 10;

/// ... and a segment of blocks published when it does: what a killed replay has decoded in vain, at most.
pub const REPLAY_SEGMENT_BYTES: usize = 64 << 20;

/// Time between checkpoints. Setting `[checkpoint] interval_ms`.
pub const CHECKPOINT_INTERVAL_MS: u64 = 10_000;

/// Differences that a verification shows; all are counted.
pub const DIFFERENCES: usize = 1_000;

/// Event time between the checkpoints that history keeps. Setting `history_checkpoint_ms`.
pub const HISTORY_CHECKPOINT_MS: i64 = 3_600_000;

/// State shards: chunks hold rows of one shard, so that a restart may spread them over any number of workers.
pub const STATE_SHARDS: usize = 16;

/// Complete checkpoints kept, so that a damaged one has a predecessor.
pub const CHECKPOINTS_KEPT: usize = 3;

const _: () = assert!(
    DEAD_LETTER_VALUE_BYTES < MAX_RECORD_BYTES,
    "a cut value must be shorter than the longest record"
);
const _: () = assert!(
    BLOCK_BYTES_MIN <= BLOCK_BYTES && BLOCK_BYTES <= READ_AHEAD_BYTES,
    "blocks fit the read-ahead"
);
const _: () = assert!(
    IN_FLIGHT_RECORDS > 2 * EPOCH_RECORDS,
    "one epoch is read while another commits"
);
const _: () = assert!(
    GROUP_EPOCHS < IN_FLIGHT_EPOCHS,
    "a full pipeline always has a group to commit"
);
const _: () = assert!(
    TRANSACTION_BYTES < IN_FLIGHT_BYTES,
    "one transaction is written while the next one's rows are made"
);
const _: () = assert!(
    REPLAY_BLOCK_BYTES < REPLAY_SEGMENT_BYTES,
    "a segment holds blocks"
);
const _: () = assert!(CHECKPOINTS_KEPT >= 2, "a damaged checkpoint needs a predecessor");

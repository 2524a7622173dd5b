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

/// A live job's broker gathers messages for this part of an epoch's length ...
pub const FETCHES_PER_EPOCH: u32 = 4;

/// ... and no longer than this, which is also how long the end of a partition may stay unknown ...
pub const FETCH_WAIT_MAX: Duration = Duration::from_millis(100);

/// ... or until they are so many bytes.
pub const FETCH_BYTES: usize = 64 << 10;

/// What waits in a Kafka consumer, in bytes of messages; each takes several hundred bytes beside its own.
pub const FETCHED_BYTES: usize = 8 << 20;

/// An epoch holds at most this many records over all partitions of all inputs of the job.
pub const EPOCH_RECORDS: usize = 100_000;

/// Epochs of one worker that are read and not yet committed, in records: beyond it the source waits.
pub const IN_FLIGHT_RECORDS: usize = 5 * EPOCH_RECORDS / 2;

/// The same in epochs, so that epochs without records do not pile up.
pub const IN_FLIGHT_EPOCHS: usize = 4_096;

/// Encoded rows that are sealed and not committed: beyond it the source waits.
pub const IN_FLIGHT_BYTES: usize = 32 << 20;

/// A Kafka transaction holds epochs of at most so many bytes of rows, or one epoch: what is in it must be
/// acknowledged within [`COMMIT`](crate::kafka::producer::COMMIT).
pub const TRANSACTION_BYTES: usize = 8 << 20;

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

/// A cluster gives up its start after this long. Setting `[cluster] start_timeout_ms`.
pub const CLUSTER_START_TIMEOUT_MS: u64 = 60_000;

/// Whoever connects to a process has this long for the whole handshake ...
pub const HANDSHAKE: Duration = Duration::from_secs(5);

/// ... may say so much in one message of it ...
pub const HANDSHAKE_BYTES: usize = 4 << 10;

/// ... and is the first to be dropped when so many are connecting at once.
pub const HANDSHAKES: usize = 64;

/// Between two attempts to reach a process that is not there yet.
pub const RECONNECT: Duration = Duration::from_millis(100);

/// A process of a cluster says this often that it is alive ...
pub const HEARTBEAT: Duration = Duration::from_millis(500);

/// ... and is lost when nothing was heard of it for so long: frozen or cut off, it is noticed within 5 s.
pub const SILENCE: Duration = Duration::from_secs(4);

/// A process that fails tells the others why, and ends after this long at most whether they have heard it or not.
pub const LAST_WORDS: Duration = Duration::from_millis(200);

/// Shortest shared secret of a cluster: whoever listens in may try to guess it.
pub const SECRET_BYTES_MIN: usize = 16;

/// When one process of a launched cluster has ended, the others see it at once; who is still there after this long is
/// killed.
pub const GRACE: Duration = Duration::from_secs(2);

/// A launched cluster that has died is started again after this pause, which doubles with every death ...
pub const RESTART: Duration = Duration::from_millis(100);

/// ... up to this one ...
pub const RESTART_MAX: Duration = Duration::from_secs(10);

/// ... and is the first one again for a cluster that lived so long.
pub const HEALTHY: Duration = Duration::from_secs(60);

/// A message between processes travels in frames of at most so much ...
pub const FRAME_BYTES: usize = 64 << 10;

/// ... and is refused if it is longer than this: room for the longest record a job may allow, and what goes with it.
pub const MESSAGE_BYTES: usize = 2 << 30;

/// Who sends to a process waits while so much is queued for it.
pub const LINK_BYTES: usize = 1 << 20;

/// State rows travel between processes in messages of about so much, so that short ones pass between them.
pub const ROWS_BYTES: usize = 256 << 10;

/// A broken data connection ends the process after this long, unless the link to the same peer has said why before.
pub const BROKEN_CONNECTION: Duration = Duration::from_secs(1);

/// A worker that makes no progress for so long ends its process. Setting `[cluster] stall_timeout_ms`.
/// Looked at every [`WATCH`].
pub const STALL: Duration = Duration::from_secs(30);

/// Between two looks at the workers.
pub const WATCH: Duration = Duration::from_millis(500);

const _: () = assert!(
    HEARTBEAT.as_millis() * 4 <= SILENCE.as_millis(),
    "a few heartbeats may be late"
);
const _: () = assert!(
    BROKEN_CONNECTION.as_millis() < GRACE.as_millis(),
    "whoever ends by itself is not killed"
);
const _: () = assert!(FRAME_BYTES < LINK_BYTES, "a frame fits its queue");
const _: () = assert!(ROWS_BYTES < LINK_BYTES, "a piece of rows fits it too");
const _: () = assert!(
    LAST_WORDS.as_millis() < BROKEN_CONNECTION.as_millis(),
    "the reason is there before the end"
);
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

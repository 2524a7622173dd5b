//! Sources: from the bytes of partitions to stamped records of epochs.
//!
//! ```text
//!  reader thread (files.rs)            worker thread
//!  ┌────────────────────┐  requests   ┌──────────────────────────────┐
//!  │ opens, reads, waits│◄────────────┤ Feed (one per input)         │  take(epoch)   ┌─────────────┐
//!  │ for growth         ├────────────►│  PartitionFeed: lines ►      ├───────────────►│ timely input│
//!  └────────────────────┘  arrivals   │  decode ► queue of items     │  + its share   └─────────────┘
//!                                     └──────────────────────────────┘  of the binding
//! ```
//!
//! Topics have a reader of their own ([`topics`]), with the same requests and arrivals; only what arrives
//! differs: messages instead of bytes. A replay may have a log of rows between worker and readers ([`cache`]).
//!
//! A feed decodes ahead, by a bounded amount: it asks for the next block of a partition only while its queue
//! is short, so the memory in flight is that of its own requests. What an epoch takes from the queue is
//! decided elsewhere, in one of three ways ([`Take`]): the recorded binding says so (replay), the announced
//! tick does (finite runs), or the clock does (live). Whatever is taken is a pure function of the log from
//! the partition's position on; only *where it is cut* differs.
//!
//! **Invariants.** The worker never reads a file or a clock here; the reader never decodes. A partition
//! belongs to one worker ([`owner`]). Positions move only by what was taken. A bad record is an item like any
//! other: a dead letter.

pub mod batch;
pub mod cache;
pub mod feed;
pub mod files;
mod item;
pub mod partition;
mod recording;
pub mod span;
pub mod topics;
pub mod unreliable;

use crate::checkpoint::binding::PartitionBinding;
use crate::error::Error;
use crate::format::avro;
use crate::format::registry::Schemas;
use crate::record::{DeadLetter, Messages};
use crate::replay_log::Block;
use crate::time::{Diff, Epoch, Millis};
use batch::Batch;
use cache::Decoded;
use serde::{Deserialize, Serialize};
use span::Span;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::core::input::Handle;

/// A timely input of updates.
pub type UpdateHandle<D> = Handle<Epoch, CapacityContainerBuilder<Vec<(D, Epoch, Diff)>>>;

/// A timely input of messages.
pub type MessageHandle<D> = Handle<Epoch, CapacityContainerBuilder<Vec<D>>>;

/// What an input is made of, and in which format.
#[derive(Clone)]
pub enum Medium {
    /// JSON lines in files: key, value and time in one.
    Lines,
    /// Messages of a topic, values in JSON.
    Json,
    /// Messages of a topic, values in Avro with the wire header; the schemas by their id.
    Avro(Arc<Schemas>),
}

impl std::fmt::Debug for Medium {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Medium::Lines => "Lines",
            Medium::Json => "Json",
            Medium::Avro(_) => "Avro",
        })
    }
}

impl Medium {
    /// Whether this value can be decoded now; if not, what it takes is on its way.
    pub fn is_settled(&self, value: Option<&[u8]>) -> bool {
        match (self, value) {
            (Medium::Avro(schemas), Some(value)) => {
                // What has no id is UNDECODABLE at once.
                avro::schema_id(value).map_or(true, |id| schemas.settled(id))
            }
            (Medium::Avro(_) | Medium::Lines | Medium::Json, _) => true,
        }
    }
}

/// Asks for what comes next of a partition. One request a partition is under way at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Index of the input.
    pub input: u16,
    /// The partition.
    pub partition: u32,
    /// The file; empty for a topic.
    pub path: PathBuf,
    /// First byte, or offset, wanted.
    pub offset: u64,
    /// At most so many bytes, or the first message if it is longer.
    pub bytes: usize,
    /// Stands at the end and has said so: answer only when there is news.
    pub at_end: bool,
    /// Nothing from this offset on is wanted: the replay log has it.
    pub upto: Option<u64>,
    /// Where the replay log may answer.
    pub log: Option<LogAsk>,
}

/// What a worker wants of the replay log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogAsk {
    /// Of the input's record: [`replay_log::layout`](crate::replay_log::layout).
    pub layout: u64,
    /// See [`Log::read`](crate::replay_log::Log::read).
    pub watermark: Millis,
}

/// What was read of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bytes {
    /// Of a file: lines, cut anywhere.
    Lines(Vec<u8>),
    /// Of a topic.
    Messages(Batch),
    /// Of the replay log.
    Rows(Block),
}

impl Bytes {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        match self {
            Bytes::Lines(bytes) => bytes.is_empty(),
            Bytes::Messages(batch) => batch.is_empty(),
            Bytes::Rows(block) => block.messages() == 0,
        }
    }
}

/// The answer to a request: what follows from `offset` on, or the news that the partition ends there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Index of the input.
    pub input: u16,
    /// The partition.
    pub partition: u32,
    /// The offset that was asked for.
    pub offset: u64,
    /// What was read; empty at the end.
    pub bytes: Bytes,
    /// The partition ended right behind it when it was read.
    pub at_end: bool,
}

/// What a reader thread answers with.
pub type Answer = Result<Arrival, Error>;

/// How an input is read and judged.
#[derive(Clone, Debug)]
pub struct InputSettings {
    /// Name of the input in the job.
    pub name: String,
    /// Index of the input in the plan.
    pub index: u16,
    /// What it is made of.
    pub medium: Medium,
    /// Rows of a table, rather than records with event time.
    pub is_table: bool,
    /// How far behind the greatest event time a record may be without being late.
    pub max_out_of_orderness_ms: Millis,
    /// After standing at its end for so long, a followed partition no longer holds the global watermark back.
    pub idle_timeout: Option<Duration>,
    /// An event time further ahead than this is INVALID.
    pub max_jump_ms: Option<Millis>,
    /// A longer message is UNDECODABLE.
    pub max_record_bytes: usize,
    /// Finite runs: the resolution of "as of".
    pub replay_tick_ms: Millis,
    /// Replays: what is read of it; none: all of it. A topic of events is cut by offsets instead.
    pub span: Option<Span>,
    /// Replays with a log, which keeps what is decoded: what tells the source from another one of its name. Of
    /// files nothing: each says it itself.
    pub log: Option<String>,
}

/// The worker that reads a partition.
pub fn owner(input: u16, partition: u32, peers: usize) -> usize {
    (usize::from(input) + partition as usize) % peers
}

/// The place of a message in a finite run: tick by tick, a tick's table messages before its other messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place(i64);

impl InputSettings {
    /// Whether bindings keep the messages themselves: of tables on topics, which are compacted.
    pub fn keeps_messages(&self) -> bool {
        self.is_table && !matches!(self.medium, Medium::Lines)
    }

    /// The place of a message of this input with this as-of time.
    pub fn place(&self, as_of: Option<Millis>) -> Place {
        let as_of = match &self.span {
            Some(span) if self.is_table => span.placed(as_of),
            _ => as_of,
        };
        Place::new(as_of, self.replay_tick_ms, self.is_table)
    }
}

impl Place {
    /// After every message.
    pub const END: Place = Place(i64::MAX);

    /// The place of a message with this as-of time; without one it is there from the start of the run.
    pub fn new(as_of: Option<Millis>, replay_tick_ms: Millis, is_table: bool) -> Place {
        let tick = as_of.map_or(i64::MIN / 4, |time| time.div_euclid(replay_tick_ms));
        Place(2 * tick + i64::from(!is_table))
    }
}

/// What an epoch takes.
#[derive(Clone, Copy, Debug)]
pub enum Take<'a> {
    /// What was recorded: of each partition the messages up to the recorded end.
    Recorded(&'a [PartitionBinding]),
    /// Finite: everything up to this place, of each partition at most `cap` messages.
    Upto {
        /// The announced place.
        place: Place,
        /// Messages per partition.
        cap: usize,
    },
    /// Live: what has arrived, of each partition at most `cap` messages.
    Arrived {
        /// Messages per partition.
        cap: usize,
        /// The time of the decision whether a partition is idle.
        now: Instant,
        /// False until the tables' backlog at start is bound everywhere: then only tables are taken.
        events: bool,
    },
}

/// Where one epoch's messages go, and what is known when it is filled.
pub struct Filling<'a> {
    /// The epoch.
    pub epoch: Epoch,
    /// The input's global watermark after the epoch before; known only when that epoch is complete
    /// everywhere. Partitions that wake wait for it.
    pub watermark_before: Option<Millis>,
    /// Messages that change no result.
    pub dead_letters: &'a mut MessageHandle<DeadLetter>,
    /// The worker's share of the binding.
    pub share: &'a mut Vec<PartitionBinding>,
}

/// What a feed holds for a finite run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Places all of whose messages are here and fit into one epoch, rising, all below `next`.
    pub complete: Vec<Place>,
    /// The least place of which that is not known; [`Place::END`] when everything has been read.
    pub next: Place,
    /// Whether an epoch's worth of `next` is here, so that it may be announced.
    pub ready: bool,
}

impl Held {
    /// Nothing held, nothing to come.
    pub const NOTHING: Held = Held {
        complete: Vec::new(),
        next: Place::END,
        ready: true,
    };

    /// As if no more than the first `most` places were known to be complete: what is announced next does not
    /// depend on the others, and it fits a short message.
    pub fn first(mut self, most: usize) -> Held {
        if let Some(next) = self.complete.get(most) {
            (self.next, self.ready) = (*next, true);
            self.complete.truncate(most);
        }
        self
    }

    /// What two feeds hold together.
    pub fn join(mut self, other: Held) -> Held {
        self.ready = match self.next.cmp(&other.next) {
            std::cmp::Ordering::Less => self.ready,
            std::cmp::Ordering::Equal => self.ready && other.ready,
            std::cmp::Ordering::Greater => other.ready,
        };
        self.next = self.next.min(other.next);
        self.complete.extend(other.complete);
        self.complete.sort_unstable();
        self.complete.dedup();
        self.complete.retain(|place| *place < self.next);
        self
    }
}

/// One worker's share of an input: its partitions, decoded ahead.
pub trait Feed {
    /// The input.
    fn settings(&self) -> &InputSettings;
    /// A partition of this worker: where it is read on and with which clock. It is read to the end of
    /// `recorded` first, cut exactly at those positions.
    fn add_partition(&mut self, partition: u32, from: partition::Start, recorded: Vec<u64>);
    /// All recorded epochs are taken; `declared` is what the first new one says of partitions. Until then no partition
    /// ends, and everything keeps its bytes.
    fn begin(&mut self, declared: &[PartitionBinding]);
    /// Takes in what has arrived for a partition.
    fn arrived(&mut self, arrival: Arrival, now: Instant);
    /// Asks for more where the queue is short.
    fn request(&mut self, requests: &mut Vec<Request>);
    /// Finite runs: what is held.
    fn held(&self, cap: usize, most: usize) -> Held;
    /// Whether everything a recorded binding asks for is here; what it keeps itself is taken from it. The error
    /// names a partition that ends before it.
    fn has(&mut self, recorded: &[PartitionBinding]) -> crate::error::Result<bool>;
    /// Whether a partition wants to wake: then [`Filling::watermark_before`] is wanted for the epoch.
    fn wakes(&self, take: Take<'_>) -> bool;
    /// Live: whether an epoch would hold anything, idle decisions included.
    fn has_arrived(&self, now: Instant, events: bool) -> bool;
    /// Live: tables whose backlog at start is not yet taken.
    fn backlog(&self) -> bool;
    /// Replays: how many messages outside the span were passed over since this was last asked.
    fn skipped(&mut self) -> u64;
    /// Blocks for the replay log, since this was last asked.
    fn decoded(&mut self) -> Vec<Decoded>;
    /// Fills an epoch; gives the number of messages taken.
    fn fill(&mut self, take: Take<'_>, filling: &mut Filling<'_>) -> usize;
    /// Closes all epochs below.
    fn advance_to(&mut self, epoch: Epoch);
}

/// The dead letters of all inputs of this worker, as a stream.
pub type DeadLetters<'s> = Messages<'s, DeadLetter>;

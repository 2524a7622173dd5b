//! Records: what every input yields, whatever its kind and format.
//!
//! A record's **origin** is (input, partition, offset). Within one input, origins order the records of a key
//! where event times tie, so no result depends on which worker read what first.

use crate::replay_log::Flat;
use crate::time::{Diff, Epoch, Millis};
use compact_str::CompactString;
use differential_dataflow::VecCollection;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use timely::dataflow::Stream;

/// A string that is inline up to 24 bytes: ids, keys, currencies.
pub type Text = CompactString;

/// Where a record stands in its input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// Partition of the input.
    pub partition: u32,
    /// Offset in the partition; for files the byte offset of the line.
    pub offset: u64,
}

impl std::fmt::Display for Origin {
    /// `partition/offset`.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.partition, self.offset)
    }
}

/// The hash that routes a key to a worker and a state shard, computed once, at the source.
/// It is the same on every machine and in every release (XXH3), because checkpoints rely on it.
pub fn key_hash(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}

/// A record type of the contract: how a decoded value is checked and what time it has.
pub trait Record:
    Flat + Clone + std::fmt::Debug + Ord + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// The record's name in the contract, for error texts.
    const NAME: &'static str;

    /// The record's Avro schema (JSON): what a writer's schema is resolved against. Its fields and symbols
    /// stand in the order of the type's.
    const SCHEMA: &'static str;

    /// Event time of the record; none for rows of tables.
    fn event_time(&self) -> Option<Millis>;

    /// What the types cannot say: ranges, a key that disagrees with the key field, a rule without its
    /// parameter. The error is the text of an INVALID dead letter.
    fn check(&self, key: &str) -> Result<(), String>;
}

/// A valid record of an event input, as the source stamped it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamped<R> {
    /// The message key.
    pub key: Text,
    /// [`key_hash`] of the key.
    pub hash: u64,
    /// Where it stands.
    pub origin: Origin,
    /// Its partition's watermark before it.
    pub watermark: Millis,
    /// The original value bytes; kept only where event time <= watermark, for only such a record can be late.
    pub raw: Option<Box<[u8]>>,
    /// The record itself.
    pub value: R,
}

/// One write to a table: the row's new value, or none for a tombstone. Later origins win.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Write<R> {
    /// The row's key.
    pub key: Text,
    /// [`key_hash`] of the key.
    pub hash: u64,
    /// Where the write stands in its input.
    pub origin: Origin,
    /// The new row; none removes it.
    pub value: Option<R>,
}

/// A differential collection of `D` over epochs.
pub type Updates<'s, D> = VecCollection<'s, Epoch, D, Diff>;

/// A stream of messages: effects, which unlike updates cannot be taken back.
pub type Messages<'s, D> = Stream<'s, Epoch, Vec<D>>;

/// An event input: its records (keyed by message key, spread by partition) and its global watermark after
/// each epoch in which it rose (the same on every worker).
pub struct Records<'s, R: Record> {
    /// The records; a retraction repeats the record with a negative difference.
    pub updates: Updates<'s, Stamped<R>>,
    /// The input's global watermark.
    pub watermark: Messages<'s, Millis>,
}

impl<R: Record> Clone for Records<'_, R> {
    fn clone(&self) -> Self {
        Records {
            updates: self.updates.clone(),
            watermark: self.watermark.clone(),
        }
    }
}

/// The place of a message among those of its output and epoch; equal ranks are ordered by their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Rank(pub u64, pub u64, pub u64);

/// A message type of the contract: what goes to an output.
pub trait Output: Serialize + Clone + std::fmt::Debug + Send + 'static {
    /// The message's Avro schema (JSON): what it is written by. Its fields and symbols stand in the order in
    /// which `Serialize` gives them.
    const SCHEMA: &'static str;

    /// The message key.
    fn key(&self) -> Option<&str>;
    /// The order within output and epoch. `Serialize` gives the message value.
    fn rank(&self) -> Rank;
    /// The one message it comes from, if it is one: name of the input, and origin. It places a message without
    /// a key, and goes along in a header.
    fn origin(&self) -> Option<(&str, Origin)> {
        None
    }
}

/// Why a message went to the dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DeadLetterReason {
    /// Bytes that do not parse.
    Undecodable,
    /// Bytes that parse and break the contract.
    Invalid,
    /// A valid record behind its own partition's watermark.
    Late,
}

/// A message that changed no result, and why. Field order and names are the contract's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Name of the input.
    pub input: Text,
    /// Partition of the input.
    pub partition: u32,
    /// Offset in the partition.
    pub offset: u64,
    /// The original key, as it stands.
    #[serde(with = "crate::format::bytes")]
    pub key: Option<Box<[u8]>>,
    /// The original value, as it stands, cut at [`crate::limits::DEAD_LETTER_VALUE_BYTES`].
    #[serde(with = "crate::format::bytes")]
    pub value: Option<Box<[u8]>>,
    /// Why.
    pub reason: DeadLetterReason,
    /// Free text for people.
    pub error: String,
    /// LATE: the dataflow for which it is late.
    pub dataflow: Option<Text>,
    /// LATE: the record's event time.
    pub event_time: Option<Millis>,
    /// LATE: the watermark it was behind.
    pub watermark: Option<Millis>,
}

impl DeadLetter {
    /// The dead letter of a record that is late for `dataflow`.
    pub fn late<R: Record>(input: &str, dataflow: &str, record: &Stamped<R>) -> Self {
        DeadLetter {
            input: input.into(),
            partition: record.origin.partition,
            offset: record.origin.offset,
            key: Some(record.key.as_bytes().into()),
            value: record.raw.as_deref().map(crate::format::cut),
            reason: DeadLetterReason::Late,
            error: format!("behind its partition's watermark for {dataflow}"),
            dataflow: Some(dataflow.into()),
            event_time: record.value.event_time(),
            watermark: Some(record.watermark),
        }
    }
}

impl Output for DeadLetter {
    const SCHEMA: &'static str = include_str!("format/schemas/DeadLetter.avsc");

    fn key(&self) -> Option<&str> {
        self.key.as_deref().and_then(|key| std::str::from_utf8(key).ok())
    }

    fn origin(&self) -> Option<(&str, Origin)> {
        let (partition, offset) = (self.partition, self.offset);
        Some((&self.input, Origin { partition, offset }))
    }

    /// By offset within an input's partition.
    fn rank(&self) -> Rank {
        let input = self.input.as_bytes();
        let mut first = [0; 8];
        let length = input.len().min(8);
        first[..length].copy_from_slice(&input[..length]);
        Rank(u64::from_be_bytes(first), u64::from(self.partition), self.offset)
    }
}

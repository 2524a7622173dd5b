//! What is late, and what is refused: the two ways in which a record changes no result.
//!
//! ```text
//!  stamped records ─► on_time ─┬─► Timed ─► a stateful operator ─┬─► results
//!                              │                                 └─► Refused ─┐
//!                              └────────────── late ───────────────────────────┴─► dead letters
//! ```
//!
//! **Late** is decided per record, without state: it compares a bound, a pure function of the event time,
//! with the watermark that the record's own partition had before it. So which records are late depends on the
//! logs alone.
//!
//! **Refused** is decided by an operator: an update for what the global watermark has already settled. A log
//! cannot bring one (the global watermark never passes that of a partition), but a correction can, a
//! retraction above all. It never reopens what is closed; like a late record it becomes a dead letter.

use super::Side;
use crate::record::{DeadLetter, DeadLetterReason, Messages, Origin, Record, Stamped, Text, Updates};
use crate::time::{AFTER_ALL, Diff, Epoch, Millis};
use differential_dataflow::AsCollection;
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::OkErr;
use timely::dataflow::operators::vec::{Filter, Map};

/// A record as the per-record operators want it. The order of the records of one key is by event time, then
/// by origin.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timed<V> {
    /// Event time.
    pub time: Millis,
    /// Where the record stands in its input.
    pub origin: Origin,
    /// What the operator computes with.
    pub value: V,
    /// The key it groups or joins by.
    pub key: Text,
    /// [`crate::record::key_hash`] of the key.
    pub hash: u64,
}

/// An update that came after the global watermark had settled its place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Refused {
    /// The record's key.
    pub key: Text,
    /// Where the record stands in its input.
    pub origin: Origin,
    /// Its event time.
    pub time: Millis,
    /// The global watermark that was ahead of it.
    pub watermark: Millis,
}

impl Refused {
    /// The refusal of `record`, which `watermark` has left behind.
    pub fn new<V>(record: Timed<V>, watermark: Millis) -> Self {
        Refused {
            key: record.key,
            origin: record.origin,
            time: record.time,
            watermark,
        }
    }
}

/// Splits the records of `input` into those on time and the dead letters of those late for `dataflow`: late
/// are those whose `bound(event time)` is not ahead of the watermark they carry. `value` keeps what the
/// dataflow computes with.
///
/// Every copy of a late record is a dead letter, and every copy of a late retraction too: a correction after
/// the close.
pub fn on_time<'s, R: Record, V: Clone + 'static>(
    records: Updates<'s, Stamped<R>>,
    input: &'static str,
    dataflow: &'static str,
    bound: impl Fn(Millis) -> Millis + 'static,
    value: fn(R) -> V,
) -> (Updates<'s, Timed<V>>, Messages<'s, DeadLetter>) {
    let (on_time, late) = records.inner.ok_err(move |(record, epoch, diff)| {
        // Only rows of tables have no event time, and a table is never late.
        let time = record.value.event_time().unwrap_or(AFTER_ALL);
        if bound(time) <= record.watermark {
            return Err((record, diff));
        }
        let Stamped {
            key,
            hash,
            origin,
            value: record,
            ..
        } = record;
        let value = value(record);
        let timed = Timed {
            time,
            origin,
            value,
            key,
            hash,
        };
        Ok((timed, epoch, diff))
    });
    let letters = late.flat_map(move |(record, diff): (Stamped<R>, Diff)| {
        copies(DeadLetter::late(input, dataflow, &record), diff.unsigned_abs())
    });
    (on_time.as_collection(), letters)
}

/// The dead letters of refused updates, one for each copy.
pub fn refused_letters<'s>(
    refused: Updates<'s, Refused>,
    input: &'static str,
    dataflow: &'static str,
) -> Messages<'s, DeadLetter> {
    refused
        .inner
        .flat_map(move |(refused, _, diff): (Refused, Epoch, Diff)| {
            let letter = DeadLetter {
                input: input.into(),
                partition: refused.origin.partition,
                offset: refused.origin.offset,
                key: Some(refused.key.as_bytes().into()),
                value: None,
                reason: DeadLetterReason::Late,
                error: format!("a correction behind the global watermark for {dataflow}"),
                dataflow: Some(dataflow.into()),
                event_time: Some(refused.time),
                watermark: Some(refused.watermark),
            };
            copies(letter, diff.unsigned_abs())
        })
}

/// The messages that the additions to a collection give, one per copy. Retractions give none: a message stays
/// sent.
pub fn additions<'s, D: Clone + 'static, M: Clone + 'static>(
    updates: Updates<'s, D>,
    message: impl Fn(D) -> M + 'static,
) -> Messages<'s, M> {
    updates
        .inner
        .flat_map(move |(row, _, diff): (D, Epoch, Diff)| copies(message(row), diff.max(0).unsigned_abs()))
}

/// Separates what an operator accepted from what it refused.
pub(super) fn accepted<'s, A: Clone + 'static, E: Clone + 'static>(
    updates: Updates<'s, Result<A, E>>,
) -> (Updates<'s, A>, Updates<'s, E>) {
    let (accepted, refused) = updates.inner.ok_err(|(result, epoch, diff)| match result {
        Ok(row) => Ok((row, epoch, diff)),
        Err(refused) => Err((refused, epoch, diff)),
    });
    (accepted.as_collection(), refused.as_collection())
}

/// The refused updates of one side.
pub(super) fn refused_of<'s>(refused: Updates<'s, (Side, Refused)>, side: Side) -> Updates<'s, Refused> {
    let of_side = refused.inner.filter(move |((at, _), _, _)| *at == side);
    of_side
        .map(|((_, refused), epoch, diff)| (refused, epoch, diff))
        .as_collection()
}

fn copies<M: Clone>(message: M, count: u64) -> impl Iterator<Item = M> {
    std::iter::repeat_n(message, usize::try_from(count).unwrap_or(usize::MAX))
}

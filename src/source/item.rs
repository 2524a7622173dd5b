//! One message, decoded and judged: what waits in a partition's queue.
//!
//! Two media: a line of a file, which holds key, value and time, and a message of a topic, whose parts come
//! apart. Both end as a record, a write to a table, or a dead letter.
//!
//! Of a topic's message: bytes that do not parse are UNDECODABLE whatever the key; then a missing key, a key
//! that is not UTF-8, a tombstone outside a table, and what the record refuses are INVALID.
//!
//! Decoding looks at the message alone, judging at what came before it: so a replay that finds decoded messages
//! in its log judges them anew ([`judge`]).

use super::batch::Message;
use super::{InputSettings, Medium, Place};
use crate::format::avro::{self, Writer};
use crate::format::json::{self, Rejected};
use crate::format::lines::Line;
use crate::format::registry::Schemas;
use crate::format::{Unreadable, cut};
use crate::record::{DeadLetter, DeadLetterReason, Origin, Record, Text, Write, key_hash};
use crate::replay_log::Original;
use crate::time::Millis;
use std::sync::Arc;

/// A decoded message and what the log says up to it.
pub(super) struct Item<R> {
    pub(super) content: Content<R>,
    /// Position after the message.
    pub(super) end: u64,
    pub(super) place: Place,
    pub(super) greatest_before: Option<Millis>,
    pub(super) greatest: Option<Millis>,
    pub(super) as_of: Option<Millis>,
    /// Message time, where a table's topic keeps it.
    pub(super) timestamp: Option<Millis>,
    /// The bytes of a table's topic, which a replay cannot read again.
    pub(super) kept: Option<Kept>,
}

/// The parts of a message as they came.
pub(super) struct Kept {
    pub(super) offset: u64,
    pub(super) key: Option<Box<[u8]>>,
    pub(super) value: Option<Box<[u8]>>,
}

pub(super) enum Content<R> {
    Record {
        key: Text,
        offset: u64,
        raw: Option<Box<[u8]>>,
        value: R,
    },
    Write(Write<R>),
    Dead(DeadLetter),
}

/// What was decoded so far.
#[derive(Default)]
pub(super) struct Front {
    pub(super) greatest: Option<Millis>,
    pub(super) as_of: Option<Millis>,
    /// The last valid record was in the span.
    pub(super) in_span: bool,
    /// The last schema and its id: most messages of a partition have the same.
    pub(super) writer: Option<(u32, Result<Arc<Writer>, String>)>,
}

impl Front {
    /// Whether the span has the message; one without a valid time goes with the one before it.
    fn takes<R: Record>(
        &mut self,
        decoded: &Result<json::Message<R>, Rejected>,
        settings: &InputSettings,
    ) -> bool {
        let Some(span) = &settings.span else {
            return true;
        };
        if settings.is_table {
            self.as_of = self
                .as_of
                .max(decoded.as_ref().ok().and_then(|message| message.timestamp));
            return span.reaches(self.as_of);
        }
        let value = decoded.as_ref().ok().and_then(|message| message.value.as_ref());
        if let Some(time) = value.and_then(Record::event_time) {
            self.in_span = span.contains(time);
        }
        self.in_span
    }

    fn read_avro<R: Record>(&mut self, bytes: &[u8], schemas: &Schemas) -> Result<R, Unreadable> {
        let id = avro::schema_id(bytes).map_err(Unreadable::Undecodable)?;
        if self.writer.as_ref().is_none_or(|(known, _)| *known != id) {
            // Readers hand over only what is settled.
            let settled = schemas
                .get(id)
                .unwrap_or_else(|| Err(format!("schema {id} is not settled")));
            self.writer = Some((id, settled));
        }
        match &self.writer {
            Some((_, Ok(writer))) => avro::decode(writer, avro::body(bytes)),
            Some((_, Err(unknown))) => Err(Unreadable::Undecodable(unknown.clone())),
            None => Err(Unreadable::Undecodable(format!("schema {id} is not known"))),
        }
    }
}

/// What is decoded, by medium.
#[derive(Clone, Copy)]
pub(super) enum Raw<'a> {
    /// A line of a file.
    Line(Line<'a>),
    /// A message of a topic.
    Message(Message<'a>),
}

/// A message that is judged, wherever its decoding was done.
#[derive(Clone, Copy)]
pub(super) enum Parts<'a> {
    /// Just now.
    Raw(Raw<'a>),
    /// By an earlier replay.
    Logged(Original<'a>),
}

impl<'a> Parts<'a> {
    fn offset(&self) -> u64 {
        match self {
            Parts::Raw(raw) => raw.offset(),
            Parts::Logged(original) => original.offset,
        }
    }

    pub(super) fn end(&self) -> u64 {
        match self {
            Parts::Raw(raw) => raw.end(),
            Parts::Logged(original) => original.end,
        }
    }

    /// What an UNDECODABLE dead letter shows.
    fn whole(&self) -> Option<&'a [u8]> {
        match self {
            Parts::Raw(raw) => raw.whole(),
            Parts::Logged(original) => original.value,
        }
    }

    /// The bytes of the value, where they are wanted.
    fn value(&self) -> Option<&'a [u8]> {
        match self {
            Parts::Raw(raw) => raw.value(),
            Parts::Logged(original) => original.value,
        }
    }

    /// What bindings keep of a table's topic.
    fn kept(&self, settings: &InputSettings) -> (Option<Millis>, Option<Kept>) {
        let kept = |offset, key: Option<&[u8]>, value: Option<&[u8]>| {
            let (key, value) = (key.map(Box::from), value.map(Box::from));
            Some(Kept { offset, key, value })
        };
        match self {
            Parts::Raw(Raw::Message(message)) if settings.is_table => (
                message.timestamp,
                kept(message.offset, message.key, message.value),
            ),
            Parts::Logged(original) if settings.keeps_messages() => (
                original.timestamp,
                kept(original.offset, original.key, original.value),
            ),
            Parts::Raw(Raw::Line(_) | Raw::Message(_)) | Parts::Logged(_) => (None, None),
        }
    }
}

impl<'a> Raw<'a> {
    pub(super) fn offset(&self) -> u64 {
        match self {
            Raw::Line(line) => line.offset,
            Raw::Message(message) => message.offset,
        }
    }

    pub(super) fn end(&self) -> u64 {
        match self {
            Raw::Line(line) => line.end,
            Raw::Message(message) => message.offset + 1,
        }
    }

    /// What an UNDECODABLE dead letter shows.
    fn whole(&self) -> Option<&'a [u8]> {
        match self {
            Raw::Line(line) => Some(line.bytes),
            Raw::Message(message) => message.value,
        }
    }

    /// The bytes of the value.
    pub(super) fn value(&self) -> Option<&'a [u8]> {
        match self {
            Raw::Line(line) => json::raw_value(line.bytes),
            Raw::Message(message) => message.value,
        }
    }

    pub(super) fn decode<R: Record>(
        &self,
        front: &mut Front,
        settings: &InputSettings,
    ) -> Result<json::Message<R>, Rejected> {
        let too_long = || Rejected::Undecodable {
            error: format!("longer than {} bytes", settings.max_record_bytes),
        };
        match self {
            Raw::Line(line) if line.too_long => Err(too_long()),
            Raw::Line(line) => json::decode_line::<R>(line.bytes, settings.is_table),
            Raw::Message(message)
                if message
                    .value
                    .is_some_and(|value| value.len() > settings.max_record_bytes) =>
            {
                Err(too_long())
            }
            Raw::Message(message) => decode_message(message, front, settings),
        }
    }
}

/// A topic's message as a checked one.
fn decode_message<R: Record>(
    message: &Message<'_>,
    front: &mut Front,
    settings: &InputSettings,
) -> Result<json::Message<R>, Rejected> {
    let invalid = |error: String| Rejected::Invalid {
        key: message.key.map(Box::from),
        value: message.value.map(cut),
        error,
    };
    let value = match message.value {
        None => None,
        Some(bytes) => Some(
            read_value::<R>(bytes, front, &settings.medium).map_err(|unreadable| match unreadable {
                Unreadable::Undecodable(error) => Rejected::Undecodable { error },
                Unreadable::Invalid(error) => invalid(error),
            })?,
        ),
    };
    let Some(key) = message.key else {
        return Err(invalid("key: null".to_owned()));
    };
    let key = std::str::from_utf8(key).map_err(|error| invalid(format!("key: {error}")))?;
    match &value {
        Some(value) => value.check(key).map_err(&invalid)?,
        None if settings.is_table => {}
        None => {
            return Err(invalid(format!(
                "{}: a tombstone, but the input is no table",
                R::NAME
            )));
        }
    }
    Ok(json::Message {
        key: key.into(),
        timestamp: message.timestamp,
        value,
    })
}

fn read_value<R: Record>(bytes: &[u8], front: &mut Front, medium: &Medium) -> Result<R, Unreadable> {
    match medium {
        Medium::Lines | Medium::Json => json::decode_value(bytes),
        Medium::Avro(schemas) => front.read_avro(bytes, schemas),
    }
}

/// Validates one message that was decoded; the front moves on. None: it lies outside the span of a replay.
pub(super) fn judge<R: Record>(
    parts: Parts<'_>,
    decoded: Result<json::Message<R>, Rejected>,
    partition: u32,
    front: &mut Front,
    watermark: Millis,
    settings: &InputSettings,
) -> Option<Item<R>> {
    let offset = parts.offset();
    let dead = |reason, key, value, error| {
        Content::Dead(DeadLetter {
            input: settings.name.as_str().into(),
            partition,
            offset,
            key,
            value,
            reason,
            error,
            dataflow: None,
            event_time: None,
            watermark: None,
        })
    };
    let greatest_before = front.greatest;
    if !front.takes(&decoded, settings) {
        return None;
    }
    let content = match decoded {
        Err(Rejected::Undecodable { error }) => {
            dead(DeadLetterReason::Undecodable, None, parts.whole().map(cut), error)
        }
        Err(Rejected::Invalid { key, value, error }) => {
            dead(DeadLetterReason::Invalid, key, value.as_deref().map(cut), error)
        }
        Ok(message) if settings.is_table => {
            front.as_of = front.as_of.max(message.timestamp);
            Content::Write(Write {
                hash: key_hash(message.key.as_bytes()),
                key: message.key,
                origin: Origin { partition, offset },
                value: message.value,
            })
        }
        Ok(json::Message {
            key,
            value: Some(value),
            ..
        }) => match jumps(&value, front.greatest, settings) {
            Some(error) => {
                let bytes = parts.value().map(cut);
                dead(
                    DeadLetterReason::Invalid,
                    Some(key.as_bytes().into()),
                    bytes,
                    error,
                )
            }
            None => {
                let time = value.event_time();
                // Its bytes are wanted only if it turns out late.
                let own = greatest_before.map(|time| time.saturating_sub(settings.max_out_of_orderness_ms));
                let may_be_late = time <= own.max(Some(watermark));
                let raw = may_be_late.then(|| parts.value().map(Box::from)).flatten();
                front.greatest = front.greatest.max(time);
                front.as_of = front.as_of.max(time);
                Content::Record {
                    key,
                    offset,
                    raw,
                    value,
                }
            }
        },
        // The decoder refuses tombstones outside tables.
        Ok(json::Message { key, value: None, .. }) => {
            let error = format!("{}: a tombstone outside a table", R::NAME);
            dead(
                DeadLetterReason::Invalid,
                Some(key.as_bytes().into()),
                None,
                error,
            )
        }
    };
    let (timestamp, kept) = parts.kept(settings);
    Some(Item {
        content,
        end: parts.end(),
        place: settings.place(front.as_of),
        greatest_before,
        greatest: front.greatest,
        as_of: front.as_of,
        timestamp,
        kept,
    })
}

/// An event time further ahead of the greatest before it than `max_jump_ms`.
fn jumps<R: Record>(value: &R, greatest: Option<Millis>, settings: &InputSettings) -> Option<String> {
    let (time, greatest, limit) = (value.event_time()?, greatest?, settings.max_jump_ms?);
    let jump = time.saturating_sub(greatest);
    (jump > limit).then(|| {
        format!(
            "{}: event time {jump} ms ahead of the one before; max_jump_ms is {limit}",
            R::NAME
        )
    })
}

#[cfg(test)]
#[path = "item_tests.rs"]
mod tests;

//! JSON lines: one message each, `{"key":"A1","value":{...}}`.
//!
//! ```text
//!   line --typed pass--> Message --check--> accepted
//!             |                      |
//!           fails                  fails
//!             '----> second pass <---'   reads key and raw value only: it decides
//!                                        UNDECODABLE (not one whole envelope) or INVALID (all else)
//! ```
//!
//! A good line costs one typed pass, straight into the record; only a bad one is read again. The second pass
//! knows nothing of record types, so whether a line is UNDECODABLE does not depend on what its input expects,
//! and a line that breaks off after a wrong type is UNDECODABLE, not INVALID.
//!
//! UNDECODABLE: not UTF-8 (anywhere, also in what is ignored), not JSON, more than one value, no object,
//! `key` neither string nor null, `key` or `value` missing or given twice. INVALID: a null key, a tombstone
//! outside a table, a `timestamp` that is no time, and what the record type refuses
//! ([`crate::format::strict`], [`Record::check`]).
//!
//! Ignored fields may hold anything that is JSON, nested however deep (they are passed over without
//! recursion). The escape of half a surrogate pair is JSON but no character: in `key` and in names of the
//! envelope it is UNDECODABLE, in names and strings that a record reads INVALID, elsewhere ignored.

use super::strict::within;
use super::{Unreadable, shorten};
use crate::record::{Output, Record, Text};
use crate::time::{EVENT_TIMES, Millis};
use serde::de::{DeserializeOwned, Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A decoded line.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(bound(deserialize = "R: Record"))]
pub struct Message<R> {
    /// The message key.
    #[serde(deserialize_with = "key_that_is_there")]
    pub key: Text,
    /// The message time, milliseconds since the Unix epoch; only tables use it.
    #[serde(default, deserialize_with = "message_time")]
    pub timestamp: Option<Millis>,
    /// The record; none is a tombstone.
    #[serde(deserialize_with = "record_or_null")]
    pub value: Option<R>,
}

/// Why a line is no message: what its dead letter says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// The bytes do not parse; the dead letter has no key and the whole line as its value.
    Undecodable {
        /// Free text for people.
        error: String,
    },
    /// The bytes parse and break the contract.
    Invalid {
        /// The key's characters as UTF-8; none for a null key.
        key: Option<Box<[u8]>>,
        /// The value's bytes as they stand in the line, cut as a dead letter's are; none for a tombstone.
        value: Option<Box<[u8]>>,
        /// Free text for people.
        error: String,
    },
}

/// The envelope alone, for lines that are rejected or late.
#[derive(Deserialize)]
struct Envelope<'a> {
    /// `deserialize_with` makes a missing key an error; a null one is none.
    #[serde(deserialize_with = "Option::deserialize")]
    key: Option<Text>,
    /// The exact bytes of the value.
    #[serde(borrow)]
    value: &'a RawValue,
}

/// A line whose value is of no known type: what a topic's message is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw<'a> {
    /// The message key.
    pub key: Option<Text>,
    /// The value's bytes as they stand; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The message time, milliseconds since the Unix epoch.
    pub timestamp: Option<Millis>,
}

/// Takes a line apart. The error says why it is no message.
pub fn raw(line: &[u8]) -> Result<Raw<'_>, String> {
    #[derive(Deserialize)]
    struct Timed<'a> {
        #[serde(deserialize_with = "Option::deserialize")]
        key: Option<Text>,
        #[serde(borrow)]
        value: &'a RawValue,
        #[serde(default, deserialize_with = "message_time")]
        timestamp: Option<Millis>,
    }
    let line: Timed<'_> = serde_json::from_str(object(line)?).map_err(|error| brief(&error, "line"))?;
    let value = line.value.get().as_bytes();
    Ok(Raw {
        key: line.key,
        value: (value != b"null").then_some(value),
        timestamp: line.timestamp,
    })
}

/// Decodes one line (without its end) into a checked message. A tombstone is one only where `is_table`.
pub fn decode_line<R: Record>(line: &[u8], is_table: bool) -> Result<Message<R>, Rejected> {
    let text = object(line).map_err(|error| Rejected::Undecodable { error })?;
    let message = typed(text, "line").and_then(|message| checked(message, is_table));
    message.map_err(|error| reject(text, error))
}

/// Decodes a value alone, as a topic has it; the caller checks it against its key.
///
/// Whatever is one JSON value parses: if it is no record, it is INVALID.
pub fn decode_value<R: Record>(bytes: &[u8]) -> Result<R, Unreadable> {
    let text = std::str::from_utf8(bytes).map_err(|error| Unreadable::Undecodable(error.to_string()))?;
    let read = typed::<R>(text, "value");
    read.map_err(|error| match serde_json::from_str::<IgnoredAny>(text) {
        Err(error) => Unreadable::Undecodable(brief(&error, "value")),
        Ok(_) => Unreadable::Invalid(shorten(format!("{}: {error}", R::NAME))),
    })
}

/// The value of a line as it stands, without the space around it; none if the line is UNDECODABLE.
pub fn raw_value(line: &[u8]) -> Option<&[u8]> {
    let envelope: Envelope<'_> = serde_json::from_str(object(line).ok()?).ok()?;
    Some(envelope.value.get().as_bytes())
}

/// Appends a message as a line with its LF: `key` and `value`, nothing else.
///
/// # Panics
/// If the message's `Serialize` fails, which no message type of the contract can.
pub fn write_line<O: Output>(message: &O, line: &mut Vec<u8>) {
    line.extend_from_slice(b"{\"key\":");
    serde_json::to_writer(&mut *line, &message.key()).expect("a string is JSON");
    line.extend_from_slice(b",\"value\":");
    serde_json::to_writer(&mut *line, message).expect("a message type serializes");
    line.extend_from_slice(b"}\n");
}

/// Appends a message's value alone, as a topic has it.
///
/// # Panics
/// If the message's `Serialize` fails, which no message type of the contract can.
pub fn write_value<O: Output>(message: &O, bytes: &mut Vec<u8>) {
    serde_json::to_writer(bytes, message).expect("a message type serializes");
}

/// The line as text, if it can be one object. Checking UTF-8 here, once, covers ignored fields and is
/// repeated nowhere; checking for the brace keeps arrays out, which serde would take for structs.
fn object(line: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(line).map_err(|error| error.to_string())?;
    if text.trim_ascii_start().starts_with('{') {
        Ok(text)
    } else {
        Err("not a JSON object".to_owned())
    }
}

/// The typed pass; `what` the text is, for the error.
fn typed<T: DeserializeOwned>(text: &str, what: &str) -> Result<T, String> {
    serde_json::from_str(text).or_else(|error| {
        // serde_json takes the integer -0 for a float. Such a text gets a second try, with the sign left out.
        let retried = without_negative_zeros(text).and_then(|text| serde_json::from_str(&text).ok());
        retried.ok_or_else(|| brief(&error, what))
    })
}

/// The message, if what types cannot say is right too.
fn checked<R: Record>(message: Message<R>, is_table: bool) -> Result<Message<R>, String> {
    match &message.value {
        Some(record) => record.check(&message.key).map(|()| message),
        None if is_table => Ok(message),
        None => Err(format!("{}: a tombstone, but the input is no table", R::NAME)),
    }
}

/// The second pass: which kind of dead letter a line becomes that the typed pass refused with `error`.
fn reject(text: &str, error: String) -> Rejected {
    match serde_json::from_str::<Envelope<'_>>(text) {
        Err(error) => Rejected::Undecodable {
            error: brief(&error, "line"),
        },
        Ok(Envelope { key, value }) => Rejected::Invalid {
            key: key.map(|key| key.as_bytes().into()),
            value: (value.get() != "null").then(|| super::cut(value.get().as_bytes())),
            error: shorten(error),
        },
    }
}

/// An error as one line: the path without its leading dot, the place in bytes ("line 1" would mislead).
fn brief(error: &serde_json::Error, what: &str) -> String {
    let text = error.to_string();
    let text = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(text, _)| text);
    let text = shorten(text.trim_start_matches('.').to_owned());
    format!("{text} (byte {} of the {what})", error.column())
}

/// The same text with `-0` written ` 0`, outside strings and not as part of a longer number; none if there is
/// none.
fn without_negative_zeros(text: &str) -> Option<String> {
    let mut bytes = text.as_bytes().to_vec();
    let (mut in_string, mut found, mut at) = (false, false, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if in_string => at += 1, // whatever is escaped does not end the string
            b'"' => in_string = !in_string,
            b'-' if !in_string && bytes.get(at + 1) == Some(&b'0') => {
                let exponent = at > 0 && matches!(bytes[at - 1], b'e' | b'E');
                let longer = matches!(bytes.get(at + 2), Some(b'0'..=b'9' | b'.' | b'e' | b'E'));
                if !exponent && !longer {
                    bytes[at] = b' ';
                    found = true;
                }
            }
            _ => {}
        }
        at += 1;
    }
    if found {
        String::from_utf8(bytes).ok()
    } else {
        None
    }
}

fn key_that_is_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
    let key = Option::<Text>::deserialize(deserializer).map_err(|error| within("key", error))?;
    key.ok_or_else(|| D::Error::custom("key: null"))
}

fn message_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Millis>, D::Error> {
    let time = Millis::deserialize(deserializer).map_err(|error| within("timestamp", error))?;
    if EVENT_TIMES.contains(&time) {
        Ok(Some(time))
    } else {
        Err(D::Error::custom(format_args!(
            "timestamp: {time} is outside {EVENT_TIMES:?}"
        )))
    }
}

fn record_or_null<'de, R: Record, D: Deserializer<'de>>(deserializer: D) -> Result<Option<R>, D::Error> {
    Option::deserialize(deserializer).map_err(|error| within(R::NAME, error))
}

#[cfg(test)]
#[path = "json_tests.rs"]
pub(crate) mod tests;

#[cfg(test)]
#[path = "json_model.rs"]
pub(crate) mod model;

//! Formats: bytes to records and back.
//!
//! ```text
//!   blocks of a partition --lines--> lines --json--> messages, or why not --check--> records | dead letters
//!                                               ^
//!                                            strict: how a record type reads its fields
//!                                               v
//!   messages of a topic -------------values --avro--> records, or why not --check--> records | dead letters
//!                                               ^
//!                                            registry: schemas by their id
//! ```
//!
//! Everything here but the registry is a pure function of bytes: no file, no clock, no thread. Nothing an
//! input holds can make it panic or take more memory than `max_record_bytes` allows.

pub mod avro;
pub mod bytes;
pub mod json;
pub mod lines;
pub mod registry;
pub mod strict;

/// Why the bytes of a value are no record. Decides what kind of dead letter they become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// They do not parse. Free text for people.
    Undecodable(String),
    /// They parse and break the contract. Free text for people.
    Invalid(String),
}

/// A value as a dead letter holds it: cut at [`crate::limits::DEAD_LETTER_VALUE_BYTES`].
pub fn cut(value: &[u8]) -> Box<[u8]> {
    value[..value.len().min(crate::limits::DEAD_LETTER_VALUE_BYTES)].into()
}

/// A text of a dead letter is cut here, bytes: it may quote the input.
const ERROR_TEXT_BYTES: usize = 512;

/// Cuts a text that may quote the input.
fn shorten(mut text: String) -> String {
    if text.len() > ERROR_TEXT_BYTES {
        text.truncate(text.floor_char_boundary(ERROR_TEXT_BYTES));
        text.push_str(" ...");
    }
    text
}

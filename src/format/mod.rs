//! Formats: bytes to records and back.
//!
//! ```text
//!   blocks of a partition --lines--> lines --json--> messages, or why not --check--> records | dead letters
//!                                               ^
//!                                            strict: how a record type reads its fields
//! ```
//!
//! Everything here is a pure function of bytes: no file, no clock, no thread. Nothing an input holds can make
//! it panic or take more memory than `max_record_bytes` allows.

pub mod json;
pub mod lines;
pub mod strict;

/// `bytes` fields: base64 in JSON.
pub mod bytes {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    /// Writes base64, or null.
    pub fn serialize<S: Serializer>(bytes: &Option<Box<[u8]>>, serializer: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => serializer.serialize_some(&STANDARD.encode(bytes)),
            None => serializer.serialize_none(),
        }
    }

    /// Reads base64, or null.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<[u8]>>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| {
            STANDARD
                .decode(text)
                .map(Vec::into_boxed_slice)
                .map_err(D::Error::custom)
        })
        .transpose()
    }
}

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

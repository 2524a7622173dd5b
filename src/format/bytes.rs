//! `bytes` fields: base64 where people read it, bytes elsewhere.
//!
//! For `#[serde(with = "...")]` on nullable bytes, which serde alone would take for a sequence of numbers.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};
use std::fmt;

/// Writes the bytes, or null.
pub fn serialize<S: Serializer>(bytes: &Option<Box<[u8]>>, serializer: S) -> Result<S::Ok, S::Error> {
    match bytes {
        Some(bytes) if serializer.is_human_readable() => serializer.serialize_some(&STANDARD.encode(bytes)),
        Some(bytes) => serializer.serialize_some(&Plain(bytes)),
        None => serializer.serialize_none(),
    }
}

/// Reads the bytes, or null.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<[u8]>>, D::Error> {
    if !deserializer.is_human_readable() {
        return Ok(Option::<Owned>::deserialize(deserializer)?.map(|Owned(bytes)| bytes));
    }
    let decode = |text: String| STANDARD.decode(text).map(Vec::into_boxed_slice);
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(decode).transpose().map_err(D::Error::custom)
}

/// Bytes that are written as bytes.
struct Plain<'a>(&'a [u8]);

impl Serialize for Plain<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// Bytes that are read as bytes.
struct Owned(Box<[u8]>);

impl<'de> Deserialize<'de> for Owned {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Owned;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Owned, E> {
                Ok(Owned(bytes.into()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

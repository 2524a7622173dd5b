//! Avro values in Confluent's wire format: byte 0, the writer schema's id as a big-endian u32, a body.
//!
//! ```text
//!   message ──schema_id──► id ──registry──► Writer ──decode──► record, not yet checked against its key
//!                                             │        │
//!                            schema: parsed   │        └ fails ──second pass──► UNDECODABLE: does not parse
//!                            plan: resolved ──┘                                 INVALID: all else
//!   record ──Encoder──► message
//! ```
//!
//! The rooms below, in the order to read them: `schema` (JSON to nodes), `plan` (a writer's schema resolved
//! against a reader's), `body` (the primitive types), `decode` and `encode`.
//!
//! A good body costs one typed pass, straight into the record; only a bad one is passed over again, by the
//! writer's schema alone. So whether a message is UNDECODABLE does not depend on what its input expects, and
//! a body that breaks off after a wrong type is UNDECODABLE, as in [`super::json`].
//!
//! UNDECODABLE: no wire header, an id that the registry does not know, a body that breaks off or goes on
//! after its value, a number too long, bytes that are no string, a count that cannot fit the rest. INVALID: what
//! does not resolve against the record's schema, such as a field missing from the writer's schema, a type
//! that does not widen, a symbol unknown here. [`Record::check`] is the caller's, who has the key.
//!
//! Memory is in proportion to the body: lengths and counts are checked against what is left of it before
//! anything is allocated. Own code because the crates there are do not do this: `apache-avro` builds a tree and
//! allocates what a count claims, `serde_avro_fast` knows no reader's schema (no aliases, no defaults) and
//! passes over blocks unchecked.

mod body;
mod decode;
mod encode;
mod plan;
mod schema;

use super::shorten;
use super::strict::within;
use crate::format::Unreadable;
use crate::record::Record;
use body::{Body, Failure, skip};
use plan::Plan;
use schema::Schema;
use serde::Serialize;
use std::sync::OnceLock;

/// Bytes before the body: 0 and the schema's id.
pub const HEADER_BYTES: usize = 5;

/// The writer schema's id in the header of a message; the error is the text of an UNDECODABLE dead letter.
pub fn schema_id(message: &[u8]) -> Result<u32, String> {
    match message {
        [0, a, b, c, d, ..] => Ok(u32::from_be_bytes([*a, *b, *c, *d])),
        [] => Err("an empty message".to_owned()),
        [0, ..] => Err(format!("{} bytes, less than a wire header", message.len())),
        [first, ..] => Err(format!("the first byte is {first}, not the 0 of the wire format")),
    }
}

/// What follows the header of a message; nothing if it has none.
pub fn body(message: &[u8]) -> &[u8] {
    message.get(HEADER_BYTES..).unwrap_or_default()
}

/// A writer's schema, parsed once, with how each record type of this program takes it.
#[derive(Debug)]
pub struct Writer {
    schema: Schema,
    readers: OnceLock<Box<Reader>>,
}

/// How one record type takes a writer's values, and the next one's. Most writers have one reader, so this is
/// a list; it only grows, so looking into it takes no lock.
#[derive(Debug)]
struct Reader {
    schema: &'static str,
    plan: Plan,
    next: OnceLock<Box<Reader>>,
}

impl Writer {
    /// Parses a schema (JSON). Names that it does not define itself stand in `definitions`, each of which may
    /// use the names of those before it. The error says what is wrong.
    pub fn parse(schema: &str, definitions: &[String]) -> Result<Writer, String> {
        Ok(Writer {
            schema: Schema::parse_with(schema, definitions)?,
            readers: OnceLock::new(),
        })
    }

    /// How a reader takes this writer's values.
    ///
    /// # Panics
    /// If the reader's schema does not parse: it is part of this program.
    fn plan(&self, reader: &'static str) -> &Plan {
        let resolve = || {
            let schema = Schema::parse(reader).expect("the schema of a record type parses");
            Box::new(Reader {
                schema: reader,
                plan: Plan::new(&self.schema, &schema),
                next: OnceLock::new(),
            })
        };
        let mut known = self.readers.get_or_init(resolve);
        while !(std::ptr::eq(known.schema, reader) || known.schema == reader) {
            known = known.next.get_or_init(resolve);
        }
        &known.plan
    }
}

/// Decodes the body of a message. What the types cannot say is left to [`Record::check`].
pub fn decode<R: Record>(writer: &Writer, body: &[u8]) -> Result<R, Unreadable> {
    let record = decode::read(&writer.schema, writer.plan(R::SCHEMA), body);
    record.map_err(|error| reject(writer, body, within(R::NAME, error)))
}

/// The second pass: which kind of dead letter a body becomes that the typed pass refused.
#[cold]
fn reject(writer: &Writer, bytes: &[u8], refused: Failure) -> Unreadable {
    let mut body = Body::new(bytes);
    let parsed = skip(&writer.schema, writer.schema.root, &mut body);
    match (parsed, body.left()) {
        (Ok(()), 0) => Unreadable::Invalid(shorten(refused.0.trim_start_matches('.').to_owned())),
        (Ok(()), left) => Unreadable::Undecodable(format!("{left} bytes after the value")),
        (Err(error), left) => {
            let at = bytes.len() - left;
            Unreadable::Undecodable(shorten(format!("{error} (byte {at} of the body)")))
        }
    }
}

/// Writes messages of one type, by one schema.
#[derive(Debug)]
pub struct Encoder {
    schema: Schema,
    header: [u8; HEADER_BYTES],
}

impl Encoder {
    /// Writes by a schema (JSON) that the registry knows by this id.
    pub fn new(schema: &str, id: u32) -> Result<Encoder, String> {
        let mut header = [0; HEADER_BYTES];
        header[1..].copy_from_slice(&id.to_be_bytes());
        Ok(Encoder {
            schema: Schema::parse(schema)?,
            header,
        })
    }

    /// By which the registry knows the schema.
    pub fn id(&self) -> u32 {
        let [_, id @ ..] = self.header;
        u32::from_be_bytes(id)
    }

    /// Appends a message: header and body.
    ///
    /// # Panics
    /// If the value does not fit the schema, which is the type's own: a test holds the two together.
    pub fn encode<T: Serialize + ?Sized>(&self, value: &T, message: &mut Vec<u8>) {
        message.extend_from_slice(&self.header);
        encode::write(&self.schema, value, message).expect("a value fits the schema of its type");
    }
}

#[cfg(test)]
mod encode_tests;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

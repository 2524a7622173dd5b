//! Bodies: the primitive types as they stand in the bytes, and passing over a whole value.
//!
//! Every reader takes its bytes or fails; nothing is allocated here, and no count or length is believed
//! before the rest of the body is long enough for it. Refused: the end in the middle of a value, an integer
//! of more than 64 bits (an `int` of more than 32), a boolean other than 0 and 1, a string that is not UTF-8,
//! a branch or symbol that its type does not have, a negative length. The size in bytes that a block may
//! carry is read and not relied on.
//!
//! Items that take no bytes cannot be bounded by the bytes they take: a body may hold at most as many of them
//! as it has bytes.

use super::schema::{Node, NodeId, Schema};
use serde::{de, ser};
use std::fmt;

/// Why a value could not be read or written.
#[derive(Debug)]
pub(super) struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl de::Error for Failure {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Failure(text.to_string())
    }
}

impl ser::Error for Failure {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Failure(text.to_string())
    }
}

pub(super) type Result<T> = std::result::Result<T, Failure>;

/// A body, read from its start to its end.
pub(super) struct Body<'a> {
    rest: &'a [u8],
    /// How many more items without bytes it may hold.
    empty_items: u64,
}

#[cold]
fn failure<T>(text: impl Into<String>) -> Result<T> {
    Err(Failure(text.into()))
}

impl<'a> Body<'a> {
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Body {
            rest: bytes,
            empty_items: bytes.len() as u64,
        }
    }

    /// How many bytes have not been read.
    #[inline]
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// The next bytes, so many.
    #[inline]
    pub fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        match self.rest.split_at_checked(length) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => failure(format!(
                "cut off: {length} bytes wanted where {} are left",
                self.rest.len()
            )),
        }
    }

    /// The same where their number is fixed.
    fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH]> {
        match self.rest.split_first_chunk() {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(*taken)
            }
            None => failure("cut off in a number"),
        }
    }

    /// An integer of 64 bits.
    #[inline]
    pub fn long(&mut self) -> Result<i64> {
        // Seven bits a byte, the least first; the sign is in the lowest bit. Most are lengths of one byte.
        if let Some((byte, rest)) = self.rest.split_first()
            && *byte < 0x80
        {
            self.rest = rest;
            return Ok(i64::from(byte >> 1) ^ -i64::from(byte & 1));
        }
        let mut bits = 0_u64;
        for (place, byte) in self.rest.iter().enumerate() {
            if place == 9 && *byte > 1 {
                return failure("an integer of more than 64 bits");
            }
            bits |= u64::from(byte & 0x7f) << (7 * place);
            if *byte < 0x80 {
                self.rest = &self.rest[place + 1..];
                return Ok((bits >> 1).cast_signed() ^ -(bits & 1).cast_signed());
            }
        }
        failure("cut off in an integer")
    }

    /// An integer of 32 bits.
    pub fn int(&mut self) -> Result<i64> {
        let value = self.long()?;
        if i32::try_from(value).is_ok() {
            Ok(value)
        } else {
            failure(format!("the int {value} has more than 32 bits"))
        }
    }

    /// One byte.
    pub fn boolean(&mut self) -> Result<bool> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => failure(format!("the boolean {other}")),
        }
    }

    pub fn float(&mut self) -> Result<f32> {
        self.array().map(f32::from_le_bytes)
    }

    pub fn double(&mut self) -> Result<f64> {
        self.array().map(f64::from_le_bytes)
    }

    /// A length and so many bytes.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.long()?;
        match usize::try_from(length) {
            Ok(length) => self.take(length),
            Err(_) => failure(format!("the length {length}")),
        }
    }

    /// A string, lent from the body.
    #[inline]
    pub fn text(&mut self) -> Result<&'a str> {
        match std::str::from_utf8(self.bytes()?) {
            Ok(text) => Ok(text),
            Err(error) => failure(error.to_string()),
        }
    }

    /// The place of a union's branch or an enum's symbol, of which there are `count`.
    #[inline]
    pub fn place(&mut self, count: usize) -> Result<usize> {
        let place = self.long()?;
        match usize::try_from(place) {
            Ok(place) if place < count => Ok(place),
            _ => failure(format!("number {place} of {count} branches or symbols")),
        }
    }

    /// The number of items in the next block, each of which takes at least `least` bytes; 0 is the end.
    pub fn block(&mut self, least: u64) -> Result<u64> {
        let count = self.long()?;
        if count < 0 {
            self.long()?; // the block's size in bytes
        }
        let count = count.unsigned_abs();
        let fits = match least {
            0 => count <= self.empty_items,
            least => count <= self.rest.len() as u64 / least,
        };
        if !fits {
            return failure(format!(
                "a block of {count} items where {} bytes are left",
                self.rest.len()
            ));
        }
        if least == 0 {
            self.empty_items -= count;
        }
        Ok(count)
    }
}

/// A value that has been entered and not yet left.
struct Open<'s> {
    node: &'s Node,
    /// The next field of a record; the items left in the block of an array or map.
    count: u64,
}

/// Passes over a value, checking it like one that is read. Recursive values cost memory in proportion to
/// their bytes, and no stack.
pub(super) fn skip(schema: &Schema, root: NodeId, body: &mut Body<'_>) -> Result<()> {
    let mut open: Vec<Open<'_>> = Vec::new();
    let mut next = root;
    loop {
        let node = schema.node(next);
        match node {
            // Nothing but values without bytes: passed over as one, however many there are.
            _ if schema.least(next) == 0 => {}
            Node::Null => {}
            Node::Boolean => drop(body.boolean()?),
            Node::Int => drop(body.int()?),
            Node::Long => drop(body.long()?),
            Node::Float => drop(body.float()?),
            Node::Double => drop(body.double()?),
            Node::Bytes => drop(body.bytes()?),
            Node::Text => drop(body.text()?),
            Node::Fixed(_, size) => drop(body.take(*size)?),
            Node::Enum(_, symbols, _) => drop(body.place(symbols.len())?),
            Node::Union(branches) => {
                next = branches[body.place(branches.len())?];
                continue;
            }
            Node::Array(_) | Node::Map(_) | Node::Record(..) => open.push(Open { node, count: 0 }),
        }
        match following(schema, &mut open, body)? {
            Some(node) => next = node,
            None => return Ok(()),
        }
    }
}

/// The node after the one just passed: a field or item of the innermost open value that has one left.
fn following(schema: &Schema, open: &mut Vec<Open<'_>>, body: &mut Body<'_>) -> Result<Option<NodeId>> {
    while let Some(value) = open.last_mut() {
        match value.node {
            Node::Record(_, fields) => {
                if let Some(field) = fields.get(value.count as usize) {
                    value.count += 1;
                    return Ok(Some(field.node));
                }
            }
            Node::Array(item) | Node::Map(item) => {
                let key = u64::from(matches!(value.node, Node::Map(_)));
                let least = key + schema.least(*item);
                if value.count == 0 {
                    value.count = body.block(least)?;
                    if least == 0 && value.count > 0 {
                        value.count = 0; // the whole block is passed over; there may be another one
                        continue;
                    }
                }
                if value.count > 0 {
                    value.count -= 1;
                    if key == 1 {
                        body.text()?;
                    }
                    return Ok(Some(*item));
                }
            }
            _ => {} // never open
        }
        open.pop();
    }
    Ok(None)
}

//! Blocks: the decoded messages of a partition between two offsets.
//!
//! ```text
//!   header │ heads: one a message │ rows: one a record │ extras    │ rejections │ texts │ bytes
//!   120 B  │ 24 B each            │ fixed, by record   │ 24 B each │ 8 B each   │ padded to words
//!          └─────────────────────────── covered by the body's CRC-32 ──────────────────────┘
//! ```
//!
//! Every part is a multiple of words, so whatever lies in it is aligned and read where it lies. A block says
//! itself what it covers: partition and offsets `[start, end)`, holes included. Its **fingerprint** stands for
//! everything its rows depend on beside the source's bytes: the layout, the record's schema, the input, the
//! source's identity.
//!
//! A late record's dead letter shows the bytes it came as, which a row does not hold. So a block keeps the
//! bytes of those messages that were at or behind their partition's watermark when it was written; `kept_to`
//! is that watermark before its first message. A reader whose own watermark is further ahead there would want
//! bytes that are gone: it does not use the block.
//!
//! It refuses, as a [`Fault`]: another format, another fingerprint, a length that does not fit, a checksum
//! that does not fit. No bit of a block is without effect.

use super::place::{as_bytes, take};
use super::row::{Flat, NOTHING, Places};
use crate::format::cut;
use crate::format::json::{Message, Rejected};
use crate::time::Millis;
use abomonation::Abomonation;
use bytemuck::{AnyBitPattern, NoUninit};
use std::marker::PhantomData;

/// What a block begins with; its last digits are the version of everything in this module.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"tiderow1");

/// Length of a block's header, bytes.
pub(super) const HEADER_BYTES: usize = size_of::<Header>();

/// Why a block cannot be used. Its span is to be read from the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is no block, or of another version.
    Format,
    /// It is of another layout, input or source.
    Foreign,
    /// Bytes are missing or follow.
    Length,
    /// A checksum does not fit.
    Damaged,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Fault::Format => "is no block of this version",
            Fault::Foreign => "is of another layout, input or source",
            Fault::Length => "is not whole",
            Fault::Damaged => "is damaged",
        })
    }
}

/// What a block says of itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, NoUninit, AnyBitPattern)]
pub(super) struct Header {
    pub(super) magic: u64,
    pub(super) fingerprint: u64,
    pub(super) partition: u64,
    /// First offset that it covers.
    pub(super) start: u64,
    /// Where the partition is read on.
    pub(super) end: u64,
    /// See the module.
    pub(super) kept_to: Millis,
    pub(super) messages: u64,
    pub(super) records: u64,
    pub(super) extras: u64,
    pub(super) rejections: u64,
    pub(super) text_bytes: u64,
    pub(super) other_bytes: u64,
    /// Of everything behind the header: length, and CRC-32.
    pub(super) body_bytes: u64,
    pub(super) body_crc: u64,
    /// CRC-32 of the words above.
    pub(super) header_crc: u64,
}

impl Abomonation for Header {}

/// What is known of every message, whatever became of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, NoUninit, AnyBitPattern)]
pub(super) struct Head {
    pub(super) offset: u64,
    /// Its end, as a distance from its offset; 0: it is among the extras.
    pub(super) length: u32,
    /// A number of [`kind`], and [`kind::EXTRA`].
    pub(super) kind: u32,
    /// Place of the key: among the texts, of a rejected message among the bytes.
    pub(super) key: u64,
}

impl Abomonation for Head {}

/// What few messages have; all that have one of them have all.
#[repr(C)]
#[derive(Clone, Copy, Debug, NoUninit, AnyBitPattern)]
pub(super) struct Extra {
    pub(super) end: u64,
    /// Message time; [`NOTHING`] if it has none.
    pub(super) timestamp: u64,
    /// Place of the original value among the bytes.
    pub(super) value: u64,
}

impl Abomonation for Extra {}

/// What became of a message.
pub(super) mod kind {
    pub(in super::super) const RECORD: u32 = 0;
    pub(in super::super) const TOMBSTONE: u32 = 1;
    pub(in super::super) const UNDECODABLE: u32 = 2;
    pub(in super::super) const INVALID: u32 = 3;
    /// It has an [`Extra`](super::Extra).
    pub(in super::super) const EXTRA: u32 = 4;
}

/// The parts of a message that do not depend on its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Original<'a> {
    /// Its offset.
    pub offset: u64,
    /// Offset behind it.
    pub end: u64,
    /// Message time.
    pub timestamp: Option<Millis>,
    /// Its key; when a message is put into a block, only of a rejected one.
    pub key: Option<&'a [u8]>,
    /// Of a rejected message what its dead letter shows, of others the value's bytes where they are kept.
    pub value: Option<&'a [u8]>,
}

/// A message as it was decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row<'a, R> {
    /// Its parts.
    pub original: Original<'a>,
    /// What decoding it gave.
    pub outcome: Result<Message<R>, Rejected>,
}

impl Header {
    /// Reads a header; its fingerprint and partition must be these.
    pub(super) fn read(bytes: &mut [u8], fingerprint: u64, partition: u32) -> Result<Header, Fault> {
        let mut rest = bytes;
        let header = *take::<Header>(&mut rest).ok_or(Fault::Length)?;
        if header.magic != MAGIC {
            return Err(Fault::Format);
        }
        if header.header_crc != header.checksum() {
            return Err(Fault::Damaged);
        }
        if (header.fingerprint, header.partition) != (fingerprint, u64::from(partition)) {
            return Err(Fault::Foreign);
        }
        Ok(header)
    }

    pub(super) fn checksum(&self) -> u64 {
        let words = bytemuck::bytes_of(self);
        u64::from(crc32fast::hash(&words[..HEADER_BYTES - size_of::<u64>()]))
    }
}

/// A block that was read and is sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    header: Header,
    /// Header and body.
    words: Vec<u64>,
}

impl Block {
    /// A block out of its bytes.
    pub(super) fn read(mut words: Vec<u64>, fingerprint: u64, partition: u32) -> Result<Block, Fault> {
        let header = Header::read(as_bytes(&mut words), fingerprint, partition)?;
        let body = as_bytes(&mut words).get(HEADER_BYTES..).unwrap_or_default();
        if body.len() as u64 != header.body_bytes {
            return Err(Fault::Length);
        }
        if u64::from(crc32fast::hash(body)) != header.body_crc {
            return Err(Fault::Damaged);
        }
        Ok(Block { header, words })
    }

    /// First offset that it covers.
    pub fn start(&self) -> u64 {
        self.header.start
    }

    /// Where the partition is read on.
    pub fn end(&self) -> u64 {
        self.header.end
    }

    /// How many messages it holds.
    pub fn messages(&self) -> u64 {
        self.header.messages
    }

    /// The messages, in order. They must be of the record that the fingerprint was made with.
    pub fn rows<R: Flat>(&mut self) -> Result<Rows<'_, R>, Fault> {
        let header = self.header;
        let body = as_bytes(&mut self.words).get_mut(HEADER_BYTES..);
        let mut rest = body.ok_or(Fault::Length)?;
        let mut part = |count: u64, each: usize| -> Option<&mut [u8]> {
            let length = usize::try_from(count).ok()?.checked_mul(each)?;
            let (part, behind) =
                std::mem::take(&mut rest).split_at_mut_checked(length.checked_next_multiple_of(8)?)?;
            rest = behind;
            part.get_mut(..length)
        };
        let mut parts = || {
            let heads = part(header.messages, size_of::<Head>())?;
            let rows = part(header.records, size_of::<R::Row>())?;
            let extras = part(header.extras, size_of::<Extra>())?;
            let rejections = part(header.rejections, size_of::<u64>())?;
            let texts = part(header.text_bytes, 1)?;
            let bytes = part(header.other_bytes, 1)?;
            let texts = std::str::from_utf8(texts).ok()?;
            Some(Rows {
                heads,
                rows,
                extras,
                rejections,
                strings: Places { texts, bytes },
                record: PhantomData,
            })
        };
        parts().ok_or(Fault::Damaged)
    }
}

/// The messages of a block. One that cannot be read, which a sound checksum rules out, is a fault and the
/// last.
pub struct Rows<'a, R> {
    heads: &'a mut [u8],
    rows: &'a mut [u8],
    extras: &'a mut [u8],
    rejections: &'a mut [u8],
    strings: Places<'a>,
    record: PhantomData<R>,
}

impl<'a, R: Flat> Rows<'a, R> {
    #[inline]
    fn read(&mut self, head: &Head) -> Result<Row<'a, R>, Fault> {
        let strings = self.strings;
        let optional = |place: u64| match place {
            NOTHING => Ok(None),
            _ => strings.bytes(place).map(Some).ok_or(Fault::Damaged),
        };
        let mut original = Original {
            offset: head.offset,
            end: head.offset.saturating_add(u64::from(head.length)),
            timestamp: None,
            key: None,
            value: None,
        };
        if head.kind & kind::EXTRA != 0 {
            let extra = take::<Extra>(&mut self.extras).ok_or(Fault::Damaged)?;
            original.end = extra.end;
            original.timestamp = (extra.timestamp != NOTHING).then_some(extra.timestamp.cast_signed());
            original.value = optional(extra.value)?;
        }
        let outcome = match head.kind & !kind::EXTRA {
            kind @ (kind::RECORD | kind::TOMBSTONE) => {
                let key = strings.text(head.key).ok_or(Fault::Damaged)?;
                original.key = Some(key.as_bytes());
                let value = match kind {
                    kind::RECORD => Some(self.record().ok_or(Fault::Damaged)?),
                    _ => None,
                };
                let (key, timestamp) = (key.into(), original.timestamp);
                Ok(Message {
                    key,
                    timestamp,
                    value,
                })
            }
            kind => {
                let error = self.error().ok_or(Fault::Damaged)?;
                original.key = optional(head.key)?;
                let (key, value) = (original.key.map(Box::from), original.value.map(cut));
                match kind {
                    kind::UNDECODABLE => Err(Rejected::Undecodable { error }),
                    kind::INVALID => Err(Rejected::Invalid { key, value, error }),
                    _ => return Err(Fault::Damaged),
                }
            }
        };
        Ok(Row { original, outcome })
    }

    #[inline]
    fn record(&mut self) -> Option<R> {
        R::from_row(take(&mut self.rows)?, &self.strings)
    }

    fn error(&mut self) -> Option<String> {
        let place = take::<u64>(&mut self.rejections)?;
        self.strings.text(*place).map(str::to_owned)
    }
}

impl<'a, R: Flat> Iterator for Rows<'a, R> {
    type Item = Result<Row<'a, R>, Fault>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let head = take::<Head>(&mut self.heads)?;
        let row = self.read(head);
        if row.is_err() {
            self.heads = &mut [];
        }
        Some(row)
    }
}

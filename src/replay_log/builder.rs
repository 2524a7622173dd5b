//! Writing a block: messages go in one after another, in the order of their offsets.
//!
//! Pure: what comes out is bytes, which a [`Log`](super::Log) writes. The builder belongs to a worker, which knows
//! the record; the log to the thread that knows the directory, and stamps whose block it is.

use super::block::{Extra, HEADER_BYTES, Head, Header, MAGIC, Original, kind};
use super::place::put;
use super::row::{Flat, NOTHING, Strings};
use crate::format::json::{Message, Rejected};
use crate::limits;
use crate::time::Millis;
use std::marker::PhantomData;

/// A block as it is written, before its log says whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    header: Header,
    body: Vec<u8>,
}

impl Encoded {
    /// First offset that it covers.
    pub fn start(&self) -> u64 {
        self.header.start
    }

    /// Where the partition is read on.
    pub fn end(&self) -> u64 {
        self.header.end
    }

    /// Header and body, of this log.
    pub(super) fn to_bytes(&self, fingerprint: u64, partition: u32) -> Vec<u8> {
        let mut header = Header {
            fingerprint,
            partition: u64::from(partition),
            ..self.header
        };
        header.header_crc = header.checksum();
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.body.len());
        put(&header, &mut bytes);
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// A block that is being written: messages one after another, in the order of their offsets.
pub struct Builder<R: Flat> {
    start: u64,
    end: u64,
    kept_to: Option<Millis>,
    heads: Vec<u8>,
    rows: Vec<u8>,
    extras: Vec<u8>,
    rejections: Vec<u8>,
    strings: Strings,
    record: PhantomData<R>,
}

impl<R: Flat> Builder<R> {
    /// An empty block, from an offset on.
    pub fn new(start: u64) -> Self {
        Builder {
            start,
            end: start,
            kept_to: None,
            heads: Vec::new(),
            rows: Vec::new(),
            extras: Vec::new(),
            rejections: Vec::new(),
            strings: Strings::default(),
            record: PhantomData,
        }
    }

    /// Adds a message. `watermark`: its partition's before it, at least; the value of a record at or behind
    /// it is given in `original`.
    pub fn push(
        &mut self,
        original: Original<'_>,
        outcome: &Result<Message<R>, Rejected>,
        watermark: Millis,
    ) {
        let strings = &mut self.strings;
        let (kind, key) = match outcome {
            Ok(message) => {
                let key = strings.texts.place(message.key.as_bytes());
                match &message.value {
                    Some(record) => {
                        put(&record.to_row(strings), &mut self.rows);
                        (kind::RECORD, key)
                    }
                    None => (kind::TOMBSTONE, key),
                }
            }
            Err(rejected) => {
                let (kind, error) = match rejected {
                    Rejected::Undecodable { error } => (kind::UNDECODABLE, error),
                    Rejected::Invalid { error, .. } => (kind::INVALID, error),
                };
                put(&strings.texts.place(error.as_bytes()), &mut self.rejections);
                (kind, strings.bytes.place_if(original.key))
            }
        };
        let (offset, end) = (original.offset, original.end);
        let short = u32::try_from(end.saturating_sub(offset)).ok();
        let has_extra = original.timestamp.is_some() || original.value.is_some() || short.is_none();
        let extra = if has_extra { kind::EXTRA } else { 0 };
        let (length, kind) = (short.unwrap_or(0), kind | extra);
        put(
            &Head {
                offset,
                length,
                kind,
                key,
            },
            &mut self.heads,
        );
        if has_extra {
            let timestamp = original.timestamp.map_or(NOTHING, i64::cast_unsigned);
            let value = strings.bytes.place_if(original.value);
            put(
                &Extra {
                    end,
                    timestamp,
                    value,
                },
                &mut self.extras,
            );
        }
        self.kept_to.get_or_insert(watermark);
        self.end = original.end;
    }

    /// Everything up to this offset is in the block: there are no messages between its last one and there.
    pub fn reach(&mut self, end: u64) {
        self.end = self.end.max(end);
    }

    /// Whether it is long enough to be written.
    pub fn is_full(&self) -> bool {
        let strings = self.strings.texts.content.len() + self.strings.bytes.content.len();
        self.heads.len() + self.rows.len() + strings >= limits::REPLAY_BLOCK_BYTES
    }

    /// The block; the next one begins where it ends. None if it covers nothing, or holds a string
    /// that fits into no block: then the next replay reads its span from the source.
    pub fn finish(&mut self) -> Option<Encoded> {
        let is_whole = !self.strings.texts.is_full && !self.strings.bytes.is_full;
        let block = (self.start < self.end && is_whole).then(|| self.encode());
        self.restart(self.end);
        block
    }

    /// Drops what it holds and begins at an offset.
    pub fn restart(&mut self, start: u64) {
        (self.start, self.end, self.kept_to) = (start, start, None);
        self.heads.clear();
        self.rows.clear();
        self.extras.clear();
        self.rejections.clear();
        self.strings.texts.clear();
        self.strings.bytes.clear();
    }

    fn encode(&self) -> Encoded {
        let (texts, others) = (&self.strings.texts.content, &self.strings.bytes.content);
        let mut body = Vec::new();
        for part in [
            &self.heads,
            &self.rows,
            &self.extras,
            &self.rejections,
            texts,
            others,
        ] {
            body.extend_from_slice(part);
            body.resize(body.len().next_multiple_of(8), 0);
        }
        let header = Header {
            magic: MAGIC,
            fingerprint: 0,
            partition: 0,
            start: self.start,
            end: self.end,
            // Without messages nobody is late.
            kept_to: self.kept_to.unwrap_or(crate::time::AFTER_ALL),
            messages: (self.heads.len() / size_of::<Head>()) as u64,
            records: (self.rows.len() / size_of::<R::Row>()) as u64,
            extras: (self.extras.len() / size_of::<Extra>()) as u64,
            rejections: (self.rejections.len() / size_of::<u64>()) as u64,
            text_bytes: texts.len() as u64,
            other_bytes: others.len() as u64,
            body_bytes: body.len() as u64,
            body_crc: u64::from(crc32fast::hash(&body)),
            header_crc: 0,
        };
        Encoded { header, body }
    }
}

//! The replay log: decoded messages of a span, kept so that the next replay skips broker and decoder.
//!
//! ```text
//!                      a replay's first pass                            the next ones
//!  reader thread ─ bytes ─► decoder ─ rows ─► Builder          reader thread ─ Block ─► rows in place
//!      ▲                                        │ blocks            ▲
//!      └──────────── Log::append ◄──────────────┘                   └── Log::read: sound, or which span the
//!                      │ segment full: fsync, rename                    source has to give
//!                      ▼
//!  DIR/entries-0-5f0c...-000...000-000...817.rows     segments of blocks, one series a partition
//! ```
//!
//! It is a cache and nothing else: every result of a replay is the same with and without it, dead letters
//! included, and whatever is missing, damaged, foreign or of another version is read from the source again
//! ([`Found::Source`]). It holds what *decoding* gave and nothing that depends on the run: watermarks, ticks,
//! and spans are judged again each time, so one log serves replays of any span of the same source. The one
//! thing a reader asks for is its own watermark (see [`block`]).
//!
//! Blocks are fixed-layout rows written and read in place with abomonation ([`place`]), strings lie in a side
//! table ([`row`]). They never come from a network: a cache directory is written by this program on this
//! machine, and whoever can write to it can already change the replay's results.
//!
//! Segments are published whole ([`segments`]): a replay that is killed leaves what it has published, two
//! replays at once publish the same rows under the same names and do not disturb each other.

pub mod block;
pub mod builder;
mod place;
pub mod row;
pub mod segments;

pub use block::{Block, Fault, Original, Row};
pub use builder::{Builder, Encoded};
pub use row::{Cell, Flat};
pub use segments::{Found, Log};

use crate::record::Record;
use crate::time::Millis;
use xxhash_rust::xxh3::xxh3_64;

/// What a log's rows depend on beside the record's layout and the bytes of the source.
#[derive(Clone, Debug)]
pub struct Source {
    /// Name of the input: dead letters say it.
    pub input: String,
    /// What tells this source from another one of its name: a topic's id, a file's path, device and inode.
    /// Sources only grow; one that is rewritten in place has to change here.
    pub identity: String,
    /// What it is made of, and in which format.
    pub medium: String,
    /// Rows of a table, rather than records with event time.
    pub is_table: bool,
    /// Which messages keep their bytes depends on it.
    pub max_out_of_orderness_ms: Millis,
    /// A longer message is UNDECODABLE.
    pub max_record_bytes: usize,
}

impl Source {
    /// The number that tells a log from one of another layout, record, input or source. `layout`: of
    /// [`layout`].
    pub fn fingerprint(&self, layout: u64) -> u64 {
        xxh3_64(format!("{layout:016x} {self:?}").as_bytes())
    }
}

/// The number that stands for how a record lies in a row, on this kind of machine.
pub fn layout<R: Record>() -> u64 {
    let endian = if cfg!(target_endian = "little") {
        "little"
    } else {
        "big"
    };
    let row_bytes = size_of::<R::Row>();
    let (name, layout, schema) = (R::NAME, R::LAYOUT, R::SCHEMA);
    xxh3_64(format!("{endian} {row_bytes} {name} {layout} {schema}").as_bytes())
}

#[cfg(test)]
mod tests;

//! A record as a row of fixed layout: numbers as they are, strings by their place in a side table.
//!
//! ```text
//!   AccountEntry ─ put ─►  [ entry_id │ account_id │ booked_at │ direction │ ... ]   one word a field, two
//!                              │            │                                       for a nullable integer
//!                              ▼            ▼
//!                  texts:  "E17"        "A1" "CZK" ...      each string once a block
//! ```
//!
//! [`strict_record!`](crate::strict_record) makes a record's row out of its fields, so a record has nothing
//! to add. What has no fixed layout (lists, of which only rows of tables are made) lies in the side table as
//! the bytes that checkpoints would write. Reading never trusts a row: a place outside the side table, or a
//! number that is no symbol's, gives none.

use super::place::Fixed;
use crate::record::Text;
use hashbrown::HashTable;
use serde::{Serialize, de::DeserializeOwned};
use xxhash_rust::xxh3::xxh3_64;

/// A record that has a row of fixed layout. [`strict_record!`](crate::strict_record) implements it.
pub trait Flat: Sized {
    /// The row.
    type Row: Fixed;
    /// The fields and their types, in order, as text: part of a log's fingerprint.
    const LAYOUT: &'static str;
    /// The row; its strings go to the side table.
    fn to_row(&self, strings: &mut Strings) -> Self::Row;
    /// The record again; none if the row is no such record's.
    fn from_row(row: &Self::Row, strings: &Places<'_>) -> Option<Self>;
}

/// A field of a row.
pub trait Cell: Sized {
    /// Words it takes.
    const WORDS: usize;
    /// Fills its words, which are [`Cell::WORDS`].
    fn put(&self, words: &mut [u64], strings: &mut Strings);
    /// Reads them again; none if they are no such field.
    fn take(words: &[u64], strings: &Places<'_>) -> Option<Self>;
}

/// The word of what is not there: no place ends behind 4 GiB.
pub const NOTHING: u64 = u64::MAX;

impl Cell for i64 {
    const WORDS: usize = 1;

    #[inline]
    fn put(&self, words: &mut [u64], _strings: &mut Strings) {
        words[0] = self.cast_unsigned();
    }

    #[inline]
    fn take(words: &[u64], _strings: &Places<'_>) -> Option<Self> {
        Some(words[0].cast_signed())
    }
}

impl Cell for Option<i64> {
    const WORDS: usize = 2;

    #[inline]
    fn put(&self, words: &mut [u64], _strings: &mut Strings) {
        words[0] = u64::from(self.is_some());
        words[1] = self.unwrap_or_default().cast_unsigned();
    }

    #[inline]
    fn take(words: &[u64], _strings: &Places<'_>) -> Option<Self> {
        Some((words[0] == 1).then_some(words[1].cast_signed()))
    }
}

impl Cell for Text {
    const WORDS: usize = 1;

    #[inline]
    fn put(&self, words: &mut [u64], strings: &mut Strings) {
        words[0] = strings.texts.place(self.as_bytes());
    }

    #[inline]
    fn take(words: &[u64], strings: &Places<'_>) -> Option<Self> {
        strings.text(words[0]).map(Text::from)
    }
}

impl Cell for Option<Text> {
    const WORDS: usize = 1;

    #[inline]
    fn put(&self, words: &mut [u64], strings: &mut Strings) {
        match self {
            Some(text) => text.put(words, strings),
            None => words[0] = NOTHING,
        }
    }

    #[inline]
    fn take(words: &[u64], strings: &Places<'_>) -> Option<Self> {
        match words[0] {
            NOTHING => Some(None),
            _ => Text::take(words, strings).map(Some),
        }
    }
}

impl<T: Serialize + DeserializeOwned> Cell for Vec<T> {
    const WORDS: usize = 1;

    #[inline]
    fn put(&self, words: &mut [u64], strings: &mut Strings) {
        // Writing records into memory does not fail; if it did, no bytes are no list.
        words[0] = strings
            .bytes
            .place(&postcard::to_stdvec(self).unwrap_or_default());
    }

    #[inline]
    fn take(words: &[u64], strings: &Places<'_>) -> Option<Self> {
        postcard::from_bytes(strings.bytes(words[0])?).ok()
    }
}

/// Fills the words of a field, the first of a row's rest; gives what is left.
pub fn put<'a, T: Cell>(field: &T, row: &'a mut [u64], strings: &mut Strings) -> &'a mut [u64] {
    let (words, rest) = row.split_at_mut(T::WORDS);
    field.put(words, strings);
    rest
}

/// Reads the field that a row's rest begins with, which moves on behind it.
#[inline]
pub fn take<T: Cell>(row: &mut &[u64], strings: &Places<'_>) -> Option<T> {
    let (words, rest) = row.split_at_checked(T::WORDS)?;
    *row = rest;
    T::take(words, strings)
}

/// The side table of a block that is being written.
#[derive(Default)]
pub struct Strings {
    /// UTF-8, so that it is checked once for the whole block.
    pub(super) texts: Area,
    /// Any bytes: originals of messages, lists.
    pub(super) bytes: Area,
}

/// Byte strings one behind the other, each once.
#[derive(Default)]
pub(super) struct Area {
    pub(super) content: Vec<u8>,
    /// Places by the hash of what lies there.
    known: HashTable<u64>,
    /// Something did not fit into 4 GiB: the block cannot be written.
    pub(super) is_full: bool,
}

impl Area {
    /// Where the string lies: start and length, 32 bits each.
    pub(super) fn place(&mut self, string: &[u8]) -> u64 {
        let content = &self.content;
        let same = |place: &u64| at(content, *place) == Some(string);
        let hash = xxh3_64(string);
        if let Some(place) = self.known.find(hash, same) {
            return *place;
        }
        let (start, length) = (u32::try_from(content.len()), u32::try_from(string.len()));
        let (Ok(start), Ok(length)) = (start, length) else {
            self.is_full = true;
            return NOTHING;
        };
        let place = u64::from(start) << 32 | u64::from(length);
        let again = |place: &u64| xxh3_64(at(content, *place).unwrap_or_default());
        self.known.insert_unique(hash, place, again);
        self.content.extend_from_slice(string);
        place
    }

    /// The same for what may not be there.
    pub(super) fn place_if(&mut self, string: Option<&[u8]>) -> u64 {
        string.map_or(NOTHING, |string| self.place(string))
    }

    pub(super) fn clear(&mut self) {
        self.content.clear();
        self.known.clear();
        self.is_full = false;
    }
}

/// The side table of a block that is being read.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    pub(super) texts: &'a str,
    pub(super) bytes: &'a [u8],
}

impl<'a> Places<'a> {
    /// The text at a place; none if there is none.
    #[inline]
    pub fn text(&self, place: u64) -> Option<&'a str> {
        let (start, length) = (place >> 32, place & u64::from(u32::MAX));
        self.texts
            .get(usize::try_from(start).ok()?..usize::try_from(start + length).ok()?)
    }

    /// The bytes at a place; none if there are none.
    #[inline]
    pub fn bytes(&self, place: u64) -> Option<&'a [u8]> {
        at(self.bytes, place)
    }
}

#[inline]
fn at(content: &[u8], place: u64) -> Option<&[u8]> {
    let (start, length) = (place >> 32, place & u64::from(u32::MAX));
    content.get(usize::try_from(start).ok()?..usize::try_from(start + length).ok()?)
}

//! Lines: a partition's bytes, cut at line feeds.
//!
//! A line ends with LF; one CR before the LF belongs to the end. An empty line is a line; after the last LF
//! there is none until bytes follow. The last line of a finite input counts without LF ([`Lines::end`], where
//! a CR is an ordinary byte); in a followed file it waits. Which lines come out depends only on the bytes,
//! never on how they were cut:
//!
//! ```text
//!   block 1          block 2        block 3
//!   [a a \n b b b b] [b b b b b b] [b b \n c c \n]
//!    ~~~    ~~~~~~~~~~~~~~~~~~~~~~~~~~~    ~~~        a, c: borrowed from their block; b: carried over
//! ```
//!
//! A line longer than `max_record_bytes` is marked, and of its bytes only as many as a dead letter shows are
//! given; while it passes, at most `max_record_bytes` (or a dead letter's value, where that is more) are
//! held. Nothing is refused here.

use crate::limits::{BLOCK_BYTES, DEAD_LETTER_VALUE_BYTES};

/// One line, as it stands in the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Position of its first byte.
    pub offset: u64,
    /// Position after its LF, or after its last byte where the input ended without one.
    pub end: u64,
    /// Its bytes without LF and without one CR before it; the first [`DEAD_LETTER_VALUE_BYTES`] where it is
    /// too long.
    pub bytes: &'a [u8],
    /// Longer than `max_record_bytes`: not to be decoded.
    pub too_long: bool,
}

/// The splitter of one partition: what it has seen of the line that is not complete yet.
#[derive(Debug)]
pub struct Lines {
    /// Longest line, bytes without its end.
    max_record_bytes: usize,
    /// Position of the first byte of the incomplete line.
    start: u64,
    /// Position of the next byte to be fed.
    next: u64,
    /// The incomplete line's first bytes: all of them, or as many as a dead letter shows once it is too long.
    carried: Vec<u8>,
}

impl Lines {
    /// A splitter for the bytes from position `offset` on, which must be the start of a line.
    pub fn new(offset: u64, max_record_bytes: usize) -> Self {
        Lines {
            max_record_bytes,
            start: offset,
            next: offset,
            carried: Vec::new(),
        }
    }

    /// Position of the first byte that is not yet part of a complete line: reading again from here loses
    /// nothing.
    pub fn complete(&self) -> u64 {
        self.start
    }

    /// Takes the next bytes of the partition and hands on every line they complete, in order.
    pub fn feed(&mut self, block: &[u8], mut each: impl FnMut(Line<'_>)) {
        let mut rest = block;
        while let Some(length) = memchr::memchr(b'\n', rest) {
            let (piece, after) = (&rest[..length], &rest[length + 1..]);
            self.next += length as u64 + 1;
            if self.carried.is_empty() {
                each(self.line(piece, true));
            } else {
                self.carry(piece, self.next - 1);
                each(self.line(&self.carried, true));
                self.release();
            }
            self.start = self.next;
            rest = after;
        }
        self.next += rest.len() as u64;
        self.carry(rest, self.next);
    }

    /// Ends a finite input: what follows the last LF is a line too, if there is anything.
    pub fn end(&mut self, each: impl FnOnce(Line<'_>)) {
        if self.start < self.next {
            each(self.line(&self.carried, false));
            self.release();
            self.start = self.next;
        }
    }

    /// The line from `start` to `next`, of which `held` are the first bytes, all of them unless it is too
    /// long.
    fn line<'a>(&self, held: &'a [u8], ended: bool) -> Line<'a> {
        let whole = self.next - self.start - u64::from(ended);
        // Only a CR that is the line's last byte belongs to its end, not one at which the held bytes were
        // cut.
        let bytes = match held {
            [line @ .., b'\r'] if ended && held.len() as u64 == whole => line,
            _ => held,
        };
        // `carry` keeps one byte more than the longest line, for its CR: if bytes are missing it is too long
        // anyway.
        let too_long = (held.len() as u64) < whole || bytes.len() > self.max_record_bytes;
        let shown = if too_long {
            bytes.len().min(DEAD_LETTER_VALUE_BYTES)
        } else {
            bytes.len()
        };
        Line {
            offset: self.start,
            end: self.next,
            bytes: &bytes[..shown],
            too_long,
        }
    }

    /// Appends to what is held of the incomplete line, which now reaches up to position `end` without its LF.
    fn carry(&mut self, piece: &[u8], end: u64) {
        let longest = self.max_record_bytes.saturating_add(1); // one for a CR
        if end - self.start <= longest as u64 {
            self.reserve(piece.len(), longest);
            self.carried.extend_from_slice(piece);
            return;
        }
        // Too long for certain, so only the bytes that a dead letter shows are of use.
        let room = DEAD_LETTER_VALUE_BYTES
            .saturating_sub(self.carried.len())
            .min(piece.len());
        self.carried.extend_from_slice(&piece[..room]);
        self.carried.truncate(DEAD_LETTER_VALUE_BYTES);
        self.carried.shrink_to(DEAD_LETTER_VALUE_BYTES);
    }

    /// Makes room for `more` bytes: doubling, as a Vec does, but never beyond the longest line.
    fn reserve(&mut self, more: usize, longest: usize) {
        let needed = self.carried.len() + more;
        if needed > self.carried.capacity() {
            let capacity = needed.max((2 * self.carried.capacity()).min(longest));
            self.carried.reserve_exact(capacity - self.carried.len());
        }
    }

    /// Forgets the carried line, and its memory where it was out of the ordinary: partitions are many.
    fn release(&mut self) {
        self.carried.clear();
        self.carried.shrink_to(BLOCK_BYTES);
    }
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;

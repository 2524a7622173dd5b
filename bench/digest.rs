//! Digests: how two runs are found to have given the same messages, whatever their order.
//!
//! A message has a digest of 64 bits; a run adds them up ([`Tally`]), so order does not count and a
//! missing, doubled or
//! different message shows. The hand-written loops compute the same digests from their own plain results
//! and never see
//! the engine's message types, so neither side can hand its mistakes to the other.
//!
//! Digests cover what identifies a message and what was computed for it, not every field copied from the
//! input: those
//! are compared byte for byte where messages are encoded.

use serde::{Deserialize, Serialize};
use tidegate::record::{DeadLetter, DeadLetterReason, key_hash};
use tidegate::time::Millis;

/// How many messages there were, and the sum of their digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Messages.
    pub count: u64,
    /// Sum of their digests.
    pub sum: u64,
    /// Their encoded bytes; 0 where nothing was encoded.
    pub bytes: u64,
}

impl Tally {
    /// Counts a message that is not encoded.
    pub fn add(&mut self, digest: u64) {
        self.count += 1;
        self.sum = self.sum.wrapping_add(digest);
    }

    /// Counts an encoded message. Messages of different outputs differ, so the output need not count.
    pub fn add_line(&mut self, line: &[u8]) {
        self.add(key_hash(line));
        self.bytes += line.len() as u64;
    }

    /// Takes in the tally of another worker.
    pub fn merge(&mut self, other: Tally) {
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
        self.bytes += other.bytes;
    }
}

/// One digest of several numbers, in their order.
pub fn joined(words: &[u64]) -> u64 {
    let mix = |sum: u64, word: &u64| (sum.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let sum = words.iter().fold(words.len() as u64, mix);
    sum ^ (sum >> 29)
}

/// The digest of a text.
pub fn text(text: &str) -> u64 {
    key_hash(text.as_bytes())
}

/// The digest of a signed number.
pub fn number(number: i64) -> u64 {
    number.cast_unsigned()
}

/// The digest of a LATE dead letter.
pub fn late(dataflow: &str, partition: u32, offset: u64, watermark: Millis) -> u64 {
    joined(&[text(dataflow), partition.into(), offset, number(watermark)])
}

/// A message whose digest can be computed.
pub trait Digested {
    /// Its digest.
    fn digest(&self) -> u64;
}

impl Digested for DeadLetter {
    fn digest(&self) -> u64 {
        debug_assert_eq!(self.reason, DeadLetterReason::Late, "only valid records are fed");
        let dataflow = self.dataflow.as_deref().unwrap_or_default();
        late(
            dataflow,
            self.partition,
            self.offset,
            self.watermark.unwrap_or_default(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(digests: &[u64]) -> Tally {
        let mut tally = Tally::default();
        digests.iter().for_each(|digest| tally.add(*digest));
        tally
    }

    #[test]
    fn order_does_not_count_but_copies_do() {
        assert_eq!(tally(&[1, 2, 3]), tally(&[3, 1, 2]));
        assert_ne!(tally(&[1, 2, 3]), tally(&[1, 2, 3, 3]));
        assert_ne!(tally(&[1, 2, 3]), tally(&[1, 2, 4]));
        let mut merged = tally(&[1]);
        merged.merge(tally(&[2, 3]));
        assert_eq!(merged, tally(&[1, 2, 3]));
    }

    #[test]
    fn joined_numbers_have_their_places() {
        assert_ne!(joined(&[1, 2]), joined(&[2, 1]));
        assert_ne!(joined(&[1]), joined(&[1, 0]));
        assert_ne!(joined(&[0, 0]), joined(&[0]));
    }

    #[test]
    fn lines_count_their_bytes() {
        let (mut one, mut other) = (Tally::default(), Tally::default());
        one.add_line(b"abc\n");
        other.add_line(b"abd\n");
        assert_eq!((one.count, one.bytes, other.bytes), (1, 4, 4));
        assert_ne!(one.sum, other.sum);
    }
}

//! Rows into bytes and, in place, out of them: the only unsafe code of the project.
//!
//! abomonation copies a value's memory as it stands and later reads it where it lies. That is sound for few
//! types (RUSTSEC-2021-0120): padding would be read uninitialized, pointers would dangle, a bit pattern may
//! be no value of its type. [`Fixed`] admits none of those, by bytemuck's proofs at compile time:
//!
//! | abomonation asks | held by |
//! |---|---|
//! | every byte of the value is initialized | [`NoUninit`]: no padding |
//! | nothing points elsewhere | [`AnyBitPattern`]: references, boxes and vectors are not |
//! | whatever the bytes are, they are a value | [`AnyBitPattern`] |
//! | the bytes are aligned | asked at run time, refused if not |
//! | the bytes were written by the same layout | not needed for soundness: see the fingerprint of a block |
//!
//! It refuses to decode what is short or not aligned. The tests of this module run under Miri
//! (`scripts/miri`), in debug builds and in release.

use abomonation::Abomonation;
use bytemuck::{AnyBitPattern, NoUninit};

/// A value whose memory may be written and read in place: no padding, no pointer, no invalid bit pattern.
pub trait Fixed: Abomonation + NoUninit + AnyBitPattern {}

impl<T: Abomonation + NoUninit + AnyBitPattern> Fixed for T {}

/// What every part of a block is aligned to, and a multiple of, in bytes.
pub(super) const ALIGNMENT: usize = 8;

/// Holds at compile time that values of the type follow one another without a gap.
const fn assert_word_shaped<T>() {
    assert!(align_of::<T>() <= ALIGNMENT, "a block is aligned to words");
    assert!(
        size_of::<T>().is_multiple_of(ALIGNMENT),
        "a row is a number of words"
    );
}

/// Appends the value's memory.
pub(super) fn put<T: Fixed>(value: &T, bytes: &mut Vec<u8>) {
    const { assert_word_shaped::<T>() };
    // SAFETY: `Fixed` has no padding, so every byte that is copied is initialized, and nothing behind it.
    #[expect(
        unsafe_code,
        reason = "abomonation copies memory; the type has no padding and no pointer"
    )]
    let written = unsafe { abomonation::encode(value, bytes) };
    debug_assert!(written.is_ok(), "writing into memory does not fail");
}

/// The value that the bytes begin with, where it lies; the bytes move on behind it. None: too short, or not
/// aligned; the bytes are gone then.
pub(super) fn take<'a, T: Fixed>(bytes: &mut &'a mut [u8]) -> Option<&'a T> {
    const { assert_word_shaped::<T>() };
    let here = std::mem::take(bytes);
    // What is empty has no first byte to look at.
    if size_of::<T>() == 0 || here.as_ptr().align_offset(align_of::<T>()) != 0 {
        return None;
    }
    // SAFETY: the bytes are aligned, abomonation looks at their length, and any of them make a `Fixed`, which
    // owns nothing that would have to be found again.
    #[expect(
        unsafe_code,
        reason = "abomonation reads memory in place; every bit pattern is a value"
    )]
    let (value, rest) = unsafe { abomonation::decode::<T>(here) }?;
    *bytes = rest;
    Some(value)
}

/// Room for this many bytes, aligned.
pub(super) fn aligned(length: usize) -> Vec<u64> {
    vec![0; length.div_ceil(ALIGNMENT)]
}

/// The same room as bytes.
pub(super) fn as_bytes(words: &mut [u64]) -> &mut [u8] {
    bytemuck::cast_slice_mut(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_out_where_they_went_in() {
        let rows: Vec<[u64; 3]> = (0..5).map(|row| [row, u64::MAX - row, row << 40]).collect();
        let mut written = Vec::new();
        rows.iter().for_each(|row| put(row, &mut written));
        let mut words = aligned(written.len());
        as_bytes(&mut words).copy_from_slice(&written);

        let mut bytes = as_bytes(&mut words);
        for row in &rows {
            assert_eq!(take::<[u64; 3]>(&mut bytes), Some(row));
        }
        assert_eq!(take::<[u64; 3]>(&mut bytes), None, "nothing is left");
    }

    #[test]
    fn what_is_short_or_not_aligned_is_refused() {
        let mut words = aligned(32);
        let mut short = &mut as_bytes(&mut words)[..16];
        assert_eq!(take::<[u64; 3]>(&mut short), None);
        let mut shifted = &mut as_bytes(&mut words)[4..];
        assert_eq!(take::<[u64; 3]>(&mut shifted), None);
    }
}

//! Lines: tables of texts and their lines, and one seeded property: the cut into blocks makes no difference.

use super::{Line, Lines};
use crate::limits::DEAD_LETTER_VALUE_BYTES;

/// (offset, end, bytes, too_long), owned.
type Found = (u64, u64, Vec<u8>, bool);

fn found(line: Line<'_>) -> Found {
    (line.offset, line.end, line.bytes.to_vec(), line.too_long)
}

/// Feeds `text` in blocks that `cut` sizes, and ends the input.
fn split(offset: u64, max_record_bytes: usize, text: &[u8], mut cut: impl FnMut() -> usize) -> Vec<Found> {
    let mut lines = Lines::new(offset, max_record_bytes);
    let (mut all, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let (block, after) = rest.split_at(cut().clamp(1, rest.len()));
        lines.feed(block, |line| all.push(found(line)));
        assert!(lines.complete() <= lines.next);
        assert_eq!(
            lines.complete(),
            all.last().map_or(offset, |line| line.1),
            "complete() is the end of the last line"
        );
        rest = after;
    }
    lines.end(|line| all.push(found(line)));
    lines.end(|line| panic!("the input ended already: {line:?}"));
    assert_eq!(lines.complete(), offset + text.len() as u64);
    all
}

#[track_caller]
fn check(text: &str, expected: &[(u64, u64, &str, bool)]) {
    let expected: Vec<Found> = expected
        .iter()
        .map(|&(o, e, b, t)| (o, e, b.as_bytes().to_vec(), t))
        .collect();
    for size in [1, 2, 3, 5, 1000] {
        assert_eq!(
            split(0, 10, text.as_bytes(), || size),
            expected,
            "{text:?} in blocks of {size}"
        );
    }
}

#[test]
fn line_ends() {
    check("", &[]);
    check("a", &[(0, 1, "a", false)]);
    check("a\n", &[(0, 2, "a", false)]);
    check("a\r\n", &[(0, 3, "a", false)]);
    check("\n", &[(0, 1, "", false)]);
    check("\r\n", &[(0, 2, "", false)]);
    check("\n\n", &[(0, 1, "", false), (1, 2, "", false)]);
    check(
        "a\n\nb",
        &[(0, 2, "a", false), (2, 3, "", false), (3, 4, "b", false)],
    );
    // One CR belongs to the end, and only before a LF.
    check("a\r\r\n", &[(0, 4, "a\r", false)]);
    check("a\rb\n", &[(0, 4, "a\rb", false)]);
    check("a\r", &[(0, 2, "a\r", false)]);
    // NUL and bytes above 127 are bytes like any other.
    check("\0\n\u{e9}\n", &[(0, 2, "\0", false), (2, 5, "\u{e9}", false)]);
}

#[test]
fn long_lines() {
    check("0123456789\n", &[(0, 11, "0123456789", false)]);
    check(
        "0123456789\r\nx",
        &[(0, 12, "0123456789", false), (12, 13, "x", false)],
    );
    check("0123456789", &[(0, 10, "0123456789", false)]);
    check("0123456789\r", &[(0, 11, "0123456789\r", true)]);
    check(
        "0123456789a\nx\n",
        &[(0, 12, "0123456789a", true), (12, 14, "x", false)],
    );
    check(
        "0123456789a\r\nx\n",
        &[(0, 13, "0123456789a", true), (13, 15, "x", false)],
    );
    check("0123456789abcdef", &[(0, 16, "0123456789abcdef", true)]);
}

#[test]
fn a_partial_line_waits_for_its_end() {
    let mut lines = Lines::new(7, 10);
    lines.feed(b"ab\ncd", |line| {
        assert_eq!(found(line), (7, 10, b"ab".to_vec(), false))
    });
    assert_eq!(lines.complete(), 10);
    lines.feed(b"e", |line| panic!("not complete: {line:?}"));
    lines.feed(b"", |line| panic!("nothing new: {line:?}"));
    let mut all = Vec::new();
    lines.feed(b"\n", |line| all.push(found(line)));
    assert_eq!(all, [(10, 14, b"cde".to_vec(), false)]);
    assert_eq!(lines.complete(), 14);
}

#[test]
fn a_line_within_a_block_is_borrowed_from_it() {
    let block = b"ab\ncd\n";
    let mut starts = Vec::new();
    Lines::new(0, 10).feed(block, |line| starts.push(line.bytes.as_ptr()));
    assert_eq!(starts, [block.as_ptr(), block[3..].as_ptr()]);
}

/// A line of 100 MB passes through without being held, and the next one is read.
#[test]
fn an_endless_line_takes_no_more_memory_than_the_longest() {
    let (longest, block, blocks) = (1 << 20, vec![b'x'; 64 << 10], 1600_u64);
    let mut lines = Lines::new(0, longest);
    for _ in 0..blocks {
        lines.feed(&block, |line| panic!("no end yet: {line:?}"));
        assert!(
            lines.carried.capacity() <= longest + block.len(),
            "{} bytes held",
            lines.carried.capacity()
        );
        assert_eq!(lines.complete(), 0);
    }
    let end = blocks * block.len() as u64 + 2;
    let mut all = Vec::new();
    lines.feed(b"\r\nabc\n", |line| all.push(found(line)));
    let shown = vec![b'x'; DEAD_LETTER_VALUE_BYTES];
    assert_eq!(
        all,
        [(0, end, shown, true), (end, end + 4, b"abc".to_vec(), false)]
    );
    assert!(
        lines.carried.capacity() <= crate::limits::BLOCK_BYTES,
        "the memory is given back"
    );
}

/// Around the lengths at which a dead letter's value is cut, CRs stand at every awkward place.
#[test]
fn what_is_shown_of_a_long_line_does_not_depend_on_the_blocks() {
    for extra in 0..4 {
        for cr_at in 0..4 {
            let mut text = vec![b'x'; DEAD_LETTER_VALUE_BYTES - 2 + extra];
            if cr_at < 3 {
                let at = text.len() - 1 - cr_at;
                text[at] = b'\r';
            }
            text.extend_from_slice(b"\nnext\n");
            let whole = split(0, 1000, &text, || usize::MAX);
            assert_eq!(whole.len(), 2);
            for size in [
                997,
                4096,
                DEAD_LETTER_VALUE_BYTES - 1,
                DEAD_LETTER_VALUE_BYTES + 1,
            ] {
                assert!(
                    split(0, 1000, &text, || size) == whole,
                    "extra {extra}, CR {cr_at} from the end, blocks of {size}"
                );
            }
        }
    }
}

/// The slow twin: all lines of a whole text.
fn lines_of(text: &[u8], max_record_bytes: usize) -> Vec<Found> {
    let mut all = Vec::new();
    let mut offset = 0;
    for piece in text.split_inclusive(|&byte| byte == b'\n') {
        let line = piece
            .strip_suffix(b"\n")
            .map_or(piece, |line| line.strip_suffix(b"\r").unwrap_or(line));
        let end = offset + piece.len() as u64;
        all.push((offset, end, line.to_vec(), line.len() > max_record_bytes));
        offset = end;
    }
    all
}

#[test]
fn any_cut_gives_the_same_lines() {
    for seed in 0..3000_u64 {
        let mut random = crate::format::json::model::Random(seed);
        let max_record_bytes = random.below(12);
        let text: Vec<u8> = (0..random.below(80))
            .map(|_| b"\n\n\r\rab\0\xff"[random.below(8)])
            .collect();
        let longest_block = 1 + random.below(20);
        let found = split(0, max_record_bytes, &text, || 1 + random.below(longest_block));
        assert_eq!(
            found,
            lines_of(&text, max_record_bytes),
            "seed {seed}: {:?}",
            text.escape_ascii().to_string()
        );
    }
}

/// The longest line is whole, CR or not, also where a dead letter would show less of it.
#[test]
fn the_longest_line_is_not_too_long() {
    let longest = DEAD_LETTER_VALUE_BYTES + 100;
    for (extra, ending) in [(0, "\n"), (0, "\r\n"), (0, ""), (1, "\n"), (1, "\r\n"), (1, "")] {
        let mut text = vec![b'x'; longest + extra];
        text.extend_from_slice(ending.as_bytes());
        let shown = if extra == 0 {
            longest
        } else {
            DEAD_LETTER_VALUE_BYTES
        };
        let expected = [(0, text.len() as u64, vec![b'x'; shown], extra > 0)];
        for size in [4096, longest, longest + 1, usize::MAX] {
            let found = split(0, longest, &text, || size);
            assert!(
                found == expected,
                "{extra} more than the longest, then {ending:?}, blocks of {size}"
            );
        }
    }
}

//! What goes into a log comes out of it; what is damaged, foreign, cut or older is found and named.

use super::place::{aligned, as_bytes};
use super::*;
use crate::checkpoint::unreliable::Random;
use crate::format::json::{Message, Rejected};
use crate::format::strict::tests::{Color, Part, Reading};
use crate::record::Text;
use crate::time::{BEFORE_ALL, Millis};

/// Miri takes a thousand times as long.
const CASES: u64 = if cfg!(miri) { 3 } else { 300 };

/// A message with parts of its own.
#[derive(Clone, Debug, PartialEq)]
struct Case {
    offset: u64,
    end: u64,
    timestamp: Option<Millis>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    outcome: Result<Message<Reading>, Rejected>,
}

impl Case {
    fn original(&self) -> Original<'_> {
        Original {
            offset: self.offset,
            end: self.end,
            timestamp: self.timestamp,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
        }
    }
}

fn text(random: &mut Random) -> Text {
    let letters = [
        "",
        "a",
        "A1",
        "\u{e9}\u{10348}",
        "a text that is longer than what lies inline",
    ];
    let length = random.below(3);
    (0..length)
        .map(|_| letters[random.below(letters.len() as u64) as usize])
        .collect()
}

fn reading(random: &mut Random) -> Reading {
    let color = |random: &mut Random| [Color::Red, Color::Blue][random.below(2) as usize];
    let part = |random: &mut Random| Part {
        r#type: color(random),
        weight: (random.below(2) == 0).then(|| random.number().cast_signed()),
    };
    Reading {
        id: text(random),
        at: random.below(1_000).cast_signed(),
        level: random.number().cast_signed(),
        unit: (random.below(2) == 0).then(|| text(random)),
        color: color(random),
        parts: (0..random.below(4)).map(|_| part(random)).collect(),
    }
}

/// Messages of every kind, with holes between them.
fn cases(random: &mut Random, count: u64) -> Vec<Case> {
    let mut offset = random.below(1 << 40);
    let mut cases = Vec::new();
    for _ in 0..count {
        offset += random.below(3);
        let end = offset + 1 + random.below(300);
        let timestamp = (random.below(3) > 0).then(|| random.below(1_000).cast_signed());
        let bytes = |random: &mut Random| {
            let bytes: Vec<u8> = (0..random.below(20)).map(|_| random.number() as u8).collect();
            (random.below(3) > 0).then_some(bytes)
        };
        let value = bytes(random);
        let error = text(random).to_string();
        let (key, outcome) = match random.below(5) {
            0 => (bytes(random), Err(Rejected::Undecodable { error })),
            1 => {
                let key = bytes(random);
                let (letter_key, value) = (key.clone().map(Vec::into), value.clone().map(Vec::into));
                (
                    key,
                    Err(Rejected::Invalid {
                        key: letter_key,
                        value,
                        error,
                    }),
                )
            }
            kind => {
                let value = (kind > 2).then(|| reading(random));
                let key = text(random);
                let bytes = key.as_bytes().to_vec();
                (
                    Some(bytes),
                    Ok(Message {
                        key,
                        timestamp,
                        value,
                    }),
                )
            }
        };
        cases.push(Case {
            offset,
            end,
            timestamp,
            key,
            value,
            outcome,
        });
        offset = end;
    }
    cases
}

const PRINT: u64 = 77;

fn encoded(cases: &[Case]) -> Encoded {
    let start = cases.first().map_or(0, |case| case.offset);
    let mut builder = Builder::new(start);
    for case in cases {
        builder.push(case.original(), &case.outcome, BEFORE_ALL);
    }
    builder.reach(builder_end(cases));
    builder.finish().expect("it covers something")
}

fn block(cases: &[Case]) -> Vec<u8> {
    encoded(cases).to_bytes(PRINT, 3)
}

/// A hole follows the last message.
fn builder_end(cases: &[Case]) -> u64 {
    cases.last().map_or(0, |case| case.end) + 1
}

fn read(bytes: &[u8]) -> Result<Block, Fault> {
    read_of(bytes, PRINT, 3)
}

fn read_of(bytes: &[u8], fingerprint: u64, partition: u32) -> Result<Block, Fault> {
    let mut words = aligned(bytes.len());
    as_bytes(&mut words)[..bytes.len()].copy_from_slice(bytes);
    Block::read(words, fingerprint, partition)
}

#[track_caller]
fn assert_holds(block: &mut Block, cases: &[Case]) {
    let rows: Result<Vec<Row<'_, Reading>>, Fault> = block.rows().expect("its parts are there").collect();
    let rows = rows.expect("every row is sound");
    assert_eq!(rows.len(), cases.len());
    for (row, case) in rows.iter().zip(cases) {
        assert_eq!(row.original, case.original());
        assert_eq!(row.outcome, case.outcome);
    }
}

#[test]
fn rows_come_back_as_they_were() {
    for seed in 0..CASES {
        let mut random = Random(seed);
        let count = random.below(40);
        let cases = cases(&mut random, count);
        let mut block = read(&block(&cases)).expect("it is sound");
        assert_eq!(block.messages(), count, "seed {seed}");
        assert_eq!(block.start(), cases.first().map_or(0, |case| case.offset));
        assert_eq!(block.end(), builder_end(&cases));
        assert_holds(&mut block, &cases);
    }
}

#[test]
fn every_damaged_byte_is_found() {
    let cases = cases(&mut Random(5), if cfg!(miri) { 1 } else { 12 });
    let sound = block(&cases);
    assert!(read(&sound).is_ok());
    for at in 0..sound.len() {
        for change in 1..=if cfg!(miri) { 1 } else { 255 } {
            let mut bytes = sound.clone();
            bytes[at] ^= change;
            assert!(read(&bytes).is_err(), "byte {at} changed by {change}");
        }
    }
    for length in (0..sound.len()).step_by(8) {
        assert!(read(&sound[..length]).is_err(), "cut to {length} bytes");
    }
    let longer = [sound.as_slice(), &[0; 8]].concat();
    assert_eq!(read(&longer), Err(Fault::Length));
}

#[test]
fn what_is_of_another_kind_is_named() {
    let sound = block(&cases(&mut Random(6), 4));
    assert_eq!(read_of(&sound, PRINT + 1, 3), Err(Fault::Foreign));
    assert_eq!(read_of(&sound, PRINT, 4), Err(Fault::Foreign));
    let mut older = sound.clone();
    older[7] = b'0';
    assert_eq!(read(&older), Err(Fault::Format), "an older version of the layout");
    assert_eq!(read(b""), Err(Fault::Length));
}

#[test]
fn rows_of_another_record_are_refused_not_believed() {
    let mut random = Random(9);
    let mut cases = cases(&mut random, 8);
    cases.retain(|case| matches!(&case.outcome, Ok(message) if message.value.is_some()));
    assert!(!cases.is_empty(), "the seed has records");
    let mut block = read(&block(&cases)).expect("it is sound");
    // Part has fewer words a row, and its symbols are numbers that texts' places are not.
    let last = block
        .rows::<Part>()
        .and_then(|rows| rows.last().unwrap_or(Err(Fault::Length)));
    assert_eq!(last.map(|_| ()), Err(Fault::Damaged));
}

#[test]
fn a_fingerprint_tells_sources_apart() {
    let source = Source {
        input: "a".to_owned(),
        identity: "1".to_owned(),
        medium: "Json".to_owned(),
        is_table: false,
        max_out_of_orderness_ms: 5,
        max_record_bytes: 9,
    };
    let own = source.fingerprint(layout::<Reading>());
    assert_eq!(own, source.clone().fingerprint(layout::<Reading>()));
    let changes: [fn(&mut Source); 6] = [
        |source| source.input.push('b'),
        |source| source.identity.push('2'),
        |source| source.medium = "Avro".to_owned(),
        |source| source.is_table = true,
        |source| source.max_out_of_orderness_ms = 0,
        |source| source.max_record_bytes = 8,
    ];
    for change in changes {
        let mut other = source.clone();
        change(&mut other);
        assert_ne!(own, other.fingerprint(layout::<Reading>()), "{other:?}");
    }
    assert_ne!(own, source.fingerprint(layout::<Reading>() + 1), "another layout");
}

/// Miri knows no locks of files.
#[cfg(not(miri))]
mod files {
    use super::*;
    use crate::scratch::Scratch;
    use crate::time::AFTER_ALL;
    use std::path::{Path, PathBuf};

    fn open(directory: &Path) -> Log {
        Log::open(directory, "entries", 3, PRINT).expect("a log")
    }

    /// Writes each group of cases as a block of one segment.
    fn write(directory: &Path, groups: &[&[Case]]) {
        let mut log = open(directory);
        for group in groups {
            log.append(&encoded(group)).expect("room");
        }
        log.finish().expect("published");
    }

    fn names(directory: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(directory).expect("a directory");
        entries.map(|entry| entry.expect("an entry").path()).collect()
    }

    /// Three blocks, one behind the other.
    fn groups() -> Vec<Vec<Case>> {
        let cases = cases(&mut Random(1), 30);
        cases.chunks(10).map(<[Case]>::to_vec).collect()
    }

    #[test]
    fn a_log_gives_what_was_published_and_says_what_to_read() {
        let scratch = Scratch::new();
        let groups = groups();
        // The middle one is missing.
        write(scratch.path(), &[&groups[0], &groups[2]]);
        let mut log = open(scratch.path());
        for group in [&groups[0], &groups[2]] {
            match log.read(group[0].offset, BEFORE_ALL) {
                Found::Rows(mut block) => assert_holds(&mut block, group),
                Found::Source { upto } => panic!("nothing at {}, up to {upto:?}", group[0].offset),
            }
        }
        let missing = log.read(groups[1][0].offset, BEFORE_ALL);
        let next = groups[2][0].offset;
        assert!(
            matches!(missing, Found::Source { upto: Some(upto) } if upto == next),
            "{missing:?}"
        );
        let behind = log.read(next + 1, BEFORE_ALL);
        assert!(matches!(behind, Found::Source { upto: None }), "{behind:?}");
    }

    #[test]
    fn a_reader_that_may_want_lost_bytes_gets_none() {
        let scratch = Scratch::new();
        let cases = cases(&mut Random(2), 3);
        let mut builder = Builder::new(cases[0].offset);
        for (case, watermark) in cases.iter().zip([500, 700, 900]) {
            builder.push(case.original(), &case.outcome, watermark);
        }
        let mut log = open(scratch.path());
        log.append(&builder.finish().expect("it covers something"))
            .expect("room");
        log.finish().expect("published");
        let mut log = open(scratch.path());
        for (watermark, is_found) in [(501, false), (AFTER_ALL, false), (500, true), (BEFORE_ALL, true)] {
            let found = log.read(cases[0].offset, watermark);
            assert_eq!(matches!(found, Found::Rows(_)), is_found, "{watermark}");
        }
    }

    /// Whatever byte is changed and wherever the file is cut: each block comes back as it was or not at all,
    /// and what is read again mends the log.
    #[test]
    fn a_damaged_segment_costs_the_damaged_blocks() {
        let groups = groups();
        let scratch = Scratch::new();
        write(scratch.path(), &[&groups[0], &groups[1], &groups[2]]);
        let path = names(scratch.path()).pop().expect("one segment");
        let sound = std::fs::read(&path).expect("readable");
        let found = |log: &mut Log, group: &Vec<Case>| match log.read(group[0].offset, BEFORE_ALL) {
            Found::Rows(mut block) => {
                assert_holds(&mut block, group);
                true
            }
            Found::Source { .. } => false,
        };
        for step in 0..200 {
            let mut random = Random(step);
            let mut bytes = sound.clone();
            let at = random.below(bytes.len() as u64) as usize;
            match step % 2 {
                0 => bytes[at] ^= 1 << random.below(8),
                _ => bytes.truncate(at),
            }
            std::fs::write(&path, &bytes).expect("writable");
            let mut log = open(scratch.path());
            let lost: Vec<&Vec<Case>> = groups.iter().filter(|group| !found(&mut log, group)).collect();
            assert!(!lost.is_empty(), "the damage at {at} is found");

            let mended = Scratch::new();
            std::fs::copy(&path, mended.path().join(path.file_name().expect("a name"))).expect("copied");
            for group in &lost {
                // As segments of their own: between them lies what is sound.
                write(mended.path(), &[group]);
            }
            let mut log = open(mended.path());
            assert!(
                groups.iter().all(|group| found(&mut log, group)),
                "mended after {at}"
            );
        }
    }

    #[test]
    fn two_writers_at_once_publish_one_log() {
        let scratch = Scratch::new();
        let groups = groups();
        let (mut one, mut other) = (open(scratch.path()), open(scratch.path()));
        for group in &groups {
            for log in [&mut one, &mut other] {
                log.append(&encoded(group)).expect("room");
            }
        }
        assert_eq!(names(scratch.path()).len(), 2, "each stages its own");
        // A third that opens meanwhile leaves them alone.
        let third = open(scratch.path());
        one.finish().expect("published");
        other.finish().expect("published");
        drop((one, other, third));
        assert_eq!(names(scratch.path()).len(), 1);
        let mut log = open(scratch.path());
        for group in &groups {
            assert!(matches!(log.read(group[0].offset, BEFORE_ALL), Found::Rows(_)));
        }
    }

    #[test]
    fn what_was_not_published_leaves_nothing() {
        let scratch = Scratch::new();
        let groups = groups();
        let mut log = open(scratch.path());
        log.append(&encoded(&groups[0])).expect("room");
        drop(log);
        assert_eq!(names(scratch.path()), Vec::<PathBuf>::new());

        // Killed: its file stays, unlocked, until the log is opened.
        write(scratch.path(), &[&groups[0]]);
        let published = names(scratch.path()).pop().expect("one segment");
        let name = published
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        std::fs::write(
            scratch.path().join(format!(".{}1-0", &name[..name.len() - 46])),
            b"half",
        )
        .expect("writable");
        drop(open(scratch.path()));
        assert_eq!(names(scratch.path()), [published]);
    }

    #[test]
    fn a_directory_that_cannot_be_is_said() {
        let scratch = Scratch::new();
        let path = scratch.path().join("file");
        std::fs::write(&path, b"").expect("writable");
        let error = Log::open(&path, "entries", 0, PRINT)
            .map(|_| ())
            .expect_err("no directory");
        assert_eq!(error.kind, crate::error::Kind::WriteFailed);
        assert!(error.message.contains("--cache"), "{}", error.message);
    }
}

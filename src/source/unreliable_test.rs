//! However reads are cut and wherever they fail, the same records come, once, with the same watermarks.

use super::super::partition::{PartitionFeed, Start, Taken};
use super::super::span::Span;
use super::super::{Filling, InputSettings, MessageHandle};
use super::super::{Medium, Request, files};
use super::*;
use crate::checkpoint::binding::{Binding, PartitionBinding, Positions};
use crate::format::json;
use crate::record::Record;
use crate::scratch::Scratch;
use crate::time::Millis;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Instant;

crate::strict_record! {
    /// A record with nothing but its time.
    pub struct Tick {
        /// Event time.
        pub at: Millis,
    }
}

impl Record for Tick {
    const NAME: &'static str = "Tick";
    const SCHEMA: &'static str = r#"{"type":"record","name":"Tick","fields":[{"name":"at","type":"long"}]}"#;

    fn event_time(&self) -> Option<Millis> {
        Some(self.at)
    }

    fn check(&self, _key: &str) -> Result<(), String> {
        Ok(())
    }
}

fn settings(span: Option<Span>) -> InputSettings {
    InputSettings {
        name: "ticks".to_owned(),
        index: 0,
        medium: Medium::Lines,
        is_table: false,
        max_out_of_orderness_ms: 5,
        idle_timeout: None,
        max_jump_ms: Some(500),
        max_record_bytes: 80,
        replay_tick_ms: 10,
        span,
        log: None,
    }
}

/// Lines good and bad, in and out of order; some partitions end without LF.
fn partition(random: &mut Random) -> String {
    let (mut text, mut at) = (String::new(), 100);
    for number in 0..random.below(60) {
        at += random.below(8);
        let line = match random.below(12) {
            0 => String::new(),
            1 => "no JSON".to_owned(),
            2 => "x".repeat(70 + random.below(20) as usize),
            3 => format!("{{\"key\":\"k\",\"value\":{{\"at\":{}}}}}", at + 10_000),
            _ => format!(
                "{{\"key\":\"{number}\",\"value\":{{\"at\":{}}}}}",
                at - random.below(20)
            ),
        };
        text.push_str(&line);
        text.push_str(if random.below(5) == 0 { "\r\n" } else { "\n" });
    }
    if random.below(2) == 0 {
        text.push_str("{\"key\":\"last\",\"value\":{\"at\":700}}");
    }
    text
}

/// What came out: the records and dead letters in order, and how often the reader was started.
#[derive(Default)]
struct Read {
    taken: Vec<String>,
    starts: usize,
}

/// Reads a partition to its end, starting again from what was bound wherever the reader fails.
fn read_to_the_end(
    path: &Path,
    seed: u64,
    (cut_percent, failing_percent): (u64, u64),
    settings: &InputSettings,
) -> Read {
    let mut random = Random(seed ^ 0x5EED);
    let mut unreliable = Unreliable::new(seed, cut_percent, failing_percent);
    let (mut read, mut positions) = (
        Read::default(),
        Positions::new([settings.max_out_of_orderness_ms]),
    );
    loop {
        read.starts += 1;
        assert!(read.starts < 10_000, "seed {seed}: it does not get on");
        if read_until_failure(
            path,
            &mut random,
            &mut unreliable,
            &mut positions,
            &mut read.taken,
            settings,
        )
        .is_ok()
        {
            return read;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "feeds are told when bytes arrived")]
fn read_until_failure(
    path: &Path,
    random: &mut Random,
    unreliable: &mut Unreliable,
    positions: &mut Positions,
    taken: &mut Vec<String>,
    settings: &InputSettings,
) -> Result<(), Error> {
    let at = positions.partitions[0].entry(0).or_default().clone();
    let clock = positions.clocks[0].partitions.entry(0).or_default().clone();
    let start = Start {
        path: path.to_owned(),
        offset: at.offset,
        as_of: at.as_of,
        clock,
        ..Start::default()
    };
    let mut feed = PartitionFeed::<Tick>::new(0, start, Vec::new(), settings, true, false);
    let (requests, requested) = channel();
    let (answer, answers) = channel();
    std::thread::scope(|scope| {
        scope.spawn(move || files::read(&requested, &answer, || {}));
        let mut epoch = 0;
        while !feed.has_ended() || feed.queued() > 0 {
            if !feed.has_ended() {
                let bytes = 1 + random.below(200) as usize;
                let (path, offset) = (path.to_owned(), feed.read_to);
                let request = Request {
                    input: 0,
                    partition: 0,
                    path,
                    offset,
                    bytes,
                    ..Request::default()
                };
                requests.send(request).expect("the reader waits for requests");
                let arrival = unreliable.answer(answers.recv().expect("the reader answers"))?;
                assert_eq!(arrival.offset, feed.read_to, "what was asked for");
                feed.arrived(arrival.bytes, arrival.at_end, Instant::now(), &settings);
            }
            epoch += 1;
            let cap = random.below(6) as usize;
            let share = take(&mut feed, epoch, cap, settings, taken);
            positions.apply(&Binding {
                epoch,
                partitions: share.into_iter().collect(),
                ..Binding::default()
            });
        }
        drop(requests);
        Ok(())
    })
}

fn take(
    feed: &mut PartitionFeed<Tick>,
    epoch: u64,
    cap: usize,
    settings: &InputSettings,
    taken: &mut Vec<String>,
) -> Option<PartitionBinding> {
    let (mut dead_letters, mut share) = (MessageHandle::new(), Vec::new());
    let filling = Filling {
        epoch,
        watermark_before: None,
        dead_letters: &mut dead_letters,
        share: &mut share,
    };
    let each = |item| {
        taken.push(match item {
            // Original bytes are kept where a record may be late; ahead of a restart that is known later.
            Taken::Record(record) => format!("{:?} {} {:?}", record.origin, record.watermark, record.value),
            Taken::Write(write) => format!("{write:?}"),
            Taken::Dead(letter) => format!("{letter:?}"),
        });
    };
    feed.take(|_, _| true, cap, false, &filling, settings, each).0
}

#[test]
fn cut_and_failed_reads_change_nothing() {
    let (mut records, mut starts) = (0, 0);
    for seed in 0..300 {
        let scratch = Scratch::new();
        let path = scratch.path().join("ticks.jsonl");
        std::fs::write(&path, partition(&mut Random(seed))).expect("a file");
        let undisturbed = read_to_the_end(&path, seed, (0, 0), &settings(None));
        let read = read_to_the_end(&path, seed, (50, seed % 40), &settings(None));
        assert_eq!(read.taken, undisturbed.taken, "seed {seed}");
        assert_eq!(undisturbed.starts, 1);
        (records, starts) = (records + read.taken.len(), starts + read.starts);
    }
    assert!(
        records > 3_000 && starts > 1_000,
        "{records} records, {starts} starts"
    );
}

/// What a span takes of a text, slowly: whole lines, each judged by itself or by the valid one before it.
fn cut(text: &str, span: Span) -> String {
    let mut is_in = span.from.is_none();
    let lines = text.split_inclusive('\n').filter(|line| {
        let content = line.trim_end_matches('\n').trim_end_matches('\r').as_bytes();
        let is_short = content.len() <= settings(None).max_record_bytes;
        if let Some(tick) = json::decode_line::<Tick>(content, false)
            .ok()
            .filter(|_| is_short)
            .and_then(|message| message.value)
        {
            is_in = span.from.unwrap_or(0) <= tick.at && tick.at < span.to.unwrap_or(i64::MAX);
        }
        is_in
    });
    lines.collect()
}

/// Without the offsets, which a cut file moves.
fn without_offsets(taken: &[String]) -> Vec<String> {
    let number = |text: &str| {
        text.find(|char: char| !char.is_ascii_digit())
            .unwrap_or(text.len())
    };
    let without = |taken: &String| {
        let (head, tail) = taken
            .split_once("offset: ")
            .expect("records and dead letters have one");
        format!("{head}{}", &tail[number(tail)..])
    };
    taken.iter().map(without).collect()
}

/// Watermarks, dead letters and jumps of a span are those of a file that holds nothing else, however often the
/// reader starts again.
#[test]
fn a_span_is_read_like_a_file_of_its_own() {
    let (mut taken, mut left_out) = (0, 0);
    for seed in 0..300 {
        let mut random = Random(seed ^ 0xC07);
        let mut end = |below| (random.below(4) > 0).then(|| 60 + random.below(below) as i64);
        let span = Span {
            from: end(150),
            to: end(400),
        };
        let scratch = Scratch::new();
        let (whole, part) = (
            scratch.path().join("whole.jsonl"),
            scratch.path().join("part.jsonl"),
        );
        let text = partition(&mut Random(seed));
        std::fs::write(&whole, &text).expect("a file");
        std::fs::write(&part, cut(&text, span)).expect("a file");
        let expected = read_to_the_end(&part, seed, (0, 0), &settings(None));
        // What is left out is read again by every start, so a reader that fails too often would never come through.
        let read = read_to_the_end(&whole, seed, (50, seed % 6), &settings(Some(span)));
        let (read, expected) = (without_offsets(&read.taken), without_offsets(&expected.taken));
        assert_eq!(read, expected, "seed {seed}, {span:?}");
        taken += read.len();
        left_out += text.lines().count() - read.len();
    }
    assert!(
        taken > 1_000 && left_out > 1_000,
        "{taken} taken, {left_out} left out"
    );
}

//! Replays with a log of decoded messages: the same outputs to the byte, from the log, without it, and from
//! what is left of it; for every record of every dataflow, dead letters included.

use crate::harness::Directory;
use crate::jobs::{self, day, lay_out};
use std::path::PathBuf;

/// Replays into a directory of this name, with these further arguments; gives the log lines.
#[track_caller]
fn replay(directory: &Directory, into: &str, more: &[&str]) -> String {
    let arguments = [&["replay", "job.toml", "--into", into, "--log", "info"], more].concat();
    let outcome = directory.tidegate(&arguments);
    let log = outcome.stderr.clone();
    outcome.succeeded();
    log
}

/// How many messages came from the log, over all workers.
fn from_log(log: &str) -> u64 {
    let count = |line: &str| {
        let (before, _) = line.split_once(" messages came from the replay log")?;
        before.rsplit(' ').next()?.parse::<u64>().ok()
    };
    log.lines().filter_map(count).sum()
}

#[track_caller]
fn same(directory: &Directory, job: &crate::oracle::Job, one: &str, other: &str) {
    for output in jobs::outputs(job) {
        let of = |into: &str| directory.read(&format!("{into}/{output}.jsonl"));
        assert!(!of(one).is_empty(), "{output} has rows");
        assert!(of(one) == of(other), "{output}: {one} and {other} differ");
    }
}

fn segments(directory: &Directory) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory.path("decoded")).expect("the log's directory");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

#[test]
fn a_replay_from_the_log_gives_the_same_bytes() {
    let mut job = day(7, 300, &[]);
    // Whoever jumps is INVALID, with all its bytes.
    job.inputs.get_mut("events").expect("it has them").max_jump_ms = Some(60_000);
    let directory = lay_out(&job, "", "");
    replay(&directory, "plain", &[]);
    let cached = ["--cache", "decoded"];
    assert_eq!(
        from_log(&replay(&directory, "first", &cached)),
        0,
        "there was no log"
    );
    same(&directory, &job, "plain", "first");
    let lines: usize = job
        .inputs
        .values()
        .flat_map(|input| &input.partitions)
        .map(|bytes| bytes.split_inclusive(|byte| *byte == b'\n').count())
        .sum();
    for workers in ["1", "3"] {
        let into = format!("with-{workers}");
        let log = replay(
            &directory,
            &into,
            &[&cached[..], &["--workers", workers]].concat(),
        );
        assert_eq!(from_log(&log), lines as u64, "everything came from the log");
        same(&directory, &job, "plain", &into);
    }
}

#[test]
fn another_span_takes_what_it_can_and_gives_the_same_bytes() {
    let job = day(8, 300, &[]);
    let directory = lay_out(&job, "", "");
    let cached = ["--cache", "decoded"];
    let middle = middle(&job);
    let (from, to) = (["--from", &middle], ["--to", &middle]);
    // Written by the second half, read by the whole and by the first half; and the other way round.
    replay(&directory, "late", &[&cached[..], &from].concat());
    replay(&directory, "whole", &[]);
    let log = replay(&directory, "whole-cached", &cached);
    assert!(from_log(&log) > 0, "some of it came from the log");
    same(&directory, &job, "whole", "whole-cached");
    for (into, span) in [("early", to), ("late-again", from)] {
        let log = replay(&directory, into, &[&cached[..], &span].concat());
        assert!(from_log(&log) > 0, "{into}: some of it came from the log");
        let plain = format!("{into}-plain");
        replay(&directory, &plain, &span);
        same(&directory, &job, &plain, into);
    }
}

/// A time about the middle of the day's entries, as an argument.
fn middle(job: &crate::oracle::Job) -> String {
    let entries = &job.inputs["entries"].partitions[0];
    let text = String::from_utf8_lossy(entries);
    let times = text.lines().filter_map(|line| {
        let (_, behind) = line.split_once("\"booked_at\":")?;
        behind.split(',').next()?.parse::<i64>().ok()
    });
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times[times.len() / 2].to_string()
}

#[test]
fn a_damaged_log_is_read_around_and_mended() {
    let job = day(9, 300, &[]);
    let directory = lay_out(&job, "", "");
    let cached = ["--cache", "decoded"];
    replay(&directory, "plain", &cached);
    let whole = from_log(&replay(&directory, "whole", &cached));
    for (number, segment) in segments(&directory).into_iter().enumerate() {
        let mut bytes = std::fs::read(&segment).expect("a segment");
        let middle = bytes.len() / 2;
        match number % 3 {
            0 => bytes[middle] ^= 1,
            1 => bytes.truncate(middle),
            _ => bytes.clear(),
        }
        std::fs::write(&segment, &bytes).expect("writable");
    }
    let log = replay(&directory, "damaged", &cached);
    assert!(from_log(&log) < whole, "what is damaged is not used");
    assert!(log.contains("read from the source"), "{log}");
    same(&directory, &job, "plain", "damaged");
    assert_eq!(
        from_log(&replay(&directory, "mended", &cached)),
        whole,
        "the log is whole again"
    );
    same(&directory, &job, "plain", "mended");
}

#[test]
fn a_file_that_was_written_anew_is_not_taken_from_the_log() {
    let job = day(10, 200, &[]);
    let directory = lay_out(&job, "", "");
    let cached = ["--cache", "decoded"];
    replay(&directory, "before", &cached);
    // Another day under the same names, in the same files.
    let other = day(11, 200, &[]);
    for (name, input) in &other.inputs {
        for (partition, bytes) in input.partitions.iter().enumerate() {
            directory.write(&jobs::input_file(name, partition), bytes);
        }
    }
    assert_eq!(from_log(&replay(&directory, "after", &cached)), 0);
    replay(&directory, "plain", &[]);
    same(&directory, &other, "plain", "after");
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let job = day(12, 100, &[]);
    let directory = lay_out(&job, "", "");
    directory.write("decoded", "a file");
    let log = replay(&directory, "with", &["--cache", "decoded"]);
    assert!(log.contains("goes on without"), "{log}");
    replay(&directory, "plain", &[]);
    same(&directory, &job, "plain", "with");
}

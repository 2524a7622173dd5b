//! Replays of a span: what comes out is what a run over exactly that span gives, whatever is killed, and nothing
//! of the live job is touched.
//!
//! ```text
//!  day ─┬─► cut to the span ─► oracle ──────────────────┐
//!       └─► replay --from --to, 1 and 3 workers ────────┴─ the same rows; dead letters under their own offsets
//! ```

use crate::day::{self, UNDISTURBED, assert_outputs, differences, files};
use crate::harness::Directory;
use crate::jobs::{day, hold, lay_out, outputs};
use crate::oracle::span::{Offsets, cut};
use crate::oracle::{Job, expected};
use crate::process::start;
use serde_json::Value;

/// The times of a day's events, sorted.
fn times(job: &Job) -> Vec<i64> {
    let lines = job.inputs["orders"].partitions.iter();
    let lines = lines.flat_map(|bytes| bytes.split(|byte| *byte == b'\n'));
    let time = |line: &[u8]| serde_json::from_slice::<Value>(line).ok()?["value"]["placed_at"].as_i64();
    let mut times: Vec<i64> = lines.filter_map(time).collect();
    times.sort_unstable();
    times
}

/// What a replay into `again` wrote; dead letters with the offsets that their lines have in the cut input.
fn replayed(directory: &Directory, job: &Job, offsets: &Offsets) -> Vec<(&'static str, String)> {
    let read = |name: &'static str| {
        let text = String::from_utf8(directory.read(&format!("again/{name}.jsonl"))).expect("UTF-8");
        if name != "dead_letters" {
            return (name, text);
        }
        let moved = text.lines().map(|line| {
            let mut letter: Value = serde_json::from_str(line).expect("JSON");
            let number = |field: &str| letter["value"][field].as_u64().expect("a number") as usize;
            let input = letter["value"]["input"].as_str().expect("a name").to_owned();
            let at = (input, number("partition"), number("offset"));
            letter["value"]["offset"] = offsets[&at].into();
            format!("{letter}\n")
        });
        (name, moved.collect())
    };
    outputs(job).into_iter().map(read).collect()
}

#[test]
fn a_replay_gives_what_a_run_over_the_span_gives() {
    let job = day(5, 60, &[]);
    let times = times(&job);
    let at = |percent: usize| times[times.len() * percent / 100];
    let spans = [
        (Some(at(30)), Some(at(60)), 1),
        (Some(at(45)), None, 3),
        (None, Some(at(20)), 2),
        (None, None, 1),
    ];
    for (from, to, workers) in spans {
        let (cut, offsets) = cut(&job, from, to);
        let directory = lay_out(&job, "", "");
        let mut arguments = vec![
            "replay".to_owned(),
            "job.toml".to_owned(),
            "--into=again".to_owned(),
        ];
        arguments.extend(from.map(|from| format!("--from={from}")));
        arguments.extend(to.map(|to| format!("--to={to}")));
        arguments.extend([format!("--workers={workers}"), "--json".to_owned()]);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let summary = directory.tidegate(&arguments).succeeded();
        let summary: Value = serde_json::from_str(&summary).expect("JSON");
        let count = |job: &Job| {
            let partitions = job.inputs.values().flat_map(|input| &input.partitions);
            partitions
                .map(|bytes| bytes.split_inclusive(|byte| *byte == b'\n').count() as u64)
                .sum::<u64>()
        };
        let story = format!("{from:?} to {to:?} on {workers} workers");
        assert_eq!(summary["messages_in"], count(&cut), "{story}");
        assert_eq!(summary["skipped"], count(&job) - count(&cut), "{story}");
        hold(
            &cut,
            &expected(&cut),
            &replayed(&directory, &job, &offsets),
            &story,
        );
        assert!(
            !directory.path("out").exists(),
            "the live outputs are not touched"
        );
        assert!(!directory.path("state").exists(), "nor is the live state");
    }
}

#[test]
fn a_replay_that_is_killed_goes_on_and_ends_the_same() {
    let points = [
        "after-claim",
        "after-cut-back",
        "after-data",
        "after-progress:2",
        "after-manifest",
        "during-replay",
    ];
    let directory = day::day();
    let arguments = ["replay", "job.toml", "--into=again", "--workers=2"];
    let mut kills = 0;
    for point in points {
        let ended = start(&directory, &arguments, &[("TIDEGATE_CRASH_AT", point)]).wait();
        kills += usize::from(ended.was_killed());
    }
    assert!(kills >= 4, "{kills} kills");
    directory.tidegate(&arguments).succeeded();
    // The whole day is what an undisturbed run of it gives, to the byte.
    let again = files(&directory.path("again"));
    for (name, content) in UNDISTURBED.iter() {
        assert!(again.get(name) == Some(content), "{name} differs");
    }
    // And a live run beside it is none the wiser.
    day::run(&directory, 1).with_code(0);
    assert_outputs(&directory, &UNDISTURBED, "the live run after its replay");
}

/// Refused with this code and these words, and nothing has changed.
#[track_caller]
fn refused(directory: &Directory, arguments: &[&str], code: i32, words: &[&str]) {
    let before = day::content(directory);
    let mut all = vec!["replay", "job.toml"];
    all.extend(arguments);
    let log = directory.tidegate(&all).failed(code);
    for word in words {
        assert!(log.contains(word), "{word:?} is not in:\n{log}");
    }
    let mut changed = differences(&before, &day::content(directory));
    // Who holds the lock says so in it.
    changed.retain(|name| !name.ends_with("/lock"));
    assert!(changed.is_empty(), "{changed:?} changed");
}

#[test]
fn a_replay_never_writes_what_is_not_its_own() {
    let directory = day::day();
    refused(&directory, &["--into=out"], 3, &["is a file of the job itself"]);
    refused(
        &directory,
        &["--into=a", "--output-suffix=-b"],
        2,
        &["cannot be used with"],
    );
    refused(&directory, &[], 2, &["--into"]);
    refused(&directory, &["--output-suffix=A"], 2, &["a-z, 0-9 and -"]);
    let from_after_to = ["--into=again", "--from=2000", "--to=1970-01-01T00:00:01Z"];
    refused(&directory, &from_after_to, 2, &["is not before"]);
    refused(
        &directory,
        &["--into=again", "--from=noon"],
        2,
        &["2026-01-31T00:00:00Z"],
    );
    refused(
        &directory,
        &["--into=again", "--offsets=t/0=1..2"],
        2,
        &["t is no topic"],
    );

    directory.write("again/email.jsonl", "mine\n");
    refused(
        &directory,
        &["--into=again"],
        3,
        &["email.jsonl exists and is not of this replay"],
    );

    let first = ["replay", "job.toml", "--into=other", "--to=5000"];
    directory.tidegate(&first).succeeded();
    let second = ["--into=other", "--to=6000"];
    refused(
        &directory,
        &second,
        3,
        &["another replay lies here (from 0 to 5000"],
    );
    directory.tidegate(&first).succeeded();
}

#[test]
fn a_suffix_puts_files_beside_the_jobs_own() {
    let directory = day::day();
    let text = directory
        .tidegate(&["replay", "job.toml", "--output-suffix=-again"])
        .succeeded();
    assert!(text.contains("State began empty at the beginning."), "{text}");
    let out = files(&directory.path("out"));
    for (name, content) in UNDISTURBED.iter() {
        let name = name.replace(".jsonl", "-again.jsonl");
        assert!(out.get(&name) == Some(content), "{name} differs");
    }
    assert!(directory.path("state/replays/again/begun").exists());
    day::run(&directory, 1).with_code(0);
    directory.status();
}

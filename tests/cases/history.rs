//! Recorded replays: a followed run of several restarts, taken again epoch by epoch, gives its outputs to the byte,
//! and whatever is changed in them afterwards is found.
//!
//! ```text
//!  follow, append, kill, append, Ctrl-C ─► outputs ─┬─► --recorded on 1, 2, 3 workers: the same bytes
//!                                                   ├─► --verify: nothing
//!                                                   └─► a copy with a line altered, missing, extra: found, named
//! ```

use crate::day::{self, Files, files, in_directory, inputs, outputs, start_run, status, write_job};
use crate::harness::Directory;
use crate::process::{Running, start};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Of every file so many parts of eight are there at each step.
const STEPS: [usize; 3] = [3, 5, 8];

/// Whole lines of a file, about so many eighths.
fn part(content: &[u8], eighths: usize) -> &[u8] {
    let upto = content.len() * eighths / 8;
    let end = content[..upto].iter().rposition(|byte| *byte == b'\n');
    &content[..end.map_or(0, |end| end + 1)]
}

/// Waits until all of these files is committed.
fn until_committed(directory: &Directory, running: &mut Running, there: &BTreeMap<String, u64>) {
    let all = || {
        let committed = inputs(&status(directory));
        there
            .iter()
            .all(|(name, length)| committed.get(name).copied().unwrap_or(0) == *length)
    };
    assert!(running.until(all), "it ended by itself:\n{}", running.log());
}

/// A job with history that was followed on 2, 3 and 1 workers, killed twice and drained.
static FOLLOWED: LazyLock<Files> = LazyLock::new(|| {
    let source = files(&day::day().path(""));
    let directory = Directory::in_memory();
    let more = "history = true\nhistory_checkpoint_ms = 1000000";
    directory.write("job.toml", &source["job.toml"]);
    write_job(&directory, day::OFTEN, more);
    for (step, workers) in STEPS.into_iter().zip(["2", "3", "1"]) {
        let mut there = BTreeMap::new();
        for (name, content) in source.iter().filter(|(name, _)| name.ends_with(".jsonl")) {
            let content = part(content, step);
            directory.write(name, content);
            there.insert(name.clone(), content.len() as u64);
        }
        let arguments = ["run", "job.toml", "--follow", "--workers", workers];
        let mut running = start(&directory, &arguments, &[]);
        until_committed(&directory, &mut running, &there);
        let signal = if step == 8 { Signal::INT } else { Signal::KILL };
        running.signal(signal);
        let ended = running.wait();
        assert!(ended.was_killed() || ended.code == Some(0), "{}", ended.log);
    }
    let files = files(&directory.path(""));
    let lines: usize = outputs(&directory)
        .values()
        .map(|text| day::count_lines(text))
        .sum();
    assert!(lines > 2_000, "{lines} lines are too few to compare");
    files
});

/// Output files by name, those of the live run.
fn live() -> Files {
    let names = FOLLOWED.iter().filter_map(|(name, content)| {
        let name = name.strip_prefix("out/").filter(|name| !name.starts_with('.'))?;
        Some((name.to_owned(), content.clone()))
    });
    names.collect()
}

fn replayed(directory: &Directory, into: &str) -> Files {
    let mut outputs = files(&directory.path(into));
    outputs.retain(|name, _| name.ends_with(".jsonl"));
    outputs
}

/// A time within the day, milliseconds.
fn middle(eighths: usize) -> String {
    let text = String::from_utf8_lossy(&FOLLOWED["orders-0.jsonl"]).into_owned();
    let times = text.lines().filter_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        line["value"]["placed_at"].as_i64()
    });
    let mut times: Vec<i64> = times.collect();
    times.sort_unstable();
    times[times.len() * eighths / 8].to_string()
}

#[test]
fn a_recorded_replay_gives_the_live_outputs_on_any_number_of_workers() {
    let directory = in_directory(&FOLLOWED);
    for workers in ["1", "2", "3"] {
        let into = format!("again-{workers}");
        let arguments = [
            "replay",
            "job.toml",
            "--recorded",
            "--into",
            &into,
            "--workers",
            workers,
        ];
        directory.tidegate(&arguments).succeeded();
        assert!(replayed(&directory, &into) == live(), "on {workers} workers");
        let verify = ["replay", "job.toml", "--verify", "--workers", workers];
        let text = directory.tidegate(&verify).succeeded();
        assert!(text.contains("aggregates"), "{text}");
    }
    assert!(outputs(&directory) == live(), "nothing was touched");
}

#[test]
fn a_recorded_span_is_a_part_of_the_live_outputs() {
    let directory = in_directory(&FOLLOWED);
    let (from, to) = (middle(3), middle(6));
    let span = ["--from", &from, "--to", &to];
    let arguments = [&["replay", "job.toml", "--recorded", "--into=part"][..], &span].concat();
    directory.tidegate(&arguments).succeeded();
    let mut lines = 0;
    for (name, part) in replayed(&directory, "part") {
        let whole = &live()[&name];
        let is_part = part.is_empty() || whole.windows(part.len()).any(|window| window == part);
        assert!(is_part, "{name} is no part of the live output");
        lines += day::count_lines(&part);
    }
    let all: usize = live().values().map(|text| day::count_lines(text)).sum();
    assert!(lines > 100 && lines < all, "{lines} of {all} lines");
    for workers in ["1", "3"] {
        let verify = ["replay", "job.toml", "--verify", "--workers", workers];
        directory.tidegate(&[&verify[..], &span].concat()).succeeded();
    }
}

#[test]
fn a_recorded_replay_that_is_killed_goes_on() {
    let directory = in_directory(&FOLLOWED);
    let arguments = ["replay", "job.toml", "--recorded", "--into=again", "--workers=2"];
    let mut kills = 0;
    for point in [
        "after-claim",
        "after-cut-back",
        "after-progress",
        "after-progress:2",
        "before-data",
    ] {
        let ended = start(&directory, &arguments, &[("TIDEGATE_CRASH_AT", point)]).wait();
        kills += usize::from(ended.was_killed());
    }
    assert!(kills >= 3, "{kills} kills");
    directory.tidegate(&arguments).succeeded();
    assert!(replayed(&directory, "again") == live());
}

/// What `--verify` says of the output, as JSON, and its exit code.
fn verified(directory: &Directory, output: &str, copy: &[u8], span: &[&str]) -> (Option<i32>, Value) {
    directory.write("copy.jsonl", copy);
    let against = format!("{output}=copy.jsonl");
    let arguments = ["replay", "job.toml", "--verify", "--json", "--against", &against];
    let outcome = directory.tidegate(&[&arguments[..], span].concat());
    let report = serde_json::from_str(&outcome.stdout);
    (
        outcome.code,
        report.unwrap_or_else(|_| panic!("no JSON:\n{}", outcome.stderr)),
    )
}

#[test]
fn planted_differences_are_found_and_named() {
    let directory = in_directory(&FOLLOWED);
    for output in ["aggregates", "email", "dead_letters"] {
        let whole = &live()[&format!("{output}.jsonl")];
        let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
        assert!(lines.len() > 8, "{output} is too small");
        let at = lines.len() / 2;
        let with = |replacement: &[&[u8]]| [&lines[..at], replacement, &lines[at + 1..]].concat().concat();
        let altered = String::from_utf8_lossy(lines[at]).replace("\"value\":{", "\"value\":{\"planted\":1,");
        let text = |line: &[u8]| Value::from(String::from_utf8_lossy(line).trim_end());
        let planted = [
            ("missing", with(&[]), text(lines[at]), Value::Null),
            (
                "extra",
                with(&[altered.as_bytes(), lines[at]]),
                Value::Null,
                text(altered.as_bytes()),
            ),
            (
                "altered",
                with(&[altered.as_bytes()]),
                text(lines[at]),
                text(altered.as_bytes()),
            ),
        ];
        for (what, copy, expected, found) in planted {
            let (code, report) = verified(&directory, output, &copy, &[]);
            let story = format!("{what} in {output}: {report:#}");
            assert_eq!(code, Some(12), "{story}");
            for sort in ["missing", "extra", "altered"] {
                assert_eq!(
                    report["outputs"][output][sort],
                    u64::from(sort == what),
                    "{story}"
                );
            }
            let [difference] = &report["differences"].as_array().expect("a list")[..] else {
                panic!("{story}");
            };
            assert_eq!(difference["what"], what, "{story}");
            assert_eq!(difference["output"], output, "{story}");
            assert_eq!(
                (&difference["expected"], &difference["found"]),
                (&expected, &found),
                "{story}"
            );
            let comes_from_one = output != "aggregates" && what != "extra";
            assert_eq!(difference["origin"] != "", comes_from_one, "{story}");
        }
        let (code, report) = verified(&directory, output, whole, &[]);
        assert_eq!(code, Some(0), "{report:#}");
    }
}

#[test]
fn what_history_does_not_hold_is_refused() {
    let directory = day::day();
    day::run(&directory, 1).with_code(0);
    let error = directory.tidegate(&["replay", "job.toml", "--verify"]).failed(3);
    assert!(error.contains("without `history = true`"), "{error}");
    let late = [
        "replay",
        "job.toml",
        "--recorded",
        "--into=again",
        "--from=9999-01-01T00:00:00Z",
    ];
    let error = directory.tidegate(&late).failed(3);
    assert!(error.contains("nothing as late as that"), "{error}");

    let directory = day::day();
    let error = directory.tidegate(&["replay", "job.toml", "--verify"]).failed(5);
    assert!(error.contains("nothing was ever committed"), "{error}");
    write_job(&directory, day::OFTEN, "history_checkpoint_ms = 5");
    let log = start_run(&directory, 1, &[]).wait().with_code(3);
    assert!(
        log.contains("history_checkpoint_ms: only with `history = true`"),
        "{log}"
    );
}

/// A finite run's epochs are recorded as well; and of its checkpoints some are kept beyond the newest.
#[test]
fn a_finite_run_is_verified_like_a_live_one() {
    let directory = day::day();
    write_job(
        &directory,
        day::OFTEN,
        "history = true\nhistory_checkpoint_ms = 600000",
    );
    day::run(&directory, 2).with_code(0);
    directory
        .tidegate(&["replay", "job.toml", "--verify", "--workers=3"])
        .succeeded();
    let status = status(&directory);
    let checkpoints = status["checkpoints"].as_array().expect("a list").len();
    assert!(checkpoints > 3, "{checkpoints} checkpoints");
    let from = middle(6);
    directory
        .tidegate(&["replay", "job.toml", "--verify", "--from", &from])
        .succeeded();
}

//! A small generated day, the job that reads it, and what of a job's files a case compares or copies.
//!
//! ```text
//!  day/*.jsonl ─► job.toml ─► out/*.jsonl     what must be equal, byte for byte
//!                    │        out/.bank-0.progress
//!                    └──────► state/          claims, manifests, chunks
//! ```
//!
//! The finite runs of a day are cut into some thousand small epochs by the data, so their outputs are equal to the
//! byte whatever ran before and on however many workers: in order of epochs, and in each by (rank, bytes). That holds
//! for a row per epoch (`counts`) too, for the epochs are the same.

use crate::harness::Directory;
use crate::process::{Ended, Running, start};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// The dataflows of the job with what they read and write.
const DATAFLOWS: &[(&str, &[&str], &[&str])] = &[
    (
        "alerts",
        &["entries", "authorizations", "settings", "devices"],
        &["email", "sms", "push", "device_push"],
    ),
    ("event_counts", &["events"], &["counts"]),
];

/// A checkpoint as often as one can be written, milliseconds.
pub const OFTEN: u64 = 1;
/// No checkpoint but the last, milliseconds.
pub const RARELY: u64 = 86_400_000;

/// Names and contents of files.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A directory with a day and no job.
pub fn day() -> Directory {
    let directory = Directory::new();
    let size = ["--accounts=200", "--entries=1500", "--changes=150", "--events=1500"];
    let other = ["--orders=500", "--transactions=500", "--partitions=2", "--seed=11", "--out=day"];
    let arguments: Vec<&str> = ["--log=off", "generate"].into_iter().chain(size).chain(other).collect();
    directory.tidegate(&arguments).succeeded();
    write_job(&directory, OFTEN, "");
    directory
}

/// Writes `job.toml` with this time between checkpoints, and `more` at its top.
pub fn write_job(directory: &Directory, checkpoint_interval_ms: u64, more: &str) {
    let names: Vec<String> = DATAFLOWS.iter().map(|(name, ..)| format!("{name:?}")).collect();
    let mut text = format!(
        "name = \"bank\"\ndataflows = [{}]\nstate = \"state\"\n{more}\n\
         [checkpoint]\ninterval_ms = {checkpoint_interval_ms}\n\n\
         [epoch]\ninterval_ms = 1\nreplay_tick_ms = 60000\n",
        names.join(", ")
    );
    let inputs = DATAFLOWS.iter().flat_map(|(_, inputs, _)| inputs.iter());
    let outputs = DATAFLOWS.iter().flat_map(|(.., outputs)| outputs.iter());
    for (kind, name, file) in inputs
        .map(|name| ("inputs", *name, format!("day/{name}-*.jsonl")))
        .chain(outputs.chain(&["dead_letters"]).map(|name| ("outputs", *name, format!("out/{name}.jsonl"))))
    {
        write!(text, "\n[{kind}.{name}]\nfile = \"{file}\"\nformat = \"json\"\n").expect("a string takes text");
    }
    directory.write("job.toml", text);
}

/// A job in a directory of its own: a copy of this one, inputs, outputs, state and all.
pub fn copy_of(directory: &Directory) -> Directory {
    let copy = Directory::new();
    for (name, content) in files(&directory.path("")) {
        copy.write(&name, content);
    }
    copy
}

/// Starts a run on so many workers, with these variables in its environment.
pub fn start_run(directory: &Directory, workers: usize, environment: &[(&str, &str)]) -> Running {
    let workers = format!("--workers={workers}");
    start(directory, &["run", "job.toml", &workers], environment)
}

/// A run to its end.
pub fn run(directory: &Directory, workers: usize) -> Ended {
    start_run(directory, workers, &[]).wait()
}

/// A run that dies at a crash point; false if it ended without coming there.
#[track_caller]
pub fn run_killed_at(directory: &Directory, workers: usize, point: &str) -> bool {
    let ended = start_run(directory, workers, &[("TIDEGATE_CRASH_AT", point)]).wait();
    assert!(
        ended.was_killed() || ended.code == Some(0),
        "{point}: exit code {:?}, signal {:?}:\n{}",
        ended.code,
        ended.signal,
        ended.stderr
    );
    ended.was_killed()
}

/// All files below a directory, by name relative to it, those of the harness (`.stdout-0`) left out.
pub fn files(directory: &Path) -> Files {
    let mut found = Files::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(next) = directories.pop() {
        let Ok(entries) = std::fs::read_dir(&next) else { continue };
        for entry in entries {
            let path = entry.expect("a directory can be listed").path();
            let name = path.strip_prefix(directory).expect("below it").display().to_string();
            if path.is_dir() {
                directories.push(path);
            } else if !name.starts_with(".std") {
                // A running process may have deleted it meanwhile.
                found.extend(std::fs::read(&path).ok().map(|content| (name, content)));
            }
        }
    }
    found
}

/// The outputs, without the progress log.
pub fn outputs(directory: &Directory) -> Files {
    let mut outputs = files(&directory.path("out"));
    outputs.retain(|name, _| !name.starts_with('.'));
    outputs
}

/// Asserts that the outputs are these, and says where they are not.
#[track_caller]
pub fn assert_outputs(directory: &Directory, expected: &Files, story: &str) {
    let found = outputs(directory);
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>(),
        "{story}"
    );
    for (name, content) in expected {
        if let Some(line) = first_difference(&found[name], content) {
            let (found, expected) = (&found[name], content);
            panic!(
                "{story}: {name} differs from line {line} on; {} lines, expected {}\n found    {}\n expected {}",
                count_lines(found),
                count_lines(expected),
                text_of(found, line),
                text_of(expected, line),
            );
        }
    }
}

fn first_difference(one: &[u8], other: &[u8]) -> Option<usize> {
    let same = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    (one != other).then(|| count_lines(&one[..same]))
}

fn count_lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

fn text_of(bytes: &[u8], line: usize) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == b'\n').nth(line).unwrap_or_default()).into_owned()
}

//! A small generated day, the job that reads it, and what of a job's files a case compares or copies.
//!
//! ```text
//!  *.jsonl ─► job.toml ─► out/*.jsonl          what must be equal, byte for byte
//!                │        out/.bank-day-0.progress
//!                └──────► state/               claims, manifests, chunks
//! ```
//!
//! The finite runs of a day are cut into some thousand small epochs by the data, so their outputs are equal to the
//! byte whatever ran before and on however many workers: in order of epochs, and in each by (rank, bytes). That holds
//! for a row per epoch (`counts`) too, for the epochs are the same.

use crate::harness::Directory;
use crate::process::{Ended, Running, start};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

/// A checkpoint as often as one can be written, milliseconds.
pub const OFTEN: u64 = 1;
/// No checkpoint but the last, milliseconds.
pub const RARELY: u64 = 86_400_000;

/// Names and contents of files.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The files of a day: all inputs, and the job file as it is generated.
static DAY: LazyLock<Files> = LazyLock::new(|| {
    generated(&[
        "--accounts=200",
        "--entries=1500",
        "--changes=150",
        "--orders=1500",
        "--transactions=1500",
        "--events=1500",
        "--partitions=2",
    ])
});

/// The outputs of a run of the day that nobody disturbs, on one worker.
pub static UNDISTURBED: LazyLock<Files> = LazyLock::new(|| {
    let directory = day();
    run(&directory, 1).with_code(0);
    let outputs = outputs(&directory);
    let lines = outputs
        .values()
        .map(|content| count_lines(content))
        .sum::<usize>();
    assert!(lines > 3_000, "{lines} lines are too few to compare");
    outputs
});

/// A job killed twice: it has a checkpoint, commits after it, and a part of its inputs unread.
pub static HALFWAY: LazyLock<Files> = LazyLock::new(|| {
    for _ in 0..20 {
        let directory = day();
        run_killed_at(&directory, 2, "after-manifest");
        write_job(&directory, RARELY, "");
        run_killed_at(&directory, 1, "after-progress:3");
        write_job(&directory, OFTEN, "");
        if is_halfway(&directory) {
            return files(&directory.path(""));
        }
    }
    panic!("in twenty attempts no kill came before the end")
});

fn is_halfway(directory: &Directory) -> bool {
    let status = status(directory);
    let number = |value: &serde_json::Value| value.as_u64().expect("a number");
    let checkpoint = status["checkpoints"]
        .as_array()
        .and_then(|all| all.last())
        .map(|last| number(&last["epoch"]));
    let committed = number(&status["outputs"][0]["committed_epoch"]);
    let unread = status["inputs"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|input| input["ended"] == false);
    // Some inputs hold tables, which need not change to the end.
    checkpoint.is_some_and(|checkpoint| checkpoint < committed) && unread.count() > 6
}

/// A copy of it.
pub fn halfway() -> Directory {
    in_directory(&HALFWAY)
}

/// What `tidegate status` says.
pub fn status(directory: &Directory) -> serde_json::Value {
    let text = directory.tidegate(&["status", "job.toml", "--json"]).succeeded();
    serde_json::from_str(&text).expect("JSON")
}

/// By input file: the committed offset.
pub fn inputs(status: &serde_json::Value) -> BTreeMap<String, u64> {
    let inputs = status["inputs"].as_array().expect("a list").iter();
    let offset = |input: &serde_json::Value| {
        let (file, offset) = (input["file"].as_str(), input["committed_offset"].as_u64());
        (file.expect("a name").to_owned(), offset.expect("a number"))
    };
    inputs.map(offset).collect()
}

/// What `tidegate generate` makes of this size.
pub fn generated(size: &[&str]) -> Files {
    let directory = Directory::in_memory();
    let arguments = ["--log=off", "generate", "--seed=11", "--out=."];
    directory.tidegate(&[&arguments, size].concat()).succeeded();
    files(&directory.path(""))
}

/// A day that nothing has read yet.
pub fn day() -> Directory {
    let directory = in_directory(&DAY);
    write_job(&directory, OFTEN, "");
    directory
}

/// Writes `job.toml` with this time between checkpoints, and `more` at its top.
pub fn write_job(directory: &Directory, checkpoint_interval_ms: u64, more: &str) {
    let generated = String::from_utf8_lossy(&DAY["job.toml"]);
    let text = format!(
        "{more}\n{generated}\n[checkpoint]\ninterval_ms = {checkpoint_interval_ms}\n\n\
         [epoch]\ninterval_ms = 1\nreplay_tick_ms = 1000\n",
    );
    directory.write("job.toml", text);
}

/// A directory of its own with these files.
pub fn in_directory(files: &Files) -> Directory {
    let directory = Directory::in_memory();
    for (name, content) in files {
        directory.write(name, content);
    }
    directory
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
        ended.log
    );
    ended.was_killed()
}

/// All files below a directory, by name relative to it, those of the harness (`.stdout-0`) left out.
pub fn files(directory: &Path) -> Files {
    let mut found = Files::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(next) = directories.pop() {
        let Ok(entries) = std::fs::read_dir(&next) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("a directory can be listed").path();
            let name = path
                .strip_prefix(directory)
                .expect("below it")
                .display()
                .to_string();
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
    let same = one
        .iter()
        .zip(other)
        .take_while(|(one, other)| one == other)
        .count();
    (one != other).then(|| count_lines(&one[..same]))
}

/// Complete lines.
pub fn count_lines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

fn text_of(bytes: &[u8], line: usize) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == b'\n').nth(line).unwrap_or_default()).into_owned()
}

/// Everything that says something: without the lock's process id, and without what is empty.
pub fn content(directory: &Directory) -> Files {
    let mut files = files(&directory.path(""));
    files.retain(|name, content| !content.is_empty() && name != "state/lock");
    files
}

/// The names of the files that differ.
pub fn differences(before: &Files, after: &Files) -> Vec<String> {
    let names = before.keys().chain(after.keys());
    names
        .filter(|name| before.get(*name) != after.get(*name))
        .cloned()
        .collect()
}

/// Runs, and asserts that it is refused with this code and these words and has changed nothing.
#[track_caller]
pub fn refused(directory: &Directory, code: i32, words: &[&str]) {
    let before = content(directory);
    let log = run(directory, 2).with_code(code);
    for word in words {
        assert!(log.contains(word), "{word:?} is not in:\n{log}");
    }
    let changed = differences(&before, &content(directory));
    assert!(
        changed.is_empty(),
        "a refused start has changed {changed:?}:\n{log}"
    );
}

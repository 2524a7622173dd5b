//! Checkpoints seen from outside: what is written follows what changed, not what exists.

use crate::day::{Files, OFTEN, files, generated, in_directory, inputs, status, write_job};
use crate::harness::Directory;
use crate::process::{Running, start};
use rustix::process::Signal;
use std::io::Write;

/// Waits for a checkpoint that covers the input files as they are; gives what a restore of it reads, bytes.
fn until_checkpointed(directory: &Directory, running: &mut Running) -> u64 {
    let mut bytes = 0;
    let covered = running.until(|| {
        let status = status(directory);
        let committed = inputs(&status);
        let checkpoints = status["checkpoints"].as_array().expect("a list");
        let Some(last) = checkpoints.last() else {
            return false;
        };
        bytes = last["bytes"].as_u64().expect("a number");
        // The checkpoint after the last commit: nothing is committed that it does not hold.
        let is_all_read = files(&directory.path(""))
            .iter()
            .filter(|(name, _)| !name.contains('/') && name.ends_with(".jsonl"))
            .all(|(name, content)| committed.get(name).copied().unwrap_or(0) == content.len() as u64);
        is_all_read && last["epoch"].as_u64() >= status["outputs"][0]["committed_epoch"].as_u64()
    });
    assert!(covered, "{}", running.log());
    bytes
}

fn chunks(directory: &Directory) -> Files {
    files(&directory.path("state/chunks"))
}

#[test]
fn few_changes_write_few_bytes() {
    let size = [
        "--accounts=5000",
        "--entries=50",
        "--changes=0",
        "--orders=50",
        "--transactions=50",
        "--events=50",
        "--partitions=2",
    ];
    let directory = in_directory(&generated(&size));
    write_job(&directory, OFTEN, "");
    let mut running = start(&directory, &["run", "job.toml", "--follow", "--workers=2"], &[]);
    let state = until_checkpointed(&directory, &mut running);
    assert!(state > 500_000, "{state} bytes of state are too few to tell");
    for _ in 0..5 {
        let before = chunks(&directory);
        let settings = directory.read("settings-0.jsonl");
        let line = settings
            .split_inclusive(|byte| *byte == b'\n')
            .next()
            .expect("a line");
        let file = std::fs::File::options()
            .append(true)
            .open(directory.path("settings-0.jsonl"));
        file.and_then(|mut file| file.write_all(line))
            .expect("a file that grows");
        let now = until_checkpointed(&directory, &mut running);
        let after = chunks(&directory);
        let written: usize = after
            .iter()
            .filter(|(name, _)| !before.contains_key(*name))
            .map(|(_, content)| content.len())
            .sum();
        assert!(
            written as u64 * 20 < now,
            "one change wrote {written} bytes of {now}"
        );
    }
    running.signal(Signal::INT);
    running.wait().with_code(0);
}

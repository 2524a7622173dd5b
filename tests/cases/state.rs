//! The state at a URL: on a local disk, in an object store, in one that cannot be reached.
//!
//! ```text
//!  state = "file:///..." | "s3://tide/..." ─► killed after a checkpoint ─► other workers ─► to the end
//!                                             outputs as of a run that nobody disturbed, on a directory
//! ```

use crate::bucket::{Bucket, environment};
use crate::day::{UNDISTURBED, assert_outputs, day, files, start_run};
use crate::harness::Directory;
use std::net::TcpListener;

/// A day whose state lies there.
fn day_at(state: &str) -> Directory {
    let directory = day();
    let job = String::from_utf8(directory.read("job.toml")).expect("UTF-8");
    let moved = job.replace("state = \"state\"", &format!("state = \"{state}\""));
    assert_ne!(moved, job, "the generated job names its state");
    directory.write("job.toml", moved);
    directory
}

/// Killed twice, after a checkpoint and while a restart restores, and then run to its end.
fn killed_and_ended(directory: &Directory, environment: &[(String, String)]) {
    let environment = |point| {
        let pairs = environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        pairs.chain([("TIDEGATE_CRASH_AT", point)]).collect::<Vec<_>>()
    };
    for (workers, point) in [(2, "after-manifest:2"), (1, "during-restore")] {
        let ended = start_run(directory, workers, &environment(point)).wait();
        assert!(ended.was_killed(), "{point}: {}", ended.log);
    }
    start_run(directory, 3, &environment("none")).wait().with_code(0);
    assert_outputs(directory, &UNDISTURBED, "state at a URL");
}

#[test]
fn a_file_url_is_a_directory() {
    let elsewhere = Directory::in_memory();
    let state = elsewhere.path("state of day");
    let url = format!("file://{}", state.display()).replace(' ', "%20");
    let directory = day_at(&url);
    directory.tidegate(&["status", "job.toml"]).succeeded();
    assert!(!state.exists(), "looking makes no state");
    killed_and_ended(&directory, &[]);
    let found = files(&state);
    assert!(
        found.keys().any(|name| name.starts_with("manifests/")),
        "{found:?}"
    );
    assert!(!directory.path("state").exists());
    let status = directory.status();
    // The second life died before its claim.
    assert_eq!(status["generation"], 2, "{status:#}");
}

#[test]
fn an_object_store_keeps_the_state() {
    let bucket = Bucket::start();
    let directory = day_at("s3://tide/bank/day");
    killed_and_ended(&directory, &bucket.environment());
    let objects = bucket.objects();
    for folder in ["claims", "manifests", "chunks"] {
        let prefix = format!("bank/day/{folder}/");
        let count = objects.keys().filter(|key| key.starts_with(&prefix)).count();
        assert!(count > 0, "{folder}: {:?}", objects.keys());
    }
    assert!(objects.keys().all(|key| key.starts_with("bank/day/")));
    assert!(!directory.path("state").exists());
    assert!(
        files(directory.root())
            .keys()
            .all(|name| !name.contains("manifests"))
    );
}

#[test]
fn of_two_starts_the_object_store_lets_one_win() {
    let bucket = Bucket::start();
    let directory = day_at("s3://tide/day");
    bucket.rival("day/claims/00000000000000000001", b"another start's");
    let pairs = bucket.environment();
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let refused = directory.tidegate_with(&["run", "job.toml"], &pairs).failed(6);
    assert!(refused.contains("generation 1"), "{refused}");
    assert_eq!(bucket.objects().len(), 1, "the loser put nothing");
}

#[test]
fn an_object_store_that_cannot_be_reached_is_named() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let address = closed.local_addr().expect("a bound port").to_string();
    drop(closed);
    let directory = day_at("s3://tide/day");
    directory.tidegate(&["check", "job.toml"]).succeeded();
    let pairs = environment(&address);
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let refused = directory
        .tidegate_with(&["--log=error", "run", "job.toml"], &pairs)
        .failed(9);
    assert!(
        refused.contains(&address) && refused.contains("refused"),
        "{refused}"
    );
    assert_eq!(refused.lines().count(), 1, "{refused}");
}

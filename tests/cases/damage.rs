//! Damage to a job's own files: either the final files are those of an undisturbed run, or the start is refused.
//!
//! ```text
//!                      ┌─ exit 0: outputs byte-equal to the undisturbed run's
//!  halfway ─► damage ─►┤
//!                      └─ exit 3 or 5: names the thing and a way out, and has changed nothing
//! ```
//!
//! Every case starts from the same job killed halfway (`day.rs`), which has checkpoints, commits after them, and
//! inputs still to read.

use crate::day::{
    HALFWAY, OFTEN, UNDISTURBED, assert_outputs, content, day, differences, files, halfway, refused, run,
    run_killed_at, status, write_job,
};
use crate::harness::Directory;
use crate::process::start;
use tidegate::checkpoint::unreliable::Random;

const LOG: &str = "out/.bank-day-0.progress";

/// Runs to the end with the right outputs (true), or is refused as damaged, with a way out, and changes nothing.
#[track_caller]
fn recovered(directory: &Directory, story: &str) -> bool {
    let before = content(directory);
    let ended = run(directory, 2);
    match ended.code {
        Some(0) => assert_outputs(directory, &UNDISTURBED, story),
        Some(5) => {
            assert!(
                ended.log.contains("restore") || ended.log.contains("start anew"),
                "{story}: {}",
                ended.log
            );
            let changed = differences(&before, &content(directory));
            assert!(
                changed.is_empty(),
                "{story}: a refused start has changed {changed:?}:\n{}",
                ended.log
            );
        }
        other => panic!("{story}: exit code {other:?}\n{}", ended.log),
    }
    ended.code == Some(0)
}

/// The names of the halfway job's files in a folder.
fn names(folder: &str) -> Vec<&'static str> {
    let names: Vec<_> = HALFWAY
        .keys()
        .map(String::as_str)
        .filter(|name| name.starts_with(folder))
        .collect();
    assert!(!names.is_empty(), "no {folder}");
    names
}

fn flipped(content: &[u8], random: &mut Random) -> Vec<u8> {
    let mut content = content.to_vec();
    let bit = random.below(8 * content.len() as u64) as usize;
    content[bit / 8] ^= 1 << (bit % 8);
    content
}

fn remove(directory: &Directory, name: &str) {
    std::fs::remove_file(directory.path(name)).expect("a file that is there");
}

fn remove_all(directory: &Directory, name: &str) {
    std::fs::remove_dir_all(directory.path(name)).expect("a directory that is there");
}

/// Where the last record of the progress log begins.
fn last_record(log: &[u8]) -> usize {
    log[..log.len() - 1]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1)
}

#[test]
fn torn_last_progress_record_is_recovered_from() {
    let log = &HALFWAY[LOG];
    let start = last_record(log);
    let mut random = Random(1);
    // `progress.rs` reads every cut; these are the places where one kind of rest becomes another.
    let mut cuts = vec![
        start,
        start + 1,
        start + 8,
        start + 9,
        log.len() - 2,
        log.len() - 1,
    ];
    cuts.extend((0..4).map(|_| start + random.below((log.len() - start) as u64) as usize));
    for cut in cuts {
        let directory = halfway();
        directory.write(LOG, &log[..cut]);
        run(&directory, 2).with_code(0);
        assert_outputs(
            &directory,
            &UNDISTURBED,
            &format!("progress log cut at byte {cut} of {}", log.len()),
        );
    }
}

#[test]
fn damaged_progress_log_is_refused() {
    let log = &HALFWAY[LOG];
    for record in [0, last_record(log)] {
        let directory = halfway();
        let mut damaged = log.clone();
        damaged[record + 20] ^= 4;
        directory.write(LOG, damaged);
        refused(&directory, 5, &[LOG, &format!("byte {record}:"), "restore it"]);
    }
    let directory = halfway();
    remove(&directory, LOG);
    refused(&directory, 5, &["progress log", "missing", "restore it"]);
}

/// A flipped bit in, or the loss of, any one object of the state store.
#[test]
fn damaged_state_is_recovered_from_or_refused() {
    let mut random = Random(2);
    let chunks = names("state/chunks");
    let some_chunks = (0..6)
        .map(|_| chunks[random.below(chunks.len() as u64) as usize])
        .collect::<Vec<_>>();
    let objects = [
        some_chunks,
        names("state/manifests"),
        names("state/claims"),
        names("state/begun"),
    ]
    .concat();
    let mut recoveries = 0;
    for name in &objects {
        let directory = halfway();
        let lost = random.below(3) == 0;
        if lost {
            remove(&directory, name);
        } else {
            directory.write(name, flipped(&HALFWAY[*name], &mut random));
        }
        recoveries += usize::from(recovered(
            &directory,
            &format!("{name} {}", if lost { "lost" } else { "flipped" }),
        ));
    }
    // With the bindings all there, an older checkpoint or none serves as well.
    assert!(
        recoveries * 2 > objects.len(),
        "{recoveries} of {}",
        objects.len()
    );
}

#[test]
fn every_checkpoint_damaged_is_recovered_from_or_refused() {
    for folder in ["state/chunks", "state/manifests", "state/claims"] {
        let mut random = Random(4);
        let directory = halfway();
        for name in names(folder) {
            directory.write(name, flipped(&HALFWAY[name], &mut random));
        }
        recovered(&directory, &format!("all of {folder} flipped"));
        let directory = halfway();
        remove_all(&directory, folder);
        recovered(&directory, &format!("all of {folder} lost"));
    }
}

#[test]
fn stale_or_lost_state_is_recovered_from_or_refused() {
    // The state as it was after an earlier kill, beside outputs that went on since.
    let directory = day();
    assert!(run_killed_at(&directory, 1, "after-data:2"), "no second commit");
    let early = files(&directory.path("state"));
    run_killed_at(&directory, 2, "after-manifest:3");
    remove_all(&directory, "state");
    for (name, content) in &early {
        directory.write(&format!("state/{name}"), content);
    }
    recovered(&directory, "a stale state directory");

    let directory = halfway();
    remove_all(&directory, "state");
    recovered(&directory, "a lost state directory");
}

#[test]
fn lost_or_shortened_outputs_are_refused() {
    let status = status(&halfway());
    let outputs = status["outputs"].as_array().expect("a list");
    let written: Vec<_> = outputs
        .iter()
        .filter(|output| output["committed_bytes"] != 0)
        .collect();
    assert!(written.len() > 3, "too little was committed: {status}");
    for output in written {
        let name = format!("out/{}.jsonl", output["output"].as_str().expect("a name"));
        let committed = output["committed_bytes"].as_u64().expect("a number") as usize;
        let directory = halfway();
        directory.write(&name, &HALFWAY[&name][..committed - 1]);
        refused(
            &directory,
            5,
            &[
                &name,
                &(committed - 1).to_string(),
                &committed.to_string(),
                "restore it",
            ],
        );
        remove(&directory, &name);
        refused(&directory, 5, &[&name, "0 bytes", "restore it"]);
    }
    let directory = halfway();
    remove_all(&directory, "out");
    refused(&directory, 5, &["progress log", "missing", "restore it"]);
}

#[test]
fn output_that_is_somebody_elses_is_kept() {
    let directory = day();
    let mine = b"{\"mine\":1}\n";
    directory.write("out/email.jsonl", mine);
    refused(&directory, 3, &["out/email.jsonl", "not empty", "append"]);
    let ended = start(
        &directory,
        &["run", "job.toml", "--append"],
        &[("TIDEGATE_CRASH_AT", "after-data")],
    )
    .wait();
    assert!(ended.was_killed(), "{}", ended.log);
    // Consent was recorded; the second start needs none.
    run(&directory, 2).with_code(0);
    let mut expected = UNDISTURBED.clone();
    if let Some(email) = expected.get_mut("email.jsonl") {
        email.splice(..0, *mine);
    }
    assert_outputs(&directory, &expected, "appended to what was there");
}

#[test]
fn other_plan_is_refused() {
    let directory = halfway();
    write_job(&directory, OFTEN, "");
    let job = [
        &directory.read("job.toml")[..],
        b"\n[tumbling_aggregates]\ngrace_ms = 5\n",
    ]
    .concat();
    directory.write("job.toml", job);
    refused(&directory, 5, &["another plan", "restore the job file"]);
}

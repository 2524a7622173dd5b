//! Damage and trouble around a job: either the final files are those of an undisturbed run, or the start is refused.
//!
//! ```text
//!                      ┌─ exit 0: outputs byte-equal to the undisturbed run's
//!  halfway ─► damage ─►┤
//!                      └─ exit 3 to 7: names the thing and a way out, and has changed nothing
//! ```
//!
//! Every case starts from the same job killed halfway (`kills.rs`), which has checkpoints, commits after them, and
//! inputs still to read. What is refused is compared with what lay there before; locks and empty files apart, which
//! say nothing.

use crate::day::{
    Files, HALFWAY, OFTEN, UNDISTURBED, assert_outputs, day, files, in_directory, inputs, outputs, run,
    run_killed_at, start_run, status, write_job,
};
use crate::harness::Directory;
use crate::process::start;
use rustix::process::Signal;
use tidegate::checkpoint::unreliable::Random;

const LOG: &str = "out/.bank-day-0.progress";

fn halfway() -> Directory {
    in_directory(&HALFWAY)
}

/// Everything that says something: without the lock's process id, and without what is empty.
fn content(directory: &Directory) -> Files {
    let mut files = files(&directory.path(""));
    files.retain(|name, content| !content.is_empty() && name != "state/lock");
    files
}

/// Runs, and asserts that it is refused with this code and these words and has changed nothing.
#[track_caller]
fn refused(directory: &Directory, code: i32, words: &[&str]) {
    let before = content(directory);
    let log = run(directory, 2).with_code(code);
    for word in words {
        assert!(log.contains(word), "{word:?} is not in:\n{log}");
    }
    let after = content(directory);
    let changed: Vec<_> = before
        .keys()
        .chain(after.keys())
        .filter(|name| before.get(*name) != after.get(*name))
        .collect();
    assert!(
        changed.is_empty(),
        "a refused start has changed {changed:?}:\n{log}"
    );
}

/// Runs to the end with the right outputs (true), or is refused as damaged and changes nothing.
#[track_caller]
fn recovered(directory: &Directory, story: &str) -> bool {
    let before = content(directory);
    let ended = run(directory, 2);
    match ended.code {
        Some(0) => assert_outputs(directory, &UNDISTURBED, story),
        Some(5) => assert_eq!(
            content(directory).keys().collect::<Vec<_>>(),
            before.keys().collect::<Vec<_>>(),
            "{story}"
        ),
        other => panic!("{story}: exit code {other:?}\n{}", ended.stderr),
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
    assert!(ended.was_killed(), "{}", ended.stderr);
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

#[test]
fn second_instance_is_refused_and_the_first_goes_on() {
    let directory = halfway();
    let mut first = start_run(&directory, 2, &[]);
    first.until_logged("started");
    first.signal(Signal::STOP);
    let log = start_run(&directory, 1, &[]).wait().with_code(6);
    assert!(
        log.contains(&format!("process {}", first.pid())) && log.contains("stop it first"),
        "{log}"
    );
    first.signal(Signal::CONT);
    first.wait().with_code(0);
    assert_outputs(&directory, &UNDISTURBED, "with a second instance in between");
}

/// The first `n` bytes of every file can be written, not one more.
#[test]
fn full_disk_stops_the_job_and_loses_nothing() {
    let mut refusals = 0;
    for blocks in [0, 1, 2, 3, 5, 9, 17, 33, 65, 129] {
        let directory = day();
        for _ in 0..2 {
            let mut limited = std::process::Command::new("sh");
            limited.args(["-c", "ulimit -f \"$0\" && exec \"$@\"", &blocks.to_string()]);
            limited
                .args([env!("CARGO_BIN_EXE_tidegate"), "run", "job.toml"])
                .current_dir(directory.path(""));
            let output = limited.output().expect("a shell");
            let log = String::from_utf8_lossy(&output.stderr);
            if output.status.code() == Some(0) {
                break;
            }
            assert_eq!(
                output.status.code(),
                Some(7),
                "{blocks} blocks: {:?}\n{log}",
                output.status
            );
            let named = ["out/", "state", "chunks/", "manifests/", "claims/"]
                .iter()
                .any(|name| log.contains(name));
            assert!(named && log.contains("cannot write"), "{blocks} blocks: {log}");
            refusals += 1;
        }
        run(&directory, 2).with_code(0);
        assert_outputs(
            &directory,
            &UNDISTURBED,
            &format!("once files could grow over {blocks} blocks"),
        );
    }
    assert!(refusals > 8, "{refusals}");
}

#[test]
fn inputs_that_lost_what_was_read_are_refused() {
    for (name, damage) in [
        ("entries-0.jsonl", "truncated"),
        ("orders-1.jsonl", "removed"),
        ("events-0.jsonl", "empty"),
    ] {
        let directory = halfway();
        match damage {
            "truncated" => directory.write(name, &HALFWAY[name][..10]),
            "removed" => remove(&directory, name),
            _ => directory.write(name, ""),
        }
        refused(
            &directory,
            4,
            &[name, "bytes of it were read and committed", "restore"],
        );
        // What was lost comes back: nothing else is wrong.
        directory.write(name, &HALFWAY[name]);
        run(&directory, 1).with_code(0);
        assert_outputs(&directory, &UNDISTURBED, &format!("{name} {damage} and restored"));
    }
}

#[test]
fn followed_input_that_loses_what_was_read_stops_the_job() {
    for damage in ["truncated", "removed", "replaced", "replaced by a longer one"] {
        let directory = day();
        let name = "entries-1.jsonl";
        let path = directory.path(name);
        let length = std::fs::metadata(&path).expect("an input").len();
        let mut running = start(&directory, &["run", "job.toml", "--follow"], &[]);
        let stands_at_its_end = || inputs(&status(&directory)).get(name) == Some(&length);
        assert!(running.until(stands_at_its_end), "{}", running.log());
        let before = outputs(&directory);
        match damage {
            "truncated" => std::fs::File::options()
                .write(true)
                .open(&path)
                .and_then(|file| file.set_len(10))
                .expect("a file"),
            "removed" => remove(&directory, name),
            other => {
                let longer = if other == "replaced" { "" } else { "{}\n" };
                directory.write(
                    "new",
                    [
                        &before["email.jsonl"][..10],
                        longer.repeat(length as usize).as_bytes(),
                    ]
                    .concat(),
                );
                std::fs::rename(directory.path("new"), &path).expect("a rename");
            }
        }
        let log = running.wait().with_code(4);
        assert!(
            log.contains(name) && log.contains(&format!("byte {length}")),
            "{damage}: {log}"
        );
    }
}

/// As root nothing is read-only, so the program runs as nobody then.
#[test]
fn directory_that_cannot_be_written_is_named() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65_534;
    let program = Directory::new();
    let copy = program.path("tidegate");
    std::fs::copy(env!("CARGO_BIN_EXE_tidegate"), &copy).expect("the program can be copied");
    for read_only in ["out", "state"] {
        let directory = day();
        for folder in ["out", "state"] {
            std::fs::create_dir(directory.path(folder)).expect("a new directory");
        }
        let allow = |folder: &str, mode| {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(directory.path(folder), permissions).expect("our own directory");
        };
        allow("out", 0o777);
        allow("state", 0o777);
        allow(read_only, 0o555);
        let mut command = std::process::Command::new(&copy);
        command.args(["run", "job.toml"]).current_dir(directory.path(""));
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY);
        }
        let output = command.output().expect("the program starts");
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(7), "{read_only}: {log}");
        assert!(
            log.contains(&format!("cannot write {}", directory.path(read_only).display()))
                || log.contains(&format!("{read_only}/")),
            "{log}"
        );
        assert!(
            outputs(&directory).values().all(Vec::is_empty),
            "{read_only}: something was written"
        );
        remove_all(&directory, "out");
        remove_all(&directory, "state");
        run(&directory, 1).with_code(0);
        assert_outputs(&directory, &UNDISTURBED, &format!("{read_only} was read-only"));
    }
}

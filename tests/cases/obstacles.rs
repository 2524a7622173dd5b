//! What can stand in a job's way from outside: another instance, a full disk, a directory that may not be
//! written, inputs that lose what was read of them.
//!
//! Each ends the program with its own exit code and the name of the thing. Nothing wrong was committed by
//! then: once the obstacle is gone, the final files are those of an undisturbed run.

use crate::day::{
    HALFWAY, UNDISTURBED, assert_outputs, day, halfway, inputs, outputs, refused, run, start_run, status,
};
use crate::harness::Directory;
use crate::process::start;
use rustix::process::Signal;

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
            "removed" => std::fs::remove_file(directory.path(name)).expect("an input"),
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
            "removed" => std::fs::remove_file(&path).expect("an input"),
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
        for folder in ["out", "state"] {
            std::fs::remove_dir_all(directory.path(folder)).expect("our own directory");
        }
        run(&directory, 1).with_code(0);
        assert_outputs(&directory, &UNDISTURBED, &format!("{read_only} was read-only"));
    }
}

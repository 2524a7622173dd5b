//! `tidegate cluster`: processes that are launched, watched, started again when one dies, and ended together.
//!
//! ```text
//!  finite:   shapes ─► the bytes of an undisturbed run
//!            kill -9 | freeze one process ─► generation 2 ─► the same bytes; the log names the first cause
//!            kill -9 the launcher ─► nobody is left ─► launched again ─► the same bytes
//!  followed: Ctrl-C ─► all drain ─► 0; again ─► 130
//!  by hand:  a worker that hangs or panics ends its process, and is named
//! ```

use crate::day::{HALFWAY, OFTEN, UNDISTURBED, assert_outputs, day, files, in_directory, write_job};
use crate::harness::Directory;
use crate::process::{Ended, Running, start};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tidegate::error::Kind;

fn launch(directory: &Directory, arguments: &[&str]) -> Running {
    start(directory, &[&["cluster", "job.toml"], arguments].concat(), &[])
}

fn pid(of: u32) -> Pid {
    Pid::from_raw(of.cast_signed()).expect("a process id is positive")
}

/// The process ids of a generation, when it has started.
#[track_caller]
fn processes(running: &mut Running, generation: u32) -> Vec<u32> {
    let words = format!("generation {generation}: process 0 is ");
    running.until_logged(&words);
    let log = running.log();
    let line = log
        .lines()
        .find(|line| line.contains(&words))
        .expect("it was logged");
    let after = line.split(" is ").skip(1);
    let number = |text: &str| text.split(',').next().and_then(|number| number.parse().ok());
    after.map(|text| number(text).expect("a process id")).collect()
}

fn has_outputs(directory: &Directory) -> bool {
    files(&directory.path("out"))
        .values()
        .any(|content| !content.is_empty())
}

#[test]
fn every_shape_gives_the_same_bytes() {
    for (processes, workers) in [(1, 2), (2, 1), (2, 2), (3, 1)] {
        let directory = day();
        let arguments = [format!("--processes={processes}"), format!("--workers={workers}")];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let ended = launch(&directory, &arguments).wait();
        assert!(!ended.log.contains("generation 2"), "{}", ended.log);
        ended.with_code(0);
        assert_outputs(
            &directory,
            &UNDISTURBED,
            &format!("launched as {processes}x{workers}"),
        );
    }
}

#[test]
fn the_leaders_summary_is_printed() {
    let directory = day();
    let text = launch(&directory, &["--json"]).wait_for_output();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object a line"))
        .collect();
    let (summary, statuses) = lines.split_last().expect("a summary");
    assert_eq!(summary["job"], "bank-day");
    assert!(
        summary["messages_in"].as_u64().is_some_and(|count| count > 6_000),
        "{summary}"
    );
    for status in statuses {
        assert_eq!(status["processes"].as_array().map(Vec::len), Some(2), "{status}");
    }
}

/// Ends a process of a launched cluster in some way, when there are outputs; how the launcher ended, and
/// whether it came
/// to a second generation.
fn disturbed(directory: &Directory, victim: usize, signal: Signal) -> (Ended, bool) {
    let mut running = launch(directory, &["--processes=2"]);
    let victim = processes(&mut running, 1)[victim];
    let is_there = running.until(|| has_outputs(directory));
    assert!(is_there, "{}", running.log());
    // It may be done at this moment.
    let _ = kill_process(pid(victim), signal);
    let ended = running.wait();
    let is_restarted = ended.log.contains("generation 2: ");
    (ended, is_restarted)
}

#[test]
fn whoever_is_killed_the_whole_generation_starts_again() {
    let mut restarts = 0;
    for round in 0..6 {
        let directory = day();
        let victim = round % 2;
        let (ended, is_restarted) = disturbed(&directory, victim, Signal::KILL);
        let log = ended.with_code(0);
        if is_restarted {
            restarts += 1;
            let cause =
                format!("generation 1 has ended: process {victim} was ended by signal 9; again in 100 ms");
            assert!(log.contains(&cause), "{log}");
        }
        assert_outputs(&directory, &UNDISTURBED, &format!("process {victim} killed"));
    }
    assert!(restarts > 0, "every job was done before a process was killed");
}

#[test]
fn a_frozen_process_is_missed_and_named() {
    for victim in [0, 1] {
        let directory = day();
        let (ended, is_restarted) = disturbed(&directory, victim, Signal::STOP);
        let log = ended.with_code(0);
        assert!(is_restarted, "{log}");
        let missed = format!("process {victim} (127.0.0.1:");
        let cause = log.lines().find(|line| line.contains("generation 1 has ended: "));
        let cause = cause.expect("the cause is logged");
        assert!(
            cause.contains(&missed) && cause.contains("nothing was heard of it for 4000 ms"),
            "{log}"
        );
        assert_outputs(&directory, &UNDISTURBED, &format!("process {victim} frozen"));
    }
}

#[test]
fn nobody_outlives_a_launcher_that_is_killed() {
    let directory = day();
    let mut running = launch(&directory, &["--processes=3", "--follow"]);
    let launched = processes(&mut running, 1);
    assert!(running.until(|| has_outputs(&directory)), "{}", running.log());
    assert!(running.kill().was_killed());
    // They are gone, or wait for init to take note of it: the next launch gets their locks.
    launch(&directory, &["--processes=2"]).wait().with_code(0);
    for process in launched {
        let is_there = test_kill_process(pid(process)).is_ok();
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let is_dead = status
            .lines()
            .any(|line| line.starts_with("State:") && line.contains('Z'));
        assert!(
            !is_there || is_dead || status.is_empty(),
            "process {process} lives:\n{status}"
        );
    }
    let found = crate::day::outputs(&directory);
    assert_eq!(found.len(), UNDISTURBED.len());
}

#[test]
fn an_interrupt_drains_all_and_a_second_one_kills() {
    let directory = day();
    let mut running = launch(&directory, &["--follow"]);
    processes(&mut running, 1);
    assert!(running.until(|| has_outputs(&directory)), "{}", running.log());
    running.signal(Signal::INT);
    let log = running.wait().with_code(0);
    assert!(!log.contains("generation 2"), "{log}");

    let mut running = launch(&directory, &["--follow"]);
    let launched = processes(&mut running, 1);
    running.until_logged("[0] ");
    // Frozen, it cannot drain.
    kill_process(pid(launched[0]), Signal::STOP).expect("it runs");
    running.signal(Signal::INT);
    running.until_logged("again to kill");
    running.signal(Signal::INT);
    let log = running.wait().with_code(Kind::Aborted as i32);
    assert!(!log.contains("generation 2"), "{log}");
    crate::day::run(&directory, 1).with_code(0);
}

#[test]
fn what_a_restart_cannot_mend_ends_the_launcher() {
    let directory = day();
    let mut holder = start(&directory, &["run", "job.toml", "--follow"], &[]);
    assert!(holder.until(|| has_outputs(&directory)), "{}", holder.log());
    let ended = launch(&directory, &["--processes=2"]).wait();
    let log = ended.with_code(Kind::AnotherInstance as i32);
    assert!(!log.contains("generation 2"), "{log}");
    let last = log.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("process 0, thread main: ") && last.contains("is in use by"),
        "{log}"
    );
    holder.signal(Signal::INT);
    holder.wait().with_code(0);

    write_job(&directory, OFTEN, "unknown = 1");
    let log = launch(&directory, &[])
        .wait()
        .with_code(Kind::Configuration as i32);
    assert!(!log.contains("generation"), "nothing was started: {log}");
}

#[test]
fn a_worker_that_stands_still_is_found_and_named() {
    for workers in ["--workers=1", "--workers=2"] {
        let directory = in_directory(&HALFWAY);
        directory.append("job.toml", "\n[cluster]\nstall_timeout_ms = 400\n");
        let hang = [("TIDEGATE_HANG_AT", "during-replay")];
        let ended = start(&directory, &["run", "job.toml", workers], &hang).wait();
        let log = ended.with_code(Kind::Stalled as i32);
        let last = log.lines().last().unwrap_or_default();
        assert!(
            last.contains("has made no progress for 400 ms; it was last seen while it read"),
            "{log}"
        );
        crate::day::run(&directory, 1).with_code(0);
        assert_outputs(&directory, &UNDISTURBED, "hung in a replay");
    }
}

#[test]
fn a_panic_in_a_worker_ends_its_process_in_one_line() {
    let panic = [("TIDEGATE_PANIC_AT", "during-replay")];
    for workers in ["--workers=1", "--workers=2"] {
        let directory = in_directory(&HALFWAY);
        let ended = start(&directory, &["run", "job.toml", workers], &panic).wait();
        let log = ended.with_code(Kind::Internal as i32);
        let last = log.lines().last().unwrap_or_default();
        let words = "panicked: told to by TIDEGATE_PANIC_AT";
        assert!(
            last.starts_with("thread timely:work-") && last.contains(words),
            "{log}"
        );
    }
    // Launched, the line is the cause of the generation's end, and not what the other process says of it.
    let directory = in_directory(&HALFWAY);
    let arguments = ["cluster", "job.toml", "--processes=2"];
    let mut running = start(&directory, &arguments, &panic);
    running.until_logged("generation 1 has ended: process ");
    let log = running.log();
    let cause = log.lines().find(|line| line.contains("generation 1 has ended"));
    let cause = cause.expect("it was logged");
    let words = "panicked: told to by TIDEGATE_PANIC_AT";
    assert!(
        cause.contains(", thread timely:work-") && cause.contains(words),
        "{cause}"
    );
    running.signal(Signal::INT);
    running.wait();
}

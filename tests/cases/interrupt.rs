//! Ctrl-C: the first one drains and commits, the second one aborts; neither shows in the final files.

use crate::day::{UNDISTURBED, assert_outputs, day, files, run, start_run, status};
use crate::harness::Directory;
use crate::process::start_command;
use rustix::process::Signal;
use std::io::Write;
use std::process::{Command, Stdio};

fn size_of(directory: &Directory) -> usize {
    files(&directory.path("out")).values().map(Vec::len).sum()
}

fn has_ended(directory: &Directory) -> bool {
    let status = status(directory);
    status["inputs"]
        .as_array()
        .expect("a list")
        .iter()
        .all(|input| input["ended"] == true)
}

#[test]
fn interrupted_run_drains_and_a_later_one_completes() {
    let mut drained = 0;
    for (attempt, workers) in [1, 2, 3, 1, 2, 3].into_iter().enumerate() {
        let directory = day();
        for more in [1, 20_000] {
            let before = size_of(&directory);
            let mut running = start_run(&directory, workers, &[]);
            running.until(|| size_of(&directory) > before + more * attempt);
            running.signal(Signal::INT);
            running.wait().with_code(0);
            drained += usize::from(!has_ended(&directory));
        }
        run(&directory, 4 - workers).with_code(0);
        assert_outputs(
            &directory,
            &UNDISTURBED,
            &format!("interrupted twice on {workers} workers"),
        );
    }
    assert!(drained > 0, "every run had ended before it was interrupted");
}

/// The first Ctrl-C is answered by draining, which ends with a table of results. Nobody reads them here and the pipe is
/// full, so that the process is still there for the second one.
#[test]
fn second_interrupt_aborts() {
    let directory = day();
    let (unread, mut filler) = std::io::pipe().expect("a pipe");
    let stdout = filler.try_clone().expect("a pipe's end can be cloned");
    let fill = move || while filler.write_all(&[b'.'; 4096]).is_ok() {};
    let fill = std::thread::Builder::new()
        .name("filler".to_owned())
        .spawn(fill)
        .expect("a thread");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(["run", "job.toml", "--workers=2"]);
    let mut running = start_command(&directory, command, Some(Stdio::from(stdout)));
    running.until_logged("started");
    running.signal(Signal::INT);
    running.until_logged("draining");
    running.signal(Signal::INT);
    running.wait().with_code(130);
    drop(unread);
    fill.join().expect("the filler ends with the pipe");
    run(&directory, 1).with_code(0);
    assert_outputs(&directory, &UNDISTURBED, "aborted by a second Ctrl-C");
}

//! A run of the real program that a case watches, signals and kills.
//!
//! ```text
//!  start ─► Running ─► until(something shows) ─► signal | kill ─► wait ─► Ended: exit code or signal, its log
//! ```
//!
//! Waiting is always for a thing that shows from outside: a file that grew, a line in the log, the end of the process.
//! How often that is looked for decides nothing. A process that does not show it within [`PATIENCE`] fails the case.

use crate::harness::Directory;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// After this long a case that waits has failed.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(1);

/// The program, while it runs. Killed when it is dropped.
pub struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    ended: Option<ExitStatus>,
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Logs and errors.
    pub log: String,
}

impl Ended {
    /// Whether it was killed with SIGKILL.
    pub fn was_killed(&self) -> bool {
        self.signal == Some(Signal::KILL.as_raw())
    }

    /// Asserts this exit code and gives the log.
    #[track_caller]
    pub fn with_code(self, code: i32) -> String {
        assert_eq!(
            self.code,
            Some(code),
            "signal {:?}, log:\n{}",
            self.signal,
            self.log
        );
        self.log
    }
}

/// Starts `tidegate` in a directory. What it prints goes to files beside it, which a process that is not read from
/// cannot be held up by.
pub fn start(directory: &Directory, arguments: &[&str], environment: &[(&str, &str)]) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(arguments).envs(environment.iter().copied());
    start_command(directory, command, None)
}

/// Starts a command that becomes `tidegate`, with standard output to a file or to `stdout`.
pub fn start_command(directory: &Directory, mut command: Command, stdout: Option<Stdio>) -> Running {
    let name = |what| directory.path(&format!(".{what}-{}", unique()));
    let (out, err) = (name("stdout"), name("stderr"));
    let file = |path| Stdio::from(File::create(path).expect("a file to print to"));
    command.current_dir(directory.path(""));
    command
        .stdin(Stdio::null())
        .stdout(stdout.unwrap_or_else(|| file(&out)))
        .stderr(file(&err));
    let child = command.spawn().expect("the program starts");
    Running {
        child,
        stdout: out,
        stderr: err,
        ended: None,
    }
}

fn unique() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal; one that has ended gets none.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a process id is positive");
        if self.ended.is_none() {
            kill_process(pid, signal).expect("a child that was not waited for can be signalled");
        }
    }

    /// Kills it with SIGKILL and waits for its end. It may have ended before.
    pub fn kill(self) -> Ended {
        self.signal(Signal::KILL);
        self.wait()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.stderr).expect("the log is UTF-8")
    }

    /// Where what it logs goes.
    pub fn log_path(&self) -> PathBuf {
        self.stderr.clone()
    }

    /// Waits until `shows`; false if the process ended before.
    #[track_caller]
    #[expect(clippy::disallowed_methods, reason = "a case that hangs fails after a while")]
    pub fn until(&mut self, mut shows: impl FnMut() -> bool) -> bool {
        let since = Instant::now();
        loop {
            // In this order: what a process did before it ended shows.
            let ended = self.child.try_wait().expect("a child can be asked");
            if shows() {
                return true;
            }
            if ended.is_some() {
                self.ended = ended;
                return false;
            }
            assert!(
                since.elapsed() < PATIENCE,
                "it never showed; log:\n{}",
                self.log()
            );
            std::thread::park_timeout(LOOK);
        }
    }

    /// Waits until the log has a line with these words; fails if the process ends without.
    #[track_caller]
    pub fn until_logged(&mut self, words: &str) {
        let path = self.log_path();
        let shows = move || std::fs::read_to_string(&path).is_ok_and(|log| log.contains(words));
        assert!(self.until(shows), "ended without {words:?}:\n{}", self.log());
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(mut self) -> Ended {
        self.until(|| false);
        let status = self.ended.expect("it was waited for");
        let log = self.log();
        for path in [&self.stdout, &self.stderr] {
            let _ = std::fs::remove_file(path); // it goes with the directory otherwise
        }
        Ended {
            code: status.code(),
            signal: status.signal(),
            log,
        }
    }
}

impl Running {
    /// Waits until it ends well; gives what it printed.
    #[track_caller]
    pub fn wait_for_output(self) -> String {
        let path = self.stdout.clone();
        // Waiting removes the file; an open one can still be read.
        let mut printed = File::open(path).expect("what it prints goes to a file");
        self.wait().with_code(0);
        let mut text = String::new();
        printed
            .read_to_string(&mut text)
            .expect("what it prints is UTF-8");
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = self.child.kill(); // it has ended by itself
            let _ = self.child.wait();
        }
    }
}

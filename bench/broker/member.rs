//! One process of a cluster, as a directory: a broker or the registry.
//!
//! ```text
//!  command   the arguments of `java`, a line each: what a restart starts again
//!  log       what all its starts printed
//!  pid       of the newest start
//! ```
//!
//! Nothing is remembered elsewhere, so that any process can signal what another one started. A process id
//! counts only while the kernel says that its command line names this directory: then it is neither a
//! stranger that was given the id later nor a corpse that nobody waited for. That needs Linux's `/proc`.

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long a start, a stop or the end after a kill may take. A first start on a busy machine takes some
/// seconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// How much of a log an error tells, lines.
const TAIL: usize = 15;

/// Of which programs the lack is foreseen, and what to install.
const INSTALL: &[(&str, &str)] = &[
    ("java", "a JDK 17 or later (Debian: openjdk-17-jdk-headless)"),
    ("mvn", "Maven (Debian: maven)"),
    ("openssl", "OpenSSL (Debian: openssl)"),
];

/// One process of a cluster.
#[derive(Clone, Debug)]
pub struct Member {
    directory: PathBuf,
}

/// A start that may not be ready yet.
pub struct Start {
    member: Member,
    /// Where this start's part of the log begins, bytes.
    log_from: u64,
}

impl Member {
    /// The member that lives in a directory, whether it runs or not. The path is absolute.
    pub fn at(directory: PathBuf) -> Member {
        Member { directory }
    }

    /// Makes the directory of a member that `java` starts with these arguments, one of which names it.
    pub fn create(directory: PathBuf, arguments: &[String]) -> Result<Member, String> {
        let member = Member { directory };
        let is_named = |argument: &String| argument.contains(&member.directory.display().to_string());
        assert!(
            arguments.iter().any(is_named),
            "no argument of {arguments:?} names {member:?}"
        );
        let command = member.path("command");
        fs::write(&command, arguments.join("\n")).map_err(|error| told(&command, &error))?;
        Ok(member)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        let pid: u32 = fs::read_to_string(self.path("pid")).ok()?.trim().parse().ok()?;
        // Reaps it if it was a child of this process and has ended; what it answers otherwise does not matter.
        let _ = waitpid(Some(raw(pid)?), WaitOptions::NOHANG);
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let directory = self.directory.display().to_string();
        String::from_utf8_lossy(&command)
            .contains(&directory)
            .then_some(pid)
    }

    /// Starts it. It outlives this process, and Ctrl-C in this process's terminal does not reach it.
    pub fn start(&self) -> Result<Start, String> {
        if self.pid().is_some() {
            return Err(format!("{} is running already", self.directory.display()));
        }
        let (command, log, pid) = (self.path("command"), self.path("log"), self.path("pid"));
        let arguments = fs::read_to_string(&command).map_err(|error| told(&command, &error))?;
        let open = || File::options().create(true).append(true).open(&log);
        let (out, err) = open()
            .and_then(|out| Ok((out.try_clone()?, out)))
            .map_err(|error| told(&log, &error))?;
        let log_from = err.metadata().map_err(|error| told(&log, &error))?.len();
        let mut java = Command::new("java");
        java.args(arguments.lines())
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        let mut child = java
            .process_group(0)
            .spawn()
            .map_err(|error| missing(&java, &error))?;
        fs::write(&pid, child.id().to_string()).map_err(|error| told(&pid, &error))?;
        // For a moment after its start a process has no command line; it must not be taken for dead.
        until("java runs", || {
            Ok(self.pid().is_some() || !matches!(child.try_wait(), Ok(None)))
        })?;
        Ok(Start {
            member: self.clone(),
            log_from,
        })
    }

    /// Sends it a signal. One that does not run is an error.
    pub fn signal(&self, signal: Signal) -> Result<(), String> {
        let pid = self
            .pid()
            .ok_or_else(|| format!("{} is not running", self.directory.display()))?;
        let pid = raw(pid).ok_or_else(|| format!("{pid} is no process id"))?;
        kill_process(pid, signal).map_err(|error| format!("{}: {error}", self.directory.display()))
    }

    /// Sends it a signal that ends it, and waits for the end. One that does not run has ended.
    pub fn end(&self, signal: Signal) -> Result<(), String> {
        if let Err(error) = self.signal(signal)
            && self.pid().is_some()
        {
            return Err(error);
        }
        until("a process ends", || Ok(self.pid().is_none()))?;
        let _ = fs::remove_file(self.path("pid")); // a stale one is no harm, only a riddle
        Ok(())
    }

    /// The last lines of its log, for an error.
    fn log_tail(&self) -> String {
        let log = fs::read(self.path("log")).unwrap_or_default();
        tail(&String::from_utf8_lossy(&log))
    }
}

impl Start {
    /// Waits until `is_ready`, given what this start has logged so far; fails if the process ends before.
    pub fn wait(self, mut is_ready: impl FnMut(&str) -> bool) -> Result<(), String> {
        let name = self.member.directory.display();
        let looked = until("a process is ready", || {
            if is_ready(&self.log()) {
                return Ok(true);
            }
            if self.member.pid().is_none() {
                return Err("it ended".to_owned());
            }
            Ok(false)
        });
        looked.map_err(|error| format!("{name} did not start: {error}\n{}", self.member.log_tail()))
    }

    fn log(&self) -> String {
        let mut text = Vec::new();
        let read = File::open(self.member.path("log")).and_then(|mut log| {
            log.seek(SeekFrom::Start(self.log_from))?;
            log.read_to_end(&mut text)
        });
        // A log that cannot be read shows nothing, and the wait for it ends with its own error.
        read.map_or_else(|_| String::new(), |_| String::from_utf8_lossy(&text).into_owned())
    }
}

/// Looks again and again until it holds.
#[expect(
    clippy::disallowed_methods,
    reason = "what never happens is an error after a while"
)]
pub fn until(what: &str, mut holds: impl FnMut() -> Result<bool, String>) -> Result<(), String> {
    let since = Instant::now();
    while !holds()? {
        if since.elapsed() > PATIENCE {
            return Err(format!("waited {} s in vain until {what}", PATIENCE.as_secs()));
        }
        std::thread::park_timeout(LOOK);
    }
    Ok(())
}

/// Runs a program to its end and gives what it printed on standard output; a failure gives all it printed.
pub fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output();
    outcome(command, output.map_err(|error| missing(command, &error))?)
}

/// What a program printed on standard output, if it succeeded.
pub fn outcome(command: &Command, output: Output) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let printed = tail(&(text(&output.stdout) + &text(&output.stderr)));
    let program = command.get_program().display();
    Err(format!("{program} failed, {}:\n{printed}", output.status))
}

/// Why a program did not start; for a missing one, what to install.
pub fn missing(command: &Command, error: &std::io::Error) -> String {
    let program = command.get_program().to_string_lossy();
    match INSTALL.iter().find(|(name, _)| *name == program) {
        Some((_, install)) if error.kind() == ErrorKind::NotFound => {
            format!("`{program}` is missing: install {install}")
        }
        _ => format!("{program}: {error}"),
    }
}

fn raw(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

fn told(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

/// The last lines, but for those of Java that say through which functions an error came.
fn tail(text: &str) -> String {
    let is_trace = |line: &&str| line.starts_with("\tat ") || line.starts_with("\t... ");
    let lines: Vec<&str> = text.lines().filter(|line| !is_trace(line)).collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_what_to_install() {
        let not_found = std::io::Error::from(ErrorKind::NotFound);
        let of = |program: &str| missing(&Command::new(program), &not_found);
        assert_eq!(of("mvn"), "`mvn` is missing: install Maven (Debian: maven)");
        assert!(!of("sh").contains("install"));
    }

    #[test]
    fn an_error_tells_the_last_lines() {
        let lines: Vec<String> = (0..100).map(|line| line.to_string()).collect();
        assert_eq!(tail(&lines.join("\n")).lines().next(), Some("85"));
        assert_eq!(
            tail("one\n\tat java.base/x.y(Z.java:1)\n\t... 6 more\ntwo"),
            "one\ntwo"
        );
    }
}

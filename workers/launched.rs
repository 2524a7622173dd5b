//! A process that `tidegate cluster` has started: how it hangs together with its launcher.
//!
//! ```text
//!  launcher ── standard input: the listening socket ──► run --launcher PID ...
//!           ◄─ standard output: Reports, a JSON object a line ─┘   │
//!           ◄─ standard error: log lines ──────────────────────────┘
//! ```
//!
//! It dies with its launcher, however that dies: an orphan would go on writing beside the next cluster. The
//! listening socket comes open, so that no port can be taken between choosing and opening it.
//!
//! Here are also the last words of every process that is started by `run`: a panic in any thread ends it, and
//! says in one line which thread and why, to whoever listens: its launcher, its peers, standard error.

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, SystemTime};
use tidegate::cluster::Parting;
use tidegate::error::{Error, Kind, Result};
use tidegate::run::Shared;

/// Between two status reports.
const STATUS: Duration = Duration::from_secs(1);

/// Longest message of a report, bytes: a line of this and a little more is written in one piece.
const MESSAGE_BYTES: usize = 2_000;

/// What a process tells its launcher.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// How far it is.
    Status(Status),
    /// Why it will end.
    Failed {
        /// The thread that has failed.
        thread: String,
        /// One line.
        message: String,
    },
    /// What it would have printed.
    Result(String),
}

/// How far a process is. The leader's counts are those of the whole cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Every epoch up to this one is committed.
    pub epoch: u64,
    /// Messages taken from inputs since its start.
    pub messages_in: u64,
    /// Messages sealed since its start.
    pub messages_out: u64,
    /// Live: how far the greatest event time taken is behind this host's clock, milliseconds.
    pub lag_ms: Option<u64>,
}

/// Where reports go: a handle without a lock of its own, for a panic may come anywhere.
static LAUNCHER: OnceLock<File> = OnceLock::new();

/// Whom the last words are for beside.
static PEERS: OnceLock<Parting> = OnceLock::new();

/// Ties this process to its launcher: reports go to standard output, and the launcher's death is its own.
pub fn tie_to(launcher: u32) -> Result<()> {
    let failed =
        |error: &dyn std::fmt::Display| Error::internal(format!("the launcher is not reached: {error}"));
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| failed(&error))?;
    // It may have died before the line above.
    let parent = getppid().map_or(0, |parent| Pid::as_raw(Some(parent)).cast_unsigned());
    if parent != launcher {
        return Err(Error::new(Kind::PeerLost, "the launcher has ended"));
    }
    let stdout = std::io::stdout().as_fd().try_clone_to_owned();
    let _ = LAUNCHER.set(File::from(stdout.map_err(|error| failed(&error))?));
    Ok(())
}

/// The listening socket that the launcher has opened.
pub fn listener() -> Result<TcpListener> {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned();
    stdin
        .map(TcpListener::from)
        .map_err(|error| Error::internal(format!("the launcher's socket is not there: {error}")))
}

/// Whether a launcher reads what is printed.
pub fn is_launched() -> bool {
    LAUNCHER.get().is_some()
}

/// Tells the launcher, if there is one.
pub fn report(report: &Report) {
    let (Some(mut launcher), Ok(mut line)) = (LAUNCHER.get(), serde_json::to_vec(report)) else {
        return;
    };
    line.push(b'\n');
    // A launcher that has ended takes this process with it.
    let _ = launcher.write_all(&line);
}

/// Reports how far the job is, every second, until the process ends.
pub fn report_status(shared: std::sync::Weak<Shared>, is_live: bool) -> Result<()> {
    if !is_launched() {
        return Ok(());
    }
    let tell = move || {
        while let Some(shared) = shared.upgrade() {
            report(&Report::Status(status(&shared, is_live)));
            drop(shared);
            thread::park_timeout(STATUS);
        }
    };
    let thread = thread::Builder::new().name("status".to_owned()).spawn(tell);
    thread
        .map(drop)
        .map_err(|error| Error::internal(format!("a thread cannot be started: {error}")))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a report may read the clock; nothing depends on it"
)]
fn status(shared: &Shared, is_live: bool) -> Status {
    let metrics = &shared.metrics;
    let event_time = metrics.event_time.load(Ordering::Relaxed);
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now_ms = clock.map_or(0, |clock| u64::try_from(clock.as_millis()).unwrap_or(0));
    let event_time_ms = u64::try_from(event_time).ok();
    Status {
        epoch: metrics.committed.load(Ordering::Relaxed),
        messages_in: metrics.messages_in.load(Ordering::Relaxed),
        messages_out: metrics
            .messages_out
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum(),
        lag_ms: event_time_ms
            .filter(|_| is_live)
            .map(|event_time_ms| now_ms.saturating_sub(event_time_ms)),
    }
}

/// The peers to whom this process says why it fails.
pub fn tell_peers(parting: &Parting) {
    let _ = PEERS.set(parting.clone()); // a process joins one cluster
}

/// Says why this process fails, to its launcher and its peers.
pub fn say_why(error: &Error) {
    report(&Report::Failed {
        thread: thread_name(),
        message: cut(&error.message),
    });
    if let Some(peers) = PEERS.get() {
        peers.failed(error);
    }
}

fn thread_name() -> String {
    thread::current().name().unwrap_or("without a name").to_owned()
}

fn cut(message: &str) -> String {
    message[..message.floor_char_boundary(MESSAGE_BYTES)].replace('\n', " ")
}

/// Says why, and ends the process at once: its workers can only wait, or do not even do that.
pub fn end(error: &Error) -> ! {
    say_why(error);
    let _ = writeln!(std::io::stderr(), "{error}"); // nobody is left to tell of a closed terminal
    std::process::exit(error.kind as i32)
}

/// From here on a panic in any thread ends the process, with one line: the other threads would wait for ever.
pub fn end_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let reason = panic.payload_as_str().unwrap_or("for no reason it could say");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = cut(&format!(
            "panicked: {reason} ({place}); this is a bug of tidegate's"
        ));
        let thread = thread_name();
        let line = format!("thread {thread} {message}");
        // Its report comes before the one that `end` makes of the same, and is the one that counts.
        report(&Report::Failed { thread, message });
        end(&Error::internal(line));
    }));
}

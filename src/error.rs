//! Errors by consequence, and the exit code each one ends the process with.
//!
//! A bad *record* is never an error: it becomes a dead letter. An [`Error`] stops the job; its kind says what
//! the person at the terminal has to do next. Display is one line that names the thing; causes are already
//! part of it.

use std::fmt;

/// What the person who started the job has to do about it. The numbers are the exit codes of `tidegate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The command line is wrong (also clap's own code).
    Usage = 2,
    /// The job file is wrong: nothing was started.
    Configuration = 3,
    /// An input is missing, shorter than it was, or was replaced.
    InputGone = 4,
    /// The state or an output is damaged, not to be read, stale or of another job.
    StateDamaged = 5,
    /// Another instance holds the job, or took it over.
    AnotherInstance = 6,
    /// A durable write failed (disk full, read-only, permission): the process stopped before anything wrong
    /// was visible.
    WriteFailed = 7,
    /// A later instance has taken the job over while this one stood still: nothing more was written by this one.
    Fenced = 8,
    /// A broker, the schema registry, the object store or another process of the cluster cannot be reached, or
    /// refuses us.
    Unreachable = 9,
    /// Another process of the cluster has ended or fallen silent, and this one with it. Never the first cause.
    PeerLost = 10,
    /// A worker makes no progress.
    Stalled = 11,
    /// A verification has found what was committed to differ from what a replay gives.
    Differs = 12,
    /// A bug of ours.
    Internal = 70,
    /// Stopped by a second Ctrl-C, without draining.
    Aborted = 130,
}

/// A failure that stops the job.
#[derive(Clone, Debug)]
pub struct Error {
    /// What to do about it.
    pub kind: Kind,
    /// One line: what, where, and the way out.
    pub message: String,
}

/// Results of everything that can stop the job.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 12] = [
        Kind::Usage,
        Kind::Configuration,
        Kind::InputGone,
        Kind::StateDamaged,
        Kind::AnotherInstance,
        Kind::WriteFailed,
        Kind::Fenced,
        Kind::Unreachable,
        Kind::PeerLost,
        Kind::Stalled,
        Kind::Internal,
        Kind::Aborted,
    ];

    /// The kind that a process ended with this exit code for.
    pub fn of_code(code: i32) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as i32 == code)
    }
}

impl Error {
    /// A failure of this kind with its one line.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error {
            kind,
            message: message.into(),
        }
    }

    /// A bug of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        Error::new(Kind::Internal, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

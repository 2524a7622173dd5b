//! Named crash points: places where a kill is most likely to hurt, hit on purpose by the kill campaigns.
//!
//! `TIDEGATE_CRASH_AT=after-data:3` makes the process kill itself with SIGKILL the third time it comes to
//! `after-data`. Nothing is flushed, no destructor runs, no handler can interfere: what is on disk then is
//! what a power-less process leaves. Without the variable a point is one atomic load.
//!
//! `TIDEGATE_FREEZE_AT` stops the process there (SIGSTOP) instead, until somebody continues it: a zombie made
//! to order, which wakes with a transaction open or a fence just passed. `TIDEGATE_HANG_AT` stops only the
//! thread that comes there, and for ever; `TIDEGATE_PANIC_AT` makes it panic, as a bug would.
//!
//! Assumes that every point in [`POINTS`] and [`TOPIC_POINTS`] has its call; a variable that names no point is
//! logged and has no effect.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The variable: `name:nth`, counted from 1; `name` alone means the first time.
pub const VARIABLE: &str = "TIDEGATE_CRASH_AT";

/// The same for a process that is to stand still there, rather than die.
pub const FREEZE_VARIABLE: &str = "TIDEGATE_FREEZE_AT";

/// The same for a thread that is to stand still there for ever, while the others go on.
pub const HANG_VARIABLE: &str = "TIDEGATE_HANG_AT";

/// The same for a thread that is to panic there.
pub const PANIC_VARIABLE: &str = "TIDEGATE_PANIC_AT";

/// Every point, in the order in which a start, an epoch and a checkpoint come to them.
pub const POINTS: &[&str] = &[
    "during-restore",  // some state shards are read, none is handed out
    "after-claim",     // the generation is claimed, nothing else is done
    "before-cut-back", // the progress record is read, the outputs may be longer
    "after-cut-back",  // the outputs have the recorded lengths
    "during-replay",   // some recorded epochs are recomputed
    "before-data",     // epochs are sealed, nothing of them is written
    "after-data",      // the outputs are on disk, the progress record is not begun
    "before-progress", // the record is encoded
    "mid-progress",    // half of the record is on disk
    "after-progress",  // the record is on disk, nobody has been told
    "before-chunk",    // a checkpoint is due, no chunk is written
    "mid-chunk",       // some of its chunks are written
    "after-chunk",     // all of them are
    "before-manifest", // the manifest is encoded
    "after-manifest",  // the checkpoint exists
    "before-collect",  // what it replaces is still there
];

/// The points of a job with outputs in Kafka that files do not have.
pub const TOPIC_POINTS: &[&str] = &[
    "after-fence",   // earlier producers are fenced, progress is not read
    "before-commit", // everything is acknowledged, the transaction is open
    "after-commit",  // it is committed, nobody has been told
];

/// The point that is armed, and how often it is still to be passed.
struct Armed {
    name: &'static str,
    remaining: AtomicU64,
}

static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| armed_by(VARIABLE));

static FREEZES: LazyLock<Option<Armed>> = LazyLock::new(|| armed_by(FREEZE_VARIABLE));

static PANICS: LazyLock<Option<Armed>> = LazyLock::new(|| armed_by(PANIC_VARIABLE));

static HANGS: LazyLock<Option<Armed>> = LazyLock::new(|| armed_by(HANG_VARIABLE));

fn armed_by(variable: &str) -> Option<Armed> {
    let text = std::env::var(variable).ok()?;
    let armed = parse(&text);
    if armed.is_none() {
        tracing::error!(
            "{variable}={text} names no crash point; known are {}",
            known().collect::<Vec<_>>().join(", ")
        );
    }
    armed.map(|(name, nth)| Armed {
        name,
        remaining: AtomicU64::new(nth),
    })
}

/// Dies or stands still here if this point is armed and its turn has come.
pub fn point(name: &'static str) {
    if reached(name) {
        die()
    }
    if FREEZES.as_ref().is_some_and(|armed| armed.is_due(name)) {
        // Returns once somebody continues the process.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
    }
    if HANGS.as_ref().is_some_and(|armed| armed.is_due(name)) {
        loop {
            std::thread::park();
        }
    }
    if PANICS.as_ref().is_some_and(|armed| armed.is_due(name)) {
        panic!("told to by {PANIC_VARIABLE}");
    }
}

impl Armed {
    fn is_due(&self, name: &str) -> bool {
        self.name == name && self.remaining.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

/// Whether this point is armed and its turn has come: for places that leave something half done before they
/// [`die`].
pub fn reached(name: &'static str) -> bool {
    debug_assert!(
        known().any(|point| point == name),
        "{name} is not among the crash points"
    );
    ARMED.as_ref().is_some_and(|armed| armed.is_due(name))
}

/// Kills the own process.
pub fn die() -> ! {
    // The signal cannot be refused; should the system deny it all the same, aborting is the next hardest
    // stop.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}

fn parse(text: &str) -> Option<(&'static str, u64)> {
    let (name, nth) = text.split_once(':').unwrap_or((text, "1"));
    let name = known().find(|point| *point == name)?;
    nth.parse().ok().filter(|nth| *nth > 0).map(|nth| (name, nth))
}

fn known() -> impl Iterator<Item = &'static str> {
    POINTS.iter().chain(TOPIC_POINTS).copied()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    #[test]
    fn variable_names_a_point_and_a_turn() {
        assert_eq!(parse("after-data:3"), Some(("after-data", 3)));
        assert_eq!(parse("before-data"), Some(("before-data", 1)));
        for wrong in ["", "nowhere:1", "after-data:0", "after-data:x", "after-data:-1"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    /// Run by the test below in a process of its own; alone it does nothing.
    #[test]
    fn child_passes_points() {
        point("before-data");
        point("after-data");
        point("after-data");
    }

    #[test]
    fn armed_point_kills_at_its_turn() {
        let run = |at: &str| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "crash::tests::child_passes_points"])
                .env(VARIABLE, at)
                .output()
                .unwrap()
                .status
                .signal()
        };
        assert_eq!(run("after-data:2"), Some(9));
        assert_eq!(run("after-data:3"), None, "the point is passed only twice");
    }
}

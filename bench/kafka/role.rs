//! The processes of a Kafka measurement: this program again, each with one job, so that CPU is counted apart.
//!
//! ```text
//!  driver ── Role as JSON, on the command line ──► child
//!         ── its standard input closes: come to an end ──►
//!         ◄── what it found, as JSON on standard output ──
//! ```
//!
//! A child also comes to an end when the driver dies, for that closes the pipe.

use super::{floor, load, reader};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a child is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Role {
    /// Sends messages.
    Load(load::Plan),
    /// Reads what is committed.
    Reader(reader::Plan),
    /// The loop without an engine.
    Floor(floor::Plan),
}

/// Plays a role; gives what it found, as JSON.
pub fn play(role: &str) -> Result<String, String> {
    let role = serde_json::from_str(role).map_err(|error| format!("no description of a role: {error}"))?;
    match role {
        Role::Load(plan) => text(&load::run(&plan)?),
        Role::Reader(plan) => text(&reader::run(&plan, until_told()?.as_ref())?),
        Role::Floor(plan) => text(&floor::run(&plan, until_told()?.as_ref())?),
    }
}

fn text<T: Serialize>(found: &T) -> Result<String, String> {
    serde_json::to_string(found).map_err(|error| error.to_string())
}

/// Becomes true when the driver wants an end.
fn until_told() -> Result<Arc<AtomicBool>, String> {
    let told = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&told);
    let wait = move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new()); // an error is an end too
        tell.store(true, Ordering::Release);
    };
    let thread = std::thread::Builder::new().name("end".to_owned()).spawn(wait);
    thread
        .map(|_| told)
        .map_err(|error| format!("a thread cannot be started: {error}"))
}

/// A child at work. Dropped, it is killed.
pub struct Player(Child);

impl Player {
    /// Starts a role.
    pub fn start(role: &Role) -> Result<Player, String> {
        let program = std::env::current_exe().map_err(|error| format!("where this program lies: {error}"))?;
        let mut command = Command::new(program);
        command.args(["kafka-role", &text(role)?]);
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = pipes.spawn();
        child
            .map(Player)
            .map_err(|error| format!("a role does not start: {error}"))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Tells it to end, waits, and gives what it found.
    pub fn end<T: DeserializeOwned>(mut self) -> Result<T, String> {
        drop(self.0.stdin.take());
        self.result()
    }

    /// Waits until it ends by itself, and gives what it found.
    pub fn result<T: DeserializeOwned>(mut self) -> Result<T, String> {
        let mut words = String::new();
        if let Some(mut pipe) = self.0.stdout.take() {
            let read = pipe.read_to_string(&mut words);
            read.map_err(|error| format!("a role's answer: {error}"))?;
        }
        let status = self.0.wait().map_err(|error| format!("a role's end: {error}"))?;
        if !status.success() {
            return Err(format!("a role failed: {status}"));
        }
        serde_json::from_str(&words).map_err(|error| format!("a role's answer: {error}"))
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended
        let _ = self.0.wait();
    }
}

//! Replays by the real program: from the source, with a log that is being written, and from the log.
//!
//! ```text
//!  generate ─► files ─► job.toml ─┬─► replay                    ┐
//!         (or produced to topics) ├─► replay --cache, the first ├─► time, peak of memory, digest of the outputs
//!                                 └─► replay --cache, again     ┘
//! ```
//!
//! The dataflow is alerts. All runs of a workload must give the same outputs to the byte, or the run fails.

use crate::broker::{Brokers, Options};
use crate::kills_run::Program;
use crate::process::{now, resident_in};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use tidegate::record::key_hash;

/// Between two looks at a process's memory; the kernel keeps the peak in between.
const LOOK: Duration = Duration::from_millis(20);

/// Where the entries lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// JSON lines in files.
    Files,
    /// JSON messages in topics of a real broker.
    Kafka,
}

/// What a replay does with a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Caching {
    /// There is none.
    Plain,
    /// It is written.
    First,
    /// It is read.
    Cached,
}

/// One replay.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Worker threads.
    pub workers: usize,
    /// What is done with a log.
    pub caching: Caching,
    /// From start to exit, seconds.
    pub seconds: f64,
    /// Greatest resident memory, bytes.
    pub peak: u64,
    /// Of all outputs.
    pub digest: u64,
}

/// Lays a workload out and replays it in every way.
pub fn measure(
    source: Source,
    seed: u64,
    accounts: u32,
    entries: u64,
    workers: usize,
) -> Result<Vec<Run>, String> {
    let program = Program::find(false)?;
    let name = format!("tidegate-bench-replay-{}", std::process::id());
    let place = Place(std::env::temp_dir().join(name));
    let _ = std::fs::remove_dir_all(&place.0);
    let failed = |error: std::io::Error| format!("{}: {error}", place.0.display());
    std::fs::create_dir_all(&place.0).map_err(failed)?;
    let day = place.0.join("day").display().to_string();
    let (seed, accounts, entries) = (seed.to_string(), accounts.to_string(), entries.to_string());
    let sizes = ["--seed", &seed, "--accounts", &accounts, "--entries", &entries];
    let others = [
        "--orders",
        "0",
        "--transactions",
        "0",
        "--events",
        "0",
        "--out",
        &day,
    ];
    let words: Vec<String> = sizes.into_iter().chain(others).map(str::to_owned).collect();
    program.generate(&words)?;
    let brokers = match source {
        Source::Files => None,
        Source::Kafka => Some(Brokers::start(&Options {
            is_bench: true,
            ..Options::default()
        })?),
    };
    let job = job_file(brokers.as_ref().map(Brokers::bootstrap));
    std::fs::write(place.0.join("job.toml"), job).map_err(failed)?;
    if brokers.is_some() {
        run(&place.0, &program, &["topics", "job.toml", "--create"])?;
        run(&place.0, &program, &["produce", "job.toml", "--all", "day"])?;
    }
    let mut runs = Vec::new();
    for workers in 1..=workers {
        for caching in [Caching::Plain, Caching::First, Caching::Cached] {
            runs.push(replay(&place.0, &program, workers, caching)?);
        }
        std::fs::remove_dir_all(place.0.join("decoded")).map_err(failed)?;
    }
    Ok(runs)
}

/// A directory of its own, removed when dropped.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Alerts, from files or topics to files.
fn job_file(brokers: Option<&str>) -> String {
    let mut text = "name = \"alerts\"\ndataflows = [\"alerts\"]\nstate = \"state\"\n".to_owned();
    if let Some(brokers) = brokers {
        text.push_str(&format!("[kafka]\nbrokers = \"{brokers}\"\n"));
    }
    for input in ["entries", "authorizations", "settings"] {
        let place = match brokers {
            Some(_) => format!("kafka = \"{input}\""),
            None => format!("file = \"day/{input}-*.jsonl\""),
        };
        text.push_str(&format!("[inputs.{input}]\n{place}\nformat = \"json\"\n"));
    }
    for output in ["email", "sms", "push", "dead_letters"] {
        text.push_str(&format!("[outputs.{output}]\nfile = \"out/{output}.jsonl\"\n"));
    }
    text
}

fn replay(place: &Path, program: &Program, workers: usize, caching: Caching) -> Result<Run, String> {
    let number = workers.to_string();
    let mut words = vec![
        "--log",
        "error",
        "replay",
        "job.toml",
        "--into",
        "replayed",
        "--workers",
        &number,
    ];
    if caching != Caching::Plain {
        words.extend(["--cache", "decoded"]);
    }
    let began = now();
    let peak = run(place, program, &words)?;
    let seconds = began.elapsed().as_secs_f64();
    let replayed = place.join("replayed");
    let digest = digest(&replayed).map_err(|error| format!("{}: {error}", replayed.display()))?;
    std::fs::remove_dir_all(&replayed).map_err(|error| format!("{}: {error}", replayed.display()))?;
    Ok(Run {
        workers,
        caching,
        seconds,
        peak,
        digest,
    })
}

/// Of the output files, by name and content.
fn digest(directory: &Path) -> std::io::Result<u64> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut digest = 0_u64;
    for path in paths {
        digest = digest.rotate_left(7) ^ key_hash(&std::fs::read(path)?);
    }
    Ok(digest)
}

/// Runs the program to its end; gives the peak of its memory, bytes.
fn run(place: &Path, program: &Program, words: &[&str]) -> Result<u64, String> {
    let mut command: Command = program.command_line();
    command
        .args(words)
        .current_dir(place)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let child = command
        .spawn()
        .map_err(|error| format!("tidegate does not start: {error}"))?;
    let (status, peak) = watched(child)?;
    match status.success() {
        true => Ok(peak),
        false => Err(format!("tidegate {}: {status}", words.join(" "))),
    }
}

fn watched(mut child: Child) -> Result<(ExitStatus, u64), String> {
    let pid = child.id();
    let (tell, ended) = channel();
    let waiter = std::thread::Builder::new().name("waiter".to_owned());
    let waiter = waiter.spawn(move || tell.send(child.wait()));
    waiter.map_err(|error| format!("no thread: {error}"))?;
    let mut peak = 0;
    loop {
        match ended.recv_timeout(LOOK) {
            Ok(Ok(status)) => return Ok((status, peak)),
            Ok(Err(error)) => return Err(format!("tidegate: {error}")),
            Err(RecvTimeoutError::Timeout) => peak = peak.max(resident_in(pid).peak),
            Err(RecvTimeoutError::Disconnected) => return Err("nobody waits for tidegate".to_owned()),
        }
    }
}

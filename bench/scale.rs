//! The same job on more workers and on more processes: `tidegate run` and `tidegate cluster` over one generated day.
//!
//! ```text
//!  generate ─► entries, tables ─► alerts on 1x1, 1x2, 2x1, 2x2 ─► records/s, p99 of an epoch, CPU
//!                                          └─► outputs: equal to the byte, or the run fails
//! ```
//!
//! From JSON lines to JSON lines, read at full speed. A shape is processes x workers of each. Time counts from the
//! start of the threads, as the program's own summary has it, so that putting a cluster together is left out. CPU is
//! the whole machine's meanwhile: on a machine with as many cores as the largest shape has workers, it says whether
//! a shape was held up by its work or by waiting.

use crate::kills_run::Program;
use crate::process::{Host, Machine, host, machine};
use crate::suite::Verdict;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tidegate::columns::aligned;
use tidegate::record::key_hash;

/// Processes, and workers of each; the first is what the others are held against.
const SHAPES: [(usize, usize); 4] = [(1, 1), (1, 2), (2, 1), (2, 2)];

/// Of shapes with two workers in all: how many times the throughput of one they must have.
const TARGETS: [((usize, usize), f64); 2] = [((1, 2), 1.6), ((2, 1), 1.4)];

/// Files of each event input: enough for every worker to have its own.
const PARTITIONS: u32 = 4;

/// What one shape gave.
#[derive(Clone, Debug, Serialize)]
struct Run {
    processes: usize,
    workers: usize,
    /// Messages read.
    records: u64,
    seconds: f64,
    records_per_second: f64,
    /// From an epoch's first message taken to its commit, milliseconds.
    epoch_p99_ms: f64,
    /// Of the whole machine, seconds.
    cpu_seconds: f64,
    stolen_seconds: f64,
    /// Times the throughput of the first shape.
    ratio: f64,
}

/// What all gave.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    host: Host,
    runs: Vec<Run>,
    verdicts: Vec<Verdict>,
}

/// A directory that goes when it is dropped.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // what cannot be removed is the system's to clear away
    }
}

/// Runs all shapes over a day of so many accounts and entries.
pub fn run(seed: u64, accounts: u32, entries: u64) -> Result<Results, String> {
    let program = Program::find(false)?;
    let place = Place(std::env::temp_dir().join(format!("tidegate-scale-{}", std::process::id())));
    let day = &place.0;
    let sizes = [
        ("--seed", seed),
        ("--accounts", u64::from(accounts)),
        ("--entries", entries),
    ];
    let more = [
        ("--orders", 1),
        ("--transactions", 1),
        ("--events", 1),
        ("--partitions", u64::from(PARTITIONS)),
    ];
    let sizes = sizes
        .iter()
        .chain(&more)
        .flat_map(|(name, size)| [(*name).to_owned(), size.to_string()]);
    let out = ["--out".to_owned(), day.display().to_string()];
    program.generate(&sizes.chain(out).collect::<Vec<_>>())?;
    let mut runs: Vec<Run> = Vec::new();
    let mut expected = None;
    for shape in SHAPES {
        let mut run = run_shape(&program, day, shape)?;
        run.ratio = runs
            .first()
            .map_or(1.0, |first| run.records_per_second / first.records_per_second);
        let outputs = outputs(&day.join(out_of(shape)))?;
        match &expected {
            None => expected = Some(outputs),
            Some(expected) if *expected == outputs => {}
            Some(_) => {
                return Err(format!(
                    "{}x{} gives other outputs than one worker",
                    shape.0, shape.1
                ));
            }
        }
        runs.push(run);
    }
    let verdict = |(shape, target): ((usize, usize), f64)| {
        let found = runs.iter().find(|run| (run.processes, run.workers) == shape)?;
        Some(Verdict {
            target: format!("{}x{} >= {target} of 1x1", shape.0, shape.1),
            found: format!("{:.2}", found.ratio),
            reached: found.ratio >= target,
        })
    };
    let verdicts = TARGETS.into_iter().filter_map(verdict).collect();
    Ok(Results {
        host: host(),
        runs,
        verdicts,
    })
}

fn out_of((processes, workers): (usize, usize)) -> String {
    format!("out-{processes}x{workers}")
}

fn run_shape(program: &Program, day: &Path, shape: (usize, usize)) -> Result<Run, String> {
    let (processes, workers) = shape;
    let job = format!("job-{processes}x{workers}.toml");
    let written = fs::write(day.join(&job), job_file(&out_of(shape)));
    written.map_err(|error| format!("{job}: {error}"))?;
    let mut command = program.command_line();
    command.args([
        "--log",
        "error",
        if processes == 1 { "run" } else { "cluster" },
        &job,
        "--json",
    ]);
    command.args(["--workers", &workers.to_string()]);
    if processes > 1 {
        command.args(["--processes", &processes.to_string()]);
    }
    let Machine { busy, steal } = machine();
    let output = command.current_dir(day).output();
    let output = output.map_err(|error| format!("tidegate does not start: {error}"))?;
    let after = machine();
    if !output.status.success() {
        return Err(format!("{job}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    // A cluster's status comes before, one object after the other.
    let printed = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>();
    let summary = printed
        .filter_map(Result::ok)
        .filter(|value| value["latency_us"].is_object())
        .last();
    let summary = summary.ok_or_else(|| format!("{job}: no summary was printed"))?;
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let (records, elapsed_ms) = (
        number(&summary["messages_in"]),
        number(&summary["elapsed_ms"]).max(1),
    );
    let seconds = elapsed_ms as f64 / 1_000.0;
    Ok(Run {
        processes,
        workers,
        records,
        seconds,
        records_per_second: records as f64 / seconds,
        epoch_p99_ms: number(&summary["latency_us"]["p99"]) as f64 / 1_000.0,
        cpu_seconds: after.busy - busy,
        stolen_seconds: after.steal - steal,
        ratio: 1.0,
    })
}

/// The alerts over the generated files, with state and outputs of its own.
fn job_file(out: &str) -> String {
    let mut text = format!("name = \"scale\"\ndataflows = [\"alerts\"]\nstate = \"state-{out}\"\n");
    for input in ["entries", "authorizations", "settings", "devices"] {
        text.push_str(&format!("\n[inputs.{input}]\nfile = \"{input}-*.jsonl\"\n"));
    }
    for output in ["email", "sms", "push", "device_push", "dead_letters"] {
        text.push_str(&format!(
            "\n[outputs.{output}]\nfile = \"{out}/{output}.jsonl\"\n"
        ));
    }
    text
}

/// By file: a hash of its content. Progress, which is hidden, is left out.
fn outputs(directory: &Path) -> Result<BTreeMap<String, u64>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
    let mut outputs = BTreeMap::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            outputs.insert(name, key_hash(&fs::read(entry.path()).map_err(failed)?));
        }
    }
    Ok(outputs)
}

impl Results {
    /// As text for people.
    pub fn text(&self) -> String {
        let Host {
            name,
            cores,
            processor,
            commit,
            date,
            ..
        } = &self.host;
        let head = [
            "shape",
            "records/s",
            "of 1x1",
            "seconds",
            "CPU s",
            "stolen s",
            "epoch p99 ms",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(self.runs.iter().map(|run| {
            vec![
                format!("{}x{}", run.processes, run.workers),
                format!("{:.0}", run.records_per_second),
                format!("{:.2}", run.ratio),
                format!("{:.1}", run.seconds),
                format!("{:.1}", run.cpu_seconds),
                format!("{:.1}", run.stolen_seconds),
                format!("{:.1}", run.epoch_p99_ms),
            ]
        }));
        let verdict = |verdict: &Verdict| {
            let reached = if verdict.reached { "reached" } else { "missed" };
            vec![verdict.target.clone(), verdict.found.clone(), reached.to_owned()]
        };
        let verdicts: Vec<_> = self.verdicts.iter().map(verdict).collect();
        format!(
            "scale: alerts, JSON lines to JSON lines, {date}, commit {commit}\n{name}: {cores} cores, {processor}\n\n\
             {}\n{}",
            aligned(&rows),
            aligned(&verdicts)
        )
    }
}

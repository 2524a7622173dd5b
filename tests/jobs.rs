//! Jobs for cases: what an [`oracle::Job`](Job) says, written down for the program, and what its runs leave.
//!
//! ```text
//!  generate --seed ──► day() ──► Job ──► lay_out() ──► job.toml, data/ ──► tidegate run ──► out/
//!                                 └────► oracle::expected() ──────────────► holds() ◄────────┘
//! ```
//!
//! One description gives both sides, so that no case can test another job than the one it means.

use crate::harness::Directory;
use crate::oracle::{Emit, Expected, Input, Job, compare, expected};
use serde_json::Value;
use std::fmt::Write as _;

/// The dataflows, in the catalogue's order, each with its inputs and its outputs.
pub const DATAFLOWS: [(&str, &[&str], &[&str]); 5] = [
    (
        "alerts",
        &["entries", "authorizations", "settings", "devices"],
        &["email", "sms", "push", "device_push"],
    ),
    ("tumbling_aggregates", &["orders"], &["aggregates"]),
    ("enriched_orders", &["orders", "payments"], &["enriched"]),
    (
        "risk_pattern",
        &["transactions"],
        &["risk_alerts", "risk_timeouts"],
    ),
    ("event_counts", &["events"], &["counts"]),
];

/// Bytes of the longest event in a generated day.
const EVENT_RECORD_BYTES: usize = 4_096;

/// All dataflows over a generated day with bad and late lines; `more`: further arguments of `generate`.
pub fn day(seed: u64, accounts: u32, more: &[&str]) -> Job {
    let directory = Directory::new();
    let (seed, accounts) = (seed.to_string(), accounts.to_string());
    let mut arguments = vec![
        "generate",
        "--seed",
        &seed,
        "--accounts",
        &accounts,
        "--partitions",
        "3",
        "--out",
        "day",
    ];
    arguments.extend(more);
    directory.tidegate(&arguments).succeeded();
    let names = [
        "entries",
        "authorizations",
        "settings",
        "devices",
        "orders",
        "payments",
        "transactions",
        "events",
    ];
    let input = |name: &'static str| {
        let is_table = ["authorizations", "settings", "devices"].contains(&name);
        let files =
            (0..if is_table { 2 } else { 3 }).map(|partition| format!("day/{name}-{partition}.jsonl"));
        let mut input = Input::new(name, files.map(|file| spoilt(&directory.read(&file))).collect());
        if name == "events" {
            input.max_record_bytes = EVENT_RECORD_BYTES;
        }
        (name, input)
    };
    Job::new(&DATAFLOWS.map(|(dataflow, ..)| dataflow), names.map(input).into())
}

/// Adds what a small day is short of: lines out of order (late where their input knows late), broken lines,
/// and lines that end with CR LF.
fn spoilt(bytes: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let mut spoilt = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        spoilt.extend_from_slice(line);
        let content = line.strip_suffix(b"\n").unwrap_or(line);
        match at % 60 {
            20 => spoilt.extend_from_slice(lines[at / 2]),
            40 => spoilt.extend([&content[..content.len() / 2], b"\n"].concat()),
            59 => spoilt.extend([content, b"\r\n"].concat()),
            _ => {}
        }
    }
    spoilt
}

/// The job of some of a job's dataflows, with the inputs they read.
pub fn subset(job: &Job, dataflows: &[&str]) -> Job {
    let mut subset = job.clone();
    subset.dataflows = dataflows.iter().map(ToString::to_string).collect();
    subset.inputs.retain(|input, _| {
        let reads = |(name, inputs, _): &(&str, &[&str], _)| {
            dataflows.contains(name) && inputs.contains(&input.as_str())
        };
        DATAFLOWS.iter().any(reads)
    });
    subset
}

/// The names of a job's outputs.
pub fn outputs(job: &Job) -> Vec<&'static str> {
    let of_job = DATAFLOWS
        .iter()
        .filter(|(name, ..)| job.dataflows.iter().any(|dataflow| dataflow == name));
    let all = of_job.flat_map(|(_, _, outputs)| outputs.iter().copied());
    all.filter(|output| *output != "device_push" || job.inputs.contains_key("devices"))
        .chain(["dead_letters"])
        .collect()
}

/// The job file; `first` goes before the sections, `last` behind them.
pub fn job_file(job: &Job, first: &str, last: &str) -> String {
    let mut text = format!(
        "name = \"case\"\ndataflows = {:?}\nstate = \"state\"\n{first}\n",
        job.dataflows
    );
    for (name, input) in &job.inputs {
        let (bound, longest) = (input.max_out_of_orderness_ms, input.max_record_bytes);
        write!(
            text,
            "[inputs.{name}]\nfile = \"data/{name}-*.jsonl\"\nmax_record_bytes = {longest}\n"
        )
        .expect("a string");
        if !["authorizations", "settings", "devices"].contains(&name.as_str()) {
            writeln!(text, "max_out_of_orderness_ms = {bound}").expect("a string");
        }
        if let Some(jump) = input.max_jump_ms {
            writeln!(text, "max_jump_ms = {jump}").expect("a string");
        }
    }
    for output in outputs(job) {
        write!(text, "[outputs.{output}]\nfile = \"out/{output}.jsonl\"\n").expect("a string");
    }
    for (dataflow, settings) in &job.settings {
        writeln!(text, "[{dataflow}]").expect("a string");
        let numbers = [
            ("size_ms", settings.size_ms),
            ("grace_ms", settings.grace_ms),
            ("within_ms", settings.within_ms),
            ("limit", settings.limit),
        ];
        for (name, number) in numbers {
            if let Some(number) = number {
                writeln!(text, "{name} = {number}").expect("a string");
            }
        }
        match settings.emit {
            Emit::Final => {}
            Emit::Changes => text.push_str("emit = \"changes\"\n"),
            Emit::Eager => text.push_str("emit = \"eager\"\n"),
        }
    }
    write!(text, "[epoch]\nreplay_tick_ms = {}\n{last}", job.replay_tick_ms).expect("a string");
    text
}

/// The file of a partition.
pub fn input_file(input: &str, partition: usize) -> String {
    format!("data/{input}-{partition:03}.jsonl")
}

/// Writes the job file and all inputs to a directory of their own.
pub fn lay_out(job: &Job, first: &str, last: &str) -> Directory {
    let directory = Directory::new();
    directory.write("job.toml", job_file(job, first, last));
    for (name, input) in &job.inputs {
        for (partition, bytes) in input.partitions.iter().enumerate() {
            directory.write(&input_file(name, partition), bytes);
        }
    }
    directory
}

/// Runs the job there to the end of its files.
#[track_caller]
pub fn run(directory: &Directory, workers: usize) {
    directory
        .tidegate(&["run", "job.toml", "--workers", &workers.to_string()])
        .succeeded();
}

/// What an output holds.
#[track_caller]
pub fn output(directory: &Directory, name: &str) -> String {
    let bytes = directory.read(&format!("out/{name}.jsonl"));
    String::from_utf8(bytes).expect("outputs are UTF-8")
}

/// What all outputs of a job hold.
#[track_caller]
pub fn all_outputs(directory: &Directory, job: &Job) -> Vec<(&'static str, String)> {
    outputs(job)
        .into_iter()
        .map(|name| (name, output(directory, name)))
        .collect()
}

/// Asserts that these outputs are what the oracle says, multisets and orders; `story` says whose they are.
#[track_caller]
pub fn hold(job: &Job, expected: &Expected, actual: &[(&str, String)], story: &str) {
    for (name, text) in actual {
        if let Err(difference) = compare::check(job, expected, name, text) {
            panic!("{story}: {difference}");
        }
    }
}

/// Lays a job out, runs it, and asserts that its outputs are what the oracle says.
#[track_caller]
pub fn check(job: &Job, workers: usize, first: &str, last: &str, story: &str) -> Vec<(&'static str, String)> {
    let directory = lay_out(job, first, last);
    run(&directory, workers);
    let actual = all_outputs(&directory, job);
    hold(job, &expected(job), &actual, story);
    actual
}

/// The lines of an output as values.
pub fn rows(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).expect("outputs are JSON lines"))
        .collect()
}

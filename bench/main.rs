//! The benchmark of Tidegate: throughput, latency, memory, flat cost, and the kill campaign.
//!
//! ```text
//!  arguments ─► suite: which cases ─► measure: each in a process of its own ─► suite: verdicts ─► report
//!                                        ├─ arrivals, workload: the generated day, decoded or as lines
//!                                        ├─ engine, bytes, open_loop: the real dataflows, fed from memory
//!                                        ├─ baseline: the same results by hand, without any engine
//!                                        ├─ flat, memory: curves
//!                                        ├─ rows: decoded rows, as the replay log has them and otherwise
//!                                        └─ replay: replays by the real program, with and without a log
//!  kills: runs of the real program, killed and compared
//!  scale: the program on more workers and more processes
//!  faults: clusters of the real program on hosts of their own, disturbed and compared
//!  kafka: the program between topics of a real broker, beside a loop without any engine
//!  broker_command ─► broker: a real Kafka cluster, up and down
//! ```
//!
//! Results go to standard output, progress to standard error. Exit codes: 0 done, whatever the figures are;
//! 1 engine and
//! hand-written loop disagree, the campaign found what it must not, or a measurement failed; 2 usage.

mod arguments;
mod arrivals;
mod baseline;
mod baseline_alerts;
mod baseline_keys;
mod baseline_orders;
mod baseline_out;
#[allow(dead_code, reason = "the tests include this file too and use the rest")]
mod broker;
mod broker_command;
mod bytes;
mod digest;
mod engine;
mod faults;
mod flat;
#[allow(dead_code, reason = "the tests include this file too and use the rest")]
mod generation;
#[allow(dead_code, reason = "the tests include this file too and use the rest")]
mod hosts;
mod kafka;
mod kills;
mod kills_day;
mod kills_kafka;
mod kills_run;
mod kills_topics;
mod latency;
mod measure;
mod memory;
mod messages;
mod open_loop;
mod process;
mod replay;
mod report;
mod rows;
mod scale;
mod suite;
mod workload;

use arguments::{Arguments, Command, FaultsArguments, KafkaArguments, KillsArguments, Scale};
use clap::Parser as _;
use std::io::Write as _;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let scale = arguments.scale.effective();
    let result = match &arguments.command {
        Some(Command::Measure { case }) => measure_here(case),
        Some(Command::Kills(kills)) => run_kills(kills, &scale, arguments.json),
        Some(Command::Scale) => run_scale(&scale, arguments.json),
        Some(Command::Faults(faults)) => run_faults(faults, &scale, arguments.json),
        Some(Command::Broker { action }) => broker_command::run(action).and_then(|text| print(&text)),
        Some(Command::Kafka(kafka)) => run_kafka(kafka, &arguments),
        Some(Command::KafkaRole { role }) => kafka::role::play(role).and_then(|text| print(&text)),
        command => run_suite(command.as_ref(), &scale, &arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error);
            ExitCode::FAILURE
        }
    }
}

/// The hidden subcommand: one measurement in this process.
fn measure_here(case: &str) -> Result<(), String> {
    let case =
        serde_json::from_str(case).map_err(|error| format!("no description of a measurement: {error}"))?;
    let outcome = serde_json::to_string(&measure::measure(case)).map_err(|error| error.to_string())?;
    print(&outcome)
}

fn run_kills(arguments: &KillsArguments, scale: &Scale, json: bool) -> Result<(), String> {
    let campaign = kills::campaign(arguments, scale.seed, &scale.workers)?;
    end_campaign(&campaign, json, campaign.text(), campaign.holds())
}

fn run_scale(scale: &Scale, json: bool) -> Result<(), String> {
    let results = scale::run(scale.seed, scale.accounts, scale.records)?;
    let text = match json {
        true => serde_json::to_string(&results).map_err(|error| error.to_string())?,
        false => results.text(),
    };
    print(&text)
}

fn run_faults(arguments: &FaultsArguments, scale: &Scale, json: bool) -> Result<(), String> {
    let campaign = faults::campaign(arguments, scale.seed)?;
    end_campaign(&campaign, json, campaign.text(), campaign.holds())
}

/// Prints what a campaign found; one that does not hold is a failure.
fn end_campaign(found: &impl serde::Serialize, json: bool, text: String, holds: bool) -> Result<(), String> {
    let text = match json {
        true => serde_json::to_string(found).map_err(|error| error.to_string())?,
        false => text,
    };
    print(&text)?;
    match holds {
        true => Ok(()),
        false => Err("the campaign does not hold".to_owned()),
    }
}

fn run_kafka(kafka: &KafkaArguments, arguments: &Arguments) -> Result<(), String> {
    let Scale {
        seed, workers, quick, ..
    } = &arguments.scale;
    let workers = workers.first().copied().unwrap_or(1);
    let mut results = kafka::run(kafka, *seed, workers, *quick)?;
    results.judge();
    let text = if arguments.json {
        serde_json::to_string(&results).map_err(|error| error.to_string())?
    } else {
        results.text()
    };
    print(&text)?;
    if arguments.save {
        let saved = results.save(&arguments.out);
        let directory = saved.map_err(|error| format!("the report cannot be saved: {error}"))?;
        say(&format!("saved in {}", directory.display()));
    }
    Ok(())
}

fn run_suite(command: Option<&Command>, scale: &Scale, arguments: &Arguments) -> Result<(), String> {
    let cases = suite::cases(command, scale);
    let mut measurements = Vec::new();
    for (number, case) in (1..).zip(&cases) {
        say(&format!("{number} of {}: {case:?}", cases.len()));
        let outcome = measure::in_child(*case)?;
        measurements.push(suite::Measurement { case: *case, outcome });
    }
    let disagreements = suite::disagreements(&measurements);
    let verdicts = suite::verdicts(&measurements);
    let words = std::env::args().skip(1).collect();
    let report = report::Report {
        host: process::host(),
        arguments: words,
        measurements,
        verdicts,
    };
    let text = if arguments.json {
        serde_json::to_string(&report).map_err(|error| error.to_string())?
    } else {
        report.text()
    };
    print(&text)?;
    if !disagreements.is_empty() {
        return Err(format!(
            "engine and hand-written loop disagree:\n{}",
            disagreements.join("\n")
        ));
    }
    if arguments.save || (command.is_none() && !arguments.scale.quick) {
        let directory = report
            .save(&arguments.out)
            .map_err(|error| format!("the report cannot be saved: {error}"))?;
        say(&format!("saved in {}", directory.display()));
    }
    Ok(())
}

/// A result, to standard output.
fn print(text: &str) -> Result<(), String> {
    writeln!(std::io::stdout(), "{}", text.trim_end()).map_err(|error| format!("standard output: {error}"))
}

/// Progress, to standard error.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}"); // nobody is left to tell of a closed terminal
}

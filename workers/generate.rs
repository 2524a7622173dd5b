//! `tidegate generate`: a day of bank traffic as JSON lines, `<out>/<input>-<partition>.jsonl`, and a job
//! file beside them that runs all five dataflows on it.
//!
//! It refuses a directory that holds anything: files of an earlier, larger day would match the patterns of
//! the new one.

use crate::arguments::{DaySize, GenerateArguments};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use tidegate::error::{Error, Kind, Result};
use tidegate_dataflows::catalogue::{DEAD_LETTERS, Dataflow, InputSpec};
use tidegate_dataflows::generator::{Day, EVENT_RECORD_BYTES, Input, Lines, for_each_line};

/// Bytes gathered per file before they are written.
const BUFFER_BYTES: usize = 1 << 20;
/// A log line tells of progress after this many lines.
const PROGRESS_LINES: u64 = 1_000_000;

/// What the generated job file names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The files beside it.
    Files,
    /// Topics, by their usual names, at the brokers that the variable `KAFKA` names.
    Topics,
}

/// Generates the day that was asked for.
pub fn generate(arguments: &GenerateArguments) -> Result<()> {
    let day = day(&arguments.size, arguments.partitions, arguments.table_partitions);
    refuse_used(&arguments.out)?;
    let place = if arguments.kafka {
        Place::Topics
    } else {
        Place::Files
    };
    let written = write_day(day, &arguments.out, place, arguments.history)?;
    let (out, job) = (arguments.out.display(), arguments.out.join("job.toml"));
    let (lines, job) = (written.lines, job.display());
    let next = match place {
        Place::Files => format!("run them with: tidegate run {job}"),
        Place::Topics => format!(
            "then: tidegate topics {job} --create; tidegate produce {job} --all {out} --send-broken; \
             tidegate run {job}"
        ),
    };
    crate::print::print(&format!(
        "{lines} lines, {} of them undecodable and {} invalid; {next}\n",
        written.undecodable, written.invalid,
    ))
}

/// The day of this size.
pub fn day(size: &DaySize, partitions: u32, table_partitions: u32) -> Day {
    let usual = Day::new(size.seed, size.accounts);
    let entries = size.entries.unwrap_or(usual.entries);
    Day {
        entries,
        changes: size.changes.unwrap_or(entries / 100),
        orders: size.orders.unwrap_or(usual.orders),
        transactions: size.transactions.unwrap_or(usual.transactions),
        events: size.events.unwrap_or(usual.events),
        partitions,
        table_partitions,
        ..usual
    }
}

fn refuse_used(out: &Path) -> Result<()> {
    match std::fs::read_dir(out).map(|mut entries| entries.next().is_some()) {
        Ok(true) => Err(Error::new(
            Kind::Usage,
            format!("{}: not empty; name another --out", out.display()),
        )),
        _ => Ok(()), // a directory that is not there yet is created; any other trouble is named then
    }
}

/// Writes all inputs of the day, and the job file, to a directory that is created when missing.
pub fn write_day(day: Day, out: &Path, place: Place, history: bool) -> Result<Lines> {
    std::fs::create_dir_all(out).map_err(|error| failed(out, &error))?;
    let mut total = Lines::default();
    for input in Input::ALL {
        let written = write_input(day, input, out)?;
        tracing::info!(input = input.name(), lines = written.lines, "generated");
        total.lines += written.lines;
        total.undecodable += written.undecodable;
        total.invalid += written.invalid;
    }
    let job = out.join("job.toml");
    std::fs::write(&job, job_text(&day, place, history)).map_err(|error| failed(&job, &error))?;
    Ok(total)
}

fn write_input(day: Day, input: Input, out: &Path) -> Result<Lines> {
    let path = |partition| out.join(format!("{}-{partition}.jsonl", input.name()));
    let mut files = Vec::new();
    for partition in 0..input.partitions(day) {
        let path = path(partition);
        let file = File::create_new(&path).map_err(|error| failed(&path, &error))?;
        files.push(BufWriter::with_capacity(BUFFER_BYTES, file));
    }
    let (mut outcome, mut lines) = (Ok(()), 0_u64);
    let written = for_each_line(day, input, |partition, line| {
        lines += 1;
        if lines.is_multiple_of(PROGRESS_LINES) {
            tracing::info!(input = input.name(), lines, "generating");
        }
        let file = &mut files[partition as usize];
        if outcome.is_ok() {
            let result = file.write_all(line).and_then(|()| file.write_all(b"\n"));
            outcome = result.map_err(|error| failed(&path(partition), &error));
        }
    });
    outcome?;
    for (partition, file) in (0..).zip(&mut files) {
        file.flush().map_err(|error| failed(&path(partition), &error))?;
    }
    Ok(written)
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::new(Kind::WriteFailed, format!("{}: {error}", path.display()))
}

/// The job file of a generated day: all dataflows, all defaults.
fn job_text(day: &Day, place: Place, history: bool) -> String {
    let dataflows: Vec<_> = Dataflow::ALL
        .map(|dataflow| format!("\"{}\"", dataflow.name()))
        .into();
    let mut text = format!(
        "# A generated day: seed {}, {} accounts. All dataflows in one pass.\n\
         name = \"bank-day\"\ndataflows = [{}]\nstate = \"state\"\n",
        day.seed,
        day.accounts,
        dataflows.join(", "),
    );
    if history {
        text.push_str("history = true # what `replay --recorded`, `replay --verify` and `whatif` need\n");
    }
    if place == Place::Topics {
        text.push_str("\n[kafka]\nbrokers = \"${KAFKA}\"\n");
    }
    let mut section = |kind: &str, name: &str, file: String, topic: &str| {
        let place = match place {
            Place::Files => format!("file = \"{file}\""),
            Place::Topics => format!("kafka = \"{topic}\""),
        };
        text.push_str(&format!("\n[{kind}.{name}]\n{place}\nformat = \"json\"\n"));
        if name == Input::Events.name() {
            text.push_str(&format!(
                "max_record_bytes = {EVENT_RECORD_BYTES} # some generated lines are longer\n"
            ));
        }
    };
    let mut inputs: Vec<InputSpec> = Vec::new();
    for spec in Dataflow::ALL.into_iter().flat_map(Dataflow::inputs) {
        if inputs.iter().all(|known| known.name != spec.name) {
            inputs.push(*spec);
        }
    }
    for input in inputs {
        let file = format!("{}-*.jsonl", input.name);
        section("inputs", input.name, file, input.topic);
    }
    let outputs = Dataflow::ALL
        .into_iter()
        .flat_map(|dataflow| dataflow.outputs(true))
        .chain([&DEAD_LETTERS]);
    for output in outputs {
        let file = format!("out/{}.jsonl", output.name);
        section("outputs", output.name, file, output.topic);
    }
    text
}

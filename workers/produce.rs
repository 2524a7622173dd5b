//! `tidegate produce`: JSON lines to topics, each line one message.
//!
//! ```text
//!  files ─► lines.rs: in order of time ─► key, value, time ─► encode ─► partition by key ─► producer
//!                                            │ no message
//!                                            └─► named; or sent as it stands (--send-broken)
//! ```
//!
//! The partition is murmur2 of the key, as the Java client has it; messages without a key take turns. The value
//! is the JSON that stands in the line, byte by byte, or its record in Avro where the job file says so; null is a
//! tombstone. The message has the line's `timestamp`, or else the time of the sending.
//!
//! Several files of an input are put in order of time, so that an input that was generated in partitions does not
//! arrive a day late partition after partition.
//!
//! The producer is idempotent and not transactional: what was sent before a failure stays sent. A line that is no
//! message is named by file and number and left out; the exit code is 4 then. Sent on demand, it has no key, in a
//! table an empty one. A message that nobody takes ends the command at once, with code 7 or 9.

mod lines;

use crate::arguments::ProduceArguments;
use crate::job::{self, Input, Job, Kafka};
use crate::print::{print, print_json};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use lines::{Lines, Source, Time};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use tidegate::error::{Error, Kind, Result};
use tidegate::format::avro::Encoder;
use tidegate::format::json;
use tidegate::format::registry::Schemas;
use tidegate::kafka::producer::{DELIVERY, Message, Producer};
use tidegate::kafka::topics::Admin;
use tidegate::kafka::{REQUEST, Settings};
use tidegate::sink::encode::murmur2;
use tidegate_dataflows::values::Values;

/// Broken lines that are named one by one; the rest is only counted.
const NAMED: u64 = 20;
/// Messages between two looks whether earlier ones were delivered.
const LOOK: u64 = 1_000;

/// A topic, and what is written to it.
struct Target {
    topic: String,
    partitions: u32,
    /// A table's topic is compacted, and takes no message without a key.
    is_table: bool,
    encoding: Encoding,
    lines: Lines,
}

/// What becomes of a value.
enum Encoding {
    /// It goes as it stands.
    Json,
    /// It goes as its record, with the schema's id.
    Avro(Values, Box<Encoder>),
}

/// What was sent.
#[derive(Debug, Default, Serialize)]
struct Summary {
    topics: Vec<TopicSummary>,
    /// Lines that were no message, sent as they stand or left out.
    broken_lines: u64,
    elapsed_ms: u64,
    messages_per_second: u64,
}

#[derive(Debug, Serialize)]
struct TopicSummary {
    topic: String,
    messages: u64,
    bytes: u64,
}

/// Sends the lines of the command line's files.
pub fn produce(arguments: &ProduceArguments) -> Result<()> {
    let (settings, mut targets) = match &arguments.brokers {
        Some(brokers) => to_topic(arguments, brokers)?,
        None => to_inputs(arguments)?,
    };
    let started = now();
    let mut sending = Sending {
        producer: Producer::without_transactions(&settings)?,
        progress: progress(),
        pace: arguments.rate.map(|rate| (started, rate)),
        send_broken: arguments.send_broken,
        sent: 0,
        broken: 0,
    };
    let mut summary = Summary::default();
    for target in &mut targets {
        let (messages, bytes) = sending.all(target)?;
        let topic = target.topic.clone();
        summary.topics.push(TopicSummary {
            topic,
            messages,
            bytes,
        });
    }
    sending.producer.delivered_within(DELIVERY + REQUEST)?;
    sending.progress.finish_and_clear();
    let elapsed = started.elapsed();
    summary.broken_lines = sending.broken;
    summary.elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    summary.messages_per_second = (sending.sent as f64 / elapsed.as_secs_f64().max(1e-3)) as u64;
    if arguments.json {
        let value = serde_json::to_value(&summary).map_err(|error| Error::internal(error.to_string()))?;
        print_json(&value)?;
    } else {
        print(&summary.text())?;
    }
    if sending.broken > 0 && !arguments.send_broken {
        let message = format!(
            "{} lines are no messages and were left out; --send-broken sends them as they stand",
            sending.broken
        );
        return Err(Error::new(Kind::InputGone, message));
    }
    Ok(())
}

/// One topic that is named, with no job about it.
fn to_topic(arguments: &ProduceArguments, brokers: &str) -> Result<(Settings, Vec<Target>)> {
    let settings = Settings {
        brokers: brokers.to_owned(),
        job: "tidegate-produce".to_owned(),
        ..Settings::default()
    };
    let target = Target {
        topic: arguments.target.clone(),
        partitions: partitions(&Admin::new(&settings)?, &arguments.target)?,
        is_table: false,
        encoding: Encoding::Json,
        lines: Lines::open(sources(&arguments.names), Time::None)?,
    };
    Ok((settings, vec![target]))
}

/// The inputs of a job: the one that is named, or all that lie in a directory.
fn to_inputs(arguments: &ProduceArguments) -> Result<(Settings, Vec<Target>)> {
    let job = Job::read(Path::new(&arguments.target))?;
    let kafka = job.cluster()?;
    let admin = Admin::new(&kafka.settings)?;
    let mut inputs = Vec::new();
    match (&arguments.all, arguments.names.split_first()) {
        (Some(directory), _) => {
            let named = job.inputs.iter().filter(|input| input.topic().is_some());
            for input in named {
                inputs.push((input, in_directory(directory, input)?));
            }
            // What is entered finds the tables as they are.
            inputs.sort_by_key(|(input, _)| !input.spec.is_table);
        }
        (None, Some((name, files))) => inputs.push((named(&job, name)?, sources(files))),
        (None, None) => {
            let message = "an input of the job is wanted, or --all DIR, or --brokers HOST:PORT";
            return Err(Error::new(Kind::Usage, message));
        }
    }
    let mut targets = Vec::new();
    for (input, sources) in inputs {
        let topic = input.topic().unwrap_or_default();
        let values = Values::of(input.spec.record);
        let time = match (input.spec.is_table, values) {
            (false, Some(values)) => Time::Event(values),
            _ => Time::Message,
        };
        targets.push(Target {
            topic: topic.to_owned(),
            partitions: partitions(&admin, topic)?,
            is_table: input.spec.is_table,
            encoding: encoding(kafka, input, topic)?,
            lines: Lines::open(sources, time)?,
        });
    }
    Ok((kafka.settings.clone(), targets))
}

fn named<'j>(job: &'j Job, name: &str) -> Result<&'j Input> {
    let found = job.inputs.iter().find(|input| input.spec.name == name);
    found.filter(|input| input.topic().is_some()).ok_or_else(|| {
        let topics = job.inputs.iter().filter(|input| input.topic().is_some());
        let names: Vec<_> = topics.map(|input| input.spec.name).collect();
        let message = format!(
            "`{name}` is none of the inputs that are topics: {}",
            names.join(", ")
        );
        Error::new(Kind::Usage, message)
    })
}

/// The files `INPUT-*.jsonl` of a directory, in bytewise order; there may be none.
fn in_directory(directory: &Path, input: &Input) -> Result<Vec<Source>> {
    let refused =
        |error: std::io::Error| Error::new(Kind::InputGone, format!("{}: {error}", directory.display()));
    let mut files = Vec::<PathBuf>::new();
    for entry in std::fs::read_dir(directory).map_err(refused)? {
        let path = entry.map_err(refused)?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let of_input = name
            .strip_prefix(input.spec.name)
            .and_then(|rest| rest.strip_prefix('-'));
        if of_input.is_some_and(|rest| rest.ends_with(".jsonl")) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files.into_iter().map(Source::File).collect())
}

fn sources(files: &[String]) -> Vec<Source> {
    match files {
        [] => vec![Source::Stdin],
        files => files.iter().map(|file| Source::File(file.into())).collect(),
    }
}

fn partitions(admin: &Admin, topic: &str) -> Result<u32> {
    match admin.partitions(topic)? {
        0 => Err(Error::new(
            Kind::Configuration,
            format!(
                "topic {topic} does not exist; `tidegate topics JOB.toml --create` creates a job's topics"
            ),
        )),
        partitions => Ok(partitions),
    }
}

/// What becomes of an input's values; the one place where that is decided.
fn encoding(kafka: &Kafka, input: &Input, topic: &str) -> Result<Encoding> {
    let (job::Format::Avro, Some(values), Some(registry)) =
        (input.format, Values::of(input.spec.record), &kafka.registry)
    else {
        return Ok(Encoding::Json);
    };
    let schemas = Schemas::start(registry)?;
    let subject = format!("{topic}-value");
    let id = match kafka.register_schemas {
        true => schemas.register(&subject, input.spec.schema)?,
        false => schemas.look_up(&subject, input.spec.schema)?,
    };
    let encoder = Encoder::new(input.spec.schema, id);
    let encoder = encoder.map_err(|error| Error::internal(format!("schema of {topic}: {error}")))?;
    Ok(Encoding::Avro(values, Box::new(encoder)))
}

/// What goes on while lines are sent.
struct Sending {
    producer: Producer,
    progress: ProgressBar,
    /// When it began, and messages a second at most.
    pace: Option<(Instant, u64)>,
    send_broken: bool,
    sent: u64,
    broken: u64,
}

impl Sending {
    /// Sends all lines of a target; gives messages and bytes.
    fn all(&mut self, target: &mut Target) -> Result<(u64, u64)> {
        let (before, mut bytes, mut encoded) = (self.sent, 0, Vec::new());
        while let Some(line) = target.lines.next_line()? {
            encoded.clear();
            let read = json::raw(line.bytes).and_then(|raw| {
                if target.is_table && raw.key.is_none() {
                    return Err("key: null, in a table".to_owned());
                }
                let value = match (raw.value, &target.encoding) {
                    (Some(value), Encoding::Avro(values, encoder)) => {
                        values.encode(value, encoder, &mut encoded)?;
                        Some(&encoded[..])
                    }
                    (value, _) => value,
                };
                Ok((raw.key, value, raw.timestamp))
            });
            let (key, value, time) = match read {
                Ok((key, value, time)) => (key, value, time),
                Err(why) => {
                    self.name_broken(&line, &why);
                    if !self.send_broken {
                        continue;
                    }
                    let key = target.is_table.then(Default::default);
                    (key, Some(line.bytes), None)
                }
            };
            let key = key.as_ref().map(|key| key.as_bytes());
            let hash = key.map_or(self.sent as u32, murmur2);
            let message = Message {
                topic: &target.topic,
                partition: (hash & 0x7fff_ffff) % target.partitions,
                key,
                value,
                headers: &[],
            };
            self.wait();
            self.producer.send_at(&message, time)?;
            bytes += (key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len)) as u64;
            self.sent += 1;
            if self.sent.is_multiple_of(LOOK) {
                self.progress.inc(LOOK);
                self.producer.delivered_so_far()?;
            }
        }
        Ok((self.sent - before, bytes))
    }

    fn name_broken(&mut self, line: &lines::Line<'_>, why: &str) {
        self.broken += 1;
        if self.broken <= NAMED {
            tracing::warn!("{}:{}: {why}", line.source, line.number);
        } else if self.broken == NAMED + 1 {
            tracing::warn!("more lines are no messages; they are only counted");
        }
    }

    /// Waits until the next message is due.
    fn wait(&self) {
        let Some((started, rate)) = self.pace else { return };
        let due = Duration::from_secs_f64(self.sent as f64 / rate as f64);
        while let Some(left) = due.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) {
            thread::park_timeout(left);
        }
    }
}

impl Summary {
    fn text(&self) -> String {
        let mut text = String::new();
        for TopicSummary {
            topic,
            messages,
            bytes,
        } in &self.topics
        {
            let (messages, bytes) = (HumanCount(*messages), indicatif::HumanBytes(*bytes));
            text.push_str(&format!("{topic}: {messages} messages, {bytes}\n"));
        }
        let seconds = self.elapsed_ms as f64 / 1_000.0;
        let rate = HumanCount(self.messages_per_second);
        text.push_str(&format!("{seconds:.1} s, {rate} messages/s\n"));
        if self.broken_lines > 0 {
            text.push_str(&format!(
                "{} lines were no messages\n",
                HumanCount(self.broken_lines)
            ));
        }
        text
    }
}

/// A line that is rewritten on a terminal; nothing elsewhere.
fn progress() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {human_pos} sent, {per_sec}") {
        bar.set_style(style);
    }
    bar
}

/// The start and the pace of the sending.
#[expect(
    clippy::disallowed_methods,
    reason = "a rate is kept by the clock; no result depends on it"
)]
fn now() -> Instant {
    Instant::now()
}

//! The topics of one round of a kill campaign: fed piece by piece, read by one who is there throughout and by one who
//! comes at the end.

use crate::kills_day::{compare, greatest_rows};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidegate::kafka::Settings;
use tidegate::kafka::consumer::{Consumer, Event};
use tidegate::kafka::producer::{Message, Producer};
use tidegate::kafka::topics::{Admin, Missing};
use tidegate::sink::progress_topic::{self, Bound};

/// The inputs in the order of the job's plan, and whether each is a table.
const INPUTS: [(&str, bool); 8] = [
    ("entries", false),
    ("authorizations", true),
    ("settings", true),
    ("devices", true),
    ("orders", false),
    ("payments", false),
    ("transactions", false),
    ("events", false),
];

const OUTPUTS: [&str; 10] = [
    "email",
    "sms",
    "push",
    "device_push",
    "aggregates",
    "enriched",
    "risk_alerts",
    "risk_timeouts",
    "counts",
    "dead_letters",
];

/// Partitions of every output.
const PARTITIONS: u32 = 3;
/// Inputs come in so many pieces, the next one when the one before is committed.
const PIECES: usize = 150;
/// Looks of a reader that is given nothing, before it gives up.
const LOOKS: usize = 300;
/// How long one of them waits.
const LOOK: Duration = Duration::from_millis(100);

/// A message of an input: key and value.
type Sent = (Option<String>, Option<Vec<u8>>);

/// A day's messages, by input, as in [`INPUTS`], and partition.
pub struct Day(Vec<Vec<Vec<Sent>>>);

/// Messages by topic of the output and by partition, in order: a JSON line each.
pub type Outputs = BTreeMap<(String, u32), Vec<Vec<u8>>>;

#[derive(Deserialize)]
struct Line<'a> {
    key: Option<String>,
    #[serde(borrow)]
    value: &'a RawValue,
}

impl Day {
    /// The day that was generated into a directory.
    pub fn read(directory: &Path) -> Result<Day, String> {
        let mut inputs = Vec::new();
        for (input, is_table) in INPUTS {
            let mut partitions = Vec::new();
            for partition in 0.. {
                let path = directory.join(format!("{input}-{partition}.jsonl"));
                if !path.exists() {
                    break;
                }
                let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                let lines = bytes.split_inclusive(|byte| *byte == b'\n');
                partitions.push(lines.map(|line| sent(line, is_table)).collect());
            }
            inputs.push(partitions);
        }
        Ok(Day(inputs))
    }
}

/// A line as a message; one that is none is the value of a message without a key. A table's topic is compacted, and
/// takes no message without.
fn sent(line: &[u8], is_table: bool) -> Sent {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let (key, value) = match serde_json::from_slice::<Line<'_>>(line) {
        Ok(Line { key, value }) if value.get() == "null" => (key, None),
        Ok(Line { key, value }) => (key, Some(value.get().as_bytes().to_vec())),
        Err(_) => (None, Some(line.to_vec())),
    };
    (key.or(is_table.then(|| "none".to_owned())), value)
}

/// A job of its own with topics of its own.
pub struct Round<'a> {
    name: String,
    directory: PathBuf,
    settings: Settings,
    day: &'a Day,
    producer: Producer,
    progress: Consumer,
    attached: Consumer,
    /// What the attached reader was given.
    given: Outputs,
    /// Pieces that are in the inputs.
    pieces: usize,
    /// By input and partition: offsets that are in the topic, and that are committed.
    there: BTreeMap<(u16, u32), u64>,
    committed: BTreeMap<(u16, u32), u64>,
}

impl<'a> Round<'a> {
    /// Creates the topics, writes the job file and the first piece.
    pub fn new(brokers: &str, above: &Path, name: &str, day: &'a Day) -> Result<Round<'a>, String> {
        let settings = Settings {
            brokers: brokers.to_owned(),
            job: "tidegate-kills".to_owned(),
            ..Settings::default()
        };
        let told = |error: tidegate::error::Error| error.to_string();
        let directory = above.join(name);
        let written = fs::create_dir_all(&directory)
            .and_then(|()| fs::write(directory.join("job.toml"), job_file(name, brokers)));
        written.map_err(|error| format!("{}: {error}", directory.display()))?;
        create(&settings, name, day).map_err(told)?;
        let progress = Consumer::new(&settings).map_err(told)?;
        progress.assign(&progress_topic::name(name), 0, 0).map_err(told)?;
        let mut round = Round {
            name: name.to_owned(),
            directory,
            day,
            producer: Producer::without_transactions(&settings).map_err(told)?,
            progress,
            attached: reader(&settings, name)?,
            settings,
            given: Outputs::new(),
            pieces: 0,
            there: BTreeMap::new(),
            committed: BTreeMap::new(),
        };
        round.feed()?;
        Ok(round)
    }

    /// Where its job file lies.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether a life will take up a checkpoint.
    pub fn has_checkpoint(&self) -> bool {
        let manifests = fs::read_dir(self.directory.join("state/manifests"));
        manifests.is_ok_and(|mut manifests| manifests.next().is_some())
    }

    /// Reads on; feeds the next piece when everything is committed; whether all pieces are.
    pub fn look(&mut self) -> Result<bool, String> {
        let committed = &mut self.committed;
        self.progress.poll(Duration::ZERO, |event| {
            if let Event::Message {
                key: Some(key),
                value: Some(value),
                ..
            } = event
                && key.starts_with(b"bindings/")
                && let Ok(bound) = serde_json::from_slice::<Bound>(value)
            {
                for share in bound.bindings.iter().flat_map(|binding| &binding.partitions) {
                    let end = committed.entry((share.input, share.partition)).or_default();
                    *end = share.end.max(*end);
                }
            }
        });
        read_on(
            &mut self.attached,
            Duration::ZERO,
            &mut self.given,
            &mut BTreeSet::new(),
        );
        let is_committed =
            |(place, end): (&(u16, u32), &u64)| self.committed.get(place).copied().unwrap_or(0) >= *end;
        if !self.there.iter().all(is_committed) {
            return Ok(false);
        }
        if self.pieces < PIECES {
            self.feed()?;
            return Ok(false);
        }
        Ok(true)
    }

    fn feed(&mut self) -> Result<(), String> {
        self.pieces += 1;
        for (index, ((input, is_table), partitions)) in (0..).zip(INPUTS.iter().zip(&self.day.0)) {
            let topic = format!("{}.in.{input}", self.name);
            for (partition, messages) in (0..).zip(partitions) {
                let wanted = if *is_table {
                    messages.len()
                } else {
                    messages.len() * self.pieces / PIECES
                };
                let there = self.there.entry((index, partition)).or_default();
                for (key, value) in &messages[*there as usize..wanted] {
                    let message = Message {
                        topic: &topic,
                        partition,
                        key: key.as_deref().map(str::as_bytes),
                        value: value.as_deref(),
                        headers: &[],
                    };
                    self.producer
                        .send(&message)
                        .map_err(|failure| format!("{failure:?}"))?;
                }
                *there = wanted as u64;
            }
        }
        self.producer
            .delivered_all()
            .map_err(|failure| format!("{failure:?}"))
    }

    /// What a reader finds who comes now; an error where the attached one was given something else, or where a
    /// transaction is open.
    pub fn read(&mut self) -> Result<Outputs, String> {
        let mut last = reader(&self.settings, &self.name)?;
        let (mut found, mut ended, mut looks) = (Outputs::new(), BTreeSet::new(), 0);
        while ended.len() < OUTPUTS.len() * PARTITIONS as usize {
            let read = read_on(&mut last, LOOK, &mut found, &mut ended);
            looks += usize::from(read == 0);
            if looks > LOOKS {
                return Err(format!("only the ends of {ended:?} were found"));
            }
        }
        let count = |outputs: &Outputs| outputs.values().map(Vec::len).sum::<usize>();
        for _ in 0..LOOKS {
            if count(&self.given) >= count(&found) {
                break;
            }
            read_on(&mut self.attached, LOOK, &mut self.given, &mut BTreeSet::new());
        }
        if self.given != found {
            return Err("the attached reader was given other messages".to_owned());
        }
        let admin = Admin::new(&self.settings).map_err(|error| error.to_string())?;
        for output in OUTPUTS {
            let topic = format!("{}.out.{output}", self.name);
            let bounds = admin
                .bounds(&topic, PARTITIONS)
                .map_err(|error| error.to_string())?;
            if bounds.iter().any(|bounds| bounds.end != bounds.high) {
                return Err(format!("{topic}: a transaction is open"));
            }
        }
        // By the name of the output: rounds are compared with each other.
        let bare = |topic: &str| topic.rsplit('.').next().unwrap_or_default().to_owned();
        Ok(found
            .into_iter()
            .map(|((topic, partition), lines)| ((bare(&topic), partition), lines))
            .collect())
    }

    /// Removes its directory. Its topics go with the broker.
    pub fn remove(&self) {
        let _ = fs::remove_dir_all(&self.directory); // the directory above goes at the end
    }
}

/// What the second outputs have that the first have not, and the other way round.
pub fn differences(expected: &Outputs, found: &Outputs) -> Vec<String> {
    let places: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let difference = |place: &&(String, u32)| {
        let of = |outputs: &Outputs| {
            let mut lines = outputs.get(*place).cloned().unwrap_or_default();
            lines.sort_unstable();
            match place.0.as_str() {
                "counts" => greatest_rows(&lines),
                _ => lines,
            }
        };
        let (missing, surplus) = compare(&of(expected), &of(found));
        (missing + surplus > 0)
            .then(|| format!("{}/{}: {missing} missing, {surplus} too many", place.0, place.1))
    };
    places.iter().filter_map(difference).collect()
}

/// A reader of all outputs from their first message on.
fn reader(settings: &Settings, name: &str) -> Result<Consumer, String> {
    let reader = Consumer::new(settings).map_err(|error| error.to_string())?;
    for output in OUTPUTS {
        for partition in 0..PARTITIONS {
            let assigned = reader.assign(&format!("{name}.out.{output}"), partition, 0);
            assigned.map_err(|error| error.to_string())?;
        }
    }
    Ok(reader)
}

/// Takes what is there, and notes the partitions that end; how many events there were.
fn read_on(
    reader: &mut Consumer,
    timeout: Duration,
    into: &mut Outputs,
    ended: &mut BTreeSet<(String, u32)>,
) -> usize {
    reader.poll(timeout, |event| match event {
        Event::Message {
            topic,
            partition,
            key,
            value,
            ..
        } => {
            let key = key.map(String::from_utf8_lossy);
            let mut line = format!("{{\"key\":{},\"value\":", serde_json::json!(key)).into_bytes();
            line.extend_from_slice(value.unwrap_or(b"null"));
            line.extend_from_slice(b"}\n");
            into.entry((topic.to_owned(), partition)).or_default().push(line);
        }
        Event::End { topic, partition } => drop(ended.insert((topic.to_owned(), partition))),
        // The reader goes on trying; who waits for it gives up.
        Event::Failed { .. } => {}
    })
}

fn create(settings: &Settings, name: &str, day: &Day) -> tidegate::error::Result<()> {
    let missing = |name: String, partitions: usize, compacted: bool| Missing {
        name,
        partitions: partitions as u32,
        replication: 1,
        compacted,
    };
    let inputs = INPUTS.iter().zip(&day.0);
    let inputs = inputs.map(|((input, is_table), partitions)| {
        missing(format!("{name}.in.{input}"), partitions.len(), *is_table)
    });
    let outputs = OUTPUTS.iter();
    let outputs = outputs.map(|output| missing(format!("{name}.out.{output}"), PARTITIONS as usize, false));
    let progress = missing(progress_topic::name(name), 1, true);
    let all: Vec<_> = inputs.chain(outputs).chain([progress]).collect();
    Admin::new(settings)?.create(&all)
}

fn job_file(name: &str, brokers: &str) -> String {
    let mut text = format!(
        "name = \"{name}\"\nstate = \"state\"\nshards = 2\n\
         dataflows = [\"alerts\", \"tumbling_aggregates\", \"enriched_orders\", \"risk_pattern\", \
         \"event_counts\"]\n\
         [kafka]\nbrokers = \"{brokers}\"\n[epoch]\ninterval_ms = 5\n[checkpoint]\ninterval_ms = 40\n"
    );
    for (input, _) in INPUTS {
        // No partition is ever idle: which messages are late must not depend on the machine.
        let _ = write!(
            text,
            "[inputs.{input}]\nkafka = \"{name}.in.{input}\"\nidle_timeout_ms = 3600000\n"
        );
    }
    for output in OUTPUTS {
        let _ = write!(text, "[outputs.{output}]\nkafka = \"{name}.out.{output}\"\n"); // cannot fail: a String
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_the_message_that_it_says() {
        let text = |value: &str| Some(value.as_bytes().to_vec());
        let key = Some("k".to_owned());
        assert_eq!(
            sent(b"{\"key\":\"k\",\"value\":{\"a\":1}}\n", false),
            (key.clone(), text("{\"a\":1}"))
        );
        assert_eq!(sent(b"{\"key\":\"k\",\"value\":null}\n", true), (key, None));
        assert_eq!(sent(b"{\"key\n", false), (None, text("{\"key")));
    }

    #[test]
    fn outputs_differ_by_partition_and_counts_by_their_last_rows() {
        let outputs = |output: &str, partition: u32, lines: &[&str]| {
            let lines = lines.iter().map(|line| format!("{line}\n").into_bytes());
            Outputs::from([((output.to_owned(), partition), lines.collect())])
        };
        let one = outputs("email", 0, &["a", "b"]);
        assert_eq!(
            differences(&one, &outputs("email", 0, &["b", "a"])),
            [] as [String; 0]
        );
        assert_eq!(
            differences(&one, &outputs("email", 0, &["a", "b", "b"])),
            ["email/0: 0 missing, 1 too many"]
        );
        assert_eq!(differences(&one, &outputs("email", 1, &["a", "b"])).len(), 2);
        let counts = |rows: &[i64]| {
            let rows: Vec<_> = rows
                .iter()
                .map(|row| format!("{{\"key\":\"k\",\"value\":{{\"count\":{row}}}}}"))
                .collect();
            outputs("counts", 0, &rows.iter().map(String::as_str).collect::<Vec<_>>())
        };
        assert_eq!(differences(&counts(&[1, 2, 3]), &counts(&[3])), [] as [String; 0]);
    }
}

//! The job file: what to run, from where, to where. Section 5 of the contract, for files and JSON.
//!
//! ```text
//!  job.toml ─► job/table.rs: keys, types, places ─► sections (here): words and ranges ─► Job, fully decided
//!                                                     └ job/files.rs: which files exist ┘
//! ```
//!
//! Reading a job is the only place that decides: a [`Job`] holds no default still to be looked up and no name
//! still to be resolved. Whatever is wrong is refused before anything starts, all of it at once, one line
//! each: `path/job.toml:LINE: key.path: what is wrong (did you mean ...?)`.
//!
//! Dataflows, inputs and outputs are in the order of the catalogue, whatever their order in the file; state
//! is found again by these positions. Paths are relative to the job file. What the contract knows and this
//! version does not have (Redis, PostgreSQL) is refused as such, not as an unknown key.

mod cluster;
mod files;
mod kafka;
mod sections;
mod table;

pub use cluster::Processes;
pub use files::{InputFile, identity, matching, would_match};
pub use kafka::Kafka;
pub use tidegate::run::From;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use table::Findings;
use tidegate::error::{Error, Kind, Result};
use tidegate::record::key_hash;
use tidegate::time::Millis;
use tidegate_dataflows::catalogue::{
    DEVICES, Dataflow, InputSpec, OutputSpec, PatternEmit, Settings, WindowEmit,
};

/// A job, decided.
#[derive(Clone, Debug)]
pub struct Job {
    /// The job file, absolute.
    pub file: PathBuf,
    /// Names state, progress and, later, transactional ids: `[a-z0-9-]+`.
    pub name: String,
    /// At least one, in the catalogue's order.
    pub dataflows: Vec<Dataflow>,
    /// Of all dataflows, chosen or not.
    pub settings: Settings,
    /// Where checkpoints and claims go.
    pub state: State,
    /// Where an input or an output is a topic.
    pub kafka: Option<Kafka>,
    /// How several processes that run it find and trust one another.
    pub processes: Processes,
    /// Output files that exist before the first start are appended to, not refused.
    pub append: bool,
    /// How many units each output commits in, > 0.
    pub shards: u32,
    /// In the catalogue's order, each once.
    pub inputs: Vec<Input>,
    /// In the catalogue's order; the dead letters are the last.
    pub outputs: Vec<Output>,
    /// Live runs: time between commits, milliseconds.
    pub epoch_interval_ms: u64,
    /// Finite runs: resolution of "as of", milliseconds of as-of time.
    pub replay_tick_ms: Millis,
    /// Time between checkpoints, milliseconds.
    pub checkpoint_interval_ms: u64,
    /// With history: event time between the checkpoints that are kept, milliseconds.
    pub history_checkpoint_ms: Option<Millis>,
}

/// Where the state lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// A directory, absolute; created when missing.
    Directory(PathBuf),
    /// An object store that is not a local directory.
    Url(String),
}

/// Encoding of an input or output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON: in a file one object per line, in a topic the value alone.
    Json,
    /// Avro with the wire header of the schema registry; topics only.
    Avro,
}

/// An input, decided.
#[derive(Clone, Debug)]
pub struct Input {
    /// What it is.
    pub spec: InputSpec,
    /// Where it is read.
    pub place: InputPlace,
    /// Its encoding.
    pub format: Format,
    /// A partition's watermark is this far behind its greatest event time, milliseconds. Tables have no use
    /// for it.
    pub max_out_of_orderness_ms: Millis,
    /// A partition that stands at its end this long is inactive, milliseconds; none: never.
    pub idle_timeout_ms: Option<u64>,
    /// An event time this far ahead of the greatest one is INVALID, milliseconds; none: however far.
    pub max_jump_ms: Option<Millis>,
    /// A longer line is UNDECODABLE, bytes.
    pub max_record_bytes: usize,
}

/// Where an input is read.
#[derive(Clone, Debug)]
pub enum InputPlace {
    /// In files.
    Files {
        /// The directory that the pattern is relative to.
        directory: PathBuf,
        /// The pattern as the job file has it.
        pattern: String,
        /// What it matched when the job was read, in bytewise order; at least one.
        files: Vec<InputFile>,
    },
    /// In a topic.
    Topic {
        /// Its name.
        name: String,
        /// Where the first start begins.
        from: From,
    },
}

/// Whether push messages are resolved to devices.
pub fn has_devices(inputs: &[Input]) -> bool {
    inputs.iter().any(|input| input.spec.name == DEVICES.name)
}

impl Input {
    /// The files it matched; none for a topic.
    pub fn files(&self) -> &[InputFile] {
        match &self.place {
            InputPlace::Files { files, .. } => files,
            InputPlace::Topic { .. } => &[],
        }
    }

    /// Its topic.
    pub fn topic(&self) -> Option<&str> {
        match &self.place {
            InputPlace::Files { .. } => None,
            InputPlace::Topic { name, .. } => Some(name),
        }
    }

    /// What the job file says: the pattern, or the topic.
    pub fn location(&self) -> &str {
        match &self.place {
            InputPlace::Files { pattern, .. } => pattern,
            InputPlace::Topic { name, .. } => name,
        }
    }
}

/// An output, decided.
#[derive(Clone, Debug)]
pub struct Output {
    /// What it is.
    pub spec: OutputSpec,
    /// Whose it is; none for the dead letters, which are the job's.
    pub dataflow: Option<Dataflow>,
    /// Where it is written.
    pub place: OutputPlace,
    /// Its encoding.
    pub format: Format,
}

/// Where an output is written.
#[derive(Clone, Debug)]
pub enum OutputPlace {
    /// In files.
    Files {
        /// The path as the job file has it.
        path: String,
        /// One file per shard, absolute. They need not exist.
        files: Vec<PathBuf>,
    },
    /// In a topic of this name.
    Topic(String),
}

impl Output {
    /// Its files, one a shard; none for a topic.
    pub fn files(&self) -> &[PathBuf] {
        match &self.place {
            OutputPlace::Files { files, .. } => files,
            OutputPlace::Topic(_) => &[],
        }
    }

    /// Its topic.
    pub fn topic(&self) -> Option<&str> {
        match &self.place {
            OutputPlace::Files { .. } => None,
            OutputPlace::Topic(name) => Some(name),
        }
    }

    /// What the job file says: the path, or the topic.
    pub fn location(&self) -> &str {
        match &self.place {
            OutputPlace::Files { path, .. } => path,
            OutputPlace::Topic(name) => name,
        }
    }
}

impl Job {
    /// Reads and decides the job file at `path`. The error has one line per finding.
    pub fn read(path: &Path) -> Result<Job> {
        let shown = path.display().to_string();
        let refused = |error: std::io::Error| Error::new(Kind::Configuration, format!("{shown}: {error}"));
        let text = std::fs::read_to_string(path).map_err(refused)?;
        let file = std::path::absolute(path).map_err(refused)?;
        Job::decide(&shown, file, &text, &|name| std::env::var(name).ok())
    }

    /// Decides a job from its text; `shown` is the file's name in findings, `file` its absolute path.
    fn decide(shown: &str, file: PathBuf, text: &str, environment: table::Environment<'_>) -> Result<Job> {
        let findings = Findings::new(shown, text, environment);
        let job = sections::job(file, findings.root());
        match findings.into_message() {
            Some(message) => Err(Error::new(Kind::Configuration, message)),
            None => Ok(job),
        }
    }

    /// Whether there may be a state: a look at it creates none.
    pub fn has_state(&self) -> bool {
        match &self.state {
            State::Directory(path) => path.exists(),
            State::Url(_) => true,
        }
    }

    /// The directory of the job file.
    pub fn directory(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new(""))
    }

    /// The settings of the chosen dataflows, as the job file writes them: key and value.
    pub fn dataflow_settings(&self) -> Vec<(String, String)> {
        let of = |dataflow: Dataflow| -> Vec<(&str, String)> {
            match dataflow {
                Dataflow::Alerts | Dataflow::EventCounts => Vec::new(),
                Dataflow::TumblingAggregates => {
                    let config = self.settings.tumbling_aggregates;
                    let emit = match config.emit {
                        WindowEmit::Final => "final",
                        WindowEmit::Changes => "changes",
                    };
                    let (size, grace) = (config.size_ms.to_string(), config.grace_ms.to_string());
                    vec![("size_ms", size), ("grace_ms", grace), ("emit", emit.to_owned())]
                }
                Dataflow::EnrichedOrders => {
                    let config = self.settings.enriched_orders;
                    vec![
                        ("within_ms", config.within_ms.to_string()),
                        ("grace_ms", config.grace_ms.to_string()),
                    ]
                }
                Dataflow::RiskPattern => {
                    let config = self.settings.risk_pattern;
                    let emit = match config.emit {
                        PatternEmit::Final => "final",
                        PatternEmit::Eager => "eager",
                    };
                    let (limit, within) = (config.limit.to_string(), config.within_ms.to_string());
                    vec![("limit", limit), ("within_ms", within), ("emit", emit.to_owned())]
                }
            }
        };
        let named = |dataflow: &Dataflow| {
            let name = dataflow.name();
            of(*dataflow)
                .into_iter()
                .map(move |(key, value)| (format!("{name}.{key}"), value))
        };
        self.dataflows.iter().flat_map(named).collect()
    }

    /// The settings with some of them changed, `dataflow.key=value` each. The error has one line per finding.
    pub fn changed(&self, changes: &[String]) -> Result<Settings> {
        let mut values: BTreeMap<String, String> = self.dataflow_settings().into_iter().collect();
        for change in changes {
            let Some((key, value)) = change.split_once('=') else {
                let message = format!("--set {change}: DATAFLOW.KEY=VALUE is wanted");
                return Err(Error::new(Kind::Usage, message));
            };
            values.insert(key.trim().to_owned(), value.trim().to_owned());
        }
        let line = |(key, value): (&String, &String)| match value.parse::<i64>() {
            Ok(number) => format!("{key} = {number}\n"),
            Err(_) => format!("{key} = {value:?}\n"),
        };
        let text: String = values.iter().map(line).collect();
        let findings = Findings::new("--set", &text, &|_| None);
        let settings = sections::changed(findings.root(), &self.dataflows);
        match findings.into_message() {
            Some(message) => Err(Error::new(Kind::Usage, message)),
            None => Ok(settings),
        }
    }

    /// Everything the results depend on, key and value, in a fixed order.
    ///
    /// Not part of it: how often a live job commits or checkpoints, how many workers it has, which files an
    /// input matches (they are recorded, with their positions), and `idle_timeout_ms`, for idle decisions are
    /// recorded with the epoch and replayed. Part of it: `replay_tick_ms`, the resolution of "as of" in
    /// finite runs.
    pub fn plan(&self) -> Vec<(String, String)> {
        let names: Vec<_> = self.dataflows.iter().map(|dataflow| dataflow.name()).collect();
        let mut plan = vec![
            ("name".to_owned(), self.name.clone()),
            ("dataflows".to_owned(), names.join(",")),
            ("shards".to_owned(), self.shards.to_string()),
            ("epoch.replay_tick_ms".to_owned(), self.replay_tick_ms.to_string()),
        ];
        plan.extend(self.dataflow_settings());
        for input in &self.inputs {
            let jump = input
                .max_jump_ms
                .map_or_else(|| "off".to_owned(), |jump| jump.to_string());
            let values = [
                ("format", input.format.name().to_owned()),
                (
                    "max_out_of_orderness_ms",
                    input.max_out_of_orderness_ms.to_string(),
                ),
                ("max_jump_ms", jump),
                ("max_record_bytes", input.max_record_bytes.to_string()),
            ];
            plan.extend(values.map(|(key, value)| (format!("inputs.{}.{key}", input.spec.name), value)));
            // Positions are offsets of this topic; those of files are recorded with their paths.
            let topic = input.topic();
            plan.extend(topic.map(|topic| (format!("inputs.{}.kafka", input.spec.name), topic.to_owned())));
        }
        for output in &self.outputs {
            let place = match &output.place {
                // `./x` is `x`
                OutputPlace::Files { path, .. } => {
                    let components = Path::new(path).components();
                    let path: PathBuf = components
                        .filter(|component| *component != Component::CurDir)
                        .collect();
                    ("file", path.display().to_string())
                }
                OutputPlace::Topic(name) => ("kafka", name.clone()),
            };
            let values = [place, ("format", output.format.name().to_owned())];
            plan.extend(values.map(|(key, value)| (format!("outputs.{}.{key}", output.spec.name), value)));
        }
        plan
    }

    /// A hash of [`Job::plan`], the same on every machine and in every release. State of another plan is not
    /// taken up.
    pub fn plan_hash(&self) -> u64 {
        let line = |(key, value): (String, String)| format!("{key} = {value:?}\n");
        key_hash(self.plan().into_iter().map(line).collect::<String>().as_bytes())
    }
}

impl Format {
    /// As job files write it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Avro => "avro",
        }
    }
}

impl State {
    /// As people write it.
    pub fn location(&self) -> String {
        match self {
            State::Directory(path) => path.display().to_string(),
            State::Url(url) => url.clone(),
        }
    }
}

#[cfg(test)]
#[path = "job/tests.rs"]
mod tests;

//! A run of a job: start, worker threads, readers, committers, checkpointer, the end.
//!
//! ```text
//!  start (claim, read, decide, restore) ──► worker threads ×N ──► committer per shard ──► outputs
//!    │                                      reader thread ×N      checkpointer ◄── changed rows
//!    │ handover                              ▲      │                                       │
//!    ▼                                 timely│      │pace, pressure                         │
//!  member (another process) ─────────► worker threads ×N ───────────────────────────────────┘
//! ```
//!
//! One process runs a job alone, or the first of several leads: then it is still the only one that touches state
//! and outputs ([`job`]), and the others are [`member`]s.
//!
//! Everything that can fail reports into [`Shared::fail`] once; the first failure is the job's. Whoever finds
//! the job failed stops; nobody commits anything after it that was not sealed before.

mod archiving;
mod committers;
mod communication;
pub mod control;
mod discover;
pub mod graph;
mod handover;
mod job;
mod kept;
mod leader;
pub mod member;
mod messages;
pub mod past;
pub mod recorded;
pub mod recover;
pub mod replay;
pub mod shards;
mod summary;
mod threads;
pub mod topics;
pub mod verifying;
pub mod what_if;
pub mod wiring;
pub mod work;

pub use job::{Started, start};
pub use summary::{Latency, Summary};

use crate::checkpoint::binding::{Binding, PartitionBinding, Positions};
use crate::checkpoint::row::StateRow;
use crate::cluster::link::Outbox;
use crate::error::{Error, Result};
use crate::format::registry::Schemas;
use crate::kafka::Settings;
use crate::limits;
use crate::metrics::Metrics;
use crate::pace::{Cutting, Pace};
use crate::sink::encode::{Encoding, Format, Route};
use crate::source::InputSettings;
use crate::source::partition::Start;
use crate::time::{Epoch, Millis};
use crate::watchdog::Watch;
use leader::Members;
use messages::post;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// One input of a plan.
#[derive(Clone, Debug)]
pub struct InputPlan {
    /// How it is read and judged.
    pub settings: InputSettings,
    /// Where it is read.
    pub place: InputPlace,
}

/// Where an input is read.
#[derive(Clone, Debug)]
pub enum InputPlace {
    /// In files.
    Files {
        /// Names of files are relative to this directory, so that a job can move as a whole.
        root: PathBuf,
        /// The names of the files that match, bytewise sorted.
        files: Vec<String>,
        /// Looks again: a followed input may get more files.
        matching: Matching,
    },
    /// In a topic.
    Topic {
        /// Its name.
        name: String,
        /// Where a first start begins. Tables begin with their first message whatever it says.
        from: From,
        /// How many partitions it has; 0 before the start has asked.
        partitions: u32,
    },
}

/// Where the first start of a job begins to read a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum From {
    /// With the first message that is there.
    #[default]
    Earliest,
    /// With the first message after the start.
    Latest,
    /// With the first message at or after this time, milliseconds since the Unix epoch.
    Time(Millis),
}

impl InputPlace {
    /// How many partitions are known before anything is read.
    pub fn partitions(&self) -> usize {
        match self {
            InputPlace::Files { files, .. } => files.len(),
            InputPlace::Topic { partitions, .. } => *partitions as usize,
        }
    }

    /// The path of one of its files, by name; empty for a topic.
    pub fn path(&self, name: &str) -> PathBuf {
        match self {
            InputPlace::Files { root, .. } => root.join(name),
            InputPlace::Topic { .. } => PathBuf::new(),
        }
    }
}

/// Gives the names of the files that match now, bytewise sorted.
#[derive(Clone)]
pub struct Matching(pub Arc<dyn Fn() -> Result<Vec<String>> + Send + Sync>);

impl std::fmt::Debug for Matching {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Matching")
    }
}

/// Builds a job's dataflows on one worker.
pub type Build = Arc<dyn for<'s> Fn(&mut wiring::Wiring<'s>) + Send + Sync>;

/// One output of a plan.
#[derive(Clone, Debug)]
pub struct OutputPlan {
    /// Name of the output in the job.
    pub name: String,
    /// Avro schema of its messages.
    pub schema: &'static str,
    /// Where it is written.
    pub place: OutputPlace,
}

/// Where an output is written.
#[derive(Clone, Debug)]
pub enum OutputPlace {
    /// In files: one in each shard.
    Files(Vec<PathBuf>),
    /// In a topic.
    Topic {
        /// Its name.
        name: String,
        /// How many partitions it has; 0 before the start has asked.
        partitions: u32,
        /// What its values are.
        format: Format,
    },
}

/// How a job uses Kafka.
#[derive(Clone)]
pub struct KafkaPlan {
    /// How to reach the cluster.
    pub settings: Settings,
    /// A transaction that stays open longer is aborted by the broker.
    pub transaction_timeout: Duration,
    /// Where an input or an output is in Avro.
    pub schemas: Option<Arc<Schemas>>,
    /// Outputs' schemas are registered; otherwise they must be there.
    pub register_schemas: bool,
}

impl std::fmt::Debug for KafkaPlan {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.settings.fmt(formatter)
    }
}

/// A job, decided: everything a run needs beside its dataflows.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name of the job.
    pub name: String,
    /// The job's directory: names of files below it are recorded relative to it.
    pub root: PathBuf,
    /// What results depend on; state of another plan is refused.
    pub plan_hash: u64,
    /// Directory or URL of the state.
    pub state: String,
    /// Output files that exist and were not written by this job are appended to, rather than refused.
    pub append: bool,
    /// Inputs, by index.
    pub inputs: Vec<InputPlan>,
    /// Outputs, by index.
    pub outputs: Vec<OutputPlan>,
    /// Output shards of each kind: so many in files, and so many in Kafka, where there are outputs of the kind.
    pub shards: u32,
    /// Where an input or an output is a topic.
    pub kafka: Option<KafkaPlan>,
    /// Another instance that is alive is fenced, rather than left alone. For Kafka.
    pub take_over: bool,
    /// Messages that retention has removed before they were read are passed over, rather than refused.
    pub accept_gap: bool,
    /// Worker threads of each process.
    pub workers: usize,
    /// Processes that run the job together; 1: this one alone.
    pub processes: usize,
    /// Which of them this one is; 0 leads.
    pub process: usize,
    /// What of history is read, where the plan is a replay's.
    pub replay: Option<replay::Replay>,
    /// Finite or live.
    pub cutting: Cutting,
    /// Time between checkpoints.
    pub checkpoint_interval: Duration,
    /// The past is kept, with a checkpoint each so many milliseconds of event time; none: what a restart needs.
    pub history: Option<Millis>,
    /// What the run is for.
    pub aim: Aim,
}

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// Its outputs.
    Outputs,
    /// A comparison with what was committed. Messages of files are encoded with their origin; nothing is written.
    Verification,
    /// The same, and a comparison with a second variant of the dataflows from an epoch on.
    WhatIf(Epoch),
}

impl Plan {
    /// Whether epochs are cut by the data and inputs end.
    pub fn is_finite(&self) -> bool {
        self.cutting == Cutting::Finite
    }

    /// Worker threads of all processes.
    pub fn peers(&self) -> usize {
        self.workers * self.processes
    }

    /// Messages an epoch takes of one partition at most: a share of [`limits::EPOCH_RECORDS`] that depends on
    /// nothing but the number of partitions, so that epochs are the same for any number of workers.
    pub fn partition_cap(&self) -> usize {
        let partitions = self
            .inputs
            .iter()
            .map(|input| input.place.partitions())
            .sum::<usize>();
        (limits::EPOCH_RECORDS / partitions.max(1)).max(1)
    }

    /// How many shards write files. They come before those that write topics.
    pub fn file_shards(&self) -> u32 {
        let is_file = |output: &OutputPlan| matches!(output.place, OutputPlace::Files(_));
        if self.outputs.iter().any(is_file) {
            self.shards
        } else {
            0
        }
    }

    /// How many shards write topics.
    pub fn topic_shards(&self) -> u32 {
        let is_topic = |output: &OutputPlan| matches!(output.place, OutputPlace::Topic { .. });
        if self.outputs.iter().any(is_topic) {
            self.shards
        } else {
            0
        }
    }

    /// Messages with their origin, values in JSON, whatever their output.
    fn with_origin(&self) -> Encoding {
        let (partitions, format) = (self.shards, Format::Json);
        Encoding::Message { partitions, format }
    }

    /// How the messages of an output are encoded to be compared with those of another variant.
    pub fn compared(&self, output: u16) -> Route {
        Route {
            output,
            first_shard: 0,
            shards: self.shards,
            encoding: self.with_origin(),
        }
    }

    /// How the messages of an output are encoded, and to which shards they go.
    pub fn route(&self, output: u16) -> Route {
        let (first_shard, encoding) = match &self.outputs[usize::from(output)].place {
            OutputPlace::Files(_) if self.aim != Aim::Outputs => (0, self.with_origin()),
            OutputPlace::Files(_) => (0, Encoding::Line),
            OutputPlace::Topic {
                partitions, format, ..
            } => {
                // Not known before the start has asked: then nothing is encoded either.
                let (partitions, format) = ((*partitions).max(1), format.clone());
                (self.file_shards(), Encoding::Message { partitions, format })
            }
        };
        Route {
            output,
            first_shard,
            shards: self.shards,
            encoding,
        }
    }
}

/// What a start found and decided: where every worker goes on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Recovered {
    /// The restored checkpoint's epoch; none for a start from nothing.
    pub checkpoint: Option<Epoch>,
    /// Its rows; in a cluster those of the own workers.
    pub rows: Vec<StateRow>,
    /// Positions and clocks at the checkpoint.
    pub positions: Positions,
    /// Recorded bindings after it, in order.
    pub recorded: Vec<Binding>,
    /// By shard: what is committed, 0 before the first.
    pub committed: Vec<Epoch>,
    /// The first new epoch.
    pub base: Epoch,
    /// Partitions that no binding has named, for the first new epoch.
    pub declarations: Vec<PartitionBinding>,
    /// By input: its partitions and where they are read on.
    pub partitions: Vec<BTreeMap<u32, Start>>,
}

impl Recovered {
    /// The first epoch that is filled: a recorded one, or the first new one.
    pub fn first_epoch(&self) -> Epoch {
        self.recorded.first().map_or(self.base, |binding| binding.epoch)
    }

    /// The positions at which earlier runs ended the epochs of a partition.
    pub fn recorded_ends(&self, input: u16, partition: u32) -> Vec<u64> {
        let shares = self.recorded.iter().flat_map(|binding| &binding.partitions);
        let mine = shares.filter(|share| (share.input, share.partition) == (input, partition));
        mine.filter(|share| share.end > share.start)
            .map(|share| share.end)
            .collect()
    }
}

/// A partition found while a live job runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FoundPartition {
    /// Index of the input.
    pub input: u16,
    /// Its number, above all before.
    pub partition: u32,
    /// Its name.
    pub name: String,
    /// The epoch whose binding names it; its messages belong to later ones. None until the first worker has
    /// said so.
    pub declared: Option<Epoch>,
}

/// What all threads of a run share.
pub struct Shared {
    /// Which epoch comes next.
    pub pace: Pace,
    /// What is counted.
    pub metrics: Metrics,
    /// That the workers make progress.
    pub watch: Watch,
    /// Live: partitions found since the start.
    pub found: Mutex<Vec<FoundPartition>>,
    /// How many those are, for a look without the lock.
    pub found_count: AtomicUsize,
    /// What if: the differences so far.
    pub differences: Mutex<what_if::Differences>,
    failure: OnceLock<Error>,
    failed: AtomicBool,
    /// Empty in a process that runs the job alone.
    others: OnceLock<Others>,
}

/// Whom a process of a cluster speaks with.
enum Others {
    /// The leader: with its members.
    Members(Members),
    /// A member: with the leader.
    Leader(Outbox),
}

impl Shared {
    /// Before anything runs.
    pub fn new(pace: Pace, metrics: Metrics) -> Self {
        Shared {
            pace,
            metrics,
            watch: Watch::default(),
            found: Mutex::default(),
            found_count: AtomicUsize::new(0),
            differences: Mutex::default(),
            failure: OnceLock::new(),
            failed: AtomicBool::new(false),
            others: OnceLock::new(),
        }
    }

    /// This process leads these members, from now on.
    fn leads(&self, members: Members) {
        let _ = self.others.set(Others::Members(members)); // it is said once
    }

    /// This process follows a leader, from now on.
    fn follows(&self, leader: Outbox) {
        let _ = self.others.set(Others::Leader(leader)); // it is said once
    }

    /// A worker of this process has taken its first message for an epoch.
    fn taken(&self, epoch: Epoch) {
        match self.others.get() {
            Some(Others::Leader(outbox)) => post(outbox, &member::counted(&self.metrics, Some(epoch))),
            Some(Others::Members(_)) | None => self.metrics.taken(epoch, now()),
        }
    }

    /// Something was sealed or committed: sources wait for it.
    fn moved_on(&self) {
        if let Some(Others::Members(members)) = self.others.get() {
            members.tell_pressure(self);
        }
    }

    /// The first worker has declared a partition.
    fn declared(&self, partition: &FoundPartition) {
        if let Some(Others::Members(members)) = self.others.get() {
            members.tell_found(partition);
        }
    }

    /// Reports a failure; the first one is the job's.
    pub fn fail(&self, error: Error) {
        if self.failure.set(error).is_ok() {
            self.failed.store(true, Ordering::Release);
        }
    }

    /// Whether the job has failed.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// The first failure.
    pub fn failure(&self) -> Option<Error> {
        self.failure.get().cloned()
    }
}

/// The one place where a run reads the monotonic clock.
#[expect(
    clippy::disallowed_methods,
    reason = "epochs are cut by time here; results never depend on it"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

//! The stage of a Kafka measurement: one broker for all runs, fresh topics for each, and who plays there.
//!
//! ```text
//!  Stage ─► broker, tables ─► Scene (one run): topics, job file ─┬─► the engine: the real program
//!                                                                └─► the floor
//!  Follower: reads a run's progress topic: how far its inputs are committed, and by which generation
//! ```
//!
//! Tables are sent once for each number of accounts and read by every run; nobody changes them.

use super::client;
use super::floor::{self, Copies};
use super::load;
use super::role::{Player, Role};
use crate::broker::{Brokers, Node, Options};
use crate::kills_run::Program;
use crate::workload::Part;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;
use tidegate::kafka::consumer::{Consumer, Event};
use tidegate::kafka::topics::{Admin, Missing};
use tidegate::run::Latency;
use tidegate::sink::progress_topic::{self as progress, Bound, Head};
use tidegate_dataflows::catalogue::DEAD_LETTERS;

/// Everything that outlives a run.
pub struct Stage {
    brokers: Brokers,
    /// Its address: values are in Avro.
    registry: Option<String>,
    program: Program,
    admin: Admin,
    directory: PathBuf,
    /// Accounts whose tables are there.
    tables: Vec<u32>,
    runs: u32,
    /// Partitions of every topic.
    pub partitions: u32,
    /// Worker threads of the engine.
    pub workers: usize,
    /// Of what is generated.
    pub seed: u64,
    /// Lines for the job file's `[kafka]` section.
    pub properties: Vec<String>,
}

/// One run's topics.
pub struct Scene {
    /// Name of the job.
    pub job: String,
    /// Each input with its topic, in the order of the plan.
    pub inputs: Vec<(&'static str, String)>,
    /// Which of them are tables.
    is_table: Vec<bool>,
    /// Topics of the outputs; the last one is for dead letters.
    pub outputs: Vec<String>,
    directory: PathBuf,
    text: String,
}

impl Stage {
    /// Starts a broker, or uses the cluster that lives in a directory.
    pub fn new(
        seed: u64,
        partitions: u32,
        workers: usize,
        properties: Vec<String>,
        is_avro: bool,
        cluster: Option<&Path>,
    ) -> Result<Stage, String> {
        let program = Program::find(false)?;
        let brokers = match cluster {
            Some(directory) => Brokers::open(directory)?.ok_or("no cluster lives there")?,
            None => Brokers::start(&Options {
                is_bench: true,
                registry: is_avro,
                ..Options::default()
            })?,
        };
        let registry = brokers.registry_url().map(str::to_owned).filter(|_| is_avro);
        if is_avro && registry.is_none() {
            return Err("that cluster has no registry: --format json, or `broker up --registry`".to_owned());
        }
        let admin =
            Admin::new(&client(brokers.bootstrap(), "admin", &[])).map_err(|error| error.to_string())?;
        let directory = std::env::temp_dir().join(format!("tidegate-bench-kafka-{}", std::process::id()));
        Ok(Stage {
            brokers,
            registry,
            program,
            admin,
            directory,
            tables: Vec::new(),
            runs: 0,
            partitions,
            workers,
            seed,
            properties,
        })
    }

    /// Where the broker answers.
    pub fn brokers(&self) -> &str {
        self.brokers.bootstrap()
    }

    /// The broker's process.
    pub fn broker_pid(&self) -> u32 {
        let nodes = self.brokers.nodes();
        let broker = nodes.iter().find(|(node, _)| *node == Node::Broker(1));
        broker.and_then(|(_, pid)| *pid).unwrap_or(0)
    }

    /// Fresh topics and a job file for a part.
    pub fn scene(&mut self, part: Part, accounts: u32, interval_ms: u64) -> Result<Scene, String> {
        self.runs += 1;
        // A broker that was there before knows the runs of other processes.
        let own = std::process::id();
        let job = format!("run-{own}-{}", self.runs);
        let mut inputs = Vec::new();
        let mut is_table = Vec::new();
        let mut outputs = Vec::new();
        for dataflow in part.dataflows() {
            for spec in dataflow.inputs().iter().filter(|spec| !spec.is_optional) {
                if inputs.iter().any(|(name, _)| *name == spec.name) {
                    continue;
                }
                let owner = if spec.is_table {
                    format!("tables-{own}-{accounts}")
                } else {
                    job.clone()
                };
                inputs.push((spec.name, format!("{owner}-{}", spec.name)));
                is_table.push(spec.is_table);
            }
            outputs.extend(dataflow.outputs(false).iter().map(|spec| spec.name));
        }
        outputs.push(DEAD_LETTERS.name);
        let text = self.job_file(part, &job, interval_ms, &inputs, &outputs);
        let scene = Scene {
            directory: self.directory.join(&job),
            outputs: outputs.iter().map(|name| format!("{job}-{name}")).collect(),
            job,
            inputs,
            is_table,
            text,
        };
        self.make_topics(&scene)?;
        if scene.is_table.contains(&true) && !self.tables.contains(&accounts) {
            let tables = scene.topics(true);
            self.load(tables, accounts, 0, 0, None)?.result::<load::Sent>()?;
            self.tables.push(accounts);
        }
        Ok(scene)
    }

    fn job_file(
        &self,
        part: Part,
        job: &str,
        interval_ms: u64,
        inputs: &[(&str, String)],
        outputs: &[&str],
    ) -> String {
        let names: Vec<_> = part.dataflows().iter().map(|dataflow| dataflow.name()).collect();
        let mut text = format!(
            "name = \"{job}\"\ndataflows = {names:?}\nstate = \"state\"\n[epoch]\ninterval_ms = {interval_ms}\n\
             [kafka]\nbrokers = \"{}\"\n",
            self.brokers()
        );
        text.extend(self.properties.iter().map(|line| format!("{line}\n")));
        let registry = self
            .registry
            .iter()
            .map(|url| format!("schema_registry = \"{url}\"\n"));
        text.extend(registry);
        let format = if self.registry.is_some() { "avro" } else { "json" };
        let section = |kind: &str, name: &str, topic: &str| {
            format!("[{kind}.{name}]\nkafka = \"{topic}\"\nformat = \"{format}\"\n")
        };
        text.extend(inputs.iter().map(|(name, topic)| section("inputs", name, topic)));
        text.extend(
            outputs
                .iter()
                .map(|name| section("outputs", name, &format!("{job}-{name}"))),
        );
        text
    }

    fn make_topics(&self, scene: &Scene) -> Result<(), String> {
        let topic = |name: &str, partitions, compacted| Missing {
            name: name.to_owned(),
            partitions,
            replication: 1,
            compacted,
        };
        let inputs = scene.inputs.iter().zip(&scene.is_table);
        let mut topics: Vec<Missing> = inputs
            .map(|((_, name), is_table)| topic(name, self.partitions, *is_table))
            .collect();
        topics.extend(
            scene
                .outputs
                .iter()
                .map(|name| topic(name, self.partitions, false)),
        );
        topics.push(topic(&progress::name(&scene.job), 1, true));
        self.admin.create(&topics).map_err(|error| error.to_string())
    }

    /// Starts to send to these topics.
    pub fn load(
        &self,
        topics: Vec<(String, String)>,
        accounts: u32,
        records: u64,
        bad_after: u64,
        schedule: Option<load::Schedule>,
    ) -> Result<Player, String> {
        Player::start(&Role::Load(load::Plan {
            brokers: self.brokers().to_owned(),
            registry: self.registry.clone(),
            topics,
            seed: self.seed,
            accounts,
            records,
            partitions: self.partitions,
            bad_after,
            schedule,
        }))
    }

    /// Starts the engine on a scene, or starts it again.
    pub fn engine(&self, scene: &Scene) -> Result<Engine, String> {
        fs::create_dir_all(&scene.directory)
            .and_then(|()| fs::write(scene.directory.join("job.toml"), &scene.text))
            .map_err(|error| format!("a job file: {error}"))?;
        let mut command = self.program.command_line();
        command.args([
            "--log",
            "warn",
            "run",
            "job.toml",
            "--json",
            "--workers",
            &self.workers.to_string(),
        ]);
        command
            .current_dir(&scene.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let child = command.spawn();
        child
            .map(Engine)
            .map_err(|error| format!("tidegate does not start: {error}"))
    }

    /// Starts the floor on a scene.
    pub fn floor(
        &self,
        scene: &Scene,
        copies: Vec<Copies>,
        interval_micros: u64,
        producers: usize,
    ) -> Result<Player, String> {
        let input = scene
            .inputs
            .first()
            .map(|(_, topic)| topic.clone())
            .unwrap_or_default();
        Player::start(&Role::Floor(floor::Plan {
            brokers: self.brokers().to_owned(),
            job: scene.job.clone(),
            input: (input, self.partitions),
            outputs: copies,
            interval_micros,
            producers,
        }))
    }

    /// What the partitions of the event inputs of a scene hold: by index of the input and partition, the end.
    pub fn ends(&self, scene: &Scene) -> Result<BTreeMap<(u16, u32), u64>, String> {
        let mut ends = BTreeMap::new();
        for ((index, (_, topic)), is_table) in (0..).zip(&scene.inputs).zip(&scene.is_table) {
            if *is_table {
                continue;
            }
            let bounds = self
                .admin
                .bounds(topic, self.partitions)
                .map_err(|error| error.to_string())?;
            ends.extend(
                (0..)
                    .zip(bounds)
                    .map(|(partition, bounds)| ((index, partition), bounds.end)),
            );
        }
        Ok(ends)
    }

    /// Follows a scene's progress.
    pub fn follow(&self, scene: &Scene) -> Result<Follower, String> {
        let consumer = Consumer::new(&client(self.brokers(), "follower", &[]));
        let consumer = consumer.map_err(|error| error.to_string())?;
        let topic = progress::name(&scene.job);
        consumer.assign(&topic, 0, 0).map_err(|error| error.to_string())?;
        Ok(Follower {
            consumer,
            ends: BTreeMap::new(),
            head: Head::default(),
        })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory); // what stays is only in the way of a person
    }
}

impl Scene {
    /// The inputs that are tables, or those that are not, each with its topic.
    pub fn topics(&self, tables: bool) -> Vec<(String, String)> {
        let inputs = self.inputs.iter().zip(&self.is_table);
        inputs
            .filter(|(_, is_table)| **is_table == tables)
            .map(|((name, topic), _)| ((*name).to_owned(), topic.clone()))
            .collect()
    }
}

/// A running engine. Dropped, it is killed.
pub struct Engine(Child);

impl Engine {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Fails if it has ended.
    pub fn check(&mut self) -> Result<(), String> {
        match self.0.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("tidegate ended: {status}")),
            Err(error) => Err(format!("tidegate: {error}")),
        }
    }
}

/// Where an epoch's time went, from its first message taken to its commit, as the engine says itself.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Spent {
    /// Until it was sealed.
    pub open_us: Latency,
    /// Until the transaction before was committed.
    pub waiting_us: Latency,
    /// Until its own was committed.
    pub transaction_us: Latency,
}

impl Engine {
    /// Tells it to commit what it has taken and to end; gives what it says.
    pub fn drained(mut self) -> Result<Spent, String> {
        let pid = i32::try_from(self.pid())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        let pid = pid.ok_or("a process without an id")?;
        rustix::process::kill_process(pid, rustix::process::Signal::INT)
            .map_err(|error| format!("tidegate cannot be told to end: {error}"))?;
        let mut words = String::new();
        if let Some(mut pipe) = self.0.stdout.take() {
            let read = pipe.read_to_string(&mut words);
            read.map_err(|error| format!("tidegate's summary: {error}"))?;
        }
        serde_json::from_str(&words).map_err(|error| format!("tidegate's summary: {error}"))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended
        let _ = self.0.wait();
    }
}

/// What a run has committed, as its progress topic says.
pub struct Follower {
    consumer: Consumer,
    /// By index of the input and partition: the end of what is committed.
    pub ends: BTreeMap<(u16, u32), u64>,
    /// The newest head.
    pub head: Head,
}

impl Follower {
    /// Waits at most so long for news and takes it in.
    pub fn look(&mut self, timeout: Duration) -> Result<(), String> {
        let (ends, newest) = (&mut self.ends, &mut self.head);
        let mut failed = None;
        self.consumer.poll(timeout, |event| match event {
            Event::Message {
                key: Some(key),
                value: Some(value),
                ..
            } => {
                if key.starts_with(b"shard/") {
                    if let Ok(head) = serde_json::from_slice(value) {
                        *newest = head;
                    }
                } else if let Ok(bound) = serde_json::from_slice::<Bound>(value) {
                    for share in bound.bindings.iter().flat_map(|binding| &binding.partitions) {
                        ends.insert((share.input, share.partition), share.end);
                    }
                }
            }
            Event::Message { .. } | Event::End { .. } => {}
            Event::Failed { failure, .. } => failed = Some(format!("the progress topic: {failure:?}")),
        });
        failed.map_or(Ok(()), Err)
    }

    /// Whether all of it is committed.
    pub fn has(&self, ends: &BTreeMap<(u16, u32), u64>) -> bool {
        self.committed(ends) == ends.values().sum::<u64>()
    }

    /// How many messages of these partitions are committed.
    pub fn committed(&self, ends: &BTreeMap<(u16, u32), u64>) -> u64 {
        let own = ends
            .iter()
            .map(|(partition, end)| self.ends.get(partition).map_or(0, |own| (*own).min(*end)));
        own.sum()
    }
}

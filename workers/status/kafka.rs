//! What the brokers add to a job's status: committed epochs of its Kafka shards, lag, open transactions, and who
//! holds the job.
//!
//! Nothing is fenced: the progress topic is read as any reader of committed messages reads it. A transaction counts
//! as open where messages lie beyond the last stable offset; whose it is, brokers tell only to clients that
//! librdkafka is not (`DescribeProducers`). Brokers that do not answer leave these facts out; the cause
//! is kept as one line.

use super::PartitionStatus;
use crate::job::{Job, Kafka};
use serde::Serialize;
use tidegate::checkpoint::claim::Claim;
use tidegate::checkpoint::progress::Log;
use tidegate::columns::aligned;
use tidegate::error::{Error, Kind, Result};
use tidegate::kafka::topics::{Admin, Bounds};
use tidegate::run::control;
use tidegate::sink::progress_topic;
use tidegate::time::Epoch;

/// What is known from the brokers, and from whoever holds the job.
#[derive(Debug, Default, Serialize)]
pub struct KafkaStatus {
    /// Why the brokers could not be asked, in one line.
    pub unreachable: Option<String>,
    /// Who started last; none before the first start.
    pub holder: Option<Holder>,
    /// By Kafka shard: the committed epoch.
    pub shards: Vec<ShardStatus>,
    /// By topic and partition that the job writes.
    pub outputs: Vec<WrittenPartition>,
}

/// Who claimed the job last.
#[derive(Debug, Serialize)]
pub struct Holder {
    generation: u64,
    pid: u32,
    /// Where it answers, `host:port`, on its own machine.
    control: Option<String>,
    /// Whether it answers now; none where it listens nowhere, as a job does that writes only files.
    alive: Option<bool>,
    /// When it started, UTC.
    started: String,
}

/// What a Kafka shard has committed.
#[derive(Debug, Serialize)]
pub struct ShardStatus {
    shard: usize,
    committed_epoch: Epoch,
    /// The generation that committed it.
    generation: u64,
}

/// A partition that the job writes.
#[derive(Debug, Serialize)]
pub struct WrittenPartition {
    output: String,
    topic: String,
    partition: u32,
    /// The last stable offset: readers of what is committed stand here at the end.
    end: u64,
    /// Offsets beyond it: of an open transaction.
    last_stable_offset_lag: u64,
    /// Whether a transaction is open.
    open_transaction: bool,
}

/// What the brokers said.
#[derive(Default)]
pub struct Observed {
    /// For the report.
    pub status: KafkaStatus,
    /// By Kafka shard.
    pub logs: Vec<Log>,
    /// By input that is a topic: its name in the job, and its partitions.
    inputs: Vec<(String, Vec<Bounds>)>,
}

/// Asks the brokers. What was learnt before one failed to answer is kept.
pub fn observe(job: &Job, kafka: &Kafka) -> Observed {
    let mut observed = Observed::default();
    if let Err(error) = ask(job, kafka, &mut observed) {
        observed.status.unreachable = Some(error.message);
    }
    observed
}

fn ask(job: &Job, kafka: &Kafka, observed: &mut Observed) -> Result<()> {
    let admin = Admin::new(&kafka.settings)?;
    let bounds = |topic: &str| admin.bounds(topic, admin.partitions(topic)?);
    let outputs = || {
        job.outputs
            .iter()
            .filter_map(|output| Some((output, output.topic()?)))
    };
    let progress = progress_topic::name(&job.name);
    if outputs().next().is_some() && admin.partitions(&progress)? > 0 {
        let values = progress_topic::read(&kafka.settings, &admin, &progress)?;
        for shard in 0..job.shards as usize {
            let log = progress_topic::log(&values, shard)
                .map_err(|damage| Error::new(Kind::StateDamaged, format!("{progress}: {}", damage.reason)))?;
            if let Some(last) = log.records.last() {
                observed.status.shards.push(ShardStatus {
                    shard,
                    committed_epoch: last.upper,
                    generation: last.generation,
                });
            }
            observed.logs.push(log);
        }
    }
    for (output, topic) in outputs() {
        let written = (0..)
            .zip(bounds(topic)?)
            .map(|(partition, bounds)| WrittenPartition {
                output: output.spec.name.to_owned(),
                topic: topic.to_owned(),
                partition,
                end: bounds.end,
                last_stable_offset_lag: bounds.high - bounds.end,
                open_transaction: bounds.high > bounds.end,
            });
        observed.status.outputs.extend(written);
    }
    for input in &job.inputs {
        if let Some(topic) = input.topic() {
            let name = input.spec.name.to_owned();
            observed.inputs.push((name, bounds(topic)?));
        }
    }
    Ok(())
}

impl Observed {
    /// Says of the inputs' partitions where they end.
    pub fn add_lag(&self, inputs: &mut [PartitionStatus]) {
        for input in inputs {
            let of = self.inputs.iter().find(|(name, _)| *name == input.input);
            let bounds = of.and_then(|(_, bounds)| bounds.get(input.partition as usize));
            input.end = bounds.map(|bounds| bounds.end);
            input.lag = input.end.map(|end| end.saturating_sub(input.committed_offset));
        }
    }
}

/// Who made a claim, and whether it answers.
pub fn holder(claim: &Claim) -> Holder {
    let answers = |address: &String| control::is_alive(address, claim.nonce);
    Holder {
        generation: claim.generation,
        pid: claim.pid,
        control: claim.control.clone(),
        alive: claim.control.as_ref().map(answers),
        started: claim.started.clone(),
    }
}

impl KafkaStatus {
    /// As aligned tables.
    pub fn table(&self) -> String {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let mut shards = vec![words(&["kafka shard", "committed epoch", "generation"])];
        shards.extend(self.shards.iter().map(|shard| {
            let numbers = [shard.shard as u64, shard.committed_epoch, shard.generation];
            numbers.map(|number| number.to_string()).to_vec()
        }));
        let head = ["output", "topic", "partition", "end", "unstable", "transaction"];
        let mut outputs = vec![words(&head)];
        outputs.extend(self.outputs.iter().map(|written| {
            let open = if written.open_transaction { "open" } else { "" };
            vec![
                written.output.clone(),
                written.topic.clone(),
                written.partition.to_string(),
                written.end.to_string(),
                written.last_stable_offset_lag.to_string(),
                open.to_owned(),
            ]
        }));
        let holder = match &self.holder {
            None => "never started\n".to_owned(),
            Some(holder) => {
                let state = match holder.alive {
                    Some(true) => "alive",
                    Some(false) => "does not answer",
                    None => "not known whether alive",
                };
                let address = holder.control.as_deref().unwrap_or("no address");
                let (generation, pid, started) = (holder.generation, holder.pid, &holder.started);
                format!(
                    "held by process {pid} ({address}), generation {generation}, since {started}: {state}\n"
                )
            }
        };
        match &self.unreachable {
            None => [aligned(&shards), aligned(&outputs), holder].join("\n"),
            Some(_) => format!("{holder}brokers: not reached\n"),
        }
    }
}

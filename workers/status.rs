//! `tidegate status`: how far a job has come, from its state and its progress, in files or in a topic. It takes no
//! lock and fences nobody, so it may look at a job that runs; what it prints was committed at some moment while
//! it looked.
//!
//! ```text
//!  claims, manifests ──► generation, checkpoints, positions ─┐
//!  progress logs ──────► committed epochs, bindings ─────────┼─► Status ─► table | JSON
//!  progress topic, ends of partitions, control socket ───────┘
//!     (status/kafka.rs; unreachable: what the state says, and the cause)
//! ```

mod kafka;

use crate::arguments::StatusArguments;
use crate::job::Job;
use crate::plan;
use crate::print::{print, print_json};
use indicatif::HumanBytes;
use kafka::KafkaStatus;
use serde::Serialize;
use std::fs;
use tidegate::checkpoint::binding::Positions;
use tidegate::checkpoint::progress::{self, Log};
use tidegate::checkpoint::{claim, manifest, store};
use tidegate::columns::aligned;
use tidegate::error::{Error, Kind, Result};
use tidegate::sink::files::Shard;
use tidegate::time::{AFTER_ALL, BEFORE_ALL, Epoch, Millis};

/// What is known of a job.
#[derive(Debug, Serialize)]
struct Status {
    job: String,
    generation: u64,
    outputs: Vec<OutputStatus>,
    inputs: Vec<PartitionStatus>,
    checkpoints: Vec<CheckpointStatus>,
    /// Where an input or output is a topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    kafka: Option<KafkaStatus>,
}

#[derive(Debug, Serialize)]
struct OutputStatus {
    output: String,
    shard: usize,
    committed_epoch: Epoch,
    committed_bytes: u64,
    file: String,
}

#[derive(Debug, Serialize)]
struct PartitionStatus {
    input: String,
    partition: u32,
    committed_offset: u64,
    /// None before the first record.
    watermark: Option<Millis>,
    idle: bool,
    ended: bool,
    /// The file, or the topic.
    file: String,
    /// Of a topic: where a reader of what is committed stands at its end; none while the brokers do not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<u64>,
    /// Of a topic: offsets between the two. Markers of transactions count, so it may be above 0 with all read.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag: Option<u64>,
}

#[derive(Debug, Serialize)]
struct CheckpointStatus {
    number: u64,
    epoch: Epoch,
    generation: u64,
    bytes: u64,
    rows: u64,
}

/// Prints the status of the job.
pub fn status(arguments: &StatusArguments) -> Result<()> {
    let job = Job::read(&arguments.job)?;
    let status = look(&job)?;
    if arguments.json {
        let value = serde_json::to_value(&status).map_err(|error| Error::internal(error.to_string()))?;
        print_json(&value)?;
    } else {
        print(&table(&status))?;
    }
    let unreachable = status.kafka.and_then(|kafka| kafka.unreachable);
    match unreachable {
        Some(cause) => Err(Error::new(Kind::Unreachable, cause)),
        None => Ok(()),
    }
}

fn look(job: &Job) -> Result<Status> {
    let mut status = Status {
        job: job.name.clone(),
        generation: 0,
        outputs: Vec::new(),
        inputs: Vec::new(),
        checkpoints: Vec::new(),
        kafka: None,
    };
    let mut claim = None;
    let mut positions = Positions::new(job.inputs.iter().map(|input| input.max_out_of_orderness_ms));
    let mut folded = 0;
    if job.has_state() {
        let store = store::open(&job.state.location())?;
        if let Some((generation, last)) = claim::all(store.as_ref())?.pop() {
            (status.generation, claim) = (generation, last);
        }
        for (number, manifest) in manifest::all(store.as_ref())? {
            // A damaged one is the next start's to judge; here it is only not shown.
            let Ok(manifest) = manifest else { continue };
            let rows = manifest.shards.iter().flatten().map(|chunk| chunk.rows).sum();
            let (epoch, generation, bytes) = (manifest.epoch, manifest.generation, manifest.bytes());
            status.checkpoints.push(CheckpointStatus {
                number,
                epoch,
                generation,
                bytes,
                rows,
            });
            (positions, folded) = (manifest.positions, epoch);
        }
    }
    let shards: Vec<_> = (0..job.shards as usize)
        .filter_map(|shard| plan::file_shard(job, shard))
        .collect();
    let logs = shards.iter().map(read_log).collect::<Result<Vec<_>>>()?;
    let mut observed = job.kafka.as_ref().map(|kafka| kafka::observe(job, kafka));
    let topic_logs = observed.as_ref().map_or(&[][..], |observed| &observed.logs[..]);
    let mut bindings: Vec<_> = logs
        .iter()
        .chain(topic_logs)
        .flat_map(Log::bindings)
        .filter(|binding| binding.epoch > folded)
        .collect();
    bindings.sort_by_key(|binding| binding.epoch);
    bindings.dedup_by_key(|binding| binding.epoch);
    bindings.into_iter().for_each(|binding| positions.apply(binding));
    for (shard, log) in logs.iter().enumerate() {
        let last = log.records.last();
        for output in &job.outputs {
            let Some(file) = output.files().get(shard) else {
                continue;
            };
            let name = shards[shard].name(file);
            let recorded = last.and_then(|last| last.lengths.get(&name));
            status.outputs.push(OutputStatus {
                output: output.spec.name.to_owned(),
                shard,
                committed_epoch: last.map_or(0, |last| last.upper),
                committed_bytes: recorded.copied().unwrap_or(0),
                file: file.display().to_string(),
            });
        }
    }
    status.inputs = partitions(job, &positions);
    if let Some(observed) = &mut observed {
        observed.add_lag(&mut status.inputs);
    }
    status.kafka = observed.map(|observed| KafkaStatus {
        holder: claim.as_ref().map(kafka::holder),
        ..observed.status
    });
    Ok(status)
}

fn read_log(shard: &Shard) -> Result<Log> {
    let path = shard.log_path();
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Log::default()),
        read => {
            read.map_err(|error| Error::new(Kind::StateDamaged, format!("{}: {error}", path.display())))?
        }
    };
    let damaged = |damage: progress::Damage| {
        let message = format!(
            "{} is damaged at byte {}: {}",
            path.display(),
            damage.offset,
            damage.reason
        );
        Error::new(Kind::StateDamaged, message)
    };
    progress::read(&bytes).map_err(damaged)
}

fn partitions(job: &Job, positions: &Positions) -> Vec<PartitionStatus> {
    let mut partitions = Vec::new();
    for (index, input) in job.inputs.iter().enumerate() {
        for (partition, position) in &positions.partitions[index] {
            let clock = positions.clocks[index]
                .partitions
                .get(partition)
                .cloned()
                .unwrap_or_default();
            let watermark = clock.watermark(input.max_out_of_orderness_ms);
            partitions.push(PartitionStatus {
                input: input.spec.name.to_owned(),
                partition: *partition,
                committed_offset: position.offset,
                watermark: (watermark != BEFORE_ALL && !input.spec.is_table).then_some(watermark),
                idle: clock.idle,
                ended: clock.ended,
                file: position.path.clone().unwrap_or_default(),
                end: None,
                lag: None,
            });
        }
    }
    partitions
}

fn table(status: &Status) -> String {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let mut outputs = vec![words(&[
        "output",
        "shard",
        "committed epoch",
        "committed bytes",
        "file",
    ])];
    outputs.extend(status.outputs.iter().map(|output| {
        let (shard, epoch) = (output.shard.to_string(), output.committed_epoch.to_string());
        vec![
            output.output.clone(),
            shard,
            epoch,
            output.committed_bytes.to_string(),
            output.file.clone(),
        ]
    }));
    let mut inputs = vec![words(&[
        "input",
        "partition",
        "committed offset",
        "watermark",
        "",
        "file",
        if status.kafka.is_some() { "end" } else { "" },
        if status.kafka.is_some() { "lag" } else { "" },
    ])];
    inputs.extend(status.inputs.iter().map(|input| {
        let watermark = match input.watermark {
            None => "-".to_owned(),
            Some(AFTER_ALL) => "end".to_owned(),
            Some(watermark) => watermark.to_string(),
        };
        let state = if input.ended {
            "ended"
        } else if input.idle {
            "idle"
        } else {
            ""
        };
        let (partition, offset) = (input.partition.to_string(), input.committed_offset.to_string());
        let number = |number: Option<u64>| number.map_or(String::new(), |number| number.to_string());
        vec![
            input.input.clone(),
            partition,
            offset,
            watermark,
            state.to_owned(),
            input.file.clone(),
            number(input.end),
            number(input.lag),
        ]
    }));
    let mut checkpoints = vec![words(&["checkpoint", "epoch", "generation", "size", "rows"])];
    checkpoints.extend(status.checkpoints.iter().map(|checkpoint| {
        let (number, epoch) = (checkpoint.number.to_string(), checkpoint.epoch.to_string());
        let size = HumanBytes(checkpoint.bytes).to_string();
        vec![
            number,
            epoch,
            checkpoint.generation.to_string(),
            size,
            checkpoint.rows.to_string(),
        ]
    }));
    let mut tables = vec![aligned(&inputs), aligned(&checkpoints)];
    if !status.outputs.is_empty() || status.kafka.is_none() {
        tables.insert(0, aligned(&outputs));
    }
    tables.extend(status.kafka.as_ref().map(KafkaStatus::table));
    let tables = tables.join("\n");
    format!("job {}, generation {}\n\n{tables}", status.job, status.generation)
}

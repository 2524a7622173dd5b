//! A replay: the job's dataflows as a finite run over a part of history, with outputs and a state of its own.
//!
//! ```text
//!  job's plan ─► replay's plan: span, finite, own name, state and outputs
//!                   │
//!                   └─► prepare: record there? ─ this replay's: go on
//!                          │        └ another's: refused
//!                          └ none: nothing may lie where the outputs go ─► ranges of topics ─► record ─► topics
//! ```
//!
//! The engine is the same one, so what it promises of a run (exactly once, whatever is killed) holds here. What
//! differs is told by the plan: each file input has a [`Span`], each topic of events a range of offsets, and the
//! name, the state and the outputs are the replay's own, so that its claims, ids and progress never meet the
//! live job's.
//!
//! **The record** (`replay` in its state) says which replay lies there, and which offsets it reads: decided at
//! the first start, so that a later start reads the same, however the topics have grown. It is written before
//! any topic is created and any output is touched: what exists without it belongs to somebody else, and is
//! refused.

use super::topics::Observed;
use super::{InputPlace, InputPlan, OutputPlace, Plan};
use crate::checkpoint::store::{self, Published, Store};
use crate::error::{Error, Kind, Result};
use crate::kafka::topics::{Admin, Bounds, Missing};
use crate::replay_log::Source;
use crate::sink::progress_topic;
use crate::source::cache::Cache;
use crate::source::span::Span;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

/// What makes a plan a replay's.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    /// The part of history.
    pub span: Span,
    /// By topic of events and partition: offsets to read, instead of a time. Of a topic that is named here only
    /// the named partitions are read.
    pub offsets: BTreeMap<(String, u32), Range<u64>>,
    /// The job's own topics, by the replay's topic that stands for each.
    pub stands_for: BTreeMap<String, String>,
    /// Directory of the replay log, where decoded messages are kept for the next replay.
    pub cache: Option<PathBuf>,
}

/// Name of the record in the state.
const RECORD: &str = "replay";

/// First offset and the one behind the last, by input's topic and partition.
type Ranges = BTreeMap<String, Vec<(u64, u64)>>;

/// Which replay lies there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    span: Span,
    plan_hash: u64,
    ranges: Ranges,
}

/// Finds or makes the record, and what must be there before the start looks at anything: the output topics.
/// Gives the ranges of the input topics; of a plan that is no replay's, none.
pub fn prepare(plan: &Plan, store: &dyn Store) -> Result<Ranges> {
    let Some(replay) = &plan.replay else {
        return Ok(Ranges::new());
    };
    let admin = plan.kafka.as_ref().map(|kafka| Admin::new(&kafka.settings));
    let admin = admin.transpose()?;
    let record = match store::fetch(store, RECORD)? {
        Some(bytes) => known(plan, &bytes)?,
        None => {
            refuse_foreign(plan, store, admin.as_ref())?;
            let record = Record {
                span: replay.span,
                plan_hash: plan.plan_hash,
                ranges: ranges(plan, replay, admin.as_ref())?,
            };
            let bytes =
                serde_json::to_vec(&record).map_err(|error| Error::internal(format!("{RECORD}: {error}")))?;
            if store::publish(store, RECORD, &bytes)? == Published::Theirs {
                let message = format!("{}: another replay has just begun here", plan.state);
                return Err(Error::new(Kind::AnotherInstance, message));
            }
            record
        }
    };
    if let Some(admin) = &admin {
        create_topics(plan, replay, admin)?;
    }
    Ok(record.ranges)
}

/// Puts the ranges of the record where the plan's topics were found to have others.
pub fn cut(plan: &mut Plan, observed: &mut Observed, ranges: &Ranges) {
    for (index, input) in plan.inputs.iter_mut().enumerate() {
        if let InputPlace::Topic { name, partitions, .. } = &mut input.place
            && let Some(ranges) = ranges.get(name)
        {
            *partitions = u32::try_from(ranges.len()).unwrap_or(u32::MAX);
            observed.cut(index, ranges);
        }
    }
}

/// Where the plan is a replay's with a log: says so to the inputs, with what their topics are known by.
pub fn log(plan: &mut Plan, observed: &Observed) {
    if plan.replay.as_ref().is_some_and(|replay| replay.cache.is_some()) {
        for (index, input) in plan.inputs.iter_mut().enumerate() {
            input.settings.log = Some(observed.id(index).to_owned());
        }
    }
}

/// The replay log of a plan, for a worker's reader.
pub fn cache(plan: &Plan) -> Option<Cache> {
    let directory = plan.replay.as_ref()?.cache.clone()?;
    let source = |input: &InputPlan| {
        let settings = &input.settings;
        Source {
            input: settings.name.clone(),
            identity: settings.log.clone().unwrap_or_default(),
            medium: format!("{:?}", settings.medium),
            is_table: settings.is_table,
            max_out_of_orderness_ms: settings.max_out_of_orderness_ms,
            max_record_bytes: settings.max_record_bytes,
        }
    };
    let sources = plan.inputs.iter().map(source).collect();
    Some(Cache { directory, sources })
}

/// The record that lies there, if it is this replay's.
fn known(plan: &Plan, bytes: &[u8]) -> Result<Record> {
    let damaged = |error| Error::new(Kind::StateDamaged, format!("{}/{RECORD}: {error}", plan.state));
    let record: Record = serde_json::from_slice(bytes).map_err(damaged)?;
    if record.plan_hash == plan.plan_hash {
        return Ok(record);
    }
    let (from, to) = (
        record.span.from.unwrap_or_default(),
        record.span.to.map_or("the end".to_owned(), |to| to.to_string()),
    );
    let message = format!(
        "{}: another replay lies here (from {from} to {to}, or of another job file); name another place, or \
         remove it",
        plan.state
    );
    Err(Error::new(Kind::Configuration, message))
}

/// Nothing may lie where a replay begins.
fn refuse_foreign(plan: &Plan, store: &dyn Store, admin: Option<&Admin>) -> Result<()> {
    let refused = |what: String| {
        let message = format!("{what} exists and is not of this replay; name another place, or remove it");
        Err(Error::new(Kind::Configuration, message))
    };
    if !store::names(store, "claims")?.is_empty() {
        return refused(format!("a state in {}", plan.state));
    }
    for output in &plan.outputs {
        match &output.place {
            OutputPlace::Files(files) => {
                if let Some(file) = files.iter().find(|file| file.exists()) {
                    return refused(file.display().to_string());
                }
            }
            OutputPlace::Topic { name, .. } => {
                let there = admin.map(|admin| admin.partitions(name)).transpose()?;
                if there.is_some_and(|partitions| partitions > 0) {
                    return refused(format!("topic {name}"));
                }
            }
        }
    }
    Ok(())
}

/// What is read of every input that is a topic.
fn ranges(plan: &Plan, replay: &Replay, admin: Option<&Admin>) -> Result<Ranges> {
    let mut ranges = Ranges::new();
    for input in &plan.inputs {
        if let (InputPlace::Topic { name, .. }, Some(admin)) = (&input.place, admin) {
            ranges.insert(name.clone(), ranges_of(input, name, replay, admin)?);
        }
    }
    Ok(ranges)
}

fn ranges_of(input: &InputPlan, topic: &str, replay: &Replay, admin: &Admin) -> Result<Vec<(u64, u64)>> {
    let count = admin.partitions(topic)?;
    let bounds = admin.bounds(topic, count)?;
    if input.settings.is_table {
        return Ok(bounds.iter().map(|bounds| (bounds.first, bounds.end)).collect());
    }
    if replay.offsets.keys().any(|(named, _)| named == topic) {
        return bounds
            .iter()
            .zip(0..)
            .map(|(bounds, partition)| chosen(topic, partition, *bounds, replay))
            .collect();
    }
    let at = |time: Option<i64>| match time {
        Some(time) => admin.offsets_at(topic, count, time),
        None => Ok(vec![None; bounds.len()]),
    };
    let (starts, ends) = (at(replay.span.from)?, at(replay.span.to)?);
    let each = bounds.iter().zip(starts.into_iter().zip(ends));
    Ok(each
        .map(|(bounds, (start, end))| {
            // No message as late as that: there is nothing, or there is no such end.
            let none = if replay.span.from.is_some() {
                bounds.end
            } else {
                bounds.first
            };
            let start = start.unwrap_or(none).clamp(bounds.first, bounds.end);
            (start, end.unwrap_or(bounds.end).clamp(start, bounds.end))
        })
        .collect())
}

/// The offsets that were asked for of a partition.
fn chosen(topic: &str, partition: u32, there: Bounds, replay: &Replay) -> Result<(u64, u64)> {
    let Some(asked) = replay.offsets.get(&(topic.to_owned(), partition)) else {
        return Ok((there.end, there.end));
    };
    if asked.start < there.first || asked.end > there.end {
        let message = format!(
            "{topic}/{partition}: offsets {} to {} were asked for, {} to {} are there",
            asked.start, asked.end, there.first, there.end
        );
        return Err(Error::new(Kind::InputGone, message));
    }
    Ok((asked.start, asked.end))
}

/// Creates the output topics that are missing, each like the one it stands for, and the progress topic.
fn create_topics(plan: &Plan, replay: &Replay, admin: &Admin) -> Result<()> {
    let names: Vec<_> = replay.stands_for.values().map(String::as_str).collect();
    let live = admin.describe(&names)?;
    let mut missing = Vec::new();
    for (own, stands_for) in &replay.stands_for {
        let Some(Some(topic)) = live.get(stands_for) else {
            let message = format!("topic {stands_for} does not exist: {own} would be made like it");
            return Err(Error::new(Kind::Configuration, message));
        };
        missing.push(Missing {
            name: own.clone(),
            partitions: topic.partitions,
            replication: topic.replication,
            compacted: false,
        });
    }
    if let Some(replication) = missing.first().map(|topic| topic.replication) {
        missing.push(Missing {
            name: progress_topic::name(&plan.name),
            partitions: 1, // one order for all of it
            replication,
            compacted: true,
        });
    }
    let mut absent = Vec::new();
    for topic in missing {
        if admin.partitions(&topic.name)? == 0 {
            absent.push(topic);
        }
    }
    admin.create(&absent)
}

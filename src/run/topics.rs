//! The topics of a plan, looked at before anything starts: what is there, whether it will do, and whether it is
//! still the same as before.
//!
//! ```text
//!  plan ─► describe ─► missing? wrong policy? other id, fewer partitions than recorded? ─► refused, by name
//!                └───► numbers of partitions into the plan; bounds of the inputs' partitions
//! ```
//!
//! A topic's id is recorded in the state before the topic is first used: one that was deleted and created again
//! under its name is another topic, and what was committed of it says nothing. Its number of partitions is
//! recorded too, for it must not fall.
//!
//! Refused also: an input with event time whose topic is compacted (a replay would miss messages), and a
//! progress topic that could forget.

use super::{From, InputPlace, KafkaPlan, OutputPlace, Plan};
use crate::checkpoint::store::{self, Published, Store};
use crate::error::{Error, Kind, Result};
use crate::format::avro::Encoder;
use crate::kafka::topics::{Admin, Bounds, Topic};
use crate::sink::encode::Format;
use crate::sink::progress_topic;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a topic is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Records with event time.
    Events,
    /// Writes to a table.
    Table,
    /// Messages.
    Output,
    /// What is committed.
    Progress,
}

/// A topic that a plan needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// Its name.
    pub name: String,
    /// What for.
    pub purpose: Use,
}

/// What was found of the inputs' partitions.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// By index of the input, then by partition.
    bounds: BTreeMap<usize, Vec<Bounds>>,
    /// Where a first start begins.
    first: BTreeMap<usize, Vec<u64>>,
    /// Replays: where each partition ends.
    until: BTreeMap<usize, Vec<u64>>,
    /// The topic's id.
    ids: BTreeMap<usize, String>,
}

impl Observed {
    /// What a partition holds.
    pub fn bounds(&self, input: usize, partition: u32) -> Bounds {
        let of = self
            .bounds
            .get(&input)
            .and_then(|bounds| bounds.get(partition as usize));
        of.copied().unwrap_or_default()
    }

    /// Where a replay ends to read a partition; otherwise none.
    pub fn until(&self, input: usize, partition: u32) -> Option<u64> {
        self.until.get(&input)?.get(partition as usize).copied()
    }

    /// The id of an input's topic; of files none.
    pub fn id(&self, input: usize) -> &str {
        self.ids.get(&input).map_or("", String::as_str)
    }

    /// Limits what is read of an input to these offsets: the first, and the one behind the last.
    pub fn cut(&mut self, input: usize, ranges: &[(u64, u64)]) {
        self.first
            .insert(input, ranges.iter().map(|(first, _)| *first).collect());
        self.until
            .insert(input, ranges.iter().map(|(_, end)| *end).collect());
    }

    /// Where a first start begins to read a partition.
    pub fn first_offset(&self, input: usize, partition: u32) -> u64 {
        let of = self
            .first
            .get(&input)
            .and_then(|first| first.get(partition as usize));
        of.copied().unwrap_or_default()
    }
}

/// The topics of a plan, each once.
pub fn needed(plan: &Plan) -> Vec<Needed> {
    let mut needed = Vec::<Needed>::new();
    let mut add = |name: &str, purpose| {
        if needed.iter().all(|topic| topic.name != name) {
            let name = name.to_owned();
            needed.push(Needed { name, purpose });
        }
    };
    for input in &plan.inputs {
        if let InputPlace::Topic { name, .. } = &input.place {
            add(
                name,
                if input.settings.is_table {
                    Use::Table
                } else {
                    Use::Events
                },
            );
        }
    }
    for output in &plan.outputs {
        if let OutputPlace::Topic { name, .. } = &output.place {
            add(name, Use::Output);
        }
    }
    if plan.topic_shards() > 0 {
        add(&progress_topic::name(&plan.name), Use::Progress);
    }
    needed
}

/// What is wrong with a topic for its use; none if nothing is.
pub fn fault(needed: &Needed, found: Option<&Topic>) -> Option<String> {
    let Some(topic) = found else {
        return Some("it does not exist; `tidegate topics JOB.toml --create` creates it".to_owned());
    };
    match needed.purpose {
        Use::Progress => progress_topic::fault(topic),
        Use::Events if topic.is_compacted() => {
            Some("it is compacted: a replay would miss messages; set cleanup.policy=delete".to_owned())
        }
        Use::Table if topic.is_deleted() && (topic.retention_ms >= 0 || topic.retention_bytes >= 0) => Some(
            "its messages are deleted after a while, and a table needs them all; set cleanup.policy=compact"
                .to_owned(),
        ),
        Use::Events | Use::Table | Use::Output => None,
    }
}

/// Looks at the plan's topics and puts their numbers of partitions into it.
pub fn observe(plan: &mut Plan, kafka: &KafkaPlan, store: &dyn Store) -> Result<Observed> {
    let admin = Admin::new(&kafka.settings)?;
    let needed = needed(plan);
    let names: Vec<_> = needed.iter().map(|topic| topic.name.as_str()).collect();
    let found = admin.describe(&names)?;
    let faults: Vec<_> = needed
        .iter()
        .filter_map(|topic| {
            let fault = fault(topic, found[&topic.name].as_ref())?;
            Some(format!("topic {}: {fault}", topic.name))
        })
        .collect();
    if !faults.is_empty() {
        return Err(Error::new(Kind::Configuration, faults.join("\n")));
    }
    let recorded = recorded(store)?;
    for (name, topic) in found
        .iter()
        .filter_map(|(name, topic)| Some((name, topic.as_ref()?)))
    {
        same_as_recorded(store, &recorded, name, topic)?;
    }
    let partitions = |name: &str| found[name].as_ref().map_or(0, |topic| topic.partitions);
    let mut observed = Observed::default();
    for (index, input) in plan.inputs.iter_mut().enumerate() {
        let is_table = input.settings.is_table;
        let InputPlace::Topic {
            name,
            from,
            partitions: count,
        } = &mut input.place
        else {
            continue;
        };
        *count = partitions(name);
        let id = found[name].as_ref().map(|topic| topic.id.clone());
        observed.ids.insert(index, id.unwrap_or_default());
        let bounds = admin.bounds(name, *count)?;
        let from = if is_table { From::Earliest } else { *from };
        let first = match from {
            From::Earliest => bounds.iter().map(|bounds| bounds.first).collect(),
            From::Latest => bounds.iter().map(|bounds| bounds.end).collect(),
            From::Time(time) => {
                let found = admin.offsets_at(name, *count, time)?;
                let ends = bounds.iter().map(|bounds| bounds.end);
                found
                    .into_iter()
                    .zip(ends)
                    .map(|(found, end)| found.unwrap_or(end))
                    .collect()
            }
        };
        observed.bounds.insert(index, bounds);
        observed.first.insert(index, first);
    }
    for output in &mut plan.outputs {
        if let OutputPlace::Topic {
            name,
            partitions: count,
            format,
        } = &mut output.place
        {
            *count = partitions(name);
            if let Format::Avro(encoder) = format {
                *encoder = Some(Arc::new(avro_encoder(kafka, name, output.schema)?));
            }
        }
    }
    Ok(observed)
}

/// Registers the schema of an output under `<topic>-value`, or looks it up.
fn avro_encoder(kafka: &KafkaPlan, topic: &str, schema: &str) -> Result<Encoder> {
    let Some(schemas) = &kafka.schemas else {
        return Err(Error::internal(format!("{topic} is in Avro without a registry")));
    };
    let subject = format!("{topic}-value");
    let id = match kafka.register_schemas {
        true => schemas.register(&subject, schema)?,
        false => schemas.look_up(&subject, schema)?,
    };
    Encoder::new(schema, id).map_err(|error| Error::internal(format!("schema of {topic}: {error}")))
}

/// Where ids are recorded: `topics/{name}@{partitions}` holds the id.
const FOLDER: &str = "topics";

/// Refuses a topic that is another one than before, or has fewer partitions; records it otherwise.
fn same_as_recorded(store: &dyn Store, recorded: &[String], name: &str, topic: &Topic) -> Result<()> {
    let refused = |what: &str| Err(Error::new(Kind::InputGone, format!("topic {name}: {what}")));
    if let Some(what) = change(store, recorded, name, topic)? {
        return refused(&what);
    }
    let object = format!("{FOLDER}/{name}@{}", topic.partitions);
    match store::publish(store, &object, topic.id.as_bytes())? {
        Published::Ours => Ok(()),
        Published::Theirs => refused("it was created again while this job started"),
    }
}

/// What the state has recorded of topics, for [`change`].
pub fn recorded(store: &dyn Store) -> Result<Vec<String>> {
    store::names(store, FOLDER)
}

/// How a topic differs, in a way that stops the job, from what the state has recorded of it.
pub fn change(store: &dyn Store, recorded: &[String], name: &str, topic: &Topic) -> Result<Option<String>> {
    for entry in recorded {
        let Some((other, partitions)) = entry.rsplit_once('@') else {
            continue;
        };
        if other != name {
            continue;
        }
        let id = store::fetch(store, &format!("{FOLDER}/{entry}"))?.unwrap_or_default();
        if id != topic.id.as_bytes() {
            let what = "it was deleted and created again since this job used it; restore it, or start with a new state";
            return Ok(Some(what.to_owned()));
        }
        let now = topic.partitions;
        if partitions.parse::<u32>().is_ok_and(|before| before > now) {
            let what = format!("it has {now} partitions and had {partitions}; restore them");
            return Ok(Some(what));
        }
    }
    Ok(None)
}

//! The output shards of a plan, of both kinds, from what lies there to what writes.
//!
//! ```text
//!  files   lock, read the progress log ───────────────────────────────────────────► found
//!  topics  predecessor alive? ─► claim ─► fence its producers ─► claims again ─► read progress ─► found
//! ```
//!
//! Files have locks for a fence: nothing is claimed before the decision. For topics the claim comes first, then
//! the fence, and only then is it certain what is committed. With both kinds, the files are locked before
//! anything is claimed, so that a job that cannot have its files fences nobody.

use super::control::{self, Control};
use super::{OutputPlace, Plan};
use crate::checkpoint::binding::Binding;
use crate::checkpoint::claim::{self, Claim};
use crate::checkpoint::decide::ShardFacts;
use crate::checkpoint::start as starting;
use crate::checkpoint::store::Store;
use crate::error::{Error, Kind, Result};
use crate::kafka::topics::Admin;
use crate::sink::{Sink, files, progress_topic, topics};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A shard, as planned.
pub enum Shard {
    /// Writes files.
    Files(files::Shard),
    /// Writes topics.
    Topics(topics::Shard),
}

/// A shard, with what it has committed.
pub enum FoundShard {
    /// Locked.
    Files(files::Found),
    /// Fenced.
    Topics(Box<topics::Found>),
}

impl FoundShard {
    /// What the start decides on.
    pub fn facts(&self) -> ShardFacts {
        match self {
            FoundShard::Files(found) => found.facts(),
            FoundShard::Topics(found) => found.facts(),
        }
    }

    /// The bindings on record, ascending.
    pub fn bindings(&self) -> Box<dyn Iterator<Item = &Binding> + '_> {
        match self {
            FoundShard::Files(found) => Box::new(found.bindings()),
            FoundShard::Topics(found) => Box::new(found.bindings()),
        }
    }

    /// Opens it for writing in the generation of this claim.
    pub fn open(self, claim: &Claim, fresh: bool, store: &Arc<dyn Store>) -> Result<Box<dyn Sink>> {
        Ok(match self {
            FoundShard::Files(found) => Box::new(found.open(claim, fresh)?),
            FoundShard::Topics(found) => Box::new(found.open(claim, Arc::clone(store))?),
        })
    }
}

/// The shards of a plan: those of files, then those of topics.
pub fn planned(plan: &Plan) -> Vec<Shard> {
    let outputs = || (0..).zip(&plan.outputs);
    let files = (0..plan.file_shards() as usize).map(|shard| {
        let outputs = outputs().filter_map(|(index, output)| match &output.place {
            OutputPlace::Files(files) => Some((index, files[shard].clone())),
            OutputPlace::Topic { .. } => None,
        });
        Shard::Files(files::Shard {
            job: plan.name.clone(),
            shard,
            root: plan.root.clone(),
            outputs: outputs.collect(),
        })
    });
    let topics = plan.kafka.iter().flat_map(|kafka| {
        (0..plan.topic_shards() as usize).map(|shard| {
            let outputs = outputs().filter_map(|(index, output)| match &output.place {
                OutputPlace::Topic { name, .. } => Some((index, name.clone())),
                OutputPlace::Files(_) => None,
            });
            Shard::Topics(topics::Shard {
                job: plan.name.clone(),
                shard,
                outputs: outputs.collect(),
                settings: kafka.settings.clone(),
                transaction_timeout: kafka.transaction_timeout,
            })
        })
    });
    files.chain(topics).collect()
}

/// What the plan says to the start.
pub fn says(plan: &Plan, shards: &[Shard]) -> starting::Plan {
    let names = |shard: &Shard| -> Vec<String> {
        match shard {
            Shard::Files(shard) => shard
                .outputs
                .iter()
                .map(|(_, path)| path.display().to_string())
                .collect(),
            Shard::Topics(shard) => shard
                .outputs
                .values()
                .map(|topic| format!("kafka:{topic}"))
                .collect(),
        }
    };
    let ids = shards.iter().flat_map(|shard| match shard {
        Shard::Topics(shard) => shard.transactional_ids().to_vec(),
        Shard::Files(_) => Vec::new(),
    });
    starting::Plan {
        plan_hash: plan.plan_hash,
        shards: shards.iter().map(names).collect(),
        append: plan.append,
        transactional_ids: ids.collect(),
        control: None,
    }
}

/// What lies there; with topics, also the claim that was won before it was known.
pub fn look(
    plan: &Plan,
    store: &dyn Store,
    shards: Vec<Shard>,
    mut says: starting::Plan,
) -> Result<(Vec<FoundShard>, Option<Claim>)> {
    let mut found = Vec::new();
    let mut planned = Vec::new();
    for shard in shards {
        match shard {
            Shard::Files(shard) => found.push(FoundShard::Files(files::observe(&shard)?)),
            Shard::Topics(shard) => planned.push(shard),
        }
    }
    let Some(kafka) = plan.kafka.as_ref().filter(|_| !planned.is_empty()) else {
        return Ok((found, None));
    };
    let earlier = claim::all(store)?;
    if !plan.take_over
        && let Some((_, Some(last))) = earlier.last()
        && let Some(address) = &last.control
    {
        control::refuse_if_alive(address, last.nonce, last.pid)?;
    }
    let control = Control::open()?;
    says.control = Some(control.address());
    let claim = starting::claim_first(store, &says)?;
    control.answer(claim.nonce)?;
    let own: BTreeSet<String> = says.transactional_ids.iter().cloned().collect();
    let others = earlier
        .iter()
        .filter_map(|(_, claim)| claim.as_ref())
        .flat_map(|claim| claim.transactional_ids.iter().cloned())
        .filter(|id| !own.contains(id));
    topics::fence(&kafka.settings, &others.collect(), kafka.transaction_timeout)?;
    let mut taken = Vec::new();
    for shard in planned {
        let producers = topics::take(&shard)?;
        taken.push((shard, producers));
    }
    let newest = claim::all(store)?.last().map_or(0, |(generation, _)| *generation);
    if newest > claim.generation {
        let message = format!(
            "generation {newest} was claimed while this start, {}, fenced",
            claim.generation
        );
        return Err(Error::new(Kind::AnotherInstance, message));
    }
    let admin = Admin::new(&kafka.settings)?;
    let values = progress_topic::read(&kafka.settings, &admin, &progress_topic::name(&plan.name))?;
    for (shard, producers) in taken {
        let shard = topics::Found::new(shard, producers, &values);
        found.push(FoundShard::Topics(Box::new(shard)));
    }
    Ok((found, Some(claim)))
}

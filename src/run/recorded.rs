//! A run that takes a job's recorded epochs again, exactly as the job bound them.
//!
//! ```text
//!  rows at C ─► recorded epochs (C, first): outputs suppressed ─► [first, end): outputs ─► the end
//! ```
//!
//! The engine is the same one, at the point where every start replays what is committed; only that nothing new
//! comes after it. Contents of epochs, idle decisions, floors and ends of partitions are those of the record, so
//! what comes out is the same on any number of workers, and the same as what the job gave.
//!
//! Outputs go to a place of the replay's own, with its own claims and progress: killed, it goes on behind what is
//! committed there, after taking the epochs since C again. Or they are given to sinks that the caller has made, and
//! then nothing is written at all.

use super::job::Started;
use super::past::Past;
use super::shards::{self, FoundShard};
use super::topics::{self, Observed};
use super::{Plan, Shared, now, recover, replay};
use crate::checkpoint::claim::Claim;
use crate::checkpoint::decide::Resume;
use crate::checkpoint::start as starting;
use crate::checkpoint::store::{self, Store};
use crate::error::Result;
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::sink::Sink;
use std::sync::Arc;

/// A state that is nowhere.
const NOWHERE: &str = "memory:///";

/// Starts a run over this past that writes to the plan's own outputs.
pub fn start(mut plan: Plan, past: Past) -> Result<Started> {
    let store = store::open(&plan.state)?;
    let lock = super::job::lock_state(&plan)?;
    replay::prepare(&plan, store.as_ref())?;
    let observed = observed(&mut plan, store.as_ref())?;
    let shards = shards::planned(&plan);
    let says = shards::says(&plan, &shards);
    let (found, claimed) = shards::look(&plan, store.as_ref(), shards, says.clone())?;
    let facts = found.iter().map(FoundShard::facts).collect();
    let checkpoint = starting::start(store.as_ref(), &says, facts, claimed)?;
    let (claim, fresh) = (&checkpoint.claim, checkpoint.fresh);
    if !checkpoint.is_claimed {
        starting::claim(store.as_ref(), claim)?;
    }
    let sinks = found
        .into_iter()
        .map(|found| found.open(claim, fresh, &store))
        .collect::<Result<Vec<_>>>()?;
    starting::begin(store.as_ref(), claim)?;
    started(plan, past, &observed, (store, checkpoint, sinks), lock)
}

/// Starts a run over this past whose outputs go to these sinks, one a shard of the plan.
pub fn start_into(mut plan: Plan, past: Past, sinks: Vec<Box<dyn Sink>>) -> Result<Started> {
    let store = store::open(NOWHERE)?;
    let observed = observed(&mut plan, store.as_ref())?;
    let says = shards::says(&plan, &shards::planned(&plan));
    let checkpoint = starting::Start {
        claim: Claim::new(1, plan.plan_hash, says.shards),
        is_claimed: true,
        fresh: true,
        resume: Resume::default(),
        rows: Vec::new(),
        kept: Vec::new(),
        next: 1,
    };
    started(plan, past, &observed, (store, checkpoint, sinks), None)
}

fn observed(plan: &mut Plan, store: &dyn Store) -> Result<Observed> {
    match plan.kafka.clone() {
        Some(kafka) => topics::observe(plan, &kafka, store),
        None => Ok(Observed::default()),
    }
}

fn started(
    plan: Plan,
    past: Past,
    observed: &Observed,
    (store, checkpoint, sinks): (Arc<dyn Store>, starting::Start, Vec<Box<dyn Sink>>),
    lock: Option<std::fs::File>,
) -> Result<Started> {
    let before = past.epochs.start.saturating_sub(1);
    let base = past.epochs.end;
    let mut recovered = recover::recover(
        &plan,
        past.checkpoint,
        past.positions,
        past.bindings,
        base,
        observed,
    )?;
    // Nothing new is taken: partitions that nobody had seen then are none of this past's.
    recovered.declarations.clear();
    for (input, partitions) in recovered.partitions.iter_mut().enumerate() {
        let recorded = recovered.recorded.iter().flat_map(|binding| &binding.partitions);
        let shares = recorded.filter(|share| usize::from(share.input) == input);
        let mut known: std::collections::BTreeSet<u32> = shares.map(|share| share.partition).collect();
        known.extend(recovered.positions.partitions[input].keys());
        partitions.retain(|partition, _| known.contains(partition));
    }
    recovered.rows = past.rows;
    recovered.committed = sinks.iter().map(|sink| sink.committed().max(before)).collect();
    let pace = Pace::new(plan.cutting, plan.workers, base, plan.checkpoint_interval, now());
    Ok(Started {
        shared: Arc::new(Shared::new(pace, Metrics::new(plan.outputs.len()))),
        plan: Arc::new(plan),
        recovered,
        store,
        checkpoint,
        sinks,
        _lock: lock,
    })
}

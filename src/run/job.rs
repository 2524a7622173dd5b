//! A job from its start to its end, in a process that runs it alone or leads.
//!
//! Start: locks, what lies there, the decision, the restored rows, the claim, the opened outputs. Run: the
//! [`threads`](super::threads). End: when the workers are done, the [`committers`](super::committers) commit what
//! is sealed, and then the checkpointer writes the last checkpoint.

use super::archiving::{Logged, archiving};
use super::committers::{Gates, Keep, spawn_committers, told_of_checkpoints};
use super::leader::Listeners;
use super::shards::{self, FoundShard};
use super::summary::{Summary, summary};
use super::threads::run_workers;
use super::topics::{self, Observed};
use super::{Build, Plan, Recovered, Shared, discover, graph, kept, leader, now, recover, replay};
use crate::checkpoint::checkpointer::{self, Checkpointer, Marks};
use crate::checkpoint::decide::Progress;
use crate::checkpoint::lock;
use crate::checkpoint::objects;
use crate::checkpoint::series::Series;
use crate::checkpoint::start as starting;
use crate::checkpoint::store::{self, Store};
use crate::cluster::Cluster;
use crate::error::Result;
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::sink::Sink;
use crate::sink::committer::{Committer, Queue};
use std::fs::File;
use std::sync::Arc;

/// A job that has claimed its generation and opened its outputs.
pub struct Started {
    pub(super) plan: Arc<Plan>,
    pub(super) shared: Arc<Shared>,
    pub(super) recovered: Recovered,
    pub(super) store: Arc<dyn Store>,
    pub(super) checkpoint: starting::Start,
    pub(super) sinks: Vec<Box<dyn Sink>>,
    /// Held while the process lives.
    pub(super) _lock: Option<File>,
}

/// Locks, looks, decides, restores, claims, opens. Nothing of an output is touched if it refuses.
pub fn start(mut plan: Plan) -> Result<Started> {
    let store = store::open(&plan.state)?;
    let lock = lock_state(&plan)?;
    let ranges = replay::prepare(&plan, store.as_ref())?;
    let mut observed = match plan.kafka.clone() {
        Some(kafka) => topics::observe(&mut plan, &kafka, store.as_ref())?,
        None => Observed::default(),
    };
    replay::cut(&mut plan, &mut observed, &ranges);
    replay::log(&mut plan, &observed);
    let shards = shards::planned(&plan);
    let says = shards::says(&plan, &shards);
    let (found, claimed) = shards::look(&plan, store.as_ref(), shards, says.clone())?;
    let facts = found.iter().map(FoundShard::facts).collect();
    let mut checkpoint = starting::start(store.as_ref(), &says, facts, claimed)?;
    let resume = &checkpoint.resume;
    let mut recorded = starting::replayed(resume, found.iter().flat_map(FoundShard::bindings));
    kept::fetch(store.as_ref(), &mut recorded)?;
    let restored = resume.checkpoint.map(|_| resume.from);
    let positions = checkpoint.positions().cloned();
    let mut recovered = recover::recover(&plan, restored, positions, recorded, resume.base, &observed)?;
    recovered.rows = std::mem::take(&mut checkpoint.rows)
        .into_iter()
        .flatten()
        .collect();
    let (claim, fresh) = (&checkpoint.claim, checkpoint.fresh);
    if !checkpoint.is_claimed {
        starting::claim(store.as_ref(), claim)?;
    }
    let logged = plan
        .history
        .map(|_| found.iter().map(logged).collect::<Vec<Logged>>());
    let mut sinks = found
        .into_iter()
        .map(|found| found.open(claim, fresh, &store))
        .collect::<Result<Vec<_>>>()?;
    if let Some(logged) = logged {
        sinks = archiving(sinks, logged, &store)?;
    }
    recovered.committed = sinks.iter().map(|sink| sink.committed()).collect();
    starting::begin(store.as_ref(), claim)?;
    tracing::info!(
        generation = claim.generation,
        checkpoint = recovered.checkpoint,
        rows = recovered.rows.len(),
        replayed = recovered.recorded.len(),
        "started"
    );
    let pace = Pace::new(
        plan.cutting,
        plan.peers(),
        recovered.base + 1,
        plan.checkpoint_interval,
        now(),
    );
    let shared = Arc::new(Shared::new(pace, Metrics::new(plan.outputs.len())));
    Ok(Started {
        plan: Arc::new(plan),
        shared,
        recovered,
        store,
        checkpoint,
        sinks,
        _lock: lock,
    })
}

/// What the progress of a shard holds.
fn logged(found: &FoundShard) -> Logged {
    let after = match found.facts().progress {
        Progress::Present { after, .. } => after,
        Progress::Absent | Progress::Damaged { .. } => 0,
    };
    (after, found.bindings().cloned().collect())
}

/// Files have no other fence; producers fence each other, so a job that writes topics only may be taken over
/// from an instance that is frozen and still holds its locks.
pub(super) fn lock_state(plan: &Plan) -> Result<Option<File>> {
    if plan.topic_shards() > 0 && plan.file_shards() == 0 {
        return Ok(None);
    }
    let directory = objects::local_directory(&plan.state);
    directory
        .map(|directory| lock::lock_state(&directory))
        .transpose()
}

impl Started {
    /// What the threads of the run will share: to watch it, and to end it.
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Runs to the end of finite inputs, or until it is drained: alone, or as the leader of a cluster.
    pub fn run(self, build: Build, mut cluster: Option<Cluster>) -> Result<Summary> {
        let began = now();
        let Started {
            plan,
            shared,
            mut recovered,
            store,
            checkpoint,
            sinks,
            _lock,
        } = self;
        let operators = graph::graph(&plan, Arc::clone(&build)).stateful;
        let series = Series::new(
            Arc::clone(&store),
            &checkpoint.claim,
            operators,
            checkpoint.kept,
            checkpoint.next,
            plan.history,
        )?;
        let marks: Vec<Arc<Marks>> = sinks.iter().map(|_| Arc::default()).collect();
        let (positions, told) = (
            recovered.positions.clone(),
            told_of_checkpoints(
                Arc::clone(&shared),
                Arc::clone(&store),
                marks.clone(),
                plan.history.is_some(),
            ),
        );
        let checkpointer = checkpointer::spawn(series, plan.peers(), positions, marks.clone(), told)?;
        let keep = Keep {
            store: Arc::clone(&store),
            generation: checkpoint.claim.generation,
        };
        let committers = spawn_committers(sinks, marks, &shared, &checkpointer, keep)?;
        let queues: Vec<Queue> = committers
            .iter()
            .map(|committer| committer.queue().clone())
            .collect();
        let listeners = match &mut cluster {
            Some(cluster) => {
                let events = checkpointer.events();
                Some(leader::lead(cluster, &plan, &mut recovered, &shared, &events)?)
            }
            None => None,
        };
        let (data, parting) = cluster.map(|cluster| (cluster.data, cluster.parting)).unzip();
        let discovery = discover::discover(&plan, &shared, &recovered)?;
        let gates = Gates::new(queues, &recovered.committed, checkpointer.events());
        run_workers(
            &plan,
            &shared,
            recovered,
            build,
            gates,
            checkpointer.events(),
            data,
        )?;
        drop(discovery);
        listeners.map_or(Ok(()), Listeners::finish)?;
        end(committers, checkpointer, &shared)?;
        parting.map_or(Ok(()), |parting| parting.close())?;
        Ok(summary(&plan, &shared, began))
    }
}

/// Everything is sealed: commit it, then write the last checkpoint.
fn end(committers: Vec<Committer>, checkpointer: Checkpointer, shared: &Shared) -> Result<()> {
    for committer in committers {
        committer.finish()?;
    }
    checkpointer.finish()?;
    shared.failure().map_or(Ok(()), Err)
}

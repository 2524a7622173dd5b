//! A job from its start to its end, in one process.
//!
//! Start: locks, what lies there, the decision, the restored rows, the claim, the opened outputs. Run: the
//! threads. End: when the workers are done, the committers commit what is sealed, and then the checkpointer
//! writes the last checkpoint.

use super::archiving::{Logged, archiving};
use super::shards::{self, FoundShard};
use super::topics::{self, Observed};
use super::wiring::wire;
use super::work::{Requests, Station};
use super::{
    Build, InputPlace, InputPlan, Plan, Recovered, Shared, discover, graph, kept, now, recover, replay,
};
use crate::checkpoint::checkpointer::{self, Checkpointer, Event, Marks};
use crate::checkpoint::decide::Progress;
use crate::checkpoint::lock;
use crate::checkpoint::objects;
use crate::checkpoint::row::StateRow;
use crate::checkpoint::series::Series;
use crate::checkpoint::start as starting;
use crate::checkpoint::store::{self, Store};
use crate::error::{Error, Result};
use crate::limits;
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::sink::committer::{self, Committer, Queue};
use crate::sink::seal::ShardGate;
use crate::sink::{SealedEpoch, Sink};
use crate::source::cache::Readers;
use crate::source::topics::Topic;
use crate::source::{Answer, owner};
use crate::time::Epoch;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;
use timely::communication::Config as Threads;

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

/// Percentiles, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// Half of the epochs took no longer.
    pub p50: u64,
    /// 99 in 100.
    pub p99: u64,
    /// 999 in 1 000.
    pub p999: u64,
    /// All.
    pub max: u64,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// From the start of the threads to the end of the last one, milliseconds.
    pub elapsed_ms: u64,
    /// Worker threads.
    pub workers: usize,
    /// Messages taken from inputs, those of replayed epochs included.
    pub messages_in: u64,
    /// Replays: messages outside the span, passed over.
    pub skipped: u64,
    /// Messages committed, by output of the plan.
    pub messages_out: Vec<u64>,
    /// Dead letters among them, by reason.
    pub dead_letters: Vec<(&'static str, u64)>,
    /// Epochs committed.
    pub epochs: u64,
    /// The last of them.
    pub committed: Epoch,
    /// From an epoch's first message taken to its commit.
    pub latency_us: Latency,
    /// What a restore of the newest checkpoint reads, bytes.
    pub state_bytes: u64,
    /// What was written of checkpoints, bytes.
    pub state_bytes_written: u64,
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
        plan.workers,
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

    /// Runs to the end of finite inputs, or until it is drained.
    pub fn run(self, build: Build) -> Result<Summary> {
        let began = now();
        let Started {
            plan,
            shared,
            recovered,
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
        let checkpointer = checkpointer::spawn(series, plan.workers, positions, marks.clone(), told)?;
        let keep = Keep {
            store: Arc::clone(&store),
            generation: checkpoint.claim.generation,
        };
        let committers = spawn_committers(sinks, marks, &shared, &checkpointer, keep)?;
        let queues: Vec<Queue> = committers
            .iter()
            .map(|committer| committer.queue().clone())
            .collect();
        let discovery = discover::discover(&plan, &shared, &recovered)?;
        let gates = Gates::new(queues, &recovered.committed, checkpointer.events());
        run_workers(&plan, &shared, recovered, build, gates, checkpointer.events())?;
        drop(discovery);
        end(committers, checkpointer, &shared)?;
        Ok(summary(&plan, &shared, began))
    }
}

/// A sink whose epochs keep large messages in the state store.
struct Keeping {
    sink: Box<dyn Sink>,
    keep: Keep,
}

/// Where they are kept, and under whose number.
#[derive(Clone)]
struct Keep {
    store: Arc<dyn Store>,
    generation: u64,
}

impl Sink for Keeping {
    fn committed(&self) -> Epoch {
        self.sink.committed()
    }

    fn commit(&mut self, mut epochs: Vec<SealedEpoch>) -> Result<()> {
        kept::put_away(self.keep.store.as_ref(), self.keep.generation, &mut epochs)?;
        self.sink.commit(epochs)
    }

    fn forget(&mut self, oldest: Epoch) -> Result<()> {
        self.sink.forget(oldest)
    }
}

/// A committer per shard, which tells the checkpointer of its commits.
fn spawn_committers(
    sinks: Vec<Box<dyn Sink>>,
    marks: Vec<Arc<Marks>>,
    shared: &Arc<Shared>,
    checkpointer: &Checkpointer,
    keep: Keep,
) -> Result<Vec<Committer>> {
    let spawn = |(shard, (sink, marks)): (usize, (Box<dyn Sink>, Arc<Marks>))| {
        let keep = keep.clone();
        let sink = Keeping { sink, keep };
        let (shared, events) = (Arc::clone(shared), checkpointer.events());
        let told: committer::Told = Box::new(move |committed| match committed {
            Ok(epochs) => {
                shared.metrics.committed(epochs, now());
                // A checkpointer that has ended has said why.
                let _ = events.send(Event::Committed);
            }
            Err(error) => shared.fail(error.clone()),
        });
        // The worker loop bounds what waits; the queue itself must never block a worker.
        let capacity = 4 * limits::IN_FLIGHT_EPOCHS;
        committer::spawn(
            &format!("committer-{shard}"),
            Box::new(sink),
            capacity,
            marks,
            told,
        )
    };
    sinks.into_iter().zip(marks).enumerate().map(spawn).collect()
}

fn told_of_checkpoints(
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
    marks: Vec<Arc<Marks>>,
    has_history: bool,
) -> checkpointer::Told {
    Box::new(move |written| match written {
        Ok(written) => {
            let oldest = marks
                .iter()
                .map(|marks| marks.oldest.load(Ordering::Acquire))
                .min();
            // Archived bindings still name them.
            if !has_history && let Err(error) = kept::collect(store.as_ref(), oldest.unwrap_or(0)) {
                tracing::warn!("kept messages are not deleted: {error}");
            }
            shared.metrics.state_bytes.store(written.bytes, Ordering::Relaxed);
            shared
                .metrics
                .state_bytes_written
                .store(written.bytes_written, Ordering::Relaxed);
            shared.pace.checkpoint_written();
            tracing::debug!(epoch = written.epoch, bytes = written.bytes, "checkpoint");
        }
        Err(error) => shared.fail(error.clone()),
    })
}

/// The ways from the workers to the committers, until a worker takes its own.
struct Gates {
    shards: Mutex<Vec<Option<(Queue, Epoch)>>>,
    events: Mutex<Sender<Event>>,
}

impl Gates {
    fn new(queues: Vec<Queue>, committed: &[Epoch], events: Sender<Event>) -> Self {
        let shards = queues
            .into_iter()
            .zip(committed.iter().copied())
            .map(Some)
            .collect();
        Gates {
            shards: Mutex::new(shards),
            events: Mutex::new(events),
        }
    }

    /// The gates of the shards that worker `index` of `peers` owns.
    fn take(&self, index: usize, peers: usize, shared: &Arc<Shared>) -> Vec<ShardGate> {
        let (Ok(mut shards), Ok(events)) = (self.shards.lock(), self.events.lock()) else {
            return Vec::new();
        };
        let mine = (0_u32..)
            .zip(shards.iter_mut())
            .filter(|(shard, _)| *shard as usize % peers == index);
        mine.filter_map(|(shard, gate)| {
            let (queue, committed) = gate.take()?;
            let events = (shard == 0).then(|| events.clone());
            let sealed = hand_over(queue, committed, events, Arc::clone(shared));
            Some(ShardGate {
                shard,
                committed,
                sealed,
            })
        })
        .collect()
    }
}

/// Hands sealed epochs of one shard to its committer; the first shard's bindings also go to the checkpointer,
/// before.
fn hand_over(
    queue: Queue,
    committed: Epoch,
    events: Option<Sender<Event>>,
    shared: Arc<Shared>,
) -> Box<dyn FnMut(SealedEpoch)> {
    Box::new(move |sealed: SealedEpoch| {
        if let Some(events) = &events {
            // A checkpointer that has ended has said why.
            let _ = events.send(Event::Bound(sealed.binding.without_messages()));
        }
        let metrics = &shared.metrics;
        if sealed.epoch <= committed {
            metrics.sealed.fetch_max(sealed.epoch, Ordering::Relaxed);
            return;
        }
        for rows in &sealed.rows {
            metrics.messages_out[usize::from(rows.output)]
                .fetch_add(rows.index.len() as u64, Ordering::Relaxed);
        }
        metrics.sealed(
            sealed.epoch,
            sealed.rows.iter().map(|rows| rows.bytes.len()).sum(),
        );
        if let Err(error) = queue.seal(sealed) {
            shared.fail(error);
        }
    })
}

/// Runs the worker threads and their readers to the end, or to the first failure.
fn run_workers(
    plan: &Arc<Plan>,
    shared: &Arc<Shared>,
    recovered: Recovered,
    build: Build,
    gates: Gates,
    events: Sender<Event>,
) -> Result<()> {
    let mut configuration = timely::WorkerConfig::default();
    // Without it, arrangements would keep what bursts left behind until new input came.
    let options = differential_dataflow::Config::default().idle_merge_effort(Some(1_000));
    differential_dataflow::configure(&mut configuration, &options);
    let threads = if plan.workers == 1 {
        Threads::Thread
    } else {
        Threads::Process(plan.workers)
    };
    let communication = threads
        .try_build()
        .map_err(|error| Error::internal(format!("timely: {error}")))?;
    let (plan, shared_in) = (Arc::clone(plan), Arc::clone(shared));
    let (recovered, gates, events) = (Arc::new(recovered), Arc::new(gates), Mutex::new(events));
    let work = move |worker: &mut timely::worker::Worker| {
        let (index, peers) = (worker.index(), worker.peers());
        shared_in.pace.register();
        let Ok(changed) = events.lock().map(|events| changed(events.clone(), index)) else {
            return;
        };
        let gates = gates.take(index, peers, &shared_in);
        let positions = recovered.positions.clone();
        let mut entrances = worker.dataflow_named("job", |scope| {
            wire(
                scope,
                &plan,
                &shared_in,
                positions,
                &|wiring: &mut super::wiring::Wiring<'_>| build(wiring),
                gates,
                changed,
            )
        });
        for feed in &mut entrances.feeds {
            let input = feed.settings().index;
            for (partition, from) in &recovered.partitions[usize::from(input)] {
                if owner(input, *partition, peers) == index {
                    feed.add_partition(
                        *partition,
                        from.clone(),
                        recovered.recorded_ends(input, *partition),
                    );
                }
            }
        }
        let (answer, answers) = channel();
        let requests = match readers(&plan, index, &answer) {
            Ok(requests) => requests,
            Err(error) => {
                shared_in.fail(error);
                Requests::default()
            }
        };
        // Whoever waits for the readers to end waits for their ends of the channel alone.
        drop(answer);
        let station = Station::new(worker, &plan, &shared_in, entrances, requests, answers);
        if station.run(&recovered).is_err() {
            // Dropped while their inputs are still open: nothing downstream sees an end that is none.
            worker
                .installed_dataflows()
                .into_iter()
                .for_each(|id| worker.drop_dataflow(id));
        }
    };
    let (builders, others) = communication;
    let guards = timely::execute::execute_from(builders, others, configuration, work);
    let guards = guards.map_err(|error| Error::internal(format!("timely: {error}")))?;
    for result in guards.join() {
        result.map_err(|error| Error::internal(format!("a worker ended: {error}")))?;
    }
    shared.failure().map_or(Ok(()), Err)
}

/// Starts the readers of one worker: one for files, one for topics, where the plan has such inputs.
fn readers(plan: &Plan, index: usize, answer: &Sender<Answer>) -> Result<Requests> {
    let topic = |input: &InputPlan| match &input.place {
        InputPlace::Topic { name, .. } => {
            let (name, medium) = (name.clone(), input.settings.medium.clone());
            Some((input.settings.index, Topic { name, medium }))
        }
        InputPlace::Files { .. } => None,
    };
    let topics: BTreeMap<u16, Topic> = plan.inputs.iter().filter_map(topic).collect();
    let is_topic: Vec<bool> = plan.inputs.iter().map(|input| topic(input).is_some()).collect();
    let spawn = |name: &str, read: Box<dyn FnOnce() + Send>| {
        let thread = thread::Builder::new().name(format!("{name}-{index}")).spawn(read);
        thread
            .map(|_| ())
            .map_err(|error| Error::internal(format!("a reader cannot be started: {error}")))
    };
    let mut requests = Requests {
        is_topic,
        ..Requests::default()
    };
    if topics.len() < plan.inputs.len() {
        let (send, requested) = channel();
        let (answer, woken) = (answer.clone(), thread::current());
        let read = move || crate::source::files::read(&requested, &answer, || woken.unpark());
        spawn("reader", Box::new(read))?;
        requests.files = Some(send);
    }
    if let Some(kafka) = plan.kafka.as_ref().filter(|_| !topics.is_empty()) {
        let (send, requested) = channel();
        let (answer, woken, settings) = (answer.clone(), thread::current(), kafka.settings.clone());
        let read = move || {
            crate::source::topics::read(&settings, topics, &requested, &answer, || woken.unpark());
        };
        spawn("consumer", Box::new(read))?;
        requests.topics = Some(send);
    }
    if let Some(cache) = replay::cache(plan) {
        let (send, asked) = channel();
        let (answer, woken) = (answer.clone(), thread::current());
        let readers = Readers {
            files: requests.files.take(),
            topics: requests.topics.take(),
        };
        let read = move || {
            crate::source::cache::read(&cache, &asked, &readers, &answer, || woken.unpark());
        };
        spawn("replay-log", Box::new(read))?;
        requests.log = Some(send);
    }
    Ok(requests)
}

/// Hands a worker's changed rows to the checkpointer.
fn changed(events: Sender<Event>, index: usize) -> Box<dyn FnMut(Epoch, Vec<StateRow>)> {
    let worker = u32::try_from(index).unwrap_or(u32::MAX);
    Box::new(move |epoch, rows| {
        // A checkpointer that has ended has said why.
        let _ = events.send(Event::Changed { worker, epoch, rows });
    })
}

/// Everything is sealed: commit it, then write the last checkpoint.
fn end(committers: Vec<Committer>, checkpointer: Checkpointer, shared: &Shared) -> Result<()> {
    for committer in committers {
        committer.finish()?;
    }
    checkpointer.finish()?;
    shared.failure().map_or(Ok(()), Err)
}

fn summary(plan: &Plan, shared: &Shared, began: Instant) -> Summary {
    let metrics = &shared.metrics;
    let latency = metrics.latency_us();
    let at = |quantile| latency.value_at_quantile(quantile);
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    Summary {
        elapsed_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        workers: plan.workers,
        messages_in: load(&metrics.messages_in),
        skipped: load(&metrics.skipped),
        messages_out: metrics.messages_out.iter().map(load).collect(),
        dead_letters: ["UNDECODABLE", "INVALID", "LATE"]
            .into_iter()
            .zip(metrics.dead_letters.iter().map(load))
            .collect(),
        epochs: load(&metrics.epochs),
        committed: load(&metrics.committed),
        latency_us: Latency {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: latency.max(),
        },
        state_bytes: load(&metrics.state_bytes),
        state_bytes_written: load(&metrics.state_bytes_written),
    }
}

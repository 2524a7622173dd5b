//! The worker threads of a process and their readers.

use super::committers::Gates;
use super::communication::allocators;
use super::wiring::{Entrances, Wiring, wire};
use super::work::{Requests, Station};
use super::{Build, InputPlace, InputPlan, Plan, Recovered, Shared, replay};
use crate::checkpoint::checkpointer::Event;
use crate::checkpoint::row::StateRow;
use crate::cluster::sockets::Connection;
use crate::error::{Error, Result};
use crate::limits;
use crate::pace::Cutting;
use crate::source::cache::Readers;
use crate::source::topics::Topic;
use crate::source::{Answer, owner};
use crate::time::Epoch;
use crate::watchdog;
use std::collections::BTreeMap;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use timely::worker::Worker;

/// Runs the worker threads and their readers to the end, or to the first failure. `data` are the sockets to the
/// other processes of a cluster. A process of a cluster must exit after a failure: its threads stand still.
pub(super) fn run_workers(
    plan: &Arc<Plan>,
    shared: &Arc<Shared>,
    recovered: Recovered,
    build: Build,
    gates: Gates,
    events: Sender<Event>,
    data: Option<Vec<Option<Connection>>>,
) -> Result<()> {
    let mut configuration = timely::WorkerConfig::default();
    // Without it, arrangements would keep what bursts left behind until new input came.
    let options = differential_dataflow::Config::default().idle_merge_effort(Some(1_000));
    differential_dataflow::configure(&mut configuration, &options);
    let (is_alone, threads) = (data.is_none(), plan.workers);
    let (allocators, communication) = allocators(threads, plan.process, data)?;
    let (send, ends) = channel();
    let all = All {
        plan: Arc::clone(plan),
        shared: Arc::clone(shared),
        recovered,
        build,
        gates,
        ways: Mutex::new((events, send)),
        is_alone,
    };
    let work = move |worker: &mut Worker| all.work(worker);
    let guards = timely::execute::execute_from(allocators, Box::new(()), configuration, work);
    let guards = guards.map_err(|error| Error::internal(format!("timely: {error}")))?;
    let is_good = ends.iter().take(threads).all(|is_good| is_good);
    if !is_good && !is_alone {
        // Nobody waits for workers that stand still, nor for connections that may be broken.
        std::mem::forget((guards, communication));
        return Err(shared
            .failure()
            .unwrap_or_else(|| Error::internal("a worker ended")));
    }
    for result in guards.join() {
        result.map_err(|error| Error::internal(format!("a worker ended: {error}")))?;
    }
    // Waits until the other processes have closed their connections too.
    drop(communication);
    shared.failure().map_or(Ok(()), Err)
}

/// What all worker threads of a process have in common.
struct All {
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    recovered: Recovered,
    build: Build,
    gates: Gates,
    /// For changed rows, and for how a worker has ended.
    ways: Mutex<(Sender<Event>, Sender<bool>)>,
    /// There are no other processes.
    is_alone: bool,
}

impl All {
    /// One worker, from its dataflow to its end.
    fn work(&self, worker: &mut Worker) {
        let index = worker.index();
        self.shared.pace.register();
        self.shared.watch.begin(index);
        let (events, ends) = self.ways.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut end = End { is_good: false, ends };
        let entrances = self.enter(worker, events);
        let (answer, answers) = channel();
        let requests = match readers(&self.plan, index, &answer) {
            Ok(requests) => requests,
            Err(error) => {
                self.shared.fail(error);
                Requests::default()
            }
        };
        // Whoever waits for the readers to end waits for their ends of the channel alone.
        drop(answer);
        let station = Station::new(worker, &self.plan, &self.shared, entrances, requests, answers);
        end.is_good = station.run(&self.recovered).is_ok();
        watchdog::ended();
        if end.is_good {
            return;
        }
        // Dropped while their inputs are still open: nothing downstream sees an end that is none.
        worker
            .installed_dataflows()
            .into_iter()
            .for_each(|id| worker.drop_dataflow(id));
        drop(end);
        if !self.is_alone {
            // A worker that returned would tell the other processes that it is complete. This process exits.
            loop {
                thread::park();
            }
        }
    }

    /// Builds a worker's dataflow and gives it its partitions.
    fn enter(&self, worker: &mut Worker, events: Sender<Event>) -> Entrances {
        let (index, peers, recovered) = (worker.index(), worker.peers(), &self.recovered);
        let gates = self.gates.take(index, self.plan.workers, &self.shared);
        let committed = recovered.committed.iter().copied().max().unwrap_or(0);
        let positions = (recovered.positions.clone(), committed);
        let mut entrances = worker.dataflow_named("job", |scope| {
            wire(
                scope,
                &self.plan,
                &self.shared,
                positions,
                &|wiring: &mut Wiring<'_>| (self.build)(wiring),
                gates,
                changed(events, index),
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
        entrances
    }
}

/// Says how a worker has ended, also if it panics.
struct End {
    is_good: bool,
    ends: Sender<bool>,
}

impl Drop for End {
    fn drop(&mut self) {
        let _ = self.ends.send(self.is_good); // nobody waits for the others once one has failed
    }
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
        let gather = match plan.cutting {
            Cutting::Live { interval } => interval / limits::FETCHES_PER_EPOCH,
            Cutting::Finite | Cutting::Recorded => limits::FETCH_WAIT_MAX,
        };
        let read = move || {
            crate::source::topics::read(&settings, gather, topics, &requested, &answer, || woken.unpark());
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

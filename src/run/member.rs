//! A process of a cluster that does not lead: it reads its share of the partitions, decodes, and runs the same
//! operators. It touches neither state nor outputs.
//!
//! ```text
//!  handover ─► worker threads ×N ─► all done ─► changed rows and figures are sent ─► goodbye
//!                │  ▲ pace, pressure                 ▲
//!                ▼  │                                │ in pieces, by a thread that may wait
//!              the leader ◄───────────── changed rows┘
//! ```
//!
//! A member that fails says so and exits; it never drops an input that is not at its end.

use super::committers::Gates;
use super::handover::receive;
use super::messages::{Counted, ToLeader, ToMember, decode, pieces, post, send};
use super::threads::run_workers;
use super::{Build, Plan, Recovered, Shared};
use crate::checkpoint::checkpointer::Event;
use crate::cluster::link::{Link, Outbox};
use crate::cluster::sockets::Connection;
use crate::cluster::{Cluster, Parting};
use crate::error::{Error, Kind, Result};
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::time::Epoch;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, PoisonError};
use std::thread;

/// A member that knows everything it needs to begin.
pub struct Joined {
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    recovered: Recovered,
    outbox: Outbox,
    received: Receiver<Vec<u8>>,
    data: Vec<Option<Connection>>,
    parting: Parting,
}

/// Waits for the leader's start.
pub fn join(mut plan: Plan, mut cluster: Cluster) -> Result<Joined> {
    let link = cluster.links.first_mut().and_then(Option::take);
    let Link { outbox, received } = link.ok_or_else(|| Error::internal("there is no link to the leader"))?;
    let recovered = receive(&received, &mut plan)?;
    let first = plan.process * plan.workers;
    let way = outbox.clone();
    let pace = Pace::at_leader(
        plan.cutting,
        first..first + plan.workers,
        recovered.base + 1,
        Box::new(move |told| post(&way, &ToLeader::Pace(told))),
    );
    let shared = Arc::new(Shared::new(pace, Metrics::new(plan.outputs.len())));
    shared.follows(outbox.clone());
    Ok(Joined {
        plan: Arc::new(plan),
        shared,
        recovered,
        outbox,
        received,
        data: cluster.data,
        parting: cluster.parting,
    })
}

impl Joined {
    /// What the threads of the run will share: to watch it, and to end it.
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Runs until the job is done everywhere.
    pub fn run(self, build: Build) -> Result<()> {
        let Joined {
            plan,
            shared,
            recovered,
            outbox,
            received,
            data,
            parting,
        } = self;
        let spawn = |name: &str, run: Box<dyn FnOnce() -> Result<()> + Send>| {
            let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
            thread.map_err(|error| Error::internal(format!("a thread cannot be started: {error}")))
        };
        let listening = Arc::clone(&shared);
        spawn(
            "leader",
            Box::new(move || {
                listen(&received, &listening);
                Ok(())
            }),
        )?;
        let (events, changed) = channel();
        let way = outbox.clone();
        let sending = spawn("changed-rows", Box::new(move || send_changed(&changed, &way)))?;
        let gates = Gates::new(Vec::new(), &[], events.clone());
        run_workers(&plan, &shared, recovered, build, gates, events, Some(data))?;
        let sent = sending.join();
        sent.unwrap_or_else(|_| Err(Error::internal("the thread of changed rows panicked")))?;
        send(&outbox, &counted(&shared.metrics, None))?;
        parting.close()
    }
}

/// What was counted so far; `taken` is an epoch that has just taken its first message.
pub(super) fn counted(metrics: &Metrics, taken: Option<Epoch>) -> ToLeader {
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let [undecodable, invalid, late] = &metrics.dead_letters;
    ToLeader::Counted(Counted {
        taken,
        messages_in: load(&metrics.messages_in),
        event_time: metrics.event_time.load(Ordering::Relaxed),
        dead_letters: [load(undecodable), load(invalid), load(late)],
    })
}

/// Does what the leader says, until its goodbye.
fn listen(received: &Receiver<Vec<u8>>, shared: &Shared) {
    for bytes in received {
        match decode(&bytes) {
            Ok(ToMember::Pace(news)) => {
                if let Pace::AtLeader(pace) = &shared.pace {
                    pace.hear(news);
                }
            }
            Ok(ToMember::Pressure(pressure)) => {
                let metrics = &shared.metrics;
                metrics.sealed.store(pressure.sealed, Ordering::Relaxed);
                metrics.committed.store(pressure.committed, Ordering::Relaxed);
                metrics
                    .queued_bytes
                    .store(pressure.queued_bytes, Ordering::Relaxed);
                metrics.waiting.store(pressure.waiting, Ordering::Relaxed);
            }
            Ok(ToMember::Found(partition)) => {
                let mut found = shared.found.lock().unwrap_or_else(PoisonError::into_inner);
                found.push(partition);
                shared.found_count.fetch_add(1, Ordering::Release);
            }
            Ok(
                ToMember::Plan(_)
                | ToMember::Recovered(_)
                | ToMember::Recorded(..)
                | ToMember::Rows(_)
                | ToMember::Go,
            ) => shared.fail(Error::new(Kind::PeerLost, "the leader begins a second time")),
            Err(error) => shared.fail(error),
        }
    }
}

/// Sends what the workers' cuts have changed, in pieces.
fn send_changed(events: &Receiver<Event>, outbox: &Outbox) -> Result<()> {
    for event in events {
        let Event::Changed { worker, epoch, rows } = event else {
            continue;
        };
        for (rows, is_last) in pieces(rows) {
            send(
                outbox,
                &ToLeader::Changed {
                    worker,
                    epoch,
                    rows,
                    is_last,
                },
            )?;
        }
    }
    Ok(())
}

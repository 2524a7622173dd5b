//! The process that leads a cluster, beside what every single process does.
//!
//! Process 0 is what a single process is: it claims, fences, decides, restores, commits and checkpoints. All
//! output shards belong to its workers, so one process commits under one fence, exactly as it was proved for one
//! process; outputs are few beside inputs, and their rows are encoded where they are made, before they travel.
//! To its members it hands over what they need to begin, and then it answers their workers' questions after the
//! pace, takes their changed rows to the checkpointer, and tells them how full the pipeline is.
//!
//! A member's last message comes before its goodbye, and that after its workers are done: only then are the
//! changed rows of a cut complete.

use super::handover::{hand_over, take_rows};
use super::messages::{Counted, Pressure, ToLeader, ToMember, decode, post};
use super::{FoundPartition, Plan, Recovered, Shared, now};
use crate::checkpoint::checkpointer::Event;
use crate::checkpoint::row::StateRow;
use crate::cluster::Cluster;
use crate::cluster::link::{Link, Outbox};
use crate::error::{Error, Result};
use crate::limits;
use crate::pace::{Here, Pace};
use crate::time::Epoch;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};

/// The ways from the leader to its members.
#[derive(Default)]
pub(super) struct Members {
    outboxes: Vec<Outbox>,
    /// Held while figures are read and posted, so that the last ones posted are the newest.
    figures: Mutex<()>,
}

impl Members {
    /// Tells how full the pipeline is.
    pub(super) fn tell_pressure(&self, shared: &Shared) {
        let metrics = &shared.metrics;
        let _newest_last = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        let pressure = ToMember::Pressure(Pressure {
            sealed: metrics.sealed.load(Ordering::Acquire),
            committed: metrics.committed.load(Ordering::Acquire),
            queued_bytes: metrics.queued_bytes.load(Ordering::Acquire),
            waiting: metrics.waiting.load(Ordering::Acquire),
        });
        self.outboxes.iter().for_each(|outbox| post(outbox, &pressure));
    }

    /// Tells of a partition that was found and declared.
    pub(super) fn tell_found(&self, partition: &FoundPartition) {
        let found = ToMember::Found(partition.clone());
        self.outboxes.iter().for_each(|outbox| post(outbox, &found));
    }
}

/// The threads that listen to the members.
pub(super) struct Listeners {
    threads: Vec<JoinHandle<()>>,
}

impl Listeners {
    /// Waits until every member has said goodbye.
    pub(super) fn finish(self) -> Result<()> {
        for thread in self.threads {
            let joined = thread.join();
            joined.map_err(|_| Error::internal("a thread that listens to a member panicked"))?;
        }
        Ok(())
    }
}

/// Hands over what the members need, and listens to them from then on. Of `recovered` the leader's own rows
/// are left.
pub(super) fn lead(
    cluster: &mut Cluster,
    plan: &Plan,
    recovered: &mut Recovered,
    shared: &Arc<Shared>,
    events: &Sender<Event>,
) -> Result<Listeners> {
    let Pace::Here(pace) = &shared.pace else {
        return Err(Error::internal("the leader's pace is elsewhere"));
    };
    let links: Vec<(usize, Link)> = (0..)
        .zip(&mut cluster.links)
        .filter_map(|(process, link)| Some((process, link.take()?)))
        .collect();
    let outboxes = links.iter().map(|(_, link)| link.outbox.clone()).collect();
    shared.leads(Members {
        outboxes,
        figures: Mutex::new(()),
    });
    let mut rows = take_rows(plan, recovered);
    let mut threads = Vec::new();
    for (process, Link { outbox, received }) in links {
        hand_over(&outbox, plan, recovered, std::mem::take(&mut rows[process]))?;
        let first = process * plan.workers;
        let tell = move |news| post(&outbox, &ToMember::Pace(news));
        pace.listen(first..first + plan.workers, Box::new(tell));
        let (shared, events) = (Arc::clone(shared), events.clone());
        let hear = move || listen(&received, &shared, &events);
        threads.push(spawn(&format!("member-{process}"), Box::new(hear))?);
    }
    if !plan.is_finite() && !threads.is_empty() {
        let shared = Arc::downgrade(shared);
        spawn("pulse", Box::new(move || pulse(&shared)))?;
    }
    Ok(Listeners { threads })
}

fn spawn(name: &str, run: Box<dyn FnOnce() + Send>) -> Result<JoinHandle<()>> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map_err(|error| Error::internal(format!("a thread cannot be started: {error}")))
}

/// Closes the epochs of the members' workers as they become due, for as long as somebody else holds what is
/// shared.
fn pulse(shared: &Weak<Shared>) {
    let pace = |shared: &Shared, act: &dyn Fn(&Here)| {
        if let Pace::Here(pace) = &shared.pace {
            act(pace);
        }
    };
    if let Some(shared) = shared.upgrade() {
        pace(&shared, &Here::register);
    }
    while let Some(held) = shared.upgrade() {
        pace(&held, &|pace| pace.pulse(now()));
        let due = held.pace.until_due(now()).unwrap_or(limits::PARK_LIVE);
        drop(held);
        thread::park_timeout(due.min(limits::PARK_LIVE));
    }
}

/// Does what a member says, until its goodbye.
fn listen(received: &Receiver<Vec<u8>>, shared: &Shared, events: &Sender<Event>) {
    let mut changed = BTreeMap::<(u32, Epoch), Vec<StateRow>>::new();
    let mut before = Counted::default();
    for bytes in received {
        match decode(&bytes) {
            Ok(ToLeader::Pace(told)) => {
                if let Pace::Here(pace) = &shared.pace {
                    pace.hear(told, now());
                }
            }
            Ok(ToLeader::Counted(counted)) => count(shared, &mut before, counted),
            Ok(ToLeader::Changed {
                worker,
                epoch,
                mut rows,
                is_last,
            }) => {
                changed.entry((worker, epoch)).or_default().append(&mut rows);
                if let (true, Some(rows)) = (is_last, changed.remove(&(worker, epoch))) {
                    // A checkpointer that has ended has said why.
                    let _ = events.send(Event::Changed { worker, epoch, rows });
                }
            }
            Err(error) => shared.fail(error),
        }
    }
}

/// Adds what a member has counted since `before`. Its workers post by turns, so an older figure may come later.
fn count(shared: &Shared, before: &mut Counted, counted: Counted) {
    let metrics = &shared.metrics;
    let rise = |total: &AtomicU64, before: &mut u64, now: u64| {
        total.fetch_add(now.saturating_sub(*before), Ordering::Relaxed);
        *before = now.max(*before);
    };
    rise(&metrics.messages_in, &mut before.messages_in, counted.messages_in);
    metrics
        .event_time
        .fetch_max(counted.event_time, Ordering::Relaxed);
    let reasons = before.dead_letters.iter_mut().zip(counted.dead_letters);
    for (total, (before, now)) in metrics.dead_letters.iter().zip(reasons) {
        rise(total, before, now);
    }
    // One that is committed already would be counted as the next epoch's.
    if let Some(epoch) = counted
        .taken
        .filter(|epoch| *epoch > metrics.committed.load(Ordering::Relaxed))
    {
        metrics.taken(epoch, now());
    }
}

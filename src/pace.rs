//! The pace of a run: which epoch comes next, for all workers of all processes.
//!
//! **Finite** runs are cut by the data. Every worker reports which places (see [`Place`]) it holds
//! completely; when all have, the places that everybody is sure of are announced as a [`Round`] of epochs,
//! each one place. Contents depend on the data alone, so any number of workers gives the same epochs.
//!
//! **Live** epochs are cut by monotonic time: the greater of base + elapsed / interval and the greatest epoch
//! any worker has reached. A worker closes its epoch when a later one is due and there is something to close
//! it for.
//!
//! A checkpoint's epoch must be open at every worker when it is named: in a round it is the round's last,
//! live it is one above the greatest epoch any worker has reached.
//!
//! ```text
//!  worker of the leader ─► Here: one state, one lock ◄─ hear(Told) ── link ── AtLeader ◄─ worker of a member
//!                              └──── tell(News) ────────── link ─► hear(News) ─┘
//! ```
//!
//! The decision is made in **one** place, in the process that leads ([`Here`]). A worker of another process
//! asks over a link and goes on with its epoch until the answer is there ([`AtLeader`]): to the state a worker
//! is where it was told to go, so it is at most there, and what is said of "every worker" holds a fortiori.

mod at_leader;
mod here;

pub use at_leader::AtLeader;
pub use here::Here;

use crate::source::{Held, Place};
use crate::time::Epoch;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One announced epoch of a finite run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// The epoch.
    pub epoch: Epoch,
    /// What it takes; none for an epoch that only ends with a checkpoint.
    pub place: Option<Place>,
    /// It ends with a checkpoint.
    pub cut: bool,
}

/// Epochs announced together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// In order.
    pub epochs: Vec<Announced>,
    /// The run ends with them.
    pub is_last: bool,
}

/// What a live worker does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advance {
    /// Its new epoch.
    pub to: Epoch,
    /// The epoch, from its old one on and below the new one, that ends with a checkpoint.
    pub cut: Option<Epoch>,
    /// The new epoch may take events: no later one binds anything of a table's backlog.
    pub events: bool,
    /// After this advance the worker is done.
    pub is_last: bool,
}

/// How epochs are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cutting {
    /// By the data.
    Finite,
    /// As they were cut before: nothing new is taken.
    Recorded,
    /// By the clock.
    Live {
        /// Length of an epoch.
        interval: Duration,
    },
}

/// What the workers of another process tell the leader. Workers are numbered through all processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// See [`Pace::report`].
    Holds {
        /// The worker.
        worker: usize,
        /// The round it waits for.
        round: usize,
        /// What it holds.
        held: Held,
    },
    /// Live: the worker would close its epoch.
    At {
        /// The worker.
        worker: usize,
        /// Its epoch.
        epoch: Epoch,
        /// Whether the epoch holds something.
        holds: bool,
    },
    /// See [`Pace::backlog_done`].
    BacklogDone,
    /// See [`Pace::want`].
    Wanted(Epoch),
    /// See [`Pace::drain`].
    Drain,
}

/// What the leader tells the workers of another process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// The next round, for all workers.
    Round(Arc<Round>),
    /// For one worker.
    Advance {
        /// The worker.
        worker: usize,
        /// What it does.
        advance: Advance,
    },
    /// No table has a backlog left.
    TablesAreBound,
    /// The run is to end early.
    Draining,
}

/// Where a worker's questions go.
pub enum Pace {
    /// The state is in this process.
    Here(Here),
    /// It is in the process that leads.
    AtLeader(AtLeader),
}

impl Pace {
    /// The state of a run of `workers` in all, whose new epochs start at `base`.
    pub fn new(
        cutting: Cutting,
        workers: usize,
        base: Epoch,
        checkpoint_interval: Duration,
        now: Instant,
    ) -> Pace {
        Pace::Here(Here::new(cutting, workers, base, checkpoint_interval, now))
    }

    /// For these workers of a member. `tell` reaches the leader; it never blocks.
    pub fn at_leader(
        cutting: Cutting,
        workers: Range<usize>,
        base: Epoch,
        tell: Box<dyn Fn(Told) + Send + Sync>,
    ) -> Pace {
        Pace::AtLeader(AtLeader::new(cutting, workers, base, tell))
    }

    /// How epochs are cut.
    pub fn cutting(&self) -> Cutting {
        match self {
            Pace::Here(here) => here.cutting(),
            Pace::AtLeader(leader) => leader.cutting(),
        }
    }

    /// The calling worker thread is woken when there is news.
    pub fn register(&self) {
        match self {
            Pace::Here(here) => here.register(),
            Pace::AtLeader(leader) => leader.register(),
        }
    }

    /// Takes no further messages, commits what was taken, ends.
    pub fn drain(&self) {
        match self {
            Pace::Here(here) => here.drain(),
            Pace::AtLeader(leader) => leader.drain(),
        }
    }

    /// Whether the run is to end early.
    pub fn is_draining(&self) -> bool {
        match self {
            Pace::Here(here) => here.is_draining(),
            Pace::AtLeader(leader) => leader.is_draining(),
        }
    }

    /// The last checkpoint that was cut is written. Only the leader writes any.
    pub fn checkpoint_written(&self) {
        match self {
            Pace::Here(here) => here.checkpoint_written(),
            Pace::AtLeader(_) => {}
        }
    }

    /// Finite: worker `worker` has done all rounds but those from `round` on and holds this.
    /// Gives the next round once it is announced.
    pub fn report(&self, worker: usize, round: usize, held: Held, now: Instant) -> Option<Arc<Round>> {
        match self {
            Pace::Here(here) => here.report(worker, round, held, now),
            Pace::AtLeader(leader) => leader.report(worker, round, held),
        }
    }

    /// Live: the tables of one more worker have no backlog left.
    pub fn backlog_done(&self) {
        match self {
            Pace::Here(here) => here.backlog_done(),
            Pace::AtLeader(leader) => leader.backlog_done(),
        }
    }

    /// Live: no table of any worker has a backlog left; [`Advance::events`] says from which epoch on events may
    /// be taken.
    pub fn tables_are_bound(&self) -> bool {
        match self {
            Pace::Here(here) => here.tables_are_bound(),
            Pace::AtLeader(leader) => leader.tables_are_bound(),
        }
    }

    /// Live: how long until the clock makes the next epoch due; finite, nothing is due by the clock.
    pub fn until_due(&self, now: Instant) -> Option<Duration> {
        match self {
            Pace::Here(here) => here.until_due(now),
            Pace::AtLeader(leader) => leader.until_due(),
        }
    }

    /// Live: the epoch is waited for: everybody closes what is before it.
    pub fn want(&self, epoch: Epoch) {
        match self {
            Pace::Here(here) => here.want(epoch),
            Pace::AtLeader(leader) => leader.want(epoch),
        }
    }

    /// Live: whether worker `worker`, whose epoch holds something or not, closes it now.
    pub fn advance(&self, worker: usize, holds: bool, now: Instant) -> Option<Advance> {
        match self {
            Pace::Here(here) => here.advance(worker, holds, now),
            Pace::AtLeader(leader) => leader.advance(worker, holds),
        }
    }
}

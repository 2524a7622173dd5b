//! The pace as the workers of a member see it: what they would say is sent to the leader, once, and what the
//! leader has said is kept until they ask.
//!
//! Nothing is decided here and nothing waits: a worker that has no answer yet goes on with the epoch it has.
//! What the leader says arrives in the order in which it was said.

use super::{Advance, Cutting, News, Round, Told};
use crate::limits;
use crate::source::Held;
use crate::time::Epoch;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::Duration;

/// See the [module](self).
pub struct AtLeader {
    cutting: Cutting,
    /// Number of the first worker.
    first: usize,
    tell: Box<dyn Fn(Told) + Send + Sync>,
    state: Mutex<State>,
}

struct State {
    threads: Vec<Thread>,
    workers: Vec<Worker>,
    /// How many rounds were announced, and the last of them.
    rounds: usize,
    last_round: Option<Arc<Round>>,
    bound: bool,
    draining: bool,
    /// The greatest epoch that was said to be wanted.
    wanted: Epoch,
}

/// What one worker has said and was told.
struct Worker {
    /// Finite: the round it waits for and what it holds, as said last.
    holds: Option<(usize, Held)>,
    /// Live: its epoch.
    at: Epoch,
    /// Live: whether it has said that it would close it, and whether it holds something.
    asked: Option<bool>,
    /// Live: what it was told and has not done yet.
    advance: Option<Advance>,
}

impl AtLeader {
    pub(super) fn new(
        cutting: Cutting,
        workers: Range<usize>,
        base: Epoch,
        tell: Box<dyn Fn(Told) + Send + Sync>,
    ) -> Self {
        let worker = |_| Worker {
            holds: None,
            at: base,
            asked: None,
            advance: None,
        };
        let first = workers.start;
        let state = State {
            threads: Vec::new(),
            workers: workers.map(worker).collect(),
            rounds: 0,
            last_round: None,
            bound: false,
            draining: false,
            wanted: base,
        };
        let state = Mutex::new(state);
        AtLeader {
            cutting,
            first,
            tell,
            state,
        }
    }

    /// The leader has said this.
    pub fn hear(&self, news: News) {
        let mut state = self.lock();
        match news {
            News::Round(round) => {
                state.rounds += 1;
                state.last_round = Some(round);
            }
            News::Advance { worker, advance } => {
                let mine = worker.checked_sub(self.first);
                if let Some(worker) = mine.and_then(|worker| state.workers.get_mut(worker)) {
                    worker.advance = Some(advance);
                }
            }
            News::TablesAreBound => state.bound = true,
            News::Draining => state.draining = true,
        }
        state.threads.iter().for_each(Thread::unpark);
    }

    pub(super) fn cutting(&self) -> Cutting {
        self.cutting
    }

    pub(super) fn register(&self) {
        self.lock().threads.push(std::thread::current());
    }

    pub(super) fn drain(&self) {
        (self.tell)(Told::Drain);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.lock().draining
    }

    pub(super) fn report(&self, worker: usize, round: usize, held: Held) -> Option<Arc<Round>> {
        let mut state = self.lock();
        if round < state.rounds {
            return state.last_round.clone();
        }
        let holds = Some((round, held));
        let said = &mut state.workers[worker - self.first].holds;
        if *said != holds {
            said.clone_from(&holds);
            if let Some((round, held)) = holds {
                (self.tell)(Told::Holds { worker, round, held });
            }
        }
        None
    }

    pub(super) fn backlog_done(&self) {
        (self.tell)(Told::BacklogDone);
    }

    pub(super) fn tables_are_bound(&self) -> bool {
        self.lock().bound
    }

    /// The leader's clock counts; its word wakes the workers.
    pub(super) fn until_due(&self) -> Option<Duration> {
        match self.cutting {
            Cutting::Finite => None,
            Cutting::Live { .. } => Some(limits::PARK_LIVE),
        }
    }

    pub(super) fn want(&self, epoch: Epoch) {
        let mut state = self.lock();
        if epoch > state.wanted {
            state.wanted = epoch;
            (self.tell)(Told::Wanted(epoch));
        }
    }

    pub(super) fn advance(&self, worker: usize, holds: bool) -> Option<Advance> {
        let mut state = self.lock();
        let own = &mut state.workers[worker - self.first];
        if let Some(advance) = own.advance.take() {
            (own.at, own.asked) = (advance.to, None);
            return Some(advance);
        }
        if own.asked != Some(holds) {
            own.asked = Some(holds);
            let epoch = own.at;
            (self.tell)(Told::At { worker, epoch, holds });
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A worker that panics ends the process; the state is never seen half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

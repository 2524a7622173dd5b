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
        let holds = Some((round, held.first(limits::ANNOUNCED_EPOCHS)));
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
            Cutting::Finite | Cutting::Recorded => None,
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

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests start from some instant")]
mod tests {
    use super::super::{Here, Pace};
    use super::*;
    use crate::checkpoint::unreliable::Random;
    use crate::source::Place;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Instant;

    /// One leader with worker 0 and two members with two workers each; what they say travels for as long as a test
    /// wants.
    struct Cluster {
        leader: Pace,
        members: Vec<(Pace, Receiver<Told>, Receiver<News>)>,
        workers: Vec<Simulated>,
        now: Instant,
    }

    /// A live worker as far as its pace goes.
    #[derive(Default)]
    struct Simulated {
        at: Epoch,
        cuts: Vec<Epoch>,
        has_backlog: bool,
        is_done: bool,
    }

    impl Cluster {
        fn new(cutting: Cutting) -> Cluster {
            let now = Instant::now();
            let leader = Pace::new(cutting, 5, 100, Duration::from_millis(50), now);
            let member = |first: usize| {
                let (tell, told) = channel();
                let tell: Box<dyn Fn(Told) + Send + Sync> = Box::new(move |what| drop(tell.send(what)));
                let (news, heard) = channel();
                if let Pace::Here(leader) = &leader {
                    leader.listen(first..first + 2, Box::new(move |what| drop(news.send(what))));
                }
                (Pace::at_leader(cutting, first..first + 2, 100, tell), told, heard)
            };
            let members = [1, 3].map(member).into();
            let worker = || Simulated {
                at: 100,
                has_backlog: true,
                ..Simulated::default()
            };
            Cluster {
                leader,
                members,
                workers: (0..5).map(|_| worker()).collect(),
                now,
            }
        }

        fn leader(&self) -> &Here {
            match &self.leader {
                Pace::Here(here) => here,
                Pace::AtLeader(_) => panic!("the leader decides here"),
            }
        }

        fn pace_of(&self, worker: usize) -> &Pace {
            match worker {
                0 => &self.leader,
                worker => &self.members[(worker - 1) / 2].0,
            }
        }

        /// One message of one member, to it or from it, arrives.
        fn deliver(&self, member: usize, to_leader: bool) {
            let (pace, told, heard) = &self.members[member];
            if to_leader {
                told.try_iter()
                    .take(1)
                    .for_each(|told| self.leader().hear(told, self.now));
            } else if let Pace::AtLeader(pace) = pace {
                heard.try_iter().take(1).for_each(|news| pace.hear(news));
            }
        }

        /// A live worker takes a turn; gives the epoch it goes to and whether that may take events.
        fn turn(&mut self, worker: usize, holds: bool) -> Option<(Epoch, bool)> {
            if self.workers[worker].is_done {
                return None;
            }
            let advance = self.pace_of(worker).advance(worker, holds, self.now)?;
            let own = &mut self.workers[worker];
            assert!(advance.to > own.at, "{advance:?} from {}", own.at);
            if let Some(cut) = advance.cut {
                assert!((own.at..advance.to).contains(&cut), "{advance:?} from {}", own.at);
                own.cuts.push(cut);
            }
            (own.at, own.is_done) = (advance.to, advance.is_last);
            Some((advance.to, advance.events))
        }
    }

    /// However long messages travel: every worker ends the same epochs with a checkpoint, and has not closed one
    /// before it was named; and no epoch that takes events lies below one that binds some of a backlog.
    #[test]
    fn cuts_and_tables_are_the_same_everywhere_however_slow_the_links_are() {
        for seed in 0..200 {
            let mut random = Random(seed);
            let interval = Duration::from_millis(10);
            let mut cluster = Cluster::new(Cutting::Live { interval });
            let (mut bound_at, mut cuts_seen, mut first_event) = (0, 0, None);
            for step in 0..60_000_u64 {
                cluster.now += Duration::from_micros(random.below(400));
                let worker = random.below(5) as usize;
                match random.below(6) {
                    0 | 1 => cluster.deliver(random.below(2) as usize, true),
                    2 | 3 => cluster.deliver(random.below(2) as usize, false),
                    4 => {
                        cluster.leader().pulse(cluster.now);
                        if random.below(40) == 0 {
                            cluster.leader().checkpoint_written();
                        }
                    }
                    _ => {
                        if cluster.workers[worker].has_backlog && random.below(100) == 0 {
                            cluster.workers[worker].has_backlog = false;
                            bound_at = bound_at.max(cluster.workers[worker].at);
                            cluster.pace_of(worker).backlog_done();
                        }
                        let holds = random.below(3) > 0;
                        if let Some((to, true)) = cluster.turn(worker, holds) {
                            assert!(
                                to >= bound_at,
                                "seed {seed}: events in {to}, tables in {bound_at}"
                            );
                            first_event = first_event.or(Some(step));
                        }
                    }
                }
                if step == 40_000 {
                    let drained = random.below(5) as usize;
                    cluster.pace_of(drained).drain();
                }
                cuts_seen = cuts_seen.max(cluster.workers[0].cuts.len());
                if cluster.workers.iter().all(|worker| worker.is_done) {
                    break;
                }
            }
            let first = &cluster.workers[0];
            for worker in &cluster.workers {
                assert!(worker.is_done, "seed {seed}: a worker never ends");
                assert_eq!(worker.cuts, first.cuts, "seed {seed}");
            }
            assert!(first_event.is_some(), "seed {seed}: no event was taken");
            assert!(cuts_seen > 2, "seed {seed}: {cuts_seen} cuts are too few");
        }
    }

    /// A worker that holds much says only what the next round can need, and the round is the same.
    #[test]
    fn a_long_report_is_cut_without_changing_the_round() {
        let now = Instant::now();
        let places = |from: i64, step: usize| -> Vec<Place> {
            let ticks = (from..1_000).step_by(step);
            ticks.map(|tick| Place::new(Some(tick), 1, false)).collect()
        };
        let held = |complete: &[Place]| Held {
            complete: complete.to_vec(),
            next: Place::new(Some(1_000), 1, false),
            ready: false,
        };
        let round = |cut: usize| {
            let pace = Here::new(Cutting::Finite, 2, 1, Duration::MAX, now);
            pace.report(0, 0, held(&places(0, 3)), now);
            pace.report(1, 0, held(&places(1, 1)).first(cut), now)
        };
        let cut = round(limits::ANNOUNCED_EPOCHS).expect("both have reported");
        assert_eq!(cut, round(usize::MAX).expect("both have reported"));
        assert_eq!(cut.epochs.len(), limits::ANNOUNCED_EPOCHS);
    }

    #[test]
    fn a_round_is_announced_to_everybody_once_all_have_reported() {
        let cluster = Cluster::new(Cutting::Finite);
        let held = |next: Place| Held {
            complete: Vec::new(),
            next,
            ready: true,
        };
        let place = Place::new(Some(7), 1, false);
        for round in 0..3 {
            let report = |worker: usize| {
                let pace = cluster.pace_of(worker);
                pace.report(worker, round, held(place), cluster.now)
            };
            for worker in (0..5).rev() {
                assert_eq!(
                    report(worker),
                    None,
                    "nobody has heard of worker {worker}, or of all"
                );
            }
            for member in &cluster.members {
                assert_eq!(
                    member
                        .1
                        .try_iter()
                        .inspect(|told| cluster.leader().hear(told.clone(), cluster.now))
                        .count(),
                    2
                );
            }
            let announced = report(0).expect("all have reported");
            for (pace, _, heard) in &cluster.members {
                let Pace::AtLeader(pace) = pace else {
                    panic!("a member asks its leader")
                };
                heard.try_iter().for_each(|news| pace.hear(news));
            }
            for worker in 1..5 {
                assert_eq!(report(worker), Some(Arc::clone(&announced)));
            }
        }
    }
}

//! The pace of a run: which epoch comes next, for all workers of a process.
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
//! One lock, taken once per round or epoch and worker, never per record.

use crate::source::{Held, Place};
use crate::time::Epoch;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// One announced epoch of a finite run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The epoch.
    pub epoch: Epoch,
    /// What it takes; none for an epoch that only ends with a checkpoint.
    pub place: Option<Place>,
    /// It ends with a checkpoint.
    pub cut: bool,
}

/// Epochs announced together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// In order.
    pub epochs: Vec<Announced>,
    /// The run ends with them.
    pub is_last: bool,
}

/// What a live worker does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advance {
    /// Its new epoch.
    pub to: Epoch,
    /// The epoch, from its old one on and below the new one, that ends with a checkpoint.
    pub cut: Option<Epoch>,
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

/// See the [module](self).
pub struct Pace {
    state: Mutex<State>,
    cutting: Cutting,
    started: Instant,
    checkpoint_interval: Duration,
}

struct State {
    /// The next epoch of a finite run; live, the first one.
    base: Epoch,
    last_cut: Instant,
    /// A checkpoint was cut and is not written: the next one waits.
    unwritten: bool,
    /// Drain: no further messages, a last checkpoint, the end.
    draining: bool,
    /// The worker threads.
    threads: Vec<Thread>,
    /// Finite: what each worker holds, until the next round is announced.
    held: Vec<Option<Held>>,
    rounds: Vec<Arc<Round>>,
    /// Live: the epoch each worker is in.
    at: Vec<Epoch>,
    advanced: Vec<Instant>,
    /// Live: the greatest epoch that holds something.
    wanted: Epoch,
    /// Live: the epoch of the checkpoint in progress, and that of the one before.
    cut: Option<Epoch>,
    was_cut: Epoch,
    /// Live: the epoch everything ends with.
    last: Option<Epoch>,
    /// Live: workers whose tables have a backlog left.
    backlogs: usize,
}

impl State {
    fn wake_all(&self) {
        self.threads.iter().for_each(Thread::unpark);
    }
}

/// A live worker without messages still closes its epochs this often, so that idle partitions and status move
/// on.
const QUIET: Duration = Duration::from_secs(1);

impl Pace {
    /// A run whose new epochs start at `base`.
    pub fn new(
        cutting: Cutting,
        workers: usize,
        base: Epoch,
        checkpoint_interval: Duration,
        now: Instant,
    ) -> Self {
        let state = State {
            base,
            last_cut: now,
            unwritten: false,
            draining: false,
            threads: Vec::new(),
            held: vec![None; workers],
            rounds: Vec::new(),
            at: vec![base; workers],
            advanced: vec![now; workers],
            wanted: base,
            cut: None,
            was_cut: base,
            last: None,
            backlogs: workers,
        };
        Pace {
            state: Mutex::new(state),
            cutting,
            started: now,
            checkpoint_interval,
        }
    }

    /// How epochs are cut.
    pub fn cutting(&self) -> Cutting {
        self.cutting
    }

    /// Takes no further messages, commits what was taken, ends.
    pub fn drain(&self) {
        let mut state = self.lock();
        state.draining = true;
        state.wake_all();
    }

    /// The last checkpoint that was cut is written.
    pub fn checkpoint_written(&self) {
        self.lock().unwritten = false;
    }

    /// Whether the run is to end early.
    pub fn is_draining(&self) -> bool {
        self.lock().draining
    }

    /// The calling worker thread is woken when there is news.
    pub fn register(&self) {
        self.lock().threads.push(std::thread::current());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A worker that panics aborts the process; the state is never seen half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finite: worker `worker` has done all rounds but those from `round` on and holds this.
    /// Gives the next round once it is announced.
    pub fn report(&self, worker: usize, round: usize, held: Held, now: Instant) -> Option<Arc<Round>> {
        let mut state = self.lock();
        if let Some(round) = state.rounds.get(round) {
            return Some(Arc::clone(round));
        }
        state.held[worker] = Some(held);
        let held = state.held.iter().flatten().cloned().collect::<Vec<_>>();
        if held.len() < state.held.len() {
            return None;
        }
        let together = held.into_iter().fold(Held::NOTHING, Held::join);
        let is_due = !state.unwritten && now.duration_since(state.last_cut) >= self.checkpoint_interval;
        let base = state.base;
        let round = next_round(together, base, state.draining, is_due)?;
        if round.epochs.iter().any(|epoch| epoch.cut) {
            (state.last_cut, state.unwritten) = (now, true);
        }
        state.base += round.epochs.len() as Epoch;
        state.held.iter_mut().for_each(|held| *held = None);
        state.rounds.push(Arc::new(round));
        state.wake_all();
        state.rounds.last().cloned()
    }

    /// Live: the worker's tables have no backlog left.
    pub fn backlog_done(&self) {
        let mut state = self.lock();
        state.backlogs = state.backlogs.saturating_sub(1);
    }

    /// Live: no table of any worker has a backlog left, so events may be taken, from the worker's next epoch
    /// on.
    pub fn tables_are_bound(&self) -> bool {
        self.lock().backlogs == 0
    }

    /// Live: how long until the clock makes the next epoch due; finite, nothing is due by the clock.
    pub fn until_due(&self, now: Instant) -> Option<Duration> {
        let Cutting::Live { interval } = self.cutting else {
            return None;
        };
        let interval = interval.as_nanos().max(1);
        let over = now.duration_since(self.started).as_nanos() % interval;
        Some(Duration::from_nanos(
            u64::try_from(interval - over).unwrap_or(u64::MAX),
        ))
    }

    /// Live: the epoch is waited for: everybody closes what is before it.
    pub fn want(&self, epoch: Epoch) {
        let mut state = self.lock();
        state.wanted = state.wanted.max(epoch);
    }

    /// Live: whether worker `worker`, whose epoch holds something or not, closes it now.
    pub fn advance(&self, worker: usize, holds: bool, now: Instant) -> Option<Advance> {
        let Cutting::Live { interval } = self.cutting else {
            return None;
        };
        let mut state = self.lock();
        let current = state.at[worker];
        if holds {
            state.wanted = state.wanted.max(current);
        }
        let heard = state.at.iter().copied().max().unwrap_or(current);
        let is_due = !state.unwritten && now.duration_since(state.last_cut) >= self.checkpoint_interval;
        if state.last.is_none() && state.draining {
            state.last = Some(heard + 1);
            state.cut = state.last;
        } else if state.cut.is_none() && is_due && state.last.is_none() && state.wanted > state.was_cut {
            (state.cut, state.was_cut) = (Some(heard + 1), heard + 1);
            (state.last_cut, state.unwritten) = (now, true);
        }
        let elapsed = now.duration_since(self.started).as_nanos() / interval.as_nanos().max(1);
        let by_clock = state.base + Epoch::try_from(elapsed).unwrap_or(Epoch::MAX / 2);
        let mut target = by_clock.max(heard);
        if let Some(cut) = state.cut {
            target = target.max(cut + 1);
        }
        let quiet = now.duration_since(state.advanced[worker]) >= QUIET;
        let asked = holds || state.wanted >= current || state.cut.is_some_and(|cut| cut >= current) || quiet;
        if target <= current || !asked {
            return None;
        }
        let cut = state.cut.filter(|cut| (current..target).contains(cut));
        state.at[worker] = target;
        state.advanced[worker] = now;
        if state.cut.is_some_and(|cut| state.at.iter().all(|at| *at > cut)) {
            state.cut = None;
        }
        let is_last = state.last.is_some_and(|last| target > last);
        Some(Advance {
            to: target,
            cut,
            is_last,
        })
    }
}

/// The epochs that everybody is sure of; none as long as the least place is not known well enough.
fn next_round(held: Held, base: Epoch, draining: bool, cut_is_due: bool) -> Option<Round> {
    let last = |at| Announced {
        epoch: at,
        place: None,
        cut: true,
    };
    if draining || (held.next == Place::END && held.complete.is_empty()) {
        return Some(Round {
            epochs: vec![last(base)],
            is_last: true,
        });
    }
    let mut places = held.complete;
    if places.is_empty() {
        if !held.ready {
            return None;
        }
        places.push(held.next);
    }
    places.truncate(crate::limits::ANNOUNCED_EPOCHS);
    let announce = |(place, epoch)| Announced {
        epoch,
        place: Some(place),
        cut: false,
    };
    let mut epochs = places.into_iter().zip(base..).map(announce).collect::<Vec<_>>();
    if let Some(epoch) = epochs.last_mut() {
        epoch.cut = cut_is_due;
    }
    Some(Round {
        epochs,
        is_last: false,
    })
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests start from some instant")]
mod tests {
    use super::*;

    fn place(tick: i64) -> Place {
        Place::new(Some(tick), 1, false)
    }

    fn held(complete: &[i64], next: Option<i64>, ready: bool) -> Held {
        let complete = complete.iter().map(|tick| place(*tick)).collect();
        Held {
            complete,
            next: next.map_or(Place::END, place),
            ready,
        }
    }

    /// The places of a round, by epoch.
    fn epochs(round: &Round) -> Vec<(Epoch, Option<Place>)> {
        round
            .epochs
            .iter()
            .map(|epoch| (epoch.epoch, epoch.place))
            .collect()
    }

    #[test]
    fn a_round_is_what_everybody_is_sure_of() {
        let now = Instant::now();
        let pace = Pace::new(Cutting::Finite, 2, 1, Duration::MAX, now);
        assert_eq!(
            pace.report(0, 0, held(&[1, 3], Some(5), false), now),
            None,
            "the other has not reported"
        );
        let round = pace
            .report(1, 0, held(&[2], Some(3), false), now)
            .expect("both have");
        // The other worker may have more of tick 3, so tick 3 must wait.
        assert_eq!(epochs(&round), [(1, Some(place(1))), (2, Some(place(2)))]);
        assert_eq!(
            pace.report(0, 0, held(&[1], None, true), now),
            Some(round),
            "the same for everybody"
        );
    }

    #[test]
    fn a_tick_too_large_for_an_epoch_is_cut() {
        let now = Instant::now();
        let pace = Pace::new(Cutting::Finite, 2, 1, Duration::MAX, now);
        pace.report(0, 0, held(&[], Some(7), false), now);
        assert_eq!(
            pace.report(1, 0, held(&[], Some(7), true), now),
            None,
            "one of them is not ready"
        );
        let round = pace
            .report(0, 0, held(&[], Some(7), true), now)
            .expect("both are");
        assert_eq!(epochs(&round), [(1, Some(place(7)))]);
    }

    #[test]
    fn the_last_round_ends_with_a_checkpoint() {
        let now = Instant::now();
        let pace = Pace::new(Cutting::Finite, 1, 9, Duration::MAX, now);
        let round = pace.report(0, 0, Held::NOTHING, now).expect("nothing is held");
        assert!(
            round.is_last
                && round.epochs
                    == [Announced {
                        epoch: 9,
                        place: None,
                        cut: true
                    }]
        );
    }

    #[test]
    fn draining_ends_at_once() {
        let now = Instant::now();
        let pace = Pace::new(Cutting::Finite, 1, 1, Duration::MAX, now);
        pace.drain();
        let round = pace
            .report(0, 0, held(&[1, 2], None, true), now)
            .expect("a last round");
        assert!(round.is_last && round.epochs.iter().all(|epoch| epoch.place.is_none()));
    }

    fn live(workers: usize, now: Instant) -> Pace {
        let interval = Duration::from_millis(10);
        Pace::new(
            Cutting::Live { interval },
            workers,
            100,
            Duration::from_secs(5),
            now,
        )
    }

    #[test]
    fn live_epochs_follow_the_clock_and_the_peers() {
        let now = Instant::now();
        let pace = live(2, now);
        assert_eq!(pace.advance(0, true, now), None, "its time is not over");
        let later = now + Duration::from_millis(35);
        assert_eq!(pace.advance(0, true, later).map(|advance| advance.to), Some(103));
        // The peer's clock is behind; it has heard of 103.
        assert_eq!(pace.advance(1, false, now).map(|advance| advance.to), Some(103));
        assert_eq!(
            pace.advance(1, false, later),
            None,
            "there is nothing to close an epoch for"
        );
    }

    #[test]
    fn the_next_epoch_is_due_at_the_end_of_the_interval() {
        let now = Instant::now();
        let pace = live(1, now);
        let at = |millis| pace.until_due(now + Duration::from_millis(millis));
        let left = [0, 3, 10, 19].map(|millis| at(millis).map(|left| left.as_millis()));
        assert_eq!(left, [Some(10), Some(7), Some(10), Some(1)]);
        assert_eq!(
            Pace::new(Cutting::Finite, 1, 1, Duration::MAX, now).until_due(now),
            None
        );
    }

    #[test]
    fn a_checkpoint_is_cut_in_an_epoch_still_open_everywhere() {
        let now = Instant::now();
        let pace = live(2, now);
        let early = now + Duration::from_millis(10);
        assert!(pace.advance(0, true, early).is_some());
        assert!(pace.advance(1, true, early).is_some());
        let due = now + Duration::from_secs(6);
        let first = pace.advance(0, true, due).expect("due");
        let second = pace.advance(1, true, due).expect("due");
        assert_eq!(first.cut, second.cut);
        assert!(first.cut.is_some_and(|cut| cut > 101 && cut < first.to));
        let again = pace
            .advance(0, true, due + Duration::from_secs(6))
            .expect("its time is over");
        assert_eq!(again.cut, None, "the last one is not written");
        pace.checkpoint_written();
        let again = pace
            .advance(1, true, due + Duration::from_secs(12))
            .expect("its time is over");
        assert!(again.cut.is_some());
    }

    #[test]
    fn a_drained_live_run_ends_everywhere_with_the_same_checkpoint() {
        let now = Instant::now();
        let pace = live(3, now);
        pace.drain();
        let ends: Vec<Advance> = (0..3)
            .filter_map(|worker| pace.advance(worker, false, now))
            .collect();
        assert_eq!(ends.len(), 3);
        assert!(
            ends.iter()
                .all(|end| end.is_last && end.cut == ends[0].cut && end.cut.is_some())
        );
    }
}

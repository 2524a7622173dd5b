//! The one state of a run's pace, under one lock that is taken once per round or epoch and worker, never per
//! record.
//!
//! Workers of other processes are heard through [`Here::hear`], and told through what [`Here::listen`] was
//! given; live, somebody calls [`Here::pulse`] when an epoch is due, for those workers cannot ask by
//! themselves whether it is.

use super::{Advance, Announced, Cutting, News, Round, Told};
use crate::source::{Held, Place};
use crate::time::Epoch;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// See the [module](self).
pub struct Here {
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
    /// The worker threads of this process.
    threads: Vec<Thread>,
    /// The ways to the other processes. They never block.
    listeners: Vec<Listener>,
    /// Finite: what each worker holds, until the next round is announced.
    held: Vec<Option<Held>>,
    /// How many rounds are announced, and the last of them: everybody has done those before it.
    rounds: usize,
    last_round: Option<Arc<Round>>,
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
    /// Live: workers of other processes that would close the epoch they are in, and whether it holds something.
    standing: Vec<Option<bool>>,
}

/// Workers of another process, and the way to them.
type Listener = (Range<usize>, Box<dyn Fn(News) + Send>);

impl State {
    /// Workers here look for themselves; the others are told.
    fn tell_all(&self, news: &News) {
        self.threads.iter().for_each(Thread::unpark);
        self.listeners.iter().for_each(|(_, tell)| tell(news.clone()));
    }
}

/// A live worker without messages still closes its epochs this often, so that idle partitions and status move
/// on.
const QUIET: Duration = Duration::from_secs(1);

impl Here {
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
            listeners: Vec::new(),
            held: vec![None; workers],
            rounds: 0,
            last_round: None,
            at: vec![base; workers],
            advanced: vec![now; workers],
            wanted: base,
            cut: None,
            was_cut: base,
            last: None,
            backlogs: workers,
            standing: vec![None; workers],
        };
        Here {
            state: Mutex::new(state),
            cutting,
            started: now,
            checkpoint_interval,
        }
    }

    /// See [`super::Pace::cutting`].
    pub fn cutting(&self) -> Cutting {
        self.cutting
    }

    /// See [`super::Pace::drain`].
    pub fn drain(&self) {
        let mut state = self.lock();
        state.draining = true;
        state.tell_all(&News::Draining);
    }

    /// See [`super::Pace::checkpoint_written`].
    pub fn checkpoint_written(&self) {
        self.lock().unwritten = false;
    }

    /// See [`super::Pace::is_draining`].
    pub fn is_draining(&self) -> bool {
        self.lock().draining
    }

    /// See [`super::Pace::register`].
    pub fn register(&self) {
        self.lock().threads.push(std::thread::current());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A worker that panics aborts the process; the state is never seen half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`super::Pace::report`].
    pub fn report(&self, worker: usize, round: usize, held: Held, now: Instant) -> Option<Arc<Round>> {
        let mut state = self.lock();
        if round < state.rounds {
            return state.last_round.clone();
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
        state.rounds += 1;
        let round = Arc::new(round);
        state.last_round = Some(Arc::clone(&round));
        state.tell_all(&News::Round(Arc::clone(&round)));
        Some(round)
    }

    /// See [`super::Pace::backlog_done`].
    pub fn backlog_done(&self) {
        let mut state = self.lock();
        state.backlogs = state.backlogs.saturating_sub(1);
        if state.backlogs == 0 {
            state.tell_all(&News::TablesAreBound);
        }
    }

    /// See [`super::Pace::tables_are_bound`].
    pub fn tables_are_bound(&self) -> bool {
        self.lock().backlogs == 0
    }

    /// See [`super::Pace::until_due`].
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

    /// See [`super::Pace::want`].
    pub fn want(&self, epoch: Epoch) {
        let mut state = self.lock();
        state.wanted = state.wanted.max(epoch);
    }

    /// See [`super::Pace::advance`].
    pub fn advance(&self, worker: usize, holds: bool, now: Instant) -> Option<Advance> {
        self.advance_in(&mut self.lock(), worker, holds, now)
    }

    fn advance_in(&self, state: &mut State, worker: usize, holds: bool, now: Instant) -> Option<Advance> {
        let Cutting::Live { interval } = self.cutting else {
            return None;
        };
        let current = state.at[worker];
        if holds {
            state.wanted = state.wanted.max(current);
        }
        let heard = state.at.iter().copied().max().unwrap_or(current);
        let is_due = !state.unwritten && now.duration_since(state.last_cut) >= self.checkpoint_interval;
        // One checkpoint after the other, the last one too: whoever has passed a cut has ended an epoch with it.
        if state.cut.is_none() && state.last.is_none() && state.draining {
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
        // Whoever bound the last of a backlog did so in the epoch it was in, which is not above this one.
        let events = state.backlogs == 0;
        Some(Advance {
            to: target,
            cut,
            events,
            is_last,
        })
    }

    /// What concerns these workers of another process goes to `tell`, which never blocks.
    pub fn listen(&self, workers: Range<usize>, tell: Box<dyn Fn(News) + Send>) {
        self.lock().listeners.push((workers, tell));
    }

    /// A worker of another process has said this.
    pub fn hear(&self, told: Told, now: Instant) {
        match told {
            Told::Holds { worker, round, held } => {
                // Of a worker that there is: what comes over a link is not trusted to fit.
                if worker < self.lock().held.len() {
                    self.report(worker, round, held, now);
                }
            }
            Told::At { worker, epoch, holds } => {
                let state = &mut *self.lock();
                // What was said of an epoch that it was told to leave in the meantime is void.
                if state.at.get(worker) == Some(&epoch) {
                    state.standing[worker] = Some(holds);
                }
            }
            Told::BacklogDone => self.backlog_done(),
            Told::Wanted(epoch) => self.want(epoch),
            Told::Drain => self.drain(),
        }
        self.pulse(now);
    }

    /// Live: tells the workers of other processes whose epochs close now.
    pub fn pulse(&self, now: Instant) {
        // One lock from the question to the answer: an epoch is closed once.
        let state = &mut *self.lock();
        for worker in 0..state.standing.len() {
            let holds = state.standing[worker];
            if let Some(advance) = holds.and_then(|holds| self.advance_in(state, worker, holds, now)) {
                state.standing[worker] = None;
                let of_worker = state
                    .listeners
                    .iter()
                    .filter(|(workers, _)| workers.contains(&worker));
                of_worker.for_each(|(_, tell)| tell(News::Advance { worker, advance }));
            }
        }
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
        let pace = Here::new(Cutting::Finite, 2, 1, Duration::MAX, now);
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
        let pace = Here::new(Cutting::Finite, 2, 1, Duration::MAX, now);
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
        let pace = Here::new(Cutting::Finite, 1, 9, Duration::MAX, now);
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
        let pace = Here::new(Cutting::Finite, 1, 1, Duration::MAX, now);
        pace.drain();
        let round = pace
            .report(0, 0, held(&[1, 2], None, true), now)
            .expect("a last round");
        assert!(round.is_last && round.epochs.iter().all(|epoch| epoch.place.is_none()));
    }

    fn live(workers: usize, now: Instant) -> Here {
        let interval = Duration::from_millis(10);
        Here::new(
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
            Here::new(Cutting::Finite, 1, 1, Duration::MAX, now).until_due(now),
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
    fn a_drain_waits_until_everybody_has_passed_the_cut_before() {
        let now = Instant::now();
        let pace = live(2, now);
        let early = now + Duration::from_millis(10);
        assert!(
            [0, 1]
                .map(|worker| pace.advance(worker, true, early))
                .iter()
                .all(Option::is_some)
        );
        let due = now + Duration::from_secs(6);
        let first = pace.advance(0, true, due).expect("due");
        pace.drain();
        assert_eq!(
            pace.advance(0, true, due),
            None,
            "the other has not passed the cut"
        );
        let second = pace.advance(1, false, due).expect("it passes it now");
        assert!(first.cut.is_some() && second.cut == first.cut && !second.is_last);
        let ends = [0, 1].map(|worker| pace.advance(worker, false, due).expect("the end"));
        assert!(
            ends.iter()
                .all(|end| end.is_last && end.cut > first.cut && end.cut == ends[0].cut)
        );
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

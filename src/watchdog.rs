//! Whether every worker makes progress, and where it was last seen if it does not.
//!
//! ```text
//!  worker thread: begin ─► (turned ─► stepping ─► operator.enter() ...)* ─► end      (its Place: two stores)
//!  watching thread: Watcher::look(now) every second ─► none, or "worker 1 stands still in ..."
//! ```
//!
//! Progress is a turn of the worker's loop, an operator that is entered, or one that takes in another batch: a
//! long epoch is none, a loop that never ends is a stall. timely's own log of operators would not show the one
//! that hangs, for it is handed over after the step; so our operators say themselves that they are entered:
//! two stores into the thread's own place for each batch, nothing for a record. Operators of the libraries (an
//! arrangement, a join) do not; a worker that hangs in one is last seen in the operator before it.
//!
//! A watcher that was itself away (the process was stopped) blames nobody for that time.

use crate::error::{Error, Kind};
use std::cell::OnceCell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Names of operators, by number; the first two are none.
static NAMES: Mutex<Vec<String>> = Mutex::new(Vec::new());

const LOOP: usize = 0;
const STEP: usize = 1;

thread_local! {
    static HERE: OnceCell<Arc<Place>> = const { OnceCell::new() };
}

/// Where one worker is.
#[derive(Default)]
struct Place {
    worker: usize,
    progress: AtomicU64,
    operator: AtomicUsize,
    has_ended: AtomicBool,
}

impl Place {
    fn enter(&self, operator: usize) {
        self.operator.store(operator, Ordering::Relaxed);
        // Only the worker itself writes it.
        let progress = self.progress.load(Ordering::Relaxed);
        self.progress.store(progress + 1, Ordering::Relaxed);
    }
}

fn enter(operator: usize) {
    HERE.with(|here| {
        if let Some(place) = here.get() {
            place.enter(operator);
        }
    });
}

fn names() -> MutexGuard<'static, Vec<String>> {
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An operator that says when it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operator(usize);

impl Operator {
    /// The operator of this name, on any worker.
    pub fn named(name: &str) -> Operator {
        let mut names = names();
        let number = names.iter().position(|known| known == name).unwrap_or_else(|| {
            names.push(name.to_owned());
            names.len() - 1
        });
        Operator(number + STEP + 1)
    }

    /// The operator begins, or takes in the next batch. Nothing where nobody watches.
    pub fn enter(self) {
        enter(self.0);
    }
}

/// The workers of a process.
#[derive(Default)]
pub struct Watch(Mutex<Vec<Arc<Place>>>);

impl Watch {
    fn places(&self) -> MutexGuard<'_, Vec<Arc<Place>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calling thread is this worker from now on.
    pub fn begin(&self, worker: usize) {
        let place = HERE.with(|here| {
            let place = here.get_or_init(|| {
                Arc::new(Place {
                    worker,
                    ..Place::default()
                })
            });
            Arc::clone(place)
        });
        self.places().push(place);
    }
}

/// The calling worker has finished a turn: it reads and decodes.
pub fn turned() {
    enter(LOOP);
}

/// The calling worker begins to step its dataflow.
pub fn stepping() {
    enter(STEP);
}

/// The calling worker is done, one way or the other, and no longer watched.
pub fn ended() {
    HERE.with(|here| {
        if let Some(place) = here.get() {
            place.has_ended.store(true, Ordering::Relaxed);
        }
    });
}

/// What was seen of the workers so far.
pub struct Watcher {
    stall: Duration,
    looked: Option<Instant>,
    /// In the order in which they began: their progress, and since when it is that.
    seen: Vec<(u64, Instant)>,
}

impl Watcher {
    /// A worker that stands still for so long has stalled.
    pub fn new(stall: Duration) -> Watcher {
        let (looked, seen) = (None, Vec::new());
        Watcher { stall, looked, seen }
    }

    /// Looks at all workers; the first that has stalled, and where.
    pub fn look(&mut self, watch: &Watch, now: Instant) -> Option<Error> {
        let away = self
            .looked
            .map_or(Duration::ZERO, |looked| now.saturating_duration_since(looked));
        self.looked = Some(now);
        if away > self.stall / 2 {
            self.seen.clear();
        }
        for (index, place) in watch.places().iter().enumerate() {
            let progress = place.progress.load(Ordering::Relaxed);
            let Some(seen) = self.seen.get_mut(index) else {
                self.seen.push((progress, now));
                continue;
            };
            if seen.0 != progress {
                *seen = (progress, now);
            } else if !place.has_ended.load(Ordering::Relaxed)
                && now.saturating_duration_since(seen.1) >= self.stall
            {
                return Some(stalled(place, self.stall));
            }
        }
        None
    }
}

fn stalled(place: &Place, stall: Duration) -> Error {
    let seen = match place.operator.load(Ordering::Relaxed) {
        LOOP => "while it read and decoded inputs".to_owned(),
        STEP => "in a step of its dataflow, before any operator of ours".to_owned(),
        operator => match names().get(operator - STEP - 1) {
            Some(name) => format!("in operator {name}"),
            None => "in an operator without a name".to_owned(),
        },
    };
    let (worker, stall_ms) = (place.worker, stall.as_millis());
    let message = format!("worker {worker} has made no progress for {stall_ms} ms; it was last seen {seen}");
    Error::new(Kind::Stalled, message)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::limits;
    use std::sync::mpsc::{Sender, channel};
    use std::thread::{self, JoinHandle};

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn instants() -> impl Fn(u64) -> Instant {
        let start = Instant::now();
        move |seconds| start + Duration::from_secs(seconds)
    }

    /// A worker that does what it is told, and stands still in between.
    struct Worker(Sender<fn()>, JoinHandle<()>);

    impl Worker {
        fn new(watch: &Arc<Watch>, index: usize) -> Worker {
            let (tell, told) = channel::<fn()>();
            let (answer, begun) = channel();
            let watch = Arc::clone(watch);
            let work = move || {
                watch.begin(index);
                answer.send(()).unwrap();
                told.iter().for_each(|act| act());
            };
            let thread = thread::Builder::new().spawn(work).unwrap();
            begun.recv().unwrap();
            Worker(tell, thread)
        }

        /// Does one last thing.
        fn last(self, act: fn()) {
            self.0.send(act).unwrap();
            drop(self.0);
            self.1.join().unwrap();
        }
    }

    #[test]
    fn a_worker_that_stands_still_is_named_with_its_operator() {
        let cases: [(fn(), &str); 3] = [
            (
                || Operator::named("alerts lookup").enter(),
                "in operator alerts lookup",
            ),
            (turned, "while it read and decoded inputs"),
            (stepping, "in a step of its dataflow"),
        ];
        for (last, words) in cases {
            let (watch, at) = (Arc::new(Watch::default()), instants());
            Worker::new(&watch, 3).last(last);
            let mut watcher = Watcher::new(limits::STALL);
            let noticed = (0..60).find_map(|second| Some((second, watcher.look(&watch, at(second))?)));
            let (second, error) = noticed.unwrap();
            assert_eq!((second, error.kind), (30, Kind::Stalled));
            assert!(
                error
                    .message
                    .starts_with("worker 3 has made no progress for 30000 ms"),
                "{error}"
            );
            assert!(error.message.contains(words), "{error}");
        }
    }

    #[test]
    fn progress_of_any_kind_counts_and_an_ended_worker_is_not_missed() {
        let (watch, at) = (Arc::new(Watch::default()), instants());
        let (busy, done) = (Worker::new(&watch, 0), Worker::new(&watch, 1));
        done.last(ended);
        let mut watcher = Watcher::new(limits::STALL);
        let place = Arc::clone(&watch.places()[0]);
        for second in 0..300 {
            if second % 20 == 0 {
                place.enter(Operator::named("one long epoch").0);
            }
            assert!(watcher.look(&watch, at(second)).is_none(), "after {second} s");
        }
        busy.last(ended);
    }

    #[test]
    fn a_watcher_that_was_away_blames_nobody() {
        let (watch, at) = (Arc::new(Watch::default()), instants());
        Worker::new(&watch, 0).last(turned);
        let mut watcher = Watcher::new(limits::STALL);
        assert!(watcher.look(&watch, at(0)).is_none());
        assert!(watcher.look(&watch, at(3_600)).is_none());
        assert!(watcher.look(&watch, at(3_601)).is_none());
        assert!(
            (3_602..)
                .step_by(1)
                .take(40)
                .any(|second| watcher.look(&watch, at(second)).is_some())
        );
    }

    #[test]
    fn the_same_name_is_the_same_operator() {
        assert_eq!(Operator::named("twice"), Operator::named("twice"));
        assert_ne!(Operator::named("twice"), Operator::named("once"));
        // Nobody watches this thread.
        Operator::named("twice").enter();
    }
}

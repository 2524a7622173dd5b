//! Open loop: records arrive when the schedule says, whether or not the engine has kept up.
//!
//! ```text
//!  record i of epoch k arrives at   start + i / rate          fixed before the run; nothing waits for an
//! answer
//!  epoch k is handed over at        start + (k + 1) * interval, or as soon after as the worker comes to it
//!  latency of record i              when epoch k was sealed - when the record should have arrived
//! ```
//!
//! An engine that stalls pays for every record that should have arrived meanwhile: there is no coordinated
//! omission.
//! What is measured is from JSON lines to sealed rows (`bytes.rs`); the commit comes on top. Records of the
//! warm-up are
//! not counted.

use crate::bytes::{Pump, Split, count_rows};
use crate::digest::Tally;
use crate::latency::Latencies;
use crate::process::{cpu_seconds, now};
use crate::workload::{Epochs, LineInput, Part};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// When records arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Records a second, over all inputs.
    pub rate: u64,
    /// Length of an epoch, microseconds.
    pub interval_us: u64,
    /// How long, warm-up included, seconds.
    pub seconds: u64,
    /// Not counted at the start, seconds.
    pub warm_up: u64,
}

impl Schedule {
    /// Records in an epoch.
    pub fn step(self) -> usize {
        usize::try_from(self.rate * self.interval_us / 1_000_000)
            .unwrap_or(usize::MAX)
            .max(1)
    }

    /// Records in all.
    pub fn records(self) -> u64 {
        self.rate * self.seconds
    }

    /// When a record arrives, after the start.
    fn arrives(self, record: u64) -> Duration {
        Duration::from_nanos(record * 1_000_000_000 / self.rate.max(1))
    }
}

/// What the run gave.
pub struct Answer {
    /// The messages.
    pub tally: Tally,
    /// Of the records after the warm-up.
    pub latencies: Latencies,
    /// Length of the run, seconds.
    pub seconds: f64,
    /// CPU seconds of the process in that time.
    pub cpu_seconds: f64,
}

/// What the first worker's gate keeps.
struct Book {
    tally: Tally,
    latencies: Latencies,
}

/// Runs a part on the schedule.
pub fn run(
    part: Part,
    epochs: &Epochs,
    inputs: Vec<LineInput>,
    workers: usize,
    schedule: Schedule,
) -> Answer {
    let split = Arc::new(Split::new(part, inputs, workers));
    let book = Arc::new(Mutex::new(Book {
        tally: Tally::default(),
        latencies: Latencies::new(),
    }));
    let (total, epochs) = (Arc::clone(&book), epochs.clone());
    // The greatest epoch that is sealed, plus one.
    let sealed = Arc::new(AtomicU64::new(0));
    let (ready, start) = (
        Arc::new(Barrier::new(workers)),
        Arc::new(OnceLock::<Instant>::new()),
    );
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let timetable = Timetable::new(&epochs, schedule);
        let (of_gate, started) = (timetable.clone(), Arc::clone(&start));
        let (book, complete) = (Arc::clone(&book), Arc::clone(&sealed));
        let mut pump = Pump::new(worker, &split, move |epoch, rows| {
            let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
            count_rows(&mut book.tally, &rows);
            if let Some(start) = started.get() {
                of_gate.record(epoch, start.elapsed(), &mut book.latencies);
            }
            complete.store(epoch as u64 + 1, Ordering::Release);
        });
        for epoch in 0..timetable.loading {
            pump.fill(epoch);
            while sealed.load(Ordering::Acquire) <= epoch as u64 {
                worker.step();
                crate::engine::give_way(workers);
            }
        }
        ready.wait();
        let begun = *start.get_or_init(now);
        let cpu = cpu_seconds();
        let mut epoch = timetable.loading;
        while sealed.load(Ordering::Acquire) < timetable.spans.len() as u64 {
            while timetable.due(epoch).is_some_and(|due| due <= begun.elapsed()) {
                pump.fill(epoch);
                epoch += 1;
            }
            let due = timetable.due(epoch);
            let wait = due.map_or(PARK, |due| due.saturating_sub(begun.elapsed()).min(PARK));
            worker.step_or_park(Some(wait));
            // A call that may park schedules nothing.
            worker.step();
        }
        (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu)
    });
    let results = guards.expect("timely starts its threads").join();
    let mut results = results
        .into_iter()
        .map(|result| result.expect("a worker that panics ends the process"));
    let (seconds, cpu_seconds) = results.next().expect("there is a first worker");
    results.for_each(drop);
    let book = total.lock().unwrap_or_else(PoisonError::into_inner);
    Answer {
        tally: book.tally,
        latencies: book.latencies.clone(),
        seconds,
        cpu_seconds,
    }
}

/// How long a worker parks at most, as in production.
const PARK: Duration = tidegate::limits::PARK;

/// Which records of the schedule an epoch holds, and when.
#[derive(Clone)]
struct Timetable {
    schedule: Schedule,
    /// Epochs that load the tables: their records are not on the schedule.
    loading: usize,
    /// By epoch: its first record and the one after its last.
    spans: Vec<(u64, u64)>,
}

impl Timetable {
    fn new(epochs: &Epochs, schedule: Schedule) -> Self {
        let mut next = 0;
        let span = |(epoch, count): (usize, &usize)| {
            let first = next;
            next += if epoch < epochs.loading { 0 } else { *count as u64 };
            (first, next)
        };
        let spans = epochs.messages.iter().enumerate().map(span).collect();
        Timetable {
            schedule,
            loading: epochs.loading,
            spans,
        }
    }

    /// When an epoch is to be handed over, after the start; none after the last.
    fn due(&self, epoch: usize) -> Option<Duration> {
        self.spans.get(epoch).map(|(_, end)| self.schedule.arrives(*end))
    }

    /// Records the latencies of an epoch that was sealed at `at`; those of the warm-up do not count.
    fn record(&self, epoch: usize, at: Duration, latencies: &mut Latencies) {
        let (first, end) = self.spans[epoch];
        let arrivals = (first..end).map(|record| self.schedule.arrives(record));
        let counted = arrivals.filter(|arrived| arrived.as_secs() >= self.schedule.warm_up);
        counted.for_each(|arrived| latencies.record(at.saturating_sub(arrived)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_begins_after_the_tables_are_loaded() {
        let epochs = Epochs {
            loading: 2,
            messages: vec![7, 8, 100, 100, 40, 0],
        };
        let schedule = Schedule {
            rate: 1_000,
            interval_us: 100_000,
            seconds: 1,
            warm_up: 0,
        };
        let timetable = Timetable::new(&epochs, schedule);
        let spans = [(0, 0), (0, 0), (0, 100), (100, 200), (200, 240), (240, 240)];
        assert_eq!(timetable.spans, spans);
        assert_eq!(timetable.due(3), Some(Duration::from_millis(200)));
        assert_eq!(timetable.due(6), None);
        let mut latencies = Latencies::new();
        timetable.record(2, Duration::from_millis(100), &mut latencies);
        let longest = latencies.percentiles().max;
        assert!(
            (longest - 100_000.0).abs() < 1_000.0,
            "the first record has waited longest: {longest} us"
        );
    }

    #[test]
    fn records_arrive_at_the_rate() {
        let schedule = Schedule {
            rate: 100_000,
            interval_us: 1_000,
            seconds: 2,
            warm_up: 1,
        };
        assert_eq!((schedule.step(), schedule.records()), (100, 200_000));
        assert_eq!(schedule.arrives(100), Duration::from_millis(1));
        assert_eq!(schedule.arrives(200_000), Duration::from_secs(2));
    }
}

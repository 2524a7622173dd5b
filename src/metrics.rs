//! What a run counts: for the progress line, the summary and the benchmark. Never on the way of a record: one
//! update per epoch and worker.

use crate::time::Epoch;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The counters of one run.
pub struct Metrics {
    /// Messages taken from inputs.
    pub messages_in: AtomicU64,
    /// Replays: messages outside the span, passed over.
    pub skipped: AtomicU64,
    /// Greatest event time taken so far.
    pub event_time: AtomicI64,
    /// Encoded rows sealed and not committed, bytes.
    pub queued_bytes: AtomicUsize,
    /// Every epoch up to this one is sealed.
    pub sealed: AtomicU64,
    /// Every epoch up to this one is committed.
    pub committed: AtomicU64,
    /// Sealed messages, by output.
    pub messages_out: Vec<AtomicU64>,
    /// Dead letters of epochs that were not committed before: UNDECODABLE, INVALID, LATE.
    pub dead_letters: [AtomicU64; 3],
    /// Epochs committed by this run.
    pub epochs: AtomicU64,
    /// Sealed epochs that wait for their commit.
    pub waiting: AtomicUsize,
    /// Bytes that a restore of the newest checkpoint reads.
    pub state_bytes: AtomicU64,
    /// Bytes of checkpoints written by this run.
    pub state_bytes_written: AtomicU64,
    open: Mutex<Epochs>,
}

struct Epochs {
    /// When the first message of an epoch was taken, and how many bytes wait for its commit.
    open: BTreeMap<Epoch, Open>,
    latency_us: Histogram<u64>,
}

#[derive(Default)]
struct Open {
    taken: Option<Instant>,
    bytes: usize,
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new(outputs: usize) -> Self {
        // Up to an hour, three digits.
        let latency_us = Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("these bounds are valid");
        Metrics {
            messages_in: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            event_time: AtomicI64::new(i64::MIN),
            queued_bytes: AtomicUsize::new(0),
            sealed: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            messages_out: (0..outputs).map(|_| AtomicU64::new(0)).collect(),
            dead_letters: Default::default(),
            epochs: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            state_bytes: AtomicU64::new(0),
            state_bytes_written: AtomicU64::new(0),
            open: Mutex::new(Epochs {
                open: BTreeMap::new(),
                latency_us,
            }),
        }
    }

    fn open(&self) -> MutexGuard<'_, Epochs> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An epoch takes its first messages.
    pub fn taken(&self, epoch: Epoch, now: Instant) {
        let mut epochs = self.open();
        let open = epochs.open.entry(epoch).or_default();
        open.taken = Some(open.taken.map_or(now, |before| before.min(now)));
    }

    /// An epoch is sealed and waits for its commit with so many bytes.
    pub fn sealed(&self, epoch: Epoch, bytes: usize) {
        self.open().open.entry(epoch).or_default().bytes += bytes;
        self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.sealed.fetch_max(epoch, Ordering::Relaxed);
    }

    /// These epochs, of one output shard, are committed.
    pub fn committed(&self, committed: &[Epoch], now: Instant) {
        let Some(&epoch) = committed.last() else { return };
        self.waiting.fetch_sub(committed.len(), Ordering::Relaxed);
        self.epochs.fetch_add(committed.len() as u64, Ordering::Relaxed);
        let mut epochs = self.open();
        let later = epochs.open.split_off(&(epoch + 1));
        let done = std::mem::replace(&mut epochs.open, later);
        let mut bytes = 0;
        for open in done.values() {
            bytes += open.bytes;
            if let Some(taken) = open.taken {
                let micros = now.saturating_duration_since(taken).as_micros();
                epochs
                    .latency_us
                    .saturating_record(u64::try_from(micros).unwrap_or(u64::MAX).max(1));
            }
        }
        drop(epochs);
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.committed.fetch_max(epoch, Ordering::Relaxed);
    }

    /// Latency of epochs, from the first message taken to the commit, microseconds.
    pub fn latency_us(&self) -> Histogram<u64> {
        self.open().latency_us.clone()
    }
}

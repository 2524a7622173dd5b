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

/// Where the time of epochs went that took messages.
///
/// ```text
///  first message taken ── open ──► sealed ── waiting ──► its transaction begins ── transaction ──► committed
/// ```
#[derive(Clone)]
pub struct Spent {
    /// From the first message taken to the commit, microseconds.
    pub all_us: Histogram<u64>,
    /// Until all was there and computed, microseconds.
    pub open_us: Histogram<u64>,
    /// Until the transaction before was committed, microseconds.
    pub waiting_us: Histogram<u64>,
    /// Until its own was committed, microseconds.
    pub transaction_us: Histogram<u64>,
}

struct Epochs {
    /// What is known of an epoch that is not committed.
    open: BTreeMap<Epoch, Open>,
    spent: Spent,
}

#[derive(Default)]
struct Open {
    /// When its first message was taken.
    taken: Option<Instant>,
    /// When the last of its shards was sealed.
    sealed: Option<Instant>,
    /// Bytes that wait for its commit.
    bytes: usize,
}

impl Spent {
    fn record(&mut self, [taken, sealed, begun, committed]: [Instant; 4]) {
        let spent = [
            (&mut self.all_us, taken, committed),
            (&mut self.open_us, taken, sealed),
            (&mut self.waiting_us, sealed, begun),
            (&mut self.transaction_us, begun, committed),
        ];
        for (histogram, from, to) in spent {
            let micros = to.saturating_duration_since(from).as_micros();
            histogram.saturating_record(u64::try_from(micros).unwrap_or(u64::MAX).max(1));
        }
    }
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new(outputs: usize) -> Self {
        // Up to an hour, three digits.
        let none = Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("these bounds are valid");
        let spent = Spent {
            all_us: none.clone(),
            open_us: none.clone(),
            waiting_us: none.clone(),
            transaction_us: none,
        };
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
                spent,
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
    pub fn sealed(&self, epoch: Epoch, bytes: usize, now: Instant) {
        let mut epochs = self.open();
        let open = epochs.open.entry(epoch).or_default();
        open.bytes += bytes;
        open.sealed = Some(now);
        drop(epochs);
        self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.sealed.fetch_max(epoch, Ordering::Relaxed);
    }

    /// These epochs, of one output shard, are committed, in a transaction that began at `begun`.
    pub fn committed(&self, committed: &[Epoch], begun: Instant, now: Instant) {
        let Some(&epoch) = committed.last() else { return };
        self.waiting.fetch_sub(committed.len(), Ordering::Relaxed);
        self.epochs.fetch_add(committed.len() as u64, Ordering::Relaxed);
        let mut epochs = self.open();
        let later = epochs.open.split_off(&(epoch + 1));
        let done = std::mem::replace(&mut epochs.open, later);
        let mut bytes = 0;
        for open in done.values() {
            bytes += open.bytes;
            if let (Some(taken), Some(sealed)) = (open.taken, open.sealed) {
                epochs.spent.record([taken, sealed, begun, now]);
            }
        }
        drop(epochs);
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.committed.fetch_max(epoch, Ordering::Relaxed);
    }

    /// Where the time of the epochs committed so far went.
    pub fn spent(&self) -> Spent {
        self.open().spent.clone()
    }
}

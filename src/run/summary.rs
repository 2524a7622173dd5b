//! What a run did, in figures.

use super::{Plan, Shared};
use crate::time::Epoch;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Percentiles, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of the epochs took no longer.
    pub p50: u64,
    /// 99 in 100.
    pub p99: u64,
    /// 999 in 1 000.
    pub p999: u64,
    /// All.
    pub max: u64,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// From the start of the threads to the end of the last one, milliseconds.
    pub elapsed_ms: u64,
    /// Worker threads.
    pub workers: usize,
    /// Messages taken from inputs, those of replayed epochs included.
    pub messages_in: u64,
    /// Replays: messages outside the span, passed over.
    pub skipped: u64,
    /// Messages committed, by output of the plan.
    pub messages_out: Vec<u64>,
    /// Dead letters among them, by reason.
    pub dead_letters: Vec<(&'static str, u64)>,
    /// Epochs committed.
    pub epochs: u64,
    /// The last of them.
    pub committed: Epoch,
    /// From an epoch's first message taken to its commit.
    pub latency_us: Latency,
    /// Of that: until the epoch was sealed ...
    pub open_us: Latency,
    /// ... from there until its transaction began, while the one before was written ...
    pub waiting_us: Latency,
    /// ... and from there until it was committed.
    pub transaction_us: Latency,
    /// What a restore of the newest checkpoint reads, bytes.
    pub state_bytes: u64,
    /// What was written of checkpoints, bytes.
    pub state_bytes_written: u64,
}

/// What was counted since `began`.
pub(super) fn summary(plan: &Plan, shared: &Shared, began: Instant) -> Summary {
    let metrics = &shared.metrics;
    let spent = metrics.spent();
    let latency = |spent: &Histogram<u64>| Latency {
        p50: spent.value_at_quantile(0.5),
        p99: spent.value_at_quantile(0.99),
        p999: spent.value_at_quantile(0.999),
        max: spent.max(),
    };
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    Summary {
        elapsed_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        workers: plan.peers(),
        messages_in: load(&metrics.messages_in),
        skipped: load(&metrics.skipped),
        messages_out: metrics.messages_out.iter().map(load).collect(),
        dead_letters: ["UNDECODABLE", "INVALID", "LATE"]
            .into_iter()
            .zip(metrics.dead_letters.iter().map(load))
            .collect(),
        epochs: load(&metrics.epochs),
        committed: load(&metrics.committed),
        latency_us: latency(&spent.all_us),
        open_us: latency(&spent.open_us),
        waiting_us: latency(&spent.waiting_us),
        transaction_us: latency(&spent.transaction_us),
        state_bytes: load(&metrics.state_bytes),
        state_bytes_written: load(&metrics.state_bytes_written),
    }
}

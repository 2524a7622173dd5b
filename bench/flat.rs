//! Flat cost: an epoch of few records costs the same whatever has been before it and whatever is pending.
//!
//! Two curves. **Past**: median time of an epoch of ten records after 10, 100, ... past epochs.
//! **Pending**: the same with
//! 0, 10 000, ... open windows, records waiting to be joined, or large transactions waiting to time out;
//! event time
//! moves on with every epoch, so watermarks rise, but nothing pending falls due.

use crate::arrivals::decoded;
use crate::engine::run;
use crate::latency::Latencies;
use crate::workload::{Epochs, Events, Part, Share, Size, Steps};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tidegate::record::{Origin, Stamped, Text, key_hash};
use tidegate::time::Millis;
use tidegate_dataflows::catalogue::DEFAULTS;
use tidegate_dataflows::generator::MONTH_END;
use tidegate_dataflows::records::{Order, Transaction};

/// Records in an epoch.
const STEP: usize = 10;

/// Accounts of the workload behind the curve over past epochs.
const ACCOUNTS: u32 = 100_000;

/// Epochs timed with things pending.
const EPOCHS: usize = 2_000;

/// A point of a curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Past epochs, or pending things.
    pub behind: u64,
    /// Median time of an epoch, microseconds.
    pub micros: f64,
}

/// The last point of a curve as a multiple of the first.
pub fn growth(points: &[Point]) -> f64 {
    match points {
        [first, .., last] if first.micros > 0.0 => last.micros / first.micros,
        _ => 1.0,
    }
}

/// Median time of an epoch after so many past ones; each median is over the epochs since the point before.
pub fn past(part: Part, seed: u64, epochs: u64) -> Vec<Point> {
    let size = Size {
        seed,
        accounts: ACCOUNTS,
        records: epochs * STEP as u64,
        step: STEP,
    };
    let (cut, shares) = decoded(part, size, 1);
    let nanos = run(part, &cut, shares).epoch_nanos;
    // The last epoch ends the inputs: it closes everything and is not like the others.
    medians(&nanos[..nanos.len() - 1])
}

fn medians(nanos: &[u64]) -> Vec<Point> {
    let mut points = Vec::new();
    let mut from = 0;
    while from < nanos.len() {
        let upto = (10 * from).clamp(10, nanos.len());
        let upto = if nanos.len() - upto < upto {
            nanos.len()
        } else {
            upto
        };
        points.push(Point {
            behind: upto as u64,
            micros: median(&nanos[from..upto]),
        });
        from = upto;
    }
    points
}

fn median(nanos: &[u64]) -> f64 {
    let mut latencies = Latencies::new();
    nanos
        .iter()
        .for_each(|nanos| latencies.record(Duration::from_nanos(*nanos)));
    latencies.percentiles().p50
}

/// Median time of an epoch while so many things are pending.
pub fn pending(part: Part, pending: u64) -> Point {
    let loads = usize::try_from(pending).unwrap_or(usize::MAX);
    let mut share = Share::default();
    match part {
        Part::Patterns => share.transactions = waiting(loads, transaction),
        _ => share.orders = waiting(loads, order),
    }
    if part == Part::Joins {
        // The payments' watermark moves too, for it is what makes orders forgotten.
        share.payments.steps.cuts = vec![0; share.orders.steps.cuts.len()];
        share.payments.watermarks = Arc::clone(&share.orders.watermarks);
    }
    // One epoch with all that will be pending, one that moves time behind it, then those that are timed.
    let mut messages = vec![loads, 1];
    messages.extend([STEP; EPOCHS]);
    let nanos = run(part, &Epochs { loading: 2, messages }, vec![share]).epoch_nanos;
    Point {
        behind: pending,
        micros: median(&nanos),
    }
}

/// Records that will be pending, within the first second of a minute; then ten records an epoch from 20 s
/// on, a
/// millisecond later each epoch.
fn waiting<R>(loads: usize, make: fn(usize, Millis) -> (Text, R)) -> Events<R> {
    let mut steps = Steps::default();
    let mut watermarks = Vec::new();
    let mut push = |number: usize, time: Millis| {
        let (key, value) = make(number, time);
        let (hash, origin) = (
            key_hash(key.as_bytes()),
            Origin {
                partition: 0,
                offset: number as u64,
            },
        );
        steps.messages.push(Stamped {
            key,
            hash,
            origin,
            watermark: MONTH_END,
            raw: None,
            value,
        });
        steps.messages.len()
    };
    let mut cuts = vec![
        (0..loads)
            .map(|number| push(number, MONTH_END + number as Millis % 1_000))
            .max()
            .unwrap_or(0),
    ];
    watermarks.push(None);
    cuts.push(push(loads, MONTH_END + LATER));
    watermarks.push(Some(MONTH_END + LATER));
    for epoch in 0..EPOCHS {
        let time = MONTH_END + LATER + epoch as Millis;
        let last = (0..STEP)
            .map(|record| push(loads + 1 + epoch * STEP + record, time))
            .max();
        cuts.push(last.unwrap_or(0));
        watermarks.push(Some(time));
    }
    steps.cuts = cuts;
    Events {
        steps,
        watermarks: watermarks.into(),
    }
}

/// After everything pending, before anything of it falls due, milliseconds.
const LATER: Millis = 20_000;

fn order(number: usize, placed_at: Millis) -> (Text, Order) {
    let key = Text::from(format!("C{number}"));
    let order_id = Text::from(format!("O{number}"));
    (
        key,
        Order {
            order_id,
            amount: number as i64,
            currency: Text::const_new("EUR"),
            placed_at,
        },
    )
}

/// Every one of them could begin a pattern.
fn transaction(number: usize, occurred_at: Millis) -> (Text, Transaction) {
    let user_id = Text::from(format!("U{number}"));
    let transaction_id = Text::from(format!("T{number}"));
    let amount = DEFAULTS.risk_pattern.limit + 1;
    let (currency, location) = (Text::const_new("EUR"), Text::const_new("Brno"));
    (
        user_id.clone(),
        Transaction {
            transaction_id,
            user_id,
            amount,
            currency,
            location,
            occurred_at,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_a_factor_of_ten_apart() {
        let behind = |count| {
            medians(&vec![5_000; count])
                .iter()
                .map(|point| point.behind)
                .collect::<Vec<_>>()
        };
        assert_eq!(behind(1_000), [10, 100, 1_000]);
        assert_eq!(behind(1_005), [10, 100, 1_005]);
        assert_eq!(behind(2_500), [10, 100, 1_000, 2_500]);
    }

    #[test]
    fn growth_compares_the_ends() {
        let points = [1.0, 9.0, 2.0].map(|micros| Point { behind: 0, micros });
        assert!((growth(&points) - 2.0).abs() < 1e-9);
        assert!((growth(&points[..1]) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_pending_stays_pending() {
        let events = waiting(100, order);
        let last = events.watermarks.iter().flatten().max().expect("time moves");
        let config = DEFAULTS.tumbling_aggregates;
        assert!(*last < MONTH_END + config.size_ms, "a window would close");
        assert!(
            *last < MONTH_END + 2 * DEFAULTS.enriched_orders.within_ms,
            "an order would be forgotten"
        );
        assert!(
            *last < MONTH_END + DEFAULTS.risk_pattern.within_ms,
            "a transaction would time out"
        );
        assert_eq!(events.steps.cuts.len(), EPOCHS + 2);
        assert_eq!(events.steps.messages.len(), 100 + 1 + EPOCHS * STEP);
    }

    #[test]
    fn a_small_curve_has_its_points() {
        for part in [Part::Windows, Part::Joins, Part::Patterns] {
            assert_eq!(pending(part, 10).behind, 10);
        }
        assert_eq!(past(Part::Alerts, 1, 20).len(), 2);
    }
}

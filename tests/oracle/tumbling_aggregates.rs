//! Orders summed by key and window of `placed_at`, late ones set aside.
//!
//! After the end of a finite run every window has closed, so there is one row per key and window, and the
//! last row of emit = "changes" is the same row. What later runs append is late: their watermark is plus
//! infinity.

use super::log::{self, Log};
use super::{Results, Settings};
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Default)]
struct Sums {
    count: i64,
    sum: i128,
    min: Option<i64>,
    max: Option<i64>,
}

/// The rows of `aggregates`, by key and `window_start`, and the late orders.
pub fn results(orders: &Log, settings: &Settings) -> (Results, Vec<Value>) {
    let size = i128::from(settings.size_ms.unwrap_or(60_000));
    let grace = i128::from(settings.grace_ms.unwrap_or(10_000));
    let mut windows: BTreeMap<(&str, i128), Sums> = BTreeMap::new();
    let mut late = Vec::new();
    for order in orders.records.iter().filter(|order| !order.earlier) {
        let start = i128::from(order.time).div_euclid(size) * size;
        if order.is_late(start + size + grace) {
            late.push(log::late("tumbling_aggregates", &orders.input, order));
            continue;
        }
        let amount = order.long("amount");
        let sums = windows.entry((&order.key, start)).or_default();
        sums.count += 1;
        sums.sum += i128::from(amount);
        sums.min = Some(sums.min.map_or(amount, |min| min.min(amount)));
        sums.max = Some(sums.max.map_or(amount, |max| max.max(amount)));
    }
    let rows = windows.into_iter().map(|((key, start), sums)| {
        json!({"key": key, "value": {
            "window_start": clamped(start),
            "window_end": clamped(start + size),
            "count": sums.count,
            "sum": clamped(sums.sum),
            "min": sums.min,
            "max": sums.max,
        }})
    });
    (vec![("aggregates", rows.collect())], late)
}

fn clamped(wide: i128) -> i64 {
    i64::try_from(wide).unwrap_or(if wide < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::super::cases::{Case, Table, order, results};
    use super::super::{Input, Settings};
    use serde_json::Value;

    /// Windows of 10 ms that stay open 2 ms longer.
    const TABLE: Table = Table {
        dataflow: "tumbling_aggregates",
        settings: Settings {
            size_ms: Some(10),
            grace_ms: Some(2),
            ..DEFAULTS
        },
        inputs: &[("orders", order)],
        adapt: |_| {},
        show,
    };
    const DEFAULTS: Settings = Settings {
        size_ms: None,
        grace_ms: None,
        within_ms: None,
        limit: None,
        emit: super::super::Emit::Final,
    };

    /// `key [start,end) count/sum/min/max`.
    fn show(row: &Value) -> String {
        let value = &row["value"];
        let [start, end, count, sum, min, max] = ["window_start", "window_end", "count", "sum", "min", "max"]
            .map(|field| value[field].to_string());
        format!(
            "{} [{start},{end}) {count}/{sum}/{min}/{max}",
            row["key"].as_str().expect("a key")
        )
    }

    #[rustfmt::skip]
    const CASES: &[Case] = &[
        Case { story: "nothing in, nothing out",
            inputs: &[&[""]], rows: "", dead: "" },
        Case { story: "a window holds its start, not its end",
            inputs: &[&["A 0 1; A 9 2; A 10 4"]], rows: "A [0,10) 2/3/1/2; A [10,20) 1/4/4/4", dead: "" },
        Case { story: "keys apart, currencies together",
            inputs: &[&["A 1 5 EUR; B 1 7 EUR; A 1 6 USD"]],
            rows: "A [0,10) 2/11/5/6; B [0,10) 1/7/7/7", dead: "" },
        Case { story: "equal orders are two orders, zero is an amount",
            inputs: &[&["A 1 0; A 1 0"]], rows: "A [0,10) 2/0/0/0", dead: "" },
        Case { story: "partitions meet in one window",
            inputs: &[&["A 3 1", "A 4 2"]], rows: "A [0,10) 2/3/1/2", dead: "" },
        Case { story: "one millisecond before the close is in time",
            inputs: &[&["A 11 1; A 9 1"]], rows: "A [0,10) 1/1/1/1; A [10,20) 1/1/1/1", dead: "" },
        Case { story: "window end + grace = watermark is late",
            inputs: &[&["A 12 1; A 9 1"]], rows: "A [10,20) 1/1/1/1", dead: "LATE A@9 for 12" },
        Case { story: "another key's time moves the watermark, another partition's does not",
            inputs: &[&["A 99 1; B 1 1", "B 2 1"]], rows: "A [90,100) 1/1/1/1; B [0,10) 1/1/1/1",
            dead: "LATE B@1 for 99" },
        Case { story: "the greatest time counts, not the last",
            inputs: &[&["A 30 1; A 25 1; A 5 1"]], rows: "A [20,30) 1/1/1/1; A [30,40) 1/1/1/1",
            dead: "LATE A@5 for 30" },
        Case { story: "an invalid order moves no watermark",
            inputs: &[&["A 99 -1; A 1 1"]], rows: "A [0,10) 1/1/1/1", dead: "INVALID A" },
        Case { story: "a sum stops at 64 bits, on the way as well as in the end",
            inputs: &[&["A 1 9223372036854775807; A 2 9223372036854775807; A 3 1"]],
            rows: "A [0,10) 3/9223372036854775807/1/9223372036854775807", dead: "" },
        Case { story: "the first and the last instant",
            inputs: &[&["A 0 1; A 253402300799999 1; A 253402300800000 1; A -1 1"]],
            rows: "A [0,10) 1/1/1/1; A [253402300799990,253402300800000) 1/1/1/1",
            dead: "INVALID A; INVALID A" },
    ];

    #[test]
    fn windows() {
        TABLE.check(CASES);
    }

    #[test]
    fn the_defaults_are_a_minute_and_ten_seconds() {
        let table = Table {
            settings: DEFAULTS,
            ..TABLE
        };
        table.check(&[Case {
            story: "late at 70 000",
            inputs: &[&["A 69999 1; A 59999 1; A 70000 1; A 59999 1"]],
            rows: "A [0,60000) 1/1/1/1; A [60000,120000) 2/2/1/1",
            dead: "LATE A@59999 for 70000",
        }]);
    }

    #[test]
    fn out_of_orderness_holds_the_watermark_back() {
        let table = Table {
            adapt: |input| input.max_out_of_orderness_ms = 5,
            ..TABLE
        };
        table.check(&[Case {
            story: "the watermark is 11, then 12",
            inputs: &[&["A 16 1; A 9 1; A 17 1; A 9 1"]],
            rows: "A [0,10) 1/1/1/1; A [10,20) 2/2/1/1",
            dead: "LATE A@9 for 12",
        }]);
    }

    #[test]
    fn a_jump_too_far_ahead_is_invalid_and_moves_nothing() {
        let table = Table {
            adapt: |input| input.max_jump_ms = Some(50),
            ..TABLE
        };
        table.check(&[Case {
            story: "100 is 51 ahead of 49, then 99 is just 50 ahead; the first has nothing before it",
            inputs: &[&["A 49 1; A 100 1; A 99 1", "B 1000 1"]],
            rows: "A [40,50) 1/1/1/1; A [90,100) 1/1/1/1; B [1000,1010) 1/1/1/1",
            dead: "INVALID A",
        }]);
    }

    #[test]
    fn what_is_appended_after_the_end_is_late() {
        let case = Case {
            story: "",
            inputs: &[&["A 1 1; A 2 2; A 99 4"]],
            rows: "",
            dead: "",
        };
        let mut job = TABLE.job(&case);
        let first = order(&["A", "1", "1"]).len() + 1;
        job.from.insert(("orders".into(), 0), first);
        let partitions = &mut job.inputs.get_mut("orders").expect("orders").partitions;
        partitions.push(format!("{}\n", order(&["N", "5", "1"])).into_bytes());
        let (rows, dead) = results(&job, show);
        let end = i64::MAX;
        assert_eq!(rows, "");
        assert_eq!(
            dead,
            format!("LATE A@2 for {end}; LATE A@99 for {end}; LATE N@5 for {end}")
        );
        assert_eq!(Input::new("orders", vec![]).max_out_of_orderness_ms, 0);
    }
}

//! Neighbouring transactions of a user that look like one card in two places, and large ones that stay alone.
//!
//! A user's transactions that are not late are sorted once by (occurred_at, partition, offset); then each
//! looks at the next. Nothing can come between after the end, so all matches are FINAL and all timeouts
//! certain.
//!
//! Reading chosen: "no transaction less than 300 000 after it" counts what comes later in that order, also at
//! the same time and also at the same location; so the next neighbour alone decides.

use super::log::{self, Log, Record};
use super::{Results, Settings};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The rows of `risk_alerts` (FINAL, in pattern order) and `risk_timeouts`, and the late transactions.
pub fn results(transactions: &Log, settings: &Settings) -> (Results, Vec<Value>) {
    let within = settings.within_ms.unwrap_or(300_000);
    let limit = settings.limit.unwrap_or(1_000_000);
    let mut users: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
    let mut late = Vec::new();
    for transaction in transactions
        .records
        .iter()
        .filter(|transaction| !transaction.earlier)
    {
        if transaction.is_late(i128::from(transaction.time) + 1) {
            late.push(log::late("risk_pattern", &transactions.input, transaction));
        } else {
            users.entry(&transaction.key).or_default().push(transaction);
        }
    }
    let (mut alerts, mut timeouts) = (Vec::new(), Vec::new());
    for (user, mut ordered) in users {
        ordered.sort_by_key(|transaction| (transaction.time, transaction.partition, transaction.offset));
        for (index, first) in ordered
            .iter()
            .enumerate()
            .filter(|(_, first)| first.long("amount") > limit)
        {
            match ordered.get(index + 1) {
                Some(second) if second.time - first.time < within => {
                    if second.text("location") != first.text("location") {
                        alerts.push(alert(user, first, second));
                    }
                }
                _ => timeouts.push(json!({"key": user, "value": {
                    "user_id": user, "first": first.row, "expired_at": first.time + within,
                }})),
            }
        }
    }
    (vec![("risk_alerts", alerts), ("risk_timeouts", timeouts)], late)
}

fn alert(user: &str, first: &Record, second: &Record) -> Value {
    json!({"key": user, "value": {
        "alert_id": format!("{}/{}", first.text("transaction_id"), second.text("transaction_id")),
        "user_id": user,
        "status": "FINAL",
        "first": first.row,
        "second": second.row,
    }})
}

#[cfg(test)]
mod tests {
    use super::super::cases::{Case, Table, results, transaction};
    use super::super::{Emit, Input, Settings, expected};
    use serde_json::Value;

    const DEFAULTS: Settings = Settings {
        size_ms: None,
        grace_ms: None,
        within_ms: None,
        limit: None,
        emit: Emit::Final,
    };
    /// Over 100, within 10 ms; nothing out of order unless a case says so.
    const TABLE: Table = Table {
        dataflow: "risk_pattern",
        settings: Settings {
            within_ms: Some(10),
            limit: Some(100),
            ..DEFAULTS
        },
        inputs: &[("transactions", transaction)],
        adapt: |input| input.max_out_of_orderness_ms = 5,
        show,
    };

    /// `user first/second`, or `user first until expired_at`.
    fn show(row: &Value) -> String {
        let (user, value) = (row["key"].as_str().expect("a key"), &row["value"]);
        assert_eq!(row["key"], value["user_id"]);
        match value["alert_id"].as_str() {
            Some(id) => {
                let [first, second] = ["first", "second"].map(|side| value[side]["transaction_id"].as_str());
                assert_eq!(
                    (value["status"].as_str(), id.split_once('/')),
                    (Some("FINAL"), first.zip(second))
                );
                format!("{user} {id}")
            }
            None => format!(
                "{user} {} until {}",
                value["first"]["transaction_id"].as_str().expect("an id"),
                value["expired_at"]
            ),
        }
    }

    #[rustfmt::skip]
    const CASES: &[Case] = &[
        Case { story: "nothing in, nothing out", inputs: &[&[""]], rows: "", dead: "" },
        Case { story: "small ones alone say nothing",
            inputs: &[&["u a 1 100 X; u b 2 100 Y"]], rows: "", dead: "" },
        Case { story: "over the limit, then elsewhere",
            inputs: &[&["u a 1 101 X; u b 2 1 Y"]], rows: "u a/b", dead: "" },
        Case { story: "the same place is neither a match nor a timeout",
            inputs: &[&["u a 1 101 X; u b 2 1 X"]], rows: "", dead: "" },
        Case { story: "9 ms later is within, 10 ms later is not",
            inputs: &[&["u a 1 101 X; u b 10 1 Y", "v a 1 101 X; v b 11 1 Y"]],
            rows: "u a/b; v a until 11", dead: "" },
        Case { story: "alone to the end", inputs: &[&["u a 1 101 X"]], rows: "u a until 11", dead: "" },
        Case { story: "only neighbours match: one between breaks it",
            inputs: &[&["u a 1 101 X; u m 2 1 X; u b 3 1 Y"]], rows: "", dead: "" },
        Case { story: "overlapping matches all count; the last times out",
            inputs: &[&["u a 1 101 X; u b 2 101 Y; u c 3 101 X"]],
            rows: "u a/b; u b/c; u c until 13", dead: "" },
        Case { story: "out of order within bounds: sorted by time",
            inputs: &[&["u b 6 1 Y; u a 1 101 X"]], rows: "u a/b", dead: "" },
        Case { story: "one below the watermark is late, at the watermark in time",
            inputs: &[&["u b 6 1 Y; u a 0 101 X; u c 1 101 X"]], rows: "u c/b", dead: "LATE u@0 for 1" },
        Case { story: "ties go by partition, then by offset",
            inputs: &[&["w z 1 1 X; u b 1 1 Y", "u a 1 101 X"]], rows: "u a until 11", dead: "" },
        Case { story: "ties go by offset; the same instant is within",
            inputs: &[&["u a 1 101 X; u b 1 1 Y"]], rows: "u a/b", dead: "" },
        Case { story: "users apart",
            inputs: &[&["u a 1 101 X; v b 2 1 Y"]], rows: "u a until 11", dead: "" },
        Case { story: "partitions meet, each with its own watermark",
            inputs: &[&["u z 900 1 X", "u a 1 101 X", "u b 2 1 Y"]], rows: "u a/b", dead: "" },
        Case { story: "a late one breaks no pair",
            inputs: &[&["u a 1 101 X; u b 9 1 Y; u m 3 1 X"]], rows: "u a/b", dead: "LATE u@3 for 4" },
    ];

    #[test]
    fn patterns() {
        TABLE.check(CASES);
    }

    #[test]
    fn the_defaults_are_a_million_five_minutes_and_five_seconds() {
        assert_eq!(Input::new("transactions", vec![]).max_out_of_orderness_ms, 5_000);
        let table = Table {
            settings: DEFAULTS,
            adapt: |_| {},
            ..TABLE
        };
        table.check(&[Case {
            story: "limits on both sides",
            inputs: &[&[
                "u a 5000 1000001 X; u b 304999 1 Y",
                "v a 5000 1000001 X; v b 305000 1 Y",
                "w a 5000 1000000 X; w b 5001 1 Y; w c 1 1 Z; w d 0 1 Z",
            ]],
            rows: "u a/b; v a until 305000",
            dead: "LATE w@0 for 1",
        }]);
    }

    #[test]
    fn alerts_and_timeouts_of_a_user_come_in_order_of_time() {
        let case = Case {
            story: "",
            inputs: &[&["u e 60 200 X; u a 58 200 X; u b 57 200 Y; u d 90 200 Y; u c 89 200 X"]],
            rows: "",
            dead: "",
        };
        let outputs = expected(&TABLE.job(&case)).outputs;
        let shown = |output: &str| outputs[output].iter().map(show).collect::<Vec<_>>();
        assert_eq!(shown("risk_alerts"), ["u b/a", "u c/d"]);
        assert_eq!(shown("risk_timeouts"), ["u e until 70", "u d until 100"]);
    }

    #[test]
    fn what_is_appended_after_the_end_is_late_and_changes_nothing() {
        let case = Case {
            story: "",
            inputs: &[&["u a 1 101 X; u b 2 1 Y"]],
            rows: "",
            dead: "",
        };
        let mut job = TABLE.job(&case);
        job.from.insert(
            ("transactions".into(), 0),
            transaction(&["u", "a", "1", "101", "X"]).len() + 1,
        );
        assert_eq!(
            results(&job, show),
            (String::new(), format!("LATE u@2 for {}", i64::MAX))
        );
    }
}

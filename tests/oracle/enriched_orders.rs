//! Every pair of an order and a payment of one key whose times differ by at most `within_ms`, late records
//! set aside.
//!
//! Forgetting does not show: a record is forgotten only when every partner it could still meet is late.
//! Two records with equal contents are two records, so equal pairs may come more than once.

use super::log::{self, Log, Record};
use super::{Results, Settings};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The rows of `enriched`, and the late records of both inputs.
pub fn results(orders: &Log, payments: &Log, settings: &Settings) -> (Results, Vec<Value>) {
    let within = i128::from(settings.within_ms.unwrap_or(30_000));
    let grace = i128::from(settings.grace_ms.unwrap_or(10_000));
    let mut late = Vec::new();
    let orders = in_time(orders, within + grace, &mut late);
    let mut payments_of: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
    for payment in in_time(payments, within + grace, &mut late) {
        payments_of.entry(&payment.key).or_default().push(payment);
    }
    let mut rows = Vec::new();
    for order in orders {
        for payment in payments_of.get(order.key.as_str()).into_iter().flatten() {
            if i128::from((order.time - payment.time).abs()) <= within {
                rows.push(json!({"key": order.key, "value": {"order": order.row, "payment": payment.row}}));
            }
        }
    }
    (vec![("enriched", rows)], late)
}

/// The new records that are not late; the others become dead letters.
fn in_time<'a>(log: &'a Log, slack: i128, late: &mut Vec<Value>) -> Vec<&'a Record> {
    let (too_late, in_time): (Vec<&Record>, Vec<&Record>) = log
        .records
        .iter()
        .filter(|record| !record.earlier)
        .partition(|record| record.is_late(i128::from(record.time) + slack));
    late.extend(
        too_late
            .into_iter()
            .map(|record| log::late("enriched_orders", &log.input, record)),
    );
    in_time
}

#[cfg(test)]
mod tests {
    use super::super::cases::{Case, Table, order, payment, results};
    use super::super::{Emit, Settings};
    use serde_json::Value;

    const DEFAULTS: Settings = Settings {
        size_ms: None,
        grace_ms: None,
        within_ms: None,
        limit: None,
        emit: Emit::Final,
    };
    /// Pairs at most 30 ms apart; a record is late 40 ms behind its watermark.
    const TABLE: Table = Table {
        dataflow: "enriched_orders",
        settings: Settings {
            within_ms: Some(30),
            grace_ms: Some(10),
            ..DEFAULTS
        },
        inputs: &[("orders", order), ("payments", payment)],
        adapt: |_| {},
        show,
    };

    /// `key o<placed_at>+p<paid_at>`.
    fn show(row: &Value) -> String {
        let [order, payment] = [
            &row["value"]["order"]["order_id"],
            &row["value"]["payment"]["payment_id"],
        ]
        .map(|id| id.as_str().expect("an id"));
        format!("{} {order}+{payment}", row["key"].as_str().expect("a key"))
    }

    #[rustfmt::skip]
    const CASES: &[Case] = &[
        Case { story: "nothing in, nothing out", inputs: &[&[""], &[""]], rows: "", dead: "" },
        Case { story: "alone gives nothing", inputs: &[&["A 1 1"], &["B 1 1"]], rows: "", dead: "" },
        Case { story: "equal times", inputs: &[&["A 1 1"], &["A 1 1"]], rows: "A o1+p1", dead: "" },
        Case { story: "just within, either way",
            inputs: &[&["A 100 1"], &["A 70 1; A 130 1"]], rows: "A o100+p130; A o100+p70", dead: "" },
        Case { story: "just too far, either way",
            inputs: &[&["A 100 1"], &["A 69 1; A 131 1"]], rows: "", dead: "" },
        Case { story: "all pairs of a key",
            inputs: &[&["A 1 1; A 2 1"], &["A 3 1", "A 4 1"]],
            rows: "A o1+p3; A o1+p4; A o2+p3; A o2+p4", dead: "" },
        Case { story: "equal records are two records, so a pair comes twice",
            inputs: &[&["A 1 1; A 1 1"], &["A 3 1"]], rows: "A o1+p3; A o1+p3", dead: "" },
        Case { story: "late at event time + 40 = watermark, not one before; payments have their own",
            inputs: &[&["B 40 1; A 1 1; B 41 1; A 1 1"], &["A 1 1"]],
            rows: "A o1+p1", dead: "LATE A@1 for 41" },
        Case { story: "a late payment",
            inputs: &[&["A 1 1"], &["B 99 1; A 1 1"]], rows: "", dead: "LATE A@1 for 99" },
        Case { story: "a partner that is not late may come after the other input has run far ahead",
            inputs: &[&["A 10 1; B 1000 1"], &["A 40 1; C 79 1; A 40 2"]],
            rows: "A o10+p40; A o10+p40", dead: "" },
        Case { story: "another partition's watermark makes nothing late",
            inputs: &[&["A 999 1", "A 1 1"], &["A 1 1"]], rows: "A o1+p1", dead: "" },
        Case { story: "invalid on both sides",
            inputs: &[&["A 999 -1; A 1 1"], &["A 999 x; A 1 1"]],
            rows: "A o1+p1", dead: "INVALID A; INVALID A" },
    ];

    #[test]
    fn pairs() {
        TABLE.check(CASES);
    }

    #[test]
    fn the_defaults_are_thirty_and_ten_seconds() {
        let table = Table {
            settings: DEFAULTS,
            ..TABLE
        };
        table.check(&[Case {
            story: "30 000 apart; late 40 000 behind",
            inputs: &[&["A 40000 1; A 1 1; A 40001 1; A 1 1"], &["A 30001 1; A 30002 1"]],
            rows: "A o1+p30001; A o40000+p30001; A o40000+p30002; A o40001+p30001; A o40001+p30002",
            dead: "LATE A@1 for 40001",
        }]);
    }

    #[test]
    fn a_pair_shows_both_records_whole() {
        let case = Case {
            story: "",
            inputs: &[&["A 1 5"], &["A 2 6"]],
            rows: "",
            dead: "",
        };
        let rows = super::super::expected(&TABLE.job(&case))
            .outputs
            .remove("enriched")
            .expect("enriched");
        let expected = r#"[{"key":"A","value":{"order":{"amount":5,"currency":"EUR","order_id":"o1",
            "placed_at":1},
            "payment":{"amount":6,"currency":"EUR","paid_at":2,"payment_id":"p2"}}}]"#;
        assert_eq!(rows, serde_json::from_str::<Vec<Value>>(expected).expect("rows"));
    }

    #[test]
    fn what_is_appended_after_the_end_is_late() {
        let case = Case {
            story: "",
            inputs: &[&["A 1 1; A 2 2"], &["A 1 1"]],
            rows: "",
            dead: "",
        };
        let mut job = TABLE.job(&case);
        job.from
            .insert(("orders".into(), 0), order(&["A", "1", "1"]).len() + 1);
        job.from
            .insert(("payments".into(), 0), payment(&["A", "1", "1"]).len() + 1);
        assert_eq!(
            results(&job, show),
            (String::new(), format!("LATE A@2 for {}", i64::MAX))
        );
    }
}

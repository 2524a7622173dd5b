//! How many events each key has had, over all runs; no event is late for it.

use super::Results;
use super::log::Log;
use serde_json::json;
use std::collections::BTreeMap;

/// The last row of `counts` for each key that this run changed.
pub fn results(events: &Log) -> Results {
    let mut counts: BTreeMap<&str, (i64, bool)> = BTreeMap::new();
    for event in &events.records {
        let (count, changed) = counts.entry(&event.key).or_default();
        *count += 1;
        *changed |= !event.earlier;
    }
    let changed = counts.into_iter().filter(|(_, (_, changed))| *changed);
    vec![(
        "counts",
        changed
            .map(|(key, (count, _))| json!({"key": key, "value": {"count": count}}))
            .collect(),
    )]
}

#[cfg(test)]
mod tests {
    use super::super::cases::{Case, Table, event, results};
    use super::super::{Input, Settings};
    use serde_json::Value;

    fn show(row: &Value) -> String {
        format!(
            "{}={}",
            row["key"].as_str().expect("a key"),
            row["value"]["count"]
        )
    }

    fn table(adapt: fn(&mut Input)) -> Table {
        let settings = Settings::default();
        Table {
            dataflow: "event_counts",
            settings,
            inputs: &[("events", event)],
            adapt,
            show,
        }
    }

    #[rustfmt::skip]
    const CASES: &[Case] = &[
        Case { story: "nothing in, nothing out", inputs: &[&[""]], rows: "", dead: "" },
        Case { story: "no partition at all", inputs: &[&[]], rows: "", dead: "" },
        Case { story: "one event", inputs: &[&["a 1"]], rows: "a=1", dead: "" },
        Case { story: "equal events are two events", inputs: &[&["a 1; a 1"]], rows: "a=2", dead: "" },
        Case { story: "keys apart, upper and lower case too",
            inputs: &[&["a 1; b 1; A 1"]], rows: "A=1; a=1; b=1", dead: "" },
        Case { story: "partitions together",
            inputs: &[&["a 1", "", "a 2; b 1"]], rows: "a=2; b=1", dead: "" },
        Case { story: "no event is late", inputs: &[&["a 253402300799999; a 0"]], rows: "a=2", dead: "" },
        Case { story: "the time must still be one",
            inputs: &[&["a -1; a 253402300800000; a x; a 5"]], rows: "a=1",
            dead: "INVALID a; INVALID a; INVALID a" },
    ];

    #[test]
    fn counts() {
        table(|_| {}).check(CASES);
    }

    #[test]
    fn a_jump_ahead_is_not_counted() {
        let case = Case {
            story: "11 ahead",
            inputs: &[&["a 0; a 11; a 10; a 20"]],
            rows: "a=3",
            dead: "INVALID a",
        };
        table(|input| input.max_jump_ms = Some(10)).check(&[case]);
    }

    #[test]
    fn a_later_run_counts_on_and_tells_only_what_changed() {
        let case = Case {
            story: "",
            inputs: &[&["a 1; b 1; a 2; c 3"]],
            rows: "",
            dead: "",
        };
        let mut job = table(|_| {}).job(&case);
        job.from
            .insert(("events".into(), 0), 2 * (event(&["a", "1"]).len() + 1));
        assert_eq!(results(&job, show), ("a=2; c=1".into(), String::new()));
    }
}

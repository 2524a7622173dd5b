//! Holds an output file of a run against the oracle: the same multiset, in the order per key that is
//! promised.
//!
//! Rows that depend on where epochs were cut are first brought to what does not: of `counts` and of emit =
//! "changes" the last row of each key, of emit = "eager" what stays raised.

use super::order::check_order;
use super::rows::{canonical, read_rows};
use super::{Emit, Expected, Job};
use serde_json::Value;
use std::collections::BTreeMap;

/// How many rows of each kind a difference shows, and how many characters of each.
const SHOWN: usize = 5;
const SHOWN_CHARACTERS: usize = 400;

/// Everything that can be said of one output file of a finite run; the error says what differs.
pub fn check(job: &Job, expected: &Expected, output: &str, actual_file: &str) -> Result<(), String> {
    check_rows(job, expected, output, actual_file)?;
    check_order(job, expected, output, actual_file)
}

/// Whether an output holds the rows that it must, in whatever order; the error says what differs.
pub fn check_rows(job: &Job, expected: &Expected, output: &str, actual_file: &str) -> Result<(), String> {
    let rows = expected
        .outputs
        .get(output)
        .ok_or(format!("the job has no output `{output}`"))?;
    let settled = settle(job, output, read_rows(actual_file)?)?;
    compare_rows(rows, &settled).map_err(|difference| format!("{output}: {difference}"))
}

/// Whether the file holds exactly the expected rows, as multisets.
pub fn compare(expected: &[Value], actual_file: &str) -> Result<(), String> {
    compare_rows(expected, &read_rows(actual_file)?)
}

/// The file's last row for each key (for `aggregates` rows: for each key and window).
pub fn last_row_per_key(actual_file: &str) -> Result<Vec<Value>, String> {
    Ok(last_rows(read_rows(actual_file)?))
}

/// What stays raised in a file of emit = "eager", as FINAL rows; an error where more is withdrawn than was
/// raised.
pub fn net_of_eager(actual_file: &str) -> Result<Vec<Value>, String> {
    net(read_rows(actual_file)?)
}

/// The rows in the form in which the oracle knows them, whatever epochs they were emitted in.
fn settle(job: &Job, output: &str, rows: Vec<Value>) -> Result<Vec<Value>, String> {
    match output {
        "counts" => Ok(last_rows(rows)),
        "aggregates" if job.settings("tumbling_aggregates").emit == Emit::Changes => Ok(last_rows(rows)),
        "risk_alerts" if job.settings("risk_pattern").emit == Emit::Eager => net(rows),
        _ => Ok(rows),
    }
}

fn last_rows(rows: Vec<Value>) -> Vec<Value> {
    let last = rows
        .into_iter()
        .map(|row| (format!("{} {}", row["key"], row["value"]["window_start"]), row));
    last.collect::<BTreeMap<_, _>>().into_values().collect()
}

fn net(rows: Vec<Value>) -> Result<Vec<Value>, String> {
    let mut standing: BTreeMap<String, (Value, i64)> = BTreeMap::new();
    for row in rows {
        let (pair, change) = pair_and_change(&row)?;
        standing.entry(canonical(&pair)).or_insert((pair, 0)).1 += change;
    }
    let mut finals = Vec::new();
    for (text, (row, count)) in standing {
        let count =
            usize::try_from(count).map_err(|_| format!("withdrawn more often than raised: {text:.400}"))?;
        finals.extend(std::iter::repeat_n(row, count));
    }
    Ok(finals)
}

/// An eager row as the FINAL row of its pair, and +1 where it is raised, -1 where withdrawn.
pub fn pair_and_change(row: &Value) -> Result<(Value, i64), String> {
    let change = match row["value"]["status"].as_str() {
        Some("RAISED") => 1,
        Some("WITHDRAWN") => -1,
        other => {
            return Err(format!(
                "a status of emit = \"eager\" is RAISED or WITHDRAWN, not {other:?}"
            ));
        }
    };
    let mut pair = row.clone();
    pair["value"]["status"] = "FINAL".into();
    Ok((pair, change))
}

fn compare_rows(expected: &[Value], actual: &[Value]) -> Result<(), String> {
    let mut balance: BTreeMap<String, i64> = BTreeMap::new();
    for row in expected {
        *balance.entry(canonical(row)).or_default() += 1;
    }
    for row in actual {
        *balance.entry(canonical(row)).or_default() -= 1;
    }
    balance.retain(|_, count| *count != 0);
    if balance.is_empty() {
        return Ok(());
    }
    let mut difference = format!("{} rows expected, {} found", expected.len(), actual.len());
    for (name, sign) in [("missing", 1), ("unexpected", -1)] {
        let rows: Vec<_> = balance.iter().filter(|(_, count)| **count * sign > 0).collect();
        for (row, count) in rows.iter().take(SHOWN) {
            let text: String = row.chars().take(SHOWN_CHARACTERS).collect();
            difference += &format!("\n  {name} {}x {text}", count.abs());
        }
        if rows.len() > SHOWN {
            difference += &format!("\n  {name}: {} more kinds of row", rows.len() - SHOWN);
        }
    }
    Err(difference)
}

#[cfg(test)]
mod tests {
    use super::super::cases::file;
    use super::{compare, last_row_per_key, net_of_eager};
    use serde_json::{Value, json};

    #[test]
    fn equal_is_what_the_contract_calls_equal() {
        let expected = [
            json!({"key": "k", "value": {"a": 1, "b": [{"c": null}]}}),
            json!({"key": null, "value": 1}),
        ];
        let same = "{\"value\":1,\"key\":null}\n{\"key\":\"k\",\"value\":{\"b\":[{}],\"a\":1,\"x\":null}}\n";
        assert_eq!(compare(&expected, same), Ok(()));
        for other in [
            "".into(),
            same.replace(":1,\"x\"", ":2,\"x\""),
            same.replace(":1,\"x\"", ":1.0,\"x\""),
            same.replace("\"k\"", "\"K\""),
            same.replace("[{}]", "[]"),
            format!("{same}{same}"),
            same.replace("{\"value\":1,\"key\":null}\n", ""),
            same.replace("{\"value\":1,\"key\":null}", "{\"value\":1}"),
            same.replace("{\"value\":1,", "{\"value\":1,\"more\":1,"),
            same.replace("\"x\":null", "\"a\":1"),
            same.replace("\"key\":null}\n", "\"key\":null}"),
            same.trim_end().into(),
            format!("{same}\n"),
        ] {
            assert!(compare(&expected, &other).is_err(), "{other}");
        }
    }

    #[test]
    fn a_difference_names_rows_and_counts() {
        let expected = [json!({"key": "a", "value": 1}), json!({"key": "b", "value": 1})];
        let difference = compare(
            &expected,
            "{\"key\":\"b\",\"value\":1}\n{\"key\":\"c\",\"value\":1}\n"
                .repeat(2)
                .as_str(),
        );
        let text = "2 rows expected, 4 found\n  missing 1x \"a\" 1\n  unexpected 1x \"b\" 1\n  \
            unexpected 2x \"c\" 1";
        assert_eq!(difference, Err(text.into()));
    }

    #[test]
    fn the_error_of_a_dead_letter_is_any_string() {
        let letter =
            |error: Value| json!({"key": null, "value": {"reason": "INVALID", "offset": 1, "error": error}});
        assert!(compare(&[letter("a".into())], &file(&[letter("b".into())])).is_ok());
        assert!(compare(&[letter("a".into())], &file(&[letter(Value::Null)])).is_err());
    }

    #[test]
    fn the_last_row_of_each_key_and_window_counts() {
        let row = |key: &str, count: i64| json!({"key": key, "value": {"count": count}});
        let rows = [row("a", 1), row("b", 1), row("a", 3)];
        assert_eq!(last_row_per_key(&file(&rows)), Ok(vec![row("a", 3), row("b", 1)]));
        let window =
            |start: i64, count: i64| json!({"key": "a", "value": {"window_start": start, "count": count}});
        let rows = [window(0, 1), window(60, 1), window(0, 2)];
        assert_eq!(
            last_row_per_key(&file(&rows)),
            Ok(vec![window(0, 2), window(60, 1)])
        );
    }

    #[test]
    fn what_is_raised_and_not_withdrawn_is_final() {
        let row = |id: &str, status: &str| json!({"key": "u", "value": {"alert_id": id, "status": status}});
        let [up, down, up_too] = [
            row("a/b", "RAISED"),
            row("a/b", "WITHDRAWN"),
            row("b/c", "RAISED"),
        ];
        let net = |rows: &[&Value]| net_of_eager(&file(rows.iter().copied()));
        assert_eq!(net(&[&up, &up_too, &down]), Ok(vec![row("b/c", "FINAL")]));
        assert_eq!(net(&[&up, &down, &up]), Ok(vec![row("a/b", "FINAL")]));
        assert_eq!(
            net(&[&up, &up]),
            Ok(vec![row("a/b", "FINAL"), row("a/b", "FINAL")])
        );
        assert!(net(&[&up, &down, &down]).is_err());
        assert!(net(&[&row("a/b", "FINAL")]).is_err());
    }
}

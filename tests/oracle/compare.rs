//! Holds an output file of a run against the oracle: the same multiset, and in the order per key that is promised.
//!
//! Equal means equal as the contract says: the order of an object's members does not matter, a null member is as
//! good as absent (`key` and `value` of the line itself must be there), and the `error` of a dead letter is any
//! string. A file with a torn last line, another member beside `key` and `value`, or a member given twice is wrong
//! whatever it holds.
//!
//! Readings chosen, where the contract leaves room:
//! - Alerts of one account come in (partition, offset) order of its entries, yet epochs commit one after the other:
//!   what is checked is that offsets rise within (account, partition).
//! - Dead letters rise by offset within (input, partition) over all reasons and dataflows together.
//! - A row is emitted when its count changed, so counts rise strictly, for `aggregates` per window.
//! - RAISED and WITHDRAWN alternate per pair of transactions; where equal pairs exist in the end (ids repeat), as
//!   many may stand raised at once.

use super::{Emit, Expected, Job, alerts, json};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// How many rows of each kind a difference shows, and how many characters of each.
const SHOWN: usize = 5;
const SHOWN_CHARACTERS: usize = 400;

/// Everything that can be said of one output file of a finite run; the error says what differs.
pub fn check(job: &Job, expected: &Expected, output: &str, actual_file: &str) -> Result<(), String> {
    let rows = expected
        .outputs
        .get(output)
        .ok_or(format!("the job has no output `{output}`"))?;
    let settled = settle(job, output, read_rows(actual_file)?)?;
    compare_rows(rows, &settled).map_err(|difference| format!("{output}: {difference}"))?;
    check_order(job, expected, output, actual_file)
}

/// Whether the file holds exactly the expected rows, as multisets.
pub fn compare(expected: &[Value], actual_file: &str) -> Result<(), String> {
    compare_rows(expected, &read_rows(actual_file)?)
}

/// The file's last row for each key (for `aggregates` rows: for each key and window).
pub fn last_row_per_key(actual_file: &str) -> Result<Vec<Value>, String> {
    Ok(last_rows(read_rows(actual_file)?))
}

/// What stays raised in a file of emit = "eager", as FINAL rows; an error where more is withdrawn than was raised.
pub fn net_of_eager(actual_file: &str) -> Result<Vec<Value>, String> {
    net(read_rows(actual_file)?)
}

/// Whether the rows of each key come in the order sections 3 and 4 promise for this output.
pub fn check_order(job: &Job, expected: &Expected, output: &str, actual_file: &str) -> Result<(), String> {
    let rows = read_rows(actual_file)?;
    let emit = |dataflow: &str| job.settings(dataflow).emit;
    let key = |row: &Value| row["key"].to_string();
    let field = |name: &'static str| move |row: &Value| row["value"][name].as_i64();
    let ordered = match output {
        "email" | "sms" | "push" | "device_push" => entries_rise(job, output, &rows),
        "aggregates" if emit("tumbling_aggregates") == Emit::Changes => rise(
            &rows,
            |row| format!("{} {}", row["key"], row["value"]["window_start"]),
            field("count"),
            1,
        ),
        "aggregates" => rise(&rows, key, field("window_start"), 1),
        "counts" => rise(&rows, key, field("count"), 1),
        "risk_alerts" if emit("risk_pattern") == Emit::Eager => alternate(&expected.outputs[output], &rows),
        "risk_alerts" => same_sequence(&expected.outputs[output], &rows),
        "risk_timeouts" => rise(&rows, key, field("expired_at"), 0),
        "dead_letters" => rise(
            &rows,
            |row| format!("{} {}", row["value"]["input"], row["value"]["partition"]),
            field("offset"),
            0,
        ),
        "enriched" => Ok(()),
        other => Err(format!("no dataflow has an output `{other}`")),
    };
    ordered.map_err(|error| format!("{output}: {error}"))
}

/// Where a dead letter stands among those of its job: by input, partition, offset, dataflow.
pub fn dead_letter_order(row: &Value) -> (String, Option<u64>, Option<u64>, String) {
    let value = &row["value"];
    let text = |field: &str| value[field].as_str().unwrap_or_default().to_string();
    (
        text("input"),
        value["partition"].as_u64(),
        value["offset"].as_u64(),
        text("dataflow"),
    )
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
fn pair_and_change(row: &Value) -> Result<(Value, i64), String> {
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

/// Whether the place of each group's rows rises by at least `step`.
fn rise(
    rows: &[Value],
    group: impl Fn(&Value) -> String,
    place: impl Fn(&Value) -> Option<i64>,
    step: i64,
) -> Result<(), String> {
    let mut reached: BTreeMap<String, i64> = BTreeMap::new();
    for row in rows {
        let group = group(row);
        let place = place(row).ok_or(format!("a row without its place in the order: {row:.400}"))?;
        if let Some(before) = reached.insert(group.clone(), place)
            && place - before < step
        {
            return Err(format!("{group}: {place} comes after {before}"));
        }
    }
    Ok(())
}

/// Whether messages follow their entries' offsets within (account, partition). Rows that no entry gives are for
/// [`compare`] to find.
fn entries_rise(job: &Job, output: &str, rows: &[Value]) -> Result<(), String> {
    let mut origins: BTreeMap<String, Vec<(usize, usize)>> = BTreeMap::new();
    for alert in alerts::alerts(job)
        .into_iter()
        .filter(|alert| alert.output == output)
    {
        origins
            .entry(canonical(&alert.row))
            .or_default()
            .push(alert.origin);
    }
    // Of equal rows from two partitions none says which partition it came from.
    origins.retain(|_, of_equal_rows| of_equal_rows.iter().all(|origin| origin.0 == of_equal_rows[0].0));
    for of_equal_rows in origins.values_mut() {
        of_equal_rows.sort_by(|one, other| other.cmp(one)); // the least one is taken first, from the end
    }
    let mut reached: BTreeMap<(String, usize), usize> = BTreeMap::new();
    for row in rows {
        let Some(left) = origins.get_mut(&canonical(row)) else {
            continue;
        };
        let (partition, offset) = left.pop().ok_or(format!("no further entry gives {row:.400}"))?;
        let account = row["value"]["account_id"].to_string();
        let last = reached
            .insert((account.clone(), partition), offset)
            .unwrap_or_default();
        if offset < last {
            return Err(format!(
                "{account}: the entry at {offset} comes after the one at {last}: {row:.400}"
            ));
        }
    }
    Ok(())
}

/// Whether each key's rows are the expected ones in the expected order.
fn same_sequence(expected: &[Value], rows: &[Value]) -> Result<(), String> {
    let by_key = |rows: &[Value]| {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in rows {
            found
                .entry(row["key"].to_string())
                .or_default()
                .push(canonical(row));
        }
        found
    };
    let (expected, found) = (by_key(expected), by_key(rows));
    match expected.iter().find(|(key, rows)| found.get(*key) != Some(rows)) {
        Some((key, rows)) => {
            let found = found.get(key).map(Vec::as_slice).unwrap_or_default();
            let at = rows
                .iter()
                .zip(found)
                .take_while(|(expected, found)| expected == found)
                .count();
            let show = |rows: &[String]| rows.get(at).map_or("nothing".into(), |row| format!("{row:.400}"));
            Err(format!(
                "{key}: row {at} should be {}\n  but is {}",
                show(rows),
                show(found)
            ))
        }
        None => Ok(()),
    }
}

/// Whether every pair is raised before it is withdrawn, and raised again only after that.
fn alternate(finals: &[Value], rows: &[Value]) -> Result<(), String> {
    let mut equal_finals: BTreeMap<String, i64> = BTreeMap::new();
    for row in finals {
        *equal_finals.entry(canonical(row)).or_default() += 1;
    }
    let mut standing: BTreeMap<String, i64> = BTreeMap::new();
    for row in rows {
        let (pair, change) = pair_and_change(row)?;
        let pair = canonical(&pair);
        let most = equal_finals.get(&pair).copied().unwrap_or_default().max(1);
        let count = standing.entry(pair.clone()).or_default();
        *count += change;
        if *count < 0 || *count > most {
            return Err(format!("raised and withdrawn do not alternate: {pair:.400}"));
        }
    }
    Ok(())
}

/// The rows of an output file, refused where a line is not exactly a `key` and a `value`.
fn read_rows(actual_file: &str) -> Result<Vec<Value>, String> {
    if !actual_file.is_empty() && !actual_file.ends_with('\n') {
        return Err("the last line is torn".into());
    }
    let read = |line: &str| -> Result<Value, String> {
        let row = value(json::whole(line).ok_or("does not parse")?)?;
        let names: Vec<&str> = row
            .as_object()
            .ok_or("not an object")?
            .keys()
            .map(String::as_str)
            .collect();
        let is_message = names.len() == 2 && names.contains(&"key") && names.contains(&"value");
        let is_dead_letter = row["value"].get("reason").is_some();
        match (is_message, is_dead_letter, &row["value"]["error"]) {
            (false, ..) => Err(format!("holds {names:?}, not key and value")),
            (true, true, error) if !error.is_string() => Err("a dead letter without its error".into()),
            _ => Ok(row),
        }
    };
    let lines = actual_file.lines().enumerate();
    lines
        .map(|(index, line)| read(line).map_err(|error| format!("line {}: {error}: {line:.400}", index + 1)))
        .collect()
}

/// A well-formed value as a tree, refused where a member is given twice.
fn value(span: &str) -> Result<Value, String> {
    if let Some(members) = json::members(span) {
        let mut object = Map::new();
        for (name, span) in members {
            if object.insert(name.clone(), value(span)?).is_some() {
                return Err(format!("{name:?} is given twice"));
            }
        }
        Ok(Value::Object(object))
    } else if let Some(elements) = json::elements(span) {
        elements.into_iter().map(value).collect()
    } else {
        serde_json::from_str(span).map_err(|error| error.to_string())
    }
}

/// A row as text that is the same for rows that are equal.
fn canonical(row: &Value) -> String {
    let mut value = row["value"].clone();
    if value.get("reason").is_some()
        && let Some(letter) = value.as_object_mut()
    {
        letter.remove("error");
    }
    format!("{} {}", row["key"], sorted(&value))
}

/// Members in order of name, null ones left out.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let members: BTreeMap<&String, &Value> =
                members.iter().filter(|(_, value)| !value.is_null()).collect();
            members
                .into_iter()
                .map(|(name, value)| (name.clone(), sorted(value)))
                .collect()
        }
        Value::Array(elements) => elements.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::cases::{authorization, entry, partitions, setting, transaction};
    use super::super::{Emit, Expected, Input, Job, Settings, expected};
    use super::{check, check_order, compare, last_row_per_key, net_of_eager};
    use serde_json::{Value, json};

    fn file(rows: &[Value]) -> String {
        rows.iter().map(|row| format!("{row}\n")).collect()
    }

    /// A job of one dataflow without input, for orders that need none.
    fn job(dataflow: &str, emit: Emit) -> Job {
        let mut job = Job::new(&[dataflow], vec![]);
        job.settings.insert(
            dataflow.into(),
            Settings {
                emit,
                ..Settings::default()
            },
        );
        job
    }

    fn is_ordered(job: &Job, output: &str, finals: &[Value], actual: &[Value]) -> bool {
        let expected = Expected {
            outputs: [(output.to_string(), finals.to_vec())].into(),
        };
        check_order(job, &expected, output, &file(actual)).is_ok()
    }

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
        let text = "2 rows expected, 4 found\n  missing 1x \"a\" 1\n  unexpected 1x \"b\" 1\n  unexpected 2x \"c\" 1";
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
    fn counts_and_windows_rise() {
        let row = |key: &str, start: i64, count: i64| json!({"key": key, "value": {"window_start": start, "count": count, "expired_at": start}});
        let windows = job("tumbling_aggregates", Emit::Final);
        let changes = job("tumbling_aggregates", Emit::Changes);
        let counts = job("event_counts", Emit::Final);
        let timeouts = job("risk_pattern", Emit::Final);
        for (job, output, rows, rises) in [
            (
                &windows,
                "aggregates",
                vec![row("a", 0, 1), row("b", 0, 9), row("a", 60, 1)],
                true,
            ),
            (
                &windows,
                "aggregates",
                vec![row("a", 60, 1), row("a", 0, 2)],
                false,
            ),
            (
                &windows,
                "aggregates",
                vec![row("a", 60, 1), row("a", 60, 2)],
                false,
            ),
            (
                &changes,
                "aggregates",
                vec![row("a", 60, 1), row("a", 0, 1), row("a", 60, 2)],
                true,
            ),
            (
                &changes,
                "aggregates",
                vec![row("a", 60, 2), row("a", 60, 2)],
                false,
            ),
            (
                &counts,
                "counts",
                vec![row("a", 0, 1), row("b", 0, 1), row("a", 0, 5)],
                true,
            ),
            (&counts, "counts", vec![row("a", 0, 2), row("a", 0, 1)], false),
            (
                &timeouts,
                "risk_timeouts",
                vec![row("a", 5, 0), row("b", 1, 0), row("a", 6, 0)],
                true,
            ),
            (
                &timeouts,
                "risk_timeouts",
                vec![row("a", 6, 0), row("a", 5, 0)],
                false,
            ),
        ] {
            assert_eq!(is_ordered(job, output, &[], &rows), rises, "{output} {rows:?}");
        }
    }

    #[test]
    fn eager_rows_alternate_and_leave_the_final_ones() {
        let row = |id: &str, status: &str| json!({"key": "u", "value": {"alert_id": id, "status": status}});
        let [up, down, up_too] = [
            row("a/b", "RAISED"),
            row("a/b", "WITHDRAWN"),
            row("b/c", "RAISED"),
        ];
        let finals = [row("a/b", "FINAL"), row("b/c", "FINAL")];
        let eager = job("risk_pattern", Emit::Eager);
        let good = [up.clone(), up_too.clone(), down.clone(), up.clone()];
        let expected = Expected {
            outputs: [("risk_alerts".to_string(), finals.to_vec())].into(),
        };
        assert_eq!(check(&eager, &expected, "risk_alerts", &file(&good)), Ok(()));
        assert_eq!(net_of_eager(&file(&[up.clone(), down.clone()])), Ok(vec![]));
        assert!(net_of_eager(&file(&[up.clone(), down.clone(), down.clone()])).is_err());
        assert!(net_of_eager(&file(&finals)).is_err());
        assert!(check(&eager, &expected, "risk_alerts", &file(&good[..3])).is_err());
        for bad in [
            vec![down.clone(), up.clone()],
            vec![up.clone(), up.clone(), down.clone()],
        ] {
            assert!(!is_ordered(&eager, "risk_alerts", &finals, &bad), "{bad:?}");
        }
        let twice = [finals[0].clone(), finals[0].clone()];
        assert!(
            is_ordered(&eager, "risk_alerts", &twice, &[up.clone(), up]),
            "ids may repeat"
        );
    }

    #[test]
    fn final_patterns_come_in_pattern_order() {
        let text = "u a 1 9000000 X; u b 2 9000000 Y; u c 3 1 X; v a 1 9000000 X; v b 2 1 Y";
        let input = Input::new("transactions", partitions(&[text], transaction));
        let job = Job::new(&["risk_pattern"], vec![("transactions", input)]);
        let expected = expected(&job);
        let rows = &expected.outputs["risk_alerts"];
        let [ab, bc, other] = &rows[..] else {
            panic!("three alerts: {rows:?}")
        };
        let checked =
            |order: [&Value; 3]| check(&job, &expected, "risk_alerts", &file(&order.map(Value::clone)));
        assert_eq!(
            (
                checked([ab, bc, other]),
                checked([other, ab, bc]),
                checked([ab, other, bc])
            ),
            (Ok(()), Ok(()), Ok(()))
        );
        assert!(checked([bc, ab, other]).is_err());
    }

    #[test]
    fn alerts_follow_the_entries_of_their_account() {
        let entries = partitions(
            &["A x 1 +9 0; A y 1 +9 0; A x 1 +9 0; B w 1 +9 0", "A z 1 +9 0"],
            entry,
        );
        let settings = "c EMAIL=m EMAIL=n A/EUR/CREDITED_ABOVE/1/EMAIL B/EUR/CREDITED_ABOVE/1/EMAIL";
        let inputs = vec![
            ("entries", Input::new("entries", entries)),
            (
                "authorizations",
                Input::new("authorizations", partitions(&["A c; B c"], authorization)),
            ),
            (
                "settings",
                Input::new("settings", partitions(&[settings], setting)),
            ),
        ];
        let job = Job::new(&["alerts"], inputs);
        let expected = expected(&job);
        let rows_of = |entry: &str| {
            let rows = expected.outputs["email"]
                .iter()
                .filter(|row| row["value"]["entry_id"] == entry);
            rows.cloned().collect::<Vec<_>>()
        };
        let [x, y, z, w] = ["x", "y", "z", "w"].map(rows_of);
        let (first, last) = (&x[..2], &x[2..]);
        let checked = |parts: [&[Value]; 5]| check(&job, &expected, "email", &file(&parts.concat()));
        assert_eq!(checked([first, &y, last, &w, &z]), Ok(()));
        assert_eq!(
            checked([&w, &z, first, &y, last]),
            Ok(()),
            "another account, another partition"
        );
        assert!(
            checked([first, last, &y, &w, &z]).is_err(),
            "y is before the second x"
        );
        assert!(
            checked([&y, first, last, &w, &z]).is_err(),
            "and behind the first"
        );
    }

    #[test]
    fn dead_letters_rise_within_their_partition() {
        let row = |partition: u64, offset: u64| {
            let value = json!({"input": "events", "partition": partition, "offset": offset, "reason": "LATE", "error": ""});
            json!({"key": null, "value": value})
        };
        let job = job("event_counts", Emit::Final);
        assert!(is_ordered(
            &job,
            "dead_letters",
            &[],
            &[row(0, 5), row(1, 0), row(0, 5), row(0, 9)]
        ));
        assert!(!is_ordered(
            &job,
            "dead_letters",
            &[],
            &[row(0, 5), row(1, 0), row(0, 4)]
        ));
    }
}

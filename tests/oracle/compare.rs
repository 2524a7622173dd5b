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

use super::{Emit, Expected, Job, json};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// How many rows of each kind a difference shows, and how many characters of each.
const SHOWN: usize = 5;
const SHOWN_CHARACTERS: usize = 400;

/// Everything that can be said of one output file of a finite run; the error says what differs.
pub fn check(job: &Job, expected: &Expected, output: &str, actual_file: &str) -> Result<(), String> {
    let rows = expected.outputs.get(output).ok_or(format!("the job has no output `{output}`"))?;
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
        "email" | "sms" | "push" | "device_push" => entries_rise(job, &rows),
        "aggregates" if emit("tumbling_aggregates") == Emit::Changes => {
            rise(&rows, |row| format!("{} {}", row["key"], row["value"]["window_start"]), field("count"), 1)
        }
        "aggregates" => rise(&rows, key, field("window_start"), 1),
        "counts" => rise(&rows, key, field("count"), 1),
        "risk_alerts" if emit("risk_pattern") == Emit::Eager => alternate(&expected.outputs[output], &rows),
        "risk_alerts" => same_sequence(&expected.outputs[output], &rows),
        "risk_timeouts" => rise(&rows, key, field("expired_at"), 0),
        "dead_letters" => {
            rise(&rows, |row| format!("{} {}", row["value"]["input"], row["value"]["partition"]), field("offset"), 0)
        }
        "enriched" => Ok(()),
        other => Err(format!("no dataflow has an output `{other}`")),
    };
    ordered.map_err(|error| format!("{output}: {error}"))
}

/// Where a dead letter stands among those of its job: by input, partition, offset, dataflow.
pub fn dead_letter_order(row: &Value) -> (String, Option<u64>, Option<u64>, String) {
    let value = &row["value"];
    let text = |field: &str| value[field].as_str().unwrap_or_default().to_string();
    (text("input"), value["partition"].as_u64(), value["offset"].as_u64(), text("dataflow"))
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
    let last = rows.into_iter().map(|row| (format!("{} {}", row["key"], row["value"]["window_start"]), row));
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
        let count = usize::try_from(count).map_err(|_| format!("withdrawn more often than raised: {text:.400}"))?;
        finals.extend(std::iter::repeat_n(row, count));
    }
    Ok(finals)
}

/// An eager row as the FINAL row of its pair, and +1 where it is raised, -1 where withdrawn.
fn pair_and_change(row: &Value) -> Result<(Value, i64), String> {
    let change = match row["value"]["status"].as_str() {
        Some("RAISED") => 1,
        Some("WITHDRAWN") => -1,
        other => return Err(format!("a status of emit = \"eager\" is RAISED or WITHDRAWN, not {other:?}")),
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

/// Whether messages follow their entries' offsets within (account, partition).
fn entries_rise(job: &Job, rows: &[Value]) -> Result<(), String> {
    let log = job.required_log("entries");
    let mut origins: BTreeMap<(&str, &str), Vec<(usize, usize)>> = BTreeMap::new();
    for entry in log.records.iter().filter(|entry| !entry.earlier) {
        let places = origins.entry((&entry.key, entry.text("entry_id"))).or_default();
        places.push((entry.partition, entry.offset));
    }
    let mut reached: BTreeMap<(&str, usize), usize> = BTreeMap::new();
    for row in rows {
        let text = |field: &str| row["value"][field].as_str().unwrap_or_default();
        let (account, entry) = (text("account_id"), text("entry_id"));
        let places = origins.get(&(account, entry)).ok_or(format!("no entry {entry} of account {account}"))?;
        let (partition, _) = places[0];
        if places.iter().any(|(other, _)| *other != partition) {
            continue; // equal entry ids in two partitions: the row does not say which it came from
        }
        let last = reached.entry((account, partition)).or_default();
        // Of equal entry ids the first one still possible leaves the most room for what follows.
        let next = places.iter().map(|(_, offset)| *offset).find(|offset| offset >= last);
        *last = next.ok_or(format!("account {account}: entry {entry} comes after a later entry"))?;
    }
    Ok(())
}

/// Whether each key's rows are the expected ones in the expected order.
fn same_sequence(expected: &[Value], rows: &[Value]) -> Result<(), String> {
    let by_key = |rows: &[Value]| {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in rows {
            found.entry(row["key"].to_string()).or_default().push(canonical(row));
        }
        found
    };
    let (expected, found) = (by_key(expected), by_key(rows));
    match expected.iter().find(|(key, rows)| found.get(*key) != Some(rows)) {
        Some((key, rows)) => {
            let found = found.get(key).map(Vec::as_slice).unwrap_or_default();
            let at = rows.iter().zip(found).take_while(|(expected, found)| expected == found).count();
            let show = |rows: &[String]| rows.get(at).map_or("nothing".into(), |row| format!("{row:.400}"));
            Err(format!("{key}: row {at} should be {}\n  but is {}", show(rows), show(found)))
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
        let names: Vec<&str> = row.as_object().ok_or("not an object")?.keys().map(String::as_str).collect();
        let is_message = names.len() == 2 && names.contains(&"key") && names.contains(&"value");
        let is_dead_letter = row["value"].get("reason").is_some();
        match (is_message, is_dead_letter, &row["value"]["error"]) {
            (false, ..) => Err(format!("holds {names:?}, not key and value")),
            (true, true, error) if !error.is_string() => Err("a dead letter without its error".into()),
            _ => Ok(row),
        }
    };
    let lines = actual_file.lines().enumerate();
    lines.map(|(index, line)| read(line).map_err(|error| format!("line {}: {error}: {line:.400}", index + 1))).collect()
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
            let members: BTreeMap<&String, &Value> = members.iter().filter(|(_, value)| !value.is_null()).collect();
            members.into_iter().map(|(name, value)| (name.clone(), sorted(value))).collect()
        }
        Value::Array(elements) => elements.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

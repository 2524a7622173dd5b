//! Whether the rows of an output file come in the order per key that sections 3 and 4 promise.
//!
//! Readings chosen, where the contract leaves room:
//! - Alerts of one account come in (partition, offset) order of its entries, yet epochs commit one after the
//!   other: what is checked is that offsets rise within (account, partition).
//! - Dead letters rise by offset within (input, partition) over all reasons and dataflows together.
//! - A row is emitted when its count changed, so counts rise strictly, for `aggregates` per window.
//! - RAISED and WITHDRAWN alternate per pair of transactions; where equal pairs exist in the end (ids
//!   repeat), as many may stand raised at once.

use super::compare::pair_and_change;
use super::rows::{canonical, read_rows};
use super::{Emit, Expected, Job};
use serde_json::Value;
use std::collections::BTreeMap;

/// Whether the rows of each key come in the promised order. Rows that should not be there, or are not, are
/// for `compare` to find.
pub fn check_order(job: &Job, expected: &Expected, output: &str, actual_file: &str) -> Result<(), String> {
    let rows = read_rows(actual_file)?;
    let emit = |dataflow: &str| job.settings(dataflow).emit;
    let finals = expected
        .outputs
        .get(output)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let key = |row: &Value| row["key"].to_string();
    let key_and_window = |row: &Value| format!("{} {}", row["key"], row["value"]["window_start"]);
    let partition = |row: &Value| format!("{} {}", row["value"]["input"], row["value"]["partition"]);
    let field = |name: &'static str| move |row: &Value| row["value"][name].as_i64();
    let ordered = match output {
        "email" | "sms" | "push" | "device_push" => entries_rise(expected, output, &rows),
        "aggregates" if emit("tumbling_aggregates") == Emit::Changes => {
            rise(&rows, key_and_window, field("count"), 1)
        }
        "aggregates" => rise(&rows, key, field("window_start"), 1),
        "counts" => rise(&rows, key, field("count"), 1),
        "risk_alerts" if emit("risk_pattern") == Emit::Eager => alternate(finals, &rows),
        "risk_alerts" => same_sequence(finals, &rows),
        "risk_timeouts" => rise(&rows, key, field("expired_at"), 0),
        "dead_letters" => rise(&rows, partition, field("offset"), 0),
        "enriched" => Ok(()),
        other => Err(format!("no dataflow has an output `{other}`")),
    };
    ordered.map_err(|error| format!("{output}: {error}"))
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
        let place =
            place(row).ok_or_else(|| format!("without its place in the order: {:.400}", canonical(row)))?;
        if let Some(before) = reached.insert(group.clone(), place)
            && place - before < step
        {
            return Err(format!("{group}: {place} comes after {before}"));
        }
    }
    Ok(())
}

/// Whether messages follow their entries' offsets within (account, partition).
fn entries_rise(expected: &Expected, output: &str, rows: &[Value]) -> Result<(), String> {
    let mut origins: BTreeMap<String, Vec<(usize, usize)>> = BTreeMap::new();
    let (finals, entries) = (expected.outputs.get(output), expected.entries.get(output));
    for (row, origin) in finals.into_iter().flatten().zip(entries.into_iter().flatten()) {
        origins.entry(canonical(row)).or_default().push(*origin);
    }
    // Of equal rows from two partitions none says which partition it came from.
    origins.retain(|_, of_equal_rows| of_equal_rows.iter().all(|origin| origin.0 == of_equal_rows[0].0));
    for of_equal_rows in origins.values_mut() {
        of_equal_rows.sort_by(|one, other| other.cmp(one)); // the least one is taken first, from the end
    }
    let mut reached: BTreeMap<(String, usize), usize> = BTreeMap::new();
    for row in rows {
        let text = canonical(row);
        let Some((partition, offset)) = origins.get_mut(&text).and_then(Vec::pop) else {
            continue;
        };
        let account = row["value"]["account_id"].to_string();
        let last = reached
            .insert((account.clone(), partition), offset)
            .unwrap_or_default();
        if offset < last {
            return Err(format!(
                "account {account}: entry at {offset} comes after the one at {last}: {text:.400}"
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
    for (key, rows) in &expected {
        let found = found.get(key).map(Vec::as_slice).unwrap_or_default();
        let at = rows
            .iter()
            .zip(found)
            .take_while(|(expected, found)| expected == found)
            .count();
        if at < rows.len() {
            let but = found.get(at).map_or("missing", String::as_str);
            return Err(format!(
                "{key}: row {at} should be {:.400}\n  but is {but:.400}",
                rows[at]
            ));
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::super::cases::{authorization, entry, file, partitions, setting, transaction};
    use super::super::compare::check;
    use super::super::{Emit, Expected, Input, Job, Settings, expected};
    use super::check_order;
    use serde_json::{Value, json};

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

    fn only(output: &str, rows: &[Value]) -> Expected {
        Expected {
            outputs: [(output.to_string(), rows.to_vec())].into(),
            ..Expected::default()
        }
    }

    fn is_ordered(job: &Job, output: &str, finals: &[Value], actual: &[Value]) -> bool {
        let expected = only(output, finals);
        check_order(job, &expected, output, &file(actual)).is_ok()
    }

    #[test]
    fn counts_and_windows_rise() {
        let row = |key: &str, start: i64, count: i64| {
            let value = json!({"window_start": start, "count": count, "expired_at": start});
            json!({"key": key, "value": value})
        };
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
        let expected = only("risk_alerts", &finals);
        assert_eq!(check(&eager, &expected, "risk_alerts", &file(&good)), Ok(()));
        assert!(check(&eager, &expected, "risk_alerts", &file(&good[..3])).is_err());
        for bad in [
            vec![down.clone(), up.clone()],
            vec![up.clone(), up.clone(), down.clone()],
        ] {
            assert!(!is_ordered(&eager, "risk_alerts", &finals, &bad), "{bad:?}");
        }
        let passing = [row("x/y", "RAISED"), row("x/y", "WITHDRAWN")];
        assert!(is_ordered(&eager, "risk_alerts", &finals, &passing));
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
            let mut value = json!({"input": "events", "reason": "LATE", "error": ""});
            value["partition"] = partition.into();
            value["offset"] = offset.into();
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

//! What if: the difference that is printed is the difference of two full runs, and nothing without a change.
//!
//! ```text
//!  day, run with history ─► whatif --set | --settings ─────────────► +n -m
//!  day, run ─┐
//!  day, run under the changed settings ─┴─► compared afterwards ───► the same
//! ```

use crate::day::{self, Files, OFTEN, outputs, write_job};
use crate::harness::Directory;
use serde_json::Value;
use std::collections::BTreeMap;

/// Messages by output, key and value: how many more.
type Differences = BTreeMap<(String, String, String), i64>;

/// A day that was run with history.
fn with_history() -> Directory {
    let directory = day::day();
    write_job(
        &directory,
        OFTEN,
        "history = true\nhistory_checkpoint_ms = 600000",
    );
    day::run(&directory, 2).with_code(0);
    directory
}

fn add(differences: &mut Differences, outputs: &Files, diff: i64) {
    for (name, content) in outputs {
        let name = name.trim_end_matches(".jsonl");
        for line in String::from_utf8_lossy(content).lines() {
            let line: Value = serde_json::from_str(line).expect("JSON");
            let message = (
                name.to_owned(),
                line["key"].to_string(),
                line["value"].to_string(),
            );
            let sum = differences.entry(message).or_default();
            *sum += diff;
        }
    }
    differences.retain(|_, diff| *diff != 0);
}

/// What two full runs differ in.
fn of_two_runs(before: &Directory, after: &Directory) -> Differences {
    let mut differences = Differences::new();
    add(&mut differences, &outputs(after), 1);
    add(&mut differences, &outputs(before), -1);
    differences
}

/// What the command says.
fn what_if(directory: &Directory, arguments: &[&str]) -> Differences {
    let arguments = [&["whatif", "job.toml", "--json"], arguments].concat();
    let text = directory.tidegate(&arguments).succeeded();
    let difference = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let output = line["output"].as_str().expect("a name").to_owned();
        let message = (output, line["key"].to_string(), line["value"].to_string());
        (message, line["diff"].as_i64().expect("a number"))
    };
    text.lines().map(difference).collect()
}

#[test]
fn without_a_change_there_is_no_difference() {
    let directory = with_history();
    for workers in ["1", "3"] {
        let arguments = ["whatif", "job.toml", "--workers", workers, "--list"];
        assert_eq!(directory.tidegate(&arguments).succeeded(), "+0 -0 alerts\n\n");
    }
    let same = ["whatif", "job.toml", "--set", "risk_pattern.limit=1000000"];
    assert_eq!(directory.tidegate(&same).succeeded(), "+0 -0 alerts\n");
}

#[test]
fn a_changed_limit_gives_what_two_full_runs_differ_in() {
    let directory = with_history();
    for (section, key, value) in [
        ("risk_pattern", "limit", "20000"),
        ("risk_pattern", "within_ms", "20000"),
        ("enriched_orders", "within_ms", "3000"),
        ("tumbling_aggregates", "size_ms", "90000"),
    ] {
        let changed = day::day();
        let text = String::from_utf8_lossy(&changed.read("job.toml")).into_owned();
        changed.write("job.toml", format!("{text}\n[{section}]\n{key} = {value}\n"));
        day::run(&changed, 1).with_code(0);
        let expected = of_two_runs(&directory, &changed);
        assert!(expected.len() > 3, "{section}.{key}: too little to compare");
        let set = format!("{section}.{key}={value}");
        for workers in ["1", "3"] {
            let found = what_if(&directory, &["--set", &set, "--workers", workers]);
            assert!(
                found == expected,
                "{set} on {workers} workers:\n{found:#?}\n{expected:#?}"
            );
        }
    }
}

/// The lines of a table without those of these keys, behind other lines.
fn replaced(directory: &Directory, keys: &[String], lines: &str) {
    for partition in 0..2 {
        let name = format!("settings-{partition}.jsonl");
        let Ok(content) = std::fs::read_to_string(directory.path(&name)) else {
            continue;
        };
        let is_other = |line: &&str| {
            let line: Option<Value> = serde_json::from_str(line).ok();
            let key = line.as_ref().and_then(|line| line["key"].as_str());
            key.is_none_or(|key| !keys.iter().any(|changed| changed == key))
        };
        let others: String = content
            .lines()
            .filter(is_other)
            .map(|line| format!("{line}\n"))
            .collect();
        let first = if partition == 0 { lines } else { "" };
        directory.write(&name, format!("{first}{others}"));
    }
}

#[test]
fn changed_alert_settings_give_what_two_full_runs_differ_in() {
    let directory = with_history();
    // Whatever some customers have, they now have at once: lower thresholds, one address; one has nothing.
    let content = String::from_utf8(directory.read("settings-0.jsonl")).expect("UTF-8");
    let (mut keys, mut lines) = (Vec::<String>::new(), String::new());
    for line in content.lines().step_by(7) {
        let Ok(mut line) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let Some(key) = line["key"].as_str().map(str::to_owned) else {
            continue;
        };
        if line["value"].is_null() || keys.contains(&key) {
            continue;
        }
        let first = keys.is_empty();
        keys.push(key);
        line.as_object_mut().expect("an object").remove("timestamp");
        if first {
            line["value"] = Value::Null;
        }
        for account in line
            .pointer_mut("/value/accounts")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            for rule in account["alerts"].as_array_mut().into_iter().flatten() {
                if let Some(threshold) = rule["threshold"].as_i64() {
                    rule["threshold"] = (threshold / 3).into();
                }
            }
        }
        lines.push_str(&format!("{line}\n"));
    }
    assert!(keys.len() > 5, "{keys:?}");
    let changed = day::day();
    replaced(&changed, &keys, &lines);
    day::run(&changed, 1).with_code(0);
    let mut expected = of_two_runs(&directory, &changed);
    // Offsets of the table's own dead letters have moved.
    expected.retain(|(output, ..), _| output != "dead_letters");
    assert!(expected.len() > 5, "too little to compare: {expected:#?}");

    directory.write("new.jsonl", &lines);
    for workers in ["1", "2"] {
        let found = what_if(&directory, &["--settings", "new.jsonl", "--workers", workers]);
        assert!(
            found == expected,
            "on {workers} workers:\n{found:#?}\n{expected:#?}"
        );
    }
    let text = directory
        .tidegate(&["whatif", "job.toml", "--settings", "new.jsonl"])
        .succeeded();
    let sum = |sign: i64| expected.values().map(|diff| (diff * sign).max(0)).sum::<i64>();
    let head = format!("+{} -{} alerts, by type and by customer\n", sum(1), sum(-1));
    assert!(text.starts_with(&head), "{head}{text}");
    assert!(text.contains("\ntype") && text.contains("\ncustomer"), "{text}");
}

/// From a checkpoint on, the recorded state is what both variants begin with.
#[test]
fn a_part_of_the_day_differs_only_in_itself() {
    let directory = with_history();
    let whole = what_if(&directory, &["--set", "risk_pattern.limit=20000"]);
    let time = |message: &(String, String, String)| {
        let value: Value = serde_json::from_str(&message.2).expect("JSON");
        let transaction = value.get("second").or(value.get("first"));
        transaction.and_then(|transaction| transaction["occurred_at"].as_i64())
    };
    let mut times: Vec<i64> = whole.keys().filter_map(time).collect();
    times.sort_unstable();
    let from = times[times.len() / 2].to_string();
    let part = what_if(
        &directory,
        &["--set", "risk_pattern.limit=20000", "--from", &from],
    );
    assert!(
        !part.is_empty() && part.len() < whole.len(),
        "{} of {}",
        part.len(),
        whole.len()
    );
    assert!(
        part.iter()
            .all(|(message, diff)| whole.get(message) == Some(diff))
    );
}

#[test]
fn what_cannot_be_answered_is_refused() {
    let directory = with_history();
    let refused = |arguments: &[&str], code: i32, words: &str| {
        let arguments = [&["whatif", "job.toml"], arguments].concat();
        let error = directory.tidegate(&arguments).failed(code);
        assert!(error.contains(words), "{words:?} is not in:\n{error}");
    };
    refused(&["--set", "risk_pattern.limits=1"], 2, "did you mean `limit`?");
    refused(
        &["--set", "risk_pattern.limit=much"],
        2,
        "risk_pattern.limit: wrong type",
    );
    refused(&["--set", "limit"], 2, "DATAFLOW.KEY=VALUE");
    refused(&["--settings", "absent.jsonl"], 2, "absent.jsonl");
    directory.write("broken.jsonl", "{\"key\":\"C1\",\"value\":{}}\n");
    refused(&["--settings", "broken.jsonl"], 2, "line 1");
    let late = [
        "--set",
        "tumbling_aggregates.size_ms=5",
        "--from",
        "2025-01-31T12:00:00Z",
    ];
    refused(&late, 2, "the state at --from is made by it");

    let mut email = directory.read("out/email.jsonl");
    let at = email.iter().position(|byte| *byte == b'@').expect("an address");
    email[at] = b'%';
    directory.write("out/email.jsonl", email);
    refused(&[], 12, "what was sent is not what the record gives");
}

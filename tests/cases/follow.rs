//! Files that grow while the job follows them. Windowed results, and alerts while no table changes, are those
//! of a finite run over the same bytes; a job that was followed and is then run to the end has missed
//! nothing.
//!
//! Cases wait for what `status` says is committed, never for time to pass.

use crate::harness::{Directory, Running};
use crate::jobs::{self, all_outputs, day, hold, lay_out, output, rows, subset};
use crate::oracle::{Input, Job, compare, expected};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The job without its bytes: its files are there and empty.
fn emptied(job: &Job, emptied: &[&str]) -> Job {
    let mut empty = job.clone();
    for (_, input) in empty
        .inputs
        .iter_mut()
        .filter(|(name, _)| emptied.contains(&name.as_str()))
    {
        input.partitions.iter_mut().for_each(Vec::clear);
    }
    empty
}

/// Appends all partitions of these inputs in seeded pieces of 1 to `longest` bytes, cut anywhere, taking
/// turns.
fn append_in_pieces(directory: &Directory, job: &Job, inputs: &[&str], longest: usize, seed: u64) {
    let mut state = seed;
    let mut below = |bound: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound
    };
    let mut rest: Vec<(String, &[u8])> = Vec::new();
    for name in inputs {
        let files = job.inputs[*name].partitions.iter().enumerate();
        rest.extend(files.map(|(partition, bytes)| (jobs::input_file(name, partition), bytes.as_slice())));
    }
    rest.retain(|(_, bytes)| !bytes.is_empty());
    while !rest.is_empty() {
        let at = below(rest.len());
        let (file, bytes) = &mut rest[at];
        let (piece, after) = bytes.split_at(bytes.len().min(1 + below(longest)));
        directory.append(file, piece);
        *bytes = after;
        if after.is_empty() {
            rest.swap_remove(at);
        }
    }
}

/// Committed offsets by input and partition.
fn committed(status: &Value) -> BTreeMap<(String, usize), usize> {
    let number = |value: &Value| usize::try_from(value.as_u64().expect("a number")).expect("a size");
    let partitions = status["inputs"].as_array().expect("inputs").iter();
    let each = partitions.map(|at| {
        let input = at["input"].as_str().expect("a name").to_owned();
        ((input, number(&at["partition"])), number(&at["committed_offset"]))
    });
    each.collect()
}

/// Waits until every byte of the job's inputs is committed.
fn wait_for_all(running: &mut Running<'_>, job: &Job) {
    let all = |status: &Value| {
        let committed = committed(status);
        job.inputs.iter().all(|(name, input)| {
            let mut partitions = input.partitions.iter().enumerate();
            partitions
                .all(|(at, bytes)| committed.get(&(name.clone(), at)).copied().unwrap_or(0) == bytes.len())
        })
    };
    running.wait_for_status("everything is committed", all);
}

/// The job over what is committed of its inputs.
fn committed_part(directory: &Directory, job: &Job) -> Job {
    let committed = committed(&directory.status());
    let mut part = job.clone();
    for (name, input) in &mut part.inputs {
        for (partition, bytes) in input.partitions.iter_mut().enumerate() {
            bytes.truncate(committed.get(&(name.clone(), partition)).copied().unwrap_or(0));
        }
    }
    part
}

/// Everything by event time; alerts and counts follow the epochs.
const WINDOWED: [&str; 3] = ["tumbling_aggregates", "enriched_orders", "risk_pattern"];

#[test]
fn followed_and_then_ended_gives_the_windowed_results_of_one_finite_run() {
    let job = subset(&day(21, 120, &[]), &WINDOWED);
    let inputs = ["orders", "payments", "transactions"];
    for (interval, workers) in [(1, 2), (10, 3), (1_000, 1), (10_000, 2)] {
        let story = format!("epochs of {interval} ms");
        let directory = lay_out(
            &emptied(&job, &inputs),
            "",
            &format!("interval_ms = {interval}\n"),
        );
        let mut running =
            directory.start(&["run", "job.toml", "--follow", "--workers", &workers.to_string()]);
        if interval < 10_000 {
            append_in_pieces(&directory, &job, &inputs, 4_000, interval);
            wait_for_all(&mut running, &job);
        } else {
            // Ended in the middle of the first epoch: what was read is committed, the rest is the next run's.
            append_in_pieces(&directory, &job, &inputs, 40_000, interval);
        }
        running.interrupt().succeeded();
        closed_windows_only(&directory, &committed_part(&directory, &job), &story);
        jobs::run(&directory, 2);
        hold(&job, &expected(&job), &all_outputs(&directory, &job), &story);
    }
}

/// Asserts that `aggregates` are those of the windows that the global watermark has closed, no more and no
/// less.
fn closed_windows_only(directory: &Directory, job: &Job, story: &str) {
    let status = directory.status();
    let partitions: Vec<&Value> = status["inputs"].as_array().expect("inputs").iter().collect();
    let orders = partitions.iter().filter(|at| at["input"] == "orders");
    // A partition without a record has no watermark: nothing is closed.
    let global = orders.map(|at| at["watermark"].as_i64()).min().flatten();
    let is_closed = |row: &&Value| {
        let end = row["value"]["window_end"].as_i64().expect("a time");
        global.is_some_and(|global| global >= end + 10_000)
    };
    let closed: Vec<Value> = expected(job).outputs["aggregates"]
        .iter()
        .filter(is_closed)
        .cloned()
        .collect();
    let actual = output(directory, "aggregates");
    if let Err(difference) = compare::compare(&closed, &actual) {
        panic!("{story}: closed up to {global:?}: {difference}");
    }
}

#[test]
fn killed_while_following_and_followed_again_nothing_is_lost_or_told_twice() {
    let job = subset(&day(23, 120, &[]), &WINDOWED);
    let inputs = ["orders", "payments", "transactions"];
    let directory = lay_out(
        &emptied(&job, &inputs),
        "",
        "interval_ms = 3\n[checkpoint]\ninterval_ms = 20\n",
    );
    // A third of every partition, cut anywhere, for each life of the job; the last life runs to the end.
    for (life, workers) in [(1, 2), (2, 1), (3, 3)] {
        let part = |bytes: &[u8]| bytes[bytes.len() * (life - 1) / 3..bytes.len() * life / 3].to_vec();
        let mut third = job.clone();
        for input in third.inputs.values_mut() {
            input.partitions.iter_mut().for_each(|bytes| *bytes = part(bytes));
        }
        let before = committed(&directory.status()).into_values().sum::<usize>();
        let mut running =
            directory.start(&["run", "job.toml", "--follow", "--workers", &workers.to_string()]);
        append_in_pieces(&directory, &third, &inputs, 3_000, life as u64);
        running.wait_for_status("more is committed", |status| {
            committed(status).into_values().sum::<usize>() > before || life == 3
        });
        drop(running); // kill -9
    }
    jobs::run(&directory, 2);
    hold(
        &job,
        &expected(&job),
        &all_outputs(&directory, &job),
        "killed twice",
    );
}

#[test]
fn alerts_are_those_of_a_finite_run_while_no_table_changes() {
    let job = subset(&day(22, 150, &["--changes", "0"]), &["alerts", "event_counts"]);
    let directory = lay_out(&emptied(&job, &["entries", "events"]), "", "interval_ms = 5\n");
    let mut running = directory.start(&["run", "job.toml", "--follow", "--workers", "2"]);
    append_in_pieces(&directory, &job, &["entries", "events"], 900, 5);
    wait_for_all(&mut running, &job);
    running.interrupt().succeeded();
    hold(&job, &expected(&job), &all_outputs(&directory, &job), "followed");
}

/// A line of orders.
fn order(key: &str, time: i64) -> String {
    let value = json!({"order_id": "o", "amount": 1, "currency": "EUR", "placed_at": time});
    format!("{}\n", json!({"key": key, "value": value}))
}

/// A followed job of orders in windows, with these files and a line more in the section of its input.
fn windows(partitions: &[String], more: &str) -> Directory {
    let partitions = partitions.iter().map(|text| text.clone().into_bytes()).collect();
    let job = Job::new(
        &["tumbling_aggregates"],
        vec![("orders", Input::new("orders", partitions))],
    );
    let directory = lay_out(&job, "", "");
    let text =
        jobs::job_file(&job, "", "").replace("[inputs.orders]\n", &format!("[inputs.orders]\n{more}\n"));
    directory.write("job.toml", text);
    directory
}

/// Keys and event times and watermarks of the late.
fn late(directory: &Directory) -> Vec<(String, i64, i64)> {
    let number = |value: &Value| value.as_i64().expect("a time");
    let letters = rows(&output(directory, "dead_letters")).into_iter();
    let each = letters.map(|row| {
        let key = row["key"].as_str().expect("a key").to_owned();
        (
            key,
            number(&row["value"]["event_time"]),
            number(&row["value"]["watermark"]),
        )
    });
    each.collect()
}

/// Waits until this many lines are committed to an output.
fn wait_for_lines(running: &mut Running<'_>, directory: &Directory, name: &str, count: usize) {
    // Before the start has opened it, the file may not be there.
    let path = directory.root().join(format!("out/{name}.jsonl"));
    let has = |_: &Value| std::fs::read_to_string(&path).is_ok_and(|text| text.lines().count() >= count);
    running.wait_for_status(&format!("{name} has {count} lines"), has);
}

#[test]
fn a_file_found_while_following_is_held_to_the_watermark_it_missed() {
    let directory = windows(&[order("a", 5_000) + &order("a", 200_000)], "");
    let mut running = directory.start(&["run", "job.toml", "--follow", "--workers", "2"]);
    wait_for_lines(&mut running, &directory, "aggregates", 1);
    // Found empty: it holds nothing back, and its first record meets the watermark of the others as its
    // floor.
    directory.write(&jobs::input_file("orders", 1), "");
    directory.append(&jobs::input_file("orders", 0), order("a", 300_000));
    wait_for_lines(&mut running, &directory, "aggregates", 2);
    directory.append(
        &jobs::input_file("orders", 1),
        order("b", 6_000) + &order("b", 310_000),
    );
    running.wait_for_status("the new file is read", |status| {
        status["inputs"][1]["committed_offset"] == order("b", 6_000).len() + order("b", 310_000).len()
    });
    running.interrupt().succeeded();
    assert_eq!(late(&directory), [("b".to_owned(), 6_000, 300_000)]);
    // Its number is its own from now on, whatever sorts before it. The first partition is not at its end yet,
    // so the file found at this start wakes while the watermark is still that of before.
    directory.append(&jobs::input_file("orders", 0), order("a", 330_000));
    directory.write("data/orders-000-before.jsonl", order("c", 320_000));
    jobs::run(&directory, 1);
    let status = directory.status();
    let files: Vec<_> = status["inputs"]
        .as_array()
        .expect("inputs")
        .iter()
        .map(|at| at["file"].clone())
        .collect();
    assert_eq!(
        files,
        [
            "data/orders-000.jsonl",
            "data/orders-001.jsonl",
            "data/orders-000-before.jsonl"
        ]
    );
    let counts: Vec<_> = rows(&output(&directory, "aggregates"))
        .iter()
        .map(|row| {
            (
                row["key"].clone(),
                row["value"]["window_start"].clone(),
                row["value"]["count"].clone(),
            )
        })
        .collect();
    let window = |key: &str, start: i64, count: i64| (json!(key), json!(start), json!(count));
    let mut closed = counts[2..].to_vec();
    closed.sort_by_key(|(key, ..)| key.to_string());
    assert_eq!(counts[..2], [window("a", 0, 1), window("a", 180_000, 1)]);
    assert_eq!(
        closed,
        [
            window("a", 300_000, 2),
            window("b", 300_000, 1),
            window("c", 300_000, 1)
        ]
    );
}

#[test]
fn an_idle_partition_holds_nothing_back_and_wakes_at_the_floor() {
    let directory = windows(&[String::new(), String::new()], "idle_timeout_ms = 1000");
    let mut running = directory.start(&["run", "job.toml", "--follow", "--workers", "2"]);
    running.wait_for_status("both are idle", |status| {
        status["inputs"][0]["idle"] == true && status["inputs"][1]["idle"] == true
    });
    // The first one wakes; while it is active, it alone says what time it is.
    directory.append(
        &jobs::input_file("orders", 0),
        order("a", 5_000) + &order("a", 200_000),
    );
    wait_for_lines(&mut running, &directory, "aggregates", 1);
    directory.append(
        &jobs::input_file("orders", 1),
        order("b", 6_000) + &order("b", 199_000),
    );
    wait_for_lines(&mut running, &directory, "dead_letters", 1);
    running.interrupt().succeeded();
    assert_eq!(late(&directory), [("b".to_owned(), 6_000, 200_000)]);
    // What woke when, and at which floor, is recorded: it is not decided again.
    jobs::run(&directory, 3);
    assert_eq!(late(&directory).len(), 1);
    assert_eq!(output(&directory, "aggregates").lines().count(), 3);
}

#[test]
fn without_an_idle_timeout_a_silent_partition_holds_all_windows() {
    let directory = windows(&[order("a", 5_000) + &order("a", 200_000), String::new()], "");
    let mut running = directory.start(&["run", "job.toml", "--follow"]);
    let read = order("a", 5_000).len() + order("a", 200_000).len();
    running.wait_for_status("all is read", |status| {
        status["inputs"][0]["committed_offset"] == read
    });
    running.interrupt().succeeded();
    assert_eq!(output(&directory, "aggregates"), "");
    let status = directory.status();
    assert_eq!(
        (
            &status["inputs"][0]["watermark"],
            &status["inputs"][1]["watermark"]
        ),
        (&json!(200_000), &Value::Null)
    );
}

#[test]
fn half_a_line_waits_for_the_rest_of_it() {
    let job = Job::new(
        &["event_counts"],
        vec![("events", Input::new("events", vec![Vec::new()]))],
    );
    let directory = lay_out(&job, "", "");
    let line =
        "{\"key\":\"\u{e4}\u{20ac}\",\"value\":{\"event_id\":\"\u{1f600}\",\"occurred_at\":7}}\n".as_bytes();
    let file = jobs::input_file("events", 0);
    let mut running = directory.start(&["run", "job.toml", "--follow"]);
    // A whole line and the next one up to each of its bytes, inside characters too: only the whole one is
    // committed.
    let mut end = 0;
    for cut in 1..line.len() {
        directory.append(&file, &line[cut - 1..]);
        directory.append(&file, &line[..cut]);
        end += line.len();
        running.wait_for_status("the whole line is committed", |status| {
            status["inputs"][0]["committed_offset"] == end
        });
    }
    running.interrupt().succeeded();
    let count = |directory: &Directory| {
        rows(&output(directory, "counts"))
            .last()
            .map(|row| row["value"]["count"].clone())
    };
    assert_eq!(count(&directory), Some(json!(line.len() - 1)));
    // The run to the end counts what stands there without its end: too short by its last byte, the LF.
    jobs::run(&directory, 1);
    assert_eq!(count(&directory), Some(json!(line.len())));
    assert_eq!(output(&directory, "dead_letters"), "");
}

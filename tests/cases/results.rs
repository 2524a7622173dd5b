//! Finite runs against the oracle: whatever the workers, the shards, the ticks and the stages, the outputs
//! are the contract's; and byte for byte the same for any number of workers.

use crate::harness::Directory;
use crate::jobs::{
    self, DATAFLOWS, all_outputs, check, day, hold, lay_out, output, outputs, rows, run, subset,
};
use crate::oracle::{Emit, Input, Job, Settings, compare, expected, order};
use serde_json::json;
use std::collections::BTreeMap;

#[test]
fn generated_days_give_the_oracles_results_on_any_number_of_workers() {
    for seed in 1..=2 {
        let job = day(seed, 300, &[]);
        let one = check(&job, 1, "", "", &format!("seed {seed}, 1 worker"));
        assert!(
            one.iter().all(|(_, text)| !text.is_empty()),
            "every output gets rows"
        );
        for workers in 2..=4 {
            let directory = lay_out(&job, "", "");
            run(&directory, workers);
            same_bytes(
                &one,
                &all_outputs(&directory, &job),
                &format!("seed {seed}, {workers} workers"),
            );
        }
    }
}

/// Asserts byte equality, and names the first line that differs.
#[track_caller]
fn same_bytes(one: &[(&str, String)], other: &[(&str, String)], story: &str) {
    for ((name, one), (_, other)) in one.iter().zip(other) {
        let differs = one.lines().zip(other.lines()).find(|(one, other)| one != other);
        assert_eq!(differs, None, "{story}: {name}");
        assert_eq!(one.len(), other.len(), "{story}: {name}");
    }
}

#[test]
fn any_subset_of_the_dataflows_gives_what_it_gives_in_the_whole() {
    let whole = day(3, 150, &[]);
    for (dataflow, ..) in DATAFLOWS {
        check(&subset(&whole, &[dataflow]), 2, "", "", dataflow);
    }
    for pair in [
        ["tumbling_aggregates", "enriched_orders"],
        ["alerts", "event_counts"],
    ] {
        check(&subset(&whole, &pair), 3, "", "", &pair.join(" and "));
    }
    let mut without_devices = subset(&whole, &["alerts"]);
    without_devices.inputs.remove("devices");
    check(&without_devices, 2, "", "", "alerts without devices");
}

#[test]
fn rows_per_epoch_settle_to_the_final_ones() {
    let mut job = subset(&day(4, 300, &[]), &["tumbling_aggregates", "risk_pattern"]);
    job.settings.insert(
        "tumbling_aggregates".into(),
        Settings {
            emit: Emit::Changes,
            ..Settings::default()
        },
    );
    job.settings.insert(
        "risk_pattern".into(),
        Settings {
            emit: Emit::Eager,
            ..Settings::default()
        },
    );
    let one = check(&job, 1, "", "", "1 worker");
    let withdrawn = rows(&one[1].1)
        .iter()
        .filter(|row| row["value"]["status"] == "WITHDRAWN")
        .count();
    let raised = rows(&one[1].1).len() - withdrawn;
    assert!(raised > withdrawn, "some patterns stand");
    for workers in [2, 3] {
        same_bytes(
            &one,
            &check(&job, workers, "", "", "more workers"),
            &format!("{workers} workers"),
        );
    }
}

#[test]
fn a_transaction_between_withdraws_what_was_raised() {
    let line = |id: &str, time: i64, amount: i64, location: &str| {
        let value = json!({"transaction_id": id, "user_id": "U", "amount": amount, "currency": "EUR",
            "location": location, "occurred_at": time});
        format!("{}\n", json!({"key": "U", "value": value}))
    };
    // One tick each: a and b are neighbours until m comes between them, in bounds.
    let lines = [
        line("a", 10_000, 2_000_000, "X"),
        line("b", 14_000, 5, "Y"),
        line("m", 12_000, 5, "X"),
    ];
    let mut job = Job::new(
        &["risk_pattern"],
        vec![(
            "transactions",
            Input::new("transactions", vec![lines.concat().into()]),
        )],
    );
    check(&job, 2, "", "", "final");
    job.settings.insert(
        "risk_pattern".into(),
        Settings {
            emit: Emit::Eager,
            ..Settings::default()
        },
    );
    job.replay_tick_ms = 1;
    // m's as-of time is b's, so it shares its epoch: nothing is raised that is not in the end.
    let one_tick = check(&job, 1, "", "", "one tick");
    assert_eq!(one_tick[0].1, "");
    // After a record that moves the tick on, m comes in a later epoch than b.
    let lines = [
        &lines[0],
        &lines[1],
        &line("z", 16_000, 5, "Y").replace("\"U\"", "\"V\""),
        &lines[2],
    ];
    job.inputs.insert(
        "transactions".into(),
        Input::new("transactions", vec![lines.map(String::as_str).concat().into()]),
    );
    let two_ticks = check(&job, 1, "", "", "two ticks");
    let statuses: Vec<_> = rows(&two_ticks[0].1)
        .into_iter()
        .map(|row| (row["value"]["alert_id"].clone(), row["value"]["status"].clone()))
        .collect();
    assert_eq!(
        statuses,
        [
            (json!("a/b"), json!("RAISED")),
            (json!("a/b"), json!("WITHDRAWN"))
        ]
    );
}

#[test]
fn ticks_decide_what_tables_an_entry_sees() {
    let whole = day(5, 150, &["--changes", "400"]);
    let mut seen = Vec::new();
    for tick in [1, 60_000, 7_200_000] {
        let mut job = subset(&whole, &["alerts"]);
        job.replay_tick_ms = tick;
        seen.push(check(&job, 2, "", "", &format!("ticks of {tick} ms")));
    }
    assert!(
        seen[0] != seen[2],
        "the day has entries that see a change later in their tick"
    );
}

#[test]
fn settings_of_windows_joins_and_patterns_hold() {
    let mut job = day(6, 200, &[]);
    let settings = |size_ms, grace_ms, within_ms, limit| Settings {
        size_ms,
        grace_ms,
        within_ms,
        limit,
        emit: Emit::Final,
    };
    job.settings.insert(
        "tumbling_aggregates".into(),
        settings(Some(3_600_000), Some(0), None, None),
    );
    job.settings
        .insert("enriched_orders".into(), settings(None, Some(1), Some(0), None));
    job.settings.insert(
        "risk_pattern".into(),
        settings(None, None, Some(1_000_000), Some(100)),
    );
    for (name, input) in &mut job.inputs {
        input.max_record_bytes = 220;
        if !["authorizations", "settings", "devices"].contains(&name.as_str()) {
            input.max_out_of_orderness_ms = 30_000;
            input.max_jump_ms = Some(12 * 3_600_000);
        }
    }
    let far = json!({"key": "far", "value": {"event_id": "far", "occurred_at": 253_402_300_799_999_i64}});
    job.inputs.get_mut("events").expect("events").partitions[1].extend(format!("{far}\n").bytes());
    let outputs = check(&job, 2, "", "[checkpoint]\ninterval_ms = 1\n", "other settings");
    let dead = &outputs.last().expect("dead letters").1;
    for part in ["max_jump_ms", "longer than 220 bytes", "LATE"] {
        assert!(dead.contains(part), "{part} is in no dead letter");
    }
}

#[test]
fn epochs_and_checkpoints_leave_finite_results_alone() {
    let job = day(7, 100, &[]);
    let usual = check(&job, 2, "", "", "the usual");
    for last in [
        "interval_ms = 1\n",
        "interval_ms = 60000\n[checkpoint]\ninterval_ms = 1\n",
    ] {
        same_bytes(&usual, &check(&job, 2, "", last, last), last);
    }
}

/// Murmur2 with Kafka's seed, from its definition.
fn murmur2(data: &[u8]) -> u32 {
    let mix = |hash: u32| hash.wrapping_mul(0x5bd1_e995);
    let mut hash = 0x9747_b28c ^ u32::try_from(data.len()).expect("a short key");
    let words = data.len() / 4 * 4;
    for word in data[..words].chunks(4) {
        let word = mix(word
            .iter()
            .rev()
            .fold(0, |word, byte| word << 8 | u32::from(*byte)));
        hash = mix(hash) ^ mix(word ^ word >> 24);
    }
    if words < data.len() {
        hash = mix(hash
            ^ data[words..]
                .iter()
                .rev()
                .fold(0, |word, byte| word << 8 | u32::from(*byte)));
    }
    hash = mix(hash ^ hash >> 13);
    hash ^ hash >> 15
}

#[test]
fn with_three_shards_a_key_lies_in_the_file_of_its_hash() {
    let job = day(8, 200, &[]);
    let directory = lay_out(&job, "shards = 3\n", "");
    run(&directory, 2);
    let expected = expected(&job);
    for name in outputs(&job) {
        let mut all = String::new();
        for shard in 0..3_u32 {
            let text = output(&directory, &format!("{name}-{shard}"));
            for row in rows(&text) {
                let key = row["key"]
                    .as_str()
                    .map(|key| (murmur2(key.as_bytes()) & 0x7fff_ffff) % 3);
                assert!(key.is_none_or(|of_key| of_key == shard), "{name}-{shard}: {row}");
            }
            // An alert's order is that of its account's entries, shard by shard; expected counts are of all
            // shards.
            if !["email", "sms", "push", "device_push", "risk_alerts"].contains(&name) {
                order::check_order(&job, &expected, name, &text).expect("the promised order");
            }
            all.push_str(&text);
        }
        let settled = match name {
            "counts" => compare::last_row_per_key(&all)
                .expect("rows")
                .iter()
                .map(|row| format!("{row}\n"))
                .collect(),
            _ => all,
        };
        compare::compare(&expected.outputs[name], &settled)
            .unwrap_or_else(|difference| panic!("{name}: {difference}"));
        assert!(
            !directory.root().join(format!("out/{name}.jsonl")).exists(),
            "there is no file without a shard"
        );
    }
}

/// Where the first `part` of `of` parts of these bytes ends, behind an LF.
fn part_end(bytes: &[u8], part: usize, of: usize) -> usize {
    let about = bytes.len() * part / of;
    bytes[about..]
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(bytes.len(), |at| about + at + 1)
}

#[test]
fn partitions_that_grow_between_runs_are_read_on() {
    let whole = day(9, 200, &["--changes", "300"]);
    let directory = Directory::new();
    directory.write("job.toml", jobs::job_file(&whole, "", ""));
    // The last partition of every event input appears only in the second stage.
    let is_there = |name: &str, partition: usize, stage: usize| {
        stage > 1 || partition < 2 || ["authorizations", "settings", "devices"].contains(&name)
    };
    let mut from = BTreeMap::new();
    let mut written: BTreeMap<&str, usize> = BTreeMap::new();
    for (stage, workers) in [(1, 1), (2, 3), (3, 2)] {
        let mut job = whole.clone();
        job.from = std::mem::take(&mut from);
        for (name, input) in &mut job.inputs {
            input.partitions = (0..input.partitions.len())
                .filter(|partition| is_there(name, *partition, stage))
                .map(|partition| {
                    let bytes = &input.partitions[partition];
                    bytes[..part_end(bytes, stage, 3)].to_vec()
                })
                .collect();
            for (partition, bytes) in input.partitions.iter().enumerate() {
                directory.write(&jobs::input_file(name, partition), bytes);
                from.insert((name.clone(), partition), bytes.len());
            }
        }
        run(&directory, workers);
        let added = all_outputs(&directory, &job).into_iter().map(|(name, text)| {
            let before = written.insert(name, text.len()).unwrap_or_default();
            (name, text[before..].to_owned())
        });
        hold(
            &job,
            &expected(&job),
            &added.collect::<Vec<_>>(),
            &format!("stage {stage}"),
        );
    }
    let late = output(&directory, "dead_letters")
        .matches("\"watermark\":9223372036854775807")
        .count();
    assert!(late > 100, "what was appended after the end is late: {late}");
    // Nothing new: nothing is written, however often.
    let before = all_outputs(&directory, &whole);
    run(&directory, 4);
    same_bytes(&before, &all_outputs(&directory, &whole), "nothing new");
}

/// An event line without its end.
fn event(key: &str) -> String {
    json!({"key": key, "value": {"event_id": "e", "occurred_at": 1_000}}).to_string()
}

#[test]
fn a_last_line_without_its_end_counts_once_whatever_follows() {
    let empty = Job::new(
        &["event_counts"],
        vec![("events", Input::new("events", vec![Vec::new()]))],
    );
    for end in ["\n", "\r\n"] {
        let directory = lay_out(&empty, "", "");
        let file = jobs::input_file("events", 0);
        directory.write(&file, event("a"));
        run(&directory, 1);
        let first = event("a").len();
        assert_eq!(directory.status()["inputs"][0]["committed_offset"], first);
        directory.append(&file, format!("{end}{}", event("a")));
        run(&directory, 2);
        directory.append(&file, end);
        run(&directory, 1);
        directory.append(&file, format!("\n{}", event("b")));
        run(&directory, 1);
        directory.append(&file, "tail\n");
        run(&directory, 1);
        let counts: Vec<_> = rows(&output(&directory, "counts"))
            .iter()
            .map(|row| (row["key"].clone(), row["value"]["count"].clone()))
            .collect();
        assert_eq!(
            counts,
            [
                (json!("a"), json!(1)),
                (json!("a"), json!(2)),
                (json!("b"), json!(1))
            ],
            "{end:?}"
        );
        // A line of its own is what stands alone: the empty one, and what was written behind a line already
        // counted.
        let dead: Vec<_> = rows(&output(&directory, "dead_letters"))
            .iter()
            .map(|row| row["value"]["offset"].clone())
            .collect();
        let empty_line = 2 * (first + end.len());
        assert_eq!(
            dead,
            [json!(empty_line), json!(empty_line + 1 + first)],
            "{end:?}"
        );
    }
}

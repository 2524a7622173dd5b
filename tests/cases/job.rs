//! Job files: what a good one means, and what is said about a wrong one: file, line, key, and what was likely
//! meant.

use crate::harness::Directory;

/// A job file that is right, to be spoilt. Line 1 is the name.
const GOOD: &str = r#"name = "counts"
dataflows = ["event_counts", "tumbling_aggregates"]
state = "state"

[inputs.events]
file = "data/events-*.jsonl"
format = "json"

[inputs.orders]
file = "data/orders.jsonl"
format = "json"

[outputs.counts]
file = "out/counts.jsonl"
format = "json"

[outputs.aggregates]
file = "out/aggregates.jsonl"
format = "json"

[outputs.dead_letters]
file = "out/dead.jsonl"
format = "json"

[tumbling_aggregates]
size_ms = 60000
emit = "final"

[epoch]
interval_ms = 10

[checkpoint]
interval_ms = 10000
"#;

/// A directory with the files that [`GOOD`] reads.
fn directory() -> Directory {
    let directory = Directory::new();
    for name in ["data/events-b.jsonl", "data/events-a.jsonl", "data/orders.jsonl"] {
        directory.write(name, "{}\n");
    }
    directory
}

/// Checks the job file that a replacement in [`GOOD`] makes: it is refused with exactly these lines.
#[track_caller]
fn refused(from: &str, to: &str, expected: &[&str]) {
    assert!(GOOD.contains(from), "{from:?} is not in the good file");
    let directory = directory();
    directory.write("job.toml", GOOD.replacen(from, to, 1));
    let outcome = directory.tidegate(&["check", "job.toml"]);
    assert_eq!(
        outcome.stdout, "",
        "nothing is printed about a job that is refused"
    );
    let lines: Vec<String> = expected.iter().map(|line| format!("job.toml:{line}")).collect();
    assert_eq!(outcome.failed(3).lines().collect::<Vec<_>>(), lines);
}

#[test]
fn a_good_job_is_shown_with_its_files_and_defaults() {
    let directory = directory();
    directory.write("job.toml", GOOD);
    let text = directory.tidegate(&["check", "job.toml"]).succeeded();
    let has = |line: &str| {
        text.lines()
            .any(|shown| shown.split_whitespace().eq(line.split_whitespace()))
    };
    // In the catalogue's order, files bytewise sorted, defaults filled in.
    for line in [
        "counts: tumbling_aggregates, event_counts on 9 bytes of input",
        "events 0 3 data/events-a.jsonl",
        "1 3 data/events-b.jsonl",
        "orders 0 3 data/orders.jsonl",
        "dead_letters the job out/dead.jsonl",
        "tumbling_aggregates.grace_ms 10000",
        "epoch.replay_tick_ms 1000",
        "inputs.events.max_record_bytes 8388608",
    ] {
        assert!(has(line), "{line:?} is not in\n{text}");
    }

    let json = directory.tidegate(&["check", "job.toml", "--json"]).succeeded();
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        json["dataflows"],
        serde_json::json!(["tumbling_aggregates", "event_counts"])
    );
    assert_eq!(json["settings"]["epoch.interval_ms"], 10);
    assert_eq!(
        json["settings"]["inputs.orders.idle_timeout_ms"],
        serde_json::Value::Null
    );
    assert_eq!(json["inputs"][1]["partitions"][1]["file"], "data/events-b.jsonl");
}

#[test]
fn unknown_keys_come_with_a_suggestion() {
    refused(
        "\nemit =",
        "\nemits =",
        &["27: tumbling_aggregates.emits: unknown (did you mean `emit`?)"],
    );
    refused(
        "interval_ms = 10\n",
        "intervall_ms = 10\n",
        &["30: epoch.intervall_ms: unknown (did you mean `interval_ms`?)"],
    );
    refused(
        "[epoch]",
        "colour = 1\n[epoch]",
        &["29: tumbling_aggregates.colour: unknown"],
    );
    refused(
        "[checkpoint]",
        "[checkpoints]",
        &["32: checkpoints: unknown (did you mean `checkpoint`?)"],
    );
    refused(
        "[inputs.events]",
        "[inputs.event]",
        &[
            "5: inputs.events: missing: event_counts reads it",
            "5: inputs.event: unknown (did you mean `events`?)",
        ],
    );
    refused(
        "\nemit = \"final\"",
        "\nemit = \"finals\"",
        &["27: tumbling_aggregates.emit: `finals` is none of final, changes (did you mean `final`?)"],
    );
    refused(
        "\"event_counts\"",
        "\"event_count\"",
        &[
            "2: dataflows: `event_count` is none of alerts, tumbling_aggregates, enriched_orders, \
             risk_pattern, event_counts (did you mean `event_counts`?)",
        ],
    );
}

#[test]
fn wrong_types_and_ranges_are_named() {
    refused(
        "size_ms = 60000",
        "size_ms = \"1m\"",
        &["26: tumbling_aggregates.size_ms: wrong type: an integer is wanted, not a string"],
    );
    refused(
        "size_ms = 60000",
        "size_ms = 6e4",
        &["26: tumbling_aggregates.size_ms: wrong type: an integer is wanted, not a float"],
    );
    refused(
        "size_ms = 60000",
        "size_ms = 0",
        &["26: tumbling_aggregates.size_ms: 0 is not within 1 ..= 253402300799999"],
    );
    refused(
        "size_ms = 60000",
        "grace_ms = -1",
        &["26: tumbling_aggregates.grace_ms: -1 is not within 0 ..= 253402300799999"],
    );
    refused(
        "interval_ms = 10\n",
        "interval_ms = 60001\n",
        &["30: epoch.interval_ms: 60001 is not within 1 ..= 60000"],
    );
    refused(
        "interval_ms = 10\n",
        "interval_ms = 99999999999999999999\n",
        &["30: epoch.interval_ms: 99999999999999999999 is not within 1 ..= 60000"],
    );
    refused(
        "name = \"counts\"",
        "name = 7",
        &["1: name: wrong type: a string is wanted, not an integer"],
    );
    refused(
        "name = \"counts\"",
        "name = \"The Job\"",
        &["1: name: `The Job` is not made of a-z, 0-9 and -"],
    );
}

#[test]
fn what_is_missing_is_named() {
    refused("name = \"counts\"\n", "", &["1: name: missing"]);
    refused("state = \"state\"\n", "", &["1: state: missing"]);
    refused(
        "file = \"out/counts.jsonl\"\n",
        "",
        &["13: outputs.counts.file: missing"],
    );
    refused(
        "data/orders.jsonl",
        "data/order.jsonl",
        &["10: inputs.orders.file: `data/order.jsonl` matches no file"],
    );
    refused(
        "data/events-*.jsonl",
        "dat*",
        &["6: inputs.events.file: data is a directory"],
    );
    refused(
        "[outputs.dead_letters]\nfile = \"out/dead.jsonl\"\nformat = \"json\"\n",
        "",
        &["13: outputs.dead_letters: missing: every job writes it"],
    );
}

#[test]
fn what_does_not_belong_is_refused() {
    refused(
        "[epoch]",
        "[risk_pattern]\nlimit = 5\n[epoch]",
        &["29: risk_pattern: not among the `dataflows` of this job"],
    );
    refused(
        "[inputs.orders]",
        "[inputs.payments]\nfile = \"data/orders.jsonl\"\n[inputs.orders]",
        &["9: inputs.payments: no dataflow of this job reads it (enriched_orders does)"],
    );
    refused(
        "[outputs.counts]",
        "[outputs.email]\nfile = \"x\"\n[outputs.counts]",
        &["13: outputs.email: no dataflow of this job writes it (alerts does)"],
    );
    refused(
        "\"tumbling_aggregates\"]",
        "\"event_counts\", \"tumbling_aggregates\"]",
        &["2: dataflows: `event_counts` is named twice"],
    );
}

#[test]
fn a_file_has_one_use() {
    refused(
        "out/aggregates.jsonl",
        "out/../out/./counts.jsonl",
        &["14: outputs.counts.file: `out/counts.jsonl` is also the file of `outputs.aggregates`"],
    );
    refused(
        "out/counts.jsonl",
        "data/orders.jsonl",
        &["14: outputs.counts.file: `data/orders.jsonl` is read by `inputs.orders`"],
    );
    // It does not exist yet, but the next start would read it.
    refused(
        "out/counts.jsonl",
        "data/events-out.jsonl",
        &["14: outputs.counts.file: `data/events-out.jsonl` is read by `inputs.events`"],
    );
    refused(
        "out/counts.jsonl",
        "data",
        &["14: outputs.counts.file: `data` is not a file"],
    );
}

#[test]
fn what_this_version_does_not_have_is_said_to_be_so() {
    refused(
        "file = \"out/counts.jsonl\"\nformat = \"json\"",
        "file = \"out/counts.jsonl\"\nformat = \"avro\"",
        &["15: outputs.counts.format: `avro` is only for topics: files hold JSON lines"],
    );
    refused(
        "file = \"out/counts.jsonl\"",
        "redis = \"127.0.0.1\"",
        &[
            "13: outputs.counts.file: missing",
            "14: outputs.counts.redis: not in this version: use `file`",
        ],
    );
    refused(
        "state = \"state\"",
        "state = \"ftp://host/state\"",
        &[
            "3: state: `ftp://host/state` is no store that is known: use a directory, file://, s3://, gs:// or az://",
        ],
    );
}

#[test]
fn what_toml_refuses_is_named_with_its_line() {
    refused(
        "size_ms = 60000\n",
        "size_ms = 60000\nsize_ms = 60000\n",
        &["27: size_ms: duplicate key"],
    );
    refused(
        "[checkpoint]",
        "[epoch]",
        &["32: epoch: duplicate key", "33: interval_ms: duplicate key"],
    );
    refused(
        "state = \"state\"",
        "state = state",
        &["3: state: string values must be quoted, expected literal string"],
    );
}

#[test]
fn variables_are_taken_from_the_environment() {
    let directory = directory();
    directory.write(
        "job.toml",
        GOOD.replace("data/orders.jsonl", "${FOLDER}/orders.${KIND}"),
    );
    let check = ["check", "job.toml"];
    directory
        .tidegate_with(&check, &[("FOLDER", "data"), ("KIND", "jsonl")])
        .succeeded();
    assert_eq!(
        directory.tidegate_with(&check, &[("FOLDER", "data")]).failed(3),
        "job.toml:10: inputs.orders.file: the environment variable `KIND` is not set\n",
    );
}

#[test]
fn everything_wrong_is_said_at_once() {
    let directory = directory();
    let text = GOOD
        .replace("name", "nam")
        .replace("size_ms = 60000", "size_ms = 0")
        .replace("out/dead", "out/counts");
    directory.write("job.toml", text);
    let expected = "\
job.toml:1: name: missing
job.toml:1: nam: unknown (did you mean `name`?)
job.toml:22: outputs.dead_letters.file: `out/counts.jsonl` is also the file of `outputs.counts`
job.toml:26: tumbling_aggregates.size_ms: 0 is not within 1 ..= 253402300799999
";
    assert_eq!(directory.tidegate(&["check", "job.toml"]).failed(3), expected);
}

#[test]
fn a_job_file_that_is_not_there_is_a_wrong_configuration() {
    let errors = Directory::new()
        .tidegate(&["check", "nowhere/job.toml"])
        .failed(3);
    assert!(errors.starts_with("nowhere/job.toml: No such file"), "{errors}");
}

#[test]
fn a_wrong_command_line_is_a_wrong_usage() {
    let errors = Directory::new().tidegate(&["check"]).failed(2);
    assert!(errors.contains("Usage: tidegate check"), "{errors}");
}

#[test]
fn a_generated_day_comes_with_a_job_that_is_right() {
    let directory = Directory::new();
    let generate = [
        "generate",
        "--accounts",
        "50",
        "--seed",
        "3",
        "--out",
        "day",
        "--partitions",
        "3",
    ];
    directory.tidegate(&generate).succeeded();
    let json = directory
        .tidegate(&["check", "day/job.toml", "--json"])
        .succeeded();
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["dataflows"].as_array().map(Vec::len), Some(5));
    assert_eq!(json["inputs"][0]["partitions"].as_array().map(Vec::len), Some(3));
    assert_eq!(json["outputs"].as_array().map(Vec::len), Some(10));
    // Equal seeds, equal bytes.
    directory
        .tidegate(&[&generate[..6], &["again", "--partitions", "3"]].concat())
        .succeeded();
    for name in ["job.toml", "entries-2.jsonl", "settings-1.jsonl"] {
        assert_eq!(
            directory.read(&format!("day/{name}")),
            directory.read(&format!("again/{name}")),
            "{name}"
        );
    }
    // Never into a directory that holds anything: old partitions would be read as the new day's.
    let errors = directory.tidegate(&generate).failed(2);
    assert!(errors.contains("day: not empty"), "{errors}");
}

#[test]
fn only_results_that_cannot_be_written_are_a_failure() {
    let directory = Directory::new();
    let generate = |out| ["generate", "--accounts", "20", "--log", "trace", "--out", out];
    assert_eq!(
        directory.tidegate_into(&generate("a"), "/dev/null", "/dev/full"),
        Some(0),
        "logs are not results"
    );
    assert_eq!(
        directory.tidegate_into(&generate("b"), "/dev/full", "/dev/null"),
        Some(7)
    );
    assert_eq!(
        directory.tidegate_into(&["check", "nowhere"], "/dev/null", "/dev/full"),
        Some(3)
    );
}

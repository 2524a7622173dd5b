//! What every command prints: results on standard output, in words and as JSON, logs on standard error, and
//! exit codes that say what to do.

use crate::harness::Directory;
use crate::jobs::{self, DATAFLOWS, day, lay_out, output, outputs, rows, run};
use crate::oracle::{Input, Job};
use serde_json::{Value, json};

#[track_caller]
fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The names of an object's members.
fn members(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect()
}

/// A small job with something in every output, not yet run.
fn whole_day() -> (Job, Directory) {
    let job = day(31, 60, &[]);
    let directory = lay_out(&job, "", "");
    (job, directory)
}

#[test]
fn every_command_has_help_with_an_example() {
    let directory = Directory::new();
    let help = directory.tidegate(&["--help"]).succeeded();
    for (code, meaning) in [
        (0, "done"),
        (2, "usage"),
        (3, "configuration"),
        (4, "input gone"),
        (5, "state damaged"),
        (6, "another instance"),
        (7, "write failed"),
        (8, "fenced"),
        (9, "unreachable"),
        (10, "peer lost"),
        (11, "stalled"),
        (12, "differs"),
        (70, "internal"),
        (130, "stopped"),
    ] {
        let says = |line: &&str| line.trim_start().starts_with(&format!("{code} ")) && line.contains(meaning);
        assert!(
            help.lines().any(|line| says(&line)),
            "{code} {meaning} is not in\n{help}"
        );
    }
    let commands = [
        "run", "cluster", "replay", "whatif", "check", "graph", "status", "topics", "produce", "consume",
        "generate", "demo",
    ];
    for command in commands {
        assert!(
            help.contains(&format!("\n  {command} ")),
            "{command} is not listed"
        );
        let own = directory.tidegate(&[command, "--help"]).succeeded();
        let example = own
            .split_once("Example:\n")
            .or_else(|| own.split_once("Examples:\n"))
            .unwrap_or_else(|| panic!("{command}: no example in\n{own}"))
            .1;
        assert!(
            example.trim_start().starts_with(&format!("tidegate {command}")),
            "{command}: {example}"
        );
        // An example is only one if its command line can be read.
        let line = example
            .lines()
            .next()
            .expect("a line")
            .split('|')
            .next()
            .expect("a command");
        let mut words: Vec<&str> = line.split_whitespace().skip(1).collect();
        words.push("--help");
        directory.tidegate(&words).succeeded();
    }
}

#[test]
fn a_wrong_command_line_exits_2() {
    let directory = Directory::new();
    let wrong: [&[&str]; 10] = [
        &[],
        &["fly"],
        &["run"],
        &["run", "job.toml", "--workers", "0"],
        &["run", "job.toml", "--colour"],
        &["graph", "job.toml", "--dot", "--json"],
        &["generate", "--accounts", "1"],
        &["topics", "job.toml", "--partitions", "0"],
        &["produce", "job.toml", "--all", "day", "--brokers", "b:1"],
        &["consume", "job.toml"],
    ];
    for arguments in wrong {
        let outcome = directory.tidegate(arguments);
        assert_eq!(outcome.stdout, "", "{arguments:?}");
        assert!(outcome.failed(2).contains("--help"), "{arguments:?}");
    }
}

#[test]
fn a_missing_job_file_exits_3_whatever_the_command() {
    let directory = Directory::new();
    for command in ["run", "check", "graph", "status", "topics"] {
        let outcome = directory.tidegate(&[command, "nowhere.toml"]);
        assert_eq!(outcome.stdout, "");
        assert!(outcome.failed(3).contains("nowhere.toml"), "{command}");
    }
}

#[test]
fn a_run_prints_its_summary_in_words_or_as_json() {
    let (job, directory) = whole_day();
    let summary = parsed(
        &directory
            .tidegate(&["run", "job.toml", "--workers", "2", "--json"])
            .succeeded(),
    );
    assert_eq!(
        (&summary["job"], &summary["workers"]),
        (&json!("case"), &json!(2))
    );
    let lines: usize = job
        .inputs
        .values()
        .flat_map(|input| &input.partitions)
        .map(|bytes| bytes.iter().filter(|byte| **byte == b'\n').count())
        .sum();
    assert_eq!(summary["messages_in"], lines);
    for (at, name) in outputs(&job).into_iter().enumerate() {
        assert_eq!(
            summary["messages_out"][at],
            output(&directory, name).lines().count(),
            "{name}"
        );
        assert_eq!(summary["files"][at][0], name);
    }
    for reason in summary["dead_letters"].as_array().expect("reasons") {
        let letters = rows(&output(&directory, "dead_letters"));
        let count = letters
            .iter()
            .filter(|row| row["value"]["reason"] == reason[0])
            .count();
        assert_eq!(reason[1], count, "{reason}");
    }
    let latency =
        ["max", "p50", "p99", "p999"].map(|name| summary["latency_us"][name].as_u64().expect("microseconds"));
    assert!(latency[1] <= latency[2] && latency[2] <= latency[3] && latency[3] <= latency[0]);
    for name in [
        "elapsed_ms",
        "epochs",
        "committed",
        "state_bytes",
        "state_bytes_written",
    ] {
        assert!(summary[name].is_u64(), "{name}");
    }

    let (_, directory) = whole_day();
    let text = directory.tidegate(&["run", "job.toml"]).succeeded();
    for name in outputs(&job) {
        let count = output(&directory, name).lines().count();
        let has = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.first() == Some(&name)
                && words.get(1).map(|word| word.replace(',', "")) == Some(count.to_string())
        };
        assert!(text.lines().any(has), "{name} {count} is not in\n{text}");
    }
}

#[test]
fn status_agrees_with_the_files() {
    let (job, directory) = whole_day();
    // Before the first start there is nothing, and looking makes nothing.
    let before = directory.status();
    assert_eq!(
        (&before["generation"], &before["inputs"], &before["checkpoints"]),
        (&json!(0), &json!([]), &json!([]))
    );
    assert!(!directory.root().join("state").exists());

    run(&directory, 2);
    run(&directory, 1);
    let status = directory.status();
    assert_eq!(
        members(&status),
        ["checkpoints", "generation", "inputs", "job", "outputs"]
    );
    assert_eq!(
        (&status["job"], &status["generation"]),
        (&json!("case"), &json!(2))
    );
    let mut partitions = status["inputs"].as_array().expect("inputs").iter();
    for (_, inputs, _) in DATAFLOWS {
        let new = inputs
            .iter()
            .filter(|input| !(inputs.len() == 2 && **input == "orders")); // shared, and listed once
        for input in new {
            for (partition, bytes) in job.inputs[*input].partitions.iter().enumerate() {
                let shown = partitions.next().expect("every partition is shown");
                assert_eq!(
                    (&shown["input"], &shown["partition"]),
                    (&json!(input), &json!(partition))
                );
                assert_eq!(shown["committed_offset"], bytes.len(), "{input} {partition}");
                assert_eq!(shown["file"], jobs::input_file(input, partition));
                let is_table = ["authorizations", "settings", "devices"].contains(input);
                assert_eq!(shown["ended"], true);
                assert_eq!(
                    shown["watermark"],
                    if is_table { Value::Null } else { json!(i64::MAX) }
                );
            }
        }
    }
    assert!(partitions.next().is_none());
    for (at, name) in outputs(&job).into_iter().enumerate() {
        let shown = &status["outputs"][at];
        assert_eq!((&shown["output"], &shown["shard"]), (&json!(name), &json!(0)));
        assert_eq!(shown["committed_bytes"], output(&directory, name).len(), "{name}");
        assert!(
            shown["file"]
                .as_str()
                .is_some_and(|file| file.ends_with(&format!("out/{name}.jsonl")))
        );
    }
    let checkpoints = status["checkpoints"].as_array().expect("checkpoints");
    let last = checkpoints.last().expect("a run ends with a checkpoint");
    assert!(last["bytes"].as_u64() > Some(0) && last["rows"].as_u64() > Some(0));
    let epochs: Vec<_> = checkpoints
        .iter()
        .map(|checkpoint| checkpoint["epoch"].as_u64())
        .collect();
    assert!(epochs.is_sorted(), "{epochs:?}");
    assert!(
        epochs.last() <= Some(&status["outputs"][0]["committed_epoch"].as_u64()),
        "checkpoints follow commits"
    );

    let text = directory.tidegate(&["status", "job.toml"]).succeeded();
    assert!(text.starts_with("job case, generation 2\n"));
    for word in [
        "email",
        "out/email.jsonl",
        "data/events-002.jsonl",
        "end",
        "checkpoint",
    ] {
        assert!(text.contains(word), "{word} is not in\n{text}");
    }
}

/// The names that a drawing gives its nodes, between these two.
fn labels<'a>(text: &'a str, open: &str, close: &str) -> Vec<&'a str> {
    let of_line = |line: &'a str| Some(line.split_once(open)?.1.split_once(close)?.0);
    text.lines().filter_map(of_line).collect()
}

#[test]
fn the_graph_names_the_operators_in_every_form() {
    let (job, directory) = whole_day();
    let graph = |form: &str| directory.tidegate(&["graph", "job.toml", form]).succeeded();
    let json = parsed(&graph("--json"));
    assert_eq!(members(&json), ["edges", "nodes", "stateful"]);
    let named: Vec<&str> = json["nodes"]
        .as_array()
        .expect("nodes")
        .iter()
        .filter_map(|node| node["name"].as_str())
        .collect();
    let dot = graph("--dot");
    assert!(dot.starts_with("digraph \"case\" {\n") && dot.ends_with("}\n"));
    let mermaid = graph("--mermaid");
    assert!(mermaid.starts_with("flowchart LR\n"));
    assert_eq!(mermaid, directory.tidegate(&["graph", "job.toml"]).succeeded());
    assert_eq!(labels(&dot, "[label=\"", "\"];"), named);
    assert_eq!(labels(&mermaid, "[\"", "\"]"), named);
    let edges = json["edges"].as_array().expect("edges").len();
    assert_eq!(
        (dot.matches(" -> ").count(), mermaid.matches(" --> ").count()),
        (edges, edges)
    );
    for input in job.inputs.keys() {
        assert!(named.contains(&input.as_str()), "{input} is not among {named:?}");
    }
    for output in outputs(&job) {
        let encode = format!("encode {output}");
        assert!(
            named.contains(&encode.as_str()),
            "{encode} is not among {named:?}"
        );
    }
    for stateful in json["stateful"].as_array().expect("stateful operators") {
        assert!(
            named.iter().any(|name| stateful == *name),
            "{stateful} is not among {named:?}"
        );
    }
    // Every node is drawn for what it is connected to.
    for node in json["nodes"].as_array().expect("nodes") {
        let id = &node["id"];
        let is_at = |edge: &Value| edge[0] == *id || edge[1] == *id;
        assert!(
            json["edges"].as_array().expect("edges").iter().any(is_at),
            "{node} stands alone"
        );
    }
    assert!(
        !directory.root().join("state").exists() && !directory.root().join("out").exists(),
        "nothing was started"
    );
}

#[test]
fn logs_go_to_standard_error_in_the_form_asked_for() {
    let (_, directory) = whole_day();
    let outcome = directory.tidegate(&[
        "run",
        "job.toml",
        "--json",
        "--log",
        "debug",
        "--log-format",
        "json",
    ]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    parsed(&outcome.stdout);
    let lines: Vec<Value> = outcome.stderr.lines().map(parsed).collect();
    assert!(
        lines
            .iter()
            .any(|line| line["fields"]["message"] == "started" && line["level"] == "INFO")
    );
    assert!(lines.iter().any(|line| line["level"] == "DEBUG"));

    let outcome = directory.tidegate(&["run", "job.toml", "--json", "--log", "off"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    for quiet in ["check", "graph", "status"] {
        let outcome = directory.tidegate(&[quiet, "job.toml"]);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{quiet}");
        assert!(!outcome.stdout.is_empty());
    }
}

#[test]
fn a_failure_prints_nothing_but_its_reason() {
    let event = r#"{"key":"k","value":{"event_id":"e","occurred_at":7}}"#;
    let input = Input::new("events", vec![format!("{event}\n").into_bytes()]);
    let directory = lay_out(&Job::new(&["event_counts"], vec![("events", input)]), "", "");
    // Somebody's file is not cut and not written to, unless that is asked for.
    directory.write("out/counts.jsonl", "mine\n");
    for _ in 0..2 {
        let outcome = directory.tidegate(&["run", "job.toml", "--log", "off"]);
        assert_eq!(outcome.stdout, "");
        let reason = outcome.failed(3);
        assert!(
            reason.contains("out/counts.jsonl") && reason.contains("append"),
            "{reason}"
        );
        assert_eq!(reason.lines().count(), 1);
        assert_eq!(output(&directory, "counts"), "mine\n");
    }
    directory.tidegate(&["run", "job.toml", "--append"]).succeeded();
    assert_eq!(
        output(&directory, "counts"),
        "mine\n{\"key\":\"k\",\"value\":{\"count\":1}}\n"
    );
}

#[test]
fn another_instance_is_refused_while_the_first_one_runs() {
    let directory = lay_out(
        &Job::new(
            &["event_counts"],
            vec![("events", Input::new("events", vec![Vec::new()]))],
        ),
        "",
        "",
    );
    let mut running = directory.start(&["run", "job.toml", "--follow", "--json"]);
    running.wait_for_status("it has begun", |status| status["generation"] == 1);
    let refused = directory.tidegate(&["run", "job.toml"]).failed(6);
    assert!(refused.contains("lock") || refused.contains("pid"), "{refused}");
    let summary = running.interrupt().succeeded();
    assert_eq!(parsed(&summary)["messages_in"], 0);
    assert_eq!(
        directory.status()["generation"],
        1,
        "the refused one claimed nothing"
    );
}

#[test]
fn generated_days_are_the_same_for_the_same_seed() {
    let directory = Directory::new();
    let generate = |seed: &str, out: &str| {
        directory.tidegate(&["generate", "--seed", seed, "--accounts", "50", "--out", out])
    };
    let said = generate("1", "one").succeeded();
    assert!(said.contains("tidegate run one/job.toml"), "{said}");
    generate("1", "same").succeeded();
    generate("2", "other").succeeded();
    for name in [
        "entries-0.jsonl",
        "settings-1.jsonl",
        "orders-3.jsonl",
        "events-2.jsonl",
    ] {
        let [one, same, other] = ["one", "same", "other"].map(|at| directory.read(&format!("{at}/{name}")));
        assert!(one == same && one != other, "{name}");
    }
    assert!(generate("1", "one").failed(2).contains("one: not empty"));
    let job = parsed(
        &directory
            .tidegate(&["check", "one/job.toml", "--json"])
            .succeeded(),
    );
    assert_eq!(job["dataflows"], json!(DATAFLOWS.map(|(name, ..)| name)));
}

#[test]
fn the_demo_ends_with_a_table_of_what_lies_there() {
    let directory = Directory::new();
    let json = parsed(
        &directory
            .tidegate(&["demo", "--accounts", "200", "--json"])
            .succeeded(),
    );
    assert_eq!(json["workers"], 2);
    for (at, file) in json["files"].as_array().expect("files").iter().enumerate() {
        let path = file[1][0].as_str().expect("a path");
        let lines = String::from_utf8(directory.read(path))
            .expect("UTF-8")
            .lines()
            .count();
        assert_eq!(json["messages_out"][at], lines, "{file}");
        assert!(lines > 0, "{file}: every output of a demo has rows");
    }
    for reason in json["dead_letters"].as_array().expect("reasons") {
        assert!(reason[1].as_u64() > Some(0), "{reason}: a demo shows every kind");
    }
    // The next demo replaces it, and says in words the same, but for times.
    let text = directory
        .tidegate(&["demo", "--accounts", "200", "--log", "off"])
        .succeeded();
    for (at, file) in json["files"].as_array().expect("files").iter().enumerate() {
        let (name, count) = (
            file[0].as_str().expect("a name"),
            json["messages_out"][at].to_string(),
        );
        let says = |line: &str| {
            let words: Vec<String> = line
                .split_whitespace()
                .map(|word| word.replace(',', ""))
                .collect();
            words.first().is_some_and(|word| word == name) && words.get(1) == Some(&count)
        };
        assert!(text.lines().any(says), "{name} {count} is not in\n{text}");
    }
    for word in [
        "/s)",
        "p50",
        "p99",
        "p99.9",
        "state",
        "UNDECODABLE",
        "INVALID",
        "LATE",
        "tidegate status demo/day/job.toml",
    ] {
        assert!(text.contains(word), "{word} is not in\n{text}");
    }
    directory
        .tidegate(&["status", "demo/day/job.toml", "--json"])
        .succeeded();
    // What is not a demo's is not replaced.
    directory.write("mine/file", "");
    directory.tidegate(&["demo", "--out", "mine"]).failed(2);
}

//! The Kafka side of job files: what is passed on, what is refused and why, and that no secret is shown.

use crate::harness::{Directory, Outcome};

/// A job file that is right, to be spoilt. `[kafka]` is line 5.
const GOOD: &str = r#"name = "counts"
dataflows = ["event_counts"]
state = "state"

[kafka]
brokers = "127.0.0.1:9092"

[inputs.events]
kafka = "events"

[outputs.counts]
kafka = "counts"

[outputs.dead_letters]
kafka = "dead-letters"
"#;

/// A secret that no output may hold.
const CANARY: &str = "canary-7d11";

/// Checks the job file that a replacement in [`GOOD`] makes.
#[track_caller]
fn checked(from: &str, to: &str) -> Outcome {
    assert!(GOOD.contains(from), "{from:?} is not in the good file");
    let directory = Directory::new();
    directory.write("password.txt", format!("{CANARY}\n"));
    directory.write("job.toml", GOOD.replacen(from, to, 1));
    let outcome = directory.tidegate_with(&["check", "job.toml"], &[("CANARY", CANARY)]);
    assert!(!outcome.stdout.contains(CANARY) && !outcome.stderr.contains(CANARY));
    outcome
}

/// It is refused with exactly these lines.
#[track_caller]
fn refused(from: &str, to: &str, expected: &[&str]) {
    let outcome = checked(from, to);
    let lines: Vec<String> = expected.iter().map(|line| format!("job.toml:{line}")).collect();
    assert_eq!(outcome.failed(3).lines().collect::<Vec<_>>(), lines);
}

/// It is refused with this line when it stands in `[kafka]`, as line 7.
#[track_caller]
fn refused_property(property: &str, expected: &str) {
    let to = format!(":9092\"\n{property}\n");
    refused(":9092\"\n", &to, &[&format!("7: kafka.{expected}")]);
}

/// What `check` shows of settings, a line each with single spaces.
#[track_caller]
fn shown(from: &str, to: &str) -> Vec<String> {
    let text = checked(from, to).succeeded();
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    text.lines().map(words).collect()
}

#[test]
fn a_good_job_is_shown_with_its_topics() {
    let lines = shown("name", "name");
    for line in [
        "events all kafka:events",
        "counts event_counts kafka:counts",
        "kafka.brokers 127.0.0.1:9092",
        "kafka.transaction_timeout_ms 15000",
        "inputs.events.idle_timeout_ms 10000",
    ] {
        assert!(
            lines.iter().any(|shown| shown == line),
            "{line:?} is not in\n{lines:#?}"
        );
    }
}

#[test]
fn the_section_and_its_brokers_are_wanted() {
    refused(
        "[kafka]\nbrokers = \"127.0.0.1:9092\"\n",
        "",
        &["1: kafka: missing: an input or output names a topic, and brokers are wanted for it"],
    );
    refused(
        "brokers = \"127.0.0.1:9092\"\n",
        "",
        &["5: kafka.brokers: missing"],
    );
}

#[test]
fn what_correctness_fixes_is_refused_however_it_is_written() {
    let reason = "fixed by Tidegate: positions come from bindings only";
    refused_property(
        "enable.auto.commit = true",
        &format!("enable.auto.commit: {reason}"),
    );
    refused_property(
        "\"enable.auto.commit\" = \"true\"",
        &format!("enable.auto.commit: {reason}"),
    );
    refused_property(
        "enable = { auto.commit = true }",
        &format!("enable.auto.commit: {reason}"),
    );
    refused_property(
        "acks = 1",
        "acks: fixed by Tidegate: an output counts once all in-sync replicas have it",
    );
    refused_property(
        "isolation.level = \"read_uncommitted\"",
        "isolation.level: fixed by Tidegate: uncommitted input would be read",
    );
    refused_property(
        "group.id = \"g\"",
        "group.id: fixed by Tidegate: partitions are assigned by the job, no group decides",
    );
}

#[test]
fn everything_else_is_passed_on_if_librdkafka_takes_it() {
    let good = ":9092\"\ncompression.codec = \"zstd\"\n\"fetch.max.bytes\" = 1000000\n\
         ssl = { endpoint.identification.algorithm = \"https\" }\n";
    let lines = shown(":9092\"\n", good);
    for line in [
        "kafka.compression.codec zstd",
        "kafka.fetch.max.bytes 1000000",
        "kafka.ssl.endpoint.identification.algorithm https",
    ] {
        assert!(
            lines.iter().any(|shown| shown == line),
            "{line:?} is not in\n{lines:#?}"
        );
    }
    refused_property(
        "fetch.max.byte = 1",
        "fetch.max.byte: No such configuration property: \"fetch.max.byte\"",
    );
    refused_property(
        "fetch.max.bytes = [1]",
        "fetch.max.bytes: wrong type: a string is wanted, not an array",
    );
    let outcome = checked(":9092\"\n", ":9092\"\nsecurity.protocol = \"telnet\"\n").failed(3);
    assert!(
        outcome.starts_with("job.toml:7: kafka.security.protocol: ") && outcome.lines().count() == 1,
        "{outcome}"
    );
}

#[test]
fn secrets_come_from_elsewhere_and_are_not_shown() {
    let in_clear = "a secret must not stand in the job file: write ${NAME} or ${file:PATH}";
    for name in [
        "sasl.password",
        "ssl.key.password",
        "ssl.key.pem",
        "schema_registry_password",
    ] {
        let half = format!("{name} = \"x${{CANARY}}\"");
        refused_property(&half, &format!("{name}: {in_clear}"));
    }
    for good in ["${CANARY}", "${file:password.txt}"] {
        let lines = shown(":9092\"\n", &format!(":9092\"\nsasl.password = \"{good}\"\n"));
        let hidden = "kafka.sasl.password <not shown>";
        assert!(lines.iter().any(|shown| shown == hidden), "{lines:#?}");
    }
    refused_property(
        "sasl.password = \"${file:nowhere}\"",
        "sasl.password: nowhere: No such file or directory (os error 2)",
    );
    refused_property(
        "sasl.password = \"${NOWHERE}\"",
        "sasl.password: the environment variable `NOWHERE` is not set",
    );
    // Whatever came from elsewhere may be a secret, also where it is wrong.
    refused_property(
        "security.protocol = \"${CANARY}\"",
        "security.protocol: librdkafka does not take its value, which is not shown",
    );
}

#[test]
fn a_topic_has_a_name_and_one_use() {
    refused(
        "kafka = \"events\"",
        "kafka = \"events\"\nfile = \"events.jsonl\"",
        &[
            "9: inputs.events.kafka: either `file` or `kafka`, not both",
            "10: inputs.events.file: `events.jsonl` matches no file",
        ],
    );
    for name in ["", ".", "a b", "a/b", "\u{e4}"] {
        let line = format!(
            "9: inputs.events.kafka: `{name}` is no name of a topic: letters, digits, `.`, `_` and `-`, 249 at most"
        );
        refused("\"events\"", &format!("\"{name}\""), &[&line]);
    }
    refused(
        "kafka = \"dead-letters\"",
        "kafka = \"counts\"",
        &["15: outputs.dead_letters.kafka: `counts` is also the topic of `outputs.counts`"],
    );
    refused(
        "kafka = \"counts\"",
        "kafka = \"events\"",
        &["12: outputs.counts.kafka: `events` is read by `inputs.events`"],
    );
    refused(
        "kafka = \"counts\"",
        "kafka = \"counts-progress\"",
        &["12: outputs.counts.kafka: `counts-progress` is the job's own: it holds what is committed"],
    );
}

#[test]
fn a_start_is_earliest_latest_or_a_time() {
    for from in [
        "earliest",
        "latest",
        "2026-01-31T00:00:00Z",
        "2026-01-31T01:00:00.5+01:00",
    ] {
        let to = format!("kafka = \"events\"\nfrom = \"{from}\"");
        checked("kafka = \"events\"", &to).succeeded();
    }
    refused(
        "kafka = \"events\"",
        "kafka = \"events\"\nfrom = \"yesterday\"",
        &[
            "10: inputs.events.from: `yesterday` is none of earliest, latest, and a time such as 2026-01-31T00:00:00Z",
        ],
    );
    refused(
        "kafka = \"events\"",
        "file = \"job.toml\"\nfrom = \"latest\"",
        &["10: inputs.events.from: only of a topic: files are read from their first byte"],
    );
}

#[test]
fn avro_is_for_topics_and_needs_a_registry() {
    refused(
        "kafka = \"events\"",
        "kafka = \"events\"\nformat = \"avro\"",
        &["5: kafka.schema_registry: missing: an input or output is in Avro"],
    );
    refused(
        "kafka = \"events\"",
        "file = \"job.toml\"\nformat = \"avro\"",
        &[
            "5: kafka.schema_registry: missing: an input or output is in Avro",
            "10: inputs.events.format: `avro` is only for topics: files hold JSON lines",
        ],
    );
}

//! `topics`, `produce`, `consume` and `status` against a real broker, as their readers and exit codes see them.

use crate::broker::{Brokers, class, tool};
use crate::harness::Directory;
use crate::process;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tidegate::kafka::Settings;
use tidegate::kafka::producer::{Message, Producer};

/// A job from one topic to two, under a name that no other case has.
struct Job {
    directory: Directory,
    name: String,
}

impl Job {
    /// `more` stands in the section of the input.
    fn new(more: &str) -> Job {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "commands-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let brokers = Brokers::for_tests().expect("a broker").bootstrap();
        let directory = Directory::new();
        let registry = Brokers::for_tests().expect("a broker").registry_url();
        let registry = registry.map_or(String::new(), |url| format!("schema_registry = \"{url}\"\n"));
        directory.write(
            "job.toml",
            format!(
                "name = \"{name}\"\ndataflows = [\"event_counts\"]\nstate = \"state\"\n\
                 [kafka]\nbrokers = \"{brokers}\"\n{registry}\
                 [inputs.events]\nkafka = \"{name}-in\"\n{more}\n\
                 [outputs.counts]\nkafka = \"{name}-counts\"\n\
                 [outputs.dead_letters]\nkafka = \"{name}-dead\"\n"
            ),
        );
        Job { directory, name }
    }

    fn created(more: &str) -> Job {
        let job = Job::new(more);
        let create = [
            "topics",
            "job.toml",
            "--create",
            "--partitions",
            "3",
            "--replication",
            "1",
        ];
        job.directory.tidegate(&create).succeeded();
        job
    }

    /// Kafka's own tool, on this job's brokers.
    fn tool(&self, class: &str, arguments: &[&str], input: &str) -> String {
        let brokers = Brokers::for_tests().expect("a broker").bootstrap();
        let words = [&["--bootstrap-server", brokers], arguments].concat();
        tool(class, &words, input).expect("Kafka's tool succeeds")
    }

    fn topic(&self, what: &str) -> String {
        format!("{}-{what}", self.name)
    }

    /// Produces these lines to the input, as if from a file.
    #[track_caller]
    fn produce(&self, lines: &str) {
        self.directory.write("lines.jsonl", lines);
        let produce = ["produce", "job.toml", "events", "lines.jsonl"];
        self.directory.tidegate(&produce).succeeded();
    }

    /// What is committed in an output, or input, of the job.
    #[track_caller]
    fn consume(&self, name: &str) -> Vec<Value> {
        let text = self
            .directory
            .tidegate(&["consume", "job.toml", name, "--to-end"])
            .succeeded();
        text.lines()
            .map(|line| serde_json::from_str(line).expect("a JSON line"))
            .collect()
    }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn event(key: &str, number: usize) -> String {
    format!("{{\"key\":\"{key}\",\"value\":{{\"event_id\":\"{number}\",\"occurred_at\":{number}}}}}\n")
}

#[test]
fn topics_names_what_is_missing_creates_it_and_names_what_is_wrong() {
    let job = Job::new("");
    let outcome = job.directory.tidegate(&["topics", "job.toml", "--json"]);
    let missing = parsed(&outcome.stdout);
    assert_eq!(missing.as_array().map(Vec::len), Some(4));
    assert!(
        missing
            .as_array()
            .is_some_and(|topics| topics.iter().all(|topic| topic["exists"] == false))
    );
    let reason = outcome.failed(3);
    assert_eq!(reason, "4 of 4 topics are missing or wrong\n");

    let created = job
        .directory
        .tidegate(&["topics", "job.toml", "--create", "--partitions", "3", "--json"]);
    let created = parsed(&created.succeeded());
    let facts = |topic: &Value| {
        let of = |name: &str| topic[name].clone();
        [
            of("use"),
            of("partitions"),
            of("replication"),
            of("cleanup_policy"),
            of("wrong"),
        ]
    };
    let facts: Vec<_> = created.as_array().expect("topics").iter().map(facts).collect();
    assert_eq!(
        facts[0],
        [json!("events"), json!(3), json!(1), json!("delete"), Value::Null]
    );
    assert_eq!(
        facts[1],
        [json!("output"), json!(3), json!(1), json!("delete"), Value::Null]
    );
    assert_eq!(
        facts[3],
        [
            json!("progress"),
            json!(1),
            json!(1),
            json!("compact"),
            Value::Null
        ]
    );
    // Nothing is left to do, and nothing that exists is touched.
    let create = ["topics", "job.toml", "--create", "--partitions", "7"];
    let again = job.directory.tidegate(&create).succeeded();
    assert!(
        !again.contains(" 7 ") && again.contains(&job.topic("progress")),
        "{again}"
    );
    assert!(!job.directory.path("state").exists(), "looking makes no state");

    let (input, entity) = (
        job.topic("in"),
        ["--alter", "--entity-type", "topics", "--entity-name"],
    );
    let spoil = [&entity[..], &[&input, "--add-config", "cleanup.policy=compact"]].concat();
    job.tool(class::CONFIGS, &spoil, "");
    let outcome = job.directory.tidegate(&["topics", "job.toml"]);
    assert!(
        outcome
            .stdout
            .contains("it is compacted: a replay would miss messages"),
        "{}",
        outcome.stdout
    );
    assert_eq!(outcome.failed(3), "1 of 4 topics are missing or wrong\n");
}

#[test]
fn produce_partitions_as_the_java_client_and_sends_what_stands_there() {
    let job = Job::created("");
    let keys = [
        "21",
        "foobar",
        "a-little-bit-long-string",
        "\u{e4}\u{f6}",
        "tide\\tgate",
        "",
        "7",
    ];
    let lines: String = keys
        .iter()
        .map(|key| {
            format!("{{\"key\":\"{key}\",\"timestamp\":1700000000007,\"value\":{{\"n\": 1.0,  \"x\":[]}}}}\n")
        })
        .collect();
    job.produce(&(lines + "{\"value\":null,\"key\":\"gone\"}\n"));
    let topic = job.topic("in");
    let properties = ["print.timestamp=true", "print.partition=true", "print.key=true"];
    let mut words = vec!["--topic", &topic, "--from-beginning", "--max-messages", "8"];
    properties
        .iter()
        .for_each(|property| words.extend(["--property", property]));
    let ours = job.tool(class::CONSUMER, &words, "");
    let mut ours: Vec<Vec<&str>> = ours.lines().map(|line| line.splitn(4, '\t').collect()).collect();
    for row in ours.iter().filter(|row| row[2] != "gone") {
        assert_eq!(row[0], "CreateTime:1700000000007");
        assert!(row[3].ends_with("{\"n\": 1.0,  \"x\":[]}"), "{row:?}");
    }
    assert!(
        ours.iter().any(|row| row[2] == "gone" && row[3] == "null"),
        "{ours:?}"
    );

    // The Java client puts each key where we did.
    let other = Job::created("");
    let text: String = keys
        .iter()
        .filter(|key| !key.contains('\\'))
        .map(|key| format!("{key}=v\n"))
        .collect();
    let there = other.topic("in");
    let send = [
        "--topic",
        &there,
        "--property",
        "parse.key=true",
        "--property",
        "key.separator==",
    ];
    other.tool(class::PRODUCER, &send, &text);
    let mut words = vec!["--topic", &there, "--from-beginning", "--max-messages", "6"];
    properties
        .iter()
        .for_each(|property| words.extend(["--property", property]));
    let theirs = other.tool(class::CONSUMER, &words, "");
    let partition_of = |rows: &[Vec<&str>]| -> Vec<(String, String)> {
        let mut pairs: Vec<_> = rows
            .iter()
            .map(|row| (row[2].to_owned(), row[1].to_owned()))
            .collect();
        pairs.sort();
        pairs
    };
    let theirs: Vec<Vec<&str>> = theirs
        .lines()
        .map(|line| line.splitn(4, '\t').collect())
        .collect();
    ours.retain(|row| theirs.iter().any(|their| their[2] == row[2]));
    assert_eq!(ours.len(), 6);
    assert_eq!(partition_of(&ours), partition_of(&theirs));
}

#[test]
fn a_line_that_is_no_message_is_named_and_only_sent_on_demand() {
    let job = Job::created("");
    let bad = [
        "no message",
        "{\"key\":\"k\"}",
        "{\"key\":7,\"value\":{}}",
        "{\"key\":\"k\",\"value\":1,\"timestamp\":-1}",
        "",
    ];
    let lines = event("a", 1) + &bad.join("\n") + "\n" + &event("a", 2);
    job.directory.write("lines.jsonl", &lines);
    let outcome = job
        .directory
        .tidegate(&["produce", "job.toml", "events", "lines.jsonl", "--json"]);
    let summary = parsed(&outcome.stdout);
    assert_eq!(
        (&summary["topics"][0]["messages"], &summary["broken_lines"]),
        (&json!(2), &json!(5))
    );
    let log = outcome.failed(4);
    for number in 2..=6 {
        assert!(
            log.contains(&format!("lines.jsonl:{number}: ")),
            "{number} is not named:\n{log}"
        );
    }
    assert_eq!(job.consume("events").len(), 2);

    let send = [
        "produce",
        "job.toml",
        "events",
        "lines.jsonl",
        "--send-broken",
        "--json",
    ];
    let summary = parsed(&job.directory.tidegate(&send).succeeded());
    assert_eq!(
        (&summary["topics"][0]["messages"], &summary["broken_lines"]),
        (&json!(7), &json!(5))
    );
    let values: Vec<Value> = job.consume("events");
    assert!(
        values.contains(&json!({"key": null, "value_base64": "bm8gbWVzc2FnZQ=="})),
        "{values:?}"
    );
    // What cannot be read and where nothing can be sent.
    let produce = |words: &[&str]| {
        job.directory
            .tidegate(&[&["produce", "job.toml"], words].concat())
    };
    assert!(
        produce(&["events", "nowhere.jsonl"])
            .failed(4)
            .contains("nowhere.jsonl")
    );
    assert!(produce(&["entries", "lines.jsonl"]).failed(2).contains("events"));
    let long = format!("{{\"key\":\"k\",\"value\":\"{}\"}}\n", "x".repeat(2 << 20));
    job.directory.write("long.jsonl", long);
    let undelivered = produce(&["events", "long.jsonl"]).failed(7);
    assert!(undelivered.contains(&job.topic("in")), "{undelivered}");
    let brokers = Brokers::for_tests().expect("a broker").bootstrap();
    let elsewhere = ["produce", "--brokers", brokers, "commands-nowhere", "lines.jsonl"];
    assert!(
        job.directory
            .tidegate(&elsewhere)
            .failed(3)
            .contains("commands-nowhere does not exist")
    );
}

#[test]
fn status_shows_lag_open_transactions_and_who_holds_the_job() {
    let job = Job::created("");
    job.produce(
        &(0..10)
            .map(|number| event(&format!("k{}", number % 4), number))
            .collect::<String>(),
    );
    let before = job.directory.status();
    assert_eq!(before["kafka"]["holder"], Value::Null);
    assert!(!job.directory.path("state").exists());

    let mut running = process::start(&job.directory, &["run", "job.toml", "--workers", "2"], &[]);
    let lag = |status: &Value| -> Option<u64> {
        let inputs = status["inputs"].as_array()?;
        (inputs.len() == 3).then(|| inputs.iter().filter_map(|input| input["lag"].as_u64()).sum())
    };
    assert!(
        running.until(|| lag(&job.directory.status()) == Some(0)),
        "{}",
        running.log()
    );
    let status = job.directory.status();
    let kafka = &status["kafka"];
    assert_eq!(
        (&kafka["unreachable"], &kafka["holder"]["alive"]),
        (&Value::Null, &json!(true))
    );
    assert_eq!(
        (&kafka["holder"]["pid"], &status["generation"]),
        (&json!(running.pid()), &json!(1))
    );
    assert!(
        kafka["shards"][0]["committed_epoch"].as_u64() > Some(0),
        "{kafka:#}"
    );
    let outputs = kafka["outputs"].as_array().expect("partitions");
    assert_eq!(outputs.len(), 6);
    let ends: u64 = outputs.iter().filter_map(|output| output["end"].as_u64()).sum();
    assert!(ends >= 4, "a count of every key is there: {kafka:#}");
    let text = job.directory.tidegate(&["status", "job.toml"]).succeeded();
    for words in ["lag", "committed epoch", "alive", &job.topic("counts")] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }

    // Looking fenced nobody: it goes on, and what comes is committed.
    job.produce(&event("k9", 9));
    assert!(
        running.until(|| job.consume("counts").iter().any(|row| row["key"] == "k9")),
        "{}",
        running.log()
    );
    running.signal(Signal::INT);
    running.wait().with_code(0);
    let counts = job.consume("counts");
    let last = |key: &str| {
        counts
            .iter()
            .rfind(|row| row["key"] == key)
            .map(|row| row["value"]["count"].clone())
    };
    assert_eq!(
        (last("k0"), last("k3"), last("k9")),
        (Some(json!(3)), Some(json!(2)), Some(json!(1)))
    );
    assert_eq!(job.directory.status()["kafka"]["holder"]["alive"], false);
}

#[test]
fn an_open_transaction_is_shown_and_its_messages_are_not() {
    let job = Job::created("");
    let settings = Settings {
        brokers: Brokers::for_tests().expect("a broker").bootstrap().to_owned(),
        job: job.name.clone(),
        ..Settings::default()
    };
    let topic = job.topic("counts");
    let producer =
        Producer::new(&settings, &job.topic("other"), Duration::from_secs(60)).expect("a producer");
    producer
        .initialise()
        .and_then(|()| producer.begin())
        .expect("a transaction");
    let message = Message {
        topic: &topic,
        partition: 1,
        key: Some(b"k"),
        value: Some(b"{}"),
        headers: &[],
    };
    producer
        .send(&message)
        .and_then(|()| producer.delivered_all())
        .expect("it is there");
    let facts = || {
        let status = job.directory.status();
        let partition = status["kafka"]["outputs"][1].clone();
        let of = |name: &str| partition[name].clone();
        [
            of("partition"),
            of("end"),
            of("last_stable_offset_lag"),
            of("open_transaction"),
        ]
    };
    assert_eq!(facts(), [json!(1), json!(0), json!(1), json!(true)]);
    assert_eq!(job.consume("counts"), [] as [Value; 0]);
    producer.commit().expect("it is committed");
    assert_eq!(
        facts(),
        [json!(1), json!(2), json!(0), json!(false)],
        "a message and the marker"
    );
    assert_eq!(job.consume("counts"), [json!({"key": "k", "value": {}})]);
}

#[test]
fn a_rate_is_not_exceeded() {
    let job = Job::created("");
    let lines: String = (0..21).map(|number| event("k", number)).collect();
    job.directory.write("lines.jsonl", lines);
    let produce = [
        "produce",
        "job.toml",
        "events",
        "lines.jsonl",
        "--rate",
        "100",
        "--json",
    ];
    let summary = parsed(&job.directory.tidegate(&produce).succeeded());
    assert!(
        summary["elapsed_ms"].as_u64() >= Some(200),
        "the 21st is due 200 ms after the first: {summary}"
    );
}

#[test]
fn unreachable_brokers_leave_what_the_state_says_and_one_line() {
    let job = Job::created("");
    job.produce(&event("k", 1));
    let mut running = process::start(&job.directory, &["run", "job.toml"], &[]);
    assert!(
        running.until(|| !job.consume("counts").is_empty()),
        "{}",
        running.log()
    );
    running.signal(Signal::INT);
    running.wait().with_code(0);
    let text = String::from_utf8(job.directory.read("job.toml")).expect("UTF-8");
    let brokers = Brokers::for_tests().expect("a broker").bootstrap();
    job.directory
        .write("job.toml", text.replace(brokers, "127.0.0.1:1"));
    let outcome = job.directory.tidegate(&["status", "job.toml", "--json"]);
    let status = parsed(&outcome.stdout);
    assert_eq!(status["generation"], 1);
    assert_eq!(
        status["inputs"].as_array().map(Vec::len),
        Some(3),
        "from the checkpoint"
    );
    let cause = outcome.failed(9);
    assert!(
        cause.contains("127.0.0.1:1") && cause.lines().count() == 1,
        "{cause}"
    );
    for command in [&["topics", "job.toml"][..], &["run", "job.toml", "--log", "off"]] {
        let cause = job.directory.tidegate(command).failed(9);
        assert!(
            cause.contains("127.0.0.1:1") && cause.lines().count() == 1,
            "{cause}"
        );
    }
}

#[test]
fn avro_is_written_by_the_registry_s_schema_and_read_back() {
    let job = Job::created("format = \"avro\"");
    job.produce(&(event("a", 1) + &event("b", 2) + &event("a", 3)));
    job.directory.write(
        "lines.jsonl",
        "{\"key\":\"a\",\"value\":{\"event_id\":\"no time\"}}\n",
    );
    let refused = job
        .directory
        .tidegate(&["produce", "job.toml", "events", "lines.jsonl"])
        .failed(4);
    assert!(
        refused.contains("lines.jsonl:1: ") && refused.contains("occurred_at"),
        "{refused}"
    );
    let raw = job.consume("events");
    assert!(
        raw.iter().all(|row| row["value_base64"].is_string()) && raw.len() == 3,
        "{raw:?}"
    );
    let mut running = process::start(&job.directory, &["run", "job.toml"], &[]);
    let counted = || {
        let counts = job.consume("counts");
        counts
            .iter()
            .any(|row| *row == json!({"key": "a", "value": {"count": 2}}))
            && counts
                .iter()
                .any(|row| *row == json!({"key": "b", "value": {"count": 1}}))
    };
    assert!(running.until(counted), "{}", running.log());
    running.signal(Signal::INT);
    running.wait().with_code(0);
}

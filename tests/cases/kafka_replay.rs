//! Replays over a real broker: a span by offsets, the recorded epochs of a job that was killed, and differences that
//! are planted in a copy of an output topic.

use crate::jobs::outputs;
use crate::kafka::producer::Producer;
use crate::kafka::{Layout, Message, TopicJob, Topics, admin, create, last, shared, small_day};
use crate::process::start;
use serde_json::Value;
use std::collections::BTreeMap;

/// A job with history over topics, killed in the middle and drained at the end; and what its outputs hold.
fn recorded(seed: u64) -> (TopicJob, Topics) {
    let layout = Layout {
        shards: 2,
        ..Layout::on(shared())
    };
    let topics = TopicJob::new(&small_day(seed, 40, &[]), layout);
    let text = String::from_utf8(topics.directory.read("job.toml")).expect("UTF-8");
    let history = "history = true\nhistory_checkpoint_ms = 1000\n";
    topics.directory.write("job.toml", format!("{history}{text}"));
    for (part, workers) in [(1, 2), (2, 1)] {
        topics.feed(part, 3);
        let mut running = topics.start(workers, &[]);
        topics.until_committed(&mut running);
        assert!(running.kill().was_killed());
    }
    topics.run_to_the_end(3, &[]);
    let there = topics.hold(None, "the live run");
    (topics, there)
}

/// What lies in the topics that a replay made, by the names of those they stand for.
fn replayed(topics: &TopicJob, suffix: &str) -> Topics {
    let own = topics.output_topics().into_iter();
    let names = own.map(|(topic, partitions)| (format!("{topic}{suffix}"), partitions));
    let there = last::read(shared(), &names.collect());
    let live = |topic: String| topic.trim_end_matches(suffix).to_owned();
    there
        .into_iter()
        .map(|(topic, messages)| (live(topic), messages))
        .collect()
}

#[test]
fn recorded_epochs_give_the_live_topics_again() {
    let (topics, there) = recorded(51);
    for workers in ["1", "3"] {
        let verify = ["replay", "job.toml", "--verify", "--workers", workers];
        topics.directory.tidegate(&verify).succeeded();
    }
    let arguments = [
        "replay",
        "job.toml",
        "--recorded",
        "--output-suffix=-again",
        "--workers=2",
    ];
    let crash = [("TIDEGATE_CRASH_AT", "after-commit:2")];
    let ended = start(&topics.directory, &arguments, &crash).wait();
    assert!(ended.was_killed(), "{}", ended.log);
    topics.directory.tidegate(&arguments).succeeded();
    assert!(
        replayed(&topics, "-again") == there,
        "epochs, origins and values are the same"
    );
    topics.assert_closed("after its replay");
    let what_if = ["whatif", "job.toml", "--workers=2"];
    assert_eq!(topics.directory.tidegate(&what_if).succeeded(), "+0 -0 alerts\n");
}

/// A copy of a topic, each message with its headers.
fn copy(name: &str, partitions: &[Vec<Message>]) {
    create(shared(), &[(name.to_owned(), partitions.len() as u32, false)]);
    let producer = Producer::new(shared());
    for (partition, messages) in partitions.iter().enumerate() {
        for message in messages {
            producer.send_with(
                name,
                partition,
                message.key.as_deref(),
                Some(message.value.as_bytes()),
                &message.headers,
            );
        }
    }
    producer.flush();
}

#[test]
fn differences_in_a_copy_of_a_topic_are_found() {
    let (topics, there) = recorded(52);
    let output = "email";
    let live = &there[&topics.output(output)];
    let (partition, messages) = live
        .iter()
        .enumerate()
        .max_by_key(|(_, messages)| messages.len())
        .expect("a partition");
    let at = messages.len() / 2;
    let altered = Message {
        value: messages[at].value.replacen('{', "{\"planted\":1,", 1),
        ..messages[at].clone()
    };
    for what in ["none", "missing", "extra", "altered"] {
        let mut planted = live.clone();
        match what {
            "missing" => drop(planted[partition].remove(at)),
            "extra" => planted[partition].insert(at, altered.clone()),
            "altered" => planted[partition][at] = altered.clone(),
            _ => {}
        }
        let name = format!("{}.{what}", topics.output(output));
        copy(&name, &planted);
        let against = format!("{output}={name}");
        let arguments = ["replay", "job.toml", "--verify", "--json", "--against", &against];
        let outcome = topics.directory.tidegate(&arguments);
        let report: Value =
            serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("no JSON: {}", outcome.stderr));
        let story = format!("{what}: {report:#}");
        assert_eq!(outcome.code, Some(if what == "none" { 0 } else { 12 }), "{story}");
        for sort in ["missing", "extra", "altered"] {
            assert_eq!(
                report["outputs"][output][sort],
                u64::from(sort == what),
                "{story}"
            );
        }
        if what != "none" {
            let difference = &report["differences"][0];
            assert_eq!(
                difference["origin"], messages[at].headers["tidegate-origin"],
                "{story}"
            );
        }
    }
}

/// A span by offsets is a finite run: it gives what the oracle says of it, killed or not, on any workers.
#[test]
fn a_span_of_offsets_is_a_finite_run() {
    let topics = TopicJob::new(&small_day(53, 40, &[]), Layout::on(shared()));
    topics.feed(1, 1);
    let admin = admin(shared());
    // Tables are as of now, later than the day: all of them before the span.
    let mut arguments = vec!["--from=9999-01-01T00:00:00Z".to_owned()];
    for (input, content) in &topics.job.inputs {
        if ["authorizations", "settings", "devices"].contains(&input.as_str()) {
            continue;
        }
        let partitions = content.partitions.len() as u32;
        let bounds = admin
            .bounds(&topics.input(input), partitions)
            .expect("the broker answers");
        // The far message that a live run needs at the end is left out.
        let far = u64::from(["orders", "payments", "transactions"].contains(&input.as_str()));
        for (partition, bounds) in bounds.iter().enumerate() {
            let (topic, end) = (topics.input(input), bounds.end - far);
            arguments.push(format!("--offsets={topic}/{partition}={}..{end}", bounds.first));
        }
    }
    // A replay's topics are made like those they stand for.
    for (suffix, workers, crash) in [("-one", "1", None), ("-two", "3", Some("after-commit:2"))] {
        let words = [
            "replay",
            "job.toml",
            "--output-suffix",
            suffix,
            "--workers",
            workers,
        ];
        let all: Vec<&str> = words
            .into_iter()
            .chain(arguments.iter().map(String::as_str))
            .collect();
        if let Some(point) = crash {
            let ended = start(&topics.directory, &all, &[("TIDEGATE_CRASH_AT", point)]).wait();
            assert!(ended.was_killed(), "{}", ended.log);
        }
        topics.directory.tidegate(&all).succeeded();
        let there = replayed(&topics, suffix);
        if let Err(difference) = topics.difference(&there) {
            panic!("{suffix}: {difference}");
        }
    }
    // The live topics are as empty as they were, and a name that is taken is refused.
    let live = last::read(shared(), &topics.output_topics());
    assert!(live.values().flatten().all(Vec::is_empty));
    let taken: BTreeMap<String, u32> = outputs(&topics.job)
        .iter()
        .map(|output| (format!("{}-taken", topics.output(output)), 3))
        .collect();
    let made: Vec<_> = taken
        .into_iter()
        .take(1)
        .map(|(name, count)| (name, count, false))
        .collect();
    create(shared(), &made);
    let refused = ["replay", "job.toml", "--output-suffix=-taken"];
    let error = topics.directory.tidegate(&refused).failed(3);
    assert!(error.contains("exists and is not of this replay"), "{error}");
    let refused = ["replay", "job.toml", "--into=files"];
    let error = topics.directory.tidegate(&refused).failed(2);
    assert!(error.contains("--output-suffix"), "{error}");
}

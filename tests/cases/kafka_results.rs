//! Jobs over topics that nobody disturbs, against the oracle: every dataflow, other workers, other shards, topics and
//! files mixed; and what a message carries beside its value.

use crate::broker::{class, tool};
use crate::kafka::{Attached, Layout, TopicJob, Topics, create, last, shared, small_day};
use std::collections::{BTreeMap, BTreeSet};

#[test]
fn all_dataflows_over_topics_on_any_workers_and_shards() {
    let job = small_day(31, 60, &[]);
    for (workers, shards) in [(1, 3), (2, 1), (3, 3)] {
        let layout = Layout {
            shards,
            ..Layout::on(shared())
        };
        let topics = TopicJob::new(&job, layout);
        let attached = Attached::new(shared(), &topics.output_topics());
        topics.run_to_the_end(workers, &[]);
        let there = topics.hold(Some(&attached), &format!("{workers} workers, {shards} shards"));
        hold_headers(&there);
        hold_murmur2(&there);
        last::java_agrees(shared(), &topics.name, &there);
    }
}

/// Every message names its epoch, which never falls, and the message it comes from where that is a single one.
fn hold_headers(there: &Topics) {
    for (topic, partitions) in there {
        let comes_from_many = ["aggregates", "enriched", "counts"]
            .iter()
            .any(|output| topic.ends_with(&format!(".out.{output}")));
        for messages in partitions {
            let epoch = |message: &crate::kafka::Message| message.headers["tidegate-epoch"].parse::<u64>();
            assert!(
                messages.is_sorted_by_key(|message| epoch(message).expect("a number")),
                "{topic}"
            );
            for message in messages {
                let origin = message.headers.get("tidegate-origin");
                assert_eq!(origin.is_none(), comes_from_many, "{topic}: {message:?}");
                if let Some(origin) = origin {
                    let parts: Vec<&str> = origin.split('/').collect();
                    assert!(
                        matches!(parts[..], [_, partition, offset]
                        if partition.parse::<u32>().is_ok() && offset.parse::<u64>().is_ok()),
                        "{origin}"
                    );
                }
            }
        }
    }
}

/// Every key is in the partition to which Java's producer sends it.
fn hold_murmur2(there: &Topics) {
    let mut place = BTreeMap::new();
    for (number, message) in there.values().flat_map(|partitions| {
        let numbered = partitions.iter().enumerate();
        numbered.flat_map(|(number, messages)| messages.iter().map(move |message| (number, message)))
    }) {
        if let Some(key) = message
            .key
            .as_deref()
            .filter(|key| !key.is_empty() && !key.contains(['\t', '\n']))
        {
            let before = place.insert(key, number);
            assert!(
                before.is_none_or(|before| before == number),
                "{key} is in {before:?} and {number}"
            );
        }
    }
    let topic = format!("{}.java", crate::kafka::unique());
    create(shared(), &[(topic.clone(), 3, false)]);
    let lines: String = place.keys().map(|key| format!("{key}\tx\n")).collect();
    let words = [
        "--bootstrap-server",
        shared(),
        "--topic",
        &topic,
        "--property",
        "parse.key=true",
    ];
    tool(class::PRODUCER, &words, &lines).expect("it produces");
    let by_java = last::read(shared(), &BTreeMap::from([(topic.clone(), 3)]));
    let mut seen = BTreeSet::new();
    for (number, messages) in by_java[&topic].iter().enumerate() {
        for message in messages {
            let key = message.key.as_deref().expect("a key");
            assert_eq!(place[key], number, "{key}");
            seen.insert(key.to_owned());
        }
    }
    assert!(
        seen.len() == place.len() && seen.len() > 50,
        "{} keys",
        seen.len()
    );
}

#[test]
fn files_and_topics_mixed() {
    let job = small_day(32, 40, &[]);
    let layout = Layout {
        files: vec![
            "orders",
            "authorizations",
            "events",
            "email",
            "aggregates",
            "dead_letters",
        ],
        shards: 1,
        ..Layout::on(shared())
    };
    let topics = TopicJob::new(&job, layout);
    let attached = Attached::new(shared(), &topics.output_topics());
    topics.feed(1, 2);
    topics.run_to_the_end(2, &[]);
    topics.hold(
        Some(&attached),
        "orders, events, email, aggregates, dead letters in files",
    );
}

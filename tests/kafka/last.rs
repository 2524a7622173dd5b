//! Readers that come when all is over: from the beginning of every partition to its last stable offset.

use super::attached::{consumer, message};
use super::{Message, Topics, ask};
use crate::broker::class;
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Looks of a reader that is given nothing, before it gives up.
const LOOKS: usize = 600;
/// How long one of them waits.
const LOOK: Duration = Duration::from_millis(100);

/// Everything that is committed in these topics, read by librdkafka.
#[track_caller]
pub fn read(brokers: &str, topics: &BTreeMap<String, u32>) -> Topics {
    topics
        .iter()
        .map(|(topic, partitions)| (topic.clone(), read_topic(brokers, topic, *partitions)))
        .collect()
}

#[track_caller]
fn read_topic(brokers: &str, topic: &str, partitions: u32) -> Vec<Vec<Message>> {
    // One topic at a time, for an end is told without the name of its topic.
    let consumer = consumer(brokers, &BTreeMap::from([(topic.to_owned(), partitions)]));
    let mut read = vec![Vec::new(); partitions as usize];
    let mut ended = BTreeSet::new();
    let mut looks = 0;
    while ended.len() < partitions as usize {
        match consumer.poll(LOOK) {
            Some(Ok(borrowed)) => read[borrowed.partition() as usize].push(message(&borrowed)),
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(ended.insert(partition)),
            Some(Err(_)) | None => looks += 1,
        }
        assert!(
            looks < LOOKS,
            "{topic}: only {ended:?} of {partitions} partitions ended"
        );
    }
    read
}

/// Asserts that Java's console consumer is given the same messages in the same order as librdkafka was.
///
/// It does not print the topic, so a line's topic is that which has such a message; no two outputs have equal ones.
#[track_caller]
pub fn java_agrees(brokers: &str, prefix: &str, there: &Topics) {
    let count: usize = there.values().flatten().map(Vec::len).sum();
    let (include, most) = (format!("{prefix}\\.out\\..*"), count.to_string());
    let printed = ask(
        brokers,
        class::CONSUMER,
        &[
            "--include",
            &include,
            "--from-beginning",
            "--isolation-level",
            "read_committed",
            "--max-messages",
            &most,
            "--timeout-ms",
            "60000",
            "--property",
            "print.partition=true",
            "--property",
            "print.key=true",
        ],
    );
    let mut topic_of = BTreeMap::new();
    for (topic, message) in each(there) {
        let before = topic_of.insert((key(message), message.value.as_str()), topic);
        assert!(
            before.is_none_or(|before| before == topic),
            "{before:?} and {topic}: {message:?}"
        );
    }
    let mut found = BTreeMap::<(&str, usize), Vec<(&str, &str)>>::new();
    for line in printed.lines() {
        let parts: Vec<&str> = line.splitn(3, '\t').collect();
        let [partition, key, value] = parts[..] else {
            panic!("not as expected: {line}");
        };
        let number = partition
            .strip_prefix("Partition:")
            .and_then(|number| number.parse().ok());
        let topic = topic_of.get(&(key, value));
        let topic = topic.unwrap_or_else(|| panic!("only Java was given {key} {value}"));
        let place = (topic.as_str(), number.expect("a number"));
        found.entry(place).or_default().push((key, value));
    }
    for (topic, partitions) in there {
        for (number, messages) in partitions.iter().enumerate() {
            let expected: Vec<_> = messages
                .iter()
                .map(|message| (key(message), message.value.as_str()))
                .collect();
            let found = found.remove(&(topic.as_str(), number)).unwrap_or_default();
            assert!(
                found == expected,
                "{topic}/{number}: Java was given other messages or another order"
            );
        }
    }
}

/// A key as the console consumer prints it.
fn key(message: &Message) -> &str {
    message.key.as_deref().unwrap_or("null")
}

/// All messages with their topics.
fn each(topics: &Topics) -> impl Iterator<Item = (&String, &Message)> {
    topics
        .iter()
        .flat_map(|(topic, partitions)| partitions.iter().flatten().map(move |message| (topic, message)))
}

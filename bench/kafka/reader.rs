//! The reader: what a consumer of committed messages sees, and when.
//!
//! Latency is arrival minus the intended time of the entry that a message is about: it holds what the load,
//! the broker, the engine and the transaction took, and the wait of an entry that could not be sent in time.
//! Messages about entries of the warm-up do not count.

use super::load::intended_in;
use super::{client, micros};
use crate::latency::{Counts, Latencies};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidegate::kafka::consumer::{Consumer, Event};

/// How long a call waits for a message.
const POLL: Duration = Duration::from_millis(100);

/// Told to end, it reads on until nothing has come for so many calls.
const QUIET: u32 = 5;

/// What is read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Brokers.
    pub brokers: String,
    /// Topics with their numbers of partitions.
    pub topics: Vec<(String, u32)>,
    /// Intended times from here on count, microseconds.
    pub from: u64,
}

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// Messages.
    pub messages: u64,
    /// Their values, bytes.
    pub bytes: u64,
    /// By topic: messages.
    pub by_topic: Vec<u64>,
    /// How long they took.
    pub latencies: Counts,
}

/// Reads until told to end.
pub fn run(plan: &Plan, told: &AtomicBool) -> Result<Seen, String> {
    let mut consumer =
        Consumer::new(&client(&plan.brokers, "reader", &[])).map_err(|error| error.to_string())?;
    for (topic, partitions) in &plan.topics {
        for partition in 0..*partitions {
            consumer
                .assign(topic, partition, 0)
                .map_err(|error| error.to_string())?;
        }
    }
    let (mut seen, mut latencies) = (Seen::default(), Latencies::new());
    seen.by_topic = vec![0; plan.topics.len()];
    let (mut quiet, mut failed) = (0, None);
    while quiet < QUIET {
        let mut arrived = None;
        consumer.poll(POLL, |event| match event {
            Event::Message {
                topic,
                value: Some(value),
                ..
            } => {
                let arrived = *arrived.get_or_insert_with(micros);
                seen.messages += 1;
                seen.bytes += value.len() as u64;
                if let Some(index) = plan.topics.iter().position(|(name, _)| name == topic) {
                    seen.by_topic[index] += 1;
                }
                if let Some(intended) = intended_in(value).filter(|intended| *intended >= plan.from) {
                    latencies.record(Duration::from_micros(arrived.saturating_sub(intended)));
                }
            }
            Event::Message { .. } | Event::End { .. } => {}
            Event::Failed { topic, failure, .. } => failed = Some(format!("{topic}: {failure:?}")),
        });
        if let Some(failed) = failed {
            return Err(failed);
        }
        let waits = told.load(Ordering::Acquire) && arrived.is_none();
        quiet = if waits { quiet + 1 } else { 0 };
    }
    seen.latencies = latencies.counts();
    Ok(seen)
}

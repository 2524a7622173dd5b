//! The floor: the same transactions without any engine, as a loop on one thread.
//!
//! ```text
//!  (consume until the interval is over ─► begin ─► a message for so many entries ─► progress ─► commit)*
//! ```
//!
//! It gives as many messages as the engine was seen to give, of the same size, to the same partitions, and a
//! progress record of the same kind. It decodes nothing, knows no state and cannot recover: what it takes is
//! what consuming, transactions and the broker take on this machine. With two producers in turn, a
//! transaction begins while the broker still writes the markers of the one before.

use super::load::intended_in;
use super::{client, micros};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidegate::checkpoint::binding::{Binding, PartitionBinding};
use tidegate::kafka::consumer::{Consumer, Event};
use tidegate::kafka::producer::{Failure, Message, Producer};
use tidegate::sink::encode::murmur2;
use tidegate::sink::progress_topic::{self as progress, Head};

/// How long a transaction may stay open.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What is copied.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Brokers.
    pub brokers: String,
    /// Names the transactional ids and the progress topic.
    pub job: String,
    /// The topic read, and its number of partitions.
    pub input: (String, u32),
    /// The topics written.
    pub outputs: Vec<Copies>,
    /// From the begin of a transaction to the next, microseconds.
    pub interval_micros: u64,
    /// Producers, in turn.
    pub producers: usize,
}

/// What one output topic gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Copies {
    /// Its name.
    pub topic: String,
    /// Its partitions.
    pub partitions: u32,
    /// Messages for an entry.
    pub per_entry: f64,
    /// Length of a message.
    pub bytes: usize,
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Copied {
    /// Entries.
    pub entries: u64,
    /// Messages.
    pub messages: u64,
    /// Transactions.
    pub transactions: u64,
}

/// One message to be: index of the output, partition, key, value.
type Due = (usize, u32, Vec<u8>, Vec<u8>);

/// Copies until told to end.
pub fn run(plan: &Plan, told: &AtomicBool) -> Result<Copied, String> {
    let settings = client(&plan.brokers, "floor", &[]);
    let mut consumer = Consumer::new(&settings).map_err(|error| error.to_string())?;
    let mut partitions: Vec<PartitionBinding> = Vec::new();
    for partition in 0..plan.input.1 {
        let assigned = consumer.assign(&plan.input.0, partition, 0);
        assigned.map_err(|error| error.to_string())?;
        partitions.push(PartitionBinding {
            partition,
            ..PartitionBinding::default()
        });
    }
    let mut producers = Vec::new();
    for number in 0..plan.producers {
        let id = format!("{}-{number}", plan.job);
        let producer = Producer::new(&settings, &id, TIMEOUT).map_err(|error| error.to_string())?;
        producer.initialise().map_err(failed)?;
        producers.push(producer);
    }
    let mut copied = Copied::default();
    let mut owed = vec![0.0; plan.outputs.len()];
    let mut due: Vec<Due> = Vec::new();
    let mut next = micros();
    while !told.load(Ordering::Acquire) {
        next = micros().max(next + plan.interval_micros);
        let mut now = micros();
        while now < next {
            // Whole milliseconds are waited for; less than one would be spent spinning.
            let wait = Duration::from_micros(next - now).max(Duration::from_millis(1));
            consumer.poll(wait, |event| {
                if let Event::Message {
                    partition,
                    offset,
                    key,
                    value: Some(value),
                    ..
                } = event
                {
                    partitions[partition as usize].end = offset + 1;
                    copied.entries += 1;
                    copy(plan, &mut owed, key.unwrap_or_default(), value, &mut due);
                }
            });
            now = micros();
        }
        if due.is_empty() {
            continue;
        }
        let turn = usize::try_from(copied.transactions).unwrap_or(0) % producers.len();
        commit(plan, &producers[turn], copied.transactions, &due, &partitions).map_err(failed)?;
        partitions
            .iter_mut()
            .for_each(|partition| partition.start = partition.end);
        copied.messages += due.len() as u64;
        copied.transactions += 1;
        due.clear();
    }
    Ok(copied)
}

/// What is to be sent for an entry.
fn copy(plan: &Plan, owed: &mut [f64], key: &[u8], value: &[u8], due: &mut Vec<Due>) {
    for ((index, output), owed) in plan.outputs.iter().enumerate().zip(owed) {
        *owed += output.per_entry;
        while *owed >= 1.0 {
            *owed -= 1.0;
            let mut copy = super::load::marked(intended_in(value).unwrap_or(0))
                .as_bytes()
                .to_vec();
            copy.extend(
                value
                    .iter()
                    .copied()
                    .cycle()
                    .take(output.bytes.saturating_sub(copy.len())),
            );
            let partition = (murmur2(key) & 0x7fff_ffff) % output.partitions;
            due.push((index, partition, key.to_vec(), copy));
        }
    }
}

/// One transaction.
fn commit(
    plan: &Plan,
    producer: &Producer,
    epoch: u64,
    due: &[Due],
    partitions: &[PartitionBinding],
) -> Result<(), Failure> {
    producer.begin()?;
    let epoch_text = epoch.to_string();
    let headers = [
        (tidegate::sink::topics::EPOCH_HEADER, epoch_text.as_bytes()),
        (
            tidegate::sink::topics::ORIGIN_HEADER,
            b"entries/0/0000000".as_slice(),
        ),
    ];
    for (output, partition, key, value) in due {
        producer.send(&Message {
            topic: &plan.outputs[*output].topic,
            partition: *partition,
            key: Some(key),
            value: Some(value),
            headers: &headers,
        })?;
    }
    let unreadable = |error: tidegate::error::Error| Failure::Denied(error.message);
    let binding = Binding {
        epoch: epoch + 1,
        partitions: partitions.to_vec(),
        ..Default::default()
    };
    let head = Head {
        upper: epoch + 1,
        ..Head::default()
    };
    let topic = progress::name(&plan.job);
    let record = |key: String, value: &[u8]| {
        producer.send(&Message {
            topic: &topic,
            partition: 0,
            key: Some(key.as_bytes()),
            value: Some(value),
            headers: &[],
        })
    };
    for (upper, value) in progress::records(epoch, epoch + 1, vec![binding]).map_err(unreadable)? {
        record(progress::bound_key(0, upper), &value)?;
    }
    record(progress::head_key(0), &progress::json(&head).map_err(unreadable)?)?;
    producer.commit()
}

fn failed(failure: Failure) -> String {
    format!("{failure:?}")
}

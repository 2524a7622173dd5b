//! The progress topic of a job's Kafka shards: what is committed, in the same transactions as the outputs.
//!
//! ```text
//!  key                     value
//!  shard/0                 {"generation":3,"nonce":…,"plan_hash":…,"upper":812}     the last one counts
//!  bindings/0/…0000812     {"after":790,"upper":812,"bindings":[…]}                 one or more a commit
//!  bindings/0/…0000790     (tombstone: complete checkpoints cover it)
//! ```
//!
//! One partition, compacted, without retention by time or size: the last value of every key stays. Each record
//! of bindings tells after which epoch it begins, so a lost one is noticed. It is read to the last stable
//! offset, after every earlier producer was fenced: what is not visible then never will be.
//!
//! Read back, it has the shape of a file shard's log ([`crate::checkpoint::progress`]), and the same decision
//! is made on it.

use crate::checkpoint::binding::Binding;
use crate::checkpoint::progress::{Damage, Log, Record};
use crate::error::{Error, Kind, Result};
use crate::kafka::consumer::{Consumer, Event};
use crate::kafka::topics::{Admin, Topic};
use crate::kafka::{REQUEST, Settings};
use crate::time::Epoch;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Instant;

/// Bindings of one record take at most about so many bytes: well below a broker's `max.message.bytes`.
pub const RECORD_BYTES: usize = 512 << 10;

/// The name of a job's progress topic.
pub fn name(job: &str) -> String {
    format!("{job}-progress")
}

/// The value under `shard/{s}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The generation that committed.
    pub generation: u64,
    /// The nonce of that generation's claim.
    pub nonce: u64,
    /// Hash of the plan.
    pub plan_hash: u64,
    /// Committed up to here.
    pub upper: Epoch,
}

/// The value under `bindings/{s}/{upper}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Bindings of the epochs above this one ...
    pub after: Epoch,
    /// ... up to this one.
    pub upper: Epoch,
    /// Ascending; epochs without effect are left out.
    pub bindings: Vec<Binding>,
}

/// The key of a shard's head.
pub fn head_key(shard: usize) -> String {
    format!("shard/{shard}")
}

/// The key of a record of bindings.
pub fn bound_key(shard: usize, upper: Epoch) -> String {
    format!("bindings/{shard}/{upper:020}")
}

/// What is wrong with a progress topic's settings; none if nothing is.
pub fn fault(topic: &Topic) -> Option<String> {
    if topic.partitions != 1 {
        return Some(format!("it has {} partitions, it must have 1", topic.partitions));
    }
    if !topic.is_compacted() || topic.is_deleted() {
        let policy = &topic.cleanup;
        return Some(format!(
            "cleanup.policy is {policy}: it must be compact, for what is committed is never deleted"
        ));
    }
    None
}

/// The bindings of one commit as records of at most [`RECORD_BYTES`] each, with their upper epochs.
///
/// `after`, `upper`: the epochs of the commit. Always at least one, so that the chain has no gap.
pub fn records(after: Epoch, upper: Epoch, bindings: Vec<Binding>) -> Result<Vec<(Epoch, Vec<u8>)>> {
    let mut records = Vec::new();
    let mut bound = Bound {
        after,
        upper,
        bindings: Vec::new(),
    };
    let mut bytes = 0;
    for binding in bindings {
        let length = json(&binding)?.len();
        if bytes + length > RECORD_BYTES && !bound.bindings.is_empty() {
            let last = bound.bindings.last().map_or(after, |binding| binding.epoch);
            let next = Bound {
                after: last,
                upper,
                bindings: Vec::new(),
            };
            let full = std::mem::replace(&mut bound, next);
            let full = Bound { upper: last, ..full };
            records.push((last, json(&full)?));
            bytes = 0;
        }
        bytes += length;
        bound.bindings.push(binding);
    }
    records.push((upper, json(&bound)?));
    Ok(records)
}

/// As JSON.
pub fn json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::internal(format!("progress: {error}")))
}

/// The values of a progress topic, by key.
pub type Values = BTreeMap<String, Vec<u8>>;

/// Reads the whole topic as it is committed now.
#[expect(
    clippy::disallowed_methods,
    reason = "a broker that says nothing is given up by the clock"
)]
pub fn read(settings: &Settings, admin: &Admin, topic: &str) -> Result<Values> {
    let bounds = admin.bounds(topic, 1)?;
    let (mut values, bounds) = (Values::new(), bounds.first().copied().unwrap_or_default());
    if bounds.first >= bounds.end {
        return Ok(values);
    }
    let mut consumer = Consumer::new(settings)?;
    consumer.assign(topic, 0, bounds.first)?;
    let (mut ended, mut failure) = (false, None);
    let mut heard = Instant::now();
    while !ended {
        let read = consumer.poll(REQUEST / 10, |event| match event {
            Event::Message { key, value, .. } => {
                let key = String::from_utf8_lossy(key.unwrap_or_default()).into_owned();
                match value {
                    Some(value) => drop(values.insert(key, value.to_vec())),
                    None => drop(values.remove(&key)),
                }
            }
            Event::End { .. } => ended = true,
            Event::Failed { failure: why, .. } => failure = Some(why),
        });
        if read > 0 {
            heard = Instant::now();
        }
        let cause = match (consumer.trouble().refused(), &failure) {
            (Some(refused), _) => refused,
            (None, Some(failure)) => format!("{failure:?}"),
            (None, None) if heard.elapsed() >= 3 * REQUEST => "no answer".to_owned(),
            (None, None) => continue,
        };
        if !ended {
            let message = format!("Kafka at {}: {topic} cannot be read: {cause}", settings.brokers);
            return Err(Error::new(Kind::Unreachable, message));
        }
    }
    Ok(values)
}

/// One shard's log; no records where the topic has none of it.
pub fn log(values: &Values, shard: usize) -> Result<Log, Damage> {
    let damage = |reason: String| Damage { offset: 0, reason };
    let Some(head) = values.get(&head_key(shard)) else {
        return Ok(Log::default());
    };
    let head: Head =
        serde_json::from_slice(head).map_err(|error| damage(format!("{}: {error}", head_key(shard))))?;
    let prefix = format!("bindings/{shard}/");
    let mut records = Vec::<Record>::new();
    for (key, value) in values
        .range(prefix.clone()..)
        .take_while(|(key, _)| key.starts_with(&prefix))
    {
        let bound: Bound =
            serde_json::from_slice(value).map_err(|error| damage(format!("{key}: {error}")))?;
        if let Some(before) = records.last().filter(|before| before.upper != bound.after) {
            let (after, upper) = (bound.after, before.upper);
            return Err(damage(format!("{key} goes on after epoch {after}, not {upper}")));
        }
        records.push(Record {
            generation: head.generation,
            nonce: head.nonce,
            plan_hash: head.plan_hash,
            after: bound.after,
            upper: bound.upper,
            lengths: BTreeMap::new(),
            bindings: bound.bindings,
        });
    }
    match records.last() {
        Some(last) if last.upper == head.upper => {}
        Some(last) => {
            let (upper, head) = (last.upper, head.upper);
            return Err(damage(format!(
                "bindings reach epoch {upper}, epoch {head} is committed"
            )));
        }
        None => records.push(Record {
            generation: head.generation,
            nonce: head.nonce,
            plan_hash: head.plan_hash,
            after: head.upper,
            upper: head.upper,
            lengths: BTreeMap::new(),
            bindings: Vec::new(),
        }),
    }
    Ok(Log {
        records,
        ..Log::default()
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::checkpoint::binding::{Kept, PartitionBinding};

    fn binding(epoch: Epoch, bytes: usize) -> Binding {
        let kept = Some(Kept::Inline(vec!["x".repeat(bytes)]));
        let partitions = vec![PartitionBinding {
            kept,
            ..PartitionBinding::default()
        }];
        Binding {
            epoch,
            partitions,
            ..Binding::default()
        }
    }

    fn put(values: &mut Values, after: Epoch, upper: Epoch, bindings: Vec<Binding>) {
        for (upper, value) in records(after, upper, bindings).unwrap() {
            values.insert(bound_key(3, upper), value);
        }
        let head = Head {
            generation: 1,
            nonce: 2,
            plan_hash: 3,
            upper,
        };
        values.insert(head_key(3), json(&head).unwrap());
    }

    #[test]
    fn commits_read_back_as_a_log() {
        let mut values = Values::new();
        put(&mut values, 0, 0, vec![]);
        put(&mut values, 0, 4, vec![binding(2, 10), binding(4, 10)]);
        put(&mut values, 4, 9, vec![binding(7, 300_000), binding(8, 300_000)]);
        let log = log(&values, 3).unwrap();
        let epochs: Vec<_> = log.bindings().map(|binding| binding.epoch).collect();
        assert_eq!(epochs, [2, 4, 7, 8]);
        assert_eq!(log.records.first().unwrap().after, 0);
        assert_eq!(log.records.last().unwrap().upper, 9);
        assert!(
            log.records.iter().all(|record| record.bindings.len() < 3),
            "large ones are split"
        );
        assert_eq!(super::log(&values, 2).unwrap(), Log::default());
    }

    #[test]
    fn a_lost_record_is_damage() {
        let mut values = Values::new();
        put(&mut values, 0, 4, vec![binding(4, 1)]);
        put(&mut values, 4, 9, vec![binding(9, 1)]);
        put(&mut values, 9, 12, vec![binding(12, 1)]);
        let mut lost = values.clone();
        lost.remove(&bound_key(3, 9));
        assert!(log(&lost, 3).unwrap_err().reason.contains("after epoch 9, not 4"));
        let mut lost = values.clone();
        lost.remove(&bound_key(3, 12));
        assert!(
            log(&lost, 3)
                .unwrap_err()
                .reason
                .contains("epoch 12 is committed")
        );
        // The front may go: that is what tombstones are for.
        values.remove(&bound_key(3, 4));
        assert_eq!(log(&values, 3).unwrap().records.first().unwrap().after, 4);
    }

    #[test]
    fn a_topic_that_would_forget_is_refused() {
        let sound = Topic {
            partitions: 1,
            cleanup: "compact".to_owned(),
            ..Topic::default()
        };
        assert_eq!(fault(&sound), None);
        for cleanup in ["delete", "compact,delete"] {
            let cleanup = cleanup.to_owned();
            assert!(
                fault(&Topic {
                    cleanup,
                    ..sound.clone()
                })
                .is_some()
            );
        }
        assert!(
            fault(&Topic {
                partitions: 2,
                ..sound
            })
            .is_some()
        );
    }
}

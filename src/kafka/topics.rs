//! Facts about topics, and what is done about missing ones.
//!
//! Blocking calls, for a start and for commands; never on a worker. Every call is bounded by [`REQUEST`]. The
//! end of a partition is what a reader of committed data would see as its end (the last stable offset).

#![expect(unsafe_code, reason = "topic ids have no wrapper in rdkafka 0.39")]

use super::{REQUEST, Settings, Trouble, certificate, not_made, one_line};
use crate::error::{Error, Kind, Result};
use rdkafka::admin::{AdminClient, AdminOptions, ConfigEntry, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::thread;
use std::time::{Duration, Instant};

/// How often it is looked whether the cluster refuses us.
const LOOK: Duration = Duration::from_secs(1);
/// A question that was answered with an error is asked again this much later.
const AGAIN: Duration = Duration::from_millis(50);

/// How long after its creation a topic is looked for again.
const KNOWN: Duration = Duration::from_millis(20);

/// What a broker says of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topic {
    /// Given at creation: a topic that was deleted and created again has another one.
    pub id: String,
    /// Number of partitions.
    pub partitions: u32,
    /// Replicas of the first partition.
    pub replication: u32,
    /// `cleanup.policy`: `delete`, `compact`, or both.
    pub cleanup: String,
    /// `retention.ms`; -1 is for ever.
    pub retention_ms: i64,
    /// `retention.bytes`; -1 is without limit.
    pub retention_bytes: i64,
    /// `max.message.bytes`.
    pub max_message_bytes: u64,
}

impl Topic {
    /// Old values of a key are removed.
    pub fn is_compacted(&self) -> bool {
        self.cleanup.split(',').any(|policy| policy.trim() == "compact")
    }

    /// Old messages are removed, whatever their key.
    pub fn is_deleted(&self) -> bool {
        self.cleanup.split(',').any(|policy| policy.trim() == "delete")
    }
}

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: u32,
    /// How many replicas; 0: the broker's default.
    pub replication: u32,
    /// Keeps the last value of each key, for ever; otherwise it has the broker's defaults.
    pub compacted: bool,
}

/// What a partition holds: the first offset, and the one after the last committed message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// First offset that is there.
    pub first: u64,
    /// The last stable offset.
    pub end: u64,
    /// The high watermark: beyond `end` as long as a transaction is open.
    pub high: u64,
}

/// A client for questions.
pub struct Admin {
    client: AdminClient<Trouble>,
    /// Reads what is committed.
    committed: BaseConsumer<Trouble>,
    /// Reads everything.
    everything: BaseConsumer<Trouble>,
    trouble: Trouble,
    runtime: tokio::runtime::Runtime,
    settings: Settings,
}

impl Admin {
    /// Nothing is connected yet.
    pub fn new(settings: &Settings) -> Result<Admin> {
        let trouble = Trouble::default();
        let config = settings.client();
        let reader = |isolation: &str| {
            let mut config = config.clone();
            config.set("isolation.level", isolation);
            let client: Result<BaseConsumer<Trouble>, _> = config.create_with_context(trouble.clone());
            client.map_err(|error| not_made(&error))
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime =
            runtime.map_err(|error| Error::internal(format!("a runtime cannot be made: {error}")))?;
        let client = config
            .create_with_context(trouble.clone())
            .map_err(|error| not_made(&error))?;
        Ok(Admin {
            client,
            committed: reader("read_committed")?,
            everything: reader("read_uncommitted")?,
            trouble,
            runtime,
            settings: settings.clone(),
        })
    }

    /// What there is of these topics; none for one that does not exist.
    pub fn describe(&self, names: &[&str]) -> Result<BTreeMap<String, Option<Topic>>> {
        let mut topics = BTreeMap::new();
        for name in names {
            let metadata = self.metadata(name)?;
            let Some(found) = metadata.topics().iter().find(|topic| topic.name() == *name) else {
                topics.insert((*name).to_owned(), None);
                continue;
            };
            if let Some(code) = found.error().map(RDKafkaErrorCode::from) {
                use RDKafkaErrorCode::{UnknownTopic, UnknownTopicOrPartition};
                if [UnknownTopic, UnknownTopicOrPartition].contains(&code) {
                    topics.insert((*name).to_owned(), None);
                    continue;
                }
                return Err(self.failed(name, &KafkaError::MetadataFetch(code)));
            }
            let partitions = found.partitions();
            let mut topic = Topic {
                partitions: u32::try_from(partitions.len()).unwrap_or(u32::MAX),
                replication: partitions.first().map_or(0, |partition| {
                    u32::try_from(partition.replicas().len()).unwrap_or(0)
                }),
                id: self.topic_id(name)?,
                ..Topic::default()
            };
            self.configured(name, &mut topic)?;
            topics.insert((*name).to_owned(), Some(topic));
        }
        Ok(topics)
    }

    /// How many partitions a topic has now.
    pub fn partitions(&self, name: &str) -> Result<u32> {
        let metadata = self.metadata(name)?;
        let found = metadata.topics().iter().find(|topic| topic.name() == name);
        Ok(found.map_or(0, |topic| u32::try_from(topic.partitions().len()).unwrap_or(0)))
    }

    /// What the cluster says of a topic.
    fn metadata(&self, name: &str) -> Result<Metadata> {
        self.ask(name, || self.everything.fetch_metadata(Some(name), LOOK))
    }

    /// Asks again until there is an answer, for [`REQUEST`] in all: a leader may just be changing. A cluster that
    /// refuses who we are, or what we ask, is not asked again.
    #[expect(
        clippy::disallowed_methods,
        reason = "a broker that says nothing is given up by the clock"
    )]
    fn ask<T>(&self, topic: &str, question: impl Fn() -> KafkaResult<T>) -> Result<T> {
        use RDKafkaErrorCode::{ClusterAuthorizationFailed, TopicAuthorizationFailed};
        let started = Instant::now();
        loop {
            let error = match question() {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let code = error.rdkafka_error_code();
            let is_denied = [ClusterAuthorizationFailed, TopicAuthorizationFailed]
                .map(Some)
                .contains(&code);
            // What the client says on the side comes only to whoever polls.
            let _ = self.everything.poll(AGAIN);
            if is_denied || self.trouble.refused().is_some() || started.elapsed() >= REQUEST {
                return Err(self.failed(topic, &error));
            }
        }
    }

    fn configured(&self, name: &str, topic: &mut Topic) -> Result<()> {
        let options = AdminOptions::new().request_timeout(Some(REQUEST));
        let resource = ResourceSpecifier::Topic(name);
        let described = self
            .runtime
            .block_on(self.client.describe_configs([&resource], &options));
        let described = described.map_err(|error| self.failed(name, &error))?;
        for resource in described {
            let resource = resource.map_err(|code| self.failed(name, &KafkaError::AdminOp(code)))?;
            let value = |key: &str| -> Option<String> {
                let entry = resource
                    .entries
                    .iter()
                    .find(|entry: &&ConfigEntry| entry.name == key);
                entry.and_then(|entry| entry.value.clone())
            };
            let number = |key: &str| value(key).and_then(|value| value.parse().ok()).unwrap_or(-1);
            topic.cleanup = value("cleanup.policy").unwrap_or_default();
            topic.retention_ms = number("retention.ms");
            topic.retention_bytes = number("retention.bytes");
            topic.max_message_bytes = u64::try_from(number("max.message.bytes")).unwrap_or(u64::MAX);
        }
        Ok(())
    }

    /// Creates topics, and waits until whoever is asked knows of them: a broker hears of it a moment after the
    /// controller has said that they are there. One that has come into being meanwhile is left as it is.
    pub fn create(&self, missing: &[Missing]) -> Result<()> {
        for topic in missing {
            let partitions = i32::try_from(topic.partitions).unwrap_or(i32::MAX);
            let replication = match topic.replication {
                0 => -1, // as the protocol says it
                replication => i32::try_from(replication).unwrap_or(i32::MAX),
            };
            let replication = TopicReplication::Fixed(replication);
            let mut new = NewTopic::new(&topic.name, partitions, replication);
            if topic.compacted {
                new = new.set("cleanup.policy", "compact");
            }
            let options = AdminOptions::new()
                .operation_timeout(Some(REQUEST))
                .request_timeout(Some(REQUEST));
            let created = self.runtime.block_on(self.client.create_topics([&new], &options));
            for result in created.map_err(|error| self.failed(&topic.name, &error))? {
                match result {
                    Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                    Err((name, code)) => return Err(self.failed(&name, &KafkaError::AdminOp(code))),
                }
            }
        }
        for topic in missing {
            self.until_known(&topic.name)?;
        }
        Ok(())
    }

    fn until_known(&self, name: &str) -> Result<()> {
        for _ in 0..REQUEST.as_millis() / KNOWN.as_millis() {
            if self.partitions(name)? > 0 {
                return Ok(());
            }
            thread::park_timeout(KNOWN);
        }
        let late = KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition);
        Err(self.failed(name, &late))
    }

    /// What each partition of a topic holds, in order.
    pub fn bounds(&self, topic: &str, partitions: u32) -> Result<Vec<Bounds>> {
        let mut bounds = Vec::new();
        for partition in 0..partitions {
            let number = i32::try_from(partition).unwrap_or(i32::MAX);
            let ask = |client: &BaseConsumer<Trouble>| {
                self.ask(topic, || client.fetch_watermarks(topic, number, LOOK))
            };
            // The high watermark first: a transaction that ends between the two calls does not pass for open.
            let ((_, high), (first, end)) = (ask(&self.everything)?, ask(&self.committed)?);
            let unsigned = |offset: i64| u64::try_from(offset).unwrap_or(0);
            bounds.push(Bounds {
                first: unsigned(first),
                end: unsigned(end),
                high: unsigned(high.max(end)),
            });
        }
        Ok(bounds)
    }

    /// By partition: the offset of the first message at or after a time, milliseconds since the Unix epoch;
    /// none where no message is as late as that.
    pub fn offsets_at(&self, topic: &str, partitions: u32, time_ms: i64) -> Result<Vec<Option<u64>>> {
        let mut list = TopicPartitionList::new();
        for partition in 0..i32::try_from(partitions).unwrap_or(i32::MAX) {
            let added = list.add_partition_offset(topic, partition, Offset::Offset(time_ms));
            added.map_err(|error| self.failed(topic, &error))?;
        }
        let found = self.committed.offsets_for_times(list, REQUEST);
        let found = found.map_err(|error| self.failed(topic, &error))?;
        let offset = |partition: u32| {
            let number = i32::try_from(partition).unwrap_or(i32::MAX);
            match found.find_partition(topic, number).map(|found| found.offset()) {
                Some(Offset::Offset(offset)) => u64::try_from(offset).ok(),
                _ => None,
            }
        };
        Ok((0..partitions).map(offset).collect())
    }

    /// The id a topic got at its creation.
    fn topic_id(&self, name: &str) -> Result<String> {
        let Ok(c_name) = CString::new(name) else {
            return Err(Error::internal(format!("topic {name:?} holds a NUL")));
        };
        let native = self.client.inner().native_ptr();
        let timeout_ms = i32::try_from(REQUEST.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: everything made here is destroyed here, in reverse; what the event holds is copied out
        // before the event goes.
        let id = unsafe {
            let queue = sys::rd_kafka_queue_new(native);
            let mut names = [c_name.as_ptr()];
            let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1);
            sys::rd_kafka_DescribeTopics(native, topics, std::ptr::null(), queue);
            let event = sys::rd_kafka_queue_poll(queue, timeout_ms);
            let result = sys::rd_kafka_event_DescribeTopics_result(event);
            let id = match result.is_null() {
                true => None,
                false => id_of_first(result),
            };
            if !event.is_null() {
                sys::rd_kafka_event_destroy(event);
            }
            sys::rd_kafka_TopicCollection_destroy(topics);
            sys::rd_kafka_queue_destroy(queue);
            id
        };
        id.ok_or_else(|| {
            let message = format!(
                "the broker at {} does not tell the id of topic {name}",
                self.settings.brokers
            );
            Error::new(Kind::Unreachable, message)
        })
    }

    /// One line that names the topic, the broker and the cause.
    fn failed(&self, topic: &str, error: &KafkaError) -> Error {
        let cause = match self.trouble.refused() {
            Some(refused) if refused.contains("certificate verify failed") => {
                certificate::fault(&self.settings).unwrap_or(refused)
            }
            Some(refused) => refused,
            None => one_line(&error.to_string()),
        };
        Error::new(
            Kind::Unreachable,
            format!("Kafka at {}: {topic}: {cause}", self.settings.brokers),
        )
    }
}

/// # Safety
/// The result must be of an event that is alive.
unsafe fn id_of_first(result: *const sys::rd_kafka_DescribeTopics_result_t) -> Option<String> {
    let mut count = 0;
    // SAFETY: as the caller promises; pointers into the event are read while it is alive.
    unsafe {
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if count == 0 || topics.is_null() {
            return None;
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(*topics);
        if id.is_null() {
            return None;
        }
        let text = sys::rd_kafka_Uuid_base64str(id);
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    }
}

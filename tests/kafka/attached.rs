//! A reader that is there from before the start: a `read_committed` consumer on a thread of its own, which collects
//! what it is given and never looks back. What it was once given it keeps, whatever becomes of it.

use super::{Message, Topics, client};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long one look waits for a message.
const LOOK: Duration = Duration::from_millis(100);

/// The running reader; it ends when it is dropped.
pub struct Attached {
    read: Arc<Mutex<Topics>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Attached {
    /// Reads all partitions of these topics from their first message on.
    pub fn new(brokers: &str, topics: &BTreeMap<String, u32>) -> Attached {
        let consumer = consumer(brokers, topics);
        let empty = topics
            .iter()
            .map(|(topic, partitions)| (topic.clone(), vec![Vec::new(); *partitions as usize]));
        let read = Arc::new(Mutex::new(empty.collect::<Topics>()));
        let ends = Arc::new(AtomicBool::new(false));
        let (into, ended) = (Arc::clone(&read), Arc::clone(&ends));
        let run = move || {
            while !ended.load(Ordering::Acquire) {
                // A broker that is away comes back, and the client finds it.
                let Some(Ok(borrowed)) = consumer.poll(LOOK) else {
                    continue;
                };
                let (message, partition) = (message(&borrowed), borrowed.partition() as usize);
                let mut all = into.lock().expect("no reader panics");
                let topic = all.get_mut(borrowed.topic()).expect("a topic that is read");
                topic[partition].push(message);
            }
        };
        let thread = thread::Builder::new().name("attached".to_owned()).spawn(run);
        Attached {
            read,
            ends,
            thread: Some(thread.expect("a thread")),
        }
    }

    /// What it has been given so far.
    pub fn read(&self) -> Topics {
        self.read.lock().expect("no reader panics").clone()
    }

    /// How many messages it has been given so far.
    pub fn count(&self) -> usize {
        let read = self.read.lock().expect("no reader panics");
        read.values().flatten().map(Vec::len).sum()
    }

    /// Takes out what it has been given since the last time.
    pub fn take(&self) -> Vec<Message> {
        let mut read = self.read.lock().expect("no reader panics");
        read.values_mut().flatten().flat_map(std::mem::take).collect()
    }

    /// Waits until it has been given as much as is there, and gives it.
    #[track_caller]
    pub fn all(&self, there: &Topics) -> Topics {
        let count: usize = there.values().flatten().map(Vec::len).sum();
        for _ in 0..1_200 {
            if self.count() >= count {
                return self.read();
            }
            thread::park_timeout(LOOK);
        }
        panic!(
            "of {count} messages the attached reader was given {}",
            self.count()
        );
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        let _ = self.thread.take().map(JoinHandle::join); // it has told of its own panic
    }
}

/// A `read_committed` consumer of these topics from their beginning, which tells where partitions end.
pub(super) fn consumer(brokers: &str, topics: &BTreeMap<String, u32>) -> BaseConsumer {
    let mut config = client(brokers);
    config.set("group.id", "test");
    config.set("enable.auto.commit", "false");
    config.set("auto.offset.reset", "earliest");
    config.set("isolation.level", "read_committed");
    config.set("enable.partition.eof", "true");
    config.set("fetch.wait.max.ms", "50");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut partitions = TopicPartitionList::new();
    for (topic, count) in topics {
        for partition in 0..*count {
            let added = partitions.add_partition_offset(topic, partition as i32, Offset::Beginning);
            added.expect("a valid offset");
        }
    }
    consumer.assign(&partitions).expect("partitions can be assigned");
    consumer
}

/// A message of the client as one of ours.
pub(super) fn message(borrowed: &rdkafka::message::BorrowedMessage<'_>) -> Message {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("outputs are UTF-8");
    let headers = borrowed.headers().into_iter().flat_map(|headers| headers.iter());
    Message {
        key: borrowed.key().map(text),
        value: borrowed.payload().map(text).unwrap_or_default(),
        headers: headers
            .map(|header| (header.key.to_owned(), text(header.value.unwrap_or_default())))
            .collect(),
    }
}

//! A consumer of assigned partitions that gives whole batches, and says where a partition ends.
//!
//! rdkafka's own `poll` gives one message a call, behind an `Arc`, and reports the end of a partition without
//! its topic. So the batch call of the C library is used here, on its consumer queue; this is the one place
//! for that, and every pointer lives only within [`Consumer::poll`].
//!
//! What the client says on the side would come out of that queue too, and the batch call prints it to standard
//! error. So it has a queue of its own, which is emptied into the context after every call.
//!
//! Offsets are given out as they are: a transaction's markers leave holes. What was aborted is not seen.

#![expect(
    unsafe_code,
    reason = "the batch call of librdkafka has no safe wrapper in rdkafka 0.39"
)]

use super::{Settings, Trouble, not_made, one_line};
use crate::error::{Error, Kind, Result};
use crate::limits;
use rdkafka::bindings as sys;
use rdkafka::client::ClientContext as _;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use std::ffi::CStr;
use std::ptr::null_mut;
use std::time::Duration;

/// Messages that one call gives at most.
const BATCH: usize = 1_024;

/// Something read.
pub enum Event<'a> {
    /// A message.
    Message {
        /// Its topic.
        topic: &'a str,
        /// Its partition.
        partition: u32,
        /// Its offset.
        offset: u64,
        /// Message time, milliseconds since the Unix epoch; negative where there is none.
        timestamp: i64,
        /// Its key.
        key: Option<&'a [u8]>,
        /// Its value; none is a tombstone.
        value: Option<&'a [u8]>,
        /// Its headers.
        headers: Headers<'a>,
    },
    /// The partition ends here, for a reader of what is committed.
    End {
        /// The topic.
        topic: &'a str,
        /// The partition.
        partition: u32,
    },
    /// The partition cannot be read on.
    Failed {
        /// The topic; empty where the client as a whole is meant.
        topic: &'a str,
        /// The partition.
        partition: u32,
        /// The offset asked for.
        offset: i64,
        /// Why.
        failure: Failure,
    },
}

/// The headers of a message, looked at only when one is asked for.
#[derive(Clone, Copy)]
pub struct Headers<'a>(&'a sys::rd_kafka_message_t);

impl<'a> Headers<'a> {
    /// The value of the last header of this name.
    pub fn get(&self, name: &CStr) -> Option<&'a [u8]> {
        let (mut headers, mut value, mut length) = (null_mut(), std::ptr::null(), 0);
        // SAFETY: the message is valid for 'a, and its headers, which the calls only look at, live as long.
        unsafe {
            let none = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
            if sys::rd_kafka_message_headers(self.0, &mut headers) != none
                || sys::rd_kafka_header_get_last(headers, name.as_ptr(), &mut value, &mut length) != none
                || value.is_null()
            {
                return None;
            }
            Some(std::slice::from_raw_parts(value.cast::<u8>(), length))
        }
    }
}

/// Why a partition cannot be read on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The position is not there: retention removed it, or the topic was truncated.
    OutOfRange,
    /// Topic or partition is gone.
    Gone,
    /// We may not read it.
    Denied,
    /// Anything else; the client goes on trying.
    Other(String),
}

/// See the [module](self).
pub struct Consumer {
    client: BaseConsumer<Trouble>,
    queue: *mut sys::rd_kafka_queue_t,
    /// Lines of the log.
    lines: *mut sys::rd_kafka_queue_t,
    trouble: Trouble,
    batch: Vec<*mut sys::rd_kafka_message_t>,
}

// SAFETY: the queues are librdkafka's own and made for use from any thread; `Consumer` is used by one at a time.
unsafe impl Send for Consumer {}

impl Consumer {
    /// A consumer without partitions, for whoever waits for every message.
    pub fn new(settings: &Settings) -> Result<Consumer> {
        Consumer::fetching(settings, 1, limits::FETCH_WAIT_MAX)
    }

    /// The same, for whoever takes messages together anyway: the broker gathers them for so long, 1 ms at least,
    /// or until they are [`limits::FETCH_BYTES`]. A fetch for every few messages of a steady stream costs broker and
    /// engine more than all else that is done with them.
    pub fn gathering(settings: &Settings, wait: Duration) -> Result<Consumer> {
        let wait = wait.clamp(Duration::from_millis(1), limits::FETCH_WAIT_MAX);
        Consumer::fetching(settings, limits::FETCH_BYTES, wait)
    }

    fn fetching(settings: &Settings, bytes: usize, wait: Duration) -> Result<Consumer> {
        let trouble = Trouble::default();
        let mut config = settings.client();
        let (bytes, wait_ms) = (bytes.to_string(), wait.as_millis().to_string());
        // what the job file passes on goes before these
        let preferred = [
            // answers come with so many bytes ...
            ("fetch.min.bytes", bytes.as_str()),
            // ... or after so long: an empty one tells of the end of a partition
            ("fetch.wait.max.ms", wait_ms.as_str()),
            // fetching goes on right after a full queue was read
            ("fetch.queue.backoff.ms", "5"),
        ];
        settings.prefer(&mut config, &preferred);
        let queued_kbytes = (limits::FETCHED_BYTES >> 10).to_string();
        let group = format!("tidegate-{}", settings.job);
        let fixed = [
            // needed for the consumer queue; never joined, for partitions are assigned by hand
            ("group.id", group.as_str()),
            // positions come from bindings only
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            // a position that is gone is an error, never a jump
            ("auto.offset.reset", "error"),
            // an aborted transaction must not become a result
            ("isolation.level", "read_committed"),
            // idle partitions are told from slow ones by it
            ("enable.partition.eof", "true"),
            // a flipped bit on the way must not become a result
            ("check.crcs", "true"),
            // bounds what waits in the client
            ("queued.max.messages.kbytes", queued_kbytes.as_str()),
        ];
        for (name, value) in fixed {
            config.set(name, value);
        }
        let client: BaseConsumer<Trouble> = config
            .create_with_context(trouble.clone())
            .map_err(|error| not_made(&error))?;
        // SAFETY: the client is alive; the queue is released in `drop`, before the client.
        let queue = unsafe { sys::rd_kafka_queue_get_consumer(client.client().native_ptr()) };
        if queue.is_null() {
            return Err(Error::internal("the Kafka client has no consumer queue"));
        }
        // What was said while the client was made.
        // SAFETY: the queue is alive.
        while unsafe { sys::rd_kafka_queue_length(queue) } > 0 {
            client.poll(Duration::ZERO);
        }
        // SAFETY: as above; from here on lines go to this queue, which only `listen` reads.
        let lines = unsafe {
            let lines = sys::rd_kafka_queue_new(client.client().native_ptr());
            sys::rd_kafka_set_log_queue(client.client().native_ptr(), lines);
            lines
        };
        Ok(Consumer {
            client,
            queue,
            lines,
            trouble,
            batch: vec![null_mut(); BATCH],
        })
    }

    /// What went wrong beside the calls.
    pub fn trouble(&self) -> &Trouble {
        &self.trouble
    }

    /// Reads a partition from this offset on.
    pub fn assign(&self, topic: &str, partition: u32, offset: u64) -> Result<()> {
        let list = positions(topic, partition, Offset::Offset(signed(offset)))?;
        let assigned = self.client.incremental_assign(&list);
        assigned.map_err(|error| failed("assign", topic, partition, &error))
    }

    /// Stops fetching a partition; what it has fetched is dropped and fetched again later.
    pub fn pause(&self, topic: &str, partition: u32) -> Result<()> {
        let list = positions(topic, partition, Offset::Invalid)?;
        let paused = self.client.pause(&list);
        paused.map_err(|error| failed("pause", topic, partition, &error))
    }

    /// Fetches a paused partition again, from where it was read to.
    pub fn resume(&self, topic: &str, partition: u32) -> Result<()> {
        let list = positions(topic, partition, Offset::Invalid)?;
        let resumed = self.client.resume(&list);
        resumed.map_err(|error| failed("resume", topic, partition, &error))
    }

    /// Fetches anew from this offset; the end of the partition is reported again.
    pub fn seek(&self, topic: &str, partition: u32, offset: u64) -> Result<()> {
        let list = positions(topic, partition, Offset::Offset(signed(offset)))?;
        let sought = self.client.seek_partitions(list, super::REQUEST);
        sought
            .map(|_| ())
            .map_err(|error| failed("seek", topic, partition, &error))
    }

    /// Waits at most `timeout` for the first event, then gives all that are there, up to a batch.
    pub fn poll(&mut self, timeout: Duration, mut each: impl FnMut(Event<'_>)) -> usize {
        let first = self.fill(timeout, 0, 1);
        // The batch call would wait for a full batch: it is asked again only for what is there.
        let count = match first {
            0 => 0,
            _ => 1 + self.fill(Duration::ZERO, 1, BATCH - 1),
        };
        for message in self.batch[..count].iter_mut() {
            let message = std::mem::replace(message, null_mut());
            // SAFETY: the call gave `count` messages, each valid until it is destroyed right here.
            unsafe {
                if !is_about_the_group(&*message) {
                    each(event(&*message));
                }
                sys::rd_kafka_message_destroy(message);
            }
        }
        self.listen();
        count
    }

    /// Hands what the client has said to the context.
    fn listen(&self) {
        loop {
            // SAFETY: the queue is alive; an event is destroyed after its texts were copied.
            unsafe {
                let event = sys::rd_kafka_queue_poll(self.lines, 0);
                if event.is_null() {
                    return;
                }
                let (mut facility, mut line, mut level) = (std::ptr::null(), std::ptr::null(), 0);
                if sys::rd_kafka_event_log(event, &mut facility, &mut line, &mut level) == 0 {
                    let [facility, line] =
                        [facility, line].map(|text| CStr::from_ptr(text).to_string_lossy());
                    self.trouble.log(log_level(level), &facility, &line);
                }
                sys::rd_kafka_event_destroy(event);
            }
        }
    }

    fn fill(&mut self, timeout: Duration, from: usize, most: usize) -> usize {
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        let into = &mut self.batch[from..from + most];
        // SAFETY: queue and buffer are alive, and the buffer has room for `most` pointers.
        let filled =
            unsafe { sys::rd_kafka_consume_batch_queue(self.queue, timeout_ms, into.as_mut_ptr(), most) };
        usize::try_from(filled).unwrap_or(0)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // SAFETY: taken in `new`, released once, before the client.
        unsafe {
            sys::rd_kafka_queue_destroy(self.lines);
            sys::rd_kafka_queue_destroy(self.queue);
        }
    }
}

/// Whether it says that we may not use the group, which only lends its name: no right to it is needed.
fn is_about_the_group(message: &sys::rd_kafka_message_t) -> bool {
    message.err == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED
}

/// # Safety
/// The message must be one that the batch call gave and that was not destroyed.
unsafe fn event(message: &sys::rd_kafka_message_t) -> Event<'_> {
    use sys::rd_kafka_resp_err_t as code;
    let (partition, offset) = (u32::try_from(message.partition).unwrap_or(0), message.offset);
    // SAFETY: a message's topic handle is null or valid, its name a C string that lives as long.
    let topic = match message.rkt.is_null() {
        true => "",
        false => unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(message.rkt)) }
            .to_str()
            .unwrap_or_default(),
    };
    let failure = match message.err {
        code::RD_KAFKA_RESP_ERR_NO_ERROR => {
            // SAFETY: pointer and length are of one buffer, which lives as long as the message; null is none.
            let bytes = |pointer: *mut std::ffi::c_void, length: usize| match pointer.is_null() {
                true => None,
                false => Some(unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), length) }),
            };
            let (key, value) = (
                bytes(message.key, message.key_len),
                bytes(message.payload, message.len),
            );
            // SAFETY: the message is valid.
            let timestamp = unsafe { sys::rd_kafka_message_timestamp(message, null_mut()) };
            let offset = u64::try_from(offset).unwrap_or(0);
            return Event::Message {
                topic,
                partition,
                offset,
                timestamp,
                key,
                value,
                headers: Headers(message),
            };
        }
        code::RD_KAFKA_RESP_ERR__PARTITION_EOF => return Event::End { topic, partition },
        code::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET | code::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE => {
            Failure::OutOfRange
        }
        code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
        | code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
        | code::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION
        | code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID => Failure::Gone,
        code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED => Failure::Denied,
        _ => {
            // SAFETY: the message is valid; its text is null or a C string that lives as long.
            let text = unsafe { sys::rd_kafka_message_errstr(message) };
            let text = match text.is_null() {
                true => String::new(),
                false => unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned(),
            };
            Failure::Other(one_line(&text))
        }
    };
    Event::Failed {
        topic,
        partition,
        offset,
        failure,
    }
}

/// A level of syslog.
fn log_level(level: i32) -> RDKafkaLogLevel {
    match level {
        ..=3 => RDKafkaLogLevel::Error,
        4 => RDKafkaLogLevel::Warning,
        5 => RDKafkaLogLevel::Notice,
        6 => RDKafkaLogLevel::Info,
        7.. => RDKafkaLogLevel::Debug,
    }
}

fn positions(topic: &str, partition: u32, offset: Offset) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    let number = i32::try_from(partition).unwrap_or(i32::MAX);
    let added = list.add_partition_offset(topic, number, offset);
    added.map_err(|error| failed("offset of", topic, partition, &error))?;
    Ok(list)
}

fn signed(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

fn failed(what: &str, topic: &str, partition: u32, error: &rdkafka::error::KafkaError) -> Error {
    let error = one_line(&error.to_string());
    Error::new(Kind::InputGone, format!("{what} {topic}/{partition}: {error}"))
}

//! Topics as a source: the thread that reads for one worker.
//!
//! ```text
//!  Consumer ─► per partition: blocks, oldest first ─► the oldest, when the worker asks ─► arrival
//!              (more than [`AHEAD_BYTES`]: paused)
//! ```
//!
//! The worker pulls as it does from files: one request a partition is under way, and an answer has at most one
//! block. Where it asks for another offset than the next one, a replay's log has answered in between: then the
//! partition is read anew from there. What the worker does not ask for stays here, and a partition that has too
//! much here is paused: memory is bounded by bytes, and no partition waits behind another one.
//!
//! **The end of a partition** is known from the broker, for a reader of what is committed, and only as long as
//! the connection holds: when one fails, every partition that stood at its end is no longer known to, and is
//! fetched anew until the broker says so again. So an unreachable partition is never taken for an idle one.
//!
//! **Schemas.** Messages in Avro are handed over once the schema that they name is known, or known not to exist;
//! until then their partition waits here, and the registry's thread asks.
//!
//! **Stops the job:** a position that is not there (retention, truncation), a topic that is gone, a topic we
//! may not read, a broker that refuses who we are. Anything else the client gets over by itself; it is logged.

use super::batch::{Batch, Message};
use super::{Answer, Arrival, Bytes, Medium, Request};
use crate::error::{Error, Kind, Result};
use crate::format::avro;
use crate::format::registry::State;
use crate::kafka::Settings;
use crate::kafka::consumer::{Consumer, Event, Failure};
use crate::limits;
use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::Duration;

/// How long a call waits for the first message. Requests that come meanwhile wait as long, but only those of
/// partitions that have nothing here.
const POLL: Duration = Duration::from_millis(5);

/// A partition with more than this here is paused, bytes.
const AHEAD_BYTES: usize = 4 * limits::BLOCK_BYTES;

/// One partition as the thread knows it.
struct Partition {
    input: u16,
    number: u32,
    medium: Medium,
    /// What was read and not asked for.
    blocks: VecDeque<Block>,
    bytes: usize,
    paused: bool,
    /// Offset after everything read.
    read_to: u64,
    /// Offset after everything the worker got of it; where it asks for another one, the replay log has answered
    /// in between.
    next: u64,
    /// The broker has said that it ends at `read_to`.
    at_end: bool,
    /// What the worker was told last.
    told_end: bool,
    /// The worker waits.
    asked: Option<Request>,
}

/// Messages that go to the worker together.
#[derive(Default)]
struct Block {
    batch: Batch,
    /// A schema id that must be settled before the worker can decode them.
    awaits: Option<u32>,
}

/// A topic, and what its values are.
#[derive(Clone)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// What its values are.
    pub medium: Medium,
}

/// The partitions, by topic.
struct Reader {
    consumer: Consumer,
    /// By index of the input.
    topics: BTreeMap<u16, Topic>,
    partitions: BTreeMap<(u16, u32), Partition>,
    trouble_seen: u64,
}

/// Serves requests until their sender is gone. `gather`: how long messages may wait for company at the broker;
/// `topics`: by index of the input. `wake` is called after answers.
pub fn read(
    settings: &Settings,
    gather: Duration,
    topics: BTreeMap<u16, Topic>,
    requests: &Receiver<Request>,
    answers: &Sender<Answer>,
    wake: impl Fn(),
) {
    let consumer = match Consumer::gathering(settings, gather) {
        Ok(consumer) => consumer,
        Err(error) => {
            let _ = answers.send(Err(error));
            return wake();
        }
    };
    let mut reader = Reader {
        consumer,
        topics,
        partitions: BTreeMap::new(),
        trouble_seen: 0,
    };
    loop {
        let round = reader.round(requests);
        let (arrivals, ended) = match round {
            Ok(round) => round,
            Err(error) => {
                let _ = answers.send(Err(error));
                wake();
                break;
            }
        };
        let any = !arrivals.is_empty();
        for arrival in arrivals {
            if answers.send(Ok(arrival)).is_err() {
                break;
            }
        }
        if any {
            wake();
        }
        if ended {
            break;
        }
    }
    // Closing a consumer may wait for a broker that is gone; the process does not.
    std::mem::forget(reader);
}

impl Reader {
    /// Takes requests, reads, and gives what can be answered; whether the requests have ended.
    fn round(&mut self, requests: &Receiver<Request>) -> Result<(Vec<Arrival>, bool)> {
        let mut ended = false;
        if self.partitions.is_empty() {
            match requests.recv() {
                Ok(request) => self.take(request)?,
                Err(_) => return Ok((Vec::new(), true)),
            }
        }
        loop {
            match requests.try_recv() {
                Ok(request) => self.take(request)?,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    ended = true;
                    break;
                }
            }
        }
        let ready = self
            .partitions
            .values()
            .any(|partition| partition.asked.is_some() && partition.has_news());
        self.poll(if ready { Duration::ZERO } else { POLL })?;
        self.look_for_trouble()?;
        let mut arrivals = Vec::new();
        for partition in self.partitions.values_mut() {
            arrivals.extend(partition.answer());
            let topic = &self.topics[&partition.input].name;
            if partition.paused && partition.bytes <= AHEAD_BYTES / 2 {
                self.consumer.resume(topic, partition.number)?;
                partition.paused = false;
            } else if !partition.paused && partition.is_too_full() {
                self.consumer.pause(topic, partition.number)?;
                partition.paused = true;
            }
        }
        Ok((arrivals, ended))
    }

    fn take(&mut self, request: Request) -> Result<()> {
        let key = (request.input, request.partition);
        if let Some(partition) = self.partitions.get_mut(&key) {
            if partition.next != request.offset {
                let topic = &self.topics[&partition.input].name;
                self.consumer.seek(topic, partition.number, request.offset)?;
                partition.restart(request.offset);
            }
            partition.asked = Some(request);
            return Ok(());
        }
        let Some(Topic { name: topic, medium }) = self.topics.get(&request.input) else {
            return Err(Error::internal(format!("input {} is no topic", request.input)));
        };
        self.consumer.assign(topic, request.partition, request.offset)?;
        let partition = Partition {
            input: request.input,
            number: request.partition,
            medium: medium.clone(),
            blocks: VecDeque::new(),
            bytes: 0,
            paused: false,
            read_to: request.offset,
            next: request.offset,
            at_end: false,
            told_end: false,
            asked: Some(request),
        };
        self.partitions.insert(key, partition);
        Ok(())
    }

    fn poll(&mut self, timeout: Duration) -> Result<()> {
        let (topics, partitions) = (&self.topics, &mut self.partitions);
        let mut failure = Ok(());
        // A handful of topics: looking through them costs less than a map of names.
        let input = |name: &str| {
            topics
                .iter()
                .find(|(_, topic)| topic.name == name)
                .map(|(input, _)| *input)
        };
        let of = |name: &str, number: u32| (input(name).unwrap_or(u16::MAX), number);
        self.consumer.poll(timeout, |event| match event {
            Event::Message {
                topic,
                partition,
                offset,
                timestamp,
                key,
                value,
                ..
            } => {
                let Some(partition) = partitions.get_mut(&of(topic, partition)) else {
                    return;
                };
                let timestamp = Some(timestamp);
                partition.push(Message {
                    offset,
                    timestamp,
                    key,
                    value,
                });
            }
            Event::End { topic, partition } => {
                if let Some(partition) = partitions.get_mut(&of(topic, partition)) {
                    partition.at_end = true;
                }
            }
            Event::Failed {
                topic,
                partition,
                offset,
                failure: why,
            } => {
                let result = judge(topic, partition, offset, why);
                if failure.is_ok() {
                    failure = result;
                }
            }
        });
        failure
    }

    /// A connection has failed: no partition is known to stand at its end until the broker says so again.
    fn look_for_trouble(&mut self) -> Result<()> {
        let trouble = self.consumer.trouble();
        if let Some(refused) = trouble.refused() {
            return Err(Error::new(
                Kind::Unreachable,
                format!("Kafka refuses us: {refused}"),
            ));
        }
        for topic in self.topics.values() {
            if let Medium::Avro(schemas) = &topic.medium
                && let State::Refused(error) = schemas.state()
            {
                return Err(error);
            }
        }
        let seen = trouble.seen();
        if seen == self.trouble_seen {
            return Ok(());
        }
        self.trouble_seen = seen;
        for partition in self.partitions.values_mut().filter(|partition| partition.at_end) {
            partition.at_end = false;
            let topic = &self.topics[&partition.input].name;
            self.consumer.seek(topic, partition.number, partition.read_to)?;
        }
        Ok(())
    }
}

impl Partition {
    /// Forgets what is here: the worker reads on at another offset.
    fn restart(&mut self, offset: u64) {
        self.blocks.clear();
        (self.bytes, self.read_to, self.next) = (0, offset, offset);
        (self.at_end, self.told_end) = (false, false);
    }

    fn push(&mut self, message: Message<'_>) {
        // A seek may give a message again that was on its way already.
        if message.offset < self.read_to {
            return;
        }
        let awaits = match self.medium.is_settled(message.value) {
            true => None,
            false => message.value.and_then(|value| avro::schema_id(value).ok()),
        };
        let goes_along = |block: &Block| {
            let same = awaits.is_none() || awaits == block.awaits;
            same && block.batch.bytes() < limits::BLOCK_BYTES
        };
        if !self.blocks.back().is_some_and(goes_along) {
            self.blocks.push_back(Block {
                awaits,
                ..Block::default()
            });
        }
        if let Some(Block { batch, .. }) = self.blocks.back_mut() {
            let before = batch.bytes();
            batch.push(message);
            self.bytes += batch.bytes() - before;
            self.read_to = batch.end;
        }
        self.at_end = false;
    }

    /// Whether it is to be paused. Never at its end: librdkafka 2.12 counts the event that tells of the end as a
    /// message (`rd_kafka_q_serve_rkmessages`) and would resume one offset further on, past a message not yet read.
    fn is_too_full(&self) -> bool {
        self.bytes > AHEAD_BYTES && !self.at_end
    }

    /// Whether there is something that the worker does not know and can take.
    fn has_news(&self) -> bool {
        match self.blocks.front() {
            Some(block) => block.is_settled(&self.medium),
            None => self.at_end != self.told_end,
        }
    }

    fn answer(&mut self) -> Option<Arrival> {
        if !self.has_news() {
            return None;
        }
        let request = self.asked.take()?;
        let batch = match self.blocks.pop_front() {
            Some(Block { batch, .. }) => {
                self.bytes -= batch.bytes();
                match request.upto {
                    Some(upto) if upto < batch.end => batch.before(upto),
                    _ => batch,
                }
            }
            None => Batch::empty(self.read_to),
        };
        self.told_end = self.at_end && self.blocks.is_empty();
        self.next = batch.end;
        Some(Arrival {
            input: self.input,
            partition: self.number,
            offset: request.offset,
            at_end: self.told_end,
            bytes: Bytes::Messages(batch),
        })
    }
}

impl Block {
    fn is_settled(&self, medium: &Medium) -> bool {
        match (medium, self.awaits) {
            (Medium::Avro(schemas), Some(id)) => schemas.settled(id),
            _ => true,
        }
    }
}

/// Whether the job stops for it.
fn judge(topic: &str, partition: u32, offset: i64, failure: Failure) -> Result<()> {
    let gone = |what: &str| {
        Err(Error::new(
            Kind::InputGone,
            format!("{topic}/{partition}: {what}"),
        ))
    };
    match failure {
        Failure::OutOfRange => gone(&format!(
            "offset {offset} is not there any more (retention, or the topic was truncated); restore it, or start \
             with --accept-gap to go on behind the gap"
        )),
        Failure::Gone => gone("topic or partition does not exist any more; restore it, or start anew"),
        Failure::Denied => Err(Error::new(
            Kind::Unreachable,
            format!("{topic}: we are not allowed to read it; grant READ on the topic"),
        )),
        Failure::Other(text) => {
            tracing::warn!("{topic}/{partition}: {text}");
            Ok(())
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn partition() -> Partition {
        Partition {
            input: 0,
            number: 1,
            medium: Medium::Json,
            blocks: VecDeque::new(),
            bytes: 0,
            paused: false,
            read_to: 10,
            next: 10,
            at_end: false,
            told_end: false,
            asked: None,
        }
    }

    fn ask(partition: &mut Partition) {
        partition.asked = Some(Request {
            input: 0,
            partition: 1,
            path: std::path::PathBuf::new(),
            offset: partition.read_to,
            bytes: limits::BLOCK_BYTES,
            at_end: partition.told_end,
            ..Request::default()
        });
    }

    fn push(partition: &mut Partition, offset: u64, value: &[u8]) {
        partition.push(Message {
            offset,
            timestamp: None,
            key: None,
            value: Some(value),
        });
    }

    fn offsets(arrival: &Arrival) -> Vec<u64> {
        match &arrival.bytes {
            Bytes::Messages(batch) => batch.messages().map(|message| message.offset).collect(),
            Bytes::Lines(_) | Bytes::Rows(_) => panic!("topics have messages"),
        }
    }

    #[test]
    fn nothing_is_answered_before_it_is_asked_for_and_nothing_twice() {
        let mut partition = partition();
        push(&mut partition, 10, b"a");
        assert_eq!(partition.answer(), None);
        ask(&mut partition);
        push(&mut partition, 12, b"b"); // 11 is a marker
        push(&mut partition, 12, b"b"); // again, after a seek
        assert_eq!(offsets(&partition.answer().unwrap()), [10, 12]);
        assert_eq!((partition.bytes, partition.read_to), (0, 13));
        ask(&mut partition);
        assert_eq!(partition.answer(), None, "there is no news");
    }

    #[test]
    fn the_end_is_told_once_and_taken_back_when_it_is_no_longer_known() {
        let mut partition = partition();
        partition.at_end = true;
        ask(&mut partition);
        assert!(partition.answer().unwrap().at_end);
        ask(&mut partition);
        assert_eq!(partition.answer(), None);
        partition.at_end = false; // the connection failed
        assert!(!partition.answer().unwrap().at_end);
        partition.at_end = true;
        push(&mut partition, 10, b"a");
        ask(&mut partition);
        assert!(
            !partition.answer().unwrap().at_end,
            "a message came behind the end"
        );
    }

    #[test]
    fn a_partition_is_paused_when_it_is_full_and_never_at_its_end() {
        let mut partition = partition();
        let value = vec![0; AHEAD_BYTES];
        push(&mut partition, 10, &value);
        assert!(partition.is_too_full());
        partition.at_end = true;
        assert!(
            !partition.is_too_full(),
            "it would be resumed at the wrong offset"
        );
        push(&mut partition, 11, &value);
        assert!(partition.is_too_full(), "a message came behind the end");
    }

    #[test]
    fn blocks_are_bounded_by_bytes() {
        let mut partition = partition();
        let value = vec![0; limits::BLOCK_BYTES / 2];
        (10..16).for_each(|offset| push(&mut partition, offset, &value));
        assert!(partition.bytes > 3 * limits::BLOCK_BYTES - 1);
        let mut seen = Vec::new();
        while !partition.blocks.is_empty() {
            ask(&mut partition);
            let arrival = partition.answer().unwrap();
            assert!(offsets(&arrival).len() <= 2);
            seen.extend(offsets(&arrival));
        }
        assert_eq!((seen, partition.bytes), ((10..16).collect(), 0));
    }

    #[test]
    fn only_what_the_client_gets_over_by_itself_does_not_stop_the_job() {
        assert!(judge("t", 0, 5, Failure::Other("timed out".to_owned())).is_ok());
        let gone = judge("t", 0, 5, Failure::OutOfRange).unwrap_err();
        assert!(
            gone.kind == Kind::InputGone && gone.message.contains("t/0: offset 5"),
            "{gone}"
        );
        assert_eq!(judge("t", 0, 5, Failure::Gone).unwrap_err().kind, Kind::InputGone);
        assert_eq!(
            judge("t", 0, 5, Failure::Denied).unwrap_err().kind,
            Kind::Unreachable
        );
    }
}

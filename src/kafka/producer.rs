//! A producer, transactional or not, used by one thread.
//!
//! ```text
//!  new ─► init ─► (begin ─► send… ─► commit)*      any failure: drop it, make another
//!  without_transactions ─► (send… ─► delivered_all)*      for load: nothing is tied together
//! ```
//!
//! **What a failure means.** Fenced: another producer of this id was initialised after ours, so somebody else
//! is in charge: nothing of the open transaction will ever be visible. Denied: the broker refuses us or a
//! message, and will again. Unknown: the outcome cannot be known from here; whoever initialises the id again
//! learns it by reading what was committed.
//!
//! **No second `EndTxn`.** librdkafka 2.12 repeats an `EndTxn` whose answer is missing, for ever, under the
//! same producer epoch (`rd_kafka_txn_handle_EndTxn`: retries without limit on time-outs and lost connections;
//! no KIP-890 on the client). If the first one was only held up on its way, it arrives later and commits or
//! cuts in two whatever transaction is open then. Two rules close this: [`COMMIT`] is shorter than a request's
//! time-out, so a slow commit is given up before it is repeated; and a producer that has seen its connection to
//! the transaction coordinator fail, even if all its calls succeeded, [is not used again](Producer::is_worn).
//! The next one gets a higher epoch, which fences whatever the old one has under way. Other connections carry
//! nothing that may not arrive twice: messages have sequence numbers.
//!
//! **Waiting.** Only failed deliveries are reported, so successes free their messages without being polled
//! for, and the C library's own `flush` waits on a condition variable. rdkafka's `flush` and `poll(1 ms)` spin
//! or sleep instead (measured: 7 ms of CPU per transaction, or 100 ms of latency).

#![expect(
    unsafe_code,
    reason = "the waiting flush of librdkafka has no wrapper in rdkafka 0.39"
)]

use super::{REQUEST, Settings, Trouble, not_made, one_line};
use crate::error::{Error, Kind, Result};
use crate::time::Millis;
use rdkafka::bindings as sys;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use std::time::{Duration, Instant};

/// How long a commit may take, its deliveries included. Below [`REQUEST`].
pub const COMMIT: Duration = Duration::from_secs(6);

/// How long initialising may take: it waits for what an earlier producer of the id has left open.
pub const INITIALISE: Duration = Duration::from_secs(30);

/// How long a message outside of transactions may take until it is given up.
pub const DELIVERY: Duration = Duration::from_secs(30);

/// How often deliveries are looked after while they are waited for.
const LOOK: Duration = Duration::from_millis(50);

const _: () = assert!(
    COMMIT.as_millis() < REQUEST.as_millis(),
    "given up before it is repeated"
);

/// A message to send.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: u32,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: &'a [(&'a str, &'a [u8])],
}

/// Why a transaction is not known to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A later producer of the same id exists.
    Fenced(String),
    /// It will be refused again, whoever tries.
    Denied(String),
    /// It may have happened or not.
    Unknown(String),
}

impl From<Failure> for Error {
    /// As the reason to stop.
    fn from(failure: Failure) -> Error {
        match failure {
            Failure::Fenced(text) => {
                let message =
                    format!("a later instance has taken the job over ({text}); nothing more was written");
                Error::new(Kind::Fenced, message)
            }
            Failure::Denied(text) => Error::new(Kind::WriteFailed, format!("Kafka: {text}")),
            Failure::Unknown(text) => Error::new(Kind::Unreachable, format!("Kafka: {text}")),
        }
    }
}

/// See the [module](self).
pub struct Producer {
    client: BaseProducer<Trouble>,
    trouble: Trouble,
}

impl Producer {
    /// A producer of this transactional id that has sent nothing yet.
    pub fn new(settings: &Settings, id: &str, transaction_timeout: Duration) -> Result<Producer> {
        let trouble = Trouble::default();
        let mut config = settings.client();
        let timeout = transaction_timeout.as_millis().to_string();
        // what the job file passes on goes before these
        let preferred = [
            // a transaction is small and waited for: nothing is held back for company
            ("linger.ms", "0"),
            // CONCURRENT_TRANSACTIONS is over within milliseconds, the default waits 100
            ("retry.backoff.ms", "5"),
            ("retry.backoff.max.ms", "200"),
            // less to write and read at little cost
            ("compression.codec", "lz4"),
            // a group of epochs goes in few requests
            ("batch.size", "1000000"),
        ];
        settings.prefer(&mut config, &preferred);
        let fixed = [
            ("transactional.id", id),
            // a transaction that is open when its owner freezes holds back readers this long at most
            ("transaction.timeout.ms", timeout.as_str()),
            // implied by transactions, said for whoever reads this
            ("enable.idempotence", "true"),
            // committed means that all in-sync replicas have it
            ("acks", "all"),
            // successes are told by the commit; reports of them would have to be polled for
            ("delivery.report.only.error", "true"),
            // a transaction is limited by its bytes, see `limits`; this only must not be the tighter bound
            ("queue.buffering.max.messages", "0"),
            ("queue.buffering.max.kbytes", "1048576"),
        ];
        for (name, value) in fixed {
            config.set(name, value);
        }
        let client = config
            .create_with_context(trouble.clone())
            .map_err(|error| not_made(&error))?;
        Ok(Producer { client, trouble })
    }

    /// A producer whose messages are visible at once, each once and in order, in no transaction: for filling
    /// inputs, and for the control arm of the kill campaigns.
    pub fn without_transactions(settings: &Settings) -> Result<Producer> {
        let trouble = Trouble::default();
        let mut config = settings.client();
        let patience = DELIVERY.as_millis().to_string();
        // what the job file passes on goes before these
        let preferred = [
            // many messages a request: what is waited for is not one of them, but all
            ("linger.ms", "5"),
            ("batch.size", "1000000"),
            ("compression.codec", "lz4"),
            // what waits in the client is bounded by bytes ...
            ("queue.buffering.max.kbytes", "65536"),
            // ... and by nothing else
            ("queue.buffering.max.messages", "0"),
        ];
        settings.prefer(&mut config, &preferred);
        let fixed = [
            // a retry writes nothing twice and changes no order
            ("enable.idempotence", "true"),
            ("acks", "all"),
            // whoever writes is told before long that nobody takes it
            ("message.timeout.ms", patience.as_str()),
            // successes would have to be polled for
            ("delivery.report.only.error", "true"),
        ];
        for (name, value) in fixed {
            config.set(name, value);
        }
        let client = config
            .create_with_context(trouble.clone())
            .map_err(|error| not_made(&error))?;
        Ok(Producer { client, trouble })
    }

    /// Waits until everything sent is acknowledged, as long as a commit may take.
    pub fn delivered_all(&self) -> Result<(), Failure> {
        self.delivered_within(COMMIT)
    }

    /// Waits until everything sent is acknowledged, at most so long.
    pub fn delivered_within(&self, patience: Duration) -> Result<(), Failure> {
        let started = now();
        while !self.flush(LOOK) {
            self.listen();
            self.delivered()?;
            if started.elapsed() >= patience {
                let late = "messages are not acknowledged in time".to_owned();
                return Err(Failure::Unknown(late));
            }
        }
        self.listen();
        self.delivered()
    }

    /// The first message that was given up since it was last asked, as the failure it is.
    pub fn delivered_so_far(&self) -> Result<(), Failure> {
        self.listen();
        self.delivered()
    }

    /// Takes the id: fences earlier producers of it, and waits until what they left open is settled.
    pub fn initialise(&self) -> Result<(), Failure> {
        let initialised = self.client.init_transactions(INITIALISE);
        initialised.map_err(|error| self.failure("taking the transactional id", &error))
    }

    /// Opens a transaction.
    pub fn begin(&self) -> Result<(), Failure> {
        let begun = self.client.begin_transaction();
        begun.map_err(|error| self.failure("beginning a transaction", &error))
    }

    /// Adds a message to the open transaction; it gets the time of the sending.
    pub fn send(&self, message: &Message<'_>) -> Result<(), Failure> {
        self.send_at(message, None)
    }

    /// Sends a message with this time, or that of the sending. Where too much waits to be sent, so does this.
    pub fn send_at(&self, message: &Message<'_>, time: Option<Millis>) -> Result<(), Failure> {
        // The clock is read only where there is something to wait for.
        let mut waits: Option<Instant> = None;
        loop {
            let mut record = BaseRecord::<[u8], [u8]>::to(message.topic)
                .partition(i32::try_from(message.partition).unwrap_or(i32::MAX));
            record.key = message.key;
            record.payload = message.value;
            record.timestamp = time;
            if !message.headers.is_empty() {
                let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
                for (key, value) in message.headers {
                    let value = Some(*value);
                    headers = headers.insert(Header { key, value });
                }
                record = record.headers(headers);
            }
            match self.client.send(record) {
                Ok(()) => return Ok(()),
                Err((error, _)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                    self.flush(LOOK);
                    if waits.get_or_insert_with(now).elapsed() >= COMMIT {
                        return Err(Failure::Unknown(format!(
                            "{}: the queue stays full",
                            message.topic
                        )));
                    }
                }
                Err((error, _)) => return Err(self.failure(message.topic, &error)),
            }
        }
    }

    /// Commits the open transaction. After `Ok` every message in it is visible, and after nothing else.
    pub fn commit(&self) -> Result<(), Failure> {
        let started = now();
        self.delivered_all()?;
        let left = COMMIT.saturating_sub(started.elapsed()).max(LOOK);
        let committed = self.client.commit_transaction(left);
        committed.map_err(|error| self.failure("committing a transaction", &error))
    }

    /// Whether the connection to the coordinator failed or a request on it timed out: then it is not to be used
    /// for another transaction.
    pub fn is_worn(&self) -> bool {
        self.listen();
        self.trouble.seen_at_coordinator() > 0
    }

    /// Hands everything the client has said to the context: one call of `poll` takes one event.
    fn listen(&self) {
        let native = self.client.client().native_ptr();
        // SAFETY: the client is alive; the handle of its main queue is released right after its length was read.
        let waiting = || unsafe {
            let queue = sys::rd_kafka_queue_get_main(native);
            let length = sys::rd_kafka_queue_length(queue);
            sys::rd_kafka_queue_destroy(queue);
            length
        };
        while waiting() > 0 {
            self.client.poll(Duration::ZERO);
        }
    }

    /// Waits at most so long until nothing is on its way; whether that is so.
    fn flush(&self, timeout: Duration) -> bool {
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the client is alive, and the call keeps nothing.
        let flushed = unsafe { sys::rd_kafka_flush(self.client.client().native_ptr(), timeout_ms) };
        flushed == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
    }

    fn delivered(&self) -> Result<(), Failure> {
        match self.trouble.take_undelivered() {
            None => Ok(()),
            Some((code, text)) if is_final(code) => Err(Failure::Denied(text)),
            Some((_, text)) => Err(Failure::Unknown(text)),
        }
    }

    fn failure(&self, what: &str, error: &KafkaError) -> Failure {
        let text = format!("{what}: {}", one_line(&error.to_string()));
        let code = match error {
            KafkaError::Transaction(error) => Some(error.code()),
            other => other.rdkafka_error_code(),
        };
        self.listen();
        if let Some((code, undelivered)) = self.trouble.take_undelivered()
            && is_final(code)
        {
            return Failure::Denied(undelivered);
        }
        if let Some(refused) = self.trouble.refused() {
            return Failure::Denied(refused);
        }
        match code {
            Some(
                RDKafkaErrorCode::Fenced
                | RDKafkaErrorCode::ProducerFenced
                | RDKafkaErrorCode::InvalidProducerEpoch,
            ) => Failure::Fenced(text),
            Some(code) if is_final(code) => Failure::Denied(text),
            _ => Failure::Unknown(text),
        }
    }
}

/// What no other producer would fare better with.
fn is_final(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    [
        Code::MessageSizeTooLarge,
        Code::InvalidMessageSize,
        Code::TopicAuthorizationFailed,
        Code::ClusterAuthorizationFailed,
        Code::TransactionalIdAuthorizationFailed,
        Code::UnknownTopicOrPartition,
        Code::UnknownTopic,
        Code::UnknownPartition,
        Code::PolicyViolation,
        Code::InvalidRecord,
        Code::InvalidTransactionTimeout,
        Code::Authentication,
        Code::SaslAuthenticationFailed,
        Code::UnsupportedFeature,
    ]
    .contains(&code)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a producer's thread gives up by the clock"
)]
fn now() -> Instant {
    Instant::now()
}

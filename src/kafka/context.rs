//! What clients say on the side: log lines and errors, from librdkafka's own threads.
//!
//! They go to the log of the program. Two kinds are also remembered, for no call reports them: that a
//! connection failed or a request timed out (a producer that saw this is not used for another transaction; a
//! consumer no longer knows that it stands at the end of a partition), and that the broker refused who we are
//! (credentials, certificate: waiting does not help).
//!
//! A broker that is down is said once an outage, though the client tries it every second; the rest goes to the
//! debug log.

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::ProducerContext;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What librdkafka calls its connection to the transaction coordinator, in every line about it.
const COORDINATOR: &str = "TxnCoordinator";

/// The facility of the lines about topics that join a transaction.
const ADD_PARTITIONS: &str = "ADDPARTS";

/// Failures of one connection that follow each other within this time are one outage. The client tries again
/// within 10 s.
const OUTAGE: Duration = Duration::from_secs(60);

/// The last failure of each connection.
#[derive(Default)]
struct Outages(BTreeMap<String, Instant>);

impl Outages {
    /// Whether a failure is the first of an outage. `line` begins with the connection it is about.
    fn begins(&mut self, facility: &str, line: &str, now: Instant) -> bool {
        let connection = line.split_once("]: ").map_or("", |(connection, _)| connection);
        let last = self.0.insert(format!("{facility} {connection}"), now);
        last.is_none_or(|last| now.duration_since(last) > OUTAGE)
    }
}

/// What went wrong beside the calls; shared with whoever made the client.
#[derive(Clone, Default)]
pub struct Trouble {
    seen: Arc<AtomicU64>,
    coordinator: Arc<AtomicU64>,
    refused: Arc<Mutex<Option<String>>>,
    undelivered: Arc<Mutex<Option<(RDKafkaErrorCode, String)>>>,
    outages: Arc<Mutex<Outages>>,
}

impl Trouble {
    /// How often a connection failed or a request timed out so far.
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::Acquire)
    }

    /// How often that concerned the connection to the transaction coordinator, over which `EndTxn` goes.
    pub fn seen_at_coordinator(&self) -> u64 {
        self.coordinator.load(Ordering::Acquire)
    }

    fn note(&self, line: &str) {
        self.seen.fetch_add(1, Ordering::AcqRel);
        if line.contains(COORDINATOR) {
            self.coordinator.fetch_add(1, Ordering::AcqRel);
        }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "how often something is logged goes by the clock"
    )]
    fn begins_outage(&self, facility: &str, line: &str) -> bool {
        let mut outages = self.outages.lock().unwrap_or_else(PoisonError::into_inner);
        outages.begins(facility, line, Instant::now())
    }

    /// Why the broker refuses us, if it does.
    pub fn refused(&self) -> Option<String> {
        self.refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The first message that was not delivered since the last call, with its reason.
    pub fn take_undelivered(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.undelivered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn refuse(&self, line: &str) {
        // Which of the client's threads found out is of no use to anybody.
        let line = match line.split_once("]: ") {
            Some((thread, rest)) if thread.starts_with("[thrd:") => rest,
            _ => line,
        };
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.get_or_insert_with(|| super::one_line(line));
    }

    fn give_up(&self, code: RDKafkaErrorCode, text: &str) {
        let mut first = self.undelivered.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| (code, super::one_line(text)));
    }
}

impl ClientContext for Trouble {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        use RDKafkaLogLevel::{Debug, Info};
        let is_quiet = matches!(level, Info | Debug);
        // A property for consumers that a producer has no use for, or the other way round, is no trouble.
        if facility == "CONFWARN" {
            return;
        }
        let is_failure = ["FAIL", "REQTMOUT", "ERROR", "TIMEOUT"].contains(&facility);
        if !is_quiet || is_failure {
            self.note(line);
        }
        // Waiting does not help against these; a handshake that breaks off for another reason may succeed later.
        let final_words = [
            "uthentication fail",
            "uthentication err",
            "certificate verify failed",
            "not be verified",
        ];
        if final_words.iter().any(|words| line.contains(words)) {
            self.refuse(line);
        }
        // The commit will only say that some topic was denied; here it has a name.
        if facility == ADD_PARTITIONS
            && line.contains("authorization failed")
            && let Some(at) = line.find("Failed to add")
        {
            self.give_up(RDKafkaErrorCode::TopicAuthorizationFailed, &line[at..]);
        }
        let is_known = is_failure && !self.begins_outage(facility, line);
        let line = super::one_line(line);
        match is_quiet || is_known {
            true => tracing::debug!("kafka: {line}"),
            false => tracing::warn!("kafka: {line}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.note(reason);
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL) => self.refuse(reason),
            _ => tracing::debug!("kafka: {error}: {}", super::one_line(reason)),
        }
    }
}

impl ConsumerContext for Trouble {}

impl ProducerContext for Trouble {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
            // Messages of a transaction that is given up: the reason was told before.
            if ![RDKafkaErrorCode::PurgeQueue, RDKafkaErrorCode::PurgeInflight].contains(&code) {
                self.give_up(code, &format!("{}: {error}", message.topic()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_connections_are_trouble_and_unused_properties_are_not() {
        let trouble = Trouble::default();
        trouble.log(RDKafkaLogLevel::Warning, "CONFWARN", "fetch.max.bytes is ignored");
        assert_eq!(trouble.seen(), 0);
        trouble.log(RDKafkaLogLevel::Info, "FAIL", "connection refused");
        trouble.log(RDKafkaLogLevel::Error, "ANY", "whatever it is");
        assert_eq!(trouble.seen(), 2);
        trouble.error(
            KafkaError::Global(RDKafkaErrorCode::Authentication),
            "wrong\n password",
        );
        trouble.error(KafkaError::Global(RDKafkaErrorCode::SSL), "later");
        assert_eq!(trouble.refused().as_deref(), Some("wrong password"));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an instant to count from")]
    fn an_outage_is_said_once_for_each_connection() {
        let (mut outages, now) = (Outages::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        let (one, other) = ("[thrd:a:1/1]: a:1/1: refused", "[thrd:b:1/2]: b:1/2: refused");
        assert!(outages.begins("FAIL", one, at(0)));
        for second in 1..100 {
            assert!(!outages.begins("FAIL", &format!("{one} ({second} suppressed)"), at(second)));
        }
        assert!(outages.begins("FAIL", other, at(100)), "another broker");
        assert!(outages.begins("REQTMOUT", one, at(100)), "another trouble");
        assert!(outages.begins("FAIL", one, at(200)), "a later outage");
    }

    #[test]
    fn a_topic_that_is_denied_to_a_transaction_has_its_name() {
        let trouble = Trouble::default();
        let line = "[thrd:main]: c/1: Failed to add partition \"t\" [0] to transaction: \
                    Broker: Topic authorization failed";
        trouble.log(RDKafkaLogLevel::Error, "ADDPARTS", line);
        let (code, text) = trouble.take_undelivered().expect("it was noted");
        assert_eq!(code, RDKafkaErrorCode::TopicAuthorizationFailed);
        assert!(text.starts_with("Failed to add partition \"t\""), "{text}");
    }
}

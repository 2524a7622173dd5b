//! Kafka: the only room that makes a client.
//!
//! ```text
//!  Settings (from the job file) ─┬─► Consumer  one per worker: batches, ends of partitions
//!    brokers, passed-on          ├─► Producer  one per output shard: transactions
//!    properties, secrets         └─► topics    facts about topics; creates what is missing
//!                                       └─► certificate  what is wrong with one that is refused
//! ```
//!
//! Every property that is set here has its reason on the line above. What correctness fixes is in [`FIXED`]:
//! a job file that names one of them is refused with the reason. Everything else passes through to librdkafka.
//!
//! Secrets are in values of properties; [`Settings`] never shows a value, and neither does an error of this
//! room: librdkafka names properties and hosts, not passwords.

mod certificate;
pub mod consumer;
mod context;
pub mod producer;
pub mod topics;

use crate::error::{Error, Kind};
use rdkafka::ClientConfig;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

pub use context::Trouble;

/// How long one request to a broker may take. Above every time-out of a transaction call, so that the client
/// never sends an `EndTxn` a second time on its own: see [`producer`].
pub const REQUEST: Duration = Duration::from_secs(10);

/// How to reach a cluster.
#[derive(Clone, Default)]
pub struct Settings {
    /// `host:port,...` to begin with.
    pub brokers: String,
    /// Passed on to librdkafka as they are; none of [`FIXED`].
    pub properties: BTreeMap<String, String>,
    /// Names the clients in the brokers' logs and quotas.
    pub job: String,
}

impl fmt::Debug for Settings {
    /// Names of properties only: values may be secrets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.properties.keys().collect();
        write!(formatter, "Kafka at {} with {names:?}", self.brokers)
    }
}

/// Properties that correctness fixes, and why a job file may not set them.
pub const FIXED: &[(&str, &str)] = &[
    ("bootstrap.servers", "it is `brokers`"),
    ("metadata.broker.list", "it is `brokers`"),
    ("group.id", "partitions are assigned by the job, no group decides"),
    (
        "group.instance.id",
        "partitions are assigned by the job, no group decides",
    ),
    (
        "group.protocol",
        "partitions are assigned by the job, no group decides",
    ),
    ("enable.auto.commit", "positions come from bindings only"),
    ("enable.auto.offset.store", "positions come from bindings only"),
    ("auto.offset.reset", "a lost position is refused, never guessed"),
    ("isolation.level", "uncommitted input would be read"),
    ("enable.partition.eof", "idle partitions are recognised by it"),
    (
        "transactional.id",
        "it is made of the job's name and the output shard",
    ),
    (
        "transaction.timeout.ms",
        "set `transaction_timeout_ms`, which is checked against the other time-outs",
    ),
    ("enable.idempotence", "without it a retry writes twice"),
    ("acks", "an output counts once all in-sync replicas have it"),
    (
        "request.required.acks",
        "an output counts once all in-sync replicas have it",
    ),
    ("max.in.flight", "more than five lose the order of a partition"),
    (
        "max.in.flight.requests.per.connection",
        "more than five lose the order of a partition",
    ),
    (
        "message.timeout.ms",
        "a message is given up with its transaction, not by itself",
    ),
    (
        "delivery.timeout.ms",
        "a message is given up with its transaction, not by itself",
    ),
    (
        "socket.timeout.ms",
        "transaction calls must be given up before a request is repeated",
    ),
    (
        "partitioner",
        "partitions are computed by the job, as the Java client does",
    ),
    ("allow.auto.create.topics", "a misspelt topic would be created"),
    (
        "log_level",
        "a connection that fails is recognised by its line in the log",
    ),
    (
        "log.connection.close",
        "a connection that fails is recognised by its line in the log",
    ),
    ("test.mock.num.brokers", "a mock cluster keeps no promise"),
    (
        "queued.max.messages.kbytes",
        "memory in flight is bounded by the job",
    ),
    (
        "queue.buffering.max.messages",
        "memory in flight is bounded by the job",
    ),
    (
        "queue.buffering.max.kbytes",
        "memory in flight is bounded by the job",
    ),
    ("check.crcs", "a bit flipped on the way would become a result"),
    (
        "delivery.report.only.error",
        "successes are told by the commit, nobody asks for their reports",
    ),
];

impl Settings {
    /// What every client has.
    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        self.prefer(
            &mut config,
            &[
                // the brokers' logs and quotas name the job
                ("client.id", self.job.as_str()),
                // latency: small requests are not held back
                ("socket.nagle.disable", "true"),
                // notices a peer that is gone even if nothing is sent
                ("socket.keepalive.enable", "true"),
                // back at work soon after a broker is ...
                ("reconnect.backoff.ms", "20"),
                // ... yet without flooding one that stays away
                ("reconnect.backoff.max.ms", "1000"),
            ],
        );
        let request = REQUEST.as_millis().to_string();
        let fixed = [
            ("bootstrap.servers", self.brokers.as_str()),
            // bounds every request: a partition cannot pass for idle while its broker is unreachable
            ("socket.timeout.ms", request.as_str()),
            // a misspelt topic must not come into being
            ("allow.auto.create.topics", "false"),
            // lines about failed connections reach the context, see `context`
            ("log_level", "6"),
            ("log.connection.close", "true"),
        ];
        for (name, value) in fixed {
            config.set(name, value);
        }
        config
    }

    /// Sets what the job file leaves open; correctness does not depend on it.
    fn prefer(&self, config: &mut ClientConfig, preferred: &[(&str, &str)]) {
        for (name, value) in preferred {
            if !self.properties.contains_key(*name) {
                config.set(*name, *value);
            }
        }
    }
}

/// Why a property of the job file is refused; none if it may be passed on.
pub fn refused(property: &str) -> Option<&'static str> {
    let fixed = FIXED.iter().find(|(name, _)| *name == property);
    fixed.map(|(_, reason)| *reason)
}

/// What librdkafka has against a property with this value; none if it takes it. It may quote the value.
pub fn fault(property: &str, value: &str) -> Option<String> {
    let mut config = ClientConfig::new();
    config.set(property, value);
    let refused = config.create_native_config().err()?;
    Some(match refused {
        rdkafka::error::KafkaError::ClientConfig(_, what, ..) => one_line(&what),
        other => one_line(&other.to_string()),
    })
}

/// A client that could not be made: the properties are wrong, or a file that they name.
fn not_made(error: &rdkafka::error::KafkaError) -> Error {
    Error::new(
        Kind::Configuration,
        format!("[kafka]: {}", one_line(&error.to_string())),
    )
}

/// A text of librdkafka as one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_show_no_values() {
        let properties = BTreeMap::from([("sasl.password".to_owned(), "canary".to_owned())]);
        let settings = Settings {
            brokers: "b:1".to_owned(),
            properties,
            job: "j".to_owned(),
        };
        let shown = format!("{settings:?}");
        assert!(
            shown.contains("sasl.password") && !shown.contains("canary"),
            "{shown}"
        );
    }

    #[test]
    fn what_correctness_fixes_is_refused_by_name() {
        assert!(refused("acks").is_some() && refused("isolation.level").is_some());
        assert_eq!(refused("compression.codec"), None);
    }

    #[test]
    fn librdkafka_names_what_it_does_not_take() {
        assert_eq!(fault("fetch.max.bytes", "1000000"), None);
        assert_eq!(fault("sasl.password", "any"), None);
        let unknown = fault("fetch.max.byte", "1").expect("a misspelt property");
        assert!(unknown.contains("fetch.max.byte"), "{unknown}");
        let wrong = fault("security.protocol", "telnet").expect("a wrong value");
        assert!(wrong.contains("security.protocol"), "{wrong}");
    }

    #[test]
    fn passed_on_properties_override_preferred_ones_and_never_fixed_ones() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let own = [
            pair("socket.nagle.disable", "false"),
            pair("socket.timeout.ms", "1"),
        ];
        let settings = Settings {
            properties: BTreeMap::from(own),
            ..Settings::default()
        };
        let config = settings.client();
        assert_eq!(config.get("socket.nagle.disable"), Some("false"));
        assert_eq!(config.get("socket.timeout.ms"), Some("10000"));
        assert_eq!(config.get("socket.keepalive.enable"), Some("true"));
    }
}

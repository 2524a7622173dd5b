//! A plain producer: what a bank's other programs are. No transactions, nothing written twice, in order.

use super::client;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long a broker that was killed may stay away.
const PATIENCE: Duration = Duration::from_secs(120);

/// Writes messages to partitions.
pub struct Producer {
    client: BaseProducer<Refused>,
    refused: Refused,
}

/// What the broker did not take, and why.
#[derive(Clone, Default)]
struct Refused(Arc<Mutex<Vec<String>>>);

impl ClientContext for Refused {}

impl ProducerContext for Refused {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result
            && let Ok(mut refused) = self.0.lock()
        {
            refused.push(format!("{}: {error}", message.topic()));
        }
    }
}

impl Producer {
    /// For this cluster.
    pub fn new(brokers: &str) -> Producer {
        let mut config = client(brokers);
        config.set("enable.idempotence", "true");
        config.set("linger.ms", "0");
        let refused = Refused::default();
        let client = config.create_with_context(refused.clone()).expect("a producer");
        Producer { client, refused }
    }

    /// Adds a message to the end of a partition; it is on its way.
    pub fn send(&self, topic: &str, partition: usize, key: Option<&str>, value: Option<&[u8]>) {
        self.send_with(topic, partition, key, value, &BTreeMap::new());
    }

    /// The same with headers.
    pub fn send_with(
        &self,
        topic: &str,
        partition: usize,
        key: Option<&str>,
        value: Option<&[u8]>,
        headers: &BTreeMap<String, String>,
    ) {
        loop {
            let mut record = BaseRecord::<str, [u8]>::to(topic).partition(partition as i32);
            record.key = key;
            record.payload = value;
            if !headers.is_empty() {
                let mut all = OwnedHeaders::new();
                for (key, value) in headers {
                    all = all.insert(Header {
                        key,
                        value: Some(value),
                    });
                }
                record.headers = Some(all);
            }
            match self.client.send(record) {
                Ok(()) => return,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    self.client.poll(Duration::from_millis(10));
                }
                Err((error, _)) => panic!("{topic}: {error}"),
            }
        }
    }

    /// Waits until everything is acknowledged.
    #[track_caller]
    pub fn flush(&self) {
        self.client.flush(PATIENCE).expect("the broker acknowledges");
        let refused = self.refused.0.lock().expect("no callback panics");
        assert!(refused.is_empty(), "the broker refused {refused:?}");
    }
}

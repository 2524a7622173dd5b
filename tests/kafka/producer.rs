//! A plain producer: what a bank's other programs are. No transactions, nothing written twice, in order.

use super::client;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use std::time::Duration;

/// How long a broker that was killed may stay away.
const PATIENCE: Duration = Duration::from_secs(120);

/// Writes messages to partitions.
pub struct Producer(BaseProducer);

impl Producer {
    /// For this cluster.
    pub fn new(brokers: &str) -> Producer {
        let mut config = client(brokers);
        config.set("enable.idempotence", "true");
        config.set("linger.ms", "0");
        Producer(config.create().expect("a producer"))
    }

    /// Adds a message to the end of a partition; it is on its way.
    pub fn send(&self, topic: &str, partition: usize, key: Option<&str>, value: Option<&[u8]>) {
        loop {
            let mut record = BaseRecord::<str, [u8]>::to(topic).partition(partition as i32);
            record.key = key;
            record.payload = value;
            match self.0.send(record) {
                Ok(()) => return,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    self.0.poll(Duration::from_millis(10));
                }
                Err((error, _)) => panic!("{topic}: {error}"),
            }
        }
    }

    /// Waits until everything is acknowledged.
    pub fn flush(&self) {
        self.0.flush(PATIENCE).expect("the broker acknowledges");
        assert_eq!(self.0.in_flight_count(), 0);
    }
}

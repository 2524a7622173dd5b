//! The load: a generated day as messages of topics, on a schedule or as fast as they go.
//!
//! ```text
//!  generator ─► message i ─┬─ on a schedule: sent at  start + i / rate,  whether or not anybody keeps up
//!                          └─ a backlog: at once
//! ```
//!
//! The intended time is in the header `intended`, and again in the entry's id, by which it reaches whatever
//! the engine makes of the entry, in any format. Times are microseconds of the machine's monotonic clock: the
//! processes of a measurement share it, and nobody sets it.
//!
//! Values are in Avro, their schemas registered here, or in JSON. A bad message is a spoilt copy sent after a
//! good one, so that good ones are all there.

use super::{LATE_MICROS, client, micros};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tidegate::format::avro::Encoder;
use tidegate::format::registry::{self, Schemas};
use tidegate::kafka::producer::{Message, Producer};
use tidegate::record::{Record, Text};
use tidegate_dataflows::generator::{self, Day, Input};

/// An id that holds an intended time begins like this ...
pub const MARK: &[u8] = b"at-";

/// ... and goes on with so many digits. In all it is no longer than what strings hold inline.
pub const DIGITS: usize = 20;

/// The header that holds the intended time.
const HEADER: &str = "intended";

/// What is sent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Brokers.
    pub brokers: String,
    /// The registry's address: values are in Avro; none: in JSON.
    pub registry: Option<String>,
    /// Each input with its topic.
    pub topics: Vec<(String, String)>,
    /// Equal seeds give equal records.
    pub seed: u64,
    /// Accounts.
    pub accounts: u32,
    /// Messages of every event input.
    pub records: u64,
    /// Partitions of every topic.
    pub partitions: u32,
    /// After so many messages comes a bad one; 0: never.
    pub bad_after: u64,
    /// When messages are sent; none: at once. For entries only.
    pub schedule: Option<Schedule>,
}

/// When messages are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// The first one, microseconds.
    pub start: u64,
    /// Messages a second.
    pub rate: u64,
}

impl Schedule {
    /// When a message is to be sent, microseconds.
    pub fn intended(self, number: u64) -> u64 {
        self.start + number * 1_000_000 / self.rate.max(1)
    }
}

/// What was sent.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sent {
    /// Messages, the bad ones included.
    pub messages: u64,
    /// Bad ones.
    pub bad: u64,
    /// Messages sent later than intended by more than [`LATE_MICROS`].
    pub late: u64,
    /// The greatest lateness, microseconds.
    pub latest: u64,
}

/// Sends everything.
pub fn run(plan: &Plan) -> Result<Sent, String> {
    let linger = if plan.schedule.is_some() { "0" } else { "20" };
    let properties = [
        // nobody asks for reports of deliveries one by one
        ("delivery.report.only.error", "true"),
        // as most producers do
        ("compression.codec", "lz4"),
        // what is due goes out at once; a backlog goes in few requests
        ("linger.ms", linger),
        ("batch.size", "1000000"),
    ];
    let settings = client(&plan.brokers, "load", &properties);
    let producer = Producer::without_transactions(&settings).map_err(|error| error.to_string())?;
    let mut load = Load {
        plan,
        producer,
        sent: Sent::default(),
        value: Vec::new(),
    };
    for (name, topic) in &plan.topics {
        let input = Input::ALL.into_iter().find(|input| input.name() == name);
        load.input(input.ok_or_else(|| format!("no input {name}"))?, topic)?;
    }
    load.producer
        .delivered_all()
        .map_err(|failure| format!("{failure:?}"))?;
    Ok(load.sent)
}

/// A load under way.
struct Load<'a> {
    plan: &'a Plan,
    producer: Producer,
    sent: Sent,
    value: Vec<u8>,
}

impl Load<'_> {
    fn input(&mut self, input: Input, topic: &str) -> Result<(), String> {
        let Plan {
            records, partitions, ..
        } = *self.plan;
        let day = Day {
            entries: records,
            changes: 0,
            orders: records,
            transactions: records,
            events: records,
            partitions,
            table_partitions: partitions,
            ..Day::new(self.plan.seed, self.plan.accounts)
        };
        match input {
            Input::Entries => {
                let schedule = self.plan.schedule;
                let marked = generator::entries(day).zip(0..).map(|(mut message, number)| {
                    if let (Some(schedule), Some(entry)) = (schedule, message.value.as_mut()) {
                        entry.entry_id = marked(schedule.intended(number));
                    }
                    message
                });
                self.all(topic, marked)
            }
            Input::Authorizations => self.all(topic, generator::authorizations(day)),
            Input::Settings => self.all(topic, generator::settings(day)),
            Input::Devices => self.all(topic, generator::devices(day)),
            Input::Orders => self.all(topic, generator::orders(day)),
            Input::Payments => self.all(topic, generator::payments(day)),
            Input::Transactions => self.all(topic, generator::transactions(day)),
            Input::Events => self.all(topic, generator::events(day)),
        }
    }

    fn all<R: Record>(
        &mut self,
        topic: &str,
        messages: impl Iterator<Item = generator::Message<R>>,
    ) -> Result<(), String> {
        let encoder = match &self.plan.registry {
            Some(registry) => Some(registered::<R>(registry, topic)?),
            None => None,
        };
        for (message, number) in messages.zip(0_u64..) {
            let intended = self.plan.schedule.map(|schedule| schedule.intended(number));
            self.value.clear();
            match (&message.value, &encoder) {
                (Some(value), Some(encoder)) => encoder.encode(value, &mut self.value),
                (Some(value), None) => {
                    serde_json::to_writer(&mut self.value, value).map_err(|error| error.to_string())?;
                }
                (None, _) => {}
            }
            if let Some(intended) = intended {
                self.wait_for(intended);
            }
            let text = intended.unwrap_or(0).to_string();
            let headers = [(HEADER, text.as_bytes())];
            let message = Message {
                topic,
                partition: message.partition,
                key: Some(message.key.as_bytes()),
                value: message.value.is_some().then_some(self.value.as_slice()),
                headers: if intended.is_some() { &headers } else { &[] },
            };
            send(&self.producer, &message)?;
            self.sent.messages += 1;
            if self.plan.bad_after > 0 && (number + 1) % self.plan.bad_after == 0 {
                let spoilt = spoilt(number / self.plan.bad_after, &self.value);
                let spoilt = Message {
                    value: spoilt.as_deref(),
                    ..message
                };
                send(&self.producer, &spoilt)?;
                self.sent.messages += 1;
                self.sent.bad += 1;
            }
        }
        Ok(())
    }

    /// Waits for the time to come, and notes by how much it was missed.
    fn wait_for(&mut self, intended: u64) {
        let mut now = micros();
        while now < intended {
            std::thread::sleep(Duration::from_micros(intended - now));
            now = micros();
        }
        self.sent.latest = self.sent.latest.max(now - intended);
        self.sent.late += u64::from(now - intended > LATE_MICROS);
    }
}

fn send(producer: &Producer, message: &Message<'_>) -> Result<(), String> {
    producer.send(message).map_err(|failure| format!("{failure:?}"))
}

/// The id of an entry that was to be sent then.
pub fn marked(intended: u64) -> Text {
    format!("at-{intended:0DIGITS$}").into()
}

/// The intended time that a value holds in an id.
pub fn intended_in(value: &[u8]) -> Option<u64> {
    let digits = |at: usize| value.get(at + MARK.len()..at + MARK.len() + DIGITS);
    let mut marks = value
        .windows(MARK.len())
        .enumerate()
        .filter(|(_, word)| *word == MARK);
    marks.find_map(|(at, _)| std::str::from_utf8(digits(at)?).ok()?.parse().ok())
}

/// What writes values of this type to a topic, its schema registered.
fn registered<R: Record>(registry: &str, topic: &str) -> Result<Encoder, String> {
    let schemas = Schemas::start(&registry::Settings::new(registry)).map_err(|error| error.to_string())?;
    let id = schemas.register(&format!("{topic}-value"), R::SCHEMA);
    Encoder::new(R::SCHEMA, id.map_err(|error| error.to_string())?)
}

/// One bad copy of a value after the other, in any format; none is a tombstone, which no event input may have.
fn spoilt(number: u64, value: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = value.to_vec();
    match number % 7 {
        0 => bytes.truncate(value.len() / 2),
        1 => bytes.push(b'}'),
        2 => bytes[0] = 0xff,
        // In Avro, an id that the registry does not know.
        3 => bytes[1..5].fill(0x7f),
        // In Avro, nothing but the header.
        4 => bytes.truncate(5),
        5 => bytes.clear(),
        _ => return None,
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marked_id_is_found_in_whatever_was_made_of_it() {
        let value = format!(
            "{{\"note\":\"at-home\",\"entry\":{{\"entry_id\":\"{}\"}}}}",
            marked(12_345)
        );
        assert_eq!(intended_in(value.as_bytes()), Some(12_345));
        assert_eq!(intended_in(b"{\"at\":1}"), None);
        assert_eq!(intended_in(b"at-"), None);
    }

    #[test]
    fn the_schedule_is_fixed_beforehand() {
        let schedule = Schedule {
            start: 100,
            rate: 5_000,
        };
        assert_eq!(
            [0, 1, 5_000].map(|number| schedule.intended(number)),
            [100, 300, 1_000_100]
        );
    }

    #[test]
    fn every_spoilt_value_is_refused_in_either_format() {
        use tidegate::format::{avro, json};
        use tidegate_dataflows::records::Event;
        let day = Day::new(1, 100);
        let event = generator::events(day)
            .find_map(|message| message.value)
            .expect("an event");
        let text = serde_json::to_vec(&event).expect("JSON");
        let mut binary = Vec::new();
        Encoder::new(Event::SCHEMA, 7)
            .expect("a schema")
            .encode(&event, &mut binary);
        let writer = avro::Writer::parse(Event::SCHEMA, &[]).expect("a schema");
        let reads = |value: &[u8]| {
            let known = avro::schema_id(value).is_ok_and(|id| id == 7);
            known && avro::decode::<Event>(&writer, avro::body(value)).is_ok()
        };
        assert!(json::decode_value::<Event>(&text).is_ok() && reads(&binary));
        for number in 0..7 {
            let as_text =
                spoilt(number, &text).is_some_and(|value| json::decode_value::<Event>(&value).is_ok());
            let as_binary = spoilt(number, &binary).is_some_and(|value| reads(&value));
            assert!(!as_text && !as_binary, "{number}");
        }
    }
}

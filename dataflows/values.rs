//! Values of inputs whose record type is known by name alone: for programs that write inputs.
//!
//! Everywhere else a value's type is known where it is decoded. Here a name of the contract leads to it: to the
//! time of a record, by which messages of several files are put in order, and to its encoding in Avro.

use crate::records::{
    AccountAuthorizations, AccountEntry, CustomerAlertSettings, CustomerDevices, Event, Order, Payment,
    Transaction,
};
use tidegate::format::Unreadable;
use tidegate::format::avro::Encoder;
use tidegate::format::json;
use tidegate::record::Record;
use tidegate::time::Millis;

/// Appends a value as a message in Avro.
type Encode = fn(&[u8], &Encoder, &mut Vec<u8>) -> Result<(), String>;

/// What can be done with the values of one record type, which are JSON.
#[derive(Clone, Copy, Debug)]
pub struct Values {
    event_time: fn(&str, &[u8]) -> Option<Millis>,
    encode: Encode,
}

impl Values {
    /// Those of a record of the contract.
    pub fn of(record: &str) -> Option<Values> {
        [
            of::<AccountEntry>(),
            of::<AccountAuthorizations>(),
            of::<CustomerAlertSettings>(),
            of::<CustomerDevices>(),
            of::<Order>(),
            of::<Payment>(),
            of::<Transaction>(),
            of::<Event>(),
        ]
        .into_iter()
        .find_map(|(name, values)| (name == record).then_some(values))
    }

    /// When it happened; none for rows of tables, and for what is no valid record under this key: only valid ones
    /// have a time that means anything.
    pub fn event_time(&self, key: &str, value: &[u8]) -> Option<Millis> {
        (self.event_time)(key, value)
    }

    /// Appends it as a message in Avro. The error says why it is no such record.
    pub fn encode(&self, value: &[u8], encoder: &Encoder, message: &mut Vec<u8>) -> Result<(), String> {
        (self.encode)(value, encoder, message)
    }
}

fn of<R: Record>() -> (&'static str, Values) {
    let event_time = |key: &str, value: &[u8]| {
        let record = json::decode_value::<R>(value).ok()?;
        record.check(key).ok()?;
        record.event_time()
    };
    let encode = |value: &[u8], encoder: &Encoder, message: &mut Vec<u8>| match json::decode_value::<R>(value)
    {
        Ok(record) => {
            encoder.encode(&record, message);
            Ok(())
        }
        Err(Unreadable::Undecodable(error) | Unreadable::Invalid(error)) => Err(error),
    };
    (R::NAME, Values { event_time, encode })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Dataflow;
    use tidegate::format::avro::{Writer, body, decode, schema_id};

    #[test]
    fn every_input_has_values() {
        for input in Dataflow::ALL.into_iter().flat_map(Dataflow::inputs) {
            assert!(Values::of(input.record).is_some(), "{}", input.record);
        }
        assert!(Values::of("DeadLetter").is_none());
    }

    #[test]
    fn a_value_has_its_time_and_its_avro() {
        let values = Values::of("Event").expect("events are known");
        let value = br#"{"event_id":"e","occurred_at":7,"more":[1.5]}"#;
        assert_eq!(values.event_time("k", value), Some(7));
        assert_eq!(values.event_time("k", b"{}"), None);
        let never = br#"{"event_id":"e","occurred_at":9223372036854775807}"#;
        assert_eq!(values.event_time("k", never), None);
        let encoder = Encoder::new(Event::SCHEMA, 3).expect("the schema parses");
        let mut message = Vec::new();
        values.encode(value, &encoder, &mut message).expect("an event");
        assert_eq!(schema_id(&message), Ok(3));
        let writer = Writer::parse(Event::SCHEMA, &[]).expect("the schema parses");
        let read: Event = decode(&writer, body(&message)).expect("an event");
        assert_eq!((read.event_id.as_str(), read.occurred_at), ("e", 7));
        let refused = values.encode(br#"{"event_id":"e"}"#, &encoder, &mut Vec::new());
        assert!(refused.is_err_and(|error| error.contains("occurred_at")));
    }
}

//! A writer's schema, a line feed, a body: whatever they are, nothing panics, and what is accepted comes back as
//! itself by the record's own schema.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::format::avro::{Encoder, Writer, body, decode};
use tidegate::record::Record;
use tidegate_dataflows::records::{AccountEntry, CustomerAlertSettings, CustomerDevices};

fn check<R: Record>(writer: &Writer, bytes: &[u8]) {
    let Ok(record) = decode::<R>(writer, bytes) else {
        return;
    };
    let mut message = Vec::new();
    Encoder::new(R::SCHEMA, 1).expect("a schema").encode(&record, &mut message);
    let own = Writer::parse(R::SCHEMA, &[]).expect("a schema");
    assert_eq!(decode::<R>(&own, body(&message)), Ok(record));
}

fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let Ok(schema) = std::str::from_utf8(&data[..end]) else {
        return;
    };
    let Ok(writer) = Writer::parse(schema, &[]) else {
        return;
    };
    let bytes = data.get(end + 1..).unwrap_or_default();
    check::<AccountEntry>(&writer, bytes);
    check::<CustomerAlertSettings>(&writer, bytes);
    check::<CustomerDevices>(&writer, bytes);
});

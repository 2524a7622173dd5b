//! A whole message of a topic, header and body, by schemas of the contract and by evolved ones.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use tidegate::format::avro::{Encoder, Writer, body, decode, schema_id};
use tidegate::record::Record;
use tidegate_dataflows::records::{AccountEntry, CustomerAlertSettings, Transaction};

/// An entry by another team: in another order, with fields that nobody here knows, narrower and nullable types.
const EVOLVED: &str = r#"{"type":"record","name":"E","fields":[
    {"name":"tags","type":{"type":"map","values":["null",{"type":"array","items":"double"}]}},
    {"name":"amount","type":"int"},
    {"name":"direction","type":{"type":"enum","name":"D","symbols":["CREDIT","NONE","DEBIT"]}},
    {"name":"chain","type":{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}},
    {"name":"booked_at","type":["long","null"]},
    {"name":"account_id","type":"bytes"},
    {"name":"nothing","type":{"type":"array","items":"null"}},
    {"name":"entry_id","type":"string"},
    {"name":"currency","type":"string"},
    {"name":"balance_after","type":"long"}]}"#;

static WRITERS: LazyLock<Vec<Writer>> = LazyLock::new(|| {
    let schemas = [AccountEntry::SCHEMA, CustomerAlertSettings::SCHEMA, Transaction::SCHEMA, EVOLVED];
    let parse = |schema: &str| Writer::parse(schema, &[]).expect("a schema");
    schemas.map(parse).into()
});

fn check<R: Record>(writer: &Writer, bytes: &[u8]) {
    let Ok(record) = decode::<R>(writer, bytes) else {
        return;
    };
    let mut message = Vec::new();
    Encoder::new(R::SCHEMA, 0).expect("a schema").encode(&record, &mut message);
    let own = Writer::parse(R::SCHEMA, &[]).expect("a schema");
    assert_eq!(decode::<R>(&own, body(&message)), Ok(record));
}

fuzz_target!(|message: &[u8]| {
    let Ok(id) = schema_id(message) else {
        return;
    };
    let Some(writer) = WRITERS.get(id as usize % 8) else {
        return; // an id that the registry does not know
    };
    check::<AccountEntry>(writer, body(message));
    check::<CustomerAlertSettings>(writer, body(message));
    check::<Transaction>(writer, body(message));
});

//! What is written: it reads again as itself, here and by Apache's library, and what does not fit is named.

use super::encode::write;
use super::model::limit_allocation;
use super::schema::Schema;
use super::tests::{n, of, s};
use super::{Encoder, Writer, body, decode, schema_id};
use crate::format::strict::tests::{Color, Part, Reading};
use crate::record::{DeadLetter, DeadLetterReason, Output, Record};
use serde::Serialize;

/// What is written with a type's own schema reads again as itself.
fn read_again<R: Record>(record: &R) -> Vec<u8> {
    let encoder = Encoder::new(R::SCHEMA, 0x0102_0304).expect("a schema");
    let mut message = b"before".to_vec();
    encoder.encode(record, &mut message);
    let message = message.strip_prefix(b"before").expect("appended").to_vec();
    assert_eq!(schema_id(&message), Ok(0x0102_0304));
    let writer = Writer::parse(R::SCHEMA, &[]).expect("a schema");
    assert_eq!(decode::<R>(&writer, body(&message)).as_ref(), Ok(record));
    message
}

#[test]
fn what_is_written_reads_again() {
    let mut reading = Reading {
        id: "k".into(),
        at: 5,
        level: -7,
        unit: None,
        color: Color::Red,
        parts: vec![],
    };
    let bytes = read_again(&reading);
    assert_eq!(body(&bytes), of([s("k"), n(5), n(-7), n(0), n(0), n(0)]));
    reading.unit = Some("x".repeat(300).into());
    reading.color = Color::Blue;
    for weight in [None, Some(i64::MIN), Some(i64::MAX), Some(64), Some(-65)] {
        reading.parts.push(Part {
            r#type: Color::Blue,
            weight,
        });
        read_again(&reading);
    }
}

#[test]
fn dead_letters_hold_bytes() {
    let letter = DeadLetter {
        input: "entries".into(),
        partition: 7,
        offset: 1 << 40,
        key: Some([0, 255].into()),
        value: None,
        reason: DeadLetterReason::Invalid,
        error: "so".to_owned(),
        dataflow: None,
        event_time: None,
        watermark: Some(-5),
    };
    let mut message = Vec::new();
    Encoder::new(DeadLetter::SCHEMA, 1)
        .expect("a schema")
        .encode(&letter, &mut message);
    let expected = [
        of([s("entries"), n(7), n(1 << 40), n(1), s([0, 255]), n(0)]),
        of([n(1), s("so"), n(0), n(0), n(1), n(-5)]),
    ];
    assert_eq!(body(&message), expected.concat());
    let row = postcard::to_allocvec(&letter).expect("rows serialize");
    assert_eq!(postcard::from_bytes::<DeadLetter>(&row), Ok(letter.clone()));
    limit_allocation();
    let schema = apache_avro::Schema::parse_str(DeadLetter::SCHEMA).expect("Avro");
    let value = apache_avro::from_avro_datum(&schema, &mut body(&message), None).expect("a dead letter");
    assert_eq!(
        apache_avro::from_value::<DeadLetter>(&value)
            .expect("its fields")
            .error,
        letter.error
    );
}

#[test]
fn what_does_not_fit_its_schema_is_named() {
    #[derive(Serialize)]
    struct Pair {
        a: i64,
        b: Option<i64>,
    }
    const LONG: &str = r#"{"name":"a","type":"long"}"#;
    const OPTION: &str = r#"{"name":"b","type":["null","long"]}"#;
    let field = |kind: &str| format!(r#"{{"name":"a","type":"{kind}"}}"#);
    for (fields, wrong) in [
        (format!("{OPTION},{LONG}"), "'a' is not the schema's next field"),
        (LONG.to_owned(), "'b' is not the schema's next field"),
        (field("int"), "4294967296 does not fit the schema's int"),
        (field("string"), "4294967296 does not fit the schema's string"),
        (
            format!("{LONG},{}", LONG.replace("\"a\"", "\"b\"")),
            "an option does not fit the schema's long",
        ),
        (
            format!("{LONG},{OPTION},{}", LONG.replace("\"a\"", "\"c\"")),
            "nothing was given for 'c'",
        ),
    ] {
        let schema = format!(r#"{{"type":"record","name":"X","fields":[{fields}]}}"#);
        let schema = Schema::parse(&schema).expect("a schema");
        let pair = Pair { a: 1 << 32, b: None };
        let error = write(&schema, &pair, &mut Vec::new()).expect_err(wrong);
        assert_eq!(error.0, wrong);
    }
}

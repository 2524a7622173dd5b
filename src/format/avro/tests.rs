//! Avro values, as tables: a writer's schema and a body in, what becomes of it out. Records of the contract
//! are tested beside their definitions; `model` holds this decoder to a slow one.

use super::{Unreadable, Writer, body, decode, schema_id};
use crate::format::strict::tests::{Color, Reading};
use crate::record::Record;

/// An integer as the format writes it.
pub(super) fn n(value: i64) -> Vec<u8> {
    let mut out = Vec::new();
    super::encode::write_long(value, &mut out);
    out
}

/// A string or bytes.
pub(super) fn s(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [n(text.len() as i64), text.to_vec()].concat()
}

/// A body of these parts.
pub(super) fn of<const COUNT: usize>(parts: [Vec<u8>; COUNT]) -> Vec<u8> {
    parts.concat()
}

/// What becomes of a body: one text, so that the tables below can be read.
pub(super) fn outcome<R: Record>(writer: &str, bytes: &[u8]) -> String {
    let writer = Writer::parse(writer, &[]).expect("a writer's schema");
    match decode::<R>(&writer, bytes) {
        Ok(record) => serde_json::to_string(&record).expect("records are JSON"),
        Err(Unreadable::Undecodable(error)) => format!("UNDECODABLE {error}"),
        Err(Unreadable::Invalid(error)) => format!("INVALID {error}"),
    }
}

/// The body must have exactly this outcome, or one that starts so where `expected` ends in "...".
#[track_caller]
fn check(writer: &str, bytes: Vec<u8>, expected: &str) {
    let outcome = outcome::<Reading>(writer, &bytes);
    let is_expected = match expected.strip_suffix("...") {
        Some(start) => outcome.starts_with(start),
        None => outcome == expected,
    };
    assert!(
        is_expected,
        "{}\n  gave {outcome}\n  not  {expected}",
        bytes.escape_ascii()
    );
}

/// A writer's record with these fields in the place of the reader's.
fn writer(fields: &str) -> String {
    format!(r#"{{"type":"record","name":"any.Where","fields":[{fields}]}}"#)
}

const ID: &str = r#"{"name":"id","type":"string"}"#;
const AT: &str = r#"{"name":"at","type":"long"}"#;
const LEVEL: &str = r#"{"name":"level","type":"long"}"#;
const COLOR: &str = r#"{"name":"color","type":{"type":"enum","name":"C","symbols":["RED","BLUE"]}}"#;
const PARTS: &str = r#"{"name":"parts","type":{"type":"array","items":{"type":"record","name":"P","fields":[
    {"name":"type","type":"C"}]}}}"#;

/// All fields that must be there.
fn plain() -> String {
    writer(&[ID, AT, LEVEL, COLOR, PARTS].join(","))
}

/// The plain record, with another type in the place of a field's.
fn typed(field: &str, kind: &str) -> String {
    let plain = [ID, AT, LEVEL, COLOR, PARTS].map(|of| {
        let name = format!(r#"{{"name":"{field}","#);
        if of.starts_with(&name) {
            format!(r#"{name}"type":{kind}}}"#)
        } else {
            of.to_owned()
        }
    });
    writer(&plain.join(","))
}

const NONE: &str = r#"{"id":"k","at":5,"level":-7,"unit":null,"color":"RED","parts":[]}"#;

fn none() -> Vec<u8> {
    of([s("k"), n(5), n(-7), n(0), n(0)])
}

#[test]
fn the_wire_header_is_a_zero_and_an_id() {
    assert_eq!(schema_id(&[0, 1, 2, 3, 4]), Ok(0x0102_0304));
    assert_eq!(schema_id(&[0, 255, 255, 255, 255, 9]), Ok(u32::MAX));
    assert_eq!(body(&[0, 1, 2, 3, 4, 9]), [9]);
    for bad in [
        &[][..],
        &[0],
        &[0, 1, 2, 3],
        &[1, 0, 0, 0, 1],
        b"{}",
        b"{\"id\":1}",
    ] {
        assert!(schema_id(bad).is_err(), "{}", bad.escape_ascii());
    }
    assert!(body(&[0, 1]).is_empty());
}

#[test]
fn the_own_schema_reads_all_fields() {
    let parts = of([n(2), n(1), n(0), n(0), n(1), n(9), n(0)]);
    let bytes = of([s("k"), n(i64::MAX), n(i64::MIN), n(1), s("m\u{e9}"), n(1), parts]);
    check(
        Reading::SCHEMA,
        bytes,
        concat!(
            r#"{"id":"k","at":9223372036854775807,"level":-9223372036854775808,"unit":"mé","color":"BLUE","#,
            r#""parts":[{"type":"BLUE","weight":null},{"type":"RED","weight":9}]}"#
        ),
    );
}

#[test]
fn fields_may_be_added_missing_and_in_another_order() {
    check(&plain(), none(), NONE);
    // Added: of every type, before, between and after the others.
    let added = r#"{"name":"x","type":{"type":"map","values":["null",{"type":"array","items":"double"}]}}"#;
    let fixed = r#"{"name":"y","type":{"type":"fixed","name":"F","size":3}}"#;
    let list =
        r#"{"name":"z","type":{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}}"#;
    let fields = [added, ID, AT, fixed, LEVEL, COLOR, PARTS, list].join(",");
    let map = of([n(1), s("a"), n(1), n(-1), n(8), vec![0; 8], n(0), n(0)]);
    let bytes = of([
        map,
        s("k"),
        n(5),
        vec![1, 2, 3],
        n(-7),
        n(0),
        n(0),
        n(1),
        n(1),
        n(0),
    ]);
    check(&writer(&fields), bytes, NONE);
    // In another order, without and with the nullable one.
    let fields = [
        PARTS
            .replace("\"C\"", r#"{"type":"enum","name":"D","symbols":["RED"]}"#)
            .as_str(),
        COLOR,
        LEVEL,
        AT,
        ID,
    ]
    .join(",");
    check(&writer(&fields), of([n(0), n(0), n(-7), n(5), s("k")]), NONE);
    let unit = r#"{"name":"unit","type":"string"}"#;
    let bytes = of([s("K"), n(0), n(-7), n(5), s("k"), n(0)]);
    let fields = [unit, COLOR, LEVEL, AT, ID, PARTS].join(",");
    check(&writer(&fields), bytes, &NONE.replace("null", "\"K\""));
    // Missing, where it must be there.
    check(
        &writer(&[ID, AT, COLOR, PARTS].join(",")),
        of([s("k"), n(5), n(0), n(0)]),
        "INVALID Reading.level: missing",
    );
}

#[test]
fn aliases_of_the_reader_are_names_of_the_writer() {
    let named = |id: &str| writer(&[ID, AT, LEVEL, COLOR, PARTS].join(",").replacen("\"id\"", id, 1));
    check(&named("\"name\""), none(), NONE);
    check(&named("\"label\""), none(), "INVALID Reading.id: missing");
    // Where both are there the name itself wins.
    let both = [r#"{"name":"name","type":"string"}"#, ID, AT, LEVEL, COLOR, PARTS].join(",");
    check(&writer(&both), of([s("other"), none()]), NONE);
}

#[test]
fn types_widen_and_do_not_narrow() {
    check(&typed("level", "\"int\""), none(), NONE);
    check(
        &typed("level", r#"{"type":"long","logicalType":"timestamp-millis"}"#),
        none(),
        NONE,
    );
    check(&typed("id", "\"bytes\""), none(), NONE);
    check(
        &typed("level", r#"["string","int"]"#),
        of([s("k"), n(5), n(1), n(-7), n(0), n(0)]),
        NONE,
    );
    let bytes = of([s("k"), n(5), n(0), s("-7"), n(0), n(0)]);
    check(
        &typed("level", r#"["string","int"]"#),
        bytes,
        "INVALID Reading.level: the writer's type is string, expected long",
    );
    let double = of([s("k"), n(5), vec![0; 8], n(0), n(0)]);
    check(
        &typed("level", "\"double\""),
        double,
        "INVALID Reading.level: the writer's type is double...",
    );
    let number = of([n(7), n(5), n(-7), n(0), n(0)]);
    check(
        &typed("id", "\"long\""),
        number,
        "INVALID Reading.id: the writer's type is long, expected string",
    );
    let bytes = of([s([0xff]), n(5), n(-7), n(0), n(0)]);
    check(
        &typed("id", "\"bytes\""),
        bytes,
        "INVALID Reading.id: invalid utf-8...",
    );
    check(
        &typed("parts", "\"null\""),
        of([s("k"), n(5), n(-7), n(0)]),
        "INVALID Reading.parts: the writer's type is null...",
    );
    // What is never there does no harm.
    let parts = r#"{"type":"array","items":"string"}"#;
    check(&typed("parts", parts), none(), NONE);
    let bytes = of([s("k"), n(5), n(-7), n(0), n(1), s("x"), n(0)]);
    check(
        &typed("parts", parts),
        bytes,
        "INVALID Reading.parts: the writer's type is string, expected record",
    );
}

#[test]
fn symbols_are_matched_by_name() {
    let symbols = r#"{"type":"enum","name":"C","symbols":["BLUE","GREEN","RED"]}"#;
    let with = |symbol| of([s("k"), n(5), n(-7), n(symbol), n(0)]);
    check(&typed("color", symbols), with(2), NONE);
    check(&typed("color", symbols), with(0), &NONE.replace("RED", "BLUE"));
    check(
        &typed("color", symbols),
        with(1),
        "INVALID Reading.color: unknown symbol GREEN",
    );
    check(&typed("color", symbols), with(3), "UNDECODABLE number 3 of 3...");
    check(
        &typed("color", symbols),
        with(-1),
        "UNDECODABLE number -1 of 3...",
    );
}

#[test]
fn what_does_not_parse_is_undecodable() {
    let whole = of([
        s("k"),
        n(5),
        n(-7),
        n(1),
        s("m"),
        n(0),
        n(1),
        n(0),
        n(1),
        n(300),
        n(0),
    ]);
    check(Reading::SCHEMA, whole.clone(), r#"{"id":"k",..."#);
    for end in 0..whole.len() {
        check(Reading::SCHEMA, whole[..end].to_vec(), "UNDECODABLE ...");
    }
    check(
        Reading::SCHEMA,
        of([whole.clone(), n(0)]),
        "UNDECODABLE 1 bytes after the value",
    );
    check(Reading::SCHEMA, vec![], "UNDECODABLE cut off...");
    check(
        &plain(),
        of([s([0xc3]), n(5), n(-7), n(0), n(0)]),
        "UNDECODABLE incomplete utf-8...",
    );
    check(
        &plain(),
        of([n(-1), n(5), n(-7), n(0), n(0)]),
        "UNDECODABLE the length -1...",
    );
    check(
        &plain(),
        of([n(i64::MAX), n(5)]),
        "UNDECODABLE cut off: 9223372036854775807 bytes wanted...",
    );
    let long = [vec![0xff; 9], vec![2]].concat();
    check(
        &plain(),
        of([s("k"), long, n(-7), n(0), n(0)]),
        "UNDECODABLE an integer of more than 64 bits...",
    );
    check(
        &typed("at", "\"int\""),
        of([s("k"), n(1 << 31), n(-7), n(0), n(0)]),
        "UNDECODABLE the int 2147483648...",
    );
    let flag = [r#"{"name":"x","type":"boolean"}"#, ID, AT, LEVEL, COLOR, PARTS].join(",");
    check(
        &writer(&flag),
        of([vec![2], none()]),
        "UNDECODABLE the boolean 2 (byte 1 of the body)",
    );
    // Also in what is passed over, and after what is wrong.
    let text = [r#"{"name":"x","type":"string"}"#, ID, AT, LEVEL, COLOR, PARTS].join(",");
    check(
        &writer(&text),
        of([s([0xff]), none()]),
        "UNDECODABLE invalid utf-8...",
    );
    let missing = writer(&[ID, AT].join(","));
    check(&missing, of([s("k"), n(5)]), "INVALID Reading.level: missing");
    check(
        &missing,
        of([s("k"), n(5), n(5)]),
        "UNDECODABLE 1 bytes after the value",
    );
    check(&missing, s("k"), "UNDECODABLE cut off...");
}

#[test]
fn counts_are_not_believed() {
    let parts = |items: Vec<u8>| of([s("k"), n(5), n(-7), n(0), items]);
    // Each part takes a byte.
    check(
        &plain(),
        parts(of([n(4), n(0), n(1), n(0)])),
        "UNDECODABLE a block of 4 items...",
    );
    check(&plain(), parts(of([n(2), n(0), n(1), n(0)])), r#"{"id":"k"..."#);
    check(
        &plain(),
        parts(of([n(-2), n(99), n(0), n(1), n(0)])),
        r#"{"id":"k"..."#,
    );
    for count in [1 << 20, i64::MAX, i64::MIN, -1 << 40] {
        check(
            &plain(),
            parts(of([n(count), n(0), n(0), n(0)])),
            "UNDECODABLE a block of ...",
        );
        let map = r#"{"type":"map","values":"null"}"#;
        check(
            &typed("parts", map),
            parts(of([n(count), n(0), n(0)])),
            "UNDECODABLE a block of ...",
        );
    }
    // Items that take no bytes: at most as many as the body has bytes, wanted or not, in blocks or in one.
    let empty =
        r#"{"type":"array","items":{"type":"record","name":"N","fields":[{"name":"x","type":"null"}]}}"#;
    let nothing = parts(of([n(6), n(0)]));
    assert_eq!(nothing.len(), 7);
    check(
        &typed("parts", empty),
        nothing,
        "INVALID Reading.parts.type: missing",
    );
    check(
        &typed("parts", empty),
        parts(of([n(8), n(0)])),
        "UNDECODABLE a block of 8 items...",
    );
    check(
        &typed("parts", empty),
        parts(of([n(5), n(5), n(0)])),
        "UNDECODABLE a block of 5 items...",
    );
    let added = format!(r#"{ID},{AT},{LEVEL},{COLOR},{PARTS},{{"name":"x","type":{empty}}}"#);
    check(
        &writer(&added),
        of([none(), n(i64::MAX), n(0)]),
        "UNDECODABLE a block of ...",
    );
}

#[test]
fn deep_values_cost_no_stack() {
    // A list in a field that nobody wants, a million deep.
    let list =
        r#"{"name":"x","type":{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}}"#;
    let fields = [list, ID, AT, LEVEL, COLOR, PARTS].join(",");
    check(&writer(&fields), of([n(1).repeat(1_000_000), n(0), none()]), NONE);
    // Types that double what they hold, and hold nothing: passed over at once.
    let mut nothing = r#"{"type":"record","name":"N0","fields":[]}"#.to_owned();
    for depth in 1..40 {
        let fields = format!(
            r#"{{"name":"a","type":{nothing}}},{{"name":"b","type":"N{}"}}"#,
            depth - 1
        );
        nothing = format!(r#"{{"type":"record","name":"N{depth}","fields":[{fields}]}}"#);
    }
    let fields = format!(r#"{{"name":"x","type":{nothing}}},{ID},{AT},{LEVEL},{COLOR},{PARTS}"#);
    let parsed = Writer::parse(&writer(&fields), &[]);
    match parsed {
        Ok(_) => check(&writer(&fields), none(), NONE),
        Err(error) => assert!(error.contains("recursion limit"), "{error}"),
    }
}

#[test]
fn schemas_that_nothing_can_be_decoded_by_are_refused() {
    for (schema, wrong) in [
        ("", "nothing defines the type ''"),
        ("{", "not JSON"),
        ("7", "nothing defines the type '7'"),
        ("[7]", "7 is no type"),
        ("\"strnig\"", "nothing defines the type 'strnig'"),
        (r#"{"name":"X"}"#, "a type without \"type\""),
        (r#"{"type":"array"}"#, "an array without \"items\""),
        (r#"{"type":"record","fields":[]}"#, "a record without a name"),
        (r#"{"type":"record","name":"X"}"#, "'X' has no fields"),
        (r#"{"type":"fixed","name":"X","size":-1}"#, "'X' has no size"),
        (
            r#"{"type":"enum","name":"X","symbols":[1]}"#,
            "is no list of strings",
        ),
        (r#"["null",["int"]]"#, "a union in a union"),
        (
            r#"{"type":"record","name":"X","fields":[{"name":"a","type":"X"}]}"#,
            "record has no finite value",
        ),
        (
            r#"[{"type":"fixed","name":"a.X","size":1},{"type":"fixed","name":"X","namespace":"a","size":1}]"#,
            "'a.X' is defined twice",
        ),
        (
            r#"{"type":"record","name":"X","fields":[{"name":"a","type":"int"},{"name":"a","type":"int"}]}"#,
            "'X.a' is defined twice",
        ),
    ] {
        let error = Writer::parse(schema, &[]).map(|_| ()).expect_err(schema);
        assert!(error.contains(wrong), "{schema}: {error}");
    }
    let many = format!("[{}\"int\"]", "\"int\",".repeat(10_000));
    assert_eq!(
        Writer::parse(&many, &[]).map(|_| ()),
        Err("more than 10000 types".to_owned())
    );
}

#[test]
fn names_may_stand_in_other_schemas() {
    let color = r#"{"type":"enum","name":"C","namespace":"any","symbols":["RED","BLUE"]}"#.to_owned();
    let fields = [ID, AT, LEVEL, r#"{"name":"color","type":"C"}"#, PARTS].join(",");
    assert!(Writer::parse(&writer(&fields), &[]).is_err());
    let writer = Writer::parse(&writer(&fields), &[color]).expect("its names are defined");
    let reading = decode::<Reading>(&writer, &none()).expect("a reading");
    assert_eq!((reading.color, reading.at), (Color::Red, 5));
}

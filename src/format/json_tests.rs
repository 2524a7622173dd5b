//! JSON lines, as a table: a line in, what becomes of it out. The record types here are small; those of the
//! contract are tested beside their definitions.

use super::{Message, Rejected, decode_line, raw_value, write_line};
use crate::format::strict::tests::Reading;
use crate::record::{DeadLetter, DeadLetterReason, Output, Rank};

/// What becomes of a line: one text, so that the tables below can be read.
fn outcome(line: &[u8], is_table: bool) -> String {
    match decode_line::<Reading>(line, is_table) {
        Ok(Message {
            key,
            value: None,
            timestamp,
        }) => format!("tombstone {key} {timestamp:?}"),
        Ok(Message {
            key,
            value: Some(reading),
            timestamp,
        }) => {
            let Reading {
                id,
                at,
                level,
                unit,
                color,
                parts,
            } = reading;
            let parts: Vec<_> = parts.iter().map(|part| part.r#type.symbol()).collect();
            format!(
                "{key} {timestamp:?}: {id} {at} {level} {unit:?} {} {parts:?}",
                color.symbol()
            )
        }
        Err(Rejected::Undecodable { error }) => format!("UNDECODABLE {error}"),
        Err(Rejected::Invalid { key, value, error }) => {
            let text = |bytes: Option<Box<[u8]>>| {
                bytes.map_or("none".to_owned(), |bytes| {
                    String::from_utf8_lossy(&bytes).into_owned()
                })
            };
            format!("INVALID {} {} {error}", text(key), text(value))
        }
    }
}

/// A table's line must have exactly this outcome, or one that starts so where `expected` ends in "...".
#[track_caller]
pub(crate) fn check(line: impl AsRef<[u8]>, expected: &str) {
    let outcome = outcome(line.as_ref(), true);
    let matches = match expected.strip_suffix("...") {
        Some(start) => outcome.starts_with(start),
        None => outcome == expected,
    };
    let line = String::from_utf8_lossy(line.as_ref());
    assert!(
        matches,
        "{}\n  gave {outcome}\n  not  {expected}",
        line.chars().take(300).collect::<String>()
    );
}

/// A line whose value is the plain reading with `fields` put in front.
pub(crate) fn with(fields: &str) -> String {
    format!(r#"{{"key":"k","value":{{{fields}"id":"k","at":5,"level":-7,"color":"RED","parts":[]}}}}"#)
}

/// A line whose value is a reading with this field as given instead of as it should be.
pub(crate) fn but(field: &str, given: &str) -> String {
    let fields = [
        ("id", "\"k\""),
        ("at", "5"),
        ("level", "-7"),
        ("color", "\"RED\""),
        ("parts", "[]"),
    ];
    let fields: Vec<String> = fields
        .iter()
        .map(|&(name, value)| format!("\"{name}\":{}", if name == field { given } else { value }))
        .collect();
    format!(r#"{{"key":"k","value":{{{}}}}}"#, fields.join(","))
}

pub(crate) const PLAIN: &str = "k None: k 5 -7 None RED []";

#[test]
fn accepted() {
    check(with(""), PLAIN);
    check(format!(" \t{} \r", with("")), PLAIN);
    check(with(r#""unit":"cm","#), r#"k None: k 5 -7 Some("cm") RED []"#);
    check(with(r#""unit":null,"#), PLAIN);
    check(
        but("parts", r#"[{"type":"RED"},{"type":"BLUE","weight":3}]"#),
        r#"k None: k 5 -7 None RED ["RED", "BLUE"]"#,
    );
    check(
        but("at", "253402300799999"),
        "k None: k 253402300799999 -7 None RED []",
    );
    check(
        but("level", "9223372036854775807"),
        "k None: k 5 9223372036854775807 None RED []",
    );
    check(
        but("level", "-9223372036854775808"),
        "k None: k 5 -9223372036854775808 None RED []",
    );
    // -0 is written as an integer. A string that holds one is left alone.
    check(but("level", "-0"), "k None: k 5 0 None RED []");
    check(
        with(r#""unit":"\"-0 -0","x":[-0],"y":1e-0,"z":-0.5,"#),
        r#"k None: k 5 -7 Some("\"-0 -0") RED []"#,
    );
    check(
        r#"{"value":{"unit":"\"-0","parts":[],"color":"BLUE","level":-0 ,"at":0,"id":"k"},"key":"k"}"#,
        r#"k None: k 0 0 Some("\"-0") BLUE []"#,
    );
    check(r#"{"key":"k","value":null}"#, "tombstone k None");
    check(r#"{"value":null,"timestamp":9,"key":""}"#, "tombstone  Some(9)");
}

#[test]
fn escapes() {
    check(
        with("").replace(r#""k""#, r#""\u00e9\ud83d\ude00\n\u0000""#),
        "é😀\n\0 None: é😀\n\0 5 -7 None RED []",
    );
    check(
        with("")
            .replace("\"key\"", r#""\u006bey""#)
            .replace("\"id\"", r#""\u0069d""#),
        PLAIN,
    );
    check(with("").replace("\"RED\"", r#""\u0052ED""#), PLAIN);
    check(
        r#"{"key":"\u00e9","value":5}"#,
        "INVALID é 5 Reading: invalid type: integer `5`, ...",
    );
    // Half a pair is no character.
    check(r#"{"key":"\ud83d","value":null}"#, "UNDECODABLE ...");
    check(r#"{"key":"\ude00\ud83d","value":null}"#, "UNDECODABLE ...");
    check(r#"{"key":"k","value":null,"\ud83d":1}"#, "UNDECODABLE ...");
    check(with(r#""unit":"\ud83dx","#), "INVALID k ...");
    check(with(r#""\ud83d":1,"#), "INVALID k ...");
    check(with(r#""x":{"\ud83d":"\ud83d"},"#), PLAIN);
    check(r#"{"key":"k","value":null,"x":"\ud83d"}"#, "tombstone k None");
    check(r#"{"key":"k","value":null,"x":"\u12g4"}"#, "UNDECODABLE ...");
    check(r#"{"key":"k","value":null,"x":"\x"}"#, "UNDECODABLE ...");
}

#[test]
fn undecodable() {
    let good = with("");
    check("", "UNDECODABLE not a JSON object");
    check("  ", "UNDECODABLE not a JSON object");
    check("null", "UNDECODABLE not a JSON object");
    check(format!("[{good}]"), "UNDECODABLE not a JSON object");
    check(r#"["k",{"id":"k"}]"#, "UNDECODABLE not a JSON object");
    check(format!("\u{feff}{good}"), "UNDECODABLE not a JSON object");
    check(format!("{good}{good}"), "UNDECODABLE trailing characters...");
    check(format!("{good},"), "UNDECODABLE trailing characters...");
    check(format!("{good}\0"), "UNDECODABLE trailing characters...");
    check("{}", "UNDECODABLE missing field `key`...");
    check(r#"{"value":null}"#, "UNDECODABLE missing field `key`...");
    check(r#"{"key":"k"}"#, "UNDECODABLE missing field `value`...");
    check(r#"{"key":null}"#, "UNDECODABLE missing field `value`...");
    check(
        r#"{"key":"k","value":null,"value":null}"#,
        "UNDECODABLE duplicate field `value`...",
    );
    check(
        r#"{"key":"k","key":"k","value":null}"#,
        "UNDECODABLE duplicate field `key`...",
    );
    check(
        r#"{"key":"k","\u006bey":"k","value":null}"#,
        "UNDECODABLE duplicate field `key`...",
    );
    for key in ["1", "true", "{}", "[\"k\"]", "[]"] {
        check(
            format!(r#"{{"key":{key},"value":null}}"#),
            "UNDECODABLE invalid type: ...",
        );
    }
    for value in [
        "",
        "01",
        "+1",
        "1.",
        ".5",
        "1e",
        "-",
        "NaN",
        "Infinity",
        "nul",
        "'x'",
        "{,}",
        "[1,]",
        "{\"a\":1,}",
        "{\"a\"}",
    ] {
        check(format!(r#"{{"key":"k","value":{value}}}"#), "UNDECODABLE ...");
        check(with(&format!("\"x\":{value},")), "UNDECODABLE ...");
    }
    // NUL and other control characters, outside strings and raw in them.
    for control in ["\0", "\t", "\u{1f}"] {
        check(
            format!(r#"{{"key":"k{control}","value":null}}"#),
            "UNDECODABLE control character...",
        );
        check(
            format!(r#"{{"key":"k","value":null,"x{control}":0}}"#),
            "UNDECODABLE control character...",
        );
        check(
            format!(r#"{{"key":"k","value":null,"x":"{control}"}}"#),
            "UNDECODABLE control character...",
        );
    }
    check("{\"key\":\"k\",\0\"value\":null}", "UNDECODABLE ...");
    check([0; 100], "UNDECODABLE not a JSON object");
    // Nested too deep to be finished, or in the key.
    check(
        format!(r#"{{"key":"k","value":{}"#, "[".repeat(100_000)),
        "UNDECODABLE EOF...",
    );
    check(
        format!(
            r#"{{"key":{}{},"value":null}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        ),
        "UNDECODABLE ...",
    );
}

#[test]
fn every_truncation_is_undecodable() {
    let line = with(r#""unit":"é","parts":5,"x":{"y":[1,2]},"#);
    check(&line, "INVALID ...");
    for end in 0..line.len() {
        check(&line.as_bytes()[..end], "UNDECODABLE ...");
    }
}

#[test]
fn bad_utf8_is_undecodable_wherever_it_stands() {
    for template in [
        r#"{"key":"@","value":null}"#,
        r#"{"key":"k","value":null,"x":"@"}"#,
        r#"{"key":"k","value":null,"@":0}"#,
        r#"{"key":"k","value":{"id":"@"}}"#,
        r#"{"key":"k","value":{"x":["@"]}}"#,
        r#"{"key":"k","value":null}@"#,
    ] {
        // A stray continuation byte, a cut sequence, an overlong one, half a surrogate pair, above U+10FFFF,
        // never valid.
        let sequences: [&[u8]; 6] = [
            b"\x80",
            b"\xc3",
            b"\xc0\x80",
            b"\xed\xa0\x80",
            b"\xf4\x90\x80\x80",
            b"\xff",
        ];
        for sequence in sequences {
            let at = template.find('@').expect("a place");
            let line = [
                &template.as_bytes()[..at],
                sequence,
                &template.as_bytes()[at + 1..],
            ]
            .concat();
            check(&line, "UNDECODABLE in...");
            assert_eq!(raw_value(&line), None);
        }
    }
}

#[test]
fn invalid() {
    // The envelope.
    check(
        r#"{"key":null,"value":{"id": 5} }"#,
        r#"INVALID none {"id": 5} key: null (byte 11 of the line)"#,
    );
    check(r#"{"key":null,"value":null}"#, "INVALID none none key: null...");
    for time in [
        "null",
        "\"5\"",
        "1.0",
        "1e3",
        "-1",
        "253402300800000",
        "99999999999999999999",
        "[]",
        "{}",
    ] {
        check(
            format!(r#"{{"key":"k","value":null,"timestamp":{time}}}"#),
            "INVALID k none timestamp: ...",
        );
    }
    let twice = r#"{"key":"k","timestamp":5,"value":null,"timestamp":5}"#;
    check(twice, "INVALID k none duplicate field `timestamp`...");
    let twice = r#"{"key":"k","timestamp":"x","value":null,"timestamp":5}"#;
    check(twice, "INVALID k none timestamp: ...");
    for value in ["5", "\"text\"", "true", "1.5", "[]"] {
        check(
            format!(r#"{{"key":"k","value":{value}}}"#),
            &format!("INVALID k {value} Reading: invalid type: ..."),
        );
    }
    check(
        r#"{"key":"k","value":["k",5,-7,null,"RED",[]]}"#,
        "INVALID k [\"k\",5,-7,null,\"RED\",[]] Reading: ...",
    );
    // What the record's own check refuses, and a tombstone where there is no row to remove.
    check(with("").replacen("\"k\"", "\"other\"", 1), "INVALID other {...");
    assert_eq!(
        outcome(br#"{"key":"k","value":null}"#, false),
        "INVALID k none Reading: a tombstone, but the input is no table"
    );
    assert_eq!(outcome(with("").as_bytes(), false), PLAIN);
}

#[test]
fn what_does_not_parse_wins_over_what_is_invalid() {
    check(r#"{"key":null,"value":5"#, "UNDECODABLE EOF...");
    check(
        r#"{"key":"k","value":5,"timestamp":"x"}}"#,
        "UNDECODABLE trailing...",
    );
    check(
        r#"{"key":null,"value":{"at":"x"},"key":null}"#,
        "UNDECODABLE duplicate...",
    );
    check(with(r#""level":"x","y":"#), "UNDECODABLE ...");
}

#[test]
fn the_raw_value_is_what_stands_in_the_line() {
    let line = br#"{ "x":1, "value" : { "a" :1.0, "\u0061": [ ] } , "key":"k" }"#;
    assert_eq!(
        raw_value(line),
        Some(br#"{ "a" :1.0, "\u0061": [ ] }"#.as_slice())
    );
    assert_eq!(raw_value(br#"{"key":"k"}"#), None);
    assert_eq!(raw_value(b""), None);
}

#[test]
fn texts_and_values_of_dead_letters_are_cut() {
    let long = "é".repeat(1 << 20);
    let Err(Rejected::Invalid {
        value: Some(value),
        error,
        ..
    }) = decode_line::<Reading>(but("level", &format!("\"{long}\"")).as_bytes(), false)
    else {
        panic!("INVALID, with a value")
    };
    assert_eq!(value.len(), crate::limits::DEAD_LETTER_VALUE_BYTES);
    assert!(
        error.starts_with("Reading.level: invalid type: string \"éé") && error.len() < 600,
        "{} bytes",
        error.len()
    );
    let result = decode_line::<Reading>(format!(r#"{{"key":"{long}","value":{}"#, "5}").as_bytes(), false);
    assert!(matches!(result, Err(Rejected::Invalid { key: Some(key), .. }) if key.len() == long.len()));
}

/// A message whose value is what it says.
#[derive(Clone, Debug, serde::Serialize)]
struct Said(#[serde(skip)] Option<&'static str>, Vec<&'static str>);

impl Output for Said {
    const SCHEMA: &'static str = r#"{"type":"array","items":{"type":"array","items":"string"}}"#;

    fn key(&self) -> Option<&str> {
        self.0
    }

    fn rank(&self) -> Rank {
        Rank::default()
    }
}

#[test]
fn lines_are_written_with_key_and_value_only() {
    let mut line = b"before\n".to_vec();
    write_line(&Said(Some("a\"\\\n\u{1}é"), vec!["\0"]), &mut line);
    write_line(&Said(None, vec![]), &mut line);
    let written = r#"{"key":"a\"\\\n\u0001é","value":[["\u0000"]]}"#;
    let expected = format!("before\n{written}\n{{\"key\":null,\"value\":[[]]}}\n");
    assert_eq!(String::from_utf8_lossy(&line), expected);
}

#[test]
fn dead_letters_are_written_in_base64() {
    let letter = DeadLetter {
        input: "in".into(),
        partition: 1,
        offset: 2,
        key: Some(b"k".as_slice().into()),
        value: None,
        reason: DeadLetterReason::Invalid,
        error: "why".to_owned(),
        dataflow: None,
        event_time: None,
        watermark: None,
    };
    let mut line = Vec::new();
    write_line(&letter, &mut line);
    let expected = concat!(
        r#"{"key":"k","value":{"input":"in","partition":1,"offset":2,"key":"aw==","value":null,"#,
        r#""reason":"INVALID","error":"why","dataflow":null,"event_time":null,"watermark":null}}"#,
        "\n"
    );
    assert_eq!(String::from_utf8_lossy(&line), expected);
}

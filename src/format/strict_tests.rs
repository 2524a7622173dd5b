//! Strict reading, through JSON lines: the fields of a small record and of a record in it, each wrong in
//! every way.

use crate::format::json::raw_value;
use crate::format::json::tests::{PLAIN, but, check, with};
use crate::record::{Record, Text};
use crate::time::{EVENT_TIMES, Millis};

crate::strict_enum! {
    /// A set of symbols.
    pub enum Color {
        /// The first.
        Red = "RED",
        /// The second.
        Blue = "BLUE",
    }
}

crate::strict_record! {
    /// A record with a field of every kind.
    pub struct Reading {
        /// The key.
        pub id: Text,
        /// Event time.
        pub at: Millis,
        /// An integer.
        pub level: i64,
        /// A nullable string.
        pub unit: Option<Text> = None,
        /// A symbol.
        pub color: Color,
        /// Records.
        pub parts: Vec<Part>,
    }

    /// A record in a record, with a keyword for a field.
    pub struct Part {
        /// A symbol.
        pub r#type: Color,
        /// A nullable integer.
        pub weight: Option<i64> = None,
    }
}

impl Record for Reading {
    const NAME: &'static str = "Reading";
    const SCHEMA: &'static str = r#"{"type": "record", "name": "Reading", "namespace": "test", "fields": [
        {"name": "id", "type": "string", "aliases": ["name"]},
        {"name": "at", "type": "long"},
        {"name": "level", "type": "long"},
        {"name": "unit", "type": ["null", "string"], "default": null},
        {"name": "color", "type": {"type": "enum", "name": "Color", "symbols": ["RED", "BLUE"]}},
        {"name": "parts", "type": {"type": "array", "items": {"type": "record", "name": "Part", "fields": [
            {"name": "type", "type": "Color"},
            {"name": "weight", "type": ["null", "long"], "default": null}
        ]}}}
    ]}"#;

    fn event_time(&self) -> Option<Millis> {
        Some(self.at)
    }

    fn check(&self, key: &str) -> Result<(), String> {
        let agrees = key == self.id && EVENT_TIMES.contains(&self.at);
        if agrees {
            Ok(())
        } else {
            Err(format!("key '{key}' but id '{}'", self.id))
        }
    }
}

#[test]
fn unknown_fields_are_ignored_whatever_they_hold() {
    let anything = r#""x":[1e999,-1.5E-3,{"id":{},"id":[]},[[]],"",null,true],"x":0,"ID":1,"":{"":""},"#;
    check(with(anything), PLAIN);
    check(
        but("parts", &format!(r#"[{{{anything}"type":"RED"}}]"#)),
        r#"k None: k 5 -7 None RED ["RED"]"#,
    );
    check(
        with("").replacen('{', &format!("{{{anything}\"Key\":1,"), 1),
        PLAIN,
    );
    let deep = format!(r#""x":{}{},"#, "[".repeat(100_000), "]".repeat(100_000));
    check(with(&deep), PLAIN);
    check(with("").replacen('{', &format!("{{{deep}"), 1), PLAIN);
    let deep = format!(r#""x":{}1{},"#, r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
    check(with(&deep), PLAIN);
}

/// A line that is INVALID because of what is said of this path.
#[track_caller]
fn check_invalid(line: &str, error: &str) {
    let value = raw_value(line.as_bytes()).expect("an envelope");
    check(
        line,
        &format!("INVALID k {} Reading.{error}...", String::from_utf8_lossy(value)),
    );
}

#[test]
fn invalid_fields_are_named() {
    for field in ["id", "at", "level", "color", "parts"] {
        let line = with("").replace(&format!("\"{field}\""), "\"other\"");
        check_invalid(&line, &format!("{field}: missing (byte"));
        check_invalid(&but(field, "null"), &format!("{field}: invalid type: null"));
        check_invalid(&but(field, "{}"), &format!("{field}: invalid type: map"));
        check_invalid(&but(field, "true"), &format!("{field}: invalid type: boolean"));
    }
    for field in ["id", "at", "level", "color"] {
        check_invalid(&but(field, "[]"), &format!("{field}: invalid type: sequence"));
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        check(but(field, &deep), "INVALID k ...");
    }
    for number in [
        "1.0",
        "-7.0",
        "1e3",
        "1E3",
        "-0.0",
        "0e0",
        "-0e1",
        "1e999",
        "-1e-999",
        "9223372036854775808",
    ] {
        check_invalid(&but("level", number), "level: ");
    }
    for number in [
        "-9223372036854775809",
        "18446744073709551616",
        "100000000000000000000000",
        "\"5\"",
        "\"\"",
    ] {
        check_invalid(&but("level", number), "level: invalid type: ");
    }
    for id in ["5", "5.5"] {
        check_invalid(&but("id", id), "id: invalid type: ");
    }
    for color in ["\"GREEN\"", "\"red\"", "\"\"", "\" RED\""] {
        check_invalid(
            &but("color", color),
            &format!("color: invalid value: string {color}, expected one of RED BLUE"),
        );
    }
    check_invalid(
        &but("color", r#"{"RED":null}"#),
        "color: invalid type: map, expected one of RED BLUE",
    );
    check_invalid(
        &but("color", "0"),
        "color: invalid type: integer `0`, expected one of RED BLUE",
    );
    check_invalid(&with(r#""level":-7,"#), "level: given twice");
    check_invalid(&with(r#""\u006cevel":-7,"#), "level: given twice");
    check_invalid(&with(r#""unit":null,"unit":null,"#), "unit: given twice");
    check_invalid(
        &with(r#""unit":5,"#),
        "unit: invalid type: integer `5`, expected a string",
    );
    check_invalid(
        &but("parts", "[null]"),
        "parts: invalid type: null, expected a record Part",
    );
    check_invalid(
        &but("parts", r#"[["RED"]]"#),
        "parts: invalid type: sequence, expected a record Part",
    );
    check_invalid(&but("parts", "[{}]"), "parts.type: missing");
    check_invalid(
        &but("parts", r#"[{"type":"RED"},{"type":5}]"#),
        "parts.type: invalid type: integer `5`",
    );
    check_invalid(
        &but("parts", r#"[{"type":"RED","type":"RED"}]"#),
        "parts.type: given twice",
    );
    check_invalid(
        &but("parts", r#"[{"type":"RED","weight":"3"}]"#),
        "parts.weight: invalid type: string \"3\"",
    );
}

#[test]
fn records_pass_through_postcard() {
    let parts = vec![
        Part {
            r#type: Color::Blue,
            weight: None,
        },
        Part {
            r#type: Color::Red,
            weight: Some(-1),
        },
    ];
    let reading = Reading {
        id: "é".into(),
        at: 5,
        level: i64::MIN,
        unit: None,
        color: Color::Blue,
        parts,
    };
    let bytes = postcard::to_allocvec(&reading).expect("rows serialize");
    assert_eq!(
        postcard::from_bytes::<Reading>(&bytes).expect("and come back"),
        reading
    );
    assert_eq!(postcard::to_allocvec(&Color::Blue).expect("one byte"), [1]);
    assert!(postcard::from_bytes::<Color>(&[2]).is_err(), "no third color");
    assert!(
        postcard::from_bytes::<Reading>(&bytes[..bytes.len() - 1]).is_err(),
        "cut"
    );
}

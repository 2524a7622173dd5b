//! A partition's bytes as lines, a line as a message, and a message as a dead letter.
//!
//! Readings chosen, where the contract leaves room:
//! - A line whose form is broken (no object; `key` or `value` missing or given twice; a key that is neither
//!   string nor null) holds no message, so it is UNDECODABLE; what is INVALID has a key and a value to show.
//! - The key in a dead letter is the message key, that is the decoded string; the value is the span as
//!   written. A tombstone's value is null there, too.
//! - A CR belongs to the line end only before an LF: a last line without LF keeps its CR.
//! - The length that `max_record_bytes` bounds is that of the line without its end.

use super::json;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Bytes of a value that a dead letter keeps.
const DEAD_LETTER_VALUE_BYTES: usize = 512 * 1024;

/// What a line of the right form holds.
#[derive(Debug, PartialEq)]
pub struct Message<'a> {
    pub key: Option<String>,
    /// The span of the value as written.
    pub value: &'a str,
    /// The spans of all its timestamps, for one too many is INVALID.
    pub timestamps: Vec<&'a str>,
}

/// Where a line stands: input, partition, byte offset.
pub type Origin<'a> = (&'a str, usize, usize);

impl<'a> Message<'a> {
    /// The value as a dead letter shows it.
    pub fn value_bytes(&self) -> Option<&'a [u8]> {
        (self.value != "null").then_some(self.value.as_bytes())
    }
}

/// The lines of a part of a partition, each with its byte offset and without its end.
pub fn lines(bytes: &[u8]) -> Vec<(usize, &[u8])> {
    let mut found = Vec::new();
    let mut start = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let without_end = match line.strip_suffix(b"\n") {
            Some(ended) => ended.strip_suffix(b"\r").unwrap_or(ended),
            None => line,
        };
        found.push((start, without_end));
        start += line.len();
    }
    found
}

/// The message in a line, or nothing when it does not parse.
pub fn message(line: &[u8], max_record_bytes: usize) -> Option<Message<'_>> {
    if line.len() > max_record_bytes {
        return None;
    }
    let members = json::members(json::whole(std::str::from_utf8(line).ok()?)?)?;
    let spans_of = |name: &str| -> Vec<&str> {
        members
            .iter()
            .filter(|(given, _)| given == name)
            .map(|(_, span)| *span)
            .collect()
    };
    match (spans_of("key").as_slice(), spans_of("value").as_slice()) {
        (["null"], [value]) => Some(Message {
            key: None,
            value,
            timestamps: spans_of("timestamp"),
        }),
        ([key], [value]) => Some(Message {
            key: Some(json::string(key)?),
            value,
            timestamps: spans_of("timestamp"),
        }),
        _ => None,
    }
}

/// The dead letter of a message, or of a line that holds none.
pub fn dead_letter(
    origin: Origin,
    key: Option<&str>,
    value: Option<&[u8]>,
    reason: &str,
    error: &str,
) -> Value {
    let (input, partition, offset) = origin;
    let cut = value.map(|value| &value[..value.len().min(DEAD_LETTER_VALUE_BYTES)]);
    json!({"key": key, "value": {
        "input": input,
        "partition": partition,
        "offset": offset,
        "key": key.map(|key| STANDARD.encode(key)),
        "value": cut.map(|value| STANDARD.encode(value)),
        "reason": reason,
        "error": error,
    }})
}

#[cfg(test)]
mod tests {
    use super::{DEAD_LETTER_VALUE_BYTES, STANDARD, dead_letter, lines, message};
    use base64::Engine;

    #[test]
    fn lines_end_with_lf_and_a_cr_before_it() {
        let shown = |text: &'static str| {
            let lines = lines(text.as_bytes()).into_iter();
            lines
                .map(|(offset, line)| (offset, std::str::from_utf8(line).expect("text")))
                .collect::<Vec<_>>()
        };
        assert_eq!(shown(""), []);
        assert_eq!(shown("a\nb"), [(0, "a"), (2, "b")]);
        assert_eq!(
            shown("\n\r\na\r\n\r\r\nb\r"),
            [(0, ""), (1, ""), (3, "a"), (6, "\r"), (9, "b\r")]
        );
    }

    #[rustfmt::skip]
    const GOOD: &[&str] = &[
        r#"{"key":"k","value":{}}"#,
        r#" { "value" : {} , "key" : "\u006b" } "#,
        r#"{"\u006bey":"k","x":1e999,"value":{},"x":[{}]}"#,
        "{\"key\":\"k\",\"value\":{}}\r",
    ];

    #[rustfmt::skip]
    const BROKEN: &[&str] = &[
        "", " ", "null", "[]", "{}", "{", r#"[{"key":"k","value":{}}]"#, r#"{"key":"k","value":{}}x"#,
        r#"{"key":"k","value":{}}{}"#, "\u{feff}{\"key\":\"k\",\"value\":{}}",
        r#"{"key":"k"}"#, r#"{"value":{}}"#,
        r#"{"key":"k","key":"k","value":{}}"#, r#"{"key":null,"key":null,"value":{}}"#,
        r#"{"key":"k","value":{},"value":{}}"#, r#"{"key":5,"value":{}}"#, r#"{"key":{},"value":{}}"#,
        "{\"key\":\"\0\",\"value\":{}}", r#"{"key":"\ud800","value":{}}"#,
        r#"{"key":"k","value":{"a":"\ud800"}}"#,
        r#"{"key":"k","value":{"a":01}}"#,
    ];

    #[test]
    fn a_message_has_one_key_and_one_value() {
        for line in GOOD {
            let message = message(line.as_bytes(), 100).expect("a message");
            assert_eq!(
                (message.key.as_deref(), message.value),
                (Some("k"), "{}"),
                "{line}"
            );
        }
        for line in BROKEN {
            assert_eq!(message(line.as_bytes(), 100), None, "{line}");
        }
        assert_eq!(message(b"{\"key\":\"\xff\",\"value\":{}}", 100), None);
        let full = message(
            br#"{"key":null,"value": [ 1 ] ,"timestamp":1,"timestamp":"x"}"#,
            100,
        )
        .expect("a message");
        assert_eq!(
            (full.key, full.value, full.timestamps),
            (None, "[ 1 ]", vec!["1", "\"x\""])
        );
    }

    #[test]
    fn a_line_may_be_as_long_as_the_longest_record() {
        let line = br#"{"key":"k","value":{}}"#;
        assert!(message(line, line.len()).is_some());
        assert!(message(line, line.len() - 1).is_none());
    }

    #[test]
    fn a_dead_letter_shows_the_bytes_as_they_stand_up_to_its_limit() {
        let value = |key, value| dead_letter(("events", 1, 7), key, value, "INVALID", "why")["value"].take();
        let shown = value(Some("\u{e9}"), Some(b"{ \xff"));
        let text = r#"{"input":"events","partition":1,"offset":7,"key":"w6k=","value":"eyD/",
            "reason":"INVALID","error":"why"}"#;
        assert_eq!(
            shown,
            serde_json::from_str::<serde_json::Value>(text).expect("a dead letter")
        );
        assert_eq!(
            (&value(None, None)["key"], &value(None, None)["value"]),
            (&().into(), &().into())
        );
        assert_eq!(
            value(None, Some(b""))["value"],
            "",
            "an empty line is there, a tombstone is not"
        );
        let long = vec![b'x'; DEAD_LETTER_VALUE_BYTES + 1];
        assert_eq!(value(None, Some(&long))["value"], STANDARD.encode(&long[1..]));
        assert_eq!(
            value(None, Some(&long[1..]))["value"],
            STANDARD.encode(&long[1..])
        );
    }
}

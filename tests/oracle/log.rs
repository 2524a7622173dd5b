//! An input's bytes as messages: what is a record, what is a dead letter, and which watermark and tick a record has.
//!
//! ```text
//!  partition bytes -> lines -> message (key, value, timestamp) -> record | INVALID
//!                          \-> UNDECODABLE                          with watermark before it, tick, "earlier" or not
//! ```
//!
//! Readings chosen, where the contract leaves room:
//! - A line whose form is broken (no object; `key` or `value` missing, given twice; a key that is neither string nor
//!   null) holds no message, so it is UNDECODABLE; INVALID has a key and a value to show.
//! - The key in a dead letter is the message key, that is the decoded string; the value is the span as written. A
//!   tombstone's value is null there, too.
//! - A CR belongs to the line end only before an LF: a last line without LF keeps its CR.
//! - A `timestamp` is checked in every input, though only tables use it; null is as good as absent; twice is INVALID.
//! - `max_jump_ms` looks at event times, so never at the timestamps of tables.
//! - Only valid messages move the watermark, the greatest event time, and the as-of time: an INVALID message that
//!   carries a good time moves nothing.
//! - What earlier finite runs consumed is cut at a byte: the bytes behind it are lines of their own.
//! - After an earlier finite run every partition counts as ended, also one whose file is new: the global watermark
//!   is at plus infinity and never falls.

use super::records::{self, Kind};
use super::{Input, json};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Bytes of a value that a dead letter keeps.
const DEAD_LETTER_VALUE_BYTES: usize = 512 * 1024;

/// One valid message of an input.
pub struct Record {
    pub partition: usize,
    /// Byte offset of the line in its partition.
    pub offset: usize,
    pub key: String,
    /// The known fields; null for a tombstone.
    pub row: Value,
    /// The value as it stands in the line.
    pub written: String,
    /// Event time in milliseconds; 0 in tables.
    pub time: i64,
    /// The partition watermark before the record; nothing is minus infinity.
    pub watermark: Option<i64>,
    /// The tick of its as-of time; nothing is "there from the start".
    pub tick: Option<i64>,
    /// Whether an earlier finite run consumed it.
    pub earlier: bool,
}

impl Record {
    /// A text field of the record.
    pub fn text(&self, field: &str) -> &str {
        self.row[field].as_str().expect("the field is a checked string")
    }

    /// An integer field of the record.
    pub fn long(&self, field: &str) -> i64 {
        self.row[field].as_i64().expect("the field is a checked integer")
    }

    /// Whether `limit` (exclusive: the first instant at which the record may still come) has passed it.
    pub fn is_late(&self, limit: i128) -> bool {
        self.watermark
            .is_some_and(|watermark| limit <= i128::from(watermark))
    }
}

/// All that an input holds.
pub struct Log {
    pub input: String,
    /// By (partition, offset).
    pub records: Vec<Record>,
    /// UNDECODABLE and INVALID of the part that no earlier run consumed.
    pub dead_letters: Vec<Value>,
}

/// What an input's partition has seen so far.
#[derive(Default)]
struct Seen {
    /// Greatest event time of the records, or greatest message time of a table's messages.
    greatest: Option<i64>,
}

/// Reads a whole input. `consumed(partition)` bytes were read by earlier runs; `is_first` says that there were none.
pub fn read(
    name: &str,
    input: &Input,
    tick_ms: i64,
    is_first: bool,
    consumed: impl Fn(usize) -> usize,
) -> Log {
    let kind = records::kind(name);
    let mut log = Log {
        input: name.into(),
        records: Vec::new(),
        dead_letters: Vec::new(),
    };
    for (partition, bytes) in input.partitions.iter().enumerate() {
        let consumed = consumed(partition);
        let (before, after) = bytes.split_at(consumed);
        let appended = lines(after)
            .into_iter()
            .map(|(offset, line)| (consumed + offset, line));
        let mut seen = Seen::default();
        for (offset, line) in lines(before).into_iter().chain(appended) {
            let earlier = offset < consumed;
            let origin = (name, partition, offset);
            let refused = match message(line, input.max_record_bytes) {
                None => dead_letter(origin, None, Some(line), "UNDECODABLE", "does not parse"),
                Some(message) => match check(&kind, &message, seen.greatest, input.max_jump_ms) {
                    Err(error) => dead_letter(
                        origin,
                        message.key.as_deref(),
                        message.value_bytes(),
                        "INVALID",
                        &error,
                    ),
                    Ok((row, time)) => {
                        let watermark = seen
                            .greatest
                            .map(|greatest| greatest - input.max_out_of_orderness_ms);
                        seen.greatest = seen.greatest.max(time);
                        log.records.push(Record {
                            partition,
                            offset,
                            key: message.key.expect("a checked message has a key"),
                            row,
                            written: message.value.into(),
                            time: if kind.is_table() {
                                0
                            } else {
                                time.expect("a checked record has a time")
                            },
                            watermark: if is_first { watermark } else { Some(i64::MAX) },
                            tick: seen.greatest.map(|time| time.div_euclid(tick_ms)),
                            earlier,
                        });
                        continue;
                    }
                },
            };
            if !earlier {
                log.dead_letters.push(refused);
            }
        }
    }
    log
}

/// The dead letter of a record that is late for a dataflow.
pub fn late(dataflow: &str, input: &str, record: &Record) -> Value {
    let origin = (input, record.partition, record.offset);
    let mut letter = dead_letter(
        origin,
        Some(&record.key),
        Some(record.written.as_bytes()),
        "LATE",
        "late",
    );
    letter["value"]["dataflow"] = dataflow.into();
    letter["value"]["event_time"] = record.time.into();
    letter["value"]["watermark"] = record.watermark.into();
    letter
}

type Origin<'a> = (&'a str, usize, usize);

fn dead_letter(origin: Origin, key: Option<&str>, value: Option<&[u8]>, reason: &str, error: &str) -> Value {
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

/// The lines of a part of a partition, each with its byte offset and without its end.
fn lines(bytes: &[u8]) -> Vec<(usize, &[u8])> {
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

struct Message<'a> {
    key: Option<String>,
    /// The span of the value as written.
    value: &'a str,
    timestamps: Vec<&'a str>,
}

impl<'a> Message<'a> {
    fn value_bytes(&self) -> Option<&'a [u8]> {
        (self.value != "null").then_some(self.value.as_bytes())
    }
}

/// The message in a line, or nothing when it does not parse.
fn message(line: &[u8], max_record_bytes: usize) -> Option<Message<'_>> {
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

/// The record in a message and its event time (of a table's: its message time), or what makes it INVALID.
fn check(
    kind: &Kind,
    message: &Message,
    greatest: Option<i64>,
    max_jump_ms: Option<i64>,
) -> Result<(Value, Option<i64>), String> {
    let key = message.key.as_ref().ok_or("the key is null")?;
    let timestamp = match message.timestamps.as_slice() {
        [] => None,
        [span] => records::read_timestamp(span).map_err(|error| format!("timestamp: {error}"))?,
        _ => return Err("timestamp: given twice".into()),
    };
    if message.value == "null" {
        return if kind.is_table() {
            Ok((Value::Null, timestamp))
        } else {
            Err("a tombstone outside a table".into())
        };
    }
    let row = records::read(kind, message.value)?;
    if kind.key.is_some_and(|field| row[field] != *key) {
        return Err(format!("key {key:?} disagrees with the value"));
    }
    let Some(field) = kind.time else {
        return Ok((row, timestamp));
    };
    let time = row[field].as_i64();
    if let (Some(time), Some(greatest), Some(jump)) = (time, greatest, max_jump_ms)
        && time - greatest > jump
    {
        return Err(format!(
            "{field}: {} ms ahead of the greatest before it",
            time - greatest
        ));
    }
    Ok((row, time))
}

#[cfg(test)]
mod tests {
    use super::super::Input;
    use super::{DEAD_LETTER_VALUE_BYTES, Log, read};
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    fn read_first(name: &str, bytes: &[u8]) -> Log {
        read(name, &Input::new(name, vec![bytes.to_vec()]), 1_000, true, |_| 0)
    }

    /// `key=row`s, then dead letters as `offset REASON key value`.
    fn shown(log: &Log) -> Vec<String> {
        let records = log
            .records
            .iter()
            .map(|record| format!("{}={}", record.key, record.row));
        let decoded = |field: &serde_json::Value| {
            let bytes = field.as_str().map(|text| STANDARD.decode(text).expect("base64"));
            bytes.map_or("null".into(), |bytes| {
                format!("<{}>", String::from_utf8_lossy(&bytes))
            })
        };
        let dead_letters = log.dead_letters.iter().map(|row| {
            let value = &row["value"];
            let reason = value["reason"].as_str().expect("a reason");
            format!(
                "{} {reason} {} {}",
                value["offset"],
                decoded(&value["key"]),
                decoded(&value["value"])
            )
        });
        records.chain(dead_letters).collect()
    }

    #[test]
    fn lines_and_their_form() {
        let event = r#"{"event_id":"e","occurred_at":7}"#;
        let good = format!(r#"{{"key":"k","value":{event}}}"#);
        let row = r#"k={"event_id":"e","occurred_at":7}"#.to_string();
        let undecodable = |line: &str| format!("0 UNDECODABLE null <{line}>");
        let accepted = [
            good.clone(),
            format!("{good}\n"),
            format!("{good}\r\n"),
            format!(" {good} \t\n"),
            format!(r#"{{"value": {event} ,"x":[{{}}],"x":1e999,"key":"\u006b","timestamp":null}}"#),
            format!(r#"{{"\u006bey":"k","value":{event},"timestamp":253402300799999}}"#),
        ];
        for line in accepted {
            assert_eq!(
                shown(&read_first("events", line.as_bytes())),
                [row.clone()],
                "{line}"
            );
        }
        let refused = [
            "".to_string(),
            " ".into(),
            "null".into(),
            format!("[{good}]"),
            format!("{good}x"),
            format!("{good}{good}"),
            format!("\u{feff}{good}"),
            format!(r#"{{"key":"k","key":"k","value":{event}}}"#),
            format!(r#"{{"key":"k","value":{event},"value":{event}}}"#),
            format!(r#"{{"key":5,"value":{event}}}"#),
            format!(r#"{{"value":{event}}}"#),
            r#"{"key":"k"}"#.into(),
            good.replace("\"e\"", "\"\0\""),
            good.replace("\"e\"", "\"\\ud800\""),
            good[..good.len() - 1].into(),
        ];
        for line in refused {
            assert_eq!(
                shown(&read_first("events", format!("{line}\n").as_bytes())),
                [undecodable(&line)]
            );
        }
        let broken = read_first("events", b"{\"key\":\"\xff\",\"value\":null}\n");
        assert_eq!(
            broken.dead_letters[0]["value"]["value"],
            STANDARD.encode(b"{\"key\":\"\xff\",\"value\":null}")
        );
        assert!(broken.dead_letters[0]["key"].is_null());
        let ends = read_first("events", format!("\n\r\n{good}\r\n\r\r\nx\r").as_bytes());
        let at = good.len() + 5;
        let expected = [
            row,
            "0 UNDECODABLE null <>".into(),
            "1 UNDECODABLE null <>".into(),
            format!("{at} UNDECODABLE null <\r>"),
            format!("{} UNDECODABLE null <x\r>", at + 3),
        ];
        assert_eq!(shown(&ends), expected);
    }

    #[test]
    fn values_and_what_makes_them_invalid() {
        let entry = r#"{"entry_id":"e","account_id":"k","booked_at":1,"direction":"DEBIT","amount":2,"currency":"C","balance_after":-3}"#;
        #[rustfmt::skip]
        let changes = [
            ("\"amount\":2,", ""), ("\"amount\":2", "\"amount\":2,\"amount\":2"), ("\"amount\":2", "\"amount\":2.0"),
            ("\"amount\":2", "\"amount\":2e0"), ("\"amount\":2", "\"amount\":-1"), ("\"amount\":2", "\"amount\":\"2\""),
            ("\"amount\":2", "\"amount\":null"), ("\"amount\":2", "\"amount\":9223372036854775808"),
            (":-3", ":-9223372036854775809"), ("DEBIT", "debit"), ("\"DEBIT\"", "1"), ("\"k\"", "\"j\""),
            ("\"booked_at\":1", "\"booked_at\":-1"), ("\"booked_at\":1", "\"booked_at\":253402300800000"),
            ("\"C\"", "\"C\",\"counterparty\":1"), ("\"C\"", "\"C\",\"counterparty\":null,\"counterparty\":null"),
            ("\"e\"", "null"), ("\"e\"", "[\"e\"]"),
        ];
        for (from, to) in changes {
            let value = entry.replacen(from, to, 1);
            let log = read_first("entries", format!(r#"{{"key":"k","value":{value}}}"#).as_bytes());
            assert_eq!(shown(&log), [format!("0 INVALID <k> <{value}>")]);
        }
        #[rustfmt::skip]
        let accepted = [
            ("", ""), (":2", ":-0"), (":2", ":9223372036854775807"), (":-3", ":-9223372036854775808"),
            ("\"C\"", "\"C\",\"counterparty\":null"), ("{", "{\"new\":[1.5,{\"amount\":1}],\"new\":0,"), (":2", " : 2 "),
        ];
        for (from, to) in accepted {
            let value = entry.replacen(from, to, 1);
            let log = read_first("entries", format!(r#"{{"key":"k","value":{value}}}"#).as_bytes());
            assert_eq!((log.records.len(), log.dead_letters.len()), (1, 0), "{value}");
        }
        for (line, dead_letter) in [
            (r#"{"key":null,"value":{} }"#, "0 INVALID null <{}>"),
            (r#"{"key":"k","value":null}"#, "0 INVALID <k> null"),
            (r#"{"key":null,"value":null}"#, "0 INVALID null null"),
            (r#"{"key":"k","value": [1 ] }"#, "0 INVALID <k> <[1 ]>"),
            (r#"{"key":"\u0041\n","value":"x"}"#, "0 INVALID <A\n> <\"x\">"),
            (r#"{"key":"k","value":7,"timestamp":1}"#, "0 INVALID <k> <7>"),
        ] {
            assert_eq!(shown(&read_first("entries", line.as_bytes())), [dead_letter]);
        }
    }

    #[test]
    fn tables_and_what_makes_them_invalid() {
        let rule = |rule: &str| {
            format!(
                r#"{{"customer_id":"k","addresses":[],"accounts":[{{"account_id":"A","currency":"C","alerts":[{rule}]}}]}}"#
            )
        };
        for (value, is_valid) in [
            ("null".to_string(), true),
            (
                rule(r#"{"type":"CREDITED_FROM","counterparty":"","channels":[]}"#),
                true,
            ),
            (
                rule(r#"{"type":"CREDITED_FROM","threshold":1,"channels":[]}"#),
                false,
            ),
            (
                rule(
                    r#"{"type":"CREDITED_ABOVE","threshold":-1,"counterparty":"x","channels":["SMS","SMS"]}"#,
                ),
                true,
            ),
            (
                rule(r#"{"type":"CREDITED_ABOVE","threshold":null,"channels":[]}"#),
                false,
            ),
            (rule(r#"{"type":"CREDITED_ABOVE","threshold":1}"#), false),
            (
                rule(r#"{"type":"CREDITED_ABOVE","threshold":1,"channels":["FAX"]}"#),
                false,
            ),
            (rule(r#"{"type":"OTHER","threshold":1,"channels":[]}"#), false),
            (rule("1"), false),
            (
                r#"{"customer_id":"k","addresses":[{"channel":"PUSH","address":"x"}],"accounts":[]}"#.into(),
                true,
            ),
            (
                r#"{"customer_id":"k","addresses":{},"accounts":[]}"#.into(),
                false,
            ),
            (
                r#"{"customer_id":"j","addresses":[],"accounts":[]}"#.into(),
                false,
            ),
        ] {
            let log = read_first("settings", format!(r#"{{"key":"k","value":{value}}}"#).as_bytes());
            assert_eq!(
                (log.records.len(), log.dead_letters.len()),
                (usize::from(is_valid), usize::from(!is_valid)),
                "{value}"
            );
        }
        for (timestamp, is_valid) in [
            ("0", true),
            ("null", true),
            ("-1", false),
            ("1.0", false),
            ("\"1\"", false),
            ("253402300800000", false),
        ] {
            let line = format!(r#"{{"key":"k","value":null,"timestamp":{timestamp}}}"#);
            assert_eq!(
                read_first("devices", line.as_bytes()).records.len(),
                usize::from(is_valid),
                "{line}"
            );
        }
        let twice = read_first(
            "devices",
            br#"{"key":"k","value":null,"timestamp":1,"timestamp":1}"#,
        );
        assert_eq!(shown(&twice), ["0 INVALID <k> null"]);
    }

    #[test]
    fn long_lines_and_long_values() {
        let value = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
        let line = |length: usize| format!(r#"{{"key":"k","value":{}}}"#, value(length));
        let mut input = Input::new(
            "events",
            vec![format!("{}\r\n", line(DEAD_LETTER_VALUE_BYTES + 1)).into_bytes()],
        );
        let letter =
            |input: &Input| read("events", input, 1_000, true, |_| 0).dead_letters.remove(0)["value"].take();
        let bytes = |letter: &serde_json::Value| {
            STANDARD
                .decode(letter["value"].as_str().expect("a value"))
                .expect("base64")
        };
        let invalid = letter(&input);
        assert_eq!(invalid["reason"], "INVALID");
        assert_eq!(
            bytes(&invalid),
            value(DEAD_LETTER_VALUE_BYTES + 1).as_bytes()[..DEAD_LETTER_VALUE_BYTES]
        );
        input.max_record_bytes = line(DEAD_LETTER_VALUE_BYTES + 1).len();
        assert_eq!(letter(&input)["reason"], "INVALID", "the line end does not count");
        input.max_record_bytes -= 1;
        let undecodable = letter(&input);
        assert_eq!(
            (&undecodable["reason"], &undecodable["key"]),
            (&"UNDECODABLE".into(), &serde_json::Value::Null)
        );
        let whole = line(DEAD_LETTER_VALUE_BYTES + 1);
        assert_eq!(bytes(&undecodable), whole.as_bytes()[..DEAD_LETTER_VALUE_BYTES]);
    }

    #[test]
    fn an_earlier_run_keeps_its_own_last_line() {
        let line = r#"{"key":"k","value":{"event_id":"e","occurred_at":5}}"#;
        let bytes = format!("x\n{line}y\n{line}\n").into_bytes();
        let log = read("events", &Input::new("events", vec![bytes]), 1_000, false, |_| {
            2 + line.len()
        });
        let earlier: Vec<_> = log
            .records
            .iter()
            .map(|record| (record.offset, record.earlier))
            .collect();
        assert_eq!(earlier, [(2, true), (line.len() + 4, false)]);
        assert_eq!(log.records[1].watermark, Some(i64::MAX));
        assert_eq!(
            shown(&log)[2..],
            [format!("{} UNDECODABLE null <y>", 2 + line.len())]
        );
    }
}

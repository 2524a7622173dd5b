//! An input as records and dead letters; each record with the watermark before it and the tick it belongs to.
//!
//! ```text
//!  bytes ──> lines ──> message ──> record: watermark, tick, whether an earlier run consumed it
//!                  │           └─> INVALID
//!                  └─> UNDECODABLE
//! ```
//!
//! Readings chosen, where the contract leaves room:
//! - Only valid messages move the watermark, the greatest event time and the as-of time: an INVALID message
//!   that carries a good time moves nothing.
//! - A `timestamp` is checked in every input, though only tables use it; null is as good as absent; twice is
//!   INVALID.
//! - `max_jump_ms` looks at event times, so never at the timestamps of tables.
//! - What earlier finite runs consumed ends at a byte: the bytes behind it are lines of their own, also where
//!   the last line before had no LF.
//! - After an earlier finite run every partition counts as ended, also one whose file is new: the global
//!   watermark stands at plus infinity and never falls.

use super::Input;
use super::message::{Message, dead_letter, lines, message};
use super::records::{self, Kind};
use serde_json::Value;

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

    /// Whether the record's partition watermark has reached `close`, milliseconds.
    pub fn is_late(&self, close: i128) -> bool {
        self.watermark
            .is_some_and(|watermark| close <= i128::from(watermark))
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

/// What a line is.
pub(super) enum Line<'a> {
    Undecodable,
    Invalid(Message<'a>, String),
    /// A message, its row, and its event time (a table's: its message time).
    Valid(Message<'a>, Value, Option<i64>),
}

/// Reads a whole input. `consumed(partition)` bytes were read by earlier runs; `is_first` says there were
/// none.
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
        let mut greatest = None; // event time of a record, message time in a table
        for (offset, bytes) in lines(before).into_iter().chain(appended) {
            let earlier = offset < consumed;
            let origin = (name, partition, offset);
            let refused = match read_line(&kind, input, bytes, greatest) {
                Line::Undecodable => dead_letter(origin, None, Some(bytes), "UNDECODABLE", "does not parse"),
                Line::Invalid(message, error) => dead_letter(
                    origin,
                    message.key.as_deref(),
                    message.value_bytes(),
                    "INVALID",
                    &error,
                ),
                Line::Valid(message, row, time) => {
                    let watermark = greatest.map(|greatest: i64| greatest - input.max_out_of_orderness_ms);
                    greatest = greatest.max(time);
                    log.records.push(Record {
                        partition,
                        offset,
                        key: message.key.unwrap_or_default(),
                        row,
                        written: message.value.into(),
                        time: time.unwrap_or_default(),
                        watermark: if is_first { watermark } else { Some(i64::MAX) },
                        tick: greatest.map(|time| time.div_euclid(tick_ms)),
                        earlier,
                    });
                    continue;
                }
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

/// What a line is; `greatest`: the event time that a jump is measured from.
pub(super) fn read_line<'a>(kind: &Kind, input: &Input, line: &'a [u8], greatest: Option<i64>) -> Line<'a> {
    let Some(message) = message(line, input.max_record_bytes) else {
        return Line::Undecodable;
    };
    match check(kind, &message, greatest, input.max_jump_ms) {
        Ok((row, time)) => Line::Valid(message, row, time),
        Err(error) => Line::Invalid(message, error),
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
    use super::{Log, read};
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    fn read_first(name: &str, text: &str) -> Log {
        read(name, &Input::new(name, vec![text.into()]), 1_000, true, |_| 0)
    }

    /// Whether the one line is a record; if not, its dead letter shows key `k` and the value as it stands.
    fn is_valid(input: &str, value: &str) -> bool {
        let value = &value.replace('\n', "");
        let log = read_first(input, &format!(r#"{{"key":"k","value": {value} }}"#));
        let [letter] = &log.dead_letters[..] else {
            return log.records.len() == 1;
        };
        let shown = ["key", "value", "reason"].map(|field| letter["value"][field].as_str().expect("a text"));
        assert_eq!(
            (log.records.len(), shown),
            (0, ["aw==", &STANDARD.encode(value), "INVALID"]),
            "{value}"
        );
        false
    }

    const ENTRY: &str = r#"{"entry_id":"e","account_id":"k","booked_at":1,"direction":"DEBIT","amount":2,
        "currency":"C","balance_after":-3}"#;

    /// What is replaced in the entry, by what, and whether it is one then.
    #[rustfmt::skip]
    const ENTRIES: &[(&str, &str, bool)] = &[
        ("", "", true),
        (":2", " :-0 ", true), (":2", ":9223372036854775807", true), (":-3", ":-9223372036854775808", true),
        (r#""C""#, r#""C","counterparty":null"#, true), (r#""C""#, r#""C","counterparty":"""#, true),
        ("{", r#"{"new":[1.5,{"amount":1}],"new":0,"#, true),
        (r#""amount":2,"#, "", false), (r#""amount":2"#, r#""amount":2,"amount":2"#, false),
        (":2", ":2.0", false), (":2", ":2e0", false), (":2", ":-1", false), (":2", r#":"2""#, false),
        (":2", ":null", false), (":2", ":9223372036854775808", false),
        (":-3", ":-9223372036854775809", false),
        ("DEBIT", "debit", false), (r#""DEBIT""#, "1", false), (r#""k""#, r#""j""#, false),
        (":1", ":-1", false), (":1", ":253402300799999", true), (":1", ":253402300800000", false),
        (r#""C""#, r#""C","counterparty":1"#, false),
        (r#""C""#, r#""C","counterparty":null,"counterparty":null"#, false),
        (r#""e""#, "null", false), (r#""e""#, r#"["e"]"#, false),
    ];

    #[test]
    fn entries() {
        for (from, to, valid) in ENTRIES {
            let value = ENTRY.replacen(from, to, 1);
            assert_eq!(is_valid("entries", &value), *valid, "{value}");
        }
        for value in ["[1 ]", "7", "\"x\"", "true", "{}"] {
            assert!(!is_valid("entries", value), "{value}");
        }
    }

    /// A rule of settings, and whether it is one.
    #[rustfmt::skip]
    const RULES: &[(&str, bool)] = &[
        (r#"{"type":"CREDITED_FROM","counterparty":"","channels":[]}"#, true),
        (r#"{"type":"CREDITED_FROM","threshold":1,"channels":[]}"#, false),
        (r#"{"type":"CREDITED_FROM","counterparty":"x","threshold":1.5,"channels":[]}"#, false),
        (r#"{"type":"CREDITED_ABOVE","threshold":-1,"counterparty":"x","channels":["SMS","SMS"]}"#, true),
        (r#"{"type":"CREDITED_ABOVE","threshold":null,"counterparty":"x","channels":[]}"#, false),
        (r#"{"type":"CREDITED_ABOVE","threshold":1}"#, false),
        (r#"{"type":"CREDITED_ABOVE","threshold":1,"channels":["FAX"]}"#, false),
        (r#"{"type":"OTHER","threshold":1,"channels":[]}"#, false),
        ("1", false),
    ];

    #[test]
    fn tables() {
        for (rule, valid) in RULES {
            let accounts = format!(r#"[{{"account_id":"A","currency":"C","alerts":[{rule}]}}]"#);
            let value = format!(r#"{{"customer_id":"k","addresses":[],"accounts":{accounts}}}"#);
            assert_eq!(is_valid("settings", &value), *valid, "{value}");
        }
        for (value, valid) in [
            (
                r#"{"customer_id":"k","addresses":[{"channel":"PUSH","address":"x"}],"accounts":[]}"#,
                true,
            ),
            (r#"{"customer_id":"k","addresses":{},"accounts":[]}"#, false),
            (r#"{"customer_id":"j","addresses":[],"accounts":[]}"#, false),
        ] {
            assert_eq!(is_valid("settings", value), valid, "{value}");
        }
    }

    #[test]
    fn every_amount_is_at_least_zero() {
        let order = r#"{"order_id":"o","amount":-1,"currency":"C","placed_at":1}"#;
        let payment = r#"{"payment_id":"o","amount":-1,"currency":"C","paid_at":1}"#;
        let transaction = r#"{"transaction_id":"t","user_id":"k","amount":-1,"currency":"C",
            "location":"L","occurred_at":1}"#;
        for (input, value) in [
            ("orders", order),
            ("payments", payment),
            ("transactions", transaction),
        ] {
            assert!(!is_valid(input, value), "{value}");
            assert!(is_valid(input, &value.replace("-1", "0")), "{value}");
        }
    }

    #[test]
    fn tombstones_keys_and_timestamps() {
        for (input, line, valid) in [
            ("devices", r#"{"key":"k","value":null}"#, true),
            ("devices", r#"{"key":null,"value":null}"#, false),
            ("entries", r#"{"key":"k","value":null}"#, false),
            ("devices", r#"{"key":"k","value":null,"timestamp":0}"#, true),
            ("devices", r#"{"key":"k","value":null,"timestamp":null}"#, true),
            ("devices", r#"{"key":"k","value":null,"timestamp":-1}"#, false),
            ("devices", r#"{"key":"k","value":null,"timestamp":1.0}"#, false),
            ("devices", r#"{"key":"k","value":null,"timestamp":"1"}"#, false),
            (
                "devices",
                r#"{"key":"k","value":null,"timestamp":253402300800000}"#,
                false,
            ),
            (
                "devices",
                r#"{"key":"k","value":null,"timestamp":1,"timestamp":1}"#,
                false,
            ),
            (
                "events",
                r#"{"key":"k","value":{"event_id":"e","occurred_at":1},"timestamp":"x"}"#,
                false,
            ),
            (
                "events",
                r#"{"key":null,"value":{"event_id":"e","occurred_at":1}}"#,
                false,
            ),
        ] {
            let log = read_first(input, line);
            assert_eq!(
                (log.records.len(), log.dead_letters.len()),
                if valid { (1, 0) } else { (0, 1) },
                "{line}"
            );
            if let [letter] = &log.dead_letters[..] {
                let shows_value = !letter["value"]["value"].is_null();
                assert_eq!(
                    (&letter["value"]["reason"], shows_value),
                    (&"INVALID".into(), input == "events"),
                    "{line}"
                );
            }
        }
    }

    #[test]
    fn watermarks_and_ticks_follow_the_greatest_time_of_valid_records() {
        let event = |key: &str, time: i64| {
            format!(r#"{{"key":{key},"value":{{"event_id":"e","occurred_at":{time}}}}}"#) + "\n"
        };
        let text = [
            ("\"k\"", 1_500),
            ("\"k\"", 900),
            ("null", 9_999),
            ("\"k\"", 2_000),
            ("\"k\"", 0),
        ];
        let log = read_first("events", &text.map(|(key, time)| event(key, time)).concat());
        let shown: Vec<_> = log
            .records
            .iter()
            .map(|record| (record.watermark, record.tick))
            .collect();
        assert_eq!(
            shown,
            [
                (None, Some(1)),
                (Some(1_500), Some(1)),
                (Some(1_500), Some(2)),
                (Some(2_000), Some(2))
            ]
        );
    }

    #[test]
    fn an_earlier_run_keeps_its_own_last_line() {
        let line = r#"{"key":"k","value":{"event_id":"e","occurred_at":5}}"#;
        let input = Input::new("events", vec![format!("x\n{line}y\n{line}\n").into()]);
        let log = read("events", &input, 1_000, false, |_| 2 + line.len());
        let shown: Vec<_> = log
            .records
            .iter()
            .map(|record| (record.offset, record.earlier))
            .collect();
        assert_eq!(shown, [(2, true), (line.len() + 4, false)]);
        assert_eq!(log.records[1].watermark, Some(i64::MAX));
        let letters: Vec<_> = log
            .dead_letters
            .iter()
            .map(|row| &row["value"]["offset"])
            .collect();
        assert_eq!(
            letters,
            [&(2 + line.len()).into()] as [&serde_json::Value; 1],
            "x was the earlier run's"
        );
    }
}

//! JSON lines of a day, and the bad ones among them.
//!
//! After about one line in a thousand comes a bad copy of it: good lines are all there, so balances and
//! tables are what they would be without. A [`Fault`] is one way in which the contract lets a line be bad;
//! over a large day every fault occurs in every input that can have it. Tombstones are not copied: most
//! faults need a value to be wrong about.

use super::random::{Random, Stream};
use super::{
    Day, Input, Message, authorizations, devices, entries, events, orders, payments, settings, transactions,
};
use serde::Serialize;
use tidegate::record::DeadLetterReason;
use tidegate::time::{EVENT_TIMES, Millis};

/// `max_record_bytes` for the input `events`, so that one of its lines can be too long without being
/// megabytes.
pub const EVENT_RECORD_BYTES: usize = 4_096;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// All lines, the bad ones included.
    pub lines: u64,
    /// Lines to be dead letters as UNDECODABLE.
    pub undecodable: u64,
    /// Lines to be dead letters as INVALID.
    pub invalid: u64,
}

/// The ways in which a line can be bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing before the line's end.
    Empty,
    /// Half a line.
    Truncated,
    /// Well-formed JSON, but no object.
    NotAnObject,
    /// One brace too many.
    Trailing,
    /// A byte that UTF-8 does not have.
    NotUtf8,
    /// A NUL byte in a string.
    Nul,
    /// `key` is missing.
    NoKey,
    /// `value` is missing.
    NoValue,
    /// `value` is there twice.
    ValueTwice,
    /// Longer than [`EVENT_RECORD_BYTES`].
    TooLong,
    /// The key is null.
    NullKey,
    /// The key disagrees with the key field of the value.
    KeyDisagrees,
    /// A field is missing.
    FieldMissing,
    /// A field has another type.
    WrongType,
    /// A known field is there twice.
    FieldTwice,
    /// A time is written `1.0`.
    Fraction,
    /// A time is written `1e3`.
    Exponent,
    /// A time is out of 64 bits.
    OutOfBits,
    /// A time is out of the range of event times.
    OutOfRange,
    /// An enum symbol is unknown.
    UnknownSymbol,
    /// An amount is less than 0.
    NegativeAmount,
    /// A rule has not the parameter it needs.
    RuleWithoutParameter,
    /// A tombstone, and yet no table.
    Tombstone,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 23] = [
        Fault::Empty,
        Fault::Truncated,
        Fault::NotAnObject,
        Fault::Trailing,
        Fault::NotUtf8,
        Fault::Nul,
        Fault::NoKey,
        Fault::NoValue,
        Fault::ValueTwice,
        Fault::TooLong,
        Fault::NullKey,
        Fault::KeyDisagrees,
        Fault::FieldMissing,
        Fault::WrongType,
        Fault::FieldTwice,
        Fault::Fraction,
        Fault::Exponent,
        Fault::OutOfBits,
        Fault::OutOfRange,
        Fault::UnknownSymbol,
        Fault::NegativeAmount,
        Fault::RuleWithoutParameter,
        Fault::Tombstone,
    ];

    /// What a line with this fault becomes.
    pub fn reason(self) -> DeadLetterReason {
        if self <= Fault::TooLong {
            DeadLetterReason::Undecodable
        } else {
            DeadLetterReason::Invalid
        }
    }

    /// Whether lines of this input can have it.
    pub fn applies(self, input: Input) -> bool {
        match self {
            Fault::TooLong => input == Input::Events,
            Fault::KeyDisagrees => !matches!(input, Input::Orders | Input::Payments | Input::Events),
            Fault::UnknownSymbol => matches!(input, Input::Entries | Input::Settings),
            Fault::NegativeAmount => input == Input::Entries,
            Fault::RuleWithoutParameter => input == Input::Settings,
            Fault::Tombstone => !input.is_table(),
            _ => true,
        }
    }

    /// A copy of a good line of this input, which has a value, with the fault.
    pub fn spoil(self, input: Input, line: &str) -> Vec<u8> {
        let (first, time) = fields(input);
        let field = |name: &str| format!("\"{name}\":");
        let spoilt = match self {
            Fault::Empty => String::new(),
            Fault::Truncated => line[..line.len() / 2].to_owned(), // generated lines are ASCII
            Fault::NotAnObject => format!("[{line}]"),
            Fault::Trailing => format!("{line}}}"),
            Fault::NotUtf8 => {
                let mut bytes = line.as_bytes().to_vec();
                bytes[KEY.len()] = 0xff;
                return bytes;
            }
            Fault::Nul => line.replacen(KEY, &format!("{KEY}\0"), 1),
            Fault::NoKey => line.replacen("\"key\":", "\"kee\":", 1),
            Fault::NoValue => line.replacen("\"value\":", "\"valeu\":", 1),
            Fault::ValueTwice => format!("{},\"value\":null}}", &line[..line.len() - 1]),
            Fault::TooLong => line.replacen(
                '{',
                &format!("{{\"note\":\"{}\",", "x".repeat(EVENT_RECORD_BYTES)),
                1,
            ),
            Fault::NullKey => with(line, "\"key\":", '"', "null"),
            Fault::KeyDisagrees => line.replacen(KEY, &format!("{KEY}x"), 1),
            Fault::FieldMissing => line.replacen(&field(first), &field("missing"), 1),
            Fault::WrongType => with(line, &field(first), '"', "7"),
            Fault::FieldTwice => line.replacen(VALUE, &format!("{VALUE}\"{first}\":\"twice\","), 1),
            Fault::Fraction => with(line, &field(time), '0', "1.0"),
            Fault::Exponent => with(line, &field(time), '0', "1e3"),
            Fault::OutOfBits => with(line, &field(time), '0', "9223372036854775808"),
            Fault::OutOfRange => with(line, &field(time), '0', &(EVENT_TIMES.end() + 1).to_string()),
            Fault::UnknownSymbol if input == Input::Entries => {
                line.replacen("\"direction\":\"", "\"direction\":\"X", 1)
            }
            Fault::UnknownSymbol => line.replacen("\"type\":\"", "\"type\":\"X", 1),
            Fault::NegativeAmount => line.replacen("\"amount\":", "\"amount\":-", 1),
            Fault::RuleWithoutParameter => line
                .replace("\"threshold\":", "\"_\":")
                .replace("\"counterparty\":", "\"_\":"),
            Fault::Tombstone => format!(
                "{}null}}",
                &line[..line.find(VALUE).map_or(0, |at| at + VALUE.len() - 1)]
            ),
        };
        spoilt.into_bytes()
    }
}

/// How every line begins, and how every value does.
const KEY: &str = "{\"key\":\"";
const VALUE: &str = "\"value\":{";

/// Names of the first field of an input's records, a string, and of its time.
fn fields(input: Input) -> (&'static str, &'static str) {
    match input {
        Input::Entries => ("entry_id", "booked_at"),
        Input::Authorizations => ("account_id", "timestamp"),
        Input::Settings | Input::Devices => ("customer_id", "timestamp"),
        Input::Orders => ("order_id", "placed_at"),
        Input::Payments => ("payment_id", "paid_at"),
        Input::Transactions => ("transaction_id", "occurred_at"),
        Input::Events => ("event_id", "occurred_at"),
    }
}

/// The line with another text in place of the string (`kind` is a quote) or integer (a digit) after `before`.
fn with(line: &str, before: &str, kind: char, text: &str) -> String {
    let Some((head, tail)) = line.split_once(before) else {
        return line.to_owned();
    };
    let rest = match kind {
        '"' => tail
            .get(1..)
            .and_then(|string| string.split_once('"'))
            .map_or("", |(_, rest)| rest),
        _ => tail.trim_start_matches(|letter: char| letter.is_ascii_digit()),
    };
    format!("{head}{before}{text}{rest}")
}

/// A message as its line has it.
#[derive(Serialize)]
struct Line<'a, R> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Millis>,
    value: Option<&'a R>,
}

/// Gives every line of an input, without its end, with its partition, in order of arrival.
pub fn for_each_line(day: Day, input: Input, each: impl FnMut(u32, &[u8])) -> Lines {
    match input {
        Input::Entries => write(day, input, entries(day), each),
        Input::Authorizations => write(day, input, authorizations(day), each),
        Input::Settings => write(day, input, settings(day), each),
        Input::Devices => write(day, input, devices(day), each),
        Input::Orders => write(day, input, orders(day), each),
        Input::Payments => write(day, input, payments(day), each),
        Input::Transactions => write(day, input, transactions(day), each),
        Input::Events => write(day, input, events(day), each),
    }
}

fn write<R: Serialize>(
    day: Day,
    input: Input,
    messages: impl Iterator<Item = Message<R>>,
    mut each: impl FnMut(u32, &[u8]),
) -> Lines {
    let faults: Vec<Fault> = Fault::ALL
        .into_iter()
        .filter(|fault| fault.applies(input))
        .collect();
    let mut random = Random::of(day.seed, Stream::Faults, input as u64, 0);
    let (mut written, mut bytes) = (Lines::default(), Vec::new());
    for Message {
        partition,
        key,
        timestamp,
        value,
    } in messages
    {
        bytes.clear();
        let line = Line {
            key: &key,
            timestamp,
            value: value.as_ref(),
        };
        serde_json::to_writer(&mut bytes, &line).expect("records of strings and integers always encode");
        each(partition, &bytes);
        written.lines += 1;
        if value.is_some() && random.permille(1) {
            let fault = faults[random.below(faults.len() as u64) as usize];
            each(partition, &fault.spoil(input, &String::from_utf8_lossy(&bytes)));
            written.lines += 1;
            match fault.reason() {
                DeadLetterReason::Undecodable => written.undecodable += 1,
                _ => written.invalid += 1,
            }
        }
    }
    written
}

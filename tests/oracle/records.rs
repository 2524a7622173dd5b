//! The records of section 1 as tables: which fields an input's values have, and what makes one INVALID.
//!
//! Readings chosen, where the contract leaves room:
//! - `amount < 0` is INVALID in every record that has an `amount`, not only in `AccountEntry`.
//! - A rule's parameter is there when it is not null: an empty counterparty is one. The other parameter may
//!   be there too; it is not used.
//! - An `Address` of channel PUSH is taken as it stands, also when it is not the customer id.
//! - A field is known where its record names it: `{"amount":1,"amount":1}` is INVALID, an unknown name may
//!   repeat.

use super::json;
use serde_json::{Map, Value};

/// Event and message times lie in `0 ..= LAST_TIME`, milliseconds.
const LAST_TIME: i64 = 253_402_300_799_999;

/// What the value of a field must look like.
pub enum Shape {
    Text,
    Long,
    /// A `Long` that is not negative.
    Amount,
    /// A `Long` within the range of event times.
    Time,
    Symbol(&'static [&'static str]),
    Optional(&'static Shape),
    Array(&'static Shape),
    Record(Fields),
}

type Fields = &'static [(&'static str, Shape)];

use Shape::{Amount, Array, Long, Optional, Record, Symbol, Text, Time};

const CHANNEL: Shape = Symbol(&["EMAIL", "SMS", "PUSH"]);
const RULE_TYPES: &[&str] = &[
    "BALANCE_ABOVE",
    "BALANCE_BELOW",
    "CREDITED_ABOVE",
    "DEBITED_ABOVE",
    "CREDITED_FROM",
];

const ENTRY: Fields = &[
    ("entry_id", Text),
    ("account_id", Text),
    ("booked_at", Time),
    ("direction", Symbol(&["DEBIT", "CREDIT"])),
    ("amount", Amount),
    ("currency", Text),
    ("balance_after", Long),
    ("counterparty", Optional(&Text)),
];
const AUTHORIZATIONS: Fields = &[("account_id", Text), ("customers", Array(&Text))];
const SETTINGS: Fields = &[
    ("customer_id", Text),
    (
        "addresses",
        Array(&Record(&[("channel", CHANNEL), ("address", Text)])),
    ),
    ("accounts", Array(&Record(ACCOUNT_ALERTS))),
];
const ACCOUNT_ALERTS: Fields = &[
    ("account_id", Text),
    ("currency", Text),
    ("alerts", Array(&Record(ALERT_RULE))),
];
const ALERT_RULE: Fields = &[
    ("type", Symbol(RULE_TYPES)),
    ("threshold", Optional(&Long)),
    ("counterparty", Optional(&Text)),
    ("channels", Array(&CHANNEL)),
];
const DEVICES: Fields = &[
    ("customer_id", Text),
    (
        "devices",
        Array(&Record(&[("push_id", Text), ("device_type", Text)])),
    ),
];
const ORDER: Fields = &[
    ("order_id", Text),
    ("amount", Amount),
    ("currency", Text),
    ("placed_at", Time),
];
const PAYMENT: Fields = &[
    ("payment_id", Text),
    ("amount", Amount),
    ("currency", Text),
    ("paid_at", Time),
];
const TRANSACTION: Fields = &[
    ("transaction_id", Text),
    ("user_id", Text),
    ("amount", Amount),
    ("currency", Text),
    ("location", Text),
    ("occurred_at", Time),
];
const EVENT: Fields = &[("event_id", Text), ("occurred_at", Time)];

/// What an input's messages are.
pub struct Kind {
    fields: Fields,
    /// The field that must equal the message key.
    pub key: Option<&'static str>,
    /// The event time; a table has none.
    pub time: Option<&'static str>,
}

impl Kind {
    /// Whether the messages are a table's: a null value removes the row.
    pub fn is_table(&self) -> bool {
        self.time.is_none()
    }
}

/// The kind of messages the input of this name holds.
pub fn kind(input: &str) -> Kind {
    let (fields, key, time) = match input {
        "entries" => (ENTRY, Some("account_id"), Some("booked_at")),
        "authorizations" => (AUTHORIZATIONS, Some("account_id"), None),
        "settings" => (SETTINGS, Some("customer_id"), None),
        "devices" => (DEVICES, Some("customer_id"), None),
        "orders" => (ORDER, None, Some("placed_at")),
        "payments" => (PAYMENT, None, Some("paid_at")),
        "transactions" => (TRANSACTION, Some("user_id"), Some("occurred_at")),
        "events" => (EVENT, None, Some("occurred_at")),
        other => panic!("no dataflow has an input `{other}`"),
    };
    Kind { fields, key, time }
}

/// The record in a well-formed value: its known fields, absent unions as null; or what makes it INVALID.
pub fn read(kind: &Kind, value: &str) -> Result<Value, String> {
    let row = read_record(kind.fields, value)?;
    for account in row
        .get("accounts")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        for rule in account["alerts"].as_array().into_iter().flatten() {
            let parameter = if rule["type"] == "CREDITED_FROM" {
                "counterparty"
            } else {
                "threshold"
            };
            if rule[parameter].is_null() {
                return Err("a rule without its parameter".into());
            }
        }
    }
    Ok(row)
}

/// The time of a message, or nothing where it is null.
pub fn read_timestamp(span: &str) -> Result<Option<i64>, String> {
    read_shape(&Optional(&Time), span).map(|time| time.as_i64())
}

fn read_record(fields: Fields, span: &str) -> Result<Value, String> {
    let members = json::members(span).ok_or("not an object")?;
    let mut row = Map::new();
    for (name, shape) in fields {
        let given: Vec<&str> = members
            .iter()
            .filter(|(given, _)| given == name)
            .map(|(_, span)| *span)
            .collect();
        let value = match (given.as_slice(), shape) {
            ([span], _) => read_shape(shape, span).map_err(|error| format!("{name}: {error}"))?,
            ([], Optional(_)) => Value::Null,
            ([], _) => return Err(format!("{name}: missing")),
            _ => return Err(format!("{name}: given twice")),
        };
        row.insert((*name).into(), value);
    }
    Ok(Value::Object(row))
}

fn read_shape(shape: &Shape, span: &str) -> Result<Value, String> {
    let long_from = |least: i64, greatest: i64| {
        let long = json::integer(span).filter(|long| (least..=greatest).contains(long));
        long.map(Value::from)
            .ok_or(format!("not an integer in range: {span:.40}"))
    };
    match shape {
        Text => json::string(span).map(Value::from).ok_or("not a string".into()),
        Long => long_from(i64::MIN, i64::MAX),
        Amount => long_from(0, i64::MAX),
        Time => long_from(0, LAST_TIME),
        Symbol(symbols) => match json::string(span) {
            Some(symbol) if symbols.contains(&symbol.as_str()) => Ok(symbol.into()),
            _ => Err(format!("not one of {symbols:?}")),
        },
        Optional(_) if span == "null" => Ok(Value::Null),
        Optional(shape) => read_shape(shape, span),
        Array(shape) => {
            let spans = json::elements(span).ok_or("not an array")?;
            spans.into_iter().map(|span| read_shape(shape, span)).collect()
        }
        Record(fields) => read_record(fields, span),
    }
}

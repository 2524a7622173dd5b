//! The short hand in which the oracle's own tests write inputs and read results.
//!
//! A partition is one text: records separated by `;`, a record's words by spaces. What a record's words mean
//! stands at the function that turns them into a line. Results are read as one text: rows separated by `; `,
//! sorted.

use super::{Input, Job, Settings, expected};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// One case of a table: what it shows, the input, and what must come out of it.
pub struct Case {
    pub story: &'static str,
    /// Partitions of the first input, then (dataflows with two) of the second.
    pub inputs: &'static [&'static [&'static str]],
    pub rows: &'static str,
    pub dead: &'static str,
}

/// Turns the words of a record into a line.
pub type Line = fn(&[&str]) -> String;

/// A dataflow with everything its cases have in common.
pub struct Table {
    pub dataflow: &'static str,
    pub settings: Settings,
    /// Each input's name and what its records' words mean.
    pub inputs: &'static [(&'static str, Line)],
    /// Adapts the inputs, where a case is about their settings.
    pub adapt: fn(&mut Input),
    /// A row of any output but `dead_letters`, as text.
    pub show: fn(&Value) -> String,
}

impl Table {
    /// The job of a case.
    pub fn job(&self, case: &Case) -> Job {
        let inputs = self.inputs.iter().zip(case.inputs).map(|((name, line), texts)| {
            let mut input = Input::new(name, partitions(texts, *line));
            (self.adapt)(&mut input);
            (*name, input)
        });
        let mut job = Job::new(&[self.dataflow], inputs.collect());
        job.settings.insert(self.dataflow.into(), self.settings);
        job
    }

    /// Asserts what every case says.
    pub fn check(&self, cases: &[Case]) {
        for case in cases {
            let (rows, dead) = results(&self.job(case), self.show);
            assert_eq!(
                (rows.as_str(), dead.as_str()),
                (case.rows, case.dead),
                "{}",
                case.story
            );
        }
    }
}

/// All rows but dead letters as one text, and the dead letters as another.
pub fn results(job: &Job, show: fn(&Value) -> String) -> (String, String) {
    let mut outputs = expected(job).outputs;
    let dead = outputs
        .remove("dead_letters")
        .expect("every job has dead letters");
    let rows: Vec<Value> = outputs.into_values().flatten().collect();
    (joined(&rows, show), joined(&dead, show_dead_letter))
}

/// Rows as one sorted text.
pub fn joined(rows: &[Value], show: fn(&Value) -> String) -> String {
    let mut shown: Vec<String> = rows.iter().map(show).collect();
    shown.sort();
    shown.join("; ")
}

/// Rows as the text of an output file.
pub fn file<'a>(rows: impl IntoIterator<Item = &'a Value>) -> String {
    rows.into_iter().map(|row| format!("{row}\n")).collect()
}

/// The bytes of partitions written in short hand.
pub fn partitions(texts: &[&str], line: Line) -> Vec<Vec<u8>> {
    let bytes = |text: &&str| {
        let records = text
            .split(';')
            .map(|record| record.split_whitespace().collect::<Vec<_>>());
        records
            .filter(|words| !words.is_empty())
            .map(|words| line(&words) + "\n")
            .collect::<String>()
            .into_bytes()
    };
    texts.iter().map(bytes).collect()
}

/// `LATE k@5 for 7`: the key, the event time, the watermark; `INVALID k`, `UNDECODABLE`.
fn show_dead_letter(row: &Value) -> String {
    let value = &row["value"];
    let key = row["key"].as_str().unwrap_or("null");
    assert_eq!(
        value["key"]
            .as_str()
            .map(|key| STANDARD.decode(key).expect("base64")),
        row["key"].as_str().map(Vec::from)
    );
    match value["reason"].as_str() {
        Some("LATE") => format!("LATE {key}@{} for {}", value["event_time"], value["watermark"]),
        Some("INVALID") => format!("INVALID {key}"),
        _ => "UNDECODABLE".into(),
    }
}

/// The number a word of the short hand stands for, as it stands: it may be meant to be invalid.
fn number(word: &str) -> Value {
    word.parse::<i64>().map_or_else(|_| word.into(), Value::from)
}

/// `key time amount [currency]`.
pub fn order(words: &[&str]) -> String {
    let currency = words.get(3).unwrap_or(&"EUR");
    let value = json!({"order_id": format!("o{}", words[1]), "amount": number(words[2]), "currency": currency,
        "placed_at": number(words[1])});
    json!({"key": words[0], "value": value}).to_string()
}

/// `key time amount`.
pub fn payment(words: &[&str]) -> String {
    let value = json!({"payment_id": format!("p{}", words[1]), "amount": number(words[2]), "currency": "EUR",
        "paid_at": number(words[1])});
    json!({"key": words[0], "value": value}).to_string()
}

/// `user id time amount location`.
pub fn transaction(words: &[&str]) -> String {
    let value = json!({"transaction_id": words[1], "user_id": words[0], "amount": number(words[3]),
        "currency": "EUR", "location": words[4], "occurred_at": number(words[2])});
    json!({"key": words[0], "value": value}).to_string()
}

/// `key time`.
pub fn event(words: &[&str]) -> String {
    json!({"key": words[0], "value": {"event_id": "e", "occurred_at": number(words[1])}}).to_string()
}

/// `account id time ±amount balance [counterparty] [$currency]`: + is a CREDIT, - a DEBIT.
pub fn entry(words: &[&str]) -> String {
    let direction = if words[3].starts_with('+') {
        "CREDIT"
    } else {
        "DEBIT"
    };
    let currency = words[5..]
        .iter()
        .find_map(|word| word.strip_prefix('$'))
        .unwrap_or("EUR");
    let counterparty = words[5..].iter().find(|word| !word.starts_with('$'));
    let value = json!({"entry_id": words[1], "account_id": words[0], "booked_at": number(words[2]),
        "direction": direction, "amount": number(&words[3][1..]), "currency": currency,
        "balance_after": number(words[4]), "counterparty": counterparty});
    json!({"key": words[0], "value": value}).to_string()
}

/// `account customer ... [@time]`, or `account - [@time]` for a tombstone.
pub fn authorization(words: &[&str]) -> String {
    let customers: Vec<&&str> = words[1..].iter().filter(|word| !word.starts_with('@')).collect();
    table_line(words, json!({"account_id": words[0], "customers": customers}))
}

/// `customer CHANNEL=address ... account/currency/type/parameter/CHANNEL+CHANNEL ... [@time]`, or a
/// tombstone.
pub fn setting(words: &[&str]) -> String {
    let address = |word: &&str| {
        word.split_once('=')
            .map(|(channel, to)| json!({"channel": channel, "address": to}))
    };
    let account = |word: &&str| {
        let [account, currency, kind, parameter, channels] = word.split('/').collect::<Vec<_>>()[..] else {
            return None;
        };
        let channels: Vec<&str> = channels.split('+').collect();
        let parameter_name = if kind == "CREDITED_FROM" {
            "counterparty"
        } else {
            "threshold"
        };
        let rule = json!({"type": kind, parameter_name: number(parameter), "channels": channels});
        Some(json!({"account_id": account, "currency": currency, "alerts": [rule]}))
    };
    let addresses: Vec<Value> = words.iter().filter_map(address).collect();
    let accounts: Vec<Value> = words.iter().filter_map(account).collect();
    table_line(
        words,
        json!({"customer_id": words[0], "addresses": addresses, "accounts": accounts}),
    )
}

/// `customer push_id=device_type ... [@time]`, or a tombstone.
pub fn device(words: &[&str]) -> String {
    let device = |word: &&str| {
        word.split_once('=')
            .map(|(id, kind)| json!({"push_id": id, "device_type": kind}))
    };
    let devices: Vec<Value> = words.iter().filter_map(device).collect();
    table_line(words, json!({"customer_id": words[0], "devices": devices}))
}

fn table_line(words: &[&str], row: Value) -> String {
    let timestamp = words.iter().find_map(|word| word.strip_prefix('@')).map(number);
    let value = if words[1] == "-" { Value::Null } else { row };
    json!({"key": words[0], "value": value, "timestamp": timestamp}).to_string()
}

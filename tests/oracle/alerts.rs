//! Alerts: each entry meets the tables as they stand at the end of its tick's table messages.
//!
//! ```text
//!  authorizations  settings  devices      table messages, in order of tick
//!         └───────────┴─────────┘
//!                  tables as of the entry's tick ──> rules that hit ──> addresses ──> devices
//! ```
//!
//! Readings chosen, where the contract leaves room:
//! - Table messages apply by (tick, partition, offset). A key that keeps to one partition, as it must, thereby has
//!   its last write; what earlier runs consumed, and what has no time, is there from the start.
//! - An address is (channel, address): the same text as e-mail and as push address is two addresses.
//! - A customer with two push addresses has two push messages, but each device one message: the device is where it
//!   goes, and an `alert_id` goes there once. Devices are equal when push id and type are.
//! - `alert_id`s of different (customer, type, parameter) that happen to be spelt alike stay different alerts.

use super::log::{Log, Record};
use super::{Job, Results};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Rows of one table by key.
type Table<'a> = BTreeMap<&'a str, &'a Value>;

/// The rows of the alert outputs; `device_push` only where the job has the input `devices`.
pub fn results(job: &Job) -> Results {
    let logs = [job.required_log("authorizations"), job.required_log("settings")];
    let devices = job.log("devices");
    let logs: Vec<&Log> = logs.iter().chain(&devices).collect();
    let entry_log = job.required_log("entries");
    let mut entries: Vec<&Record> = entry_log.records.iter().filter(|entry| !entry.earlier).collect();
    entries.sort_by_key(|entry| (entry.tick, entry.partition, entry.offset));

    let mut updates: Vec<(Option<i64>, usize, &Record)> = Vec::new();
    for (table, log) in logs.iter().enumerate() {
        let tick = |update: &Record| update.tick.filter(|_| !update.earlier);
        updates.extend(log.records.iter().map(|update| (tick(update), table, update)));
    }
    updates.sort_by_key(|(tick, table, update)| (*tick, *table, update.partition, update.offset));

    let mut tables = [Table::new(), Table::new(), Table::new()];
    let mut updates = updates.into_iter().peekable();
    let mut outputs = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for entry in entries {
        while let Some((_, table, update)) = updates.next_if(|(tick, ..)| *tick <= entry.tick) {
            match &update.row {
                Value::Null => tables[table].remove(update.key.as_str()),
                row => tables[table].insert(&update.key, row),
            };
        }
        alert(entry, &tables, &mut outputs);
    }
    let names = ["email", "sms", "push", "device_push"];
    names.into_iter().zip(outputs).filter(|(name, _)| *name != "device_push" || devices.is_some()).collect()
}

/// Adds the messages of one entry to e-mail, SMS, push and device messages.
fn alert(entry: &Record, [authorizations, settings, devices]: &[Table; 3], outputs: &mut [Vec<Value>; 4]) {
    let customers: BTreeSet<&str> = authorizations.get(entry.key.as_str()).map_or_else(BTreeSet::new, |row| {
        list(row, "customers").filter_map(Value::as_str).collect()
    });
    for customer in customers {
        let Some(row) = settings.get(customer) else { continue };
        let addresses: BTreeSet<(&str, &str)> =
            list(row, "addresses").map(|address| (text(address, "channel"), text(address, "address"))).collect();
        for ((kind, parameter), channels) in rules_hit(entry, row) {
            let message = message(entry, customer, kind, parameter);
            let mut to_devices = BTreeSet::new();
            for (channel, address) in addresses.iter().filter(|(channel, _)| channels.contains(channel)) {
                let output = ["EMAIL", "SMS", "PUSH"].iter().position(|name| name == channel);
                outputs[output.expect("a checked channel")].push(json!({"key": address, "value": message}));
                if *channel == "PUSH" {
                    let owned = devices.get(customer).into_iter().flat_map(|row| list(row, "devices"));
                    to_devices.extend(owned.map(|device| (text(device, "push_id"), text(device, "device_type"))));
                }
            }
            for (push_id, device_type) in to_devices {
                let mut message = message.clone();
                message["device_type"] = device_type.into();
                outputs[3].push(json!({"key": push_id, "value": message}));
            }
        }
    }
}

/// What tells one rule of a customer's account from another: its type and the parameter that type uses.
type Rule<'a> = (&'a str, String);

/// The customer's rules that the entry hits, each with the union of its channels.
fn rules_hit<'a>(entry: &Record, settings: &'a Value) -> BTreeMap<Rule<'a>, BTreeSet<&'a str>> {
    let mut hits: BTreeMap<Rule, BTreeSet<&str>> = BTreeMap::new();
    let concerns_entry = |account: &&Value| {
        text(account, "account_id") == entry.key && text(account, "currency") == entry.text("currency")
    };
    for account in list(settings, "accounts").filter(concerns_entry) {
        for rule in list(account, "alerts").filter(|rule| is_hit(entry, rule)) {
            let parameter = match rule["threshold"].as_i64() {
                Some(threshold) if text(rule, "type") != "CREDITED_FROM" => threshold.to_string(),
                _ => text(rule, "counterparty").to_string(),
            };
            let channels = list(rule, "channels").filter_map(Value::as_str);
            hits.entry((text(rule, "type"), parameter)).or_default().extend(channels);
        }
    }
    hits
}

fn is_hit(entry: &Record, rule: &Value) -> bool {
    let is_credit = entry.text("direction") == "CREDIT";
    let amount = i128::from(entry.long("amount"));
    let after = i128::from(entry.long("balance_after"));
    let before = after - if is_credit { amount } else { -amount };
    let threshold = || i128::from(rule["threshold"].as_i64().expect("a checked rule has its threshold"));
    match text(rule, "type") {
        "BALANCE_ABOVE" => after > threshold() && before <= threshold(),
        "BALANCE_BELOW" => after < threshold() && before >= threshold(),
        "CREDITED_ABOVE" => is_credit && amount > threshold(),
        "DEBITED_ABOVE" => !is_credit && amount > threshold(),
        "CREDITED_FROM" => is_credit && rule["counterparty"] == entry.row["counterparty"],
        other => panic!("no rule type `{other}`"),
    }
}

/// The `OutboundMessage` of an alert.
fn message(entry: &Record, customer: &str, kind: &str, parameter: String) -> Value {
    let mut params = Map::new();
    params.insert("amount".into(), decimal(entry.long("amount")).into());
    params.insert("balance_after".into(), decimal(entry.long("balance_after")).into());
    params.insert("currency".into(), entry.text("currency").into());
    if kind != "CREDITED_FROM" {
        params.insert("threshold".into(), decimal(parameter.parse().expect("a threshold is an integer")).into());
    }
    if let Some(counterparty) = entry.row["counterparty"].as_str() {
        params.insert("counterparty".into(), counterparty.into());
    }
    json!({
        "alert_id": format!("{}/{customer}/{kind}/{parameter}", entry.text("entry_id")),
        "customer_id": customer,
        "type": kind,
        "account_id": entry.key,
        "entry_id": entry.text("entry_id"),
        "booked_at": entry.time,
        "params": params,
    })
}

/// Minor units as a decimal string with two digits.
fn decimal(minor: i64) -> String {
    let sign = if minor < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", minor.unsigned_abs() / 100, minor.unsigned_abs() % 100)
}

fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field].as_str().expect("the field is a checked string")
}

fn list<'a>(row: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    row[field].as_array().expect("the field is a checked array").iter()
}

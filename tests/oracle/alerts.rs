//! Alerts: each entry meets the tables as they stand at the end of its tick's table messages.
//!
//! ```text
//!  authorizations  settings  devices      table messages, in order of tick
//!         └───────────┴─────────┘
//!                  tables as of the entry's tick ──> rules that hit ──> addresses ──> devices
//! ```
//!
//! Readings chosen, where the contract leaves room:
//! - Table messages apply by (tick, partition, offset). A key that keeps to one partition, as it must,
//!   thereby has its last write; what earlier runs consumed, and what has no time, is there from the start.
//! - An address is (channel, address): the same text as e-mail and as push address is two addresses.
//! - A customer with two push addresses has two push messages, but each device one message: the device is
//!   where it goes, and an `alert_id` goes there once. Devices are equal when push id and type are.
//! - `alert_id`s of different (customer, type, parameter) that happen to be spelt alike stay different
//!   alerts.

use super::Logs;
use super::log::Record;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Rows of one table by key.
type Table<'a> = BTreeMap<&'a str, &'a Value>;

/// A message and where it comes from.
pub struct Alert {
    pub output: &'static str,
    /// (partition, offset) of the entry.
    pub origin: (usize, usize),
    pub row: Value,
}

/// All messages, in order of tick, then of their entries' (partition, offset).
pub fn alerts(logs: &Logs) -> Vec<Alert> {
    let entries = &logs["entries"].records;
    let tables = [
        Some(&logs["authorizations"]),
        Some(&logs["settings"]),
        logs.get("devices"),
    ];
    let mut entries: Vec<&Record> = entries.iter().filter(|entry| !entry.earlier).collect();
    entries.sort_by_key(|entry| (entry.tick, entry.partition, entry.offset));

    let mut updates: Vec<(Option<i64>, usize, &Record)> = Vec::new();
    for (table, log) in tables.into_iter().enumerate() {
        let tick = |update: &Record| update.tick.filter(|_| !update.earlier);
        updates.extend(
            log.into_iter()
                .flat_map(|log| &log.records)
                .map(|update| (tick(update), table, update)),
        );
    }
    updates.sort_by_key(|(tick, table, update)| (*tick, *table, update.partition, update.offset));

    let mut tables = [Table::new(), Table::new(), Table::new()];
    let mut updates = updates.into_iter().peekable();
    let mut alerts = Vec::new();
    for entry in entries {
        while let Some((_, table, update)) = updates.next_if(|(tick, ..)| *tick <= entry.tick) {
            match &update.row {
                Value::Null => tables[table].remove(update.key.as_str()),
                row => tables[table].insert(&update.key, row),
            };
        }
        alerts.extend(alerts_of(entry, &tables));
    }
    alerts
}

/// The messages of one entry.
fn alerts_of(entry: &Record, [authorizations, settings, devices]: &[Table; 3]) -> Vec<Alert> {
    let mut alerts = Vec::new();
    let mut send = |output, to: &str, message: &Value| {
        let row = json!({"key": to, "value": message});
        alerts.push(Alert {
            output,
            origin: (entry.partition, entry.offset),
            row,
        });
    };
    let customers: BTreeSet<&str> = authorizations
        .get(entry.key.as_str())
        .map_or_else(BTreeSet::new, |row| {
            list(row, "customers").filter_map(Value::as_str).collect()
        });
    for customer in customers {
        let Some(row) = settings.get(customer) else {
            continue;
        };
        let addresses: BTreeSet<(&str, &str)> = list(row, "addresses")
            .map(|address| (text(address, "channel"), text(address, "address")))
            .collect();
        for ((kind, parameter), channels) in rules_hit(entry, row) {
            let message = message(entry, customer, kind, &parameter);
            let mut to_devices = BTreeSet::new();
            for (channel, address) in addresses.iter().filter(|(channel, _)| channels.contains(channel)) {
                send(output_of(channel), address, &message);
                if *channel == "PUSH" {
                    let owned = devices
                        .get(customer)
                        .into_iter()
                        .flat_map(|row| list(row, "devices"));
                    to_devices
                        .extend(owned.map(|device| (text(device, "push_id"), text(device, "device_type"))));
                }
            }
            for (push_id, device_type) in to_devices {
                let mut message = message.clone();
                message["device_type"] = device_type.into();
                send("device_push", push_id, &message);
            }
        }
    }
    alerts
}

fn output_of(channel: &str) -> &'static str {
    match channel {
        "EMAIL" => "email",
        "SMS" => "sms",
        "PUSH" => "push",
        other => panic!("no channel `{other}`"),
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
            hits.entry((text(rule, "type"), parameter))
                .or_default()
                .extend(channels);
        }
    }
    hits
}

fn is_hit(entry: &Record, rule: &Value) -> bool {
    let is_credit = entry.text("direction") == "CREDIT";
    let amount = i128::from(entry.long("amount"));
    let after = i128::from(entry.long("balance_after"));
    let before = after - if is_credit { amount } else { -amount };
    let threshold = || {
        i128::from(
            rule["threshold"]
                .as_i64()
                .expect("a checked rule has its threshold"),
        )
    };
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
fn message(entry: &Record, customer: &str, kind: &str, parameter: &str) -> Value {
    let mut params = Map::new();
    params.insert("amount".into(), decimal(entry.long("amount")).into());
    params.insert(
        "balance_after".into(),
        decimal(entry.long("balance_after")).into(),
    );
    params.insert("currency".into(), entry.text("currency").into());
    if kind != "CREDITED_FROM" {
        params.insert(
            "threshold".into(),
            decimal(parameter.parse().expect("a threshold is an integer")).into(),
        );
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
    format!(
        "{sign}{}.{:02}",
        minor.unsigned_abs() / 100,
        minor.unsigned_abs() % 100
    )
}

fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field].as_str().expect("the field is a checked string")
}

fn list<'a>(row: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    row[field]
        .as_array()
        .expect("the field is a checked array")
        .iter()
}

#[cfg(test)]
mod tests {
    use super::super::cases::{Case, Table, authorization, device, entry, results, setting};
    use super::super::{Emit, Settings, expected};
    use serde_json::Value;

    const TABLE: Table = Table {
        dataflow: "alerts",
        settings: Settings {
            size_ms: None,
            grace_ms: None,
            within_ms: None,
            limit: None,
            emit: Emit::Final,
        },
        inputs: &[
            ("entries", entry),
            ("authorizations", authorization),
            ("settings", setting),
            ("devices", device),
        ],
        adapt: |_| {},
        show,
    };

    /// `address<alert_id`, of a device message with its type.
    fn show(row: &Value) -> String {
        let [key, alert_id] =
            [&row["key"], &row["value"]["alert_id"]].map(|text| text.as_str().expect("a text"));
        match row["value"]["device_type"].as_str() {
            Some(device_type) => format!("{key}({device_type})<{alert_id}"),
            None => format!("{key}<{alert_id}"),
        }
    }

    #[rustfmt::skip]
    const RULES: &[Case] = &[
        Case { story: "no tables", inputs: &[&["A e 1 +5 5"], &[""], &[""]], rows: "", dead: "" },
        Case { story: "authorized without settings, settings without authorization",
            inputs: &[&["A e 1 +5 5; B f 1 +5 5"], &["A c"], &["d EMAIL=m B/EUR/CREDITED_ABOVE/1/EMAIL"]],
            rows: "", dead: "" },
        Case { story: "BALANCE_ABOVE: from at most the threshold to more, whatever the direction",
            inputs: &[&["A x 1 +10 110; A y 2 +10 120; A z 3 -10 110; A n 4 +10 100"], &["A c"],
                &["c EMAIL=m A/EUR/BALANCE_ABOVE/100/EMAIL"]], rows: "m<x/c/BALANCE_ABOVE/100", dead: "" },
        Case { story: "BALANCE_BELOW: from at least the threshold to less",
            inputs: &[&["A x 1 -1 99; A y 2 -1 98; A n 3 -10 100"], &["A c"],
                &["c EMAIL=m A/EUR/BALANCE_BELOW/100/EMAIL"]], rows: "m<x/c/BALANCE_BELOW/100", dead: "" },
        Case { story: "CREDITED_ABOVE and DEBITED_ABOVE: more than, each its direction",
            inputs: &[&["A p 1 +6 0; A q 1 +5 0; A r 1 -6 0; A s 1 -5 0"], &["A c"],
                &["c EMAIL=m A/EUR/CREDITED_ABOVE/5/EMAIL A/EUR/DEBITED_ABOVE/5/EMAIL"]],
            rows: "m<p/c/CREDITED_ABOVE/5; m<r/c/DEBITED_ABOVE/5", dead: "" },
        Case { story: "a negative threshold; an amount of zero is above it",
            inputs: &[&["A x 1 +0 -5"], &["A c"], &["c EMAIL=m A/EUR/CREDITED_ABOVE/-1/EMAIL"]],
            rows: "m<x/c/CREDITED_ABOVE/-1", dead: "" },
        Case { story: "CREDITED_FROM: a credit with that very counterparty",
            inputs: &[&["A x 1 +6 0 bob; A y 1 -6 0 bob; A z 1 +6 0 Bob; A n 1 +6 0"], &["A c"],
                &["c EMAIL=m A/EUR/CREDITED_FROM/bob/EMAIL"]], rows: "m<x/c/CREDITED_FROM/bob", dead: "" },
        Case { story: "another currency",
            inputs: &[&["A x 1 +6 0 $USD; A y 1 +6 0"], &["A c"],
                &["c EMAIL=m A/USD/CREDITED_ABOVE/1/EMAIL"]],
            rows: "m<x/c/CREDITED_ABOVE/1", dead: "" },
        Case { story: "the balance before is below what 64 bits hold",
            inputs: &[&["A x 1 +9223372036854775807 -9223372036854775807"], &["A c"],
                &["c EMAIL=m A/EUR/BALANCE_ABOVE/-9223372036854775808/EMAIL"]],
            rows: "m<x/c/BALANCE_ABOVE/-9223372036854775808", dead: "" },
        Case { story: "equal rules, customers and addresses count once; rules differing in channels are one",
            inputs: &[&["A x 1 +6 0"], &["A c c"],
                &["c EMAIL=m EMAIL=m SMS=s EMAIL=n \
                    A/EUR/CREDITED_ABOVE/1/EMAIL A/EUR/CREDITED_ABOVE/1/EMAIL+SMS"]],
            rows: "m<x/c/CREDITED_ABOVE/1; n<x/c/CREDITED_ABOVE/1; s<x/c/CREDITED_ABOVE/1", dead: "" },
        Case { story: "a rule of the account's other list, and a channel without address",
            inputs: &[&["A x 1 +6 0"], &["A c"],
                &["c EMAIL=m A/EUR/CREDITED_ABOVE/1/EMAIL A/EUR/CREDITED_ABOVE/2/EMAIL+PUSH \
                    B/EUR/CREDITED_ABOVE/3/EMAIL"]],
            rows: "m<x/c/CREDITED_ABOVE/1; m<x/c/CREDITED_ABOVE/2", dead: "" },
        Case { story: "two customers with one address",
            inputs: &[&["A x 1 +6 0"], &["A c d"],
                &["c EMAIL=m A/EUR/CREDITED_ABOVE/1/EMAIL", "d EMAIL=m A/EUR/CREDITED_ABOVE/1/EMAIL"]],
            rows: "m<x/c/CREDITED_ABOVE/1; m<x/d/CREDITED_ABOVE/1", dead: "" },
        Case { story: "two entries with one id are two entries",
            inputs: &[&["A x 1 +6 0; A x 1 +6 0"], &["A c"], &["c EMAIL=m A/EUR/CREDITED_ABOVE/1/EMAIL"]],
            rows: "m<x/c/CREDITED_ABOVE/1; m<x/c/CREDITED_ABOVE/1", dead: "" },
        Case { story: "devices: equal ones once, of push messages only",
            inputs: &[&["A x 1 +6 0; B y 1 +6 0"], &["A c; B d"],
                &["c PUSH=c A/EUR/CREDITED_ABOVE/1/PUSH; d EMAIL=m B/EUR/CREDITED_ABOVE/1/PUSH+EMAIL"],
                &["c p=ios p=ios p=watch q=ios; d r=ios"]],
            rows: "c<x/c/CREDITED_ABOVE/1; m<y/d/CREDITED_ABOVE/1; p(ios)<x/c/CREDITED_ABOVE/1; \
                p(watch)<x/c/CREDITED_ABOVE/1; q(ios)<x/c/CREDITED_ABOVE/1", dead: "" },
        Case { story: "two push addresses, one message to the device",
            inputs: &[&["A x 1 +6 0"], &["A c"],
                &["c PUSH=c PUSH=d A/EUR/CREDITED_ABOVE/1/PUSH"], &["c p=ios"]],
            rows: "c<x/c/CREDITED_ABOVE/1; d<x/c/CREDITED_ABOVE/1; p(ios)<x/c/CREDITED_ABOVE/1", dead: "" },
    ];

    /// Ticks are seconds. Every case asks who is alerted (or where) when.
    #[rustfmt::skip]
    const AS_OF: &[Case] = &[
        Case { story: "a tick's table messages come before its entries, the next tick's after",
            inputs: &[&["A x 999 +6 0; A y 1000 +6 0; A z 1999 +6 0"], &["A c"],
                &["c EMAIL=m A/EUR/CREDITED_ABOVE/1/EMAIL @1999"]],
            rows: "m<y/c/CREDITED_ABOVE/1; m<z/c/CREDITED_ABOVE/1", dead: "" },
        Case { story: "an older entry stands where the greatest time before it in its partition does",
            inputs: &[&["A x 2000 +6 0; A y 5 +6 0", "A z 5 +6 0"], &["A c"],
                &["c EMAIL=m A/EUR/CREDITED_ABOVE/1/EMAIL @1000"]],
            rows: "m<x/c/CREDITED_ABOVE/1; m<y/c/CREDITED_ABOVE/1", dead: "" },
        Case { story: "an invalid entry moves no as-of time",
            inputs: &[&["A x 2000 +-6 0; A y 5 +6 0"], &["A c"],
                &["c EMAIL=m A/EUR/CREDITED_ABOVE/1/EMAIL @1000"]],
            rows: "", dead: "INVALID A" },
        Case { story: "the last write wins, in one tick and over ticks",
            inputs: &[&["A x 5 +6 0; A y 1000 +6 0"], &["A c @0; A d @1; A e @1000"],
                &["c EMAIL=c A/EUR/CREDITED_ABOVE/1/EMAIL; d EMAIL=d A/EUR/CREDITED_ABOVE/1/EMAIL; \
                    e EMAIL=e A/EUR/CREDITED_ABOVE/1/EMAIL"]],
            rows: "d<x/d/CREDITED_ABOVE/1; e<y/e/CREDITED_ABOVE/1", dead: "" },
        Case { story: "tombstones remove from their tick on; a row may come back",
            inputs: &[&["A x 5 +6 0; A y 1000 +6 0; A z 2000 +6 0"], &["A c; A - @1000; A c @2000"],
                &["c EMAIL=m A/EUR/CREDITED_ABOVE/1/EMAIL"]],
            rows: "m<x/c/CREDITED_ABOVE/1; m<z/c/CREDITED_ABOVE/1", dead: "" },
        Case { story: "a settings tombstone, a device tombstone, one of a row that never was",
            inputs: &[&["A x 5 +6 0; A y 1000 +6 0; A z 2000 +6 0"], &["A c; B -"],
                &["c PUSH=c A/EUR/CREDITED_ABOVE/1/PUSH; c - @2000"], &["c p=ios; c - @1000"]],
            rows: "c<x/c/CREDITED_ABOVE/1; c<y/c/CREDITED_ABOVE/1; p(ios)<x/c/CREDITED_ABOVE/1", dead: "" },
        Case { story: "a message without time takes that of the one before it, and time does not run back",
            inputs: &[&["A x 5 +6 0; A y 1000 +6 0"], &["Z q @1000; A c"],
                &["Z PUSH=q @1000; c EMAIL=m A/EUR/CREDITED_ABOVE/1/EMAIL @0"]],
            rows: "m<y/c/CREDITED_ABOVE/1", dead: "" },
        Case { story: "before any time, it is there from the start",
            inputs: &[&["A x 0 +6 0"], &["A c; Z q @9000"], &["c EMAIL=m A/EUR/CREDITED_ABOVE/1/EMAIL"]],
            rows: "m<x/c/CREDITED_ABOVE/1", dead: "" },
        Case { story: "an invalid message leaves the row, and its time moves nothing",
            inputs: &[&["A x 5 +6 0"], &["A c"],
                &["c EMAIL=m A/EUR/CREDITED_ABOVE/1/EMAIL; c EMAIL=m A/EUR/CREDITED_ABOVE/no/EMAIL @3000; \
                    c EMAIL=n A/EUR/CREDITED_ABOVE/2/EMAIL"]],
            rows: "n<x/c/CREDITED_ABOVE/2", dead: "INVALID c" },
        Case { story: "a message time that is none, or too late to be one",
            inputs: &[&["A x 5 +6 0"], &["A c; A d @x; A d @-1; A d @253402300800000"],
                &["c EMAIL=m A/EUR/CREDITED_ABOVE/1/EMAIL"]],
            rows: "m<x/c/CREDITED_ABOVE/1", dead: "INVALID A; INVALID A; INVALID A" },
    ];

    #[test]
    fn rules() {
        TABLE.check(RULES);
    }

    #[test]
    fn tables_as_of_the_entry() {
        TABLE.check(AS_OF);
    }

    #[test]
    fn a_message_shows_the_entry_in_full() {
        #[rustfmt::skip]
        let case = Case { story: "", inputs: &[&["A x 1 +12345 -7 bob"], &["A c"],
            &["c EMAIL=m SMS=s A/EUR/CREDITED_ABOVE/5/EMAIL A/EUR/CREDITED_FROM/bob/SMS"]],
            rows: "", dead: "" };
        let outputs = expected(&TABLE.job(&case)).outputs;
        let names: Vec<&str> = outputs.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["dead_letters", "email", "push", "sms"],
            "no device_push without devices"
        );
        let message = |kind: &str, parameter: &str, threshold: &str| {
            let text = format!(
                r#"{{"alert_id":"x/c/{kind}/{parameter}","customer_id":"c","type":"{kind}","account_id":"A",
                "entry_id":"x","booked_at":1,"params":{{"amount":"123.45","balance_after":"-0.07",
                "currency":"EUR",{threshold}
                "counterparty":"bob"}}}}"#
            );
            serde_json::from_str::<Value>(&text).expect("a message")
        };
        assert_eq!(
            outputs["email"][0]["value"],
            message("CREDITED_ABOVE", "5", r#""threshold":"0.05","#)
        );
        assert_eq!(outputs["sms"][0]["value"], message("CREDITED_FROM", "bob", ""));
    }

    #[test]
    fn decimals_have_two_digits() {
        for (minor, text) in [
            (0, "0.00"),
            (5, "0.05"),
            (-5, "-0.05"),
            (-100, "-1.00"),
            (123_456, "1234.56"),
        ] {
            assert_eq!(super::decimal(minor), text);
        }
        assert_eq!(super::decimal(i64::MIN), "-92233720368547758.08");
    }

    #[test]
    fn a_later_run_keeps_the_tables_and_alerts_only_on_what_is_new() {
        #[rustfmt::skip]
        let case = Case { story: "", inputs: &[&["A x 5000 +6 0; A y 0 +6 0"], &["A c @9000"],
            &["c EMAIL=m A/EUR/CREDITED_ABOVE/1/EMAIL; c EMAIL=n A/EUR/CREDITED_ABOVE/1/EMAIL"]],
            rows: "", dead: "" };
        let mut job = TABLE.job(&case);
        let first_lines = [
            ("entries", entry(&["A", "x", "5000", "+6", "0"])),
            (
                "settings",
                setting(&["c", "EMAIL=m", "A/EUR/CREDITED_ABOVE/1/EMAIL"]),
            ),
            ("authorizations", authorization(&["A", "c", "@9000"])),
        ];
        for (input, line) in first_lines {
            job.from.insert((input.into(), 0), line.len() + 1);
        }
        // The first run saw the authorization after its entries; the second has it from the start, and the
        // new settings too, for they have no time.
        assert_eq!(
            results(&job, show),
            ("n<y/c/CREDITED_ABOVE/1".into(), String::new())
        );
        job.from.clear();
        assert_eq!(results(&job, show), (String::new(), String::new()));
    }
}

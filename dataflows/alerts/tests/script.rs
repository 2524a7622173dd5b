//! Scripts: records as lines of text in, messages out.
//!
//! ```text
//!  settings C1 = EMAIL:c1@x PUSH:C1 ; A1 EUR BALANCE_ABOVE 100 EMAIL,PUSH ; A1 EUR ...
//!  authorize A1 = C1 C2                devices C1 = p1/ios p2/android
//!  authorize A1                        (also settings C1, devices C1) a tombstone
//!  entry e1 A1 +500 EUR 1500 shop      (also retract ...)
//!  ---                                 the next epoch
//! ```
//!
//! An entry is id, account, signed amount, currency, balance after, and counterparty if there is one. A
//! line's number is its offset; lines are dealt out to the workers.

use crate::alerts::{Inputs, build};
use crate::records::{
    AccountAlerts, AccountAuthorizations, AccountEntry, Address, AlertRule, Channel, CustomerAlertSettings,
    CustomerDevices, Device, Direction, RuleType,
};
use differential_dataflow::AsCollection;
use std::sync::{Arc, Mutex};
use tidegate::format::json::write_line;
use tidegate::operators::Context;
use tidegate::record::{Messages, Origin, Output, Rank, Records, Stamped, Text, Write, key_hash};
use tidegate::time::BEFORE_ALL;
use timely::dataflow::InputHandle;
use timely::dataflow::operators::Inspect;
use timely::dataflow::operators::generic::operator::empty;
use timely::dataflow::operators::vec::Input;

/// A message as it was sent: epoch, output, rank and the JSON line.
pub type Sent = (u64, &'static str, Rank, String);

fn channel(name: &str) -> Channel {
    let all = [Channel::Email, Channel::Sms, Channel::Push];
    let found = all.into_iter().find(|channel| channel.symbol() == name);
    found.unwrap_or_else(|| panic!("{name} is no channel"))
}

fn rule(words: &[&str]) -> AlertRule {
    let [kind, parameter, channels] = words else {
        panic!("{words:?} is no rule")
    };
    let all = [
        RuleType::BalanceAbove,
        RuleType::BalanceBelow,
        RuleType::CreditedAbove,
        RuleType::DebitedAbove,
        RuleType::CreditedFrom,
    ];
    let found = all.into_iter().find(|rule| rule.symbol() == *kind);
    AlertRule {
        r#type: found.unwrap_or_else(|| panic!("{kind} is no rule")),
        // Both parameters, as far as they go: a kind uses only its own.
        threshold: parameter.parse().ok(),
        counterparty: Some((*parameter).into()),
        channels: channels.split(',').map(channel).collect(),
    }
}

/// `EMAIL:c1@x PUSH:C1 ; A1 EUR BALANCE_ABOVE 100 EMAIL,PUSH`
fn settings(customer: &str, text: &str) -> CustomerAlertSettings {
    let mut parts = text.split(';');
    let addresses = parts.next().unwrap_or_default().split_whitespace();
    let addresses = addresses.map(|address| {
        let (name, address) = address.split_once(':').expect("CHANNEL:address");
        Address {
            channel: channel(name),
            address: address.into(),
        }
    });
    let accounts = parts.map(|part| {
        let words: Vec<_> = part.split_whitespace().collect();
        AccountAlerts {
            account_id: words[0].into(),
            currency: words[1].into(),
            alerts: vec![rule(&words[2..])],
        }
    });
    CustomerAlertSettings {
        customer_id: customer.into(),
        addresses: addresses.collect(),
        accounts: accounts.collect(),
    }
}

fn devices(customer: &str, text: &str) -> CustomerDevices {
    let devices = text
        .split_whitespace()
        .map(|device| device.split_once('/').expect("id/type"));
    let devices = devices.map(|(push_id, device_type)| Device {
        push_id: push_id.into(),
        device_type: device_type.into(),
    });
    CustomerDevices {
        customer_id: customer.into(),
        devices: devices.collect(),
    }
}

fn entry(id: &str, account: &str, words: &[&str]) -> AccountEntry {
    let signed: i128 = words[0].parse().expect("a signed amount");
    AccountEntry {
        entry_id: id.into(),
        account_id: account.into(),
        booked_at: 1_000,
        direction: if signed < 0 {
            Direction::Debit
        } else {
            Direction::Credit
        },
        amount: i64::try_from(signed.unsigned_abs()).expect("an amount"),
        currency: words[1].into(),
        balance_after: words[2].parse().expect("a balance"),
        counterparty: words.get(3).map(|name| (*name).into()),
    }
}

fn write<R>(key: &str, origin: Origin, value: Option<R>) -> Write<R> {
    let hash = key_hash(key.as_bytes());
    Write {
        key: key.into(),
        hash,
        origin,
        value,
    }
}

/// One line of a script.
#[derive(Clone)]
enum Line {
    Authorize(Write<AccountAuthorizations>),
    Settings(Write<CustomerAlertSettings>),
    Devices(Write<CustomerDevices>),
    Entry(Stamped<AccountEntry>, i64),
}

fn parse(line: &str, offset: u64) -> Line {
    let origin = Origin { partition: 0, offset };
    let (head, body) = match line.split_once('=') {
        Some((head, body)) => (head, Some(body)),
        None => (line, None),
    };
    match head.split_whitespace().collect::<Vec<_>>()[..] {
        ["authorize", key] => {
            let value = body.map(|body| AccountAuthorizations {
                account_id: key.into(),
                customers: body.split_whitespace().map(Text::from).collect(),
            });
            Line::Authorize(write(key, origin, value))
        }
        ["settings", key] => Line::Settings(write(key, origin, body.map(|body| settings(key, body)))),
        ["devices", key] => Line::Devices(write(key, origin, body.map(|body| devices(key, body)))),
        [verb @ ("entry" | "retract"), id, account, ref words @ ..] => {
            let stamped = Stamped {
                key: account.into(),
                hash: key_hash(account.as_bytes()),
                origin,
                watermark: BEFORE_ALL,
                raw: None,
                value: entry(id, account, words),
            };
            Line::Entry(stamped, if verb == "entry" { 1 } else { -1 })
        }
        _ => panic!("{line} is no line of a script"),
    }
}

/// The lines of a script with their epochs.
fn parse_all(script: &str) -> Vec<(u64, Line)> {
    let mut epoch = 0;
    let mut lines = Vec::new();
    for (offset, line) in (0..).zip(script.lines().map(str::trim)) {
        match line {
            "" => {}
            "---" => epoch += 1,
            line => lines.push((epoch, parse(line, offset))),
        }
    }
    lines
}

/// Runs the script on so many workers and gives all messages, in the order of their output.
pub fn run(script: &str, workers: usize, with_devices: bool) -> Vec<Sent> {
    let lines = parse_all(script);
    let sent = Arc::new(Mutex::new(Vec::new()));
    let sent_in = Arc::clone(&sent);
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let mut entries = InputHandle::new();
        let mut authorizations = InputHandle::new();
        let mut settings = InputHandle::new();
        let mut devices = InputHandle::new();
        worker.dataflow::<u64, _, _>(|scope| {
            let device_updates = scope.input_from(&mut devices).as_collection();
            let inputs = Inputs {
                entries: Records {
                    updates: scope.input_from(&mut entries).as_collection(),
                    watermark: empty(scope),
                },
                authorizations: scope.input_from(&mut authorizations).as_collection(),
                settings: scope.input_from(&mut settings).as_collection(),
                devices: with_devices.then_some(device_updates),
            };
            let outputs = build(&Context::without_checkpoints(scope), inputs);
            collect("email", outputs.email, &sent_in);
            collect("sms", outputs.sms, &sent_in);
            collect("push", outputs.push, &sent_in);
            if let Some(device_push) = outputs.device_push {
                collect("device_push", device_push, &sent_in);
            }
        });
        let (index, peers) = (worker.index(), worker.peers());
        for (epoch, line) in lines.iter().skip(index).step_by(peers).cloned() {
            entries.advance_to(epoch);
            authorizations.advance_to(epoch);
            settings.advance_to(epoch);
            devices.advance_to(epoch);
            match line {
                Line::Authorize(write) => authorizations.send((write, epoch, 1)),
                Line::Settings(write) => settings.send((write, epoch, 1)),
                Line::Devices(write) => devices.send((write, epoch, 1)),
                Line::Entry(entry, diff) => entries.send((entry, epoch, diff)),
            }
            worker.step();
        }
    });
    let guards = guards.expect("timely starts").join();
    guards
        .into_iter()
        .for_each(|result| result.expect("no worker panicked"));
    let mut sent = std::mem::take(&mut *sent.lock().expect("workers are gone"));
    sent.sort();
    sent
}

fn collect<O: Output>(output: &'static str, messages: Messages<'_, O>, sent: &Arc<Mutex<Vec<Sent>>>) {
    let sent = Arc::clone(sent);
    messages.inspect_time(move |epoch, message| {
        let mut line = Vec::new();
        write_line(message, &mut line);
        let line = String::from_utf8(line).expect("JSON is text");
        sent.lock().expect("no panic holds it").push((
            *epoch,
            output,
            message.rank(),
            line.trim_end().to_owned(),
        ));
    });
}

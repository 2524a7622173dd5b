//! Seeded small jobs of extremes: few keys, ties, disorder, times at both ends of their range, amounts at the
//! ends of 64 bits, rows rewritten and removed all the time, and random settings. A failure names its seed.

use crate::jobs::{DATAFLOWS, all_outputs, hold, lay_out, run};
use crate::oracle::{Emit, Input, Job, Settings, expected};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Jobs that are tried.
const SEEDS: std::ops::Range<u64> = 0..24;

/// A seeded source of choices.
struct Choices(u64);

impl Choices {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// A name out of a few.
    fn name(&mut self, prefix: &str) -> String {
        format!("{prefix}{}", self.below(4))
    }

    /// One to four of what `each` gives.
    fn some(&mut self, mut each: impl FnMut(&mut Choices) -> Value) -> Vec<Value> {
        (0..=self.below(4)).map(|_| each(self)).collect()
    }

    /// An event time: most within a fifth of a second of the clock, some far off, some no time at all.
    fn time(&mut self, clock: i64) -> i64 {
        match self.below(1_000) {
            0 => 253_402_300_799_999,
            1 => -1,
            2 => 0,
            _ => clock + self.below(200) as i64,
        }
    }

    fn amount(&mut self) -> i64 {
        self.of(&[0, 1, 50, 100, 101, 150, 150, 150, i64::MAX, -1])
    }
}

/// The message at this time on the clock, as a line; tables have a time of their own or none.
fn message(input: &str, clock: i64, choices: &mut Choices) -> (String, Value) {
    let time = choices.time(clock);
    let currency = choices.of(&["EUR", "EUR", "USD"]);
    let (key, value) = match input {
        "entries" => {
            let account = choices.name("A");
            let value = json!({"entry_id": choices.name("e"), "account_id": account, "booked_at": time,
                "direction": choices.of(&["CREDIT", "DEBIT"]), "amount": choices.amount(),
                "currency": currency,
                "balance_after": choices.of(&[i64::MIN, -100, 0, 99, 100, 101, i64::MAX]),
                "counterparty": choices.of(&[None, Some("X"), Some("")])});
            (account, value)
        }
        "authorizations" => {
            let account = choices.name("A");
            let customers = choices.some(|choices| choices.name("C").into());
            (
                account.clone(),
                json!({"account_id": account, "customers": customers}),
            )
        }
        "settings" => {
            let customer = choices.name("C");
            (customer.clone(), settings(&customer, choices))
        }
        "devices" => {
            let customer = choices.name("C");
            let device = |choices: &mut Choices| {
                let (push_id, device_type) = (choices.name("p"), choices.name("t"));
                json!({"push_id": push_id, "device_type": device_type})
            };
            (
                customer.clone(),
                json!({"customer_id": customer, "devices": choices.some(device)}),
            )
        }
        "orders" | "payments" => {
            let [id, at] = if input == "orders" {
                ["order_id", "placed_at"]
            } else {
                ["payment_id", "paid_at"]
            };
            (
                choices.name("K"),
                json!({id: choices.name("i"), "amount": choices.amount(), "currency": currency, at: time}),
            )
        }
        "transactions" => {
            let user = choices.name("U");
            let value = json!({"transaction_id": choices.name("t"), "user_id": user,
                "amount": choices.amount(),
                "currency": currency, "location": choices.of(&["X", "Y"]), "occurred_at": time});
            (user, value)
        }
        _ => (choices.name("E"), json!({"event_id": "e", "occurred_at": time})),
    };
    let mut line = json!({"key": key, "value": value});
    if is_table(input) {
        if choices.below(3) > 0 {
            line["timestamp"] = time.into();
        }
        if choices.below(10) == 0 {
            line["value"] = Value::Null;
        }
    }
    (key, line)
}

fn settings(customer: &str, choices: &mut Choices) -> Value {
    let addresses = choices.some(
        |choices| json!({"channel": choices.of(&["EMAIL", "SMS", "PUSH"]), "address": choices.name("@")}),
    );
    let rule = |choices: &mut Choices| {
        let channels = choices.some(|choices| choices.of(&["EMAIL", "SMS", "PUSH"]).into());
        let kind = choices.of(&[
            "BALANCE_ABOVE",
            "BALANCE_BELOW",
            "CREDITED_ABOVE",
            "DEBITED_ABOVE",
            "CREDITED_FROM",
        ]);
        let threshold = choices.of(&[-100, 0, 100, 100]);
        json!({"type": kind, "threshold": threshold, "counterparty": choices.of(&["X", ""]),
            "channels": channels})
    };
    let accounts = choices.some(|choices| {
        json!({"account_id": choices.name("A"), "currency": choices.of(&["EUR", "EUR", "USD"]),
            "alerts": choices.some(rule)})
    });
    json!({"customer_id": customer, "addresses": addresses, "accounts": accounts})
}

fn is_table(input: &str) -> bool {
    ["authorizations", "settings", "devices"].contains(&input)
}

/// All dataflows over inputs of a few hundred messages, with windows, joins and patterns of some tens of
/// milliseconds.
fn wild(seed: u64) -> Job {
    let mut choices = Choices(seed);
    let names = DATAFLOWS.iter().flat_map(|(_, inputs, _)| inputs.iter().copied());
    let mut inputs: Vec<(&str, Input)> = Vec::new();
    for name in names {
        let count = 1 + choices.below(3);
        let mut partitions = vec![Vec::new(); count];
        let messages = choices.of(&[0, 100, 300, 300]);
        for at in 0..messages {
            let (key, line) = message(name, 5 * i64::from(at), &mut choices);
            // A table's key keeps to one partition.
            let by_key = usize::from(key.as_bytes()[key.len() - 1]);
            let partition = if is_table(name) {
                by_key
            } else {
                choices.below(count)
            } % count;
            partitions[partition].extend(format!("{line}\n").bytes());
        }
        let mut input = Input::new(name, partitions);
        if !is_table(name) {
            input.max_out_of_orderness_ms = choices.of(&[0, 0, 20, 200]);
            input.max_jump_ms = choices.of(&[None, Some(1_000)]);
        }
        inputs.retain(|(known, _)| *known != name);
        inputs.push((name, input));
    }
    let mut job = Job::new(&DATAFLOWS.map(|(dataflow, ..)| dataflow), inputs);
    job.replay_tick_ms = choices.of(&[1, 7, 100, 1_000]);
    let settings = Settings {
        size_ms: None,
        grace_ms: Some(choices.of(&[0, 10, 100])),
        within_ms: Some(choices.of(&[1, 20, 60])),
        limit: None,
        emit: Emit::Final,
    };
    let (size_ms, limit) = (Some(choices.of(&[1, 50, 77])), Some(100));
    let windows = Settings {
        size_ms,
        within_ms: None,
        emit: choices.of(&[Emit::Final, Emit::Changes]),
        ..settings
    };
    let patterns = Settings {
        limit,
        grace_ms: None,
        emit: choices.of(&[Emit::Final, Emit::Eager]),
        ..settings
    };
    job.settings.insert("tumbling_aggregates".into(), windows);
    job.settings.insert("enriched_orders".into(), settings);
    job.settings.insert("risk_pattern".into(), patterns);
    job
}

#[test]
fn extremes_give_the_oracles_results() {
    let mut filled = BTreeMap::<&str, usize>::new();
    for seed in SEEDS {
        let job = wild(seed);
        let workers = 1 + seed as usize % 4;
        let directory = lay_out(&job, "", "[checkpoint]\ninterval_ms = 1\n");
        run(&directory, workers);
        let outputs = all_outputs(&directory, &job);
        hold(&job, &expected(&job), &outputs, &format!("seed {seed}"));
        for (name, text) in outputs {
            *filled.entry(name).or_default() += usize::from(!text.is_empty());
        }
    }
    let few = filled.iter().find(|(_, count)| 4 * **count < SEEDS.count());
    assert_eq!(few, None, "every output has rows in many of the jobs");
}

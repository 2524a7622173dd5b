//! What the generator promises, measured on days of a few thousand accounts.

use super::*;
use crate::records::{AlertRule, Channel, Direction, RuleType};
use std::collections::BTreeMap;
use tidegate::record::DeadLetterReason;

fn day(seed: u64) -> Day {
    Day::new(seed, 3_000)
}

/// All lines of an input by partition, one string each, with their ends.
fn text(day: Day, input: Input) -> Vec<Vec<u8>> {
    let mut text = vec![Vec::new(); input.partitions(day) as usize];
    for_each_line(day, input, |partition, line| {
        text[partition as usize].extend_from_slice(line);
        text[partition as usize].push(b'\n');
    });
    text
}

#[test]
fn equal_seeds_give_equal_bytes_and_others_do_not() {
    for input in Input::ALL {
        assert_eq!(text(day(1), input), text(day(1), input), "{}", input.name());
        assert_ne!(text(day(1), input), text(day(2), input), "{}", input.name());
    }
}

#[test]
fn the_bytes_of_a_seed_stay_what_they_are() {
    let day: Vec<u8> = Input::ALL
        .iter()
        .flat_map(|input| text(Day::new(7, 100), *input).concat())
        .collect();
    let hash = tidegate::record::key_hash(&day);
    assert_eq!(
        hash, 0x77b4_7d89_3e97_2423,
        "a change here changes every generated day: say so in the changelog"
    );
}

#[test]
fn balances_follow_the_entries_in_their_order_of_arrival() {
    let mut balances = BTreeMap::new();
    for message in entries(day(3)) {
        let entry = message.value.expect("entries have no tombstones");
        let signed = if entry.direction == Direction::Credit {
            entry.amount
        } else {
            -entry.amount
        };
        let before = entry.balance_after - signed;
        assert_eq!(
            *balances.get(&entry.account_id).unwrap_or(&before),
            before,
            "{}",
            entry.entry_id
        );
        balances.insert(entry.account_id, entry.balance_after);
    }
    assert!(
        balances.len() > 2_000,
        "only {} accounts have entries",
        balances.len()
    );
}

#[test]
fn salaries_come_in_a_burst() {
    let hour = |at: Millis| (at - MONTH_END).div_euclid(clock::HOUR);
    let times: Vec<_> = entries(day(4))
        .filter_map(|message| Some(message.value?.booked_at))
        .collect();
    let of = |wanted| times.iter().filter(|at| hour(**at) == wanted).count();
    assert!(
        of(6) > 3 * of(5) && of(6) > 3 * of(7) / 2,
        "{} {} {}",
        of(5),
        of(6),
        of(7)
    );
    assert_eq!(times.len() as u64, day(4).entries);
}

/// Whether an entry meets a rule; the contract's table once more.
fn hits(rule: &AlertRule, entry: &crate::records::AccountEntry) -> bool {
    let is_credit = entry.direction == Direction::Credit;
    let (amount, after) = (entry.amount, entry.balance_after);
    let before = after - if is_credit { amount } else { -amount };
    let threshold = rule.threshold.unwrap_or(0);
    match rule.r#type {
        RuleType::BalanceAbove => after > threshold && before <= threshold,
        RuleType::BalanceBelow => after < threshold && before >= threshold,
        RuleType::CreditedAbove => is_credit && amount > threshold,
        RuleType::DebitedAbove => !is_credit && amount > threshold,
        RuleType::CreditedFrom => is_credit && entry.counterparty == rule.counterparty,
    }
}

#[test]
fn an_entry_gives_about_six_tenths_of_an_alert() {
    let day = Day { changes: 0, ..day(5) };
    let holders: BTreeMap<_, _> = authorizations(day)
        .filter_map(|message| Some((message.key, message.value?.customers)))
        .collect();
    let settings: BTreeMap<_, _> = settings(day)
        .filter_map(|message| Some((message.key, message.value?)))
        .collect();
    let (mut alerts, mut entry_count) = (0, 0);
    for entry in entries(day).filter_map(|message| message.value) {
        entry_count += 1;
        for customer in holders[&entry.account_id]
            .iter()
            .map(|customer| &settings[customer])
        {
            let of_account = |of: &&crate::records::AccountAlerts| {
                of.account_id == entry.account_id && of.currency == entry.currency
            };
            for rule in customer
                .accounts
                .iter()
                .filter(of_account)
                .flat_map(|of| &of.alerts)
            {
                let reached = |channel: &Channel| rule.channels.contains(channel);
                let addresses = customer
                    .addresses
                    .iter()
                    .filter(|address| reached(&address.channel))
                    .count();
                alerts += if hits(rule, &entry) { addresses } else { 0 };
            }
        }
    }
    let customers = holders.values().map(Vec::len).sum::<usize>();
    assert!(
        (3_500..3_700).contains(&customers),
        "{customers} holders of 3 000 accounts"
    );
    let per_thousand = alerts * 1_000 / entry_count;
    assert!(
        (550..650).contains(&per_thousand),
        "{per_thousand} alerts per thousand entries"
    );
}

/// Shares, in a thousand, of records that arrive behind a greater event time in their partition, and of those
/// behind the bound.
fn disorder(times: impl Iterator<Item = (u32, Millis)>, bound: Millis) -> (usize, usize) {
    let (mut greatest, mut behind, mut late, mut count) = (BTreeMap::new(), 0, 0, 0);
    for (partition, at) in times {
        let greatest = greatest.entry(partition).or_insert(at);
        behind += usize::from(at < *greatest);
        late += usize::from(at < *greatest - bound);
        *greatest = at.max(*greatest);
        count += 1;
    }
    (behind * 1_000 / count, late * 10_000 / count)
}

#[test]
fn some_records_arrive_out_of_order_and_few_too_late() {
    let day = Day {
        orders: 100_000,
        transactions: 100_000,
        ..day(6)
    };
    let orders = orders(day).filter_map(|message| Some((message.partition, message.value?.placed_at)));
    let transactions =
        transactions(day).filter_map(|message| Some((message.partition, message.value?.occurred_at)));
    for (input, (behind, late)) in [
        ("orders", disorder(orders, 9_000)),
        ("transactions", disorder(transactions, 5_000)),
    ] {
        assert!(
            (20..60).contains(&behind),
            "{input}: {behind} of 1 000 out of order"
        );
        assert!((5..15).contains(&late), "{input}: {late} of 10 000 late");
    }
}

#[test]
fn most_orders_are_paid_in_time_and_payments_arrive_in_order() {
    let day = day(7);
    let placed: BTreeMap<String, (Text, Millis)> = orders(day)
        .filter_map(|message| {
            let order = message.value?;
            Some((order.order_id.replace('O', "P"), (message.key, order.placed_at)))
        })
        .collect();
    let (mut joined, mut count) = (0, 0);
    for message in payments(day) {
        let payment = message.value.expect("payments have no tombstones");
        let (key, placed_at) = &placed[payment.payment_id.as_str()];
        assert_eq!(key, &message.key);
        joined += usize::from((placed_at - payment.paid_at).abs() <= 30_000);
        count += 1;
    }
    assert!(
        (930..970).contains(&(count * 1_000 / placed.len())),
        "{count} payments of {} orders",
        placed.len()
    );
    assert!(
        (930..970).contains(&(joined * 1_000 / count)),
        "{joined} of {count} in time"
    );
}

#[test]
fn cards_are_used_twice_in_risky_ways_and_in_none() {
    let mut by_user = BTreeMap::<_, Vec<_>>::new();
    for transaction in transactions(day(8)).filter_map(|message| message.value) {
        by_user
            .entry(transaction.user_id.clone())
            .or_default()
            .push(transaction);
    }
    let (mut matches, mut timeouts) = (0, 0);
    for uses in by_user.values_mut() {
        uses.sort_by_key(|transaction| transaction.occurred_at);
        for (index, first) in uses
            .iter()
            .enumerate()
            .filter(|(_, first)| first.amount > 1_000_000)
        {
            match uses
                .get(index + 1)
                .filter(|second| second.occurred_at - first.occurred_at < 300_000)
            {
                Some(second) => matches += usize::from(second.location != first.location),
                None => timeouts += 1,
            }
        }
    }
    assert!(
        matches > 20 && timeouts > 10,
        "{matches} matches, {timeouts} timeouts"
    );
}

#[test]
fn tables_change_all_day_and_lose_rows_and_their_times_never_fall() {
    let day = Day {
        changes: 5_000,
        ..day(9)
    };
    let check = |name: &str, messages: &mut dyn Iterator<Item = (u32, Millis, bool)>| {
        let (mut times, mut tombstones, mut changes) = (BTreeMap::new(), 0, 0);
        for (partition, at, is_tombstone) in messages {
            let before = times.insert(partition, at).unwrap_or(at);
            assert!(before <= at, "{name}: {before} before {at}");
            changes += usize::from(at >= MONTH_END);
            tombstones += usize::from(is_tombstone);
        }
        assert!(
            (50..150).contains(&(tombstones * 1_000 / changes)),
            "{name}: {tombstones} tombstones of {changes}"
        );
    };
    fn seen<R>(message: Message<R>) -> (u32, Millis, bool) {
        (
            message.partition,
            message.timestamp.expect("table messages have a time"),
            message.value.is_none(),
        )
    }
    check("authorizations", &mut authorizations(day).map(seen));
    check("settings", &mut settings(day).map(seen));
    check("devices", &mut devices(day).map(seen));
}

#[test]
fn every_fault_is_what_it_says() {
    for input in Input::ALL {
        let mut good = String::new();
        for_each_line(
            Day {
                changes: 0,
                ..day(10)
            },
            input,
            |_, line| {
                if good.is_empty() {
                    good = String::from_utf8(line.to_vec()).expect("generated lines are UTF-8");
                }
            },
        );
        for fault in Fault::ALL.into_iter().filter(|fault| fault.applies(input)) {
            let bad = fault.spoil(input, &good);
            assert_ne!(
                bad,
                good.as_bytes(),
                "{fault:?} of {} changes nothing",
                input.name()
            );
            // A map takes duplicates without a word, so that fault is told by its text.
            let envelope = serde_json::from_slice::<BTreeMap<String, serde_json::Value>>(&bad).ok();
            let is_envelope = envelope.is_some_and(|envelope| {
                let key = envelope
                    .get("key")
                    .is_some_and(|key| key.is_null() || key.is_string());
                key && envelope.contains_key("value")
                    && bad.len() <= EVENT_RECORD_BYTES
                    && fault != Fault::ValueTwice
            });
            let reason = if is_envelope {
                DeadLetterReason::Invalid
            } else {
                DeadLetterReason::Undecodable
            };
            assert_eq!(
                reason,
                fault.reason(),
                "{fault:?}: {}",
                String::from_utf8_lossy(&bad)
            );
        }
    }
}

#[test]
fn bad_lines_are_few_and_counted() {
    let day = Day {
        transactions: 200_000,
        ..day(11)
    };
    let mut lines = 0;
    let written = for_each_line(day, Input::Transactions, |_, _| lines += 1);
    assert_eq!(written.lines, lines);
    assert_eq!(
        written.lines - written.undecodable - written.invalid,
        day.transactions
    );
    assert!(
        (150..250).contains(&(written.undecodable + written.invalid)),
        "{written:?}"
    );
    assert!(written.undecodable > 50 && written.invalid > 50, "{written:?}");
}

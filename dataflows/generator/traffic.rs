//! The event inputs: entries, orders and their payments, card transactions, events.
//!
//! Each is a function from a day to its messages in order of arrival. What follows from an earlier message (a
//! payment, a second use of a card) waits in a heap until its own arrival; the heap holds minutes of traffic,
//! never the day.

use super::clock::{Curve, Disorder, HOUR, ORDINARY, SALARIES, SALARY_HOUR, arrival};
use super::random::{Random, Stream};
use super::{Day, Message, bank};
use crate::records::{AccountEntry, Direction, Event, Order, Payment, Transaction};
use compact_str::format_compact;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use tidegate::record::Text;
use tidegate::time::Millis;

/// Entries may be behind by this much; nothing depends on it but their order.
const ENTRIES: Disorder = Disorder {
    within_bounds_ms: 10_000,
    some_late: false,
};
/// Less than the grace of windows and joins.
const ORDERS: Disorder = Disorder {
    within_bounds_ms: 9_000,
    some_late: true,
};
/// Less than `max_out_of_orderness_ms` of transactions.
const TRANSACTIONS: Disorder = Disorder {
    within_bounds_ms: 4_900,
    some_late: true,
};
/// Events are only counted.
const EVENTS: Disorder = Disorder {
    within_bounds_ms: 10_000,
    some_late: false,
};

/// A card transaction above this can begin a risk pattern, minor units.
const RISK_LIMIT: i64 = 1_000_000;

const CITIES: [&str; 12] = [
    "Prague", "Brno", "Vienna", "Berlin", "Paris", "Madrid", "Lisbon", "Rome", "Athens", "Oslo", "Dublin",
    "Riga",
];

fn message<R>(day: Day, index: u32, key: Text, value: R) -> Message<R> {
    Message {
        partition: index % day.partitions,
        key,
        timestamp: None,
        value: Some(value),
    }
}

fn arrivals(day: Day, curve: Curve, count: u64, random: &mut Random) -> impl FnMut(u64) -> Millis + use<> {
    let mut random = Random::of(day.seed, Stream::Bank, random.next(), 0);
    move |index| day.start + arrival(&curve, index, count, &mut random)
}

/// Account entries. In the salary hour most are salaries, account after account.
pub fn entries(day: Day) -> impl Iterator<Item = Message<AccountEntry>> {
    let mut random = Random::new(day.seed, Stream::Entries);
    let mut arrivals = arrivals(day, SALARIES, day.entries, &mut random);
    let mut balances: Vec<i64> = (0..day.accounts)
        .map(|account| bank::opening_balance(day, account))
        .collect();
    let mut next_salary = 0;
    (0..day.entries).map(move |index| {
        let at = arrivals(index);
        let is_salary_hour = (at - day.start) / HOUR == SALARY_HOUR as Millis;
        let (account, direction, amount, counterparty);
        if is_salary_hour && random.permille(900) {
            account = next_salary;
            next_salary = (next_salary + 1) % day.accounts;
            (direction, amount) = (Direction::Credit, random.within(150_000, 600_000));
            counterparty = Some(bank::employer(day, account));
        } else {
            account = random.skewed(day.accounts);
            direction = if random.permille(400) {
                Direction::Credit
            } else {
                Direction::Debit
            };
            amount = random.amount();
            counterparty =
                (!random.permille(200)).then(|| format_compact!("SHOP-{:05}", random.below(20_000)));
        }
        let balance = &mut balances[account as usize];
        *balance += if direction == Direction::Credit {
            amount
        } else {
            -amount
        };
        let entry = AccountEntry {
            entry_id: format_compact!("E{index}"),
            account_id: bank::account_id(account),
            booked_at: at - ENTRIES.behind(&mut random),
            direction,
            amount,
            currency: bank::currency(day, account),
            balance_after: *balance,
            counterparty,
        };
        message(day, account, entry.account_id.clone(), entry)
    })
}

/// An order, its key's number and its arrival: what payments follow from.
fn placed(day: Day) -> impl Iterator<Item = (u32, Millis, Order)> {
    let mut random = Random::new(day.seed, Stream::Orders);
    let mut arrivals = arrivals(day, ORDINARY, day.orders, &mut random);
    (0..day.orders).map(move |index| {
        let at = arrivals(index);
        let customer = random.skewed(day.accounts);
        let order = Order {
            order_id: format_compact!("O{index}"),
            amount: random.amount(),
            currency: bank::currency(day, customer),
            placed_at: at - ORDERS.behind(&mut random),
        };
        (customer, at, order)
    })
}

/// Orders. The key is the customer.
pub fn orders(day: Day) -> impl Iterator<Item = Message<Order>> {
    placed(day).map(move |(customer, _, order)| message(day, customer, bank::customer_id(customer), order))
}

/// What is on its way, the earliest first: its arrival, the number of what it follows from, and itself.
type OnTheWay<T> = BinaryHeap<Reverse<(Millis, u64, T)>>;

/// When the earliest thing on its way arrives.
fn earliest<T: Ord>(waiting: &OnTheWay<T>) -> Option<Millis> {
    waiting.peek().map(|Reverse((at, ..))| *at)
}

/// Payments of the orders: most within seconds, some too late to be joined, one in twenty never.
pub fn payments(day: Day) -> impl Iterator<Item = Message<Payment>> {
    let mut random = Random::new(day.seed, Stream::Payments);
    let mut orders = placed(day).zip(0_u64..).peekable();
    let mut waiting = OnTheWay::<(u32, i64, Text)>::new();
    std::iter::from_fn(move || {
        // A payment may go once every order that could have an earlier one is known.
        while let Some(((customer, at, order), index)) =
            orders.next_if(|((_, at, _), _)| earliest(&waiting).is_none_or(|first| *at <= first))
        {
            let delay = match random.below(100) {
                0..5 => continue,
                5..9 => random.within(45_000, 90_000),
                _ => random.within(100, 25_000),
            };
            waiting.push(Reverse((
                at + delay,
                index,
                (customer, order.amount, order.currency),
            )));
        }
        let Reverse((at, index, (customer, amount, currency))) = waiting.pop()?;
        let paid_at = at - ORDERS.behind(&mut random);
        let payment = Payment {
            payment_id: format_compact!("P{index}"),
            amount,
            currency,
            paid_at,
        };
        Some(message(day, customer, bank::customer_id(customer), payment))
    })
}

/// Card transactions. One in a hundred is above the limit of `risk_pattern`; half of these are followed by
/// one in another city within minutes, a quarter by one in the same, a quarter by none that follows from it.
pub fn transactions(day: Day) -> impl Iterator<Item = Message<Transaction>> {
    let mut random = Random::new(day.seed, Stream::Transactions);
    let mut arrivals = arrivals(day, ORDINARY, day.transactions, &mut random);
    // Second uses of a card: user and city.
    let mut waiting = OnTheWay::<(u32, usize)>::new();
    let mut slot = 0;
    let mut next_at = arrivals(slot);
    (0..day.transactions).map(move |index| {
        let is_second = earliest(&waiting).is_some_and(|at| at <= next_at);
        let (at, user, city, amount) = match if is_second { waiting.pop() } else { None } {
            Some(Reverse((at, _, (user, city)))) => (at, user, city, random.amount().min(RISK_LIMIT)),
            None => {
                let (at, user) = (next_at, random.skewed(day.accounts));
                slot += 1;
                next_at = arrivals(slot);
                let home = user as usize % CITIES.len();
                let city = if random.permille(850) {
                    home
                } else {
                    random.below(CITIES.len() as u64) as usize
                };
                let is_large = random.permille(10);
                let amount = if is_large {
                    random.within(RISK_LIMIT + 1, 5 * RISK_LIMIT)
                } else {
                    random.amount()
                };
                (at, user, city, amount)
            }
        };
        if amount > RISK_LIMIT {
            let second = at + random.within(5_000, 280_000);
            match random.below(4) {
                0 => {}
                1 => waiting.push(Reverse((second, index, (user, city)))),
                _ => waiting.push(Reverse((second, index, (user, (city + 1) % CITIES.len())))),
            }
        }
        let transaction = Transaction {
            transaction_id: format_compact!("T{index}"),
            user_id: format_compact!("U{user:07}"),
            amount,
            currency: bank::currency(day, user),
            location: Text::const_new(CITIES[city]),
            occurred_at: at - TRANSACTIONS.behind(&mut random),
        };
        message(day, user, transaction.user_id.clone(), transaction)
    })
}

/// Events: views of pages, a few of them popular.
pub fn events(day: Day) -> impl Iterator<Item = Message<Event>> {
    let mut random = Random::new(day.seed, Stream::Events);
    let mut arrivals = arrivals(day, ORDINARY, day.events, &mut random);
    (0..day.events).map(move |index| {
        let at = arrivals(index);
        let page = random.skewed(day.accounts / 10 + 1);
        let event = Event {
            event_id: format_compact!("V{index}"),
            occurred_at: at - EVENTS.behind(&mut random),
        };
        message(day, page, format_compact!("page-{page}"), event)
    })
}

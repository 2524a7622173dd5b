//! The loops over orders by hand: windows, and the join with payments.
//!
//! Windows: a hash table per open window, dropped whole when the watermark closes it. Join: a list per key
//! and side;
//! what no partner can reach any more is dropped when its key is touched, and everywhere once in a while.

use hashbrown::HashTable;
use std::collections::BTreeMap;
use tidegate::record::{Stamped, Text};
use tidegate::time::{BEFORE_ALL, Millis};
use tidegate_dataflows::catalogue::DEFAULTS;
use tidegate_dataflows::records::{Order, Payment};

/// Keys are swept each time the watermark has moved this far, milliseconds.
const SWEEP_MS: Millis = 600_000;

/// A key's figures in a window.
pub struct Figures {
    hash: u64,
    /// The key.
    pub key: Text,
    /// Orders.
    pub count: i64,
    sum: i128,
    /// Least amount.
    pub min: i64,
    /// Greatest amount.
    pub max: i64,
}

impl Figures {
    /// The sum of the amounts, as the contract shows it.
    pub fn sum(&self) -> i64 {
        self.sum.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }
}

/// The open windows, by their start.
#[derive(Default)]
pub struct Windows(BTreeMap<Millis, HashTable<Figures>>);

impl Windows {
    /// Takes in an order. Gives false if it is late.
    pub fn order(&mut self, order: &Stamped<Order>) -> bool {
        let config = DEFAULTS.tumbling_aggregates;
        let start = order.value.placed_at.div_euclid(config.size_ms) * config.size_ms;
        if start + config.size_ms + config.grace_ms <= order.watermark {
            return false;
        }
        let is = |figures: &Figures| figures.hash == order.hash && figures.key == order.key;
        let make = || {
            let (hash, key) = (order.hash, order.key.clone());
            Figures {
                hash,
                key,
                count: 0,
                sum: 0,
                min: i64::MAX,
                max: i64::MIN,
            }
        };
        let table = self.0.entry(start).or_default();
        let figures = table
            .entry(order.hash, is, |figures| figures.hash)
            .or_insert_with(make)
            .into_mut();
        let amount = order.value.amount;
        figures.count += 1;
        figures.sum += i128::from(amount);
        figures.min = figures.min.min(amount);
        figures.max = figures.max.max(amount);
        true
    }

    /// Closes what the watermark has reached; gives each window's start and rows.
    pub fn close(&mut self, watermark: Millis, mut give: impl FnMut(Millis, Figures)) {
        let config = DEFAULTS.tumbling_aggregates;
        while let Some(first) = self.0.first_entry() {
            let start = *first.key();
            if start + config.size_ms + config.grace_ms > watermark {
                break;
            }
            first
                .remove()
                .into_iter()
                .for_each(|figures| give(start, figures));
        }
    }
}

/// The records of a key that may still find partners.
struct Partners {
    hash: u64,
    key: Text,
    orders: Vec<Order>,
    payments: Vec<Payment>,
}

/// The join's keys.
pub struct Joins {
    keys: HashTable<Partners>,
    orders_watermark: Millis,
    payments_watermark: Millis,
    swept: Millis,
}

impl Default for Joins {
    fn default() -> Self {
        let (orders_watermark, payments_watermark, swept) = (BEFORE_ALL, BEFORE_ALL, BEFORE_ALL);
        Joins {
            keys: HashTable::new(),
            orders_watermark,
            payments_watermark,
            swept,
        }
    }
}

impl Joins {
    fn partners(&mut self, hash: u64, key: &Text) -> &mut Partners {
        let is = |partners: &Partners| partners.hash == hash && partners.key == *key;
        let make = || Partners {
            hash,
            key: key.clone(),
            orders: Vec::new(),
            payments: Vec::new(),
        };
        self.keys
            .entry(hash, is, |partners| partners.hash)
            .or_insert_with(make)
            .into_mut()
    }

    /// Takes in an order and gives its pairs so far. Gives false if it is late.
    pub fn order(&mut self, order: &Stamped<Order>, mut give: impl FnMut(&Order, &Payment)) -> bool {
        if is_late(order.value.placed_at, order.watermark) {
            return false;
        }
        let watermark = self.payments_watermark;
        let partners = self.partners(order.hash, &order.key);
        partners
            .orders
            .retain(|order| !is_done(order.placed_at, watermark));
        let near = |payment: &&Payment| is_near(order.value.placed_at, payment.paid_at);
        partners
            .payments
            .iter()
            .filter(near)
            .for_each(|payment| give(&order.value, payment));
        partners.orders.push(order.value.clone());
        true
    }

    /// Takes in a payment and gives its pairs so far. Gives false if it is late.
    pub fn payment(&mut self, payment: &Stamped<Payment>, mut give: impl FnMut(&Order, &Payment)) -> bool {
        if is_late(payment.value.paid_at, payment.watermark) {
            return false;
        }
        let watermark = self.orders_watermark;
        let partners = self.partners(payment.hash, &payment.key);
        partners
            .payments
            .retain(|payment| !is_done(payment.paid_at, watermark));
        let near = |order: &&Order| is_near(order.placed_at, payment.value.paid_at);
        partners
            .orders
            .iter()
            .filter(near)
            .for_each(|order| give(order, &payment.value));
        partners.payments.push(payment.value.clone());
        true
    }

    /// The inputs' global watermarks after an epoch.
    pub fn watermarks(&mut self, orders: Millis, payments: Millis) {
        (self.orders_watermark, self.payments_watermark) = (orders, payments);
        if orders.min(payments).saturating_sub(SWEEP_MS) > self.swept {
            self.swept = orders.min(payments);
            self.keys.retain(|partners| {
                partners
                    .orders
                    .retain(|order| !is_done(order.placed_at, payments));
                partners
                    .payments
                    .retain(|payment| !is_done(payment.paid_at, orders));
                !(partners.orders.is_empty() && partners.payments.is_empty())
            });
        }
    }
}

fn is_near(one: Millis, other: Millis) -> bool {
    one.abs_diff(other) <= DEFAULTS.enriched_orders.within_ms.unsigned_abs()
}

fn is_late(time: Millis, watermark: Millis) -> bool {
    time + DEFAULTS.enriched_orders.within_ms + DEFAULTS.enriched_orders.grace_ms <= watermark
}

/// No partner can come any more.
fn is_done(time: Millis, watermark: Millis) -> bool {
    time + 2 * DEFAULTS.enriched_orders.within_ms + DEFAULTS.enriched_orders.grace_ms <= watermark
}

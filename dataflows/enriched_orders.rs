//! `enriched_orders`: orders joined with the payments near them in time.
//!
//! ```text
//!  inputs   orders, payments
//!  outputs  enriched, dead_letters
//!
//!  pair     equal message keys and |placed_at - paid_at| <= within; each pair once, as soon as both are there
//!  late     event time + within + grace <= the watermark of the record's own partition
//!  kept     until the other input's global watermark reaches event time + 2 * within + grace
//! ```
//!
//! As a dataflow:
//!
//! ```text
//!  orders ───► late? ─┬─► interval join ─┬─► enriched
//!  payments ─► late? ─┤                  └─► refused ─┐
//!                     └───────────────────────────────┴─► dead_letters
//! ```
//!
//! No order within a key is promised. **Refuses** corrections of records that were forgotten: they become dead letters.

use crate::catalogue::EnrichedOrdersConfig;
use crate::records::{Order, Payment};
use serde::Serialize;
use tidegate::operators::Context;
use tidegate::operators::interval_join::{Interval, interval_join};
use tidegate::operators::late::{additions, on_time, refused_letters};
use tidegate::record::{DeadLetter, Messages, Output, Rank, Records, Text};
use timely::dataflow::operators::Concatenate;

/// What comes in.
#[derive(Clone)]
pub struct Inputs<'s> {
    /// Orders.
    pub orders: Records<'s, Order>,
    /// Payments.
    pub payments: Records<'s, Payment>,
}

/// What goes out.
pub struct Outputs<'s> {
    /// Pairs.
    pub enriched: Messages<'s, EnrichedOrder>,
    /// Late orders and payments.
    pub dead_letters: Messages<'s, DeadLetter>,
}

/// An order and a payment of one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct EnrichedOrder {
    /// The common key; the message key.
    #[serde(skip)]
    pub key: Text,
    /// The order.
    pub order: Order,
    /// The payment.
    pub payment: Payment,
}

impl Output for EnrichedOrder {
    const SCHEMA: &'static str = include_str!("schemas/EnrichedOrder.avsc");

    fn key(&self) -> Option<&str> {
        Some(&self.key)
    }

    fn rank(&self) -> Rank {
        Rank(
            self.order.placed_at.cast_unsigned(),
            self.payment.paid_at.cast_unsigned(),
            0,
        )
    }
}

/// Builds the dataflow.
pub fn build<'s>(context: &Context<'s>, inputs: Inputs<'s>, config: &EnrichedOrdersConfig) -> Outputs<'s> {
    const NAME: &str = "enriched_orders";
    let interval = Interval {
        within: config.within_ms,
        grace: config.grace_ms,
    };
    let late_at = move |time| interval.late_at(time);
    let (orders, payments) = (inputs.orders, inputs.payments);
    let (left, late_orders) = on_time(orders.updates, "orders", NAME, late_at, |order: Order| order);
    let (right, late_payments) = on_time(payments.updates, "payments", NAME, late_at, |payment: Payment| {
        payment
    });
    let (left, right) = ((left, orders.watermark), (right, payments.watermark));
    let joined = interval_join(context, NAME, left, right, interval);
    let enriched = additions(joined.pairs, |(order, payment)| EnrichedOrder {
        key: order.key,
        order: order.value,
        payment: payment.value,
    });
    let refused_orders = refused_letters(joined.refused_left, "orders", NAME);
    let refused_payments = refused_letters(joined.refused_right, "payments", NAME);
    let dead_letters =
        context
            .scope
            .concatenate([late_orders, late_payments, refused_orders, refused_payments]);
    Outputs {
        enriched,
        dead_letters,
    }
}

#[cfg(test)]
mod tests;

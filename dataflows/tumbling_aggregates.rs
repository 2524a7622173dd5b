//! `tumbling_aggregates`: count, sum, least and greatest order per key and window.
//!
//! ```text
//!  input    orders
//!  outputs  aggregates, dead_letters
//!
//!  windows [k * size, (k + 1) * size) over placed_at; all orders of a key together, whatever their currency
//!  late     window_end + grace <= the watermark of the order's own partition
//!  final    one row per key and window, when the global watermark >= window_end + grace
//!  changes  the current row in each epoch that changed it
//! ```
//!
//! As a dataflow:
//!
//! ```text
//!  orders ─► late? ─┬─► window ─┬─► aggregates
//!                   │           └─► refused ─┐
//!                   └────────────────────────┴─► dead_letters
//! ```
//!
//! **Order.** A key's rows come in order of `window_start`, by their rank. **Refuses** corrections of closed
//! windows: they become dead letters.

use crate::catalogue::{Dataflow, TumblingAggregatesConfig, WindowEmit};
use crate::records::Order;
use serde::Serialize;
use tidegate::operators::Context;
use tidegate::operators::late::{additions, on_time, refused_letters};
use tidegate::operators::window::{Aggregate, Emit, Tumbling, tumbling};
use tidegate::record::{DeadLetter, Messages, Output, Rank, Records, Text};
use tidegate::time::Millis;
use timely::dataflow::operators::Concat;

/// What comes in.
#[derive(Clone)]
pub struct Inputs<'s> {
    /// Orders.
    pub orders: Records<'s, Order>,
}

/// What goes out.
pub struct Outputs<'s> {
    /// Rows of windows.
    pub aggregates: Messages<'s, OrderStats>,
    /// Late orders.
    pub dead_letters: Messages<'s, DeadLetter>,
}

/// The row of a key and window.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct OrderStats {
    /// The orders' key; the message key.
    #[serde(skip)]
    pub key: Text,
    /// Inclusive.
    pub window_start: Millis,
    /// Exclusive.
    pub window_end: Millis,
    /// Orders.
    pub count: i64,
    /// Of amounts, clamped to 64 bits.
    pub sum: i64,
    /// Least amount.
    pub min: i64,
    /// Greatest amount.
    pub max: i64,
}

impl Output for OrderStats {
    const SCHEMA: &'static str = include_str!("schemas/OrderStats.avsc");

    fn key(&self) -> Option<&str> {
        Some(&self.key)
    }

    fn rank(&self) -> Rank {
        Rank(self.window_start.cast_unsigned(), 0, 0)
    }
}

/// Builds the dataflow.
pub fn build<'s>(
    context: &Context<'s>,
    inputs: Inputs<'s>,
    config: &TumblingAggregatesConfig,
) -> Outputs<'s> {
    const NAME: &str = "tumbling_aggregates";
    debug_assert_eq!(NAME, Dataflow::TumblingAggregates.name());
    let emit = match config.emit {
        WindowEmit::Final => Emit::Final,
        WindowEmit::Changes => Emit::Changes,
    };
    let windows = Tumbling {
        size: config.size_ms,
        grace: config.grace_ms,
        emit,
    };
    let Records { updates, watermark } = inputs.orders;
    let closes = move |time| windows.closes(time);
    let (orders, late) = on_time(updates, "orders", NAME, closes, |order: Order| order.amount);
    let (rows, refused) = tumbling(context, NAME, orders, watermark, windows);
    let aggregates = additions(rows, move |Aggregate { key, start, figures }| OrderStats {
        key,
        window_start: start,
        window_end: windows.end(start),
        count: figures.count,
        sum: figures.sum,
        min: figures.min,
        max: figures.max,
    });
    let dead_letters = late.concat(refused_letters(refused, "orders", NAME));
    Outputs {
        aggregates,
        dead_letters,
    }
}

#[cfg(test)]
mod tests;

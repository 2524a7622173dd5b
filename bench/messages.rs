//! Digests of the dataflows' messages, and of the same results as the hand-written loops have them: one
//! function for both
//! sides, over borrowed fields.

use crate::digest::{Digested, joined, number, text};
use tidegate::time::Millis;
use tidegate_dataflows::alerts::{Criterion, OutboundMessage};
use tidegate_dataflows::enriched_orders::EnrichedOrder;
use tidegate_dataflows::event_counts::CountResult;
use tidegate_dataflows::records::RuleType;
use tidegate_dataflows::risk_pattern::{RiskAlert, RiskTimeout};
use tidegate_dataflows::tumbling_aggregates::OrderStats;

/// A message about an entry to an address. `parameter`: the threshold, or the digest of the counterparty.
pub fn alert(entry: &str, customer: &str, kind: RuleType, parameter: u64, address: &str) -> u64 {
    joined(&[text(entry), text(customer), kind as u64, parameter, text(address)])
}

/// A key's row in a window; `figures` are count, sum, least and greatest.
pub fn window(key: &str, start: Millis, figures: [i64; 4]) -> u64 {
    let [count, sum, min, max] = figures.map(number);
    joined(&[text(key), number(start), count, sum, min, max])
}

/// An order and a payment.
pub fn pair(order: &str, payment: &str) -> u64 {
    joined(&[text(order), text(payment)])
}

/// Two transactions that match.
pub fn risk(first: &str, second: &str) -> u64 {
    joined(&[text(first), text(second)])
}

/// A transaction that nothing followed.
pub fn timeout(first: &str, expired_at: Millis) -> u64 {
    joined(&[text(first), number(expired_at)])
}

/// A key's count.
pub fn count(key: &str, count: i64) -> u64 {
    joined(&[text(key), number(count)])
}

impl Digested for OutboundMessage {
    fn digest(&self) -> u64 {
        let (kind, parameter) = match &self.alert.criterion {
            Criterion::BalanceAbove(threshold) => (RuleType::BalanceAbove, number(*threshold)),
            Criterion::BalanceBelow(threshold) => (RuleType::BalanceBelow, number(*threshold)),
            Criterion::CreditedAbove(threshold) => (RuleType::CreditedAbove, number(*threshold)),
            Criterion::DebitedAbove(threshold) => (RuleType::DebitedAbove, number(*threshold)),
            Criterion::CreditedFrom(counterparty) => (RuleType::CreditedFrom, text(counterparty)),
        };
        alert(
            &self.alert.entry.entry_id,
            &self.alert.customer_id,
            kind,
            parameter,
            &self.address,
        )
    }
}

impl Digested for OrderStats {
    fn digest(&self) -> u64 {
        window(
            &self.key,
            self.window_start,
            [self.count, self.sum, self.min, self.max],
        )
    }
}

impl Digested for EnrichedOrder {
    fn digest(&self) -> u64 {
        pair(&self.order.order_id, &self.payment.payment_id)
    }
}

impl Digested for RiskAlert {
    fn digest(&self) -> u64 {
        risk(&self.first.transaction_id, &self.second.transaction_id)
    }
}

impl Digested for RiskTimeout {
    fn digest(&self) -> u64 {
        timeout(&self.first.transaction_id, self.expired_at)
    }
}

impl Digested for CountResult {
    fn digest(&self) -> u64 {
        count(&self.key, self.count)
    }
}

//! What the hand-written loops do with a result: add its digest, or encode it as the message of the contract.

use crate::baseline_alerts::{Interest, Rule};
use crate::baseline_orders::Figures;
use crate::digest::{Tally, late, number, text};
use crate::messages;
use std::sync::Arc;
use tidegate::format::json::write_line;
use tidegate::record::{DeadLetter, Origin, Output, Record, Stamped, Text};
use tidegate::time::Millis;
use tidegate_dataflows::alerts::{Alert, Criterion, OutboundMessage};
use tidegate_dataflows::catalogue::{DEFAULTS, Dataflow};
use tidegate_dataflows::enriched_orders::EnrichedOrder;
use tidegate_dataflows::event_counts::CountResult;
use tidegate_dataflows::records::{AccountEntry, Address, Order, Payment, RuleType, Transaction};
use tidegate_dataflows::risk_pattern::{RiskAlert, RiskStatus, RiskTimeout};
use tidegate_dataflows::tumbling_aggregates::OrderStats;

/// Where results go.
pub struct Out {
    tally: Tally,
    /// The line that is being written; none where only digests are wanted.
    line: Option<Vec<u8>>,
}

impl Out {
    /// Results are not encoded.
    pub fn digests() -> Self {
        Out {
            tally: Tally::default(),
            line: None,
        }
    }

    /// Results are encoded.
    pub fn lines() -> Self {
        Out {
            tally: Tally::default(),
            line: Some(Vec::new()),
        }
    }

    /// What went out.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// One result: `digest` of it, or the message that `encoded` makes of it.
    fn give<M: Output>(&mut self, digest: impl FnOnce() -> u64, encoded: impl FnOnce() -> M) {
        match &mut self.line {
            None => self.tally.add(digest()),
            Some(line) => {
                line.clear();
                write_line(&encoded(), line);
                self.tally.add_line(line);
            }
        }
    }

    /// A message about an entry to an address.
    pub fn alert(
        &mut self,
        entry: &Stamped<AccountEntry>,
        interest: &Interest,
        rule: &Rule,
        address: &Address,
    ) {
        let digest = || {
            let parameter = rule.counterparty.as_deref().map_or(number(rule.threshold), text);
            messages::alert(
                &entry.value.entry_id,
                &interest.customer,
                rule.kind,
                parameter,
                &address.address,
            )
        };
        self.give(digest, || {
            let criterion = match (rule.kind, &rule.counterparty) {
                (RuleType::BalanceAbove, _) => Criterion::BalanceAbove(rule.threshold),
                (RuleType::BalanceBelow, _) => Criterion::BalanceBelow(rule.threshold),
                (RuleType::CreditedAbove, _) => Criterion::CreditedAbove(rule.threshold),
                (RuleType::DebitedAbove, _) => Criterion::DebitedAbove(rule.threshold),
                (RuleType::CreditedFrom, counterparty) => {
                    Criterion::CreditedFrom(counterparty.clone().unwrap_or_default())
                }
            };
            let (origin, customer_id) = (entry.origin, interest.customer.clone());
            let alert = Arc::new(Alert {
                entry: entry.value.clone(),
                origin,
                customer_id,
                criterion,
            });
            OutboundMessage {
                alert,
                address: address.address.clone(),
            }
        });
    }

    /// A row of a window.
    pub fn window(&mut self, start: Millis, figures: &Figures) {
        let digest = || {
            messages::window(
                &figures.key,
                start,
                [figures.count, figures.sum(), figures.min, figures.max],
            )
        };
        self.give(digest, || OrderStats {
            key: figures.key.clone(),
            window_start: start,
            window_end: start + DEFAULTS.tumbling_aggregates.size_ms,
            count: figures.count,
            sum: figures.sum(),
            min: figures.min,
            max: figures.max,
        });
    }

    /// A pair.
    pub fn pair(&mut self, key: &Text, order: &Order, payment: &Payment) {
        let digest = || messages::pair(&order.order_id, &payment.payment_id);
        self.give(digest, || EnrichedOrder {
            key: key.clone(),
            order: order.clone(),
            payment: payment.clone(),
        });
    }

    /// A match.
    pub fn risk(&mut self, first: &Transaction, second: &Transaction) {
        let digest = || messages::risk(&first.transaction_id, &second.transaction_id);
        self.give(digest, || {
            let (first, second) = (first.clone(), second.clone());
            RiskAlert {
                status: RiskStatus::Final,
                first,
                second,
                origin: Origin::default(),
            }
        });
    }

    /// A timeout.
    pub fn timeout(&mut self, first: &Transaction) {
        let expired_at = first.occurred_at + DEFAULTS.risk_pattern.within_ms;
        self.give(
            || messages::timeout(&first.transaction_id, expired_at),
            || RiskTimeout {
                user_id: first.user_id.clone(),
                first: first.clone(),
                expired_at,
                origin: Origin::default(),
            },
        );
    }

    /// A key's count.
    pub fn count(&mut self, key: &Text, count: i64) {
        self.give(
            || messages::count(key, count),
            || CountResult {
                key: key.clone(),
                count,
            },
        );
    }

    /// A late record.
    pub fn late<R: Record>(&mut self, input: &str, dataflow: Dataflow, record: &Stamped<R>) {
        let name = dataflow.name();
        self.give(
            || {
                late(
                    name,
                    record.origin.partition,
                    record.origin.offset,
                    record.watermark,
                )
            },
            || DeadLetter::late(input, name, record),
        );
    }
}

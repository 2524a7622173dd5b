//! `risk_pattern`: a large transaction, followed soon by one somewhere else.
//!
//! ```text
//!  input    transactions
//!  outputs  risk_alerts, risk_timeouts, dead_letters
//!
//!  per user, ordered by (occurred_at, partition, offset); neighbours (a, b) match where
//!      a.amount > limit  and  b.location != a.location  and  b.occurred_at - a.occurred_at < within
//!  final    FINAL once nothing can come between (global watermark > b.occurred_at), in pattern order per user
//!  eager    RAISED at once, WITHDRAWN with the same id when a transaction comes between
//!  timeout  an `a` over the limit with nothing less than within after it, once that is certain
//!  late     occurred_at < the watermark of the transaction's own partition
//! ```
//!
//! As a dataflow:
//!
//! ```text
//!  transactions ─► late? ─┬─► neighbours ─┬─► risk_alerts
//!                         │               ├─► risk_timeouts
//!                         │               └─► refused ─┐
//!                         └────────────────────────────┴─► dead_letters
//! ```
//!
//! **Order.** By rank: alerts by their second transaction, withdrawals of an epoch first; timeouts by expiry.
//! **Refuses** corrections of what is final: they become dead letters.

use crate::catalogue::{PatternEmit, RiskPatternConfig};
use crate::records::Transaction;
use serde::{Serialize, Serializer};
use tidegate::operators::Context;
use tidegate::operators::late::{Timed, additions, on_time, refused_letters};
use tidegate::operators::neighbours::{Emit, Pattern, neighbours};
use tidegate::record::{DeadLetter, Messages, Origin, Output, Rank, Records};
use tidegate::time::Millis;
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::vec::Map;

/// What comes in.
#[derive(Clone)]
pub struct Inputs<'s> {
    /// Card transactions.
    pub transactions: Records<'s, Transaction>,
}

/// What goes out.
pub struct Outputs<'s> {
    /// Matches.
    pub risk_alerts: Messages<'s, RiskAlert>,
    /// Large transactions that nothing followed.
    pub risk_timeouts: Messages<'s, RiskTimeout>,
    /// Late transactions.
    pub dead_letters: Messages<'s, DeadLetter>,
}

/// What became of a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RiskStatus {
    /// It holds for now.
    Raised,
    /// It no longer holds.
    Withdrawn,
    /// It holds for ever.
    Final,
}

/// A match.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RiskAlert {
    /// What became of it.
    pub status: RiskStatus,
    /// The large transaction.
    pub first: Transaction,
    /// The one elsewhere.
    pub second: Transaction,
    /// Where the second stands: the order of alerts.
    pub origin: Origin,
}

impl Serialize for RiskAlert {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields<'a> {
            alert_id: String,
            user_id: &'a str,
            status: RiskStatus,
            first: &'a Transaction,
            second: &'a Transaction,
        }
        let RiskAlert {
            status,
            first,
            second,
            ..
        } = self;
        let alert_id = format!("{}/{}", first.transaction_id, second.transaction_id);
        Fields {
            alert_id,
            user_id: &first.user_id,
            status: *status,
            first,
            second,
        }
        .serialize(serializer)
    }
}

impl Output for RiskAlert {
    const SCHEMA: &'static str = include_str!("schemas/RiskAlert.avsc");

    fn key(&self) -> Option<&str> {
        Some(&self.first.user_id)
    }

    /// What is withdrawn in an epoch comes before what is raised in it: where transactions share an id, one match
    /// may go and another one of the same `alert_id` come.
    fn rank(&self) -> Rank {
        let Rank(time, partition, offset) = order(self.second.occurred_at, self.origin);
        let after_withdrawals = u64::from(self.status != RiskStatus::Withdrawn) << 63;
        Rank(after_withdrawals | time, partition, offset)
    }

    fn origin(&self) -> Option<(&str, Origin)> {
        Some(("transactions", self.origin))
    }
}

/// A large transaction that nothing followed in time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct RiskTimeout {
    /// The user; the message key.
    pub user_id: tidegate::record::Text,
    /// The large transaction.
    pub first: Transaction,
    /// When its time was over.
    pub expired_at: Millis,
    /// Where it stands.
    #[serde(skip)]
    pub origin: Origin,
}

impl Output for RiskTimeout {
    const SCHEMA: &'static str = include_str!("schemas/RiskTimeout.avsc");

    fn key(&self) -> Option<&str> {
        Some(&self.user_id)
    }

    fn rank(&self) -> Rank {
        order(self.expired_at, self.origin)
    }

    fn origin(&self) -> Option<(&str, Origin)> {
        Some(("transactions", self.origin))
    }
}

fn order(time: Millis, origin: Origin) -> Rank {
    Rank(time.cast_unsigned(), u64::from(origin.partition), origin.offset)
}

/// Builds the dataflow.
pub fn build<'s>(context: &Context<'s>, inputs: Inputs<'s>, config: &RiskPatternConfig) -> Outputs<'s> {
    const NAME: &str = "risk_pattern";
    let (limit, within, emit) = (config.limit, config.within_ms, config.emit);
    let Records { updates, watermark } = inputs.transactions;
    let behind = |time: Millis| time.saturating_add(1);
    let (transactions, late) = on_time(
        updates,
        "transactions",
        NAME,
        behind,
        |transaction: Transaction| transaction,
    );
    let pattern = Pattern {
        opens: Box::new(move |first: &Transaction| first.amount > limit),
        closes: Box::new(|first: &Transaction, second: &Transaction| first.location != second.location),
        within,
        emit: match emit {
            PatternEmit::Final => Emit::Final,
            PatternEmit::Eager => Emit::Eager,
        },
    };
    let found = neighbours(context, NAME, transactions, watermark, pattern);
    type Match = (Timed<Transaction>, Timed<Transaction>);
    let risk_alerts =
        found
            .matches
            .inner
            .flat_map(move |((first, second), _epoch, diff): (Match, u64, i64)| {
                let status = match (emit, diff > 0) {
                    (PatternEmit::Final, _) => RiskStatus::Final,
                    (PatternEmit::Eager, true) => RiskStatus::Raised,
                    (PatternEmit::Eager, false) => RiskStatus::Withdrawn,
                };
                let alert = RiskAlert {
                    status,
                    first: first.value,
                    second: second.value,
                    origin: second.origin,
                };
                std::iter::repeat_n(alert, usize::try_from(diff.unsigned_abs()).unwrap_or(usize::MAX))
            });
    let risk_timeouts = additions(found.timeouts, move |first| RiskTimeout {
        user_id: first.key,
        expired_at: first.time.saturating_add(within),
        first: first.value,
        origin: first.origin,
    });
    let dead_letters = late.concat(refused_letters(found.refused, "transactions", NAME));
    Outputs {
        risk_alerts,
        risk_timeouts,
        dead_letters,
    }
}

#[cfg(test)]
mod tests;

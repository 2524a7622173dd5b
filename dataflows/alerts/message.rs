//! Messages: what a hit looks like when it is sent.
//!
//! A message holds the entry and the criterion; its `alert_id` and `params` are written when it is
//! serialized, straight into the output. Amounts are minor units and are shown as decimals with two
//! digits, exactly, without floats.

use crate::records::{AccountEntry, AlertRule, Device, Direction, RuleType};
use compact_str::ToCompactString;
use serde::ser::{SerializeMap, SerializeStruct};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::sync::Arc;
use tidegate::record::{Origin, Output, Rank, Text};

/// What a rule watches for. Equal criteria of a customer, account and currency are one rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Criterion {
    /// The balance rises above the threshold, in minor units.
    BalanceAbove(i64),
    /// The balance falls below the threshold, in minor units.
    BalanceBelow(i64),
    /// A credit above the threshold, in minor units.
    CreditedAbove(i64),
    /// A debit above the threshold, in minor units.
    DebitedAbove(i64),
    /// A credit from the counterparty.
    CreditedFrom(Text),
}

impl Criterion {
    /// The criterion of a rule of the settings; none if the rule lacks its parameter. A parameter that
    /// its kind does not use makes no difference.
    pub(super) fn of(rule: &AlertRule) -> Option<Criterion> {
        match rule.r#type {
            RuleType::BalanceAbove => rule.threshold.map(Criterion::BalanceAbove),
            RuleType::BalanceBelow => rule.threshold.map(Criterion::BalanceBelow),
            RuleType::CreditedAbove => rule.threshold.map(Criterion::CreditedAbove),
            RuleType::DebitedAbove => rule.threshold.map(Criterion::DebitedAbove),
            RuleType::CreditedFrom => rule.counterparty.clone().map(Criterion::CreditedFrom),
        }
    }

    /// Whether an entry in the right currency is a hit. Balances before are computed in 128 bits: they
    /// may lie outside 64.
    pub(super) fn is_met_by(&self, entry: &AccountEntry) -> bool {
        let credit = entry.direction == Direction::Credit;
        let amount = i128::from(entry.amount);
        let after = i128::from(entry.balance_after);
        let before = if credit { after - amount } else { after + amount };
        // A balance rule hits when the entry carries the balance across the threshold, not while it stays
        // there.
        let above = |balance: i128, threshold: i64| balance > i128::from(threshold);
        let below = |balance: i128, threshold: i64| balance < i128::from(threshold);
        match *self {
            Criterion::BalanceAbove(threshold) => above(after, threshold) && !above(before, threshold),
            Criterion::BalanceBelow(threshold) => below(after, threshold) && !below(before, threshold),
            Criterion::CreditedAbove(threshold) => credit && entry.amount > threshold,
            Criterion::DebitedAbove(threshold) => !credit && entry.amount > threshold,
            Criterion::CreditedFrom(ref from) => credit && entry.counterparty.as_ref() == Some(from),
        }
    }

    /// Its kind.
    fn kind(&self) -> RuleType {
        match self {
            Criterion::BalanceAbove(_) => RuleType::BalanceAbove,
            Criterion::BalanceBelow(_) => RuleType::BalanceBelow,
            Criterion::CreditedAbove(_) => RuleType::CreditedAbove,
            Criterion::DebitedAbove(_) => RuleType::DebitedAbove,
            Criterion::CreditedFrom(_) => RuleType::CreditedFrom,
        }
    }

    /// Minor units; none for CREDITED_FROM.
    fn threshold(&self) -> Option<i64> {
        match self {
            Criterion::BalanceAbove(threshold)
            | Criterion::BalanceBelow(threshold)
            | Criterion::CreditedAbove(threshold)
            | Criterion::DebitedAbove(threshold) => Some(*threshold),
            Criterion::CreditedFrom(_) => None,
        }
    }
}

/// What all messages of one hit share: an entry met a criterion of a customer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Alert {
    /// The entry.
    pub entry: AccountEntry,
    /// Where the entry stands.
    pub origin: Origin,
    /// Who asked for it.
    pub customer_id: Text,
    /// What it met.
    pub criterion: Criterion,
}

/// `{entry_id}/{customer_id}/{type}/{threshold as integer, or counterparty}`.
impl fmt::Display for Alert {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [
            &self.entry.entry_id,
            &self.customer_id,
            self.criterion.kind().symbol(),
        ] {
            formatter.write_str(part)?;
            formatter.write_str("/")?;
        }
        match &self.criterion {
            Criterion::CreditedFrom(counterparty) => formatter.write_str(counterparty),
            of_threshold => of_threshold.threshold().unwrap_or_default().fmt(formatter),
        }
    }
}

impl Alert {
    /// The order of messages: that of their entries.
    fn rank(&self) -> Rank {
        Rank(0, self.origin.partition.into(), self.origin.offset)
    }

    /// Writes the fields that both kinds of message have.
    fn write<S: SerializeStruct>(&self, message: &mut S) -> Result<(), S::Error> {
        message.serialize_field("alert_id", &format_args!("{self}"))?;
        message.serialize_field("customer_id", &self.customer_id)?;
        message.serialize_field("type", &self.criterion.kind())?;
        message.serialize_field("account_id", &self.entry.account_id)?;
        message.serialize_field("entry_id", &self.entry.entry_id)?;
        message.serialize_field("booked_at", &self.entry.booked_at)?;
        message.serialize_field("params", &Params(self))
    }
}

/// The `params` of an alert.
struct Params<'a>(&'a Alert);

impl Serialize for Params<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Params(Alert { entry, criterion, .. }) = self;
        let threshold = criterion.threshold();
        let optional = usize::from(threshold.is_some()) + usize::from(entry.counterparty.is_some());
        let mut params = serializer.serialize_map(Some(3 + optional))?;
        params.serialize_entry("amount", &decimal(entry.amount))?;
        params.serialize_entry("balance_after", &decimal(entry.balance_after))?;
        params.serialize_entry("currency", &entry.currency)?;
        if let Some(threshold) = threshold {
            params.serialize_entry("threshold", &decimal(threshold))?;
        }
        if let Some(counterparty) = &entry.counterparty {
            params.serialize_entry("counterparty", counterparty)?;
        }
        params.end()
    }
}

/// Minor units as a decimal with two digits. The longest, 21 bytes, is still inline in a [`Text`].
fn decimal(minor: i64) -> Text {
    let magnitude = minor.unsigned_abs();
    let mut text = if minor < 0 {
        Text::const_new("-")
    } else {
        Text::default()
    };
    text.push_str(&(magnitude / 100).to_compact_string());
    text.push('.');
    for digit in [magnitude / 10 % 10, magnitude % 10] {
        text.push(char::from(b'0' + digit as u8));
    }
    text
}

/// A message to an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutboundMessage {
    /// What it says.
    pub alert: Arc<Alert>,
    /// Where it goes: its key.
    pub address: Text,
}

impl Serialize for OutboundMessage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut message = serializer.serialize_struct("OutboundMessage", 7)?;
        self.alert.write(&mut message)?;
        message.end()
    }
}

impl Output for OutboundMessage {
    const SCHEMA: &'static str = include_str!("../schemas/OutboundMessage.avsc");

    fn key(&self) -> Option<&str> {
        Some(&self.address)
    }
    fn rank(&self) -> Rank {
        self.alert.rank()
    }

    fn origin(&self) -> Option<(&str, Origin)> {
        Some(("entries", self.alert.origin))
    }
}

/// A push message to a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceMessage {
    /// What it says.
    pub alert: Arc<Alert>,
    /// Where it goes; its `push_id` is the key.
    pub device: Device,
}

impl Serialize for DeviceMessage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut message = serializer.serialize_struct("DeviceMessage", 8)?;
        self.alert.write(&mut message)?;
        message.serialize_field("device_type", &self.device.device_type)?;
        message.end()
    }
}

impl Output for DeviceMessage {
    const SCHEMA: &'static str = include_str!("../schemas/DeviceMessage.avsc");

    fn key(&self) -> Option<&str> {
        Some(&self.device.push_id)
    }
    fn rank(&self) -> Rank {
        self.alert.rank()
    }

    fn origin(&self) -> Option<(&str, Origin)> {
        Some(("entries", self.alert.origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_have_two_digits() {
        let table = [
            (0, "0.00"),
            (5, "0.05"),
            (-5, "-0.05"),
            (100, "1.00"),
            (-12_345, "-123.45"),
            (i64::MAX, "92233720368547758.07"),
            (i64::MIN, "-92233720368547758.08"),
        ];
        for (minor, text) in table {
            assert_eq!(decimal(minor), text);
            assert!(!decimal(minor).is_heap_allocated());
        }
    }
}

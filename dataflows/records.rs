//! The records of the contract, by their field names.
//!
//! Input records decode strictly (see `strict_record!`): a missing field, a wrong type, an unknown symbol or a known field
//! given twice is an error that names the field; unknown fields are ignored.

use serde::{Deserialize, Serialize};
use tidegate::record::{Origin, Output, Rank, Record, Text};
use tidegate::time::Millis;

/// The direction of an account entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Direction {
    /// Money leaves the account.
    Debit,
    /// Money arrives.
    Credit,
}

/// How a customer is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Channel {
    /// By e-mail.
    Email,
    /// By text message.
    Sms,
    /// On the customer's devices.
    Push,
}

/// The kinds of alert rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RuleType {
    /// The balance rises above the threshold.
    BalanceAbove,
    /// The balance falls below the threshold.
    BalanceBelow,
    /// A credit above the threshold.
    CreditedAbove,
    /// A debit above the threshold.
    DebitedAbove,
    /// A credit from the counterparty.
    CreditedFrom,
}

/// One booked entry of an account. Key: `account_id`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AccountEntry {
    /// Names the entry; not necessarily unique.
    pub entry_id: Text,
    /// The account.
    pub account_id: Text,
    /// Event time.
    pub booked_at: Millis,
    /// In or out.
    pub direction: Direction,
    /// Minor units, >= 0.
    pub amount: i64,
    /// Currency code.
    pub currency: Text,
    /// Balance after the entry, minor units, signed.
    pub balance_after: i64,
    /// The other party, where known.
    pub counterparty: Option<Text>,
}

/// Table: who may see an account. Key: `account_id`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AccountAuthorizations {
    /// The account.
    pub account_id: Text,
    /// Its customers; repetitions count once.
    pub customers: Vec<Text>,
}

/// Table: what a customer wants to hear of, and where. Key: `customer_id`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CustomerAlertSettings {
    /// The customer.
    pub customer_id: Text,
    /// Where messages go.
    pub addresses: Vec<Address>,
    /// What is watched.
    pub accounts: Vec<AccountAlerts>,
}

/// One address of a customer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address {
    /// Its channel.
    pub channel: Channel,
    /// The address; for PUSH the customer id.
    pub address: Text,
}

/// The rules for one account and currency.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AccountAlerts {
    /// The account.
    pub account_id: Text,
    /// Only entries in this currency count.
    pub currency: Text,
    /// The rules.
    pub alerts: Vec<AlertRule>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AlertRule {
    /// Its kind.
    pub r#type: RuleType,
    /// Minor units; every kind but CREDITED_FROM needs it.
    pub threshold: Option<i64>,
    /// CREDITED_FROM needs it.
    pub counterparty: Option<Text>,
    /// Where a hit is sent.
    pub channels: Vec<Channel>,
}

/// Table: a customer's devices. Key: `customer_id`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CustomerDevices {
    /// The customer.
    pub customer_id: Text,
    /// Equal devices count once.
    pub devices: Vec<Device>,
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Device {
    /// Where push messages go.
    pub push_id: Text,
    /// Free text.
    pub device_type: Text,
}

/// An order. The message key is any string: the grouping and join key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Order {
    /// Names the order.
    pub order_id: Text,
    /// Minor units.
    pub amount: i64,
    /// Currency code.
    pub currency: Text,
    /// Event time.
    pub placed_at: Millis,
}

/// A payment, in the key space of orders.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Payment {
    /// Names the payment.
    pub payment_id: Text,
    /// Minor units.
    pub amount: i64,
    /// Currency code.
    pub currency: Text,
    /// Event time.
    pub paid_at: Millis,
}

/// A card transaction. Key: `user_id`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Transaction {
    /// Names the transaction.
    pub transaction_id: Text,
    /// The user.
    pub user_id: Text,
    /// Minor units.
    pub amount: i64,
    /// Currency code.
    pub currency: Text,
    /// Where it happened.
    pub location: Text,
    /// Event time.
    pub occurred_at: Millis,
}

/// Anything that is counted. The message key is any string.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Event {
    /// Names the event.
    pub event_id: Text,
    /// Event time.
    pub occurred_at: Millis,
}

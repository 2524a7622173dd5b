//! The records of the contract, by their field names.
//!
//! They decode strictly (`tidegate::format::strict`): a missing field, a wrong type, an unknown symbol or a
//! known field given twice is an error that names the path to the field; unknown fields are ignored. `= None`
//! marks the fields that may be null or absent. Field order is also the order in checkpoints: it does not
//! change.
//!
//! What types cannot say stands in [`Record::check`] below: the range of event times, an entry's amount, the
//! key that must agree with the key field, the parameter that a rule needs. Amounts are integers in minor
//! units, times integer milliseconds since the Unix epoch.

use tidegate::record::{Record, Text};
use tidegate::time::{EVENT_TIMES, Millis};
use tidegate::{strict_enum, strict_record};

strict_enum! {
    /// The direction of an account entry.
    pub enum Direction {
        /// Money leaves the account.
        Debit = "DEBIT",
        /// Money arrives.
        Credit = "CREDIT",
    }

    /// How a customer is reached.
    pub enum Channel {
        /// By e-mail.
        Email = "EMAIL",
        /// By text message.
        Sms = "SMS",
        /// On the customer's devices.
        Push = "PUSH",
    }

    /// The kinds of alert rules.
    pub enum RuleType {
        /// The balance rises above the threshold.
        BalanceAbove = "BALANCE_ABOVE",
        /// The balance falls below the threshold.
        BalanceBelow = "BALANCE_BELOW",
        /// A credit above the threshold.
        CreditedAbove = "CREDITED_ABOVE",
        /// A debit above the threshold.
        DebitedAbove = "DEBITED_ABOVE",
        /// A credit from the counterparty.
        CreditedFrom = "CREDITED_FROM",
    }
}

strict_record! {
    /// One booked entry of an account. Key: `account_id`.
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
        pub counterparty: Option<Text> = None,
    }

    /// Table: who may see an account. Key: `account_id`.
    pub struct AccountAuthorizations {
        /// The account.
        pub account_id: Text,
        /// Its customers; repetitions count once.
        pub customers: Vec<Text>,
    }

    /// Table: what a customer wants to hear of, and where. Key: `customer_id`.
    pub struct CustomerAlertSettings {
        /// The customer.
        pub customer_id: Text,
        /// Where messages go.
        pub addresses: Vec<Address>,
        /// What is watched.
        pub accounts: Vec<AccountAlerts>,
    }

    /// One address of a customer.
    pub struct Address {
        /// Its channel.
        pub channel: Channel,
        /// The address; for PUSH the customer id.
        pub address: Text,
    }

    /// The rules for one account and currency.
    pub struct AccountAlerts {
        /// The account.
        pub account_id: Text,
        /// Only entries in this currency count.
        pub currency: Text,
        /// The rules.
        pub alerts: Vec<AlertRule>,
    }

    /// One rule.
    pub struct AlertRule {
        /// Its kind.
        pub r#type: RuleType,
        /// Minor units; every kind but CREDITED_FROM needs it.
        pub threshold: Option<i64> = None,
        /// CREDITED_FROM needs it.
        pub counterparty: Option<Text> = None,
        /// Where a hit is sent.
        pub channels: Vec<Channel>,
    }

    /// Table: a customer's devices. Key: `customer_id`.
    pub struct CustomerDevices {
        /// The customer.
        pub customer_id: Text,
        /// Equal devices count once.
        pub devices: Vec<Device>,
    }

    /// One device.
    pub struct Device {
        /// Where push messages go.
        pub push_id: Text,
        /// Free text.
        pub device_type: Text,
    }

    /// An order. The message key is any string: the grouping and join key.
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
    pub struct Event {
        /// Names the event.
        pub event_id: Text,
        /// Event time.
        pub occurred_at: Millis,
    }
}

impl Record for AccountEntry {
    const NAME: &'static str = "AccountEntry";
    const SCHEMA: &'static str = include_str!("schemas/AccountEntry.avsc");

    fn event_time(&self) -> Option<Millis> {
        Some(self.booked_at)
    }

    fn check(&self, key: &str) -> Result<(), String> {
        not_negative("AccountEntry.amount", self.amount)?;
        agrees(key, "account_id", &self.account_id)?;
        in_range("AccountEntry.booked_at", self.booked_at)
    }
}

impl Record for AccountAuthorizations {
    const NAME: &'static str = "AccountAuthorizations";
    const SCHEMA: &'static str = include_str!("schemas/AccountAuthorizations.avsc");

    fn event_time(&self) -> Option<Millis> {
        None
    }

    fn check(&self, key: &str) -> Result<(), String> {
        agrees(key, "account_id", &self.account_id)
    }
}

impl Record for CustomerAlertSettings {
    const NAME: &'static str = "CustomerAlertSettings";
    const SCHEMA: &'static str = include_str!("schemas/CustomerAlertSettings.avsc");

    fn event_time(&self) -> Option<Millis> {
        None
    }

    fn check(&self, key: &str) -> Result<(), String> {
        agrees(key, "customer_id", &self.customer_id)?;
        let mut rules = self.accounts.iter().flat_map(|account| &account.alerts);
        match rules.find(|rule| !rule.has_parameter()) {
            Some(rule) => Err(format!(
                "{}.accounts.alerts: a {} rule without its parameter",
                Self::NAME,
                rule.r#type.symbol()
            )),
            None => Ok(()),
        }
    }
}

impl AlertRule {
    /// Whether the parameter that its kind needs is there; the other one is ignored.
    fn has_parameter(&self) -> bool {
        match self.r#type {
            RuleType::CreditedFrom => self.counterparty.is_some(),
            RuleType::BalanceAbove
            | RuleType::BalanceBelow
            | RuleType::CreditedAbove
            | RuleType::DebitedAbove => self.threshold.is_some(),
        }
    }
}

impl Record for CustomerDevices {
    const NAME: &'static str = "CustomerDevices";
    const SCHEMA: &'static str = include_str!("schemas/CustomerDevices.avsc");

    fn event_time(&self) -> Option<Millis> {
        None
    }

    fn check(&self, key: &str) -> Result<(), String> {
        agrees(key, "customer_id", &self.customer_id)
    }
}

impl Record for Order {
    const NAME: &'static str = "Order";
    const SCHEMA: &'static str = include_str!("schemas/Order.avsc");

    fn event_time(&self) -> Option<Millis> {
        Some(self.placed_at)
    }

    fn check(&self, _key: &str) -> Result<(), String> {
        not_negative("Order.amount", self.amount)?;
        in_range("Order.placed_at", self.placed_at)
    }
}

impl Record for Payment {
    const NAME: &'static str = "Payment";
    const SCHEMA: &'static str = include_str!("schemas/Payment.avsc");

    fn event_time(&self) -> Option<Millis> {
        Some(self.paid_at)
    }

    fn check(&self, _key: &str) -> Result<(), String> {
        not_negative("Payment.amount", self.amount)?;
        in_range("Payment.paid_at", self.paid_at)
    }
}

impl Record for Transaction {
    const NAME: &'static str = "Transaction";
    const SCHEMA: &'static str = include_str!("schemas/Transaction.avsc");

    fn event_time(&self) -> Option<Millis> {
        Some(self.occurred_at)
    }

    fn check(&self, key: &str) -> Result<(), String> {
        agrees(key, "user_id", &self.user_id)?;
        not_negative("Transaction.amount", self.amount)?;
        in_range("Transaction.occurred_at", self.occurred_at)
    }
}

impl Record for Event {
    const NAME: &'static str = "Event";
    const SCHEMA: &'static str = include_str!("schemas/Event.avsc");

    fn event_time(&self) -> Option<Millis> {
        Some(self.occurred_at)
    }

    fn check(&self, _key: &str) -> Result<(), String> {
        in_range("Event.occurred_at", self.occurred_at)
    }
}

/// The message key must be what the record's key field says: it routes the record.
fn agrees(key: &str, field: &str, value: &str) -> Result<(), String> {
    if key == value {
        Ok(())
    } else {
        Err(format!("key '{key}' but {field} '{value}'"))
    }
}

/// The contract's list of what is INVALID says `amount < 0` of no record in particular, so it is said of all.
fn not_negative(field: &str, amount: i64) -> Result<(), String> {
    if amount < 0 {
        Err(format!("{field}: {amount} is negative"))
    } else {
        Ok(())
    }
}

fn in_range(field: &str, time: Millis) -> Result<(), String> {
    if EVENT_TIMES.contains(&time) {
        Ok(())
    } else {
        Err(format!("{field}: {time} is outside {EVENT_TIMES:?}"))
    }
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;

//! `alerts`: messages to the customers who asked to hear of an account entry.
//!
//! ```text
//!  inputs   entries, authorizations, settings, devices (optional)
//!  outputs  email, sms, push, device_push (exactly when devices is there)
//!
//!  subscriptions = authorizations JOIN settings on (customer, account), keyed by account
//!  for each entry, each subscription of its account in its currency, each rule (equal rules count once):
//!
//!      signed  = CREDIT ? amount : -amount          before = balance_after - signed
//!      BALANCE_ABOVE   balance_after > threshold  and before <= threshold
//!      BALANCE_BELOW   balance_after < threshold  and before >= threshold
//!      CREDITED_ABOVE  CREDIT and amount > threshold
//!      DEBITED_ABOVE   DEBIT  and amount > threshold
//!      CREDITED_FROM   CREDIT and counterparty equals the rule's
//!
//!  a hit gives one message for every address of the customer on the rule's channels,
//!  and if there is one on PUSH, one message for every device of the customer
//! ```
//!
//! As a dataflow:
//!
//! ```text
//!  authorizations ─► upsert ─► (customer, account) ───────────┐
//!  settings ─► upsert ─► (customer, account), subscription ─► join ─► subscription by account
//!                                                                          ▼
//!  entries ─► question as of its epoch ──────────────────────────────► lookup ─► hits ─┬─► email, sms, push
//!                                                                                      ▼
//!  devices ─► upsert ─► devices by customer ────────────────────────────────────────► lookup ─► device_push
//! ```
//!
//! **As of.** An entry meets the tables with every update of epochs up to its own. A later change affects
//! later entries and never sends again for earlier ones. The two tables are joined when *they* change, so
//! an entry costs one exchange and one lookup, however often its account's settings were written.
//!
//! **Order.** Messages of one account keep the (partition, offset) order of its entries, by their rank.
//!
//! **Late.** Nothing is. **Refuses** nothing; but a message cannot be unsent, so the retraction of an
//! entry does nothing.

mod message;
mod subscription;
#[cfg(test)]
mod tests;

pub use message::{Alert, Criterion, DeviceMessage, OutboundMessage};

use crate::records::{
    AccountAuthorizations, AccountEntry, Channel, CustomerAlertSettings, CustomerDevices, Device,
};
use differential_dataflow::AsCollection;
use std::collections::BTreeSet;
use std::sync::Arc;
use subscription::{Hit, Subscription, hits, subscriptions};
use tidegate::operators::Context;
use tidegate::operators::lookup::{Answers, History, Question, lookup};
use tidegate::operators::upsert::{Row, upsert};
use tidegate::record::{Messages, Records, Text, Updates, Write, key_hash};
use timely::dataflow::operators::vec::{Map, Partition};

/// What comes in.
#[derive(Clone)]
pub struct Inputs<'s> {
    /// Account entries.
    pub entries: Records<'s, AccountEntry>,
    /// Who may see which account.
    pub authorizations: Updates<'s, Write<AccountAuthorizations>>,
    /// What customers want to hear of.
    pub settings: Updates<'s, Write<CustomerAlertSettings>>,
    /// Devices of customers; without them there is no `device_push`.
    pub devices: Option<Updates<'s, Write<CustomerDevices>>>,
}

/// What goes out.
pub struct Outputs<'s> {
    /// Messages to e-mail addresses.
    pub email: Messages<'s, OutboundMessage>,
    /// Messages to telephone numbers.
    pub sms: Messages<'s, OutboundMessage>,
    /// Push messages to customers.
    pub push: Messages<'s, OutboundMessage>,
    /// Push messages to devices; there when the input `devices` is.
    pub device_push: Option<Messages<'s, DeviceMessage>>,
}

/// Builds the dataflow.
pub fn build<'s>(context: &Context<'s>, inputs: Inputs<'s>) -> Outputs<'s> {
    let subscriptions = subscriptions_by_account(context, inputs.authorizations, inputs.settings);
    let questions = inputs.entries.updates.inner.map(|(entry, epoch, diff)| {
        let question = Question {
            key: entry.key,
            hash: entry.hash,
            as_of: epoch,
            asked: (entry.origin, entry.value),
        };
        (question, epoch, diff)
    });
    // Entries ask about their own epoch only, so none is refused.
    let Answers { answers: hits, .. } = lookup(
        context,
        "alerts/subscriptions",
        questions.as_collection(),
        subscriptions,
        History::NONE,
        hits,
    );
    let device_push = inputs
        .devices
        .map(|devices| push_to_devices(context, devices, hits.clone()));

    let messages = hits.inner.flat_map(|(hit, _epoch, diff)| {
        let hit = (diff > 0).then_some(hit);
        hit.into_iter().flat_map(Hit::messages)
    });
    // The streams stand in the order of the channels.
    let channels = messages.partition(3, |(channel, message)| (channel as u64, message));
    let of = |channel| channels[channel as usize].clone();
    Outputs {
        email: of(Channel::Email),
        sms: of(Channel::Sms),
        push: of(Channel::Push),
        device_push,
    }
}

/// authorizations JOIN settings on (customer, account), keyed by account.
fn subscriptions_by_account<'s>(
    context: &Context<'s>,
    authorizations: Updates<'s, Write<AccountAuthorizations>>,
    settings: Updates<'s, Write<CustomerAlertSettings>>,
) -> Updates<'s, Row<Subscription>> {
    let authorized = upsert(context, "alerts/authorizations", authorizations)
        .flat_map(|row| {
            let customers: BTreeSet<Text> = row.value.customers.iter().cloned().collect();
            customers
                .into_iter()
                .map(move |customer| (customer, row.key.clone()))
        })
        .arrange_by_self_named("alerts: authorized");
    upsert(context, "alerts/settings", settings)
        .flat_map(|row| {
            subscriptions(&row.value)
                .into_iter()
                .map(|(account, subscription)| {
                    ((subscription.customer.clone(), account), Arc::new(subscription))
                })
        })
        .arrange_by_key_named("alerts: subscriptions")
        .join_core(authorized, |(_customer, account), subscription, ()| {
            Some(Row {
                hash: key_hash(account.as_bytes()),
                key: account.clone(),
                value: Arc::clone(subscription),
            })
        })
}

/// Resolves hits on PUSH to the devices of the customer, as of the epoch of the entry.
fn push_to_devices<'s>(
    context: &Context<'s>,
    devices: Updates<'s, Write<CustomerDevices>>,
    hits: Updates<'s, Hit>,
) -> Messages<'s, DeviceMessage> {
    let devices = upsert(context, "alerts/devices", devices).map(|row| {
        let devices: BTreeSet<Device> = row.value.devices.iter().cloned().collect();
        Row {
            hash: row.hash,
            key: row.key,
            value: Arc::new(devices),
        }
    });
    let questions = hits.inner.flat_map(|(hit, epoch, diff)| {
        hit.pushes().then(|| {
            let question = Question {
                key: hit.alert.customer_id.clone(),
                hash: hit.customer_hash,
                as_of: epoch,
                asked: hit.alert,
            };
            (question, epoch, diff)
        })
    });
    let Answers { answers, .. } = lookup(
        context,
        "alerts/device-push",
        questions.as_collection(),
        devices,
        History::NONE,
        |question: &Question<Arc<Alert>>, devices: &BTreeSet<Device>, send| {
            for device in devices {
                send(DeviceMessage {
                    alert: Arc::clone(&question.asked),
                    device: device.clone(),
                });
            }
        },
    );
    answers
        .inner
        .flat_map(|(message, _epoch, diff)| (diff > 0).then_some(message))
}

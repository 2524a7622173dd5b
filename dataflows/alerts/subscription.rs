//! Subscriptions: a customer's settings for one account and currency, made ready for entries.
//!
//! Settings may say the same thing twice: an account listed twice, a rule repeated with other channels,
//! an address given again. All of that is settled here, once, when the settings change. A subscription
//! then has every criterion once with the union of its channels, every address once per channel, and only
//! rules that reach an address; so one entry gives one `alert_id` to one address at most once, without
//! looking for repetitions at every entry.

use super::message::{Alert, Criterion, OutboundMessage};
use crate::records::{AccountEntry, Address, Channel, CustomerAlertSettings};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidegate::operators::lookup::Question;
use tidegate::record::{Origin, Text, key_hash};

/// A set of channels, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Channels(u8);

impl Channels {
    fn insert(&mut self, channel: Channel) {
        self.0 |= 1 << channel as u8;
    }
    fn contains(self, channel: Channel) -> bool {
        self.0 & (1 << channel as u8) != 0
    }
}

/// One rule: what it watches for and where a hit is sent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Rule {
    criterion: Criterion,
    channels: Channels,
}

/// What a customer wants to hear of one account in one currency. What every entry looks at comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Subscription {
    currency: Text,
    /// By criterion, each once; not empty.
    rules: SmallVec<[Rule; 2]>,
    /// The customer.
    pub(super) customer: Text,
    customer_hash: u64,
    /// Sorted, each once; shared among the subscriptions of the customer.
    addresses: Arc<[Address]>,
}

/// The subscriptions in a customer's settings, with their accounts: one per account and currency.
pub(super) fn subscriptions(settings: &CustomerAlertSettings) -> Vec<(Text, Subscription)> {
    let addresses: BTreeSet<&Address> = settings.addresses.iter().collect();
    let mut reached = Channels::default();
    addresses
        .iter()
        .for_each(|address| reached.insert(address.channel));
    let mut rules = BTreeMap::<(&Text, &Text), BTreeMap<Criterion, Channels>>::new();
    for account in &settings.accounts {
        let of_account = rules.entry((&account.account_id, &account.currency)).or_default();
        for rule in &account.alerts {
            // A rule without its parameter is INVALID at the source; here it watches for nothing.
            let Some(criterion) = Criterion::of(rule) else {
                continue;
            };
            for channel in rule.channels.iter().filter(|channel| reached.contains(**channel)) {
                of_account.entry(criterion.clone()).or_default().insert(*channel);
            }
        }
    }
    let addresses = Arc::<[Address]>::from(addresses.into_iter().cloned().collect::<Vec<_>>());
    let customer_hash = key_hash(settings.customer_id.as_bytes());
    let subscriptions = rules.into_iter().filter(|(_, rules)| !rules.is_empty());
    subscriptions
        .map(|((account, currency), rules)| {
            let rules = rules.into_iter();
            let subscription = Subscription {
                currency: currency.clone(),
                rules: rules
                    .map(|(criterion, channels)| Rule { criterion, channels })
                    .collect(),
                customer: settings.customer_id.clone(),
                customer_hash,
                addresses: Arc::clone(&addresses),
            };
            (account.clone(), subscription)
        })
        .collect()
}

/// A rule that an entry met, before it is spread over addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hit {
    /// Shared by its messages: an alert holds its whole entry.
    pub(super) alert: Arc<Alert>,
    pub(super) customer_hash: u64,
    channels: Channels,
    addresses: Arc<[Address]>,
}

impl Hit {
    /// Whether it is sent to an address on PUSH: rules name only channels that reach one.
    pub(super) fn pushes(&self) -> bool {
        self.channels.contains(Channel::Push)
    }

    /// Its messages, with their channels.
    pub(super) fn messages(self) -> impl Iterator<Item = (Channel, OutboundMessage)> {
        (0..self.addresses.len()).filter_map(move |at| {
            let Address { channel, address } = &self.addresses[at];
            self.channels.contains(*channel).then(|| {
                let (alert, address) = (Arc::clone(&self.alert), address.clone());
                (*channel, OutboundMessage { alert, address })
            })
        })
    }
}

/// The hits of an entry on a subscription of its account.
pub(super) fn hits(
    question: &Question<(Origin, AccountEntry)>,
    subscription: &Subscription,
    give: &mut dyn FnMut(Hit),
) {
    let (origin, entry) = &question.asked;
    if subscription.currency != entry.currency {
        return;
    }
    for rule in subscription
        .rules
        .iter()
        .filter(|rule| rule.criterion.is_met_by(entry))
    {
        give(Hit {
            alert: Arc::new(Alert {
                entry: entry.clone(),
                origin: *origin,
                customer_id: subscription.customer.clone(),
                criterion: rule.criterion.clone(),
            }),
            customer_hash: subscription.customer_hash,
            channels: rule.channels,
            addresses: Arc::clone(&subscription.addresses),
        });
    }
}

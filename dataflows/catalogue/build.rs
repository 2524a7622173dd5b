//! From the catalogue's names to dataflows: inputs asked for once, outputs given away, in one variant or in two.
//!
//! A second variant is what a what-if builds beside the first: the same dataflows over the same inputs, under other
//! settings, or with other rows in the table of alert settings.

use super::{DEVICE_PUSH, DEVICES, Dataflow, EVENTS, ORDERS, PAYMENTS, Settings, TRANSACTIONS};
use crate::records::{CustomerAlertSettings, Order};
use crate::{alerts, enriched_orders, event_counts, risk_pattern, tumbling_aggregates};
use std::collections::BTreeSet;
use tidegate::record::{Records, Updates, Write};
use tidegate::run::wiring::Wiring;
use tidegate::time::Epoch;

/// One way to run a job's dataflows.
#[derive(Clone, Debug)]
pub struct Variant {
    /// Of the dataflows.
    pub settings: Settings,
    /// Rows of the table of alert settings that hold from the epoch on, whatever else is written to their keys.
    pub alert_settings: Vec<Write<CustomerAlertSettings>>,
    /// The epoch.
    pub from: Epoch,
}

impl Variant {
    fn alert_settings<'s>(
        &self,
        wiring: &Wiring<'s>,
        recorded: Updates<'s, Write<CustomerAlertSettings>>,
    ) -> Updates<'s, Write<CustomerAlertSettings>> {
        if self.alert_settings.is_empty() {
            return recorded;
        }
        let keys: BTreeSet<_> = self
            .alert_settings
            .iter()
            .map(|write| write.key.clone())
            .collect();
        recorded
            .filter(move |write| !keys.contains(&write.key))
            .concat(wiring.given(&self.alert_settings, self.from))
    }
}

/// Builds the chosen dataflows: asks `wiring` for their inputs, each once, and gives it their outputs.
pub fn build<'s>(wiring: &mut Wiring<'s>, dataflows: &[Dataflow], settings: &Settings) {
    let variant = Variant {
        settings: *settings,
        alert_settings: Vec::new(),
        from: 0,
    };
    build_each(wiring, dataflows, &[variant]);
}

/// Builds the chosen dataflows in one or two variants, over the same inputs.
pub fn build_each<'s>(wiring: &mut Wiring<'s>, dataflows: &[Dataflow], variants: &[Variant]) {
    // Both order dataflows read the one input.
    let mut orders = None::<Records<'s, Order>>;
    let mut orders =
        |wiring: &mut Wiring<'s>| orders.get_or_insert_with(|| wiring.records(ORDERS.name)).clone();
    for dataflow in Dataflow::ALL
        .into_iter()
        .filter(|dataflow| dataflows.contains(dataflow))
    {
        match dataflow {
            Dataflow::Alerts => {
                let inputs = alerts::Inputs {
                    entries: wiring.records("entries"),
                    authorizations: wiring.table("authorizations"),
                    settings: wiring.table("settings"),
                    devices: wiring.has_input(DEVICES.name).then(|| wiring.table(DEVICES.name)),
                };
                each(wiring, variants, |wiring, variant| {
                    let mut inputs = inputs.clone();
                    inputs.settings = variant.alert_settings(wiring, inputs.settings);
                    let outputs = alerts::build(&wiring.context, inputs);
                    wiring.output("email", outputs.email);
                    wiring.output("sms", outputs.sms);
                    wiring.output("push", outputs.push);
                    if let Some(device_push) = outputs.device_push {
                        wiring.output(DEVICE_PUSH.name, device_push);
                    }
                });
            }
            Dataflow::TumblingAggregates => {
                let orders = orders(wiring);
                let inputs = tumbling_aggregates::Inputs { orders };
                each(wiring, variants, |wiring, variant| {
                    let config = &variant.settings.tumbling_aggregates;
                    let outputs = tumbling_aggregates::build(&wiring.context, inputs.clone(), config);
                    wiring.output("aggregates", outputs.aggregates);
                    wiring.dead_letters(outputs.dead_letters);
                });
            }
            Dataflow::EnrichedOrders => {
                let (orders, payments) = (orders(wiring), wiring.records(PAYMENTS.name));
                let inputs = enriched_orders::Inputs { orders, payments };
                each(wiring, variants, |wiring, variant| {
                    let config = &variant.settings.enriched_orders;
                    let outputs = enriched_orders::build(&wiring.context, inputs.clone(), config);
                    wiring.output("enriched", outputs.enriched);
                    wiring.dead_letters(outputs.dead_letters);
                });
            }
            Dataflow::RiskPattern => {
                let transactions = wiring.records(TRANSACTIONS.name);
                let inputs = risk_pattern::Inputs { transactions };
                each(wiring, variants, |wiring, variant| {
                    let config = &variant.settings.risk_pattern;
                    let outputs = risk_pattern::build(&wiring.context, inputs.clone(), config);
                    wiring.output("risk_alerts", outputs.risk_alerts);
                    wiring.output("risk_timeouts", outputs.risk_timeouts);
                    wiring.dead_letters(outputs.dead_letters);
                });
            }
            Dataflow::EventCounts => {
                let events = wiring.records(EVENTS.name);
                let inputs = event_counts::Inputs { events };
                each(wiring, variants, |wiring, _| {
                    let outputs = event_counts::build(&wiring.context, inputs.clone());
                    wiring.output("counts", outputs.counts);
                });
            }
        }
    }
}

/// Builds one dataflow in every variant.
fn each<'s>(wiring: &mut Wiring<'s>, variants: &[Variant], build: impl Fn(&mut Wiring<'s>, &Variant)) {
    for (number, variant) in variants.iter().enumerate() {
        if number > 0 {
            wiring.switch();
        }
        build(wiring, variant);
    }
    if variants.len() > 1 {
        wiring.switch();
    }
}

//! The catalogue: which dataflows there are, and what each one takes and gives, by name.
//!
//! ```text
//!  entries, authorizations, settings, [devices] ─► alerts ──────────────► email, sms, push, [device_push]
//!  orders ──────────────┬────────────────────────► tumbling_aggregates ─► aggregates
//!  payments ────────────┴────────────────────────► enriched_orders ─────► enriched
//!  transactions ─────────────────────────────────► risk_pattern ────────► risk_alerts, risk_timeouts
//!  events ───────────────────────────────────────► event_counts ────────► counts
//!                                                  every one of them ───► dead_letters, which is the job's
//! ```
//!
//! Declarations only: the job file is checked against them before anything is built. An input belongs to
//! every dataflow that names it (both order dataflows read the one `orders`); an output other than
//! `dead_letters` belongs to exactly one. The order of [`Dataflow::ALL`] and of the inputs and outputs in it
//! is the order of every plan, whatever order a job file names them in; never reorder them, state is found
//! again by position.

mod build;

pub use build::{Variant, build, build_each};

use crate::alerts::{DeviceMessage, OutboundMessage};
use crate::enriched_orders::EnrichedOrder;
use crate::event_counts::CountResult;
use crate::records::{
    AccountAuthorizations, AccountEntry, CustomerAlertSettings, CustomerDevices, Event, Order, Payment,
    Transaction,
};
use crate::risk_pattern::{RiskAlert, RiskTimeout};
use crate::tumbling_aggregates::OrderStats;
use tidegate::record::{DeadLetter, Output, Record};
use tidegate::time::Millis;

/// What an input of a dataflow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputSpec {
    /// Its name in job files and dead letters.
    pub name: &'static str,
    /// The record it carries, by its name in the contract.
    pub record: &'static str,
    /// Avro schema (JSON) of the record.
    pub schema: &'static str,
    /// A table: the last write of a key wins, a null value removes the row, nothing is late.
    pub is_table: bool,
    /// Default of the setting of this name, milliseconds.
    pub max_out_of_orderness_ms: Millis,
    /// A job may do without it.
    pub is_optional: bool,
    /// What its topic is called where nobody calls it otherwise.
    pub topic: &'static str,
}

/// What an output of a dataflow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputSpec {
    /// Its name in job files.
    pub name: &'static str,
    /// Avro schema (JSON) of its messages.
    pub schema: &'static str,
    /// What its topic is called where nobody calls it otherwise.
    pub topic: &'static str,
}

/// The output of the job itself, where every input and dataflow sends what changed no result.
pub const DEAD_LETTERS: OutputSpec = output::<DeadLetter>("dead_letters", "dead-letters");

/// The optional input that `device_push` hangs on.
pub const DEVICES: InputSpec = InputSpec {
    is_optional: true,
    ..table::<CustomerDevices>("devices", "customer-devices")
};

/// The output that is there exactly when [`DEVICES`] is.
pub const DEVICE_PUSH: OutputSpec = output::<DeviceMessage>("device_push", "device-push-messages");

const ALERTS_INPUTS: &[InputSpec] = &[
    events::<AccountEntry>("entries", "account-entries", 0),
    table::<AccountAuthorizations>("authorizations", "account-authorizations"),
    table::<CustomerAlertSettings>("settings", "alert-settings"),
    DEVICES,
];
const ALERTS_OUTPUTS: &[OutputSpec] = &[
    output::<OutboundMessage>("email", "email-messages"),
    output::<OutboundMessage>("sms", "sms-messages"),
    output::<OutboundMessage>("push", "push-messages"),
    DEVICE_PUSH,
];
const ORDERS: InputSpec = events::<Order>("orders", "orders-input", 0);
const PAYMENTS: InputSpec = events::<Payment>("payments", "payments-input", 0);
const TRANSACTIONS: InputSpec = events::<Transaction>("transactions", "transactions", 5_000);
const EVENTS: InputSpec = events::<Event>("events", "event-input", 0);

const fn output<O: Output>(name: &'static str, topic: &'static str) -> OutputSpec {
    OutputSpec {
        name,
        topic,
        schema: O::SCHEMA,
    }
}

const fn events<R: Record>(
    name: &'static str,
    topic: &'static str,
    max_out_of_orderness_ms: Millis,
) -> InputSpec {
    InputSpec {
        name,
        topic,
        record: R::NAME,
        schema: R::SCHEMA,
        is_table: false,
        max_out_of_orderness_ms,
        is_optional: false,
    }
}

const fn table<R: Record>(name: &'static str, topic: &'static str) -> InputSpec {
    InputSpec {
        name,
        topic,
        record: R::NAME,
        schema: R::SCHEMA,
        is_table: true,
        max_out_of_orderness_ms: 0,
        is_optional: false,
    }
}

/// The dataflows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dataflow {
    /// Messages to the customers of an account about its entries.
    Alerts,
    /// Count, sum, least and greatest order per key and window.
    TumblingAggregates,
    /// Orders joined with payments that are near in time.
    EnrichedOrders,
    /// A large transaction followed by one elsewhere.
    RiskPattern,
    /// Running count per key.
    EventCounts,
}

impl Dataflow {
    /// All of them, in the order of every plan.
    pub const ALL: [Dataflow; 5] = [
        Dataflow::Alerts,
        Dataflow::TumblingAggregates,
        Dataflow::EnrichedOrders,
        Dataflow::RiskPattern,
        Dataflow::EventCounts,
    ];

    /// Its name in job files and in LATE dead letters.
    pub fn name(self) -> &'static str {
        match self {
            Dataflow::Alerts => "alerts",
            Dataflow::TumblingAggregates => "tumbling_aggregates",
            Dataflow::EnrichedOrders => "enriched_orders",
            Dataflow::RiskPattern => "risk_pattern",
            Dataflow::EventCounts => "event_counts",
        }
    }

    /// The dataflow of this name.
    pub fn named(name: &str) -> Option<Dataflow> {
        Dataflow::ALL.into_iter().find(|dataflow| dataflow.name() == name)
    }

    /// Its inputs, the optional ones included.
    pub fn inputs(self) -> &'static [InputSpec] {
        match self {
            Dataflow::Alerts => ALERTS_INPUTS,
            Dataflow::TumblingAggregates => &[ORDERS],
            Dataflow::EnrichedOrders => &[ORDERS, PAYMENTS],
            Dataflow::RiskPattern => &[TRANSACTIONS],
            Dataflow::EventCounts => &[EVENTS],
        }
    }

    /// Its outputs beside the job's [`DEAD_LETTERS`], given whether the job has the [`DEVICES`] input.
    pub fn outputs(self, has_devices: bool) -> &'static [OutputSpec] {
        match self {
            Dataflow::Alerts if has_devices => ALERTS_OUTPUTS,
            Dataflow::Alerts => &ALERTS_OUTPUTS[..ALERTS_OUTPUTS.len() - 1], // DEVICE_PUSH is the last
            Dataflow::TumblingAggregates => {
                const { &[output::<OrderStats>("aggregates", "orders-agg-output")] }
            }
            Dataflow::EnrichedOrders => const { &[output::<EnrichedOrder>("enriched", "orders-enriched")] },
            Dataflow::RiskPattern => {
                const {
                    &[
                        output::<RiskAlert>("risk_alerts", "risk-alerts"),
                        output::<RiskTimeout>("risk_timeouts", "risk-timeouts"),
                    ]
                }
            }
            Dataflow::EventCounts => const { &[output::<CountResult>("counts", "event-counts")] },
        }
    }
}

/// When `tumbling_aggregates` gives a window's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowEmit {
    /// Once, when the window has closed.
    Final,
    /// In each epoch that changed it.
    Changes,
}

/// Settings of `tumbling_aggregates`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TumblingAggregatesConfig {
    /// Length of a window, milliseconds, > 0.
    pub size_ms: Millis,
    /// A window stays open this long after its end, milliseconds, >= 0.
    pub grace_ms: Millis,
    /// When rows are given.
    pub emit: WindowEmit,
}

/// Settings of `enriched_orders`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnrichedOrdersConfig {
    /// Greatest distance in time of a pair, milliseconds, >= 0, inclusive.
    pub within_ms: Millis,
    /// How much longer a record waits for a partner, milliseconds, >= 0.
    pub grace_ms: Millis,
}

/// When `risk_pattern` gives its alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternEmit {
    /// Once nothing can come between any more.
    Final,
    /// At once; withdrawn where something does come between.
    Eager,
}

/// Settings of `risk_pattern`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RiskPatternConfig {
    /// A first transaction is above this, minor units.
    pub limit: i64,
    /// A second one follows less than this later, milliseconds, > 0.
    pub within_ms: Millis,
    /// When alerts are given.
    pub emit: PatternEmit,
}

/// The settings of all dataflows; `alerts` and `event_counts` have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Of `tumbling_aggregates`.
    pub tumbling_aggregates: TumblingAggregatesConfig,
    /// Of `enriched_orders`.
    pub enriched_orders: EnrichedOrdersConfig,
    /// Of `risk_pattern`.
    pub risk_pattern: RiskPatternConfig,
}

/// The contract's defaults.
pub const DEFAULTS: Settings = Settings {
    tumbling_aggregates: TumblingAggregatesConfig {
        size_ms: 60_000,
        grace_ms: 10_000,
        emit: WindowEmit::Final,
    },
    enriched_orders: EnrichedOrdersConfig {
        within_ms: 30_000,
        grace_ms: 10_000,
    },
    risk_pattern: RiskPatternConfig {
        limit: 1_000_000,
        within_ms: 300_000,
        emit: PatternEmit::Final,
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn an_output_belongs_to_one_dataflow() {
        let mut owners = BTreeMap::new();
        for dataflow in Dataflow::ALL {
            for output in dataflow.outputs(true) {
                assert_ne!(
                    output.name,
                    DEAD_LETTERS.name,
                    "{} claims the job's own output",
                    dataflow.name()
                );
                assert_eq!(
                    owners.insert(output.name, dataflow),
                    None,
                    "two dataflows claim {}",
                    output.name
                );
            }
        }
    }

    #[test]
    fn an_input_is_the_same_wherever_it_is_named() {
        let mut specs = BTreeMap::new();
        for spec in Dataflow::ALL.iter().flat_map(|dataflow| dataflow.inputs()) {
            assert_eq!(*specs.entry(spec.name).or_insert(spec), spec);
        }
    }

    #[test]
    fn devices_bring_device_push() {
        let names = |has_devices| -> Vec<_> {
            Dataflow::Alerts
                .outputs(has_devices)
                .iter()
                .map(|output| output.name)
                .collect()
        };
        assert_eq!(names(true), ["email", "sms", "push", "device_push"]);
        assert_eq!(names(false), ["email", "sms", "push"]);
        assert_eq!(Dataflow::named("risk_pattern"), Some(Dataflow::RiskPattern));
        assert_eq!(Dataflow::named("risk_patterns"), None);
    }
}

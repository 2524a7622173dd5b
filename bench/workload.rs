//! The canonical workload: which inputs a part reads, how much of them, and how they lie in memory.
//!
//! The same epochs reach the engine on any number of workers and the hand-written loops, so outputs are
//! comparable to
//! the message. Everything lies in memory before the clock starts ([`crate::arrivals`] puts it there). It
//! counts as resident
//! memory; generating it does not count as time.

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tidegate::record::{Stamped, Write};
use tidegate::time::Millis;
use tidegate_dataflows::catalogue::Dataflow;
use tidegate_dataflows::generator::{Day, Input};
use tidegate_dataflows::records::{
    AccountAuthorizations, AccountEntry, CustomerAlertSettings, Event, Order, Payment, Transaction,
};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// `alerts`, without devices
    Alerts,
    /// `tumbling_aggregates`
    Windows,
    /// `enriched_orders`
    Joins,
    /// `risk_pattern`
    Patterns,
    /// `event_counts`
    Counts,
    /// All five as one job
    Together,
}

impl Part {
    /// All of them.
    pub const ALL: [Part; 6] = [
        Part::Alerts,
        Part::Windows,
        Part::Joins,
        Part::Patterns,
        Part::Counts,
        Part::Together,
    ];

    /// Its name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Part::Alerts => "alerts",
            Part::Windows => "windows",
            Part::Joins => "joins",
            Part::Patterns => "patterns",
            Part::Counts => "counts",
            Part::Together => "together",
        }
    }

    /// The dataflows of which it is made.
    pub fn dataflows(self) -> Vec<Dataflow> {
        match self {
            Part::Alerts => vec![Dataflow::Alerts],
            Part::Windows => vec![Dataflow::TumblingAggregates],
            Part::Joins => vec![Dataflow::EnrichedOrders],
            Part::Patterns => vec![Dataflow::RiskPattern],
            Part::Counts => vec![Dataflow::EventCounts],
            Part::Together => Dataflow::ALL.to_vec(),
        }
    }

    /// Whether it reads an input.
    pub fn reads(self, input: Input) -> bool {
        let names = |dataflow: &Dataflow| dataflow.inputs().iter().any(|spec| spec.name == input.name());
        input != Input::Devices && self.dataflows().iter().any(names)
    }
}

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Equal seeds give equal records.
    pub seed: u64,
    /// Accounts; as many customers, users and keys.
    pub accounts: u32,
    /// Records of every event input.
    pub records: u64,
    /// Messages in an epoch, over all inputs.
    pub step: usize,
}

impl Size {
    /// The generator's day of this size.
    pub fn day(self) -> Day {
        Day {
            entries: self.records,
            changes: self.records / 100,
            orders: self.records,
            transactions: self.records,
            events: self.records,
            ..Day::new(self.seed, self.accounts)
        }
    }
}

/// Messages of one input, epoch after epoch.
#[derive(Clone, Debug)]
pub struct Steps<D> {
    /// In the order of arrival.
    pub messages: Vec<D>,
    /// By epoch: how many messages it and all before it hold.
    pub cuts: Vec<usize>,
}

impl<D> Default for Steps<D> {
    fn default() -> Self {
        Steps {
            messages: Vec::new(),
            cuts: Vec::new(),
        }
    }
}

/// The global watermark of an input after each epoch in which it rose.
pub type Watermarks = Arc<[Option<Millis>]>;

/// An event input, as one worker reads it.
#[derive(Clone, Debug)]
pub struct Events<R> {
    /// Its records.
    pub steps: Steps<Stamped<R>>,
    /// The same for every worker.
    pub watermarks: Watermarks,
}

impl<R> Default for Events<R> {
    fn default() -> Self {
        Events {
            steps: Steps::default(),
            watermarks: [].into(),
        }
    }
}

/// One worker's inputs. Those that the part does not read are empty.
#[derive(Clone, Debug, Default)]
pub struct Share {
    /// Account entries.
    pub entries: Events<AccountEntry>,
    /// Who may see an account.
    pub authorizations: Steps<Write<AccountAuthorizations>>,
    /// What customers want to hear of.
    pub settings: Steps<Write<CustomerAlertSettings>>,
    /// Orders.
    pub orders: Events<Order>,
    /// Payments.
    pub payments: Events<Payment>,
    /// Card transactions.
    pub transactions: Events<Transaction>,
    /// Events.
    pub events: Events<Event>,
}

/// The JSON lines of one partition, epoch after epoch.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    /// All lines.
    pub bytes: Vec<u8>,
    /// By epoch: the position after its last line.
    pub cuts: Vec<usize>,
}

impl Lines {
    /// The lines of an epoch.
    pub fn of(&self, epoch: usize) -> std::ops::Range<usize> {
        let start = epoch.checked_sub(1).map_or(0, |before| self.cuts[before]);
        start..self.cuts[epoch]
    }
}

/// An input as JSON lines.
#[derive(Clone, Debug)]
pub struct LineInput {
    /// Which.
    pub input: Input,
    /// By partition.
    pub partitions: Vec<Lines>,
}

/// How many epochs there are, and what they hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epochs {
    /// Epochs that load the tables' snapshots; they are not measured.
    pub loading: usize,
    /// Messages, by epoch; the last epoch has none and ends all partitions.
    pub messages: Vec<usize>,
}

impl Epochs {
    /// Messages in the epochs that are measured.
    pub fn measured(&self) -> u64 {
        self.messages[self.loading..]
            .iter()
            .map(|count| *count as u64)
            .sum()
    }
}

/// The setting `max_out_of_orderness_ms` of an input.
pub fn bound(input: Input) -> Millis {
    let specs = Dataflow::ALL.into_iter().flat_map(|dataflow| dataflow.inputs());
    specs
        .filter(|spec| spec.name == input.name())
        .map(|spec| spec.max_out_of_orderness_ms)
        .max()
        .unwrap_or(0)
}

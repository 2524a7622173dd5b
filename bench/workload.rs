//! The canonical workload: a generated bank day in memory, cut into epochs, split among workers.
//!
//! ```text
//!  generator ─► arrivals per input ─► merged by as-of time, cut every `step` messages ─► epochs ─┐
//!                                     a table's snapshot first, in epochs of LOAD_STEP           │
//!                                                   Share per worker: decoded ◄──────────────────┤
//!                                                   LineInput: JSON lines ◄──────────────────────┘
//! ```
//!
//! The same epochs reach the engine on any number of workers and the hand-written loops, so outputs are
//! comparable to the message. Watermarks are those the engine's clock would give: per epoch, the least over
//! the partitions of the greatest event time minus the input's bound; the last epoch is empty and ends every
//! partition.
//!
//! Everything lies in memory before the clock starts. It counts as resident memory, generating it does not
//! count as time.

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tidegate::record::{Origin, Record, Stamped, Write, key_hash};
use tidegate::time::{AFTER_ALL, BEFORE_ALL, Millis};
use tidegate_dataflows::catalogue::Dataflow;
use tidegate_dataflows::generator::{self, Day, Input, Message};
use tidegate_dataflows::records::{
    AccountAuthorizations, AccountEntry, CustomerAlertSettings, Event, Order, Payment, Transaction,
};

/// Messages in an epoch while the tables' snapshots are loaded.
pub const LOAD_STEP: usize = 100_000;

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
    fn day(self) -> Day {
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

/// The messages of one input in the order of arrival, as the generator gave them.
struct Arrivals<R> {
    input: Input,
    messages: Vec<Message<R>>,
    /// The greatest time up to and including each message.
    as_of: Vec<Millis>,
}

impl<R: Record> Arrivals<R> {
    fn new(part: Part, input: Input, messages: impl Iterator<Item = Message<R>>) -> Self {
        let messages: Vec<_> = if part.reads(input) {
            messages.collect()
        } else {
            Vec::new()
        };
        let mut greatest = BEFORE_ALL;
        let as_of = messages.iter().map(|message| {
            let time = message
                .timestamp
                .or_else(|| message.value.as_ref().and_then(R::event_time));
            greatest = greatest.max(time.unwrap_or(BEFORE_ALL));
            greatest
        });
        let as_of = as_of.collect();
        Arrivals {
            input,
            messages,
            as_of,
        }
    }
}

/// Cuts inputs into epochs. `as_of`: by input, tables first, the as-of times of its messages, ascending.
/// Gives, by input, its cuts.
fn cut(as_of: &[&[Millis]], day: Day, step: usize) -> (Epochs, Vec<Vec<usize>>) {
    let mut taken = vec![0; as_of.len()];
    let mut cuts = vec![Vec::new(); as_of.len()];
    let mut epochs = Epochs {
        loading: 0,
        messages: Vec::new(),
    };
    let mut count = 0;
    let mut close = |taken: &[usize], count: &mut usize| {
        cuts.iter_mut()
            .zip(taken)
            .for_each(|(cuts, taken)| cuts.push(*taken));
        epochs.messages.push(std::mem::take(count));
        epochs.messages.len()
    };
    let (mut loading, mut loaded) = (0, false);
    loop {
        // The first of those with the least time: tables stand before events.
        let nexts = as_of
            .iter()
            .zip(&taken)
            .map(|(times, taken)| times.get(*taken).copied());
        let Some((next, time)) = nexts
            .enumerate()
            .filter_map(|(at, time)| Some((at, time?)))
            .min_by_key(|next| next.1)
        else {
            break;
        };
        if !loaded && time >= day.start {
            loaded = true;
            loading = if count > 0 {
                close(&taken, &mut count)
            } else {
                loading
            };
        }
        taken[next] += 1;
        count += 1;
        if count == if loaded { step } else { LOAD_STEP } {
            let closed = close(&taken, &mut count);
            loading = if loaded { loading } else { closed };
        }
    }
    if count > 0 {
        close(&taken, &mut count);
    }
    close(&taken, &mut count);
    epochs.loading = loading;
    (epochs, cuts)
}

/// Splits a table's messages among workers.
fn table<R: Record>(
    arrivals: Arrivals<R>,
    cuts: &[usize],
    shares: &mut [Share],
    of: fn(&mut Share) -> &mut Steps<Write<R>>,
) {
    let mut offset = 0;
    let mut messages = arrivals.messages.into_iter();
    for length in lengths(cuts) {
        for Message {
            partition,
            key,
            value,
            ..
        } in messages.by_ref().take(length)
        {
            let worker = partition as usize % shares.len();
            let (hash, origin) = (key_hash(key.as_bytes()), Origin { partition, offset });
            of(&mut shares[worker]).messages.push(Write {
                key,
                hash,
                origin,
                value,
            });
            offset += 1;
        }
        for share in &mut *shares {
            let steps = of(share);
            steps.cuts.push(steps.messages.len());
        }
    }
}

/// Stamps the records of an event input, splits them among workers, and says how its global watermark rises.
fn events<R: Record>(
    arrivals: Arrivals<R>,
    cuts: &[usize],
    partitions: u32,
    shares: &mut [Share],
    of: fn(&mut Share) -> &mut Events<R>,
) {
    let bound = bound(arrivals.input);
    let mut greatest = vec![None::<Millis>; partitions as usize];
    let own =
        |greatest: Option<Millis>| greatest.map_or(BEFORE_ALL, |greatest| greatest.saturating_sub(bound));
    let (mut offset, mut global) = (0, BEFORE_ALL);
    let mut watermarks = Vec::new();
    let mut messages = arrivals.messages.into_iter();
    for length in lengths(cuts) {
        for Message {
            partition,
            key,
            value,
            ..
        } in messages.by_ref().take(length)
        {
            let Some(value) = value else { continue };
            let so_far = &mut greatest[partition as usize];
            let (time, watermark) = (value.event_time(), own(*so_far));
            let raw = time
                .filter(|time| *time < watermark)
                .and_then(|_| serde_json::to_vec(&value).ok());
            *so_far = (*so_far).max(time);
            let (hash, origin) = (key_hash(key.as_bytes()), Origin { partition, offset });
            let worker = partition as usize % shares.len();
            let raw = raw.map(Vec::into_boxed_slice);
            of(&mut shares[worker]).steps.messages.push(Stamped {
                key,
                hash,
                origin,
                watermark,
                raw,
                value,
            });
            offset += 1;
        }
        for share in &mut *shares {
            let steps = &mut of(share).steps;
            steps.cuts.push(steps.messages.len());
        }
        let least = greatest
            .iter()
            .map(|greatest| own(*greatest))
            .min()
            .unwrap_or(BEFORE_ALL);
        watermarks.push((least > global).then_some(least));
        global = global.max(least);
    }
    if let Some(last) = watermarks.last_mut() {
        *last = Some(AFTER_ALL);
    }
    let watermarks: Watermarks = watermarks.into();
    shares
        .iter_mut()
        .for_each(|share| of(share).watermarks = Arc::clone(&watermarks));
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

/// Cuts as lengths.
fn lengths(cuts: &[usize]) -> impl Iterator<Item = usize> {
    let befores = [0].into_iter().chain(cuts.iter().copied());
    cuts.iter().zip(befores).map(|(cut, before)| cut - before)
}

/// All inputs of a part as they arrive.
struct Arrived {
    authorizations: Arrivals<AccountAuthorizations>,
    settings: Arrivals<CustomerAlertSettings>,
    entries: Arrivals<AccountEntry>,
    orders: Arrivals<Order>,
    payments: Arrivals<Payment>,
    transactions: Arrivals<Transaction>,
    events: Arrivals<Event>,
}

impl Arrived {
    fn new(part: Part, day: Day) -> Self {
        Arrived {
            authorizations: Arrivals::new(part, Input::Authorizations, generator::authorizations(day)),
            settings: Arrivals::new(part, Input::Settings, generator::settings(day)),
            entries: Arrivals::new(part, Input::Entries, generator::entries(day)),
            orders: Arrivals::new(part, Input::Orders, generator::orders(day)),
            payments: Arrivals::new(part, Input::Payments, generator::payments(day)),
            transactions: Arrivals::new(part, Input::Transactions, generator::transactions(day)),
            events: Arrivals::new(part, Input::Events, generator::events(day)),
        }
    }

    /// By input, tables first.
    fn as_of(&self) -> [&[Millis]; 7] {
        [
            &self.authorizations.as_of,
            &self.settings.as_of,
            &self.entries.as_of,
            &self.orders.as_of,
            &self.payments.as_of,
            &self.transactions.as_of,
            &self.events.as_of,
        ]
    }
}

/// The decoded inputs of a part, one share per worker.
pub fn decoded(part: Part, size: Size, workers: usize) -> (Epochs, Vec<Share>) {
    let day = size.day();
    let arrived = Arrived::new(part, day);
    let (epochs, cuts) = cut(&arrived.as_of(), day, size.step);
    let mut shares = vec![Share::default(); workers];
    table(arrived.authorizations, &cuts[0], &mut shares, |share| {
        &mut share.authorizations
    });
    table(arrived.settings, &cuts[1], &mut shares, |share| {
        &mut share.settings
    });
    events(arrived.entries, &cuts[2], day.partitions, &mut shares, |share| {
        &mut share.entries
    });
    events(arrived.orders, &cuts[3], day.partitions, &mut shares, |share| {
        &mut share.orders
    });
    events(arrived.payments, &cuts[4], day.partitions, &mut shares, |share| {
        &mut share.payments
    });
    events(
        arrived.transactions,
        &cuts[5],
        day.partitions,
        &mut shares,
        |share| &mut share.transactions,
    );
    events(arrived.events, &cuts[6], day.partitions, &mut shares, |share| {
        &mut share.events
    });
    (epochs, shares)
}

/// The inputs of a part as JSON lines, in the order of a plan: events may come before tables.
pub fn lines(part: Part, size: Size) -> (Epochs, Vec<LineInput>) {
    let day = size.day();
    let arrived = Arrived::new(part, day);
    let (epochs, cuts) = cut(&arrived.as_of(), day, size.step);
    let inputs = vec![
        written(arrived.authorizations, &cuts[0], day),
        written(arrived.settings, &cuts[1], day),
        written(arrived.entries, &cuts[2], day),
        written(arrived.orders, &cuts[3], day),
        written(arrived.payments, &cuts[4], day),
        written(arrived.transactions, &cuts[5], day),
        written(arrived.events, &cuts[6], day),
    ];
    (
        epochs,
        inputs
            .into_iter()
            .filter(|input| part.reads(input.input))
            .collect(),
    )
}

/// A message as a line of an input.
#[derive(Serialize)]
struct Line<'a, R> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<Millis>,
    value: Option<&'a R>,
}

fn written<R: Record>(arrivals: Arrivals<R>, cuts: &[usize], day: Day) -> LineInput {
    let mut partitions = vec![Lines::default(); arrivals.input.partitions(day) as usize];
    let mut messages = arrivals.messages.into_iter();
    for length in lengths(cuts) {
        for message in messages.by_ref().take(length) {
            let bytes = &mut partitions[message.partition as usize].bytes;
            let line = Line {
                key: &message.key,
                timestamp: message.timestamp,
                value: message.value.as_ref(),
            };
            serde_json::to_writer(&mut *bytes, &line).expect("records of the contract are JSON");
            bytes.push(b'\n');
        }
        partitions
            .iter_mut()
            .for_each(|lines| lines.cuts.push(lines.bytes.len()));
    }
    LineInput {
        input: arrivals.input,
        partitions,
    }
}

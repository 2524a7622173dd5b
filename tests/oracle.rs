//! The oracle: what a finite run of a job must give, computed slowly from the contract (`semantics.md`) alone.
//!
//! ```text
//!  Job: inputs as bytes ──> log (records, dead letters) ──> one function per dataflow ──> Expected: rows per output
//!                                                                                              │
//!  output file of a run ───────────────> compare: the same multiset? ·  check_order: the order per key? ◄──┘
//! ```
//!
//! It shares nothing with the engine: own JSON, own decoding, sorted lists and `BTreeMap`s over the whole input. It
//! assumes that every partition is active and ends, so every window closes and every pattern and timeout is
//! certain in the end. It says nothing of what depends on where epochs were cut: of `event_counts` and emit =
//! "changes" it knows the last row of each key, of emit = "eager" the net; [`compare::settle`] brings an actual
//! file to that form. Where the contract leaves room, the module that decides says which reading it chose.

mod alerts;
#[cfg(test)]
mod cases;
pub mod compare;
mod enriched_orders;
mod event_counts;
mod json;
mod log;
mod records;
mod risk_pattern;
mod tumbling_aggregates;

use log::Log;
use serde_json::Value;
use std::collections::BTreeMap;

/// A job's inputs, settings and dataflows, and what earlier finite runs of it consumed.
#[derive(Clone)]
pub struct Job {
    /// Names of section 3.
    pub dataflows: Vec<String>,
    pub inputs: BTreeMap<String, Input>,
    /// By dataflow; one without settings has the defaults.
    pub settings: BTreeMap<String, Settings>,
    /// `epoch.replay_tick_ms`.
    pub replay_tick_ms: i64,
    /// Bytes of each (input, partition) that earlier finite runs consumed; empty when this is the first run.
    /// Then [`expected`] is what this run adds.
    pub from: BTreeMap<(String, usize), usize>,
}

/// One input: the whole of its partitions, what earlier runs consumed included.
#[derive(Clone)]
pub struct Input {
    /// The bytes of each partition's file, by partition number.
    pub partitions: Vec<Vec<u8>>,
    pub max_out_of_orderness_ms: i64,
    pub max_jump_ms: Option<i64>,
    pub max_record_bytes: usize,
}

/// Settings of a dataflow; what is absent has the default of section 3.
#[derive(Clone, Copy, Default)]
pub struct Settings {
    pub size_ms: Option<i64>,
    pub grace_ms: Option<i64>,
    pub within_ms: Option<i64>,
    pub limit: Option<i64>,
    pub emit: Emit,
}

/// When results are emitted.
#[derive(Clone, Copy, Default, PartialEq)]
pub enum Emit {
    #[default]
    Final,
    /// tumbling_aggregates only.
    Changes,
    /// risk_pattern only.
    Eager,
}

/// The rows of every output: message lines `{"key", "value"}` as values.
///
/// Rows of one key stand in the order the contract states, where it states one for the final modes. Of
/// `event_counts` and emit = "changes" the last row of each key is here, of emit = "eager" the FINAL rows.
pub struct Expected {
    pub outputs: BTreeMap<String, Vec<Value>>,
}

impl Job {
    /// A first run of these dataflows with the default settings, over these inputs.
    pub fn new(dataflows: &[&str], inputs: Vec<(&str, Input)>) -> Job {
        Job {
            dataflows: dataflows.iter().map(ToString::to_string).collect(),
            inputs: inputs
                .into_iter()
                .map(|(name, input)| (name.to_string(), input))
                .collect(),
            settings: BTreeMap::new(),
            replay_tick_ms: 1_000,
            from: BTreeMap::new(),
        }
    }

    fn settings(&self, dataflow: &str) -> Settings {
        self.settings.get(dataflow).copied().unwrap_or_default()
    }

    fn log(&self, input: &str) -> Option<Log> {
        let consumed = |partition: usize| {
            self.from
                .get(&(input.to_string(), partition))
                .copied()
                .unwrap_or_default()
        };
        let is_first = self.from.is_empty();
        self.inputs
            .get(input)
            .map(|found| log::read(input, found, self.replay_tick_ms, is_first, consumed))
    }

    fn required_log(&self, input: &str) -> Log {
        self.log(input)
            .unwrap_or_else(|| panic!("the job lacks the input `{input}`"))
    }
}

impl Input {
    /// An input with the defaults that section 3 gives the input of this name.
    pub fn new(name: &str, partitions: Vec<Vec<u8>>) -> Input {
        Input {
            partitions,
            max_out_of_orderness_ms: if name == "transactions" { 5_000 } else { 0 },
            max_jump_ms: None,
            max_record_bytes: 8 << 20,
        }
    }
}

/// What a finite run of the job must write, computed from its whole inputs.
pub fn expected(job: &Job) -> Expected {
    let mut outputs: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let mut dead_letters = Vec::new();
    for input in job
        .dataflows
        .iter()
        .flat_map(|dataflow| inputs_of(dataflow))
        .collect::<std::collections::BTreeSet<_>>()
    {
        dead_letters.extend(job.log(input).into_iter().flat_map(|log| log.dead_letters));
    }
    for dataflow in &job.dataflows {
        let settings = job.settings(dataflow);
        let (results, late) = match dataflow.as_str() {
            "alerts" => (alerts::results(job), Vec::new()),
            "tumbling_aggregates" => tumbling_aggregates::results(&job.required_log("orders"), &settings),
            "enriched_orders" => enriched_orders::results(
                &job.required_log("orders"),
                &job.required_log("payments"),
                &settings,
            ),
            "risk_pattern" => risk_pattern::results(&job.required_log("transactions"), &settings),
            "event_counts" => (event_counts::results(&job.required_log("events")), Vec::new()),
            other => panic!("no dataflow `{other}`"),
        };
        outputs.extend(
            results
                .into_iter()
                .map(|(output, rows)| (output.to_string(), rows)),
        );
        dead_letters.extend(late);
    }
    dead_letters.sort_by_key(compare::dead_letter_order);
    outputs.insert("dead_letters".into(), dead_letters);
    Expected { outputs }
}

/// Rows by output, as a dataflow returns them.
type Results = Vec<(&'static str, Vec<Value>)>;

/// The inputs a dataflow reads.
fn inputs_of(dataflow: &str) -> &'static [&'static str] {
    match dataflow {
        "alerts" => &["entries", "authorizations", "settings", "devices"],
        "tumbling_aggregates" => &["orders"],
        "enriched_orders" => &["orders", "payments"],
        "risk_pattern" => &["transactions"],
        "event_counts" => &["events"],
        other => panic!("no dataflow `{other}`"),
    }
}

//! The oracle: what a finite run of a job must give, computed slowly, from the contract (`semantics.md`).
//!
//! ```text
//!  Job: inputs as bytes ──> log: records, dead letters ──> a function per dataflow ──> Expected: rows
//!                                                                                            │
//!  output file of a run ──> rows ──> compare: the same multiset? order: as promised per key? ◄┘
//! ```
//!
//! It shares nothing with the engine: own JSON, own decoding, sorted lists and `BTreeMap`s over the whole
//! input. It assumes that every partition is active and ends, so every window closes and every pattern and
//! timeout is certain in the end. It says nothing of what depends on where epochs were cut: of `event_counts`
//! and emit = "changes" it knows the last row of each key, of emit = "eager" the net; [`compare::check`]
//! brings an actual file to that form. Where the contract leaves room, the module that decides says which
//! reading it chose.

mod alerts;
#[cfg(test)]
mod cases;
pub mod compare;
mod enriched_orders;
mod event_counts;
pub mod json;
mod log;
pub mod message;
pub mod order;
mod records;
mod risk_pattern;
mod rows;
pub mod span;
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
#[derive(Default)]
pub struct Expected {
    pub outputs: BTreeMap<String, Vec<Value>>,
    /// The (partition, offset) of the entry behind each row of the alert outputs.
    pub entries: BTreeMap<String, Vec<(usize, usize)>>,
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
    let logs = read_logs(job);
    let mut expected = Expected::default();
    let mut dead_letters: Vec<Value> = logs.values().flat_map(|log| log.dead_letters.clone()).collect();
    for dataflow in &job.dataflows {
        let settings = job.settings(dataflow);
        let (results, late) = match dataflow.as_str() {
            "alerts" => {
                add_alerts(&mut expected, &logs);
                continue;
            }
            "tumbling_aggregates" => tumbling_aggregates::results(&logs["orders"], &settings),
            "enriched_orders" => enriched_orders::results(&logs["orders"], &logs["payments"], &settings),
            "risk_pattern" => risk_pattern::results(&logs["transactions"], &settings),
            "event_counts" => (event_counts::results(&logs["events"]), Vec::new()),
            other => panic!("no dataflow `{other}`"),
        };
        expected
            .outputs
            .extend(results.into_iter().map(|(output, rows)| (output.into(), rows)));
        dead_letters.extend(late);
    }
    dead_letters.sort_by_key(place_of_dead_letter);
    expected.outputs.insert("dead_letters".into(), dead_letters);
    expected
}

/// Rows by output, as a dataflow returns them.
type Results = Vec<(&'static str, Vec<Value>)>;

/// Logs by input.
type Logs = BTreeMap<&'static str, Log>;

/// Every input the job's dataflows read, each once. Only `devices` may be missing.
fn read_logs(job: &Job) -> Logs {
    let mut logs = Logs::new();
    for name in job.dataflows.iter().flat_map(|dataflow| inputs_of(dataflow)) {
        let Some(input) = job.inputs.get(*name) else {
            assert_eq!(*name, "devices", "the job lacks an input");
            continue;
        };
        let consumed = |partition: usize| {
            job.from
                .get(&(name.to_string(), partition))
                .copied()
                .unwrap_or_default()
        };
        logs.insert(
            name,
            log::read(name, input, job.replay_tick_ms, job.from.is_empty(), consumed),
        );
    }
    logs
}

fn add_alerts(expected: &mut Expected, logs: &Logs) {
    for output in ["email", "sms", "push", "device_push"] {
        if output != "device_push" || logs.contains_key("devices") {
            expected.outputs.insert(output.into(), Vec::new());
        }
    }
    for alert in alerts::alerts(logs) {
        expected
            .outputs
            .entry(alert.output.into())
            .or_default()
            .push(alert.row);
        expected
            .entries
            .entry(alert.output.into())
            .or_default()
            .push(alert.origin);
    }
}

/// Where a dead letter stands among those of its job: by input, partition, offset, dataflow.
fn place_of_dead_letter(row: &Value) -> (String, Option<u64>, Option<u64>, String) {
    let value = &row["value"];
    let text = |field: &str| value[field].as_str().unwrap_or_default().to_string();
    (
        text("input"),
        value["partition"].as_u64(),
        value["offset"].as_u64(),
        text("dataflow"),
    )
}

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

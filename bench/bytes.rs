//! The engine from JSON lines to JSON lines: what runs in production between the reader thread and the
//! committer thread.
//!
//! ```text
//!  LineInput ─► Feed: split, decode, stamp ─► catalogue::build ─► encode ─► seal ─► gate: rows counted
//!               └► share of the binding ─► clock ─► watermarks     ▲
//!                                      └──────────────────────────►┘ every worker's share seals
//! ```
//!
//! Feeds, clock, bindings, encoder and sealing are the engine's own, wired by the engine. Only files,
//! threads and the
//! commit are missing: a partition's bytes are handed over as a reader would, and a sealed epoch is counted.

use crate::digest::Tally;
use crate::engine::{Run, give_way};
use crate::process::{cpu_seconds, now};
use crate::workload::{Epochs, LineInput, Lines, Part, bound};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate::checkpoint::binding::{PartitionBinding, Positions, Share};
use tidegate::limits::MAX_RECORD_BYTES;
use tidegate::metrics::Metrics;
use tidegate::pace::{Cutting, Pace};
use tidegate::run::wiring::{Entrances, wire};
use tidegate::run::{Aim, InputPlace, InputPlan, Matching, OutputPlace, OutputPlan, Plan, Shared};
use tidegate::sink::SealedEpoch;
use tidegate::sink::seal::ShardGate;
use tidegate::source::partition::Start;
use tidegate::source::{Arrival, Bytes, Filling, InputSettings, Medium, Place, Take, owner};
use tidegate::time::Epoch;
use tidegate_dataflows::catalogue::{DEAD_LETTERS, DEFAULTS, build};
use timely::worker::Worker;

/// The epoch that declares all partitions; the workload's epochs follow it.
const DECLARING: Epoch = 1;

/// One worker's way into the engine.
pub struct Pump {
    entrances: Entrances,
    worker: u32,
    /// By input of the plan: this worker's partitions.
    partitions: Vec<Partitions>,
}

/// Numbers and lines of partitions of one input.
type Partitions = Vec<(u32, Lines)>;

/// The inputs, and by worker and input the partitions it reads.
pub struct Split {
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    part: Part,
    partitions: Mutex<Vec<Vec<Partitions>>>,
}

impl Split {
    /// Splits the partitions of a part's inputs among workers.
    pub fn new(part: Part, inputs: Vec<LineInput>, workers: usize) -> Self {
        let plan = Arc::new(plan(part, &inputs, workers));
        let mut partitions = vec![vec![Vec::new(); inputs.len()]; workers];
        for (index, input) in inputs.into_iter().enumerate() {
            for (number, lines) in (0..).zip(input.partitions) {
                let index_in_plan = plan.inputs[index].settings.index;
                partitions[owner(index_in_plan, number, workers)][index].push((number, lines));
            }
        }
        let pace = Pace::new(Cutting::Finite, workers, DECLARING, Duration::MAX, now());
        let shared = Arc::new(Shared::new(pace, Metrics::new(plan.outputs.len())));
        Split {
            plan,
            shared,
            part,
            partitions: Mutex::new(partitions),
        }
    }
}

fn plan(part: Part, inputs: &[LineInput], workers: usize) -> Plan {
    let input = |(index, input): (u16, &LineInput)| InputPlan {
        settings: InputSettings {
            name: input.input.name().to_owned(),
            index,
            medium: Medium::Lines,
            is_table: input.input.is_table(),
            max_out_of_orderness_ms: bound(input.input),
            idle_timeout: None,
            max_jump_ms: None,
            max_record_bytes: MAX_RECORD_BYTES,
            replay_tick_ms: 1_000,
            span: None,
            log: None,
        },
        place: InputPlace::Files {
            root: ".".into(),
            files: vec![String::new(); input.partitions.len()],
            matching: Matching(Arc::new(|| Ok(Vec::new()))),
        },
    };
    let outputs = part
        .dataflows()
        .into_iter()
        .flat_map(|dataflow| dataflow.outputs(false))
        .chain([&DEAD_LETTERS]);
    Plan {
        root: std::path::PathBuf::new(),
        name: "bench".to_owned(),
        plan_hash: 0,
        state: String::new(),
        append: false,
        inputs: (0..).zip(inputs).map(input).collect(),
        outputs: outputs
            .map(|output| OutputPlan {
                name: output.name.to_owned(),
                schema: output.schema,
                place: OutputPlace::Files(Vec::new()),
            })
            .collect(),
        shards: 1,
        kafka: None,
        take_over: false,
        accept_gap: false,
        workers,
        processes: 1,
        process: 0,
        replay: None,
        cutting: Cutting::Finite,
        checkpoint_interval: Duration::MAX,
        history: None,
        aim: Aim::Outputs,
    }
}

impl Pump {
    /// Builds the part on this worker. `sealed` is called on the first worker with the index of every
    /// complete epoch of
    /// the workload and its rows.
    pub fn new(
        worker: &mut Worker,
        split: &Split,
        mut sealed: impl FnMut(usize, SealedEpoch) + 'static,
    ) -> Self {
        let index = worker.index();
        let gate = ShardGate {
            shard: 0,
            committed: 0,
            sealed: Box::new(move |epoch| {
                if let Some(of_workload) = epoch.epoch.checked_sub(DECLARING + 1) {
                    sealed(of_workload as usize, epoch);
                }
            }),
        };
        let gates = if index == 0 { vec![gate] } else { Vec::new() };
        let bounds = split
            .plan
            .inputs
            .iter()
            .map(|input| input.settings.max_out_of_orderness_ms);
        let positions = Positions::new(bounds);
        let dataflows = split.part.dataflows();
        let entrances = worker.dataflow(|scope| {
            let build = |wiring: &mut _| build(wiring, &dataflows, &DEFAULTS);
            wire(
                scope,
                &split.plan,
                &split.shared,
                (positions, 0),
                &build,
                gates,
                Box::new(|_, _| {}),
            )
        });
        let partitions = {
            let mut partitions = split.partitions.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut partitions[index])
        };
        let mut pump = Pump {
            entrances,
            worker: index as u32,
            partitions,
        };
        pump.entrances.restored = None;
        pump.declare();
        pump
    }

    /// Names this worker's partitions, so that the clock waits for each of them.
    fn declare(&mut self) {
        let mut share = Vec::new();
        for feed in &mut self.entrances.feeds {
            let input = feed.settings().index;
            for (partition, _) in &self.partitions[usize::from(input)] {
                feed.add_partition(*partition, Start::default(), Vec::new());
                share.push(PartitionBinding {
                    input,
                    partition: *partition,
                    ..PartitionBinding::default()
                });
            }
            feed.begin(&[]);
        }
        self.close(DECLARING, share);
    }

    /// Reads this worker's lines of an epoch of the workload into the engine, and closes the epoch.
    pub fn fill(&mut self, of_workload: usize) {
        let epoch = DECLARING + 1 + of_workload as Epoch;
        let mut share = Vec::new();
        let Entrances {
            feeds, dead_letters, ..
        } = &mut self.entrances;
        for feed in feeds {
            let input = feed.settings().index;
            for (partition, lines) in &self.partitions[usize::from(input)] {
                let range = lines.of(of_workload);
                let arrival = Arrival {
                    input,
                    partition: *partition,
                    offset: range.start as u64,
                    bytes: Bytes::Lines(lines.bytes[range].to_vec()),
                    at_end: of_workload + 1 == lines.cuts.len(),
                };
                feed.arrived(arrival, now());
            }
            let take = Take::Upto {
                place: Place::END,
                cap: usize::MAX,
            };
            feed.fill(
                take,
                &mut Filling {
                    epoch,
                    watermark_before: None,
                    dead_letters,
                    share: &mut share,
                },
            );
        }
        self.close(epoch, share);
    }

    fn close(&mut self, epoch: Epoch, partitions: Vec<PartitionBinding>) {
        let Entrances {
            feeds,
            dead_letters,
            shares,
            ..
        } = &mut self.entrances;
        shares.send(Share {
            epoch,
            worker: self.worker,
            partitions,
            cut: false,
        });
        feeds.iter_mut().for_each(|feed| feed.advance_to(epoch + 1));
        dead_letters.advance_to(epoch + 1);
        shares.advance_to(epoch + 1);
    }
}

/// Counts the rows of a sealed epoch.
pub fn count_rows(tally: &mut Tally, sealed: &SealedEpoch) {
    sealed
        .rows
        .iter()
        .flat_map(|rows| rows.messages())
        .for_each(|(_, line)| tally.add_line(line));
}

/// Runs a part from lines to lines; the next epoch is read when the one before is sealed.
pub fn run(part: Part, epochs: &Epochs, inputs: Vec<LineInput>, workers: usize) -> Run {
    let split = Arc::new(Split::new(part, inputs, workers));
    let (epochs, loading) = (epochs.messages.len(), epochs.loading);
    let (tally, sealed) = (
        Arc::new(Mutex::new(Tally::default())),
        Arc::new(AtomicU64::new(0)),
    );
    let total = Arc::clone(&tally);
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let (tally, complete) = (Arc::clone(&tally), Arc::clone(&sealed));
        let mut pump = Pump::new(worker, &split, move |of_workload, epoch| {
            count_rows(&mut tally.lock().unwrap_or_else(PoisonError::into_inner), &epoch);
            complete.store(of_workload as u64 + 1, Ordering::Release);
        });
        let mut epoch_nanos = Vec::with_capacity(epochs - loading);
        let (mut started, mut cpu) = (now(), cpu_seconds());
        for epoch in 0..epochs {
            if epoch == loading {
                (started, cpu) = (now(), cpu_seconds());
            }
            let begun = now();
            pump.fill(epoch);
            while sealed.load(Ordering::Acquire) <= epoch as u64 {
                worker.step();
                give_way(workers);
            }
            if epoch >= loading {
                epoch_nanos.push(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
            }
        }
        (epoch_nanos, started.elapsed().as_secs_f64(), cpu_seconds() - cpu)
    });
    let results = guards.expect("timely starts its threads").join();
    let mut results = results
        .into_iter()
        .map(|result| result.expect("a worker that panics ends the process"));
    let (epoch_nanos, seconds, cpu_seconds) = results.next().expect("there is a first worker");
    results.for_each(drop);
    let tally = *total.lock().unwrap_or_else(PoisonError::into_inner);
    Run {
        tally,
        epoch_nanos,
        seconds,
        cpu_seconds,
    }
}

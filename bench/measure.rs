//! One measurement: what is run, and what it gave. Each is made in a process of its own.
//!
//! ```text
//!  parent ── Case as JSON ──► child: generate, run, count ── Outcome as JSON ──► parent
//! ```
//!
//! A fresh process has a fresh allocator and its own peak of resident memory, so measurements do not lean
//! on each other.

use crate::arrivals::{decoded, lines};
use crate::digest::Tally;
use crate::latency::{Latencies, Percentiles};
use crate::memory::{self, Growth};
use crate::open_loop::{self, Schedule};
use crate::process::{Resident, reset_peak, resident};
use crate::replay::{self, Source};
use crate::rows::{self, Form};
use crate::workload::{Part, Size};
use crate::{baseline, bytes, engine, flat};
use serde::{Deserialize, Serialize};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Case {
    /// The engine on decoded records.
    Decoded { part: Part, size: Size, workers: usize },
    /// The hand-written loop on decoded records.
    Loop { part: Part, size: Size },
    /// The engine from JSON lines to JSON lines.
    Bytes { part: Part, size: Size, workers: usize },
    /// The hand-written loop from JSON lines to JSON lines.
    LoopBytes { part: Part, size: Size },
    /// The engine on a schedule fixed beforehand.
    OpenLoop {
        part: Part,
        size: Size,
        workers: usize,
        schedule: Schedule,
    },
    /// Time of an epoch after more and more of them.
    Past { part: Part, seed: u64, epochs: u64 },
    /// Time of an epoch with so much pending.
    Pending { part: Part, pending: u64 },
    /// Rows rewritten again and again.
    Memory { seed: u64, rows: u32, rewrites: u64 },
    /// Replays by the program, on 1 worker up to so many.
    Replay {
        source: Source,
        seed: u64,
        accounts: u32,
        entries: u64,
        workers: usize,
    },
    /// Decoded rows in one form.
    Rows {
        form: Form,
        seed: u64,
        accounts: u32,
        rows: u64,
    },
}

/// What a run over a workload gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Messages read.
    pub records: u64,
    /// How long that took, seconds.
    pub seconds: f64,
    /// CPU seconds of the whole process in that time.
    pub cpu_seconds: f64,
    /// What came out, the loading of tables included.
    pub tally: Tally,
    /// Open loop: of records, from their intended arrival. Else of epochs, from the first record fed.
    pub latency_us: Percentiles,
    /// Resident memory with the inputs ready, before the run; and the peak during the run, inputs included.
    pub resident: Resident,
    /// The latencies as HdrHistogram's text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hgrm: Option<String>,
}

impl Figures {
    /// Messages a second.
    pub fn rate(&self) -> f64 {
        self.records as f64 / self.seconds.max(1e-9)
    }

    /// CPU seconds for a million messages.
    pub fn cpu_per_million(&self) -> f64 {
        1e6 * self.cpu_seconds / self.records.max(1) as f64
    }
}

/// What a measurement gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// A run over a workload.
    Figures(Figures),
    /// A curve.
    Curve(Vec<flat::Point>),
    /// Memory over rewrites.
    Growth(Growth),
    /// Rows in one form.
    Rows(rows::Figures),
    /// Replays, or why there are none.
    Replays(Result<Vec<replay::Run>, String>),
}

/// Measures in this process.
pub fn measure(case: Case) -> Outcome {
    match case {
        Case::Decoded { part, size, workers } => {
            let (epochs, shares) = decoded(part, size, workers);
            figures(epochs.measured(), || engine::run(part, &epochs, shares))
        }
        Case::Loop { part, size } => {
            let (epochs, shares) = decoded(part, size, 1);
            let share = shares.into_iter().next().unwrap_or_default();
            figures(epochs.measured(), || baseline::run_decoded(part, &epochs, share))
        }
        Case::Bytes { part, size, workers } => {
            let (epochs, inputs) = lines(part, size);
            figures(epochs.measured(), || bytes::run(part, &epochs, inputs, workers))
        }
        Case::LoopBytes { part, size } => {
            let (epochs, inputs) = lines(part, size);
            figures(epochs.measured(), || baseline::run_bytes(part, &epochs, inputs))
        }
        Case::OpenLoop {
            part,
            size,
            workers,
            schedule,
        } => {
            let (epochs, inputs) = lines(part, size);
            let before = ready();
            let answer = open_loop::run(part, &epochs, inputs, workers, schedule);
            Outcome::Figures(Figures {
                records: epochs.measured(),
                seconds: answer.seconds,
                cpu_seconds: answer.cpu_seconds,
                tally: answer.tally,
                latency_us: answer.latencies.percentiles(),
                resident: Resident {
                    now: before,
                    peak: resident().peak,
                },
                hgrm: Some(answer.latencies.hgrm()),
            })
        }
        Case::Past { part, seed, epochs } => Outcome::Curve(flat::past(part, seed, epochs)),
        Case::Pending { part, pending } => Outcome::Curve(vec![flat::pending(part, pending)]),
        Case::Memory { seed, rows, rewrites } => Outcome::Growth(memory::rewrite(seed, rows, rewrites)),
        Case::Replay {
            source,
            seed,
            accounts,
            entries,
            workers,
        } => Outcome::Replays(replay::measure(source, seed, accounts, entries, workers)),
        Case::Rows {
            form,
            seed,
            accounts,
            rows,
        } => Outcome::Rows(rows::measure(form, seed, accounts, rows)),
    }
}

/// Forgets the peak of the generator; gives what the inputs hold.
fn ready() -> u64 {
    reset_peak();
    resident().now
}

fn figures(records: u64, run: impl FnOnce() -> engine::Run) -> Outcome {
    let before = ready();
    let run = run();
    let mut latencies = Latencies::new();
    run.epoch_nanos
        .iter()
        .for_each(|nanos| latencies.record(Duration::from_nanos(*nanos)));
    Outcome::Figures(Figures {
        records,
        seconds: run.seconds,
        cpu_seconds: run.cpu_seconds,
        tally: run.tally,
        latency_us: latencies.percentiles(),
        resident: Resident {
            now: before,
            peak: resident().peak,
        },
        hgrm: None,
    })
}

/// Measures in a process of its own: this program again, with the hidden subcommand `measure`.
pub fn in_child(case: Case) -> Result<Outcome, String> {
    let failed = |what: &str, error: &dyn std::fmt::Display| format!("{what} of {case:?}: {error}");
    let program = std::env::current_exe().map_err(|error| failed("the program", &error))?;
    let text = serde_json::to_string(&case).map_err(|error| failed("the description", &error))?;
    let mut command = Command::new(program);
    command
        .args(["measure", &text])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let output = command.output().map_err(|error| failed("the start", &error))?;
    if !output.status.success() {
        return Err(failed("the process", &output.status));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed("the answer", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size {
        seed: 3,
        accounts: 500,
        records: 2_000,
        step: 100,
    };

    fn tally(case: Case) -> Tally {
        match measure(case) {
            Outcome::Figures(figures) => figures.tally,
            other => panic!("{case:?} gave {other:?}"),
        }
    }

    /// The engine gives what the loop gives, on up to so many workers, for every part; `of` is what must not be 0.
    fn agree(
        by_hand: fn(Part) -> Case,
        engine: fn(Part, usize) -> Case,
        workers: usize,
        of: fn(&Tally) -> u64,
    ) {
        for part in Part::ALL {
            let expected = tally(by_hand(part));
            assert!(of(&expected) > 0, "{part:?} gives nothing");
            for workers in 1..=workers {
                let found = tally(engine(part, workers));
                assert_eq!(found, expected, "{part:?}, {workers} workers");
            }
        }
    }

    /// The loops and the engine know nothing of each other, and yet give the same messages, on any number
    /// of workers.
    #[test]
    fn engine_and_loops_agree() {
        agree(
            |part| Case::Loop { part, size: SIZE },
            |part, workers| Case::Decoded {
                part,
                size: SIZE,
                workers,
            },
            3,
            |tally| tally.count,
        );
    }

    /// To the byte, where messages are encoded.
    #[test]
    fn encoded_messages_agree() {
        agree(
            |part| Case::LoopBytes { part, size: SIZE },
            |part, workers| Case::Bytes {
                part,
                size: SIZE,
                workers,
            },
            2,
            |tally| tally.bytes,
        );
    }

    #[test]
    fn an_open_loop_gives_the_same_and_counts_what_follows_the_warm_up() {
        let schedule = Schedule {
            rate: 100_000,
            interval_us: 1_000,
            seconds: 1,
            warm_up: 0,
        };
        let size = Size {
            step: schedule.step(),
            ..SIZE
        };
        let case = Case::OpenLoop {
            part: Part::Alerts,
            size,
            workers: 2,
            schedule,
        };
        assert_eq!(
            tally(case),
            tally(Case::LoopBytes {
                part: Part::Alerts,
                size
            })
        );
    }

    #[test]
    fn cases_pass_through_the_command_line() {
        let case = Case::Decoded {
            part: Part::Together,
            size: SIZE,
            workers: 2,
        };
        let text = serde_json::to_string(&case).expect("JSON");
        assert_eq!(serde_json::from_str::<Case>(&text).expect("a case"), case);
    }
}

//! Which measurements a command asks for, and what they are held against.
//!
//! The list is made before anything runs, from the sizes alone. Afterwards every run of the engine is
//! compared with the
//! hand-written loop of the same part, size and form: messages must be the same, times become ratios.

use crate::arguments::{Command, ReplayPart, Scale};
use crate::measure::{Case, Figures, Outcome};
use crate::replay::{Run, Source};
use crate::rows::{self, Form};
use crate::workload::Part;
use serde::{Deserialize, Serialize};

/// A measurement that was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measurement {
    /// What was run.
    pub case: Case,
    /// What it gave.
    pub outcome: Outcome,
}

/// A target, and whether it was reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What was asked.
    pub target: String,
    /// What came out.
    pub found: String,
    /// Whether it was reached.
    pub reached: bool,
}

/// The measurements of a command; none means all of them.
pub fn cases(command: Option<&Command>, scale: &Scale) -> Vec<Case> {
    match command {
        Some(Command::Alerts) => throughput(Part::Alerts, scale),
        Some(Command::Windows) => throughput(Part::Windows, scale),
        Some(Command::Joins) => throughput(Part::Joins, scale),
        Some(Command::Patterns) => throughput(Part::Patterns, scale),
        Some(Command::Counts) => throughput(Part::Counts, scale),
        Some(Command::Together) => throughput(Part::Together, scale),
        Some(Command::OpenLoop) => open_loop(scale),
        Some(Command::Flat) => flat(scale),
        Some(Command::Memory) => vec![memory(scale)],
        Some(Command::Replay { parts }) => replays(parts, scale),
        Some(
            Command::Kills(_)
            | Command::Scale
            | Command::Faults(_)
            | Command::Kafka(_)
            | Command::KafkaRole { .. }
            | Command::Broker { .. }
            | Command::Measure { .. },
        ) => Vec::new(),
        None => {
            let throughputs = Part::ALL.into_iter().flat_map(|part| throughput(part, scale));
            throughputs
                .chain(open_loop(scale))
                .chain(flat(scale))
                .chain([memory(scale)])
                .chain(rows(scale))
                .collect()
        }
    }
}

fn throughput(part: Part, scale: &Scale) -> Vec<Case> {
    let mut cases = Vec::new();
    for step in &scale.steps {
        let size = scale.size(part, *step);
        cases.push(Case::Loop { part, size });
        cases.extend(
            scale
                .workers
                .iter()
                .map(|&workers| Case::Decoded { part, size, workers }),
        );
    }
    if let Some(step) = scale.steps.first() {
        let size = scale.size(part, *step);
        cases.push(Case::LoopBytes { part, size });
        cases.extend(
            scale
                .workers
                .iter()
                .map(|&workers| Case::Bytes { part, size, workers }),
        );
    }
    cases
}

fn open_loop(scale: &Scale) -> Vec<Case> {
    let schedule = scale.schedule();
    let case = |part, workers| {
        // Together, about five inputs share the rate; the schedule ends with the records.
        let inputs = if part == Part::Together { 5 } else { 1 };
        let mut size = scale.size(part, schedule.step());
        size.records = schedule.records() / inputs;
        Case::OpenLoop {
            part,
            size,
            workers,
            schedule,
        }
    };
    let parts = [Part::Alerts, Part::Together];
    parts
        .into_iter()
        .flat_map(|part| scale.workers.iter().map(move |&workers| case(part, workers)))
        .collect()
}

fn flat(scale: &Scale) -> Vec<Case> {
    let past = |part| Case::Past {
        part,
        seed: scale.seed,
        epochs: scale.epochs,
    };
    let pending = |part| {
        let steps = [0, scale.pending / 100, scale.pending / 10, scale.pending];
        steps
            .into_iter()
            .map(move |pending| Case::Pending { part, pending })
    };
    let pasts = Part::ALL
        .into_iter()
        .filter(|part| *part != Part::Together)
        .map(past);
    pasts
        .chain(
            [Part::Windows, Part::Joins, Part::Patterns]
                .into_iter()
                .flat_map(pending),
        )
        .collect()
}

fn memory(scale: &Scale) -> Case {
    Case::Memory {
        seed: scale.seed,
        rows: scale.rows,
        rewrites: scale.rewrites,
    }
}

/// Each form holds its rows in memory, once as records and once as bytes.
fn rows(scale: &Scale) -> Vec<Case> {
    let (seed, accounts, rows) = (scale.seed, scale.accounts, scale.records / 2);
    let case = |form| Case::Rows {
        form,
        seed,
        accounts,
        rows,
    };
    Form::ALL.map(case).into()
}

/// Without parts, the rows. Memory is compared between a workload and one twice as long.
fn replays(parts: &[ReplayPart], scale: &Scale) -> Vec<Case> {
    let workers = scale.workers.iter().copied().max().unwrap_or(1);
    let replay = |source, entries, workers| Case::Replay {
        source,
        seed: scale.seed,
        accounts: scale.accounts,
        entries,
        workers,
    };
    let of_part = |part: &ReplayPart| match part {
        ReplayPart::Rows => rows(scale),
        ReplayPart::Files => vec![
            replay(Source::Files, scale.records, workers),
            replay(Source::Files, 2 * scale.records, 1),
        ],
        ReplayPart::Kafka => vec![replay(Source::Kafka, scale.records, workers)],
    };
    match parts {
        [] => rows(scale),
        parts => parts.iter().flat_map(of_part).collect(),
    }
}

/// What a form of rows came to, among what was measured.
pub fn form(form: Form, among: &[Measurement]) -> Option<rows::Figures> {
    among
        .iter()
        .find_map(|measurement| match (measurement.case, &measurement.outcome) {
            (Case::Rows { form: other, .. }, Outcome::Rows(figures)) if other == form => Some(*figures),
            _ => None,
        })
}

/// The hand-written loop that a run of the engine is compared with.
pub fn loop_of(case: Case) -> Option<Case> {
    match case {
        Case::Decoded { part, size, .. } => Some(Case::Loop { part, size }),
        Case::Bytes { part, size, .. } => Some(Case::LoopBytes { part, size }),
        _ => None,
    }
}

/// The figures of a case among those measured.
pub fn figures(case: Case, among: &[Measurement]) -> Option<&Figures> {
    among
        .iter()
        .find(|measurement| measurement.case == case)
        .and_then(|measurement| match &measurement.outcome {
            Outcome::Figures(figures) => Some(figures),
            Outcome::Curve(_) | Outcome::Growth(_) | Outcome::Rows(_) | Outcome::Replays(_) => None,
        })
}

/// Rate of the engine over that of the loop, if both were measured.
pub fn ratio(measurement: &Measurement, among: &[Measurement]) -> Option<f64> {
    let by_hand = figures(loop_of(measurement.case)?, among)?;
    let Outcome::Figures(figures) = &measurement.outcome else {
        return None;
    };
    Some(figures.rate() / by_hand.rate())
}

/// Every run of the engine whose messages are not those of the loop, every form of rows that is not JSON's.
pub fn disagreements(among: &[Measurement]) -> Vec<String> {
    let json = form(Form::Json, among);
    let other_rows = among.iter().filter_map(|measurement| match &measurement.outcome {
        Outcome::Rows(rows) => {
            let same = json.is_none_or(|json| (json.rows, json.digest) == (rows.rows, rows.digest));
            (!same).then(|| format!("{:?}: {rows:?}, JSON {json:?}", measurement.case))
        }
        Outcome::Replays(Err(error)) => Some(format!("{:?}: {error}", measurement.case)),
        Outcome::Replays(Ok(runs)) => {
            let same = runs.iter().all(|run| run.digest == runs[0].digest);
            (!same).then(|| format!("{:?}: outputs differ: {runs:?}", measurement.case))
        }
        _ => None,
    });
    let disagrees = |measurement: &Measurement| {
        let by_hand = figures(loop_of(measurement.case)?, among)?;
        let Outcome::Figures(figures) = &measurement.outcome else {
            return None;
        };
        let (one, other) = (figures.tally, by_hand.tally);
        (one != other).then(|| {
            format!(
                "{:?}: engine {one:?}, hand-written loop {other:?}",
                measurement.case
            )
        })
    };
    among.iter().filter_map(disagrees).chain(other_rows).collect()
}

/// The targets, for whatever of them was measured.
pub fn verdicts(among: &[Measurement]) -> Vec<Verdict> {
    let of_pending = |part: Part| {
        let points = pending_curve(part, among);
        (points.len() > 1).then(|| flat_verdict(part, "with much pending", &points))
    };
    let pending = [Part::Windows, Part::Joins, Part::Patterns]
        .into_iter()
        .filter_map(of_pending);
    among
        .iter()
        .filter_map(|measurement| verdict(measurement, among))
        .chain(pending)
        .chain(replay_memory(among))
        .collect()
}

/// Replays of a span and of one twice as long, on one worker, with a log and without: the same memory.
fn replay_memory(among: &[Measurement]) -> Vec<Verdict> {
    let runs = |measurement: &Measurement| match (measurement.case, &measurement.outcome) {
        (
            Case::Replay {
                source: Source::Files,
                entries,
                ..
            },
            Outcome::Replays(Ok(runs)),
        ) => Some((entries, runs.clone())),
        _ => None,
    };
    let measured: Vec<_> = among.iter().filter_map(runs).collect();
    let [(_, short), .., (entries, long)] = measured.as_slice() else {
        return Vec::new();
    };
    let pairs = short
        .iter()
        .zip(long)
        .filter(|(short, long)| (short.workers, short.caching) == (long.workers, long.caching));
    let verdict = |(short, long): (&Run, &Run)| {
        let times = long.peak as f64 / short.peak.max(1) as f64;
        let target = format!(
            "memory of {entries} entries, {:?}: at most 1.2 x of half as many",
            long.caching
        );
        Verdict::new(target, format!("{times:.2} x"), times <= 1.2)
    };
    pairs.map(verdict).collect()
}

/// The target of one measurement, if it has one.
fn verdict(measurement: &Measurement, among: &[Measurement]) -> Option<Verdict> {
    match (measurement.case, &measurement.outcome) {
        (
            Case::Decoded {
                part,
                size,
                workers: 1,
            },
            Outcome::Figures(figures),
        ) => {
            let least = match (part, size.step) {
                (Part::Alerts, 100_000) => 3.0,
                (Part::Alerts, 1_000) => 2.0,
                (Part::Windows, 100_000 | 1_000) => 5.0,
                _ => return None,
            };
            let (name, step, rate) = (part.name(), size.step, figures.rate() / 1e6);
            let target = format!("{name}, decoded, 1 worker, steps of {step}: at least {least} M/s");
            Some(Verdict::new(target, format!("{rate:.2} M/s"), rate >= least))
        }
        (
            Case::Bytes {
                part,
                workers: workers @ 1..=2,
                ..
            },
            _,
        ) => {
            let ratio = ratio(measurement, among)?;
            let least = if workers == 1 { 0.5 } else { 1.0 };
            let name = part.name();
            let target = format!("{name}, bytes to bytes, {workers} worker(s): at least {least} x the loop");
            Some(Verdict::new(target, format!("{ratio:.2} x"), ratio >= least))
        }
        (
            Case::OpenLoop {
                part: Part::Alerts,
                workers,
                schedule,
                ..
            },
            Outcome::Figures(figures),
        ) => {
            let (p50, p99) = (figures.latency_us.p50 / 1e3, figures.latency_us.p99 / 1e3);
            let load = format!("alerts, open loop, {} /s, {workers} worker(s)", schedule.rate);
            let target = format!("{load}: p50 <= 2 ms, p99 <= 10 ms");
            let found = format!("p50 {p50:.2} ms, p99 {p99:.2} ms");
            Some(Verdict::new(target, found, p50 <= 2.0 && p99 <= 10.0))
        }
        (Case::Rows { form: other, .. }, Outcome::Rows(figures)) => {
            let least = match other {
                Form::Json => 5.0,
                Form::Avro => 2.0,
                Form::Rows | Form::Bincode | Form::Columnar => return None,
            };
            let times = form(Form::Rows, among)?.read_rate() / figures.read_rate();
            let target = format!(
                "reading the replay log: at least {least} x decoding {}",
                other.name()
            );
            Some(Verdict::new(target, format!("{times:.2} x"), times >= least))
        }
        (Case::Past { part, .. }, Outcome::Curve(points)) => {
            Some(flat_verdict(part, "after many epochs", points))
        }
        (Case::Memory { .. }, Outcome::Growth(growth)) => {
            let target = "memory after rewrites: at most 1.5 x the first load".to_owned();
            Some(Verdict::new(
                target,
                format!("{:.2} x", growth.ratio()),
                growth.ratio() <= 1.5,
            ))
        }
        _ => None,
    }
}

fn flat_verdict(part: Part, when: &str, points: &[crate::flat::Point]) -> Verdict {
    let growth = crate::flat::growth(points);
    let target = format!(
        "{}: an epoch costs the same {when}: at most {FLAT} x",
        part.name()
    );
    Verdict::new(target, format!("{growth:.2} x"), growth <= FLAT)
}

impl Verdict {
    fn new(target: String, found: String, reached: bool) -> Self {
        Verdict {
            target,
            found,
            reached,
        }
    }
}

/// Caches are not infinite: what touches ten of a million keys misses them where it hit before.
const FLAT: f64 = 2.0;

/// The points of a part over what is pending.
pub fn pending_curve(part: Part, among: &[Measurement]) -> Vec<crate::flat::Point> {
    let of_part = |measurement: &Measurement| match (measurement.case, &measurement.outcome) {
        (Case::Pending { part: other, .. }, Outcome::Curve(points)) if other == part => points.clone(),
        _ => Vec::new(),
    };
    among.iter().flat_map(of_part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Tally;
    use crate::latency::Percentiles;
    use crate::process::Resident;
    use crate::workload::Size;

    const SIZE: Size = Size {
        seed: 1,
        accounts: 100,
        records: 1_000,
        step: 1_000,
    };

    fn measured(case: Case, seconds: f64, count: u64) -> Measurement {
        let outcome = Outcome::Figures(Figures {
            records: 4_000_000,
            seconds,
            cpu_seconds: seconds,
            tally: Tally {
                count,
                ..Tally::default()
            },
            latency_us: Percentiles::default(),
            resident: Resident::default(),
            hgrm: None,
        });
        Measurement { case, outcome }
    }

    #[test]
    fn a_different_message_is_a_disagreement() {
        let part = Part::Alerts;
        let by_hand = measured(Case::Loop { part, size: SIZE }, 1.0, 7);
        let engine = |count| {
            measured(
                Case::Decoded {
                    part,
                    size: SIZE,
                    workers: 1,
                },
                2.0,
                count,
            )
        };
        assert!(disagreements(&[by_hand.clone(), engine(7)]).is_empty());
        assert_eq!(disagreements(&[by_hand.clone(), engine(8)]).len(), 1);
        let ratio = ratio(&engine(7), &[by_hand]).expect("both were measured");
        assert!((ratio - 0.5).abs() < 1e-9);
    }

    #[test]
    fn targets_are_reached_or_missed() {
        let run = |seconds| {
            measured(
                Case::Decoded {
                    part: Part::Alerts,
                    size: SIZE,
                    workers: 1,
                },
                seconds,
                7,
            )
        };
        let reached = |seconds| {
            verdicts(&[run(seconds)])
                .iter()
                .map(|verdict| verdict.reached)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            (reached(1.9), reached(2.1)),
            (vec![true], vec![false]),
            "2 M/s in steps of 1 000"
        );
    }

    #[test]
    fn without_a_command_everything_is_measured() {
        use crate::arguments::Arguments;
        use clap::Parser as _;
        let scale = Arguments::try_parse_from(["tidegate-bench"])
            .expect("no words are needed")
            .scale;
        let cases = cases(None, &scale);
        for part in Part::ALL {
            let size = scale.size(part, 1_000);
            assert!(
                cases.contains(&Case::Decoded {
                    part,
                    size,
                    workers: 2
                }),
                "{part:?}"
            );
        }
        assert!(cases.iter().any(|case| matches!(
            case,
            Case::OpenLoop {
                part: Part::Together,
                ..
            }
        )));
        assert!(cases.iter().any(|case| matches!(
            case,
            Case::Pending {
                pending: 1_000_000,
                ..
            }
        )));
        assert!(
            cases
                .iter()
                .any(|case| matches!(case, Case::Memory { rewrites: 10_000, .. }))
        );
    }
}

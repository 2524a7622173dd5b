//! One open-loop run: the load sends on its schedule, a subject works, a reader notes when messages arrive.
//!
//! ```text
//!  warm-up                 counted                                     end
//!  ├───────────────────────┼───────────────────────────────────────────┤─► all is committed, reader ends
//!                          └ CPU of each process, steal ───────────────┘
//! ```
//!
//! A run is void if the load could not keep its schedule, or another virtual machine took the processors. What
//! others on this machine used is told beside it: a run that was disturbed is for whoever reads to judge.

use super::floor::{Copied, Copies};
use super::load::{Schedule, Sent};
use super::reader::{self, Seen};
use super::role::{Player, Role};
use super::scene::{Engine, Scene, Spent, Stage};
use super::{LATE_MICROS, micros};
use crate::latency::{Latencies, Percentiles};
use crate::process::{Machine, cpu_seconds_of, machine};
use crate::workload::Part;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Between the choice of the schedule and its start: the load must be ready by then.
const AHEAD: Duration = Duration::from_secs(3);

/// A subject that has not committed everything so long after the load's end does not keep up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Void above so many late messages in a thousand ...
const LATE_PER_MILLE: u64 = 10;

/// ... or above this share of the time stolen.
const STEAL: f64 = 0.02;

/// Who works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Subject {
    /// `tidegate run`.
    Engine,
    /// The loop without an engine.
    Floor,
}

/// How a run is set up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// Who works.
    pub subject: Subject,
    /// Length of an epoch, milliseconds; the floor's time between transactions.
    pub interval_ms: u64,
    /// Entries a second.
    pub rate: u64,
    /// Accounts.
    pub accounts: u32,
    /// Length that counts, seconds.
    pub seconds: u64,
    /// Before it, seconds.
    pub warm_up: u64,
    /// The floor's producers, in turn.
    pub producers: usize,
}

/// Cores that were busy on average while it counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cores {
    /// The engine or the floor.
    pub subject: f64,
    /// The broker.
    pub broker: f64,
    /// The load and the reader.
    pub harness: f64,
    /// Everybody else on the machine.
    pub others: f64,
    /// Taken away by another virtual machine.
    pub steal: f64,
}

/// What a run gave.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figures {
    /// How it was set up.
    pub setup: Setup,
    /// From intended to arrived.
    pub latency_us: Percentiles,
    /// Entries sent.
    pub sent: Sent,
    /// Messages read.
    pub messages: u64,
    /// Who used the processors.
    pub cores: Cores,
    /// From the load's end until everything was committed, seconds; none if it was given up.
    pub behind: Option<f64>,
    /// Where the engine's time went.
    pub spent: Option<Spent>,
    /// Why the run does not count; empty if it does.
    pub void: Vec<String>,
    /// The distribution, for HdrHistogram's plotter, and to be merged with others.
    #[serde(skip)]
    pub latencies: Option<Latencies>,
}

/// What the engine was seen to give for an entry, by output: messages, and their bytes.
pub type Profile = Vec<(f64, usize)>;

/// A subject at work.
enum Working {
    Engine(Engine),
    Floor(Player),
}

/// Processes whose CPU is counted: subject, broker, load, reader.
struct Counted([u32; 4]);

impl Counted {
    fn now(&self) -> ([f64; 4], Machine, u64) {
        (self.0.map(cpu_seconds_of), machine(), micros())
    }
}

/// Runs it. `profile` is what the floor copies; a run of the engine makes it anew.
pub fn run(stage: &mut Stage, setup: Setup, profile: &mut Profile) -> Result<Figures, String> {
    let scene = stage.scene(Part::Alerts, setup.accounts, setup.interval_ms)?;
    let start = micros() + AHEAD.as_micros() as u64;
    let (from, end) = (
        start + setup.warm_up * 1_000_000,
        start + (setup.warm_up + setup.seconds) * 1_000_000,
    );
    let mut outputs = scene.outputs.clone();
    outputs.pop(); // nobody waits for dead letters
    let reader = Player::start(&Role::Reader(reader::Plan {
        brokers: stage.brokers().to_owned(),
        topics: outputs
            .iter()
            .map(|topic| (topic.clone(), stage.partitions))
            .collect(),
        from,
    }))?;
    let schedule = Schedule {
        start,
        rate: setup.rate,
    };
    let records = setup.rate * (setup.warm_up + setup.seconds);
    let load = stage.load(scene.topics(false), setup.accounts, records, 0, Some(schedule))?;
    let mut working = match setup.subject {
        Subject::Engine => Working::Engine(stage.engine(&scene)?),
        Subject::Floor => {
            let copies = copies(&outputs, stage.partitions, profile);
            Working::Floor(stage.floor(&scene, copies, setup.interval_ms * 1_000, setup.producers)?)
        }
    };
    let subject = match &working {
        Working::Engine(engine) => engine.pid(),
        Working::Floor(floor) => floor.pid(),
    };
    let counted = Counted([subject, stage.broker_pid(), load.pid(), reader.pid()]);
    wait_until(from);
    let before = counted.now();
    wait_until(end);
    let after = counted.now();
    let sent: Sent = load.result()?;
    if let Working::Engine(engine) = &mut working {
        engine.check()?;
    }
    let behind = settle(stage, &scene, end)?;
    let seen: Seen = reader.end()?;
    let spent = match working {
        Working::Engine(engine) => {
            *profile = profiled(&sent, &seen);
            Some(engine.drained()?)
        }
        Working::Floor(floor) => {
            let _: Copied = floor.end()?;
            None
        }
    };
    let cores = cores(&before, &after);
    let mut latencies = Latencies::new();
    latencies.merge(&seen.latencies);
    Ok(Figures {
        setup,
        latency_us: latencies.percentiles(),
        void: void(&sent, cores, behind),
        sent,
        messages: seen.messages,
        cores,
        behind,
        spent,
        latencies: Some(latencies),
    })
}

/// Waits until everything is committed; gives how long after `end` that was.
fn settle(stage: &Stage, scene: &Scene, end: u64) -> Result<Option<f64>, String> {
    let ends = stage.ends(scene)?;
    let mut follower = stage.follow(scene)?;
    while !follower.has(&ends) {
        if micros() > end + PATIENCE.as_micros() as u64 {
            return Ok(None);
        }
        follower.look(Duration::from_millis(20))?;
    }
    Ok(Some(micros().saturating_sub(end) as f64 / 1e6))
}

fn copies(outputs: &[String], partitions: u32, profile: &Profile) -> Vec<Copies> {
    let copies = outputs
        .iter()
        .zip(profile)
        .map(|(topic, (per_entry, bytes))| Copies {
            topic: topic.clone(),
            partitions,
            per_entry: *per_entry,
            bytes: *bytes,
        });
    copies.collect()
}

fn profiled(sent: &Sent, seen: &Seen) -> Profile {
    let bytes = usize::try_from(seen.bytes / seen.messages.max(1)).unwrap_or(0);
    let per_entry = |messages: &u64| *messages as f64 / sent.messages.max(1) as f64;
    seen.by_topic
        .iter()
        .map(|messages| (per_entry(messages), bytes))
        .collect()
}

type Sample = ([f64; 4], Machine, u64);

fn cores(before: &Sample, after: &Sample) -> Cores {
    let seconds = (after.2 - before.2) as f64 / 1e6;
    let used = |index: usize| (after.0[index] - before.0[index]) / seconds;
    let own = (0..4).map(used).sum::<f64>();
    Cores {
        subject: used(0),
        broker: used(1),
        harness: used(2) + used(3),
        others: ((after.1.busy - before.1.busy) / seconds - own).max(0.0),
        steal: (after.1.steal - before.1.steal) / seconds,
    }
}

fn void(sent: &Sent, cores: Cores, behind: Option<f64>) -> Vec<String> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let mut void = Vec::new();
    if sent.late * 1_000 > sent.messages * LATE_PER_MILLE {
        let late = LATE_MICROS / 1_000;
        void.push(format!("{} of {} sent {late} ms late", sent.late, sent.messages));
    }
    if cores.steal > STEAL * processors {
        void.push(format!("{:.2} cores stolen", cores.steal));
    }
    if behind.is_none() {
        void.push("did not keep up".to_owned());
    }
    void
}

fn wait_until(time: u64) {
    while micros() < time {
        std::thread::park_timeout(Duration::from_micros(time - micros().min(time)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_void_when_the_load_was_late_or_time_was_stolen() {
        let sent = |late| Sent {
            messages: 1_000,
            late,
            ..Sent::default()
        };
        let steal = |steal| Cores {
            steal,
            ..Cores::default()
        };
        assert!(void(&sent(10), steal(0.0), Some(0.1)).is_empty());
        assert_eq!(void(&sent(11), steal(0.0), Some(0.1)).len(), 1);
        assert_eq!(void(&sent(0), steal(1.0), Some(0.1)).len(), 1);
        assert_eq!(void(&sent(0), steal(0.0), None).len(), 1);
    }

    #[test]
    fn what_the_listed_processes_did_not_use_others_did() {
        let machine = |busy| Machine { busy, steal: 0.0 };
        let used = cores(
            &([1.0; 4], machine(10.0), 0),
            &([2.0; 4], machine(20.0), 10_000_000),
        );
        assert!(
            (used.others - 0.6).abs() < 1e-9 && (used.harness - 0.2).abs() < 1e-9,
            "{used:?}"
        );
    }
}

//! Recovery: the engine is killed under load and started again at once; how long until something new is there.
//!
//! ```text
//!  kill -9 ─► start ─► claim, fence, restore, replay ─► first commit of the new generation ─► first message
//!  └──────────────────────────── what is measured ────────────────────────────────────────────────────┘
//! ```
//!
//! The load goes on meanwhile. A message counts if it arrives after progress of the new generation has: what
//! the killed one had committed and nobody had read yet does not.

use super::load::Schedule;
use super::role::Player;
use super::scene::{Engine, Scene, Stage};
use super::{client, micros};
use crate::kills::Chance;
use crate::latency::{Latencies, Percentiles};
use crate::workload::Part;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tidegate::kafka::consumer::{Consumer, Event};

/// Without a message for so long, a start has failed, microseconds.
const PATIENCE: u64 = 120_000_000;

/// Between two kills: checkpoints are due every ten seconds, and kills fall anywhere between them.
const LIFE: std::ops::Range<u64> = 4_000_000..16_000_000;

/// The load lasts at least so long for each kill, seconds.
const LOAD_SECONDS: u64 = 30;

/// What the kills showed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recovered {
    /// Accounts of state.
    pub accounts: u32,
    /// Entries a second.
    pub rate: u64,
    /// From each kill to the first new message, milliseconds.
    pub millis: Vec<f64>,
    /// Of these, microseconds.
    pub percentiles: Percentiles,
    /// From the first start to the first message, seconds: without state.
    pub first_start: f64,
}

/// Watches outputs and progress.
struct Watch {
    outputs: Consumer,
    progress: super::scene::Follower,
}

impl Watch {
    fn new(stage: &Stage, scene: &Scene) -> Result<Watch, String> {
        let outputs =
            Consumer::new(&client(stage.brokers(), "watch", &[])).map_err(|error| error.to_string())?;
        let (_, topics) = scene.outputs.split_last().ok_or("a job without outputs")?;
        for topic in topics {
            for partition in 0..stage.partitions {
                outputs
                    .assign(topic, partition, 0)
                    .map_err(|error| error.to_string())?;
            }
        }
        let progress = stage.follow(scene)?;
        Ok(Watch { outputs, progress })
    }

    /// Reads for so long, microseconds.
    fn idle(&mut self, engine: &mut Engine, time: u64) -> Result<(), String> {
        let until = micros() + time;
        while micros() < until {
            self.outputs.poll(Duration::from_millis(5), |_| {});
            self.progress.look(Duration::ZERO)?;
        }
        engine.check()
    }

    /// Reads until a message comes after progress above this generation; gives when.
    fn first_message(&mut self, engine: &mut Engine, generation: u64) -> Result<u64, String> {
        let patience = micros() + PATIENCE;
        let before = self.progress.head.upper;
        while micros() < patience {
            let mut arrived = false;
            self.outputs.poll(Duration::from_millis(1), |event| {
                arrived |= matches!(event, Event::Message { .. });
            });
            let head = &self.progress.head;
            if arrived && head.generation > generation && head.upper > before {
                return Ok(micros());
            }
            self.progress.look(Duration::ZERO)?;
            engine.check()?;
        }
        Err("nothing comes after a kill".to_owned())
    }
}

/// Kills the engine so many times.
pub fn recover(stage: &mut Stage, accounts: u32, rate: u64, kills: u64) -> Result<Recovered, String> {
    let scene = stage.scene(Part::Alerts, accounts, 10)?;
    let schedule = Schedule {
        start: micros() + 10_000_000,
        rate,
    };
    let records = rate * LOAD_SECONDS * (kills + 2);
    let load: Player = stage.load(scene.topics(false), accounts, records, 0, Some(schedule))?;
    let mut watch = Watch::new(stage, &scene)?;
    let mut chance = Chance::new(stage.seed);
    let began = micros();
    let mut engine = stage.engine(&scene)?;
    let first = watch.first_message(&mut engine, 0)?;
    let (mut latencies, mut millis) = (Latencies::new(), Vec::new());
    // A first checkpoint must be there: before it, everything is read again.
    watch.idle(&mut engine, LIFE.end)?;
    for kill in 1..=kills {
        watch.idle(&mut engine, LIFE.start + chance.below(LIFE.end - LIFE.start))?;
        let generation = watch.progress.head.generation;
        let killed = micros();
        drop(engine);
        engine = stage.engine(&scene)?;
        let took = watch
            .first_message(&mut engine, generation)?
            .saturating_sub(killed);
        super::say(&format!("kill {kill} of {kills}: {:.2} s", took as f64 / 1e6));
        latencies.record(Duration::from_micros(took));
        millis.push(took as f64 / 1e3);
    }
    drop(load);
    Ok(Recovered {
        accounts,
        rate,
        millis,
        percentiles: latencies.percentiles(),
        first_start: (first - began) as f64 / 1e6,
    })
}

//! `tidegate-bench kafka`: the engine between topics of a real broker, beside the floor.
//!
//! ```text
//!  parts ─┬─ latency, epochs, rates ─► open_loop ─┬─► role: load, reader, floor, each a process of its own
//!         ├─ drain, poison ──────────► drain ─────┤    scene: broker, topics, job file, the engine
//!         └─ recovery ───────────────► recovery ──┘
//!                                                  results ─► tables, verdicts, files in bench/runs
//! ```
//!
//! Engine and floor take turns on the same broker, each time with fresh topics; the engine is the program
//! itself, started as a user would. All share the processors of one machine with the broker, so figures are
//! to be read as ratios.

pub mod drain;
pub mod floor;
pub mod load;
pub mod open_loop;
pub mod reader;
pub mod recovery;
pub mod results;
pub mod role;
pub mod scene;

use crate::arguments::{KafkaArguments, KafkaFormat, KafkaPart};
use crate::process::host;
use crate::workload::Part;
use open_loop::{Profile, Setup, Subject};
use results::Results;
use rustix::time::{ClockId, clock_gettime};
use scene::Stage;
use std::io::Write as _;
use tidegate::kafka::Settings;

/// A message that is sent later than this after its time is late, microseconds.
pub const LATE_MICROS: u64 = 5_000;

/// Rates are raised by this factor until the engine no longer keeps up.
const RAISED: u64 = 2;

/// The knee is passed when this much is reached at the 99th percentile, microseconds.
const KNEE: f64 = 200_000.0;

/// Sweeps take shorter runs, each this part of a run's length.
const SWEEP: u64 = 2;

/// Microseconds of the machine's monotonic clock.
pub fn micros() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000
}

/// How a client of the measurement reaches the broker.
pub fn client(brokers: &str, name: &str, properties: &[(&str, &str)]) -> Settings {
    let properties = properties
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Settings {
        brokers: brokers.to_owned(),
        properties: properties.collect(),
        job: format!("bench-{name}"),
    }
}

/// Measures the parts.
pub fn run(arguments: &KafkaArguments, seed: u64, workers: usize, quick: bool) -> Result<Results, String> {
    let sizes = if quick {
        arguments.quick()
    } else {
        arguments.clone()
    };
    let (properties, is_avro) = (sizes.kafka.clone(), sizes.format == KafkaFormat::Avro);
    let cluster = sizes.cluster.as_deref();
    let mut stage = Stage::new(seed, sizes.partitions, workers, properties, is_avro, cluster)?;
    let mut results = Results::new(host(), std::env::args().skip(1).collect());
    let parts = match sizes.parts.is_empty() {
        true => KafkaPart::ALL.to_vec(),
        false => sizes.parts.clone(),
    };
    let mut measuring = Measuring {
        stage: &mut stage,
        sizes: &sizes,
        results: &mut results,
        profile: Profile::new(),
    };
    for part in parts {
        match part {
            KafkaPart::Latency => measuring.latency()?,
            KafkaPart::Epochs => measuring.epochs()?,
            KafkaPart::Rates => measuring.rates()?,
            KafkaPart::Drain => measuring.drain()?,
            KafkaPart::Poison => measuring.poison()?,
            KafkaPart::Recovery => {
                let (accounts, kills) = (sizes.recovery_accounts, sizes.kills);
                let recovered = recovery::recover(measuring.stage, accounts, sizes.entry_rate, kills)?;
                measuring.results.recovered = Some(recovered);
            }
        }
    }
    Ok(results)
}

/// A measurement under way.
struct Measuring<'a> {
    stage: &'a mut Stage,
    sizes: &'a KafkaArguments,
    results: &'a mut Results,
    /// What the floor copies, as the engine's last run gave it.
    profile: Profile,
}

impl Measuring<'_> {
    fn setup(&self, subject: Subject) -> Setup {
        let sizes = self.sizes;
        Setup {
            subject,
            interval_ms: sizes.epoch_ms,
            rate: sizes.entry_rate,
            accounts: sizes.state_accounts,
            seconds: sizes.counted,
            warm_up: sizes.uncounted,
            producers: sizes.floor_producers,
        }
    }

    /// Engine, then floor; whether the engine kept up, before the knee.
    fn pair(&mut self, setup: Setup) -> Result<bool, String> {
        let mut kept_up = true;
        for subject in [Subject::Engine, Subject::Floor] {
            let setup = Setup { subject, ..setup };
            let figures = open_loop::run(self.stage, setup, &mut self.profile)?;
            say(&results::line(&figures));
            if subject == Subject::Engine {
                kept_up = figures.behind.is_some() && figures.latency_us.p99 < KNEE;
            }
            self.results.runs.push(figures);
        }
        Ok(kept_up)
    }

    fn latency(&mut self) -> Result<(), String> {
        for _ in 0..self.sizes.pairs {
            self.pair(self.setup(Subject::Engine))?;
        }
        Ok(())
    }

    fn epochs(&mut self) -> Result<(), String> {
        for interval_ms in &self.sizes.epochs_ms {
            let setup = self.setup(Subject::Engine);
            self.pair(Setup {
                interval_ms: *interval_ms,
                seconds: (setup.seconds / SWEEP).max(1),
                ..setup
            })?;
        }
        Ok(())
    }

    /// Up to the knee and one step beyond.
    fn rates(&mut self) -> Result<(), String> {
        let setup = self.setup(Subject::Engine);
        let mut rate = setup.rate;
        let seconds = (setup.seconds / SWEEP).max(1);
        while self.pair(Setup {
            rate,
            seconds,
            ..setup
        })? && rate < self.sizes.rate_most
        {
            rate *= RAISED;
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<(), String> {
        for part in [Part::Alerts, Part::Together] {
            self.drained(part, 0)?;
        }
        Ok(())
    }

    /// Clean and bad in turn, so that neither has the machine's better hour.
    fn poison(&mut self) -> Result<(), String> {
        for _ in 0..self.sizes.pairs {
            self.drained(Part::Alerts, 0)?;
            self.drained(Part::Alerts, 99)?;
        }
        Ok(())
    }

    fn drained(&mut self, part: Part, bad_after: u64) -> Result<(), String> {
        let (accounts, backlog) = (self.sizes.state_accounts, self.sizes.backlog);
        let drained = drain::drain(self.stage, part, accounts, backlog, bad_after)?;
        say(&results::drained_line(&drained));
        self.results.drained.push(drained);
        Ok(())
    }
}

/// Progress, to standard error.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}"); // nobody is left to tell of a closed terminal
}

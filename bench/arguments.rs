//! The command line. Every size is a flag, so that a run describes itself by its arguments; the defaults
//! are the canonical
//! workload. Parsing does no I/O.

use crate::broker_command::BrokerAction;
use crate::open_loop::Schedule;
use crate::workload::{Part, Size};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// By how much `--quick` divides every size.
pub const QUICK: u64 = 20;

const EXAMPLES: &str = "\
Without a command everything but `kills` is measured, and the results are saved. Engine and hand-written
loop must give the same messages, or the run fails.

Examples:
  tidegate-bench                              the canonical run, about half an hour
  tidegate-bench --quick                      a twentieth of it, as a smoke test
  tidegate-bench alerts --steps 1000 --workers 1
  tidegate-bench open-loop --rate 50000
  tidegate-bench scale --accounts 100000 --records 2000000
  tidegate-bench replay rows files kafka --records 10000000 --accounts 100000
  tidegate-bench kills --count 500 --seed 7
  tidegate-bench kills --count 30 --control   must find differences
  tidegate-bench kafka latency drain --save   between topics of a real broker
  tidegate-bench broker up --registry         a Kafka broker; `broker down` removes it";

/// Measures Tidegate in process, beside hand-written loops, and kills it on purpose.
#[derive(Debug, Parser)]
#[command(name = "tidegate-bench", after_help = EXAMPLES)]
pub struct Arguments {
    /// Sizes.
    #[command(flatten)]
    pub scale: Scale,
    /// Prints one JSON object instead of tables
    #[arg(long, global = true)]
    pub json: bool,
    /// Saves results with host and setup; a run without a command does so anyway, unless it is quick
    #[arg(long, global = true)]
    pub save: bool,
    /// Where results are saved, below it <date>-<host>
    #[arg(long, global = true, value_name = "DIR", default_value = "bench/runs")]
    pub out: PathBuf,
    /// What is measured.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// How much is measured.
#[derive(Clone, Debug, Args)]
pub struct Scale {
    /// Equal seeds give equal records
    #[arg(long, global = true, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Accounts; as many customers, users and keys
    #[arg(
        long, global = true, value_name = "N", default_value_t = 1_000_000,
        value_parser = clap::value_parser!(u32).range(100..=9_999_999)
    )]
    pub accounts: u32,
    /// Records of each event input; `together` reads a quarter of each
    #[arg(
        long, global = true, value_name = "N", default_value_t = 4_000_000,
        value_parser = clap::value_parser!(u64).range(1_000..)
    )]
    pub records: u64,
    /// Messages in an epoch, one run for each
    #[arg(
        long, global = true, value_name = "N,..", value_delimiter = ',',
        default_values_t = [100_000, 1_000]
    )]
    pub steps: Vec<usize>,
    /// Worker threads, one run for each
    #[arg(long, global = true, value_name = "N,..", value_delimiter = ',', default_values_t = [1, 2])]
    pub workers: Vec<usize>,
    /// Open loop: records a second
    #[arg(
        long, global = true, value_name = "N", default_value_t = 100_000,
        value_parser = clap::value_parser!(u64).range(1_000..=100_000_000)
    )]
    pub rate: u64,
    /// Open loop: length of an epoch, microseconds
    #[arg(
        long, global = true, value_name = "N", default_value_t = 1_000,
        value_parser = clap::value_parser!(u64).range(10..=1_000_000)
    )]
    pub interval_us: u64,
    /// Open loop: length, warm-up included, seconds
    #[arg(
        long, global = true, value_name = "N", default_value_t = 20,
        value_parser = clap::value_parser!(u64).range(1..=3_600)
    )]
    pub seconds: u64,
    /// Open loop: not counted at the start, seconds
    #[arg(long, global = true, value_name = "N", default_value_t = 5)]
    pub warm_up: u64,
    /// Flat cost: the greatest number of past epochs
    #[arg(
        long, global = true, value_name = "N", default_value_t = 100_000,
        value_parser = clap::value_parser!(u64).range(100..)
    )]
    pub epochs: u64,
    /// Flat cost: the greatest number of open windows, waiting records and timers
    #[arg(long, global = true, value_name = "N", default_value_t = 1_000_000)]
    pub pending: u64,
    /// Memory: rows of each table
    #[arg(
        long, global = true, value_name = "N", default_value_t = 1_000,
        value_parser = clap::value_parser!(u32).range(2..=9_999_999)
    )]
    pub rows: u32,
    /// Memory: how often every row is rewritten
    #[arg(long, global = true, value_name = "N", default_value_t = 10_000)]
    pub rewrites: u64,
    /// A twentieth of every size
    #[arg(long, global = true)]
    pub quick: bool,
}

impl Scale {
    /// These sizes, divided if the run is quick.
    pub fn effective(&self) -> Scale {
        let mut scale = self.clone();
        if self.quick {
            let divided = |size: u64, least: u64| (size / QUICK).max(least);
            scale.accounts = (self.accounts / QUICK as u32).max(100);
            scale.records = divided(self.records, 1_000);
            scale.steps = self
                .steps
                .iter()
                .map(|step| (step / QUICK as usize).max(1))
                .collect();
            scale.seconds = divided(self.seconds, 1);
            scale.warm_up = self.warm_up / QUICK;
            scale.epochs = divided(self.epochs, 100);
            scale.pending = self.pending / QUICK;
            scale.rewrites = divided(self.rewrites, 1);
        }
        scale
    }

    /// The size of a part's workload in epochs of so many messages.
    pub fn size(&self, part: Part, step: usize) -> Size {
        let records = if part == Part::Together {
            self.records / 4
        } else {
            self.records
        };
        Size {
            seed: self.seed,
            accounts: self.accounts,
            records,
            step,
        }
    }

    /// The open loop's schedule.
    pub fn schedule(&self) -> Schedule {
        let warm_up = self.warm_up.min(self.seconds - 1);
        Schedule {
            rate: self.rate,
            interval_us: self.interval_us,
            seconds: self.seconds,
            warm_up,
        }
    }
}

/// What is measured.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Throughput of `alerts`: decoded, bytes to bytes, and the hand-written loops
    Alerts,
    /// Throughput of `tumbling_aggregates`
    Windows,
    /// Throughput of `enriched_orders`
    Joins,
    /// Throughput of `risk_pattern`
    Patterns,
    /// Throughput of `event_counts`
    Counts,
    /// Throughput of all five as one job
    Together,
    /// Latency of alerts and of all together under a load whose schedule is fixed beforehand
    OpenLoop,
    /// Time of an epoch after many epochs and with much pending
    Flat,
    /// Resident memory while every row of two tables is rewritten again and again
    Memory,
    /// Throughput of `alerts` on more workers and more processes: 1x1, 1x2, 2x1, 2x2
    Scale,
    /// Decoded rows in the replay log beside other forms; replays by the program, with and without the log
    Replay {
        /// What is measured; without one, the rows
        parts: Vec<ReplayPart>,
    },
    /// Kills runs of `tidegate` and compares what they leave with an undisturbed run
    Kills(KillsArguments),
    /// Disturbs clusters of `tidegate`, hosts and networks, and compares what they leave with an undisturbed run
    Faults(FaultsArguments),
    /// The program between topics of a real broker, beside a copy loop without any engine
    Kafka(KafkaArguments),
    /// A real Kafka cluster and schema registry on this machine
    Broker {
        /// What becomes of it.
        #[command(subcommand)]
        action: BrokerAction,
    },
    /// One process of a Kafka measurement; its description and answer are JSON
    #[command(hide = true)]
    KafkaRole {
        /// The description.
        role: String,
    },
    /// One measurement in this process; its description and answer are JSON
    #[command(hide = true)]
    Measure {
        /// The description.
        case: String,
    },
}

/// How much a campaign does.
#[derive(Clone, Debug, Args)]
pub struct CampaignArguments {
    /// Kills or faults
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub count: u64,
    /// Accounts of the generated day
    #[arg(
        long, value_name = "N", default_value_t = 2_000,
        value_parser = clap::value_parser!(u32).range(100..=1_000_000)
    )]
    pub day_accounts: u32,
}

/// Of `kills`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  tidegate-bench kills --count 100 --seed 7")]
pub struct KillsArguments {
    /// How much
    #[command(flatten)]
    pub size: CampaignArguments,
    /// With the tie between data and progress cut: must report differences
    #[arg(long)]
    pub control: bool,
    /// Over topics of a broker that is started for it, instead of files
    #[arg(long)]
    pub kafka: bool,
}

/// Of `faults`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  tidegate-bench faults --count 100 --seed 7")]
pub struct FaultsArguments {
    /// How much
    #[command(flatten)]
    pub size: CampaignArguments,
}

/// What `kafka` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KafkaPart {
    /// Latency of engine and floor, in pairs
    Latency,
    /// The same over lengths of an epoch
    Epochs,
    /// The same over rates, up to the knee
    Rates,
    /// A backlog drained: alerts, and all five dataflows
    Drain,
    /// A backlog with 1 % bad messages, beside clean ones
    Poison,
    /// kill -9 to the first newly committed output
    Recovery,
}

impl KafkaPart {
    /// All of them.
    pub const ALL: [KafkaPart; 6] = [
        KafkaPart::Latency,
        KafkaPart::Epochs,
        KafkaPart::Rates,
        KafkaPart::Drain,
        KafkaPart::Poison,
        KafkaPart::Recovery,
    ];
}

/// What `replay` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReplayPart {
    /// Decoding against reading rows: JSON, Avro, the replay log, bincode, columnar
    Rows,
    /// The program over files; and twice as many entries, for its memory
    Files,
    /// The program over topics of a broker that is started for it
    Kafka,
}

/// Of which format values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KafkaFormat {
    /// Avro, with schemas in a registry
    Avro,
    /// JSON
    Json,
}

/// Of `kafka`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  tidegate-bench kafka latency epochs --pairs 5 --save")]
pub struct KafkaArguments {
    /// What is measured; without one, everything
    pub parts: Vec<KafkaPart>,
    /// Entries a second
    #[arg(
        long, value_name = "N", default_value_t = 5_000,
        value_parser = clap::value_parser!(u64).range(100..=1_000_000)
    )]
    pub entry_rate: u64,
    /// Accounts of state
    #[arg(
        long, value_name = "N", default_value_t = 100_000,
        value_parser = clap::value_parser!(u32).range(100..=9_999_999)
    )]
    pub state_accounts: u32,
    /// Accounts of state where recovery is measured
    #[arg(
        long, value_name = "N", default_value_t = 1_000_000,
        value_parser = clap::value_parser!(u32).range(100..=9_999_999)
    )]
    pub recovery_accounts: u32,
    /// Length of an epoch, milliseconds
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub epoch_ms: u64,
    /// Lengths of an epoch for `epochs`, milliseconds
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = [1, 5, 10, 20, 50, 100])]
    pub epochs_ms: Vec<u64>,
    /// `rates` are doubled up to this, entries a second
    #[arg(long, value_name = "N", default_value_t = 160_000)]
    pub rate_most: u64,
    /// Length of a run that counts, seconds; half of it in sweeps
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub counted: u64,
    /// Warm-up before it, seconds
    #[arg(long, value_name = "N", default_value_t = 15)]
    pub uncounted: u64,
    /// Runs of engine and floor each; of clean and bad backlogs each
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub pairs: u64,
    /// Messages of a backlog
    #[arg(long, value_name = "N", default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    pub backlog: u64,
    /// Kills
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub kills: u64,
    /// Format of all values
    #[arg(long, value_enum, default_value_t = KafkaFormat::Avro)]
    pub format: KafkaFormat,
    /// Partitions of every topic
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub partitions: u32,
    /// Producers that the floor uses in turn
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub floor_producers: usize,
    /// Uses the cluster that lives there (`broker up --bench --dir DIR`), warm from earlier runs
    #[arg(long, value_name = "DIR")]
    pub cluster: Option<PathBuf>,
    /// A line of the job file's `[kafka]` section, to try a setting of the client
    #[arg(long, value_name = "LINE")]
    pub kafka: Vec<String>,
}

impl KafkaArguments {
    /// A smoke test of the same parts.
    pub fn quick(&self) -> KafkaArguments {
        KafkaArguments {
            state_accounts: (self.state_accounts / QUICK as u32).max(100),
            recovery_accounts: (self.recovery_accounts / QUICK as u32).max(100),
            epochs_ms: self.epochs_ms.iter().copied().take(2).collect(),
            rate_most: self.entry_rate,
            counted: (self.counted / QUICK).max(2),
            uncounted: (self.uncounted / QUICK).max(2),
            pairs: 1,
            backlog: (self.backlog / QUICK).max(1_000),
            kills: (self.kills / QUICK).max(1),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn defaults_are_the_canonical_workload() {
        let arguments = Arguments::try_parse_from(["tidegate-bench"]).expect("no argument is needed");
        assert!(arguments.command.is_none());
        let size = arguments.scale.effective().size(Part::Alerts, 100_000);
        assert_eq!(
            size,
            Size {
                seed: 1,
                accounts: 1_000_000,
                records: 4_000_000,
                step: 100_000
            }
        );
        assert_eq!(
            (arguments.scale.steps, arguments.scale.workers),
            (vec![100_000, 1_000], vec![1, 2])
        );
    }

    #[test]
    fn quick_divides_and_flags_may_follow_the_command() {
        let words = [
            "tidegate-bench",
            "alerts",
            "--quick",
            "--records",
            "40000",
            "--steps",
            "100,20",
            "--warm-up",
            "99",
        ];
        let arguments = Arguments::try_parse_from(words).expect("good words");
        let scale = arguments.scale.effective();
        assert_eq!(
            (scale.accounts, scale.records, scale.steps.clone()),
            (50_000, 2_000, vec![5, 1])
        );
        assert!(
            scale.schedule().warm_up < scale.schedule().seconds,
            "something is counted"
        );
    }

    #[test]
    fn kills_have_their_own_flags() {
        let words = [
            "tidegate-bench",
            "kills",
            "--count",
            "500",
            "--control",
            "--seed",
            "7",
        ];
        let arguments = Arguments::try_parse_from(words).expect("good words");
        assert_eq!(arguments.scale.seed, 7);
        assert!(
            matches!(arguments.command, Some(Command::Kills(kills)) if kills.size.count == 500 && kills.control)
        );
        assert!(Arguments::try_parse_from(["tidegate-bench", "alerts", "--records", "0"]).is_err());
    }
}

//! The command line: what can be asked of `tidegate`, as plain data. Parsing it does no I/O.

use chrono::DateTime;
use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};
use std::path::PathBuf;
use tidegate::time::{EVENT_TIMES, Millis};
use tracing::level_filters::LevelFilter;

/// Shown below `--help`; the numbers are those of `tidegate::error::Kind`.
const EXIT_CODES: &str = "\
Exit codes:
    0  done
    2  usage: the command line is wrong
    3  configuration: the job file is wrong, nothing was started
    4  input gone: missing, shorter than it was, or replaced
    5  state damaged: damaged, stale or another job's
    6  another instance holds the job, or took it over
    7  a durable write failed: disk full, read-only, permission
    8  fenced: a later instance has taken the job over
    9  unreachable: a broker, registry, object store or process of the cluster cannot be reached, or refuses us
   10  peer lost: another process of the cluster has ended or fallen silent; it is the cause
   11  stalled: a worker makes no progress
   12  differs: a verification has found something else than was committed
   70  internal: a bug of ours
  130  stopped by a second Ctrl-C, without draining

Examples:
  tidegate demo
  tidegate generate --out day && tidegate run day/job.toml --workers 2";

/// Exactly-once dataflows over files and topics: maintained collections in, committed messages out.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, after_help = EXIT_CODES)]
pub struct Arguments {
    /// Least level of log lines on standard error [default: info for what changes something, else warn or error]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log: Option<LogLevel>,
    /// Form of log lines
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Levels of log lines, by who has to act on them.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogLevel {
    /// Nothing at all.
    Off,
    /// The job stopped.
    Error,
    /// Someone should look at it soon.
    Warn,
    /// The life of a job in a few lines.
    Info,
    /// For whoever looks for a bug.
    Debug,
    /// Everything.
    Trace,
}

/// Forms of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs a job: to the end of its files, or for as long as they grow
    Run(RunArguments),
    /// Runs a job in several processes of this machine, watches them, and starts them again when one dies
    Cluster(LaunchArguments),
    /// Runs a span of history through the job's dataflows, to a place of its own
    Replay(ReplayArguments),
    /// Prints what a recorded span would have given under other settings: the difference to what was sent
    Whatif(WhatIfArguments),
    /// Says what a job file means, or everything that is wrong with it, without running it
    Check(CheckArguments),
    /// Prints the dataflow graph of a job with the names of its operators
    Graph(GraphArguments),
    /// Prints how far a job has come: outputs, inputs, checkpoints; with topics also lag and who holds it
    Status(StatusArguments),
    /// Shows the topics a job needs and what is wrong with them; creates what is missing
    Topics(TopicsArguments),
    /// Writes JSON lines to the topics of a job's inputs, or to any topic
    Produce(ProduceArguments),
    /// Prints the committed messages of a topic as JSON lines
    Consume(ConsumeArguments),
    /// Writes a seeded day of bank traffic as JSON lines, and a job file that runs all dataflows on it
    Generate(GenerateArguments),
    /// Generates a day, runs all dataflows on it with two workers, and shows what came out
    Demo(DemoArguments),
}

/// Of `run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tidegate run day/job.toml --workers 2\n  \
    TIDEGATE_CLUSTER_SECRET=... tidegate run day/job.toml --processes 2 --process 0 --hosts hosts.txt")]
pub struct RunArguments {
    /// The job file
    pub job: PathBuf,
    /// Worker threads; the results do not depend on it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u16).range(1..=256))]
    pub workers: u16,
    /// How it starts
    #[command(flatten)]
    pub start: StartArguments,
    /// Prints the final summary as JSON
    #[arg(long)]
    pub json: bool,
    /// The cluster this process belongs to
    #[command(flatten)]
    pub cluster: ClusterArguments,
}

/// How a job starts, in one process or several.
#[derive(Debug, Args)]
pub struct StartArguments {
    /// Goes on reading as the files grow, until Ctrl-C
    #[arg(long)]
    pub follow: bool,
    /// Appends to output files that were there before the job's first start, instead of refusing them
    #[arg(long)]
    pub append: bool,
    /// Fences an instance of the job that is alive, instead of leaving it alone; for outputs in Kafka
    #[arg(long)]
    pub take_over: bool,
    /// Passes over messages that retention has removed before they were read, instead of refusing
    #[arg(long)]
    pub accept_gap: bool,
}

/// Of one process of several that run a job together.
#[derive(Debug, Args)]
#[command(next_help_heading = "Several processes")]
pub struct ClusterArguments {
    /// So many processes run the job together, each with --workers threads
    #[arg(long, value_name = "P", default_value_t = 1, value_parser = value_parser!(u16).range(1..=256))]
    pub processes: u16,
    /// Which of them this one is; 0 leads
    #[arg(long, value_name = "I", default_value_t = 0)]
    pub process: u16,
    /// Their addresses, one `host:port` a line, that of process 0 first
    #[arg(long, value_name = "FILE")]
    pub hosts: Option<PathBuf>,
    /// Counts the starts of the cluster: processes of another one are turned away
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub generation: u64,
    /// The process id of the `tidegate cluster` that has started this one (workers/launched.rs)
    #[arg(long, hide = true, value_name = "PID")]
    pub launcher: Option<u32>,
    /// The addresses of all processes; standard input is the listening socket of this one's
    #[arg(long, hide = true, value_name = "ADDRESS,...", requires = "launcher")]
    #[arg(value_delimiter = ',', conflicts_with = "hosts")]
    pub addresses: Vec<String>,
}

/// Of `cluster`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidegate cluster day/job.toml --processes 2 --workers 2")]
pub struct LaunchArguments {
    /// The job file
    pub job: PathBuf,
    /// Processes, on this machine; the results do not depend on it
    #[arg(long, value_name = "P", default_value_t = 2, value_parser = value_parser!(u16).range(1..=256))]
    pub processes: u16,
    /// Worker threads of each process
    #[arg(long, value_name = "W", default_value_t = 1, value_parser = value_parser!(u16).range(1..=256))]
    pub workers: u16,
    /// How it starts
    #[command(flatten)]
    pub start: StartArguments,
    /// Prints the status every second and the final summary as JSON, one object a line
    #[arg(long)]
    pub json: bool,
}

/// Of `replay`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate replay day/job.toml --from 2026-01-01T08:00:00Z --to 2026-01-01T09:00:00Z --into morning
  tidegate replay bank/job.toml --from 1767254400000 --output-suffix -again --workers 2
  tidegate replay day/job.toml --verify
  tidegate replay day/job.toml --into again --cache decoded
  tidegate replay bank/job.toml --offsets account-entries/0=1000..2000 --output-suffix -thousand")]
pub struct ReplayArguments {
    /// The job file
    pub job: PathBuf,
    /// First time of the span: RFC 3339, or milliseconds since 1970 [default: the beginning]. Event time in
    /// files; message time in topics
    #[arg(long, value_name = "T", value_parser = time)]
    pub from: Option<Millis>,
    /// First time behind the span [default: the end]
    #[arg(long, value_name = "T", value_parser = time)]
    pub to: Option<Millis>,
    /// Writes the output files, under their own names, and the replay's state to this directory
    #[arg(long, value_name = "DIR")]
    #[arg(required_unless_present_any = ["output_suffix", "verify"], conflicts_with = "output_suffix")]
    pub into: Option<PathBuf>,
    /// Writes to topics and files with this behind their names; topics are created
    #[arg(long, value_name = "SUFFIX", allow_hyphen_values = true)]
    pub output_suffix: Option<String>,
    /// Takes the epochs of the live run again, as they are recorded: needs `history = true` for a span long past
    #[arg(long)]
    pub recorded: bool,
    /// Takes the recorded epochs again and compares every output with what was committed; writes nothing
    #[arg(long, conflicts_with_all = ["into", "output_suffix", "offsets"])]
    pub verify: bool,
    /// Compares an output with a copy of it: another file, or another topic; may be repeated
    #[arg(long, value_name = "OUTPUT=PLACE", requires = "verify")]
    pub against: Vec<String>,
    /// Reads these offsets of a topic of events, and no other partition of it; may be repeated
    #[arg(long, value_name = "TOPIC/PARTITION=FIRST..END", conflicts_with = "recorded")]
    pub offsets: Vec<String>,
    /// Keeps decoded messages in this directory, and reads them there instead of from files and topics
    #[arg(long, value_name = "DIR", conflicts_with_all = ["recorded", "verify"])]
    pub cache: Option<PathBuf>,
    /// Worker threads; the results do not depend on it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u16).range(1..=256))]
    pub workers: u16,
    /// Prints the final summary as JSON
    #[arg(long)]
    pub json: bool,
}

/// Of `whatif`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate whatif day/job.toml --set risk_pattern.limit=500000
  tidegate whatif bank/job.toml --settings new.jsonl --from 2026-01-31T00:00:00Z --list
A file of alert settings has a line {\"key\":\"<customer>\",\"value\":{...}} for each customer; a null removes them.")]
pub struct WhatIfArguments {
    /// The job file
    pub job: PathBuf,
    /// Another value of a setting of a dataflow, as the job file names it; may be repeated
    #[arg(long, value_name = "DATAFLOW.KEY=VALUE")]
    pub set: Vec<String>,
    /// Other alert settings, JSON lines: they hold for the whole span, for the customers that the file names
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
    /// First time of the span: RFC 3339, or milliseconds since 1970 [default: the beginning]
    #[arg(long, value_name = "T", value_parser = time)]
    pub from: Option<Millis>,
    /// First time behind the span [default: the end]
    #[arg(long, value_name = "T", value_parser = time)]
    pub to: Option<Millis>,
    /// Worker threads; the results do not depend on it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u16).range(1..=256))]
    pub workers: u16,
    /// Prints the messages as well
    #[arg(long)]
    pub list: bool,
    /// Prints the messages alone, as JSON lines
    #[arg(long, conflicts_with = "list")]
    pub json: bool,
}

/// A time on the command line, milliseconds since the Unix epoch.
fn time(text: &str) -> Result<Millis, String> {
    let time = match text.parse() {
        Ok(millis) => millis,
        Err(_) => DateTime::parse_from_rfc3339(text)
            .map_err(|_| "a time such as 2026-01-31T00:00:00Z is wanted, or milliseconds".to_owned())?
            .timestamp_millis(),
    };
    match EVENT_TIMES.contains(&time) {
        true => Ok(time),
        false => Err("outside the years 1970 to 9999".to_owned()),
    }
}

/// Of `check`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidegate check day/job.toml")]
pub struct CheckArguments {
    /// The job file
    pub job: PathBuf,
    /// Prints JSON
    #[arg(long)]
    pub json: bool,
}

/// Of `graph`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidegate graph day/job.toml --dot | dot -Tsvg > graph.svg")]
#[group(skip)]
pub struct GraphArguments {
    /// The job file
    pub job: PathBuf,
    /// As Mermaid, for a README [the default]
    #[arg(long, group = "form")]
    pub mermaid: bool,
    /// As Graphviz DOT
    #[arg(long, group = "form")]
    pub dot: bool,
    /// As JSON
    #[arg(long, group = "form")]
    pub json: bool,
}

/// Of `status`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidegate status day/job.toml --json")]
pub struct StatusArguments {
    /// The job file
    pub job: PathBuf,
    /// Prints JSON
    #[arg(long)]
    pub json: bool,
}

/// Of `topics`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidegate topics bank/job.toml --create")]
pub struct TopicsArguments {
    /// The job file
    pub job: PathBuf,
    /// Creates the topics that are missing; tables and progress are compacted
    #[arg(long)]
    pub create: bool,
    /// Partitions of each topic that is created; the progress topic always has one
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = value_parser!(u32).range(1..=100_000))]
    pub partitions: u32,
    /// Replicas of each topic that is created [default: the broker's]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=100))]
    pub replication: Option<u32>,
    /// Prints JSON
    #[arg(long)]
    pub json: bool,
}

/// Of `produce`.
#[derive(Debug, Args)]
#[command(
    override_usage = "tidegate produce [OPTIONS] JOB.toml INPUT [FILE]...\n       \
                      tidegate produce [OPTIONS] JOB.toml --all DIR\n       \
                      tidegate produce [OPTIONS] --brokers HOST:PORT TOPIC [FILE]...",
    after_help = "Example:\n  tidegate produce bank/job.toml entries bank/entries-0.jsonl\n  \
                  tidegate produce bank/job.toml --all bank --send-broken"
)]
pub struct ProduceArguments {
    /// The job file; with --brokers the topic
    #[arg(value_name = "JOB.toml|TOPIC")]
    pub target: String,
    /// The input of the job, unless --brokers or --all; then files of JSON lines [default: standard input]
    #[arg(value_name = "INPUT|FILE")]
    pub names: Vec<String>,
    /// Writes to every input that is a topic what lies in the files INPUT-*.jsonl of this directory, tables first
    #[arg(long, value_name = "DIR", conflicts_with_all = ["names", "brokers"])]
    pub all: Option<PathBuf>,
    /// Where the topic is, without encryption; a secured cluster takes a job file
    #[arg(long, value_name = "HOST:PORT,...")]
    pub brokers: Option<String>,
    /// Sends a line that is no message as it stands, without a key: it will be a dead letter
    #[arg(long)]
    pub send_broken: bool,
    /// Messages a second at most
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..=100_000_000))]
    pub rate: Option<u64>,
    /// Prints the summary as JSON
    #[arg(long)]
    pub json: bool,
}

/// Of `consume`.
#[derive(Debug, Args)]
#[command(
    override_usage = "tidegate consume [OPTIONS] JOB.toml OUTPUT\n       \
                      tidegate consume [OPTIONS] --brokers HOST:PORT TOPIC",
    after_help = "Example:\n  tidegate consume bank/job.toml email --count 10"
)]
pub struct ConsumeArguments {
    /// The job file; with --brokers the topic
    #[arg(value_name = "JOB.toml|TOPIC")]
    pub target: String,
    /// The output, or input, of the job; not with --brokers
    #[arg(
        value_name = "OUTPUT",
        required_unless_present = "brokers",
        conflicts_with = "brokers"
    )]
    pub name: Option<String>,
    /// Where the topic is, without encryption; a secured cluster takes a job file
    #[arg(long, value_name = "HOST:PORT,...")]
    pub brokers: Option<String>,
    /// Ends after so many messages [default: goes on until Ctrl-C]
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Ends at the end of what is committed
    #[arg(long)]
    pub to_end: bool,
}

/// How much traffic a generated day has. Every count defaults to a multiple of `--accounts`.
#[derive(Clone, Debug, Args)]
pub struct DaySize {
    /// Equal seeds and sizes give equal bytes
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Accounts; as many customers, card users and order keys
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    #[arg(value_parser = value_parser!(u32).range(2..=9_999_999))]
    pub accounts: u32,
    /// Account entries [default: 5 per account]
    #[arg(long, value_name = "N")]
    pub entries: Option<u64>,
    /// Changes to the three tables during the day [default: 1 per 100 entries]
    #[arg(long, value_name = "N")]
    pub changes: Option<u64>,
    /// Orders, and about as many payments [default: 3 per account]
    #[arg(long, value_name = "N")]
    pub orders: Option<u64>,
    /// Card transactions [default: 3 per account]
    #[arg(long, value_name = "N")]
    pub transactions: Option<u64>,
    /// Events [default: 3 per account]
    #[arg(long, value_name = "N")]
    pub events: Option<u64>,
}

/// Of `generate`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidegate generate --seed 7 --accounts 1000 --out day")]
pub struct GenerateArguments {
    /// Size and seed.
    #[command(flatten)]
    pub size: DaySize,
    /// Partitions, that is files, of each event input
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = value_parser!(u32).range(1..=1000))]
    pub partitions: u32,
    /// Partitions of each table
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = value_parser!(u32).range(1..=1000))]
    pub table_partitions: u32,
    /// Writes a job file whose inputs and outputs are topics, at the brokers that the variable KAFKA names
    #[arg(long)]
    pub kafka: bool,
    /// Writes a job file whose job keeps its past, for `replay --recorded`, `replay --verify` and `whatif`
    #[arg(long)]
    pub history: bool,
    /// The directory to write to; new or empty
    #[arg(long, value_name = "DIR", default_value = "day")]
    pub out: PathBuf,
}

/// Of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidegate demo --accounts 10000")]
pub struct DemoArguments {
    /// Size and seed.
    #[command(flatten)]
    pub size: DaySize,
    /// Worker threads
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = value_parser!(u16).range(1..=256))]
    pub workers: u16,
    /// The directory to write to; new, empty, or an earlier demo's, which is replaced
    #[arg(long, value_name = "DIR", default_value = "demo")]
    pub out: PathBuf,
    /// Prints the final table as JSON
    #[arg(long)]
    pub json: bool,
}

impl Arguments {
    /// The log level asked for, or else the one that suits the command.
    pub fn level(&self) -> LevelFilter {
        match self.log {
            Some(LogLevel::Off) => LevelFilter::OFF,
            Some(LogLevel::Error) => LevelFilter::ERROR,
            Some(LogLevel::Warn) => LevelFilter::WARN,
            Some(LogLevel::Info) => LevelFilter::INFO,
            Some(LogLevel::Debug) => LevelFilter::DEBUG,
            Some(LogLevel::Trace) => LevelFilter::TRACE,
            None => match self.command {
                // What they have to say is in their results, and a failure is one line.
                Command::Check(_) | Command::Graph(_) | Command::Status(_) | Command::Topics(_) => {
                    LevelFilter::ERROR
                }
                Command::Consume(_) => LevelFilter::WARN,
                Command::Run(_)
                | Command::Cluster(_)
                | Command::Replay(_)
                | Command::Whatif(_)
                | Command::Produce(_)
                | Command::Generate(_)
                | Command::Demo(_) => LevelFilter::INFO,
            },
        }
    }

    /// The options that a process started by this one takes over.
    pub fn passed_on(&self) -> Vec<String> {
        let format = match self.log_format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        let level = self.level().to_string().to_lowercase();
        vec![format!("--log={level}"), format!("--log-format={format}")]
    }
}

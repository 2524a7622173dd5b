//! `tidegate-bench broker`, and `scripts/kafka`: a cluster that outlives the command, in a directory by which it
//! is found again.
//!
//! `up` brings a cluster to where it answers, whatever there was: nothing, one that runs, one whose processes
//! have ended. What it prints can be taken over by a shell, as variables.

use crate::broker::{Brokers, Node, Options, default_directory};
use crate::process::resident_in;
use clap::Subcommand;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// What becomes of a cluster.
#[derive(Clone, Debug, Subcommand)]
pub enum BrokerAction {
    /// Starts a cluster, waits until it answers, prints its addresses and leaves it running
    Up {
        /// Brokers: 1, or 3 that keep everything three times
        #[arg(long, value_name = "N", default_value_t = 1)]
        brokers: usize,
        /// Starts a schema registry too
        #[arg(long)]
        registry: bool,
        /// Adds encrypted listeners, users and rights
        #[arg(long)]
        secure: bool,
        /// With the heap and compiler that Kafka gives a broker by default, for measurements
        #[arg(long)]
        bench: bool,
        /// Where it lives: an empty directory; by default `cluster` in the cache
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Kills a cluster and removes its directory
    Down {
        /// Where it lives
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Prints a cluster's addresses and processes
    Status {
        /// Where it lives
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// Does it, and gives what is to be printed.
pub fn run(action: &BrokerAction) -> Result<String, String> {
    let at = |directory: &Option<PathBuf>| directory.clone().map_or_else(default_directory, Ok);
    match action {
        BrokerAction::Up {
            brokers,
            registry,
            secure,
            bench,
            dir,
        } => up(&Options {
            count: *brokers,
            registry: *registry,
            secure: *secure,
            is_bench: *bench,
            proxy: None,
            directory: Some(at(dir)?),
        }),
        BrokerAction::Down { dir } => down(&at(dir)?),
        BrokerAction::Status { dir } => status(&at(dir)?),
    }
}

fn up(options: &Options) -> Result<String, String> {
    let directory = options.directory.clone().unwrap_or_default();
    let is_new = std::fs::read_dir(&directory).map_or(true, |mut entries| entries.next().is_none());
    if is_new {
        let brokers = Brokers::start(options)?;
        let addresses = brokers.describe();
        brokers.leave_running()?;
        say(&format!(
            "It runs until `scripts/kafka down`, in {}",
            directory.display()
        ));
        return Ok(addresses);
    }
    let Some(brokers) = Brokers::open(&directory)? else {
        return Err(format!("{} has just gone: try again", directory.display()));
    };
    if brokers.nodes().iter().all(|(_, pid)| pid.is_some()) {
        say(&format!(
            "It is already up, as it was started, in {}",
            directory.display()
        ));
    } else {
        brokers.restart_all()?;
        say(&format!(
            "What had ended runs again, as it was started, in {}",
            directory.display()
        ));
    }
    Ok(brokers.describe())
}

fn down(directory: &Path) -> Result<String, String> {
    match Brokers::open(directory)? {
        None => Ok(format!("nothing is up in {}", directory.display())),
        Some(brokers) => {
            brokers.down()?;
            Ok(format!("down, and {} removed", directory.display()))
        }
    }
}

fn status(directory: &Path) -> Result<String, String> {
    let Some(brokers) = Brokers::open(directory)? else {
        return Ok(format!("nothing is up in {}", directory.display()));
    };
    let mut text = brokers.describe();
    for (node, pid) in brokers.nodes() {
        let name = match node {
            Node::Broker(number) => format!("broker {number}"),
            Node::Registry => "registry".to_owned(),
        };
        let state = pid.map_or("has ended".to_owned(), |pid| {
            let memory = resident_in(pid).now / (1 << 20);
            format!("process {pid}, {memory} MiB resident")
        });
        text += &format!("{name}: {state}\n");
    }
    Ok(text)
}

/// Beside the addresses, to standard error.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}"); // nobody is left to tell of a closed terminal
}

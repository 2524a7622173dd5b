//! `scripts/kafka`: a real Kafka cluster, up and down, without building what the benchmark measures.
//!
//! The same as `tidegate-bench broker`. Exit codes: 0 done, 1 it failed, 2 usage.

#[allow(dead_code, reason = "the benchmark includes this file too and uses the rest")]
mod broker;
mod broker_command;
#[allow(dead_code, reason = "the benchmark includes this file too and uses the rest")]
mod process;

use broker_command::BrokerAction;
use clap::Parser;
use std::io::Write as _;
use std::process::ExitCode;

/// A real Kafka cluster and schema registry on this machine.
#[derive(Debug, Parser)]
#[command(name = "scripts/kafka")]
struct Arguments {
    /// What becomes of it.
    #[command(subcommand)]
    action: BrokerAction,
}

fn main() -> ExitCode {
    let done = broker_command::run(&Arguments::parse().action);
    let said = done.and_then(|text| {
        let printed = writeln!(std::io::stdout(), "{}", text.trim_end());
        printed.map_err(|error| format!("standard output: {error}"))
    });
    match said {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}"); // nobody is left to tell of a closed terminal
            ExitCode::FAILURE
        }
    }
}

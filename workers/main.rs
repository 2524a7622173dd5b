//! The program `tidegate`: one match on the subcommand.
//!
//! Results go to standard output ([`print`]), logs and errors to standard error. The exit code says what the
//! person at the terminal has to do about a failure (`tidegate::error::Kind`; `tidegate --help` lists them).

mod arguments;
mod check;
mod cluster;
mod consume;
mod demo;
mod generate;
mod graph;
mod job;
mod launched;
mod membership;
mod plan;
mod print;
mod produce;
mod progress;
mod replay;
mod run;
mod status;
mod topics;
mod what_if;

use arguments::{Arguments, Command, LogFormat};
use clap::Parser as _;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use tidegate::error::Result;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_logging(&arguments);
    match obey(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}"); // nobody is left to tell of a closed terminal
            ExitCode::from(error.kind as u8)
        }
    }
}

fn obey(arguments: &Arguments) -> Result<()> {
    match &arguments.command {
        Command::Cluster(launch) => cluster::cluster(launch, arguments.passed_on()),
        Command::Check(arguments) => check::check(arguments),
        Command::Generate(arguments) => generate::generate(arguments),
        Command::Run(arguments) => run::run(arguments),
        Command::Replay(arguments) => replay::replay(arguments),
        Command::Whatif(arguments) => what_if::what_if(arguments),
        Command::Graph(arguments) => graph::graph(arguments),
        Command::Status(arguments) => status::status(arguments),
        Command::Topics(arguments) => topics::topics(arguments),
        Command::Produce(arguments) => produce::produce(arguments),
        Command::Consume(arguments) => consume::consume(arguments),
        Command::Demo(arguments) => demo::demo(arguments),
    }
}

/// Log lines go to standard error, in the form and from the level asked for.
fn start_logging(arguments: &Arguments) {
    let is_terminal = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(arguments.level())
        .log_internal_errors(false); // it would panic where standard error is closed or full
    match arguments.log_format {
        LogFormat::Text => lines.with_target(false).with_ansi(is_terminal).init(),
        LogFormat::Json => lines.json().init(),
    }
}

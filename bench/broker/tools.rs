//! Kafka's own command-line tools, each a class run by `java`.
//!
//! What they find is the broker's doing, not that of the client library that is under test. A start takes
//! about a second of CPU.

use super::cache;
use super::member::{missing, outcome};
use std::io::Write as _;
use std::process::{Command, Stdio};

/// Classes of Kafka's tools, for [`tool`] and [`java`].
pub mod class {
    /// Rights: `--add --allow-principal User:.. --operation ..`, `--list`.
    pub const ACLS: &str = "org.apache.kafka.tools.AclCommand";
    /// Settings of topics, brokers and users: `--alter --entity-type .. --entity-name .. --add-config ..`.
    pub const CONFIGS: &str = "kafka.admin.ConfigCommand";
    /// Prints records: `--topic .. --from-beginning --max-messages .. --isolation-level read_committed`.
    pub const CONSUMER: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";
    /// Truncates partitions from the front: `--offset-json-file ..`.
    pub const DELETE_RECORDS: &str = "org.apache.kafka.tools.DeleteRecordsCommand";
    /// Ends of partitions: `--topic ..`, `--time ..`.
    pub const OFFSETS: &str = "org.apache.kafka.tools.GetOffsetShell";
    /// Sends the lines of its standard input: `--topic ..`.
    pub const PRODUCER: &str = "org.apache.kafka.tools.ConsoleProducer";
    /// Topics: `--create --topic .. --partitions ..`, `--describe`, `--delete`, `--list`.
    pub const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
    /// Transactions: `list`, `describe`, `find-hanging`, `abort`.
    pub const TRANSACTIONS: &str = "org.apache.kafka.tools.TransactionsCommand";
}

/// A tool runs for a second: what its compiler would gain it does not live to use.
const TOOL_FLAGS: &[&str] = &["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];

/// Runs one of Kafka's tools with lines for its standard input, and gives what it printed.
pub fn tool(class: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut command = java(class)?;
    let pipes = command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = pipes.spawn().map_err(|error| missing(&command, &error))?;
    let pipe = child.stdin.take();
    let output = std::thread::scope(|scope| {
        // Beside the reading: neither pipe holds all of what may go through it. A tool that does not read to
        // the end has its own reasons, and its own exit code.
        scope.spawn(move || pipe.map(|mut pipe| pipe.write_all(input.as_bytes())));
        child.wait_with_output()
    });
    outcome(&command, output.map_err(|error| format!("{class}: {error}"))?)
}

/// One of Kafka's tools, ready to be given arguments and started: for one that runs beside a test.
pub fn java(class: &str) -> Result<Command, String> {
    let mut command = Command::new("java");
    command
        .args(TOOL_FLAGS)
        .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=error");
    command.args(["-cp", &cache::kafka()?, class]);
    Ok(command)
}

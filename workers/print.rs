//! Results go to standard output, and only from here; logs go to standard error.
//!
//! A reader that has gone away (`tidegate check job.toml | head -1`) is no failure: it has seen what it
//! wanted.

use std::io::{ErrorKind, Write};
use tidegate::error::{Error, Kind, Result};

/// Writes a result to standard output.
pub fn print(text: &str) -> Result<()> {
    print_on(text).map(drop)
}

/// Writes a part of a long result; whether anybody still reads it.
pub fn print_on(text: &str) -> Result<bool> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::new(Kind::WriteFailed, format!("standard output: {error}"))),
    }
}

/// Writes a result to standard output as JSON, indented.
pub fn print_json(value: &serde_json::Value) -> Result<()> {
    print(&format!("{value:#}\n"))
}

//! Results go to standard output, and only from here; logs go to standard error.
//!
//! A reader that has gone away (`tidegate check job.toml | head -1`) is no failure: it has seen what it
//! wanted.

use std::io::{ErrorKind, Write};
use tidegate::error::{Error, Kind, Result};

/// Writes a result to standard output.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::new(Kind::WriteFailed, format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a result to standard output as JSON, indented.
pub fn print_json(value: &serde_json::Value) -> Result<()> {
    print(&format!("{value:#}\n"))
}

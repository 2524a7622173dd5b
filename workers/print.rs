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

/// Rows as aligned columns: every column but the last is as wide as its widest cell, two spaces between.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

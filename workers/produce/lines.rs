//! The lines of several files as one sequence: in order of time where there is one, else file after file.
//!
//! ```text
//!  entries-0  t=1 ─ t=4 ─ t=3 ─ t=9      as of:  1 4 4 9
//!  entries-1  t=2 ─ t=8                  as of:  2 8          ─►  1 2 4 3 8 9
//! ```
//!
//! The time of a line is that of its record, or of its message for a table; the **as-of time** is the greatest up to
//! and including it in its file. The line with the least one comes next, of equal ones that of the first file.
//! So every file keeps its own order, and no record is later, behind those before it, than it was in its own
//! file. A line without a time goes with the one before it, and so does one that is no valid record, whatever time
//! it claims.
//!
//! Lines end with LF, a CR before it belongs to the end; the last one may lack both. Refused: a line longer than
//! 64 MiB, which no broker takes.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::PathBuf;
use tidegate::error::{Error, Kind, Result};
use tidegate::format::json;
use tidegate::time::{BEFORE_ALL, Millis};
use tidegate_dataflows::values::Values;

/// Bytes read at once.
const BUFFER_BYTES: usize = 1 << 18;
/// Longest line, bytes.
const LINE_BYTES: u64 = 64 << 20;

/// Where lines come from.
pub enum Source {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

/// What the time of a line is.
#[derive(Clone, Copy)]
pub enum Time {
    /// Nothing: file after file.
    None,
    /// `timestamp`.
    Message,
    /// The record's.
    Event(Values),
}

/// A line, and where it stands.
pub struct Line<'a> {
    /// Name of the file.
    pub source: &'a str,
    /// From 1.
    pub number: u64,
    /// Without its end.
    pub bytes: &'a [u8],
}

/// All lines.
pub struct Lines {
    files: Vec<OpenFile>,
    time: Time,
    /// The file whose line was given last.
    given: Option<usize>,
}

/// A file with the line that comes next.
struct OpenFile {
    name: String,
    reader: Box<dyn BufRead>,
    line: Vec<u8>,
    number: u64,
    as_of: Millis,
    ended: bool,
}

impl Lines {
    /// Opens all files.
    pub fn open(sources: Vec<Source>, time: Time) -> Result<Lines> {
        let mut files = Vec::new();
        for source in sources {
            let (name, reader): (_, Box<dyn BufRead>) = match source {
                Source::Stdin => (
                    "standard input".to_owned(),
                    Box::new(BufReader::new(std::io::stdin())),
                ),
                Source::File(path) => {
                    let name = path.display().to_string();
                    let file = File::open(&path).map_err(|error| unreadable(&name, &error))?;
                    (name, Box::new(BufReader::with_capacity(BUFFER_BYTES, file)))
                }
            };
            files.push(OpenFile {
                name,
                reader,
                line: Vec::new(),
                number: 0,
                as_of: BEFORE_ALL,
                ended: false,
            });
        }
        // One file has its order already.
        let time = if files.len() > 1 { time } else { Time::None };
        let mut lines = Lines {
            files,
            time,
            given: None,
        };
        for file in &mut lines.files {
            file.read_next(lines.time)?;
        }
        Ok(lines)
    }

    /// The next line; none after the last one.
    pub fn next_line(&mut self) -> Result<Option<Line<'_>>> {
        if let Some(given) = self.given {
            self.files[given].read_next(self.time)?;
        }
        let left = self.files.iter().enumerate().filter(|(_, file)| !file.ended);
        self.given = left.min_by_key(|(_, file)| file.as_of).map(|(index, _)| index);
        Ok(self.given.map(|index| {
            let file = &self.files[index];
            Line {
                source: &file.name,
                number: file.number,
                bytes: &file.line,
            }
        }))
    }
}

impl OpenFile {
    fn read_next(&mut self, time: Time) -> Result<()> {
        self.line.clear();
        let mut limited = (&mut self.reader).take(LINE_BYTES);
        let read = limited.read_until(b'\n', &mut self.line);
        let read = read.map_err(|error| unreadable(&self.name, &error))?;
        self.ended = read == 0;
        self.number += 1;
        let ends = self.line.pop_if(|byte| *byte == b'\n').is_some();
        if ends {
            self.line.pop_if(|byte| *byte == b'\r');
        } else if read as u64 == LINE_BYTES {
            let message = format!(
                "{}:{}: longer than {} MiB",
                self.name,
                self.number,
                LINE_BYTES >> 20
            );
            return Err(Error::new(Kind::InputGone, message));
        }
        let at = match time {
            Time::None => None,
            Time::Message => json::raw(&self.line).ok().and_then(|raw| raw.timestamp),
            Time::Event(values) => {
                let raw = json::raw(&self.line).ok();
                raw.and_then(|raw| values.event_time(&raw.key?, raw.value?))
            }
        };
        self.as_of = self.as_of.max(at.unwrap_or(BEFORE_ALL));
        Ok(())
    }
}

fn unreadable(name: &str, error: &std::io::Error) -> Error {
    Error::new(Kind::InputGone, format!("{name}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> OpenFile {
        OpenFile {
            name: name.to_owned(),
            reader: Box::new(std::io::Cursor::new(text.to_owned().into_bytes())),
            line: Vec::new(),
            number: 0,
            as_of: BEFORE_ALL,
            ended: false,
        }
    }

    /// All lines, each as `file:number`.
    fn order(files: Vec<OpenFile>, time: Time) -> Vec<String> {
        let (given, mut order) = (None, Vec::new());
        let mut lines = Lines { files, time, given };
        for file in &mut lines.files {
            file.read_next(time).expect("memory can be read");
        }
        while let Some(line) = lines.next_line().expect("memory can be read") {
            order.push(format!("{}:{}", line.source, line.number));
        }
        order
    }

    #[test]
    fn lines_of_several_files_come_in_order_of_as_of_time() {
        let line = |time: i64| {
            format!("{{\"key\":\"k\",\"value\":{{\"event_id\":\"e\",\"occurred_at\":{time}}}}}\n")
        };
        let a = [line(1), line(4), line(3), line(9)].concat();
        // The time of what is not valid is not believed: it would hold back the rest of its file.
        let b = [line(2), line(i64::MAX), line(8)].concat();
        let events = Time::Event(Values::of("Event").expect("events are known"));
        let files = || vec![file("a", &a), file("b", &b)];
        assert_eq!(
            order(files(), events),
            ["a:1", "b:1", "b:2", "a:2", "a:3", "b:3", "a:4"]
        );
        let one_by_one = ["a:1", "a:2", "a:3", "a:4", "b:1", "b:2", "b:3"];
        assert_eq!(order(files(), Time::None), one_by_one);
    }

    #[test]
    fn tables_are_ordered_by_message_time() {
        let line = |time: i64| format!("{{\"key\":\"k\",\"value\":null,\"timestamp\":{time}}}\n");
        let files = vec![file("a", &[line(5), line(7)].concat()), file("b", &line(6))];
        assert_eq!(order(files, Time::Message), ["a:1", "b:1", "a:2"]);
    }

    #[test]
    fn ends_of_lines_are_not_part_of_them() {
        let mut file = file("a", "x\r\n\r\n\ny\r");
        let mut seen = Vec::new();
        loop {
            file.read_next(Time::None).expect("memory can be read");
            if file.ended {
                break;
            }
            seen.push(String::from_utf8(file.line.clone()).expect("UTF-8"));
        }
        assert_eq!(seen, ["x", "", "", "y\r"]);
    }
}

//! What was committed to one output, as it lies there: lines of a file, messages of a topic by epoch.
//!
//! A file does not say which epoch a line is of: it is read from the byte at which the span begins, on and on.
//! A message of a topic says it in a header; all of the span are read before the comparison begins.

use super::Topic;
use super::align::Row;
use crate::error::{Error, Kind, Result};
use crate::kafka::Settings;
use crate::kafka::consumer::{Consumer, Event};
use crate::kafka::topics::Admin;
use crate::limits;
use crate::sink::message;
use crate::time::Epoch;
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Headers, as [`crate::sink::topics`] writes them.
const EPOCH: &CStr = c"tidegate-epoch";
const ORIGIN: &CStr = c"tidegate-origin";

/// Polls without an answer before a topic is given up.
const POLLS: usize = 100;

/// How long one poll waits.
const POLL: Duration = Duration::from_millis(100);

/// A file that is read from somewhere on.
pub struct Lines {
    path: PathBuf,
    file: File,
    /// The next byte that is given.
    pub position: u64,
    /// What was read ahead, from `position` on.
    buffer: Vec<u8>,
}

impl Lines {
    /// Opens a file at a byte.
    pub fn open(path: &Path, position: u64) -> Result<Lines> {
        let file = File::open(path).map_err(|error| unreadable(path, &error))?;
        Ok(Lines {
            path: path.to_owned(),
            file,
            position,
            buffer: Vec::new(),
        })
    }

    /// Takes the next bytes if they are these.
    pub fn take(&mut self, bytes: &[u8]) -> Result<bool> {
        while self.buffer.len() < bytes.len() && self.read()? {}
        let same = self.buffer.starts_with(bytes);
        if same {
            self.skip(bytes.len());
        }
        Ok(same)
    }

    /// The next line, with its end where it has one; none at the end of the file.
    pub fn next(&mut self) -> Result<Option<Row>> {
        let mut looked = 0;
        let end = loop {
            match self.buffer[looked..].iter().position(|byte| *byte == b'\n') {
                Some(end) => break looked + end + 1,
                None => looked = self.buffer.len(),
            }
            if !self.read()? {
                break self.buffer.len();
            }
        };
        if end == 0 {
            return Ok(None);
        }
        let row = line(self.buffer[..end].to_vec(), format!("byte {}", self.position));
        self.skip(end);
        Ok(Some(row))
    }

    fn skip(&mut self, bytes: usize) {
        self.buffer.drain(..bytes);
        self.position += bytes as u64;
    }

    /// Reads more; false at the end of the file.
    fn read(&mut self) -> Result<bool> {
        let (start, at) = (self.buffer.len(), self.position + self.buffer.len() as u64);
        self.buffer.resize(start + limits::BLOCK_BYTES, 0);
        let read = self.file.read_at(&mut self.buffer[start..], at);
        let read = read.map_err(|error| unreadable(&self.path, &error))?;
        self.buffer.truncate(start + read);
        Ok(read > 0)
    }
}

/// A line of an output file as a row.
pub fn line(bytes: Vec<u8>, place: String) -> Row {
    let text = String::from_utf8_lossy(&bytes);
    // Keys are written first, and end where the value begins.
    let key = text
        .split_once(",\"value\":")
        .map(|(key, _)| key.as_bytes().to_vec());
    let value = text.trim_end().as_bytes().to_vec();
    Row {
        key,
        value,
        place,
        bytes,
        ..Row::default()
    }
}

/// The messages of a shard's partitions of a topic in these epochs, by epoch and partition in order. One that
/// names no epoch is taken for the one before it in its partition.
pub fn messages(
    settings: &Settings,
    topic: &Topic,
    epochs: &Range<Epoch>,
) -> Result<BTreeMap<(Epoch, u32), Vec<Row>>> {
    let Topic {
        name: topic,
        shard,
        shards,
    } = topic;
    let admin = Admin::new(settings)?;
    let bounds = admin.bounds(topic, admin.partitions(topic)?)?;
    let mut consumer = Consumer::new(settings)?;
    let mut open = 0;
    for (partition, bounds) in (0..).zip(&bounds) {
        if partition % shards == *shard && bounds.first < bounds.end {
            consumer.assign(topic, partition, bounds.first)?;
            open += 1;
        }
    }
    let mut last = vec![0; bounds.len()];
    let (mut found, mut failure, mut silent) = (BTreeMap::<_, Vec<Row>>::new(), None, 0);
    while open > 0 && failure.is_none() && silent < POLLS {
        let count = consumer.poll(POLL, |event| match event {
            Event::Message {
                partition,
                offset,
                key,
                value,
                headers,
                ..
            } => {
                let epoch = headers
                    .get(EPOCH)
                    .and_then(|epoch| std::str::from_utf8(epoch).ok()?.parse().ok());
                let epoch = epoch.unwrap_or(last[partition as usize]);
                last[partition as usize] = epoch;
                if epochs.contains(&epoch) {
                    let origin = headers.get(ORIGIN).unwrap_or_default();
                    let row = message(partition, key, origin, value.unwrap_or_default());
                    let place = format!("{partition}/{offset}");
                    found.entry((epoch, partition)).or_default().push(Row {
                        place,
                        epoch: Some(epoch),
                        ..row
                    });
                }
            }
            Event::End { .. } => open -= 1,
            Event::Failed { failure: why, .. } => failure = Some(format!("{why:?}")),
        });
        silent = if count == 0 { silent + 1 } else { 0 };
    }
    match failure.or_else(|| consumer.trouble().refused()) {
        None if open == 0 => Ok(found),
        cause => {
            let cause = cause.unwrap_or_else(|| "no answer".to_owned());
            let message = format!("Kafka at {}: {topic} cannot be read: {cause}", settings.brokers);
            Err(Error::new(Kind::Unreachable, message))
        }
    }
}

/// A message of a topic as a row.
pub fn message(partition: u32, key: Option<&[u8]>, origin: &[u8], value: &[u8]) -> Row {
    let mut bytes = Vec::new();
    message::write_head(partition, key, origin, &mut bytes);
    bytes.extend_from_slice(value);
    Row {
        bytes,
        key: key.map(<[u8]>::to_vec),
        value: value.to_vec(),
        origin: String::from_utf8_lossy(origin).into_owned(),
        ..Row::default()
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::new(
        Kind::StateDamaged,
        format!(
            "{}: {error}; what was committed to it cannot be compared",
            path.display()
        ),
    )
}

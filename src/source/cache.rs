//! The thread between a worker and its readers, where a replay has a log (`--cache`).
//!
//! ```text
//!             ┌─ Request ─► this thread ─┬─ the log has a block there: answers itself
//!   worker ───┤                          └─ else ─► reader of files or topics, up to where the log goes on
//!             └─ Decoded ─► this thread ───► appended to the log
//! ```
//!
//! Workers and readers know nothing of the log's files: a worker decodes what comes, bytes or rows, and hands
//! on the blocks it made of bytes. What the log cannot give, for whatever reason, the source gives.
//!
//! A log that cannot be written stops nothing: the replay goes on, says so once, and the next one is no
//! faster. When the worker has ended, everything is published.

use super::{Answer, Arrival, Bytes, Request};
use crate::error::Result;
use crate::replay_log::{Encoded, Found, Log, Source};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender};
use xxhash_rust::xxh3::xxh3_64;

/// How much of a file's beginning belongs to its identity, bytes.
const IDENTITY_BYTES: usize = 4 << 10;

/// What a worker says.
pub enum Asked {
    /// It wants what comes next of a partition.
    Request(Request),
    /// It has decoded bytes of the source.
    Decoded(Decoded),
}

/// A block for the log.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// Index of the input.
    pub input: u16,
    /// The partition.
    pub partition: u32,
    /// The rows.
    pub block: Encoded,
}

/// The log of a replay.
#[derive(Clone, Debug)]
pub struct Cache {
    /// Where it lies.
    pub directory: PathBuf,
    /// By index of the input; the identity of a file is added when it is first read.
    pub sources: Vec<Source>,
}

/// The ways to the readers.
#[derive(Default)]
pub struct Readers {
    /// To the reader of files.
    pub files: Option<Sender<Request>>,
    /// To the reader of topics.
    pub topics: Option<Sender<Request>>,
}

/// Serves what is asked until the worker is gone. `wake` is called after every answer.
pub fn read(
    cache: &Cache,
    asked: &Receiver<Asked>,
    readers: &Readers,
    answers: &Sender<Answer>,
    wake: impl Fn(),
) {
    let mut logs = BTreeMap::<(u16, u32), Option<Log>>::new();
    let (mut is_writable, mut found) = (true, 0);
    for asked in asked {
        match asked {
            Asked::Request(request) => {
                let key = (request.input, request.partition);
                let log = logs.entry(key).or_insert_with(|| open(cache, &request));
                match find(log.as_mut(), request) {
                    Ok(arrival) => {
                        if let Bytes::Rows(block) = &arrival.bytes {
                            found += block.messages();
                        }
                        let _ = answers.send(Ok(arrival));
                        wake();
                    }
                    Err(request) => {
                        let is_topic = request.path.as_os_str().is_empty();
                        let reader = if is_topic { &readers.topics } else { &readers.files };
                        // A reader ends only after it has said why.
                        let _ = reader.as_ref().map(|reader| reader.send(request));
                    }
                }
            }
            Asked::Decoded(decoded) if is_writable => {
                let log = logs.get_mut(&(decoded.input, decoded.partition));
                let appended = log.and_then(Option::as_mut).map(|log| log.append(&decoded.block));
                is_writable = say(appended.unwrap_or(Ok(())));
            }
            Asked::Decoded(_) => {}
        }
    }
    for log in logs.values_mut().flatten() {
        is_writable = is_writable && say(log.finish());
    }
    tracing::info!("{found} messages came from the replay log");
}

/// Says what went wrong; whether nothing did.
fn say(result: Result<()>) -> bool {
    if let Err(error) = &result {
        tracing::warn!("{error}; this replay goes on without");
    }
    result.is_ok()
}

/// The log of the request's partition; none if it cannot be had.
fn open(cache: &Cache, request: &Request) -> Option<Log> {
    let (source, ask) = (
        cache.sources.get(usize::from(request.input))?,
        request.log.as_ref()?,
    );
    let mut source = source.clone();
    if !request.path.as_os_str().is_empty() {
        // A file that cannot be read has its reader to say so.
        source.identity = identity(&request.path).ok()?;
    }
    let fingerprint = source.fingerprint(ask.layout);
    let opened = Log::open(&cache.directory, &source.input, request.partition, fingerprint);
    opened
        .map_err(|error| tracing::warn!("{error}; this replay goes on without"))
        .ok()
}

/// What tells a file from another one of its path, one that was written anew in its place included.
fn identity(path: &Path) -> std::io::Result<String> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut beginning = [0; IDENTITY_BYTES];
    let length = usize::try_from(metadata.len())
        .unwrap_or(usize::MAX)
        .min(IDENTITY_BYTES);
    file.read_exact_at(&mut beginning[..length], 0)?;
    let (device, inode, hash) = (metadata.dev(), metadata.ino(), xxh3_64(&beginning[..length]));
    Ok(format!("{} {device} {inode} {hash:016x}", path.display()))
}

/// What the log has for a request, or the request that goes to the source.
fn find(log: Option<&mut Log>, mut request: Request) -> std::result::Result<Arrival, Request> {
    let (Some(log), Some(ask)) = (log, &request.log) else {
        return Err(request);
    };
    match log.read(request.offset, ask.watermark) {
        Found::Rows(block) => Ok(Arrival {
            input: request.input,
            partition: request.partition,
            offset: request.offset,
            bytes: Bytes::Rows(block),
            // The source knows; it is asked when the log has no more.
            at_end: false,
        }),
        Found::Source { upto } => {
            request.upto = upto;
            Err(request)
        }
    }
}

//! Segments: files of blocks, published whole.
//!
//! ```text
//!  append ─► .entries-0-5f0c...-4711-0              (locked by its writer)
//!               │ REPLAY_SEGMENT_BYTES reached, or finish: fsync, rename, fsync of the directory
//!               ▼
//!            entries-0-5f0c...-000...000-000...817.rows    input, partition, fingerprint, offsets
//! ```
//!
//! There is no index to keep: opening a log hops from header to header. A damaged header ends its segment
//! there, a damaged body costs its block. Where several blocks begin at one offset, any sound one does.
//!
//! What a killed replay was writing is recognized by its lock, which died with it, and removed by whoever
//! opens the log next.

use super::block::{Block, Fault, HEADER_BYTES, Header};
use super::builder::Encoded;
use super::place::{aligned, as_bytes};
use crate::error::{Error, Kind, Result};
use crate::limits;
use crate::time::Millis;
use rustix::fs::{FlockOperation, flock};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The replay log of one partition.
pub struct Log {
    directory: PathBuf,
    /// What the names of its segments begin with.
    prefix: String,
    partition: u32,
    fingerprint: u64,
    /// Published blocks by their first offset.
    blocks: BTreeMap<u64, Vec<Position>>,
    segment: Option<Segment>,
}

/// Where a block lies.
#[derive(Clone)]
struct Position {
    file: Rc<(PathBuf, File)>,
    at: u64,
    length_bytes: usize,
    kept_to: Millis,
}

/// A segment that is being written.
struct Segment {
    start: u64,
    end: u64,
    staged: PathBuf,
    file: File,
    length_bytes: usize,
}

/// What a log has from an offset on.
#[derive(Debug)]
pub enum Found {
    /// A sound block that begins there.
    Rows(Block),
    /// Nothing: the source has to be read, up to the offset where the log goes on, if it does.
    Source {
        /// First offset that need not be read.
        upto: Option<u64>,
    },
}

impl Log {
    /// The log of a partition in a directory, which is created. `fingerprint`: see
    /// [`Source::fingerprint`](super::Source::fingerprint).
    pub fn open(directory: &Path, input: &str, partition: u32, fingerprint: u64) -> Result<Log> {
        let failed = |error: io::Error| write_failed(directory, &error);
        std::fs::create_dir_all(directory).map_err(failed)?;
        let prefix = format!("{input}-{partition}-{fingerprint:016x}-");
        let mut log = Log {
            directory: directory.to_path_buf(),
            prefix,
            partition,
            fingerprint,
            blocks: BTreeMap::new(),
            segment: None,
        };
        let mut published = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(failed)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&log.prefix) && name.ends_with(".rows") {
                published.push(entry.path());
            } else if name
                .strip_prefix('.')
                .is_some_and(|name| name.starts_with(&log.prefix))
            {
                sweep(&entry.path());
            }
        }
        published.sort();
        published.into_iter().for_each(|path| log.list(path));
        Ok(log)
    }

    /// The block that begins at an offset, if there is a sound one that keeps what a reader at this
    /// `watermark` may want: the partition's before the block, [`AFTER_ALL`](crate::time::AFTER_ALL) if
    /// anyone may turn out late.
    pub fn read(&mut self, offset: u64, watermark: Millis) -> Found {
        let mut candidates = self.blocks.remove(&offset).unwrap_or_default();
        let mut found = None;
        // A block without a use for this reader stays: another one may be further behind.
        for index in (0..candidates.len()).rev() {
            if candidates[index].kept_to < watermark {
                continue;
            }
            match self.read_block(&candidates[index]) {
                Ok(block) => {
                    found = Some(block);
                    break;
                }
                Err(why) => {
                    let path = candidates.remove(index).file.0.display().to_string();
                    tracing::warn!(
                        "{path}: the block at offset {offset} {why}: read from the source instead"
                    );
                }
            }
        }
        if !candidates.is_empty() {
            self.blocks.insert(offset, candidates);
        }
        match found {
            Some(block) => Found::Rows(block),
            None => Found::Source {
                upto: self
                    .blocks
                    .range(offset.saturating_add(1)..)
                    .next()
                    .map(|(start, _)| *start),
            },
        }
    }

    /// Adds a block.
    pub fn append(&mut self, block: &Encoded) -> Result<()> {
        let mut segment = match self.segment.take() {
            Some(segment) => segment,
            None => self.stage(block.start())?,
        };
        let bytes = block.to_bytes(self.fingerprint, self.partition);
        let written = segment.file.write_all(&bytes);
        written.map_err(|error| write_failed(&segment.staged, &error))?;
        segment.end = block.end();
        segment.length_bytes += bytes.len();
        if segment.length_bytes >= limits::REPLAY_SEGMENT_BYTES {
            return self.publish(segment);
        }
        self.segment = Some(segment);
        Ok(())
    }

    /// Publishes what was added. A log that is dropped without publishes no more.
    pub fn finish(&mut self) -> Result<()> {
        match self.segment.take() {
            Some(segment) => self.publish(segment),
            None => Ok(()),
        }
    }

    /// Takes up the blocks of a segment, up to the first header that is none.
    fn list(&mut self, path: PathBuf) {
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (length, file) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                tracing::warn!(
                    "{}: cannot be read: {error}; read from the source instead",
                    path.display()
                );
                return;
            }
        };
        let file = Rc::new((path, file));
        let mut at = 0;
        while at < length {
            let header = match self.read_header(&file.1, at) {
                Ok(header) => header,
                Err(why) => {
                    let path = file.0.display();
                    tracing::warn!("{path}: the block at byte {at} {why}: the rest is read from the source");
                    return;
                }
            };
            let Ok(body) = usize::try_from(header.body_bytes) else {
                return;
            };
            let length_bytes = HEADER_BYTES + body;
            let file = Rc::clone(&file);
            let position = Position {
                file,
                at,
                length_bytes,
                kept_to: header.kept_to,
            };
            self.blocks.entry(header.start).or_default().push(position);
            at += length_bytes as u64;
        }
    }

    fn read_header(&self, file: &File, at: u64) -> Result<Header, String> {
        let mut words = aligned(HEADER_BYTES);
        let read = file.read_exact_at(as_bytes(&mut words), at);
        read.map_err(|error| format!("cannot be read: {error}"))?;
        let header = Header::read(as_bytes(&mut words), self.fingerprint, self.partition);
        header.map_err(|fault| fault.to_string())
    }

    fn read_block(&self, position: &Position) -> Result<Block, String> {
        let file = &position.file.1;
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        // Before room is made for it: a file may have been cut since it was opened.
        if position.at + position.length_bytes as u64 > length {
            return Err(Fault::Length.to_string());
        }
        let mut words = aligned(position.length_bytes);
        let read = file.read_exact_at(as_bytes(&mut words), position.at);
        read.map_err(|error| format!("cannot be read: {error}"))?;
        Block::read(words, self.fingerprint, self.partition).map_err(|fault| fault.to_string())
    }

    /// A new file under a name nobody else has, locked while it is written.
    fn stage(&self, start: u64) -> Result<Segment> {
        let process = std::process::id();
        for number in 0_u32.. {
            let staged = self.directory.join(format!(".{}{process}-{number}", self.prefix));
            match File::options().write(true).create_new(true).open(&staged) {
                Ok(file) => {
                    let locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
                    locked.map_err(|error| write_failed(&staged, &error.into()))?;
                    return Ok(Segment {
                        start,
                        end: start,
                        staged,
                        file,
                        length_bytes: 0,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(write_failed(&staged, &error)),
            }
        }
        Err(Error::internal("no name is left for a segment"))
    }

    /// Under the same name only the same rows are published, by whoever decodes the same span.
    fn publish(&self, segment: Segment) -> Result<()> {
        let Segment {
            start,
            end,
            staged,
            file,
            ..
        } = segment;
        let path = self
            .directory
            .join(format!("{}{start:020}-{end:020}.rows", self.prefix));
        let published = file.sync_all().and_then(|()| {
            std::fs::rename(&staged, &path)?;
            File::open(&self.directory)?.sync_all()
        });
        published.map_err(|error| write_failed(&path, &error))
    }
}

/// What was not published goes.
impl Drop for Log {
    fn drop(&mut self) {
        if let Some(segment) = self.segment.take() {
            let _ = std::fs::remove_file(&segment.staged);
        }
    }
}

/// Removes what a killed replay was writing; one that lives holds its lock.
fn sweep(staged: &Path) {
    let Ok(file) = File::options().write(true).open(staged) else {
        return;
    };
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        let _ = std::fs::remove_file(staged);
    }
}

fn write_failed(path: &Path, error: &io::Error) -> Error {
    let path = path.display();
    let message = format!("cannot write the replay log {path}: {error}; free it, or replay without --cache");
    Error::new(Kind::WriteFailed, message)
}

//! The progress log of one file shard: the file behind [`crate::checkpoint::progress`].
//!
//! ```text
//!  .alerts-0.progress       ── append, fdatasync ──►  one more line: committed
//!  .alerts-0.progress.new   ── written, fsync ─► rename over the log ─► fsync of the directory: compacted
//! ```
//!
//! Locked for as long as it is open; the lock moves to the new file before the rename, so there is no moment
//! without. Compaction keeps every binding above the oldest kept checkpoint and drops the rest, once the log
//! is longer than
//! [`COMPACT_ABOVE`] and more than half of it can go; what is rewritten is so paid for by what was appended.

use crate::checkpoint::lock::{lock, write_failed};
use crate::checkpoint::progress::{self, Damage, Log, Record};
use crate::crash;
use crate::error::{Error, Kind, Result};
use crate::time::Epoch;
use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A log up to this length is left as it is, in bytes.
pub const COMPACT_ABOVE: u64 = 8 << 20;

/// An open, locked progress log.
pub struct ProgressLog {
    path: PathBuf,
    file: File,
    /// Its records: upper epoch and bytes.
    records: VecDeque<(Epoch, u64)>,
    /// Bytes of records that were forgotten as a whole.
    forgotten: u64,
    length: u64,
    oldest: Epoch,
    pub(super) compact_above: u64,
}

/// Locks and reads a log; creates it, without a record, where there is none.
pub fn open(path: PathBuf) -> Result<(ProgressLog, Result<Log, Damage>)> {
    let file = lock(&path)?;
    let bytes = std::fs::read(&path).map_err(|error| unreadable(&path, &error))?;
    let read = progress::read(&bytes);
    let mut log = ProgressLog {
        path,
        file,
        records: VecDeque::new(),
        forgotten: 0,
        length: 0,
        oldest: 0,
        compact_above: COMPACT_ABOVE,
    };
    if let Ok(read) = &read {
        log.count(read);
    }
    Ok((log, read))
}

/// Reads a log that may be somebody else's, without its lock; empty where there is none.
pub fn read(path: &Path) -> Result<Result<Log, Damage>> {
    match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Ok(Log::default())),
        Err(error) => Err(unreadable(path, &error)),
        Ok(bytes) => Ok(progress::read(&bytes)),
    }
}

impl ProgressLog {
    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length of its complete records, in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Cuts off a torn last record, which nobody was told of.
    pub fn cut_back(&mut self, torn: u64) -> Result<()> {
        if torn == 0 {
            return Ok(());
        }
        tracing::warn!(
            "{} ends with {torn} bytes of a torn record: cut back to {}",
            self.path.display(),
            self.length
        );
        let cut = self.file.set_len(self.length).and_then(|()| self.file.sync_all());
        cut.map_err(|error| write_failed(&self.path, &error))
    }

    /// Commits a record: when this returns, it is on disk.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        let line = progress::encode(record)?;
        let failed = |error: std::io::Error| write_failed(&self.path, &error);
        crash::point("before-progress");
        if crash::reached("mid-progress") {
            let half = &line[..line.len() / 2];
            self.file
                .write_all_at(half, self.length)
                .and_then(|()| self.file.sync_all())
                .map_err(failed)?;
            crash::die()
        }
        self.file.write_all_at(&line, self.length).map_err(failed)?;
        self.file.sync_data().map_err(failed)?;
        crash::point("after-progress");
        self.records.push_back((record.upper, line.len() as u64));
        self.length += line.len() as u64;
        Ok(())
    }

    /// Makes the log's own name durable, after its first record.
    pub fn sync_directory(&self) -> Result<()> {
        sync_directory(directory(&self.path))
    }

    /// Says that bindings up to this epoch are needed no more; compacts the log when that pays.
    pub fn forget(&mut self, oldest: Epoch) -> Result<()> {
        self.oldest = self.oldest.max(oldest);
        // The last record is what the next start reads: it stays, whatever its bindings.
        while self.records.len() > 1 {
            let Some((_, bytes)) = self.records.pop_front_if(|(upper, _)| *upper <= self.oldest) else {
                break;
            };
            self.forgotten += bytes;
        }
        match self.length > self.compact_above && 2 * self.forgotten > self.length {
            true => self.compact(),
            false => Ok(()),
        }
    }

    fn compact(&mut self) -> Result<()> {
        let bytes = std::fs::read(&self.path).map_err(|error| unreadable(&self.path, &error))?;
        let read = progress::read(&bytes).map_err(|damage| damaged(&self.path, &damage))?;
        let Some(record) = read.compacted(self.oldest) else {
            return Ok(());
        };
        let line = progress::encode(&record)?;
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        let new_path = PathBuf::from(name);
        let failed = |error: std::io::Error| write_failed(&new_path, &error);
        let new = lock(&new_path)?;
        // A crash may have left half of one.
        new.set_len(0)
            .and_then(|()| new.write_all_at(&line, 0))
            .map_err(failed)?;
        new.sync_all().map_err(failed)?;
        std::fs::rename(&new_path, &self.path).map_err(failed)?;
        sync_directory(directory(&self.path))?;
        self.file = new;
        self.count(&Log {
            ends: vec![line.len() as u64],
            records: vec![record],
            torn: 0,
        });
        Ok(())
    }

    fn count(&mut self, log: &Log) {
        let starts = std::iter::once(0).chain(log.ends.iter().copied());
        let bytes = log.ends.iter().zip(starts).map(|(end, start)| end - start);
        self.records = log.records.iter().map(|record| record.upper).zip(bytes).collect();
        self.forgotten = 0;
        self.length = log.sound();
    }
}

/// Makes names in a directory durable.
pub(super) fn sync_directory(directory: &Path) -> Result<()> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| write_failed(directory, &error))
}

/// The directory a file lies in.
pub(super) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::new(
        Kind::StateDamaged,
        format!("cannot read {}: {error}", path.display()),
    )
}

fn damaged(path: &Path, damage: &Damage) -> Error {
    let Damage { offset, reason } = damage;
    Error::new(
        Kind::StateDamaged,
        format!("{} is damaged at byte {offset}: {reason}", path.display()),
    )
}

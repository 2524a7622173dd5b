//! Files as a sink: outputs that are appended to, and a progress log that says how much of them counts.
//!
//! ```text
//!  observe: lock, read the log ─► facts ─► decide ─► open: first record or cut back ─► commit, commit, ...
//!
//!  commit   epochs ─► append to each output ─► fdatasync those ─► progress record, lengths ─► fdatasync
//!           crash:    └──────────── cut off by the next start ───────────────────────────┘ └─ committed
//! ```
//!
//! The log lies beside the outputs, in the directory of the bytewise smallest path:
//! `.<job>-<shard>.progress`. Its first record, with the lengths found, is synced with its directory before
//! an output is created or touched, so that what a user had in a file is never cut.
//!
//! **Any failed durable write is final** (`WriteFailed`, naming file and errno): disk full, a size limit,
//! read-only, permission. Nothing is retried, for after a failed sync nobody knows what is on disk; the next
//! start does.
//!
//! **The control arm** of the kill campaigns: with `TIDEGATE_CONTROL_ARM=1` outputs are not cut back on
//! start, so that data is no longer tied to progress. A campaign that finds no difference then proves
//! nothing.

use super::progress_log::{self, ProgressLog, directory, sync_directory};
use super::{SealedEpoch, Sink};
use crate::checkpoint::binding::Binding;
use crate::checkpoint::claim::Claim;
use crate::checkpoint::decide::{OutputFacts, Progress, ShardFacts};
use crate::checkpoint::lock::{lock, write_failed};
use crate::checkpoint::progress::{Damage, Log, Record};
use crate::crash;
use crate::error::{Error, Kind, Result};
use crate::time::Epoch;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Set to `1`: outputs are not cut back on start, see above.
pub const CONTROL_ARM: &str = "TIDEGATE_CONTROL_ARM";

/// Appends are gathered up to this size, in bytes.
const WRITE_BYTES: usize = 1 << 20;

/// One file shard of a job: which files it writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Name of the job.
    pub job: String,
    /// Number of the shard.
    pub shard: usize,
    /// The job's directory: below it, names in progress records are relative, so that all of it can be moved.
    pub root: PathBuf,
    /// Its outputs: index in the plan, and path. At least one.
    pub outputs: Vec<(u16, PathBuf)>,
}

impl Shard {
    /// Where its progress log lies.
    pub fn log_path(&self) -> PathBuf {
        let paths = self.outputs.iter().map(|(_, path)| path.as_path());
        let least = paths
            .min_by_key(|path| path.as_os_str().as_bytes())
            .unwrap_or(Path::new(""));
        directory(least).join(format!(".{}-{}.progress", self.job, self.shard))
    }

    /// An output's name in progress records.
    pub fn name(&self, path: &Path) -> String {
        path.strip_prefix(&self.root)
            .unwrap_or(path)
            .display()
            .to_string()
    }
}

/// What lies on disk of a shard; holds its lock.
pub struct Found {
    log: ProgressLog,
    read: Result<Log, Damage>,
    outputs: Vec<FoundOutput>,
}

/// One output as found.
struct FoundOutput {
    output: u16,
    path: PathBuf,
    /// Its name in progress records.
    name: String,
    /// Its lock, if it was there.
    lock: Option<File>,
    /// Its length, 0 if there is none, in bytes.
    length: u64,
}

impl FoundOutput {
    /// Refuses content of somebody else's that the first message would be glued to.
    fn ends_a_line(&self) -> Result<()> {
        let (Some(last), Some(file)) = (self.length.checked_sub(1), &self.lock) else {
            return Ok(());
        };
        let mut byte = [0];
        file.read_exact_at(&mut byte, last)
            .map_err(|error| write_failed(&self.path, &error))?;
        match byte {
            [b'\n'] => Ok(()),
            _ => Err(Error::new(
                Kind::Configuration,
                format!(
                    "{}: its last line has no end; end it before appending",
                    self.path.display()
                ),
            )),
        }
    }
}

/// Locks a shard, its log and the outputs that exist, and looks at what lies there. Creates nothing but
/// directories and an empty log.
pub fn observe(shard: &Shard) -> Result<Found> {
    let log_path = shard.log_path();
    let mut outputs = Vec::new();
    for (output, path) in &shard.outputs {
        let parent = directory(path);
        std::fs::create_dir_all(parent).map_err(|error| write_failed(parent, &error))?;
        let length = match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            Ok(_) => {
                let message = format!("output {} is not a regular file", path.display());
                return Err(Error::new(Kind::Configuration, message));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(write_failed(path, &error)),
        };
        outputs.push(FoundOutput {
            output: *output,
            path: path.clone(),
            name: shard.name(path),
            lock: None,
            length,
        });
    }
    // The log first: whoever else runs this job is named by it.
    let (log, read) = progress_log::open(log_path)?;
    for output in outputs.iter_mut().filter(|output| output.path.exists()) {
        output.lock = Some(lock(&output.path)?);
    }
    Ok(Found { log, read, outputs })
}

impl Found {
    /// What the start decides on.
    pub fn facts(&self) -> ShardFacts {
        let records = self.read.as_ref().map_or(&[][..], |log| &log.records);
        let progress = match (&self.read, records.first(), records.last()) {
            (Err(damage), ..) => Progress::Damaged {
                file: self.log.path().display().to_string(),
                offset: damage.offset,
                reason: damage.reason.clone(),
            },
            (Ok(_), Some(first), Some(last)) => Progress::Present {
                generation: last.generation,
                nonce: last.nonce,
                plan_hash: last.plan_hash,
                after: first.after,
                upper: last.upper,
            },
            (Ok(_), ..) => Progress::Absent,
        };
        let recorded = |name: &str| records.last().and_then(|last| last.lengths.get(name).copied());
        let outputs = self.outputs.iter().map(|output| OutputFacts {
            path: output.path.display().to_string(),
            recorded: recorded(&output.name),
            found: output.length,
        });
        ShardFacts {
            progress,
            outputs: outputs.collect(),
        }
    }

    /// The bindings on record, ascending.
    pub fn bindings(&self) -> impl Iterator<Item = &Binding> {
        self.read.iter().flat_map(Log::bindings)
    }

    /// Opens the shard for writing in the generation of this claim. `fresh`: nothing was ever committed, the
    /// lengths found are recorded; otherwise outputs are cut back to the recorded ones.
    pub fn open(mut self, claim: &Claim, fresh: bool) -> Result<Files> {
        let read = self.read.map_err(|damage| {
            Error::internal(format!("a damaged log was decided on, at byte {}", damage.offset))
        })?;
        if fresh {
            self.outputs.iter().try_for_each(FoundOutput::ends_a_line)?;
        }
        self.log.cut_back(read.torn)?;
        let Claim {
            generation,
            nonce,
            plan_hash,
            ..
        } = *claim;
        let last = match read.records.last() {
            Some(last) if !fresh => Record {
                generation,
                nonce,
                plan_hash,
                bindings: Vec::new(),
                ..last.clone()
            },
            _ => {
                let lengths = self
                    .outputs
                    .iter()
                    .map(|output| (output.name.clone(), output.length))
                    .collect();
                let bindings = Vec::new();
                let first = Record {
                    generation,
                    nonce,
                    plan_hash,
                    after: 0,
                    upper: 0,
                    lengths,
                    bindings,
                };
                self.log.append(&first)?;
                self.log.sync_directory()?;
                first
            }
        };
        crash::point("before-cut-back");
        let control_arm = std::env::var_os(CONTROL_ARM).is_some_and(|value| value == "1");
        let mut files = Vec::new();
        for found in self.outputs {
            files.push(OutputFile::open(found, &last, control_arm)?);
        }
        crash::point("after-cut-back");
        Ok(Files {
            log: self.log,
            last,
            files,
        })
    }
}

/// A file shard that is open for writing.
pub struct Files {
    log: ProgressLog,
    /// The last record, without its bindings, under the own generation.
    last: Record,
    files: Vec<OutputFile>,
}

impl Files {
    /// Length of its progress log, in bytes.
    pub fn log_length(&self) -> u64 {
        self.log.length()
    }

    fn append(&mut self, epochs: &[SealedEpoch]) -> Result<()> {
        for sealed in epochs {
            for (output, bytes) in sealed.ordered() {
                let Some(file) = self.files.iter_mut().find(|file| file.output == output) else {
                    return Err(Error::internal(format!(
                        "output {output} is not one of this shard"
                    )));
                };
                file.append(bytes)?;
            }
        }
        self.files.iter_mut().try_for_each(OutputFile::sync)
    }
}

impl Sink for Files {
    fn committed(&self) -> Epoch {
        self.last.upper
    }

    fn commit(&mut self, mut epochs: Vec<SealedEpoch>) -> Result<()> {
        epochs.retain(|sealed| sealed.epoch > self.last.upper);
        let Some(upper) = epochs.last().map(|sealed| sealed.epoch) else {
            return Ok(());
        };
        crash::point("before-data");
        self.append(&epochs)?;
        crash::point("after-data");
        let bindings = epochs.iter().filter_map(SealedEpoch::effective_binding).collect();
        let lengths = self
            .files
            .iter()
            .map(|file| (file.name.clone(), file.length))
            .collect();
        let mut record = Record {
            after: self.last.upper,
            upper,
            lengths,
            bindings,
            ..self.last.clone()
        };
        self.log.append(&record)?;
        record.bindings = Vec::new();
        self.last = record;
        Ok(())
    }

    fn forget(&mut self, oldest: Epoch) -> Result<()> {
        self.log.forget(oldest)
    }
}

/// One output, open at its end.
struct OutputFile {
    output: u16,
    path: PathBuf,
    name: String,
    file: File,
    /// With what is in the buffer.
    length: u64,
    buffer: Vec<u8>,
    changed: bool,
}

impl OutputFile {
    fn open(found: FoundOutput, last: &Record, control_arm: bool) -> Result<Self> {
        let FoundOutput {
            output,
            path,
            name,
            lock: held,
            length: found_length,
        } = found;
        let failed = |error: std::io::Error| write_failed(&path, &error);
        let Some(recorded) = last.lengths.get(&name).copied() else {
            return Err(Error::internal(format!(
                "{name} is not in the record that was decided on"
            )));
        };
        // Another job, or another output of this one, may name the same file by another path.
        let file = held.map_or_else(|| lock(&path), Ok)?;
        sync_directory(directory(&path))?;
        let mut length = recorded;
        if found_length > recorded {
            let uncommitted = found_length - recorded;
            match control_arm {
                true => length = found_length,
                false => {
                    tracing::info!("{}: {uncommitted} uncommitted bytes are cut off", path.display());
                    file.set_len(recorded).map_err(failed)?;
                }
            }
        }
        Ok(OutputFile {
            output,
            path,
            name,
            file,
            length,
            buffer: Vec::new(),
            changed: false,
        })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        self.length += bytes.len() as u64;
        self.changed = true;
        if self.buffer.len() >= WRITE_BYTES {
            self.write()
        } else {
            Ok(())
        }
    }

    fn write(&mut self) -> Result<()> {
        let start = self.length - self.buffer.len() as u64;
        self.file
            .write_all_at(&self.buffer, start)
            .map_err(|error| write_failed(&self.path, &error))?;
        self.buffer.clear();
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        if std::mem::take(&mut self.changed) {
            self.write()?;
            self.file
                .sync_data()
                .map_err(|error| write_failed(&self.path, &error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
#[path = "files_test.rs"]
mod test;

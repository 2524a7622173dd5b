//! Verification: what a recorded replay gives, held against what was committed.
//!
//! ```text
//!  sealed epoch ─┬─ digest of each output ◄──?──► digest recorded with the epoch
//!                └─ its bytes ◄──────────────?──► the committed ones ─ the same: next epoch
//!                                                   └ not: message by message ─► missing, extra, altered
//! ```
//!
//! A [`Verifier`] is a sink that writes nothing. It is given the epochs of one shard in order and reads what lies
//! in the outputs: files from the byte at which the first epoch begins, topics by the epoch in each message's
//! header. Most epochs are equal to the byte and are done with at once; only where they are not are messages
//! compared one by one ([`align`]).
//!
//! Messages of files are encoded as those of topics are, so that each knows the message it comes from, and become
//! lines again here.
//!
//! **Refuses** nothing that is merely different: whatever is found goes into the [`Report`]. An output that cannot
//! be read is an error. What lies behind the last epoch of the span is not looked at.

pub mod align;
mod committed;

use crate::checkpoint::binding::Digest;
use crate::error::{Error, Result};
use crate::kafka::Settings;
use crate::limits;
use crate::record::key_hash;
use crate::sink::{SealedEpoch, Sink, message};
use crate::time::Epoch;
use align::{Aligner, Difference, Row};
use committed::Lines;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What was found of all outputs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// By output, those with several shards summed up.
    pub outputs: BTreeMap<String, Count>,
    /// The first differences, [`limits::DIFFERENCES`] at most.
    pub differences: Vec<Shown>,
}

/// What was found of one output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Messages that should be there.
    pub messages: u64,
    /// Epochs that gave something else than was recorded of them.
    pub unlike_recorded: u64,
    /// Messages that should be there and are not.
    pub missing: u64,
    /// Messages that should not be there.
    pub extra: u64,
    /// Messages that should be others.
    pub altered: u64,
}

/// A difference, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// The output.
    pub output: String,
    /// `missing`, `extra` or `altered`.
    pub what: &'static str,
    /// The epoch, where it is known.
    pub epoch: Option<Epoch>,
    /// `input/partition/offset` of the message it comes from; empty where there is none.
    pub origin: String,
    /// Where it was found.
    pub place: String,
    /// What should be there.
    pub expected: Option<String>,
    /// What is there.
    pub found: Option<String>,
}

impl Report {
    /// Whether everything is as it should be.
    pub fn is_clean(&self) -> bool {
        let clean = |count: &Count| {
            (count.unlike_recorded, count.missing, count.extra, count.altered) == (0, 0, 0, 0)
        };
        self.outputs.values().all(clean)
    }

    /// Takes over what was found elsewhere.
    pub fn join(&mut self, other: Report) {
        for (output, count) in other.outputs {
            let own = self.outputs.entry(output).or_default();
            own.messages += count.messages;
            own.unlike_recorded += count.unlike_recorded;
            own.missing += count.missing;
            own.extra += count.extra;
            own.altered += count.altered;
        }
        self.differences.extend(other.differences);
        self.differences.truncate(limits::DIFFERENCES);
    }

    fn add(&mut self, output: &str, difference: Difference) {
        let text = |row: &Row| Some(String::from_utf8_lossy(&row.value).into_owned());
        let count = self.outputs.entry(output.to_owned()).or_default();
        let (what, expected, found, row, place) = match difference {
            Difference::Missing(row) => {
                count.missing += 1;
                ("missing", text(&row), None, row, String::new())
            }
            Difference::Extra(row) => {
                count.extra += 1;
                let place = row.place.clone();
                ("extra", None, text(&row), row, place)
            }
            Difference::Altered { expected, found } => {
                count.altered += 1;
                ("altered", text(&expected), text(&found), expected, found.place)
            }
        };
        if self.differences.len() < limits::DIFFERENCES {
            self.differences.push(Shown {
                output: output.to_owned(),
                what,
                epoch: row.epoch,
                origin: row.origin,
                place,
                expected,
                found,
            });
        }
    }
}

/// One output of a shard, as it was committed.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Name of the output.
    pub name: String,
    /// Where it lies.
    pub place: Place,
}

/// Where an output lies.
#[derive(Clone, Debug)]
pub enum Place {
    /// In a file, from this byte on.
    File(PathBuf, u64),
    /// In a topic, of which each shard has its own partitions.
    Topic(Box<Settings>, Topic),
}

/// The partitions of a topic that a shard writes: those whose number leaves `shard` when divided by `shards`.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Number of the shard among those that write topics.
    pub shard: u32,
    /// How many of them there are, > 0.
    pub shards: u32,
}

/// Holds one shard's epochs against what was committed; a handle, so that its report can be asked for when the sink
/// has gone.
#[derive(Clone)]
pub struct Verifier(Arc<Mutex<Shard>>);

struct Shard {
    epochs: Range<Epoch>,
    /// What was recorded, by epoch and output.
    recorded: BTreeMap<(Epoch, u16), Digest>,
    outputs: BTreeMap<u16, Output>,
    report: Report,
}

struct Output {
    name: String,
    there: There,
}

enum There {
    Lines(Lines, Aligner),
    Messages(BTreeMap<(Epoch, u32), Vec<Row>>),
}

impl Verifier {
    /// Opens the outputs of a shard, by index in the plan. `epochs`: those that are compared. `recorded`: the digests
    /// on record, by epoch and output.
    pub fn open(
        outputs: BTreeMap<u16, Committed>,
        epochs: Range<Epoch>,
        recorded: BTreeMap<(Epoch, u16), Digest>,
    ) -> Result<Verifier> {
        let mut opened = BTreeMap::new();
        let mut report = Report::default();
        for (index, Committed { name, place }) in outputs {
            let there = match place {
                Place::File(path, position) => {
                    There::Lines(Lines::open(&path, position)?, Aligner::default())
                }
                Place::Topic(settings, topic) => {
                    There::Messages(committed::messages(&settings, &topic, &epochs)?)
                }
            };
            report.outputs.entry(name.clone()).or_default();
            opened.insert(index, Output { name, there });
        }
        Ok(Verifier(Arc::new(Mutex::new(Shard {
            epochs,
            recorded,
            outputs: opened,
            report,
        }))))
    }

    fn lock(&self) -> MutexGuard<'_, Shard> {
        // A committer that panics aborts the process; nothing is seen half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything was given: what is left over on either side is a difference too.
    pub fn finish(&self) -> Result<Report> {
        let mut shard = self.lock();
        let Shard {
            recorded,
            outputs,
            report,
            ..
        } = &mut *shard;
        for (index, Output { name, there }) in outputs {
            let mut each = |difference| report.add(name, difference);
            match there {
                There::Lines(lines, aligner) => align_lines(lines, aligner, true, &mut each)?,
                There::Messages(found) => {
                    let rest = std::mem::take(found).into_values().flatten();
                    rest.map(Difference::Extra).for_each(each);
                }
            }
            // What was recorded and never came.
            let never = recorded.keys().filter(|(_, output)| output == index).count();
            report.outputs.entry(name.clone()).or_default().unlike_recorded += never as u64;
        }
        Ok(report.clone())
    }
}

impl Sink for Verifier {
    fn committed(&self) -> Epoch {
        self.lock().epochs.start.saturating_sub(1)
    }

    fn commit(&mut self, epochs: Vec<SealedEpoch>) -> Result<()> {
        let mut shard = self.lock();
        let wanted = epochs
            .iter()
            .filter(|sealed| shard.epochs.contains(&sealed.epoch));
        let wanted: Vec<_> = wanted.collect();
        wanted.into_iter().try_for_each(|sealed| shard.compare(sealed))
    }

    fn forget(&mut self, _oldest: Epoch) -> Result<()> {
        Ok(())
    }
}

impl Shard {
    fn compare(&mut self, sealed: &SealedEpoch) -> Result<()> {
        let epoch = sealed.epoch;
        for (index, Output { name, there }) in &mut self.outputs {
            let is_file = matches!(there, There::Lines(..));
            let rows = rows(sealed, *index, is_file)?;
            let recorded = self.recorded.remove(&(epoch, *index));
            let count = self.report.outputs.entry(name.clone()).or_default();
            count.messages += rows.len() as u64;
            let all: Vec<u8> = rows.iter().flat_map(|row| row.bytes.iter().copied()).collect();
            let own = (!rows.is_empty()).then(|| digest(*index, rows.len(), &all));
            count.unlike_recorded += u64::from(own != recorded);
            let report = &mut self.report;
            let mut each = |difference| report.add(name, difference);
            match there {
                There::Lines(lines, aligner) => {
                    if aligner.is_even() && lines.take(&all)? {
                        continue;
                    }
                    rows.into_iter().for_each(|row| aligner.expect(row));
                    align_lines(lines, aligner, false, &mut each)?;
                }
                There::Messages(found) => {
                    let mut partitions = BTreeMap::<u32, Aligner>::new();
                    for row in rows {
                        let partition = message::read(&row.bytes).map_or(0, |message| message.partition);
                        partitions.entry(partition).or_default().expect(row);
                    }
                    let of_epoch = found.range((epoch, 0)..=(epoch, u32::MAX)).map(|(key, _)| *key);
                    for key in of_epoch.collect::<Vec<_>>() {
                        let aligner = partitions.entry(key.1).or_default();
                        let rows = found.remove(&key).unwrap_or_default();
                        rows.into_iter().for_each(|row| aligner.find(row));
                    }
                    for mut aligner in partitions.into_values() {
                        aligner.advance(true, true, &mut each);
                        aligner.rest().map(Difference::Extra).for_each(&mut each);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Compares what is expected with lines, as far as can be decided. `is_last`: nothing more will be expected.
fn align_lines(
    lines: &mut Lines,
    aligner: &mut Aligner,
    is_last: bool,
    each: &mut impl FnMut(Difference),
) -> Result<()> {
    let mut at_end = false;
    loop {
        aligner.advance(is_last, at_end, each);
        if at_end || !aligner.wants_found() {
            return Ok(());
        }
        match lines.next()? {
            Some(row) => aligner.find(row),
            None => at_end = true,
        }
    }
}

/// An epoch's messages of one output, in the order in which they are written.
fn rows(sealed: &SealedEpoch, output: u16, is_file: bool) -> Result<Vec<Row>> {
    let of_output = sealed.rows.iter().filter(|rows| rows.output == output);
    let mut ranked = Vec::new();
    for (rank, bytes) in of_output.flat_map(|rows| rows.messages()) {
        let Some(message) = message::read(bytes) else {
            return Err(Error::internal(format!("a message of output {output} is none")));
        };
        let mut row = committed::message(message.partition, message.key, message.origin, message.value);
        row.epoch = Some(sealed.epoch);
        if is_file {
            let line = committed::line(line_of(&message), String::new());
            let (bytes, key, value) = (line.bytes, line.key, line.value);
            row = Row {
                bytes,
                key,
                value,
                ..row
            };
        }
        ranked.push((rank, row));
    }
    ranked.sort_by(|(one, left), (other, right)| (one, &left.bytes).cmp(&(other, &right.bytes)));
    Ok(ranked.into_iter().map(|(_, row)| row).collect())
}

/// The line that a file has for a message whose value is JSON.
fn line_of(message: &message::Message<'_>) -> Vec<u8> {
    let mut line = b"{\"key\":".to_vec();
    let key = message.key.map(String::from_utf8_lossy);
    // A string, or null, is JSON.
    line.extend(serde_json::to_vec(&key).unwrap_or_default());
    line.extend_from_slice(b",\"value\":");
    line.extend_from_slice(message.value);
    line.extend_from_slice(b"}\n");
    line
}

/// What an epoch gave to one output, for its binding: every output of a shard that has a message.
pub fn digests(sealed: &SealedEpoch) -> Vec<Digest> {
    let mut outputs = BTreeMap::<u16, (usize, Vec<u8>)>::new();
    for (output, bytes) in sealed.ordered() {
        let (messages, all) = outputs.entry(output).or_default();
        *messages += 1;
        all.extend_from_slice(bytes);
    }
    let each = outputs.into_iter();
    each.map(|(output, (messages, all))| digest(output, messages, &all))
        .collect()
}

fn digest(output: u16, messages: usize, all: &[u8]) -> Digest {
    Digest {
        output,
        messages: messages as u64,
        bytes: all.len() as u64,
        hash: key_hash(all),
    }
}

//! Progress records: the commit log of one file shard, one record per line.
//!
//! ```text
//!  5f1c09ae {...,"after":0,"upper":0,"lengths":{"email.jsonl":0},"bindings":[]}        the first start
//!  0b77d2e4 {...,"after":0,"upper":7,"lengths":{"email.jsonl":812},"bindings":[...]}   epochs 1 to 7
//!  91aa3c55 {...,"after":7,"up                                                         torn: cut back
//! ```
//!
//! A line is the CRC-32 of its JSON in eight lower-case hex digits, a space, the JSON, LF. Each record tells
//! after which epoch it begins, so a lost line is noticed; the first one's `after` is how far back the
//! bindings reach.
//!
//! **Torn or damaged.** A crash leaves a prefix of the last record: no LF. That record was never reported as
//! committed and is cut off. Everything else that does not check, the last complete line included, is damage:
//! a record that may have been reported is gone, and no start may go on from there.
//!
//! Pure: the file itself is the sink's ([`crate::sink::progress_log`]).

use super::binding::Binding;
use crate::error::{Error, Result};
use crate::time::Epoch;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The generation that committed.
    pub generation: u64,
    /// The nonce of that generation's claim.
    pub nonce: u64,
    /// Hash of the plan.
    pub plan_hash: u64,
    /// Commits the epochs above this one ...
    pub after: Epoch,
    /// ... up to and including this one; 0 before the first.
    pub upper: Epoch,
    /// Length of every output file once they are committed, in bytes, by file name relative to the log's
    /// directory.
    pub lengths: BTreeMap<String, u64>,
    /// What those epochs contain, ascending. Epochs that took nothing from any partition are left out.
    pub bindings: Vec<Binding>,
}

/// A log as read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// Its records, oldest first.
    pub records: Vec<Record>,
    /// The byte offset after each record's line.
    pub ends: Vec<u64>,
    /// Bytes after the last complete line.
    pub torn: u64,
}

/// Where and how a log is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Byte offset of the line.
    pub offset: u64,
    /// What is wrong with it.
    pub reason: String,
}

impl Log {
    /// The log cut back to its complete records, in bytes.
    pub fn sound(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// All bindings, ascending.
    pub fn bindings(&self) -> impl Iterator<Item = &Binding> {
        self.records.iter().flat_map(|record| &record.bindings)
    }

    /// One record that says as much as all of them, except that bindings up to `kept` are gone. None for an
    /// empty log.
    pub fn compacted(&self, kept: Epoch) -> Option<Record> {
        let (first, last) = (self.records.first()?, self.records.last()?);
        let after = kept.clamp(first.after, last.upper);
        let bindings = self
            .bindings()
            .filter(|binding| binding.epoch > after)
            .cloned()
            .collect();
        Some(Record {
            after,
            bindings,
            ..last.clone()
        })
    }
}

/// A record's line.
pub fn encode(record: &Record) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(record).map_err(|error| Error::internal(format!("progress: {error}")))?;
    let mut line = format!("{:08x} ", crc32fast::hash(&json)).into_bytes();
    line.extend_from_slice(&json);
    line.push(b'\n');
    Ok(line)
}

/// Reads a log.
pub fn read(bytes: &[u8]) -> Result<Log, Damage> {
    let mut log = Log::default();
    let mut offset = 0;
    while offset < bytes.len() {
        let rest = &bytes[offset..];
        let damage = |reason: String| Damage {
            offset: offset as u64,
            reason,
        };
        let Some(end) = memchr::memchr(b'\n', rest) else {
            // A whole record with one byte behind it that is no LF was never left by a crash: the LF is what
            // changed.
            if decode(&rest[..rest.len() - 1]).is_ok() {
                return Err(damage("its last byte is not a line end".to_owned()));
            }
            log.torn = rest.len() as u64;
            break;
        };
        let record = decode(&rest[..end]).map_err(damage)?;
        follows(log.records.last(), &record).map_err(damage)?;
        offset += end + 1;
        log.records.push(record);
        log.ends.push(offset as u64);
    }
    Ok(log)
}

/// A line without its LF. The digits are compared as text: an upper-case one is a flipped bit.
fn decode(line: &[u8]) -> Result<Record, String> {
    let (head, json) = line.split_at_checked(9).ok_or("it is too short")?;
    if head != format!("{:08x} ", crc32fast::hash(json)).as_bytes() {
        return Err("its checksum does not fit".to_owned());
    }
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

/// Whether a record goes on where the one before it ended, with ascending bindings in between its epochs.
fn follows(before: Option<&Record>, record: &Record) -> Result<(), String> {
    if let Some(before) = before.filter(|before| before.upper != record.after) {
        return Err(format!(
            "it goes on after epoch {}, not {}",
            record.after, before.upper
        ));
    }
    let epochs: Vec<Epoch> = record.bindings.iter().map(|binding| binding.epoch).collect();
    let ascending = epochs.windows(2).all(|pair| pair[0] < pair[1]);
    let inside = epochs
        .iter()
        .all(|epoch| *epoch > record.after && *epoch <= record.upper);
    match record.after <= record.upper && ascending && inside {
        true => Ok(()),
        false => Err(format!(
            "its bindings do not lie in epochs {} to {}",
            record.after, record.upper
        )),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::binding::PartitionBinding;
    use super::*;

    /// `count` records of two epochs each, after the one of the first start.
    fn sample(count: u64) -> Vec<Record> {
        let record = |number: u64| {
            let upper = 2 * number;
            let after = upper.saturating_sub(2);
            let partitions = vec![PartitionBinding {
                end: upper,
                ..Default::default()
            }];
            let bindings = (after + 1..=upper).map(|epoch| Binding {
                epoch,
                partitions: partitions.clone(),
                ..Binding::default()
            });
            let lengths = BTreeMap::from([("email.jsonl".to_owned(), 10 * upper)]);
            let (generation, nonce, plan_hash) = (1, 77, 5);
            Record {
                generation,
                nonce,
                plan_hash,
                after,
                upper,
                lengths,
                bindings: bindings.collect(),
            }
        };
        (0..=count).map(record).collect()
    }

    fn bytes(records: &[Record]) -> Vec<u8> {
        records
            .iter()
            .flat_map(|record| encode(record).unwrap())
            .collect()
    }

    #[test]
    fn reads_what_was_written() {
        let records = sample(3);
        let bytes = bytes(&records);
        let log = read(&bytes).unwrap();
        assert_eq!(
            (&log.records, log.sound(), log.torn),
            (&records, bytes.len() as u64, 0)
        );
        assert_eq!(
            log.bindings().map(|binding| binding.epoch).collect::<Vec<_>>(),
            [1, 2, 3, 4, 5, 6]
        );
        assert_eq!(read(b"").unwrap(), Log::default());
    }

    /// A truncation leaves a prefix of the records and is reported; it never invents or changes one.
    #[test]
    fn every_truncation_is_a_torn_record() {
        let records = sample(3);
        let bytes = bytes(&records);
        let ends = read(&bytes).unwrap().ends;
        for length in 0..=bytes.len() {
            let log = read(&bytes[..length]).unwrap();
            let complete = ends.iter().filter(|end| **end <= length as u64).count();
            assert_eq!(log.records, records[..complete], "cut at {length}");
            assert_eq!(log.torn, length as u64 - log.sound(), "cut at {length}");
        }
    }

    #[test]
    fn every_flipped_bit_is_damage_at_its_line() {
        let sound = bytes(&sample(2));
        let ends = read(&sound).unwrap().ends;
        for bit in 0..sound.len() * 8 {
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let line = ends.iter().filter(|end| **end <= (bit / 8) as u64).count();
            let start = if line == 0 { 0 } else { ends[line - 1] };
            let damage = read(&bytes).expect_err("a flipped bit");
            assert_eq!(damage.offset, start, "bit {bit}: {}", damage.reason);
        }
    }

    #[test]
    fn lost_line_is_damage() {
        let mut records = sample(3);
        records.remove(2);
        assert!(
            read(&bytes(&records))
                .unwrap_err()
                .reason
                .contains("after epoch 4, not 2")
        );
        // ... unless it is the front that is gone: that is what compaction does.
        assert_eq!(read(&bytes(&sample(3)[2..])).unwrap().records[0].after, 2);
    }

    #[test]
    fn compaction_keeps_every_binding_above() {
        let log = read(&bytes(&sample(3))).unwrap();
        for (kept, after) in [(0, 0), (1, 1), (3, 3), (6, 6), (9, 6)] {
            let record = log.compacted(kept).unwrap();
            let again = read(&bytes(std::slice::from_ref(&record))).unwrap();
            let last = log.records.last().unwrap();
            assert_eq!(
                (record.after, record.upper, &record.lengths),
                (after, last.upper, &last.lengths)
            );
            let epochs: Vec<_> = again.bindings().map(|binding| binding.epoch).collect();
            assert_eq!(epochs, (after + 1..=6).collect::<Vec<_>>(), "kept {kept}");
        }
        assert_eq!(Log::default().compacted(3), None);
    }
}

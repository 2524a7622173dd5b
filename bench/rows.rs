//! Decoded rows in five forms: what the replay log saves, and whether another form would save more.
//!
//! ```text
//!  entries ─► json     the lines of a file, by the program's decoder
//!          ├► avro     the messages of a topic, by the program's decoder
//!          ├► rows     blocks of the replay log, by abomonation, in files with checksums
//!          ├► bincode  blocks of the same messages
//!          └► columnar blocks of the same messages, a column a field
//! ```
//!
//! Every form ends where a replay begins: as owned, checked messages in order. Bincode and columnar are given
//! an easier task than the log: they lie in memory, have no checksum, and know neither dead letters nor the
//! bytes of late records. All must give the same messages, or the run fails.

use crate::digest::{joined, number, text};
use crate::process::now;
use columnar::{BorrowedOf, Columnar, ContainerOf, FromBytes as _, Index as _, Len as _, Push as _};
use serde::{Deserialize, Serialize};
use std::hint::black_box;
use std::path::PathBuf;
use tidegate::format::avro::{self, Encoder, Writer};
use tidegate::format::json::{self, Message};
use tidegate::record::{Record as _, Text};
use tidegate::replay_log::{Builder, Found, Log, Original};
use tidegate::time::BEFORE_ALL;
use tidegate_dataflows::generator::{Day, entries};
use tidegate_dataflows::records::{AccountEntry, Direction};

/// Rows of a block of bincode and columnar; the log cuts its own, of about as many.
const BLOCK_ROWS: usize = 2_000;

/// How the rows lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Lines of a file.
    Json,
    /// Messages of a topic.
    Avro,
    /// The replay log.
    Rows,
    /// Blocks of bincode.
    Bincode,
    /// Blocks of columns.
    Columnar,
}

impl Form {
    /// All of them, the one that others are compared with first.
    pub const ALL: [Form; 5] = [Form::Json, Form::Avro, Form::Rows, Form::Bincode, Form::Columnar];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Form::Json => "JSON",
            Form::Avro => "Avro",
            Form::Rows => "replay log",
            Form::Bincode => "bincode",
            Form::Columnar => "columnar",
        }
    }
}

/// What a form came to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Messages.
    pub rows: u64,
    /// Of all of them, as they lie.
    pub bytes: u64,
    /// From records to bytes; of JSON and Avro somebody else's task.
    pub write_seconds: f64,
    /// From bytes to messages.
    pub read_seconds: f64,
    /// Of the messages that came out, in order.
    pub digest: u64,
}

impl Figures {
    /// Messages a second, read.
    pub fn read_rate(&self) -> f64 {
        self.rows as f64 / self.read_seconds.max(1e-9)
    }

    /// Messages a second, written.
    pub fn write_rate(&self) -> f64 {
        self.rows as f64 / self.write_seconds.max(1e-9)
    }
}

/// Writes and reads the entries of a day in a form.
pub fn measure(form: Form, seed: u64, accounts: u32, rows: u64) -> Figures {
    let day = Day {
        entries: rows,
        ..Day::new(seed, accounts)
    };
    let messages: Vec<(Text, AccountEntry)> = entries(day)
        .filter_map(|message| Some((message.key, message.value?)))
        .collect();
    match form {
        Form::Json => timed(&messages, json_lines, |lines, each| read_json(lines, each)),
        Form::Avro => timed(&messages, avro_messages, read_avro),
        Form::Rows => timed(&messages, log_blocks, read_log),
        Form::Bincode => timed(&messages, bincode_blocks, |blocks, each| {
            read_bincode(blocks, each)
        }),
        Form::Columnar => timed(&messages, column_blocks, |blocks, each| {
            read_columns(blocks, each)
        }),
    }
}

/// The messages' bytes and how many there are; then each of them again.
fn timed<B>(
    messages: &[(Text, AccountEntry)],
    write: impl FnOnce(&[(Text, AccountEntry)]) -> (B, u64),
    read: impl FnOnce(&B, &mut dyn FnMut(&str, AccountEntry)),
) -> Figures {
    let began = now();
    let (written, bytes) = write(messages);
    let write_seconds = began.elapsed().as_secs_f64();
    // What is compared is cheap beside what is measured, and the same for all.
    let (mut rows, mut digest) = (0, 0_u64);
    let began = now();
    read(&written, &mut |key, entry| {
        rows += 1;
        let amounts = entry.amount ^ entry.balance_after ^ entry.booked_at;
        digest = digest.rotate_left(1) ^ amounts.cast_unsigned() ^ (key.len() as u64);
        black_box(&entry);
        if rows % 1_024 == 0 {
            let counterparty = entry.counterparty.as_deref().unwrap_or_default();
            let parts = [
                text(&entry.entry_id),
                text(&entry.currency),
                text(counterparty),
                number(rows),
            ];
            digest ^= joined(&parts);
        }
    });
    let read_seconds = began.elapsed().as_secs_f64();
    Figures {
        rows: rows.cast_unsigned(),
        bytes,
        write_seconds,
        read_seconds,
        digest,
    }
}

fn json_lines(messages: &[(Text, AccountEntry)]) -> (Vec<u8>, u64) {
    #[derive(Serialize)]
    struct Line<'a> {
        key: &'a str,
        value: &'a AccountEntry,
    }
    let mut lines = Vec::new();
    for (key, value) in messages {
        serde_json::to_writer(&mut lines, &Line { key, value }).expect("memory takes it");
        lines.push(b'\n');
    }
    let bytes = lines.len() as u64;
    (lines, bytes)
}

fn read_json(lines: &[u8], each: &mut dyn FnMut(&str, AccountEntry)) {
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let message = json::decode_line::<AccountEntry>(line, false).expect("an entry's line");
        each(&message.key, message.value.expect("no tombstone"));
    }
}

/// Keys and values one behind the other, and the lengths of both.
type Arena = (Vec<u8>, Vec<(usize, usize)>);

fn avro_messages(messages: &[(Text, AccountEntry)]) -> (Arena, u64) {
    let encoder = Encoder::new(AccountEntry::SCHEMA, 1).expect("the contract's schema");
    let (mut arena, mut lengths) = (Vec::new(), Vec::new());
    for (key, value) in messages {
        arena.extend_from_slice(key.as_bytes());
        let before = arena.len();
        encoder.encode(value, &mut arena);
        lengths.push((key.len(), arena.len() - before));
    }
    let bytes = arena.len() as u64;
    ((arena, lengths), bytes)
}

fn read_avro((arena, lengths): &Arena, each: &mut dyn FnMut(&str, AccountEntry)) {
    let writer = Writer::parse(AccountEntry::SCHEMA, &[]).expect("the contract's schema");
    let mut rest = arena.as_slice();
    for (key_length, length) in lengths {
        let (key, behind) = rest.split_at(*key_length);
        let (message, behind) = behind.split_at(*length);
        rest = behind;
        // As the source does: the schema's id, the key, the record, its check.
        assert_eq!(avro::schema_id(message).ok(), Some(1));
        let key = Text::from(std::str::from_utf8(key).expect("a key"));
        let entry: AccountEntry = avro::decode(&writer, avro::body(message)).expect("an entry");
        entry.check(&key).expect("a valid entry");
        each(&key, entry);
    }
}

/// A directory of its own, removed when dropped.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const FINGERPRINT: u64 = 1;

fn log_blocks(messages: &[(Text, AccountEntry)]) -> (Directory, u64) {
    let name = format!("tidegate-bench-rows-{}", std::process::id());
    let directory = Directory(std::env::temp_dir().join(name));
    let mut log = Log::open(&directory.0, "entries", 0, FINGERPRINT).expect("a directory");
    let mut builder = Builder::new(0);
    let mut flush = |builder: &mut Builder<AccountEntry>| {
        if let Some(block) = builder.finish() {
            log.append(&block).expect("room");
        }
    };
    for (offset, (key, value)) in (0..).zip(messages) {
        let original = Original {
            offset,
            end: offset + 1,
            timestamp: None,
            key: None,
            value: None,
        };
        let message = Message {
            key: key.clone(),
            timestamp: None,
            value: Some(value.clone()),
        };
        builder.push(original, &Ok(message), BEFORE_ALL);
        if builder.is_full() {
            flush(&mut builder);
        }
    }
    flush(&mut builder);
    log.finish().expect("published");
    let entries = std::fs::read_dir(&directory.0).expect("the directory");
    let lengths = entries.map(|entry| {
        entry
            .and_then(|entry| entry.metadata())
            .map_or(0, |file| file.len())
    });
    let bytes = lengths.sum();
    (directory, bytes)
}

fn read_log(directory: &Directory, each: &mut dyn FnMut(&str, AccountEntry)) {
    let mut log = Log::open(&directory.0, "entries", 0, FINGERPRINT).expect("the log");
    let mut offset = 0;
    while let Found::Rows(mut block) = log.read(offset, BEFORE_ALL) {
        for row in block.rows::<AccountEntry>().expect("a sound block") {
            let message = row.expect("a sound row").outcome.expect("no dead letter");
            each(&message.key, message.value.expect("no tombstone"));
        }
        offset = block.end();
    }
}

fn bincode_blocks(messages: &[(Text, AccountEntry)]) -> (Vec<Vec<u8>>, u64) {
    let block = |rows: &[(Text, AccountEntry)]| bincode::serialize(rows).expect("memory takes it");
    let blocks: Vec<Vec<u8>> = messages.chunks(BLOCK_ROWS).map(block).collect();
    let bytes = blocks.iter().map(|block| block.len() as u64).sum();
    (blocks, bytes)
}

fn read_bincode(blocks: &[Vec<u8>], each: &mut dyn FnMut(&str, AccountEntry)) {
    for block in blocks {
        let rows: Vec<(Text, AccountEntry)> = bincode::deserialize(block).expect("what was written");
        for (key, entry) in rows {
            each(&key, entry);
        }
    }
}

/// An entry as columns take it.
#[derive(Columnar)]
struct Columns {
    key: String,
    entry_id: String,
    account_id: String,
    booked_at: i64,
    direction: u8,
    amount: i64,
    currency: String,
    balance_after: i64,
    counterparty: Option<String>,
}

fn column_blocks(messages: &[(Text, AccountEntry)]) -> (Vec<Vec<u64>>, u64) {
    let block = |rows: &[(Text, AccountEntry)]| {
        let mut columns = ContainerOf::<Columns>::default();
        for (key, entry) in rows {
            columns.push(&Columns {
                key: key.to_string(),
                entry_id: entry.entry_id.to_string(),
                account_id: entry.account_id.to_string(),
                booked_at: entry.booked_at,
                direction: entry.direction as u8,
                amount: entry.amount,
                currency: entry.currency.to_string(),
                balance_after: entry.balance_after,
                counterparty: entry.counterparty.as_ref().map(Text::to_string),
            });
        }
        let mut words = Vec::new();
        columnar::bytes::indexed::encode(&mut words, &columnar::Borrow::borrow(&columns));
        words
    };
    let blocks: Vec<Vec<u64>> = messages.chunks(BLOCK_ROWS).map(block).collect();
    let bytes = blocks.iter().map(|block| 8 * block.len() as u64).sum();
    (blocks, bytes)
}

fn read_columns(blocks: &[Vec<u64>], each: &mut dyn FnMut(&str, AccountEntry)) {
    let text = |bytes: &[u8]| Text::from(std::str::from_utf8(bytes).expect("UTF-8"));
    for block in blocks {
        let columns = BorrowedOf::<'_, Columns>::from_bytes(&mut columnar::bytes::indexed::decode(block));
        for row in 0..columns.len() {
            let row = columns.get(row);
            let entry = AccountEntry {
                entry_id: text(row.entry_id),
                account_id: text(row.account_id),
                booked_at: *row.booked_at,
                direction: if *row.direction == 0 {
                    Direction::Debit
                } else {
                    Direction::Credit
                },
                amount: *row.amount,
                currency: text(row.currency),
                balance_after: *row.balance_after,
                counterparty: row.counterparty.map(text),
            };
            let key = text(row.key);
            each(&key, entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_gives_the_same_messages() {
        let figures = Form::ALL.map(|form| measure(form, 1, 500, 5_000));
        for (form, found) in Form::ALL.iter().zip(&figures) {
            assert!(found.rows > 4_000 && found.bytes > 0, "{form:?}: {found:?}");
            assert_eq!(
                (found.rows, found.digest),
                (figures[0].rows, figures[0].digest),
                "{form:?}"
            );
        }
    }
}

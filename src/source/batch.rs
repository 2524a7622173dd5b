//! Messages of one topic partition on their way from the reader to a worker: an arena and an index.
//!
//! A batch may stand for more offsets than it has messages: markers of transactions, aborted messages and
//! compaction leave holes. `end` is where the partition is read on.
//!
//! Batches are also what is kept of a compacted topic, whose messages may be gone when an epoch is replayed:
//! as text, in the epoch's binding.

use crate::time::{EVENT_TIMES, Millis};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

/// See the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Offset after the last message, holes included.
    pub end: u64,
    bytes: Vec<u8>,
    index: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    offset: u64,
    timestamp: Option<Millis>,
    /// Length of the key, which lies in front of the value.
    key: Option<u32>,
    /// Length of the value.
    value: Option<u32>,
}

/// One message of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its offset.
    pub offset: u64,
    /// Message time, where it has one within the range of event times.
    pub timestamp: Option<Millis>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; none is a tombstone.
    pub value: Option<&'a [u8]>,
}

impl Batch {
    /// No message up to `end`.
    pub fn empty(end: u64) -> Batch {
        Batch {
            end,
            ..Batch::default()
        }
    }

    /// Adds a message behind all others.
    pub fn push(&mut self, message: Message<'_>) {
        let mut append = |part: Option<&[u8]>| {
            let part = part?;
            self.bytes.extend_from_slice(part);
            // The client refuses messages of 1 GB and more.
            Some(u32::try_from(part.len()).unwrap_or(u32::MAX))
        };
        let (key, value) = (append(message.key), append(message.value));
        let timestamp = message.timestamp.filter(|time| EVENT_TIMES.contains(time));
        let offset = message.offset;
        self.index.push(Entry {
            offset,
            timestamp,
            key,
            value,
        });
        self.end = offset + 1;
    }

    /// The messages, in order.
    pub fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        let mut rest = self.bytes.as_slice();
        self.index.iter().map(move |entry| {
            let mut take = |length: Option<u32>| {
                let (part, behind) = rest.split_at_checked(length? as usize)?;
                rest = behind;
                Some(part)
            };
            let (key, value) = (take(entry.key), take(entry.value));
            Message {
                offset: entry.offset,
                timestamp: entry.timestamp,
                key,
                value,
            }
        })
    }

    /// The part of it that lies before an offset. What it held behind stays in memory as long as it does.
    pub fn before(mut self, end: u64) -> Batch {
        self.index.retain(|entry| entry.offset < end);
        self.end = self.end.min(end);
        self
    }

    /// Whether it holds no message.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// What it takes in memory, about, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.len() + self.index.len() * size_of::<Entry>()
    }

    /// As text, for a binding.
    pub fn to_text(&self) -> String {
        // Writing integers and bytes into memory cannot fail.
        STANDARD.encode(postcard::to_stdvec(self).unwrap_or_default())
    }

    /// Back from text; none if it is damaged.
    pub fn from_text(text: &str) -> Option<Batch> {
        postcard::from_bytes(&STANDARD.decode(text).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<'a>(offset: u64, key: Option<&'a str>, value: Option<&'a str>) -> Message<'a> {
        Message {
            offset,
            timestamp: Some(5),
            key: key.map(str::as_bytes),
            value: value.map(str::as_bytes),
        }
    }

    #[test]
    fn a_batch_gives_what_was_put_in() {
        let messages = [
            message(3, Some("k"), Some("value")),
            message(4, None, Some("")),
            message(9, Some(""), None),
        ];
        let mut batch = Batch::default();
        messages.iter().for_each(|message| batch.push(*message));
        assert_eq!(batch.messages().collect::<Vec<_>>(), messages);
        assert_eq!(batch.end, 10);
        let before = batch.clone().before(9);
        assert_eq!(before.messages().collect::<Vec<_>>(), messages[..2]);
        assert_eq!(before.end, 9);
        assert_eq!(Batch::from_text(&batch.to_text()), Some(batch.clone()));
        assert_eq!(Batch::from_text("no"), None);
    }

    #[test]
    fn a_time_outside_the_range_is_none() {
        let mut batch = Batch::default();
        batch.push(Message {
            timestamp: Some(-1),
            ..message(0, None, None)
        });
        assert_eq!(
            batch.messages().next().and_then(|message| message.timestamp),
            None
        );
    }
}

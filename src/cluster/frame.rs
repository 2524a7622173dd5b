//! Frames of a control connection: a message in parts, a heartbeat, an end. Pure: bytes in, frames out.
//!
//! ```text
//!  kind u8 │ length u32 LE │ crc32 u32 LE over kind, length and payload │ payload
//! ```
//!
//! A message longer than [`FRAME_BYTES`](limits::FRAME_BYTES) travels in parts, so that a heartbeat, a short
//! message or an end can pass between them; parts of two messages never mix, which is up to the sender.
//!
//! TCP keeps order and almost always content; the checksum is for the rest, and for whoever writes into the
//! wrong socket. A damaged frame ends the connection: what follows it cannot be trusted to begin where it
//! should.

use crate::error::{Error, Kind, Result};
use crate::limits;

/// Bytes before the payload.
const HEAD_BYTES: usize = 9;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    /// Nothing but that its sender lives.
    Beat = 0,
    /// A part of a long message; more follow.
    Part = 1,
    /// The last part of a long message.
    Last = 2,
    /// A whole message.
    Whole = 3,
    /// The sender is done, and nothing follows.
    Goodbye = 4,
    /// The sender has failed, and nothing follows: its one line.
    Failed = 5,
}

/// What arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A whole message.
    Message(Vec<u8>),
    /// The peer is done.
    Goodbye,
    /// The peer has failed, and says why.
    Failed(String),
}

fn frame(says: Says, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD_BYTES + payload.len());
    frame.push(says as u8);
    // A payload is at most FRAME_BYTES long: the callers below see to it.
    frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    let checksum = checksum(&frame, payload);
    frame.extend_from_slice(&checksum.to_le_bytes());
    frame.extend_from_slice(payload);
    frame
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(payload);
    hasher.finalize()
}

/// A sign of life.
pub fn beat() -> Vec<u8> {
    frame(Says::Beat, &[])
}

/// The clean end.
pub fn goodbye() -> Vec<u8> {
    frame(Says::Goodbye, &[])
}

/// The end by a failure, with its line, cut if it is very long.
pub fn failed(line: &str) -> Vec<u8> {
    let end = line.floor_char_boundary(limits::FRAME_BYTES);
    frame(Says::Failed, &line.as_bytes()[..end])
}

/// A short message in one frame; none if it does not fit.
pub fn whole(message: &[u8]) -> Option<Vec<u8>> {
    (message.len() <= limits::FRAME_BYTES).then(|| frame(Says::Whole, message))
}

/// A long message in as many frames as it takes.
pub fn parts(message: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let count = message.len().div_ceil(limits::FRAME_BYTES);
    let says = move |index| {
        if index + 1 < count { Says::Part } else { Says::Last }
    };
    let parts = message.chunks(limits::FRAME_BYTES).enumerate();
    parts.map(move |(index, part)| frame(says(index), part))
}

/// Puts frames together from bytes as they come.
#[derive(Default)]
pub struct Reader {
    /// What is not taken apart yet.
    bytes: Vec<u8>,
    /// Parts of a long message whose last one is not there yet.
    message: Vec<u8>,
}

impl Reader {
    /// Takes more bytes and gives what they complete, in order. After an error nothing it gives has a meaning.
    pub fn read(&mut self, more: &[u8]) -> Result<Vec<Arrival>> {
        self.bytes.extend_from_slice(more);
        let (mut arrivals, mut taken) = (Vec::new(), 0);
        while let Some((says, payload)) = next(&self.bytes[taken..])? {
            taken += HEAD_BYTES + payload.len();
            match says {
                Says::Beat => {}
                Says::Whole => arrivals.push(Arrival::Message(payload.to_vec())),
                Says::Part | Says::Last => {
                    if self.message.len() + payload.len() > limits::MESSAGE_BYTES {
                        return Err(damaged("a message that is too long"));
                    }
                    self.message.extend_from_slice(payload);
                    if says == Says::Last {
                        arrivals.push(Arrival::Message(std::mem::take(&mut self.message)));
                    }
                }
                Says::Goodbye => arrivals.push(Arrival::Goodbye),
                Says::Failed => {
                    arrivals.push(Arrival::Failed(String::from_utf8_lossy(payload).into_owned()));
                }
            }
        }
        self.bytes.drain(..taken);
        Ok(arrivals)
    }
}

/// The first frame, if it is whole.
fn next(bytes: &[u8]) -> Result<Option<(Says, &[u8])>> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
        return Ok(None);
    };
    let [kind, l0, l1, l2, l3, c0, c1, c2, c3] = *head;
    let says = match kind {
        0 => Says::Beat,
        1 => Says::Part,
        2 => Says::Last,
        3 => Says::Whole,
        4 => Says::Goodbye,
        5 => Says::Failed,
        other => return Err(damaged(&format!("a frame of kind {other}"))),
    };
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if length > limits::FRAME_BYTES {
        return Err(damaged(&format!("a frame of {length} bytes")));
    }
    let Some(payload) = rest.get(..length) else {
        return Ok(None);
    };
    if checksum(&head[..5], payload) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err(damaged("a frame whose checksum differs"));
    }
    Ok(Some((says, payload)))
}

fn damaged(what: &str) -> Error {
    Error::new(Kind::PeerLost, format!("it sent {what}"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn all(bytes: &[u8], step: usize) -> Result<Vec<Arrival>> {
        let mut reader = Reader::default();
        let mut arrivals = Vec::new();
        for piece in bytes.chunks(step) {
            arrivals.extend(reader.read(piece)?);
        }
        Ok(arrivals)
    }

    #[test]
    fn messages_arrive_whole_and_in_order_however_they_are_cut() {
        let long: Vec<u8> = (0..200_000_u32).map(|byte| byte as u8).collect();
        let mut bytes = Vec::new();
        bytes.extend(whole(b"").unwrap());
        assert_eq!(whole(&long), None);
        for (part, short) in parts(&long).zip([&b"one"[..], b"two", b"three", b"four"]) {
            bytes.extend(part);
            bytes.extend(beat());
            bytes.extend(whole(short).unwrap());
        }
        bytes.extend(failed("disk full"));
        bytes.extend(goodbye());
        let expected = vec![
            Arrival::Message(Vec::new()),
            Arrival::Message(b"one".to_vec()),
            Arrival::Message(b"two".to_vec()),
            Arrival::Message(b"three".to_vec()),
            Arrival::Message(long.clone()),
            Arrival::Message(b"four".to_vec()),
            Arrival::Failed("disk full".to_owned()),
            Arrival::Goodbye,
        ];
        for step in [1, 7, 4_096, bytes.len()] {
            assert_eq!(all(&bytes, step).unwrap(), expected, "in pieces of {step}");
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let whole = whole(b"eleven byte").unwrap();
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // A length that grew waits for bytes that never come; whatever follows then shows the damage.
            flipped.extend(vec![0xff; limits::FRAME_BYTES]);
            let found = all(&flipped, 64).unwrap_err();
            assert_eq!(found.kind, Kind::PeerLost, "bit {bit}: {found}");
        }
    }

    #[test]
    fn half_a_frame_is_nothing_yet() {
        let whole = whole(b"message").unwrap();
        for length in 0..whole.len() {
            assert_eq!(all(&whole[..length], 3).unwrap(), []);
        }
    }
}

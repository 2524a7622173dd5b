//! A message of a topic as it travels in [`Rows`](super::Rows), from the worker that encoded it to the
//! committer that produces it.
//!
//! ```text
//!  partition u32 │ key length u32, MAX: none │ origin length u32 │ key │ origin │ value
//! ```
//!
//! All integers little-endian. Written and read by the same program, never stored.

/// The length that says that there is no key.
const NO_KEY: u32 = u32::MAX;

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Partition of its topic.
    pub partition: u32,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// `input/partition/offset` of what it comes from; empty where that is no single message.
    pub origin: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
}

/// Appends everything but the value, which the caller appends behind it.
pub fn write_head(partition: u32, key: Option<&[u8]>, origin: &[u8], bytes: &mut Vec<u8>) {
    let length = |part: &[u8]| u32::try_from(part.len()).unwrap_or(NO_KEY - 1);
    for number in [partition, key.map_or(NO_KEY, length), length(origin)] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(key.unwrap_or_default());
    bytes.extend_from_slice(origin);
}

/// Takes a message apart; none if the bytes are none.
pub fn read(bytes: &[u8]) -> Option<Message<'_>> {
    let number = |bytes: &[u8]| Some(u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?));
    let (partition, key, origin) = (number(bytes)?, number(bytes.get(4..)?)?, number(bytes.get(8..)?)?);
    let rest = &bytes[12..];
    let (key, rest) = match key {
        NO_KEY => (None, rest),
        length => {
            let (key, rest) = rest.split_at_checked(length as usize)?;
            (Some(key), rest)
        }
    };
    let (origin, value) = rest.split_at_checked(origin as usize)?;
    Some(Message {
        partition,
        key,
        origin,
        value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (key, origin, value) in [
            (Some("key"), "entries/0/7", "value"),
            (None, "", ""),
            (Some(""), "", "v"),
        ] {
            let message = Message {
                partition: 3,
                key: key.map(str::as_bytes),
                origin: origin.as_bytes(),
                value: value.as_bytes(),
            };
            let mut bytes = Vec::new();
            write_head(message.partition, message.key, message.origin, &mut bytes);
            bytes.extend_from_slice(message.value);
            assert_eq!(read(&bytes), Some(message));
        }
        assert_eq!(read(&[1, 2, 3]), None);
    }
}

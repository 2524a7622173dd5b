//! The frame around every object of the state store: one line of text, then the body.
//!
//! `tidegate-manifest-1 8d2f0c51 1734\n`: what it is and in which version of its layout, CRC-32 of the body,
//! length of the body in bytes. Reading writes the line again and compares, so that no bit of an object is
//! without effect.

/// Wraps a body. The kind carries the version of the body's layout: `manifest-1`.
pub(super) fn frame(kind: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = header(kind, body).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// The body, or what is wrong with the bytes.
pub(super) fn unframe<'a>(kind: &str, bytes: &'a [u8]) -> Result<&'a [u8], String> {
    let end = memchr::memchr(b'\n', bytes).ok_or("its first line is cut off")?;
    let (line, body) = bytes.split_at(end + 1);
    if line == header(kind, body).as_bytes() {
        return Ok(body);
    }
    let own = format!("tidegate-{kind} ");
    Err(match line.starts_with(own.as_bytes()) {
        true => format!("its checksum or length does not fit its {} bytes", body.len()),
        false => format!("it does not begin with \"{own}\""),
    })
}

fn header(kind: &str, body: &[u8]) -> String {
    format!("tidegate-{kind} {:08x} {}\n", crc32fast::hash(body), body.len())
}

/// Holds that `decode` refuses every single flipped bit and every truncation of these bytes.
#[cfg(test)]
pub(super) fn assert_every_damage_is_found<T>(sound: &[u8], decode: impl Fn(&[u8]) -> Result<T, String>) {
    assert!(decode(sound).is_ok(), "sound bytes decode");
    for bit in 0..sound.len() * 8 {
        let mut bytes = sound.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&bytes).is_err(), "flipped bit {bit} is found");
    }
    for length in 0..sound.len() {
        assert!(
            decode(&sound[..length]).is_err(),
            "truncation to {length} bytes is found"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_every_damage() {
        for body in [&b""[..], b"\n", b"some body\nwith lines\n"] {
            let bytes = frame("thing-1", body);
            assert_eq!(unframe("thing-1", &bytes), Ok(body));
            assert!(
                unframe("thing-2", &bytes).is_err(),
                "another version of the layout is not read"
            );
            assert_every_damage_is_found(&bytes, |bytes| unframe("thing-1", bytes).map(<[u8]>::to_vec));
        }
    }
}

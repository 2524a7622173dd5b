//! From typed messages to encoded rows, on the worker that made them.

use super::{Row, Rows};
use crate::format::json;
use crate::record::{Messages, Output};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

/// Rows on their way to an output shard.
pub type Sharded = (u32, Rows);

/// The shard of a message: murmur2 of its key, as Kafka clients partition; without a key, of its origin.
pub fn shard_of<O: Output>(message: &O, shards: u32) -> u32 {
    if shards == 1 {
        return 0;
    }
    let hash = match message.key() {
        Some(key) => murmur2(key.as_bytes()),
        None => murmur2(message.origin().as_bytes()),
    };
    (hash & 0x7fff_ffff) % shards
}

/// The 32-bit murmur2 of Kafka's default partitioner (seed 0x9747b28c).
pub fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ data.len() as u32;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        for (at, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// Encodes the messages of one output as JSON lines, split by shard. Rows of one container travel in one arena.
pub fn encode<'s, O: Output>(
    messages: Messages<'s, O>,
    output: u16,
    shards: u32,
    name: &str,
) -> Messages<'s, Sharded> {
    messages.unary::<CapacityContainerBuilder<Vec<Sharded>>, _, _, _>(
        Pipeline,
        name,
        move |_capability, _info| {
            move |input, out| {
                input.for_each_time(|capability, containers| {
                    let mut arenas = vec![
                        Rows {
                            output,
                            ..Rows::default()
                        };
                        shards as usize
                    ];
                    let mut line = Vec::new();
                    for message in containers.flat_map(|container| container.drain(..)) {
                        line.clear();
                        json::write_line(&message, &mut line);
                        let shard = shard_of(&message, shards);
                        let rows = &mut arenas[shard as usize];
                        let start = rows.bytes.len() as u32;
                        rows.bytes.extend_from_slice(&line);
                        rows.index.push(Row {
                            rank: message.rank(),
                            start,
                            end: rows.bytes.len() as u32,
                        });
                    }
                    let filled = (0..shards).zip(arenas).filter(|(_, rows)| !rows.index.is_empty());
                    out.session(&capability).give_iterator(filled);
                });
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::murmur2;
    use crate::record::key_hash;

    /// Values of the Java client's own test.
    #[test]
    fn murmur2_agrees_with_the_java_client() {
        let cases: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, expected) in cases {
            assert_eq!(murmur2(key) as i32, expected, "{}", String::from_utf8_lossy(key));
        }
    }

    /// Checkpoints and shards outlive a release; the value was computed by this release's first build.
    #[test]
    fn the_key_hash_is_stable() {
        assert_eq!(key_hash(b""), 0x2d06_8005_38d3_94c2);
    }
}

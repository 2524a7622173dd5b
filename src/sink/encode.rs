//! From typed messages to encoded rows, on the worker that made them.

use super::{Row, Rows, message};
use crate::format::avro::Encoder;
use crate::format::json;
use crate::record::{Messages, Output};
use crate::watchdog;
use compact_str::{CompactString, format_compact};
use std::sync::Arc;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

/// Rows on their way to an output shard.
pub type Sharded = (u32, Rows);

/// How the messages of an output become bytes, and which shards they are spread over.
#[derive(Clone, Debug)]
pub struct Route {
    /// Index of the output in the plan.
    pub output: u16,
    /// The first of its shards ...
    pub first_shard: u32,
    /// ... and their number, > 0.
    pub shards: u32,
    /// What the bytes are.
    pub encoding: Encoding,
}

/// What the bytes of a message are.
#[derive(Clone, Debug)]
pub enum Encoding {
    /// A JSON line of a file: key and value.
    Line,
    /// A message of a topic with so many partitions, > 0: see [`message`].
    Message {
        /// Of the topic.
        partitions: u32,
        /// Its value.
        format: Format,
    },
}

/// The format of a topic's values.
#[derive(Clone, Debug)]
pub enum Format {
    /// JSON.
    Json,
    /// Avro with the wire header; none before the start has asked the registry for the schema's id.
    Avro(Option<Arc<Encoder>>),
}

impl Route {
    /// Encodes a message; gives its shard.
    fn encode<O: Output>(&self, message: &O, bytes: &mut Vec<u8>) -> u32 {
        match &self.encoding {
            Encoding::Line => {
                json::write_line(message, bytes);
                match self.shards {
                    1 => self.first_shard,
                    shards => self.first_shard + place_of(message) % shards,
                }
            }
            Encoding::Message { partitions, format } => {
                let partition = place_of(message) % partitions;
                let origin = origin_of(message);
                let key = message.key().map(str::as_bytes);
                message::write_head(partition, key, origin.as_bytes(), bytes);
                match format {
                    Format::Json | Format::Avro(None) => json::write_value(message, bytes),
                    Format::Avro(Some(encoder)) => encoder.encode(message, bytes),
                }
                // One owner for each partition: two producers would hold back each other's readers.
                self.first_shard + partition % self.shards
            }
        }
    }
}

/// Where a message belongs: murmur2 of its key, as Kafka clients partition; without a key, of its origin.
fn place_of<O: Output>(message: &O) -> u32 {
    let hash = match message.key() {
        Some(key) => murmur2(key.as_bytes()),
        None => murmur2(origin_of(message).as_bytes()),
    };
    hash & 0x7fff_ffff
}

fn origin_of<O: Output>(message: &O) -> CompactString {
    match message.origin() {
        Some((input, origin)) => format_compact!("{input}/{origin}"),
        None => CompactString::default(),
    }
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

/// Encodes the messages of one output, split by shard. Rows of one container travel in one arena a shard.
pub fn encode<'s, O: Output>(messages: Messages<'s, O>, route: Route, name: &str) -> Messages<'s, Sharded> {
    let watched = watchdog::Operator::named(name);
    messages.unary::<CapacityContainerBuilder<Vec<Sharded>>, _, _, _>(
        Pipeline,
        name,
        move |_capability, _info| {
            move |input, out| {
                watched.enter();
                input.for_each_time(|capability, containers| {
                    let mut arenas = vec![Rows::new(route.output); route.shards as usize];
                    let mut bytes = Vec::new();
                    for message in containers.flat_map(|container| container.drain(..)) {
                        bytes.clear();
                        let shard = route.encode(&message, &mut bytes);
                        let rows = &mut arenas[(shard - route.first_shard) as usize];
                        let start = rows.bytes.len() as u32;
                        rows.bytes.extend_from_slice(&bytes);
                        rows.index.push(Row {
                            rank: message.rank(),
                            start,
                            end: rows.bytes.len() as u32,
                        });
                    }
                    let numbered = (route.first_shard..).zip(arenas);
                    let filled = numbered.filter(|(_, rows)| !rows.index.is_empty());
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

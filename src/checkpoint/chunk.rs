//! Chunks: rows of one state shard, written once.
//!
//! ```text
//!  one shard, oldest to newest: sizes 800  90  40; a checkpoint brings 30 changed bytes
//!
//!   800 ─ 90 ─ 40 ─ (30)     takes in 40 (less than 2 x 30), then 90 (less than 2 x 70), not 800
//!   800 ─ 160                one new chunk is written
//! ```
//!
//! The later of two rows of a key wins, in a chunk and between chunks. A row without a value removes; such
//! rows are kept as long as an older chunk might still hold the key, and dropped when the oldest chunk takes
//! part in a merge.
//!
//! **What is written follows what changed.** [`absorbed`] leaves every chunk at least [`GROWTH`] times as
//! large as all newer ones together, so a shard has a logarithm of its size of chunks, and a byte is written
//! again only when its chunk has grown by a half. Placement is `hash % STATE_SHARDS`, independent of the
//! number of workers.

use super::frame::{frame, unframe};
use super::row::StateRow;
use crate::error::{Error, Result};
use crate::limits::STATE_SHARDS;

const KIND: &str = "chunk-1";

/// A chunk smaller than this many times what is newer is merged with it.
pub const GROWTH: u64 = 2;

/// The state shard of a row.
pub fn shard(hash: u64) -> usize {
    let shards = STATE_SHARDS as u64;
    (hash % shards) as usize
}

/// How many of the newest chunks a new one of this size takes in, given the sizes of all, oldest first, in
/// bytes.
pub fn absorbed(sizes: &[u64], new: u64) -> usize {
    let mut total = new;
    let mut count = 0;
    for size in sizes.iter().rev() {
        if *size >= total.saturating_mul(GROWTH) {
            break;
        }
        total = total.saturating_add(*size);
        count += 1;
    }
    count
}

/// Rows, oldest first, as a chunk holds them: ordered by (operator, key), the last of each key only. `oldest`
/// says that nothing older exists, so that there is nothing left to remove.
pub fn merged(mut rows: Vec<StateRow>, oldest: bool) -> Vec<StateRow> {
    // Stable, so that the newest of a key is the last of its run; merging sorted runs is what this sort is
    // best at.
    rows.sort_by(|one, other| (one.operator, &one.key).cmp(&(other.operator, &other.key)));
    rows.dedup_by(|later, earlier| {
        let same = (later.operator, &later.key) == (earlier.operator, &earlier.key);
        if same {
            std::mem::swap(later, earlier);
        }
        same
    });
    if oldest {
        rows.retain(|row| row.value.is_some());
    }
    rows
}

/// The object of a chunk.
pub fn encode(shard: usize, rows: &[StateRow]) -> Result<Vec<u8>> {
    let body = postcard::to_stdvec(&(shard as u64, rows));
    Ok(frame(
        KIND,
        &body.map_err(|error| Error::internal(format!("chunk: {error}")))?,
    ))
}

/// The rows of a chunk, or what is wrong with its bytes.
pub fn decode(shard: usize, bytes: &[u8]) -> Result<Vec<StateRow>, String> {
    let body = unframe(KIND, bytes)?;
    let ((own, rows), rest): ((u64, Vec<StateRow>), _) =
        postcard::take_from_bytes(body).map_err(|error| error.to_string())?;
    match (own == shard as u64, rest.len()) {
        (true, 0) => Ok(rows),
        (true, extra) => Err(format!("{extra} bytes follow its rows")),
        (false, _) => Err(format!("it is of state shard {own}, not {shard}")),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::frame::assert_every_damage_is_found;
    use super::super::unreliable::Random;
    use super::*;
    use std::collections::BTreeMap;

    fn row(operator: u16, key: u64, value: Option<u64>) -> StateRow {
        let bytes = |number: u64| number.to_be_bytes().into();
        StateRow {
            operator,
            hash: key,
            key: bytes(key),
            value: value.map(bytes),
        }
    }

    #[test]
    fn round_trip_and_every_damage() {
        let rows = vec![row(0, 1, Some(2)), row(0, 2, None), row(7, u64::MAX, Some(0))];
        let bytes = encode(3, &rows).unwrap();
        assert_eq!(decode(3, &bytes).unwrap(), rows);
        assert!(decode(4, &bytes).unwrap_err().contains("state shard 3"));
        assert_every_damage_is_found(&bytes, |bytes| decode(3, bytes));
    }

    /// Chunks written by the policy, read back in order, are the model's map at every step.
    #[test]
    fn merging_equals_a_map() {
        for seed in 0..300 {
            let mut random = Random(seed);
            let mut model = BTreeMap::new();
            let mut chunks: Vec<Vec<StateRow>> = Vec::new();
            for step in 0..40 {
                let changes = 1 + random.below(if step == 0 { 60 } else { 8 });
                let changed: Vec<_> = (0..changes)
                    .map(|_| {
                        let value = (random.below(3) > 0).then(|| random.below(100));
                        row(random.below(2) as u16, random.below(50), value)
                    })
                    .collect();
                for row in &changed {
                    model.insert((row.operator, row.key.clone()), row.value.clone());
                }
                let changed = merged(changed, chunks.is_empty());
                let sizes: Vec<u64> = chunks.iter().map(|chunk| chunk.len() as u64).collect();
                let keep = chunks.len() - absorbed(&sizes, changed.len() as u64);
                let mut rows: Vec<_> = chunks.drain(keep..).flatten().collect();
                rows.extend(changed);
                chunks.push(merged(rows, keep == 0));

                let restored = merged(chunks.concat(), true);
                let found: Vec<_> = restored
                    .into_iter()
                    .map(|row| ((row.operator, row.key), row.value))
                    .collect();
                let live = model.iter().filter(|(_, value)| value.is_some());
                let expected: Vec<_> = live.map(|(key, value)| (key.clone(), value.clone())).collect();
                assert_eq!(found, expected, "seed {seed}, step {step}");
                assert!(
                    chunks[0].iter().all(|row| row.value.is_some()),
                    "the oldest chunk removes nothing"
                );
            }
        }
    }

    /// Ten thousand small checkpoints on a base a thousand times as large: what is written stays near what
    /// changed.
    #[test]
    fn what_is_written_follows_what_changed() {
        let (base, small, checkpoints) = (1_000_000_u64, 1_000_u64, 10_000_u64);
        let mut sizes = vec![base];
        let mut written = 0;
        for _ in 0..checkpoints {
            let keep = sizes.len() - absorbed(&sizes, small);
            let new = small + sizes.drain(keep..).sum::<u64>();
            sizes.push(new);
            written += new;
            assert!(sizes.len() <= 16, "few chunks: {sizes:?}");
        }
        let changed = checkpoints * small;
        // A byte is written again when its chunk has grown by a half: log1.5 of (base + changed) / small,
        // about 23.
        assert!(written < 23 * changed, "written {written}, changed {changed}");
        assert!(written > changed, "and merging is not free");
    }
}

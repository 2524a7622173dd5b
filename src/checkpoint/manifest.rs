//! Manifests: the numbered log of checkpoints. A checkpoint exists when its manifest does.
//!
//! A manifest names, per state shard, the chunks that together hold the shard's rows at epoch C, oldest
//! first, with the checksum of each, so that a chunk can be neither missing, damaged nor exchanged unnoticed.
//! Manifests are put if absent; losing a number means that another instance runs.

use super::binding::Positions;
use super::frame::{frame, unframe};
use super::store::{self, Published, Store};
use crate::error::{Error, Kind, Result};
use crate::limits::STATE_SHARDS;
use crate::time::Epoch;
use serde::{Deserialize, Serialize};

const KIND: &str = "manifest-1";

/// One checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The state is that after this epoch.
    pub epoch: Epoch,
    /// Greatest epoch bound when it was written, at least `epoch`; new epochs lie above it.
    pub greatest_epoch: Epoch,
    /// Who wrote it.
    pub generation: u64,
    /// Hash of the plan.
    pub plan_hash: u64,
    /// Where every input stood after `epoch`.
    pub positions: Positions,
    /// Names of the stateful operators; the index is [`StateRow::operator`](super::row::StateRow::operator).
    pub operators: Vec<String>,
    /// By state shard, [`STATE_SHARDS`] of them: its chunks, oldest first. Later rows win.
    pub shards: Vec<Vec<ChunkEntry>>,
}

/// A chunk as its manifest names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkEntry {
    /// Name in the store.
    pub name: String,
    /// Size of the object.
    pub bytes: u64,
    /// CRC-32 of the object.
    pub crc32: u32,
    /// Rows in it, removals included.
    pub rows: u64,
}

impl Manifest {
    /// Size of all its chunks: what a restore reads.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().flatten().map(|chunk| chunk.bytes).sum()
    }
}

/// A manifest as found: its number, and either itself or what is wrong with it.
pub type Found = (u64, Result<Manifest, String>);

/// Wins this number for the manifest; somebody else's under it: `AnotherInstance`.
pub fn put(store: &dyn Store, number: u64, manifest: &Manifest) -> Result<()> {
    match store::publish(store, &name(number), &encode(manifest)?)? {
        Published::Ours => Ok(()),
        Published::Theirs => Err(Error::new(
            Kind::AnotherInstance,
            format!("another instance has written checkpoint {number}; this one stops"),
        )),
    }
}

/// All manifests, by number. The damaged ones are for the caller to name.
pub fn all(store: &dyn Store) -> Result<Vec<Found>> {
    let mut manifests = Vec::new();
    for number in store::numbers(store, "manifests")? {
        let bytes = store::fetch(store, &name(number))?.unwrap_or_default();
        manifests.push((number, decode(&bytes)));
    }
    Ok(manifests)
}

/// Its name in the store.
pub fn name(number: u64) -> String {
    format!("manifests/{number:020}")
}

fn encode(manifest: &Manifest) -> Result<Vec<u8>> {
    let body = serde_json::to_vec(manifest).map_err(|error| Error::internal(format!("manifest: {error}")))?;
    Ok(frame(KIND, &body))
}

fn decode(bytes: &[u8]) -> Result<Manifest, String> {
    let manifest: Manifest =
        serde_json::from_slice(unframe(KIND, bytes)?).map_err(|error| error.to_string())?;
    match manifest.shards.len() {
        STATE_SHARDS => Ok(manifest),
        other => Err(format!(
            "it has {other} state shards, this version {STATE_SHARDS}"
        )),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::binding::{Binding, PartitionBinding};
    use super::super::frame::assert_every_damage_is_found;
    use super::*;

    fn sample() -> Manifest {
        let mut positions = Positions::new([5_000, 0]);
        let greatest = Some(1_700_000_000_000);
        let first = PartitionBinding {
            end: 300,
            greatest,
            path: Some("in/a.jsonl".into()),
            ..Default::default()
        };
        let second = PartitionBinding {
            input: 1,
            partition: 4,
            ended: true,
            ..Default::default()
        };
        positions.apply(&Binding {
            epoch: 9,
            partitions: vec![first, second],
            ..Default::default()
        });
        let chunk = ChunkEntry {
            name: "chunks/00-1-9".into(),
            bytes: 1 << 40,
            crc32: u32::MAX,
            rows: 3,
        };
        let mut shards = vec![Vec::new(); STATE_SHARDS];
        shards[3] = vec![chunk];
        let operators = vec!["alerts.devices".into(), "windows".into()];
        Manifest {
            epoch: 9,
            greatest_epoch: 12,
            generation: 2,
            plan_hash: 5,
            positions,
            operators,
            shards,
        }
    }

    #[test]
    fn round_trip_and_every_damage() {
        let bytes = encode(&sample()).unwrap();
        assert_eq!(decode(&bytes).unwrap(), sample());
        assert_every_damage_is_found(&bytes, decode);
    }

    #[test]
    fn a_number_is_won_once() {
        let store = store::open("memory:///").unwrap();
        put(store.as_ref(), 1, &sample()).unwrap();
        put(store.as_ref(), 1, &sample()).expect("our own manifest again, as after a lost answer");
        let other = Manifest {
            generation: 3,
            ..sample()
        };
        assert_eq!(
            put(store.as_ref(), 1, &other).unwrap_err().kind,
            Kind::AnotherInstance
        );
    }

    #[test]
    fn another_number_of_state_shards_is_refused() {
        let mut few = sample();
        few.shards.pop();
        assert!(
            decode(&encode(&few).unwrap())
                .unwrap_err()
                .contains("state shards")
        );
    }
}

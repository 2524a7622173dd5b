//! The series of checkpoints: writing the next one, reading one back, deleting what is no longer needed.
//!
//! ```text
//!  changed rows of shard 3 ─┐
//!  newest chunks of shard 3 ┴─ merged ─► chunk ─┐
//!  shards without a change keep their chunks ───┴─► manifest n + 1 ─► delete what no kept manifest names
//! ```
//!
//! Order makes it safe: chunks before the manifest that names them, manifest before any deletion, old
//! manifests before their chunks. A crash leaves at most objects that no manifest names; the next deletion
//! takes them along.
//!
//! With history ([`super::history`]) old checkpoints are kept as well, one an interval of event time.
//!
//! Refuses to merge into a damaged chunk (`StateDamaged`): every later checkpoint would carry the damage.

use super::binding::Positions;
use super::chunk;
use super::claim::Claim;
use super::history::{milestones, time_of};
use super::manifest::{self, ChunkEntry, Manifest};
use super::row::StateRow;
use super::store::{self, Published, Store};
use crate::crash;
use crate::error::{Error, Kind, Result};
use crate::limits::{CHECKPOINTS_KEPT, STATE_SHARDS};
use crate::time::{Epoch, Millis};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What the job's checkpoints have in common, and those that are kept.
pub struct Series {
    store: Arc<dyn Store>,
    generation: u64,
    plan_hash: u64,
    operators: Vec<String>,
    /// The newest readable ones, oldest first; the last is the base of the next.
    kept: Vec<(u64, Manifest)>,
    /// History: those that are kept beside them, and the least distance of two, milliseconds of event time.
    milestones: Vec<(u64, Manifest)>,
    history: Option<Millis>,
    /// Number of the next manifest, above every number found.
    next: u64,
    bytes_written: u64,
}

/// Rows read back: by state shard, in the order of (operator, key).
pub type Rows = Vec<Vec<StateRow>>;

impl Series {
    /// Goes on after `kept`, whose last checkpoint is the one that was restored, with manifest number `next`.
    pub fn new(
        store: Arc<dyn Store>,
        claim: &Claim,
        operators: Vec<String>,
        mut kept: Vec<(u64, Manifest)>,
        next: u64,
        history: Option<Millis>,
    ) -> Result<Self> {
        if let Some((number, other)) = kept.iter().find(|(_, manifest)| manifest.operators != operators) {
            let other = other.operators.join(", ");
            return Err(Error::new(
                Kind::StateDamaged,
                format!(
                    "checkpoint {number} is of the operators {other}, the job has {}",
                    operators.join(", ")
                ),
            ));
        }
        let old = kept
            .drain(..kept.len().saturating_sub(CHECKPOINTS_KEPT))
            .collect();
        let milestones = chosen(old, history);
        let (generation, plan_hash) = (claim.generation, claim.plan_hash);
        Ok(Series {
            store,
            generation,
            plan_hash,
            operators,
            kept,
            milestones,
            history,
            next,
            bytes_written: 0,
        })
    }

    /// Writes the checkpoint at `epoch`: the rows changed since the one before, and where the inputs stood.
    pub fn write(
        &mut self,
        epoch: Epoch,
        greatest_epoch: Epoch,
        rows: Vec<StateRow>,
        positions: Positions,
    ) -> Result<()> {
        crash::point("before-chunk");
        let mut shards = self
            .kept
            .last()
            .map_or(vec![Vec::new(); STATE_SHARDS], |(_, last)| last.shards.clone());
        let mut changed = vec![Vec::new(); STATE_SHARDS];
        for row in rows {
            changed[chunk::shard(row.hash)].push(row);
        }
        for (shard, rows) in changed
            .into_iter()
            .enumerate()
            .filter(|(_, rows)| !rows.is_empty())
        {
            shards[shard] = self.write_chunk(shard, epoch, rows, &shards[shard])?;
            crash::point("mid-chunk");
        }
        crash::point("after-chunk");
        let bound_before = self.newest().map_or(0, |last| last.greatest_epoch);
        let greatest_epoch = greatest_epoch.max(bound_before);
        let (generation, plan_hash, operators) = (self.generation, self.plan_hash, self.operators.clone());
        let manifest = Manifest {
            epoch,
            greatest_epoch,
            generation,
            plan_hash,
            positions,
            operators,
            shards,
        };
        crash::point("before-manifest");
        manifest::put(self.store.as_ref(), self.next, &manifest)?;
        crash::point("after-manifest");
        self.kept.push((self.next, manifest));
        let old = self.kept.len().saturating_sub(CHECKPOINTS_KEPT);
        self.milestones.extend(self.kept.drain(..old));
        self.milestones = chosen(std::mem::take(&mut self.milestones), self.history);
        self.next += 1;
        Ok(())
    }

    /// Writes one shard's rows, with as many of its newest chunks as belong into one with them; gives its new
    /// chunks.
    fn write_chunk(
        &mut self,
        shard: usize,
        epoch: Epoch,
        rows: Vec<StateRow>,
        chunks: &[ChunkEntry],
    ) -> Result<Vec<ChunkEntry>> {
        let mut rows = chunk::merged(rows, chunks.is_empty());
        let mut bytes = chunk::encode(shard, &rows)?;
        let sizes: Vec<u64> = chunks.iter().map(|chunk| chunk.bytes).collect();
        let keep = chunks.len() - chunk::absorbed(&sizes, bytes.len() as u64);
        if keep < chunks.len() {
            let mut all = Vec::new();
            for entry in &chunks[keep..] {
                all.extend(read_chunk(self.store.as_ref(), shard, entry)?.map_err(damaged)?);
            }
            all.append(&mut rows);
            rows = chunk::merged(all, keep == 0);
            bytes = chunk::encode(shard, &rows)?;
        }
        let mut chunks = chunks[..keep].to_vec();
        if rows.is_empty() {
            return Ok(chunks);
        }
        // No other generation writes this name, and this one comes to an epoch once.
        let name = format!("chunks/{shard:02}-{:010}-{epoch:020}", self.generation);
        if store::publish(self.store.as_ref(), &name, &bytes)? == Published::Theirs {
            return Err(Error::new(
                Kind::AnotherInstance,
                format!("another instance has written {name}"),
            ));
        }
        self.bytes_written += bytes.len() as u64;
        let (length, crc32) = (bytes.len() as u64, crc32fast::hash(&bytes));
        chunks.push(ChunkEntry {
            name,
            bytes: length,
            crc32,
            rows: rows.len() as u64,
        });
        Ok(chunks)
    }

    /// Deletes every manifest that is not kept, and every chunk that no kept one names.
    ///
    /// What cannot be deleted now is named in the log and tried again next time: it costs space, nothing
    /// else.
    pub fn collect(&self) -> Result<()> {
        crash::point("before-collect");
        let store = self.store.as_ref();
        let all = || self.milestones.iter().chain(&self.kept);
        let kept: BTreeSet<_> = all().map(|(number, _)| *number).collect();
        let manifests = store::numbers(store, "manifests")?.into_iter();
        // A number we have not reached is another instance's; winning ours will show it.
        let mut unneeded: Vec<_> = manifests
            .filter(|n| *n < self.next && !kept.contains(n))
            .map(manifest::name)
            .collect();
        let named: BTreeSet<_> = all()
            .flat_map(|(_, manifest)| manifest.shards.iter().flatten())
            .map(|chunk| chunk.name.as_str())
            .collect();
        let chunks = store::names(store, "chunks")?
            .into_iter()
            .map(|name| format!("chunks/{name}"));
        unneeded.extend(chunks.filter(|name| !named.contains(name.as_str())));
        for name in unneeded {
            if let Err(error) = store.delete(&name) {
                // Chunks of a manifest that could not be deleted stay with it.
                tracing::warn!("cannot delete {name} from the state store, trying again later: {error}");
                return Ok(());
            }
        }
        Ok(())
    }

    /// Bindings up to this epoch are needed no more: every kept checkpoint is newer. 0 as long as the start,
    /// the predecessor of the first checkpoints, may still be needed.
    pub fn oldest(&self) -> Epoch {
        match self.kept.len() {
            CHECKPOINTS_KEPT => self.kept[0].1.epoch,
            _ => 0,
        }
    }

    /// The newest checkpoint.
    pub fn newest(&self) -> Option<&Manifest> {
        self.kept.last().map(|(_, manifest)| manifest)
    }

    /// Bytes of chunks written by this process: follows what changed, not what exists.
    pub fn bytes_written(&self) -> u64 {
        self.bytes_written
    }
}

/// Those that history keeps of the checkpoints that a restart no longer needs.
fn chosen(old: Vec<(u64, Manifest)>, history: Option<Millis>) -> Vec<(u64, Manifest)> {
    let Some(interval) = history else {
        return Vec::new();
    };
    let times = old
        .iter()
        .map(|(number, manifest)| (*number, time_of(&manifest.positions)));
    let milestones = milestones(times, interval);
    old.into_iter()
        .filter(|(number, _)| milestones.contains(number))
        .collect()
}

/// Reads all rows of a checkpoint, or says which of its chunks is missing or damaged.
pub fn load(store: &dyn Store, manifest: &Manifest) -> Result<Result<Rows, String>> {
    let mut shards = Vec::new();
    for (shard, chunks) in manifest.shards.iter().enumerate() {
        let mut rows = Vec::new();
        for entry in chunks {
            match read_chunk(store, shard, entry)? {
                Ok(newer) => rows.extend(newer),
                Err(reason) => return Ok(Err(reason)),
            }
        }
        shards.push(chunk::merged(rows, true));
        if shard == 0 {
            crash::point("during-restore");
        }
    }
    Ok(Ok(shards))
}

fn read_chunk(store: &dyn Store, shard: usize, entry: &ChunkEntry) -> Result<Result<Vec<StateRow>, String>> {
    let Some(bytes) = store::fetch(store, &entry.name)? else {
        return Ok(Err(format!("{} is missing", entry.name)));
    };
    // The chunk's own checksum says that it is whole; the manifest's, that it is the one that is meant.
    if (bytes.len() as u64, crc32fast::hash(&bytes)) != (entry.bytes, entry.crc32) {
        let found = bytes.len();
        let reason = chunk::decode(shard, &bytes)
            .err()
            .unwrap_or_else(|| "it is another chunk".to_owned());
        return Ok(Err(format!(
            "{} ({found} bytes, recorded {}): {reason}",
            entry.name, entry.bytes
        )));
    }
    Ok(chunk::decode(shard, &bytes).map_err(|reason| format!("{}: {reason}", entry.name)))
}

fn damaged(reason: String) -> Error {
    let way_out = "start again to go on from an older checkpoint";
    Error::new(
        Kind::StateDamaged,
        format!("the newest checkpoint is damaged: {reason}; {way_out}"),
    )
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
#[path = "series_test.rs"]
mod test;

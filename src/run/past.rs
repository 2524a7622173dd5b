//! The recorded past of a job, read beside it: nothing is locked, claimed, fenced or written.
//!
//! ```text
//!  progress of every shard ─┐                      ┌ checkpoint C ─► rows, positions
//!  archives behind it      ─┴► bindings, unbroken ─┤ (C, end)      ─► what to take again
//!  manifests kept          ───────────────────────►└ [first, end)  ─► the span; digests, where outputs begin
//! ```
//!
//! A live job goes on meanwhile. Progress is read before the archives: what is dropped from the one in between is
//! in the other. A checkpoint that is deleted under our eyes was not kept by history, and the one before serves as
//! well; it is looked for again.
//!
//! **Refused:** a span that begins before the earliest kept checkpoint, naming the earliest time possible; a state
//! of another plan.
//!
//! All bindings of (C, end) are held in memory, some hundred bytes for each epoch that took something.

use super::shards::{self, Shard};
use super::{Plan, kept};
use crate::checkpoint::binding::{Binding, Digest, Positions};
use crate::checkpoint::history::{self, Archived, Choice, Window};
use crate::checkpoint::manifest::{self, Manifest};
use crate::checkpoint::progress::Log;
use crate::checkpoint::row::StateRow;
use crate::checkpoint::series;
use crate::checkpoint::store::{self, Store};
use crate::error::{Error, Kind, Result};
use crate::kafka::topics::Admin;
use crate::sink::{files, progress_log, progress_topic};
use crate::source::span::Span;
use crate::time::{Epoch, Millis};
use std::collections::BTreeMap;
use std::ops::Range;

/// A part of a job's past.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// The checkpoint it starts from; none: from the beginning.
    pub checkpoint: Option<Epoch>,
    /// Its rows.
    pub rows: Vec<StateRow>,
    /// Positions and clocks there; none at the beginning.
    pub positions: Option<Positions>,
    /// What was taken after it, in order, up to the end of the span.
    pub bindings: Vec<Binding>,
    /// The epochs of the span.
    pub epochs: Range<Epoch>,
    /// By shard: what was recorded of the outputs of the span, by epoch and output.
    pub digests: Vec<BTreeMap<(Epoch, u16), Digest>>,
    /// By shard and output: the byte at which the span begins in its file.
    pub begins: Vec<BTreeMap<u16, u64>>,
    /// The last epoch of which no digests are recorded: the job had no history then. 0: there is none.
    pub undigested: Epoch,
}

/// One shard as found.
struct Found {
    shard: Shard,
    log: Log,
    archived: Archived,
}

impl Found {
    /// Gives the bindings above an epoch, ascending: first the archived ones.
    fn each(&self, store: &dyn Store, above: Epoch, mut wanted: impl FnMut(Binding) -> bool) -> Result<()> {
        let mut last = above;
        let all = self.archived.each(store, above, |binding| {
            last = binding.epoch;
            wanted(binding)
        })?;
        if all {
            let later = self.log.bindings().filter(|binding| binding.epoch > last);
            let _ = later.cloned().all(wanted);
        }
        Ok(())
    }

    fn upper(&self) -> Epoch {
        self.log.records.last().map_or(0, |last| last.upper)
    }
}

/// Reads what is needed to compute a span of the job of this plan again.
pub fn read(plan: &Plan, span: Span) -> Result<Past> {
    let store = store::open(&plan.state)?;
    let shards = find(plan, store.as_ref())?;
    // What one shard has committed and another has not is not compared: it may be in the next start's outputs.
    let upper = shards.iter().map(Found::upper).min().unwrap_or(0);
    let reach = shards.iter().map(|found| found.archived.reach).max().unwrap_or(0);
    let mut past = Past::default();
    restore(plan, store.as_ref(), span.from, reach, upper, &mut past)?;
    let mut window = Window {
        from: span.from,
        to: span.to,
        time: past.positions.as_ref().and_then(history::time_of),
        ..Window::default()
    };
    let above = past.checkpoint.unwrap_or(0);
    let mut bindings = BTreeMap::new();
    for found in &shards {
        found.each(store.as_ref(), above, |binding| {
            if binding.epoch > upper {
                return false;
            }
            // Each shard has the same messages; an epoch that only gave something may be on record in one alone.
            bindings.entry(binding.epoch).or_insert(binding);
            true
        })?;
    }
    bindings.values().for_each(|binding| window.observe(binding));
    let Some(first) = window.first else {
        return Err(nothing_there(span, window.time));
    };
    past.epochs = first..window.end.unwrap_or(upper + 1);
    let later = bindings.split_off(&past.epochs.end);
    drop(later);
    past.bindings = bindings.into_values().collect();
    for binding in &mut past.bindings {
        binding.outputs = None;
    }
    kept::fetch(store.as_ref(), &mut past.bindings)?;
    for found in &shards {
        outputs(found, store.as_ref(), &mut past)?;
    }
    Ok(past)
}

/// The progress of every shard, and what is archived of it.
fn find(plan: &Plan, store: &dyn Store) -> Result<Vec<Found>> {
    let mut topics = None;
    let mut found = Vec::new();
    for (number, shard) in shards::planned(plan).into_iter().enumerate() {
        let log = match &shard {
            Shard::Files(shard) => log_of(shard)?,
            Shard::Topics(shard) => {
                let name = progress_topic::name(&plan.name);
                let values = match topics.take() {
                    Some(values) => values,
                    None => {
                        let admin = Admin::new(&shard.settings)?;
                        progress_topic::read(&shard.settings, &admin, &name)?
                    }
                };
                let log = progress_topic::log(&values, shard.shard);
                topics = Some(values);
                log.map_err(|damage| Error::new(Kind::StateDamaged, format!("{name}: {}", damage.reason)))?
            }
        };
        let (Some(first), Some(last)) = (log.records.first(), log.records.last()) else {
            let message = format!("job {}: nothing was ever committed", plan.name);
            return Err(Error::new(Kind::StateDamaged, message));
        };
        if last.plan_hash != plan.plan_hash {
            let message = format!(
                "job {}: what is recorded is of another plan (hash {:016x}, now {:016x}); restore the job file",
                plan.name, last.plan_hash, plan.plan_hash
            );
            return Err(Error::new(Kind::StateDamaged, message));
        }
        let archived = Archived::find(store, number, first.after)?;
        found.push(Found { shard, log, archived });
    }
    Ok(found)
}

fn log_of(shard: &files::Shard) -> Result<Log> {
    let path = shard.log_path();
    let read = progress_log::read(&path)?;
    read.map_err(|damage| {
        let (offset, reason) = (damage.offset, damage.reason);
        let message = format!("{} is damaged at byte {offset}: {reason}", path.display());
        Error::new(Kind::StateDamaged, message)
    })
}

/// Loads the newest checkpoint before the span that can be read.
fn restore(
    plan: &Plan,
    store: &dyn Store,
    from: Option<Millis>,
    reach: Epoch,
    upper: Epoch,
    past: &mut Past,
) -> Result<()> {
    let mut manifests: Vec<(u64, Manifest)> = Vec::new();
    for (number, manifest) in manifest::all(store)? {
        match manifest {
            Ok(manifest) if manifest.plan_hash == plan.plan_hash && manifest.epoch <= upper => {
                manifests.push((number, manifest));
            }
            Ok(_) => {}
            Err(reason) => tracing::warn!("{} is damaged: {reason}", manifest::name(number)),
        }
    }
    loop {
        let number = match history::choose_manifest(from, reach, &manifests) {
            Choice::Beginning => return Ok(()),
            Choice::TooEarly(earliest) => return Err(too_early(plan, from, earliest)),
            Choice::Checkpoint(number) => number,
        };
        let Some(at) = manifests.iter().position(|(other, _)| *other == number) else {
            return Err(Error::internal(format!(
                "checkpoint {number} was chosen and is not there"
            )));
        };
        let (_, manifest) = manifests.remove(at);
        match series::load(store, &manifest)? {
            Ok(rows) => {
                past.checkpoint = Some(manifest.epoch);
                past.rows = rows.into_iter().flatten().collect();
                past.positions = Some(manifest.positions);
                return Ok(());
            }
            Err(reason) => tracing::warn!("checkpoint {number} cannot be read, taking another: {reason}"),
        }
    }
}

fn too_early(plan: &Plan, from: Option<Millis>, earliest: Option<Millis>) -> Error {
    let history = match plan.history {
        Some(_) => "history does not reach back further",
        None => "without `history = true` only the last checkpoints are kept",
    };
    let from = from.map_or("the beginning".to_owned(), |from| from.to_string());
    let message = match earliest {
        Some(earliest) => format!("--from {from}: {history}; the earliest possible is --from {earliest}"),
        None => format!("--from {from}: {history}, and no checkpoint can be gone on from"),
    };
    Error::new(Kind::Configuration, message)
}

fn nothing_there(span: Span, time: Option<Millis>) -> Error {
    let from = span.from.unwrap_or_default();
    let last = time.map_or("no event".to_owned(), |time| time.to_string());
    let message = format!("--from {from}: nothing as late as that is recorded; the last is {last}");
    Error::new(Kind::Configuration, message)
}

/// What a shard recorded of its outputs in the span, and where the span begins in its files.
fn outputs(found: &Found, store: &dyn Store, past: &mut Past) -> Result<()> {
    let mut begins = BTreeMap::new();
    if let (Shard::Files(shard), Some(last)) = (&found.shard, found.log.records.last()) {
        for (output, path) in &shard.outputs {
            let length = last.lengths.get(&shard.name(path)).copied();
            begins.insert(*output, length.unwrap_or(0));
        }
    }
    let (mut digests, mut undigested) = (BTreeMap::new(), 0);
    let (epochs, upper) = (past.epochs.clone(), found.upper());
    found.each(store, epochs.start.saturating_sub(1), |binding| {
        if binding.outputs.is_none() {
            undigested = undigested.max(binding.epoch);
        }
        for digest in binding.outputs.iter().flatten() {
            // Back from the end of the file, by what came after.
            if let Some(begin) = begins.get_mut(&digest.output).filter(|_| binding.epoch <= upper) {
                *begin = begin.saturating_sub(digest.bytes);
            }
            if epochs.contains(&binding.epoch) {
                digests.insert((binding.epoch, digest.output), *digest);
            }
        }
        true
    })?;
    past.undigested = past.undigested.max(undigested);
    past.begins.push(begins);
    past.digests.push(digests);
    Ok(())
}

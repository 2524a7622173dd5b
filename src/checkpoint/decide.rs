//! What a start does, as a pure function of what it observed. I/O only executes the answer
//! ([`super::start`]).
//!
//! ```text
//!  claims 1 2 3 4        progress, per shard            manifests
//!                        (after ═══ bindings ═══ upper]   ✓ C=20  ✓ C=40  ✗
//!
//!                  20          40          55      60
//!   ───────────────┼───────────┼───────────┼───────┼──────► epochs
//!                              │ restored  │       └ shard 1 has committed: shard 0 writes 56 to 60
//!                              └ C         └ shard 0 has committed
//! ```
//!
//! The newest undamaged checkpoint is taken if the bindings from there to the greatest committed epoch are
//! all there; without checkpoints "from the start" is one at epoch 0. Every refusal names the facts and the
//! way out. A state directory that is lost or older than the outputs is recovered from, if that is certain to
//! give the same outputs.

use super::refusal::Reason;
use crate::time::Epoch;

/// Everything a start observes before it decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Hash of the own plan.
    pub plan_hash: u64,
    /// Outputs that exist and were never ours may be appended to.
    pub append: bool,
    /// The claims found, by generation.
    pub claims: Vec<ClaimFacts>,
    /// The mark that outputs may exist.
    pub begun: bool,
    /// The output shards of the plan, in order.
    pub shards: Vec<ShardFacts>,
    /// The checkpoints that can be read, by number.
    pub checkpoints: Vec<CheckpointFacts>,
}

/// One claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimFacts {
    /// Its generation.
    pub generation: u64,
    /// What it says: nonce, plan hash, number of output shards; none where it is damaged.
    pub says: Option<(u64, u64, usize)>,
}

/// One output shard: its progress and its outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardFacts {
    /// The progress found.
    pub progress: Progress,
    /// Its outputs, for as far as they are files.
    pub outputs: Vec<OutputFacts>,
}

/// The progress of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// No record at all.
    Absent,
    /// A record that may have been reported is unreadable.
    Damaged {
        /// The log.
        file: String,
        /// Byte offset of the record.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// The last record, and how far back the log reaches.
    Present {
        /// The generation that wrote the last record.
        generation: u64,
        /// The nonce of its claim.
        nonce: u64,
        /// The plan it ran.
        plan_hash: u64,
        /// Bindings of all epochs above this one ...
        after: Epoch,
        /// ... up to this one, the last committed, are there.
        upper: Epoch,
    },
}

/// One output file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFacts {
    /// Its path.
    pub path: String,
    /// The length the last progress record gives, in bytes; none if it does not name the file.
    pub recorded: Option<u64>,
    /// The length found, in bytes; 0 if it does not exist.
    pub found: u64,
}

/// One readable checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointFacts {
    /// Its number in the log of manifests.
    pub number: u64,
    /// The state is that after this epoch.
    pub epoch: Epoch,
    /// The greatest epoch bound when it was written.
    pub greatest_epoch: Epoch,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing was ever committed: begin with epoch 1.
    Fresh,
    /// Go on.
    Resume(Resume),
    /// Do not start.
    Refuse(Reason),
}

/// How to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    /// Number of the checkpoint to restore; none: from the start.
    pub checkpoint: Option<u64>,
    /// The checkpoint's epoch, 0 from the start: bindings above it ...
    pub from: Epoch,
    /// ... up to this one are replayed.
    pub to: Epoch,
    /// The first new epoch, above every recorded one.
    pub base: Epoch,
    /// What is wrong and was recovered from, for the log.
    pub despite: Option<Reason>,
}

/// The last record of a shard that has one.
#[derive(Clone, Copy)]
struct Last {
    shard: usize,
    generation: u64,
    nonce: u64,
    plan_hash: u64,
    after: Epoch,
    upper: Epoch,
}

/// What a start does about these facts.
pub fn decide(facts: &Facts) -> Decision {
    match judge(facts) {
        Ok(decision) => decision,
        Err(reason) => Decision::Refuse(reason),
    }
}

fn judge(facts: &Facts) -> Result<Decision, Reason> {
    let lasts = last_records(facts)?;
    if !begun(facts) && lasts.iter().all(|last| last.upper == 0) {
        only_own_content(facts)?;
        return Ok(Decision::Fresh);
    }
    same_plan(facts, &lasts)?;
    if let Some(shard) = (0..facts.shards.len()).find(|shard| lasts.iter().all(|last| last.shard != *shard)) {
        return Err(Reason::ProgressMissing { shard });
    }
    committed_content(facts)?;
    let foreign = foreign_state(facts, &lasts)?;
    match resume(facts, &lasts) {
        Ok(resume) => Ok(Decision::Resume(Resume {
            despite: foreign,
            ..resume
        })),
        Err(missing @ Reason::BindingMissing { .. }) => Err(match foreign {
            Some(cause) => Reason::NotRecoverable {
                cause: cause.into(),
                missing: missing.into(),
            },
            None => missing,
        }),
        Err(reason) => Err(reason),
    }
}

/// A checkpoint proves it as well as the mark.
fn begun(facts: &Facts) -> bool {
    facts.begun || !facts.checkpoints.is_empty()
}

fn last_records(facts: &Facts) -> Result<Vec<Last>, Reason> {
    let mut lasts = Vec::new();
    for (shard, found) in facts.shards.iter().enumerate() {
        match found.progress.clone() {
            Progress::Absent => {}
            Progress::Damaged { file, offset, reason } => {
                return Err(Reason::ProgressDamaged { file, offset, reason });
            }
            Progress::Present {
                generation,
                nonce,
                plan_hash,
                after,
                upper,
            } => {
                lasts.push(Last {
                    shard,
                    generation,
                    nonce,
                    plan_hash,
                    after,
                    upper,
                });
            }
        }
    }
    Ok(lasts)
}

/// The plan of what was committed, and of the last start that may have.
fn same_plan(facts: &Facts, lasts: &[Last]) -> Result<(), Reason> {
    let own = facts.plan_hash;
    if let Some(other) = lasts.iter().find(|last| last.plan_hash != own) {
        return Err(Reason::PlanChanged {
            found: other.plan_hash,
            own,
        });
    }
    let last_claim = facts.claims.iter().rev().find_map(|claim| claim.says);
    match last_claim.filter(|_| begun(facts)) {
        Some((_, found, _)) if found != own => Err(Reason::PlanChanged { found, own }),
        Some((_, _, found)) if found != facts.shards.len() => Err(Reason::ShardsChanged {
            found,
            own: facts.shards.len(),
        }),
        _ => Ok(()),
    }
}

/// Before anything was committed, whatever lies in an output is the user's: nothing of it is ever cut. What
/// an earlier first start recorded was there with consent.
fn only_own_content(facts: &Facts) -> Result<(), Reason> {
    let mut outputs = facts.shards.iter().flat_map(|shard| &shard.outputs);
    match outputs.find(|output| output.found > output.recorded.unwrap_or(0) && !facts.append) {
        Some(output) => Err(Reason::OutputNotEmpty {
            path: output.path.clone(),
        }),
        None => Ok(()),
    }
}

/// Afterwards every output holds at least what is committed; what is more was never reported and is cut off.
fn committed_content(facts: &Facts) -> Result<(), Reason> {
    for OutputFacts {
        path,
        recorded,
        found,
    } in facts.shards.iter().flat_map(|shard| &shard.outputs)
    {
        let path = path.clone();
        match *recorded {
            None => return Err(Reason::OutputUnknown { path }),
            Some(recorded) if *found < recorded => {
                return Err(Reason::OutputShorter {
                    path,
                    recorded,
                    found: *found,
                });
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// What is wrong with a state that is not the one the outputs were written with, as long as it may be
/// recovered from.
fn foreign_state(facts: &Facts, lasts: &[Last]) -> Result<Option<Reason>, Reason> {
    if !begun(facts) {
        let upper = lasts.iter().map(|last| last.upper).max().unwrap_or(0);
        return Ok(Some(Reason::StateLost { upper }));
    }
    let mut stale = None;
    for last in lasts {
        let generation = last.generation;
        let claim = facts.claims.iter().find(|claim| claim.generation == generation);
        match claim.map(|claim| claim.says) {
            None => stale = Some(Reason::StateStale { generation }),
            Some(Some((nonce, ..))) if nonce != last.nonce => {
                return Err(Reason::OtherHistory {
                    shard: last.shard,
                    generation,
                });
            }
            Some(_) => {}
        }
    }
    Ok(stale)
}

fn resume(facts: &Facts, lasts: &[Last]) -> Result<Resume, Reason> {
    let newest = facts.checkpoints.iter().max_by_key(|checkpoint| checkpoint.epoch);
    let from = newest.map_or(0, |checkpoint| checkpoint.epoch);
    if let Some(behind) = lasts.iter().find(|last| last.upper < from) {
        return Err(Reason::ProgressBehind {
            shard: behind.shard,
            upper: behind.upper,
            checkpoint: from,
        });
    }
    let reach = reach(lasts);
    if reach > from {
        return Err(Reason::BindingMissing {
            checkpoint: from,
            reach,
        });
    }
    let to = lasts.iter().map(|last| last.upper).max().unwrap_or(0);
    let greatest = facts
        .checkpoints
        .iter()
        .map(|checkpoint| checkpoint.greatest_epoch)
        .fold(to, Epoch::max);
    let checkpoint = newest.map(|checkpoint| checkpoint.number);
    Ok(Resume {
        checkpoint,
        from,
        to,
        base: greatest + 1,
        despite: None,
    })
}

/// The least epoch above which the logs together hold every binding up to the greatest committed epoch.
fn reach(lasts: &[Last]) -> Epoch {
    let mut spans: Vec<_> = lasts.iter().map(|last| (last.upper, last.after)).collect();
    spans.sort_unstable_by(|one, other| other.cmp(one));
    let greatest = spans.first().map_or(0, |(upper, _)| *upper);
    spans.iter().fold(
        greatest,
        |reach, (upper, after)| if *upper >= reach { reach.min(*after) } else { reach },
    )
}

#[cfg(test)]
#[path = "decide_table.rs"]
mod table;

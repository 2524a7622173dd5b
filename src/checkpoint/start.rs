//! Start: observes, lets [`decide`](super::decide) choose, restores, and claims the next generation. I/O without
//! judgement.
//!
//! ```text
//!  locks held ─► observe claims, begun,  ─► decide ─┬─ refuse: nothing was changed
//!                manifests; progress        ▲       └─ load checkpoint ─► claim ─► (sinks open) ─► begin
//!                (found by the sinks)       └─ damaged: without it ─┘
//! ```
//!
//! Between loading and the claim the sources look whether their inputs are still there: who refuses then has
//! changed nothing either. Assumes the locks of [`super::lock`]: for files they are the fence, so the claim may
//! follow the decision. For Kafka the claim comes first ([`claim_first`]), for only the fence that follows it
//! settles what is committed; what such a start refuses later costs a number and nothing else.
//! A chunk that turns out damaged takes its checkpoint out of the facts, and the same function decides again.

use super::binding::{Binding, Positions};
use super::claim::{self, Claim};
use super::decide::{CheckpointFacts, ClaimFacts, Decision, Facts, Progress, Resume, ShardFacts, decide};
use super::manifest::{self, Manifest};
use super::refusal::Reason;
use super::series::{self, Rows};
use super::store::{self, Store};
use crate::crash;
use crate::error::{Error, Kind, Result};
use crate::time::Epoch;
use std::collections::BTreeMap;

/// The mark that outputs may exist.
const BEGUN: &str = "begun";

/// What the job says that the state must agree with.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Hash of dataflows, inputs, outputs and settings that change results.
    pub plan_hash: u64,
    /// Per output shard the paths of its outputs, for the claim.
    pub shards: Vec<Vec<String>>,
    /// Outputs that exist and were never ours may be appended to.
    pub append: bool,
    /// Of the producers, for the claim.
    pub transactional_ids: Vec<String>,
    /// Of the socket that says that we live, for the claim.
    pub control: Option<String>,
}

impl Plan {
    fn claim(&self, generation: u64) -> Claim {
        Claim {
            transactional_ids: self.transactional_ids.clone(),
            control: self.control.clone(),
            ..Claim::new(generation, self.plan_hash, self.shards.clone())
        }
    }
}

/// What the start found, restored and is to claim.
pub struct Start {
    /// The generation that may write once it has won its [`claim`].
    pub claim: Claim,
    /// It has won it already.
    pub is_claimed: bool,
    /// Nothing was ever committed: sinks record the lengths they find.
    pub fresh: bool,
    /// What is replayed, and the first new epoch.
    pub resume: Resume,
    /// The restored rows, by state shard; empty from the start.
    pub rows: Rows,
    /// The checkpoints up to the restored one, oldest first, for [`super::series::Series`].
    pub kept: Vec<(u64, Manifest)>,
    /// Number of the next manifest.
    pub next: u64,
}

impl Start {
    /// Where the inputs stand at the restored checkpoint; none from the start.
    pub fn positions(&self) -> Option<&Positions> {
        self.kept.last().map(|(_, manifest)| &manifest.positions)
    }
}

/// Claims the next generation before anything is decided. Refuses a plan that is not that of the last claim,
/// without leaving a trace.
pub fn claim_first(store: &dyn Store, plan: &Plan) -> Result<Claim> {
    let claims = claim::all(store)?;
    let last = claims.iter().rev().find_map(|(_, claim)| claim.as_ref());
    if let Some(last) = last.filter(|last| last.plan_hash != plan.plan_hash)
        && store::fetch(store, BEGUN)?.is_some()
    {
        let (found, own) = (last.plan_hash, plan.plan_hash);
        return Err(Reason::PlanChanged { found, own }.into());
    }
    let own = plan.claim(claims.last().map_or(0, |(generation, _)| *generation) + 1);
    claim(store, &own)?;
    Ok(own)
}

/// Decides and restores. `shards` are the facts of the plan's output shards, in order; `claimed` is what
/// [`claim_first`] has won.
pub fn start(
    store: &dyn Store,
    plan: &Plan,
    shards: Vec<ShardFacts>,
    claimed: Option<Claim>,
) -> Result<Start> {
    let mut claims = claim::all(store)?;
    claims.retain(|(generation, _)| claimed.as_ref().is_none_or(|own| own.generation != *generation));
    let (mut manifests, next) = readable(store, plan)?;
    let mut facts = Facts {
        plan_hash: plan.plan_hash,
        append: plan.append,
        claims: claims.iter().map(claim_facts).collect(),
        begun: store::fetch(store, BEGUN)?.is_some(),
        shards,
        checkpoints: Vec::new(),
    };
    let (fresh, resume, rows) = loop {
        facts.checkpoints = manifests.iter().map(checkpoint_facts).collect();
        let resume = match decide(&facts) {
            Decision::Refuse(reason) => return Err(reason.into()),
            Decision::Fresh => {
                break (
                    true,
                    Resume {
                        base: 1,
                        ..Resume::default()
                    },
                    Rows::new(),
                );
            }
            Decision::Resume(resume) => resume,
        };
        let Some(number) = resume.checkpoint else {
            break (false, resume, Rows::new());
        };
        // Whatever is newer than the chosen one has turned out damaged before.
        manifests.retain(|(other, _)| *other <= number);
        let Some((_, manifest)) = manifests.last() else {
            return Err(Error::internal(format!(
                "checkpoint {number} was decided for and is not there"
            )));
        };
        match series::load(store, manifest)? {
            Ok(rows) => break (false, resume, rows),
            Err(reason) => tracing::warn!("checkpoint {number} is damaged, taking the one before: {reason}"),
        }
        manifests.pop();
    };
    if let Some(reason) = &resume.despite {
        tracing::warn!("going on all the same: {reason}");
    }
    // A state that was lost knows fewer generations than the outputs do: then another number is claimed.
    let next_generation = next_generation(&facts);
    let claimed = claimed.filter(|claimed| claimed.generation >= next_generation);
    let is_claimed = claimed.is_some();
    let claim = claimed.unwrap_or_else(|| plan.claim(next_generation));
    let kept = if fresh { Vec::new() } else { manifests };
    Ok(Start {
        claim,
        is_claimed,
        fresh,
        resume,
        rows,
        kept,
        next,
    })
}

/// Wins the generation, once nothing else can refuse the start and before anything is written to an output.
pub fn claim(store: &dyn Store, claim: &Claim) -> Result<()> {
    claim::put(store, claim)?;
    crash::point("after-claim");
    Ok(())
}

/// Marks that from now on outputs may exist. After the sinks are open, before anything is written to an
/// output.
pub fn begin(store: &dyn Store, claim: &Claim) -> Result<()> {
    // The mark of an earlier start is as good as ours.
    store::publish(
        store,
        BEGUN,
        format!("generation {}\n", claim.generation).as_bytes(),
    )
    .map(|_| ())
}

/// The bindings to replay, ascending: those above `resume.from`, from all shards' logs together.
pub fn replayed<'a>(resume: &Resume, logs: impl IntoIterator<Item = &'a Binding>) -> Vec<Binding> {
    let wanted = |epoch: Epoch| epoch > resume.from && epoch <= resume.to;
    let bindings = logs.into_iter().filter(|binding| wanted(binding.epoch));
    bindings
        .map(|binding| (binding.epoch, binding.clone()))
        .collect::<BTreeMap<_, _>>()
        .into_values()
        .collect()
}

/// The readable manifests, and the number after all there are. Damaged ones are named and left out.
fn readable(store: &dyn Store, plan: &Plan) -> Result<(Vec<(u64, Manifest)>, u64)> {
    let found = manifest::all(store)?;
    let next = found.last().map_or(1, |(number, _)| number + 1);
    let mut readable = Vec::new();
    for (number, manifest) in found {
        match manifest {
            Ok(manifest) if manifest.plan_hash == plan.plan_hash => readable.push((number, manifest)),
            Ok(_) => {
                let way_out = "restore the job file, or start with a new state and new outputs";
                let message = format!("checkpoint {number} is of another plan; {way_out}");
                return Err(Error::new(Kind::StateDamaged, message));
            }
            Err(reason) => tracing::warn!("{} is damaged: {reason}", manifest::name(number)),
        }
    }
    Ok((readable, next))
}

fn claim_facts((generation, claim): &claim::Found) -> ClaimFacts {
    let says = claim
        .as_ref()
        .map(|claim| (claim.nonce, claim.plan_hash, claim.shards.len()));
    ClaimFacts {
        generation: *generation,
        says,
    }
}

fn checkpoint_facts((number, manifest): &(u64, Manifest)) -> CheckpointFacts {
    CheckpointFacts {
        number: *number,
        epoch: manifest.epoch,
        greatest_epoch: manifest.greatest_epoch,
    }
}

/// Above every generation that left a trace, in the state or in the outputs.
fn next_generation(facts: &Facts) -> u64 {
    let claimed = facts.claims.iter().map(|claim| claim.generation);
    let committed = facts.shards.iter().filter_map(|shard| match shard.progress {
        Progress::Present { generation, .. } => Some(generation),
        Progress::Absent | Progress::Damaged { .. } => None,
    });
    claimed.chain(committed).max().unwrap_or(0) + 1
}

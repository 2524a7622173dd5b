//! The verification of a job: its recorded past taken again, and a verifier for each shard in place of its sink.

use super::job::Started;
use super::past::Past;
use super::shards::{Shard, planned};
use super::{Plan, recorded};
use crate::error::{Error, Kind, Result};
use crate::pace::Cutting;
use crate::sink::Sink;
use crate::verify::{Committed, Place, Report, Topic, Verifier};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A verification that is ready to run.
pub struct Verification {
    /// The run.
    pub started: Started,
    /// What it is compared by.
    pub verifiers: Vec<Verifier>,
}

/// Prepares to take `past` again and to hold it against what the job of this plan committed. `against`: other files
/// or topics to compare with, by output.
/// The plan's aim is a verification, or what if.
pub fn verification(plan: Plan, mut past: Past, against: &BTreeMap<String, String>) -> Result<Verification> {
    if past.undigested >= past.epochs.start {
        let message = format!(
            "epochs up to {} were recorded without `history = true`: they cannot be verified; verify a later span",
            past.undigested
        );
        return Err(Error::new(Kind::Configuration, message));
    }
    let plan = Plan {
        cutting: Cutting::Recorded,
        ..plan
    };
    let mut verifiers = Vec::new();
    let digests = std::mem::take(&mut past.digests);
    for ((shard, digests), begins) in planned(&plan).iter().zip(digests).zip(&past.begins) {
        let name = |index: u16| plan.outputs[usize::from(index)].name.clone();
        let outputs: BTreeMap<u16, Committed> = match shard {
            Shard::Files(shard) => shard
                .outputs
                .iter()
                .map(|(index, path)| {
                    let path = against.get(&name(*index)).map_or(path.clone(), PathBuf::from);
                    let begin = begins.get(index).copied().unwrap_or(0);
                    let (name, place) = (name(*index), Place::File(path, begin));
                    (*index, Committed { name, place })
                })
                .collect(),
            Shard::Topics(shard) => shard
                .outputs
                .iter()
                .map(|(index, topic)| {
                    let topic = Topic {
                        name: against.get(&name(*index)).unwrap_or(topic).clone(),
                        shard: u32::try_from(shard.shard).unwrap_or(u32::MAX),
                        shards: plan.shards,
                    };
                    let place = Place::Topic(Box::new(shard.settings.clone()), topic);
                    let name = name(*index);
                    (*index, Committed { name, place })
                })
                .collect(),
        };
        verifiers.push(Verifier::open(outputs, past.epochs.clone(), digests)?);
    }
    let sinks = verifiers
        .iter()
        .map(|verifier| Box::new(verifier.clone()) as Box<dyn Sink>)
        .collect();
    let started = recorded::start_into(plan, past, sinks)?;
    Ok(Verification { started, verifiers })
}

/// What all verifiers found, once the run has ended.
pub fn report(verifiers: &[Verifier]) -> Result<Report> {
    let mut report = Report::default();
    for verifier in verifiers {
        report.join(verifier.finish()?);
    }
    Ok(report)
}

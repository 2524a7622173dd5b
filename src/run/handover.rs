//! What a member needs of the leader's start before its threads can run: sent by the one, received by the other.
//!
//! Both have read the same job file, or their plans would differ in their hash. What differs all the same is
//! what was looked up: which files there are, how many partitions topics have, the ids of schemas; the leader's
//! word counts. Files are named relative to the job's directory, which may lie elsewhere on another host.
//! State rows go to the process whose worker their operators would exchange them to, so the memory of a
//! restore is spread as the state is.

use super::messages::{ToMember, decode, pieces, send};
use super::{InputPlace, OutputPlace, Plan, Recovered};
use crate::checkpoint::binding::Binding;
use crate::checkpoint::row::StateRow;
use crate::cluster::link::Outbox;
use crate::error::{Error, Kind, Result};
use crate::format::avro::Encoder;
use crate::operators::route;
use crate::sink::encode::Format;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

/// What the leader has looked up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PlanFacts {
    /// By input.
    inputs: Vec<InputFacts>,
    /// By output; none for files.
    outputs: Vec<Option<TopicFacts>>,
}

/// What an input is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum InputFacts {
    /// The names of its files.
    Files(Vec<String>),
    /// Its partitions.
    Topic(u32),
}

/// What an output's messages are encoded by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct TopicFacts {
    partitions: u32,
    /// In Avro: the id of its schema.
    schema: Option<u32>,
}

impl PlanFacts {
    /// Of the leader's plan, after its start.
    fn of(plan: &Plan) -> PlanFacts {
        let inputs = plan.inputs.iter().map(|input| match &input.place {
            InputPlace::Files { files, .. } => InputFacts::Files(files.clone()),
            InputPlace::Topic { partitions, .. } => InputFacts::Topic(*partitions),
        });
        let outputs = plan.outputs.iter().map(|output| match &output.place {
            OutputPlace::Files(_) => None,
            OutputPlace::Topic {
                partitions, format, ..
            } => {
                let schema = match format {
                    Format::Avro(Some(encoder)) => Some(encoder.id()),
                    Format::Avro(None) | Format::Json => None,
                };
                let partitions = *partitions;
                Some(TopicFacts { partitions, schema })
            }
        });
        PlanFacts {
            inputs: inputs.collect(),
            outputs: outputs.collect(),
        }
    }

    /// Puts them into a member's plan.
    fn put_into(self, plan: &mut Plan) -> Result<()> {
        let differs = || {
            let message =
                "the leader's job has other inputs or outputs; start all processes with the same job file";
            Error::new(Kind::Configuration, message)
        };
        if (self.inputs.len(), self.outputs.len()) != (plan.inputs.len(), plan.outputs.len()) {
            return Err(differs());
        }
        for (input, facts) in plan.inputs.iter_mut().zip(self.inputs) {
            match (&mut input.place, facts) {
                (InputPlace::Files { files, .. }, InputFacts::Files(known)) => *files = known,
                (InputPlace::Topic { partitions, .. }, InputFacts::Topic(known)) => *partitions = known,
                (InputPlace::Files { .. } | InputPlace::Topic { .. }, _) => return Err(differs()),
            }
        }
        for (output, facts) in plan.outputs.iter_mut().zip(self.outputs) {
            match (&mut output.place, facts) {
                (OutputPlace::Files(_), None) => {}
                (
                    OutputPlace::Topic {
                        partitions, format, ..
                    },
                    Some(facts),
                ) => {
                    *partitions = facts.partitions;
                    if let (Format::Avro(encoder), Some(id)) = (format, facts.schema) {
                        let of_schema = Encoder::new(output.schema, id).map_err(Error::internal)?;
                        *encoder = Some(Arc::new(of_schema));
                    }
                }
                (OutputPlace::Files(_) | OutputPlace::Topic { .. }, _) => return Err(differs()),
            }
        }
        Ok(())
    }
}

/// The worker whose operators a row belongs to.
pub(super) fn owner_of(row: &StateRow, peers: usize) -> usize {
    usize::try_from(route(row.hash) % peers as u64).unwrap_or_default()
}

/// Takes from `recovered` the rows of other processes: by process, none for the leader.
pub(super) fn take_rows(plan: &Plan, recovered: &mut Recovered) -> Vec<Vec<StateRow>> {
    let mut rows = vec![Vec::new(); plan.processes];
    for row in std::mem::take(&mut recovered.rows) {
        rows[owner_of(&row, plan.peers()) / plan.workers].push(row);
    }
    recovered.rows = std::mem::take(&mut rows[0]);
    rows
}

/// Sends a member everything up to its start.
pub(super) fn hand_over(
    outbox: &Outbox,
    plan: &Plan,
    recovered: &Recovered,
    rows: Vec<StateRow>,
) -> Result<()> {
    send(outbox, &ToMember::Plan(PlanFacts::of(plan)))?;
    let mut without = Recovered {
        recorded: Vec::new(),
        rows: Vec::new(),
        positions: recovered.positions.clone(),
        committed: recovered.committed.clone(),
        declarations: recovered.declarations.clone(),
        partitions: recovered.partitions.clone(),
        ..*recovered
    };
    for (input, partitions) in plan.inputs.iter().zip(&mut without.partitions) {
        let InputPlace::Files { root, .. } = &input.place else {
            continue;
        };
        for start in partitions.values_mut() {
            start.path = start
                .path
                .strip_prefix(root)
                .map_or_else(|_| start.path.clone(), PathBuf::from);
        }
    }
    send(outbox, &ToMember::Recovered(Box::new(without)))?;
    for binding in &recovered.recorded {
        send(
            outbox,
            &ToMember::Recorded(binding.epoch, binding.partitions.clone()),
        )?;
    }
    for (piece, _) in pieces(rows) {
        send(outbox, &ToMember::Rows(piece))?;
    }
    send(outbox, &ToMember::Go)
}

/// A member: waits for everything up to the start and puts what was looked up into its plan.
pub(super) fn receive(received: &Receiver<Vec<u8>>, plan: &mut Plan) -> Result<Recovered> {
    let mut recovered = Recovered::default();
    loop {
        let Ok(bytes) = received.recv() else {
            let message = "the leader ended before the job began; its own message says why";
            return Err(Error::new(Kind::PeerLost, message));
        };
        match decode(&bytes)? {
            ToMember::Plan(facts) => facts.put_into(plan)?,
            ToMember::Recovered(decided) => recovered = *decided,
            ToMember::Recorded(epoch, partitions) => recovered.recorded.push(Binding {
                epoch,
                partitions,
                outputs: None,
            }),
            ToMember::Rows(mut rows) => recovered.rows.append(&mut rows),
            ToMember::Go => break,
            ToMember::Pace(_) | ToMember::Pressure(_) | ToMember::Found(_) => {
                return Err(Error::internal("the leader goes on before it has begun"));
            }
        }
    }
    for (input, partitions) in plan.inputs.iter().zip(&mut recovered.partitions) {
        if let InputPlace::Files { root, .. } = &input.place {
            partitions
                .values_mut()
                .for_each(|start| start.path = root.join(&start.path));
        }
    }
    Ok(recovered)
}

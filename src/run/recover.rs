//! Where every partition is read on: recorded positions against what is there now.
//!
//! Files are numbered by their place in the bytewise sorted matches at the first start and keep their
//! numbers; files found later take the next ones. A recorded file must still be there and no shorter than
//! what was committed of it. Partitions of a topic have the broker's numbers; what was committed of one must
//! not lie before its first message (retention) nor behind its end (truncation).

use super::topics::Observed;
use super::{InputPlace, InputPlan, Plan, Recovered};
use crate::checkpoint::binding::{Binding, PartitionBinding, PartitionPosition, Positions};
use crate::error::{Error, Kind, Result};
use crate::kafka::topics::Bounds;
use crate::source::partition::Start;
use crate::time::{Epoch, PartitionClock};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What a checkpoint and the bindings after it say, against the plan's inputs.
///
/// `positions`: at the checkpoint, none without one. `recorded`: the bindings after it, ascending.
pub fn recover(
    plan: &Plan,
    checkpoint: Option<Epoch>,
    positions: Option<Positions>,
    recorded: Vec<Binding>,
    base: Epoch,
    observed: &Observed,
) -> Result<Recovered> {
    let bounds = plan
        .inputs
        .iter()
        .map(|input| input.settings.max_out_of_orderness_ms);
    let positions = positions.unwrap_or_else(|| Positions::new(bounds));
    let mut folded = positions.clone();
    recorded.iter().for_each(|binding| folded.apply(binding));
    let is_first_start = folded.partitions.iter().all(BTreeMap::is_empty);
    let mut recovered = Recovered {
        checkpoint,
        recorded,
        base,
        ..Recovered::default()
    };
    for (index, input) in plan.inputs.iter().enumerate() {
        let known = &folded.partitions[index];
        let mut partitions = BTreeMap::new();
        for (partition, committed) in known {
            let at = positions.partitions[index]
                .get(partition)
                .cloned()
                .unwrap_or_default();
            let clock = positions.clocks[index]
                .partitions
                .get(partition)
                .cloned()
                .unwrap_or_default();
            let mut start = Start {
                offset: at.offset,
                as_of: at.as_of,
                clock,
                ..Start::default()
            };
            let end = match &input.place {
                InputPlace::Files { root, .. } => {
                    let name = committed
                        .path
                        .as_deref()
                        .ok_or_else(|| nameless(input, *partition))?;
                    start.path = root.join(name);
                    let end = length(&start.path, committed.offset)?;
                    start.mid_line = is_mid_line(&start.path, at.offset)?;
                    end
                }
                InputPlace::Topic { name, .. } => {
                    let there = observed.bounds(index, *partition);
                    let first = first_there(
                        plan,
                        input,
                        name,
                        (*partition, committed.offset, at.offset),
                        there,
                    )?;
                    if first > committed.offset {
                        recovered
                            .declarations
                            .push(moved(input, *partition, &folded, first));
                    }
                    start.offset = start.offset.max(first);
                    there.end
                }
            };
            start.backlog = end;
            start.until = observed.until(index, *partition);
            partitions.insert(*partition, start);
            let known_clock = folded.clocks[index].partitions.get(partition);
            if known_clock.is_some_and(|clock| clock.idle) && end > committed.offset {
                recovered.declarations.push(woken(input, *partition, &folded));
            }
        }
        for (partition, name, offset, backlog) in
            new_partitions(input, index, known, is_first_start, observed)?
        {
            // Found after the first start, it holds nothing back: empty it is inactive until its first record; with
            // records it is behind, hence active, from the watermark that has been reached.
            let is_empty = backlog <= offset;
            let mut declaration = declaration(input, partition, &name, offset, !is_first_start && is_empty);
            declaration.floor = (!is_first_start && !is_empty).then(|| folded.clocks[index].global());
            let (idle, floor) = (declaration.idle, declaration.floor);
            let clock = PartitionClock {
                idle,
                floor,
                ..PartitionClock::default()
            };
            let path = input.place.path(&name);
            let start = Start {
                path,
                offset,
                clock,
                backlog,
                until: observed.until(index, partition),
                ..Start::default()
            };
            partitions.insert(partition, start);
            recovered.declarations.push(declaration);
        }
        recovered.partitions.push(partitions);
    }
    recovered.positions = positions;
    Ok(recovered)
}

/// Partitions that no binding has named: number, name, where they begin and where they end now.
fn new_partitions(
    input: &InputPlan,
    index: usize,
    known: &BTreeMap<u32, PartitionPosition>,
    is_first_start: bool,
    observed: &Observed,
) -> Result<Vec<(u32, String, u64, u64)>> {
    let next = known.keys().next_back().map_or(0, |last| last + 1);
    match &input.place {
        InputPlace::Files { root, files, .. } => {
            let is_new = |name: &&String| !known.values().any(|at| at.path.as_ref() == Some(*name));
            let new = (next..).zip(files.iter().filter(is_new));
            new.map(|(partition, name)| Ok((partition, name.clone(), 0, length(&root.join(name), 0)?)))
                .collect()
        }
        InputPlace::Topic { name, partitions, .. } => Ok((next..*partitions)
            .map(|partition| {
                let there = observed.bounds(index, partition);
                // What is found later is read whole; nothing of it was there at the first start.
                let offset = match is_first_start {
                    true => observed.first_offset(index, partition),
                    false => there.first,
                };
                (partition, name.clone(), offset, there.end)
            })
            .collect()),
    }
}

/// The first offset of a partition that is there; refuses where messages that are needed are gone.
fn first_there(
    plan: &Plan,
    input: &InputPlan,
    topic: &str,
    (partition, committed, needed): (u32, u64, u64),
    there: Bounds,
) -> Result<u64> {
    let refused = |what: String| {
        Err(Error::new(
            Kind::InputGone,
            format!("{topic}/{partition}: {what}"),
        ))
    };
    if committed > there.high {
        let high = there.high;
        return refused(format!(
            "it ends at offset {high}, but {committed} was read and committed: truncated; restore it"
        ));
    }
    // What bindings keep is not read again.
    let needed = if input.settings.keeps_messages() {
        committed
    } else {
        needed
    };
    if needed < there.first && !plan.accept_gap {
        let first = there.first;
        return refused(format!(
            "offset {needed} is not there any more, the first one is {first} (retention); restore it, or start \
             with --accept-gap to pass over {} messages",
            first - needed
        ));
    }
    if needed < there.first {
        let first = there.first;
        tracing::warn!("{topic}/{partition}: offsets {needed} to {first} are gone and passed over");
        return Ok(first);
    }
    Ok(0)
}

/// Whether the byte before `offset` is anything but an LF.
fn is_mid_line(path: &Path, offset: u64) -> Result<bool> {
    let Some(before) = offset.checked_sub(1) else {
        return Ok(false);
    };
    let mut byte = [0];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut byte, before));
    read.map_err(|error| {
        Error::new(
            Kind::InputGone,
            format!("{}: byte {before}: {error}", path.display()),
        )
    })?;
    Ok(byte != *b"\n")
}

/// The binding that first names a partition.
pub fn declaration(
    input: &InputPlan,
    partition: u32,
    name: &str,
    offset: u64,
    idle: bool,
) -> PartitionBinding {
    let path = Some(name.to_owned());
    PartitionBinding {
        input: input.settings.index,
        partition,
        start: offset,
        end: offset,
        idle,
        path,
        ..PartitionBinding::default()
    }
}

/// The binding that wakes an idle partition which grew while nobody read it: it is behind, hence active, and
/// its floor is the watermark that has been reached.
fn woken(input: &InputPlan, partition: u32, folded: &Positions) -> PartitionBinding {
    let index = usize::from(input.settings.index);
    let at = folded.partitions[index]
        .get(&partition)
        .cloned()
        .unwrap_or_default();
    let clock = &folded.clocks[index];
    PartitionBinding {
        input: input.settings.index,
        partition,
        start: at.offset,
        end: at.offset,
        greatest: clock.partitions.get(&partition).and_then(|clock| clock.greatest),
        as_of: at.as_of,
        floor: Some(clock.global()),
        idle: false,
        ended: false,
        path: None,
        kept: None,
    }
}

/// The binding that moves a partition over a gap.
fn moved(input: &InputPlan, partition: u32, folded: &Positions, first: u64) -> PartitionBinding {
    let index = usize::from(input.settings.index);
    let clock = folded.clocks[index]
        .partitions
        .get(&partition)
        .cloned()
        .unwrap_or_default();
    let at = folded.partitions[index]
        .get(&partition)
        .cloned()
        .unwrap_or_default();
    PartitionBinding {
        input: input.settings.index,
        partition,
        start: at.offset,
        end: first,
        greatest: clock.greatest,
        as_of: at.as_of,
        idle: clock.idle,
        ..PartitionBinding::default()
    }
}

/// The length of a file that must have at least `committed` bytes.
fn length(path: &Path, committed: u64) -> Result<u64> {
    let gone = |what: String| {
        let message = format!(
            "{}: {what}; {committed} bytes of it were read and committed: restore it",
            path.display()
        );
        Error::new(Kind::InputGone, message)
    };
    let length = fs::metadata(path)
        .map_err(|error| gone(format!("recorded file is gone: {error}")))?
        .len();
    if length < committed {
        return Err(gone(format!(
            "is only {length} bytes long, truncated or replaced"
        )));
    }
    Ok(length)
}

fn nameless(input: &InputPlan, partition: u32) -> Error {
    let name = &input.settings.name;
    Error::new(
        Kind::StateDamaged,
        format!("the state names no file for partition {partition} of input {name}"),
    )
}

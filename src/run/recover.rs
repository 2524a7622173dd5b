//! Where every partition is read on: recorded positions against the files that are there now.
//!
//! Partitions are numbered by their place in the bytewise sorted matches at the first start and keep their
//! numbers; files found later take the next ones. A recorded file must still be there and no shorter than
//! what was committed of it.

use super::{InputPlan, Plan, Recovered};
use crate::checkpoint::binding::{Binding, PartitionBinding, Positions};
use crate::error::{Error, Kind, Result};
use crate::source::partition::Start;
use crate::time::{Epoch, PartitionClock};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What a checkpoint and the bindings after it say, against the plan's files.
///
/// `positions`: at the checkpoint, none without one. `recorded`: the bindings after it, ascending.
pub fn recover(
    plan: &Plan,
    checkpoint: Option<Epoch>,
    positions: Option<Positions>,
    recorded: Vec<Binding>,
    base: Epoch,
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
            let name = committed
                .path
                .as_deref()
                .ok_or_else(|| nameless(input, *partition))?;
            let length = length(input, name, committed.offset)?;
            let at = positions.partitions[index]
                .get(partition)
                .cloned()
                .unwrap_or_default();
            let clock = positions.clocks[index]
                .partitions
                .get(partition)
                .cloned()
                .unwrap_or_default();
            let (path, as_of, backlog) = (input.root.join(name), at.as_of, length);
            let mid_line = is_mid_line(&path, at.offset)?;
            let start = Start {
                path,
                offset: at.offset,
                as_of,
                clock,
                declared: None,
                backlog,
                mid_line,
            };
            partitions.insert(*partition, start);
            let known_clock = folded.clocks[index].partitions.get(partition);
            if known_clock.is_some_and(|clock| clock.idle) && length > committed.offset {
                recovered.declarations.push(woken(input, *partition, &folded));
            }
        }
        let is_new = |name: &&String| !known.values().any(|at| at.path.as_ref() == Some(*name));
        let next = known.keys().next_back().map_or(0, |last| last + 1);
        for (partition, name) in (next..).zip(input.files.iter().filter(is_new)) {
            let backlog = length(input, name, 0)?;
            // Found after the first start, it holds nothing back: empty it is inactive until its first record; with
            // records it is behind, hence active, from the watermark that has been reached.
            let mut declaration = declaration(input, partition, name, !is_first_start && backlog == 0);
            declaration.floor = (!is_first_start && backlog > 0).then(|| folded.clocks[index].global());
            let (idle, floor) = (declaration.idle, declaration.floor);
            let clock = PartitionClock {
                idle,
                floor,
                ..PartitionClock::default()
            };
            let path = input.root.join(name);
            let start = Start {
                path,
                clock,
                backlog,
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
pub fn declaration(input: &InputPlan, partition: u32, name: &str, idle: bool) -> PartitionBinding {
    let path = Some(name.to_owned());
    PartitionBinding {
        input: input.settings.index,
        partition,
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
    }
}

/// The length of a file that must have at least `committed` bytes.
fn length(input: &InputPlan, name: &str, committed: u64) -> Result<u64> {
    let path = input.root.join(name);
    let gone = |what: String| {
        let message = format!(
            "{}: {what}; {committed} bytes of it were read and committed: restore it",
            path.display()
        );
        Error::new(Kind::InputGone, message)
    };
    let length = fs::metadata(&path)
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

//! History: what is kept, beyond what a restart needs, so that any part of the past can be computed again.
//!
//! ```text
//!  progress of a shard   ├── forgotten ──┼── bindings ──┤ committed
//!                               │ copied before
//!                               ▼
//!  history/0000-{after}-{upper} ├──┼──┼──┤              a chain of archived bindings, by shard
//!  manifests, chunks            ▲     ▲     ▲ ▲ ▲       one an interval of event time, and the newest ones
//! ```
//!
//! With history on, a shard's bindings say also what came out of each epoch ([`Digest`](super::binding::Digest)),
//! and before they may be dropped from its progress they are archived here. Of the checkpoints one per interval is
//! kept from deletion. Large messages that bindings keep are not deleted at all.
//!
//! **Time.** Neither epochs nor checkpoints have a wall clock. The time of an epoch is the greatest event time
//! taken so far, in any partition: it never falls, so a span of time is a span of epochs, `[first, end)`: from
//! the first epoch that reached its beginning to the last before the one that reached its end. One record far
//! in the future makes many epochs look as late as itself: what is replayed is then more than was asked for,
//! never less.
//!
//! **Refused:** a beginning that no kept checkpoint lies before, naming the earliest that would do; an archive
//! that is damaged.

use super::binding::{Binding, Positions};
use super::frame::{frame, unframe};
use super::manifest::Manifest;
use super::store::{self, Published, Store};
use crate::error::{Error, Kind, Result};
use crate::time::{Epoch, Millis};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

const KIND: &str = "history-1";

/// Where archived bindings lie in the store: `history/{shard}-{after}-{upper}`.
const FOLDER: &str = "history";

/// The archive of one shard, while its job runs.
pub struct Archive {
    store: Arc<dyn Store>,
    shard: usize,
    /// Bindings up to here are archived.
    upper: Epoch,
    /// Bindings that are committed and not archived, ascending.
    pending: VecDeque<Binding>,
}

impl Archive {
    /// Goes on behind what is archived. `logged`: what the shard's progress holds, above `after`.
    pub fn open<'a>(
        store: Arc<dyn Store>,
        shard: usize,
        after: Epoch,
        logged: impl Iterator<Item = &'a Binding>,
    ) -> Result<Archive> {
        let archived = pieces(&store::names(store.as_ref(), FOLDER)?, shard);
        let upper = archived.iter().map(|piece| piece.upper).max().unwrap_or(0);
        // Bindings that were dropped while history was off are a gap: the chain begins again behind it.
        let upper = upper.max(after);
        let pending = logged.filter(|binding| binding.epoch > upper).cloned().collect();
        Ok(Archive {
            store,
            shard,
            upper,
            pending,
        })
    }

    /// Epochs are committed, ascending.
    pub fn committed(&mut self, bindings: impl IntoIterator<Item = Binding>) {
        self.pending.extend(bindings);
    }

    /// Bindings up to this epoch are about to be dropped: archives them.
    pub fn archive(&mut self, oldest: Epoch) -> Result<()> {
        if oldest <= self.upper {
            return Ok(());
        }
        let is_due = |binding: &&Binding| binding.epoch <= oldest;
        let due: Vec<_> = self.pending.iter().take_while(is_due).collect();
        let body = serde_json::to_vec(&due).map_err(|error| Error::internal(format!("{FOLDER}: {error}")))?;
        let name = name(self.shard, self.upper, oldest);
        if store::publish(self.store.as_ref(), &name, &frame(KIND, &body))? == Published::Theirs {
            let message = format!("another instance has written {name}; this one stops");
            return Err(Error::new(Kind::AnotherInstance, message));
        }
        self.pending.drain(..due.len());
        self.upper = oldest;
        Ok(())
    }
}

fn name(shard: usize, after: Epoch, upper: Epoch) -> String {
    format!("{FOLDER}/{shard:04}-{after:020}-{upper:020}")
}

/// One object of an archive: the bindings in (after, upper].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Piece {
    upper: Epoch,
    after: Epoch,
}

/// The pieces of a shard, ascending.
fn pieces(names: &[String], shard: usize) -> Vec<Piece> {
    let piece = |name: &String| {
        let mut parts = name.split('-');
        let own = parts.next()?.parse::<usize>().ok()? == shard;
        let (after, upper) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        own.then_some(Piece { upper, after })
    };
    let mut pieces: Vec<_> = names.iter().filter_map(piece).collect();
    pieces.sort_unstable();
    pieces
}

/// The unbroken end of a shard's pieces that reaches up to `after`, where its progress begins; descending.
fn chain(pieces: &[Piece], after: Epoch) -> Vec<Piece> {
    let mut chain = Vec::new();
    let mut reach = after;
    for piece in pieces.iter().rev() {
        if piece.after < reach && piece.upper >= reach {
            reach = piece.after;
            chain.push(*piece);
        }
    }
    chain
}

/// What is archived of one shard: which pieces, and how far back they reach together with its progress.
pub struct Archived {
    shard: usize,
    chain: Vec<Piece>,
    /// Bindings of all epochs above this one are there.
    pub reach: Epoch,
}

impl Archived {
    /// Looks what there is of a shard whose progress holds the bindings above `after`.
    pub fn find(store: &dyn Store, shard: usize, after: Epoch) -> Result<Archived> {
        let chain = chain(&pieces(&store::names(store, FOLDER)?, shard), after);
        let reach = chain.last().map_or(after, |piece| piece.after);
        Ok(Archived { shard, chain, reach })
    }

    /// Gives the bindings above an epoch, ascending, until one is refused; whether all were wanted.
    pub fn each(
        &self,
        store: &dyn Store,
        above: Epoch,
        mut wanted: impl FnMut(Binding) -> bool,
    ) -> Result<bool> {
        let mut last = above;
        for piece in self.chain.iter().rev().filter(|piece| piece.upper > above) {
            let name = name(self.shard, piece.after, piece.upper);
            let damaged = |what: &str| Error::new(Kind::StateDamaged, format!("{name}: {what}; restore it"));
            let bytes = store::fetch(store, &name)?.ok_or_else(|| damaged("it is missing"))?;
            let body = unframe(KIND, &bytes).map_err(|error| damaged(&error))?;
            let bindings: Vec<Binding> =
                serde_json::from_slice(body).map_err(|error| damaged(&error.to_string()))?;
            for binding in bindings {
                if binding.epoch > last {
                    last = binding.epoch;
                    if !wanted(binding) {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }
}

/// The time of a checkpoint: the greatest event time taken up to it; none before the first event.
pub fn time_of(positions: &Positions) -> Option<Millis> {
    let clocks = positions
        .clocks
        .iter()
        .flat_map(|clock| clock.partitions.values());
    clocks.filter_map(|clock| clock.greatest).max()
}

/// The numbers of the checkpoints, of those given in order with their times, that history keeps: the first, and
/// each that is at least an interval later than the one kept before.
pub fn milestones(
    times: impl IntoIterator<Item = (u64, Option<Millis>)>,
    interval_ms: Millis,
) -> BTreeSet<u64> {
    let (mut kept, mut last) = (BTreeSet::new(), None);
    for (number, time) in times {
        let is_due = match (last, time) {
            (None, _) => true,
            (Some(None), time) => time.is_some(),
            (Some(Some(last)), Some(time)) => time.saturating_sub(last) >= interval_ms,
            (Some(Some(_)), None) => false,
        };
        if is_due {
            kept.insert(number);
            last = Some(time);
        }
    }
    kept
}

/// The epochs of a span: told of every binding in order, it finds where the span begins and ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The first time of the span; none: everything from the first binding on.
    pub from: Option<Millis>,
    /// The first time behind it.
    pub to: Option<Millis>,
    /// The greatest event time so far.
    pub time: Option<Millis>,
    /// The first epoch of the span, once it is known.
    pub first: Option<Epoch>,
    /// The first epoch behind it, once it is known.
    pub end: Option<Epoch>,
}

impl Window {
    /// Takes in the next binding.
    pub fn observe(&mut self, binding: &Binding) {
        let greatest = binding.partitions.iter().filter_map(|share| share.greatest).max();
        self.time = self.time.max(greatest);
        let reached = |end: Millis| self.time.is_some_and(|time| time >= end);
        if self.first.is_none() && self.from.is_none_or(reached) {
            self.first = Some(binding.epoch);
        }
        if self.end.is_none() && self.to.is_some_and(reached) {
            self.end = Some(binding.epoch);
        }
    }
}

/// Where a recorded replay starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// With nothing, before the first epoch.
    Beginning,
    /// With the state of this checkpoint, by number.
    Checkpoint(u64),
    /// Nothing before the wanted time can be gone on from. The earliest that can, if there is one.
    TooEarly(Option<Millis>),
}

/// The newest checkpoint whose time lies before `from`, among those that the bindings reach back to.
/// `reach`: bindings of all epochs above it are there. `checkpoints`: number, epoch and time, in any order.
pub fn choose(from: Option<Millis>, reach: Epoch, checkpoints: &[(u64, Epoch, Option<Millis>)]) -> Choice {
    let usable = || checkpoints.iter().filter(|(_, epoch, _)| *epoch >= reach);
    // Without a beginning everything is wanted: only the start of all lies before that.
    let lies_before = |time: &Option<Millis>| from.is_some_and(|from| time.is_none_or(|time| time < from));
    let newest = usable()
        .filter(|(_, _, time)| lies_before(time))
        .max_by_key(|(_, epoch, _)| *epoch);
    match newest {
        Some((number, ..)) => Choice::Checkpoint(*number),
        None if reach == 0 => Choice::Beginning,
        None => Choice::TooEarly(
            usable()
                .map(|(_, _, time)| time.map_or(0, |time| time.saturating_add(1)))
                .min(),
        ),
    }
}

/// [`choose`] among manifests.
pub fn choose_manifest(from: Option<Millis>, reach: Epoch, manifests: &[(u64, Manifest)]) -> Choice {
    let facts: Vec<_> = manifests
        .iter()
        .map(|(number, manifest)| (*number, manifest.epoch, time_of(&manifest.positions)))
        .collect();
    choose(from, reach, &facts)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
#[path = "history_test.rs"]
mod test;

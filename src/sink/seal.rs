//! Sealing: an epoch may commit when it is complete *and* everybody has said what it contains.
//!
//! ```text
//!  rows ──exchange by shard──┐
//!                            ├─► per shard and epoch ─► sealed, in order ─► committer thread
//!  shares ────broadcast──────┘   frontier > e, and every worker's shares reach e
//! ```
//!
//! The frontier alone proves nothing: timely reports a worker that dies as completion. Only explicit shares seal.
//! Rows of epochs that an earlier generation committed are dropped here; replaying them only rebuilds state.

use super::encode::Sharded;
use super::{Rows, SealedEpoch};
use crate::checkpoint::binding::{Binding, PartitionBinding, Share};
use crate::record::Messages;
use crate::time::Epoch;
use crate::watchdog;
use std::collections::BTreeMap;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

/// Where a shard's sealed epochs go.
pub struct ShardGate {
    /// The shard.
    pub shard: u32,
    /// What an earlier generation committed of it, 0 before the first: rows of epochs up to this one are dropped.
    pub committed: Epoch,
    /// Called with every sealed epoch, in order.
    pub sealed: Box<dyn FnMut(SealedEpoch)>,
}

/// The worker that seals a shard.
pub fn worker_of(shard: u32, threads: usize) -> u64 {
    u64::from(shard) % threads as u64
}

#[derive(Default)]
struct Pending {
    rows: Vec<Sharded>,
    partitions: Vec<PartitionBinding>,
    cut: bool,
}

/// Seals epochs for the shards of this worker. All shards belong to the first `threads` workers, those of one
/// process: see [`worker_of`].
pub fn seal<'s>(
    rows: Messages<'s, Sharded>,
    shares: Messages<'s, Share>,
    threads: usize,
    gates: Vec<ShardGate>,
) {
    let scope = rows.scope();
    let watched = watchdog::Operator::named("seal");
    let mut builder = OperatorBuilder::new("seal".to_owned(), scope);
    let mut rows = builder.new_input(
        rows,
        Exchange::new(move |(shard, _): &Sharded| worker_of(*shard, threads)),
    );
    let mut shares = builder.new_input(shares, Pipeline);
    let peers = scope.peers();
    builder.build(move |_capabilities| {
        // What has arrived of epochs that are not sealed.
        let mut pending = BTreeMap::<Epoch, Pending>::new();
        // Each worker has closed its epochs up to here.
        let mut closed = vec![None::<Epoch>; peers];
        let mut gates = gates;
        move |frontiers| {
            watched.enter();
            rows.for_each(|capability, batch| {
                pending.entry(*capability.time()).or_default().rows.append(batch);
            });
            shares.for_each(|_capability, batch| {
                for share in batch.drain(..) {
                    let upto = &mut closed[share.worker as usize];
                    *upto = (*upto).max(Some(share.epoch));
                    let entry = pending.entry(share.epoch).or_default();
                    entry.partitions.extend(share.partitions);
                    entry.cut |= share.cut;
                }
            });
            let everybody = closed.iter().min().copied().flatten();
            while let Some(entry) = pending.first_entry() {
                let epoch = *entry.key();
                if everybody.is_none_or(|upto| upto < epoch)
                    || frontiers.iter().any(|frontier| frontier.less_equal(&epoch))
                {
                    break;
                }
                send(epoch, entry.remove(), &mut gates);
            }
            if frontiers
                .iter()
                .all(timely::progress::frontier::MutableAntichain::is_empty)
                && pending.is_empty()
            {
                // Nothing can come any more: the committers end with what they have.
                gates.clear();
            }
        }
    });
}

fn send(epoch: Epoch, pending: Pending, gates: &mut Vec<ShardGate>) {
    let Pending {
        rows,
        mut partitions,
        cut,
    } = pending;
    if rows.is_empty() && partitions.is_empty() && !cut {
        return;
    }
    partitions.sort_unstable();
    let mut by_shard = BTreeMap::<u32, Vec<Rows>>::new();
    for (shard, rows) in rows {
        by_shard.entry(shard).or_default().push(rows);
    }
    for gate in gates {
        let mut rows = by_shard.remove(&gate.shard).unwrap_or_default();
        if epoch <= gate.committed {
            rows.clear();
        }
        let binding = Binding {
            epoch,
            partitions: partitions.clone(),
            ..Binding::default()
        };
        (gate.sealed)(SealedEpoch { epoch, rows, binding });
    }
}

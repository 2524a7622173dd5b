//! The global watermark of every input, the same on every worker.
//!
//! Shares of bindings are broadcast. When an epoch is complete, its shares are folded into the inputs'
//! clocks, and every input whose global watermark rose is told of, at that epoch. The clocks are also
//! readable from outside the dataflow: a partition that wakes in epoch e gets as floor the watermark after e
//! - 1, so its source waits for exactly that.

use crate::checkpoint::binding::{Binding, PartitionBinding, Positions, Share};
use crate::record::Messages;
use crate::time::{Epoch, Millis};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

/// The clocks of all inputs as one worker knows them.
pub struct Clocks {
    /// What the bindings of all epochs below `complete` add up to.
    pub positions: Positions,
    /// All epochs below are complete everywhere.
    pub complete: Epoch,
}

impl Clocks {
    /// The global watermark after the epoch before `epoch`, once it is known.
    pub fn before(&self, epoch: Epoch, input: u16) -> Option<Millis> {
        (self.complete >= epoch).then(|| self.positions.clocks[usize::from(input)].global())
    }
}

/// From all workers' shares (already broadcast) to (input, global watermark), on every worker. The first
/// closed epoch tells of every input, so that operators restored from a checkpoint know the time again.
pub fn clock<'s>(shares: Messages<'s, Share>, clocks: Rc<RefCell<Clocks>>) -> Messages<'s, (u16, Millis)> {
    shares.unary_frontier::<CapacityContainerBuilder<_>, _, _, _>(
        Pipeline,
        "clock",
        move |_capability, _info| {
            // Shares of epochs that are not complete.
            let mut pending = BTreeMap::<Epoch, (_, Vec<PartitionBinding>)>::new();
            // What was told last.
            let mut told: Option<Vec<Millis>> = None;
            move |(input, frontier), output| {
                input.for_each(|capability, shares| {
                    let epoch = *capability.time();
                    let (_, partitions) = pending
                        .entry(epoch)
                        .or_insert_with(|| (capability.retain(0), Vec::new()));
                    partitions.extend(shares.drain(..).flat_map(|share| share.partitions));
                });
                let clocks = &mut *clocks.borrow_mut();
                while let Some(entry) = pending.first_entry() {
                    let epoch = *entry.key();
                    if frontier.less_equal(&epoch) {
                        break;
                    }
                    let (capability, mut partitions) = entry.remove();
                    partitions.sort_unstable();
                    clocks.positions.apply(&Binding {
                        epoch,
                        partitions,
                        ..Binding::default()
                    });
                    let now = clocks
                        .positions
                        .clocks
                        .iter()
                        .map(crate::time::InputClock::global)
                        .collect::<Vec<_>>();
                    let mut session = output.session(&capability);
                    for (input, watermark) in now.iter().enumerate() {
                        if told.as_ref().is_none_or(|told| told[input] != *watermark) {
                            session.give((u16::try_from(input).unwrap_or(u16::MAX), *watermark));
                        }
                    }
                    told = Some(now);
                }
                if let Some(least) = frontier.frontier().first() {
                    clocks.complete = clocks.complete.max(*least);
                }
            }
        },
    )
}

//! What if: one dataflow that computes a recorded span twice, as it was and otherwise, and gives the difference.
//!
//! ```text
//!  recorded ─┬─► as it was ─┬─► sealed ─► verifiers      (did it give what was committed?)
//!   epochs   │              └─► -1 ─┐
//!            └─► otherwise ───► +1 ─┴─► consolidated, epoch by epoch ─► summed over the span
//! ```
//!
//! Both variants read the same inputs and are restored from the same rows; what they have in common is cancelled
//! where it arises, so only differences are ever kept. A message that both give in different epochs is none.

use super::Shared;
use crate::record::Messages;
use crate::sink::encode::Sharded;
use crate::time::{Diff, Epoch};
use differential_dataflow::AsCollection;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use timely::dataflow::Scope;
use timely::dataflow::operators::Concatenate;
use timely::dataflow::operators::vec::Map;

/// Messages by output and bytes (see [`crate::sink::message`], values in JSON): how many more there would be, fewer
/// if negative, never 0.
pub type Differences = BTreeMap<(u16, Vec<u8>), Diff>;

/// What the two variants of a job gave to its outputs.
#[derive(Default)]
pub struct Variants<'s> {
    /// As it was.
    pub did: Vec<Messages<'s, Sharded>>,
    /// Otherwise.
    pub would: Vec<Messages<'s, Sharded>>,
}

impl<'s> Variants<'s> {
    /// Sums up the differences from the epoch `first` on.
    pub fn compare(self, scope: Scope<'s, Epoch>, first: Epoch, shared: &Arc<Shared>) {
        let side = |rows: Vec<Messages<'s, Sharded>>, diff: Diff| {
            scope.concatenate(rows).flat_map(move |(_, rows)| {
                let messages = rows.messages().map(|(_, bytes)| (rows.output, bytes.to_vec()));
                messages.map(|message| (message, diff)).collect::<Vec<_>>()
            })
        };
        let both = scope.concatenate([side(self.did, -1), side(self.would, 1)]);
        let shared = Arc::clone(shared);
        timed(both)
            .as_collection()
            .consolidate()
            .inspect(move |(message, epoch, diff)| {
                if *epoch < first {
                    return;
                }
                let mut differences = shared.differences.lock().unwrap_or_else(PoisonError::into_inner);
                let sum = differences.entry(message.clone()).or_default();
                *sum += diff;
                if *sum == 0 {
                    differences.remove(message);
                }
            });
    }
}

/// A message with its difference, as an update at its epoch.
type Update = ((u16, Vec<u8>), Epoch, Diff);

fn timed<'s>(messages: Messages<'s, ((u16, Vec<u8>), Diff)>) -> Messages<'s, Update> {
    use timely::container::CapacityContainerBuilder;
    use timely::dataflow::channels::pact::Pipeline;
    use timely::dataflow::operators::generic::Operator;
    messages.unary::<CapacityContainerBuilder<Vec<Update>>, _, _, _>(
        Pipeline,
        "differences",
        |_capability, _info| {
            |input, out| {
                input.for_each_time(|capability, containers| {
                    let epoch = *capability.time();
                    let messages = containers.flat_map(|container| container.drain(..));
                    out.session(&capability)
                        .give_iterator(messages.map(|(message, diff)| (message, epoch, diff)));
                });
            }
        },
    )
}

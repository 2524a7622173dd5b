//! The driver of every stateful operator: it hands a core one completed epoch after the other.
//!
//! ```text
//!  left updates ──exchange by hash──┐
//!  right updates ─exchange by hash──┼─► stash per epoch ─► core, epoch by epoch ─┬─► output updates
//!  control (restore, watermark, cut)┘   (containers, not   in order, when all   └─► changed state rows
//!                                        records)          frontiers have passed
//! ```
//!
//! Within one epoch the core sees: restored rows, right updates, left updates, then the watermarks, then the
//! end of the epoch, then the cut. The order of updates *within* a side is unspecified (it depends on workers
//! and batching), so a core's result must not depend on it; where order matters a core sorts by origin.
//!
//! The cost of an epoch is that of its own updates: nothing here grows with past epochs, open windows or
//! pending timers.

use super::{Context, Control, by_hash};
use crate::checkpoint::row::StateRow;
use crate::record::{Messages, Updates};
use crate::time::{Diff, Epoch, Millis};
use crate::watchdog::Operator;
use differential_dataflow::AsCollection;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use timely::ExchangeData;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::generic::operator::empty;
use timely::dataflow::operators::generic::{OutputBuilder, OutputBuilderSession};
use timely::dataflow::operators::{Capability, InputCapability};

/// One of the two inputs of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Side {
    /// The side that asks, where the sides differ.
    Left,
    /// The side that is asked.
    Right,
}

/// A batch of updates: rows, the epoch, the difference.
pub type Batch<D> = Vec<(D, Epoch, Diff)>;

/// The pure half of a stateful operator.
///
/// All methods are called for one epoch after the other, in the order given in the [module](self). Whatever
/// is pushed to `out` should carry the epoch of the call.
pub trait Core: 'static {
    /// Updates of the left side.
    type Left: ExchangeData + Clone;
    /// Updates of the right side; `()` for an operator with one input.
    type Right: ExchangeData + Clone;
    /// Output rows.
    type Out: Clone + 'static;

    /// Routes left updates: the hash of their key.
    fn left_hash(left: &Self::Left) -> u64;
    /// Routes right updates.
    fn right_hash(right: &Self::Right) -> u64;

    /// Takes in updates of the right side and leaves the batch empty.
    fn right(&mut self, epoch: Epoch, batch: &mut Batch<Self::Right>, out: &mut Batch<Self::Out>) {
        let _ = (epoch, out);
        batch.clear();
    }
    /// Takes in updates of the left side and leaves the batch empty.
    fn left(&mut self, epoch: Epoch, batch: &mut Batch<Self::Left>, out: &mut Batch<Self::Out>);
    /// The global watermark of a side rose; called after the epoch's updates.
    fn watermark(&mut self, side: Side, watermark: Millis) {
        let _ = (side, watermark);
    }
    /// All of the epoch's updates and watermarks are in.
    fn finish(&mut self, epoch: Epoch, out: &mut Batch<Self::Out>);

    /// Takes back a row that an earlier incarnation gave to [`Core::changed`]. The error names what does not
    /// decode.
    fn restore(&mut self, row: &StateRow) -> Result<(), String>;
    /// Gives every row changed since the last call, with `operator` left 0; called after [`Core::finish`].
    fn changed(&mut self, rows: &mut Vec<StateRow>);
}

/// The epoch's share that has arrived so far, and the right to answer it.
struct Pending<C: Core> {
    updates: Capability<Epoch>,
    state: Capability<Epoch>,
    left: Vec<Batch<C::Left>>,
    right: Vec<Batch<C::Right>>,
    control: Vec<Control>,
}

impl<C: Core> Pending<C> {
    /// The entry of `epoch`, which `capability` allows for, among those of all incomplete epochs.
    fn of<'p>(
        pending: &'p mut BTreeMap<Epoch, Self>,
        epoch: Epoch,
        capability: &InputCapability<Epoch>,
    ) -> &'p mut Self {
        pending.entry(epoch).or_insert_with(|| Pending {
            updates: capability.delayed(&epoch, 0),
            state: capability.delayed(&epoch, 1),
            left: Vec::new(),
            right: Vec::new(),
            control: Vec::new(),
        })
    }
}

/// Gives a message's updates to `stash` by the epochs they carry. The message's own time only bounds those
/// from below: differential's operators send several epochs in one message when they complete at once.
fn by_epoch<D>(message_time: Epoch, batch: &mut Batch<D>, mut stash: impl FnMut(Epoch, Batch<D>)) {
    if batch.iter().all(|(_, epoch, _)| *epoch == message_time) {
        return stash(message_time, std::mem::take(batch));
    }
    let mut batches = BTreeMap::<Epoch, Batch<D>>::new();
    for update in batch.drain(..) {
        batches.entry(update.1).or_default().push(update);
    }
    batches.into_iter().for_each(|(epoch, batch)| stash(epoch, batch));
}

/// Output is passed on in containers of about this many updates.
const OUT_BATCH: usize = 256;

/// Runs `core` on `left` (and `right`), with the global watermarks it wants to hear of, as the next stateful
/// operator of `context`. `name` is unique in the job: its state is found again by it.
pub fn drive<'s, C: Core>(
    context: &Context<'s>,
    name: &str,
    mut core: C,
    left: Updates<'s, C::Left>,
    right: Option<Updates<'s, C::Right>>,
    watermarks: Vec<(Side, Messages<'s, Millis>)>,
) -> Updates<'s, C::Out> {
    let operator =
        u16::try_from(context.operators.borrow().len()).expect("fewer than 65 536 stateful operators");
    let control = context.control(operator, watermarks);
    let right = right.map_or_else(|| empty(context.scope), |right| right.inner);

    let mut builder = OperatorBuilder::new(name.to_owned(), context.scope);
    let mut left = builder.new_input(left.inner, by_hash(C::left_hash));
    let mut right = builder.new_input(right, by_hash(C::right_hash));
    let mut control = builder.new_input(control, Pipeline);
    let (updates, update_stream) = builder.new_output::<Batch<C::Out>>();
    let (state, state_stream) = builder.new_output::<Vec<StateRow>>();
    let mut updates = OutputBuilder::<_, CapacityContainerBuilder<_>>::from(updates);
    let mut state = OutputBuilder::<_, CapacityContainerBuilder<_>>::from(state);
    let watched = Operator::named(name);
    let name = name.to_owned();
    context.operators.borrow_mut().push((name.clone(), state_stream));

    builder.build(move |_capabilities| {
        // What has arrived for epochs that are not complete.
        let mut pending = BTreeMap::<Epoch, Pending<C>>::new();
        // Output on its way; kept for its allocation.
        let mut out = Vec::new();
        move |frontiers| {
            watched.enter();
            left.for_each(|capability, batch| {
                by_epoch(*capability.time(), batch, |epoch, batch| {
                    Pending::of(&mut pending, epoch, &capability).left.push(batch);
                });
            });
            right.for_each(|capability, batch| {
                by_epoch(*capability.time(), batch, |epoch, batch| {
                    Pending::of(&mut pending, epoch, &capability).right.push(batch);
                });
            });
            control.for_each(|capability, batch| {
                let epoch = *capability.time();
                Pending::of(&mut pending, epoch, &capability)
                    .control
                    .append(batch);
            });

            let mut updates = updates.activate();
            let mut state = state.activate();
            while let Some(entry) = pending.first_entry() {
                let epoch = *entry.key();
                if frontiers.iter().any(|frontier| frontier.less_equal(&epoch)) {
                    break;
                }
                let (mut epoch_in, mut cut) = (entry.remove(), false);
                epoch_in.control.sort_unstable();
                for control in &epoch_in.control {
                    if let Control::Restore(row) = control {
                        watched.enter();
                        // A chunk's checksum held and yet its row does not decode: not damage but a bug.
                        core.restore(row)
                            .unwrap_or_else(|error| panic!("{name}: cannot restore a row: {error}"));
                    }
                }
                for batch in &mut epoch_in.right {
                    watched.enter();
                    core.right(epoch, batch, &mut out);
                    pass_on(&mut updates, &epoch_in.updates, &mut out, OUT_BATCH);
                }
                for batch in &mut epoch_in.left {
                    watched.enter();
                    core.left(epoch, batch, &mut out);
                    pass_on(&mut updates, &epoch_in.updates, &mut out, OUT_BATCH);
                }
                for control in epoch_in.control {
                    match control {
                        Control::Restore(_) => {}
                        Control::Watermark(side, watermark) => core.watermark(side, watermark),
                        Control::Cut => cut = true,
                    }
                }
                core.finish(epoch, &mut out);
                pass_on(&mut updates, &epoch_in.updates, &mut out, 1);
                if cut {
                    let mut rows = Vec::new();
                    core.changed(&mut rows);
                    rows.iter_mut().for_each(|row| row.operator = operator);
                    state.session(&epoch_in.state).give_container(&mut rows);
                }
            }
        }
    });
    update_stream.as_collection()
}

/// Sends `out` on once it holds `least` updates.
fn pass_on<D: Clone + 'static>(
    updates: &mut OutputBuilderSession<'_, Epoch, CapacityContainerBuilder<Batch<D>>>,
    capability: &Capability<Epoch>,
    out: &mut Batch<D>,
    least: usize,
) {
    if out.len() >= least {
        updates.session(capability).give_container(out);
        out.clear();
    }
}

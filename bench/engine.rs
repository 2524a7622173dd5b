//! The engine on decoded records: the real dataflows, fed from memory, drained into a tally.
//!
//! ```text
//!  Share (this worker's) ─► inputs ─► dataflows::build ─► messages ─► tally ─► probe
//!                           one epoch after the other: the next is fed when the one before is complete
//! ```
//!
//! An epoch's latency is from its first record fed to its last output counted; nothing overlaps two epochs,
//! so the time
//! of a run is the sum of its latencies. Checkpoints are off; encoding is off.

use crate::digest::{Digested, Tally};
use crate::process::now;
use crate::workload::{Epochs, Events, Part, Share, Steps, Watermarks};
use differential_dataflow::AsCollection;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use tidegate::operators::Context;
use tidegate::record::{Messages, Record, Records, Updates};
use tidegate::source::{MessageHandle, UpdateHandle};
use tidegate::time::{Diff, Epoch};
use tidegate_dataflows::catalogue::{DEFAULTS, Dataflow};
use tidegate_dataflows::generator::Input;
use tidegate_dataflows::records::{Order, Payment};
use tidegate_dataflows::{alerts, enriched_orders, event_counts, risk_pattern, tumbling_aggregates};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::ProbeHandle;
use timely::dataflow::Scope;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::{Concatenate, Input as _, Probe};

/// What a run gave and how long each epoch took.
pub struct Run {
    /// The messages of all workers.
    pub tally: Tally,
    /// How long each measured epoch took, nanoseconds, as the first worker saw it.
    pub epoch_nanos: Vec<u64>,
    /// From the first measured epoch to the last, seconds.
    pub seconds: f64,
    /// CPU seconds of the process in that time.
    pub cpu_seconds: f64,
}

/// Feeds one epoch of one input and closes it.
type Fill = Box<dyn FnMut(Epoch)>;

/// Runs a part on as many workers as there are shares.
pub fn run(part: Part, epochs: &Epochs, shares: Vec<Share>) -> Run {
    let workers = shares.len();
    let shares = Arc::new(Mutex::new(shares));
    let (epochs, loading) = (epochs.messages.len(), epochs.loading);
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let share = {
            let mut shares = shares.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut shares[worker.index()])
        };
        let tally = Rc::new(RefCell::new(Tally::default()));
        let (mut fills, probe) = worker.dataflow(|scope| build(part, scope, share, &tally));
        let mut epoch_nanos = Vec::with_capacity(epochs - loading);
        let (mut started, mut cpu) = (now(), crate::process::cpu_seconds());
        for epoch in 0..epochs {
            if epoch == loading {
                (started, cpu) = (now(), crate::process::cpu_seconds());
            }
            let fed = now();
            fills.iter_mut().for_each(|fill| fill(epoch as Epoch));
            while probe.less_than(&(epoch as Epoch + 1)) {
                worker.step();
                give_way(workers);
            }
            if epoch >= loading {
                epoch_nanos.push(u64::try_from(fed.elapsed().as_nanos()).unwrap_or(u64::MAX));
            }
        }
        let (seconds, cpu_seconds) = (
            started.elapsed().as_secs_f64(),
            crate::process::cpu_seconds() - cpu,
        );
        drop(fills);
        let tally = *tally.borrow();
        Run {
            tally,
            epoch_nanos,
            seconds,
            cpu_seconds,
        }
    });
    let results = guards.expect("timely starts its threads").join();
    let mut runs = results
        .into_iter()
        .map(|run| run.expect("a worker that panics ends the process"));
    let mut first = runs.next().expect("there is a first worker");
    runs.for_each(|run| first.tally.merge(run.tally));
    first
}

/// Lets the other workers run, where there are more than cores.
pub fn give_way(workers: usize) {
    if workers > 1 {
        std::thread::yield_now();
    }
}

/// Builds a part's dataflows; gives what feeds them and a probe behind all their outputs.
pub fn build(
    part: Part,
    scope: Scope<'_, Epoch>,
    share: Share,
    tally: &Rc<RefCell<Tally>>,
) -> (Vec<Fill>, ProbeHandle<Epoch>) {
    let context = Context::without_checkpoints(scope);
    let Share {
        entries,
        authorizations,
        settings,
        orders,
        payments,
        transactions,
        events,
    } = share;
    let mut fills = Vec::new();
    let mut ends = Vec::new();
    let has = |dataflow| part.dataflows().contains(&dataflow);
    if has(Dataflow::Alerts) {
        let entries = records(scope, entries, &mut fills);
        let authorizations = updates(scope, authorizations, &mut fills);
        let settings = updates(scope, settings, &mut fills);
        let outputs = alerts::build(
            &context,
            alerts::Inputs {
                entries,
                authorizations,
                settings,
                devices: None,
            },
        );
        ends.extend([outputs.email, outputs.sms, outputs.push].map(|messages| tallied(messages, tally)));
    }
    if part.reads(Input::Orders) {
        let orders = records(scope, orders, &mut fills);
        let payments = has(Dataflow::EnrichedOrders).then(|| records(scope, payments, &mut fills));
        let has_windows = has(Dataflow::TumblingAggregates);
        ends.extend(build_orders(&context, orders, payments, has_windows, tally));
    }
    if has(Dataflow::RiskPattern) {
        let inputs = risk_pattern::Inputs {
            transactions: records(scope, transactions, &mut fills),
        };
        let outputs = risk_pattern::build(&context, inputs, &DEFAULTS.risk_pattern);
        ends.extend([
            tallied(outputs.risk_alerts, tally),
            tallied(outputs.risk_timeouts, tally),
        ]);
        ends.push(tallied(outputs.dead_letters, tally));
    }
    if has(Dataflow::EventCounts) {
        let inputs = event_counts::Inputs {
            events: records(scope, events, &mut fills),
        };
        ends.push(tallied(event_counts::build(&context, inputs).counts, tally));
    }
    let (probe, _) = scope.concatenate(ends).probe();
    (fills, probe)
}

/// Both order dataflows read the one input: windows where they are wanted, the join where there are payments.
fn build_orders<'s>(
    context: &Context<'s>,
    orders: Records<'s, Order>,
    payments: Option<Records<'s, Payment>>,
    has_windows: bool,
    tally: &Rc<RefCell<Tally>>,
) -> Vec<Messages<'s, ()>> {
    let mut ends = Vec::new();
    if has_windows {
        let inputs = tumbling_aggregates::Inputs {
            orders: orders.clone(),
        };
        let outputs = tumbling_aggregates::build(context, inputs, &DEFAULTS.tumbling_aggregates);
        ends.extend([
            tallied(outputs.aggregates, tally),
            tallied(outputs.dead_letters, tally),
        ]);
    }
    if let Some(payments) = payments {
        let inputs = enriched_orders::Inputs { orders, payments };
        let outputs = enriched_orders::build(context, inputs, &DEFAULTS.enriched_orders);
        ends.extend([
            tallied(outputs.enriched, tally),
            tallied(outputs.dead_letters, tally),
        ]);
    }
    ends
}

/// An event input and the way into it.
fn records<'s, R: Record>(
    scope: Scope<'s, Epoch>,
    events: Events<R>,
    fills: &mut Vec<Fill>,
) -> Records<'s, R> {
    let watermarks = events.watermarks;
    Records {
        updates: updates(scope, events.steps, fills),
        watermark: rising(scope, watermarks, fills),
    }
}

/// The updates of an input and the way into it.
fn updates<'s, D: Clone + 'static>(
    scope: Scope<'s, Epoch>,
    steps: Steps<D>,
    fills: &mut Vec<Fill>,
) -> Updates<'s, D> {
    let mut handle = UpdateHandle::<D>::new();
    let stream = scope.input_from(&mut handle);
    let mut messages = steps.messages.into_iter();
    let (cuts, mut sent) = (steps.cuts, 0);
    fills.push(Box::new(move |epoch| {
        let upto = cuts.get(epoch as usize).copied().unwrap_or(sent);
        for message in messages.by_ref().take(upto - sent) {
            handle.send((message, epoch, 1 as Diff));
        }
        sent = upto;
        handle.advance_to(epoch + 1);
    }));
    stream.as_collection()
}

/// An input's global watermark: every worker tells itself, as the engine's clock does.
fn rising<'s>(scope: Scope<'s, Epoch>, watermarks: Watermarks, fills: &mut Vec<Fill>) -> Messages<'s, i64> {
    let mut handle = MessageHandle::new();
    let stream = scope.input_from(&mut handle);
    fills.push(Box::new(move |epoch| {
        if let Some(watermark) = watermarks.get(epoch as usize).copied().flatten() {
            handle.send(watermark);
        }
        handle.advance_to(epoch + 1);
    }));
    stream
}

/// Counts messages and gives nothing on.
fn tallied<'s, M: Digested + Clone + 'static>(
    messages: Messages<'s, M>,
    tally: &Rc<RefCell<Tally>>,
) -> Messages<'s, ()> {
    let tally = Rc::clone(tally);
    messages.unary::<CapacityContainerBuilder<Vec<()>>, _, _, _>(
        Pipeline,
        "tally",
        move |_capability, _info| {
            move |input, _output| {
                input.for_each(|_capability, batch| {
                    let mut tally = tally.borrow_mut();
                    batch.drain(..).for_each(|message| tally.add(message.digest()));
                });
            }
        },
    )
}

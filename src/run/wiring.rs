//! One worker's dataflow: from the inputs of a plan, through whatever `build` makes of them, to its outputs.
//!
//! ```text
//!  feeds ──► records ─► build(wiring) ─► messages ─► encode ─┐
//!        └─► dead letters ───────────────────────────────────┼─► seal ─► committers
//!  shares ─broadcast─┬─► clock ─► watermarks ─► build        │
//!                    ├───────────────────────────────────────┘
//!                    └─► cuts ─► stateful operators ─► changed rows ─► checkpointer
//! ```

use super::what_if::Variants;
use super::{Aim, Plan, Shared};
use crate::checkpoint::binding::{Positions, Share};
use crate::checkpoint::row::StateRow;
use crate::operators::Context;
use crate::operators::clock::{Clocks, clock};
use crate::record::{DeadLetter, Messages, Output, Record, Records, Updates, Write};
use crate::sink::encode::{Sharded, encode};
use crate::sink::seal::{ShardGate, seal};
use crate::source::feed::{Entrance, InputFeed};
use crate::source::{Feed, InputSettings, MessageHandle, UpdateHandle};
use crate::time::{Epoch, Millis};
use differential_dataflow::AsCollection;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use timely::dataflow::Scope;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::vec::{Broadcast, Delay, Filter, Map, ToStream};
use timely::dataflow::operators::{Concatenate, Input, Inspect as _};

/// What the worker's loop drives the dataflow by.
pub struct Entrances {
    /// One per input of the plan that `build` asked for.
    pub feeds: Vec<Box<dyn Feed>>,
    /// Messages that change no result.
    pub dead_letters: MessageHandle<DeadLetter>,
    /// The worker's shares of the bindings.
    pub shares: MessageHandle<Share>,
    /// State rows of the checkpoint that was restored; gone once they are in.
    pub restored: Option<MessageHandle<StateRow>>,
    /// The clocks of all inputs.
    pub clocks: Rc<RefCell<Clocks>>,
    /// The names of the stateful operators, in order.
    pub operators: Vec<String>,
}

/// What `build` asks for its inputs and gives its outputs to.
pub struct Wiring<'s> {
    /// Scope and state of the operators.
    pub context: Context<'s>,
    /// What if: those of the other variant, and what both gave.
    other: Option<Context<'s>>,
    is_other: bool,
    variants: Variants<'s>,
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    committed: Epoch,
    watermarks: Messages<'s, (u16, Millis)>,
    feeds: Vec<Box<dyn Feed>>,
    rows: Vec<Messages<'s, Sharded>>,
}

impl<'s> Wiring<'s> {
    /// The records of an event input. An input is asked for once; clone what it gives.
    pub fn records<R: Record>(&mut self, name: &str) -> Records<'s, R> {
        let settings = self.settings(name);
        let index = settings.index;
        let mut handle = UpdateHandle::new();
        let updates = self.context.scope.input_from(&mut handle).as_collection();
        self.feed::<R>(settings, Entrance::Records(handle));
        let of_input = move |(input, _): &(u16, Millis)| *input == index;
        let watermark = self
            .watermarks
            .clone()
            .filter(of_input)
            .map(|(_, watermark)| watermark);
        Records { updates, watermark }
    }

    /// The writes to a table.
    pub fn table<R: Record>(&mut self, name: &str) -> Updates<'s, Write<R>> {
        let settings = self.settings(name);
        let mut handle = UpdateHandle::new();
        let updates = self.context.scope.input_from(&mut handle).as_collection();
        self.feed::<R>(settings, Entrance::Writes(handle));
        updates
    }

    /// Whether the plan has an input of this name.
    pub fn has_input(&self, name: &str) -> bool {
        self.plan.inputs.iter().any(|input| input.settings.name == name)
    }

    /// Sends messages to an output.
    pub fn output<O: Output>(&mut self, name: &str, messages: Messages<'s, O>) {
        let index = self.plan.outputs.iter().position(|output| output.name == name);
        let index = index.unwrap_or_else(|| panic!("the plan has no output `{name}`"));
        let output = u16::try_from(index).expect("fewer than 65 536 outputs");
        if let Aim::WhatIf(_) = self.plan.aim {
            let compared = self.plan.compared(output);
            let rows = encode(messages.clone(), compared, &format!("compare {name}"));
            match self.is_other {
                true => self.variants.would.push(rows),
                false => self.variants.did.push(rows),
            }
        }
        if !self.is_other {
            let route = self.plan.route(output);
            self.rows.push(encode(messages, route, &format!("encode {name}")));
        }
    }

    /// What if: from here on what is built belongs to the other variant, with the same state; called again, to the
    /// first one.
    pub fn switch(&mut self) {
        self.is_other = !self.is_other;
        if let Some(other) = &mut self.other {
            std::mem::swap(&mut self.context, other);
        }
    }

    /// Writes to a table that are there from an epoch on, given once.
    pub fn given<R: Record>(&self, writes: &[Write<R>], epoch: Epoch) -> Updates<'s, Write<R>> {
        let scope = self.context.scope;
        let own = match scope.index() {
            0 => writes.to_vec(),
            _ => Vec::new(),
        };
        own.to_stream(scope)
            .delay(move |_, _| epoch)
            .map(move |write| (write, epoch, 1))
            .as_collection()
    }

    /// Sends dead letters to the job's output for them, and counts them.
    pub fn dead_letters(&mut self, letters: Messages<'s, DeadLetter>) {
        let shared = Arc::clone(&self.shared);
        let (committed, is_counted) = (self.committed, !self.is_other);
        let counted = letters.inspect_time(move |epoch, letter| {
            if is_counted && *epoch > committed {
                shared.metrics.dead_letters[letter.reason as usize].fetch_add(1, Ordering::Relaxed);
            }
        });
        self.output("dead_letters", counted);
    }

    fn settings(&self, name: &str) -> InputSettings {
        let input = self.plan.inputs.iter().find(|input| input.settings.name == name);
        input
            .unwrap_or_else(|| panic!("the plan has no input `{name}`"))
            .settings
            .clone()
    }

    fn feed<R: Record>(&mut self, settings: InputSettings, entrance: Entrance<R>) {
        let ahead = self.plan.partition_cap() + 1;
        self.feeds.push(Box::new(InputFeed::new(
            settings,
            entrance,
            self.plan.is_finite(),
            ahead,
        )));
    }
}

/// Builds the dataflow of one worker. `positions`: the clocks at the restored checkpoint; with them, what was
/// committed when the run began.
pub fn wire<'s>(
    scope: Scope<'s, Epoch>,
    plan: &Arc<Plan>,
    shared: &Arc<Shared>,
    (positions, committed): (Positions, Epoch),
    build: &dyn Fn(&mut Wiring<'s>),
    gates: Vec<ShardGate>,
    changed: Box<dyn FnMut(Epoch, Vec<StateRow>)>,
) -> Entrances {
    let mut dead_letters = MessageHandle::new();
    let mut shares = MessageHandle::new();
    let mut restored = MessageHandle::new();
    let letters = scope.input_from(&mut dead_letters);
    let share_stream = scope.input_from(&mut shares).broadcast();
    let restored_stream = scope.input_from(&mut restored);

    let clocks = Rc::new(RefCell::new(Clocks {
        positions,
        complete: 0,
    }));
    let watermarks = clock(share_stream.clone(), Rc::clone(&clocks));
    let mine = scope.index() as u32;
    let cuts = share_stream
        .clone()
        .filter(move |share| share.cut && share.worker == mine)
        .map(|_| ());
    let other = matches!(plan.aim, Aim::WhatIf(_))
        .then(|| Context::new(scope, restored_stream.clone(), cuts.clone()));
    let context = Context::new(scope, restored_stream, cuts.clone());

    let threads = plan.workers;
    let (plan, shared) = (Arc::clone(plan), Arc::clone(shared));
    let (feeds, rows) = (Vec::new(), Vec::new());
    let mut wiring = Wiring {
        context,
        other,
        is_other: false,
        variants: Variants::default(),
        plan,
        shared,
        committed,
        watermarks,
        feeds,
        rows,
    };
    build(&mut wiring);
    // What no variant changes is not compared.
    let variants = std::mem::take(&mut wiring.variants);
    wiring.dead_letters(letters);
    let Wiring {
        context,
        feeds,
        rows,
        plan,
        shared,
        ..
    } = wiring;
    if let Aim::WhatIf(first) = plan.aim {
        variants.compare(scope, first, &shared);
    }
    let (operators, state) = context.into_state();
    collect_state(state, cuts, changed);
    seal(scope.concatenate(rows), share_stream, threads, gates);
    Entrances {
        feeds,
        dead_letters,
        shares,
        restored: Some(restored),
        clocks,
        operators,
    }
}

/// Hands over the rows that changed up to each cut, once the cut's epoch is complete.
fn collect_state<'s>(
    state: Messages<'s, StateRow>,
    cuts: Messages<'s, ()>,
    mut changed: Box<dyn FnMut(Epoch, Vec<StateRow>)>,
) {
    state.binary_frontier::<_, timely::container::CapacityContainerBuilder<Vec<()>>, _, _, _, _>(
        cuts,
        Pipeline,
        Pipeline,
        "checkpoint",
        move |_capability, _info| {
            // Rows of cuts that are not complete.
            let mut pending = BTreeMap::<Epoch, Vec<StateRow>>::new();
            move |(rows, rows_frontier), (cuts, cuts_frontier), _output| {
                rows.for_each(|capability, batch| {
                    pending.entry(*capability.time()).or_default().append(batch)
                });
                cuts.for_each(|capability, _| {
                    pending.entry(*capability.time()).or_default();
                });
                while let Some(entry) = pending.first_entry() {
                    let epoch = *entry.key();
                    if rows_frontier.less_equal(&epoch) || cuts_frontier.less_equal(&epoch) {
                        break;
                    }
                    changed(epoch, entry.remove());
                }
            }
        },
    );
}

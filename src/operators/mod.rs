//! Operators: signed collections in, exact signed changelogs out.
//!
//! Tables and joins of tables are differential arrangements. The per-record operators are our own, each in
//! two halves: one **driver** for all of them ([`drive`](mod@drive)), which owns frontiers, capabilities and
//! the order of epochs, and a **core** per operator, which is pure: no timely types, no clocks, no I/O. Cores
//! are tested against slow twins by seed.
//!
//! **State is a collection of rows.** Every core can restore itself from [`StateRow`]s and can say which rows
//! changed since it was last asked. The checkpoint is a sink of those rows; restore is an input of them. What
//! a core can recompute from its inputs (a join of tables, say) is not state.

mod amounts;
pub mod clock;
pub mod count;
pub mod drive;
pub mod interval_join;
pub mod late;
pub mod lookup;
pub mod neighbours;
mod slots;
mod table;
mod timeline;
#[cfg(test)]
mod twins;
pub mod upsert;
pub mod window;

pub use drive::{Core, Side, drive};

use crate::checkpoint::row::StateRow;
use crate::record::Messages;
use crate::time::{Diff, Epoch, Millis};
use std::cell::RefCell;
use timely::dataflow::Scope;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::empty;
use timely::dataflow::operators::vec::{Filter, Map};
use timely::dataflow::operators::{Concatenate, Exchange as _};

/// What reaches a core beside its updates.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Control {
    /// A row of the operator's own state, at the time of the checkpoint it comes from.
    Restore(StateRow),
    /// The global watermark of one side's input rose to this after the epoch.
    Watermark(Side, Millis),
    /// The epoch ends with a checkpoint: changed rows are wanted.
    Cut,
}

/// What a dataflow is built in: the scope, and the state of its operators, restored from and written to.
pub struct Context<'s> {
    /// The scope of the dataflow.
    pub scope: Scope<'s, Epoch>,
    restored: Messages<'s, StateRow>,
    cuts: Messages<'s, ()>,
    operators: RefCell<Vec<(String, Messages<'s, StateRow>)>>,
}

impl<'s> Context<'s> {
    /// A context with checkpoints: `restored` brings the rows of all operators at the checkpoint's epoch, on
    /// any worker; `cuts` says on every worker after which epochs changed rows are wanted.
    pub fn new(scope: Scope<'s, Epoch>, restored: Messages<'s, StateRow>, cuts: Messages<'s, ()>) -> Self {
        Context {
            scope,
            restored,
            cuts,
            operators: RefCell::default(),
        }
    }

    /// A context that never restores and never cuts: the whole state lives in memory.
    pub fn without_checkpoints(scope: Scope<'s, Epoch>) -> Self {
        Context::new(scope, empty(scope), empty(scope))
    }

    /// The names of the stateful operators, in the order they were built, and the rows they changed, to be
    /// checkpointed.
    pub fn into_state(self) -> (Vec<String>, Messages<'s, StateRow>) {
        let (names, rows): (Vec<_>, Vec<_>) = self.operators.into_inner().into_iter().unzip();
        (names, self.scope.concatenate(rows))
    }

    /// Everything of control that concerns the operator of this index.
    fn control(&self, operator: u16, watermarks: Vec<(Side, Messages<'s, Millis>)>) -> Messages<'s, Control> {
        let restored = self
            .restored
            .clone()
            .filter(move |row| row.operator == operator)
            .exchange(|row| route(row.hash))
            .map(Control::Restore);
        let cuts = self.cuts.clone().map(|()| Control::Cut);
        let watermarks = watermarks
            .into_iter()
            .map(|(side, watermark)| watermark.map(move |watermark| Control::Watermark(side, watermark)));
        self.scope
            .concatenate([restored, cuts].into_iter().chain(watermarks))
    }
}

/// The worker of a hash. The high half routes between workers, so that the low half still spreads within one.
pub fn route(hash: u64) -> u64 {
    hash >> 32
}

/// One update of a collection.
type Update<D> = (D, Epoch, Diff);

/// The exchange of updates by a hash they carry.
pub(crate) fn by_hash<D: timely::ExchangeData>(
    hash: fn(&D) -> u64,
) -> Exchange<Update<D>, impl FnMut(&Update<D>) -> u64> {
    Exchange::new(move |(data, _, _): &Update<D>| route(hash(data)))
}

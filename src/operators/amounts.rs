//! The amounts of one window, as a multiset that takes copies back.
//!
//! When the least amount goes, the next is the least: so the amounts themselves are kept. Few of them are a
//! list, added to without a search; many are a map. So neither a window of one order nor one of a million is
//! slow. A map never becomes a list again.

use crate::time::Diff;
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// A list of amounts longer than this becomes a map.
const FEW: usize = 32;

/// A multiset of amounts.
pub(super) enum Amounts {
    /// Each copy an element, in any order. Five of them lie in the slot itself.
    Few(SmallVec<[i64; 5]>),
    /// Copies by amount. They may be negative within an epoch: a retraction can arrive before what it
    /// retracts.
    Many(BTreeMap<i64, Diff>),
}

impl Amounts {
    /// Adds copies of an amount, or takes them back.
    #[inline]
    pub fn add(&mut self, amount: i64, diff: Diff) {
        if let Amounts::Few(few) = self {
            if diff == 1 && few.len() < FEW {
                return few.push(amount);
            }
            if diff == -1
                && let Some(at) = few.iter().position(|other| *other == amount)
            {
                few.swap_remove(at);
                return;
            }
        }
        self.add_many(amount, diff);
    }

    #[cold]
    fn add_many(&mut self, amount: i64, diff: Diff) {
        let mut many = match std::mem::take(self) {
            Amounts::Few(few) => {
                let mut many = BTreeMap::new();
                few.into_iter()
                    .for_each(|amount| *many.entry(amount).or_default() += 1);
                many
            }
            Amounts::Many(many) => many,
        };
        let copies = many.entry(amount).or_default();
        *copies += diff;
        if *copies == 0 {
            many.remove(&amount);
        }
        *self = Amounts::Many(many);
    }

    /// Least and greatest amount; none where there is none.
    pub fn extremes(&self) -> Option<(i64, i64)> {
        match self {
            Amounts::Few(few) => Some((*few.iter().min()?, *few.iter().max()?)),
            Amounts::Many(many) => {
                let mut present = many
                    .iter()
                    .filter(|(_, copies)| **copies > 0)
                    .map(|(amount, _)| *amount);
                let least = present.next()?;
                Some((least, present.next_back().unwrap_or(least)))
            }
        }
    }

    /// Amounts and copies, as a state row holds them.
    pub fn copies(&self) -> Vec<(i64, Diff)> {
        match self {
            Amounts::Few(few) => few.iter().map(|amount| (*amount, 1)).collect(),
            Amounts::Many(many) => many.iter().map(|(amount, copies)| (*amount, *copies)).collect(),
        }
    }
}

impl Default for Amounts {
    fn default() -> Self {
        Amounts::Few(SmallVec::new())
    }
}

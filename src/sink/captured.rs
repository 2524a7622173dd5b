//! A sink that keeps what was committed in memory, for tests and the bench. Nothing survives the process.

use super::{SealedEpoch, Sink};
use crate::checkpoint::binding::Binding;
use crate::error::Result;
use crate::time::Epoch;
use std::sync::{Arc, Mutex, PoisonError};

/// What a captured sink has committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commits {
    /// The greatest committed epoch.
    pub committed: Epoch,
    /// Every message in the order of its output: (epoch, output, bytes).
    pub messages: Vec<(Epoch, u16, Vec<u8>)>,
    /// The bindings of the committed epochs.
    pub bindings: Vec<Binding>,
    /// How many transactions it took.
    pub transactions: usize,
}

impl Commits {
    /// The content of one output.
    pub fn output(&self, output: u16) -> Vec<u8> {
        let own = self.messages.iter().filter(|(_, other, _)| *other == output);
        own.flat_map(|(_, _, bytes)| bytes).copied().collect()
    }
}

/// The sink; clones share what was committed.
#[derive(Clone, Debug, Default)]
pub struct Captured(Arc<Mutex<Commits>>);

impl Captured {
    /// What has been committed so far.
    pub fn commits(&self) -> Commits {
        self.with(|commits| commits.clone())
    }

    fn with<T>(&self, look: impl FnOnce(&mut Commits) -> T) -> T {
        // A commit is all or nothing for as long as nothing in it panics, and a panic in a test fails the
        // test anyway.
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Sink for Captured {
    fn committed(&self) -> Epoch {
        self.with(|commits| commits.committed)
    }

    fn commit(&mut self, epochs: Vec<SealedEpoch>) -> Result<()> {
        self.with(|commits| {
            commits.transactions += 1;
            for sealed in epochs.iter().filter(|sealed| sealed.epoch > commits.committed) {
                let messages = sealed.ordered().into_iter();
                commits
                    .messages
                    .extend(messages.map(|(output, bytes)| (sealed.epoch, output, bytes.to_vec())));
                commits.bindings.extend(sealed.effective_binding());
            }
            let last = epochs.last().map_or(0, |sealed| sealed.epoch);
            commits.committed = commits.committed.max(last);
        });
        Ok(())
    }

    fn forget(&mut self, oldest: Epoch) -> Result<()> {
        self.with(|commits| commits.bindings.retain(|binding| binding.epoch > oldest));
        Ok(())
    }
}

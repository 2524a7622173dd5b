//! Sinks of a job with history: what came out of each epoch goes into its binding, and bindings are archived
//! before they are dropped ([`crate::checkpoint::history`]).

use crate::checkpoint::binding::Binding;
use crate::checkpoint::history::Archive;
use crate::checkpoint::store::Store;
use crate::error::Result;
use crate::sink::{SealedEpoch, Sink};
use crate::time::Epoch;
use crate::verify::digests;
use std::sync::Arc;

/// What the progress of a shard holds at the start: bindings above an epoch.
pub type Logged = (Epoch, Vec<Binding>);

struct Archiving {
    sink: Box<dyn Sink>,
    archive: Archive,
}

/// Wraps the sinks of a job with history; `logged`, by shard.
pub fn archiving(
    sinks: Vec<Box<dyn Sink>>,
    logged: Vec<Logged>,
    store: &Arc<dyn Store>,
) -> Result<Vec<Box<dyn Sink>>> {
    let wrap = |(shard, (sink, (after, bindings))): (usize, (Box<dyn Sink>, Logged))| {
        let archive = Archive::open(Arc::clone(store), shard, after, bindings.iter())?;
        Ok(Box::new(Archiving { sink, archive }) as Box<dyn Sink>)
    };
    sinks.into_iter().zip(logged).enumerate().map(wrap).collect()
}

impl Sink for Archiving {
    fn committed(&self) -> Epoch {
        self.sink.committed()
    }

    fn commit(&mut self, mut epochs: Vec<SealedEpoch>) -> Result<()> {
        for sealed in &mut epochs {
            sealed.binding.outputs = Some(digests(sealed));
        }
        let committed = self.sink.committed();
        let new = epochs.iter().filter(|sealed| sealed.epoch > committed);
        let bindings: Vec<_> = new.filter_map(SealedEpoch::effective_binding).collect();
        self.sink.commit(epochs)?;
        self.archive.committed(bindings);
        Ok(())
    }

    fn forget(&mut self, oldest: Epoch) -> Result<()> {
        self.archive.archive(oldest)?;
        self.sink.forget(oldest)
    }
}

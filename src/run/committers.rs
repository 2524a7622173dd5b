//! From sealed epochs to commits: a committer per output shard, and the ways to them from the workers.
//!
//! ```text
//!  seal ─► gate of the shard ─┬─► committer: keep large messages, commit ─► counted; checkpointer: look again
//!                             └─► checkpointer: what is bound (first shard)
//! ```

use super::{Shared, kept, now};
use crate::checkpoint::checkpointer::{self, Checkpointer, Event, Marks};
use crate::checkpoint::store::Store;
use crate::error::Result;
use crate::limits;
use crate::sink::committer::{self, Committer, Queue};
use crate::sink::seal::{ShardGate, worker_of};
use crate::sink::{SealedEpoch, Sink};
use crate::time::Epoch;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

/// A sink whose epochs keep large messages in the state store.
struct Keeping {
    sink: Box<dyn Sink>,
    keep: Keep,
}

/// Where they are kept, and under whose number.
#[derive(Clone)]
pub(super) struct Keep {
    pub(super) store: Arc<dyn Store>,
    pub(super) generation: u64,
}

impl Sink for Keeping {
    fn committed(&self) -> Epoch {
        self.sink.committed()
    }

    fn commit(&mut self, mut epochs: Vec<SealedEpoch>) -> Result<()> {
        kept::put_away(self.keep.store.as_ref(), self.keep.generation, &mut epochs)?;
        self.sink.commit(epochs)
    }

    fn forget(&mut self, oldest: Epoch) -> Result<()> {
        self.sink.forget(oldest)
    }
}

/// A committer per shard, which tells the checkpointer of its commits.
pub(super) fn spawn_committers(
    sinks: Vec<Box<dyn Sink>>,
    marks: Vec<Arc<Marks>>,
    shared: &Arc<Shared>,
    checkpointer: &Checkpointer,
    keep: Keep,
) -> Result<Vec<Committer>> {
    let spawn = |(shard, (sink, marks)): (usize, (Box<dyn Sink>, Arc<Marks>))| {
        let keep = keep.clone();
        let sink = Keeping { sink, keep };
        let (shared, events) = (Arc::clone(shared), checkpointer.events());
        let told: committer::Told = Box::new(move |committed| match committed {
            Ok(made) => {
                shared.metrics.committed(made.epochs, made.begun, now());
                shared.moved_on();
                // A checkpointer that has ended has said why.
                let _ = events.send(Event::Committed);
            }
            Err(error) => shared.fail(error.clone()),
        });
        // The worker loop bounds what waits; the queue itself must never block a worker.
        let capacity = 4 * limits::IN_FLIGHT_EPOCHS;
        committer::spawn(
            &format!("committer-{shard}"),
            Box::new(sink),
            capacity,
            marks,
            told,
        )
    };
    sinks.into_iter().zip(marks).enumerate().map(spawn).collect()
}

pub(super) fn told_of_checkpoints(
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
    marks: Vec<Arc<Marks>>,
    has_history: bool,
) -> checkpointer::Told {
    Box::new(move |written| match written {
        Ok(written) => {
            let oldest = marks
                .iter()
                .map(|marks| marks.oldest.load(Ordering::Acquire))
                .min();
            // Archived bindings still name them.
            if !has_history && let Err(error) = kept::collect(store.as_ref(), oldest.unwrap_or(0)) {
                tracing::warn!("kept messages are not deleted: {error}");
            }
            shared.metrics.state_bytes.store(written.bytes, Ordering::Relaxed);
            shared
                .metrics
                .state_bytes_written
                .store(written.bytes_written, Ordering::Relaxed);
            shared.pace.checkpoint_written();
            tracing::debug!(epoch = written.epoch, bytes = written.bytes, "checkpoint");
        }
        Err(error) => shared.fail(error.clone()),
    })
}

/// The ways from the workers to the committers, until a worker takes its own.
pub(super) struct Gates {
    shards: Mutex<Vec<Option<(Queue, Epoch)>>>,
    events: Mutex<Sender<Event>>,
}

impl Gates {
    pub(super) fn new(queues: Vec<Queue>, committed: &[Epoch], events: Sender<Event>) -> Self {
        let shards = queues
            .into_iter()
            .zip(committed.iter().copied())
            .map(Some)
            .collect();
        Gates {
            shards: Mutex::new(shards),
            events: Mutex::new(events),
        }
    }

    /// The gates of the shards that worker `index` owns, of the `threads` that own any.
    pub(super) fn take(&self, index: usize, threads: usize, shared: &Arc<Shared>) -> Vec<ShardGate> {
        let (Ok(mut shards), Ok(events)) = (self.shards.lock(), self.events.lock()) else {
            return Vec::new();
        };
        let mine = (0_u32..)
            .zip(shards.iter_mut())
            .filter(|(shard, _)| worker_of(*shard, threads) == index as u64);
        mine.filter_map(|(shard, gate)| {
            let (queue, committed) = gate.take()?;
            let events = (shard == 0).then(|| events.clone());
            let sealed = hand_over(queue, committed, events, Arc::clone(shared));
            Some(ShardGate {
                shard,
                committed,
                sealed,
            })
        })
        .collect()
    }
}

/// Hands sealed epochs of one shard to its committer; the first shard's bindings also go to the checkpointer,
/// before.
fn hand_over(
    queue: Queue,
    committed: Epoch,
    events: Option<Sender<Event>>,
    shared: Arc<Shared>,
) -> Box<dyn FnMut(SealedEpoch)> {
    Box::new(move |sealed: SealedEpoch| {
        if let Some(events) = &events {
            // A checkpointer that has ended has said why.
            let _ = events.send(Event::Bound(sealed.binding.without_messages()));
        }
        let metrics = &shared.metrics;
        if sealed.epoch <= committed {
            metrics.sealed.fetch_max(sealed.epoch, Ordering::Relaxed);
            shared.moved_on();
            return;
        }
        for rows in &sealed.rows {
            metrics.messages_out[usize::from(rows.output)]
                .fetch_add(rows.index.len() as u64, Ordering::Relaxed);
        }
        metrics.sealed(
            sealed.epoch,
            sealed.rows.iter().map(|rows| rows.bytes.len()).sum(),
            now(),
        );
        shared.moved_on();
        if let Err(error) = queue.seal(sealed) {
            shared.fail(error);
        }
    })
}

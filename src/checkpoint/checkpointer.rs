//! The checkpointer: a thread that writes a checkpoint once everything up to its epoch is committed.
//!
//! ```text
//!  workers: changed rows of the cut at C ─┐
//!  bindings, ascending ───────────────────┼─► all workers? bound and committed up to C? ─► Series::write
//!  committers: "an epoch was committed" ──┘                                                └─► Marks::oldest
//! ```
//!
//! It only ever follows: a cut that is not yet committed when the job ends is dropped. Assumes that every
//! binding up to C, C's own included even if it is empty, is sent before an output shard may commit C (replayed
//! ones too), and that a worker sends each cut once, with all of its rows. Cuts are written in the order of
//! their epochs.
//!
//! A failed write ends the thread with its error, which is told like success. Nothing is retried blindly.

use super::binding::{Binding, Positions};
use super::row::StateRow;
use super::series::Series;
use crate::error::{Error, Result};
use crate::time::Epoch;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// What the checkpointer hears.
#[derive(Clone, Debug)]
pub enum Event {
    /// An epoch was sealed, or is replayed.
    Bound(Binding),
    /// One worker's rows that changed since the cut before, as of `epoch`.
    Changed {
        /// The worker.
        worker: u32,
        /// The epoch of the cut.
        epoch: Epoch,
        /// Its rows; of rows with equal keys the later wins.
        rows: Vec<StateRow>,
    },
    /// An output shard has committed something: look again.
    Committed,
}

/// A checkpoint that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its epoch.
    pub epoch: Epoch,
    /// Bindings up to this epoch are needed no more.
    pub oldest: Epoch,
    /// Bytes of chunks written by this process so far.
    pub bytes_written: u64,
    /// Bytes a restore of it reads.
    pub bytes: u64,
}

/// What the committer of an output shard and the checkpointer tell each other. Neither ever waits for the
/// other.
#[derive(Debug, Default)]
pub struct Marks {
    /// The greatest committed epoch; raised by the committer.
    pub committed: AtomicU64,
    /// Bindings up to this epoch are needed no more; raised by the checkpointer.
    pub oldest: AtomicU64,
}

/// Told of every checkpoint, and of the error that ends the thread. Called on the checkpointer's thread.
pub type Told = Box<dyn FnMut(Result<Written, &Error>) + Send>;

/// The running thread.
pub struct Checkpointer {
    events: Sender<Event>,
    thread: JoinHandle<Result<()>>,
}

/// Starts the thread. `positions` is where the inputs stood at the restored checkpoint; `shards` are the
/// marks of the output shards, of which [`Event::Committed`] tells that one has risen.
pub fn spawn(
    series: Series,
    workers: usize,
    positions: Positions,
    shards: Vec<Arc<Marks>>,
    mut told: Told,
) -> Result<Checkpointer> {
    let (events, received) = channel();
    let mut pending = Pending::new(workers, positions, shards);
    let run = move || {
        let result = run(series, &mut pending, &received, &mut told);
        if let Err(error) = &result {
            told(Err(error));
        }
        result
    };
    let thread = std::thread::Builder::new()
        .name("checkpointer".to_owned())
        .spawn(run);
    let thread =
        thread.map_err(|error| Error::internal(format!("cannot start the checkpointer: {error}")))?;
    Ok(Checkpointer { events, thread })
}

impl Checkpointer {
    /// Where workers and committers send events. The queue has no bound: cut again only when the last was
    /// written.
    pub fn events(&self) -> Sender<Event> {
        self.events.clone()
    }

    /// Waits, once all other senders are gone, until every committed cut is written; gives the error that
    /// ended it.
    pub fn finish(self) -> Result<()> {
        drop(self.events);
        self.thread
            .join()
            .unwrap_or_else(|_| Err(Error::internal("the checkpointer panicked")))
    }
}

fn run(mut series: Series, pending: &mut Pending, events: &Receiver<Event>, told: &mut Told) -> Result<()> {
    while let Ok(event) = events.recv() {
        pending.take(event);
        while let Some((epoch, rows)) = pending.due() {
            series.write(epoch, pending.greatest, rows, pending.positions.clone())?;
            series.collect()?;
            for marks in &pending.shards {
                marks.oldest.fetch_max(series.oldest(), Ordering::AcqRel);
            }
            told(Ok(Written {
                epoch,
                oldest: series.oldest(),
                bytes_written: series.bytes_written(),
                bytes: series.newest().map_or(0, super::manifest::Manifest::bytes),
            }));
        }
    }
    Ok(())
}

/// What has been heard and not yet written.
struct Pending {
    workers: usize,
    /// Up to the last checkpoint.
    positions: Positions,
    /// Bindings above it, ascending.
    bindings: VecDeque<Binding>,
    /// Greatest epoch bound.
    greatest: Epoch,
    cuts: BTreeMap<Epoch, Cut>,
    shards: Vec<Arc<Marks>>,
}

/// A cut, as far as it has been reported.
#[derive(Default)]
struct Cut {
    workers: BTreeSet<u32>,
    rows: Vec<StateRow>,
}

impl Pending {
    fn new(workers: usize, positions: Positions, shards: Vec<Arc<Marks>>) -> Self {
        Pending {
            workers,
            positions,
            bindings: VecDeque::new(),
            greatest: 0,
            cuts: BTreeMap::new(),
            shards,
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Bound(binding) => {
                assert!(
                    binding.epoch > self.greatest,
                    "{} after {}",
                    binding.epoch,
                    self.greatest
                );
                self.greatest = binding.epoch;
                self.bindings.push_back(binding);
            }
            Event::Changed { worker, epoch, rows } => {
                let cut = self.cuts.entry(epoch).or_default();
                assert!(
                    cut.workers.insert(worker),
                    "worker {worker} reports the cut at {epoch} twice"
                );
                cut.rows.extend(rows);
            }
            Event::Committed => {}
        }
    }

    /// The next cut that may be written, with the positions folded up to it.
    fn due(&mut self) -> Option<(Epoch, Vec<StateRow>)> {
        let (epoch, cut) = self.cuts.first_key_value()?;
        let epoch = *epoch;
        let committed = self
            .shards
            .iter()
            .all(|marks| marks.committed.load(Ordering::Acquire) >= epoch);
        if cut.workers.len() < self.workers || self.greatest < epoch || !committed {
            return None;
        }
        while let Some(binding) = self.bindings.pop_front_if(|binding| binding.epoch <= epoch) {
            self.positions.apply(&binding);
        }
        self.cuts.remove(&epoch).map(|cut| (epoch, cut.rows))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::binding::PartitionBinding;
    use super::super::claim::Claim;
    use super::super::{manifest, store};
    use super::*;

    fn committed(epoch: Epoch) -> Arc<Marks> {
        Arc::new(Marks {
            committed: epoch.into(),
            ..Marks::default()
        })
    }

    fn bound(epoch: Epoch) -> Event {
        let partitions = vec![PartitionBinding {
            end: 10 * epoch,
            ..Default::default()
        }];
        Event::Bound(Binding {
            epoch,
            partitions,
            ..Binding::default()
        })
    }

    fn changed(worker: u32, epoch: Epoch) -> Event {
        let key: Box<[u8]> = worker.to_be_bytes().into();
        let row = StateRow {
            operator: 0,
            hash: worker.into(),
            key,
            value: Some(Box::new([epoch as u8])),
        };
        Event::Changed {
            worker,
            epoch,
            rows: vec![row],
        }
    }

    /// Nothing but all three conditions together makes a cut due, in whatever order they come.
    #[test]
    fn cut_is_due_when_all_have_reported_and_committed() {
        let shards = [committed(0), committed(0)];
        let mut pending = Pending::new(2, Positions::new([0]), shards.to_vec());
        for event in [bound(3), bound(5), changed(0, 5)] {
            pending.take(event);
        }
        shards[0].committed.store(7, Ordering::Release);
        shards[1].committed.store(5, Ordering::Release);
        assert!(pending.due().is_none(), "one worker is missing");
        pending.take(changed(1, 5));
        shards[1].committed.store(4, Ordering::Release);
        assert!(pending.due().is_none(), "one output shard is missing");
        shards[1].committed.store(5, Ordering::Release);
        pending.take(bound(8));
        let (epoch, rows) = pending.due().unwrap();
        assert_eq!((epoch, rows.len()), (5, 2));
        assert_eq!(
            pending.positions.partitions[0][&0].offset, 50,
            "positions are those of the cut, not of epoch 8"
        );
        assert!(pending.due().is_none());
    }

    #[test]
    fn thread_writes_what_is_committed_and_drops_the_rest() {
        let store = store::open("memory:///").unwrap();
        let series = Series::new(
            store.clone(),
            &Claim::new(1, 5, vec![]),
            vec!["w".into()],
            vec![],
            1,
            None,
        )
        .unwrap();
        let (told, heard) = channel();
        let checkpointer = spawn(
            series,
            1,
            Positions::new([0]),
            vec![committed(4)],
            Box::new(move |written| told.send(written.map_err(Clone::clone)).unwrap()),
        )
        .unwrap();
        let events = checkpointer.events();
        for event in [bound(4), bound(6), changed(0, 4), changed(0, 6)] {
            events.send(event).unwrap();
        }
        let first = heard.recv().unwrap().unwrap();
        assert_eq!((first.epoch, first.oldest), (4, 0));
        assert_eq!(first.bytes, first.bytes_written);
        drop(events);
        checkpointer.finish().unwrap();
        let manifests = manifest::all(store.as_ref()).unwrap();
        let epochs: Vec<_> = manifests
            .iter()
            .map(|(_, manifest)| manifest.as_ref().unwrap().epoch)
            .collect();
        assert_eq!(epochs, [4], "epoch 6 was never committed");
    }

    #[test]
    fn lost_number_ends_the_thread_with_its_error() {
        let store = store::open("memory:///").unwrap();
        store.put_new(&manifest::name(1), b"somebody else's").unwrap();
        let series = Series::new(store, &Claim::new(1, 5, vec![]), vec![], vec![], 1, None).unwrap();
        let (told, heard) = channel();
        let told: Told = Box::new(move |written| told.send(written.map_err(Clone::clone)).unwrap());
        let checkpointer = spawn(series, 1, Positions::new([0]), vec![committed(9)], told).unwrap();
        let events = checkpointer.events();
        events.send(bound(9)).unwrap();
        events.send(changed(0, 9)).unwrap();
        let error = heard.recv().unwrap().unwrap_err();
        assert_eq!(error.kind, crate::error::Kind::AnotherInstance);
        drop(events);
        assert_eq!(checkpointer.finish().unwrap_err().kind, error.kind);
    }
}

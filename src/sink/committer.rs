//! The committer: a thread that owns one sink and commits what workers have sealed.
//!
//! ```text
//!  seal(e) ─► bounded queue ─► take one, then all that waits ─► rows, or 1 s, or the end? ─► Sink::commit
//!                                                                                            └─► told
//! ```
//!
//! Group commit adjusts itself: while a transaction is written, epochs queue up and become the next one.
//! Epochs without a row are folded into the next transaction, or written after [`EMPTY_COMMIT`], or at the
//! end.
//!
//! Only sealed epochs get here, so the end of the queue may be committed whatever ended it. An error ends the
//! thread, stays in [`Queue::failure`], and is told like success; nothing is committed after it.

use super::{SealedEpoch, Sink};
use crate::checkpoint::checkpointer::Marks;
use crate::error::{Error, Result};
use crate::limits::{EMPTY_COMMIT, GROUP_EPOCHS};
use crate::time::Epoch;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A commit that was made.
#[derive(Clone, Copy, Debug)]
pub struct Made<'a> {
    /// Its epochs, ascending.
    pub epochs: &'a [Epoch],
    /// When the sink began with it.
    pub begun: Instant,
}

/// Told of every commit, and of the error that ends the thread. Called on the committer's thread.
pub type Told = Box<dyn FnMut(Result<Made<'_>, &Error>) + Send>;

/// The running thread. Clones of its [`Queue`] feed it; it ends when all of them are gone.
pub struct Committer {
    queue: Queue,
    thread: JoinHandle<()>,
}

/// The way to the thread.
#[derive(Clone)]
pub struct Queue {
    epochs: SyncSender<SealedEpoch>,
    marks: Arc<Marks>,
    failure: Arc<OnceLock<Error>>,
}

/// Starts the thread. At most `capacity` epochs wait; more block whoever sends them, so workers bound the
/// epochs in flight below it. `oldest` is raised by the checkpointer: bindings up to it are needed no more.
pub fn spawn(
    name: &str,
    sink: Box<dyn Sink>,
    capacity: usize,
    marks: Arc<Marks>,
    told: Told,
) -> Result<Committer> {
    spawn_with(name, sink, capacity, marks, EMPTY_COMMIT, told)
}

fn spawn_with(
    name: &str,
    sink: Box<dyn Sink>,
    capacity: usize,
    marks: Arc<Marks>,
    empty: Duration,
    mut told: Told,
) -> Result<Committer> {
    let (epochs, received) = sync_channel(capacity);
    marks.committed.store(sink.committed(), Ordering::Release);
    let queue = Queue {
        epochs,
        marks: Arc::clone(&marks),
        failure: Arc::default(),
    };
    let failure = Arc::clone(&queue.failure);
    let run = move || {
        if let Err(error) = run(sink, &received, &marks, empty, &mut told) {
            // The slot is filled before the queue closes, so that whoever finds it closed finds the reason.
            let error = failure.get_or_init(|| error);
            told(Err(error));
        }
    };
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    let thread = thread.map_err(|error| Error::internal(format!("cannot start {name}: {error}")))?;
    Ok(Committer { queue, thread })
}

impl Queue {
    /// Hands over an epoch; epochs ascend. The error is the one that ended the thread.
    pub fn seal(&self, epoch: SealedEpoch) -> Result<()> {
        let ended = || {
            self.failure()
                .cloned()
                .unwrap_or_else(|| Error::internal("the committer panicked"))
        };
        self.epochs.send(epoch).map_err(|_| ended())
    }

    /// The greatest committed epoch.
    pub fn committed(&self) -> Epoch {
        self.marks.committed.load(Ordering::Acquire)
    }

    /// The error that ended the thread.
    pub fn failure(&self) -> Option<&Error> {
        self.failure.get()
    }
}

impl Committer {
    /// The way to the thread.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Waits, once all other queues are dropped, until everything is committed; gives the greatest committed
    /// epoch.
    pub fn finish(self) -> Result<Epoch> {
        let Queue {
            epochs,
            marks,
            failure,
        } = self.queue;
        drop(epochs);
        let joined = self.thread.join();
        match (failure.get(), joined) {
            (Some(error), _) => Err(error.clone()),
            (None, Err(_)) => Err(Error::internal("the committer panicked")),
            (None, Ok(())) => Ok(marks.committed.load(Ordering::Acquire)),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "epochs without a row wait by the clock; what they contain does not"
)]
fn run(
    mut sink: Box<dyn Sink>,
    received: &Receiver<SealedEpoch>,
    marks: &Marks,
    empty: Duration,
    told: &mut Told,
) -> Result<()> {
    let mut waiting: Vec<SealedEpoch> = Vec::new();
    let mut since = Instant::now(); // when the first of `waiting` came
    loop {
        let next = match waiting.is_empty() {
            true => received.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => received.recv_timeout(empty.saturating_sub(since.elapsed())),
        };
        if waiting.is_empty() {
            since = Instant::now();
        }
        let ended = matches!(next, Err(RecvTimeoutError::Disconnected));
        waiting.extend(next.into_iter().chain(received.try_iter()));
        let full = waiting.len() >= GROUP_EPOCHS;
        let due = ended || full || since.elapsed() >= empty || waiting.iter().any(SealedEpoch::has_rows);
        if due && !waiting.is_empty() {
            let epochs: Vec<Epoch> = waiting.iter().map(|sealed| sealed.epoch).collect();
            let begun = Instant::now();
            sink.commit(std::mem::take(&mut waiting))?;
            marks.committed.store(sink.committed(), Ordering::Release);
            told(Ok(Made {
                epochs: &epochs,
                begun,
            }));
            sink.forget(marks.oldest.load(Ordering::Acquire))?;
        }
        if ended {
            return Ok(());
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::Rows;
    use super::super::captured::Captured;
    use super::*;
    use crate::checkpoint::binding::Binding;
    use crate::error::Kind;
    use crate::record::Rank;
    use std::sync::mpsc::channel;

    const NEVER: Duration = Duration::from_secs(1 << 30);

    fn sealed(epoch: Epoch, message: Option<&str>) -> SealedEpoch {
        let mut rows = Rows::new(0);
        if let Some(message) = message {
            rows.push(Rank::default(), |bytes| {
                bytes.extend_from_slice(message.as_bytes());
                Ok::<(), ()>(())
            })
            .unwrap();
        }
        SealedEpoch {
            epoch,
            rows: vec![rows],
            binding: Binding {
                epoch,
                partitions: vec![],
                ..Binding::default()
            },
        }
    }

    fn untold() -> Told {
        Box::new(|_| {})
    }

    /// A sink that is held up in its first commit until the test lets it go on, and fails from some epoch on.
    struct Held {
        captured: Captured,
        go_on: Receiver<()>,
        fails_from: Epoch,
    }

    impl Sink for Held {
        fn committed(&self) -> Epoch {
            self.captured.committed()
        }

        fn commit(&mut self, epochs: Vec<SealedEpoch>) -> Result<()> {
            let _ = self.go_on.recv();
            if epochs.iter().any(|sealed| sealed.epoch >= self.fails_from) {
                return Err(Error::new(Kind::WriteFailed, "disk full"));
            }
            self.captured.commit(epochs)
        }

        fn forget(&mut self, oldest: Epoch) -> Result<()> {
            self.captured.forget(oldest)
        }
    }

    /// What queues up behind a transaction becomes one.
    #[test]
    fn waiting_epochs_become_one_transaction() {
        let (go_on, held) = channel();
        let captured = Captured::default();
        let sink = Held {
            captured: captured.clone(),
            go_on: held,
            fails_from: Epoch::MAX,
        };
        let (told, heard) = channel();
        let told: Told = Box::new(move |made| told.send(made.unwrap().epochs.to_vec()).unwrap());
        let committer = spawn_with("committer", Box::new(sink), 100, Arc::default(), NEVER, told).unwrap();
        committer.queue().seal(sealed(1, Some("a"))).unwrap();
        for epoch in 2..50 {
            committer.queue().seal(sealed(epoch, Some("b"))).unwrap();
        }
        drop(go_on);
        assert_eq!(committer.finish().unwrap(), 49);
        let told: Vec<Epoch> = heard.into_iter().flatten().collect();
        assert_eq!(told, (1..50).collect::<Vec<_>>());
        assert_eq!(captured.commits().messages.len(), 49);
        assert!(captured.commits().transactions < 49, "group commit");
    }

    #[test]
    fn empty_epochs_wait_for_the_next_row_or_the_end() {
        let captured = Captured::default();
        let (told, heard) = channel();
        let told: Told = Box::new(move |made| told.send(made.unwrap().epochs.to_vec()).unwrap());
        let committer = spawn_with(
            "committer",
            Box::new(captured.clone()),
            100,
            Arc::default(),
            NEVER,
            told,
        )
        .unwrap();
        for (epoch, message) in [(1, None), (2, None), (3, Some("x"))] {
            committer.queue().seal(sealed(epoch, message)).unwrap();
        }
        assert_eq!(heard.recv().unwrap(), [1, 2, 3]);
        assert_eq!(committer.queue().committed(), 3);
        committer.queue().seal(sealed(4, None)).unwrap();
        assert_eq!(committer.finish().unwrap(), 4, "the end writes what waits");
        assert_eq!(captured.commits().transactions, 2);
    }

    #[test]
    fn empty_epochs_are_written_after_a_while() {
        let (told, heard) = channel();
        let told: Told = Box::new(move |made| told.send(made.unwrap().epochs.to_vec()).unwrap());
        let committer = spawn_with(
            "committer",
            Box::new(Captured::default()),
            9,
            Arc::default(),
            Duration::from_millis(1),
            told,
        )
        .unwrap();
        committer.queue().seal(sealed(1, None)).unwrap();
        assert_eq!(heard.recv().unwrap(), [1], "without any further epoch");
        committer.finish().unwrap();
    }

    #[test]
    fn error_ends_the_thread_and_is_never_ok() {
        let (go_on, held) = channel();
        go_on.send(()).unwrap();
        let captured = Captured::default();
        let sink = Held {
            captured: captured.clone(),
            go_on: held,
            fails_from: 2,
        };
        let (told, heard) = channel();
        let told: Told = Box::new(move |made| {
            let made = made.map(|made| made.epochs.to_vec()).map_err(Clone::clone);
            told.send(made).unwrap();
        });
        let committer = spawn_with("committer", Box::new(sink), 1, Arc::default(), NEVER, told).unwrap();
        committer.queue().seal(sealed(1, Some("a"))).unwrap();
        assert_eq!(heard.recv().unwrap().unwrap(), [1]);
        drop(go_on);
        committer.queue().seal(sealed(2, Some("b"))).unwrap();
        assert_eq!(heard.recv().unwrap().unwrap_err().kind, Kind::WriteFailed);
        assert_eq!(committer.queue().failure().unwrap().message, "disk full");
        // The queue closes; whoever seals on learns why.
        let refused = (3..)
            .find_map(|epoch| committer.queue().seal(sealed(epoch, None)).err())
            .unwrap();
        assert_eq!(refused.kind, Kind::WriteFailed);
        assert_eq!(committer.finish().unwrap_err().kind, Kind::WriteFailed);
        assert_eq!(captured.commits().output(0), b"a");
    }

    #[test]
    fn committed_epochs_are_passed_over() {
        let captured = Captured::default();
        let marks = Arc::new(Marks {
            oldest: 5.into(),
            ..Marks::default()
        });
        captured.clone().commit(vec![sealed(5, Some("a"))]).unwrap();
        let committer = spawn("committer", Box::new(captured.clone()), 10, marks, untold()).unwrap();
        for epoch in 4..7 {
            committer.queue().seal(sealed(epoch, Some("b"))).unwrap();
        }
        committer.finish().unwrap();
        assert_eq!(captured.commits().output(0), b"ab");
        let bound: Vec<_> = captured
            .commits()
            .bindings
            .iter()
            .map(|binding| binding.epoch)
            .collect();
        assert_eq!(bound, [6], "those up to epoch 5 are needed no more");
    }
}

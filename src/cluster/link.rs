//! A control connection: messages in both directions, and on both sides the knowledge that the other lives.
//!
//! ```text
//!  send, post ─► Outbox ─► thread link-send-I ─► socket ─► thread link-receive-J ─► received
//!                 (frames, and a heartbeat when      (liveness; an end or a loss is
//!                  there is nothing else to say)      noted in the Outbox, and told)
//! ```
//!
//! [`Outbox::send`] waits while much is queued, [`Outbox::post`] never does: for workers, which must not
//! block. Messages of one thread arrive in the order in which they were sent. What has arrived waits in
//! memory until it is taken: how much that is, is up to those who talk.
//!
//! A peer ends in one of three ways. It says goodbye, and nothing of it is lost. It says that it has failed,
//! and why. Or its connection breaks or falls silent. The last two are a loss, which is told once, whatever
//! becomes of the other connections afterwards; not if this process said first that it has failed.

use super::Lost;
use super::frame::{self, Arrival, Reader};
use super::heartbeat::Liveness;
use super::sockets::Connection;
use crate::error::{Error, Kind, Result};
use crate::limits;
use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Messages to one peer and from it.
pub struct Link {
    /// To it.
    pub outbox: Outbox,
    /// From it, whole and in order. Ends when the peer does, for whatever reason.
    pub received: Receiver<Vec<u8>>,
}

/// The way to one peer. Clones are the same way.
#[derive(Clone)]
pub struct Outbox {
    shared: Arc<Shared>,
}

/// What a connection's threads and its users share.
struct Shared {
    /// `process 1 (host:port)`.
    name: String,
    state: Mutex<State>,
    /// The state has changed.
    changed: Condvar,
    /// Held while the parts of a long message are queued.
    long: Mutex<()>,
    /// What is done about the first loss; the links of a cluster share it.
    loss: Arc<Loss>,
}

struct State {
    /// Frames that are not handed to the socket yet.
    queue: Vec<u8>,
    /// Nothing more is queued: goodbye, or the failure, is.
    is_ended: bool,
    /// What was queued before the end, and the end, are handed to the socket; or never will be.
    is_sent: bool,
    peer: Peer,
}

enum Peer {
    Present,
    SaidGoodbye,
    Lost(Error),
}

/// Tells the first loss of a cluster, unless this process is the one that fails.
pub(super) struct Loss {
    told: AtomicBool,
    lost: Lost,
}

impl Loss {
    pub(super) fn new(lost: Lost) -> Arc<Loss> {
        let told = AtomicBool::new(false);
        Arc::new(Loss { told, lost })
    }

    fn tell(&self, error: &Error) {
        if !self.told.swap(true, Ordering::AcqRel) {
            (self.lost)(error.clone());
        }
    }
}

impl Link {
    /// Starts the threads of a control connection to process `peer`.
    pub(super) fn start(
        connection: Connection,
        peer: usize,
        address: &str,
        silence: Duration,
        loss: Arc<Loss>,
    ) -> Result<Link> {
        let failed = |error| Error::internal(format!("a link to process {peer} cannot be started: {error}"));
        let shared = Arc::new(Shared {
            name: format!("process {peer} ({address})"),
            state: Mutex::new(State {
                queue: Vec::new(),
                is_ended: false,
                is_sent: false,
                peer: Peer::Present,
            }),
            changed: Condvar::new(),
            long: Mutex::new(()),
            loss,
        });
        let writing = connection.try_clone().map_err(failed)?;
        let (deliver, received) = channel();
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let thread = thread::Builder::new().name(format!("{name}-{peer}")).spawn(run);
            thread.map(drop).map_err(failed)
        };
        let (sender, receiver) = (Arc::clone(&shared), Arc::clone(&shared));
        spawn("link-send", Box::new(move || sender.write(writing, silence)))?;
        let liveness = Liveness::new(silence, now());
        spawn(
            "link-receive",
            Box::new(move || receiver.read(connection, liveness, &deliver)),
        )?;
        Ok(Link {
            outbox: Outbox { shared },
            received,
        })
    }
}

impl Outbox {
    /// Sends a message of at most [`MESSAGE_BYTES`](limits::MESSAGE_BYTES); waits while more than
    /// [`LINK_BYTES`](limits::LINK_BYTES) are queued. An error: the peer has ended, or this process has said
    /// that it will.
    pub fn send(&self, message: &[u8]) -> Result<()> {
        let shared = &self.shared;
        if message.len() > limits::MESSAGE_BYTES {
            return Err(Error::internal(format!(
                "a message of {} bytes to {}: the limit is {}",
                message.len(),
                shared.name,
                limits::MESSAGE_BYTES
            )));
        }
        if let Some(frame) = frame::whole(message) {
            return shared.queue(&frame, true);
        }
        let _long = shared.long.lock().unwrap_or_else(PoisonError::into_inner);
        frame::parts(message).try_for_each(|frame| shared.queue(&frame, true))
    }

    /// Sends a short message, of at most [`FRAME_BYTES`](limits::FRAME_BYTES), and never waits. It may arrive
    /// before a message that another thread is still sending.
    pub fn post(&self, message: &[u8]) -> Result<()> {
        let shared = &self.shared;
        let Some(frame) = frame::whole(message) else {
            let length = message.len();
            return Err(Error::internal(format!(
                "{length} bytes posted to {}",
                shared.name
            )));
        };
        shared.queue(&frame, false)
    }

    /// Queues the clean end.
    pub(super) fn say_goodbye(&self) {
        self.shared.end(&frame::goodbye());
    }

    /// Waits until everything is sent and the peer has said goodbye too.
    pub(super) fn wait_for_goodbye(&self) -> Result<()> {
        let mut state = self.shared.state();
        loop {
            match &state.peer {
                Peer::Lost(error) => return Err(error.clone()),
                Peer::SaidGoodbye if state.is_sent => return Ok(()),
                Peer::Present | Peer::SaidGoodbye => {
                    let changed = self.shared.changed.wait(state);
                    state = changed.unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Queues the reason why this process ends. From here on a loss is a consequence, and told to nobody.
    pub(super) fn fail(&self, error: &Error) {
        self.shared.loss.told.store(true, Ordering::Release);
        self.shared.end(&frame::failed(&error.message));
    }

    /// Waits a little until the reason is sent.
    pub(super) fn last_words_are_sent(&self) {
        let waiting = |state: &mut State| !state.is_sent;
        let state = self.shared.state();
        // Sent or not: the process ends.
        let _ = self
            .shared
            .changed
            .wait_timeout_while(state, limits::LAST_WORDS, waiting);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self, frame: &[u8], waits: bool) -> Result<()> {
        let mut state = self.state();
        while waits && state.queue.len() > limits::LINK_BYTES && !state.is_sent {
            let changed = self.changed.wait(state);
            state = changed.unwrap_or_else(PoisonError::into_inner);
        }
        match &state.peer {
            Peer::Lost(error) => Err(error.clone()),
            _ if state.is_ended || state.is_sent => {
                let message = format!("{} is no longer reached", self.name);
                Err(Error::new(Kind::PeerLost, message))
            }
            Peer::Present | Peer::SaidGoodbye => {
                state.queue.extend_from_slice(frame);
                self.changed.notify_all();
                Ok(())
            }
        }
    }

    fn end(&self, frame: &[u8]) {
        let mut state = self.state();
        if !state.is_ended {
            state.is_ended = true;
            state.queue.extend_from_slice(frame);
            self.changed.notify_all();
        }
    }

    /// The sending thread: to the end, or to the first write that fails; why it does the other thread learns.
    fn write(&self, mut connection: Connection, silence: Duration) {
        let heartbeat = limits::HEARTBEAT.min(silence / 8);
        let beat = frame::beat();
        loop {
            let idle = |state: &mut State| state.queue.is_empty() && !state.is_sent;
            let waited = self.changed.wait_timeout_while(self.state(), heartbeat, idle);
            let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if state.is_sent {
                return;
            }
            let (queue, is_ended) = (std::mem::take(&mut state.queue), state.is_ended);
            drop(state);
            // Whoever waits for room has it now.
            self.changed.notify_all();
            let bytes = if queue.is_empty() { &beat } else { &queue };
            if connection.write_all(bytes).is_err() || (is_ended && self.state().queue.is_empty()) {
                self.state().is_sent = true;
                self.changed.notify_all();
                return;
            }
        }
    }

    /// The receiving thread: to the peer's end, whichever it is.
    fn read(&self, mut connection: Connection, mut liveness: Liveness, deliver: &Sender<Vec<u8>>) {
        let lost = match connection.set_read_timeout(Some(liveness.interval())) {
            Ok(()) => self.receive(&mut connection, &mut liveness, deliver),
            Err(error) => Some(format!("is lost: {error}")),
        };
        let error = lost.map(|how| Error::new(Kind::PeerLost, format!("{} {how}", self.name)));
        let mut state = self.state();
        // Who says goodbye is waiting for the peer's, and is told of its loss that way.
        let is_told = !state.is_ended;
        state.peer = match &error {
            Some(error) => {
                state.is_sent = true;
                Peer::Lost(error.clone())
            }
            None => Peer::SaidGoodbye,
        };
        drop(state);
        self.changed.notify_all();
        if let Some(error) = error.filter(|_| is_told) {
            self.loss.tell(&error);
        }
    }

    /// Receives to the end; how the peer was lost, or none where it said goodbye.
    fn receive(
        &self,
        connection: &mut Connection,
        liveness: &mut Liveness,
        deliver: &Sender<Vec<u8>>,
    ) -> Option<String> {
        let mut reader = Reader::default();
        let mut buffer = vec![0; limits::FRAME_BYTES];
        loop {
            let length = match connection.read(&mut buffer) {
                Ok(0) => return Some("is lost: its connection was closed without a word".to_owned()),
                Ok(length) => length,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut if liveness.is_lost(now()) => {
                        let silence = liveness.silence().as_millis();
                        return Some(format!(
                            "is lost: nothing was heard of it for {silence} ms (frozen, or cut off)"
                        ));
                    }
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => continue,
                    _ => return Some(format!("is lost: {error}")),
                },
            };
            liveness.heard(now());
            let arrivals = match reader.read(&buffer[..length]) {
                Ok(arrivals) => arrivals,
                Err(error) => return Some(format!("is lost: {error}")),
            };
            for arrival in arrivals {
                match arrival {
                    Arrival::Message(message) => {
                        // Nobody listens: a member does not to another member.
                        let _ = deliver.send(message);
                    }
                    Arrival::Goodbye => return None,
                    Arrival::Failed(line) => return Some(format!("ended: {line}")),
                }
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a silent peer is noticed by the clock; results never depend on it"
)]
pub(super) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;

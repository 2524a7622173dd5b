//! Putting a cluster together: who is expected connects and is let in, everybody else is turned away.
//!
//! ```text
//!  thread cluster-accept ─► a thread per connection ─┐
//!                                                    ├─► Seats ─► complete? ─► "ready" to all, from all ─► links
//!  thread connect-I-DATA, connect-I-CONTROL per I ───┘
//! ```
//!
//! A process that has all its connections says so on each, and begins when everybody has: before that nobody
//! sends heartbeats, and nobody expects any. The listening thread stays as long as the process, so that who
//! comes later is told why there is no place for them, rather than left to guess.

use super::handshake::{self, Hello, Incarnation, Purpose, Refusal};
use super::link::{Link, Loss, now};
use super::seats::Seats;
use super::secure::Encryption;
use super::sockets::{self, Connection};
use super::{Cluster, Membership, Parting, Settings};
use crate::error::{Error, Kind, Result};
use crate::limits;
use crate::secret::Secret;
use std::collections::{BTreeSet, VecDeque};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// "I have all my connections."
const READY: u8 = b'R';

/// Lines about strangers that are remembered, so that each is logged once.
const REMEMBERED: usize = 1_000;

/// What the threads of a start share.
struct Door {
    membership: Membership,
    incarnation: Incarnation,
    secret: Secret,
    encryption: Option<Encryption>,
    silence: Duration,
    seats: Seats,
    /// The start has failed.
    is_closed: AtomicBool,
    /// Lines that were logged about those turned away.
    logged: Mutex<BTreeSet<String>>,
    /// Connections whose handshake is under way, the oldest first.
    knocking: Mutex<VecDeque<(u64, TcpStream)>>,
}

/// Joins the cluster.
pub(super) fn assemble(settings: Settings) -> Result<Cluster> {
    let deadline = now() + settings.start_timeout;
    let membership = &settings.membership;
    check(&settings)?;
    let connections = match membership.processes {
        1 => vec![None],
        _ => connect_all(&settings, deadline)?,
    };
    let loss = Loss::new(Arc::clone(&settings.lost));
    let (mut data, mut links, mut outboxes) = (Vec::new(), Vec::new(), Vec::new());
    for (peer, pair) in connections.into_iter().enumerate() {
        let (mut socket, mut link) = (None, None);
        if let Some([to_timely, control]) = pair {
            let address = &settings.addresses[peer];
            let started = Link::start(control, peer, address, settings.silence, Arc::clone(&loss))?;
            outboxes.push(started.outbox.clone());
            (socket, link) = (Some(to_timely), Some(started));
        }
        data.push(socket);
        links.push(link);
    }
    Ok(Cluster {
        membership: settings.membership,
        data,
        links,
        parting: Parting {
            outboxes: Arc::new(outboxes),
        },
    })
}

/// What whoever starts a process can have got wrong.
fn check(settings: &Settings) -> Result<()> {
    let refused = |message: String| Err(Error::new(Kind::Configuration, message));
    let Membership {
        process, processes, ..
    } = settings.membership;
    if process >= processes {
        return refused(format!("process {process} of {processes}: they count from 0"));
    }
    if settings.addresses.len() != processes {
        let count = settings.addresses.len();
        return refused(format!(
            "{count} addresses for {processes} processes: give one host:port for each"
        ));
    }
    let length = settings.secret.reveal().len();
    if processes > 1 && length < limits::SECRET_BYTES_MIN {
        let least = limits::SECRET_BYTES_MIN;
        return refused(format!(
            "the cluster's secret has {length} bytes: give it at least {least}, such as from `openssl rand -hex 32`"
        ));
    }
    Ok(())
}

/// Connects with every other process: by process, the data and the control connection.
fn connect_all(settings: &Settings, deadline: Instant) -> Result<Vec<Option<[Connection; 2]>>> {
    let membership = settings.membership.clone();
    let own = membership.process;
    let encryption = settings.certificates.as_ref().map(Encryption::load).transpose()?;
    let listener = match &settings.listener {
        Some(listener) => Arc::clone(listener),
        None => Arc::new(sockets::open(&settings.addresses[own], deadline)?),
    };
    let door = Arc::new(Door {
        incarnation: handshake::random()?,
        secret: settings.secret.clone(),
        encryption,
        silence: settings.silence,
        seats: Seats::new(membership.processes),
        is_closed: AtomicBool::new(false),
        logged: Mutex::default(),
        knocking: Mutex::default(),
        membership,
    });
    let (accepting, ours) = (Arc::clone(&door), Arc::clone(&listener));
    spawn("cluster-accept".to_owned(), move || accepting.accept(&ours))?;
    let connected = connect_to_all(&door, settings, deadline);
    if connected.is_err() {
        door.stop(&listener);
    }
    connected
}

/// The connecting half, and the wait for the others.
fn connect_to_all(
    door: &Arc<Door>,
    settings: &Settings,
    deadline: Instant,
) -> Result<Vec<Option<[Connection; 2]>>> {
    let own = door.membership.process;
    for peer in 0..own {
        for purpose in [Purpose::Data, Purpose::Control] {
            let (door, address) = (Arc::clone(door), settings.addresses[peer].clone());
            let name = format!("connect-{peer}-{purpose:?}").to_lowercase();
            spawn(name, move || {
                door.keep_connected(peer, purpose, &address, deadline)
            })?;
        }
    }
    let name = |process: usize| format!("process {process} ({})", settings.addresses[process]);
    let connections = door.seats.complete(own, deadline, now, limits::RECONNECT);
    door.seats.end();
    match connections? {
        Ok(connections) => ready(connections, deadline, name),
        Err(missing) => {
            let missing = missing.into_iter().map(|(process, reason)| {
                let reason = reason.unwrap_or_else(|| "it did not connect".to_owned());
                format!("{}: {reason}", name(process))
            });
            let (timeout, missing) = (settings.start_timeout, missing.collect::<Vec<_>>().join("; "));
            Err(incomplete(timeout, &missing))
        }
    }
}

fn incomplete(timeout: Duration, missing: &str) -> Error {
    let message = format!(
        "the cluster is incomplete after {} ms; missing: {missing}",
        timeout.as_millis()
    );
    Error::new(Kind::Unreachable, message)
}

/// Tells every peer that we are ready and waits until all are.
fn ready(
    mut connections: Vec<Option<[Connection; 2]>>,
    deadline: Instant,
    name: impl Fn(usize) -> String,
) -> Result<Vec<Option<[Connection; 2]>>> {
    let lost = |process: usize, error: &dyn std::fmt::Display| {
        let message = format!("{} was there and is gone: {error}", name(process));
        Error::new(Kind::PeerLost, message)
    };
    let peers = connections.iter_mut().enumerate();
    let controls = peers.filter_map(|(process, pair)| Some((process, &mut pair.as_mut()?[1])));
    let mut controls: Vec<(usize, &mut Connection)> = controls.collect();
    for (process, control) in &mut controls {
        let said = control
            .set_write_timeout(None)
            .and_then(|()| control.write_all(&[READY]));
        said.map_err(|error| lost(*process, &error))?;
    }
    for (process, control) in &mut controls {
        let left = deadline.saturating_duration_since(now()).max(limits::RECONNECT);
        let mut heard = [0];
        let read = control
            .set_read_timeout(Some(left))
            .and_then(|()| control.read_exact(&mut heard));
        match read {
            Ok(()) if heard == [READY] => {}
            Ok(()) => return Err(lost(*process, &"it spoke out of turn")),
            Err(error) if is_timeout(&error) => {
                let message = format!("{} is there, and others are missing to it", name(*process));
                return Err(Error::new(Kind::Unreachable, message));
            }
            Err(error) => return Err(lost(*process, &error)),
        }
    }
    drop(controls);
    for connection in connections.iter().flatten().flatten() {
        let blocking = connection
            .set_read_timeout(None)
            .and_then(|()| connection.set_write_timeout(None));
        blocking.map_err(|error| Error::internal(format!("a socket cannot be set up: {error}")))?;
    }
    Ok(connections)
}

fn is_timeout(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut)
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = thread::Builder::new().name(name).spawn(run);
    thread
        .map(drop)
        .map_err(|error| Error::internal(format!("a thread cannot be started: {error}")))
}

impl Door {
    /// Lets everybody knock, for as long as the process lives, or until the start has failed.
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for number in 0.. {
            let (stream, address) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Most often: too many open files. Whoever knocks waits meanwhile.
                    tracing::warn!("a connection cannot be accepted: {error}");
                    thread::park_timeout(limits::RECONNECT);
                    continue;
                }
            };
            if let Ok(knocking) = stream.try_clone() {
                let mut queue = self.knocking.lock().unwrap_or_else(PoisonError::into_inner);
                queue.push_back((number, knocking));
                if queue.len() > limits::HANDSHAKES {
                    // Whoever belongs here is done long before.
                    let oldest = queue.pop_front();
                    let _ = oldest.map(|(_, stream)| stream.shutdown(Shutdown::Both));
                }
            }
            if self.is_closed.load(Ordering::Acquire) {
                return;
            }
            let door = Arc::clone(self);
            let handle = move || {
                door.hear(stream, address);
                let mut queue = door.knocking.lock().unwrap_or_else(PoisonError::into_inner);
                queue.retain(|(other, _)| *other != number);
            };
            if let Err(error) = spawn("handshake".to_owned(), handle) {
                tracing::warn!("{error}");
            }
        }
    }

    /// Listens no longer: a start that has failed must not turn away who comes for the next one.
    fn stop(&self, listener: &TcpListener) {
        self.is_closed.store(true, Ordering::Release);
        if let Ok(own) = listener.local_addr() {
            // A connection of our own wakes the thread; without one it ends with the process.
            let _ = TcpStream::connect_timeout(&own, limits::HANDSHAKE);
        }
    }

    /// The handshake with who has connected.
    fn hear(&self, stream: TcpStream, address: SocketAddr) {
        let deadline = now() + limits::HANDSHAKE;
        let (process, refusal) = match self.listen(stream, deadline) {
            Ok(()) => return,
            Err(turned_away) => turned_away,
        };
        let line = match process {
            Some(process) => format!("turned away {} (process {process}): {refusal}", address.ip()),
            None => format!("turned away {}: {refusal}", address.ip()),
        };
        if let Some(process) = process.filter(|process| *process > self.membership.process) {
            self.seats.note(process, format!("turned away: {refusal}"));
        }
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        // Who tries again and again is logged once, who scans from everywhere not for ever.
        if logged.len() < REMEMBERED && logged.insert(line.clone()) {
            tracing::warn!("{line}");
        }
    }

    fn listen(
        &self,
        stream: TcpStream,
        deadline: Instant,
    ) -> std::result::Result<(), (Option<usize>, Refusal)> {
        let failed = |error: &dyn std::fmt::Display| (None, Refusal::Stranger(error.to_string()));
        sockets::set_up(&stream, self.silence).map_err(|error| failed(&error))?;
        let mut connection = match &self.encryption {
            Some(encryption) => encryption.listen(stream, deadline),
            None => Ok(Connection::Plain(stream)),
        }
        .map_err(|error| (None, error))?;
        let kept = connection.try_clone().map_err(|error| failed(&error))?;
        // Answered with the purpose of who asks.
        let ours = Hello::new(&self.membership, self.incarnation, Purpose::Control);
        let ours = ours.map_err(|error| failed(&error))?;
        let seat = |theirs: &Hello| self.seats.reserve(theirs, kept);
        let (theirs, judged) = handshake::listen(&mut connection, ours, &self.secret, deadline, seat);
        match (theirs, judged) {
            (Some(theirs), Ok(())) => {
                self.seats.settle(&theirs, true);
                Ok(())
            }
            (Some(theirs), Err(refusal)) => {
                let process = theirs.membership.process;
                if process < self.membership.processes {
                    self.seats.settle(&theirs, false);
                }
                Err((Some(process), refusal))
            }
            (None, judged) => judged.map_err(|refusal| (None, refusal)),
        }
    }

    /// Connects with a process, and again if it goes away, until the start is over.
    fn keep_connected(&self, peer: usize, purpose: Purpose, address: &str, deadline: Instant) {
        while !self.seats.is_over() && now() < deadline {
            if self.seats.is_free(peer, purpose) {
                match self.connect(peer, purpose, address) {
                    Ok(()) => continue,
                    Err(Failure::Refused(refusal)) if refusal.is_final() => {
                        let message =
                            format!("process {peer} ({address}) turns this process away: {refusal}");
                        self.seats.refuse(Error::new(Kind::Configuration, message));
                        return;
                    }
                    Err(Failure::Refused(refusal)) => self.note(peer, address, &format!("{refusal}")),
                    Err(Failure::Unreachable(error)) => self.note(peer, address, &error),
                }
            }
            self.seats.wait(limits::RECONNECT);
        }
    }

    fn note(&self, peer: usize, address: &str, reason: &str) {
        if self.seats.note(peer, reason.to_owned()) {
            tracing::info!("waiting for process {peer} ({address}): {reason}");
        }
    }

    fn connect(&self, peer: usize, purpose: Purpose, address: &str) -> std::result::Result<(), Failure> {
        let deadline = now() + limits::HANDSHAKE;
        let unreachable = |error: std::io::Error| Failure::Unreachable(error.to_string());
        let stream = sockets::connect(address, limits::HANDSHAKE).map_err(unreachable)?;
        sockets::set_up(&stream, self.silence).map_err(unreachable)?;
        let mut connection = match &self.encryption {
            Some(encryption) => encryption.connect(stream, address, deadline)?,
            None => Connection::Plain(stream),
        };
        let kept = connection.try_clone().map_err(unreachable)?;
        let ours = Hello::new(&self.membership, self.incarnation, purpose)
            .map_err(|error| Failure::Unreachable(error.message))?;
        let theirs = handshake::connect(&mut connection, &ours, peer, &self.secret, deadline)?;
        self.seats.reserve(&theirs, kept)?;
        self.seats.settle(&theirs, true);
        Ok(())
    }
}

/// Why a process is not connected with.
enum Failure {
    Refused(Refusal),
    Unreachable(String),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Failure::Refused(refusal)
    }
}

#[cfg(test)]
#[path = "assemble_tests.rs"]
mod tests;

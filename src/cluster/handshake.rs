//! The handshake on every connection: who is there, and do they belong? What is said and decided is pure; the
//! driver at the end only reads and writes it.
//!
//! ```text
//!   connecting                                        listening
//!   Hello: who I am, what this is for, nonce ───────►  of this job and generation?
//!   of this job and generation?  ◄──────────────────── Hello: who I am, nonce
//!   Proof: HMAC of both Hellos ─────────────────────►  knows the secret? same program, plan, shape? seat free?
//!   knows the secret?  ◄────────────────────────────── Welcome: HMAC of both Hellos | Refused: why
//! ```
//!
//! Who is not of this job and generation is turned away before anything is proved to them. A difference that
//! only a member can have, such as another plan, is judged after the proof; such a process gives up at once,
//! everybody else tries again until the start's timeout: an old incarnation goes away and a new one comes.
//!
//! The two proofs differ by a label: neither can be sent back as the other. Nonces and the incarnation's id
//! are random; a recorded handshake is of no use.
//!
//! Refused are: a message longer than [`HANDSHAKE_BYTES`](limits::HANDSHAKE_BYTES), one that does not begin
//! with the protocol's name, a handshake that takes longer than [`HANDSHAKE`](limits::HANDSHAKE) in all.

use super::Membership;
use super::link::now;
use super::sockets::Connection;
use crate::error::{Error, Result};
use crate::limits;
use crate::secret::Secret;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

/// Every message begins with it; the last byte is the protocol's version.
const MAGIC: [u8; 9] = *b"tidegate\x01";

/// The program's version: two of different versions do not compute together.
const PROGRAM: &str = env!("CARGO_PKG_VERSION");

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Purpose {
    /// timely's.
    Data,
    /// Messages and heartbeats.
    Control,
}

/// The random id of one process, from its start to its end: both connections of a peer are of the same.
pub type Incarnation = [u8; 16];

/// Who says what they want.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Who it is.
    pub membership: Membership,
    /// The program's version.
    pub program: String,
    /// Which of those who ever said so.
    pub incarnation: Incarnation,
    /// What the connection is for.
    pub purpose: Purpose,
    /// Never the same twice.
    pub nonce: [u8; 32],
}

impl Hello {
    /// What this process says on a new connection.
    pub fn new(membership: &Membership, incarnation: Incarnation, purpose: Purpose) -> Result<Hello> {
        Ok(Hello {
            membership: membership.clone(),
            program: PROGRAM.to_owned(),
            incarnation,
            purpose,
            nonce: random()?,
        })
    }
}

/// Bytes that nobody can foretell.
pub fn random<const LENGTH: usize>() -> Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| Error::internal("the system gives no random bytes"))?;
    Ok(bytes)
}

/// Why somebody is turned away. Of two values the first is of who connects, the second of who listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// It does not speak this protocol, not whole, or not in time.
    Stranger(String),
    /// It speaks another version of it.
    Protocol(u8, u8),
    /// Another job's.
    Job(String, String),
    /// An old incarnation, or a newer one.
    Generation(u64, u64),
    /// It does not know the secret.
    Secret,
    /// Another version of the program.
    Program(String, String),
    /// Another plan, that is another job file.
    Plan(u64, u64),
    /// Another number of processes.
    Processes(usize, usize),
    /// Another number of workers.
    Workers(usize, usize),
    /// An index that does not belong there: the addresses differ.
    Index(usize, usize),
    /// The process of this index is there already.
    Taken(usize),
}

impl Refusal {
    /// Whether trying again can do no good: a member of the cluster that differs in what all must have alike.
    pub fn is_final(&self) -> bool {
        match self {
            Refusal::Program(..)
            | Refusal::Plan(..)
            | Refusal::Processes(..)
            | Refusal::Workers(..)
            | Refusal::Index(..) => true,
            Refusal::Stranger(_)
            | Refusal::Protocol(..)
            | Refusal::Job(..)
            | Refusal::Generation(..)
            | Refusal::Secret
            | Refusal::Taken(_) => false,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What a stranger has said is quoted, so that it stays on the line.
        match self {
            Refusal::Stranger(how) => write!(formatter, "a stranger: {}", how.escape_debug()),
            Refusal::Protocol(connecting, listening) => {
                write!(
                    formatter,
                    "another protocol: version {connecting} connects to {listening}"
                )
            }
            Refusal::Job(connecting, listening) => {
                write!(formatter, "another job: {connecting:?} connects to {listening:?}")
            }
            Refusal::Generation(connecting, listening) => {
                let which = if connecting < listening {
                    "an old"
                } else {
                    "a newer"
                };
                write!(
                    formatter,
                    "{which} incarnation: generation {connecting} connects to {listening}"
                )
            }
            Refusal::Secret => write!(formatter, "a wrong secret"),
            Refusal::Program(connecting, listening) => {
                write!(
                    formatter,
                    "another version: {connecting:?} connects to {listening:?}"
                )
            }
            Refusal::Plan(connecting, listening) => write!(
                formatter,
                "another plan: {connecting:016x} connects to {listening:016x}; give all processes the same job file"
            ),
            Refusal::Processes(connecting, listening) => write!(
                formatter,
                "another number of processes: {connecting} connects to {listening}"
            ),
            Refusal::Workers(connecting, listening) => write!(
                formatter,
                "another number of workers: {connecting} connects to {listening}"
            ),
            Refusal::Index(found, expected) => write!(
                formatter,
                "process {found} where process {expected} is expected; give all processes the same addresses"
            ),
            Refusal::Taken(process) => {
                write!(formatter, "an index that is taken: process {process} is there")
            }
        }
    }
}

/// Let in, or why not.
pub type Judged = std::result::Result<(), Refusal>;

/// What is said in a handshake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Said {
    Hello(Hello),
    Proof([u8; 32]),
    Welcome([u8; 32]),
    Refused(Refusal),
}

/// Who proves it.
#[derive(Clone, Copy)]
enum Side {
    Connecting,
    Listening,
}

/// What one side proves to know the secret with: everything both have said, and which side it is.
fn everything_said(side: Side, connecting: &Hello, listening: &Hello) -> Vec<u8> {
    let mut text = match side {
        Side::Connecting => b"tidegate connecting".to_vec(),
        Side::Listening => b"tidegate listening".to_vec(),
    };
    // Each Hello carries its own length.
    text.extend(encode(&Said::Hello(connecting.clone())));
    text.extend(encode(&Said::Hello(listening.clone())));
    text
}

fn key(secret: &Secret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes())
}

fn prove(secret: &Secret, side: Side, connecting: &Hello, listening: &Hello) -> [u8; 32] {
    let tag = hmac::sign(&key(secret), &everything_said(side, connecting, listening));
    let mut proof = [0; 32];
    proof.copy_from_slice(tag.as_ref()); // SHA-256 has 32 bytes
    proof
}

fn is_proved(secret: &Secret, side: Side, connecting: &Hello, listening: &Hello, proof: &[u8; 32]) -> bool {
    // Takes as long for a proof that is nearly right as for any other.
    hmac::verify(&key(secret), &everything_said(side, connecting, listening), proof).is_ok()
}

/// Whether both are of the same job and generation: before anything is proved.
fn known(connecting: &Hello, listening: &Hello) -> Judged {
    let (theirs, ours) = (&connecting.membership, &listening.membership);
    if theirs.job != ours.job {
        return Err(Refusal::Job(theirs.job.clone(), ours.job.clone()));
    }
    if theirs.generation != ours.generation {
        return Err(Refusal::Generation(theirs.generation, ours.generation));
    }
    Ok(())
}

/// Whether both compute the same thing in the same shape: after both have proved who they are.
fn alike(connecting: &Hello, listening: &Hello) -> Judged {
    let (theirs, ours) = (&connecting.membership, &listening.membership);
    if connecting.program != listening.program {
        return Err(Refusal::Program(
            connecting.program.clone(),
            listening.program.clone(),
        ));
    }
    if theirs.processes != ours.processes {
        return Err(Refusal::Processes(theirs.processes, ours.processes));
    }
    if theirs.workers != ours.workers {
        return Err(Refusal::Workers(theirs.workers, ours.workers));
    }
    if theirs.plan_hash != ours.plan_hash {
        return Err(Refusal::Plan(theirs.plan_hash, ours.plan_hash));
    }
    // The greater index connects to the smaller one.
    if theirs.process >= theirs.processes || theirs.process <= ours.process {
        return Err(Refusal::Index(theirs.process, ours.process + 1));
    }
    Ok(())
}

/// Connects as `ours` to who is expected to be process `expected`; gives what they said.
pub(super) fn connect(
    connection: &mut Connection,
    ours: &Hello,
    expected: usize,
    secret: &Secret,
    deadline: Instant,
) -> std::result::Result<Hello, Refusal> {
    say(connection, &Said::Hello(ours.clone()), deadline)?;
    let theirs = match hear(connection, deadline)? {
        Said::Hello(theirs) => theirs,
        Said::Refused(refusal) => return Err(refusal),
        Said::Proof(_) | Said::Welcome(_) => return Err(out_of_turn()),
    };
    known(ours, &theirs)?;
    let proof = prove(secret, Side::Connecting, ours, &theirs);
    say(connection, &Said::Proof(proof), deadline)?;
    match hear(connection, deadline)? {
        Said::Welcome(proved) if is_proved(secret, Side::Listening, ours, &theirs, &proved) => {}
        Said::Welcome(_) => return Err(Refusal::Secret),
        Said::Refused(refusal) => return Err(refusal),
        Said::Proof(_) | Said::Hello(_) => return Err(out_of_turn()),
    }
    match theirs.membership.process {
        process if process == expected && theirs.purpose == ours.purpose => Ok(theirs),
        process => Err(Refusal::Index(process, expected)),
    }
}

/// Hears who connects, and lets them in if `seat` has a place for them; who it is, if they said so, and the
/// judgement. `ours` is answered with their purpose.
pub(super) fn listen(
    connection: &mut Connection,
    mut ours: Hello,
    secret: &Secret,
    deadline: Instant,
    seat: impl FnOnce(&Hello) -> Judged,
) -> (Option<Hello>, Judged) {
    let theirs = match hear(connection, deadline) {
        Ok(Said::Hello(theirs)) => theirs,
        Ok(Said::Proof(_) | Said::Welcome(_) | Said::Refused(_)) => return (None, Err(out_of_turn())),
        Err(refusal) => return (None, Err(refusal)),
    };
    ours.purpose = theirs.purpose;
    let judged = judge(connection, &theirs, &ours, secret, deadline).and_then(|()| seat(&theirs));
    let answer = match &judged {
        Ok(()) => Said::Welcome(prove(secret, Side::Listening, &theirs, &ours)),
        Err(refusal) => Said::Refused(refusal.clone()),
    };
    let said = say(connection, &answer, deadline);
    // Who is turned away may be gone; who is let in may not.
    let judged = judged.and(said);
    (Some(theirs), judged)
}

/// Whether who said this Hello is of the same cluster.
fn judge(
    connection: &mut Connection,
    theirs: &Hello,
    ours: &Hello,
    secret: &Secret,
    deadline: Instant,
) -> Judged {
    known(theirs, ours)?;
    say(connection, &Said::Hello(ours.clone()), deadline)?;
    match hear(connection, deadline)? {
        Said::Proof(proof) if is_proved(secret, Side::Connecting, theirs, ours, &proof) => {
            alike(theirs, ours)
        }
        Said::Proof(_) => Err(Refusal::Secret),
        Said::Refused(refusal) => Err(refusal),
        Said::Hello(_) | Said::Welcome(_) => Err(out_of_turn()),
    }
}

fn out_of_turn() -> Refusal {
    Refusal::Stranger("it spoke out of turn".to_owned())
}

fn encode(said: &Said) -> Vec<u8> {
    // Nothing that a Said consists of can fail to be encoded.
    let body = postcard::to_stdvec(said).unwrap_or_default();
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

fn say(connection: &mut Connection, said: &Said, deadline: Instant) -> Judged {
    let left = time_left(deadline)?;
    let written = connection
        .set_write_timeout(Some(left))
        .and_then(|()| connection.write_all(&encode(said)));
    written.map_err(|error| Refusal::Stranger(format!("it does not listen: {error}")))
}

fn hear(connection: &mut Connection, deadline: Instant) -> std::result::Result<Said, Refusal> {
    let mut magic = [0; MAGIC.len()];
    read(connection, &mut magic, deadline)?;
    let (name, version) = magic.split_at(MAGIC.len() - 1);
    if name != &MAGIC[..MAGIC.len() - 1] {
        return Err(Refusal::Stranger("it does not speak this protocol".to_owned()));
    }
    if version != &MAGIC[MAGIC.len() - 1..] {
        return Err(Refusal::Protocol(version[0], MAGIC[MAGIC.len() - 1]));
    }
    let mut length = [0; 4];
    read(connection, &mut length, deadline)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > limits::HANDSHAKE_BYTES {
        return Err(Refusal::Stranger(format!("a message of {length} bytes")));
    }
    let mut body = vec![0; length];
    read(connection, &mut body, deadline)?;
    postcard::from_bytes(&body).map_err(|_| Refusal::Stranger("a message that is none".to_owned()))
}

/// Reads all of it before the deadline, however slowly it comes.
fn read(connection: &mut Connection, mut buffer: &mut [u8], deadline: Instant) -> Judged {
    while !buffer.is_empty() {
        let left = time_left(deadline)?;
        let read = connection
            .set_read_timeout(Some(left))
            .and_then(|()| connection.read(buffer));
        match read {
            Ok(0) => return Err(Refusal::Stranger("it hung up".to_owned())),
            Ok(length) => buffer = &mut buffer[length..],
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(Refusal::Stranger(error.to_string())),
        }
    }
    Ok(())
}

fn time_left(deadline: Instant) -> std::result::Result<Duration, Refusal> {
    let left = deadline.saturating_duration_since(now());
    match left.is_zero() {
        true => Err(Refusal::Stranger("it did not say in time who it is".to_owned())),
        false => Ok(left),
    }
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;

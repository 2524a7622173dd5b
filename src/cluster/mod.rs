//! Several processes that run one job: who belongs to it, the sockets between them, and whether they live.
//!
//! ```text
//!   process 0 (leader)                        process 1                         process 2
//!  ┌───────────────────┐  data, control      ┌──────────────┐  data, control   ┌──────────────┐
//!  │ listens on        │◄────────────────────┤ listens on   │◄─────────────────┤ listens on   │
//!  │ addresses[0]      │                     │ addresses[1] │                  │ addresses[2] │
//!  └───────▲───────────┘                     └──────────────┘                  └──────┬───────┘
//!          └──────────────────────────────────────────────────────────────────────────┘
//!
//!  connect ─► TLS, if set ─► handshake: who are you? prove it ─► data: a socket for timely
//!  (sockets)  (secure)       (handshake)                      └► control: a Link with heartbeats
//!                                                                (link, frame, heartbeat)
//! ```
//!
//! Every process has one listening address, and connects to every process with a smaller index. Between two
//! processes there are two connections. DATA is timely's: it is handed over once everybody is there and never
//! touched again. CONTROL is ours: a [`Link`](link::Link) of framed messages on which both sides say twice a
//! second that they live, from threads of their own, so that a busy worker never looks dead.
//!
//! **Who is let in.** Whoever connects says which job, generation, program, plan and index it is, and both
//! sides prove by an HMAC over all of that and both nonces that they know the cluster's secret, which is never
//! sent. A stranger, an old incarnation, another job, another version, a wrong secret, an index that is taken:
//! each is turned away, told why, and logged in one line. Every handshake has a thread of its own, a limit in
//! bytes and one in time, so that nobody can hold up a start. A start that takes too long names who is missing.
//!
//! **How it ends.** timely has no reconnect: a cluster lives and dies as one. A process that fails says so to
//! the others ([`Cluster::failed`]), so that they can name the cause. One that vanishes or falls silent is
//! lost, and so is the cluster: [`Settings::lost`] is called, once, and ends the process with
//! [`Kind::PeerLost`](crate::error::Kind), which is never the first cause. A clean end is said by everybody
//! to everybody ([`Cluster::close`]): only then is a closed connection no loss.
//!
//! Assumes that whoever knows the secret, or has a certificate of the authority, means well: what such a peer
//! sends is checked for damage, not for malice. Without TLS what travels can be read by whoever is on the way.

mod assemble;
pub mod frame;
pub mod handshake;
pub mod heartbeat;
pub mod link;
mod seats;
pub mod secure;
pub mod sockets;

use crate::error::{Error, Result};
use crate::secret::Secret;
use link::{Link, Outbox};
use secure::Certificates;
use sockets::Connection;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

/// What a process says of itself. All processes of a cluster say the same but for their index.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Membership {
    /// Name of the job: the cluster's id.
    pub job: String,
    /// Counts the cluster's incarnations.
    pub generation: u64,
    /// The process's index, below `processes`; 0 leads.
    pub process: usize,
    /// Processes of the cluster.
    pub processes: usize,
    /// Worker threads of each process.
    pub workers: usize,
    /// What results depend on.
    pub plan_hash: u64,
}

/// Told of the loss of a peer: at most once, on a thread of the transport's. It is expected to end the process.
pub type Lost = Arc<dyn Fn(Error) + Send + Sync>;

/// What a process needs to join its cluster.
#[derive(Clone)]
pub struct Settings {
    /// Who it is.
    pub membership: Membership,
    /// By process: `host:port`, one each.
    pub addresses: Vec<String>,
    /// The own listening socket, if somebody has opened it already; else the own address is opened.
    pub listener: Option<Arc<TcpListener>>,
    /// Known to all processes of the cluster; at least
    /// [`SECRET_BYTES_MIN`](crate::limits::SECRET_BYTES_MIN) bytes.
    pub secret: Secret,
    /// TLS with certificates of both sides; none: what travels is not encrypted.
    pub certificates: Option<Certificates>,
    /// After this long the start gives up, naming who is missing.
    pub start_timeout: Duration,
    /// A peer of which nothing was heard for so long is lost: [`SILENCE`](crate::limits::SILENCE).
    pub silence: Duration,
    /// What is done then.
    pub lost: Lost,
}

/// A cluster that is complete: every process has proved who it is.
pub struct Cluster {
    /// Who we are.
    pub membership: Membership,
    /// By process, none for the own: what `zero_copy::initialize::initialize_networking_from_sockets` takes.
    /// Taken once.
    pub data: Vec<Option<Connection>>,
    /// By process, none for the own. The leader talks to everybody, a member to the leader. Taken once each.
    pub links: Vec<Option<Link>>,
    /// Says the last words; cloned before the cluster is taken apart.
    pub parting: Parting,
}

/// Ends the cluster's links, cleanly or not. Clones are the same.
#[derive(Clone)]
pub struct Parting {
    outboxes: Arc<Vec<Outbox>>,
}

impl Cluster {
    /// Whether this process leads.
    pub fn is_leader(&self) -> bool {
        self.membership.process == 0
    }
}

impl Parting {
    /// Tells every peer why this process ends, so that it can name the cause. Waits at most
    /// [`LAST_WORDS`](crate::limits::LAST_WORDS); the process is expected to exit then.
    pub fn failed(&self, error: &Error) {
        for outbox in self.outboxes.iter() {
            outbox.fail(error);
        }
        for outbox in self.outboxes.iter() {
            outbox.last_words_are_sent();
        }
    }

    /// Says goodbye to every peer and waits until every peer has said so too, for as long as they live: the
    /// cluster ends together. What was sent before arrives before. An error is a peer that was lost instead.
    pub fn close(&self) -> Result<()> {
        for outbox in self.outboxes.iter() {
            outbox.say_goodbye();
        }
        self.outboxes.iter().try_for_each(Outbox::wait_for_goodbye)
    }
}

/// Joins the cluster: returns when every process is there, or says which ones are missing after the start's
/// timeout, or why this one does not belong.
pub fn assemble(settings: Settings) -> Result<Cluster> {
    assemble::assemble(settings)
}

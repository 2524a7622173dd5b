//! The schema registry: writers' schemas by their id, and ids for the schemas of outputs.
//!
//! ```text
//!   readers ──settled(id)?──► Schemas ◄──settle── thread "registry" ──GET /schemas/ids/{id}──► registry
//!      ▲                       │    │                  ▲    │
//!      └────────woken──────────┘    └──wanted ids──────┘    └ unreachable: back-off, and try again
//!   start of a job ──register, look_up──────────POST /subjects/{subject}...─────────────────► registry
//! ```
//!
//! A schema never changes once it has an id, so each is fetched once per process, and what was settled stays
//! settled. The registry's three kinds of answers have three kinds of consequences:
//!
//! - **It has none of that id**, or one that is no Avro schema: settled as an error, so its messages are
//!   UNDECODABLE.
//! - **It cannot be reached, or cannot answer now** (no connection, too late, 408, 429, 5xx, an answer that is
//!   none of a registry's or too long): tried again for ever, at growing distances; [`Schemas::state`]
//!   shows it, and so does one line of the log when it begins and one when it ends. Never a dead letter.
//! - **It refuses us** (401, 403 and the like; a certificate that does not fit; a URL that is no registry's):
//!   an error of the configuration, which stops the job.
//!
//! Nothing here is on the path of a record: a decoder keeps the [`Writer`] of the id it saw last.
//!
//! **Refuses** redirects, and a user or password in the URL. Proxies named by the environment are not used.

mod client;

use super::avro::Writer;
use crate::error::{Error, Kind, Result};
use crate::limits::{REGISTRY_RETRY, REGISTRY_RETRY_MAX, REGISTRY_TIMEOUT};
use crate::secret::Secret;
use client::{Client, Trouble};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

/// Where the registry is, who we are, and whom we trust.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `http://` or `https://`, with the path below which the API lies, if any.
    pub url: String,
    /// User and password of basic authentication.
    pub user: Option<(String, Secret)>,
    /// Certificates (PEM) of the authorities that may have signed the registry's; none: the public ones.
    pub authorities: Option<PathBuf>,
    /// Our own certificate chain and its private key (PEM), where the registry asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// How long a request may take in all.
    pub timeout: Duration,
}

impl Settings {
    /// A registry that asks nobody who they are.
    pub fn new(url: impl Into<String>) -> Self {
        Settings {
            url: url.into(),
            user: None,
            authorities: None,
            identity: None,
            timeout: REGISTRY_TIMEOUT,
        }
    }
}

/// How it stands with the registry.
#[derive(Clone, Debug)]
pub enum State {
    /// The last request was answered, or there was none yet.
    Answering,
    /// Requests fail and are tried again.
    Unreachable {
        /// How many failed in a row.
        failures: u32,
        /// What was wrong with the last one.
        cause: String,
    },
    /// It refuses us: the job must stop with this.
    Refused(Error),
}

/// Writers' schemas by their id, as far as they are known; shared by all that decode.
pub struct Schemas(Arc<Shared>);

/// What [`Schemas`] and its thread share.
struct Shared {
    client: Client,
    /// What is known of an id: the schema, or the text of its messages' dead letters.
    settled: RwLock<BTreeMap<u32, Result<Arc<Writer>, String>>>,
    work: Mutex<Work>,
    /// Signalled when there is work, or no more.
    changed: Condvar,
}

/// What is to be done.
struct Work {
    /// Ids to be fetched.
    wanted: BTreeSet<u32>,
    state: State,
    /// Whom to tell that an id is settled, or that none will be any more.
    wake: Vec<Box<dyn Fn() + Send>>,
    is_closed: bool,
}

impl Schemas {
    /// Reads the files that the settings name and starts the thread. Nothing is sent yet.
    pub fn start(settings: &Settings) -> Result<Schemas> {
        let shared = Arc::new(Shared {
            client: Client::new(settings)?,
            settled: RwLock::default(),
            work: Mutex::new(Work {
                wanted: BTreeSet::new(),
                state: State::Answering,
                wake: Vec::new(),
                is_closed: false,
            }),
            changed: Condvar::new(),
        });
        let fetching = shared.clone();
        let thread = std::thread::Builder::new().name("registry".to_owned());
        match thread.spawn(move || fetch_wanted(&fetching)) {
            Ok(_detached) => Ok(Schemas(shared)), // it ends when these Schemas are dropped
            Err(error) => Err(Error::internal(format!("cannot start a thread: {error}"))),
        }
    }

    /// Calls `wake` from now on whenever an id has been settled or [`Schemas::state`] has become
    /// [`State::Refused`]. It must not block, nor call these `Schemas`.
    pub fn on_change(&self, wake: impl Fn() + Send + 'static) {
        self.0.work().wake.push(Box::new(wake));
    }

    /// Whether it is known what stands behind an id. If not it will be fetched; this never blocks for that.
    pub fn settled(&self, id: u32) -> bool {
        if self.get(id).is_some() {
            return true;
        }
        if self.0.work().wanted.insert(id) {
            self.0.changed.notify_all();
        }
        false
    }

    /// What stands behind a settled id: the writer's schema, or why its messages are UNDECODABLE.
    pub fn get(&self, id: u32) -> Option<Result<Arc<Writer>, String>> {
        let settled = self.0.settled.read().unwrap_or_else(PoisonError::into_inner);
        settled.get(&id).cloned()
    }

    /// How it stands with the registry.
    pub fn state(&self) -> State {
        self.0.work().state.clone()
    }

    /// Registers an output's schema under a subject and gives its id, which is that of before if it is known.
    /// Blocks until the registry answers.
    pub fn register(&self, subject: &str, schema: &str) -> Result<u32> {
        self.ask(|client| client.register(subject, schema))
    }

    /// The id of an output's schema, which must be registered under the subject. Blocks like
    /// [`Schemas::register`].
    pub fn look_up(&self, subject: &str, schema: &str) -> Result<u32> {
        self.ask(|client| client.look_up(subject, schema))
    }

    /// Asks until there is an answer, or until these `Schemas` are closed from another thread.
    fn ask<T>(&self, request: impl Fn(&Client) -> Result<T, Trouble>) -> Result<T> {
        let mut pause = REGISTRY_RETRY;
        loop {
            match request(&self.0.client) {
                Ok(answer) => {
                    self.0.note_answer();
                    return Ok(answer);
                }
                Err(Trouble::Refused(error)) => return Err(error),
                Err(Trouble::Unreachable(cause)) => self.0.note_failure(cause),
            }
            if self.0.closed_within(pause) {
                return Err(Error::new(
                    Kind::Aborted,
                    "stopped while waiting for the schema registry",
                ));
            }
            pause = (pause * 2).min(REGISTRY_RETRY_MAX);
        }
    }

    /// Gives up: whoever waits in [`Schemas::register`] or [`Schemas::look_up`] comes back, the thread ends.
    pub fn close(&self) {
        self.0.work().is_closed = true;
        self.0.changed.notify_all();
    }
}

impl Drop for Schemas {
    fn drop(&mut self) {
        self.close();
    }
}

/// The thread: fetches what is wanted, one after the other, so that an id with a bad answer delays no other.
fn fetch_wanted(shared: &Shared) {
    let (mut last, mut pause) = (0, REGISTRY_RETRY);
    while let Some(id) = shared.next_wanted(last) {
        last = id;
        match shared.client.writer(id) {
            Ok(writer) => {
                shared.settle(id, writer.map(Arc::new));
                shared.note_answer();
                pause = REGISTRY_RETRY;
            }
            Err(Trouble::Refused(error)) => return shared.refuse(error),
            Err(Trouble::Unreachable(cause)) => {
                shared.note_failure(cause);
                if shared.closed_within(pause) {
                    return;
                }
                pause = (pause * 2).min(REGISTRY_RETRY_MAX);
            }
        }
    }
}

impl Shared {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a wanted id, the next one after `last` in a circle; none when there will be no more.
    fn next_wanted(&self, last: u32) -> Option<u32> {
        let idle = |work: &mut Work| work.wanted.is_empty() && !work.is_closed;
        let work = self.changed.wait_while(self.work(), idle);
        let work = work.unwrap_or_else(PoisonError::into_inner);
        if work.is_closed {
            return None;
        }
        let next = last
            .checked_add(1)
            .and_then(|next| work.wanted.range(next..).next());
        next.or(work.wanted.first()).copied()
    }

    /// Waits, and says whether these `Schemas` were closed meanwhile.
    fn closed_within(&self, pause: Duration) -> bool {
        let open = |work: &mut Work| !work.is_closed;
        let waited = self.changed.wait_timeout_while(self.work(), pause, open);
        let (work, _) = waited.unwrap_or_else(PoisonError::into_inner);
        work.is_closed
    }

    fn settle(&self, id: u32, writer: Result<Arc<Writer>, String>) {
        match &writer {
            Ok(_) => tracing::debug!(id, "schema fetched"),
            Err(error) => tracing::warn!(id, %error, "no schema behind an id: its messages are dead letters"),
        }
        let mut settled = self.settled.write().unwrap_or_else(PoisonError::into_inner);
        settled.insert(id, writer);
        drop(settled);
        let mut work = self.work();
        work.wanted.remove(&id);
        work.wake.iter().for_each(|wake| wake());
    }

    /// The registry refuses us; nothing more will be settled.
    fn refuse(&self, error: Error) {
        let mut work = self.work();
        work.state = State::Refused(error);
        work.wake.iter().for_each(|wake| wake());
    }

    fn note_answer(&self) {
        let before = std::mem::replace(&mut self.work().state, State::Answering);
        if let State::Unreachable { failures, .. } = before {
            tracing::info!(
                failures,
                url = self.client.url(),
                "the schema registry answers again"
            );
        }
    }

    fn note_failure(&self, cause: String) {
        let mut work = self.work();
        let before = match work.state {
            State::Unreachable { failures, .. } => failures,
            State::Answering | State::Refused(_) => {
                let url = self.client.url();
                tracing::warn!(url, %cause, "the schema registry cannot be reached: waiting for it");
                0
            }
        };
        work.state = State::Unreachable {
            failures: before.saturating_add(1),
            cause,
        };
    }
}

#[cfg(test)]
#[path = "registry/registry_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "registry/tls_tests.rs"]
mod tls_tests;

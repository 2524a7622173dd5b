//! Who is there already: one seat for each connection with each peer.
//!
//! A seat is reserved before its holder is welcomed and counts afterwards, so that nothing else is said on a
//! connection before its handshake is over. It is taken as long as its holder's connection is open; a process
//! that has died and was started again finds the seat of its predecessor free. Both seats of a peer belong to
//! one incarnation of it.

use super::handshake::{Hello, Judged, Purpose, Refusal};
use super::sockets::Connection;
use crate::error::{Error, Result};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// By process, none for the own: data and control.
pub(super) type Pairs = Vec<Option<[Connection; 2]>>;

/// Who is missing, and why if that is known.
pub(super) type Missing = Vec<(usize, Option<String>)>;

/// The connections of a cluster that is being put together.
pub(super) struct Seats {
    table: Mutex<Table>,
    /// Somebody has come or gone, or it is over.
    changed: Condvar,
}

struct Table {
    /// By process and purpose.
    seats: Vec<[Option<Seat>; 2]>,
    /// By process: why it is not there, as far as is known.
    reasons: Vec<Option<String>>,
    /// The start has succeeded or failed: nobody need try any more.
    is_over: bool,
    /// Why it has failed: this process does not belong.
    refused: Option<Error>,
}

struct Seat {
    connection: Connection,
    hello: Hello,
    is_welcomed: bool,
}

impl Seats {
    /// For so many processes; nobody is there.
    pub(super) fn new(processes: usize) -> Seats {
        Seats {
            table: Mutex::new(Table {
                seats: (0..processes).map(|_| [None, None]).collect(),
                reasons: vec![None; processes],
                is_over: false,
                refused: None,
            }),
            changed: Condvar::new(),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves the seat of who said this; their process is below the number of processes.
    pub(super) fn reserve(&self, hello: &Hello, connection: Connection) -> Judged {
        let mut table = self.table();
        let process = hello.membership.process;
        if table.is_over {
            return Err(Refusal::Taken(process));
        }
        let seats = &mut table.seats[process];
        // Whose connection is closed is gone.
        seats
            .iter_mut()
            .for_each(|seat| drop(seat.take_if(|seat| !seat.connection.is_open())));
        let other = seats.iter().flatten();
        let is_free = seats[hello.purpose as usize].is_none();
        if !is_free
            || other
                .into_iter()
                .any(|seat| seat.hello.incarnation != hello.incarnation)
        {
            return Err(Refusal::Taken(process));
        }
        seats[hello.purpose as usize] = Some(Seat {
            connection,
            hello: hello.clone(),
            is_welcomed: false,
        });
        Ok(())
    }

    /// The handshake of a reserved seat is over: it counts, or is free again.
    pub(super) fn settle(&self, hello: &Hello, is_welcomed: bool) {
        let mut table = self.table();
        let seat = &mut table.seats[hello.membership.process][hello.purpose as usize];
        if is_welcomed {
            let mine = seat.iter_mut().filter(|seat| seat.hello.nonce == hello.nonce);
            mine.for_each(|seat| seat.is_welcomed = true);
        } else {
            drop(seat.take_if(|seat| seat.hello.nonce == hello.nonce));
        }
        drop(table);
        self.changed.notify_all();
    }

    /// Whether this seat waits for somebody; frees it if its holder has gone.
    pub(super) fn is_free(&self, process: usize, purpose: Purpose) -> bool {
        let mut table = self.table();
        let seat = &mut table.seats[process][purpose as usize];
        drop(seat.take_if(|seat| !seat.connection.is_open()));
        seat.is_none()
    }

    /// Notes why a process is not there; whether that is news.
    pub(super) fn note(&self, process: usize, reason: String) -> bool {
        let mut table = self.table();
        let Some(known) = table.reasons.get_mut(process) else {
            return true;
        };
        let is_new = known.as_ref() != Some(&reason);
        *known = Some(reason);
        is_new
    }

    /// This process does not belong: the start has failed.
    pub(super) fn refuse(&self, error: Error) {
        let mut table = self.table();
        table.refused.get_or_insert(error);
        table.is_over = true;
        drop(table);
        self.changed.notify_all();
    }

    /// Nobody need try any more.
    pub(super) fn end(&self) {
        self.table().is_over = true;
        self.changed.notify_all();
    }

    /// Whether nobody need try any more.
    pub(super) fn is_over(&self) -> bool {
        self.table().is_over
    }

    /// Waits so long, or until something has changed.
    pub(super) fn wait(&self, timeout: Duration) {
        let table = self.table();
        if !table.is_over {
            // Whatever woke us, the caller looks again.
            let _ = self.changed.wait_timeout(table, timeout);
        }
    }

    /// Waits until every other process than `own` has both its seats. Afterwards, at the deadline: who is
    /// missing and why, by process.
    pub(super) fn complete(
        &self,
        own: usize,
        deadline: Instant,
        now: impl Fn() -> Instant,
        look: Duration,
    ) -> Result<std::result::Result<Pairs, Missing>> {
        loop {
            let mut table = self.table();
            if let Some(error) = &table.refused {
                return Err(error.clone());
            }
            let missing: Vec<usize> = (0..table.seats.len())
                .filter(|process| *process != own && !is_there(&table.seats[*process]))
                .collect();
            if missing.is_empty() {
                table.is_over = true;
                let pairs = table.seats.iter_mut().map(|[data, control]| {
                    let (data, control) = (data.take()?, control.take()?);
                    Some([data.connection, control.connection])
                });
                return Ok(Ok(pairs.collect()));
            }
            if now() >= deadline {
                let reason = |process: usize| (process, table.reasons[process].clone());
                return Ok(Err(missing.into_iter().map(reason).collect()));
            }
            // Whatever woke us, we look again; who has gone meanwhile tells nobody.
            let _ = self.changed.wait_timeout(table, look);
        }
    }
}

fn is_there(seats: &[Option<Seat>; 2]) -> bool {
    match seats {
        [Some(data), Some(control)] => {
            data.hello.incarnation == control.hello.incarnation
                && [data, control]
                    .iter()
                    .all(|seat| seat.is_welcomed && seat.connection.is_open())
        }
        _ => false,
    }
}

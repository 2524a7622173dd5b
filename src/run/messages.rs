//! What the leader of a cluster and its members say to each other, beside timely.
//!
//! ```text
//!  leader ─► member   Plan, Recovered, Recorded*, Rows*, Go │ Pace, Pressure, Found
//!  member ─► leader                                         │ Pace, Counted, Changed*
//!                          before the threads start         │ while they run; a goodbye ends it
//! ```
//!
//! Short messages are posted by whoever has them to say, workers too, and never wait. Rows travel in messages of
//! about [`ROWS_BYTES`](limits::ROWS_BYTES), sent by threads that may wait, so that nothing short has to queue
//! behind much. That a process has failed or is lost is the link's business ([`crate::cluster`]).

use super::handover::PlanFacts;
use super::{FoundPartition, Recovered};
use crate::checkpoint::binding::PartitionBinding;
use crate::checkpoint::row::StateRow;
use crate::cluster::link::Outbox;
use crate::error::{Error, Kind, Result};
use crate::limits;
use crate::pace::{News, Told};
use crate::time::{Epoch, Millis};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// From the leader to a member.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum ToMember {
    /// What the member's plan cannot know.
    Plan(PlanFacts),
    /// What the start decided; without recorded bindings and rows.
    Recovered(Box<Recovered>),
    /// The recorded bindings, one by one, in order: without what came out, which only who commits compares. (That
    /// field may be left out of a progress record, which a form that does not name its fields cannot read.)
    Recorded(Epoch, Vec<PartitionBinding>),
    /// Rows of the restored checkpoint that belong to the member's workers.
    Rows(Vec<StateRow>),
    /// That was all: the threads start.
    Go,
    /// What [`crate::pace::AtLeader`] hears.
    Pace(News),
    /// How full the pipeline is.
    Pressure(Pressure),
    /// A partition was found and declared.
    Found(FoundPartition),
}

/// Figures of [`crate::metrics::Metrics`] that hold sources back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pressure {
    /// Every epoch up to this one is sealed.
    pub sealed: Epoch,
    /// Every epoch up to this one is committed.
    pub committed: Epoch,
    /// Encoded rows sealed and not committed, bytes.
    pub queued_bytes: usize,
    /// Sealed epochs that wait for their commit.
    pub waiting: usize,
}

/// From a member to the leader.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum ToLeader {
    /// What [`crate::pace::Here`] hears.
    Pace(Told),
    /// What the member has counted.
    Counted(Counted),
    /// Rows that a worker changed up to a cut.
    Changed {
        /// The worker.
        worker: u32,
        /// The epoch of the cut.
        epoch: Epoch,
        /// Some of them.
        rows: Vec<StateRow>,
        /// All others were sent.
        is_last: bool,
    },
}

/// Counters of a member since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counted {
    /// An epoch that has just taken its first message on one of the member's workers.
    pub taken: Option<Epoch>,
    /// Messages taken from inputs.
    pub messages_in: u64,
    /// Greatest event time.
    pub event_time: Millis,
    /// By reason.
    pub dead_letters: [u64; 3],
}

/// Posts a short message. A peer that is no longer reached is told of by its link.
pub(super) fn post<M: Serialize>(outbox: &Outbox, message: &M) {
    match encode(message).and_then(|bytes| outbox.post(&bytes)) {
        Err(error) if error.kind != Kind::PeerLost => tracing::error!("{error}"),
        Ok(()) | Err(_) => {}
    }
}

/// Sends a message of any length; waits while much is queued.
pub(super) fn send<M: Serialize>(outbox: &Outbox, message: &M) -> Result<()> {
    outbox.send(&encode(message)?)
}

/// What a peer has sent.
pub(super) fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M> {
    postcard::from_bytes(bytes).map_err(|error| {
        let message = format!("another process sent what this one does not understand: {error}");
        Error::new(Kind::PeerLost, message)
    })
}

fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>> {
    let encoded = postcard::to_stdvec(message);
    encoded.map_err(|error| Error::internal(format!("a message cannot be encoded: {error}")))
}

/// Cuts rows into pieces of about [`ROWS_BYTES`](limits::ROWS_BYTES), at least one; with whether it is the last.
pub(super) fn pieces(rows: Vec<StateRow>) -> impl Iterator<Item = (Vec<StateRow>, bool)> {
    let mut rows = rows.into_iter().peekable();
    let mut is_first = true;
    std::iter::from_fn(move || {
        let (mut piece, mut bytes) = (Vec::new(), 0);
        while bytes < limits::ROWS_BYTES
            && let Some(row) = rows.next()
        {
            bytes += row.key.len() + row.value.as_ref().map_or(0, |value| value.len()) + size_of::<u64>();
            piece.push(row);
        }
        let is_wanted = std::mem::take(&mut is_first) || !piece.is_empty();
        is_wanted.then(|| (piece, rows.peek().is_none()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_into_pieces_and_the_last_one_is_marked() {
        let row = |hash| StateRow {
            operator: 1,
            hash,
            key: vec![0; limits::ROWS_BYTES / 4].into(),
            value: None,
        };
        for count in [0, 1, 4, 9] {
            let rows: Vec<StateRow> = (0..count).map(row).collect();
            let cut: Vec<_> = pieces(rows.clone()).collect();
            let lasts: Vec<bool> = cut.iter().map(|(_, is_last)| *is_last).collect();
            assert_eq!(lasts.iter().filter(|is_last| **is_last).count(), 1, "{count}");
            assert_eq!(lasts.last(), Some(&true), "{count}");
            assert!(cut.iter().all(|(piece, _)| piece.len() <= 4), "{count}");
            let again: Vec<_> = cut.into_iter().flat_map(|(piece, _)| piece).collect();
            assert_eq!(again, rows);
        }
    }

    #[test]
    fn what_is_not_understood_is_a_lost_peer() {
        let error = decode::<ToMember>(&[200]).expect_err("there are not so many messages");
        assert_eq!(error.kind, Kind::PeerLost);
    }
}

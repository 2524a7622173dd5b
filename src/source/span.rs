//! Which part of history a replay reads of an input.
//!
//! ```text
//!                      from                 to
//!  events     ─────────┤█████████████████████├─────────   by each record's own event time
//!  tables     ▒▒▒▒▒▒▒▒▒┤█████████████████████├─────────   by as-of time: the state at `from` first, then merged
//!  bad bytes                                              with the valid record before them in their partition
//! ```
//!
//! An **event** is in the span when its own event time is in [from, to), wherever it stands in its partition.
//! What is left out leaves no trace: watermarks begin empty and move by records of the span alone, so what is
//! late, and what jumps, is decided as in a run over files that hold exactly the span. A record that arrived
//! late in the live run may so be in time here (what made it late lies before `from`), and a window that
//! straddles an edge has only its records of the span.
//!
//! A **table** is read from its beginning: whatever is as of a time before `from` is there from the start of
//! the run, the rest is merged by time, and what is as of `to` or later is left out.
//!
//! Messages without a valid time of their own (UNDECODABLE, INVALID) go with the valid record before them; at
//! the head of an event partition there is none, and they are in the span only if it has no `from`.
//!
//! Pure; the source counts what it leaves out.

use crate::time::Millis;
use serde::{Deserialize, Serialize};

/// A half-open part of time, open where it has no end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The first time in it, milliseconds since the Unix epoch; none: from the beginning.
    pub from: Option<Millis>,
    /// The first time behind it; none: to the end.
    pub to: Option<Millis>,
}

impl Span {
    /// Whether an event of this time is in it.
    pub fn contains(&self, time: Millis) -> bool {
        self.from.is_none_or(|from| time >= from) && self.to.is_none_or(|to| time < to)
    }

    /// Whether a table's message is in it that is as of this time; one without is as old as can be.
    pub fn reaches(&self, as_of: Option<Millis>) -> bool {
        as_of.is_none_or(|as_of| self.to.is_none_or(|to| as_of < to))
    }

    /// The as-of time that places a table's message: none, the start of the run, where it lies before the span.
    pub fn placed(&self, as_of: Option<Millis>) -> Option<Millis> {
        as_of.filter(|as_of| self.from.is_none_or(|from| *as_of >= from))
    }
}

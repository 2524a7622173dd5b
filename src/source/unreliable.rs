//! A reader that fails by seed: its answers are cut short anywhere, or turn into errors.
//!
//! ```text
//!  files::read ─► answer ─► Unreliable ─┬─► as it is
//!                                       ├─► its first bytes only, "not at the end": a short read
//!                                       └─► an error: the job stops, the next start reads on from what is bound
//! ```
//!
//! Of the four ways to answer, (happened, error) and (not happened, error or timeout) are one for a reader: reading
//! changes nothing, so whether it happened cannot be told and need not be. For tests and the bench.
//!
//! Assumes what every answer promises: bytes from the offset that was asked for. Never invents or skips one.

use super::{Answer, Bytes};
use crate::checkpoint::unreliable::Random;
use crate::error::{Error, Kind};

/// Answers that fail by seed.
pub struct Unreliable {
    random: Random,
    cut_percent: u64,
    failing_percent: u64,
}

impl Unreliable {
    /// These shares of the answers, in percent, are cut short, or fail.
    pub fn new(seed: u64, cut_percent: u64, failing_percent: u64) -> Self {
        Unreliable {
            random: Random(seed),
            cut_percent,
            failing_percent,
        }
    }

    /// What becomes of an answer.
    pub fn answer(&mut self, answer: Answer) -> Answer {
        let mut arrival = answer?;
        if self.random.below(100) < self.failing_percent {
            let message = format!("injected: cannot be read at byte {}", arrival.offset);
            return Err(Error::new(Kind::InputGone, message));
        }
        // An empty answer means the end; a cut one is never empty.
        if let Bytes::Lines(bytes) = &mut arrival.bytes
            && bytes.len() > 1
            && self.random.below(100) < self.cut_percent
        {
            let length = 1 + self.random.below(bytes.len() as u64 - 1) as usize;
            bytes.truncate(length);
            arrival.at_end = false;
        }
        Ok(arrival)
    }
}

#[cfg(test)]
#[path = "unreliable_test.rs"]
mod test;

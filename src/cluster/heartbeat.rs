//! Whether a peer lives: it was heard of lately, as far as we were there to hear it. Pure: told the time.
//!
//! Anything that arrives is a sign of life, a heartbeat or a part of a long message. Silence counts only while
//! this process listens: one that was itself stopped, or starved of the processor, and looks at the clock
//! again, cannot know who else has stood still meanwhile, and gives everybody a new start.

use crate::limits;
use std::time::{Duration, Instant};

/// What is known of one peer.
#[derive(Clone, Copy, Debug)]
pub struct Liveness {
    silence: Duration,
    heard: Instant,
    looked: Instant,
}

impl Liveness {
    /// A peer that was heard just now, and is lost after so much silence.
    pub fn new(silence: Duration, now: Instant) -> Self {
        Liveness {
            silence,
            heard: now,
            looked: now,
        }
    }

    /// After so much of it a peer is lost.
    pub fn silence(&self) -> Duration {
        self.silence
    }

    /// Something has arrived.
    pub fn heard(&mut self, now: Instant) {
        (self.heard, self.looked) = (now, now);
    }

    /// How often to look: so that a silence is noticed when little more than itself has passed.
    pub fn interval(&self) -> Duration {
        limits::HEARTBEAT.min(self.silence / 8)
    }

    /// Nothing has arrived for now: whether the peer is lost.
    pub fn is_lost(&mut self, now: Instant) -> bool {
        let away = now.saturating_duration_since(self.looked);
        if away > self.silence / 2 {
            self.heard = now;
        }
        self.looked = now;
        now.saturating_duration_since(self.heard) >= self.silence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn liveness() -> (Liveness, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        let at = move |ms| start + Duration::from_millis(ms);
        (Liveness::new(limits::SILENCE, at(0)), at)
    }

    #[test]
    fn silence_is_noticed_within_five_seconds_and_not_before_four() {
        let (mut liveness, at) = liveness();
        liveness.heard(at(700));
        let step = u64::try_from(liveness.interval().as_millis()).expect("short");
        let noticed = (0..)
            .map(|look| 700 + look * step)
            .find(|&ms| liveness.is_lost(at(ms)));
        assert!(
            noticed.is_some_and(|ms| (4_700..=5_700).contains(&ms)),
            "{noticed:?}"
        );
    }

    #[test]
    fn any_sign_of_life_counts() {
        let (mut liveness, at) = liveness();
        for ms in (0..60_000).step_by(500) {
            if ms % 3_500 == 0 {
                liveness.heard(at(ms));
            }
            assert!(!liveness.is_lost(at(ms)), "{ms}");
        }
    }

    #[test]
    fn who_stood_still_himself_blames_nobody() {
        let (mut liveness, at) = liveness();
        assert!(!liveness.is_lost(at(500)));
        // Stopped for a minute, and continued.
        assert!(!liveness.is_lost(at(60_000)));
        assert!(!liveness.is_lost(at(60_500)));
        let noticed = (60_500..70_000).step_by(500).find(|&ms| liveness.is_lost(at(ms)));
        assert_eq!(noticed, Some(64_000), "silence counts again from then on");
    }
}

//! What the end of a generation means: who is the cause, and what comes next. Pure.
//!
//! When one process dies the others end because of it, with a code of their own
//! ([`Kind::PeerLost`]), and whoever does not is killed. So of all ends the cause is the first one that is
//! neither; if there is none, such as when a process was frozen, the first of those that missed it says whom.

use std::fmt;
use std::time::Duration;
use tidegate::error::{Error, Kind};
use tidegate::limits;

/// How a process has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Which one.
    pub process: usize,
    /// Its exit code, or the signal that ended it.
    pub exit: Exit,
    /// The thread that failed and why, if it could say so.
    pub said: Option<(String, String)>,
    /// The last line it logged.
    pub last_line: Option<String>,
    /// The launcher has killed it.
    pub is_killed: bool,
}

/// An exit code, or a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It has ended by itself.
    Code(i32),
    /// It was ended.
    Signal(i32),
}

impl End {
    fn is_good(&self) -> bool {
        self.exit == Exit::Code(0)
    }

    fn is_consequence(&self) -> bool {
        self.is_killed || self.exit == Exit::Code(Kind::PeerLost as i32)
    }
}

impl fmt::Display for End {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "process {}", self.process)?;
        match (&self.said, self.exit) {
            (Some((thread, message)), _) => write!(formatter, ", thread {thread}: {message}"),
            (None, Exit::Signal(signal)) => write!(formatter, " was ended by signal {signal}"),
            (None, Exit::Code(code)) => {
                let line = self.last_line.as_deref().unwrap_or("it did not say why");
                write!(formatter, " ended with code {code}: {line}")
            }
        }
    }
}

/// The first cause among the ends, in the order in which they were noticed; none if all ended well.
pub fn cause(ends: &[End]) -> Option<&End> {
    let bad = || ends.iter().filter(|end| !end.is_good());
    let first = bad().find(|end| !end.is_consequence());
    // Nobody is to blame: who was killed last stood still, and who ended before has missed it.
    first
        .or_else(|| bad().find(|end| !end.is_killed))
        .or_else(|| bad().next())
}

/// What comes next.
#[derive(Debug)]
pub enum Next {
    /// The job is done.
    Done,
    /// Starting again would end the same way, or is not wanted.
    GiveUp(Error),
    /// A new generation, after a pause.
    Again {
        /// The first cause.
        cause: String,
        /// How long to wait.
        after: Duration,
    },
}

/// Pauses between generations.
#[derive(Debug, Default)]
pub struct Deaths(u32);

impl Deaths {
    /// The pause after a generation that lived so long.
    pub fn pause(&mut self, lived: Duration) -> Duration {
        if lived >= limits::HEALTHY {
            self.0 = 0;
        }
        let pause = limits::RESTART * 2_u32.pow(self.0.min(20));
        self.0 += 1;
        pause.min(limits::RESTART_MAX)
    }
}

/// Judges a generation that has ended after so long; `is_draining` if that was asked for.
pub fn judge(ends: &[End], lived: Duration, is_draining: bool, deaths: &mut Deaths) -> Next {
    let Some(cause) = cause(ends) else {
        return Next::Done;
    };
    let kind = match cause.exit {
        Exit::Code(code) => Kind::of_code(code).unwrap_or(Kind::Internal),
        // Interrupted before there was anything to drain.
        Exit::Signal(signal) if is_draining && signal == signal_hook::consts::SIGINT => return Next::Done,
        Exit::Signal(_) => Kind::Internal,
    };
    if is_draining || is_in_vain(kind) {
        return Next::GiveUp(Error::new(kind, cause.to_string()));
    }
    Next::Again {
        cause: cause.to_string(),
        after: deaths.pause(lived),
    }
}

/// Whether a process that ended for this reason would do so again: somebody has to do something first.
fn is_in_vain(kind: Kind) -> bool {
    match kind {
        Kind::Usage
        | Kind::Configuration
        | Kind::InputGone
        | Kind::StateDamaged
        | Kind::AnotherInstance
        | Kind::Fenced
        | Kind::Differs
        | Kind::Aborted => true,
        Kind::WriteFailed | Kind::Unreachable | Kind::PeerLost | Kind::Stalled | Kind::Internal => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(process: usize, exit: Exit) -> End {
        End {
            process,
            exit,
            said: None,
            last_line: None,
            is_killed: false,
        }
    }

    fn judged(ends: &[End], is_draining: bool) -> Next {
        judge(ends, Duration::ZERO, is_draining, &mut Deaths::default())
    }

    #[test]
    fn the_first_cause_is_no_consequence() {
        let lost = |process| end(process, Exit::Code(Kind::PeerLost as i32));
        let panicked = End {
            said: Some((
                "timely:work-0".to_owned(),
                "thread timely:work-0 panicked".to_owned(),
            )),
            ..end(1, Exit::Code(70))
        };
        let killed = End {
            is_killed: true,
            ..end(2, Exit::Signal(9))
        };
        let cases: [(&[End], &str); 5] = [
            // Noticed in any order.
            (
                &[lost(0), panicked.clone(), lost(2)],
                "process 1, thread timely:work-0: thread timely:work-0 panicked",
            ),
            (
                &[lost(0), end(2, Exit::Signal(9))],
                "process 2 was ended by signal 9",
            ),
            // Frozen: it is killed at last, and who missed it tells.
            (
                &[
                    End {
                        last_line: Some("process 2 is lost: nothing was heard of it".to_owned()),
                        ..lost(1)
                    },
                    lost(0),
                    killed.clone(),
                ],
                "process 1 ended with code 10: process 2 is lost: nothing was heard of it",
            ),
            (
                &[end(1, Exit::Code(0)), lost(0)],
                "process 0 ended with code 10: it did not say why",
            ),
            (&[killed], "process 2 was ended by signal 9"),
        ];
        for (ends, expected) in cases {
            assert_eq!(cause(ends).map(End::to_string).as_deref(), Some(expected));
        }
        assert_eq!(cause(&[end(0, Exit::Code(0)), end(1, Exit::Code(0))]), None);
    }

    #[test]
    fn only_what_a_restart_can_mend_is_restarted() {
        for kind in Kind::ALL {
            let next = judged(&[end(0, Exit::Code(kind as i32))], false);
            let gives_up = matches!(&next, Next::GiveUp(error) if error.kind == kind);
            let again = matches!(next, Next::Again { .. });
            assert!(gives_up == is_in_vain(kind) && again != gives_up, "{kind:?}");
        }
        assert!(matches!(
            judged(&[end(0, Exit::Signal(9))], false),
            Next::Again { .. }
        ));
        assert!(matches!(judged(&[end(0, Exit::Code(0))], false), Next::Done));
    }

    #[test]
    fn whoever_asked_for_the_end_gets_no_restart() {
        assert!(matches!(
            judged(&[end(0, Exit::Signal(9))], true),
            Next::GiveUp(_)
        ));
        assert!(matches!(judged(&[end(0, Exit::Signal(2))], true), Next::Done));
        assert!(matches!(
            judged(&[end(0, Exit::Signal(2))], false),
            Next::Again { .. }
        ));
    }

    #[test]
    fn pauses_double_up_to_ten_seconds_and_begin_again_after_a_healthy_minute() {
        let mut deaths = Deaths::default();
        let pauses: Vec<u128> = (0..9)
            .map(|_| deaths.pause(Duration::from_secs(59)).as_millis())
            .collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        for _ in 0..100 {
            assert_eq!(deaths.pause(Duration::ZERO), limits::RESTART_MAX);
        }
        assert_eq!(deaths.pause(limits::HEALTHY), limits::RESTART);
    }
}

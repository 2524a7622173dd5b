//! The cases of [`decide`], text in, text out.
//!
//! A case is one line, `facts => decision`. The facts, in any order: `claim 3` (nonce 30 + 3, own plan),
//! `claim 3x` (another nonce), `claim 3?` (damaged), `claim 3p` (another plan), `claim 3s` (two shards) ·
//! `begun` · `append` · `log g3 (10,60]` (last record of the next shard: generation 3, bindings above 10,
//! committed 60), `log p g3 (0,9]` (of another plan), `no log`, `bad log` · `file R/F` (output of the shard
//! before it: recorded length R or `-`, found length F) · `checkpoint 4@40` (number 4, epoch 40), `checkpoint
//! 4@40<70` (70 was the greatest epoch bound).

use super::*;
use crate::error::{Error, Kind};

const CASES: &str = "
The first start, and a first start that died early.

no log                                             => Fresh
no log, file -/0                                   => Fresh
claim 1, no log                                    => Fresh
claim 1, log g1 (0,0], file 0/0                    => Fresh
claim 1, log g1 (0,0], file 7/7                    => Fresh
claim 1, log p g1 (0,0]                            => Fresh
claim 1, log g1 (0,0], no log                      => Fresh
claim 1p, no log                                   => Fresh

A user's own file is never touched unasked; until the first commit all that is in it is the user's.

no log, file -/5                                   => OutputNotEmpty
append, no log, file -/5                           => Fresh
claim 1, log g1 (0,0], no log, file -/5            => OutputNotEmpty
claim 1, log g1 (0,0], file 7/9                    => OutputNotEmpty
append, claim 1, log g1 (0,0], file 7/9            => Fresh
claim 1, log g1 (0,0], file 7/3                    => Fresh

Going on.

claim 1, begun, log g1 (0,0]                       => start, replay 0..0, base 1
claim 1, begun, log g1 (0,60]                      => start, replay 0..60, base 61
claim 1, claim 2, begun, log g1 (0,60]             => start, replay 0..60, base 61
claim 1, begun, log g1 (0,60], checkpoint 1@40     => checkpoint 1, replay 40..60, base 61
claim 1, begun, log g1 (0,60], checkpoint 1@60     => checkpoint 1, replay 60..60, base 61
claim 1, begun, log g1 (20,60], checkpoint 1@20, checkpoint 2@40 => checkpoint 2, replay 40..60, base 61
claim 1, begun, log g1 (20,60], checkpoint 1@20    => checkpoint 1, replay 20..60, base 61
claim 1, begun, log g1 (0,60], checkpoint 1@40<75  => checkpoint 1, replay 40..60, base 76
claim 1, begun, log g1 (0,60], file 9/9            => start, replay 0..60, base 61
claim 1, begun, log g1 (0,60], file 9/12           => start, replay 0..60, base 61
claim 1?, begun, log g1 (0,60]                     => start, replay 0..60, base 61

Several shards: replay to the greatest commit, with the bindings of all of them together.

claim 1s, begun, log g1 (0,55], log g1 (0,60]      => start, replay 0..60, base 61
claim 1s, begun, log g1 (0,55], log g1 (50,60]     => start, replay 0..60, base 61
claim 1s, begun, log g1 (20,55], log g1 (50,60], checkpoint 3@20 => checkpoint 3, replay 20..60, base 61
claim 1s, begun, log g1 (0,40], log g1 (50,60]     => BindingMissing
claim 1s, begun, log g1 (0,40], log g1 (0,60], checkpoint 3@50 => ProgressBehind
claim 1s, claim 2s, begun, log g1 (0,40], log g2 (0,60] => start, replay 0..60, base 61

Another job.

claim 1, begun, log p g1 (0,60]                    => PlanChanged
claim 1, begun, log p g1 (0,0]                     => PlanChanged
claim 1p, begun, no log                            => PlanChanged
claim 1, claim 2p, begun, log g1 (0,60]            => PlanChanged
claim 1s, begun, log g1 (0,60]                     => ShardsChanged

Progress gone, damaged, or of an older copy.

claim 1, begun, no log                             => ProgressMissing
claim 1, begun, no log, file -/5                   => ProgressMissing
claim 1s, begun, log g1 (0,60], no log             => ProgressMissing
claim 1, no log, checkpoint 1@40                   => ProgressMissing
claim 1, begun, bad log                            => ProgressDamaged
bad log                                            => ProgressDamaged
claim 1, claim 2, begun, log g1 (0,60], checkpoint 1@61 => ProgressBehind
claim 1, begun, log g1 (0,0], checkpoint 1@20      => ProgressBehind
claim 1, begun, log g1 (0,60], checkpoint 1@20, checkpoint 2@90 => ProgressBehind

Outputs that lost committed content, or are not the recorded ones.

claim 1, begun, log g1 (0,60], file 9/8            => OutputShorter
claim 1, begun, log g1 (0,60], file -/8            => OutputUnknown
claim 1, begun, log g1 (0,0], file 7/3             => OutputShorter

State directory empty or another one: only all bindings from the start can replace it.

log g4 (0,60]                                      => start, replay 0..60, base 61, despite StateLost
claim 1, log g4 (0,60]                             => start, replay 0..60, base 61, despite StateLost
log g4 (20,60]                                     => NotRecoverable
log g4 (0,60], no log                              => ProgressMissing

A stale state directory copied back: it does not know the generation of the outputs.

claim 1, begun, log g4 (0,60]                      => start, replay 0..60, base 61, despite StateStale
claim 1, begun, log g4 (20,60], checkpoint 1@40    => checkpoint 1, replay 40..60, base 61, despite StateStale
claim 1, begun, log g4 (50,60], checkpoint 1@40    => NotRecoverable
claim 1, claim 5, begun, log g4 (50,60], checkpoint 1@40 => NotRecoverable
claim 4x, begun, log g4 (0,60]                     => OtherHistory

A binding missing between checkpoint and commit.

claim 1, begun, log g1 (20,60]                     => BindingMissing
claim 1, begun, log g1 (41,60], checkpoint 1@40    => BindingMissing
claim 1, begun, log g1 (40,60], checkpoint 1@40    => checkpoint 1, replay 40..60, base 61
";

const PLAN: u64 = 5;

fn facts(text: &str) -> Facts {
    let mut facts = Facts {
        plan_hash: PLAN,
        ..Facts::default()
    };
    for fact in text.split(", ").map(str::trim) {
        let (word, rest) = fact.split_once(' ').unwrap_or((fact, ""));
        match (word, rest) {
            ("begun", _) => facts.begun = true,
            ("append", _) => facts.append = true,
            ("claim", rest) => facts.claims.push(claim(rest)),
            ("checkpoint", rest) => facts.checkpoints.push(checkpoint(rest)),
            ("file", rest) => {
                let (recorded, found) = rest.split_once('/').expect("R/F");
                let output = OutputFacts {
                    path: "out/a".into(),
                    recorded: recorded.parse().ok(),
                    found: number(found),
                };
                facts
                    .shards
                    .last_mut()
                    .expect("a shard before")
                    .outputs
                    .push(output);
            }
            ("no" | "bad" | "log", rest) => {
                facts.shards.push(ShardFacts {
                    progress: progress(word, rest),
                    outputs: Vec::new(),
                });
            }
            other => panic!("{other:?} is no fact"),
        }
    }
    facts
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{text} is no number"))
}

fn claim(text: &str) -> ClaimFacts {
    let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let generation = number(digits);
    let says = match &text[digits.len()..] {
        "" => Some((30 + generation, PLAN, 1)),
        "x" => Some((99, PLAN, 1)),
        "p" => Some((30 + generation, PLAN + 1, 1)),
        "s" => Some((30 + generation, PLAN, 2)),
        "?" => None,
        other => panic!("{other} is no claim"),
    };
    ClaimFacts { generation, says }
}

fn checkpoint(text: &str) -> CheckpointFacts {
    let (position, rest) = text.split_once('@').expect("number@epoch");
    let (epoch, greatest) = rest.split_once('<').unwrap_or((rest, rest));
    CheckpointFacts {
        number: number(position),
        epoch: number(epoch),
        greatest_epoch: number(greatest),
    }
}

fn progress(word: &str, text: &str) -> Progress {
    match word {
        "no" => Progress::Absent,
        "bad" => Progress::Damaged {
            file: "out/.a-0.progress".into(),
            offset: 12,
            reason: "x".into(),
        },
        _ => {
            let (other_plan, text) = text.strip_prefix("p ").map_or((0, text), |rest| (1, rest));
            let (generation, span) = text.split_once(" (").expect("gN (after,upper]");
            let generation = number(&generation[1..]);
            let (after, upper) = span.trim_end_matches(']').split_once(',').expect("(after,upper]");
            let (after, upper) = (number(after), number(upper));
            Progress::Present {
                generation,
                nonce: 30 + generation,
                plan_hash: PLAN + other_plan,
                after,
                upper,
            }
        }
    }
}

/// The name of a reason's variant.
fn name(reason: &Reason) -> String {
    let text = format!("{reason:?}");
    text.split([' ', '{']).next().unwrap_or_default().to_owned()
}

fn text(decision: &Decision) -> String {
    match decision {
        Decision::Fresh => "Fresh".to_owned(),
        Decision::Refuse(reason) => name(reason),
        Decision::Resume(Resume {
            checkpoint,
            from,
            to,
            base,
            despite,
        }) => {
            let start = checkpoint.map_or("start".to_owned(), |number| format!("checkpoint {number}"));
            let despite = despite
                .as_ref()
                .map_or(String::new(), |reason| format!(", despite {}", name(reason)));
            format!("{start}, replay {from}..{to}, base {base}{despite}")
        }
    }
}

#[test]
fn every_case() {
    let cases: Vec<_> = CASES.lines().filter_map(|line| line.split_once("=>")).collect();
    assert!(cases.len() > 50, "the table was read");
    for (given, expected) in cases {
        let decision = decide(&facts(given.trim()));
        assert_eq!(text(&decision), expected.trim(), "{given}: {decision:?}");
    }
}

/// The line a person reads names what is wrong and ends without a stop.
#[test]
fn refusals_become_errors_of_their_kind() {
    let refusal = |given: &str| match decide(&facts(given)) {
        Decision::Refuse(reason) => Error::from(reason),
        other => panic!("{given} is not refused: {other:?}"),
    };
    let short = refusal("claim 1, begun, log g1 (0,60], file 9/8");
    assert_eq!(short.kind, Kind::StateDamaged);
    assert_eq!(
        short.message,
        "out/a has 8 bytes, less than the 9 that are committed; restore it"
    );
    assert_eq!(refusal("no log, file -/5").kind, Kind::Configuration);
    let damaged = refusal("bad log").message;
    assert!(
        damaged.contains("out/.a-0.progress") && damaged.contains("byte 12"),
        "{damaged}"
    );
}

//! The interval join against differential's `join` on the key, filtered by distance: it never forgets
//! anything.

use super::log::{Log, Shape, log, run_bare};
use super::{Random, Script, for_seeds, run, run_twin};
use crate::operators::Side;
use crate::operators::drive::Batch;
use crate::operators::interval_join::{Interval, IntervalJoin, Pair};
use crate::operators::late::{Refused, Timed};
use crate::time::Millis;
use differential_dataflow::consolidation::consolidate_updates;

type Out = Result<Pair<i64, i64>, (Side, Refused)>;

const INTERVAL: Interval = Interval { within: 10, grace: 4 };

fn draw(random: &mut Random, corrections: u64) -> (Log, Log, Script<Timed<i64>, Timed<i64>>) {
    let epochs = 1 + random.below(9);
    let late_at = |time| INTERVAL.late_at(time);
    let [left, right] = [(); 2].map(|()| {
        let ends = random.percent(50);
        let shape = Shape {
            epochs,
            values: 3,
            late_at: &late_at,
            ends,
            corrections,
        };
        log(random, &shape)
    });
    let script = Script {
        left: left.updates.clone(),
        right: right.updates.clone(),
        watermarks: left.marks(Side::Left).chain(right.marks(Side::Right)).collect(),
        epochs,
    };
    (left, right, script)
}

fn twin(left: &Log, right: &Log) -> Batch<Out> {
    let script = Script {
        left: left.updates.clone(),
        right: right.updates.clone(),
        watermarks: Vec::new(),
        epochs: 0,
    };
    let joined = run_twin(&script, |left, right| {
        left.map(|left| (left.key.clone(), left))
            .join(right.map(|right| (right.key.clone(), right)))
            .map(|(_, pair)| pair)
            .filter(|(left, right)| (left.time - right.time).abs() <= INTERVAL.within)
    });
    joined
        .into_iter()
        .map(|(pair, epoch, diff)| (Ok(pair), epoch, diff))
        .collect()
}

/// What the updates behind their own watermark give; the others stay in the log.
fn refusals(side: Side, log: &mut Log) -> Batch<Out> {
    let whole = std::mem::take(&mut log.updates);
    let mut refused = Vec::new();
    for (record, epoch, diff) in whole {
        let watermark = log.before(epoch);
        if record.time + INTERVAL.within + INTERVAL.grace <= watermark {
            refused.push((Err((side, Refused::new(record, watermark))), epoch, diff));
        } else {
            log.updates.push((record, epoch, diff));
        }
    }
    refused
}

#[test]
fn pairs_are_those_of_join() {
    for_seeds(|random| {
        let (left, right, script) = draw(random, 0);
        let got = run(|| IntervalJoin::new(INTERVAL), &script, random);
        assert_eq!(got, twin(&left, &right), "{script:?}");
    });
}

#[test]
fn corrections_behind_the_own_watermark_are_refused_and_all_else_is_forgotten_in_the_end() {
    for_seeds(|random| {
        let (mut left, mut right, script) = draw(random, 40);
        let refused = [refusals(Side::Left, &mut left), refusals(Side::Right, &mut right)].concat();
        let mut expected = [twin(&left, &right), refused].concat();
        consolidate_updates(&mut expected);
        let (got, rows) = run_bare(|| IntervalJoin::new(INTERVAL), &script, random);
        assert_eq!(got, expected, "{script:?}");
        let ended = |log: &Log| {
            log.watermarks
                .last()
                .is_some_and(|(_, watermark)| *watermark == Millis::MAX)
        };
        assert!(
            rows == 0 || !ended(&left) || !ended(&right),
            "{rows} rows of state after the end"
        );
    });
}

/// A record is kept until the watermark of the other side says that no partner can come, and not a moment
/// longer.
#[test]
fn a_record_is_forgotten_when_the_other_side_says_so() {
    let record = |time: Millis| Timed {
        time,
        origin: Default::default(),
        value: 0,
        key: "a".into(),
        hash: 7,
    };
    // 100 + 2 * 10 + 4: at 123 a partner at 110 is still on time, as 110 + 10 + 4 > 123; at 124 it is late.
    for (watermark, rows_left) in [(123, 1), (124, 0)] {
        for (side, other) in [(Side::Left, Side::Right), (Side::Right, Side::Left)] {
            let updates = |at| {
                if at == side {
                    vec![(record(100), 0, 1)]
                } else {
                    Vec::new()
                }
            };
            let script = Script {
                left: updates(Side::Left),
                right: updates(Side::Right),
                // The own watermark forgets nothing, however far it is.
                watermarks: vec![(0, side, Millis::MAX), (0, other, watermark)],
                epochs: 1,
            };
            let (got, rows) = run_bare(
                || IntervalJoin::<i64, i64>::new(INTERVAL),
                &script,
                &mut Random::new(1),
            );
            assert_eq!((got, rows), (Vec::new(), rows_left), "{side:?} {watermark}");
        }
    }
}

//! Tumbling windows against differential's `reduce` (as they change) and against a grouping of the whole log
//! (as they close). Refusals are held against the log's own watermarks.

use super::log::{Log, Shape, log, run_bare};
use super::{Random, Script, for_seeds, run, run_twin};
use crate::operators::Side;
use crate::operators::drive::Batch;
use crate::operators::late::{Refused, Timed};
use crate::operators::window::{Aggregate, Emit, Figures, Tumbling, Windows};
use crate::record::Text;
use crate::time::{Epoch, Millis};
use std::collections::BTreeMap;

type Out = Result<Aggregate, Refused>;

const CHANGES: Tumbling = Tumbling {
    size: 7,
    grace: 5,
    emit: Emit::Changes,
};
const FINAL: Tumbling = Tumbling {
    emit: Emit::Final,
    ..CHANGES
};

fn draw(random: &mut Random, corrections: u64) -> (Log, Script<Timed<i64>, ()>) {
    let epochs = 1 + random.below(9);
    // Some windows hold few distinct amounts, some more than fit a list.
    let values = *random.pick(&[3, 50]);
    let late_at = |time| CHANGES.closes(time);
    let ends = random.percent(50);
    let shape = Shape {
        epochs,
        values,
        late_at: &late_at,
        ends,
        corrections,
    };
    let log = log(random, &shape);
    let script = log.script(epochs);
    (log, script)
}

fn start(time: Millis) -> Millis {
    (time as f64 / CHANGES.size as f64).floor() as Millis * CHANGES.size
}

fn figures(amounts: &[(i64, i64)]) -> Option<Figures> {
    let count = amounts.iter().map(|(_, copies)| copies).sum();
    (count > 0).then(|| Figures {
        count,
        sum: amounts.iter().map(|(amount, copies)| amount * copies).sum(),
        min: amounts
            .iter()
            .map(|(amount, _)| *amount)
            .min()
            .expect("count > 0"),
        max: amounts
            .iter()
            .map(|(amount, _)| *amount)
            .max()
            .expect("count > 0"),
    })
}

fn twin_of_changes(log: &Log) -> Batch<Out> {
    let script = Script {
        left: log.updates.clone(),
        right: Batch::<()>::new(),
        watermarks: Vec::new(),
        epochs: 0,
    };
    let reduced = run_twin(&script, |measures, _| {
        measures
            .map(|measure| ((measure.key, start(measure.time)), measure.value))
            .reduce(|_, amounts, out: &mut Vec<(Figures, i64)>| {
                let amounts: Vec<_> = amounts
                    .iter()
                    .map(|(amount, copies)| (**amount, *copies))
                    .collect();
                out.extend(figures(&amounts).map(|figures| (figures, 1)));
            })
    });
    let row = |((key, start), figures)| Ok(Aggregate { key, start, figures });
    reduced
        .into_iter()
        .map(|(reduced, epoch, diff)| (row(reduced), epoch, diff))
        .collect()
}

fn twin_of_final(log: &Log) -> Batch<Out> {
    let mut windows = BTreeMap::<(Text, Millis), BTreeMap<i64, i64>>::new();
    for (measure, _, diff) in &log.updates {
        let window = windows
            .entry((measure.key.clone(), start(measure.time)))
            .or_default();
        *window.entry(measure.value).or_default() += diff;
    }
    let mut rows = Vec::new();
    for ((key, start), amounts) in windows {
        let amounts: Vec<_> = amounts.into_iter().filter(|(_, copies)| *copies != 0).collect();
        let closed = log.reaches(start + CHANGES.size + CHANGES.grace);
        if let (Some(epoch), Some(figures)) = (closed, figures(&amounts)) {
            rows.push((Ok(Aggregate { key, start, figures }), epoch, 1));
        }
    }
    rows
}

fn sorted(mut updates: Batch<Out>) -> Batch<Out> {
    differential_dataflow::consolidation::consolidate_updates(&mut updates);
    updates
}

#[test]
fn changes_are_those_of_reduce() {
    for_seeds(|random| {
        let (log, script) = draw(random, 0);
        let got = run(|| Windows::new(CHANGES), &script, random);
        assert_eq!(got, sorted(twin_of_changes(&log)), "{script:?}");
    });
}

#[test]
fn final_rows_are_those_of_the_grouped_log() {
    for_seeds(|random| {
        let (log, script) = draw(random, 0);
        let got = run(|| Windows::new(FINAL), &script, random);
        assert_eq!(got, sorted(twin_of_final(&log)), "{script:?}");
    });
}

#[test]
fn corrections_after_the_close_are_refused_and_reopen_nothing() {
    for_seeds(|random| {
        let (mut log, script) = draw(random, 40);
        let refused = log.take_refused(|time| CHANGES.closes(time));
        let ended = log.has_ended();
        for (tumbling, expected) in [(CHANGES, twin_of_changes(&log)), (FINAL, twin_of_final(&log))] {
            let (got, rows) = run_bare(|| Windows::new(tumbling), &script, random);
            assert_eq!(got, sorted([expected, refused.clone()].concat()), "{script:?}");
            assert!(rows == 0 || !ended, "{rows} rows of state after the end");
        }
    });
}

/// One key, one window, one amount after the other: a list that becomes a map, and back to nothing.
#[test]
fn a_window_of_many_amounts_is_exact_down_to_the_last() {
    let record = |offset: u64| Timed {
        time: 3,
        origin: crate::record::Origin { partition: 0, offset },
        value: (offset as i64 * 37) % 101,
        key: "a".into(),
        hash: 7,
    };
    let inserted = (0..100).map(|at| (record(at), at, 1));
    let retracted = (0..100).map(|at| (record(at), 100 + at, -1));
    let left: Batch<_> = inserted.chain(retracted).collect();
    let epochs: Epoch = 200;
    let log = Log {
        updates: left.clone(),
        watermarks: Vec::new(),
    };
    let script = Script {
        left,
        right: Vec::new(),
        watermarks: Vec::new(),
        epochs,
    };
    let (got, rows) = run_bare(|| Windows::new(CHANGES), &script, &mut Random::new(1));
    assert_eq!(got, sorted(twin_of_changes(&log)));
    assert_eq!(rows, 0, "a window whose count is 0 has no row");
}

#[test]
fn sums_are_clamped_and_extreme_settings_saturate() {
    let update = |time: Millis, value: i64| {
        let (origin, key, hash) = (Default::default(), Text::from("a"), 7);
        let record = Timed {
            time,
            origin,
            value,
            key,
            hash,
        };
        (record, 0, 1)
    };
    let latest = *crate::time::EVENT_TIMES.end();
    for size in [i64::MAX, 60_000, 0] {
        let tumbling = Tumbling {
            size,
            grace: i64::MAX,
            emit: Emit::Final,
        };
        let script = Script {
            left: vec![
                update(latest, i64::MAX),
                update(latest, i64::MAX),
                update(latest, 5),
            ],
            right: Vec::new(),
            watermarks: vec![(0, Side::Left, latest), (1, Side::Left, Millis::MAX)],
            epochs: 2,
        };
        let (got, _) = run_bare(|| Windows::new(tumbling), &script, &mut Random::new(1));
        let [(Ok(row), 1, 1)] = &got[..] else {
            panic!("one row, at the end: {got:?}")
        };
        assert_eq!((row.figures.count, row.figures.sum), (3, i64::MAX));
        assert_eq!((row.figures.min, row.figures.max), (5, i64::MAX));
    }
}

//! Neighbours against a sort: of the whole log for what is final, of everything so far after each epoch for
//! what is eager.

use super::log::{Log, Shape, log, run_bare};
use super::{Random, Script, for_seeds, run};
use crate::operators::Side;
use crate::operators::drive::Batch;
use crate::operators::late::{Refused, Timed};
use crate::operators::neighbours::{Emit, Found, Neighbours, Pattern};
use crate::time::{Epoch, Millis};
use differential_dataflow::consolidation::{consolidate, consolidate_updates};

type Out = Result<Found<i64>, Refused>;

const WITHIN: Millis = 12;

/// Records of 3 and more open the pattern. What closes it holds for some equal records too, so that copies
/// match.
fn opens(value: i64) -> bool {
    value >= 3
}

fn pattern(emit: Emit) -> Pattern<i64> {
    Pattern {
        opens: Box::new(|value| opens(*value)),
        closes: Box::new(|first, second| (first + second) % 3 != 1),
        within: WITHIN,
        emit,
    }
}

fn matches(first: &Timed<i64>, second: &Timed<i64>) -> bool {
    opens(first.value) && (first.value + second.value) % 3 != 1 && second.time - first.time < WITHIN
}

/// The watermark at which a record is late: it has passed the record's time.
fn late_at(time: Millis) -> Millis {
    time + 1
}

fn draw(random: &mut Random, corrections: u64) -> (Log, Script<Timed<i64>, ()>) {
    let epochs = 1 + random.below(9);
    let ends = random.percent(50);
    let shape = Shape {
        epochs,
        values: 9,
        late_at: &late_at,
        ends,
        corrections,
    };
    let log = log(random, &shape);
    let script = log.script(epochs);
    (log, script)
}

/// All records that are there after this epoch, every copy, by key and in the order of the key.
fn there(log: &Log, epoch: Epoch) -> Vec<Vec<Timed<i64>>> {
    let until = log.updates.iter().filter(|(_, at, _)| *at <= epoch);
    let mut records: Vec<_> = until.map(|(record, _, diff)| (record.clone(), *diff)).collect();
    consolidate(&mut records);
    let copies = records
        .into_iter()
        .flat_map(|(record, copies)| vec![record; copies as usize]);
    let mut copies: Vec<_> = copies.collect();
    copies.sort_by_key(|record| (record.key.clone(), record.time, record.origin, record.value));
    copies
        .chunk_by(|one, next| one.key == next.key)
        .map(<[_]>::to_vec)
        .collect()
}

fn twin_of_timeouts(log: &Log) -> Batch<Out> {
    let mut found = Vec::new();
    for records in there(log, Epoch::MAX) {
        for (at, record) in records.iter().enumerate() {
            let followed = records
                .get(at + 1)
                .is_some_and(|next| next.time < record.time + WITHIN);
            if opens(record.value)
                && !followed
                && let Some(epoch) = log.reaches(record.time + WITHIN)
            {
                found.push((Ok(Found::Timeout(record.clone())), epoch, 1));
            }
        }
    }
    found
}

fn twin_of_final(log: &Log) -> Batch<Out> {
    let mut found = Vec::new();
    for records in there(log, Epoch::MAX) {
        for pair in records.windows(2).filter(|pair| matches(&pair[0], &pair[1])) {
            let certain = log.reaches(pair[1].time + 1);
            let found_match = Ok(Found::Match(pair[0].clone(), pair[1].clone()));
            found.extend(certain.map(|epoch| (found_match, epoch, 1)));
        }
    }
    found
}

fn twin_of_eager(log: &Log, epochs: Epoch) -> Batch<Out> {
    let holding = |epoch: Epoch| {
        let mut holding = Vec::new();
        for records in there(log, epoch) {
            let pairs = records.windows(2).filter(|pair| matches(&pair[0], &pair[1]));
            holding.extend(pairs.map(|pair| Ok(Found::Match(pair[0].clone(), pair[1].clone()))));
        }
        holding
    };
    let mut changes = Vec::new();
    for epoch in 0..epochs {
        changes.extend(holding(epoch).into_iter().map(|found| (found, epoch, 1)));
        let before = epoch.checked_sub(1).map(holding).unwrap_or_default();
        changes.extend(before.into_iter().map(|found| (found, epoch, -1)));
    }
    changes
}

fn expected(log: &Log, emit: Emit, epochs: Epoch) -> Batch<Out> {
    let matches = match emit {
        Emit::Final => twin_of_final(log),
        Emit::Eager => twin_of_eager(log, epochs),
    };
    [matches, twin_of_timeouts(log)].concat()
}

#[test]
fn final_matches_and_timeouts_are_those_of_the_sorted_log() {
    for_seeds(|random| {
        let (log, script) = draw(random, 0);
        let mut expected = expected(&log, Emit::Final, script.epochs);
        consolidate_updates(&mut expected);
        let got = run(|| Neighbours::new(pattern(Emit::Final)), &script, random);
        assert_eq!(got, expected, "{script:?}");
    });
}

#[test]
fn eager_matches_are_the_differences_of_sorts() {
    for_seeds(|random| {
        let (log, script) = draw(random, 0);
        let mut expected = expected(&log, Emit::Eager, script.epochs);
        consolidate_updates(&mut expected);
        let got = run(|| Neighbours::new(pattern(Emit::Eager)), &script, random);
        assert_eq!(got, expected, "{script:?}");
    });
}

#[test]
fn corrections_of_what_is_final_are_refused_and_no_state_is_left_at_the_end() {
    for_seeds(|random| {
        let (mut log, script) = draw(random, 40);
        let refused = log.take_refused(late_at);
        let ended = log.has_ended();
        for emit in [Emit::Final, Emit::Eager] {
            let mut expected = [expected(&log, emit, script.epochs), refused.clone()].concat();
            consolidate_updates(&mut expected);
            let (got, rows) = run_bare(|| Neighbours::new(pattern(emit)), &script, random);
            assert_eq!(got, expected, "{emit:?} {script:?}");
            assert!(rows == 0 || !ended, "{rows} rows of state after the end");
        }
    });
}

/// The eager matches, added up, are the final ones once everything is final.
#[test]
fn eager_adds_up_to_final() {
    for_seeds(|random| {
        let (_, mut script) = draw(random, 0);
        script.watermarks.push((script.epochs, Side::Left, Millis::MAX));
        script.epochs += 1;
        let mut net = |emit| {
            let (got, _) = run_bare(|| Neighbours::new(pattern(emit)), &script, random);
            let mut net: Vec<_> = got.into_iter().map(|(found, _, diff)| (found, diff)).collect();
            consolidate(&mut net);
            net
        };
        assert_eq!(net(Emit::Eager), net(Emit::Final), "{script:?}");
    });
}

/// The state of a key is what is not final, and at most one final record that may still open a match.
#[test]
fn of_what_is_final_only_an_opening_last_record_is_kept() {
    let record = |time: Millis, value: i64| Timed {
        time,
        origin: Default::default(),
        value,
        key: "a".into(),
        hash: 7,
    };
    let script = |last: i64, watermark: Millis| Script {
        left: vec![
            (record(0, 3), 0, 1),
            (record(5, 0), 0, 1),
            (record(10, last), 0, 1),
        ],
        right: Vec::new(),
        watermarks: vec![(0, Side::Left, watermark)],
        epochs: 1,
    };
    // (the last value, watermark, rows left): not final at 10; final at 11; timed out at 22.
    for (last, watermark, left) in [
        (3, 10, 1),
        (3, 11, 1),
        (3, 21, 1),
        (3, 22, 0),
        (0, 10, 1),
        (0, 11, 0),
    ] {
        for emit in [Emit::Final, Emit::Eager] {
            let script = script(last, watermark);
            let (_, rows) = run_bare(|| Neighbours::new(pattern(emit)), &script, &mut Random::new(1));
            assert_eq!(rows, left, "{last} {watermark} {emit:?}");
        }
    }
}

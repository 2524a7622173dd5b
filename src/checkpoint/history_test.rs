//! Archives that break off anywhere, and choices against slow ones.

use super::super::binding::PartitionBinding;
use super::super::unreliable::{Random, Unreliable};
use super::*;

fn binding(epoch: Epoch) -> Binding {
    let partitions = vec![PartitionBinding {
        end: epoch,
        ..PartitionBinding::default()
    }];
    Binding {
        epoch,
        partitions,
        ..Binding::default()
    }
}

fn read(archived: &Archived, store: &dyn Store, above: Epoch) -> Result<Vec<Binding>> {
    let mut read = Vec::new();
    let all = archived.each(store, above, |binding| {
        read.push(binding);
        true
    })?;
    assert!(all);
    Ok(read)
}

fn memory() -> Arc<dyn Store> {
    store::open("memory:///").unwrap()
}

/// A job that archives, drops and dies as it likes: archive and progress together always hold every binding, once.
#[test]
fn nothing_is_dropped_that_is_not_archived() {
    let mut pieces = 0;
    for seed in 0..200 {
        let mut random = Random(seed);
        let inner = memory();
        let store: Arc<dyn Store> = Arc::new(Unreliable::new(inner.clone(), seed, 10));
        // What the progress of the shard holds.
        let (mut logged, mut after) = (Vec::<Binding>::new(), 0);
        let mut committed = 0;
        for _start in 0..5 {
            let Ok(mut archive) = Archive::open(store.clone(), 3, after, logged.iter()) else {
                continue;
            };
            for _step in 0..random.below(6) {
                let new: Vec<_> = (0..random.below(5))
                    .map(|n| binding(committed + 1 + 2 * n))
                    .collect();
                committed = new.last().map_or(committed, |last| last.epoch);
                logged.extend(new.clone());
                archive.committed(new);
                let oldest = random.below(committed + 2);
                if archive.archive(oldest).is_err() {
                    break;
                }
                // The progress drops it later, or never.
                if random.below(2) == 0 {
                    after = after.max(oldest.min(committed));
                    logged.retain(|binding| binding.epoch > after);
                }
            }
        }
        let archived = Archived::find(inner.as_ref(), 3, after).unwrap();
        assert_eq!(archived.reach, 0, "seed {seed}");
        let mut all = read(&archived, inner.as_ref(), 0).unwrap();
        let last = all.last().map_or(0, |last| last.epoch);
        all.extend(logged.into_iter().filter(|binding| binding.epoch > last));
        let epochs: Vec<_> = all.iter().map(|binding| binding.epoch).collect();
        assert!(
            epochs.windows(2).all(|pair| pair[0] < pair[1]),
            "seed {seed}: {epochs:?}"
        );
        assert_eq!(epochs.last().copied().unwrap_or(0), committed, "seed {seed}");
        let again = Archived::find(inner.as_ref(), 3, after).unwrap();
        let middle = committed / 2;
        let above = read(&again, inner.as_ref(), middle).unwrap();
        assert!(above.iter().all(|binding| binding.epoch > middle));
        pieces += archived.chain.len();
    }
    assert!(pieces > 500, "{pieces} pieces");
}

#[test]
fn a_gap_ends_the_chain() {
    let piece = |after, upper| Piece { upper, after };
    let all = [piece(0, 4), piece(4, 9), piece(12, 20), piece(20, 30)];
    assert_eq!(chain(&all, 30), [piece(20, 30), piece(12, 20)]);
    assert_eq!(chain(&all, 25), [piece(20, 30), piece(12, 20)]);
    assert_eq!(chain(&all, 9), [piece(4, 9), piece(0, 4)]);
    assert_eq!(chain(&all, 31), [], "the progress begins behind it");
}

#[test]
fn a_damaged_piece_is_named() {
    let store = memory();
    let mut archive = Archive::open(store.clone(), 0, 0, std::iter::empty()).unwrap();
    archive.committed([binding(1), binding(2)]);
    archive.archive(2).unwrap();
    let name = name(0, 0, 2);
    let mut bytes = store::fetch(store.as_ref(), &name).unwrap().unwrap();
    let archived = Archived::find(store.as_ref(), 0, 2).unwrap();
    assert_eq!(
        read(&archived, store.as_ref(), 0).unwrap(),
        [binding(1), binding(2)]
    );
    assert!(
        !archived
            .each(store.as_ref(), 0, |binding| binding.epoch > 1)
            .unwrap()
    );
    *bytes.last_mut().unwrap() ^= 1;
    store.delete(&name).unwrap();
    store.put_new(&name, &bytes).unwrap();
    let error = read(&archived, store.as_ref(), 0).unwrap_err();
    assert!(
        error.kind == Kind::StateDamaged && error.message.contains(&name),
        "{error}"
    );
}

/// Between two milestones no checkpoint is an interval later than the first of them.
#[test]
fn milestones_are_an_interval_apart() {
    for seed in 0..200 {
        let mut random = Random(seed);
        let mut time = None;
        let times: Vec<_> = (1..40)
            .map(|number| {
                if random.below(3) > 0 {
                    time = Some(time.unwrap_or(0) + random.below(300) as i64);
                }
                (number, time)
            })
            .collect();
        let kept = milestones(times.iter().copied(), 500);
        assert!(kept.contains(&1));
        let mut last = None;
        for (number, time) in times {
            if kept.contains(&number) {
                assert!(last.flatten().is_none_or(|last| time.unwrap() - last >= 500));
                last = Some(time);
            } else {
                let close =
                    |last: Option<i64>| time.map_or(0, |time| time - last.unwrap_or(i64::MIN / 2)) < 500;
                assert!(last.is_some_and(close), "seed {seed}: {number} is missing");
            }
        }
    }
}

/// The slow way: every checkpoint tried, newest first.
#[test]
fn the_newest_usable_checkpoint_before_the_time_is_chosen() {
    for seed in 0..2_000 {
        let mut random = Random(seed);
        let (mut epoch, mut time) = (0, None);
        let mut checkpoints = Vec::new();
        for number in 1..=random.below(8) {
            epoch += 1 + random.below(5);
            if random.below(4) > 0 {
                time = Some(time.unwrap_or(0) + random.below(30) as i64);
            }
            checkpoints.push((number, epoch, time));
        }
        let reach = random.below(3) * random.below(12);
        let from = (random.below(5) > 0).then(|| random.below(120) as i64);
        let mut slow = None;
        for (number, epoch, time) in &checkpoints {
            if *epoch >= reach && from.is_some_and(|from| time.unwrap_or(-1) < from) {
                slow = Some(Choice::Checkpoint(*number));
            }
        }
        let slow = slow.unwrap_or_else(|| {
            let usable = checkpoints.iter().find(|(_, epoch, _)| *epoch >= reach);
            match reach {
                0 => Choice::Beginning,
                _ => Choice::TooEarly(usable.map(|(_, _, time)| time.map_or(0, |time| time + 1))),
            }
        });
        let chosen = choose(from, reach, &checkpoints);
        assert_eq!(chosen, slow, "seed {seed}: {from:?}, {reach}, {checkpoints:?}");
        // What it names would do.
        if let Choice::TooEarly(Some(earliest)) = chosen {
            let then = choose(Some(earliest), reach, &checkpoints);
            assert!(matches!(then, Choice::Checkpoint(_)), "seed {seed}");
        }
    }
}

/// The slow way: the time of every epoch, then those within the span.
#[test]
fn a_window_is_the_epochs_whose_time_lies_in_it() {
    for seed in 0..1_000 {
        let mut random = Random(seed);
        let mut end = || (random.below(4) > 0).then(|| random.below(100) as i64);
        let (from, to) = (end(), end());
        let (mut epoch, mut bindings) = (0, Vec::new());
        for _ in 0..random.below(30) {
            epoch += 1 + random.below(3);
            let mut binding = binding(epoch);
            binding.partitions[0].greatest = (random.below(3) > 0).then(|| random.below(100) as i64);
            bindings.push(binding);
        }
        let time = |upto: usize| {
            bindings[..=upto]
                .iter()
                .filter_map(|b| b.partitions[0].greatest)
                .max()
        };
        let at_or_after = |upto: usize, end: i64| time(upto).unwrap_or(-1) >= end;
        let find = |wanted: &dyn Fn(usize) -> bool| {
            (0..bindings.len())
                .find(|at| wanted(*at))
                .map(|at| bindings[at].epoch)
        };
        let first = find(&|at| from.is_none_or(|from| at_or_after(at, from)));
        let end = find(&|at| to.is_some_and(|to| at_or_after(at, to)));
        let mut window = Window {
            from,
            to,
            ..Window::default()
        };
        bindings.iter().for_each(|binding| window.observe(binding));
        assert_eq!((window.first, window.end), (first, end), "seed {seed}");
    }
}

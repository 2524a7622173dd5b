//! Checkpoints against a model: whatever fails, what is restored is exactly the state of the manifest it is
//! named by.

use super::super::start::{self, Plan, Start};
use super::super::unreliable::{Random, Unreliable};
use super::super::{decide, store};
use super::*;
use std::collections::BTreeMap;

const PLAN: u64 = 5;

/// The state of one job, epoch by epoch: what an operator would hold.
#[derive(Default)]
struct Model {
    states: BTreeMap<Epoch, BTreeMap<u64, u64>>,
}

impl Model {
    /// The next epoch: some keys are set, some removed.
    fn step(&mut self, random: &mut Random, changes: u64, keys: u64) -> Epoch {
        let (last, mut state) = self
            .states
            .last_key_value()
            .map_or((0, BTreeMap::new()), |(epoch, state)| (*epoch, state.clone()));
        for _ in 0..changes {
            let key = random.below(keys);
            match random.below(4) {
                0 => state.remove(&key),
                _ => state.insert(key, random.number()),
            };
        }
        let epoch = last + 1 + random.below(3);
        self.states.insert(epoch, state);
        epoch
    }

    fn at(&self, epoch: Epoch) -> BTreeMap<u64, u64> {
        self.states.get(&epoch).cloned().unwrap_or_default()
    }

    /// The rows that differ between two epochs, as an operator reports them.
    fn changed(&self, from: Epoch, to: Epoch) -> Vec<StateRow> {
        let (before, after) = (self.at(from), self.at(to));
        let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        let differing = keys.into_iter().filter(|key| before.get(key) != after.get(key));
        differing.map(|key| row(*key, after.get(key).copied())).collect()
    }
}

fn row(key: u64, value: Option<u64>) -> StateRow {
    let bytes = |number: u64| number.to_be_bytes().into();
    StateRow {
        operator: 0,
        hash: key.wrapping_mul(0x9E37_79B9),
        key: bytes(key),
        value: value.map(bytes),
    }
}

fn state(rows: &Rows) -> BTreeMap<u64, u64> {
    let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
    let pair = |row: &StateRow| (number(&row.key), number(row.value.as_ref().unwrap()));
    rows.iter().flatten().map(pair).collect()
}

/// A start whose one output shard has committed `upper`, with all bindings above `after`.
fn started(store: &Arc<dyn Store>, after: Epoch, upper: Epoch, last: Option<&Claim>) -> Result<Start> {
    let progress = match last {
        None => decide::Progress::Absent,
        Some(claim) => {
            let Claim {
                generation,
                nonce,
                plan_hash,
                ..
            } = *claim;
            decide::Progress::Present {
                generation,
                nonce,
                plan_hash,
                after,
                upper,
            }
        }
    };
    let facts = vec![decide::ShardFacts {
        progress,
        outputs: Vec::new(),
    }];
    let plan = Plan {
        plan_hash: PLAN,
        shards: vec![vec![]],
        append: false,
        ..Plan::default()
    };
    let start = start::start(store.as_ref(), &plan, facts, None)?;
    start::claim(store.as_ref(), &start.claim)?;
    start::begin(store.as_ref(), &start.claim)?;
    Ok(start)
}

fn series(store: &Arc<dyn Store>, start: Start) -> Result<Series> {
    Series::new(
        store.clone(),
        &start.claim,
        vec!["operator".into()],
        start.kept,
        start.next,
        None,
    )
}

fn memory() -> Arc<dyn Store> {
    store::open("memory:///").unwrap()
}

fn greatest_won(store: &Arc<dyn Store>) -> Option<Epoch> {
    let manifests = manifest::all(store.as_ref()).unwrap();
    manifests
        .iter()
        .filter_map(|(_, manifest)| manifest.as_ref().ok())
        .map(|manifest| manifest.epoch)
        .max()
}

/// Every write, list, read and delete may fail in any of the four ways; a failure ends the generation.
#[test]
fn restored_state_is_that_of_the_greatest_manifest_won() {
    let (mut restarts, mut checkpoints) = (0, 0);
    for seed in 0..250 {
        let mut random = Random(seed);
        let inner = memory();
        let unreliable: Arc<dyn Store> = Arc::new(Unreliable::new(inner.clone(), seed, 4 + seed % 12));
        let mut model = Model::default();
        let (mut upper, mut last): (Epoch, Option<Claim>) = (0, None);
        let mut after = 0;
        for _generation in 0..6 {
            let expected = greatest_won(&inner);
            let start = match started(&unreliable, after, upper, last.as_ref()) {
                Ok(start) => start,
                Err(error) => {
                    assert_ne!(
                        error.kind,
                        Kind::AnotherInstance,
                        "seed {seed}: alone here: {error}"
                    );
                    continue;
                }
            };
            restarts += 1;
            assert_eq!(start.resume.from, expected.unwrap_or(0), "seed {seed}");
            assert_eq!(state(&start.rows), model.at(start.resume.from), "seed {seed}");
            assert!(start.resume.base > upper, "seed {seed}");
            let mut from = start.resume.from;
            last = Some(start.claim.clone());
            let mut series = series(&unreliable, start).unwrap();
            for _ in 0..5 {
                upper = model.step(&mut random, 12, 200);
                let rows = model.changed(from, upper);
                let done = series
                    .write(upper, upper, rows, Positions::new([]))
                    .and_then(|()| series.collect());
                if let Err(error) = done {
                    assert_ne!(
                        error.kind,
                        Kind::AnotherInstance,
                        "seed {seed}: alone here: {error}"
                    );
                    break;
                }
                from = upper;
                after = series.oldest();
                checkpoints += 1;
            }
        }
        let start = started(&inner, after, upper, last.as_ref()).unwrap();
        assert_eq!(
            state(&start.rows),
            model.at(greatest_won(&inner).unwrap_or(0)),
            "seed {seed}, at the end"
        );
    }
    assert!(
        restarts > 500 && checkpoints > 1_000,
        "{restarts} restarts, {checkpoints} checkpoints"
    );
}

/// A flipped bit or a lost object costs checkpoints, never a wrong row.
#[test]
fn damage_falls_back_or_refuses() {
    let (mut newest, mut older, mut refused) = (0, 0, 0);
    for seed in 0..200 {
        let mut random = Random(seed);
        let store = memory();
        let mut model = Model::default();
        let start = started(&store, 0, 0, None).unwrap();
        let claim = start.claim.clone();
        let mut series = series(&store, start).unwrap();
        let (mut from, mut epochs) = (0, vec![]);
        for step in 0..6 {
            let epoch = model.step(&mut random, if step == 0 { 100 } else { 3 }, 400);
            series
                .write(epoch, epoch, model.changed(from, epoch), Positions::new([]))
                .unwrap();
            series.collect().unwrap();
            epochs.push(epoch);
            from = epoch;
        }
        let folder = ["chunks", "manifests"][random.below(2) as usize];
        let names = store.list(folder).unwrap();
        let name = format!("{folder}/{}", names[random.below(names.len() as u64) as usize]);
        let mut bytes = store.get(&name).unwrap().unwrap();
        store.delete(&name).unwrap();
        if random.below(2) == 0 {
            let bit = random.below(bytes.len() as u64 * 8) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
            store.put_new(&name, &bytes).unwrap();
        }
        match started(&store, series.oldest(), from, Some(&claim)) {
            Ok(start) => {
                let position = epochs
                    .iter()
                    .position(|epoch| *epoch == start.resume.from)
                    .unwrap();
                assert!(position >= epochs.len() - CHECKPOINTS_KEPT, "seed {seed}");
                assert_eq!(state(&start.rows), model.at(start.resume.from), "seed {seed}");
                *(if start.resume.from == from {
                    &mut newest
                } else {
                    &mut older
                }) += 1;
            }
            Err(error) => {
                assert_eq!(error.kind, Kind::StateDamaged, "seed {seed}: {error}");
                refused += 1;
            }
        }
    }
    assert!(
        newest > 10 && older > 10 && refused > 10,
        "{newest} newest, {older} older, {refused} refused"
    );
}

/// After falling back, the next checkpoint builds on the one that was restored, and the damaged one goes.
#[test]
fn checkpoint_after_a_fallback_is_sound() {
    let store = memory();
    let mut random = Random(7);
    let mut model = Model::default();
    let start = started(&store, 0, 0, None).unwrap();
    let claim = start.claim.clone();
    let mut series_before = series(&store, start).unwrap();
    let mut epochs = vec![0];
    for _ in 0..3 {
        let epoch = model.step(&mut random, 20, 100);
        let rows = model.changed(epochs[epochs.len() - 1], epoch);
        series_before
            .write(epoch, epoch, rows, Positions::new([]))
            .unwrap();
        epochs.push(epoch);
    }
    store.delete(&manifest::name(3)).unwrap();
    store.put_new(&manifest::name(3), b"torn").unwrap();
    let start = started(&store, 0, epochs[3], Some(&claim)).unwrap();
    assert_eq!((start.resume.from, start.next), (epochs[2], 4));
    let mut series_after = series(&store, start).unwrap();
    let epoch = model.step(&mut random, 20, 100);
    series_after
        .write(epoch, epoch, model.changed(epochs[2], epoch), Positions::new([]))
        .unwrap();
    series_after.collect().unwrap();
    assert_eq!(store::numbers(store.as_ref(), "manifests").unwrap(), [1, 2, 4]);
    let rows = load(store.as_ref(), series_after.newest().unwrap())
        .unwrap()
        .unwrap();
    assert_eq!(state(&rows), model.at(epoch));
}

/// Forty small checkpoints on a large base: bytes written follow the changes, and garbage goes.
#[test]
fn checkpoints_are_incremental() {
    let store = memory();
    let start = started(&store, 0, 0, None).unwrap();
    let mut series = series(&store, start).unwrap();
    let base: Vec<_> = (0..50_000).map(|key| row(key, Some(key))).collect();
    series.write(1, 1, base, Positions::new([])).unwrap();
    let base_bytes = series.bytes_written();
    for epoch in 2..42 {
        let rows = (0..50)
            .map(|number| row(number * 997 % 50_000, Some(epoch)))
            .collect();
        series.write(epoch, epoch, rows, Positions::new([])).unwrap();
        series.collect().unwrap();
    }
    let written = series.bytes_written() - base_bytes;
    assert!(
        written < base_bytes / 4,
        "{written} bytes for 2 000 changed rows, base {base_bytes}"
    );
    let chunks = store.list("chunks").unwrap().len();
    let named: BTreeSet<_> = series
        .kept
        .iter()
        .flat_map(|(_, manifest)| manifest.shards.iter().flatten())
        .map(|c| &c.name)
        .collect();
    assert_eq!(chunks, named.len(), "no chunk is left that no manifest names");
    assert!(
        series
            .newest()
            .unwrap()
            .shards
            .iter()
            .all(|chunks| chunks.len() <= 12),
        "few chunks per shard"
    );
}

#[test]
fn removing_everything_leaves_nothing() {
    let store = memory();
    let start = started(&store, 0, 0, None).unwrap();
    let mut series = series(&store, start).unwrap();
    series
        .write(
            1,
            1,
            (0..100).map(|key| row(key, Some(key))).collect(),
            Positions::new([]),
        )
        .unwrap();
    series
        .write(
            2,
            2,
            (0..100).map(|key| row(key, None)).collect(),
            Positions::new([]),
        )
        .unwrap();
    assert_eq!(series.newest().unwrap().bytes(), 0);
    assert!(state(&load(store.as_ref(), series.newest().unwrap()).unwrap().unwrap()).is_empty());
}

#[test]
fn other_operators_are_refused() {
    let store = memory();
    let start = started(&store, 0, 0, None).unwrap();
    let claim = start.claim.clone();
    let mut series = series(&store, start).unwrap();
    series
        .write(1, 1, vec![row(1, Some(1))], Positions::new([]))
        .unwrap();
    let refused = Series::new(store, &claim, vec!["other".into()], series.kept, 2, None)
        .err()
        .unwrap();
    assert_eq!(refused.kind, Kind::StateDamaged);
}

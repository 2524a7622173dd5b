//! The whole protocol under SIGKILL: a small job with state, checkpoints and files, killed at every crash
//! point, twice in a row, and started again until it is done. Its files must equal those of a run that nobody
//! disturbed.
//!
//! The job counts keys: its output depends on its state, and how epochs are cut differs from generation to
//! generation, so that a lost binding, a wrong restore or an output that is not cut back shows.

use super::committer;
use super::files::{CONTROL_ARM, Files, Shard, observe};
use super::{Rows, SealedEpoch};
use crate::checkpoint::binding::{Binding, PartitionBinding, Positions};
use crate::checkpoint::checkpointer::{self, Event, Marks};
use crate::checkpoint::row::StateRow;
use crate::checkpoint::series::Series;
use crate::checkpoint::start::{self, Plan, Start};
use crate::checkpoint::{lock, store};
use crate::crash;
use crate::error::Result;
use crate::record::Rank;
use crate::scratch::Scratch;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::channel;

/// Where the child works.
const DIRECTORY: &str = "TIDEGATE_TEST_DIRECTORY";

/// Records of the one input partition; record n has key n % KEYS.
const RECORDS: u64 = 90;
const KEYS: u64 = 7;

/// The counts, and which of them changed since the last cut.
#[derive(Default)]
struct Counts {
    counts: BTreeMap<u64, u64>,
    changed: BTreeSet<u64>,
}

impl Counts {
    fn restored(rows: &[Vec<StateRow>]) -> Self {
        let number = |bytes: &[u8]| postcard::from_bytes::<u64>(bytes).unwrap();
        let pair = |row: &StateRow| (number(&row.key), number(row.value.as_ref().unwrap()));
        Counts {
            counts: rows.iter().flatten().map(pair).collect(),
            changed: BTreeSet::new(),
        }
    }

    /// The epoch of these records.
    fn epoch(&mut self, binding: Binding) -> SealedEpoch {
        let mut rows = [Rows::new(0), Rows::new(1)];
        for record in binding
            .partitions
            .iter()
            .flat_map(|partition| partition.start..partition.end)
        {
            let key = record % KEYS;
            let count = self.counts.entry(key).or_default();
            *count += 1;
            self.changed.insert(key);
            let line = format!("{{\"record\":{record},\"key\":{key},\"count\":{count}}}\n");
            let encode = |bytes: &mut Vec<u8>| -> Result<()> {
                bytes.extend_from_slice(line.as_bytes());
                Ok(())
            };
            rows[(key % 2) as usize].push(Rank(record, 0, 0), encode).unwrap();
        }
        SealedEpoch {
            epoch: binding.epoch,
            rows: rows.to_vec(),
            binding,
        }
    }

    fn cut(&mut self) -> Vec<StateRow> {
        let bytes = |number: u64| postcard::to_stdvec(&number).unwrap().into_boxed_slice();
        let row = |key| StateRow {
            operator: 0,
            hash: key,
            key: bytes(key),
            value: Some(bytes(self.counts[&key])),
        };
        std::mem::take(&mut self.changed).into_iter().map(row).collect()
    }
}

fn run(directory: &Path) -> Result<()> {
    let state = directory.join("state");
    let _held = lock::lock_state(&state)?;
    let store = store::open(&state.to_string_lossy())?;
    let outputs = vec![
        (0, directory.join("even.jsonl")),
        (1, directory.join("odd.jsonl")),
    ];
    let found = observe(&Shard {
        job: "counts".into(),
        shard: 0,
        root: directory.to_path_buf(),
        outputs,
    })?;
    let plan = Plan {
        plan_hash: 1,
        shards: vec![vec!["even.jsonl".into(), "odd.jsonl".into()]],
        append: false,
        ..Plan::default()
    };
    let start = start::start(store.as_ref(), &plan, vec![found.facts()], None)?;
    let replay = start::replayed(&start.resume, found.bindings());
    start::claim(store.as_ref(), &start.claim)?;
    let files = found.open(&start.claim, start.fresh)?;
    start::begin(store.as_ref(), &start.claim)?;
    go_on(store, start, replay, files)
}

fn go_on(store: Arc<dyn store::Store>, start: Start, replay: Vec<Binding>, files: Files) -> Result<()> {
    let mut counts = Counts::restored(&start.rows);
    let mut positions = start.positions().cloned().unwrap_or_else(|| Positions::new([0]));
    let (resume, claim) = (start.resume, start.claim);
    let series = Series::new(store, &claim, vec!["counts".into()], start.kept, start.next, None)?;
    let marks = Arc::new(Marks::default());
    let (told, written) = channel();
    let told = Box::new(move |result: Result<checkpointer::Written, &_>| {
        let _ = told.send(result.is_ok());
    });
    let checkpointer = checkpointer::spawn(series, 1, positions.clone(), vec![Arc::clone(&marks)], told)?;
    let events = checkpointer.events();
    let commits = checkpointer.events();
    let told: committer::Told = Box::new(move |_| drop(commits.send(Event::Committed)));
    let committer = committer::spawn("committer-0", Box::new(files), 1_000, marks, told)?;

    let last = replay.len();
    let mut replay = replay.into_iter();
    let mut position = positions.partitions[0]
        .get(&0)
        .map_or(0, |partition| partition.offset);
    let mut epoch = resume.base;
    for step in 1.. {
        let binding = match replay.next() {
            Some(binding) => binding,
            None if position >= RECORDS => break,
            None => {
                let end = RECORDS.min(position + 1 + claim.generation % 4);
                let partition = PartitionBinding {
                    start: position,
                    end,
                    ..Default::default()
                };
                epoch += 1;
                Binding {
                    epoch,
                    partitions: vec![partition],
                    ..Binding::default()
                }
            }
        };
        if step <= last {
            crash::point("during-replay");
        }
        positions.apply(&binding);
        position = positions.partitions[0][&0].offset;
        let (epoch, _) = (binding.epoch, drop(events.send(Event::Bound(binding.clone()))));
        committer.queue().seal(counts.epoch(binding))?;
        if step % 5 == 0 {
            let rows = counts.cut();
            drop(events.send(Event::Changed {
                worker: 0,
                epoch,
                rows,
            }));
            let _ = written.recv();
        }
    }
    drop(events);
    committer.finish()?;
    checkpointer.finish()
}

/// Run in a process of its own by the tests below; alone it does nothing.
#[test]
fn child_counts() {
    if let Ok(directory) = std::env::var(DIRECTORY) {
        run(Path::new(&directory)).unwrap();
    }
}

/// Runs the job until it ends by itself, armed with these points one start after the other; gives the kills.
fn disturbed(directory: &Path, points: &[String], control_arm: bool) -> usize {
    let mut kills = 0;
    for at in points.iter().map(Some).chain([None]) {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .args(["--exact", "sink::kill_test::child_counts"])
            .env(DIRECTORY, directory);
        at.map(|at| child.env(crash::VARIABLE, at));
        if control_arm {
            child.env(CONTROL_ARM, "1");
        }
        let output = child.output().unwrap();
        if !output.status.success() {
            assert_eq!(
                output.status.code(),
                None,
                "{at:?}: {}",
                String::from_utf8_lossy(&output.stdout)
            );
            kills += 1;
        }
    }
    kills
}

fn contents(directory: &Path) -> [Vec<u8>; 2] {
    ["even.jsonl", "odd.jsonl"].map(|name| std::fs::read(directory.join(name)).unwrap())
}

fn undisturbed() -> [Vec<u8>; 2] {
    let scratch = Scratch::new();
    assert_eq!(disturbed(scratch.path(), &[], false), 0);
    let contents = contents(scratch.path());
    let lines = contents.iter().flatten().filter(|byte| **byte == b'\n').count();
    assert_eq!(lines as u64, RECORDS);
    contents
}

#[test]
fn killed_at_every_point_it_ends_with_the_same_files() {
    let expected = undisturbed();
    for point in crash::POINTS {
        // First somewhere in the middle, then early in the restart: during a restore, and a restore of a
        // restore.
        let points: Vec<_> = ["after-manifest:2", "1", "3", "1", "2"]
            .map(|nth| format!("{point}:{nth}"))
            .into();
        let points = [&["after-manifest:2".to_owned()][..], &points[1..]].concat();
        let scratch = Scratch::new();
        let kills = disturbed(scratch.path(), &points, false);
        assert!(kills >= 2, "{point} was passed by: {kills} kills");
        assert!(contents(scratch.path()) == expected, "{point}: the files differ");
    }
}

/// Without the tie between data and progress the same kills show, or the test above proves nothing.
#[test]
fn control_arm_shows_differences() {
    let expected = undisturbed();
    let scratch = Scratch::new();
    disturbed(
        scratch.path(),
        &["after-data:2".to_owned(), "before-progress:3".to_owned()],
        true,
    );
    assert!(contents(scratch.path()) != expected, "duplicates are seen");
}

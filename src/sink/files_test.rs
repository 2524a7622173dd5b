//! Crash images: a file is append-only, so every image a crash may leave is a cut of what an undisturbed run
//! wrote.

use super::super::Rows;
use super::*;
use crate::checkpoint::binding::PartitionBinding;
use crate::checkpoint::start::{self, Plan, Start};
use crate::checkpoint::store;
use crate::checkpoint::unreliable::Random;
use crate::error::Kind;
use crate::record::Rank;
use crate::scratch::Scratch;
use rustix::process::{Resource, Rlimit, setrlimit};
use std::process::Command;

const PLAN: u64 = 5;

fn shard(directory: &Path) -> Shard {
    let outputs = vec![
        (0, directory.join("email.jsonl")),
        (2, directory.join("sub/sms.jsonl")),
    ];
    Shard {
        job: "job".into(),
        shard: 0,
        root: directory.to_path_buf(),
        outputs,
    }
}

/// The epoch's rows and binding, a function of its number alone.
fn sealed(epoch: Epoch) -> SealedEpoch {
    let mut random = Random(epoch);
    let mut rows = [Rows::new(0), Rows::new(2)];
    for number in 0..random.below(5) {
        let text = "x".repeat(random.below(30) as usize);
        let rows = &mut rows[random.below(2) as usize];
        rows.push(Rank(number, 0, 0), |bytes| {
            bytes.extend_from_slice(format!("{{\"epoch\":{epoch},\"text\":\"{text}\"}}\n").as_bytes());
            Ok::<(), ()>(())
        })
        .unwrap();
    }
    let partitions = vec![PartitionBinding {
        start: 10 * epoch,
        end: 10 * epoch + 10,
        ..Default::default()
    }];
    SealedEpoch {
        epoch,
        rows: rows.to_vec(),
        binding: Binding {
            epoch,
            partitions,
            ..Binding::default()
        },
    }
}

/// A start on this directory, up to open outputs.
fn started(directory: &Path, append: bool) -> Result<(Start, Vec<Binding>, Files)> {
    let store = store::open(&directory.join("state").to_string_lossy())?;
    let found = observe(&shard(directory))?;
    let plan = Plan {
        plan_hash: PLAN,
        shards: vec![vec!["email.jsonl".into()]],
        append,
        ..Plan::default()
    };
    let start = start::start(store.as_ref(), &plan, vec![found.facts()], None)?;
    let replay = start::replayed(&start.resume, found.bindings());
    start::claim(store.as_ref(), &start.claim)?;
    let files = found.open(&start.claim, start.fresh)?;
    start::begin(store.as_ref(), &start.claim)?;
    Ok((start, replay, files))
}

fn contents(directory: &Path) -> Vec<Vec<u8>> {
    let paths = shard(directory).outputs.into_iter();
    paths.map(|(_, path)| std::fs::read(path).unwrap()).collect()
}

fn lengths(directory: &Path) -> Vec<u64> {
    let paths = shard(directory).outputs.into_iter().map(|(_, path)| path);
    paths
        .chain([shard(directory).log_path()])
        .map(|path| path.metadata().unwrap().len())
        .collect()
}

/// Commits the epochs in groups; gives the lengths of outputs and log before, and after each group.
fn commit(files: &mut Files, directory: &Path, groups: &[Vec<Epoch>]) -> Vec<Vec<u64>> {
    let mut steps = vec![lengths(directory)];
    for group in groups {
        files.commit(group.iter().copied().map(sealed).collect()).unwrap();
        steps.push(lengths(directory));
    }
    steps
}

#[test]
fn every_crash_image_recovers_to_a_prefix_and_goes_on() {
    let whole = Scratch::new();
    let groups: Vec<Vec<Epoch>> = vec![vec![1, 2], vec![3], vec![5, 6, 9], vec![10], vec![11, 12]];
    let steps = {
        let (start, _, mut files) = started(whole.path(), false).unwrap();
        assert!(start.fresh);
        commit(&mut files, whole.path(), &groups)
    };
    let expected = contents(whole.path());
    let state = whole.path().join("state");
    let log = std::fs::read(shard(whole.path()).log_path()).unwrap();
    let mut torn = 0;
    for seed in 0..200 {
        let mut random = Random(seed);
        let step = random.below(groups.len() as u64) as usize;
        let (before, after) = (&steps[step], &steps[step + 1]);
        let mut between = |file: usize| before[file] + random.below(after[file] - before[file] + 1);
        // While data is written the log has not grown; while the record is written the data is on disk.
        let mut image = [between(0), between(1), before[2]];
        if seed % 2 == 0 {
            image = [after[0], after[1], between(2)];
        }
        let scratch = Scratch::new();
        let own = shard(scratch.path());
        copy(&state, &scratch.path().join("state"));
        std::fs::create_dir_all(scratch.path().join("sub")).unwrap();
        for ((content, length), (_, path)) in expected.iter().zip(image).zip(&own.outputs) {
            let mut bytes = content[..length as usize].to_vec();
            // What a file system has given a file and not yet filled reads as zeros.
            if seed % 3 == 0 && seed % 2 == 1 {
                bytes.extend_from_slice(&[0; 100]);
            }
            std::fs::write(path, bytes).unwrap();
        }
        std::fs::write(own.log_path(), &log[..image[2] as usize]).unwrap();
        torn += usize::from(image[2] != before[2] && image[2] != after[2]);

        let (start, replay, mut files) = started(scratch.path(), false).unwrap();
        let done = step + usize::from(image[2] == after[2]);
        let committed = groups[..done].concat();
        assert_eq!(
            files.committed(),
            committed.last().copied().unwrap_or(0),
            "seed {seed}"
        );
        assert_eq!(
            lengths(scratch.path())[..2],
            steps[done][..2],
            "seed {seed}: cut back to a prefix"
        );
        assert_eq!(
            replay,
            committed.iter().map(|e| sealed(*e).binding).collect::<Vec<_>>(),
            "seed {seed}"
        );
        assert!(start.resume.base > files.committed());
        // A replay comes to the committed epochs again; they are passed over.
        let again: Vec<_> = groups.concat().into_iter().map(sealed).collect();
        files.commit(again).unwrap();
        assert_eq!(contents(scratch.path()), expected, "seed {seed}");
    }
    assert!(torn > 50, "{torn} torn records");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[test]
fn users_own_content_is_kept_or_refused() {
    let scratch = Scratch::new();
    let path = scratch.path().join("email.jsonl");
    std::fs::write(&path, "mine\n").unwrap();
    let refused = started(scratch.path(), false).err().unwrap();
    assert_eq!(refused.kind, Kind::Configuration);
    assert!(refused.message.contains("email.jsonl"), "{refused}");
    drop(started(scratch.path(), true).unwrap());
    let (_, _, mut files) = started(scratch.path(), false).expect("it was consented to");
    files.commit((1..9).map(sealed).collect()).unwrap();
    drop(files);
    let found = contents(scratch.path());
    assert!(found[0].starts_with(b"mine\n{"), "kept");
}

#[test]
fn shorter_output_and_damaged_log_are_refused() {
    let scratch = Scratch::new();
    let (_, _, mut files) = started(scratch.path(), false).unwrap();
    commit(&mut files, scratch.path(), &[vec![1, 2, 3], vec![4, 5]]);
    drop(files);
    let own = shard(scratch.path());
    let log = std::fs::read(own.log_path()).unwrap();
    let output = std::fs::read(&own.outputs[0].1).unwrap();

    std::fs::write(&own.outputs[0].1, &output[..output.len() - 1]).unwrap();
    let refused = started(scratch.path(), false).err().unwrap();
    assert!(
        refused.kind == Kind::StateDamaged && refused.message.contains("email.jsonl"),
        "{refused}"
    );
    std::fs::write(&own.outputs[0].1, &output).unwrap();

    let mut flipped = log.clone();
    *flipped.iter_mut().rev().nth(5).unwrap() ^= 1;
    std::fs::write(own.log_path(), flipped).unwrap();
    let refused = started(scratch.path(), false).err().unwrap();
    assert!(
        refused.kind == Kind::StateDamaged && refused.message.contains(".job-0.progress"),
        "{refused}"
    );

    std::fs::remove_file(own.log_path()).unwrap();
    let refused = started(scratch.path(), false).err().unwrap();
    assert!(refused.message.contains("missing or empty"), "{refused}");
    std::fs::write(own.log_path(), &log).unwrap();
    started(scratch.path(), false).expect("as it was");
}

/// Compaction bounds the log, keeps every binding that is still needed, and survives a start.
#[test]
fn compaction_keeps_what_is_needed() {
    let scratch = Scratch::new();
    let (_, _, mut files) = started(scratch.path(), false).unwrap();
    files.log.compact_above = 4 << 10;
    // What a crash in the middle of an earlier compaction may leave.
    let leftover = scratch.path().join(".job-0.progress.new");
    std::fs::write(&leftover, "half a rec").unwrap();
    let (mut oldest, mut greatest) = (0, 0);
    for epoch in 1..=500 {
        files.commit(vec![sealed(epoch)]).unwrap();
        if epoch % 10 == 0 {
            oldest = epoch - 7;
            files.forget(oldest).unwrap();
        }
        greatest = greatest.max(files.log_length());
    }
    assert!(greatest < 16 << 10, "the log grew to {greatest} bytes");
    assert!(!leftover.exists(), "renamed over the log");
    assert!(matches!(observe(&shard(scratch.path())), Err(error) if error.kind == Kind::AnotherInstance));
    drop(files);
    let found = observe(&shard(scratch.path())).unwrap();
    let epochs: Vec<_> = found.bindings().map(|binding| binding.epoch).collect();
    let Progress::Present { after, upper, .. } = found.facts().progress else {
        panic!("a log")
    };
    assert!(after <= oldest && upper == 500);
    assert_eq!(
        epochs,
        (after + 1..=500).collect::<Vec<_>>(),
        "every binding above what was forgotten"
    );
}

/// A torn record longer than the next one must not show behind it.
#[test]
fn long_torn_record_leaves_nothing_behind() {
    let scratch = Scratch::new();
    let (_, _, mut files) = started(scratch.path(), false).unwrap();
    files.commit(vec![sealed(1)]).unwrap();
    drop(files);
    let log = shard(scratch.path()).log_path();
    let mut bytes = std::fs::read(&log).unwrap();
    bytes.extend_from_slice(&[b'x'; 9_000]);
    std::fs::write(&log, bytes).unwrap();
    let (_, _, mut files) = started(scratch.path(), false).unwrap();
    files.commit(vec![sealed(2)]).unwrap();
    drop(files);
    let (_, replay, files) = started(scratch.path(), false).unwrap();
    assert_eq!((files.committed(), replay.len()), (2, 2));
    assert_eq!(log.metadata().unwrap().len(), files.log_length());
}

#[test]
fn second_writer_of_an_output_is_refused() {
    let scratch = Scratch::new();
    let (_, _, files) = started(scratch.path(), false).unwrap();
    assert_eq!(
        observe(&shard(scratch.path())).err().unwrap().kind,
        Kind::AnotherInstance
    );
    drop(files);
    observe(&shard(scratch.path())).unwrap();
}

#[test]
fn unwritable_outputs_are_named() {
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.path().join("email.jsonl")).unwrap();
    assert_eq!(
        observe(&shard(scratch.path())).err().unwrap().kind,
        Kind::Configuration
    );
    std::fs::remove_dir(scratch.path().join("email.jsonl")).unwrap();
    std::fs::write(scratch.path().join("sub"), "a file").unwrap();
    assert_eq!(
        observe(&shard(scratch.path())).err().unwrap().kind,
        Kind::WriteFailed
    );
}

/// Where the child of the next test writes, and how long its files may become.
const LIMITED: &str = "TIDEGATE_TEST_LIMITED";

/// Run in a process of its own by the test below; alone it does nothing.
#[test]
fn child_with_a_file_size_limit() {
    let Ok(directory) = std::env::var(LIMITED) else {
        return;
    };
    let (_, _, mut files) = started(Path::new(&directory), false).unwrap();
    let limit = Some(3_000);
    setrlimit(
        Resource::Fsize,
        Rlimit {
            current: limit,
            maximum: limit,
        },
    )
    .unwrap();
    let error = (1..1_000)
        .find_map(|epoch| files.commit(vec![sealed(epoch)]).err())
        .unwrap();
    assert_eq!(error.kind, Kind::WriteFailed);
    assert!(
        error.message.contains(&directory) && error.message.contains("File too large"),
        "{error}"
    );
}

#[test]
fn full_disk_stops_and_a_later_start_goes_on() {
    let scratch = Scratch::new();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sink::files::test::child_with_a_file_size_limit"])
        .env(LIMITED, scratch.path())
        .output()
        .unwrap();
    assert!(
        status.status.success(),
        "{}",
        String::from_utf8_lossy(&status.stdout)
    );
    let (_, replay, mut files) = started(scratch.path(), false).unwrap();
    assert!(!replay.is_empty());
    files.commit((1..200).map(sealed).collect()).unwrap();
    drop(files);
    let whole = Scratch::new();
    let (_, _, mut files) = started(whole.path(), false).unwrap();
    files.commit((1..200).map(sealed).collect()).unwrap();
    assert_eq!(contents(scratch.path()), contents(whole.path()));
}

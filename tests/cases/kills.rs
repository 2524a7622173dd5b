//! kill -9 anywhere, then start again: the final files are those of a run that nobody disturbed.
//!
//! ```text
//!  killed halfway ─► killed at a point ─► killed at it again ─► to the end    every point, other worker counts
//!  fresh ─► killed at random bytes or moments, over and over ─► to the end    by seed
//!  the same without tying data to progress (control arm)                      must differ
//! ```
//!
//! Outputs are compared byte for byte (`day.rs` says why that holds). A point that is armed for its first time must
//! have killed; later times may come too late in a run that groups its commits, and are counted together.

use crate::day::{
    HALFWAY, UNDISTURBED, assert_outputs, day, files, in_directory, outputs, run, run_killed_at, start_run,
};
use crate::harness::Directory;
use tidegate::checkpoint::unreliable::Random;
use tidegate::crash::POINTS;

/// Kills at a point, again at the point's first time, and finishes; gives the number of kills.
fn killed_twice(point: &str, nth: u64, workers: [usize; 3]) -> usize {
    let directory = in_directory(&HALFWAY);
    let story = format!("killed at {point}:{nth}, then at {point}:1, on {workers:?} workers");
    let first = run_killed_at(&directory, workers[0], &format!("{point}:{nth}"));
    assert!(first || nth > 1, "{point} was never come to");
    let again = run_killed_at(&directory, workers[1], point);
    run(&directory, workers[2]).with_code(0);
    assert_outputs(&directory, &UNDISTURBED, &story);
    usize::from(first) + usize::from(again)
}

#[test]
fn killed_at_every_point_and_again() {
    let workers = [[1, 2, 3], [2, 1, 2], [3, 2, 1]];
    for (point, workers) in POINTS.iter().zip(workers.into_iter().cycle()) {
        assert!(killed_twice(point, 1, workers) >= 1);
    }
}

#[test]
fn killed_at_later_times_of_a_point() {
    let mut random = Random(3);
    let mut kills = 0;
    for point in POINTS {
        for nth in [2, 3 + random.below(8)] {
            let workers = [0; 3].map(|_| 1 + random.below(3) as usize);
            kills += killed_twice(point, nth, workers);
        }
    }
    assert!(kills > 30, "{kills} kills");
}

/// A job killed before it did anything, while it restores, and while it replays, one after the other.
#[test]
fn killed_in_every_restart_of_a_restart() {
    let directory = day();
    let points = [
        "after-claim",
        "before-cut-back",
        "after-cut-back",
        "before-progress",
        "mid-progress",
    ];
    for (point, workers) in points.into_iter().zip([1, 2, 3, 1, 2]) {
        assert!(run_killed_at(&directory, workers, point), "{point}");
    }
    run(&directory, 2).with_code(0);
    assert_outputs(&directory, &UNDISTURBED, "killed before the first commit");

    let directory = in_directory(&HALFWAY);
    let points = [
        "during-restore",
        "during-restore:2",
        "during-replay",
        "during-replay:2",
        "after-cut-back",
    ];
    for (point, workers) in points
        .into_iter()
        .chain(points)
        .zip([1, 2, 3].into_iter().cycle())
    {
        run_killed_at(&directory, workers, point);
    }
    run(&directory, 3).with_code(0);
    assert_outputs(&directory, &UNDISTURBED, "killed in each of ten restarts");
}

/// Kills when so many bytes more are written, or after so many looks, whatever the seed says.
fn killed_at_random(seed: u64) -> usize {
    let directory = day();
    let mut random = Random(seed);
    let mut kills = 0;
    let mut story = format!("seed {seed}:");
    for _ in 0..7 {
        let workers = 1 + random.below(3) as usize;
        let before = size_of(&directory);
        let mut running = start_run(&directory, workers, &[]);
        let moment = random.below(2) == 0;
        let most = if moment {
            random.below(150)
        } else {
            random.below(100_000)
        };
        let mut looks = 0;
        let killed = running.until(|| {
            looks += 1;
            if moment {
                looks > most
            } else {
                size_of(&directory) > before + most
            }
        });
        let what = if moment { "looks" } else { "bytes" };
        story.push_str(&format!(" {workers} workers, {most} {what};"));
        let ended = running.kill();
        assert!(
            ended.was_killed() || ended.code == Some(0),
            "{story}\n{}",
            ended.log
        );
        kills += usize::from(ended.was_killed());
        if !killed {
            break;
        }
    }
    run(&directory, 1 + random.below(3) as usize).with_code(0);
    assert_outputs(&directory, &UNDISTURBED, &story);
    kills
}

fn size_of(directory: &Directory) -> u64 {
    files(&directory.path("out"))
        .values()
        .map(|content| content.len() as u64)
        .sum()
}

#[test]
fn killed_at_random_times() {
    let kills: usize = (0..6).map(killed_at_random).sum();
    assert!(
        kills >= 10,
        "only {kills} of the random kills came before the end"
    );
}

/// What the campaigns compare shows it when progress is not tied to data.
#[test]
fn control_arm_differs() {
    let control = ("TIDEGATE_CONTROL_ARM", "1");
    let mut differences = 0;
    for point in [
        "after-data:1",
        "after-data:2",
        "before-progress:1",
        "mid-progress:1",
    ] {
        let directory = in_directory(&HALFWAY);
        let armed = [("TIDEGATE_CRASH_AT", point), control];
        start_run(&directory, 1, &armed).wait();
        start_run(&directory, 2, &[control]).wait().with_code(0);
        differences += usize::from(outputs(&directory) != *UNDISTURBED);
    }
    assert!(
        differences > 0,
        "the campaign would not notice messages that come twice"
    );
}

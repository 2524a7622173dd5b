//! One job over several processes: the same outputs, to the byte, whatever the shape, also when it changes at a restart
//! and whoever was killed before.
//!
//! ```text
//!  finite:   1x1 1x2 2x1 2x2 3x1 ─► outputs as those of one worker
//!            killed at a point, in the leader or in a member ─► another shape ─► ... ─► to the end
//!  followed: append ─► kill one of the processes ─► another shape ─► ... ─► Ctrl-C ─► all complete
//! ```

use crate::cluster::{Cluster, Shape, start_cluster};
use crate::day::{
    HALFWAY, OFTEN, UNDISTURBED, assert_outputs, day, in_directory, outputs, run, status, write_job,
};
use crate::fed::Fed;
use crate::harness::Directory;
use crate::kafka::{Attached, Layout, TopicJob, shared, small_day};
use rustix::process::Signal;
use tidegate::checkpoint::unreliable::Random;
use tidegate::crash::POINTS;
use tidegate::error::Kind;

const SHAPES: [Shape; 4] = [(2, 1), (1, 2), (2, 2), (3, 1)];

fn finite(directory: &Directory, shape: Shape) -> Cluster {
    start_cluster(directory, shape, &[], |_| Vec::new())
}

#[test]
fn every_shape_gives_the_same_bytes() {
    for shape in SHAPES {
        let directory = day();
        finite(&directory, shape).succeeded();
        assert_outputs(&directory, &UNDISTURBED, &format!("{shape:?}"));
    }
}

/// What the leader counts is what one process counts.
#[test]
fn the_summary_counts_every_process() {
    let counts = |shape| {
        let directory = day();
        let mut cluster = start_cluster(&directory, shape, &["--json"], |_| Vec::new());
        let leader = cluster.0.remove(0);
        let text = leader.wait_for_output();
        cluster.succeeded();
        let summary: serde_json::Value = serde_json::from_str(&text).expect("a summary is JSON");
        [
            "messages_in",
            "messages_out",
            "dead_letters",
            "epochs",
            "committed",
        ]
        .map(|name| summary[name].clone())
    };
    assert_eq!(counts((2, 2)), counts((1, 1)));
}

/// Kills one process at a point of the protocol; false if the job ended without coming there.
fn killed_at(directory: &Directory, shape: Shape, process: usize, point: &str) -> bool {
    let environment = |of: usize| match of == process {
        true => vec![("TIDEGATE_CRASH_AT", point.to_owned())],
        false => Vec::new(),
    };
    let ended = start_cluster(directory, shape, &[], environment).wait();
    let was_killed = ended[process].was_killed();
    for (index, ended) in ended.iter().enumerate().filter(|(index, _)| *index != process) {
        // Who is left ends with it, and says that the other one is the cause.
        let expected = if was_killed { Kind::PeerLost as i32 } else { 0 };
        assert!(
            ended.code == Some(expected),
            "process {index}, {point} in {process} of {shape:?}: {ended:?}"
        );
    }
    was_killed
}

#[test]
fn killed_at_every_point_of_the_leader_and_restarted_in_another_shape() {
    let mut shapes = SHAPES.into_iter().filter(|(processes, _)| *processes > 1).cycle();
    for point in POINTS {
        let directory = in_directory(&HALFWAY);
        let mut shape = || shapes.next().expect("they go round");
        assert!(
            killed_at(&directory, shape(), 0, point),
            "{point} was never come to"
        );
        killed_at(&directory, shape(), 0, &format!("{point}:2"));
        finite(&directory, shape()).succeeded();
        assert_outputs(&directory, &UNDISTURBED, &format!("the leader killed at {point}"));
    }
}

#[test]
fn killed_at_every_point_of_a_member() {
    let mut random = Random(5);
    for point in ["during-restore", "during-replay", "during-replay:3"] {
        let directory = in_directory(&HALFWAY);
        for shape in [(2, 1), (2, 2), (3, 1)] {
            let process = 1 + random.below(shape.0 as u64 - 1) as usize;
            assert!(killed_at(&directory, shape, process, point), "{point}, {shape:?}");
        }
        run(&directory, 2).with_code(0);
        assert_outputs(&directory, &UNDISTURBED, &format!("members killed at {point}"));
    }
}

#[test]
fn killed_at_any_time_and_restarted_in_another_shape() {
    let mut random = Random(9);
    let mut kills = 0;
    for round in 0..4 {
        let directory = day();
        // Whoever waits for one that was killed before it came gives up soon.
        write_job(&directory, OFTEN, "cluster.start_timeout_ms = 2000");
        let mut story = format!("round {round}:");
        for _ in 0..5 {
            let shape = SHAPES[random.below(SHAPES.len() as u64) as usize];
            let victim = random.below(shape.0 as u64) as usize;
            let most = random.below(300);
            story.push_str(&format!(" {shape:?}, {victim} after {most} looks;"));
            let mut cluster = finite(&directory, shape);
            let mut looks = 0;
            cluster.0[victim].until(|| {
                looks += 1;
                looks > most
            });
            let ended = cluster.kill(victim);
            kills += usize::from(
                ended
                    .iter()
                    .any(|ended| ended.code == Some(Kind::PeerLost as i32)),
            );
        }
        finite(&directory, (2, 1)).succeeded();
        assert_outputs(&directory, &UNDISTURBED, &story);
    }
    assert!(kills > 5, "only {kills} kills came before the end");
}

/// Appends to followed files and kills one process or the other in between.
fn followed_and_killed(seed: u64) {
    let mut fed = Fed::new(seed);
    let mut story = format!("seed {seed}:");
    let mut shape = (2, 1);
    let follow = |fed: &Fed, shape| start_cluster(&fed.directory, shape, &["--follow"], |_| Vec::new());
    let mut cluster = follow(&fed, shape);
    for step in 0..6 {
        if step == 2 {
            fed.add_later_files();
        }
        fed.append(step == 5);
        if fed.random.below(3) > 0 {
            fed.until_committed(&mut cluster.0[0]);
            story.push_str(" committed,");
        }
        // Before its cluster is complete nobody would miss it but the start's own timeout.
        cluster.0[0].until_logged("started");
        let victim = fed.random.below(shape.0 as u64) as usize;
        story.push_str(&format!(" {victim} of {shape:?} killed;"));
        for ended in cluster.kill(victim) {
            assert_eq!(ended.code, Some(Kind::PeerLost as i32), "{story} {ended:?}");
        }
        shape = SHAPES[fed.random.below(SHAPES.len() as u64) as usize];
        cluster = follow(&fed, shape);
    }
    fed.until_committed(&mut cluster.0[0]);
    cluster.0[0].signal(Signal::INT);
    cluster.succeeded();
    fed.assert_complete(&story);
}

#[test]
fn followed_and_killed_in_between() {
    (20..22).for_each(followed_and_killed);
}

/// Topics: each process reads its share of the partitions, and the leader's producers write.
#[test]
fn over_topics_killed_and_restarted_in_another_shape() {
    let layout = Layout {
        shards: 2,
        ..Layout::on(shared())
    };
    let topics = TopicJob::new(&small_day(91, 40, &[]), layout);
    let attached = Attached::new(shared(), &topics.output_topics());
    let follow = |shape| start_cluster(&topics.directory, shape, &["--follow"], |_| Vec::new());
    let lives = [((2, 1), 1), ((1, 2), 0), ((2, 2), 0), ((3, 1), 2)];
    for (part, (shape, victim)) in (1..).zip(lives) {
        // The tables are there before the first start: what comes later would race with the entries.
        topics.feed(part, 6);
        let mut cluster = follow(shape);
        if part % 2 == 0 {
            topics.until_committed(&mut cluster.0[0]);
        } else {
            cluster.0[0].until_logged("started");
        }
        cluster.kill(victim);
    }
    let mut cluster = follow((2, 1));
    topics.feed(1, 1);
    topics.until_committed(&mut cluster.0[0]);
    // A second cluster takes the job over: the first one is fenced, and ends.
    let take_over = ["--follow", "--take-over"];
    let mut second = start_cluster(&topics.directory, (2, 1), &take_over, |_| Vec::new());
    second.0[0].until_logged("started");
    let ended = cluster.wait();
    assert_eq!(ended[0].code, Some(Kind::Fenced as i32), "{ended:?}");
    assert_eq!(ended[1].code, Some(Kind::PeerLost as i32), "{ended:?}");
    second.0[0].signal(Signal::INT);
    second.succeeded();
    topics.hold(Some(&attached), "killed in four shapes and taken over");
}

/// Ctrl-C at a member drains the whole job.
#[test]
fn a_member_that_is_interrupted_drains_the_job() {
    let directory = day();
    let mut cluster = start_cluster(&directory, (2, 1), &["--follow"], |_| Vec::new());
    let mut begun = || status_epoch(&directory).is_some_and(|epoch| epoch > 0);
    assert!(cluster.0[0].until(&mut begun), "{}", cluster.0[0].log());
    cluster.0[1].signal(Signal::INT);
    cluster.succeeded();
    run(&directory, 1).with_code(0);
    let found = outputs(&directory);
    assert_eq!(found.len(), UNDISTURBED.len());
}

fn status_epoch(directory: &Directory) -> Option<u64> {
    status(directory)["outputs"][0]["committed_epoch"].as_u64()
}

/// Two clusters on the same files: the second one is refused, and the first one goes on.
#[test]
fn a_second_cluster_on_the_same_job_is_refused() {
    let directory = day();
    let mut first = start_cluster(&directory, (2, 1), &["--follow"], |_| Vec::new());
    let mut begun = || status_epoch(&directory).is_some_and(|epoch| epoch > 0);
    assert!(first.0[0].until(&mut begun), "{}", first.0[0].log());
    let second = start_cluster(&directory, (2, 1), &["--follow"], |_| Vec::new());
    let ended = second.wait();
    assert_eq!(ended[0].code, Some(Kind::AnotherInstance as i32), "{ended:?}");
    assert_eq!(ended[1].code, Some(Kind::PeerLost as i32), "{ended:?}");
    first.0[0].signal(Signal::INT);
    first.succeeded();
}

//! kill -9 anywhere in a job over topics, again and again until its inputs are consumed: the committed messages are
//! those of a run that nobody disturbed, for who reads at the end and for who was there throughout.
//!
//! ```text
//!  feed a part ─► run ─► killed at a point | at any time ─► feed a part ─► run ─► ... ─► all committed ─► drained
//!                  ▲ 1 to 3 workers, by seed                                         compared, by two readers
//! ```
//!
//! The control arm does the same with outputs that are not tied to progress, and must show it.

use crate::kafka::{Attached, Layout, TopicJob, last, shared, small_day};
use crate::process::Running;
use std::collections::VecDeque;
use tidegate::checkpoint::unreliable::Random;
use tidegate::crash::{POINTS, TOPIC_POINTS};

/// The points of files: a job without output files does not come to them.
const OF_FILES: [&str; 5] = [
    "before-cut-back",
    "after-cut-back",
    "before-progress",
    "mid-progress",
    "after-progress",
];

/// How a run is to end.
#[derive(Debug)]
enum Death {
    /// At a point, the so-manieth time.
    Point(String),
    /// When so many more messages were given to the attached reader, or after so many looks.
    AnyTime { messages: usize, looks: usize },
}

/// A job that is fed as it gets on.
struct Fed {
    topics: TopicJob,
    attached: Attached,
    /// Of [`PARTS`], those that are in the inputs.
    part: usize,
}

/// Inputs come in so many parts.
const PARTS: usize = 200;
/// A life that commits so many without coming to its point does not come to it.
const PARTS_A_LIFE: usize = 12;

/// Points that a life comes to only when it takes up a checkpoint.
const RESTORING: [&str; 2] = ["during-restore", "during-replay"];

impl Fed {
    fn feed(&mut self) {
        self.part = (self.part + 1).min(PARTS);
        self.topics.feed(self.part, PARTS);
    }

    /// Whether a life can come to its death.
    fn can_come_to(&self, death: &Death) -> bool {
        let manifests = std::fs::read_dir(self.topics.directory.path("state/manifests"));
        let has_checkpoint = manifests.is_ok_and(|mut manifests| manifests.next().is_some());
        match death {
            Death::Point(point) => has_checkpoint || !RESTORING.contains(&point.as_str()),
            Death::AnyTime { .. } => true,
        }
    }

    /// Lives until it dies as wanted, or has committed a good deal without; whether it died as wanted.
    fn live(&mut self, workers: usize, death: &Death) -> bool {
        self.feed();
        let mut running: Running = match death {
            Death::Point(point) => self.topics.start(workers, &[("TIDEGATE_CRASH_AT", point)]),
            Death::AnyTime { .. } => self.topics.start(workers, &[]),
        };
        let (before, mut looked, last_part) = (self.attached.count(), 0, self.part + PARTS_A_LIFE);
        let survived = running.until(|| {
            looked += 1;
            if let Death::AnyTime { messages, looks } = death
                && (self.attached.count() > before + messages || looked > *looks)
            {
                return true;
            }
            let is_committed = self.topics.is_committed();
            let is_over = self.part == PARTS.min(last_part);
            if is_committed && !is_over {
                self.feed();
            }
            is_committed && is_over
        });
        let ended = running.kill();
        assert!(ended.was_killed(), "exit code {:?}:\n{}", ended.code, ended.log);
        !survived || matches!(death, Death::AnyTime { .. })
    }
}

#[test]
fn killed_at_every_point_and_at_any_time() {
    let layout = Layout {
        shards: 2,
        ..Layout::on(shared())
    };
    let topics = TopicJob::new(&small_day(41, 60, &[]), layout);
    let attached = Attached::new(shared(), &topics.output_topics());
    let mut fed = Fed {
        topics,
        attached,
        part: 0,
    };
    let mut random = Random(7);
    let points = POINTS
        .iter()
        .chain(TOPIC_POINTS)
        .filter(|point| !OF_FILES.contains(point));
    let mut deaths: Vec<Death> = points.map(|point| Death::Point((*point).to_owned())).collect();
    // Later times of the points between which a transaction is open or just over.
    deaths.extend(
        ["after-data:2", "before-commit:3", "after-commit:2"].map(|point| Death::Point(point.to_owned())),
    );
    deaths.extend((0..8).map(|number| Death::AnyTime {
        messages: random.below(60) as usize,
        looks: if number % 2 == 0 {
            usize::MAX
        } else {
            random.below(900) as usize
        },
    }));
    // In an order that is not that of a start.
    for last in (1..deaths.len()).rev() {
        deaths.swap(last, random.below(last as u64 + 1) as usize);
    }
    let mut story = String::new();
    let mut left: VecDeque<(Death, u32)> = deaths.into_iter().map(|death| (death, 0)).collect();
    while let Some((death, times)) = left.pop_front() {
        assert!(times <= 30, "never came to {death:?}: {story}");
        if !fed.can_come_to(&death) {
            left.push_back((death, times + 1));
            continue;
        }
        let workers = 1 + random.below(3) as usize;
        let died = fed.live(workers, &death);
        story.push_str(&format!(
            "{death:?} on {workers}{}; ",
            if died { "" } else { ", missed" }
        ));
        if !died {
            left.push_back((death, times + 10));
        }
    }
    fed.topics.run_to_the_end(2, &[]);
    let there = fed.topics.hold(Some(&fed.attached), &story);
    last::java_agrees(shared(), &fed.topics.name, &there);
}

/// What the cases compare shows it when outputs are not tied to progress.
#[test]
fn control_arm_differs() {
    let job = small_day(42, 40, &[]);
    let topics = TopicJob::new(&job, Layout::on(shared()));
    let control = ("TIDEGATE_CONTROL_ARM", "1");
    for part in 1..8 {
        topics.feed(part, 8);
        // The first start begins with a record of its own; every other one comes here with its first messages.
        let point = format!("after-data:{}", if part == 1 { 2 } else { 1 });
        let mut running = topics.start(2, &[("TIDEGATE_CRASH_AT", &point), control]);
        running.until(|| topics.is_committed());
        assert!(running.kill().was_killed());
    }
    topics.run_to_the_end(2, &[control]);
    let there = last::read(shared(), &topics.output_topics());
    let difference = topics.difference(&there).err();
    let difference = difference.expect("the cases would not notice messages that come twice");
    assert!(difference.contains("unexpected"), "{difference}");
}

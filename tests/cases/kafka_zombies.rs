//! Two instances of one job: the frozen one that wakes when another has taken over, and the second one that is not
//! wanted.
//!
//! ```text
//!  first   run ─► transaction open, frozen ····· (the broker aborts it) ····· woken ─► fenced, exit 8
//!  second                                        └ takes over ─► goes on ─► drained
//! ```

use crate::kafka::{Attached, Layout, TopicJob, last, shared, small_day};
use crate::process::Running;
use rustix::process::Signal;

/// So long that a case has looked at an open transaction before the broker gives it up, milliseconds.
const TRANSACTION_TIMEOUT_MS: u64 = 20_000;

fn job(seed: u64) -> TopicJob {
    let layout = Layout {
        kafka: format!("transaction_timeout_ms = {TRANSACTION_TIMEOUT_MS}\n"),
        ..Layout::on(shared())
    };
    TopicJob::new(&small_day(seed, 40, &[]), layout)
}

/// A run that freezes at a point, and has frozen.
#[track_caller]
fn frozen_at(topics: &TopicJob, point: &str) -> Running {
    topics.feed(1, 30);
    let mut running = topics.start(2, &[("TIDEGATE_FREEZE_AT", point)]);
    let process = format!("/proc/{}/status", running.pid());
    let mut part = 1;
    let frozen = running.until(|| {
        let status = std::fs::read_to_string(&process).unwrap_or_default();
        let is_frozen = status.lines().any(|line| line.starts_with("State:\tT"));
        // Of a frozen one nothing is asked: its transaction is open only for so long.
        if !is_frozen && topics.is_committed() && part < 20 {
            part += 1;
            topics.feed(part, 30);
        }
        is_frozen
    });
    assert!(frozen, "it ended by itself:\n{}", running.log());
    running
}

/// A run that takes the job over, and has.
#[track_caller]
fn taken_over(topics: &TopicJob) -> Running {
    let mut second = topics.start_with(&["--take-over", "--workers", "3"], &[]);
    second.until_logged("started");
    topics.until_committed(&mut second);
    second
}

/// Reads the rest, drains, and holds all there is against the oracle.
#[track_caller]
fn finish(topics: &TopicJob, mut running: Running, attached: &Attached, story: &str) {
    topics.feed(1, 1);
    topics.until_committed(&mut running);
    running.signal(Signal::INT);
    running.wait().with_code(0);
    let there = topics.hold(Some(attached), story);
    last::java_agrees(shared(), &topics.name, &there);
}

#[test]
fn frozen_past_its_transaction_and_taken_over() {
    let topics = job(51);
    let attached = Attached::new(shared(), &topics.output_topics());
    let mut zombie = frozen_at(&topics, "before-commit:4");
    assert_ne!(
        topics.open_topics(),
        [] as [String; 0],
        "it froze with its transaction open"
    );
    // The broker gives the transaction up.
    assert!(zombie.until(|| topics.open_topics().is_empty()));
    let second = taken_over(&topics);
    zombie.signal(Signal::CONT);
    let log = zombie.wait().with_code(8);
    assert!(log.contains("taken the job over"), "{log}");
    finish(&topics, second, &attached, "frozen past its transaction's time");
}

#[test]
fn frozen_and_taken_over_at_once() {
    let topics = job(52);
    let attached = Attached::new(shared(), &topics.output_topics());
    // The second one settles what the first has left open. Who wakes finds a producer fenced, a checkpoint of another,
    // or a newer claim, whichever it comes to first.
    for (point, codes) in [
        ("before-commit:4", &[8][..]),
        ("after-commit:3", &[6, 8]),
        ("after-fence", &[6]),
    ] {
        let zombie = frozen_at(&topics, point);
        let second = taken_over(&topics);
        topics.assert_closed(point);
        topics.feed(1, 2);
        zombie.signal(Signal::CONT);
        let ended = zombie.wait();
        let is_told = ended.code.is_some_and(|code| codes.contains(&code));
        assert!(is_told, "{point}: exit code {:?}:\n{}", ended.code, ended.log);
        assert!(second.kill().was_killed(), "{point}");
    }
    let last = topics.start(1, &[]);
    finish(&topics, last, &attached, "frozen and taken over at once");
}

#[test]
fn frozen_past_its_transaction_and_nobody_took_over() {
    let topics = job(53);
    let attached = Attached::new(shared(), &topics.output_topics());
    let mut sleeper = frozen_at(&topics, "before-commit:4");
    assert!(sleeper.until(|| topics.open_topics().is_empty()));
    sleeper.signal(Signal::CONT);
    topics.feed(1, 2);
    // Either the broker's answer tells it no apart from a take-over, and it is started again; or it goes on.
    let last = match sleeper.until(|| topics.is_committed()) {
        true => sleeper,
        false => {
            sleeper.wait().with_code(8);
            topics.start(1, &[])
        }
    };
    finish(
        &topics,
        last,
        &attached,
        "frozen past its transaction's time, alone",
    );
}

#[test]
fn a_second_instance_leaves_the_first_alone() {
    let topics = job(54);
    let attached = Attached::new(shared(), &topics.output_topics());
    topics.feed(1, 2);
    let mut first = topics.start(2, &[]);
    topics.until_committed(&mut first);
    let log = topics.start(1, &[]).wait().with_code(6);
    assert!(
        log.contains("another instance runs this job") && log.contains("--take-over"),
        "{log}"
    );
    finish(&topics, first, &attached, "a second instance came");
}

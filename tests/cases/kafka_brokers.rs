//! Brokers that go and come back under a running job: the one broker killed, one of three killed, three restarted one
//! after the other. The job waits, and goes on by itself.

use crate::broker::{Brokers, Node, Options};
use crate::kafka::{Attached, Layout, TopicJob, last, small_day};
use crate::process::Running;
use rustix::process::Signal;

fn cluster(count: usize) -> Brokers {
    let options = Options {
        count,
        ..Options::default()
    };
    Brokers::start(&options).expect("brokers start")
}

/// A job that has begun, and a reader that was there before.
fn begun(brokers: &Brokers, seed: u64) -> (TopicJob, Attached, Running) {
    let topics = TopicJob::new(&small_day(seed, 50, &[]), Layout::on(brokers.bootstrap()));
    let attached = Attached::new(brokers.bootstrap(), &topics.output_topics());
    topics.feed(1, 20);
    let mut running = topics.start(2, &[]);
    topics.until_committed(&mut running);
    (topics, attached, running)
}

#[track_caller]
fn finish(topics: &TopicJob, mut running: Running, attached: &Attached, story: &str) {
    topics.feed(1, 1);
    topics.until_committed(&mut running);
    running.signal(Signal::INT);
    running.wait().with_code(0);
    let there = topics.hold(Some(attached), story);
    last::java_agrees(&topics.layout.brokers, &topics.name, &there);
}

#[test]
fn the_one_broker_killed_and_started_again() {
    let brokers = cluster(1);
    let (topics, attached, running) = begun(&brokers, 81);
    for part in 2..5 {
        // What is fed just before is on its way through the job when the broker goes.
        topics.feed(part, 20);
        brokers.kill(Node::Broker(1)).expect("it can be killed");
        brokers.restart(Node::Broker(1)).expect("it comes back");
    }
    finish(&topics, running, &attached, "its broker killed three times");
}

#[test]
fn three_brokers_one_killed_and_all_restarted() {
    let brokers = cluster(3);
    let (topics, attached, mut running) = begun(&brokers, 82);
    brokers.kill(Node::Broker(2)).expect("it can be killed");
    topics.feed(4, 20);
    topics.until_committed(&mut running);
    brokers.restart(Node::Broker(2)).expect("it comes back");
    for (part, number) in [(6, 1), (8, 2), (10, 3)] {
        brokers.stop(Node::Broker(number)).expect("it ends when asked");
        topics.feed(part, 20);
        topics.until_committed(&mut running);
        brokers.restart(Node::Broker(number)).expect("it comes back");
        topics.feed(part + 1, 20);
        topics.until_committed(&mut running);
    }
    finish(
        &topics,
        running,
        &attached,
        "one of three killed, all restarted one by one",
    );
}

//! A job whose way to its broker is bad: cut, silent in one direction, slow; and the request that ends a transaction,
//! held up on its way until the next transaction is open.
//!
//! ```text
//!  commit n    ... EndTxn ──(held)·········································· released ─► refused: an old epoch's
//!  given up    new producer, a new epoch ─► progress: not there ─► again ─► EndTxn ──(held)│─► released ─► committed
//! ```

use crate::broker::{Brokers, Options};
use crate::kafka::{Attached, Layout, TopicJob, last, small_day};
use crate::process::Running;
use crate::proxy::{END_TXN, PRODUCE, Proxy, Way};
use rustix::process::Signal;
use std::time::Duration;

/// What the broker answers to who has been fenced: `INVALID_PRODUCER_EPOCH` and `PRODUCER_FENCED`.
const FENCED: [i16; 2] = [47, 90];

/// A broker that is reached through a proxy.
fn proxied() -> (Brokers, Proxy) {
    let proxy = Proxy::new();
    let options = Options {
        proxy: Some(proxy.port()),
        ..Options::default()
    };
    let brokers = Brokers::start(&options).expect("a broker starts");
    proxy.lead_to(brokers.behind_proxy().expect("it has a proxy"));
    (brokers, proxy)
}

fn job(brokers: &Brokers, proxy: &Proxy, seed: u64) -> TopicJob {
    let layout = Layout {
        through: Some(proxy.address()),
        ..Layout::on(brokers.bootstrap())
    };
    TopicJob::new(&small_day(seed, 50, &[]), layout)
}

/// Feeds a part and waits until it is committed.
#[track_caller]
fn commits(topics: &TopicJob, running: &mut Running, part: usize) {
    topics.feed(part, 20);
    topics.until_committed(running);
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
fn cut_silent_slow_and_an_end_that_comes_too_late() {
    let (brokers, proxy) = proxied();
    cut_silent_and_slow(&brokers, &proxy);
    an_end_that_comes_too_late(&brokers, &proxy);
}

fn cut_silent_and_slow(brokers: &Brokers, proxy: &Proxy) {
    let topics = job(brokers, proxy, 71);
    let attached = Attached::new(brokers.bootstrap(), &topics.output_topics());
    topics.feed(1, 20);
    let mut running = topics.start(2, &[]);
    for part in 2..6 {
        proxy.cut();
        commits(&topics, &mut running, part);
    }
    // In the middle of a transaction, in one direction, until it has been given up.
    for (part, kind, way) in [
        (6, PRODUCE, Way::There),
        (7, END_TXN, Way::There),
        (8, PRODUCE, Way::Back),
        (9, END_TXN, Way::Back),
    ] {
        let given_up = |log: &str| log.matches("looking what is committed").count();
        let before = given_up(&running.log());
        proxy.go_silent_at(kind, way);
        topics.feed(part, 20);
        assert!(
            running.until(|| proxy.is_silent()),
            "{kind} {way:?}: it ended:\n{}",
            running.log()
        );
        let path = running.log_path();
        let shows = move || std::fs::read_to_string(&path).is_ok_and(|log| given_up(&log) > before);
        assert!(
            running.until(shows),
            "{kind} {way:?}: it ended:\n{}",
            running.log()
        );
        proxy.go_on();
        topics.until_committed(&mut running);
    }
    proxy.slow_down(Duration::from_millis(15), 200_000);
    commits(&topics, &mut running, 12);
    proxy.go_on();
    finish(&topics, running, &attached, "cut, silent, slow");
}

fn an_end_that_comes_too_late(brokers: &Brokers, proxy: &Proxy) {
    let topics = job(brokers, proxy, 72);
    let attached = Attached::new(brokers.bootstrap(), &topics.output_topics());
    topics.feed(1, 4);
    let mut running = topics.start(2, &[]);
    topics.until_committed(&mut running);
    for round in 0..2 {
        let (late, next) = (proxy.held(), proxy.held() + 1);
        proxy.hold(Some(END_TXN));
        topics.feed(2 + round, 4);
        assert!(running.until(|| proxy.held() > late), "{}", running.log());
        // Given up, settled, and written again by a new producer, whose end is held too: its transaction is open.
        assert!(running.until(|| proxy.held() > next), "{}", running.log());
        proxy.release(late);
        assert!(
            running.until(|| proxy.answer(late).is_some()),
            "{}",
            running.log()
        );
        let answer = proxy.answer(late).expect("just seen");
        // Behind four bytes of throttle time.
        let code = i16::from_be_bytes([answer[4], answer[5]]);
        assert!(
            FENCED.contains(&code),
            "the broker answered {code} to the late end"
        );
        proxy.hold(None);
        proxy.release(next);
        topics.until_committed(&mut running);
    }
    finish(&topics, running, &attached, "an end that came too late");
}

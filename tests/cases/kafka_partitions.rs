//! Partitions without messages hold windows back, until they are taken for idle; the decision stands after a kill. And
//! partitions that are added while the job runs.

use crate::broker::class;
use crate::jobs::subset;
use crate::kafka::{Attached, Layout, TopicJob, admin, ask, last, shared, small_day, until};
use crate::oracle::{Input, Job};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;

/// Longer than any case.
const NEVER_MS: u64 = 3_600_000;

fn order(number: i64, placed_at: i64) -> String {
    format!(
        "{{\"key\":\"k\",\"value\":{{\"order_id\":\"o{number}\",\"amount\":5,\"currency\":\"EUR\",\
         \"placed_at\":{placed_at}}}}}\n"
    )
}

/// Windows over two partitions, the second of which has one early order.
fn windows(idle_ms: u64) -> TopicJob {
    let first: String = (0..5).map(|number| order(number, number * 60_000)).collect();
    let second = order(9, 30_000);
    let orders = Input::new("orders", vec![first.into(), second.into()]);
    let job = Job::new(&["tumbling_aggregates"], vec![("orders", orders)]);
    TopicJob::new(
        &job,
        Layout {
            idle_ms,
            ..Layout::on(shared())
        },
    )
}

/// The values in an output's topic.
fn values(topics: &TopicJob, output: &str) -> Vec<Value> {
    let topic = topics.output(output);
    let there = last::read(shared(), &BTreeMap::from([(topic.clone(), 3)]));
    let messages = there[&topic].iter().flatten();
    messages
        .map(|message| serde_json::from_str(&message.value).expect("JSON"))
        .collect()
}

#[test]
fn a_partition_without_messages_holds_back_until_it_is_idle() {
    for is_fed_while_down in [false, true] {
        let mut topics = windows(NEVER_MS);
        let attached = Attached::new(shared(), &BTreeMap::from([(topics.output("aggregates"), 3)]));
        topics.feed_to("orders", 0, usize::MAX);
        let mut running = topics.start(2, &[]);
        topics.until_committed(&mut running);
        running.signal(Signal::INT);
        running.wait().with_code(0);
        assert_eq!(
            values(&topics, "aggregates"),
            [] as [Value; 0],
            "the second partition may still come"
        );

        topics.layout.idle_ms = 200;
        topics.write_job_file();
        let mut running = topics.start(1, &[]);
        // The first partition goes on: with all of them idle the watermark would stay where it is.
        let has_closed = running.until(|| {
            topics.write_far_again("orders", 0);
            attached.count() >= 5
        });
        assert!(has_closed, "it ended:\n{}", running.log());
        assert!(running.kill().was_killed());

        // Nothing is decided anew: the windows stay closed for what comes now.
        topics.layout.idle_ms = NEVER_MS;
        topics.write_job_file();
        if is_fed_while_down {
            topics.feed_to("orders", 1, usize::MAX);
        }
        let mut running = topics.start(2, &[]);
        running.until_logged("started");
        topics.feed_to("orders", 1, usize::MAX);
        topics.until_committed(&mut running);
        running.signal(Signal::INT);
        running.wait().with_code(0);
        assert_eq!(values(&topics, "aggregates").len(), 5);
        let letters = values(&topics, "dead_letters");
        assert_eq!(letters.len(), 1, "{letters:?}");
        let letter = &letters[0];
        let place = (&letter["reason"], &letter["partition"], &letter["offset"]);
        assert_eq!(place, (&"LATE".into(), &1.into(), &0.into()));
        assert_eq!(
            letter["watermark"], 253_402_300_000_000_i64,
            "the watermark before it woke"
        );
        topics.assert_closed("woken");
    }
}

#[test]
fn a_partition_that_is_added_is_read() {
    let job = subset(&small_day(68, 40, &[]), &["event_counts"]);
    let mut fewer = job.clone();
    let added = fewer
        .inputs
        .get_mut("events")
        .expect("an input")
        .partitions
        .pop()
        .expect("three");
    let mut topics = TopicJob::new(&fewer, Layout::on(shared()));
    let attached = Attached::new(shared(), &topics.output_topics());
    topics.feed(1, 2);
    let mut running = topics.start(2, &[]);
    topics.until_committed(&mut running);
    let topic = topics.input("events");
    ask(
        shared(),
        class::TOPICS,
        &["--alter", "--topic", &topic, "--partitions", "3"],
    );
    until("the broker knows of it", || {
        admin(shared()).partitions(&topic).is_ok_and(|count| count == 3)
    });
    topics.grow("events", &added);
    topics.feed(3, 4);
    topics.until_committed(&mut running);
    assert!(running.kill().was_killed());
    topics.run_to_the_end(3, &[]);
    topics.hold(Some(&attached), "a partition was added");
}

//! Topics that are not what they were, or not what is needed: refused by name, with a code and a way out, and nothing
//! written. And what compaction may take away without harm.

use crate::broker::class;
use crate::jobs::subset;
use crate::kafka::{Attached, Layout, TopicJob, ask, create_anew, last, shared, small_day, until};
use crate::oracle::{Input, Job, compare, expected};
use rustix::process::Signal;
use std::collections::BTreeMap;

/// No checkpoint but at the end.
const RARELY_MS: u64 = 86_400_000;

/// A job that has consumed a half of its inputs and was killed.
fn killed_halfway(job: &Job, checkpoint_ms: u64) -> TopicJob {
    let layout = Layout {
        checkpoint_ms,
        partitions: 2,
        ..Layout::on(shared())
    };
    let topics = TopicJob::new(job, layout);
    topics.feed(1, 2);
    let mut running = topics.start(2, &[]);
    topics.until_committed(&mut running);
    assert!(running.kill().was_killed());
    topics
}

/// A job of windows.
fn orders(seed: u64) -> Job {
    subset(&small_day(seed, 30, &[]), &["tumbling_aggregates"])
}

/// A start is refused with this code and these words, and nothing is written.
#[track_caller]
fn refused(topics: &TopicJob, code: i32, words: &[&str]) {
    let before = last::read(shared(), &topics.output_topics());
    let log = topics.start(1, &[]).wait().with_code(code);
    for word in words {
        assert!(log.contains(word), "{word:?} is not in:\n{log}");
    }
    assert!(
        before == last::read(shared(), &topics.output_topics()),
        "a refused start has written"
    );
}

#[test]
fn topics_that_were_created_again_are_refused() {
    let topics = killed_halfway(&orders(61), 40);
    let input = topics.input("orders");
    create_anew(shared(), &input, 3, &[]);
    refused(&topics, 4, &[&input, "deleted and created again"]);

    let topics = killed_halfway(&orders(62), 40);
    let emptied = format!("{}-progress", topics.name);
    create_anew(shared(), &emptied, 1, &["cleanup.policy=compact"]);
    refused(&topics, 4, &[&emptied, "deleted and created again"]);

    let topics = killed_halfway(&orders(63), 40);
    let fewer = topics.output("aggregates");
    create_anew(shared(), &fewer, 1, &[]);
    let log = topics.start(1, &[]).wait().with_code(4);
    assert!(log.contains(&fewer), "{log}");
}

/// A state that has lost the ids of its topics still knows that it had begun.
#[test]
fn an_emptied_progress_topic_is_refused_without_its_id() {
    let topics = killed_halfway(&orders(64), 40);
    let emptied = format!("{}-progress", topics.name);
    create_anew(shared(), &emptied, 1, &["cleanup.policy=compact"]);
    std::fs::remove_dir_all(topics.directory.path("state/topics")).expect("ids are there");
    refused(&topics, 5, &["progress"]);
}

#[test]
fn a_progress_topic_that_forgets_is_refused() {
    let topics = killed_halfway(&orders(65), 40);
    let attached = Attached::new(shared(), &topics.output_topics());
    let progress = format!("{}-progress", topics.name);
    let set = |setting: &str| {
        let of = [
            "--alter",
            "--entity-type",
            "topics",
            "--entity-name",
            &progress,
            "--add-config",
        ];
        ask(shared(), class::CONFIGS, &[&of[..], &[setting]].concat());
    };
    set("cleanup.policy=delete");
    refused(&topics, 3, &[&progress, "cleanup.policy is delete"]);
    set("cleanup.policy=compact");
    topics.run_to_the_end(2, &[]);
    topics.hold(Some(&attached), "compacted again");
}

/// Does to the first partition of an input what retention does.
fn delete_before(topics: &TopicJob, input: &str, offset: u64) {
    let (topic, file) = (topics.input(input), "records.json");
    let of = format!("{{\"topic\":\"{topic}\",\"partition\":0,\"offset\":{offset}}}");
    let content = format!("{{\"partitions\":[{of}],\"version\":1}}");
    topics.directory.write(file, content);
    let path = topics.directory.path(file).display().to_string();
    ask(shared(), class::DELETE_RECORDS, &["--offset-json-file", &path]);
}

/// Counts of one partition of events: 200 of them consumed and covered by a checkpoint, 250 gone, 400 in all.
fn truncated() -> TopicJob {
    let line = |number: usize| {
        let (key, time) = (number % 7, number * 1_000);
        format!("{{\"key\":\"k{key}\",\"value\":{{\"event_id\":\"e{number}\",\"occurred_at\":{time}}}}}\n")
    };
    let lines: String = (0..400).map(line).collect();
    let job = Job::new(
        &["event_counts"],
        vec![("events", Input::new("events", vec![lines.into()]))],
    );
    let topics = TopicJob::new(
        &job,
        Layout {
            partitions: 2,
            ..Layout::on(shared())
        },
    );
    topics.feed(1, 2);
    let mut running = topics.start(2, &[]);
    topics.until_committed(&mut running);
    running.signal(Signal::INT);
    running.wait().with_code(0);
    topics.feed(1, 1);
    delete_before(&topics, "events", 250);
    topics
}

#[test]
fn messages_that_retention_took_are_refused_or_passed_over() {
    let topics = truncated();
    let place = format!("{}/0", topics.input("events"));
    refused(
        &topics,
        4,
        &[
            &place,
            "offset 200",
            "the first one is 250",
            "--accept-gap to pass over 50 messages",
        ],
    );
    let mut running = topics.start_with(&["--accept-gap"], &[]);
    topics.until_committed(&mut running);
    running.signal(Signal::INT);
    let log = running.wait().with_code(0);
    assert!(log.contains(&place) && log.contains("passed over"), "{log}");
    // What a run would give that had never had them.
    let mut without = topics.job.clone();
    let events = without.inputs.get_mut("events").expect("it is the input");
    let lines: Vec<&[u8]> = events.partitions[0]
        .split_inclusive(|byte| *byte == b'\n')
        .collect();
    events.partitions[0] = [&lines[..200], &lines[250..]].concat().concat();
    let there = last::read(shared(), &BTreeMap::from([(topics.output("counts"), 2)]));
    let rows = there[&topics.output("counts")].iter().flatten();
    let rows = rows.map(|message| {
        format!(
            "{{\"key\":\"{}\",\"value\":{}}}\n",
            message.key.as_deref().unwrap_or_default(),
            message.value
        )
    });
    let difference = compare::check_rows(&without, &expected(&without), "counts", &rows.collect::<String>());
    assert_eq!(difference, Ok(()));
}

/// What was committed and no checkpoint covers is needed again, for the state: its loss is a gap like any other.
#[test]
fn messages_that_a_restore_needs_are_refused_or_passed_over() {
    let topics = killed_halfway(&orders(67), RARELY_MS);
    delete_before(&topics, "orders", 10);
    let place = format!("{}/0", topics.input("orders"));
    let words = ["offset 0", "the first one is 10", "pass over 10 messages"];
    refused(&topics, 4, &[&[place.as_str()][..], &words].concat());
    let before = last::read(shared(), &topics.output_topics());
    let mut running = topics.start_with(&["--accept-gap"], &[]);
    topics.feed(2, 2);
    topics.until_committed(&mut running);
    running.signal(Signal::INT);
    let log = running.wait().with_code(0);
    assert!(log.contains(&place) && log.contains("passed over"), "{log}");
    // What was committed stays, and nothing of it comes again.
    let after = last::read(shared(), &topics.output_topics());
    for (topic, partitions) in &before {
        for (before, after) in partitions.iter().zip(&after[topic]) {
            assert!(after.starts_with(before), "{topic}");
        }
    }
}

#[test]
fn what_compaction_takes_from_tables_is_not_missed() {
    let job = subset(&small_day(66, 40, &[]), &["alerts"]);
    let topics = killed_halfway(&job, RARELY_MS);
    let attached = Attached::new(shared(), &topics.output_topics());
    for table in ["authorizations", "settings", "devices"] {
        let topic = topics.input(table);
        let settings =
            "segment.ms=100,min.cleanable.dirty.ratio=0,delete.retention.ms=0,min.compaction.lag.ms=0";
        let of = [
            "--alter",
            "--entity-type",
            "topics",
            "--entity-name",
            &topic,
            "--add-config",
            settings,
        ];
        ask(shared(), class::CONFIGS, &of);
        let mut written = 0;
        until("compaction has taken something", || {
            // A segment is closed by what is written after its time.
            topics.write_rows_again(table);
            let partitions = BTreeMap::from([(topic.clone(), 2)]);
            let there: usize = last::read(shared(), &partitions)[&topic]
                .iter()
                .map(Vec::len)
                .sum();
            let has_shrunk = there < written;
            written = there;
            has_shrunk
        });
    }
    topics.run_to_the_end(2, &[]);
    topics.hold(Some(&attached), "tables compacted between a kill and the restart");
}

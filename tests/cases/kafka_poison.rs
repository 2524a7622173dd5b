//! Bad messages of every kind in every input: each becomes a dead letter, exactly once, whatever is killed meanwhile;
//! the good ones between them give what they would without.

use crate::jobs::day;
use crate::kafka::{Attached, Layout, TopicJob, last, same_in_topics, shared};
use crate::oracle::Job;
use tidegate_dataflows::generator::{Fault, Input};

const INPUTS: [(&str, Input); 8] = [
    ("entries", Input::Entries),
    ("authorizations", Input::Authorizations),
    ("settings", Input::Settings),
    ("devices", Input::Devices),
    ("orders", Input::Orders),
    ("payments", Input::Payments),
    ("transactions", Input::Transactions),
    ("events", Input::Events),
];

/// Puts a copy of a good line with each fault that its input can have into every partition.
fn poisoned(mut job: Job) -> Job {
    for (name, kind) in INPUTS {
        let input = job.inputs.get_mut(name).expect("the day has all inputs");
        for bytes in &mut input.partitions {
            let lines: Vec<String> = String::from_utf8_lossy(bytes)
                .lines()
                .map(str::to_owned)
                .collect();
            let good = |line: &&String| {
                line.starts_with("{\"key\":\"") && line.contains("\"value\":{") && line.ends_with("}}")
            };
            let good: Vec<&String> = lines.iter().filter(good).collect();
            let faults: Vec<Fault> = Fault::ALL
                .into_iter()
                .filter(|fault| fault.applies(kind))
                .collect();
            let mut poisoned = Vec::new();
            for (number, line) in lines.iter().enumerate() {
                poisoned.extend_from_slice(line.as_bytes());
                poisoned.push(b'\n');
                if let Some(fault) = faults.get(number) {
                    poisoned.extend(fault.spoil(kind, good[number % good.len()]));
                    poisoned.push(b'\n');
                }
            }
            *bytes = poisoned;
        }
    }
    job
}

#[test]
fn poison_of_every_kind_is_a_dead_letter_once() {
    let job = same_in_topics(poisoned(same_in_topics(day(91, 60, &[]))));
    let topics = TopicJob::new(&job, Layout::on(shared()));
    let letters = &topics.expected.outputs["dead_letters"];
    for (input, _) in INPUTS {
        for reason in ["UNDECODABLE", "INVALID"] {
            let of = |letter: &&serde_json::Value| {
                letter["value"]["input"] == input && letter["value"]["reason"] == reason
            };
            assert!(letters.iter().filter(of).count() >= 5, "{input}: {reason}");
        }
    }
    let attached = Attached::new(shared(), &topics.output_topics());
    for (part, point) in ["after-data:2", "before-commit:2", "after-commit:3"]
        .iter()
        .enumerate()
    {
        topics.feed(part + 1, 4);
        let mut running = topics.start(2, &[("TIDEGATE_CRASH_AT", point)]);
        running.until(|| topics.is_committed());
        assert!(running.kill().was_killed());
    }
    topics.run_to_the_end(2, &[]);
    let there = topics.hold(Some(&attached), "poison");
    last::java_agrees(shared(), &topics.name, &there);
}

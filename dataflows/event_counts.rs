//! `event_counts`: a running count per key.
//!
//! ```text
//!  input   events
//!  output  counts   for every epoch and every key whose count it changed: the count after the epoch
//! ```
//!
//! State is kept for ever. Nothing is late: an event counts whenever it comes. A retracted event counts
//! no more; a count that falls to 0 that way is a row that is gone, and rows that go are no messages.

use serde::Serialize;
use tidegate::operators::Context;
use tidegate::operators::count::count;
use tidegate::record::{Messages, Output, Rank, Records, Text};
use timely::dataflow::operators::vec::Map;

use crate::records::Event;

/// What comes in.
#[derive(Clone)]
pub struct Inputs<'s> {
    /// Anything, keyed by what is counted.
    pub events: Records<'s, Event>,
}

/// What goes out.
pub struct Outputs<'s> {
    /// A count per epoch and key that changed.
    pub counts: Messages<'s, CountResult>,
}

/// The count of a key. Key: the event's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct CountResult {
    /// What was counted.
    #[serde(skip)]
    pub key: Text,
    /// How many there are.
    pub count: i64,
}

impl Output for CountResult {
    const SCHEMA: &'static str = include_str!("schemas/CountResult.avsc");

    fn key(&self) -> Option<&str> {
        Some(&self.key)
    }

    /// A key has one count per epoch.
    fn rank(&self) -> Rank {
        Rank::default()
    }
}

/// Builds the dataflow.
pub fn build<'s>(context: &Context<'s>, inputs: Inputs<'s>) -> Outputs<'s> {
    let keys = inputs.events.updates.map(|event| (event.key, event.hash));
    let counts = count(context, "event_counts", keys).inner;
    Outputs {
        counts: counts
            .flat_map(|((key, count), _epoch, diff)| (diff > 0).then_some(CountResult { key, count })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use differential_dataflow::AsCollection;
    use std::sync::{Arc, Mutex};
    use tidegate::format::json::write_line;
    use tidegate::record::{Origin, Stamped, key_hash};
    use tidegate::time::BEFORE_ALL;
    use timely::dataflow::InputHandle;
    use timely::dataflow::operators::Inspect;
    use timely::dataflow::operators::generic::operator::empty;
    use timely::dataflow::operators::vec::Input;

    /// The keys of the events of each epoch, retractions with a `-`; gives epochs and JSON lines.
    fn run(epochs: &'static [&[&str]], workers: usize) -> Vec<(u64, String)> {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let sent_in = Arc::clone(&sent);
        let guards = timely::execute(timely::Config::process(workers), move |worker| {
            let mut events = InputHandle::new();
            let sent = Arc::clone(&sent_in);
            worker.dataflow::<u64, _, _>(|scope| {
                let updates = scope.input_from(&mut events).as_collection();
                let events = Records {
                    updates,
                    watermark: empty(scope),
                };
                let outputs = build(&Context::without_checkpoints(scope), Inputs { events });
                outputs.counts.inspect_time(move |epoch, count| {
                    let mut line = Vec::new();
                    write_line(count, &mut line);
                    let line = String::from_utf8(line).expect("JSON is text");
                    sent.lock().expect("no panic holds it").push((*epoch, line));
                });
            });
            let (index, peers) = (worker.index(), worker.peers());
            for (epoch, keys) in (0..).zip(epochs) {
                events.advance_to(epoch);
                for (offset, key) in (0..).zip(*keys).skip(index).step_by(peers) {
                    let (key, diff) = key.strip_prefix('-').map_or((*key, 1), |key| (key, -1));
                    let event = Stamped {
                        key: key.into(),
                        hash: key_hash(key.as_bytes()),
                        origin: Origin { partition: 0, offset },
                        watermark: BEFORE_ALL,
                        raw: None,
                        value: Event {
                            event_id: "event".into(),
                            occurred_at: 0,
                        },
                    };
                    events.send((event, epoch, diff));
                }
            }
        });
        let results = guards.expect("timely starts").join();
        results
            .into_iter()
            .for_each(|result| result.expect("no worker panicked"));
        let mut sent = std::mem::take(&mut *sent.lock().expect("workers are gone"));
        sent.sort();
        sent
    }

    #[test]
    fn keys_that_changed_are_counted_per_epoch() {
        let epochs: &[&[&str]] = &[&["a", "b", "a"], &[], &["b", "c", "-c"], &["-a", "-a"], &["a"]];
        let expected = [(0, "a", 2), (0, "b", 1), (2, "b", 2), (4, "a", 1)].map(|(epoch, key, count)| {
            let line = format!("{{\"key\":\"{key}\",\"value\":{{\"count\":{count}}}}}\n");
            (epoch, line)
        });
        for workers in [1, 2] {
            assert_eq!(run(epochs, workers), expected);
        }
    }
}

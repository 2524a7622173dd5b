//! Trials of the dataflows that work by event time: a log as text, what it gives as text.
//!
//! ```text
//!  open orders 5 2        the input `orders` has 2 partitions and a max_out_of_orderness of 5
//!  orders 0 A 1000 7      a record of partition 0, key A, event time 1000; the rest is the dataflow's
//!  -orders 0 A 1000 7     takes the same record back
//!  end orders             its partitions have ended
//!  --                     the end of an epoch
//! ```
//!
//! Watermarks are those that a source would stamp: before a record its partition's, after an epoch the global
//! one. Results are sorted as a sink sorts them: by epoch, output and rank.

use differential_dataflow::AsCollection;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tidegate::checkpoint::binding::PartitionBinding;
use tidegate::operators::Context;
use tidegate::record::{DeadLetter, Messages, Origin, Output, Rank, Record, Records, Stamped, key_hash};
use tidegate::time::{BEFORE_ALL, Diff, Epoch, InputClock, Millis};
use timely::dataflow::operators::Inspect;
use timely::dataflow::operators::vec::{Delay, Map, ToStream};

/// A record of the script: key, event time, the rest of the line.
type Parse<R> = fn(&str, Millis, &[&str]) -> R;

/// The updates of an input.
type Stream<R> = Vec<(Stamped<R>, Epoch, Diff)>;

/// What was sent, as a sink sorts it.
type Sent = Arc<Mutex<Vec<(Epoch, &'static str, Rank, String)>>>;

/// One worker's share of a trial.
pub struct Trial {
    script: &'static str,
    index: usize,
    peers: usize,
    sent: Sent,
}

/// Runs the script on one worker and on two, and holds what is sent against `expected`: lines of epoch,
/// output, key and value, or for dead letters epoch, output, origin, event time and watermark.
#[track_caller]
pub fn check(
    script: &'static str,
    expected: &[&str],
    build: impl Fn(&Context<'_>, &Trial) + Copy + Send + Sync + 'static,
) {
    for workers in [1, 2] {
        let sent = Sent::default();
        let sent_in = Arc::clone(&sent);
        let guards = timely::execute(timely::Config::process(workers), move |worker| {
            let trial = Trial {
                script,
                index: worker.index(),
                peers: worker.peers(),
                sent: Arc::clone(&sent_in),
            };
            worker.dataflow(|scope| build(&Context::without_checkpoints(scope), &trial));
        });
        let results = guards.expect("timely starts").join();
        results
            .into_iter()
            .for_each(|result| result.expect("no worker panicked"));
        let mut sent = std::mem::take(&mut *sent.lock().expect("workers are gone"));
        sent.sort();
        let lines: Vec<_> = sent
            .iter()
            .map(|(epoch, output, _, line)| format!("{epoch} {output} {line}"))
            .collect();
        assert_eq!(lines, expected, "on {workers} workers");
    }
}

impl Trial {
    /// What the script says of one input.
    pub fn input<'s, R: Record>(&self, context: &Context<'s>, name: &str, parse: Parse<R>) -> Records<'s, R> {
        let (updates, watermarks) = history(self.script, name, parse);
        let ours = updates.into_iter().skip(self.index).step_by(self.peers);
        let updates = ours.collect::<Vec<_>>().to_stream(context.scope);
        let watermark = watermarks.to_stream(context.scope).delay(|(epoch, _), _| *epoch);
        Records {
            updates: updates.delay(|(_, epoch, _), _| *epoch).as_collection(),
            watermark: watermark.map(|(_, watermark)| watermark),
        }
    }

    /// Notes what an output gets, with keys and whole values.
    pub fn output<M: Output>(&self, name: &'static str, messages: Messages<'_, M>) {
        self.note(name, messages, |message| {
            let value = serde_json::to_string(message).expect("messages are plain data");
            format!("{} {value}", message.key().unwrap_or_default())
        });
    }

    /// Notes the dead letters.
    pub fn dead_letters(&self, letters: Messages<'_, DeadLetter>) {
        self.note("dead_letters", letters, |letter| {
            let DeadLetter {
                input,
                partition,
                offset,
                ..
            } = letter;
            let time = |time: Option<Millis>| time.expect("LATE has times");
            let (late, watermark) = (time(letter.event_time), time(letter.watermark));
            format!("{input} {partition}@{offset} {late} behind {watermark}")
        });
    }

    /// Notes what an output gets, a line for each message.
    pub fn note<M: Output>(&self, name: &'static str, messages: Messages<'_, M>, line: fn(&M) -> String) {
        let sent = Arc::clone(&self.sent);
        messages.inspect_time(move |epoch, message| {
            let sent = &mut *sent.lock().expect("no panic holds it");
            sent.push((*epoch, name, message.rank(), line(message)));
        });
    }
}

/// The updates of an input as a source stamps them, and its global watermark after each epoch in which it
/// rose.
fn history<R: Record>(script: &str, input: &str, parse: Parse<R>) -> (Stream<R>, Vec<(Epoch, Millis)>) {
    let (mut updates, mut watermarks, mut epoch) = (Vec::new(), Vec::new(), 0);
    let mut stamped = BTreeMap::new();
    let mut clock = InputClock::new(0);
    for line in script.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<i64>().expect("a number");
        match words[..] {
            [] => {}
            ["--"] => {
                let before = clock.global();
                if clock.close_epoch() > before {
                    watermarks.push((epoch, clock.global()));
                }
                epoch += 1;
            }
            ["open", of, ..] if of == input => {
                clock = InputClock::new(number(2));
                for partition in 0..number(3) as u32 {
                    clock.apply(&PartitionBinding {
                        partition,
                        ..PartitionBinding::default()
                    });
                }
            }
            ["end", of] if of == input => {
                for partition in 0..clock.partitions.len() as u32 {
                    clock.apply(&PartitionBinding {
                        partition,
                        ended: true,
                        ..PartitionBinding::default()
                    });
                }
            }
            [of, _, key, _, ref rest @ ..] if of == input => {
                let (partition, time) = (number(1) as u32, number(3));
                let offset = updates.len() as u64;
                let of_partition = &clock.partitions[&partition];
                let record = Stamped {
                    key: key.into(),
                    hash: key_hash(key.as_bytes()),
                    origin: Origin { partition, offset },
                    watermark: of_partition.watermark(clock.max_out_of_orderness_ms),
                    raw: None,
                    value: parse(key, time, rest),
                };
                let greatest = Some(time);
                clock.apply(&PartitionBinding {
                    partition,
                    greatest,
                    ..PartitionBinding::default()
                });
                stamped.insert(line.trim(), record.clone());
                updates.push((record, epoch, 1));
            }
            [of, ..] if of.strip_prefix('-') == Some(input) => {
                let record = stamped[line.trim().trim_start_matches('-')].clone();
                updates.push((record, epoch, -1));
            }
            _ => {}
        }
    }
    assert!(
        clock.close_epoch() == watermarks.last().map_or(BEFORE_ALL, |(_, last)| *last),
        "end with --"
    );
    (updates, watermarks)
}

//! Draining: a backlog is there, the engine starts, and everything is committed after a while.
//!
//! Rate and CPU are those between the first commit that takes of the backlog and the last one: the tables'
//! load comes before it and is told apart. Poison is a backlog with bad messages in it: dead letters are
//! counted, and the rate is held against that of clean runs in between.

use super::micros;
use super::reader::{self, Seen};
use super::role::{Player, Role};
use super::scene::Stage;
use crate::process::{cpu_seconds_of, resident_in};
use crate::workload::Part;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Longest time without a commit.
const PATIENCE: u64 = 120_000_000;

/// Commits while a backlog is drained take this many milliseconds at least.
const INTERVAL_MS: u64 = 10;

/// What a drain gave.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Drained {
    /// What was drained.
    pub part: Part,
    /// Messages in the backlog, over all event inputs.
    pub messages: u64,
    /// Of these, bad ones.
    pub bad: u64,
    /// Dead letters found; none where nobody looked.
    pub dead_letters: Option<u64>,
    /// From the engine's start to the first commit of the backlog: the tables' load, seconds.
    pub loading: f64,
    /// Messages a second from then on.
    pub rate: f64,
    /// CPU seconds for a million messages from then on.
    pub cpu_per_million: f64,
    /// CPU seconds of the process in all.
    pub cpu_seconds: f64,
    /// Greatest resident memory, bytes.
    pub peak: u64,
}

/// Drains a backlog of so many messages, of which one follows `bad_after` good ones if that is not 0.
pub fn drain(
    stage: &mut Stage,
    part: Part,
    accounts: u32,
    messages: u64,
    bad_after: u64,
) -> Result<Drained, String> {
    let scene = stage.scene(part, accounts, INTERVAL_MS)?;
    let topics = scene.topics(false);
    let records = messages / topics.len().max(1) as u64;
    let sent: super::load::Sent = stage.load(topics, accounts, records, bad_after, None)?.result()?;
    let ends = stage.ends(&scene)?;
    let began = micros();
    let mut engine = stage.engine(&scene)?;
    let pid = engine.pid();
    let mut follower = stage.follow(&scene)?;
    let (mut first, mut committed, mut heard) = (None, 0, began);
    while !follower.has(&ends) {
        follower.look(Duration::from_millis(10))?;
        engine.check()?;
        let now = micros();
        if follower.committed(&ends) > committed {
            committed = follower.committed(&ends);
            heard = now;
            first.get_or_insert((now, cpu_seconds_of(pid), committed));
        }
        if now > heard + PATIENCE {
            return Err(format!("nothing more is committed: {committed} of {messages}"));
        }
    }
    let (from, cpu, taken) = first.unwrap_or((began, 0.0, 0));
    let (seconds, cpu_seconds) = ((heard - from) as f64 / 1e6, cpu_seconds_of(pid));
    let drained = (follower.committed(&ends) - taken).max(1) as f64;
    let peak = resident_in(pid).peak;
    drop(engine);
    let dead_letters = match bad_after {
        0 => None,
        _ => Some(count(stage, scene.outputs.last())?),
    };
    Ok(Drained {
        part,
        messages: sent.messages,
        bad: sent.bad,
        dead_letters,
        loading: (from - began) as f64 / 1e6,
        rate: drained / seconds.max(1e-6),
        cpu_per_million: 1e6 * (cpu_seconds - cpu) / drained,
        cpu_seconds,
        peak,
    })
}

/// How many messages a topic holds for a reader of what is committed.
fn count(stage: &Stage, topic: Option<&String>) -> Result<u64, String> {
    let reader = Player::start(&Role::Reader(reader::Plan {
        brokers: stage.brokers().to_owned(),
        topics: topic
            .iter()
            .map(|topic| ((*topic).clone(), stage.partitions))
            .collect(),
        from: 0,
    }))?;
    let seen: Seen = reader.end()?;
    Ok(seen.messages)
}

//! Files and partitions of topics that appear while a job follows its inputs: a thread that looks again every
//! [`limits::DISCOVER`].
//!
//! A new file gets the next partition number of its input. The first worker declares it in a binding, its
//! owner reads it; until its first record it holds no watermark back. It ends when its handle is dropped.

use super::{FoundPartition, InputPlace, InputPlan, Plan, Recovered, Shared};
use crate::error::{Error, Result};
use crate::kafka::topics::Admin;
use crate::limits;
use crate::pace::Cutting;
use crate::source::partition::Start;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, PoisonError};
use std::thread;

/// The running search; none for a finite run.
pub struct Discovery {
    _ends_when_dropped: Sender<()>,
}

/// Starts the search of a live run.
pub fn discover(plan: &Arc<Plan>, shared: &Arc<Shared>, recovered: &Recovered) -> Result<Option<Discovery>> {
    if !matches!(plan.cutting, Cutting::Live { .. }) {
        return Ok(None);
    }
    let mut known = Vec::new();
    for (input, partitions) in plan.inputs.iter().zip(&recovered.partitions) {
        let name = |start: &Start| match &input.place {
            InputPlace::Files { root, .. } => start
                .path
                .strip_prefix(root)
                .unwrap_or(&start.path)
                .display()
                .to_string(),
            InputPlace::Topic { .. } => String::new(),
        };
        let next = partitions.keys().next_back().map_or(0, |last| last + 1);
        known.push((partitions.values().map(name).collect::<BTreeSet<_>>(), next));
    }
    let admin = match &plan.kafka {
        Some(kafka) => Some(Admin::new(&kafka.settings)?),
        None => None,
    };
    let (plan, shared) = (Arc::clone(plan), Arc::clone(shared));
    let (ends_when_dropped, ended) = channel::<()>();
    let search = move || {
        while ended.recv_timeout(limits::DISCOVER) == Err(RecvTimeoutError::Timeout) {
            for (input, (names, next)) in plan.inputs.iter().zip(&mut known) {
                for name in found(input, names, *next, admin.as_ref()) {
                    tracing::info!(input = input.settings.name, partition = *next, "found {name}");
                    let (input, partition) = (input.settings.index, *next);
                    *next += 1;
                    let found = FoundPartition {
                        input,
                        partition,
                        name,
                        declared: None,
                    };
                    let mut all = shared.found.lock().unwrap_or_else(PoisonError::into_inner);
                    all.push(found);
                    shared.found_count.fetch_add(1, Ordering::Release);
                }
            }
        }
    };
    let thread = thread::Builder::new().name("discovery".to_owned()).spawn(search);
    thread.map_err(|error| Error::internal(format!("a thread cannot be started: {error}")))?;
    Ok(Some(Discovery {
        _ends_when_dropped: ends_when_dropped,
    }))
}

/// The names of partitions that were not there before: of files their own, of a topic its.
fn found(input: &InputPlan, names: &mut BTreeSet<String>, next: u32, admin: Option<&Admin>) -> Vec<String> {
    let looked = match &input.place {
        InputPlace::Files { matching, .. } => (matching.0)(),
        InputPlace::Topic { name, .. } => match admin {
            Some(admin) => {
                let partitions = admin.partitions(name);
                partitions.map(|partitions| (next..partitions).map(|_| name.clone()).collect())
            }
            None => Ok(Vec::new()),
        },
    };
    let mut looked = looked.unwrap_or_else(|error| {
        tracing::warn!("{error}");
        Vec::new()
    });
    if let InputPlace::Files { .. } = &input.place {
        looked.retain(|name| names.insert(name.clone()));
    }
    looked
}

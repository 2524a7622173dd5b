//! Files that appear while a job follows its inputs: a thread that looks again every [`limits::DISCOVER`].
//!
//! A new file gets the next partition number of its input. The first worker declares it in a binding, its
//! owner reads it; until its first record it holds no watermark back. It ends when its handle is dropped.

use super::{FoundPartition, Plan, Recovered, Shared};
use crate::error::{Error, Result};
use crate::limits;
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
    if plan.is_finite() {
        return Ok(None);
    }
    let mut known = Vec::new();
    for (input, partitions) in plan.inputs.iter().zip(&recovered.partitions) {
        let name = |start: &crate::source::partition::Start| {
            start
                .path
                .strip_prefix(&input.root)
                .unwrap_or(&start.path)
                .display()
                .to_string()
        };
        let next = partitions.keys().next_back().map_or(0, |last| last + 1);
        known.push((partitions.values().map(name).collect::<BTreeSet<_>>(), next));
    }
    let (plan, shared) = (Arc::clone(plan), Arc::clone(shared));
    let (ends_when_dropped, ended) = channel::<()>();
    let search = move || {
        while ended.recv_timeout(limits::DISCOVER) == Err(RecvTimeoutError::Timeout) {
            for (input, (names, next)) in plan.inputs.iter().zip(&mut known) {
                let matching = match (input.matching.0)() {
                    Ok(matching) => matching,
                    Err(error) => {
                        tracing::warn!("{error}");
                        continue;
                    }
                };
                for name in matching {
                    if names.insert(name.clone()) {
                        tracing::info!(input = input.settings.name, partition = *next, "found {name}");
                        let (input, partition) = (input.settings.index, *next);
                        *next += 1;
                        let found = FoundPartition {
                            input,
                            partition,
                            name,
                            declared: None,
                        };
                        shared
                            .found
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(found);
                        shared.found_count.fetch_add(1, Ordering::Release);
                    }
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

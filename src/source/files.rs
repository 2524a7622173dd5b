//! Files as a source: the thread that reads for one worker.
//!
//! The offset of a message is the byte offset of its line. Partitions are files; a file grows by appending. A
//! followed file that stands at its end is looked at again every [`limits::FOLLOW`]; standing at the end is
//! reported once, so that idle partitions can be told from slow ones. A file that is missing, became shorter
//! than what was read of it, was replaced by another one of its name, or cannot be read stops the job with
//! its path and offset: nothing is skipped.

use super::{Answer, Arrival, Bytes, Request};
use crate::error::{Error, Kind};
use crate::limits;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Instant;

/// Serves requests until their sender is gone. `wake` is called after every answer.
#[expect(
    clippy::disallowed_methods,
    reason = "a reader thread polls followed files by the clock"
)]
pub fn read(requests: &Receiver<Request>, answers: &Sender<Answer>, wake: impl Fn()) {
    let mut files = BTreeMap::new();
    // Requests of followed files that stand at their end.
    let mut waiting = Vec::<Request>::new();
    let mut looked = Instant::now();
    loop {
        let next = if waiting.is_empty() {
            requests.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            requests.recv_timeout(limits::FOLLOW.saturating_sub(looked.elapsed()))
        };
        let mut batch = match next {
            Ok(request) => vec![request],
            Err(RecvTimeoutError::Timeout) => Vec::new(),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if looked.elapsed() >= limits::FOLLOW {
            batch.append(&mut waiting);
            looked = Instant::now();
        }
        for request in batch {
            let answer = read_block(&mut files, &request);
            match &answer {
                Ok(arrival) if request.at_end && arrival.bytes.is_empty() => waiting.push(request),
                Ok(_) | Err(_) => {
                    if answers.send(answer).is_err() {
                        return;
                    }
                    wake();
                }
            }
        }
    }
}

fn read_block(files: &mut BTreeMap<(u16, u32), File>, request: &Request) -> Answer {
    let gone = |what: &str, error: Option<io::Error>| {
        let cause = error.map_or_else(String::new, |error| format!(": {error}"));
        let (path, offset) = (request.path.display(), request.offset);
        let message = format!("{path}: {what} at byte {offset}{cause}; restore it and start again");
        Error::new(Kind::InputGone, message)
    };
    let file = match files.entry((request.input, request.partition)) {
        std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
        std::collections::btree_map::Entry::Vacant(entry) => {
            entry.insert(File::open(&request.path).map_err(|error| gone("cannot be opened", Some(error)))?)
        }
    };
    let wanted = request
        .upto
        .map_or(u64::MAX, |upto| upto.saturating_sub(request.offset));
    let mut bytes = vec![0; request.bytes.min(usize::try_from(wanted).unwrap_or(usize::MAX))];
    let mut filled = 0;
    let mut at_end = false;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], request.offset + filled as u64) {
            Ok(0) => {
                at_end = true;
                break;
            }
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(gone("cannot be read", Some(error))),
        }
    }
    if at_end && filled == 0 {
        // The path is asked, not the open file: one that was removed or replaced shows here.
        let there = std::fs::metadata(&request.path).map_err(|error| gone("is gone", Some(error)))?;
        let own = file
            .metadata()
            .map_err(|error| gone("cannot be read", Some(error)))?;
        let length = there.len();
        if length < request.offset {
            return Err(gone(
                &format!("is shorter ({length} bytes) than what was read of it, truncated or replaced,"),
                None,
            ));
        }
        if (there.dev(), there.ino()) != (own.dev(), own.ino()) {
            return Err(gone("is no longer the file that was read: it was replaced", None));
        }
    }
    bytes.truncate(filled);
    let Request {
        input,
        partition,
        offset,
        ..
    } = *request;
    Ok(Arrival {
        input,
        partition,
        offset,
        bytes: Bytes::Lines(bytes),
        at_end,
    })
}

//! The part of a job's inputs that a replay of a span reads, cut out of their bytes.
//!
//! An event line belongs to the span by its own event time, a table's by the greatest message time so far, a
//! line that is no record by the valid line before it; before any, only where the span has no beginning.

use super::log::{Line, read_line};
use super::message::lines;
use super::{Input, Job, records};
use std::collections::BTreeMap;

/// By (input, partition, byte offset) in the whole input: the offset in the cut one.
pub type Offsets = BTreeMap<(String, usize, usize), usize>;

/// The job over what lies in [from, to) of its inputs, and where each line of it stood before.
pub fn cut(job: &Job, from: Option<i64>, to: Option<i64>) -> (Job, Offsets) {
    let (mut cut, mut offsets) = (job.clone(), Offsets::new());
    for (name, input) in &job.inputs {
        for (partition, bytes) in input.partitions.iter().enumerate() {
            let (mut kept, mut is_in, mut as_of) = (Vec::new(), from.is_none(), None);
            let all = lines(bytes);
            for (at, (offset, line)) in all.iter().enumerate() {
                let time = time_of(name, input, line);
                if records::kind(name).is_table() {
                    as_of = as_of.max(time.flatten());
                    is_in = as_of.is_none_or(|as_of| to.is_none_or(|to| as_of < to));
                } else if let Some(time) = time.flatten() {
                    is_in = from.is_none_or(|from| time >= from) && to.is_none_or(|to| time < to);
                }
                if is_in {
                    offsets.insert((name.clone(), partition, *offset), kept.len());
                    let end = all.get(at + 1).map_or(bytes.len(), |(next, _)| *next);
                    kept.extend_from_slice(&bytes[*offset..end]);
                }
            }
            let input = cut.inputs.get_mut(name).expect("the same inputs");
            input.partitions[partition] = kept;
        }
    }
    (cut, offsets)
}

/// The time of a valid line; none for any other.
fn time_of(name: &str, input: &Input, line: &[u8]) -> Option<Option<i64>> {
    match read_line(&records::kind(name), input, line, None) {
        Line::Valid(_, _, time) => Some(time),
        Line::Undecodable | Line::Invalid(..) => None,
    }
}

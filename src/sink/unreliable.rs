//! A sink that fails by seed: each commit is answered in one of the four ways of a distributed system.
//!
//! | happened | reported | what a broker or a disk does then |
//! |---|---|---|
//! | yes | yes | committed and acknowledged |
//! | yes | error | committed, the connection breaks before the answer |
//! | no | error | refused |
//! | no | timeout | lost on the way |
//!
//! For tests and the bench. Whoever commits can not tell the last three apart by the answer and need not: after any of
//! them nothing more is committed, and the next start reads what really happened. A committer that goes on, or that
//! takes an error for "did not happen", is caught by some seed. A commit that happens in part is no answer of a sink,
//! whose one promise is that it does not; for files the crash points ([`crate::crash`]) see to that.

use super::{SealedEpoch, Sink};
use crate::checkpoint::unreliable::Random;
use crate::error::{Error, Kind, Result};
use crate::time::Epoch;

/// A sink whose commits fail by seed.
pub struct Unreliable {
    sink: Box<dyn Sink>,
    random: Random,
    failing_percent: u64,
}

impl Unreliable {
    /// Wraps a sink; this share of its commits, in percent, does not simply succeed.
    pub fn new(sink: Box<dyn Sink>, seed: u64, failing_percent: u64) -> Self {
        Unreliable {
            sink,
            random: Random(seed),
            failing_percent,
        }
    }
}

impl Sink for Unreliable {
    fn committed(&self) -> Epoch {
        self.sink.committed()
    }

    fn commit(&mut self, epochs: Vec<SealedEpoch>) -> Result<()> {
        let failed = |reason| Err(Error::new(Kind::WriteFailed, format!("injected: {reason}")));
        match (
            self.random.below(100) < self.failing_percent,
            self.random.below(3),
        ) {
            (false, _) => self.sink.commit(epochs),
            (true, 0) => {
                self.sink.commit(epochs)?;
                failed("connection lost after the request")
            }
            (true, 1) => failed("refused"),
            (true, _) => failed("timed out"),
        }
    }

    fn forget(&mut self, oldest: Epoch) -> Result<()> {
        self.sink.forget(oldest)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::captured::Captured;
    use super::super::files::{self, Shard};
    use super::super::{Rows, committer};
    use super::*;
    use crate::checkpoint::binding::{Binding, PartitionBinding};
    use crate::checkpoint::claim::Claim;
    use crate::record::Rank;
    use crate::scratch::Scratch;
    use std::path::Path;
    use std::sync::Arc;

    /// Epochs of a job; every second one has messages.
    const LAST: Epoch = 40;

    fn text(epoch: Epoch) -> String {
        match epoch % 2 {
            0 => format!("{{\"epoch\":{epoch}}}\n"),
            _ => String::new(),
        }
    }

    fn sealed(epoch: Epoch) -> SealedEpoch {
        let mut rows = Rows::new(0);
        if !text(epoch).is_empty() {
            rows.push(Rank::default(), |bytes| {
                bytes.extend_from_slice(text(epoch).as_bytes());
                Ok::<(), ()>(())
            })
            .unwrap();
        }
        let partitions = vec![PartitionBinding {
            start: epoch - 1,
            end: epoch,
            ..Default::default()
        }];
        SealedEpoch {
            epoch,
            rows: vec![rows],
            binding: Binding {
                epoch,
                partitions,
                ..Binding::default()
            },
        }
    }

    fn expected() -> String {
        (1..=LAST).map(text).collect()
    }

    /// Runs generations of a job, each on a sink that `open` gives, until one gets to the end; gives the number of
    /// generations. A generation replays from some epoch that is committed, as after a checkpoint.
    fn run_to_the_end(seed: u64, failing_percent: u64, mut open: impl FnMut() -> Box<dyn Sink>) -> usize {
        let mut random = Random(seed ^ 0x5EED);
        for generation in 1..1_000 {
            let sink = open();
            let from = random.below(sink.committed() + 1);
            let unreliable = Unreliable::new(sink, random.below(u64::MAX), failing_percent);
            let (told, heard) = std::sync::mpsc::channel();
            let told: committer::Told = Box::new(move |result| told.send(result.is_ok()).unwrap());
            let committer =
                committer::spawn("committer", Box::new(unreliable), 3, Arc::default(), told).unwrap();
            let refused = (from + 1..=LAST).any(|epoch| committer.queue().seal(sealed(epoch)).is_err());
            let finished = committer.finish();
            let answers: Vec<bool> = heard.into_iter().collect();
            let failure = answers.iter().position(|ok| !ok);
            assert_eq!(
                finished.is_err(),
                failure.is_some(),
                "seed {seed}: an error is never Ok"
            );
            assert!(
                finished.is_err() || !refused,
                "seed {seed}: refused without a failure"
            );
            if let Some(at) = failure {
                assert_eq!(at, answers.len() - 1, "seed {seed}: it went on after an error");
            }
            if finished.is_ok() {
                return generation;
            }
        }
        panic!("seed {seed}: no generation got to the end")
    }

    #[test]
    fn whatever_is_answered_the_next_start_makes_it_exact() {
        let mut generations = 0;
        for seed in 0..400 {
            let captured = Captured::default();
            generations += run_to_the_end(seed, seed % 60, || Box::new(captured.clone()));
            let commits = captured.commits();
            assert_eq!(
                String::from_utf8(commits.output(0)).unwrap(),
                expected(),
                "seed {seed}"
            );
            let bound: Vec<Epoch> = commits.bindings.iter().map(|binding| binding.epoch).collect();
            assert_eq!(bound, (1..=LAST).collect::<Vec<_>>(), "seed {seed}");
        }
        assert!(
            generations > 500,
            "{generations} generations: too few commits failed"
        );
    }

    /// The same on files, where the next start is a real one.
    #[test]
    fn files_are_exact_after_unknown_outcomes() {
        for seed in 0..12 {
            let scratch = Scratch::new();
            let mut generation = 0;
            run_to_the_end(seed, 40, || {
                generation += 1;
                Box::new(open_files(scratch.path(), generation))
            });
            let output = std::fs::read_to_string(scratch.path().join("out.jsonl")).unwrap();
            assert_eq!(output, expected(), "seed {seed}");
        }
    }

    fn open_files(directory: &Path, generation: u64) -> files::Files {
        let shard = Shard {
            job: "job".to_owned(),
            shard: 0,
            root: directory.to_path_buf(),
            outputs: vec![(0, directory.join("out.jsonl"))],
        };
        let found = files::observe(&shard).unwrap();
        found
            .open(&Claim::new(generation, 5, Vec::new()), generation == 1)
            .unwrap()
    }
}

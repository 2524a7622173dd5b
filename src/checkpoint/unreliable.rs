//! A store that fails by seed: each call is answered in one of the four ways of a distributed system.
//!
//! | happened | reported | answer |
//! |---|---|---|
//! | yes | yes | success |
//! | yes | error | `Unknown` |
//! | no | error | `Failed`: the store knows that it did nothing |
//! | no | timeout | `Unknown` |
//!
//! For tests and the bench: a protocol that guesses on an unknown outcome is caught by some seed.

use super::store::{Store, StoreError};
use std::sync::{Arc, Mutex, PoisonError};

/// A seeded sequence of numbers (splitmix64), the same on every machine.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below a bound, which is at least 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }
}

/// A store whose calls fail by seed.
pub struct Unreliable {
    store: Arc<dyn Store>,
    random: Mutex<Random>,
    failing_percent: u64,
}

/// How one call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Done,
    DoneReportedAsError,
    NotDone,
    NotDoneTimeout,
}

impl Unreliable {
    /// Wraps a store; this share of its calls, in percent, does not simply succeed.
    pub fn new(store: Arc<dyn Store>, seed: u64, failing_percent: u64) -> Self {
        Unreliable {
            store,
            random: Mutex::new(Random(seed)),
            failing_percent,
        }
    }

    fn answer(&self) -> Answer {
        // A test thread that panicked elsewhere leaves the sequence as good as before.
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        match (random.below(100) < self.failing_percent, random.below(3)) {
            (false, _) => Answer::Done,
            (true, 0) => Answer::DoneReportedAsError,
            (true, 1) => Answer::NotDone,
            (true, _) => Answer::NotDoneTimeout,
        }
    }

    fn call<T>(&self, call: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        match self.answer() {
            Answer::Done => call(),
            Answer::DoneReportedAsError => {
                call()?;
                Err(StoreError::Unknown(
                    "injected: connection lost after the request".to_owned(),
                ))
            }
            Answer::NotDone => Err(StoreError::Failed("injected: refused".to_owned())),
            Answer::NotDoneTimeout => Err(StoreError::Unknown("injected: timed out".to_owned())),
        }
    }
}

impl Store for Unreliable {
    fn put_new(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.call(|| self.store.put_new(name, bytes))
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.call(|| self.store.get(name))
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        self.call(|| self.store.list(folder))
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.call(|| self.store.delete(name))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::store::{Published, open, publish};
    use super::*;

    /// Whatever is answered: what `publish` says is what stands in the store.
    #[test]
    fn publish_never_says_ours_of_an_object_that_is_not_there() {
        let mut outcomes = [0; 3];
        for seed in 0..500 {
            let inner = open("memory:///").unwrap();
            let contended = seed % 2 == 0;
            if contended {
                inner.put_new("claims/1", b"theirs").unwrap();
            }
            let store = Unreliable::new(inner.clone(), seed, 60);
            let outcome = publish(&store, "claims/1", b"ours");
            let there = inner.get("claims/1").unwrap();
            match outcome {
                Ok(Published::Ours) => assert_eq!(there.as_deref(), Some(&b"ours"[..]), "seed {seed}"),
                Ok(Published::Theirs) => assert!(contended, "seed {seed}"),
                Err(_) => {}
            }
            outcomes[match outcome {
                Ok(Published::Ours) => 0,
                Ok(Published::Theirs) => 1,
                Err(_) => 2,
            }] += 1;
        }
        assert!(
            outcomes.iter().all(|count| *count > 50),
            "every outcome occurs: {outcomes:?}"
        );
    }
}

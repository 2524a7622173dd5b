//! What differs between two sequences of messages, one of which should be the other.
//!
//! ```text
//!  expected   a b c d e f          missing c: what follows it is found where it should be
//!  found      a b   d x e F        extra x; altered f, for what follows both is the same again
//! ```
//!
//! Both are read side by side. Where they part, the nearest place at which they meet again decides: behind
//! messages of the one (missing), of the other (extra), or of both (altered). It is looked for within
//! [`WINDOW`] messages; two that never meet again are one message altered if they have one key.
//!
//! Assumes that differences are few; of many in a row it says how many there are, but not always of which sort.
//! Pure, and bounded by the window.

use crate::time::Epoch;
use std::collections::VecDeque;

/// How far ahead the two are looked through for the place at which they meet again, messages.
pub const WINDOW: usize = 256;

/// A message on either side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// What is compared.
    pub bytes: Vec<u8>,
    /// Its key, to tell an altered message from two.
    pub key: Option<Vec<u8>>,
    /// Its value, for people.
    pub value: Vec<u8>,
    /// `input/partition/offset` of the one message it comes from; empty where there is none, or it is not known.
    pub origin: String,
    /// Its epoch; of a message found in a file it is not known.
    pub epoch: Option<Epoch>,
    /// Where it was found: byte offset in a file, partition and offset in a topic.
    pub place: String,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Should be there.
    Missing(Row),
    /// Should not be there.
    Extra(Row),
    /// Should be another one.
    Altered {
        /// What should be there.
        expected: Row,
        /// What is there.
        found: Row,
    },
}

/// The two sequences, as far as they are read and not yet compared.
#[derive(Default)]
pub struct Aligner {
    expected: VecDeque<Row>,
    found: VecDeque<Row>,
}

impl Aligner {
    /// The next message that should be there.
    pub fn expect(&mut self, row: Row) {
        self.expected.push_back(row);
    }

    /// The next message that is there.
    pub fn find(&mut self, row: Row) {
        self.found.push_back(row);
    }

    /// Whether more of what is there would decide something: asked for after [`Aligner::advance`].
    pub fn wants_found(&self) -> bool {
        !self.expected.is_empty() && self.found.len() < WINDOW
    }

    /// Whether everything that was put in is compared.
    pub fn is_even(&self) -> bool {
        self.expected.is_empty() && self.found.is_empty()
    }

    /// Compares as far as can be decided. `all_expected`, `all_found`: no more will come of that side. Messages
    /// found behind the last expected one are left: see [`Aligner::rest`].
    pub fn advance(&mut self, all_expected: bool, all_found: bool, each: &mut impl FnMut(Difference)) {
        while let Some(expected) = self.expected.front() {
            let Some(found) = self.found.front() else {
                if all_found {
                    self.expected.drain(..).map(Difference::Missing).for_each(each);
                }
                return;
            };
            if expected.bytes == found.bytes {
                self.expected.pop_front();
                self.found.pop_front();
                continue;
            }
            let knows = |side: &VecDeque<Row>, all: bool| all || side.len() >= WINDOW;
            if !knows(&self.expected, all_expected) || !knows(&self.found, all_found) {
                return;
            }
            self.part(each);
        }
    }

    /// What was found behind everything expected.
    pub fn rest(&mut self) -> impl Iterator<Item = Row> {
        self.found.drain(..)
    }

    /// The two part here: goes on where they meet again.
    fn part(&mut self, each: &mut impl FnMut(Difference)) {
        let (expected, found) = (&self.expected, &self.found);
        let same = |one: usize, other: usize| match (expected.get(one), found.get(other)) {
            (Some(one), Some(other)) => one.bytes == other.bytes,
            _ => false,
        };
        let (mut missing, mut extra, mut altered) = (0, 0, 0);
        for ahead in 1..WINDOW {
            if same(ahead, 0) {
                missing = ahead;
            } else if same(0, ahead) {
                extra = ahead;
            } else if same(ahead, ahead) {
                altered = ahead;
            } else {
                continue;
            }
            break;
        }
        if (missing, extra, altered) == (0, 0, 0) {
            let is_one = match (expected.front(), found.front()) {
                (Some(one), Some(other)) => one.key == other.key,
                _ => false,
            };
            (missing, altered) = if is_one { (0, 1) } else { (1, 0) };
        }
        self.expected
            .drain(..missing)
            .map(Difference::Missing)
            .for_each(&mut *each);
        self.found
            .drain(..extra)
            .map(Difference::Extra)
            .for_each(&mut *each);
        let pairs = self.expected.drain(..altered).zip(self.found.drain(..altered));
        pairs
            .map(|(expected, found)| Difference::Altered { expected, found })
            .for_each(each);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::unreliable::Random;

    fn row(number: u64) -> Row {
        Row {
            bytes: number.to_le_bytes().to_vec(),
            key: Some((number % 1_000).to_le_bytes().to_vec()),
            ..Row::default()
        }
    }

    /// Compares as a reader of a long file does: what should be there in groups, what is there when it is asked for.
    fn differences(random: &mut Random, expected: &[Row], found: &[Row]) -> Vec<Difference> {
        let (mut aligner, mut differences) = (Aligner::default(), Vec::new());
        let (mut next, mut rest) = (0, expected);
        loop {
            let (group, later) = rest.split_at(rest.len().min(random.below(40) as usize));
            rest = later;
            group.iter().for_each(|row| aligner.expect(row.clone()));
            loop {
                let each = &mut |difference| differences.push(difference);
                aligner.advance(rest.is_empty(), next == found.len(), each);
                if next == found.len() || !aligner.wants_found() {
                    break;
                }
                aligner.find(found[next].clone());
                next += 1;
            }
            if rest.is_empty() {
                return differences;
            }
        }
    }

    /// What was done to a copy is what is found, wherever it was done.
    #[test]
    fn every_planted_difference_is_found_as_what_it_is() {
        let mut planted = 0;
        for seed in 0..300 {
            let mut random = Random(seed);
            let expected: Vec<Row> = (0..20 + random.below(900)).map(row).collect();
            let (mut found, mut wanted) = (Vec::new(), Vec::new());
            let mut untouched = 0;
            for (at, expected) in expected.iter().enumerate() {
                untouched += 1;
                // Two neighbours that are both touched may as well be told as something else.
                match random.below(60) {
                    0 if untouched > 3 => wanted.push(Difference::Missing(expected.clone())),
                    1 if untouched > 3 => {
                        let extra = row(1_000_000 + at as u64);
                        wanted.push(Difference::Extra(extra.clone()));
                        found.extend([extra, expected.clone()]);
                    }
                    2 if untouched > 3 => {
                        let other = row(5_000 + at as u64);
                        let (expected, found_row) = (expected.clone(), other.clone());
                        wanted.push(Difference::Altered {
                            expected,
                            found: found_row,
                        });
                        found.push(other);
                    }
                    _ => {
                        found.push(expected.clone());
                        continue;
                    }
                }
                untouched = 0;
            }
            planted += wanted.len();
            assert_eq!(differences(&mut random, &expected, &found), wanted, "seed {seed}");
        }
        assert!(planted > 500, "{planted} differences");
    }

    #[test]
    fn what_follows_the_last_expected_message_is_nobodys() {
        let mut random = Random(1);
        let (expected, found) = ([row(1), row(2)], [row(1), row(2), row(3)]);
        assert_eq!(differences(&mut random, &expected, &found), []);
        let missing = Difference::Missing(row(2));
        assert_eq!(differences(&mut random, &expected, &found[..1]), [missing]);
    }
}

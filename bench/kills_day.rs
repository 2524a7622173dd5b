//! The days of a kill campaign: generated once, run undisturbed once, copied for every round.
//!
//! ```text
//!  <temporary>/finite    tables change all day   ─► calm: read to the end
//!             /followed  tables stand still      ─► calm: read to the end; rounds follow growing files
//!             /round-N   copies: inputs linked, outputs and state new
//! ```
//!
//! Outputs are compared as multisets of lines. A round that followed its inputs has cut its epochs by the
//! clock, so of
//! `counts`, which gives a row per epoch, the last row of each key is compared; tables stand still there
//! because what an
//! entry meets would depend on when it was read.

use crate::kills::Chance;
use crate::kills_run::{Death, End, Program};
use crate::process::now;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Checkpoints come often, so that kills fall into them, milliseconds.
const CHECKPOINT_MS: u64 = 40;

/// Followed epochs are this long, milliseconds.
const EPOCH_MS: u64 = 5;

/// A file grows to its full length in about so many pieces.
const PIECES: u64 = 200;

/// A directory with a job.
pub struct DayCopy {
    /// Where `job.toml` lies.
    pub directory: PathBuf,
    /// The undisturbed run.
    pub is_calm: bool,
    /// The inputs lie here in full, where they are to grow.
    inputs: PathBuf,
}

/// A day and what an undisturbed run makes of it.
pub struct Reference {
    directory: PathBuf,
    /// By file name, sorted lines.
    outputs: BTreeMap<String, Vec<Vec<u8>>>,
    /// How long the undisturbed run took.
    pub seconds: Duration,
}

/// The days of a campaign; their directory is removed with them, unless rounds were left in it for
/// inspection.
pub struct Days {
    /// For rounds that read to the end.
    pub finite: Reference,
    /// For rounds that follow.
    pub followed: Reference,
    directory: PathBuf,
}

impl Drop for Days {
    fn drop(&mut self) {
        for reference in [&self.finite, &self.followed] {
            let _ = fs::remove_dir_all(&reference.directory);
        }
        // Fails while rounds that differ are in it: they are what a person wants to see.
        let _ = fs::remove_dir(&self.directory);
    }
}

/// Generates both days and runs each undisturbed.
pub fn prepare(program: &Program, seed: u64, accounts: u32, workers: usize) -> Result<Days, String> {
    let directory = std::env::temp_dir().join(format!("tidegate-kills-{}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).map_err(|error| format!("a temporary directory: {error}"))?;
    let day = |name: &str, more: &[&str]| {
        let path = directory.join(name);
        let words = [
            "--seed",
            &seed.to_string(),
            "--accounts",
            &accounts.to_string(),
            "--out",
            &path.display().to_string(),
        ];
        let words: Vec<String> = words.iter().chain(more).map(|word| (*word).to_owned()).collect();
        program.generate(&words)?;
        hasten(&path.join("job.toml")).map_err(|error| format!("the job file: {error}"))?;
        Reference::new(program, path, workers)
    };
    let finite = day("finite", &[])?;
    let followed = day("followed", &["--changes", "0"])?;
    Ok(Days {
        finite,
        followed,
        directory,
    })
}

/// Makes checkpoints and epochs frequent.
fn hasten(job: &Path) -> io::Result<()> {
    let text = fs::read_to_string(job)?;
    fs::write(
        job,
        format!("{text}\n[checkpoint]\ninterval_ms = {CHECKPOINT_MS}\n\n[epoch]\ninterval_ms = {EPOCH_MS}\n"),
    )
}

impl Reference {
    fn new(program: &Program, directory: PathBuf, workers: usize) -> Result<Self, String> {
        let mut reference = Reference {
            directory,
            outputs: BTreeMap::new(),
            seconds: Duration::ZERO,
        };
        let mut calm = reference.copy_as("calm")?;
        calm.is_calm = true;
        let started = now();
        match program.run(&calm, workers, Death::None, None, &mut Chance::new(0)) {
            End::Done => {}
            end => return Err(format!("the undisturbed run: {end:?}")),
        }
        reference.seconds = started.elapsed();
        reference.outputs = outputs(&calm.directory).map_err(|error| format!("its outputs: {error}"))?;
        if reference.outputs.values().all(Vec::is_empty) {
            return Err("the undisturbed run gave nothing".to_owned());
        }
        calm.remove();
        Ok(reference)
    }

    /// A copy for this round: its own job, the day's inputs.
    pub fn copy(&self, round: u64) -> Result<DayCopy, String> {
        self.copy_as(&format!("round-{round}"))
    }

    fn copy_as(&self, name: &str) -> Result<DayCopy, String> {
        let directory = self.directory.with_file_name(name);
        let copied = || -> io::Result<()> {
            fs::create_dir_all(&directory)?;
            for entry in fs::read_dir(&self.directory)? {
                let entry = entry?;
                fs::hard_link(entry.path(), directory.join(entry.file_name()))?;
            }
            Ok(())
        };
        copied().map_err(|error| format!("a copy of the day: {error}"))?;
        Ok(DayCopy {
            directory,
            is_calm: false,
            inputs: self.directory.clone(),
        })
    }

    /// What a copy's outputs have that they should not, and the other way round, by file. `last_counts`: of
    /// counts, only
    /// the last row of each key.
    pub fn differences(&self, copy: &DayCopy, last_counts: bool) -> Vec<String> {
        let found = match outputs(&copy.directory) {
            Ok(found) => found,
            Err(error) => return vec![format!("its outputs cannot be read: {error}")],
        };
        let names: std::collections::BTreeSet<_> = self.outputs.keys().chain(found.keys()).collect();
        let difference = |name: &String| {
            let empty = Vec::new();
            let (expected, found) = (
                self.outputs.get(name).unwrap_or(&empty),
                found.get(name).unwrap_or(&empty),
            );
            let (missing, surplus) = if last_counts && name == "counts.jsonl" {
                compare(&greatest_rows(expected), &greatest_rows(found))
            } else {
                compare(expected, found)
            };
            (missing + surplus > 0).then(|| format!("{name}: {missing} missing, {surplus} too many"))
        };
        names.into_iter().filter_map(difference).collect()
    }
}

impl DayCopy {
    /// Whether a life would take up a checkpoint.
    pub fn has_checkpoint(&self) -> bool {
        fs::read_dir(self.directory.join("state/manifests"))
            .is_ok_and(|mut manifests| manifests.next().is_some())
    }

    /// Removes it.
    pub fn remove(&self) {
        // What stays behind is only in the way of a person.
        let _ = fs::remove_dir_all(&self.directory);
    }

    /// Empties the event inputs, so that they can grow to their full size again.
    pub fn growth(&self) -> Growing {
        let inputs = ["entries", "orders", "payments", "transactions", "events"];
        let is_event_input = |name: &str| inputs.iter().any(|input| name.starts_with(&format!("{input}-")));
        let names = fs::read_dir(&self.inputs).into_iter().flatten().flatten();
        let mut names: Vec<String> = names
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.retain(|name| is_event_input(name));
        names.sort();
        let mut files = Vec::new();
        for name in names {
            let path = self.directory.join(&name);
            // The link goes, so that the day's own file stays whole.
            let _ = fs::remove_file(&path);
            let _ = fs::write(&path, []);
            files.push((path, fs::read(self.inputs.join(&name)).unwrap_or_default(), 0));
        }
        Growing(files)
    }
}

/// Files that grow: path, all bytes, how many are there.
pub struct Growing(Vec<(PathBuf, Vec<u8>, usize)>);

impl Growing {
    /// Appends some bytes to every file, wherever in a line that ends.
    pub fn grow(&mut self, chance: &mut Chance) -> Result<(), String> {
        for (path, bytes, length) in &mut self.0 {
            let piece = chance.below(2 * (bytes.len() as u64 / PIECES + 1));
            let more = (piece as usize).min(bytes.len() - *length);
            if more == 0 {
                continue;
            }
            let file = fs::OpenOptions::new().append(true).open(&*path);
            let appended = file.and_then(|mut file| file.write_all(&bytes[*length..*length + more]));
            appended.map_err(|error| format!("an input cannot grow: {error}"))?;
            *length += more;
        }
        Ok(())
    }

    /// Whether all bytes are there.
    pub fn is_complete(&self) -> bool {
        self.0.iter().all(|(_, bytes, length)| *length == bytes.len())
    }
}

/// The lines of every output file, sorted.
fn outputs(directory: &Path) -> io::Result<BTreeMap<String, Vec<Vec<u8>>>> {
    let mut outputs = BTreeMap::new();
    for entry in fs::read_dir(directory.join("out"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".jsonl") {
            outputs.insert(name, sorted_lines(&fs::read(entry.path())?));
        }
    }
    Ok(outputs)
}

fn sorted_lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut lines: Vec<_> = bytes
        .split_inclusive(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect();
    lines.sort_unstable();
    lines
}

/// Of rows of counts, the greatest of each key: counts only rise.
pub fn greatest_rows(lines: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut greatest = BTreeMap::<String, i64>::new();
    for line in lines {
        let row = serde_json::from_slice::<serde_json::Value>(line).unwrap_or_default();
        let (key, count) = (
            row["key"].to_string(),
            row["value"]["count"].as_i64().unwrap_or(-1),
        );
        let so_far = greatest.entry(key).or_insert(count);
        *so_far = count.max(*so_far);
    }
    greatest
        .into_iter()
        .map(|(key, count)| format!("{key} {count}").into_bytes())
        .collect()
}

/// How many lines of the first are not in the second, and the other way round. Both are sorted.
pub fn compare(expected: &[Vec<u8>], found: &[Vec<u8>]) -> (usize, usize) {
    let (mut missing, mut surplus) = (0, 0);
    let (mut one, mut other) = (expected.iter().peekable(), found.iter().peekable());
    loop {
        let order = match (one.peek(), other.peek()) {
            (Some(one), Some(other)) => one.cmp(other),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => return (missing, surplus),
        };
        if order.is_le() {
            one.next();
        }
        if order.is_ge() {
            other.next();
        }
        missing += usize::from(order.is_lt());
        surplus += usize::from(order.is_gt());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<Vec<u8>> {
        sorted_lines(text.as_bytes())
    }

    #[test]
    fn multisets_of_lines_are_compared() {
        assert_eq!(compare(&lines("a\nb\n"), &lines("b\na\n")), (0, 0));
        assert_eq!(compare(&lines("a\nb\n"), &lines("a\na\nb\n")), (0, 1));
        assert_eq!(compare(&lines("a\nb\nc\n"), &lines("b\nd\n")), (2, 1));
        assert_eq!(
            compare(&lines("a\nb\n"), &lines("a\nb")),
            (1, 1),
            "a torn last line is another line"
        );
    }

    #[test]
    fn of_counts_the_last_row_of_a_key_counts() {
        let rows = |counts: &[i64]| {
            let row = |count: &i64| format!("{{\"key\":\"k\",\"value\":{{\"count\":{count}}}}}\n");
            lines(&counts.iter().map(row).collect::<String>())
        };
        assert_eq!(greatest_rows(&rows(&[2, 10, 9])), greatest_rows(&rows(&[10])));
        assert_ne!(greatest_rows(&rows(&[2])), greatest_rows(&rows(&[3])));
    }
}

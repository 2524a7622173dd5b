//! A job whose input files grow step by step, and what must be committed in the end.
//!
//! ```text
//!  append ─► whatever is done to the job ─► append ─► ... ─► a finite run closes the rest ─► as expected
//! ```
//!
//! Epochs are cut by the clock here, so outputs are compared as the contract promises them: equal messages, in equal
//! order for each account, key, user or partition. No table changes after the start. `counts` has a row per epoch: of
//! it the last row per key must be equal, and rows must rise.

use crate::day::{
    Files, OFTEN, count_lines, generated, in_directory, inputs, outputs, run, status, write_job,
};
use crate::harness::Directory;
use crate::process::Running;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::LazyLock;
use tidegate::checkpoint::unreliable::Random;

/// These files appear while the job runs. Nothing is ever late for the dataflows that read them: a partition that is
/// found later starts behind a floor, which would be seen in the others.
const LATER: [&str; 2] = ["entries-2.jsonl", "events-2.jsonl"];

/// A day on which no table changes.
static QUIET: LazyLock<Files> = LazyLock::new(|| {
    let size = [
        "--accounts=150",
        "--entries=900",
        "--changes=0",
        "--orders=900",
        "--transactions=3000",
    ];
    generated(&[&size[..], &["--events=900", "--partitions=3"]].concat())
});

/// What a finite run of it gives.
static EXPECTED: LazyLock<Files> = LazyLock::new(|| {
    let directory = in_directory(&QUIET);
    write_job(&directory, OFTEN, "");
    run(&directory, 1).with_code(0);
    let outputs = outputs(&directory);
    for (name, content) in &outputs {
        assert!(
            name == "dead_letters.jsonl" || count_lines(content) > 4,
            "{name}: too little to compare"
        );
    }
    outputs
});

/// A job that is fed step by step.
pub struct Fed {
    /// Where it lies.
    pub directory: Directory,
    /// What the seed decides.
    pub random: Random,
    /// By file: how much of it is there.
    there: BTreeMap<&'static str, usize>,
}

impl Fed {
    /// All tables, and no event yet.
    pub fn new(seed: u64) -> Fed {
        let directory = Directory::in_memory();
        write_job(&directory, OFTEN, "");
        let mut there = BTreeMap::new();
        let is_later = |name: &&String| LATER.contains(&name.as_str());
        for (name, content) in QUIET
            .iter()
            .filter(|(name, _)| name.ends_with(".jsonl") && !is_later(name))
        {
            let is_table = ["authorizations", "settings", "devices"]
                .iter()
                .any(|table| name.starts_with(table));
            let length = if is_table { content.len() } else { 0 };
            directory.write(name, &content[..length]);
            there.insert(name.as_str(), length);
        }
        Fed {
            directory,
            random: Random(seed),
            there,
        }
    }

    /// The files that are not there from the start.
    pub fn add_later_files(&mut self) {
        for name in LATER {
            self.directory.write(name, "");
            self.there.insert(name, 0);
        }
    }

    /// Appends some bytes to every file, cut anywhere; all that is left, in the last of the steps.
    pub fn append(&mut self, is_last: bool) {
        for (name, there) in &mut self.there {
            let content = &QUIET[*name][*there..];
            let most = if is_last {
                content.len()
            } else {
                content.len().min(40_000)
            };
            let length = if is_last {
                most
            } else {
                self.random.below(most as u64 / 2 + 1) as usize
            };
            let file = std::fs::File::options()
                .append(true)
                .open(self.directory.path(name));
            file.and_then(|mut file| file.write_all(&content[..length]))
                .expect("a file that grows");
            *there += length;
        }
    }

    /// Whether every complete line that is there is committed.
    pub fn is_committed(&self) -> bool {
        let complete = |name: &str, there: usize| {
            QUIET[name][..there]
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |end| end as u64 + 1)
        };
        let committed = inputs(&status(&self.directory));
        self.there
            .iter()
            .all(|(name, there)| committed.get(*name).copied().unwrap_or(0) == complete(name, *there))
    }

    /// Waits until every complete line that is there is committed.
    #[track_caller]
    pub fn until_committed(&self, running: &mut Running) {
        let committed = running.until(|| self.is_committed());
        assert!(committed, "it ended by itself:\n{}", running.log());
    }

    /// A finite run closes what no watermark has closed; then everything is as expected.
    pub fn assert_complete(&self, story: &str) {
        run(&self.directory, 2).with_code(0);
        let found = outputs(&self.directory);
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            EXPECTED.keys().collect::<Vec<_>>()
        );
        for (name, content) in &*EXPECTED {
            assert_eq!(
                grouped(name, &found[name]),
                grouped(name, content),
                "{story}: {name}"
            );
        }
    }
}

/// The messages of an output by what they are in order for; `counts` by its last rows.
fn grouped(name: &str, content: &[u8]) -> BTreeMap<String, Vec<String>> {
    let mut groups = BTreeMap::<String, Vec<String>>::new();
    for line in content
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let message: serde_json::Value = serde_json::from_slice(line).expect("a line is JSON");
        let value = &message["value"];
        let group = match name {
            "dead_letters.jsonl" => {
                format!("{} {} {}", value["input"], value["partition"], value["dataflow"])
            }
            "aggregates.jsonl" | "enriched.jsonl" | "counts.jsonl" => message["key"].to_string(),
            "risk_alerts.jsonl" | "risk_timeouts.jsonl" => message["key"].to_string(),
            _ => value["account_id"].to_string(),
        };
        groups
            .entry(group)
            .or_default()
            .push(String::from_utf8_lossy(line).into_owned());
    }
    for lines in groups.values_mut() {
        match name {
            "enriched.jsonl" => lines.sort_unstable(), // no order is promised
            "counts.jsonl" => {
                let count = |line: &String| -> u64 {
                    let message: serde_json::Value = serde_json::from_str(line).expect("JSON");
                    message["value"]["count"].as_u64().expect("a count")
                };
                assert!(
                    lines.is_sorted_by(|one, next| count(one) < count(next)),
                    "{lines:?}"
                );
                lines.drain(..lines.len() - 1);
            }
            _ => {}
        }
    }
    groups
}

//! The report of a run: an aligned table, curves, verdicts; and the directory in which it is kept.
//!
//! ```text
//!  <out>/<date>-<host>/  report.txt   what was printed
//!                        report.json  host, arguments, every measurement, every verdict
//!                        *.hgrm       latencies of the open loops, for HdrHistogram's plotter
//! ```
//!
//! Nothing in it names a place on the machine that made it.

use crate::flat::{Point, growth};
use crate::measure::{Case, Figures, Outcome};
use crate::process::Host;
use crate::replay::Run;
use crate::rows::Form;
use crate::suite::{Measurement, Verdict, form, pending_curve, ratio};
use crate::workload::Part;
use serde::Serialize;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tidegate::columns::aligned;

/// Everything about a run.
#[derive(Serialize)]
pub struct Report {
    /// Where it was made.
    pub host: Host,
    /// The command line, without the program.
    pub arguments: Vec<String>,
    /// In the order in which they were made.
    pub measurements: Vec<Measurement>,
    /// Of the targets that were measured.
    pub verdicts: Vec<Verdict>,
}

impl Report {
    /// As text for people.
    pub fn text(&self) -> String {
        let Host {
            name,
            cores,
            processor,
            kernel,
            memory,
            commit,
            date,
        } = &self.host;
        let mut text = format!(
            "tidegate-bench {}\n{date}, commit {commit}\n\
             {name}: {cores} cores, {processor}, {} GB, {kernel}\n",
            self.arguments.join(" "),
            memory >> 30,
        );
        let mut section = |title: &str, body: String| {
            if !body.is_empty() {
                // Writing to a String cannot fail.
                let _ = write!(text, "\n{title}\n{body}");
            }
        };
        section(RUNS, aligned(&self.runs()));
        section(PAST, aligned(&self.past()));
        section(PENDING, aligned(&self.pending()));
        section(
            "Memory: the same rows written again and again.",
            aligned(&self.memory()),
        );
        section(ROWS, aligned(&self.rows()));
        section(REPLAYS, aligned(&self.replays()));
        section("Targets.", aligned(&self.targets()));
        text
    }

    fn runs(&self) -> Vec<Vec<String>> {
        let row = |measurement: &Measurement| {
            let Outcome::Figures(figures) = &measurement.outcome else {
                return None;
            };
            let ratio = ratio(measurement, &self.measurements);
            let mut row = described(measurement.case)?;
            row.extend(numbers(figures, ratio));
            Some(row)
        };
        titled(&RUN_TITLES, self.measurements.iter().filter_map(row))
    }

    fn past(&self) -> Vec<Vec<String>> {
        let row = |measurement: &Measurement| match (measurement.case, &measurement.outcome) {
            (Case::Past { part, .. }, Outcome::Curve(points)) => Some(curve(part, points)),
            _ => None,
        };
        self.measurements.iter().filter_map(row).collect()
    }

    fn pending(&self) -> Vec<Vec<String>> {
        let curves = [Part::Windows, Part::Joins, Part::Patterns]
            .map(|part| (part, pending_curve(part, &self.measurements)));
        let there = curves.iter().filter(|(_, points)| !points.is_empty());
        there.map(|(part, points)| curve(*part, points)).collect()
    }

    fn memory(&self) -> Vec<Vec<String>> {
        let row = |measurement: &Measurement| {
            let Outcome::Growth(growth) = &measurement.outcome else {
                return None;
            };
            let megabytes = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
            Some(vec![
                growth.rows.to_string(),
                growth.rewrites.to_string(),
                megabytes(growth.loaded.now),
                megabytes(growth.rewritten.now),
                megabytes(growth.rewritten.peak),
                format!("{:.2}", growth.ratio()),
            ])
        };
        let titles = [
            "rows",
            "rewrites",
            "MB loaded",
            "MB rewritten",
            "MB peak",
            "ratio",
        ];
        titled(&titles, self.measurements.iter().filter_map(row))
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let json = form(Form::Json, &self.measurements);
        let row = |measurement: &Measurement| {
            let (Case::Rows { form, .. }, Outcome::Rows(rows)) = (measurement.case, &measurement.outcome)
            else {
                return None;
            };
            let times = json.map(|json| rows.read_rate() / json.read_rate());
            Some(vec![
                form.name().to_owned(),
                rows.rows.to_string(),
                format!("{:.1}", rows.bytes as f64 / rows.rows.max(1) as f64),
                format!("{:.2}", rows.write_rate() / 1e6),
                format!("{:.2}", rows.read_rate() / 1e6),
                times.map_or_else(String::new, |times| format!("{times:.2}")),
            ])
        };
        let titles = ["form", "messages", "B each", "M/s written", "M/s read", "x JSON"];
        titled(&titles, self.measurements.iter().filter_map(row))
    }

    fn replays(&self) -> Vec<Vec<String>> {
        let rows = |measurement: &Measurement| {
            let (Case::Replay { source, entries, .. }, Outcome::Replays(Ok(runs))) =
                (measurement.case, &measurement.outcome)
            else {
                return Vec::new();
            };
            let row = |run: &Run| {
                vec![
                    format!("{source:?}"),
                    entries.to_string(),
                    run.workers.to_string(),
                    format!("{:?}", run.caching),
                    format!("{:.1}", run.seconds),
                    format!("{:.3}", entries as f64 / run.seconds / 1e6),
                    format!("{:.0}", run.peak as f64 / 1e6),
                ]
            };
            runs.iter().map(row).collect()
        };
        let titles = ["source", "entries", "workers", "log", "s", "M/s", "MB peak"];
        titled(&titles, self.measurements.iter().flat_map(rows))
    }

    fn targets(&self) -> Vec<Vec<String>> {
        let row = |verdict: &Verdict| {
            let reached = if verdict.reached { "reached" } else { "MISSED" };
            vec![reached.to_owned(), verdict.target.clone(), verdict.found.clone()]
        };
        self.verdicts.iter().map(row).collect()
    }

    /// Keeps the report below `out`; gives its directory.
    pub fn save(&self, out: &Path) -> io::Result<PathBuf> {
        let date = self.host.date.split('T').next().unwrap_or_default();
        let directory = out.join(format!("{date}-{}", self.host.name));
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("report.txt"), self.text())?;
        fs::write(directory.join("report.json"), serde_json::to_vec_pretty(self)?)?;
        for measurement in &self.measurements {
            if let (Case::OpenLoop { part, workers, .. }, Outcome::Figures(figures)) =
                (measurement.case, &measurement.outcome)
            {
                let name = format!("open-loop-{}-{workers}.hgrm", part.name());
                fs::write(directory.join(name), figures.hgrm.as_deref().unwrap_or_default())?;
            }
        }
        Ok(directory)
    }
}

const RUNS: &str = "\
Runs. Rates and CPU of the epochs after the tables' load; ratio: rate over that of the loop by hand above.
Latencies in ms, of epochs (first record fed to last output complete), open loop: of records, from intended
arrival to sealed. MB: resident with the inputs in memory, and the peak, both with the inputs counted.";

const RUN_TITLES: [&str; 13] = [
    "part",
    "form",
    "by",
    "step",
    "M/s",
    "ratio",
    "CPU s/M",
    "p50",
    "p99",
    "p99.9",
    "max",
    "MB inputs",
    "MB peak",
];

const PAST: &str = "\
Flat cost: median time of an epoch of ten records, microseconds, after so many epochs; last over first.";

const ROWS: &str = "\
Rows: account entries from bytes to owned, checked records on one thread; the replay log from files (in the page
cache) with checksums, the others from memory.";

const REPLAYS: &str = "\
Replays of alerts by the program, from its start to its exit, tables and commits included. Plain: without a log;
first: while it is written; cached: from it.";

const PENDING: &str = "\
Flat cost: the same with so many open windows, waiting orders or timers pending; last over first.";

/// Part, form, by whom, step.
fn described(case: Case) -> Option<Vec<String>> {
    let engine = |workers: usize| format!("{workers} worker{}", if workers == 1 { "" } else { "s" });
    let (part, size, form, by) = match case {
        Case::Decoded { part, size, workers } => (part, size, "decoded", engine(workers)),
        Case::Loop { part, size } => (part, size, "decoded", "loop".to_owned()),
        Case::Bytes { part, size, workers } => (part, size, "bytes", engine(workers)),
        Case::LoopBytes { part, size } => (part, size, "bytes", "loop".to_owned()),
        Case::OpenLoop {
            part, size, workers, ..
        } => (part, size, "open loop", engine(workers)),
        Case::Past { .. }
        | Case::Pending { .. }
        | Case::Memory { .. }
        | Case::Rows { .. }
        | Case::Replay { .. } => return None,
    };
    Some(vec![
        part.name().to_owned(),
        form.to_owned(),
        by,
        size.step.to_string(),
    ])
}

fn numbers(figures: &Figures, ratio: Option<f64>) -> Vec<String> {
    let millis = |micros: f64| format!("{:.3}", micros / 1e3);
    let megabytes = |bytes: u64| format!("{:.0}", bytes as f64 / 1e6);
    let latency = figures.latency_us;
    vec![
        format!("{:.3}", figures.rate() / 1e6),
        ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
        format!("{:.3}", figures.cpu_per_million()),
        millis(latency.p50),
        millis(latency.p99),
        millis(latency.p999),
        millis(latency.max),
        megabytes(figures.resident.now),
        megabytes(figures.resident.peak),
    ]
}

fn curve(part: Part, points: &[Point]) -> Vec<String> {
    let mut row = vec![part.name().to_owned()];
    row.extend(
        points
            .iter()
            .map(|point| format!("{}: {:.1}", point.behind, point.micros)),
    );
    row.push(format!("{:.2} x", growth(points)));
    row
}

/// Rows under their titles; nothing without rows.
pub fn titled(titles: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Vec<Vec<String>> {
    let mut rows: Vec<_> = rows.collect();
    if !rows.is_empty() {
        rows.insert(0, titles.iter().map(|title| (*title).to_owned()).collect());
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_its_host_and_what_was_missed() {
        let verdict = |target: &str, reached| Verdict {
            target: target.to_owned(),
            found: "1".to_owned(),
            reached,
        };
        let report = Report {
            host: Host {
                name: "sill".to_owned(),
                date: "2025-01-31T00:00:00Z".to_owned(),
                ..Host::default()
            },
            arguments: vec!["alerts".to_owned()],
            measurements: Vec::new(),
            verdicts: vec![verdict("fast", true), verdict("small", false)],
        };
        let text = report.text();
        assert!(
            text.contains("sill") && text.contains("reached  fast") && text.contains("MISSED   small"),
            "{text}"
        );
    }
}

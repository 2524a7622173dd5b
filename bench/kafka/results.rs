//! What a Kafka measurement found: tables for people, verdicts on the targets, files beside the other runs.
//!
//! ```text
//!  <out>/<date>-<host>/  kafka.txt    what was printed
//!                        kafka.json   host, arguments, every run, every verdict
//!                        kafka-<who>-<interval>ms-<rate>.hgrm
//! ```
//!
//! Runs of the same setup are merged, void ones left out unless there is nothing else.

use super::drain::Drained;
use super::open_loop::{Figures, Setup, Subject};
use super::recovery::Recovered;
use super::scene::Spent;
use crate::latency::{Latencies, Percentiles};
use crate::process::Host;
use crate::report::titled;
use crate::suite::Verdict;
use crate::workload::Part;
use serde::Serialize;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};
use tidegate::columns::aligned;
use tidegate::run::Latency;

/// Interval and rate for which latency has a target.
const TARGET: (u64, u64) = (10, 5_000);

/// Everything that was found.
#[derive(Serialize)]
pub struct Results {
    host: Host,
    arguments: Vec<String>,
    /// Open-loop runs, in order.
    pub runs: Vec<Figures>,
    /// Drained backlogs, in order.
    pub drained: Vec<Drained>,
    /// Kills.
    pub recovered: Option<Recovered>,
    verdicts: Vec<Verdict>,
}

/// Runs of one setup, merged.
struct Merged {
    setup: Setup,
    latencies: Latencies,
    percentiles: Percentiles,
    cores: f64,
}

impl Results {
    /// Nothing yet.
    pub fn new(host: Host, arguments: Vec<String>) -> Results {
        Results {
            host,
            arguments,
            runs: Vec::new(),
            drained: Vec::new(),
            recovered: None,
            verdicts: Vec::new(),
        }
    }

    fn merged(&self) -> Vec<Merged> {
        let mut setups: Vec<Setup> = Vec::new();
        for run in &self.runs {
            if !setups.contains(&run.setup) {
                setups.push(run.setup);
            }
        }
        let merge = |setup: Setup| {
            let all: Vec<&Figures> = self.runs.iter().filter(|run| run.setup == setup).collect();
            let good: Vec<&Figures> = all.iter().copied().filter(|run| run.void.is_empty()).collect();
            let runs = if good.is_empty() { all } else { good };
            let mut latencies = Latencies::new();
            for own in runs.iter().filter_map(|run| run.latencies.as_ref()) {
                latencies.merge(&own.counts());
            }
            Merged {
                setup,
                percentiles: latencies.percentiles(),
                latencies,
                cores: runs.iter().map(|run| run.cores.subject).sum::<f64>() / runs.len().max(1) as f64,
            }
        };
        setups.into_iter().map(merge).collect()
    }

    /// Holds what was found against the targets.
    pub fn judge(&mut self) {
        let merged = self.merged();
        let at = |subject| {
            let is_meant = |merged: &&Merged| {
                let Setup {
                    interval_ms, rate, ..
                } = merged.setup;
                merged.setup.subject == subject && (interval_ms, rate) == TARGET
            };
            merged.iter().find(is_meant)
        };
        let mut verdicts = Vec::new();
        if let (Some(engine), Some(floor)) = (at(Subject::Engine), at(Subject::Floor)) {
            let (one, other) = (engine.percentiles, floor.percentiles);
            verdicts.push(most(
                "p50 at 10 ms epochs over the floor's",
                one.p50 / other.p50,
                1.2,
                " x",
            ));
            verdicts.push(most(
                "p99 at 10 ms epochs over the floor's",
                one.p99 / other.p99,
                1.5,
                " x",
            ));
            verdicts.push(most("p50 at 10 ms epochs", one.p50 / 1e3, 15.0, " ms"));
            verdicts.push(most("p99 at 10 ms epochs", one.p99 / 1e3, 30.0, " ms"));
            verdicts.push(most(
                "cores of the engine at 5 000 entries/s",
                engine.cores,
                0.2,
                "",
            ));
        }
        for drained in &self.drained {
            let least = if drained.part == Part::Alerts { 2.5 } else { 4.0 };
            let name = drained.part.name();
            verdicts.push(most(
                &format!("draining {name}: CPU-s/M"),
                drained.cpu_per_million,
                least,
                "",
            ));
            verdicts.push(most(
                &format!("draining {name}: MB at the peak"),
                drained.peak as f64 / 1e6,
                400.0,
                "",
            ));
        }
        verdicts.extend(self.poison());
        if let Some(recovered) = &self.recovered {
            verdicts.push(most(
                "kill -9 to new output: p99",
                recovered.percentiles.p99 / 1e6,
                3.0,
                " s",
            ));
        }
        self.verdicts = verdicts;
    }

    fn poison(&self) -> Vec<Verdict> {
        let rates = |bad: bool| {
            let runs = self.drained.iter().filter(|drained| drained.part == Part::Alerts);
            let rates: Vec<f64> = runs
                .filter(|drained| (drained.bad > 0) == bad)
                .map(|run| run.rate)
                .collect();
            rates.iter().sum::<f64>() / rates.len() as f64
        };
        let mut verdicts = Vec::new();
        for drained in &self.drained {
            let Some(found) = drained.dead_letters else {
                continue;
            };
            verdicts.push(Verdict {
                target: "poison: a dead letter for every bad message, once".to_owned(),
                found: format!("{found} for {}", drained.bad),
                reached: found == drained.bad,
            });
        }
        let ratio = rates(true) / rates(false);
        if ratio.is_finite() {
            verdicts.push(Verdict {
                target: "poison: rate with 1 % bad messages at least 0.9 of the clean one".to_owned(),
                found: format!("{ratio:.2} x"),
                reached: ratio >= 0.9,
            });
        }
        verdicts
    }

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
            "tidegate-bench {}\n{date}, commit {commit}\n{name}: {cores} cores, {processor}, {} GB, {kernel}\n",
            self.arguments.join(" "),
            memory >> 30,
        );
        let mut section = |title: &str, rows: Vec<Vec<String>>| {
            if !rows.is_empty() {
                let _ = write!(text, "\n{title}\n{}", aligned(&rows)); // a String: cannot fail
            }
        };
        section(MERGED, self.table());
        section(RUNS, titled(&RUN_TITLES, self.runs.iter().map(row)));
        let spent = self.runs.iter().filter_map(spent_row);
        section(SPENT, titled(&SPENT_TITLES, spent));
        section(
            DRAINED,
            titled(&DRAIN_TITLES, self.drained.iter().map(drained_row)),
        );
        let recovered = self.recovered.iter().map(|recovered| {
            let seconds = |micros: f64| format!("{:.2}", micros / 1e6);
            let Percentiles { p50, p99, max, .. } = recovered.percentiles;
            let sizes = [recovered.accounts.to_string(), recovered.millis.len().to_string()];
            let found = [
                seconds(p50),
                seconds(p99),
                seconds(max),
                format!("{:.1}", recovered.first_start),
            ];
            sizes.into_iter().chain(found).collect()
        });
        section(RECOVERED, titled(&RECOVERY_TITLES, recovered));
        let verdict = |verdict: &Verdict| {
            let reached = if verdict.reached { "reached" } else { "MISSED" };
            vec![reached.to_owned(), verdict.target.clone(), verdict.found.clone()]
        };
        section("Targets.", self.verdicts.iter().map(verdict).collect());
        text
    }

    /// A row for each setup of the engine, with the floor's figures and the ratios.
    fn table(&self) -> Vec<Vec<String>> {
        let merged = self.merged();
        let row = |engine: &Merged| {
            let same = |floor: &&Merged| {
                floor.setup
                    == Setup {
                        subject: Subject::Floor,
                        ..engine.setup
                    }
            };
            let floor = merged.iter().find(same)?;
            let of = |all: Percentiles| [all.p50, all.p90, all.p99, all.p999, all.max];
            let both = of(engine.percentiles).into_iter().zip(of(floor.percentiles));
            let cell = |(one, other): (f64, f64)| {
                format!("{:.1} / {:.1} = {:.2}", one / 1e3, other / 1e3, one / other)
            };
            let Setup {
                interval_ms, rate, ..
            } = engine.setup;
            let mut row = vec![interval_ms.to_string(), rate.to_string()];
            row.extend(both.map(cell));
            row.push(format!("{:.2} / {:.2}", engine.cores, floor.cores));
            Some(row)
        };
        let engines = merged
            .iter()
            .filter(|merged| merged.setup.subject == Subject::Engine);
        titled(&MERGED_TITLES, engines.filter_map(row))
    }

    /// Keeps it below `out`; gives its directory.
    pub fn save(&self, out: &Path) -> io::Result<PathBuf> {
        let date = self.host.date.split('T').next().unwrap_or_default();
        let directory = out.join(format!("{date}-{}", self.host.name));
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("kafka.txt"), self.text())?;
        fs::write(directory.join("kafka.json"), serde_json::to_vec_pretty(self)?)?;
        for merged in self.merged() {
            let Setup {
                subject,
                interval_ms,
                rate,
                ..
            } = merged.setup;
            let name = format!("kafka-{}-{interval_ms}ms-{rate}.hgrm", who(subject));
            fs::write(directory.join(name), merged.latencies.hgrm())?;
        }
        Ok(directory)
    }
}

const MERGED: &str = "\
Open loop: intended to arrived, ms, engine / floor = ratio, runs of one setup merged; cores engine / floor.";

const MERGED_TITLES: [&str; 8] = ["epoch ms", "rate", "p50", "p90", "p99", "p99.9", "max", "cores"];

const RUNS: &str = "\
Open loop, every run: ms; cores busy while it counted; `others` is what the rest of the machine did meanwhile.";

const RUN_TITLES: [&str; 14] = [
    "who", "epoch ms", "rate", "p50", "p90", "p99", "p99.9", "max", "cores", "broker", "harness", "others",
    "behind s", "void",
];

const SPENT: &str = "\
The engine's own account of an epoch, warm-up included, p50 / p99 ms: from its first message taken until it was
sealed; until the transaction before was committed; until its own was.";

const SPENT_TITLES: [&str; 5] = ["epoch ms", "rate", "open", "waiting", "transaction"];

const DRAINED: &str = "Drained backlogs: rate and CPU from the first commit of the backlog to the last one.";

const DRAIN_TITLES: [&str; 9] = [
    "part",
    "messages",
    "bad",
    "dead letters",
    "tables s",
    "M/s",
    "CPU s/M",
    "CPU s in all",
    "MB peak",
];

const RECOVERED: &str = "Recovery under load, from kill -9 to the first newly committed output, seconds.";

const RECOVERY_TITLES: [&str; 6] = ["accounts", "kills", "p50", "p99", "max", "first start"];

fn who(subject: Subject) -> &'static str {
    match subject {
        Subject::Engine => "engine",
        Subject::Floor => "floor",
    }
}

fn row(run: &Figures) -> Vec<String> {
    let Setup {
        subject,
        interval_ms,
        rate,
        ..
    } = run.setup;
    let Percentiles {
        p50,
        p90,
        p99,
        p999,
        max,
    } = run.latency_us;
    let mut row = vec![who(subject).to_owned(), interval_ms.to_string(), rate.to_string()];
    row.extend([p50, p90, p99, p999, max].map(|micros| format!("{:.1}", micros / 1e3)));
    let cores = run.cores;
    row.extend([cores.subject, cores.broker, cores.harness, cores.others].map(|cores| format!("{cores:.2}")));
    row.push(
        run.behind
            .map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1}")),
    );
    row.push(run.void.join(", "));
    row
}

fn spent_row(run: &Figures) -> Option<Vec<String>> {
    let Spent {
        open_us,
        waiting_us,
        transaction_us,
    } = run.spent?;
    let both = |of: Latency| format!("{:.1} / {:.1}", of.p50 as f64 / 1e3, of.p99 as f64 / 1e3);
    let mut row = vec![run.setup.interval_ms.to_string(), run.setup.rate.to_string()];
    row.extend([open_us, waiting_us, transaction_us].map(both));
    Some(row)
}

fn drained_row(drained: &Drained) -> Vec<String> {
    vec![
        drained.part.name().to_owned(),
        drained.messages.to_string(),
        drained.bad.to_string(),
        drained
            .dead_letters
            .map_or_else(|| "-".to_owned(), |count| count.to_string()),
        format!("{:.1}", drained.loading),
        format!("{:.3}", drained.rate / 1e6),
        format!("{:.2}", drained.cpu_per_million),
        format!("{:.1}", drained.cpu_seconds),
        format!("{:.0}", drained.peak as f64 / 1e6),
    ]
}

/// A run in one line, for whoever watches.
pub fn line(run: &Figures) -> String {
    let spent = spent_row(run).map_or_else(String::new, |row| format!("; {}", cells(&SPENT_TITLES, &row)));
    format!("{}{spent}", cells(&RUN_TITLES, &row(run)))
}

/// A drained backlog in one line.
pub fn drained_line(drained: &Drained) -> String {
    cells(&DRAIN_TITLES, &drained_row(drained))
}

fn cells(titles: &[&str], row: &[String]) -> String {
    let cells = titles.iter().zip(row).filter(|(_, cell)| !cell.is_empty());
    cells
        .map(|(title, cell)| format!("{title} {cell}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// A target that is a bound from above.
fn most(what: &str, found: f64, most: f64, unit: &str) -> Verdict {
    Verdict {
        target: format!("{what}: at most {most}{unit}"),
        found: format!("{found:.2}{unit}"),
        reached: found <= most,
    }
}

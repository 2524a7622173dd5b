//! The status of a launched cluster: one aligned line per process, and the log lines above it.
//!
//! On a terminal the lines stand at the bottom and are rewritten every second; elsewhere they are logged every
//! few seconds; with `--json` there is one object a second on standard output. The leader counts what the whole
//! cluster takes; what the others report is subtracted, so that each line shows its own.

use crate::launched::Status;
use crate::print::print;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};
use tidegate::columns::aligned;
use tidegate::error::{Error, Result};

/// Where neither a terminal nor a program watches, status is logged this rarely.
const LOGGED: Duration = Duration::from_secs(5);

/// What is shown.
pub struct Board {
    bar: Option<ProgressBar>,
    is_json: bool,
    logged: Instant,
    /// At the last look, by process.
    before: Vec<Status>,
    looked: Instant,
}

/// What is known of one process.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    process: usize,
    pid: u32,
    epoch: u64,
    in_per_s: u64,
    out_per_s: u64,
    lag_ms: Option<u64>,
    rss_bytes: u64,
}

#[derive(Serialize)]
struct Shown<'a> {
    generation: u64,
    processes: &'a [Line],
}

impl Board {
    /// Nothing is shown yet.
    pub fn new(is_json: bool, now: Instant) -> Board {
        let is_terminal = std::io::stderr().is_terminal() && !is_json;
        let bar = is_terminal.then(ProgressBar::new_spinner);
        if let (Some(bar), Ok(style)) = (&bar, ProgressStyle::with_template("{msg}")) {
            bar.set_style(style);
        }
        Board {
            bar,
            is_json,
            logged: now,
            before: Vec::new(),
            looked: now,
        }
    }

    /// A new generation counts from the beginning.
    pub fn begin(&mut self, now: Instant) {
        (self.before, self.looked) = (Vec::new(), now);
    }

    /// Shows a log line of a process above the status.
    pub fn log(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => {
                let _ = writeln!(std::io::stderr(), "{line}"); // nobody is left to tell of a closed terminal
            }
        }
    }

    /// Runs what prints something of its own.
    pub fn aside(&self, print: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Shows the status of all processes: of each its id and last report.
    pub fn show(&mut self, generation: u64, processes: &[(u32, Status)], now: Instant) -> Result<()> {
        let statuses: Vec<Status> = own(processes.iter().map(|(_, status)| status.clone()).collect());
        let elapsed = now.saturating_duration_since(self.looked);
        let pids = processes.iter().map(|(pid, _)| (*pid, rss_bytes(*pid)));
        let lines = lines(&self.before, &statuses, pids, elapsed);
        (self.before, self.looked) = (statuses, now);
        if self.is_json {
            let shown = Shown {
                generation,
                processes: &lines,
            };
            let json = serde_json::to_string(&shown).map_err(|error| Error::internal(error.to_string()))?;
            return print(&format!("{json}\n"));
        }
        match &self.bar {
            Some(bar) => {
                bar.set_message(table(&lines));
                bar.tick();
            }
            None if now.saturating_duration_since(self.logged) >= LOGGED => {
                self.logged = now;
                for line in table(&lines).lines() {
                    tracing::info!("{line}");
                }
            }
            None => {}
        }
        Ok(())
    }

    /// Takes the status off the terminal.
    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What each process counts by itself.
fn own(mut statuses: Vec<Status>) -> Vec<Status> {
    if let Some((leader, members)) = statuses.split_first_mut() {
        let elsewhere: u64 = members.iter().map(|member| member.messages_in).sum();
        // Members' counts reach the leader a little later than the launcher.
        leader.messages_in = leader.messages_in.saturating_sub(elsewhere);
    }
    statuses
}

fn lines(
    before: &[Status],
    now: &[Status],
    processes: impl Iterator<Item = (u32, u64)>,
    elapsed: Duration,
) -> Vec<Line> {
    let per_second = |count: u64| {
        let seconds = elapsed.as_secs_f64().max(0.001);
        (count as f64 / seconds).round() as u64
    };
    let line = |(process, (status, (pid, rss_bytes))): (usize, (&Status, (u32, u64)))| {
        let before = before.get(process).cloned().unwrap_or_default();
        Line {
            process,
            pid,
            epoch: status.epoch,
            in_per_s: per_second(status.messages_in.saturating_sub(before.messages_in)),
            out_per_s: per_second(status.messages_out.saturating_sub(before.messages_out)),
            lag_ms: status.lag_ms,
            rss_bytes,
        }
    };
    now.iter().zip(processes).enumerate().map(line).collect()
}

fn table(lines: &[Line]) -> String {
    let head = ["process", "pid", "epoch", "in/s", "out/s", "lag", "memory"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(lines.iter().map(|line| {
        let lag = line.lag_ms.map_or_else(
            || "-".to_owned(),
            |lag| format!("{}.{:03} s", lag / 1_000, lag % 1_000),
        );
        vec![
            line.process.to_string(),
            line.pid.to_string(),
            line.epoch.to_string(),
            HumanCount(line.in_per_s).to_string(),
            HumanCount(line.out_per_s).to_string(),
            lag,
            HumanBytes(line.rss_bytes).to_string(),
        ]
    }));
    aligned(&rows)
}

/// Resident memory; 0 for a process that has ended.
fn rss_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(epoch: u64, messages_in: u64, messages_out: u64) -> Status {
        Status {
            epoch,
            messages_in,
            messages_out,
            lag_ms: None,
        }
    }

    #[test]
    fn every_line_shows_its_own_rates() {
        let before = own(vec![status(1, 150, 10), status(1, 50, 0)]);
        let now = own(vec![status(9, 3_150, 30), status(8, 1_050, 0)]);
        let processes = [(11, 3 << 20), (12, 1 << 20)];
        let lines = lines(&before, &now, processes.into_iter(), Duration::from_secs(2));
        let rates: Vec<_> = lines.iter().map(|line| (line.in_per_s, line.out_per_s)).collect();
        assert_eq!(rates, [(1_000, 10), (500, 0)]);
        let table = table(&lines);
        let shown: Vec<&str> = table.lines().collect();
        assert_eq!(
            shown,
            [
                "process  pid  epoch  in/s   out/s  lag  memory",
                "      0   11      9  1,000     10  -    3.00 MiB",
                "      1   12      8    500      0  -    1.00 MiB",
            ]
        );
    }

    #[test]
    fn a_member_that_reports_first_does_not_make_the_leader_negative() {
        assert_eq!(own(vec![status(1, 10, 0), status(1, 50, 0)])[0].messages_in, 0);
    }

    #[test]
    fn the_memory_of_this_process_is_known() {
        assert!(rss_bytes(std::process::id()) > 1 << 20);
        assert_eq!(rss_bytes(u32::MAX), 0);
    }
}

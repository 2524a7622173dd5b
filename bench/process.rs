//! What a process costs and where it ran: time, CPU, memory, host. Everything that asks the operating system.
//!
//! Memory is the kernel's count of resident pages: what a machine must have. It includes inputs held in
//! memory.

use chrono::{DateTime, SecondsFormat, Utc};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::fs;
use std::process::Command;
use std::time::{Instant, SystemTime};

/// The monotonic clock.
#[allow(clippy::disallowed_methods, reason = "a benchmark is about time")]
pub fn now() -> Instant {
    Instant::now()
}

/// CPU seconds of all threads of this process so far, user and system.
pub fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Resident memory of this process, bytes: now and at its greatest. Zero where the kernel does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resident {
    /// Now.
    pub now: u64,
    /// The greatest so far.
    pub peak: u64,
}

/// What this process holds resident.
pub fn resident() -> Resident {
    resident_of(&fs::read_to_string("/proc/self/status").unwrap_or_default())
}

/// What another process holds resident.
pub fn resident_in(pid: u32) -> Resident {
    resident_of(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default())
}

/// Forgets the peak so far, where the kernel lets a process do so; else the peak stays that of the whole
/// process.
pub fn reset_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Hundredths of a second: the unit in which Linux tells programs of CPU time, on every machine.
const TICKS: f64 = 100.0;

/// CPU seconds of another process so far, user and system; zero where there is none.
pub fn cpu_seconds_of(pid: u32) -> f64 {
    cpu_of(&fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default())
}

/// The name stands in brackets and may hold anything; after it, user and system time are the 12th and 13th.
fn cpu_of(stat: &str) -> f64 {
    let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = after.split_whitespace().skip(11).take(2);
    ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS
}

/// CPU seconds of the whole machine so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Spent by anybody here.
    pub busy: f64,
    /// Wanted, and given to another virtual machine.
    pub steal: f64,
}

/// What all processors of this machine have done so far.
pub fn machine() -> Machine {
    machine_of(&fs::read_to_string("/proc/stat").unwrap_or_default())
}

/// The first line: user, nice, system, idle, waiting, interrupts, soft interrupts, stolen.
fn machine_of(stat: &str) -> Machine {
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|ticks| ticks.parse().ok())
        .collect();
    let at = |index: usize| ticks.get(index).copied().unwrap_or(0.0) / TICKS;
    Machine {
        busy: [0, 1, 2, 5, 6].map(at).iter().sum(),
        steal: at(7),
    }
}

fn resident_of(status: &str) -> Resident {
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kibibytes = line
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|text| text.parse::<u64>().ok());
        kibibytes.unwrap_or(0) * 1024
    };
    Resident {
        now: bytes("VmRSS:"),
        peak: bytes("VmHWM:"),
    }
}

/// Where and of what a run was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Processors that this process may use.
    pub cores: usize,
    /// The processor's own name.
    pub processor: String,
    /// Name and release of the kernel.
    pub kernel: String,
    /// Total memory, bytes.
    pub memory: u64,
    /// The commit of the sources, with `+` if the tree differs from it.
    pub commit: String,
    /// UTC, to the second.
    pub date: String,
}

/// This host, now.
#[allow(clippy::disallowed_methods, reason = "a report has a date")]
pub fn host() -> Host {
    let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let after = |text: &str, name: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default();
        line.split_once(':')
            .map_or_else(String::new, |(_, value)| value.trim().to_owned())
    };
    let memory = after(&file("/proc/meminfo"), "MemTotal");
    let kibibytes = memory
        .split_whitespace()
        .next()
        .and_then(|text| text.parse::<u64>().ok());
    Host {
        name: file("/proc/sys/kernel/hostname").trim().to_owned(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        processor: after(&file("/proc/cpuinfo"), "model name"),
        kernel: format!(
            "{} {}",
            file("/proc/sys/kernel/ostype").trim(),
            file("/proc/sys/kernel/osrelease").trim()
        ),
        memory: kibibytes.unwrap_or(0) * 1024,
        commit: commit(),
        date: DateTime::<Utc>::from(SystemTime::now()).to_rfc3339_opts(SecondsFormat::Secs, true),
    }
}

/// The commit of the sources this program is run from; `unknown` outside a checkout.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(arguments)
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    let is_changed =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty());
    if is_changed { commit + "+" } else { commit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_from_the_kernels_text() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 100 0 0";
        assert_eq!((cpu_of(stat), cpu_of("")), (3.0, 0.0));
        let machine = machine_of("cpu  100 200 300 9000 9 10 20 50 0 0\ncpu0 1 2 3\n");
        assert_eq!(
            machine,
            Machine {
                busy: 6.3,
                steal: 0.5
            }
        );
    }

    #[test]
    fn memory_is_read_from_the_kernels_text() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(
            resident_of(status),
            Resident {
                now: 1 << 20,
                peak: 2 << 20
            }
        );
        assert_eq!(resident_of(""), Resident::default());
    }
}

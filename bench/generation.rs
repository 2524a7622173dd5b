//! A cluster under a fault: the processes of one generation, what is done to them, and how they end.
//!
//! ```text
//!  on hosts:      run --process 0..P, each on its host ─► fault ─► all end by themselves ─► the next generation
//!  by launcher:   cluster ─► its processes ─► fault ─► the launcher starts the next generation, or ends with them
//! ```
//!
//! A fault either ends its generation or must be borne. One that ends it must end all of it: processes that are
//! left over after [`PATIENCE`] hang, which is a failure. A frozen process is left frozen until its generation has
//! ended, and is then woken: it must end by itself as well, and must not write.
//!
//! Used by the campaign (`tidegate-bench faults`) and by the cases of the cluster, which each have their own days
//! and comparisons.

use crate::hosts::{Hosts, put_clock_off};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Between two looks at processes. What a look finds decides nothing but when the next thing is done.
const LOOK: Duration = Duration::from_millis(2);

/// A generation that has not ended so long after its fault hangs. A start waits a minute for a process that is gone.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The port of every host: each has its own network.
const PORT: u16 = 7_000;

/// A host's clock is off by so much, seconds.
const CLOCK_OFF: i32 = 3_600;

/// A slow host sends at this rate, kilobits a second.
const SLOW: u32 = 2_000;

/// What all processes of a cluster know.
const SECRET: &str = "known to every process of this cluster";

/// How many processes, and how many worker threads in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Processes.
    pub processes: usize,
    /// Worker threads of each.
    pub workers: usize,
}

/// What is done to a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// A process is killed.
    Kill(usize),
    /// The launcher is killed.
    KillLauncher,
    /// A process is stopped, and goes on when all others have ended.
    Freeze(usize),
    /// What the first sends to the second is lost; what comes back is not.
    CutOneWay(usize, usize),
    /// Neither hears the other.
    CutBothWays(usize, usize),
    /// What a host sends arrives slowly. To be borne.
    Slow(usize),
    /// A host's clock is an hour off from the start. To be borne.
    ClockOff(usize),
}

impl Fault {
    /// Its name in a report.
    pub fn name(self) -> &'static str {
        match self {
            Fault::None => "none",
            Fault::Kill(0) => "kill the leader",
            Fault::Kill(_) => "kill a member",
            Fault::KillLauncher => "kill the launcher",
            Fault::Freeze(0) => "freeze the leader",
            Fault::Freeze(_) => "freeze a member",
            Fault::CutOneWay(..) => "cut one way",
            Fault::CutBothWays(..) => "cut both ways",
            Fault::Slow(_) => "slow link",
            Fault::ClockOff(_) => "clock off",
        }
    }

    /// Whether the generation is to end by it.
    pub fn is_fatal(self) -> bool {
        !matches!(self, Fault::None | Fault::Slow(_) | Fault::ClockOff(_))
    }
}

/// How a generation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// All processes with exit code 0: the job is done.
    Done,
    /// By its fault. How long after it the last process that was not touched ended.
    Fallen(Duration),
    /// As it should not: who, how, and its last words.
    Failed(String),
}

/// One job in one place, and the program that runs it.
pub struct Job<'a> {
    /// The program.
    pub program: &'a Path,
    /// Where `job.toml` lies.
    pub directory: &'a Path,
    /// More words for every process.
    pub words: &'a [&'a str],
    /// More variables for every process.
    pub environment: &'a [(&'a str, &'a str)],
}

/// The processes of a generation.
pub struct Generation {
    children: Vec<(Child, PathBuf)>,
    /// The only child is a launcher, and has the processes.
    is_launched: bool,
    /// The one that was stopped; it is the last to be waited for.
    frozen: Option<usize>,
}

/// Starts every process of a generation on its host.
pub fn on_hosts(
    job: &Job<'_>,
    hosts: &Hosts,
    shape: Shape,
    generation: u64,
    fault: Fault,
) -> Result<Generation, String> {
    let lines = (0..shape.processes).map(|host| format!("{}:{PORT}\n", hosts.address(host)));
    let file = job.directory.join("hosts");
    fs::write(&file, lines.collect::<String>()).map_err(|error| format!("the hosts file: {error}"))?;
    let mut children = Vec::new();
    for process in 0..shape.processes {
        let mut command = hosts.command(process, job.program);
        command.args(["--log", "info", "run", "job.toml"]).args(job.words);
        for (name, value) in [
            ("processes", shape.processes as u64),
            ("process", process as u64),
            ("workers", shape.workers as u64),
            ("generation", generation),
        ] {
            command.arg(format!("--{name}={value}"));
        }
        command.args(["--hosts", "hosts"]);
        if fault == Fault::ClockOff(process) {
            put_clock_off(&mut command, CLOCK_OFF)?;
        }
        children.push(spawn(job, command, &format!("{generation}-{process}"))?);
    }
    let (is_launched, frozen) = (false, None);
    Ok(Generation {
        children,
        is_launched,
        frozen,
    })
}

/// Starts the launcher.
pub fn by_launcher(job: &Job<'_>, shape: Shape, number: u64) -> Result<Generation, String> {
    let mut command = Command::new(job.program);
    command
        .args(["--log", "info", "cluster", "job.toml"])
        .args(job.words);
    command.arg(format!("--processes={}", shape.processes));
    command.arg(format!("--workers={}", shape.workers));
    let children = vec![spawn(job, command, &format!("{number}-launcher"))?];
    let (is_launched, frozen) = (true, None);
    Ok(Generation {
        children,
        is_launched,
        frozen,
    })
}

fn spawn(job: &Job<'_>, mut command: Command, name: &str) -> Result<(Child, PathBuf), String> {
    let log = job.directory.join(format!(".log-{name}"));
    let file = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    let child = command
        .current_dir(job.directory)
        .env("TIDEGATE_CLUSTER_SECRET", SECRET)
        .envs(job.environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(file)
        .spawn();
    let child = child.map_err(|error| format!("the program does not start: {error}"))?;
    Ok((child, log))
}

impl Generation {
    /// Waits until `done` says so, or all processes have ended; whether `done` did.
    pub fn until(&mut self, mut done: impl FnMut() -> bool) -> bool {
        loop {
            if done() {
                return true;
            }
            if self.children.iter_mut().all(|(child, _)| has_ended(child)) {
                return false;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until the leader has started the job; whether it did before all processes ended.
    pub fn until_started(&mut self) -> bool {
        let log = self.children[0].1.clone();
        self.until(|| fs::read_to_string(&log).is_ok_and(|log| log.contains("started")))
    }

    /// Does the fault to processes that run. Of a launcher's processes, the one of this number.
    pub fn inflict(&mut self, fault: Fault, hosts: Option<&Hosts>) -> Result<(), String> {
        match fault {
            Fault::None | Fault::ClockOff(_) => Ok(()),
            Fault::Kill(process) => self.signal(process, Signal::KILL),
            Fault::KillLauncher => {
                let _ = self.children[0].0.kill(); // it may have ended just now
                Ok(())
            }
            Fault::Freeze(process) => {
                self.frozen = (!self.is_launched).then_some(process);
                self.signal(process, Signal::STOP)
            }
            Fault::CutOneWay(from, to) => network(hosts)?.cut(from, to),
            Fault::CutBothWays(one, other) => {
                network(hosts)?.cut(one, other)?;
                network(hosts)?.cut(other, one)
            }
            Fault::Slow(host) => network(hosts)?.slow(host, SLOW),
        }
    }

    /// Asks every process to drain, as Ctrl-C does.
    pub fn interrupt(&self) {
        for (child, _) in &self.children {
            let _ = kill_process(Pid::from_child(child), Signal::INT); // it may have ended
        }
    }

    /// Sends a signal to a process of this number, or to the launcher's process of this number.
    fn signal(&self, process: usize, signal: Signal) -> Result<(), String> {
        let pid = match self.is_launched {
            true => self.launched(process),
            false => self
                .children
                .get(process)
                .map(|(child, _)| Pid::from_child(child)),
        };
        // One that has ended, or is not started again yet, gets none.
        match pid.map(|pid| kill_process(pid, signal)) {
            None | Some(Ok(()) | Err(rustix::io::Errno::SRCH)) => Ok(()),
            Some(Err(error)) => Err(format!("process {process} cannot be signalled: {error}")),
        }
    }

    /// The launcher's process of this number.
    fn launched(&self, process: usize) -> Option<Pid> {
        let launcher = self.children[0].0.id();
        let children = fs::read_to_string(format!("/proc/{launcher}/task/{launcher}/children")).ok()?;
        let mut pids = children
            .split_whitespace()
            .filter_map(|pid| pid.parse::<i32>().ok());
        let number = process.to_string();
        let is_it = |pid: &i32| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<_> = words.split(|byte| *byte == 0).collect();
            words
                .windows(2)
                .any(|pair| pair[0] == b"--process" && pair[1] == number.as_bytes())
        };
        pids.find(is_it).and_then(Pid::from_raw)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "patience ends; nothing else depends on it"
    )]
    /// Waits until all have ended after `fault`, which was done at `since`, and says how.
    pub fn end(mut self, fault: Fault, since: Instant, hosts: Option<&Hosts>) -> End {
        let frozen = self.frozen;
        let mut ended = None;
        while ended.is_none() {
            let others = self.children.iter_mut().enumerate();
            let mut others = others.filter(|(process, _)| Some(*process) != frozen);
            if others.all(|(_, (child, _))| has_ended(child)) {
                ended = Some(since.elapsed());
            } else if fault.is_fatal() && since.elapsed() > PATIENCE {
                let story = self.story();
                self.kill_all();
                return End::Failed(format!("hangs after {fault:?}: {story}"));
            } else {
                std::thread::sleep(LOOK);
            }
        }
        if let Some(process) = frozen {
            let _ = self.signal(process, Signal::CONT);
            let woken = Instant::now();
            while !has_ended(&mut self.children[process].0) {
                if woken.elapsed() > PATIENCE {
                    self.kill_all();
                    return End::Failed(format!("process {process} lives on after {fault:?}"));
                }
                std::thread::sleep(LOOK);
            }
        }
        if let (Fault::CutOneWay(one, other) | Fault::CutBothWays(one, other), Some(hosts)) = (fault, hosts) {
            // Of a cut one way there is only the one to mend.
            let _ = (hosts.mend(one, other), hosts.mend(other, one));
        }
        self.verdict(fault, ended.unwrap_or_default())
    }

    fn verdict(&mut self, fault: Fault, after: Duration) -> End {
        let statuses: Vec<_> = self.children.iter_mut().map(|(child, _)| child.wait()).collect();
        let succeeded = |status: &std::io::Result<ExitStatus>| status.as_ref().is_ok_and(ExitStatus::success);
        if statuses.iter().all(succeeded) {
            return End::Done;
        }
        let killed = |status: &std::io::Result<ExitStatus>| {
            let signal = status.as_ref().ok().and_then(ExitStatus::signal);
            signal.is_none() || signal == Some(Signal::KILL.as_raw())
        };
        if fault.is_fatal() && statuses.iter().all(killed) {
            return End::Fallen(after);
        }
        End::Failed(format!("{statuses:?} after {fault:?}: {}", self.story()))
    }

    /// The last words of every process.
    pub fn story(&self) -> String {
        let tail = |(_, log): &(Child, PathBuf)| {
            let text = fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            let name = log.file_name().unwrap_or_default().to_string_lossy().into_owned();
            format!("[{name}] {}", lines[lines.len().saturating_sub(3)..].join(" | "))
        };
        self.children.iter().map(tail).collect::<Vec<_>>().join("; ")
    }

    /// What a process has logged.
    pub fn log(&self, process: usize) -> String {
        fs::read_to_string(&self.children[process].1).unwrap_or_default()
    }

    fn kill_all(&mut self) {
        for (child, _) in &mut self.children {
            let _ = child.kill(); // it may have ended
            let _ = child.wait();
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.kill_all();
    }
}

fn has_ended(child: &mut Child) -> bool {
    !matches!(child.try_wait(), Ok(None))
}

fn network(hosts: Option<&Hosts>) -> Result<&Hosts, String> {
    hosts.ok_or_else(|| "this fault needs hosts of their own".to_owned())
}

//! `tidegate cluster`: launches a job's processes on this machine, watches them, and starts them again.
//!
//! ```text
//!  generation 1: run ×P ─► one ends ─► the others end, or are killed ─► cause? ─► pause ─► generation 2 ...
//!                  │                                                       └ all well: done; in vain: give up
//!                  └─ reports, log lines ─► board          (process, judgement, board)
//! ```
//!
//! A cluster lives and dies as one: when any process dies, all are ended, waited for, and started again as the
//! next generation. The launcher does nothing that a result depends on; exactly-once is the processes' own
//! affair, whoever starts them. Each generation has new ports, opened here and handed over open, and all have
//! a secret made for this launcher. `--take-over` is for the first generation only: a later one that found
//! another instance alive has been taken over itself.
//!
//! Ctrl-C asks every process to drain and commit; a second one kills them. A launcher that is killed takes its
//! processes with it (`launched`).

mod board;
mod judgement;
mod process;

use crate::arguments::LaunchArguments;
use crate::job::Job;
use crate::launched::{Report, Status};
use crate::membership::SECRET_VARIABLE;
use crate::print::print;
use board::Board;
use judgement::{Deaths, End, Next, judge};
use process::{News, Process};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};
use tidegate::cluster::handshake::random;
use tidegate::error::{Error, Kind, Result};
use tidegate::limits;

/// What a process has said of its end: the thread and its message, and its last line.
type Said = (Option<(String, String)>, Option<String>);

/// Between two looks whether a process has ended.
const LOOK: Duration = Duration::from_millis(20);

/// Between two looks at the figures.
const SHOW: Duration = Duration::from_secs(1);

/// Launches a cluster and keeps it running until its job is done; `passed_on` are options of every process.
pub fn cluster(arguments: &LaunchArguments, passed_on: Vec<String>) -> Result<()> {
    // What is wrong with the job is said once, and before anything starts.
    Job::read(&arguments.job)?;
    let mut launcher = Launcher {
        arguments,
        passed_on,
        secret: random::<32>()?.iter().map(|byte| format!("{byte:02x}")).collect(),
        interrupts: interrupts()?,
        interrupted: 0,
        board: Board::new(arguments.json, now()),
    };
    let result = launcher.run();
    launcher.board.clear();
    if let Some(result) = result? {
        let end = if result.ends_with('\n') { "" } else { "\n" };
        print(&format!("{result}{end}"))?;
    }
    Ok(())
}

struct Launcher<'a> {
    arguments: &'a LaunchArguments,
    passed_on: Vec<String>,
    secret: String,
    /// Ctrl-C, each time.
    interrupts: Receiver<()>,
    /// How often.
    interrupted: u32,
    board: Board,
}

/// A generation that has ended.
#[derive(Default)]
struct Ended {
    /// In the order in which they were noticed.
    ends: Vec<End>,
    /// What the leader would have printed.
    result: Option<String>,
}

impl Launcher<'_> {
    /// Generation after generation; gives what the job's leader has to say at its end.
    fn run(&mut self) -> Result<Option<String>> {
        let mut deaths = Deaths::default();
        for generation in 1.. {
            let began = now();
            let ended = self.generation(generation)?;
            let is_draining = self.interrupted > 0;
            let lived = now().saturating_duration_since(began);
            match judge(&ended.ends, lived, is_draining, &mut deaths) {
                Next::Done => return Ok(ended.result),
                Next::GiveUp(error) => return Err(error),
                Next::Again { cause, after } => {
                    let after_ms = after.as_millis();
                    self.board.aside(|| {
                        tracing::warn!("generation {generation} has ended: {cause}; again in {after_ms} ms");
                    });
                    if self.interrupts.recv_timeout(after) != Err(RecvTimeoutError::Timeout) {
                        return Err(Error::new(Kind::Aborted, format!("interrupted; before: {cause}")));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Starts all processes and watches them until all have ended.
    fn generation(&mut self, generation: u64) -> Result<Ended> {
        let (send, news) = channel();
        let mut processes = self.start(generation, &send)?;
        drop(send);
        self.board.begin(now());
        let mut ended = Ended::default();
        let mut statuses = vec![Status::default(); processes.len()];
        let mut said = vec![(None, None); processes.len()];
        let (mut shown, mut first_death) = (now(), None);
        while processes.iter().any(Process::is_alive) {
            match news.recv_timeout(LOOK) {
                Ok(news) => self.hear(news, &mut statuses, &mut said, &mut ended),
                Err(RecvTimeoutError::Timeout) => {}
                // All have closed their streams and are about to end.
                Err(RecvTimeoutError::Disconnected) => thread::park_timeout(LOOK),
            }
            for process in &mut processes {
                ended.ends.extend(process.ended());
            }
            if judgement::cause(&ended.ends).is_some() {
                let since = *first_death.get_or_insert_with(now);
                if now().saturating_duration_since(since) >= limits::GRACE {
                    processes.iter_mut().for_each(Process::kill);
                }
            }
            self.pass_interrupts_on(&mut processes);
            if now().saturating_duration_since(shown) >= SHOW {
                shown = now();
                let lines: Vec<_> = processes
                    .iter()
                    .map(|process| (process.pid(), statuses[process.index()].clone()))
                    .collect();
                self.board.show(generation, &lines, now())?;
            }
        }
        processes.iter_mut().for_each(Process::hear_out);
        for news in news.try_iter() {
            self.hear(news, &mut statuses, &mut said, &mut ended);
        }
        for end in &mut ended.ends {
            (end.said, end.last_line) = std::mem::take(&mut said[end.process]);
        }
        if self.interrupted > 1 {
            return Err(Error::new(Kind::Aborted, "interrupted twice: not drained"));
        }
        Ok(ended)
    }

    fn hear(&self, news: News, statuses: &mut [Status], said: &mut [Said], ended: &mut Ended) {
        match news {
            News::Report(process, Report::Status(status)) => statuses[process] = status,
            News::Report(process, Report::Failed { thread, message }) => {
                // The first one: what fails afterwards fails because of it.
                said[process].0.get_or_insert((thread, message));
            }
            News::Report(_, Report::Result(text)) => ended.result = Some(text),
            News::Line(process, line) => {
                match self.passed_on.iter().any(|option| option == "--log-format=json") {
                    true => self.board.log(&line),
                    false => self.board.log(&format!("[{process}] {line}")),
                }
                said[process].1 = Some(line);
            }
        }
    }

    /// The first Ctrl-C drains, the second one kills.
    fn pass_interrupts_on(&mut self, processes: &mut [Process]) {
        for () in self.interrupts.try_iter() {
            self.interrupted += 1;
            match self.interrupted {
                1 => {
                    self.board
                        .aside(|| tracing::info!("all processes drain and commit; again to kill them"));
                    processes.iter().for_each(Process::interrupt);
                }
                _ => processes.iter_mut().for_each(Process::kill),
            }
        }
    }

    fn start(&self, generation: u64, news: &std::sync::mpsc::Sender<News>) -> Result<Vec<Process>> {
        let count = usize::from(self.arguments.processes);
        let open = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let failed = |error: std::io::Error| Error::internal(format!("no socket for a process: {error}"));
        let listeners = (0..count).map(open).collect::<std::io::Result<Vec<_>>>();
        let listeners = listeners.map_err(failed)?;
        let address = |listener: &TcpListener| listener.local_addr().map(|address| address.to_string());
        let addresses = listeners.iter().map(address).collect::<std::io::Result<Vec<_>>>();
        let addresses = addresses.map_err(failed)?.join(",");
        let mut processes = Vec::new();
        for (index, listener) in listeners.into_iter().enumerate() {
            let command = self.command(generation, index, &addresses, listener);
            processes.push(Process::start(index, command, news)?);
        }
        let pids: Vec<String> = processes
            .iter()
            .map(|process| format!("process {} is {}", process.index(), process.pid()))
            .collect();
        let pids = pids.join(", ");
        self.board
            .aside(|| tracing::info!("generation {generation}: {pids}"));
        Ok(processes)
    }

    fn command(&self, generation: u64, index: usize, addresses: &str, listener: TcpListener) -> Command {
        let arguments = self.arguments;
        // This very program, also when another version has been installed meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("tidegate");
        command.arg("run").arg(&arguments.job).args(&self.passed_on);
        command.arg(format!("--workers={}", arguments.workers));
        command.arg(format!("--processes={}", arguments.processes));
        command.arg(format!("--process={index}"));
        command.arg(format!("--generation={generation}"));
        command.arg(format!("--launcher={}", std::process::id()));
        command.arg(format!("--addresses={addresses}"));
        for (option, is_set) in [
            ("--follow", arguments.start.follow),
            ("--append", arguments.start.append),
            ("--take-over", arguments.start.take_over && generation == 1),
            ("--accept-gap", arguments.start.accept_gap),
            ("--json", arguments.json),
        ] {
            if is_set {
                command.arg(option);
            }
        }
        // Seen by the owner of the processes alone.
        command.env(SECRET_VARIABLE, &self.secret);
        command.stdin(Stdio::from(OwnedFd::from(listener)));
        command
    }
}

/// Ctrl-C no longer ends this process: each one is told.
fn interrupts() -> Result<Receiver<()>> {
    let failed = |error: std::io::Error| Error::internal(format!("signals cannot be handled: {error}"));
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let (send, interrupts) = channel();
    let wait = move || {
        for _ in signals.forever() {
            if send.send(()).is_err() {
                return;
            }
        }
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(wait)
        .map_err(failed)?;
    Ok(interrupts)
}

#[expect(
    clippy::disallowed_methods,
    reason = "processes are watched by the clock; results never depend on it"
)]
fn now() -> Instant {
    Instant::now()
}

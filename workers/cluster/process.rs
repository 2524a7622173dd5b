//! One process of a launched cluster, as its launcher sees it.

use super::judgement::{End, Exit};
use crate::launched::Report;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};
use tidegate::error::{Error, Result};

/// What is heard of a process.
pub enum News {
    /// It reports.
    Report(usize, Report),
    /// It logs a line.
    Line(usize, String),
}

/// A process that was started, and may have ended.
pub struct Process {
    index: usize,
    child: Child,
    readers: Vec<JoinHandle<()>>,
    is_killed: bool,
    has_ended: bool,
}

impl Process {
    /// Starts process `index`: what it says goes to `news`. The thread that calls this must live as long as
    /// the launcher: a process that is tied to its parent is tied to the thread that started it.
    pub fn start(index: usize, mut command: Command, news: &Sender<News>) -> Result<Process> {
        // In a group of its own: Ctrl-C at the terminal is the launcher's, who passes it on once.
        command
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let failed =
            |error: std::io::Error| Error::internal(format!("process {index} cannot be started: {error}"));
        let mut child = command.spawn().map_err(failed)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut process = Process {
            index,
            child,
            readers: Vec::new(),
            is_killed: false,
            has_ended: false,
        };
        if let Some(stdout) = stdout {
            let news = news.clone();
            process.read("reports", stdout, move |line| {
                match serde_json::from_str(&line) {
                    Ok(report) => news.send(News::Report(index, report)),
                    // Nothing else is printed; should it be all the same, it is shown.
                    Err(_) => news.send(News::Line(index, line)),
                }
                .is_ok()
            })?;
        }
        if let Some(stderr) = stderr {
            let news = news.clone();
            process.read("lines", stderr, move |line| {
                news.send(News::Line(index, line)).is_ok()
            })?;
        }
        Ok(process)
    }

    /// Reads lines on a thread, for as long as they are wanted.
    fn read(
        &mut self,
        what: &str,
        from: impl Read + Send + 'static,
        tell: impl Fn(String) -> bool + Send + 'static,
    ) -> Result<()> {
        let read = move || {
            let lines = BufReader::new(from)
                .split(b'\n')
                .map_while(std::result::Result::ok);
            for line in lines {
                if !tell(String::from_utf8_lossy(&line).into_owned()) {
                    return;
                }
            }
        };
        let thread = thread::Builder::new()
            .name(format!("{what}-{}", self.index))
            .spawn(read);
        let thread =
            thread.map_err(|error| Error::internal(format!("a thread cannot be started: {error}")))?;
        self.readers.push(thread);
        Ok(())
    }

    /// Its index in the cluster.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended, as far as was noticed.
    pub fn is_alive(&self) -> bool {
        !self.has_ended
    }

    /// How it has ended, if it has since the last look.
    pub fn ended(&mut self) -> Option<End> {
        if self.has_ended {
            return None;
        }
        // An error: the child is gone, and somebody else has waited for it.
        let status = self.child.try_wait().unwrap_or(Some(ExitStatus::from_raw(9)))?;
        self.has_ended = true;
        let exit = match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.unwrap_or_default()),
        };
        Some(End {
            process: self.index,
            exit,
            said: None,
            last_line: None,
            is_killed: self.is_killed,
        })
    }

    /// Asks it to drain.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// Ends it, frozen or not.
    pub fn kill(&mut self) {
        if !self.has_ended {
            self.is_killed = true;
            self.signal(Signal::KILL);
        }
    }

    /// One that has not been waited for keeps its id, so that nobody else can be meant.
    fn signal(&self, signal: Signal) {
        if let (false, Some(pid)) = (self.has_ended, Pid::from_raw(self.child.id().cast_signed())) {
            let _ = kill_process(pid, signal); // it may end at this moment
        }
    }

    /// Waits until everything it has said is told. It has ended.
    pub fn hear_out(&mut self) {
        for reader in self.readers.drain(..) {
            let _ = reader.join(); // it only reads
        }
    }
}

impl Drop for Process {
    /// A launcher that stops half way leaves nobody behind.
    fn drop(&mut self) {
        self.kill();
        if !self.has_ended {
            let _ = self.child.wait();
        }
    }
}

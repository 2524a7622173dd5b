//! One life of the program under a kill campaign: started, left alone or killed, waited for.

use crate::kills::Chance;
use crate::kills_day::{DayCopy, Growing};
use crate::process::now;
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tidegate::crash::VARIABLE;

/// Between two looks at a process. What a look finds decides nothing but when the clock kills.
pub const LOOK: Duration = Duration::from_millis(1);

/// A life longer than this is a failure.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// The variable of the control arm.
const CONTROL_ARM: &str = "TIDEGATE_CONTROL_ARM";

/// How a life is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// Not at all.
    None,
    /// So long after its start.
    After(Duration),
    /// At a named point, the so-manieth time it is passed.
    Point {
        /// The point.
        name: &'static str,
        /// The turn, from 1.
        turn: u64,
    },
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Killed.
    Killed,
    /// By itself, with exit code 0.
    Done,
    /// Otherwise: code or signal, and its last words.
    Failed(String),
}

/// The program under test.
pub struct Program {
    path: PathBuf,
    control: bool,
}

impl Program {
    /// The program beside this one; built first where cargo runs us, so that it is that of the sources.
    pub fn find(control: bool) -> Result<Self, String> {
        if let Some(cargo) = std::env::var_os("CARGO") {
            let mut build = Command::new(cargo);
            build.args(["build", "--quiet", "--bin", "tidegate"]);
            if !cfg!(debug_assertions) {
                build.arg("--release");
            }
            let status = build
                .status()
                .map_err(|error| format!("cargo does not start: {error}"))?;
            if !status.success() {
                return Err(format!("tidegate does not build: {status}"));
            }
        }
        let own = std::env::current_exe().map_err(|error| format!("where this program lies: {error}"))?;
        let path = own.with_file_name("tidegate");
        let is_there = path.is_file();
        is_there.then_some(Program { path, control }).ok_or_else(|| {
            "the program `tidegate` is not beside this one: cargo build --release --bin tidegate".to_owned()
        })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The program, to be started.
    pub fn command_line(&self) -> Command {
        Command::new(&self.path)
    }

    /// Generates a day's inputs and job file.
    pub fn generate(&self, arguments: &[String]) -> Result<(), String> {
        let output = Command::new(&self.path)
            .args(["--log", "error", "generate"])
            .args(arguments)
            .output();
        let output = output.map_err(|error| format!("tidegate does not start: {error}"))?;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            Ok(())
        } else {
            Err(format!("tidegate generate: {words}"))
        }
    }

    /// A run of the job in a directory, ready to be started. `is_calm`: it is never the control arm.
    pub fn command(
        &self,
        directory: &Path,
        is_calm: bool,
        workers: usize,
        death: Death,
        follow: bool,
    ) -> Command {
        let mut command = Command::new(&self.path);
        command.args([
            "--log",
            "error",
            "run",
            "job.toml",
            "--workers",
            &workers.to_string(),
        ]);
        if follow {
            command.arg("--follow");
        }
        if let Death::Point { name, turn } = death {
            command.env(VARIABLE, format!("{name}:{turn}"));
        }
        if self.control && !is_calm {
            command.env(CONTROL_ARM, "1");
        }
        command
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// Lives one life on a copy. With `growth` it follows its inputs, which grow meanwhile, and is asked to
    /// end once they
    /// are complete.
    pub fn run(
        &self,
        copy: &DayCopy,
        workers: usize,
        death: Death,
        mut growth: Option<&mut Growing>,
        chance: &mut Chance,
    ) -> End {
        let mut command = self.command(&copy.directory, copy.is_calm, workers, death, growth.is_some());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return End::Failed(format!("does not start: {error}")),
        };
        let started = now();
        let mut asked = false;
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return ended(status, child, death),
                Ok(None) => {}
                Err(error) => return End::Failed(format!("cannot be waited for: {error}")),
            }
            if let Some(growing) = growth.as_deref_mut() {
                if let Err(error) = growing.grow(chance) {
                    let _ = child.kill(); // the campaign's own trouble
                    let _ = child.wait();
                    return End::Failed(error);
                }
                // A life that is to die by a point that never comes is asked to end like the last one.
                let outlived = !matches!(death, Death::After(_));
                if growing.is_complete() && outlived && !asked && listens(&child) {
                    asked = ask_to_end(&child);
                }
            }
            let is_due = matches!(death, Death::After(after) if started.elapsed() >= after);
            if is_due || started.elapsed() > PATIENCE {
                let _ = child.kill(); // it may have ended by itself just now; the wait tells
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// Whether the process has come so far as to handle Ctrl-C; before that, Ctrl-C is a kill.
pub fn listens(child: &Child) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = caught
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    mask >> (Signal::INT.as_raw() - 1) & 1 == 1
}

/// The first Ctrl-C: drain, commit, end.
pub fn ask_to_end(child: &Child) -> bool {
    kill_process(Pid::from_child(child), Signal::INT).is_ok()
}

/// How a life that has ended came to its end.
pub fn ended(status: ExitStatus, child: Child, death: Death) -> End {
    if status.success() {
        return End::Done;
    }
    if status.signal() == Some(Signal::KILL.as_raw()) && death != Death::None {
        return End::Killed;
    }
    let words = child
        .wait_with_output()
        .map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
    End::Failed(format!("{status}: {}", words.unwrap_or_default().trim()))
}

//! `tidegate run`: a job from start to end, with live progress and a summary.

use crate::arguments::RunArguments;
use crate::job::{Job, Output, OutputPlace};
use crate::launched::{self, Report};
use crate::membership;
use crate::plan;
use crate::print::{print, print_json};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};
use tidegate::cluster::Cluster;
use tidegate::columns::aligned;
use tidegate::error::{Error, Kind, Result};
use tidegate::limits;
use tidegate::pace::Cutting;
use tidegate::run::{Plan, Shared, Summary, member};
use tidegate::watchdog::Watcher;

/// Between two looks at the counters.
const PROGRESS: Duration = Duration::from_millis(500);

/// Runs the job file of the command line. Whoever waits for this process is told why it fails.
pub fn run(arguments: &RunArguments) -> Result<()> {
    launched::end_on_panic();
    if let Some(launcher) = arguments.cluster.launcher {
        launched::tie_to(launcher)?;
    }
    obey(arguments).inspect_err(launched::say_why)
}

fn obey(arguments: &RunArguments) -> Result<()> {
    let mut job = Job::read(&arguments.job)?;
    job.append |= arguments.append;
    let mut plan = Plan {
        take_over: arguments.take_over,
        accept_gap: arguments.accept_gap,
        ..plan::plan(&job, arguments.workers, arguments.follow)?
    };
    let Some(cluster) = membership::join(&arguments.cluster, &job, &mut plan)? else {
        return run_job(&job, plan, None)?.show(arguments.json);
    };
    match cluster.is_leader() {
        true => run_job(&job, plan, Some(cluster))?.show(arguments.json),
        false => follow(&job, plan, cluster),
    }
}

/// Runs this process's share of a job that another process leads.
fn follow(job: &Job, plan: Plan, cluster: Cluster) -> Result<()> {
    let signals = Signals::new([SIGINT, SIGTERM]).map_err(|error| no_signals(&error))?;
    let joined = member::join(plan, cluster)?;
    let shared = joined.shared();
    watched(job, signals, shared, || joined.run(plan::build(job)))
}

/// Runs a job by its plan to its end, or until Ctrl-C: the first one drains and commits, the second one aborts.
pub fn run_job(job: &Job, plan: Plan, cluster: Option<Cluster>) -> Result<Outcome> {
    // From here on Ctrl-C no longer kills: one that comes before there is anything to drain waits for it.
    let signals = Signals::new([SIGINT, SIGTERM]).map_err(|error| no_signals(&error))?;
    let started = tidegate::run::start(plan)?;
    let shared = started.shared();
    let summary = watched(job, signals, shared, || started.run(plan::build(job), cluster))?;
    let places = |output: &Output| match &output.place {
        OutputPlace::Files { files, .. } => files.iter().map(|file| file.display().to_string()).collect(),
        OutputPlace::Topic(name) => vec![format!("kafka:{name}")],
    };
    let files = job
        .outputs
        .iter()
        .map(|output| (output.spec.name.to_owned(), places(output)));
    Ok(Outcome {
        job: job.name.clone(),
        summary,
        files: files.collect(),
    })
}

/// Runs with Ctrl-C taken care of, progress shown, and workers that stand still found out.
fn watched<T>(
    job: &Job,
    signals: Signals,
    shared: Arc<Shared>,
    run: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let ended = Arc::new(AtomicBool::new(false));
    end_on_stall(Arc::downgrade(&shared), job.processes.stall_timeout)?;
    end_on_signals(signals, Arc::clone(&shared))?;
    launched::report_status(Arc::downgrade(&shared), shared.pace.cutting() != Cutting::Finite)?;
    let progress = show_progress(shared, Arc::clone(&ended))?;
    let result = run();
    ended.store(true, Ordering::Release);
    progress.thread().unpark();
    let _ = progress.join(); // it only prints
    result
}

/// A worker that stands still ends the process: nobody else can make it go on, and all wait for it.
fn end_on_stall(shared: Weak<Shared>, stall: Duration) -> Result<()> {
    let look = move || {
        let mut watcher = Watcher::new(stall);
        while let Some(shared) = shared.upgrade() {
            if let Some(error) = watcher.look(&shared.watch, now()) {
                launched::end(&error);
            }
            drop(shared);
            thread::park_timeout(limits::WATCH.min(stall / 4));
        }
    };
    let thread = thread::Builder::new().name("watchdog".to_owned()).spawn(look);
    thread
        .map(drop)
        .map_err(|error| Error::internal(format!("a thread cannot be started: {error}")))
}

#[expect(clippy::disallowed_methods, reason = "a stalled worker is found by the clock")]
fn now() -> Instant {
    Instant::now()
}

/// The first signal drains, the second one aborts.
fn end_on_signals(mut signals: Signals, shared: Arc<Shared>) -> Result<()> {
    let wait = move || {
        let mut signals = signals.forever();
        if signals.next().is_some() {
            tracing::info!("draining: what was read is committed; again to abort");
            shared.pace.drain();
        }
        // A launcher kills, and passes on what the system may have told everybody already.
        if signals.any(|_| !launched::is_launched()) {
            std::process::exit(Kind::Aborted as i32);
        }
    };
    let thread = thread::Builder::new().name("signals".to_owned()).spawn(wait);
    thread.map(drop).map_err(|error| no_signals(&error))
}

fn no_signals(error: &std::io::Error) -> Error {
    Error::internal(format!("signals cannot be handled: {error}"))
}

/// A line that is rewritten on a terminal; elsewhere one log line every ten seconds.
fn show_progress(shared: Arc<Shared>, ended: Arc<AtomicBool>) -> Result<thread::JoinHandle<()>> {
    let show = move || {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal {
            ProgressBar::new_spinner()
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
            bar.set_style(style);
        }
        let mut before = 0;
        for look in 1_u32.. {
            thread::park_timeout(PROGRESS);
            if ended.load(Ordering::Acquire) {
                break;
            }
            let taken = shared.metrics.messages_in.load(Ordering::Relaxed);
            let committed = shared.metrics.committed.load(Ordering::Relaxed);
            let out: u64 = shared
                .metrics
                .messages_out
                .iter()
                .map(|count| count.load(Ordering::Relaxed))
                .sum();
            let rate = (taken - before) * 1_000 / PROGRESS.as_millis() as u64;
            before = taken;
            let counts = (HumanCount(taken), HumanCount(rate), HumanCount(out));
            let line = format!(
                "{} in ({}/s), {} out, epoch {committed} committed",
                counts.0, counts.1, counts.2
            );
            bar.set_message(line.clone());
            bar.tick();
            if !terminal && look.is_multiple_of(20) {
                tracing::info!("{line}");
            }
        }
        bar.finish_and_clear();
    };
    let thread = thread::Builder::new().name("progress".to_owned()).spawn(show);
    thread.map_err(|error| Error::internal(format!("a thread cannot be started: {error}")))
}

/// What a run did, and where its outputs lie.
#[derive(Serialize)]
pub struct Outcome {
    job: String,
    #[serde(flatten)]
    summary: Summary,
    files: Vec<(String, Vec<String>)>,
}

impl Outcome {
    /// On standard output.
    fn show(&self, json: bool) -> Result<()> {
        match (launched::is_launched(), json) {
            (false, true) => self.print_json(),
            (false, false) => print(&self.table()),
            (true, true) => {
                let json = serde_json::to_string(self);
                launched::report(&Report::Result(
                    json.map_err(|error| Error::internal(error.to_string()))?,
                ));
                Ok(())
            }
            (true, false) => {
                launched::report(&Report::Result(self.table()));
                Ok(())
            }
        }
    }

    /// As JSON on standard output.
    pub fn print_json(&self) -> Result<()> {
        print_json(&serde_json::to_value(self).map_err(|error| Error::internal(error.to_string()))?)
    }

    /// As aligned tables.
    pub fn table(&self) -> String {
        let summary = &self.summary;
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        let millis = |micros: u64| format!("{}.{:03} ms", micros / 1_000, micros % 1_000);
        let seconds = summary.elapsed_ms.max(1) as f64 / 1_000.0;
        let rate = (summary.messages_in as f64 / seconds) as u64;
        let mut rows = vec![
            row("job", self.job.clone()),
            row("elapsed", format!("{seconds:.1} s, {} workers", summary.workers)),
            row(
                "messages in",
                format!("{} ({}/s)", HumanCount(summary.messages_in), HumanCount(rate)),
            ),
            row(
                "epochs committed",
                format!("{}, up to {}", HumanCount(summary.epochs), summary.committed),
            ),
            row("epoch latency p50", millis(summary.latency_us.p50)),
            row("  (taken to    p99", millis(summary.latency_us.p99)),
            row("  committed) p99.9", millis(summary.latency_us.p999)),
            row("state", HumanBytes(summary.state_bytes).to_string()),
        ];
        for (reason, count) in &summary.dead_letters {
            rows.push(row(
                &format!("dead letters {reason}"),
                HumanCount(*count).to_string(),
            ));
        }
        let mut text = aligned(&rows);
        let mut outputs = vec![vec![
            "output".to_owned(),
            "messages".to_owned(),
            "file".to_owned(),
        ]];
        for ((name, files), count) in self.files.iter().zip(&summary.messages_out) {
            outputs.push(vec![
                name.clone(),
                HumanCount(*count).to_string(),
                files.join(" "),
            ]);
        }
        text.push('\n');
        text.push_str(&aligned(&outputs));
        text
    }
}

//! `tidegate run`: a job from start to end, with live progress and a summary.

use crate::arguments::RunArguments;
use crate::job::Job;
use crate::launched::{self, Report};
use crate::membership;
use crate::plan;
use crate::print::{print, print_json};
use crate::progress;
use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};
use tidegate::cluster::Cluster;
use tidegate::columns::aligned;
use tidegate::error::{Error, Kind, Result};
use tidegate::limits;
use tidegate::pace::Cutting;
use tidegate::run::{Build, OutputPlace, OutputPlan, Plan, Shared, Started, Summary, member};
use tidegate::source::span::Span;
use tidegate::watchdog::Watcher;

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
    job.append |= arguments.start.append;
    let mut plan = Plan {
        take_over: arguments.start.take_over,
        accept_gap: arguments.start.accept_gap,
        ..plan::plan(&job, arguments.workers, arguments.start.follow)?
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
    watched(job, signals, shared, None, || joined.run(plan::build(job)))
}

/// Runs a job by its plan to its end, or until Ctrl-C: the first one drains and commits, the second one aborts.
pub fn run_job(job: &Job, plan: Plan, cluster: Option<Cluster>) -> Result<Outcome> {
    run_with(job, plan, cluster, tidegate::run::start, plan::build(job))
}

/// The same, started in some other way.
pub fn run_with(
    job: &Job,
    plan: Plan,
    cluster: Option<Cluster>,
    start: impl FnOnce(Plan) -> Result<Started>,
    build: Build,
) -> Result<Outcome> {
    // From here on Ctrl-C no longer kills: one that comes before there is anything to drain waits for it.
    let signals = Signals::new([SIGINT, SIGTERM]).map_err(|error| no_signals(&error))?;
    let (name, span) = (plan.name.clone(), plan.replay.as_ref().map(|replay| replay.span));
    let places = |output: &OutputPlan| match &output.place {
        OutputPlace::Files(files) => files.iter().map(|file| file.display().to_string()).collect(),
        OutputPlace::Topic { name, .. } => vec![format!("kafka:{name}")],
    };
    let outputs = plan
        .outputs
        .iter()
        .map(|output| (output.name.clone(), places(output)));
    let files = outputs.collect();
    let started = start(plan)?;
    let shared = started.shared();
    let summary = watched(job, signals, shared, span, || started.run(build, cluster))?;
    Ok(Outcome {
        job: name,
        summary,
        files,
    })
}

/// Runs with Ctrl-C taken care of, progress shown, and workers that stand still found out.
fn watched<T>(
    job: &Job,
    signals: Signals,
    shared: Arc<Shared>,
    span: Option<Span>,
    run: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let ended = Arc::new(AtomicBool::new(false));
    end_on_stall(Arc::downgrade(&shared), job.processes.stall_timeout)?;
    end_on_signals(signals, Arc::clone(&shared))?;
    launched::report_status(Arc::downgrade(&shared), shared.pace.cutting() != Cutting::Finite)?;
    let progress = progress::show(shared, Arc::clone(&ended), span)?;
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
            row("  until sealed p50", millis(summary.open_us.p50)),
            row("  waiting      p50", millis(summary.waiting_us.p50)),
            row("  transaction  p50", millis(summary.transaction_us.p50)),
            row("state", HumanBytes(summary.state_bytes).to_string()),
        ];
        if summary.skipped > 0 {
            let skipped = HumanCount(summary.skipped).to_string();
            rows.insert(3, row("  outside the span", skipped));
        }
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

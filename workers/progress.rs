//! What a run shows while it runs: a line that is rewritten on a terminal, elsewhere a log line every ten
//! seconds. A replay, which knows where it ends, shows a bar: how far event time has come, and the time left.

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tidegate::error::{Error, Result};
use tidegate::run::Shared;
use tidegate::source::span::Span;
use tidegate::time::Millis;

/// Between two looks at the counters.
const LOOK: Duration = Duration::from_millis(500);

/// Looks between two log lines.
const LOGGED: u32 = 20;

/// Steps of the bar.
const STEPS: u64 = 1_000;

/// Shows the counters until `ended`; the thread is unparked to look at once. `span`: of a replay.
pub fn show(shared: Arc<Shared>, ended: Arc<AtomicBool>, span: Option<Span>) -> Result<JoinHandle<()>> {
    let show = move || {
        let terminal = std::io::stderr().is_terminal();
        let bar = bar(terminal, span.as_ref());
        let (mut before, mut began) = (0, None);
        for look in 1_u32.. {
            thread::park_timeout(LOOK);
            if ended.load(Ordering::Acquire) {
                break;
            }
            let metrics = &shared.metrics;
            let passed =
                metrics.messages_in.load(Ordering::Relaxed) + metrics.skipped.load(Ordering::Relaxed);
            let rate = HumanCount((passed - before) * 1_000 / LOOK.as_millis() as u64);
            before = passed;
            let line = match &span {
                None => {
                    let committed = metrics.committed.load(Ordering::Relaxed);
                    let (passed, out) = (HumanCount(passed), HumanCount(out(&shared)));
                    format!("{passed} in ({rate}/s), {out} out, epoch {committed} committed")
                }
                Some(span) => {
                    let reached = metrics.event_time.load(Ordering::Relaxed);
                    let done = share(span, reached);
                    if let Some(done) = done {
                        bar.set_position((done * STEPS as f64) as u64);
                        began = began.or(Some((done, bar.elapsed())));
                    }
                    let left = done.zip(began).and_then(|(done, (first, at))| {
                        left(done - first, 1.0 - done, bar.elapsed().saturating_sub(at))
                    });
                    let left = left.map_or_else(|| "?".to_owned(), |left| HumanDuration(left).to_string());
                    let (passed, out, reached) =
                        (HumanCount(passed), HumanCount(out(&shared)), date(reached));
                    format!("{passed} in ({rate}/s), {out} out, reached {reached}, left {left}")
                }
            };
            bar.set_message(line.clone());
            bar.tick();
            if !terminal && look.is_multiple_of(LOGGED) {
                tracing::info!("{line}");
            }
        }
        bar.finish_and_clear();
    };
    let thread = thread::Builder::new().name("progress".to_owned()).spawn(show);
    thread.map_err(|error| Error::internal(format!("a thread cannot be started: {error}")))
}

fn bar(terminal: bool, span: Option<&Span>) -> ProgressBar {
    let bar = match (terminal, span) {
        (false, _) => ProgressBar::hidden(),
        (true, None) => ProgressBar::new_spinner(),
        (true, Some(_)) => ProgressBar::new(STEPS),
    };
    let template = match span {
        None => "{spinner} {elapsed} {msg}",
        Some(_) => "{spinner} {elapsed} [{bar:20}] {percent}% {msg}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// Messages that are made.
fn out(shared: &Shared) -> u64 {
    let each = shared.metrics.messages_out.iter();
    each.map(|count| count.load(Ordering::Relaxed)).sum()
}

/// The share of a span that event time has passed, 0 to 1; none where an end is open or nothing was read.
fn share(span: &Span, reached: Millis) -> Option<f64> {
    let (from, to) = span.from.zip(span.to)?;
    (reached >= from).then(|| ((reached - from) as f64 / (to - from).max(1) as f64).min(1.0))
}

/// How long the rest takes if it goes on as it has gone.
fn left(done: f64, rest: f64, elapsed: Duration) -> Option<Duration> {
    let seconds = elapsed.as_secs_f64() * rest / done;
    Duration::try_from_secs_f64(seconds).ok()
}

/// A time as people read it.
pub fn date(time: Millis) -> String {
    let date = chrono::DateTime::from_timestamp_millis(time).filter(|_| time >= 0);
    date.map_or_else(
        || "-".to_owned(),
        |date| date.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_a_span_is_between_nothing_and_all() {
        let span = Span {
            from: Some(100),
            to: Some(300),
        };
        assert_eq!(share(&span, 99), None, "tables only");
        assert_eq!(share(&span, 150), Some(0.25));
        assert_eq!(share(&span, 1_000), Some(1.0));
        assert_eq!(share(&Span { to: None, ..span }, 150), None);
    }

    #[test]
    fn the_rest_takes_as_long_as_what_is_done() {
        let second = Duration::from_secs(1);
        assert_eq!(left(0.25, 0.75, second), Some(Duration::from_secs(3)));
        assert_eq!(left(0.0, 1.0, second), None);
    }
}

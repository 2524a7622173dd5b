//! `tidegate replay`: a span of history through the job's dataflows, at full speed, to a place of its own.
//!
//! ```text
//!  job.toml ─► plan ─► replayed: finite, span, own name, state, outputs ─► the same run ─► the same table
//! ```
//!
//! `--into DIR` puts every output file into DIR under its own name, and the state into `DIR/state`.
//! `--output-suffix S` puts the suffix behind the names of topics and, before the extension, of files, and the
//! state into `replays/S` of the job's state. Started again with the same words it goes on where it was.
//!
//! `--recorded` takes the epochs that the live run bound instead, from the newest kept checkpoint before the span;
//! `--verify` does so without writing anything and holds every output against what was committed: exit code 12
//! if there is a difference.
//!
//! `--cache DIR` keeps what was decoded in DIR and takes it from there the next time; results are the same.
//!
//! Refused before anything is read: a place that is one of the job's own outputs, would be read by its inputs,
//! or is named twice; with `--into`, outputs that are topics.

use crate::arguments::ReplayArguments;
use crate::job::{InputPlace, Job, identity, would_match};
use crate::plan;
use crate::print::{print, print_json};
use crate::progress::date;
use crate::run::{run_job, run_with};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use tidegate::columns::aligned;
use tidegate::error::{Error, Kind, Result};
use tidegate::pace::Cutting;
use tidegate::record::key_hash;
use tidegate::run::past;
use tidegate::run::recorded;
use tidegate::run::replay::Replay;
use tidegate::run::verifying::{report, verification};
use tidegate::run::{self, Aim, OutputPlace, Plan};
use tidegate::source::span::Span;
use tidegate::time::Millis;
use tidegate::verify::Report;

/// Differences that are shown in words; as JSON all that were kept are.
const SHOWN: usize = 20;

/// Replays the span of the command line.
pub fn replay(arguments: &ReplayArguments) -> Result<()> {
    let job = Job::read(&arguments.job)?;
    let plan = plan::plan(&job, arguments.workers, false)?;
    let span = span(arguments.from, arguments.to)?;
    if arguments.verify {
        return verify(&job, plan, span, arguments);
    }
    let live = plan.clone();
    let place = Place::of(arguments)?;
    let cutting = match arguments.recorded {
        true => Cutting::Recorded,
        false => Cutting::Finite,
    };
    let mut plan = replayed(&job, Plan { cutting, ..plan }, &place, span, &offsets(arguments)?)?;
    if let Some(replay) = &mut plan.replay {
        // Results do not depend on it, so it is no part of the plan's hash.
        replay.cache.clone_from(&arguments.cache);
    }
    let from = span.from.map_or("the beginning".to_owned(), date);
    let (outcome, state) = match arguments.recorded {
        true => {
            let past = past::read(&live, span)?;
            let state = format!(
                "State began as it was then: {} epochs are taken.",
                past.bindings.len()
            );
            let start = |plan| recorded::start(plan, past);
            (run_with(&job, plan, None, start, plan::build(&job))?, state)
        }
        false => {
            tracing::info!("state begins empty at {from}: only tables know what was before");
            (
                run_job(&job, plan, None)?,
                format!("State began empty at {from}."),
            )
        }
    };
    if arguments.json {
        return outcome.print_json();
    }
    print(&format!("{}\n{state}\n", outcome.table()))
}

/// Holds what the span gives again against what was committed.
fn verify(job: &Job, plan: Plan, span: Span, arguments: &ReplayArguments) -> Result<()> {
    let mut against = BTreeMap::new();
    for text in &arguments.against {
        let (output, place) = text
            .split_once('=')
            .ok_or_else(|| usage(format!("--against {text}: OUTPUT=PLACE is wanted")))?;
        if job.outputs.iter().all(|known| known.spec.name != output) {
            return Err(usage(format!("--against {text}: the job has no output {output}")));
        }
        if job.shards > 1 && job.outputs.iter().any(|known| known.topic().is_none()) {
            return Err(usage(format!(
                "--against {text}: the files of several shards have no one copy"
            )));
        }
        against.insert(output.to_owned(), place.to_owned());
    }
    let past = past::read(&plan, span)?;
    let epochs = past.epochs.clone();
    let mut verifiers = Vec::new();
    let start = |plan| {
        let plan = Plan {
            aim: Aim::Verification,
            ..plan
        };
        let verification = verification(plan, past, &against)?;
        verifiers = verification.verifiers;
        Ok(verification.started)
    };
    run_with(job, plan, None, start, plan::build(job))?;
    let report = report(&verifiers)?;
    if arguments.json {
        let value = serde_json::to_value(&report).map_err(|error| Error::internal(error.to_string()))?;
        print_json(&value)?;
    } else {
        print(&shown(&report))?;
    }
    match report.is_clean() {
        true => Ok(()),
        false => {
            let (first, last) = (epochs.start, epochs.end - 1);
            let message = format!("epochs {first} to {last}: what was committed differs from what they give");
            Err(Error::new(Kind::Differs, message))
        }
    }
}

/// A report as text: a table, then the first differences.
pub fn shown(report: &Report) -> String {
    let head = [
        "output",
        "messages",
        "missing",
        "extra",
        "altered",
        "epochs unlike recorded",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(report.outputs.iter().map(|(output, count)| {
        let numbers = [
            count.messages,
            count.missing,
            count.extra,
            count.altered,
            count.unlike_recorded,
        ];
        let mut row = vec![output.clone()];
        row.extend(numbers.map(|number| number.to_string()));
        row
    }));
    let mut text = aligned(&rows);
    for difference in report.differences.iter().take(SHOWN) {
        let epoch = difference
            .epoch
            .map_or(String::new(), |epoch| format!(" epoch {epoch}"));
        let from = match difference.origin.as_str() {
            "" => String::new(),
            origin => format!(" from {origin}"),
        };
        let at = match difference.place.as_str() {
            "" => String::new(),
            place => format!(" at {place}"),
        };
        let (output, what) = (&difference.output, difference.what);
        text.push_str(&format!("\n{what} in {output}:{epoch}{from}{at}\n"));
        for (sign, side) in [('-', &difference.expected), ('+', &difference.found)] {
            if let Some(side) = side {
                text.push_str(&format!("  {sign} {side}\n"));
            }
        }
    }
    text
}

/// Where a replay writes.
#[derive(Clone, Debug)]
pub enum Place {
    /// Files and state into this directory.
    Directory(PathBuf),
    /// Beside the job's own, with this behind the name.
    Suffix(String),
}

impl Place {
    /// The place of the command line.
    pub fn of(arguments: &ReplayArguments) -> Result<Place> {
        if let Some(directory) = &arguments.into {
            let absolute = std::path::absolute(directory);
            return absolute
                .map(Place::Directory)
                .map_err(|error| usage(format!("--into {}: {error}", directory.display())));
        }
        let suffix = arguments.output_suffix.clone().unwrap_or_default();
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if suffix.trim_matches('-').is_empty() || !suffix.bytes().all(allowed) {
            let message = format!("--output-suffix {suffix}: it is made of a-z, 0-9 and -, such as -replay");
            return Err(usage(message));
        }
        Ok(Place::Suffix(suffix))
    }

    fn file(&self, path: &Path) -> PathBuf {
        match self {
            Place::Directory(directory) => directory.join(path.file_name().unwrap_or_default()),
            Place::Suffix(suffix) => {
                let part = |part: Option<&std::ffi::OsStr>| {
                    part.map(|part| part.to_string_lossy().into_owned())
                        .unwrap_or_default()
                };
                let extension = part(path.extension());
                let dot = if extension.is_empty() { "" } else { "." };
                path.with_file_name(format!("{}{suffix}{dot}{extension}", part(path.file_stem())))
            }
        }
    }

    fn topic(&self, name: &str) -> Result<String> {
        match self {
            Place::Directory(_) => {
                let message =
                    format!("--into: the output {name} is a topic; --output-suffix S replays into {name}S");
                Err(usage(message))
            }
            Place::Suffix(suffix) => Ok(format!("{name}{suffix}")),
        }
    }

    /// Name and state of the replay; the name is none that a shard of the live job has.
    fn name_and_state(&self, plan: &Plan) -> (String, String) {
        match self {
            Place::Directory(directory) => (
                format!("{}-replay", plan.name),
                directory.join("state").display().to_string(),
            ),
            Place::Suffix(suffix) => {
                let suffix = suffix.trim_matches('-');
                (
                    format!("{}-replay-{suffix}", plan.name),
                    format!("{}/replays/{suffix}", plan.state.trim_end_matches('/')),
                )
            }
        }
    }
}

/// The plan of a replay of `job`.
pub fn replayed(
    job: &Job,
    plan: Plan,
    place: &Place,
    span: Span,
    offsets: &BTreeMap<(String, u32), Range<u64>>,
) -> Result<Plan> {
    let (name, state) = place.name_and_state(&plan);
    let mut stands_for = BTreeMap::new();
    let mut plan = Plan {
        append: false,
        history: None,
        name,
        state,
        ..plan
    };
    for output in &mut plan.outputs {
        match &mut output.place {
            OutputPlace::Files(files) => {
                for file in files {
                    *file = place.file(file);
                }
            }
            OutputPlace::Topic { name, .. } => {
                let own = place.topic(name)?;
                stands_for.insert(own.clone(), std::mem::replace(name, own));
            }
        }
    }
    refuse_used(job, &plan)?;
    for input in &mut plan.inputs {
        // Of a topic of events the offsets are chosen, by message time.
        let by_offset = !input.settings.is_table && matches!(input.place, run::InputPlace::Topic { .. });
        let is_cut = plan.cutting == Cutting::Finite && !by_offset;
        input.settings.span = is_cut.then_some(span);
    }
    for (topic, _) in offsets.keys() {
        let is_read = job.inputs.iter().any(|input| input.topic() == Some(topic));
        if !is_read {
            return Err(usage(format!(
                "--offsets: {topic} is no topic that the job reads"
            )));
        }
    }
    let text = format!(
        "{:016x} {} {:?} {span:?} {offsets:?} {:?}",
        plan.plan_hash, plan.name, plan.cutting, plan.outputs
    );
    plan.plan_hash = key_hash(text.as_bytes());
    plan.replay = Some(Replay {
        span,
        offsets: offsets.clone(),
        stands_for,
        cache: None,
    });
    Ok(plan)
}

/// No output of a replay is one of the job's own, read by it, or named twice.
fn refuse_used(job: &Job, plan: &Plan) -> Result<()> {
    let refused = |what: &dyn std::fmt::Display, why: &str| {
        let message = format!("{what} {why}; name another place");
        Err(Error::new(Kind::Configuration, message))
    };
    let live = || job.outputs.iter().flat_map(|output| output.files());
    let mut own: BTreeSet<PathBuf> = live().map(|file| identity(file)).collect();
    own.insert(identity(&job.file));
    let mut topics: BTreeSet<&str> = job.outputs.iter().filter_map(|output| output.topic()).collect();
    topics.extend(job.inputs.iter().filter_map(|input| input.topic()));
    for output in &plan.outputs {
        match &output.place {
            OutputPlace::Topic { name, .. } => {
                if !topics.insert(name) {
                    return refused(name, "is a topic of the job itself");
                }
            }
            OutputPlace::Files(files) => {
                for file in files {
                    if !own.insert(identity(file)) {
                        return refused(&file.display(), "is a file of the job itself, or of two outputs");
                    }
                    let reads = |place: &InputPlace| match place {
                        InputPlace::Files {
                            directory, pattern, ..
                        } => would_match(directory, pattern, file),
                        InputPlace::Topic { .. } => false,
                    };
                    if let Some(input) = job.inputs.iter().find(|input| reads(&input.place)) {
                        let why = format!("would be read by inputs.{}", input.spec.name);
                        return refused(&file.display(), &why);
                    }
                }
            }
        }
    }
    Ok(())
}

/// The span from one time to another.
pub fn span(from: Option<Millis>, to: Option<Millis>) -> Result<Span> {
    let span = Span { from, to };
    match (span.from, span.to) {
        (Some(from), Some(to)) if from >= to => {
            let (from, to) = (date(from), date(to));
            Err(usage(format!("--from {from} is not before --to {to}")))
        }
        _ => Ok(span),
    }
}

fn offsets(arguments: &ReplayArguments) -> Result<BTreeMap<(String, u32), Range<u64>>> {
    let parse = |text: &str| {
        let (partition, range) = text.split_once('=')?;
        let (topic, partition) = partition.rsplit_once('/')?;
        let (first, end) = range.split_once("..")?;
        let (first, end) = (first.parse().ok()?, end.parse().ok()?);
        (first <= end).then_some(((topic.to_owned(), partition.parse().ok()?), first..end))
    };
    let each = arguments.offsets.iter().map(|text| {
        parse(text).ok_or_else(|| usage(format!("--offsets {text}: TOPIC/PARTITION=FIRST..END is wanted")))
    });
    each.collect()
}

fn usage(message: String) -> Error {
    Error::new(Kind::Usage, message)
}

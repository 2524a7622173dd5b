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
//! `--cache DIR` keeps what was decoded in DIR and takes it from there the next time; results are the same.
//!
//! Refused before anything is read: a place that is one of the job's own outputs, would be read by its inputs,
//! or is named twice; with `--into`, outputs that are topics.

use crate::arguments::ReplayArguments;
use crate::job::{InputPlace, Job, identity, would_match};
use crate::plan;
use crate::print::print;
use crate::progress::date;
use crate::run::run_job;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use tidegate::error::{Error, Kind, Result};
use tidegate::pace::Cutting;
use tidegate::record::key_hash;
use tidegate::run::replay::Replay;
use tidegate::run::{self, OutputPlace, Plan};
use tidegate::source::span::Span;

/// Replays the span of the command line.
pub fn replay(arguments: &ReplayArguments) -> Result<()> {
    let job = Job::read(&arguments.job)?;
    let plan = plan::plan(&job, arguments.workers, false)?;
    let span = span(arguments)?;
    let mut plan = replayed(&job, plan, &Place::of(arguments)?, span, &offsets(arguments)?)?;
    if let Some(replay) = &mut plan.replay {
        // Results do not depend on it, so it is no part of the plan's hash.
        replay.cache.clone_from(&arguments.cache);
    }
    let from = span.from.map_or("the beginning".to_owned(), date);
    tracing::info!("state begins empty at {from}: windows and patterns know nothing of before, tables all");
    let outcome = run_job(&job, plan)?;
    if arguments.json {
        return outcome.print_json();
    }
    print(&format!("{}\nState began empty at {from}.\n", outcome.table()))
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
        cutting: Cutting::Finite,
        append: false,
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
        input.settings.span = (!by_offset).then_some(span);
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
        "{:016x} {} {span:?} {offsets:?} {:?}",
        plan.plan_hash, plan.name, plan.outputs
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

fn span(arguments: &ReplayArguments) -> Result<Span> {
    let span = Span {
        from: arguments.from,
        to: arguments.to,
    };
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

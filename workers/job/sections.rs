//! The sections of a job file, one function each: words, ranges and defaults, then what must fit together.
//!
//! A value that is missing or wrong has been noted in the findings by the time it is asked for, and is
//! replaced by its default; a job made of such values is thrown away by the caller, so nothing here needs to
//! be right about it.

use super::table::{Located, Table, nearest, suggestion};
use super::{
    Format, From, Input, InputPlace, Job, Kafka, Output, OutputPlace, State, cluster, files, has_devices,
    kafka,
};
use std::path::{Path, PathBuf};
use tidegate::checkpoint::objects;
use tidegate::limits::{CHECKPOINT_INTERVAL_MS, HISTORY_CHECKPOINT_MS, MAX_RECORD_BYTES};
use tidegate::sink::progress_topic;
use tidegate::time::{EVENT_TIMES, Millis};
use tidegate_dataflows::catalogue::{
    DEAD_LETTERS, DEFAULTS, DEVICE_PUSH, Dataflow, EnrichedOrdersConfig, InputSpec, OutputSpec, PatternEmit,
    RiskPatternConfig, Settings, TumblingAggregatesConfig, WindowEmit,
};

/// Default of `[epoch] interval_ms`. Over topics, 10 ms is where the curve is flat (`bench/runs`, 2026-11-21-vm-kafka,
/// p50 and cores at 5 000 entries/s): 1 ms 28 ms and 0.33, for transactions then follow each other without a pause;
/// 5 ms 21 and 0.29; 10 ms 23 and 0.25; 20 ms 30 and 0.18; 50 ms 48 and 0.12; 100 ms 83 and 0.10.
const EPOCH_INTERVAL_MS: u64 = 10;
/// Default of `[epoch] replay_tick_ms`.
const REPLAY_TICK_MS: Millis = 1_000;
/// No duration is longer than the range of event times, so that sums of a few stay within 64 bits.
const LONGEST_MS: Millis = *EVENT_TIMES.end();
/// More shards than this are a slip of the keyboard.
const SHARDS_MAX: i64 = 256;
/// A day between checkpoints is the most.
const CHECKPOINT_INTERVAL_MS_MAX: i64 = 86_400_000;
/// A minute between commits is the most.
const EPOCH_INTERVAL_MS_MAX: i64 = 60_000;
/// A record has to fit into memory a few times.
const RECORD_BYTES_MAX: i64 = 1 << 30;

/// Default of `idle_timeout_ms` of a topic; files have none.
const KAFKA_IDLE_TIMEOUT_MS: u64 = 10_000;

const NO_SECTION: &str = "missing: an input or output names a topic, and brokers are wanted for it";
const NOT_BOTH: &str = "either `file` or `kafka`, not both";
const NO_AVRO: &str = "`avro` is only for topics: files hold JSON lines";
const NO_REGISTRY: &str = "missing: an input or output is in Avro";

/// The whole job file.
pub fn job(file: PathBuf, mut root: Table<'_>) -> Job {
    let directory = file.parent().map(Path::to_path_buf).unwrap_or_default();
    let name = name(&mut root);
    let dataflows = dataflows(&mut root);
    let state = state(&mut root, &directory);
    let append = root.boolean("append").unwrap_or(false);
    let shards = natural(&mut root, "shards", 1..=SHARDS_MAX).unwrap_or(1);
    let history_checkpoint_ms = history(&mut root);
    let section = root.table("kafka");

    let own = own_places(&file, &state, &name);
    let inputs = inputs(&mut root, &dataflows, &own);
    let outputs = outputs(&mut root, &dataflows, &inputs, &own, shards);

    // One whose name is missing or wrong has been noted.
    let named = |topic: Option<&str>| topic.is_some_and(|name| !name.is_empty());
    let uses_kafka =
        inputs.iter().any(|input| named(input.topic())) || outputs.iter().any(|output| named(output.topic()));
    if uses_kafka && section.is_none() {
        root.add(root.at, "kafka", NO_SECTION);
    }
    let processes = root.table("cluster");
    let processes = processes.map(|section| cluster::processes(section, &directory));
    let at = section.as_ref().map(|section| section.at);
    let kafka = section
        .map(|section| kafka::kafka(section, &name))
        .filter(|_| uses_kafka);
    let uses_avro = inputs.iter().any(|input| input.format == Format::Avro)
        || outputs.iter().any(|output| output.format == Format::Avro);
    if let (Some(at), Some(Kafka { registry: None, .. }), true) = (at, &kafka, uses_avro) {
        root.add(at, "kafka.schema_registry", NO_REGISTRY);
    }

    let (mut epoch_interval_ms, mut replay_tick_ms) = (EPOCH_INTERVAL_MS, REPLAY_TICK_MS);
    if let Some(mut epoch) = root.table("epoch") {
        let interval = natural(&mut epoch, "interval_ms", 1..=EPOCH_INTERVAL_MS_MAX);
        epoch_interval_ms = interval.unwrap_or(epoch_interval_ms);
        replay_tick_ms = epoch
            .integer("replay_tick_ms", 1..=LONGEST_MS)
            .unwrap_or(replay_tick_ms);
        epoch.finish();
    }
    let mut checkpoint_interval_ms = CHECKPOINT_INTERVAL_MS;
    if let Some(mut checkpoint) = root.table("checkpoint") {
        let interval = natural(&mut checkpoint, "interval_ms", 1..=CHECKPOINT_INTERVAL_MS_MAX);
        checkpoint_interval_ms = interval.unwrap_or(checkpoint_interval_ms);
        checkpoint.finish();
    }

    let settings = settings(&mut root, &dataflows);
    root.finish();
    Job {
        file,
        name,
        dataflows,
        settings,
        state,
        kafka,
        processes: processes.unwrap_or_default(),
        append,
        shards,
        inputs,
        outputs,
        epoch_interval_ms,
        replay_tick_ms,
        checkpoint_interval_ms,
        history_checkpoint_ms,
    }
}

/// An integer whose range holds nothing negative and nothing too large for `T`.
fn natural<T: TryFrom<i64>>(
    table: &mut Table<'_>,
    key: &'static str,
    range: std::ops::RangeInclusive<i64>,
) -> Option<T> {
    table
        .integer(key, range)
        .and_then(|number| T::try_from(number).ok())
}

fn name(root: &mut Table<'_>) -> String {
    let Some(name) = root.required("name") else {
        return String::new();
    };
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.value.is_empty() || !name.value.bytes().all(allowed) {
        root.add(
            name.at,
            "name",
            format!("`{}` is not made of a-z, 0-9 and -", name.value),
        );
    }
    name.value
}

/// Whether the past is kept, and how far apart its checkpoints are.
fn history(root: &mut Table<'_>) -> Option<Millis> {
    let wanted = root.boolean("history").unwrap_or(false);
    if !wanted {
        root.refuse("history_checkpoint_ms", "only with `history = true`");
        return None;
    }
    let interval = root.integer("history_checkpoint_ms", 1..=LONGEST_MS);
    Some(interval.unwrap_or(HISTORY_CHECKPOINT_MS))
}

/// The chosen dataflows. A misspelt name is taken for the one it is likely to mean, so that the rest of the
/// file is checked against that.
fn dataflows(root: &mut Table<'_>) -> Vec<Dataflow> {
    let names = root.strings("dataflows");
    let all = Dataflow::ALL.map(Dataflow::name);
    let mut chosen = Vec::new();
    for Located { value: name, at } in &names {
        if Dataflow::named(name).is_none() {
            let suggestion = suggestion(name, &all);
            root.add(
                *at,
                "dataflows",
                format!("`{name}` is none of {}{suggestion}", all.join(", ")),
            );
        }
        match nearest(name, &all).and_then(Dataflow::named) {
            Some(dataflow) if chosen.contains(&dataflow) => {
                root.add(*at, "dataflows", format!("`{name}` is named twice"));
            }
            dataflow => chosen.extend(dataflow),
        }
    }
    chosen.sort_unstable();
    chosen
}

fn state(root: &mut Table<'_>, directory: &Path) -> State {
    let Some(state) = root.required("state") else {
        return State::Directory(PathBuf::new());
    };
    if let Some(reason) = objects::refusal(&state.value) {
        root.add(state.at, "state", reason);
    }
    let Some(local) = objects::local_directory(&state.value) else {
        return State::Url(state.value);
    };
    let path = directory.join(local);
    if state.value.is_empty() || (path.exists() && !path.is_dir()) {
        root.add(state.at, "state", format!("`{}` is not a directory", state.value));
    }
    State::Directory(path)
}

/// The inputs of the chosen dataflows, each once, with the dataflow that is named when one is missing.
fn wanted_inputs(dataflows: &[Dataflow]) -> Vec<(Dataflow, InputSpec)> {
    let mut wanted: Vec<(Dataflow, InputSpec)> = Vec::new();
    for dataflow in dataflows {
        for spec in dataflow.inputs() {
            if wanted.iter().all(|(_, known)| known.name != spec.name) {
                wanted.push((*dataflow, *spec));
            }
        }
    }
    wanted
}

fn inputs(root: &mut Table<'_>, dataflows: &[Dataflow], own: &OwnPlaces) -> Vec<Input> {
    let mut sections = root.required_table("inputs");
    let mut inputs = Vec::new();
    for (dataflow, spec) in wanted_inputs(dataflows) {
        if !spec.is_optional && !sections.has(spec.name) {
            sections.add(
                sections.at,
                spec.name,
                format!("missing: {} reads it", dataflow.name()),
            );
        }
        inputs.extend(sections.table(spec.name).map(|section| input(section, spec, own)));
    }
    for dataflow in Dataflow::ALL
        .into_iter()
        .filter(|dataflow| !dataflows.contains(dataflow))
    {
        for spec in dataflow.inputs() {
            sections.refuse(
                spec.name,
                &format!("no dataflow of this job reads it ({} does)", dataflow.name()),
            );
        }
    }
    sections.finish();
    inputs
}

fn input(mut section: Table<'_>, spec: InputSpec, own: &OwnPlaces) -> Input {
    let (place, format) = place_and_format(&mut section, own);
    let place = match place {
        Place::Topic(name) => {
            let from = kafka::from(&mut section);
            InputPlace::Topic { name, from }
        }
        Place::File(pattern) => {
            section.refuse("from", "only of a topic: files are read from their first byte");
            let found = files::matching(&own.directory, &pattern.value).unwrap_or_else(|error| {
                section.add(pattern.at, "file", error);
                Vec::new()
            });
            InputPlace::Files {
                directory: own.directory.clone(),
                pattern: pattern.value,
                files: found,
            }
        }
        Place::None => InputPlace::Topic {
            name: String::new(),
            from: From::default(),
        },
    };
    let idle_timeout_ms = natural(&mut section, "idle_timeout_ms", 0..=LONGEST_MS);
    let is_topic = matches!(place, InputPlace::Topic { .. });
    let bound = section.integer("max_out_of_orderness_ms", 0..=LONGEST_MS);
    let input = Input {
        spec,
        place,
        format,
        max_out_of_orderness_ms: bound.unwrap_or(spec.max_out_of_orderness_ms),
        idle_timeout_ms: idle_timeout_ms.or(is_topic.then_some(KAFKA_IDLE_TIMEOUT_MS)),
        max_jump_ms: section.integer("max_jump_ms", 0..=LONGEST_MS),
        max_record_bytes: natural(&mut section, "max_record_bytes", 1..=RECORD_BYTES_MAX)
            .unwrap_or(MAX_RECORD_BYTES),
    };
    section.finish();
    input
}

/// Where a section says that its messages are.
enum Place {
    File(Located<String>),
    Topic(String),
    /// Missing or wrong, which is noted.
    None,
}

/// What inputs and outputs have in common.
fn place_and_format(section: &mut Table<'_>, own: &OwnPlaces) -> (Place, Format) {
    let place = match (section.has("file"), section.has("kafka")) {
        (true, true) => {
            section.refuse("kafka", NOT_BOTH);
            section.string("file").map_or(Place::None, Place::File)
        }
        (false, true) => {
            section.string("file");
            kafka::topic(section, &own.progress).map_or(Place::None, |topic| Place::Topic(topic.value))
        }
        (true | false, false) => {
            section.string("kafka");
            section.required("file").map_or(Place::None, Place::File)
        }
    };
    let formats = [("json", Format::Json), ("avro", Format::Avro)];
    let at = section.place("format");
    let format = section.symbol("format", &formats).unwrap_or(Format::Json);
    if format == Format::Avro && matches!(place, Place::File(_)) {
        section.add(at, "format", NO_AVRO);
    }
    (place, format)
}

fn outputs(
    root: &mut Table<'_>,
    dataflows: &[Dataflow],
    inputs: &[Input],
    own: &OwnPlaces,
    shards: u32,
) -> Vec<Output> {
    let mut sections = root.required_table("outputs");
    let has_devices = has_devices(inputs);
    let mut wanted: Vec<(Option<Dataflow>, OutputSpec)> = Vec::new();
    for dataflow in dataflows {
        wanted.extend(
            dataflow
                .outputs(has_devices)
                .iter()
                .map(|spec| (Some(*dataflow), *spec)),
        );
    }
    wanted.push((None, DEAD_LETTERS));
    let mut outputs: Vec<(usize, Output)> = Vec::new();
    for (dataflow, spec) in wanted {
        if !sections.has(spec.name) {
            let who = dataflow.map_or("every job", Dataflow::name);
            sections.add(sections.at, spec.name, format!("missing: {who} writes it"));
        }
        let Some(section) = sections.table(spec.name) else {
            continue;
        };
        if let Some((at, output)) = output(section, spec, dataflow, own, shards) {
            refuse_shared_file(&sections, at, &output, inputs, &outputs);
            outputs.push((at, output));
        }
    }
    if dataflows.contains(&Dataflow::Alerts) {
        sections.refuse(DEVICE_PUSH.name, "only with `inputs.devices`");
    }
    for dataflow in Dataflow::ALL
        .into_iter()
        .filter(|dataflow| !dataflows.contains(dataflow))
    {
        for spec in dataflow.outputs(true) {
            sections.refuse(
                spec.name,
                &format!("no dataflow of this job writes it ({} does)", dataflow.name()),
            );
        }
    }
    sections.finish();
    outputs.into_iter().map(|(_, output)| output).collect()
}

/// What lies in a state directory.
const STATE_NAMES: [&str; 8] = [
    "begun",
    "chunks",
    "claims",
    "history",
    "kept",
    "lock",
    "manifests",
    "replays",
];

/// What a job keeps beside its outputs.
struct OwnPlaces {
    directory: PathBuf,
    file: PathBuf,
    state: Option<PathBuf>,
    /// The topic that holds what is committed.
    progress: String,
}

fn own_places(file: &Path, state: &State, name: &str) -> OwnPlaces {
    OwnPlaces {
        progress: progress_topic::name(name),
        directory: file.parent().map(Path::to_path_buf).unwrap_or_default(),
        file: files::identity(file),
        state: match state {
            State::Directory(path) => Some(files::identity(path)),
            State::Url(_) => None,
        },
    }
}

impl OwnPlaces {
    /// Whether it is the job file, one of the state's own, or has the name of a progress log.
    fn has(&self, path: &Path) -> bool {
        let path = files::identity(path);
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let is_log = name.is_some_and(|name| name.starts_with('.') && name.ends_with(".progress"));
        let below = self
            .state
            .as_ref()
            .and_then(|state| path.strip_prefix(state).ok());
        let is_state = below.is_some_and(|below| match below.components().next() {
            None => true,
            Some(first) => STATE_NAMES.iter().any(|name| first.as_os_str() == *name),
        });
        is_log || is_state || path == self.file
    }
}

fn output(
    mut section: Table<'_>,
    spec: OutputSpec,
    dataflow: Option<Dataflow>,
    own: &OwnPlaces,
    shards: u32,
) -> Option<(usize, Output)> {
    for later in ["redis", "postgres"] {
        section.refuse(later, "not in this version: use `file`");
    }
    let at = section.place("kafka");
    let (place, format) = place_and_format(&mut section, own);
    let Located { value: path, at } = match place {
        Place::File(path) => path,
        Place::Topic(name) => {
            section.finish();
            let place = OutputPlace::Topic(name);
            let output = Output {
                spec,
                dataflow,
                place,
                format,
            };
            return Some((at, output));
        }
        Place::None => {
            section.finish();
            return None;
        }
    };
    let decide = |section: &Table<'_>| {
        let files = shard_files(&own.directory.join(&path), shards);
        if files.is_empty() || path.ends_with('/') || files.iter().any(|file| file.is_dir()) {
            section.add(at, "file", format!("`{path}` is not a file"));
            return None;
        }
        if files.iter().any(|file| own.has(file)) {
            section.add(at, "file", format!("`{path}` is one of the job's own files"));
            return None;
        }
        Some((
            at,
            Output {
                spec,
                dataflow,
                place: OutputPlace::Files { path, files },
                format,
            },
        ))
    };
    let output = decide(&section);
    section.finish();
    output
}

/// The files of an output: with several shards, `x.jsonl` is `x-0.jsonl` and so on. None where the path names
/// no file.
fn shard_files(path: &Path, shards: u32) -> Vec<PathBuf> {
    let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else {
        return Vec::new();
    };
    let extension = path.extension().and_then(|extension| extension.to_str());
    let extension = extension
        .map(|extension| format!(".{extension}"))
        .unwrap_or_default();
    match shards {
        1 => vec![path.to_path_buf()],
        _ => (0..shards)
            .map(|shard| path.with_file_name(format!("{stem}-{shard}{extension}")))
            .collect(),
    }
}

/// An output shares its file, or topic, with no other output and no input, under whatever name, now or later.
fn refuse_shared_file(
    sections: &Table<'_>,
    at: usize,
    output: &Output,
    inputs: &[Input],
    outputs: &[(usize, Output)],
) {
    let (key, what) = match output.topic() {
        Some(_) => (format!("{}.kafka", output.spec.name), "topic"),
        None => (format!("{}.file", output.spec.name), "file"),
    };
    let own: Vec<PathBuf> = output.files().iter().map(|file| files::identity(file)).collect();
    let is_own = |file: &Path| own.contains(&files::identity(file));
    let location = output.location();
    for (_, other) in outputs {
        let same_topic = output.topic().is_some() && output.topic() == other.topic();
        if same_topic || other.files().iter().any(|file| is_own(file)) {
            let what = format!("`{location}` is also the {what} of `outputs.{}`", other.spec.name);
            sections.add(at, &key, what);
        }
    }
    for input in inputs {
        let is_read = match &input.place {
            InputPlace::Topic { name, .. } => output.topic() == Some(name),
            InputPlace::Files {
                directory,
                pattern,
                files,
            } => {
                let matched = |file: &PathBuf| files::would_match(directory, pattern, file);
                files.iter().any(|file| is_own(&file.path)) || output.files().iter().any(matched)
            }
        };
        if is_read {
            let what = format!("`{location}` is read by `inputs.{}`", input.spec.name);
            sections.add(at, &key, what);
        }
    }
}

fn settings(root: &mut Table<'_>, dataflows: &[Dataflow]) -> Settings {
    let mut settings = DEFAULTS;
    for dataflow in Dataflow::ALL {
        if !dataflows.contains(&dataflow) {
            root.refuse(dataflow.name(), "not among the `dataflows` of this job");
            continue;
        }
        let Some(mut section) = root.table(dataflow.name()) else {
            continue;
        };
        match dataflow {
            Dataflow::Alerts | Dataflow::EventCounts => {}
            Dataflow::TumblingAggregates => settings.tumbling_aggregates = tumbling_aggregates(&mut section),
            Dataflow::EnrichedOrders => settings.enriched_orders = enriched_orders(&mut section),
            Dataflow::RiskPattern => settings.risk_pattern = risk_pattern(&mut section),
        }
        section.finish();
    }
    settings
}

/// The settings of these dataflows alone.
pub fn changed(mut root: Table<'_>, dataflows: &[Dataflow]) -> Settings {
    let settings = settings(&mut root, dataflows);
    root.finish();
    settings
}

fn tumbling_aggregates(section: &mut Table<'_>) -> TumblingAggregatesConfig {
    let default = DEFAULTS.tumbling_aggregates;
    let emit = [("final", WindowEmit::Final), ("changes", WindowEmit::Changes)];
    TumblingAggregatesConfig {
        size_ms: section
            .integer("size_ms", 1..=LONGEST_MS)
            .unwrap_or(default.size_ms),
        grace_ms: section
            .integer("grace_ms", 0..=LONGEST_MS)
            .unwrap_or(default.grace_ms),
        emit: section.symbol("emit", &emit).unwrap_or(default.emit),
    }
}

fn enriched_orders(section: &mut Table<'_>) -> EnrichedOrdersConfig {
    let default = DEFAULTS.enriched_orders;
    EnrichedOrdersConfig {
        within_ms: section
            .integer("within_ms", 0..=LONGEST_MS)
            .unwrap_or(default.within_ms),
        grace_ms: section
            .integer("grace_ms", 0..=LONGEST_MS)
            .unwrap_or(default.grace_ms),
    }
}

fn risk_pattern(section: &mut Table<'_>) -> RiskPatternConfig {
    let default = DEFAULTS.risk_pattern;
    let emit = [("final", PatternEmit::Final), ("eager", PatternEmit::Eager)];
    RiskPatternConfig {
        limit: section.integer("limit", 0..=i64::MAX).unwrap_or(default.limit),
        within_ms: section
            .integer("within_ms", 1..=LONGEST_MS)
            .unwrap_or(default.within_ms),
        emit: section.symbol("emit", &emit).unwrap_or(default.emit),
    }
}

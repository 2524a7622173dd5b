//! From a decided job to a plan of the engine.

use crate::job::{self, Input, InputFile, InputPlace, Job, OutputPlace, matching};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tidegate::error::{Error, Kind, Result};
use tidegate::format::registry::Schemas;
use tidegate::pace::Cutting;
use tidegate::run::{self, Aim, Build, InputPlan, KafkaPlan, Matching, OutputPlan, Plan};
use tidegate::sink::encode::Format;
use tidegate::sink::files::Shard;
use tidegate::source::{InputSettings, Medium};
use tidegate_dataflows::catalogue;

/// The plan of `job` for a finite or a followed run.
pub fn plan(job: &Job, workers: u16, follow: bool) -> Result<Plan> {
    let output = |output: &job::Output| OutputPlan {
        name: output.spec.name.to_owned(),
        place: match &output.place {
            OutputPlace::Files { files, .. } => run::OutputPlace::Files(files.clone()),
            OutputPlace::Topic(name) => run::OutputPlace::Topic {
                name: name.clone(),
                partitions: 0,
                format: match output.format {
                    job::Format::Json => Format::Json,
                    job::Format::Avro => Format::Avro(None),
                },
            },
        },
        schema: output.spec.schema,
    };
    let schemas = match job.kafka.as_ref().and_then(|kafka| kafka.registry.as_ref()) {
        Some(registry) => Some(Arc::new(Schemas::start(registry)?)),
        None => None,
    };
    let inputs = job
        .inputs
        .iter()
        .zip(0..)
        .map(|(input, index)| input_plan(job, input, index, schemas.as_ref()));
    let kafka = job.kafka.as_ref().map(|kafka| KafkaPlan {
        settings: kafka.settings.clone(),
        transaction_timeout: Duration::from_millis(kafka.transaction_timeout_ms),
        schemas: schemas.clone(),
        register_schemas: kafka.register_schemas,
    });
    let follow = follow || job.reads_topics();
    Ok(Plan {
        name: job.name.clone(),
        root: job.directory().to_path_buf(),
        plan_hash: job.plan_hash(),
        state: job.state.location(),
        append: job.append,
        inputs: inputs.collect(),
        outputs: job.outputs.iter().map(output).collect(),
        shards: job.shards,
        kafka,
        take_over: false,
        accept_gap: false,
        workers: usize::from(workers),
        processes: 1,
        process: 0,
        replay: None,
        cutting: match follow {
            false => Cutting::Finite,
            true => Cutting::Live {
                interval: Duration::from_millis(job.epoch_interval_ms),
            },
        },
        checkpoint_interval: Duration::from_millis(job.checkpoint_interval_ms),
        history: job.history_checkpoint_ms,
        aim: Aim::Outputs,
    })
}

/// A shard of the job's output files; none where it has no output in files.
pub fn file_shard(job: &Job, shard: usize) -> Option<Shard> {
    let outputs = job.outputs.iter().zip(0..);
    let outputs = outputs.filter_map(|(output, index)| Some((index, output.files().get(shard)?.clone())));
    let outputs: Vec<_> = outputs.collect();
    (!outputs.is_empty()).then(|| Shard {
        job: job.name.clone(),
        shard,
        root: job.directory().to_path_buf(),
        outputs,
    })
}

/// How every worker builds the job's dataflows.
pub fn build(job: &Job) -> Build {
    let (dataflows, settings) = (job.dataflows.clone(), job.settings);
    Arc::new(move |wiring| catalogue::build(wiring, &dataflows, &settings))
}

fn input_plan(job: &Job, input: &Input, index: u16, schemas: Option<&Arc<Schemas>>) -> InputPlan {
    let medium = match (&input.place, input.format, schemas) {
        (InputPlace::Files { .. }, ..) => Medium::Lines,
        (InputPlace::Topic { .. }, job::Format::Avro, Some(schemas)) => Medium::Avro(Arc::clone(schemas)),
        (InputPlace::Topic { .. }, ..) => Medium::Json,
    };
    let place = match &input.place {
        InputPlace::Topic { name, from } => run::InputPlace::Topic {
            name: name.clone(),
            from: *from,
            partitions: 0,
        },
        InputPlace::Files {
            directory,
            pattern,
            files,
        } => {
            let names = |root: &Path, files: &[InputFile]| {
                files
                    .iter()
                    .map(|file| name_in(root, &file.path))
                    .collect::<Vec<_>>()
            };
            let key = format!("{}: inputs.{}.file", job.file.display(), input.spec.name);
            let (root, again) = (directory.clone(), pattern.clone());
            let matching = move || {
                let files = matching(&root, &again)
                    .map_err(|error| Error::new(Kind::InputGone, format!("{key}: {error}")))?;
                Ok(names(&root, &files))
            };
            run::InputPlace::Files {
                root: directory.clone(),
                files: names(directory, files),
                matching: Matching(Arc::new(matching)),
            }
        }
    };
    InputPlan {
        settings: InputSettings {
            name: input.spec.name.to_owned(),
            index,
            medium,
            is_table: input.spec.is_table,
            max_out_of_orderness_ms: input.max_out_of_orderness_ms,
            idle_timeout: input.idle_timeout_ms.map(Duration::from_millis),
            max_jump_ms: input.max_jump_ms,
            max_record_bytes: input.max_record_bytes,
            replay_tick_ms: job.replay_tick_ms,
            span: None,
            log: None,
        },
        place,
    }
}

/// A file's name relative to the directory of its job, where it lies below it.
fn name_in(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

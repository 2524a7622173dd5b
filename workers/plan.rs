//! From a decided job to a plan of the engine.

use crate::job::{Input, Job};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tidegate::error::{Error, Kind, Result};
use tidegate::pace::Cutting;
use tidegate::run::{Build, InputPlan, Matching, OutputPlan, Plan};
use tidegate::sink::files::Shard;
use tidegate::source::InputSettings;
use tidegate_dataflows::catalogue;

/// The plan of `job` for a finite or a followed run.
pub fn plan(job: &Job, workers: u16, follow: bool) -> Result<Plan> {
    let inputs = job
        .inputs
        .iter()
        .zip(0..)
        .map(|(input, index)| input_plan(job, input, index));
    let output = |output: &crate::job::Output| OutputPlan {
        name: output.spec.name.to_owned(),
        files: output.files.clone(),
    };
    Ok(Plan {
        name: job.name.clone(),
        root: job.directory().to_path_buf(),
        plan_hash: job.plan_hash(),
        state: job.state.location(),
        append: job.append,
        inputs: inputs.collect::<Result<_>>()?,
        outputs: job.outputs.iter().map(output).collect(),
        shards: job.shards,
        workers: usize::from(workers),
        cutting: match follow {
            false => Cutting::Finite,
            true => Cutting::Live {
                interval: Duration::from_millis(job.epoch_interval_ms),
            },
        },
        checkpoint_interval: Duration::from_millis(job.checkpoint_interval_ms),
    })
}

/// A shard of the job's outputs.
pub fn shard(job: &Job, shard: usize) -> Shard {
    let outputs = job.outputs.iter().zip(0..);
    Shard {
        job: job.name.clone(),
        shard,
        root: job.directory().to_path_buf(),
        outputs: outputs
            .map(|(output, index)| (index, output.files[shard].clone()))
            .collect(),
    }
}

/// How every worker builds the job's dataflows.
pub fn build(job: &Job) -> Build {
    let (dataflows, settings) = (job.dataflows.clone(), job.settings);
    Arc::new(move |wiring| catalogue::build(wiring, &dataflows, &settings))
}

fn input_plan(job: &Job, input: &Input, index: u16) -> Result<InputPlan> {
    let (root, file) = (input.directory.clone(), job.file.display().to_string());
    let named = input.clone();
    let matching = move || {
        let files = named.matching().map_err(|error| {
            Error::new(
                Kind::InputGone,
                format!("{file}: inputs.{}.file: {error}", named.spec.name),
            )
        })?;
        Ok(files
            .iter()
            .map(|file| name_in(&named.directory, &file.path))
            .collect())
    };
    Ok(InputPlan {
        settings: InputSettings {
            name: input.spec.name.to_owned(),
            index,
            is_table: input.spec.is_table,
            max_out_of_orderness_ms: input.max_out_of_orderness_ms,
            idle_timeout: input.idle_timeout_ms.map(Duration::from_millis),
            max_jump_ms: input.max_jump_ms,
            max_record_bytes: input.max_record_bytes,
            replay_tick_ms: job.replay_tick_ms,
        },
        files: input
            .files
            .iter()
            .map(|file| name_in(&root, &file.path))
            .collect(),
        root,
        matching: Matching(Arc::new(matching)),
    })
}

/// A file's name relative to the directory of its job, where it lies below it.
fn name_in(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

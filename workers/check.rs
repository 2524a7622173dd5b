//! `tidegate check`: what a job file means, with every default and every matched file, without running it.

use crate::arguments::CheckArguments;
use crate::job::{Input, InputFile, Job, Kafka, Output};
use crate::print::{print, print_json};
use serde_json::{Value, json};
use tidegate::columns::aligned;
use tidegate::error::Result;

/// Reads the job and prints what it means.
pub fn check(arguments: &CheckArguments) -> Result<()> {
    let job = Job::read(&arguments.job)?;
    if arguments.json {
        print_json(&as_json(&job))
    } else {
        print(&as_text(&job))
    }
}

fn as_text(job: &Job) -> String {
    let names: Vec<_> = job.dataflows.iter().map(|dataflow| dataflow.name()).collect();
    let bytes: u64 = job
        .inputs
        .iter()
        .flat_map(Input::files)
        .map(|file| file.bytes)
        .sum();
    let mut text = format!("{}: {} on {bytes} bytes of input\n", job.name, names.join(", "));
    let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();

    let mut rows = vec![row(&["input", "partition", "bytes", "file"])];
    for input in &job.inputs {
        if let Some(topic) = input.topic() {
            rows.push(row(&[input.spec.name, "all", "", &format!("kafka:{topic}")]));
        }
        for (partition, file) in input.files().iter().enumerate() {
            let name = if partition == 0 { input.spec.name } else { "" };
            rows.push(row(&[
                name,
                &partition.to_string(),
                &file.bytes.to_string(),
                &file.name,
            ]));
        }
    }
    text.push('\n');
    text.push_str(&aligned(&rows));

    let mut rows = vec![row(&["output", "of", "file"])];
    for output in &job.outputs {
        let topic = output.topic().map(|topic| format!("kafka:{topic}"));
        let place = topic.as_deref().unwrap_or(output.location());
        rows.push(row(&[output.spec.name, writer(output), place]));
    }
    text.push('\n');
    text.push_str(&aligned(&rows));

    let mut rows = vec![row(&["setting", "value"])];
    rows.extend(settings(job).iter().map(|(key, value)| row(&[key, value])));
    text.push('\n');
    text.push_str(&aligned(&rows));
    text
}

fn as_json(job: &Job) -> Value {
    let settings: serde_json::Map<String, Value> = settings(job)
        .into_iter()
        .map(|(key, value)| (key, typed(value)))
        .collect();
    json!({
        "name": job.name,
        "file": job.file.display().to_string(),
        "dataflows": job.dataflows.iter().map(|dataflow| dataflow.name()).collect::<Vec<_>>(),
        "inputs": job.inputs.iter().map(input_as_json).collect::<Vec<_>>(),
        "outputs": job.outputs.iter().map(output_as_json).collect::<Vec<_>>(),
        "settings": settings,
        "plan_hash": format!("{:016x}", job.plan_hash()),
    })
}

/// A setting's value with its JSON type: a number, a truth, null where it is off, or a string.
fn typed(value: String) -> Value {
    match value.as_str() {
        "off" => Value::Null,
        "true" | "false" => Value::Bool(value == "true"),
        number => number
            .parse::<i64>()
            .map_or_else(|_| Value::String(value.clone()), Value::from),
    }
}

fn input_as_json(input: &Input) -> Value {
    let partition = |(partition, file): (usize, &InputFile)| {
        let (name, bytes) = (&file.name, file.bytes);
        json!({ "partition": partition, "file": name, "bytes": bytes })
    };
    json!({
        "name": input.spec.name,
        "record": input.spec.record,
        "is_table": input.spec.is_table,
        "pattern": input.location(),
        "kafka": input.topic(),
        "partitions": input.files().iter().enumerate().map(partition).collect::<Vec<_>>(),
    })
}

fn output_as_json(output: &Output) -> Value {
    let files: Vec<_> = output
        .files()
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    json!({ "name": output.spec.name, "dataflow": writer(output), "files": files, "kafka": output.topic() })
}

/// Whose output it is; the dead letters are the job's.
fn writer(output: &Output) -> &'static str {
    output.dataflow.map_or("the job", |dataflow| dataflow.name())
}

/// Every setting in force, by its key in the job file.
fn settings(job: &Job) -> Vec<(String, String)> {
    let off = || "off".to_owned();
    let mut settings = vec![
        ("state".to_owned(), job.state.location()),
        ("append".to_owned(), job.append.to_string()),
        ("shards".to_owned(), job.shards.to_string()),
        ("epoch.interval_ms".to_owned(), job.epoch_interval_ms.to_string()),
        ("epoch.replay_tick_ms".to_owned(), job.replay_tick_ms.to_string()),
        (
            "checkpoint.interval_ms".to_owned(),
            job.checkpoint_interval_ms.to_string(),
        ),
    ];
    let history = job
        .history_checkpoint_ms
        .map_or_else(off, |interval| interval.to_string());
    settings.push(("history_checkpoint_ms".to_owned(), history));
    settings.extend(job.kafka.iter().flat_map(Kafka::settings_shown));
    settings.extend(job.dataflow_settings());
    for input in &job.inputs {
        let values = [
            ("format", input.format.name().to_owned()),
            (
                "max_out_of_orderness_ms",
                input.max_out_of_orderness_ms.to_string(),
            ),
            (
                "idle_timeout_ms",
                input
                    .idle_timeout_ms
                    .map_or_else(off, |timeout| timeout.to_string()),
            ),
            (
                "max_jump_ms",
                input.max_jump_ms.map_or_else(off, |jump| jump.to_string()),
            ),
            ("max_record_bytes", input.max_record_bytes.to_string()),
        ];
        settings.extend(values.map(|(key, value)| (format!("inputs.{}.{key}", input.spec.name), value)));
    }
    let format = |output: &Output| {
        (
            format!("outputs.{}.format", output.spec.name),
            output.format.name().to_owned(),
        )
    };
    settings.extend(job.outputs.iter().map(format));
    settings
}

//! `tidegate whatif`: what a recorded span would have sent under other settings, less what it did send.
//!
//! ```text
//!  job, --set, --settings ─► two variants ─► one recorded run ─┬─► did it give what was committed? no: exit code 12
//!                                                              └─► differences ─► +412 -37, by type, by customer
//! ```
//!
//! The state at the beginning of the span is the recorded one in both variants: a change takes effect there. A
//! setting that the state itself is made by (the size of windows, how long a join waits) can therefore be changed
//! only from the beginning of the job on; elsewhere it is refused.

use crate::arguments::WhatIfArguments;
use crate::job::Job;
use crate::plan;
use crate::print::{print, print_on};
use crate::replay::{shown, span};
use crate::run::run_with;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use tidegate::columns::aligned;
use tidegate::error::{Error, Kind, Result};
use tidegate::format::json::{self, Rejected};
use tidegate::record::{Origin, Write, key_hash};
use tidegate::run::past::{self, Past};
use tidegate::run::verifying::{report, verification};
use tidegate::run::what_if::Differences;
use tidegate::run::{Aim, Build, Plan};
use tidegate::sink::message;
use tidegate::time::Diff;
use tidegate_dataflows::catalogue::{Dataflow, Variant, build_each};
use tidegate_dataflows::records::CustomerAlertSettings;

/// Settings that the rows of a state are made by.
const OF_STATE: [&str; 2] = ["size_ms", "within_ms"];

/// One message that would have been sent, or would not.
struct Difference {
    output: String,
    /// Copies more, or fewer.
    diff: Diff,
    key: Option<String>,
    origin: String,
    value: Value,
}

/// Compares the span of the command line under its changes with what was sent.
pub fn what_if(arguments: &WhatIfArguments) -> Result<()> {
    let job = Job::read(&arguments.job)?;
    let live = plan::plan(&job, arguments.workers, false)?;
    let changed = job.changed(&arguments.set)?;
    let alert_settings = match &arguments.settings {
        Some(file) if job.dataflows.contains(&Dataflow::Alerts) => read_settings(file)?,
        Some(_) => return Err(usage("--settings: the job has no alerts".to_owned())),
        None => Vec::new(),
    };
    let past = past::read(&live, span(arguments.from, arguments.to)?)?;
    refuse_of_state(&arguments.set, &past)?;
    let from = past.bindings.first().map_or(0, |binding| binding.epoch);
    let recorded = Variant {
        settings: job.settings,
        alert_settings: Vec::new(),
        from,
    };
    let changed = Variant {
        settings: changed,
        alert_settings,
        from,
    };
    let (dataflows, variants) = (job.dataflows.clone(), [recorded, changed]);
    let build: Build = Arc::new(move |wiring| build_each(wiring, &dataflows, &variants));
    let names: Vec<String> = live.outputs.iter().map(|output| output.name.clone()).collect();
    let plan = Plan {
        aim: Aim::WhatIf(past.epochs.start),
        ..live
    };
    let (mut verifiers, mut shared) = (Vec::new(), None);
    let start = |plan| {
        let verification = verification(plan, past, &BTreeMap::new())?;
        verifiers = verification.verifiers;
        shared = Some(verification.started.shared());
        Ok(verification.started)
    };
    run_with(&job, plan, None, start, build)?;
    let report = report(&verifiers)?;
    if !report.is_clean() {
        let text = shown(&report);
        let message = format!("what was sent is not what the record gives, so nothing can be said:\n{text}");
        return Err(Error::new(Kind::Differs, message));
    }
    let differences = shared.map(|shared| {
        let mut differences = shared.differences.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *differences)
    });
    let differences = readable(differences.unwrap_or_default(), &names)?;
    if arguments.json {
        return list(&differences);
    }
    print(&summary(&differences))?;
    if arguments.list {
        print("\n")?;
        list(&differences)?;
    }
    Ok(())
}

/// The lines of a file of alert settings, as writes.
fn read_settings(file: &Path) -> Result<Vec<Write<CustomerAlertSettings>>> {
    let refused = |what: String| usage(format!("--settings {}: {what}", file.display()));
    let text = std::fs::read(file).map_err(|error| refused(error.to_string()))?;
    let lines = text.split(|byte| *byte == b'\n').zip(1_u64..);
    let mut writes = Vec::new();
    for (line, number) in lines.filter(|(line, _)| !line.is_empty()) {
        let message = json::decode_line::<CustomerAlertSettings>(line, true).map_err(|rejected| {
            let (Rejected::Undecodable { error } | Rejected::Invalid { error, .. }) = rejected;
            refused(format!("line {number}: {error}"))
        })?;
        writes.push(Write {
            hash: key_hash(message.key.as_bytes()),
            key: message.key,
            origin: Origin {
                partition: 0,
                offset: number,
            },
            value: message.value,
        });
    }
    Ok(writes)
}

fn refuse_of_state(changes: &[String], past: &Past) -> Result<()> {
    let key = |change: &String| {
        let key = change.split('=').next().unwrap_or_default().trim();
        key.rsplit('.').next().unwrap_or_default().to_owned()
    };
    match changes
        .iter()
        .map(key)
        .find(|key| OF_STATE.contains(&key.as_str()))
    {
        Some(key) if past.checkpoint.is_some() => Err(usage(format!(
            "--set {key}: the state at --from is made by it; change it from the beginning on, without --from"
        ))),
        _ => Ok(()),
    }
}

/// Messages as they are shown, by output, key and value.
fn readable(differences: Differences, names: &[String]) -> Result<Vec<Difference>> {
    let read = |((output, bytes), diff): ((u16, Vec<u8>), Diff)| {
        let broken = || Error::internal(format!("a message of output {output} is none"));
        let message = message::read(&bytes).ok_or_else(broken)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Difference {
            output: names[usize::from(output)].clone(),
            diff,
            key: message.key.map(text),
            origin: text(message.origin),
            value: serde_json::from_slice(message.value).map_err(|_| broken())?,
        })
    };
    differences.into_iter().map(read).collect()
}

/// `+412 -37 alerts, by type and by customer`, and the two tables.
fn summary(differences: &[Difference]) -> String {
    let of_alerts = |difference: &Difference| difference.value["alert_id"].is_string();
    let what = match differences.iter().all(of_alerts) {
        true => "alerts",
        false => "messages",
    };
    let by_type = counted(differences, |difference| {
        let kind = difference.value["type"].as_str();
        kind.map_or_else(|| difference.output.clone(), str::to_owned)
    });
    let by_customer = counted(differences, |difference| {
        let customer = difference.value["customer_id"].as_str();
        let key = || difference.key.clone().unwrap_or_default();
        customer.map_or_else(key, str::to_owned)
    });
    let (more, fewer) = by_type.values().fold((0, 0), |(more, fewer), counts| {
        (more + counts.0, fewer + counts.1)
    });
    let mut text = format!("+{more} -{fewer} {what}");
    if differences.is_empty() {
        return text + "\n";
    }
    text.push_str(", by type and by customer\n");
    for (head, counts) in [("type", by_type), ("customer", by_customer)] {
        let mut rows = vec![[head, "more", "fewer"].map(str::to_owned).to_vec()];
        rows.extend(
            counts
                .into_iter()
                .map(|(name, (more, fewer))| vec![name, format!("+{more}"), format!("-{fewer}")]),
        );
        text.push('\n');
        text.push_str(&aligned(&rows));
    }
    text
}

/// How many more and how many fewer, by a name.
fn counted(differences: &[Difference], name: impl Fn(&Difference) -> String) -> BTreeMap<String, (u64, u64)> {
    let mut counts = BTreeMap::<String, (u64, u64)>::new();
    for difference in differences {
        let (more, fewer) = counts.entry(name(difference)).or_default();
        match difference.diff > 0 {
            true => *more += difference.diff.unsigned_abs(),
            false => *fewer += difference.diff.unsigned_abs(),
        }
    }
    counts
}

/// One JSON object per message.
fn list(differences: &[Difference]) -> Result<()> {
    for difference in differences {
        let Difference {
            output,
            diff,
            key,
            origin,
            value,
        } = difference;
        let line = json!({ "diff": diff, "output": output, "origin": origin, "key": key, "value": value });
        if !print_on(&format!("{line}\n"))? {
            return Ok(());
        }
    }
    Ok(())
}

fn usage(message: String) -> Error {
    Error::new(Kind::Usage, message)
}

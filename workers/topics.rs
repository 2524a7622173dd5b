//! `tidegate topics`: the topics that a job needs, what there is of them, and what is wrong.
//!
//! ```text
//!  job ─► needed ─► describe ─► (--create: what is missing, then describe again) ─► table, exit code
//! ```
//!
//! What is shown as wrong is what stops a start, said by the same rules: a topic that is missing or forgets what
//! is needed, and, once there is a state, one that is not the topic the job has used so far. Nothing that
//! exists is changed. Exit code 3 when a topic is missing or wrong, so that a script may wait on it.

use crate::arguments::TopicsArguments;
use crate::job::Job;
use crate::plan;
use crate::print::{print, print_json};
use serde::Serialize;
use tidegate::checkpoint::store;
use tidegate::columns::aligned;
use tidegate::error::{Error, Kind, Result};
use tidegate::kafka::topics::{Admin, Missing, Topic};
use tidegate::run::topics::{Needed, Use, change, fault, needed, recorded};

/// A topic, as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    topic: String,
    #[serde(rename = "use")]
    purpose: &'static str,
    exists: bool,
    partitions: Option<u32>,
    replication: Option<u32>,
    cleanup_policy: Option<String>,
    /// None where all is well.
    wrong: Option<String>,
}

/// Shows the topics of the job, and creates what is missing where that is wanted.
pub fn topics(arguments: &TopicsArguments) -> Result<()> {
    let job = Job::read(&arguments.job)?;
    let Some(kafka) = &job.kafka else {
        return print(&format!("job {}: no input or output is a topic\n", job.name));
    };
    let needed = needed(&plan::plan(&job, 1, true)?);
    let admin = Admin::new(&kafka.settings)?;
    if arguments.create {
        create(&admin, &needed, arguments)?;
    }
    let shown = look(&job, &admin, &needed)?;
    if arguments.json {
        let value = serde_json::to_value(&shown).map_err(|error| Error::internal(error.to_string()))?;
        print_json(&value)?;
    } else {
        print(&table(&shown))?;
    }
    let wrong = shown.iter().filter(|topic| topic.wrong.is_some()).count();
    if wrong > 0 {
        let message = format!("{wrong} of {} topics are missing or wrong", shown.len());
        return Err(Error::new(Kind::Configuration, message));
    }
    Ok(())
}

/// Creates what is missing.
fn create(admin: &Admin, needed: &[Needed], arguments: &TopicsArguments) -> Result<()> {
    let names: Vec<_> = needed.iter().map(|topic| topic.name.as_str()).collect();
    let found = admin.describe(&names)?;
    let missing = needed.iter().filter(|topic| found[&topic.name].is_none());
    let missing = missing.map(|topic| Missing {
        name: topic.name.clone(),
        partitions: match topic.purpose {
            Use::Progress => 1, // one order for all of it
            Use::Events | Use::Table | Use::Output => arguments.partitions,
        },
        replication: arguments.replication.unwrap_or(0),
        compacted: matches!(topic.purpose, Use::Table | Use::Progress),
    });
    admin.create(&missing.collect::<Vec<_>>())
}

fn look(job: &Job, admin: &Admin, needed: &[Needed]) -> Result<Vec<Shown>> {
    let names: Vec<_> = needed.iter().map(|topic| topic.name.as_str()).collect();
    let found = admin.describe(&names)?;
    // Looking must not create a state directory.
    let store = match job.has_state() {
        true => Some(store::open(&job.state.location())?),
        false => None,
    };
    let recorded = store.as_deref().map(recorded).transpose()?.unwrap_or_default();
    let mut shown = Vec::new();
    for topic in needed {
        let there = found[&topic.name].as_ref();
        let mut wrong = fault(topic, there);
        if let (None, Some(there), Some(store)) = (&wrong, there, &store) {
            wrong = change(store.as_ref(), &recorded, &topic.name, there)?;
        }
        shown.push(Shown {
            topic: topic.name.clone(),
            purpose: purpose(topic.purpose),
            exists: there.is_some(),
            partitions: there.map(|topic| topic.partitions),
            replication: there.map(|topic| topic.replication),
            cleanup_policy: there.map(|topic: &Topic| topic.cleanup.clone()),
            wrong,
        });
    }
    Ok(shown)
}

fn purpose(purpose: Use) -> &'static str {
    match purpose {
        Use::Events => "events",
        Use::Table => "table",
        Use::Output => "output",
        Use::Progress => "progress",
    }
}

fn table(shown: &[Shown]) -> String {
    let head = [
        "topic",
        "use",
        "partitions",
        "replication",
        "cleanup",
        "what is wrong",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(shown.iter().map(|topic| {
        let number = |number: Option<u32>| number.map_or("-".to_owned(), |number| number.to_string());
        vec![
            topic.topic.clone(),
            topic.purpose.to_owned(),
            number(topic.partitions),
            number(topic.replication),
            topic.cleanup_policy.clone().unwrap_or("-".to_owned()),
            topic.wrong.clone().unwrap_or_default(),
        ]
    }));
    aligned(&rows)
}

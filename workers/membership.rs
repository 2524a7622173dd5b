//! Which cluster a process of `tidegate run` belongs to: from the command line to a cluster that is complete.

use crate::arguments::ClusterArguments;
use crate::job::Job;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tidegate::cluster::{self, Cluster, Membership, Settings};
use tidegate::error::{Error, Kind, Result};
use tidegate::limits;
use tidegate::run::Plan;
use tidegate::secret::Secret;

/// The variable that holds the secret which all processes of a cluster know.
pub const SECRET_VARIABLE: &str = "TIDEGATE_CLUSTER_SECRET";

/// Puts the process's place into its plan, and joins its cluster; none for a process that runs the job alone.
pub fn join(arguments: &ClusterArguments, job: &Job, plan: &mut Plan) -> Result<Option<Cluster>> {
    let ClusterArguments {
        processes, process, ..
    } = *arguments;
    let Some(hosts) = &arguments.hosts else {
        return match processes {
            1 => Ok(None),
            _ => Err(usage(
                "--processes needs --hosts, the addresses of all of them".to_owned(),
            )),
        };
    };
    if process >= processes {
        return Err(usage(format!(
            "--process {process}: the {processes} processes are numbered from 0"
        )));
    }
    (plan.processes, plan.process) = (usize::from(processes), usize::from(process));
    if processes == 1 {
        return Ok(None);
    }
    let settings = Settings {
        membership: Membership {
            job: job.name.clone(),
            generation: arguments.generation,
            process: plan.process,
            processes: plan.processes,
            workers: plan.workers,
            plan_hash: plan.plan_hash,
        },
        addresses: addresses(hosts, plan.processes)?,
        listener: None,
        secret: secret()?,
        certificates: None,
        start_timeout: Duration::from_millis(limits::CLUSTER_START_TIMEOUT_MS),
        silence: limits::SILENCE,
        lost: Arc::new(end),
    };
    cluster::assemble(settings).map(Some)
}

/// A peer is lost: this process ends with it, at once, for its workers can only wait.
fn end(error: Error) {
    eprintln!("{error}");
    std::process::exit(error.kind as i32);
}

fn secret() -> Result<Secret> {
    let missing = || {
        usage(format!(
            "several processes need a secret that all of them know: set {SECRET_VARIABLE}"
        ))
    };
    std::env::var(SECRET_VARIABLE)
        .map(Secret::new)
        .map_err(|_| missing())
}

/// By process; empty lines and those with `#` do not count.
fn addresses(hosts: &Path, processes: usize) -> Result<Vec<String>> {
    let failed = |what: String| Error::new(Kind::Configuration, format!("{}: {what}", hosts.display()));
    let text = fs::read_to_string(hosts).map_err(|error| failed(error.to_string()))?;
    let lines = text.lines().map(str::trim);
    let addresses: Vec<String> = lines
        .filter(|line| !(line.is_empty() || line.starts_with('#')))
        .map(str::to_owned)
        .collect();
    match addresses.len() == processes {
        true => Ok(addresses),
        false => Err(failed(format!(
            "it has {} addresses for {processes} processes; one `host:port` a line",
            addresses.len()
        ))),
    }
}

fn usage(message: String) -> Error {
    Error::new(Kind::Usage, message)
}

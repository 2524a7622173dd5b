//! Which cluster a process of `tidegate run` belongs to: from the command line to a cluster that is complete.

use crate::arguments::ClusterArguments;
use crate::job::Job;
use crate::launched;
use std::fs;
use std::path::Path;
use std::sync::Arc;
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
    let addresses = match &arguments.hosts {
        Some(hosts) => read(hosts, usize::from(processes))?,
        None if processes == 1 => return Ok(None),
        None if arguments.addresses.is_empty() => {
            let message = "--processes needs --hosts, the addresses of all of them";
            return Err(usage(message.to_owned()));
        }
        None => arguments.addresses.clone(),
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
        addresses,
        listener: match arguments.launcher.is_some() {
            true => Some(Arc::new(launched::listener()?)),
            false => None,
        },
        secret: secret(job)?,
        certificates: job.processes.certificates.clone(),
        start_timeout: job.processes.start_timeout,
        silence: limits::SILENCE,
        // This process ends with its peer, at once, for its workers can only wait.
        lost: Arc::new(|error| launched::end(&error)),
    };
    let cluster = cluster::assemble(settings)?;
    launched::tell_peers(&cluster.parting);
    Ok(Some(cluster))
}

/// The launcher's secret, made for this one cluster, or else the job's own.
fn secret(job: &Job) -> Result<Secret> {
    let launchers = std::env::var(SECRET_VARIABLE).ok().map(Secret::new);
    launchers.or_else(|| job.processes.secret.clone()).ok_or_else(|| {
        usage(format!(
            "several processes need a secret that all of them know: set {SECRET_VARIABLE}, or `secret` in [cluster]"
        ))
    })
}

/// By process; empty lines and those with `#` do not count.
fn read(hosts: &Path, processes: usize) -> Result<Vec<String>> {
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

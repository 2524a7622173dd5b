//! `tidegate graph`: the dataflow graph of a job, as timely sees it.

use crate::arguments::GraphArguments;
use crate::job::Job;
use crate::plan;
use crate::print::{print, print_json};
use std::sync::Arc;
use tidegate::error::{Error, Result};

/// Prints the graph of the job.
pub fn graph(arguments: &GraphArguments) -> Result<()> {
    let job = Job::read(&arguments.job)?;
    let plan = Arc::new(plan::plan(&job, 1, false)?);
    let graph = tidegate::run::graph::graph(&plan, plan::build(&job)).simplified();
    if arguments.json {
        let value = serde_json::to_value(&graph).map_err(|error| Error::internal(error.to_string()))?;
        return print_json(&value);
    }
    print(&if arguments.dot {
        graph.dot(&job.name)
    } else {
        graph.mermaid()
    })
}

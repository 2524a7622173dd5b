//! `tidegate demo`: a generated day, all five dataflows as one job, the real protocol, and a table of what came out.

use crate::arguments::DemoArguments;
use crate::generate::{Place, day, write_day};
use crate::job::Job;
use crate::plan;
use crate::print::print;
use crate::run::run_job;
use std::fs;
use std::path::Path;
use tidegate::error::{Error, Kind, Result};

/// Partitions of event inputs and of tables.
const PARTITIONS: (u32, u32) = (4, 2);

/// Marks a directory as a demo's own, so that the next demo may replace it.
const MARK: &str = ".tidegate-demo";

/// Generates, runs, prints.
pub fn demo(arguments: &DemoArguments) -> Result<()> {
    let out = &arguments.out;
    replace_own(out)?;
    fs::create_dir_all(out).map_err(|error| failed(out, &error))?;
    let mark = out.join(MARK);
    fs::write(&mark, "replaced by the next `tidegate demo`\n").map_err(|error| failed(&mark, &error))?;
    let input = out.join("day");
    let lines = write_day(
        day(&arguments.size, PARTITIONS.0, PARTITIONS.1),
        &input,
        Place::Files,
        false,
    )?;
    tracing::info!("generated {} lines in {}", lines.lines, input.display());
    let file = input.join("job.toml");
    let job = Job::read(&file)?;
    let outcome = run_job(&job, plan::plan(&job, arguments.workers, false)?, None)?;
    if arguments.json {
        return outcome.print_json();
    }
    let file = file.display();
    print(&format!(
        "{}\nLook again with:  tidegate status {file}\n",
        outcome.table()
    ))
}

/// Removes what an earlier demo left; refuses anything else.
fn replace_own(out: &Path) -> Result<()> {
    let is_empty = fs::read_dir(out).map_or(true, |mut entries| entries.next().is_none());
    if is_empty {
        return Ok(());
    }
    if !out.join(MARK).exists() {
        let message = format!(
            "{}: not empty and not an earlier demo's; name another --out",
            out.display()
        );
        return Err(Error::new(Kind::Usage, message));
    }
    fs::remove_dir_all(out).map_err(|error| failed(out, &error))
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    Error::new(Kind::WriteFailed, format!("{}: {error}", path.display()))
}

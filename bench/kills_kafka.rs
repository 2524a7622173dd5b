//! The kill campaign over topics of a real broker.
//!
//! ```text
//!  round:  new topics ─► feed a piece ─► run ─► killed ─► run ─► all committed? feed the next piece ─► ... ─► drained
//!                        two readers: one attached from the start, one at the end; nothing may be left open
//! ```
//!
//! The day's tables stand still and are there before the first start. Outputs are compared with those of a round that
//! nobody disturbed, as multisets of partition, key and value; of `counts` the last row of each key. The two readers
//! must have been given the same messages in the same order.

use crate::arguments::KillsArguments;
use crate::broker::{Brokers, Options};
use crate::kills::{Campaign, Chance, KILLS_A_ROUND, death};
use crate::kills_run::{Death, End, LOOK, PATIENCE, Program, ask_to_end, ended, listens};
use crate::kills_topics::{Day, Outputs, Round, differences};
use crate::process::now;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Runs the campaign: at least `count` kills.
pub fn campaign(
    program: &Program,
    arguments: &KillsArguments,
    seed: u64,
    workers: &[usize],
) -> Result<Campaign, String> {
    let brokers = Brokers::start(&Options::default())?;
    let directory = Directory::new()?;
    let day = generate(program, &directory.0, seed, arguments.size.day_accounts)?;
    let mut chance = Chance::new(seed);
    let mut campaign = Campaign::new(arguments);
    let (calm, took) = undisturbed(program, &brokers, &directory.0, &day)?;
    while campaign.kills < arguments.size.count {
        let before = (now(), campaign.kills);
        let kills = (arguments.size.count - campaign.kills).min(1 + chance.below(KILLS_A_ROUND));
        let name = format!("kills-{}", campaign.rounds);
        let mut round = Round::new(brokers.bootstrap(), &directory.0, &name, &day)?;
        let mut story = Vec::new();
        match lives(
            program,
            &mut round,
            (kills, took),
            workers,
            &mut chance,
            &mut campaign,
            &mut story,
        ) {
            Ok(()) => {
                let found = round.read()?;
                campaign.compared(&differences(&calm, &found), &story);
            }
            Err(words) => campaign.failed(&words, &story),
        }
        round.remove();
        campaign.rounds += 1;
        campaign.tell(before, arguments.size.count, "");
        if campaign.kills == before.1 && campaign.failures.len() > 10 {
            break;
        }
    }
    Ok(campaign)
}

/// A temporary directory; it goes when this is dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Result<Directory, String> {
        let path = std::env::temp_dir().join(format!("tidegate-kills-kafka-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Directory(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // a temporary directory is cleared away some day
    }
}

fn generate(program: &Program, directory: &Path, seed: u64, accounts: u32) -> Result<Day, String> {
    let out = directory.join("day");
    let words = [
        "--seed",
        &seed.to_string(),
        "--accounts",
        &accounts.to_string(),
        "--changes",
        "0",
        "--out",
        &out.display().to_string(),
    ];
    program.generate(&words.map(str::to_owned))?;
    Day::read(&out)
}

/// What a round gives that nobody disturbs, and how long it takes.
fn undisturbed(
    program: &Program,
    brokers: &Brokers,
    directory: &Path,
    day: &Day,
) -> Result<(Outputs, Duration), String> {
    let mut round = Round::new(brokers.bootstrap(), directory, "calm", day)?;
    let started = now();
    match live(program, &mut round, 1, Death::None, true)? {
        End::Done => {}
        end => return Err(format!("the undisturbed run: {end:?}")),
    }
    let took = started.elapsed();
    let outputs = round.read()?;
    round.remove();
    Ok((outputs, took))
}

/// The lives of one job, all but the last cut short. The error is how one ended that should not have.
fn lives(
    program: &Program,
    round: &mut Round<'_>,
    (kills, calm): (u64, Duration),
    workers: &[usize],
    chance: &mut Chance,
    campaign: &mut Campaign,
    story: &mut Vec<String>,
) -> Result<(), String> {
    let mut left = kills;
    loop {
        let workers = workers[chance.below(workers.len() as u64) as usize];
        let death = match left {
            0 => Death::None,
            _ => death(calm, round.has_checkpoint(), campaign, chance),
        };
        let end = live(program, round, workers, death, false)?;
        story.push(format!("{workers} workers, {death:?}: {end:?}"));
        match end {
            End::Killed => {
                left = left.saturating_sub(1);
                campaign.killed(death);
            }
            // One that outlived its death has consumed everything.
            End::Done => return Ok(()),
            End::Failed(words) => return Err(words),
        }
    }
}

/// One life. It is fed as it gets on, and asked to end once it has committed everything.
fn live(
    program: &Program,
    round: &mut Round<'_>,
    workers: usize,
    death: Death,
    is_calm: bool,
) -> Result<End, String> {
    let mut command = program.command(round.directory(), is_calm, workers, death, true);
    let mut child = command
        .spawn()
        .map_err(|error| format!("tidegate does not start: {error}"))?;
    let (started, mut asked) = (now(), false);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(ended(status, child, death)),
            Ok(None) => {}
            Err(error) => return Err(format!("tidegate cannot be waited for: {error}")),
        }
        let is_over = round.look();
        if let Err(error) = &is_over {
            let _ = child.kill(); // the campaign's own trouble
            let _ = child.wait();
            return Err(error.clone());
        }
        if is_over == Ok(true) && !asked && listens(&child) {
            asked = ask_to_end(&child);
        }
        let is_due = matches!(death, Death::After(after) if started.elapsed() >= after);
        if is_due || started.elapsed() > PATIENCE {
            let _ = child.kill(); // it may have ended by itself just now; the wait tells
        }
        std::thread::park_timeout(LOOK);
    }
}

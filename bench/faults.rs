//! The fault campaign: clusters of the real program whose processes are killed and frozen, whose hosts are cut off,
//! slowed and given a wrong clock, started again in another shape until the job is done, and compared with a run
//! of one process that nobody disturbed.
//!
//! ```text
//!  round:  fresh copy of the day ─► generation 2x1 ─ fault ─► generation 3x2 ─ fault ─► ... ─► undisturbed ─► compared
//!           on hosts, by hand │ by the launcher, which starts the next generation itself
//! ```
//!
//! Inputs grow while faults are done, so that none comes too late; the last generation reads to the end. Faults that
//! hosts are needed for are left out, and that is said, where network namespaces are not allowed. What is decided by
//! chance comes from the seed; when exactly a fault hits is up to the machine.

use crate::arguments::FaultsArguments;
use crate::generation::{End, Fault, Generation, Job, Shape, by_launcher, on_hosts};
use crate::hosts::Hosts;
use crate::kills::Chance;
use crate::kills_day::{DayCopy, Growing, Reference, prepare};
use crate::kills_run::Program;
use crate::process::now;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;
use tidegate::columns::aligned;

/// Hosts of a campaign; a generation may leave some out.
const HOSTS: usize = 3;

/// Greatest number of faults of one round before it is left to end.
const FAULTS_A_ROUND: u64 = 5;

/// A fault hits within this after the start of its generation.
const WITHIN: Duration = Duration::from_millis(1_500);

/// One round in so many is run by the launcher.
const LAUNCHED: u64 = 3;

/// What a campaign found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Campaign {
    /// Why faults that need hosts of their own were left out; none if they were not.
    pub no_hosts: Option<String>,
    /// Rounds, each compared once.
    pub rounds: u64,
    /// Faults that were done.
    pub faults: u64,
    /// By name: how often, and how long the slowest end of a generation took, milliseconds.
    pub by_fault: BTreeMap<&'static str, (u64, u64)>,
    /// Generations that hung or ended as they should not.
    pub failures: Vec<String>,
    /// Rounds whose outputs differ, and how.
    pub differences: Vec<String>,
}

impl Campaign {
    /// Whether nothing failed and nothing differs.
    pub fn holds(&self) -> bool {
        self.failures.is_empty() && self.differences.is_empty()
    }

    /// As text for people.
    pub fn text(&self) -> String {
        let mut text = format!("{} rounds, {} faults\n", self.rounds, self.faults);
        if let Some(why) = &self.no_hosts {
            text.push_str(&format!("NO FAULTS OF THE NETWORK, OF HOSTS OR CLOCKS: {why}\n"));
        }
        let mut rows = vec![["fault", "times", "slowest end, ms"].map(str::to_owned).to_vec()];
        for (name, (times, slowest)) in &self.by_fault {
            let slowest = if *slowest == 0 {
                "-".to_owned()
            } else {
                slowest.to_string()
            };
            rows.push(vec![(*name).to_owned(), times.to_string(), slowest]);
        }
        text.push_str(&aligned(&rows));
        for line in self.failures.iter().chain(&self.differences) {
            text.push_str(line);
            text.push('\n');
        }
        let verdict = match self.holds() {
            true => "every output is what it would have been without a fault",
            false => "OUTPUTS DIFFER OR GENERATIONS FAILED",
        };
        let (differences, failures) = (self.differences.len(), self.failures.len());
        text + &format!("{differences} rounds differ, {failures} generations failed: {verdict}\n")
    }

    fn count(&mut self, fault: Fault, end: &End) {
        self.faults += 1;
        let (times, slowest) = self.by_fault.entry(fault.name()).or_default();
        *times += 1;
        if let End::Fallen(after) = end {
            *slowest = (*slowest).max(u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        }
    }
}

/// Runs the campaign: at least `count` faults.
pub fn campaign(arguments: &FaultsArguments, seed: u64) -> Result<Campaign, String> {
    let program = Program::find(false)?;
    let day = prepare(&program, seed, arguments.size.day_accounts, 2)?;
    let (hosts, no_hosts) = match Hosts::new(HOSTS) {
        Ok(hosts) => (Some(hosts), None),
        Err(why) => (None, Some(why)),
    };
    let mut campaign = Campaign {
        no_hosts,
        ..Campaign::default()
    };
    let mut chance = Chance::new(seed);
    while campaign.faults < arguments.size.count && campaign.failures.len() < 10 {
        let began = (now(), campaign.faults);
        let launched = hosts.is_none() || campaign.rounds % LAUNCHED == LAUNCHED - 1;
        let copy = day.followed.copy(campaign.rounds)?;
        let left = (arguments.size.count - campaign.faults).min(1 + chance.below(FAULTS_A_ROUND));
        let hosts = hosts.as_ref().filter(|_| !launched);
        round(
            &program,
            &day.followed,
            &copy,
            hosts,
            left,
            &mut chance,
            &mut campaign,
        )?;
        campaign.rounds += 1;
        // Nobody is left to tell of a closed terminal.
        let _ = writeln!(
            std::io::stderr(),
            "round {}: {} faults, {} of {} ({:.1} s), {} differ, {} failed",
            campaign.rounds,
            campaign.faults - began.1,
            campaign.faults,
            arguments.size.count,
            began.0.elapsed().as_secs_f64(),
            campaign.differences.len(),
            campaign.failures.len(),
        );
    }
    Ok(campaign)
}

/// One round: generations of one job, all but the last disturbed.
fn round(
    program: &Program,
    reference: &Reference,
    copy: &DayCopy,
    hosts: Option<&Hosts>,
    faults: u64,
    chance: &mut Chance,
    campaign: &mut Campaign,
) -> Result<(), String> {
    let mut growing = copy.growth();
    let mut story = Vec::new();
    for number in 1..=faults + 1 {
        let is_last = number == faults + 1;
        let shape = Shape {
            processes: 1 + chance.below(HOSTS as u64) as usize,
            workers: 1 + chance.below(2) as usize,
        };
        let fault = if is_last {
            Fault::None
        } else {
            fault(shape, hosts.is_some(), chance)
        };
        while is_last && !growing.is_complete() {
            growing.grow(chance)?;
        }
        let job = Job {
            program: program.path(),
            directory: &copy.directory,
            words: if is_last { &[] } else { &["--follow"] },
            environment: &[],
        };
        let generation = match hosts {
            Some(hosts) => on_hosts(&job, hosts, shape, number, fault)?,
            None => by_launcher(&job, shape, number)?,
        };
        let end = live(generation, fault, hosts, &mut growing, chance)?;
        story.push(format!(
            "{}x{} {fault:?}: {end:?}",
            shape.processes, shape.workers
        ));
        if !is_last {
            campaign.count(fault, &end);
        }
        if let End::Failed(words) = end {
            let (round, story) = (campaign.rounds, story.join("; "));
            campaign.failures.push(format!("round {round}: {words}; {story}"));
            return Ok(());
        }
    }
    let differences = reference.differences(copy, true);
    if differences.is_empty() {
        copy.remove();
    } else {
        let (round, differences, story) = (campaign.rounds, differences.join(", "), story.join("; "));
        campaign
            .differences
            .push(format!("round {round}: {differences}; {story}"));
    }
    Ok(())
}

/// One generation: inputs grow, the fault hits, it ends by it or is asked to.
fn live(
    mut generation: Generation,
    fault: Fault,
    hosts: Option<&Hosts>,
    growing: &mut Growing,
    chance: &mut Chance,
) -> Result<End, String> {
    let (started, mut trouble) = (now(), None);
    let mut grow_for = |generation: &mut Generation, chance: &mut Chance, time: Duration| {
        let began = now();
        generation.until(|| {
            trouble = trouble.take().or(growing.grow(chance).err());
            trouble.is_some() || began.elapsed() >= time
        })
    };
    if fault == Fault::None {
        return Ok(generation.end(fault, started, hosts));
    }
    // One in eight falls into the start, where the others wait for whoever is gone.
    if chance.below(8) > 0 && !generation.until_started() {
        return Ok(generation.end(Fault::None, started, hosts));
    }
    let before = Duration::from_micros(chance.below(WITHIN.as_micros() as u64));
    grow_for(&mut generation, chance, before);
    let since = now();
    generation.inflict(fault, hosts)?;
    // A launcher goes on by itself, and what is borne is no end: both are asked to end some time later.
    let goes_on = !fault.is_fatal() || (hosts.is_none() && fault != Fault::KillLauncher);
    if goes_on {
        grow_for(&mut generation, chance, WITHIN + before);
        generation.interrupt();
    }
    if let Some(trouble) = trouble {
        return Err(trouble);
    }
    let end = generation.end(fault, since, hosts);
    if let (Fault::Slow(host), Some(hosts)) = (fault, hosts) {
        hosts.hasten(host)?;
    }
    Ok(end)
}

/// A fault that can be done to a generation of this shape.
fn fault(shape: Shape, on_hosts: bool, chance: &mut Chance) -> Fault {
    let processes = shape.processes as u64;
    let one = chance.below(processes) as usize;
    let other = (one + 1 + chance.below((processes - 1).max(1)) as usize) % shape.processes;
    match (chance.below(6), on_hosts) {
        (0 | 1, true) | (0..=2, false) => Fault::Kill(one),
        (2, true) | (3, false) if shape.processes > 1 => Fault::Freeze(one),
        (3, true) if one != other => Fault::CutOneWay(one, other),
        (4, true) if one != other => Fault::CutBothWays(one, other),
        (5, true) if chance.below(2) == 0 => Fault::Slow(one),
        (5, true) => Fault::ClockOff(one),
        (_, true) => Fault::Kill(one),
        (_, false) => Fault::KillLauncher,
    }
}

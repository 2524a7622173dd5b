//! The kill campaign: runs of the real program, killed at any moment and at every named point, started again
//! until they end, and compared with a run that nobody disturbed.
//!
//! ```text
//!  round:  fresh copy of the day ─► run ─► killed ─► run, other workers ─► killed in restore ─► ... ─► ends
//!                                                        outputs as multisets of lines, against calm
//!  one round in four follows its inputs, which grow meanwhile, byte by byte as it falls
//! ```
//!
//! Half of the kills are by the clock, half at named points, each point as often as any other: of those that
//! the next life can come to, one that was armed least is armed. A long campaign that never hit a point has
//! not shown what it is there for, and fails.
//!
//! Over topics (`--kafka`) the inputs always grow, and outputs are read by two consumers: see
//! [`crate::kills_kafka`].
//!
//! What is decided by chance comes from the seed; when a kill by the clock hits is up to the machine. With
//! `--control` the tie between data and progress is cut (`TIDEGATE_CONTROL_ARM`), and a campaign that then
//! finds no difference has proved nothing and fails.

use crate::arguments::KillsArguments;
use crate::kills_day::{DayCopy, Reference, prepare};
use crate::kills_kafka;
use crate::kills_run::{Death, End, Program};
use crate::process::now;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::{Duration, Instant};
use tidegate::columns::aligned;
use tidegate::crash::{POINTS, TOPIC_POINTS};
use tidegate::record::key_hash;

/// Greatest number of kills of one round before it is left to end.
pub const KILLS_A_ROUND: u64 = 8;

/// One round in so many follows its inputs.
const FOLLOWS: u64 = 4;

/// Kills soon after the start, where restores are, happen within this.
const SOON: Duration = Duration::from_millis(60);

/// Crash points are armed for one of their first so many turns.
const TURNS: u64 = 12;

/// A campaign of this many kills for each point has hit every one of them, or fails.
const KILLS_A_POINT: u64 = 20;

/// Points that a life passes only when it takes up a checkpoint.
const RESTORING: [&str; 2] = ["during-restore", "during-replay"];

/// Points that a start passes once or so: there is no later turn to wait for.
const STARTING: [&str; 5] = [
    "during-restore",
    "after-claim",
    "before-cut-back",
    "after-cut-back",
    "after-fence",
];

/// Points of output files: a job whose outputs are topics does not come to them.
const OF_FILES: [&str; 5] = [
    "before-cut-back",
    "after-cut-back",
    "before-progress",
    "mid-progress",
    "after-progress",
];

/// What a campaign found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Campaign {
    /// Whether the tie between data and progress was cut.
    pub control: bool,
    /// Whether inputs and outputs are topics.
    pub kafka: bool,
    /// Rounds, each compared once.
    pub rounds: u64,
    /// Processes killed.
    pub kills: u64,
    /// Of these, by the clock.
    pub by_clock: u64,
    /// Of these, at each named point.
    pub points: BTreeMap<String, u64>,
    /// How often each point was armed; a life may end before it comes there.
    pub armed: BTreeMap<String, u64>,
    /// Starts after a kill.
    pub restarts: u64,
    /// Runs that ended by themselves as they should not, with their last words.
    pub failures: Vec<String>,
    /// Rounds whose outputs differ, and how.
    pub differences: Vec<String>,
}

impl Campaign {
    /// One that has not begun.
    pub fn new(arguments: &KillsArguments) -> Campaign {
        Campaign {
            control: arguments.control,
            kafka: arguments.kafka,
            ..Campaign::default()
        }
    }

    /// The points that its lives can come to.
    fn known(&self) -> Vec<&'static str> {
        match self.kafka {
            false => POINTS.to_vec(),
            true => {
                let all = POINTS.iter().chain(TOPIC_POINTS).copied();
                all.filter(|point| !OF_FILES.contains(point)).collect()
            }
        }
    }

    /// Whether it shows what it should: no differences, or in the control arm some.
    pub fn holds(&self) -> bool {
        if self.control {
            !self.differences.is_empty()
        } else {
            self.failures.is_empty() && self.differences.is_empty() && self.missed().is_empty()
        }
    }

    /// The points that it should have hit by its size, and did not.
    fn missed(&self) -> Vec<&'static str> {
        let mut known = self.known();
        let is_long = self.kills >= KILLS_A_POINT * known.len() as u64;
        known.retain(|point| is_long && !self.points.contains_key(*point));
        known
    }

    /// A point that was armed least, of those that the next life can come to.
    fn next_point(&self, has_checkpoint: bool, chance: &mut Chance) -> &'static str {
        let armed = |point: &&str| self.armed.get(*point).copied().unwrap_or(0);
        let mut candidates = self.known();
        candidates.retain(|point| has_checkpoint || !RESTORING.contains(point));
        let least = candidates.iter().map(armed).min().unwrap_or(0);
        candidates.retain(|point| armed(point) == least);
        candidates[chance.below(candidates.len() as u64) as usize]
    }

    /// As text for people.
    pub fn text(&self) -> String {
        let Campaign {
            rounds,
            kills,
            by_clock,
            restarts,
            ..
        } = self;
        let known = self.known();
        let hit = known.iter().filter(|point| self.points.contains_key(**point));
        let hit = hit.count();
        let mut text = format!(
            "{rounds} rounds, {kills} kills ({by_clock} by the clock, {} at points), {restarts} restarts, \
             {hit} of {} points hit\n",
            kills - by_clock,
            known.len(),
        );
        let count = |counts: &BTreeMap<String, u64>, point: &str| {
            counts.get(point).map_or_else(|| "-".to_owned(), u64::to_string)
        };
        let row = |point: &&str| {
            vec![
                (*point).to_owned(),
                count(&self.points, point),
                count(&self.armed, point),
            ]
        };
        let mut rows = vec![["point", "kills", "armed"].map(str::to_owned).to_vec()];
        rows.extend(known.iter().map(row));
        text.push_str(&aligned(&rows));
        for point in self.missed() {
            text.push_str(&format!("{point} WAS NEVER HIT\n"));
        }
        for line in self.failures.iter().chain(&self.differences) {
            text.push_str(line);
            text.push('\n');
        }
        let (differences, failures) = (self.differences.len(), self.failures.len());
        let verdict = match (self.control, self.holds()) {
            (false, true) => "every output is what it would have been without a kill",
            (false, false) => "OUTPUTS DIFFER, RUNS FAILED OR POINTS WERE MISSED",
            (true, true) => "the control arm shows differences, as it must",
            (true, false) => "THE CONTROL ARM SHOWS NO DIFFERENCE: this campaign proves nothing",
        };
        text + &format!("{differences} rounds differ, {failures} runs failed: {verdict}\n")
    }
}

/// Chance, from a seed: the same draws in the same order.
pub struct Chance {
    seed: u64,
    drawn: u64,
}

impl Chance {
    /// Begins at the seed.
    pub fn new(seed: u64) -> Self {
        Chance { seed, drawn: 0 }
    }

    /// Less than `bound`, which is > 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.drawn += 1;
        // A hash that is good for numbers that follow each other: one draw must not tell the next.
        key_hash(&[self.seed.to_le_bytes(), self.drawn.to_le_bytes()].concat()) % bound
    }

    /// Up to `longest`.
    fn within(&mut self, longest: Duration) -> Duration {
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.below(micros.max(1)))
    }
}

/// Runs the campaign: at least `count` kills.
pub fn campaign(arguments: &KillsArguments, seed: u64, workers: &[usize]) -> Result<Campaign, String> {
    let program = Program::find(arguments.control)?;
    if arguments.kafka {
        return kills_kafka::campaign(&program, arguments, seed, workers);
    }
    let day = prepare(
        &program,
        seed,
        arguments.size.day_accounts,
        workers.first().copied().unwrap_or(1),
    )?;
    let mut chance = Chance::new(seed);
    let mut campaign = Campaign::new(arguments);
    while campaign.kills < arguments.size.count {
        let before = (now(), campaign.kills);
        let follows = campaign.rounds % FOLLOWS == FOLLOWS - 1;
        let reference = if follows { &day.followed } else { &day.finite };
        let copy = reference.copy(campaign.rounds)?;
        let left = (arguments.size.count - campaign.kills).min(1 + chance.below(KILLS_A_ROUND));
        round(
            &program,
            reference,
            &copy,
            follows,
            left,
            workers,
            &mut chance,
            &mut campaign,
        );
        campaign.rounds += 1;
        campaign.tell(
            before,
            arguments.size.count,
            if follows { " (follows)" } else { "" },
        );
        if campaign.kills == before.1 && campaign.failures.len() > 10 {
            break;
        }
    }
    Ok(campaign)
}

/// One round: lives of one job, all but the last cut short.
#[expect(clippy::too_many_arguments, reason = "a round is described by all of them")]
fn round(
    program: &Program,
    reference: &Reference,
    copy: &DayCopy,
    follows: bool,
    kills: u64,
    workers: &[usize],
    chance: &mut Chance,
    campaign: &mut Campaign,
) {
    let mut growth = follows.then(|| copy.growth());
    let mut left = kills;
    let mut story = Vec::new();
    loop {
        let workers = workers[chance.below(workers.len() as u64) as usize];
        let death = if left == 0 {
            Death::None
        } else {
            death(reference.seconds, copy.has_checkpoint(), campaign, chance)
        };
        let end = program.run(copy, workers, death, growth.as_mut(), chance);
        story.push(format!("{workers} workers, {death:?}: {end:?}"));
        match end {
            End::Killed => {
                left = left.saturating_sub(1);
                campaign.killed(death);
            }
            // A life that ends before its death ends the round: nothing is left to do.
            End::Done if growth.is_none() => break,
            End::Done => growth = None,
            End::Failed(words) => return campaign.failed(&words, &story),
        }
    }
    let differences = reference.differences(copy, follows);
    // What differs is kept for a person to look at; in the control arm it is what was wanted.
    if differences.is_empty() || campaign.control {
        copy.remove();
    }
    campaign.compared(&differences, &story);
}

impl Campaign {
    /// A life was ended.
    pub fn killed(&mut self, death: Death) {
        self.kills += 1;
        self.restarts += 1;
        match death {
            Death::Point { name, .. } => *self.points.entry(name.to_owned()).or_default() += 1,
            Death::After(_) | Death::None => self.by_clock += 1,
        }
    }

    /// A life ended as it should not, and its round with it.
    pub fn failed(&mut self, words: &str, story: &[String]) {
        let (round, story) = (self.rounds, story.join("; "));
        self.failures.push(format!("round {round}: {words}; {story}"));
    }

    /// A round has been compared.
    pub fn compared(&mut self, differences: &[String], story: &[String]) {
        if !differences.is_empty() {
            let (round, differences, story) = (self.rounds, differences.join(", "), story.join("; "));
            self.differences
                .push(format!("round {round}: {differences}; {story}"));
        }
    }

    /// For whoever watches: what the round that has just ended came to.
    pub fn tell(&self, began: (Instant, u64), wanted: u64, what: &str) {
        let (rounds, total, kills) = (self.rounds, self.kills, self.kills - began.1);
        // Nobody is left to tell of a closed terminal.
        let _ = writeln!(
            std::io::stderr(),
            "round {rounds}{what}: {kills} kills, {total} of {wanted} ({:.1} s), {} differ",
            began.0.elapsed().as_secs_f64(),
            self.differences.len(),
        );
    }
}

/// How the next life ends: at a point, at any time of an undisturbed run, or soon after the start.
pub fn death(calm: Duration, has_checkpoint: bool, campaign: &mut Campaign, chance: &mut Chance) -> Death {
    match chance.below(4) {
        0 => Death::After(chance.within(calm)),
        1 => Death::After(chance.within(SOON)),
        _ => {
            let name = campaign.next_point(has_checkpoint, chance);
            *campaign.armed.entry(name.to_owned()).or_default() += 1;
            // Half of the turns are the first.
            let turn = if STARTING.contains(&name) || chance.below(2) == 0 {
                1
            } else {
                1 + chance.below(TURNS)
            };
            Death::Point { name, turn }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_the_seeds() {
        let draws = |seed| {
            let mut chance = Chance::new(seed);
            (0..100).map(|_| chance.below(10)).collect::<Vec<_>>()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
        assert!(
            (0..10).all(|digit| draws(1).contains(&digit)),
            "every digit is drawn"
        );
    }

    #[test]
    fn draws_that_follow_each_other_are_independent() {
        let mut chance = Chance::new(1);
        let mut seen = [[0; 16]; 4];
        for _ in 0..10_000 {
            let first = chance.below(4) as usize;
            seen[first][chance.below(16) as usize] += 1;
        }
        let all = seen.as_flattened();
        assert!(all.iter().all(|count| (90..230).contains(count)), "{all:?}");
    }

    #[test]
    fn points_are_armed_evenly_and_restoring_ones_only_on_a_checkpoint() {
        let (mut campaign, mut chance) = (Campaign::default(), Chance::new(1));
        let mut clock = 0;
        for life in 0..2_000 {
            let has_checkpoint = life % 2 == 1;
            match death(Duration::from_secs(1), has_checkpoint, &mut campaign, &mut chance) {
                Death::Point { name, .. } => assert!(has_checkpoint || !RESTORING.contains(&name)),
                _ => clock += 1,
            }
        }
        let armed: Vec<_> = POINTS.iter().map(|point| campaign.armed[*point]).collect();
        let (least, most) = (armed.iter().min(), armed.iter().max());
        assert!(
            most.zip(least).is_some_and(|(most, least)| most - least <= 2),
            "{armed:?}"
        );
        assert!((900..1_100).contains(&clock), "{clock} of 2000 by the clock");
    }

    #[test]
    fn a_long_campaign_that_missed_a_point_does_not_hold() {
        let mut campaign = Campaign {
            kills: KILLS_A_POINT * POINTS.len() as u64,
            points: POINTS.iter().map(|point| ((*point).to_owned(), 1)).collect(),
            ..Campaign::default()
        };
        assert!(campaign.holds());
        campaign.points.remove("during-restore");
        assert!(!campaign.holds() && campaign.text().contains("during-restore WAS NEVER HIT"));
        campaign.kills -= 1;
        assert!(campaign.holds(), "a short one may miss some");
    }

    #[test]
    fn a_campaign_holds_when_it_shows_what_it_should() {
        let clean = Campaign::default();
        let differing = Campaign {
            differences: vec!["a line".to_owned()],
            ..Campaign::default()
        };
        let failing = Campaign {
            failures: vec!["a code".to_owned()],
            ..Campaign::default()
        };
        assert!(clean.holds() && !differing.holds() && !failing.holds());
        assert!(
            !Campaign {
                control: true,
                ..clean
            }
            .holds()
        );
        assert!(
            Campaign {
                control: true,
                ..differing
            }
            .holds()
        );
    }
}

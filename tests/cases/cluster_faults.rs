//! Clusters whose processes are killed and frozen, whose hosts are cut off, slow or an hour off: the outputs are
//! those of one process that nobody disturbed.
//!
//! ```text
//!  append ─► generation 3x1 commits ─► append ─► fault ─► all of it ends ─► generation 2x2 commits ─► ...
//! ```
//!
//! Every process of a generation runs on a host of its own where network namespaces are allowed; where they are not,
//! that is said and only what the launcher does is shown. The campaign with hundreds of faults by chance is
//! `tidegate-bench faults`.

use crate::fed::Fed;
use crate::generation::{End, Fault, Generation, Job, Shape, by_launcher, on_hosts};
use crate::hosts::Hosts;
use std::path::Path;
use std::time::Instant;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tidegate");

/// `2x1`: processes and workers of each.
fn shape(text: &str) -> Shape {
    let (processes, workers) = text.split_once('x').expect("processes x workers");
    let number = |text: &str| text.parse().expect("a number");
    Shape {
        processes: number(processes),
        workers: number(workers),
    }
}

/// Starts a generation that follows, on hosts or by the launcher.
fn start(fed: &Fed, hosts: Option<&Hosts>, shape: Shape, number: u64, fault: Fault) -> Generation {
    let job = Job {
        program: Path::new(PROGRAM),
        directory: fed.directory.root(),
        words: &["--follow"],
        environment: &[],
    };
    let started = match hosts {
        Some(hosts) => on_hosts(&job, hosts, shape, number, fault),
        None => by_launcher(&job, shape, number),
    };
    started.expect("a generation starts")
}

#[track_caller]
fn until_committed(fed: &Fed, generation: &mut Generation, story: &str) {
    assert!(
        generation.until(|| fed.is_committed()),
        "{story}: ended by itself: {}",
        generation.story()
    );
}

/// One generation after the other, each with its fault, then a calm end; outputs as expected.
#[expect(clippy::disallowed_methods, reason = "how long an end takes is only reported")]
fn disturbed(seed: u64, hosts: Option<&Hosts>, faults: &[(&str, Fault)]) {
    let mut fed = Fed::new(seed);
    for (number, (of_shape, fault)) in (1..).zip(faults) {
        let story = format!("seed {seed}, generation {number}, {of_shape}, {fault:?}");
        let mut generation = start(&fed, hosts, shape(of_shape), number, *fault);
        fed.append(false);
        assert!(generation.until_started(), "{story}: {}", generation.story());
        if fed.random.below(3) > 0 {
            until_committed(&fed, &mut generation, &story);
        }
        fed.append(false);
        let since = Instant::now();
        generation.inflict(*fault, hosts).expect("a fault is done");
        let is_launched = hosts.is_none() && *fault != Fault::KillLauncher;
        if is_launched || !fault.is_fatal() {
            // Borne, or mended by the launcher: what comes after it is committed.
            fed.append(false);
            until_committed(&fed, &mut generation, &story);
            generation.interrupt();
        }
        match (
            generation.end(*fault, since, hosts),
            is_launched || !fault.is_fatal(),
        ) {
            (End::Done, true) | (End::Fallen(_), false) => {}
            (end, _) => panic!("{story}: {end:?}"),
        }
    }
    let mut generation = start(&fed, hosts, shape("2x1"), faults.len() as u64 + 1, Fault::None);
    fed.add_later_files();
    fed.append(true);
    until_committed(&fed, &mut generation, "undisturbed");
    generation.interrupt();
    assert_eq!(generation.end(Fault::None, Instant::now(), hosts), End::Done);
    fed.assert_complete(&format!("seed {seed}"));
}

/// The hosts of a case; says so where there can be none.
fn hosts(count: usize) -> Option<Hosts> {
    Hosts::new(count)
        .inspect_err(|why| eprintln!("NOT RUN, for network namespaces are not allowed here: {why}"))
        .ok()
}

#[test]
fn processes_killed_in_turn() {
    let Some(hosts) = hosts(3) else { return };
    let faults = [
        ("3x1", Fault::Kill(1)),
        ("2x2", Fault::Kill(0)),
        ("3x1", Fault::Kill(2)),
        ("1x3", Fault::Kill(0)),
        ("2x1", Fault::Kill(1)),
    ];
    disturbed(1, Some(&hosts), &faults);
}

#[test]
fn processes_frozen() {
    let Some(hosts) = hosts(3) else { return };
    let faults = [
        ("2x1", Fault::Freeze(1)),
        ("3x1", Fault::Freeze(0)),
        ("2x2", Fault::Freeze(0)),
    ];
    disturbed(2, Some(&hosts), &faults);
}

#[test]
fn hosts_cut_off() {
    let Some(hosts) = hosts(3) else { return };
    let faults = [
        ("3x1", Fault::CutBothWays(1, 2)),
        ("2x1", Fault::CutOneWay(0, 1)),
        ("3x1", Fault::CutOneWay(2, 1)),
        ("2x2", Fault::CutBothWays(0, 1)),
    ];
    disturbed(3, Some(&hosts), &faults);
}

#[test]
fn slow_links_and_wrong_clocks_are_borne() {
    let Some(hosts) = hosts(3) else { return };
    let faults = [
        ("2x1", Fault::ClockOff(1)),
        ("3x1", Fault::ClockOff(0)),
        ("2x2", Fault::Slow(1)),
    ];
    disturbed(4, Some(&hosts), &faults);
}

#[test]
fn the_launcher_mends_or_takes_all_with_it() {
    let faults = [
        ("2x1", Fault::Kill(1)),
        ("2x2", Fault::KillLauncher),
        ("3x1", Fault::Kill(0)),
        ("2x1", Fault::Freeze(1)),
        ("2x1", Fault::KillLauncher),
    ];
    disturbed(5, None, &faults);
}

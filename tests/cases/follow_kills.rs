//! Following files that grow, killed and interrupted in between: what is committed is what one finite run gives.
//!
//! ```text
//!  append ─► (kill | wait until it is committed, kill | wait) ─► ... ─► Ctrl-C drains ─► a finite run closes the rest
//!     ▲                                  │ other worker count
//!     └──────────────────────────────────┘
//! ```

use crate::day::{inputs, status};
use crate::fed::Fed;
use crate::process::{Running, start};
use rustix::process::Signal;

fn start_following(fed: &mut Fed) -> Running {
    let workers = format!("--workers={}", 1 + fed.random.below(3));
    start(&fed.directory, &["run", "job.toml", "--follow", &workers], &[])
}

/// Ctrl-C: what was read is committed, and it ends well.
fn interrupt(mut running: Running) {
    // Where the shell has it ignored, a signal before the program catches it would be lost.
    running.until_logged("started");
    running.signal(Signal::INT);
    let log = running.wait().with_code(0);
    assert!(log.contains("draining"), "{log}");
}

fn followed_and_killed(seed: u64) {
    let mut fed = Fed::new(seed);
    let mut story = format!("seed {seed}:");
    let mut running = start_following(&mut fed);
    for step in 0..7 {
        if step == 2 {
            fed.add_later_files();
        }
        fed.append(step == 6);
        let what = fed.random.below(4);
        story.push_str(["kill;", "kill at once;", "commit, kill;", "commit;"][what as usize]);
        match what {
            0 => {
                let (mut looks, most) = (0, fed.random.below(60));
                running.until(|| {
                    looks += 1;
                    looks > most
                });
            }
            1 => {}
            _ => fed.until_committed(&mut running),
        }
        if what < 3 {
            assert!(running.kill().was_killed(), "{story}");
            running = start_following(&mut fed);
        }
    }
    fed.until_committed(&mut running);
    interrupt(running);
    fed.assert_complete(&story);
}

#[test]
fn followed_and_killed_in_between() {
    for seed in 0..4 {
        followed_and_killed(seed);
    }
}

/// What a checkpoint covers is not read again: it may as well be gone from the inputs.
#[test]
fn restart_reads_the_checkpoint_and_not_the_inputs() {
    let mut fed = Fed::new(77);
    let mut running = start_following(&mut fed);
    for _ in 0..2 {
        fed.append(false);
        fed.until_committed(&mut running);
    }
    interrupt(running);
    for (file, committed) in inputs(&status(&fed.directory)) {
        let mut content = fed.directory.read(&file);
        let consumed = &mut content[..committed as usize];
        consumed.fill(b'#');
        // The line before the position must have ended.
        if let Some(last) = consumed.last_mut() {
            *last = b'\n';
        }
        fed.directory.write(&file, content);
    }
    let mut running = start_following(&mut fed);
    fed.add_later_files();
    fed.append(true);
    fed.until_committed(&mut running);
    interrupt(running);
    fed.assert_complete("consumed bytes overwritten");
}

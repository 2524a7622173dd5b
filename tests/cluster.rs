//! Several processes of the real program that run one job together, started by hand on this machine.
//!
//! ```text
//!  hosts ─► run --processes P --process I ×P ─► until(something shows) ─► kill one ─► all ended, each with its code
//! ```

use crate::harness::Directory;
use crate::process::{Ended, Running, start};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// So many processes with so many workers each.
pub type Shape = (usize, usize);

/// What the processes know of each other.
const SECRET: (&str, &str) = (
    "TIDEGATE_CLUSTER_SECRET",
    "known to the processes of this test alone",
);

/// The processes of a cluster, that of index 0 first.
pub struct Cluster(pub Vec<Running>);

/// Starts all processes of a cluster; `environment` by process.
pub fn start_cluster(
    directory: &Directory,
    (processes, workers): Shape,
    arguments: &[&str],
    environment: impl Fn(usize) -> Vec<(&'static str, String)>,
) -> Cluster {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let hosts = format!(".std-hosts-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    directory.write(&hosts, addresses(processes));
    let run = |process: usize| {
        let mut all = vec!["run".to_owned(), "job.toml".to_owned()];
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        all.push(format!("--workers={workers}"));
        if processes > 1 {
            all.push(format!("--processes={processes}"));
            all.push(format!("--process={process}"));
            all.push(format!("--hosts={hosts}"));
        }
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let environment = environment(process);
        let mut environment: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        environment.push(SECRET);
        start(directory, &all, &environment)
    };
    Cluster((0..processes).map(run).collect())
}

/// Addresses that are free: of this machine, each test process with one of its own, so that nobody else takes a port
/// between this look and the start.
fn addresses(processes: usize) -> String {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, 64 + high % 64, middle, low.max(1));
    let look = |_| TcpListener::bind((own, 0)).expect("a port is free");
    let looks: Vec<TcpListener> = (0..processes).map(look).collect();
    let line = |look: &TcpListener| format!("{}\n", look.local_addr().expect("it listens"));
    looks.iter().map(line).collect()
}

impl Cluster {
    /// Waits until all have ended.
    #[track_caller]
    pub fn wait(self) -> Vec<Ended> {
        self.0.into_iter().map(Running::wait).collect()
    }

    /// Waits until all have ended, and asserts that they did so well.
    #[track_caller]
    pub fn succeeded(self) -> Vec<String> {
        self.wait().into_iter().map(|ended| ended.with_code(0)).collect()
    }

    /// Kills one process with SIGKILL; gives how the others end.
    #[track_caller]
    pub fn kill(mut self, process: usize) -> Vec<Ended> {
        let killed = self.0.remove(process).kill();
        assert!(killed.was_killed() || killed.code == Some(0), "{killed:?}");
        self.wait()
    }
}

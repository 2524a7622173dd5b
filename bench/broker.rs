//! A real Kafka cluster and a schema registry on this machine: for people, for tests, for the benchmark.
//!
//! ```text
//!  Brokers ─┬─ cache: the programs, fetched once by Maven
//!           ├─ layout: a new cluster on disk ◄─ settings: what a broker is told
//!           │                               ◄─ secure: certificates, users, rights
//!           ├─ member: one process = one directory: start, signal, wait
//!           └─ tools: Kafka's own clients and administration
//!
//!  directory/  addresses          KAFKA=127.0.0.1:port,...  REGISTRY=http://...  one a line, written when complete
//!              broker-1/ ...      server.properties, data/, and what member.rs keeps
//!              registry/          its schemas, and what member.rs keeps
//!              certificates/      of a secure cluster
//! ```
//!
//! A cluster ends with the process that started it, however that ends: a small shell waits at a pipe for
//! it, then kills what the directory names and removes the directory. [`Brokers::leave_running`] sends that
//! shell away; [`Brokers::open`] finds the cluster again.
//!
//! Processes are killed by their id and nothing else is. Refused: a directory that holds anything else, and
//! signals to a cluster that `TIDEGATE_TEST_KAFKA` names, which is not ours.
//!
//! The tests include this file too: it uses `std` and `rustix` and no other module of the benchmark.

// Paths, because two packages include this file, each by another rule of where its modules would lie.
#[path = "broker/cache.rs"]
mod cache;
#[path = "broker/layout.rs"]
mod layout;
#[path = "broker/member.rs"]
mod member;
#[path = "broker/secure.rs"]
pub mod secure;
#[path = "broker/settings.rs"]
mod settings;
#[path = "broker/tools.rs"]
mod tools;

use layout::{home, new_directory};
use member::{Member, Start};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::{env, fs};
pub use tools::{class, java, tool};

/// What is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Brokers: 1, or 3 that keep everything three times.
    pub count: usize,
    /// Whether a schema registry is started too.
    pub registry: bool,
    /// Whether there are encrypted listeners, users and rights.
    pub secure: bool,
    /// Whether brokers get the heap and compiler that Kafka gives them by default. Otherwise they get
    /// less of both and start in half the time.
    pub is_bench: bool,
    /// The port of a proxy: the one broker gets a further listener, whose clients are told to come to this port. The
    /// proxy brings them to [`Brokers::behind_proxy`].
    pub proxy: Option<u16>,
    /// Where the cluster lives: an empty directory, or none yet. By default one for temporary files.
    pub directory: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            count: 1,
            registry: false,
            secure: false,
            is_bench: false,
            proxy: None,
            directory: None,
        }
    }
}

/// A process of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// A broker, counted from 1.
    Broker(usize),
    /// The schema registry.
    Registry,
}

/// A cluster: brokers and perhaps a registry.
///
/// It ends when this is dropped, or with this process, unless it was opened or left running.
#[derive(Debug)]
pub struct Brokers {
    /// None: somebody else's.
    directory: Option<PathBuf>,
    /// Values of the file `addresses`.
    addresses: BTreeMap<String, String>,
    /// The shell that outlives this process to clean up after it.
    keeper: Option<Child>,
}

/// Run by the keeper with the directory as its argument. A line from us means: leave it all. The end of
/// the pipe means that we have ended.
const KEEPER: &str = r#"
read -r line && exit
for member in "$1"/*/; do
    pid=$(cat "$member/pid") && grep -qF -- "$1" "/proc/$pid/cmdline" && kill -KILL "$pid"
done
rm -rf -- "$1" || rm -rf -- "$1" # a broker that was not quite dead may have added a file
"#;

impl Brokers {
    /// Starts a cluster and waits until it answers.
    pub fn start(options: &Options) -> Result<Brokers, String> {
        if !matches!(options.count, 1 | 3) {
            return Err(format!("{} brokers: there can be 1 or 3", options.count));
        }
        let class_path = cache::kafka()?;
        let registry = options.registry.then(cache::registry).transpose()?;
        let directory = new_directory(options.directory.as_deref())?;
        let keeper = keeper(&directory);
        // From here on an error drops this, which removes the directory and kills what was started.
        let mut brokers = Brokers {
            directory: Some(directory.clone()),
            addresses: BTreeMap::new(),
            keeper: Some(keeper?),
        };
        let layout = layout::make(&directory, options, &class_path, registry.as_deref())?;
        brokers.addresses = layout.addresses;
        drop(layout.reserved); // not sooner: until now nobody else could take the ports
        let starts = brokers.start_members()?;
        brokers.wait(starts)?;
        if options.secure {
            let rights = secure::rights(brokers.bootstrap());
            tool(
                class::ACLS,
                &rights.iter().map(String::as_str).collect::<Vec<_>>(),
                "",
            )?;
        }
        // Last: what has it is complete.
        fs::write(directory.join("addresses"), brokers.describe())
            .map_err(|error| format!("{}: {error}", directory.display()))?;
        Ok(brokers)
    }

    /// The cluster that lives in a directory, whether it runs or not; none if there is no such directory.
    pub fn open(directory: &Path) -> Result<Option<Brokers>, String> {
        if !directory.exists() {
            return Ok(None);
        }
        let told = |error| format!("{} is not a cluster's directory: {error}", directory.display());
        let read = fs::read_to_string(directory.join("addresses"));
        let text = read.map_err(|error| told(format!("its file `addresses`: {error}")))?;
        let directory = fs::canonicalize(directory).map_err(|error| told(error.to_string()))?;
        let line = |line: &str| {
            line.split_once('=')
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
        };
        let addresses = text.lines().filter_map(line).collect();
        Ok(Some(Brokers {
            directory: Some(directory),
            addresses,
            keeper: None,
        }))
    }

    /// The one cluster that ordinary tests share, with a registry: `TIDEGATE_TEST_KAFKA` (`host:port,...`) and
    /// `TIDEGATE_TEST_REGISTRY` (`http://...`) if they are set, else one broker that ends with this process.
    pub fn for_tests() -> Result<&'static Brokers, String> {
        static SHARED: OnceLock<Result<Brokers, String>> = OnceLock::new();
        let start = || {
            let Ok(kafka) = env::var("TIDEGATE_TEST_KAFKA") else {
                return Brokers::start(&Options {
                    registry: true,
                    ..Options::default()
                });
            };
            let registry = env::var("TIDEGATE_TEST_REGISTRY")
                .ok()
                .map(|url| ("REGISTRY".to_owned(), url));
            let addresses = [("KAFKA".to_owned(), kafka)]
                .into_iter()
                .chain(registry)
                .collect();
            Ok(Brokers {
                directory: None,
                addresses,
                keeper: None,
            })
        };
        SHARED.get_or_init(start).as_ref().map_err(Clone::clone)
    }

    /// The addresses of all brokers for clients without encryption, `host:port,...`.
    pub fn bootstrap(&self) -> &str {
        self.addresses.get("KAFKA").map_or("", String::as_str)
    }

    /// Where a proxy brings its clients to, `host:port`.
    pub fn behind_proxy(&self) -> Option<&str> {
        self.addresses.get(settings::PROXIED).map(String::as_str)
    }

    /// The base of the registry's interface for Confluent's clients, without a slash at its end.
    pub fn registry_url(&self) -> Option<&str> {
        self.addresses.get("REGISTRY").map(String::as_str)
    }

    /// What encrypted clients need, of a secure cluster.
    pub fn secure(&self) -> Option<secure::Secure> {
        let directory = self.directory.as_deref()?;
        secure::Secure::new(directory, |name| self.addresses.get(name).cloned())
    }

    /// Where it lives; none if it is somebody else's.
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// All addresses, `NAME=value`, a line each.
    pub fn describe(&self) -> String {
        self.addresses
            .iter()
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect()
    }

    /// Its processes, each with its id while it runs.
    pub fn nodes(&self) -> Vec<(Node, Option<u32>)> {
        let members = self.members();
        members
            .iter()
            .map(|(node, member)| (*node, member.pid()))
            .collect()
    }

    /// Ends a process at once (SIGKILL).
    pub fn kill(&self, node: Node) -> Result<(), String> {
        self.member(node)?.end(Signal::KILL)
    }

    /// Asks a process to end (SIGTERM) and waits until it has. A broker hands over what it leads before.
    pub fn stop(&self, node: Node) -> Result<(), String> {
        self.member(node)?.end(Signal::TERM)
    }

    /// Starts a process that has ended, with its ports and its data, and waits until it answers.
    pub fn restart(&self, node: Node) -> Result<(), String> {
        let start = self.member(node)?.start()?;
        self.wait(vec![(node, start)])
    }

    /// Stops a process from running on (SIGSTOP): its connections stay, and nobody answers.
    pub fn pause(&self, node: Node) -> Result<(), String> {
        self.member(node)?.signal(Signal::STOP)
    }

    /// Lets a paused process run on (SIGCONT).
    pub fn resume(&self, node: Node) -> Result<(), String> {
        self.member(node)?.signal(Signal::CONT)
    }

    /// Starts what does not run, as after the machine was switched off, and waits until it answers.
    pub fn restart_all(&self) -> Result<(), String> {
        let starts = self.start_members()?;
        self.wait(starts)
    }

    /// Lets the cluster outlive this process.
    pub fn leave_running(mut self) -> Result<(), String> {
        if let Some(mut keeper) = self.keeper.take() {
            let told = keeper.stdin.take().map(|mut pipe| pipe.write_all(b"leave it\n"));
            told.transpose()
                .and_then(|_| keeper.wait())
                .map_err(|error| format!("sh: {error}"))?;
        }
        Ok(())
    }

    /// Kills all its processes and removes its directory.
    pub fn down(&self) -> Result<(), String> {
        let directory = self.directory.as_deref().ok_or(NOT_OURS)?;
        for member in self.members().values() {
            member.end(Signal::KILL)?;
        }
        match fs::remove_dir_all(directory) {
            Err(error) if directory.exists() => Err(format!("{}: {error}", directory.display())),
            _ => Ok(()),
        }
    }

    fn members(&self) -> BTreeMap<Node, Member> {
        let Some(directory) = &self.directory else {
            return BTreeMap::new();
        };
        let brokers = (1..=self.bootstrap().split(',').count()).map(Node::Broker);
        let nodes = brokers.chain(self.registry_url().map(|_| Node::Registry));
        nodes
            .map(|node| (node, Member::at(home(directory, node))))
            .collect()
    }

    fn member(&self, node: Node) -> Result<Member, String> {
        if self.directory.is_none() {
            return Err(NOT_OURS.to_owned());
        }
        self.members()
            .remove(&node)
            .ok_or_else(|| format!("{node:?} is not part of this cluster"))
    }

    /// Starts what does not run. All of it first: a broker waits for the others to form a quorum.
    fn start_members(&self) -> Result<Vec<(Node, Start)>, String> {
        let members = self.members();
        let ended = members.iter().filter(|(_, member)| member.pid().is_none());
        ended.map(|(node, member)| Ok((*node, member.start()?))).collect()
    }

    fn wait(&self, starts: Vec<(Node, Start)>) -> Result<(), String> {
        for (node, start) in starts {
            match node {
                // It says so when the controllers let clients come to it.
                Node::Broker(_) => start.wait(|log| log.contains("Kafka Server started"))?,
                Node::Registry => start.wait(|_| self.registry_url().is_some_and(answers))?,
            }
        }
        Ok(())
    }
}

impl Drop for Brokers {
    fn drop(&mut self) {
        if let Some(mut keeper) = self.keeper.take() {
            let _ = self.down(); // what is left the keeper tries again
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
    }
}

const NOT_OURS: &str = "this cluster was not started here: nothing of it is killed, paused or removed";

/// Where `up` without a directory puts the cluster.
pub fn default_directory() -> Result<PathBuf, String> {
    Ok(cache::directory()?.join("cluster"))
}

/// Starts the shell that cleans up when this process has ended.
fn keeper(directory: &Path) -> Result<Child, String> {
    let mut shell = Command::new("sh");
    shell.args(["-c", KEEPER, "keeper"]).arg(directory);
    shell
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // In a group of its own Ctrl-C passes it by.
    shell
        .process_group(0)
        .spawn()
        .map_err(|error| format!("sh: {error}"))
}

/// Whether the registry lists its subjects.
fn answers(url: &str) -> bool {
    let Some((host, path)) = url.strip_prefix("http://").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(host)?;
        let request = format!("GET /{path}/subjects HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_or_three_brokers_are_started() {
        let started = Brokers::start(&Options {
            count: 2,
            ..Options::default()
        });
        assert_eq!(started.err().as_deref(), Some("2 brokers: there can be 1 or 3"));
    }

    #[test]
    fn what_is_not_a_cluster_is_left_alone() {
        let directory = env::temp_dir().join(format!("tidegate-no-cluster-{}", std::process::id()));
        assert!(Brokers::open(&directory).expect("nothing is there").is_none());
        fs::create_dir(&directory).expect("a new directory");
        fs::write(directory.join("precious"), "").expect("a file");
        assert!(Brokers::open(&directory).is_err(), "it has no addresses");
        assert!(new_directory(Some(&directory)).is_err(), "it is not empty");
        assert!(directory.join("precious").exists());
        fs::remove_dir_all(&directory).expect("it was made here");
    }

    #[test]
    fn the_keeper_ends_what_a_directory_names_and_nothing_else() {
        let directory = new_directory(None).expect("a new directory");
        let idle = |argument: &Path| {
            let mut shell = Command::new("sh");
            shell.args(["-c", "read -r line", "idle"]).arg(argument);
            shell.stdin(Stdio::piped()).spawn().expect("a shell starts")
        };
        let (mut ours, mut stranger) = (idle(&directory), idle(Path::new("elsewhere")));
        for (name, child) in [("broker-1", &ours), ("registry", &stranger)] {
            fs::create_dir_all(directory.join(name)).expect("a member's directory");
            fs::write(directory.join(name).join("pid"), child.id().to_string()).expect("its id");
        }
        let mut keeper = keeper(&directory).expect("the keeper starts");
        drop(keeper.stdin.take()); // as when the process that holds it is killed
        keeper.wait().expect("the keeper ends");
        assert!(!directory.exists(), "it is removed");
        // Neither has read anything, so that only a signal can have ended it.
        let killed = ours.wait().expect("it was a child").code();
        assert_eq!(killed, None, "it was killed");
        assert!(
            stranger.try_wait().expect("it is a child").is_none(),
            "it does not name the directory"
        );
        drop(stranger.stdin.take());
        stranger.wait().expect("it ends by itself");
    }

    #[test]
    fn what_somebody_else_started_is_not_touched() {
        let addresses = BTreeMap::from([("KAFKA".to_owned(), "127.0.0.1:9".to_owned())]);
        let brokers = Brokers {
            directory: None,
            addresses,
            keeper: None,
        };
        assert_eq!(
            (brokers.bootstrap(), brokers.registry_url()),
            ("127.0.0.1:9", None)
        );
        assert!(brokers.nodes().is_empty() && brokers.secure().is_none());
        for refused in [
            brokers.kill(Node::Broker(1)),
            brokers.pause(Node::Registry),
            brokers.down(),
        ] {
            assert_eq!(refused.err().as_deref(), Some(NOT_OURS));
        }
    }
}

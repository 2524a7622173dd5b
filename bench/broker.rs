//! A real Kafka cluster and a schema registry on this machine: for people, for tests, for the benchmark.
//!
//! ```text
//!  Brokers ─┬─ cache: the programs, fetched once by Maven
//!           ├─ settings: what a broker is told ◄─ secure: certificates, users, rights
//!           └─ member: one process = one directory: start, signal, wait
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
//! Ports are free ones that the kernel gave. They stay those of a member when it is restarted: Linux gives
//! outgoing connections other ports than listeners as long as it has any. Processes are killed by their id
//! and nothing else is. Refused: a directory that holds anything else, and signals to a cluster that
//! `TIDEGATE_TEST_KAFKA` names, which is not ours.
//!
//! The tests include this file too: it uses `std` and `rustix` and no other module of the benchmark.

// Paths, because two packages include this file, each by another rule of where its modules would lie.
#[path = "broker/cache.rs"]
mod cache;
#[path = "broker/member.rs"]
mod member;
#[path = "broker/secure.rs"]
pub mod secure;
#[path = "broker/settings.rs"]
mod settings;

use member::{Member, Start};
use rustix::process::Signal;
use settings::Ports;
use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs};

/// Classes of Kafka's tools, for [`tool`] and [`java`].
pub mod class {
    /// Rights: `--add --allow-principal User:.. --operation ..`, `--list`.
    pub const ACLS: &str = "org.apache.kafka.tools.AclCommand";
    /// Settings of topics, brokers and users: `--alter --entity-type .. --entity-name .. --add-config ..`.
    pub const CONFIGS: &str = "kafka.admin.ConfigCommand";
    /// Prints records: `--topic .. --from-beginning --max-messages .. --isolation-level read_committed`.
    pub const CONSUMER: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";
    /// Truncates partitions from the front: `--offset-json-file ..`.
    pub const DELETE_RECORDS: &str = "org.apache.kafka.tools.DeleteRecordsCommand";
    /// Ends of partitions: `--topic ..`, `--time ..`.
    pub const OFFSETS: &str = "org.apache.kafka.tools.GetOffsetShell";
    /// Sends the lines of its standard input: `--topic ..`.
    pub const PRODUCER: &str = "org.apache.kafka.tools.ConsoleProducer";
    /// Topics: `--create --topic .. --partitions ..`, `--describe`, `--delete`, `--list`.
    pub const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
    /// Transactions: `list`, `describe`, `find-hanging`, `abort`.
    pub const TRANSACTIONS: &str = "org.apache.kafka.tools.TransactionsCommand";
}

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

const TEST_FLAGS: &[&str] = &[
    "-Xms512m",
    "-Xmx1g",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
];
/// As Kafka's own start script has them.
const BENCH_FLAGS: &[&str] = &[
    "-Xms1g",
    "-Xmx1g",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
];
/// A tool runs for a second: what its compiler would gain it does not live to use.
const TOOL_FLAGS: &[&str] = &["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];

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
        let told = |error: std::io::Error| format!("{}: {error}", directory.display());
        if options.secure {
            secure::make_certificates(&directory)?;
        }
        let reserved = free_ports(options.count * PORTS + 1).map_err(told)?;
        let ports: Vec<u16> = reserved.iter().map(|(_, port)| *port).collect();
        let nodes: Vec<Ports> = ports.chunks_exact(PORTS).map(node_ports).collect();
        brokers.addresses = addresses(&nodes, options, ports[options.count * PORTS]);
        make_brokers(&directory, &nodes, options, &class_path)?;
        if let Some(archive) = registry {
            make_registry(&directory, &archive, ports[options.count * PORTS])?;
        }
        drop(reserved); // not sooner: until now nobody else could take the ports
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
        let lines = brokers.describe();
        fs::write(directory.join("addresses"), lines).map_err(told)?;
        Ok(brokers)
    }

    /// The cluster that lives in a directory, whether it runs or not; none if there is no such directory.
    pub fn open(directory: &Path) -> Result<Option<Brokers>, String> {
        if !directory.exists() {
            return Ok(None);
        }
        let told = |error: std::io::Error| format!("{} is no cluster's: {error}", directory.display());
        let text = fs::read_to_string(directory.join("addresses")).map_err(told)?;
        let directory = fs::canonicalize(directory).map_err(told)?;
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

/// Runs one of Kafka's tools with lines for its standard input, and gives what it printed.
pub fn tool(class: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut command = java(class)?;
    let pipes = command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = pipes.spawn().map_err(|error| member::missing(&command, &error))?;
    let pipe = child.stdin.take();
    let output = std::thread::scope(|scope| {
        // Beside the reading: neither pipe holds all of what may go through it. A tool that does not read to
        // the end has its own reasons, and its own exit code.
        scope.spawn(move || pipe.map(|mut pipe| pipe.write_all(input.as_bytes())));
        child.wait_with_output()
    });
    member::outcome(&command, output.map_err(|error| format!("{class}: {error}"))?)
}

/// One of Kafka's tools, ready to be given arguments and started: for one that runs beside a test.
pub fn java(class: &str) -> Result<Command, String> {
    let mut command = Command::new("java");
    command
        .args(TOOL_FLAGS)
        .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=error");
    command.args(["-cp", &cache::kafka()?, class]);
    Ok(command)
}

/// Where `up` without a directory puts the cluster.
pub fn default_directory() -> Result<PathBuf, String> {
    Ok(cache::directory()?.join("cluster"))
}

/// Makes the directory of a new cluster and gives its absolute path.
fn new_directory(wanted: Option<&Path>) -> Result<PathBuf, String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let unique = || {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        env::temp_dir().join(format!("tidegate-kafka-{}-{number}", std::process::id()))
    };
    let path = wanted.map_or_else(unique, Path::to_path_buf);
    let told = |error: std::io::Error| format!("{}: {error}", path.display());
    fs::create_dir_all(&path).map_err(told)?;
    if fs::read_dir(&path).map_err(told)?.next().is_some() {
        return Err(format!("{} is not empty: name another directory", path.display()));
    }
    // Of two that found it empty only one makes this.
    fs::create_dir(home(&path, Node::Broker(1))).map_err(told)?;
    fs::canonicalize(&path).map_err(told)
}

fn home(directory: &Path, node: Node) -> PathBuf {
    match node {
        Node::Broker(number) => directory.join(format!("broker-{number}")),
        Node::Registry => directory.join("registry"),
    }
}

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

/// Ports of a node.
const PORTS: usize = 2 + secure::LISTENERS.len();

fn node_ports(ports: &[u16]) -> Ports {
    let mut secure = [0; secure::LISTENERS.len()];
    secure.copy_from_slice(&ports[2..]);
    Ports {
        client: ports[0],
        controller: ports[1],
        secure,
    }
}

/// Free ports, each held by its listener.
fn free_ports(count: usize) -> std::io::Result<Vec<(TcpListener, u16)>> {
    let free = |_| {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        Ok((listener, port))
    };
    (0..count).map(free).collect()
}

fn addresses(nodes: &[Ports], options: &Options, registry: u16) -> BTreeMap<String, String> {
    let all = |port: &dyn Fn(&Ports) -> u16| {
        let each: Vec<String> = nodes
            .iter()
            .map(|ports| format!("127.0.0.1:{}", port(ports)))
            .collect();
        each.join(",")
    };
    let mut addresses = BTreeMap::from([("KAFKA".to_owned(), all(&|ports| ports.client))]);
    if options.registry {
        let url = format!("http://127.0.0.1:{registry}/apis/ccompat/v7");
        addresses.insert("REGISTRY".to_owned(), url);
    }
    if options.secure {
        for (at, listener) in secure::LISTENERS.iter().enumerate() {
            addresses.insert(listener.name.to_owned(), all(&|ports| ports.secure[at]));
        }
    }
    addresses
}

/// Writes every broker's settings and formats its storage, all at the same time.
fn make_brokers(
    directory: &Path,
    nodes: &[Ports],
    options: &Options,
    class_path: &str,
) -> Result<(), String> {
    let cluster = random_uuid();
    let certificates = options.secure.then(|| secure::certificates(directory));
    let flags = if options.is_bench { BENCH_FLAGS } else { TEST_FLAGS };
    let mut formats = Vec::new();
    for number in 1..=nodes.len() {
        let home = home(directory, Node::Broker(number));
        let file = home.join("server.properties");
        let told = |error: std::io::Error| format!("{}: {error}", file.display());
        fs::create_dir_all(&home).map_err(told)?;
        let text = settings::properties(nodes, number, &home, certificates.as_deref());
        fs::write(&file, text).map_err(told)?;
        let file = file.display().to_string();
        let mut format = java("kafka.tools.StorageTool")?;
        format.args(["format", "--cluster-id", &cluster, "--config", &file]);
        if options.secure {
            format.args(secure::format_arguments());
        }
        format
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = format.spawn().map_err(|error| member::missing(&format, &error))?;
        formats.push((format, child));
        let fixed = [
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
            "-cp",
            class_path,
            "kafka.Kafka",
            &file,
        ];
        let arguments: Vec<String> = flags
            .iter()
            .chain(&fixed)
            .map(|word| (*word).to_owned())
            .collect();
        Member::create(home, &arguments)?;
    }
    for (command, child) in formats {
        let output = child
            .wait_with_output()
            .map_err(|error| format!("StorageTool: {error}"))?;
        member::outcome(&command, output)?;
    }
    Ok(())
}

/// The registry, with its schemas in a file so that they outlive a restart.
fn make_registry(directory: &Path, archive: &Path, port: u16) -> Result<(), String> {
    let home = home(directory, Node::Registry);
    fs::create_dir(&home).map_err(|error| format!("{}: {error}", home.display()))?;
    let arguments = [
        "-Xmx400m".to_owned(),
        "-XX:+UseSerialGC".to_owned(),
        "-XX:TieredStopAtLevel=1".to_owned(),
        "-Dquarkus.http.host=127.0.0.1".to_owned(),
        format!("-Dquarkus.http.port={port}"),
        format!(
            "-DREGISTRY_DATASOURCE_URL=jdbc:h2:file:{}",
            home.join("schemas").display()
        ),
        "-jar".to_owned(),
        archive.display().to_string(),
    ];
    Member::create(home, &arguments).map(drop)
}

/// A random id as Kafka writes it: 16 bytes in the URL's base 64. The last of 22 letters stands for two bits.
fn random_uuid() -> String {
    let random = || RandomState::new().build_hasher().finish();
    let letters = format!("{:016x}{:016x}", random(), random());
    format!("{}A", &letters[..21])
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
    fn ports_are_free_and_differ() {
        let mut ports: Vec<u16> = free_ports(50)
            .expect("ports are free")
            .iter()
            .map(|(_, port)| *port)
            .collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 50);
    }

    #[test]
    fn ids_are_22_letters_and_differ() {
        let (one, other) = (random_uuid(), random_uuid());
        assert_eq!((one.len(), other.len()), (22, 22));
        assert_ne!(one, other);
    }

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
}

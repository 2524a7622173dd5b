//! A new cluster on disk: its directory, its ports, and every member ready to be started.
//!
//! Ports are free ones that the kernel gave. They are held until the members start, and stay those of a
//! member when it is restarted: as long as Linux has enough, it gives outgoing connections other ports
//! than listeners.

use super::member::{Member, missing, outcome};
use super::settings::{self, Ports};
use super::{Node, Options, java, secure};
use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs};

/// For tests: less memory, and in half the time where its best speed does not matter.
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
/// A cluster that can be started.
pub struct Layout {
    /// Where its members will answer, by name.
    pub addresses: BTreeMap<String, String>,
    /// Their ports, which nobody else can take as long as this lives.
    pub reserved: Vec<TcpListener>,
}

/// Lays out a cluster in an empty directory. `registry` is the registry's archive, if there is to be one.
pub fn make(
    directory: &Path,
    options: &Options,
    class_path: &str,
    registry: Option<&Path>,
) -> Result<Layout, String> {
    if options.secure {
        secure::make_certificates(directory)?;
    }
    let reserved = free_ports(options.count * PORTS + 1);
    let (reserved, ports) = reserved.map_err(|error| format!("no free ports: {error}"))?;
    let nodes: Vec<Ports> = ports.chunks_exact(PORTS).map(node_ports).collect();
    let registry_port = ports[options.count * PORTS];
    make_brokers(directory, &nodes, options, class_path)?;
    if let Some(archive) = registry {
        make_registry(directory, archive, registry_port)?;
    }
    let addresses = addresses(&nodes, options, registry_port);
    Ok(Layout { addresses, reserved })
}

/// Makes the directory of a new cluster and gives its absolute path.
pub fn new_directory(wanted: Option<&Path>) -> Result<PathBuf, String> {
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

/// Where a member lives.
pub fn home(directory: &Path, node: Node) -> PathBuf {
    match node {
        Node::Broker(number) => directory.join(format!("broker-{number}")),
        Node::Registry => directory.join("registry"),
    }
}

/// Ports of a node.
const PORTS: usize = 3 + secure::LISTENERS.len();

fn node_ports(ports: &[u16]) -> Ports {
    let mut secure = [0; secure::LISTENERS.len()];
    secure.copy_from_slice(&ports[3..]);
    Ports {
        client: ports[0],
        controller: ports[1],
        proxied: ports[2],
        secure,
    }
}

/// Free ports, all different, and the listeners that hold them.
fn free_ports(count: usize) -> std::io::Result<(Vec<TcpListener>, Vec<u16>)> {
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
    if options.proxy.is_some() {
        addresses.insert(settings::PROXIED.to_owned(), all(&|ports| ports.proxied));
    }
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
        let text = settings::properties(nodes, number, &home, certificates.as_deref(), options.proxy);
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
        let child = format.spawn().map_err(|error| missing(&format, &error))?;
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
        outcome(&command, output)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_and_differ() {
        let (_reserved, mut ports) = free_ports(50).expect("ports are free");
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
}

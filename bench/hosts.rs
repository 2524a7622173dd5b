//! Hosts of a cluster on one machine: network namespaces, joined by a bridge in one more of them.
//!
//! ```text
//!  host 0 [eth0 10.77.0.1] ──veth── port0 ┐
//!  host 1 [eth0 10.77.0.2] ──veth── port1 ┼ bridge        each in a namespace of its own
//!  host 2 [eth0 10.77.0.3] ──veth── port2 ┘
//! ```
//!
//! The hosts share the machine's files and its clock, and nothing of its network: a process in one reaches the
//! others and itself, no loopback of the machine's and no Kafka there. A cut is a route that swallows what one
//! host sends to another: connections stay open and silent, as behind a firewall that forgot them. A slow host
//! sends through a token bucket. A host whose clock is wrong has libfaketime before its programs.
//!
//! Needs root, Linux and `ip` (iproute2); whoever may not make namespaces is told so by [`Hosts::new`]. The
//! namespaces go when this is dropped; those of a process that was killed go when the next one makes its own.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// What changes a program's clock, below a directory of `/usr/lib` that is named after the machine: Debian's package
/// `faketime`.
const FAKETIME: &str = "faketime/libfaketimeMT.so.1";

/// All namespaces of ours begin with this; the process follows, then a number.
const PREFIX: &str = "tidegate-";

/// Hosts with one way between any two.
pub struct Hosts {
    /// The namespaces, by host.
    names: Vec<String>,
    /// The namespace of the bridge.
    between: String,
}

impl Hosts {
    /// So many hosts that reach one another. Says why there can be none.
    pub fn new(count: usize) -> Result<Hosts, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        remove_stale();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}{}-{number}", std::process::id());
        let hosts = Hosts {
            names: (0..count).map(|host| format!("{prefix}-{host}")).collect(),
            between: format!("{prefix}-between"),
        };
        let between = hosts.between.as_str();
        ip(&format!("netns add {between}"))?;
        ip(&format!("-n {between} link add name bridge0 type bridge"))?;
        ip(&format!("-n {between} link set dev bridge0 up"))?;
        for (host, name) in hosts.names.iter().enumerate() {
            let address = hosts.address(host);
            ip(&format!("netns add {name}"))?;
            ip(&format!(
                "link add name eth0 netns {name} type veth peer name port{host} netns {between}"
            ))?;
            ip(&format!("-n {between} link set dev port{host} master bridge0"))?;
            ip(&format!("-n {between} link set dev port{host} up"))?;
            ip(&format!("-n {name} addr add {address}/24 dev eth0"))?;
            ip(&format!("-n {name} link set dev eth0 up"))?;
            ip(&format!("-n {name} link set dev lo up"))?;
        }
        Ok(hosts)
    }

    /// The address of a host.
    pub fn address(&self, host: usize) -> String {
        format!("10.77.0.{}", host + 1)
    }

    /// A program to be started on a host. Its process is the program itself: it is signalled and killed as usual.
    pub fn command(&self, host: usize, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[host]]).arg(program);
        command
    }

    /// What `from` sends to `to` is lost from now on, and neither is told.
    pub fn cut(&self, from: usize, to: usize) -> Result<(), String> {
        let (name, address) = (&self.names[from], self.address(to));
        ip(&format!("-n {name} route add blackhole {address}/32"))
    }

    /// What `from` sends to `to` arrives again.
    pub fn mend(&self, from: usize, to: usize) -> Result<(), String> {
        let (name, address) = (&self.names[from], self.address(to));
        ip(&format!("-n {name} route del blackhole {address}/32"))
    }

    /// All that a host sends goes at this rate from now on, kilobits a second.
    pub fn slow(&self, host: usize, kilobits: u32) -> Result<(), String> {
        let name = &self.names[host];
        let bucket = format!("root tbf rate {kilobits}kbit burst 16kb latency 400ms");
        run("tc", &format!("-n {name} qdisc replace dev eth0 {bucket}"))
    }

    /// What a host sends goes as fast as it can again.
    pub fn hasten(&self, host: usize) -> Result<(), String> {
        let name = &self.names[host];
        run("tc", &format!("-n {name} qdisc del dev eth0 root"))
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in self.names.iter().chain([&self.between]) {
            // One that was never made is in nobody's way.
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

/// Puts a program's clock off by so many seconds; its monotonic clock stays right, as a host's does. Says why that
/// cannot be done.
pub fn put_clock_off(command: &mut Command, seconds: i32) -> Result<(), String> {
    let libraries = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut candidates = libraries.map(|entry| entry.path().join(FAKETIME));
    let library = candidates.find(|path| path.is_file());
    let library = library.ok_or_else(|| format!("{FAKETIME} is missing (Debian: faketime)"))?;
    command
        .env("LD_PRELOAD", library)
        .env("FAKETIME", format!("{seconds:+}s"))
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    Ok(())
}

/// Removes namespaces of processes that are gone.
fn remove_stale() {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Another process may be removing it too.
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

fn ip(words: &str) -> Result<(), String> {
    run("ip", words)
}

fn run(program: &str, words: &str) -> Result<(), String> {
    let output = Command::new(program).args(words.split(' ')).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {words}: {}", said.trim()))
}

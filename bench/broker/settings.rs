//! What a broker is told: `server.properties`, as text.
//!
//! Each node is broker and controller. They find each other by a fixed list of controllers, so that one and
//! three nodes are set up alike. Every listener has an address of its own on the loopback interface.

use super::secure;
use std::fmt::Write as _;
use std::path::Path;

/// The ports of one node.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// For clients, and for the other brokers: without encryption.
    pub client: u16,
    /// For controllers.
    pub controller: u16,
    /// For who comes through a proxy.
    pub proxied: u16,
    /// The listeners of [`secure::LISTENERS`].
    pub secure: [u16; secure::LISTENERS.len()],
}

/// The name of the listener for who comes through a proxy.
pub const PROXIED: &str = "PROXIED";

/// The settings of node `number`, which counts from 1. Its data goes below `directory`; `certificates` is
/// where a secure cluster keeps them; `proxy` is the port of a proxy before the listener [`PROXIED`].
pub fn properties(
    nodes: &[Ports],
    number: usize,
    directory: &Path,
    certificates: Option<&Path>,
    proxy: Option<u16>,
) -> String {
    let own = nodes[number - 1];
    let mut voters = Vec::new();
    for (node, ports) in (1..).zip(nodes) {
        let node: usize = node;
        voters.push(format!("{node}@127.0.0.1:{}", ports.controller));
    }
    // Three nodes keep everything three times and go on without any one of them.
    let (replicas, in_sync) = if nodes.len() < 3 { (1, 1) } else { (3, 2) };
    let mut listeners = format!(
        "PLAINTEXT://127.0.0.1:{},CONTROLLER://127.0.0.1:{}",
        own.client, own.controller
    );
    let mut protocols = "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT".to_owned();
    let mut advertised = format!("PLAINTEXT://127.0.0.1:{}", own.client);
    if let Some(proxy) = proxy {
        // cannot fail: Strings
        let _ = write!(listeners, ",{PROXIED}://127.0.0.1:{}", own.proxied);
        let _ = write!(protocols, ",{PROXIED}:PLAINTEXT");
        let _ = write!(advertised, ",{PROXIED}://127.0.0.1:{proxy}");
    }
    let mut security = String::new();
    if let Some(certificates) = certificates {
        for (listener, port) in secure::LISTENERS.iter().zip(own.secure) {
            let _ = write!(listeners, ",{}://127.0.0.1:{port}", listener.name); // cannot fail: a String
            let _ = write!(advertised, ",{}://127.0.0.1:{port}", listener.name);
            let _ = write!(protocols, ",{}:{}", listener.name, listener.protocol);
        }
        security = secure::properties(certificates);
    }
    let (voters, data) = (voters.join(","), directory.join("data"));
    format!(
        "process.roles=broker,controller
node.id={number}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners={listeners}
advertised.listeners={advertised}
listener.security.protocol.map={protocols}
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
# A topic that nobody created is a mistake, of a test or of a job.
auto.create.topics.enable=false
# A group's first member need not wait for others.
group.initial.rebalance.delay.ms=0
# Few partitions of the internal topics: each is a directory, and a leader to elect at every start.
offsets.topic.num.partitions=1
transaction.state.log.num.partitions=4
default.replication.factor={replicas}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={replicas}
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
# A broker that was killed may come back only when its session is over: after 3 s, not 9.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# How soon a transaction is aborted that outlived its timeout: every second, not every ten.
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
# How soon after it there is something to compact: not every 15 s.
log.cleaner.backoff.ms=500
{security}",
        data = data.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(first: u16) -> Ports {
        Ports {
            client: first,
            controller: first + 1,
            proxied: first + 2,
            secure: [first + 3, first + 4, first + 5, first + 6],
        }
    }

    #[test]
    fn one_node_keeps_one_copy_and_three_keep_three() {
        let one = properties(&[ports(10)], 1, Path::new("/d"), None, None);
        assert!(
            one.contains("\ncontroller.quorum.voters=1@127.0.0.1:11\n"),
            "{one}"
        );
        assert!(
            one.contains("\nlisteners=PLAINTEXT://127.0.0.1:10,CONTROLLER://127.0.0.1:11\n"),
            "{one}"
        );
        assert!(
            one.contains("\nmin.insync.replicas=1\n") && one.contains("\nlog.dirs=/d/data\n"),
            "{one}"
        );
        assert!(!one.contains("ssl"), "{one}");
        assert!(!one.contains(PROXIED), "{one}");

        let third = properties(&[ports(10), ports(20), ports(30)], 3, Path::new("/d"), None, None);
        assert!(
            third.contains("=1@127.0.0.1:11,2@127.0.0.1:21,3@127.0.0.1:31\n"),
            "{third}"
        );
        assert!(
            third.contains("\nnode.id=3\n") && third.contains("PLAINTEXT://127.0.0.1:30,"),
            "{third}"
        );
        assert!(third.contains("\nmin.insync.replicas=2\n"), "{third}");
        assert!(
            third.contains("\ntransaction.state.log.replication.factor=3\n"),
            "{third}"
        );
    }

    #[test]
    fn a_proxy_is_what_clients_of_its_listener_are_told() {
        let text = properties(&[ports(10)], 1, Path::new("/d"), None, Some(99));
        assert!(
            text.contains("CONTROLLER://127.0.0.1:11,PROXIED://127.0.0.1:12\n"),
            "{text}"
        );
        let told = "\nadvertised.listeners=PLAINTEXT://127.0.0.1:10,PROXIED://127.0.0.1:99\n";
        assert!(text.contains(told), "{text}");
    }

    #[test]
    fn a_secure_node_has_a_listener_for_every_case() {
        let text = properties(&[ports(10)], 1, Path::new("/d"), Some(Path::new("/c")), None);
        for (listener, port) in secure::LISTENERS.iter().zip(13..) {
            assert!(
                text.contains(&format!(",{}://127.0.0.1:{port}", listener.name)),
                "{text}"
            );
            assert!(
                text.contains(&format!(",{}:{}", listener.name, listener.protocol)),
                "{text}"
            );
        }
    }
}

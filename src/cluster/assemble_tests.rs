//! Clusters over real sockets of this machine, within one process: complete ones, and those that never are.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use std::sync::mpsc::{Receiver, channel};

const SECRET: &str = "a secret of at least sixteen bytes";

/// Nothing in these tests takes that long, unless it hangs.
const LONG: Duration = Duration::from_secs(60);
/// A start that cannot succeed ends after this long.
const SHORT: Duration = Duration::from_millis(800);

/// Listening sockets of so many processes.
struct Hosts(Vec<Arc<TcpListener>>);

impl Hosts {
    fn new(processes: usize) -> Hosts {
        let open = |_| Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        Hosts((0..processes).map(open).collect())
    }

    fn addresses(&self) -> Vec<String> {
        let address = |listener: &Arc<TcpListener>| listener.local_addr().unwrap().to_string();
        self.0.iter().map(address).collect()
    }

    fn settings(&self, process: usize) -> Settings {
        Settings {
            membership: Membership {
                job: "bank".to_owned(),
                generation: 7,
                process,
                processes: self.0.len(),
                workers: 1,
                plan_hash: 0xfeed,
            },
            addresses: self.addresses(),
            listener: Some(Arc::clone(&self.0[process])),
            secret: Secret::new(SECRET),
            certificates: None,
            start_timeout: LONG,
            silence: limits::SILENCE,
            lost: Arc::new(|error| panic!("{error}")),
        }
    }
}

type Assembling = thread::JoinHandle<Result<Cluster>>;

fn start(settings: Settings) -> Assembling {
    let name = format!("process-{}", settings.membership.process);
    thread::Builder::new()
        .name(name)
        .spawn(|| assemble(settings))
        .unwrap()
}

fn all(starting: Vec<Assembling>) -> Vec<Cluster> {
    let join = |start: Assembling| start.join().unwrap().unwrap_or_else(|error| panic!("{error}"));
    starting.into_iter().map(join).collect()
}

fn failure(start: Assembling) -> Error {
    match start.join().unwrap() {
        Ok(_) => panic!("the start succeeded"),
        Err(error) => error,
    }
}

/// Everybody reaches everybody, on both connections, under the right index.
fn assert_connected(clusters: &mut [Cluster]) {
    let processes = clusters.len();
    for cluster in clusters.iter_mut() {
        let own = cluster.membership.process;
        for peer in (0..processes).filter(|peer| *peer != own) {
            let said = [own as u8, peer as u8];
            cluster.data[peer].as_mut().unwrap().write_all(&said).unwrap();
            cluster.links[peer].as_ref().unwrap().outbox.send(&said).unwrap();
        }
        assert!(cluster.data[own].is_none() && cluster.links[own].is_none());
    }
    for cluster in clusters.iter_mut() {
        let own = cluster.membership.process;
        for peer in (0..processes).filter(|peer| *peer != own) {
            let mut heard = [0; 2];
            cluster.data[peer]
                .as_mut()
                .unwrap()
                .read_exact(&mut heard)
                .unwrap();
            assert_eq!(heard, [peer as u8, own as u8]);
            let message = cluster.links[peer].as_ref().unwrap().received.recv().unwrap();
            assert_eq!(message, [peer as u8, own as u8]);
        }
    }
}

fn close(clusters: Vec<Cluster>) {
    let closing = clusters.into_iter().map(|cluster| {
        let close = move || cluster.parting.close();
        thread::Builder::new().spawn(close).unwrap()
    });
    for closing in closing.collect::<Vec<_>>() {
        closing.join().unwrap().unwrap();
    }
}

#[test]
fn processes_find_one_another_in_any_order() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let hosts = Hosts::new(3);
        let starting = order.map(|process| start(hosts.settings(process)));
        let mut clusters = all(starting.into());
        assert_connected(&mut clusters);
        close(clusters);
    }
}

#[test]
fn one_process_is_a_cluster_without_sockets() {
    let hosts = Hosts::new(1);
    let mut settings = hosts.settings(0);
    (settings.listener, settings.secret) = (None, Secret::new(""));
    let cluster = assemble(settings).unwrap();
    assert!(cluster.is_leader() && cluster.data.iter().all(Option::is_none));
    cluster.parting.close().unwrap();
}

/// More of them than may knock at once, each in another way, before and while the members come.
#[test]
fn strangers_do_not_hold_up_a_start() {
    let hosts = Hosts::new(2);
    let leader = start(hosts.settings(0));
    let mut strangers = Vec::new();
    for number in 0..2 * limits::HANDSHAKES {
        let mut stranger = TcpStream::connect(&hosts.addresses()[0]).unwrap();
        match number % 4 {
            0 => strangers.push(stranger), // says nothing
            1 => drop(stranger),           // a port scan
            2 => {
                // Dropped as the oldest one meanwhile, perhaps.
                let _ = stranger.write_all(b"GET / HTTP/1.1\r\nHost: bank\r\n\r\n");
                strangers.push(stranger);
            }
            _ => {
                let _ = stranger.write_all(b"tidegate"); // and then nothing
                strangers.push(stranger);
            }
        }
    }
    let mut clusters = all(vec![leader, start(hosts.settings(1))]);
    assert_connected(&mut clusters);
    close(clusters);
    drop(strangers);
}

#[test]
fn an_old_incarnation_is_turned_away_and_the_new_one_comes() {
    let hosts = Hosts::new(2);
    let leader = start(hosts.settings(0));
    let mut old = hosts.settings(1);
    (old.membership.generation, old.start_timeout) = (6, SHORT);
    let refused = failure(start(old));
    assert_eq!(refused.kind, Kind::Unreachable);
    let words = "an old incarnation: generation 6 connects to 7";
    assert!(refused.message.contains(words), "{refused}");
    let mut clusters = all(vec![leader, start(hosts.settings(1))]);
    assert_connected(&mut clusters);
    close(clusters);
}

#[test]
fn a_member_that_computes_something_else_gives_up_at_once() {
    let hosts = Hosts::new(2);
    let leader = start(hosts.settings(0));
    let mut other = hosts.settings(1);
    other.membership.plan_hash = 1;
    // It would have a minute.
    let refused = failure(start(other));
    assert_eq!(refused.kind, Kind::Configuration);
    assert!(
        refused.message.contains("another plan: 0000000000000001"),
        "{refused}"
    );
    assert!(refused.message.contains(&hosts.addresses()[0]), "{refused}");
    let mut clusters = all(vec![leader, start(hosts.settings(1))]);
    assert_connected(&mut clusters);
    close(clusters);
}

#[test]
fn who_is_missing_is_named_and_why() {
    let hosts = Hosts::new(3);
    let mut leader = hosts.settings(0);
    leader.start_timeout = SHORT;
    let mut wrong = hosts.settings(1);
    (wrong.secret, wrong.start_timeout) = (Secret::new("another secret, long enough"), SHORT);
    let (leader, wrong) = (start(leader), start(wrong));
    let (missing, turned_away) = (failure(leader), failure(wrong));
    let [first, second, third] = <[String; 3]>::try_from(hosts.addresses()).unwrap();
    assert_eq!(missing.kind, Kind::Unreachable);
    assert_eq!(
        missing.message,
        format!(
            "the cluster is incomplete after 800 ms; missing: process 1 ({second}): turned away: a wrong \
             secret; process 2 ({third}): it did not connect"
        )
    );
    let words = format!("process 0 ({first}): a wrong secret");
    assert!(turned_away.message.contains(&words), "{turned_away}");
}

#[test]
fn an_index_is_taken_once() {
    let hosts = Hosts::new(2);
    let mut clusters = all([0, 1].map(|process| start(hosts.settings(process))).into());
    let mut second = hosts.settings(1);
    (second.start_timeout, second.listener) = (SHORT, Some(Arc::clone(&Hosts::new(1).0[0])));
    let refused = failure(start(second));
    let words = "an index that is taken: process 1 is there";
    assert!(refused.message.contains(words), "{refused}");
    assert_connected(&mut clusters);
    close(clusters);
}

/// A process that dies while others are still missing leaves its seat to its successor.
#[test]
fn a_process_may_die_and_come_again_during_the_start() {
    for died in [0, 1] {
        let hosts = Hosts::new(3);
        let stays = start(hosts.settings(1 - died));
        let mut first = hosts.settings(died);
        first.start_timeout = SHORT;
        let gone = failure(start(first));
        assert!(gone.message.contains("missing: process 2"), "{gone}");
        let again = [died, 2].map(|process| start(hosts.settings(process)));
        let mut clusters = all([stays].into_iter().chain(again).collect());
        clusters.sort_by_key(|cluster| cluster.membership.process);
        assert_connected(&mut clusters);
        close(clusters);
    }
}

#[test]
fn slips_of_the_command_line_are_named() {
    let hosts = Hosts::new(2);
    let refusal = |change: fn(&mut Settings)| {
        let mut settings = hosts.settings(0);
        change(&mut settings);
        failure(start(settings))
    };
    for (refused, words) in [
        (
            refusal(|settings| settings.membership.process = 2),
            "process 2 of 2",
        ),
        (
            refusal(|settings| drop(settings.addresses.pop())),
            "1 addresses for 2 processes",
        ),
        (
            refusal(|settings| settings.secret = Secret::new("short")),
            "the cluster's secret has 5 bytes",
        ),
        (
            refusal(|settings| {
                settings.listener = None;
                settings.addresses[0] = "192.0.2.1:4000".to_owned();
            }),
            "cannot listen on 192.0.2.1:4000",
        ),
    ] {
        assert_eq!(refused.kind, Kind::Configuration);
        assert!(refused.message.contains(words), "{refused}");
    }
}

/// The settings of two processes, and what each is told of a loss.
fn watched(hosts: &Hosts) -> ([Settings; 2], [Receiver<Error>; 2]) {
    let mut told = Vec::new();
    let settings = [0, 1].map(|process| {
        let (send, receive) = channel();
        told.push(receive);
        let mut settings = hosts.settings(process);
        settings.lost = Arc::new(move |error| drop(send.send(error)));
        settings
    });
    (settings, <[Receiver<Error>; 2]>::try_from(told).unwrap())
}

#[test]
fn who_fails_tells_why_and_is_not_blamed_for_the_rest() {
    let hosts = Hosts::new(2);
    let (settings, [leaders, members]) = watched(&hosts);
    let clusters = all(settings.map(start).into());
    let cause = Error::new(Kind::InputGone, "entries-0.jsonl is gone; put it back");
    clusters[1].parting.failed(&cause);
    let told = leaders.recv().unwrap();
    assert_eq!(told.kind, Kind::PeerLost);
    let name = format!("process 1 ({})", hosts.addresses()[1]);
    assert_eq!(told.message, format!("{name} ended: {}", cause.message));
    assert!(leaders.try_recv().is_err(), "told once");
    // The leader ends because of it; to the member that is no news.
    clusters[0].parting.failed(&told);
    drop(clusters);
    assert!(members.try_recv().is_err());
}

#[test]
fn a_clean_end_is_no_loss_and_nothing_sent_before_is_lost() {
    let hosts = Hosts::new(2);
    let (settings, told) = watched(&hosts);
    let mut clusters = all(settings.map(start).into());
    let long: Vec<u8> = (0..3 * limits::LINK_BYTES).map(|byte| byte as u8).collect();
    let received = clusters[1].links[0].take().unwrap().received;
    let outbox = clusters[0].links[1].take().unwrap().outbox;
    outbox.send(&long).unwrap();
    outbox.post(b"done").unwrap();
    close(clusters);
    assert!(received.recv().unwrap() == long && received.recv().unwrap() == b"done");
    assert!(received.recv().is_err(), "the peer has ended");
    assert!(outbox.send(b"more").is_err());
    assert!(told.iter().all(|told| told.try_recv().is_err()));
}

#[test]
fn a_cluster_over_tls_is_one_too_and_lets_in_nobody_else() {
    let scratch = crate::scratch::Scratch::new();
    let own = crate::cluster::secure::tests::certificates(scratch.path(), "authority");
    let other = crate::cluster::secure::tests::certificates(scratch.path(), "other");
    let hosts = Hosts::new(2);
    let with = |certificates: &Option<crate::cluster::secure::Certificates>, process| Settings {
        certificates: certificates.clone(),
        ..hosts.settings(process)
    };
    let leader = start(with(&Some(own.clone()), 0));
    for certificates in [None, Some(other)] {
        let mut intruder = with(&certificates, 1);
        intruder.start_timeout = SHORT;
        let refused = failure(start(intruder));
        assert_eq!(refused.kind, Kind::Unreachable);
        assert!(refused.message.contains("missing: process 0"), "{refused}");
    }
    let mut clusters = all(vec![leader, start(with(&Some(own), 1))]);
    assert_connected(&mut clusters);
    close(clusters);
}

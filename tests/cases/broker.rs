//! The cluster that the Kafka cases stand on does what they take for granted: it keeps what it acknowledged
//! over a kill, answers at the same address again, and lets in whom it should and nobody else.
//!
//! Every client here is one of Kafka's own tools, so that what these cases find is the broker's doing and
//! not ours.

use crate::broker::secure::{ALICE, MALLORY, Secure, User};
use crate::broker::{Brokers, Node, Options, class, tool};
use crate::harness::Directory;
use std::path::Path;

/// The first `count` records of a topic, in the order of their one partition.
fn consume(brokers: &Brokers, topic: &str, count: usize) -> Vec<String> {
    let count = count.to_string();
    let words = [
        "--bootstrap-server",
        brokers.bootstrap(),
        "--topic",
        topic,
        "--from-beginning",
    ];
    let rest = ["--max-messages", &count, "--timeout-ms", "60000"];
    let printed = tool(class::CONSUMER, &[&words[..], &rest].concat(), "").expect("it consumes");
    printed.lines().map(str::to_owned).collect()
}

#[test]
fn what_a_broker_and_a_registry_hold_survives_a_kill() {
    let options = Options {
        registry: true,
        ..Options::default()
    };
    let brokers = Brokers::start(&options).expect("a broker and a registry start");
    let at = ["--bootstrap-server", brokers.bootstrap()];
    let create = ["--create", "--topic", "t", "--partitions", "1"];
    tool(class::TOPICS, &[&at[..], &create].concat(), "").expect("a topic is made");
    let sent: Vec<String> = (0..10).map(|number| format!("record {number}")).collect();
    tool(
        class::PRODUCER,
        &[&at[..], &["--topic", "t"]].concat(),
        &sent.join("\n"),
    )
    .expect("it produces");
    assert_eq!(consume(&brokers, "t", 10), sent);

    for node in [Node::Broker(1), Node::Registry] {
        brokers.kill(node).expect("it can be killed");
        assert!(brokers.kill(node).is_ok(), "what has ended may be killed again");
        assert!(brokers.pause(node).is_err(), "what has ended cannot be paused");
        assert!(brokers.nodes().contains(&(node, None)));
    }
    brokers
        .restart_all()
        .expect("both start again at their addresses");
    assert!(brokers.restart(Node::Broker(1)).is_err(), "it runs already");
    assert_eq!(consume(&brokers, "t", 10), sent);

    brokers.stop(Node::Broker(1)).expect("it ends when asked");
    brokers.restart(Node::Broker(1)).expect("it starts again");
    let ends = tool(class::OFFSETS, &[&at[..], &["--topic", "t"]].concat(), "").expect("it lists ends");
    assert_eq!(ends.trim(), "t:0:10");

    let lived = brokers.directory().expect("it is ours").to_path_buf();
    drop(brokers);
    assert!(!lived.exists(), "it takes its directory with it");
}

#[test]
fn ordinary_cases_share_one_cluster() {
    let brokers = Brokers::for_tests().expect("it starts, or the named one is used");
    let again = Brokers::for_tests().expect("it is up");
    assert!(std::ptr::eq(brokers, again));
    let at = ["--bootstrap-server", brokers.bootstrap(), "--list"];
    tool(class::TOPICS, &at, "").expect("it answers");
}

/// Settings of a Java client that trusts an authority, with more lines.
fn client(directory: &Directory, name: &str, authority: &Path, more: &str) -> String {
    let authority = authority.display();
    let text = format!("ssl.truststore.type=PEM\nssl.truststore.location={authority}\n{more}\n");
    directory.write(name, text);
    directory.path(name).display().to_string()
}

/// The lines by which a user logs in.
fn login(user: User, password: &str, mechanism: &str) -> String {
    let module = "org.apache.kafka.common.security.scram.ScramLoginModule";
    let name = user.name;
    format!(
        "security.protocol=SASL_SSL\nsasl.mechanism={mechanism}\n\
         sasl.jaas.config={module} required username=\"{name}\" password=\"{password}\";"
    )
}

#[test]
fn a_secure_broker_lets_in_whom_it_should() {
    let options = Options {
        secure: true,
        ..Options::default()
    };
    let brokers = Brokers::start(&options).expect("a secure broker starts");
    let secure = brokers.secure().expect("it is secure");
    let Secure {
        scram,
        mutual,
        wrong_host,
        expired,
        authority,
        other_authority,
        ..
    } = &secure;
    let create = [
        "--bootstrap-server",
        brokers.bootstrap(),
        "--create",
        "--topic",
        "t",
    ];
    tool(class::TOPICS, &create, "").expect("the unencrypted listener is free to all");

    let directory = Directory::new();
    let store = secure.client_store.display();
    let certificate = format!("security.protocol=SSL\nssl.keystore.type=PEM\nssl.keystore.location={store}");
    let alice = |mechanism| login(ALICE, ALICE.password, mechanism);
    let (sha256, sha512) = (alice("SCRAM-SHA-256"), alice("SCRAM-SHA-512"));
    let mallory = login(MALLORY, MALLORY.password, "SCRAM-SHA-256");
    let guessed = login(ALICE, "guessed", "SCRAM-SHA-256");
    let anonymous = "security.protocol=SSL".to_owned();
    // What is done, where, trusting whom, as whom; and words of what it comes to.
    let cases = [
        ("in by SHA-256", scram, authority, &sha256, "t:0:0"),
        ("in by SHA-512", scram, authority, &sha512, "t:0:0"),
        ("in by a certificate", mutual, authority, &certificate, "t:0:0"),
        (
            "no certificate",
            mutual,
            authority,
            &anonymous,
            "Received fatal alert",
        ),
        (
            "a wrong password",
            scram,
            authority,
            &guessed,
            "invalid credentials",
        ),
        ("another authority", scram, other_authority, &sha256, "PKIX path"),
        (
            "another host's certificate",
            wrong_host,
            authority,
            &sha256,
            "No subject alternative",
        ),
        (
            "an expired certificate",
            expired,
            authority,
            &sha256,
            "validity check failed",
        ),
        (
            "no rights",
            scram,
            authority,
            &mallory,
            "Could not match any topic",
        ),
    ];
    for (case, address, authority, lines, wanted) in cases {
        let settings = client(&directory, "client.properties", authority, lines);
        let words = [
            "--bootstrap-server",
            address,
            "--command-config",
            &settings,
            "--topic",
            "t",
        ];
        let outcome = tool(class::OFFSETS, &words, "").unwrap_or_else(|error| error);
        assert!(outcome.contains(wanted), "{case}:\n{outcome}");
    }
}

//! A cluster with security: certificates, users and rights, and what each listener is there to show.
//!
//! | listener | protocol | certificate | a client |
//! |---|---|---|---|
//! | `SCRAM` | SASL_SSL | good, of `ca.pem` | gets in with a password; with another CA it must refuse |
//! | `MUTUAL` | SSL | good | gets in as [`ALICE`] with a certificate, `client.pem` and `client.key` |
//! | `WRONGHOST` | SASL_SSL | of another host | must refuse |
//! | `EXPIRED` | SASL_SSL | ended yesterday | must refuse |
//!
//! Users log in by SCRAM-SHA-256 or -512. [`ALICE`] may do everything with every topic, group and
//! transactional id; [`MALLORY`] logs in and may do nothing. Whoever comes over the listeners without
//! encryption is anonymous and may do everything: the brokers among themselves, and the tools of tests.

use super::member::run;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A user and the password, which occurs nowhere else: what finds it has found a leak.
#[derive(Clone, Copy, Debug)]
pub struct User {
    /// The name.
    pub name: &'static str,
    /// The password.
    pub password: &'static str,
}

/// May use every topic, group and transactional id.
pub const ALICE: User = User {
    name: "alice",
    password: "canary-4cf1d09ab7e2",
};
/// May nothing.
pub const MALLORY: User = User {
    name: "mallory",
    password: "canary-93be50c8d16f",
};

/// A listener for encrypted clients.
#[derive(Clone, Copy, Debug)]
pub struct Listener {
    /// Its name, in capitals; also the name of its address.
    pub name: &'static str,
    /// Kafka's name for how clients speak to it.
    pub protocol: &'static str,
    /// Whose certificate it shows.
    certificate: &'static str,
}

/// The listeners, in the order of their ports.
pub const LISTENERS: [Listener; 4] = [
    Listener {
        name: "SCRAM",
        protocol: "SASL_SSL",
        certificate: "server",
    },
    Listener {
        name: "MUTUAL",
        protocol: "SSL",
        certificate: "server",
    },
    Listener {
        name: "WRONGHOST",
        protocol: "SASL_SSL",
        certificate: "wrong-host",
    },
    Listener {
        name: "EXPIRED",
        protocol: "SASL_SSL",
        certificate: "expired",
    },
];

/// What clients of a secure cluster need: addresses, `host:port,...`, and files in PEM.
#[derive(Clone, Debug)]
pub struct Secure {
    /// SASL_SSL for SCRAM-SHA-256 and -512, with a good certificate.
    pub scram: String,
    /// SSL that demands a client's certificate.
    pub mutual: String,
    /// As `scram`, with the certificate of another host.
    pub wrong_host: String,
    /// As `scram`, with a certificate that has expired.
    pub expired: String,
    /// The authority that issued all certificates here.
    pub authority: PathBuf,
    /// An authority that issued none.
    pub other_authority: PathBuf,
    /// A client's certificate; its owner is [`ALICE`].
    pub client_certificate: PathBuf,
    /// The key that belongs to it, not encrypted.
    pub client_key: PathBuf,
    /// Both in one file, as Java takes them.
    pub client_store: PathBuf,
}

impl Secure {
    /// What clients need, given a listener's addresses by its name.
    pub(super) fn new(directory: &Path, address: impl Fn(&str) -> Option<String>) -> Option<Secure> {
        let file = |name| certificates(directory).join(name);
        Some(Secure {
            scram: address("SCRAM")?,
            mutual: address("MUTUAL")?,
            wrong_host: address("WRONGHOST")?,
            expired: address("EXPIRED")?,
            authority: file("ca.pem"),
            other_authority: file("other-ca.pem"),
            client_certificate: file("client.pem"),
            client_key: file("client.key"),
            client_store: file("client.store.pem"),
        })
    }
}

/// Where a cluster keeps its certificates.
pub fn certificates(directory: &Path) -> PathBuf {
    directory.join("certificates")
}

/// The part of a broker's settings that is about security.
pub fn properties(certificates: &Path) -> String {
    let mut text = "# Anonymous is who comes unencrypted: the brokers themselves, and administrators.
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
# CN=alice is alice, however she comes.
ssl.principal.mapping.rules=RULE:^CN=([a-z]+)$/$1/
sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512
"
    .to_owned();
    for listener in LISTENERS {
        let prefix = format!("listener.name.{}", listener.name.to_lowercase());
        let store = certificates.join(format!("{}.store.pem", listener.certificate));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{prefix}.ssl.keystore.type=PEM");
        let _ = writeln!(text, "{prefix}.ssl.keystore.location={}", store.display());
        if listener.protocol == "SSL" {
            let _ = writeln!(text, "{prefix}.ssl.client.auth=required");
            let _ = writeln!(text, "{prefix}.ssl.truststore.type=PEM");
            let authority = certificates.join("ca.pem");
            let _ = writeln!(text, "{prefix}.ssl.truststore.location={}", authority.display());
        } else {
            let module = "org.apache.kafka.common.security.scram.ScramLoginModule";
            for mechanism in ["scram-sha-256", "scram-sha-512"] {
                let _ = writeln!(text, "{prefix}.{mechanism}.sasl.jaas.config={module} required;");
            }
        }
    }
    text
}

/// The arguments that make the users when a broker's storage is formatted: only there can the first ones be
/// made.
pub fn format_arguments() -> Vec<String> {
    let mut arguments = Vec::new();
    for user in [ALICE, MALLORY] {
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            let User { name, password } = user;
            arguments.push("--add-scram".to_owned());
            arguments.push(format!("{mechanism}=[name={name},password={password}]"));
        }
    }
    arguments
}

/// The arguments of the tool `AclCommand` that give [`ALICE`] her rights.
pub fn rights(bootstrap: &str) -> Vec<String> {
    let principal = format!("User:{}", ALICE.name);
    let words = [
        "--bootstrap-server",
        bootstrap,
        "--add",
        "--allow-principal",
        &principal,
    ];
    let all = [
        "--operation",
        "All",
        "--topic",
        "*",
        "--group",
        "*",
        "--transactional-id",
        "*",
    ];
    words.iter().chain(&all).map(|word| (*word).to_owned()).collect()
}

/// Makes all keys and certificates.
pub fn make_certificates(directory: &Path) -> Result<(), String> {
    let directory = &certificates(directory);
    let told = |error: std::io::Error| format!("{}: {error}", directory.display());
    fs::create_dir(directory).map_err(told)?;
    // Nothing of the machine's own settings gets into a certificate.
    fs::write(
        directory.join("openssl.cnf"),
        "[req]\ndistinguished_name=name\n[name]\n",
    )
    .map_err(told)?;
    for name in ["ca", "other-ca"] {
        make_authority(directory, name)?;
    }
    let here = "subjectAltName=DNS:localhost,IP:127.0.0.1";
    issue(directory, "server", "/CN=server", here, YEARS)?;
    issue(
        directory,
        "wrong-host",
        "/CN=server",
        "subjectAltName=DNS:elsewhere.invalid",
        YEARS,
    )?;
    issue(directory, "expired", "/CN=server", here, ENDED)?;
    issue(
        directory,
        "client",
        &format!("/CN={}", ALICE.name),
        "extendedKeyUsage=clientAuth",
        YEARS,
    )?;
    // Java reads key and certificate from one file.
    for name in ["server", "wrong-host", "expired", "client"] {
        let read = |ending: &str| fs::read_to_string(directory.join(format!("{name}.{ending}")));
        let store = read("key").and_then(|key| Ok(key + &read("pem")?));
        let write = |store| fs::write(directory.join(format!("{name}.store.pem")), store);
        store.and_then(write).map_err(told)?;
    }
    Ok(())
}

/// Days that a good certificate lasts.
const YEARS: &str = "3650";
/// The day before it begins: OpenSSL's own way to a certificate that has expired.
const ENDED: &str = "-1";

fn make_authority(directory: &Path, name: &str) -> Result<(), String> {
    let subject = format!("/CN={name}");
    let key_usage = "keyUsage=critical,keyCertSign,cRLSign";
    let mut command = request(directory, name, &subject, "basicConstraints=critical,CA:TRUE");
    command.args([
        "-addext",
        key_usage,
        "-x509",
        "-days",
        YEARS,
        "-out",
        &format!("{name}.pem"),
    ]);
    run(&mut command).map(drop)
}

/// A key and a certificate for it by the authority `ca`.
fn issue(directory: &Path, name: &str, subject: &str, extension: &str, days: &str) -> Result<(), String> {
    let [csr, pem] = ["csr", "pem"].map(|ending| format!("{name}.{ending}"));
    run(request(directory, name, subject, extension).args(["-out", &csr]))?;
    let mut command = Command::new("openssl");
    command
        .current_dir(directory)
        .args(["x509", "-req", "-in", &csr, "-out", &pem, "-days", days]);
    command.args([
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-copy_extensions",
        "copy",
    ]);
    run(&mut command).map(drop)
}

/// `openssl req` with a new key, which goes to `<name>.key`.
fn request(directory: &Path, name: &str, subject: &str, extension: &str) -> Command {
    let mut command = Command::new("openssl");
    command
        .current_dir(directory)
        .args(["req", "-config", "openssl.cnf", "-nodes"]);
    command.args([
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-keyout",
        &format!("{name}.key"),
    ]);
    command.args(["-subj", subject, "-addext", extension]);
    command
}

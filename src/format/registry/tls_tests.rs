//! Certificates: a registry behind TLS is reached, or refused for each reason there is. The server is openssl's.

use super::tests::{fetched, refusal};
use super::*;
use crate::scratch::Scratch;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// Certificates made by openssl, and its server, which gives files by their path.
struct Secure {
    directory: Scratch,
    server: Option<Child>,
}

impl Secure {
    /// An authority, and what it has signed: a server for `host`, expired or not, and a client.
    fn new(host: &str, days: &str) -> Secure {
        let directory = Scratch::new();
        let secure = Secure {
            directory,
            server: None,
        };
        for authority in ["ca", "other"] {
            let name = format!("/CN={authority}");
            let key = format!("{authority}.key");
            let to = format!("{authority}.pem");
            secure.openssl(&[
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-keyout",
                &key,
                "-out",
                &to,
                "-subj",
                &name,
                "-days",
                "2",
                "-addext",
                "keyUsage=critical,keyCertSign",
            ]);
        }
        let extensions = format!("subjectAltName={host}\nbasicConstraints=CA:FALSE\n");
        std::fs::write(secure.directory.path().join("extensions"), extensions).expect("a file");
        for name in ["server", "client"] {
            let (key, request, to) = (
                format!("{name}.key"),
                format!("{name}.csr"),
                format!("{name}.pem"),
            );
            let subject = format!("/CN={name}");
            secure.openssl(&[
                "req", "-newkey", "rsa:2048", "-nodes", "-keyout", &key, "-out", &request, "-subj", &subject,
            ]);
            let days = if name == "server" { days } else { "2" };
            secure.openssl(&[
                "x509",
                "-req",
                "-in",
                &request,
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-out",
                &to,
                "-days",
                days,
                "-extfile",
                "extensions",
            ]);
        }
        std::fs::create_dir_all(secure.directory.path().join("schemas/ids")).expect("a directory");
        std::fs::write(
            secure.directory.path().join("schemas/ids/1"),
            r#"{"schema":"\"long\""}"#,
        )
        .expect("a file");
        secure
    }

    fn openssl(&self, arguments: &[&str]) {
        let mut command = Command::new("openssl");
        let output = command
            .current_dir(self.directory.path())
            .args(arguments)
            .output();
        let output = output.expect("openssl is installed");
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Starts the server and gives settings that trust its authority.
    fn start(&mut self, arguments: &[&str]) -> Settings {
        let mut command = Command::new("openssl");
        command
            .current_dir(self.directory.path())
            .args(["s_server", "-accept", "127.0.0.1:0", "-WWW"]);
        command
            .args(["-cert", "server.pem", "-key", "server.key"])
            .args(arguments);
        let mut server = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .stdin(Stdio::null())
            .spawn()
            .expect("openssl");
        let lines = BufReader::new(server.stdout.take().expect("piped")).lines();
        self.server = Some(server);
        let mut lines = lines.map_while(|line| line.ok());
        let port = lines.find_map(|line| line.strip_prefix("ACCEPT 127.0.0.1:").map(str::to_owned));
        let mut settings = Settings::new(format!("https://127.0.0.1:{}", port.expect("an address")));
        settings.authorities = Some(self.directory.path().join("ca.pem"));
        settings
    }

    fn identity(&self) -> Option<(PathBuf, PathBuf)> {
        let path = |name| self.directory.path().join(name);
        Some((path("client.pem"), path("client.key")))
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

#[test]
fn certificates_are_checked_both_ways() {
    let mut secure = Secure::new("IP:127.0.0.1", "2");
    let mut settings = secure.start(&["-Verify", "1", "-CAfile", "ca.pem", "-verify_return_error"]);
    let without = refusal(&settings);
    assert!(without.to_lowercase().contains("certificate"), "{without}");
    settings.identity = secure.identity();
    let (_schemas, known) = fetched(&settings, 1);
    assert!(matches!(known, Some(Ok(_))));
    settings.authorities = Some(secure.directory.path().join("other.pem"));
    let unknown = refusal(&settings);
    assert!(
        unknown.contains("UnknownIssuer") || unknown.contains("BadSignature"),
        "{unknown}"
    );
}

#[test]
fn certificates_must_be_for_the_host_and_valid() {
    let mut elsewhere = Secure::new("DNS:elsewhere.example", "2");
    let settings = elsewhere.start(&[]);
    assert!(
        refusal(&settings).contains("not valid for name"),
        "{}",
        refusal(&settings)
    );
    let mut expired = Secure::new("IP:127.0.0.1", "-1");
    let settings = expired.start(&[]);
    let expired = refusal(&settings);
    assert!(expired.contains("Expired"), "{expired}");
}

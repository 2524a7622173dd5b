//! TLS between two ends of this machine: with certificates of one authority, and with others.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::limits;
use crate::scratch::Scratch;
use std::net::TcpListener;
use std::process::Command;

/// Runs openssl in a directory.
fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(directory)
        .output()
        .expect("the tests of TLS make certificates with openssl (Debian: openssl)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}: {said}");
}

/// An authority, and a certificate of it for this host.
pub(in crate::cluster) fn certificates(directory: &Path, authority: &str) -> Certificates {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    openssl(
        directory,
        &format!("req -x509 {key} -keyout {authority}.key -out {authority}.pem -subj /CN={authority}"),
    );
    openssl(
        directory,
        &format!(
            "req -x509 {key} -keyout {authority}-host.key -out {authority}-host.pem -subj /CN=host -CA \
             {authority}.pem -CAkey {authority}.key -addext subjectAltName=IP:127.0.0.1 -addext \
             basicConstraints=critical,CA:FALSE"
        ),
    );
    let file = |name: &str| directory.join(format!("{authority}{name}"));
    Certificates {
        certificate: file("-host.pem"),
        key: file("-host.key"),
        authority: file(".pem"),
    }
}

type Connected = std::result::Result<Connection, Refusal>;

/// What both sides come to: the one that connects, and the one that listens.
fn connect(connecting: &Certificates, listening: &Certificates) -> (Connected, Connected) {
    let (connecting, listening) = (
        Encryption::load(connecting).unwrap(),
        Encryption::load(listening).unwrap(),
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let deadline = now() + limits::HANDSHAKE;
    let listens = thread::Builder::new().spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        listening.listen(stream, deadline)
    });
    let stream = TcpStream::connect(&address).unwrap();
    let connected = connecting.connect(stream, &address, deadline);
    (connected, listens.unwrap().join().unwrap())
}

#[test]
fn bytes_pass_in_both_directions_at_once() {
    let scratch = Scratch::new();
    let own = certificates(scratch.path(), "authority");
    let (near, far) = connect(&own, &own);
    let long: Vec<u8> = (0..5_000_000_u32).map(|byte| (byte / 7) as u8).collect();
    let ends = [near.unwrap(), far.unwrap()];
    let mut threads = Vec::new();
    for end in ends {
        let (mut reading, mut writing) = (end.try_clone().unwrap(), end);
        let sent = long.clone();
        let write = move || {
            writing.write_all(&sent).unwrap();
            use timely::communication::allocator::zero_copy::stream::Stream as _;
            writing.shutdown(Shutdown::Write).unwrap();
        };
        let read = move || {
            let mut received = Vec::new();
            reading.read_to_end(&mut received).unwrap();
            received
        };
        threads.push((
            thread::Builder::new().spawn(write).unwrap(),
            thread::Builder::new().spawn(read).unwrap(),
        ));
    }
    for (write, read) in threads {
        write.join().unwrap();
        assert!(read.join().unwrap() == long);
    }
}

#[test]
fn a_certificate_of_another_authority_is_refused_on_either_side() {
    let scratch = Scratch::new();
    let own = certificates(scratch.path(), "authority");
    let other = certificates(scratch.path(), "other");
    // It trusts our authority, and shows a certificate that ours does not.
    let intruder = Certificates {
        authority: own.authority.clone(),
        ..other.clone()
    };
    let (_, listens) = connect(&intruder, &own);
    let refusal = listens.unwrap_err().to_string();
    assert!(
        refusal.contains("no TLS: invalid peer certificate: UnknownIssuer"),
        "{refusal}"
    );
    let (connects, _) = connect(&own, &intruder);
    let refusal = connects.unwrap_err().to_string();
    assert!(
        refusal.contains("no TLS: invalid peer certificate: UnknownIssuer"),
        "{refusal}"
    );
}

#[test]
fn a_certificate_of_another_host_is_refused() {
    let scratch = Scratch::new();
    let own = certificates(scratch.path(), "authority");
    let encryption = Encryption::load(&own).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let deadline = now() + limits::HANDSHAKE;
    let listening = Encryption::load(&own).unwrap();
    let listens = thread::Builder::new().spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        listening.listen(stream, deadline).map(drop)
    });
    let refusal = encryption
        .connect(stream, "bank.example:4000", deadline)
        .unwrap_err();
    assert!(refusal.to_string().contains("not valid for name"), "{refusal}");
    assert!(listens.unwrap().join().unwrap().is_err());
}

#[test]
fn who_does_not_speak_tls_is_a_stranger() {
    let scratch = Scratch::new();
    let encryption = Encryption::load(&certificates(scratch.path(), "authority")).unwrap();
    for says in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"tidegate\x01", b""] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stranger = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stranger.write_all(says).unwrap();
        stranger.shutdown(Shutdown::Write).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let refusal = encryption.listen(stream, now() + limits::HANDSHAKE).unwrap_err();
        assert!(
            refusal.to_string().starts_with("a stranger: no TLS: "),
            "{refusal}"
        );
    }
}

#[test]
fn unusable_files_are_named() {
    let scratch = Scratch::new();
    let own = certificates(scratch.path(), "authority");
    let empty = scratch.path().join("empty.pem");
    std::fs::write(&empty, "no certificate").unwrap();
    let with = |change: fn(&mut Certificates, PathBuf)| {
        let mut files = own.clone();
        change(&mut files, empty.clone());
        let Err(error) = Encryption::load(&files) else {
            panic!("{files:?} are usable")
        };
        error
    };
    for error in [
        with(|files, empty| files.certificate = empty),
        with(|files, empty| files.key = empty),
        with(|files, empty| files.authority = empty),
    ] {
        assert_eq!(error.kind, Kind::Configuration);
        assert!(error.message.contains("empty.pem: "), "{error}");
    }
    let gone = with(|files, empty| files.key = empty.with_file_name("gone.key"));
    assert!(gone.message.contains("gone.key: "), "{gone}");
}

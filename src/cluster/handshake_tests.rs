//! Handshakes over socket pairs: who gets in, who does not, and what both are told.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use std::os::unix::net::UnixStream;
use std::thread;

const SECRET: &str = "a secret of at least sixteen bytes";

fn membership() -> Membership {
    Membership {
        job: "bank".to_owned(),
        generation: 7,
        process: 0,
        processes: 3,
        workers: 2,
        plan_hash: 0xfeed,
    }
}

fn hello(change: impl FnOnce(&mut Hello)) -> Hello {
    let mut hello = Hello::new(&membership(), [1; 16], Purpose::Data).unwrap();
    change(&mut hello);
    hello
}

fn connecting() -> Hello {
    hello(|hello| hello.membership.process = 1)
}

fn pair() -> (Connection, Connection) {
    let (one, other) = UnixStream::pair().unwrap();
    (Connection::Encrypted(one), Connection::Encrypted(other))
}

fn later() -> Instant {
    now() + limits::HANDSHAKE
}

type Connected = std::result::Result<Hello, Refusal>;

/// A whole handshake: what the connecting side and the listening side come to.
fn shake(connecting: Hello, listening: Hello, secrets: [&str; 2]) -> (Connected, Judged) {
    let (mut near, mut far) = pair();
    let secret = Secret::new(secrets[1]);
    let listens = thread::Builder::new().spawn(move || {
        let (_, judged) = listen(&mut far, listening, &secret, later(), |_| Ok(()));
        judged
    });
    let expected = 0;
    let connected = connect(
        &mut near,
        &connecting,
        expected,
        &Secret::new(secrets[0]),
        later(),
    );
    (connected, listens.unwrap().join().unwrap())
}

#[test]
fn members_get_in_for_either_purpose() {
    for purpose in [Purpose::Data, Purpose::Control] {
        let connecting = hello(|hello| (hello.membership.process, hello.purpose) = (2, purpose));
        let (connected, judged) = shake(connecting, hello(|_| {}), [SECRET; 2]);
        assert_eq!(connected.unwrap().membership, membership());
        assert_eq!(judged, Ok(()));
    }
}

#[test]
fn every_difference_is_named_to_both() {
    let with = |change: fn(&mut Hello)| {
        let mut hello = connecting();
        change(&mut hello);
        hello
    };
    let cases = [
        (
            with(|hello| hello.membership.job = "shop".to_owned()),
            Refusal::Job("shop".to_owned(), "bank".to_owned()),
            "another job: \"shop\" connects to \"bank\"",
            false,
        ),
        (
            with(|hello| hello.membership.generation = 6),
            Refusal::Generation(6, 7),
            "an old incarnation: generation 6 connects to 7",
            false,
        ),
        (
            with(|hello| hello.membership.generation = 8),
            Refusal::Generation(8, 7),
            "a newer incarnation: generation 8 connects to 7",
            false,
        ),
        (
            with(|hello| hello.program = "9.9.9".to_owned()),
            Refusal::Program("9.9.9".to_owned(), PROGRAM.to_owned()),
            "another version: \"9.9.9\" connects to",
            true,
        ),
        (
            with(|hello| hello.membership.plan_hash = 1),
            Refusal::Plan(1, 0xfeed),
            "another plan: 0000000000000001 connects to 000000000000feed",
            true,
        ),
        (
            with(|hello| hello.membership.processes = 2),
            Refusal::Processes(2, 3),
            "another number of processes: 2 connects to 3",
            true,
        ),
        (
            with(|hello| hello.membership.workers = 1),
            Refusal::Workers(1, 2),
            "another number of workers: 1 connects to 2",
            true,
        ),
        (
            with(|hello| hello.membership.process = 0),
            Refusal::Index(0, 1),
            "process 0 where process 1 is expected",
            true,
        ),
    ];
    for (connecting, refusal, words, is_final) in cases {
        let (connected, judged) = shake(connecting, hello(|_| {}), [SECRET; 2]);
        assert_eq!(judged, Err(refusal.clone()));
        assert_eq!(connected, Err(refusal.clone()), "who connects is told the same");
        assert!(refusal.to_string().contains(words), "{refusal}");
        assert_eq!(refusal.is_final(), is_final, "{refusal}");
    }
}

#[test]
fn a_wrong_secret_is_told_to_both() {
    let (connected, judged) = shake(
        connecting(),
        hello(|_| {}),
        ["another secret, long enough", SECRET],
    );
    assert_eq!((connected, judged), (Err(Refusal::Secret), Err(Refusal::Secret)));
}

#[test]
fn the_process_that_answers_must_be_the_expected_one() {
    let (mut near, mut far) = pair();
    let listening = hello(|hello| hello.membership.process = 1);
    let listens = thread::Builder::new()
        .spawn(move || listen(&mut far, listening, &Secret::new(SECRET), later(), |_| Ok(())).1);
    let ours = hello(|hello| hello.membership.process = 2);
    let connected = connect(&mut near, &ours, 0, &Secret::new(SECRET), later());
    assert_eq!(connected, Err(Refusal::Index(1, 0)));
    listens.unwrap().join().unwrap().unwrap();
}

/// Who listens and does not know the secret is not believed: neither with a made-up proof nor with ours, sent back.
#[test]
fn an_impostor_is_not_believed() {
    for sends_back in [false, true] {
        let (mut near, mut far) = pair();
        let impostor = thread::Builder::new().spawn(move || {
            let Ok(Said::Hello(_)) = hear(&mut far, later()) else {
                panic!("no hello");
            };
            say(&mut far, &Said::Hello(hello(|_| {})), later()).unwrap();
            let Ok(Said::Proof(proof)) = hear(&mut far, later()) else {
                panic!("no proof");
            };
            let shown = if sends_back { proof } else { [7; 32] };
            say(&mut far, &Said::Welcome(shown), later()).unwrap();
        });
        let connected = connect(&mut near, &connecting(), 0, &Secret::new(SECRET), later());
        assert_eq!(connected, Err(Refusal::Secret));
        impostor.unwrap().join().unwrap();
    }
}

/// A proof that was overheard is of no use: the next handshake has another nonce.
#[test]
fn a_recorded_handshake_is_of_no_use() {
    let recorded = connecting();
    let (theirs, ours) = (hello(|_| {}), hello(|_| {}));
    let secret = Secret::new(SECRET);
    let proof = prove(&secret, Side::Connecting, &recorded, &theirs);
    assert!(is_proved(&secret, Side::Connecting, &recorded, &theirs, &proof));
    assert!(!is_proved(&secret, Side::Connecting, &recorded, &ours, &proof));
    assert!(!is_proved(&secret, Side::Listening, &recorded, &theirs, &proof));
}

/// What becomes of somebody who sends these bytes and hangs up.
fn sends(bytes: &[u8]) -> Refusal {
    let (mut near, mut far) = pair();
    near.write_all(bytes).unwrap();
    if let Connection::Encrypted(stream) = &near {
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    }
    let (_, judged) = listen(&mut far, hello(|_| {}), &Secret::new(SECRET), later(), |_| Ok(()));
    judged.unwrap_err()
}

#[test]
fn strangers_are_strangers() {
    let whole = encode(&Said::Hello(connecting()));
    let mut endless = MAGIC.to_vec();
    endless.extend((limits::HANDSHAKE_BYTES as u32 + 1).to_le_bytes());
    let mut none = MAGIC.to_vec();
    none.extend(3_u32.to_le_bytes());
    none.extend([9, 9, 9]);
    let mut newer = whole.clone();
    newer[MAGIC.len() - 1] = 2;
    let cases: [(&[u8], &str); 7] = [
        (b"", "it hung up"),
        (b"GET / HTTP/1.1\r\n\r\n", "does not speak this protocol"),
        (&whole[..whole.len() / 2], "it hung up"),
        (&whole, "it hung up"), // a hello, and then no proof
        (&endless, "a message of 4097 bytes"),
        (&none, "a message that is none"),
        (&newer, "another protocol: version 2 connects to 1"),
    ];
    for (bytes, words) in cases {
        let refusal = sends(bytes);
        assert!(refusal.to_string().contains(words), "{refusal}");
        assert!(!refusal.is_final());
    }
    assert!(
        sends(&encode(&Said::Proof([0; 32])))
            .to_string()
            .contains("out of turn")
    );
}

#[test]
fn who_says_nothing_is_not_waited_for() {
    let (_silent, mut far) = pair();
    let soon = now() + Duration::from_millis(20);
    let (_, judged) = listen(&mut far, hello(|_| {}), &Secret::new(SECRET), soon, |_| Ok(()));
    assert!(matches!(judged, Err(Refusal::Stranger(_))), "{judged:?}");
}

#[test]
fn what_a_stranger_says_stays_on_the_line() {
    let refusal = Refusal::Job("two\nlines\u{1b}[2J".to_owned(), "bank".to_owned());
    assert_eq!(
        refusal.to_string(),
        r#"another job: "two\nlines\u{1b}[2J" connects to "bank""#
    );
}

/// Everything that passes, in both directions, is overheard; the secret is not in it.
#[test]
fn the_secret_is_never_sent() {
    let (mut near, middle) = pair();
    let (other, mut far) = pair();
    let overheard = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let pass = |mut from: Connection, mut to: Connection| {
        let overheard = std::sync::Arc::clone(&overheard);
        thread::Builder::new()
            .spawn(move || {
                let mut buffer = [0; 1_024];
                while let Ok(length @ 1..) = from.read(&mut buffer) {
                    overheard.lock().unwrap().extend_from_slice(&buffer[..length]);
                    to.write_all(&buffer[..length]).unwrap();
                }
            })
            .unwrap()
    };
    let passing = [
        pass(middle.try_clone().unwrap(), other.try_clone().unwrap()),
        pass(other, middle),
    ];
    let listens = thread::Builder::new()
        .spawn(move || listen(&mut far, hello(|_| {}), &Secret::new(SECRET), later(), |_| Ok(())).1);
    connect(&mut near, &connecting(), 0, &Secret::new(SECRET), later()).unwrap();
    listens.unwrap().join().unwrap().unwrap();
    drop(near);
    for thread in passing {
        drop(thread); // they end with the sockets
    }
    let overheard = overheard.lock().unwrap();
    assert!(overheard.len() > 200, "four messages were overheard");
    let secret = SECRET.as_bytes();
    assert!(!overheard.windows(secret.len()).any(|window| window == secret));
}

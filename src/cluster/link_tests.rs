//! Links against an end that a test speaks for: silent, damaged, cut off, slow to read.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Receiver;

/// A silence that a test may wait for.
const SOON: Duration = Duration::from_millis(400);
/// One that no test reaches.
const LONG: Duration = Duration::from_secs(60);

/// A link, its other end, and what is told of its loss.
fn link(silence: Duration) -> (Link, UnixStream, Receiver<Error>) {
    let (near, far) = UnixStream::pair().unwrap();
    let (tell, told) = channel();
    let loss = Loss::new(Arc::new(move |error| drop(tell.send(error))));
    let link = Link::start(Connection::Encrypted(near), 1, "host:4000", silence, loss).unwrap();
    (link, far, told)
}

#[test]
fn a_silent_peer_is_lost_by_name() {
    let (link, _far, told) = link(SOON);
    let lost = told.recv().unwrap();
    assert_eq!(lost.kind, Kind::PeerLost);
    assert_eq!(
        lost.message,
        "process 1 (host:4000) is lost: nothing was heard of it for 400 ms (frozen, or cut off)"
    );
    assert!(link.received.recv().is_err());
    assert_eq!(
        link.outbox.send(b"anybody there?").unwrap_err().message,
        lost.message
    );
}

/// Heartbeats come by themselves, and a peer that sends them and nothing else is alive: several silences long.
#[test]
fn heartbeats_keep_a_link_alive() {
    let (_link, mut far, told) = link(SOON);
    let mut beats = vec![0; frame::beat().len()];
    for _ in 0..30 {
        far.read_exact(&mut beats).unwrap();
        assert_eq!(beats, frame::beat());
        far.write_all(&beats).unwrap();
    }
    assert!(told.try_recv().is_err());
}

#[test]
fn a_connection_that_closes_without_a_word_is_a_loss() {
    let (_link, far, told) = link(LONG);
    drop(far);
    let lost = told.recv().unwrap();
    assert!(
        lost.message.starts_with("process 1 (host:4000) is lost: "),
        "{lost}"
    );
}

#[test]
fn damage_is_a_loss_and_nothing_after_it_is_delivered() {
    let (link, mut far, told) = link(LONG);
    let mut damaged = frame::whole(b"damaged").unwrap();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let messages = [
        frame::whole(b"good").unwrap(),
        damaged,
        frame::whole(b"late").unwrap(),
    ];
    far.write_all(&messages.concat()).unwrap();
    let lost = told.recv().unwrap();
    assert!(
        lost.message.ends_with("it sent a frame whose checksum differs"),
        "{lost}"
    );
    assert!(link.received.iter().all(|message| message == b"good"));
}

#[test]
fn goodbye_is_the_end_and_no_loss() {
    let (link, mut far, told) = link(LONG);
    far.write_all(&[frame::whole(b"last").unwrap(), frame::goodbye()].concat())
        .unwrap();
    assert_eq!(link.received.iter().collect::<Vec<_>>(), [b"last"]);
    link.outbox.say_goodbye();
    link.outbox.wait_for_goodbye().unwrap();
    let mut said = Vec::new();
    drop(link);
    // The threads have ended, and with them the connection.
    far.read_to_end(&mut said).unwrap();
    assert!(said.ends_with(&frame::goodbye()));
    assert!(told.recv().is_err());
}

/// Who says goodbye and waits for an answer is told when there will be none.
#[test]
fn a_peer_that_dies_before_its_goodbye_is_named_to_who_waits() {
    let (link, far, told) = link(LONG);
    link.outbox.say_goodbye();
    drop(far);
    let lost = link.outbox.wait_for_goodbye().unwrap_err();
    assert_eq!(lost.kind, Kind::PeerLost);
    drop(link);
    assert!(told.recv().is_err(), "once is enough");
}

/// Nobody reads on the other side: whoever may wait does, and a worker does not.
#[test]
fn post_never_waits() {
    let (link, mut far, told) = link(LONG);
    let outbox = link.outbox.clone();
    let long = vec![7_u8; 4 * limits::LINK_BYTES];
    let sent = long.clone();
    let sends = thread::Builder::new().spawn(move || outbox.send(&sent)).unwrap();
    let short = vec![8_u8; limits::FRAME_BYTES];
    for _ in 0..64 {
        link.outbox.post(&short).unwrap();
    }
    assert!(
        link.outbox.post(&vec![8; limits::FRAME_BYTES + 1]).is_err(),
        "that is not short"
    );
    // Now somebody reads: everything arrives, the long one whole.
    let mut reader = Reader::default();
    let (mut buffer, mut arrived) = (vec![0; limits::FRAME_BYTES], Vec::new());
    while arrived.len() < 65 {
        let length = far.read(&mut buffer).unwrap();
        arrived.extend(reader.read(&buffer[..length]).unwrap());
    }
    sends.join().unwrap().unwrap();
    let (is_long, is_short) = (Arrival::Message(long), Arrival::Message(short));
    assert_eq!(arrived.iter().filter(|arrival| **arrival == is_long).count(), 1);
    assert_eq!(arrived.iter().filter(|arrival| **arrival == is_short).count(), 64);
    assert!(told.try_recv().is_err());
}

/// Long messages of several threads do not mix.
#[test]
fn long_messages_arrive_whole() {
    let (near, far) = UnixStream::pair().unwrap();
    let start = |end, peer| {
        let loss = Loss::new(Arc::new(|_| {}));
        Link::start(Connection::Encrypted(end), peer, "host:4000", LONG, loss).unwrap()
    };
    let (sending, receiving) = (start(near, 1), start(far, 0));
    let senders = (0..4_u8).map(|letter| {
        let outbox = sending.outbox.clone();
        let send = move || {
            for length in [1, limits::FRAME_BYTES, 5 * limits::FRAME_BYTES + 1] {
                outbox.send(&vec![letter; length]).unwrap();
            }
        };
        thread::Builder::new().spawn(send).unwrap()
    });
    let senders: Vec<_> = senders.collect();
    let mut lengths = [const { Vec::new() }; 4];
    for message in receiving.received.iter().take(12) {
        assert!(message.iter().all(|byte| *byte == message[0]));
        lengths[usize::from(message[0])].push(message.len());
    }
    for sender in senders {
        sender.join().unwrap();
    }
    let expected = vec![1, limits::FRAME_BYTES, 5 * limits::FRAME_BYTES + 1];
    assert!(
        lengths.iter().all(|lengths| *lengths == expected),
        "in the order of each thread"
    );
}

//! A TCP proxy before a broker, for one job: it can be slow, silent in one direction, cut, and it can hold back single
//! requests.
//!
//! ```text
//!  job ──► listener ──► a thread: whole requests ──► broker        held ones wait here, with all behind them
//!      ◄────────────── a thread: whole answers  ◄───               those to held ones are noted
//! ```
//!
//! Of Kafka it knows the framing only: a length, then of a request its kind, version and number, of an answer the
//! number.
//! A request that is held reaches the broker even if who sent it has long gone: that is what is tried with it.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// The kind of a request that ends a transaction.
pub const END_TXN: u16 = 26;
/// The kind of a request that brings messages.
pub const PRODUCE: u16 = 0;

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// From the job to the broker.
    There,
    /// From the broker to the job.
    Back,
}

/// The running proxy. Its threads end with the process, or when both sides have gone.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    broker: String,
    /// By connection: both its streams.
    open: BTreeMap<u64, [TcpStream; 2]>,
    connections: u64,
    /// In these directions nothing goes through, and nobody is told.
    silent: Vec<Way>,
    /// A direction goes silent when a request of this kind comes.
    silent_at: Option<(u16, Way)>,
    /// Every request and every answer takes so much longer.
    latency: Duration,
    /// Bytes a second of one direction of one connection; 0: as many as go.
    bandwidth: u64,
    /// Requests of this kind are held.
    held_kind: Option<u16>,
    /// Those that were, in order.
    held: Vec<Held>,
}

/// A request that was held.
struct Held {
    connection: u64,
    number: [u8; 4],
    is_released: bool,
    /// What the broker answered, without the number.
    answer: Option<Vec<u8>>,
}

impl Proxy {
    /// Listens on a free port. Nobody comes before the broker knows of it.
    pub fn new() -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("it has an address").port();
        let shared = Arc::<Shared>::default();
        let accepting = Arc::clone(&shared);
        spawn(move || {
            for client in listener.incoming().flatten() {
                accepting.accept(client);
            }
        });
        Proxy { port, shared }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens, as clients are given it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Whom it brings clients to.
    pub fn lead_to(&self, broker: &str) {
        self.set(|state| state.broker = broker.to_owned());
    }

    /// Ends all connections.
    pub fn cut(&self) {
        self.set(|state| {
            for stream in std::mem::take(&mut state.open).into_values().flatten() {
                let _ = stream.shutdown(Shutdown::Both); // it may have ended by itself
            }
        });
    }

    /// Nothing goes through in this direction any more, from the next request of this kind on, that request included.
    pub fn go_silent_at(&self, kind: u16, way: Way) {
        self.set(|state| state.silent_at = Some((kind, way)));
    }

    /// Whether a direction is silent.
    pub fn is_silent(&self) -> bool {
        !self.shared.lock().silent.is_empty()
    }

    /// Everything goes through, what was kept first.
    pub fn go_on(&self) {
        self.set(|state| {
            (state.silent, state.silent_at) = (Vec::new(), None);
            (state.latency, state.bandwidth) = (Duration::ZERO, 0);
        });
    }

    /// Every request and every answer takes longer.
    pub fn slow_down(&self, latency: Duration, bytes_per_second: u64) {
        self.set(|state| (state.latency, state.bandwidth) = (latency, bytes_per_second));
    }

    /// Requests of this kind are held from now on, or no longer; those that are held stay so.
    pub fn hold(&self, kind: Option<u16>) {
        self.set(|state| state.held_kind = kind);
    }

    /// How many were held so far.
    pub fn held(&self) -> usize {
        self.shared.lock().held.len()
    }

    /// Brings the so-manieth held request to the broker.
    pub fn release(&self, number: usize) {
        self.set(|state| state.held[number].is_released = true);
    }

    /// What the broker answered to a held request.
    pub fn answer(&self, number: usize) -> Option<Vec<u8>> {
        self.shared.lock().held[number].answer.clone()
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.lock());
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread of the proxy panics")
    }

    fn accept(self: &Arc<Self>, client: TcpStream) {
        let address = self.lock().broker.clone();
        // A broker that is away is away for who comes through the proxy too.
        let Ok(broker) = TcpStream::connect(&address) else {
            return;
        };
        let copy = |stream: &TcpStream| stream.try_clone().expect("a stream can be shared");
        let connection = {
            let mut state = self.lock();
            state.connections += 1;
            let (connection, streams) = (state.connections, [copy(&client), copy(&broker)]);
            state.open.insert(connection, streams);
            connection
        };
        for (way, from, to) in [
            (Way::There, copy(&client), copy(&broker)),
            (Way::Back, broker, client),
        ] {
            let shared = Arc::clone(self);
            spawn(move || shared.forward(connection, way, from, to));
        }
    }

    /// Brings frames from one side to the other until one has gone.
    fn forward(&self, connection: u64, way: Way, mut from: TcpStream, mut to: TcpStream) {
        let _ = to.set_nodelay(true); // slower without, not wrong
        while let Some(frame) = frame(way, &mut from) {
            self.pass(connection, way, &frame);
            // Answers for a client that has gone are read on: the broker is not to notice.
            if to.write_all(&frame).is_err() && way == Way::There {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write); // it may have gone
        if way == Way::Back {
            self.lock().open.remove(&connection);
        }
    }

    /// Waits until a frame may go on.
    fn pass(&self, connection: u64, way: Way, frame: &[u8]) {
        let mut state = self.lock();
        match way {
            Way::There => {
                let kind = u16::from_be_bytes([frame[4], frame[5]]);
                if let Some((at, silent)) = state.silent_at
                    && at == kind
                {
                    state.silent_at = None;
                    state.silent.push(silent);
                }
                if state.held_kind == Some(kind) {
                    let place = state.held.len();
                    state.held.push(Held {
                        connection,
                        number: [frame[8], frame[9], frame[10], frame[11]],
                        is_released: false,
                        answer: None,
                    });
                    while !state.held[place].is_released {
                        state = self.changed.wait(state).expect("no thread of the proxy panics");
                    }
                }
            }
            Way::Back => {
                let number = &frame[4..8];
                let mut held = state.held.iter_mut();
                if let Some(held) = held.find(|held| held.connection == connection && held.number == number) {
                    held.answer = Some(frame[8..].to_vec());
                }
            }
        }
        while state.silent.contains(&way) {
            state = self.changed.wait(state).expect("no thread of the proxy panics");
        }
        let micros = (frame.len() as u64 * 1_000_000).checked_div(state.bandwidth);
        let takes = state.latency + Duration::from_micros(micros.unwrap_or(0));
        drop(state);
        if !takes.is_zero() {
            thread::park_timeout(takes);
        }
    }
}

/// The next request or answer with its length; none when no more come.
fn frame(way: Way, from: &mut TcpStream) -> Option<Vec<u8>> {
    let least = if way == Way::There { 12 } else { 8 };
    let mut length = [0; 4];
    from.read_exact(&mut length).ok()?;
    let mut frame = length.to_vec();
    frame.resize(4 + u32::from_be_bytes(length) as usize, 0);
    from.read_exact(&mut frame[4..]).ok()?;
    (frame.len() >= least).then_some(frame)
}

fn spawn(run: impl FnOnce() + Send + 'static) {
    let thread = thread::Builder::new().name("proxy".to_owned()).spawn(run);
    thread.expect("a thread");
}

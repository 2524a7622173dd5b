//! Whether an instance is alive: a socket that answers with the nonce of its claim.
//!
//! Kafka's fence makes a take-over safe, so nothing but politeness depends on this: a start that finds its
//! predecessor alive leaves it alone unless it was told to take over. No answer, another nonce, a refused
//! connection: dead, frozen or elsewhere, and the start goes on.

use crate::error::{Error, Kind, Result};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(1);

/// A socket that will answer; it lives as long as the process.
pub struct Control {
    listener: TcpListener,
}

impl Control {
    /// Opens a socket on a free port of this machine.
    pub fn open() -> Result<Control> {
        let listener = TcpListener::bind(("127.0.0.1", 0));
        let listener = listener.map_err(|error| Error::internal(format!("no control socket: {error}")))?;
        Ok(Control { listener })
    }

    /// Where it is reached.
    pub fn address(&self) -> String {
        self.listener
            .local_addr()
            .map(|address| address.to_string())
            .unwrap_or_default()
    }

    /// Answers from now on with this nonce.
    pub fn answer(self, nonce: u64) -> Result<()> {
        let serve = move || {
            for stream in self.listener.incoming().flatten() {
                // Whoever asks and does not listen is not waited for.
                let _ = stream.set_write_timeout(Some(ANSWER));
                let _ = (&stream).write_all(&line(nonce));
            }
        };
        let thread = thread::Builder::new().name("control".to_owned()).spawn(serve);
        thread
            .map(|_| ())
            .map_err(|error| Error::internal(format!("a thread cannot be started: {error}")))
    }
}

/// Refuses if the instance of this address and nonce answers.
pub fn refuse_if_alive(address: &str, nonce: u64, pid: u32) -> Result<()> {
    if !is_alive(address, nonce) {
        return Ok(());
    }
    let message = format!(
        "another instance runs this job (process {pid}, {address}); stop it, or start with --take-over to fence it"
    );
    Err(Error::new(Kind::AnotherInstance, message))
}

/// Whether the instance of this address and nonce answers.
pub fn is_alive(address: &str, nonce: u64) -> bool {
    let Ok(address) = address.parse::<SocketAddr>() else {
        return false;
    };
    let Ok(mut stream) = TcpStream::connect_timeout(&address, ANSWER) else {
        return false;
    };
    let mut answer = [0; 16];
    let read = stream
        .set_read_timeout(Some(ANSWER))
        .and_then(|()| stream.read_exact(&mut answer));
    read.is_ok() && answer == line(nonce)
}

/// Sixteen hex digits.
fn line(nonce: u64) -> [u8; 16] {
    let mut line = [0; 16];
    line.copy_from_slice(format!("{nonce:016x}").as_bytes());
    line
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_nonce_is_alive() {
        let control = Control::open().unwrap();
        let address = control.address();
        control.answer(7).unwrap();
        assert_eq!(
            refuse_if_alive(&address, 7, 1).unwrap_err().kind,
            Kind::AnotherInstance
        );
        assert!(refuse_if_alive(&address, 8, 1).is_ok());
        assert!(refuse_if_alive("127.0.0.1:1", 7, 1).is_ok());
        assert!(refuse_if_alive("", 7, 1).is_ok());
    }

    #[test]
    fn a_silent_socket_is_not_alive() {
        let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        assert!(!is_alive(&silent.local_addr().unwrap().to_string(), 7));
    }
}

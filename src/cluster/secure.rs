//! TLS with certificates of both sides.
//!
//! ```text
//!  timely or a link ◄──► socket pair ◄──► thread cluster-tls ◄──► TLS over TCP ◄──► the peer
//!      (Connection::Encrypted)             (one per connection)
//! ```
//!
//! timely wants sockets that can be cloned, read and written from two threads; a TLS session is one thing with
//! one state. So a thread carries bytes between a socket pair and the session. It holds at most a buffer in
//! each direction: whoever sends faster than the network waits, as they would on the socket itself.
//!
//! Both sides must show a certificate of the authority; the one who connects also wants it to be of the host
//! it connects to. TLS comes before our own handshake, which goes through it unchanged: a certificate says
//! which host, the handshake which process of which generation. Keys are read once, at the start.

use super::handshake::Refusal;
use super::link::now;
use super::sockets::Connection;
use crate::error::{Error, Kind, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

/// Carried at once in each direction, bytes: one record of TLS.
const CARRIED_BYTES: usize = 16 << 10;

/// The certificate of a process, its key, and the authority that every peer's certificate must be of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// PEM file: the own certificate, then those between it and the authority, if any.
    pub certificate: PathBuf,
    /// PEM file: its private key.
    pub key: PathBuf,
    /// PEM file: the authority's certificates.
    pub authority: PathBuf,
}

/// Certificates, read and found usable.
pub(super) struct Encryption {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Encryption {
    /// Reads the files.
    pub(super) fn load(files: &Certificates) -> Result<Encryption> {
        let certificates = certificates(&files.certificate)?;
        let mut authorities = RootCertStore::empty();
        for certificate in self::certificates(&files.authority)? {
            let added = authorities.add(certificate);
            added.map_err(|error| unusable(&files.authority, &error))?;
        }
        let key = || PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unusable(&files.key, &error));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let authorities = Arc::new(authorities);
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&authorities), provider.clone());
        let verifier = verifier
            .build()
            .map_err(|error| unusable(&files.authority, &error))?;
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| unusable(&files.certificate, &error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates.clone(), key()?);
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| unusable(&files.certificate, &error))?
            .with_root_certificates(authorities)
            .with_client_auth_cert(certificates, key()?);
        Ok(Encryption {
            client: Arc::new(client.map_err(|error| unusable(&files.certificate, &error))?),
            server: Arc::new(server.map_err(|error| unusable(&files.certificate, &error))?),
        })
    }

    /// TLS with the process at `host:port`, to which `stream` is connected.
    pub(super) fn connect(
        &self,
        stream: TcpStream,
        address: &str,
        deadline: Instant,
    ) -> std::result::Result<Connection, Refusal> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(|error| insecure(&error))?;
        let session = ClientConnection::new(Arc::clone(&self.client), name);
        let session = session.map_err(|error| insecure(&error))?;
        agree(session.into(), stream, deadline)
    }

    /// TLS with who has connected.
    pub(super) fn listen(
        &self,
        stream: TcpStream,
        deadline: Instant,
    ) -> std::result::Result<Connection, Refusal> {
        let session = ServerConnection::new(Arc::clone(&self.server)).map_err(|error| insecure(&error))?;
        agree(session.into(), stream, deadline)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| unusable(path, &error))?;
    match certificates.is_empty() {
        true => Err(unusable(path, &"it holds no certificate")),
        false => Ok(certificates),
    }
}

fn unusable(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::new(Kind::Configuration, format!("{}: {error}", path.display()))
}

fn insecure(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::Stranger(format!("no TLS: {error}"))
}

/// The handshake of TLS, before the deadline however slowly it goes; then bytes are carried.
fn agree(
    mut session: rustls::Connection,
    mut stream: TcpStream,
    deadline: Instant,
) -> std::result::Result<Connection, Refusal> {
    while session.is_handshaking() || session.wants_write() {
        let left = deadline.saturating_duration_since(now());
        if left.is_zero() {
            return Err(insecure(&"it did not say in time who it is"));
        }
        let step = stream
            .set_read_timeout(Some(left))
            .and_then(|()| stream.set_write_timeout(Some(left)))
            .and_then(|()| match session.wants_write() {
                true => session.write_tls(&mut stream),
                false => match session.read_tls(&mut stream)? {
                    0 => Err(ErrorKind::UnexpectedEof.into()),
                    length => Ok(length),
                },
            });
        match step {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(insecure(&error)),
        }
        if let Err(error) = session.process_new_packets() {
            // The alert tells the peer what is wrong, if it still listens.
            let _ = session.write_tls(&mut stream);
            return Err(insecure(&error));
        }
    }
    let ends = UnixStream::pair().and_then(|(near, far)| {
        stream.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        Ok((near, far))
    });
    let (near, far) = ends.map_err(|error| insecure(&error))?;
    let carry = move || {
        // Both sides see a closed connection; the link that rides on it names the loss.
        if let Err(error) = Carried::new(session, stream, far).carry() {
            tracing::debug!("an encrypted connection has ended: {error}");
        }
    };
    let thread = thread::Builder::new().name("cluster-tls".to_owned()).spawn(carry);
    thread.map_err(|error| insecure(&error))?;
    Ok(Connection::Encrypted(near))
}

/// Bytes on their way between a session and a socket pair.
struct Carried {
    session: rustls::Connection,
    remote: TcpStream,
    local: UnixStream,
    /// Decrypted, not handed on yet.
    arrived: Vec<u8>,
    is_remote_done: bool,
    is_local_done: bool,
}

impl Carried {
    fn new(session: rustls::Connection, remote: TcpStream, local: UnixStream) -> Carried {
        Carried {
            session,
            remote,
            local,
            arrived: Vec::new(),
            is_remote_done: false,
            is_local_done: false,
        }
    }

    /// Carries until both directions are done, or one breaks.
    fn carry(mut self) -> io::Result<()> {
        // What came with the end of the handshake.
        self.take_arrived()?;
        while !self.is_done() {
            let (remote, local) = self.wait()?;
            if remote.contains(PollFlags::OUT) {
                patient(self.session.write_tls(&mut self.remote))?;
            }
            if remote.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                self.read_remote()?;
            }
            if local.contains(PollFlags::OUT)
                && let Some(length) = patient(self.local.write(&self.arrived))?
            {
                self.arrived.drain(..length);
            }
            if local.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                self.read_local()?;
            }
            if self.is_remote_done && self.arrived.is_empty() {
                // It may be shut down already.
                let _ = self.local.shutdown(Shutdown::Write);
            }
        }
        // What the peer has not read yet is still delivered.
        self.remote.shutdown(Shutdown::Write)
    }

    /// Whether both sides have said all, and all of it has been handed on.
    fn is_done(&self) -> bool {
        let is_handed_on = self.arrived.is_empty() && !self.session.wants_write();
        self.is_remote_done && self.is_local_done && is_handed_on
    }

    /// Waits until one of the sockets is ready for what is wanted of it.
    fn wait(&self) -> io::Result<(PollFlags, PollFlags)> {
        let when = |flag: PollFlags, wanted: bool| if wanted { flag } else { PollFlags::empty() };
        let remote = when(PollFlags::IN, self.arrived.is_empty() && !self.is_remote_done)
            | when(PollFlags::OUT, self.session.wants_write());
        let local = when(PollFlags::IN, !self.session.wants_write() && !self.is_local_done)
            | when(PollFlags::OUT, !self.arrived.is_empty());
        // A socket of which nothing is wanted is left out: its hang-up would wake us again and again.
        let mut sockets = Vec::with_capacity(2);
        if !remote.is_empty() {
            sockets.push(PollFd::new(&self.remote, remote));
        }
        if !local.is_empty() {
            sockets.push(PollFd::new(&self.local, local));
        }
        match poll(&mut sockets, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready = sockets.iter().map(PollFd::revents);
        let mut next = |is_asked: bool| match is_asked {
            true => ready.next().unwrap_or(PollFlags::empty()),
            false => PollFlags::empty(),
        };
        Ok((next(!remote.is_empty()), next(!local.is_empty())))
    }

    fn read_remote(&mut self) -> io::Result<()> {
        if self.is_remote_done || !self.arrived.is_empty() {
            return Ok(());
        }
        match patient(self.session.read_tls(&mut self.remote))? {
            None => return Ok(()),
            Some(0) => self.is_remote_done = true,
            Some(_) => {
                let processed = self.session.process_new_packets();
                processed.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            }
        }
        self.take_arrived()
    }

    fn take_arrived(&mut self) -> io::Result<()> {
        let mut buffer = [0; CARRIED_BYTES];
        loop {
            match self.session.reader().read(&mut buffer) {
                // The peer has said that nothing follows.
                Ok(0) => {
                    self.is_remote_done = true;
                    return Ok(());
                }
                Ok(length) => self.arrived.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // Cut off without a word: the local side sees the end, and what it makes of it is its affair.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    self.is_remote_done = true;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn read_local(&mut self) -> io::Result<()> {
        if self.is_local_done || self.session.wants_write() {
            return Ok(());
        }
        let mut buffer = [0; CARRIED_BYTES];
        match patient(self.local.read(&mut buffer))? {
            None => Ok(()),
            Some(0) => {
                self.is_local_done = true;
                self.session.send_close_notify();
                Ok(())
            }
            Some(length) => self.session.writer().write_all(&buffer[..length]),
        }
    }
}

/// None where a socket is not ready after all.
fn patient(done: io::Result<usize>) -> io::Result<Option<usize>> {
    match done {
        Ok(length) => Ok(Some(length)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[path = "secure_tests.rs"]
pub(super) mod tests;

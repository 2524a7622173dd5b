//! Listening and connecting, and a connection as both timely and our own links use it.
//!
//! An address is `host:port`, whatever the system makes of it: a name, IPv4, IPv6 in brackets. A name is looked
//! up at every attempt, so that a host may move while it is waited for.

use super::link::now;
use crate::error::{Error, Kind, Result};
use crate::limits;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use timely::communication::allocator::zero_copy::stream::Stream;

/// One connection between two processes.
#[derive(Debug)]
pub enum Connection {
    /// As it is.
    Plain(TcpStream),
    /// The own end of a pair; a thread carries what passes it over TLS.
    Encrypted(UnixStream),
}

impl Connection {
    /// Reads give up after so long.
    pub(super) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Connection::Plain(stream) => stream.set_read_timeout(timeout),
            Connection::Encrypted(stream) => stream.set_read_timeout(timeout),
        }
    }

    /// Writes give up after so long.
    pub(super) fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Connection::Plain(stream) => stream.set_write_timeout(timeout),
            Connection::Encrypted(stream) => stream.set_write_timeout(timeout),
        }
    }

    /// Whether the other side has not closed it yet, as far as is known without reading anything.
    pub(super) fn is_open(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match rustix::net::recv(self.as_fd(), &mut [0_u8; 1], flags) {
            Ok((0, _)) => false,
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => true,
            Err(_) => false,
        }
    }

    /// A second handle of the same connection.
    pub(super) fn try_clone(&self) -> io::Result<Connection> {
        Ok(match self {
            Connection::Plain(stream) => Connection::Plain(stream.try_clone()?),
            Connection::Encrypted(stream) => Connection::Encrypted(stream.try_clone()?),
        })
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Connection::Plain(stream) => stream.as_fd(),
            Connection::Encrypted(stream) => stream.as_fd(),
        }
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Connection::Plain(stream) => stream.read(buffer),
            Connection::Encrypted(stream) => stream.read(buffer),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Connection::Plain(stream) => stream.write(bytes),
            Connection::Encrypted(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // sockets keep nothing back
    }
}

/// What timely wants of a socket.
impl Stream for Connection {
    fn try_clone(&self) -> io::Result<Self> {
        Connection::try_clone(self)
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match self {
            Connection::Plain(stream) => stream.set_nonblocking(nonblocking),
            Connection::Encrypted(stream) => stream.set_nonblocking(nonblocking),
        }
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Connection::Plain(stream) => stream.shutdown(how),
            Connection::Encrypted(stream) => stream.shutdown(how),
        }
    }
}

/// Opens a listening socket at an address. One that is still in use, by an incarnation that is about to end, is
/// tried again until the deadline.
pub(super) fn open(address: &str, deadline: Instant) -> Result<TcpListener> {
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && now() < deadline => {
                std::thread::park_timeout(limits::RECONNECT);
            }
            Err(error) => {
                let message = format!("cannot listen on {address}: {error}; is it an address of this host?");
                return Err(Error::new(Kind::Configuration, message));
            }
        }
    }
}

/// Connects to the first of a name's addresses that answers.
pub(super) fn connect(address: &str, timeout: Duration) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for candidate in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&candidate, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Sends at once, and gives up on what nobody acknowledges for so long.
pub(super) fn set_up(stream: &TcpStream, silence: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let milliseconds = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(stream, milliseconds)?;
    Ok(())
}

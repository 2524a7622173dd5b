//! Listening, connecting, and putting a cluster together.

use super::{Cluster, Settings};
use crate::error::{Error, Result};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;
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

    /// A second handle of the same connection.
    pub(super) fn try_clone(&self) -> io::Result<Connection> {
        Ok(match self {
            Connection::Plain(stream) => Connection::Plain(stream.try_clone()?),
            Connection::Encrypted(stream) => Connection::Encrypted(stream.try_clone()?),
        })
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

/// Joins the cluster.
pub(super) fn assemble(_settings: Settings) -> Result<Cluster> {
    Err(Error::internal("clusters cannot be put together yet"))
}

//! One connection of any kind, without waiting.

use super::sys::{self, IcmpError};
#[cfg(feature = "tls")]
use super::tls::{Tls, TlsConnection};
use crate::{ConnectError, ReadError, SystemError, Transport};
use bytes::{Buf, Bytes};
use rustix::event::epoll::EventFlags;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// Where a connection goes and how.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) transport: Transport,
    pub(super) destination: SocketAddr,
    pub(super) bind: Option<SocketAddr>,
    pub(super) bind_interface: Option<Arc<str>>,
    pub(super) mark: u32,
}

#[derive(Debug)]
pub(super) enum Connection {
    Tcp {
        socket: Socket,
        /// What could not be sent yet.
        output: VecDeque<Bytes>,
    },
    #[cfg(feature = "tls")]
    Tls(Box<TlsConnection>),
    Datagram(Socket),
}

impl Connection {
    /// Opens it; whether it stands already.
    pub(super) fn open(
        target: &Target,
        #[cfg(feature = "tls")] tls: &Tls,
    ) -> Result<(Self, bool), ConnectError> {
        let v6 = target.destination.is_ipv6();
        let (kind, protocol) = match &target.transport {
            Transport::Tcp | Transport::Tls(_) => (Type::STREAM, Protocol::TCP),
            Transport::Udp => (Type::DGRAM, Protocol::UDP),
            Transport::Icmp if v6 => (Type::DGRAM, Protocol::ICMPV6),
            Transport::Icmp => (Type::DGRAM, Protocol::ICMPV4),
        };
        let socket = prepare(target, kind, protocol).map_err(|e| ConnectError::setup(&e))?;
        if kind == Type::DGRAM {
            sys::receive_icmp_errors(&socket, v6).map_err(|e| ConnectError::setup(&e))?;
        }
        // Of a ping socket the port means nothing, but the kernel wants it to be one or the other.
        let stands = match socket.connect(&target.destination.into()) {
            Ok(()) => true,
            Err(error) if is_in_progress(&error) => false,
            Err(error) => return Err(ConnectError::immediate(&error)),
        };
        match &target.transport {
            Transport::Udp | Transport::Icmp => Ok((Self::Datagram(socket), true)),
            #[cfg(feature = "tls")]
            Transport::Tls(options) => {
                let connection = tls.connect(socket, options, target.destination, stands)?;
                Ok((Self::Tls(Box::new(connection)), false))
            }
            #[cfg(not(feature = "tls"))]
            Transport::Tls(_) => Err(ConnectError::setup(&io::ErrorKind::Unsupported.into())),
            Transport::Tcp => {
                let output = VecDeque::new();
                Ok((Self::Tcp { socket, output }, stands))
            }
        }
    }

    pub(super) fn is_datagram(&self) -> bool {
        matches!(self, Self::Datagram(_))
    }

    /// What it waits for until it stands.
    pub(super) fn wants_to_connect(&self) -> EventFlags {
        match self {
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.wants_to_connect(),
            _ => EventFlags::OUT,
        }
    }

    /// The connection has made progress. `None`: it needs more.
    pub(super) fn finish_connect(&mut self, flags: EventFlags) -> Option<Result<(), ConnectError>> {
        match self {
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.finish_connect(flags),
            Self::Tcp { socket, .. } | Self::Datagram(socket) => connected(socket, flags)
                .map_or_else(|error| Some(Err(error)), |it| it.then_some(Ok(()))),
        }
    }

    /// Sends as much as is possible now, and keeps the rest.
    pub(super) fn send(&mut self, data: Bytes) -> io::Result<()> {
        match self {
            Self::Tcp { output, .. } => {
                output.push_back(data);
                self.flush()
            }
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.send(&data),
            // One datagram, all of it or nothing; a full buffer is as good as a lost packet.
            Self::Datagram(socket) => match socket.send_with_flags(&data, libc::MSG_NOSIGNAL) {
                Err(error) if !is_blocked(&error) => Err(error),
                _ => Ok(()),
            },
        }
    }

    /// Sends what was kept, as far as is possible now.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Datagram(_) => Ok(()),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.flush(),
            Self::Tcp { socket, output } => {
                while let Some(data) = output.front_mut() {
                    match socket.send_with_flags(data, libc::MSG_NOSIGNAL) {
                        Ok(sent) => data.advance(sent),
                        Err(error) if is_blocked(&error) => return Ok(()),
                        Err(error) => return Err(error),
                    }
                    if data.is_empty() {
                        output.pop_front();
                    }
                }
                Ok(())
            }
        }
    }

    pub(super) fn wants_to_send(&self) -> bool {
        match self {
            Self::Tcp { output, .. } => !output.is_empty(),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.wants_to_send(),
            Self::Datagram(_) => false,
        }
    }

    /// What has come, once. `None`: nothing yet. Of a stream, 0 is the end.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, ReadError> {
        match self {
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.receive(buffer),
            Self::Tcp { socket, .. } => match (&*socket).read(buffer) {
                Ok(length) => Ok(Some(length)),
                Err(error) if is_blocked(&error) => Ok(None),
                Err(error) => Err(ReadError::Read((&error).into())),
            },
            Self::Datagram(socket) => match (&*socket).read(buffer) {
                Ok(length) => Ok(Some(length)),
                // An error may wait in the queue alone.
                Err(error) => match sys::next_icmp_error(&*socket) {
                    Some(IcmpError::Unreachable) => Err(ReadError::Unreachable),
                    Some(IcmpError::Other) => Err(ReadError::Icmp),
                    Some(IcmpError::Local(errno)) => {
                        let error = io::Error::from_raw_os_error(errno);
                        Err(ReadError::Read(SystemError::from(&error)))
                    }
                    None if is_blocked(&error) => Ok(None),
                    None => Err(ReadError::Read((&error).into())),
                },
            },
        }
    }

    /// Whether there is something to receive that the poll does not know of.
    pub(super) fn has_more(&self) -> bool {
        match self {
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.has_more(),
            _ => false,
        }
    }

    /// The last that is said before it is dropped.
    pub(super) fn finish(&mut self) {
        #[cfg(feature = "tls")]
        if let Self::Tls(tls) = self {
            tls.finish();
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp { socket, .. } | Self::Datagram(socket) => socket.as_fd(),
            #[cfg(feature = "tls")]
            Self::Tls(tls) => tls.as_fd(),
        }
    }
}

/// Whether a TCP connection in progress stands now.
pub(super) fn connected(socket: &Socket, flags: EventFlags) -> Result<bool, ConnectError> {
    if !flags.intersects(EventFlags::OUT | EventFlags::ERR | EventFlags::HUP) {
        return Ok(false);
    }
    match socket.take_error() {
        Ok(None) => Ok(true),
        Ok(Some(error)) | Err(error) => Err(ConnectError::deferred(&error)),
    }
}

pub(super) fn is_blocked(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

fn is_in_progress(error: &io::Error) -> bool {
    is_blocked(error) || error.raw_os_error() == Some(libc::EINPROGRESS)
}

fn prepare(target: &Target, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let domain = Domain::for_address(target.destination);
    let socket = Socket::new_raw(domain, kind.nonblocking().cloexec(), Some(protocol))?;
    if target.mark != 0 {
        socket.set_mark(target.mark)?;
    }
    if let Some(interface) = &target.bind_interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    if let Some(mut bind) = target.bind {
        if matches!(target.transport, Transport::Icmp) {
            bind.set_port(0);
        }
        socket.bind(&bind.into())?;
    }
    Ok(socket)
}

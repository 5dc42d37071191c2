//! One netlink socket: requests with their answers, dumps, and attributes taken apart.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::SocketAddr;

/// A socket to one of the kernel's netlink families.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: netlink_sys::Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    pub(crate) fn open(family: libc::c_int) -> io::Result<Self> {
        let mut socket = netlink_sys::Socket::new(family as isize)?;
        socket.bind_auto()?;
        Ok(Self::new(socket))
    }

    /// A non-blocking socket that receives what happens in these groups (a bit mask).
    pub(crate) fn subscribe(family: libc::c_int, groups: u32) -> io::Result<Self> {
        let mut socket = netlink_sys::Socket::new(family as isize)?;
        // The system's limit may be lower; more room only makes overruns rarer.
        let _ = socket.set_rx_buf_sz(EVENT_BUFFER);
        socket.bind(&SocketAddr::new(0, groups))?;
        socket.set_non_blocking(true)?;
        Ok(Self::new(socket))
    }

    fn new(socket: netlink_sys::Socket) -> Self {
        Self {
            socket,
            sequence: 0,
            buffer: Vec::with_capacity(RECEIVE_BUFFER),
        }
    }

    /// A number for the next message; answers carry it too.
    pub(crate) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    pub(crate) fn send(&self, message: &[u8]) -> io::Result<()> {
        self.socket
            .send_to(message, &SocketAddr::new(0, 0), 0)
            .map(drop)
    }

    /// The next datagram: one or more messages.
    pub(crate) fn receive(&mut self, wait: bool) -> io::Result<&[u8]> {
        self.buffer.clear();
        let flags = if wait { 0 } else { libc::MSG_DONTWAIT };
        loop {
            match self.socket.recv(&mut self.buffer, flags) {
                Ok(_) => return Ok(&self.buffer),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a routing request and waits for its acknowledgement.
    pub(super) fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let sequence = self.transmit(message, NLM_F_ACK | flags)?;
        loop {
            for message in messages(self.receive(true)?) {
                if message.sequence == sequence && message.kind == NLMSG_ERROR {
                    return message.status();
                }
            }
        }
    }

    /// Asks for all objects of a kind.
    ///
    /// The kernel says when a table changed while it was being read; then it is read again.
    pub(super) fn dump(
        &mut self,
        request: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut found = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            found.clear();
            if self.dump_once(request.clone(), &mut found)? {
                break;
            }
        }
        Ok(found)
    }

    /// `false` if the answer is inconsistent.
    fn dump_once(
        &mut self,
        request: RouteNetlinkMessage,
        found: &mut Vec<RouteNetlinkMessage>,
    ) -> io::Result<bool> {
        let sequence = self.transmit(request, NLM_F_DUMP)?;
        let mut consistent = true;
        loop {
            for message in messages(self.receive(true)?) {
                if message.sequence != sequence {
                    continue;
                }
                consistent &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE => return message.status().map(|()| consistent),
                    NLMSG_ERROR => return message.status().map(|()| consistent),
                    _ => found.extend(decode(message.bytes).map(|(message, _)| message)),
                }
            }
        }
    }

    fn transmit(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<u32> {
        let sequence = self.next_sequence();
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = sequence;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.send(&bytes)?;
        Ok(sequence)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A message that has been delimited, not yet understood.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    /// With the header.
    pub(crate) bytes: &'a [u8],
}

impl Message<'_> {
    /// What follows the header.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes[HEADER..]
    }

    /// The result that an acknowledgement, an error or the end of a dump carries.
    pub(crate) fn status(&self) -> io::Result<()> {
        let code = self
            .payload()
            .first_chunk()
            .map_or(0, |code| i32::from_ne_bytes(*code));
        // Errors are negative; the end of a dump may carry a positive length.
        if code < 0 {
            return Err(io::Error::from_raw_os_error(code.saturating_neg()));
        }
        Ok(())
    }
}

/// The messages of a datagram. Stops at the first that is not whole.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = datagram.first_chunk::<HEADER>()?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        if length < HEADER || length > datagram.len() {
            return None;
        }
        let message = Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            bytes: &datagram[..length],
        };
        datagram = datagram.get(align(length)..).unwrap_or_default();
        Some(message)
    })
}

/// The routing message in these bytes and its header's flags. `None` for what the decoder does not know: a
/// newer kernel's message must not spoil the rest of a dump.
pub(super) fn decode(bytes: &[u8]) -> Option<(RouteNetlinkMessage, u16)> {
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes).ok()?;
    match message.payload {
        NetlinkPayload::InnerMessage(inner) => Some((inner, message.header.flags)),
        _ => None,
    }
}

/// An attribute: number and value.
pub(crate) type Nla<'a> = (u16, &'a [u8]);

/// The attributes in these bytes. Stops at the first that is not whole.
pub(crate) fn nlas(mut bytes: &[u8]) -> impl Iterator<Item = Nla<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & !NLA_FLAGS;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(align(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Netlink aligns messages and attributes to four bytes.
pub(crate) fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

pub(crate) const HEADER: usize = 16;
/// The nested and byte order bits of an attribute's number.
const NLA_FLAGS: u16 = 0xc000;
/// The kernel cuts dumps into datagrams of at most 32 KiB.
const RECEIVE_BUFFER: usize = 64 * 1024;
const EVENT_BUFFER: libc::c_int = 4 * 1024 * 1024;
const DUMP_ATTEMPTS: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_cut_into_its_messages() {
        let mut bytes = Vec::new();
        for (length, kind) in [(18u32, 5u16), (16, 6)] {
            let start = bytes.len();
            bytes.extend_from_slice(&length.to_ne_bytes());
            bytes.extend_from_slice(&kind.to_ne_bytes());
            bytes.extend_from_slice(&[0; 10]);
            bytes.resize(start + align(length as usize), 7);
        }
        bytes.extend_from_slice(&[200, 0, 0]);
        let kinds: Vec<_> = messages(&bytes)
            .map(|m| (m.kind, m.payload().len()))
            .collect();
        assert_eq!(kinds, [(5, 2), (6, 0)]);
    }

    #[test]
    fn broken_lengths_end_the_iteration() {
        assert_eq!(messages(&[0xff; 40]).count(), 0);
        assert_eq!(messages(&[0; 40]).count(), 0);
        assert_eq!(nlas(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(nlas(&[9, 0, 1, 0, 1, 2, 3, 4]).count(), 0);
        assert_eq!(
            nlas(&[5, 0, 1, 0x80, 9]).collect::<Vec<_>>(),
            [(1, &[9][..])]
        );
    }
}

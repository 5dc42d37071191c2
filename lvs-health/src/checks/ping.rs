//! `PING_CHECK`: an ICMP echo request is answered.

use crate::{Attempt, Checker, Failure, Next, Outcome, Start, Transport};
use bytes::{BufMut, BytesMut};

/// Up when an echo request (RFC 792, RFC 4443 section 4.1) of 136 bytes is answered with its sequence number.
///
/// The first message that comes decides. It needs a socket that the host must allow: on Linux a group of the process
/// must be within the sysctl `net.ipv4.ping_group_range`, also for IPv6.
#[doc(alias = "PING_CHECK")]
#[derive(Debug, Clone, Default)]
pub struct PingCheck {
    sequence: u16,
    is_ipv6: bool,
}

impl PingCheck {
    /// The first request has sequence number 1.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Checker for PingCheck {
    fn name(&self) -> &'static str {
        "PING_CHECK"
    }

    fn identity(&self) -> Option<String> {
        Some(String::new())
    }

    fn begin(&mut self, attempt: &Attempt) -> Start {
        self.sequence = self.sequence.wrapping_add(1);
        self.is_ipv6 = attempt.destination.is_ipv6();
        Start::Connect(Transport::Icmp)
    }

    fn handle_connected(&mut self) -> Next {
        let mut request = BytesMut::with_capacity(8 + PAYLOAD);
        request.put_u8(if self.is_ipv6 { 128 } else { 8 });
        // Code, checksum and identifier; the latter two are the kernel's to fill in.
        request.put_bytes(0, 5);
        request.put_u16(self.sequence);
        let text = TEXT.iter().copied().cycle();
        request.extend(text.take(PAYLOAD));
        Next::Send(request.freeze())
    }

    fn handle_data(&mut self, data: &[u8]) -> Next {
        let reply = if self.is_ipv6 { 129 } else { 0 };
        Next::Done(match *data {
            [kind, 0, _, _, _, _, high, low, ..]
                if kind == reply && u16::from_be_bytes([high, low]) == self.sequence =>
            {
                Outcome::Up
            }
            _ => Outcome::Down(Failure::PingMismatch),
        })
    }
}

const TEXT: &[u8] = b"keepalived check - ";
const PAYLOAD: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn request(check: &mut PingCheck, to: &str) -> Vec<u8> {
        let start = check.begin(&Attempt::new(to.parse().unwrap(), 0));
        assert_eq!(start, Start::Connect(Transport::Icmp));
        match check.handle_connected() {
            Next::Send(data) => data.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn requests_count_up_and_carry_keepalived_s_text() {
        let mut check = PingCheck::new();
        let first = request(&mut check, "192.0.2.1:0");
        assert_eq!(first.len(), 136);
        assert_eq!(first[..8], [8, 0, 0, 0, 0, 0, 0, 1]);
        let text = "keepalived check - ".repeat(6) + "keepalived che";
        assert_eq!(first[8..], *text.as_bytes());
        assert_eq!(
            request(&mut check, "192.0.2.1:0")[..8],
            [8, 0, 0, 0, 0, 0, 0, 2]
        );
        let mut check = PingCheck::new();
        assert_eq!(request(&mut check, "[2001:db8::1]:0")[0], 128);
    }

    #[test]
    fn the_first_message_decides() {
        let mut check = PingCheck::new();
        request(&mut check, "192.0.2.1:0");
        let up = Next::Done(Outcome::Up);
        let down = Next::Done(Outcome::Down(Failure::PingMismatch));
        assert_eq!(check.handle_data(&[0, 0, 9, 9, 5, 5, 0, 1, 77]), up);
        assert_eq!(
            check.handle_data(&[0, 0, 9, 9, 5, 5, 0, 2]),
            down,
            "a late reply"
        );
        assert_eq!(check.handle_data(&[3, 1, 9, 9, 5, 5, 0, 1]), down);
        assert_eq!(check.handle_data(&[129, 0, 9, 9, 5, 5, 0, 1]), down);
        assert_eq!(check.handle_data(&[0, 0, 9]), down);
        request(&mut check, "[::1]:0");
        assert_eq!(check.handle_data(&[129, 0, 9, 9, 5, 5, 0, 2]), up);
    }
}

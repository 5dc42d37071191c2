//! What FTP control connections say of data connections (RFC 959, RFC 2428): the words, without state.
//!
//! Behind address translation a balancer has to read them. It asks the table to expect the data connection
//! ([`Worker::expect_passive`](crate::Worker::expect_passive), [`Worker::expect_active`](crate::Worker::expect_active)),
//! and tells clients an address that they can reach in place of the server's.
//!
//! Each function reads the payload of one TCP segment; what is split between two is not found, as in the kernel.
//! Letters may be of either case.
//!
//! ```
//! use lvs_sched::{Family, ftp::{Announcement, Command, Passive}};
//!
//! assert_eq!(Command::parse(b"PASV\r\n", Family::Inet), Some(Command::Passive(Passive::Plain)));
//! let reply = b"227 Entering Passive Mode (10,0,0,11,195,80).\r\n";
//! let announced = Announcement::parse(reply, Passive::Plain).unwrap();
//! assert_eq!(announced.addr, Some("10.0.0.11".parse()?));
//! assert_eq!((announced.port, announced.at), (50_000, 27..43));
//! let told = Passive::Plain.text("203.0.113.10:50000".parse()?);
//! assert_eq!(told.as_deref(), Some("203,0,113,10,195,80"));
//! # Ok::<(), std::net::AddrParseError>(())
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use crate::Family;

/// What a client says of its next data connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// The server shall wait for it (`PASV`, `EPSV`).
    Passive(Passive),
    /// The client waits for it here (`PORT`, `EPRT`).
    Active(SocketAddr),
}

/// How a client asks the server to wait for a data connection, which is how the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passive {
    /// `PASV`, answered by 227 with an IPv4 address and a port.
    Plain,
    /// `EPSV`, answered by 229 with a port of the same address.
    Extended,
}

/// Where a server says that it waits for a data connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Its address; `None` if it is that of the control connection.
    pub addr: Option<IpAddr>,
    /// Its port, never 0.
    pub port: u16,
    /// The bytes of the payload that say so, which [`Passive::text`] replaces.
    pub at: Range<usize>,
}

impl Command {
    /// Finds a command in a client's segment, on a control connection of this family. `PORT` and `EPRT` stand at the
    /// beginning, `PASV` and `EPSV` anywhere; `PASV` and `PORT` are of IPv4 alone, and `EPSV` and `EPRT` with another
    /// family than the connection's are none.
    pub fn parse(payload: &[u8], family: Family) -> Option<Self> {
        let is_ipv4 = family == Family::Inet;
        if let Some(rest) = after_word(payload, b"PORT ").filter(|_| is_ipv4) {
            let (addr, port, end) = tuple(rest)?;
            return ends_line(&rest[end..]).then(|| Self::active(addr.into(), port))?;
        }
        if let Some(rest) = after_word(payload, b"EPRT ") {
            return extended_port(rest, family);
        }
        let starts = 0..payload.len().saturating_sub(4);
        starts.into_iter().find_map(|at| {
            if let Some(rest) = after_word(&payload[at..], b"PASV").filter(|_| is_ipv4) {
                return rest
                    .starts_with(b"\r\n")
                    .then_some(Self::Passive(Passive::Plain));
            }
            let rest = after_word(&payload[at..], b"EPSV")?;
            let wants_it = match rest {
                [b'\r', ..] => true,
                [b' ', number, b'\r', ..] => *number == number_of(family),
                _ => false,
            };
            wants_it.then_some(Self::Passive(Passive::Extended))
        })
    }

    fn active(addr: IpAddr, port: u16) -> Option<Self> {
        (port != 0).then(|| Self::Active(SocketAddr::new(addr, port)))
    }
}

impl Passive {
    /// What a client is told in place of an announced address; `None` if this answer has no words for it.
    pub fn text(self, virtual_addr: SocketAddr) -> Option<String> {
        let port = virtual_addr.port();
        match (self, virtual_addr.ip()) {
            (Self::Plain, IpAddr::V4(vip)) => {
                let [a, b, c, d] = vip.octets();
                let [high, low] = port.to_be_bytes();
                Some(format!("{a},{b},{c},{d},{high},{low}"))
            }
            (Self::Plain, IpAddr::V6(_)) => None,
            (Self::Extended, _) => Some(format!("|||{port}|")),
        }
    }
}

impl Announcement {
    /// Finds where the server waits, in a segment that begins with its answer.
    pub fn parse(payload: &[u8], asked: Passive) -> Option<Self> {
        match asked {
            Passive::Plain => plain(payload),
            Passive::Extended => extended(payload),
        }
    }
}

/// `227 ` and any text that has six numbers in it, in parentheses or not.
fn plain(payload: &[u8]) -> Option<Announcement> {
    let line = first_line(payload);
    let text = after_word(line, b"227 ")?;
    let begin = line.len() - text.len();
    let is_digit = |at: usize| line.get(at).is_some_and(u8::is_ascii_digit);
    let starts = (begin..line.len()).filter(|&at| is_digit(at) && !is_digit(at - 1));
    let mut found = starts.filter_map(|at| Some((at, tuple(&line[at..])?)));
    let (at, (addr, port, len)) = found.next()?;
    (port != 0).then(|| Announcement {
        addr: Some(addr.into()),
        port,
        at: at..at + len,
    })
}

/// `229 `, any text, and `(|||port|)`, where `|` is any delimiter. Family and address, if they are there, are those of the
/// control connection.
fn extended(payload: &[u8]) -> Option<Announcement> {
    let line = first_line(payload);
    let text = after_word(line, b"229 ")?;
    let begin = line.len() - text.len();
    let open = begin + text.iter().position(|&byte| byte == b'(')? + 1;
    let inside = &line[open..];
    let inside = &inside[..inside.iter().position(|&byte| byte == b')')?];
    let (_, _, port) = fields(inside)?;
    Some(Announcement {
        addr: None,
        port: port_number(port)?,
        at: open..open + inside.len(),
    })
}

/// `<d>family<d>address<d>port<d>` and the end of the line.
fn extended_port(text: &[u8], family: Family) -> Option<Command> {
    let text = first_line(text);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    let (number, addr, port) = fields(text)?;
    if number != [number_of(family)] {
        return None;
    }
    let addr = std::str::from_utf8(addr).ok()?;
    let addr = match family {
        Family::Inet => addr.parse::<Ipv4Addr>().ok()?.into(),
        Family::Inet6 => addr.parse::<Ipv6Addr>().ok()?.into(),
    };
    Command::active(addr, port_number(port)?)
}

/// The three fields between four equal delimiters, of which the last one ends the text.
fn fields(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (delimiter, rest) = text.split_first()?;
    if !delimiter.is_ascii_graphic() || delimiter.is_ascii_digit() {
        return None;
    }
    let mut parts = rest.split(|byte| byte == delimiter);
    let fields = (parts.next()?, parts.next()?, parts.next()?);
    (parts.next()?.is_empty() && parts.next().is_none()).then_some(fields)
}

/// A text that is nothing but a port, not 0.
fn port_number(text: &[u8]) -> Option<u16> {
    let (number, len) = decimal(text)?;
    let is_whole = len == text.len() && number != 0;
    u16::try_from(number).ok().filter(|_| is_whole)
}

/// `h1,h2,h3,h4,p1,p2`: address, port and the length of the text.
fn tuple(text: &[u8]) -> Option<(Ipv4Addr, u16, usize)> {
    let mut numbers = [0; 6];
    let mut at = 0;
    for (place, number) in numbers.iter_mut().enumerate() {
        if place > 0 {
            text.get(at).filter(|&&byte| byte == b',')?;
            at += 1;
        }
        let (value, len) = decimal(&text[at..])?;
        *number = u8::try_from(value).ok()?;
        at += len;
    }
    let [a, b, c, d, high, low] = numbers;
    Some((
        Ipv4Addr::new(a, b, c, d),
        u16::from_be_bytes([high, low]),
        at,
    ))
}

/// A number of one to five digits, and how many they are.
fn decimal(text: &[u8]) -> Option<(u32, usize)> {
    let len = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if len == 0 || len > 5 {
        return None;
    }
    let digits = text[..len].iter();
    let value = digits.fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
    Some((value, len))
}

fn ends_line(text: &[u8]) -> bool {
    text.starts_with(b"\r") || text.starts_with(b"\n")
}

fn first_line(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|&byte| byte == b'\n');
    &text[..end.unwrap_or(text.len())]
}

fn after_word<'a>(text: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = text.split_at_checked(word.len())?;
    start.eq_ignore_ascii_case(word).then_some(rest)
}

/// The family's number in `EPRT` and `EPSV`.
const fn number_of(family: Family) -> u8 {
    match family {
        Family::Inet => b'1',
        Family::Inet6 => b'2',
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLAIN: Option<Command> = Some(Command::Passive(Passive::Plain));
    const EXTENDED: Option<Command> = Some(Command::Passive(Passive::Extended));

    fn v4(text: &str) -> Option<Command> {
        Command::parse(text.as_bytes(), Family::Inet)
    }

    fn v6(text: &str) -> Option<Command> {
        Command::parse(text.as_bytes(), Family::Inet6)
    }

    fn active(addr: &str) -> Option<Command> {
        Some(Command::Active(addr.parse().unwrap()))
    }

    #[test]
    fn a_client_asks_the_server_to_wait() {
        assert_eq!(v4("PASV\r\n"), PLAIN);
        assert_eq!(v4("pAsV\r\n"), PLAIN);
        assert_eq!(v4("TYPE I\r\nPASV\r\n"), PLAIN, "anywhere");
        assert_eq!(v4("PASV"), None, "not its end");
        assert_eq!(v4("PASV now\r\n"), None);
        assert_eq!(v6("PASV\r\n"), None, "of IPv4 alone");
        assert_eq!(v4("EPSV\r\n"), EXTENDED);
        assert_eq!(v6("epsv\r\n"), EXTENDED);
        assert_eq!((v4("EPSV 1\r\n"), v4("EPSV 2\r\n")), (EXTENDED, None));
        assert_eq!((v6("EPSV 2\r\n"), v6("EPSV 1\r\n")), (EXTENDED, None));
        assert_eq!(v4("EPSV ALL\r\n"), None, "it asks for nothing yet");
    }

    #[test]
    fn a_client_waits_itself() {
        let announced = active("198.51.100.7:50000");
        assert_eq!(v4("PORT 198,51,100,7,195,80\r\n"), announced);
        assert_eq!(v4("port 198,51,100,7,195,80\n"), announced);
        assert_eq!(v4("NOOP\r\nPORT 198,51,100,7,195,80\r\n"), None);
        assert_eq!(v6("PORT 198,51,100,7,195,80\r\n"), None);
        for wrong in [
            "PORT 198,51,100,7,195\r\n",
            "PORT 198,51,100,7,195,80,1\r\n",
            "PORT 198,51,100,7,195,256\r\n",
            "PORT 198.51.100.7,195,80\r\n",
            "PORT 198,51,100,7,0,0\r\n",
            "PORT 198,51,100,7,195,80",
            "PORT ,,,,,\r\n",
            "PORT 1,2,3,4,5\r\n",
            "PORT 123456\r\n",
        ] {
            assert_eq!(v4(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_client_waits_itself_in_both_families() {
        let announced = active("198.51.100.7:50000");
        assert_eq!(v4("EPRT |1|198.51.100.7|50000|\r\n"), announced);
        assert_eq!(v4("eprt !1!198.51.100.7!50000!\r\n"), announced);
        let announced = active("[2001:db8::7]:50000");
        assert_eq!(v6("EPRT |2|2001:db8::7|50000|\r\n"), announced);
        for wrong in [
            "EPRT |1|198.51.100.7|50000|\r\n",
            "EPRT |2|198.51.100.7|50000|\r\n",
            "EPRT |2|2001:db8::7|0|\r\n",
            "EPRT |2|2001:db8::7|65536|\r\n",
            "EPRT |2|2001:db8::7|50000\r\n",
            "EPRT |2|2001:db8::7|50000|x\r\n",
            "EPRT |2|2001:db8::7|5000x|\r\n",
            "EPRT 2222\r\n",
            "EPRT \r\n",
        ] {
            assert_eq!(v6(wrong), None, "{wrong}");
        }
    }

    fn said(payload: &str, asked: Passive) -> Option<(Option<IpAddr>, u16, &str)> {
        let found = Announcement::parse(payload.as_bytes(), asked)?;
        Some((found.addr, found.port, &payload[found.at]))
    }

    #[test]
    fn a_server_says_where_it_waits() {
        let addr = Some("10.0.0.11".parse().unwrap());
        let text = "10,0,0,11,195,80";
        for reply in [
            "227 Entering Passive Mode (10,0,0,11,195,80).\r\n",
            "227 Entering Passive Mode 10,0,0,11,195,80\r\n",
            "227 =10,0,0,11,195,80\r\n",
            "227 On 2 channels: 10,0,0,11,195,80",
        ] {
            assert_eq!(
                said(reply, Passive::Plain),
                Some((addr, 50_000, text)),
                "{reply}"
            );
        }
        for wrong in [
            "226 Entering Passive Mode (10,0,0,11,195,80).\r\n",
            "227 Entering Passive Mode (10,0,0,11,0,0).\r\n",
            "227 Entering Passive Mode (10,0,0,11,195).\r\n",
            "227 Entering Passive Mode\r\n(10,0,0,11,195,80).\r\n",
            "227-10,0,0,11,195,80\r\n",
            " 227 (10,0,0,11,195,80)\r\n",
            "229 (|||50000|)\r\n",
            "227",
            "",
        ] {
            assert_eq!(said(wrong, Passive::Plain), None, "{wrong}");
        }
    }

    #[test]
    fn a_server_says_its_port() {
        for (reply, text) in [
            (
                "229 Entering Extended Passive Mode (|||50000|)\r\n",
                "|||50000|",
            ),
            ("229 x (!!!50000!).\r\n", "!!!50000!"),
            ("229 (|1|10.0.0.11|50000|)\r\n", "|1|10.0.0.11|50000|"),
        ] {
            assert_eq!(
                said(reply, Passive::Extended),
                Some((None, 50_000, text)),
                "{reply}"
            );
        }
        for wrong in [
            "229 Entering Extended Passive Mode |||50000|\r\n",
            "229 (|||50000)\r\n",
            "229 (|||500 00|)\r\n",
            "229 (|||0|)\r\n",
            "229 (|||70000|)\r\n",
            "229 (|||50000|\r\n)",
            "229 ()\r\n",
            "227 (10,0,0,11,195,80)\r\n",
        ] {
            assert_eq!(said(wrong, Passive::Extended), None, "{wrong}");
        }
    }

    #[test]
    fn clients_are_told_the_service_s_address() {
        let v4 = "203.0.113.10:513".parse().unwrap();
        let v6 = "[2001:db8::10]:513".parse().unwrap();
        assert_eq!(Passive::Plain.text(v4).unwrap(), "203,0,113,10,2,1");
        assert_eq!(Passive::Plain.text(v6), None);
        assert_eq!(Passive::Extended.text(v4).unwrap(), "|||513|");
        assert_eq!(Passive::Extended.text(v6).unwrap(), "|||513|");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..60),
            text in "(PORT |EPRT |PASV|EPSV |227 |229 )?[-|0-9,(). \r\n]{0,40}",
        ) {
            for payload in [&bytes[..], text.as_bytes()] {
                for family in [Family::Inet, Family::Inet6] {
                    let _ = Command::parse(payload, family);
                }
                for asked in [Passive::Plain, Passive::Extended] {
                    if let Some(found) = Announcement::parse(payload, asked) {
                        prop_assert!(found.port != 0 && payload.get(found.at).is_some());
                    }
                }
            }
        }

        #[test]
        fn what_is_told_is_read_again(addr: [u8; 4], port in 1u16..) {
            let addr = SocketAddr::from((addr, port));
            for (asked, code) in [(Passive::Plain, 227), (Passive::Extended, 229)] {
                let reply = format!("{code} ({})\r\n", asked.text(addr).unwrap());
                let found = Announcement::parse(reply.as_bytes(), asked).unwrap();
                prop_assert_eq!(found.port, port);
                prop_assert!(found.addr.is_none_or(|ip| ip == addr.ip()));
            }
        }
    }
}

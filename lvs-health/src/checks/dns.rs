//! `DNS_CHECK`: one query, one reply.

use crate::{Attempt, Checker, Failure, Next, Outcome, Start, Timing, Transport};
use bytes::{BufMut, Bytes, BytesMut};
use std::error::Error;
use std::fmt;
use std::str::FromStr;

/// Up when the server answers a query with response code NOERROR, whatever the answer is.
///
/// The query has recursion desired and no EDNS (RFC 1035 section 4). What is too short, has another id or is no response
/// is not for this check: it waits on.
#[doc(alias = "DNS_CHECK")]
#[derive(Debug, Clone)]
pub struct DnsCheck {
    /// The question, with an id of 0.
    query: BytesMut,
    id: u16,
}

impl DnsCheck {
    /// Asks for the records of a type of a name. The final dot may be left out; an empty name or `.` is the root.
    ///
    /// # Errors
    ///
    /// A label is empty or longer than 63 bytes, or the name is longer than 255 bytes on the wire (RFC 1035 section
    /// 2.3.4).
    pub fn new(name: &str, kind: DnsType) -> Result<Self, InvalidName> {
        let mut query = BytesMut::with_capacity(17 + name.len() + 1);
        query.put_slice(&[0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        let labels = name.strip_suffix('.').unwrap_or(name);
        if !labels.is_empty() {
            for label in labels.split('.') {
                let length = u8::try_from(label.len()).ok();
                let length = length.filter(|length| (1..=63).contains(length));
                query.put_u8(length.ok_or(InvalidName)?);
                query.put_slice(label.as_bytes());
            }
        }
        query.put_u8(0);
        if query.len() - HEADER > 255 {
            return Err(InvalidName);
        }
        query.put_u16(kind.0);
        query.put_u16(CLASS_IN);
        Ok(Self { query, id: 0 })
    }

    /// The timing that keepalived gives this kind by default: 3 retries, as far apart as checks are.
    pub fn default_timing() -> Timing {
        let timing = Timing::default();
        Timing {
            retry: 3,
            delay_before_retry: timing.delay_loop,
            ..timing
        }
    }
}

impl Checker for DnsCheck {
    fn name(&self) -> &'static str {
        "DNS_CHECK"
    }

    fn identity(&self) -> Option<String> {
        Some(format!("{:?}", &self.query[HEADER..]))
    }

    fn begin(&mut self, attempt: &Attempt) -> Start {
        let [high, low, ..] = attempt.random.to_be_bytes();
        self.id = u16::from_be_bytes([high, low]);
        Start::Connect(Transport::Udp)
    }

    fn handle_connected(&mut self) -> Next {
        self.query[..2].copy_from_slice(&self.id.to_be_bytes());
        Next::Send(Bytes::copy_from_slice(&self.query))
    }

    fn handle_data(&mut self, data: &[u8]) -> Next {
        let [id_high, id_low, flags, code, ..] = *data else {
            return Next::Ignore;
        };
        let is_response = flags & 0x80 != 0;
        if data.len() < HEADER || u16::from_be_bytes([id_high, id_low]) != self.id || !is_response {
            return Next::Ignore;
        }
        Next::Done(match code & 0x0f {
            0 => Outcome::Up,
            code => Outcome::Down(Failure::DnsRcode(code)),
        })
    }
}

/// A record type of DNS: one of the constants, or any other number. Parses from the names that keepalived knows, in
/// either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DnsType(pub u16);

impl DnsType {
    /// Address.
    pub const A: Self = Self(1);
    /// Name server.
    pub const NS: Self = Self(2);
    /// Canonical name.
    pub const CNAME: Self = Self(5);
    /// Start of authority; keepalived's default.
    pub const SOA: Self = Self(6);
    /// Mail exchange.
    pub const MX: Self = Self(15);
    /// Text.
    pub const TXT: Self = Self(16);
    /// IPv6 address.
    pub const AAAA: Self = Self(28);
    /// Signature.
    pub const RRSIG: Self = Self(46);
    /// Key.
    pub const DNSKEY: Self = Self(48);
}

impl Default for DnsType {
    fn default() -> Self {
        Self::SOA
    }
}

impl FromStr for DnsType {
    type Err = UnknownType;

    fn from_str(text: &str) -> Result<Self, UnknownType> {
        let known = NAMES
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(text));
        known.map(|(_, kind)| *kind).ok_or(UnknownType)
    }
}

/// A name that cannot be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidName;

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a label of a domain name has 1 to 63 bytes, all of them together at most 255")
    }
}

impl Error for InvalidName {}

/// Not the name of a record type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownType;

impl fmt::Display for UnknownType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record type is one of A, NS, CNAME, SOA, MX, TXT, AAAA, RRSIG, DNSKEY")
    }
}

impl Error for UnknownType {}

const NAMES: [(&str, DnsType); 9] = [
    ("A", DnsType::A),
    ("NS", DnsType::NS),
    ("CNAME", DnsType::CNAME),
    ("SOA", DnsType::SOA),
    ("MX", DnsType::MX),
    ("TXT", DnsType::TXT),
    ("AAAA", DnsType::AAAA),
    ("RRSIG", DnsType::RRSIG),
    ("DNSKEY", DnsType::DNSKEY),
];

const HEADER: usize = 12;
const CLASS_IN: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(check: &mut DnsCheck, id: u16) -> Vec<u8> {
        let attempt = Attempt::new("192.0.2.1:53".parse().unwrap(), 0);
        let start = check.begin(&attempt.with_random(u64::from(id) << 48));
        assert_eq!(start, Start::Connect(Transport::Udp));
        match check.handle_connected() {
            Next::Send(data) => data.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn queries_have_keepalived_s_bytes() {
        let mut check = DnsCheck::new("example.com", DnsType::SOA).unwrap();
        let wanted = b"\x1e\x5c\x01\0\0\x01\0\0\0\0\0\0\x07example\x03com\0\0\x06\0\x01";
        assert_eq!(asked(&mut check, 0x1e5c), wanted);
        for root in ["", "."] {
            let mut check = DnsCheck::new(root, DnsType::default()).unwrap();
            let wanted = b"\x68\x58\x01\0\0\x01\0\0\0\0\0\0\0\0\x06\0\x01";
            assert_eq!(asked(&mut check, 0x6858), wanted);
        }
        let ends = [
            ("a", [0, 1]),
            ("Aaaa", [0, 28]),
            ("mx", [0, 15]),
            ("TXT", [0, 16]),
            ("dnskey", [0, 48]),
        ];
        for (kind, code) in ends {
            let mut check = DnsCheck::new("a.b.", kind.parse().unwrap()).unwrap();
            let query = asked(&mut check, 1);
            assert_eq!(query[12..17], *b"\x01a\x01b\0");
            assert_eq!(query[query.len() - 4..], [code[0], code[1], 0, 1], "{kind}");
        }
    }

    #[test]
    fn replies_are_judged_by_their_header_alone() {
        let reply = |id: u16, flags: u16| {
            let mut data = vec![0; 12];
            data[..2].copy_from_slice(&id.to_be_bytes());
            data[2..4].copy_from_slice(&flags.to_be_bytes());
            data
        };
        let done = |outcome| Next::Done(outcome);
        let down = |code| done(Outcome::Down(Failure::DnsRcode(code)));
        let table = [
            (reply(7, 0x8180), done(Outcome::Up)),
            (reply(7, 0x8380), done(Outcome::Up)),
            (reply(7, 0x8183), down(3)),
            (reply(7, 0x8182), down(2)),
            (reply(7, 0x8185), down(5)),
            (reply(8, 0x8180), Next::Ignore),
            (reply(7, 0x0180), Next::Ignore),
            (reply(7, 0x8180)[..4].to_vec(), Next::Ignore),
            (reply(7, 0x8180)[..11].to_vec(), Next::Ignore),
            (Vec::new(), Next::Ignore),
        ];
        let mut check = DnsCheck::new("example.com", DnsType::A).unwrap();
        asked(&mut check, 7);
        for (data, wanted) in table {
            assert_eq!(check.handle_data(&data), wanted, "{data:?}");
        }
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        let long = "a".repeat(64);
        let many = vec!["a"; 128].join(".");
        for name in ["a..b", ".a", "..", &long, &many] {
            assert!(DnsCheck::new(name, DnsType::A).is_err(), "{name}");
        }
        assert!(DnsCheck::new(&vec!["a"; 127].join("."), DnsType::A).is_ok());
        assert!("PTR".parse::<DnsType>().is_err());
    }
}

//! `director why`: what the running director would do with a packet, step by step, without doing it.

use std::io::{self, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use lvs_fwd::device::pcap::Reader;
use lvs_fwd::why::Subject;
use lvs_fwd::wire::{Unparsed, protocol};

use super::STATUS_TROUBLE;
use crate::control::ask;
use crate::control::protocol::SocketAddress;
use crate::control::why::{self, WhyAnswer, WhyQuestion};
use crate::logging::chain;

/// Which packet is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// One of this flow.
    Flow {
        /// IP protocol number.
        protocol: u8,
        /// Sender.
        source: SocketAddr,
        /// Receiver.
        destination: SocketAddr,
        /// TCP flags as in byte 13 of the header.
        tcp_flags: u8,
    },
    /// This one: an Ethernet frame or an IP packet in hexadecimal digits; anything else between them is ignored.
    Hex(String),
    /// The n-th packet, from 1, of a capture file.
    Capture(PathBuf, usize),
}

/// Asks and writes the answer. Returns the exit status: 0 if the packet gets to where its sender wants it, 1 if it does not,
/// 2 if nobody can be asked.
///
/// # Errors
///
/// Nothing can be written to `out` or `errors`.
pub fn run(
    packet: &Packet,
    json: bool,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> io::Result<u8> {
    let answer = question(packet).and_then(|question| {
        ask(&SocketAddress::from_env(), why::OPERATION, &question).map_err(|error| chain(&error))
    });
    let answer = match answer {
        Ok(answer) => answer,
        Err(message) => {
            writeln!(errors, "{message}")?;
            return Ok(STATUS_TROUBLE);
        }
    };
    if json {
        let text = serde_json::to_string(&answer).map_err(io::Error::other)?;
        writeln!(out, "{text}")?;
    } else {
        out.write_all(prose(&answer).as_bytes())?;
    }
    Ok(u8::from(!answer.outcome.is_served()))
}

/// One line a step.
fn prose(answer: &WhyAnswer) -> String {
    let lines = answer
        .steps
        .iter()
        .map(|step| format!("{:<11} {}\n", step.name, step.text));
    lines.collect()
}

fn question(packet: &Packet) -> Result<WhyQuestion, String> {
    let bytes = match packet {
        Packet::Flow {
            protocol,
            source,
            destination,
            tcp_flags,
        } => {
            let has_ports = !matches!(*protocol, protocol::ESP | protocol::AH);
            if has_ports && (source.port() == 0 || destination.port() == 0) {
                return Err("both sides need a port".into());
            }
            return Ok(WhyQuestion {
                protocol: *protocol,
                source: *source,
                destination: *destination,
                tcp_flags: *tcp_flags,
                length: USUAL_LENGTH,
                payload: None,
            });
        }
        Packet::Hex(digits) => unhex(digits)?,
        Packet::Capture(path, number) => from_capture(path, *number)?,
    };
    let subject = Subject::parse(&bytes)
        .map_err(|why| format!("this is no packet of a service: {}", unparsed_text(why)))?;
    Ok(WhyQuestion {
        protocol: subject.protocol,
        source: subject.source,
        destination: subject.destination,
        tcp_flags: subject.tcp_flags,
        length: subject.length,
        payload: subject
            .payload
            .and_then(|at| bytes.get(at..))
            .map(<[u8]>::to_vec),
    })
}

fn unparsed_text(why: Unparsed) -> &'static str {
    match why {
        Unparsed::NotIp => "it is neither IPv4 nor IPv6",
        Unparsed::Malformed => "it is cut short, or its IP checksum is wrong",
        Unparsed::Fragment => "it is a fragment; ask about the first one's addresses and ports",
        Unparsed::OtherProtocol => "its protocol is not balanced",
        _ => "it is not forwarded here",
    }
}

fn from_capture(path: &Path, number: usize) -> Result<Vec<u8>, String> {
    let complain = |error: io::Error| format!("{}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(complain)?;
    let mut reader = Reader::new(BufReader::new(file)).map_err(complain)?;
    let mut count = 0;
    while let Some(record) = reader.read().map_err(complain)? {
        count += 1;
        if count == number {
            return Ok(record.frame.bytes().to_vec());
        }
    }
    Err(format!("{}: the file has {count} packets", path.display()))
}

fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|character| character.to_digit(16))
        .map(|digit| digit as u8)
        .collect();
    if digits.is_empty() || !digits.len().is_multiple_of(2) {
        return Err("an even number of hexadecimal digits is expected".into());
    }
    Ok(digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect())
}

/// Of a SYN with the usual options.
const USUAL_LENGTH: u32 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_may_be_grouped() {
        assert_eq!(unhex("45 00:00-2c"), Ok(vec![0x45, 0, 0, 0x2c]));
        assert!(unhex("4").is_err() && unhex("").is_err() && unhex("xyz").is_err());
    }

    #[test]
    fn a_capture_of_all_interfaces_is_read() {
        let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0];
        file.extend([0; 12]);
        file.extend(113_u32.to_le_bytes());
        file.extend([0; 8]);
        file.extend([20, 0, 0, 0, 20, 0, 0, 0]);
        file.extend([7; 20]);
        let name = format!("director-why-{}.pcap", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, file).unwrap();
        let (first, second) = (from_capture(&path, 1), from_capture(&path, 2));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(first, Ok(vec![7; 4]), "without the header of the capture");
        assert!(second.unwrap_err().contains("has 1 packets"));
    }

    #[test]
    fn bytes_that_are_no_packet_are_refused() {
        for nonsense in ["00", "4500", &"ff".repeat(64)] {
            assert!(question(&Packet::Hex(nonsense.into())).is_err());
        }
    }
}

//! The values of options: addresses, ports, numbers, masks and scheduler flags.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use crate::listing::names::Names;

/// An address with an optional port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: IpAddr,
    pub(crate) port: Option<u16>,
}

impl Endpoint {
    /// `address`, `address:port`, `[address]:port`; IPv4 by the classic rules or as a host name. `None` if it is none of
    /// these. A port of digits only would be a valid classic address, so that is refused.
    pub(crate) fn parse(text: &str, protocol: u8, names: &Names) -> Option<Self> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (address, port) = rest.split_once("]:")?;
            let address: Ipv6Addr = address.parse().ok()?;
            return Some(Self {
                address: address.into(),
                port: Some(port_number(port, protocol, names)?),
            });
        }
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return Some(Self {
                address: address.into(),
                port: None,
            });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port_number(port, protocol, names)?)),
            None => (text, None),
        };
        let address = classic_ipv4(host).or_else(|| names.host_address(host))?;
        Some(Self {
            address: address.into(),
            port,
        })
    }
}

/// One to four parts, each decimal, hexadecimal after `0x` or octal after `0`; the last part fills the remaining bytes.
pub(crate) fn classic_ipv4(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u32> = text.split('.').map(classic_number).collect::<Option<_>>()?;
    let (&last, leading) = parts.split_last()?;
    if leading.len() > 3 || leading.iter().any(|&part| part > 255) {
        return None;
    }
    let free_bits = 32 - 8 * leading.len();
    if u64::from(last) >= 1 << free_bits {
        return None;
    }
    let mut address = last;
    for (index, part) in leading.iter().enumerate() {
        address |= part << (24 - 8 * index);
    }
    Some(Ipv4Addr::from(address))
}

/// A decimal number with optional sign, all of the text, in the range.
pub(crate) fn number(text: &str, range: RangeInclusive<u32>) -> Option<u32> {
    let number = text.trim_start().parse::<i64>().ok()?;
    u32::try_from(number)
        .ok()
        .filter(|number| range.contains(number))
}

/// Whether the set bits of a mask stand together at its left end.
pub(crate) fn is_contiguous(mask: Ipv4Addr) -> bool {
    let bits = u32::from(mask);
    bits.leading_ones() + bits.trailing_zeros() >= 32
}

/// The names of the flags that are set, for this scheduler.
pub(crate) fn flag_names(scheduler: &str, flags: u32) -> Vec<&'static str> {
    let own = SCHEDULER_FLAGS.iter().any(|flag| flag.1 == Some(scheduler));
    SCHEDULER_FLAGS
        .iter()
        .filter(|flag| flags & flag.2 != 0 && flag.1 == own.then_some(scheduler))
        .map(|flag| flag.0)
        .collect()
}

/// The bits of a comma-separated list, or the first flag that is unknown or does not belong to the scheduler.
pub(crate) fn flag_bits<'a>(scheduler: &str, list: &'a str) -> Result<u32, &'a str> {
    let mut bits = 0;
    for name in list.split(',') {
        let flag = SCHEDULER_FLAGS
            .iter()
            .find(|flag| flag.0 == name && flag.1.is_none_or(|owner| owner == scheduler))
            .ok_or(name)?;
        bits |= flag.2;
    }
    Ok(bits)
}

fn port_number(text: &str, protocol: u8, names: &Names) -> Option<u16> {
    if text.is_empty() {
        return None;
    }
    match number(text, 0..=65535) {
        Some(port) => u16::try_from(port).ok(),
        None => names.service_port(text, protocol),
    }
}

fn classic_number(text: &str) -> Option<u32> {
    let (digits, radix) =
        if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            (hex, 16)
        } else if text.len() > 1 && text.starts_with('0') {
            (&text[1..], 8)
        } else {
            (text, 10)
        };
    if digits.starts_with('+') {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

/// All bits that belong to schedulers.
pub(crate) const ALL_FLAGS: u32 = 0x38;

const SCHEDULER_FLAGS: &[(&str, Option<&str>, u32)] = &[
    ("flag-1", None, 0x08),
    ("flag-2", None, 0x10),
    ("flag-3", None, 0x20),
    ("sh-fallback", Some("sh"), 0x08),
    ("sh-port", Some("sh"), 0x10),
    ("mh-fallback", Some("mh"), 0x08),
    ("mh-port", Some("mh"), 0x10),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Option<String> {
        let names = Names::new("http 80/tcp\n", "192.0.2.9 web\n");
        let endpoint = Endpoint::parse(text, 6, &names)?;
        Some(match endpoint.port {
            Some(port) => format!("{} {port}", endpoint.address),
            None => endpoint.address.to_string(),
        })
    }

    #[test]
    fn endpoints_are_read_as_the_original_does() {
        for (text, expected) in [
            ("1.2.3.4:80", "1.2.3.4 80"),
            ("1.2.3.4:http", "1.2.3.4 80"),
            ("1.2.3.4", "1.2.3.4"),
            ("1.2.3.4:0", "1.2.3.4 0"),
            ("10.1:80", "10.0.0.1 80"),
            ("0x7f.1", "127.0.0.1"),
            ("010.1", "8.0.0.1"),
            ("web:80", "192.0.2.9 80"),
            ("[2001:db8::1]:80", "2001:db8::1 80"),
            ("2001:db8::1", "2001:db8::1"),
        ] {
            assert_eq!(endpoint(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn bad_endpoints_are_refused() {
        for text in [
            "",
            "80",
            "1.2.3.4:",
            "1.2.3.4:65536",
            "1.2.3.4:-1",
            "1.2.3.4:smtp",
            "[2001:db8::1]",
            "[1.2.3.4]:80",
            "[2001:db8::1]80",
            "192.0.2.300:80",
            "1.2.3.4.5",
            "1..2",
            "nobody",
            ":80",
            "1.2.3.+4",
            "\u{e9}:80",
        ] {
            assert_eq!(endpoint(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_whole_words_in_range() {
        assert_eq!(number(" +7", 0..=9), Some(7));
        for text in ["", "10", "-1", "7x", "0x7", "99999999999999999999"] {
            assert_eq!(number(text, 0..=9), None, "{text}");
        }
    }

    #[test]
    fn flags_belong_to_schedulers() {
        assert_eq!(flag_bits("sh", "sh-port,sh-fallback"), Ok(0x18));
        assert_eq!(flag_bits("rr", "flag-3"), Ok(0x20));
        assert_eq!(flag_bits("wlc", "sh-port"), Err("sh-port"));
        assert_eq!(flag_bits("mh", "nonsense"), Err("nonsense"));
        assert_eq!(flag_names("sh", 0x18), ["sh-fallback", "sh-port"]);
        assert_eq!(flag_names("rr", 0x38), ["flag-1", "flag-2", "flag-3"]);
        assert!(flag_names("mh", 0x20).is_empty());
    }

    #[test]
    fn masks_with_holes_are_told_apart() {
        for (mask, contiguous) in [
            ("255.255.255.255", true),
            ("255.255.254.0", true),
            ("0.0.0.0", true),
            ("0.0.0.24", false),
        ] {
            assert_eq!(is_contiguous(mask.parse().unwrap()), contiguous, "{mask}");
        }
    }
}

//! What the director answered, as text: the original's listings to the byte, blanks at the ends of lines included.
//!
//! Everything here is a function from values to text; nothing reads a socket or the terminal.

use std::net::{IpAddr, SocketAddr};

use crate::protocol::{StatusInfo, TimeoutsInfo};

pub mod connections;
pub mod locals;
pub mod names;
pub mod numbers;
pub mod save;
pub mod services;

use names::Names;

/// `-L --timeout`, in seconds.
pub fn timeouts(info: &TimeoutsInfo) -> String {
    format!(
        "Timeout (tcp tcpfin udp): {} {} {}\n",
        info.tcp, info.tcp_fin, info.udp
    )
}

/// `-L --daemon`: a line for each running side of connection sync. The director has none yet, so this is empty.
pub fn daemons(_status: &StatusInfo) -> String {
    String::new()
}

/// `address:port`, the address in brackets if it is IPv6. With `names`, a host's and a service's name where they are
/// known. At most 59 characters.
fn endpoint(address: IpAddr, port: u16, protocol: Option<u8>, names: Option<&Names>) -> String {
    let host = names.and_then(|names| names.host(address));
    let text = match (host, address) {
        (Some(host), IpAddr::V4(_)) => host.to_owned(),
        (Some(host), IpAddr::V6(_)) => format!("[{host}]"),
        (None, IpAddr::V4(address)) => address.to_string(),
        (None, IpAddr::V6(address)) => format!("[{address}]"),
    };
    let service = names
        .zip(protocol)
        .and_then(|(names, protocol)| names.service(port, protocol));
    let whole = match service {
        Some(service) => format!("{text}:{service}"),
        None => format!("{text}:{port}"),
    };
    cut(whole, MAX_ENDPOINT)
}

fn socket(address: SocketAddr, protocol: Option<u8>, names: Option<&Names>) -> String {
    endpoint(address.ip(), address.port(), protocol, names)
}

/// At most this many characters.
fn cut(text: String, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => text[..end].to_owned(),
        None => text,
    }
}

fn protocol_name(protocol: u8) -> &'static str {
    match protocol {
        0 => "IP",
        6 => "TCP",
        17 => "UDP",
        132 => "SCTP",
        _ => "?",
    }
}

const MAX_ENDPOINT: usize = 59;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_one_line() {
        let info = TimeoutsInfo {
            tcp: 900,
            tcp_fin: 120,
            udp: 300,
        };
        assert_eq!(timeouts(&info), "Timeout (tcp tcpfin udp): 900 120 300\n");
    }

    #[test]
    fn endpoints_have_names_only_where_they_are_known_and_wanted() {
        let names = Names::new("http 80/tcp", "192.0.2.9 web web.example\n2001:db8::9 web6");
        let shown =
            |address: &str, protocol, names| socket(address.parse().unwrap(), protocol, names);
        assert_eq!(shown("192.0.2.9:80", Some(6), Some(&names)), "web:http");
        assert_eq!(shown("192.0.2.9:80", Some(6), None), "192.0.2.9:80");
        assert_eq!(shown("192.0.2.9:80", Some(17), Some(&names)), "web:80");
        assert_eq!(shown("192.0.2.9:80", None, Some(&names)), "web:80");
        assert_eq!(
            shown("[2001:db8::9]:80", Some(6), Some(&names)),
            "[web6]:http"
        );
        assert_eq!(
            shown("[2001:db8:0:0::1]:80", Some(6), None),
            "[2001:db8::1]:80"
        );
    }

    #[test]
    fn long_names_are_cut_without_splitting_a_character() {
        let names = Names::new("", &format!("192.0.2.9 {}", "\u{e9}".repeat(80)));
        let shown = socket("192.0.2.9:80".parse().unwrap(), None, Some(&names));
        assert_eq!(shown.chars().count(), 59);
    }
}

//! Names of hosts and services, from `/etc/hosts` and `/etc/services`.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};

/// What addresses and ports are called. Where a file gives several names, the first one counts.
#[derive(Debug, Clone, Default)]
pub struct Names {
    services: HashMap<(u16, u8), String>,
    ports: HashMap<(String, u8), u16>,
    hosts: HashMap<IpAddr, String>,
    addresses: HashMap<String, Ipv4Addr>,
}

impl Names {
    /// Reads the texts of a services and a hosts file. Lines that make no sense are skipped.
    pub fn new(services: &str, hosts: &str) -> Self {
        let mut names = Self::default();
        for line in services.lines() {
            names.add_service(line);
        }
        for line in hosts.lines() {
            names.add_host(line);
        }
        names
    }

    /// The names of this system. A file that can't be read gives none.
    pub fn system() -> Self {
        let read = |path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        Self::new(&read(SERVICES), &read(HOSTS))
    }

    /// The name of an address.
    pub fn host(&self, address: IpAddr) -> Option<&str> {
        self.hosts.get(&address).map(String::as_str)
    }

    /// The name of a port for a protocol (its IANA number).
    pub fn service(&self, port: u16, protocol: u8) -> Option<&str> {
        self.services.get(&(port, protocol)).map(String::as_str)
    }

    /// The first IPv4 address of a name; names never mean IPv6 here.
    pub fn host_address(&self, name: &str) -> Option<Ipv4Addr> {
        self.addresses.get(&name.to_ascii_lowercase()).copied()
    }

    /// The port that a name or alias means for a protocol (its IANA number).
    pub fn service_port(&self, name: &str, protocol: u8) -> Option<u16> {
        self.ports.get(&(name.to_owned(), protocol)).copied()
    }

    /// `name port/protocol alias...`
    fn add_service(&mut self, line: &str) {
        let mut words = words(line);
        let (Some(name), Some(place)) = (words.next(), words.next()) else {
            return;
        };
        let Some((port, protocol)) = place.split_once('/') else {
            return;
        };
        let protocol = match protocol {
            "tcp" => 6,
            "udp" => 17,
            "sctp" => 132,
            _ => return,
        };
        let Ok(port) = port.parse() else {
            return;
        };
        self.services
            .entry((port, protocol))
            .or_insert_with(|| name.to_owned());
        for name in std::iter::once(name).chain(words) {
            self.ports
                .entry((name.to_owned(), protocol))
                .or_insert(port);
        }
    }

    /// `address name alias...`
    fn add_host(&mut self, line: &str) {
        let mut words = words(line).peekable();
        let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else {
            return;
        };
        if let Some(name) = words.peek() {
            self.hosts
                .entry(address)
                .or_insert_with(|| (*name).to_owned());
        }
        if let IpAddr::V4(address) = address {
            for name in words {
                self.addresses
                    .entry(name.to_ascii_lowercase())
                    .or_insert(address);
            }
        }
    }
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split('#')
        .next()
        .unwrap_or_default()
        .split_whitespace()
}

const SERVICES: &str = "/etc/services";
const HOSTS: &str = "/etc/hosts";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_name_of_a_port_counts_and_aliases_are_understood() {
        let names = Names::new(
            "# comment\nhttp\t80/tcp www # WWW\nweb 80/tcp\ndomain 53/udp\nodd\nodd2 x/tcp\nodd3 1/ddp\nodd4 70000/tcp\n",
            "",
        );
        assert_eq!(names.service(80, 6), Some("http"));
        assert_eq!(names.service(80, 17), None);
        assert_eq!(names.service(53, 17), Some("domain"));
        assert_eq!(names.service_port("www", 6), Some(80));
        assert_eq!(names.service_port("web", 6), Some(80));
        assert_eq!(names.service_port("domain", 6), None);
    }

    #[test]
    fn hosts_are_read_both_ways() {
        let names = Names::new(
            "",
            "127.0.0.1 localhost me\n::1 localhost ip6-me\nnonsense here\n10.0.0.1\n",
        );
        assert_eq!(names.host("127.0.0.1".parse().unwrap()), Some("localhost"));
        assert_eq!(names.host("::1".parse().unwrap()), Some("localhost"));
        assert_eq!(names.host_address("ME"), Some(Ipv4Addr::LOCALHOST));
        assert_eq!(names.host_address("ip6-me"), None);
        assert_eq!(names.host("10.0.0.1".parse().unwrap()), None);
    }
}

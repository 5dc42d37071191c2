//! What keeps a host from being a real server, seen without changing anything.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;

use lvs_fwd::netlink::{Address, Link, Netlink, NetlinkError};

use super::{KERNEL_TUNNELS, Mode, RealServer, is_running};
use crate::findings::{Findings, Severity};
use crate::settings;

/// Looks at the calling thread's network namespace.
///
/// # Errors
///
/// What can't be read.
pub fn check(wanted: &RealServer) -> Result<Findings, NetlinkError> {
    let mut netlink = Netlink::open()?;
    let host = Host {
        links: netlink.links()?,
        addresses: netlink.addresses()?,
        vips: &wanted.vips,
        mode: wanted.mode,
    };
    let mut findings = Findings::default();
    for vip in &wanted.vips {
        host.check_address(*vip, &mut findings);
        host.check_listeners(*vip, &mut findings);
    }
    if wanted.vips.iter().any(IpAddr::is_ipv4) {
        host.check_arp(&mut findings);
        host.check_reverse_path_filter(&mut findings);
    }
    if wanted.mode == Mode::Tunnel {
        host.check_tunnel(wanted.gue_port, &mut findings);
    }
    host.check_way_back(&mut netlink, &mut findings)?;
    check_counters(&mut findings);
    Ok(findings)
}

struct Host<'w> {
    links: Vec<Link>,
    addresses: Vec<Address>,
    vips: &'w [IpAddr],
    mode: Mode,
}

impl Host<'_> {
    fn name(&self, index: u32) -> &str {
        let link = self.links.iter().find(|link| link.index == index);
        link.map_or("?", |link| link.name.as_str())
    }

    /// Interfaces where somebody may ask for addresses.
    fn wires(&self) -> impl Iterator<Item = &Link> {
        self.links
            .iter()
            .filter(|link| !link.loopback && link.up && link.mac.is_some())
    }

    fn mode_name(&self) -> &'static str {
        match self.mode {
            Mode::DirectRoute => "dr",
            Mode::Tunnel => "tun",
        }
    }

    fn check_address(&self, vip: IpAddr, findings: &mut Findings) {
        let length = if vip.is_ipv4() { 32 } else { 128 };
        let held: Vec<&Address> = self
            .addresses
            .iter()
            .filter(|held| held.addr == vip)
            .collect();
        if held.is_empty() {
            findings.add(
                (Severity::Error, "address-missing"),
                vip.to_string(),
                "no interface has this address",
                "packets for it are dropped without a word: clients' connections time out",
                format!(
                    "ip addr add {vip}/{length} dev lo, or: director realserver --vip {vip} --mode {}",
                    self.mode_name()
                ),
            );
        }
        for address in held {
            let link = self.links.iter().find(|link| link.index == address.ifindex);
            let is_loopback = link.is_some_and(|link| link.loopback);
            let name = self.name(address.ifindex);
            if is_loopback && address.prefix != length {
                findings.add(
                    (Severity::Error, "prefix-on-loopback"),
                    vip.to_string(),
                    format!("it is at {name} with the prefix /{}", address.prefix),
                    "all addresses of this prefix count as this host's own: it can't reach its neighbours there",
                    format!(
                        "ip addr del {vip}/{0} dev {name}; ip addr add {vip}/{length} dev {name}",
                        address.prefix
                    ),
                );
            }
            let is_wire = link.is_some_and(|link| !link.loopback && link.mac.is_some());
            if is_wire && link.and_then(|link| link.kind.as_deref()) != Some("dummy") {
                findings.add(
                    (Severity::Error, "address-on-wire"),
                    vip.to_string(),
                    format!("it is at {name}, where the host answers questions for it"),
                    "clients or their router learn this host's hardware address and come by the director no more",
                    format!(
                        "ip addr del {vip}/{} dev {name}; ip addr add {vip}/{length} dev lo",
                        address.prefix
                    ),
                );
            }
        }
    }

    fn check_listeners(&self, vip: IpAddr, findings: &mut Findings) {
        let listening = listeners();
        let serves = |addr: &IpAddr| *addr == vip || addr.is_unspecified();
        if listening.iter().any(|(addr, _)| serves(addr)) {
            return;
        }
        let elsewhere: Vec<String> = listening
            .iter()
            .take(8)
            .map(|(addr, port)| format!("{addr} {port}"))
            .collect();
        findings.add(
            (Severity::Warning, "nobody-listens"),
            vip.to_string(),
            if elsewhere.is_empty() {
                "no program listens for TCP here".to_owned()
            } else {
                format!(
                    "programs listen for TCP at other addresses only: {}",
                    elsewhere.join(", ")
                )
            },
            "connections to the service are refused here (fine if it is UDP only)",
            "let the service listen at the virtual address or at all addresses",
        );
    }

    fn check_arp(&self, findings: &mut Findings) {
        for link in self.wires() {
            let ignore = settings::effective("arp_ignore", &link.name);
            if ignore == 0 {
                findings.add(
                    (Severity::Error, "arp-ignore"),
                    link.name.clone(),
                    "arp_ignore is 0: the host answers ARP here for addresses of lo",
                    "clients or their router sometimes learn this host's hardware address: works at first, then moves or fails",
                    "sysctl -w net.ipv4.conf.all.arp_ignore=1",
                );
            }
            let announce = settings::effective("arp_announce", &link.name);
            if announce < 2 {
                findings.add(
                    (Severity::Error, "arp-announce"),
                    link.name.clone(),
                    format!("arp_announce is {announce}: the host asks for neighbours in the name of the virtual address"),
                    "neighbours learn the virtual address with this host's hardware address",
                    "sysctl -w net.ipv4.conf.all.arp_announce=2",
                );
            }
        }
    }

    fn check_reverse_path_filter(&self, findings: &mut Findings) {
        const CURE: &str = "sysctl -w net.ipv4.conf.all.rp_filter=0 (2 will do as well)";
        if self.mode == Mode::Tunnel {
            let all = settings::read("net/ipv4/conf/all/rp_filter").unwrap_or(0);
            let strict = |link: &&Link| {
                link.mac.is_none()
                    && !link.loopback
                    && settings::effective("rp_filter", &link.name) == 1
            };
            let device = self.links.iter().find(strict);
            if all == 1 || device.is_some() {
                findings.add(
                    (Severity::Error, "reverse-path-filter"),
                    device.map_or_else(|| "all".to_owned(), |link| link.name.clone()),
                    "rp_filter is strict, and what is unpacked comes from an interface that is not on the way to the client",
                    "unpacked packets are dropped (TcpExtIPReversePathFilter in nstat rises)",
                    CURE,
                );
            }
            return;
        }
        let strict: Vec<&str> = self
            .wires()
            .filter(|link| settings::effective("rp_filter", &link.name) == 1)
            .map(|link| link.name.as_str())
            .collect();
        if self.wires().count() > 1 && !strict.is_empty() {
            findings.add(
                (Severity::Warning, "reverse-path-filter"),
                strict.join(", "),
                "rp_filter is strict, and there are several interfaces",
                "packets are dropped that do not come by the interface on the way to their client",
                CURE,
            );
        }
    }

    fn check_tunnel(&self, gue_port: u16, findings: &mut Findings) {
        let by_kernel = self
            .links
            .iter()
            .any(|link| link.up && KERNEL_TUNNELS.iter().any(|(name, _)| link.name == *name));
        if !by_kernel && !is_running() {
            let vips: Vec<String> = self.vips.iter().map(|vip| format!("--vip {vip}")).collect();
            findings.add(
                (Severity::Error, "no-decapsulator"),
                "tunnel",
                format!("nobody unpacks: no tunnel device is up and no `director realserver` runs (GUE port {gue_port})"),
                "the outer packets arrive, and the director gets \"protocol unreachable\"",
                format!(
                    "director realserver --mode tun {}, or: modprobe ipip; ip link set tunl0 up",
                    vips.join(" ")
                ),
            );
        }
        findings.add(
            (Severity::Note, "tunnel-mtu"),
            "tunnel",
            "clients send packets as large as this host's MSS allows, and the tunnel takes 20 bytes and more of each",
            "where \"packet too big\" is filtered on the way to clients, small requests work and uploads hang",
            "ip route change default via GATEWAY advmss 1400",
        );
    }

    /// Whether answers find a way out.
    fn check_way_back(
        &self,
        netlink: &mut Netlink,
        findings: &mut Findings,
    ) -> Result<(), NetlinkError> {
        let routes = netlink.routes()?;
        let families: BTreeSet<bool> = self.vips.iter().map(IpAddr::is_ipv4).collect();
        for is_ipv4 in families {
            let has_default = routes.iter().any(|route| {
                route.destination.length() == 0
                    && route.destination.addr().is_ipv4() == is_ipv4
                    && !route.hops.is_empty()
            });
            if !has_default {
                findings.add(
                    (Severity::Warning, "no-default-route"),
                    "routes",
                    format!(
                        "there is no default route of IPv{}",
                        if is_ipv4 { 4 } else { 6 }
                    ),
                    "this host answers clients itself, and reaches only those on its own networks",
                    "ip route add default via GATEWAY (a router, not the director)",
                );
            }
        }
        Ok(())
    }
}

/// What the kernel has counted that should not happen on a real server.
fn check_counters(findings: &mut Findings) {
    let netstat = fs::read_to_string("/proc/thread-self/net/netstat").unwrap_or_default();
    if let Some(count) = counter(&netstat, "TcpExt:", "IPReversePathFilter").filter(|n| *n > 0) {
        findings.add(
            (Severity::Note, "reverse-path-drops"),
            "counters",
            format!("{count} packets were dropped by rp_filter since the host started"),
            "if the number rises while clients wait, these are theirs",
            "nstat -az TcpExtIPReversePathFilter",
        );
    }
    let snmp = fs::read_to_string("/proc/thread-self/net/snmp").unwrap_or_default();
    if let Some(count) = counter(&snmp, "Tcp:", "InCsumErrors").filter(|n| *n > 0) {
        findings.add(
            (Severity::Note, "checksum-errors"),
            "counters",
            format!("{count} TCP packets had a wrong checksum since the host started"),
            "if the number rises, somebody on the way forwards unfinished checksums",
            "nstat -az TcpInCsumErrors; ethtool -K IFACE tx off at the sender",
        );
    }
}

/// A counter of a file that has its names in one line and its values in the next.
fn counter(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(group));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|word| word == name)?;
    values.split_whitespace().nth(at)?.parse().ok()
}

/// Addresses and ports where somebody listens for TCP.
fn listeners() -> Vec<(IpAddr, u16)> {
    ["tcp", "tcp6"]
        .iter()
        .filter_map(|file| fs::read_to_string(format!("/proc/thread-self/net/{file}")).ok())
        .flat_map(|text| {
            text.lines()
                .skip(1)
                .filter_map(listener)
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Of one line: `sl local_address rem_address st …`, addresses as words in host byte order.
fn listener(line: &str) -> Option<(IpAddr, u16)> {
    let mut words = line.split_whitespace().skip(1);
    let (addr, port) = words.next()?.split_once(':')?;
    if words.nth(1)? != LISTEN {
        return None;
    }
    let words: Option<Vec<[u8; 4]>> = (0..addr.len() / 8)
        .map(|n| {
            let word = u32::from_str_radix(addr.get(n * 8..n * 8 + 8)?, 16).ok()?;
            Some(word.to_ne_bytes())
        })
        .collect();
    let addr = match words?.as_slice() {
        [v4] => IpAddr::from(*v4),
        v6 => IpAddr::from(<[u8; 16]>::try_from(v6.concat()).ok()?),
    };
    Some((addr, u16::from_str_radix(port, 16).ok()?))
}

const LISTEN: &str = "0A";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_read_from_the_kernel() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        assert!(listeners().contains(&(addr.ip(), addr.port())));
        drop(socket);
        assert!(!listeners().contains(&(addr.ip(), addr.port())));
    }

    #[test]
    fn counters_are_found_by_name() {
        let text = "A: one two\nA: 1 2\nB: two\nB: 5\n";
        assert_eq!(counter(text, "A:", "two"), Some(2));
        assert_eq!(counter(text, "B:", "two"), Some(5));
        assert_eq!(counter(text, "B:", "one"), None);
    }
}

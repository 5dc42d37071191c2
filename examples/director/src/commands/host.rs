//! `director host --check`: what on this host keeps a director from doing what its file says.

use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;

use lvs_fwd::mirror::Mirror;
use lvs_fwd::netlink::{Link, NetlinkError, Rule};
use lvs_fwd::route::NextHop;
use lvs_fwd::view::View;
use lvs_fwd::why::{self, Way};
use lvs_sched::{ForwardMethod, ServiceKey};
use rustix::thread::{CapabilitySet, capabilities};

use super::STATUS_TROUBLE;
use crate::config::ConfigFile;
use crate::control::protocol::SocketAddress;
use crate::devices::{Choice, Kind};
use crate::findings::{Findings, Severity};
use crate::logging::chain;
use crate::plan::{Plan, PlannedPool};
use crate::settings;

/// Writes what is wrong on this host for this file; nothing is changed. Returns the exit status: 0 nothing, 1 something, 2 if
/// it can't be told.
///
/// # Errors
///
/// Nothing can be written to `out` or `errors`.
pub fn check(
    file: &Path,
    config_id: Option<&str>,
    device: Choice,
    json: bool,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> io::Result<u8> {
    let plan = match ConfigFile::read(file, config_id) {
        Ok(read) if read.is_usable() => Plan::new(read.config()),
        Ok(_) => {
            writeln!(
                errors,
                "{}: no director runs with this file, see `director -t`",
                file.display()
            )?;
            return Ok(STATUS_TROUBLE);
        }
        Err(error) => {
            writeln!(errors, "{}", chain(&error))?;
            return Ok(STATUS_TROUBLE);
        }
    };
    match look(&plan, device) {
        Ok(findings) => findings.write(json, out),
        Err(error) => {
            writeln!(errors, "{}", chain(&error))?;
            Ok(STATUS_TROUBLE)
        }
    }
}

/// Looks at the calling thread's network namespace.
fn look(plan: &Plan, device: Choice) -> Result<Findings, NetlinkError> {
    let none: [&str; 0] = [];
    let mut mirror = Mirror::open(&none)?;
    let links: Vec<Link> = mirror.links().cloned().collect();
    let names: Vec<&str> = links
        .iter()
        .filter(|link| !link.loopback && link.mac.is_some() && link.controller.is_none())
        .map(|link| link.name.as_str())
        .collect();
    mirror.set_ports(&names);
    mirror.poll()?;
    let snapshot = mirror.snapshot();
    let view = View {
        routes: snapshot.routes,
        neighbours: snapshot.neighbours,
        ports: snapshot.ports,
        local: snapshot.local,
        ..View::default()
    };
    let rules = mirror.netlink().rules()?;
    let host = Host { plan, view, links };
    let mut findings = Findings::default();
    check_rights(&mut findings);
    host.check_addresses(&mut findings);
    host.check_devices(device, &mut findings);
    host.check_servers(&mut findings);
    host.check_nat(&mut findings);
    check_way_back(&mut findings);
    host.check_kernel_balancer(&mut findings);
    host.check_rules(&mut findings);
    check_policy(&rules, &mut findings);
    check_other_director(&mut findings);
    Ok(findings)
}

struct Host<'p> {
    plan: &'p Plan,
    view: View,
    links: Vec<Link>,
}

impl Host<'_> {
    fn vips(&self) -> Vec<IpAddr> {
        let mut vips: Vec<IpAddr> = self
            .plan
            .services
            .iter()
            .filter_map(|service| match service.key {
                ServiceKey::Address { vip, .. } => Some(vip),
                ServiceKey::Mark { .. } => None,
            })
            .collect();
        vips.sort_unstable();
        vips.dedup();
        vips
    }

    /// All servers, sorry servers too.
    fn servers(&self) -> Vec<(SocketAddr, ForwardMethod)> {
        let mut servers: Vec<(SocketAddr, ForwardMethod)> = self
            .plan
            .pools
            .iter()
            .flat_map(PlannedPool::all_servers)
            .map(|(addr, config)| (addr, config.method))
            .collect();
        servers.sort_unstable();
        servers.dedup_by_key(|(addr, method)| (addr.ip(), *method));
        servers
    }

    fn check_addresses(&self, findings: &mut Findings) {
        for planned in self.plan.all_addresses() {
            if !self.links.iter().any(|link| link.name == planned.interface) {
                findings.add(
                    (Severity::Error, "interface-missing"),
                    planned.interface.clone(),
                    format!(
                        "there is no such interface, and {} shall stand at it",
                        planned.addr
                    ),
                    "nobody answers for the address until the interface appears",
                    "ip link; correct `interface` or `dev` in the file",
                );
            }
        }
        for link in &self.links {
            let is_used = self
                .plan
                .all_addresses()
                .any(|planned| planned.interface == link.name);
            if is_used && !link.up {
                findings.add(
                    (Severity::Error, "interface-down"),
                    link.name.clone(),
                    "the interface is down",
                    "no packet comes in or goes out there",
                    format!("ip link set {} up", link.name),
                );
            }
        }
        for vip in self.vips() {
            let is_planned = self.plan.all_addresses().any(|planned| planned.addr == vip);
            if is_planned || self.view.local.contains(&vip) {
                continue;
            }
            findings.add(
                (Severity::Warning, "address-missing"),
                vip.to_string(),
                "no vrrp_instance of the file holds this service's address, and this host has not got it",
                "nobody answers ARP for it: clients reach it only where a router sends it here",
                format!("add it to a vrrp_instance, or: ip addr add {vip}/32 dev IFACE"),
            );
        }
    }

    /// What AF_XDP does not go with. With `auto` the director then takes packet rings, which is no fault.
    fn check_devices(&self, device: Choice, findings: &mut Findings) {
        if matches!(device, Choice::Only(Kind::Ring | Kind::Pnet)) {
            return;
        }
        let severity = match device {
            Choice::Auto => Severity::Note,
            Choice::Only(_) => Severity::Error,
        };
        let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
        if !effective.intersects(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN) {
            findings.add(
                (severity, "no-bpf"),
                "CAP_BPF",
                "this process may not load the program that steers packets to AF_XDP",
                "only packet rings can be used (always so in unprivileged user namespaces)",
                "--device ring, or give it CAP_BPF",
            );
            return;
        }
        for port in self.view.ports.iter() {
            if crate::sys::merges_segments(&port.name).unwrap_or(false) {
                findings.add(
                    (severity, "segments-merged"),
                    port.name.clone(),
                    "the interface merges received segments (LRO)",
                    "its driver refuses an XDP program",
                    format!("ethtool -K {} lro off rx-gro-hw off", port.name),
                );
            }
            if port.mtu > XDP_MTU {
                findings.add(
                    (severity, "mtu-for-xdp"),
                    port.name.clone(),
                    format!(
                        "its MTU is {}, and a frame must fit into one page",
                        port.mtu
                    ),
                    "most drivers refuse an XDP program",
                    format!("ip link set {} mtu {XDP_MTU}, or --device ring", port.name),
                );
            }
            let is_veth = self
                .links
                .iter()
                .any(|link| link.name == port.name && link.kind.as_deref() == Some("veth"));
            if is_veth && device == Choice::Only(Kind::Xdp) {
                findings.add(
                    (Severity::Note, "checksums-at-veth"),
                    port.name.clone(),
                    "frames from this host's containers come with unfinished checksums, and AF_XDP does not tell",
                    "the director completes those that it recognises, which costs time",
                    "at the other end: ethtool -K IFACE tx off",
                );
            }
        }
    }

    fn check_servers(&self, findings: &mut Findings) {
        for (server, method) in self.servers() {
            match why::way(&self.view, server.ip()) {
                // What answers in its own name needs no way back.
                Way::Host if Path::new(TUN).exists() || method == ForwardMethod::DirectRoute => {}
                Way::Host => findings.add(
                    (Severity::Error, "local-server"),
                    server.to_string(),
                    "this real server is on the director itself, and there is no TUN device",
                    "its packets are dropped",
                    "modprobe tun, or give the container /dev/net/tun",
                ),
                Way::Nowhere { reason, .. } => findings.add(
                    (Severity::Error, "server-unreachable"),
                    server.to_string(),
                    format!("there is no way to this real server: {}", reason.name()),
                    "what is balanced to it is dropped, and its sender told",
                    format!(
                        "ip route get {}; add the route or the interface's address",
                        server.ip()
                    ),
                ),
                Way::Out { route, port, .. } => {
                    if method == ForwardMethod::DirectRoute
                        && let NextHop::Gateway(gateway) = route.next_hop
                    {
                        findings.add(
                            (Severity::Error, "server-not-on-link"),
                            server.to_string(),
                            format!("a DR server must be on the link, and this one is behind {gateway} at {}", port.name),
                            "the router sends the packets to the virtual address again: they go round in a loop",
                            "lb_kind TUN or NAT for this server, or an interface in its network",
                        );
                    }
                }
            }
        }
    }

    fn check_nat(&self, findings: &mut Findings) {
        let nat: Vec<SocketAddr> = self
            .servers()
            .into_iter()
            .filter(|(_, method)| *method == ForwardMethod::Nat)
            .map(|(server, _)| server)
            .collect();
        if nat.is_empty() {
            return;
        }
        let listed: Vec<String> = nat
            .iter()
            .take(4)
            .map(|server| server.ip().to_string())
            .collect();
        findings.add(
            (Severity::Note, "server-gateway"),
            listed.join(", "),
            "whether NAT servers send their answers by this director can't be seen from here",
            "where they do not, clients' connections time out and `ipvsadm -Lnc` shows SYN_RECV",
            "at each: ip route get CLIENT must name this director's address",
        );
        if settings::read("net/ipv4/ip_forward") == Some(0) {
            findings.add(
                (Severity::Warning, "forwarding-off"),
                "net.ipv4.ip_forward",
                "this host does not forward",
                "services work, but what NAT servers begin themselves (updates, DNS) by this router is dropped",
                "sysctl -w net.ipv4.ip_forward=1",
            );
        }
        for link in &self.links {
            let has = |addr: IpAddr| match why::way(&self.view, addr) {
                Way::Out { port, .. } => port.name == link.name,
                _ => false,
            };
            let holds_vip = self
                .plan
                .all_addresses()
                .any(|planned| planned.interface == link.name);
            let redirects = ["all", link.name.as_str()].iter().any(|place| {
                settings::read(&format!("net/ipv4/conf/{place}/send_redirects")) == Some(1)
            });
            if holds_vip && redirects && nat.iter().any(|server| has(server.ip())) {
                findings.add(
                    (Severity::Warning, "redirects"),
                    link.name.clone(),
                    "NAT servers and clients share this interface, and send_redirects is on",
                    "servers are told of a shorter way and answer clients past the director",
                    format!("sysctl -w net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.{}.send_redirects=0", link.name),
                );
            }
        }
    }

    fn check_kernel_balancer(&self, findings: &mut Findings) {
        let Ok(table) = fs::read_to_string("/proc/thread-self/net/ip_vs") else {
            return;
        };
        let is_used = table.lines().any(|line| {
            ["TCP ", "UDP ", "SCTP ", "FWM "]
                .iter()
                .any(|kind| line.starts_with(kind))
        });
        if is_used {
            findings.add(
                (Severity::Error, "kernel-balancer"),
                "ip_vs",
                "the kernel's own balancer has services in this network namespace",
                "what this director does not take, the kernel balances by another table",
                "the kernel's `ipvsadm -C`, or stop the keepalived that fills it",
            );
        } else {
            findings.add(
                (Severity::Note, "kernel-balancer"),
                "ip_vs",
                "the kernel's balancer is loaded and has no services",
                "nothing, as long as nobody gives it some",
                "rmmod ip_vs",
            );
        }
    }

    /// Rules of people about packets that no rule ever sees.
    fn check_rules(&self, findings: &mut Findings) {
        let Ok(output) = Command::new("nft")
            .args(["-nn", "list", "ruleset"])
            .output()
        else {
            return;
        };
        let rules = String::from_utf8_lossy(&output.stdout);
        for vip in self.vips() {
            if let Some(rule) = rule_about(&rules, &vip.to_string()) {
                findings.add(
                    (Severity::Warning, "rule-without-effect"),
                    vip.to_string(),
                    format!("a firewall rule names this address: {rule}"),
                    "packets of services are taken before prerouting: such rules, NAT and conntrack never see them",
                    "filter in an nftables chain at the ingress hook with a priority below -500, or in front of the director",
                );
            }
        }
    }
}

/// The first rule of a ruleset that names the address, those of the claim left out.
fn rule_about(rules: &str, addr: &str) -> Option<String> {
    let mut is_claim = false;
    for line in rules.lines() {
        if line.starts_with("table ") {
            is_claim = line.contains(CLAIM_TABLE);
        }
        let names = line
            .split(|character: char| !(character.is_ascii_hexdigit() || ".:".contains(character)))
            .any(|word| word == addr);
        if !is_claim && names {
            return Some(line.trim().to_owned());
        }
    }
    None
}

fn check_rights(findings: &mut Findings) {
    let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    for (capability, name) in [
        (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
        (CapabilitySet::NET_RAW, "CAP_NET_RAW"),
    ] {
        if !effective.contains(capability) {
            findings.add(
                (Severity::Error, "right-missing"),
                name,
                "this process has not got the right",
                "a director started like this does not start",
                "run it as root, or give it the right (AmbientCapabilities= in its unit)",
            );
        }
    }
    if !Path::new(TUN).exists() {
        findings.add(
            (Severity::Warning, "no-tun"),
            TUN,
            "there is no TUN device",
            "what belongs to no connection is given to this host by raw sockets, and no NAT server can be on it",
            "modprobe tun, or give the container /dev/net/tun",
        );
    }
}

/// What the director gives back comes in at the TUN device, wherever the way to its sender leads.
fn check_way_back(findings: &mut Findings) {
    if settings::read("net/ipv4/conf/all/rp_filter") == Some(1) {
        findings.add(
            (Severity::Warning, "reverse-path-filter"),
            "net.ipv4.conf.all.rp_filter",
            "strict reverse path filtering is on for all interfaces",
            "the host drops what the director gives back to it, answers to ping apart",
            "sysctl -w net.ipv4.conf.all.rp_filter=2",
        );
    }
}

/// The data path asks the tables that every packet is looked up in, and no other.
fn check_policy(rules: &[Rule], findings: &mut Findings) {
    for rule in rules.iter().filter(|rule| rule.is_policy()) {
        findings.add(
            (Severity::Warning, "policy-routing"),
            format!("rule {rule}"),
            "this host chooses routes by more than the destination",
            "packets of services go by the main table: replies may leave by another provider than the request came in by",
            "routes in the main table that serve these destinations too, or another router in front",
        );
    }
}

fn check_other_director(findings: &mut Findings) {
    let address = SocketAddress::from_env();
    if address.connect().is_ok() {
        findings.add(
            (Severity::Note, "running"),
            address.to_string(),
            "a director runs in this network namespace",
            "a second one does not start",
            "director status",
        );
    }
}

const TUN: &str = "/dev/net/tun";
/// Largest MTU whose frames fit into a page beside what XDP needs.
const XDP_MTU: u32 = 3498;
const CLAIM_TABLE: &str = "lvs";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_found_by_whole_addresses_and_the_claim_is_left_out() {
        let rules = "table netdev lvs-1 {\n\t\telements = { 192.0.2.1 }\n}\n\
                     table ip filter {\n\tip daddr 192.0.2.10 drop\n\tip daddr { 192.0.2.1, 192.0.2.2 } accept\n}\n";
        assert_eq!(
            rule_about(rules, "192.0.2.1").as_deref(),
            Some("ip daddr { 192.0.2.1, 192.0.2.2 } accept")
        );
        assert_eq!(rule_about(rules, "192.0.2.100"), None);
    }
}

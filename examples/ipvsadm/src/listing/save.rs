//! The table as command lines that [`-R`](crate::run) reads (`-S`).
//!
//! As the original's it leaves out connection thresholds: what is saved here can be compared with what the original saves.

use std::net::Ipv4Addr;

use crate::protocol::{
    DestinationInfo, Family, Granularity, Method, ServiceAddress, ServiceInfo, ServicesInfo,
    TunnelChecksum, TunnelInfo, TunnelKind,
};

use super::names::Names;
use super::services::service_order;
use super::{endpoint, socket};
use crate::values;

/// One line for each service, followed by one for each of its real servers; sorted. `names`: `None` for numbers.
pub fn commands(info: &ServicesInfo, names: Option<&Names>) -> String {
    let mut services: Vec<&ServiceInfo> = info.services.iter().collect();
    services.sort_by_key(|service| service_order(service));
    let mut text = String::new();
    for service in services {
        let (id, protocol) = identity(service, names);
        text.push_str(&format!(
            "-A {id} -s {}{}\n",
            service.scheduler,
            options(service)
        ));
        for local in &service.locals {
            text.push_str(&format!("--add-laddr {id} --laddr {}\n", local.address));
        }
        let mut destinations: Vec<&DestinationInfo> = service.destinations.iter().collect();
        destinations.sort_by_key(|destination| (destination.address, destination.port));
        for destination in destinations {
            let address = (destination.address, destination.port).into();
            text.push_str(&format!(
                "-a {id} -r {} {} -w {}{}\n",
                socket(address, protocol, names),
                method(destination.method),
                destination.weight,
                tunnel(destination)
            ));
        }
    }
    text
}

/// The option that names the service, and its protocol if it has one.
fn identity(service: &ServiceInfo, names: Option<&Names>) -> (String, Option<u8>) {
    match service.service {
        ServiceAddress::Address {
            protocol,
            address,
            port,
        } => {
            let option = match protocol {
                UDP => "-u",
                SCTP => "--sctp-service",
                _ => "-t",
            };
            let address = endpoint(address, port, Some(protocol), names);
            (format!("{option} {address}"), Some(protocol))
        }
        ServiceAddress::Mark { mark } => match service.family {
            Family::Inet => (format!("-f {mark}"), None),
            Family::Inet6 => (format!("-f {mark} -6"), None),
        },
    }
}

fn options(service: &ServiceInfo) -> String {
    let mut text = String::new();
    if let Some(persistence) = &service.persistence {
        text.push_str(&format!(" -p {}", persistence.timeout));
        match persistence.granularity {
            Granularity::Netmask(Ipv4Addr::BROADCAST) | Granularity::Prefix(128) => {}
            Granularity::Netmask(mask) => text.push_str(&format!(" -M {mask}")),
            Granularity::Prefix(length) => text.push_str(&format!(" -M {length}")),
        }
    }
    if let Some(engine) = &service.engine {
        text.push_str(&format!(" --pe {engine}"));
    }
    if service.one_packet {
        text.push_str(" -o");
    }
    if service.flags & values::ALL_FLAGS != 0 {
        let mut flags = values::flag_names(&service.scheduler, service.flags);
        if flags.is_empty() {
            // sh and mh have no name of their own for it; the original saves a line here that it can't read.
            flags.push("flag-3");
        }
        text.push_str(&format!(" -b {}", flags.join(",")));
    }
    text
}

/// The original knows neither FULLNAT nor an option for a local server.
fn method(method: Method) -> &'static str {
    match method {
        Method::Nat => "-m",
        Method::Tunnel => "-i",
        Method::DirectRoute | Method::Local => "-g",
        Method::FullNat => "--fullnat",
    }
}

fn tunnel(destination: &DestinationInfo) -> String {
    if destination.method != Method::Tunnel {
        return String::new();
    }
    let TunnelInfo {
        kind,
        port,
        checksum,
    } = destination.tunnel.unwrap_or_default();
    let checksum = match checksum {
        TunnelChecksum::None => "--tun-nocsum",
        TunnelChecksum::Full => "--tun-csum",
        TunnelChecksum::Remote => "--tun-remcsum",
    };
    match kind {
        TunnelKind::Ipip => " --tun-type ipip".into(),
        TunnelKind::Gue => format!(" --tun-type gue --tun-port {port} {checksum}"),
        TunnelKind::Gre => format!(" --tun-type gre {checksum}"),
    }
}

const UDP: u8 = 17;
const SCTP: u8 = 132;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::services::tests::table;

    /// The specification's own example.
    #[test]
    fn the_table_of_the_specification() {
        assert_eq!(
            commands(&table(), None),
            "\
-A -t 192.0.2.10:80 -s wlc
-a -t 192.0.2.10:80 -r 10.0.0.11:8080 -m -w 2
-a -t 192.0.2.10:80 -r 10.0.0.12:8080 -m -w 1
-A -t 192.0.2.10:443 -s sh -p 360 -M 255.255.255.0 -b sh-fallback,sh-port
-a -t 192.0.2.10:443 -r 10.0.0.21:443 -g -w 100
-A -u 192.0.2.10:53 -s rr -o
-a -u 192.0.2.10:53 -r 127.0.0.1:53 -g -w 1
-A -u 192.0.2.10:5060 -s rr -p 360 --pe sip -o
-A -t [2001:db8::80]:80 -s mh -b mh-fallback
-a -t [2001:db8::80]:80 -r 10.0.0.41:80 -i -w 1 --tun-type ipip
-a -t [2001:db8::80]:80 -r [2001:db8:0:1::a]:80 -m -w 1
-A -f 7 -s wrr -p 300
-a -f 7 -r 10.0.0.31:0 -i -w 1 --tun-type ipip
-a -f 7 -r 10.0.0.32:0 -i -w 1 --tun-type gue --tun-port 6080 --tun-nocsum
-a -f 7 -r 10.0.0.33:0 -i -w 1 --tun-type gue --tun-port 6080 --tun-csum
-a -f 7 -r 10.0.0.34:0 -i -w 1 --tun-type gue --tun-port 6080 --tun-remcsum
-a -f 7 -r 10.0.0.35:0 -i -w 1 --tun-type gre --tun-csum
-A -f 9 -6 -s rr -p 360 -M 64
"
        );
    }

    #[test]
    fn a_flag_without_a_name_of_the_scheduler_is_saved_by_its_number() {
        let mut info = table();
        info.services.retain(|service| service.scheduler == "mh");
        info.services[0].flags = 0x20;
        let text = commands(&info, None);
        assert!(
            text.starts_with("-A -t [2001:db8::80]:80 -s mh -b flag-3\n"),
            "{text}"
        );
    }

    #[test]
    fn local_addresses_come_before_the_servers_that_need_them() {
        let mut info = table();
        info.services.retain(|service| service.scheduler == "wlc");
        let service = &mut info.services[0];
        service.destinations.truncate(1);
        service.destinations[0].method = Method::FullNat;
        service.locals = vec![crate::protocol::LocalAddressInfo {
            address: "10.0.0.200".parse().unwrap(),
            connections: 0,
            conflicts: 0,
        }];
        let text = commands(&info, None);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].starts_with("--add-laddr -") && lines[1].ends_with(" --laddr 10.0.0.200"));
        assert!(lines[2].contains(" --fullnat -w "), "{text}");
    }

    #[test]
    fn names_are_written_whole() {
        let names = Names::new(
            "http 80/tcp",
            "192.0.2.10 a-name-that-no-listing-would-show-in-full.example",
        );
        let text = commands(&table(), Some(&names));
        assert!(
            text.starts_with(
                "-A -t a-name-that-no-listing-would-show-in-full.example:http -s wlc\n"
            ),
            "{text}"
        );
    }
}

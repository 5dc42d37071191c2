//! The reconstructed examples of the specification.

use super::*;
use crate::protocol::{CountersInfo, RatesInfo};

fn service(family: Family, service: ServiceAddress, scheduler: &str) -> ServiceInfo {
    ServiceInfo {
        family,
        service,
        scheduler: scheduler.into(),
        flags: 0,
        persistence: None,
        engine: None,
        one_packet: false,
        stats: CountersInfo::default(),
        rates: RatesInfo::default(),
        locals: Vec::new(),
        destinations: Vec::new(),
    }
}

fn at(protocol: u8, address: &str, port: u16, scheduler: &str) -> ServiceInfo {
    let address = address.parse().unwrap();
    let id = ServiceAddress::Address {
        protocol,
        address,
        port,
    };
    service(Family::of(address), id, scheduler)
}

fn mark(family: Family, mark: u32, scheduler: &str) -> ServiceInfo {
    service(family, ServiceAddress::Mark { mark }, scheduler)
}

fn server(
    address: &str,
    method: Method,
    weight: u32,
    active: u32,
    inactive: u32,
) -> DestinationInfo {
    let address: std::net::SocketAddr = address.parse().unwrap();
    DestinationInfo {
        address: address.ip(),
        port: address.port(),
        method,
        weight,
        active,
        inactive,
        persistent: 0,
        upper: 0,
        lower: 0,
        tunnel: None,
        stats: CountersInfo::default(),
        rates: RatesInfo::default(),
    }
}

fn persistence(timeout: u32, granularity: Granularity) -> Option<PersistenceInfo> {
    Some(PersistenceInfo {
        timeout,
        granularity,
    })
}

const HOST: Granularity = Granularity::Netmask(Ipv4Addr::BROADCAST);

/// The table of the specification's examples, in an order that has to be sorted.
pub(in crate::listing) fn table() -> ServicesInfo {
    let mut web = at(6, "192.0.2.10", 80, "wlc");
    web.stats = CountersInfo {
        conns: 1234,
        inpkts: 99_999_999,
        outpkts: 100_000_000,
        inbytes: 123_456_789_012,
        outbytes: 123_456_789_012_345,
    };
    web.rates = RatesInfo {
        cps: 12,
        inpps: 345,
        outpps: 0,
        inbps: 1_234_567,
        outbps: 999_999_999,
    };
    let mut first = server("10.0.0.11:8080", Method::Nat, 2, 5, 7);
    first.stats = CountersInfo {
        conns: 600,
        inpkts: 45000,
        outpkts: 0,
        inbytes: 2_700_000_000,
        outbytes: 0,
    };
    first.rates = RatesInfo {
        cps: 6,
        inpps: 150,
        outpps: 0,
        inbps: 9000,
        outbps: 0,
    };
    let mut second = server("10.0.0.12:8080", Method::Nat, 1, 3, 20);
    (second.upper, second.lower) = (100, 50);
    web.destinations = vec![second, first];

    let mut secure = at(6, "192.0.2.10", 443, "sh");
    secure.flags = 0x18;
    let mask = Ipv4Addr::new(255, 255, 255, 0);
    secure.persistence = persistence(360, Granularity::Netmask(mask));
    let mut route = server("10.0.0.21:443", Method::DirectRoute, 100, 0, 0);
    route.persistent = 4;
    secure.destinations = vec![route];

    let mut dns = at(17, "192.0.2.10", 53, "rr");
    dns.one_packet = true;
    dns.destinations = vec![server("127.0.0.1:53", Method::Local, 1, 0, 1)];

    let mut sip = at(17, "192.0.2.10", 5060, "rr");
    sip.one_packet = true;
    sip.persistence = persistence(360, HOST);
    sip.engine = Some("sip".into());

    let mut six = at(6, "2001:db8::80", 80, "mh");
    six.flags = 0x08;
    six.destinations = vec![
        server("[2001:db8:0:1::a]:80", Method::Nat, 1, 0, 0),
        server("10.0.0.41:80", Method::Tunnel, 1, 0, 0),
    ];

    let mut seven = mark(Family::Inet, 7, "wrr");
    seven.persistence = persistence(300, HOST);
    let tunnels = [
        (TunnelKind::Ipip, 0, TunnelChecksum::None),
        (TunnelKind::Gue, 6080, TunnelChecksum::None),
        (TunnelKind::Gue, 6080, TunnelChecksum::Full),
        (TunnelKind::Gue, 6080, TunnelChecksum::Remote),
        (TunnelKind::Gre, 0, TunnelChecksum::Full),
    ];
    seven.destinations = tunnels
        .into_iter()
        .enumerate()
        .map(|(index, (kind, port, checksum))| {
            let mut server = server(&format!("10.0.0.3{}:0", index + 1), Method::Tunnel, 1, 0, 0);
            server.tunnel = Some(TunnelInfo {
                kind,
                port,
                checksum,
            });
            server
        })
        .collect();

    let mut nine = mark(Family::Inet6, 9, "rr");
    nine.persistence = persistence(360, Granularity::Prefix(64));

    ServicesInfo {
        ipvs_version: "1.2.1".into(),
        table_size: 4096,
        services: vec![nine, seven, six, sip, dns, secure, web],
    }
}

fn list() -> List {
    List {
        numeric: true,
        ..List::default()
    }
}

/// Trailing blanks are written as dots, as in the specification.
fn shown(list: &List) -> String {
    listing(&table(), list, &Names::default())
        .lines()
        .map(|line| {
            let text = line.trim_end();
            format!("{text}{}\n", "·".repeat(line.len() - text.len()))
        })
        .collect()
}

#[test]
fn default_listing_is_sorted_and_padded() {
    assert_eq!(
        shown(&list()),
        "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  192.0.2.10:80 wlc
  -> 10.0.0.11:8080               Masq    2      5          7·········
  -> 10.0.0.12:8080               Masq    1      3          20········
TCP  192.0.2.10:443 sh (sh-fallback,sh-port) persistent 360 mask 255.255.255.0
  -> 10.0.0.21:443                Route   100    0          0·········
UDP  192.0.2.10:53 rr ops
  -> 127.0.0.1:53                 Local   1      0          1·········
UDP  192.0.2.10:5060 rr persistent 360 pe sip ops
TCP  [2001:db8::80]:80 mh (mh-fallback)
  -> 10.0.0.41:80                 Tunnel  1      0          0·········
  -> [2001:db8:0:1::a]:80         Masq    1      0          0·········
FWM  7 wrr persistent 300
  -> 10.0.0.31:0                  Tunnel  1      0          0·········
  -> 10.0.0.32:0                  Tunnel  1      0          0·········
  -> 10.0.0.33:0                  Tunnel  1      0          0·········
  -> 10.0.0.34:0                  Tunnel  1      0          0·········
  -> 10.0.0.35:0                  Tunnel  1      0          0·········
FWM  9 IPv6 rr persistent 360 mask 64
"
    );
}

#[test]
fn tunnels_are_described() {
    let text = shown(&List {
        tun_info: true,
        ..list()
    });
    assert!(text.contains(
        "\
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn
TCP  192.0.2.10:80 wlc
  -> 10.0.0.11:8080               Masq    n/a           2      5          7·········
"
    ));
    assert!(text.contains(
        "\
FWM  7 wrr persistent 300
  -> 10.0.0.31:0                  Tunnel  ipip          1      0          0·········
  -> 10.0.0.32:0                  Tunnel  gue:6080:-c   1      0          0·········
  -> 10.0.0.33:0                  Tunnel  gue:6080:+c   1      0          0·········
  -> 10.0.0.34:0                  Tunnel  gue:6080:r+c  1      0          0·········
  -> 10.0.0.35:0                  Tunnel  gre:+c        1      0          0·········
"
    ));
}

#[test]
fn counters_are_shortened_unless_exact() {
    let stats = List {
        stats: true,
        ..list()
    };
    assert!(shown(&stats).contains(
        "\
Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port
TCP  192.0.2.10:80                    1234 99999999  100000K     123G     123T
  -> 10.0.0.11:8080                    600    45000        0    2700M        0
"
    ));
    let exact = List {
        exact: true,
        ..stats
    };
    assert!(shown(&exact).contains(
        "\
TCP  192.0.2.10:80                    1234 99999999 100000000 123456789012 123456789012345
  -> 10.0.0.11:8080                    600    45000        0 2700000000        0
"
    ));
}

#[test]
fn rates_have_columns_of_their_own() {
    let rate = List {
        rate: true,
        ..list()
    };
    assert!(shown(&rate).contains(
        "\
Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS
  -> RemoteAddress:Port
TCP  192.0.2.10:80                      12      345        0  1234567  999999K
  -> 10.0.0.11:8080                      6      150        0     9000        0
"
    ));
}

#[test]
fn thresholds_and_persistent_connections() {
    let thresholds = List {
        thresholds: true,
        ..list()
    };
    assert!(shown(&thresholds).contains(
        "\
Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn·
  -> RemoteAddress:Port
TCP  192.0.2.10:80 wlc
  -> 10.0.0.11:8080               0          0          5          7·········
  -> 10.0.0.12:8080               100        50         3          20········
"
    ));
    let persistent = List {
        persistent_conn: true,
        ..list()
    };
    let text = shown(&persistent);
    assert!(text.contains(
        "Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn·\n  -> RemoteAddress:Port\n"
    ));
    assert!(text.contains(
        "\
TCP  192.0.2.10:443 sh (sh-fallback,sh-port) persistent 360 mask 255.255.255.0
  -> 10.0.0.21:443                100       4           0          0·········
"
    ));
}

#[test]
fn the_first_of_several_modes_wins() {
    let both = List {
        stats: true,
        rate: true,
        thresholds: true,
        ..list()
    };
    assert!(shown(&both).contains("InBytes"));
}

#[test]
fn nosort_keeps_the_order_given() {
    let text = shown(&List {
        nosort: true,
        ..list()
    });
    assert!(text.lines().nth(3).unwrap().starts_with("FWM  9 IPv6"));
    assert!(text.find("10.0.0.12").unwrap() < text.find("10.0.0.11").unwrap());
}

#[test]
fn one_service_has_no_version_line_and_a_missing_one_no_listing() {
    let id = |port| ServiceId {
        family: Family::Inet,
        service: at(6, "192.0.2.10", port, "").service,
    };
    let text = single(&table(), id(443), &list(), &Names::default()).unwrap();
    assert_eq!(text.lines().count(), 4);
    assert!(text.starts_with("Prot "));
    assert_eq!(single(&table(), id(444), &list(), &Names::default()), None);
}

#[test]
fn an_empty_table_has_only_titles() {
    let empty = ServicesInfo {
        services: Vec::new(),
        ..table()
    };
    assert_eq!(
        listing(&empty, &list(), &Names::default()).lines().count(),
        3
    );
}

#[test]
fn names_are_cut_but_ipv6_entries_are_not() {
    let long = "a-very-long-host-name-that-does-not-fit.example.net";
    let names = Names::new(
        "",
        &format!("192.0.2.10 {long}\n10.0.0.11 {long}\n2001:db8::80 {long}\n"),
    );
    let text = listing(&table(), &List::default(), &names);
    assert!(text.contains("\nTCP  a-very-long-host-name-that-d wlc\n"));
    assert!(
        text.contains("\n  -> a-very-long-host-name-that-d Masq    2      5          7         \n")
    );
    assert!(text.contains("\nTCP  [a-very-long-host-name-that-does-not-fit.example.net]:80 mh"));
}

#[test]
fn an_odd_flag_of_sh_leaves_empty_parentheses() {
    let mut odd = at(6, "192.0.2.10", 80, "sh");
    odd.flags = 0x20;
    assert_eq!(settings(&odd), "sh ()");
    odd.scheduler = "rr".into();
    assert_eq!(settings(&odd), "rr (flag-3)");
}

//! The acceptance table: argument list → effect or exit status.

use super::*;
use crate::args;

fn judge(line: &str) -> Result<Invocation, UsageError> {
    let names = Names::new("http 80/tcp\n", "");
    args::parse(line.split_whitespace()).and_then(|low| interpret(&low, &names))
}

fn edit(line: &str) -> Edit {
    match judge(line) {
        Ok(Invocation::Edit(edit)) => edit,
        other => panic!("{line}: {other:?}"),
    }
}

fn service(line: &str) -> (ServiceId, ServiceSettings) {
    match edit(line) {
        Edit::AddService(spec) | Edit::EditService(spec) => (spec.id, spec.settings),
        other => panic!("{line}: {other:?}"),
    }
}

fn server(line: &str) -> (SocketAddr, ServerSettings) {
    match edit(line) {
        Edit::AddServer(spec) | Edit::EditServer(spec) => (spec.id.server, spec.settings),
        other => panic!("{line}: {other:?}"),
    }
}

fn list(line: &str) -> List {
    match judge(line) {
        Ok(Invocation::List(list)) => list,
        other => panic!("{line}: {other:?}"),
    }
}

fn tcp(address: &str, port: u16) -> ServiceAddress {
    ServiceAddress::Address {
        protocol: 6,
        address: address.parse().unwrap(),
        port,
    }
}

fn persistence(timeout: u32, granularity: Granularity) -> Option<PersistenceInfo> {
    Some(PersistenceInfo {
        timeout,
        granularity,
    })
}

#[test]
fn defaults_of_a_service() {
    let (id, settings) = service("-A -t 1.2.3.4:80");
    assert_eq!(id.service, tcp("1.2.3.4", 80));
    assert_eq!(
        settings,
        ServiceSettings {
            scheduler: "wlc".into(),
            flags: 0,
            persistence: None,
            engine: None,
            one_packet: false
        }
    );
    assert_eq!(
        service("-A -t 1.2.3.4:http -s rr").0.service,
        tcp("1.2.3.4", 80)
    );
}

#[test]
fn local_addresses_need_a_service_of_their_family() {
    for (line, is_added) in [
        ("--add-laddr -t 1.2.3.4:80 --laddr 10.0.0.200", true),
        ("--del-laddr --laddr 10.0.0.200 -t 1.2.3.4:80", false),
    ] {
        let spec = match edit(line) {
            Edit::AddLocalAddress(spec) if is_added => spec,
            Edit::DeleteLocalAddress(spec) if !is_added => spec,
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(spec.service.service, tcp("1.2.3.4", 80));
        assert_eq!(spec.local, IpAddr::from([10, 0, 0, 200]));
    }
    let local = edit("--add-laddr -t [2001:db8::1]:80 --laddr [2001:db8::2]");
    assert!(matches!(local, Edit::AddLocalAddress(spec) if spec.local.is_ipv6()));
    let method = server("-a -t 1.2.3.4:80 -r 10.0.0.1 --fullnat").1.method;
    assert_eq!(method, Method::FullNat);
    assert!(matches!(
        list("--get-laddr -n").subject,
        Subject::LocalAddresses(None)
    ));
    assert!(matches!(
        list("--get-laddr -t 1.2.3.4:80").subject,
        Subject::LocalAddresses(Some(_))
    ));
    for line in [
        "--add-laddr -t 1.2.3.4:80",
        "--add-laddr --laddr 10.0.0.200",
        "--add-laddr -t 1.2.3.4:80 --laddr 2001:db8::2",
        "--add-laddr -t 1.2.3.4:80 --laddr host",
        "-a -t 1.2.3.4:80 -r 10.0.0.1 --fullnat -m",
        "-L --laddr 10.0.0.200",
    ] {
        assert_eq!(judge(line).unwrap_err().status, 2, "{line}");
    }
}

#[test]
fn persistence_has_a_timeout_and_a_mask() {
    let narrow = Granularity::Netmask(Ipv4Addr::BROADCAST);
    assert_eq!(
        service("-A -t 1.2.3.4:80 -p").1.persistence,
        persistence(360, narrow)
    );
    let wide = Granularity::Netmask(Ipv4Addr::new(255, 255, 0, 0));
    for line in [
        "-A -t 1.2.3.4:80 -p50 -M 255.255.0.0",
        "-A -M 255.255.0.0 -p 50 -t 1.2.3.4:80",
    ] {
        assert_eq!(service(line).1.persistence, persistence(50, wide), "{line}");
    }
    assert_eq!(service("-A -t 1.2.3.4 -p").0.service, tcp("1.2.3.4", 0));
    let (id, settings) = service("-A -t [2001:db8::1]:80 -p -M 64");
    assert_eq!(id.family, Family::Inet6);
    assert_eq!(
        settings.persistence,
        persistence(360, Granularity::Prefix(64))
    );
    assert_eq!(
        service("-A -t 2001:db8::1 -p").0.service,
        tcp("2001:db8::1", 0)
    );
    let (id, settings) = service("-A -f 5 -6 -p -M 64");
    assert_eq!(
        (id.family, id.service),
        (Family::Inet6, ServiceAddress::Mark { mark: 5 })
    );
    assert_eq!(
        settings.persistence,
        persistence(360, Granularity::Prefix(64))
    );
    assert_eq!(
        service("-A -M 255.255.255.0 -t [2001:db8::1]:80 -p")
            .1
            .persistence,
        persistence(360, Granularity::Prefix(128))
    );
}

#[test]
fn an_engine_needs_no_persistence() {
    let (_, settings) = service("-A -u 1.2.3.4:5060 --pe sip");
    assert_eq!(
        (settings.engine.as_deref(), settings.persistence),
        (Some("sip"), None)
    );
    let (_, settings) = service("-A -f 1 --pe abcdefghijklmnopqrst");
    assert_eq!(settings.engine.as_deref(), Some("abcdefghijklmnop"));
}

#[test]
fn one_packet_and_flags() {
    assert!(service("-A -u 1.2.3.4:53 -o").1.one_packet);
    assert!(service("-A -f 5 -o").1.one_packet);
    assert_eq!(
        service("-A -t 1.2.3.4:80 -s sh -b sh-port,sh-fallback")
            .1
            .flags,
        0x18
    );
    assert_eq!(service("-A -t 1.2.3.4:80 -b mh-port -s mh").1.flags, 0x10);
    assert_eq!(
        service("-A -t 1.2.3.4:80 -s abcdefghijklmnopqrst")
            .1
            .scheduler,
        "abcdefghijklmno"
    );
}

#[test]
fn real_servers_take_port_and_method_by_the_rules() {
    let (address, settings) = server("-a -t 1.2.3.4:80 -r 10.0.0.1");
    assert_eq!(address.to_string(), "10.0.0.1:80");
    assert_eq!((settings.method, settings.weight), (Method::DirectRoute, 1));
    for (line, expected) in [
        ("-a -t 1.2.3.4:80 -r 10.0.0.1:8080", "10.0.0.1:80"),
        ("-a -t 1.2.3.4:80 -r 10.0.0.1:8080 -m -w 5", "10.0.0.1:8080"),
        ("-a -r 10.0.0.1:http -m -t 1.2.3.4:8", "10.0.0.1:80"),
        ("-a -f 5 -r 10.0.0.1:8080", "10.0.0.1:8080"),
        (
            "-a -t 1.2.3.4:80 -r 10.0.0.1:8080 --fullnat",
            "10.0.0.1:8080",
        ),
        ("-a -t 1.2.3.4:80 -r 10.0.0.1:8080 -i", "10.0.0.1:80"),
        (
            "-a -t 1.2.3.4:80 -r [2001:db8::1]:80 -i",
            "[2001:db8::1]:80",
        ),
    ] {
        assert_eq!(server(line).0.to_string(), expected, "{line}");
    }
    let tunnel = server("-a -f 5 -r 10.0.0.1 -i --tun-type gue --tun-port 6080 --tun-csum")
        .1
        .tunnel;
    assert_eq!(
        tunnel,
        Some(TunnelInfo {
            kind: TunnelKind::Gue,
            port: 6080,
            checksum: TunnelChecksum::Full
        })
    );
    assert_eq!(server("-a -f 5 -r 10.0.0.1 -w 70000").1.weight, 70000);
    let Edit::DeleteServer(id) = edit("-d -t 1.2.3.4:80 -r 10.0.0.1:8080") else {
        panic!("no delete");
    };
    assert_eq!(id.server.port(), 8080);
}

#[test]
fn lists() {
    assert_eq!(list(""), List::default());
    assert!(list("-Ln").numeric);
    assert_eq!(list("-Lnc --persistent-conn").subject, Subject::Connections);
    assert_eq!(list("-L --timeout").subject, Subject::Timeouts);
    assert_eq!(list("-L --daemon --syncid 3").subject, Subject::Daemons);
    let Subject::Service(id) = list("-Ln -f 12 -6").subject else {
        panic!("no service");
    };
    assert_eq!(id.family, Family::Inet6);
    let all =
        list("-L --stats --rate --thresholds --persistent-conn --tun-info -X --nosort --sort");
    assert!(all.stats && all.rate && all.thresholds && all.persistent_conn && all.tun_info);
    assert!(all.exact && all.nosort);
}

#[test]
fn editing_takes_the_defaults_of_adding() {
    let Edit::EditService(spec) = edit("-E -t 1.2.3.4:80") else {
        panic!("no edit");
    };
    assert_eq!(spec.settings, service("-A -t 1.2.3.4:80").1);
    let Edit::EditServer(spec) = edit("-e -t 1.2.3.4:80 -r 10.0.0.1") else {
        panic!("no edit");
    };
    assert_eq!(spec.settings, server("-a -t 1.2.3.4:80 -r 10.0.0.1").1);
}

#[test]
fn other_commands() {
    assert_eq!(edit("-C"), Edit::Flush);
    assert_eq!(edit("-Z"), Edit::Zero { only: None });
    let Edit::Zero { only: Some(id) } = edit("-Z -f 7") else {
        panic!("no service");
    };
    assert_eq!(id.service, ServiceAddress::Mark { mark: 7 });
    assert_eq!(
        edit("--set 900 0 300"),
        Edit::SetTimeouts(TimeoutsInfo {
            tcp: 900,
            tcp_fin: 0,
            udp: 300
        })
    );
    assert_eq!(judge("-S -n"), Ok(Invocation::Save { numeric: true }));
    assert_eq!(judge("-R"), Ok(Invocation::Restore));
    let Ok(Invocation::StartDaemon(DaemonState::Master, settings)) = judge("--start-daemon master")
    else {
        panic!("no daemon");
    };
    assert_eq!((settings.interface.as_str(), settings.syncid), ("eth0", 0));
    assert_eq!(
        judge("--stop-daemon=backup --syncid 3"),
        Ok(Invocation::StopDaemon(DaemonState::Backup))
    );
}

#[test]
fn wrong_use_has_status_2() {
    for line in [
        "-A",
        "-A -t 1.2.3.4",
        "-A -t 1.2.3.4:0",
        "-A -t 80",
        "-A -t 1.2.3.4:",
        "-A -t 1.2.3.4:65536",
        "-A -t [2001:db8::1]",
        "-A -6 -f 5",
        "-A -6 -t 1.2.3.4:80",
        "-A -f 0",
        "-A -f 4294967296",
        "-A -t 1.2.3.4:80 -o",
        "-A -t 1.2.3.4:80 -b sh-port",
        "-A -t 1.2.3.4:80 -p 0",
        "-A -t 1.2.3.4:80 -p 2678401",
        "-A -t 1.2.3.4:80 -p -M 24",
        "-A -t [2001:db8::1]:80 -p -M 129",
        "-A -t 1.2.3.4:80 -u 1.2.3.4:80",
        "-A -t 1.2.3.4:80 -r 10.0.0.1",
        "-A -t 1.2.3.4:80 word",
        "-A -D -t 1.2.3.4:80",
        "-A -t bad -q",
        "-D",
        "-C -t 1.2.3.4:80",
        "-a -t 1.2.3.4:80",
        "-a -r 10.0.0.1",
        "-a -t 1.2.3.4:80 -r 10.0.0.1 -g -m",
        "-a -t 1.2.3.4:80 -r 10.0.0.1 -w -1",
        "-a -t 1.2.3.4:80 -r 10.0.0.1 -x x",
        "-a -t 1.2.3.4:80 -r [2001:db8::1]:80 -m",
        "-a -t 1.2.3.4:80 -r 10.0.0.1 -i --tun-type gue",
        "-a -t 1.2.3.4:80 -r 10.0.0.1 -i --tun-type vxlan",
        "-a -t 1.2.3.4:80 -r 10.0.0.1 -i --tun-csum",
        "-a -t 1.2.3.4:80 -r 10.0.0.1 -i --tun-type gre --tun-csum --tun-nocsum",
        "-a -t 1.2.3.4:80 -r 10.0.0.1 -i --tun-type gre --tun-remcsum",
        "-a -t 1.2.3.4:80 -r 10.0.0.1 -m --tun-type gre",
        "-L -n -c --stats",
        "-L --timeout --daemon",
        "-L -c -t 1.2.3.4:80",
        "-L --timeout --persistent-conn",
        "-L -s rr",
        "-S --nosort",
        "--set 10 20",
        "--set 1 2 2678401",
        "--set 1 2 3 4",
        "--start-daemon slave",
        "--start-daemon master --syncid 256",
        "--start-daemon master --mcast-group 10.0.0.1",
    ] {
        assert_eq!(judge(line).map_err(|error| error.status), Err(2), "{line}");
    }
}

#[test]
fn what_the_option_parser_refuses_has_status_255() {
    for line in [
        "-n -L",
        "-X",
        "-L -q",
        "-A -t",
        "-L --num",
        "--start-daemon",
    ] {
        assert_eq!(
            judge(line).map_err(|error| error.status),
            Err(255),
            "{line}"
        );
    }
}

#[test]
fn diagnostics_name_option_and_command() {
    let message = |line| judge(line).unwrap_err().message;
    assert_eq!(
        message("-a -t 1.2.3.4:80"),
        "the 'add-server' command needs the 'real-server' option"
    );
    assert_eq!(
        message("-C -t 1.2.3.4:80"),
        "illegal 'service-address' option with the 'flush' command"
    );
    assert_eq!(
        message("-L -c --timeout"),
        "the options 'connection' and 'timeout' of the 'list' command exclude each other"
    );
    assert_eq!(message("-L -q"), "-q: unknown option");
}

#[test]
fn the_order_of_checks_has_each_option_once() {
    let names: HashSet<&str> = ORDER.iter().map(|(_, text)| *text).collect();
    assert_eq!(names.len(), 35);
}

/// Every option beside every other, with values that some of them accept and others do not.
#[test]
fn no_command_line_makes_it_panic() {
    let mut words: Vec<String> = args::TABLE
        .iter()
        .flat_map(|spec| {
            let shorts = spec.shorts.chars().map(|short| format!("-{short}"));
            shorts.chain([format!("--{}", spec.long)])
        })
        .collect();
    words.extend(
        [
            "",
            "-",
            "--",
            "---",
            "-p0",
            "0",
            "1",
            "-1",
            "99999999999",
            "80",
            "wlc",
            "sip",
            "ipip",
            "gue",
            "gre",
            "1.2.3.4:80",
            "1.2.3.4",
            "0x7f.1:http",
            "[::1]:80",
            "::1",
            "[::1]",
            ":",
            "[",
            "]:",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.0",
            "master",
            "sh-port,",
            "\u{1F980}",
        ]
        .map(String::from),
    );
    let mut seed: u64 = 1;
    let mut draw = |bound: usize| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % bound
    };
    let mut accepted = 0;
    for _ in 0..200_000 {
        let line: Vec<&str> = (0..draw(9))
            .map(|_| words[draw(words.len())].as_str())
            .collect();
        let judged = args::parse(line).and_then(|low| interpret(&low, &Names::default()));
        match judged {
            Ok(_) => accepted += 1,
            Err(error) => assert!(matches!(error.status, 2 | 255)),
        }
    }
    assert!(accepted > 1000, "{accepted}");
}

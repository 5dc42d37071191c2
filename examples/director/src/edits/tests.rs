//! The kernel's judgement, and what is claimed when.

use crate::control::protocol::TunnelInfo;
use lvs_fwd::view::Endpoint;
use lvs_sched::DirectorConfig;

use super::*;
use crate::plan::Plan;

struct Table {
    edits: Edits,
    now: Instant,
}

impl Table {
    fn new() -> Self {
        let scheduler = Arc::new(Director::new(DirectorConfig::new([1, 2, 3, 4])));
        Self {
            edits: Edits::new(scheduler, Arc::default()),
            now: Instant::now(),
        }
    }

    /// A command line of `ipvsadm`.
    fn run(&mut self, line: &str) -> Result<(), ErrorKind> {
        self.edits
            .apply(self.now, &edit(line))
            .map_err(|error| error.kind)
    }

    fn all(&mut self, lines: &[&str]) {
        for line in lines {
            assert_eq!(self.run(line), Ok(()), "{line}");
        }
    }

    fn claims(&self) -> ClaimSet {
        claims::present(&self.edits.scheduler, &Plan::default(), &Terms::default())
    }

    fn server(&self, id: &str, addr: &str) -> ServerConfig {
        let Edit::DeleteService(id) = edit(&format!("-D {id}")) else {
            panic!("{id} is no service");
        };
        let service = self.edits.scheduler.service(&service_key(&id).unwrap());
        let addr = addr.parse().unwrap();
        service.unwrap().server(addr).unwrap().config()
    }
}

fn edit(line: &str) -> Edit {
    let low = ipvsadm::args::parse(line.split_whitespace()).unwrap();
    let names = ipvsadm::listing::names::Names::default();
    match ipvsadm::command::interpret(&low, &names) {
        Ok(ipvsadm::command::Invocation::Edit(edit)) => edit,
        other => panic!("{line}: {other:?}"),
    }
}

fn endpoint(protocol: u8, addr: &str) -> Endpoint {
    let addr: SocketAddr = addr.parse().unwrap();
    Endpoint {
        protocol,
        addr: addr.ip(),
        port: addr.port(),
    }
}

#[test]
fn objects_that_are_there_or_missing() {
    let mut table = Table::new();
    table.all(&[
        "-A -t 192.0.2.1:80 -s rr",
        "-a -t 192.0.2.1:80 -r 10.0.0.1:80 -m",
    ]);
    for (line, kind) in [
        ("-A -t 192.0.2.1:80", ErrorKind::ServiceExists),
        ("-E -t 192.0.2.2:80", ErrorKind::NoService),
        ("-E -u 192.0.2.1:80", ErrorKind::NoService),
        ("-E -t 192.0.2.2:80 -s nosuch", ErrorKind::NoService),
        ("-D -t 192.0.2.2:80", ErrorKind::NoService),
        ("-Z -t 192.0.2.2:80", ErrorKind::NoService),
        (
            "-a -t 192.0.2.1:80 -r 10.0.0.1:80 -m",
            ErrorKind::ServerExists,
        ),
        ("-a -t 192.0.2.2:80 -r 10.0.0.1:80 -m", ErrorKind::NoService),
        ("-e -t 192.0.2.1:80 -r 10.0.0.2:80 -m", ErrorKind::NoServer),
        ("-e -t 192.0.2.2:80 -r 10.0.0.2:80 -m", ErrorKind::NoService),
        ("-d -t 192.0.2.1:80 -r 10.0.0.2:80", ErrorKind::NoServer),
        ("-d -t 192.0.2.2:80 -r 10.0.0.2:80", ErrorKind::NoService),
    ] {
        assert_eq!(table.run(line), Err(kind), "{line}");
    }
    table.all(&["-d -t 192.0.2.1:80 -r 10.0.0.1:80", "-D -t 192.0.2.1:80"]);
    assert_eq!(table.run("-D -t 192.0.2.1:80"), Err(ErrorKind::NoService));
}

#[test]
fn arguments_that_the_kernel_refuses() {
    let mut table = Table::new();
    table.all(&["-A -t 192.0.2.1:80 -s rr", "-A -t [2001:db8::1]:80 -s rr"]);
    let server = "-a -t 192.0.2.1:80 -r";
    for (line, kind) in [
        (
            "-A -t 192.0.2.2:80 -s nosuch".into(),
            ErrorKind::NoScheduler,
        ),
        (
            "-A -t 192.0.2.1:80 -s nosuch".into(),
            ErrorKind::ServiceExists,
        ),
        (
            "-E -t 192.0.2.1:80 -s nosuch".into(),
            ErrorKind::NoScheduler,
        ),
        (
            "-A -u 192.0.2.2:80 -p --pe nosuch".into(),
            ErrorKind::NoScheduler,
        ),
        (format!("{server} 10.0.0.1:80 -y 1"), ErrorKind::OutOfRange),
        (
            format!("{server} 10.0.0.1:80 -x 1 -y 2"),
            ErrorKind::OutOfRange,
        ),
        (format!("{server} 224.0.0.1:80 -m"), ErrorKind::Invalid),
        (
            format!("{server} 255.255.255.255:80 -m"),
            ErrorKind::Invalid,
        ),
        (format!("{server} 0.0.0.0:80 -m"), ErrorKind::Invalid),
        (
            "-a -t [2001:db8::1]:80 -r [fe80::1]:80 -m".into(),
            ErrorKind::Invalid,
        ),
        (
            "-a -t [2001:db8::1]:80 -r [ff02::1]:80 -m".into(),
            ErrorKind::Invalid,
        ),
    ] {
        assert_eq!(table.run(&line), Err(kind), "{line}");
    }
}

/// What `ipvsadm` would not send.
#[test]
fn other_askers_are_judged_too() {
    let mut table = Table::new();
    table.all(&["-A -t 192.0.2.1:80 -s rr"]);
    let service = |line: &str| match edit(line) {
        Edit::AddService(spec) => spec,
        other => panic!("{other:?}"),
    };
    let server = |line: &str| match edit(line) {
        Edit::AddServer(spec) => spec,
        other => panic!("{other:?}"),
    };
    let mut wrong = Vec::new();
    let mut spec = service("-A -t 192.0.2.2:80");
    spec.id.family = protocol::Family::Inet6;
    wrong.push((Edit::AddService(spec), ErrorKind::Invalid));
    let mut spec = service("-A -f 1");
    spec.id.service = ServiceAddress::Mark { mark: 0 };
    wrong.push((Edit::AddService(spec), ErrorKind::Invalid));
    let mut spec = service("-A -t 192.0.2.2:80");
    spec.id.service = ServiceAddress::Address {
        protocol: 1,
        address: [192, 0, 2, 2].into(),
        port: 80,
    };
    wrong.push((Edit::AddService(spec), ErrorKind::Invalid));
    for (timeout, granularity) in [
        (0, protocol::Granularity::Prefix(64)),
        (u32::MAX, protocol::Granularity::Prefix(64)),
        (60, protocol::Granularity::Prefix(0)),
        (60, protocol::Granularity::Prefix(129)),
        (60, protocol::Granularity::Netmask([255, 0, 0, 0].into())),
    ] {
        let mut spec = service("-A -f 1 -6");
        spec.settings.persistence = Some(PersistenceInfo {
            timeout,
            granularity,
        });
        wrong.push((Edit::AddService(spec), ErrorKind::Invalid));
    }
    let mut spec = server("-a -t 192.0.2.1:80 -r 10.0.0.1:80 -m");
    spec.settings.weight = 1 << 31;
    wrong.push((Edit::AddServer(spec), ErrorKind::OutOfRange));
    spec.settings.weight = 1;
    spec.id.server = "[2001:db8::1]:80".parse().unwrap();
    wrong.push((Edit::AddServer(spec), ErrorKind::Invalid));
    spec.id.server = "10.0.0.1:80".parse().unwrap();
    spec.settings.method = Method::Tunnel;
    spec.settings.tunnel = Some(TunnelInfo {
        kind: TunnelKind::Gue,
        ..TunnelInfo::default()
    });
    wrong.push((Edit::AddServer(spec), ErrorKind::Invalid));
    let timeouts = TimeoutsInfo {
        tcp: u32::MAX,
        tcp_fin: 0,
        udp: 0,
    };
    wrong.push((Edit::SetTimeouts(timeouts), ErrorKind::Invalid));
    for (edit, kind) in wrong {
        let refusal = table.edits.apply(table.now, &edit).unwrap_err();
        assert_eq!(refusal.kind, kind, "{edit:?}: {refusal}");
    }
    assert_eq!(table.edits.scheduler.services().len(), 1);
}

#[test]
fn an_edit_replaces_everything_but_the_identity() {
    let mut table = Table::new();
    table.all(&[
        "-A -t 192.0.2.1:80 -s rr -p 50",
        "-a -t 192.0.2.1:80 -r 10.0.0.1:8080 -m -w 5 -x 9 -y 3",
        "-e -t 192.0.2.1:80 -r 10.0.0.1:8080 -m",
        "-E -t 192.0.2.1:80",
    ]);
    let config = table.server("-t 192.0.2.1:80", "10.0.0.1:8080");
    assert_eq!(config.weight, Weight::ONE);
    assert_eq!((config.upper_threshold, config.lower_threshold), (0, 0));
    let service = &table.edits.scheduler.services()[0];
    assert_eq!(service.config(), ServiceConfig::default());
}

#[test]
fn zeroing_and_timeouts() {
    let mut table = Table::new();
    let seconds = |table: &Table| {
        let timeouts = table.edits.scheduler.timeouts();
        [timeouts.tcp, timeouts.tcp_fin, timeouts.udp].map(|timeout| timeout.as_secs())
    };
    assert_eq!(seconds(&table), [900, 120, 300]);
    table.all(&[
        "--set 10 0 30",
        "-A -t 192.0.2.1:80",
        "-Z",
        "-Z -t 192.0.2.1:80",
    ]);
    assert_eq!(seconds(&table), [10, 120, 30]);
}

#[test]
fn a_claim_covers_what_stands_in_the_table() {
    let mut table = Table::new();
    table.all(&[
        "-A -t 192.0.2.1:80 -s rr",
        "-a -t 192.0.2.1:80 -r 10.0.0.1:8080 -m",
        "-a -t 192.0.2.1:80 -r 10.0.0.2 -g",
        "-A -u 192.0.2.1 -s rr -p",
        "-A -t [2001:db8::1]:80",
        "-a -t [2001:db8::1]:80 -r [2001:db8::2]:80 -m",
        "-A -f 7",
        "-a -f 7 -r 10.0.0.1:8080 -m",
        "-A --sctp-service 192.0.2.1:80",
    ]);
    let claims = table.claims();
    assert_eq!(
        claims.services(),
        [
            endpoint(6, "192.0.2.1:80"),
            endpoint(6, "[2001:db8::1]:80"),
            endpoint(17, "192.0.2.1:0"),
            endpoint(50, "192.0.2.1:0"),
            endpoint(51, "192.0.2.1:0"),
            endpoint(132, "192.0.2.1:80")
        ]
    );
    let servers = [
        endpoint(6, "10.0.0.1:8080"),
        endpoint(6, "[2001:db8::2]:80"),
    ];
    assert_eq!(claims.servers(), servers);
    table.all(&["-e -t 192.0.2.1:80 -r 10.0.0.2:80 -m"]);
    assert!(table.claims().is_server(&endpoint(6, "10.0.0.2:80")));
    table.all(&["-d -t 192.0.2.1:80 -r 10.0.0.2:80", "-D -t 192.0.2.1:80"]);
    assert_eq!(table.claims().servers(), servers[1..]);
    table.all(&["-C"]);
    assert!(table.claims().is_empty());
}

#[test]
fn claims_grow_before_the_change() {
    let mut table = Table::new();
    table.all(&["-A -t 192.0.2.1:80 -s rr"]);
    let batch = [
        "-A -t 192.0.2.2:80",
        "-a -t 192.0.2.2:80 -r 10.0.0.1:80 -m",
        "-a -t 192.0.2.1:80 -r 10.0.0.2:80 -m",
        "-a -t 192.0.2.3:80 -r 10.0.0.3:80 -m",
        "-D -t 192.0.2.1:80",
        "-A -f 9",
    ]
    .map(edit);
    let mut grown = table.claims();
    table
        .edits
        .add_claims(&batch, &Terms::default(), &mut grown);
    assert_eq!(
        grown.services(),
        [endpoint(6, "192.0.2.1:80"), endpoint(6, "192.0.2.2:80")]
    );
    assert_eq!(
        grown.servers(),
        [endpoint(6, "10.0.0.1:80"), endpoint(6, "10.0.0.2:80")]
    );
}

#[test]
fn tunnels_are_remembered_as_long_as_their_server() {
    let mut table = Table::new();
    let at = |table: &Table| {
        let services = table.edits.scheduler.services();
        let key = services.first()?.key()?;
        table
            .edits
            .tunnels
            .tunnel(&key, "10.0.0.1:80".parse().unwrap())
    };
    let gre = "-t 192.0.2.1:80 -r 10.0.0.1 -i --tun-type gre --tun-csum";
    table.all(&["-A -t 192.0.2.1:80", &format!("-a {gre}")]);
    assert_eq!(at(&table).unwrap().kind, TunnelKind::Gre);
    table.all(&["-e -t 192.0.2.1:80 -r 10.0.0.1 -i"]);
    assert_eq!(at(&table), None);
    table.all(&[&format!("-e {gre}"), "-d -t 192.0.2.1:80 -r 10.0.0.1"]);
    assert_eq!(at(&table), None);
    table.all(&[&format!("-a {gre}"), "-C", "-A -t 192.0.2.1:80"]);
    assert_eq!(at(&table), None);
}

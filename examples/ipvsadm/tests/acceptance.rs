//! Against a stand-in for the director: the listings and exit statuses that the real ipvsadm gave for the same rules
//! (`$LVS_SHARED/corpus/ipvsadm`), and the binary itself.

#![expect(clippy::unwrap_used, reason = "helpers of tests may fail them")]

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use ipvsadm::args::{self, Verb};
use ipvsadm::command::{self, Change, Invocation, ServiceId};
use ipvsadm::listing::names::Names;
use ipvsadm::protocol::{
    ConnectionInfo, CountersInfo, DestinationInfo, Operation, RatesInfo, Reply, Request,
    ServiceInfo, ServicesInfo, SocketAddress, StatusInfo, TimeoutsInfo,
};
use ipvsadm::run::run;

#[test]
fn listings_are_the_originals_to_the_byte() {
    let Some(corpus) = corpus() else { return };
    let rules = fs::read_to_string(corpus.join("rules")).unwrap();
    let director = FakeDirector::start("golden", services(&rules), Vec::new());
    let mut compared = 0;
    for file in fs::read_dir(&corpus).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().and_then(OsStr::to_str).unwrap().to_owned();
        // The save format is not supported, and the kernel's hash order is tested below.
        if !name.ends_with(".txt") || name.starts_with('S') || name == "Ln--nosort.txt" {
            continue;
        }
        let recorded = fs::read_to_string(&path).unwrap();
        assert_eq!(replay(&recorded, &director), recorded, "{name}");
        compared += 1;
    }
    assert!(compared >= 16, "only {compared} listings found");
}

#[test]
fn nosort_keeps_the_kernels_order() {
    let Some(corpus) = corpus() else { return };
    let rules = fs::read_to_string(corpus.join("rules")).unwrap();
    let mut info = services(&rules);
    // Real servers stand newest first, services in the order of the kernel's hash table.
    let mut rest: Vec<Option<ServiceInfo>> = info.services.into_iter().map(Some).collect();
    info.services = [2, 0, 1, 5, 6, 3, 4]
        .into_iter()
        .map(|index: usize| rest[index].take().unwrap())
        .collect();
    for service in &mut info.services {
        service.destinations.reverse();
    }
    let director = FakeDirector::start("nosort", info, Vec::new());
    let recorded = fs::read_to_string(corpus.join("Ln--nosort.txt")).unwrap();
    assert_eq!(replay(&recorded, &director), recorded);
}

#[test]
fn exit_statuses_are_the_originals() {
    let Some(corpus) = corpus() else { return };
    let rules = fs::read_to_string(corpus.join("rules")).unwrap();
    let director = FakeDirector::start("status", services(&rules), Vec::new());
    let table = fs::read_to_string(corpus.join("exit-status.tsv")).unwrap();
    let mut compared = 0;
    for line in table.lines().skip(1) {
        let (arguments, status) = line.rsplit_once('\t').unwrap();
        let accepted_change = status == "0"
            && args::parse(arguments.split_whitespace())
                .is_ok_and(|low| !matches!(low.verb, Verb::List | Verb::Help | Verb::Version));
        // Changes that the kernel carried out are refused here.
        let expected = if accepted_change { "255" } else { status };
        let (_, actual) = in_process(arguments, &director.address);
        assert_eq!(actual.to_string(), expected, "ipvsadm {arguments}");
        compared += 1;
    }
    assert!(compared >= 25, "only {compared} lines found");
}

#[test]
fn the_binary_lists_what_the_director_says() {
    let connection = ConnectionInfo {
        protocol: 6,
        client: "203.0.113.5:50000".parse().unwrap(),
        vip: "192.0.2.10:80".parse().unwrap(),
        destination: "10.0.0.11:8080".parse().unwrap(),
        state: "ESTABLISHED".into(),
        expires: 894,
        engine: None,
    };
    let rules = "-A -t 192.0.2.10:80 -s wlc\n-a -t 192.0.2.10:80 -r 10.0.0.11:8080 -m -w 2\n";
    let director = FakeDirector::start("binary", services(rules), vec![connection; 5000]);

    let output = binary(&["-Ln"], &director.address.to_string());
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  192.0.2.10:80 wlc
  -> 10.0.0.11:8080               Masq    2      0          0         
"
    );
    assert!(output.stderr.is_empty());

    let output = binary(&["-Lnc"], &director.address.to_string());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 5002);
    assert!(text.ends_with(
        "\nTCP 14:54  ESTABLISHED 203.0.113.5:50000  192.0.2.10:80      10.0.0.11:8080\n"
    ));

    let output = binary(
        &["-L", "-t", "192.0.2.99:80"],
        &director.address.to_string(),
    );
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stderr, b"No such service\n");
    assert!(output.stdout.is_empty());
}

#[test]
fn without_a_director_the_binary_says_where_it_looked() {
    let output = binary(&["-Ln"], "@lvs-no-director-here");
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 2);
    assert!(text.starts_with("ipvsadm: can't reach the director at @lvs-no-director-here: "));
    assert!(text.contains("LVS_SOCKET"));
}

#[test]
fn help_and_version_need_no_director() {
    for argument in ["-h", "--help", "-v", "--version"] {
        let output = binary(&[argument], "@lvs-no-director-here");
        assert_eq!(output.status.code(), Some(0), "{argument}");
        assert!(output.stdout.starts_with(b"ipvsadm v"), "{argument}");
    }
}

#[test]
fn changes_are_judged_and_then_refused() {
    for (arguments, status, message) in [
        (
            &["-C"][..],
            255,
            "ipvsadm: the command 'flush' is not supported by this director yet\n",
        ),
        (
            &["-A", "-t", "192.0.2.10:80"],
            255,
            "ipvsadm: the command 'add-service' is not supported by this director yet\n",
        ),
        (
            &["-A", "-t", "192.0.2.10"],
            2,
            "ipvsadm: zero port specified for a non-persistent service\n",
        ),
    ] {
        let output = binary(arguments, "@lvs-no-director-here");
        assert_eq!(output.status.code(), Some(status), "{arguments:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), message);
    }
}

#[test]
fn a_director_of_another_version_is_reported() {
    let folder = Folder::new("older");
    let address = SocketAddress::Path(folder.0.join("socket"));
    let socket = address.bind().unwrap();
    thread::spawn(move || {
        for stream in socket.incoming() {
            answer(stream.unwrap(), |_| vec![Reply::unknown("services")]);
        }
    });
    let (text, status) = in_process("-Ln", &address);
    assert_eq!(status, 1);
    assert_eq!(
        text,
        "ipvsadm: the director refused: unknown operation 'services'\n"
    );
}

/// The recorded command's output here, in the form of a recording.
fn replay(recorded: &str, director: &FakeDirector) -> String {
    let first = recorded.lines().next().unwrap();
    let arguments = first.strip_prefix("$ ipvsadm").unwrap();
    let (text, status) = in_process(arguments, &director.address);
    format!("{first}\n{text}exit {status}\n")
}

/// Both outputs together and the exit status, with the names of a usual system.
fn in_process(arguments: &str, address: &SocketAddress) -> (String, u8) {
    let names = Names::new(
        "domain 53/tcp\ndomain 53/udp\nhttp 80/tcp www\nhttps 443/tcp\nhttp-alt 8080/tcp webcache\n",
        "127.0.0.1 localhost\n",
    );
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let status = run(
        arguments.split_whitespace(),
        address,
        &names,
        &mut output,
        &mut errors,
    );
    output.append(&mut errors);
    (String::from_utf8(output).unwrap(), status)
}

fn binary(arguments: &[&str], socket: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ipvsadm"))
        .args(arguments)
        .env("LVS_SOCKET", socket)
        .output()
        .unwrap()
}

/// The table that rules, one command line each, would leave.
fn services(rules: &str) -> ServicesInfo {
    let mut services: Vec<ServiceInfo> = Vec::new();
    for rule in rules.lines() {
        let low = args::parse(rule.split_whitespace()).unwrap();
        match command::interpret(&low, &Names::default()) {
            Ok(Invocation::Change(Change::Service(Verb::AddService, id, settings))) => {
                services.push(ServiceInfo {
                    family: id.family,
                    service: id.service,
                    scheduler: settings.scheduler,
                    flags: settings.flags,
                    persistence: settings.persistence,
                    one_packet: settings.one_packet,
                    stats: CountersInfo::default(),
                    rates: RatesInfo::default(),
                    destinations: Vec::new(),
                });
            }
            Ok(Invocation::Change(Change::Server(Verb::AddServer, id, address, settings))) => {
                find(&mut services, id).destinations.push(DestinationInfo {
                    address: address.ip(),
                    port: address.port(),
                    method: settings.method,
                    weight: settings.weight,
                    active: 0,
                    inactive: 0,
                    persistent: 0,
                    upper: settings.upper,
                    lower: settings.lower,
                    tunnel: settings.tunnel,
                    stats: CountersInfo::default(),
                    rates: RatesInfo::default(),
                });
            }
            other => panic!("{rule}: {other:?}"),
        }
    }
    ServicesInfo {
        ipvs_version: "1.2.1".into(),
        table_size: 4096,
        services,
    }
}

fn find(services: &mut [ServiceInfo], id: ServiceId) -> &mut ServiceInfo {
    services
        .iter_mut()
        .find(|service| service.family == id.family && service.service == id.service)
        .unwrap()
}

/// Answers every connection from fixed tables until the test's process ends.
struct FakeDirector {
    address: SocketAddress,
    _folder: Folder,
}

impl FakeDirector {
    fn start(name: &str, services: ServicesInfo, connections: Vec<ConnectionInfo>) -> Self {
        let folder = Folder::new(name);
        let address = SocketAddress::Path(folder.0.join("socket"));
        let listener = address.bind().unwrap();
        let timeouts = TimeoutsInfo {
            tcp: 900,
            tcp_fin: 120,
            udp: 300,
        };
        let answers = BTreeMap::from([
            ("services", vec![Reply::success(&services)]),
            ("connections", Reply::connections(&connections)),
            ("timeouts", vec![Reply::success(&timeouts)]),
            ("status", vec![Reply::success(&StatusInfo::default())]),
        ]);
        thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), |operation| {
                    let name = String::from(operation);
                    answers
                        .get(name.as_str())
                        .cloned()
                        .unwrap_or_else(|| vec![Reply::unknown(&name)])
                });
            }
        });
        Self {
            address,
            _folder: folder,
        }
    }
}

fn answer(stream: UnixStream, replies: impl Fn(Operation) -> Vec<Reply>) {
    let mut writer = stream.try_clone().unwrap();
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        let replies = match Request::parse(line.as_bytes()) {
            Ok(request) => replies(request.op),
            Err(reply) => vec![reply],
        };
        for reply in replies {
            if writer.write_all(&reply.to_line()).is_err() {
                return;
            }
        }
    }
}

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("ipvsadm-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The recordings. They lie beside the repository; where they must not be missing, `CI` is `true`.
fn corpus() -> Option<PathBuf> {
    let shared = env::var_os("LVS_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    let corpus = shared.join("corpus/ipvsadm");
    if corpus.is_dir() {
        return Some(corpus);
    }
    let message = format!("no recordings at {} (LVS_SHARED)", corpus.display());
    assert!(env::var_os("CI").is_none_or(|ci| ci != "true"), "{message}");
    println!("skipped: {message}");
    None
}

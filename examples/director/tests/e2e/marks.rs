//! Services that are found by more than an address and a port: firewall marks, and calls of SIP; and the tunables.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use netlab::{HttpServer, Namespace};
use rustix::process::Signal;

use crate::methods::Lab;
use crate::stage::{Conf, DEVICE, Director, Stage, VIP, has_xdp, rip, vip};
use crate::{once, with_workers};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![
        once(
            "tunables_come_from_a_file_and_by_hand",
            tunables_come_from_a_file_and_by_hand,
        ),
        once(
            "a_broken_file_of_marks_changes_nothing",
            a_broken_file_of_marks_changes_nothing,
        ),
    ];
    for (name, test) in [
        (
            "a_mark_makes_two_ports_one_persistent_service",
            a_mark_makes_two_ports_one_persistent_service as fn(u32),
        ),
        (
            "marks_are_changed_while_the_director_runs",
            marks_are_changed_while_the_director_runs,
        ),
        (
            "marks_lead_to_servers_by_direct_routing",
            marks_lead_to_servers_by_direct_routing,
        ),
        (
            "calls_of_many_clients_stay_with_their_server",
            calls_of_many_clients_stay_with_their_server,
        ),
    ] {
        trials.extend(with_workers(name, test));
    }
    trials.extend(with_workers(
        "ipv6_services_are_found_by_marks",
        ipv6_services_are_found_by_marks,
    ));
    if has_xdp() {
        let by_xdp: [(_, fn(u32)); 4] = [
            ("a_mark_makes_one_service_by_xdp", |workers| {
                DEVICE.set("xdp");
                a_mark_makes_two_ports_one_persistent_service(workers);
            }),
            ("marks_are_changed_by_xdp", |workers| {
                DEVICE.set("xdp");
                marks_are_changed_while_the_director_runs(workers);
            }),
            ("marks_lead_to_direct_routing_by_xdp", |workers| {
                DEVICE.set("xdp");
                marks_lead_to_servers_by_direct_routing(workers);
            }),
            ("ipv6_services_are_found_by_marks_by_xdp", |workers| {
                DEVICE.set("xdp");
                ipv6_services_are_found_by_marks(workers);
            }),
        ];
        for (name, test) in by_xdp {
            trials.extend(with_workers(name, test));
        }
    }
    trials
}

/// A service of mark 1 in place of the one for an address.
fn marked(conf: &Conf, more: &str) -> String {
    let text = conf.text().replace(
        &format!("virtual_server {VIP} 80 {{\n"),
        &format!("virtual_server fwmark 1 {{\n{more}"),
    );
    assert!(text.contains("fwmark 1"));
    // A mark has no protocol of its own.
    text.replace("    protocol TCP\n", "")
        .replace("    protocol UDP\n", "")
}

/// Servers that listen at port 443, too.
fn second_port(
    servers: &[(Namespace, HttpServer)],
    addr: impl Fn(usize) -> SocketAddr,
) -> Vec<HttpServer> {
    let start = |(n, (namespace, server)): (usize, &(Namespace, HttpServer))| {
        HttpServer::start(namespace, addr(n + 1), server.name()).unwrap()
    };
    servers.iter().enumerate().map(start).collect()
}

fn https(mut addr: SocketAddr) -> SocketAddr {
    addr.set_port(443);
    addr
}

fn ask(stage: &Stage, addr: SocketAddr) -> std::io::Result<String> {
    let response = stage.client.http_get(addr, "/", Duration::from_secs(3))?;
    assert_eq!(response.status, 200);
    Ok(response.server)
}

/// A director with a file of marks beside its configuration.
fn start(stage: &Stage, conf: &str, marks: &str, workers: u32) -> Director {
    Director::start_with(stage, conf, workers, &[("marks", marks)])
}

fn a_mark_makes_two_ports_one_persistent_service(workers: u32) {
    let stage = Stage::nat(2);
    let _second = second_port(&stage.servers, |n| https(rip(n)));
    let mut conf = Conf::nat(2);
    for (server, _) in &mut conf.servers {
        *server = server.replace(" 80", " 0");
    }
    // Port 0 can't be checked.
    conf.protocol = "UDP";
    let text = marked(&conf, "    persistence_timeout 60\n");
    let rules = format!("daddr {VIP} tcp dport {{ 80, 443 }} mark 1\n");
    let director = start(&stage, &text, &rules, workers);
    let first = ask(&stage, vip()).unwrap_or_else(|error| panic!("{error}\n{}", director.log()));
    for _ in 0..5 {
        assert_eq!(ask(&stage, https(vip())).unwrap(), first);
        assert_eq!(ask(&stage, vip()).unwrap(), first);
    }
    // Another client is free to meet the other server.
    stage
        .client
        .add_address("eth0", "198.51.100.11/24")
        .unwrap();
    let other = ask_from(&stage, "198.51.100.11", https(vip()));
    assert_ne!(other, first);
    let listing = director.ipvsadm(&["-Ln"]);
    assert!(listing.contains("FWM  1 rr persistent 60\n"), "{listing}");
    let connections = director.ipvsadm(&["-Lnc"]);
    assert!(
        connections.contains("IP  "),
        "a template of the mark: {connections}"
    );
    let (status, why, _) =
        director.beside(&["why", "tcp", "198.51.100.10:4000", &vip().to_string()]);
    assert_eq!(status, 0, "{why}");
    assert!(why.contains("the mark 1"), "{why}");
    // Another port of the address is the host's.
    let mut ssh = vip();
    ssh.set_port(22);
    let refused = stage
        .client
        .http_get(ssh, "/", Duration::from_secs(2))
        .unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(
        !director.log().contains("no rule gives packets"),
        "{}",
        director.log()
    );
    assert!(director.terminate().success());
}

/// The name of the server that answers a client with this address.
fn ask_from(stage: &Stage, source: &str, to: SocketAddr) -> String {
    use std::io::{Read, Write};
    let source: SocketAddr = format!("{source}:0").parse().unwrap();
    let text = stage.client.run(|| {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&source.into()).unwrap();
        socket
            .connect_timeout(&to.into(), Duration::from_secs(3))
            .unwrap();
        let mut stream = std::net::TcpStream::from(socket);
        stream
            .set_read_timeout(Some(Duration::from_secs(3)))
            .unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    let mut names = (1..10).map(|n| format!("rs{n}"));
    names
        .find(|name| text.contains(name.as_str()))
        .unwrap_or_else(|| panic!("{text}"))
}

fn marks_are_changed_while_the_director_runs(workers: u32) {
    let stage = Stage::nat(1);
    let director = Director::start(&stage, "", workers);
    stage
        .director
        .add_address("ext0", &format!("{VIP}/24"))
        .unwrap();
    director.ipvsadm(&["-A", "-f", "5", "-s", "rr"]);
    director.ipvsadm(&["-a", "-f", "5", "-r", "10.1.0.11:80", "-m"]);
    director.wait_for_log("virtual service FWM 5: no rule gives packets this mark");
    let refused = |port| {
        let mut addr = vip();
        addr.set_port(port);
        let answer = stage.client.http_get(addr, "/", Duration::from_secs(2));
        matches!(answer, Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused)
    };
    assert!(refused(80));
    let mark = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        director.beside(&[&["mark"][..], &words].concat())
    };
    let done = (0, String::new(), String::new());
    assert_eq!(
        mark(&format!("add iif ext0 daddr {VIP} tcp dport 80-90 mark 5")),
        done
    );
    // The server's port is its own: a range of ports is served by one.
    for port in [80, 85] {
        let mut addr = vip();
        addr.set_port(port);
        assert_eq!(ask(&stage, addr).unwrap(), "rs1", "{}", director.log());
    }
    assert!(refused(91));
    assert_eq!(
        mark(&format!("add --first daddr {VIP} tcp dport 85 mark 0")),
        done
    );
    assert!(refused(85), "it is exempt");
    assert_eq!(ask(&stage, vip()).unwrap(), "rs1");
    let (_, listed, _) = mark("list");
    assert_eq!(
        listed,
        format!(
            "daddr {VIP} tcp dport 85 mark 0 # by hand # no service\n\
             iif ext0 daddr {VIP} tcp dport 80-90 mark 5 # by hand\n"
        )
    );
    let (status, _, errors) = mark("delete mark 9");
    assert_eq!(status, 2);
    assert!(errors.contains("there is no such rule"), "{errors}");
    let (status, _, errors) = mark("add dport x mark 9");
    assert_eq!(status, 2);
    assert!(errors.contains("`x` is no port"), "{errors}");
    assert_eq!(mark("flush"), done);
    assert!(refused(80));
    assert!(director.terminate().success());
}

fn marks_lead_to_servers_by_direct_routing(workers: u32) {
    let stage = Stage::direct(2);
    let any = SocketAddr::from(([0, 0, 0, 0], 443));
    let _second = second_port(&stage.servers, |_| any);
    let rules = format!("daddr {VIP} tcp dport 80,443 mark 1\n");
    let director = start(&stage, &marked(&Conf::direct(2), ""), &rules, workers);
    let servers: Vec<String> = [vip(), https(vip()), vip(), https(vip())]
        .into_iter()
        .map(|addr| ask(&stage, addr).unwrap_or_else(|error| panic!("{error}\n{}", director.log())))
        .collect();
    assert_eq!(servers[0], servers[2]);
    assert_ne!(servers[0], servers[1], "one service, in turn");
    assert_eq!(servers[1], servers[3]);
}

fn ipv6_services_are_found_by_marks(workers: u32) {
    let lab = Lab::new(true, "NAT", true, 2);
    let text = lab.conf("NAT", &[("TCP", 80, "")]);
    let (vip, rest) = (lab.vip(), "    protocol TCP\n");
    let text = text
        .replace(
            &format!("virtual_server {vip} 80 {{"),
            "virtual_server fwmark 1 {",
        )
        .replace(rest, "");
    let rules = format!(
        "daddr {vip} tcp dport 85 mark 0\nip6 daddr {vip} tcp dport 80-90 mark 1\ndaddr {vip}/128 udp mark 1\n"
    );
    let _servers: Vec<HttpServer> = (1..)
        .zip(&lab.servers)
        .map(|(n, server)| {
            let any = SocketAddr::from(([0; 16], 80));
            let socket = server.run(|| UdpSocket::bind(any)).unwrap();
            thread::spawn(move || {
                let mut buffer = vec![0; 9000];
                while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&buffer[..length], from);
                }
            });
            HttpServer::start(server, any, &format!("rs{n}")).unwrap()
        })
        .collect();
    let director = Director::start_beside(&lab.director, &text, workers, &[("marks", &rules)]);
    let ask = |port| {
        lab.client
            .http_get(lab.at(port), "/", Duration::from_secs(3))
    };
    let mut names: Vec<String> = [80, 90, 80, 90]
        .into_iter()
        .map(|port| {
            let answer = ask(port).unwrap_or_else(|error| panic!("{error}\n{}", director.log()));
            answer.server
        })
        .collect();
    assert_eq!(names[0], names[2]);
    names.sort_unstable();
    names.dedup();
    assert_eq!(names, ["rs1", "rs2"], "one service, in turn");
    // Only its first part has ports.
    let datagram: Vec<u8> = (0..8000).map(|n| n as u8).collect();
    let any = SocketAddr::from(([0; 16], 0));
    let socket = lab.client.run(|| UdpSocket::bind(any)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    socket.send_to(&datagram, lab.at(80)).unwrap();
    let mut buffer = vec![0; 9000];
    let (length, from) = socket
        .recv_from(&mut buffer)
        .unwrap_or_else(|error| panic!("{error}\n{}", director.log()));
    assert_eq!(from, lab.at(80));
    assert!(buffer[..length] == datagram);
    // What has no mark is the host's, whether it is exempt or not spoken of.
    let mut host = lab
        .director
        .run(|| HttpServer::start(&lab.director, lab.at(85), "host"))
        .unwrap();
    assert_eq!(ask(85).unwrap().server, "host");
    host.stop();
    for port in [85, 91] {
        let refused = ask(port).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    let listing = director.ipvsadm(&["-Ln"]);
    assert!(listing.contains("FWM  1 IPv6 rr"), "{listing}");
    let (status, why, _) = director.beside(&[
        "why",
        "tcp",
        "[2001:db8:c::10]:4000",
        &lab.at(80).to_string(),
    ]);
    assert_eq!(status, 0, "{why}");
    assert!(why.contains("the mark 1"), "{why}");
    assert!(director.terminate().success());
}

fn a_broken_file_of_marks_changes_nothing() {
    let stage = Stage::nat(1);
    let text = marked(&Conf::nat(1), "");
    let rule = format!("daddr {VIP} tcp dport 80 mark 1\n");
    let director = start(&stage, &text, &rule, 1);
    assert_eq!(ask(&stage, vip()).unwrap(), "rs1");
    let file = director.file.with_extension("marks");
    fs::write(&file, format!("{rule}daddr {VIP} tcp dport 80 mrak 1\n")).unwrap();
    director.signal(Signal::HUP);
    director.wait_for_log("reload refused");
    let log = director.log();
    assert!(
        log.contains(&format!(
            "{}:2:35: `mrak` is not known here",
            file.display()
        )),
        "{log}"
    );
    assert_eq!(ask(&stage, vip()).unwrap(), "rs1");
    let (status, _, errors) = director.beside(&["-t", "-f", director.file.to_str().unwrap()]);
    assert_eq!(status, 5, "{errors}");
    assert!(errors.contains(":2:35:"), "{errors}");
    let plan = || director.beside(&["plan", "-f", director.file.to_str().unwrap()]);
    let (status, _, errors) = plan();
    assert!(status == 2 && errors.contains("`mrak`"), "{errors}");
    // A rule for the mark is missing: said, and carried out.
    fs::write(&file, "").unwrap();
    let (status, _, errors) = plan();
    assert!(
        status == 0 && errors.contains("no rule gives packets this mark"),
        "{errors}"
    );
    director.signal(Signal::HUP);
    director.wait_for_log("no rule gives packets this mark");
    director.wait_until("the port the host's", || ask(&stage, vip()).is_err());
}

fn calls_of_many_clients_stay_with_their_server(workers: u32) {
    let stage = Stage::nat(2);
    let text = format!(
        "vrrp_instance VI_1 {{\n    interface ext0\n    virtual_router_id 51\n    priority 255\n    virtual_ipaddress {{\n        {VIP}/24\n    }}\n}}\n\
         virtual_server {VIP} 5060 {{\n    lb_algo rr\n    lb_kind NAT\n    protocol UDP\n    ops\n    persistence_timeout 60\n    \
         persistence_granularity 0.0.0.0\n    persistence_engine sip\n    \
         real_server 10.1.0.11 5060 {{\n    }}\n    real_server 10.1.0.12 5060 {{\n    }}\n}}\n"
    );
    let director = Director::start(&stage, &text, workers);
    for (n, (namespace, _)) in stage.servers.iter().enumerate() {
        let mut addr = rip(n + 1);
        addr.set_port(5060);
        let socket = namespace.run(|| UdpSocket::bind(addr)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                // An answer of the call, or the balancer does not know it.
                let text = String::from_utf8_lossy(&buffer).into_owned();
                let call = text
                    .lines()
                    .find(|line| line.starts_with("Call-ID"))
                    .unwrap_or_default();
                let answer = format!("SIP/2.0 200 OK\r\n{call}\r\nX-Server: rs{}\r\n\r\n", n + 1);
                socket.send_to(answer.as_bytes(), from).unwrap();
            }
        });
    }
    for last in 20..24 {
        stage
            .client
            .add_address("eth0", &format!("198.51.100.{last}/24"))
            .unwrap();
    }
    let call = |last: u8, id: &str| -> String {
        let bind = SocketAddr::from(([198, 51, 100, last], 0));
        let socket = stage.client.run(|| UdpSocket::bind(bind)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(3)))
            .unwrap();
        let request = format!("OPTIONS sip:a@b SIP/2.0\r\nVia: x\r\nCall-ID: {id}\r\n\r\n");
        socket
            .send_to(request.as_bytes(), SocketAddr::new(vip().ip(), 5060))
            .unwrap();
        let mut buffer = [0; 2048];
        let (length, _) = socket
            .recv_from(&mut buffer)
            .unwrap_or_else(|error| panic!("{error}\n{}", director.log()));
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        text.split("X-Server: ").nth(1).unwrap().trim().to_owned()
    };
    let servers: Vec<String> = (0..4).map(|n| call(20, &format!("call{n}@host"))).collect();
    assert!(
        servers.contains(&"rs1".into()) && servers.contains(&"rs2".into()),
        "{servers:?}"
    );
    for last in 20..24 {
        for (n, server) in servers.iter().enumerate() {
            assert_eq!(
                call(last, &format!("call{n}@host")),
                *server,
                "client {last}, call {n}"
            );
        }
    }
    let listing = director.ipvsadm(&["-Ln"]);
    let line = format!("UDP  {VIP}:5060 rr persistent 60 mask 0.0.0.0 pe sip ops\n");
    assert!(listing.contains(&line), "{listing}");
    let saved = director.ipvsadm(&["-Sn"]);
    assert!(saved.contains("--pe sip"), "{saved}");
    let templates = director.ipvsadm(&["-Lnc", "--persistent-conn"]);
    assert!(
        templates.contains("sip") && templates.contains("call0@host"),
        "{templates}"
    );
}

fn tunables_come_from_a_file_and_by_hand() {
    let stage = Stage::nat(1);
    let text = Conf::nat(1).text();
    let file = "net.ipv4.vs.expire_nodest_conn = 1\nsloppy_tcp=1\n";
    let director = Director::start_with(&stage, &text, 1, &[("sysctl", file)]);
    let show = || director.beside(&["show", "tunables"]).1;
    let has = |line: &str| show().lines().any(|shown| shown.starts_with(line));
    assert!(has("expire_nodest_conn = 1") && has("sloppy_tcp = 1") && has("conn_reuse_mode = 1"));
    let set = director.beside(&["set", "net.ipv4.vs.conn_reuse_mode=0", "drop_entry=1"]);
    assert_eq!(set, (0, String::new(), String::new()));
    assert!(has("conn_reuse_mode = 0") && show().contains("(default 1)"));
    let (status, _, errors) = director.beside(&["set", "sloppy_sctp=1", "drop_entry=9"]);
    assert_eq!(status, 2);
    assert!(errors.contains("it is 0 to 3"), "{errors}");
    assert!(has("sloppy_sctp = 0"), "all or nothing");
    // The file sets one otherwise and drops the other; what is by hand stays.
    fs::write(director.file.with_extension("sysctl"), "sloppy_tcp = 0\n").unwrap();
    director.signal(Signal::HUP);
    director.wait_for_log("reload done");
    assert!(has("expire_nodest_conn = 0") && has("sloppy_tcp = 0"));
    assert!(has("conn_reuse_mode = 0") && has("drop_entry = 1"));
    assert_eq!(stage.ask().unwrap(), "rs1");
}

//! A real FTP server behind the director: what its control connections announce is followed, and rewritten where it must
//! be.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use netlab::Namespace;

use crate::methods::Lab;
use crate::stage::{Director, PATIENCE, state};

pub(crate) fn trials() -> Vec<Trial> {
    for program in [SERVER, CLIENT] {
        if !Path::new(program).exists() {
            let message = format!("skipped: FTP tests need {program}");
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{message}");
            println!("{message}");
            return Vec::new();
        }
    }
    if rustix::process::geteuid().is_root()
        && fs::read("/proc/self/setgroups").unwrap() == b"deny\n"
    {
        println!("skipped: the FTP server does not run in a user namespace");
        return Vec::new();
    }
    let mut trials = Vec::new();
    for (name, v6) in [("ipv4", false), ("ipv6", true)] {
        for (offloads, on) in [("offloads", true), ("no_offloads", false)] {
            let workers = 1 + u32::from(on != v6);
            let name = format!("ftp_by_nat_passive_and_active::{name}_{offloads}");
            trials.push(Trial::test(name, move || {
                by_nat(v6, on, workers);
                Ok(())
            }));
        }
        for (method, workers) in [("DR", 1), ("TUN", 2)] {
            let name = format!("persistence_keeps_ftp_together::{method}_{name}");
            trials.push(Trial::test(name, move || {
                persistence_keeps_it_together(method, v6, workers);
                Ok(())
            }));
        }
    }
    trials
}

/// An FTP server that serves a folder to anybody.
struct FtpServer {
    child: Child,
    root: PathBuf,
}

impl FtpServer {
    /// At port 21 of every address of one family. Its file `name` has the name, and `up` may be written to.
    fn start(namespace: &Namespace, name: &str, v6: bool) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = state().join(format!("ftp-{number}"));
        fs::create_dir_all(root.join("up")).unwrap();
        fs::write(root.join("name"), name).unwrap();
        fs::write(root.join("large"), large()).unwrap();
        let mut conf = String::new();
        let (v4, v6) = if v6 { ("NO", "YES") } else { ("YES", "NO") };
        writeln!(conf, "listen={v4}\nlisten_ipv6={v6}").unwrap();
        writeln!(conf, "anon_root={0}\nsecure_chroot_dir={0}", root.display()).unwrap();
        conf.push_str(
            "background=NO\nanonymous_enable=YES\nno_anon_password=YES\nlocal_enable=NO\nftp_username=root\n\
             write_enable=YES\nanon_upload_enable=YES\nanon_other_write_enable=YES\nanon_world_readable_only=NO\n\
             run_as_launching_user=YES\nconnect_from_port_20=YES\nxferlog_enable=NO\n\
             isolate=NO\nisolate_network=NO\nseccomp_sandbox=NO\n",
        );
        let file = root.with_extension("conf");
        fs::write(&file, conf).unwrap();
        let mut command = namespace.command(SERVER).unwrap();
        let child = command.arg(&file).stdin(Stdio::null()).spawn().unwrap();
        Self { child, root }
    }
}

impl Drop for FtpServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the client does with one control connection: status, output and the dialogue.
fn curl(client: &Namespace, arguments: &[&str]) -> (bool, Vec<u8>, String) {
    let mut command = client.command(CLIENT).unwrap();
    let output = command
        .args(["-sS", "-v", "--max-time", "20"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let dialogue = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), output.stdout, dialogue)
}

fn large() -> Vec<u8> {
    (0..LARGE).map(|n| (n * 7 + (n >> 9)) as u8).collect()
}

/// Waits until every server answers the director's checks.
fn wait_for_servers(director: &Director, count: usize) {
    director.wait_until("servers", || director.service().destinations.len() == count);
}

fn by_nat(v6: bool, offloads: bool, workers: u32) {
    let lab = Lab::new(v6, "NAT", offloads, 1);
    let server = FtpServer::start(&lab.servers[0], "rs1", v6);
    wait_for_port(&lab.servers[0], v6);
    let director = Director::start_in(
        &lab.director,
        &lab.conf("NAT", &[("TCP", 21, CHECK)]),
        workers,
    );
    wait_for_servers(&director, 1);
    let url = format!("ftp://{}/", lab.at(21));
    let upload = server.root.with_extension("upload");
    fs::write(&upload, large()).unwrap();
    // How the client asks, and what must have been said.
    let mut ways: Vec<(&[&str], &str)> = vec![(&[], "> EPSV"), (&["--ftp-port", "-"], "> EPRT")];
    if !v6 {
        ways.push((&["--disable-epsv"], "> PASV"));
        ways.push((&["--ftp-port", "-", "--disable-eprt"], "> PORT"));
    }
    for (n, (way, said)) in ways.into_iter().enumerate() {
        let whole = format!("{said}\nlog of the director:\n{}", director.log());
        // Two transfers by one control connection, so that the second answer comes in a stream that has moved.
        let (first, second) = (format!("{url}large"), format!("{url}name"));
        let (ok, bytes, dialogue) = curl(&lab.client, &[way, &[first.as_str(), &second]].concat());
        assert!(ok, "{dialogue}\n{whole}");
        assert!(dialogue.contains(said), "{dialogue}");
        assert_eq!(bytes.len(), LARGE + 3, "{dialogue}");
        assert!(
            bytes[..LARGE] == large() && bytes[LARGE..] == *b"rs1",
            "{said}"
        );
        let (ok, list, dialogue) = curl(&lab.client, &[way, &[url.as_str()]].concat());
        assert!(ok, "{dialogue}\n{whole}");
        assert!(
            String::from_utf8_lossy(&list).contains(" large"),
            "{dialogue}"
        );
        let (from, to) = (upload.to_str().unwrap(), format!("{url}up/{n}"));
        let (ok, _, dialogue) = curl(&lab.client, &[way, &["-T", from, &to]].concat());
        assert!(ok, "{dialogue}\n{whole}");
        let there = server.root.join(format!("up/{n}"));
        assert!(fs::read(there).unwrap() == large(), "{said}");
        if said == "> PASV" {
            let tuple = lab.vip().to_string().replace('.', ",");
            assert!(dialogue.contains(&format!("({tuple},")), "{dialogue}");
        }
    }
    let connections = director.ipvsadm(&["-Lnc"]);
    assert!(connections.contains(":20 "), "active: {connections}");
    // What is not FTP is the host's: a port of its own at the same address, and one where nobody listens.
    let at = lab.at(9000);
    let listener = lab.director.run(|| TcpListener::bind(at)).unwrap();
    let echo = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"the host").unwrap();
    });
    let mut text = String::new();
    let connect = |at: SocketAddr| {
        let patience = Duration::from_secs(5);
        lab.client.run(|| TcpStream::connect_timeout(&at, patience))
    };
    connect(at).unwrap().read_to_string(&mut text).unwrap();
    echo.join().unwrap();
    assert_eq!(text, "the host");
    let refused = connect(lab.at(9001)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(director.terminate().success());
}

fn persistence_keeps_it_together(method: &str, v6: bool, workers: u32) {
    let lab = Lab::new(v6, method, true, 2);
    let _servers: Vec<FtpServer> = (1..)
        .zip(&lab.servers)
        .map(|(n, namespace)| FtpServer::start(namespace, &format!("rs{n}"), v6))
        .collect();
    let _decapsulators: Vec<_> = match method {
        "TUN" => (lab.servers.iter())
            .map(|server| netlab::Decapsulator::start(server).unwrap())
            .collect(),
        _ => Vec::new(),
    };
    for server in &lab.servers {
        wait_for_port(server, v6);
    }
    let conf = lab.conf(method, &[("TCP", 21, CHECK)]);
    let conf = conf.replace(
        "    protocol TCP\n",
        "    protocol TCP\n    persistence_timeout 60\n",
    );
    let director = Director::start_in(&lab.director, &conf, workers);
    wait_for_servers(&director, 2);
    let url = format!("ftp://{}/name", lab.at(21));
    let ask = |way: &[&str]| {
        let (ok, name, dialogue) = curl(&lab.client, &[way, &[url.as_str()]].concat());
        assert!(ok, "{dialogue}\n{}", director.log());
        String::from_utf8(name).unwrap()
    };
    let first = ask(&[]);
    for way in [&[][..], &["--ftp-port", "-"], &[]] {
        assert_eq!(ask(way), first);
    }
    let listing = director.ipvsadm(&["-Lnc"]);
    let ports: Vec<&str> = (listing.lines().skip(2))
        .filter_map(|line| line.split_whitespace().nth(4)?.rsplit_once(':'))
        .map(|(_, port)| port)
        .collect();
    assert!(
        ports.contains(&"0"),
        "one template for all ports: {listing}"
    );
    assert!(ports.contains(&"21"), "{listing}");
    assert!(
        ports.iter().any(|port| port.parse::<u16>().unwrap() > 1023),
        "data connections: {listing}"
    );
    assert!(director.terminate().success());
}

fn wait_for_port(server: &Namespace, v6: bool) {
    let loopback: SocketAddr = if v6 { "[::1]:21" } else { "127.0.0.1:21" }
        .parse()
        .unwrap();
    let started = Instant::now();
    while server.run(|| TcpStream::connect(loopback)).is_err() {
        assert!(started.elapsed() < PATIENCE, "no FTP server");
        thread::sleep(Duration::from_millis(10));
    }
}

const SERVER: &str = "/usr/sbin/vsftpd";
const CLIENT: &str = "/usr/bin/curl";
const LARGE: usize = 3 << 20;
const CHECK: &str = "TCP_CHECK {\n            connect_timeout 1\n            warmup 0\n        }\n";

//! The three cases of the kernel's own IPVS test, with our `ipvsadm` and director in place of the kernel's: 32 random bytes
//! through `socat` to port 8080 of a virtual address, by DR, NAT and TUN.
//!
//! Client, director and server are connected with each other pairwise. What comes by DR and TUN is answered over the
//! link between server and client, what comes by NAT the way that it came.

use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use netlab::Namespace;

use crate::stage::{Director, RealServer};
use crate::with_workers;

pub(crate) fn trials() -> Vec<Trial> {
    [
        ("selftest_dr", dr as fn(u32)),
        ("selftest_nat", nat),
        ("selftest_tun", tun),
    ]
    .into_iter()
    .flat_map(|(name, test)| with_workers(name, test))
    .collect()
}

fn dr(workers: u32) {
    let Some(lab) = Lab::new(CLIENT_OF_SERVER) else {
        return;
    };
    let _ready = RealServer::start_for(&lab.server, "dr", VIP).unwrap();
    lab.transfer(workers, "-g");
}

fn nat(workers: u32) {
    if let Some(lab) = Lab::new(DIRECTOR_OF_SERVER) {
        lab.transfer(workers, "-m");
    }
}

fn tun(workers: u32) {
    let Some(lab) = Lab::new(CLIENT_OF_SERVER) else {
        return;
    };
    let _ready = RealServer::start_for(&lab.server, "tun", VIP).unwrap();
    lab.transfer(workers, "-i");
}

struct Lab {
    client: Namespace,
    director: Namespace,
    server: Namespace,
}

impl Lab {
    /// `None` without `socat`. The server sends answers to `router`.
    fn new(router: &str) -> Option<Self> {
        let [client, director, server] =
            ["client", "director", "server"].map(|name| Namespace::new(name).unwrap());
        if client.command("socat").unwrap().arg("-V").output().is_err() {
            let message = "skipped: socat is not installed";
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{message}");
            println!("{message}");
            return None;
        }
        for (one, other) in [
            (
                (&client, "dir", "10.8.1.1/24"),
                (&director, "cli", "10.8.1.2/24"),
            ),
            (
                (&director, "srv", "10.8.2.1/24"),
                (&server, "dir", "10.8.2.2/24"),
            ),
            (
                (&server, "cli", "10.8.3.2/24"),
                (&client, "srv", "10.8.3.1/24"),
            ),
        ] {
            netlab::veth(one, other).unwrap();
        }
        for host in [&client, &server] {
            host.sysctl("net.ipv4.conf.all.rp_filter", "0").unwrap();
        }
        director.add_address("lo", &format!("{VIP}/32")).unwrap();
        client.add_route(&format!("{VIP}/32"), "10.8.1.2").unwrap();
        server.default_route(router).unwrap();
        Some(Self {
            client,
            director,
            server,
        })
    }

    /// Sends 32 bytes to the service by this method, and looks what arrived.
    fn transfer(&self, workers: u32, method: &str) {
        let director = Director::launch(&self.director, "", workers);
        director.wait_for_log("running ");
        let (service, server) = (format!("{VIP}:8080"), "10.8.2.2:8080");
        director.ipvsadm(&["-A", "-t", &service, "-s", "rr"]);
        director.ipvsadm(&["-a", "-t", &service, "-r", server, method]);

        let receiver = self.socat(&["-u", "TCP4-LISTEN:8080,reuseaddr", "STDOUT"]);
        self.wait_until_it_listens();
        let sent = random();
        let mut sender = self
            .client
            .command("socat")
            .unwrap()
            .args(["-u", "STDIN"])
            .arg(format!("TCP4:{service},connect-timeout=5"))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        sender.stdin.take().unwrap().write_all(&sent).unwrap();
        assert!(sender.wait().unwrap().success(), "{}", director.log());
        let received = receiver.wait_with_output().unwrap();
        assert_eq!(received.stdout, sent);
        let stats = director.service().stats;
        assert_eq!(stats.conns, 1);
        assert_eq!(stats.outpkts > 0, method == "-m", "{stats:?}");
    }

    fn socat(&self, arguments: &[&str]) -> Child {
        let mut command = self.server.command("socat").unwrap();
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command.spawn().unwrap()
    }

    fn wait_until_it_listens(&self) {
        let end = Instant::now() + Duration::from_secs(5);
        let listens = || {
            let sockets = self
                .server
                .run(|| std::fs::read_to_string("/proc/thread-self/net/tcp"))
                .unwrap();
            // Port 8080, state LISTEN.
            sockets.contains(":1F90 00000000:0000 0A")
        };
        while !listens() {
            assert!(Instant::now() < end, "socat does not listen");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn random() -> Vec<u8> {
    use std::hash::{BuildHasher, RandomState};
    let state = RandomState::new();
    (0..4_u64)
        .flat_map(|word| state.hash_one(word).to_le_bytes())
        .collect()
}

const VIP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(207, 175, 44, 110));
/// Neighbours of the server.
const CLIENT_OF_SERVER: &str = "10.8.3.1";
const DIRECTOR_OF_SERVER: &str = "10.8.2.1";

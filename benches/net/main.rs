//! The data path beside what else forwards packets: plain kernel forwarding, and balancing by nftables DNAT.
//!
//! ```text
//! cargo run --release -p lvs-benches --bin net            # about a minute; needs root for a core of its own
//! cargo run --release -p lvs-benches --bin net -- --quick # a few seconds, to see that it runs
//! ```
//!
//! Client, director and two servers are network namespaces on this machine. The generator has the first core, the path the
//! second: the director's process is pinned there, and the kernel's receive processing is steered there. All candidates are measured
//! in turn, several rounds, and shown as ratios of the medians to kernel forwarding: absolute numbers of a shared machine mean
//! little.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use director::cli::RunOptions;
use netlab::{Bridge, Namespace};
use rustix::thread::{CpuSet, sched_setaffinity};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["director", file] => run_director(file),
        ["--quick"] => compare(1, Duration::from_millis(200)),
        [] => compare(5, Duration::from_secs(2)),
        _ => {
            eprintln!("usage: net [--quick]");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("net: {error}");
            ExitCode::FAILURE
        }
    }
}

/// This program again, as the director under measurement.
fn run_director(file: &str) -> io::Result<()> {
    pin(PATH_CORE)?;
    let options = RunOptions {
        file: PathBuf::from(file),
        config_id: None,
        log_console: true,
        log_detail: false,
        workers: NonZeroU32::MIN,
        ring_slots: NonZeroU32::new(256).expect("256 is not zero"),
    };
    director::app::run(options).map_err(io::Error::other)
}

fn compare(rounds: usize, time: Duration) -> io::Result<()> {
    if let Err(error) = netlab::enter() {
        println!("skipped: network namespaces are not permitted here: {error}");
        return Ok(());
    }
    let stage = Stage::new()?;
    if !stage.steer() {
        println!(
            "skipped: steering the kernel's receive processing to a core of its own needs root; the generator's core forwards"
        );
    }
    let mut results: Vec<Measured> = CANDIDATES
        .iter()
        .map(|candidate| Measured::new(*candidate))
        .collect();
    for _ in 0..rounds {
        for measured in &mut results {
            let Some(running) = stage.start(measured.candidate)? else {
                continue;
            };
            let target = measured.candidate.target();
            measured.packets.push(stage.flood(target, time)?);
            measured.bytes.push(stage.stream(target, time)?);
            stage.stop(running)?;
        }
    }
    report(&results);
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Candidate {
    Forwarding,
    Nftables,
    Director,
}

const CANDIDATES: [Candidate; 3] = [
    Candidate::Forwarding,
    Candidate::Nftables,
    Candidate::Director,
];

impl Candidate {
    fn name(self) -> &'static str {
        match self {
            Self::Forwarding => "kernel forwarding",
            Self::Nftables => "nftables DNAT",
            Self::Director => "director, ring, NAT",
        }
    }

    /// Forwarding goes to a server, balancing to the virtual address.
    fn target(self) -> SocketAddr {
        match self {
            Self::Forwarding => ([10, 1, 0, 11], PORT).into(),
            Self::Nftables | Self::Director => (VIP, PORT).into(),
        }
    }
}

#[derive(Debug)]
struct Measured {
    candidate: Candidate,
    packets: Vec<f64>,
    bytes: Vec<f64>,
}

impl Measured {
    fn new(candidate: Candidate) -> Self {
        Self {
            candidate,
            packets: Vec::new(),
            bytes: Vec::new(),
        }
    }
}

fn report(results: &[Measured]) {
    let median = |values: &[f64]| {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied()
    };
    let base = &results[0];
    let (base_packets, base_bytes) = (median(&base.packets), median(&base.bytes));
    println!(
        "{:<22}{:>14}{:>9}{:>14}{:>9}",
        "", "UDP packets/s", "ratio", "TCP MB/s", "ratio"
    );
    for measured in results {
        let (Some(packets), Some(bytes)) = (median(&measured.packets), median(&measured.bytes))
        else {
            println!("{:<22} skipped", measured.candidate.name());
            continue;
        };
        let ratio = |value: f64, base: Option<f64>| base.map_or(0.0, |base| value / base);
        println!(
            "{:<22}{packets:>14.0}{:>9.2}{:>14.0}{:>9.2}",
            measured.candidate.name(),
            ratio(packets, base_packets),
            bytes / 1e6,
            ratio(bytes, base_bytes)
        );
    }
}

struct Stage {
    client: Namespace,
    director: Namespace,
    _switch: Namespace,
    servers: Vec<Namespace>,
}

enum Running {
    Kernel,
    Director(Child, PathBuf),
}

impl Stage {
    fn new() -> io::Result<Self> {
        let [client, director, switch] = ["client", "director", "switch"].map(Namespace::new);
        let (client, director, switch) = (client?, director?, switch?);
        netlab::veth(
            (&client, "eth0", "198.51.100.10/24"),
            (&director, "ext0", "198.51.100.1/24"),
        )?;
        client.default_route("198.51.100.1")?;
        director.forward()?;
        let mut servers = Vec::new();
        let lan = Bridge::new(&switch, "lan")?;
        lan.attach(&director, "int0", "10.1.0.1/24")?;
        for n in 11..13_u8 {
            let server = Namespace::new("server")?;
            let addr = SocketAddr::from(([10, 1, 0, n], PORT));
            lan.attach(&server, "eth0", &format!("10.1.0.{n}/24"))?;
            server.default_route("10.1.0.1")?;
            // Nobody reads: the counter of the interface counts.
            let sink = server.run(|| UdpSocket::bind(addr))?;
            let listener = server.run(|| TcpListener::bind(addr))?;
            server.spawn(move || {
                let _sink = sink;
                pour(&listener);
            })?;
            servers.push(server);
        }
        drop(lan);
        Ok(Self {
            client,
            director,
            _switch: switch,
            servers,
        })
    }

    /// Receive processing of the director's interfaces on the path's core. The interfaces' settings stand in sysfs, which shows
    /// those of the namespace that mounted it.
    fn steer(&self) -> bool {
        let script = format!(
            "mount -t sysfs sysfs /sys && for device in ext0 int0; do echo {:x} > /sys/class/net/$device/queues/rx-0/rps_cpus || exit 1; done",
            1_u32 << PATH_CORE
        );
        let command = self.director.command("/usr/bin/unshare");
        command
            .and_then(|mut unshare| {
                unshare
                    .args(["-m", "/bin/sh", "-c", &script])
                    .stderr(Stdio::null())
                    .status()
            })
            .is_ok_and(|status| status.success())
    }

    /// `None` if the candidate can't run here.
    fn start(&self, candidate: Candidate) -> io::Result<Option<Running>> {
        match candidate {
            Candidate::Forwarding => Ok(Some(Running::Kernel)),
            Candidate::Nftables => {
                self.director.add_address("ext0", VIP_CIDR)?;
                if self.nft(NFTABLES)? {
                    return Ok(Some(Running::Kernel));
                }
                self.remove_vip()?;
                Ok(None)
            }
            Candidate::Director => {
                let file = env::temp_dir().join(format!("lvs-bench-{}.conf", std::process::id()));
                fs::write(&file, config())?;
                let child = self
                    .director
                    .command(env::current_exe()?)?
                    .arg("director")
                    .arg(&file)
                    .env_remove("LVS_SOCKET")
                    .stderr(Stdio::null())
                    .spawn()?;
                self.wait_for_service()?;
                Ok(Some(Running::Director(child, file)))
            }
        }
    }

    fn stop(&self, running: Running) -> io::Result<()> {
        match running {
            Running::Kernel => {
                self.nft("flush ruleset")?;
                self.remove_vip()
            }
            Running::Director(mut child, file) => {
                child.kill()?;
                child.wait()?;
                let _ = fs::remove_file(file);
                self.remove_vip()
            }
        }
    }

    fn remove_vip(&self) -> io::Result<()> {
        let mut netlink = self.director.netlink().map_err(io::Error::other)?;
        let addresses = netlink.addresses().map_err(io::Error::other)?;
        for address in addresses
            .iter()
            .filter(|address| address.addr == std::net::IpAddr::from(VIP))
        {
            netlink.delete_address(address).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Whether the program is there.
    fn nft(&self, rules: &str) -> io::Result<bool> {
        if !Path::new(NFT).exists() {
            return Ok(false);
        }
        let mut child = self
            .director
            .command(NFT)?
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(rules.as_bytes())?;
        }
        if child.wait()?.success() {
            return Ok(true);
        }
        Err(io::Error::other("nft refused the rules"))
    }

    fn wait_for_service(&self) -> io::Result<()> {
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            let answer = self.client.run(|| {
                TcpStream::connect_timeout(&(VIP, PORT).into(), Duration::from_millis(200))
            });
            match answer {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > until => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Small UDP packets of many flows as fast as one core sends them; packets a second that reach the servers.
    fn flood(&self, target: SocketAddr, time: Duration) -> io::Result<f64> {
        let sockets: Vec<UdpSocket> = self.client.run(|| {
            (0..FLOWS)
                .map(|_| {
                    let socket = UdpSocket::bind("0.0.0.0:0")?;
                    socket.connect(target)?;
                    Ok(socket)
                })
                .collect::<io::Result<_>>()
        })?;
        let send = |until: Instant| {
            self.client.run(|| {
                let _ = pin(GENERATOR_CORE);
                while Instant::now() < until {
                    for socket in &sockets {
                        // A full queue loses a packet; what arrives is what counts.
                        let _ = socket.send(&[0; 18]);
                    }
                }
            });
        };
        send(Instant::now() + time / 4);
        let (before, started) = (self.received()?, Instant::now());
        send(started + time);
        let (after, elapsed) = (self.received()?, started.elapsed());
        Ok((after - before) as f64 / elapsed.as_secs_f64())
    }

    /// One TCP stream from a server; bytes a second that the client reads.
    fn stream(&self, target: SocketAddr, time: Duration) -> io::Result<f64> {
        self.client.run(|| {
            let _ = pin(GENERATOR_CORE);
            let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(2))?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            let mut buffer = vec![0; 256 << 10];
            let warm = Instant::now() + time / 4;
            while Instant::now() < warm {
                if stream.read(&mut buffer)? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            let (mut bytes, started) = (0_u64, Instant::now());
            while started.elapsed() < time {
                bytes += stream.read(&mut buffer)? as u64;
            }
            Ok(bytes as f64 / started.elapsed().as_secs_f64())
        })
    }

    /// Packets that the servers' interfaces have received.
    fn received(&self) -> io::Result<u64> {
        let mut packets = 0;
        for server in &self.servers {
            let table = server.run(|| fs::read_to_string("/proc/thread-self/net/dev"))?;
            let line = table
                .lines()
                .find_map(|line| line.trim().strip_prefix("eth0:"));
            let field = line.and_then(|line| line.split_whitespace().nth(1));
            packets += field
                .and_then(|field| field.parse::<u64>().ok())
                .unwrap_or(0);
        }
        Ok(packets)
    }
}

/// Writes to whoever connects, as fast as it is read.
fn pour(listener: &TcpListener) {
    let data = vec![0; 256 << 10];
    for mut stream in listener.incoming().flatten() {
        let data = data.clone();
        thread::spawn(move || while stream.write_all(&data).is_ok() {});
    }
}

fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

fn config() -> String {
    let service = |protocol: &str| {
        format!(
            "virtual_server 198.51.100.100 {PORT} {{\n lb_algo rr\n lb_kind NAT\n protocol {protocol}\n \
             real_server 10.1.0.11 {PORT} {{\n weight 1\n }}\n real_server 10.1.0.12 {PORT} {{\n weight 1\n }}\n}}\n"
        )
    };
    format!(
        "vrrp_instance bench {{\n interface ext0\n virtual_router_id 1\n virtual_ipaddress {{\n {VIP_CIDR}\n }}\n}}\n{}{}",
        service("TCP"),
        service("UDP")
    )
}

const NFT: &str = "/usr/sbin/nft";

const NFTABLES: &str = "
table ip balance {
    chain in {
        type nat hook prerouting priority dstnat;
        ip daddr 198.51.100.100 meta l4proto { tcp, udp } dnat to numgen inc mod 2 map { 0 : 10.1.0.11, 1 : 10.1.0.12 }
    }
}
";

const VIP: [u8; 4] = [198, 51, 100, 100];
const VIP_CIDR: &str = "198.51.100.100/24";
const PORT: u16 = 9000;
const FLOWS: usize = 256;
const GENERATOR_CORE: usize = 0;
const PATH_CORE: usize = 1;

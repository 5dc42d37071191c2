//! Client, director and servers, what runs in the director's place, and what is sent through it.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use lvs_fwd::checksum;
use lvs_fwd::claim::Claim;
use lvs_fwd::view::{ClaimSet, Endpoint};
use netlab::Namespace;
use rustix::fs::{MemfdFlags, memfd_create, sendfile};
use rustix::net::{RecvFlags, recv};

use crate::sys::Sender;
use crate::{Candidate, GENERATOR_CORE, PATH_CORE, PORT, Sample, pin};

pub(crate) struct Stage {
    client: Namespace,
    director: Namespace,
    servers: Namespace,
    client_mac: [u8; 6],
    server_mac: [u8; 6],
    gateway_mac: [u8; 6],
    client_ifindex: u32,
    /// Takes the UDP packets at the servers' interface, so that the generator's core does not spend its time on refusing them.
    /// The counter of the interface counts.
    _sink: Claim,
}

pub(crate) enum Running {
    Kernel,
    Process(Child, Option<PathBuf>),
}

impl Stage {
    pub(crate) fn new() -> io::Result<Self> {
        let [client, director, servers] = ["client", "director", "servers"].map(Namespace::new);
        let (client, director, servers) = (client?, director?, servers?);
        netlab::veth(
            (&client, "eth0", "198.51.100.10/24"),
            (&director, "ext0", "198.51.100.1/24"),
        )?;
        client.default_route("198.51.100.1")?;
        director.forward()?;
        netlab::veth(
            (&director, "int0", "10.1.0.1/24"),
            (&servers, "eth0", "10.1.0.11/24"),
        )?;
        servers.add_address("eth0", "10.1.0.12/24")?;
        servers.default_route("10.1.0.1")?;
        let mut packets = ClaimSet::new();
        for server in SERVERS {
            let listener = servers.run(|| TcpListener::bind((server, PORT)))?;
            servers.spawn(move || pour(&listener))?;
            packets.insert_service(Endpoint {
                protocol: 17,
                addr: server.into(),
                port: PORT,
            });
        }
        let sink = servers
            .run(|| Claim::install(&["eth0"], &packets))
            .map_err(io::Error::other)?;
        let (client_mac, client_ifindex) = link(&client, "eth0")?;
        Ok(Self {
            client_mac,
            client_ifindex,
            server_mac: link(&servers, "eth0")?.0,
            gateway_mac: link(&director, "ext0")?.0,
            client,
            director,
            servers,
            _sink: sink,
        })
    }

    /// Whether the machine lets everything be where it belongs.
    pub(crate) fn prepare(&self) -> bool {
        let cuts = self
            .client
            .command("ethtool")
            .and_then(|mut ethtool| {
                ethtool
                    .args(["-K", "eth0", "tx-udp-segmentation", "off"])
                    .status()
            })
            .is_ok_and(|status| status.success());
        cuts && steer(&self.director, "ext0", 1 << PATH_CORE)
            && steer(&self.director, "int0", 1 << PATH_CORE)
            && steer(&self.client, "eth0", 1 << GENERATOR_CORE)
    }

    /// `None` if the candidate can't run here.
    pub(crate) fn start(&self, candidate: Candidate) -> io::Result<Option<Running>> {
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
            Candidate::Barest => {
                let mut child = self
                    .director
                    .command(env::current_exe()?)?
                    .arg("barest")
                    .args([self.server_mac, self.client_mac].map(|mac| crate::print_mac(&mac)))
                    .stdout(Stdio::piped())
                    .spawn()?;
                let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
                let mut line = String::new();
                BufReader::new(stdout).read_line(&mut line)?;
                if line != "ready\n" {
                    return Err(io::Error::other("the barest loop does not run"));
                }
                Ok(Some(Running::Process(child, None)))
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
                Ok(Some(Running::Process(child, Some(file))))
            }
        }
    }

    pub(crate) fn stop(&self, running: Running) -> io::Result<()> {
        match running {
            Running::Kernel => {
                self.nft("flush ruleset")?;
            }
            Running::Process(mut child, file) => {
                child.kill()?;
                child.wait()?;
                if let Some(file) = file {
                    let _ = fs::remove_file(file);
                }
            }
        }
        self.remove_vip()
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

    /// Small UDP packets of many flows; how many reach the servers. As fast as one core sends them, or so many a second.
    pub(crate) fn flood(
        &self,
        candidate: Candidate,
        pace: Option<u32>,
        time: Duration,
    ) -> io::Result<Sample> {
        // Where they are dropped at once: moving each to the other core costs the path more than dropping it, and no
        // network card would ask that of it.
        steer(&self.servers, "eth0", 0);
        let frames = (0..FLOWS).map(|flow| self.burst(target(candidate), FIRST_PORT + flow));
        let mut sender = self
            .client
            .run(|| Sender::open(self.client_ifindex, frames.collect()))?;
        let mut send = |time: Duration| {
            self.client.run(|| {
                let _ = pin(GENERATOR_CORE);
                let (started, mut batches) = (Instant::now(), 0);
                loop {
                    let elapsed = started.elapsed();
                    if elapsed >= time {
                        return;
                    }
                    let due = pace.map_or(u64::MAX, |pace| {
                        (elapsed.as_secs_f64() * f64::from(pace)) as u64 / BURST as u64
                    });
                    if batches < due {
                        sender.send();
                        batches += 1;
                    } else {
                        thread::yield_now();
                    }
                }
            });
        };
        send(time / 4);
        let meter = Meter::start(|| self.received())?;
        send(time);
        meter.stop(|| self.received())
    }

    /// One TCP stream from a server; the bytes that the client reads.
    pub(crate) fn stream(&self, candidate: Candidate, time: Duration) -> io::Result<Sample> {
        steer(&self.servers, "eth0", 1 << GENERATOR_CORE);
        self.client.run(|| {
            let _ = pin(GENERATOR_CORE);
            let target = (target(candidate), PORT).into();
            let stream = TcpStream::connect_timeout(&target, Duration::from_secs(2))?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            let mut buffer = vec![0; 1 << 20];
            let mut read = |time: Duration| {
                let (mut bytes, started) = (0_u64, Instant::now());
                while started.elapsed() < time {
                    // Counted, not copied: both ends share a core, and should not be what limits.
                    match recv(&stream, &mut buffer, RecvFlags::TRUNC)?.1 {
                        0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
                        count => bytes += count as u64,
                    }
                }
                Ok(bytes)
            };
            read(time / 4)?;
            let meter = Meter::start(|| Ok(0))?;
            let bytes = read(time)?;
            meter.stop(|| Ok(bytes))
        })
    }

    /// A burst of minimum-size frames from the client, all of one flow: a super-packet with its virtio header, which the kernel cuts
    /// before it reaches the cable. So the path's core is interrupted once for a burst, as a network card does, and not for every
    /// packet.
    fn burst(&self, target: Ipv4Addr, port: u16) -> Box<[u8]> {
        // Checksum to be finished; UDP to be cut into datagrams. Offsets are in host byte order.
        let mut frame = vec![1, 5];
        for word in [42, PAYLOAD as u16, 34, 6] {
            frame.extend_from_slice(&word.to_ne_bytes());
        }
        let start = frame.len();
        frame.extend_from_slice(&self.gateway_mac);
        frame.extend_from_slice(&self.client_mac);
        frame.extend_from_slice(&[8, 0, 0x45, 0]);
        let length = (28 + PAYLOAD * BURST) as u16;
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(&[0, 0, 0x40, 0, 64, 17, 0, 0]);
        frame.extend_from_slice(&CLIENT.octets());
        frame.extend_from_slice(&target.octets());
        let sum = checksum::finish(checksum::sum(&frame[start + 14..]));
        frame[start + 24..start + 26].copy_from_slice(&sum.to_be_bytes());
        let pseudo =
            checksum::pseudo_header(CLIENT.into(), target.into(), 17, u32::from(length) - 20);
        for word in [port, PORT, length - 20, checksum::fold(pseudo)] {
            frame.extend_from_slice(&word.to_be_bytes());
        }
        frame.resize(frame.len() + PAYLOAD * BURST, 0);
        frame.into()
    }

    /// Packets that the servers' interface has received.
    fn received(&self) -> io::Result<u64> {
        let table = self
            .servers
            .run(|| fs::read_to_string("/proc/thread-self/net/dev"))?;
        let line = table
            .lines()
            .find_map(|line| line.trim().strip_prefix("eth0:"));
        let field = line.and_then(|line| line.split_whitespace().nth(1));
        field
            .and_then(|field| field.parse().ok())
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// Measures time and the path's core beside a counter.
struct Meter {
    count: u64,
    busy: Duration,
    started: Instant,
}

impl Meter {
    fn start(count: impl FnOnce() -> io::Result<u64>) -> io::Result<Self> {
        Ok(Self {
            count: count()?,
            busy: busy(PATH_CORE)?,
            started: Instant::now(),
        })
    }

    fn stop(self, count: impl FnOnce() -> io::Result<u64>) -> io::Result<Sample> {
        let elapsed = self.started.elapsed();
        let busy = busy(PATH_CORE)?.saturating_sub(self.busy);
        let count = count()?.saturating_sub(self.count) as f64;
        Ok(Sample {
            rate: count / elapsed.as_secs_f64(),
            cost: busy.as_secs_f64() * 1e9 / count.max(1.0),
            load: busy.as_secs_f64() / elapsed.as_secs_f64(),
        })
    }
}

/// How long a core has been at work since it was started, whatever the work was.
pub(crate) fn busy(core: usize) -> io::Result<Duration> {
    let table = fs::read_to_string("/proc/stat")?;
    let name = format!("cpu{core} ");
    let line = table.lines().find_map(|line| line.strip_prefix(&name));
    let ticks: Vec<u64> = line
        .ok_or(io::ErrorKind::NotFound)?
        .split_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    // User, nice, system, (idle, waiting,) interrupts, soft interrupts.
    let at_work: u64 = [0, 1, 2, 5, 6]
        .iter()
        .filter_map(|&field| ticks.get(field))
        .sum();
    Ok(Duration::from_millis(at_work * 10))
}

/// Moves the kernel's receive processing of an interface to these cores; to none leaves it where the frame comes from. The settings
/// stand in sysfs, which shows those of the namespace that mounted it.
fn steer(namespace: &Namespace, device: &str, cores: u32) -> bool {
    let script = format!(
        "mount -t sysfs sysfs /sys && echo {cores:x} > /sys/class/net/{device}/queues/rx-0/rps_cpus"
    );
    let command = namespace.command("/usr/bin/unshare");
    command
        .and_then(|mut unshare| {
            unshare
                .args(["-m", "/bin/sh", "-c", &script])
                .stderr(Stdio::null())
                .status()
        })
        .is_ok_and(|status| status.success())
}

/// Sends the same file to whoever connects, over and over, without copying it.
fn pour(listener: &TcpListener) -> io::Result<()> {
    let data = memfd_create("lvs-bench", MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&data, POUR as u64)?;
    rustix::io::pwrite(&data, &vec![1; POUR], 0)?;
    for stream in listener.incoming() {
        let (stream, data) = (stream?, data.try_clone()?);
        thread::spawn(move || {
            let _ = pin(GENERATOR_CORE);
            let mut at = 0;
            while sendfile(&stream, &data, Some(&mut at), POUR).is_ok() {
                if at >= POUR as u64 {
                    at = 0;
                }
            }
        });
    }
    Ok(())
}

fn link(namespace: &Namespace, name: &str) -> io::Result<([u8; 6], u32)> {
    let mut netlink = namespace.netlink().map_err(io::Error::other)?;
    let link = netlink.link_by_name(name).map_err(io::Error::other)?;
    Ok((link.mac.ok_or(io::ErrorKind::Unsupported)?, link.index))
}

/// Forwarding goes to a server, balancing to the virtual address.
fn target(candidate: Candidate) -> Ipv4Addr {
    match candidate {
        Candidate::Forwarding | Candidate::Barest => SERVERS[0],
        Candidate::Nftables | Candidate::Director => VIP,
    }
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

const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
pub(crate) const SERVERS: [Ipv4Addr; 2] =
    [Ipv4Addr::new(10, 1, 0, 11), Ipv4Addr::new(10, 1, 0, 12)];
const VIP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 100);
const VIP_CIDR: &str = "198.51.100.100/24";
const FLOWS: u16 = 10_000;
const FIRST_PORT: u16 = 10_000;
/// Makes 60 bytes of frame, and 64 with the frame check sequence.
const PAYLOAD: usize = 18;
const BURST: usize = 32;
/// Larger than a core's cache, so that the path reads it as it would read fresh data.
const POUR: usize = 4 << 20;

//! Client, director and servers, what runs in the director's place, and what is sent through it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use director::devices::Kind;
use lvs_fwd::checksum;
use lvs_fwd::claim::Claim;
use lvs_fwd::view::{ClaimSet, Endpoint};
use netlab::Namespace;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create, sendfile};
use rustix::net::{RecvFlags, recv};

use crate::candidate::{Candidate, Method};
use crate::report::median;
use crate::sys::{Redirect, Sender};
use crate::{GENERATOR_CORE, PATH_CORE, PORT, Sample, pin};

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
    Programs { _both: [Redirect; 2] },
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
            let listener = servers.run(|| TcpListener::bind((server, ECHO_PORT)))?;
            servers.spawn(move || echo(&listener))?;
        }
        for addr in SERVERS.into_iter().chain([VIP]) {
            // Datagrams, segments of no connection, and tunnels.
            for (protocol, port) in [(17, PORT), (6, SINK_PORT), (4, 0)] {
                packets.insert_service(Endpoint {
                    protocol,
                    addr: addr.into(),
                    port,
                });
            }
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
        self.client_cuts(true)
            && steer(&self.director, "ext0", 1 << PATH_CORE)
            && steer(&self.director, "int0", 1 << PATH_CORE)
            && steer(&self.client, "eth0", 1 << GENERATOR_CORE)
    }

    /// Whether the client's kernel cuts what it sends into packets before they are on the cable.
    fn client_cuts(&self, cuts: bool) -> bool {
        let state = if cuts { "off" } else { "on" };
        let Ok(mut command) = self.client.command("ethtool") else {
            return false;
        };
        command.args(["-K", "eth0", "tx-udp-segmentation", state, "tso", state]);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    /// With a program at an interface the kernel receives for it wherever it was sent; this moves that to the path's core.
    fn steer_programs(&self) -> io::Result<()> {
        for _ in 0..20 {
            for device in ["ext0", "int0"] {
                receive_in_threads(&self.director, device, true)?;
            }
            // The threads get their names a moment later.
            thread::sleep(Duration::from_millis(5));
            if pin_threads(&["napi/ext0-", "napi/int0-"], PATH_CORE)? >= 2 {
                return Ok(());
            }
        }
        println!("skipped: the kernel's part of AF_XDP runs on the generator's core");
        Ok(())
    }

    /// Programs that send frames from one interface to the other.
    fn redirect(&self) -> io::Result<Option<Running>> {
        // What is redirected to a cable needs somebody who listens at its end as drivers do.
        for namespace in [&self.client, &self.servers] {
            let mut ethtool = namespace.command("ethtool")?;
            ethtool.args(["-K", "eth0", "gro", "on"]).status()?;
        }
        let programs = self.director.run(|| -> io::Result<[Redirect; 2]> {
            let (outside, ext) = (link(&self.director, "ext0")?, SERVERS[0].octets());
            let inside = link(&self.director, "int0")?;
            let header = |to: [u8; 6], from: [u8; 6]| {
                let mut header = [0; 12];
                header[..6].copy_from_slice(&to);
                header[6..].copy_from_slice(&from);
                header
            };
            Ok([
                Redirect::attach(
                    outside.1,
                    inside.1,
                    (30, ext),
                    header(self.server_mac, inside.0),
                )?,
                Redirect::attach(
                    inside.1,
                    outside.1,
                    (26, ext),
                    header(self.client_mac, outside.0),
                )?,
            ])
        });
        let programs = match programs {
            Ok(programs) => programs,
            Err(error) => {
                println!("skipped: programs that redirect: {error}");
                return Ok(None);
            }
        };
        self.steer_programs()?;
        for namespace in [&self.client, &self.servers] {
            receive_in_threads(namespace, "eth0", true)?;
        }
        pin_threads(&["napi/eth0-"], GENERATOR_CORE)?;
        Ok(Some(Running::Programs { _both: programs }))
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
            Candidate::Redirect => self.redirect(),
            Candidate::Barest(kind) => {
                let mut child = self
                    .director
                    .command(env::current_exe()?)?
                    .args(["run-barest", &kind.to_string()])
                    .args([self.server_mac, self.client_mac].map(|mac| crate::print_mac(&mac)))
                    .stdout(Stdio::piped())
                    .spawn()?;
                let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
                let mut line = String::new();
                BufReader::new(stdout).read_line(&mut line)?;
                if line != "ready\n" {
                    println!("skipped: {candidate} does not run");
                    let _ = child.wait();
                    return Ok(None);
                }
                if kind == Kind::Xdp {
                    self.steer_programs()?;
                }
                Ok(Some(Running::Process(child, None)))
            }
            Candidate::Director {
                kind,
                method,
                workers,
            } => {
                let file = env::temp_dir().join(format!("lvs-bench-{}.conf", std::process::id()));
                fs::write(&file, config(method))?;
                let mut child = self
                    .director
                    .command(env::current_exe()?)?
                    .args(["run-director", &kind.to_string(), &workers.to_string()])
                    .arg(&file)
                    .env_remove("LVS_SOCKET")
                    .stderr(Stdio::null())
                    .spawn()?;
                if !self.wait_for_director(&mut child)? {
                    println!("skipped: {candidate} does not run");
                    let _ = child.wait();
                    let _ = fs::remove_file(file);
                    return Ok(None);
                }
                if kind == Kind::Xdp {
                    self.steer_programs()?;
                }
                if candidate.is_two_way() {
                    self.wait_for_service()?;
                }
                Ok(Some(Running::Process(child, Some(file))))
            }
        }
    }

    pub(crate) fn stop(&self, running: Running) -> io::Result<()> {
        match running {
            Running::Kernel => {
                self.nft("flush ruleset")?;
            }
            Running::Programs { .. } => {
                for device in ["ext0", "int0"] {
                    receive_in_threads(&self.director, device, false)?;
                }
                for namespace in [&self.client, &self.servers] {
                    let mut ethtool = namespace.command("ethtool")?;
                    ethtool.args(["-K", "eth0", "gro", "off"]).status()?;
                }
            }
            Running::Process(mut child, file) => {
                // Before the program goes: the kernel does not find the threads again.
                for device in ["ext0", "int0"] {
                    receive_in_threads(&self.director, device, false)?;
                }
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

    /// Whether it runs; `false` if it ends instead.
    fn wait_for_director(&self, child: &mut Child) -> io::Result<bool> {
        let address = SocketAddr::from_abstract_name("lvs-director")?;
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until && child.try_wait()?.is_none() {
            let connected = self.director.run(|| UnixStream::connect_addr(&address));
            if connected.is_ok() {
                return Ok(true);
            }
            thread::sleep(Duration::from_millis(20));
        }
        child.kill()?;
        Ok(false)
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

    /// Small packets of many flows; how many reach the servers. As fast as one core sends them, or so many a second.
    pub(crate) fn flood(
        &self,
        candidate: Candidate,
        packets: Packets,
        pace: Option<u32>,
        time: Duration,
    ) -> io::Result<Sample> {
        self.client_cuts(true);
        // Where they are dropped at once: moving each to the other core costs the path more than dropping it, and no
        // network card would ask that of it.
        steer(&self.servers, "eth0", 0);
        let burst = |flow| self.burst(packets, target(candidate), FIRST_PORT + flow);
        let frames = (0..FLOWS).map(burst).collect();
        let mut sender = self
            .client
            .run(|| Sender::open(self.client_ifindex, frames))?;
        if packets == Packets::Ack && matches!(candidate, Candidate::Director { .. }) {
            // A balancer takes a segment without a connection for a mistake; the kernel's connection tracking takes it for one
            // that it has missed the beginning of, unless it has seen that.
            let syn = |flow| self.syn(target(candidate), FIRST_PORT + flow);
            let frames = (0..FLOWS).map(syn).collect();
            let mut sender = self
                .client
                .run(|| Sender::open(self.client_ifindex, frames))?;
            for number in 0..FLOWS {
                sender.send();
                if number % 64 == 0 {
                    thread::sleep(Duration::from_micros(400));
                }
            }
        }
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

    /// TCP streams from the servers; the bytes that the client reads.
    pub(crate) fn streams(
        &self,
        candidate: Candidate,
        count: usize,
        time: Duration,
    ) -> io::Result<Sample> {
        self.client_cuts(false);
        steer(&self.servers, "eth0", 1 << GENERATOR_CORE);
        self.client.run(|| {
            let _ = pin(GENERATOR_CORE);
            let target = (target(candidate), PORT).into();
            let streams = (0..count)
                .map(|_| {
                    let stream = TcpStream::connect_timeout(&target, Duration::from_secs(2))?;
                    stream.set_nonblocking(true)?;
                    Ok(stream)
                })
                .collect::<io::Result<Vec<TcpStream>>>()?;
            let mut buffer = vec![0; 1 << 20];
            let mut read = |time: Duration| {
                let (mut bytes, started) = (0_u64, Instant::now());
                while started.elapsed() < time {
                    let mut set: Vec<PollFd<'_>> = streams
                        .iter()
                        .map(|stream| PollFd::new(stream, PollFlags::IN))
                        .collect();
                    let patience = Timespec {
                        tv_sec: 2,
                        tv_nsec: 0,
                    };
                    if poll(&mut set, Some(&patience))? == 0 {
                        return Err(io::Error::from(io::ErrorKind::TimedOut));
                    }
                    for (stream, ready) in streams.iter().zip(&set) {
                        if ready.revents().is_empty() {
                            continue;
                        }
                        // Counted, not copied: both ends share a core, and should not be what limits.
                        match recv(stream, &mut buffer, RecvFlags::TRUNC) {
                            Ok((_, 0)) => {
                                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
                            }
                            Ok((_, count)) => bytes += count as u64,
                            Err(rustix::io::Errno::AGAIN) => {}
                            Err(error) => return Err(error.into()),
                        }
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

    /// A byte to a server and back, one after the other: median and 99th percentile in microseconds.
    pub(crate) fn latency(&self, candidate: Candidate, time: Duration) -> io::Result<(f64, f64)> {
        self.client.run(|| {
            let _ = pin(GENERATOR_CORE);
            let target = (target(candidate), ECHO_PORT).into();
            let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(2))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            let (mut times, started) = (Vec::new(), Instant::now());
            while started.elapsed() < time {
                let sent = Instant::now();
                stream.write_all(b"x")?;
                stream.read_exact(&mut [0])?;
                times.push(sent.elapsed().as_secs_f64() * 1e6);
            }
            times.sort_by(f64::total_cmp);
            let most = times[(times.len() * 99 / 100).min(times.len() - 1)];
            Ok((median(times.into_iter()).unwrap_or(0.0), most))
        })
    }

    /// A burst of minimum-size frames from the client, all of one flow: a super-packet with its virtio header, which the kernel cuts
    /// before it reaches the cable. So the path's core is interrupted once for a burst, as a network card does, and not for every
    /// packet.
    fn burst(&self, packets: Packets, target: Ipv4Addr, port: u16) -> Box<[u8]> {
        match packets {
            Packets::Udp => {
                let length = (8 + UDP_PAYLOAD * BURST) as u16;
                let mut header = Vec::new();
                for word in [port, PORT, length, 0] {
                    header.extend_from_slice(&word.to_be_bytes());
                }
                // UDP to be cut into datagrams.
                self.packet(17, 5, target, header, UDP_PAYLOAD, BURST)
            }
            Packets::Ack => {
                let header = tcp(port, ACK);
                self.packet(6, 1, target, header, TCP_PAYLOAD, BURST)
            }
        }
    }

    /// The first segment of a connection.
    fn syn(&self, target: Ipv4Addr, port: u16) -> Box<[u8]> {
        self.packet(6, 0, target, tcp(port, SYN), 0, 0)
    }

    /// `count` times `size` bytes of payload behind a transport header whose checksum is to be finished.
    fn packet(
        &self,
        protocol: u8,
        gso: u8,
        target: Ipv4Addr,
        transport: Vec<u8>,
        size: usize,
        count: usize,
    ) -> Box<[u8]> {
        let offset = if protocol == 17 { 6 } else { 16 };
        // Checksum to be finished. Offsets are in host byte order.
        let mut frame = vec![1, gso];
        let headers = 34 + transport.len();
        for word in [headers as u16, size as u16, 34, offset as u16] {
            frame.extend_from_slice(&word.to_ne_bytes());
        }
        let start = frame.len();
        frame.extend_from_slice(&self.gateway_mac);
        frame.extend_from_slice(&self.client_mac);
        frame.extend_from_slice(&[8, 0, 0x45, 0]);
        let length = (20 + transport.len() + size * count) as u16;
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(&[0, 0, 0x40, 0, 64, protocol, 0, 0]);
        frame.extend_from_slice(&CLIENT.octets());
        frame.extend_from_slice(&target.octets());
        let sum = checksum::finish(checksum::sum(&frame[start + 14..]));
        frame[start + 24..start + 26].copy_from_slice(&sum.to_be_bytes());
        let pseudo = checksum::pseudo_header(
            CLIENT.into(),
            target.into(),
            protocol,
            u32::from(length) - 20,
        );
        let at = frame.len() + offset;
        frame.extend_from_slice(&transport);
        frame[at..at + 2].copy_from_slice(&checksum::fold(pseudo).to_be_bytes());
        frame.resize(frame.len() + size * count, 0);
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

/// What a flood is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packets {
    /// Datagrams.
    Udp,
    /// Segments of established connections.
    Ack,
}

/// A TCP header without its checksum.
fn tcp(port: u16, flags: u8) -> Vec<u8> {
    let mut header = Vec::new();
    for word in [port, SINK_PORT] {
        header.extend_from_slice(&word.to_be_bytes());
    }
    header.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    header
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

/// Lets threads of their own receive for an interface, or not.
fn receive_in_threads(namespace: &Namespace, device: &str, threads: bool) -> io::Result<()> {
    let script = format!(
        "mount -t sysfs sysfs /sys && echo {} > /sys/class/net/{device}/threaded",
        u8::from(threads)
    );
    let mut command = namespace.command("/usr/bin/unshare")?;
    command
        .args(["-m", "/bin/sh", "-c", &script])
        .stderr(Stdio::null())
        .status()
        .map(drop)
}

/// Moves kernel threads with such names to a core. Returns how many.
fn pin_threads(names: &[&str], core: usize) -> io::Result<usize> {
    let mut moved = 0;
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let pid = entry.file_name().to_str().and_then(|pid| pid.parse().ok());
        if let (true, Some(pid)) = (
            names.iter().any(|begin| name.starts_with(begin)),
            pid.and_then(rustix::process::Pid::from_raw),
        ) {
            let mut set = rustix::thread::CpuSet::new();
            set.set(core);
            // As what is measured beside them.
            let _ = rustix::process::setpriority_process(Some(pid), -20);
            moved += usize::from(rustix::thread::sched_setaffinity(Some(pid), &set).is_ok());
        }
    }
    Ok(moved)
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

/// Sends back what comes.
fn echo(listener: &TcpListener) -> io::Result<()> {
    for stream in listener.incoming() {
        let mut stream = stream?;
        thread::spawn(move || {
            let _ = pin(GENERATOR_CORE);
            let _ = stream.set_nodelay(true);
            let mut buffer = [0; 64];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..count]).is_err() {
                    return;
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
    match candidate.is_transparent() {
        true => SERVERS[0],
        false => VIP,
    }
}

fn config(method: Method) -> String {
    let kind = method.word();
    let service = |protocol: &str, port: u16| {
        format!(
            "virtual_server 198.51.100.100 {port} {{\n lb_algo rr\n lb_kind {kind}\n protocol {protocol}\n \
             real_server 10.1.0.11 {port} {{\n weight 1\n }}\n real_server 10.1.0.12 {port} {{\n weight 1\n }}\n}}\n"
        )
    };
    format!(
        "vrrp_instance bench {{\n interface ext0\n virtual_router_id 1\n priority 255\n virtual_ipaddress {{\n {VIP_CIDR}\n }}\n}}\n{}{}{}{}",
        service("TCP", PORT),
        service("TCP", SINK_PORT),
        service("TCP", ECHO_PORT),
        service("UDP", PORT)
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
/// Where servers send back what comes, and where they take segments without a word.
const ECHO_PORT: u16 = PORT + 1;
const SINK_PORT: u16 = PORT + 2;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// Make 60 bytes of frame, and 64 with the frame check sequence.
const UDP_PAYLOAD: usize = 18;
const TCP_PAYLOAD: usize = 6;
const BURST: usize = 32;
/// Larger than a core's cache, so that the path reads it as it would read fresh data.
const POUR: usize = 4 << 20;

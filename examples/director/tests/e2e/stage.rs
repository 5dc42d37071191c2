//! What the tests are made of: small networks, and a director's process in one of them.

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ipvsadm::protocol::{
    Client, ClientError, ConnectionInfo, ServiceInfo, SocketAddress, StatusInfo,
};
use netlab::{Bridge, HttpServer, Namespace};
use rustix::process::{Pid, Signal, kill_process};

thread_local! {
    /// The kind of device that directors of the running test have.
    pub(crate) static DEVICE: Cell<&'static str> = const { Cell::new("auto") };
}

/// Whether the process may use AF_XDP.
pub(crate) fn has_xdp() -> bool {
    lvs_fwd::device::xdp::XdpClaim::new().is_ok()
}

/// Whether directors of the running test have AF_XDP sockets.
pub(crate) fn is_xdp() -> bool {
    DEVICE.get() == "xdp"
}

pub(crate) const VIP: &str = "198.51.100.100";
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A network with a director in the middle.
pub(crate) struct Stage {
    pub(crate) client: Namespace,
    pub(crate) director: Namespace,
    _switch: Namespace,
    pub(crate) servers: Vec<(Namespace, HttpServer)>,
    /// What makes hosts real servers, for DR and TUN.
    pub(crate) realservers: Vec<RealServer>,
}

impl Stage {
    /// Client on one side of the director, servers on the other, the director as their router.
    pub(crate) fn nat(servers: usize) -> Self {
        let [client, director, switch] =
            ["client", "director", "switch"].map(|name| Namespace::new(name).unwrap());
        netlab::veth(
            (&client, "eth0", "198.51.100.10/24"),
            (&director, "ext0", "198.51.100.1/24"),
        )
        .unwrap();
        client.default_route("198.51.100.1").unwrap();
        let servers = {
            let lan = Bridge::new(&switch, "lan").unwrap();
            lan.attach(&director, "int0", "10.1.0.1/24").unwrap();
            (1..=servers)
                .map(|n| {
                    let namespace = Namespace::new(&format!("rs{n}")).unwrap();
                    lan.attach(&namespace, "eth0", &format!("10.1.0.{}/24", 10 + n))
                        .unwrap();
                    namespace.default_route("10.1.0.1").unwrap();
                    let server = HttpServer::start(&namespace, rip(n), &format!("rs{n}")).unwrap();
                    (namespace, server)
                })
                .collect()
        };
        Self {
            client,
            director,
            _switch: switch,
            servers,
            realservers: Vec::new(),
        }
    }

    /// Client, director and servers on one LAN; the servers hold the virtual address and answer clients directly.
    pub(crate) fn direct(servers: usize) -> Self {
        Self::answering("dr", servers)
    }

    /// As [`direct`](Self::direct), each server ready for this mode.
    pub(crate) fn answering(mode: &str, servers: usize) -> Self {
        let mut stage = Self::one_lan(servers);
        for (namespace, _) in &stage.servers {
            stage
                .realservers
                .push(RealServer::start(namespace, mode).unwrap());
        }
        stage
    }

    /// As [`direct`](Self::direct), with a second director's host.
    pub(crate) fn direct_pair(servers: usize) -> (Self, Namespace) {
        let other = Namespace::new("other").unwrap();
        let mut stage = Self::one_lan_with(servers, &[(&other, "198.51.100.2/24")]);
        for (namespace, _) in &stage.servers {
            let server = RealServer::start(namespace, "dr").unwrap();
            stage.realservers.push(server);
        }
        (stage, other)
    }

    /// Client, director and servers on one LAN; nobody holds the virtual address.
    pub(crate) fn one_lan(servers: usize) -> Self {
        Self::one_lan_with(servers, &[])
    }

    fn one_lan_with(servers: usize, others: &[(&Namespace, &str)]) -> Self {
        let [client, director, switch] =
            ["client", "director", "switch"].map(|name| Namespace::new(name).unwrap());
        let servers = {
            let lan = Bridge::new(&switch, "lan").unwrap();
            lan.attach(&client, "eth0", "198.51.100.10/24").unwrap();
            lan.attach(&director, "ext0", "198.51.100.1/24").unwrap();
            for (other, address) in others {
                lan.attach(other, "ext0", address).unwrap();
            }
            (1..=servers)
                .map(|n| {
                    let namespace = Namespace::new(&format!("rs{n}")).unwrap();
                    lan.attach(&namespace, "eth0", &format!("198.51.100.{}/24", 10 + n))
                        .unwrap();
                    let any = SocketAddr::from(([0, 0, 0, 0], 80));
                    let server = HttpServer::start(&namespace, any, &format!("rs{n}")).unwrap();
                    (namespace, server)
                })
                .collect()
        };
        Self {
            client,
            director,
            _switch: switch,
            servers,
            realservers: Vec::new(),
        }
    }

    /// The n-th server, from 0, listens again.
    pub(crate) fn restart(&mut self, n: usize) {
        let (namespace, server) = &mut self.servers[n];
        server.restart(namespace).unwrap();
    }

    /// Asks the virtual service once; the name of the server that answered.
    pub(crate) fn ask(&self) -> std::io::Result<String> {
        let response = self.client.http_get(vip(), "/", Duration::from_secs(3))?;
        assert_eq!(response.status, 200);
        Ok(response.server)
    }

    /// Asks so many times; how often each server answered, `rs1` first. Every request must be answered.
    pub(crate) fn spread(&self, requests: usize) -> Vec<usize> {
        let mut counts = vec![0; self.servers.len()];
        for n in 0..requests {
            let name = self
                .ask()
                .unwrap_or_else(|error| panic!("request {n} failed: {error}"));
            let at = self
                .servers
                .iter()
                .position(|(_, server)| server.name() == name)
                .unwrap();
            counts[at] += 1;
        }
        counts
    }
}

pub(crate) fn vip() -> SocketAddr {
    format!("{VIP}:80").parse().unwrap()
}

/// The n-th real server of the NAT stage, from 1.
pub(crate) fn rip(n: usize) -> SocketAddr {
    SocketAddr::new([10, 1, 0, u8::try_from(10 + n).unwrap()].into(), 80)
}

/// A configuration: an instance that holds the virtual address, as its owner and so at once, and one service.
pub(crate) struct Conf {
    pub(crate) scheduler: &'static str,
    pub(crate) method: &'static str,
    pub(crate) servers: Vec<(String, u32)>,
    pub(crate) protocol: &'static str,
    pub(crate) extra: String,
}

impl Conf {
    pub(crate) fn nat(servers: usize) -> Self {
        Self {
            scheduler: "rr",
            method: "NAT",
            servers: (1..=servers)
                .map(|n| (format!("10.1.0.{} 80", 10 + n), 1))
                .collect(),
            protocol: "TCP",
            extra: String::new(),
        }
    }

    pub(crate) fn direct(servers: usize) -> Self {
        Self {
            method: "DR",
            servers: (1..=servers)
                .map(|n| (format!("198.51.100.{} 80", 10 + n), 1))
                .collect(),
            ..Self::nat(0)
        }
    }

    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "vrrp_instance VI_1 {{\n    interface ext0\n    virtual_router_id 51\n    priority 255\n    virtual_ipaddress {{\n        {VIP}/24\n    }}\n}}\n\
             virtual_server {VIP} 80 {{\n    delay_loop 1\n    lb_algo {}\n    lb_kind {}\n    protocol {}\n",
            self.scheduler, self.method, self.protocol
        );
        let check = if self.protocol == "TCP" {
            "TCP_CHECK {\n            connect_timeout 1\n            retry 1\n            delay_before_retry 1\n            warmup 0\n        }\n"
        } else {
            ""
        };
        for (server, weight) in &self.servers {
            writeln!(
                text,
                "    real_server {server} {{\n        weight {weight}\n        {check}    }}"
            )
            .unwrap();
        }
        text.push_str("}\n");
        text.push_str(&self.extra);
        text
    }
}

/// A process of `director realserver`. Killed when dropped.
pub(crate) struct RealServer {
    child: Child,
    namespace: Namespace,
}

impl RealServer {
    /// Makes the namespace's host a real server for the virtual address; the log, if it can't be.
    pub(crate) fn start(namespace: &Namespace, mode: &str) -> Result<Self, String> {
        Self::start_for(namespace, mode, vip().ip())
    }

    /// The same for another address.
    pub(crate) fn start_for(
        namespace: &Namespace,
        mode: &str,
        vip: IpAddr,
    ) -> Result<Self, String> {
        Self::start_with(namespace, mode, vip, &[])
    }

    /// The same with more arguments.
    pub(crate) fn start_with(
        namespace: &Namespace,
        mode: &str,
        vip: IpAddr,
        more: &[&str],
    ) -> Result<Self, String> {
        let mut child = Self::command(namespace, mode, vip)
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = String::new();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        for line in lines.by_ref().map_while(Result::ok) {
            if line.contains("ready: holding") {
                // What it says later must find a reader.
                thread::spawn(move || lines.for_each(drop));
                let namespace = namespace.clone();
                return Ok(Self { child, namespace });
            }
            writeln!(log, "{line}").unwrap();
        }
        child.wait().unwrap();
        Err(log)
    }

    fn command(namespace: &Namespace, mode: &str, vip: IpAddr) -> Command {
        let mut command = namespace.command(env!("CARGO_BIN_EXE_director")).unwrap();
        command
            .args(["realserver", "--vip", &vip.to_string()])
            .args(["--mode", mode, "--state"])
            .arg(state())
            .stdin(Stdio::null());
        command
    }

    /// What `director realserver --check` says: exit status and output.
    pub(crate) fn check(namespace: &Namespace, mode: &str) -> (i32, String) {
        let output = Self::command(namespace, mode, vip().ip())
            .arg("--check")
            .output();
        let (status, output, errors) = texts(output.unwrap());
        assert_eq!(errors, "");
        (status, output)
    }

    /// Packets that came out of tunnels.
    pub(crate) fn unpacked(&self) -> u64 {
        let devices = self
            .namespace
            .run(|| fs::read_to_string("/proc/thread-self/net/dev"))
            .unwrap();
        let of = |device: &str| devices.lines().find(|line| line.contains(device));
        // Without a TUN device they come by the loopback, where nothing else is.
        let line = of("lvs0:").or_else(|| of("lo:")).unwrap();
        let (_, counters) = line.split_once(':').unwrap();
        let packets = counters.split_whitespace().nth(1).unwrap();
        packets.parse().unwrap()
    }

    /// Ends it as an operator would.
    pub(crate) fn terminate(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }

    /// Ends it without any warning.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for RealServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A director's process. Killed when dropped.
pub(crate) struct Director {
    child: Child,
    pub(crate) file: PathBuf,
    log: Arc<Mutex<Vec<String>>>,
    namespace: Namespace,
}

impl Director {
    /// Starts a director and waits until it runs.
    pub(crate) fn start(stage: &Stage, conf: &str, workers: u32) -> Self {
        Self::start_in(&stage.director, conf, workers)
    }

    /// Starts a director in a namespace and waits until it runs.
    pub(crate) fn start_in(namespace: &Namespace, conf: &str, workers: u32) -> Self {
        Self::launch(namespace, conf, workers).ready(conf)
    }

    /// Waits until it runs, and has the addresses that it owns.
    fn ready(self, conf: &str) -> Self {
        self.wait_for_log("running ");
        if let Some((_, rest)) = conf.split_once("priority 255\n    virtual_ipaddress {")
            && let Some(address) = rest.split_whitespace().next()
        {
            self.wait_until(&format!("address {address}"), || {
                let log = self.log();
                let mut lines = log.lines();
                lines.any(|line| {
                    line.contains(&format!("address {address} ")) && line.ends_with(" added")
                })
            });
        }
        self
    }

    /// Starts a director and does not wait.
    pub(crate) fn launch(namespace: &Namespace, conf: &str, workers: u32) -> Self {
        let command = namespace.command(env!("CARGO_BIN_EXE_director")).unwrap();
        Self::launch_by(command, namespace, conf, workers, &[])
    }

    /// Starts a director whose configuration has these files beside it, by their endings, and waits until it runs.
    pub(crate) fn start_with(
        stage: &Stage,
        conf: &str,
        workers: u32,
        beside: &[(&str, &str)],
    ) -> Self {
        Self::start_beside(&stage.director, conf, workers, beside)
    }

    /// The same in a namespace.
    pub(crate) fn start_beside(
        namespace: &Namespace,
        conf: &str,
        workers: u32,
        beside: &[(&str, &str)],
    ) -> Self {
        let command = namespace.command(env!("CARGO_BIN_EXE_director")).unwrap();
        Self::launch_by(command, namespace, conf, workers, beside).ready(conf)
    }

    /// Starts a director with more arguments and waits until it runs.
    pub(crate) fn start_more(stage: &Stage, conf: &str, workers: u32, more: &[&str]) -> Self {
        let namespace = &stage.director;
        let mut command = namespace.command(env!("CARGO_BIN_EXE_director")).unwrap();
        command.args(more);
        Self::launch_by(command, namespace, conf, workers, &[]).ready(conf)
    }

    /// Starts a director by a command of its own, which has the program, and waits until it runs.
    pub(crate) fn start_by(command: Command, namespace: &Namespace, conf: &str) -> Self {
        Self::launch_by(command, namespace, conf, 1, &[]).ready(conf)
    }

    /// Starts a director that can't make a TUN device and waits until it runs; `None` where that can't be arranged.
    pub(crate) fn start_without_tun(stage: &Stage, conf: &str) -> Option<Self> {
        let unshare = || {
            let mut command = stage.director.command("/usr/bin/unshare").unwrap();
            command.args(["--mount", "sh", "-c"]);
            command.arg("mount -t tmpfs none /dev/net && exec \"$0\" \"$@\"");
            command
        };
        let can = unshare().arg("true").stderr(Stdio::null()).status();
        if !can.is_ok_and(|status| status.success()) {
            return None;
        }
        let mut command = unshare();
        command.arg(env!("CARGO_BIN_EXE_director"));
        let director = Self::launch_by(command, &stage.director, conf, 1, &[]);
        director.wait_for_log("running ");
        Some(director)
    }

    /// Starts a director with more arguments, by a shell script in a mount namespace of its own that ends with `exec "$0" "$@"`, and
    /// waits until it runs; `None` where nothing can be mounted.
    pub(crate) fn start_unshared(
        stage: &Stage,
        conf: &str,
        script: &str,
        variables: &[(&str, &str)],
        more: &[&str],
    ) -> Option<Self> {
        let unshare = |script: &str, program: &str| {
            let mut command = stage.director.command("/usr/bin/unshare").unwrap();
            command.args(["--mount", "sh", "-c", script, program]);
            command.envs(variables.iter().copied());
            command
        };
        let can = unshare(script, "true").stderr(Stdio::null()).status();
        if !can.is_ok_and(|status| status.success()) {
            return None;
        }
        let mut command = unshare(script, env!("CARGO_BIN_EXE_director"));
        command.args(more);
        Some(Self::launch_by(command, &stage.director, conf, 1, &[]).ready(conf))
    }

    /// Starts a director that may not use BPF.
    pub(crate) fn launch_without_bpf(namespace: &Namespace, conf: &str) -> Self {
        let mut command = namespace.command("/usr/bin/setpriv").unwrap();
        command
            .arg("--bounding-set=-bpf,-sys_admin,-perfmon")
            .arg(env!("CARGO_BIN_EXE_director"));
        Self::launch_by(command, namespace, conf, 1, &[])
    }

    fn launch_by(
        mut command: Command,
        namespace: &Namespace,
        conf: &str,
        workers: u32,
        beside: &[(&str, &str)],
    ) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let file =
            std::env::temp_dir().join(format!("director-e2e-{}-{number}.conf", std::process::id()));
        fs::write(&file, conf).unwrap();
        for (ending, text) in beside {
            fs::write(file.with_extension(ending), text).unwrap();
        }
        // Many run at once, and most have little traffic.
        if !command
            .get_args()
            .any(|argument| argument == "--ring-slots")
        {
            command.args(["--ring-slots", "64"]);
        }
        let mut child = command
            .args([
                "-n",
                "-l",
                "-D",
                "--workers",
                &workers.to_string(),
                "--device",
                DEVICE.get(),
                "-f",
            ])
            .arg(&file)
            .env_remove("LVS_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        let stderr = child.stderr.take().unwrap();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        Self {
            child,
            file,
            log,
            namespace: namespace.clone(),
        }
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Waits for a line with this text.
    pub(crate) fn wait_for_log(&self, text: &str) {
        self.wait_until(&format!("a log line with '{text}'"), || {
            self.log().contains(text)
        });
    }

    pub(crate) fn wait_until(&self, what: &str, mut holds: impl FnMut() -> bool) -> Duration {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if holds() {
                return started.elapsed();
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("no {what} within {PATIENCE:?}; the log:\n{}", self.log());
    }

    fn ask<T: Send>(
        &self,
        question: impl FnOnce(&mut Client) -> Result<T, ClientError> + Send,
    ) -> T {
        let answer = self.namespace.run(|| {
            let mut client = Client::connect(&SocketAddress::default())?;
            question(&mut client)
        });
        answer.unwrap_or_else(|error| panic!("{error}; the log:\n{}", self.log()))
    }

    pub(crate) fn service(&self) -> ServiceInfo {
        let services = self.ask(Client::services);
        assert_eq!(services.services.len(), 1, "one service is configured");
        services.services.into_iter().next().unwrap()
    }

    pub(crate) fn connections(&self) -> Vec<ConnectionInfo> {
        self.ask(Client::connections)
    }

    pub(crate) fn status(&self) -> StatusInfo {
        self.ask(Client::status)
    }

    /// What `ipvsadm` prints for these arguments in the director's namespace.
    pub(crate) fn ipvsadm(&self, arguments: &[&str]) -> String {
        let (status, output, errors) = self.ipvsadm_run(arguments, "");
        assert_eq!(status, 0, "{errors}");
        output
    }

    /// Runs `ipvsadm` in the director's namespace: exit status, output, errors. Names are those of a usual system.
    pub(crate) fn ipvsadm_run(&self, arguments: &[&str], input: &str) -> (u8, String, String) {
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let status = self.namespace.run(|| {
            let names = ipvsadm::listing::names::Names::new(
                "domain 53/tcp\ndomain 53/udp\nhttp 80/tcp www\nhttps 443/tcp\nhttp-alt 8080/tcp\n",
                "127.0.0.1 localhost\n",
            );
            ipvsadm::run::run(
                arguments.iter().copied(),
                &SocketAddress::default(),
                &names,
                input.as_bytes(),
                &mut output,
                &mut errors,
            )
        });
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status, text(output), text(errors))
    }

    /// Runs another `director` to its end in the namespace of this one: exit status, output, errors.
    pub(crate) fn beside(&self, arguments: &[&str]) -> (i32, String, String) {
        director_in(&self.namespace, arguments)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(
            Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap(),
            signal,
        )
        .unwrap();
    }

    /// Processor time that it has used so far.
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // After the name, which may hold anything: user and system time are fields 14 and 15, in hundredths of a second.
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks = |field: usize| -> u64 {
            let text = fields.split(' ').nth(field - 3).unwrap();
            text.parse().unwrap()
        };
        Duration::from_millis((ticks(14) + ticks(15)) * 10)
    }

    /// Ends it as the kernel would, without any warning.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it as an operator would.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits until it ends by itself.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("the director does not end; the log:\n{}", self.log());
    }

    /// Replaces its file and asks it to reload.
    pub(crate) fn reload(&self, conf: &str) {
        fs::write(&self.file, conf).unwrap();
        self.signal(Signal::HUP);
    }
}

impl Drop for Director {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for ending in ["conf", "marks", "sysctl"] {
            let _ = fs::remove_file(self.file.with_extension(ending));
        }
    }
}

/// Where real servers write down what they change, and FTP servers have their files. Those that are killed leave it there.
pub(crate) fn state() -> PathBuf {
    std::env::temp_dir().join(format!("director-e2e-{}", std::process::id()))
}

/// Removes what tests leave.
pub(crate) fn clean_up() {
    let _ = fs::remove_dir_all(state());
}

/// Runs the program to its end; exit status and standard error.
pub(crate) fn director(arguments: &[&str]) -> (i32, String) {
    let (status, _, errors) = director_texts(arguments);
    (status, errors)
}

/// Runs the program to its end: exit status, output, errors.
pub(crate) fn director_texts(arguments: &[&str]) -> (i32, String, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_director"))
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    texts(output.unwrap())
}

/// Runs the program to its end in this namespace: exit status, output, errors.
pub(crate) fn director_in(namespace: &Namespace, arguments: &[&str]) -> (i32, String, String) {
    let mut command = namespace.command(env!("CARGO_BIN_EXE_director")).unwrap();
    command.args(arguments).env_remove("LVS_SOCKET");
    texts(command.stdin(Stdio::null()).output().unwrap())
}

fn texts(output: Output) -> (i32, String, String) {
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

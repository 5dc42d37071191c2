//! A director at work: clients, a director and real servers in network namespaces of their own.
//!
//! Everything in it is real but the distances: TCP stacks, HTTP servers, the director's own process, its forwarding.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, IsTerminal, Write as _};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::{Child, ExitCode, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use ipvsadm::listing::names::Names;
use ipvsadm::protocol::{Client, SocketAddress};
use netlab::{Bridge, HttpServer, Namespace};
use rustix::process::{Pid, Signal, kill_process};

/// Prints a line. A reader that has seen enough, such as `head`, is no failure.
macro_rules! say {
    ($($text:tt)*) => {{
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

mod pair;
mod setup;

pub use setup::Setup;

/// Shows it, or a set-up by its name. The exit status is a failure if what was shown is not what should be.
pub fn run(workers: NonZeroU32, setup: Option<&str>) -> ExitCode {
    if let Err(error) = netlab::enter() {
        eprintln!(
            "director demo: can't make network namespaces: {error}\n\
             It needs root, or unprivileged user namespaces (sysctl user.max_user_namespaces, and on some systems\n\
             kernel.unprivileged_userns_clone or kernel.apparmor_restrict_unprivileged_userns)."
        );
        return ExitCode::FAILURE;
    }
    let outcome = match setup {
        Some(pair::NAME) => pair::show(workers),
        Some(name) => Setup::find(name)
            .ok_or_else(|| io::Error::other("there is no such set-up"))
            .and_then(|setup| setup::show(setup, workers)),
        None => Demo::new(workers).and_then(Demo::show),
    };
    match outcome {
        Ok(0) => ExitCode::SUCCESS,
        Ok(wrong) => {
            eprintln!("director demo: {wrong} things were not as they should be");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("director demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The stage. Dropping it ends the director and all servers.
#[derive(Debug)]
struct Demo {
    style: Style,
    client: Namespace,
    director: Namespace,
    /// Holds the switch between director and servers.
    _switch: Namespace,
    servers: Vec<(Namespace, HttpServer)>,
    process: Running,
    wrong: u32,
}

impl Demo {
    fn new(workers: NonZeroU32) -> io::Result<Self> {
        let style = Style::of_output();
        style.heading("A keepalived.conf balances real TCP connections");
        let client = Namespace::new("client")?;
        let director = Namespace::new("director")?;
        let switch = Namespace::new("switch")?;
        netlab::veth(
            (&client, "eth0", "198.51.100.10/24"),
            (&director, "bond1", "198.51.100.1/24"),
        )?;
        client.default_route("198.51.100.1")?;
        let mut servers = Vec::new();
        {
            let lan = Bridge::new(&switch, "lan")?;
            lan.attach(&director, "bond0", "10.71.12.1/24")?;
            for (name, addr) in SERVERS {
                let namespace = Namespace::new(name)?;
                lan.attach(&namespace, "eth0", &format!("{addr}/24"))?;
                namespace.default_route("10.71.12.1")?;
                let listen = SocketAddr::new(addr.parse().map_err(io::Error::other)?, PORT);
                let server = HttpServer::start(&namespace, listen, name)?;
                servers.push((namespace, server));
            }
        }
        say!("{TOPOLOGY}");
        style.dim(CONFIG.trim_end());
        let process = Running::start(&director, workers, style, CONFIG, &[])?;
        Ok(Self {
            style,
            client,
            director,
            _switch: switch,
            servers,
            process,
            wrong: 0,
        })
    }

    /// The show; returns how many things were not as they should be.
    fn show(mut self) -> io::Result<u32> {
        // Nobody else is active: it waits to be sure of that.
        let ready = self.wait_for_servers(3, Duration::from_secs(10))?;
        self.expect(ready.is_some(), "three servers stand behind the service");

        self.style
            .heading("100 requests from the client to the virtual address");
        self.requests(100, &[0, 1, 2]);

        self.style.heading("web2 dies");
        self.servers[1].1.stop();
        let noticed = self.wait_for_servers(2, Duration::from_secs(8))?;
        self.expect(noticed.is_some(), "the director takes a dead server out");
        if let Some(after) = noticed {
            say!(
                "taken out after {:.1} s (delay_loop 1, retry 1, delay_before_retry 1)",
                after.as_secs_f32()
            );
        }
        self.requests(60, &[0, 2]);

        self.style.heading("web2 returns");
        let (namespace, server) = &mut self.servers[1];
        server.restart(namespace)?;
        let noticed = self.wait_for_servers(3, Duration::from_secs(8))?;
        self.expect(
            noticed.is_some(),
            "the director puts a server that returned in again",
        );
        if let Some(after) = noticed {
            say!("back after {:.1} s", after.as_secs_f32());
        }
        self.requests(60, &[0, 1, 2]);

        self.style.heading("ipvsadm -Ln --stats");
        let listing = listing(&self.director)?;
        say!("{}", listing.trim_end());
        self.expect(
            listing.contains("198.51.100.100:15000"),
            "ipvsadm lists the service",
        );

        self.style.heading("SIGTERM");
        let ended = self.process.terminate(Duration::from_secs(5));
        self.expect(ended, "the director ends cleanly");
        let left = self
            .director
            .netlink()
            .and_then(|mut netlink| netlink.addresses())
            .map_err(io::Error::other)?;
        let vip: std::net::IpAddr = [198, 51, 100, 100].into();
        self.expect(
            left.iter().all(|address| address.addr != vip),
            "its address is gone with it",
        );
        if self.wrong == 0 {
            self.style.good("everything was as it should be");
        }
        Ok(self.wrong)
    }

    /// Sends requests one after the other and shows who answered. They must be shared evenly between `expected`.
    fn requests(&mut self, count: u32, expected: &[usize]) {
        let vip = SocketAddr::from(([198, 51, 100, 100], PORT));
        let mut answers = vec![0; self.servers.len()];
        let mut failures = Vec::new();
        for _ in 0..count {
            match self.client.http_get(vip, "/", Duration::from_secs(2)) {
                Ok(response) => {
                    let who = SERVERS
                        .iter()
                        .position(|(name, _)| *name == response.server);
                    if let Some(who) = who {
                        answers[who] += 1;
                    }
                }
                Err(error) => failures.push(error.to_string()),
            }
        }
        for (at, (name, addr)) in SERVERS.iter().enumerate() {
            let bar = "█".repeat(answers[at]);
            say!(
                "  {name}  {addr:<12} {:>4}  {}",
                answers[at],
                self.style.paint(Style::BAR, &bar)
            );
        }
        failures.dedup();
        for failure in &failures {
            say!("  failed: {failure}");
        }
        self.expect(failures.is_empty(), "every request was answered");
        let even = expected.iter().all(|at| {
            let share = count as usize / expected.len();
            (share..=share + 1).contains(&answers[*at])
        });
        self.expect(even, "round robin shares evenly");
    }

    /// Waits until the service has so many servers; how long that took, `None` if it did not happen.
    fn wait_for_servers(
        &mut self,
        count: usize,
        patience: Duration,
    ) -> io::Result<Option<Duration>> {
        let started = Instant::now();
        while started.elapsed() < patience {
            let services = self.director.run(|| {
                let mut client = Client::connect(&SocketAddress::default()).ok()?;
                client.services().ok()
            });
            let servers = services.and_then(|info| Some(info.services.first()?.destinations.len()));
            let vip = [198, 51, 100, 100].into();
            if servers == Some(count) && setup::holds_any(&self.director, &[vip])? {
                return Ok(Some(started.elapsed()));
            }
            if self.process.has_ended()? {
                return Err(io::Error::other("the director ended early"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(None)
    }

    fn expect(&mut self, holds: bool, what: &str) {
        if !holds {
            self.wrong += 1;
            self.style.bad(&format!("not so: {what}"));
        }
    }
}

/// What `ipvsadm -Ln --stats` prints there.
fn listing(director: &Namespace) -> io::Result<String> {
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let status = director.run(|| {
        ipvsadm::run::run(
            ["-Ln", "--stats"],
            &SocketAddress::default(),
            &Names::default(),
            std::io::empty(),
            &mut output,
            &mut errors,
        )
    });
    if status != 0 {
        return Err(io::Error::other(
            String::from_utf8_lossy(&errors).into_owned(),
        ));
    }
    Ok(String::from_utf8_lossy(&output).into_owned())
}

/// The director's process and its configuration file, both gone when dropped.
#[derive(Debug)]
struct Running {
    child: Child,
    file: PathBuf,
    log: Option<thread::JoinHandle<()>>,
}

impl Running {
    fn start(
        namespace: &Namespace,
        workers: NonZeroU32,
        style: Style,
        conf: &str,
        more: &[&str],
    ) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("director-demo-{}-{number}.conf", std::process::id());
        let file = std::env::temp_dir().join(name);
        fs::write(&file, conf)?;
        let mut command = namespace.command(std::env::current_exe()?)?;
        command
            .args(["-n", "-l", "--workers", &workers.to_string(), "-f"])
            .arg(&file)
            .args(more)
            .env_remove("LVS_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().inspect_err(|_| {
            let _ = fs::remove_file(&file);
        })?;
        let log = child.stderr.take().map(|stderr| {
            thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    style.dim(&line);
                }
            })
        });
        Ok(Self { child, file, log })
    }

    fn has_ended(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Asks it to end; whether it did so, in time and with success.
    fn terminate(&mut self, patience: Duration) -> bool {
        let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else {
            return false;
        };
        if kill_process(pid, Signal::TERM).is_err() {
            return false;
        }
        let until = Instant::now() + patience;
        while Instant::now() < until {
            match self.child.try_wait() {
                Ok(Some(status)) => {
                    if let Some(log) = self.log.take() {
                        let _ = log.join();
                    }
                    return status.success();
                }
                Ok(None) => thread::sleep(Duration::from_millis(10)),
                Err(_) => return false,
            }
        }
        false
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when there is nothing left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.file);
    }
}

/// Colours on a terminal, plain text elsewhere.
#[derive(Debug, Clone, Copy)]
struct Style {
    colour: bool,
}

impl Style {
    const BAR: &str = "36";

    fn of_output() -> Self {
        Self {
            colour: io::stdout().is_terminal(),
        }
    }

    fn heading(self, text: &str) {
        say!("\n{}", self.paint("1", text));
    }

    fn good(self, text: &str) {
        say!("{}", self.paint("32", text));
    }

    fn bad(self, text: &str) {
        say!("{}", self.paint("1;31", text));
    }

    fn dim(self, text: &str) {
        for line in text.lines() {
            say!("  {}", self.paint("2", line));
        }
    }

    fn paint(self, code: &str, text: &str) -> String {
        let mut painted = String::new();
        // Writing to a string can't fail.
        let _ = if self.colour {
            write!(painted, "\x1b[{code}m{text}\x1b[0m")
        } else {
            write!(painted, "{text}")
        };
        painted
    }
}

const PORT: u16 = 15000;

const SERVERS: [(&str, &str); 3] = [
    ("web1", "10.71.12.69"),
    ("web2", "10.71.12.76"),
    ("web3", "10.71.12.83"),
];

const TOPOLOGY: &str = "
  client ─────────── director ─────────── web1 10.71.12.69
  198.51.100.10      │ VIP 198.51.100.100 ├ web2 10.71.12.76
                     │ (no ip_vs)         └ web3 10.71.12.83
";

const CONFIG: &str = "\
vrrp_sync_group NC-MAIN-API {
    group {
        NC-MAIN-API-PUB
    }
}
vrrp_instance NC-MAIN-API-PUB {
    state BACKUP
    interface bond1
    virtual_router_id 222
    priority 100
    advert_int 1
    nopreempt
    authentication {
        auth_type PASS
        auth_pass 1111
    }
    virtual_ipaddress {
        198.51.100.100/24 dev bond1
    }
}
virtual_server 198.51.100.100 15000 {
    delay_loop 1
    lb_algo rr
    lb_kind NAT
    protocol TCP
    real_server 10.71.12.69 15000 {
        weight 100
        TCP_CHECK {
            connect_timeout 1
            retry 1
            delay_before_retry 1
        }
    }
    real_server 10.71.12.76 15000 {
        weight 100
        TCP_CHECK {
            connect_timeout 1
            retry 1
            delay_before_retry 1
        }
    }
    real_server 10.71.12.83 15000 {
        weight 100
        TCP_CHECK {
            connect_timeout 1
            retry 1
            delay_before_retry 1
        }
    }
}
";

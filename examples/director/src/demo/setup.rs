//! The set-ups of `examples/director/setups`, each between real TCP stacks.

use std::io::{self, BufRead, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ipvsadm::protocol::{Client, ServicesInfo, SocketAddress};
use netlab::{Bridge, HttpServer, Namespace};
use rustix::process::{Pid, Signal, kill_process};

use super::{Running, Style};

/// A set-up: its configuration, and the network that it is for.
#[derive(Debug)]
pub struct Setup {
    /// Its directory.
    pub name: &'static str,
    title: &'static str,
    conf: &'static str,
    topology: &'static str,
    /// The client's address, and the router that it uses.
    client: (&'static str, Option<&'static str>),
    /// The director's interfaces with their addresses: to clients, and to servers where they are in another network.
    director: &'static [(&'static str, &'static str)],
    servers: &'static [Server],
    services: &'static [&'static str],
}

#[derive(Debug)]
struct Server {
    name: &'static str,
    addr: &'static str,
    ports: &'static [u16],
    role: Role,
}

/// What a server needs.
#[derive(Debug, Clone, Copy)]
enum Role {
    /// The director as its router.
    Nat(&'static str),
    /// `director realserver` with this mode for this address.
    RealServer(&'static str, &'static str),
}

impl Setup {
    /// The one with this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|setup| setup.name == name)
    }

    /// All names, that of the pair too.
    pub fn names() -> Vec<&'static str> {
        let all = ALL.iter().map(|setup| setup.name);
        all.chain([super::pair::NAME]).collect()
    }
}

/// Shows it; returns how many things were not as they should be.
pub(super) fn show(setup: &'static Setup, workers: NonZeroU32) -> io::Result<u32> {
    let outcome = Show::new(setup, workers).and_then(Show::run);
    remove_state();
    outcome
}

/// Empty when all real servers ended as they should.
pub(super) fn remove_state() {
    let _ = std::fs::remove_dir(state());
}

/// Where real servers write down what they change.
fn state() -> PathBuf {
    std::env::temp_dir().join(format!("director-demo-{}", std::process::id()))
}

struct Show {
    setup: &'static Setup,
    style: Style,
    client: Namespace,
    director: Namespace,
    _switch: Namespace,
    _web: Vec<HttpServer>,
    realservers: Vec<(Namespace, RealServer)>,
    process: Running,
    wrong: u32,
}

impl Show {
    fn new(setup: &'static Setup, workers: NonZeroU32) -> io::Result<Self> {
        let style = Style::of_output();
        style.heading(setup.title);
        let client = Namespace::new("client")?;
        let director = Namespace::new("director")?;
        let switch = Namespace::new("switch")?;
        let lan = Bridge::new(&switch, "lan")?;
        let [(outside, address), inside @ ..] = setup.director else {
            return Err(io::Error::other("a director has an interface"));
        };
        match inside {
            [] => {
                lan.attach(&client, "eth0", setup.client.0)?;
                lan.attach(&director, outside, address)?;
            }
            [(inside, inner), ..] => {
                netlab::veth(
                    (&client, "eth0", setup.client.0),
                    (&director, outside, address),
                )?;
                lan.attach(&director, inside, inner)?;
                director.forward()?;
            }
        }
        if let Some(router) = setup.client.1 {
            client.default_route(router)?;
        }
        say!("{}", setup.topology);
        style.dim(setup.conf.trim_end());
        style.heading("The servers are made ready");
        let (mut web, mut realservers) = (Vec::new(), Vec::new());
        for server in setup.servers {
            let namespace = Namespace::new(server.name)?;
            lan.attach(&namespace, "eth0", server.addr)?;
            match server.role {
                Role::Nat(router) => {
                    namespace.default_route(router)?;
                    say!("  {}: ip route add default via {router}", server.name);
                }
                Role::RealServer(mode, vip) => {
                    say!(
                        "  {}: director realserver --vip {vip} --mode {mode}",
                        server.name
                    );
                    realservers
                        .push((namespace.clone(), RealServer::start(&namespace, mode, vip)?));
                }
            }
            for port in server.ports {
                let any = SocketAddr::from(([0, 0, 0, 0], *port));
                web.push(HttpServer::start(&namespace, any, server.name)?);
            }
        }
        style.heading("The director starts");
        let process = Running::start(&director, workers, style, setup.conf, &[])?;
        Ok(Self {
            setup,
            style,
            client,
            director,
            _switch: switch,
            _web: web,
            realservers,
            process,
            wrong: 0,
        })
    }

    fn run(mut self) -> io::Result<u32> {
        let is_ready = self.wait_until_ready()?;
        self.expect(
            is_ready,
            "the director holds the addresses and has all servers",
        );
        for service in self.setup.services {
            self.requests(service.parse().map_err(io::Error::other)?);
        }

        self.style.heading("director why, for the next connection");
        let client = self.setup.client.0.split('/').next().unwrap_or_default();
        let next = self.setup.services[0];
        let (good, text) = self.command(&["why", "tcp", &format!("{client}:54321"), next])?;
        say!("{}", text.trim_end());
        self.expect(good, "the next connection will be forwarded");

        self.style.heading("ipvsadm -Ln --stats");
        say!("{}", super::listing(&self.director)?.trim_end());
        let services = self.services().unwrap_or_default();
        let even = services.services.iter().all(|service| {
            let counts = || service.destinations.iter().map(|server| server.stats.conns);
            counts().all(|count| count == u64::from(REQUESTS) / counts().count() as u64)
        });
        self.expect(
            even,
            "all servers of a service have the same number of connections",
        );

        self.style.heading("SIGTERM");
        let ended = self.process.terminate(Duration::from_secs(5));
        self.expect(ended, "the director ends cleanly");
        let vips = self.vips();
        let gone = !holds_any(&self.director, &vips)?;
        self.expect(gone, "its addresses are gone with it");
        for (namespace, realserver) in std::mem::take(&mut self.realservers) {
            let ended = realserver.terminate();
            let gone = ended && !holds_any(&namespace, &vips)?;
            self.expect(gone, "a real server gives back what it was given");
        }
        if self.wrong == 0 {
            self.style.good("everything was as it should be");
        }
        Ok(self.wrong)
    }

    /// Requests one after the other: servers must take turns.
    fn requests(&mut self, service: SocketAddr) {
        self.style
            .heading(&format!("{REQUESTS} requests to {service}"));
        let mut answers = Vec::new();
        for _ in 0..REQUESTS {
            match self.client.http_get(service, "/", Duration::from_secs(3)) {
                Ok(response) => answers.push(response.server),
                Err(error) => say!("  failed: {error}"),
            }
        }
        say!("  {}", answers.join(" "));
        self.expect(
            answers.len() == REQUESTS as usize,
            "every request was answered",
        );
        let alternate = answers.windows(2).all(|pair| pair[0] != pair[1]);
        self.expect(alternate, "the servers take turns");
    }

    /// Addresses are held, and every server is in the table.
    fn wait_until_ready(&mut self) -> io::Result<bool> {
        let end = Instant::now() + PATIENCE;
        let vips = self.vips();
        while Instant::now() < end {
            if self.process.has_ended()? {
                return Err(io::Error::other("the director ended early"));
            }
            let services = self.services().unwrap_or_default().services;
            let is_whole = services.len() == self.setup.services.len()
                && services
                    .iter()
                    .all(|service| service.destinations.len() == 2);
            let mut held = vips.iter().map(|vip| holds_any(&self.director, &[*vip]));
            if is_whole && held.all(|held| held.unwrap_or(false)) {
                return Ok(true);
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(false)
    }

    fn services(&self) -> Option<ServicesInfo> {
        self.director.run(|| {
            let mut client = Client::connect(&SocketAddress::default()).ok()?;
            client.services().ok()
        })
    }

    fn vips(&self) -> Vec<IpAddr> {
        let services = self.setup.services.iter();
        let mut vips: Vec<IpAddr> = services
            .filter_map(|service| service.parse::<SocketAddr>().ok())
            .map(|service| service.ip())
            .collect();
        vips.dedup();
        vips
    }

    /// Runs `director` in the director's namespace: whether it succeeded, and what it says.
    fn command(&self, arguments: &[&str]) -> io::Result<(bool, String)> {
        let mut command = self.director.command(std::env::current_exe()?)?;
        let output = command.args(arguments).env_remove("LVS_SOCKET").output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((output.status.success(), text))
    }

    fn expect(&mut self, holds: bool, what: &str) {
        if !holds {
            self.wrong += 1;
            self.style.bad(&format!("not so: {what}"));
        }
    }
}

pub(super) fn holds_any(namespace: &Namespace, vips: &[IpAddr]) -> io::Result<bool> {
    let addresses = namespace
        .netlink()
        .and_then(|mut netlink| netlink.addresses())
        .map_err(io::Error::other)?;
    Ok(addresses.iter().any(|held| vips.contains(&held.addr)))
}

/// A process of `director realserver`; killed when dropped.
pub(super) struct RealServer(Child);

impl RealServer {
    /// Starts it and waits until it is ready.
    pub(super) fn start(namespace: &Namespace, mode: &str, vip: &str) -> io::Result<Self> {
        let mut child = namespace
            .command(std::env::current_exe()?)?
            .args(["realserver", "--vip", vip, "--mode", mode, "--state"])
            .arg(state())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut log = String::new();
        if let Some(stderr) = child.stderr.take() {
            let mut lines = BufReader::new(stderr).lines();
            for line in lines.by_ref().map_while(Result::ok) {
                if line.contains("ready: ") {
                    // What it says later must find a reader.
                    thread::spawn(move || lines.for_each(drop));
                    return Ok(Self(child));
                }
                log = line;
            }
        }
        child.wait()?;
        Err(io::Error::other(log))
    }

    /// Whether it ended as it was told, with success.
    fn terminate(mut self) -> bool {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok())
            && self.0.wait().is_ok_and(|status| status.success())
    }
}

impl Drop for RealServer {
    fn drop(&mut self) {
        // Both fail when there is nothing left to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const REQUESTS: u32 = 10;

/// A standby's patience, and some for a slow machine.
const PATIENCE: Duration = Duration::from_secs(15);

static ALL: [Setup; 4] = [
    Setup {
        name: "nat",
        title: "NAT: the director is the servers' router",
        conf: include_str!("../../setups/nat/keepalived.conf"),
        topology: "
  client ─────────── director ─────────── web1 10.71.12.69
  198.51.100.10      │ VIP 198.51.100.100 └ web2 10.71.12.76
",
        client: ("198.51.100.10/25", Some("198.51.100.1")),
        director: &[("bond1", "198.51.100.1/25"), ("bond0", "10.71.12.1/24")],
        servers: &[
            Server {
                name: "web1",
                addr: "10.71.12.69/24",
                ports: &[15000],
                role: Role::Nat("10.71.12.1"),
            },
            Server {
                name: "web2",
                addr: "10.71.12.76/24",
                ports: &[15000],
                role: Role::Nat("10.71.12.1"),
            },
        ],
        services: &["198.51.100.100:15000"],
    },
    Setup {
        name: "dr",
        title: "DR: servers on the director's network answer clients themselves",
        conf: include_str!("../../setups/dr/keepalived.conf"),
        topology: "
  client 10.65.32.100 ─┬─ director 10.65.32.1, VIPs 10.65.32.28 and 10.65.32.29
                       ├─ connect1 10.65.32.13, connect2 10.65.32.14
                       └─ auth1 10.65.32.22, auth2 10.65.32.23
",
        client: ("10.65.32.100/23", None),
        director: &[("bond0", "10.65.32.1/23")],
        servers: &[
            Server {
                name: "connect1",
                addr: "10.65.32.13/23",
                ports: &[80, 443],
                role: Role::RealServer("dr", "10.65.32.28"),
            },
            Server {
                name: "connect2",
                addr: "10.65.32.14/23",
                ports: &[80, 443],
                role: Role::RealServer("dr", "10.65.32.28"),
            },
            Server {
                name: "auth1",
                addr: "10.65.32.22/23",
                ports: &[80, 443],
                role: Role::RealServer("dr", "10.65.32.29"),
            },
            Server {
                name: "auth2",
                addr: "10.65.32.23/23",
                ports: &[80, 443],
                role: Role::RealServer("dr", "10.65.32.29"),
            },
        ],
        services: &[
            "10.65.32.28:80",
            "10.65.32.28:443",
            "10.65.32.29:80",
            "10.65.32.29:443",
        ],
    },
    Setup {
        name: "tun",
        title: "TUN: packets travel to the servers inside others",
        conf: include_str!("../../setups/tun/keepalived.conf"),
        topology: TUNNELS,
        client: ("10.10.36.100/23", None),
        director: &[("em1", "10.10.36.1/23")],
        servers: &[
            Server {
                name: "web1",
                addr: "10.10.36.4/23",
                ports: &[80],
                role: Role::RealServer("tun", "10.10.36.11"),
            },
            Server {
                name: "web2",
                addr: "10.10.36.7/23",
                ports: &[80],
                role: Role::RealServer("tun", "10.10.36.11"),
            },
        ],
        services: &["10.10.36.11:80"],
    },
    Setup {
        name: "mixed-dr-tun",
        title: "One service, a DR server and a TUN server",
        conf: include_str!("../../setups/mixed-dr-tun/keepalived.conf"),
        topology: TUNNELS,
        client: ("10.10.36.100/23", None),
        director: &[("em1", "10.10.36.1/23")],
        servers: &[
            Server {
                name: "web1",
                addr: "10.10.36.4/23",
                ports: &[80],
                role: Role::RealServer("dr", "10.10.36.11"),
            },
            Server {
                name: "web2",
                addr: "10.10.36.7/23",
                ports: &[80],
                role: Role::RealServer("tun", "10.10.36.11"),
            },
        ],
        services: &["10.10.36.11:80"],
    },
];

const TUNNELS: &str = "
  client 10.10.36.100 ─┬─ director 10.10.36.1, VIP 10.10.36.11
                       ├─ web1 10.10.36.4
                       └─ web2 10.10.36.7
";

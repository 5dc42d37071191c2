//! One recording, line by line against a director with one worker. Shared with the test `traces`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lvs_sched::*;
use serde_json::Value;

/// How a file went.
pub(crate) enum Outcome {
    Passed,
    /// Line, step and both answers.
    Failed(String),
    /// The scheduler that is not known.
    Skipped(String),
}

/// Replays a file.
pub(crate) fn replay_file(path: &Path) -> Outcome {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return Outcome::Failed(format!("cannot be read: {error}")),
    };
    let lines: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
    let lines = match lines {
        Ok(lines) => lines,
        Err(error) => return Outcome::Failed(format!("not JSON: {error}")),
    };
    for name in lines.iter().filter_map(|line| line["scheduler"].as_str()) {
        if name.parse::<SchedulerKind>().is_err() {
            return Outcome::Skipped(name.to_owned());
        }
    }
    let mut replay = Replay::new();
    for (index, line) in lines.iter().enumerate() {
        let following = lines.get(index + 1).and_then(|line| line["op"].as_str());
        if let Err(difference) = replay.step(line, following) {
            return Outcome::Failed(format!("line {}: {difference}\n    {line}", index + 1));
        }
    }
    Outcome::Passed
}

type Step = Result<(), String>;

/// When a connection ended: here, and at the latest in the kernel, whose timers are late by up to a
/// granule.
#[derive(Debug)]
struct Gone {
    at: Instant,
    latest: Instant,
}

struct Replay {
    start: Instant,
    now: Instant,
    director: Arc<Director>,
    worker: Worker,
    key: Option<ServiceKey>,
    /// Clients whose connections ended and were not listed yet.
    vanished: BTreeMap<SocketAddr, Gone>,
    /// If the last line was a pause: when it began.
    slept_from: Option<Instant>,
}

impl Replay {
    fn new() -> Self {
        let start = Instant::now();
        let director = Arc::new(Director::new(DirectorConfig::new([1, 2, 3, 4])));
        let worker = director.worker();
        Self {
            start,
            now: start,
            director,
            worker,
            key: None,
            vanished: BTreeMap::new(),
            slept_from: None,
        }
    }

    fn step(&mut self, line: &Value, following: Option<&str>) -> Step {
        let before: Vec<_> = self.worker.connections().collect();
        let last_line = self.now;
        self.advance(self.start + Duration::from_secs_f64(number(line, "t")?))?;
        let after = self.clients();
        let gone = before
            .iter()
            .filter(|connection| !after.contains(&connection.client));
        let gone: Vec<_> = gone
            .map(|gone| {
                (
                    gone.client,
                    Gone {
                        at: gone.deadline,
                        latest: gone.deadline + self.lateness(gone.state),
                    },
                )
            })
            .collect();
        self.vanished.extend(gone);
        let op = text(line, "op")?;
        if op != "expired" {
            self.slept_from = (op == "sleep").then_some(last_line);
        }
        match op {
            "meta" => Ok(()),
            "set-timeouts" => self.set_timeouts(line),
            "add-service" => self.add_service(line),
            "edit-service" => self
                .director
                .edit_service(&self.key()?, self.service_config(line)?)
                .map_err(to_string),
            "add-server" => {
                let added = self.director.add_server(
                    self.now,
                    &self.key()?,
                    addr(line, "server")?,
                    server_config(line)?,
                );
                added.map(drop).map_err(to_string)
            }
            "edit-server" => {
                let edited = self.director.edit_server(
                    self.now,
                    &self.key()?,
                    addr(line, "server")?,
                    server_config(line)?,
                );
                edited.map_err(to_string)
            }
            "delete-server" => self
                .director
                .remove_server(self.now, &self.key()?, addr(line, "server")?)
                .map_err(to_string),
            "packet" => self.packet(line),
            "reply" => self.reply(line),
            "counters" => self.counters(line),
            "templates" => self.templates(line),
            "sleep" if following == Some("expired") => Ok(()),
            "sleep" => self.expired(&BTreeSet::new(), last_line),
            "expired" => {
                let expected: Result<BTreeSet<_>, String> = array(line, "from")?
                    .iter()
                    .map(|from| parse(from.as_str().unwrap_or("")))
                    .collect();
                self.expired(&expected?, self.slept_from.unwrap_or(self.now))
            }
            op => Err(format!("unknown op {op}")),
        }
    }

    /// Lets every timer fire at its own time, then stops at `to`.
    fn advance(&mut self, to: Instant) -> Step {
        loop {
            let deadlines = [self.worker.poll_timeout(), self.director.poll_timeout()];
            let Some(next) = deadlines
                .into_iter()
                .flatten()
                .min()
                .filter(|next| *next <= to)
            else {
                break;
            };
            if next < self.now {
                return Err("poll_timeout went back".into());
            }
            self.now = next;
            self.worker.handle_timeout(next);
            self.director.handle_timeout(next);
        }
        self.now = to;
        Ok(())
    }

    /// Checks what ended in a pause that began at `from`: everything listed must have ended, and
    /// everything that ended within the pause by any timer must be listed.
    fn expired(&mut self, listed: &BTreeSet<SocketAddr>, from: Instant) -> Step {
        if let Some(client) = listed
            .iter()
            .find(|client| !self.vanished.contains_key(client))
        {
            return Err(format!("{client} ended in the kernel, but not here"));
        }
        let must = |gone: &Gone| gone.at > from && gone.latest < self.now;
        if let Some((client, _)) = self
            .vanished
            .iter()
            .find(|(client, gone)| must(gone) && !listed.contains(client))
        {
            return Err(format!("{client} ended here, but not in the kernel"));
        }
        let now = self.now;
        self.vanished
            .retain(|client, gone| !listed.contains(client) && gone.latest >= now);
        Ok(())
    }

    /// The granule of the kernel's timers for a state's timeout.
    fn lateness(&self, state: State) -> Duration {
        let timeouts = self.director.timeouts();
        let timeout = match state {
            State::Tcp(TcpState::Established) => timeouts.tcp,
            State::Tcp(TcpState::FinWait) => timeouts.tcp_fin,
            State::Tcp(TcpState::Close) => Duration::from_secs(10),
            State::Udp => timeouts.udp,
            _ => Duration::from_secs(120),
        };
        match timeout.as_secs() {
            0..16 => Duration::from_millis(256 + 8),
            16..129 => Duration::from_millis(2048 + 8),
            _ => Duration::from_millis(16384 + 8),
        }
    }

    fn clients(&self) -> BTreeSet<SocketAddr> {
        self.worker
            .connections()
            .map(|connection| connection.client)
            .collect()
    }

    fn set_timeouts(&self, line: &Value) -> Step {
        let seconds = |name| number(line, name).map(Duration::from_secs_f64);
        self.director.set_timeouts(Timeouts {
            tcp: seconds("tcp")?,
            tcp_fin: seconds("tcpfin")?,
            udp: seconds("udp")?,
        });
        Ok(())
    }

    fn add_service(&mut self, line: &Value) -> Step {
        let service = addr(line, "service")?;
        let protocol = if text(line, "proto")? == "udp" {
            Protocol::Udp
        } else {
            Protocol::Tcp
        };
        let key = ServiceKey::Address {
            protocol,
            vip: service.ip(),
            vport: service.port(),
        };
        self.key = Some(key);
        self.director
            .add_service(key, self.service_config(line)?)
            .map(drop)
            .map_err(to_string)
    }

    fn service_config(&self, line: &Value) -> Result<ServiceConfig, String> {
        let flags = text(line, "flags")?
            .split(',')
            .filter(|name| !name.is_empty());
        let flags = flags.fold(SchedulerFlags::default(), |flags, name| {
            flags.union(if name.ends_with("port") {
                SchedulerFlags::PORT
            } else {
                SchedulerFlags::FALLBACK
            })
        });
        let granularity = match line["netmask"].as_str() {
            Some(mask) => Granularity::Mask(mask.parse().map_err(to_string)?),
            None => Granularity::host(self.key()?.family()),
        };
        let persistence = line["persistent"].as_u64().map(|seconds| Persistence {
            timeout: Duration::from_secs(seconds),
            granularity,
        });
        let scheduler = text(line, "scheduler")?.parse().map_err(to_string)?;
        Ok(ServiceConfig {
            scheduler,
            flags,
            persistence,
            one_packet: line["ops"] == true,
        })
    }

    fn packet(&mut self, line: &Value) -> Step {
        let (protocol, service) = self.service()?;
        let client = addr(line, "from")?;
        let packet = Packet {
            protocol,
            source: client,
            destination: service,
            direction: Direction::Inbound,
            tcp_flags: tcp_flags(line),
            sctp: None,
            length: 60,
            mark: 0,
        };
        let decided = match self.worker.handle_packet(self.now, &packet) {
            Verdict::Forward { server, .. } => Some(server),
            Verdict::Reject => None,
            verdict => return Err(format!("unexpected {verdict:?}")),
        };
        let expected = line["server"].as_str().map(parse).transpose()?;
        same(&decided, &expected)?;
        if decided.is_none() {
            Ok(())
        } else {
            self.entry(line, client)
        }
    }

    fn reply(&mut self, line: &Value) -> Step {
        let (protocol, service) = self.service()?;
        let client = addr(line, "to")?;
        let packet = Packet {
            protocol,
            source: addr(line, "by")?,
            destination: client,
            direction: Direction::Outbound,
            tcp_flags: tcp_flags(line),
            sctp: None,
            length: 60,
            mark: 0,
        };
        match self.worker.handle_packet(self.now, &packet) {
            Verdict::Reply { vip, .. } => same(&vip, &service)?,
            verdict => return Err(format!("unexpected {verdict:?}")),
        }
        self.entry(line, client)
    }

    /// State and time left of a client's connection, as far as the line tells.
    fn entry(&self, line: &Value, client: SocketAddr) -> Step {
        let (protocol, service) = self.service()?;
        let info = self
            .worker
            .connection(protocol, client, service)
            .ok_or("the connection is not in the table")?;
        if let Some(state) = line["state"].as_str() {
            same(&info.state.name(), &state)?;
        }
        match line["expires"].as_u64() {
            Some(expires) => within(info.remaining(self.now), expires, 0.0),
            None => Ok(()),
        }
    }

    fn counters(&self, line: &Value) -> Step {
        let service = self.director.service(&self.key()?).ok_or("no service")?;
        let ours: Vec<_> = service
            .servers()
            .iter()
            .map(|server| {
                (
                    server.addr(),
                    server.weight().get(),
                    server.active(),
                    server.inactive(),
                )
            })
            .collect();
        let expected: Result<Vec<_>, String> = array(line, "servers")?
            .iter()
            .map(|server| {
                let count = |name| number(server, name).map(|number| number as u32);
                Ok((
                    addr(server, "server")?,
                    count("weight")?,
                    count("active")?,
                    count("inactive")?,
                ))
            })
            .collect();
        same(&ours, &expected?)
    }

    fn templates(&self, line: &Value) -> Step {
        let ours = self.director.templates();
        let name = |info: &TemplateInfo| match info.target {
            TemplateTarget::Address(to) => Ok((SocketAddr::new(info.client, 0), to)),
            TemplateTarget::Mark(_) => Err("a mark template".to_owned()),
        };
        let names: Result<BTreeSet<_>, _> = ours.iter().map(name).collect();
        let expected = array(line, "templates")?;
        let expected_names: Result<BTreeSet<_>, String> = expected
            .iter()
            .map(|template| Ok((addr(template, "from")?, addr(template, "to")?)))
            .collect();
        same(&names?, &expected_names?)?;
        for template in expected {
            let (from, to, server) = (
                addr(template, "from")?,
                addr(template, "to")?,
                addr(template, "server")?,
            );
            let state = text(template, "state")?;
            let expires = number(template, "expires")? as u64;
            // Of several with equal names the kernel lists one only.
            let fits = ours.iter().any(|info| {
                name(info) == Ok((from, to))
                    && info.destination == server
                    && info.assured == (state == "ASSURED")
                    && within(
                        info.deadline.saturating_duration_since(self.now),
                        expires,
                        0.3,
                    )
                    .is_ok()
            });
            if !fits {
                return Err(format!("no template like {template}; ours {ours:?}"));
            }
        }
        Ok(())
    }

    fn key(&self) -> Result<ServiceKey, String> {
        self.key.ok_or_else(|| "no service yet".into())
    }

    fn service(&self) -> Result<(Protocol, SocketAddr), String> {
        match self.key()? {
            ServiceKey::Address {
                protocol,
                vip,
                vport,
            } => Ok((protocol, SocketAddr::new(vip, vport))),
            ServiceKey::Mark { .. } => Err("a mark service".into()),
        }
    }
}

/// The kernel's reading may be a second lower than ours and, by `late` seconds between its clock
/// and the line's, higher.
fn within(remaining: Duration, expires: u64, late: f64) -> Step {
    let ours = remaining.as_secs_f64();
    let highest = (ours + late).floor();
    if (ours.floor() - 1.0..=highest).contains(&(expires as f64)) {
        Ok(())
    } else {
        Err(format!("ours expires in {ours:.3} s, kernel {expires} s"))
    }
}

fn server_config(line: &Value) -> Result<ServerConfig, String> {
    let count = |name| number(line, name).map(|number| number as u32);
    Ok(ServerConfig {
        weight: Weight::new(count("weight")?).map_err(to_string)?,
        method: match text(line, "method")? {
            "nat" => ForwardMethod::Nat,
            "tun" => ForwardMethod::Tunnel,
            _ => ForwardMethod::DirectRoute,
        },
        upper_threshold: count("upper")?,
        lower_threshold: count("lower")?,
    })
}

fn tcp_flags(line: &Value) -> TcpFlags {
    line["tcp"]
        .as_str()
        .unwrap_or("")
        .chars()
        .fold(TcpFlags::default(), |flags, letter| {
            flags
                | match letter {
                    'S' => TcpFlags::SYN,
                    'A' => TcpFlags::ACK,
                    'F' => TcpFlags::FIN,
                    'R' => TcpFlags::RST,
                    'P' => TcpFlags::PSH,
                    _ => TcpFlags::default(),
                }
        })
}

fn same<T: PartialEq + std::fmt::Debug>(ours: &T, kernel: &T) -> Step {
    if ours == kernel {
        Ok(())
    } else {
        Err(format!("ours {ours:?}, kernel {kernel:?}"))
    }
}

fn text<'a>(line: &'a Value, name: &str) -> Result<&'a str, String> {
    line[name]
        .as_str()
        .ok_or_else(|| format!("no text {name:?}"))
}

fn number(line: &Value, name: &str) -> Result<f64, String> {
    line[name]
        .as_f64()
        .ok_or_else(|| format!("no number {name:?}"))
}

fn array<'a>(line: &'a Value, name: &str) -> Result<&'a Vec<Value>, String> {
    line[name]
        .as_array()
        .ok_or_else(|| format!("no list {name:?}"))
}

fn addr(line: &Value, name: &str) -> Result<SocketAddr, String> {
    parse(text(line, name)?)
}

/// Also an address without brackets or without a port.
fn parse(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0)))
        .map_err(|_| format!("no address: {text:?}"))
}

fn to_string(error: impl ToString) -> String {
    error.to_string()
}

//! What a command line means: values are judged, combinations checked, defaults filled in.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::protocol::{
    Edit, Family, Granularity, LocalAddressSpec, Method, PersistenceInfo, ServerId, ServerSettings,
    ServerSpec, ServiceAddress, ServiceId, ServiceSettings, ServiceSpec, TimeoutsInfo,
    TunnelChecksum, TunnelInfo, TunnelKind,
};

use crate::args::{LowArgs, Switch, UsageError, Verb};
use crate::legal::{ORDER, OptionName, SUBJECTS, TUNNEL_OPTIONS, legal_options};
use crate::listing::names::Names;
use crate::values::{self, Endpoint};

/// A command line that makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invocation {
    /// Print the help text.
    Help,
    /// Print the version line.
    Version,
    /// List something.
    List(List),
    /// `-S`: print the table as command lines.
    Save {
        /// Numbers instead of names.
        numeric: bool,
    },
    /// Change the table.
    Edit(Edit),
    /// `-R`: run command lines from standard input.
    Restore,
    /// `--start-daemon`
    StartDaemon(DaemonState, DaemonSettings),
    /// `--stop-daemon`
    StopDaemon(DaemonState),
}

/// What to list, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List {
    /// What to list.
    pub subject: Subject,
    /// Numbers instead of names.
    pub numeric: bool,
    /// Exact numbers instead of rounded ones.
    pub exact: bool,
    /// The director's order.
    pub nosort: bool,
    /// Counters.
    pub stats: bool,
    /// Rates.
    pub rate: bool,
    /// Connection thresholds.
    pub thresholds: bool,
    /// Persistent connections; with connections: engine data.
    pub persistent_conn: bool,
    /// Tunnels.
    pub tun_info: bool,
}

/// What to list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Subject {
    /// All services.
    #[default]
    Services,
    /// One service.
    Service(ServiceId),
    /// The connection table.
    Connections,
    /// The timeouts.
    Timeouts,
    /// Connection sync.
    Daemons,
    /// Local addresses of one service, or of all.
    LocalAddresses(Option<ServiceId>),
}

/// The side of connection sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DaemonState {
    /// Sends.
    Master,
    /// Receives.
    Backup,
}

/// The configuration of connection sync; `None` leaves the value to the director.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DaemonSettings {
    /// Network interface, at most 15 characters.
    pub interface: String,
    /// Sync id.
    pub syncid: u32,
    /// Longest message in bytes.
    pub maxlen: Option<u32>,
    /// Multicast group.
    pub group: Option<IpAddr>,
    /// UDP port.
    pub port: Option<u32>,
    /// Time to live.
    pub ttl: Option<u32>,
}

/// Judges what was typed. `names` resolves host and service names.
///
/// # Errors
///
/// The first thing that is wrong, with its exit status.
pub fn interpret(low: &LowArgs, names: &Names) -> Result<Invocation, UsageError> {
    // The original prints these as soon as it sees the option, whatever follows.
    match low.verb {
        Verb::Help => return Ok(Invocation::Help),
        Verb::Version => return Ok(Invocation::Version),
        _ => {}
    }
    let state = low
        .verb_argument
        .as_deref()
        .map(|text| daemon_state(low.verb, text))
        .transpose()?;
    let given = Given::gather(low, names)?;
    low.end.clone()?;
    let timeouts = timeouts(low)?;
    given.check_combination(low.verb)?;
    let service = given.service;
    let required = || service.ok_or_else(|| missing(OptionName::ServiceAddress, low.verb));
    let edit = match low.verb {
        Verb::Help => return Ok(Invocation::Help),
        Verb::Version => return Ok(Invocation::Version),
        Verb::List => return given.list().map(Invocation::List),
        Verb::ListLocal => {
            return Ok(Invocation::List(List {
                subject: Subject::LocalAddresses(service),
                numeric: given.has(OptionName::Numeric),
                ..List::default()
            }));
        }
        Verb::Save => {
            return Ok(Invocation::Save {
                numeric: given.has(OptionName::Numeric),
            });
        }
        Verb::Restore => return Ok(Invocation::Restore),
        Verb::StartDaemon => {
            let state = state.unwrap_or(DaemonState::Master);
            return Ok(Invocation::StartDaemon(state, given.daemon));
        }
        Verb::StopDaemon => {
            return Ok(Invocation::StopDaemon(state.unwrap_or(DaemonState::Master)));
        }
        Verb::AddService => Edit::AddService(given.service_spec(required()?)?),
        Verb::EditService => Edit::EditService(given.service_spec(required()?)?),
        Verb::DeleteService => Edit::DeleteService(required()?),
        Verb::AddServer => Edit::AddServer(given.server_spec(required()?, low.verb)?),
        Verb::EditServer => Edit::EditServer(given.server_spec(required()?, low.verb)?),
        Verb::DeleteServer => {
            let service = required()?;
            let server = given.real_server(service, low.verb)?;
            Edit::DeleteServer(ServerId { service, server })
        }
        Verb::AddLocal => Edit::AddLocalAddress(given.local_address(required()?, low.verb)?),
        Verb::DeleteLocal => Edit::DeleteLocalAddress(given.local_address(required()?, low.verb)?),
        Verb::Flush => Edit::Flush,
        Verb::Zero => Edit::Zero { only: service },
        Verb::Set => Edit::SetTimeouts(timeouts),
    };
    Ok(Invocation::Edit(edit))
}

/// The values of all options, each judged by itself.
#[derive(Debug)]
struct Given {
    seen: HashSet<OptionName>,
    service: Option<ServiceId>,
    scheduler: String,
    flags: Option<String>,
    timeout: Option<u32>,
    /// The text, and whether a service stood before it.
    netmask: Option<(String, bool)>,
    granularity: Option<Granularity>,
    engine: Option<String>,
    server_text: Option<String>,
    server: Option<Endpoint>,
    method: Method,
    weight: u32,
    upper: u32,
    lower: u32,
    tunnel: TunnelInfo,
    local: Option<IpAddr>,
    daemon: DaemonSettings,
}

impl Given {
    fn gather(low: &LowArgs, names: &Names) -> Result<Self, UsageError> {
        let mut given = Self {
            seen: HashSet::new(),
            service: None,
            scheduler: DEFAULT_SCHEDULER.into(),
            flags: None,
            timeout: None,
            netmask: None,
            granularity: None,
            engine: None,
            server_text: None,
            server: None,
            method: Method::DirectRoute,
            weight: 1,
            upper: 0,
            lower: 0,
            tunnel: TunnelInfo {
                kind: TunnelKind::Ipip,
                port: 0,
                checksum: TunnelChecksum::None,
            },
            local: None,
            daemon: DaemonSettings {
                interface: DEFAULT_INTERFACE.into(),
                ..DaemonSettings::default()
            },
        };
        for (switch, argument) in &low.switches {
            if let Some(name) = OptionName::of(*switch)
                && !given.seen.insert(name)
            {
                return Err(UsageError::invalid(format!(
                    "multiple '{}' options",
                    name.text()
                )));
            }
            given.take(*switch, argument.as_deref(), names)?;
        }
        given.finish(names)?;
        Ok(given)
    }

    fn take(
        &mut self,
        switch: Switch,
        argument: Option<&str>,
        names: &Names,
    ) -> Result<(), UsageError> {
        let text = argument.unwrap_or_default();
        match switch {
            Switch::TcpService => self.service = Some(address_service(text, TCP, names)?),
            Switch::UdpService => self.service = Some(address_service(text, UDP, names)?),
            Switch::SctpService => self.service = Some(address_service(text, SCTP, names)?),
            Switch::FwmarkService => {
                let mark = number(text, 1, u32::MAX, "fwmark value")?;
                self.service = Some(ServiceId {
                    family: Family::Inet,
                    service: ServiceAddress::Mark { mark },
                });
            }
            Switch::Ipv6 => match &mut self.service {
                Some(ServiceId {
                    family,
                    service: ServiceAddress::Mark { .. },
                }) => *family = Family::Inet6,
                _ => return Err(UsageError::invalid("-6 used before -f")),
            },
            Switch::Scheduler => self.scheduler = cut(text, 15),
            Switch::Persistent => {
                self.timeout = Some(match argument {
                    Some(text) => number(text, 1, MAX_TIMEOUT, "timeout value")?,
                    None => DEFAULT_PERSISTENCE,
                });
            }
            Switch::Netmask => self.netmask = Some((text.into(), self.service.is_some())),
            Switch::Engine => self.engine = Some(cut(text, 16)),
            Switch::SchedFlags => self.flags = Some(text.into()),
            Switch::RealServer => self.server_text = Some(text.into()),
            Switch::Gatewaying => self.method = Method::DirectRoute,
            Switch::Ipip => self.method = Method::Tunnel,
            Switch::Masquerading => self.method = Method::Nat,
            Switch::Fullnat => self.method = Method::FullNat,
            Switch::Laddr => {
                let local = text.trim_start_matches('[').trim_end_matches(']');
                self.local = Some(local.parse().map_err(|_| illegal("local address", text))?);
            }
            Switch::TunType => {
                self.tunnel.kind = match text {
                    "ipip" => TunnelKind::Ipip,
                    "gue" => TunnelKind::Gue,
                    "gre" => TunnelKind::Gre,
                    _ => return Err(illegal("tunnel type", text)),
                }
            }
            Switch::TunPort => {
                let port = number(text, 1, 65535, "tunnel port")?;
                self.tunnel.port = u16::try_from(port).unwrap_or_default();
            }
            Switch::TunCsum => self.tunnel.checksum = TunnelChecksum::Full,
            Switch::TunRemcsum => self.tunnel.checksum = TunnelChecksum::Remote,
            Switch::Weight => self.weight = number(text, 0, MAX_COUNT, "weight")?,
            Switch::UpperThreshold => self.upper = number(text, 0, MAX_COUNT, "u_threshold")?,
            Switch::LowerThreshold => self.lower = number(text, 0, MAX_COUNT, "l_threshold")?,
            Switch::SyncId => self.daemon.syncid = number(text, 0, 255, "syncid")?,
            Switch::SyncMaxlen => {
                self.daemon.maxlen = Some(number(text, 1, 65507, "sync-maxlen")?);
            }
            Switch::McastInterface => self.daemon.interface = cut(text, 15),
            Switch::McastGroup => self.daemon.group = Some(multicast_group(text)?),
            Switch::McastPort => self.daemon.port = Some(number(text, 1, 65535, "mcast-port")?),
            Switch::McastTtl => self.daemon.ttl = Some(number(text, 1, 255, "mcast-ttl")?),
            Switch::OnePacket
            | Switch::TunNocsum
            | Switch::Numeric
            | Switch::Connection
            | Switch::Timeout
            | Switch::Daemon
            | Switch::Stats
            | Switch::Rate
            | Switch::Thresholds
            | Switch::PersistentConn
            | Switch::TunInfo
            | Switch::Exact
            | Switch::NoSort
            | Switch::Sort => {}
        }
        Ok(())
    }

    /// Values whose meaning depends on the service are judged when it is known, wherever it stood.
    fn finish(&mut self, names: &Names) -> Result<(), UsageError> {
        if let Some(text) = &self.server_text {
            let protocol = match self.service.map(|id| id.service) {
                Some(ServiceAddress::Address { protocol, .. }) => protocol,
                _ => TCP,
            };
            let server = Endpoint::parse(text, protocol, names)
                .ok_or_else(|| illegal("real server address[:port]", text))?;
            self.server = Some(server);
        }
        if let Some((text, after_service)) = &self.netmask {
            let family = self.service.map_or(Family::Inet, |id| id.family);
            self.granularity = Some(granularity(text, family, *after_service, names)?);
        }
        Ok(())
    }

    fn has(&self, name: OptionName) -> bool {
        self.seen.contains(&name)
    }

    fn check_combination(&self, verb: Verb) -> Result<(), UsageError> {
        let (required, optional) = legal_options(verb);
        let mut subject = None;
        for (name, text) in ORDER {
            let given = self.has(*name);
            if !given && required.contains(name) {
                return Err(missing(*name, verb));
            }
            if given && !required.contains(name) && !optional.contains(name) {
                return Err(UsageError::invalid(format!(
                    "illegal '{text}' option with the '{}' command",
                    verb.name()
                )));
            }
            if given
                && verb == Verb::List
                && SUBJECTS.contains(name)
                && let Some(other) = subject.replace(*text)
            {
                return Err(UsageError::invalid(format!(
                    "the options '{other}' and '{text}' of the 'list' command exclude each other"
                )));
            }
        }
        Ok(())
    }

    fn list(&self) -> Result<List, UsageError> {
        let any = |names: &[OptionName]| names.iter().any(|name| self.has(*name));
        let numbers = any(&[OptionName::Stats, OptionName::Rate, OptionName::Thresholds]);
        let no_services = any(&[OptionName::Timeout, OptionName::Daemon]);
        if numbers && (no_services || self.has(OptionName::Connection))
            || no_services && self.has(OptionName::PersistentConn)
        {
            return Err(UsageError::invalid("options conflict in the list command"));
        }
        let subject = if self.has(OptionName::Connection) {
            Subject::Connections
        } else if self.has(OptionName::Timeout) {
            Subject::Timeouts
        } else if self.has(OptionName::Daemon) {
            Subject::Daemons
        } else {
            self.service.map_or(Subject::Services, Subject::Service)
        };
        Ok(List {
            subject,
            numeric: self.has(OptionName::Numeric),
            exact: self.has(OptionName::Exact),
            nosort: self.has(OptionName::NoSort),
            stats: self.has(OptionName::Stats),
            rate: self.has(OptionName::Rate),
            thresholds: self.has(OptionName::Thresholds),
            persistent_conn: self.has(OptionName::PersistentConn),
            tun_info: self.has(OptionName::TunInfo),
        })
    }

    fn local_address(
        &self,
        service: ServiceId,
        verb: Verb,
    ) -> Result<LocalAddressSpec, UsageError> {
        let local = self.local.ok_or_else(|| missing(OptionName::Laddr, verb))?;
        if Family::of(local) != service.family {
            return Err(UsageError::invalid(
                "the local address is not of the service's family",
            ));
        }
        Ok(LocalAddressSpec { service, local })
    }

    fn service_spec(&self, service: ServiceId) -> Result<ServiceSpec, UsageError> {
        let flags = match &self.flags {
            Some(list) => values::flag_bits(&self.scheduler, list).map_err(|flag| {
                UsageError::invalid(format!(
                    "scheduler flag '{flag}' is unknown or not one of scheduler '{}'",
                    self.scheduler
                ))
            })?,
            None => 0,
        };
        if let ServiceAddress::Address { protocol, port, .. } = service.service {
            if port == 0 && self.timeout.is_none() {
                return Err(UsageError::invalid(
                    "zero port specified for a non-persistent service",
                ));
            }
            if self.has(OptionName::Ops) && protocol != UDP {
                return Err(UsageError::invalid(
                    "one-packet scheduling is only for UDP virtual services",
                ));
            }
        }
        let widest = match service.family {
            Family::Inet => Granularity::Netmask(Ipv4Addr::BROADCAST),
            Family::Inet6 => Granularity::Prefix(128),
        };
        Ok(ServiceSpec {
            id: service,
            settings: ServiceSettings {
                scheduler: self.scheduler.clone(),
                flags,
                persistence: self.timeout.map(|timeout| PersistenceInfo {
                    timeout,
                    granularity: self.granularity.unwrap_or(widest),
                }),
                engine: self.engine.clone(),
                one_packet: self.has(OptionName::Ops),
            },
        })
    }

    fn server_spec(&self, service: ServiceId, verb: Verb) -> Result<ServerSpec, UsageError> {
        let mut server = self.real_server(service, verb)?;
        let settings = self.server_settings(service, server)?;
        // Where the packet goes on unchanged its port does.
        if let ServiceAddress::Address { port, .. } = service.service
            && matches!(settings.method, Method::DirectRoute | Method::Tunnel)
        {
            server.set_port(port);
        }
        Ok(ServerSpec {
            id: ServerId { service, server },
            settings,
        })
    }

    fn real_server(&self, service: ServiceId, verb: Verb) -> Result<SocketAddr, UsageError> {
        let server = self
            .server
            .ok_or_else(|| missing(OptionName::RealServer, verb))?;
        let default = match service.service {
            ServiceAddress::Address { port, .. } => port,
            ServiceAddress::Mark { .. } => 0,
        };
        Ok(SocketAddr::new(
            server.address,
            server.port.unwrap_or(default),
        ))
    }

    fn server_settings(
        &self,
        service: ServiceId,
        server: SocketAddr,
    ) -> Result<ServerSettings, UsageError> {
        if self.method != Method::Tunnel {
            if Family::of(server.ip()) != service.family {
                return Err(UsageError::invalid(
                    "a different address family is only allowed for tunnelling servers",
                ));
            }
            if TUNNEL_OPTIONS.iter().any(|name| self.has(*name)) {
                return Err(UsageError::invalid(
                    "tunnel options conflict with the forwarding method, which is not tunnelling",
                ));
            }
        }
        self.check_tunnel()?;
        Ok(ServerSettings {
            method: self.method,
            weight: self.weight,
            upper: self.upper,
            lower: self.lower,
            tunnel: (self.method == Method::Tunnel).then_some(self.tunnel),
        })
    }

    fn check_tunnel(&self) -> Result<(), UsageError> {
        let (kind, allowed): (&str, &[OptionName]) = match self.tunnel.kind {
            TunnelKind::Ipip => ("ipip", &[]),
            TunnelKind::Gue => ("gue", &TUNNEL_OPTIONS[1..]),
            TunnelKind::Gre => ("gre", &[OptionName::TunNocsum, OptionName::TunCsum]),
        };
        if kind == "gue" && !self.has(OptionName::TunPort) {
            return Err(UsageError::invalid(
                "option 'tun-port' is required with tunnel type gue",
            ));
        }
        let mut checksum = None;
        for name in &TUNNEL_OPTIONS[1..] {
            if !self.has(*name) {
                continue;
            }
            if !allowed.contains(name) {
                return Err(UsageError::invalid(format!(
                    "option '{}' is illegal with tunnel type {kind}",
                    name.text()
                )));
            }
            if *name != OptionName::TunPort
                && let Some(other) = checksum.replace(name.text())
            {
                return Err(UsageError::invalid(format!(
                    "options '{other}' and '{}' exclude each other with tunnel type {kind}",
                    name.text()
                )));
            }
        }
        Ok(())
    }
}

fn daemon_state(verb: Verb, text: &str) -> Result<DaemonState, UsageError> {
    match text {
        "master" => Ok(DaemonState::Master),
        "backup" => Ok(DaemonState::Backup),
        _ => Err(illegal(&format!("{} parameter", verb.name()), text)),
    }
}

/// Words are left over, except the three values of `--set`.
fn timeouts(low: &LowArgs) -> Result<TimeoutsInfo, UsageError> {
    let mut words = low.words.iter();
    let mut next = || match low.verb {
        Verb::Set => {
            let word = words
                .next()
                .ok_or_else(|| UsageError::invalid("three timeout values are required"))?;
            number(word, 0, MAX_TIMEOUT, "timeout value")
        }
        _ => Ok(0),
    };
    let timeouts = TimeoutsInfo {
        tcp: next()?,
        tcp_fin: next()?,
        udp: next()?,
    };
    match words.next() {
        Some(word) => Err(UsageError::invalid(format!("unexpected argument '{word}'"))),
        None => Ok(timeouts),
    }
}

fn address_service(text: &str, protocol: u8, names: &Names) -> Result<ServiceId, UsageError> {
    let endpoint = Endpoint::parse(text, protocol, names)
        .ok_or_else(|| illegal("virtual server address[:port]", text))?;
    Ok(ServiceId {
        family: Family::of(endpoint.address),
        service: ServiceAddress::Address {
            protocol,
            address: endpoint.address,
            port: endpoint.port.unwrap_or(0),
        },
    })
}

fn granularity(
    text: &str,
    family: Family,
    after_service: bool,
    names: &Names,
) -> Result<Granularity, UsageError> {
    let mask = || values::classic_ipv4(text).or_else(|| names.host_address(text));
    match family {
        Family::Inet => match mask() {
            Some(mask) if values::is_contiguous(mask) => Ok(Granularity::Netmask(mask)),
            _ => Err(illegal("virtual server persistent mask", text)),
        },
        Family::Inet6 => match values::number(text, 1..=128).and_then(|n| u8::try_from(n).ok()) {
            Some(prefix) => Ok(Granularity::Prefix(prefix)),
            // The original judges a mask before the service by IPv4's rule and forgets it when the service is IPv6.
            None if !after_service && mask().is_some() => Ok(Granularity::Prefix(128)),
            None => Err(illegal("IPv6 netmask", text)),
        },
    }
}

fn multicast_group(text: &str) -> Result<IpAddr, UsageError> {
    let kind = if text.contains(':') { "IPv6" } else { "IPv4" };
    text.parse::<IpAddr>()
        .ok()
        .filter(IpAddr::is_multicast)
        .ok_or_else(|| illegal(&format!("{kind} mcast-group"), text))
}

fn number(text: &str, low: u32, high: u32, what: &str) -> Result<u32, UsageError> {
    values::number(text, low..=high).ok_or_else(|| {
        UsageError::invalid(format!(
            "illegal {what} '{text}': a number from {low} to {high} is expected"
        ))
    })
}

fn illegal(what: &str, text: &str) -> UsageError {
    UsageError::invalid(format!("illegal {what} '{text}'"))
}

fn missing(name: OptionName, verb: Verb) -> UsageError {
    UsageError::invalid(format!(
        "the '{}' command needs the '{}' option",
        verb.name(),
        name.text()
    ))
}

fn cut(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

const DEFAULT_SCHEDULER: &str = "wlc";
const DEFAULT_INTERFACE: &str = "eth0";

/// Seconds; the manual's 300 is not what the original does.
const DEFAULT_PERSISTENCE: u32 = 360;

/// 31 days in seconds.
const MAX_TIMEOUT: u32 = 2_678_400;

const MAX_COUNT: u32 = 0x7fff_ffff;

#[cfg(test)]
mod tests;

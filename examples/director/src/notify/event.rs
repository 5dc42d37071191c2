//! What happened, in the words of scripts, pipes and mails.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use lvs_conf::Config;
use lvs_conf::model::{Protocol, ServiceAddress};
use serde::{Serialize, Serializer};

/// Something that somebody outside may have to hear of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A virtual router or a sync group.
    Vrrp(VrrpEvent),
    /// A real server came up or went down.
    Server(ServerEvent),
    /// A check of a real server changed its mind. Comes after the [`Server`](Self::Server) event that it causes.
    Check(CheckEvent),
    /// A virtual server has its quorum, or lost it.
    Quorum(QuorumEvent),
    /// The configuration was read again.
    Reload(ReloadEvent),
    /// Somebody empties a real server by hand, or has filled it again.
    Drain(DrainEvent),
}

/// A change of a virtual router or a sync group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VrrpEvent {
    /// Which kind.
    pub kind: VrrpKind,
    /// Its name in the configuration.
    pub name: String,
    /// What.
    pub change: VrrpChange,
    /// Effective priority; 0 for groups.
    pub priority: u8,
}

/// What changes its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VrrpKind {
    /// A `vrrp_instance`.
    Instance,
    /// A `vrrp_sync_group`.
    Group,
}

/// What changed. [`Display`](fmt::Display) has keepalived's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VrrpChange {
    /// Became master.
    Master,
    /// Became backup.
    Backup,
    /// Entered fault.
    Fault,
    /// Was stopped.
    Stop,
    /// Removed by a reload.
    Deleted,
    /// A master heard a router of lower priority.
    LowerPriorityHeard,
    /// The priority of a master changed.
    MasterPriority,
    /// The priority of a backup changed.
    BackupPriority,
}

impl VrrpChange {
    /// Whether it is a state, and not something that happens within one.
    pub fn is_state(self) -> bool {
        match self {
            Self::Master | Self::Backup | Self::Fault | Self::Stop | Self::Deleted => true,
            Self::LowerPriorityHeard | Self::MasterPriority | Self::BackupPriority => false,
        }
    }
}

impl fmt::Display for VrrpChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Master => "MASTER",
            Self::Backup => "BACKUP",
            Self::Fault => "FAULT",
            Self::Stop => "STOP",
            Self::Deleted => "DELETED",
            Self::LowerPriorityHeard => "MASTER_RX_LOWER_PRI",
            Self::MasterPriority => "MASTER_PRIORITY",
            Self::BackupPriority => "BACKUP_PRIORITY",
        })
    }
}

impl fmt::Display for VrrpKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Instance => "INSTANCE",
            Self::Group => "GROUP",
        })
    }
}

/// A real server came up or went down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerEvent {
    /// Of which virtual server.
    pub service: ServiceName,
    /// Where it is.
    pub server: SocketAddr,
    /// Whether it is up now.
    pub is_up: bool,
    /// Why.
    pub cause: Cause,
}

/// A check of a real server changed its mind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckEvent {
    /// Of which virtual server.
    pub service: ServiceName,
    /// Where the real server is.
    pub server: SocketAddr,
    /// What the check found, in one short line.
    pub finding: String,
    /// Whether the real server is up now.
    pub is_up: bool,
    /// Whether it was something else before.
    pub is_change: bool,
}

/// A virtual server gained or lost its quorum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QuorumEvent {
    /// Which virtual server.
    pub service: ServiceName,
    /// Whether it has its quorum now.
    pub is_up: bool,
    /// Why.
    pub cause: Cause,
    /// Weight of the real servers that are up.
    pub sum: u64,
    /// The weight that was needed.
    pub threshold: u64,
}

/// Why a server or a virtual server changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Checks said so.
    Checks,
    /// The director or the service starts.
    Start,
    /// A reload removed it.
    Removal,
    /// The director ends.
    End,
}

/// The configuration was read again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReloadEvent {
    /// Whether it is in force now.
    pub is_done: bool,
    /// What changed, or why nothing did.
    pub summary: String,
}

/// A real server is emptied or filled by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DrainEvent {
    /// Of which virtual service, in the words of `director drain`.
    pub service: String,
    /// Where it is.
    pub server: SocketAddr,
    /// What.
    pub change: DrainChange,
    /// Its weight now.
    pub weight: u32,
}

/// What happened to a real server that somebody has a hand on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainChange {
    /// It gets no new connections.
    Begun,
    /// Nobody is left.
    Done,
    /// Its time was over, and whoever was left is sent away.
    Forced,
    /// It is not drained any more.
    Ended,
    /// It got another weight.
    Weight,
}

/// A virtual server as pipes and mails call it: `[ADDR]:PROTO:PORT`, `FWM N` or `[GROUP]:K`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    text: Arc<str>,
    protocol: &'static str,
    /// Of several blocks that are called the same, which; it is not shown.
    number: usize,
}

impl Serialize for ServiceName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl ServiceName {
    /// The names of a configuration's virtual servers, in its order.
    pub fn all(config: &Config) -> Vec<Self> {
        let mut groups: Vec<String> = Vec::new();
        let mut name = |service: &ServiceAddress, protocol| {
            let (text, protocol) = match service {
                ServiceAddress::Address { address, port } => {
                    (endpoint(*address, protocol, port.unwrap_or(0)), protocol)
                }
                ServiceAddress::Mark(mark) => (format!("FWM {mark}"), "none"),
                ServiceAddress::Group(group) => {
                    let before = groups.iter().filter(|other| *other == group).count();
                    groups.push(group.clone());
                    (format!("[{group}]:{before}"), protocol)
                }
            };
            (Arc::<str>::from(text), protocol)
        };
        let protocol = |protocol: Protocol| match protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        let servers = config.virtual_servers.iter();
        let mut counts = HashMap::new();
        servers
            .map(|server| {
                let (text, protocol) = name(&server.service, protocol(server.protocol));
                let count = counts.entry(Arc::clone(&text)).or_insert(0);
                let number = *count;
                *count += 1;
                Self {
                    text,
                    protocol,
                    number,
                }
            })
            .collect()
    }

    /// One of its real servers, as pipes and mails call it.
    pub fn server(&self, addr: SocketAddr) -> String {
        endpoint(addr.ip(), self.protocol, addr.port())
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn endpoint(address: IpAddr, protocol: &str, port: u16) -> String {
    format!("[{address}]:{protocol}:{port}")
}

impl Event {
    /// The line of a pipe, without its end; `None` if pipes do not have it.
    pub fn line(&self) -> Option<String> {
        match self {
            Self::Vrrp(event) => Some(format!(
                "{} \"{}\" {} {}",
                event.kind, event.name, event.change, event.priority
            )),
            Self::Server(event) => Some(format!(
                "RS {} {} {}",
                event.service.server(event.server),
                event.service,
                up_or_down(event.is_up)
            )),
            Self::Quorum(event) => {
                Some(format!("VS {} {}", event.service, up_or_down(event.is_up)))
            }
            Self::Check(_) | Self::Reload(_) | Self::Drain(_) => None,
        }
    }
}

impl fmt::Display for Event {
    /// In an operator's words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vrrp(event) => {
                let kind = match event.kind {
                    VrrpKind::Instance => "vrrp_instance",
                    VrrpKind::Group => "vrrp_sync_group",
                };
                write!(f, "{kind} {}: {}", event.name, event.change)?;
                match event.kind {
                    VrrpKind::Instance => write!(f, ", priority {}", event.priority),
                    VrrpKind::Group => Ok(()),
                }
            }
            Self::Server(event) => write!(
                f,
                "real server {} of {} is {}{}",
                event.server,
                event.service,
                up_or_down(event.is_up).to_lowercase(),
                event.cause.aside()
            ),
            Self::Check(event) => write!(
                f,
                "real server {} of {}: {}",
                event.server, event.service, event.finding
            ),
            Self::Quorum(event) => write!(
                f,
                "virtual server {} {} its quorum{}",
                event.service,
                if event.is_up { "has" } else { "has lost" },
                event.cause.aside()
            ),
            Self::Reload(event) => f.write_str(&event.summary),
            Self::Drain(event) => {
                write!(f, "real server {} of {} ", event.server, event.service)?;
                match event.change {
                    DrainChange::Begun => f.write_str("is being drained"),
                    DrainChange::Done => f.write_str("is drained: nobody is left"),
                    DrainChange::Forced => f.write_str("is drained: its time is over"),
                    DrainChange::Ended => {
                        write!(f, "is not drained any more, weight {}", event.weight)
                    }
                    DrainChange::Weight => write!(f, "has weight {} by hand", event.weight),
                }
            }
        }
    }
}

impl Cause {
    fn aside(self) -> &'static str {
        match self {
            Self::Checks => "",
            Self::Start => ", at its start",
            Self::Removal => ": it is removed",
            Self::End => ": the director ends",
        }
    }
}

/// keepalived's words.
pub(super) fn up_or_down(is_up: bool) -> &'static str {
    if is_up { "UP" } else { "DOWN" }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The model of a text without mistakes.
    pub(in crate::notify) fn config(text: &str) -> Config {
        let mut sources = lvs_conf::SourceMap::new();
        let main = sources.add("test.conf", text);
        let options = lvs_conf::Options::default();
        lvs_conf::load(&mut sources, main, &lvs_conf::NoFiles, &options).config
    }

    pub(in crate::notify) fn vrrp(
        kind: VrrpKind,
        name: &str,
        change: VrrpChange,
        priority: u8,
    ) -> Event {
        Event::Vrrp(VrrpEvent {
            kind,
            name: name.into(),
            change,
            priority,
        })
    }

    const SERVICES: &str = "virtual_server_group GRP {\n 10.9.9.1 80\n}\n\
        virtual_server 10.9.9.9 80 {\n protocol TCP\n real_server 127.0.0.1 9201 {\n }\n}\n\
        virtual_server fwmark 5 {\n real_server 10.0.0.1 80 {\n }\n}\n\
        virtual_server group GRP {\n protocol UDP\n real_server 10.0.0.1 80 {\n }\n}\n\
        virtual_server group GRP {\n protocol TCP\n real_server 10.0.0.1 80 {\n }\n}\n\
        virtual_server 2001:db8::1 53 {\n protocol UDP\n real_server 2001:db8::2 53 {\n }\n}\n";

    #[test]
    fn virtual_servers_have_keepalived_names() {
        let names = ServiceName::all(&config(SERVICES));
        let texts: Vec<String> = names.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "[10.9.9.9]:tcp:80",
                "FWM 5",
                "[GRP]:0",
                "[GRP]:1",
                "[2001:db8::1]:udp:53"
            ]
        );
    }

    #[test]
    fn blocks_of_one_address_are_called_the_same_and_are_not() {
        let block = |server| {
            format!(
                "virtual_server 10.9.9.9 80 {{\n protocol TCP\n real_server {server} 80 {{\n }}\n}}\n"
            )
        };
        let names = ServiceName::all(&config(&(block("10.0.0.1") + &block("10.0.0.2"))));
        assert_eq!(names[0].to_string(), names[1].to_string());
        assert_ne!(names[0], names[1]);
    }

    #[test]
    fn lines_are_keepalived_lines() {
        let names = ServiceName::all(&config(SERVICES));
        let down = Event::Server(ServerEvent {
            service: names[0].clone(),
            server: "127.0.0.1:9201".parse().unwrap(),
            is_up: false,
            cause: Cause::Checks,
        });
        assert_eq!(
            down.line().unwrap(),
            "RS [127.0.0.1]:tcp:9201 [10.9.9.9]:tcp:80 DOWN"
        );
        let quorum = |service: &ServiceName| {
            Event::Quorum(QuorumEvent {
                service: service.clone(),
                is_up: true,
                cause: Cause::Start,
                sum: 1,
                threshold: 1,
            })
        };
        assert_eq!(quorum(&names[1]).line().unwrap(), "VS FWM 5 UP");
        assert_eq!(quorum(&names[2]).line().unwrap(), "VS [GRP]:0 UP");
        for (event, line) in [
            (
                vrrp(VrrpKind::Instance, "VI_1", VrrpChange::Master, 150),
                "INSTANCE \"VI_1\" MASTER 150",
            ),
            (
                vrrp(VrrpKind::Group, "G1", VrrpChange::Backup, 0),
                "GROUP \"G1\" BACKUP 0",
            ),
            (
                vrrp(
                    VrrpKind::Instance,
                    "VI_1",
                    VrrpChange::LowerPriorityHeard,
                    140,
                ),
                "INSTANCE \"VI_1\" MASTER_RX_LOWER_PRI 140",
            ),
            (
                vrrp(VrrpKind::Instance, "VI_1", VrrpChange::BackupPriority, 90),
                "INSTANCE \"VI_1\" BACKUP_PRIORITY 90",
            ),
        ] {
            assert_eq!(event.line().unwrap(), line);
        }
    }
}

//! What is said over the control socket: one JSON object a line, requests one way, replies the other.
//!
//! ```text
//! → {"version":1,"op":"services"}
//! ← {"ok":true,"result":{"ipvs_version":"1.2.1","table_size":4096,"services":[]}}
//! → {"version":1,"op":"dance"}
//! ← {"ok":false,"error":{"kind":"unknown-op","message":"unknown operation 'dance'"}}
//! ```
//!
//! A request that changes something has its arguments beside `op`; [`Edit`] lists them:
//!
//! ```text
//! → {"version":1,"op":"delete-service","family":"inet","service":{"address":{"protocol":6,"address":"192.0.2.1","port":80}}}
//! ← {"ok":false,"error":{"kind":"no-service","message":"no such service"}}
//! ```
//!
//! Old and new versions talk to each other: a reader ignores fields that it does not know and takes defaults for optional
//! ones that are missing, and an operation that the director does not know is answered with an error of kind `unknown-op`. [`VERSION`]
//! changes only when a field that both sides know changes its meaning.
//!
//! Addresses are text as `std::net` prints it, durations whole seconds, protocols IANA numbers. A connection carries any
//! number of requests, answered in order. A long answer comes in parts: while [`Reply::more`] is set, another line
//! belongs to the same answer.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

mod client;
mod edit;
mod socket;

pub use client::{Client, ClientError};
pub use edit::{
    Edit, LocalAddressSpec, Restoration, RestoreInfo, ServerId, ServerSettings, ServerSpec,
    ServiceId, ServiceSettings, ServiceSpec,
};
pub use socket::{SOCKET_VARIABLE, SocketAddress};

/// What this side speaks; sent in each request.
pub const VERSION: u32 = 1;

/// The longest request line in bytes, line feed included.
pub const MAX_REQUEST_LINE: u64 = 64 * 1024;

/// The longest reply line in bytes, line feed included.
pub const MAX_REPLY_LINE: u64 = 64 * 1024 * 1024;

/// How long a [`Client`] waits for each read or write.
pub const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);

/// One question to the director.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Request {
    /// The asker's protocol version, [`VERSION`].
    pub version: u32,
    /// What is asked.
    #[serde(flatten)]
    pub op: Operation,
}

impl Request {
    /// A request of this version.
    pub fn new(op: Operation) -> Self {
        Self {
            version: VERSION,
            op,
        }
    }

    /// Reads one line, with or without its line feed.
    ///
    /// # Errors
    ///
    /// The reply to give instead of an answer: the line is no request, or of a version that is not spoken here. An
    /// unknown operation is no error here; answer it with [`Reply::unknown`].
    pub fn parse(line: &[u8]) -> Result<Self, Reply> {
        let Header { version, op } = read(line)?;
        if version == 0 || version > VERSION {
            return Err(Reply::failure(
                ErrorKind::BadVersion,
                format!("protocol version {version} is not spoken here, only 1 to {VERSION}"),
            ));
        }
        let op = match op.as_str() {
            "services" => Operation::Services,
            "connections" => Operation::Connections,
            "timeouts" => Operation::Timeouts,
            "status" => Operation::Status,
            "restore" => Operation::Restore(read(line)?),
            name if Edit::NAMES.contains(&name) => Operation::Edit(read(line)?),
            _ => {
                let mut arguments: Map<String, Value> = read(line)?;
                arguments.retain(|name, _| name != "op" && name != "version");
                Operation::Other { op, arguments }
            }
        };
        Ok(Self { version, op })
    }

    /// The line to send, line feed included.
    pub fn to_line(&self) -> Vec<u8> {
        line(self)
    }
}

/// What every version of a request has.
#[derive(Debug, Deserialize)]
struct Header {
    version: u32,
    op: String,
}

/// What a [`Request`] asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Operation {
    /// `services`: all virtual services with their real servers; answered by [`ServicesInfo`].
    Services,
    /// `connections`: the connection table; answered by [`ConnectionsInfo`], usually in several parts.
    Connections,
    /// `timeouts`: how long idle connections are kept; answered by [`TimeoutsInfo`].
    Timeouts,
    /// `status`: what runs here; answered by [`StatusInfo`].
    Status,
    /// `restore`: changes carried out one after the other, each whether or not those before it were refused; answered
    /// by [`RestoreInfo`]. With a change that the director does not know the whole is a bad request, and nothing is
    /// carried out.
    Restore(Restoration),
    /// One change of the table, by its own name; answered by `null` when it has been carried out.
    #[serde(untagged)]
    Edit(Edit),
    /// An operation that is not of this protocol: of the director's own commands, or of another version.
    #[serde(untagged)]
    Other {
        /// Its name.
        op: String,
        /// What stands beside the name.
        #[serde(flatten)]
        arguments: Map<String, Value>,
    },
}

/// One line of an answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reply {
    /// Whether the request was carried out; decides which of the next two fields is present.
    pub ok: bool,
    /// The answer, as it is written: it goes between its type and the line without a step between, for it may be long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Box<RawValue>>,
    /// Why there is no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ReplyError>,
    /// The next line belongs to this answer too.
    #[serde(default, skip_serializing_if = "is_false")]
    pub more: bool,
}

impl Reply {
    /// A complete answer.
    pub fn success<T: Serialize>(result: &T) -> Self {
        match serde_json::value::to_raw_value(result) {
            Ok(value) => Self {
                ok: true,
                result: Some(value),
                error: None,
                more: false,
            },
            Err(error) => Self::failure(ErrorKind::Internal, error.to_string()),
        }
    }

    /// The answer to [`Operation::Connections`], in parts that stay far below [`MAX_REPLY_LINE`]; at least one.
    pub fn connections(connections: &[ConnectionInfo]) -> Vec<Self> {
        let mut parts: Vec<Self> = connections
            .chunks(CONNECTIONS_PER_PART)
            .map(|part| {
                let info = ConnectionsInfo {
                    connections: part.to_vec(),
                };
                Self {
                    more: true,
                    ..Self::success(&info)
                }
            })
            .collect();
        match parts.last_mut() {
            Some(last) => last.more = false,
            None => parts.push(Self::success(&ConnectionsInfo::default())),
        }
        parts
    }

    /// A refusal. The message is for people: lower case, no full stop.
    pub fn failure(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::refused(ReplyError {
            kind,
            message: message.into(),
        })
    }

    /// A refusal.
    pub fn refused(error: ReplyError) -> Self {
        Self {
            ok: false,
            result: None,
            error: Some(error),
            more: false,
        }
    }

    /// The refusal of an operation that is not known here.
    pub fn unknown(operation: &str) -> Self {
        Self::failure(
            ErrorKind::UnknownOp,
            format!("unknown operation '{operation}'"),
        )
    }

    /// The line to send, line feed included.
    pub fn to_line(&self) -> Vec<u8> {
        line(self)
    }

    /// The answer as a type.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] if the director refused, [`ClientError::Malformed`] if the answer has another shape.
    pub fn into_result<T: DeserializeOwned>(self) -> Result<T, ClientError> {
        if self.ok {
            let result = self.result.as_deref().map_or("null", RawValue::get);
            return serde_json::from_str(result).map_err(ClientError::Malformed);
        }
        Err(ClientError::Refused(self.error.unwrap_or_else(|| {
            ReplyError {
                kind: ErrorKind::Internal,
                message: "no reason given".into(),
            }
        })))
    }
}

/// Why the director refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ReplyError {
    /// For programs.
    pub kind: ErrorKind,
    /// For people: lower case, no full stop.
    #[serde(default)]
    pub message: String,
}

/// The kind of a refusal; written in kebab case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The line was no request.
    BadRequest,
    /// The request is of a version that the director does not speak.
    BadVersion,
    /// The director does not know the operation.
    UnknownOp,
    /// There is such a service already.
    ServiceExists,
    /// There is no such service.
    NoService,
    /// There is no such scheduler or persistence engine, or it is not built.
    NoScheduler,
    /// The service has such a real server already.
    ServerExists,
    /// The service has no such real server.
    NoServer,
    /// The service has such a local address already.
    LocalExists,
    /// The service has no such local address.
    NoLocal,
    /// A weight or threshold is out of range, or the lower threshold is above the upper one.
    OutOfRange,
    /// The arguments make no sense together: an address that is not unicast, families that do not fit.
    Invalid,
    /// It makes sense, but this director can't do it.
    Unsupported,
    /// The director failed; its log says more.
    Internal,
    /// A kind of another version.
    #[serde(other)]
    Other,
}

/// All virtual services.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ServicesInfo {
    /// The IPVS version whose behaviour is promised, three numbers with dots: `1.2.1`.
    pub ipvs_version: String,
    /// Buckets of the connection table, as the kernel counts them.
    pub table_size: u32,
    /// The services, in the director's order.
    pub services: Vec<ServiceInfo>,
}

/// A virtual service with its real servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceInfo {
    /// The address family of its clients.
    pub family: Family,
    /// What clients reach.
    pub service: ServiceAddress,
    /// Short name of the scheduler, such as `wlc`.
    pub scheduler: String,
    /// Scheduler flags: bits 0x08, 0x10, 0x20. Their meaning is the scheduler's.
    #[serde(default)]
    pub flags: u32,
    /// Stickiness, if the service is persistent.
    #[serde(default)]
    pub persistence: Option<PersistenceInfo>,
    /// The persistence engine, such as `sip`. Without persistence it has no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// Each packet is scheduled by itself.
    #[serde(default)]
    pub one_packet: bool,
    /// Totals of the service.
    #[serde(default)]
    pub stats: CountersInfo,
    /// Rates of the service.
    #[serde(default)]
    pub rates: RatesInfo,
    /// The real servers, in the director's order.
    #[serde(default)]
    pub destinations: Vec<DestinationInfo>,
    /// Local addresses for FULLNAT, in the order in which they were added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locals: Vec<LocalAddressInfo>,
}

/// A local address of a virtual service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalAddressInfo {
    /// The address.
    pub address: IpAddr,
    /// Connections of the service that use it.
    #[serde(default)]
    pub connections: u32,
    /// How often its turn came but it had no free port.
    #[serde(default)]
    pub conflicts: u64,
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Inet,
    /// IPv6.
    Inet6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Inet,
            IpAddr::V6(_) => Self::Inet6,
        }
    }
}

/// What clients of a virtual service reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceAddress {
    /// A protocol, address and port.
    Address {
        /// IANA protocol number: 6 TCP, 17 UDP, 132 SCTP.
        protocol: u8,
        /// The virtual address.
        address: IpAddr,
        /// The virtual port; 0 means all ports.
        port: u16,
    },
    /// A firewall mark; the family stands in [`ServiceInfo::family`].
    Mark {
        /// The mark, not 0.
        mark: u32,
    },
}

/// Persistence of a virtual service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistenceInfo {
    /// How long a client stays with its server after its last connection, in seconds, 1 to 2678400.
    pub timeout: u32,
    /// Which clients count as one.
    pub granularity: Granularity,
}

/// Which part of a client's address is looked at for persistence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Granularity {
    /// IPv4: the bits of the address that count; 255.255.255.255 is the default.
    Netmask(Ipv4Addr),
    /// IPv6: length of the prefix that counts in bits, 1 to 128; 128 is the default.
    Prefix(u8),
}

/// A real server of a virtual service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationInfo {
    /// The real server's address.
    pub address: IpAddr,
    /// The real server's port; 0 means the packet's own.
    pub port: u16,
    /// How packets reach it.
    pub method: Method,
    /// Share of load; 0 means quiesced.
    pub weight: u32,
    /// Connections in an active state.
    #[serde(default)]
    pub active: u32,
    /// All other connections.
    #[serde(default)]
    pub inactive: u32,
    /// Persistence templates that point to it.
    #[serde(default)]
    pub persistent: u32,
    /// Upper connection threshold; 0 means none.
    #[serde(default)]
    pub upper: u32,
    /// Lower connection threshold; 0 means none.
    #[serde(default)]
    pub lower: u32,
    /// The encapsulation, if the method is [`Method::Tunnel`].
    #[serde(default)]
    pub tunnel: Option<TunnelInfo>,
    /// Totals of this real server.
    #[serde(default)]
    pub stats: CountersInfo,
    /// Rates of this real server.
    #[serde(default)]
    pub rates: RatesInfo,
}

/// How packets reach a real server; written in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Destination address and port are rewritten (Masq).
    Nat,
    /// Only the link-layer destination changes (Route).
    DirectRoute,
    /// Encapsulated.
    Tunnel,
    /// Both ends are rewritten.
    FullNat,
    /// Served by the director's own host.
    Local,
}

/// The encapsulation towards a real server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TunnelInfo {
    /// The outer header.
    pub kind: TunnelKind,
    /// UDP port of GUE, else 0.
    #[serde(default)]
    pub port: u16,
    /// What covers the outer header; of no meaning for IPIP.
    #[serde(default)]
    pub checksum: TunnelChecksum,
}

/// The outer header of a tunnel; written in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelKind {
    /// IP in IP.
    #[default]
    Ipip,
    /// Generic UDP encapsulation.
    Gue,
    /// Generic routing encapsulation.
    Gre,
}

/// The checksum of a tunnel's outer header; written in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelChecksum {
    /// None.
    #[default]
    None,
    /// A full checksum.
    Full,
    /// Remote checksum offload.
    Remote,
}

/// Totals since the start or the last zeroing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CountersInfo {
    /// Connections scheduled.
    pub conns: u64,
    /// Packets from clients.
    pub inpkts: u64,
    /// Packets to clients.
    pub outpkts: u64,
    /// Bytes from clients, IP headers included.
    pub inbytes: u64,
    /// Bytes to clients, IP headers included.
    pub outbytes: u64,
}

/// Smoothed rates per second, rounded to whole numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RatesInfo {
    /// Connections a second.
    pub cps: u64,
    /// Packets from clients a second.
    pub inpps: u64,
    /// Packets to clients a second.
    pub outpps: u64,
    /// **Bytes** from clients a second.
    pub inbps: u64,
    /// **Bytes** to clients a second.
    pub outbps: u64,
}

/// A part of the connection table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConnectionsInfo {
    /// The entries, in the director's order.
    pub connections: Vec<ConnectionInfo>,
}

/// A connection or a persistence template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionInfo {
    /// IANA protocol number; 0 for the template of a firewall-mark service.
    pub protocol: u8,
    /// The client; port 0 for a template.
    pub client: SocketAddr,
    /// What the client reached. The template of a firewall-mark service has the mark as its address.
    #[serde(rename = "virtual")]
    pub vip: SocketAddr,
    /// The real server.
    pub destination: SocketAddr,
    /// The director's side of a FULLNAT connection to the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddr>,
    /// The state's name, as the kernel spells it: `ESTABLISHED`, `FIN_WAIT`, `UDP`.
    pub state: String,
    /// Seconds until the entry expires.
    pub expires: u64,
    /// What the persistence engine found.
    #[serde(default)]
    pub engine: Option<EngineInfo>,
}

/// Data of a persistence engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineInfo {
    /// Name of the engine.
    pub name: String,
    /// What it recognises the client by.
    pub data: String,
}

/// How long idle connections are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeoutsInfo {
    /// Established TCP connections, in seconds.
    pub tcp: u32,
    /// TCP connections after a FIN, in seconds.
    pub tcp_fin: u32,
    /// UDP, in seconds.
    pub udp: u32,
}

/// What runs here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusInfo {
    /// The director's version.
    pub version: String,
    /// Its process id, in its own process namespace.
    pub pid: u32,
    /// Seconds since its start.
    pub uptime: u64,
    /// The configuration file.
    pub configuration: String,
    /// Data-path threads.
    pub workers: u32,
    /// Virtual services.
    pub services: u64,
    /// Entries of the connection tables.
    pub connections: u64,
    /// What each data-path thread has counted since the start.
    pub counters: Vec<WorkerCounters>,
    /// Packets that were taken from the host since the start, where the kernel tells.
    pub claimed: Vec<Counter>,
    /// Real servers that no packet can be sent to.
    pub unreachable: Vec<UnreachableInfo>,
}

/// A real server that no packet can be sent to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreachableInfo {
    /// The server.
    pub address: IpAddr,
    /// What is in the way.
    pub reason: String,
}

/// What a data-path thread has counted. Each list has all that can be counted, the largest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerCounters {
    /// Its number, from 0.
    pub worker: u32,
    /// Entries of its connection table.
    pub connections: u64,
    /// Packets that were dropped, by reason.
    pub dropped: Vec<Counter>,
    /// Frames that were left to the host, by reason.
    pub left: Vec<Counter>,
    /// What else happened to packets.
    pub events: Vec<Counter>,
    /// What happened at each device; up to a second old.
    pub devices: Vec<DeviceCounters>,
}

/// What a data-path thread has counted at one device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceCounters {
    /// Name of the interface, or `the host`.
    pub device: String,
    /// What happened there, the largest first.
    pub counters: Vec<Counter>,
}

/// How often something happened.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Counter {
    /// A name for programs, in kebab case.
    pub name: String,
    /// What it means, in words.
    pub text: String,
    /// How often.
    pub count: u64,
}

fn read<T: DeserializeOwned>(line: &[u8]) -> Result<T, Reply> {
    serde_json::from_slice(line)
        .map_err(|error| Reply::failure(ErrorKind::BadRequest, format!("no request: {error}")))
}

fn line<T: Serialize>(value: &T) -> Vec<u8> {
    let mut line =
        serde_json::to_vec(value).expect("maps have string keys and no number is not finite");
    line.push(b'\n');
    line
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// About 200 bytes each, so a part is below 1 MiB.
const CONNECTIONS_PER_PART: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(line: &[u8]) -> &str {
        std::str::from_utf8(line).unwrap()
    }

    #[test]
    fn requests_are_written_as_documented() {
        assert_eq!(
            text(&Request::new(Operation::Services).to_line()),
            "{\"version\":1,\"op\":\"services\"}\n"
        );
    }

    #[test]
    fn unknown_fields_are_ignored_and_unknown_operations_kept() {
        let request = Request::parse(br#"{"version":1,"op":"dance","tempo":120}"#).unwrap();
        let Operation::Other { op, arguments } = &request.op else {
            panic!("not of this protocol");
        };
        assert_eq!(op, "dance");
        assert!(!arguments.contains_key("version"));
        assert_eq!(Request::parse(&request.to_line()).unwrap(), request);
        assert_eq!(
            text(&Reply::unknown("dance").to_line()),
            "{\"ok\":false,\"error\":{\"kind\":\"unknown-op\",\"message\":\"unknown operation 'dance'\"}}\n"
        );
    }

    #[test]
    fn a_later_version_and_nonsense_are_refused() {
        for (line, kind) in [
            (
                &br#"{"version":2,"op":"services"}"#[..],
                ErrorKind::BadVersion,
            ),
            (br#"{"version":0,"op":"services"}"#, ErrorKind::BadVersion),
            (br#"{"op":"services"}"#, ErrorKind::BadRequest),
            (b"hello", ErrorKind::BadRequest),
            (b"", ErrorKind::BadRequest),
        ] {
            assert_eq!(Request::parse(line).unwrap_err().error.unwrap().kind, kind);
        }
    }

    #[test]
    fn an_error_kind_of_another_version_is_read() {
        let error: ReplyError = serde_json::from_str(r#"{"kind":"tired"}"#).unwrap();
        assert_eq!(error.kind, ErrorKind::Other);
    }

    #[test]
    fn a_service_with_only_the_required_fields_is_read() {
        let service: ServiceInfo = serde_json::from_str(
            r#"{"family":"inet","service":{"address":{"protocol":6,"address":"192.0.2.1","port":80}},"scheduler":"rr",
                "destinations":[{"address":"10.0.0.1","port":80,"method":"directroute","weight":1,"mood":"good"}]}"#,
        )
        .unwrap();
        assert_eq!(service.destinations[0].method, Method::DirectRoute);
        assert_eq!(service.persistence, None);
        assert_eq!(service.stats, CountersInfo::default());
    }

    #[test]
    fn long_connection_tables_come_in_parts() {
        assert_eq!(Reply::connections(&[]).len(), 1);
        let one = ConnectionInfo {
            protocol: 6,
            client: "203.0.113.5:50000".parse().unwrap(),
            vip: "192.0.2.10:80".parse().unwrap(),
            destination: "10.0.0.11:8080".parse().unwrap(),
            local: None,
            state: "ESTABLISHED".into(),
            expires: 894,
            engine: None,
        };
        let parts = Reply::connections(&vec![one; CONNECTIONS_PER_PART + 1]);
        let more: Vec<bool> = parts.iter().map(|part| part.more).collect();
        assert_eq!(more, [true, false]);
        assert!(
            parts
                .iter()
                .all(|part| (part.to_line().len() as u64) < MAX_REPLY_LINE / 10)
        );
    }
}

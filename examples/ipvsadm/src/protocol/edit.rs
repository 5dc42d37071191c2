//! Changes of the table: what `ipvsadm`'s editing commands ask for.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{
    Family, Method, PersistenceInfo, ReplyError, ServiceAddress, TimeoutsInfo, TunnelInfo, is_zero,
};

/// One change of the table. On the wire its name is the request's `op`, and its fields stand beside it.
///
/// Editing replaces the whole configuration of a service or real server, never its identity; counters and connections
/// stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Edit {
    /// `add-service`: without real servers at first.
    AddService(ServiceSpec),
    /// `edit-service`
    EditService(ServiceSpec),
    /// `delete-service`: with its real servers.
    DeleteService(ServiceId),
    /// `flush`: deletes all services.
    Flush,
    /// `add-server`
    AddServer(ServerSpec),
    /// `edit-server`
    EditServer(ServerSpec),
    /// `delete-server`: its connections stay until they end.
    DeleteServer(ServerId),
    /// `add-local-address`: new connections to FULLNAT servers take it in turn with the others.
    AddLocalAddress(LocalAddressSpec),
    /// `delete-local-address`: connections keep it until they end.
    DeleteLocalAddress(LocalAddressSpec),
    /// `zero`: counters start from zero.
    Zero {
        /// Those of this service and its real servers; without it everything's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        only: Option<ServiceId>,
    },
    /// `set-timeouts`: 0 leaves a timeout as it is.
    SetTimeouts(TimeoutsInfo),
}

impl Edit {
    /// The names of all changes on the wire.
    pub const NAMES: [&str; 11] = [
        "add-service",
        "edit-service",
        "delete-service",
        "flush",
        "add-server",
        "edit-server",
        "delete-server",
        "add-local-address",
        "delete-local-address",
        "zero",
        "set-timeouts",
    ];

    /// Bytes that it takes on the wire.
    pub(super) fn length(&self) -> usize {
        super::line(self).len()
    }
}

/// Changes to carry out in order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Restoration {
    /// The changes.
    pub edits: Vec<Edit>,
}

/// What came of a [`Restoration`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RestoreInfo {
    /// For each change in its order: nothing, or why it was refused.
    pub outcomes: Vec<Option<ReplyError>>,
}

/// The identity of a virtual service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServiceId {
    /// Family of the clients.
    pub family: Family,
    /// What they reach.
    pub service: ServiceAddress,
}

/// A virtual service: identity and configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Which one.
    #[serde(flatten)]
    pub id: ServiceId,
    /// How it works.
    #[serde(flatten)]
    pub settings: ServiceSettings,
}

/// The configuration of a virtual service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSettings {
    /// Short name of the scheduler, at most 15 characters.
    pub scheduler: String,
    /// Scheduler flags: bits 0x08, 0x10, 0x20.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub flags: u32,
    /// Stickiness, if the service is persistent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<PersistenceInfo>,
    /// The persistence engine, such as `sip`, at most 16 characters. Without persistence it has no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// Each packet is scheduled by itself.
    #[serde(default, skip_serializing_if = "super::is_false")]
    pub one_packet: bool,
}

/// The identity of a real server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ServerId {
    /// The service that it serves.
    #[serde(flatten)]
    pub service: ServiceId,
    /// Address and port; port 0 means the packet's own.
    pub server: SocketAddr,
}

/// A local address of a virtual service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LocalAddressSpec {
    /// The service.
    #[serde(flatten)]
    pub service: ServiceId,
    /// The address.
    pub local: IpAddr,
}

/// A real server: identity and configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSpec {
    /// Which one.
    #[serde(flatten)]
    pub id: ServerId,
    /// How it is used.
    #[serde(flatten)]
    pub settings: ServerSettings,
}

/// The configuration of a real server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSettings {
    /// How packets reach it.
    pub method: Method,
    /// Share of load, at most 2^31 − 1; 0 means quiesced.
    pub weight: u32,
    /// Upper connection threshold; 0 means none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub upper: u32,
    /// Lower connection threshold; 0 means none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lower: u32,
    /// The encapsulation, if the method is [`Method::Tunnel`]; without it IPIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<TunnelInfo>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{
        ErrorKind, Granularity, Operation, Request, TunnelChecksum, TunnelKind, VERSION,
    };

    fn service() -> ServiceId {
        ServiceId {
            family: Family::Inet,
            service: ServiceAddress::Address {
                protocol: 6,
                address: "192.0.2.1".parse().unwrap(),
                port: 80,
            },
        }
    }

    fn every_edit() -> Vec<Edit> {
        let spec = ServiceSpec {
            id: service(),
            settings: ServiceSettings {
                scheduler: "rr".into(),
                flags: 0x18,
                persistence: Some(PersistenceInfo {
                    timeout: 360,
                    granularity: Granularity::Netmask([255, 255, 255, 0].into()),
                }),
                engine: Some("sip".into()),
                one_packet: true,
            },
        };
        let id = ServerId {
            service: ServiceId {
                family: Family::Inet6,
                service: ServiceAddress::Mark { mark: 7 },
            },
            server: "[2001:db8::9]:0".parse().unwrap(),
        };
        let server = ServerSpec {
            id,
            settings: ServerSettings {
                method: Method::Tunnel,
                weight: 5,
                upper: 2,
                lower: 1,
                tunnel: Some(TunnelInfo {
                    kind: TunnelKind::Gue,
                    port: 6080,
                    checksum: TunnelChecksum::Full,
                }),
            },
        };
        let local = LocalAddressSpec {
            service: service(),
            local: "10.0.0.200".parse().unwrap(),
        };
        vec![
            Edit::AddService(spec.clone()),
            Edit::EditService(spec),
            Edit::DeleteService(service()),
            Edit::Flush,
            Edit::AddServer(server),
            Edit::EditServer(server),
            Edit::DeleteServer(id),
            Edit::AddLocalAddress(local),
            Edit::DeleteLocalAddress(local),
            Edit::Zero {
                only: Some(service()),
            },
            Edit::SetTimeouts(TimeoutsInfo {
                tcp: 900,
                tcp_fin: 0,
                udp: 300,
            }),
        ]
    }

    #[test]
    fn every_change_is_read_as_it_was_written() {
        let edits = every_edit();
        assert_eq!(edits.len(), Edit::NAMES.len());
        for (edit, name) in edits.iter().zip(Edit::NAMES) {
            let request = Request::new(Operation::Edit(edit.clone()));
            let line = request.to_line();
            let start = format!("{{\"version\":{VERSION},\"op\":\"{name}\"");
            assert!(line.starts_with(start.as_bytes()));
            assert_eq!(Request::parse(&line).unwrap(), request);
        }
        let batch = Request::new(Operation::Restore(Restoration { edits }));
        assert_eq!(Request::parse(&batch.to_line()).unwrap(), batch);
        let everything = Request::parse(br#"{"version":1,"op":"zero"}"#).unwrap();
        assert_eq!(everything.op, Operation::Edit(Edit::Zero { only: None }));
    }

    #[test]
    fn arguments_stand_beside_the_name() {
        let server = Edit::AddServer(ServerSpec {
            id: ServerId {
                service: service(),
                server: "10.0.0.1:8080".parse().unwrap(),
            },
            settings: ServerSettings {
                method: Method::Nat,
                weight: 2,
                upper: 0,
                lower: 0,
                tunnel: None,
            },
        });
        let line = Request::new(Operation::Edit(server)).to_line();
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"version\":1,\"op\":\"add-server\",\"family\":\"inet\",\
             \"service\":{\"address\":{\"protocol\":6,\"address\":\"192.0.2.1\",\"port\":80}},\
             \"server\":\"10.0.0.1:8080\",\"method\":\"nat\",\"weight\":2}\n"
        );
    }

    #[test]
    fn a_change_without_its_arguments_is_a_bad_request_and_not_an_unknown_one() {
        for line in [
            &br#"{"version":1,"op":"add-service"}"#[..],
            br#"{"version":1,"op":"add-server","family":"inet"}"#,
            br#"{"version":1,"op":"zero","only":{"family":"inet"}}"#,
            br#"{"version":1,"op":"restore","edits":[{"op":"dance"}]}"#,
        ] {
            let refusal = Request::parse(line).unwrap_err().error.unwrap();
            assert_eq!(refusal.kind, ErrorKind::BadRequest);
        }
    }
}

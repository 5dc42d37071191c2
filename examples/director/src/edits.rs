//! Changes by hand: what `ipvsadm` asks for, judged as the kernel judges it and carried out at the scheduler at once.
//!
//! As with the original, where keepalived and `ipvsadm` work on the kernel's one table, both work on the scheduler's. What is
//! changed by hand stays until the configuration or a check changes the very same object: a weight set here holds until a
//! reload brings another one or the server goes down and comes back; a service of the configuration that is deleted here
//! stays deleted until its block changes; a service that only exists by hand survives every reload. It does not survive the
//! director: save it with `ipvsadm -S`.
//!
//! Addresses are not part of the table. A virtual address of a service added here has to be there already, or to be given to an
//! interface by other means.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lvs_fwd::view::ClaimSet;
use lvs_sched::{
    Director, EngineKind, Family, ForwardMethod, Granularity, LocalError, Persistence,
    PersistenceEngine, Protocol, SchedulerFlags, ServerConfig, ServerError, ServiceConfig,
    ServiceError, ServiceKey, Timeouts, Weight,
};
use tracing::info;

use crate::claims::{self, Reach, Terms};
use crate::control::protocol::{
    self, Edit, ErrorKind, Method, PersistenceInfo, ReplyError, ServerId, ServerSettings,
    ServerSpec, ServiceAddress, ServiceId, ServiceSettings, ServiceSpec, TimeoutsInfo, TunnelKind,
};
use crate::tunnels::Tunnels;

/// Carries out changes by hand.
#[derive(Debug)]
pub struct Edits {
    scheduler: Arc<Director>,
    tunnels: Arc<Tunnels>,
}

impl Edits {
    /// None yet.
    pub fn new(scheduler: Arc<Director>, tunnels: Arc<Tunnels>) -> Self {
        Self { scheduler, tunnels }
    }

    /// Adds what must be claimed before these changes are carried out: no server may answer before its replies come by here.
    pub fn add_claims(&self, edits: &[Edit], terms: &Terms, claims: &mut ClaimSet) {
        let mut persistent = HashMap::new();
        for edit in edits {
            match edit {
                Edit::AddService(spec) | Edit::EditService(spec) => {
                    if let Ok(key) = service_key(&spec.id) {
                        if matches!(edit, Edit::AddService(_)) {
                            claims::add_service(claims, &key, terms);
                        }
                        *persistent.entry(key).or_default() |= spec.settings.persistence.is_some();
                    }
                }
                Edit::AddServer(spec) | Edit::EditServer(spec) => {
                    let addr = spec.id.server;
                    let Ok(key) = service_key(&spec.id.service) else {
                        continue;
                    };
                    let present = self.scheduler.service(&key);
                    let was = present.map(|service| service.config().persistence.is_some());
                    let becomes = persistent.get(&key).copied();
                    if was.is_some() || becomes.is_some() {
                        let reach = Reach {
                            key,
                            is_persistent: was == Some(true) || becomes == Some(true),
                            marks: &terms.marks,
                        };
                        let method = method(spec.settings.method);
                        claims::add_server(claims, &reach, addr, method);
                    }
                }
                Edit::AddLocalAddress(spec) => {
                    claims.insert_local(spec.local);
                }
                _ => {}
            }
        }
    }

    /// Carries out one change.
    ///
    /// # Errors
    ///
    /// Why nothing has changed, in the terms of the control socket.
    pub fn apply(&mut self, now: Instant, edit: &Edit) -> Result<(), ReplyError> {
        match edit {
            Edit::AddService(spec) => self.add_service(spec),
            Edit::EditService(spec) => self.edit_service(spec),
            Edit::DeleteService(id) => self.delete_service(now, &service_key(id)?),
            Edit::Flush => {
                for service in self.scheduler.services() {
                    if let Some(key) = service.key() {
                        self.delete_service(now, &key)?;
                    }
                }
                Ok(())
            }
            Edit::AddServer(spec) => self.add_server(now, spec),
            Edit::EditServer(spec) => self.edit_server(now, spec),
            Edit::DeleteServer(id) => self.delete_server(now, id),
            Edit::AddLocalAddress(spec) => {
                let key = service_key(&spec.service)?;
                self.scheduler
                    .add_local_address(&key, spec.local)
                    .map_err(local_error)?;
                info!("by hand: local address {} of {key} added", spec.local);
                Ok(())
            }
            Edit::DeleteLocalAddress(spec) => {
                let key = service_key(&spec.service)?;
                self.scheduler
                    .remove_local_address(&key, spec.local)
                    .map_err(local_error)?;
                info!("by hand: local address {} of {key} removed", spec.local);
                Ok(())
            }
            Edit::Zero { only: None } => {
                self.scheduler.zero();
                info!("by hand: all counters start from zero");
                Ok(())
            }
            Edit::Zero { only: Some(id) } => {
                let key = service_key(id)?;
                let service = self.scheduler.service(&key);
                service
                    .ok_or(ServiceError::NotFound)
                    .map_err(service_error)?
                    .zero();
                info!("by hand: the counters of {key} start from zero");
                Ok(())
            }
            Edit::SetTimeouts(timeouts) => self.set_timeouts(timeouts),
            _ => Err(refusal(
                ErrorKind::Unsupported,
                "this change is not known here",
            )),
        }
    }

    fn add_service(&self, spec: &ServiceSpec) -> Result<(), ReplyError> {
        let key = service_key(&spec.id)?;
        if self.scheduler.service(&key).is_some() {
            return Err(service_error(ServiceError::Exists));
        }
        let config = service_config(&spec.settings)?;
        let engine = engine(&spec.settings)?;
        self.scheduler
            .add_service(key, config)
            .and_then(|_| self.scheduler.set_engine(&key, engine))
            .map_err(service_error)?;
        info!(
            "by hand: virtual service {key} added, scheduler {}",
            config.scheduler
        );
        Ok(())
    }

    fn edit_service(&self, spec: &ServiceSpec) -> Result<(), ReplyError> {
        let key = service_key(&spec.id)?;
        if self.scheduler.service(&key).is_none() {
            return Err(service_error(ServiceError::NotFound));
        }
        let config = service_config(&spec.settings)?;
        let engine = engine(&spec.settings)?;
        self.scheduler
            .edit_service(&key, config)
            .and_then(|()| self.scheduler.set_engine(&key, engine))
            .map_err(service_error)?;
        info!(
            "by hand: virtual service {key} changed, scheduler {}",
            config.scheduler
        );
        Ok(())
    }

    fn delete_service(&self, now: Instant, key: &ServiceKey) -> Result<(), ReplyError> {
        self.scheduler
            .remove_service(now, key)
            .map_err(service_error)?;
        self.tunnels.forget(key);
        info!("by hand: virtual service {key} removed");
        Ok(())
    }

    fn add_server(&self, now: Instant, spec: &ServerSpec) -> Result<(), ReplyError> {
        let key = service_key(&spec.id.service)?;
        let addr = spec.id.server;
        let config = server_config(&spec.settings)?;
        self.scheduler
            .add_server(now, &key, addr, config)
            .map_err(server_error)?;
        info!(
            "by hand: real server {addr} of {key} added, weight {}",
            config.weight
        );
        self.remember_tunnel(key, addr, &spec.settings);
        Ok(())
    }

    fn edit_server(&self, now: Instant, spec: &ServerSpec) -> Result<(), ReplyError> {
        let key = service_key(&spec.id.service)?;
        let addr = spec.id.server;
        let config = server_config(&spec.settings)?;
        self.scheduler
            .edit_server(now, &key, addr, config)
            .map_err(server_error)?;
        info!(
            "by hand: real server {addr} of {key} changed, weight {}",
            config.weight
        );
        self.remember_tunnel(key, addr, &spec.settings);
        Ok(())
    }

    fn delete_server(&self, now: Instant, id: &ServerId) -> Result<(), ReplyError> {
        let key = service_key(&id.service)?;
        self.scheduler
            .remove_server(now, &key, id.server)
            .map_err(server_error)?;
        self.tunnels.set((key, id.server), None);
        info!("by hand: real server {} of {key} removed", id.server);
        Ok(())
    }

    fn set_timeouts(&self, timeouts: &TimeoutsInfo) -> Result<(), ReplyError> {
        let seconds = [timeouts.tcp, timeouts.tcp_fin, timeouts.udp];
        if seconds.iter().any(|seconds| *seconds > MAX_TIMEOUT) {
            return Err(refusal(ErrorKind::Invalid, "a timeout is too long"));
        }
        let [tcp, tcp_fin, udp] = seconds.map(|seconds| Duration::from_secs(seconds.into()));
        self.scheduler.set_timeouts(Timeouts { tcp, tcp_fin, udp });
        let now = self.scheduler.timeouts();
        info!(
            "by hand: timeouts are {:?} (TCP), {:?} (TCP after FIN), {:?} (UDP)",
            now.tcp, now.tcp_fin, now.udp
        );
        Ok(())
    }

    fn remember_tunnel(&self, key: ServiceKey, addr: SocketAddr, settings: &ServerSettings) {
        let tunnel = settings
            .tunnel
            .filter(|_| settings.method == Method::Tunnel);
        self.tunnels.set((key, addr), tunnel);
    }
}

fn service_key(id: &ServiceId) -> Result<ServiceKey, ReplyError> {
    match id.service {
        ServiceAddress::Address {
            protocol,
            address,
            port,
        } => {
            if protocol::Family::of(address) != id.family {
                return Err(refusal(
                    ErrorKind::Invalid,
                    "the address is not of the service's family",
                ));
            }
            let protocol = Protocol::from_number(protocol).ok_or_else(|| {
                refusal(ErrorKind::Invalid, "the protocol is none of TCP, UDP, SCTP")
            })?;
            Ok(ServiceKey::Address {
                protocol,
                vip: address,
                vport: port,
            })
        }
        ServiceAddress::Mark { mark } => Ok(ServiceKey::Mark {
            family: match id.family {
                protocol::Family::Inet => Family::Inet,
                protocol::Family::Inet6 => Family::Inet6,
            },
            mark: NonZeroU32::new(mark)
                .ok_or_else(|| refusal(ErrorKind::Invalid, "a firewall mark is not 0"))?,
        }),
    }
}

fn service_config(settings: &ServiceSettings) -> Result<ServiceConfig, ReplyError> {
    let scheduler =
        settings
            .scheduler
            .parse()
            .map_err(|error: lvs_sched::ParseSchedulerError| {
                refusal(ErrorKind::NoScheduler, error.to_string())
            })?;
    Ok(ServiceConfig {
        scheduler,
        flags: SchedulerFlags::from_bits((settings.flags & 0xff) as u8),
        persistence: settings.persistence.as_ref().map(persistence).transpose()?,
        one_packet: settings.one_packet,
    })
}

fn engine(settings: &ServiceSettings) -> Result<Option<Arc<dyn PersistenceEngine>>, ReplyError> {
    let engine = (settings.engine.as_ref())
        .map(|name| name.parse::<EngineKind>())
        .transpose();
    let engine = engine.map_err(|error| refusal(ErrorKind::NoScheduler, error.to_string()))?;
    Ok(engine.map(EngineKind::build))
}

fn persistence(info: &PersistenceInfo) -> Result<Persistence, ReplyError> {
    if info.timeout == 0 || info.timeout > MAX_PERSISTENCE {
        return Err(refusal(
            ErrorKind::Invalid,
            format!("a persistence timeout is 1 to {MAX_PERSISTENCE} seconds"),
        ));
    }
    Ok(Persistence {
        timeout: Duration::from_secs(info.timeout.into()),
        granularity: match info.granularity {
            protocol::Granularity::Netmask(mask) => Granularity::Mask(mask),
            protocol::Granularity::Prefix(length) => Granularity::Prefix(length),
        },
    })
}

fn server_config(settings: &ServerSettings) -> Result<ServerConfig, ReplyError> {
    let tunnel = settings.tunnel.unwrap_or_default();
    if tunnel.kind == TunnelKind::Gue && tunnel.port == 0 {
        return Err(refusal(ErrorKind::Invalid, "a GUE tunnel needs a port"));
    }
    Ok(ServerConfig {
        weight: Weight::new(settings.weight)
            .map_err(|error| refusal(ErrorKind::OutOfRange, error.to_string()))?,
        method: method(settings.method),
        upper_threshold: settings.upper,
        lower_threshold: settings.lower,
    })
}

fn method(method: Method) -> ForwardMethod {
    match method {
        Method::Nat => ForwardMethod::Nat,
        Method::DirectRoute => ForwardMethod::DirectRoute,
        Method::Tunnel => ForwardMethod::Tunnel,
        Method::FullNat => ForwardMethod::FullNat,
        Method::Local => ForwardMethod::Local,
    }
}

fn service_error(error: ServiceError) -> ReplyError {
    let kind = match error {
        ServiceError::Exists => ErrorKind::ServiceExists,
        ServiceError::NotFound => ErrorKind::NoService,
        ServiceError::Granularity => ErrorKind::Invalid,
        _ => ErrorKind::Internal,
    };
    refusal(kind, error.to_string())
}

fn server_error(error: ServerError) -> ReplyError {
    let kind = match error {
        ServerError::NoService => ErrorKind::NoService,
        ServerError::Exists => ErrorKind::ServerExists,
        ServerError::NotFound => ErrorKind::NoServer,
        ServerError::Address | ServerError::Family => ErrorKind::Invalid,
        ServerError::Thresholds => ErrorKind::OutOfRange,
        _ => ErrorKind::Internal,
    };
    refusal(kind, error.to_string())
}

fn local_error(error: LocalError) -> ReplyError {
    let kind = match error {
        LocalError::NoService => ErrorKind::NoService,
        LocalError::Exists => ErrorKind::LocalExists,
        LocalError::NotFound => ErrorKind::NoLocal,
        LocalError::Address | LocalError::Family => ErrorKind::Invalid,
        _ => ErrorKind::Internal,
    };
    refusal(kind, error.to_string())
}

fn refusal(kind: ErrorKind, message: impl Into<String>) -> ReplyError {
    ReplyError {
        kind,
        message: message.into(),
    }
}

/// 31 days in seconds.
const MAX_PERSISTENCE: u32 = 2_678_400;

/// Seconds; the kernel counts idle times in ticks of 4 ms, and at most 2^31 − 1 of them.
const MAX_TIMEOUT: u32 = i32::MAX as u32 / 250;

#[cfg(test)]
mod tests;

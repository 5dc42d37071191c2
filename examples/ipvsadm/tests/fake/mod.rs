//! A stand-in for the director: a table in memory that is edited and listed over a real control socket.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use ipvsadm::listing::names::Names;
use ipvsadm::protocol::{
    ConnectionInfo, CountersInfo, DestinationInfo, Edit, ErrorKind, LocalAddressInfo,
    LocalAddressSpec, Operation, RatesInfo, Reply, ReplyError, Request, RestoreInfo, ServerId,
    ServerSpec, ServiceId, ServiceInfo, ServiceSpec, ServicesInfo, SocketAddress, StatusInfo,
    TimeoutsInfo,
};
use ipvsadm::run::run;

/// Those of the original.
pub(crate) const SCHEDULERS: [&str; 13] = [
    "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh",
];

/// Answers every connection until the test's process ends.
pub(crate) struct FakeDirector {
    pub(crate) address: SocketAddress,
    table: Arc<Mutex<Table>>,
    _folder: Folder,
}

struct Table {
    services: Vec<ServiceInfo>,
    connections: Vec<ConnectionInfo>,
    timeouts: TimeoutsInfo,
}

impl FakeDirector {
    /// With the table that these rules make.
    pub(crate) fn with_rules(name: &str, rules: &str) -> Self {
        let folder = Folder::new(name);
        let address = SocketAddress::Path(folder.0.join("socket"));
        let listener = address.bind().unwrap();
        let table = Arc::new(Mutex::new(Table {
            services: Vec::new(),
            connections: Vec::new(),
            timeouts: TimeoutsInfo {
                tcp: 900,
                tcp_fin: 120,
                udp: 300,
            },
        }));
        let shared = Arc::clone(&table);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    answer(stream.unwrap(), |operation| {
                        shared.lock().unwrap().reply(operation)
                    });
                });
            }
        });
        let director = Self {
            address,
            table,
            _folder: folder,
        };
        // One call for each line, as the recordings were made.
        for rule in rules.lines() {
            let (mut output, mut errors) = (Vec::new(), Vec::new());
            let status = run(
                rule.split_whitespace(),
                &director.address,
                &Names::default(),
                std::io::empty(),
                &mut output,
                &mut errors,
            );
            assert_eq!(status, 0, "{rule}: {}", String::from_utf8_lossy(&errors));
        }
        director
    }

    pub(crate) fn services(&self) -> Vec<ServiceInfo> {
        self.table.lock().unwrap().services.clone()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Vec<ServiceInfo>)) {
        change(&mut self.table.lock().unwrap().services);
    }

    pub(crate) fn set_connections(&self, connections: Vec<ConnectionInfo>) {
        self.table.lock().unwrap().connections = connections;
    }
}

impl Table {
    fn reply(&mut self, operation: Operation) -> Vec<Reply> {
        let reply = match operation {
            Operation::Services => Reply::success(&ServicesInfo {
                ipvs_version: "1.2.1".into(),
                table_size: 4096,
                services: self.services.clone(),
            }),
            Operation::Connections => return Reply::connections(&self.connections),
            Operation::Timeouts => Reply::success(&self.timeouts),
            Operation::Status => Reply::success(&StatusInfo::default()),
            Operation::Edit(edit) => match self.apply(edit) {
                Ok(()) => Reply::success(&()),
                Err(error) => Reply::refused(error),
            },
            Operation::Restore(batch) => Reply::success(&RestoreInfo {
                outcomes: batch
                    .edits
                    .into_iter()
                    .map(|edit| self.apply(edit).err())
                    .collect(),
            }),
            other => panic!("{other:?} is not asked here"),
        };
        vec![reply]
    }

    fn apply(&mut self, edit: Edit) -> Result<(), ReplyError> {
        match edit {
            Edit::AddService(spec) => {
                check_scheduler(&spec)?;
                if self.find(spec.id).is_ok() {
                    return Err(refusal(ErrorKind::ServiceExists));
                }
                self.services.push(service(spec));
            }
            Edit::EditService(spec) => {
                self.find(spec.id)?;
                check_scheduler(&spec)?;
                let old = self.find(spec.id)?;
                let destinations = std::mem::take(&mut old.destinations);
                let locals = std::mem::take(&mut old.locals);
                *old = ServiceInfo {
                    destinations,
                    locals,
                    ..service(spec)
                };
            }
            Edit::DeleteService(id) => {
                self.find(id)?;
                self.services
                    .retain(|service| service.family != id.family || service.service != id.service);
            }
            Edit::Flush => self.services.clear(),
            Edit::AddServer(spec) => {
                let service = self.find(spec.id.service)?;
                if position(service, spec.id).is_ok() {
                    return Err(refusal(ErrorKind::ServerExists));
                }
                // Newest first.
                service.destinations.insert(0, destination(spec));
            }
            Edit::EditServer(spec) => {
                let service = self.find(spec.id.service)?;
                let index = position(service, spec.id)?;
                service.destinations[index] = destination(spec);
            }
            Edit::DeleteServer(id) => {
                let service = self.find(id.service)?;
                let index = position(service, id)?;
                service.destinations.remove(index);
            }
            Edit::AddLocalAddress(LocalAddressSpec { service, local }) => {
                let service = self.find(service)?;
                if service.locals.iter().any(|other| other.address == local) {
                    return Err(refusal(ErrorKind::LocalExists));
                }
                service.locals.push(LocalAddressInfo {
                    address: local,
                    connections: 0,
                    conflicts: 0,
                });
            }
            Edit::DeleteLocalAddress(LocalAddressSpec { service, local }) => {
                let service = self.find(service)?;
                let before = service.locals.len();
                service.locals.retain(|other| other.address != local);
                if service.locals.len() == before {
                    return Err(refusal(ErrorKind::NoLocal));
                }
            }
            Edit::Zero { only: None } => {}
            Edit::Zero { only: Some(id) } => drop(self.find(id)?),
            Edit::SetTimeouts(wanted) => {
                let keep = |new, old| if new == 0 { old } else { new };
                self.timeouts = TimeoutsInfo {
                    tcp: keep(wanted.tcp, self.timeouts.tcp),
                    tcp_fin: keep(wanted.tcp_fin, self.timeouts.tcp_fin),
                    udp: keep(wanted.udp, self.timeouts.udp),
                };
            }
            other => panic!("{other:?} is not known here"),
        }
        Ok(())
    }

    fn find(&mut self, id: ServiceId) -> Result<&mut ServiceInfo, ReplyError> {
        self.services
            .iter_mut()
            .find(|service| service.family == id.family && service.service == id.service)
            .ok_or_else(|| refusal(ErrorKind::NoService))
    }
}

fn position(service: &ServiceInfo, id: ServerId) -> Result<usize, ReplyError> {
    service
        .destinations
        .iter()
        .position(|server| server.address == id.server.ip() && server.port == id.server.port())
        .ok_or_else(|| refusal(ErrorKind::NoServer))
}

fn check_scheduler(spec: &ServiceSpec) -> Result<(), ReplyError> {
    if SCHEDULERS.contains(&spec.settings.scheduler.as_str()) {
        return Ok(());
    }
    Err(ReplyError {
        kind: ErrorKind::NoScheduler,
        message: "unknown scheduler".into(),
    })
}

fn refusal(kind: ErrorKind) -> ReplyError {
    ReplyError {
        kind,
        message: "no".into(),
    }
}

fn service(spec: ServiceSpec) -> ServiceInfo {
    ServiceInfo {
        family: spec.id.family,
        service: spec.id.service,
        scheduler: spec.settings.scheduler,
        flags: spec.settings.flags,
        persistence: spec.settings.persistence,
        engine: spec.settings.engine,
        one_packet: spec.settings.one_packet,
        stats: CountersInfo::default(),
        rates: RatesInfo::default(),
        destinations: Vec::new(),
        locals: Vec::new(),
    }
}

fn destination(spec: ServerSpec) -> DestinationInfo {
    DestinationInfo {
        address: spec.id.server.ip(),
        port: spec.id.server.port(),
        method: spec.settings.method,
        weight: spec.settings.weight,
        active: 0,
        inactive: 0,
        persistent: 0,
        upper: spec.settings.upper,
        lower: spec.settings.lower,
        tunnel: spec.settings.tunnel,
        stats: CountersInfo::default(),
        rates: RatesInfo::default(),
    }
}

/// Answers the requests of one connection.
pub(crate) fn answer(stream: UnixStream, mut replies: impl FnMut(Operation) -> Vec<Reply>) {
    let mut writer = stream.try_clone().unwrap();
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        assert!(line.len() < 64 * 1024, "the request line is too long");
        let replies = match Request::parse(line.as_bytes()) {
            Ok(request) => replies(request.op),
            Err(reply) => vec![reply],
        };
        for reply in replies {
            if writer.write_all(&reply.to_line()).is_err() {
                return;
            }
        }
    }
}

/// A folder that goes away with the test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("ipvsadm-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

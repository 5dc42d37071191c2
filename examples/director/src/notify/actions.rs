//! What a configuration wants to be done about which event.

use std::collections::HashMap;
use std::net::SocketAddr;

use lvs_conf::Config;
use lvs_conf::model::{Fifo as ConfFifo, Notify, Script};

use super::event::{
    Cause, CheckEvent, Event, QuorumEvent, ServerEvent, ServiceName, VrrpChange, VrrpEvent,
    VrrpKind, up_or_down,
};
use super::mail::Settings;
use super::scripts::{Account, Command, Policy};

/// Scripts, pipes and mails of a configuration, checked.
#[derive(Debug, Clone, Default)]
pub struct Actions {
    routers: HashMap<(VrrpKind, String), RouterActions>,
    services: HashMap<ServiceName, ServiceActions>,
    /// The pipe of all events, of VRRP's and of servers', each with its reader.
    pub(super) pipes: [Option<Pipe>; 3],
    pub(super) mail: Option<Settings>,
    no_fault_mails: bool,
    no_check_mails: bool,
    priority_changes: bool,
    /// `fifo_write_vrrp_states_on_reload`.
    pub(super) repeats_states: bool,
    /// What is left out, and why; each is worth a warning.
    pub remarks: Vec<String>,
}

/// A named pipe and who reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pipe {
    pub(super) path: String,
    pub(super) owner: Option<Account>,
    /// The pipe's name is its last argument already.
    pub(super) reader: Option<Command>,
}

#[derive(Debug, Clone, Default)]
struct RouterActions {
    scripts: HashMap<VrrpChange, Command>,
    any: Option<Command>,
    is_mailed: bool,
    priority_changes: bool,
    /// Its removal is DELETED rather than FAULT.
    reports_deletion: bool,
}

#[derive(Debug, Clone, Default)]
struct ServiceActions {
    up: Option<Command>,
    down: Option<Command>,
    is_mailed: bool,
    quorum: u32,
    hysteresis: u32,
    servers: HashMap<SocketAddr, ServerActions>,
}

#[derive(Debug, Clone, Default)]
struct ServerActions {
    up: Option<Command>,
    down: Option<Command>,
    is_mailed: bool,
}

/// Subject and body of a mail, without what surrounds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Alert {
    pub(super) subject: String,
    pub(super) body: String,
}

/// What an event's scripts queue behind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Object {
    Router(VrrpKind, String),
    Service(ServiceName),
    Server(ServiceName, SocketAddr),
}

impl Actions {
    /// Of a configuration, with its files and users as they are now.
    pub fn new(config: &Config, policy: &Policy) -> Self {
        let mut actions = Self::default();
        let global = &config.global;
        actions.mail = Settings::new(&global.mail, global.router_id.as_deref());
        actions.no_fault_mails = global.mail.no_faults;
        actions.no_check_mails = global.mail.no_checkers;
        actions.priority_changes = global.fifos.priority_changes;
        actions.repeats_states = global.fifos.states_on_reload;
        let fifos = &global.fifos;
        let pipes = [
            ("notify_fifo", &fifos.all, &fifos.all_script),
            ("vrrp_notify_fifo", &fifos.vrrp, &fifos.vrrp_script),
            ("lvs_notify_fifo", &fifos.lvs, &fifos.lvs_script),
        ];
        let mut check = Check {
            policy,
            remarks: Vec::new(),
        };
        let mut paths: Vec<&str> = Vec::new();
        actions.pipes = pipes.map(|(keyword, pipe, reader)| {
            let pipe = pipe.as_ref()?;
            if paths.contains(&pipe.path.as_str()) {
                let remark = format!("{keyword} is left out: {} is another one's", pipe.path);
                check.remarks.push(remark);
                return None;
            }
            paths.push(&pipe.path);
            check.pipe(keyword, pipe, reader.as_ref())
        });
        for instance in &config.instances {
            let place = format!("vrrp_instance {}", instance.name);
            let of = check.router(&place, &instance.notify, instance.smtp_alert);
            let key = (VrrpKind::Instance, instance.name.clone());
            actions.routers.insert(key, of);
        }
        for group in &config.sync_groups {
            let place = format!("vrrp_sync_group {}", group.name);
            let of = check.router(&place, &group.notify, group.smtp_alert);
            let key = (VrrpKind::Group, group.name.clone());
            actions.routers.insert(key, of);
        }
        for (name, server) in ServiceName::all(config)
            .into_iter()
            .zip(&config.virtual_servers)
        {
            let place = format!("virtual_server {name}");
            let mut of = ServiceActions {
                up: check.script(&place, "quorum_up", server.quorum_up.as_ref()),
                down: check.script(&place, "quorum_down", server.quorum_down.as_ref()),
                is_mailed: server.smtp_alert,
                quorum: server.quorum,
                hysteresis: server.hysteresis,
                servers: HashMap::new(),
            };
            for real in &server.real_servers {
                let addr = real.address;
                let place = format!("real_server {addr} of {place}");
                of.servers.insert(
                    addr,
                    ServerActions {
                        up: check.script(&place, "notify_up", real.notify_up.as_ref()),
                        down: check.script(&place, "notify_down", real.notify_down.as_ref()),
                        is_mailed: real.smtp_alert,
                    },
                );
            }
            // Of two blocks for one address the first speaks.
            actions.services.entry(name).or_insert(of);
        }
        actions.remarks = check.remarks;
        actions
    }

    /// Whether the event's object is in the configuration.
    pub(super) fn knows(&self, event: &Event) -> bool {
        match event {
            Event::Vrrp(event) => self.router(event).is_some(),
            Event::Server(ServerEvent {
                service, server, ..
            })
            | Event::Check(CheckEvent {
                service, server, ..
            }) => self.server(service, *server).is_some(),
            Event::Quorum(event) => self.services.contains_key(&event.service),
            Event::Reload(_) | Event::Drain(_) => true,
        }
    }

    /// Whether the removal of this virtual router is told as such.
    pub(super) fn reports_deletion(&self, event: &VrrpEvent) -> bool {
        self.router(event)
            .is_some_and(|router| router.reports_deletion)
    }

    /// What to run, and what it queues behind. The specific script comes before the generic one.
    pub(super) fn scripts(&self, event: &Event) -> Option<(Object, Vec<Command>)> {
        match event {
            Event::Vrrp(event) => {
                let router = self.router(event)?;
                let specific = router.scripts.get(&event.change).cloned();
                let generic = router.any.clone().filter(|_| event.change.is_state());
                let generic = generic.map(|mut command| {
                    let words = [
                        event.kind.to_string(),
                        event.name.clone(),
                        event.change.to_string(),
                        event.priority.to_string(),
                    ];
                    command.arguments.extend(words.map(Into::into));
                    command
                });
                let scripts = specific.into_iter().chain(generic).collect();
                Some((Object::Router(event.kind, event.name.clone()), scripts))
            }
            Event::Server(event) => {
                let server = self.server(&event.service, event.server)?;
                let script = if event.is_up {
                    &server.up
                } else {
                    &server.down
                };
                let object = Object::Server(event.service.clone(), event.server);
                Some((object, script.iter().cloned().collect()))
            }
            Event::Quorum(event) => {
                let service = self.services.get(&event.service)?;
                let script = if event.is_up {
                    &service.up
                } else {
                    &service.down
                };
                let object = Object::Service(event.service.clone());
                Some((object, script.iter().cloned().collect()))
            }
            Event::Check(_) | Event::Reload(_) | Event::Drain(_) => None,
        }
    }

    /// Which of the [pipes](Self::pipes) get the event's line.
    pub(super) fn takers(&self, event: &Event) -> &'static [usize] {
        match event {
            Event::Vrrp(event) => {
                let is_priority = matches!(
                    event.change,
                    VrrpChange::MasterPriority | VrrpChange::BackupPriority
                );
                let wanted = self
                    .router(event)
                    .is_some_and(|router| router.priority_changes);
                if is_priority && !wanted && !self.priority_changes {
                    &[]
                } else {
                    &[0, 1]
                }
            }
            Event::Server(_) | Event::Quorum(_) => &[0, 2],
            Event::Check(_) | Event::Reload(_) | Event::Drain(_) => &[],
        }
    }

    /// The mail about it, if there is one. Whether the same was mailed last is not known here.
    pub(super) fn alert(&self, event: &Event) -> Option<Alert> {
        self.mail.as_ref()?;
        match event {
            Event::Vrrp(event) => {
                let router = self.router(event)?;
                let is_muted = event.change == VrrpChange::Fault && self.no_fault_mails;
                (router.is_mailed && !is_muted)
                    .then(|| vrrp_alert(event))
                    .flatten()
            }
            Event::Server(event) => {
                let is_mailed = self.server(&event.service, event.server)?.is_mailed;
                let body = match event.cause {
                    Cause::Removal => "removed from the configuration",
                    Cause::End => "shutting down",
                    // The check's own event has the mail.
                    Cause::Checks | Cause::Start => return None,
                };
                is_mailed.then(|| server_alert(&event.service, event.server, event.is_up, body))
            }
            Event::Check(event) => {
                let is_mailed = self.server(&event.service, event.server)?.is_mailed;
                let is_muted = self.no_check_mails && !event.is_change;
                (is_mailed && !is_muted).then(|| {
                    server_alert(&event.service, event.server, event.is_up, &event.finding)
                })
            }
            Event::Quorum(event) => {
                let service = self.services.get(&event.service)?;
                service.is_mailed.then(|| quorum_alert(event, service))
            }
            Event::Reload(_) | Event::Drain(_) => None,
        }
    }

    fn router(&self, event: &VrrpEvent) -> Option<&RouterActions> {
        self.routers.get(&(event.kind, event.name.clone()))
    }

    fn server(&self, service: &ServiceName, server: SocketAddr) -> Option<&ServerActions> {
        self.services.get(service)?.servers.get(&server)
    }
}

fn vrrp_alert(event: &VrrpEvent) -> Option<Alert> {
    let (kind, what) = match event.kind {
        VrrpKind::Instance => ("Instance", "VRRP Instance"),
        VrrpKind::Group => ("Group", "All VRRP group instances"),
    };
    let text = match event.change {
        VrrpChange::Master | VrrpChange::Backup | VrrpChange::Fault => {
            format!("Entering {} state", event.change)
        }
        VrrpChange::Stop => "Stopping".to_owned(),
        VrrpChange::Deleted => "Deleted".to_owned(),
        VrrpChange::LowerPriorityHeard
        | VrrpChange::MasterPriority
        | VrrpChange::BackupPriority => {
            return None;
        }
    };
    let body = match (event.kind, event.change) {
        (_, VrrpChange::Deleted) => "VRRP Deleted at reload".to_owned(),
        (VrrpKind::Instance, VrrpChange::Stop) => format!("{what} stopping"),
        (VrrpKind::Instance, VrrpChange::Master) => format!("{what} is now owning VRRP VIPs"),
        (VrrpKind::Instance, _) => format!("{what} is no longer owning VRRP VIPs"),
        (VrrpKind::Group, VrrpChange::Stop) => format!("{what} are now stopping"),
        (VrrpKind::Group, change) => format!("{what} are now in {change} state"),
    };
    Some(Alert {
        subject: format!("VRRP {kind} {} - {text}", event.name),
        body,
    })
}

fn server_alert(service: &ServiceName, server: SocketAddr, is_up: bool, body: &str) -> Alert {
    Alert {
        subject: format!(
            "Realserver {} of virtual server {service} - {}",
            service.server(server),
            up_or_down(is_up)
        ),
        body: body.to_owned(),
    }
}

fn quorum_alert(event: &QuorumEvent, service: &ServiceActions) -> Alert {
    let ServiceActions {
        quorum, hysteresis, ..
    } = service;
    let (sign, relation) = if event.is_up { ('+', "<=") } else { ('-', ">") };
    let begin = match event.cause {
        Cause::Start => "starting with ",
        Cause::End => "shutting down, ",
        Cause::Removal => "removed, ",
        Cause::Checks => "",
    };
    let what = if event.is_up {
        "quorum gained"
    } else {
        "quorum lost"
    };
    Alert {
        subject: format!(
            "Virtualserver {} - {}",
            event.service,
            up_or_down(event.is_up)
        ),
        body: format!(
            "{begin}{what}: {quorum}{sign}{hysteresis}={} {relation} {}",
            event.threshold, event.sum
        ),
    }
}

/// Checks scripts and remembers what to say about them.
struct Check<'a> {
    policy: &'a Policy,
    remarks: Vec<String>,
}

impl Check<'_> {
    fn script(&mut self, place: &str, keyword: &str, script: Option<&Script>) -> Option<Command> {
        let script = script?;
        match self.policy.check(script) {
            Ok(checked) => {
                for remark in checked.remarks {
                    self.remarks.push(format!(
                        "{place}: {keyword} {}: {remark}",
                        script.command.join(" ")
                    ));
                }
                Some(checked.command)
            }
            Err(refusal) => {
                self.remarks
                    .push(format!("{place}: {keyword} is left out: {refusal}"));
                None
            }
        }
    }

    fn router(&mut self, place: &str, notify: &Notify, is_mailed: bool) -> RouterActions {
        let specific = [
            (VrrpChange::Master, "notify_master", &notify.master),
            (VrrpChange::Backup, "notify_backup", &notify.backup),
            (VrrpChange::Fault, "notify_fault", &notify.fault),
            (VrrpChange::Stop, "notify_stop", &notify.stop),
            (VrrpChange::Deleted, "notify_deleted", &notify.deleted),
            (
                VrrpChange::LowerPriorityHeard,
                "notify_master_rx_lower_pri",
                &notify.master_rx_lower_pri,
            ),
        ];
        let scripts = specific
            .into_iter()
            .filter_map(|(change, keyword, script)| {
                let command = self.script(place, keyword, script.as_ref())?;
                Some((change, command))
            })
            .collect();
        RouterActions {
            scripts,
            any: self.script(place, "notify", notify.any.as_ref()),
            is_mailed,
            priority_changes: notify.priority_changes.unwrap_or(false),
            reports_deletion: notify.report_deleted || notify.deleted.is_some(),
        }
    }

    fn pipe(&mut self, keyword: &str, pipe: &ConfFifo, reader: Option<&Script>) -> Option<Pipe> {
        let owner = match &pipe.user {
            None => None,
            Some(user) => match Account::find(&user.name, user.group.as_deref(), false) {
                Ok(account) => Some(account),
                Err(error) => {
                    self.remarks.push(format!("{keyword} is left out: {error}"));
                    return None;
                }
            },
        };
        let reader = self.script("global_defs", &format!("{keyword}_script"), reader);
        let reader = reader.map(|mut command| {
            command.arguments.push(pipe.path.clone().into());
            command
        });
        Some(Pipe {
            path: pipe.path.clone(),
            owner,
            reader,
        })
    }
}

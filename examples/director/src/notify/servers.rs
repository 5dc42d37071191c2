//! What has been told about real servers and quorums, so that each change is told once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use lvs_health::Change;

use super::event::{Cause, CheckEvent, Event, QuorumEvent, ServerEvent, ServiceName};

/// Turns what health says into events. Each method returns them in their order.
#[derive(Debug, Default)]
pub struct ServerNews {
    services: BTreeMap<ServiceName, Told>,
}

#[derive(Debug, Default)]
struct Told {
    /// The end of the director is told as the end of the servers.
    omega: bool,
    /// `None` before anything was said.
    quorum: Option<bool>,
    servers: BTreeMap<SocketAddr, Server>,
}

#[derive(Debug, Default)]
struct Server {
    is_up: bool,
    /// It began as down and no check has said anything yet (`alpha`).
    is_assumed: bool,
    /// Checks that failed last, by their number.
    failed: BTreeSet<usize>,
    /// Waits for the server's own change.
    pending: Option<CheckEvent>,
}

impl ServerNews {
    /// A service is there with these servers, up or down, and so on after a reload. `tells_up` is keepalived's `rs_init_notifies`.
    pub fn begin(
        &mut self,
        service: &ServiceName,
        omega: bool,
        servers: &[(SocketAddr, bool)],
        tells_up: bool,
    ) -> Vec<Event> {
        let told = self.services.entry(service.clone()).or_default();
        told.omega = omega;
        let mut events = Vec::new();
        for &(addr, is_up) in servers {
            let known = told.servers.get_mut(&addr);
            let cause = if known.is_some() {
                Cause::Checks
            } else {
                Cause::Start
            };
            let is_news = match known {
                Some(server) => {
                    server.is_assumed &= !is_up;
                    std::mem::replace(&mut server.is_up, is_up) != is_up
                }
                None => {
                    let server = Server {
                        is_up,
                        is_assumed: !is_up,
                        ..Server::default()
                    };
                    told.servers.insert(addr, server);
                    is_up && tells_up
                }
            };
            if is_news {
                events.push(server_event(service, addr, is_up, cause));
            }
        }
        events
    }

    /// Services and servers that are not among these are gone.
    pub fn retain(&mut self, kept: &BTreeMap<ServiceName, BTreeSet<SocketAddr>>) -> Vec<Event> {
        let mut events = Vec::new();
        self.services.retain(|name, told| {
            let servers = kept.get(name);
            told.servers.retain(|addr, server| {
                let is_kept = servers.is_some_and(|servers| servers.contains(addr));
                if !is_kept && server.is_up {
                    events.push(server_event(name, *addr, false, Cause::Removal));
                }
                is_kept
            });
            if servers.is_none() && told.quorum == Some(true) {
                events.push(quorum_event(name, false, Cause::Removal, 0, 0));
            }
            servers.is_some()
        });
        events
    }

    /// The director ends: whoever wants to hear of it does.
    pub fn end(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for (name, told) in std::mem::take(&mut self.services) {
            if !told.omega {
                continue;
            }
            for (addr, server) in &told.servers {
                if server.is_up {
                    events.push(server_event(&name, *addr, false, Cause::End));
                }
            }
            events.push(quorum_event(&name, false, Cause::End, 0, 0));
        }
        events
    }

    /// A pool has changed.
    pub fn handle_change(
        &mut self,
        service: &ServiceName,
        change: &Change<SocketAddr>,
    ) -> Vec<Event> {
        let Some(told) = self.services.get_mut(service) else {
            return Vec::new();
        };
        let (is_up, sum, threshold, starting) = match *change {
            Change::ServerUp { server } => return told.set_server(service, server, true),
            Change::ServerDown { server } => return told.set_server(service, server, false),
            Change::QuorumGained {
                sum,
                threshold,
                starting,
            } => (true, sum, threshold, starting),
            Change::QuorumLost {
                sum,
                threshold,
                starting,
            } => (false, sum, threshold, starting),
            _ => return Vec::new(),
        };
        let mut events = Vec::new();
        if told.quorum.replace(is_up) != Some(is_up) {
            let cause = if starting {
                Cause::Start
            } else {
                Cause::Checks
            };
            events.push(quorum_event(service, is_up, cause, sum, threshold));
        }
        // Of the server that it was about, the mail comes last.
        events.extend(told.take_pending());
        events
    }

    /// A check of a server, by its number, has changed its mind. `is_up` is the server now; where that is a change the check's
    /// event waits for the server's.
    pub fn handle_check(
        &mut self,
        service: &ServiceName,
        addr: SocketAddr,
        (number, has_passed): (usize, bool),
        finding: String,
        is_up: bool,
    ) -> Vec<Event> {
        let told = self.services.get_mut(service);
        let Some(server) = told.and_then(|told| told.servers.get_mut(&addr)) else {
            return Vec::new();
        };
        let was_failed = if has_passed {
            server.failed.remove(&number)
        } else {
            server.failed.insert(number);
            true
        };
        let is_change = server.is_up != is_up;
        let is_confirmed = server.is_assumed && !is_up;
        // The first success of a check that began as passed is no news.
        if !was_failed && !is_change {
            return Vec::new();
        }
        let event = CheckEvent {
            service: service.clone(),
            server: addr,
            finding,
            is_up,
            is_change,
        };
        if is_change || is_confirmed {
            server.pending = Some(event);
            return Vec::new();
        }
        vec![Event::Check(event)]
    }

    /// Checks say that a server is down. Of one that began so, as `alpha` wants, nobody has heard yet.
    pub fn handle_down(&mut self, service: &ServiceName, addr: SocketAddr) -> Vec<Event> {
        let told = self.services.get_mut(service);
        let Some(server) = told.and_then(|told| told.servers.get_mut(&addr)) else {
            return Vec::new();
        };
        if server.is_up || !std::mem::take(&mut server.is_assumed) {
            return Vec::new();
        }
        vec![server_event(service, addr, false, Cause::Checks)]
    }

    /// What still waits: the server's change has come and moved no quorum. Call it when all changes of one observation are told.
    pub fn settle(&mut self, service: &ServiceName) -> Vec<Event> {
        let told = self.services.get_mut(service);
        told.map(Told::take_pending).unwrap_or_default()
    }
}

impl Told {
    fn set_server(&mut self, service: &ServiceName, addr: SocketAddr, is_up: bool) -> Vec<Event> {
        match self.servers.get_mut(&addr) {
            Some(server) if server.is_up != is_up => {
                server.is_up = is_up;
                server.is_assumed = false;
                vec![server_event(service, addr, is_up, Cause::Checks)]
            }
            _ => Vec::new(),
        }
    }

    /// Of servers whose change was told.
    fn take_pending(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for server in self.servers.values_mut() {
            let is_up = server.is_up;
            let due = server.pending.take_if(|pending| pending.is_up == is_up);
            events.extend(due.map(Event::Check));
        }
        events
    }
}

fn server_event(service: &ServiceName, server: SocketAddr, is_up: bool, cause: Cause) -> Event {
    Event::Server(ServerEvent {
        service: service.clone(),
        server,
        is_up,
        cause,
    })
}

fn quorum_event(
    service: &ServiceName,
    is_up: bool,
    cause: Cause,
    sum: u64,
    threshold: u64,
) -> Event {
    Event::Quorum(QuorumEvent {
        service: service.clone(),
        is_up,
        cause,
        sum,
        threshold,
    })
}

#[cfg(test)]
mod tests {
    use super::super::event::tests::config;
    use super::*;

    const TEXT: &str =
        "virtual_server 10.9.9.9 80 {\n protocol TCP\n real_server 10.0.0.1 80 {\n }\n}\n";

    fn name() -> ServiceName {
        ServiceName::all(&config(TEXT)).remove(0)
    }

    fn addr(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 80))
    }

    fn started() -> ServerNews {
        let mut news = ServerNews::default();
        let servers = [(addr(1), true), (addr(2), true)];
        assert_eq!(news.begin(&name(), true, &servers, false), []);
        let gained = Change::QuorumGained {
            sum: 2,
            threshold: 1,
            starting: true,
        };
        assert_eq!(
            texts(&news.handle_change(&name(), &gained)),
            ["VS UP Start"]
        );
        news
    }

    fn texts(events: &[Event]) -> Vec<String> {
        let word = super::super::event::up_or_down;
        events
            .iter()
            .map(|event| match event {
                Event::Server(it) => {
                    format!("RS {} {} {:?}", it.server.ip(), word(it.is_up), it.cause)
                }
                Event::Quorum(it) => format!("VS {} {:?}", word(it.is_up), it.cause),
                Event::Check(it) => format!(
                    "check of {} {}: {}",
                    it.server.ip(),
                    word(it.is_up),
                    it.finding
                ),
                other => format!("{other:?}"),
            })
            .collect()
    }

    fn lost() -> Change<SocketAddr> {
        Change::QuorumLost {
            sum: 0,
            threshold: 1,
            starting: false,
        }
    }

    #[test]
    fn scripts_and_lines_come_before_the_mail_of_the_check() {
        let mut news = started();
        let failed = news.handle_check(&name(), addr(1), (0, false), "refused".to_owned(), false);
        assert_eq!(failed, []);
        let mut events = news.handle_change(&name(), &Change::ServerDown { server: addr(1) });
        events.extend(news.handle_change(&name(), &lost()));
        events.extend(news.settle(&name()));
        assert_eq!(
            texts(&events),
            [
                "RS 10.0.0.1 DOWN Checks",
                "VS DOWN Checks",
                "check of 10.0.0.1 DOWN: refused"
            ]
        );
    }

    #[test]
    fn another_check_of_a_server_that_is_down_is_told_by_itself() {
        let mut news = started();
        news.handle_check(&name(), addr(1), (0, false), "a".to_owned(), false);
        news.handle_change(&name(), &Change::ServerDown { server: addr(1) });
        assert_eq!(texts(&news.settle(&name())), ["check of 10.0.0.1 DOWN: a"]);
        let second = news.handle_check(&name(), addr(1), (1, false), "b".to_owned(), false);
        assert_eq!(texts(&second), ["check of 10.0.0.1 DOWN: b"]);
        let recovers = news.handle_check(&name(), addr(1), (1, true), "ok".to_owned(), false);
        assert_eq!(texts(&recovers), ["check of 10.0.0.1 DOWN: ok"]);
        // The first success of a check that never failed says nothing.
        let first = news.handle_check(&name(), addr(2), (0, true), "ok".to_owned(), true);
        assert_eq!(first, []);
    }

    #[test]
    fn a_server_that_began_as_down_is_told_when_a_check_agrees() {
        let mut news = ServerNews::default();
        let servers = [(addr(1), false), (addr(2), false)];
        assert_eq!(news.begin(&name(), false, &servers, true), []);
        let failed = news.handle_check(&name(), addr(1), (0, false), "refused".to_owned(), false);
        assert_eq!(failed, []);
        let mut events = news.handle_down(&name(), addr(1));
        events.extend(news.settle(&name()));
        let said = ["RS 10.0.0.1 DOWN Checks", "check of 10.0.0.1 DOWN: refused"];
        assert_eq!(texts(&events), said);
        assert_eq!(news.handle_down(&name(), addr(1)), []);
        let up = news.handle_change(&name(), &Change::ServerUp { server: addr(2) });
        assert_eq!(texts(&up), ["RS 10.0.0.2 UP Checks"]);
        let down = Change::ServerDown { server: addr(2) };
        assert_eq!(news.handle_down(&name(), addr(2)), []);
        assert_eq!(
            texts(&news.handle_change(&name(), &down)),
            ["RS 10.0.0.2 DOWN Checks"]
        );
    }

    #[test]
    fn the_same_change_is_told_once() {
        let mut news = started();
        let down = Change::ServerDown { server: addr(1) };
        assert_eq!(news.handle_change(&name(), &down).len(), 1);
        assert_eq!(news.handle_change(&name(), &down), []);
        assert_eq!(news.handle_change(&name(), &lost()).len(), 1);
        assert_eq!(news.handle_change(&name(), &lost()), []);
    }

    #[test]
    fn what_is_removed_goes_down_if_it_was_up() {
        let mut news = started();
        news.handle_change(&name(), &Change::ServerDown { server: addr(1) });
        let kept = BTreeMap::from([(name(), BTreeSet::from([addr(1)]))]);
        assert_eq!(texts(&news.retain(&kept)), ["RS 10.0.0.2 DOWN Removal"]);
        assert_eq!(texts(&news.retain(&BTreeMap::new())), ["VS DOWN Removal"]);
    }

    #[test]
    fn the_end_is_told_with_omega_only() {
        let mut news = started();
        assert_eq!(
            texts(&news.end()),
            [
                "RS 10.0.0.1 DOWN End",
                "RS 10.0.0.2 DOWN End",
                "VS DOWN End"
            ]
        );
        let mut news = ServerNews::default();
        let up = news.begin(&name(), false, &[(addr(1), true), (addr(2), false)], true);
        assert_eq!(texts(&up), ["RS 10.0.0.1 UP Start"]);
        assert_eq!(news.end(), []);
    }
}

//! The answer to "why did this packet go there", in an operator's words.
//!
//! Claim and way are told by [`lvs_fwd::why`], the decision by [`lvs_sched::Worker::explain`]; here they become one story.
//! Nothing is changed by it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use lvs_fwd::balancer::{Direction, Encapsulation, Method, PacketInfo};
use lvs_fwd::route::{Neighbour, NeighbourState, NextHop};
use lvs_fwd::steer;
use lvs_fwd::view::View;
use lvs_fwd::why::{self, Claimed, Subject, Way};
use lvs_fwd::wire::protocol;
use lvs_sched::{
    Director, Explanation, ForwardMethod, PassedOver, Protocol, RealServer, Reason, SctpEvent,
    ServiceKey, TcpFlags, Verdict,
};

use crate::balance::{self, SchedBalancer};
use crate::control::answers;
use crate::control::why::{NextHopInfo, Outcome, Step, WhyAnswer, WhyQuestion};
use crate::plan::Plan;
use crate::tunnels;

/// What a worker's balancer is asked.
#[derive(Debug)]
pub enum Asked {
    /// About this packet, with what follows its transport header, if that is known.
    Flow(lvs_sched::Packet, Option<Vec<u8>>),
    /// About an AH or ESP packet from one address to the other.
    Ipsec(lvs_sched::Direction, (IpAddr, IpAddr)),
}

impl Asked {
    /// Asks.
    pub fn explain(&self, now: Instant, balancer: &mut SchedBalancer) -> Explanation {
        match self {
            Self::Flow(packet, payload) => balancer.explain(now, packet, payload.as_deref()),
            Self::Ipsec(direction, sides) => balancer.explain_ipsec(now, *direction, *sides),
        }
    }
}

/// A question, as far as the data path's surroundings answer it.
#[derive(Debug)]
pub struct Inquiry {
    subject: Subject,
    payload: Option<Vec<u8>>,
    view: Arc<View>,
    claimed: Option<Claimed>,
    workers: u32,
    steps: Vec<Step>,
}

impl Inquiry {
    /// Looks whether the packet is claimed at all.
    pub fn begin(question: WhyQuestion, view: Arc<View>, workers: u32) -> Self {
        let WhyQuestion {
            protocol,
            source,
            destination,
            tcp_flags,
            length,
            payload,
        } = question;
        let subject = Subject {
            protocol,
            source,
            destination,
            tcp_flags,
            length,
            payload: None,
        };
        let claimed = why::claim(&view, &subject);
        let mut inquiry = Self {
            subject,
            payload,
            view,
            claimed,
            workers,
            steps: Vec::new(),
        };
        let flags = if protocol == lvs_fwd::wire::protocol::TCP {
            format!(" [{}]", flag_names(tcp_flags))
        } else {
            String::new()
        };
        let sides = match has_ports(protocol) {
            true => format!("{source} -> {destination}"),
            false => format!("{} -> {}", source.ip(), destination.ip()),
        };
        inquiry.say(
            "packet",
            format!("{} {sides}{flags}, {length} bytes", name_of(protocol)),
        );
        inquiry.say_claim();
        inquiry
    }

    /// The worker to ask what [`asked`](Self::asked) says; `None` if nobody needs to be asked.
    pub fn owner(&self) -> Option<u32> {
        let claimed = self.claimed?;
        let destination = self.subject.destination;
        if claimed.direction == Direction::Outbound && self.view.claims.is_local(&destination.ip())
        {
            return Some(steer::owner_of_port(destination.port(), self.workers));
        }
        Some(steer::owner(claimed.client(&self.subject), self.workers))
    }

    /// What the owner's balancer is asked.
    pub fn asked(&self) -> Asked {
        let direction = match self.claimed.map(|claimed| claimed.direction) {
            Some(Direction::Outbound) => lvs_sched::Direction::Outbound,
            _ => lvs_sched::Direction::Inbound,
        };
        let Subject {
            source,
            destination,
            ..
        } = self.subject;
        let Some(protocol) = Protocol::from_number(self.subject.protocol) else {
            return Asked::Ipsec(direction, (source.ip(), destination.ip()));
        };
        let packet = lvs_sched::Packet {
            protocol,
            source,
            destination,
            direction,
            tcp_flags: TcpFlags::from_bits(self.subject.tcp_flags),
            // A flow that nothing more is said of begins, as a TCP flow does.
            sctp: (protocol == Protocol::Sctp).then(|| {
                let chunks = self.payload.as_deref();
                chunks.and_then(SctpEvent::parse).unwrap_or(SctpEvent::Init)
            }),
            length: self.subject.length,
            mark: self.claimed.map_or(0, |claimed| claimed.mark),
        };
        Asked::Flow(packet, self.payload.clone())
    }

    /// The answer for a packet that the director never sees.
    pub fn left(mut self) -> WhyAnswer {
        let is_local = self.view.local.contains(&self.subject.destination.ip());
        let text = if is_local {
            "LEFT to the host: its own sockets get it, or its firewall"
        } else {
            "LEFT to the host, which routes it or ignores it"
        };
        self.say("outcome", text.into());
        self.answer(Outcome::Left, "not-claimed")
    }

    /// The whole answer, with what the owner's balancer explains.
    pub fn finish(
        mut self,
        now: Instant,
        explanation: &Explanation,
        scheduler: &Director,
        plan: &Plan,
    ) -> WhyAnswer {
        if let Some(owner) = self.owner() {
            self.say(
                "worker",
                format!("{owner} of {} has this client's connections", self.workers),
            );
        }
        self.say_connection(now, explanation);
        self.say_service(explanation);
        self.say_template(now, explanation);
        self.say_choice(explanation, scheduler, plan);
        let (outcome, reason, target, method, next_hop) = self.follow(explanation, plan);
        let mut answer = self.answer(outcome, reason);
        answer.service = explanation.service.map(|key| key.to_string());
        answer.scheduler = explanation
            .config
            .map(|config| config.scheduler.to_string());
        answer.connection = explanation
            .connection
            .as_ref()
            .map(|connection| answers::connection(now, connection));
        answer.template = explanation
            .template
            .as_ref()
            .map(|template| answers::template(now, template));
        answer.target = target;
        answer.method = method.map(|method| method_name(method).to_owned());
        answer.next_hop = next_hop;
        answer
    }

    fn answer(self, outcome: Outcome, reason: &str) -> WhyAnswer {
        WhyAnswer {
            outcome,
            reason: reason.to_owned(),
            worker: self.owner(),
            steps: self.steps,
            service: None,
            scheduler: None,
            connection: None,
            template: None,
            target: None,
            method: None,
            next_hop: None,
        }
    }

    fn say(&mut self, name: &str, text: String) {
        self.steps.push(Step {
            name: name.to_owned(),
            text,
        });
    }

    fn say_claim(&mut self) {
        let text = match self.claimed {
            Some(Claimed {
                direction,
                endpoint,
                mark,
            }) => {
                let at = match endpoint.port {
                    _ if !has_ports(endpoint.protocol) => endpoint.addr.to_string(),
                    0 => format!("{}, any port", endpoint.addr),
                    port => SocketAddr::new(endpoint.addr, port).to_string(),
                };
                let what = match direction {
                    Direction::Inbound => "it goes to the service",
                    Direction::Outbound => "it comes from the NAT real server",
                };
                let protocol = name_of(endpoint.protocol);
                match mark {
                    0 => format!("taken from the host: {what} {protocol} {at}"),
                    _ => format!(
                        "taken from the host: a rule gives {protocol} to {at} the mark {mark}"
                    ),
                }
            }
            None => self.why_not_claimed(),
        };
        self.say("claim", text);
    }

    fn why_not_claimed(&self) -> String {
        let Subject {
            protocol,
            source,
            destination,
            ..
        } = self.subject;
        let vip = destination.ip();
        let others: Vec<String> = self
            .view
            .claims
            .services()
            .iter()
            .filter(|service| service.addr == vip)
            .map(|service| format!("{} {}", name_of(service.protocol), service.port))
            .collect();
        let ports = has_ports(protocol);
        let protocol = name_of(protocol);
        if !others.is_empty() && !ports {
            return format!(
                "not taken: {protocol} follows a key exchange (UDP 500), and {vip} has services at {} alone",
                others.join(", ")
            );
        }
        if !others.is_empty() {
            return format!(
                "not taken: {vip} has no service at {protocol} {}, but at {}",
                destination.port(),
                others.join(", ")
            );
        }
        let sends = |server: &lvs_fwd::view::Endpoint| server.addr == source.ip();
        if self.view.claims.servers().iter().any(sends) {
            return if self.view.local.contains(&vip) {
                format!("not taken: {vip} is the director's own address, so this answers itself")
            } else {
                format!(
                    "not taken: {} has a real server, but no NAT one at {protocol} {}",
                    source.ip(),
                    source.port()
                )
            };
        }
        format!(
            "not taken: no service has the address {vip}, and no NAT real server {}",
            source.ip()
        )
    }

    fn say_connection(&mut self, now: Instant, explanation: &Explanation) {
        let text = match (&explanation.connection, explanation.passed_over) {
            (None, _) => match explanation.reason {
                Reason::BeginsNothing if !has_ports(self.subject.protocol) => {
                    "none: there is no key exchange (UDP, both ports 500) between these addresses that it could follow"
                        .into()
                }
                Reason::BeginsNothing | Reason::Malformed => {
                    "none, and such a packet begins none (a SYN would)".into()
                }
                Reason::UnknownReply => "none waits for this answer".into(),
                Reason::BackupOnly => "not looked for".into(),
                _ => "none yet".into(),
            },
            (Some(connection), passed_over) => {
                let found = format!(
                    "{} -> {} at {}, {}, ends in {} s",
                    connection.client,
                    connection.virtual_addr,
                    connection.destination,
                    connection.state,
                    connection.remaining(now).as_secs()
                );
                match passed_over {
                    None => found,
                    Some(passed_over) => {
                        format!(
                            "{found}; passed over, because {}",
                            passed_over_text(passed_over)
                        )
                    }
                }
            }
        };
        self.say("connection", text);
    }

    fn say_service(&mut self, explanation: &Explanation) {
        let Some(key) = explanation.service else {
            return;
        };
        let config = explanation.config.unwrap_or_default();
        let mut text = format!("{key}, scheduler {}", config.scheduler);
        if let Some(persistence) = config.persistence {
            text += &format!(", persistent for {} s", persistence.timeout.as_secs());
        }
        if config.one_packet {
            text += ", each packet by itself";
        }
        self.say("service", text);
    }

    fn say_template(&mut self, now: Instant, explanation: &Explanation) {
        let Some(template) = &explanation.template else {
            if explanation
                .config
                .is_some_and(|config| config.persistence.is_some())
            {
                self.say("template", "none for this client".into());
            }
            return;
        };
        let left = template.deadline.saturating_duration_since(now).as_secs();
        let found = format!(
            "{} goes to {} for {left} s more, {} connections",
            template.client,
            template.destination.ip(),
            template.controls
        );
        let text = match explanation.reason {
            Reason::Template | Reason::Connection | Reason::ServerRemoved => found,
            _ => format!("{found}; given up, its server is removed, quiesced or drained"),
        };
        self.say("template", text);
    }

    fn say_choice(&mut self, explanation: &Explanation, scheduler: &Director, plan: &Plan) {
        let service = explanation.service.and_then(|key| scheduler.service(&key));
        let described = |addr: SocketAddr| {
            let server = service.as_ref().and_then(|service| service.server(addr));
            server.map_or_else(|| addr.to_string(), |server| describe(&server))
        };
        let text = match (explanation.reason, explanation.server) {
            (Reason::Connection | Reason::ServerBegins, _) => return,
            (Reason::Scheduler, Some(addr)) => format!(
                "{} would choose {} now; asking took no turn",
                explanation.config.unwrap_or_default().scheduler,
                described(addr)
            ),
            (Reason::Template, Some(addr)) => {
                format!("the template says {}", described(addr))
            }
            (Reason::NoServer, _) => {
                let Some(key) = explanation.service else {
                    return;
                };
                let listed = service.as_ref().map(|service| service.servers());
                let listed = listed.unwrap_or_default();
                self.say("servers", without_server(&listed));
                for server in listed.iter().take(LISTED) {
                    self.say("", describe(server));
                }
                let absent: Vec<String> = configured(plan, &key)
                    .filter(|addr| !listed.iter().any(|server| server.addr() == *addr))
                    .map(|addr| addr.to_string())
                    .collect();
                if absent.is_empty() {
                    return;
                }
                format!(
                    "configured but not in the table, down by their checks: {}",
                    absent.join(", ")
                )
            }
            _ => return,
        };
        self.say("server", text);
    }

    /// Follows the verdict to the wire.
    fn follow(
        &mut self,
        explanation: &Explanation,
        plan: &Plan,
    ) -> (
        Outcome,
        &'static str,
        Option<SocketAddr>,
        Option<ForwardMethod>,
        Option<NextHopInfo>,
    ) {
        let reason = explanation.reason.name();
        let simple = |outcome| (outcome, reason, None, None, None);
        let Some(verdict) = explanation.verdict else {
            self.say(
                "outcome",
                "can't be told before the scheduler is asked".into(),
            );
            return simple(Outcome::Unforeseen);
        };
        match verdict {
            Verdict::Drop(dropped) => {
                let why = refusal_text(explanation.reason);
                self.say("outcome", format!("DROPPED, {why} (counted as {dropped})"));
                simple(Outcome::Dropped)
            }
            Verdict::Reject => {
                let why = refusal_text(explanation.reason);
                self.say(
                    "outcome",
                    format!("REFUSED, {why}: its sender gets ICMP port unreachable"),
                );
                simple(Outcome::Refused)
            }
            Verdict::NotOurs
            | Verdict::Forward {
                method: ForwardMethod::Bypass,
                ..
            } => {
                let outcome = self.follow_unserved(explanation.reason);
                simple(outcome)
            }
            Verdict::Reply { method, vip } => {
                let client = self.subject.destination;
                if method == ForwardMethod::Nat || method == ForwardMethod::FullNat {
                    self.say("method", format!("the sender becomes the service, {vip}"));
                } else {
                    self.say("method", "goes to the client as it is".into());
                }
                let (hop, trouble) = self.follow_way(client.ip(), 0, None);
                match trouble {
                    Some((outcome, reason)) => (outcome, reason, Some(client), Some(method), hop),
                    None => {
                        self.say("outcome", format!("ANSWERED: sent to the client {client}"));
                        (Outcome::Answered, reason, Some(client), Some(method), hop)
                    }
                }
            }
            Verdict::ForwardFrom { local, server } => {
                let method = ForwardMethod::FullNat;
                self.say(
                    "method",
                    format!("FULLNAT: the destination becomes {server} and the sender {local}, to which the answer comes back"),
                );
                let (hop, trouble) = self.follow_way(server.ip(), 0, Some(method));
                if let Some((outcome, reason)) = trouble {
                    return (outcome, reason, Some(server), Some(method), hop);
                }
                self.say("outcome", format!("FORWARDED to {server} by full-nat"));
                (Outcome::Forwarded, reason, Some(server), Some(method), hop)
            }
            Verdict::ReplyTo { vip, client } => {
                let method = ForwardMethod::FullNat;
                self.say(
                    "method",
                    format!("FULLNAT: the sender becomes the service, {vip}, and the destination the client, {client}"),
                );
                let (hop, trouble) = self.follow_way(client.ip(), 0, None);
                if let Some((outcome, reason)) = trouble {
                    return (outcome, reason, Some(client), Some(method), hop);
                }
                self.say("outcome", format!("ANSWERED: sent to the client {client}"));
                (Outcome::Answered, reason, Some(client), Some(method), hop)
            }
            Verdict::Forward { method, server } => {
                let translated =
                    balance::method(method, server, |server| self.encapsulation(plan, server));
                let (target, overhead) = translated
                    .as_ref()
                    .map_or_else(|| (server.ip(), 0), why::target);
                self.say("method", method_text(translated.as_ref(), server, overhead));
                let (hop, trouble) = self.follow_way(target, overhead, Some(method));
                if let Some((outcome, reason)) = trouble {
                    return (outcome, reason, Some(server), Some(method), hop);
                }
                let name = method_name(method);
                self.say("outcome", format!("FORWARDED to {server} by {name}"));
                (Outcome::Forwarded, reason, Some(server), Some(method), hop)
            }
        }
    }

    /// How the data path would wrap the packet.
    fn encapsulation(&self, plan: &Plan, server: SocketAddr) -> Encapsulation {
        let packet = PacketInfo {
            protocol: self.subject.protocol,
            source: self.subject.source,
            destination: self.subject.destination,
            direction: Direction::Inbound,
            tcp_flags: self.subject.tcp_flags,
            length: self.subject.length,
            mark: self.claimed.map_or(0, |claimed| claimed.mark),
        };
        let packet = match has_ports(packet.protocol) {
            true => packet,
            false => balance::exchange(&packet),
        };
        tunnels::encapsulation(&plan.tunnels, &packet, false, server)
    }

    /// What becomes of a packet that no connection and no service wants.
    fn follow_unserved(&mut self, reason: Reason) -> Outcome {
        let why = refusal_text(reason);
        let inbound = self
            .claimed
            .is_none_or(|claimed| claimed.direction == Direction::Inbound);
        if inbound && self.view.hostless {
            self.say(
                "outcome",
                format!("REFUSED in the host's place, {why}: there is no way to give it back"),
            );
            return Outcome::Refused;
        }
        if inbound {
            self.say("outcome", format!("GIVEN BACK to the host, {why}"));
            return Outcome::GivenBack;
        }
        let client = self.subject.destination.ip();
        let (_, trouble) = self.follow_way(client, 0, None);
        if let Some((outcome, _)) = trouble {
            return outcome;
        }
        let off: Vec<&str> = self
            .view
            .ports
            .iter()
            .filter(|port| !port.forwarding)
            .map(|port| port.name.as_str())
            .collect();
        let text = if off.is_empty() {
            format!("ROUTED to {client} with the server's own address, {why}")
        } else {
            format!(
                "ROUTED to {client} with the server's own address, {why}; dropped if it comes in at {}, where forwarding is off",
                off.join(", ")
            )
        };
        self.say("outcome", text);
        Outcome::Routed
    }

    /// Route, neighbour and size. What keeps the packet from going, if anything does; the outcome is said then.
    fn follow_way(
        &mut self,
        target: IpAddr,
        overhead: usize,
        method: Option<ForwardMethod>,
    ) -> (Option<NextHopInfo>, Option<(Outcome, &'static str)>) {
        let view = Arc::clone(&self.view);
        match why::way(&view, target) {
            Way::Host if view.hostless => {
                self.say("next hop", format!("{target} is on this host"));
                self.say(
                    "outcome",
                    "DROPPED: there is no way to give it to the host".into(),
                );
                (None, Some((Outcome::Dropped, "no-host")))
            }
            Way::Host => {
                let is_translated =
                    matches!(method, Some(ForwardMethod::Nat | ForwardMethod::FullNat));
                let way = if view.one_way {
                    "raw sockets"
                } else {
                    "the TUN device"
                };
                self.say(
                    "next hop",
                    format!("{target} is on this host: through {way}"),
                );
                if view.one_way && is_translated {
                    self.say(
                        "outcome",
                        "DROPPED: there is no TUN device for its answers to come back by".into(),
                    );
                    return (None, Some((Outcome::Dropped, "no-host")));
                }
                (None, None)
            }
            Way::Nowhere { route, reason } => {
                let text = match route {
                    Some(route) => format!(
                        "the route to {target} is {}: {}",
                        route.destination,
                        reason.name()
                    ),
                    None => format!("there is no route to {target}"),
                };
                self.say("next hop", text);
                self.say("outcome", format!("DROPPED, {}", reason.name()));
                (None, Some((Outcome::Dropped, reason.name())))
            }
            Way::Out {
                route,
                port,
                hop,
                neighbour,
                mtu,
            } => {
                let how = match route.next_hop {
                    NextHop::OnLink => format!("{target} is on the link"),
                    NextHop::Gateway(gateway) => format!("{target} is behind {gateway}"),
                };
                let (mac, state) = neighbour_text(&hop.addr, neighbour);
                self.say(
                    "next hop",
                    format!(
                        "{how} at {} (route {}, MTU {}); {state}",
                        port.name, route.destination, mtu
                    ),
                );
                if method == Some(ForwardMethod::DirectRoute) && hop.addr != target {
                    self.say(
                        "warning",
                        format!("DR sends the packet unchanged, so {} routes it to the service's address again: the server must be on the link", hop.addr),
                    );
                }
                let info = NextHopInfo {
                    interface: port.name.clone(),
                    address: hop.addr,
                    mac,
                    mtu,
                };
                let room = (mtu as usize).saturating_sub(overhead);
                if self.subject.length as usize > room {
                    self.say(
                        "size",
                        format!("{} bytes do not fit into {room}: with \"don't fragment\" its sender is told to send less, else it is cut", self.subject.length),
                    );
                }
                if neighbour.is_some_and(|neighbour| neighbour.state == NeighbourState::Failed) {
                    self.say(
                        "outcome",
                        format!(
                            "DROPPED after a wait: {} does not answer ARP at {}",
                            hop.addr, port.name
                        ),
                    );
                    return (Some(info), Some((Outcome::Dropped, "neighbour-failed")));
                }
                (Some(info), None)
            }
        }
    }
}

/// A server in words: what schedulers look at.
fn describe(server: &RealServer) -> String {
    let mut text = format!(
        "{} (weight {}, {} active, {} inactive",
        server.addr(),
        server.weight().get(),
        server.active(),
        server.inactive()
    );
    if !server.is_healthy() {
        text += ", down";
    }
    if server.is_quiesced() {
        text += ", quiesced";
    }
    if server.is_overloaded() {
        text += ", overloaded";
    }
    text + ")"
}

fn without_server(listed: &[Arc<RealServer>]) -> String {
    if listed.is_empty() {
        return "the service has no real server in the table".into();
    }
    let quiesced = listed.iter().filter(|server| server.is_quiesced()).count();
    let overloaded = listed
        .iter()
        .filter(|server| server.is_overloaded())
        .count();
    format!(
        "none of {} can be chosen: {quiesced} quiesced, {overloaded} overloaded",
        listed.len()
    )
}

fn configured<'p>(plan: &'p Plan, key: &ServiceKey) -> impl Iterator<Item = SocketAddr> + use<'p> {
    let key = *key;
    plan.pools
        .iter()
        .filter(move |pool| pool.services.contains(&key))
        .flat_map(|pool| pool.servers.iter().map(|server| server.addr))
}

fn method_text(method: Option<&Method>, server: SocketAddr, overhead: usize) -> String {
    match method {
        Some(Method::Nat { rip }) => {
            format!(
                "NAT: the destination becomes {rip}, and the answer has to come back by this director"
            )
        }
        Some(Method::DirectRoute { rip }) => {
            format!(
                "DR: unchanged to the hardware address of {rip}, which must hold the service's address and answer clients itself"
            )
        }
        Some(Method::Tunnel { rip, .. }) => {
            format!(
                "TUN: wrapped for {rip}, {overhead} bytes more; the server unwraps it and answers clients itself"
            )
        }
        _ => format!("to {server} by a method that the data path has not"),
    }
}

fn neighbour_text(addr: &IpAddr, neighbour: Option<Neighbour>) -> (Option<String>, String) {
    match neighbour {
        Some(neighbour) if neighbour.state.is_usable() => {
            let [a, b, c, d, e, f] = neighbour.mac;
            let mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
            let text = format!("{addr} is {mac}, {:?}", neighbour.state).to_lowercase();
            (Some(mac), text)
        }
        Some(neighbour) if neighbour.state == NeighbourState::Failed => {
            (None, format!("{addr} does not answer"))
        }
        _ => (
            None,
            format!("{addr} has not been asked for yet: the first packets wait for its answer"),
        ),
    }
}

fn passed_over_text(passed_over: PassedOver) -> &'static str {
    match passed_over {
        PassedOver::Over => "it is over and the client begins anew",
        PassedOver::Quiesced => "its server is quiesced and the client begins anew",
        PassedOver::Removed => "its server was removed",
        PassedOver::Drained => "its server is drained by force",
        _ => "it no longer counts",
    }
}

/// Why a packet is not served, as the end of a sentence.
fn refusal_text(reason: Reason) -> &'static str {
    match reason {
        Reason::ServerRemoved => {
            "the connection's real server was removed and the connection waits for its end (expire_nodest_conn)"
        }
        Reason::NoServer => "no real server can be chosen",
        Reason::NoLocalPort => "no local address has a free port towards the real server",
        Reason::OtherPort => "the service is for another port and not persistent",
        Reason::Bypass => "no real server can be chosen and cache_bypass lets it go on",
        Reason::NoService => "no service has this address and port",
        Reason::BeginsNothing => "it belongs to no connection and begins none",
        Reason::FtpData => "it comes from port 20, as data connections of FTP servers do",
        Reason::TableFull => "the connection table is full",
        Reason::TemplatesFull => "the table of persistence templates is full",
        Reason::Defence => "new connections are thinned out (drop_packet)",
        Reason::Engine => "the persistence engine finds nothing in it to go by",
        Reason::Malformed => "it is malformed",
        Reason::BackupOnly => {
            "this director only receives connections of another one (backup_only)"
        }
        Reason::UnknownReply => "no connection waits for it",
        Reason::MixedFamilies => "its addresses are of different families",
        _ => "nothing more is known",
    }
}

fn method_name(method: ForwardMethod) -> &'static str {
    match method {
        ForwardMethod::Nat => "nat",
        ForwardMethod::Local => "local",
        ForwardMethod::Tunnel => "tunnel",
        ForwardMethod::DirectRoute => "direct-route",
        ForwardMethod::Bypass => "bypass",
        ForwardMethod::FullNat => "full-nat",
    }
}

fn name_of(number: u8) -> String {
    match number {
        protocol::ESP => "ESP".to_owned(),
        protocol::AH => "AH".to_owned(),
        _ => Protocol::from_number(number).map_or_else(
            || format!("protocol {number}"),
            |protocol| protocol.to_string(),
        ),
    }
}

/// Whether packets of this protocol have ports. Those that are balanced and have none follow a key exchange.
fn has_ports(number: u8) -> bool {
    Protocol::from_number(number).is_some()
}

fn flag_names(flags: u8) -> String {
    let names = [
        (0x02, "SYN"),
        (0x01, "FIN"),
        (0x04, "RST"),
        (0x08, "PSH"),
        (0x10, "ACK"),
    ];
    let set: Vec<&str> = names
        .iter()
        .filter(|(bit, _)| flags & bit != 0)
        .map(|(_, name)| *name)
        .collect();
    if set.is_empty() {
        "no flags".into()
    } else {
        set.join(" ")
    }
}

/// Servers that are listed one by one at most.
const LISTED: usize = 16;

//! Connections that are announced inside other ones: the table's side of an FTP helper.

use std::fmt;
use std::net::SocketAddr;
use std::time::Instant;

use crate::conn::chunks::NONE;
use crate::conn::key::{Address, FlowKey};
use crate::conn::state::{State, TcpState};
use crate::conn::table::{Flow, NewEntry, Table};
use crate::path::Ends;
use crate::real_server::Class;
use crate::time::Nanos;
use crate::{ForwardMethod, Protocol, Worker};

/// What a control connection announced.
#[derive(Clone, Copy, Debug)]
enum Announced {
    /// The server waits here (FTP 227, 229).
    Server(SocketAddr),
    /// The client waits here (FTP PORT, EPRT).
    Client(SocketAddr),
}

impl Worker {
    /// A server announced where it waits for a data connection of `client`'s control connection to
    /// `virtual_addr`. The client's port becomes known with its first packet.
    ///
    /// Returns the address to tell the client instead. The control connection, which must be
    /// established and rewritten ([`ForwardMethod::Nat`]), stays as long as the data connection.
    ///
    /// # Errors
    /// [`ExpectError`]
    pub fn expect_passive(
        &mut self,
        now: Instant,
        client: SocketAddr,
        virtual_addr: SocketAddr,
        server: SocketAddr,
    ) -> Result<SocketAddr, ExpectError> {
        self.expect(now, client, virtual_addr, Announced::Server(server))?;
        Ok(SocketAddr::new(virtual_addr.ip(), server.port()))
    }

    /// A client announced where it waits for a data connection of its control connection. The
    /// server will open it from the port below its control port.
    ///
    /// # Errors
    /// [`ExpectError`]
    pub fn expect_active(
        &mut self,
        now: Instant,
        client: SocketAddr,
        virtual_addr: SocketAddr,
        data: SocketAddr,
    ) -> Result<(), ExpectError> {
        self.expect(now, client, virtual_addr, Announced::Client(data))
    }

    fn expect(
        &mut self,
        now: Instant,
        client: SocketAddr,
        virtual_addr: SocketAddr,
        announced: Announced,
    ) -> Result<(), ExpectError> {
        let now = self.advance(now);
        if self.len() >= self.director.max_connections {
            return Err(ExpectError::TableFull);
        }
        let deadline = now + self.listen_timeout();
        let mut ends = Ends::new(&self.director, &mut self.feed, &mut self.ports);
        match client {
            SocketAddr::V4(_) => {
                let table = &mut self.v4;
                expect(table, &mut ends, client, virtual_addr, announced, deadline)
            }
            SocketAddr::V6(_) => {
                let table = &mut self.v6;
                expect(table, &mut ends, client, virtual_addr, announced, deadline)
            }
        }
    }
}

fn expect<A: Address>(
    table: &mut Table<A>,
    ends: &mut Ends<'_>,
    client: SocketAddr,
    virtual_addr: SocketAddr,
    announced: Announced,
    deadline: Nanos,
) -> Result<(), ExpectError> {
    let side = |addr: SocketAddr| (addr.ip(), addr.port());
    let key = |client: SocketAddr, other: SocketAddr| {
        FlowKey::<A>::new(Protocol::Tcp, side(client), side(other)).ok_or(ExpectError::Family)
    };
    let control_key = key(client, virtual_addr)?;
    let control = table
        .find(&control_key, &table.sought(&control_key))
        .ok_or(ExpectError::NoControl)?;
    let entry = table.entry(control);
    if entry.state != State::Tcp(TcpState::Established) {
        return Err(ExpectError::NotEstablished);
    }
    if entry.method != ForwardMethod::Nat {
        return Err(ExpectError::Method);
    }
    let (flow, server) = (entry.flow, entry.server.clone());
    let (flow, known) = match announced {
        Announced::Server(addr) => {
            let key = key(client, addr)?.without_client_port();
            let flow = Flow {
                client_port: 0,
                vport: addr.port(),
                server: key.other,
                server_port: addr.port(),
                ..flow
            };
            (flow, table.find_reverse(&key, &table.sought(&key)))
        }
        Announced::Client(addr) => {
            let vport = flow.vport.wrapping_sub(1);
            let key = key(addr, SocketAddr::new(virtual_addr.ip(), vport))?;
            let flow = Flow {
                client: key.client,
                client_port: addr.port(),
                vport,
                server_port: flow.server_port.wrapping_sub(1),
                ..flow
            };
            (flow, table.find(&key, &table.sought(&key)))
        }
    };
    if known.is_some() {
        return Ok(());
    }
    if let Some(server) = &server {
        server.bind(Class::Inactive);
    }
    let id = table.insert(NewEntry {
        flow,
        state: State::Tcp(TcpState::Listen),
        method: ForwardMethod::Nat,
        server,
        template: None,
        control,
        local: None,
        no_client_port: matches!(announced, Announced::Server(_)),
        synchronised: false,
        packets: 0,
        deadline,
    });
    // It has its state's timeout, not that of a new connection.
    table.entry_mut(id).enter(State::Tcp(TcpState::Listen));
    debug_assert_ne!(id, NONE);
    ends.created(table, id);
    Ok(())
}

/// Why a data connection cannot be expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExpectError {
    /// There is no such control connection.
    NoControl,
    /// The control connection is not established.
    NotEstablished,
    /// The control connection is not rewritten, so the client sees the server's addresses anyway.
    Method,
    /// Addresses of different families.
    Family,
    /// The connection table is at its configured limit.
    TableFull,
}

impl fmt::Display for ExpectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoControl => "no such control connection",
            Self::NotEstablished => "control connection is not established",
            Self::Method => "control connection is not rewritten",
            Self::Family => "addresses of different families",
            Self::TableFull => "connection table is full",
        })
    }
}

impl std::error::Error for ExpectError {}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::worker::tests::{
        A, F, Lan, R, S, client, inbound, outbound, persistent, rip, rr, vip,
    };
    use crate::{Packet, RealServer, ServiceConfig, Verdict};

    /// An FTP service with an established control connection of `client(1, 4000)`.
    fn ftp(config: ServiceConfig) -> (Lan, Arc<RealServer>) {
        let mut lan = Lan::new(Protocol::Tcp, 21, config);
        let server = lan.add(1, ForwardMethod::Nat);
        let c = client(1, 4000);
        let _ = lan.send(c, 21, S);
        let _ = lan.reply(rip(1), c, S | A);
        let _ = lan.send(c, 21, A);
        (lan, server)
    }

    fn passive(lan: &mut Lan) -> SocketAddr {
        let announced = SocketAddr::new(rip(1).ip(), 5000);
        lan.worker
            .expect_passive(lan.now, client(1, 4000), vip(21), announced)
            .unwrap()
    }

    fn data(tcp_flags: crate::TcpFlags, port: u16) -> Packet {
        Packet {
            tcp_flags,
            ..inbound(Protocol::Tcp, client(1, port), vip(5000))
        }
    }

    #[test]
    fn a_passive_data_connection_learns_its_client_port() {
        let (mut lan, server) = ftp(rr());
        assert_eq!(passive(&mut lan), vip(5000));
        assert_eq!(passive(&mut lan), vip(5000), "known already");
        assert_eq!((server.active(), server.inactive()), (1, 1));
        assert_eq!(lan.director.stats().connections, 1, "not counted");
        let expected = |lan: &Lan| {
            let mut connections: Vec<_> = lan
                .worker
                .connections()
                .map(|info| (info.client.port(), info.state.name(), info.no_client_port))
                .collect();
            connections.sort_unstable();
            connections
        };
        assert_eq!(
            expected(&lan),
            [(0, "LISTEN", true), (4000, "ESTABLISHED", false)]
        );
        // Another client does not find it.
        let other = Packet {
            source: client(2, 6000),
            ..data(S, 6000)
        };
        assert_eq!(lan.handle(&other), Verdict::NotOurs);
        let forward = Verdict::Forward {
            method: ForwardMethod::Nat,
            server: SocketAddr::new(rip(1).ip(), 5000),
        };
        assert_eq!(lan.handle(&data(S, 6000)), forward);
        assert_eq!(
            expected(&lan),
            [(4000, "ESTABLISHED", false), (6000, "SYN_RECV", false)]
        );
        assert_eq!(
            lan.handle(&data(S, 6001)),
            Verdict::NotOurs,
            "it has its client"
        );
        let back = Packet {
            tcp_flags: S | A,
            ..outbound(
                Protocol::Tcp,
                SocketAddr::new(rip(1).ip(), 5000),
                client(1, 6000),
            )
        };
        assert!(matches!(lan.handle(&back), Verdict::Reply { vip: to, .. } if to == vip(5000)));
        // Port 0 meets a waiting one, as any port does.
        passive(&mut lan);
        assert_eq!(lan.worker.len(), 3);
        assert_eq!(lan.handle(&data(S, 0)), forward);
    }

    #[test]
    fn an_active_data_connection_comes_from_the_port_below() {
        let (mut lan, _) = ftp(rr());
        let announced = client(1, 7000);
        for _ in 0..2 {
            lan.worker
                .expect_active(lan.now, client(1, 4000), vip(21), announced)
                .unwrap();
        }
        assert_eq!(lan.worker.len(), 2);
        let from = SocketAddr::new(rip(1).ip(), rip(1).port() - 1);
        let syn = Packet {
            tcp_flags: S,
            ..outbound(Protocol::Tcp, from, announced)
        };
        assert_eq!(
            lan.handle(&syn),
            Verdict::Reply {
                method: ForwardMethod::Nat,
                vip: vip(20)
            }
        );
    }

    #[test]
    fn a_control_connection_stays_as_long_as_its_data() {
        let (mut lan, server) = ftp(rr());
        passive(&mut lan);
        let c = client(1, 4000);
        let _ = lan.send(c, 21, R);
        // CLOSE ends after 10 s; the data connection waits for 120 s.
        lan.at(10.0);
        let control = |lan: &Lan| {
            let info = lan.worker.connections().find(|info| info.client == c);
            info.map(|info| info.deadline.duration_since(lan.start).as_secs())
        };
        assert_eq!(control(&lan), Some(70));
        lan.at(119.9);
        assert_eq!((control(&lan), lan.worker.len()), (Some(130), 2));
        lan.at(120.0);
        assert_eq!(lan.worker.len(), 1);
        lan.at(130.0);
        assert!(lan.worker.is_empty());
        assert!(!server.is_referenced());
    }

    #[test]
    fn timers_looked_at_late_end_in_the_same_order() {
        let (mut lan, _) = ftp(rr());
        passive(&mut lan);
        let _ = lan.send(client(1, 4000), 21, R);
        // Control: 10, 70, 130; data: 120. Nobody looks before 129.
        lan.worker
            .handle_timeout(lan.start + Duration::from_secs(129));
        let left: Vec<_> = lan.worker.connections().collect();
        assert_eq!(left.len(), 1);
        assert_eq!(
            left[0].deadline.duration_since(lan.start),
            Duration::from_secs(130)
        );
        lan.worker
            .handle_timeout(lan.start + Duration::from_secs(130));
        assert!(lan.worker.is_empty());
    }

    #[test]
    fn a_forced_end_takes_its_control_and_template_along() {
        let (mut lan, server) = ftp(persistent(300, [255; 4]));
        passive(&mut lan);
        assert_eq!(server.persistent(), 1);
        lan.tune(|tunables| tunables.expire_nodest_conn = true);
        lan.remove(1);
        lan.at(1.0);
        assert!(lan.worker.is_empty(), "data first, control with it");
        assert_eq!(server.persistent(), 1, "it was assured");

        let mut lan = Lan::new(Protocol::Tcp, 21, persistent(300, [255; 4]));
        let server = lan.add(1, ForwardMethod::Nat);
        let _ = lan.send(client(1, 4000), 21, S);
        lan.tune(|tunables| tunables.expire_nodest_conn = true);
        lan.remove(1);
        lan.at(1.0);
        assert!(!server.is_referenced(), "not assured");
    }

    #[test]
    fn a_control_connection_in_use_is_not_replaced() {
        let (mut lan, _) = ftp(rr());
        passive(&mut lan);
        let c = client(1, 4000);
        let _ = lan.send(c, 21, F | A);
        let _ = lan.reply(rip(1), c, F | A);
        assert_eq!(lan.worker.len(), 2);
        let _ = lan.send(c, 21, S);
        assert_eq!(lan.worker.len(), 3, "TIME_WAIT, but it controls another");
        lan.at(2_000.0);
        assert!(lan.worker.is_empty());
    }

    #[test]
    fn only_established_rewritten_controls_expect() {
        let mut lan = Lan::new(Protocol::Tcp, 21, rr());
        lan.add(1, ForwardMethod::DirectRoute);
        let (c, announced) = (client(1, 4000), rip(1));
        let expect = |lan: &mut Lan| {
            lan.worker
                .expect_passive(lan.now, c, vip(21), announced)
                .unwrap_err()
        };
        assert_eq!(expect(&mut lan), ExpectError::NoControl);
        let _ = lan.send(c, 21, S);
        assert_eq!(expect(&mut lan), ExpectError::NotEstablished);
        let _ = lan.send(c, 21, A);
        assert_eq!(expect(&mut lan), ExpectError::Method);
        let other = "[2001:db8::1]:5000".parse().unwrap();
        let (mut lan, _) = ftp(rr());
        let error = lan.worker.expect_passive(lan.now, c, vip(21), other);
        assert_eq!(error, Err(ExpectError::Family));
    }
}

//! Control connections segment by segment, through the balancer.

use std::sync::Arc;

use lvs_fwd::balancer::{self, Balancer, PacketInfo, Packets, Payloads};
use lvs_sched::{Director, DirectorConfig, ServerConfig, ServiceConfig, ServiceKey};

use super::*;
use crate::balance::SchedBalancer;

const S: u8 = 2;
const R: u8 = 4;
const A: u8 = 16;

/// A segment on its way: sequence number and payload.
struct One(u32, Vec<u8>);

impl Payloads for One {
    fn payload(&self, _: usize) -> &[u8] {
        &self.1
    }

    fn sequence(&self, _: usize) -> Option<u32> {
        Some(self.0)
    }
}

/// A client with an established control connection.
struct Session {
    balancer: SchedBalancer,
    now: Instant,
    client: SocketAddr,
    vip: SocketAddr,
    server: SocketAddr,
}

impl Session {
    fn v4(method: ForwardMethod) -> Self {
        Self::between(
            method,
            "198.51.100.7:4000",
            "203.0.113.10:21",
            "10.0.0.11:21",
        )
    }

    fn v6() -> Self {
        Self::between(
            ForwardMethod::Nat,
            "[2001:db8:1::7]:4000",
            "[2001:db8::10]:21",
            "[fd00::11]:2121",
        )
    }

    fn between(method: ForwardMethod, client: &str, vip: &str, server: &str) -> Self {
        let [client, vip, server] = [client, vip, server].map(|addr| addr.parse().unwrap());
        let mut config = DirectorConfig::new([1, 2, 3, 4]);
        config.max_connections = 100_000;
        let director = Arc::new(Director::new(config));
        let now = Instant::now();
        let vip: SocketAddr = vip;
        let key = ServiceKey::Address {
            protocol: Protocol::Tcp,
            vip: vip.ip(),
            vport: vip.port(),
        };
        director.add_service(key, ServiceConfig::default()).unwrap();
        let config = ServerConfig {
            method,
            ..ServerConfig::default()
        };
        director.add_server(now, &key, server, config).unwrap();
        let balancer = SchedBalancer::new(director.worker(), Arc::default());
        let mut session = Self {
            balancer,
            now,
            client,
            vip,
            server,
        };
        session.establish();
        session
    }

    fn establish(&mut self) {
        self.client_sends(S, 100, "");
        self.server_sends(S | A, 900, "");
        self.client_sends(A, 101, "");
    }

    fn pass(
        &mut self,
        direction: balancer::Direction,
        (source, destination): (SocketAddr, SocketAddr),
        tcp_flags: u8,
        segment: One,
    ) -> (balancer::Verdict, Option<Edit>) {
        let info = PacketInfo {
            protocol: 6,
            source,
            destination,
            direction,
            tcp_flags,
            length: 40 + segment.1.len() as u32,
            mark: 0,
        };
        let mut verdicts = Vec::new();
        let packets = Packets::new(std::slice::from_ref(&info), &segment);
        self.balancer.decide(self.now, &packets, &mut verdicts);
        let edit = self.balancer.poll_edit();
        assert_eq!(self.balancer.poll_edit(), None, "one edit each");
        assert!(edit.as_ref().is_none_or(|(index, _)| *index == 0));
        (verdicts[0], edit.map(|(_, edit)| edit))
    }

    fn client_sends(&mut self, flags: u8, sequence: u32, text: &str) -> Option<Edit> {
        let sides = (self.client, self.vip);
        let segment = One(sequence, text.into());
        self.pass(balancer::Direction::Inbound, sides, flags, segment)
            .1
    }

    fn server_sends(&mut self, flags: u8, sequence: u32, text: &str) -> Option<Edit> {
        let sides = (self.server, self.client);
        let segment = One(sequence, text.into());
        self.pass(balancer::Direction::Outbound, sides, flags, segment)
            .1
    }

    fn says(&mut self, command: &str) {
        assert_eq!(self.client_sends(A, 101, command), None, "{command}");
    }

    /// The text that takes the place of some of an answer.
    fn told(&mut self, sequence: u32, answer: &str) -> Option<String> {
        let edit = self.server_sends(A, sequence, answer)?;
        let Replacement { at, len, text } = edit.replacement?;
        let mut whole = answer.as_bytes().to_vec();
        whole.splice(at..at + len, text);
        Some(String::from_utf8(whole).unwrap())
    }

    /// Where a data connection of the client to this port leads.
    fn opens(&mut self, port: u16) -> balancer::Verdict {
        let sides = (
            SocketAddr::new(self.client.ip(), 5000),
            SocketAddr::new(self.vip.ip(), port),
        );
        self.pass(balancer::Direction::Inbound, sides, S, One(1, Vec::new()))
            .0
    }

    fn connections(&self) -> usize {
        self.balancer.worker().len()
    }
}

fn nat(addr: &str) -> balancer::Verdict {
    let rip = addr.parse().unwrap();
    balancer::Verdict::Forward(balancer::Method::Nat { rip })
}

const ANSWER: &str = "227 Entering Passive Mode (10,0,0,11,195,80).\r\n";
const EXTENDED: &str = "229 Entering Extended Passive Mode (|||50000|)\r\n";

#[test]
fn a_passive_server_is_reached_through_the_service() {
    let mut session = Session::v4(ForwardMethod::Nat);
    assert_eq!(session.opens(50_000), balancer::Verdict::NotOurs);
    assert_eq!(session.told(901, ANSWER), None, "nobody has asked");
    session.says("PASV\r\n");
    assert_eq!(
        session.told(901, ANSWER).unwrap(),
        "227 Entering Passive Mode (203,0,113,10,195,80).\r\n"
    );
    assert_eq!(session.opens(50_000), nat("10.0.0.11:50000"));
    let back = (
        "10.0.0.11:50000".parse().unwrap(),
        SocketAddr::new(session.client.ip(), 5000),
    );
    let segment = One(1, Vec::new());
    let (verdict, _) = session.pass(balancer::Direction::Outbound, back, S | A, segment);
    let source = "203.0.113.10:50000".parse().unwrap();
    assert_eq!(verdict, balancer::Verdict::Reply { source });
}

#[test]
fn a_server_may_wait_at_another_address() {
    let mut session = Session::v4(ForwardMethod::Nat);
    session.says("PASV\r\n");
    let answer = "227 =10,9,9,9,4,1\r\n";
    assert_eq!(
        session.told(901, answer).unwrap(),
        "227 =203,0,113,10,4,1\r\n"
    );
    assert_eq!(session.opens(1025), nat("10.9.9.9:1025"));
}

#[test]
fn extended_passive_mode_works_in_both_families() {
    let mut session = Session::v4(ForwardMethod::Nat);
    session.says("EPSV\r\n");
    assert_eq!(session.told(901, EXTENDED).unwrap(), EXTENDED, "as it was");
    assert_eq!(session.opens(50_000), nat("10.0.0.11:50000"));
    let mut session = Session::v6();
    session.says("EPSV 2\r\n");
    let answer = "229 (|2|fd00::11|50000|)\r\n";
    assert_eq!(session.told(901, answer).unwrap(), "229 (|||50000|)\r\n");
    assert_eq!(session.opens(50_000), nat("[fd00::11]:50000"));
}

#[test]
fn an_active_client_is_reached_by_the_service() {
    for (mut session, command, data, from, to) in [
        (
            Session::v4(ForwardMethod::Nat),
            "PORT 198,51,100,7,195,80\r\n",
            "198.51.100.7:50000",
            "10.0.0.11:20",
            "203.0.113.10:20",
        ),
        (
            Session::v4(ForwardMethod::Nat),
            "EPRT |1|198.51.100.7|50000|\r\n",
            "198.51.100.7:50000",
            "10.0.0.11:20",
            "203.0.113.10:20",
        ),
        (
            Session::v6(),
            "EPRT |2|2001:db8:1::7|50000|\r\n",
            "[2001:db8:1::7]:50000",
            "[fd00::11]:2120",
            "[2001:db8::10]:20",
        ),
    ] {
        session.says(command);
        let sides = (from.parse().unwrap(), data.parse().unwrap());
        let syn = One(1, Vec::new());
        let (verdict, _) = session.pass(balancer::Direction::Outbound, sides, S, syn);
        let source = to.parse().unwrap();
        assert_eq!(verdict, balancer::Verdict::Reply { source }, "{command}");
        let sides = (data.parse().unwrap(), source);
        let answer = One(1, Vec::new());
        let (verdict, _) = session.pass(balancer::Direction::Inbound, sides, S | A, answer);
        assert_eq!(verdict, nat(from), "{command}");
    }
}

#[test]
fn both_streams_move_behind_a_longer_answer() {
    let mut session = Session::v4(ForwardMethod::Nat);
    session.says("PASV\r\n");
    // Three bytes longer: 203,0,113,10 for 10,0,0,11.
    let edit = session.server_sends(A, 901, ANSWER).unwrap();
    assert_eq!(
        edit.sent.sent(901),
        901,
        "the answer itself begins where it did"
    );
    let end = 901 + ANSWER.len() as u32;
    let edit = session.client_sends(A, 107, "").unwrap();
    assert_eq!(edit.received.acknowledged(end + 3), end);
    assert!(edit.replacement.is_none() && !edit.sent.is_moved());
    let edit = session
        .server_sends(A, end, "150 here it comes\r\n")
        .unwrap();
    assert_eq!(edit.sent.sent(end), end + 3);
    assert!(edit.replacement.is_none());
    // What was lost comes again, and is rewritten again.
    let edit = session.server_sends(A, 901, ANSWER).unwrap();
    assert_eq!(edit.sent.sent(901), 901);
    assert!(edit.replacement.is_some());
    // A second answer adds to it.
    let command = session.client_sends(A, 107, "PASV\r\n").unwrap();
    assert!(command.received.is_moved());
    let edit = session.server_sends(A, end + 20, ANSWER).unwrap();
    assert_eq!(edit.sent.sent(end + 20), end + 23);
    let later = end + 20 + ANSWER.len() as u32;
    let edit = session.server_sends(A, later, "").unwrap();
    assert_eq!(edit.sent.sent(later), later + 6);
}

#[test]
fn a_new_connection_of_equal_addresses_begins_anew() {
    let mut session = Session::v4(ForwardMethod::Nat);
    session.says("PASV\r\n");
    assert!(session.server_sends(A, 901, ANSWER).is_some());
    // One that comes again changes nothing.
    assert_eq!(session.client_sends(S, 100, ""), None);
    assert!(session.client_sends(A, 107, "").is_some());
    session.client_sends(R, 107, "");
    session.establish();
    assert_eq!(session.client_sends(A, 101, "NOOP\r\n"), None);
    assert_eq!(session.server_sends(A, 901, "200 ok\r\n"), None);
}

#[test]
fn only_established_rewritten_connections_to_port_21_are_read() {
    let mut session = Session::v4(ForwardMethod::DirectRoute);
    session.says("PASV\r\n");
    session.says("PORT 198,51,100,7,195,80\r\n");
    assert_eq!(session.connections(), 1);

    let mut session = Session::between(
        ForwardMethod::Nat,
        "198.51.100.7:4000",
        "203.0.113.10:2121",
        "10.0.0.11:21",
    );
    session.says("PASV\r\n");
    assert_eq!(session.told(901, ANSWER), None);
    assert_eq!(session.connections(), 1);

    let mut session = Session::v4(ForwardMethod::Nat);
    session.says("PASV\r\n");
    session.client_sends(R, 107, "");
    assert_eq!(session.told(901, ANSWER), None, "it is closed");
    session.says("PORT 198,51,100,7,195,80\r\n");
    assert_eq!(session.connections(), 1);
}

#[test]
fn what_has_ended_is_forgotten() {
    let mut session = Session::v4(ForwardMethod::Nat);
    let before = session.balancer.poll_timeout();
    session.says("PASV\r\n");
    assert!(session.balancer.poll_timeout() <= before);
    session.client_sends(R, 107, "");
    let mut sweeps = 0;
    while let Some(due) = session.balancer.poll_timeout() {
        session.balancer.handle_timeout(due);
        session.now = due;
        sweeps += 1;
        assert!(sweeps < 1000);
    }
    assert_eq!(session.connections(), 0, "and no deadline is left");
}

#[test]
fn memory_is_bounded() {
    let session = Session::v4(ForwardMethod::Nat);
    let mut helper = FtpHelper::default();
    let worker = session.balancer.worker();
    let now = session.now;
    // These have no connection, as if they had all ended.
    for port in 0..MAX_CONTROLS {
        let control = Control {
            client: SocketAddr::new([10, 0, (port >> 8) as u8, port as u8].into(), 1),
            virtual_addr: session.vip,
        };
        helper.controls.insert(control, Progress::default());
    }
    let one_more = Control {
        client: session.client,
        virtual_addr: session.vip,
    };
    assert!(helper.progress(now, worker, one_more).is_some());
    assert_eq!(helper.controls.len(), 1, "the others had ended");
}

//! Any bytes as operations. The fuzz targets run the same functions.

#![allow(clippy::unwrap_used, reason = "a test's helpers")]
#![allow(dead_code, reason = "each target runs one of them")]

use lvs_vrrp::bfd::{BfdConfig, BfdRepr, BfdSession};
use lvs_vrrp::wire::{
    self, Addresses, AdvertPacket, AdvertRepr, AhPacket, AhRepr, ChecksumForm, Endpoints, Format,
    GratuitousArp, Ipv4Packet, Ipv4Repr, UnsolicitedNa,
};
use lvs_vrrp::{
    Command, Config, Datagram, Family, GroupConfig, InterfaceName, Member, Preemption, Priority,
    Received, RouterId, ScriptCommand, ScriptConfig, Setup, State, Task, Tracked, TrackedObject,
    VirtualAddress, Vrid, VrrpRouter,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// Views of the bytes never panic, and what they mean is written as it was read.
pub(crate) fn run_parsers(bytes: &[u8]) {
    let ends = [
        Endpoints::V4 {
            source: Ipv4Addr::new(192, 0, 2, 1),
            destination: wire::GROUP_V4,
        },
        Endpoints::V6 {
            source: "fe80::1".parse().unwrap(),
            destination: wire::GROUP_V6,
        },
    ];
    if let Ok(packet) = AdvertPacket::new(bytes) {
        for ends in ends {
            let trimmed = packet.trimmed(ends.family());
            let _ = trimmed.checksum_form(ends, Some(wire::GROUP_V4));
            let _ = packet.addresses(ends.family()).count();
            let _ = packet.auth_data(ends.family());
            // With a right checksum it can be read.
            let mut right = trimmed.as_bytes().to_vec();
            right[6..8].fill(0);
            let read =
                |bytes: &[u8]| AdvertRepr::parse(&AdvertPacket::new(bytes).unwrap(), ends, None);
            for sum in [0_u16, 0xffff] {
                right[6..8].copy_from_slice(&sum.to_be_bytes());
                if let Ok((repr, form)) = read(&right) {
                    let mut again = vec![0; repr.buffer_len()];
                    repr.emit(&mut again, ends, form, None);
                    assert_eq!(read(&again).unwrap().0, repr);
                }
            }
        }
    }
    if let Ok(packet) = Ipv4Packet::new(bytes) {
        let _ = (packet.header(), packet.payload(), packet.total_len());
        if let Ok(ah) = AhPacket::new(packet.payload()) {
            let _ = wire::icv(
                &[0; 8],
                wire::IcvScope::Unicast,
                packet.header(),
                packet.payload(),
                ah.payload(),
            );
            if let Some(repr) = AhRepr::parse(&ah) {
                let mut again = [0; AhPacket::LEN];
                repr.emit(&mut again);
                assert_eq!(AhRepr::parse(&AhPacket::new(&again).unwrap()), Some(repr));
            }
        }
    }
    if let Some(arp) = GratuitousArp::parse(bytes) {
        assert_eq!(arp.frame(), bytes[..GratuitousArp::LEN]);
    }
    if let Some(na) = UnsolicitedNa::parse(bytes) {
        assert_eq!(na.frame(), bytes[..UnsolicitedNa::LEN]);
    }
    if let Ok(repr) = BfdRepr::parse(bytes) {
        assert_eq!(BfdRepr::parse(&repr.packet()), Ok(repr));
    }
    let now = Instant::now();
    let mut session = BfdSession::new(now, BfdConfig::new(1), 1);
    let _ = session.handle_packet(now, Some(255), bytes);
    session.handle_timeout(now);
    let datagram = Datagram::V4(bytes);
    let _ = (datagram.vrid(), datagram.source(), datagram.destination());
}

/// Bytes, one after the other; zeroes at the end.
struct Bytes<'a>(std::slice::Iter<'a, u8>);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        self.0.next().copied().unwrap_or_default()
    }

    fn below(&mut self, limit: u8) -> u8 {
        self.next() % limit
    }

    fn some(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next()).collect()
    }
}

/// A life of a VRRP router.
pub(crate) fn run_operations(bytes: &[u8]) {
    let mut bytes = Bytes(bytes.iter());
    let mut life = Life::new(&mut bytes);
    while bytes.0.len() > 0 {
        life.step(&mut bytes);
        life.check();
    }
}

struct Life {
    router: VrrpRouter,
    now: Instant,
    running: bool,
    set: BTreeMap<RouterId, BTreeSet<VirtualAddress>>,
    blocked: BTreeSet<RouterId>,
    scripts: u32,
}

impl Life {
    fn new(bytes: &mut Bytes<'_>) -> Self {
        let now = Instant::now();
        let router = VrrpRouter::new(now, setup(bytes)).unwrap();
        let mut life = Self {
            router,
            now,
            running: true,
            set: BTreeMap::new(),
            blocked: BTreeSet::new(),
            scripts: 0,
        };
        life.tell_facts();
        life.router.start(now);
        life
    }

    /// Nothing is broken.
    fn tell_facts(&mut self) {
        for number in 0..3 {
            self.router.handle_link(self.now, &interface(number), true);
        }
        self.router.handle_bfd(self.now, "peer", true);
        self.router.handle_file(self.now, "tf", 0);
        let ids: Vec<_> = self.router.virtual_routers().map(|(id, _)| id).collect();
        for id in ids {
            let source = Some(IpAddr::from([192, 0, 2, 3]));
            self.router.handle_source(self.now, id, source);
        }
    }

    fn step(&mut self, bytes: &mut Bytes<'_>) {
        let now = self.now;
        let ids: Vec<_> = self.router.virtual_routers().map(|(id, _)| id).collect();
        let id = (!ids.is_empty()).then(|| ids[usize::from(bytes.next()) % ids.len()]);
        match bytes.below(24) {
            0 => self.now += Duration::from_millis(u64::from(bytes.next()) * 40),
            1..=3 | 18..=21 => {
                if let Some(due) = self.router.poll_timeout() {
                    let late = Duration::from_millis(u64::from(bytes.below(8)).pow(4));
                    self.now = self.now.max(due) + late;
                }
                self.timeout();
            }
            4..=8 => self.packet(bytes),
            9 => {
                let name = interface(bytes.below(3));
                self.router.handle_link(now, &name, bytes.below(3) > 0);
            }
            10 | 23 => {
                let success = bytes.below(4) > 0;
                self.scripts = self.scripts.saturating_sub(1);
                self.router.handle_script_exit(now, "chk", success);
            }
            11 => {
                let number = i32::from(bytes.next()) - 128;
                self.router.handle_file(now, "tf", number * 3);
            }
            12 => {
                let source = (bytes.below(6) > 0).then(|| match bytes.below(5) {
                    0 => IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 1]),
                    last => IpAddr::from([192, 0, 2, last]),
                });
                if let Some(id) = id {
                    self.router.handle_source(now, id, source);
                }
            }
            13 => {
                let setup = setup(bytes);
                self.router.reload(now, setup).unwrap();
                if bytes.below(4) > 0 {
                    self.tell_facts();
                }
            }
            22 => self.tell_facts(),
            14 => self.router.set_preempt_gate(now, bytes.next() & 1 == 1),
            15 => {
                if !self.running {
                    self.router.start(now);
                    self.running = true;
                } else if bytes.below(4) == 0 {
                    self.router.shutdown(now);
                    self.running = false;
                }
            }
            16 => {
                let address = address(bytes.below(3), 0);
                self.router.handle_address_removed(now, &address);
                if let Some(id) = id {
                    self.router.handle_route_removed(now, id);
                }
            }
            _ => {
                self.router.handle_bfd(now, "peer", bytes.next() & 1 == 1);
                self.router
                    .handle_process_count(now, "web", bytes.next().into());
            }
        }
    }

    fn timeout(&mut self) {
        self.router.handle_timeout(self.now);
        let next = self.router.poll_timeout();
        assert!(
            next.is_none_or(|next| next > self.now),
            "deadlines move forward"
        );
    }

    /// Mostly advertisements that could be right.
    fn packet(&mut self, bytes: &mut Bytes<'_>) {
        let vrid = bytes.below(3);
        let name = interface(vrid);
        let source = Ipv4Addr::new(192, 0, 2, bytes.below(6));
        let repr = AdvertRepr {
            vrid: Vrid::new(vrid + 1).unwrap(),
            priority: bytes.next(),
            addresses: Addresses::new(
                Family::V4,
                (0..bytes.below(3)).map(|each| address(vrid, each).address),
            )
            .unwrap(),
            format: match bytes.below(3) {
                0 => Format::V3 {
                    max_advert_interval: u16::from(bytes.next()) * 16,
                },
                _ => Format::V2 {
                    interval_secs: 1,
                    auth_type: 0,
                    auth_data: [0; 8],
                },
            },
        };
        let ends = Endpoints::V4 {
            source,
            destination: wire::GROUP_V4,
        };
        let mut packet = vec![0; 20 + repr.buffer_len()];
        Ipv4Repr {
            source,
            destination: wire::GROUP_V4,
            protocol: wire::PROTOCOL_VRRP,
            ttl: 255,
            identification: 1,
            payload_len: repr.buffer_len(),
        }
        .emit(&mut packet);
        repr.emit(&mut packet[20..], ends, ChecksumForm::PseudoHeader, None);
        match bytes.below(12) {
            0 => packet = bytes.some(40),
            1 => packet.truncate(usize::from(bytes.next())),
            2 => {
                let at = usize::from(bytes.next()) % packet.len();
                packet[at] ^= bytes.next();
            }
            _ => {}
        }
        let age = Duration::from_millis(u64::from(bytes.below(4)) * 700);
        let received = Received {
            arrived: self.now.checked_sub(age).unwrap_or(self.now),
            datagram: Datagram::V4(&packet),
        };
        let _ = self.router.handle_packet(self.now, &name, &received);
    }

    /// Drains, and compares the shell's side with the machine's.
    fn check(&mut self) {
        let mut buffer = Vec::new();
        while let Some((_, transmit)) = self.router.poll_transmit(&mut buffer) {
            let ip = Ipv4Packet::new(&buffer).unwrap();
            assert_eq!(ip.total_len(), buffer.len());
            let ends = Endpoints::new(transmit.source, transmit.destination).unwrap();
            AdvertRepr::parse(&AdvertPacket::new(ip.payload()).unwrap(), ends, None).unwrap();
        }
        let mut announced = 0;
        while let Some(task) = self.router.poll_command() {
            match task {
                Task::Script {
                    command: ScriptCommand::Run,
                    ..
                } => {
                    self.scripts += 1;
                    assert!(self.scripts <= 2, "one run at a time");
                }
                Task::Router { router, command } => match command {
                    Command::AddAddresses(addresses) => {
                        self.set.entry(router).or_default().extend(addresses);
                    }
                    Command::RemoveAddresses(addresses) => {
                        let set = self.set.entry(router).or_default();
                        set.retain(|each| !addresses.contains(each));
                    }
                    Command::SetAcceptMode { accept: true, .. } => {
                        self.blocked.remove(&router);
                    }
                    Command::SetAcceptMode { accept: false, .. } => {
                        self.blocked.insert(router);
                    }
                    Command::Announce(announcement) => {
                        announced += 1;
                        assert!(announced < 1000);
                        let set = self.set.entry(router).or_default();
                        assert!(
                            set.iter().any(|each| each.address == announcement.address),
                            "only what is set is announced"
                        );
                    }
                    _ => {}
                },
                _ => {}
            }
        }
        while let Some(notice) = self.router.poll_event() {
            let _ = format!("{notice:?}");
        }
        for (id, router) in self.router.virtual_routers() {
            let wanted: BTreeSet<_> = match router.state() {
                State::Active => {
                    let config = router.config();
                    let all = config.addresses.iter().chain(&config.excluded);
                    all.cloned().collect()
                }
                _ => BTreeSet::new(),
            };
            let set = self.set.get(&id).cloned().unwrap_or_default();
            assert_eq!(set, wanted, "{:?}", router.state());
            let blocks = router.state() == State::Active && !router.config().accept;
            assert_eq!(self.blocked.contains(&id), blocks, "{:?}", router.state());
            let timed = matches!(router.state(), State::Backup | State::Active);
            assert_eq!(router.poll_timeout().is_some(), timed);
            let faulty = router.faults().next().is_some();
            assert!(!faulty || !timed, "{:?} with a fault", router.state());
        }
        for id in self.router.groups() {
            let group = self.router.group(id).unwrap();
            let state = |id: &RouterId| self.router.virtual_router(*id).unwrap().state();
            let active = group.members.iter().filter(|id| state(id) == State::Active);
            let active = active.count();
            assert!(active == 0 || active == group.members.len(), "all or none");
        }
    }
}

fn interface(number: u8) -> InterfaceName {
    format!("e{number}").as_str().into()
}

fn address(router: u8, last: u8) -> VirtualAddress {
    VirtualAddress {
        address: Ipv4Addr::new(198, 51, router, last).into(),
        interface: interface(router),
    }
}

/// Up to three routers with whatever settings, perhaps in a group.
fn setup(bytes: &mut Bytes<'_>) -> Setup {
    let count = bytes.below(4);
    let mut setup = Setup {
        scripts: vec![ScriptConfig::new("chk")],
        ..Setup::default()
    };
    if bytes.below(4) == 0 {
        setup.pacing.arp = Duration::from_millis(30);
    }
    for number in 0..count {
        let vrid = Vrid::new(number + 1).unwrap();
        let mut config = Config::new(vrid, Family::V4, interface(number).as_str());
        config.priority = match bytes.below(6) {
            0 => Priority::OWNER,
            _ => Priority::new(bytes.next().max(1)).unwrap(),
        };
        config.addresses = (0..bytes.below(3))
            .map(|each| address(number, each))
            .collect();
        config.accept = bytes.below(2) == 0;
        config.restore_removed = bytes.below(2) == 0;
        config.preemption = match bytes.below(3) {
            0 => Preemption::Off,
            1 => Preemption::After(Duration::from_millis(u64::from(bytes.next()) * 20)),
            _ => Preemption::Immediate,
        };
        if bytes.below(5) == 0 {
            config.version = lvs_vrrp::Version::V3;
        }
        let mut member = Member::new(&format!("VI_{number}"), config);
        let objects = [
            TrackedObject::Script("chk".into()),
            TrackedObject::File("tf".into()),
            TrackedObject::Bfd("peer".into()),
            TrackedObject::Interface(interface(2)),
        ];
        for object in objects {
            if bytes.below(4) == 0 {
                let weight = i16::from(bytes.next()) - 128;
                member.track.push(Tracked {
                    object,
                    weight: if bytes.below(2) == 0 { 0 } else { weight },
                    reverse: bytes.below(4) == 0,
                });
            }
        }
        setup.virtual_routers.push(member);
    }
    if bytes.below(2) == 0 && count > 0 {
        setup.groups.push(GroupConfig {
            name: "G".into(),
            members: (0..count)
                .map(|number| format!("VI_{number}").into())
                .collect(),
            track: Vec::new(),
            member_weights: bytes.below(2) == 0,
        });
    }
    setup
}

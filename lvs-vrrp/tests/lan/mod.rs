//! Hosts on a simulated LAN, each with a VRRP router: what a shell does, without a kernel.

#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, reason = "a test's helpers")]

use lvs_vrrp::wire::{self, GratuitousArp, MacAddress, UnsolicitedNa};
use lvs_vrrp::{
    Command, Datagram, Discard, Event, Family, InterfaceName, Notice, Received, RouterId,
    ScriptCommand, Setup, State, StateChange, Task, VirtualAddress, VrrpRouter, select_source,
};
use sim::{Lan, Network, Node, Port};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

/// A network interface of a host.
#[derive(Debug)]
pub(crate) struct Interface {
    pub(crate) name: InterfaceName,
    pub(crate) port: Port,
    pub(crate) mac: MacAddress,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) up: bool,
}

/// A machine with its kernel's addresses and, while it runs, a VRRP process.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: char,
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) router: Option<VrrpRouter>,
    /// Addresses that the process has set. They stay when it dies.
    pub(crate) set: BTreeSet<VirtualAddress>,
    pub(crate) files: BTreeMap<String, i32>,
    pub(crate) scripts_fail: bool,
    pub(crate) forwarding: bool,
    pub(crate) log: Vec<Logged>,
    pub(crate) discards: Vec<Discard>,
    /// Not run until then; what arrives waits in the socket.
    frozen: Option<Instant>,
    socket: Vec<(Instant, Port, Vec<u8>)>,
    outbox: VecDeque<(Port, Vec<u8>)>,
    script_ends: Vec<(Instant, String, bool)>,
    now: Instant,
}

/// What a virtual router or a group said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Logged {
    pub(crate) at: Instant,
    pub(crate) name: String,
    pub(crate) change: StateChange,
}

impl Host {
    /// A host whose interfaces `e0`, `e1` ... are on these LANs, with the addresses of the recordings: host `a` is 192.0.2.11
    /// on LAN 0 and 198.51.100.11 on LAN 1.
    pub(crate) fn new(network: &mut Network, name: char, lans: &[Lan]) -> Self {
        let number = 11 + (name as u8 - b'a');
        let low = 0x11 + (name as u8 - b'a');
        let interfaces = lans
            .iter()
            .enumerate()
            .map(|(at, lan)| {
                let at = u8::try_from(at).unwrap();
                let net = [[192, 0, 2], [198, 51, 100]][usize::from(at)];
                let link_local = Ipv6Addr::new(
                    0xfe80,
                    0,
                    0,
                    0,
                    0,
                    0xff,
                    0xfe00,
                    u16::from(at) << 8 | u16::from(low),
                );
                Interface {
                    name: format!("e{at}").as_str().into(),
                    port: network.attach(*lan),
                    mac: MacAddress([2, 0, 0, 0, at, low]),
                    addresses: vec![
                        Ipv4Addr::new(net[0], net[1], net[2], number).into(),
                        link_local.into(),
                    ],
                    up: true,
                }
            })
            .collect();
        Self {
            name,
            interfaces,
            router: None,
            set: BTreeSet::new(),
            files: BTreeMap::new(),
            scripts_fail: false,
            forwarding: false,
            log: Vec::new(),
            discards: Vec::new(),
            frozen: None,
            socket: Vec::new(),
            outbox: VecDeque::new(),
            script_ends: Vec::new(),
            now: network.now(),
        }
    }

    pub(crate) fn start(&mut self, now: Instant, setup: Setup) {
        self.now = now;
        self.frozen = None;
        self.socket.clear();
        self.router = Some(VrrpRouter::new(now, setup).unwrap());
        self.tell_facts();
        self.router.as_mut().unwrap().start(now);
        self.drain();
    }

    /// Links, files, and source addresses.
    fn tell_facts(&mut self) {
        let now = self.now;
        let Some(router) = &mut self.router else {
            return;
        };
        for interface in &self.interfaces {
            router.handle_link(now, &interface.name, interface.up);
        }
        for (name, number) in &self.files {
            router.handle_file(now, name, *number);
        }
        let sources: Vec<(RouterId, Option<IpAddr>)> = router
            .virtual_routers()
            .map(|(id, router)| {
                let config = router.config();
                let interface = self
                    .interfaces
                    .iter()
                    .find(|interface| interface.name == config.interface)
                    .unwrap();
                let addresses = interface.addresses.iter().copied();
                (id, select_source(config, addresses))
            })
            .collect();
        for (id, source) in sources {
            router.handle_source(now, id, source);
        }
    }

    pub(crate) fn stop(&mut self, now: Instant) {
        self.now = now;
        if let Some(router) = &mut self.router {
            router.shutdown(now);
        }
        self.drain();
        self.router = None;
    }

    /// The process is gone; addresses stay.
    pub(crate) fn crash(&mut self) {
        self.router = None;
        self.script_ends.clear();
    }

    pub(crate) fn reload(&mut self, now: Instant, setup: Setup) {
        self.now = now;
        if let Some(router) = &mut self.router {
            router.reload(now, setup).unwrap();
        }
        self.tell_facts();
        self.drain();
    }

    /// The process is not run for a while.
    pub(crate) fn freeze(&mut self, until: Instant) {
        self.frozen = Some(until);
    }

    pub(crate) const fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    pub(crate) fn set_link(&mut self, now: Instant, network: &mut Network, name: &str, up: bool) {
        self.now = now;
        let interface = self
            .interfaces
            .iter_mut()
            .find(|interface| interface.name.as_str() == name)
            .unwrap();
        interface.up = up;
        let (port, name) = (interface.port, interface.name.clone());
        if up {
            network.set_link(port, true);
        }
        if let Some(router) = &mut self.router {
            router.handle_link(now, &name, up);
        }
        self.drain();
        if !up {
            network.set_link(port, false);
        }
    }

    pub(crate) fn set_file(&mut self, now: Instant, name: &str, number: i32) {
        self.now = now;
        self.files.insert(name.to_owned(), number);
        if let Some(router) = &mut self.router {
            router.handle_file(now, name, number);
        }
        self.drain();
    }

    pub(crate) fn remove_address(&mut self, now: Instant, address: &VirtualAddress) {
        self.now = now;
        self.set.remove(address);
        if let Some(router) = &mut self.router {
            router.handle_address_removed(now, address);
        }
        self.drain();
    }

    pub(crate) fn state(&self, name: &str) -> Option<State> {
        let router = self.router.as_ref()?;
        let id = router.by_name(name)?;
        Some(router.virtual_router(id)?.state())
    }

    /// Does everything that the machine asks for.
    fn drain(&mut self) {
        let now = self.now;
        let Some(router) = &mut self.router else {
            return;
        };
        let mut buffer = Vec::new();
        while let Some((id, transmit)) = router.poll_transmit(&mut buffer) {
            let config = router.virtual_router(id).unwrap().config();
            let interface = self
                .interfaces
                .iter()
                .find(|interface| interface.name == config.interface)
                .unwrap();
            let frame = frame(interface.mac, &transmit, &buffer);
            self.outbox.push_back((interface.port, frame));
        }
        while let Some(task) = router.poll_command() {
            match task {
                Task::Router { command, .. } => match command {
                    Command::AddAddresses(addresses) => self.set.extend(addresses),
                    Command::RemoveAddresses(addresses) => {
                        self.set.retain(|each| !addresses.contains(each));
                    }
                    Command::Announce(announcement) => {
                        let interface = self
                            .interfaces
                            .iter()
                            .find(|interface| interface.name == announcement.interface)
                            .unwrap();
                        let mac = interface.mac;
                        let frame = match announcement.address {
                            IpAddr::V4(address) => GratuitousArp { mac, address }.frame().to_vec(),
                            IpAddr::V6(address) => UnsolicitedNa {
                                mac,
                                address,
                                router: self.forwarding,
                            }
                            .frame()
                            .to_vec(),
                        };
                        self.outbox.push_back((interface.port, frame));
                    }
                    _ => {}
                },
                Task::Script {
                    name,
                    command: ScriptCommand::Run,
                } => {
                    let end = now + Duration::from_millis(5);
                    self.script_ends
                        .push((end, name.to_string(), !self.scripts_fail));
                }
                _ => {}
            }
        }
        while let Some(notice) = router.poll_event() {
            if let Notice::Router {
                name,
                event: Event::StateChanged(change),
                ..
            } = notice
            {
                self.log.push(Logged {
                    at: now,
                    name: name.to_string(),
                    change,
                });
            }
        }
    }

    /// The kernel's part: is the frame for a VRRP socket of this host?
    fn read(&mut self, arrived: Instant, port: Port, frame: &[u8]) {
        let now = self.now;
        let Some(interface) = self
            .interfaces
            .iter()
            .find(|interface| interface.port == port)
        else {
            return;
        };
        let datagram = match frame[12..14] {
            [0x08, 0x00] => {
                let length = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
                if !matches!(frame[23], wire::PROTOCOL_VRRP | wire::PROTOCOL_AH) {
                    return;
                }
                Datagram::V4(&frame[14..(14 + length).min(frame.len())])
            }
            [0x86, 0xdd] if frame[20] == wire::PROTOCOL_VRRP => {
                let address =
                    |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).unwrap());
                Datagram::V6 {
                    source: address(22),
                    destination: address(38),
                    hop_limit: Some(frame[21]),
                    payload: &frame[54..],
                }
            }
            _ => return,
        };
        let Some(router) = &mut self.router else {
            return;
        };
        // A multicast socket is bound to its group, and a source that is our own is no source.
        let own = |address: Option<IpAddr>| {
            address.is_some_and(|address| interface.addresses.contains(&address))
        };
        let unicast = own(datagram.destination());
        let listens = router.virtual_routers().any(|(_, router)| {
            let config = router.config();
            config.interface == interface.name && config.reach.is_multicast() != unicast
        });
        if own(datagram.source()) || !listens {
            return;
        }
        let name = interface.name.clone();
        let received = Received { arrived, datagram };
        if let Err(discard) = router.handle_packet(now, &name, &received) {
            self.discards.push(discard);
        }
        self.drain();
    }

    fn thaw(&mut self, now: Instant) {
        if self.frozen.is_some_and(|until| until <= now) {
            self.frozen = None;
            for (arrived, port, frame) in std::mem::take(&mut self.socket) {
                self.read(arrived, port, &frame);
            }
        }
    }
}

impl Node for Host {
    fn handle_frame(&mut self, now: Instant, port: Port, frame: &[u8]) {
        if !self
            .interfaces
            .iter()
            .any(|interface| interface.port == port)
        {
            return;
        }
        self.now = now;
        self.thaw(now);
        if self.frozen.is_some() {
            if self.socket.len() < 200 {
                self.socket.push((now, port, frame.to_vec()));
            }
        } else {
            self.read(now, port, frame);
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.thaw(now);
        if self.frozen.is_some() {
            return;
        }
        let (ended, left) = std::mem::take(&mut self.script_ends)
            .into_iter()
            .partition(|(end, ..)| *end <= now);
        self.script_ends = left;
        let Some(router) = &mut self.router else {
            return;
        };
        for (_, name, success) in ended {
            router.handle_script_exit(now, &name, success);
        }
        router.handle_timeout(now);
        self.drain();
    }

    fn poll_frame(&mut self) -> Option<(Port, Vec<u8>)> {
        self.outbox.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.frozen.is_some() {
            return self.frozen;
        }
        let scripts = self.script_ends.iter().map(|(end, ..)| *end).min();
        let router = self.router.as_ref().and_then(VrrpRouter::poll_timeout);
        [scripts, router].into_iter().flatten().min()
    }
}

/// An Ethernet frame around what the machine wrote.
fn frame(mac: MacAddress, transmit: &lvs_vrrp::Transmit, bytes: &[u8]) -> Vec<u8> {
    let to = MacAddress::of_group(transmit.destination).unwrap_or(MacAddress::BROADCAST);
    let mut frame = Vec::new();
    frame.extend(to.0);
    frame.extend(mac.0);
    match (transmit.source, transmit.destination) {
        (IpAddr::V4(_), _) => {
            frame.extend([0x08, 0x00]);
            frame.extend(bytes);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend([0x86, 0xdd, 0x6c, 0, 0, 0]);
            frame.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
            frame.extend([transmit.protocol, transmit.hop_limit.unwrap_or(64)]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
            frame.extend(bytes);
        }
        (IpAddr::V6(_), IpAddr::V4(_)) => panic!("families differ"),
    }
    frame
}

/// Somebody who only listens.
#[derive(Debug)]
pub(crate) struct Tap {
    pub(crate) port: Port,
    pub(crate) frames: Vec<(Instant, Vec<u8>)>,
}

/// What is on the LAN.
#[derive(Debug)]
pub(crate) enum Station {
    Host(Box<Host>),
    Tap(Tap),
}

impl Station {
    pub(crate) fn host(&mut self) -> Option<&mut Host> {
        match self {
            Self::Host(host) => Some(&mut **host),
            Self::Tap(_) => None,
        }
    }
}

impl Node for Station {
    fn handle_frame(&mut self, now: Instant, port: Port, frame: &[u8]) {
        match self {
            Self::Host(host) => host.handle_frame(now, port, frame),
            Self::Tap(tap) if tap.port == port => tap.frames.push((now, frame.to_vec())),
            Self::Tap(_) => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Self::Host(host) = self {
            host.handle_timeout(now);
        }
    }

    fn poll_frame(&mut self) -> Option<(Port, Vec<u8>)> {
        self.host().and_then(Host::poll_frame)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Host(host) => host.poll_timeout(),
            Self::Tap(_) => None,
        }
    }
}

/// The family of a test's addresses.
pub(crate) fn family_of(addresses: &[IpAddr]) -> Family {
    addresses
        .first()
        .map_or(Family::V4, |address| Family::of(*address))
}

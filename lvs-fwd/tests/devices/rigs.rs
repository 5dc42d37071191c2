//! Every device with the other end of its cable.

use std::error::Error;
use std::net::{IpAddr, UdpSocket};

use lvs_fwd::device::Device;
use lvs_fwd::device::fault::{Fault, Faults};
use lvs_fwd::device::memory::{Memory, Peer};
use lvs_fwd::device::raw::Raw;
use lvs_fwd::device::ring::{Fanout, Ring, RingConfig};
use lvs_fwd::device::trace::Trace;
use lvs_fwd::frame::Frame;
use lvs_fwd::netlink::{Address, KernelRoute, Netlink};
use lvs_fwd::route::{NextHop, Prefix};
use lvs_fwd::tun::Tun;
use lvs_fwd::view::{ClaimSet, Endpoint};

use super::support::veth;

/// A kind of device, and how it is opened for so many workers.
pub(crate) type Rig = (&'static str, fn(u32) -> Outcome);

/// The devices, or why there are none here.
pub(crate) type Outcome = Result<Subject, Box<dyn Error>>;

/// Devices of several workers at one interface, and who is at its other end.
pub(crate) struct Subject {
    pub(crate) devices: Vec<Box<dyn Device>>,
    pub(crate) wire: Box<dyn Wire>,
    /// Hardware addresses of the interface and of the other end.
    pub(crate) near: [u8; 6],
    pub(crate) far: [u8; 6],
    /// Index of an interface that can be removed.
    pub(crate) ifindex: Option<u32>,
    /// What lives as long as the devices.
    _held: Box<dyn std::any::Any>,
}

/// The other end of the cable, which is known to do what it should.
pub(crate) trait Wire {
    fn send(&mut self, frame: Frame);
    fn receive(&mut self) -> Vec<Frame>;
}

pub(crate) const VIP: [u8; 4] = [192, 0, 2, 10];
pub(crate) const RIP: [u8; 4] = [10, 0, 0, 11];
pub(crate) const SERVICE_PORT: u16 = 53;

pub(crate) fn all() -> Vec<Rig> {
    vec![
        ("memory", memory),
        ("traced_memory", traced),
        ("faultless_memory", faultless),
        ("ring", ring),
        ("tun", tun),
        ("raw", raw),
        #[cfg(feature = "af-xdp")]
        ("xdp", xdp),
        #[cfg(feature = "pnet")]
        ("pnet", pnet),
    ]
}

/// What every test sends, both ways.
pub(crate) fn claims() -> ClaimSet {
    let mut claims = ClaimSet::new();
    for protocol in [6, 17] {
        claims.insert_service(Endpoint {
            protocol,
            addr: VIP.into(),
            port: SERVICE_PORT,
        });
        claims.insert_server(Endpoint {
            protocol,
            addr: RIP.into(),
            port: SERVICE_PORT,
        });
    }
    claims
}

fn memory(workers: u32) -> Outcome {
    let (devices, peers): (Vec<_>, Vec<_>) = (0..workers).map(|_| Memory::new(1024)).unzip();
    Ok(Subject {
        devices: devices.into_iter().map(|it| Box::new(it) as _).collect(),
        wire: Box::new(peers),
        near: [2, 0, 0, 0, 0, 1],
        far: [2, 0, 0, 0, 0, 2],
        ifindex: None,
        _held: Box::new(()),
    })
}

fn traced(workers: u32) -> Outcome {
    let mut subject = memory(workers)?;
    subject.devices = std::mem::take(&mut subject.devices)
        .into_iter()
        .map(|device| Box::new(Trace::new(device, |line| drop(line.to_string()))) as _)
        .collect();
    Ok(subject)
}

fn faultless(workers: u32) -> Outcome {
    let mut subject = memory(workers)?;
    subject.devices = std::mem::take(&mut subject.devices)
        .into_iter()
        .map(|device| Box::new(Fault::new(device, Faults::default(), || 0)) as _)
        .collect();
    Ok(subject)
}

impl Wire for Vec<Peer> {
    fn send(&mut self, frame: Frame) {
        self[0].send(frame).unwrap();
    }

    fn receive(&mut self) -> Vec<Frame> {
        self.iter()
            .flat_map(|peer| std::iter::from_fn(|| peer.receive()))
            .collect()
    }
}

fn ring(workers: u32) -> Outcome {
    let (near, far) = veth("near", "far")?;
    let fanout = (workers > 1).then(|| Fanout {
        group: 78,
        workers,
        vips: vec![IpAddr::from(VIP)],
    });
    let config = RingConfig {
        fanout,
        ..RingConfig::new(near.ifindex)
    };
    let rings: std::io::Result<Vec<_>> = (0..workers).map(|_| Ring::open(&config)).collect();
    Ok(Subject {
        devices: rings?.into_iter().map(|it| Box::new(it) as _).collect(),
        wire: Box::new(Ring::open(&RingConfig::new(far.ifindex))?),
        near: near.mac,
        far: far.mac,
        ifindex: Some(near.ifindex),
        _held: Box::new(()),
    })
}

impl Wire for Ring {
    fn send(&mut self, frame: Frame) {
        self.transmit(frame);
        self.flush().unwrap();
        assert_eq!(self.counters().refused + self.counters().too_long, 0);
    }

    fn receive(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        // After the interface is gone there is nothing to see.
        let _ = Device::receive(self, &mut frames, 1024);
        frames
    }
}

/// What the host sends into the device and gets out of it, as a packet socket sees it.
fn tun(workers: u32) -> Outcome {
    if workers > 1 {
        return Err("there is one way to the host".into());
    }
    let tun = Tun::open()?;
    let ifindex = tun.ifindex();
    Ok(Subject {
        devices: vec![Box::new(tun)],
        wire: Box::new(Ring::open(&RingConfig::new(ifindex))?),
        near: [0; 6],
        far: [0; 6],
        ifindex: Some(ifindex),
        _held: Box::new(()),
    })
}

/// The host sends by the TUN device what raw sockets give it, and has from there what they see.
fn raw(workers: u32) -> Outcome {
    if workers > 1 {
        return Err("it is no port".into());
    }
    let tun = Tun::open()?;
    let ifindex = tun.ifindex();
    let mut netlink = Netlink::open()?;
    netlink.add_address(&Address::new(ifindex, VIP.into(), 32))?;
    let clients = Prefix::new([203, 0, 113, 0].into(), 24);
    netlink.add_route(&KernelRoute::new(clients, NextHop::OnLink, ifindex))?;
    // So that the host does not answer.
    let listener = UdpSocket::bind((IpAddr::from(VIP), SERVICE_PORT))?;
    Ok(Subject {
        devices: vec![Box::new(Raw::open(Some(17))?)],
        wire: Box::new(tun),
        near: [0; 6],
        far: [0; 6],
        // That another interface is gone is nothing to them.
        ifindex: None,
        _held: Box::new(listener),
    })
}

impl Wire for Tun {
    fn send(&mut self, frame: Frame) {
        self.transmit(frame);
        self.flush().unwrap();
    }

    fn receive(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        let _ = Device::receive(self, &mut frames, 1024);
        frames
    }
}

#[cfg(feature = "pnet")]
fn pnet(workers: u32) -> Outcome {
    use lvs_fwd::device::pnet::{Pnet, PnetConfig};

    let (near, far) = veth("near", "far")?;
    let config = PnetConfig {
        ifindex: near.ifindex,
        name: "near".to_owned(),
        mac: near.mac,
        mtu: 1500,
        group: (workers > 1).then_some(79),
        queue: 1024,
    };
    let devices: std::io::Result<Vec<_>> = (0..workers).map(|_| Pnet::open(&config)).collect();
    Ok(Subject {
        devices: devices?.into_iter().map(|it| Box::new(it) as _).collect(),
        wire: Box::new(Ring::open(&RingConfig::new(far.ifindex))?),
        near: near.mac,
        far: far.mac,
        ifindex: Some(near.ifindex),
        _held: Box::new(()),
    })
}

#[cfg(feature = "af-xdp")]
fn xdp(workers: u32) -> Outcome {
    use lvs_fwd::device::xdp::{self, PacketMemory, XdpClaim, XdpConfig};

    let (near, far) = veth("near", "far")?;
    let mut claim = XdpClaim::new()?;
    claim.replace(&claims())?;
    let memories: Result<Vec<_>, _> = (0..workers)
        .map(|_| PacketMemory::new(1500, 4096))
        .collect();
    let config = XdpConfig::new(near.ifindex, near.mac, 1500);
    let opened = xdp::open(&config, &claim, &memories?)?;
    assert!(opened.in_driver && opened.queues == 1 && !opened.zero_copy);
    Ok(Subject {
        devices: opened
            .devices
            .into_iter()
            .map(|it| Box::new(it) as _)
            .collect(),
        wire: Box::new(Ring::open(&RingConfig::new(far.ifindex))?),
        near: near.mac,
        far: far.mac,
        ifindex: Some(near.ifindex),
        _held: Box::new(claim),
    })
}

impl Subject {
    /// Takes the interface away, if there is one.
    pub(crate) fn unplug(&mut self) -> bool {
        let Some(ifindex) = self.ifindex.take() else {
            return false;
        };
        let mut netlink = Netlink::open().unwrap();
        // Some go with their device.
        netlink.delete_link(ifindex).is_ok()
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        self.devices.clear();
        self.unplug();
    }
}

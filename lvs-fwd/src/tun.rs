//! The way back to the host: a TUN device through which the host gets packets that are its own after all.
//!
//! The [claim](crate::claim) takes every packet of a virtual service. Some belong to the host: those for a
//! real server that runs on the director itself, and those that turn out not to concern the balancer.
//! [`Tun`] is a [`Device`] whose frames are IP packets without a link header; what is sent on it arrives at
//! the host as if from a network, and what the host sends into it is received.
//!
//! [`LocalReplies`] brings the replies of local real servers to the TUN device: policy rules by source
//! address, protocol and port.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::device::{Capabilities, Device, DeviceCounters, is_gone, virtio};
use crate::frame::Frame;
use crate::netlink::{KernelRoute, MARK, Netlink, NetlinkError, Rule};
use crate::route::{NextHop, Prefix};
use crate::view::Endpoint;

/// The TUN device of a namespace. It vanishes with this value or the process.
#[derive(Debug)]
pub struct Tun {
    device: OwnedFd,
    name: String,
    ifindex: u32,
    queue: VecDeque<Frame>,
    buffer: Vec<u8>,
    counters: DeviceCounters,
}

impl Tun {
    /// Creates the device `lvs0` (or the next free number) in the calling thread's network namespace, takes
    /// it up, and switches off reverse path filtering at it: packets of all clients come in here, wherever
    /// the routes to them lead.
    ///
    /// # Errors
    ///
    /// What the system refused.
    pub fn open() -> Result<Self, TunError> {
        let (device, name) = crate::sys::tun::open("lvs0")
            .or_else(|error| match error.raw_os_error() {
                // The name is taken by another TUN device, or by a link of another kind.
                Some(libc::EBUSY | libc::EINVAL | libc::EEXIST) => crate::sys::tun::open("lvs%d"),
                _ => Err(error),
            })
            .map_err(TunError::Open)?;
        let mut netlink = Netlink::open()?;
        let ifindex = netlink.link_by_name(&name)?.index;
        // Where /proc/sys is read-only the values in force may do anyway; `is_filtered` tells.
        let _ = fs::write(setting("ipv4", &name, "rp_filter"), "0");
        let _ = fs::write(setting("ipv4", &name, "accept_local"), "1");
        // No link-local address: nobody is out there to be solicited.
        let _ = fs::write(setting("ipv6", &name, "addr_gen_mode"), "1");
        netlink.set_up(ifindex, true)?;
        Ok(Self {
            device,
            name,
            ifindex,
            queue: VecDeque::new(),
            buffer: vec![0; virtio::LEN + MAX_PACKET],
            counters: DeviceCounters::default(),
        })
    }

    /// Name of the device.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kernel's number for it.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Whether the host would discard what is sent to it here, because strict reverse path filtering is in
    /// force in the calling thread's network namespace: the higher of the device's own value and that of
    /// `net.ipv4.conf.all.rp_filter` counts, and the latter is the operator's to change (0 or 2).
    pub fn is_filtered(&self) -> bool {
        let value = |name: &str| {
            fs::read_to_string(setting("ipv4", name, "rp_filter"))
                .ok()
                .and_then(|text| text.trim().parse::<u8>().ok())
                .unwrap_or(0)
        };
        value("all").max(value(&self.name)) == 1
    }

    fn write(&self, frame: &Frame) -> io::Result<()> {
        let header = virtio::encode(&frame.meta);
        let parts = [IoSlice::new(&header), IoSlice::new(frame.bytes())];
        loop {
            match rustix::io::writev(&self.device, &parts) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Device for Tun {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            link_header: false,
            offloads: true,
            exclusive: true,
            steering: false,
            longest: MAX_PACKET,
        }
    }

    fn receive(&mut self, frames: &mut Vec<Frame>, limit: usize) -> io::Result<usize> {
        let mut count = 0;
        while count < limit {
            let length = match rustix::io::read(&self.device, &mut self.buffer[..]) {
                Ok(length) => length,
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let Some((header, packet)) = self.buffer[..length].split_first_chunk() else {
                self.counters.malformed += 1;
                continue;
            };
            let Some((checksum, gso)) = virtio::decode(header) else {
                self.counters.malformed += 1;
                continue;
            };
            let mut frame = Frame::from_bytes(packet);
            frame.meta.checksum = checksum;
            frame.meta.gso = gso;
            frames.push(frame);
            self.counters.received += 1;
            count += 1;
        }
        Ok(count)
    }

    fn transmit(&mut self, frame: Frame) {
        if frame.len() > MAX_PACKET {
            self.counters.too_long += 1;
        } else if self.queue.len() >= QUEUE {
            self.counters.no_buffers += 1;
        } else {
            self.queue.push_back(frame);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while let Some(frame) = self.queue.front() {
            match self.write(frame) {
                Ok(()) => self.counters.transmitted += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Somebody has removed the device.
                Err(error) if is_gone(&error) => {
                    self.counters.refused += self.queue.len() as u64;
                    self.queue.clear();
                    return Err(error);
                }
                Err(error) => self.counters.count_refusal(&error),
            }
            self.queue.pop_front();
        }
        // What waits must not keep slots of the rings that it came from.
        for frame in &mut self.queue {
            frame.make_owned();
        }
        Ok(())
    }

    fn pending(&self) -> usize {
        self.queue.len()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.device.as_fd())
    }

    fn counters(&mut self) -> DeviceCounters {
        self.counters
    }
}

/// Policy rules that lead replies of real servers on this host into the TUN device.
///
/// The rules go when this value is dropped. Those of a process that was killed stay behind; they carry
/// [`MARK`] and are removed by the next one. There can be only one per network namespace.
#[derive(Debug)]
pub struct LocalReplies {
    netlink: Netlink,
    ifindex: u32,
    servers: BTreeSet<Endpoint>,
    routed: [bool; 2],
}

impl LocalReplies {
    /// Removes what an earlier process left and prepares the routing table, in the calling thread's network
    /// namespace. No reply is led anywhere yet.
    ///
    /// # Errors
    ///
    /// What the kernel refused.
    pub fn open(tun: &Tun) -> Result<Self, NetlinkError> {
        let mut netlink = Netlink::open()?;
        for rule in netlink.rules()? {
            if rule.protocol == MARK && rule.table == TABLE {
                ignore_missing(netlink.delete_rule(&rule))?;
            }
        }
        Ok(Self {
            netlink,
            ifindex: tun.ifindex,
            servers: BTreeSet::new(),
            routed: [false; 2],
        })
    }

    /// Leads the replies of exactly these real servers to the TUN device: NAT servers at addresses of this
    /// host.
    ///
    /// # Errors
    ///
    /// What the kernel refused; servers already handled stay so, and a further call goes on from there.
    pub fn set(&mut self, servers: &[Endpoint]) -> Result<(), NetlinkError> {
        let wanted: BTreeSet<Endpoint> = servers.iter().copied().collect();
        let present = self.servers.clone();
        for server in wanted.difference(&present) {
            self.add_route(server.addr.is_ipv6())?;
            match self.netlink.add_rule(&rule(server)) {
                Err(error) if !error.is_exists() => return Err(error),
                _ => self.servers.insert(*server),
            };
        }
        for server in present.difference(&wanted) {
            ignore_missing(self.netlink.delete_rule(&rule(server)))?;
            self.servers.remove(server);
        }
        Ok(())
    }

    /// The default route of the family in the table of its own. It goes with the TUN device.
    fn add_route(&mut self, ipv6: bool) -> Result<(), NetlinkError> {
        let done = &mut self.routed[usize::from(ipv6)];
        if !*done {
            let any = if ipv6 {
                IpAddr::V6(Ipv6Addr::UNSPECIFIED)
            } else {
                IpAddr::V4(Ipv4Addr::UNSPECIFIED)
            };
            let mut route = KernelRoute::new(Prefix::new(any, 0), NextHop::OnLink, self.ifindex);
            route.table = TABLE;
            route.protocol = MARK;
            match self.netlink.add_route(&route) {
                Err(error) if !error.is_exists() => return Err(error),
                _ => *done = true,
            }
        }
        Ok(())
    }
}

impl Drop for LocalReplies {
    fn drop(&mut self) {
        // What can't be removed now is removed by the next process.
        let _ = self.set(&[]);
    }
}

/// The TUN device could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TunError {
    /// `/dev/net/tun` is missing or refused.
    #[error("cannot open a tun device (/dev/net/tun)")]
    Open(#[source] io::Error),
    /// The device could not be found or taken up.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

fn rule(server: &Endpoint) -> Rule {
    Rule {
        ipv6: server.addr.is_ipv6(),
        priority: PRIORITY,
        from: Some(Prefix::new(server.addr, u8::MAX)),
        ip_protocol: Some(server.protocol),
        source_ports: (server.port != 0).then_some((server.port, server.port)),
        table: TABLE,
        protocol: MARK,
        ..Rule::default()
    }
}

fn ignore_missing(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    result.or_else(|error| {
        if error.is_not_found() {
            Ok(())
        } else {
            Err(error)
        }
    })
}

fn setting(family: &str, device: &str, name: &str) -> String {
    format!("/proc/sys/net/{family}/conf/{device}/{name}")
}

/// Longest IP packet, super-packets included.
const MAX_PACKET: usize = 65_535;
/// Frames that wait for the device at most.
const QUEUE: usize = 1024;
/// Routing table of the replies: "LVS" in ASCII, out of the way of numbers that people choose.
const TABLE: u32 = 0x4c_5653;
/// Before the rules that people make, after the local table.
const PRIORITY: u32 = 10;

//! How packets get in and out: which kind of device an interface is opened with, and the claim that belongs to it.

use std::borrow::Cow;
use std::fmt;
use std::io;

use lvs_fwd::claim::{Claim, ClaimCounters, ClaimError};
use lvs_fwd::device::Device;
use lvs_fwd::device::pnet::{Pnet, PnetConfig};
use lvs_fwd::device::ring::{Fanout, Ring, RingConfig};
use lvs_fwd::device::xdp::{self, PacketMemory, XdpClaim, XdpConfig, XdpError};
use lvs_fwd::marks::MarkTable;
use lvs_fwd::netlink::Link;
use lvs_fwd::view::{ClaimSet, LocalAddresses};
use tracing::{info, warn};

use crate::data_path::StartError;
use crate::logging::chain;

/// What the operator wants (`--device`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// At each interface the best that works there.
    #[default]
    Auto,
    /// One kind for all interfaces.
    Only(Kind),
}

/// A kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Packet rings.
    Ring,
    /// AF_XDP sockets.
    Xdp,
    /// Plain packet sockets.
    Pnet,
}

impl Choice {
    /// The words for it on the command line.
    pub const WORDS: [&str; 4] = ["auto", "ring", "xdp", "pnet"];

    /// What a word stands for.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "auto" => Some(Self::Auto),
            "ring" => Some(Self::Only(Kind::Ring)),
            "xdp" => Some(Self::Only(Kind::Xdp)),
            "pnet" => Some(Self::Only(Kind::Pnet)),
            _ => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ring => "ring",
            Self::Xdp => "xdp",
            Self::Pnet => "pnet",
        })
    }
}

/// Opens devices, and holds what is claimed by them.
#[derive(Debug)]
pub struct Devices {
    choice: Choice,
    workers: u32,
    slots: u32,
    fanout_groups: u16,
    /// What is claimed, or was to be when the kernel refused it.
    set: ClaimSet,
    /// For interfaces whose packets the host sees, too; made when there is one.
    nft: Option<Claim>,
    xdp: Option<Xdp>,
    /// Whether an interface was opened by it.
    has_xdp: bool,
    /// Whether nothing can be given back to the host.
    hostless: bool,
}

#[derive(Debug)]
struct Xdp {
    claim: XdpClaim,
    /// Each worker's.
    memories: Vec<PacketMemory>,
}

/// An interface's devices.
#[derive(Debug)]
pub struct OpenPort {
    /// What they are.
    pub kind: Kind,
    /// One for each worker.
    pub devices: Vec<Box<dyn Device>>,
    /// How they work, for the log.
    pub description: String,
}

impl Devices {
    /// Nothing is open, and nothing claimed.
    ///
    /// # Errors
    ///
    /// If the kind that is wanted is not to be had at all.
    pub fn new(choice: Choice, workers: u32, slots: u32) -> Result<Self, StartError> {
        let xdp = match choice {
            Choice::Only(Kind::Ring) => {
                info!("devices: packet rings, as asked for");
                None
            }
            Choice::Only(Kind::Pnet) => {
                info!("devices: plain packet sockets, as asked for");
                None
            }
            Choice::Only(Kind::Xdp) => {
                let claim = XdpClaim::new().map_err(StartError::Xdp)?;
                info!("devices: AF_XDP, as asked for");
                Some(claim)
            }
            Choice::Auto => match XdpClaim::new() {
                Ok(claim) => {
                    info!(
                        "devices: AF_XDP where the driver does not copy frames, else packet rings"
                    );
                    Some(claim)
                }
                Err(error) => {
                    info!(
                        "devices: packet rings, because AF_XDP does not work: {}",
                        chain(&error)
                    );
                    None
                }
            },
        };
        let mut devices = Self {
            choice,
            workers,
            slots,
            fanout_groups: 0,
            set: ClaimSet::new(),
            nft: None,
            has_xdp: false,
            hostless: false,
            xdp: xdp.map(|claim| Xdp {
                claim,
                memories: Vec::new(),
            }),
        };
        if devices.xdp.is_none() {
            // Refused now rather than at the first interface.
            devices.nft()?;
        }
        Ok(devices)
    }

    /// Opens an interface for every worker. `rings` are the names of the other interfaces whose packets the host sees, too.
    ///
    /// # Errors
    ///
    /// What the system refused.
    pub fn open(&mut self, link: &Link, rings: &[&str]) -> Result<OpenPort, StartError> {
        let why_not = match self.choice {
            Choice::Only(Kind::Ring | Kind::Pnet) => None,
            Choice::Only(Kind::Xdp) => {
                let port = self.open_xdp(link);
                return port.map_err(|source| StartError::XdpAt {
                    interface: link.name.clone(),
                    source,
                });
            }
            Choice::Auto if self.xdp.is_none() => None,
            Choice::Auto => match self.open_zero_copy(link) {
                Ok(port) => return Ok(port),
                Err(why) => Some(why),
            },
        };
        // Claimed first: what comes in between is lost, and sent again, rather than refused by the host.
        let names: Vec<&str> = rings.iter().copied().chain([&link.name[..]]).collect();
        self.claim_at(&names)?;
        if self.choice == Choice::Only(Kind::Pnet) {
            return self.open_pnet(link);
        }
        let mut port = self.open_rings(link)?;
        if let Some(why) = why_not {
            port.description += &format!("; not by xdp: {why}");
        }
        Ok(port)
    }

    /// Claims at interfaces with rings, and at no others.
    ///
    /// # Errors
    ///
    /// What the kernel refused; then the claim stays as it was.
    pub fn claim_at(&mut self, rings: &[&str]) -> Result<(), StartError> {
        if self.nft.is_some() || !rings.is_empty() {
            self.nft()?.set_devices(rings)?;
        }
        Ok(())
    }

    /// Claims another set.
    ///
    /// # Errors
    ///
    /// What the kernel refused.
    pub fn replace(&mut self, set: &ClaimSet) -> Result<(), StartError> {
        if let Some(nft) = &mut self.nft {
            nft.replace(set)?;
        }
        let for_xdp = self.for_xdp(set);
        if let Some(xdp) = &mut self.xdp {
            xdp.claim.replace(&for_xdp).map_err(StartError::XdpClaim)?;
        }
        let has_new_marks = self.set.marks().is_empty() && !set.marks().is_empty();
        self.set = set.clone();
        if has_new_marks {
            self.remark_marks();
        }
        Ok(())
    }

    /// Nothing can be given back to the host, from now on or not.
    ///
    /// # Errors
    ///
    /// What the kernel refused.
    pub fn set_hostless(&mut self, hostless: bool) -> Result<(), StartError> {
        self.hostless = hostless;
        if self.has_xdp && hostless {
            self.remark_marks();
        }
        let set = self.set.clone();
        self.replace(&set)
    }

    /// The program of AF_XDP takes more than the rules of marks say, which then has to be given back.
    fn for_xdp<'a>(&self, set: &'a ClaimSet) -> Cow<'a, ClaimSet> {
        if !self.hostless || set.marks().is_empty() {
            return Cow::Borrowed(set);
        }
        let mut set = set.clone();
        set.set_marks(MarkTable::default());
        Cow::Owned(set)
    }

    fn remark_marks(&self) {
        if self.has_xdp && self.hostless && !self.set.marks().is_empty() {
            warn!(
                "AF_XDP does not see marks without a TUN device: services of marks need one, or --device ring"
            );
        }
    }

    /// Whether exactly this set is claimed.
    pub fn has_claimed(&self, set: &ClaimSet) -> bool {
        self.nft.as_ref().is_none_or(|nft| nft.set() == set)
            && self
                .xdp
                .as_ref()
                .is_none_or(|xdp| *xdp.claim.set() == *self.for_xdp(set))
    }

    /// The host's addresses, where they are not asked of the kernel.
    ///
    /// # Errors
    ///
    /// What the kernel refused.
    pub fn set_local(&mut self, local: &LocalAddresses) -> Result<(), StartError> {
        match &mut self.xdp {
            Some(xdp) => xdp.claim.set_local(local).map_err(StartError::XdpClaim),
            None => Ok(()),
        }
    }

    /// What was taken from the host.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn counters(&mut self) -> Result<ClaimCounters, StartError> {
        let mut sum = match &mut self.nft {
            Some(nft) => nft.counters()?,
            None => ClaimCounters::default(),
        };
        if let Some(xdp) = &self.xdp {
            let more = xdp.claim.counters().map_err(StartError::XdpClaim)?;
            sum.to_services += more.to_services;
            sum.from_servers += more.from_servers;
            sum.errors += more.errors;
            sum.marked += more.marked;
        }
        Ok(sum)
    }

    fn nft(&mut self) -> Result<&mut Claim, ClaimError> {
        let none: [&str; 0] = [];
        match &mut self.nft {
            Some(nft) => Ok(nft),
            empty => Ok(empty.insert(Claim::install(&none, &self.set)?)),
        }
    }

    fn open_rings(&mut self, link: &Link) -> Result<OpenPort, StartError> {
        let mut config = RingConfig::new(link.index);
        config.slots = self.slots;
        config.fanout = self.next_group().map(|group| Fanout {
            group,
            workers: self.workers,
            vips: Vec::new(),
        });
        // The kernel numbers the rings of an interface in the order of their opening: worker by worker.
        let rings = (0..self.workers)
            .map(|_| Ring::open(&config))
            .collect::<io::Result<Vec<Ring>>>()
            .map_err(|source| StartError::Ring {
                interface: link.name.clone(),
                source,
            })?;
        let memory: usize = rings.iter().map(Ring::memory).sum();
        Ok(OpenPort {
            kind: Kind::Ring,
            devices: boxed(rings),
            description: format!("rings take {} MiB", memory >> 20),
        })
    }

    fn open_pnet(&mut self, link: &Link) -> Result<OpenPort, StartError> {
        let config = PnetConfig {
            ifindex: link.index,
            name: link.name.clone(),
            mac: link.mac.unwrap_or_default(),
            mtu: link.mtu,
            group: self.next_group(),
            queue: QUEUE,
        };
        let sockets = (0..self.workers)
            .map(|_| Pnet::open(&config))
            .collect::<io::Result<Vec<Pnet>>>()
            .map_err(|source| StartError::Ring {
                interface: link.name.clone(),
                source,
            })?;
        Ok(OpenPort {
            kind: Kind::Pnet,
            devices: boxed(sockets),
            description: "a frame at a time; merging of segments at the interface should be off"
                .to_owned(),
        })
    }

    /// A fan-out group, where there are several workers. Its own even where an earlier interface of the same name had one:
    /// that one's sockets may still be open.
    fn next_group(&mut self) -> Option<u16> {
        self.fanout_groups = self.fanout_groups.wrapping_add(1);
        (self.workers > 1).then(|| fanout_group(self.fanout_groups))
    }

    fn open_zero_copy(&mut self, link: &Link) -> Result<OpenPort, String> {
        let why = match self.open_sockets(link) {
            Ok(opened) if opened.zero_copy => return Ok(self.describe(opened)),
            Ok(_) => "its driver copies frames".to_owned(),
            Err(error) => chain(&error),
        };
        if let Some(xdp) = &mut self.xdp {
            // Interfaces that use it have a share of their own.
            xdp.memories.clear();
        }
        Err(why)
    }

    fn open_xdp(&mut self, link: &Link) -> Result<OpenPort, XdpError> {
        let opened = self.open_sockets(link)?;
        Ok(self.describe(opened))
    }

    fn describe(&mut self, opened: xdp::Opened) -> OpenPort {
        if !std::mem::replace(&mut self.has_xdp, true) {
            self.remark_marks();
        }
        describe(opened)
    }

    fn open_sockets(&mut self, link: &Link) -> Result<xdp::Opened, XdpError> {
        let (workers, slots) = (self.workers, self.slots);
        let Some(xdp) = &mut self.xdp else {
            return Err(XdpError::NotPermitted(io::ErrorKind::Unsupported.into()));
        };
        let fits = |memory: &PacketMemory| memory.has_room(link.mtu, slots);
        if xdp.memories.is_empty() || !xdp.memories.iter().all(fits) {
            // Interfaces that were opened before keep theirs; frames between the two are copied.
            let frames = slots as usize * FRAMES_PER_SLOT;
            xdp.memories = (0..workers)
                .map(|_| PacketMemory::new(link.mtu, frames))
                .collect::<Result<_, _>>()?;
        }
        let mut config = XdpConfig::new(link.index, link.mac.unwrap_or_default(), link.mtu);
        config.slots = slots;
        xdp::open(&config, &xdp.claim, &xdp.memories)
    }
}

fn describe(opened: xdp::Opened) -> OpenPort {
    let place = match opened.in_driver {
        true => "in the driver",
        false => "behind the driver, which can't itself",
    };
    let copies = match opened.zero_copy {
        true => "without copying",
        false => "with copying",
    };
    let queues = match opened.queues {
        1 => "1 queue".to_owned(),
        queues => format!("{queues} queues"),
    };
    OpenPort {
        kind: Kind::Xdp,
        devices: boxed(opened.devices),
        description: format!("{place}, {copies}, {queues}"),
    }
}

fn boxed<D: Device + 'static>(devices: Vec<D>) -> Vec<Box<dyn Device>> {
    devices
        .into_iter()
        .map(|device| Box::new(device) as Box<dyn Device>)
        .collect()
}

/// Unique in the network namespace as far as a process can tell: its id, and a number of its own.
fn fanout_group(number: u16) -> u16 {
    (std::process::id() as u16)
        .wrapping_mul(FANOUT_STRIDE)
        .wrapping_add(number)
}

/// Frames in a worker's memory for each slot of a queue: three interfaces, and a quarter for sending.
const FRAMES_PER_SLOT: usize = 4;

/// Frames that wait for sending at a plain socket.
const QUEUE: usize = 1024;

const FANOUT_STRIDE: u16 = 64;

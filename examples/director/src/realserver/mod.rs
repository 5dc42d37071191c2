//! A host as a real server for direct routing and tunnels: it holds the services' addresses and keeps quiet about them.
//!
//! [`run`] makes it one until it is told to end, and gives everything back then. What it changed stands in a journal that
//! outlives a kill, so that the next start gives it back first. [`check`] only looks.

pub mod check;
mod journal;
mod tunnel;

use std::io;
use std::net::IpAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;

use lvs_fwd::netlink::{Address, Link, Netlink, NetlinkError};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use self::journal::Journal;
use self::tunnel::Decapsulator;
use crate::logging::chain;
use crate::settings;

/// How packets come to this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As they are, to its hardware address.
    DirectRoute,
    /// In tunnels.
    Tunnel,
}

/// What a real server is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RealServer {
    /// The services' addresses.
    pub vips: Vec<IpAddr>,
    /// How packets for them come.
    pub mode: Mode,
    /// The UDP port of GUE tunnels.
    pub gue_port: u16,
    /// Unpack without a TUN device even where there is one.
    pub without_tun: bool,
    /// Where the journal is kept.
    pub state: PathBuf,
}

/// Holds the addresses until SIGTERM or SIGINT.
///
/// # Errors
///
/// What kept it from starting; everything is given back then.
pub fn run(wanted: &RealServer) -> Result<(), RealServerError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RealServerError::Runtime)?;
    let _only = only_one()?;
    runtime.block_on(async {
        // Before anything is changed: from now on no signal ends the process without giving back.
        let signals = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
        let [Ok(mut terminate), Ok(mut interrupt)] = signals else {
            return Err(RealServerError::Runtime(io::Error::other("no signals")));
        };
        let mut held = Held::open(&wanted.state)?;
        let outcome = held.set_up(wanted);
        if outcome.is_ok() {
            let vips: Vec<String> = wanted.vips.iter().map(IpAddr::to_string).collect();
            info!("ready: holding {}", vips.join(", "));
            tokio::select! {
                _ = terminate.recv() => info!("SIGTERM: ending"),
                _ = interrupt.recv() => info!("SIGINT: ending"),
            }
        }
        held.give_back();
        outcome
    })
}

/// What this process has changed.
#[derive(Debug)]
struct Held {
    netlink: Netlink,
    journal: Journal,
    addresses: Vec<Address>,
    /// Tunnel devices of the kernel that were down.
    raised: Vec<u32>,
    decapsulator: Option<Decapsulator>,
}

impl Held {
    /// Nothing yet; what a killed predecessor left is given back.
    fn open(state: &std::path::Path) -> Result<Self, RealServerError> {
        let mut netlink = Netlink::open()?;
        let mut journal = Journal::open(state);
        if journal.restore() > 0 {
            info!("gave back settings of a real server that ended early");
        }
        for address in netlink.addresses()? {
            if address.protocol == MARK {
                netlink.delete_address(&address)?;
                info!(
                    "address {} was left by a real server that ended early: removed",
                    address.addr
                );
            }
        }
        Ok(Self {
            netlink,
            journal,
            addresses: Vec::new(),
            raised: Vec::new(),
            decapsulator: None,
        })
    }

    /// Quiet first, then the addresses, so that nobody hears of them; what unpacks comes last.
    fn set_up(&mut self, wanted: &RealServer) -> Result<(), RealServerError> {
        let links = self.netlink.links()?;
        let has_v4 = wanted.vips.iter().any(IpAddr::is_ipv4);
        if has_v4 {
            self.raise("net/ipv4/conf/all/arp_ignore", 1)?;
            self.raise("net/ipv4/conf/all/arp_announce", 2)?;
        }
        if wanted.mode == Mode::Tunnel && has_v4 {
            self.relax_reverse_path_filter(&links)?;
        }
        let loopback = self.netlink.link_by_name("lo")?;
        self.netlink.set_up(loopback.index, true)?;
        for vip in &wanted.vips {
            let length = if vip.is_ipv4() { 32 } else { 128 };
            let mut address = Address::new(loopback.index, *vip, length);
            address.nodad = vip.is_ipv6();
            address.protocol = MARK;
            match self.netlink.add_address(&address) {
                Ok(()) => {
                    info!("address {vip} added to lo");
                    self.addresses.push(address);
                }
                Err(error) if error.is_exists() => {
                    info!("address {vip} is at lo already: used, and left at the end");
                }
                Err(error) => return Err(error.into()),
            }
        }
        if wanted.mode == Mode::Tunnel {
            let by_kernel = self.use_kernel_tunnels(&links)?;
            let decapsulator = Decapsulator::start(
                &wanted.vips,
                wanted.gue_port,
                &by_kernel,
                wanted.without_tun,
            )
            .map_err(RealServerError::Tunnel)?;
            info!("unpacking tunnels: {}", decapsulator.describe());
            self.decapsulator = Some(decapsulator);
        }
        Ok(())
    }

    /// Takes up the kernel's own tunnel devices, where there are any. What they unpack must not be unpacked twice: returns
    /// the kinds.
    fn use_kernel_tunnels(&mut self, links: &[Link]) -> Result<Vec<&'static str>, RealServerError> {
        let mut kinds = Vec::new();
        for (name, unpacks) in KERNEL_TUNNELS {
            let Some(link) = links.iter().find(|link| link.name == name) else {
                continue;
            };
            if !link.up {
                self.netlink.set_up(link.index, true)?;
                self.raised.push(link.index);
            }
            let filter = format!("net/ipv4/conf/{name}/rp_filter");
            if settings::read(&filter) == Some(1) {
                self.change(&filter, 0)?;
            }
            info!("the kernel's {name} unpacks {}", unpacks.join(", "));
            kinds.extend(unpacks);
        }
        Ok(kinds)
    }

    /// Sets a setting to at least this value. The kernel takes the higher of this and the interface's own.
    fn raise(&mut self, name: &str, least: u32) -> Result<(), RealServerError> {
        match settings::read(name) {
            Some(present) if present >= least => Ok(()),
            _ => self.change(name, least),
        }
    }

    fn change(&mut self, name: &str, value: u32) -> Result<(), RealServerError> {
        self.journal
            .set(name, value)
            .map_err(|source| RealServerError::Setting {
                name: name.to_owned(),
                source,
            })
    }

    /// What comes out of a tunnel arrives at an interface that is not on the way to the client. The filter is switched off
    /// for all, and every interface that there is keeps what it had.
    fn relax_reverse_path_filter(&mut self, links: &[Link]) -> Result<(), RealServerError> {
        const ALL: &str = "net/ipv4/conf/all/rp_filter";
        if settings::read(ALL) != Some(1) {
            return Ok(());
        }
        for link in links.iter().filter(|link| !link.loopback) {
            let own = format!("net/ipv4/conf/{}/rp_filter", link.name);
            if settings::read(&own) == Some(0) {
                self.change(&own, 1)?;
            }
        }
        self.change(ALL, 0)
    }

    /// In the opposite order.
    fn give_back(&mut self) {
        if let Some(decapsulator) = self.decapsulator.take() {
            info!("unpacked {}", decapsulator.stop());
        }
        for index in self.raised.drain(..) {
            if let Err(error) = self.netlink.set_up(index, false) {
                warn!("{}", chain(&error));
            }
        }
        for address in self.addresses.drain(..) {
            match self.netlink.delete_address(&address) {
                Ok(()) => info!("address {} removed", address.addr),
                Err(error) if error.is_not_found() => {}
                Err(error) => warn!("{}", chain(&error)),
            }
        }
        self.journal.restore();
    }
}

/// Whether one runs in this network namespace.
fn is_running() -> bool {
    only_one().is_err_and(|error| matches!(error, RealServerError::Runs))
}

/// A name that vanishes with the process.
fn only_one() -> Result<UnixListener, RealServerError> {
    let name = SocketAddr::from_abstract_name(ONLY_NAME).map_err(RealServerError::Runtime)?;
    UnixListener::bind_addr(&name).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => RealServerError::Runs,
        _ => RealServerError::Runtime(error),
    })
}

/// Why this host can't be made a real server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RealServerError {
    /// Another process does it already.
    #[error("a real server is set up in this network namespace already")]
    Runs,
    /// The event loop could not be made.
    #[error("can't start")]
    Runtime(#[source] io::Error),
    /// Links or addresses were refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A kernel setting was refused.
    #[error("can't write /proc/sys/{name}")]
    Setting {
        /// The setting.
        name: String,
        /// What the system says.
        source: io::Error,
    },
    /// Tunnels can't be unpacked.
    #[error("can't unpack tunnels")]
    Tunnel(#[source] io::Error),
}

/// The origin of addresses that a real server holds. Not the director's own mark: a director on the same host removes what
/// it finds of that.
const MARK: u8 = lvs_fwd::netlink::MARK + 1;

/// The kernel's tunnel devices that take packets from everybody, and what they unpack.
const KERNEL_TUNNELS: [(&str, &[&str]); 5] = [
    ("tunl0", &["ipip"]),
    ("sit0", &["6in4"]),
    ("gre0", &["gre"]),
    ("ip6tnl0", &["4in6", "6in6"]),
    ("ip6gre0", &["gre over IPv6"]),
];

const ONLY_NAME: &[u8] = b"lvs-realserver";

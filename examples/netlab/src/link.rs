//! Cables and switches.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::Namespace;
use crate::namespace::system;

/// One end of a cable: namespace, interface name, and address with prefix length (empty for none).
pub type End<'a> = (&'a Namespace, &'a str, &'a str);

/// Connects two namespaces with a pair of Ethernet interfaces. The pair goes with either namespace.
///
/// # Errors
///
/// An address that is none, or what the kernel refused.
pub fn veth(one: End<'_>, other: End<'_>) -> io::Result<()> {
    // Indexes that differ, so that the kernel switches the links on at once.
    static NEXT: AtomicU32 = AtomicU32::new(1000);
    let near = NEXT.fetch_add(2, Ordering::Relaxed);
    let mut netlink = one.0.netlink().map_err(system)?;
    netlink
        .create_veth_numbered(one.1, other.1, Some(other.0.as_fd()), [near, near + 1])
        .map_err(system)?;
    for (namespace, interface, address) in [one, other] {
        let mut netlink = namespace.netlink().map_err(system)?;
        let link = netlink.link_by_name(interface).map_err(system)?;
        netlink.set_up(link.index, true).map_err(system)?;
        if !address.is_empty() {
            namespace.add_address(interface, address)?;
        }
    }
    wait_until_running(one.0, one.1)?;
    wait_until_running(other.0, other.1)
}

/// The kernel switches a new link on a moment after it got its carrier, and loses what is sent before.
fn wait_until_running(namespace: &Namespace, interface: &str) -> io::Result<()> {
    let mut netlink = namespace.netlink().map_err(system)?;
    for _ in 0..RUNNING_ATTEMPTS {
        if netlink.link_by_name(interface).map_err(system)?.running {
            return Ok(());
        }
        std::thread::sleep(RUNNING_PAUSE);
    }
    Err(io::Error::new(
        io::ErrorKind::TimedOut,
        format!("{interface} in {} does not come up", namespace.name()),
    ))
}

/// A switch: a bridge in a namespace, with ports that lead to others.
#[derive(Debug)]
pub struct Bridge {
    namespace: Namespace,
    index: u32,
    next: AtomicU32,
}

impl Bridge {
    /// Makes a bridge.
    ///
    /// # Errors
    ///
    /// What the kernel refused.
    pub fn new(namespace: &Namespace, name: &str) -> io::Result<Self> {
        let mut netlink = namespace.netlink().map_err(system)?;
        netlink.create_bridge(name).map_err(system)?;
        let index = netlink.link_by_name(name).map_err(system)?.index;
        netlink.set_up(index, true).map_err(system)?;
        Ok(Self {
            namespace: namespace.clone(),
            index,
            next: AtomicU32::new(0),
        })
    }

    /// Connects a namespace: it gets an interface with this name and address (empty for none).
    ///
    /// # Errors
    ///
    /// An address that is none, or what the kernel refused.
    pub fn attach(&self, namespace: &Namespace, interface: &str, address: &str) -> io::Result<()> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let port = format!("p{}-{number}", self.index);
        veth(
            (&self.namespace, &port, ""),
            (namespace, interface, address),
        )?;
        let mut netlink = self.namespace.netlink().map_err(system)?;
        let link = netlink.link_by_name(&port).map_err(system)?;
        netlink
            .set_controller(link.index, Some(self.index))
            .map_err(system)
    }
}

const RUNNING_ATTEMPTS: u32 = 1000;
const RUNNING_PAUSE: Duration = Duration::from_millis(3);

//! Namespaces and what runs in them.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lvs_fwd::netlink::{KernelRoute, Netlink, NetlinkError};
use lvs_fwd::route::{NextHop, Prefix};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{Response, sys};

/// By whose rights the process makes namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// It had `CAP_SYS_ADMIN`.
    Root,
    /// It made a user namespace of its own and is root only there.
    UserNamespace,
}

/// Moves the process into a private network namespace, with its loopback interface up.
///
/// Call this first, while the process has a single thread: without root's rights a user namespace comes
/// first, and only a process with one thread may make that.
///
/// # Errors
///
/// What the system refused; namespaces may be forbidden here altogether.
pub fn enter() -> io::Result<Privilege> {
    let privilege = match sys::unshare_network() {
        Ok(()) => Privilege::Root,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
            sys::unshare_user()?;
            fs::write("/proc/self/setgroups", "deny")?;
            fs::write("/proc/self/uid_map", format!("0 {} 1", user.as_raw()))?;
            fs::write("/proc/self/gid_map", format!("0 {} 1", group.as_raw()))?;
            sys::unshare_network()?;
            Privilege::UserNamespace
        }
        Err(error) => return Err(error),
    };
    loopback_up()?;
    Ok(privilege)
}

/// A network namespace: a host of its own. It lives as long as this value or a clone of it, or a process or
/// socket in it.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: String,
    descriptor: Arc<OwnedFd>,
}

impl Namespace {
    /// A new namespace with its loopback interface up. The name is only for messages.
    ///
    /// # Errors
    ///
    /// What the system refused.
    pub fn new(name: &str) -> io::Result<Self> {
        // A thread carries the new namespace until the descriptor holds it.
        let make = || {
            sys::unshare_network()?;
            loopback_up()?;
            fs::File::open("/proc/thread-self/ns/net").map(OwnedFd::from)
        };
        let made = thread::scope(|scope| scope.spawn(make).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(Self {
            name: name.to_owned(),
            descriptor: Arc::new(made),
        })
    }

    /// The name given when it was made.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a closure on a thread in this namespace and waits for it. A panic goes on here.
    ///
    /// # Panics
    ///
    /// If the closure panics, or if the system gives no thread or refuses to enter the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            enter_namespace(self.descriptor.as_fd(), &self.name);
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Starts a thread in this namespace.
    ///
    /// # Errors
    ///
    /// What the system refused.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        let namespace = self.clone();
        thread::Builder::new()
            .name(self.name.clone())
            .spawn(move || {
                enter_namespace(namespace.as_fd(), &namespace.name);
                drop(namespace);
                work()
            })
    }

    /// A command whose process will run in this namespace. It is killed when the thread that started it ends, so
    /// that nothing outlives a test, however that ends.
    ///
    /// # Errors
    ///
    /// If the process has no descriptor left.
    pub fn command(&self, program: impl AsRef<Path>) -> io::Result<Command> {
        let mut command = Command::new(program.as_ref());
        sys::enter_in_child(&mut command, self.descriptor.try_clone()?);
        Ok(command)
    }

    /// A netlink socket of this namespace.
    ///
    /// # Errors
    ///
    /// What the system refused.
    pub fn netlink(&self) -> Result<Netlink, NetlinkError> {
        self.run(Netlink::open)
    }

    /// Adds an address, such as `10.0.0.1/24`, to an interface. IPv6 addresses are usable at once.
    ///
    /// # Errors
    ///
    /// Text that is no address with prefix length, or what the kernel refused.
    pub fn add_address(&self, interface: &str, address: &str) -> io::Result<()> {
        let (addr, prefix) = parse(address)?;
        let mut netlink = self.netlink().map_err(system)?;
        let link = netlink.link_by_name(interface).map_err(system)?;
        let mut address = lvs_fwd::netlink::Address::new(link.index, addr, prefix);
        address.nodad = addr.is_ipv6();
        netlink.add_address(&address).map_err(system)
    }

    /// Adds a route to a prefix, such as `10.2.0.0/16`, through a router on a link of this namespace.
    ///
    /// # Errors
    ///
    /// Text that is no prefix or address, or what the kernel refused.
    pub fn add_route(&self, destination: &str, via: &str) -> io::Result<()> {
        let (addr, length) = parse(destination)?;
        let via = via.parse().map_err(io::Error::other)?;
        // The kernel finds the interface by the router's address.
        let route = KernelRoute::new(Prefix::new(addr, length), NextHop::Gateway(via), 0);
        let mut netlink = self.netlink().map_err(system)?;
        netlink.add_route(&route).map_err(system)
    }

    /// Adds the default route.
    ///
    /// # Errors
    ///
    /// As [`add_route`](Self::add_route).
    pub fn default_route(&self, via: &str) -> io::Result<()> {
        let any = if via.contains(':') {
            "::/0"
        } else {
            "0.0.0.0/0"
        };
        self.add_route(any, via)
    }

    /// Writes a kernel setting of this namespace, such as `net.ipv4.ip_forward`. An interface name with a
    /// dot can't be expressed.
    ///
    /// # Errors
    ///
    /// What the system refused.
    pub fn sysctl(&self, name: &str, value: &str) -> io::Result<()> {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        self.run(|| fs::write(&path, value)).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot write {path} in {}: {error}", self.name),
            )
        })
    }

    /// Makes this host a router, of IPv6 too where there is IPv6.
    ///
    /// # Errors
    ///
    /// What the system refused.
    pub fn forward(&self) -> io::Result<()> {
        self.sysctl("net.ipv4.ip_forward", "1")?;
        match self.sysctl("net.ipv6.conf.all.forwarding", "1") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Makes this host a real server for direct routing: the virtual address stands on the loopback
    /// interface, and nobody hears of it by ARP or neighbour discovery.
    ///
    /// # Errors
    ///
    /// What the system refused.
    pub fn hold_vip(&self, vip: &str) -> io::Result<()> {
        if vip.contains(':') {
            // Neighbours are answered for addresses of the interface that asks alone.
            return self.add_address("lo", &format!("{vip}/128"));
        }
        self.sysctl("net.ipv4.conf.all.arp_ignore", "1")?;
        self.sysctl("net.ipv4.conf.all.arp_announce", "2")?;
        self.add_address("lo", &format!("{vip}/32"))
    }

    /// Switches the offloads of an interface on or off: checksums, segmentation in both directions. Without them every
    /// packet is on the wire as it would be between machines.
    ///
    /// # Errors
    ///
    /// What the system refused.
    pub fn offloads(&self, interface: &str, on: bool) -> io::Result<()> {
        self.run(|| {
            // The kernel refuses to switch on what depends on another one that is still off.
            let mut order = OFFLOADS;
            if !on {
                order.reverse();
            }
            order
                .into_iter()
                .try_for_each(|command| sys::set_offload(interface, command, on))
        })
    }

    /// [`http_get`](crate::http_get) from this namespace.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn http_get(
        &self,
        addr: SocketAddr,
        path: &str,
        timeout: Duration,
    ) -> io::Result<Response> {
        self.run(|| crate::http_get(addr, path, timeout))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Checksums and scattered buffers on transmit, segmentation of TCP and in general, and merging on receive, by the numbers
/// of ethtool.
const OFFLOADS: [u32; 5] = [0x17, 0x19, 0x1f, 0x24, 0x2c];

fn enter_namespace(descriptor: BorrowedFd<'_>, name: &str) {
    if let Err(error) = move_into_link_name_space(descriptor, Some(LinkNameSpaceType::Network)) {
        // Going on would touch another namespace.
        panic!("cannot enter the network namespace {name}: {error}");
    }
}

fn loopback_up() -> io::Result<()> {
    let mut netlink = Netlink::open().map_err(system)?;
    let loopback = netlink.link_by_name("lo").map_err(system)?;
    netlink.set_up(loopback.index, true).map_err(system)
}

/// Keeps the kind, and the kernel's answer in the message.
pub(crate) fn system(error: NetlinkError) -> io::Error {
    io::Error::new(error.source.kind(), format!("{error}: {}", error.source))
}

/// Address and prefix length.
pub(crate) fn parse(text: &str) -> io::Result<(std::net::IpAddr, u8)> {
    text.split_once('/')
        .and_then(|(addr, length)| Some((addr.parse().ok()?, length.parse().ok()?)))
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("not an address with prefix length: {text}"),
            )
        })
}

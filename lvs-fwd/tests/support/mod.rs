//! A network namespace of the test's own, and cables in it.

use std::error::Error;
use std::io::Write;
use std::time::{Duration, Instant};

use lvs_fwd::netlink::Netlink;
use rustix::thread::UnshareFlags;

/// One end of a cable.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) ifindex: u32,
    pub(crate) mac: [u8; 6],
}

/// Moves the process, which must have one thread, to a namespace of its own.
pub(crate) fn enter_namespace() -> std::io::Result<()> {
    // The test has one thread and no descriptors that the change could pull from under anybody.
    #[allow(deprecated)]
    let unshare = rustix::thread::unshare;
    match unshare(UnshareFlags::NEWNET) {
        Err(rustix::io::Errno::PERM) => unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET)?,
        outcome => outcome?,
    }
    // The kernel has nothing of its own to say on the links then.
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    Ok(())
}

/// A cable.
pub(crate) fn veth(near: &str, far: &str) -> Result<(End, End), Box<dyn Error>> {
    let mut netlink = Netlink::open()?;
    netlink.create_veth(near, far, None)?;
    let mut end = |name: &str| -> Result<End, Box<dyn Error>> {
        let link = netlink.link_by_name(name)?;
        netlink.set_up(link.index, true)?;
        Ok(End {
            ifindex: link.index,
            mac: link.mac.ok_or("no hardware address")?,
        })
    };
    let ends = (end(near)?, end(far)?);
    // Until the kernel has noticed that both ends are up, which may take a second, it drops what is sent.
    let patience = Instant::now() + Duration::from_secs(5);
    for name in [near, far] {
        while !netlink.link_by_name(name)?.running && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(ends)
}

pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

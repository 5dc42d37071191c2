//! Kernel settings of the calling thread's network namespace.

use std::fs;
use std::io;

/// A numeric setting by its path below `/proc/sys`; `None` if there is none.
pub(crate) fn read(name: &str) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
    text.trim().parse().ok()
}

/// Writes a setting.
///
/// # Errors
///
/// What the system says.
pub(crate) fn write(name: &str, value: u32) -> io::Result<()> {
    fs::write(format!("/proc/sys/{name}"), value.to_string())
}

/// The value in force at an interface where the kernel takes the higher of `all` and its own; `name` is such as
/// `arp_ignore`.
pub(crate) fn effective(name: &str, interface: &str) -> u32 {
    let of = |place: &str| read(&format!("net/ipv4/conf/{place}/{name}")).unwrap_or(0);
    of("all").max(of(interface))
}

//! What the shell must do.

use crate::announce::Announcement;
use crate::config::VirtualAddress;

/// Something the shell must do, in the order given. What a command asks for may be there already (left over, or set by somebody):
/// that is success.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// With `accept` false: drop packets to and from these addresses but for neighbour discovery (asked before they are added). With
    /// `accept` true: no more (after they are removed).
    SetAcceptMode {
        /// Packets to the addresses are wanted.
        accept: bool,
        /// The addresses.
        addresses: Vec<VirtualAddress>,
    },
    /// Set addresses, in this order.
    AddAddresses(Vec<VirtualAddress>),
    /// Take addresses away, in this order.
    RemoveAddresses(Vec<VirtualAddress>),
    /// Set the virtual routes, then the virtual rules, of this router.
    AddRoutes,
    /// Take away its rules, then its routes.
    RemoveRoutes,
    /// Make routes and rules those of the new configuration.
    ReplaceRoutes,
    /// Send one gratuitous ARP or neighbour advertisement, see [`wire`](crate::wire).
    Announce(Announcement),
}

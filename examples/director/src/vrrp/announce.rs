//! Telling a link which hardware address an address has now.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use lvs_vrrp::wire::{self, MacAddress};
use socket2::{Domain, Socket, Type};

use super::sys;

/// Sends gratuitous ARP (RFC 5227, section 3) and unsolicited neighbour advertisements (RFC 4861, section 7.2.6).
#[derive(Debug)]
pub(crate) struct Announcer {
    frames: Socket,
}

impl Announcer {
    /// In the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        // Protocol zero receives nothing.
        let frames = Socket::new(Domain::PACKET, Type::RAW, None)?;
        Ok(Self { frames })
    }

    /// Announces an address on an interface, once; `router` is what an advertisement says of the sender.
    pub(crate) fn announce(
        &self,
        address: IpAddr,
        ifindex: u32,
        mac: MacAddress,
        router: bool,
    ) -> io::Result<()> {
        match address {
            IpAddr::V4(address) => {
                let frame = wire::GratuitousArp { mac, address }.frame();
                sys::send_frame(self.frames.as_fd(), ifindex, &frame)
            }
            IpAddr::V6(address) => {
                let na = wire::UnsolicitedNa {
                    mac,
                    address,
                    router,
                };
                sys::send_frame(self.frames.as_fd(), ifindex, &na.frame())
            }
        }
    }
}

//! Network interfaces.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoMacVlan, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType,
    LinkMessage, MacVlanMode, State,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Netlink, NetlinkError};

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Hardware address, if it is an Ethernet interface.
    pub mac: Option<[u8; 6]>,
    /// Largest packet in bytes, without the link header.
    pub mtu: u32,
    /// Whether the administrator wants it up.
    pub up: bool,
    /// Whether it is operationally up (RFC 2863): frames pass. This comes a moment after the carrier. Kinds
    /// without a carrier, such as loopback and TUN, never say so.
    pub running: bool,
    /// Whether it is the loopback interface.
    pub loopback: bool,
    /// Kind of a virtual interface (`veth`, `bridge`, …).
    pub kind: Option<String>,
    /// Index of the bridge, bond or VRF that it belongs to.
    pub controller: Option<u32>,
}

impl Netlink {
    /// All interfaces.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let found = self
            .0
            .dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))
            .map_err(NetlinkError::on("list", "links"))?;
        Ok(found
            .into_iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewLink(message) => Link::decode(&message),
                _ => None,
            })
            .collect())
    }

    /// The interface with this name.
    ///
    /// # Errors
    ///
    /// [Not found](NetlinkError::is_not_found), or what the kernel reports.
    pub fn link_by_name(&mut self, name: &str) -> Result<Link, NetlinkError> {
        self.links()?
            .into_iter()
            .find(|link| link.name == name)
            .ok_or_else(|| {
                NetlinkError::on("find link", name)(std::io::Error::from_raw_os_error(libc::ENODEV))
            })
    }

    /// Creates a pair of connected Ethernet interfaces: `name` here, `peer` in `namespace` (here too, if
    /// `None`).
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn create_veth(
        &mut self,
        name: &str,
        peer: &str,
        namespace: Option<BorrowedFd<'_>>,
    ) -> Result<(), NetlinkError> {
        self.create_veth_numbered(name, peer, namespace, [0, 0])
    }

    /// [`create_veth`](Self::create_veth) with chosen indexes for the near and the far end; 0 leaves the choice
    /// to the kernel. The kernel reports the carrier of a pair at once if the indexes differ, but up to a
    /// second late if they happen to be equal.
    ///
    /// # Errors
    ///
    /// [Exists](NetlinkError::is_exists) or busy if an index is taken, or what else the kernel reports.
    pub fn create_veth_numbered(
        &mut self,
        name: &str,
        peer: &str,
        namespace: Option<BorrowedFd<'_>>,
        [near, far]: [u32; 2],
    ) -> Result<(), NetlinkError> {
        let mut other = LinkMessage::default();
        other.header.index = far;
        other
            .attributes
            .push(LinkAttribute::IfName(peer.to_owned()));
        if let Some(namespace) = namespace {
            other
                .attributes
                .push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
        }
        let info = vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
        ];
        self.create("create veth", name, near, info)
    }

    /// Creates a bridge.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn create_bridge(&mut self, name: &str) -> Result<(), NetlinkError> {
        self.create(
            "create bridge",
            name,
            0,
            vec![LinkInfo::Kind(InfoKind::Bridge)],
        )
    }

    /// Creates an interface with a MAC address of its own above an Ethernet interface (macvlan). Those above the same interface do not
    /// hear each other (private mode).
    ///
    /// # Errors
    ///
    /// [Exists](NetlinkError::is_exists), or what the kernel reports.
    pub fn create_macvlan(
        &mut self,
        name: &str,
        below: u32,
        mac: [u8; 6],
    ) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Link(below),
            LinkAttribute::Address(mac.to_vec()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::MacVlan),
                LinkInfo::Data(InfoData::MacVlan(vec![InfoMacVlan::Mode(
                    MacVlanMode::Private,
                )])),
            ]),
        ];
        self.0
            .request(
                RouteNetlinkMessage::NewLink(message),
                NLM_F_CREATE | NLM_F_EXCL,
            )
            .map_err(NetlinkError::on("create macvlan", name))
    }

    /// Makes an interface a port of a bridge, bond or VRF, or of none.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn set_controller(
        &mut self,
        ifindex: u32,
        controller: Option<u32>,
    ) -> Result<(), NetlinkError> {
        self.change("set controller of", ifindex, |message| {
            message
                .attributes
                .push(LinkAttribute::Controller(controller.unwrap_or(0)));
        })
    }

    /// Takes an interface up or down.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn set_up(&mut self, ifindex: u32, up: bool) -> Result<(), NetlinkError> {
        self.change("set state of", ifindex, |message| {
            message.header.flags.set(LinkFlags::Up, up);
            message.header.change_mask = LinkFlags::Up;
        })
    }

    /// Sets the largest packet in bytes.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn set_mtu(&mut self, ifindex: u32, mtu: u32) -> Result<(), NetlinkError> {
        self.change("set mtu of", ifindex, |message| {
            message.attributes.push(LinkAttribute::Mtu(mtu));
        })
    }

    /// Moves an interface to another network namespace.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn set_namespace(
        &mut self,
        ifindex: u32,
        namespace: BorrowedFd<'_>,
    ) -> Result<(), NetlinkError> {
        self.change("set namespace of", ifindex, |message| {
            message
                .attributes
                .push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
        })
    }

    /// Deletes a virtual interface.
    ///
    /// # Errors
    ///
    /// What the kernel reports.
    pub fn delete_link(&mut self, ifindex: u32) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        self.0
            .request(RouteNetlinkMessage::DelLink(message), 0)
            .map_err(NetlinkError::on("delete link", ifindex))
    }

    fn create(
        &mut self,
        operation: &'static str,
        name: &str,
        index: u32,
        info: Vec<LinkInfo>,
    ) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::LinkInfo(info));
        self.0
            .request(
                RouteNetlinkMessage::NewLink(message),
                NLM_F_CREATE | NLM_F_EXCL,
            )
            .map_err(NetlinkError::on(operation, name))
    }

    fn change(
        &mut self,
        operation: &'static str,
        ifindex: u32,
        change: impl FnOnce(&mut LinkMessage),
    ) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        change(&mut message);
        self.0
            .request(RouteNetlinkMessage::SetLink(message), 0)
            .map_err(NetlinkError::on(operation, format_args!("link {ifindex}")))
    }
}

impl Link {
    /// `None` for messages about a link in another role, such as a bridge's port.
    pub(super) fn decode(message: &LinkMessage) -> Option<Self> {
        if message.header.interface_family != AddressFamily::Unspec {
            return None;
        }
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: None,
            mtu: 0,
            up: flags.contains(LinkFlags::Up),
            running: false,
            loopback: flags.contains(LinkFlags::Loopback),
            kind: None,
            controller: None,
        };
        let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(mac) if ethernet => {
                    link.mac = mac.as_slice().try_into().ok();
                }
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::OperState(state) => link.running = *state == State::Up,
                LinkAttribute::Controller(index) => link.controller = Some(*index),
                LinkAttribute::LinkInfo(info) => {
                    link.kind = info.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        Some(link)
    }
}

//! How does the packet get there? Linux Virtual Server forwarding in user space.
//!
//! This crate takes frames from network interfaces, asks a [`Balancer`](balancer::Balancer) where each
//! belongs, rewrites it (NAT, FULLNAT, direct routing, tunnels) and sends it to the next hop, as the kernel's IPVS does:
//! without a kernel module, in any network namespace where the process may open packet sockets. It can also
//! take service packets away from the host's own stack and give back what is not for a real server.
//!
//! **What it leaves out.** It does not choose real servers and keeps no connection table: that is the
//! balancer's part. It does not check whether servers are alive and does not announce addresses. Left for
//! later: FULLNAT between families, UOA and the SYN proxy, VLAN tags in frames: the interface of a VLAN is a port like others.
//!
//! # Map
//!
//! | layer | modules | knows |
//! |---|---|---|
//! | bytes | [`wire`], [`checksum`], [`frame`], [`rewrite`], [`icmp`], [`reset`], [`decap`] | headers and sums, in place |
//! | decisions | [`balancer`], [`engine`], [`steer`], [`neigh`], [`stats`] | a batch in, its destinies out; no system call, no clock |
//! | surroundings | [`view`], [`route`], [`marks`], [`why`] | an immutable picture of claims, marks, routes, neighbours, ports |
//! | shell | [`runner`], [`handoff`], [`device`] | threads' loops, packet rings, queues between workers |
//! | host | [`netlink`], [`mirror`], [`claim`], [`tun`] | the kernel's tables, and who gets which packet |
//!
//! Packets that cannot go on are counted by [reason](stats::DropReason), and so are frames that are
//! [left alone](stats::LeftReason).
//!
//! # Example
//!
//! A worker with a device in memory, and a balancer that knows one server:
//!
//! ```
//! use std::net::{IpAddr, SocketAddr};
//! use std::sync::Arc;
//! use std::time::Instant;
//!
//! use lvs_fwd::balancer::{Balancer, Direction, Method, Packets, Verdict};
//! use lvs_fwd::device::memory::Memory;
//! use lvs_fwd::frame::Frame;
//! use lvs_fwd::route::{Hop, Neighbour, NeighbourState, NeighbourTable, NextHop, Prefix, Route, RouteTable};
//! use lvs_fwd::runner::{self, RunnerConfig};
//! use lvs_fwd::view::{ClaimSet, Endpoint, Port, PortId, View};
//!
//! struct OneServer;
//!
//! impl Balancer for OneServer {
//!     fn decide(&mut self, _now: Instant, packets: &Packets<'_>, verdicts: &mut Vec<Verdict>) {
//!         verdicts.extend(packets.iter().map(|packet| match packet.direction {
//!             Direction::Inbound => Verdict::Forward(Method::Nat { rip: SocketAddr::from(([10, 0, 0, 11], 8080)) }),
//!             Direction::Outbound => Verdict::Reply { source: SocketAddr::from(([192, 0, 2, 10], 80)) },
//!         }));
//!     }
//! }
//!
//! // The surroundings: one port, one service, one server on the link.
//! let mut claims = ClaimSet::new();
//! claims.insert_service(Endpoint { protocol: 6, addr: IpAddr::from([192, 0, 2, 10]), port: 80 });
//! let mut routes = RouteTable::new();
//! routes.insert(Route::new(Prefix::new(IpAddr::from([10, 0, 0, 0]), 24), NextHop::OnLink, 2));
//! let mut neighbours = NeighbourTable::new();
//! let server = Hop { ifindex: 2, addr: IpAddr::from([10, 0, 0, 11]) };
//! neighbours.insert(server, Neighbour { mac: [2, 0, 0, 0, 0, 11], state: NeighbourState::Reachable });
//! let view = View {
//!     claims: Arc::new(claims),
//!     routes: Arc::new(routes),
//!     neighbours: Arc::new(neighbours),
//!     ports: Arc::new([Port::new(PortId(0), 2, "eth0", [2, 0, 0, 0, 0, 1])]),
//!     ..View::default()
//! };
//!
//! // One worker, its only device, and the wire's other end.
//! let (control, mut seats) = runner::new(RunnerConfig::default(), view)?;
//! let (device, wire) = Memory::new(16);
//! let mut worker = seats.remove(0).start(OneServer, vec![(PortId(0), Box::new(device))], None);
//!
//! // A SYN from 203.0.113.5:50000 to 192.0.2.10:80.
//! let syn = [
//!     2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 9, 9, 8, 0, // Ethernet
//!     0x45, 0, 0, 0x2c, 0x12, 0x34, 0x40, 0, 0x40, 6, 0x2a, 0x88, 203, 0, 113, 5, 192, 0, 2, 10, // IPv4
//!     0xc3, 0x50, 0, 80, 0x11, 0x22, 0x33, 0x44, 0, 0, 0, 0, 0x60, 2, 0xfa, 0xf0, 0x97, 0x1e, 0, 0, 2, 4, 5, 0xb4,
//! ];
//! wire.send(Frame::from_bytes(&syn)).unwrap();
//! worker.step(Instant::now())?;
//!
//! let sent = wire.receive().unwrap();
//! assert_eq!(sent.bytes()[..6], [2, 0, 0, 0, 0, 11]); // to the server's hardware address
//! assert_eq!(sent.bytes()[30..34], [10, 0, 0, 11]); // and its IP address
//! assert!(control.is_quiet(0));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! A program's worker thread calls [`run_once`](runner::Worker::run_once) in a loop instead of `step`, with
//! a [`Ring`](device::ring::Ring), or with the feature `af-xdp` an AF_XDP device, for each port and a TUN device as its way to the host; its control thread
//! publishes a new [`View`](view::View) whenever the kernel's tables or the services change.

pub mod balancer;
pub mod checksum;
pub mod claim;
pub mod decap;
pub mod device;
pub mod engine;
pub mod frame;
pub mod handoff;
pub mod icmp;
pub mod marks;
pub mod mirror;
pub mod neigh;
pub mod netlink;
mod nft;
pub mod refuse;
pub mod reset;
pub mod rewrite;
pub mod route;
pub mod runner;
pub mod stats;
pub mod steer;
mod sys;
pub mod tun;
pub mod view;
pub mod why;
pub mod wire;

//! The program that takes claimed frames from the driver.
//!
//! It asks of a frame what the engine asks: is the destination a service, or the source a NAT server and the destination
//! not the host's, or may a rule of marks match? Then the frame goes to the socket of its receive queue, else on to the host. Of an ICMP error the
//! quoted packet counts, also one to a tunnel's end, of a later fragment the address alone. What is not plainly ours passes: other link addresses,
//! VLAN tags, ARP and neighbour discovery, other protocols, headers that are cut off or too many.

use super::assembler::{
    Assembler, FRAME, Label, Math, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, Register, Size, When,
};
use super::marks;
use crate::sys::bpf::Instruction;
use crate::wire::ERRORS;

/// Descriptors of the maps that the program asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Maps {
    /// Endpoints: see [`key`].
    pub(super) endpoints: i32,
    /// Prefixes of receivers of packets with marks: see [`marks`].
    pub(super) marks: i32,
    /// Addresses of the host, 16 bytes each.
    pub(super) local: i32,
    /// A number for each of [`COUNTERS`], which it counts up.
    pub(super) counters: i32,
    /// Sockets by receive queue.
    pub(super) sockets: i32,
}

/// What an endpoint is in the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// A service, with its port or 0 for all ports.
    Service = 0,
    /// A NAT server, with its port or 0 for all ports.
    Server = 1,
    /// Address and protocol of a service.
    ServiceHost = 2,
    /// Address and protocol of a NAT server.
    ServerHost = 3,
    /// Address of a server behind a tunnel, with protocol and port 0: errors about what was sent to it are taken.
    TunnelServer = 4,
}

/// What frames are counted by: to services, from servers, errors about either, with marks, errors about those.
pub(super) const COUNTERS: u32 = 8;

/// Bytes of an endpoint's key: address (IPv4 mapped into IPv6), protocol, role, port.
pub(super) const KEY_LEN: usize = 20;

/// The key of an endpoint.
pub(super) fn key(addr: std::net::IpAddr, protocol: u8, role: Role, port: u16) -> [u8; KEY_LEN] {
    let mut key = [0; KEY_LEN];
    key[..16].copy_from_slice(&address(addr));
    key[16] = protocol;
    key[17] = role as u8;
    key[18..].copy_from_slice(&port.to_be_bytes());
    key
}

/// An address as maps have it.
pub(super) fn address(addr: std::net::IpAddr) -> [u8; 16] {
    match addr {
        std::net::IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        std::net::IpAddr::V6(addr) => addr.octets(),
    }
}

/// The program for an interface with this hardware address.
pub(super) fn steering(maps: Maps, mac: [u8; 6]) -> Vec<Instruction> {
    let mut code = Assembler::default();
    let at = Labels {
        pass: code.label(),
        ports: code.label(),
        later: code.label(),
        roles: code.label(),
        ask: code.label(),
    };
    let (ipv4, ipv6) = (code.label(), code.label());

    // R6 context, R7 frame, R8 its end, R9 which counter.
    code.math_by(Math::Move, R6, R1);
    code.load(Size::Word, R7, R6, 0);
    code.load(Size::Word, R8, R6, 4);
    code.math(Math::Move, R9, 0);
    need(&mut code, R7, IPV4_PAYLOAD, at.pass);
    code.load(Size::Word, R1, R7, 0);
    let [a, b, c, d, e, f] = mac;
    let word = i32::from_ne_bytes([a, b, c, d]);
    code.jump_if(R1, When::Differs, word, at.pass);
    code.load(Size::Half, R1, R7, 4);
    code.jump_if(R1, When::Differs, network16([e, f]), at.pass);
    code.load(Size::Half, R1, R7, 12);
    code.jump_if(R1, When::Equal, network16([0x08, 0x00]), ipv4);
    code.jump_if(R1, When::Equal, network16([0x86, 0xdd]), ipv6);
    code.place(at.pass);
    code.math(Math::Move, R0, XDP_PASS);
    code.exit();

    code.place(ipv4);
    read_ipv4(&mut code, at);
    code.place(ipv6);
    read_ipv6(&mut code, at);

    // R4 protocol, R5 transport header.
    code.place(at.ports);
    need(&mut code, R5, 4, at.pass);
    code.load(Size::Half, R2, R5, 2);
    code.store(Size::Half, FRAME, SERVICE + PORT, R2);
    code.store(Size::Half, FRAME, MARK + MARK_PORT, R2);
    code.load(Size::Half, R2, R5, 0);
    code.store(Size::Half, FRAME, SERVER + PORT, R2);
    code.place(at.roles);
    set_roles(&mut code, Role::Service, Role::Server);
    code.jump(at.ask);

    code.place(at.later);
    code.store_value(Size::Half, FRAME, SERVICE + PORT, 0);
    code.store_value(Size::Half, FRAME, MARK + MARK_PORT, 0);
    code.store_value(Size::Half, FRAME, SERVER + PORT, 0);
    set_roles(&mut code, Role::ServiceHost, Role::ServerHost);

    code.place(at.ask);
    ask(&mut code, maps, at);
    code.finish()
}

#[derive(Debug, Clone, Copy)]
struct Labels {
    pass: Label,
    /// The ports are to be read.
    ports: Label,
    /// A later fragment, which has none.
    later: Label,
    /// The ports have been read.
    roles: Label,
    /// The keys are complete.
    ask: Label,
}

/// IPv4: leaves the addresses in the keys, the protocol in R4, the transport header in R5.
fn read_ipv4(code: &mut Assembler, at: Labels) {
    code.store_value(Size::Byte, FRAME, MARK + MARK_ROLE, 0);
    code.load(Size::Byte, R1, R7, LINK);
    code.math_by(Math::Move, R2, R1);
    code.math(Math::ShiftRight, R2, 4);
    code.jump_if(R2, When::Differs, 4, at.pass);
    code.math(Math::And, R1, 0x0f);
    code.jump_if(R1, When::Less, 5, at.pass);
    code.math(Math::ShiftLeft, R1, 2);
    for (key, field) in [(SERVICE, LINK + 16), (SERVER, LINK + 12)] {
        code.store_value(Size::Double, FRAME, key, 0);
        let mapped = i32::from_ne_bytes([0, 0, 0xff, 0xff]);
        code.store_value(Size::Word, FRAME, key + 8, mapped);
        code.load(Size::Word, R2, R7, field);
        code.store(Size::Word, FRAME, key + 12, R2);
    }
    code.load(Size::Byte, R4, R7, LINK + 9);
    code.load(Size::Half, R3, R7, LINK + 6);
    code.jump_if(R3, When::AnyOf, network16([0x1f, 0xff]), at.later);
    code.math_by(Math::Move, R5, R7);
    code.math(Math::Add, R5, i32::from(LINK));
    code.math_by(Math::Add, R5, R1);
    code.jump_if(R4, When::Differs, 1, at.ports);

    // An error: whole, no options here nor in what it quotes, which is no later fragment.
    code.jump_if(R1, When::Differs, 20, at.pass);
    code.jump_if(R3, When::AnyOf, network16([0x20, 0x00]), at.pass);
    need(code, R7, QUOTED + 24, at.pass);
    let is_error = code.label();
    code.load(Size::Byte, R2, R7, IPV4_PAYLOAD);
    for kind in ERRORS {
        code.jump_if(R2, When::Equal, i32::from(kind), is_error);
    }
    code.jump(at.pass);
    code.place(is_error);
    code.load(Size::Byte, R2, R7, QUOTED);
    code.jump_if(R2, When::Differs, 0x45, at.pass);
    code.load(Size::Half, R2, R7, QUOTED + 6);
    code.jump_if(R2, When::AnyOf, network16([0x1f, 0xff]), at.pass);
    code.load(Size::Byte, R4, R7, QUOTED + 9);
    code.load(Size::Word, R2, R7, QUOTED + 16);
    code.store(Size::Word, FRAME, SERVER + 12, R2);
    quoted_ports(code, R7, QUOTED + 20, at);
}

/// IPv6: the same.
fn read_ipv6(code: &mut Assembler, at: Labels) {
    code.store_value(Size::Byte, FRAME, MARK + MARK_ROLE, i32::from(marks::IPV6));
    need(code, R7, IPV6_PAYLOAD, at.pass);
    code.load(Size::Byte, R1, R7, LINK);
    code.math(Math::ShiftRight, R1, 4);
    code.jump_if(R1, When::Differs, 6, at.pass);
    for (key, field) in [(SERVICE, LINK + 24), (SERVER, LINK + 8)] {
        for half in [0, 8] {
            code.load(Size::Double, R2, R7, field + half);
            code.store(Size::Double, FRAME, key + half, R2);
        }
    }
    code.load(Size::Byte, R4, R7, LINK + 6);
    code.math_by(Math::Move, R5, R7);
    code.math(Math::Add, R5, i32::from(IPV6_PAYLOAD));
    let transport = code.label();
    for _ in 0..MAX_EXTENSIONS {
        let (skip, fragment, next) = (code.label(), code.label(), code.label());
        for header in [HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS] {
            code.jump_if(R4, When::Equal, header, skip);
        }
        code.jump_if(R4, When::Equal, FRAGMENT, fragment);
        code.jump(transport);
        code.place(fragment);
        need(code, R5, 8, at.pass);
        code.load(Size::Byte, R4, R5, 0);
        code.load(Size::Half, R3, R5, 2);
        code.jump_if(R3, When::AnyOf, network16([0xff, 0xf8]), at.later);
        code.math(Math::Add, R5, 8);
        code.jump(next);
        code.place(skip);
        need(code, R5, 8, at.pass);
        code.load(Size::Byte, R4, R5, 0);
        code.load(Size::Byte, R2, R5, 1);
        code.math(Math::Add, R2, 1);
        code.math(Math::ShiftLeft, R2, 3);
        code.math_by(Math::Add, R5, R2);
        code.place(next);
    }
    for header in [HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS, FRAGMENT] {
        code.jump_if(R4, When::Equal, header, at.pass);
    }
    code.place(transport);
    code.jump_if(R4, When::Differs, ICMPV6, at.ports);

    // An error; R5 is where it begins.
    need(code, R5, 8 + 40 + 4, at.pass);
    code.load(Size::Byte, R2, R5, 0);
    code.jump_if(R2, When::Greater, 127, at.pass);
    code.load(Size::Byte, R4, R5, 8 + 6);
    for half in [0, 8] {
        code.load(Size::Double, R2, R5, 8 + 24 + half);
        code.store(Size::Double, FRAME, SERVER + half, R2);
    }
    quoted_ports(code, R5, 8 + 40, at);
}

/// The quoted sender's port belongs to the error's receiver, the quoted receiver's to the quoted receiver.
fn quoted_ports(code: &mut Assembler, base: Register, ports: i16, at: Labels) {
    code.load(Size::Half, R2, base, ports);
    code.store(Size::Half, FRAME, SERVICE + PORT, R2);
    code.store(Size::Half, FRAME, MARK + MARK_PORT, R2);
    code.load(Size::Half, R2, base, ports + 2);
    code.store(Size::Half, FRAME, SERVER + PORT, R2);
    code.math(Math::Move, R9, COUNT_ERRORS);
    code.jump(at.roles);
}

fn set_roles(code: &mut Assembler, service: Role, server: Role) {
    for (key, role) in [(SERVICE, service), (SERVER, server)] {
        code.store(Size::Byte, FRAME, key + PROTOCOL, R4);
        code.store_value(Size::Byte, FRAME, key + PROTOCOL + 1, role as i32);
    }
    code.store(Size::Byte, FRAME, MARK + MARK_PROTOCOL, R4);
    code.load(Size::Byte, R2, FRAME, MARK + MARK_ROLE);
    code.math(Math::Or, R2, service as i32);
    code.store(Size::Byte, FRAME, MARK + MARK_ROLE, R2);
}

/// Looks the keys up, and takes the frame if one is found.
fn ask(code: &mut Assembler, maps: Maps, at: Labels) {
    let (server, take, redirect) = (code.label(), code.label(), code.label());
    let (has_mark, marked) = (code.label(), code.label());
    for (key, found) in [(SERVICE, take), (SERVER, server)] {
        look_up(code, maps.endpoints, key);
        code.jump_if_pointer(R0, When::Differs, found);
        // All ports of the address.
        code.store_value(Size::Half, FRAME, key + PORT, 0);
        look_up(code, maps.endpoints, key);
        code.jump_if_pointer(R0, When::Differs, found);
    }
    // What a tunnel's packet has inside is the engine's to find out.
    code.jump_if(R9, When::Equal, 0, has_mark);
    code.store_value(Size::Byte, FRAME, SERVER + PROTOCOL, 0);
    let role = Role::TunnelServer as i32;
    code.store_value(Size::Byte, FRAME, SERVER + PROTOCOL + 1, role);
    look_up(code, maps.endpoints, SERVER);
    code.jump_if_pointer(R0, When::Differs, take);
    code.jump(has_mark);

    // A server's answer to the host itself is the host's.
    code.place(server);
    look_up(code, maps.local, SERVICE);
    code.jump_if_pointer(R0, When::Differs, has_mark);
    code.math(Math::Or, R9, COUNT_SERVERS);
    code.jump(take);

    code.place(has_mark);
    for half in [0, 8] {
        code.load(Size::Double, R2, FRAME, SERVICE + half);
        code.store(Size::Double, FRAME, MARK + MARK_ADDRESS + half, R2);
    }
    code.store_value(Size::Word, FRAME, MARK, 8 * (marks::KEY_LEN as i32 - 4));
    look_up(code, maps.marks, MARK);
    code.jump_if_pointer(R0, When::Differs, marked);
    // Any port.
    code.store_value(Size::Half, FRAME, MARK + MARK_PORT, 0);
    look_up(code, maps.marks, MARK);
    code.jump_if_pointer(R0, When::Equal, at.pass);
    code.place(marked);
    code.load(Size::Byte, R1, R0, 0);
    code.jump_if(R1, When::Differs, i32::from(marks::TAKE), at.pass);
    code.math(Math::Or, R9, COUNT_MARKED);

    code.place(take);
    code.store(Size::Word, FRAME, COUNTER, R9);
    look_up(code, maps.counters, COUNTER);
    code.jump_if_pointer(R0, When::Equal, redirect);
    code.load(Size::Double, R1, R0, 0);
    code.math(Math::Add, R1, 1);
    code.store(Size::Double, R0, 0, R1);
    code.place(redirect);
    code.load_map(R1, maps.sockets);
    code.load(Size::Word, R2, R6, CONTEXT_QUEUE);
    // A queue without a socket: better lost, and sent again, than refused by the host.
    code.math(Math::Move, R3, XDP_DROP);
    code.call(REDIRECT_MAP);
    code.exit();
}

fn look_up(code: &mut Assembler, map: i32, key: i16) {
    code.load_map(R1, map);
    code.math_by(Math::Move, R2, FRAME);
    code.math(Math::Add, R2, i32::from(key));
    code.call(MAP_LOOKUP);
}

/// Passes the frame unless there are `bytes` from the pointer on.
fn need(code: &mut Assembler, from: super::assembler::Register, bytes: i16, pass: Label) {
    code.math_by(Math::Move, R2, from);
    code.math(Math::Add, R2, i32::from(bytes));
    code.jump_if_by(R2, When::Greater, R8, pass);
}

/// Two bytes of the frame, as a load of both gives them.
fn network16(bytes: [u8; 2]) -> i32 {
    i32::from(u16::from_ne_bytes(bytes))
}

/// Keys on the stack: what the destination may be, and what the source may be.
const SERVICE: i16 = -24;
const SERVER: i16 = -48;
/// Number of the counter on the stack.
const COUNTER: i16 = -52;
/// The key of marks on the stack, and places in it.
const MARK: i16 = -80;
const MARK_PROTOCOL: i16 = 4;
const MARK_ROLE: i16 = 5;
const MARK_PORT: i16 = 6;
const MARK_ADDRESS: i16 = 8;
/// Places in a key.
const PROTOCOL: i16 = 16;
const PORT: i16 = 18;

const LINK: i16 = 14;
const IPV4_PAYLOAD: i16 = LINK + 20;
const IPV6_PAYLOAD: i16 = LINK + 40;
/// What an ICMP error quotes.
const QUOTED: i16 = IPV4_PAYLOAD + 8;

const HOP_BY_HOP: i32 = 0;
const ROUTING: i32 = 43;
const FRAGMENT: i32 = 44;
const ICMPV6: i32 = 58;
const DESTINATION_OPTIONS: i32 = 60;
/// Extension headers that are looked over; senders that mean well use one or two.
const MAX_EXTENSIONS: usize = 4;

const COUNT_SERVERS: i32 = 1;
const COUNT_ERRORS: i32 = 2;
const COUNT_MARKED: i32 = 4;

const MAP_LOOKUP: i32 = 1;
const REDIRECT_MAP: i32 = 51;
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;
/// The receive queue in `xdp_md`.
const CONTEXT_QUEUE: i16 = 16;

//! Encoder for the few nftables messages that the claim needs, and the transaction that carries them.
//!
//! A [`Batch`] collects messages; [`Nft::commit`] hands them to the kernel, which applies all or none. Tables
//! are made with the owner flag: they belong to the socket, nobody else can change them, and they vanish
//! with it.

use std::io;

use crate::netlink::{Nla, Socket, nlas};

/// A socket to nftables. Its tables live as long as it does.
#[derive(Debug)]
pub(crate) struct Nft(Socket);

impl Nft {
    pub(crate) fn open() -> io::Result<Self> {
        Socket::open(libc::NETLINK_NETFILTER).map(Self)
    }

    /// Applies a batch as one transaction. An error names the message that the kernel refused.
    pub(crate) fn commit(&mut self, mut batch: Batch) -> Result<(), (&'static str, io::Error)> {
        if let Some(family) = batch.family {
            let messages = batch.messages.iter_mut();
            messages.for_each(|message| message.body[0] = family);
        }
        let mut bytes = Vec::new();
        let begin = self.0.next_sequence();
        control(&mut bytes, BATCH_BEGIN, begin);
        let mut sent = Vec::with_capacity(batch.messages.len());
        for message in &batch.messages {
            let sequence = self.0.next_sequence();
            sent.push((sequence, message.what));
            message.write(
                &mut bytes,
                sequence,
                NLM_F_REQUEST | NLM_F_ACK | message.flags,
            );
        }
        control(&mut bytes, BATCH_END, self.0.next_sequence());
        let send_error = |error| ("send batch", error);
        self.make_room(bytes.len());
        self.0.send(&bytes).map_err(send_error)?;
        // The kernel has worked through the batch when the send returns: every answer is there.
        let mut failure = None;
        let mut answers = 0;
        loop {
            let datagram = match self.0.receive(false) {
                Ok(datagram) => datagram,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(("receive answer", error)),
            };
            for message in
                crate::netlink::messages(datagram).filter(|message| message.kind == NLMSG_ERROR)
            {
                let what = sent
                    .iter()
                    .find(|(sequence, _)| *sequence == message.sequence)
                    .map_or("commit", |(_, what)| *what);
                answers += 1;
                if let (Err(error), None) = (message.status(), &failure) {
                    failure = Some((what, error));
                }
            }
        }
        match failure {
            Some(failure) => Err(failure),
            None if answers < sent.len() => Err(("commit", io::ErrorKind::UnexpectedEof.into())),
            None => Ok(()),
        }
    }

    /// Whether a chain exists.
    pub(crate) fn has_chain(&mut self, table: &str, chain: &str) -> io::Result<bool> {
        let mut message = Message::new("find chain", GET_CHAIN, 0);
        message.text(CHAIN_TABLE, table);
        message.text(CHAIN_NAME, chain);
        let sequence = self.0.next_sequence();
        let mut bytes = Vec::new();
        message.write(&mut bytes, sequence, NLM_F_REQUEST | NLM_F_ACK);
        self.0.send(&bytes)?;
        loop {
            for message in crate::netlink::messages(self.0.receive(true)?) {
                if message.sequence == sequence && message.kind == NLMSG_ERROR {
                    return match message.status() {
                        Ok(()) => Ok(true),
                        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
                        Err(error) => Err(error),
                    };
                }
            }
        }
    }

    /// Packets and bytes of the counters of a chain's rules, in the rules' order.
    pub(crate) fn counters(&mut self, table: &str, chain: &str) -> io::Result<Vec<(u64, u64)>> {
        let mut message = Message::new("list rules", GET_RULE, 0);
        message.text(RULE_TABLE, table);
        message.text(RULE_CHAIN, chain);
        let sequence = self.0.next_sequence();
        let mut bytes = Vec::new();
        message.write(&mut bytes, sequence, NLM_F_REQUEST | NLM_F_DUMP);
        self.0.send(&bytes)?;
        let mut counters = Vec::new();
        loop {
            for message in crate::netlink::messages(self.0.receive(true)?) {
                if message.sequence != sequence {
                    continue;
                }
                match message.kind {
                    NLMSG_ERROR | NLMSG_DONE => return message.status().map(|()| counters),
                    _ => counters.extend(counter(message.payload())),
                }
            }
        }
    }

    /// A batch is one datagram; beyond the default limit only a privileged process may send.
    fn make_room(&self, length: usize) {
        if length > DEFAULT_SEND_BUFFER {
            let room = length.saturating_mul(2);
            if rustix::net::sockopt::set_socket_send_buffer_size_force(&self.0, room).is_err() {
                let _ = rustix::net::sockopt::set_socket_send_buffer_size(&self.0, room);
            }
        }
    }
}

/// Messages to be applied together.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    messages: Vec<Message>,
    /// Of the tables; `None`: of devices.
    family: Option<u8>,
}

impl Batch {
    /// For tables of a protocol family.
    pub(crate) fn of_family(family: u8) -> Self {
        Self {
            messages: Vec::new(),
            family: Some(family),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// A table owned by the socket.
    pub(crate) fn add_table(&mut self, table: &str) {
        let mut message = Message::new("add table", NEW_TABLE, NLM_F_CREATE | NLM_F_EXCL);
        message.text(TABLE_NAME, table);
        message.number(TABLE_FLAGS, TABLE_OWNER);
        self.messages.push(message);
    }

    pub(crate) fn delete_table(&mut self, table: &str) {
        let mut message = Message::new("delete table", DEL_TABLE, 0);
        message.text(TABLE_NAME, table);
        self.messages.push(message);
    }

    /// A chain that others jump to.
    pub(crate) fn add_chain(&mut self, table: &str, chain: &str) {
        let mut message = Message::new("add chain", NEW_CHAIN, NLM_F_CREATE);
        message.text(CHAIN_TABLE, table);
        message.text(CHAIN_NAME, chain);
        self.messages.push(message);
    }

    /// A chain that sees what comes in at a device.
    pub(crate) fn add_ingress_chain(&mut self, table: &str, chain: &str, device: &str) {
        let mut message = Message::new("add ingress chain", NEW_CHAIN, NLM_F_CREATE);
        message.text(CHAIN_TABLE, table);
        message.text(CHAIN_NAME, chain);
        message.nest(CHAIN_HOOK, |hook| {
            hook.number(HOOK_NUMBER, INGRESS);
            hook.number(HOOK_PRIORITY, INGRESS_PRIORITY as u32);
            hook.text(HOOK_DEVICE, device);
        });
        message.text(CHAIN_TYPE, "filter");
        self.messages.push(message);
    }

    /// A chain that sees what comes to the host or leaves it, at this hook and priority.
    pub(crate) fn add_hook_chain(&mut self, table: &str, chain: &str, hook: u32, priority: i32) {
        let mut message = Message::new("add chain", NEW_CHAIN, NLM_F_CREATE);
        message.text(CHAIN_TABLE, table);
        message.text(CHAIN_NAME, chain);
        message.nest(CHAIN_HOOK, |nest| {
            nest.number(HOOK_NUMBER, hook);
            nest.number(HOOK_PRIORITY, priority as u32);
        });
        message.text(CHAIN_TYPE, "filter");
        self.messages.push(message);
    }

    pub(crate) fn delete_chain(&mut self, table: &str, chain: &str) {
        let mut message = Message::new("delete chain", DEL_CHAIN, 0);
        message.text(CHAIN_TABLE, table);
        message.text(CHAIN_NAME, chain);
        self.messages.push(message);
    }

    /// A set of keys that consist of these fields.
    pub(crate) fn add_set(&mut self, table: &str, set: &str, fields: &[Field]) {
        let mut message = Message::new("add set", NEW_SET, NLM_F_CREATE);
        message.text(SET_TABLE, table);
        message.text(SET_NAME, set);
        message.number(SET_FLAGS, 0);
        // Told to programs that list the set: the types of the fields, six bits each.
        let kind = fields
            .iter()
            .fold(0, |kind, field| kind << 6 | field.type_number());
        message.number(SET_KEY_TYPE, kind);
        message.number(
            SET_KEY_LENGTH,
            fields.iter().map(|field| field.length()).sum(),
        );
        message.number(SET_ID, self.messages.len() as u32 + 1);
        self.messages.push(message);
    }

    pub(crate) fn add_elements(&mut self, table: &str, set: &str, keys: &[Vec<u8>]) {
        self.elements(
            "add set element",
            NEW_ELEMENT,
            NLM_F_CREATE,
            table,
            set,
            keys,
        );
    }

    pub(crate) fn delete_elements(&mut self, table: &str, set: &str, keys: &[Vec<u8>]) {
        self.elements("delete set element", DEL_ELEMENT, 0, table, set, keys);
    }

    fn elements(
        &mut self,
        what: &'static str,
        kind: u16,
        flags: u16,
        table: &str,
        set: &str,
        keys: &[Vec<u8>],
    ) {
        for some in keys.chunks(ELEMENTS_PER_MESSAGE) {
            let mut message = Message::new(what, kind, flags);
            message.text(ELEMENTS_TABLE, table);
            message.text(ELEMENTS_SET, set);
            message.nest(ELEMENTS_LIST, |list| {
                for key in some {
                    list.nest(LIST_ELEMENT, |element| {
                        element.nest(ELEMENT_KEY, |data| data.bytes(DATA_VALUE, key));
                    });
                }
            });
            self.messages.push(message);
        }
    }

    /// Takes all rules out of a chain.
    pub(crate) fn flush_chain(&mut self, table: &str, chain: &str) {
        let mut message = Message::new("flush chain", DEL_RULE, 0);
        message.text(RULE_TABLE, table);
        message.text(RULE_CHAIN, chain);
        self.messages.push(message);
    }

    pub(crate) fn add_rule(&mut self, table: &str, chain: &str, expressions: &[Expression<'_>]) {
        let mut message = Message::new("add rule", NEW_RULE, NLM_F_CREATE | NLM_F_APPEND);
        message.text(RULE_TABLE, table);
        message.text(RULE_CHAIN, chain);
        message.nest(RULE_EXPRESSIONS, |list| {
            for expression in expressions {
                list.nest(LIST_ELEMENT, |element| expression.write(element));
            }
        });
        self.messages.push(message);
    }
}

/// A part of a set's key. Each takes a multiple of four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Ipv4,
    Ipv6,
    Protocol,
    Port,
    IcmpKind,
    NextHeader,
}

impl Field {
    fn type_number(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Protocol | Self::NextHeader => 12,
            Self::Port => 13,
            Self::IcmpKind => 14,
        }
    }

    fn length(self) -> u32 {
        match self {
            Self::Ipv6 => 16,
            Self::Ipv4 | Self::Protocol | Self::Port | Self::IcmpKind | Self::NextHeader => 4,
        }
    }
}

/// A step of a rule. Registers are numbered from 0 and hold four bytes each.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expression<'a> {
    /// Loads bytes of the network header.
    Network {
        offset: u32,
        length: u32,
        register: u32,
    },
    /// Loads bytes of the transport header; no match where there is none.
    Transport {
        offset: u32,
        length: u32,
        register: u32,
    },
    /// Loads bytes of the link header as they were on the wire: of a tagged frame the tag, also where the
    /// kernel has taken it off.
    Link {
        offset: u32,
        length: u32,
        register: u32,
    },
    /// Loads whom the link layer addressed, as `PACKET_…` in one byte.
    PacketKind {
        register: u32,
    },
    /// Loads the transport protocol's number.
    Protocol {
        register: u32,
    },
    /// Loads the kind of the destination address, as the local table sees it.
    DestinationKind {
        register: u32,
    },
    /// Loads bytes of the IPv6 extension header of this kind; no match where there is none.
    Extension {
        kind: u8,
        offset: u32,
        length: u32,
        register: u32,
    },
    /// Keeps some bits of a register.
    Mask {
        register: u32,
        mask: &'a [u8],
    },
    /// Goes on only if the register holds this.
    Equal {
        register: u32,
        value: &'a [u8],
    },
    /// Loads the name of the device where the packet came in, 16 bytes.
    InterfaceName {
        register: u32,
    },
    /// Goes on only if the register holds this or more, as bytes compare.
    AtLeast {
        register: u32,
        value: &'a [u8],
    },
    /// Goes on only if the register holds this or less.
    AtMost {
        register: u32,
        value: &'a [u8],
    },
    /// Goes on only if the register does not hold this.
    Differs {
        register: u32,
        value: &'a [u8],
    },
    /// Goes on only if the registers from this one on hold a key of the set.
    Lookup {
        set: &'a str,
        register: u32,
    },
    Counter,
    Drop,
    /// Looks no further; the host has it.
    Accept,
    /// Back to the chain that led here.
    Return,
    /// Goes on in another chain, and then here.
    Jump(&'a str),
    /// Goes on in another chain, and then where this one was called from.
    Goto(&'a str),
}

impl Expression<'_> {
    fn write(&self, element: &mut Message) {
        match *self {
            Self::Network {
                offset,
                length,
                register,
            } => payload(element, NETWORK, offset, length, register),
            Self::Transport {
                offset,
                length,
                register,
            } => {
                payload(element, TRANSPORT, offset, length, register);
            }
            Self::Link {
                offset,
                length,
                register,
            } => payload(element, LINK, offset, length, register),
            Self::PacketKind { register } => meta(element, META_PKTTYPE, register),
            Self::Protocol { register } => meta(element, META_L4PROTO, register),
            Self::DestinationKind { register } => element.expression("fib", |fib| {
                fib.number(1, FIRST_REGISTER + register);
                fib.number(2, FIB_ADDRESS_TYPE);
                fib.number(3, FIB_DESTINATION);
            }),
            Self::Extension {
                kind,
                offset,
                length,
                register,
            } => element.expression("exthdr", |header| {
                header.number(1, FIRST_REGISTER + register);
                header.bytes(2, &[kind]);
                header.number(3, offset);
                header.number(4, length);
            }),
            Self::Mask { register, mask } => element.expression("bitwise", |bitwise| {
                bitwise.number(1, FIRST_REGISTER + register);
                bitwise.number(2, FIRST_REGISTER + register);
                bitwise.number(3, mask.len() as u32);
                bitwise.nest(4, |data| data.bytes(DATA_VALUE, mask));
                bitwise.nest(5, |data| {
                    data.bytes(DATA_VALUE, &[0; 16][..mask.len().min(16)]);
                });
            }),
            Self::Equal { register, value } => compare(element, 0, register, value),
            Self::InterfaceName { register } => meta(element, META_IIFNAME, register),
            Self::AtMost { register, value } => compare(element, 3, register, value),
            Self::AtLeast { register, value } => compare(element, 5, register, value),
            Self::Differs { register, value } => compare(element, 1, register, value),
            Self::Lookup { set, register } => element.expression("lookup", |lookup| {
                lookup.text(1, set);
                lookup.number(2, FIRST_REGISTER + register);
            }),
            // A counter without attributes starts at zero.
            Self::Counter => element.expression("counter", |_| {}),
            Self::Drop => verdict(element, 0, None),
            Self::Accept => verdict(element, 1, None),
            Self::Return => verdict(element, -5, None),
            Self::Jump(chain) => verdict(element, -3, Some(chain)),
            Self::Goto(chain) => verdict(element, -4, Some(chain)),
        }
    }
}

fn payload(element: &mut Message, base: u32, offset: u32, length: u32, register: u32) {
    element.expression("payload", |payload| {
        payload.number(1, FIRST_REGISTER + register);
        payload.number(2, base);
        payload.number(3, offset);
        payload.number(4, length);
    });
}

fn meta(element: &mut Message, key: u32, register: u32) {
    element.expression("meta", |meta| {
        meta.number(1, FIRST_REGISTER + register);
        meta.number(2, key);
    });
}

fn compare(element: &mut Message, operator: u32, register: u32, value: &[u8]) {
    element.expression("cmp", |compare| {
        compare.number(1, FIRST_REGISTER + register);
        compare.number(2, operator);
        compare.nest(3, |data| data.bytes(DATA_VALUE, value));
    });
}

fn verdict(element: &mut Message, code: i32, chain: Option<&str>) {
    element.expression("immediate", |immediate| {
        immediate.number(1, VERDICT_REGISTER);
        immediate.nest(2, |data| {
            data.nest(DATA_VERDICT, |verdict| {
                verdict.number(1, code as u32);
                if let Some(chain) = chain {
                    verdict.text(2, chain);
                }
            });
        });
    });
}

/// One message: family header and attributes, which are big endian here.
#[derive(Debug)]
struct Message {
    what: &'static str,
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    fn new(what: &'static str, kind: u16, flags: u16) -> Self {
        Self {
            what,
            kind: SUBSYSTEM << 8 | kind,
            flags,
            body: vec![FAMILY_NETDEV, 0, 0, 0],
        }
    }

    fn bytes(&mut self, kind: u16, value: &[u8]) {
        let length = (4 + value.len()) as u16;
        self.body.extend_from_slice(&length.to_ne_bytes());
        self.body.extend_from_slice(&kind.to_ne_bytes());
        self.body.extend_from_slice(value);
        self.body.resize(self.body.len().next_multiple_of(4), 0);
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    fn text(&mut self, kind: u16, value: &str) {
        let mut value = value.as_bytes().to_vec();
        value.push(0);
        self.bytes(kind, &value);
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.body.len();
        self.bytes(kind | NESTED, &[]);
        fill(self);
        let length = (self.body.len() - start) as u16;
        self.body[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Self)) {
        self.text(EXPRESSION_NAME, name);
        self.nest(EXPRESSION_DATA, fill);
    }

    fn write(&self, bytes: &mut Vec<u8>, sequence: u32, flags: u16) {
        header(bytes, self.body.len(), self.kind, flags, sequence);
        bytes.extend_from_slice(&self.body);
    }
}

fn header(bytes: &mut Vec<u8>, body: usize, kind: u16, flags: u16, sequence: u32) {
    bytes.extend_from_slice(&(16 + body as u32).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4]);
}

/// Begin or end of a batch; it names the subsystem, big endian.
fn control(bytes: &mut Vec<u8>, kind: u16, sequence: u32) {
    header(bytes, 4, kind, NLM_F_REQUEST, sequence);
    let [high, low] = SUBSYSTEM.to_be_bytes();
    bytes.extend_from_slice(&[0, 0, high, low]);
}

/// Packets and bytes of the first counter of a listed rule.
fn counter(payload: &[u8]) -> Option<(u64, u64)> {
    let find = |bytes, wanted| {
        nlas(bytes)
            .find(|(kind, _): &Nla<'_>| *kind == wanted)
            .map(|(_, value)| value)
    };
    let expressions = find(payload.get(4..)?, RULE_EXPRESSIONS)?;
    nlas(expressions).find_map(|(_, expression)| {
        let name = find(expression, EXPRESSION_NAME)?;
        if name.strip_suffix(&[0]).unwrap_or(name) != b"counter" {
            return None;
        }
        let data = find(expression, EXPRESSION_DATA)?;
        let number = |kind| Some(u64::from_be_bytes(*find(data, kind)?.first_chunk()?));
        Some((number(2)?, number(1)?))
    })
}

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NESTED: u16 = 0x8000;

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const FAMILY_NETDEV: u8 = 5;

const NEW_TABLE: u16 = 0;
const DEL_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const DEL_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const DEL_RULE: u16 = 8;
const GET_RULE: u16 = 7;
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;
const DEL_ELEMENT: u16 = 14;

const TABLE_NAME: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const TABLE_OWNER: u32 = 2;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const HOOK_DEVICE: u16 = 3;
const INGRESS: u32 = 0;
/// Before any other chain: what is claimed is nobody else's.
const INGRESS_PRIORITY: i32 = -500;
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LENGTH: u16 = 5;
const SET_ID: u16 = 10;
const ELEMENTS_TABLE: u16 = 1;
const ELEMENTS_SET: u16 = 2;
const ELEMENTS_LIST: u16 = 3;
const LIST_ELEMENT: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;

const LINK: u32 = 0;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
const META_IIFNAME: u32 = 6;
const META_L4PROTO: u32 = 16;
const META_PKTTYPE: u32 = 19;
const FIB_ADDRESS_TYPE: u32 = 3;
const FIB_DESTINATION: u32 = 2;
const VERDICT_REGISTER: u32 = 0;
/// Number of the first four-byte register.
const FIRST_REGISTER: u32 = 8;

/// A list attribute's length has 16 bits; the longest element takes 36 bytes.
const ELEMENTS_PER_MESSAGE: usize = 1000;
/// What every system lets a socket queue.
const DEFAULT_SEND_BUFFER: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_nest_and_align() {
        let mut message = Message::new("test", NEW_RULE, 0);
        message.text(1, "ab");
        message.nest(4, |list| list.number(1, 0x0102_0304));
        assert_eq!(
            message.body,
            [
                [5, 0, 0, 0],
                [7, 0, 1, 0],
                [b'a', b'b', 0, 0],
                [12, 0, 4, 0x80],
                [8, 0, 1, 0],
                [1, 2, 3, 4],
            ]
            .concat()
        );
        let mut bytes = Vec::new();
        message.write(&mut bytes, 9, 5);
        assert_eq!(bytes[..8], [40, 0, 0, 0, 6, 10, 5, 0]);
        assert_eq!(bytes[8..16], [9, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn many_elements_are_spread_over_messages() {
        let mut batch = Batch::default();
        let keys: Vec<Vec<u8>> = (0..2500u32)
            .map(|n| [n, 0, 0, 0, 0, 0].map(u32::to_be_bytes).concat())
            .collect();
        batch.add_elements("t", "s", &keys);
        assert_eq!(batch.messages.len(), 3);
        assert!(
            batch
                .messages
                .iter()
                .all(|message| message.body.len() < 0xffff)
        );
    }

    #[test]
    fn a_listed_counter_is_read() {
        let mut message = Message::new("test", NEW_RULE, 0);
        message.nest(RULE_EXPRESSIONS, |list| {
            list.nest(LIST_ELEMENT, |element| meta(element, META_L4PROTO, 0));
            list.nest(LIST_ELEMENT, |element| {
                element.expression("counter", |counter| {
                    counter.bytes(1, &600u64.to_be_bytes());
                    counter.bytes(2, &7u64.to_be_bytes());
                });
            });
        });
        assert_eq!(counter(&message.body), Some((7, 600)));
        assert_eq!(counter(&message.body[..20]), None);
        assert_eq!(counter(&[]), None);
    }
}

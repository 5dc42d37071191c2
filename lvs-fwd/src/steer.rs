//! Which worker owns a flow, and the program that asks the kernel to agree.
//!
//! The owner is computed from the client's address alone, so that both directions of a flow, and its
//! fragments, meet the same connection table. The client is the source of what goes to a virtual address
//! and the destination of what comes back. [`program`] builds the same function as a classic BPF program
//! for a packet socket's fan-out group. Answers to a local address (FULLNAT) do not name the client: there the port names the
//! worker. The program is a hint: it knows addresses but not ports, and the
//! kernel may renumber a group when a socket leaves. A frame at the wrong worker is handed over.

use std::net::IpAddr;

/// The worker, from 0 to `workers - 1`, that owns a client's flows. With fewer than two workers it is 0.
#[inline]
pub fn owner(client: IpAddr, workers: u32) -> u32 {
    if workers < 2 {
        return 0;
    }
    (fold(client).wrapping_mul(MULTIPLIER) >> SHIFT) % workers
}

/// The worker that owns the connection with a port at a local address (FULLNAT): its low bits, as many as workers need.
#[inline]
pub fn owner_of_port(port: u16, workers: u32) -> u32 {
    let workers = workers.max(1);
    // A port that names nobody is nobody's connection.
    (u32::from(port) & (workers.next_power_of_two() - 1)) % workers
}

/// A place from 0 to `places - 1` for an address, independent of its owner: tables of one worker, which sees
/// only its own clients, are to be filled evenly.
#[inline]
pub(crate) fn place(addr: &IpAddr, places: usize) -> usize {
    let hash = u64::from(fold(*addr)).wrapping_mul(PLACE_MULTIPLIER);
    (hash >> 32) as usize % places
}

/// One classic BPF instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if a comparison holds.
    pub jump_true: u8,
    /// Instructions to skip if it doesn't.
    pub jump_false: u8,
    /// Operand.
    pub operand: u32,
}

/// The fan-out program: a destination that is one of `vips` → hash the source, else hash the destination.
///
/// The kernel takes 4,096 instructions at most. If the addresses don't fit, the program hashes the source
/// of everything: inbound frames are steered right, replies are handed over.
pub fn program(vips: &[IpAddr], workers: u32) -> Vec<Instruction> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for vip in vips {
        match vip {
            IpAddr::V4(addr) => v4.push(u32::from(*addr)),
            IpAddr::V6(addr) => v6.push(words(&addr.octets())),
        }
    }
    let fits = 2 * v4.len() + 9 * v6.len() + FIXED_LEN <= MAX_LEN;
    let mut code = Assembler::default();

    code.op(LD_W_ABS, AD_PROTOCOL);
    // IPv4?
    code.jump_if(ETHERTYPE_IPV4, 1, 0);
    let to_v6 = code.jump();
    if fits {
        code.op(LD_W_ABS, NETWORK + 16);
        let to_source: Vec<usize> = v4
            .iter()
            .map(|&vip| {
                code.jump_if(vip, 0, 1);
                code.jump()
            })
            .collect();
        code.hash(workers);
        for jump in to_source {
            code.land(jump);
        }
    }
    code.op(LD_W_ABS, NETWORK + 12);
    code.hash(workers);

    code.land(to_v6);
    code.op(LD_W_ABS, AD_PROTOCOL);
    code.jump_if(ETHERTYPE_IPV6, 1, 0);
    code.op(RET_K, 0);
    if fits {
        let to_source: Vec<usize> = v6
            .iter()
            .map(|vip| {
                for (n, &word) in vip.iter().enumerate() {
                    code.op(LD_W_ABS, NETWORK + 24 + 4 * n as u32);
                    // What is left of this address's instructions: two a word, and the jump.
                    code.jump_if(word, 0, (2 * (3 - n) + 1) as u8);
                }
                code.jump()
            })
            .collect();
        code.fold(NETWORK + 24);
        code.hash(workers);
        for jump in to_source {
            code.land(jump);
        }
    }
    code.fold(NETWORK + 8);
    code.hash(workers);
    code.0
}

/// An address as one word; the four words of an IPv6 address are XORed.
#[inline]
fn fold(client: IpAddr) -> u32 {
    match client {
        IpAddr::V4(addr) => u32::from(addr),
        IpAddr::V6(addr) => words(&addr.octets())
            .into_iter()
            .fold(0, |all, word| all ^ word),
    }
}

fn words(octets: &[u8; 16]) -> [u32; 4] {
    let word = |at: usize| {
        u32::from_be_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
    };
    [word(0), word(4), word(8), word(12)]
}

#[derive(Debug, Default)]
struct Assembler(Vec<Instruction>);

impl Assembler {
    fn op(&mut self, code: u16, operand: u32) {
        self.0.push(Instruction {
            code,
            jump_true: 0,
            jump_false: 0,
            operand,
        });
    }

    /// Compares the accumulator and skips instructions.
    fn jump_if(&mut self, operand: u32, jump_true: u8, jump_false: u8) {
        self.0.push(Instruction {
            code: JEQ_K,
            jump_true,
            jump_false,
            operand,
        });
    }

    /// A jump whose target is set by [`land`](Self::land).
    fn jump(&mut self) -> usize {
        self.op(JA, 0);
        self.0.len() - 1
    }

    fn land(&mut self, jump: usize) {
        self.0[jump].operand = (self.0.len() - jump - 1) as u32;
    }

    /// Loads an IPv6 address folded to one word.
    fn fold(&mut self, at: u32) {
        self.op(LD_W_ABS, at);
        for word in 1..4 {
            self.op(TAX, 0);
            self.op(LD_W_ABS, at + 4 * word);
            self.op(XOR_X, 0);
        }
    }

    /// Returns the owner of the accumulator's address.
    fn hash(&mut self, workers: u32) {
        self.op(MUL_K, MULTIPLIER);
        self.op(RSH_K, SHIFT);
        self.op(MOD_K, workers.max(1));
        self.op(RET_A, 0);
    }
}

const MULTIPLIER: u32 = 0x9E37_79B1;
const SHIFT: u32 = 16;
const PLACE_MULTIPLIER: u64 = 0x9fb2_1c65_1e98_df25;

/// Loads at this offset count from the network header, wherever the kernel lets the program begin.
const NETWORK: u32 = -0x10_0000_i32 as u32;
/// The kernel's pseudo-offset for the EtherType in host byte order.
const AD_PROTOCOL: u32 = -0x1000_i32 as u32;
const ETHERTYPE_IPV4: u32 = 0x0800;
const ETHERTYPE_IPV6: u32 = 0x86dd;

const LD_W_ABS: u16 = 0x20;
const JEQ_K: u16 = 0x15;
const JA: u16 = 0x05;
const MUL_K: u16 = 0x24;
const RSH_K: u16 = 0x74;
const MOD_K: u16 = 0x94;
const XOR_X: u16 = 0xac;
const TAX: u16 = 0x07;
const RET_K: u16 = 0x06;
const RET_A: u16 = 0x16;

const MAX_LEN: usize = 4096;
/// Instructions beside those of the addresses, rounded up.
const FIXED_LEN: usize = 64;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    /// Runs a program over an IP packet as the kernel would.
    fn run(program: &[Instruction], packet: &[u8]) -> u32 {
        let (mut a, mut x, mut pc) = (0u32, 0u32, 0usize);
        loop {
            let op = program[pc];
            pc += 1;
            match op.code {
                LD_W_ABS if op.operand == AD_PROTOCOL => {
                    a = if packet[0] >> 4 == 4 {
                        ETHERTYPE_IPV4
                    } else {
                        ETHERTYPE_IPV6
                    };
                }
                LD_W_ABS => {
                    let at = op.operand.wrapping_sub(NETWORK) as usize;
                    a = u32::from_be_bytes(packet[at..at + 4].try_into().unwrap());
                }
                JEQ_K => {
                    let skip = if a == op.operand {
                        op.jump_true
                    } else {
                        op.jump_false
                    };
                    pc += usize::from(skip);
                }
                JA => pc += op.operand as usize,
                MUL_K => a = a.wrapping_mul(op.operand),
                RSH_K => a >>= op.operand,
                MOD_K => a %= op.operand,
                XOR_X => a ^= x,
                TAX => x = a,
                RET_K => return op.operand,
                RET_A => return a,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    fn packet(source: IpAddr, destination: IpAddr) -> Vec<u8> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut packet = vec![0; 20];
                packet[0] = 0x45;
                packet[12..16].copy_from_slice(&source.octets());
                packet[16..20].copy_from_slice(&destination.octets());
                packet
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut packet = vec![0; 40];
                packet[0] = 0x60;
                packet[8..24].copy_from_slice(&source.octets());
                packet[24..40].copy_from_slice(&destination.octets());
                packet
            }
            _ => panic!("one family"),
        }
    }

    proptest! {
        #[test]
        fn the_program_agrees_with_the_owner(
            vips4 in prop::collection::vec(any::<u32>(), 0..300),
            vips6 in prop::collection::vec(any::<u128>(), 0..20),
            client4 in any::<u32>(),
            client6 in any::<u128>(),
            server4 in any::<u32>(),
            server6 in any::<u128>(),
            workers in 1u32..17,
        ) {
            let vips: Vec<IpAddr> = vips4
                .into_iter()
                .map(|vip| IpAddr::V4(vip.into()))
                .chain(vips6.into_iter().map(|vip| IpAddr::V6(vip.into())))
                .collect();
            let program = program(&vips, workers);
            let client = |vip: &IpAddr| -> IpAddr {
                if vip.is_ipv4() { Ipv4Addr::from(client4).into() } else { Ipv6Addr::from(client6).into() }
            };
            for vip in &vips {
                let client = client(vip);
                prop_assert_eq!(run(&program, &packet(client, *vip)), owner(client, workers));
            }
            for server in [IpAddr::V4(server4.into()), IpAddr::V6(server6.into())] {
                let client = client(&server);
                if !vips.contains(&server) && !vips.contains(&client) {
                    prop_assert_eq!(run(&program, &packet(server, client)), owner(client, workers));
                }
            }
        }
    }

    #[test]
    fn too_many_addresses_fall_back_to_the_source() {
        let vips: Vec<IpAddr> = (0..3000u32).map(|n| IpAddr::V4(n.into())).collect();
        let program = program(&vips, 4);
        assert!(program.len() <= MAX_LEN);
        let client = IpAddr::V4([203, 0, 113, 5].into());
        assert_eq!(run(&program, &packet(client, vips[7])), owner(client, 4));
    }

    #[test]
    fn one_worker_owns_everything() {
        assert_eq!(owner(IpAddr::V4(Ipv4Addr::BROADCAST), 1), 0);
        assert_eq!(owner(IpAddr::V4(Ipv4Addr::BROADCAST), 0), 0);
    }
}

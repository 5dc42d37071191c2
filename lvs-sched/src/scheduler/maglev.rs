use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::hash::sip13;
use super::{Peek, Request, Scheduler, Servers, SharedPick, Superseded};

/// `maglev`, consistent hashing that does not depend on the order of the servers.
///
/// A table of 65537 slots, filled as in Eisenbud et al., "Maglev: A Fast and Reliable Software
/// Network Load Balancer" (NSDI 2016), section 3.4. What differs from the kernel's
/// [`mh`](crate::MaglevHash):
///
/// * Servers take turns in the order of a keyed hash of their addresses, so directors with the same
///   servers, weights and key have the same table, however they came to it;
///   [`fingerprint`](crate::VirtualService::fingerprint) proves it.
/// * Shares follow the weights exactly, not cut to a few bits; each server with a weight has at
///   least one slot.
/// * A quiesced or unhealthy server has no slots: its clients go to others at once, and nearly all
///   other clients stay where they are.
/// * The clients of an overloaded server are tried elsewhere, each with an order of its own.
///
/// The client's address, with [`PORT`](crate::SchedulerFlags::PORT) also its port, is hashed to 64
/// bits with a key, so that nobody who does not know it can tell beforehand which clients meet at one server. The hash
/// is two multiplications whose halves are folded: the same on every machine, and a fraction of the cost of SipHash,
/// whose strength protects nothing here, since a client sees where it went.
#[derive(Debug)]
pub struct Maglev {
    slots: u32,
    key: [u64; 2],
    /// Built when it is first needed after a change.
    table: Option<Arc<Table>>,
}

/// A number of slots that is no prime in `2..2^24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidSlots(u32);

impl fmt::Display for InvalidSlots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} slots: not a prime below 2^24", self.0)
    }
}

impl std::error::Error for InvalidSlots {}

#[derive(Debug)]
struct Table {
    key: [u64; 2],
    /// Positions in the list; none without a usable weight.
    slots: Vec<u32>,
    /// Some server has a threshold. Without one whoever has a slot is usable: any other change makes a new table.
    is_limited: bool,
}

impl Maglev {
    /// 65537 slots.
    pub fn new(key: [u64; 2]) -> Self {
        Self {
            slots: SLOTS,
            key,
            table: None,
        }
    }

    /// Another size; a good one is about 100 times the number of servers.
    ///
    /// # Errors
    /// [`InvalidSlots`] if `slots` is not a prime below 2^24.
    pub fn with_slots(key: [u64; 2], slots: u32) -> Result<Self, InvalidSlots> {
        if !(2..1 << 24).contains(&slots) || !is_prime(slots) {
            return Err(InvalidSlots(slots));
        }
        Ok(Self {
            slots,
            key,
            table: None,
        })
    }

    fn table(&mut self, servers: &Servers) -> &Arc<Table> {
        let (slots, key) = (self.slots, self.key);
        self.table
            .get_or_insert_with(|| Arc::new(Table::new(servers, slots, key)))
    }
}

impl Default for Maglev {
    fn default() -> Self {
        Self::new([0, 0])
    }
}

impl Scheduler for Maglev {
    fn pick(&mut self, servers: &Servers, request: &Request) -> Option<usize> {
        self.table(servers).pick(servers, request)
    }

    fn peek(&mut self, servers: &Servers, request: &Request) -> Peek {
        Peek::Known(self.pick(servers, request))
    }

    fn list_changed(&mut self) {
        self.table = None;
    }

    fn share(&mut self, servers: &Servers) -> Option<Arc<dyn SharedPick>> {
        if (self.table.as_ref()).is_some_and(|table| table.is_limited != servers.is_limited()) {
            self.table = None;
        }
        Some(Arc::clone(self.table(servers)) as _)
    }

    fn fingerprint(&mut self, servers: &Servers) -> Option<u64> {
        Some(self.table(servers).fingerprint(servers))
    }
}

impl SharedPick for Table {
    fn pick(&self, servers: &Servers, request: &Request) -> Result<Option<usize>, Superseded> {
        Ok(Self::pick(self, servers, request))
    }

    fn peek(&self, servers: &Servers, request: &Request) -> Peek {
        Peek::Known(Self::pick(self, servers, request))
    }

    fn is_traceless(&self) -> bool {
        true
    }
}

impl Table {
    fn new(servers: &Servers, slots: u32, key: [u64; 2]) -> Self {
        let mut members: Vec<_> = servers
            .iter()
            .enumerate()
            .map(|(index, server)| Member {
                rank: (hash_addr(key, server.addr(), FIRST), server.addr()),
                index: index as u32,
                weight: server.effective_weight().get(),
            })
            .filter(|member| member.weight > 0)
            .collect();
        let is_limited = servers.is_limited();
        if members.is_empty() {
            return Self {
                key,
                slots: Vec::new(),
                is_limited,
            };
        }
        members.sort_unstable_by_key(|member| member.rank);
        let mut board = Board::new(slots, key, &members);
        let largest = members.iter().map(|member| member.weight).max();
        let largest = u64::from(largest.unwrap_or(1));
        if members
            .iter()
            .all(|member| u64::from(member.weight) == largest)
        {
            (0..members.len())
                .cycle()
                .take(slots as usize)
                .for_each(|player| board.claim(player));
        } else {
            // Each server's turns are evenly spaced: one in `largest / weight` units of time. The
            // first turn of all comes at once, so that everybody has one slot.
            let pause = |player: usize| (largest << PAUSE_BITS) / u64::from(members[player].weight);
            let mut turns: BinaryHeap<_> = (0..members.len())
                .map(|player| Reverse((0_u64, player)))
                .collect();
            for _ in 0..slots {
                let Some(mut turn) = turns.peek_mut() else {
                    break;
                };
                let Reverse((time, player)) = *turn;
                board.claim(player);
                *turn = Reverse((time + pause(player), player));
            }
        }
        Self {
            key,
            slots: board.slots,
            is_limited,
        }
    }

    fn pick(&self, servers: &Servers, request: &Request) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let hash = hash_client(self.key, request.client.ip(), request.port());
        let first = self.slots[below(hash, self.slots.len())] as usize;
        if !self.is_limited || servers[first].is_usable() {
            return Some(first);
        }
        self.pick_instead(servers, hash)
    }

    /// Another server for a client whose own is overloaded: further slots by hash, then whoever
    /// comes next in the list.
    #[cold]
    fn pick_instead(&self, servers: &Servers, mut hash: u64) -> Option<usize> {
        for _ in 0..TRIES {
            hash = hash
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                .rotate_left(29)
                .wrapping_add(1);
            let index = self.slots[below(hash, self.slots.len())] as usize;
            if servers[index].is_usable() {
                return Some(index);
            }
        }
        let start = self.slots[below(hash, self.slots.len())] as usize;
        (start..servers.len())
            .chain(0..start)
            .find(|index| servers[*index].is_usable())
    }

    /// Of the key and of the server in each slot.
    fn fingerprint(&self, servers: &Servers) -> u64 {
        let names: Vec<_> = servers
            .iter()
            .map(|server| hash_addr(self.key, server.addr(), SECOND))
            .collect();
        let words: Vec<_> = self
            .slots
            .iter()
            .map(|slot| names[*slot as usize])
            .collect();
        sip13(self.key, &words, CLIENT_HASH, 1)
    }
}

struct Member {
    /// Place in the order of turns; the address decides should two hashes be equal.
    rank: (u64, SocketAddr),
    index: u32,
    weight: u32,
}

/// A table that is being filled.
struct Board {
    slots: Vec<u32>,
    taken: Vec<u64>,
    players: Vec<Player>,
}

#[derive(Clone, Copy)]
struct Player {
    index: u32,
    next: u32,
    skip: u32,
}

impl Board {
    fn new(slots: u32, key: [u64; 2], members: &[Member]) -> Self {
        let player = |member: &Member| {
            let (first, addr) = member.rank;
            Player {
                index: member.index,
                next: below(first, slots as usize) as u32,
                skip: below(hash_addr(key, addr, SECOND), slots as usize - 1) as u32 + 1,
            }
        };
        Self {
            slots: vec![0; slots as usize],
            taken: vec![0; slots.div_ceil(64) as usize],
            players: members.iter().map(player).collect(),
        }
    }

    /// The player takes the next free slot of its list. Called at most once for each slot.
    fn claim(&mut self, player: usize) {
        let Player { index, next, skip } = &mut self.players[player];
        let len = self.slots.len() as u32;
        loop {
            let slot = *next;
            *next += *skip;
            if *next >= len {
                *next -= len;
            }
            let (word, bit) = ((slot / 64) as usize, 1 << (slot % 64));
            if self.taken[word] & bit == 0 {
                self.taken[word] |= bit;
                self.slots[slot as usize] = *index;
                return;
            }
        }
    }
}

/// Maps a hash to `0..len`.
fn below(hash: u64, len: usize) -> usize {
    ((u128::from(hash) * len as u128) >> 64) as usize
}

/// Not for tables that have to be equal between versions of it: see [`CLIENT_HASH`].
#[inline]
fn hash_client(key: [u64; 2], client: IpAddr, port: u16) -> u64 {
    let port = u64::from(port);
    let (first, second) = match client {
        IpAddr::V4(ip) => (u64::from(ip.to_bits()) << 16 | port, 0),
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            ((bits >> 64) as u64, bits as u64 ^ port.rotate_left(48))
        }
    };
    let half = folded_product(first ^ key[0] ^ MIX[0], second ^ key[1] ^ MIX[1]);
    folded_product(half ^ key[1], second ^ key[0] ^ MIX[2])
}

/// Both halves of the product of 128 bits in one.
#[inline]
fn folded_product(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

fn hash_addr(key: [u64; 2], addr: SocketAddr, purpose: u64) -> u64 {
    let bits = match addr.ip() {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let words = [purpose, (bits >> 64) as u64, bits as u64];
    sip13(key, &words, u64::from(addr.port()), 2)
}

fn is_prime(number: u32) -> bool {
    number >= 2
        && (2..)
            .take_while(|divisor| divisor * divisor <= number)
            .all(|divisor| !number.is_multiple_of(divisor))
}

const SLOTS: u32 = 65_537;
const TRIES: usize = 64;
/// Precision of the spacing of turns. With 20 bits the latest turn of all stays below 2^52.
const PAUSE_BITS: u32 = 20;
const FIRST: u64 = 1;
const SECOND: u64 = 2;
/// Tells fingerprints of directors apart that hash clients differently: another number for another `hash_client`.
const CLIENT_HASH: u64 = 2;
/// Random: the first hexadecimal digits of pi's fraction.
const MIX: [u64; 3] = [
    0x243F_6A88_85A3_08D3,
    0x1319_8A2E_0370_7344,
    0xA409_3822_299F_31D0,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::scheduler::tests::{Pool, addr, weighing};
    use crate::{SchedulerKind, ServiceConfig, VirtualService};

    const SERVERS: [(char, u32); 6] = [('A', 1), ('B', 2), ('C', 3), ('D', 1), ('E', 40), ('F', 7)];

    fn counts(pool: &Pool) -> Vec<usize> {
        let servers = pool.servers();
        let table = Table::new(&servers, SLOTS, [0, 0]);
        let mut counts = vec![0; servers.len()];
        table
            .slots
            .iter()
            .for_each(|slot| counts[*slot as usize] += 1);
        counts
    }

    fn owners(pool: &Pool) -> Vec<SocketAddr> {
        let servers = pool.servers();
        let table = Table::new(&servers, SLOTS, [0, 0]);
        table
            .slots
            .iter()
            .map(|slot| servers[*slot as usize].addr())
            .collect()
    }

    #[test]
    fn the_order_of_adding_does_not_matter() {
        let one = Pool::adding(SchedulerKind::Maglev, &SERVERS);
        let mut other = SERVERS;
        other.reverse();
        other.swap(1, 4);
        let other = Pool::adding(SchedulerKind::Maglev, &other);
        assert_eq!(owners(&one), owners(&other));
        let print = one.service.fingerprint();
        assert!(print.is_some());
        assert_eq!(print, other.service.fingerprint());
        other.edit('A', 0);
        assert_ne!(print, other.service.fingerprint());
        other.edit('A', 1);
        assert_eq!(print, other.service.fingerprint());
        for client in ["10.0.0.1", "192.0.2.77", "2001:db8::5"] {
            assert_eq!(one.addr_for(client), other.addr_for(client), "{client}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn the_table_depends_on_who_is_there_and_on_nothing_before(
            steps in prop::collection::vec((0_u8..12, 0_u32..9), 1..40),
        ) {
            let pool = Pool::adding(SchedulerKind::Maglev, &[]);
            let mut there = BTreeMap::new();
            for (server, weight) in steps {
                let name = char::from(b'A' + server);
                if weight == 8 {
                    if there.remove(&name).is_some() {
                        pool.remove(name);
                    }
                } else if there.insert(name, weight).is_some() {
                    pool.edit(name, weight);
                } else {
                    pool.service.add_server(addr(name), weighing(weight)).unwrap();
                }
                pool.pick();
            }
            let fresh: Vec<_> = there.into_iter().collect();
            let fresh = Pool::adding(SchedulerKind::Maglev, &fresh);
            prop_assert_eq!(pool.service.fingerprint(), fresh.service.fingerprint());
            for client in 0..200 {
                let client = format!("10.0.{client}.{client}");
                prop_assert_eq!(pool.addr_for(&client), fresh.addr_for(&client));
            }
        }
    }

    #[test]
    fn slots_follow_the_weights() {
        let pool = Pool::filled(SchedulerKind::Maglev, &SERVERS);
        let total: u32 = SERVERS.iter().map(|(_, weight)| weight).sum();
        for (count, (name, weight)) in counts(&pool).into_iter().zip(SERVERS) {
            let share = f64::from(SLOTS) * f64::from(weight) / f64::from(total);
            assert!(
                (count as f64 - share).abs() < 2.0,
                "{name}: {count}, {share}"
            );
        }
        let pool = Pool::filled(SchedulerKind::Maglev, &[('A', i32::MAX as u32), ('B', 1)]);
        assert_eq!(counts(&pool), [SLOTS as usize - 1, 1]);
    }

    #[test]
    fn a_quiesced_server_hands_over_its_slots_and_few_others() {
        let pool = Pool::filled(SchedulerKind::Maglev, &SERVERS);
        let before = owners(&pool);
        pool.edit('C', 0);
        let after = owners(&pool);
        let gone = addr('C');
        assert!(!after.contains(&gone));
        let moved = before
            .iter()
            .zip(&after)
            .filter(|(before, after)| **before != gone && before != after)
            .count();
        assert!(moved * 100 < before.len() * 3, "{moved}");
        pool.edit('C', 3);
        assert_eq!(owners(&pool), before);
    }

    #[test]
    fn an_overloaded_server_is_replaced_client_by_client() {
        let pool = Pool::filled(SchedulerKind::Maglev, &[('A', 1), ('B', 1), ('C', 1)]);
        let clients: Vec<String> = (0..300)
            .map(|i| format!("10.0.{}.{}", i / 250, i % 250))
            .collect();
        let before: Vec<_> = clients.iter().map(|client| pool.addr_for(client)).collect();
        pool.overload('B', true);
        let mut to = [0, 0];
        for (client, before) in clients.iter().zip(before) {
            let after = pool.addr_for(client);
            if before == Some(addr('B')) {
                to[usize::from(after == Some(addr('A')))] += 1;
                assert_ne!(after, before);
            } else {
                assert_eq!(after, before);
            }
        }
        assert!(to.iter().all(|count| *count > 20), "{to:?}");
        pool.overload('A', true);
        pool.overload('C', true);
        assert_eq!(pool.pick(), '-');
    }

    #[test]
    fn client_hashes_are_the_same_on_every_machine_and_of_every_version() {
        let hash = |key, client: &str, port| hash_client(key, client.parse().unwrap(), port);
        let hashes = [
            hash([0, 0], "192.0.2.1", 0),
            hash([1, 2], "192.0.2.1", 0),
            hash([1, 2], "192.0.2.1", 4000),
            hash([1, 2], "2001:db8::1", 0),
            hash([1, 2], "2001:db8::1", 4000),
            hash([1, 2], "2001:db8:0:1::1", 0),
        ];
        let expected = [
            0xF8C5_1497_BE39_1EEF,
            0x4BBF_1EAF_D38D_55C6,
            0x7AD4_FBDC_3427_6FE2,
            0x0F83_6B0D_4ED1_743C,
            0xBBF0_AD07_6CAD_5641,
            0x533D_F392_3F73_E83C,
        ];
        assert_eq!(hashes, expected);
    }

    #[test]
    fn near_clients_are_spread_as_by_chance() {
        // Chi-square over 256 parts: its mean is 255, and by chance it leaves 150..400 once in a million times.
        fn check(what: &str, clients: impl Iterator<Item = u64>) {
            let mut counts = [0_u32; 256];
            clients.for_each(|hash| counts[below(hash, 256)] += 1);
            let mean = f64::from(counts.iter().sum::<u32>()) / 256.0;
            let square = |count: &u32| (f64::from(*count) - mean).powi(2) / mean;
            let chi: f64 = counts.iter().map(square).sum();
            assert!((150.0..400.0).contains(&chi), "{what}: {chi}");
        }
        for key in [[0, 0], [1, 0], [0x0123_4567_89ab_cdef, u64::MAX]] {
            for step in [1_u32, 2, 256, 3 << 8, 1 << 12] {
                let v4 = (0..60_000_u32).map(|number| {
                    let bits = 0x0a00_0000_u32.wrapping_add(number.wrapping_mul(step));
                    hash_client(key, Ipv4Addr::from_bits(bits).into(), 0)
                });
                check("IPv4", v4);
                for shift in [0, 40, 64] {
                    let v6 = (0..60_000_u128).map(|number| {
                        let bits = (0x2001_0db8 << 96) + ((number * u128::from(step)) << shift);
                        hash_client(key, Ipv6Addr::from_bits(bits).into(), 0)
                    });
                    check("IPv6", v6);
                }
            }
            for client in ["192.0.2.1", "2001:db8::1"] {
                let client = client.parse().unwrap();
                check(
                    "ports",
                    (0..60_000).map(|port| hash_client(key, client, port)),
                );
            }
        }
    }

    #[test]
    fn keys_and_sizes_make_other_tables() {
        let build = |maglev: Maglev| {
            let service =
                VirtualService::with_scheduler(ServiceConfig::default(), Box::new(maglev));
            for (name, weight) in SERVERS {
                service.add_server(addr(name), weighing(weight)).unwrap();
            }
            service.fingerprint().unwrap()
        };
        let small = Maglev::with_slots([0, 0], 251).unwrap();
        let prints = [
            build(Maglev::default()),
            build(Maglev::new([0, 1])),
            build(small),
        ];
        assert!(prints[0] != prints[1] && prints[1] != prints[2] && prints[0] != prints[2]);
        for slots in [0, 1, 4, 65_536, 1 << 24] {
            assert_eq!(
                Maglev::with_slots([0, 0], slots).unwrap_err(),
                InvalidSlots(slots)
            );
        }
    }
}

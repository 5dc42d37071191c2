use std::sync::Arc;

use super::hash::{fold, sip13};
use super::{Peek, Request, Scheduler, Servers, SharedPick, Superseded};
use crate::SchedulerFlags;

/// `mh`, the kernel's Maglev hashing.
///
/// A table of 4093 cells, filled as in Eisenbud et al., "Maglev: A Fast and Reliable Software
/// Network Load Balancer" (NSDI 2016), section 3.4: the servers take turns, in list order, at
/// claiming the next free cell of their own preference list; a larger weight has more turns. The
/// client's address, with [`PORT`](SchedulerFlags::PORT) also its port, names the cell.
///
/// Turns follow the last weight that was not 0, so a quiesced server keeps its cells, and its
/// clients find no server unless [`FALLBACK`](SchedulerFlags::FALLBACK) is set: then the client is
/// hashed again with other offsets. A service of more than 4093 servers cannot be given this
/// scheduler; one that grows beyond keeps the table it had.
///
/// The table depends on the order in which servers were added; [`Maglev`](crate::Maglev) does not.
#[derive(Debug, Default)]
pub struct MaglevHash {
    /// Built when it is first needed after a change.
    table: Option<Arc<Table>>,
}

#[derive(Clone, Debug)]
struct Table {
    /// Positions in the list, [`GONE`] for a server that left when the table could not follow; no
    /// cells at all without a weight.
    cells: Vec<u32>,
}

impl MaglevHash {
    /// Cells of the table, and the most servers that a service may have.
    pub const CELLS: usize = 4093;

    fn table(&mut self, servers: &Servers) -> &Arc<Table> {
        self.table
            .get_or_insert_with(|| Arc::new(Table::new(servers, None)))
    }

    /// Moves a table that stays to other positions.
    fn renumber(&mut self, f: impl Fn(u32) -> u32) {
        if let Some(table) = &mut self.table {
            Arc::make_mut(table)
                .cells
                .iter_mut()
                .for_each(|cell| *cell = if *cell == GONE { GONE } else { f(*cell) });
        }
    }
}

impl Scheduler for MaglevHash {
    fn pick(&mut self, servers: &Servers, request: &Request) -> Option<usize> {
        self.table(servers).pick(servers, request)
    }

    fn peek(&mut self, servers: &Servers, request: &Request) -> Peek {
        Peek::Known(self.pick(servers, request))
    }

    fn list_changed(&mut self) {
        self.table = None;
    }

    fn server_added(&mut self, servers: &Servers, index: usize) {
        if servers.len() <= Self::CELLS {
            self.table = None;
            return;
        }
        if self.table.is_none() {
            self.table = Some(Arc::new(Table::new(servers, Some(index))));
        } else {
            let index = index as u32;
            self.renumber(|cell| if cell >= index { cell + 1 } else { cell });
        }
    }

    fn server_removed(&mut self, servers: &Servers, index: usize) {
        if servers.len() <= Self::CELLS {
            self.table = None;
            return;
        }
        let index = index as u32;
        self.renumber(|cell| match cell {
            cell if cell == index => GONE,
            cell if cell > index => cell - 1,
            cell => cell,
        });
    }

    fn server_changed(&mut self, servers: &Servers, _: usize) {
        if servers.len() <= Self::CELLS {
            self.table = None;
        }
    }

    fn share(&mut self, servers: &Servers) -> Option<Arc<dyn SharedPick>> {
        Some(Arc::clone(self.table(servers)) as _)
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
    /// `without` is the position of a server that is too many.
    fn new(servers: &Servers, without: Option<usize>) -> Self {
        let members: Vec<_> = (0..servers.len())
            .filter(|index| Some(*index) != without)
            .collect();
        let weights = members
            .iter()
            .map(|index| servers[*index].remembered_weight());
        let divisor = weights.clone().fold(0, gcd);
        if divisor == 0 {
            return Self { cells: Vec::new() };
        }
        let largest = weights.clone().max().unwrap_or(0) / divisor;
        let shift = (u32::BITS - largest.leading_zeros()).saturating_sub(TURN_BITS);
        let mut players: Vec<_> = members
            .iter()
            .zip(weights)
            .filter(|(_, weight)| *weight > 0)
            .map(|(index, weight)| {
                Player::new(servers, *index, ((weight / divisor) >> shift).max(1))
            })
            .collect();
        let mut cells = vec![GONE; Self::LEN];
        let mut free = Self::LEN;
        loop {
            for player in &mut players {
                for _ in 0..player.turns {
                    while cells[player.next] != GONE {
                        player.step();
                    }
                    cells[player.next] = player.index;
                    free -= 1;
                    if free == 0 {
                        return Self { cells };
                    }
                }
            }
        }
    }

    fn pick(&self, servers: &Servers, request: &Request) -> Option<usize> {
        if self.cells.is_empty() {
            return None;
        }
        let port = u32::from(request.port());
        let base = fold(request.client.ip()).wrapping_add(port);
        let cell = |offset: u32| hash(FIRST, base.wrapping_add(offset)) as usize % Self::LEN;
        let usable = |cell: usize| {
            let index = self.cells[cell] as usize;
            servers
                .get(index)
                .is_some_and(|server| server.is_usable())
                .then_some(index)
        };
        let first = cell(0);
        usable(first).or_else(|| {
            if request.flags.contains(SchedulerFlags::FALLBACK) {
                (0..Self::LEN).find_map(|o| usable(cell(((o + first) % Self::LEN) as u32)))
            } else {
                None
            }
        })
    }

    const LEN: usize = MaglevHash::CELLS;
}

struct Player {
    index: u32,
    turns: u32,
    next: usize,
    skip: usize,
}

impl Player {
    fn new(servers: &Servers, index: usize, turns: u32) -> Self {
        let addr = servers[index].addr();
        let value = fold(addr.ip()).wrapping_add(u32::from(addr.port()));
        Self {
            index: index as u32,
            turns,
            next: hash(FIRST, value) as usize % Table::LEN,
            skip: hash(SECOND, value) as usize % (Table::LEN - 1) + 1,
        }
    }

    fn step(&mut self) {
        self.next += self.skip;
        if self.next >= Table::LEN {
            self.next -= Table::LEN;
        }
    }
}

fn hash(key: u64, value: u32) -> u32 {
    sip13([key, key], &[], u64::from(value), 4) as u32
}

fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

const GONE: u32 = u32::MAX;
/// Turns are cut to about this many bits.
const TURN_BITS: u32 = 6;
const FIRST: u64 = 2_654_435_761;
const SECOND: u64 = 2_654_446_892;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::tests::{Pool, named_pool};
    use crate::{RealServer, SchedulerKind};

    const CLIENTS: [&str; 5] = [
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.3",
        "203.0.113.9",
        "10.1.2.3",
    ];

    /// Servers in list order.
    fn pool(servers: [(&str, u32); 3]) -> Pool {
        named_pool(SchedulerKind::MaglevHash, &servers)
    }

    fn equal() -> Pool {
        pool([("10.0.0.1:80", 1), ("10.0.0.2:80", 1), ("10.0.0.3:80", 1)])
    }

    /// The table as a text of A, B, C by the last octet of the server.
    fn table(pool: &Pool) -> String {
        let servers = pool.servers();
        let name = |server: &RealServer| match server.addr().ip() {
            std::net::IpAddr::V4(ip) => char::from(b'A' - 1 + ip.octets()[3]),
            std::net::IpAddr::V6(ip) => char::from(b'A' - 1 + ip.octets()[15]),
        };
        let table = Table::new(&servers, None);
        table
            .cells
            .iter()
            .map(|cell| name(&servers[*cell as usize]))
            .collect()
    }

    fn counts(table: &str) -> [usize; 3] {
        ['A', 'B', 'C'].map(|name| table.chars().filter(|cell| *cell == name).count())
    }

    #[test]
    fn hash_of_the_worked_values() {
        let cases = [
            (0, 0x1D5A_77C2, 0xF882_433F),
            (1, 0x16EC_66B2, 0x8210_AAD1),
            (0x0A00_0051, 0x439C_0CBE, 0x97B3_DC47),
            (0xC000_0201, 0x9288_9C88, 0xC6FE_83E5),
        ];
        for (value, first, second) in cases {
            assert_eq!((hash(FIRST, value), hash(SECOND, value)), (first, second));
        }
    }

    #[test]
    fn worked_tables() {
        let addrs = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];
        let cases = [
            ([1, 1, 1], [1365, 1364, 1364], "ABBCCABCCAABBAACBBAACBCC"),
            ([1, 2, 3], [683, 1364, 2046], "CBBCCCBCCAABBBACBCCACCCC"),
            (
                [100, 300, 65535],
                [78, 78, 3937],
                "CCCCCCCCCCCCCCCCCCCCCCCC",
            ),
        ];
        for (weights, expected, start) in cases {
            let table = table(&pool([0, 1, 2].map(|i| (addrs[i], weights[i]))));
            assert_eq!((counts(&table), &table[..24]), (expected, start));
        }
        let reversed = pool([("10.0.0.3:80", 1), ("10.0.0.2:80", 1), ("10.0.0.1:80", 1)]);
        assert_eq!(counts(&table(&reversed)), [1364, 1364, 1365]);
        let v6 = pool([
            ("[fd00::1]:443", 1),
            ("[fd00::2]:443", 1),
            ("[fd00::3]:443", 1),
        ]);
        let table = table(&v6);
        assert_eq!(
            (counts(&table), &table[..24]),
            ([1365, 1364, 1364], "BABCABAACBCAACBBCACCBBAC")
        );
        assert_eq!(
            v6.picks_from(&["2001:db8::1", "2001:db8:0:1:2:3:4:5"], 1),
            "AA"
        );
    }

    #[test]
    fn worked_lookups() {
        let pool = equal();
        assert_eq!(pool.picks_from(&CLIENTS, 40_000), "CBBBA");
        pool.set_flags(SchedulerFlags::PORT);
        assert_eq!(pool.picks_from(&CLIENTS, 40_000), "CCBAB");
    }

    #[test]
    fn quiescing_keeps_the_table_and_fallback_hashes_again() {
        let pool = equal();
        pool.edit('B', 0);
        assert_eq!(pool.picks_from(&CLIENTS, 1), "C---A");
        pool.set_flags(SchedulerFlags::FALLBACK);
        assert_eq!(pool.picks_from(&CLIENTS, 1), "CCACA");
        pool.edit('B', 1);
        pool.overload('A', true);
        pool.overload('C', true);
        assert_eq!(pool.picks_from(&CLIENTS[..2], 1), "BB");
    }

    #[test]
    fn removal_moves_few_others() {
        let before = table(&equal());
        let pool = equal();
        pool.remove('B');
        let after = table(&pool);
        let moved = |from, to| {
            let mut pairs = before.chars().zip(after.chars());
            pairs.by_ref().filter(|pair| *pair == (from, to)).count()
        };
        assert_eq!((moved('B', 'A'), moved('B', 'C')), (682, 682));
        assert_eq!((moved('A', 'C'), moved('C', 'A')), (3, 3));
    }

    #[test]
    fn a_server_added_with_weight_0_has_no_cells() {
        let pool = pool([("10.0.0.1:80", 0), ("10.0.0.2:80", 1), ("10.0.0.3:80", 1)]);
        assert_eq!(counts(&table(&pool))[0], 0);
    }

    #[test]
    fn a_service_may_outgrow_the_table() {
        let addr = |i: usize| {
            std::net::SocketAddr::from(([10, 1, (i / 250) as u8, (i % 250) as u8 + 1], 80))
        };
        let pool = Pool::adding(SchedulerKind::MaglevHash, &[]);
        for i in 0..MaglevHash::CELLS {
            pool.service
                .add_server(addr(i), Default::default())
                .unwrap();
        }
        let clients = CLIENTS;
        let before: Vec<_> = clients.iter().map(|client| pool.addr_for(client)).collect();
        assert!(before.iter().all(Option::is_some));
        pool.service
            .add_server(addr(MaglevHash::CELLS), Default::default())
            .unwrap();
        let after: Vec<_> = clients.iter().map(|client| pool.addr_for(client)).collect();
        assert_eq!(before, after);
        pool.service
            .add_server(addr(MaglevHash::CELLS + 1), Default::default())
            .unwrap();
        pool.service.remove_server(before[0].unwrap()).unwrap();
        assert_eq!(pool.addr_for(clients[0]), None);
        assert_eq!(pool.addr_for(clients[1]), before[1]);
    }
}

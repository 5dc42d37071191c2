//! Clients and servers of the benches about schedulers.

use std::net::{Ipv4Addr, SocketAddr};

/// Clients in a random order that is always the same.
pub(crate) struct Clients {
    flows: Vec<SocketAddr>,
    next: usize,
}

impl Clients {
    pub(crate) fn new() -> Self {
        let mut state = 0x1234_5678_9abc_def0_u64;
        let mut draw = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 32) as u32
        };
        let flows = (0..4096)
            .map(|_| SocketAddr::from((Ipv4Addr::from_bits(draw() | 0x0100_0000), 4000)))
            .collect();
        Self { flows, next: 0 }
    }

    pub(crate) fn next(&mut self) -> SocketAddr {
        self.next = (self.next + 1) % self.flows.len();
        self.flows[self.next]
    }
}

/// The n-th real server.
pub(crate) fn server(number: u32) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from_bits(0x0a00_0001 + number), 80))
}

//! How packets are wrapped for each real server behind a tunnel. The scheduler does not need to know; workers do.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ipvsadm::protocol::{TunnelChecksum, TunnelInfo, TunnelKind};
use lvs_fwd::balancer::{Direction, Encapsulation, PacketInfo};
use lvs_sched::{Family, Protocol, ServiceKey};

/// A server of a service.
pub type Served = (ServiceKey, SocketAddr);

/// Tunnels that are not plain IP in IP. Shared by the control thread, which changes them, and the workers.
#[derive(Debug, Default)]
pub struct Tunnels(ArcSwap<HashMap<Served, TunnelInfo>>);

impl Tunnels {
    /// The tunnel to a server, if it is not plain IP in IP.
    pub fn tunnel(&self, key: &ServiceKey, addr: SocketAddr) -> Option<TunnelInfo> {
        self.0.load().get(&(*key, addr)).copied()
    }

    /// Sets the tunnel to a server; `None` is plain IP in IP, or no tunnel.
    pub fn set(&self, served: Served, tunnel: Option<TunnelInfo>) {
        let tunnel = tunnel.filter(|tunnel| tunnel.kind != TunnelKind::Ipip);
        if self.0.load().get(&served).copied() != tunnel {
            self.change(|all| match tunnel {
                Some(tunnel) => {
                    all.insert(served, tunnel);
                }
                None => {
                    all.remove(&served);
                }
            });
        }
    }

    /// A service is gone.
    pub fn forget(&self, key: &ServiceKey) {
        self.change(|all| all.retain(|(service, _), _| service != key));
    }

    /// A plan takes the place of another one: what is the same in both stays as it is now, by hand or not.
    pub fn follow(&self, old: &HashMap<Served, TunnelInfo>, new: &HashMap<Served, TunnelInfo>) {
        self.change(|all| {
            all.retain(|served, _| !old.contains_key(served) || new.contains_key(served));
            for (served, tunnel) in new {
                if old.get(served) != Some(tunnel) {
                    all.insert(*served, *tunnel);
                }
            }
        });
    }

    /// The tunnels as they are now, for a batch of packets.
    pub fn present(&self) -> Arc<HashMap<Served, TunnelInfo>> {
        self.0.load_full()
    }

    fn change(&self, change: impl Fn(&mut HashMap<Served, TunnelInfo>)) {
        self.0.rcu(|all| {
            let mut all = HashMap::clone(all);
            change(&mut all);
            all
        });
    }
}

/// How a packet of this service is wrapped for this server. The service is found as the scheduler finds it.
pub fn encapsulation(
    tunnels: &HashMap<Served, TunnelInfo>,
    packet: &PacketInfo,
    is_error: bool,
    server: SocketAddr,
) -> Encapsulation {
    if tunnels.is_empty() {
        return Encapsulation::Ipip;
    }
    // An error that goes to a server quotes what the service has sent.
    let service = match (is_error, packet.direction) {
        (true, Direction::Inbound) | (false, Direction::Outbound) => packet.source,
        (false, Direction::Inbound) | (true, Direction::Outbound) => packet.destination,
    };
    let mark = NonZeroU32::new(packet.mark).map(|mark| ServiceKey::Mark {
        family: match service {
            SocketAddr::V4(_) => Family::Inet,
            SocketAddr::V6(_) => Family::Inet6,
        },
        mark,
    });
    let at = |vport| {
        Protocol::from_number(packet.protocol).map(|protocol| ServiceKey::Address {
            protocol,
            vip: service.ip(),
            vport,
        })
    };
    [mark, at(service.port()), at(0)]
        .into_iter()
        .flatten()
        .find_map(|key| tunnels.get(&(key, server)))
        .map_or(Encapsulation::Ipip, of)
}

/// A tunnel in the data path's words. Remote checksums are full ones there: receivers treat both alike.
pub fn of(tunnel: &TunnelInfo) -> Encapsulation {
    let checksum = tunnel.checksum != TunnelChecksum::None;
    match tunnel.kind {
        TunnelKind::Ipip => Encapsulation::Ipip,
        TunnelKind::Gue => Encapsulation::Gue {
            port: tunnel.port,
            checksum,
        },
        TunnelKind::Gre => Encapsulation::Gre { checksum },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(vport: u16) -> ServiceKey {
        ServiceKey::Address {
            protocol: Protocol::Tcp,
            vip: [192, 0, 2, 10].into(),
            vport,
        }
    }

    fn gre(checksum: TunnelChecksum) -> TunnelInfo {
        TunnelInfo {
            kind: TunnelKind::Gre,
            port: 0,
            checksum,
        }
    }

    fn packet() -> PacketInfo {
        PacketInfo {
            protocol: 6,
            source: "203.0.113.5:50000".parse().unwrap(),
            destination: "192.0.2.10:80".parse().unwrap(),
            direction: Direction::Inbound,
            tcp_flags: 2,
            length: 60,
            mark: 0,
        }
    }

    #[test]
    fn a_packet_finds_the_tunnel_of_its_service() {
        let server = "10.0.0.1:80".parse().unwrap();
        let of_port = |vport, packet: &PacketInfo, is_error| {
            let tunnels = Tunnels::default();
            tunnels.set((key(vport), server), Some(gre(TunnelChecksum::Full)));
            encapsulation(&tunnels.present(), packet, is_error, server)
        };
        let wrapped = Encapsulation::Gre { checksum: true };
        assert_eq!(of_port(80, &packet(), false), wrapped);
        assert_eq!(of_port(0, &packet(), false), wrapped);
        assert_eq!(of_port(81, &packet(), false), Encapsulation::Ipip);
        let quoted = PacketInfo {
            source: packet().destination,
            destination: packet().source,
            ..packet()
        };
        assert_eq!(of_port(80, &quoted, true), wrapped);
    }

    #[test]
    fn a_new_plan_keeps_what_was_changed_by_hand() {
        let served = |n: u8| (key(80), SocketAddr::from(([10, 0, 0, n], 80)));
        let (full, none) = (gre(TunnelChecksum::Full), gre(TunnelChecksum::None));
        let old = HashMap::from([(served(1), full), (served(2), full), (served(3), full)]);
        let tunnels = Tunnels::default();
        tunnels.follow(&HashMap::new(), &old);
        tunnels.set(served(1), Some(none));
        tunnels.set(served(4), Some(none));
        let new = HashMap::from([(served(1), full), (served(2), none)]);
        tunnels.follow(&old, &new);
        let expected = HashMap::from([(served(1), none), (served(2), none), (served(4), none)]);
        assert_eq!(*tunnels.present(), expected);
        tunnels.forget(&key(80));
        assert!(tunnels.present().is_empty());
    }
}

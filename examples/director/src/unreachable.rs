//! Real servers that no packet can be sent to: no route, or a neighbour that does not answer.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipvsadm::protocol::UnreachableInfo;
use lvs_fwd::route::NeighbourState;
use lvs_fwd::view::View;
use lvs_fwd::why::{Way, way};
use tracing::{info, warn};

/// Which servers can't be sent to, and why; each change is logged once.
#[derive(Debug, Default)]
pub struct Unreachable {
    reasons: BTreeMap<IpAddr, String>,
}

impl Unreachable {
    /// Looks at these servers again, as routes and neighbours are now.
    pub fn follow(&mut self, view: &View, servers: impl IntoIterator<Item = IpAddr>) {
        let mut before = std::mem::take(&mut self.reasons);
        for server in servers {
            if self.reasons.contains_key(&server) {
                continue;
            }
            let known = before.remove(&server);
            match (look(view, server), known) {
                (Look::Unreachable(reason), known) => {
                    if known.as_ref() != Some(&reason) {
                        warn!("real server {server} can't be sent to: {reason}");
                    }
                    self.reasons.insert(server, reason);
                }
                // The kernel forgets a neighbour that failed; that is no answer.
                (Look::Unknown, Some(reason)) => {
                    self.reasons.insert(server, reason);
                }
                (Look::Reachable, Some(_)) => info!("real server {server} can be sent to again"),
                (Look::Unknown | Look::Reachable, None) => {}
            }
        }
    }

    /// All of them, ordered by address.
    pub fn list(&self) -> Vec<UnreachableInfo> {
        let info = |(address, reason): (&IpAddr, &String)| UnreachableInfo {
            address: *address,
            reason: reason.clone(),
        };
        self.reasons.iter().map(info).collect()
    }
}

enum Look {
    Reachable,
    /// Nobody has asked for the neighbour lately.
    Unknown,
    Unreachable(String),
}

fn look(view: &View, server: IpAddr) -> Look {
    match way(view, server) {
        Way::Host => Look::Reachable,
        Way::Nowhere { reason, .. } => Look::Unreachable(reason.name().to_owned()),
        Way::Out {
            port,
            hop,
            neighbour,
            ..
        } => match neighbour {
            None => Look::Unknown,
            Some(neighbour) if neighbour.state.is_usable() => Look::Reachable,
            Some(neighbour) if neighbour.state == NeighbourState::Failed => {
                Look::Unreachable(format!("{} does not answer at {}", hop.addr, port.name))
            }
            Some(_) => Look::Unknown,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lvs_fwd::route::{Hop, Neighbour, NeighbourTable, NextHop, Prefix, Route, RouteTable};
    use lvs_fwd::view::{Port, PortId};

    use super::*;

    fn view(state: Option<NeighbourState>) -> View {
        let mut routes = RouteTable::new();
        let lan = Prefix::new(IpAddr::from([10, 0, 0, 0]), 24);
        routes.insert(Route::new(lan, NextHop::OnLink, 2));
        let mut neighbours = NeighbourTable::new();
        if let Some(state) = state {
            let hop = Hop {
                ifindex: 2,
                addr: server(),
            };
            neighbours.insert(hop, Neighbour { mac: [2; 6], state });
        }
        View {
            routes: Arc::new(routes),
            neighbours: Arc::new(neighbours),
            ports: Arc::new([Port::new(PortId(0), 2, "int0", [2; 6])]),
            ..View::default()
        }
    }

    fn server() -> IpAddr {
        IpAddr::from([10, 0, 0, 11])
    }

    #[test]
    fn a_failed_neighbour_stays_listed_until_it_answers_or_its_server_goes() {
        let mut unreachable = Unreachable::default();
        let reason = "10.0.0.11 does not answer at int0";
        for (state, listed) in [
            (None, false),
            (Some(NeighbourState::Incomplete), false),
            (Some(NeighbourState::Failed), true),
            // Collected, and asked again.
            (None, true),
            (Some(NeighbourState::Incomplete), true),
            (Some(NeighbourState::Reachable), false),
            (None, false),
        ] {
            // A server of two services is one.
            unreachable.follow(&view(state), [server(), server()]);
            let reasons: Vec<String> = unreachable.list().into_iter().map(|it| it.reason).collect();
            let expected: &[&str] = if listed { &[reason] } else { &[] };
            assert_eq!(reasons, expected, "{state:?}");
        }
        unreachable.follow(&view(Some(NeighbourState::Failed)), [server()]);
        unreachable.follow(&view(Some(NeighbourState::Failed)), []);
        assert_eq!(unreachable.list(), []);
    }

    #[test]
    fn a_server_without_a_route_is_listed() {
        let mut unreachable = Unreachable::default();
        unreachable.follow(&view(None), [IpAddr::from([192, 0, 2, 1])]);
        assert_eq!(unreachable.list()[0].reason, "no-route");
    }
}

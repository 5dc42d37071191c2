//! LANs, ports, frames under way, and the clock.

use crate::random::Random;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// LANs with ports, and the one clock that all of them live by.
#[derive(Debug)]
pub struct Network {
    origin: Instant,
    now: Instant,
    random: Random,
    lans: Vec<Conditions>,
    ports: Vec<PortState>,
    under_way: BinaryHeap<Reverse<Delivery>>,
    sequence: u64,
}

/// A LAN of a [`Network`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lan(usize);

/// Where something is plugged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(usize);

/// What a LAN does to frames. Default: it carries each of them at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Conditions {
    /// Lost frames in a thousand, for each receiver by itself.
    pub loss: u32,
    /// Frames that come twice, in a thousand.
    pub duplication: u32,
    /// Least time under way.
    pub delay: Duration,
    /// Up to so much more, by chance.
    pub jitter: Duration,
    /// A later frame may overtake an earlier one of the same sender when chance has it so.
    pub reordering: bool,
}

#[derive(Debug)]
struct PortState {
    lan: Lan,
    side: u32,
    up: bool,
    /// Nothing for this port arrives before what was sent to it earlier.
    last_arrival: Instant,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Delivery {
    due: Instant,
    sequence: u64,
    from: Port,
    to: Port,
    frame: Vec<u8>,
}

/// Something with ports that [`Network::run`] can drive.
pub trait Node {
    /// A frame arrived at one of its ports.
    fn handle_frame(&mut self, now: Instant, port: Port, frame: &[u8]);

    /// Its deadline has passed, or nothing has: calls may come early.
    fn handle_timeout(&mut self, now: Instant);

    /// The next frame that it sends, and where.
    fn poll_frame(&mut self) -> Option<(Port, Vec<u8>)>;

    /// When it wants to be called.
    fn poll_timeout(&self) -> Option<Instant>;
}

impl Network {
    /// An empty network at time zero. The seed decides what is lost and how long things take.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // Only a name for time zero: nothing follows from when it is.
        let origin = Instant::now();
        Self {
            origin,
            now: origin,
            random: Random::new(seed),
            lans: Vec::new(),
            ports: Vec::new(),
            under_way: BinaryHeap::new(),
            sequence: 0,
        }
    }

    /// The present.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Time since the beginning.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.now - self.origin
    }

    /// The instant this long after the beginning.
    #[must_use]
    pub fn at(&self, elapsed: Duration) -> Instant {
        self.origin + elapsed
    }

    /// One more LAN.
    pub fn add_lan(&mut self, conditions: Conditions) -> Lan {
        self.lans.push(conditions);
        Lan(self.lans.len() - 1)
    }

    /// A port on a LAN, with its link up.
    pub fn attach(&mut self, lan: Lan) -> Port {
        self.ports.push(PortState {
            lan,
            side: 0,
            up: true,
            last_arrival: self.origin,
        });
        Port(self.ports.len() - 1)
    }

    /// From now on the LAN is like this. What is under way is not affected.
    pub fn set_conditions(&mut self, lan: Lan, conditions: Conditions) {
        self.lans[lan.0] = conditions;
    }

    /// Puts a port on a side of its LAN. Only ports of one side hear each other; links stay up. All begin on side 0.
    pub fn set_side(&mut self, port: Port, side: u32) {
        self.ports[port.0].side = side;
    }

    /// All ports of a LAN are on one side again.
    pub fn heal(&mut self, lan: Lan) {
        for port in self.ports.iter_mut().filter(|port| port.lan == lan) {
            port.side = 0;
        }
    }

    /// Takes a port's link down or up. What was under way to it is lost with the link.
    pub fn set_link(&mut self, port: Port, up: bool) {
        self.ports[port.0].up = up;
    }

    /// Is the link up?
    #[must_use]
    pub fn link(&self, port: Port) -> bool {
        self.ports[port.0].up
    }

    /// Sends a frame from a port to every other one that can hear it.
    pub fn send(&mut self, from: Port, frame: &[u8]) {
        let sender = &self.ports[from.0];
        if !sender.up {
            return;
        }
        let (lan, side) = (sender.lan, sender.side);
        let conditions = self.lans[lan.0];
        for to in (0..self.ports.len()).map(Port) {
            let port = &self.ports[to.0];
            if to == from || port.lan != lan || port.side != side {
                continue;
            }
            if self.random.chance(conditions.loss) {
                continue;
            }
            let copies = 1 + u32::from(self.random.chance(conditions.duplication));
            for _ in 0..copies {
                let mut due = self.now + conditions.delay + self.random.up_to(conditions.jitter);
                let last = &mut self.ports[to.0].last_arrival;
                if !conditions.reordering {
                    due = due.max(*last);
                    *last = due;
                }
                self.under_way.push(Reverse(Delivery {
                    due,
                    sequence: self.sequence,
                    from,
                    to,
                    frame: frame.to_vec(),
                }));
                self.sequence += 1;
            }
        }
    }

    /// When the next frame arrives somewhere.
    #[must_use]
    pub fn next_arrival(&self) -> Option<Instant> {
        self.under_way.peek().map(|Reverse(next)| next.due)
    }

    /// Moves the clock forward; never back.
    pub fn advance(&mut self, to: Instant) {
        self.now = self.now.max(to);
    }

    /// A frame that has arrived by now, and where. Parted sides and links that are down swallow what is under way.
    pub fn receive(&mut self) -> Option<(Port, Vec<u8>)> {
        while let Some(Reverse(next)) = self.under_way.peek() {
            if next.due > self.now {
                return None;
            }
            let Reverse(delivery) = self.under_way.pop()?;
            let (from, to) = (&self.ports[delivery.from.0], &self.ports[delivery.to.0]);
            if to.up && from.side == to.side {
                return Some((delivery.to, delivery.frame));
            }
        }
        None
    }

    /// Lets time pass for all nodes. Frames are offered to every node; each ignores ports that are not its own.
    pub fn run<N: Node>(&mut self, nodes: &mut [N], duration: Duration) {
        self.run_watched(nodes, duration, |_, _| {});
    }

    /// The same, with somebody who looks at the nodes after each moment at which something happened.
    pub fn run_watched<N: Node>(
        &mut self,
        nodes: &mut [N],
        duration: Duration,
        mut watch: impl FnMut(Instant, &[N]),
    ) {
        let end = self.now + duration;
        loop {
            self.collect(nodes);
            let deadline = nodes.iter().filter_map(Node::poll_timeout).min();
            let next = [deadline, self.next_arrival()].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            self.advance(next);
            self.deliver(nodes);
            for node in nodes.iter_mut() {
                if node.poll_timeout().is_some_and(|due| due <= self.now) {
                    node.handle_timeout(self.now);
                }
            }
            self.collect(nodes);
            watch(self.now, nodes);
        }
        self.advance(end);
    }

    /// Hands over what has arrived, before anybody judges its deadline.
    pub fn deliver<N: Node>(&mut self, nodes: &mut [N]) {
        while let Some((port, frame)) = self.receive() {
            for node in nodes.iter_mut() {
                node.handle_frame(self.now, port, &frame);
            }
            self.collect(nodes);
        }
    }

    /// Takes what nodes want to send.
    pub fn collect<N: Node>(&mut self, nodes: &mut [N]) {
        for node in nodes {
            while let Some((port, frame)) = node.poll_frame() {
                self.send(port, &frame);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn lan(conditions: Conditions, ports: usize) -> (Network, Lan, Vec<Port>) {
        let mut network = Network::new(7);
        let lan = network.add_lan(conditions);
        let ports = (0..ports).map(|_| network.attach(lan)).collect();
        (network, lan, ports)
    }

    fn arrivals(network: &mut Network) -> Vec<(u64, Port, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some(next) = network.next_arrival() {
            network.advance(next);
            while let Some((port, frame)) = network.receive() {
                let at = u64::try_from(network.elapsed().as_millis()).unwrap();
                all.push((at, port, frame));
            }
        }
        all
    }

    #[test]
    fn a_frame_reaches_every_other_port_of_its_lan_after_the_delay() {
        let conditions = Conditions {
            delay: ms(3),
            ..Conditions::default()
        };
        let (mut network, _, ports) = lan(conditions, 3);
        let elsewhere = network.add_lan(Conditions::default());
        network.attach(elsewhere);
        network.send(ports[0], b"x");
        let expected = [(3, ports[1], b"x".to_vec()), (3, ports[2], b"x".to_vec())];
        assert_eq!(arrivals(&mut network), expected);
    }

    #[test]
    fn sides_and_links_part_ports_and_swallow_what_is_under_way() {
        let conditions = Conditions {
            delay: ms(3),
            ..Conditions::default()
        };
        let (mut network, lan, ports) = lan(conditions, 3);
        network.send(ports[0], b"lost");
        network.set_side(ports[1], 1);
        network.set_link(ports[2], false);
        assert!(arrivals(&mut network).is_empty());
        network.send(ports[2], b"lost");
        network.heal(lan);
        network.set_link(ports[2], true);
        network.send(ports[1], b"x");
        assert_eq!(arrivals(&mut network).len(), 2);
    }

    #[test]
    fn loss_and_duplication_are_as_frequent_as_asked_for() {
        let conditions = Conditions {
            loss: 200,
            duplication: 100,
            ..Conditions::default()
        };
        let (mut network, _, ports) = lan(conditions, 2);
        for _ in 0..10_000 {
            network.send(ports[0], b"x");
        }
        let count = arrivals(&mut network).len();
        assert!((8600..9000).contains(&count), "{count}");
    }

    #[test]
    fn frames_overtake_each_other_only_where_they_may() {
        for reordering in [false, true] {
            let conditions = Conditions {
                jitter: ms(50),
                reordering,
                ..Conditions::default()
            };
            let (mut network, _, ports) = lan(conditions, 2);
            for number in 0..100_u8 {
                network.send(ports[0], &[number]);
            }
            let order: Vec<_> = arrivals(&mut network)
                .iter()
                .map(|(.., frame)| frame[0])
                .collect();
            assert_eq!(order.is_sorted(), !reordering);
            assert_eq!(order.len(), 100);
        }
    }

    #[test]
    fn a_seed_is_a_whole_run() {
        let run = |seed| {
            let mut network = Network::new(seed);
            let lan = network.add_lan(Conditions {
                loss: 300,
                jitter: ms(20),
                ..Conditions::default()
            });
            let ports = [network.attach(lan), network.attach(lan)];
            for number in 0..50_u8 {
                network.send(ports[0], &[number]);
            }
            arrivals(&mut network)
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }
}

//! Two VRRP routers on a simulated LAN: the better one dies, the other takes over, the better one comes back.
//!
//! ```text
//! cargo run -p embed --bin two_routers
//! ```
//!
//! It prints the fail-over's timeline at once, for the clock is a virtual one: who advertises, who sets the address and announces it,
//! and why. What a real program does in place of `Router::drain` and the simulated LAN: raw sockets and netlink.

use lvs_vrrp::wire::{GratuitousArp, Ipv4Packet, MacAddress};
use lvs_vrrp::{
    Command, Config, Datagram, Family, Priority, Received, VirtualAddress, VirtualRouter, Vrid,
};
use sim::{Conditions, Network, Node, Port};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

/// A machine with one virtual router.
struct Router {
    name: &'static str,
    machine: VirtualRouter,
    port: Port,
    mac: MacAddress,
    alive: bool,
    started: Instant,
    outbox: Vec<Vec<u8>>,
}

impl Router {
    fn new(
        network: &Network,
        port: Port,
        (name, number): (&'static str, u8),
        priority: u8,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let mut config = Config::new(Vrid::new(51).ok_or("a VRID")?, Family::V4, "eth0");
        config.priority = Priority::new(priority).ok_or("a priority")?;
        config.addresses = vec![VirtualAddress {
            address: Ipv4Addr::new(192, 0, 2, 100).into(),
            interface: "eth0".into(),
        }];
        Ok(Self {
            name,
            machine: VirtualRouter::new(config)?,
            port,
            mac: MacAddress([2, 0, 0, 0, 0, number]),
            alive: true,
            started: network.now(),
            outbox: Vec::new(),
        })
    }

    fn start(&mut self, now: Instant) {
        self.alive = true;
        let own = Ipv4Addr::new(192, 0, 2, self.mac.0[5]);
        self.machine.handle_source(now, Some(own.into()));
        self.machine.start(now);
        self.drain(now);
    }

    /// After every call: transmits, then commands, then events.
    fn drain(&mut self, now: Instant) {
        let at = (now - self.started).as_secs_f64();
        let mut announced = 0;
        let mut packet = Vec::new();
        while self.machine.poll_transmit(&mut packet).is_some() {
            self.outbox.push(packet.clone());
        }
        while let Some(command) = self.machine.poll_command() {
            match command {
                Command::AddAddresses(all) => {
                    println!("{at:7.3} {}   sets {}", self.name, all[0].address);
                }
                Command::Announce(announcement) => {
                    if let IpAddr::V4(address) = announcement.address {
                        let mac = self.mac;
                        self.outbox
                            .push(GratuitousArp { mac, address }.frame().to_vec());
                        announced += 1;
                    }
                }
                _ => {}
            }
        }
        if announced > 0 {
            println!("{at:7.3} {}   announces it {announced} times", self.name);
        }
        while let Some(event) = self.machine.poll_event() {
            println!("{at:7.3} {} {event}", self.name);
        }
    }
}

impl Node for Router {
    fn handle_frame(&mut self, now: Instant, port: Port, frame: &[u8]) {
        // Announcements pass by on this LAN too; they are no IP packets.
        if port == self.port && self.alive && Ipv4Packet::new(frame).is_ok() {
            let received = Received {
                arrived: now,
                datagram: Datagram::V4(frame),
            };
            let _ = self.machine.handle_packet(now, &received);
            self.drain(now);
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.machine.handle_timeout(now);
        self.drain(now);
    }

    fn poll_frame(&mut self) -> Option<(Port, Vec<u8>)> {
        (!self.outbox.is_empty()).then(|| (self.port, self.outbox.remove(0)))
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.machine.poll_timeout().filter(|_| self.alive)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut network = Network::new(1);
    let lan = network.add_lan(Conditions {
        delay: Duration::from_micros(300),
        ..Conditions::default()
    });
    let (a, b) = (network.attach(lan), network.attach(lan));
    let mut routers = [
        Router::new(&network, a, ("a", 11), 150)?,
        Router::new(&network, b, ("b", 12), 100)?,
    ];
    for router in &mut routers {
        router.start(network.now());
    }
    network.run(&mut routers, Duration::from_secs(10));
    println!("{:7.3} -- a dies", network.elapsed().as_secs_f64());
    routers[0].alive = false;
    network.run(&mut routers, Duration::from_secs(10));
    println!("{:7.3} -- a comes back", network.elapsed().as_secs_f64());
    let started = routers[0].started;
    routers[0] = Router {
        started,
        ..Router::new(&network, a, ("a", 11), 150)?
    };
    let now = network.now();
    routers[0].start(now);
    network.run(&mut routers, Duration::from_secs(10));
    for router in &routers {
        let (state, counts) = (router.machine.state(), router.machine.statistics());
        let (sent, heard) = (counts.adverts_sent, counts.adverts_received);
        println!(
            "        {} is {state}: {sent} sent, {heard} heard",
            router.name
        );
    }
    Ok(())
}

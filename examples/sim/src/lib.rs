//! A LAN in a box, for tests of protocols: a virtual clock, and links that lose, delay, reorder, duplicate and part.
//!
//! A [`Network`] carries frames between ports and knows nothing of what is in them. [`Network::run`] drives [`Node`]s through virtual time:
//! an hour takes milliseconds, and a seed gives the same hour again.
//!
//! ```
//! use sim::{Conditions, Network, Node, Port};
//! use std::time::{Duration, Instant};
//!
//! /// Says "hello" each second and counts what it hears.
//! struct Greeter { port: Port, next: Instant, heard: u32, outbox: Vec<Vec<u8>> }
//!
//! impl Node for Greeter {
//!     fn handle_frame(&mut self, _now: Instant, port: Port, _frame: &[u8]) {
//!         self.heard += u32::from(port == self.port);
//!     }
//!     fn handle_timeout(&mut self, now: Instant) {
//!         if now >= self.next {
//!             self.outbox.push(b"hello".to_vec());
//!             self.next = now + Duration::from_secs(1);
//!         }
//!     }
//!     fn poll_frame(&mut self) -> Option<(Port, Vec<u8>)> { self.outbox.pop().map(|frame| (self.port, frame)) }
//!     fn poll_timeout(&self) -> Option<Instant> { Some(self.next) }
//! }
//!
//! let mut network = Network::new(42);
//! let lan = network.add_lan(Conditions { delay: Duration::from_millis(5), loss: 100, ..Conditions::default() });
//! let mut nodes: Vec<_> = (0..2)
//!     .map(|_| Greeter { port: network.attach(lan), next: network.now(), heard: 0, outbox: Vec::new() })
//!     .collect();
//! network.run(&mut nodes, Duration::from_secs(1000));
//! assert!(nodes.iter().all(|node| (850..950).contains(&node.heard))); // a tenth is lost
//! ```

mod network;
mod random;

pub use network::{Conditions, Lan, Network, Node, Port};
pub use random::Random;

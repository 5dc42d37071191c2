//! VRRP.
mod announce;
mod command;
mod config;
mod datagram;
mod discard;
mod event;
mod router;
mod script;
mod state;
mod statistics;
mod timing;
mod track;
mod vrrp_router;

pub mod wire;
pub use announce::*;
pub use command::*;
pub use config::{Announcements, Authentication, ChecksumSend, Config, ConfigError, Family, InterfaceName, Interval, LateActive, Preemption, Priority, Reach, UnicastPeer, Version, VirtualAddress, Vrid};
pub use datagram::*;
pub use discard::*;
pub use event::*;
pub use router::*;
pub use state::State;
pub use statistics::*;
pub use track::*;
pub use script::*;
pub use vrrp_router::*;

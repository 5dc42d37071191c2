//! The director's control socket: what is said over it stands in [`protocol`].

pub mod answers;
mod ask;
pub mod by_hand;
pub mod configuration;
pub mod counters;
pub mod drain;
pub mod events;
pub mod health;
pub mod server;
pub mod vrrp;
pub mod why;

pub use ask::ask;
pub use ipvsadm::protocol;

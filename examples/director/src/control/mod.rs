//! The director's control socket: what is said over it stands in [`protocol`].

pub mod answers;
pub mod by_hand;
pub mod configuration;
pub mod counters;
pub mod server;
pub mod vrrp;
pub mod why;

pub use ipvsadm::protocol;

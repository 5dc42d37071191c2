//! The director's control socket: what is said over it stands in [`protocol`].

pub mod answers;
pub mod configuration;
pub mod server;

pub use ipvsadm::protocol;

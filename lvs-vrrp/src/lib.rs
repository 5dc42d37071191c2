//! VRRP.
mod config;
pub mod wire;
pub use config::*;

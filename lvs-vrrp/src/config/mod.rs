//! What an operator says about a virtual router, checked once.

mod scalar;
mod virtual_router;

pub use scalar::{Family, InterfaceName, Interval, Priority, Version, Vrid};
pub use virtual_router::{
    Announcements, Authentication, ChecksumSend, Config, ConfigError, LateActive, Preemption,
    Reach, UnicastPeer, VirtualAddress,
};

//! Counters.

use crate::discard::Discard;
use std::fmt;

/// What a virtual router has counted since it was made; a reload keeps it. `Display` writes keepalived's block for one instance,
/// without its first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Statistics {
    /// Advertisements that passed all checks but for their address list and sender.
    pub adverts_received: u64,
    /// Advertisements sent; copies for several peers count as one.
    pub adverts_sent: u64,
    /// Times it became Active.
    pub became_active: u64,
    /// Times it ceased to be Active.
    pub released_active: u64,
    /// Priority 0 heard.
    pub priority_zero_received: u64,
    /// Priority 0 sent; the double one on the way to Fault counts as one.
    pub priority_zero_sent: u64,
    /// Wrong lengths.
    pub length_errors: u64,
    /// Wrong TTLs and hop limits.
    pub ttl_errors: u64,
    /// Types that do not exist.
    pub type_errors: u64,
    /// Intervals that are not ours (version 2) or zero (version 3). keepalived never counts these.
    pub interval_errors: u64,
    /// Address lists that differ from ours (accepted nevertheless), and destinations that do not fit.
    pub address_list_errors: u64,
    /// Authentication types that do not exist.
    pub auth_type_errors: u64,
    /// Authentication types that are not ours.
    pub auth_type_mismatches: u64,
    /// Wrong passwords, integrity values and sequence numbers.
    pub auth_failures: u64,
    /// Wrong checksums.
    pub checksum_errors: u64,
    /// Wrong versions.
    pub version_errors: u64,
    /// Unicast advertisements of strangers. keepalived does not count these.
    pub peer_errors: u64,
    /// Times that the machine was not run in time and had to judge what it missed.
    pub late_wakeups: u64,
}

impl Statistics {
    pub(crate) fn count(&mut self, discard: Discard) {
        let counter = match discard {
            Discard::TooShort | Discard::Length { .. } => &mut self.length_errors,
            Discard::Ttl(_) | Discard::PeerTtl(_) => &mut self.ttl_errors,
            Discard::HeaderMismatch | Discard::AuthTypeMismatch(_) => {
                &mut self.auth_type_mismatches
            }
            Discard::Version(_) => &mut self.version_errors,
            Discard::InvalidAuthType(_) => &mut self.auth_type_errors,
            Discard::Password | Discard::Integrity | Discard::Spi | Discard::Replayed { .. } => {
                &mut self.auth_failures
            }
            Discard::Interval(_) | Discard::ZeroInterval => &mut self.interval_errors,
            Discard::Type(_) => &mut self.type_errors,
            Discard::Checksum => &mut self.checksum_errors,
            Discard::NoAddress | Discard::Destination(_) => &mut self.address_list_errors,
            Discard::NotAPeer => &mut self.peer_errors,
            Discard::UnknownVrid(_)
            | Discard::NotListening
            | Discard::StartingUp
            | Discard::NextHeader(_)
            | Discard::OwnerIsDeaf
            | Discard::LowerPriority(_) => return,
        };
        *counter += 1;
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  Advertisements:")?;
        writeln!(f, "    Received: {}", self.adverts_received)?;
        writeln!(f, "    Sent: {}", self.adverts_sent)?;
        writeln!(f, "  Became master: {}", self.became_active)?;
        writeln!(f, "  Released master: {}", self.released_active)?;
        writeln!(f, "  Packet Errors:")?;
        writeln!(f, "    Length: {}", self.length_errors)?;
        writeln!(f, "    TTL: {}", self.ttl_errors)?;
        writeln!(f, "    Invalid Type: {}", self.type_errors)?;
        writeln!(f, "    Advertisement Interval: {}", self.interval_errors)?;
        writeln!(f, "    Address List: {}", self.address_list_errors)?;
        writeln!(f, "  Authentication Errors:")?;
        writeln!(f, "    Invalid Type: {}", self.auth_type_errors)?;
        writeln!(f, "    Type Mismatch: {}", self.auth_type_mismatches)?;
        writeln!(f, "    Failure: {}", self.auth_failures)?;
        writeln!(f, "  Priority Zero:")?;
        writeln!(f, "    Received: {}", self.priority_zero_received)?;
        writeln!(f, "    Sent: {}", self.priority_zero_sent)
    }
}

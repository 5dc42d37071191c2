//! Settings of a director.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::Timeouts;

/// When a defence against floods is up. Automatic ones switch themselves by the memory that
/// [`Director::handle_memory`](crate::Director::handle_memory) is told, and readers see which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum Defence {
    /// Never (0).
    #[default]
    Off = 0,
    /// While memory is low; it is not (1).
    Automatic = 1,
    /// While memory is low; it is (2).
    AutomaticActive = 2,
    /// Always (3).
    Always = 3,
}

impl Defence {
    /// The kernel's number for it; `None` if it is not in `0..=3`.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Off),
            1 => Some(Self::Automatic),
            2 => Some(Self::AutomaticActive),
            3 => Some(Self::Always),
            _ => None,
        }
    }

    /// Whether it acts.
    pub const fn is_active(self) -> bool {
        matches!(self, Self::AutomaticActive | Self::Always)
    }

    pub(crate) const fn judged(self, low: bool) -> Self {
        match self {
            Self::Automatic | Self::AutomaticActive if low => Self::AutomaticActive,
            Self::Automatic | Self::AutomaticActive => Self::Automatic,
            Self::Off | Self::Always => self,
        }
    }
}

/// The kernel's tunables (`net.ipv4.vs.*`).
///
/// They act here unless their line says who acts by them, or that they have no effect and why; so one value holds
/// everything that an operator sets. Five have no meaning outside the kernel and are not here: `conntrack` and
/// `snat_reroute` (there is no netfilter), `debug_level`, and `est_cpulist` and `est_nice` (there are no
/// estimation threads).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
pub struct Tunables {
    /// In mode 3 of `drop_packet`: one in so many is dropped; 0 = none, negative = all. Taken over
    /// at the next evaluation, at most a second later. Default 10.
    pub am_droprate: i32,
    /// Memory is low below so many free pages; negative acts as 0. Default 1024.
    pub amemthresh: i32,
    /// While this director is a synchronisation backup ([`Director::set_backup`](crate::Director::set_backup)), clients'
    /// packets are not ours. Default off.
    pub backup_only: bool,
    /// Packets of a mark service without a usable server go on to where they were sent, if that is
    /// a unicast address and not one of
    /// [`Director::set_local_addresses`](crate::Director::set_local_addresses). Default off.
    pub cache_bypass: bool,
    /// What a SYN on an ended connection does. 0: the old server is used again. Any other value: it
    /// is scheduled anew if the state is TIME_WAIT or CLOSE; with bit value 2 also from FIN_WAIT
    /// when no reply was ever seen. Default 1.
    pub conn_reuse_mode: u32,
    /// Once a second a sample of 1/32 of the connections and templates is examined; half-open ones
    /// end, others that stand idle are thinned out. Default off.
    pub drop_entry: Defence,
    /// A share of the packets that would open a connection is dropped. Default off.
    pub drop_packet: Defence,
    /// The secure TCP tables apply. Default off.
    pub secure_tcp: Defence,
    /// Connections of a server that was removed end: in a sweep, or scheduled anew at their next
    /// packet; otherwise their packets are dropped. A SYN is scheduled anew when the server is
    /// quiesced. Default off.
    pub expire_nodest_conn: bool,
    /// A template whose server is quiesced is not used. Default off.
    pub expire_quiescent_template: bool,
    /// Packets of protocols that are not balanced are not looked at again after their decapsulation. No effect,
    /// because it is always so: what is not balanced is the host's, and what the host decapsulates does not come back
    /// here. Default off.
    pub ignore_tunneled: bool,
    /// Age at which an unused `lblc` mapping goes. Default one day.
    pub lblc_expiration: Duration,
    /// The same for `lblcr`, and the age at which a set loses a member. Default one day.
    pub lblcr_expiration: Duration,
    /// A real server that answers without a connection is told by ICMP. Default off.
    pub nat_icmp_send: bool,
    /// Packets that are too large and must not be fragmented are refused with an ICMP error, whatever the method; no
    /// effect on decisions: who forwards packets acts by it. Default on.
    pub pmtu_disc: bool,
    /// Rates are estimated. Default on.
    pub run_estimation: bool,
    /// An ICMP error without a connection is scheduled by the header that it quotes. Default off.
    pub schedule_icmp: bool,
    /// Any SCTP packet without ABORT may open a connection. Default off.
    pub sloppy_sctp: bool,
    /// Any TCP segment without RST may open a connection. Default off.
    pub sloppy_tcp: bool,
    /// Settings of connection synchronisation. No effect, because that is not part of this crate; they are carried for
    /// a program that has it ([`Worker::import_connection`](crate::Worker::import_connection)).
    pub sync: SyncTunables,
    /// TCP ports from here on may be data ports of an FTP service
    /// (`net.ipv4.ip_unprivileged_port_start`). Default 1024.
    pub unprivileged_port_start: u16,
}

impl Default for Tunables {
    fn default() -> Self {
        Self {
            am_droprate: 10,
            amemthresh: 1024,
            backup_only: false,
            cache_bypass: false,
            conn_reuse_mode: 1,
            drop_entry: Defence::Off,
            drop_packet: Defence::Off,
            secure_tcp: Defence::Off,
            expire_nodest_conn: false,
            expire_quiescent_template: false,
            ignore_tunneled: false,
            lblc_expiration: Duration::from_secs(86_400),
            lblcr_expiration: Duration::from_secs(86_400),
            nat_icmp_send: false,
            pmtu_disc: true,
            run_estimation: true,
            schedule_icmp: false,
            sloppy_sctp: false,
            sloppy_tcp: false,
            sync: SyncTunables::default(),
            unprivileged_port_start: 1024,
        }
    }
}

/// The tunables of connection synchronisation (`net.ipv4.vs.sync_*`). None has an effect here: see [`Tunables::sync`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
pub struct SyncTunables {
    /// Of persistent services only the templates. Default off.
    pub persist_mode: bool,
    /// Ports, from 8848 on: a power of two, at most 64. Default 1.
    pub ports: u8,
    /// Limit of queued messages; `None` leaves it to the synchronisation.
    pub qlen_max: Option<u64>,
    /// Smallest change of a deadline that is told again; zero = off.
    pub refresh_period: Duration,
    /// Repetitions within the refresh period, `0..=3`. Default 0.
    pub retries: u8,
    /// Socket buffer in bytes; 0 = the system's default.
    pub sock_size: u32,
    /// A connection is told when its packet count modulo the second number is the first. Default
    /// `(3, 50)`.
    pub threshold: (u32, u32),
    /// Protocol version, `0..=1`. Default 1.
    pub version: u8,
}

impl Default for SyncTunables {
    fn default() -> Self {
        Self {
            persist_mode: false,
            ports: 1,
            qlen_max: None,
            refresh_period: Duration::ZERO,
            retries: 0,
            sock_size: 0,
            threshold: (3, 50),
            version: 1,
        }
    }
}

/// What a director is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct DirectorConfig {
    /// Random seeds of the hash tables and of the flood defence's samples; with known ones a sender
    /// could build collisions.
    pub seeds: [u64; 4],
    /// Connections that one worker holds; more are dropped and counted. Default 2^20.
    #[cfg_attr(feature = "serde", serde(default = "million"))]
    pub max_connections: usize,
    /// Persistence templates of the whole director; connections that need more are dropped and
    /// counted. Default 2^20.
    #[cfg_attr(feature = "serde", serde(default = "million"))]
    pub max_templates: usize,
    /// Timeouts to begin with.
    #[cfg_attr(feature = "serde", serde(default))]
    pub timeouts: Timeouts,
    /// Tunables to begin with.
    #[cfg_attr(feature = "serde", serde(default))]
    pub tunables: Tunables,
    /// Ports that FULLNAT uses at local addresses. Default 1025 to 65535.
    #[cfg_attr(feature = "serde", serde(default = "local_ports"))]
    pub local_ports: RangeInclusive<u16>,
}

impl DirectorConfig {
    /// Defaults, with the caller's random seeds.
    pub fn new(seeds: [u64; 4]) -> Self {
        Self {
            seeds,
            max_connections: million(),
            max_templates: million(),
            timeouts: Timeouts::default(),
            tunables: Tunables::default(),
            local_ports: local_ports(),
        }
    }
}

fn million() -> usize {
    1 << 20
}

fn local_ports() -> RangeInclusive<u16> {
    1025..=65535
}

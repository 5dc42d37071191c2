//! Which options go with which command.

use crate::args::{Switch, Verb};

/// Options as diagnostics name them, in the order in which combinations are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum OptionName {
    Numeric,
    Connection,
    ServiceAddress,
    Scheduler,
    Persistent,
    Netmask,
    RealServer,
    ForwardingMethod,
    Weight,
    UpperThreshold,
    LowerThreshold,
    McastInterface,
    Timeout,
    Daemon,
    Stats,
    Rate,
    Thresholds,
    PersistentConn,
    NoSort,
    SyncId,
    Exact,
    Ops,
    Pe,
    SchedFlags,
    McastGroup,
    McastPort,
    McastTtl,
    SyncMaxlen,
    TunInfo,
    TunType,
    TunPort,
    TunNocsum,
    TunCsum,
    TunRemcsum,
    Laddr,
}

impl OptionName {
    /// The name.
    pub(crate) fn text(self) -> &'static str {
        ORDER
            .iter()
            .find(|(name, _)| *name == self)
            .map_or("", |(_, text)| text)
    }

    /// `None`: not checked, may be repeated.
    pub(crate) fn of(switch: Switch) -> Option<Self> {
        Some(match switch {
            Switch::TcpService
            | Switch::UdpService
            | Switch::SctpService
            | Switch::FwmarkService => Self::ServiceAddress,
            Switch::Ipv6 | Switch::Sort => return None,
            Switch::Scheduler => Self::Scheduler,
            Switch::Persistent => Self::Persistent,
            Switch::Netmask => Self::Netmask,
            Switch::Engine => Self::Pe,
            Switch::OnePacket => Self::Ops,
            Switch::SchedFlags => Self::SchedFlags,
            Switch::RealServer => Self::RealServer,
            Switch::Gatewaying | Switch::Ipip | Switch::Masquerading | Switch::Fullnat => {
                Self::ForwardingMethod
            }
            Switch::Laddr => Self::Laddr,
            Switch::TunType => Self::TunType,
            Switch::TunPort => Self::TunPort,
            Switch::TunNocsum => Self::TunNocsum,
            Switch::TunCsum => Self::TunCsum,
            Switch::TunRemcsum => Self::TunRemcsum,
            Switch::Weight => Self::Weight,
            Switch::UpperThreshold => Self::UpperThreshold,
            Switch::LowerThreshold => Self::LowerThreshold,
            Switch::Numeric => Self::Numeric,
            Switch::Connection => Self::Connection,
            Switch::Timeout => Self::Timeout,
            Switch::Daemon => Self::Daemon,
            Switch::Stats => Self::Stats,
            Switch::Rate => Self::Rate,
            Switch::Thresholds => Self::Thresholds,
            Switch::PersistentConn => Self::PersistentConn,
            Switch::TunInfo => Self::TunInfo,
            Switch::Exact => Self::Exact,
            Switch::NoSort => Self::NoSort,
            Switch::SyncId => Self::SyncId,
            Switch::SyncMaxlen => Self::SyncMaxlen,
            Switch::McastInterface => Self::McastInterface,
            Switch::McastGroup => Self::McastGroup,
            Switch::McastPort => Self::McastPort,
            Switch::McastTtl => Self::McastTtl,
        })
    }
}

/// The options that a command needs, and those that it may have.
pub(crate) fn legal_options(verb: Verb) -> (&'static [OptionName], &'static [OptionName]) {
    use OptionName as O;
    match verb {
        Verb::AddService | Verb::EditService => (
            &[O::ServiceAddress],
            &[
                O::Scheduler,
                O::Persistent,
                O::Netmask,
                O::Ops,
                O::Pe,
                O::SchedFlags,
            ],
        ),
        Verb::DeleteService => (&[O::ServiceAddress], &[]),
        Verb::AddServer | Verb::EditServer => (
            &[O::ServiceAddress, O::RealServer],
            &[
                O::ForwardingMethod,
                O::Weight,
                O::UpperThreshold,
                O::LowerThreshold,
                O::TunType,
                O::TunPort,
                O::TunNocsum,
                O::TunCsum,
                O::TunRemcsum,
            ],
        ),
        Verb::DeleteServer => (&[O::ServiceAddress, O::RealServer], &[]),
        Verb::AddLocal | Verb::DeleteLocal => (&[O::ServiceAddress, O::Laddr], &[]),
        Verb::ListLocal => (&[], &[O::ServiceAddress, O::Numeric]),
        Verb::List => (
            &[],
            &[
                O::Numeric,
                O::Connection,
                O::ServiceAddress,
                O::Timeout,
                O::Daemon,
                O::Stats,
                O::Rate,
                O::Thresholds,
                O::PersistentConn,
                O::NoSort,
                O::Exact,
                O::TunInfo,
                O::SyncId,
            ],
        ),
        Verb::StartDaemon => (
            &[],
            &[
                O::McastInterface,
                O::SyncId,
                O::SyncMaxlen,
                O::McastGroup,
                O::McastPort,
                O::McastTtl,
            ],
        ),
        Verb::StopDaemon => (&[], &[O::SyncId]),
        Verb::Save => (&[], &[O::Numeric]),
        Verb::Zero => (&[], &[O::ServiceAddress]),
        Verb::Flush | Verb::Restore | Verb::Set | Verb::Help | Verb::Version => (&[], &[]),
    }
}

/// The names, in the order of the checks.
pub(crate) const ORDER: &[(OptionName, &str)] = &[
    (OptionName::Numeric, "numeric"),
    (OptionName::Connection, "connection"),
    (OptionName::ServiceAddress, "service-address"),
    (OptionName::Scheduler, "scheduler"),
    (OptionName::Persistent, "persistent"),
    (OptionName::Netmask, "netmask"),
    (OptionName::RealServer, "real-server"),
    (OptionName::ForwardingMethod, "forwarding-method"),
    (OptionName::Weight, "weight"),
    (OptionName::UpperThreshold, "u-threshold"),
    (OptionName::LowerThreshold, "l-threshold"),
    (OptionName::McastInterface, "mcast-interface"),
    (OptionName::Timeout, "timeout"),
    (OptionName::Daemon, "daemon"),
    (OptionName::Stats, "stats"),
    (OptionName::Rate, "rate"),
    (OptionName::Thresholds, "thresholds"),
    (OptionName::PersistentConn, "persistent-conn"),
    (OptionName::NoSort, "nosort"),
    (OptionName::SyncId, "syncid"),
    (OptionName::Exact, "exact"),
    (OptionName::Ops, "ops"),
    (OptionName::Pe, "pe"),
    (OptionName::SchedFlags, "sched-flags"),
    (OptionName::McastGroup, "mcast-group"),
    (OptionName::McastPort, "mcast-port"),
    (OptionName::McastTtl, "mcast-ttl"),
    (OptionName::SyncMaxlen, "sync-maxlen"),
    (OptionName::TunInfo, "tun-info"),
    (OptionName::TunType, "tun-type"),
    (OptionName::TunPort, "tun-port"),
    (OptionName::TunNocsum, "tun-nocsum"),
    (OptionName::TunCsum, "tun-csum"),
    (OptionName::TunRemcsum, "tun-remcsum"),
    (OptionName::Laddr, "laddr"),
];

/// What `-L` lists at most one of.
pub(crate) const SUBJECTS: [OptionName; 4] = [
    OptionName::Connection,
    OptionName::ServiceAddress,
    OptionName::Timeout,
    OptionName::Daemon,
];

/// The type, then what depends on it.
pub(crate) const TUNNEL_OPTIONS: [OptionName; 5] = [
    OptionName::TunType,
    OptionName::TunPort,
    OptionName::TunNocsum,
    OptionName::TunCsum,
    OptionName::TunRemcsum,
];

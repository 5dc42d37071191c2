//! Objects that change priorities and weights, and who watches them.

use super::{Duration, IpAddr, Script, fmt, preset};

/// What an instance or group watches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tracking {
    /// Interfaces.
    pub interfaces: Vec<Track>,
    /// Scripts.
    pub scripts: Vec<Track>,
    /// Files.
    pub files: Vec<Track>,
    /// Processes.
    pub processes: Vec<Track>,
    /// BFD instances.
    pub bfd: Vec<Track>,
}

/// One watched object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    /// Its name.
    pub name: String,
    /// `None`: the object's own weight. Zero: its failure is a fault.
    pub weight: Option<i16>,
    /// The sign is flipped; `None`: as the object says.
    pub reverse: Option<bool>,
}

/// A script whose result changes priorities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VrrpScript {
    /// Name.
    pub name: String,
    /// The command. A first word that starts with `<` asks whether a file can be opened.
    pub script: Script,
    /// Time between runs.
    pub interval: Duration,
    /// Time that a run may take.
    pub timeout: Duration,
    /// Added to or taken from the priority; zero: failure is a fault.
    pub weight: i16,
    /// The sign is flipped.
    pub reverse: bool,
    /// Successes in a row before it counts as up.
    pub rise: u32,
    /// Failures in a row before it counts as down.
    pub fall: u32,
    /// Counts as failed at start.
    pub init_fail: bool,
}

impl VrrpScript {
    /// A script of which only the name is known.
    pub(crate) fn named(name: &str) -> Self {
        let interval = preset!(duration, VrrpScript, "interval");
        Self {
            name: name.to_owned(),
            script: Script {
                command: Vec::new(),
                user: None,
            },
            interval,
            timeout: interval,
            weight: preset!(number as i16, VrrpScript, "weight"),
            reverse: false,
            rise: preset!(number as u32, VrrpScript, "rise"),
            fall: preset!(number as u32, VrrpScript, "fall"),
            init_fail: false,
        }
    }
}

/// A file whose number changes priorities and weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackFile {
    /// Name.
    pub name: String,
    /// Where it is.
    pub path: String,
    /// Factor, -254..=254; zero: a number other than zero is a fault.
    pub weight: i16,
    /// The sign is flipped.
    pub reverse: bool,
    /// The file is written at start.
    pub init: Option<InitFile>,
}

/// What a tracked file is created with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitFile {
    /// The number.
    pub value: i32,
    /// Also when the file exists.
    pub overwrite: bool,
}

/// Processes whose presence changes priorities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackProcess {
    /// Name.
    pub name: String,
    /// Program and arguments; never empty.
    pub command: Vec<String>,
    /// How arguments are compared; `None`: not at all.
    pub parameters: Option<ParameterMatch>,
    /// -254..=254; zero: their absence is a fault.
    pub weight: i16,
    /// The sign is flipped.
    pub reverse: bool,
    /// How many there must be.
    pub quorum: u16,
    /// How many there may be; `None`: any number.
    pub quorum_max: Option<u16>,
    /// How long too few must last.
    pub terminate_delay: Duration,
    /// How long enough must last.
    pub fork_delay: Duration,
    /// Compare the command line instead of the process name.
    pub full_command: bool,
}

impl TrackProcess {
    /// A process of which only the name is known.
    pub(crate) fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            command: Vec::new(),
            parameters: None,
            weight: preset!(number as i16, TrackProcess, "weight"),
            reverse: false,
            quorum: preset!(number as u16, TrackProcess, "quorum"),
            quorum_max: None,
            terminate_delay: Duration::ZERO,
            fork_delay: Duration::ZERO,
            full_command: false,
        }
    }
}

words! {
    /// How the arguments of a process are compared.
    ParameterMatch {
        /// All of them, in order.
        Exact = "exact",
        /// The first ones.
        Initial = "initial",
        /// The first ones, the last of them in part.
        Partial = "partial",
    }
}

/// A bidirectional forwarding detection session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BfdInstance {
    /// Name, at most 31 bytes.
    pub name: String,
    /// The neighbour.
    pub neighbor: IpAddr,
    /// Own address, of the same family.
    pub source: Option<IpAddr>,
    /// Shortest gap between received packets.
    pub min_rx: Duration,
    /// Shortest gap between sent packets.
    pub min_tx: Duration,
    /// Gap between packets while the session is down.
    pub idle_tx: Duration,
    /// Packets to miss.
    pub multiplier: u8,
    /// Wait for the neighbour to speak first.
    pub passive: bool,
    /// Hop limit of sent packets.
    pub ttl: u8,
    /// Hops that a packet may have made; -1: not given a meaning by the original.
    pub max_hops: i16,
    /// The neighbour is not on the same link.
    pub multihop: bool,
    /// For tracking, -253..=253.
    pub weight: i16,
    /// The sign is flipped.
    pub reverse: bool,
    /// Events go to instances.
    pub vrrp: bool,
    /// Events go to checkers.
    pub checker: bool,
}

impl BfdInstance {
    /// A session with the default settings.
    pub(crate) fn named(name: &str, neighbor: IpAddr) -> Self {
        Self {
            name: name.to_owned(),
            neighbor,
            source: None,
            min_rx: preset!(duration, BfdInstance, "min_rx"),
            min_tx: preset!(duration, BfdInstance, "min_tx"),
            idle_tx: preset!(duration, BfdInstance, "idle_tx"),
            multiplier: preset!(number as u8, BfdInstance, "multiplier"),
            passive: false,
            ttl: Self::default_ttl(neighbor),
            max_hops: preset!(number as i16, BfdInstance, "max_hops"),
            multihop: false,
            weight: preset!(number as i16, BfdInstance, "weight"),
            reverse: false,
            vrrp: true,
            checker: true,
        }
    }

    /// The hop limit of a family.
    pub(crate) fn default_ttl(neighbor: IpAddr) -> u8 {
        if neighbor.is_ipv4() {
            preset!(number as u8, BfdInstance, "ttl")
        } else {
            64
        }
    }
}

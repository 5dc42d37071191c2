//! Connection states and what moves them.

use std::fmt;
use std::time::Duration;

use crate::time::{Nanos, nanos, seconds};
use crate::{Direction, Protocol, SctpEvent, TcpFlags};

/// State of a connection as the balancer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// A TCP connection.
    Tcp(TcpState),
    /// A UDP flow; it has one state.
    Udp,
    /// An SCTP association.
    Sctp(SctpState),
}

impl State {
    /// Whether a connection in this state counts as active.
    pub const fn is_active(self) -> bool {
        match self {
            Self::Tcp(state) => state.is_active(),
            Self::Udp => false,
            Self::Sctp(state) => matches!(state, SctpState::Established),
        }
    }

    /// The state of a connection that has seen no packet.
    pub(crate) const fn new(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp(TcpState::None),
            Protocol::Udp => Self::Udp,
            Protocol::Sctp => Self::Sctp(SctpState::None),
        }
    }

    /// The protocol of a connection in this state.
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::Tcp(_) => Protocol::Tcp,
            Self::Udp => Protocol::Udp,
            Self::Sctp(_) => Protocol::Sctp,
        }
    }

    /// Whether it is beyond its opening, which protects its template.
    pub(crate) const fn is_established(self) -> bool {
        matches!(
            self,
            Self::Tcp(TcpState::Established) | Self::Sctp(SctpState::Established)
        )
    }

    /// The name that listings show.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp(state) => state.name(),
            Self::Udp => "UDP",
            Self::Sctp(state) => state.name(),
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// TCP states of the balancer. They follow RFC 9293 loosely: it stands between the ends and often
/// sees one direction only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are RFC 9293's")]
pub enum TcpState {
    None,
    Established,
    SynSent,
    SynReceived,
    FinWait,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    SynAck,
}

impl TcpState {
    const fn is_active(self) -> bool {
        matches!(
            self,
            Self::Established | Self::SynSent | Self::SynReceived | Self::SynAck
        )
    }

    const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynReceived => "SYN_RECV",
            Self::FinWait => "FIN_WAIT",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listen => "LISTEN",
            Self::SynAck => "SYNACK",
        }
    }

    /// The state after a segment. The secure tables do not believe a client's word alone.
    pub(crate) fn after(self, path: Path, flags: TcpFlags, secure: bool) -> Self {
        // The precedence is the kernel's: RST, SYN, FIN, ACK; a segment with none of them closes.
        let event = if flags.contains(TcpFlags::RST) {
            3
        } else if flags.contains(TcpFlags::SYN) {
            0
        } else if flags.contains(TcpFlags::FIN) {
            1
        } else if flags.contains(TcpFlags::ACK) {
            2
        } else {
            return Self::Close;
        };
        let table = match (path, secure) {
            (Path::Input, false) => &INPUT,
            (Path::Output, false) => &OUTPUT,
            (Path::InputOnly, false) => &INPUT_ONLY,
            (Path::Input, true) => &SECURE_INPUT,
            (Path::Output, true) => &SECURE_OUTPUT,
            (Path::InputOnly, true) => &SECURE_INPUT_ONLY,
        };
        table[self as usize][event]
    }
}

/// SCTP states of the balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SctpState {
    /// Nothing seen.
    None,
    /// The client's first INIT.
    Init1,
    /// Further INITs of the client.
    Init,
    /// The server sent INIT ACK.
    CookieSent,
    /// The client sent COOKIE ECHO.
    CookieReplied,
    /// The server sent INIT.
    CookieWait,
    /// The client sent INIT ACK.
    Cookie,
    /// The server sent COOKIE ECHO.
    CookieEchoed,
    /// Both ends are open; the only active state.
    Established,
    /// The server sent SHUTDOWN.
    ShutdownSent,
    /// The client sent SHUTDOWN.
    ShutdownReceived,
    /// The server sent SHUTDOWN ACK.
    ShutdownAckSent,
    /// INIT was answered by ABORT.
    Rejected,
    /// Over.
    Closed,
}

impl SctpState {
    const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Init1 => "INIT1",
            Self::Init => "INIT",
            Self::CookieSent => "C-SENT",
            Self::CookieReplied => "C-REPLIED",
            Self::CookieWait => "C-WAIT",
            Self::Cookie => "COOKIE",
            Self::CookieEchoed => "C-ECHOED",
            Self::Established => "ESTABLISHED",
            Self::ShutdownSent => "S-SENT",
            Self::ShutdownReceived => "S-RECEIVED",
            Self::ShutdownAckSent => "S-ACK-SENT",
            Self::Rejected => "REJECTED",
            Self::Closed => "CLOSED",
        }
    }

    /// The state after a packet.
    pub(crate) const fn after(self, path: Path, event: SctpEvent) -> Self {
        let table = match path {
            Path::Input => &sctp::INPUT,
            Path::Output => &sctp::OUTPUT,
            Path::InputOnly => &sctp::INPUT_ONLY,
        };
        table[self as usize][event as usize]
    }
}

/// Which table a segment is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// From the client, replies are seen.
    Input,
    /// From the server.
    Output,
    /// From the client, no reply was ever seen.
    InputOnly,
}

impl Path {
    pub(crate) fn new(direction: Direction, no_output: bool) -> Self {
        match direction {
            Direction::Outbound => Self::Output,
            Direction::Inbound if no_output => Self::InputOnly,
            Direction::Inbound => Self::Input,
        }
    }
}

/// The adjustable timeouts (`ipvsadm --set`). Running connections take a new value at their next
/// packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default))]
pub struct Timeouts {
    /// Of ESTABLISHED.
    pub tcp: Duration,
    /// Of FIN_WAIT.
    pub tcp_fin: Duration,
    /// Of UDP flows.
    pub udp: Duration,
}

impl Default for Timeouts {
    /// 900 s, 120 s, 300 s.
    fn default() -> Self {
        Self {
            tcp: Duration::from_secs(900),
            tcp_fin: Duration::from_secs(120),
            udp: Duration::from_secs(300),
        }
    }
}

/// The timeout of each state.
#[derive(Clone, Debug)]
pub(crate) struct Timings {
    tcp: [Nanos; 11],
    sctp: [Nanos; 14],
    udp: Nanos,
}

impl Timings {
    pub(crate) fn new(timeouts: &Timeouts) -> Self {
        let mut tcp = TCP_SECONDS.map(seconds);
        tcp[TcpState::Established as usize] = nanos(timeouts.tcp);
        tcp[TcpState::FinWait as usize] = nanos(timeouts.tcp_fin);
        Self {
            tcp,
            sctp: SCTP_SECONDS.map(seconds),
            udp: nanos(timeouts.udp),
        }
    }

    pub(crate) fn of(&self, state: State) -> Nanos {
        match state {
            State::Tcp(state) => self.tcp[state as usize],
            State::Udp => self.udp,
            State::Sctp(state) => self.sctp[state as usize],
        }
    }
}

use TcpState::{
    Close as CL, CloseWait as CW, Established as ES, FinWait as FW, LastAck as LA, Listen as LI,
    SynAck as SA, SynReceived as SR, SynSent as SS, TimeWait as TW,
};

const TCP_SECONDS: [u64; 11] = [2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120];
const SCTP_SECONDS: [u64; 14] = [2, 4, 61, 61, 61, 61, 61, 61, 900, 61, 61, 61, 4, 61];

/// Rows in the order of the states, columns SYN, FIN, ACK, RST.
type Table = [[TcpState; 4]; 11];

const INPUT: Table = [
    [SR, CL, ES, CL], // NONE
    [ES, CW, ES, CL], // ESTABLISHED
    [ES, SS, SS, CL], // SYN_SENT
    [SR, TW, ES, SR], // SYN_RECV
    [SR, TW, FW, CL], // FIN_WAIT
    [SR, TW, TW, CL], // TIME_WAIT
    [SR, CL, CL, CL], // CLOSE
    [SR, CW, CW, CL], // CLOSE_WAIT
    [SR, LA, CL, LA], // LAST_ACK
    [SR, LI, LI, LI], // LISTEN
    [SR, TW, ES, SR], // SYNACK
];

const OUTPUT: Table = [
    [SS, TW, ES, CL], // NONE
    [ES, FW, ES, CL], // ESTABLISHED
    [SS, SS, SS, SS], // SYN_SENT
    [SR, TW, ES, CL], // SYN_RECV
    [SS, FW, FW, CL], // FIN_WAIT
    [SS, TW, TW, TW], // TIME_WAIT
    [SS, CL, CL, CL], // CLOSE
    [SS, TW, CW, CL], // CLOSE_WAIT
    [SS, LA, LA, CL], // LAST_ACK
    [LI, LI, ES, CL], // LISTEN
    [SR, TW, ES, CL], // SYNACK
];

const INPUT_ONLY: Table = [
    [SR, CL, ES, CL], // NONE
    [ES, FW, ES, CL], // ESTABLISHED
    [ES, SS, SS, CL], // SYN_SENT
    [SR, TW, ES, SR], // SYN_RECV
    [SR, FW, FW, CL], // FIN_WAIT
    [SR, TW, TW, CL], // TIME_WAIT
    [SR, CL, CL, CL], // CLOSE
    [SR, CW, CW, CL], // CLOSE_WAIT
    [SR, LA, CL, LA], // LAST_ACK
    [SR, LI, LI, LI], // LISTEN
    [SR, TW, ES, CL], // SYNACK
];

const SECURE_INPUT: Table = [
    [SR, CL, ES, CL], // NONE
    [ES, CW, ES, CL], // ESTABLISHED
    [ES, SS, SS, CL], // SYN_SENT
    [SR, TW, SR, SR], // SYN_RECV
    [SR, TW, FW, CL], // FIN_WAIT
    [SR, TW, TW, CL], // TIME_WAIT
    [SR, CL, CL, CL], // CLOSE
    [SR, CW, CW, CL], // CLOSE_WAIT
    [SR, LA, CL, LA], // LAST_ACK
    [SR, LI, LI, LI], // LISTEN
    [SA, SA, SA, CL], // SYNACK
];

const SECURE_OUTPUT: Table = [
    [SS, TW, ES, CL], // NONE
    [ES, FW, ES, CL], // ESTABLISHED
    [SS, SS, SS, SS], // SYN_SENT
    [SA, TW, ES, CL], // SYN_RECV
    [SS, FW, FW, CL], // FIN_WAIT
    [SS, TW, TW, TW], // TIME_WAIT
    [SS, CL, CL, CL], // CLOSE
    [SS, TW, CW, CL], // CLOSE_WAIT
    [SS, LA, LA, CL], // LAST_ACK
    [LI, LI, ES, CL], // LISTEN
    [SA, TW, ES, CL], // SYNACK
];

const SECURE_INPUT_ONLY: Table = [
    [SA, CL, ES, CL], // NONE
    [ES, FW, ES, CL], // ESTABLISHED
    [ES, SS, SS, CL], // SYN_SENT
    [SR, TW, ES, SR], // SYN_RECV
    [SA, FW, FW, CL], // FIN_WAIT
    [SA, TW, TW, CL], // TIME_WAIT
    [SA, CL, CL, CL], // CLOSE
    [SA, CW, CW, CL], // CLOSE_WAIT
    [SA, LA, CL, LA], // LAST_ACK
    [SA, LI, LI, LI], // LISTEN
    [SA, TW, ES, CL], // SYNACK
];

mod sctp {
    use super::SctpState::{
        self, Closed as CL, Cookie as CO, CookieEchoed as CE, CookieReplied as CR,
        CookieSent as CS, CookieWait as CW, Established as ES, Init as IN, Init1 as I1,
        Rejected as RJ, ShutdownAckSent as SA, ShutdownReceived as SR, ShutdownSent as SS,
    };

    /// Rows in the order of the states, columns in the order of the events.
    type Table = [[SctpState; 10]; 14];

    pub(super) const INPUT: Table = [
        [ES, I1, CW, CR, ES, SR, CL, CL, CL, CL], // NONE
        [I1, IN, CW, IN, I1, I1, IN, CL, I1, CL], // INIT1
        [IN, IN, CW, IN, IN, IN, IN, CL, IN, CL], // INIT
        [CS, CS, CS, CR, CS, CS, CS, CS, CS, CL], // C-SENT
        [CR, CR, CR, CR, CR, CR, CR, CR, CR, CL], // C-REPLIED
        [CW, CW, CO, CW, CW, CW, CW, CW, CW, RJ], // C-WAIT
        [CO, CO, CO, CO, CO, CO, CO, CO, CO, CL], // COOKIE
        [CE, CE, CE, CE, ES, CE, CE, CE, CL, CL], // C-ECHOED
        [ES, ES, ES, ES, ES, SR, ES, ES, ES, CL], // ESTABLISHED
        [SS, SS, SS, SS, SS, SS, CL, SS, SS, CL], // S-SENT
        [SR, SR, SR, SR, SR, SR, SR, SR, SR, CL], // S-RECEIVED
        [SA, SA, SA, SA, SA, SA, CL, CL, SA, CL], // S-ACK-SENT
        [RJ, IN, RJ, RJ, RJ, RJ, RJ, RJ, RJ, CL], // REJECTED
        [CL, IN, CL, CL, CL, CL, CL, CL, CL, CL], // CLOSED
    ];

    pub(super) const OUTPUT: Table = [
        [ES, CW, CS, CE, ES, SS, SA, CL, CL, CL], // NONE
        [I1, CW, CS, CE, ES, SS, SA, I1, CL, RJ], // INIT1
        [IN, CW, CS, CE, ES, SS, SA, IN, CL, CL], // INIT
        [CS, CW, CS, CE, ES, SS, SA, CS, CL, CL], // C-SENT
        [CR, CW, CR, CE, ES, SS, SA, CR, CL, CL], // C-REPLIED
        [CW, CW, CW, CE, ES, SS, CW, CW, CW, CL], // C-WAIT
        [CO, CW, CO, CE, ES, SS, CO, CO, CO, CL], // COOKIE
        [CE, CW, CE, CE, ES, SS, CE, CE, CE, CL], // C-ECHOED
        [ES, ES, ES, ES, ES, SS, ES, ES, ES, CL], // ESTABLISHED
        [SS, CW, SS, SS, SS, SS, SA, SS, SS, CL], // S-SENT
        [SR, CW, SR, SR, SR, SR, SA, SR, SR, CL], // S-RECEIVED
        [SA, CW, SA, SA, SA, SA, SA, SA, SA, CL], // S-ACK-SENT
        [RJ, CW, RJ, RJ, RJ, RJ, RJ, RJ, RJ, CL], // REJECTED
        [CL, CW, CL, CL, CL, CL, CL, CL, CL, CL], // CLOSED
    ];

    pub(super) const INPUT_ONLY: Table = [
        [ES, I1, CE, ES, ES, SR, CL, CL, CL, CL], // NONE
        [I1, IN, CE, ES, I1, I1, IN, CL, I1, CL], // INIT1
        [IN, IN, CE, ES, IN, IN, IN, CL, IN, CL], // INIT
        [CS, IN, CE, ES, ES, CS, CS, CL, CS, CL], // C-SENT
        [CR, IN, CE, ES, ES, CR, CR, CL, CR, CL], // C-REPLIED
        [ES, IN, CE, ES, CW, CW, CW, CW, CW, RJ], // C-WAIT
        [CO, CO, CO, CO, ES, CO, CO, CO, CO, CL], // COOKIE
        [CE, CE, CE, CE, ES, CE, CE, CE, CE, CL], // C-ECHOED
        [ES, ES, ES, ES, ES, SR, CL, ES, ES, CL], // ESTABLISHED
        [SS, SS, SS, SS, SS, SS, CL, SS, SS, CL], // S-SENT
        [SR, SR, SR, SR, SR, SR, SR, CL, SR, CL], // S-RECEIVED
        [SA, SA, SA, SA, SA, SA, CL, CL, SA, CL], // S-ACK-SENT
        [RJ, IN, RJ, RJ, RJ, RJ, RJ, RJ, RJ, CL], // REJECTED
        [CL, IN, CL, CL, CL, CL, CL, CL, CL, CL], // CLOSED
    ];
}

#[cfg(test)]
mod tests {
    use super::TcpState::None as NO;
    use super::*;

    /// Segments like `C:SA`, from client or server, and the state after each.
    fn walk(one_way: bool, steps: &[(&str, TcpState)]) {
        walk_by(false, one_way, steps);
    }

    fn walk_by(secure: bool, one_way: bool, steps: &[(&str, TcpState)]) {
        let mut state = NO;
        for (step, expected) in steps {
            let (side, letters) = step.split_once(':').unwrap();
            let flags = letters.chars().fold(TcpFlags::default(), |flags, letter| {
                flags
                    | match letter {
                        'S' => TcpFlags::SYN,
                        'A' => TcpFlags::ACK,
                        'F' => TcpFlags::FIN,
                        'R' => TcpFlags::RST,
                        _ => TcpFlags::PSH,
                    }
            });
            let direction = if side == "C" {
                Direction::Inbound
            } else {
                Direction::Outbound
            };
            state = state.after(Path::new(direction, one_way), flags, secure);
            assert_eq!(state, *expected, "after {step}");
        }
    }

    #[test]
    fn worked_traces() {
        let open = [("C:S", SR), ("S:SA", SR), ("C:A", ES)];
        let nat = |rest: &[(&str, TcpState)]| walk(false, &[&open, rest].concat());
        nat(&[("C:FA", CW), ("S:A", CW), ("S:FA", TW), ("C:A", TW)]);
        nat(&[("S:FA", FW), ("C:A", FW), ("C:FA", TW), ("S:A", TW)]);
        nat(&[("C:R", CL)]);
        walk(false, &[("C:S", SR), ("C:R", SR)]);
        walk(
            true,
            &[
                ("C:S", SR),
                ("C:A", ES),
                ("C:FA", FW),
                ("C:A", FW),
                ("C:S", SR),
            ],
        );
    }

    #[test]
    fn a_segment_without_flags_closes() {
        walk(false, &[("C:S", SR), ("C:A", ES), ("C:P", CL)]);
    }

    #[test]
    fn active_states_are_four() {
        let active: Vec<_> = [NO, ES, SS, SR, FW, TW, CL, CW, LA, LI, SA]
            .into_iter()
            .filter(|s| s.is_active())
            .collect();
        assert_eq!(active, [ES, SS, SR, SA]);
    }

    #[test]
    fn secure_traces() {
        walk_by(
            true,
            false,
            &[("C:S", SR), ("S:SA", SA), ("C:A", SA), ("S:A", ES)],
        );
        walk_by(true, true, &[("C:S", SA), ("C:A", ES), ("C:FA", FW)]);
    }

    #[test]
    fn secure_tables_differ_in_fifteen_cells() {
        let differences = |normal: &Table, secure: &Table| {
            let cells = normal.iter().flatten().zip(secure.iter().flatten());
            cells.filter(|(normal, secure)| normal != secure).count()
        };
        let counts = [
            differences(&INPUT, &SECURE_INPUT),
            differences(&OUTPUT, &SECURE_OUTPUT),
            differences(&INPUT_ONLY, &SECURE_INPUT_ONLY),
        ];
        assert_eq!(counts, [5, 2, 8]);
    }

    #[test]
    fn sctp_worked_traces() {
        use SctpEvent as E;
        use SctpState as S;
        let walk = |one_way: bool, steps: &[(char, SctpEvent, SctpState)]| {
            let mut state = S::None;
            for &(side, event, expected) in steps {
                let direction = if side == 'C' {
                    Direction::Inbound
                } else {
                    Direction::Outbound
                };
                state = state.after(Path::new(direction, one_way), event);
                assert_eq!(state, expected, "after {side} {event:?}");
            }
        };
        walk(
            false,
            &[
                ('C', E::Init, S::Init1),
                ('S', E::InitAck, S::CookieSent),
                ('C', E::CookieEcho, S::CookieReplied),
                ('S', E::CookieAck, S::Established),
                ('C', E::Shutdown, S::ShutdownReceived),
                ('S', E::ShutdownAck, S::ShutdownAckSent),
                ('C', E::ShutdownComplete, S::Closed),
            ],
        );
        walk(
            true,
            &[
                ('C', E::Init, S::Init1),
                ('C', E::CookieEcho, S::Established),
                ('C', E::Shutdown, S::ShutdownReceived),
                ('C', E::ShutdownComplete, S::Closed),
            ],
        );
    }
}

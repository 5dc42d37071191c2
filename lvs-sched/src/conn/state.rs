//! Connection states and what moves them.

use std::fmt;
use std::time::Duration;

use crate::time::{Nanos, nanos, seconds};
use crate::{Direction, TcpFlags};

/// State of a connection as the balancer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// A TCP connection.
    Tcp(TcpState),
    /// A UDP flow; it has one state.
    Udp,
}

impl State {
    /// Whether a connection in this state counts as active.
    pub const fn is_active(self) -> bool {
        match self {
            Self::Tcp(state) => state.is_active(),
            Self::Udp => false,
        }
    }

    /// The name that listings show.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp(state) => state.name(),
            Self::Udp => "UDP",
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

    /// The state after a segment.
    pub(crate) fn after(self, path: Path, flags: TcpFlags) -> Self {
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
        let table = match path {
            Path::Input => &INPUT,
            Path::Output => &OUTPUT,
            Path::InputOnly => &INPUT_ONLY,
        };
        table[self as usize][event]
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
    udp: Nanos,
}

impl Timings {
    pub(crate) fn new(timeouts: &Timeouts) -> Self {
        let mut tcp = TCP_SECONDS.map(seconds);
        tcp[TcpState::Established as usize] = nanos(timeouts.tcp);
        tcp[TcpState::FinWait as usize] = nanos(timeouts.tcp_fin);
        Self {
            tcp,
            udp: nanos(timeouts.udp),
        }
    }

    pub(crate) fn of(&self, state: State) -> Nanos {
        match state {
            State::Tcp(state) => self.tcp[state as usize],
            State::Udp => self.udp,
        }
    }
}

use TcpState::{
    Close as CL, CloseWait as CW, Established as ES, FinWait as FW, LastAck as LA, Listen as LI,
    SynReceived as SR, SynSent as SS, TimeWait as TW,
};

const TCP_SECONDS: [u64; 11] = [2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120];

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

#[cfg(test)]
mod tests {
    use super::TcpState::{None as NO, SynAck as SA};
    use super::*;

    /// Segments like `C:SA`, from client or server, and the state after each.
    fn walk(one_way: bool, steps: &[(&str, TcpState)]) {
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
            state = state.after(Path::new(direction, one_way), flags);
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
}

//! The FTP helper: control connections that are rewritten tell clients and servers of data connections, and the balancer
//! has to listen.
//!
//! [`lvs_sched::ftp`] has the words, the connection table expects the data connections, and `lvs_fwd` moves the numbers of
//! a stream whose text changed length. Here is what is remembered between segments of one worker's control connections.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lvs_fwd::balancer::{Edit, Replacement};
use lvs_fwd::rewrite::sequence::Shift;
use lvs_sched::ftp::{Announcement, Command, Passive};
use lvs_sched::{
    Direction, Family, ForwardMethod, Packet, Protocol, State, TcpFlags, TcpState, Verdict, Worker,
};
use tracing::debug;

/// One worker's memory of control connections.
///
/// With several workers a client's data connections have to be with the address that it controls from, as they are for
/// every client but one that moves files between two servers.
#[derive(Debug, Default)]
pub struct FtpHelper {
    controls: HashMap<Control, Progress>,
    edits: VecDeque<(usize, Edit)>,
    sweep: Option<Instant>,
}

/// A segment on the way through.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    /// Its place in the batch.
    pub index: usize,
    /// What the scheduler was asked.
    pub packet: &'a Packet,
    /// What it answered.
    pub verdict: &'a Verdict,
    /// The sequence number, before it is changed.
    pub sequence: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Control {
    client: SocketAddr,
    virtual_addr: SocketAddr,
}

#[derive(Debug, Clone, Default)]
struct Progress {
    /// What the client asked for last, until the server has said where it waits.
    asked: Option<Passive>,
    /// The segment that was rewritten last, by its sequence number: it may come again.
    rewritten: Option<(u32, Passive)>,
    to_client: Shift,
}

impl FtpHelper {
    /// Whether a packet is one of a control connection that is rewritten.
    #[inline]
    pub fn concerns(packet: &Packet, verdict: &Verdict) -> bool {
        let control_port = match (packet.direction, verdict) {
            (
                Direction::Inbound,
                Verdict::Forward {
                    method: ForwardMethod::Nat,
                    ..
                },
            ) => packet.destination.port(),
            (
                Direction::Outbound,
                Verdict::Reply {
                    method: ForwardMethod::Nat,
                    vip,
                },
            ) => vip.port(),
            _ => return false,
        };
        control_port == FTP && packet.protocol == Protocol::Tcp
    }

    /// Reads a segment that [concerns](Self::concerns) it, and expects what it announces. What is to be changed in it is
    /// found by [`poll_edit`](Self::poll_edit).
    pub fn handle(&mut self, now: Instant, worker: &mut Worker, segment: &Segment<'_>) {
        match (segment.packet.direction, segment.verdict) {
            (Direction::Inbound, _) => self.client_sent(now, worker, segment),
            (Direction::Outbound, Verdict::Reply { vip, .. }) => {
                let control = Control {
                    client: segment.packet.destination,
                    virtual_addr: *vip,
                };
                self.server_sent(now, worker, segment, control);
            }
            (Direction::Outbound, _) => {}
        }
    }

    /// The next change to a segment, by its place in the batch; ascending.
    pub fn poll_edit(&mut self) -> Option<(usize, Edit)> {
        self.edits.pop_front()
    }

    /// Forgets connections that have ended, now and then.
    pub fn handle_timeout(&mut self, now: Instant, worker: &Worker) {
        if self.sweep.is_some_and(|due| now >= due) {
            self.forget_ended(worker);
            self.sweep = (!self.controls.is_empty()).then(|| now + SWEEP_PAUSE);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.sweep
    }

    fn client_sent(&mut self, now: Instant, worker: &mut Worker, segment: &Segment<'_>) {
        let packet = segment.packet;
        let control = Control {
            client: packet.source,
            virtual_addr: packet.destination,
        };
        if packet.tcp_flags.contains(TcpFlags::SYN) {
            // One that comes again while the connection stands changes nothing.
            let found = worker.connection(Protocol::Tcp, control.client, control.virtual_addr);
            if found.is_none_or(|found| found.state != State::Tcp(TcpState::Established)) {
                self.controls.remove(&control);
            }
            return;
        }
        let family = match control.client {
            SocketAddr::V4(_) => Family::Inet,
            SocketAddr::V6(_) => Family::Inet6,
        };
        match Command::parse(segment.payload, family) {
            Some(Command::Passive(asked)) => {
                if let Some(progress) = self.progress(now, worker, control) {
                    progress.asked = Some(asked);
                }
            }
            Some(Command::Active(data)) => {
                let Control {
                    client,
                    virtual_addr,
                } = control;
                if let Err(error) = worker.expect_active(now, client, virtual_addr, data) {
                    debug!("FTP data connection of {client} to {data} is not expected: {error}");
                }
            }
            None => {}
        }
        if let Some(progress) = self.controls.get(&control)
            && progress.to_client.is_moved()
        {
            let edit = Edit {
                received: progress.to_client,
                ..Edit::default()
            };
            self.edits.push_back((segment.index, edit));
        }
    }

    fn server_sent(
        &mut self,
        now: Instant,
        worker: &mut Worker,
        segment: &Segment<'_>,
        control: Control,
    ) {
        let Some(progress) = self.controls.get_mut(&control) else {
            return;
        };
        let again = progress
            .rewritten
            .filter(|(sequence, _)| *sequence == segment.sequence);
        let asked = again.map(|(_, asked)| asked).or(progress.asked);
        let replacement = asked
            .filter(|_| !segment.payload.is_empty())
            .and_then(|asked| announce(now, worker, segment, control, asked));
        if let (Some(replacement), Some(asked)) = (&replacement, asked) {
            let longer = replacement.text.len() as i32 - replacement.len as i32;
            progress.to_client.record(segment.sequence, longer);
            progress.rewritten = Some((segment.sequence, asked));
            progress.asked = None;
        }
        if replacement.is_some() || progress.to_client.is_moved() {
            let edit = Edit {
                sent: progress.to_client,
                replacement,
                ..Edit::default()
            };
            self.edits.push_back((segment.index, edit));
        }
    }

    /// The memory of a connection, which begins here; `None` if there are too many.
    fn progress(
        &mut self,
        now: Instant,
        worker: &Worker,
        control: Control,
    ) -> Option<&mut Progress> {
        if self.controls.len() >= MAX_CONTROLS && !self.controls.contains_key(&control) {
            self.forget_ended(worker);
            if self.controls.len() >= MAX_CONTROLS {
                return None;
            }
        }
        self.sweep.get_or_insert(now + SWEEP_PAUSE);
        Some(self.controls.entry(control).or_default())
    }

    fn forget_ended(&mut self, worker: &Worker) {
        self.controls.retain(|control, _| {
            let found = worker.connection(Protocol::Tcp, control.client, control.virtual_addr);
            found.is_some()
        });
    }
}

/// The server says where it waits: the table expects a client there, who is told another address.
fn announce(
    now: Instant,
    worker: &mut Worker,
    segment: &Segment<'_>,
    control: Control,
    asked: Passive,
) -> Option<Replacement> {
    let announced = Announcement::parse(segment.payload, asked)?;
    let addr = announced.addr.unwrap_or_else(|| segment.packet.source.ip());
    let server = SocketAddr::new(addr, announced.port);
    let Control {
        client,
        virtual_addr,
    } = control;
    match worker.expect_passive(now, client, virtual_addr, server) {
        Ok(told) => Some(Replacement {
            at: announced.at.start,
            len: announced.at.len(),
            text: asked.text(told)?.into_bytes(),
        }),
        Err(error) => {
            debug!("FTP data connection of {client} to {server} is not expected: {error}");
            None
        }
    }
}

const FTP: u16 = 21;
/// More control connections than that which ask for passive mode get no help.
const MAX_CONTROLS: usize = 1 << 14;
const SWEEP_PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;

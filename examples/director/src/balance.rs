//! The scheduler as the data path's balancer: two vocabularies, translated.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use lvs_fwd::balancer::{self, Balancer, Encapsulation, PacketInfo, Packets};
use lvs_sched::{
    self as sched, ForwardMethod, LocalEnd, Protocol, SctpEvent, State, TcpFlags, TcpState,
};

use crate::ftp::{FtpHelper, Segment};
use crate::tunnels::{self, Tunnels};

/// One worker's half of the scheduler, asked by that worker's engine.
#[derive(Debug)]
pub struct SchedBalancer {
    worker: sched::Worker,
    tunnels: Arc<Tunnels>,
    ftp: FtpHelper,
    packets: Vec<sched::Packet>,
    verdicts: Vec<sched::Verdict>,
}

impl SchedBalancer {
    /// Over this worker, with these tunnels.
    pub fn new(worker: sched::Worker, tunnels: Arc<Tunnels>) -> Self {
        Self {
            worker,
            tunnels,
            ftp: FtpHelper::default(),
            packets: Vec::new(),
            verdicts: Vec::new(),
        }
    }

    /// The worker, for listings.
    pub fn worker(&self) -> &sched::Worker {
        &self.worker
    }

    /// What a packet would meet, as [`lvs_sched::Worker::explain`].
    pub fn explain(
        &mut self,
        now: Instant,
        packet: &sched::Packet,
        payload: Option<&[u8]>,
    ) -> sched::Explanation {
        match payload {
            Some(payload) => self.worker.explain_with(now, packet, payload),
            None => self.worker.explain(now, packet),
        }
    }

    /// What an AH or ESP packet would meet, as [`lvs_sched::Worker::explain_ipsec`].
    pub fn explain_ipsec(
        &mut self,
        now: Instant,
        direction: sched::Direction,
        (source, destination): (IpAddr, IpAddr),
    ) -> sched::Explanation {
        self.worker
            .explain_ipsec(now, direction, source, destination)
    }

    /// Lets the FTP helper read the control connections in the batch.
    fn help_ftp(&mut self, now: Instant, packets: &Packets<'_>) {
        let answered = self.packets.iter().zip(&self.verdicts);
        for (index, (packet, verdict)) in answered.enumerate() {
            if FtpHelper::concerns(packet, verdict)
                && let Some(sequence) = packets.sequence(index)
            {
                let segment = Segment {
                    index,
                    packet,
                    verdict,
                    sequence,
                    payload: packets.payload(index),
                };
                self.ftp.handle(now, &mut self.worker, &segment);
            }
        }
    }
}

impl Balancer for SchedBalancer {
    fn decide(
        &mut self,
        now: Instant,
        packets: &Packets<'_>,
        verdicts: &mut Vec<balancer::Verdict>,
    ) {
        self.packets.clear();
        self.packets
            .extend(packets.iter().enumerate().map(|(at, info)| sched::Packet {
                sctp: sctp_event(info, || packets.payload(at)),
                ..packet(info)
            }));
        self.verdicts.clear();
        self.worker
            .handle_batch_with(now, &self.packets, &Payloads(packets), &mut self.verdicts);
        self.help_ftp(now, packets);
        let present = self.tunnels.present();
        verdicts.extend(
            self.verdicts
                .iter()
                .zip(packets.iter())
                .map(|(found, packet)| {
                    verdict(found, |server| {
                        tunnels::encapsulation(&present, packet, false, server)
                    })
                }),
        );
    }

    fn poll_edit(&mut self) -> Option<(usize, balancer::Edit)> {
        self.ftp.poll_edit()
    }

    fn decide_error(&mut self, now: Instant, quoted: &PacketInfo) -> balancer::Verdict {
        let found = self.worker.handle_icmp(now, &packet(quoted));
        verdict(&found, |server| {
            tunnels::encapsulation(&self.tunnels.present(), quoted, true, server)
        })
    }

    fn decide_ipsec(&mut self, now: Instant, packet: &PacketInfo) -> balancer::Verdict {
        let found = self.worker.handle_ipsec(
            now,
            direction(packet.direction),
            packet.source.ip(),
            packet.destination.ip(),
            packet.length,
        );
        // The tunnel is the key exchange's.
        let exchange = exchange(packet);
        verdict(&found, |server| {
            tunnels::encapsulation(&self.tunnels.present(), &exchange, false, server)
        })
    }

    fn decide_tunnel_error(&mut self, now: Instant, inner: &PacketInfo) -> balancer::Verdict {
        let found = self.worker.handle_tunnel_icmp(now, &packet(inner));
        verdict(&found, |server| {
            tunnels::encapsulation(&self.tunnels.present(), inner, true, server)
        })
    }

    fn poll_ended(&mut self) -> Option<balancer::Ended> {
        // What has no local address is not one of these.
        loop {
            let LocalEnd {
                connection,
                timed_out,
                ..
            } = self.worker.poll_local_end()?;
            if let Some(local) = connection.local {
                return Some(balancer::Ended {
                    client: connection.client,
                    vip: connection.virtual_addr,
                    local,
                    server: connection.destination,
                    reset: timed_out && connection.state == State::Tcp(TcpState::Established),
                });
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.worker.handle_timeout(now);
        self.ftp.handle_timeout(now, &self.worker);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let deadlines = [self.worker.poll_timeout(), self.ftp.poll_timeout()];
        deadlines.into_iter().flatten().min()
    }
}

/// What a persistence engine reads.
struct Payloads<'a>(&'a Packets<'a>);

impl sched::Payloads for Payloads<'_> {
    fn payload(&self, index: usize) -> &[u8] {
        self.0.payload(index)
    }
}

/// What an SCTP packet means, by its chunks; those of others are not looked up.
fn sctp_event<'a>(info: &PacketInfo, chunks: impl FnOnce() -> &'a [u8]) -> Option<SctpEvent> {
    match info.protocol == Protocol::Sctp.number() {
        true => SctpEvent::parse(chunks()),
        false => None,
    }
}

#[inline]
fn direction(direction: balancer::Direction) -> sched::Direction {
    match direction {
        balancer::Direction::Inbound => sched::Direction::Inbound,
        balancer::Direction::Outbound => sched::Direction::Outbound,
    }
}

#[inline]
fn packet(info: &PacketInfo) -> sched::Packet {
    sched::Packet {
        // The data path claims the protocols of services only.
        protocol: Protocol::from_number(info.protocol).unwrap_or(Protocol::Tcp),
        source: info.source,
        destination: info.destination,
        direction: direction(info.direction),
        tcp_flags: TcpFlags::from_bits(info.tcp_flags),
        sctp: None,
        length: info.length,
        mark: info.mark,
    }
}

#[inline]
fn verdict(
    verdict: &sched::Verdict,
    encapsulation: impl FnOnce(SocketAddr) -> Encapsulation,
) -> balancer::Verdict {
    match *verdict {
        // Named for itself: most are this, and go to their place without a stop.
        sched::Verdict::Forward {
            method: ForwardMethod::Nat,
            server: rip,
        } => balancer::Verdict::Forward(balancer::Method::Nat { rip }),
        // The host routes it to where it was sent.
        sched::Verdict::Forward {
            method: ForwardMethod::Bypass,
            ..
        } => balancer::Verdict::NotOurs,
        sched::Verdict::Forward { method, server } => {
            match self::method(method, server, encapsulation) {
                Some(method) => balancer::Verdict::Forward(method),
                // FULLNAT without a local address, of a connection that came from elsewhere.
                None => balancer::Verdict::Drop(METHOD_NOT_BUILT),
            }
        }
        sched::Verdict::Reply { method, vip } => match method {
            ForwardMethod::Nat => balancer::Verdict::Reply { source: vip },
            // The reply has the service's address already.
            _ => balancer::Verdict::NotOurs,
        },
        sched::Verdict::ForwardFrom { local, server } => {
            balancer::Verdict::Forward(balancer::Method::FullNat { rip: server, local })
        }
        sched::Verdict::ReplyTo { vip, client } => balancer::Verdict::ReplyTo {
            source: vip,
            client,
        },
        sched::Verdict::NotOurs => balancer::Verdict::NotOurs,
        sched::Verdict::Drop(reason) => balancer::Verdict::Drop(reason as u8),
        sched::Verdict::Reject => balancer::Verdict::Reject,
    }
}

/// How the data path sends to a server; `None` if it can't.
#[inline]
pub fn method(
    method: ForwardMethod,
    server: SocketAddr,
    encapsulation: impl FnOnce(SocketAddr) -> Encapsulation,
) -> Option<balancer::Method> {
    match method {
        ForwardMethod::Nat => Some(balancer::Method::Nat { rip: server }),
        ForwardMethod::DirectRoute | ForwardMethod::Local => {
            Some(balancer::Method::DirectRoute { rip: server.ip() })
        }
        ForwardMethod::Tunnel => Some(balancer::Method::Tunnel {
            rip: server.ip(),
            encapsulation: encapsulation(server),
        }),
        ForwardMethod::Bypass | ForwardMethod::FullNat => None,
    }
}

/// The packet of a key exchange that stands for an AH or ESP packet.
pub fn exchange(packet: &PacketInfo) -> PacketInfo {
    PacketInfo {
        protocol: Protocol::Udp.number(),
        source: SocketAddr::new(packet.source.ip(), ISAKMP),
        destination: SocketAddr::new(packet.destination.ip(), ISAKMP),
        ..*packet
    }
}

/// UDP port of key exchanges.
const ISAKMP: u16 = 500;
/// A drop reason of the director's own, after those of the scheduler.
const METHOD_NOT_BUILT: u8 = u8::MAX;

#[cfg(test)]
mod tests;

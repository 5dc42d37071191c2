//! A batch of frames in, their destinies out; no system call, no clock.
//!
//! ```text
//! classify ─▶ owner? ─▶ Balancer::decide (batch) ─▶ next hop ─▶ TTL, MTU ─▶ rewrite ─▶ Output
//! ```
//!
//! An [`Engine`] belongs to one worker. Its buffers, and the caller's [`Output`], are reused from batch to
//! batch, so that in steady state no packet allocates. What can't go at once (an unresolved next hop) is
//! copied to the heap and held; what is not claimed is left alone, because the host has it.

mod forward;
mod fragments;
mod hops;
mod path_mtu;
mod reassembly;
mod streams;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use self::forward::Core;
use self::fragments::Fate;
use self::reassembly::Added;
use crate::balancer::{
    Balancer, Direction, Encapsulation, Method, PacketInfo, Packets, Payloads, Verdict,
};
use crate::frame::{ChecksumState, Frame, PacketKind};
use crate::handoff::{Errand, Handoff, Origin};
use crate::icmp;
use crate::marks::MarkQuery;
use crate::neigh::HoldingConfig;
use crate::route::Hop;
use crate::stats::{Counters, DropReason, Event, LeftReason};
use crate::steer;
use crate::view::{Endpoint, PortId, View};
use crate::wire::{
    Datagram, Fragment, Headers, Inner, Quoted, Tunnelled, Unparsed, Wrapping, ethernet, is_ipsec,
    protocol, tcp,
};

/// What an engine is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineConfig {
    /// This worker's number, from 0.
    pub worker: u32,
    /// How many workers there are.
    pub workers: u32,
    /// Bounds for frames that wait for a neighbour.
    pub holding: HoldingConfig,
}

impl Default for EngineConfig {
    /// The only worker.
    fn default() -> Self {
        Self {
            worker: 0,
            workers: 1,
            holding: HoldingConfig::default(),
        }
    }
}

/// The data path of one worker.
#[derive(Debug)]
pub struct Engine {
    worker: u32,
    workers: u32,
    /// Frames that verdicts are asked for, and what was found out about each, in three parts: the balancer looks at one of
    /// them, and each is small enough to be moved without a loop.
    frames: Vec<Frame>,
    heads: Vec<Head>,
    packets: Vec<PacketInfo>,
    verdicts: Vec<Verdict>,
    /// ICMP errors, with what they quote.
    errors: Vec<(Item, PacketInfo)>,
    /// AH and ESP packets.
    ipsec: Vec<(Item, PacketInfo)>,
    /// ICMP errors about packets inside tunnels of this worker's.
    tunnel_errors: Vec<(Frame, Tunnelled)>,
    /// First fragments that are not claimed, though others of their datagrams may be.
    unclaimed: Vec<Fragment>,
    /// First fragments of other workers' datagrams, of which later ones may come here.
    misplaced: Vec<(Item, Fragment, u32)>,
    /// Later fragments, each with its datagram and its place in it.
    later: Vec<(Item, Datagram, usize)>,
    core: Core,
}

/// Where frames go. The caller empties it after each call, as far as it can, and keeps the vectors.
#[derive(Debug, Default)]
pub struct Output {
    /// To be sent, whole Ethernet frames.
    pub transmit: Vec<(PortId, Frame)>,
    /// IP packets for the host's stack.
    pub host: Vec<Frame>,
    /// For other workers, by number.
    pub handoff: Vec<(u32, Handoff)>,
    /// Neighbours that the kernel is to be asked to resolve.
    pub resolve: Vec<Hop>,
}

impl Output {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Drops what is in it; the room stays.
    pub fn clear(&mut self) {
        self.transmit.clear();
        self.host.clear();
        self.handoff.clear();
        self.resolve.clear();
    }
}

impl Engine {
    /// An engine with empty caches.
    pub fn new(config: EngineConfig) -> Self {
        Self {
            worker: config.worker,
            workers: config.workers,
            frames: Vec::new(),
            heads: Vec::new(),
            packets: Vec::new(),
            verdicts: Vec::new(),
            errors: Vec::new(),
            ipsec: Vec::new(),
            tunnel_errors: Vec::new(),
            unclaimed: Vec::new(),
            misplaced: Vec::new(),
            later: Vec::new(),
            core: Core::new(config),
        }
    }

    /// The engine's counters, to be read from anywhere.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.core.counters)
    }

    /// Frames that a port has received. All are taken.
    pub fn process<B: Balancer + ?Sized>(
        &mut self,
        now: Instant,
        view: &View,
        port: PortId,
        frames: &mut Vec<Frame>,
        balancer: &mut B,
        output: &mut Output,
    ) {
        self.core.observe(now, view, output);
        self.core.counters.count(Event::Received, frames.len());
        for frame in frames.drain(..) {
            if let Err(reason) = link_check(view, &frame) {
                self.core.leave(frame, reason, output);
                continue;
            }
            self.admit(now, view, Origin::Port(port), frame, output);
        }
        self.settle(now, view, balancer, output);
    }

    /// IP packets that the host's stack has sent: replies of a real server on the director itself. All are
    /// taken. What is no reply is routed as the host would have routed it.
    pub fn process_host<B: Balancer + ?Sized>(
        &mut self,
        now: Instant,
        view: &View,
        packets: &mut Vec<Frame>,
        balancer: &mut B,
        output: &mut Output,
    ) {
        self.core.observe(now, view, output);
        self.core.counters.count(Event::Received, packets.len());
        for mut frame in packets.drain(..) {
            let version = frame.bytes().first().map_or(0, |byte| byte >> 4);
            let ethertype = if version == 6 {
                ethernet::IPV6
            } else {
                ethernet::IPV4
            };
            frame.grow_front(ethernet::HEADER_LEN);
            write_link(&mut frame, [0; 6], [0; 6], ethertype);
            match Headers::parse(frame.bytes()) {
                Ok(headers) => {
                    self.enlist(view, Origin::Host, OUTBOUND, &headers, frame, output);
                }
                Err(Unparsed::Fragment) => {
                    self.admit_fragment(now, view, (Origin::Host, false), frame, output);
                }
                Err(Unparsed::OtherProtocol | Unparsed::Extensions) => {
                    self.core.route_unclaimed(now, view, frame, output);
                }
                Err(Unparsed::NotIp | Unparsed::Malformed) => {
                    self.core.counters.count_drop(DropReason::Malformed, 1);
                }
            }
        }
        self.settle(now, view, balancer, output);
    }

    /// Frames that other workers have handed over, because their flows are owned here. All are taken.
    pub fn process_handoff<B: Balancer + ?Sized>(
        &mut self,
        now: Instant,
        view: &View,
        handoffs: &mut Vec<Handoff>,
        balancer: &mut B,
        output: &mut Output,
    ) {
        self.core.observe(now, view, output);
        self.core.counters.count(Event::TakenOver, handoffs.len());
        for handoff in handoffs.drain(..) {
            let Handoff {
                origin,
                frame,
                errand,
            } = handoff;
            match origin {
                _ if errand == Errand::Part => {
                    self.admit_fragment(now, view, (origin, true), frame, output);
                }
                _ if errand == Errand::Learn => self.admit_tunnel_error(now, view, &frame),
                // The claim may have changed on the way: the frame is looked at again.
                Origin::Port(_) => self.admit(now, view, origin, frame, output),
                Origin::Host => match Headers::parse(frame.bytes()) {
                    Ok(headers) => self.enlist(view, origin, OUTBOUND, &headers, frame, output),
                    Err(Unparsed::Fragment) => {
                        self.admit_fragment(now, view, (origin, false), frame, output);
                    }
                    Err(_) => self.core.counters.count_drop(DropReason::Malformed, 1),
                },
            }
        }
        self.settle(now, view, balancer, output);
    }

    /// A new view was published: what waited for a neighbour may go. Each `process` call does this too; a
    /// worker without traffic calls it itself.
    pub fn handle_view(&mut self, now: Instant, view: &View, output: &mut Output) {
        self.core.observe(now, view, output);
    }

    /// The deadline passed.
    pub fn handle_timeout(&mut self, now: Instant, view: &View, output: &mut Output) {
        let dropped = self.core.holding.handle_timeout(now);
        self.core
            .counters
            .count_drop(DropReason::NeighbourFailed, dropped);
        self.core.tell_failed(now, view, output);
        for item in self.core.fragments.handle_timeout(now) {
            self.core.give_up(item, output);
        }
        let given_up = self.core.reassembly.handle_timeout(now);
        self.core
            .counters
            .count_drop(DropReason::FragmentsIncomplete, given_up.dropped);
        for frame in given_up.unknown {
            self.core.pass_up(frame, output);
        }
        self.core.drain_commands(output);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadlines = [
            self.core.holding.poll_timeout(),
            self.core.fragments.poll_timeout(),
            self.core.reassembly.poll_timeout(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Looks whether a frame is claimed, and enlists it for the balancer if it is.
    #[inline]
    fn admit(
        &mut self,
        now: Instant,
        view: &View,
        origin: Origin,
        frame: Frame,
        output: &mut Output,
    ) {
        // Looked at where it was written: what is copied just after it was put together in pieces makes the processor wait.
        let parsed = Headers::parse(frame.bytes());
        let headers = match &parsed {
            Ok(headers) => headers,
            Err(Unparsed::OtherProtocol) => {
                self.admit_error(now, view, origin, frame, output);
                return;
            }
            Err(Unparsed::Fragment) => {
                self.admit_fragment(now, view, (origin, false), frame, output);
                return;
            }
            Err(unparsed) => {
                let reason = match unparsed {
                    Unparsed::NotIp | Unparsed::Malformed => LeftReason::NotIp,
                    Unparsed::Extensions => LeftReason::Extensions,
                    Unparsed::Fragment => LeftReason::Fragment,
                    Unparsed::OtherProtocol => LeftReason::OtherProtocol,
                };
                self.core.leave(frame, reason, output);
                return;
            }
        };
        match classify(view, origin, headers) {
            Some(class) => self.enlist(view, origin, class, headers, frame, output),
            None => self.core.leave(frame, LeftReason::NotClaimed, output),
        }
    }

    /// Puts a claimed frame on the batch, or hands it to its owner.
    #[inline]
    fn enlist(
        &mut self,
        view: &View,
        origin: Origin,
        class: Class,
        headers: &Headers,
        mut frame: Frame,
        output: &mut Output,
    ) {
        let counters = &self.core.counters;
        let bytes = frame.bytes();
        let tcp_flags = headers.tcp_flags(bytes);
        if !headers.is_sound(bytes) || !is_finishable(&frame, headers) {
            counters.count_drop(DropReason::Malformed, 1);
            return;
        }
        if origin != Origin::Host && !is_single_host(&headers.source) {
            counters.count_drop(DropReason::MartianSource, 1);
            return;
        }
        let owner = self.owner(view, class.direction, &headers.source, &headers.destination);
        if owner != self.worker {
            frame.truncate(headers.end);
            self.hand_over(owner, origin, frame, output);
            return;
        }
        counters.count(
            match class.direction {
                Direction::Inbound => Event::Inbound,
                Direction::Outbound => Event::Outbound,
            },
            1,
        );
        self.put_on_batch(origin, class, (headers, tcp_flags), frame, None);
    }

    /// Puts a packet of this worker's on the batch.
    #[inline]
    fn put_on_batch(
        &mut self,
        origin: Origin,
        Class { direction, mark }: Class,
        (headers, tcp_flags): (&Headers, u8),
        frame: Frame,
        first_of: Option<Datagram>,
    ) {
        let info = PacketInfo {
            protocol: headers.protocol,
            source: headers.source,
            destination: headers.destination,
            direction,
            tcp_flags,
            length: headers.ip_len() as u32,
            mark,
        };
        let head = Head {
            headers: *headers,
            origin,
            direction,
            is_first_fragment: first_of.is_some(),
        };
        if is_ipsec(headers.protocol) {
            let mut item = head.with(frame);
            item.frame.truncate(headers.end);
            self.ipsec.push((item, info));
            return;
        }
        self.frames.push(frame);
        if let Some(frame) = self.frames.last_mut() {
            frame.truncate(headers.end);
            if headers.protocol == protocol::SCTP {
                // No device can be asked for this one.
                frame.complete_checksum();
            }
        }
        self.heads.push(head);
        self.packets.push(info);
    }

    /// As [`admit`](Self::admit) for parts of datagrams.
    #[cold]
    fn admit_fragment(
        &mut self,
        now: Instant,
        view: &View,
        (origin, placed): (Origin, bool),
        mut frame: Frame,
        output: &mut Output,
    ) {
        let fragment = match Fragment::parse(frame.bytes()) {
            Ok(fragment) => fragment,
            Err(Unparsed::Malformed) => {
                self.core.counters.count_drop(DropReason::Malformed, 1);
                return;
            }
            Err(_) => {
                self.core.leave(frame, LeftReason::Fragment, output);
                return;
            }
        };
        let headers = fragment.headers;
        let class = match origin {
            Origin::Host => Some(OUTBOUND),
            Origin::Port(_) if fragment.is_first() => classify(view, origin, &headers),
            Origin::Port(_) => classify_host(view, origin, &headers),
        };
        let Some(Class { direction, mark }) = class else {
            if fragment.is_first() && classify_host(view, origin, &headers).is_some() {
                // The host has this one, and should get the others that the claim takes.
                self.unclaimed.push(fragment);
            }
            self.core.leave(frame, LeftReason::Fragment, output);
            return;
        };
        // Nobody can finish the checksum of a part, or cut it by its segments.
        let is_plain = frame.meta.gso.is_none()
            && !matches!(frame.meta.checksum, ChecksumState::Partial { .. });
        if !is_plain || !fragment.is_sound(frame.bytes()) {
            self.core.counters.count_drop(DropReason::Malformed, 1);
            return;
        }
        if origin != Origin::Host && !is_single_host(&headers.source) {
            self.core.counters.count_drop(DropReason::MartianSource, 1);
            return;
        }
        frame.truncate(headers.end);
        let addressed = match direction {
            Direction::Inbound => headers.source.ip(),
            // A local address says nothing of the client, and a later fragment has no port: they meet where the address
            // would belong, and go on to where the first one says.
            Direction::Outbound => headers.destination.ip(),
        };
        let meeting = steer::owner(addressed, self.workers);
        if !placed && meeting != self.worker {
            self.hand_over(meeting, origin, frame, output);
            return;
        }
        self.core.counters.count(Event::Fragments, 1);
        if needs_whole(headers.protocol) && !self.core.fragments.is_known(now, &fragment.datagram) {
            self.put_together(now, view, origin, &fragment, frame, output);
            return;
        }
        let owner = self.owner(view, direction, &headers.source, &headers.destination);
        if !placed && fragment.is_first() && owner != self.worker {
            let item = Item {
                frame,
                headers,
                origin,
                direction,
                is_first_fragment: true,
                ident: None,
            };
            self.misplaced.push((item, fragment, owner));
        } else if fragment.is_first() {
            let class = Class { direction, mark };
            let known = (&headers, headers.tcp_flags(frame.bytes()));
            self.put_on_batch(origin, class, known, frame, Some(fragment.datagram));
        } else {
            let item = Item {
                frame,
                headers,
                origin,
                direction,
                is_first_fragment: false,
                ident: None,
            };
            self.later.push((item, fragment.datagram, fragment.offset));
        }
    }

    /// Keeps a fragment until all are there.
    fn put_together(
        &mut self,
        now: Instant,
        view: &View,
        origin: Origin,
        fragment: &Fragment,
        frame: Frame,
        output: &mut Output,
    ) {
        let counters = &self.core.counters;
        let frame = match self.core.reassembly.add(now, fragment, frame) {
            Added::Whole(frame) => frame,
            Added::Waits => return counters.count(Event::FragmentsHeld, 1),
            Added::Overlaps(count) => {
                return counters.count_drop(DropReason::FragmentOverlap, count);
            }
            Added::Overflow => return counters.count_drop(DropReason::FragmentLost, 1),
        };
        counters.count(Event::Reassembled, 1);
        let Ok(headers) = Headers::parse(frame.bytes()) else {
            counters.count_drop(DropReason::Malformed, 1);
            return;
        };
        let class = match origin {
            Origin::Host => Some(OUTBOUND),
            Origin::Port(_) => classify(view, origin, &headers),
        };
        match class {
            Some(class) => self.enlist(view, origin, class, &headers, frame, output),
            None => self.core.pass_up(frame, output),
        }
    }

    /// As [`admit`](Self::admit) for ICMP errors about packets of connections.
    #[cold]
    fn admit_error(
        &mut self,
        now: Instant,
        view: &View,
        origin: Origin,
        mut frame: Frame,
        output: &mut Output,
    ) {
        let found = Quoted::parse(frame.bytes())
            .and_then(|quoted| Some((quoted, classify_error(view, origin, &quoted)?)));
        let Some((quoted, Class { direction, mark })) = found else {
            self.tell_tunnels(now, view, origin, &frame, output);
            self.core.leave(frame, LeftReason::OtherProtocol, output);
            return;
        };
        let counters = &self.core.counters;
        let headers = quoted.headers;
        frame.truncate(headers.end);
        frame.complete_checksum();
        if !quoted.is_sound(frame.bytes()) {
            counters.count_drop(DropReason::Malformed, 1);
            return;
        }
        if !is_single_host(&headers.source) {
            counters.count_drop(DropReason::MartianSource, 1);
            return;
        }
        // What is quoted went the other way.
        let owner = self.owner(view, direction, &quoted.destination, &quoted.source);
        if owner != self.worker {
            self.hand_over(owner, origin, frame, output);
            return;
        }
        counters.count(Event::IcmpReceived, 1);
        let info = PacketInfo {
            protocol: quoted.protocol,
            source: quoted.source,
            destination: quoted.destination,
            direction,
            tcp_flags: 0,
            length: headers.ip_len() as u32,
            mark,
        };
        let item = Item {
            frame,
            headers,
            origin,
            direction,
            is_first_fragment: false,
            ident: None,
        };
        self.errors.push((item, info));
    }

    /// Gives an error about a tunnel's packet to those workers that it concerns. The host has it too.
    fn tell_tunnels(
        &mut self,
        now: Instant,
        view: &View,
        origin: Origin,
        frame: &Frame,
        output: &mut Output,
    ) {
        let Some(error) = about_tunnel(view, frame) else {
            return;
        };
        self.core.counters.count(Event::TunnelErrors, 1);
        for worker in (0..self.workers).filter(|worker| *worker != self.worker) {
            let owns = |inner: &Inner| worker == steer::owner(inner.source.ip(), self.workers);
            if error.is_too_big() || error.inner.as_ref().is_some_and(owns) {
                let handoff = Handoff {
                    origin,
                    frame: copy_of(frame),
                    errand: Errand::Learn,
                };
                output.handoff.push((worker, handoff));
            }
        }
        self.admit_tunnel_error(now, view, frame);
    }

    /// Learns from an error about a tunnel's packet, and enlists it if the packet inside is of a flow of this worker's.
    fn admit_tunnel_error(&mut self, now: Instant, view: &View, frame: &Frame) {
        let Some(error) = about_tunnel(view, frame) else {
            return;
        };
        if error.is_too_big() {
            self.core.learn(now, &error);
        }
        let owner = |inner: &Inner| steer::owner(inner.source.ip(), self.workers);
        if error.inner.as_ref().map(owner) == Some(self.worker) {
            self.tunnel_errors.push((copy_of(frame), error));
        }
    }

    /// The worker that owns the flow of a packet from one end to the other.
    #[inline]
    fn owner(
        &self,
        view: &View,
        direction: Direction,
        source: &SocketAddr,
        destination: &SocketAddr,
    ) -> u32 {
        match direction {
            Direction::Inbound => steer::owner(source.ip(), self.workers),
            Direction::Outbound if view.claims.is_local(&destination.ip()) => {
                steer::owner_of_port(destination.port(), self.workers)
            }
            Direction::Outbound => steer::owner(destination.ip(), self.workers),
        }
    }

    fn hand_over(&self, owner: u32, origin: Origin, frame: Frame, output: &mut Output) {
        self.core.counters.count(Event::HandedOver, 1);
        let handoff = Handoff {
            origin,
            frame: frame.into_owned(),
            errand: Errand::Own,
        };
        output.handoff.push((owner, handoff));
    }

    /// Asks for the verdicts of the batch and carries them out.
    fn settle<B: Balancer + ?Sized>(
        &mut self,
        now: Instant,
        view: &View,
        balancer: &mut B,
        output: &mut Output,
    ) {
        // Of timers.
        while let Some(ended) = balancer.poll_ended() {
            self.core.end(now, view, &ended, output);
        }
        if !self.heads.is_empty() {
            self.verdicts.clear();
            let payloads = Batch {
                frames: &self.frames,
                heads: &self.heads,
            };
            let packets = Packets::new(&self.packets, &payloads);
            balancer.decide(now, &packets, &mut self.verdicts);
            self.packets.clear();
            while let Some((index, edit)) = balancer.poll_edit() {
                if let (Some(frame), Some(head)) =
                    (self.frames.get_mut(index), self.heads.get_mut(index))
                {
                    self.core.edit(frame, head, &edit);
                }
            }
            while let Some(ended) = balancer.poll_ended() {
                self.core.end(now, view, &ended, output);
            }
            let unanswered = self.heads.len().saturating_sub(self.verdicts.len());
            (self.core.counters).count_drop(DropReason::NoVerdict, unanswered);
            let batch = self.frames.iter_mut().zip(&self.heads);
            for ((frame, head), verdict) in batch.zip(&self.verdicts) {
                if !self.core.pass_on(view, frame, head, verdict, output) {
                    let mut item = head.with(frame.take());
                    match item.is_first_fragment {
                        true => self.core.lead(now, view, &mut item, *verdict, output),
                        false => self.core.carry_out(now, view, &mut item, verdict, output),
                    }
                }
            }
            // What was not given out is dropped here.
            self.frames.clear();
            self.heads.clear();
        }
        for (mut item, info) in self.ipsec.drain(..) {
            let verdict = balancer.decide_ipsec(now, &info);
            match item.is_first_fragment {
                true => self.core.lead(now, view, &mut item, verdict, output),
                false => self.core.carry_out(now, view, &mut item, &verdict, output),
            }
        }
        for fragment in self.unclaimed.drain(..) {
            let fate = Fate {
                verdict: None,
                owner: None,
                ident: None,
                first_end: 0,
            };
            for item in self.core.fragments.learn(now, fragment.datagram, fate) {
                self.core.give_up(item, output);
            }
            for frame in self.core.reassembly.take(&fragment.datagram) {
                self.core.pass_up(frame, output);
            }
        }
        for (item, fragment, owner) in self.misplaced.drain(..) {
            let fate = Fate {
                verdict: None,
                owner: Some(owner),
                ident: None,
                first_end: fragment.headers.end - fragment.headers.transport,
            };
            let waited = self.core.fragments.learn(now, fragment.datagram, fate);
            self.core.place(item, owner, output);
            for item in waited {
                self.core.place(item, owner, output);
            }
        }
        for (item, datagram, offset) in self.later.drain(..) {
            self.core
                .follow(now, view, (datagram, offset), item, output);
        }
        for (mut item, quoted) in self.errors.drain(..) {
            let verdict = if is_about_its_receiver(&item, &quoted) {
                balancer.decide_error(now, &quoted)
            } else {
                Verdict::NotOurs
            };
            while let Some(ended) = balancer.poll_ended() {
                self.core.end(now, view, &ended, output);
            }
            self.core.carry_out(now, view, &mut item, &verdict, output);
        }
        for (frame, error) in self.tunnel_errors.drain(..) {
            let Some(inner) = &error.inner else { continue };
            let info = PacketInfo {
                protocol: inner.protocol,
                source: inner.source,
                destination: inner.destination,
                direction: Direction::Outbound,
                tcp_flags: 0,
                length: error.headers.ip_len() as u32,
                mark: 0,
            };
            let verdict = balancer.decide_tunnel_error(now, &info);
            if wraps_so(&verdict, &error, inner.wrapping) {
                self.core
                    .relay(now, view, (&frame, &error), inner, &verdict, output);
            }
        }
        self.core.drain_commands(output);
    }
}

/// What is known of a claimed frame.
#[derive(Debug, Clone, Copy)]
struct Head {
    headers: Headers,
    origin: Origin,
    direction: Direction,
    is_first_fragment: bool,
}

impl Head {
    /// The frame with it.
    fn with(&self, frame: Frame) -> Item {
        Item {
            frame,
            headers: self.headers,
            origin: self.origin,
            direction: self.direction,
            is_first_fragment: self.is_first_fragment,
            ident: None,
        }
    }
}

/// A claimed frame with what is known of it.
#[derive(Debug)]
struct Item {
    frame: Frame,
    headers: Headers,
    origin: Origin,
    direction: Direction,
    is_first_fragment: bool,
    /// What it is to be identified by, as a part of a datagram.
    ident: Option<u32>,
}

impl Item {
    /// Whether it is an ICMP error; other ICMP is never claimed.
    #[inline]
    fn is_error(&self) -> bool {
        matches!(self.headers.protocol, protocol::ICMP | protocol::ICMPV6)
    }
}

/// Where the payloads of a batch are.
struct Batch<'a> {
    frames: &'a [Frame],
    heads: &'a [Head],
}

impl Payloads for Batch<'_> {
    fn payload(&self, index: usize) -> &[u8] {
        match (self.frames.get(index), self.heads.get(index)) {
            (Some(frame), Some(head)) => head.headers.payload(frame.bytes()),
            _ => &[],
        }
    }

    fn sequence(&self, index: usize) -> Option<u32> {
        let (frame, head) = (self.frames.get(index)?, self.heads.get(index)?);
        if head.is_first_fragment || head.headers.protocol != protocol::TCP {
            return None;
        }
        let segment = &frame.bytes()[head.headers.transport..];
        Some(tcp::Packet::new_checked(segment).ok()?.sequence())
    }
}

/// Whether a checksum that somebody else is to finish lies behind the IP header. It may be one further inside.
#[inline]
fn is_finishable(frame: &Frame, headers: &Headers) -> bool {
    match frame.meta.checksum {
        ChecksumState::Partial { start, offset } => {
            let (start, field) = (usize::from(start), usize::from(start) + usize::from(offset));
            start >= headers.transport && field + 2 <= headers.end
        }
        ChecksumState::Complete | ChecksumState::Verified => true,
    }
}

/// Whether a datagram of this protocol is put together before anything else: options may be put into TCP and its text
/// changed, and SCTP's checksum covers all of it.
fn needs_whole(number: u8) -> bool {
    matches!(number, protocol::TCP | protocol::SCTP)
}

/// Whether the link layer meant us, and nobody of us sent it.
#[inline]
fn link_check(view: &View, frame: &Frame) -> Result<(), LeftReason> {
    if frame.meta.kind != PacketKind::Host {
        return Err(LeftReason::NotToUs);
    }
    // VLAN 0 too, a priority without a VLAN: the claim sees the tag and leaves the frame to the host.
    if frame.meta.vlan.is_some() {
        return Err(LeftReason::Vlan);
    }
    let link = ethernet::Packet::new_checked(frame.bytes()).map_err(|_| LeftReason::NotIp)?;
    let source = link.source();
    if view.ports.iter().any(|port| port.mac == source) {
        return Err(LeftReason::OwnFrame);
    }
    Ok(())
}

/// Which way a claimed frame goes, and its mark.
#[derive(Debug, Clone, Copy)]
struct Class {
    direction: Direction,
    mark: u32,
}

/// What the host sends is an answer.
const OUTBOUND: Class = Class {
    direction: Direction::Outbound,
    mark: 0,
};

/// Whether a frame is claimed.
#[inline]
fn classify(view: &View, origin: Origin, headers: &Headers) -> Option<Class> {
    let endpoint = |side: &SocketAddr| Endpoint {
        protocol: headers.protocol,
        addr: side.ip(),
        port: side.port(),
    };
    let is_service = view.claims.is_service(&endpoint(&headers.destination));
    if !is_service
        && view.claims.is_server(&endpoint(&headers.source))
        && !view.local.contains(&headers.destination.ip())
    {
        return Some(OUTBOUND);
    }
    if !is_service
        && view
            .claims
            .is_local_answer(&endpoint(&headers.source), &headers.destination)
    {
        return Some(OUTBOUND);
    }
    let mark = if view.claims.marks().is_empty() {
        None
    } else {
        let sides = (headers.source, headers.destination);
        view.claims
            .marks()
            .mark(&query(view, origin, headers.protocol, sides))
    };
    inbound(is_service, mark)
}

/// Whether a later fragment is claimed, by all that it says.
fn classify_host(view: &View, origin: Origin, headers: &Headers) -> Option<Class> {
    let endpoint = |side: &SocketAddr| Endpoint {
        protocol: headers.protocol,
        addr: side.ip(),
        port: 0,
    };
    let is_service = view.claims.is_service_host(&endpoint(&headers.destination));
    if !is_service
        && view.claims.is_server_host(&endpoint(&headers.source))
        && !view.local.contains(&headers.destination.ip())
    {
        return Some(OUTBOUND);
    }
    if !is_service
        && view
            .claims
            .is_local_answer_host(&endpoint(&headers.source), &headers.destination.ip())
    {
        return Some(OUTBOUND);
    }
    let sides = (headers.source, headers.destination);
    let query = query(view, origin, headers.protocol, sides);
    inbound(
        is_service || view.claims.marks().may_have_mark(&query),
        None,
    )
}

/// Whether an ICMP error is claimed, by its receiver and what it quotes. The claim's rules ask the same.
fn classify_error(view: &View, origin: Origin, quoted: &Quoted) -> Option<Class> {
    let endpoint = |addr: SocketAddr, port: SocketAddr| Endpoint {
        protocol: quoted.protocol,
        addr: addr.ip(),
        port: port.port(),
    };
    let receiver = quoted.headers.destination;
    let is_service = view.claims.is_service(&endpoint(receiver, quoted.source));
    if !is_service
        && view
            .claims
            .is_server(&endpoint(quoted.destination, quoted.destination))
        && !view.local.contains(&receiver.ip())
    {
        return Some(OUTBOUND);
    }
    let server = endpoint(quoted.destination, quoted.destination);
    if !is_service
        && receiver.ip() == quoted.source.ip()
        && view.claims.is_local_answer(&server, &quoted.source)
    {
        return Some(OUTBOUND);
    }
    // What it quotes went the other way.
    let sides = (quoted.destination, quoted.source);
    let mark = view
        .claims
        .marks()
        .mark(&query(view, origin, quoted.protocol, sides));
    inbound(is_service, mark)
}

#[inline]
fn inbound(is_service: bool, mark: Option<u32>) -> Option<Class> {
    (is_service || mark.is_some()).then(|| Class {
        direction: Direction::Inbound,
        mark: mark.unwrap_or(0),
    })
}

fn query(
    view: &View,
    origin: Origin,
    protocol: u8,
    (source, destination): (SocketAddr, SocketAddr),
) -> MarkQuery<'_> {
    let port = match origin {
        Origin::Port(port) => view.port(port),
        Origin::Host => None,
    };
    MarkQuery {
        interface: port.map_or("", |port| port.name.as_str()),
        protocol,
        source,
        destination,
    }
}

/// Whether an error went to the sender of the packet that it quotes. One that did not is of no connection.
fn is_about_its_receiver(item: &Item, quoted: &PacketInfo) -> bool {
    item.headers.destination.ip() == quoted.source.ip()
}

/// An error about a packet that the director has sent through a tunnel, as far as the error itself tells.
fn about_tunnel(view: &View, frame: &Frame) -> Option<Tunnelled> {
    let error = Tunnelled::parse(frame.bytes())
        .filter(|error| view.claims.is_tunnel_server(&error.far))
        .filter(|error| {
            let near = error.headers.destination.ip();
            near == error.near && view.local.contains(&near)
        })?;
    // Nothing is sent on, so a partial checksum is as good as a right one.
    let is_sound = matches!(frame.meta.checksum, ChecksumState::Partial { .. })
        || error.is_sound(frame.bytes());
    (is_sound && is_single_host(&error.headers.source)).then_some(error)
}

/// Whether a verdict is the tunnel that the quoted packet was sent through.
fn wraps_so(verdict: &Verdict, error: &Tunnelled, wrapping: Wrapping) -> bool {
    match *verdict {
        Verdict::Forward(Method::Tunnel { rip, encapsulation }) => {
            rip == error.far
                && match (encapsulation, wrapping) {
                    (Encapsulation::Ipip, Wrapping::Ip)
                    | (Encapsulation::Gre { .. }, Wrapping::Gre) => true,
                    (Encapsulation::Gue { port, .. }, Wrapping::Gue { port: quoted }) => {
                        port == quoted
                    }
                    _ => false,
                }
        }
        _ => false,
    }
}

/// A copy of which the host has no need.
fn copy_of(frame: &Frame) -> Frame {
    let mut copy = frame.clone();
    copy.meta.exclusive = false;
    copy
}

#[inline]
fn is_single_host(addr: &SocketAddr) -> bool {
    match addr {
        SocketAddr::V4(addr) => icmp::is_single_host(*addr.ip()),
        SocketAddr::V6(addr) => icmp::is_single_host_v6(*addr.ip()),
    }
}

#[inline]
fn write_link(frame: &mut Frame, destination: [u8; 6], source: [u8; 6], ethertype: u16) {
    let header = ethernet::Repr {
        destination,
        source,
        ethertype,
    };
    header.emit(frame.bytes_mut());
}

//! Carrying out verdicts: next hop, hops left, MTU, rewriting, and the errors that senders are told.

use std::iter;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use ahash::RandomState;

use super::fragments::{Fate, Fragments, Later};
use super::hops::{HopCache, Path};
use super::path_mtu::PathMtus;
use super::reassembly::Reassembly;
use super::streams::{Sides, Streams};
use super::{EngineConfig, Head, Item, Output, write_link};
use crate::balancer::{Direction, Edit, Encapsulation, Ended, Method, Verdict};
use crate::frame::{ChecksumState, Frame, GsoKind};
use crate::handoff::{Errand, Handoff, Origin};
use crate::icmp;
use crate::neigh::{Holding, Original};
use crate::reset;
use crate::rewrite::fullnat::{self, Segment};
use crate::rewrite::nat::Side;
use crate::rewrite::{dr, error, fragment, nat, segment, sequence, tun};
use crate::stats::{Counters, DropReason, Event, LeftReason};
use crate::view::{PortId, View};
use crate::wire::icmp::Error;
use crate::wire::{
    Datagram, Fragment, Inner, Quoted, Tunnelled, ethernet, ipv4, ipv6, protocol, tcp, udp,
};

/// The part that carries out verdicts; apart from the batch, so that both can be borrowed at once.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) counters: Arc<Counters>,
    hops: HopCache,
    pub(super) holding: Holding,
    pub(super) fragments: Fragments,
    pub(super) reassembly: Reassembly,
    streams: Streams,
    path_mtus: PathMtus,
    limiter: icmp::Limiter,
    ident: u16,
    ident_v6: u32,
    local_ident: u32,
    local_ident_step: u32,
    generation: Option<u64>,
}

impl Core {
    pub(super) fn new(config: EngineConfig) -> Self {
        Self {
            counters: Arc::new(Counters::new()),
            hops: HopCache::new(),
            holding: Holding::new(config.holding),
            fragments: Fragments::new(),
            reassembly: Reassembly::new(),
            streams: Streams::new(),
            path_mtus: PathMtus::new(),
            limiter: icmp::Limiter::new(),
            // Apart from the other workers' numbers, because fragments of equal numbers would be mixed up.
            ident: first_ident(config.worker, config.workers),
            // Not to be guessed (RFC 7739).
            ident_v6: RandomState::new().hash_one(config.worker) as u32,
            local_ident: config.worker,
            local_ident_step: config.workers.max(1).next_power_of_two(),
            generation: None,
        }
    }

    /// Notices a new view.
    pub(super) fn observe(&mut self, now: Instant, view: &View, output: &mut Output) {
        if self.generation == Some(view.generation) {
            return;
        }
        self.generation = Some(view.generation);
        let failed = self.holding.handle_neighbours(now, &view.neighbours);
        self.counters
            .count_drop(DropReason::NeighbourFailed, failed);
        while let Some(released) = self.holding.poll_released() {
            match view.port(released.port) {
                Some(port) => {
                    self.counters.count(Event::Released, 1);
                    self.transmit(
                        released.port,
                        released.mac,
                        port.mac,
                        released.frame,
                        output,
                    );
                }
                None => self.counters.count_drop(DropReason::NoPort, 1),
            }
        }
        self.tell_failed(now, view, output);
        self.drain_commands(output);
    }

    pub(super) fn drain_commands(&mut self, output: &mut Output) {
        while let Some(hop) = self.holding.poll_command() {
            output.resolve.push(hop);
        }
    }

    /// Changes a packet's stream. Part of a datagram is no segment.
    #[cold]
    pub(super) fn edit(&self, frame: &mut Frame, head: &mut Head, edit: &Edit) {
        if !head.is_first_fragment {
            self.counters.count(Event::Edited, 1);
            sequence::edit(frame, &mut head.headers, edit);
        }
    }

    /// Sends on what most packets are: whole, short enough, with a hop left, by NAT or direct routing to a neighbour that is
    /// known. `false`: it is something else, and nothing was done.
    #[inline]
    pub(super) fn pass_on(
        &self,
        view: &View,
        frame: &mut Frame,
        head: &Head,
        verdict: &Verdict,
        output: &mut Output,
    ) -> bool {
        let (target, replaced) = match verdict {
            Verdict::Forward(Method::Nat { rip }) => (rip.ip(), Some((Side::Destination, rip))),
            Verdict::Forward(Method::DirectRoute { rip }) => (*rip, None),
            Verdict::Reply { source } => {
                (head.headers.destination.ip(), Some((Side::Source, source)))
            }
            _ => return false,
        };
        let Some(clear) = self.hops.clear(view, &target) else {
            return false;
        };
        let headers = &head.headers;
        let ipv6 = headers.is_ipv6();
        let is_plain = head.origin != Origin::Host
            && !head.is_first_fragment
            && frame.meta.gso.is_none()
            && frame.meta.longest_part.is_none()
            && headers.ip_len() <= clear.mtu as usize
            && target.is_ipv6() == ipv6
            && replaced.is_none_or(|(_, new)| new.is_ipv6() == ipv6);
        let partial = match frame.meta.checksum {
            ChecksumState::Complete | ChecksumState::Verified => false,
            ChecksumState::Partial { start, .. } if usize::from(start) == headers.transport => true,
            ChecksumState::Partial { .. } => return false,
        };
        let bytes = frame.bytes_mut();
        if !is_plain || dr::hops_left(bytes, headers) <= 1 {
            return false;
        }
        dr::decrement(bytes, headers);
        if let Some((side, new)) = replaced {
            nat::replace_in(bytes, headers, partial, side, new);
        }
        let link = ethernet::Repr {
            destination: clear.destination,
            source: clear.source,
            ethertype: if ipv6 { ethernet::IPV6 } else { ethernet::IPV4 },
        };
        link.emit(bytes);
        self.counters.count(Event::Transmitted, 1);
        // A `push` would put the two together before it makes room, and copy that.
        let sent = iter::once_with(|| (clear.port, frame.take()));
        output.transmit.extend(sent);
        true
    }

    pub(super) fn carry_out(
        &mut self,
        now: Instant,
        view: &View,
        item: &mut Item,
        verdict: &Verdict,
        output: &mut Output,
    ) {
        match *verdict {
            Verdict::Forward(method) => {
                let (rip, rewrite) = match method {
                    Method::Nat { rip } => (rip.ip(), Rewrite::Destination(rip)),
                    Method::FullNat { rip, local } => (rip.ip(), Rewrite::Both(local, rip)),
                    Method::DirectRoute { rip } => (rip, Rewrite::Nothing),
                    Method::Tunnel { rip, encapsulation } => (rip, Rewrite::Tunnel(encapsulation)),
                };
                let is_local = view.local.contains(&rip);
                if !is_acceptable(&rip, rewrite, item, is_local) {
                    self.counters.count_drop(DropReason::BadVerdict, 1);
                } else if is_local && view.one_way && matches!(rewrite, Rewrite::Destination(_)) {
                    self.counters.count_drop(DropReason::NoHost, 1);
                } else if is_local {
                    apply(item, rewrite);
                    self.pass_up(item.frame.take(), output);
                } else {
                    self.forward(now, view, item, rip, rewrite, output);
                }
            }
            Verdict::Reply { source } => {
                if source.is_ipv4() == item.headers.source.is_ipv4() {
                    let client = item.headers.destination.ip();
                    self.forward(now, view, item, client, Rewrite::Source(source), output);
                } else {
                    self.counters.count_drop(DropReason::BadVerdict, 1);
                }
            }
            Verdict::ReplyTo { source, client } => {
                let same_family = source.is_ipv4() == item.headers.source.is_ipv4()
                    && client.is_ipv4() == item.headers.source.is_ipv4();
                if same_family {
                    let rewrite = Rewrite::Both(source, client);
                    self.forward(now, view, item, client.ip(), rewrite, output);
                } else {
                    self.counters.count_drop(DropReason::BadVerdict, 1);
                }
            }
            Verdict::NotOurs if is_for_host(view, item) && view.hostless => {
                self.refuse_for_host(now, view, item, output);
            }
            Verdict::NotOurs if is_for_host(view, item) => {
                self.pass_up(item.frame.take(), output);
            }
            Verdict::NotOurs => {
                let routed = match item.origin {
                    Origin::Host => true,
                    Origin::Port(port) => {
                        let ipv6 = item.headers.is_ipv6();
                        view.port(port).is_some_and(|port| port.forwards(ipv6))
                    }
                };
                if routed {
                    self.counters.count(Event::Routed, 1);
                    let destination = item.headers.destination.ip();
                    let path = self.hops.path(view, destination);
                    if matches!(path, Path::Drop(DropReason::NoPort)) && !view.hostless {
                        // Only the host can send there: a tunnel, for example.
                        self.pass_up(item.frame.take(), output);
                    } else {
                        self.forward(now, view, item, destination, Rewrite::Nothing, output);
                    }
                } else {
                    self.counters.count_drop(DropReason::ForwardingOff, 1);
                }
            }
            Verdict::Drop(reason) => self.counters.count_balancer_drop(reason),
            Verdict::Reject => self.refuse(
                now,
                view,
                item,
                DropReason::Rejected,
                Error::PortUnreachable,
                output,
            ),
        }
    }

    /// Carries out the verdict on a first fragment, and remembers it for the others.
    pub(super) fn lead(
        &mut self,
        now: Instant,
        view: &View,
        item: &mut Item,
        verdict: Verdict,
        output: &mut Output,
    ) {
        // Before the addresses change.
        if let Verdict::Forward(Method::FullNat { .. }) = verdict {
            item.ident = Some(self.next_local_ident());
        }
        let ident = item.ident;
        let waiting = Fragment::parse(item.frame.bytes()).map(|first| {
            let fate = Fate {
                verdict: Some(verdict),
                owner: None,
                ident,
                first_end: first.headers.end - first.headers.transport,
            };
            self.fragments.learn(now, first.datagram, fate)
        });
        self.carry_out(now, view, item, &verdict, output);
        for mut item in waiting.unwrap_or_default() {
            item.ident = ident;
            self.carry_out(now, view, &mut item, &verdict, output);
        }
    }

    /// Sends a later fragment where the first one went, or lets it wait for that.
    pub(super) fn follow(
        &mut self,
        now: Instant,
        view: &View,
        (datagram, offset): (Datagram, usize),
        item: Item,
        output: &mut Output,
    ) {
        match self.fragments.follow(now, datagram, offset, item) {
            Later::Go(mut item, fate) => match (fate.verdict, fate.owner) {
                (Some(verdict), _) => {
                    item.ident = fate.ident;
                    self.carry_out(now, view, &mut item, &verdict, output);
                }
                (None, Some(owner)) => self.place(*item, owner, output),
                (None, None) => self.give_up(*item, output),
            },
            Later::Waits => self.counters.count(Event::FragmentsHeld, 1),
            Later::Overlaps => self.counters.count_drop(DropReason::FragmentOverlap, 1),
            Later::Overflow => self.counters.count_drop(DropReason::FragmentLost, 1),
        }
    }

    /// A fragment whose first one was not claimed or did not come. The host has that one, if anybody has.
    pub(super) fn give_up(&self, item: Item, output: &mut Output) {
        self.pass_up(item.frame, output);
    }

    /// Gives a fragment to the worker whose datagram it belongs to.
    pub(super) fn place(&self, item: Item, owner: u32, output: &mut Output) {
        self.counters.count(Event::HandedOver, 1);
        let handoff = Handoff {
            origin: item.origin,
            frame: item.frame.into_owned(),
            errand: Errand::Part,
        };
        output.handoff.push((owner, handoff));
    }

    /// A connection behind a local address has ended.
    #[cold]
    pub(super) fn end(&mut self, now: Instant, view: &View, ended: &Ended, output: &mut Output) {
        let sides = Sides {
            local: ended.local,
            server: ended.server,
        };
        let Some(last) = self.streams.end(&sides).filter(|_| ended.reset) else {
            return;
        };
        for (from, to, sequence) in [
            (ended.local, ended.server, last.expected),
            (ended.vip, ended.client, last.next),
        ] {
            if let Some(frame) = reset::unasked(from, to, sequence) {
                self.counters.count(Event::ResetSent, 1);
                self.send(now, view, to.ip(), frame, output);
            }
        }
    }

    /// What FULLNAT changes besides addresses and ports, which are still the received ones. `mtu` is that of the way on.
    fn adapt(
        &mut self,
        now: Instant,
        item: &mut Item,
        (source, destination): (SocketAddr, SocketAddr),
        mtu: usize,
    ) {
        if item.is_error() {
            if item.direction == Direction::Outbound
                && let Some(quoted) = Quoted::parse(item.frame.bytes())
            {
                let sides = Sides {
                    local: quoted.source,
                    server: quoted.destination,
                };
                let delta = self.streams.delta(&sides);
                fullnat::move_quoted_sequence(&mut item.frame, &quoted, delta);
            }
            return;
        }
        let (frame, headers) = (&mut item.frame, &mut item.headers);
        let segment = Segment::parse(frame, headers).filter(|_| !item.is_first_fragment);
        if item.direction == Direction::Outbound {
            let sides = Sides {
                local: headers.destination,
                server: headers.source,
            };
            let delta = self.streams.server_sent(sides, segment.as_ref());
            if headers.protocol == protocol::TCP {
                let option_len = fullnat::toa_len(destination.ip());
                fullnat::to_client(frame, headers, delta, option_len);
            }
            return;
        }
        let sides = Sides {
            local: source,
            server: destination,
        };
        let to_server = self.streams.client_sent(now, sides, segment.as_ref());
        if headers.protocol == protocol::TCP {
            fullnat::to_server(frame, headers, to_server.delta);
        }
        if to_server.introduces {
            let client = headers.source;
            let named = fullnat::insert_client(frame, headers, client, mtu);
            self.counters.count(
                match named {
                    true => Event::ClientsNamed,
                    false => Event::ClientsNotNamed,
                },
                1,
            );
        }
        // Several clients share the address: what may come in fragments has to be told apart.
        let may_be_parts = !hops_and_df(item).1;
        let ident = match item.ident {
            None if may_be_parts => Some(self.next_local_ident()),
            ident => ident,
        };
        if let Some(ident) = ident {
            fullnat::set_ident(&mut item.frame, &item.headers, ident);
        }
    }

    /// Sends a packet towards `target`, as a router does.
    fn forward(
        &mut self,
        now: Instant,
        view: &View,
        item: &mut Item,
        target: IpAddr,
        rewrite: Rewrite,
        output: &mut Output,
    ) {
        let path = self.hops.path(view, target);
        let mtu = match path {
            Path::Send { mtu, .. } | Path::Resolve { mtu, .. } => mtu as usize,
            Path::Local => {
                apply(item, rewrite);
                self.pass_up(item.frame.take(), output);
                return;
            }
            Path::Drop(reason) => {
                match reason {
                    DropReason::NoRoute => {
                        self.refuse(now, view, item, reason, Error::HostUnreachable, output);
                    }
                    DropReason::Prohibited => {
                        self.refuse(now, view, item, reason, Error::Prohibited, output);
                    }
                    _ => self.counters.count_drop(reason, 1),
                }
                return;
            }
        };
        // What the host itself has sent has made no hop yet.
        let (hops_left, dont_fragment) = hops_and_df(item);
        let is_routed = item.origin != Origin::Host;
        if is_routed && hops_left <= 1 {
            self.refuse(
                now,
                view,
                item,
                DropReason::TimeExceeded,
                Error::TimeExceeded,
                output,
            );
            return;
        }
        let overhead = rewrite.overhead(&target);
        let link_mtu = match self.path_mtus.of(now, &target) {
            Some(path_mtu) if overhead > 0 => mtu.min(path_mtu),
            _ => mtu,
        };
        let mut mtu = link_mtu.saturating_sub(overhead);
        if overhead > 0 {
            if mtu < tun::MIN_MTU {
                self.counters.count_drop(DropReason::TooBig, 1);
                return;
            }
            if item.headers.is_ipv6() {
                // No sender has to send less; the tunnel's packets go in fragments instead (RFC 2473, section 7.1).
                mtu = mtu.max(ipv6::MIN_MTU);
            }
        }
        let too_big = largest_packet(item) > mtu;
        if too_big && dont_fragment && may_refuse_size(view, item, overhead) {
            let error = Error::TooBig(u32::try_from(mtu).unwrap_or(u32::MAX));
            self.refuse(now, view, item, DropReason::TooBig, error, output);
            return;
        }
        let exit = Exit {
            path,
            target,
            original: match path {
                Path::Resolve { .. } => original(view, item),
                _ => None,
            },
        };
        if is_routed {
            dr::decrement_ttl(&mut item.frame, &item.headers);
        }
        if let Rewrite::Tunnel(encapsulation) = rewrite {
            self.wrap(now, view, &exit, encapsulation, item, link_mtu, output);
            return;
        }
        if let Rewrite::Both(source, destination) = rewrite {
            self.adapt(now, item, (source, destination), mtu);
        }
        apply(item, rewrite);
        // What came in parts goes in parts of the same size.
        let longest_part = item.frame.meta.longest_part.map(usize::from);
        if longest_part.is_some() || too_big && !shrink(item, mtu) {
            let mtu = longest_part.map_or(mtu, |longest| longest.min(mtu));
            self.cut(now, &exit, &mut item.frame, mtu, output);
            return;
        }
        self.emit(now, &exit, item.frame.take(), output);
    }

    /// Sends a packet inside another one to the real server; a super-packet in segments.
    #[expect(clippy::too_many_arguments)]
    fn wrap(
        &mut self,
        now: Instant,
        view: &View,
        exit: &Exit,
        encapsulation: Encapsulation,
        item: &mut Item,
        link_mtu: usize,
        output: &mut Output,
    ) {
        let rip = exit.target;
        let Some(source) = self.hops.source(view, rip) else {
            self.counters.count_drop(DropReason::NoSource, 1);
            return;
        };
        let (_, dont_fragment) = hops_and_df(item);
        let overhead = tun::overhead(encapsulation, &rip);
        let outer = tun::Outer {
            source,
            destination: rip,
            dont_fragment: dont_fragment
                && !item.headers.is_ipv6()
                && may_refuse_size(view, item, overhead),
            ident: 0,
            encapsulation,
        };
        let room = link_mtu.saturating_sub(overhead);
        match segment_size(item, room) {
            None => {
                item.frame.meta.gso = None;
                let frame = item.frame.take();
                self.wrap_one(now, exit, outer, frame, link_mtu, output);
            }
            Some(size) => {
                let mut segments = Vec::new();
                if segment::segment(&item.frame, &item.headers, size, |part| segments.push(part))
                    == 0
                {
                    self.counters.count_drop(DropReason::TooBig, 1);
                    return;
                }
                self.counters.count(Event::Segmented, 1);
                // The ring's slot is not needed any more.
                drop(item.frame.take());
                for part in segments {
                    self.wrap_one(now, exit, outer, part, link_mtu, output);
                }
            }
        }
    }

    fn wrap_one(
        &mut self,
        now: Instant,
        exit: &Exit,
        mut outer: tun::Outer,
        mut frame: Frame,
        link_mtu: usize,
        output: &mut Output,
    ) {
        if !outer.dont_fragment {
            outer.ident = self.next_ident();
        }
        if !tun::encapsulate(&mut frame, ethernet::HEADER_LEN, &outer) {
            self.counters.count_drop(DropReason::TooBig, 1);
            return;
        }
        self.counters.count(Event::Encapsulated, 1);
        if frame.len() - ethernet::HEADER_LEN > link_mtu {
            self.cut(now, exit, &mut frame, link_mtu, output);
        } else {
            self.emit(now, exit, frame, output);
        }
    }

    /// An identification of this worker's own: others use the same local addresses.
    fn next_local_ident(&mut self) -> u32 {
        self.local_ident = self.local_ident.wrapping_add(self.local_ident_step);
        self.local_ident
    }

    fn next_ident(&mut self) -> u16 {
        let ident = self.ident;
        self.ident = ident.wrapping_add(1);
        ident
    }

    /// Sends a packet in fragments.
    fn cut(
        &mut self,
        now: Instant,
        exit: &Exit,
        frame: &mut Frame,
        mtu: usize,
        output: &mut Output,
    ) {
        // Datagrams that were merged can't be told apart by fragments.
        if frame.meta.gso.is_some() {
            self.counters.count_drop(DropReason::TooBig, 1);
            return;
        }
        let mut fragments = Vec::new();
        let network = ethernet::HEADER_LEN;
        let count = if exit.target.is_ipv4() {
            fragment::fragment(frame, network, mtu, |part| fragments.push(part))
        } else {
            self.ident_v6 = self.ident_v6.wrapping_add(1);
            fragment::fragment_v6(frame, network, mtu, self.ident_v6, |part| {
                fragments.push(part);
            })
        };
        if count == 0 {
            self.counters.count_drop(DropReason::TooBig, 1);
            return;
        }
        self.counters.count(Event::Fragmented, 1);
        for part in fragments {
            self.emit(now, exit, part, output);
        }
    }

    /// Gives a finished packet out, or holds it until its neighbour is known.
    #[inline]
    fn emit(&mut self, now: Instant, exit: &Exit, frame: Frame, output: &mut Output) {
        let target = exit.target;
        match exit.path {
            Path::Send {
                port,
                destination,
                source,
                hop,
                stale,
                ..
            } => {
                if stale && self.hops.may_probe(&target, now) {
                    let next = self.holding.handle_stale(now, hop);
                    self.hops.probed(&target, next);
                }
                self.transmit(port, destination, source, frame, output);
            }
            Path::Resolve { port, hop, .. } => {
                self.counters.count(Event::Held, 1);
                let dropped = self
                    .holding
                    .hold(now, hop, port, frame, exit.original.clone());
                self.counters.count_drop(DropReason::HoldOverflow, dropped);
            }
            Path::Local => self.pass_up(frame, output),
            Path::Drop(reason) => self.counters.count_drop(reason, 1),
        }
    }

    #[inline]
    fn transmit(
        &self,
        port: PortId,
        destination: [u8; 6],
        source: [u8; 6],
        mut frame: Frame,
        output: &mut Output,
    ) {
        let ethertype = match frame.bytes().get(ethernet::HEADER_LEN) {
            Some(byte) if byte >> 4 == 6 => ethernet::IPV6,
            _ => ethernet::IPV4,
        };
        write_link(&mut frame, destination, source, ethertype);
        self.counters.count(Event::Transmitted, 1);
        output.transmit.push((port, frame));
    }

    /// Leaves a frame to the host: it has its own, or gets this one if the device took it away.
    #[inline]
    pub(super) fn leave(&self, frame: Frame, reason: LeftReason, output: &mut Output) {
        self.counters.count_left(reason);
        if frame.meta.exclusive {
            self.pass_up(frame, output);
        }
    }

    pub(super) fn pass_up(&self, mut frame: Frame, output: &mut Output) {
        frame.trim_front(ethernet::HEADER_LEN);
        self.counters.count(Event::ToHost, 1);
        output.host.push(frame);
    }

    /// Drops a packet and tells its sender, if that is allowed and due.
    fn refuse(
        &mut self,
        now: Instant,
        view: &View,
        item: &Item,
        reason: DropReason,
        error: Error,
        output: &mut Output,
    ) {
        self.counters.count_drop(reason, 1);
        // Claimed ICMP is an error itself, and costs others nothing.
        let teller = icmp_source(view, item).filter(|_| !item.is_error());
        let packet = &item.frame.bytes()[item.headers.network..];
        let to = item.headers.source.ip();
        match teller {
            Some(teller) => self.tell(now, view, (teller, to), (error, packet), output),
            None => self.counters.count(Event::IcmpSuppressed, 1),
        }
    }

    /// Tells the senders of frames whose next hop did not answer.
    pub(super) fn tell_failed(&mut self, now: Instant, view: &View, output: &mut Output) {
        while let Some(Original { teller, packet }) = self.holding.poll_failed() {
            if let Some(to) = sender(&packet) {
                let error = (Error::HostUnreachable, &packet[..]);
                self.tell(now, view, (teller, to), error, output);
            }
        }
    }

    /// Remembers the path MTU of a tunnel.
    pub(super) fn learn(&mut self, now: Instant, error: &Tunnelled) {
        self.path_mtus
            .learn(now, error.far, error.mtu, error.length);
    }

    /// Tells a client what became of its packet in a tunnel.
    pub(super) fn relay(
        &mut self,
        now: Instant,
        view: &View,
        (frame, error): (&Frame, &Tunnelled),
        inner: &Inner,
        verdict: &Verdict,
        output: &mut Output,
    ) {
        let Verdict::Forward(Method::Tunnel { rip, encapsulation }) = *verdict else {
            return;
        };
        let said = match error.is_too_big() {
            // The tunnel's packets go in fragments from now on.
            true if !inner.dont_fragment => return,
            true => {
                let path_mtu = self.path_mtus.of(now, &rip).unwrap_or(0);
                let room = path_mtu.saturating_sub(tun::overhead(encapsulation, &rip));
                let least = match inner.source {
                    SocketAddr::V4(_) => tun::MIN_MTU,
                    SocketAddr::V6(_) => ipv6::MIN_MTU,
                };
                Error::TooBig(u32::try_from(room.max(least)).unwrap_or(u32::MAX))
            }
            false => translated(error, inner.source.is_ipv6()),
        };
        let ends = (inner.destination.ip(), inner.source.ip());
        let packet = &frame.bytes()[inner.bytes.clone()];
        self.tell(now, view, ends, (said, packet), output);
    }

    /// Sends an error about a packet, if that is allowed and due.
    fn tell(
        &mut self,
        now: Instant,
        view: &View,
        (from, to): (IpAddr, IpAddr),
        (error, packet): (Error, &[u8]),
        output: &mut Output,
    ) {
        let frame = match from {
            _ if !self.limiter.allow(now, error, to) => None,
            IpAddr::V4(from) => icmp::build(error, from, self.next_ident(), packet),
            IpAddr::V6(from) => icmp::build_v6(error, from, packet),
        };
        let Some(frame) = frame else {
            self.counters.count(Event::IcmpSuppressed, 1);
            return;
        };
        self.counters.count(Event::IcmpSent, 1);
        self.send(now, view, to, frame, output);
    }

    /// Sends a packet of the director's own.
    fn send(&mut self, now: Instant, view: &View, to: IpAddr, frame: Frame, output: &mut Output) {
        let exit = Exit {
            path: self.hops.path(view, to),
            target: to,
            original: None,
        };
        self.emit(now, &exit, frame, output);
    }

    /// Says no as the host would: by a reset, or port unreachable.
    fn refuse_for_host(&mut self, now: Instant, view: &View, item: &Item, output: &mut Output) {
        // A later fragment has no transport header to answer.
        let has_ports = item.headers.transport < item.headers.end;
        if item.headers.protocol != protocol::TCP || !has_ports {
            let (reason, error) = (DropReason::NoHost, Error::PortUnreachable);
            return self.refuse(now, view, item, reason, error, output);
        }
        self.counters.count_drop(DropReason::NoHost, 1);
        if let Some(frame) = reset::build(&item.frame.bytes()[item.headers.network..]) {
            self.counters.count(Event::ResetSent, 1);
            self.send(now, view, item.headers.source.ip(), frame, output);
        }
    }

    /// Routes what the host has sent and the balancer has no say in.
    pub(super) fn route_unclaimed(
        &mut self,
        now: Instant,
        view: &View,
        mut frame: Frame,
        output: &mut Output,
    ) {
        let bytes = &frame.bytes()[ethernet::HEADER_LEN..];
        let (target, length): (IpAddr, usize) = if let Ok(packet) = ipv4::Packet::new_checked(bytes)
        {
            (packet.destination().into(), packet.total_len())
        } else if let Ok(packet) = ipv6::Packet::new_checked(bytes) {
            (packet.destination().into(), packet.total_len())
        } else {
            self.counters.count_drop(DropReason::Malformed, 1);
            return;
        };
        let end = ethernet::HEADER_LEN + length;
        frame.truncate(end);
        self.counters.count(Event::Routed, 1);
        self.send(now, view, target, frame, output);
    }
}

/// The way out, and what the sender of a packet is told about if nobody answers there.
struct Exit {
    path: Path,
    target: IpAddr,
    original: Option<Original>,
}

/// What to change on the way out.
#[derive(Debug, Clone, Copy)]
enum Rewrite {
    Nothing,
    Destination(SocketAddr),
    Source(SocketAddr),
    /// Source, then destination.
    Both(SocketAddr, SocketAddr),
    Tunnel(Encapsulation),
}

impl Rewrite {
    /// Bytes that the packet gets longer by.
    fn overhead(self, target: &IpAddr) -> usize {
        match self {
            Self::Tunnel(encapsulation) => tun::overhead(encapsulation, target),
            Self::Nothing | Self::Destination(_) | Self::Source(_) | Self::Both(..) => 0,
        }
    }
}

/// Whether a packet can go to this real server. Only a tunnel leads to one of another family, and a link-local one can't
/// be told apart from those of other links.
#[inline]
fn is_acceptable(rip: &IpAddr, rewrite: Rewrite, item: &Item, is_local: bool) -> bool {
    let same_family = rip.is_ipv6() == item.headers.is_ipv6();
    let of_link = matches!(rip, IpAddr::V6(rip) if rip.is_unicast_link_local());
    let local = match rewrite {
        Rewrite::Both(local, _) => Some(local),
        _ => None,
    };
    !rip.is_loopback()
        // The host would answer the local address without asking us.
        && local.is_none_or(|local| local.is_ipv6() == rip.is_ipv6() && !is_local)
        && (same_family || matches!(rewrite, Rewrite::Tunnel(_)))
        && (is_local || !of_link)
}

/// Whether a packet that must not be fragmented may be refused for its size. In IPv4 an ICMP error never is: it goes in
/// fragments.
#[inline]
fn may_refuse_size(view: &View, item: &Item, overhead: usize) -> bool {
    item.headers.is_ipv6() || !item.is_error() && (overhead == 0 || view.tunnels.path_mtu_discovery)
}

#[inline]
fn apply(item: &mut Item, rewrite: Rewrite) {
    let is_error = item.is_error();
    let (frame, headers) = (&mut item.frame, &mut item.headers);
    match rewrite {
        Rewrite::Destination(new) if is_error => error::set_destination(frame, headers, new),
        Rewrite::Source(new) if is_error => error::set_source(frame, headers, new),
        Rewrite::Destination(new) => nat::set_destination(frame, headers, new),
        Rewrite::Source(new) => nat::set_source(frame, headers, new),
        Rewrite::Both(source, destination) if is_error => {
            error::set_source(frame, headers, source);
            error::set_destination(frame, headers, destination);
        }
        Rewrite::Both(source, destination) => {
            nat::set_source(frame, headers, source);
            nat::set_destination(frame, headers, destination);
        }
        // What goes to this host itself needs no tunnel.
        Rewrite::Nothing | Rewrite::Tunnel(_) => {}
    }
}

/// Hops left, and whether no router may fragment the packet.
#[inline]
fn hops_and_df(item: &Item) -> (u8, bool) {
    let bytes = &item.frame.bytes()[item.headers.network..];
    // Headers were found, so neither fails; a packet without hops goes nowhere.
    if item.headers.is_ipv6() {
        return ipv6::Packet::new_checked(bytes)
            .map_or((0, true), |packet| (packet.hop_limit(), true));
    }
    ipv4::Packet::new_checked(bytes)
        .map_or((0, true), |packet| (packet.ttl(), packet.dont_fragment()))
}

/// The longest IP packet that will be on the link: of a super-packet the longest segment, of what came in fragments the
/// longest one.
#[inline]
fn largest_packet(item: &Item) -> usize {
    if let Some(longest) = item.frame.meta.longest_part {
        return longest.into();
    }
    let whole = item.headers.ip_len();
    match item.frame.meta.gso {
        None => whole,
        Some(gso) => whole.min(header_len(item) + usize::from(gso.size)),
    }
}

/// IP and transport header bytes; IP alone where the super-packet is to be cut into fragments.
fn header_len(item: &Item) -> usize {
    let network = item.headers.transport - item.headers.network;
    let is_fragments = item
        .frame
        .meta
        .gso
        .is_some_and(|gso| gso.kind == GsoKind::UdpFragments);
    let transport = match item.headers.protocol {
        protocol::TCP => tcp::Packet::new_checked(&item.frame.bytes()[item.headers.transport..])
            .map_or(0, |p| p.header_len()),
        _ if is_fragments => 0,
        _ => udp::HEADER_LEN,
    };
    network + transport
}

/// Makes the segments of a super-packet small enough. `false` if that is not the way.
fn shrink(item: &mut Item, mtu: usize) -> bool {
    let headers = header_len(item);
    match &mut item.frame.meta.gso {
        Some(gso) if matches!(gso.kind, GsoKind::Tcp4 | GsoKind::Tcp6) && mtu > headers => {
            gso.size = gso.size.min((mtu - headers) as u16);
            true
        }
        _ => false,
    }
}

/// Payload bytes of each segment of a super-packet, none longer than `room` if it is to be cut into segments that TCP
/// may choose; `None` for what is no super-packet, or one whose pieces are IP fragments.
fn segment_size(item: &Item, room: usize) -> Option<usize> {
    let gso = item.frame.meta.gso?;
    let size = usize::from(gso.size);
    match gso.kind {
        GsoKind::Tcp4 | GsoKind::Tcp6 => Some(size.min(room.saturating_sub(header_len(item)))),
        GsoKind::Udp => Some(size),
        GsoKind::UdpFragments => None,
    }
}

/// Whether the host has a packet that is nobody's: one to a service's address, or to a local one.
fn is_for_host(view: &View, item: &Item) -> bool {
    item.direction == Direction::Inbound || view.claims.is_local(&item.headers.destination.ip())
}

/// Where a worker begins to count identifications.
fn first_ident(worker: u32, workers: u32) -> u16 {
    (u64::from(worker) * 0x1_0000 / u64::from(workers.max(1))) as u16
}

/// What the sender of a packet is told about if its next hop does not answer.
#[cold]
fn original(view: &View, item: &Item) -> Option<Original> {
    let teller = icmp_source(view, item).filter(|_| !item.is_error())?;
    let packet = item.frame.bytes().get(item.headers.network..)?;
    let length = packet.len().min(icmp::quotable(item.headers.is_ipv6()));
    Some(Original {
        teller,
        packet: packet[..length].to_vec(),
    })
}

/// The sender of an IP packet.
fn sender(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => {
            let octets: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            Some(octets.into())
        }
        _ => {
            let octets: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
            Some(octets.into())
        }
    }
}

/// An error about a tunnel's packet as one about the packet inside, which may be of the other family (RFC 7915, sections
/// 4.2 and 5.2).
fn translated(error: &Tunnelled, to_ipv6: bool) -> Error {
    let (kind, code) = error.kind;
    match (error.headers.is_ipv6(), to_ipv6) {
        (false, false) => Error::Relayed { kind, code },
        // What is wrong with the outer headers says nothing of the ones inside.
        (true, true) if matches!(kind, 1 | 3) => Error::Relayed { kind, code },
        (false, true) => match (kind, code) {
            (11, _) => Error::TimeExceeded,
            (3, 3) => Error::PortUnreachable,
            (3, 9 | 10 | 13) => Error::Prohibited,
            _ => Error::HostUnreachable,
        },
        (true, _) => match (kind, code) {
            (3, _) => Error::TimeExceeded,
            (1, 4) => Error::PortUnreachable,
            (1, 1) => Error::Prohibited,
            _ => Error::HostUnreachable,
        },
    }
}

/// The sender of an ICMP error: the address that the packet was sent to, if that is ours, else one of the
/// interface where it came in, else any of ours.
fn icmp_source(view: &View, item: &Item) -> Option<IpAddr> {
    let destination = item.headers.destination.ip();
    if item.direction == Direction::Inbound || view.local.contains(&destination) {
        return Some(destination);
    }
    let ipv6 = item.headers.is_ipv6();
    let ingress = match item.origin {
        Origin::Port(port) => view.port(port).and_then(|port| port.addr(ipv6)),
        Origin::Host => None,
    };
    ingress.or_else(|| view.any_addr(ipv6))
}

//! The checks of what comes in, in the order in which keepalived makes them.

use super::VirtualRouter;
use crate::config::{Authentication, Interval, Reach, Version};
use crate::datagram::Datagram;
use crate::discard::Discard;
use crate::event::{Event, Peer};
use crate::state::{Machine, State};
use crate::wire::{
    self, AdvertPacket, AhPacket, ChecksumForm, Endpoints, IcvScope, Ipv4Packet, auth_type,
};
use std::cmp::Ordering;
use std::net::IpAddr;
use std::time::Instant;

/// An advertisement that passed every check.
#[derive(Debug, Clone, Copy)]
pub(super) struct Advert {
    pub(super) source: IpAddr,
    pub(super) priority: u8,
    /// Version 3 only.
    pub(super) interval: Option<Interval>,
    /// Of the authentication header.
    pub(super) sequence: Option<u32>,
}

/// A message cut out of its datagram.
struct Cut<'a> {
    ends: Endpoints,
    ttl: Option<u8>,
    message: AdvertPacket<'a>,
    /// IP header and authentication header with all that follows it.
    ah: Option<(&'a [u8], AhPacket<'a>, &'a [u8])>,
}

impl VirtualRouter {
    /// Everything that can be wrong with a datagram (6.2 of the specification of keepalived's behaviour: RFC 9568, 7.1 and more).
    pub(super) fn judge(
        &mut self,
        arrived: Instant,
        datagram: &Datagram<'_>,
    ) -> Result<Advert, Discard> {
        if !matches!(self.machine, Machine::Backup(_) | Machine::Active(_)) {
            return Err(Discard::NotListening);
        }
        if self.quiet_until.is_some_and(|end| arrived < end) {
            return Err(Discard::StartingUp);
        }
        let cut = self.cut(datagram)?;
        let packet = cut.message;
        if packet.vrid() != self.config.vrid.get() {
            return Err(Discard::UnknownVrid(packet.vrid()));
        }
        let multicast = self.config.reach.is_multicast();
        if let Some(ttl) = cut.ttl
            && multicast
            && ttl != wire::MULTICAST_TTL
        {
            return Err(Discard::Ttl(ttl));
        }
        if packet.version() != self.config.version.number() {
            return Err(Discard::Version(packet.version()));
        }
        let mut sequence = None;
        if self.config.version == Version::V2 {
            sequence = self.authenticate(&cut)?;
            let own = self.config.interval.whole_secs();
            if own != Some(packet.interval_secs()) {
                return Err(Discard::Interval(packet.interval_secs()));
            }
        }
        if packet.message_type() != 1 {
            return Err(Discard::Type(packet.message_type()));
        }
        let form = packet
            .checksum_form(cut.ends, self.old_checksum_group())
            .ok_or(Discard::Checksum)?;
        if form == ChecksumForm::GroupPseudoHeader && !self.old_checksum {
            self.old_checksum = true;
            let source = cut.ends.source();
            self.events.push_back(Event::OldChecksum { source });
        }
        let interval = match self.config.version {
            Version::V2 => None,
            Version::V3 => {
                let interval = Interval::from_centis(packet.max_advert_interval());
                Some(interval.ok_or(Discard::ZeroInterval)?)
            }
        };
        let none = self.config.version == Version::V3 && packet.address_count() == 0;
        if none && !self.config.addresses.is_empty() {
            return Err(Discard::NoAddress);
        }
        let destination = cut.ends.destination();
        if destination.is_multicast() != multicast {
            return Err(Discard::Destination(destination));
        }
        if self.config.priority.is_owner() && self.config.owner_ignores_adverts {
            return Err(Discard::OwnerIsDeaf);
        }
        self.statistics.adverts_received += 1;
        let source = cut.ends.source();
        self.compare_addresses(source, &packet);
        self.check_peer(source, cut.ttl)?;
        if packet.priority() == 0 {
            self.statistics.priority_zero_received += 1;
        }
        Ok(Advert {
            source,
            priority: packet.priority(),
            interval,
            sequence,
        })
    }

    /// Headers and lengths.
    fn cut<'a>(&self, datagram: &Datagram<'a>) -> Result<Cut<'a>, Discard> {
        let family = datagram.family();
        if family != self.config.family {
            return Err(Discard::NotListening);
        }
        match *datagram {
            Datagram::V4(bytes) => {
                let ip = Ipv4Packet::new(bytes).map_err(|_| Discard::TooShort)?;
                let authenticated = ip.protocol() == wire::PROTOCOL_AH;
                let wanted = matches!(self.config.authentication, Authentication::Header(_));
                if authenticated != wanted {
                    // Which of the two it is can be told before the message is looked at.
                    datagram.vrid().ok_or(Discard::TooShort)?;
                    return Err(Discard::HeaderMismatch);
                }
                // Bytes behind the total length are padding of the link, of whatever amount.
                let (need, have) = (ip.total_len(), bytes.len());
                if need < ip.header_len() {
                    return Err(Discard::TooShort);
                }
                let packet = bytes.get(..need).ok_or(Discard::Length { need, have })?;
                let payload = &packet[ip.header_len()..];
                let (ah, message) = if authenticated {
                    let ah = AhPacket::new(payload).map_err(|_| Discard::TooShort)?;
                    (Some((ip.header(), ah, payload)), ah.payload())
                } else {
                    (None, payload)
                };
                let ends = Endpoints::V4 {
                    source: ip.source(),
                    destination: ip.destination(),
                };
                let message = measure(ends, message)?;
                Ok(Cut {
                    ends,
                    ttl: Some(ip.ttl()),
                    message,
                    ah,
                })
            }
            Datagram::V6 {
                source,
                destination,
                hop_limit,
                payload,
            } => {
                let ends = Endpoints::V6 {
                    source,
                    destination,
                };
                let message = measure(ends, payload)?;
                Ok(Cut {
                    ends,
                    ttl: hop_limit,
                    message,
                    ah: None,
                })
            }
        }
    }

    /// Version 2: type, password, header. The sequence number counts from here on, for its integrity is proven.
    fn authenticate(&mut self, cut: &Cut<'_>) -> Result<Option<u32>, Discard> {
        let kind = cut.message.auth_type();
        if kind > auth_type::HEADER {
            return Err(Discard::InvalidAuthType(kind));
        }
        if kind != self.config.authentication.auth_type() {
            return Err(Discard::AuthTypeMismatch(kind));
        }
        match self.config.authentication {
            Authentication::None => Ok(None),
            Authentication::Password(password) => {
                let data = cut.message.auth_data(cut.ends.family());
                let same = data.is_some_and(|data| equal_in_constant_time(&data, &password));
                if same {
                    Ok(None)
                } else {
                    Err(Discard::Password)
                }
            }
            Authentication::Header(key) => {
                let (header, ah, payload) = cut.ah.ok_or(Discard::HeaderMismatch)?;
                if ah.next_header() != wire::PROTOCOL_VRRP {
                    return Err(Discard::NextHeader(ah.next_header()));
                }
                let scope = match self.config.reach {
                    Reach::Multicast { .. } => IcvScope::Multicast,
                    Reach::Unicast { .. } => IcvScope::Unicast,
                };
                let icv = wire::icv(&key, scope, header, payload, ah.payload());
                if !equal_in_constant_time(&icv, &ah.icv()) {
                    return Err(Discard::Integrity);
                }
                if IpAddr::from(ah.spi().to_be_bytes()) != cut.ends.source() {
                    return Err(Discard::Spi);
                }
                let (got, last) = (ah.sequence(), self.sequence.last);
                let rival = Peer {
                    address: cut.ends.source(),
                    priority: cut.message.priority(),
                };
                if got < last || (got == last && !self.keeps_step_with(rival)) {
                    return Err(Discard::Replayed { got, last });
                }
                self.sequence.last = got;
                Ok(Some(got))
            }
        }
    }

    /// Two Active routers that began at the same moment count alike, and would refuse each other for ever. The better one hears
    /// the other out, and answers with a number ahead of both.
    fn keeps_step_with(&self, rival: Peer) -> bool {
        matches!(self.machine, Machine::Active(_))
            && rival.priority != 0
            && self.rank(rival) == Ordering::Less
    }

    /// Counts and reports an address list that is not ours; order does not matter. Nothing is refused for it: two Active routers that
    /// do not hear each other would be worse.
    fn compare_addresses(&mut self, source: IpAddr, packet: &AdvertPacket<'_>) {
        let own = &self.config.addresses;
        let known = self.active.is_some_and(|(peer, _)| peer.address == source)
            && self.machine.state() == State::Backup
            && self.config.skip_known_addresses;
        let same_count = usize::from(packet.address_count()) == own.len();
        let same = same_count
            && (known || {
                let mut theirs: Vec<_> = packet.addresses(self.config.family).collect();
                theirs.sort_unstable();
                own.iter()
                    .all(|each| theirs.binary_search(&each.address).is_ok())
            });
        if same {
            return;
        }
        self.statistics.address_list_errors += 1;
        let first =
            self.said.len() < super::MAX_SAID && self.said.insert((source, Discard::NoAddress));
        if first {
            self.events.push_back(Event::AddressesDiffer { source });
        }
    }

    /// Unicast: is the sender a peer, and within its bounds?
    fn check_peer(&self, source: IpAddr, ttl: Option<u8>) -> Result<(), Discard> {
        let Reach::Unicast {
            peers,
            check_source,
            ..
        } = &self.config.reach
        else {
            return Ok(());
        };
        let bounded = peers.iter().any(|peer| peer.ttl != (0, u8::MAX));
        if !check_source && !bounded {
            return Ok(());
        }
        let peer = peers.iter().find(|peer| peer.address == source);
        let (least, most) = peer.ok_or(Discard::NotAPeer)?.ttl;
        match ttl {
            Some(ttl) if !(least..=most).contains(&ttl) => Err(Discard::PeerTtl(ttl)),
            _ => Ok(()),
        }
    }
}

/// The message must be as long as it says itself.
fn measure(ends: Endpoints, message: &[u8]) -> Result<AdvertPacket<'_>, Discard> {
    let packet = AdvertPacket::new(message).map_err(|_| Discard::TooShort)?;
    let (need, have) = (packet.expected_len(ends.family()), message.len());
    if need == have {
        Ok(packet)
    } else {
        Err(Discard::Length { need, have })
    }
}

/// Compares secrets without telling by time where they differ.
fn equal_in_constant_time<const N: usize>(one: &[u8; N], other: &[u8; N]) -> bool {
    let differing = one
        .iter()
        .zip(other)
        .fold(0, |sum, (a, b)| sum | std::hint::black_box(a ^ b));
    differing == 0
}

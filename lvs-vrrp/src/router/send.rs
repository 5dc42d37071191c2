//! What goes out: advertisements, each written when the shell is ready to send it.

use super::VirtualRouter;
use crate::config::{Authentication, ChecksumSend, Family, Interval, Reach, Version};
use crate::state::{Machine, Rival};
use crate::wire::{
    self, AdvertRepr, AhPacket, AhRepr, ChecksumForm, Endpoints, Format, IcvScope, Ipv4Repr,
    auth_type,
};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

/// How to send what was written into the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// From this address.
    pub source: IpAddr,
    /// To this group or peer. IPv4: it stands in the packet too.
    pub destination: IpAddr,
    /// Hop limit for IPv6; `None`: the kernel's choice. IPv4 packets carry their TTL already.
    pub hop_limit: Option<u8>,
    /// IP protocol: [`wire::PROTOCOL_VRRP`], or [`wire::PROTOCOL_AH`] where an authentication header comes first. The buffer is
    /// a whole IPv4 packet (for a raw socket with its own header), or an IPv6 payload (whose traffic class should be
    /// [`wire::TRAFFIC_CLASS`]).
    pub protocol: u8,
}

/// The shared counter of the authentication header: numbers must rise over all senders.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sequence {
    pub(super) last: u32,
    /// The counter has come to its end and waits for a new Active router to begin again.
    pub(super) exhausted: bool,
}

impl Sequence {
    /// The number of the next advertisement.
    fn advance(&mut self) -> u32 {
        if self.last > LAST_SEQUENCE {
            self.exhausted = true;
        } else {
            self.last += 1;
        }
        self.last
    }

    /// A new Active router begins again when the numbers have been used up.
    pub(super) const fn begin(&mut self) {
        if self.exhausted {
            *self = Self {
                last: 0,
                exhausted: false,
            };
        }
    }
}

/// A datagram that has only to be written.
#[derive(Debug)]
pub(super) struct Outgoing {
    repr: AdvertRepr,
    ends: Endpoints,
    form: ChecksumForm,
    group: Option<Ipv4Addr>,
    /// `None`: the kernel's choice, IPv6 only.
    ttl: Option<u8>,
    identification: u16,
    header: Option<([u8; 8], u32, IcvScope)>,
}

impl Outgoing {
    pub(super) fn write(&self, buffer: &mut Vec<u8>) -> Transmit {
        buffer.clear();
        let message = self.repr.buffer_len();
        let protocol = match self.header {
            Some(_) => wire::PROTOCOL_AH,
            None => wire::PROTOCOL_VRRP,
        };
        match self.ends {
            Endpoints::V4 {
                source,
                destination,
            } => {
                let ah_len = if self.header.is_some() {
                    AhPacket::LEN
                } else {
                    0
                };
                let ip = Ipv4Repr {
                    source,
                    destination,
                    protocol,
                    ttl: self.ttl.unwrap_or(wire::MULTICAST_TTL),
                    identification: self.identification,
                    payload_len: ah_len + message,
                };
                buffer.resize(ip.buffer_len() + ip.payload_len, 0);
                let (header, rest) = buffer.split_at_mut(ip.buffer_len());
                ip.emit(header);
                let (ah, message) = rest.split_at_mut(ah_len);
                self.repr.emit(message, self.ends, self.form, self.group);
                if let Some((key, sequence, scope)) = self.header {
                    let mut repr = AhRepr {
                        spi: source.into(),
                        sequence,
                        icv: [0; 12],
                    };
                    repr.emit(ah);
                    repr.icv = wire::icv(&key, scope, header, ah, message);
                    repr.emit(ah);
                }
            }
            Endpoints::V6 { .. } => {
                buffer.resize(message, 0);
                self.repr.emit(buffer, self.ends, self.form, self.group);
            }
        }
        Transmit {
            source: self.ends.source(),
            destination: self.ends.destination(),
            hop_limit: self.ttl,
            protocol,
        }
    }
}

impl VirtualRouter {
    /// Queues one advertisement: a multicast one, or a copy for each peer.
    pub(super) fn queue_advert(&mut self, priority: u8) {
        self.queue_advert_every(priority, self.config.interval);
    }

    fn queue_advert_every(&mut self, priority: u8, interval: Interval) {
        let Some(source) = self.source else {
            return;
        };
        self.statistics.adverts_sent += 1;
        self.identification = match self.identification {
            u16::MAX => 1,
            last => last + 1,
        };
        let format = match self.config.version {
            Version::V2 => Format::V2 {
                interval_secs: interval.whole_secs().unwrap_or(1),
                auth_type: self.config.authentication.auth_type(),
                auth_data: match self.config.authentication {
                    Authentication::Password(password) => password,
                    Authentication::None | Authentication::Header(_) => [0; 8],
                },
            },
            Version::V3 => Format::V3 {
                max_advert_interval: interval.centis(),
            },
        };
        let repr = AdvertRepr {
            vrid: self.config.vrid,
            priority,
            addresses: self.advertised.clone(),
            format,
        };
        let header = match self.config.authentication {
            Authentication::Header(key) => Some((key, self.sequence.advance())),
            _ => None,
        };
        debug_assert!(header.is_none() || repr.auth_type() == Some(auth_type::HEADER));
        let group = self.old_checksum_group();
        let form = self.sent_checksum();
        let identification = self.identification;
        let mut queue = |destination, ttl, scope| {
            if let Some(ends) = Endpoints::new(source, destination) {
                self.transmits.push_back(Outgoing {
                    repr: repr.clone(),
                    ends,
                    form,
                    group,
                    ttl,
                    identification,
                    header: header.map(|(key, sequence)| (key, sequence, scope)),
                });
            }
        };
        match &self.config.reach {
            Reach::Multicast { group } => {
                queue(*group, Some(wire::MULTICAST_TTL), IcvScope::Multicast);
            }
            Reach::Unicast { peers, ttl, .. } => {
                let default = match self.config.family {
                    Family::V4 => Some(wire::MULTICAST_TTL),
                    Family::V6 => None,
                };
                for peer in peers {
                    queue(peer.address, ttl.or(default), IcvScope::Unicast);
                }
            }
        }
    }

    /// One advertisement of an Active router; the next is due an interval later.
    pub(super) fn send_advert(&mut self, now: Instant) {
        self.queue_advert(self.effective_priority());
        let interval = self.config.interval;
        if let Machine::Active(active) = &mut self.machine {
            active.last_advert = now;
            active.next_advert = now + interval.duration();
            if let Rival::Warned {
                adverts,
                interval: other,
            } = active.rival
            {
                active.rival = match adverts.saturating_sub(1) {
                    0 => Rival::Watched {
                        until: now + interval.max(other).duration() * 6 / 5,
                    },
                    adverts => Rival::Warned {
                        adverts,
                        interval: other,
                    },
                };
            }
        }
    }

    /// The last advertisement before a better router is yielded to, so that it learns of the split. Whoever else hears it shall
    /// wait by the better one's interval.
    pub(super) fn send_farewell(&mut self, interval: Option<Interval>) {
        let interval = interval.unwrap_or(self.config.interval);
        self.queue_advert_every(self.effective_priority(), interval);
    }

    /// Priority 0: this router leaves.
    pub(super) fn send_resignation(&mut self) {
        self.queue_advert(0);
        self.statistics.priority_zero_sent += 1;
    }

    /// The group that old unicast checksums have in their pseudo-header.
    pub(super) const fn old_checksum_group(&self) -> Option<Ipv4Addr> {
        match (self.config.family, &self.config.reach) {
            (Family::V4, Reach::Unicast { .. }) => Some(wire::GROUP_V4),
            _ => None,
        }
    }

    fn sent_checksum(&self) -> ChecksumForm {
        let old = match self.config.checksum {
            ChecksumSend::PseudoHeader => self.old_checksum,
            ChecksumSend::PseudoHeaderAlways => false,
            ChecksumSend::Message => return ChecksumForm::Message,
            ChecksumSend::GroupPseudoHeader => true,
        };
        if old && self.old_checksum_group().is_some() {
            ChecksumForm::GroupPseudoHeader
        } else {
            ChecksumForm::PseudoHeader
        }
    }
}

impl AdvertRepr {
    const fn auth_type(&self) -> Option<u8> {
        match self.format {
            Format::V2 { auth_type, .. } => Some(auth_type),
            Format::V3 { .. } => None,
        }
    }
}

/// Two numbers are kept back, as keepalived does.
const LAST_SEQUENCE: u32 = u32::MAX - 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_stop_at_their_end_until_a_new_beginning() {
        let mut sequence = Sequence {
            last: 0xffff_fffc,
            exhausted: false,
        };
        assert_eq!(sequence.advance(), 0xffff_fffd);
        assert_eq!(sequence.advance(), 0xffff_fffe);
        assert!(!sequence.exhausted);
        assert_eq!(sequence.advance(), 0xffff_fffe, "it stops growing");
        sequence.begin();
        assert_eq!(sequence.advance(), 1);
        sequence.begin();
        assert_eq!(sequence.advance(), 2, "nothing to begin anew");
    }
}

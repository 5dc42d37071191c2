//! The advertisement, the one message of VRRP (RFC 3768, 5.1; RFC 9568, 5.1).

use super::checksum::{ChecksumForm, Endpoints, Sum};
use super::{Truncated, u16_at};
use crate::config::{Family, Version, Vrid};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// A view of an advertisement, from its version on.
#[derive(Debug, Clone, Copy)]
pub struct AdvertPacket<'a>(&'a [u8]);

impl<'a> AdvertPacket<'a> {
    /// Length of the part that every advertisement has.
    pub const HEADER_LEN: usize = 8;

    /// A view of `bytes`, which may be longer or shorter than the address count says:
    /// compare with [`expected_len`](Self::expected_len).
    ///
    /// # Errors
    /// When not even the fixed part is there.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Truncated> {
        Truncated::check(bytes, Self::HEADER_LEN)?;
        Ok(Self(bytes))
    }

    /// The same message without what follows its expected length.
    #[must_use]
    pub fn trimmed(&self, family: Family) -> Self {
        Self(&self.0[..self.expected_len(family).min(self.0.len())])
    }

    /// All bytes of the view.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Version: 2 or 3, or what else is there.
    #[must_use]
    pub const fn version(&self) -> u8 {
        self.0[0] >> 4
    }

    /// Type; 1 is the only one.
    #[must_use]
    pub const fn message_type(&self) -> u8 {
        self.0[0] & 0x0f
    }

    /// Virtual router identifier; zero belongs to nobody.
    #[must_use]
    pub const fn vrid(&self) -> u8 {
        self.0[1]
    }

    /// Priority; zero says that the sender is leaving.
    #[must_use]
    pub const fn priority(&self) -> u8 {
        self.0[2]
    }

    /// Number of addresses that should follow.
    #[must_use]
    pub const fn address_count(&self) -> u8 {
        self.0[3]
    }

    /// Version 2: authentication type.
    #[must_use]
    pub const fn auth_type(&self) -> u8 {
        self.0[4]
    }

    /// Version 2: interval in seconds.
    #[must_use]
    pub const fn interval_secs(&self) -> u8 {
        self.0[5]
    }

    /// Version 3: maximum advertisement interval in centiseconds, 12 bits.
    #[must_use]
    pub fn max_advert_interval(&self) -> u16 {
        u16_at(self.0, 4) & 0x0fff
    }

    /// Version 3: four reserved bits, to be ignored.
    #[must_use]
    pub const fn reserved(&self) -> u8 {
        self.0[4] >> 4
    }

    /// The checksum field.
    #[must_use]
    pub fn checksum(&self) -> u16 {
        u16_at(self.0, 6)
    }

    /// How long the message should be by its own version and count.
    #[must_use]
    pub const fn expected_len(&self, family: Family) -> usize {
        let addresses = self.address_count() as usize * family.address_len();
        Self::HEADER_LEN + addresses + auth_data_len(self.version(), family)
    }

    /// The addresses that are wholly there, at most as many as the count says.
    pub fn addresses(&self, family: Family) -> impl Iterator<Item = IpAddr> + 'a {
        self.0[Self::HEADER_LEN..]
            .chunks_exact(family.address_len())
            .take(usize::from(self.address_count()))
            .map(read_address)
    }

    /// Version 2 over IPv4: the eight bytes behind the addresses; `None` where there are none.
    #[must_use]
    pub fn auth_data(&self, family: Family) -> Option<[u8; 8]> {
        if auth_data_len(self.version(), family) == 0 {
            return None;
        }
        let end = self.expected_len(family);
        self.0.get(end - 8..end)?.try_into().ok()
    }

    /// What the checksum covers if it is right, `None` if it is right in no form. `group` is the destination in the
    /// pseudo-header of keepalived's old unicast form. The view must be [`trimmed`](Self::trimmed).
    #[must_use]
    pub fn checksum_form(&self, ends: Endpoints, group: Option<Ipv4Addr>) -> Option<ChecksumForm> {
        let forms: &[ChecksumForm] = match (self.version(), ends) {
            (_, Endpoints::V6 { .. }) => &[ChecksumForm::PseudoHeader],
            (2, Endpoints::V4 { .. }) => &[ChecksumForm::Message],
            _ => &[
                ChecksumForm::PseudoHeader,
                ChecksumForm::Message,
                ChecksumForm::GroupPseudoHeader,
            ],
        };
        forms.iter().copied().find(|form| {
            let start = start(*form, ends, group, self.0.len());
            start.is_some_and(|start| start.bytes(self.0).finish() == 0)
        })
    }
}

/// Known authentication types of version 2.
pub mod auth_type {
    /// No authentication.
    pub const NONE: u8 = 0;
    /// A password in clear.
    pub const PASSWORD: u8 = 1;
    /// The IP authentication header.
    pub const HEADER: u8 = 2;
}

/// Up to 255 addresses of one family, in the order of the wire. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Addresses {
    family: Family,
    list: Arc<[IpAddr]>,
}

impl Addresses {
    /// `None` when an address is of the other family or there are more than 255.
    #[must_use]
    pub fn new(family: Family, addresses: impl IntoIterator<Item = IpAddr>) -> Option<Self> {
        let list: Arc<[IpAddr]> = addresses.into_iter().collect();
        let fits = list.len() <= usize::from(u8::MAX)
            && list.iter().all(|address| Family::of(*address) == family);
        fits.then_some(Self { family, list })
    }

    /// The family of all of them.
    #[must_use]
    pub const fn family(&self) -> Family {
        self.family
    }

    /// The addresses.
    #[must_use]
    pub fn as_slice(&self) -> &[IpAddr] {
        &self.list
    }

    fn count(&self) -> u8 {
        u8::try_from(self.list.len()).expect("checked when made")
    }
}

/// What differs between the versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// VRRPv2.
    V2 {
        /// Interval in seconds.
        interval_secs: u8,
        /// One of [`auth_type`], or what else was there.
        auth_type: u8,
        /// Password or zeroes; not on the wire over IPv6.
        auth_data: [u8; 8],
    },
    /// VRRPv3.
    V3 {
        /// Maximum advertisement interval in centiseconds; the lower 12 bits are sent.
        max_advert_interval: u16,
    },
}

/// The meaning of an advertisement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdvertRepr {
    /// Virtual router identifier.
    pub vrid: Vrid,
    /// Priority; zero says that the sender is leaving.
    pub priority: u8,
    /// Addresses of the virtual router.
    pub addresses: Addresses,
    /// Version, interval and authentication.
    pub format: Format,
}

/// Why bytes are no advertisement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdvertError {
    /// Neither 2 nor 3.
    #[error("version {0}")]
    Version(u8),
    /// Not an advertisement.
    #[error("type {0}")]
    Type(u8),
    /// VRID 0.
    #[error("virtual router identifier 0")]
    Vrid,
    /// The length is not what version and count call for.
    #[error("{have} bytes instead of {need}")]
    Length {
        /// Bytes by version and count.
        need: usize,
        /// Bytes there.
        have: usize,
    },
    /// The checksum is right in no known form.
    #[error("wrong checksum")]
    Checksum,
}

impl AdvertRepr {
    /// Reads a message of exactly its expected length, and in which form its checksum is right. What depends on
    /// configuration (version, interval, authentication, addresses) is not judged here.
    ///
    /// # Errors
    /// When the bytes mean nothing.
    pub fn parse(
        packet: &AdvertPacket<'_>,
        ends: Endpoints,
        group: Option<Ipv4Addr>,
    ) -> Result<(Self, ChecksumForm), AdvertError> {
        let family = ends.family();
        let number = packet.version();
        let version = Version::new(number).ok_or(AdvertError::Version(number))?;
        if packet.message_type() != ADVERTISEMENT {
            return Err(AdvertError::Type(packet.message_type()));
        }
        let vrid = Vrid::new(packet.vrid()).ok_or(AdvertError::Vrid)?;
        let (need, have) = (packet.expected_len(family), packet.as_bytes().len());
        if need != have {
            return Err(AdvertError::Length { need, have });
        }
        let form = packet
            .checksum_form(ends, group)
            .ok_or(AdvertError::Checksum)?;
        let format = match version {
            Version::V2 => Format::V2 {
                interval_secs: packet.interval_secs(),
                auth_type: packet.auth_type(),
                auth_data: packet.auth_data(family).unwrap_or_default(),
            },
            Version::V3 => Format::V3 {
                max_advert_interval: packet.max_advert_interval(),
            },
        };
        let addresses = Addresses::new(family, packet.addresses(family))
            .expect("the count is a byte and the family one");
        let repr = Self {
            vrid,
            priority: packet.priority(),
            addresses,
            format,
        };
        Ok((repr, form))
    }

    /// Length of the message.
    #[must_use]
    pub fn buffer_len(&self) -> usize {
        let family = self.addresses.family();
        AdvertPacket::HEADER_LEN
            + self.addresses.as_slice().len() * family.address_len()
            + auth_data_len(self.version().number(), family)
    }

    /// Version of the format.
    #[must_use]
    pub const fn version(&self) -> Version {
        match self.format {
            Format::V2 { .. } => Version::V2,
            Format::V3 { .. } => Version::V3,
        }
    }

    /// Writes the message. For version 2 over IPv4 and for IPv6 there is one form of checksum and `form` is not looked
    /// at; `group` counts in the form [`ChecksumForm::GroupPseudoHeader`] only.
    ///
    /// # Panics
    /// When `buffer` is shorter than [`buffer_len`](Self::buffer_len).
    pub fn emit(
        &self,
        buffer: &mut [u8],
        ends: Endpoints,
        form: ChecksumForm,
        group: Option<Ipv4Addr>,
    ) {
        let family = self.addresses.family();
        let message = &mut buffer[..self.buffer_len()];
        message[0] = self.version().number() << 4 | ADVERTISEMENT;
        message[1] = self.vrid.get();
        message[2] = self.priority;
        message[3] = self.addresses.count();
        message[6..8].fill(0);
        let (list, rest) = message[AdvertPacket::HEADER_LEN..]
            .split_at_mut(self.addresses.as_slice().len() * family.address_len());
        for (place, address) in list
            .chunks_exact_mut(family.address_len())
            .zip(self.addresses.as_slice())
        {
            match address {
                IpAddr::V4(address) => place.copy_from_slice(&address.octets()),
                IpAddr::V6(address) => place.copy_from_slice(&address.octets()),
            }
        }
        match self.format {
            Format::V2 {
                interval_secs,
                auth_type,
                auth_data,
            } => {
                rest.copy_from_slice(&auth_data[..rest.len()]);
                message[4] = auth_type;
                message[5] = interval_secs;
            }
            Format::V3 {
                max_advert_interval,
            } => message[4..6].copy_from_slice(&(max_advert_interval & 0x0fff).to_be_bytes()),
        }
        let form = match (family, self.format) {
            (Family::V6, _) => ChecksumForm::PseudoHeader,
            (Family::V4, Format::V2 { .. }) => ChecksumForm::Message,
            (Family::V4, Format::V3 { .. }) => form,
        };
        let start = start(form, ends, group, message.len()).unwrap_or_default();
        let checksum = start.bytes(message).finish();
        message[6..8].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// The sum in front of the message; `None` when the form does not exist for these ends.
fn start(
    form: ChecksumForm,
    ends: Endpoints,
    group: Option<Ipv4Addr>,
    length: usize,
) -> Option<Sum> {
    match (form, ends) {
        (ChecksumForm::Message, _) => Some(Sum::default()),
        (ChecksumForm::PseudoHeader, _) => Some(Sum::pseudo_header(ends, length)),
        (ChecksumForm::GroupPseudoHeader, Endpoints::V4 { source, .. }) => group.map(|group| {
            let destination = group;
            let ends = Endpoints::V4 {
                source,
                destination,
            };
            Sum::pseudo_header(ends, length)
        }),
        (ChecksumForm::GroupPseudoHeader, Endpoints::V6 { .. }) => None,
    }
}

/// Version 2 over IPv4 has eight bytes behind its addresses, used or not.
const fn auth_data_len(version: u8, family: Family) -> usize {
    match (version, family) {
        (2, Family::V4) => 8,
        _ => 0,
    }
}

fn read_address(bytes: &[u8]) -> IpAddr {
    match <[u8; 16]>::try_from(bytes) {
        Ok(octets) => Ipv6Addr::from(octets).into(),
        Err(_) => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
    }
}

const ADVERTISEMENT: u8 = 1;

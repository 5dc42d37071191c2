//! `virtual_server_group`.

use super::*;
use crate::model::{LocalAddress, LocalAddressGroup};
use crate::tree::ValueLine;

/// Reads a group; `None` means that it is dropped.
pub(super) fn read(cx: &mut Context, block: &Statement) -> Option<ServerGroup> {
    let name = block.args.first()?;
    let mut group = ServerGroup {
        name: name.text.to_string(),
        entries: Vec::new(),
    };
    for line in block.values() {
        group.entries.extend(entry(cx, line));
    }
    let families: Vec<Option<Family>> = group
        .entries
        .iter()
        .map(|entry| match entry {
            GroupEntry::Range { first, .. } => Some(Family::of(*first)),
            GroupEntry::Mark { family, .. } => *family,
        })
        .collect();
    let has = |family| families.contains(&family);
    let why = if group.entries.is_empty() {
        "has no usable entry"
    } else if has(Some(Family::Inet)) && has(Some(Family::Inet6)) && has(None) {
        "has both families and a mark without family"
    } else {
        return Some(group);
    };
    cx.report(
        Code::VsgEmpty,
        Consequence::Drop,
        cx.whole(block),
        format!("virtual_server_group `{}` {why}, it is dropped", group.name),
    );
    None
}

/// Reads a `local_address_group`; `None` means that it is dropped.
pub(super) fn read_local(cx: &mut Context, block: &Statement) -> Option<LocalAddressGroup> {
    let name = block.args.first()?.text.to_string();
    let mut addresses: Vec<LocalAddress> = Vec::new();
    for line in block.values() {
        let Some((first, rest)) = line.words.split_first() else {
            continue;
        };
        let Ok(address) = first.text.parse::<IpAddr>() else {
            cx.push(
                Diagnostic::new(
                    Code::VsAddressInvalid,
                    Consequence::Drop,
                    first.span,
                    format!("`{}` is no local address", first.text),
                )
                .expected("an address, and the interface to hold it on"),
            );
            continue;
        };
        if addresses.iter().all(|known| known.address != address) {
            addresses.push(LocalAddress {
                address,
                interface: rest.first().map(|word| word.text.to_string()),
            });
        }
    }
    if addresses.is_empty() {
        cx.report(
            Code::VsgEmpty,
            Consequence::Drop,
            cx.whole(block),
            format!("local_address_group `{name}` has no usable entry, it is dropped"),
        );
        return None;
    }
    Some(LocalAddressGroup { name, addresses })
}

fn entry(cx: &mut Context, line: &ValueLine) -> Option<GroupEntry> {
    let (first, rest) = line.words.split_first()?;
    if first.text.as_str() == "fwmark" {
        let Some(word) = rest.first() else {
            cx.report(
                Code::VsAddressInvalid,
                Consequence::Drop,
                first.span,
                "`fwmark` without mark",
            );
            return None;
        };
        let mark = cx.small("fwmark", word, 0..=u64::from(u32::MAX))?;
        let family = match rest.get(1).map(|word| word.text.as_str()) {
            Some("inet") => Some(Family::Inet),
            Some("inet6") => Some(Family::Inet6),
            None => None,
            Some(other) => {
                cx.report(
                    Code::VsAddressInvalid,
                    Consequence::Drop,
                    first.span,
                    format!("`{other}` is no family"),
                );
                return None;
            }
        };
        return Some(GroupEntry::Mark { mark, family });
    }
    let Some((from, to)) = range(&first.text) else {
        cx.push(
            Diagnostic::new(
                Code::VsAddressInvalid,
                Consequence::Drop,
                first.span,
                format!("`{}` is no entry of a group", first.text),
            )
            .expected("an address, a range, a net or `fwmark N`"),
        );
        return None;
    };
    let port = match rest.first() {
        None => None,
        Some(word) => match word.text.parse::<u16>() {
            Ok(port) => (port != 0).then_some(port),
            Err(_) => {
                cx.push(
                    Diagnostic::new(
                        Code::VsAddressInvalid,
                        Consequence::Drop,
                        word.span,
                        format!("`{}` is not a port", word.text),
                    )
                    .expected("1 to 65535"),
                );
                return None;
            }
        },
    };
    Some(GroupEntry::Range {
        first: from,
        last: to,
        port,
    })
}

/// First and last address.
fn range(text: &str) -> Option<(IpAddr, IpAddr)> {
    if let Some((first, last)) = text.split_once('-') {
        let first: IpAddr = first.parse().ok()?;
        if let Ok(last) = last.parse::<IpAddr>() {
            return (Family::of(first) == Family::of(last) && last >= first)
                .then_some((first, last));
        }
        let last = match first {
            IpAddr::V4(address) => {
                let [a, b, c, d] = address.octets();
                let end: u8 = last.parse().ok()?;
                (end > d).then(|| IpAddr::from([a, b, c, end]))?
            }
            IpAddr::V6(address) => {
                let mut groups = address.segments();
                let end = u16::from_str_radix(last, 16).ok()?;
                if end <= groups[7] {
                    return None;
                }
                groups[7] = end;
                IpAddr::from(groups)
            }
        };
        return Some((first, last));
    }
    let prefix = crate::lower::route::prefix(text)?;
    let (first, last) = match prefix.address {
        IpAddr::V4(address) => {
            let bits = u32::from(address);
            let host = u32::MAX.checked_shr(u32::from(prefix.len)).unwrap_or(0);
            (bits & host == 0 || prefix.len == 32)
                .then(|| (address.into(), Ipv4Addr::from(bits | host).into()))?
        }
        IpAddr::V6(address) => {
            let bits = u128::from(address);
            let host = u128::MAX.checked_shr(u32::from(prefix.len)).unwrap_or(0);
            (bits & host == 0 || prefix.len == 128)
                .then(|| (address.into(), std::net::Ipv6Addr::from(bits | host).into()))?
        }
    };
    (prefix.len > 0).then_some((first, last))
}

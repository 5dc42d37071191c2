//! Address lines of `virtual_ipaddress`, `virtual_ipaddress_excluded` and `static_ipaddress`.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::Context;
use crate::diag::{Code, Consequence, Diagnostic};
use crate::lex::Word;
use crate::model::{AddressFlags, Family, Lifetime, TrackGroup, VirtualAddress};
use crate::tree::ValueLine;

/// Whose addresses they are.
pub(super) enum Place<'a> {
    /// An instance's.
    Instance,
    /// The daemon's; they may follow one of the groups defined so far.
    Static(&'a [TrackGroup]),
}

/// Reads one line; `None` means that it is dropped.
pub(super) fn read(
    cx: &mut Context,
    line: &ValueLine,
    place: &Place<'_>,
) -> Option<VirtualAddress> {
    let (first, options) = line.words.split_first()?;
    let (text, prefix) = match first.text.split_once('/') {
        Some((text, prefix)) => (text, Some(prefix)),
        None => (first.text.as_str(), None),
    };
    let parsed = text.parse::<IpAddr>();
    let full = if text.contains(':') { 128 } else { 32 };
    let prefix_len = prefix.map_or(full, |prefix| prefix_length(cx, first, prefix, full));
    let Ok(address) = parsed else {
        cx.bad_address(first, Code::VipAddressInvalid, Consequence::Drop);
        return None;
    };
    let mut vip = VirtualAddress {
        address,
        prefix_len,
        interface: None,
        label: None,
        scope: None,
        broadcast: None,
        peer: None,
        no_track: false,
        flags: AddressFlags::default(),
        preferred_lifetime: None,
        use_vmac: false,
        track_group: None,
    };
    let mut broadcast = None;
    let mut words = options.iter();
    while let Some(word) = words.next() {
        match word.text.as_str() {
            "dev" => {
                let value = value(cx, word, words.next())?;
                if vip.interface.is_some() {
                    dropped(cx, word, "`dev` is given twice");
                    return None;
                }
                vip.interface = Some(cx.interface(value)?);
            }
            "scope" => {
                let value = value(cx, word, words.next())?;
                if address.is_ipv6() {
                    ignored(cx, word, "`scope` has no meaning for IPv6");
                } else {
                    vip.scope = Some(value.text.to_string());
                }
            }
            "brd" | "broadcast" => broadcast = Some(value(cx, word, words.next())?),
            "label" => {
                let value = value(cx, word, words.next())?;
                if value.text.len() > 15 {
                    dropped(cx, value, "a label has at most 15 bytes");
                    return None;
                }
                if address.is_ipv6() {
                    ignored(cx, word, "`label` has no meaning for IPv6");
                } else {
                    vip.label = Some(value.text.to_string());
                }
            }
            "peer" => {
                let value = value(cx, word, words.next())?;
                let (text, len) = value.text.split_once('/').unwrap_or((&value.text, ""));
                match text.parse::<IpAddr>() {
                    Ok(_) if vip.peer.is_some() => {
                        ignored(cx, word, "a second peer is ignored");
                    }
                    Ok(peer) if Family::of(peer) == Family::of(address) && len.is_empty() => {
                        if prefix.is_some() {
                            cx.report(
                                Code::PrefixWithPeer,
                                Consequence::Adjust,
                                first.span,
                                "the prefix length of the address is ignored, there is a peer",
                            );
                        }
                        vip.prefix_len = full;
                        vip.peer = Some(peer);
                    }
                    _ => {
                        cx.push(
                            Diagnostic::new(
                                Code::PeerAddressInvalid,
                                Consequence::Drop,
                                value.span,
                                format!("`{}` cannot be a peer of `{address}`", value.text),
                            )
                            .expected("an address of the same family without prefix length")
                            .also(Code::VipAddressInvalid),
                        );
                        return None;
                    }
                }
            }
            "no_track" => vip.no_track = true,
            "home" => vip.flags.home = true,
            "-nodad" => vip.flags.detect_duplicates = true,
            "mngtmpaddr" => vip.flags.manage_temporary = true,
            "noprefixroute" => vip.flags.no_prefix_route = true,
            "autojoin" => vip.flags.auto_join = true,
            "use_vmac" if matches!(place, Place::Instance) => vip.use_vmac = true,
            "preferred_lft" => {
                let value = value(cx, word, words.next())?;
                vip.preferred_lifetime = if value.text.as_str() == "forever" {
                    Some(Lifetime::Forever)
                } else {
                    let seconds = cx.uint("preferred_lft", value, 0..=u64::from(u32::MAX));
                    seconds.map(|s| Lifetime::Limited(Duration::from_secs(s)))
                };
            }
            "track_group" if let Place::Static(groups) = place => {
                let value = value(cx, word, words.next())?;
                track_group(cx, value, groups, &mut vip.track_group);
            }
            other => ignored(cx, word, &format!("unknown option `{other}` of an address")),
        }
    }
    if let Some(word) = broadcast {
        if vip.peer.is_some() {
            ignored(cx, word, "an address with a peer has no broadcast address");
        } else {
            vip.broadcast = broadcast_of(cx, &vip, word)?;
        }
    }
    Some(vip)
}

/// Takes over the name of a group that is defined already.
pub(super) fn track_group(
    cx: &mut Context,
    word: &Word,
    groups: &[TrackGroup],
    slot: &mut Option<String>,
) {
    let known = groups.iter().any(|group| group.name == word.text.as_str());
    if slot.is_some() || !known {
        let why = if known {
            "a second track_group is ignored".to_owned()
        } else {
            format!(
                "track_group `{}` is not defined before this line",
                word.text
            )
        };
        cx.report(
            Code::TrackGroupUndefined,
            Consequence::Ignore,
            word.span,
            why,
        );
    } else {
        *slot = Some(word.text.to_string());
    }
}

fn prefix_length(cx: &mut Context, word: &Word, text: &str, full: u8) -> u8 {
    let number = text.parse::<u64>();
    if let Ok(len) = number
        && len <= u64::from(full)
    {
        return len as u8;
    }
    // Only the prefix length, if the word stands as it is in the file.
    let mut span = word.span;
    if (span.end - span.start) as usize == word.text.len() {
        span.start = span.end - text.len() as u32;
    }
    cx.push(
        Diagnostic::new(
            Code::PrefixLengthInvalid,
            Consequence::Adjust,
            span,
            format!("`{text}` is not a prefix length, {full} is used"),
        )
        .expected(format!("0 to {full}"))
        .also(if number.is_ok() {
            Code::NumberOutOfRange
        } else {
            Code::InvalidNumber
        }),
    );
    full
}

/// The outer `None` drops the line.
fn broadcast_of(cx: &mut Context, vip: &VirtualAddress, word: &Word) -> Option<Option<Ipv4Addr>> {
    let IpAddr::V4(address) = vip.address else {
        dropped(cx, word, "an IPv6 address has no broadcast address");
        return None;
    };
    if let "+" | "-" = word.text.as_str() {
        if vip.prefix_len > 30 {
            ignored(
                cx,
                word,
                "a prefix of more than 30 bits leaves no broadcast address",
            );
            return Some(None);
        }
        let host = u32::MAX >> vip.prefix_len;
        let bits = u32::from(address);
        let bits = if word.text == "+" {
            bits | host
        } else {
            bits & !host
        };
        return Some(Some(Ipv4Addr::from(bits)));
    }
    let Ok(broadcast) = word.text.parse() else {
        cx.bad_address(word, Code::VipAddressInvalid, Consequence::Drop);
        return None;
    };
    Some(Some(broadcast))
}

fn value<'a>(cx: &mut Context, option: &Word, value: Option<&'a Word>) -> Option<&'a Word> {
    if value.is_none() {
        dropped(
            cx,
            option,
            &format!("option `{}` without value", option.text),
        );
    }
    value
}

fn dropped(cx: &mut Context, word: &Word, why: &str) {
    cx.report(
        Code::VipAddressInvalid,
        Consequence::Drop,
        word.span,
        format!("{why}, the address is dropped"),
    );
}

fn ignored(cx: &mut Context, word: &Word, why: &str) {
    cx.report(
        Code::IpAddressOptionUnknown,
        Consequence::Ignore,
        word.span,
        why,
    );
}

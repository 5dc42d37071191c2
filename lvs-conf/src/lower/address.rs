//! Address lines of `virtual_ipaddress` and `virtual_ipaddress_excluded`.

use std::net::{IpAddr, Ipv4Addr};

use super::Context;
use crate::diag::{Code, Consequence, Diagnostic};
use crate::lex::Word;
use crate::model::{Family, VirtualAddress};
use crate::tree::ValueLine;

/// Reads one line; `None` means that it is dropped.
pub(super) fn read(cx: &mut Context, line: &ValueLine) -> Option<VirtualAddress> {
    let (first, options) = line.words.split_first()?;
    let (text, prefix) = match first.text.split_once('/') {
        Some((text, prefix)) => (text, Some(prefix)),
        None => (first.text.as_str(), None),
    };
    let Ok(address) = text.parse::<IpAddr>() else {
        cx.bad_address(first, Code::VipAddressInvalid, Consequence::Drop);
        return None;
    };
    let full = if address.is_ipv4() { 32 } else { 128 };
    let mut vip = VirtualAddress {
        address,
        prefix_len: prefix.map_or(full, |prefix| prefix_length(cx, first, prefix, full)),
        interface: None,
        label: None,
        scope: None,
        broadcast: None,
        peer: None,
        no_track: false,
        options: Vec::new(),
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
                            .expected("an address of the same family without prefix length"),
                        );
                        return None;
                    }
                }
            }
            "no_track" => vip.no_track = true,
            "home" | "-nodad" | "mngtmpaddr" | "noprefixroute" | "autojoin" | "use_vmac" => {
                vip.options.push(word.text.to_string());
            }
            "preferred_lft" => {
                let value = value(cx, word, words.next())?;
                vip.options.extend([word.text.to_string(), value.text.to_string()]);
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

fn prefix_length(cx: &mut Context, word: &Word, text: &str, full: u8) -> u8 {
    match text.parse::<u8>() {
        Ok(len) if len <= full => len,
        _ => {
            cx.push(
                Diagnostic::new(
                    Code::PrefixLengthInvalid,
                    Consequence::Adjust,
                    word.span,
                    format!("`{text}` is not a prefix length, {full} is used"),
                )
                .expected(format!("0 to {full}")),
            );
            full
        }
    }
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

//! Interfaces that an instance makes for itself: `use_vmac` and `use_ipvlan`.

use super::*;
use crate::lex::Word;
use crate::model::{IpvlanMode, MacAddress, Vmac, VmacKind};

/// A MAC address of which the last byte may be left to the virtual router id.
pub(super) struct WrittenMac {
    bytes: Vec<u8>,
}

impl WrittenMac {
    pub(super) fn with(&self, id: u8) -> MacAddress {
        let mut bytes = [id; 6];
        bytes[..self.bytes.len()].copy_from_slice(&self.bytes);
        MacAddress(bytes)
    }
}

/// The interface, and its MAC address as far as it is written.
pub(super) fn macvlan(cx: &mut Context, statement: &Statement) -> (Vmac, Option<WrittenMac>) {
    let mut vmac = Vmac {
        name: None,
        kind: VmacKind::Macvlan {
            mac: None,
            notify: false,
        },
        group: None,
    };
    let mut written = None;
    let mut words = statement.args.iter();
    let old = cx.dialect == Dialect::V2_2_7;
    let mut left = if old { 2 } else { usize::MAX };
    while let Some(word) = words.next() {
        if left == 0 {
            break;
        }
        left -= 1;
        match word.text.as_str() {
            "netlink_notify_msg" if !old => {
                vmac.kind = VmacKind::Macvlan {
                    mac: None,
                    notify: true,
                };
            }
            "name" if !old => {
                if let Some(word) = words.next() {
                    name(cx, word, &mut vmac);
                }
            }
            "group" if !old => vmac.group = group(cx, word, words.next()),
            text if text.contains(':') => written = mac(cx, word),
            _ => name(cx, word, &mut vmac),
        }
    }
    (vmac, written)
}

/// `None` means that the statement is ignored.
pub(super) fn ipvlan(cx: &mut Context, statement: &Statement) -> Vmac {
    let mut vmac = Vmac {
        name: None,
        kind: VmacKind::Ipvlan {
            address: None,
            mode: IpvlanMode::Bridge,
        },
        group: None,
    };
    let (mut address, mut mode) = (None, IpvlanMode::Bridge);
    let mut words = statement.args.iter();
    while let Some(word) = words.next() {
        match word.text.as_str() {
            "name" => {
                if let Some(word) = words.next() {
                    name(cx, word, &mut vmac);
                }
            }
            "group" => vmac.group = group(cx, word, words.next()),
            text => {
                if let Some(found) = IpvlanMode::from_word(text) {
                    mode = found;
                } else if let Some(prefix) = crate::lower::route::prefix(text) {
                    address = Some((prefix.address, prefix.len));
                } else {
                    name(cx, word, &mut vmac);
                }
            }
        }
    }
    vmac.kind = VmacKind::Ipvlan { address, mode };
    vmac
}

fn name(cx: &mut Context, word: &Word, vmac: &mut Vmac) {
    let text = word.text.as_str();
    let usable = (1..=15).contains(&text.len())
        && !matches!(text, "." | "..")
        && !text.contains(['/', ':', ' ', '\t']);
    if usable {
        vmac.name = Some(text.to_owned());
    } else {
        cx.report(
            Code::InterfaceNameTooLong,
            Consequence::Ignore,
            word.span,
            format!("`{text}` cannot be the name of an interface"),
        );
    }
}

fn group(cx: &mut Context, option: &Word, value: Option<&Word>) -> Option<u32> {
    match value {
        Some(value) => cx.small("group", value, 0..=u64::from(u32::MAX)),
        None => {
            cx.invalid(option.span, "`group` without number", "`group <UINT>`");
            None
        }
    }
}

fn mac(cx: &mut Context, word: &Word) -> Option<WrittenMac> {
    let bytes: Option<Vec<u8>> = word
        .text
        .split(':')
        .map(|part| {
            u8::from_str_radix(part, 16)
                .ok()
                .filter(|_| part.len() <= 2)
        })
        .collect();
    let standard = |bytes: &[u8]| matches!(bytes, [0, 0, 0x5e, 0, 1 | 2, ..]);
    let usable =
        bytes.filter(|bytes| matches!(bytes.len(), 5 | 6) && bytes[0] & 1 == 0 && !standard(bytes));
    if usable.is_none() {
        cx.invalid(
            word.span,
            format!("`{}` cannot be the MAC address", word.text),
            "five or six bytes of a unicast address outside 00:00:5e:00:01 and 02",
        );
    }
    usable.map(|bytes| WrittenMac { bytes })
}

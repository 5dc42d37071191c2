//! `auth_hmac`.

use super::*;
use crate::model::{AntiReplay, AuthHmac, HmacKey, HmacMode, HmacValue};

settings! { AuthHmac {
    "time_window" => time_window,
} }

pub(super) fn read(cx: &mut Context, block: &Statement) -> Option<AuthHmac> {
    let mut hmac = AuthHmac {
        keys: Vec::new(),
        active_key: 0,
        time_window: None,
        anti_replay: AntiReplay::DEFAULT,
        mode: HmacMode::DEFAULT,
    };
    for statement in block.statements() {
        match statement.spec.canonical() {
            "key" => {
                let key = key(cx, statement);
                if let Some(key) = key {
                    if hmac.keys.iter().any(|old| old.id == key.id) {
                        cx.report(
                            Code::DuplicateKeyword,
                            Consequence::Ignore,
                            statement.head(),
                            format!("key {} is given twice", key.id),
                        );
                    } else {
                        hmac.keys.push(key);
                    }
                }
            }
            "active_key" => cx.set(statement, &mut hmac.active_key),
            "anti_replay" => {
                hmac.anti_replay = cx
                    .word_arg(statement, AntiReplay::from_word, AntiReplay::ALL)
                    .unwrap_or(hmac.anti_replay);
            }
            "mode" => {
                hmac.mode = cx
                    .word_arg(statement, HmacMode::from_word, HmacMode::ALL)
                    .unwrap_or(hmac.mode);
            }
            _ => {
                hmac.set(cx, statement);
            }
        }
    }
    if hmac.keys.iter().any(|key| key.id == hmac.active_key) {
        return Some(hmac);
    }
    cx.push(
        Diagnostic::new(
            Code::InvalidValue,
            Consequence::Drop,
            block.head(),
            "auth_hmac has no active key, it is dropped",
        )
        .expected("`active_key` with the number of a `key`"),
    );
    None
}

fn key(cx: &mut Context, statement: &Statement) -> Option<HmacKey> {
    let [id, value, ..] = &*statement.args else {
        return None;
    };
    let id = cx.small("key", id, 1..=255)?;
    if let Some(path) = value.text.strip_prefix("file:") {
        return Some(HmacKey {
            id,
            value: HmacValue::File(path.to_owned()),
        });
    }
    let bytes = match value.text.strip_prefix("hex:") {
        Some(hex) => crate::lower::scalar::hex(hex),
        None => Some(value.text.as_bytes().to_vec()),
    };
    match bytes.filter(|bytes| (32..=64).contains(&bytes.len())) {
        Some(bytes) => Some(HmacKey {
            id,
            value: HmacValue::Bytes(bytes),
        }),
        None => {
            cx.invalid(value.span, "this key cannot be used", "32 to 64 bytes");
            None
        }
    }
}

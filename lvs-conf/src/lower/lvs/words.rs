//! Values that are words: schedulers, forwarding methods with their tunnels, granularities.

use super::Context;
use crate::diag::{Code, Consequence, Diagnostic};
use crate::dialect::Dialect;
use crate::keywords::nearest;
use crate::lex::Word;
use crate::model::{Granularity, LvsMethod, Scheduler, Tunnel, TunnelChecksum};
use crate::tree::Statement;

pub(super) fn scheduler(cx: &mut Context, statement: &Statement) -> Option<Scheduler> {
    let word = statement.args.first()?;
    let scheduler = Scheduler::from_word(&word.text);
    if scheduler.is_none() {
        let names = || Scheduler::ALL.iter().map(|s| s.as_str());
        let mut diagnostic = Diagnostic::new(
            Code::UnknownScheduler,
            Consequence::Ignore,
            word.span,
            format!("unknown scheduler `{}`", word.text),
        )
        .expected(names().collect::<Vec<_>>().join(", "));
        if let Some(near) = nearest(&word.text.to_ascii_lowercase(), names()) {
            diagnostic = diagnostic.hint(format!("did you mean `{near}`?"));
        }
        cx.push(diagnostic);
    }
    scheduler
}

/// A method with its tunnel options. An unknown method leaves `before`, an option error only the tunnel's defaults.
pub(super) fn method(
    cx: &mut Context,
    statement: &Statement,
    before: Option<LvsMethod>,
) -> Option<LvsMethod> {
    let (first, options) = statement.args.split_first()?;
    match first.text.as_str() {
        "NAT" => Some(LvsMethod::Nat),
        "DR" => Some(LvsMethod::Dr),
        "TUN" => Some(LvsMethod::Tun(tunnel(cx, options).unwrap_or(Tunnel::Ipip))),
        "FNAT" if cx.dialect == Dialect::Newest => Some(LvsMethod::FullNat),
        other => {
            let upper = other.to_ascii_uppercase();
            let mut diagnostic = Diagnostic::new(
                Code::UnknownForwardingMethod,
                Consequence::Ignore,
                first.span,
                format!("unknown forwarding method `{other}`"),
            )
            .expected("`NAT`, `DR` or `TUN`");
            if ["NAT", "DR", "TUN"].contains(&upper.as_str()) {
                diagnostic = diagnostic.hint(format!("write it in capitals: `{upper}`"));
            }
            cx.push(diagnostic);
            before
        }
    }
}

fn tunnel(cx: &mut Context, options: &[Word]) -> Option<Tunnel> {
    let mut kind = "ipip";
    let mut port = None;
    let mut checksum = TunnelChecksum::None;
    let mut words = options.iter();
    while let Some(word) = words.next() {
        match word.text.as_str() {
            "type" => kind = words.next().map_or("", |w| w.text.as_str()),
            "port" => {
                port = words
                    .next()
                    .and_then(|w| w.text.parse::<u16>().ok())
                    .filter(|p| *p > 0)
                    .or(Some(0));
            }
            "nocsum" => checksum = TunnelChecksum::None,
            "csum" => checksum = TunnelChecksum::Full,
            "remcsum" => checksum = TunnelChecksum::Remote,
            other => {
                tunnel_error(cx, options, &format!("unknown tunnel option `{other}`"));
                return None;
            }
        }
    }
    match (kind, port, checksum) {
        ("ipip", None, TunnelChecksum::None) => Some(Tunnel::Ipip),
        ("gue", Some(port), checksum) if port > 0 => Some(Tunnel::Gue { port, checksum }),
        ("gre", None, checksum) if checksum != TunnelChecksum::Remote => {
            Some(Tunnel::Gre { checksum })
        }
        _ => {
            tunnel_error(cx, options, "these tunnel options do not go together");
            None
        }
    }
}

fn tunnel_error(cx: &mut Context, options: &[Word], why: &str) {
    if let (Some(first), Some(last)) = (options.first(), options.last()) {
        cx.push(
            Diagnostic::new(
                Code::InvalidValue,
                Consequence::Ignore,
                first.span.to(last.span),
                format!("{why}, they are ignored"),
            )
            .expected("`type ipip`, `type gue port N [csum|remcsum]` or `type gre [csum]`"),
        );
    }
}

pub(super) fn granularity(cx: &mut Context, statement: &Statement) -> Option<Granularity> {
    let word = statement.args.first()?;
    if word.text.contains('.') {
        if let Ok(mask) = word.text.parse() {
            return Some(Granularity::Mask(mask));
        }
    } else if let Ok(len @ 1..=128) = word.text.parse() {
        return Some(Granularity::Prefix(len));
    }
    cx.push(
        Diagnostic::new(
            Code::InvalidValue,
            Consequence::Ignore,
            word.span,
            format!("`{}` is not a granularity", word.text),
        )
        .expected("an IPv4 netmask or an IPv6 prefix length"),
    );
    None
}

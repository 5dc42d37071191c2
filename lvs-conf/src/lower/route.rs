//! Route lines of `virtual_routes` and `static_routes`.

use std::net::IpAddr;
use std::time::Duration;

use super::{Context, address};
use crate::diag::{Code, Consequence, Diagnostic};
use crate::dialect::Dialect;
use crate::lex::Word;
use crate::model::{
    Encap, EncapIp, Family, Id, Insertion, Locked, NextHop, Prefix, Route, RouteKind, RouteMetrics,
    RouteType, TrackGroup,
};
use crate::source::Span;
use crate::tree::ValueLine;

/// Reads one line; `None` means that it is dropped. Static routes may follow one of the groups defined so far.
pub(super) fn read(
    cx: &mut Context,
    line: &ValueLine,
    groups: Option<&[TrackGroup]>,
) -> Option<Route> {
    let mut draft = Draft {
        words: Words {
            words: &line.words,
            next: 0,
            what: "route",
            code: Code::RouteInvalid,
        },
        family: None,
        kind: RouteKind::Named(RouteType::Unicast),
        destination: None,
        route: empty(),
    };
    while let Some(word) = draft.words.next() {
        let known = draft.path(cx, word)?
            || draft.metric(cx, word)?
            || draft.keepalived(cx, word, groups)?;
        if !known {
            draft.destination(cx, word)?;
        }
    }
    draft.finish(cx, line)
}

fn empty() -> Route {
    Route {
        family: Family::Inet,
        kind: RouteKind::Named(RouteType::Unicast),
        destination: None,
        source: None,
        from: None,
        gateway: None,
        second_gateway: None,
        tos: None,
        table: None,
        protocol: None,
        scope: None,
        metric: None,
        interface: None,
        onlink: false,
        encap: None,
        expires: None,
        metrics: RouteMetrics::default(),
        realms: None,
        preference: None,
        ttl_propagate: None,
        insertion: Insertion::Prepend,
        next_hops: Vec::new(),
        no_track: false,
        track_group: None,
        vrf: None,
    }
}

/// The words of a line that are still to be read.
pub(super) struct Words<'a> {
    pub(super) words: &'a [Word],
    pub(super) next: usize,
    pub(super) what: &'static str,
    pub(super) code: Code,
}

impl<'a> Words<'a> {
    pub(super) fn next(&mut self) -> Option<&'a Word> {
        let word = self.words.get(self.next)?;
        self.next += 1;
        Some(word)
    }

    pub(super) fn peek(&self) -> Option<&'a Word> {
        self.words.get(self.next)
    }

    /// The argument of an option; without one the whole program stops.
    pub(super) fn value(&mut self, cx: &mut Context, option: &Word) -> Option<&'a Word> {
        let value = self.next();
        if value.is_none() {
            cx.report(
                Code::MissingArgument,
                Consequence::Fatal,
                option.span,
                format!("`{}` of a {} lacks its argument", option.text, self.what),
            );
        }
        value
    }

    /// Says why the line is dropped.
    pub(super) fn dropped<T>(&self, cx: &mut Context, word: &Word, why: &str) -> Option<T> {
        cx.report(
            self.code,
            Consequence::Drop,
            word.span,
            format!("{why}, the {} is dropped", self.what),
        );
        None
    }

    pub(super) fn ignored(&self, cx: &mut Context, word: &Word, why: &str) {
        cx.report(self.code, Consequence::Ignore, word.span, why);
    }

    /// Tracked entries have keepalived's own protocol; that one is not kept, it is the default.
    pub(super) fn settle_protocol(
        &self,
        cx: &mut Context,
        span: Span,
        protocol: &mut Option<Id>,
        no_track: bool,
    ) {
        let Some(given) = protocol.as_ref() else {
            return;
        };
        let is_own = *given == Id::Number(KEEPALIVED);
        if !is_own && !no_track {
            cx.push(
                Diagnostic::new(
                    Code::ProtocolReset,
                    Consequence::Adjust,
                    span,
                    format!(
                        "a tracked {} has keepalived's protocol, it is reset to 18",
                        self.what
                    ),
                )
                .hint("add `no_track` to keep the protocol"),
            );
        }
        if is_own || !no_track {
            *protocol = None;
        }
    }

    pub(super) fn number<T: TryFrom<u64>>(
        &mut self,
        cx: &mut Context,
        option: &Word,
        most: u64,
    ) -> Option<Option<T>> {
        let word = self.value(cx, option)?;
        match super::scalar::any_base(&word.text).filter(|value| *value <= most) {
            Some(value) => Some(T::try_from(value).ok()),
            None => {
                self.no_value(cx, option, word, format!("0 to {most}"));
                Some(None)
            }
        }
    }

    fn no_value(&self, cx: &mut Context, option: &Word, word: &Word, expected: String) {
        let message = format!("`{}` is no value of `{}`", word.text, option.text);
        cx.push(
            Diagnostic::new(self.code, Consequence::Ignore, word.span, message).expected(expected),
        );
    }

    /// A name of the system or a number.
    pub(super) fn id(&mut self, cx: &mut Context, option: &Word, most: u32) -> Option<Option<Id>> {
        let word = self.value(cx, option)?;
        let id = id(&word.text, most);
        if id.is_none() {
            self.no_value(cx, option, word, format!("a name or 0 to {most}"));
        }
        Some(id)
    }

    /// An interface.
    pub(super) fn interface(&mut self, cx: &mut Context, option: &Word) -> Option<String> {
        let word = self.value(cx, option)?;
        cx.interface(word)
    }

    /// An address with an optional prefix length, or a word for everywhere, which is `None`.
    pub(super) fn prefix(&mut self, cx: &mut Context, option: &Word) -> Option<Option<Prefix>> {
        let word = self.value(cx, option)?;
        if matches!(word.text.as_str(), "default" | "any" | "all") {
            return Some(None);
        }
        match prefix(&word.text) {
            Some(prefix) => Some(Some(prefix)),
            None => self.dropped(cx, word, &format!("`{}` is not a prefix", word.text)),
        }
    }
}

/// A number, or a name that does not look like one.
pub(super) fn id(text: &str, most: u32) -> Option<Id> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        let value = super::scalar::any_base(text)?;
        return (value <= u64::from(most))
            .then(|| Id::Number(u32::try_from(value).unwrap_or(most)));
    }
    let usable = !text.is_empty() && !text.starts_with(['-', '+']);
    usable.then(|| Id::Name(text.to_owned()))
}

/// An address with an optional prefix length.
pub(super) fn prefix(text: &str) -> Option<Prefix> {
    let (address, len) = match text.split_once('/') {
        Some((address, len)) => (address, Some(len)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let full = if address.is_ipv4() { 32 } else { 128 };
    let len = match len {
        Some(len) => len.parse().ok().filter(|len| *len <= full)?,
        None => full,
    };
    Some(Prefix { address, len })
}

/// Realms are one or two names or numbers.
pub(super) fn realms(text: &str) -> Option<String> {
    let mut parts = text.split('/');
    let usable =
        parts.by_ref().take(2).all(|part| id(part, 255).is_some()) && parts.next().is_none();
    usable.then(|| text.to_owned())
}

struct Draft<'a> {
    words: Words<'a>,
    family: Option<Family>,
    kind: RouteKind,
    destination: Option<Option<Prefix>>,
    route: Route,
}

impl Draft<'_> {
    /// The outer `None` drops the line.
    fn path(&mut self, cx: &mut Context, word: &Word) -> Option<bool> {
        match word.text.as_str() {
            name @ ("inet" | "inet6") => {
                let family = if name == "inet" {
                    Family::Inet
                } else {
                    Family::Inet6
                };
                self.takes(cx, family, word)?;
                if self.words.peek().is_some() {
                    skipped_word(cx, word);
                    if cx.dialect == Dialect::V2_2_7 {
                        self.words.next();
                    }
                }
            }
            "to" => {
                let destination = self.words.value(cx, word)?;
                self.destination(cx, destination)?;
            }
            "src" => {
                let address = self.address(cx, word)?;
                self.takes(cx, Family::of(address), word)?;
                self.route.source = Some(address);
            }
            "from" => {
                let from = self.words.prefix(cx, word)?;
                self.takes(cx, Family::Inet6, word)?;
                if from.is_some_and(|from| from.address.is_ipv4()) {
                    return self.words.dropped(cx, word, "`from` is for IPv6 only");
                }
                self.route.from = from;
            }
            "via" => self.route.gateway = Some(self.gateway(cx, word)?),
            "gw" => {
                deprecated(cx, word, "use `via`");
                self.route.gateway = Some(self.gateway(cx, word)?);
            }
            "or" => {
                deprecated(cx, word, "use `nexthop via`");
                let second = self.address(cx, word)?;
                self.takes(cx, Family::of(second), word)?;
                self.route.second_gateway = Some(second);
            }
            "dev" | "oif" => self.route.interface = Some(self.words.interface(cx, word)?),
            "onlink" => self.route.onlink = true,
            "nexthop" => {
                if self.route.second_gateway.is_some() {
                    self.words.ignored(cx, word, "`nexthop` after `or`");
                }
                self.next_hops(cx)?;
            }
            "encap" => self.route.encap = encap(cx, &mut self.words, word)?,
            "table" => match self.words.id(cx, word, u32::MAX)? {
                Some(table) => self.route.table = Some(table),
                None => return self.words.dropped(cx, word, "the table is not known"),
            },
            "tos" | "dsfield" => self.route.tos = self.words.id(cx, word, 255)?,
            "protocol" => self.route.protocol = self.words.id(cx, word, 255)?,
            "scope" => self.route.scope = self.words.id(cx, word, 255)?,
            "metric" | "priority" | "preference" => {
                self.route.metric = self.words.number(cx, word, u64::from(u32::MAX))?;
            }
            "expires" => {
                self.takes(cx, Family::Inet6, word)?;
                self.route.expires = self.words.number(cx, word, u64::from(u32::MAX))?;
            }
            "realms" => {
                self.takes(cx, Family::Inet, word)?;
                let value = self.words.value(cx, word)?;
                self.route.realms = realms(&value.text);
                if self.route.realms.is_none() {
                    self.words.ignored(cx, value, "these realms cannot be read");
                }
            }
            "pref" => {
                self.takes(cx, Family::Inet6, word)?;
                self.route.preference = self.words.id(cx, word, 255)?;
            }
            "ttl-propagate" => {
                let value = self.words.value(cx, word)?;
                match value.text.as_str() {
                    "enabled" => self.route.ttl_propagate = Some(true),
                    "disabled" => self.route.ttl_propagate = Some(false),
                    _ => self
                        .words
                        .ignored(cx, value, "neither `enabled` nor `disabled`"),
                }
            }
            "as" => {
                self.words.ignored(cx, word, "`as` is ignored");
                let next = self.words.next();
                if next.is_some_and(|next| next.text.as_str() == "to") {
                    self.words.next();
                }
            }
            _ => return Some(false),
        }
        Some(true)
    }

    fn metric(&mut self, cx: &mut Context, word: &Word) -> Option<bool> {
        let most = u64::from(u32::MAX);
        let (words, metrics) = (&mut self.words, &mut self.route.metrics);
        match word.text.as_str() {
            "mtu" => metrics.mtu = locked(cx, words, word)?,
            "advmss" => metrics.advmss = locked(cx, words, word)?,
            "reordering" => metrics.reordering = locked(cx, words, word)?,
            "cwnd" => metrics.cwnd = locked(cx, words, word)?,
            "ssthresh" => metrics.ssthresh = locked(cx, words, word)?,
            "hoplimit" => metrics.hoplimit = words.number(cx, word, 255)?,
            "rtt" => metrics.rtt = locked_time(cx, words, word, 125)?,
            "rttvar" => metrics.rttvar = locked_time(cx, words, word, 250)?,
            "rto_min" => metrics.rto_min = locked_time(cx, words, word, 1_000)?,
            "window" => metrics.window = words.number(cx, word, most)?,
            "initcwnd" => metrics.initcwnd = words.number(cx, word, most)?,
            "initrwnd" => metrics.initrwnd = words.number(cx, word, most)?,
            "features" => {
                let value = words.value(cx, word)?;
                if value.text.as_str() == "ecn" {
                    metrics.ecn = true;
                } else {
                    words.ignored(cx, value, "the only feature is `ecn`");
                }
            }
            "quickack" => {
                metrics.quickack = words.number::<u8>(cx, word, 1)?.map(|value| value == 1);
            }
            "fastopen_no_cookie" => {
                metrics.fastopen_no_cookie =
                    words.number::<u8>(cx, word, 1)?.map(|value| value == 1);
            }
            "congctl" => {
                let lock = lock(words);
                let value = words.value(cx, word)?;
                metrics.congctl = Some(Locked {
                    value: value.text.to_string(),
                    lock,
                });
            }
            _ => return Some(false),
        }
        Some(true)
    }

    fn keepalived(
        &mut self,
        cx: &mut Context,
        word: &Word,
        groups: Option<&[TrackGroup]>,
    ) -> Option<bool> {
        match word.text.as_str() {
            "add" => self.route.insertion = Insertion::Add,
            "append" => self.route.insertion = Insertion::Append,
            "prepend" => self.route.insertion = Insertion::Prepend,
            "no_track" => self.route.no_track = true,
            "track_group" if let Some(groups) = groups => {
                let value = self.words.value(cx, word)?;
                address::track_group(cx, value, groups, &mut self.route.track_group);
            }
            "vrf" => self.route.vrf = Some(self.words.interface(cx, word)?),
            _ => return Some(false),
        }
        Some(true)
    }

    /// `[TYPE] DEST`.
    fn destination(&mut self, cx: &mut Context, word: &Word) -> Option<()> {
        let mut word = word;
        let kind = match word.text.as_str() {
            "brd" => Some(RouteKind::Named(RouteType::Broadcast)),
            text => RouteType::from_word(text)
                .map(RouteKind::Named)
                .or_else(|| text.parse().ok().map(RouteKind::Number)),
        };
        if let Some(kind) = kind {
            self.kind = kind;
            word = self.words.value(cx, word)?;
        }
        self.destination = Some(match word.text.as_str() {
            "default" | "any" | "all" => None,
            "default6" => {
                self.takes(cx, Family::Inet6, word)?;
                None
            }
            text => match prefix(text) {
                Some(prefix) => {
                    self.takes(cx, Family::of(prefix.address), word)?;
                    Some(prefix)
                }
                None => {
                    let why = format!("`{}` is no option and no destination", word.text);
                    return self.words.dropped(cx, word, &why);
                }
            },
        });
        Some(())
    }

    fn gateway(&mut self, cx: &mut Context, option: &Word) -> Option<IpAddr> {
        let family = match self.words.peek().map(|word| word.text.as_str()) {
            Some("inet") => Some(Family::Inet),
            Some("inet6") => Some(Family::Inet6),
            _ => None,
        };
        self.words.next += usize::from(family.is_some());
        let gateway = self.address(cx, option)?;
        self.takes(cx, family.unwrap_or_else(|| Family::of(gateway)), option)?;
        Some(gateway)
    }

    fn address(&mut self, cx: &mut Context, option: &Word) -> Option<IpAddr> {
        let word = self.words.value(cx, option)?;
        match word.text.parse() {
            Ok(address) => Some(address),
            Err(_) => self
                .words
                .dropped(cx, word, &format!("`{}` is not an address", word.text)),
        }
    }

    fn takes(&mut self, cx: &mut Context, family: Family, word: &Word) -> Option<()> {
        if *self.family.get_or_insert(family) == family {
            return Some(());
        }
        self.words.dropped(cx, word, "IPv4 and IPv6 are mixed")
    }

    fn next_hops(&mut self, cx: &mut Context) -> Option<()> {
        let mut hop = no_hop();
        while let Some(word) = self.words.next() {
            match word.text.as_str() {
                "nexthop" => self
                    .route
                    .next_hops
                    .push(std::mem::replace(&mut hop, no_hop())),
                "via" => hop.gateway = Some(self.gateway(cx, word)?),
                "dev" => hop.interface = Some(self.words.interface(cx, word)?),
                "weight" => {
                    let value = self.words.value(cx, word)?;
                    match value.text.parse() {
                        Ok(weight @ 1..=256) => hop.weight = weight,
                        _ => self.words.ignored(cx, value, "a weight is 1 to 256"),
                    }
                }
                "onlink" => hop.onlink = true,
                "encap" => hop.encap = encap(cx, &mut self.words, word)?,
                "realms" => {
                    let value = self.words.value(cx, word)?;
                    hop.realms = realms(&value.text);
                }
                other => {
                    let why = format!("`{other}` is no option of a next hop, the rest is lost");
                    self.words.ignored(cx, word, &why);
                    self.words.next = self.words.words.len();
                }
            }
        }
        self.route.next_hops.push(hop);
        Some(())
    }

    fn finish(self, cx: &mut Context, line: &ValueLine) -> Option<Route> {
        let first = line.words.first()?;
        let span = line.span()?;
        let Some(destination) = self.destination else {
            return self.words.dropped(cx, first, "there is no destination");
        };
        let mut route = self.route;
        route.family = self.family.unwrap_or(Family::Inet);
        route.kind = self.kind;
        route.destination = destination;
        self.words
            .settle_protocol(cx, span, &mut route.protocol, route.no_track);
        if route.track_group.is_some() && route.interface.is_none() {
            self.words.ignored(cx, first, "`track_group` needs `dev`");
            route.track_group = None;
        }
        if cx.dialect == Dialect::V2_2_7 && route.interface.is_none() && !route.no_track {
            cx.report(
                Code::RouteUntracked,
                Consequence::Adjust,
                span,
                "a route without interface cannot be tracked",
            );
            route.no_track = true;
        }
        Some(route)
    }
}

fn no_hop() -> NextHop {
    NextHop {
        gateway: None,
        interface: None,
        weight: 1,
        onlink: false,
        encap: None,
        realms: None,
    }
}

/// A slip of the original reader.
pub(super) fn skipped_word(cx: &mut Context, word: &Word) {
    cx.push(
        Diagnostic::new(
            Code::InvalidValue,
            Consequence::Log,
            word.span,
            format!("keepalived skips the word after `{}`", word.text),
        )
        .hint("leave it out, the addresses tell the family"),
    );
}

fn deprecated(cx: &mut Context, word: &Word, instead: &str) {
    cx.push(
        Diagnostic::new(
            Code::Deprecated,
            Consequence::Warn,
            word.span,
            format!("`{}` is deprecated", word.text),
        )
        .hint(instead),
    );
}

fn lock(words: &mut Words<'_>) -> bool {
    let lock = words
        .peek()
        .is_some_and(|word| word.text.as_str() == "lock");
    words.next += usize::from(lock);
    lock
}

fn locked(cx: &mut Context, words: &mut Words<'_>, option: &Word) -> Option<Option<Locked<u32>>> {
    let lock = lock(words);
    let value = words.number(cx, option, u64::from(u32::MAX))?;
    Some(value.map(|value| Locked { value, lock }))
}

/// A time with a unit, or a number of the kernel's unit, which is so many microseconds.
fn locked_time(
    cx: &mut Context,
    words: &mut Words<'_>,
    option: &Word,
    unit: u64,
) -> Option<Option<Locked<Duration>>> {
    let lock = lock(words);
    let word = words.value(cx, option)?;
    if let Ok(raw) = word.text.parse::<u32>() {
        let value = Duration::from_micros(u64::from(raw) * unit);
        return Some(Some(Locked { value, lock }));
    }
    let end = word
        .text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(word.text.len());
    let (number, suffix) = word.text.split_at(end);
    let per = match suffix.to_ascii_lowercase().as_str() {
        "s" | "sec" | "secs" => 1_000,
        "ms" | "msec" | "msecs" => 1,
        _ => 0,
    };
    let Some(value) = super::scalar::seconds(number).filter(|_| per > 0) else {
        words.ignored(cx, word, &format!("`{}` is no time", word.text));
        return Some(None);
    };
    let value = value * per / 1_000;
    let used = value.clamp(SHORTEST, LONGEST);
    if used != value {
        words.ignored(
            cx,
            word,
            "a time lies between 200 ms and 120 s, the nearest one is used",
        );
    }
    Some(Some(Locked { value: used, lock }))
}

fn encap(cx: &mut Context, words: &mut Words<'_>, option: &Word) -> Option<Option<Encap>> {
    let kind = words.value(cx, option)?;
    match kind.text.as_str() {
        "mpls" => {
            let value = words.value(cx, kind)?;
            let labels: Option<Vec<u32>> = value
                .text
                .split('/')
                .map(|label| label.parse().ok().filter(|label| *label < 1 << 20))
                .collect();
            if labels.is_none() {
                words.ignored(cx, value, "labels are numbers below 1048576");
            }
            Some(labels.map(Encap::Mpls))
        }
        "ila" => Some(Some(Encap::Ila(words.value(cx, kind)?.text.to_string()))),
        name @ ("ip" | "ip6") => {
            let mut encap = EncapIp::default();
            while let Some(word) = words.peek() {
                match word.text.as_str() {
                    "id" => {
                        words.next();
                        encap.id = words.number(cx, word, u64::MAX)?;
                    }
                    side @ ("dst" | "src") => {
                        words.next();
                        let value = words.value(cx, word)?;
                        let address = value.text.parse::<IpAddr>().ok();
                        if address.is_none() {
                            words.ignored(
                                cx,
                                value,
                                &format!("`{}` is not an address", value.text),
                            );
                        }
                        if side == "dst" {
                            encap.destination = address;
                        } else {
                            encap.source = address;
                        }
                    }
                    "tos" | "tc" => {
                        words.next();
                        encap.tos = words.id(cx, word, 255)?;
                    }
                    "ttl" | "hoplimit" => {
                        words.next();
                        encap.ttl = words.number(cx, word, 255)?;
                    }
                    "flags" => {
                        words.next();
                        encap.flags = words.number(cx, word, 65_535)?;
                    }
                    _ => break,
                }
            }
            if encap.id.is_none() && encap.destination.is_none() {
                words.ignored(cx, kind, "an encapsulation needs `dst` or `id`");
                return Some(None);
            }
            Some(Some(if name == "ip" {
                Encap::Ip(encap)
            } else {
                Encap::Ip6(encap)
            }))
        }
        other => {
            words.ignored(cx, kind, &format!("unknown encapsulation `{other}`"));
            Some(None)
        }
    }
}

/// Protocol number of routes and rules that keepalived made.
const KEEPALIVED: u32 = 18;
const SHORTEST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(120);

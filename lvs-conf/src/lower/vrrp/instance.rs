//! One `vrrp_instance`: what was written, then what becomes of it.

use super::*;

mod checks;

pub(super) fn read(
    cx: &mut Context,
    block: &Statement,
    names: &Names,
    global: &GlobalDefs,
) -> Option<VrrpInstance> {
    let name = block.args.first()?;
    let defaults = &global.vrrp;
    let mut draft = Draft {
        head: block.head(),
        state: None,
        priority: None,
        vrid: None,
        version: None,
        family: None,
        accept: None,
        nopreempt: None,
        preempt_delay: None,
        auth_kind: None,
        unicast: None,
        advert_int: None,
        no_vip: false,
        instance: VrrpInstance {
            name: name.text.to_string(),
            state: InitialState::Backup,
            interface: None,
            virtual_router_id: 0,
            priority: 100,
            advert_interval: Duration::from_secs(1),
            version: defaults.version,
            family: Family::Inet,
            preempt: true,
            preempt_delay: Duration::ZERO,
            accept: true,
            strict: defaults.strict,
            authentication: None,
            source: None,
            group: None,
            unicast_peers: Vec::new(),
            unicast_ttl: None,
            unicast_fault_no_peer: false,
            check_unicast_src: defaults.check_unicast_src,
            skip_check_adv_addr: defaults.skip_check_adv_addr,
            track_src_ip: false,
            dont_track_primary: false,
            down_timer_adverts: defaults.down_timer_adverts,
            lower_prio_no_advert: defaults.lower_prio_no_advert,
            higher_prio_send_advert: defaults.higher_prio_send_advert,
            garp: defaults.garp,
            virtual_addresses: Vec::new(),
            excluded_addresses: Vec::new(),
            routes: Vec::new(),
            rules: Vec::new(),
            track: Tracking::default(),
            notify: Notify::default(),
            smtp_alert: vrrp_alert(global),
        },
    };
    for statement in block.statements() {
        let known = draft.identity(cx, statement)
            || draft.behaviour(cx, statement)
            || draft.addresses(cx, statement)
            || global::garp(
                cx,
                statement,
                statement.spec.canonical(),
                &mut draft.instance.garp,
            )
            || track::read(cx, statement, names, &mut draft.instance.track)
            || track::notify(cx, statement, &mut draft.instance.notify);
        if !known {
            cx.not_acted_on(statement);
        }
    }
    draft.finish(cx)
}

/// What the block says, with the places that later complaints are about.
struct Draft {
    head: Span,
    state: Option<(InitialState, Span)>,
    priority: Option<u8>,
    vrid: Option<u8>,
    version: Option<u8>,
    family: Option<Family>,
    accept: Option<bool>,
    nopreempt: Option<Span>,
    preempt_delay: Option<(Duration, Span)>,
    auth_kind: Option<(AuthenticationKind, Span)>,
    /// First unicast keyword.
    unicast: Option<Span>,
    advert_int: Option<Span>,
    no_vip: bool,
    instance: VrrpInstance,
}

impl Draft {
    fn identity(&mut self, cx: &mut Context, statement: &Statement) -> bool {
        let span = statement.head();
        match statement.spec.canonical() {
            "state" => self.read_state(cx, statement),
            "interface" => {
                if let Some(name) = cx.interface_arg(statement) {
                    self.instance.interface = Some(name);
                }
            }
            "virtual_router_id" => {
                let id = ranged(
                    cx,
                    statement,
                    Code::VirtualRouterIdOutOfRange,
                    Consequence::Ignore,
                );
                self.vrid = id.or(self.vrid);
            }
            "priority" => {
                self.priority = Some(
                    ranged(cx, statement, Code::PriorityOutOfRange, Consequence::Adjust)
                        .unwrap_or(100),
                );
            }
            "advert_int" => {
                if let Some(interval) = cx.timer_arg(statement, 6, 10_000..=255_000_000) {
                    self.instance.advert_interval = interval;
                    self.advert_int = Some(span);
                }
            }
            "version" => {
                if let Some(version) = cx.u8_arg(statement, 2..=3) {
                    if version == 2 && self.family == Some(Family::Inet6)
                        || self.version.is_some_and(|v| v != version)
                    {
                        cx.report(
                            Code::InvalidValue,
                            Consequence::Ignore,
                            span,
                            format!("version {version} conflicts with what was given before"),
                        );
                    } else {
                        self.version = Some(version);
                    }
                }
            }
            "native_ipv6" => {
                if self.takes_family(cx, Family::Inet6, span) {
                    self.version = Some(3);
                }
            }
            "authentication" => self.authentication(cx, statement),
            _ => return false,
        }
        true
    }

    fn read_state(&mut self, cx: &mut Context, statement: &Statement) {
        let Some(word) = statement.args.first() else {
            return;
        };
        let state = match word.text.as_str() {
            "MASTER" => InitialState::Master,
            "BACKUP" => InitialState::Backup,
            other => {
                let mut diagnostic = Diagnostic::new(
                    Code::UnknownState,
                    Consequence::Adjust,
                    word.span,
                    format!("unknown state `{other}`, BACKUP is used"),
                )
                .expected("`MASTER` or `BACKUP`");
                if let Some(near) = crate::keywords::nearest(
                    &other.to_uppercase(),
                    ["MASTER", "BACKUP"].into_iter(),
                ) {
                    diagnostic = diagnostic.hint(format!("did you mean `{near}`?"));
                }
                cx.push(diagnostic);
                InitialState::Backup
            }
        };
        if let (Some((InitialState::Master, first)), InitialState::Backup) = (self.state, state) {
            cx.push(
                Diagnostic::new(
                    Code::InvalidValue,
                    Consequence::Ignore,
                    word.span,
                    "state BACKUP after state MASTER is ignored",
                )
                .note(first, "first given here"),
            );
            return;
        }
        self.state = Some((state, statement.head()));
    }

    fn authentication(&mut self, cx: &mut Context, block: &Statement) {
        for statement in block.statements() {
            let Some(word) = statement.args.first() else {
                continue;
            };
            if statement.spec.name == "auth_type" {
                self.auth_kind = match word.text.as_str() {
                    "PASS" => Some((AuthenticationKind::Pass, statement.head())),
                    "AH" => Some((AuthenticationKind::Ah, statement.head())),
                    other => {
                        cx.push(
                            Diagnostic::new(
                                Code::UnknownAuthType,
                                Consequence::Ignore,
                                word.span,
                                format!("unknown authentication type `{other}`"),
                            )
                            .expected("`PASS` or `AH`"),
                        );
                        None
                    }
                };
            } else {
                let mut password = word.text.to_string().into_bytes();
                if password.len() > 8 {
                    cx.push(
                        Diagnostic::new(
                            Code::AuthPassTruncated,
                            Consequence::Adjust,
                            word.span,
                            "password is cut to its first 8 bytes",
                        )
                        .expected("at most 8 bytes"),
                    );
                    password.truncate(8);
                }
                self.instance.authentication = Some(Authentication {
                    kind: AuthenticationKind::Pass,
                    password,
                });
            }
        }
    }

    fn behaviour(&mut self, cx: &mut Context, statement: &Statement) -> bool {
        let span = statement.head();
        let instance = &mut self.instance;
        match statement.spec.canonical() {
            "nopreempt" => self.nopreempt = Some(span),
            "preempt" => self.nopreempt = None,
            "preempt_delay" => {
                let delay = cx
                    .timer_arg(statement, 6, 0..=1_000_000_000)
                    .unwrap_or_default();
                self.preempt_delay = (!delay.is_zero()).then_some((delay, span));
            }
            "accept" => self.accept = Some(true),
            "no_accept" => self.accept = Some(false),
            // Any valid word switches it on, even a false one.
            "skip_check_adv_addr" => {
                instance.skip_check_adv_addr |= cx.bool_arg(statement).is_some();
            }
            "strict_mode" => instance.strict = cx.bool_arg(statement).unwrap_or(instance.strict),
            "down_timer_adverts" => {
                instance.down_timer_adverts = cx
                    .u8_arg(statement, 1..=100)
                    .unwrap_or(instance.down_timer_adverts);
            }
            "lower_prio_no_advert" => {
                instance.lower_prio_no_advert = cx
                    .bool_arg(statement)
                    .unwrap_or(instance.lower_prio_no_advert);
            }
            "higher_prio_send_advert" => {
                instance.higher_prio_send_advert = cx
                    .bool_arg(statement)
                    .unwrap_or(instance.higher_prio_send_advert);
            }
            "dont_track_primary" => instance.dont_track_primary = true,
            "track_src_ip" => instance.track_src_ip = true,
            "check_unicast_src" => instance.check_unicast_src = true,
            "smtp_alert" => {
                instance.smtp_alert = cx.bool_arg(statement).unwrap_or(instance.smtp_alert);
            }
            "no_virtual_ipaddress" => self.no_vip = true,
            "debug" => {
                cx.u8_arg(statement, 0..=4);
            }
            _ => return false,
        }
        true
    }

    fn addresses(&mut self, cx: &mut Context, statement: &Statement) -> bool {
        let span = statement.head();
        match statement.spec.canonical() {
            name @ ("mcast_src_ip" | "unicast_src_ip") => {
                if name == "unicast_src_ip" {
                    self.unicast.get_or_insert(span);
                }
                if let Some(source) = cx.address_arg(statement, Code::SourceAddressInvalid)
                    && self.takes_family(cx, Family::of(source), span)
                {
                    self.instance.source = Some(source);
                }
            }
            "mcast_dst_ip" => {
                let group = cx.address_arg(statement, Code::InvalidValue);
                if group.is_some_and(|group| !group.is_multicast()) {
                    cx.report(
                        Code::InvalidValue,
                        Consequence::Ignore,
                        span,
                        "`mcast_dst_ip` needs a multicast address",
                    );
                } else if let Some(group) = group
                    && self.takes_family(cx, Family::of(group), span)
                {
                    self.instance.group = Some(group);
                }
            }
            "unicast_peer" => {
                self.unicast.get_or_insert(span);
                for line in statement.values() {
                    self.peer(cx, line);
                }
            }
            "unicast_ttl" => {
                self.instance.unicast_ttl =
                    cx.u8_arg(statement, 0..=255).or(self.instance.unicast_ttl);
            }
            "unicast_fault_no_peer" => self.instance.unicast_fault_no_peer = true,
            "virtual_ipaddress" => {
                for line in statement.values() {
                    if let Some(vip) = address::read(cx, line)
                        && self.takes_family(cx, Family::of(vip.address), line.words[0].span)
                    {
                        push_vip(cx, &mut self.instance.virtual_addresses, vip, line);
                    }
                }
            }
            "virtual_ipaddress_excluded" => {
                for line in statement.values() {
                    if let Some(vip) = address::read(cx, line) {
                        push_vip(cx, &mut self.instance.excluded_addresses, vip, line);
                    }
                }
            }
            "virtual_routes" => self.instance.routes.extend(raw(statement)),
            "virtual_rules" => self.instance.rules.extend(raw(statement)),
            _ => return false,
        }
        true
    }

    fn peer(&mut self, cx: &mut Context, line: &ValueLine) {
        let Some((word, options)) = line.words.split_first() else {
            return;
        };
        let Some(address) = super::super::scalar::socket_address(&word.text) else {
            cx.bad_address(word, Code::UnicastPeerInvalid, Consequence::Drop);
            return;
        };
        if !self.takes_family(cx, Family::of(address), word.span) {
            return;
        }
        let mut peer = UnicastPeer {
            address,
            min_ttl: None,
            max_ttl: None,
        };
        for pair in options.chunks(2) {
            let value = match (pair[0].text.as_str(), pair.get(1)) {
                (name @ ("min_ttl" | "max_ttl"), Some(word)) => cx
                    .uint(name, word, 0..=255)
                    .and_then(|v| u8::try_from(v).ok()),
                (name, _) => {
                    cx.push(
                        Diagnostic::new(
                            Code::UnicastPeerInvalid,
                            Consequence::Ignore,
                            pair[0].span,
                            format!("`{name}` is not a complete option of a peer"),
                        )
                        .expected("`min_ttl N` or `max_ttl N`"),
                    );
                    break;
                }
            };
            if pair[0].text == "min_ttl" {
                peer.min_ttl = value;
            } else {
                peer.max_ttl = value;
            }
        }
        if self
            .instance
            .unicast_peers
            .iter()
            .any(|p| p.address == address)
        {
            cx.report(
                Code::UnicastPeerInvalid,
                Consequence::Drop,
                word.span,
                format!("peer `{address}` is listed twice"),
            );
        } else {
            self.instance.unicast_peers.push(peer);
        }
    }

    /// The first address decides the family, later ones of the other family are dropped.
    fn takes_family(&mut self, cx: &mut Context, family: Family, span: Span) -> bool {
        let first = *self.family.get_or_insert(family);
        if first != family {
            cx.report(
                Code::FamilyMismatch,
                Consequence::Drop,
                span,
                format!("{family} in an instance that is {first} by an earlier address"),
            );
        }
        first == family
    }
}

/// A number from 1 to 255 whose complaint has a kind of its own.
fn ranged(
    cx: &mut Context,
    statement: &Statement,
    code: Code,
    consequence: Consequence,
) -> Option<u8> {
    let word = statement.args.first()?;
    let value = word
        .text
        .strip_prefix('+')
        .unwrap_or(&word.text)
        .parse::<u8>()
        .ok()
        .filter(|v| *v > 0);
    if value.is_none() {
        let what = &statement.keyword.text;
        cx.push(
            Diagnostic::new(
                code,
                consequence,
                word.span,
                format!("`{}` cannot be the {what}", word.text),
            )
            .expected("1 to 255"),
        );
    }
    value
}

fn push_vip(
    cx: &mut Context,
    list: &mut Vec<VirtualAddress>,
    vip: VirtualAddress,
    line: &ValueLine,
) {
    if list
        .iter()
        .any(|old| old.address == vip.address && old.interface == vip.interface)
    {
        cx.report(
            Code::VipAddressInvalid,
            Consequence::Drop,
            line.words[0].span,
            format!("address `{}` is listed twice", vip.address),
        );
    } else {
        list.push(vip);
    }
}

fn raw(statement: &Statement) -> impl Iterator<Item = RawLine> {
    statement.values().iter().filter_map(|line| {
        Some(RawLine {
            words: line.words.iter().map(|w| w.text.to_string()).collect(),
            span: line.span()?,
        })
    })
}

//! One `vrrp_instance`: what was written, then what becomes of it.

use super::*;
use crate::keywords::preset::preset;
use crate::lower::scalar::number_hint;

use std::net::IpAddr;

mod checks;

settings! { VrrpInstance {
    "vrf" => vrf,
    "advert_int" => advert_interval,
    "strict_mode" => strict,
    "down_timer_adverts" => down_timer_adverts,
    "higher_prio_send_advert" => higher_prio_send_advert,
    "dont_track_primary" => dont_track_primary,
    "linkbeat_use_polling" => linkbeat_use_polling,
    "track_src_ip" => track_src_ip,
    "check_unicast_src" => check_unicast_src,
    "unicast_fault_no_peer" => unicast_fault_no_peer,
    "unicast_ttl" => unicast_ttl,
    "v3_checksum_as_v2" => v3_checksum_as_v2,
    "skip_check_adv_addr" => skip_check_adv_addr,
    "garp_master_delay" => garp.delay,
    "garp_master_repeat" => garp.repeat,
    "garp_master_refresh" => garp.refresh,
    "garp_master_refresh_repeat" => garp.refresh_repeat,
    "garp_lower_prio_delay" => garp.lower_prio_delay,
    "garp_lower_prio_repeat" => garp.lower_prio_repeat,
    "promote_secondaries" => promote_secondaries,
    "no_virtual_ipaddress" => no_virtual_address,
    "use_vmac_addr" => vmac_addr,
    "vmac_xmit_base" => vmac_xmit_base,
    "kernel_rx_buf_size" => kernel_rx_buf_size,
    "debug" => debug,
    "lvs_sync_daemon_interface" => lvs_sync_interface,
    "smtp_alert" => smtp_alert,
} }

/// Reads what a block says.
pub(super) fn read(
    cx: &mut Context,
    block: &Statement,
    at: usize,
    names: &Names,
    global: &GlobalDefs,
) -> Option<Draft> {
    let name = block.args.first()?;
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
        source_given: None,
        advert_int: None,
        lower_prio_no_advert: None,
        owner_ignore_adverts: None,
        timer_expired: None,
        mac: None,
        stayed_away: false,
        instance: VrrpInstance::with_defaults(&name.text, global),
    };
    for statement in block.statements() {
        let known = draft.identity(cx, statement)
            || draft.behaviour(cx, statement)
            || draft.addresses(cx, statement)
            || track::read(cx, statement, names, at, &mut draft.instance.track)
            || track::notify(cx, statement, &mut draft.instance.notify);
        if !known {
            draft.instance.set(cx, statement);
        }
    }
    Some(draft)
}

/// What a block says, with the places that later complaints are about.
pub(super) struct Draft {
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
    source_given: Option<Span>,
    advert_int: Option<Span>,
    lower_prio_no_advert: Option<bool>,
    owner_ignore_adverts: Option<bool>,
    timer_expired: Option<Span>,
    mac: Option<vmac::WrittenMac>,
    /// It was found that the instance cannot run.
    stayed_away: bool,
    instance: VrrpInstance,
}

impl Draft {
    pub(super) fn head(&self) -> Span {
        self.head
    }

    pub(super) fn name(&self) -> &str {
        &self.instance.name
    }

    /// Priority 255.
    pub(super) fn is_owner(&self) -> bool {
        let master = matches!(self.state, Some((InitialState::Master, _)));
        self.priority.map_or(master, |priority| priority == 255)
    }

    fn identity(&mut self, cx: &mut Context, statement: &Statement) -> bool {
        let span = statement.head();
        match statement.spec.canonical() {
            "state" => self.read_state(cx, statement),
            "interface" => match cx.interface_arg(statement) {
                Some(name) if name == "lo" => cx.invalid(
                    span,
                    "the loopback interface cannot carry advertisements",
                    "another interface",
                ),
                Some(name) => self.instance.interface = Some(name),
                None => {}
            },
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
                        .unwrap_or(VrrpInstance::DEFAULT_PRIORITY),
                );
            }
            "advert_int" => {
                self.advert_int = Some(span);
                self.instance.set(cx, statement);
            }
            "version" => {
                let mut version = None;
                cx.set(statement, &mut version);
                if let Some(version) = version {
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
            "auth_hmac" => self.instance.hmac = hmac::read(cx, statement),
            "use_vmac" => {
                let (vmac, mac) = vmac::macvlan(cx, statement);
                self.instance.vmac = Some(vmac);
                self.mac = mac;
            }
            "use_ipvlan" => self.ipvlan(cx, statement),
            _ => return false,
        }
        true
    }

    fn ipvlan(&mut self, cx: &mut Context, statement: &Statement) {
        if self.instance.vmac.is_some() {
            cx.given_before(statement);
            return;
        }
        let vmac = vmac::ipvlan(cx, statement);
        if let crate::model::VmacKind::Ipvlan {
            address: Some((address, _)),
            ..
        } = vmac.kind
        {
            if !self.takes_family(cx, Family::of(address), statement.head()) {
                return;
            }
            self.instance.source.get_or_insert(address);
        }
        self.instance.vmac = Some(vmac);
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
        match statement.spec.canonical() {
            "nopreempt" => self.nopreempt = Some(span),
            "preempt" => self.nopreempt = None,
            "preempt_delay" => {
                let delay = cx.duration(statement).unwrap_or_default();
                self.preempt_delay = (!delay.is_zero()).then_some((delay, span));
            }
            "accept" => self.accept = Some(true),
            "no_accept" => self.accept = Some(false),
            // Any valid word switches it on, even a false one.
            "skip_check_adv_addr" => {
                self.instance.skip_check_adv_addr |= cx.bool_arg(statement).is_some();
            }
            "lower_prio_no_advert" => {
                self.lower_prio_no_advert = cx.bool_arg(statement).or(self.lower_prio_no_advert);
            }
            "owner_ignore_adverts" => {
                self.owner_ignore_adverts = cx.bool_arg(statement).or(self.owner_ignore_adverts);
            }
            "old_unicast_checksum" => {
                self.instance.old_unicast_checksum = Some(match statement.args.first() {
                    Some(word) if word.text.as_str() == "never" => false,
                    Some(word) => {
                        cx.invalid(
                            word.span,
                            format!("unknown word `{}`", word.text),
                            "`never` or nothing",
                        );
                        return true;
                    }
                    None => true,
                });
            }
            "timer_expired_backup" | "thread_timer_expired" => {
                self.timer_expired = Some(span);
                let mut priority =
                    Some(preset!(bare_number as u8, Instance, "timer_expired_backup"));
                if !statement.args.is_empty() {
                    priority = None;
                    cx.set(statement, &mut priority);
                }
                self.instance.timer_expired_backup = priority;
            }
            "garp_extra_if" | "vmac_garp_intvl" => {
                global::garp_extra(cx, statement, &mut self.instance.garp_extra);
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
                self.source_given = Some(span);
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
                } else if let Some(IpAddr::V6(group)) = group
                    && group.octets()[1] & 0xf != LINK_LOCAL
                {
                    cx.push(
                        Diagnostic::new(
                            Code::InvalidValue,
                            Consequence::Ignore,
                            span,
                            "advertisements over IPv6 stay on the link, this group reaches further",
                        )
                        .expected("a group in ff02::/16")
                        .hint("`ff02::12` is the standard's"),
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
            "virtual_ipaddress" => {
                for line in statement.values() {
                    if let Some(vip) = address::read(cx, line, &address::Place::Instance)
                        && self.takes_family(cx, Family::of(vip.address), line.words[0].span)
                    {
                        self.push_vip(cx, vip, line, false);
                    }
                }
            }
            "virtual_ipaddress_excluded" => {
                for line in statement.values() {
                    if let Some(vip) = address::read(cx, line, &address::Place::Instance) {
                        self.push_vip(cx, vip, line, true);
                    }
                }
            }
            "virtual_routes" => {
                for line in statement.values() {
                    self.instance.routes.extend(route::read(cx, line, None));
                }
            }
            "virtual_rules" => {
                for line in statement.values() {
                    self.instance.rules.extend(rule::read(cx, line, None));
                }
            }
            _ => return false,
        }
        true
    }

    /// Newer releases take an address once on an interface, in whichever of the two lists it comes first.
    fn push_vip(
        &mut self,
        cx: &mut Context,
        vip: VirtualAddress,
        line: &ValueLine,
        excluded: bool,
    ) {
        let instance = &mut self.instance;
        let own = instance.interface.as_ref();
        let dev = vip.interface.as_ref().or(own);
        let same = |old: &VirtualAddress| {
            old.address == vip.address && old.interface.as_ref().or(own) == dev
        };
        let (list, other) = if excluded {
            (&instance.excluded_addresses, &instance.virtual_addresses)
        } else {
            (&instance.virtual_addresses, &instance.excluded_addresses)
        };
        let twice = list.iter().any(same);
        if (twice || other.iter().any(same)) && cx.dialect != Dialect::V2_2_7 {
            let what = if twice {
                "is listed twice"
            } else {
                "is both excluded and advertised, the second is left out"
            };
            cx.push(
                Diagnostic::new(
                    Code::VipAddressInvalid,
                    Consequence::Drop,
                    line.words[0].span,
                    format!("address `{}` {what}", vip.address),
                )
                .hint("remove one of the two lines"),
            );
        } else if excluded {
            instance.excluded_addresses.push(vip);
        } else {
            instance.virtual_addresses.push(vip);
        }
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
            if pair[0].text.as_str() == "min_ttl" {
                peer.min_ttl = value;
            } else {
                peer.max_ttl = value;
            }
        }
        if peer.min_ttl.is_some() && peer.max_ttl.is_some() && peer.min_ttl > peer.max_ttl {
            cx.report(
                Code::UnicastPeerInvalid,
                Consequence::Warn,
                word.span,
                "min_ttl exceeds max_ttl, nothing of this peer is accepted",
            );
        }
        let mut others = self.instance.unicast_peers.iter();
        if cx.dialect != Dialect::V2_2_7 && others.any(|other| other.address == address) {
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
    let digits = word.text.strip_prefix('+').unwrap_or(&word.text);
    let value = digits.parse::<u8>().ok().filter(|v| *v > 0);
    if value.is_none() {
        let number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let diagnostic = Diagnostic::new(
            code,
            consequence,
            word.span,
            format!("`{}` cannot be the {}", word.text, statement.keyword.text),
        )
        .expected("1 to 255");
        cx.push(if number {
            diagnostic.also(Code::NumberOutOfRange)
        } else {
            diagnostic
                .also(Code::InvalidNumber)
                .hint(number_hint(&word.text))
        });
    }
    value
}

/// Scope of an IPv6 group.
const LINK_LOCAL: u8 = 2;

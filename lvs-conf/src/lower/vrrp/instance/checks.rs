//! What becomes of an instance once all of it has been read.

use super::*;

impl Draft {
    pub(super) fn finish(mut self, cx: &mut Context) -> Option<VrrpInstance> {
        let head = self.head;
        let name = self.instance.name.clone();
        self.instance.family = self.family.unwrap_or(Family::Inet);
        if self.instance.family == Family::Inet6 {
            self.instance.version = 3;
        }
        self.instance.version = self.version.unwrap_or(self.instance.version);
        self.state_and_priority(cx);
        let mut refused = false;
        match self.vrid {
            Some(id) => self.instance.virtual_router_id = id,
            None => {
                cx.push(
                    Diagnostic::new(
                        Code::NoVirtualRouterId,
                        Consequence::Refuse,
                        head,
                        format!("instance `{name}` has no usable virtual_router_id"),
                    )
                    .expected("`virtual_router_id <1..255>`"),
                );
                refused = true;
            }
        }
        if self.instance.interface.is_none() && self.unicast.is_none() {
            cx.push(
                Diagnostic::new(
                    Code::NoInterface,
                    Consequence::Refuse,
                    head,
                    format!("instance `{name}` has no usable interface"),
                )
                .expected("`interface <IFNAME>`"),
            );
            refused = true;
        }
        self.unicast(cx);
        refused |= !self.has_vips(cx);
        self.preemption(cx);
        self.check_authentication(cx);
        self.interval(cx);
        self.strict(cx);
        let own = self.instance.interface.clone();
        if self
            .instance
            .track
            .interfaces
            .iter()
            .any(|t| Some(&t.name) == own.as_ref())
        {
            cx.report(
                Code::TrackOwnInterface,
                Consequence::Ignore,
                head,
                format!("instance `{name}` tracks its own interface, which it does anyway"),
            );
            self.instance
                .track
                .interfaces
                .retain(|t| Some(&t.name) != own.as_ref());
        }
        (!refused).then_some(self.instance)
    }

    fn state_and_priority(&mut self, cx: &mut Context) {
        let master = matches!(self.state, Some((InitialState::Master, _)));
        self.instance.priority = self.priority.unwrap_or(if master { 255 } else { 100 });
        let owner = self.instance.priority == 255;
        self.instance.state = match self.state {
            Some((state, _)) => state,
            None if owner => InitialState::Master,
            None => InitialState::Backup,
        };
        if let Some((state, span)) = self.state
            && self.instance.strict
            && (state == InitialState::Master) != owner
        {
            cx.report(
                Code::StrictStatePriority,
                Consequence::Adjust,
                span,
                "strict mode: MASTER and priority 255 go together, the state follows the priority",
            );
            self.instance.state = if owner {
                InitialState::Master
            } else {
                InitialState::Backup
            };
        }
    }

    fn unicast(&mut self, cx: &mut Context) {
        let instance = &mut self.instance;
        if instance.unicast_peers.is_empty() {
            if let Some(span) = self.unicast
                && !instance.unicast_fault_no_peer
            {
                cx.report(
                    Code::UnicastWithoutPeers,
                    Consequence::Adjust,
                    span,
                    "unicast without peers, multicast is used",
                );
            }
            if instance.unicast_ttl.take().is_some() {
                cx.report(
                    Code::UnicastWithoutPeers,
                    Consequence::Adjust,
                    self.head,
                    "`unicast_ttl` without peers",
                );
            }
        } else if instance.group.take().is_some() {
            cx.report(
                Code::InvalidValue,
                Consequence::Ignore,
                self.head,
                "`mcast_dst_ip` with unicast peers is ignored",
            );
        }
    }

    fn has_vips(&self, cx: &mut Context) -> bool {
        if !self.instance.virtual_addresses.is_empty() || self.no_vip {
            return true;
        }
        if self.instance.version == 3 || self.instance.strict {
            cx.report(
                Code::NoVipFatal,
                Consequence::Refuse,
                self.head,
                format!("instance `{}` has no address", self.instance.name),
            );
            false
        } else {
            cx.report(
                Code::NoVip,
                Consequence::Warn,
                self.head,
                format!("instance `{}` has no address", self.instance.name),
            );
            true
        }
    }

    fn preemption(&mut self, cx: &mut Context) {
        let master = self.instance.state == InitialState::Master;
        if let Some(span) = self.nopreempt
            && (master || self.instance.priority == 255)
        {
            if master {
                let mut diagnostic = Diagnostic::new(
                    Code::NopreemptWithMaster,
                    Consequence::Ignore,
                    span,
                    "`nopreempt` has no effect with state MASTER",
                )
                .hint("use `state BACKUP` on every router");
                if let Some((_, state)) = self.state {
                    diagnostic = diagnostic.note(state, "the state is set here");
                }
                cx.push(diagnostic);
            } else {
                cx.report(
                    Code::NopreemptWithOwner,
                    Consequence::Ignore,
                    span,
                    "`nopreempt` has no effect with priority 255",
                );
            }
            self.nopreempt = None;
        }
        if let Some((_, span)) = self.preempt_delay {
            let (code, why) = if master {
                (Code::PreemptDelayWithMaster, "state MASTER")
            } else if self.nopreempt.is_some() {
                (Code::PreemptDelayWithNopreempt, "`nopreempt`")
            } else {
                (Code::StrictSetting, "strict mode")
            };
            if master || self.nopreempt.is_some() || self.instance.strict {
                cx.report(
                    code,
                    Consequence::Ignore,
                    span,
                    format!("`preempt_delay` has no effect with {why}"),
                );
                self.preempt_delay = None;
            }
        }
        self.instance.preempt = self.nopreempt.is_none();
        self.instance.preempt_delay = self
            .preempt_delay
            .map_or(Duration::ZERO, |(delay, _)| delay);
    }

    fn check_authentication(&mut self, cx: &mut Context) {
        let password = self.instance.authentication.take();
        let Some((kind, span)) = self.auth_kind else {
            return;
        };
        let (code, why) = if self.instance.strict {
            (Code::StrictAuth, "strict mode knows no authentication")
        } else if self.instance.version == 3 {
            (Code::AuthWithV3, "version 3 knows no authentication")
        } else if password.as_ref().is_none_or(|p| p.password.is_empty()) {
            (Code::AuthNoPassword, "authentication without password")
        } else {
            if kind == AuthenticationKind::Ah
                && self.instance.state == InitialState::Master
                && self.instance.priority < 255
            {
                cx.report(
                    Code::AuthAhWithMaster,
                    Consequence::Adjust,
                    span,
                    "AH with state MASTER below priority 255, the state becomes BACKUP",
                );
                self.instance.state = InitialState::Backup;
            }
            self.instance.authentication = password.map(|p| Authentication { kind, ..p });
            return;
        };
        cx.report(
            code,
            Consequence::Ignore,
            span,
            format!("{why}, it is removed"),
        );
    }

    fn interval(&mut self, cx: &mut Context) {
        let span = self.advert_int.unwrap_or(self.head);
        let asked = self.instance.advert_interval;
        let (unit, most) = if self.instance.version == 2 {
            (1_000_000, 255_000_000)
        } else {
            (10_000, 40_950_000)
        };
        let micros = u64::try_from(asked.as_micros()).unwrap_or(u64::MAX);
        let mut used = micros;
        if micros >= most + unit {
            used = most;
            cx.report(
                Code::AdvertIntOutOfRange,
                Consequence::Adjust,
                span,
                format!(
                    "version {} cannot carry this interval, the longest is used",
                    self.instance.version
                ),
            );
        } else if !micros.is_multiple_of(unit) {
            used = ((micros + unit / 2) / unit * unit).clamp(unit, most);
            cx.report(
                Code::AdvertIntRounded,
                Consequence::Adjust,
                span,
                format!(
                    "version {} cannot carry this interval exactly, it is rounded",
                    self.instance.version
                ),
            );
        }
        self.instance.advert_interval = Duration::from_micros(used);
    }

    fn strict(&mut self, cx: &mut Context) {
        let owner = self.instance.priority == 255;
        let instance = &mut self.instance;
        if !instance.strict {
            instance.accept = self.accept.unwrap_or(true);
            return;
        }
        let mut adjusted = Vec::new();
        instance.accept = self.accept.unwrap_or(owner);
        if self.accept == Some(true) && instance.version == 2 && !owner {
            instance.accept = false;
            adjusted.push("`accept` with version 2 becomes `no_accept`");
        }
        if instance.family == Family::Inet6 && instance.version == 2 {
            instance.version = 3;
            adjusted.push("IPv6 needs version 3");
        }
        if instance.down_timer_adverts != 3 {
            instance.down_timer_adverts = 3;
            adjusted.push("`down_timer_adverts` becomes 3");
        }
        if instance.garp.lower_prio_repeat.is_some_and(|n| n > 0)
            || instance.garp.lower_prio_delay.is_some_and(|d| !d.is_zero())
        {
            adjusted.push("`garp_lower_prio_*` become 0");
        }
        instance.garp.lower_prio_repeat = Some(0);
        instance.garp.lower_prio_delay = Some(Duration::ZERO);
        instance.lower_prio_no_advert = true;
        if instance.higher_prio_send_advert {
            adjusted.push("`higher_prio_send_advert` becomes false");
            instance.higher_prio_send_advert = false;
        }
        if !instance.unicast_peers.is_empty() {
            cx.report(
                Code::StrictSetting,
                Consequence::Refuse,
                self.head,
                "strict mode: no unicast peers",
            );
        }
        if let (
            Family::Inet6,
            Some(VirtualAddress {
                address: IpAddr::V6(first),
                ..
            }),
        ) = (instance.family, instance.virtual_addresses.first())
            && !first.is_unicast_link_local()
        {
            cx.report(
                Code::StrictSetting,
                Consequence::Warn,
                self.head,
                "strict mode: the first IPv6 address should be link-local",
            );
        }
        for what in adjusted {
            cx.report(
                Code::StrictSetting,
                Consequence::Adjust,
                self.head,
                format!("strict mode: {what}"),
            );
        }
    }
}

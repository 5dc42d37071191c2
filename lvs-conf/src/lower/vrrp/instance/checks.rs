//! What becomes of an instance once all of it has been read.

use super::*;

use std::net::IpAddr;

use crate::model::{HmacMode, VmacKind};

impl Draft {
    /// The least that an instance needs.
    pub(in super::super) fn can_run(&mut self, cx: &mut Context) -> bool {
        // The release looks no further once one thing is missing.
        let looks_on = self.vrid.is_some() || cx.dialect == Dialect::Newest;
        let name = &self.instance.name;
        let mut can_run = true;
        let mut refuse = |code, why: &str, expected: &str| {
            cx.push(
                Diagnostic::new(
                    code,
                    Consequence::Refuse,
                    self.head,
                    format!("instance `{name}` {why}"),
                )
                .expected(expected),
            );
            can_run = false;
        };
        if self.vrid.is_none() {
            refuse(
                Code::NoVirtualRouterId,
                "has no usable virtual_router_id",
                "`virtual_router_id <1..255>`",
            );
        }
        if self.instance.interface.is_none() && looks_on {
            let source = self.instance.source;
            if self.unicast.is_none() {
                refuse(
                    Code::NoInterface,
                    "has no usable interface",
                    "`interface <IFNAME>`",
                );
            } else if source.is_none() {
                refuse(
                    Code::UnicastNoSource,
                    "has neither interface nor source address",
                    "`interface <IFNAME>` or `unicast_src_ip <IPADDR>`",
                );
            } else if matches!(source, Some(IpAddr::V6(source)) if source.is_unicast_link_local()) {
                refuse(
                    Code::UnicastNoSource,
                    "has a link-local source address and no interface",
                    "`interface <IFNAME>`",
                );
            }
        }
        self.stayed_away |= !can_run;
        can_run
    }

    /// What becomes of the instance.
    pub(in super::super) fn finish(
        mut self,
        cx: &mut Context,
        config: &Config,
        group: Option<&SyncGroup>,
    ) -> Result<VrrpInstance, Refused> {
        self.instance.family = self.family.unwrap_or(Family::Inet);
        if self.instance.family == Family::Inet6 {
            self.instance.version = 3;
        }
        self.instance.version = self.version.unwrap_or(self.instance.version);
        self.instance.virtual_router_id = self.vrid.unwrap_or_default();
        self.state_and_priority(cx);
        self.unicast(cx);
        self.own_interface(cx);
        if !self.has_vips(cx) {
            return Err(Refused);
        }
        self.preemption(cx);
        self.check_authentication(cx);
        self.interval(cx);
        self.strict(cx);
        // Version and authentication are settled: they take room too.
        self.too_many_addresses(cx);
        self.owner(cx);
        self.addresses_without_interface(cx);
        self.tracking(cx, config, group);
        if self.stayed_away {
            return Err(Refused);
        }
        Ok(self.instance)
    }

    fn complain(&self, cx: &mut Context, code: Code, consequence: Consequence, what: &str) {
        cx.report(
            code,
            consequence,
            self.head,
            format!("instance `{}`: {what}", self.instance.name),
        );
    }

    fn state_and_priority(&mut self, cx: &mut Context) {
        let master = matches!(self.state, Some((InitialState::Master, _)));
        self.instance.priority = self.priority.unwrap_or(if master {
            255
        } else {
            VrrpInstance::DEFAULT_PRIORITY
        });
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
                    Code::UnicastTtlWithoutPeers,
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

    /// VMAC, ipvlan and routing domain.
    fn own_interface(&mut self, cx: &mut Context) {
        let unicast = !self.instance.unicast_peers.is_empty();
        if self.instance.vrf.is_some() && (self.instance.interface.is_some() || !unicast) {
            self.instance.vrf = None;
            self.complain(
                cx,
                Code::VrfConflict,
                Consequence::Ignore,
                "`vrf` is for unicast without interface",
            );
        }
        if self.instance.vmac.is_some() && unicast {
            if self.instance.interface.is_none() {
                self.instance.vmac = None;
                self.complain(
                    cx,
                    Code::VmacUnicastNoInterface,
                    Consequence::Ignore,
                    "a VMAC needs an interface, it is left out",
                );
            } else if !self.instance.vmac_xmit_base {
                self.instance.vmac_xmit_base = true;
                self.complain(
                    cx,
                    Code::VmacUnicastXmitBaseSet,
                    Consequence::Adjust,
                    "a VMAC with unicast needs `vmac_xmit_base`, it is set",
                );
            }
        }
        if let (Some(vmac), Some(written)) = (&mut self.instance.vmac, &self.mac)
            && let VmacKind::Macvlan { mac, .. } = &mut vmac.kind
        {
            *mac = Some(written.with(self.instance.virtual_router_id));
        }
        if self.instance.vmac_xmit_base && self.instance.vmac.is_none() {
            self.instance.vmac_xmit_base = false;
            self.complain(
                cx,
                Code::InvalidValue,
                Consequence::Ignore,
                "`vmac_xmit_base` without `use_vmac`",
            );
        }
        if self.instance.promote_secondaries && self.instance.vmac.is_some() {
            self.instance.promote_secondaries = false;
            self.complain(
                cx,
                Code::PromoteSecondariesWithVmac,
                Consequence::Ignore,
                "`promote_secondaries` has no meaning with a VMAC",
            );
        }
        if self.instance.family == Family::Inet
            && let Some(vmac) = &self.instance.vmac
            && matches!(vmac.kind, VmacKind::Ipvlan { address: None, .. })
        {
            self.complain(
                cx,
                Code::ConfigFault,
                Consequence::Warn,
                "it stays in fault: an IPv4 ipvlan needs an address, as in `use_ipvlan 192.0.2.1/24`",
            );
        }
        self.instance.track_src_ip &= self.instance.source.is_some();
        if self.instance.vmac.is_some() && !self.instance.vmac_addr {
            let own = self.instance.interface.clone();
            let redundant = |vip: &mut VirtualAddress| {
                let same = vip.interface.is_none() || vip.interface == own;
                same && std::mem::take(&mut vip.use_vmac)
            };
            let lists = [
                &mut self.instance.virtual_addresses,
                &mut self.instance.excluded_addresses,
            ];
            if lists
                .into_iter()
                .flatten()
                .map(redundant)
                .fold(false, |a, b| a | b)
            {
                self.complain(
                    cx,
                    Code::InvalidValue,
                    Consequence::Ignore,
                    "`use_vmac` on an address that is on the VMAC anyway",
                );
            }
        }
    }

    /// The packet counts addresses in one byte, and must fit the interface. A trailer of keyed authentication is not counted.
    fn too_many_addresses(&mut self, cx: &mut Context) {
        let instance = &mut self.instance;
        let mtu = instance
            .interface
            .as_ref()
            .and_then(|name| cx.options.mtus.of(name));
        let room = match mtu {
            Some(mtu) => MAX_VIPS.min(addresses_in(mtu, instance)),
            None => MAX_VIPS,
        };
        if instance.virtual_addresses.len() <= room {
            return;
        }
        let surplus = instance.virtual_addresses.split_off(room);
        let count = surplus.len();
        instance.excluded_addresses.splice(0..0, surplus);
        cx.push(
            Diagnostic::new(
                Code::TooManyVips,
                Consequence::Adjust,
                self.head,
                format!(
                    "instance `{}`: an advertisement has room for {room} addresses, the last {count} are not advertised",
                    self.instance.name
                ),
            )
            .hint("move them to `virtual_ipaddress_excluded`"),
        );
    }

    fn has_vips(&mut self, cx: &mut Context) -> bool {
        if self.instance.no_virtual_address && self.instance.strict {
            self.instance.no_virtual_address = false;
            self.complain(
                cx,
                Code::StrictSetting,
                Consequence::Ignore,
                "strict mode needs an address, `no_virtual_ipaddress` is ignored",
            );
        }
        if !self.instance.virtual_addresses.is_empty() || self.instance.no_virtual_address {
            return true;
        }
        let fatal = self.instance.version == 3 || self.instance.strict;
        let (code, consequence) = if fatal {
            (Code::NoVipFatal, Consequence::Refuse)
        } else {
            (Code::NoVip, Consequence::Warn)
        };
        cx.push(
            Diagnostic::new(
                code,
                consequence,
                self.head,
                format!("instance `{}` has no address", self.instance.name),
            )
            .expected("`virtual_ipaddress { ADDRESS }`"),
        );
        !fatal
    }

    /// What only the owner of the addresses may do.
    fn owner(&mut self, cx: &mut Context) {
        let owner = self.instance.priority == 255;
        let instance = &mut self.instance;
        match self.owner_ignore_adverts {
            Some(true) if !owner => {
                instance.owner_ignore_adverts = false;
                self.complain(
                    cx,
                    Code::InvalidValue,
                    Consequence::Ignore,
                    "`owner_ignore_adverts` needs priority 255",
                );
            }
            Some(false) if owner && instance.strict => {
                instance.owner_ignore_adverts = true;
                self.complain(
                    cx,
                    Code::StrictSetting,
                    Consequence::Adjust,
                    "strict mode: the owner ignores advertisements",
                );
            }
            Some(given) => instance.owner_ignore_adverts = given,
            None if instance.strict && owner => instance.owner_ignore_adverts = true,
            None => {}
        }
        if self.instance.timer_expired_backup.is_some() && self.instance.preempt {
            self.instance.timer_expired_backup = None;
            cx.report(
                Code::InvalidValue,
                Consequence::Ignore,
                self.timer_expired.unwrap_or(self.head),
                "`timer_expired_backup` needs `nopreempt`",
            );
        }
    }

    fn addresses_without_interface(&mut self, cx: &mut Context) {
        if self.instance.interface.is_some() {
            return;
        }
        let lists = [
            &mut self.instance.virtual_addresses,
            &mut self.instance.excluded_addresses,
        ];
        let before: usize = lists.iter().map(|list| list.len()).sum();
        let mut after = 0;
        for list in lists {
            list.retain(|vip| vip.interface.is_some());
            after += list.len();
        }
        if after < before {
            self.complain(
                cx,
                Code::VipAddressInvalid,
                Consequence::Drop,
                "addresses without any interface are dropped",
            );
        }
    }

    fn tracking(&mut self, cx: &mut Context, config: &Config, group: Option<&SyncGroup>) {
        self.instance.track.bfd.retain(|track| {
            config
                .bfd_instances
                .iter()
                .any(|bfd| bfd.name == track.name)
        });
        let own = self.instance.interface.clone();
        let interfaces = &mut self.instance.track.interfaces;
        let before = interfaces.len();
        interfaces.retain(|track| Some(&track.name) != own.as_ref());
        if interfaces.len() < before {
            self.complain(
                cx,
                Code::TrackOwnInterface,
                Consequence::Ignore,
                &format!(
                    "it tracks its own interface `{}`, which it does anyway",
                    own.unwrap_or_default()
                ),
            );
        }
        let owner = self.instance.priority == 255;
        if owner || group.is_some_and(|group| !group.tracking_weight) {
            let why = if owner {
                "has priority 255"
            } else {
                "is in a sync group"
            };
            self.unweighted(cx, config, owner, why);
        }
        if let Some(group) = group {
            self.tracked_twice(cx, group);
        }
    }

    /// Trackers with weight make no sense for an address owner, nor for a member of a group that changes as one.
    fn unweighted(&mut self, cx: &mut Context, config: &Config, owner: bool, why: &str) {
        let mut ignored: Vec<String> = Vec::new();
        let weight = |list: usize, track: &Track| {
            let own = || super::super::group::own_weight(config, list, &track.name);
            track.weight.unwrap_or_else(own)
        };
        let track = &mut self.instance.track;
        let mut drop = |list: usize, entries: &mut Vec<Track>| {
            entries.retain(|entry| {
                let weighted = weight(list, entry) != 0;
                if weighted {
                    ignored.push(entry.name.clone());
                }
                !weighted
            });
        };
        let programs = cx.options.machine.as_ref();
        let is_there = |entry: &Track| {
            let mut scripts = config.scripts.iter();
            let script = scripts.find(|script| script.name == entry.name);
            let program = script.and_then(|script| script.script.command.first());
            program.is_none_or(|path| programs.is_none_or(|machine| machine.has_program(path)))
        };
        // Absent scripts are not tracked in the first place.
        track.scripts.retain(is_there);
        drop(1, &mut track.scripts);
        drop(4, &mut track.bfd);
        if owner {
            drop(0, &mut track.interfaces);
        }
        for entry in &mut track.interfaces {
            if weight(0, entry) != 0 {
                ignored.push(entry.name.clone());
                entry.weight = Some(0);
            }
        }
        track.files.retain_mut(|entry| {
            let weight = weight(2, entry);
            if weight != 0 {
                ignored.push(entry.name.clone());
                entry.weight = Some(0);
            }
            matches!(weight, 0 | 1)
        });
        for name in ignored {
            cx.report(
                Code::WeightIgnored,
                Consequence::Adjust,
                self.head,
                format!(
                    "`{name}` cannot be tracked with a weight by `{}`, which {why}",
                    self.instance.name
                ),
            );
        }
    }

    fn tracked_twice(&self, cx: &mut Context, group: &SyncGroup) {
        let (own, shared) = (&self.instance.track, &group.track);
        let pairs = [
            (&own.interfaces, &shared.interfaces),
            (&own.scripts, &shared.scripts),
            (&own.files, &shared.files),
            (&own.processes, &shared.processes),
            (&own.bfd, &shared.bfd),
        ];
        for (list, (own, shared)) in pairs.into_iter().enumerate() {
            for entry in own {
                if shared.iter().any(|other| other.name == entry.name) {
                    self.complain(
                        cx,
                        Code::TrackedOnInstanceAndGroup,
                        if list == 0 {
                            Consequence::Warn
                        } else {
                            Consequence::Log
                        },
                        &format!("`{}` is tracked by its sync group too", entry.name),
                    );
                }
            }
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
        if self.instance.hmac.is_some() && (password.is_some() || self.auth_kind.is_some()) {
            self.complain(
                cx,
                Code::InvalidValue,
                Consequence::Ignore,
                "`auth_hmac` replaces `authentication`",
            );
            return;
        }
        let Some((kind, span)) = self.auth_kind else {
            return;
        };
        let (code, why) = if self.instance.strict {
            (Code::StrictAuth, "strict mode knows no authentication")
        } else if self.instance.version == 3 {
            (Code::AuthWithV3, "version 3 knows no authentication")
        } else if password.as_ref().is_none_or(|p| p.password.is_empty()) {
            (Code::AuthNoPassword, "authentication without password")
        } else if kind == AuthenticationKind::Ah && self.instance.family == Family::Inet6 {
            (Code::InvalidValue, "AH with IPv6 does not exist")
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
        instance.lower_prio_no_advert = self
            .lower_prio_no_advert
            .unwrap_or(instance.lower_prio_no_advert);
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
        if self.lower_prio_no_advert == Some(false) {
            adjusted.push("`lower_prio_no_advert` becomes true");
        }
        instance.lower_prio_no_advert = true;
        if instance.vmac_xmit_base {
            instance.vmac_xmit_base = false;
            adjusted.push("`vmac_xmit_base` is ignored");
        }
        if let Some(crate::model::Vmac {
            kind: VmacKind::Macvlan { mac, .. },
            ..
        }) = &mut instance.vmac
            && mac.take().is_some()
        {
            adjusted.push("the MAC address is the standard's");
        }
        if let Some(hmac) = &mut instance.hmac
            && hmac.mode != HmacMode::Enforce
        {
            hmac.mode = HmacMode::Enforce;
            adjusted.push("the mode of `auth_hmac` becomes enforce");
        }
        if instance.higher_prio_send_advert {
            adjusted.push("`higher_prio_send_advert` becomes false");
            instance.higher_prio_send_advert = false;
        }
        // The check of 2.2.7 never takes effect.
        if !instance.unicast_peers.is_empty() && cx.dialect != Dialect::V2_2_7 {
            self.stayed_away = true;
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
            && instance.unicast_peers.is_empty()
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

/// How many addresses an advertisement of a length in bytes has room for.
fn addresses_in(mtu: u32, instance: &VrrpInstance) -> usize {
    let (ip_header, address) = match instance.family {
        Family::Inet => (20, 4),
        Family::Inet6 => (40, 16),
    };
    // Version 2 has room for a password whether there is one or not.
    let password = if instance.version == 2 { 8 } else { 0 };
    let authentication_header = match &instance.authentication {
        Some(auth) if auth.kind == AuthenticationKind::Ah => 24,
        _ => 0,
    };
    let fixed = FRAME_HEADER + ip_header + authentication_header + VRRP_HEADER + password;
    (mtu.saturating_sub(fixed) / address) as usize
}

const MAX_VIPS: usize = 255;

/// keepalived counts the header of the frame as part of the MTU.
const FRAME_HEADER: u32 = 14;

/// Bytes before the addresses.
const VRRP_HEADER: u32 = 8;

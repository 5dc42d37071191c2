//! What comes to light once every instance is known.

use std::time::Duration;

use crate::keywords::preset::preset;

use super::{Code, Config, Consequence, Context, Diagnostic, Span, Tree, VrrpInstance, blocks};

/// `heads` are the places of the instances.
pub(super) fn settle(cx: &mut Context, tree: &Tree, config: &mut Config, heads: &[Span]) {
    shared_vmacs(cx, &config.instances, heads);
    delays(cx, tree, config);
    unknown_members(cx, tree);
    firewall(cx, tree, config, heads);
}

/// Two instances that want one VMAC interface.
fn shared_vmacs(cx: &mut Context, instances: &[VrrpInstance], heads: &[Span]) {
    let name = |instance: &VrrpInstance| instance.vmac.as_ref()?.name.clone();
    for (at, instance) in instances.iter().enumerate() {
        let Some(own) = name(instance) else {
            continue;
        };
        let before = &instances[..at];
        let other = before
            .iter()
            .position(|other| name(other).as_ref() == Some(&own));
        if let (Some(head), Some(first)) = (heads.get(at), other.and_then(|at| heads.get(at))) {
            cx.push(
                Diagnostic::new(
                    Code::ConfigFault,
                    Consequence::Warn,
                    *head,
                    format!(
                        "instance `{}` stays in fault: another one has the interface `{own}`",
                        instance.name
                    ),
                )
                .hint("give each its own interface name, or none")
                .note(*first, "the other instance"),
            );
        }
    }
}

/// An interface must count as down before the backups take over.
fn delays(cx: &mut Context, tree: &Tree, config: &mut Config) {
    for delay in &mut config.interface_delays {
        let of = config
            .instances
            .iter()
            .filter(|i| i.interface.as_ref() == Some(&delay.name));
        let limit = of
            .map(|i| i.advert_interval * u32::from(i.down_timer_adverts.saturating_sub(1)))
            .min();
        let Some(limit) = limit.filter(|limit| delay.down >= *limit && !delay.down.is_zero())
        else {
            continue;
        };
        delay.down = limit.saturating_sub(Duration::from_millis(1));
        let mut lines = blocks(tree, "interface_up_down_delays").flat_map(|(_, b)| b.values());
        if let Some(line) = lines.find(|line| line.words[0].text.as_str() == delay.name) {
            cx.report(
                Code::NumberOutOfRange,
                Consequence::Log,
                line.words[0].span,
                format!(
                    "the backups would take over before `{}` counts as down, its delay is shortened to {} s",
                    delay.name,
                    delay.down.as_secs_f64()
                ),
            );
        }
    }
}

/// Members of a `track_group` that no block defines.
fn unknown_members(cx: &mut Context, tree: &Tree) {
    for (_, group) in blocks(tree, "track_group") {
        let lines = group.statements().iter().flat_map(|s| s.values());
        for word in lines.flat_map(|line| &line.words) {
            let mut instances = blocks(tree, "vrrp_instance").filter_map(|(_, b)| b.args.first());
            if !instances.any(|name| name.text == word.text) {
                cx.report(
                    Code::TrackGroupUndefined,
                    Consequence::Log,
                    word.span,
                    format!("there is no instance `{}`, it is ignored", word.text),
                );
            }
        }
    }
}

/// One kind of firewall is used.
fn firewall(cx: &mut Context, tree: &Tree, config: &Config, heads: &[Span]) {
    let firewall = &config.global.firewall;
    if firewall.iptables.is_none() && firewall.nftables.is_none() {
        let mut instances = config.instances.iter().zip(heads);
        let needy = instances.find_map(|(instance, head)| {
            let why = match &instance.vmac {
                Some(_) => "a VMAC",
                None if instance.strict => "strict mode",
                None if !instance.accept => "`no_accept`",
                None => return None,
            };
            Some((why, *head))
        });
        if let Some((why, head)) = needy {
            let table = preset!(bare_text, GlobalDefs, "nftables");
            cx.push(
                Diagnostic::new(
                    Code::FirewallImplied,
                    Consequence::Log,
                    head,
                    format!("{why} needs a firewall, `nftables` is used with the table `{table}`"),
                )
                .hint("write `nftables` in `global_defs` to say so"),
            );
        }
    }
    let mut ignored = |name: &str, why: &str| {
        let statements = blocks(tree, "global_defs").flat_map(|(_, block)| block.statements());
        if let Some(statement) = statements.filter(|s| s.spec.name == name).last() {
            cx.report(
                Code::InvalidValue,
                Consequence::Log,
                statement.head(),
                format!("`{name}` is ignored: {why}"),
            );
        }
    };
    if firewall.iptables.is_some() && firewall.nftables.is_some() {
        ignored("vrrp_iptables", "`nftables` is used");
    }
    if firewall.ipsets.is_some() && firewall.iptables.is_none() {
        ignored("vrrp_ipsets", "there is no `vrrp_iptables`");
    }
}

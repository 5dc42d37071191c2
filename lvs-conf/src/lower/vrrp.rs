//! Scripts, instances and sync groups.

use std::time::Duration;

use super::small::object_weight;
use super::track::Names;
use super::{Context, address, global, route, rule, track};
use crate::diag::{Code, Consequence, Diagnostic};
use crate::dialect::Dialect;
use crate::model::{
    Authentication, AuthenticationKind, Config, Family, GlobalDefs, InitialState, SyncGroup, Track,
    Tracking, UnicastPeer, VirtualAddress, VrrpInstance, VrrpScript,
};
use crate::settings::{Settings as _, settings};
use crate::source::Span;
use crate::tree::{Statement, Tree, ValueLine};

mod after;
mod group;
mod hmac;
mod instance;
mod vmac;

use group::GroupDraft;
use instance::Draft;

/// Everything is read first; the checks follow in keepalived's order, which ends at the first refusal if the dialect says so.
pub(super) fn read(cx: &mut Context, tree: &Tree, config: &mut Config) {
    for (_, statement) in blocks(tree, "vrrp_script") {
        config.scripts.extend(script(cx, statement));
    }
    let names = Names::of(tree, config);
    let mut seen: Vec<(String, Span)> = Vec::new();
    let mut drafts: Vec<Draft> = Vec::new();
    for (at, statement) in blocks(tree, "vrrp_instance") {
        if !is_duplicate(cx, statement, &mut seen) {
            drafts.extend(instance::read(cx, statement, at, &names, &config.global));
        }
    }
    seen.clear();
    let mut groups: Vec<GroupDraft> = Vec::new();
    for (at, statement) in blocks(tree, "vrrp_sync_group") {
        if !is_duplicate(cx, statement, &mut seen) {
            groups.extend(group::read(cx, statement, at, &names, &config.global));
        }
    }
    let stops = cx.dialect == Dialect::V2_2_7;
    for draft in &mut drafts {
        if !draft.can_run(cx) && stops {
            return;
        }
    }
    group::settle(cx, groups, &drafts, config);
    let mut heads: Vec<Span> = Vec::new();
    for draft in drafts {
        let head = draft.head();
        let group = config
            .sync_groups
            .iter()
            .find(|group| group.members.contains(&draft.name().to_owned()));
        match draft.finish(cx, config, group) {
            Ok(instance) => {
                let twin = config
                    .instances
                    .iter()
                    .position(|other| same_router(other, &instance));
                if let Some(twin) = twin {
                    cx.push(
                        Diagnostic::new(
                            Code::DuplicateVrid,
                            Consequence::Refuse,
                            head,
                            format!(
                                "virtual router id {} is used twice on one link",
                                instance.virtual_router_id
                            ),
                        )
                        .note(heads[twin], "first used here"),
                    );
                    if stops {
                        return;
                    }
                }
                heads.push(head);
                config.instances.push(instance);
            }
            Err(Refused) if stops => return,
            Err(Refused) => {}
        }
    }
    after::settle(cx, tree, config, &heads);
    track_groups(config);
}

/// The VRRP part cannot run with this instance, which has been reported.
struct Refused;

/// Members that do not exist are forgotten, and groups of which nothing is left.
fn track_groups(config: &mut Config) {
    let names: Vec<&str> = config.instances.iter().map(|i| i.name.as_str()).collect();
    for group in &mut config.track_groups {
        group.members.retain(|name| names.contains(&name.as_str()));
    }
    for group in &mut config.sync_groups {
        // What was refused is not in the model.
        group.members.retain(|name| names.contains(&name.as_str()));
    }
    config.sync_groups.retain(|group| !group.members.is_empty());
    config
        .track_groups
        .retain(|group| !group.members.is_empty());
    let groups = &config.track_groups;
    let forget = |slot: &mut Option<String>| {
        if slot
            .as_ref()
            .is_some_and(|name| groups.iter().all(|group| group.name != *name))
        {
            *slot = None;
        }
    };
    for address in &mut config.static_addresses {
        forget(&mut address.track_group);
    }
    for route in &mut config.static_routes {
        forget(&mut route.track_group);
    }
    for rule in &mut config.static_rules {
        forget(&mut rule.track_group);
    }
}

fn blocks<'a>(tree: &'a Tree, name: &'static str) -> impl Iterator<Item = (usize, &'a Statement)> {
    tree.statements
        .iter()
        .enumerate()
        .filter(move |(_, statement)| statement.spec.name == name)
}

fn is_duplicate(cx: &mut Context, statement: &Statement, seen: &mut Vec<(String, Span)>) -> bool {
    let Some(name) = statement.args.first() else {
        return true;
    };
    if let Some((_, first)) = seen.iter().find(|(old, _)| *old == name.text.as_str()) {
        cx.push(
            Diagnostic::new(
                Code::DuplicateVrrpInstance,
                Consequence::Drop,
                name.span,
                format!(
                    "{} `{}` is defined twice, the second block is skipped",
                    statement.keyword.text, name.text
                ),
            )
            .note(*first, "first defined here"),
        );
        return true;
    }
    seen.push((name.text.to_string(), name.span));
    false
}

/// Two routers that would hear each other as one.
fn same_router(a: &VrrpInstance, b: &VrrpInstance) -> bool {
    if (a.family, a.virtual_router_id) != (b.family, b.virtual_router_id) {
        return false;
    }
    match (a.unicast_peers.is_empty(), b.unicast_peers.is_empty()) {
        (true, true) => (&a.interface, a.group) == (&b.interface, b.group),
        (false, false) => {
            let one_interface =
                a.interface.is_none() || b.interface.is_none() || a.interface == b.interface;
            one_interface
                && a.source == b.source
                && a.unicast_peers.iter().any(|peer| {
                    b.unicast_peers
                        .iter()
                        .any(|other| other.address == peer.address)
                })
        }
        _ => false,
    }
}

settings! { VrrpScript {
    "interval" => interval,
    "rise" => rise,
    "fall" => fall,
    "init_fail" => init_fail,
} }

fn script(cx: &mut Context, block: &Statement) -> Option<VrrpScript> {
    let name = block.args.first()?;
    let mut script = VrrpScript::named(&name.text);
    let mut timeout = None;
    let mut user = None;
    let mut can_run = true;
    for statement in block.statements() {
        match statement.spec.canonical() {
            "script" => {
                if let Some(command) = cx.script_arg(statement) {
                    script.script = command;
                }
            }
            "timeout" => cx.set(statement, &mut timeout),
            "weight" => {
                if let Some(value) = object_weight(cx, statement) {
                    (script.weight, script.reverse) = value;
                }
            }
            "user" => {
                cx.set(statement, &mut user);
                if let Some(word) = statement.args.first() {
                    can_run &= cx.check_account(word, "the script is dropped");
                }
            }
            _ => {
                script.set(cx, statement);
            }
        }
    }
    if script.script.command.is_empty() {
        cx.push(
            Diagnostic::new(
                Code::VrrpScriptWithoutScript,
                Consequence::Drop,
                cx.whole(block),
                format!("vrrp_script `{}` has no command, it is dropped", name.text),
            )
            .expected("`script <CMD>`"),
        );
        return None;
    }
    if user.is_none() && !cx.is_default_user_usable {
        cx.report(
            Code::ScriptUserMissing,
            Consequence::Drop,
            block.head(),
            format!(
                "there is no account that vrrp_script `{}` could run as, it is dropped",
                name.text
            ),
        );
        return None;
    }
    if !can_run {
        return None;
    }
    script.timeout = timeout.unwrap_or(script.interval);
    script.script.user = user;
    Some(script)
}

fn vrrp_alert(global: &GlobalDefs) -> bool {
    global
        .mail
        .alert_vrrp
        .or(global.mail.alert)
        .unwrap_or(false)
}

//! Scripts, instances and sync groups.

use std::net::IpAddr;
use std::time::Duration;

use super::track::Names;
use super::{Context, address, global, track};
use crate::diag::{Code, Consequence, Diagnostic};
use crate::model::{
    Authentication, AuthenticationKind, Config, Family, GlobalDefs, InitialState, Notify, RawLine,
    SyncGroup, Track, Tracking, UnicastPeer, VirtualAddress, VrrpInstance, VrrpScript,
};
use crate::source::Span;
use crate::tree::{Statement, Tree, ValueLine};

mod instance;

pub(super) fn read(cx: &mut Context, tree: &Tree, config: &mut Config) {
    for statement in blocks(tree, "vrrp_script") {
        config.scripts.extend(script(cx, statement));
    }
    let usable: Vec<String> = config.scripts.iter().map(|s| s.name.clone()).collect();
    let names = Names::of(tree, &usable);
    let mut heads: Vec<Span> = Vec::new();
    let mut seen: Vec<(String, Span)> = Vec::new();
    for statement in blocks(tree, "vrrp_instance") {
        if is_duplicate(cx, statement, &mut seen) {
            continue;
        }
        if let Some(instance) = instance::read(cx, statement, &names, &config.global) {
            if let Some(at) = config
                .instances
                .iter()
                .position(|other| same_router(other, &instance))
            {
                cx.push(
                    Diagnostic::new(
                        Code::DuplicateVrid,
                        Consequence::Refuse,
                        statement.head(),
                        format!(
                            "virtual router id {} is used twice on one link",
                            instance.virtual_router_id
                        ),
                    )
                    .note(heads[at], "first used here"),
                );
            }
            heads.push(statement.head());
            config.instances.push(instance);
        }
    }
    let mut groups: Vec<(String, Span)> = Vec::new();
    let mut taken: Vec<(String, Span)> = Vec::new();
    for statement in blocks(tree, "vrrp_sync_group") {
        if !is_duplicate(cx, statement, &mut groups) {
            let group = sync_group(cx, statement, &names, config, &mut taken);
            config.sync_groups.extend(group);
        }
    }
    weights_of_members(cx, config, &heads);
}

fn blocks<'a>(tree: &'a Tree, name: &'static str) -> impl Iterator<Item = &'a Statement> {
    tree.statements.iter().filter(move |s| s.spec.name == name)
}

fn is_duplicate(cx: &mut Context, statement: &Statement, seen: &mut Vec<(String, Span)>) -> bool {
    let Some(name) = statement.args.first() else {
        return true;
    };
    if let Some((_, first)) = seen.iter().find(|(old, _)| *old == name.text) {
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
    a.unicast_peers.is_empty()
        && b.unicast_peers.is_empty()
        && (a.family, a.virtual_router_id, &a.interface, a.group)
            == (b.family, b.virtual_router_id, &b.interface, b.group)
}

fn script(cx: &mut Context, block: &Statement) -> Option<VrrpScript> {
    let name = block.args.first()?;
    let second = Duration::from_secs(1);
    let mut command = None;
    let mut interval = second;
    let mut timeout = None;
    let mut user = None;
    let (mut weight, mut reverse, mut rise, mut fall, mut init_fail) = (0, false, 1, 1, false);
    let mut can_run = true;
    for statement in block.statements() {
        let at_least_one =
            |cx: &mut Context| cx.u32_arg(statement, 1..=i32::MAX as u32).unwrap_or(1);
        match statement.spec.canonical() {
            "script" => {
                if let Some(script) = cx.script_arg(statement) {
                    command = Some(script);
                }
            }
            "interval" | "timeout" => {
                let Some(mut value) =
                    cx.timer_arg(statement, 3, 0..=u64::from(global::MAX_SECONDS) * 1_000_000)
                else {
                    continue;
                };
                if value.is_zero() {
                    cx.report(
                        Code::ZeroRaisedToOne,
                        Consequence::Adjust,
                        statement.head(),
                        format!("`{}` cannot be zero, it becomes 1", statement.keyword.text),
                    );
                    value = second;
                }
                if statement.spec.name == "interval" {
                    interval = value;
                } else {
                    timeout = Some(value);
                }
            }
            "weight" => {
                if let Some(word) = statement.args.first()
                    && let Some(value) = cx.int("weight", word, -253..=253)
                {
                    weight = i16::try_from(value).unwrap_or_default();
                    reverse = statement.args.get(1).is_some_and(|w| w.text == "reverse");
                }
                if let Some(word) = statement.args.get(1).filter(|w| w.text != "reverse") {
                    cx.push(
                        Diagnostic::new(
                            Code::TrackOptionUnknown,
                            Consequence::Ignore,
                            word.span,
                            format!("unknown word `{}`", word.text),
                        )
                        .expected("`reverse`"),
                    );
                }
            }
            "rise" => rise = at_least_one(cx),
            "fall" => fall = at_least_one(cx),
            "user" => {
                user = global::script_user(statement);
                if let Some(word) = statement.args.first() {
                    can_run &= cx.check_account(word, "the script is dropped");
                }
            }
            "init_fail" => init_fail = true,
            _ => cx.not_acted_on(statement),
        }
    }
    let Some(mut script) = command else {
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
    };
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
    script.user = user;
    Some(VrrpScript {
        name: name.text.to_string(),
        script,
        interval,
        timeout: timeout.unwrap_or(interval),
        weight,
        reverse,
        rise,
        fall,
        init_fail,
    })
}

fn sync_group(
    cx: &mut Context,
    block: &Statement,
    names: &Names,
    config: &Config,
    taken: &mut Vec<(String, Span)>,
) -> Option<SyncGroup> {
    let name = block.args.first()?;
    let mut group = SyncGroup {
        name: name.text.to_string(),
        members: Vec::new(),
        track: Tracking::default(),
        notify: Notify::default(),
        smtp_alert: vrrp_alert(&config.global),
        tracking_weight: false,
    };
    let mut listed: Option<&Statement> = None;
    for statement in block.statements() {
        match statement.spec.canonical() {
            "group" => {
                if listed.is_some() {
                    cx.report(
                        Code::DuplicateKeyword,
                        Consequence::Ignore,
                        statement.keyword.span,
                        "a second `group` is skipped",
                    );
                } else {
                    listed = Some(statement);
                }
            }
            "global_tracking" | "sync_group_tracking_weight" => group.tracking_weight = true,
            "smtp_alert" => group.smtp_alert = cx.bool_arg(statement).unwrap_or(group.smtp_alert),
            _ => {
                if !track::read(cx, statement, names, &mut group.track)
                    && !track::notify(cx, statement, &mut group.notify)
                {
                    cx.not_acted_on(statement);
                }
            }
        }
    }
    for word in listed
        .iter()
        .flat_map(|s| s.values())
        .flat_map(|line| &line.words)
    {
        if !config.instances.iter().any(|i| i.name == word.text) {
            let mut diagnostic = Diagnostic::new(
                Code::SyncGroupMemberUndefined,
                Consequence::Ignore,
                word.span,
                format!("there is no instance `{}`", word.text),
            );
            if let Some(near) = crate::keywords::nearest(
                &word.text,
                config.instances.iter().map(|i| i.name.as_str()),
            ) {
                diagnostic = diagnostic.hint(format!("did you mean `{near}`?"));
            }
            cx.push(diagnostic);
        } else if let Some((_, first)) = taken.iter().find(|(old, _)| *old == word.text) {
            cx.push(
                Diagnostic::new(
                    Code::SyncGroupMemberTwice,
                    Consequence::Ignore,
                    word.span,
                    format!("instance `{}` is in a sync group already", word.text),
                )
                .note(*first, "first named here"),
            );
        } else {
            taken.push((word.text.to_string(), word.span));
            group.members.push(word.text.to_string());
        }
    }
    match group.members.len() {
        0 => {
            cx.push(
                Diagnostic::new(
                    Code::SyncGroupWithoutMembers,
                    Consequence::Drop,
                    block.head(),
                    format!(
                        "sync group `{}` has no valid members, it is dropped",
                        name.text
                    ),
                )
                .expected("`group { NAME ... }`"),
            );
            return None;
        }
        1 => cx.report(
            Code::SyncGroupSingleMember,
            Consequence::Warn,
            block.head(),
            format!("sync group `{}` has a single member", name.text),
        ),
        _ => {}
    }
    let members = || {
        config
            .instances
            .iter()
            .filter(|i| group.members.contains(&i.name))
    };
    if members().any(|i| i.priority == 255) && members().any(|i| i.priority != 255) {
        cx.report(
            Code::SyncGroupMixedOwner,
            Consequence::Warn,
            block.head(),
            format!("sync group `{}` mixes priority 255 with others", name.text),
        );
    }
    Some(group)
}

/// Trackers with weight make no sense for an address owner, nor for a member of a group that changes as one.
fn weights_of_members(cx: &mut Context, config: &mut Config, heads: &[Span]) {
    for (instance, head) in config.instances.iter_mut().zip(heads) {
        let in_group = config
            .sync_groups
            .iter()
            .any(|g| !g.tracking_weight && g.members.contains(&instance.name));
        let owner = instance.priority == 255;
        if !in_group && !owner {
            continue;
        }
        let mut ignored = Vec::new();
        let scripts = &config.scripts;
        instance.track.scripts.retain(|t| {
            let own = scripts
                .iter()
                .find(|s| s.name == t.name)
                .map_or(0, |s| s.weight);
            let keep = t.weight.unwrap_or(own) == 0;
            if !keep {
                ignored.push(t.name.clone());
            }
            keep
        });
        let weighted = |t: &Track| t.weight.is_some_and(|w| w != 0);
        for t in &mut instance.track.interfaces {
            if weighted(t) {
                ignored.push(t.name.clone());
                if !owner {
                    t.weight = Some(0);
                }
            }
        }
        if owner {
            instance.track.interfaces.retain(|t| !weighted(t));
        }
        instance.track.bfd.retain(|t| {
            if weighted(t) {
                ignored.push(t.name.clone());
            }
            !weighted(t)
        });
        for name in ignored {
            cx.report(
                Code::WeightIgnored,
                Consequence::Adjust,
                *head,
                format!(
                    "`{name}` cannot be tracked with a weight by `{}`, which {}",
                    instance.name,
                    if owner {
                        "has priority 255"
                    } else {
                        "is in a sync group"
                    }
                ),
            );
        }
    }
}

fn vrrp_alert(global: &GlobalDefs) -> bool {
    global
        .mail
        .alert_vrrp
        .or(global.mail.alert)
        .unwrap_or(false)
}

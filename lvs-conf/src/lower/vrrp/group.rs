//! Sync groups.

use super::*;

/// A group whose members are not looked at yet.
pub(super) struct GroupDraft {
    head: Span,
    group: SyncGroup,
    members: Vec<(String, Span)>,
}

pub(super) fn read(
    cx: &mut Context,
    block: &Statement,
    at: usize,
    names: &Names,
    global: &GlobalDefs,
) -> Option<GroupDraft> {
    let name = block.args.first()?;
    let mut group = SyncGroup::with_defaults(&name.text, vrrp_alert(global));
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
            "smtp_alert" => cx.set(statement, &mut group.smtp_alert),
            _ => {
                if !track::read(cx, statement, names, at, &mut group.track) {
                    track::notify(cx, statement, &mut group.notify);
                }
            }
        }
    }
    let lines = listed.iter().flat_map(|statement| statement.values());
    let members = lines
        .flat_map(|line| &line.words)
        .map(|word| (word.text.to_string(), word.span))
        .collect();
    Some(GroupDraft {
        head: block.head(),
        group,
        members,
    })
}

/// Looks at the members of every group; each instance stays in the first group that names it.
pub(super) fn settle(
    cx: &mut Context,
    groups: Vec<GroupDraft>,
    instances: &[Draft],
    config: &mut Config,
) {
    let mut taken: Vec<(String, Span)> = Vec::new();
    for draft in groups {
        let GroupDraft {
            head,
            mut group,
            members,
        } = draft;
        for (name, span) in members {
            if !instances.iter().any(|instance| instance.name() == name) {
                undefined(cx, &name, span, instances);
            } else if let Some((_, first)) = taken.iter().find(|(old, _)| *old == name) {
                cx.push(
                    Diagnostic::new(
                        Code::SyncGroupMemberTwice,
                        Consequence::Ignore,
                        span,
                        format!("instance `{name}` is in a sync group already"),
                    )
                    .note(*first, "first named here"),
                );
            } else {
                taken.push((name.clone(), span));
                group.members.push(name);
            }
        }
        match group.members.len() {
            0 => {
                cx.push(
                    Diagnostic::new(
                        Code::SyncGroupWithoutMembers,
                        Consequence::Drop,
                        head,
                        format!(
                            "sync group `{}` has no valid members, it is dropped",
                            group.name
                        ),
                    )
                    .expected("`group { NAME ... }`"),
                );
                continue;
            }
            1 => cx.report(
                Code::SyncGroupSingleMember,
                Consequence::Warn,
                head,
                format!("sync group `{}` has a single member", group.name),
            ),
            _ => {}
        }
        group.track.bfd.retain(|track| {
            config
                .bfd_instances
                .iter()
                .any(|bfd| bfd.name == track.name)
        });
        let owners = instances
            .iter()
            .filter(|instance| group.members.iter().any(|name| name == instance.name()))
            .map(Draft::is_owner);
        let (owners, others): (Vec<_>, Vec<_>) = owners.partition(|owner| *owner);
        if !owners.is_empty() && !others.is_empty() {
            cx.report(
                Code::SyncGroupMixedOwner,
                Consequence::Warn,
                head,
                format!("sync group `{}` mixes priority 255 with others", group.name),
            );
        }
        if !owners.is_empty() {
            unweighted(cx, &mut group, config, head);
        }
        config.sync_groups.push(group);
    }
}

fn undefined(cx: &mut Context, name: &str, span: Span, instances: &[Draft]) {
    let mut diagnostic = Diagnostic::new(
        Code::SyncGroupMemberUndefined,
        Consequence::Ignore,
        span,
        format!("there is no instance `{name}`"),
    );
    if let Some(near) = crate::keywords::nearest(name, instances.iter().map(Draft::name)) {
        diagnostic = diagnostic.hint(format!("did you mean `{near}`?"));
    }
    cx.push(diagnostic);
}

/// A group with the owner of the addresses tracks without weights.
fn unweighted(cx: &mut Context, group: &mut SyncGroup, config: &Config, head: Span) {
    let own = |list: usize, name: &str| own_weight(config, list, name);
    let Tracking {
        interfaces,
        scripts,
        files,
        processes,
        bfd,
    } = &mut group.track;
    for (list, entries) in [interfaces, scripts, files, processes, bfd]
        .into_iter()
        .enumerate()
    {
        for entry in entries {
            if entry.weight.unwrap_or_else(|| own(list, &entry.name)) != 0 {
                entry.weight = Some(0);
                cx.report(
                    Code::WeightIgnored,
                    Consequence::Adjust,
                    head,
                    format!(
                        "`{}` cannot be tracked with a weight by a group with priority 255",
                        entry.name
                    ),
                );
            }
        }
    }
}

/// The weight of a tracked object, by the place of its list in [`Tracking`].
pub(super) fn own_weight(config: &Config, list: usize, name: &str) -> i16 {
    let weight = match list {
        1 => config
            .scripts
            .iter()
            .find(|s| s.name == name)
            .map(|s| s.weight),
        2 => config
            .track_files
            .iter()
            .find(|f| f.name == name)
            .map(|f| f.weight),
        3 => config
            .track_processes
            .iter()
            .find(|p| p.name == name)
            .map(|p| p.weight),
        4 => config
            .bfd_instances
            .iter()
            .find(|b| b.name == name)
            .map(|b| b.weight),
        _ => None,
    };
    weight.unwrap_or(0)
}

//! Rules about instances, sync groups, scripts and mail.

use std::collections::HashSet;

use super::{Findings, Rule, finding, first, leaf, named, place};
use crate::lex::{PieceKind, pieces};
use crate::model::{Config, InitialState, VrrpInstance};
use crate::source::{SourceMap, Span, to_offset};
use crate::tree::{Statement, Tree};

pub(super) fn check(findings: &mut Findings, sources: &SourceMap, tree: &Tree, config: &Config) {
    for block in named(&tree.statements, "vrrp_instance") {
        preemption(findings, block);
        password(findings, block);
        prefixes(findings, block);
        conditional_masters(findings, sources, block);
    }
    let instances: Vec<_> = instances(tree, config).collect();
    repeated_ids(findings, &instances);
    copied_masters(findings, &instances);
    strict(findings, tree, &instances);
    sync_groups(findings, tree, &instances, config);
    script_security(findings, tree, config);
    tracked_scripts(findings, tree, config);
    mail(findings, tree, config);
}

/// The instances that survived, each with the first block of its name.
fn instances<'a>(
    tree: &'a Tree,
    config: &'a Config,
) -> impl Iterator<Item = (&'a Statement, &'a VrrpInstance)> {
    let mut rest = config.instances.iter().peekable();
    named(&tree.statements, "vrrp_instance").filter_map(move |block| {
        let instance = rest.next_if(|instance| instance.name == first(block))?;
        Some((block, instance))
    })
}

fn preemption(findings: &mut Findings, block: &Statement) {
    let state = leaf(block, "state").filter(|state| first(state) == MASTER);
    if let (Some(state), Some(nopreempt)) = (state, leaf(block, "nopreempt")) {
        findings.push(
            Rule::MasterWithNopreempt,
            finding(
                Rule::MasterWithNopreempt,
                nopreempt.head(),
                "`nopreempt` has no effect with `state MASTER`",
            )
            .note(state.head(), "the state is chosen here"),
        );
    }
}

fn password(findings: &mut Findings, block: &Statement) {
    for authentication in named(block.statements(), "authentication") {
        let Some(word) = leaf(authentication, "auth_pass").and_then(|s| s.args.first()) else {
            continue;
        };
        let text = word.text.as_str();
        if text.len() > PASSWORD {
            findings.report(
                Rule::PasswordTooLong,
                word.span,
                format!("only the first {PASSWORD} bytes of this password count"),
            );
        }
        let counted = text.get(..PASSWORD).unwrap_or(text);
        if KNOWN.contains(&counted.to_ascii_lowercase().as_str()) {
            findings.report(
                Rule::WellKnownPassword,
                word.span,
                "this password is the first that anybody would try",
            );
        }
    }
}

fn prefixes(findings: &mut Findings, block: &Statement) {
    let lists = block.statements().iter().filter(|s| {
        matches!(
            s.spec.canonical(),
            "virtual_ipaddress" | "virtual_ipaddress_excluded"
        )
    });
    let words: Vec<_> = lists
        .flat_map(Statement::values)
        .filter(|line| !line.words.iter().any(|w| w.text.as_str() == "peer"))
        .filter_map(|line| line.words.first())
        .collect();
    for family in [false, true] {
        let of = || {
            let same = words.iter().copied();
            same.filter(move |word| word.text.contains(':') == family)
        };
        // A host's own length is what an absent one means.
        let host = if family { "/128" } else { "/32" };
        let long = of().find(|w| w.text.contains('/') && !w.text.ends_with(host));
        let short = of().find(|w| !w.text.contains('/'));
        if let (Some(long), Some(short)) = (long, short) {
            findings.push(
                Rule::MixedPrefixes,
                finding(
                    Rule::MixedPrefixes,
                    short.span,
                    format!("`{}` gets the prefix length {}", short.text, &host[1..]),
                )
                .note(long.span, "another address has a length"),
            );
        }
    }
}

/// `state MASTER` on lines for different configuration ids. Only one of them is in the tree.
fn conditional_masters(findings: &mut Findings, sources: &SourceMap, block: &Statement) {
    let close = block.close();
    let head = block.keyword.span;
    let Some(source) = sources
        .get(head.source)
        .filter(|_| close.source == head.source)
    else {
        return;
    };
    let from = head.start as usize;
    let Some(text) = source.bytes().get(from..close.end as usize) else {
        return;
    };
    if !text.contains(&b'@') {
        return;
    }
    let mut before: Option<(String, Span)> = None;
    for piece in pieces(text).filter(|piece| piece.kind == PieceKind::Directive) {
        let line = String::from_utf8_lossy(&text[piece.start..piece.end]);
        let mut words = line.split_ascii_whitespace();
        let condition = words.next().filter(|word| word.starts_with('@'));
        let (Some(condition), Some("state"), Some(MASTER)) =
            (condition, words.next(), words.next())
        else {
            continue;
        };
        let span = Span {
            source: head.source,
            start: to_offset(from + piece.start),
            end: to_offset(from + piece.end),
        };
        match &before {
            None => before = Some((condition.to_owned(), span)),
            Some((other, _)) if other == condition => {}
            Some((_, other)) => findings.push(
                Rule::TwoMasters,
                finding(Rule::TwoMasters, span, "this node starts as MASTER too")
                    .note(*other, "another node does here"),
            ),
        }
    }
}

fn repeated_ids(findings: &mut Findings, instances: &[(&Statement, &VrrpInstance)]) {
    for (at, (block, instance)) in instances.iter().enumerate() {
        let same = |(_, other): &&(&Statement, &VrrpInstance)| {
            other.virtual_router_id == instance.virtual_router_id
                && other.family == instance.family
                && other.interface != instance.interface
                && other.unicast_peers.is_empty()
                && instance.unicast_peers.is_empty()
        };
        let Some((other, _)) = instances[..at].iter().find(same) else {
            continue;
        };
        let place = |block| place(block, "virtual_router_id");
        findings.push(
            Rule::VridReused,
            finding(
                Rule::VridReused,
                place(block),
                format!(
                    "virtual router id {} is on another interface too",
                    instance.virtual_router_id
                ),
            )
            .note(place(other), "it is used here"),
        );
    }
}

/// The configurations of two nodes in one file.
fn copied_masters(findings: &mut Findings, instances: &[(&Statement, &VrrpInstance)]) {
    for (at, (block, instance)) in instances.iter().enumerate() {
        let copy = |(_, other): &&(&Statement, &VrrpInstance)| {
            other.state == InitialState::Master
                && other.virtual_router_id == instance.virtual_router_id
                && other.virtual_addresses.iter().any(|vip| {
                    instance
                        .virtual_addresses
                        .iter()
                        .any(|own| own.address == vip.address)
                })
        };
        if instance.state != InitialState::Master {
            continue;
        }
        if let Some((other, _)) = instances[..at].iter().find(copy) {
            let place = |block| place(block, "state");
            findings.push(
                Rule::TwoMasters,
                finding(
                    Rule::TwoMasters,
                    place(block),
                    "two instances with one id and address start as MASTER",
                )
                .note(place(other), "the other one"),
            );
        }
    }
}

fn strict(findings: &mut Findings, tree: &Tree, instances: &[(&Statement, &VrrpInstance)]) {
    let global = named(&tree.statements, "global_defs")
        .filter_map(|block| leaf(block, "vrrp_strict"))
        .last();
    for (block, instance) in instances {
        if !instance.strict || instance.accept || instance.virtual_addresses.is_empty() {
            continue;
        }
        if let Some(statement) = leaf(block, "strict_mode").or(global) {
            findings.push(
                Rule::StrictDropsTraffic,
                finding(
                    Rule::StrictDropsTraffic,
                    statement.head(),
                    "in strict mode packets to the virtual addresses are dropped",
                )
                .note(block.head(), "this instance does not accept them"),
            );
        }
    }
}

fn sync_groups(
    findings: &mut Findings,
    tree: &Tree,
    instances: &[(&Statement, &VrrpInstance)],
    config: &Config,
) {
    let mut rest = config.sync_groups.iter().peekable();
    for block in named(&tree.statements, "vrrp_sync_group") {
        let Some(group) = rest.next_if(|group| group.name == first(block)) else {
            continue;
        };
        let members: Vec<_> = instances
            .iter()
            .filter(|(_, instance)| group.members.contains(&instance.name))
            .collect();
        let state = |wanted| members.iter().find(|(_, i)| i.state == wanted);
        if let (Some((master, _)), Some((backup, _))) =
            (state(InitialState::Master), state(InitialState::Backup))
        {
            let place = |block| place(block, "state");
            findings.push(
                Rule::SyncGroupStatesDiffer,
                finding(
                    Rule::SyncGroupStatesDiffer,
                    block.head(),
                    "members of this group start in different states",
                )
                .note(place(master), "this one as MASTER")
                .note(place(backup), "this one as BACKUP"),
            );
        }
    }
}

fn script_security(findings: &mut Findings, tree: &Tree, config: &Config) {
    if config.global.enable_script_security {
        return;
    }
    let runs = |statement: &Statement| {
        statement.script_words().is_ok_and(|words| words.len() > 1)
            && statement.spec.canonical() != "regex"
    };
    if let Some(statement) = find(&tree.statements, &runs) {
        findings.report(
            Rule::ScriptSecurityOff,
            statement.head(),
            "scripts run as root, and nobody looks who may write to them",
        );
    }
}

fn tracked_scripts(findings: &mut Findings, tree: &Tree, config: &Config) {
    let mut tracked = HashSet::new();
    let owners = tree
        .statements
        .iter()
        .filter(|s| matches!(s.spec.canonical(), "vrrp_instance" | "vrrp_sync_group"));
    for list in owners.flat_map(|owner| named(owner.statements(), "track_script")) {
        let names = list.values().iter().filter_map(|line| line.words.first());
        tracked.extend(names.map(|word| word.text.as_str()));
    }
    for block in named(&tree.statements, "vrrp_script") {
        let (Some(word), Some(script)) = (
            block.args.first(),
            config.scripts.iter().find(|s| s.name == first(block)),
        ) else {
            continue;
        };
        if !tracked.contains(word.text.as_str()) {
            findings.report(
                Rule::ScriptNotTracked,
                word.span,
                format!("no `track_script` names `{}`, it never runs", word.text),
            );
        } else if script.fall <= 1 && leaf(block, "fall").is_none() {
            findings.report(
                Rule::ScriptWithoutHysteresis,
                word.span,
                format!("one bad run of `{}` is enough for a failure", word.text),
            );
        }
    }
}

fn mail(findings: &mut Findings, tree: &Tree, config: &Config) {
    let mail = &config.global.mail;
    let missing = match (&mail.server, mail.to.is_empty()) {
        (Some(_), false) => return,
        (None, false) => "no mail server is named",
        (Some(_), true) => "nobody is named to receive it",
        (None, true) => "neither mail server nor recipient is named",
    };
    let asks = |statement: &Statement| {
        matches!(
            statement.spec.canonical(),
            "smtp_alert" | "smtp_alert_vrrp" | "smtp_alert_checker"
        ) && !matches!(first(statement), "off" | "false" | "no")
    };
    if let Some(statement) = find(&tree.statements, &asks) {
        findings.report(
            Rule::MailWithoutServer,
            statement.head(),
            format!("no alert can be sent: {missing}"),
        );
    }
}

/// The first statement with a property, whatever block it is in.
fn find<'a>(
    statements: &'a [Statement],
    wanted: &impl Fn(&Statement) -> bool,
) -> Option<&'a Statement> {
    statements.iter().find_map(|statement| {
        if wanted(statement) {
            return Some(statement);
        }
        find(statement.statements(), wanted)
    })
}

const MASTER: &str = "MASTER";

/// Bytes of a password that count.
const PASSWORD: usize = 8;

/// What manuals, tutorials and habit put there.
const KNOWN: &[&str] = &[
    "1111", "1234", "12345", "123456", "1234567", "12345678", "0000", "changeme", "keepaliv",
    "pass", "passwd", "password", "secret", "s3cret", "test", "vrrp", "k@l!ve1", "admin", "root",
];

//! The small blocks of the top level.

use std::time::Duration;

use super::{Context, address, route, rule};
use crate::diag::{Code, Consequence, Diagnostic};
use crate::dialect::Dialect;
use crate::model::{
    BfdInstance, Config, Family, GarpGroup, InitFile, InterfaceDelay, LinkbeatInterface,
    LinkbeatMethod, ParameterMatch, Ssl, TrackFile, TrackGroup, TrackProcess,
};
use crate::settings::Settings as _;
use crate::settings::settings;
use crate::source::Span;
use crate::tree::Statement;

settings! { BfdInstance {
    "multiplier" => multiplier,
    "passive" => passive,
    "max_hops" => max_hops,
    "multihop" => multihop,
} }

settings! { TrackProcess {
    "terminate_delay" => terminate_delay,
    "fork_delay" => fork_delay,
    "full_command" => full_command,
} }

settings! { GarpGroup {
    "garp_interval" => garp_interval,
    "gna_interval" => gna_interval,
} }

settings! { Ssl {
    "password" => password,
    "ca" => ca,
    "certificate" => certificate,
    "key" => key,
} }

pub(super) fn read(cx: &mut Context, statement: &Statement, config: &mut Config) {
    match statement.spec.canonical() {
        "linkbeat_interfaces" => linkbeat(cx, statement, &mut config.linkbeat_interfaces),
        "interface_up_down_delays" => delays(cx, statement, &mut config.interface_delays),
        "track_group" => track_group(cx, statement, &mut config.track_groups),
        "static_ipaddress" => {
            for line in statement.values() {
                let place = address::Place::Static(&config.track_groups);
                if let Some(mut address) = address::read(cx, line, &place) {
                    address
                        .interface
                        .get_or_insert_with(|| config.global.default_interface.clone());
                    config.static_addresses.push(address);
                }
            }
        }
        "static_routes" => {
            for line in statement.values() {
                let route = route::read(cx, line, Some(&config.track_groups));
                config.static_routes.extend(route);
            }
        }
        "static_rules" => {
            for line in statement.values() {
                let rule = rule::read(cx, line, Some(&config.track_groups));
                config.static_rules.extend(rule);
            }
        }
        "garp_group" => garp_group(cx, statement, &mut config.garp_groups),
        "track_file" => config.track_files.extend(track_file(cx, statement)),
        "vrrp_track_process" => config.track_processes.extend(track_process(cx, statement)),
        "bfd_instance" => bfd(cx, statement, &mut config.bfd_instances),
        "SSL" => ssl(cx, statement, &mut config.ssl),
        _ => {}
    }
}

fn linkbeat(cx: &mut Context, block: &Statement, list: &mut Vec<LinkbeatInterface>) {
    for line in block.values() {
        let Some(name) = cx.interface(&line.words[0]) else {
            continue;
        };
        let mut method = None;
        for (at, word) in line.words[1..].iter().enumerate() {
            let found = LinkbeatMethod::from_word(&word.text).filter(|_| at == 0);
            if found.is_none() {
                cx.push(
                    Diagnostic::new(
                        Code::InvalidValue,
                        Consequence::Warn,
                        word.span,
                        format!("unknown word `{}`, the interface is polled", word.text),
                    )
                    .expected("`MII`, `ETHTOOL` or `IOCTL`"),
                );
            }
            method = method.or(found);
        }
        list.push(LinkbeatInterface { name, method });
    }
}

fn delays(cx: &mut Context, block: &Statement, list: &mut Vec<InterfaceDelay>) {
    for line in block.values() {
        let Some(name) = cx.interface(&line.words[0]) else {
            continue;
        };
        let mut times = [Duration::ZERO; 2];
        let mut usable = true;
        for (word, time) in line.words[1..].iter().zip(&mut times) {
            match super::scalar::seconds(&word.text).filter(|t| *t <= Duration::from_secs(255)) {
                Some(value) => *time = value,
                None => {
                    usable = false;
                    cx.invalid(
                        word.span,
                        format!("`{}` is no delay", word.text),
                        "0 to 255 s",
                    );
                }
            }
        }
        if line.words.len() < 2 {
            cx.report(
                Code::InvalidValue,
                Consequence::Log,
                line.words[0].span,
                format!("interface `{name}` without delay is ignored"),
            );
        } else if usable {
            let [down, up] = times;
            list.push(InterfaceDelay { name, down, up });
        }
    }
}

fn track_group(cx: &mut Context, block: &Statement, groups: &mut Vec<TrackGroup>) {
    let Some(name) = block.args.first() else {
        return;
    };
    if groups.iter().any(|group| group.name == name.text.as_str()) {
        cx.report(
            Code::DuplicateVrrpInstance,
            Consequence::Drop,
            name.span,
            format!(
                "track_group `{}` is defined twice, the second block is skipped",
                name.text
            ),
        );
        return;
    }
    let mut members: Option<Vec<String>> = None;
    for statement in block.statements() {
        if members.is_some() {
            cx.report(
                Code::DuplicateKeyword,
                Consequence::Ignore,
                statement.keyword.span,
                "a second `group` is skipped",
            );
            continue;
        }
        let words = statement.values().iter().flat_map(|line| &line.words);
        members = Some(words.map(|word| word.text.to_string()).collect());
    }
    let Some(members) = members.filter(|members| !members.is_empty()) else {
        cx.push(
            Diagnostic::new(
                Code::EmptyBlock,
                Consequence::Drop,
                block.head(),
                format!("track_group `{}` has no members, it is dropped", name.text),
            )
            .expected("`group { NAME ... }`"),
        );
        return;
    };
    groups.push(TrackGroup {
        name: name.text.to_string(),
        members,
    });
}

fn garp_group(cx: &mut Context, block: &Statement, groups: &mut Vec<GarpGroup>) {
    let mut group = GarpGroup {
        garp_interval: None,
        gna_interval: None,
        interfaces: Vec::new(),
    };
    for statement in block.statements() {
        if group.set(cx, statement) {
            continue;
        }
        let words: Vec<_> = if statement.spec.name == "interface" {
            statement.args.iter().take(1).collect()
        } else {
            let lines = statement.values().iter();
            lines.flat_map(|line| &line.words).collect()
        };
        if words.is_empty() {
            cx.report(
                Code::EmptyBlock,
                Consequence::Warn,
                statement.keyword.span,
                format!("`{}` names nothing", statement.keyword.text),
            );
        }
        for word in words {
            let Some(name) = cx.interface(word) else {
                continue;
            };
            let taken = groups.iter().chain(std::iter::once(&group));
            if taken
                .flat_map(|group| &group.interfaces)
                .any(|old| *old == name)
            {
                cx.report(
                    Code::DuplicateGarpGroup,
                    Consequence::Ignore,
                    match cx.dialect {
                        Dialect::V2_2_7 => statement.close(),
                        Dialect::Newest => word.span,
                    },
                    format!("interface `{name}` is in a garp_group already"),
                );
            } else {
                group.interfaces.push(name);
            }
        }
    }
    if group.garp_interval.is_none() && group.gna_interval.is_none() {
        cx.push(
            Diagnostic::new(
                Code::GarpGroupWithoutDelay,
                Consequence::Drop,
                block.head(),
                "garp_group without interval is dropped",
            )
            .expected("`garp_interval <SECONDS>` or `gna_interval <SECONDS>`"),
        );
    } else {
        groups.push(group);
    }
}

/// `N [reverse]`. Both words may be complained about; what is usable is returned.
pub(super) fn weight(cx: &mut Context, statement: &Statement) -> Option<(i32, Option<bool>)> {
    let value = cx.number(statement);
    let mut reverse = None;
    if let Some(word) = statement.args.get(1) {
        match word.text.as_str() {
            "reverse" => reverse = Some(true),
            "noreverse" if statement.spec.args.contains("noreverse") => reverse = Some(false),
            _ => cx.push(
                Diagnostic::new(
                    Code::TrackOptionUnknown,
                    Consequence::Ignore,
                    word.span,
                    format!("unknown word `{}`", word.text),
                )
                .expected("`reverse`"),
            ),
        }
    }
    Some((i32::try_from(value?).ok()?, reverse))
}

/// The weight and direction of a tracked object.
pub(super) fn object_weight(cx: &mut Context, statement: &Statement) -> Option<(i16, bool)> {
    let (value, reverse) = weight(cx, statement)?;
    Some((i16::try_from(value).ok()?, reverse.unwrap_or(false)))
}

fn track_file(cx: &mut Context, block: &Statement) -> Option<TrackFile> {
    let name = block.args.first()?;
    let mut path: Option<String> = None;
    let (mut weight, mut reverse, mut init) = (1, false, None);
    for statement in block.statements() {
        match statement.spec.canonical() {
            "file" => cx.set(statement, &mut path),
            "weight" => {
                if weight != 1 {
                    cx.given_before(statement);
                } else {
                    (weight, reverse) = object_weight(cx, statement).unwrap_or((1, false));
                }
            }
            _ => init = Some(init_file(cx, statement)),
        }
    }
    let Some(path) = path else {
        cx.push(
            Diagnostic::new(
                Code::TrackFileWithoutFile,
                Consequence::Drop,
                cx.whole(block),
                format!("track_file `{}` names no file, it is dropped", name.text),
            )
            .expected("`file <PATH>`"),
        );
        return None;
    };
    Some(TrackFile {
        name: name.text.to_string(),
        path,
        weight,
        reverse,
        init,
    })
}

fn init_file(cx: &mut Context, statement: &Statement) -> InitFile {
    let mut init = InitFile {
        value: 0,
        overwrite: false,
    };
    for word in &statement.args {
        if word.text.as_str() == "overwrite" {
            init.overwrite = true;
        } else if word
            .text
            .starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '+')
        {
            if let Some(value) = cx
                .int("init_file", word, i64::from(i32::MIN)..=i64::from(i32::MAX))
                .and_then(|value| i32::try_from(value).ok())
            {
                init.value = value;
                if !(-254..=254).contains(&value) {
                    cx.push(
                        Diagnostic::new(
                            Code::WeightOutOfRange,
                            Consequence::Warn,
                            word.span,
                            format!("{value} is more than a priority can take"),
                        )
                        .expected("-254 to 254"),
                    );
                }
            }
        } else {
            cx.invalid(
                word.span,
                format!("unknown word `{}`", word.text),
                "a number or `overwrite`",
            );
        }
    }
    init
}

fn track_process(cx: &mut Context, block: &Statement) -> Option<TrackProcess> {
    let name = block.args.first()?;
    let mut process = TrackProcess::named(&name.text);
    for statement in block.statements() {
        match statement.spec.canonical() {
            "process" => {
                if process.command.is_empty() {
                    process.command = statement.args.iter().map(|w| w.text.to_string()).collect();
                } else {
                    cx.given_before(statement);
                }
            }
            "param_match" => {
                process.parameters = match statement.args.first() {
                    None => Some(ParameterMatch::Exact),
                    Some(_) => cx
                        .word_arg(
                            statement,
                            |word| {
                                ParameterMatch::from_word(word)
                                    .filter(|m| *m != ParameterMatch::Exact)
                            },
                            &[ParameterMatch::Initial, ParameterMatch::Partial],
                        )
                        .or(process.parameters),
                };
            }
            "weight" => {
                if process.weight != 0 {
                    cx.given_before(statement);
                } else if let Some(value) = object_weight(cx, statement) {
                    (process.weight, process.reverse) = value;
                }
            }
            "quorum" => {
                let mut quorum = process.quorum;
                cx.set(statement, &mut quorum);
                if process.quorum_max.is_some_and(|most| quorum > most) {
                    contradicts(cx, statement.head(), "the quorum exceeds quorum_max");
                } else {
                    process.quorum = quorum;
                }
            }
            "quorum_max" => {
                let mut most = process.quorum_max;
                cx.set(statement, &mut most);
                match most {
                    Some(0) if process.quorum <= 1 => {
                        (process.quorum, process.quorum_max) = (0, Some(0));
                    }
                    Some(most) if most < process.quorum => {
                        contradicts(cx, statement.head(), "quorum_max is below the quorum");
                    }
                    most => process.quorum_max = most,
                }
            }
            "delay" => {
                cx.set(statement, &mut process.terminate_delay);
                process.fork_delay = process.terminate_delay;
            }
            _ => {
                process.set(cx, statement);
            }
        }
    }
    if process.command.is_empty() {
        cx.push(
            Diagnostic::new(
                Code::TrackProcessWithoutProcess,
                Consequence::Drop,
                cx.whole(block),
                format!(
                    "vrrp_track_process `{}` names no process, it is dropped",
                    name.text
                ),
            )
            .expected("`process <PATH>`"),
        );
        return None;
    }
    Some(process)
}

fn contradicts(cx: &mut Context, span: Span, why: &str) {
    cx.report(
        Code::InvalidValue,
        Consequence::Ignore,
        span,
        format!("{why}, it is ignored"),
    );
}

fn bfd(cx: &mut Context, block: &Statement, list: &mut Vec<BfdInstance>) {
    let Some(name) = block.args.first() else {
        return;
    };
    if let Some(why) = if name.text.len() > 31 {
        Some("has a name of more than 31 bytes")
    } else if list.iter().any(|old| old.name == name.text.as_str()) {
        Some("is defined twice")
    } else {
        None
    } {
        cx.report(
            Code::DuplicateVrrpInstance,
            Consequence::Drop,
            name.span,
            format!("bfd_instance `{}` {why}, this block is skipped", name.text),
        );
        return;
    }
    let mut neighbor = None;
    let mut ttl: Option<u8> = None;
    let mut hops: Option<Span> = None;
    let (mut vrrp, mut checker) = (false, false);
    let mut bfd = BfdInstance::named(&name.text, std::net::Ipv4Addr::UNSPECIFIED.into());
    for statement in block.statements() {
        match statement.spec.canonical() {
            "neighbor_ip" => {
                neighbor = cx.address_arg(statement, Code::BfdNoNeighbor);
                if neighbor.is_none() {
                    return;
                }
            }
            "source_ip" => {
                bfd.source = cx.address_arg(statement, Code::InvalidValue).or(bfd.source);
            }
            "min_rx" | "min_tx" | "idle_tx" => {
                let slot = match statement.spec.name {
                    "min_rx" => &mut bfd.min_rx,
                    "min_tx" => &mut bfd.min_tx,
                    _ => &mut bfd.idle_tx,
                };
                cx.set(statement, slot);
                if *slot > Duration::from_secs(10) {
                    cx.report(
                        Code::InvalidValue,
                        Consequence::Log,
                        statement.head(),
                        format!("`{}` is more than 10 s", statement.keyword.text),
                    );
                }
            }
            "ttl" | "hoplimit" => cx.set(statement, &mut ttl),
            "weight" => {
                (bfd.weight, bfd.reverse) =
                    object_weight(cx, statement).unwrap_or((bfd.weight, bfd.reverse));
            }
            "vrrp" => vrrp = true,
            "checker" => checker = true,
            name => {
                if name == "max_hops" {
                    hops = Some(statement.head());
                }
                bfd.set(cx, statement);
            }
        }
    }
    let Some(neighbor) = neighbor else {
        cx.push(
            Diagnostic::new(
                Code::BfdNoNeighbor,
                Consequence::Drop,
                cx.whole(block),
                format!(
                    "bfd_instance `{}` has no neighbour, it is dropped",
                    name.text
                ),
            )
            .expected("`neighbor_ip <IPADDR>`"),
        );
        return;
    };
    bfd.neighbor = neighbor;
    if bfd
        .source
        .is_some_and(|source| Family::of(source) != Family::of(neighbor))
    {
        cx.report(
            Code::FamilyMismatch,
            Consequence::Drop,
            block.head(),
            format!(
                "bfd_instance `{}` has addresses of both families, it is dropped",
                name.text
            ),
        );
        return;
    }
    bfd.ttl = ttl.unwrap_or_else(|| BfdInstance::default_ttl(neighbor));
    if bfd.max_hops > i16::from(bfd.ttl) {
        bfd.max_hops = i16::from(bfd.ttl);
        cx.report(
            Code::InvalidValue,
            Consequence::Adjust,
            hops.unwrap_or_else(|| block.head()),
            format!("max_hops exceeds the ttl, it becomes {}", bfd.ttl),
        );
    }
    if vrrp != checker {
        (bfd.vrrp, bfd.checker) = (vrrp, checker);
    }
    let twin = list.iter().find(|old| {
        old.neighbor == neighbor
            && old.multihop == bfd.multihop
            && (old.source == bfd.source || old.source.is_none() || bfd.source.is_none())
    });
    if let Some(twin) = twin {
        cx.report(
            Code::DuplicateVrrpInstance,
            Consequence::Drop,
            block.head(),
            format!(
                "bfd_instance `{}` is the session of `{}`, it is dropped",
                name.text, twin.name
            ),
        );
        return;
    }
    list.push(bfd);
}

fn ssl(cx: &mut Context, block: &Statement, slot: &mut Option<Ssl>) {
    if slot.is_some() {
        cx.report(
            Code::DuplicateKeyword,
            Consequence::Warn,
            block.keyword.span,
            "a second `SSL` block replaces the first",
        );
    }
    let mut ssl = Ssl::default();
    let mut seen: Vec<&str> = Vec::new();
    for statement in block.statements() {
        if seen.contains(&statement.spec.name) {
            cx.report(
                Code::DuplicateKeyword,
                Consequence::Warn,
                statement.keyword.span,
                format!(
                    "`{}` is given twice, the last one counts",
                    statement.keyword.text
                ),
            );
        }
        seen.push(statement.spec.name);
        ssl.set(cx, statement);
    }
    *slot = Some(ssl);
}

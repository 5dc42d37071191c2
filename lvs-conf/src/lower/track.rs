//! Tracking lines and notify scripts, which instances and sync groups share.

use super::Context;
use crate::diag::{Code, Consequence, Diagnostic};
use crate::keywords::nearest;
use crate::model::{Config, Notify, Track, Tracking};
use crate::settings::{Settings as _, settings};
use crate::tree::{Statement, Tree, ValueLine};

/// Names that tracking lines may refer to, with the offset of their definition: only earlier ones count.
#[derive(Default)]
pub(super) struct Names {
    names: Vec<(Kind, String, usize)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Script,
    File,
    Process,
    Bfd,
    /// A BFD instance that tells checkers.
    CheckerBfd,
}

impl Names {
    /// Of every usable definition.
    pub(super) fn of(tree: &Tree, config: &Config) -> Self {
        let mut names = Vec::new();
        for (at, statement) in tree.statements.iter().enumerate() {
            let Some(name) = statement.args.first() else {
                continue;
            };
            let name = name.text.as_str();
            let (kind, usable) = match statement.spec.canonical() {
                "vrrp_script" => (Kind::Script, config.scripts.iter().any(|s| s.name == name)),
                "track_file" => (
                    Kind::File,
                    config.track_files.iter().any(|f| f.name == name),
                ),
                "vrrp_track_process" => (
                    Kind::Process,
                    config.track_processes.iter().any(|p| p.name == name),
                ),
                // The VRRP part knows sessions that the BFD part has dropped.
                "bfd_instance" => {
                    let for_checkers = statement
                        .statements()
                        .iter()
                        .any(|s| s.spec.name == "checker");
                    let for_instances =
                        statement.statements().iter().any(|s| s.spec.name == "vrrp");
                    (Kind::Bfd, for_instances || !for_checkers)
                }
                _ => continue,
            };
            if usable {
                names.push((kind, name.to_owned(), at));
            }
            let for_checkers = |b: &crate::model::BfdInstance| b.name == name && b.checker;
            if kind == Kind::Bfd && config.bfd_instances.iter().any(for_checkers) {
                names.push((Kind::CheckerBfd, name.to_owned(), at));
            }
        }
        Self { names }
    }

    /// A tracked file of that name is defined before this place.
    pub(super) fn has_file(&self, name: &str, before: usize) -> bool {
        self.of_kind(Kind::File)
            .any(|(own, at)| own == name && at < before)
    }

    /// A BFD instance of that name that tells checkers is defined before this place.
    pub(super) fn has_checker_bfd(&self, name: &str, before: usize) -> bool {
        self.of_kind(Kind::CheckerBfd)
            .any(|(own, at)| own == name && at < before)
    }

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&str, usize)> {
        self.names
            .iter()
            .filter(move |n| n.0 == kind)
            .map(|n| (n.1.as_str(), n.2))
    }
}

/// Reads a tracking block; false if the statement is none. `block` is the place of the object in the file.
pub(super) fn read(
    cx: &mut Context,
    statement: &Statement,
    names: &Names,
    block: usize,
    track: &mut Tracking,
) -> bool {
    let (kind, limit, list) = match statement.spec.canonical() {
        "track_interface" => (None, 253, &mut track.interfaces),
        "track_script" => (Some(Kind::Script), 253, &mut track.scripts),
        "track_file" => (Some(Kind::File), 254, &mut track.files),
        "track_process" => (Some(Kind::Process), 254, &mut track.processes),
        "track_bfd" => (Some(Kind::Bfd), 253, &mut track.bfd),
        _ => return false,
    };
    for line in statement.values() {
        let entry = self::line(cx, line, kind, limit, names, block);
        if let Some(entry) = entry {
            if list.iter().any(|old| old.name == entry.name) {
                cx.report(
                    Code::DuplicateTrackEntry,
                    Consequence::Ignore,
                    line.words[0].span,
                    format!("`{}` is tracked twice", entry.name),
                );
            } else {
                list.push(entry);
            }
        }
    }
    true
}

settings! { Notify {
    "notify_master" => master,
    "notify_backup" => backup,
    "notify_fault" => fault,
    "notify_stop" => stop,
    "notify" => any,
    "notify_master_rx_lower_pri" => master_rx_lower_pri,
    "notify_priority_changes" => priority_changes,
} }

/// Reads a notify keyword; false if the statement is none.
pub(super) fn notify(cx: &mut Context, statement: &Statement, notify: &mut Notify) -> bool {
    if statement.spec.name != "notify_deleted" {
        return notify.set(cx, statement);
    }
    if notify.report_deleted {
        cx.given_before(statement);
    } else {
        notify.report_deleted = true;
        if !statement.args.is_empty() {
            notify.deleted = cx.script_arg(statement);
        }
    }
    true
}

fn line(
    cx: &mut Context,
    line: &ValueLine,
    kind: Option<Kind>,
    limit: i64,
    names: &Names,
    block: usize,
) -> Option<Track> {
    let (first, options) = line.words.split_first()?;
    if let Some(kind) = kind {
        let earlier = names
            .of_kind(kind)
            .any(|(name, at)| name == first.text.as_str() && at < block);
        if !earlier {
            undefined(cx, line, kind, names);
            return None;
        }
    } else {
        cx.interface(first)?;
    }
    let mut track = Track {
        name: first.text.to_string(),
        weight: None,
        reverse: None,
    };
    let Some(option) = options.first() else {
        return Some(track);
    };
    if option.text.as_str() != "weight" || options.len() < 2 {
        cx.push(
            Diagnostic::new(
                Code::TrackOptionUnknown,
                Consequence::Drop,
                option.span,
                format!(
                    "`{}` is not a complete tracking option, the line is dropped",
                    option.text
                ),
            )
            .expected("`weight N [reverse]`"),
        );
        return None;
    }
    track.weight = match cx.int("weight", &options[1], i64::MIN..=i64::MAX) {
        Some(weight) if weight.abs() <= limit => i16::try_from(weight).ok(),
        Some(weight) => {
            let interface_clamp = kind.is_none() && weight.abs() == limit + 1;
            let used = match (kind, interface_clamp) {
                (None, true) => Some(if weight < 0 { -limit } else { limit }),
                (None, false) => Some(0),
                (Some(_), _) => None,
            };
            cx.push(
                Diagnostic::new(
                    Code::WeightOutOfRange,
                    Consequence::Adjust,
                    options[1].span,
                    format!("weight {weight} is out of range"),
                )
                .expected(format!("-{limit} to {limit}")),
            );
            used.and_then(|w| i16::try_from(w).ok())
        }
        None => None,
    };
    match options.get(2) {
        None => {}
        Some(word) if word.text.as_str() == "reverse" => track.reverse = Some(true),
        Some(word) if word.text.as_str() == "noreverse" && kind.is_some() => {
            track.reverse = Some(false);
        }
        Some(word) => {
            cx.push(
                Diagnostic::new(
                    Code::TrackOptionUnknown,
                    Consequence::Ignore,
                    word.span,
                    format!("unknown word `{}`", word.text),
                )
                .expected("`reverse`"),
            );
            if matches!(kind, Some(Kind::File | Kind::Bfd)) {
                return None;
            }
        }
    }
    Some(track)
}

fn undefined(cx: &mut Context, line: &ValueLine, kind: Kind, names: &Names) {
    let first = &line.words[0];
    let (code, what) = match kind {
        Kind::Script => (Code::TrackScriptUndefined, "script"),
        Kind::File => (Code::TrackFileUndefined, "track file"),
        Kind::Process => (Code::TrackProcessUndefined, "track process"),
        Kind::Bfd | Kind::CheckerBfd => (Code::TrackBfdUndefined, "BFD instance"),
    };
    let mut diagnostic = Diagnostic::new(
        code,
        Consequence::Drop,
        first.span,
        format!("{what} `{}` is not defined before this line", first.text),
    );
    if names
        .of_kind(kind)
        .any(|(name, _)| name == first.text.as_str())
    {
        diagnostic = diagnostic.hint("move its definition above this block");
    } else if let Some(near) = nearest(&first.text, names.of_kind(kind).map(|n| n.0)) {
        diagnostic = diagnostic.hint(format!("did you mean `{near}`?"));
    }
    cx.push(diagnostic);
}

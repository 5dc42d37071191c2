//! Tracking lines and notify scripts, which instances and sync groups share.

use super::Context;
use crate::diag::{Code, Consequence, Diagnostic};
use crate::keywords::nearest;
use crate::model::{Notify, Track, Tracking};
use crate::tree::{Statement, Tree, ValueLine};

/// Names that tracking lines may refer to, with the offset of their definition: only earlier ones count.
#[derive(Default)]
pub(super) struct Names {
    names: Vec<(Kind, String, u32)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Script,
    File,
    Process,
    Bfd,
}

impl Names {
    /// Of every definition in the tree; scripts only if they are usable.
    pub(super) fn of(tree: &Tree, scripts: &[String]) -> Self {
        let mut names = Vec::new();
        for statement in &tree.statements {
            let kind = match statement.spec.canonical() {
                "vrrp_script" => Kind::Script,
                "track_file" => Kind::File,
                "vrrp_track_process" => Kind::Process,
                "bfd_instance" => Kind::Bfd,
                _ => continue,
            };
            let Some(name) = statement.args.first() else {
                continue;
            };
            if kind != Kind::Script || scripts.iter().any(|script| *script == name.text) {
                names.push((kind, name.text.to_string(), statement.keyword.span.start));
            }
        }
        Self { names }
    }

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&str, u32)> {
        self.names
            .iter()
            .filter(move |n| n.0 == kind)
            .map(|n| (n.1.as_str(), n.2))
    }
}

/// Reads a tracking block; false if the statement is none.
pub(super) fn read(
    cx: &mut Context,
    statement: &Statement,
    names: &Names,
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
        let entry = self::line(cx, line, kind, limit, names);
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

/// Reads a notify script; false if the statement is none.
pub(super) fn notify(cx: &mut Context, statement: &Statement, notify: &mut Notify) -> bool {
    let slot = match statement.spec.canonical() {
        "notify_master" => &mut notify.master,
        "notify_backup" => &mut notify.backup,
        "notify_fault" => &mut notify.fault,
        "notify_stop" => &mut notify.stop,
        "notify" => &mut notify.any,
        "notify_master_rx_lower_pri" => &mut notify.master_rx_lower_pri,
        "notify_deleted" => &mut notify.deleted,
        "notify_priority_changes" => {
            notify.priority_changes = cx.bool_arg(statement).or(notify.priority_changes);
            return true;
        }
        _ => return false,
    };
    let script = cx.script_arg(statement);
    cx.first_wins(statement, slot, script);
    true
}

fn line(
    cx: &mut Context,
    line: &ValueLine,
    kind: Option<Kind>,
    limit: i64,
    names: &Names,
) -> Option<Track> {
    let (first, options) = line.words.split_first()?;
    if let Some(kind) = kind {
        let earlier = names
            .of_kind(kind)
            .any(|(name, at)| name == first.text && at < first.span.start);
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
    if option.text != "weight" || options.len() < 2 {
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
        Some(word) if word.text == "reverse" => track.reverse = Some(true),
        Some(word) if word.text == "noreverse" && kind.is_some() => track.reverse = Some(false),
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
        Kind::Bfd => (Code::TrackBfdUndefined, "BFD instance"),
    };
    let mut diagnostic = Diagnostic::new(
        code,
        Consequence::Drop,
        first.span,
        format!("{what} `{}` is not defined before this line", first.text),
    );
    if names.of_kind(kind).any(|(name, _)| name == first.text) {
        diagnostic = diagnostic.hint("move its definition above this block");
    } else if let Some(near) = nearest(&first.text, names.of_kind(kind).map(|n| n.0)) {
        diagnostic = diagnostic.hint(format!("did you mean `{near}`?"));
    }
    cx.push(diagnostic);
}

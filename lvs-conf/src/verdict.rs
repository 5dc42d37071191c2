//! Findings in the notation of recorded verdicts: `kind(argument)@line`.

use std::collections::HashSet;
use std::fmt;

use crate::diag::{Class, Code, Diagnostic};
use crate::source::{SourceMap, Span, to_offset};

/// One complaint of keepalived's config test.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Complaint {
    /// The kind.
    pub kind: &'static str,
    /// The word that it is about, for kinds that name one.
    pub argument: Option<String>,
    /// The line, for what is found while reading.
    pub line: Option<u32>,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind)?;
        if let Some(argument) = &self.argument {
            write!(f, "({argument})")?;
        }
        if let Some(line) = self.line {
            write!(f, "@{line}")?;
        }
        Ok(())
    }
}

/// The complaints that findings stand for, sorted by line, those without line last. What is only logged is none, and a finding
/// may stand for several: keepalived complains about a number and again about the keyword that cannot use it.
pub fn complaints(sources: &SourceMap, diagnostics: &[Diagnostic]) -> Vec<Complaint> {
    let mut out = Vec::new();
    let mut seen = HashSet::new();
    for diagnostic in diagnostics.iter().filter(|d| d.class() != Class::Ok) {
        let line = sources.position(diagnostic.span).line;
        for code in std::iter::once(&diagnostic.code).chain(&diagnostic.also) {
            let complaint = Complaint {
                kind: kind(*code),
                argument: argument(*code, diagnostic, sources),
                line: code.is_found_while_reading().then_some(line),
            };
            // Complaints without line are told apart by their text, in which only these name their object.
            let object = (*code == Code::TrackOwnInterface)
                .then(|| diagnostic.message.rsplit('`').nth(1).map(str::to_owned));
            if !is_about_machine(*code)
                && (complaint.line.is_some() || seen.insert((complaint.clone(), object)))
            {
                out.push(complaint);
            }
        }
    }
    out.sort_by(|a, b| {
        let key = |c: &Complaint| (c.line.is_none(), c.line);
        key(a).cmp(&key(b)).then_with(|| a.cmp(b))
    });
    out
}

/// The record has one name for both ways to lack an interface.
fn kind(code: Code) -> &'static str {
    match code {
        Code::UnicastNoSource => Code::NoInterface.as_str(),
        code => code.as_str(),
    }
}

/// Complaints that are not about the text.
fn is_about_machine(code: Code) -> bool {
    matches!(
        code,
        Code::ScriptUserInvalid | Code::ScriptUserMissing | Code::RtPriorityClamped
    )
}

/// What the record names in brackets: the word, the keyword of its line, or the object that the message names first.
fn argument(code: Code, diagnostic: &Diagnostic, sources: &SourceMap) -> Option<String> {
    match code {
        Code::InvalidValue if diagnostic.code == Code::NumberOutOfRange => {
            let name = keyword(sources, diagnostic.span);
            Some(name.strip_prefix("vrrp_").unwrap_or(&name).to_owned())
        }
        Code::ZeroRaisedToOne => Some(keyword(sources, diagnostic.span)),
        Code::DuplicateKeyword => {
            Some(keyword(sources, diagnostic.span)).filter(|name| name.starts_with("notify"))
        }
        Code::VrrpScriptWithoutScript => diagnostic.message.split('`').nth(1).map(str::to_owned),
        Code::UnknownKeyword
        | Code::MissingArgument
        | Code::Deprecated
        | Code::InvalidNumber
        | Code::InvalidValue
        | Code::NumberOutOfRange
        | Code::NegativeNumber
        | Code::UnknownForwardingMethod
        | Code::UnknownScheduler
        | Code::UnknownState
        | Code::TrackScriptUndefined
        | Code::TrackFileUndefined
        | Code::TrackProcessUndefined
        | Code::TrackBfdUndefined
        | Code::SyncGroupMemberUndefined => Some(word(sources, diagnostic.span)),
        _ => None,
    }
}

/// The first word of the line that a span starts on.
fn keyword(sources: &SourceMap, span: Span) -> String {
    let text = sources
        .get(span.source)
        .map_or(&[][..], |source| source.bytes());
    let before = &text[..(span.start as usize).min(text.len())];
    let start = before
        .iter()
        .rposition(|b| *b == b'\n')
        .map_or(0, |at| at + 1);
    word(
        sources,
        Span {
            start: to_offset(start),
            ..span
        },
    )
}

/// The first word of a span, without quotes.
fn word(sources: &SourceMap, span: Span) -> String {
    let text = String::from_utf8_lossy(sources.text(span)).into_owned();
    let text = text.split_ascii_whitespace().next().unwrap_or_default();
    text.trim_matches('"').to_owned()
}

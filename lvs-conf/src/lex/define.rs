//! Parameters: what a name stands for, and references to it.

use std::collections::HashMap;
use std::sync::Arc;

use super::reader::{Body, Frame, Reader, name_len};
use super::{Line, MAX_LINE, is_blank};
use crate::diag::{Code, Consequence, Diagnostic};
use crate::dialect::Dialect;
use crate::source::{Expansion, Span};

/// What every name stands for at this point of the reading.
#[derive(Debug)]
pub(super) struct Definitions {
    values: HashMap<String, Definition>,
    random: u64,
}

#[derive(Debug)]
struct Definition {
    lines: Arc<[Vec<u8>]>,
    span: Span,
}

/// A line after references were replaced.
pub(super) struct Substituted {
    pub(super) text: Vec<u8>,
    /// One for every byte.
    pub(super) spans: Vec<Span>,
}

impl Definitions {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            values: HashMap::new(),
            random: seed,
        }
    }

    pub(super) fn set(&mut self, name: String, lines: Arc<[Vec<u8>]>, span: Span) {
        self.values.insert(name, Definition { lines, span });
    }

    pub(super) fn seed(&mut self, seed: u64) {
        self.random = seed;
    }

    /// Evenly spread over the range, both ends included (splitmix64).
    fn random(&mut self, from: u64, to: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.random;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        let count = to.saturating_sub(from).saturating_add(1);
        from + x % count
    }
}

/// A reference as written.
struct Reference {
    name: String,
    args: Vec<String>,
    end: usize,
}

/// What a reference is replaced by.
struct Value {
    lines: Arc<[Vec<u8>]>,
    /// `None` for what the language predefines.
    definition: Option<Span>,
}

impl Reader<'_> {
    /// Replaces the references of a line; `None` if there is nothing to replace.
    ///
    /// The replacement is looked at again from its start. A multi-line parameter leaves its first line here and its other
    /// lines to be read next.
    pub(super) fn substitute(&mut self, line: &Line) -> Option<Substituted> {
        let mut text = line.bytes().to_vec();
        let mut spans = line.spans();
        let mut at = 0;
        let mut replaced = 0;
        // Names whose values the scan is in, with the bytes that follow the value.
        let mut active: Vec<(String, usize)> = Vec::new();
        while let Some(dollar) = text[at..].iter().position(|b| *b == b'$') {
            at += dollar;
            let Some(reference) = reference(&text, at) else {
                at += 1;
                continue;
            };
            let end = reference.end;
            let span = spans[at].to(spans[end - 1]);
            active.retain(|(_, tail)| text.len() - at > *tail);
            let replaying =
                |frame: &Frame| matches!(frame, Frame::Body(body) if body.name == reference.name);
            if active.iter().any(|(name, _)| *name == reference.name)
                || self.frames.iter().any(replaying)
                || replaced == MAX_REPLACED
            {
                self.refers_to_itself(&reference.name, span);
                at = end;
                continue;
            }
            let Some(value) = self.value(&reference, span) else {
                at += 1;
                continue;
            };
            let [first, rest @ ..] = &value.lines[..] else {
                at += 1;
                continue;
            };
            if !rest.is_empty() && end != text.len() {
                self.diagnostics.push(
                    Diagnostic::new(
                        Code::ParameterInvalid,
                        Consequence::Ignore,
                        span,
                        format!(
                            "`{}` has several lines and is not the last word, it is not replaced",
                            reference.name
                        ),
                    )
                    .hint("put what follows on a line of its own"),
                );
                at = end;
                continue;
            }
            if text.len() - (end - at) + first.len() > MAX_LINE {
                self.diagnostics.push(Diagnostic::new(
                    Code::LineTooLong,
                    Consequence::Log,
                    span,
                    format!(
                        "with `{}` the line would have more than 1023 bytes, it is not replaced",
                        reference.name
                    ),
                ));
                break;
            }
            if let Some(definition) = value.definition {
                self.sources.expanded(Expansion {
                    name: reference.name.clone(),
                    reference: span,
                    definition,
                });
            }
            active.push((reference.name.clone(), text.len() - end));
            text.splice(at..end, first.iter().copied());
            spans.splice(at..end, std::iter::repeat_n(span, first.len()));
            replaced += 1;
            if !rest.is_empty() {
                self.frames.push(Frame::Body(Body {
                    name: reference.name,
                    lines: Arc::clone(&value.lines),
                    next: 1,
                    reference: span,
                }));
            }
            // A sequence's variables must not be replaced before it runs.
            if first.iter().find(|b| !is_blank(**b)) == Some(&b'~') {
                break;
            }
        }
        (replaced > 0).then_some(Substituted { text, spans })
    }

    fn value(&mut self, reference: &Reference, span: Span) -> Option<Value> {
        if let Some(definition) = self.definitions.values.get(&reference.name) {
            return reference.args.is_empty().then(|| Value {
                lines: Arc::clone(&definition.lines),
                definition: Some(definition.span),
            });
        }
        let text = self.predefined(reference, span)?;
        Some(Value {
            lines: [text.into_bytes()].into(),
            definition: None,
        })
    }

    fn predefined(&mut self, reference: &Reference, span: Span) -> Option<String> {
        let args = &reference.args[..];
        match (reference.name.as_str(), args) {
            ("_PWD", []) => Some(self.directory().to_owned()),
            ("_INSTANCE", []) => Some(self.options.config_id.clone()),
            ("_HASH", []) => Some("#".to_owned()),
            ("_BANG", []) => Some("!".to_owned()),
            ("_ENV", _) if self.options.dialect == Dialect::V2_2_7 => None,
            ("_ENV", [name]) => Some(
                self.options
                    .environment
                    .get(name)
                    .cloned()
                    .unwrap_or_default(),
            ),
            ("_RANDOM", [] | [_] | [_, _]) if args.iter().all(|arg| arg.parse::<u64>().is_ok()) => {
                let number = |at: usize| args.get(at).and_then(|arg| arg.parse().ok());
                let from = number(0).unwrap_or(0);
                let to = number(1).unwrap_or(MAX_RANDOM);
                if from > to {
                    self.bad_arguments(reference, span, "the first number is the smaller one");
                }
                Some(self.definitions.random(from, to).to_string())
            }
            ("_RANDOM", _) => {
                self.bad_arguments(reference, span, "up to two numbers");
                None
            }
            ("_ENV", _) => {
                self.bad_arguments(reference, span, "the name of one variable");
                None
            }
            _ => None,
        }
    }

    fn bad_arguments(&mut self, reference: &Reference, span: Span, expected: &str) {
        if self.options.dialect != Dialect::V2_2_7 {
            self.diagnostics.push(
                Diagnostic::new(
                    Code::ParameterInvalid,
                    Consequence::Ignore,
                    span,
                    format!("`{}` cannot take these arguments", reference.name),
                )
                .expected(expected),
            );
        }
    }

    fn refers_to_itself(&mut self, name: &str, span: Span) {
        let mut diagnostic = Diagnostic::new(
            Code::ParameterLoop,
            Consequence::Ignore,
            span,
            format!("`{name}` stands for text that refers to `{name}` again, it is not replaced"),
        );
        if let Some(definition) = self.definitions.values.get(name) {
            diagnostic = diagnostic.note(definition.span, "defined here");
        }
        if self.diagnostics.last() != Some(&diagnostic) {
            self.diagnostics.push(diagnostic);
        }
    }
}

/// The reference that starts with the `$` at this offset, if it is one.
fn reference(text: &[u8], dollar: usize) -> Option<Reference> {
    let rest = &text[dollar + 1..];
    let word = |from: usize, len: usize| String::from_utf8_lossy(&rest[from..from + len]).into();
    if rest.first() == Some(&b'{') {
        let len = name_len(&rest[1..]);
        let close = rest.iter().position(|b| *b == b'}')?;
        let args = rest.get(1 + len..close)?;
        let allowed = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_' || is_blank(*b);
        let separated = args.is_empty()
            || (is_blank(args[0])
                && args.iter().all(allowed)
                && !args.last().is_some_and(|b| is_blank(*b)));
        if len == 0 || !separated {
            return None;
        }
        let args = String::from_utf8_lossy(args);
        return Some(Reference {
            name: word(1, len),
            args: args.split_ascii_whitespace().map(str::to_owned).collect(),
            end: dollar + 1 + close + 1,
        });
    }
    let len = name_len(rest);
    let ends = rest
        .get(len)
        .is_none_or(|b| is_blank(*b) || matches!(b, b',' | b')'));
    (len > 0 && ends).then(|| Reference {
        name: word(0, len),
        args: Vec::new(),
        end: dollar + 1 + len,
    })
}

const MAX_RANDOM: u64 = 32767;

/// More references than a line can hold, those within values included.
const MAX_REPLACED: usize = 4096;

//! `~SEQ` and `~LST`: one line read several times.

use super::define::Definitions;
use super::reader::{Frame, Reader};
use super::{Line, is_blank};
use crate::diag::{Code, Consequence, Diagnostic};
use crate::source::Span;

/// A line that is read once for every value of its variables.
#[derive(Debug)]
pub(super) struct Sequence {
    variables: Vec<String>,
    values: Values,
    rest: Line,
    span: Span,
}

#[derive(Debug)]
enum Values {
    Numbers {
        next: Option<i64>,
        step: i64,
        end: i64,
        hex: bool,
    },
    /// For every round the values of all variables.
    Lists {
        next: usize,
        rounds: Vec<Vec<String>>,
    },
}

impl Sequence {
    pub(super) fn next(&mut self, definitions: &mut Definitions) -> Option<Line> {
        let values = match &mut self.values {
            Values::Numbers {
                next,
                step,
                end,
                hex,
            } => {
                let value = next.take()?;
                *next = value.checked_add(*step).filter(|value| {
                    if *step > 0 {
                        value <= end
                    } else {
                        value >= end
                    }
                });
                vec![if *hex {
                    format!("{value:x}")
                } else {
                    value.to_string()
                }]
            }
            Values::Lists { next, rounds } => {
                let values = rounds.get(*next)?;
                *next += 1;
                values.clone()
            }
        };
        for (name, value) in self.variables.iter().zip(values) {
            definitions.set(name.clone(), [value.into_bytes()].into(), self.span);
        }
        Some(self.rest.clone())
    }
}

impl Reader<'_> {
    /// Starts the sequence that a line asks for. `false` if it is no sequence; a wrong one is reported and ignored.
    pub(super) fn start_sequence(&mut self, line: &Line) -> bool {
        let bytes = line.bytes();
        let is_list = bytes.starts_with(b"~LST");
        if !is_list && !bytes.starts_with(b"~SEQ") {
            return false;
        }
        let hex = bytes.get(4) == Some(&b'x') && !is_list;
        let after = 4 + usize::from(hex);
        let open = bytes[after..].iter().take_while(|b| is_blank(**b)).count() + after;
        let close = bytes.iter().position(|b| *b == b')');
        let (Some(b'('), Some(close)) = (bytes.get(open), close) else {
            self.bad_sequence(line, "`(VARIABLE, ...)` after it");
            return true;
        };
        let inner = line.part((open + 1).min(close), close);
        // Bounds may be parameters.
        let inner = match self.substitute(&inner) {
            Some(replaced) => replaced.text,
            None => inner.bytes().to_vec(),
        };
        let inner = String::from_utf8_lossy(&inner).into_owned();
        let parsed = if is_list {
            lists(&inner)
        } else {
            numbers(&inner, hex)
        };
        match parsed {
            Ok((variables, values)) => self.frames.push(Frame::Sequence(Sequence {
                variables,
                values,
                rest: line.part(close + 1, bytes.len()).trimmed(),
                span: line.part(0, close + 1).span(),
            })),
            Err(expected) => self.bad_sequence(line, expected),
        }
        true
    }

    fn bad_sequence(&mut self, line: &Line, expected: &str) {
        self.diagnostics.push(
            Diagnostic::new(
                Code::SequenceInvalid,
                Consequence::Ignore,
                line.span(),
                "the sequence cannot be read, the line is ignored",
            )
            .expected(expected),
        );
    }
}

type Parsed = Result<(Vec<String>, Values), &'static str>;

fn numbers(inner: &str, hex: bool) -> Parsed {
    let mut parts = inner.split(',').map(str::trim);
    let name = parts.next().filter(|name| is_name(name));
    let name = name.ok_or("a variable before the first comma")?;
    let numbers: Vec<i64> = parts
        .map(number)
        .collect::<Option<_>>()
        .ok_or("whole numbers between the commas")?;
    let (start, step, end) = match numbers[..] {
        [end] => (
            if end < 0 { -1 } else { 1 },
            if end < 1 { -1 } else { 1 },
            end,
        ),
        [start, end] => (start, if end < start { -1 } else { 1 }, end),
        [start, step, end] => (start, step, end),
        _ => return Err("`[START,] [STEP,] END` after the variable"),
    };
    if step == 0 || (end > start && step < 0) || (end < start && step > 0) {
        return Err("a step that leads from the start to the end");
    }
    if hex && (start < 0 || end < 0) {
        return Err("no negative numbers in hexadecimal");
    }
    Ok((
        vec![name.to_owned()],
        Values::Numbers {
            next: Some(start),
            step,
            end,
            hex,
        },
    ))
}

fn lists(inner: &str) -> Parsed {
    let inner = inner.trim();
    if !inner.starts_with('{') {
        let mut parts = inner
            .split([',', ' ', '\t'])
            .filter(|part| !part.is_empty());
        let name = parts.next().filter(|name| is_name(name));
        let name = name.ok_or("a variable before the first comma")?;
        let rounds: Vec<_> = parts.map(|value| vec![value.to_owned()]).collect();
        if rounds.is_empty() {
            return Err("values after the variable");
        }
        return Ok((vec![name.to_owned()], Values::Lists { next: 0, rounds }));
    }
    let mut sets = Vec::new();
    let mut rest = inner;
    while let Some(after) = rest.strip_prefix('{') {
        let (set, tail) = after.split_once('}').ok_or("`}` after every set")?;
        let members: Vec<String> = set.split(',').map(|v| v.trim().to_owned()).collect();
        sets.push(members);
        rest = tail.trim_start_matches([' ', '\t', ',']);
    }
    if !rest.is_empty() {
        return Err("sets in braces, with commas between them");
    }
    let variables = sets.remove(0);
    if sets.is_empty() || !variables.iter().all(|name| is_name(name)) {
        return Err("`{VARIABLE, ...}` and at least one set of values");
    }
    if sets.iter().any(|set| set.len() > variables.len()) {
        return Err("no more values in a set than there are variables");
    }
    for set in &mut sets {
        set.resize(variables.len(), String::new());
    }
    Ok((
        variables,
        Values::Lists {
            next: 0,
            rounds: sets,
        },
    ))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && super::reader::name_len(text.as_bytes()) == text.len()
}

/// Decimal, `0x` hexadecimal or octal with a leading zero, with an optional sign.
fn number(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let value = if let Some(hex) = digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
    {
        i64::from_str_radix(hex, 16)
    } else if digits.len() > 1 && digits.starts_with('0') {
        i64::from_str_radix(digits, 8)
    } else {
        digits.parse()
    };
    value.ok().map(|v| if negative { -v } else { v })
}

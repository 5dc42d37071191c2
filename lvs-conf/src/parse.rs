//! Logical lines to the faithful tree, with recovery after every mistake.

use std::collections::HashMap;

use crate::diag::{Code, Consequence, Diagnostic};
use crate::dialect::Dialect;
use crate::files::Files;
use crate::keywords::{self, Keyword, Missing, Place, Shape, Splitting, Status};
use crate::lex::{Escapes, Line, Reader, Text, Word};
use crate::options::Options;
use crate::source::{SourceId, SourceMap, Span};
use crate::tree::{Args, Body, Head, Statement, Tree, ValueLine};

/// A tree and what was wrong with the text's form.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// Everything that was understood.
    pub tree: Tree,
    /// Findings in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
    /// Reading ended at a missing argument, as release 2.2.7 would; what follows was not looked at.
    pub stopped: bool,
}

/// Reads one source of the map and the files that it includes, which are added to the map. Never fails: what cannot be
/// understood is reported and left out of the tree.
///
/// An id of another map gives an empty tree.
pub fn parse(
    sources: &mut SourceMap,
    main: SourceId,
    files: &dyn Files,
    options: &Options,
) -> Parsed {
    parse_several(sources, &[main], files, options)
}

/// The same for several sources, one after the other as if they were one.
pub(crate) fn parse_several(
    sources: &mut SourceMap,
    mains: &[SourceId],
    files: &dyn Files,
    options: &Options,
) -> Parsed {
    let parts: &[Part] = match options.dialect {
        Dialect::Newest => &[Part::All],
        Dialect::V2_2_7 => &[Part::Parent, Part::Checker, Part::Vrrp, Part::Bfd],
    };
    let mut statements: Vec<(u32, Statement)> = Vec::new();
    let mut diagnostics: Vec<Diagnostic> = Vec::new();
    let mut stopped = false;
    for part in parts {
        let mut parser = Parser {
            reader: Reader::of_several(sources, mains, files, options),
            peeked: None,
            part: *part,
            dialect: options.dialect,
            open: Vec::new(),
            ignored_braces: 0,
            names: HashMap::new(),
            done: Vec::new(),
            words: Vec::new(),
            top: Vec::new(),
            reported_end: false,
            stopped: false,
        };
        parser.top_level();
        statements.extend(parser.top);
        stopped = parser.stopped;
        if diagnostics.is_empty() {
            diagnostics = parser.reader.diagnostics;
        } else {
            let known = diagnostics.len();
            for found in parser.reader.diagnostics {
                let same = |d: &&Diagnostic| d.code == found.code && d.span == found.span;
                if !diagnostics[..known].iter().any(|d| same(&d)) {
                    diagnostics.push(found);
                }
            }
        }
        let lacks_namespace = |(_, statement): &(u32, Statement)| {
            let name = statement
                .args
                .first()
                .filter(|_| statement.spec.name == "net_namespace");
            name.zip(options.machine.as_ref())
                .is_some_and(|(name, machine)| !machine.namespaces.contains(name.text.as_str()))
        };
        // Parts that cannot enter their namespace end before they read anything.
        if stopped || statements.iter().any(lacks_namespace) {
            break;
        }
    }
    // Every pass reads the same lines, so their numbers say what stands first.
    statements.sort_by_key(|(at, _)| *at);
    statements.dedup_by_key(|(at, _)| *at);
    diagnostics.sort_by_key(|d| (d.span.source, d.span.start));
    Parsed {
        tree: Tree {
            statements: statements.into_iter().map(|(_, s)| s).collect(),
            dialect: options.dialect,
        },
        diagnostics,
        stopped,
    }
}

/// The part of the original program that reads. It knows every top-level keyword, but looks only into the blocks it owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// All at once.
    All,
    Parent,
    Checker,
    Vrrp,
    Bfd,
}

impl Part {
    fn owns(self, keyword: &Keyword) -> bool {
        let owners: &[Self] = match keyword.canonical() {
            "SSL" | "local_address_group" | "virtual_server_group" | "virtual_server" => {
                &[Self::Checker]
            }
            "track_file" => &[Self::Checker, Self::Vrrp],
            "bfd_instance" => &[Self::Checker, Self::Vrrp, Self::Bfd],
            name if name.starts_with("vrrp_") || name.starts_with("static_") => &[Self::Vrrp],
            "track_group" | "garp_group" | "linkbeat_interfaces" | "interface_up_down_delays" => {
                &[Self::Vrrp]
            }
            _ => &[Self::Parent],
        };
        self == Self::All || owners.contains(&self)
    }
}

struct Parser<'a> {
    reader: Reader<'a>,
    peeked: Option<Line>,
    part: Part,
    dialect: Dialect,
    /// Keywords of the blocks around the current line.
    open: Vec<Span>,
    /// Opening braces that were ignored at top level and whose closing braces are still to come.
    ignored_braces: usize,
    /// Where named blocks were defined.
    names: HashMap<(&'static str, Text), Span>,
    /// Statements of the open blocks, the innermost last.
    done: Vec<Statement>,
    /// Words of the current line.
    words: Vec<Word>,
    /// Finished top-level statements, with the number of their first line.
    top: Vec<(u32, Statement)>,
    reported_end: bool,
    stopped: bool,
}

impl Parser<'_> {
    fn take(&mut self) -> Option<Line> {
        if self.stopped {
            return None;
        }
        self.peeked.take().or_else(|| self.reader.next_line())
    }

    fn peek(&mut self) -> Option<&Line> {
        if self.peeked.is_none() && !self.stopped {
            self.peeked = self.reader.next_line();
        }
        self.peeked.as_ref()
    }

    /// Takes the next line if it is `{`.
    fn take_open(&mut self) -> Option<Line> {
        if self.peek().is_some_and(Line::is_open) {
            self.peeked.take()
        } else {
            None
        }
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        self.reader.diagnostics.push(diagnostic);
    }

    fn top_level(&mut self) {
        while let Some(line) = self.take() {
            let number = self.reader.count();
            if line.is_close() {
                self.extra_close(line.span());
            } else if line.is_open() {
                self.unexpected_open(line.span(), Place::Top);
            } else if let Some(statement) = self.statement(&line, Place::Top) {
                self.top.push((number, statement));
            }
        }
    }

    /// Statements up to the closing brace of a block.
    fn statements(&mut self, place: Place) -> Body {
        let first = self.done.len();
        let close = loop {
            let Some(line) = self.take() else {
                break self.unclosed();
            };
            if line.is_close() {
                break line.span();
            } else if line.is_open() {
                self.unexpected_open(line.span(), place);
            } else if let Some(statement) = self.statement(&line, place) {
                self.done.push(statement);
            }
        };
        Body::Block {
            statements: self.done.drain(first..).collect(),
            close,
        }
    }

    fn statement(&mut self, line: &Line, place: Place) -> Option<Statement> {
        let mut spec: Option<(&'static Keyword, usize)> = None;
        let mut keyword: Option<Span> = None;
        let mut unknown = Text::default();
        let args = &mut self.words;
        args.clear();
        let unmatched = line.split(|text, span, quoted| {
            if keyword.is_some() {
                let text = Text::from_bytes(text);
                args.push(Word { text, span, quoted });
                return;
            }
            spec = find(place, text, self.dialect);
            keyword = Some(span);
            if spec.is_none() {
                unknown = Text::from_bytes(text);
            }
        });
        let args = Args::take(args);
        if let Some(span) = unmatched {
            self.unmatched(span, line, spec, args.len());
        }
        let span = keyword?;
        let Some((spec, required)) = spec else {
            self.unknown(&unknown, span, place);
            return None;
        };
        if place == Place::Top && !self.part.owns(spec) {
            self.skip_foreign(spec);
            return None;
        }
        let script = (spec.splitting == Splitting::Script).then(|| {
            Box::new(line.script_words(match self.dialect {
                Dialect::Newest => Escapes::Keep,
                Dialect::V2_2_7 => Escapes::ProcessLongHex,
            }))
        });
        let mut statement = Statement {
            spec,
            keyword: Head {
                text: spec.name,
                span,
            },
            args,
            body: Body::Leaf,
            script,
        };
        if spec.status != Status::Current {
            self.check_status(&statement);
        }
        let complete = self.check_arguments(&statement, required, unmatched.is_some());
        statement.body = match spec.shape {
            Shape::Leaf => Body::Leaf,
            Shape::Block(_) | Shape::Values if !self.enters(&statement) => return None,
            Shape::Block(inside) => self.block(&statement, inside),
            Shape::Values => self.values(&statement, required),
        };

        if spec.name == "include_check" {
            self.include_check(&statement);
        }
        if spec.name == "random_seed"
            && let Some(seed) = statement
                .args
                .first()
                .and_then(|w| w.text.parse::<u32>().ok())
        {
            self.reader.set_random_seed(u64::from(seed));
        }
        complete.then_some(statement)
    }

    fn unmatched(&mut self, span: Span, line: &Line, spec: Option<(&Keyword, usize)>, args: usize) {
        // Script keywords split the line again by their own rules, so a lone quote may be right for them.
        let script = self.dialect != Dialect::V2_2_7
            && spec.is_some_and(|(row, _)| row.splitting == Splitting::Script)
            && args > 0;
        if !script && !line.is_unterminated() {
            self.report(
                Diagnostic::new(
                    Code::UnmatchedQuote,
                    Consequence::Ignore,
                    span,
                    "quote without partner, words from it on are ignored",
                )
                .expected("a closing `\"`"),
            );
        }
    }

    /// Whether a block is read. A second one of the same name is not, nor is one with two names.
    fn enters(&mut self, statement: &Statement) -> bool {
        let spec = statement.spec;
        let mut skipped = spec.is_named_block() && statement.args.len() > 1;
        if (spec.is_named_block() || spec.name == "bfd_instance")
            && let Some(name) = statement.args.first()
            && !skipped
        {
            let key = (spec.name, name.text.clone());
            if let Some(first) = self.names.get(&key) {
                let first = *first;
                self.report(
                    Diagnostic::new(
                        Code::DuplicateVrrpInstance,
                        Consequence::Drop,
                        name.span,
                        format!(
                            "{} `{}` is defined twice, the second block is skipped",
                            spec.name, name.text
                        ),
                    )
                    .hint("give it a name of its own")
                    .note(first, "first defined here"),
                );
                skipped = true;
            } else {
                self.names.insert(key, name.span);
            }
        }
        if skipped && self.take_open().is_some() && !self.skip_block() {
            self.open.push(statement.keyword.span);
            self.unclosed();
            self.open.pop();
        }
        !skipped
    }

    /// Goes past a block that another part of the program reads.
    fn skip_foreign(&mut self, spec: &Keyword) {
        if spec.shape != Shape::Leaf && self.take_open().is_some() {
            self.skip_block();
        }
    }

    /// Takes lines up to the brace that closes the block just opened. Whether there was one.
    fn skip_block(&mut self) -> bool {
        let mut depth = 1;
        while depth > 0 {
            let Some(line) = self.take() else {
                return false;
            };
            if line.is_open() {
                depth += 1;
            } else if line.is_close() {
                depth -= 1;
            }
        }
        true
    }

    fn include_check(&mut self, statement: &Statement) {
        let words = statement.args.iter().map(|word| word.text.as_str());
        let (checks, wrong) = self.reader.include_checks().after(words);
        self.reader.set_include_checks(checks);
        for word in wrong {
            let Some(word) = statement.args.iter().find(|w| w.text == word) else {
                continue;
            };
            self.report(
                Diagnostic::new(
                    Code::InvalidValue,
                    Consequence::Ignore,
                    word.span,
                    format!("`{}` is no check of includes", word.text),
                )
                .expected("`read`, `match`, `wildcard_match` or `brace_match`, all but the first with `+` or `-`"),
            );
        }
    }

    fn block(&mut self, statement: &Statement, inside: Place) -> Body {
        if self.take_open().is_none() {
            self.missing_open(statement);
        }
        self.open.push(statement.keyword.span);
        let body = self.statements(inside);
        self.open.pop();
        body
    }

    fn missing_open(&mut self, statement: &Statement) {
        if self.stopped {
            return;
        }
        let next = self.peek().map(Line::span);
        let head = statement.head();
        // The release names the line where it looked for the brace.
        let at = next.filter(|_| self.dialect == Dialect::V2_2_7);
        let mut diagnostic = Diagnostic::new(
            Code::MissingOpenBrace,
            Consequence::Warn,
            at.unwrap_or(head),
            format!(
                "`{}` is not followed by `{{`, the block is taken as open",
                statement.keyword.text
            ),
        )
        .expected("`{`");
        if at.is_some() {
            diagnostic = diagnostic.note(head, "this block");
        } else if let Some(next) = next {
            diagnostic = diagnostic.note(next, "first line of the block");
        }
        self.report(diagnostic);
    }

    fn values(&mut self, statement: &Statement, required: usize) -> Body {
        let surplus = statement.args.get(required..).unwrap_or_default();
        if let (Some(first), Some(last)) = (surplus.first(), surplus.last()) {
            self.report(
                Diagnostic::new(
                    Code::BlockExtraParameters,
                    Consequence::Ignore,
                    first.span.to(last.span),
                    format!(
                        "words between `{}` and its `{{` are ignored",
                        statement.keyword.text
                    ),
                )
                .expected("`{`"),
            );
        }
        if self.take_open().is_none() {
            self.report(
                Diagnostic::new(
                    Code::MissingOpenBrace,
                    Consequence::Log,
                    statement.head(),
                    format!(
                        "`{}` is not followed by `{{`, the next line is taken as its first entry",
                        statement.keyword.text
                    ),
                )
                .expected("`{`"),
            );
        }
        self.open.push(statement.keyword.span);
        let mut lines = Vec::new();
        let close = loop {
            let Some(line) = self.take() else {
                break self.unclosed();
            };
            if line.is_close() {
                break line.span();
            }
            let split = line.words();
            if let Some(span) = split.unmatched {
                self.unmatched(span, &line, None, 0);
            }
            if !split.words.is_empty() {
                lines.push(ValueLine { words: split.words });
            }
        };
        self.open.pop();
        Body::Values {
            lines: lines.into_boxed_slice(),
            close,
        }
    }

    fn check_status(&mut self, statement: &Statement) {
        let name = &statement.keyword.text;
        let (consequence, hint) = match statement.spec.status {
            Status::Old(now) => (Consequence::Log, format!("use `{now}`")),
            Status::Deprecated(what) => (Consequence::Warn, what.to_owned()),
            Status::Current | Status::Alias(_) | Status::Unknown(_) => return,
        };
        self.report(
            Diagnostic::new(
                Code::Deprecated,
                consequence,
                statement.keyword.span,
                format!("`{name}` is deprecated"),
            )
            .hint(hint),
        );
    }

    /// Whether the statement is usable as far as the number of its arguments goes.
    fn check_arguments(
        &mut self,
        statement: &Statement,
        required: usize,
        is_unmatched: bool,
    ) -> bool {
        let name = statement.spec.name;
        let span = statement.keyword.span;
        if statement.args.len() < required {
            // Script keywords may have their words in quotes that ordinary splitting does not know.
            if statement.spec.splitting == Splitting::Script && is_unmatched {
                return true;
            }
            let (code, consequence) = match statement.spec.missing {
                _ if matches!(name, "startup_script" | "shutdown_script") => {
                    (Code::StartupScriptProblem, Consequence::Ignore)
                }
                Missing::Fatal => (Code::MissingArgument, Consequence::Fatal),
                Missing::Ignored => (Code::ArgumentMissingIgnored, Consequence::Ignore),
            };
            self.report(
                Diagnostic::new(
                    code,
                    consequence,
                    span,
                    format!("`{name}` lacks an argument"),
                )
                .expected(format!("`{name} {}`", statement.spec.args))
                .hint(match consequence {
                    Consequence::Fatal => format!(
                        "give it a value or remove the line, keepalived does not start with it; `{name}`: {}",
                        statement.spec.doc
                    ),
                    _ => format!("give it a value; `{name}`: {}", statement.spec.doc),
                }),
            );
            self.stopped |= consequence == Consequence::Fatal && self.dialect == Dialect::V2_2_7;
            return false;
        }
        if statement.spec.is_named_block() && statement.args.len() > 1 {
            self.report(
                Diagnostic::new(
                    Code::ExtraArguments,
                    Consequence::Drop,
                    statement.head(),
                    format!("`{name}` takes exactly one name, the block is skipped"),
                )
                .hint("put a name with blanks in double quotes"),
            );
            return false;
        }
        true
    }

    /// Reports an unknown keyword once and skips its block, if it has one, as a unit.
    fn unknown(&mut self, keyword: &str, span: Span, place: Place) {
        let mut diagnostic = Diagnostic::new(
            Code::UnknownKeyword,
            Consequence::Ignore,
            span,
            if place == Place::Top {
                format!("unknown keyword `{}`", keyword)
            } else {
                format!("unknown keyword `{}` in `{place}`", keyword)
            },
        );
        diagnostic.hint = match keywords::find(place, keyword) {
            Some(row) => Some(format!("`{}` is known since {}", row.name, row.since)),
            None => keywords::hint(place, keyword),
        };
        // The release stumbles into the block line by line.
        let skips = self.dialect != Dialect::V2_2_7;
        if let Some(open) = skips.then(|| self.take_open()).flatten() {
            diagnostic = diagnostic.note(open.span(), "the block is skipped as a whole");
            self.open.push(span);
            if !self.skip_block() {
                self.unclosed();
            }
            self.open.pop();
        }
        self.report(diagnostic);
    }

    fn unexpected_open(&mut self, span: Span, place: Place) {
        if place == Place::Top {
            self.ignored_braces += 1;
        }
        self.report(
            Diagnostic::new(
                Code::UnexpectedOpenBrace,
                Consequence::Ignore,
                span,
                "`{` where no block is expected, it is ignored",
            )
            .hint("its `}` is not ignored and closes the block around it"),
        );
    }

    fn extra_close(&mut self, span: Span) {
        if self.ignored_braces > 0 {
            self.ignored_braces -= 1;
            self.report(Diagnostic::new(
                Code::UnknownKeyword,
                Consequence::Ignore,
                span,
                "unknown keyword `}`, it belongs to a `{` that was ignored",
            ));
        } else {
            self.report(
                Diagnostic::new(
                    Code::ExtraCloseBrace,
                    Consequence::Ignore,
                    span,
                    "`}` without a block to close",
                )
                .expected("a keyword")
                .hint("remove it, or look for a block above that ends too early"),
            );
        }
    }

    /// The end of the input, which is reported once.
    fn unclosed(&mut self) -> Span {
        let end = self.reader.end();
        if self.reported_end || self.stopped {
            return end;
        }
        self.reported_end = true;
        let count = self.open.len();
        let text = if count == 1 {
            "the input ends inside a block".to_owned()
        } else {
            format!("the input ends inside {count} blocks")
        };
        let mut diagnostic = Diagnostic::new(Code::UnclosedBlock, Consequence::Warn, end, text)
            .expected("`}`")
            .hint("add a `}` where each of these blocks ends");
        for span in self.open.iter().rev() {
            diagnostic = diagnostic.note(*span, "this block is not closed");
        }
        self.report(diagnostic);
        end
    }
}

/// The row for a keyword that the dialect knows, and how many arguments it needs.
fn find(place: Place, name: &[u8], dialect: Dialect) -> Option<(&'static Keyword, usize)> {
    let row = keywords::find(place, std::str::from_utf8(name).ok()?)?;
    row.is_known_to(dialect).then(|| (row, row.required()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::NoFiles;

    fn codes(text: &str) -> (Vec<(Code, u32)>, Tree) {
        let mut map = SourceMap::new();
        let id = map.add("x", text);
        let parsed = parse(&mut map, id, &NoFiles, &Options::default());
        let codes = parsed
            .diagnostics
            .iter()
            .map(|d| (d.code, map.position(d.span).line))
            .collect();
        (codes, parsed.tree)
    }

    #[test]
    fn the_opening_brace_may_stand_on_the_next_line() {
        let (codes, tree) = codes("global_defs\n{\n router_id x }\n");
        assert_eq!(codes, []);
        assert_eq!(tree.statements[0].statements()[0].args[0].text, "x");
    }

    #[test]
    fn a_missing_open_brace_takes_the_next_line_as_first_statement() {
        let (codes, tree) = codes("global_defs\nrouter_id x\n}\n");
        assert_eq!(codes, [(Code::MissingOpenBrace, 1)]);
        assert_eq!(tree.statements[0].statements().len(), 1);
    }

    #[test]
    fn an_open_brace_after_a_leaf_is_ignored_and_its_close_is_not() {
        let (codes, tree) = codes("global_defs {\nrouter_id x {\n}\nsmtp_alert\n}\n");
        assert_eq!(
            codes,
            [
                (Code::UnexpectedOpenBrace, 2),
                (Code::UnknownKeyword, 4),
                (Code::ExtraCloseBrace, 5)
            ]
        );
        assert_eq!(tree.statements[0].statements().len(), 1);
    }

    #[test]
    fn the_close_of_an_ignored_brace_at_top_level_is_an_unknown_keyword() {
        assert_eq!(
            codes("{\n}\n}\n").0,
            [
                (Code::UnexpectedOpenBrace, 1),
                (Code::UnknownKeyword, 2),
                (Code::ExtraCloseBrace, 3)
            ]
        );
    }

    #[test]
    fn an_unknown_block_is_reported_once_and_skipped() {
        let (codes, tree) =
            codes("vrrp_instance a {\nfoo x {\n bar { priority 1 }\n}\npriority 2\n}\n");
        assert_eq!(codes, [(Code::UnknownKeyword, 2)]);
        assert_eq!(tree.statements[0].statements()[0].args[0].text, "2");
    }

    #[test]
    fn end_of_input_closes_every_block_and_is_reported_once() {
        let (codes, tree) = codes("vrrp_instance a {\nauthentication {\nauth_pass x\n");
        assert_eq!(codes, [(Code::UnclosedBlock, 3)]);
        assert_eq!(tree.statements[0].statements()[0].statements().len(), 1);
    }

    #[test]
    fn value_blocks_hold_lines_and_do_not_nest() {
        let (codes, tree) = codes(
            "vrrp_instance a {\nvirtual_ipaddress { 10.0.0.1 dev x\n10.0.0.2 }\ntrack_script {\n{\n}\n}\n",
        );
        assert_eq!(codes, []);
        let inside = tree.statements[0].statements();
        assert_eq!(inside[0].values().len(), 2);
        assert_eq!(inside[1].values()[0].words[0].text, "{");
    }

    #[test]
    fn words_between_a_value_block_and_its_brace_are_reported() {
        let (codes, tree) =
            codes("vrrp_instance a {\nvirtual_ipaddress 1.1.1.1 {\n1.1.1.2\n}\n}\n");
        assert_eq!(codes, [(Code::BlockExtraParameters, 2)]);
        assert_eq!(tree.statements[0].statements()[0].values().len(), 1);
    }

    #[test]
    fn a_value_block_without_brace_takes_the_next_line_as_data() {
        let (codes, tree) = codes("vrrp_sync_group g {\ngroup\na\nb\n}\n}\n");
        assert_eq!(codes, [(Code::MissingOpenBrace, 2)]);
        assert_eq!(tree.statements[0].statements()[0].values().len(), 2);
    }

    #[test]
    fn a_named_block_with_two_names_is_skipped() {
        let (codes, tree) = codes("vrrp_instance a b {\npriority 1\n}\n");
        assert_eq!(codes, [(Code::ExtraArguments, 1)]);
        assert!(tree.statements.is_empty());
    }

    #[test]
    fn a_missing_argument_is_fatal_unless_the_table_says_otherwise() {
        assert_eq!(codes("vrrp_script {\n}\n").0, [(Code::MissingArgument, 1)]);
        assert_eq!(
            codes("net_namespace\n").0,
            [(Code::ArgumentMissingIgnored, 1)]
        );
    }

    #[test]
    fn a_quoted_keyword_is_a_keyword() {
        assert_eq!(codes("\"global_defs\" {\n}\n").0, []);
    }

    #[test]
    fn what_follows_a_brace_is_the_first_statement_of_the_block() {
        assert_eq!(
            codes("vrrp_instance a { //note\npriority 1\n}\n").0,
            [(Code::UnknownKeyword, 1)]
        );
    }

    #[test]
    fn deprecated_keywords_are_reported_and_kept() {
        let (codes, tree) =
            codes("vrrp_track_file f {\nfile /x\n}\nvrrp_sync_group g {\nglobal_tracking\n}\n");
        assert_eq!(codes, [(Code::Deprecated, 1), (Code::Deprecated, 5)]);
        assert_eq!(tree.statements.len(), 2);
    }
}

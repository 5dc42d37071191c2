//! Logical lines to the faithful tree, with recovery after every mistake.

use crate::diag::{Code, Consequence, Diagnostic};
use crate::keywords::{self, Missing, Place, Shape, Splitting, Status};
use crate::lex::{self, Line, Word};
use crate::source::{SourceId, SourceMap, Span, to_offset};
use crate::tree::{Body, Statement, Tree, ValueLine};

/// A tree and what was wrong with the text's form.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// Everything that was understood.
    pub tree: Tree,
    /// Findings in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads one source of the map. Never fails: what cannot be understood is reported and left out of the tree.
///
/// An id of another map gives an empty tree.
pub fn parse(sources: &SourceMap, id: SourceId) -> Parsed {
    let mut diagnostics = Vec::new();
    let Some(source) = sources.get(id) else {
        return Parsed {
            tree: Tree::default(),
            diagnostics,
        };
    };
    let lines = lex::lines(source, id, &mut diagnostics);
    let end = to_offset(source.bytes().len());
    let mut parser = Parser {
        lines: &lines,
        next: 0,
        diagnostics,
        open: Vec::new(),
        ignored_braces: 0,
        end: Span {
            source: id,
            start: end,
            end,
        },
        reported_end: false,
    };
    let statements = parser.statements(Place::Top);
    let mut diagnostics = parser.diagnostics;
    diagnostics.sort_by_key(|d| d.span.start);
    Parsed {
        tree: Tree { statements },
        diagnostics,
    }
}

struct Parser<'a> {
    lines: &'a [Line],
    next: usize,
    diagnostics: Vec<Diagnostic>,
    /// Keywords of the blocks around the current line.
    open: Vec<Span>,
    /// Opening braces that were ignored at top level and whose closing braces are still to come.
    ignored_braces: usize,
    end: Span,
    reported_end: bool,
}

impl<'a> Parser<'a> {
    fn take(&mut self) -> Option<&'a Line> {
        let line = self.lines.get(self.next)?;
        self.next += 1;
        Some(line)
    }

    fn peek(&self) -> Option<&'a Line> {
        self.lines.get(self.next)
    }

    /// Takes the next line if it is `{`.
    fn take_open(&mut self) -> bool {
        let open = self.peek().is_some_and(Line::is_open);
        self.next += usize::from(open);
        open
    }

    /// Statements up to the closing brace of the block, or to the end at top level.
    fn statements(&mut self, place: Place) -> Vec<Statement> {
        let mut statements = Vec::new();
        while let Some(line) = self.take() {
            if line.is_close() {
                if place != Place::Top {
                    return statements;
                }
                self.extra_close(line.span());
            } else if line.is_open() {
                self.unexpected_open(line.span(), place);
            } else {
                statements.extend(self.statement(line, place));
            }
        }
        if place != Place::Top {
            self.unclosed();
        }
        statements
    }

    fn statement(&mut self, line: &'a Line, place: Place) -> Option<Statement> {
        let split = line.words();
        let mut words = split.words.into_iter();
        let keyword = words.next();
        let args: Vec<Word> = words.collect();
        let spec = keyword
            .as_ref()
            .and_then(|word| keywords::find(place, &word.text));
        if let Some(span) = split.unmatched {
            // Script keywords split the line again by their own rules, so a lone quote may be right for them.
            let script = spec.is_some_and(|s| s.splitting == Splitting::Script) && !args.is_empty();
            if !script && !line.is_unterminated() {
                self.diagnostics.push(
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
        let keyword = keyword?;
        let Some(spec) = spec else {
            self.unknown(&keyword, place);
            return None;
        };
        let mut statement = Statement {
            spec,
            keyword,
            args,
            line: line.clone(),
            body: Body::Leaf,
        };
        self.check_status(&statement);
        let complete = self.check_arguments(&statement);
        statement.body = match spec.shape {
            Shape::Leaf => Body::Leaf,
            Shape::Block(inside) => self.block(&statement, inside),
            Shape::Values => self.values(&statement),
        };
        complete.then_some(statement)
    }

    fn block(&mut self, statement: &Statement, inside: Place) -> Body {
        if !self.take_open() {
            let span = statement.head();
            let mut diagnostic = Diagnostic::new(
                Code::MissingOpenBrace,
                Consequence::Warn,
                span,
                format!(
                    "`{}` is not followed by `{{`, the block is taken as open",
                    statement.keyword.text
                ),
            )
            .expected("`{`");
            if let Some(next) = self.peek() {
                diagnostic = diagnostic.note(next.span(), "first line of the block");
            }
            self.diagnostics.push(diagnostic);
        }
        self.open.push(statement.keyword.span);
        let statements = self.statements(inside);
        self.open.pop();
        Body::Block(statements)
    }

    fn values(&mut self, statement: &Statement) -> Body {
        let surplus = statement
            .args
            .get(statement.spec.required()..)
            .unwrap_or_default();
        if let (Some(first), Some(last)) = (surplus.first(), surplus.last()) {
            self.diagnostics.push(
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
        if !self.take_open() {
            self.diagnostics.push(
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
        let mut values = Vec::new();
        let closed = loop {
            let Some(line) = self.take() else { break false };
            if line.is_close() {
                break true;
            }
            let split = line.words();
            if let Some(span) = split.unmatched
                && !line.is_unterminated()
            {
                self.diagnostics.push(
                    Diagnostic::new(
                        Code::UnmatchedQuote,
                        Consequence::Ignore,
                        span,
                        "quote without partner, words from it on are ignored",
                    )
                    .expected("a closing `\"`"),
                );
            }
            if !split.words.is_empty() {
                values.push(ValueLine { words: split.words });
            }
        };
        if !closed {
            self.unclosed();
        }
        self.open.pop();
        Body::Values(values)
    }

    fn check_status(&mut self, statement: &Statement) {
        let name = &statement.keyword.text;
        let (consequence, hint) = match statement.spec.status {
            Status::Old(now) => (Consequence::Log, format!("use `{now}`")),
            Status::Deprecated(what) => (Consequence::Warn, what.to_owned()),
            Status::Current | Status::Alias(_) | Status::Unknown(_) => return,
        };
        self.diagnostics.push(
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
    fn check_arguments(&mut self, statement: &Statement) -> bool {
        let name = &statement.keyword.text;
        let span = statement.keyword.span;
        if statement.args.len() < statement.spec.required() {
            // Script keywords may have their words in quotes that ordinary splitting does not know.
            if statement.spec.splitting == Splitting::Script
                && statement.line.words().unmatched.is_some()
            {
                return true;
            }
            let (code, consequence) = match statement.spec.missing {
                Missing::Fatal => (Code::MissingArgument, Consequence::Fatal),
                Missing::Ignored => (Code::ArgumentMissingIgnored, Consequence::Ignore),
            };
            self.diagnostics.push(
                Diagnostic::new(
                    code,
                    consequence,
                    span,
                    format!("`{name}` lacks an argument"),
                )
                .expected(format!("`{name} {}`", statement.spec.args)),
            );
            return false;
        }
        if statement.spec.is_named_block() && statement.args.len() > 1 {
            self.diagnostics.push(
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
    fn unknown(&mut self, keyword: &Word, place: Place) {
        let mut diagnostic = Diagnostic::new(
            Code::UnknownKeyword,
            Consequence::Ignore,
            keyword.span,
            if place == Place::Top {
                format!("unknown keyword `{}`", keyword.text)
            } else {
                format!("unknown keyword `{}` in `{place}`", keyword.text)
            },
        );
        diagnostic.hint = keywords::hint(place, &keyword.text);
        if let Some(open) = self.peek().filter(|line| line.is_open()) {
            diagnostic = diagnostic.note(open.span(), "the block is skipped as a whole");
            self.next += 1;
            self.open.push(keyword.span);
            let mut depth = 1;
            while depth > 0 {
                let Some(line) = self.take() else {
                    self.unclosed();
                    break;
                };
                if line.is_open() {
                    depth += 1;
                } else if line.is_close() {
                    depth -= 1;
                }
            }
            self.open.pop();
        }
        self.diagnostics.push(diagnostic);
    }

    fn unexpected_open(&mut self, span: Span, place: Place) {
        if place == Place::Top {
            self.ignored_braces += 1;
        }
        self.diagnostics.push(
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
            self.diagnostics.push(Diagnostic::new(
                Code::UnknownKeyword,
                Consequence::Ignore,
                span,
                "unknown keyword `}`, it belongs to a `{` that was ignored",
            ));
        } else {
            self.diagnostics.push(
                Diagnostic::new(
                    Code::ExtraCloseBrace,
                    Consequence::Ignore,
                    span,
                    "`}` without a block to close",
                )
                .expected("a keyword"),
            );
        }
    }

    fn unclosed(&mut self) {
        if self.reported_end {
            return;
        }
        self.reported_end = true;
        let count = self.open.len();
        let text = if count == 1 {
            "the input ends inside a block".to_owned()
        } else {
            format!("the input ends inside {count} blocks")
        };
        let mut diagnostic =
            Diagnostic::new(Code::UnclosedBlock, Consequence::Warn, self.end, text).expected("`}`");
        for span in self.open.iter().rev() {
            diagnostic = diagnostic.note(*span, "this block is not closed");
        }
        self.diagnostics.push(diagnostic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(text: &str) -> (Vec<(Code, u32)>, Tree) {
        let mut map = SourceMap::new();
        let id = map.add("x", text);
        let parsed = parse(&map, id);
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

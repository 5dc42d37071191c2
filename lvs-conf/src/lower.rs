//! The tree's meaning: values are read, defaults and inheritance applied, and what cannot run is left out or adjusted as
//! keepalived would.

use crate::diag::{Code, Consequence, Diagnostic};
use crate::dialect::Dialect;
use crate::lex::Word;
use crate::model::Config;
use crate::options::Options;
use crate::settings::Settings as _;
use crate::source::Span;
use crate::tree::{Statement, Tree};

mod address;
mod checker;
mod global;
mod lvs;
mod route;
mod rule;
mod scalar;
mod small;
mod track;
mod vrrp;

/// Reads a tree. Every finding about meaning is reported; the model holds what is left.
///
/// [`Dialect::V2_2_7`] ends the checks of the VRRP part at the first refusal, as that release does.
pub fn lower(tree: &Tree, options: &Options) -> (Config, Vec<Diagnostic>) {
    let mut cx = Context {
        diagnostics: Vec::new(),
        dialect: options.dialect,
        options,
        is_default_user_usable: true,
    };
    let mut config = Config::default();
    for statement in &tree.statements {
        if statement.spec.canonical() == "global_defs" {
            global::read(&mut cx, statement, &mut config.global);
        }
    }
    for statement in &tree.statements {
        if !config.daemon.set(&mut cx, statement) {
            small::read(&mut cx, statement, &mut config);
        }
    }
    vrrp::read(&mut cx, tree, &mut config);
    lvs::read(&mut cx, tree, &mut config);
    cx.diagnostics
        .sort_by_key(|d| (d.span.source, d.span.start));
    (config, cx.diagnostics)
}

/// Collects findings.
pub(crate) struct Context<'a> {
    diagnostics: Vec<Diagnostic>,
    dialect: Dialect,
    options: &'a Options,
    /// Scripts without a user of their own can be run.
    is_default_user_usable: bool,
}

impl Context<'_> {
    /// Where a finding about a whole block stands: the release names the line of its closing brace.
    fn whole(&self, block: &Statement) -> Span {
        match self.dialect {
            Dialect::V2_2_7 => block.close(),
            Dialect::Newest => block.head(),
        }
    }

    /// Whether there is an account of this name; without knowledge of the machine there is.
    fn has_account(&self, name: &str) -> bool {
        let machine = self.options.machine.as_ref();
        machine.is_none_or(|machine| machine.accounts.contains(name))
    }

    /// Says of an account that does not exist what follows from it.
    fn check_account(&mut self, word: &Word, follows: &str) -> bool {
        let known = self.has_account(&word.text);
        if !known {
            self.report(
                Code::ScriptUserInvalid,
                Consequence::Drop,
                word.span,
                format!("there is no account `{}`, {follows}", word.text),
            );
        }
        known
    }

    fn push(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    fn report(
        &mut self,
        code: Code,
        consequence: Consequence,
        span: Span,
        message: impl Into<String>,
    ) {
        self.push(Diagnostic::new(code, consequence, span, message));
    }

    /// A value that the keyword does not take; the line is ignored.
    fn invalid(&mut self, span: Span, message: impl Into<String>, expected: impl Into<String>) {
        self.push(
            Diagnostic::new(Code::InvalidValue, Consequence::Ignore, span, message)
                .expected(expected),
        );
    }

    /// The first one stays.
    pub(crate) fn given_before(&mut self, statement: &Statement) {
        self.report(
            Code::DuplicateKeyword,
            Consequence::Ignore,
            statement.keyword.span,
            format!(
                "`{}` was given before, the first one stays",
                statement.keyword.text
            ),
        );
    }
}

#[cfg(test)]
mod tests;

//! The tree's meaning: values are read, defaults and inheritance applied, and what cannot run is left out or adjusted as
//! keepalived would.

use crate::diag::{Code, Consequence, Diagnostic};
use crate::dialect::Dialect;
use crate::lex::Word;
use crate::model::Config;
use crate::options::Options;
use crate::source::Span;
use crate::tree::{Statement, Tree};

mod address;
mod checker;
mod global;
mod lvs;
mod scalar;
mod track;
mod vrrp;

/// Reads a tree. Every finding about meaning is reported; the model holds what is left.
pub fn lower(tree: &Tree, options: &Options) -> (Config, Vec<Diagnostic>) {
    let mut cx = Context {
        diagnostics: Vec::new(),
        options,
        is_default_user_usable: true,
    };
    let mut config = Config::default();
    for statement in &tree.statements {
        if statement.spec.canonical() == "global_defs" {
            global::read(&mut cx, statement, &mut config.global);
        }
    }
    vrrp::read(&mut cx, tree, &mut config);
    for statement in &tree.statements {
        match statement.spec.canonical() {
            "virtual_server" => {
                let server = lvs::read(&mut cx, statement, &config.global);
                config.virtual_servers.extend(server);
            }
            "global_defs" | "vrrp_instance" | "vrrp_sync_group" | "vrrp_script" => {}
            _ => cx.not_acted_on(statement),
        }
    }
    cx.diagnostics
        .sort_by_key(|d| (d.span.source, d.span.start));
    (config, cx.diagnostics)
}

/// Collects findings.
struct Context<'a> {
    diagnostics: Vec<Diagnostic>,
    options: &'a Options,
    /// Scripts without a user of their own can be run.
    is_default_user_usable: bool,
}

impl Context<'_> {
    /// Where a finding about a whole block stands: the release names the line of its closing brace.
    fn whole(&self, block: &Statement) -> Span {
        match self.options.dialect {
            Dialect::V2_2_7 => block.close(),
            Dialect::Newest => block.head(),
        }
    }

    /// Whether there is an account of this name; without knowledge of the machine there is.
    fn has_account(&self, name: &str) -> bool {
        let accounts = self.options.accounts.as_ref();
        accounts.is_none_or(|known| known.contains(name))
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

    fn not_acted_on(&mut self, statement: &Statement) {
        self.report(
            Code::NotActedOn,
            Consequence::Log,
            statement.keyword.span,
            format!("`{}` is known but not acted on", statement.keyword.text),
        );
    }

    /// Takes the value unless there is one already, in which case the first one stays.
    fn first_wins<T>(&mut self, statement: &Statement, slot: &mut Option<T>, value: Option<T>) {
        if slot.is_some() {
            self.report(
                Code::DuplicateKeyword,
                Consequence::Ignore,
                statement.keyword.span,
                format!(
                    "`{}` was given before, the first one stays",
                    statement.keyword.text
                ),
            );
        } else {
            *slot = value;
        }
    }
}

#[cfg(test)]
mod tests;

//! Scripts that the file names, as this host has them: keepalived's verdicts on them.

use std::collections::HashSet;

use lvs_conf::model::{Checker, Notify, Script};
use lvs_conf::tree::Statement;
use lvs_conf::{Config, SourceMap, Span};

use super::{ConfigFile, Finding};
use crate::notify::scripts::{Policy, Refusal, Remark};

/// Something about a script.
#[derive(Debug)]
pub(super) struct ScriptFinding {
    weight: Weight,
    code: &'static str,
    message: String,
    hint: Option<String>,
    span: Option<Span>,
}

/// What it means for the exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// keepalived complains.
    Complaint,
    /// keepalived's class of its own, above all others.
    Security,
    /// keepalived only logs it when it runs.
    Log,
}

impl ScriptFinding {
    pub(super) fn is_complaint(&self) -> bool {
        self.weight == Weight::Complaint
    }

    pub(super) fn is_about_security(&self) -> bool {
        self.weight == Weight::Security
    }

    /// In the manner of the findings with an excerpt.
    pub(super) fn text(&self, sources: &SourceMap) -> String {
        let finding = self.finding(sources);
        let mut text = format!("{}: {}", finding.severity, self.message);
        if self.span.is_some() {
            text += &format!(
                "\n --> {}:{}:{}",
                finding.file, finding.line, finding.column
            );
        }
        if let Some(hint) = &self.hint {
            text += &format!("\n  = help: {hint}");
        }
        text
    }

    pub(super) fn finding<'a>(&self, sources: &'a SourceMap) -> Finding<'a> {
        let (class, severity, consequence) = match self.weight {
            Weight::Complaint => ("general", "error", "drop"),
            Weight::Security => ("security", "warning", "warn"),
            Weight::Log => ("log", "info", "drop"),
        };
        let mut finding = Finding {
            code: self.code,
            class,
            severity,
            consequence,
            message: self.message.clone(),
            hint: self.hint.clone(),
            ..Finding::default()
        };
        finding.place(sources, self.span);
        finding
    }
}

/// What there is to say about the scripts of a file, each once.
pub(super) fn script_findings(file: &ConfigFile) -> Vec<ScriptFinding> {
    let config = file.config();
    let policy = Policy::new(&config.global);
    let mut findings = Vec::new();
    let mut is_any_there = false;
    let mut seen = HashSet::new();
    for Named {
        keyword,
        script,
        is_watched,
    } in all_scripts(config)
    {
        if !seen.insert((
            keyword,
            &script.command,
            script.user.as_ref().map(|it| &it.name),
        )) {
            continue;
        }
        let span = || place_of(&file.tree().statements, keyword, &script.command);
        let outcome = policy.check(script);
        is_any_there |= match &outcome {
            Ok(_) => true,
            Err(refusal) => refusal.is_about_security(),
        };
        match outcome {
            Ok(checked) => findings.extend(checked.remarks.iter().map(|remark| ScriptFinding {
                weight: Weight::Log,
                code: code_of_remark(remark),
                message: format!("{keyword} `{}`: {remark}", script.command.join(" ")),
                hint: None,
                span: span(),
            })),
            Err(refusal) => findings.push(ScriptFinding {
                weight: weight_of(&refusal, is_watched),
                code: code_of_refusal(&refusal),
                message: format!("{keyword} is left out: {refusal}"),
                hint: None,
                span: span(),
            }),
        }
    }
    if is_any_there && !policy.is_secure() {
        findings.push(ScriptFinding {
            weight: Weight::Security,
            code: "script-security-missing",
            message: "scripts are run, and `enable_script_security` is not set".to_owned(),
            hint: Some(
                "add `enable_script_security` and `script_user` to `global_defs`".to_owned(),
            ),
            span: None,
        });
    }
    findings
}

struct Named<'a> {
    keyword: &'static str,
    script: &'a Script,
    /// Something depends on its status.
    is_watched: bool,
}

fn all_scripts<'c>(config: &'c Config) -> Vec<Named<'c>> {
    let mut all = Vec::new();
    let mut add = |keyword, script: Option<&'c Script>| {
        if let Some(script) = script {
            all.push((keyword, script));
        }
    };
    let global = &config.global;
    add("startup_script", global.startup_script.as_ref());
    add("shutdown_script", global.shutdown_script.as_ref());
    add("notify_fifo_script", global.fifos.all_script.as_ref());
    add("vrrp_notify_fifo_script", global.fifos.vrrp_script.as_ref());
    add("lvs_notify_fifo_script", global.fifos.lvs_script.as_ref());
    for script in &config.scripts {
        add("script", Some(&script.script));
    }
    let groups = config.sync_groups.iter().map(|group| &group.notify);
    let instances = config.instances.iter().map(|instance| &instance.notify);
    for notify in groups.chain(instances) {
        let Notify {
            master,
            backup,
            fault,
            stop,
            any,
            master_rx_lower_pri,
            deleted,
            ..
        } = notify;
        add("notify_master", master.as_ref());
        add("notify_backup", backup.as_ref());
        add("notify_fault", fault.as_ref());
        add("notify_stop", stop.as_ref());
        add("notify", any.as_ref());
        add("notify_master_rx_lower_pri", master_rx_lower_pri.as_ref());
        add("notify_deleted", deleted.as_ref());
    }
    for server in &config.virtual_servers {
        add("quorum_up", server.quorum_up.as_ref());
        add("quorum_down", server.quorum_down.as_ref());
        for real in &server.real_servers {
            add("notify_up", real.notify_up.as_ref());
            add("notify_down", real.notify_down.as_ref());
            for checker in &real.checkers {
                if let Checker::MiscCheck(misc) = checker {
                    add("misc_path", Some(&misc.script));
                }
            }
        }
    }
    let named = |(keyword, script)| Named {
        keyword,
        script,
        is_watched: matches!(keyword, "script" | "misc_path"),
    };
    all.into_iter().map(named).collect()
}

/// keepalived complains about a tracked script that is missing or insecure; the rest it tells its log.
fn weight_of(refusal: &Refusal, is_watched: bool) -> Weight {
    match refusal {
        Refusal::NotExecutable(_) | Refusal::NotAFile(_) => Weight::Log,
        Refusal::Account(_) | Refusal::NoDefault => Weight::Complaint,
        _ if is_watched => Weight::Complaint,
        _ => Weight::Log,
    }
}

fn code_of_refusal(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Insecure(_) => "script-insecure",
        Refusal::NotExecutable(_) | Refusal::NotAFile(_) => "script-not-executable",
        Refusal::Account(_) | Refusal::NoDefault => "script-user",
        _ => "script-missing",
    }
}

fn code_of_remark(remark: &Remark) -> &'static str {
    match remark {
        Remark::FoundInPath(_) => "script-without-path",
        Remark::Insecure(_) => "script-insecure",
    }
}

/// The first statement with this keyword and command.
fn place_of(statements: &[Statement], keyword: &str, command: &[String]) -> Option<Span> {
    let program = command.first()?;
    statements.iter().find_map(|statement| {
        let is_it = statement.spec.canonical() == keyword
            && statement.script_words().is_ok_and(|words| {
                words
                    .iter()
                    .any(|word| word.text.contains(program.as_str()))
            });
        if is_it {
            return Some(statement.head());
        }
        place_of(statement.statements(), keyword, command)
    })
}

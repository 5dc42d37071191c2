//! What keepalived accepts and operators regret.
//!
//! # Rules
//!
//! | Rule | Fires on |
//! |---|---|
//! | `check-differs` | a real server that two services check in different ways |
//! | `no-checker` | a real server without checker: it counts as up whatever happens |
//! | `check-of-other-protocol` | a UDP service that is checked by TCP |
//! | `slow-check` | a `delay_loop` of more than a minute |
//! | `timeout-exceeds-delay` | a `connect_timeout` that is not below the `delay_loop` |
//! | `dr-port-differs` | a port that differs from the service's where the method cannot change it |
//! | `quorum-without-notify` | a quorum whose loss nobody hears of |
//! | `quorum-unreachable` | a quorum that, once lost, all servers together cannot gain again |
//! | `all-weights-zero` | a service whose servers all have weight 0 |
//! | `weight-without-effect` | weights with a scheduler that does not look at them |
//! | `persistence-with-hash` | persistence with a scheduler that keeps clients in place by itself |
//! | `sorry-is-vip` | a sorry server with a virtual address |
//! | `service-without-vip` | a service on an address that no instance has, while others are on one |
//! | `master-with-nopreempt` | `state MASTER` with `nopreempt` |
//! | `two-masters` | both nodes start as MASTER |
//! | `vrid-reused` | one virtual router id on two interfaces |
//! | `sync-group-states-differ` | members of a sync group that start in different states |
//! | `mixed-prefixes` | an address without prefix length beside some that have one |
//! | `strict-drops-traffic` | strict mode where the addresses are to be reached |
//! | `password-too-long` | a password of more than 8 bytes |
//! | `well-known-password` | a password from the manual |
//! | `script-security-off` | scripts without `enable_script_security` |
//! | `script-without-hysteresis` | a `vrrp_script` that one bad run fails |
//! | `script-not-tracked` | a `vrrp_script` that nobody tracks |
//! | `mail-without-server` | alerts by mail without server or recipient |
//! | `unknown-rule` | a comment for lint that names no rule or cannot be read |
//!
//! Some of what they find is also a complaint of [`load`](crate::load()), see [`Rule::also_found_as`]: a list of lint findings is
//! complete without the complaints.
//!
//! # Silence
//!
//! * `# lint: allow(slow-check, no-checker)` at the end of a line or on a line of its own right above it silences these rules
//!   for that line;
//! * as the first thing in a block, before its first statement, it does so for the whole block, its keyword included;
//! * `# lint: allow-file(slow-check)` does so for the file that it stands in.

use std::collections::HashSet;
use std::fmt;

use crate::diag::{Code, Consequence, Diagnostic};
use crate::load::explain_expansion;
use crate::model::Config;
use crate::source::{SourceMap, Span};
use crate::tree::{Statement, Tree};

mod routers;
mod services;
mod silence;

/// Warnings about what a configuration says, in the order of the text.
///
/// `tree` and `config` are those that [`load`](crate::load()) found in `sources`. Lint findings never change
/// keepalived's exit status. A comment silences a rule where it stands, see [the module](mod@crate::lint).
///
/// ```
/// use lvs_conf::{NoFiles, Options, SourceMap, lint, load};
///
/// let mut sources = SourceMap::new();
/// let main = sources.add("k.conf", "
/// vrrp_script web {
///     script /usr/bin/web-is-up
///     ! lint: allow-file(script-security-off)
///     fall 3
/// }
/// ");
/// let loaded = load(&mut sources, main, &NoFiles, &Options::default());
/// let findings = lint(&sources, &loaded.tree, &loaded.config);
/// assert_eq!(
///     findings[0].display(&sources).to_string(),
///     "k.conf:2:13: warning: no `track_script` names `web`, it never runs; \
///      track it in an instance or sync group, or remove it"
/// );
/// assert_eq!(findings.len(), 1);
/// ```
pub fn lint(sources: &SourceMap, tree: &Tree, config: &Config) -> Vec<Diagnostic> {
    let mut findings = Findings::default();
    services::check(&mut findings, tree, config);
    routers::check(&mut findings, sources, tree, config);
    let mut list = findings.list;
    let silenced = silence::read(sources, &mut list);
    list.retain(|d| !silenced.covers(d));
    list.sort_by_key(|d| (d.span.source, d.span.start));
    for diagnostic in &mut list {
        explain_expansion(diagnostic, sources);
    }
    list
}

macro_rules! rules {
    ($(#[doc = $doc:literal] $name:ident = $text:literal, $hint:literal;)+) => {
        /// The rules of [`lint`](lint()). The text form is the stable kebab-case name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Rule { $(#[doc = $doc] $name,)+ }

        impl Rule {
            /// Every rule.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The stable name, such as `no-checker`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// What it fires on, one sentence.
            pub fn summary(self) -> &'static str {
                match self { $(Self::$name => $doc.trim_ascii(),)+ }
            }

            /// What to do about a finding.
            pub fn advice(self) -> &'static str {
                match self { $(Self::$name => $hint,)+ }
            }
        }
    };
}

rules! {
    /// A real server that two services check in different ways.
    CheckDiffers = "check-differs",
        "give both the same checkers, or it is up for one service and down for the other";
    /// A real server without checker.
    NoChecker = "no-checker",
        "add a checker such as `TCP_CHECK { }`";
    /// A UDP service that is checked by TCP.
    CheckOfOtherProtocol = "check-of-other-protocol",
        "use `UDP_CHECK`, `DNS_CHECK` or `MISC_CHECK`";
    /// A `delay_loop` of more than a minute.
    SlowCheck = "slow-check",
        "clients meet a dead server for that long, use 60 or less";
    /// A `connect_timeout` that is not below the `delay_loop`.
    TimeoutExceedsDelay = "timeout-exceeds-delay",
        "make `connect_timeout` smaller than `delay_loop`";
    /// A port that differs from the service's where the method cannot change it.
    DrPortDiffers = "dr-port-differs",
        "give both the same port, or use `lvs_method NAT`";
    /// A quorum whose loss nobody hears of.
    QuorumWithoutNotify = "quorum-without-notify",
        "add `quorum_down`, `smtp_alert` or a notify fifo";
    /// A quorum that all servers together cannot gain again.
    QuorumUnreachable = "quorum-unreachable",
        "keep `quorum` + `hysteresis` within the sum of the weights";
    /// A service whose servers all have weight 0.
    AllWeightsZero = "all-weights-zero",
        "give a server a weight of at least 1, nobody is served so";
    /// Weights with a scheduler that does not look at them.
    WeightWithoutEffect = "weight-without-effect",
        "use the weighted scheduler, `wrr` or `wlc`, or remove the weights";
    /// Persistence with a scheduler that keeps clients in place by itself.
    PersistenceWithHash = "persistence-with-hash",
        "remove `persistence_timeout`, or use another scheduler";
    /// A sorry server with a virtual address.
    SorryIsVip = "sorry-is-vip",
        "name a server of its own, the traffic would come back to the director";
    /// A service on an address that no instance has.
    ServiceWithoutVip = "service-without-vip",
        "add the address to `virtual_ipaddress`, or correct it";
    /// `state MASTER` with `nopreempt`.
    MasterWithNopreempt = "master-with-nopreempt",
        "write `state BACKUP` on every node, `nopreempt` is ignored otherwise";
    /// Both nodes start as MASTER.
    TwoMasters = "two-masters",
        "write `state BACKUP` on all nodes but one, the priority decides anyway";
    /// One virtual router id on two interfaces.
    VridReused = "vrid-reused",
        "give each its own id, they collide as soon as both see one network";
    /// Members of a sync group that start in different states.
    SyncGroupStatesDiffer = "sync-group-states-differ",
        "give all members the same `state`";
    /// An address without prefix length beside some that have one.
    MixedPrefixes = "mixed-prefixes",
        "write the prefix length of every address";
    /// Strict mode where the addresses are to be reached.
    StrictDropsTraffic = "strict-drops-traffic",
        "remove it, or write `accept` with `version 3`";
    /// A password of more than 8 bytes.
    PasswordTooLong = "password-too-long",
        "write the 8 bytes that count";
    /// A password from the manual.
    WellKnownPassword = "well-known-password",
        "choose one of your own, or none: it travels in the clear";
    /// Scripts without `enable_script_security`.
    ScriptSecurityOff = "script-security-off",
        "add `enable_script_security` and `script_user` to `global_defs`";
    /// A `vrrp_script` that one bad run fails.
    ScriptWithoutHysteresis = "script-without-hysteresis",
        "add `fall 2` or more, and `rise`";
    /// A `vrrp_script` that nobody tracks.
    ScriptNotTracked = "script-not-tracked",
        "track it in an instance or sync group, or remove it";
    /// Alerts by mail without server or recipient.
    MailWithoutServer = "mail-without-server",
        "add `smtp_server` and `notification_email` to `global_defs`";
    /// A comment for lint that names no rule or cannot be read.
    UnknownRule = "unknown-rule",
        "write `lint: allow(RULE, …)` or `lint: allow-file(RULE, …)`";
}

impl Rule {
    /// The rule with a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|rule| rule.as_str() == name)
    }

    /// What [`load`](crate::load()) calls the same finding. Whoever shows both lists leaves one of the two out.
    pub fn also_found_as(self) -> &'static [Code] {
        match self {
            Self::DrPortDiffers => &[
                Code::RsPortDiffers,
                Code::RsPortDiffersReset,
                Code::SorryPortDiffers,
            ],
            Self::MasterWithNopreempt => &[Code::NopreemptWithMaster],
            Self::PasswordTooLong => &[Code::AuthPassTruncated],
            _ => &[],
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Findings so far, one for each rule and place: what a sequence repeats is said once.
#[derive(Default)]
struct Findings {
    list: Vec<Diagnostic>,
    seen: HashSet<(Rule, Span)>,
}

impl Findings {
    fn report(&mut self, rule: Rule, span: Span, message: impl Into<String>) {
        self.push(rule, finding(rule, span, message));
    }

    fn push(&mut self, rule: Rule, finding: Diagnostic) {
        if self.seen.insert((rule, finding.span)) {
            self.list.push(finding);
        }
    }
}

fn finding(rule: Rule, span: Span, message: impl Into<String>) -> Diagnostic {
    Diagnostic::new(Code::Lint(rule), Consequence::Log, span, message).hint(rule.advice())
}

/// The statement of a block that counts, the last one of its name.
fn leaf<'a>(block: &'a Statement, name: &str) -> Option<&'a Statement> {
    let mut found = block.statements().iter().rev();
    found.find(|s| s.spec.canonical() == name)
}

/// The statement of a block that counts, or the head of the block.
fn place(block: &Statement, name: &str) -> Span {
    leaf(block, name).map_or_else(|| block.head(), Statement::head)
}

/// The statements of a name, in order.
fn named<'a>(
    statements: &'a [Statement],
    name: &'a str,
) -> impl Iterator<Item = &'a Statement> + 'a {
    statements
        .iter()
        .filter(move |s| s.spec.canonical() == name)
}

/// The first argument.
fn first(statement: &Statement) -> &str {
    statement.args.first().map_or("", |word| word.text.as_str())
}

#[cfg(test)]
mod tests;

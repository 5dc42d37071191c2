//! What is wrong, where, what keepalived makes of it, and what was probably meant.

use std::fmt;

use crate::lint::Rule;
use crate::source::{SourceMap, Span};

/// One finding about a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The kind of finding.
    pub code: Code,
    /// What becomes of the line or object.
    pub consequence: Consequence,
    /// The words that it is about.
    pub span: Span,
    /// One sentence, lower case, without full stop.
    pub message: String,
    /// What would have been right here.
    pub expected: Option<String>,
    /// A suggestion, such as "did you mean `auth_pass`?".
    pub hint: Option<String>,
    /// Further places that explain the finding.
    pub notes: Vec<Note>,
    /// Kinds of further complaints that keepalived makes about the same words.
    pub also: Vec<Code>,
}

/// A second place that belongs to a [`Diagnostic`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The place.
    pub span: Span,
    /// What is to be seen there.
    pub message: String,
}

impl Diagnostic {
    /// A finding without expectation, hint and notes.
    pub fn new(
        code: Code,
        consequence: Consequence,
        span: Span,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code,
            consequence,
            span,
            message: message.into(),
            expected: None,
            hint: None,
            notes: Vec::new(),
            also: Vec::new(),
        }
    }

    /// Says that keepalived complains a second time about the same words.
    #[must_use]
    pub fn also(mut self, code: Code) -> Self {
        self.also.push(code);
        self
    }

    /// Says what would have been right.
    #[must_use]
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    /// Adds a suggestion.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a second place.
    #[must_use]
    pub fn note(mut self, span: Span, message: impl Into<String>) -> Self {
        self.notes.push(Note {
            span,
            message: message.into(),
        });
        self
    }

    /// The class that decides the exit status. What is only logged has class [`Class::Ok`].
    pub fn class(&self) -> Class {
        if self.consequence == Consequence::Log {
            Class::Ok
        } else {
            self.code.class()
        }
    }

    /// How loud a person should hear it.
    pub fn severity(&self) -> Severity {
        match self.consequence {
            Consequence::Fatal | Consequence::Refuse | Consequence::Drop | Consequence::Ignore => {
                Severity::Error
            }
            Consequence::Adjust | Consequence::Warn => Severity::Warning,
            // keepalived goes on in silence, but a file was named and what it says is not in force.
            Consequence::Log if self.code == Code::IncludeMissing => Severity::Warning,
            Consequence::Log if matches!(self.code, Code::Lint(_)) => Severity::Warning,
            Consequence::Log => Severity::Info,
        }
    }

    /// The one-line form `file:line:column: severity: message`, with expectation and hint appended.
    pub fn display<'a>(&'a self, sources: &'a SourceMap) -> impl fmt::Display + 'a {
        OneLine {
            diagnostic: self,
            sources,
        }
    }
}

/// The exit status of keepalived's config test for these findings: 0, 2, 4, 5 or 6.
///
/// A missing required argument stops keepalived at once, so it decides the status whatever else was found.
pub fn exit_status(diagnostics: &[Diagnostic]) -> u8 {
    let worst = diagnostics.iter().map(Diagnostic::class).max();
    if diagnostics
        .iter()
        .any(|d| d.class() == Class::MissingParameter)
    {
        return 2;
    }
    // An include that had to be there ends the program once everything was read.
    if diagnostics
        .iter()
        .any(|d| d.code == Code::IncludeMissing && d.class() != Class::Ok)
    {
        return 6;
    }
    match worst.unwrap_or(Class::Ok) {
        Class::Ok => 0,
        Class::FileNotFound | Class::BadInterface | Class::Fatal => 4,
        Class::MissingParameter => 2,
        Class::Security => 6,
        Class::MultipleFiles
        | Class::UnknownKeyword
        | Class::UnexpectedOpenBrace
        | Class::MissingOpenBrace
        | Class::UnexpectedCloseBrace
        | Class::MissingCloseBrace
        | Class::UnmatchedQuote
        | Class::InvalidNumber
        | Class::General
        | Class::Warning
        | Class::Deprecated => 5,
    }
}

/// keepalived's classes of complaints, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Nothing that a config test reports.
    Ok,
    /// The main file cannot be read.
    FileNotFound,
    /// An interface that the file names does not exist.
    BadInterface,
    /// A static object without a usable interface.
    Fatal,
    /// The main file's pattern matches several files.
    MultipleFiles,
    /// Unknown keyword.
    UnknownKeyword,
    /// `{` where no block is expected.
    UnexpectedOpenBrace,
    /// A block keyword without `{`.
    MissingOpenBrace,
    /// `}` without a block.
    UnexpectedCloseBrace,
    /// End of input inside a block.
    MissingCloseBrace,
    /// A quote without its partner.
    UnmatchedQuote,
    /// A required argument is absent; keepalived stops at once.
    MissingParameter,
    /// Not a number, or out of range.
    InvalidNumber,
    /// Nearly every complaint about meaning.
    General,
    /// A warning.
    Warning,
    /// A keyword that should not be used any more.
    Deprecated,
    /// Scripts without `enable_script_security`.
    Security,
}

/// What keepalived does about a finding, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Consequence {
    /// The process that reads the file stops.
    Fatal,
    /// The VRRP part finds the configuration unusable and the daemon ends.
    Refuse,
    /// The object is left out, the rest runs.
    Drop,
    /// The line has no effect.
    Ignore,
    /// A value is changed to a legal one.
    Adjust,
    /// A complaint only.
    Warn,
    /// Information, never part of a config test's verdict.
    Log,
}

/// How a person should read a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// Something that was written does not take effect.
    Error,
    /// It takes effect, though not as written or not for long.
    Warning,
    /// Good to know.
    Info,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        })
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $class:ident;)+) => {
        /// The kinds of findings. The text form is the stable kebab-case name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $name,)+
            /// A rule of [`lint`](crate::lint()), about which keepalived has nothing to say.
            Lint(Rule),
        }

        impl Code {
            /// Every kind that loading finds; the rules of [`lint`](crate::lint()) are in [`Rule::ALL`].
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The stable name, such as `unknown-keyword`.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                    Self::Lint(rule) => rule.as_str(),
                }
            }

            /// The class of complaint that keepalived files it under.
            pub fn class(self) -> Class {
                match self {
                    $(Self::$name => Class::$class,)+
                    Self::Lint(_) => Class::Ok,
                }
            }
        }
    };
}

codes! {
    /// A keyword that is not known at this place.
    UnknownKeyword = "unknown-keyword", UnknownKeyword;
    /// `{` where no block is expected.
    UnexpectedOpenBrace = "unexpected-open-brace", UnexpectedOpenBrace;
    /// A block keyword that is not followed by `{`.
    MissingOpenBrace = "missing-open-brace", MissingOpenBrace;
    /// `}` at top level.
    ExtraCloseBrace = "extra-close-brace", UnexpectedCloseBrace;
    /// The input ends inside a block.
    UnclosedBlock = "unclosed-block", MissingCloseBrace;
    /// A word starts with a quote that has no partner.
    UnmatchedQuote = "unmatched-quote", UnmatchedQuote;
    /// A line ends inside double quotes.
    UnterminatedQuote = "unterminated-quote", General;
    /// A script command ends inside quotes.
    UnterminatedScriptQuote = "unterminated-script-quote", UnmatchedQuote;
    /// A required argument is absent and keepalived stops.
    MissingArgument = "missing-argument-fatal", MissingParameter;
    /// A required argument is absent and the line is ignored.
    ArgumentMissingIgnored = "argument-missing-ignored", General;
    /// Words between a value block's keyword and its brace.
    BlockExtraParameters = "block-extra-parameters", General;
    /// More or fewer arguments than the keyword takes.
    ExtraArguments = "extra-arguments", General;
    /// A block that needs entries has none.
    EmptyBlock = "empty-block", General;
    /// A physical line of more than 1023 bytes.
    LineTooLong = "line-too-long", General;
    /// A NUL byte in a line.
    NulByte = "nul-byte", General;
    /// `~SEQ` or `~LST` that cannot be read.
    SequenceInvalid = "sequence-invalid", General;
    /// A reference to a parameter that cannot be replaced as written.
    ParameterInvalid = "parameter-invalid", General;
    /// A parameter whose value leads back to itself.
    ParameterLoop = "parameter-loop", General;
    /// Parameters and sequences that make more lines than can be meant.
    TooManyLines = "too-many-lines", General;
    /// The name of the main file matches several.
    MultipleFiles = "multiple-files", MultipleFiles;
    /// An included file that is not there or cannot be read.
    IncludeMissing = "include-missing", Fatal;
    /// An included file that includes itself.
    IncludeLoop = "include-loop", General;
    /// Not a number.
    InvalidNumber = "invalid-number", InvalidNumber;
    /// A negative number where none is allowed.
    NegativeNumber = "negative-number", InvalidNumber;
    /// A number outside the allowed range.
    NumberOutOfRange = "number-out-of-range", InvalidNumber;
    /// More fraction digits than the value can hold.
    TooManyDecimals = "too-many-decimals", InvalidNumber;
    /// A real-time priority that the system does not have.
    RtPriorityClamped = "rt-priority-clamped", Ok;
    /// Neither `on true yes` nor `off false no`.
    InvalidBoolean = "invalid-boolean", General;
    /// A value that the keyword does not take.
    InvalidValue = "invalid-value", General;
    /// Zero where at least one is needed.
    ZeroRaisedToOne = "zero-raised-to-one", General;
    /// A keyword that should not be used any more.
    Deprecated = "deprecated", Deprecated;
    /// A keyword that may be given once.
    DuplicateKeyword = "duplicate-keyword", General;
    /// A second instance or group of the same name.
    DuplicateVrrpInstance = "duplicate-vrrp-instance", General;
    /// The same object tracked twice.
    DuplicateTrackEntry = "duplicate-track-entry", General;
    /// An interface name of more than 15 bytes.
    InterfaceNameTooLong = "interface-name-too-long", General;
    /// A tracked script that is not defined earlier.
    TrackScriptUndefined = "track-script-undefined", General;
    /// A tracked file that is not defined earlier.
    TrackFileUndefined = "track-file-undefined", General;
    /// A tracked process that is not defined earlier.
    TrackProcessUndefined = "track-process-undefined", General;
    /// A tracked BFD instance that is not defined earlier.
    TrackBfdUndefined = "track-bfd-undefined", General;
    /// A sync group names an instance that does not exist.
    SyncGroupMemberUndefined = "sync-group-member-undefined", General;
    /// An instance in two sync groups.
    SyncGroupMemberTwice = "sync-group-member-twice", General;
    /// A sync group without valid members.
    SyncGroupWithoutMembers = "sync-group-without-members", General;
    /// A sync group of one.
    SyncGroupSingleMember = "sync-group-single-member", General;
    /// A sync group that mixes priority 255 with others.
    SyncGroupMixedOwner = "sync-group-mixed-owner", General;
    /// An instance without virtual router id.
    NoVirtualRouterId = "no-virtual-router-id-fatal", General;
    /// A virtual router id outside 1..255.
    VirtualRouterIdOutOfRange = "virtual-router-id-out-of-range", General;
    /// Two instances with one id on one link.
    DuplicateVrid = "duplicate-vrid-fatal", General;
    /// An instance without interface and without unicast.
    NoInterface = "no-interface-fatal", General;
    /// A version 2 instance without address.
    NoVip = "no-vip", General;
    /// A version 3 or strict instance without address.
    NoVipFatal = "no-vip-fatal", General;
    /// Neither MASTER nor BACKUP.
    UnknownState = "unknown-state", General;
    /// A priority outside 1..255.
    PriorityOutOfRange = "priority-out-of-range", General;
    /// An advertisement interval that the version cannot carry exactly.
    AdvertIntRounded = "advert-int-rounded", General;
    /// An advertisement interval that the version cannot carry.
    AdvertIntOutOfRange = "advert-int-out-of-range", General;
    /// A password of more than 8 bytes.
    AuthPassTruncated = "auth-pass-truncated", General;
    /// Authentication in version 3.
    AuthWithV3 = "auth-with-v3", General;
    /// An authentication type without password.
    AuthNoPassword = "auth-no-password", General;
    /// AH with state MASTER below priority 255.
    AuthAhWithMaster = "auth-ah-with-master", General;
    /// Neither PASS nor AH.
    UnknownAuthType = "unknown-auth-type", General;
    /// `nopreempt` with state MASTER.
    NopreemptWithMaster = "nopreempt-with-master", General;
    /// `nopreempt` with priority 255.
    NopreemptWithOwner = "nopreempt-with-owner", General;
    /// `preempt_delay` with state MASTER.
    PreemptDelayWithMaster = "preempt-delay-with-master", General;
    /// `preempt_delay` with `nopreempt`.
    PreemptDelayWithNopreempt = "preempt-delay-with-nopreempt", General;
    /// Strict mode: MASTER and priority 255 go together.
    StrictStatePriority = "strict-state-priority", General;
    /// Strict mode: no authentication.
    StrictAuth = "strict-auth", General;
    /// Strict mode: another setting that the standard does not know.
    StrictSetting = "strict-setting", General;
    /// More addresses than an advertisement can carry.
    TooManyVips = "too-many-vips", General;
    /// Settings that need a firewall, and none is configured.
    FirewallImplied = "firewall-implied", General;
    /// An instance that stays in fault as it is configured.
    ConfigFault = "config-fault", General;
    /// A unicast keyword, but no peers.
    UnicastWithoutPeers = "unicast-without-peers-deprecated", Deprecated;
    /// A peer line that cannot be used.
    UnicastPeerInvalid = "unicast-peer-invalid", General;
    /// A source address that cannot be used.
    SourceAddressInvalid = "source-address-invalid", General;
    /// IPv4 and IPv6 where one family is needed.
    FamilyMismatch = "family-mismatch", General;
    /// An address line that cannot be used.
    VipAddressInvalid = "vip-address-invalid", General;
    /// A prefix length that is no number or too long.
    PrefixLengthInvalid = "prefix-length-invalid", General;
    /// A prefix on the address although the peer has it.
    PrefixWithPeer = "prefix-with-peer", General;
    /// A peer of an address that cannot be used.
    PeerAddressInvalid = "peer-address-invalid", General;
    /// An option of an address line that cannot be used.
    IpAddressOptionUnknown = "ip-address-option-unknown", General;
    /// A tracked interface that is the instance's own.
    TrackOwnInterface = "track-own-interface", General;
    /// A word in a tracking line that cannot be used.
    TrackOptionUnknown = "track-option-unknown", General;
    /// A tracking weight out of range.
    WeightOutOfRange = "weight-out-of-range", General;
    /// A tracking weight that cannot take effect.
    WeightIgnored = "weight-ignored", General;
    /// A script is to run as an account that does not exist.
    ScriptUserInvalid = "script-user-invalid", General;
    /// A script without user, and no account that it could run as.
    ScriptUserMissing = "script-user-missing", General;
    /// `startup_script` or `shutdown_script` without a usable command.
    StartupScriptProblem = "startup-script-problem", General;
    /// A script block without command.
    VrrpScriptWithoutScript = "vrrp-script-without-script", General;
    /// A `track_group` that is not defined earlier.
    TrackGroupUndefined = "track-group-undefined", General;
    /// An interface in two `garp_group` blocks.
    DuplicateGarpGroup = "duplicate-garp-group", General;
    /// A `garp_group` without interval.
    GarpGroupWithoutDelay = "garp-group-without-delay", General;
    /// A `track_file` block without file.
    TrackFileWithoutFile = "track-file-without-file", General;
    /// A `vrrp_track_process` block without process.
    TrackProcessWithoutProcess = "track-process-without-process", General;
    /// A `bfd_instance` without usable neighbour.
    BfdNoNeighbor = "bfd-no-neighbor", General;
    /// A unicast instance with neither interface nor source address.
    UnicastNoSource = "unicast-no-source-fatal", General;
    /// `unicast_ttl` without peers.
    UnicastTtlWithoutPeers = "unicast-ttl-without-peers", General;
    /// A route that cannot be used.
    RouteInvalid = "route-invalid", General;
    /// A route without interface, which 2.2.7 cannot track.
    RouteUntracked = "route-untracked-no-interface", General;
    /// A rule that cannot be used.
    RuleInvalid = "rule-invalid", General;
    /// A rule without preference.
    RuleWithoutPreference = "rule-without-preference", General;
    /// Another protocol than keepalived's for a tracked route or rule.
    ProtocolReset = "protocol-reset-for-tracking", General;
    /// An object that an instance and its sync group track.
    TrackedOnInstanceAndGroup = "tracked-on-instance-and-group", General;
    /// A VMAC without interface.
    VmacUnicastNoInterface = "vmac-unicast-no-interface", General;
    /// A VMAC with unicast, for which `vmac_xmit_base` is set.
    VmacUnicastXmitBaseSet = "vmac-unicast-xmit-base-set", General;
    /// `promote_secondaries` with a VMAC.
    PromoteSecondariesWithVmac = "promote-secondaries-with-vmac", General;
    /// `vrf` with an interface or without unicast.
    VrfConflict = "vrf-conflict", General;
    /// A `virtual_server_group` without usable entries.
    VsgEmpty = "vsg-empty", General;
    /// A virtual server whose group cannot be used, which keepalived drops without a complaint.
    ServerGroupUnusable = "server-group-unusable", Ok;
    /// A virtual server's address, port or mark cannot be used.
    VsAddressInvalid = "vs-address-invalid", General;
    /// A real server's or sorry server's address or port cannot be used.
    RsAddressInvalid = "rs-address-invalid", General;
    /// A virtual server without real servers.
    VsNoRealServers = "vs-no-real-servers", General;
    /// A virtual server without protocol.
    VsNoProtocol = "vs-no-protocol", General;
    /// A virtual server without scheduler.
    VsNoScheduler = "vs-no-scheduler", General;
    /// A server without forwarding method.
    VsNoForwardingMethod = "vs-no-forwarding-method", General;
    /// A virtual server without port and without persistence.
    VsZeroPort = "vs-zero-port", General;
    /// A mark service with a protocol.
    VsFwmarkWithProtocol = "vs-fwmark-with-protocol", General;
    /// A real server's port in a mark service.
    FwmarkRsPort = "fwmark-rs-port", General;
    /// Not one of the schedulers.
    UnknownScheduler = "unknown-scheduler", General;
    /// Not one of the forwarding methods.
    UnknownForwardingMethod = "unknown-forwarding-method", General;
    /// A quorum that all servers together do not reach.
    QuorumExceedsWeight = "quorum-exceeds-weight", General;
    /// A hysteresis that is not below the quorum.
    HysteresisGeQuorum = "hysteresis-ge-quorum", General;
    /// The same real server twice.
    RsDuplicate = "rs-duplicate", General;
    /// A port that differs where the method cannot change it.
    RsPortDiffers = "rs-port-differs", General;
    /// The same, and the port is reset.
    RsPortDiffersReset = "rs-port-differs-reset", General;
    /// A sorry server's port that the method cannot change.
    SorryPortDiffers = "sorry-port-differs", General;
    /// One-packet scheduling for another protocol than UDP.
    OpsRequiresUdp = "ops-requires-udp", General;
    /// `ha_suspend` of a mark service.
    HaSuspendWithFwmark = "ha-suspend-with-fwmark", General;
    /// An HTTP check without url.
    HttpCheckWithoutUrl = "http-check-without-url", General;
    /// A url without path.
    HttpUrlWithoutPath = "http-url-without-path", General;
    /// A digest that is not 32 hex digits.
    DigestInvalid = "digest-invalid", General;
    /// A misc check without command.
    MiscCheckWithoutPath = "misc-check-without-path", General;
}

impl Code {
    /// keepalived finds it while it reads and names the line. The others come to light when everything has been read.
    pub fn is_found_while_reading(self) -> bool {
        !FOUND_AFTERWARDS.contains(&self.as_str())
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

struct OneLine<'a> {
    diagnostic: &'a Diagnostic,
    sources: &'a SourceMap,
}

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let d = self.diagnostic;
        let name = self.sources.get(d.span.source).map_or("?", |s| s.name());
        let position = self.sources.position(d.span);
        write!(f, "{name}:{position}: {}: {}", d.severity(), d.message)?;
        if let Some(expected) = &d.expected {
            write!(f, ", expected {expected}")?;
        }
        if let Some(hint) = &d.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

mod json;

#[cfg(feature = "render")]
mod render {
    use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

    use super::{Diagnostic, Severity};
    use crate::source::{SourceMap, Span};

    impl Diagnostic {
        /// A block of text with the source lines and marks under the words.
        ///
        /// The caller chooses `Renderer::plain()` or `Renderer::styled()`. Only the lines concerned are rendered, so the
        /// cost does not grow with the file.
        pub fn render(&self, sources: &SourceMap, renderer: &Renderer) -> String {
            let level = match self.severity() {
                Severity::Error => Level::ERROR,
                Severity::Warning => Level::WARNING,
                Severity::Info => Level::INFO,
            };
            let mut group = level
                .primary_title(self.message.as_str())
                .id(self.code.as_str())
                .element(excerpt(
                    sources,
                    self.span,
                    AnnotationKind::Primary,
                    self.expected.as_ref().map(|e| format!("expected {e}")),
                ));
            for note in &self.notes {
                group = group.element(excerpt(
                    sources,
                    note.span,
                    AnnotationKind::Context,
                    Some(note.message.clone()),
                ));
            }
            if let Some(hint) = &self.hint {
                group = group.element(Level::HELP.message(hint.as_str()));
            }
            renderer.render(&[group])
        }
    }

    /// The physical line of a span. Text that is not UTF-8 is shown with replacement characters, so offsets are recounted.
    fn excerpt<'a>(
        sources: &'a SourceMap,
        span: Span,
        kind: AnnotationKind,
        label: Option<String>,
    ) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let Some(source) = sources.get(span.source) else {
            return Snippet::source("");
        };
        let bytes = source.bytes();
        let start = (span.start as usize).min(bytes.len());
        let end = (span.end as usize).clamp(start, bytes.len());
        let from = bytes[..start]
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        let to = bytes[start..]
            .iter()
            .position(|b| *b == b'\n')
            .map_or(bytes.len(), |at| start + at);
        let before = String::from_utf8_lossy(&bytes[from..start]);
        let marked = String::from_utf8_lossy(&bytes[start..end.min(to)]);
        let after = String::from_utf8_lossy(&bytes[end.min(to)..to]);
        let range = before.len()..before.len() + marked.len();
        let line = source.position(span.start).line as usize;
        Snippet::source(format!("{before}{marked}{after}"))
            .path(source.name())
            .line_start(line)
            .annotation(kind.span(range).label(label))
    }
}

const FOUND_AFTERWARDS: &[&str] = &[
    "advert-int-out-of-range",
    "advert-int-rounded",
    "auth-ah-with-master",
    "auth-no-password",
    "auth-with-v3",
    "config-fault",
    "duplicate-vrid-fatal",
    "fwmark-rs-port",
    "ha-suspend-with-fwmark",
    "hysteresis-ge-quorum",
    "no-interface-fatal",
    "no-vip",
    "no-vip-fatal",
    "no-virtual-router-id-fatal",
    "nopreempt-with-master",
    "nopreempt-with-owner",
    "ops-requires-udp",
    "preempt-delay-with-master",
    "preempt-delay-with-nopreempt",
    "promote-secondaries-with-vmac",
    "quorum-exceeds-weight",
    "rs-duplicate",
    "rs-port-differs",
    "rs-port-differs-reset",
    "sorry-port-differs",
    "strict-auth",
    "strict-setting",
    "strict-state-priority",
    "sync-group-member-twice",
    "sync-group-member-undefined",
    "sync-group-mixed-owner",
    "sync-group-single-member",
    "sync-group-without-members",
    "too-many-vips",
    "track-own-interface",
    "tracked-on-instance-and-group",
    "unicast-no-source-fatal",
    "unicast-ttl-without-peers",
    "unicast-without-peers-deprecated",
    "vmac-unicast-no-interface",
    "vmac-unicast-xmit-base-set",
    "vrf-conflict",
    "vs-fwmark-with-protocol",
    "vs-no-forwarding-method",
    "vs-no-protocol",
    "vs-no-real-servers",
    "vs-no-scheduler",
    "vs-zero-port",
    "weight-ignored",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_codes_are_unique_and_kebab_case() {
        let mut names: Vec<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        assert!(names.iter().all(|n| {
            n.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        }));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
    }

    #[test]
    fn exit_status_follows_the_highest_class() {
        let mut map = SourceMap::new();
        let source = map.add("x", "");
        let span = Span {
            source,
            start: 0,
            end: 0,
        };
        let d = |code, consequence| Diagnostic::new(code, consequence, span, "");
        assert_eq!(exit_status(&[]), 0);
        assert_eq!(exit_status(&[d(Code::Deprecated, Consequence::Log)]), 0);
        assert_eq!(exit_status(&[d(Code::Deprecated, Consequence::Warn)]), 5);
        assert_eq!(
            exit_status(&[
                d(Code::MissingArgument, Consequence::Fatal),
                d(Code::Deprecated, Consequence::Warn)
            ]),
            2
        );
    }

    #[cfg(feature = "render")]
    #[test]
    fn rendering_marks_the_words_by_characters_and_shows_every_note() {
        let mut map = SourceMap::new();
        let source = map.add("k.conf", b"a\n\xff\xe9 caf\xc3\xa9 bad\n".to_vec());
        let at = |start, end| Span { source, start, end };
        let d = Diagnostic::new(
            Code::RsDuplicate,
            Consequence::Drop,
            at(11, 14),
            "given twice",
        )
        .expected("once")
        .hint("remove it")
        .note(at(0, 1), "first given here");
        let text = d.render(&map, &annotate_snippets::Renderer::plain());
        for part in [
            "error[rs-duplicate]: given twice",
            "k.conf:2:9",
            "^^^ expected once",
            "- first given here",
            "help: remove it",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert_eq!(
            d.display(&map).to_string(),
            "k.conf:2:9: error: given twice, expected once; remove it"
        );
    }
}

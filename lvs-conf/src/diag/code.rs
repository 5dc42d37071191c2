//! Kinds and classes of findings.

use std::fmt;

use crate::lint::Rule;

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

impl Class {
    /// The stable name, such as `unknown-keyword`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::FileNotFound => "file-not-found",
            Self::BadInterface => "bad-interface",
            Self::Fatal => "fatal",
            Self::MultipleFiles => "multiple-files",
            Self::UnknownKeyword => "unknown-keyword",
            Self::UnexpectedOpenBrace => "unexpected-open-brace",
            Self::MissingOpenBrace => "missing-open-brace",
            Self::UnexpectedCloseBrace => "unexpected-close-brace",
            Self::MissingCloseBrace => "missing-close-brace",
            Self::UnmatchedQuote => "unmatched-quote",
            Self::MissingParameter => "missing-parameter",
            Self::InvalidNumber => "invalid-number",
            Self::General => "general",
            Self::Warning => "warning",
            Self::Deprecated => "deprecated",
            Self::Security => "security",
        }
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

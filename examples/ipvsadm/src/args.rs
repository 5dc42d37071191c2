//! What was typed: the command, the switches in their order, the words. What it means is [`crate::command`]'s.
//!
//! One table, [`TABLE`], feeds the parser and the help text.

use std::fmt;
use std::iter::Peekable;

/// A wrong command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageError {
    /// The exit status: 255 when the words could not be split into options, 2 when what they ask for is wrong.
    pub status: u8,
    /// For people: lower case, no full stop.
    pub message: String,
}

impl UsageError {
    /// The option parser failed.
    pub fn parser(message: impl Into<String>) -> Self {
        Self {
            status: STATUS_REFUSED,
            message: message.into(),
        }
    }

    /// What is asked for is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self {
            status: STATUS_INVALID,
            message: message.into(),
        }
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for UsageError {}

/// A command: the first option of each command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// `-A`
    AddService,
    /// `-E`
    EditService,
    /// `-D`
    DeleteService,
    /// `-C`
    Flush,
    /// `-R`
    Restore,
    /// `-S`
    Save,
    /// `-a`
    AddServer,
    /// `-e`
    EditServer,
    /// `-d`
    DeleteServer,
    /// `-L`
    List,
    /// `-Z`
    Zero,
    /// `--set`
    Set,
    /// `--add-laddr`
    AddLocal,
    /// `--del-laddr`
    DeleteLocal,
    /// `--get-laddr`
    ListLocal,
    /// `--start-daemon`
    StartDaemon,
    /// `--stop-daemon`
    StopDaemon,
    /// `-h`
    Help,
    /// `-v`
    Version,
}

impl Verb {
    /// The name in diagnostics.
    pub fn name(self) -> &'static str {
        match self {
            Self::AddService => "add-service",
            Self::EditService => "edit-service",
            Self::DeleteService => "delete-service",
            Self::Flush => "flush",
            Self::Restore => "restore",
            Self::Save => "save",
            Self::AddServer => "add-server",
            Self::EditServer => "edit-server",
            Self::DeleteServer => "delete-server",
            Self::List => "list",
            Self::Zero => "zero",
            Self::Set => "set",
            Self::AddLocal => "add-laddr",
            Self::DeleteLocal => "del-laddr",
            Self::ListLocal => "get-laddr",
            Self::StartDaemon => "start-daemon",
            Self::StopDaemon => "stop-daemon",
            Self::Help => "help",
            Self::Version => "version",
        }
    }
}

/// An option that is no command; the variants are the long names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is described in the table below")]
pub enum Switch {
    TcpService,
    UdpService,
    SctpService,
    FwmarkService,
    Ipv6,
    Scheduler,
    Persistent,
    Netmask,
    Engine,
    OnePacket,
    SchedFlags,
    RealServer,
    Gatewaying,
    Ipip,
    Masquerading,
    Fullnat,
    Laddr,
    TunType,
    TunPort,
    TunNocsum,
    TunCsum,
    TunRemcsum,
    Weight,
    UpperThreshold,
    LowerThreshold,
    Numeric,
    Connection,
    Timeout,
    Daemon,
    Stats,
    Rate,
    Thresholds,
    PersistentConn,
    TunInfo,
    Exact,
    NoSort,
    Sort,
    SyncId,
    SyncMaxlen,
    McastInterface,
    McastGroup,
    McastPort,
    McastTtl,
}

/// What a line of the table stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A command.
    Verb(Verb),
    /// Another option.
    Switch(Switch),
}

/// Whether an option has an argument, and what the help text calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Argument {
    /// None.
    None,
    /// The rest of the word, or the next word whatever it looks like.
    Required(&'static str),
    /// The rest of the word, or the next word unless that starts with `-`.
    Optional(&'static str),
}

/// A line of the table.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// What it stands for.
    pub key: Key,
    /// Its letters, each a short option.
    pub shorts: &'static str,
    /// Its long name; it can't be abbreviated.
    pub long: &'static str,
    /// Its argument.
    pub argument: Argument,
    /// One line for the help text.
    pub help: &'static str,
}

/// What was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LowArgs {
    /// The command and its argument. [`Verb::List`] if nothing was typed.
    pub verb: Verb,
    /// The argument of `--start-daemon` and `--stop-daemon`.
    pub verb_argument: Option<String>,
    /// The switches and their arguments, in their order.
    pub switches: Vec<(Switch, Option<String>)>,
    /// Words that belong to no option.
    pub words: Vec<String>,
    /// Where reading stopped. An error in the values before that point comes first, as the original judges from left to
    /// right.
    pub end: Result<(), UsageError>,
}

/// Splits a command line, the program's name left out.
///
/// # Errors
///
/// The first option is no command. Later errors are kept in [`LowArgs::end`].
pub fn parse<I>(arguments: I) -> Result<LowArgs, UsageError>
where
    I: IntoIterator,
    I::Item: Into<String>,
{
    let mut reader = Reader {
        arguments: arguments.into_iter().map(Into::into).peekable(),
        bundle: String::new(),
        words: Vec::new(),
    };
    if reader.arguments.peek().is_none() {
        return Ok(LowArgs {
            verb: Verb::List,
            verb_argument: None,
            switches: Vec::new(),
            words: Vec::new(),
            end: Ok(()),
        });
    }
    let first = reader
        .next()
        .map_err(|error| UsageError::parser(format!("{}; {TRY_HELP}", error.message)))?;
    let Some((Key::Verb(verb), verb_argument)) = first else {
        return Err(UsageError::parser(format!(
            "the first option must be a command; {TRY_HELP}"
        )));
    };
    let mut low = LowArgs {
        verb,
        verb_argument,
        switches: Vec::new(),
        words: Vec::new(),
        end: Ok(()),
    };
    loop {
        match reader.next() {
            Ok(Some((Key::Switch(switch), argument))) => low.switches.push((switch, argument)),
            Ok(Some((Key::Verb(verb), _))) => {
                low.end = Err(UsageError::invalid(format!(
                    "invalid option '{}': only one command is allowed",
                    verb.name()
                )));
                break;
            }
            Ok(None) => break,
            Err(error) => {
                low.end = Err(error);
                break;
            }
        }
    }
    low.words = reader.words;
    Ok(low)
}

/// The help text, the version line first.
pub fn help() -> String {
    let mut text = format!(
        "{}\nUsage: ipvsadm COMMAND [OPTION]...\n\nCommands:\n",
        version()
    );
    for (title, commands) in [("", true), ("\nOptions:\n", false)] {
        text.push_str(title);
        for spec in TABLE {
            if matches!(spec.key, Key::Verb(_)) == commands {
                text.push_str(&help_line(spec));
            }
        }
    }
    text
}

/// The version line.
pub fn version() -> String {
    format!(
        "ipvsadm v{} {RELEASE_DATE} (compiled with builtin and IPVS v{IPVS_VERSION})",
        env!("CARGO_PKG_VERSION")
    )
}

fn help_line(spec: &Spec) -> String {
    let mut names: Vec<String> = spec
        .shorts
        .chars()
        .map(|short| format!("-{short}"))
        .collect();
    names.push(format!("--{}", spec.long));
    let argument = match spec.argument {
        Argument::None => String::new(),
        Argument::Required(name) => format!(" {name}"),
        Argument::Optional(name) => format!(" [{name}]"),
    };
    let left = format!("{}{argument}", names.join(", "));
    format!("  {left:<36} {}\n", spec.help)
}

struct Reader<I: Iterator<Item = String>> {
    arguments: Peekable<I>,
    /// Short options of the present word that are still to be read.
    bundle: String,
    words: Vec<String>,
}

impl<I: Iterator<Item = String>> Reader<I> {
    fn next(&mut self) -> Result<Option<(Key, Option<String>)>, UsageError> {
        loop {
            if let Some(short) = self.bundle.chars().next() {
                self.bundle.drain(..short.len_utf8());
                return self.short(short).map(Some);
            }
            let Some(word) = self.arguments.next() else {
                return Ok(None);
            };
            if word == "--" {
                self.words.extend(self.arguments.by_ref());
            } else if let Some(long) = word.strip_prefix("--") {
                return self.long(long).map(Some);
            } else if word.len() > 1 && word.starts_with('-') {
                self.bundle = word[1..].to_owned();
            } else {
                self.words.push(word);
            }
        }
    }

    fn short(&mut self, short: char) -> Result<(Key, Option<String>), UsageError> {
        let spec = TABLE
            .iter()
            .find(|spec| spec.shorts.contains(short))
            .ok_or_else(|| UsageError::parser(format!("-{short}: unknown option")))?;
        if spec.argument != Argument::None && !self.bundle.is_empty() {
            return Ok((spec.key, Some(std::mem::take(&mut self.bundle))));
        }
        let argument = self.argument(spec, || format!("-{short}"))?;
        Ok((spec.key, argument))
    }

    fn long(&mut self, text: &str) -> Result<(Key, Option<String>), UsageError> {
        let (name, attached) = match text.split_once('=') {
            Some((name, argument)) => (name, Some(argument.to_owned())),
            None => (text, None),
        };
        let spec = TABLE
            .iter()
            .find(|spec| spec.long == name)
            .ok_or_else(|| UsageError::parser(format!("--{name}: unknown option")))?;
        if attached.is_some() {
            if spec.argument == Argument::None {
                return Err(UsageError::parser(format!(
                    "--{name}: option does not take an argument"
                )));
            }
            return Ok((spec.key, attached));
        }
        let argument = self.argument(spec, || format!("--{name}"))?;
        Ok((spec.key, argument))
    }

    fn argument(
        &mut self,
        spec: &Spec,
        typed: impl Fn() -> String,
    ) -> Result<Option<String>, UsageError> {
        match spec.argument {
            Argument::None => Ok(None),
            Argument::Required(_) => match self.arguments.next() {
                Some(word) => Ok(Some(word)),
                None => Err(UsageError::parser(format!("{}: missing argument", typed()))),
            },
            Argument::Optional(_) => Ok(self.arguments.next_if(|word| !word.starts_with('-'))),
        }
    }
}

const fn verb(
    verb: Verb,
    shorts: &'static str,
    long: &'static str,
    argument: Argument,
    help: &'static str,
) -> Spec {
    Spec {
        key: Key::Verb(verb),
        shorts,
        long,
        argument,
        help,
    }
}

const fn flag(
    switch: Switch,
    shorts: &'static str,
    long: &'static str,
    help: &'static str,
) -> Spec {
    Spec {
        key: Key::Switch(switch),
        shorts,
        long,
        argument: Argument::None,
        help,
    }
}

const fn value(
    switch: Switch,
    shorts: &'static str,
    long: &'static str,
    name: &'static str,
    help: &'static str,
) -> Spec {
    Spec {
        key: Key::Switch(switch),
        shorts,
        long,
        argument: Argument::Required(name),
        help,
    }
}

/// All commands and options.
#[rustfmt::skip]
pub const TABLE: &[Spec] = &[
    verb(Verb::AddService, "A", "add-service", Argument::None, "add a virtual service"),
    verb(Verb::EditService, "E", "edit-service", Argument::None, "edit a virtual service"),
    verb(Verb::DeleteService, "D", "delete-service", Argument::None, "delete a virtual service"),
    verb(Verb::Flush, "C", "clear", Argument::None, "delete all virtual services"),
    verb(Verb::Restore, "R", "restore", Argument::None, "run command lines from standard input"),
    verb(Verb::Save, "S", "save", Argument::None, "print the table as command lines"),
    verb(Verb::AddServer, "a", "add-server", Argument::None, "add a real server"),
    verb(Verb::EditServer, "e", "edit-server", Argument::None, "edit a real server"),
    verb(Verb::DeleteServer, "d", "delete-server", Argument::None, "delete a real server"),
    verb(Verb::List, "Ll", "list", Argument::None, "list services, connections or timeouts; the default"),
    verb(Verb::Zero, "Z", "zero", Argument::None, "zero the counters of one or all services"),
    verb(Verb::Set, "", "set", Argument::None, "set the timeouts: tcp tcpfin udp, in seconds"),
    verb(Verb::AddLocal, "", "add-laddr", Argument::None, "give a service a local address for FULLNAT"),
    verb(Verb::DeleteLocal, "", "del-laddr", Argument::None, "take a local address from a service"),
    verb(Verb::ListLocal, "", "get-laddr", Argument::None, "list local addresses of one or all services"),
    verb(Verb::StartDaemon, "", "start-daemon", Argument::Required("STATE"), "start connection sync, master or backup"),
    verb(Verb::StopDaemon, "", "stop-daemon", Argument::Required("STATE"), "stop connection sync, master or backup"),
    verb(Verb::Help, "h", "help", Argument::None, "print this text"),
    verb(Verb::Version, "v", "version", Argument::None, "print the version"),
    value(Switch::TcpService, "t", "tcp-service", "ADDRESS[:PORT]", "TCP service"),
    value(Switch::UdpService, "u", "udp-service", "ADDRESS[:PORT]", "UDP service"),
    value(Switch::SctpService, "", "sctp-service", "ADDRESS[:PORT]", "SCTP service"),
    value(Switch::FwmarkService, "f", "fwmark-service", "MARK", "firewall-mark service, 1 to 4294967295"),
    flag(Switch::Ipv6, "6", "ipv6", "the firewall-mark service is IPv6; comes after -f"),
    value(Switch::Scheduler, "s", "scheduler", "NAME", "rr, wrr, lc, wlc, lblc, lblcr, dh, sh, sed, nq, fo, ovf, mh; default wlc"),
    Spec { key: Key::Switch(Switch::Persistent), shorts: "p", long: "persistent", argument: Argument::Optional("SECONDS"), help: "persistent service, 1 to 2678400; default 360" },
    value(Switch::Netmask, "M", "netmask", "MASK", "persistence granularity: IPv4 mask or IPv6 prefix length"),
    value(Switch::Engine, "", "pe", "NAME", "persistence engine: sip"),
    flag(Switch::OnePacket, "o", "ops", "one-packet scheduling"),
    value(Switch::SchedFlags, "b", "sched-flags", "FLAGS", "scheduler flags, separated by commas"),
    value(Switch::RealServer, "r", "real-server", "ADDRESS[:PORT]", "real server"),
    flag(Switch::Gatewaying, "g", "gatewaying", "direct routing, the default"),
    flag(Switch::Ipip, "i", "ipip", "tunnelling"),
    flag(Switch::Masquerading, "m", "masquerading", "NAT"),
    flag(Switch::Fullnat, "", "fullnat", "FULLNAT: NAT of both sides, from the service's local addresses"),
    value(Switch::Laddr, "", "laddr", "ADDRESS", "local address"),
    value(Switch::TunType, "", "tun-type", "TYPE", "ipip, gue or gre; default ipip"),
    value(Switch::TunPort, "", "tun-port", "PORT", "destination port of GUE, 1 to 65535"),
    flag(Switch::TunNocsum, "", "tun-nocsum", "tunnel without checksum, the default"),
    flag(Switch::TunCsum, "", "tun-csum", "tunnel with checksum"),
    flag(Switch::TunRemcsum, "", "tun-remcsum", "tunnel with remote checksum offload"),
    value(Switch::Weight, "w", "weight", "WEIGHT", "share of load, default 1; 0 means no new connections"),
    value(Switch::UpperThreshold, "x", "u-threshold", "N", "upper connection threshold; 0 means none"),
    value(Switch::LowerThreshold, "y", "l-threshold", "N", "lower connection threshold; 0 means none"),
    flag(Switch::Numeric, "n", "numeric", "print addresses and ports as numbers"),
    flag(Switch::Connection, "c", "connection", "list connections"),
    flag(Switch::Timeout, "", "timeout", "list timeouts: tcp tcpfin udp"),
    flag(Switch::Daemon, "", "daemon", "list connection sync"),
    flag(Switch::Stats, "", "stats", "list counters"),
    flag(Switch::Rate, "", "rate", "list rates"),
    flag(Switch::Thresholds, "", "thresholds", "list connection thresholds"),
    flag(Switch::PersistentConn, "", "persistent-conn", "list persistent connections; with -c: engine data"),
    flag(Switch::TunInfo, "", "tun-info", "list tunnels"),
    flag(Switch::Exact, "X", "exact", "exact numbers"),
    flag(Switch::NoSort, "", "nosort", "the director's order"),
    flag(Switch::Sort, "", "sort", "sorted, the default"),
    value(Switch::SyncId, "", "syncid", "ID", "sync id, 0 to 255"),
    value(Switch::SyncMaxlen, "", "sync-maxlen", "BYTES", "length of a sync message, 1 to 65507"),
    value(Switch::McastInterface, "", "mcast-interface", "NAME", "interface of connection sync"),
    value(Switch::McastGroup, "", "mcast-group", "ADDRESS", "multicast group of connection sync"),
    value(Switch::McastPort, "", "mcast-port", "PORT", "port of connection sync"),
    value(Switch::McastTtl, "", "mcast-ttl", "TTL", "TTL of connection sync, 1 to 255"),
];

/// The option parser failed, or the director refused a change.
pub const STATUS_REFUSED: u8 = 255;

/// Wrong use, or no director.
pub const STATUS_INVALID: u8 = 2;

const TRY_HELP: &str = "try 'ipvsadm -h' for help";

const IPVS_VERSION: &str = "1.2.1";

const RELEASE_DATE: &str = "2026/11/25";

#[cfg(test)]
mod tests {
    use super::*;

    fn low(line: &str) -> LowArgs {
        parse(line.split_whitespace()).unwrap()
    }

    fn switches(line: &str) -> Vec<(Switch, Option<String>)> {
        let low = low(line);
        assert_eq!(low.end, Ok(()), "{line}");
        low.switches
    }

    #[test]
    fn letters_and_long_names_are_unique() {
        let mut letters: Vec<char> = TABLE.iter().flat_map(|spec| spec.shorts.chars()).collect();
        let count = letters.len();
        letters.sort_unstable();
        letters.dedup();
        assert_eq!(letters.len(), count);
        let mut longs: Vec<&str> = TABLE.iter().map(|spec| spec.long).collect();
        longs.sort_unstable();
        longs.dedup();
        assert_eq!(longs.len(), TABLE.len());
    }

    #[test]
    fn nothing_typed_is_list() {
        assert_eq!(low("").verb, Verb::List);
    }

    #[test]
    fn short_options_may_be_bundled_with_the_argument_attached_or_next() {
        let numeric_connections = vec![(Switch::Numeric, None), (Switch::Connection, None)];
        assert_eq!(switches("-Lnc"), numeric_connections);
        assert_eq!(switches("-l -n -c"), numeric_connections);
        let service = vec![(Switch::TcpService, Some("a:1".to_owned()))];
        assert_eq!(switches("-At a:1"), service);
        assert_eq!(switches("-Ata:1"), service);
        assert_eq!(switches("--add-service --tcp-service=a:1"), service);
    }

    #[test]
    fn persistent_takes_the_next_word_unless_it_is_an_option() {
        let persistent = |argument: Option<&str>| (Switch::Persistent, argument.map(Into::into));
        assert_eq!(switches("-A -p50"), [persistent(Some("50"))]);
        assert_eq!(switches("-A -p 50"), [persistent(Some("50"))]);
        assert_eq!(switches("-A -p"), [persistent(None)]);
        assert_eq!(
            switches("-A -p -n"),
            [persistent(None), (Switch::Numeric, None)]
        );
        assert_eq!(switches("-A --persistent=7"), [persistent(Some("7"))]);
    }

    #[test]
    fn a_required_argument_may_look_like_an_option() {
        assert_eq!(switches("-a -w -1"), [(Switch::Weight, Some("-1".into()))]);
    }

    #[test]
    fn the_first_option_must_be_a_command() {
        for line in ["-n -L", "-X", "--nonsense", "-q", "word", "-t"] {
            assert_eq!(
                parse(line.split_whitespace()).unwrap_err().status,
                255,
                "{line}"
            );
        }
    }

    #[test]
    fn later_errors_keep_what_stood_before_them() {
        for (line, status) in [
            ("-L -n -q", 255),
            ("-A -t", 255),
            ("-L -n --numeric=1", 255),
            ("-L -n -h", 2),
        ] {
            assert_eq!(low(line).end.unwrap_err().status, status, "{line}");
        }
        assert_eq!(low("-L -n -q").switches.len(), 1);
    }

    #[test]
    fn words_are_kept_and_two_dashes_end_the_options() {
        assert_eq!(low("--set 1 2 3").words, ["1", "2", "3"]);
        assert_eq!(low("-L -- -n").words, ["-n"]);
    }

    #[test]
    fn help_starts_with_the_version_and_names_every_option() {
        let text = help();
        assert!(text.starts_with("ipvsadm v"));
        for spec in TABLE {
            assert!(text.contains(&format!("--{}", spec.long)));
        }
    }
}

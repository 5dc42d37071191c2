//! The command line: keepalived's options, so that unit files and habits carry over.

mod drain;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, value_parser};

use lvs_fwd::view::LOCAL_PORTS;
use lvs_health::HttpProtocol;

use crate::commands::compare::Old;
use crate::commands::completions::Shell;
use crate::commands::drain::DrainCommand;
use crate::commands::format::Mode;
use crate::commands::genhash::Page;
use crate::commands::health::Look;
use crate::commands::status::Detail;
use crate::commands::why::Packet;
use crate::control::by_hand::MarksQuestion;
use crate::demo::Setup;
use crate::devices::Choice;
use crate::logging::{Facility, LogOptions};
use crate::realserver::{Mode as RealServerMode, RealServer};
use crate::vrrp::VrrpOptions;

mod habits;

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invocation {
    /// Run the director.
    Run(RunOptions),
    /// Run VRRP alone (`-P`).
    RunVrrp(VrrpOptions),
    /// Check the configuration file and set the exit status (`-t`).
    Check {
        /// The file to check.
        file: PathBuf,
        /// What `@ID` lines are for (`-i`); `None`: the host's name.
        config_id: Option<String>,
        /// One JSON object a finding instead of text (`--json`).
        json: bool,
        /// In which network namespace (`-s`); `None`: here.
        namespace: Option<String>,
        /// What is found is added to this file (`--config-test=FILE`); `None`: it is shown.
        log: Option<PathBuf>,
    },
    /// Print a signal's number (`--signum`).
    SignalNumber(i32),
    /// Write files in canonical layout (`fmt`).
    Format {
        /// The files.
        files: Vec<PathBuf>,
        /// What becomes of the layout.
        mode: Mode,
    },
    /// Show what an operator may regret (`lint`).
    Lint {
        /// The file to look at.
        file: PathBuf,
        /// What `@ID` lines are for (`-i`); `None`: the host's name.
        config_id: Option<String>,
        /// One JSON object a finding instead of text (`--json`).
        json: bool,
    },
    /// Show what a reload would change (`plan`).
    Plan {
        /// What the file is compared with.
        old: Old,
        /// The new file.
        new: PathBuf,
        /// What `@ID` lines are for (`-i`); `None`: the host's name.
        config_id: Option<String>,
        /// One JSON object instead of text (`--json`).
        json: bool,
    },
    /// Make this host a real server while it runs (`realserver`).
    RealServer(RealServer),
    /// Show what keeps this host from being a real server (`realserver --check`).
    CheckRealServer {
        /// What for.
        wanted: RealServer,
        /// One JSON object a finding instead of text (`--json`).
        json: bool,
    },
    /// Show what on this host keeps a director from its work (`host --check`).
    CheckHost {
        /// The file that the director shall run.
        file: PathBuf,
        /// What `@ID` lines are for (`-i`); `None`: the host's name.
        config_id: Option<String>,
        /// How packets shall get in and out (`--device`).
        device: Choice,
        /// One JSON object a finding instead of text (`--json`).
        json: bool,
    },
    /// Show what runs and what happened to packets (`status`).
    Status(Detail),
    /// Show the health of all servers (`health`).
    Health(Look),
    /// Show the digest of a page (`genhash`).
    GenHash(Page),
    /// Show how virtual routers stand (`vrrp`).
    Vrrp {
        /// As one JSON object.
        json: bool,
    },
    /// Show what would happen to a packet (`why`).
    Why {
        /// The packet.
        packet: Packet,
        /// One JSON object instead of text (`--json`).
        json: bool,
    },
    /// Empty real servers or fill them again (`drain`, `undrain`, `weight`).
    Drain(DrainCommand),
    /// List or change rules of marks (`mark`).
    Marks(MarksQuestion),
    /// Set tunables (`set`), or without any list them (`show tunables`).
    Tunables(Vec<String>),
    /// Show what happens (`events`).
    Events {
        /// One JSON object an event instead of text (`--json`).
        json: bool,
    },
    /// Have the running director read its file again (`reload`).
    Reload {
        /// One JSON object instead of text (`--json`).
        json: bool,
    },
    /// What a shell needs to complete the command line (`completions`).
    Completions(Shell),
    /// Show a director at work in network namespaces of its own.
    Demo {
        /// Data-path threads of the demo's director.
        workers: NonZeroU32,
        /// Name of one of the set-ups; `None`: a tour.
        setup: Option<String>,
    },
}

/// Options of a running director.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOptions {
    /// The keepalived.conf to run.
    pub file: PathBuf,
    /// What `@ID` lines are for (`-i`); `None`: the host's name.
    pub config_id: Option<String>,
    /// The network namespace to enter (`-s`); `None`: the file's, or the present one.
    pub namespace: Option<String>,
    /// Where log lines go.
    pub log: LogOptions,
    /// Where the process's number is written (`-p`).
    pub pid_file: Option<PathBuf>,
    /// Leave VRRP out (`-C`).
    pub without_vrrp: bool,
    /// Log the configuration at the start (`-d`).
    pub dump_config: bool,
    /// What of the options given has no effect, and why.
    pub remarks: Vec<String>,
    /// Data-path threads, at least one.
    pub workers: NonZeroU32,
    /// What frames are received and sent with (`--device`).
    pub device: Choice,
    /// Receive slots of each ring; a longer frame goes through the socket's queue.
    pub ring_slots: NonZeroU32,
    /// Ports that FULLNAT uses at local addresses.
    pub local_ports: RangeInclusive<u16>,
}

/// Reads the arguments, the program's name first.
///
/// # Errors
///
/// What clap reports: an unknown option, a missing value, `--help` or `--version`. `error.exit_code()` and
/// `error.print()` do what a user expects.
pub fn parse<I, T>(arguments: I) -> Result<Invocation, clap::Error>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let arguments = arguments.into_iter().map(Into::into).enumerate();
    let arguments = arguments.map(|(at, argument)| match argument.to_str() {
        Some("-T" | "--genhash") if at == 1 => OsString::from("genhash"),
        _ => argument,
    });
    let matches = command().try_get_matches_from(arguments)?;
    match matches.subcommand() {
        Some(("demo", demo)) => {
            return Ok(Invocation::Demo {
                workers: workers(demo),
                setup: demo.get_one::<String>("setup").cloned(),
            });
        }
        Some(("fmt", format)) => return Ok(format_invocation(format)),
        Some(("lint", lint)) => {
            return Ok(Invocation::Lint {
                file: path(lint, "file").unwrap_or_else(|| PathBuf::from(DEFAULT_FILE)),
                config_id: config_id(lint),
                json: lint.get_flag("json"),
            });
        }
        Some(("plan", plan)) => return Ok(plan_invocation(plan)),
        Some(("realserver", realserver)) => return Ok(realserver_invocation(realserver)),
        Some(("host", host)) => {
            return Ok(Invocation::CheckHost {
                file: path(host, "use-file").unwrap_or_else(|| PathBuf::from(DEFAULT_FILE)),
                config_id: config_id(host),
                device: device(host),
                json: host.get_flag("json"),
            });
        }
        Some(("status", status)) => {
            return Ok(Invocation::Status(Detail {
                all: status.get_flag("all"),
                json: status.get_flag("json"),
            }));
        }
        Some(("health", health)) => {
            return Ok(Invocation::Health(Look {
                json: health.get_flag("json"),
                watch: health.get_flag("watch"),
            }));
        }
        Some(("genhash", genhash)) => return Ok(Invocation::GenHash(page(genhash))),
        Some(("vrrp", vrrp)) => {
            return Ok(Invocation::Vrrp {
                json: vrrp.get_flag("json"),
            });
        }
        Some((name @ ("drain" | "undrain" | "weight"), matches)) => {
            return Ok(Invocation::Drain(drain::invocation(name, matches)));
        }
        Some(("mark", mark)) => return Ok(Invocation::Marks(marks_question(mark))),
        Some(("set", set)) => {
            let settings = set.get_many::<String>("setting");
            return Ok(Invocation::Tunables(
                settings.into_iter().flatten().cloned().collect(),
            ));
        }
        Some(("show", _)) => return Ok(Invocation::Tunables(Vec::new())),
        Some(("events", events)) => {
            return Ok(Invocation::Events {
                json: events.get_flag("json"),
            });
        }
        Some(("reload", reload)) => {
            return Ok(Invocation::Reload {
                json: reload.get_flag("json"),
            });
        }
        Some(("completions", completions)) => {
            let shell = completions.get_one::<String>("shell");
            let shell = shell.and_then(|word| Shell::from_word(word));
            return Ok(Invocation::Completions(shell.unwrap_or(Shell::Bash)));
        }
        Some(("why", why)) => return Ok(why_invocation(why)),
        _ => {}
    }
    let file = path(&matches, "use-file").unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
    let config_id = config_id(&matches);
    let namespace = matches.get_one::<String>("namespace").cloned();
    if let Some(number) = matches.get_one::<String>("signum") {
        let named = SIGNALS.iter().find(|(name, _)| name == number);
        return Ok(Invocation::SignalNumber(named.map_or(0, |(_, it)| *it)));
    }
    if matches.contains_id("config-test") {
        return Ok(Invocation::Check {
            file,
            config_id,
            json: matches.get_flag("json"),
            namespace,
            log: path(&matches, "config-test").filter(|log| log.as_os_str() != "-"),
        });
    }
    let log = LogOptions {
        console: matches.get_flag("log-console") || matches.get_flag("no-syslog"),
        detail: matches.get_flag("log-detail"),
        facility: matches
            .get_one::<Facility>("log-facility")
            .copied()
            .unwrap_or_default(),
    };
    let pid_file = path(&matches, "pid");
    let (vrrp_only, checks_only) = (matches.get_flag("vrrp"), matches.get_flag("check"));
    if vrrp_only && !checks_only {
        return Ok(Invocation::RunVrrp(VrrpOptions {
            file,
            config_id,
            namespace,
            log,
            pid_file,
        }));
    }
    Ok(Invocation::Run(RunOptions {
        file,
        config_id,
        namespace,
        log,
        pid_file,
        without_vrrp: checks_only && !vrrp_only,
        dump_config: matches.get_flag("dump-conf"),
        remarks: habits::given(&matches),
        workers: workers(&matches),
        device: device(&matches),
        ring_slots: *matches
            .get_one::<NonZeroU32>("ring-slots")
            .unwrap_or(&DEFAULT_RING_SLOTS),
        local_ports: matches
            .get_one::<RangeInclusive<u16>>("local-ports")
            .cloned()
            .unwrap_or(LOCAL_PORTS),
    }))
}

fn format_invocation(matches: &ArgMatches) -> Invocation {
    Invocation::Format {
        files: paths(matches, "file"),
        mode: if matches.get_flag("check") {
            Mode::Check
        } else if matches.get_flag("write") {
            Mode::Write
        } else {
            Mode::Print
        },
    }
}

fn plan_invocation(matches: &ArgMatches) -> Invocation {
    let mut files = paths(matches, "files").into_iter();
    let (old, new) = match (files.next(), files.next()) {
        (Some(old), Some(new)) => (Old::File(old), Some(new)),
        _ => (Old::Running, path(matches, "use-file")),
    };
    Invocation::Plan {
        old,
        new: new.unwrap_or_else(|| PathBuf::from(DEFAULT_FILE)),
        config_id: config_id(matches),
        json: matches.get_flag("json"),
    }
}

fn realserver_invocation(matches: &ArgMatches) -> Invocation {
    let vips = matches.get_many::<IpAddr>("vip");
    let wanted = RealServer {
        vips: vips.into_iter().flatten().copied().collect(),
        mode: match matches.get_one::<String>("mode").map(String::as_str) {
            Some("tun") => RealServerMode::Tunnel,
            _ => RealServerMode::DirectRoute,
        },
        gue_port: matches
            .get_one::<u16>("gue-port")
            .copied()
            .unwrap_or(GUE_PORT),
        without_tun: matches.get_flag("without-tun"),
        state: path(matches, "state").unwrap_or_else(|| PathBuf::from(DEFAULT_STATE)),
    };
    if matches.get_flag("check") {
        let json = matches.get_flag("json");
        Invocation::CheckRealServer { wanted, json }
    } else {
        Invocation::RealServer(wanted)
    }
}

fn marks_question(matches: &ArgMatches) -> MarksQuestion {
    let rule = |matches: &ArgMatches| {
        let words = matches.get_many::<String>("rule");
        let words: Vec<&str> = words.into_iter().flatten().map(String::as_str).collect();
        Some(words.join(" "))
    };
    match matches.subcommand() {
        Some(("add", add)) => MarksQuestion {
            add: rule(add),
            first: add.get_flag("first"),
            ..MarksQuestion::default()
        },
        Some(("delete", delete)) => MarksQuestion {
            delete: rule(delete),
            ..MarksQuestion::default()
        },
        Some(("flush", _)) => MarksQuestion {
            flush: true,
            ..MarksQuestion::default()
        },
        _ => MarksQuestion::default(),
    }
}

fn why_invocation(matches: &ArgMatches) -> Invocation {
    let side = |name: &str| matches.get_one::<SocketAddr>(name).copied();
    let packet = if let Some(digits) = matches.get_one::<String>("hex") {
        Packet::Hex(digits.clone())
    } else if let Some(file) = path(matches, "pcap") {
        let number = matches.get_one::<usize>("packet").copied().unwrap_or(1);
        Packet::Capture(file, number)
    } else {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let tcp = lvs_fwd::wire::protocol::TCP;
        let protocol = matches.get_one::<u8>("protocol").copied().unwrap_or(tcp);
        Packet::Flow {
            protocol,
            source: side("source").unwrap_or(nowhere),
            destination: side("destination").unwrap_or(nowhere),
            tcp_flags: match (protocol == tcp, matches.get_flag("data")) {
                (true, true) => 0x10,
                (true, false) => 0x02,
                (false, _) => 0,
            },
        }
    };
    Invocation::Why {
        packet,
        json: matches.get_flag("json"),
    }
}

fn path(matches: &ArgMatches, name: &str) -> Option<PathBuf> {
    matches.get_one::<PathBuf>(name).cloned()
}

fn paths(matches: &ArgMatches, name: &str) -> Vec<PathBuf> {
    let paths = matches.get_many::<PathBuf>(name);
    paths.into_iter().flatten().cloned().collect()
}

fn config_id(matches: &ArgMatches) -> Option<String> {
    matches.get_one::<String>("config-id").cloned()
}

fn device(matches: &ArgMatches) -> Choice {
    matches
        .get_one::<String>("device")
        .and_then(|word| Choice::from_word(word))
        .unwrap_or_default()
}

/// `FROM-TO`, within what the claim takes from the host.
fn local_ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    text.split_once('-')
        .and_then(|(from, to)| Some(from.parse().ok()?..=to.parse().ok()?))
        .filter(|range| LOCAL_PORTS.contains(range.start()) && range.start() <= range.end())
        .ok_or_else(|| {
            format!(
                "a range of ports from {} to {} is expected, such as 1025-32767",
                LOCAL_PORTS.start(),
                LOCAL_PORTS.end()
            )
        })
}

fn workers(matches: &ArgMatches) -> NonZeroU32 {
    *matches
        .get_one::<NonZeroU32>("workers")
        .unwrap_or(&NonZeroU32::MIN)
}

/// The table of options and commands.
pub fn command() -> Command {
    let workers = Arg::new("workers")
        .long("workers")
        .value_name("N")
        .value_parser(value_parser!(NonZeroU32))
        .help("Data-path threads [default: 1]");
    let config_id = Arg::new("config-id")
        .short('i')
        .long("config-id")
        .value_name("ID")
        .help("Read lines that start with @ID, too [default: the host's name up to the first dot]");
    Command::new("director")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_version_flag(true)
        .about("Linux Virtual Server and keepalived in user space: runs a keepalived.conf without ip_vs")
        .subcommand_negates_reqs(true)
        .args_conflicts_with_subcommands(true)
        .disable_help_subcommand(true)
        .arg(file_argument())
        .arg(
            Arg::new("config-test")
                .short('t')
                .long("config-test")
                .value_name("LOG")
                .value_parser(value_parser!(PathBuf))
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("-")
                .help("Check the configuration file and exit: 0 is clean, the other values are keepalived's"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .requires("config-test")
                .action(ArgAction::SetTrue)
                .help("With -t: one JSON object a finding"),
        )
        .arg(config_id.clone())
        .arg(
            Arg::new("namespace")
                .short('s')
                .long("namespace")
                .value_name("NAME")
                .help("Run in this network namespace, one of `ip netns`, whatever the file says"),
        )
        .arg(
            Arg::new("signum")
                .long("signum")
                .value_name("FUNCTION")
                .value_parser(PossibleValuesParser::new(SIGNALS.map(|(name, _)| name)))
                .help("Print the number of the signal for it, and do nothing else"),
        )
        .arg(
            Arg::new("dont-fork")
                .short('n')
                .long("dont-fork")
                .action(ArgAction::SetTrue)
                .help("Stay in the foreground; always so, accepted for keepalived's unit files"),
        )
        .arg(
            Arg::new("vrrp")
                .short('P')
                .long("vrrp")
                .conflicts_with_all(["config-test", "workers"])
                .action(ArgAction::SetTrue)
                .help("Run the file's vrrp_instance blocks only, with peers that speak VRRP; nothing is balanced"),
        )
        .arg(
            Arg::new("log-console")
                .short('l')
                .long("log-console")
                .action(ArgAction::SetTrue)
                .help("Log to the console instead of syslog"),
        )
        .arg(
            Arg::new("log-detail")
                .short('D')
                .long("log-detail")
                .action(ArgAction::SetTrue)
                .help("Log in detail"),
        )
        .arg(
            Arg::new("log-facility")
                .short('S')
                .long("log-facility")
                .value_name("FACILITY")
                .value_parser(Facility::parse)
                .help("Facility in syslog: 0 to 7 for local0 to local7, or a name [default: daemon]"),
        )
        .arg(
            Arg::new("no-syslog")
                .short('G')
                .long("no-syslog")
                .action(ArgAction::SetTrue)
                .help("Log to the console only"),
        )
        .arg(
            Arg::new("dump-conf")
                .short('d')
                .long("dump-conf")
                .action(ArgAction::SetTrue)
                .help("Log the configuration as it is understood at the start"),
        )
        .arg(
            Arg::new("pid")
                .short('p')
                .long("pid")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Write the process's number to this file while it runs"),
        )
        .arg(
            Arg::new("check")
                .short('C')
                .long("check")
                .conflicts_with("config-test")
                .action(ArgAction::SetTrue)
                .help("Run the virtual servers only, without VRRP"),
        )
        .arg(
            Arg::new("version")
                .short('v')
                .long("version")
                .action(ArgAction::Version)
                .help("Print version"),
        )
        .args(habits::arguments())
        .arg(workers.clone())
        .arg(device_argument())
        .arg(
            Arg::new("ring-slots")
                .long("ring-slots")
                .value_name("N")
                .value_parser(value_parser!(NonZeroU32))
                .help("Receive slots of each ring, 1728 bytes each, or of each AF_XDP queue [default: 2048]"),
        )
        .arg(
            Arg::new("local-ports")
                .long("local-ports")
                .value_name("FROM-TO")
                .value_parser(local_ports)
                .help("Ports that FULLNAT uses at local addresses, shared by the workers [default: 1025-65535]"),
        )
        .subcommand(
            Command::new("demo")
                .about("Clients, a director and real servers in network namespaces of their own; needs no privilege")
                .arg(workers)
                .arg(
                    Arg::new("setup")
                        .long("setup")
                        .value_name("NAME")
                        .value_parser(Setup::names())
                        .help("Show one of the set-ups instead of a tour"),
                ),
        )
        .subcommand(format_command())
        .subcommand(lint_command().arg(config_id.clone()))
        .subcommand(plan_command().arg(config_id.clone()))
        .subcommand(host_command().arg(config_id))
        .subcommand(realserver_command())
        .subcommand(status_command())
        .subcommand(health_command())
        .subcommand(genhash_command())
        .subcommand(vrrp_command())
        .subcommand(
            Command::new("events")
                .about("Show what happens in the running director, as it happens")
                .after_help("Exit status: 0 when the director ends, 2 if none can be asked.")
                .arg(json_flag("One JSON object an event")),
        )
        .subcommand(
            Command::new("reload")
                .about("Have the running director read its file again, and say what came of it")
                .after_help("Exit status: 0 the file is in force, 1 it is not, 2 no director can be asked.")
                .arg(json_flag("One JSON object")),
        )
        .subcommand(
            Command::new("completions")
                .about("Print what a shell needs to complete this command line")
                .arg(
                    Arg::new("shell")
                        .value_name("SHELL")
                        .value_parser(PossibleValuesParser::new(Shell::NAMES))
                        .required(true)
                        .help("Which shell"),
                ),
        )
        .subcommand(why_command())
        .subcommands(drain::commands())
        .subcommand(mark_command())
        .subcommand(set_command())
        .subcommand(
            Command::new("show")
                .about("Show settings of the running director")
                .subcommand_required(true)
                .subcommand(
                    Command::new("tunables")
                        .about("The kernel's net.ipv4.vs.*: values, meanings, and defaults where they differ"),
                ),
        )
}

fn host_command() -> Command {
    Command::new("host")
        .about("Show what on this host keeps a director from doing what its file says; changes nothing")
        .after_help("Exit status: 0 nothing found, 1 something to do, 2 it can't be told.")
        .arg(
            Arg::new("check")
                .long("check")
                .required(true)
                .action(ArgAction::SetTrue)
                .help("Look, and change nothing"),
        )
        .arg(file_argument())
        .arg(device_argument())
        .arg(json_flag("One JSON object a finding"))
}

fn realserver_command() -> Command {
    Command::new("realserver")
        .about("Make this host a real server for DR or TUN until it is told to end: the services' addresses on lo, quiet ARP, tunnels unpacked")
        .after_help(
            "SIGTERM and SIGINT give everything back; what a killed one left is given back by the next.\n\
             Exit status: 0 done, with --check: nothing found; 1 with --check: something to do; 2 it can't be done or told.",
        )
        .arg(
            Arg::new("vip")
                .long("vip")
                .value_name("ADDRESS")
                .value_parser(value_parser!(IpAddr))
                .action(ArgAction::Append)
                .required(true)
                .help("A service's address; may be given several times"),
        )
        .arg(
            Arg::new("mode")
                .long("mode")
                .value_name("MODE")
                .value_parser(["dr", "tun"])
                .required(true)
                .help("How packets come"),
        )
        .arg(
            Arg::new("gue-port")
                .long("gue-port")
                .value_name("PORT")
                .value_parser(value_parser!(u16).range(1..))
                .help("UDP port of GUE tunnels [default: 6080]"),
        )
        .arg(
            Arg::new("without-tun")
                .long("without-tun")
                .action(ArgAction::SetTrue)
                .help("Give what was unpacked to the host by raw sockets; done by itself where there is no TUN device"),
        )
        .arg(
            Arg::new("state")
                .long("state")
                .value_name("DIRECTORY")
                .value_parser(value_parser!(PathBuf))
                .help("Where changed settings are written down [default: /run/lvs-director]"),
        )
        .arg(
            Arg::new("check")
                .long("check")
                .action(ArgAction::SetTrue)
                .help("Show what keeps this host from being a real server, and change nothing"),
        )
        .arg(json_flag("With --check: one JSON object a finding").requires("check"))
}

fn vrrp_command() -> Command {
    Command::new("vrrp")
        .about("Show how the virtual routers of the running director stand, and why")
        .after_help("Exit status: 0, or 2 if no director can be asked.")
        .arg(json_flag("One JSON object, with counters"))
}

fn status_command() -> Command {
    Command::new("status")
        .about("Show what the running director has counted: packets dropped by reason, devices, workers")
        .after_help("Exit status: 0, or 2 if no director can be asked.")
        .arg(
            Arg::new("all")
                .long("all")
                .action(ArgAction::SetTrue)
                .help("Show what never happened, too"),
        )
        .arg(json_flag("One JSON object, with everything"))
}

fn health_command() -> Command {
    Command::new("health")
        .about("Show which servers are up, what their checks found and when they look again")
        .after_help("Exit status: 0 all servers are up, 1 not all are, 2 no director can be asked.")
        .arg(
            Arg::new("watch")
                .long("watch")
                .action(ArgAction::SetTrue)
                .help("Show it again whenever something goes up or down"),
        )
        .arg(json_flag("One JSON object"))
}

fn genhash_command() -> Command {
    let text = |name: &'static str, short: char, value: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .short(short)
            .value_name(value)
            .help(help)
    };
    let flag = |name: &'static str, short: char, help: &'static str| {
        Arg::new(name)
            .long(name)
            .short(short)
            .action(ArgAction::SetTrue)
            .help(help)
    };
    Command::new("genhash")
        .about("Print the digest of a page for HTTP_GET and SSL_GET")
        .after_help("Exit status: 0, or 2 if there was no answer.")
        .arg(
            text("server", 's', "ADDRESS", "Address of the server")
                .required(true)
                .value_parser(value_parser!(IpAddr)),
        )
        .arg(
            text("port", 'p', "PORT", "Port of the server")
                .required(true)
                .value_parser(value_parser!(u16).range(1..)),
        )
        .arg(text("url", 'u', "PATH", "What is asked for").required(true))
        .arg(flag("use-ssl", 'S', "Over TLS"))
        .arg(flag(
            "use-sni",
            'I',
            "With the virtual host as TLS server name",
        ))
        .arg(text("use-virtualhost", 'V', "HOST", "The Host header"))
        .arg(
            text(
                "protocol",
                'P',
                "VERSION",
                "Version of HTTP; 1.0c closes the connection",
            )
            .value_parser(["1.0", "1.0c", "1.0C", "1.1"])
            .default_value("1.0"),
        )
        .arg(
            text("fwmark", 'm', "MARK", "Firewall mark of the connection")
                .value_parser(value_parser!(u32))
                .default_value("0"),
        )
        .arg(
            text("timeout", 't', "SECONDS", "How long each step may take")
                .value_parser(value_parser!(u64).range(1..=4294))
                .default_value("5"),
        )
        .arg(flag("verbose", 'v', "Say how long it took, too"))
}

fn page(genhash: &ArgMatches) -> Page {
    let text = |name: &str| genhash.get_one::<String>(name).cloned();
    let server = genhash.get_one("server").copied();
    let port = genhash.get_one("port").copied();
    Page {
        server: SocketAddr::new(
            server.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            port.unwrap_or(80),
        ),
        url: text("url").unwrap_or_default(),
        ssl: genhash.get_flag("use-ssl"),
        sni: genhash.get_flag("use-sni"),
        virtualhost: text("use-virtualhost"),
        protocol: match text("protocol").as_deref() {
            Some("1.1") => HttpProtocol::Http11,
            Some("1.0c" | "1.0C") => HttpProtocol::Http10Close,
            _ => HttpProtocol::Http10,
        },
        mark: genhash.get_one("fwmark").copied().unwrap_or(0),
        timeout: Duration::from_secs(genhash.get_one("timeout").copied().unwrap_or(5)),
        verbose: genhash.get_flag("verbose"),
    }
}

fn file_argument() -> Arg {
    Arg::new("use-file")
        .short('f')
        .long("use-file")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("Configuration file [default: /etc/keepalived/keepalived.conf]")
}

fn device_argument() -> Arg {
    Arg::new("device")
        .long("device")
        .value_name("KIND")
        .value_parser(PossibleValuesParser::new(Choice::WORDS))
        .help(
            "What frames are received and sent with: packet rings (ring), AF_XDP sockets (xdp), plain packet \
             sockets (pnet), or at each interface the best that works there (auto) [default: auto]",
        )
}

fn json_flag(help: &'static str) -> Arg {
    Arg::new("json")
        .long("json")
        .action(ArgAction::SetTrue)
        .help(help)
}

fn mark_command() -> Command {
    let rule = Arg::new("rule")
        .value_name("RULE")
        .num_args(1..)
        .required(true)
        .help("Such as: daddr 198.51.100.100 tcp dport 80,443 mark 1");
    Command::new("mark")
        .about("List or change the rules that give packets of fwmark services their marks")
        .after_help(
            "The first rule that matches decides. Rules from the file .marks beside the configuration are read at each \
             reload; what is changed here stays until the director ends or the file changes the same rule.\n\
             Words: iif NAME, ip, ip6, saddr PREFIX, daddr PREFIX, tcp, udp, sport PORTS, dport PORTS, mark NUMBER.",
        )
        .subcommand_required(true)
        .subcommand(Command::new("list").about("List the rules in their order"))
        .subcommand(
            Command::new("add")
                .about("Add a rule behind all others")
                .arg(
                    Arg::new("first")
                        .long("first")
                        .action(ArgAction::SetTrue)
                        .help("Add it before all others"),
                )
                .arg(rule.clone()),
        )
        .subcommand(Command::new("delete").about("Delete a rule").arg(rule))
        .subcommand(Command::new("flush").about("Delete all rules"))
}

fn set_command() -> Command {
    Command::new("set")
        .about("Set tunables of the running director")
        .after_help("The names are the kernel's, with or without net.ipv4.vs. before them; `director show tunables` lists them.")
        .arg(
            Arg::new("setting")
                .value_name("NAME=VALUE")
                .num_args(1..)
                .required(true)
                .help("Such as conn_reuse_mode=2; all are set or none"),
        )
}

fn why_command() -> Command {
    let side = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name)
            .value_name(value)
            .value_parser(side_of_flow)
            .requires("protocol")
            .help(help)
    };
    Command::new("why")
        .about("Show what the running director would do with a packet, and why, without doing it")
        .after_help(
            "Exit status: 0 the packet gets to where its sender wants it, 1 it does not, 2 nobody can be asked.\n\
             An answer of a real server is asked about with the server as SOURCE.",
        )
        .override_usage(
            "director why [--data] [--json] PROTOCOL SOURCE DESTINATION\n       \
             director why [--json] --hex DIGITS\n       \
             director why [--json] --pcap FILE [--packet N]",
        )
        .arg(
            Arg::new("protocol")
                .value_name("PROTOCOL")
                .value_parser(protocol_number)
                .requires("destination")
                .help("tcp, udp, sctp, esp or ah"),
        )
        .arg(side("source", "SOURCE", "Address and port of the sender; of esp and ah the address"))
        .arg(side("destination", "DESTINATION", "Address and port of the receiver; of esp and ah the address"))
        .arg(
            Arg::new("syn")
                .long("syn")
                .action(ArgAction::SetTrue)
                .conflicts_with("data")
                .help("TCP: a packet that begins a connection, the default"),
        )
        .arg(
            Arg::new("data")
                .long("data")
                .action(ArgAction::SetTrue)
                .help("TCP: a packet in the middle of a connection"),
        )
        .arg(
            Arg::new("hex")
                .long("hex")
                .value_name("DIGITS")
                .help("This packet, from its Ethernet or IP header on"),
        )
        .arg(
            Arg::new("pcap")
                .long("pcap")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("A packet of this capture"),
        )
        .arg(
            Arg::new("packet")
                .long("packet")
                .value_name("N")
                .value_parser(value_parser!(usize))
                .requires("pcap")
                .help("Which one of the capture, from 1 [default: 1]"),
        )
        .arg(json_flag("One JSON object"))
        .group(
            ArgGroup::new("what")
                .args(["protocol", "hex", "pcap"])
                .required(true),
        )
}

fn protocol_number(name: &str) -> Result<u8, String> {
    match name.to_ascii_lowercase().as_str() {
        "tcp" => Ok(6),
        "udp" => Ok(17),
        "sctp" => Ok(132),
        "esp" => Ok(50),
        "ah" => Ok(51),
        _ => Err("tcp, udp, sctp, esp or ah is expected".into()),
    }
}

fn side_of_flow(text: &str) -> Result<SocketAddr, String> {
    let with_port = text.parse().or_else(|_| {
        let addr = text.parse::<IpAddr>();
        addr.map(|addr| SocketAddr::new(addr, 0))
    });
    with_port.map_err(|_| "an address and a port are expected, such as 192.0.2.10:80".into())
}

fn format_command() -> Command {
    Command::new("fmt")
        .about("Write a configuration file in canonical layout, comments kept")
        .after_help("Exit status: 0 done, 1 with --check: a file differs, 2 a file can't be read or written.")
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .num_args(1..)
                .required(true)
                .help("Configuration files; those that they include are left as they are"),
        )
        .arg(
            Arg::new("write")
                .long("write")
                .action(ArgAction::SetTrue)
                .conflicts_with("check")
                .help("Replace the files instead of writing to standard output"),
        )
        .arg(
            Arg::new("check")
                .long("check")
                .action(ArgAction::SetTrue)
                .help("Change nothing, only name the files that are not in canonical layout"),
        )
}

fn lint_command() -> Command {
    Command::new("lint")
        .about("Show what is wrong with a configuration file, and what keepalived accepts and operators regret")
        .after_help(
            "Exit status: 0 nothing found, 1 something to regret; if keepalived complains about the file, its status for it.",
        )
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Configuration file [default: /etc/keepalived/keepalived.conf]"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("One JSON object a finding"),
        )
}

fn plan_command() -> Command {
    Command::new("plan")
        .about("Show what a reload would change, in its order, without changing it")
        .after_help(
            "Exit status: 0 no changes, 1 changes, 2 they can't be told or a reload would refuse the new file.",
        )
        .override_usage("director plan [--json] [-i ID] OLD NEW\n       director plan [--json] [-i ID] -f NEW")
        .arg(
            Arg::new("files")
                .value_names(["OLD", "NEW"])
                .value_parser(value_parser!(PathBuf))
                .num_args(2)
                .help("Two configuration files to compare"),
        )
        .arg(
            Arg::new("use-file")
                .short('f')
                .long("use-file")
                .value_name("NEW")
                .value_parser(value_parser!(PathBuf))
                .help("Compare this file with what the director in this network namespace runs"),
        )
        .group(
            ArgGroup::new("what")
                .args(["files", "use-file"])
                .required(true),
        )
        .arg(json_flag("One JSON object"))
}

/// What can be asked of a running director by signals.
const SIGNALS: [(&str, i32); 4] = [
    ("STOP", libc::SIGTERM),
    ("RELOAD", libc::SIGHUP),
    ("DATA", libc::SIGUSR1),
    ("STATS", libc::SIGUSR2),
];

const DEFAULT_FILE: &str = "/etc/keepalived/keepalived.conf";

/// Of GUE by convention.
const GUE_PORT: u16 = 6080;

const DEFAULT_STATE: &str = "/run/lvs-director";

const DEFAULT_RING_SLOTS: NonZeroU32 = NonZeroU32::new(2048).expect("2048 is not zero");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::Kind;

    fn run(arguments: &[&str]) -> Invocation {
        parse(std::iter::once("director").chain(arguments.iter().copied())).unwrap()
    }

    #[test]
    fn options_of_a_keepalived_unit_file_are_accepted() {
        let Invocation::Run(options) = run(&["-n", "-l", "-D", "-f", "/x/k.conf"]) else {
            panic!("not a run");
        };
        assert_eq!(options.file, PathBuf::from("/x/k.conf"));
        assert!(options.log.console && options.log.detail);
        assert_eq!(options.workers.get(), 1);
    }

    #[test]
    fn bundled_short_options_are_accepted() {
        let Invocation::Run(options) = run(&["-nlD"]) else {
            panic!("not a run");
        };
        assert!(options.log.console && options.log.detail);
        assert_eq!(options.file, PathBuf::from(DEFAULT_FILE));
    }

    #[test]
    fn everything_that_keepalived_takes_is_taken_and_what_does_nothing_says_so() {
        let Invocation::Run(options) = run(&[
            "-V",
            "-I",
            "-R",
            "-x",
            "-p",
            "/run/k.pid",
            "-r",
            "/run/v.pid",
            "--checkers_pid=/run/c.pid",
            "-S",
            "3",
            "-d",
        ]) else {
            panic!("not a run");
        };
        assert_eq!(options.pid_file, Some(PathBuf::from("/run/k.pid")));
        assert_eq!(options.log.facility, Facility::parse("local3").unwrap());
        assert!(options.dump_config && !options.without_vrrp);
        let names: Vec<&str> = options
            .remarks
            .iter()
            .filter_map(|remark| remark.split(' ').next())
            .collect();
        assert_eq!(
            names,
            [
                "--vrrp_pid",
                "--checkers_pid",
                "--dont-respawn",
                "--dont-release-vrrp",
                "--dont-release-ipvs",
                "--snmp"
            ]
        );
        let version = parse(["director", "-v"]).unwrap_err();
        assert_eq!(version.exit_code(), 0);
        for wrong in ["8", "kernel", ""] {
            assert!(parse(["director", "-S", wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn shells_complete_every_command_and_option_that_help_shows() {
        use crate::commands::completions::script;
        let mut built = command();
        built.build();
        let bash = script(Shell::Bash, &built);
        let fish = script(Shell::Fish, &built);
        for sub in built.get_subcommands() {
            let name = sub.get_name();
            assert!(bash.contains(&format!("        {name}) words=")), "{name}");
            assert!(fish.contains(&format!(" -a {name} ")), "{name}");
        }
        for words in ["--config-test", "--json", "--setup", "--pcap", " events "] {
            assert!(bash.contains(words), "{words}");
        }
        assert!(fish.contains("-s S -l log-facility -r"), "{fish}");
        assert!(!bash.contains("dont-respawn") && !fish.contains("dont-respawn"));
    }

    #[test]
    fn parts_run_alone_or_both() {
        let Invocation::Run(options) = run(&["-C"]) else {
            panic!("not a run");
        };
        assert!(options.without_vrrp);
        assert!(matches!(run(&["-P"]), Invocation::RunVrrp(_)));
        let Invocation::Run(options) = run(&["-P", "-C"]) else {
            panic!("not a run");
        };
        assert!(!options.without_vrrp);
    }

    #[test]
    fn config_test_names_its_file() {
        assert_eq!(
            run(&["-t", "-f", "a.conf"]),
            Invocation::Check {
                file: "a.conf".into(),
                config_id: None,
                json: false,
                namespace: None,
                log: None,
            }
        );
        assert_eq!(
            run(&["-ts", "blue", "-i", "node1", "--json"]),
            Invocation::Check {
                file: DEFAULT_FILE.into(),
                config_id: Some("node1".to_owned()),
                json: true,
                namespace: Some("blue".to_owned()),
                log: None,
            }
        );
        assert_eq!(
            run(&["--config-test=out", "-f", "a.conf"]),
            Invocation::Check {
                file: "a.conf".into(),
                config_id: None,
                json: false,
                namespace: None,
                log: Some("out".into()),
            }
        );
        assert_eq!(run(&["--signum=DATA"]), Invocation::SignalNumber(10));
        assert!(parse(["director", "--signum=JSON"]).is_err());
        assert!(matches!(
            run(&["-T", "-s", "127.0.0.1", "-p", "80", "-u", "/"]),
            Invocation::GenHash(_)
        ));
    }

    #[test]
    fn fmt_takes_files_and_one_mode() {
        let format = |files: &[&str], mode| Invocation::Format {
            files: files.iter().map(PathBuf::from).collect(),
            mode,
        };
        assert_eq!(run(&["fmt", "a"]), format(&["a"], Mode::Print));
        assert_eq!(
            run(&["fmt", "--check", "a", "b"]),
            format(&["a", "b"], Mode::Check)
        );
        assert_eq!(run(&["fmt", "a", "--write"]), format(&["a"], Mode::Write));
        assert!(parse(["director", "fmt", "a", "--write", "--check"]).is_err());
        assert!(parse(["director", "fmt"]).is_err());
    }

    #[test]
    fn lint_takes_a_file() {
        assert_eq!(
            run(&["lint", "a", "--json", "-i", "n1"]),
            Invocation::Lint {
                file: "a".into(),
                config_id: Some("n1".to_owned()),
                json: true,
            }
        );
    }

    #[test]
    fn plan_compares_two_files_or_one_with_what_runs() {
        let plan = |old, new: &str| Invocation::Plan {
            old,
            new: new.into(),
            config_id: None,
            json: false,
        };
        assert_eq!(run(&["plan", "a", "b"]), plan(Old::File("a".into()), "b"));
        assert_eq!(run(&["plan", "-f", "b"]), plan(Old::Running, "b"));
        for wrong in [
            &["plan"][..],
            &["plan", "a"],
            &["plan", "a", "b", "-f", "c"],
        ] {
            assert!(parse(std::iter::once(&"director").chain(wrong)).is_err());
        }
    }

    #[test]
    fn why_takes_a_flow_digits_or_a_capture() {
        let why = |packet| Invocation::Why {
            packet,
            json: false,
        };
        let flow = |protocol, tcp_flags| Packet::Flow {
            protocol,
            source: "198.51.100.7:4000".parse().unwrap(),
            destination: "203.0.113.10:80".parse().unwrap(),
            tcp_flags,
        };
        let sides = ["198.51.100.7:4000", "203.0.113.10:80"];
        assert_eq!(run(&["why", "tcp", sides[0], sides[1]]), why(flow(6, 2)));
        let data = ["why", "TCP", sides[0], sides[1], "--data"];
        assert_eq!(run(&data), why(flow(6, 0x10)));
        assert_eq!(run(&["why", "udp", sides[0], sides[1]]), why(flow(17, 0)));
        assert_eq!(
            run(&["why", "--hex", "45 00"]),
            why(Packet::Hex("45 00".into()))
        );
        assert_eq!(
            run(&["why", "--pcap", "x.pcap", "--packet", "7"]),
            why(Packet::Capture("x.pcap".into(), 7))
        );
        for wrong in [
            &["why"][..],
            &["why", "tcp"],
            &["why", "tcp", sides[0]],
            &["why", "icmp", sides[0], sides[1]],
            &["why", "tcp", sides[0], sides[1], "--hex", "45"],
        ] {
            assert!(parse(std::iter::once(&"director").chain(wrong)).is_err());
        }
    }

    #[test]
    fn realserver_takes_several_addresses_and_one_mode() {
        let arguments = [
            "realserver",
            "--vip",
            "192.0.2.1",
            "--vip",
            "2001:db8::1",
            "--mode",
            "tun",
        ];
        let wanted = RealServer {
            vips: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            mode: RealServerMode::Tunnel,
            gue_port: 6080,
            without_tun: false,
            state: DEFAULT_STATE.into(),
        };
        assert_eq!(run(&arguments), Invocation::RealServer(wanted.clone()));
        let check = [&arguments[..], &["--check", "--json"]].concat();
        assert_eq!(
            run(&check),
            Invocation::CheckRealServer { wanted, json: true }
        );
        for wrong in [
            &["realserver", "--mode", "dr"][..],
            &["realserver", "--vip", "192.0.2.1"],
            &["realserver", "--vip", "192.0.2.1", "--mode", "nat"],
            &["realserver", "--vip", "x", "--mode", "dr"],
            &["realserver", "--vip", "192.0.2.1", "--mode", "dr", "--json"],
            &["host"],
        ] {
            assert!(parse(std::iter::once(&"director").chain(wrong)).is_err());
        }
    }

    #[test]
    fn json_is_for_a_config_test() {
        assert!(parse(["director", "--json"]).is_err());
    }

    #[test]
    fn local_ports_are_a_range_that_the_host_can_spare() {
        let of = |arguments: &[&str]| match run(arguments) {
            Invocation::Run(options) => options.local_ports,
            other => panic!("{other:?}"),
        };
        assert_eq!(of(&[]), 1025..=65535);
        assert_eq!(of(&["--local-ports", "2000-2001"]), 2000..=2001);
        for wrong in ["", "80-90", "3000", "3000-2000", "1025-70000", "a-b"] {
            assert!(
                parse(["director", "--local-ports", wrong]).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn zero_workers_are_refused() {
        assert!(parse(["director", "--workers", "0"]).is_err());
    }

    #[test]
    fn a_kind_of_device_can_be_asked_for() {
        for (arguments, device) in [
            (&["-n"][..], Choice::Auto),
            (&["--device", "ring"], Choice::Only(Kind::Ring)),
            (&["--device", "xdp"], Choice::Only(Kind::Xdp)),
        ] {
            let Invocation::Run(options) = run(arguments) else {
                panic!("not a run");
            };
            assert_eq!(options.device, device);
        }
        assert!(parse(["director", "--device", "carrier-pigeon"]).is_err());
    }

    #[test]
    fn demo_takes_a_setup() {
        let Invocation::Demo { setup, .. } = run(&["demo", "--setup", "mixed-dr-tun"]) else {
            panic!("not a demo");
        };
        assert_eq!(setup.as_deref(), Some("mixed-dr-tun"));
        assert!(parse(["director", "demo", "--setup", "other"]).is_err());
    }

    #[test]
    fn demo_takes_workers() {
        let two = NonZeroU32::new(2).unwrap();
        assert_eq!(
            run(&["demo", "--workers", "2"]),
            Invocation::Demo {
                workers: two,
                setup: None,
            }
        );
    }
}

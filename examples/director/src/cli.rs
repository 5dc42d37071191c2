//! The command line: keepalived's options, so that unit files and habits carry over.

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invocation {
    /// Run the director.
    Run(RunOptions),
    /// Check the configuration file and set the exit status (`-t`).
    Check {
        /// The file to check.
        file: PathBuf,
        /// What `@ID` lines are for (`-i`); `None`: the host's name.
        config_id: Option<String>,
        /// One JSON object a finding instead of text (`--json`).
        json: bool,
    },
    /// Show a director at work in network namespaces of its own.
    Demo {
        /// Data-path threads of the demo's director.
        workers: NonZeroU32,
    },
}

/// Options of a running director.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOptions {
    /// The keepalived.conf to run.
    pub file: PathBuf,
    /// What `@ID` lines are for (`-i`); `None`: the host's name.
    pub config_id: Option<String>,
    /// Log to the console (`-l`) rather than to syslog.
    pub log_console: bool,
    /// Log more (`-D`).
    pub log_detail: bool,
    /// Data-path threads, at least one.
    pub workers: NonZeroU32,
    /// Receive slots of each ring; a longer frame goes through the socket's queue.
    pub ring_slots: NonZeroU32,
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
    let matches = command().try_get_matches_from(arguments)?;
    if let Some(("demo", demo)) = matches.subcommand() {
        return Ok(Invocation::Demo {
            workers: workers(demo),
        });
    }
    let file = matches
        .get_one::<PathBuf>("use-file")
        .cloned()
        .unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
    let config_id = matches.get_one::<String>("config-id").cloned();
    if matches.get_flag("config-test") {
        return Ok(Invocation::Check {
            file,
            config_id,
            json: matches.get_flag("json"),
        });
    }
    Ok(Invocation::Run(RunOptions {
        file,
        config_id,
        log_console: matches.get_flag("log-console"),
        log_detail: matches.get_flag("log-detail"),
        workers: workers(&matches),
        ring_slots: *matches
            .get_one::<NonZeroU32>("ring-slots")
            .unwrap_or(&DEFAULT_RING_SLOTS),
    }))
}

fn workers(matches: &ArgMatches) -> NonZeroU32 {
    *matches
        .get_one::<NonZeroU32>("workers")
        .unwrap_or(&NonZeroU32::MIN)
}

fn command() -> Command {
    let workers = Arg::new("workers")
        .long("workers")
        .value_name("N")
        .value_parser(value_parser!(NonZeroU32))
        .help("Data-path threads [default: 1]");
    Command::new("director")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Linux Virtual Server and keepalived in user space: runs a keepalived.conf without ip_vs")
        .subcommand_negates_reqs(true)
        .args_conflicts_with_subcommands(true)
        .disable_help_subcommand(true)
        .arg(
            Arg::new("use-file")
                .short('f')
                .long("use-file")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Configuration file [default: /etc/keepalived/keepalived.conf]"),
        )
        .arg(
            Arg::new("config-test")
                .short('t')
                .long("config-test")
                .action(ArgAction::SetTrue)
                .help("Check the configuration file and exit: 0 is clean, the other values are keepalived's"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .requires("config-test")
                .action(ArgAction::SetTrue)
                .help("With -t: one JSON object a finding"),
        )
        .arg(
            Arg::new("config-id")
                .short('i')
                .long("config-id")
                .value_name("ID")
                .help("Read lines that start with @ID, too [default: the host's name up to the first dot]"),
        )
        .arg(
            Arg::new("dont-fork")
                .short('n')
                .long("dont-fork")
                .action(ArgAction::SetTrue)
                .help("Stay in the foreground; always so, accepted for keepalived's unit files"),
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
        .arg(workers.clone())
        .arg(
            Arg::new("ring-slots")
                .long("ring-slots")
                .value_name("N")
                .value_parser(value_parser!(NonZeroU32))
                .help("Receive slots of each packet ring, 1728 bytes each [default: 2048]"),
        )
        .subcommand(
            Command::new("demo")
                .about("Clients, a director and real servers in network namespaces of their own; needs no privilege")
                .arg(workers),
        )
}

const DEFAULT_FILE: &str = "/etc/keepalived/keepalived.conf";

const DEFAULT_RING_SLOTS: NonZeroU32 = NonZeroU32::new(2048).expect("2048 is not zero");

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str]) -> Invocation {
        parse(std::iter::once("director").chain(arguments.iter().copied())).unwrap()
    }

    #[test]
    fn options_of_a_keepalived_unit_file_are_accepted() {
        let Invocation::Run(options) = run(&["-n", "-l", "-D", "-f", "/x/k.conf"]) else {
            panic!("not a run");
        };
        assert_eq!(options.file, PathBuf::from("/x/k.conf"));
        assert!(options.log_console && options.log_detail);
        assert_eq!(options.workers.get(), 1);
    }

    #[test]
    fn bundled_short_options_are_accepted() {
        let Invocation::Run(options) = run(&["-nlD"]) else {
            panic!("not a run");
        };
        assert!(options.log_console && options.log_detail);
        assert_eq!(options.file, PathBuf::from(DEFAULT_FILE));
    }

    #[test]
    fn config_test_names_its_file() {
        assert_eq!(
            run(&["-t", "-f", "a.conf"]),
            Invocation::Check {
                file: "a.conf".into(),
                config_id: None,
                json: false,
            }
        );
        assert_eq!(
            run(&["-t", "-i", "node1", "--json"]),
            Invocation::Check {
                file: DEFAULT_FILE.into(),
                config_id: Some("node1".to_owned()),
                json: true,
            }
        );
    }

    #[test]
    fn json_is_for_a_config_test() {
        assert!(parse(["director", "--json"]).is_err());
    }

    #[test]
    fn zero_workers_are_refused() {
        assert!(parse(["director", "--workers", "0"]).is_err());
    }

    #[test]
    fn demo_takes_workers() {
        let two = NonZeroU32::new(2).unwrap();
        assert_eq!(
            run(&["demo", "--workers", "2"]),
            Invocation::Demo { workers: two }
        );
    }
}

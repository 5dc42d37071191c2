//! Options that keepalived has and a director needs no longer, accepted so that unit files carry over.

use clap::{Arg, ArgAction, ArgMatches};

/// An option without effect.
struct Habit {
    name: &'static str,
    /// Some have a long form alone.
    short: Option<char>,
    takes_value: bool,
    /// Why it has none.
    reason: &'static str,
}

const fn flag(name: &'static str, short: char, reason: &'static str) -> Habit {
    Habit {
        name,
        short: Some(short),
        takes_value: false,
        reason,
    }
}

const fn value(name: &'static str, short: char, reason: &'static str) -> Habit {
    Habit {
        takes_value: true,
        ..flag(name, short, reason)
    }
}

/// The arguments, which help does not show.
pub(super) fn arguments() -> impl Iterator<Item = Arg> {
    HABITS.iter().map(|habit| {
        let argument = Arg::new(habit.name).long(habit.name).hide(true);
        let argument = match habit.short {
            Some(short) => argument.short(short),
            None => argument,
        };
        if habit.takes_value {
            argument.value_name("VALUE")
        } else {
            argument.action(ArgAction::SetTrue)
        }
    })
}

/// What was given of them, each with the reason why it does nothing.
pub(super) fn given(matches: &ArgMatches) -> Vec<String> {
    let is_given = |habit: &&Habit| {
        matches.value_source(habit.name) == Some(clap::parser::ValueSource::CommandLine)
    };
    HABITS
        .iter()
        .filter(is_given)
        .map(|habit| format!("--{} has no effect: {}", habit.name, habit.reason))
        .collect()
}

const ONE_PROCESS: &str = "there is one process";

const HABITS: &[Habit] = &[
    value("vrrp_pid", 'r', ONE_PROCESS),
    value("checkers_pid", 'c', ONE_PROCESS),
    value("bfd_pid", 'b', ONE_PROCESS),
    flag("dont-respawn", 'R', ONE_PROCESS),
    flag("no_bfd", 'B', "BFD sessions run where the file has some"),
    flag(
        "release-vips",
        'X',
        "addresses always go when the director ends",
    ),
    flag(
        "dont-release-vrrp",
        'V',
        "addresses without anybody who forwards their packets would answer nobody, they go",
    ),
    flag(
        "dont-release-ipvs",
        'I',
        "services live in this process and end with it",
    ),
    flag("address-monitoring", 'a', "the log has every address"),
    flag(
        "all-config",
        'e',
        "includes without a file are warned of; for more there is include_check in the file",
    ),
    Habit {
        name: "all",
        short: None,
        takes_value: false,
        reason: ONE_PROCESS,
    },
    flag("snmp", 'x', "there is no SNMP"),
    value("snmp-agent-socket", 'A', "there is no SNMP"),
    value("umask", 'u', "what it writes has modes of its own"),
    flag("core-dump", 'm', "the system's limit decides (ulimit -c)"),
    value(
        "core-dump-pattern",
        'M',
        "the system's pattern is not changed",
    ),
];

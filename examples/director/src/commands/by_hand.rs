//! `director mark`, `director set`, `director show tunables`: what a running director is told by hand.

use std::io::{self, Write};

use super::STATUS_TROUBLE;
use crate::control::ask;
use crate::control::by_hand::{
    MARKS, MarksInfo, MarksQuestion, TUNABLES, TunablesInfo, TunablesQuestion,
};
use crate::control::protocol::SocketAddress;
use crate::logging::chain;

/// Asks about marks, and lists them if nothing was to be changed. Returns the exit status: 0, or 2 if it was refused or
/// nobody can be asked.
///
/// # Errors
///
/// Nothing can be written to `out` or `errors`.
pub fn marks(
    question: &MarksQuestion,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> io::Result<u8> {
    let address = SocketAddress::from_env();
    let info: MarksInfo = match ask(&address, MARKS, question) {
        Ok(info) => info,
        Err(error) => {
            writeln!(errors, "{}", chain(&error))?;
            return Ok(STATUS_TROUBLE);
        }
    };
    if *question == MarksQuestion::default() {
        for mark in info.rules {
            let origin = if mark.from_file { "" } else { " # by hand" };
            let unserved = if mark.served { "" } else { " # no service" };
            writeln!(out, "{}{origin}{unserved}", mark.rule)?;
        }
    }
    Ok(0)
}

/// Sets tunables, or without any lists all. Returns the exit status as [`marks`] does.
///
/// # Errors
///
/// Nothing can be written to `out` or `errors`.
pub fn tunables(set: Vec<String>, out: &mut impl Write, errors: &mut impl Write) -> io::Result<u8> {
    let question = TunablesQuestion { set };
    let address = SocketAddress::from_env();
    let info: TunablesInfo = match ask(&address, TUNABLES, &question) {
        Ok(info) => info,
        Err(error) => {
            writeln!(errors, "{}", chain(&error))?;
            return Ok(STATUS_TROUBLE);
        }
    };
    if question.set.is_empty() {
        for tunable in info.tunables {
            let setting = format!("{} = {}", tunable.name, tunable.value);
            let changed = match tunable.value == tunable.default {
                true => String::new(),
                false => format!(" (default {})", tunable.default),
            };
            writeln!(out, "{setting:<36} # {}{changed}", tunable.meaning)?;
        }
    }
    Ok(0)
}

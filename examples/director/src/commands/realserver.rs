//! `director realserver`: makes this host a real server while it runs, or says what keeps it from being one.

use std::io::{self, Write};

use super::STATUS_TROUBLE;
use crate::logging::{self, chain};
use crate::realserver::{self, RealServer};

/// Holds the services' addresses until a signal. Returns the exit status: 0, or 2 if it could not be done.
pub fn run(wanted: &RealServer) -> u8 {
    logging::start(logging::LogOptions {
        console: true,
        ..logging::LogOptions::default()
    });
    match realserver::run(wanted) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!("{}", chain(&error));
            STATUS_TROUBLE
        }
    }
}

/// Writes what is wrong. Returns the exit status: 0 nothing, 1 something, 2 if it can't be told.
///
/// # Errors
///
/// Nothing can be written to `out` or `errors`.
pub fn check(
    wanted: &RealServer,
    json: bool,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> io::Result<u8> {
    match realserver::check::check(wanted) {
        Ok(findings) => findings.write(json, out),
        Err(error) => {
            writeln!(errors, "{}", chain(&error))?;
            Ok(STATUS_TROUBLE)
        }
    }
}

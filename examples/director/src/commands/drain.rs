//! `director drain`, `director undrain` and `director weight`: real servers emptied and filled again by hand.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use super::STATUS_TROUBLE;
use crate::control::ask;
use crate::control::drain::{DrainInfo, DrainQuestion, DrainState, DrainsInfo, OPERATION};
use crate::control::protocol::SocketAddress;
use crate::logging::chain;

/// How to ask.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DrainCommand {
    /// What.
    pub question: DrainQuestion,
    /// Come back when the drain is over.
    pub wait: bool,
    /// One JSON object instead of text.
    pub json: bool,
}

/// Carries it out and writes how the servers stand. Returns the exit status: 0, 1 if the end of a drain that was waited for
/// had to be forced, 2 if it was refused or nobody can be asked.
///
/// # Errors
///
/// Nothing can be written to `out` or `errors`.
pub fn run(
    command: &DrainCommand,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> io::Result<u8> {
    let address = SocketAddress::from_env();
    let mut asked = ask(&address, OPERATION, &command.question);
    let again = DrainQuestion {
        action: None,
        ..command.question.clone()
    };
    let is_waiting = |info: &DrainsInfo| {
        let mut servers = info.servers.iter();
        command.wait && servers.any(|server| server.state == DrainState::Draining)
    };
    while asked.as_ref().is_ok_and(is_waiting) {
        thread::sleep(PAUSE);
        asked = ask(&address, OPERATION, &again);
    }
    let info: DrainsInfo = match asked {
        Ok(info) => info,
        Err(error) => {
            writeln!(errors, "{}", chain(&error))?;
            return Ok(STATUS_TROUBLE);
        }
    };
    if command.json {
        let text = serde_json::to_string(&info).map_err(io::Error::other)?;
        writeln!(out, "{text}")?;
    } else {
        for server in &info.servers {
            writeln!(out, "{}", line(server))?;
        }
    }
    let is_forced = |server: &DrainInfo| server.state == DrainState::Forced;
    Ok(u8::from(command.wait && info.servers.iter().any(is_forced)))
}

fn line(info: &DrainInfo) -> String {
    let DrainInfo {
        service,
        server,
        weight,
        restores,
        active,
        inactive,
        persistent,
        ..
    } = info;
    let left = format!("{active} active, {inactive} inactive, {persistent} templates");
    let state = match (info.state, info.deadline) {
        (DrainState::Serving, _) => format!("serving, weight {weight}; {left}"),
        (DrainState::Draining, Some(seconds)) => {
            format!("draining, {seconds} s until the rest is ended; left: {left}")
        }
        (DrainState::Draining, None) => format!("draining; left: {left}"),
        (DrainState::Done, _) => "drained, nobody is left".to_owned(),
        (DrainState::Forced, _) => format!("its time is over; still counted: {left}"),
    };
    let later = match info.state {
        DrainState::Serving => String::new(),
        _ => format!("; weight {restores} when it is taken back"),
    };
    format!("{server} of {service}: {state}{later}")
}

const PAUSE: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_a_server_stands() {
        let mut info = DrainInfo {
            service: "TCP 192.0.2.1:80".into(),
            server: "10.0.0.1:80".into(),
            state: DrainState::Draining,
            weight: 0,
            restores: 3,
            active: 2,
            inactive: 1,
            persistent: 0,
            deadline: Some(30),
        };
        assert_eq!(
            line(&info),
            "10.0.0.1:80 of TCP 192.0.2.1:80: draining, 30 s until the rest is ended; left: 2 active, 1 inactive, \
             0 templates; weight 3 when it is taken back"
        );
        info.state = DrainState::Done;
        assert_eq!(
            line(&info),
            "10.0.0.1:80 of TCP 192.0.2.1:80: drained, nobody is left; weight 3 when it is taken back"
        );
        info.state = DrainState::Serving;
        info.weight = 3;
        assert_eq!(
            line(&info),
            "10.0.0.1:80 of TCP 192.0.2.1:80: serving, weight 3; 2 active, 1 inactive, 0 templates"
        );
    }
}

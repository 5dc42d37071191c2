//! What is said when the director refuses a change. Scripts look for the original's short phrases, so those stand first.

use crate::protocol::{Edit, ErrorKind, ReplyError};

/// One line for people and scripts.
pub(crate) fn message(edit: &Edit, error: &ReplyError) -> String {
    let phrase = match (error.kind, edit) {
        (ErrorKind::ServiceExists, _) => "Service already exists",
        (ErrorKind::NoScheduler, _) => {
            return format!("Scheduler or persistence engine not found: {error}");
        }
        (
            ErrorKind::NoService,
            Edit::AddServer(_)
            | Edit::EditServer(_)
            | Edit::DeleteServer(_)
            | Edit::AddLocalAddress(_)
            | Edit::DeleteLocalAddress(_),
        ) => "Service not defined",
        (ErrorKind::NoService, _) => "No such service",
        (ErrorKind::ServerExists, _) => "Destination already exists",
        (ErrorKind::NoServer, _) => "No such destination",
        (ErrorKind::LocalExists, _) => "Local address already exists",
        (ErrorKind::NoLocal, _) => "No such local address",
        (ErrorKind::OutOfRange, _) => "Numerical result out of range",
        (ErrorKind::Invalid, _) => return format!("Invalid operation: {error}"),
        (ErrorKind::UnknownOp, _) => {
            return "ipvsadm: this director is too old to be edited".into();
        }
        _ => return format!("ipvsadm: the director refused: {error}"),
    };
    phrase.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args;
    use crate::command::{Invocation, interpret};
    use crate::listing::names::Names;

    fn said(line: &str, kind: ErrorKind) -> String {
        let low = args::parse(line.split_whitespace()).unwrap();
        let Ok(Invocation::Edit(edit)) = interpret(&low, &Names::default()) else {
            panic!("{line} is no edit");
        };
        let message = "why".into();
        super::message(&edit, &ReplyError { kind, message })
    }

    #[test]
    fn the_originals_phrases() {
        let (service, server) = ("-t 192.0.2.1:80", "-t 192.0.2.1:80 -r 10.0.0.1");
        for (command, of, kind, phrase) in [
            (
                "-A",
                service,
                ErrorKind::ServiceExists,
                "Service already exists",
            ),
            ("-E", service, ErrorKind::NoService, "No such service"),
            ("-D", service, ErrorKind::NoService, "No such service"),
            ("-Z", service, ErrorKind::NoService, "No such service"),
            ("-a", server, ErrorKind::NoService, "Service not defined"),
            ("-e", server, ErrorKind::NoService, "Service not defined"),
            ("-d", server, ErrorKind::NoService, "Service not defined"),
            (
                "-a",
                server,
                ErrorKind::ServerExists,
                "Destination already exists",
            ),
            ("-e", server, ErrorKind::NoServer, "No such destination"),
            ("-d", server, ErrorKind::NoServer, "No such destination"),
            (
                "-a",
                server,
                ErrorKind::OutOfRange,
                "Numerical result out of range",
            ),
            ("-a", server, ErrorKind::Invalid, "Invalid operation: why"),
        ] {
            assert_eq!(said(&format!("{command} {of}"), kind), phrase);
        }
        let scheduler = said("-E -t 192.0.2.1:80 -s x", ErrorKind::NoScheduler);
        assert_eq!(scheduler, "Scheduler or persistence engine not found: why");
        assert_eq!(
            said("-C", ErrorKind::Other),
            "ipvsadm: the director refused: why"
        );
    }
}

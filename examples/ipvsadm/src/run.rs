//! One run of the command: arguments in, text and exit status out.

use std::io::{self, Write};

use crate::protocol::{Client, ClientError, SocketAddress};

use crate::args::{self, STATUS_INVALID, STATUS_PARSER};
use crate::command::{self, Invocation, List, Subject};
use crate::listing::names::Names;
use crate::listing::{self, connections, services};

/// Runs a command line, the program's name left out, against the director at `socket`. Listings, help and version go to
/// `output`, everything else to `errors`. Returns the exit status: 0, 1 (no data for a listing), 2 (wrong use, or no
/// director), 255 (refused).
pub fn run<I>(
    arguments: I,
    socket: &SocketAddress,
    names: &Names,
    output: &mut impl Write,
    errors: &mut impl Write,
) -> u8
where
    I: IntoIterator,
    I::Item: Into<String>,
{
    let invocation = args::parse(arguments).and_then(|low| command::interpret(&low, names));
    let text = match invocation {
        Ok(Invocation::Help) => Ok(args::help()),
        Ok(Invocation::Version) => Ok(args::version() + "\n"),
        Ok(Invocation::List(list)) => list_text(&list, socket, names),
        Ok(Invocation::Change(change)) => Err(Failure {
            status: STATUS_PARSER,
            message: format!(
                "ipvsadm: the command '{}' is not supported by this director yet",
                change.verb().name()
            ),
        }),
        Err(error) => Err(Failure {
            status: error.status,
            message: format!("ipvsadm: {error}"),
        }),
    };
    match text {
        Ok(text) => match output
            .write_all(text.as_bytes())
            .and_then(|()| output.flush())
        {
            Ok(()) => 0,
            // A reader that has seen enough, such as `head`, is no failure.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Err(error) => report(
                errors,
                &format!("ipvsadm: can't write: {error}"),
                STATUS_NO_DATA,
            ),
        },
        Err(failure) => report(errors, &failure.message, failure.status),
    }
}

struct Failure {
    status: u8,
    message: String,
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        if let ClientError::Unreachable { .. } = error {
            return Self {
                status: STATUS_INVALID,
                message: format!("ipvsadm: {error}\n{NO_DIRECTOR}"),
            };
        }
        Self {
            status: STATUS_NO_DATA,
            message: format!("ipvsadm: {error}"),
        }
    }
}

fn list_text(list: &List, socket: &SocketAddress, names: &Names) -> Result<String, Failure> {
    let mut client = Client::connect(socket)?;
    let text = match list.subject {
        Subject::Services => services::listing(&client.services()?, list, names),
        Subject::Service(id) => {
            services::single(&client.services()?, id, list, names).ok_or_else(|| Failure {
                status: STATUS_NO_DATA,
                message: "No such service".into(),
            })?
        }
        Subject::Connections => connections::listing(
            &client.connections()?,
            list.persistent_conn,
            (!list.numeric).then_some(names),
        ),
        Subject::Timeouts => listing::timeouts(&client.timeouts()?),
        Subject::Daemons => listing::daemons(&client.status()?),
    };
    Ok(text)
}

fn report(errors: &mut impl Write, message: &str, status: u8) -> u8 {
    // There is no other place to complain about standard error.
    let _ = writeln!(errors, "{message}");
    status
}

/// No data for a listing.
const STATUS_NO_DATA: u8 = 1;

const NO_DIRECTOR: &str = "Is 'director -f keepalived.conf' running in this network namespace? Set LVS_SOCKET for another socket.";

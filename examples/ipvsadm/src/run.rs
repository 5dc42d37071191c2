//! One run of the command: arguments in, text and exit status out.

use std::io::{self, BufRead, BufReader, Read, Write};

use crate::args::{self, STATUS_INVALID, STATUS_REFUSED, UsageError, Verb};
use crate::command::{self, Invocation, List, Subject};
use crate::listing::names::Names;
use crate::listing::{self, connections, locals, save, services};
use crate::protocol::{Client, ClientError, Edit, SocketAddress};
use crate::refusal;

/// Runs a command line, the program's name left out, against the director at `socket`. `-R` reads `input`; listings,
/// help and version go to `output`, everything else to `errors`. Returns the exit status: 0, 1 (no data for a
/// listing), 2 (wrong use, or no director), 255 (refused).
///
/// `-R` carries out each line as soon as it has it. Lines that came together travel together, and the director
/// answers each: a refused line does not keep the next ones from being carried out.
pub fn run<I>(
    arguments: I,
    socket: &SocketAddress,
    names: &Names,
    input: impl Read,
    output: &mut impl Write,
    errors: &mut impl Write,
) -> u8
where
    I: IntoIterator,
    I::Item: Into<String>,
{
    let mut session = Session {
        socket,
        names,
        client: None,
        output,
        errors,
    };
    let invocation = args::parse(arguments).and_then(|low| command::interpret(&low, names));
    match invocation {
        Ok(Invocation::Restore) => match session.restore(input) {
            Ok(status) => status,
            Err(failure) => session.report(&failure),
        },
        Ok(invocation) => match session.carry_out(invocation) {
            Ok(()) => 0,
            Err(failure) => session.report(&failure),
        },
        Err(error) => session.report(&error.into()),
    }
}

struct Session<'a, O, E> {
    socket: &'a SocketAddress,
    names: &'a Names,
    client: Option<Client>,
    output: &'a mut O,
    errors: &'a mut E,
}

/// What a line of `-R` asks for.
enum Line {
    Nothing,
    Edit(Edit),
    Other(Invocation),
    /// It is wrong, but the original goes on.
    Wrong(Failure),
}

impl<O: Write, E: Write> Session<'_, O, E> {
    fn carry_out(&mut self, invocation: Invocation) -> Result<(), Failure> {
        let text = match invocation {
            Invocation::Help => args::help(),
            Invocation::Version => args::version() + "\n",
            Invocation::List(list) => self.list(&list)?,
            Invocation::Save { numeric } => {
                let names = (!numeric).then_some(self.names);
                save::commands(&self.client()?.services()?, names)
            }
            Invocation::Edit(edit) => {
                return match self.client()?.edit(edit.clone()) {
                    Err(ClientError::Refused(error)) => {
                        Err(Failure::refused(refusal::message(&edit, &error)))
                    }
                    other => other.map_err(Failure::of_change),
                };
            }
            Invocation::StartDaemon(..) => {
                self.client()?;
                return Err(Failure::refused(
                    "ipvsadm: this director has no connection sync yet".into(),
                ));
            }
            Invocation::StopDaemon(_) => {
                self.client()?;
                return Err(Failure::refused("No daemon is running".into()));
            }
            // The command line of a restore is not one of its lines.
            Invocation::Restore => return Err(Failure::refused(NESTED.into())),
        };
        self.print(&text)
    }

    fn list(&mut self, list: &List) -> Result<String, Failure> {
        let names = self.names;
        let client = self.client()?;
        Ok(match list.subject {
            Subject::Services => services::listing(&client.services()?, list, names),
            Subject::Service(id) => services::single(&client.services()?, id, list, names)
                .ok_or_else(|| Failure {
                    status: STATUS_NO_DATA,
                    message: "No such service".into(),
                })?,
            Subject::Connections => connections::listing(
                &client.connections()?,
                list.persistent_conn,
                (!list.numeric).then_some(names),
            ),
            Subject::LocalAddresses(only) => {
                let info = client.services()?;
                locals::listing(&info, only, (!list.numeric).then_some(names)).ok_or_else(|| {
                    Failure {
                        status: STATUS_NO_DATA,
                        message: "No such service".into(),
                    }
                })?
            }
            Subject::Timeouts => listing::timeouts(&client.timeouts()?),
            Subject::Daemons => listing::daemons(&client.status()?),
        })
    }

    /// Command lines from standard input; the status of the last one. A failure is the end of all.
    fn restore(&mut self, input: impl Read) -> Result<u8, Failure> {
        self.client()?;
        let mut input = BufReader::with_capacity(INPUT_BUFFER, input);
        let mut waiting = Vec::new();
        let mut status = 0;
        for number in 1.. {
            let Some(text) = read_line(&mut input, number)? else {
                break;
            };
            match self.line(number, &text) {
                Ok(Line::Nothing) => {}
                Ok(Line::Edit(edit)) => waiting.push((number, edit)),
                other => {
                    self.carry_out_all(&mut waiting, &mut status)?;
                    let outcome = match other? {
                        Line::Other(invocation) => self.carry_out(invocation),
                        Line::Wrong(failure) => Err(failure),
                        Line::Nothing | Line::Edit(_) => Ok(()),
                    };
                    status = outcome.map_or_else(|failure| self.report(&failure), |()| 0);
                }
            }
            let is_more_at_hand = input.buffer().contains(&b'\n');
            if !is_more_at_hand {
                self.carry_out_all(&mut waiting, &mut status)?;
            }
        }
        Ok(status)
    }

    /// Judges a line of `-R`.
    ///
    /// # Errors
    ///
    /// It is so wrong that the original stops.
    fn line(&self, number: usize, text: &[u8]) -> Result<Line, Failure> {
        let text = String::from_utf8_lossy(text);
        let words: Vec<&str> = text
            .split([' ', '\t', '\r', '\n'])
            .filter(|word| !word.is_empty() && *word != "ipvsadm")
            .collect();
        if words.first().is_none_or(|first| first.starts_with('#')) {
            return Ok(Line::Nothing);
        }
        let at_line = |error: UsageError| Failure {
            status: error.status,
            message: format!("ipvsadm: line {number}: {error}"),
        };
        let low = args::parse(words).map_err(at_line)?;
        if low.verb == Verb::Restore {
            return Err(at_line(UsageError::parser(NESTED)));
        }
        match command::interpret(&low, self.names) {
            Ok(Invocation::Edit(edit)) => Ok(Line::Edit(edit)),
            Ok(other) => Ok(Line::Other(other)),
            Err(error) if error.status == STATUS_INVALID => Err(at_line(error)),
            Err(error) => Ok(Line::Wrong(at_line(error))),
        }
    }

    /// Carries out changes that have their line's number, and leaves none. The status becomes that of the last one.
    fn carry_out_all(
        &mut self,
        waiting: &mut Vec<(usize, Edit)>,
        status: &mut u8,
    ) -> Result<(), Failure> {
        if waiting.is_empty() {
            return Ok(());
        }
        let edits = std::mem::take(waiting);
        let batch = edits.iter().map(|(_, edit)| edit.clone()).collect();
        let outcomes = self.client()?.restore(batch).map_err(Failure::of_change)?;
        for ((number, edit), outcome) in edits.iter().zip(outcomes) {
            *status = outcome.map_or(0, |error| {
                let message = refusal::message(edit, &error);
                self.report(&Failure::refused(format!("{message} (line {number})")))
            });
        }
        Ok(())
    }

    fn client(&mut self) -> Result<&mut Client, Failure> {
        if self.client.is_none() {
            self.client = Some(Client::connect(self.socket)?);
        }
        Ok(self.client.as_mut().expect("it was just connected"))
    }

    fn print(&mut self, text: &str) -> Result<(), Failure> {
        let written = self.output.write_all(text.as_bytes());
        match written.and_then(|()| self.output.flush()) {
            Ok(()) => Ok(()),
            // A reader that has seen enough, such as `head`, is no failure.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(Failure {
                status: STATUS_NO_DATA,
                message: format!("ipvsadm: can't write: {error}"),
            }),
        }
    }

    fn report(&mut self, failure: &Failure) -> u8 {
        // There is no other place to complain about standard error.
        let _ = writeln!(self.errors, "{}", failure.message);
        failure.status
    }
}

#[derive(Debug)]
struct Failure {
    status: u8,
    message: String,
}

impl Failure {
    fn refused(message: String) -> Self {
        Self {
            status: STATUS_REFUSED,
            message,
        }
    }

    fn invalid(message: String) -> Self {
        Self {
            status: STATUS_INVALID,
            message,
        }
    }

    /// A change that was not carried out, or of which that is not known.
    fn of_change(error: ClientError) -> Self {
        let failure = Self::from(error);
        if failure.status == STATUS_NO_DATA {
            return Self::refused(failure.message);
        }
        failure
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        if let ClientError::Unreachable { .. } = error {
            return Self::invalid(format!("ipvsadm: {error}\n{NO_DIRECTOR}"));
        }
        Self {
            status: STATUS_NO_DATA,
            message: format!("ipvsadm: {error}"),
        }
    }
}

impl From<UsageError> for Failure {
    fn from(error: UsageError) -> Self {
        Self {
            status: error.status,
            message: format!("ipvsadm: {error}"),
        }
    }
}

/// The next line with its line feed, if it has one. `None` at the end.
fn read_line(input: &mut impl BufRead, number: usize) -> Result<Option<Vec<u8>>, Failure> {
    let mut line = Vec::new();
    let length = input
        .take(MAX_LINE)
        .read_until(b'\n', &mut line)
        .map_err(|error| Failure::invalid(format!("ipvsadm: can't read: {error}")))?;
    if length as u64 == MAX_LINE && line.last() != Some(&b'\n') {
        return Err(Failure::invalid(format!(
            "ipvsadm: line {number}: the line is too long"
        )));
    }
    Ok((length > 0).then_some(line))
}

/// No data for a listing.
const STATUS_NO_DATA: u8 = 1;

/// Lines that fit are carried out together.
const INPUT_BUFFER: usize = 64 * 1024;

const MAX_LINE: u64 = 64 * 1024;

const NESTED: &str = "'restore' can't be one of the lines that are restored";

const NO_DIRECTOR: &str = "Is 'director -f keepalived.conf' running in this network namespace? Set LVS_SOCKET for another socket.";

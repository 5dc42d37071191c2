//! The asking side of the control socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{
    CLIENT_TIMEOUT, ConnectionInfo, ConnectionsInfo, Edit, MAX_REPLY_LINE, MAX_REQUEST_LINE,
    Operation, Reply, ReplyError, Request, Restoration, RestoreInfo, ServicesInfo, SocketAddress,
    StatusInfo, TimeoutsInfo,
};

/// Asks the director, one request after the other, and waits for each answer.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects. Reads and writes give up after [`CLIENT_TIMEOUT`].
    ///
    /// # Errors
    ///
    /// [`ClientError::Unreachable`].
    pub fn connect(address: &SocketAddress) -> Result<Self, ClientError> {
        let stream = address
            .connect()
            .and_then(|stream| {
                stream.set_read_timeout(Some(CLIENT_TIMEOUT))?;
                stream.set_write_timeout(Some(CLIENT_TIMEOUT))?;
                Ok(stream)
            })
            .map_err(|source| ClientError::Unreachable {
                address: address.clone(),
                source,
            })?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// How long each read waits instead of [`CLIENT_TIMEOUT`]; `None`: for ever, for answers that come as things happen.
    ///
    /// # Errors
    ///
    /// [`ClientError::Broken`] if the system refuses.
    pub fn set_patience(&mut self, patience: Option<Duration>) -> Result<(), ClientError> {
        self.stream
            .get_ref()
            .set_read_timeout(patience)
            .map_err(ClientError::Broken)
    }

    /// Sends a request and reads the first line of its answer. Read on with [`Client::next_part`] while
    /// [`Reply::more`] is set.
    ///
    /// # Errors
    ///
    /// The connection broke or timed out, or the line is too long or no reply. A refusal is a reply, not an error.
    pub fn request(&mut self, request: &Request) -> Result<Reply, ClientError> {
        self.stream
            .get_mut()
            .write_all(&request.to_line())
            .map_err(ClientError::Broken)?;
        self.next_part()
    }

    /// Reads the next line of an answer.
    ///
    /// # Errors
    ///
    /// As for [`Client::request`].
    pub fn next_part(&mut self) -> Result<Reply, ClientError> {
        let mut line = Vec::new();
        (&mut self.stream)
            .take(MAX_REPLY_LINE)
            .read_until(b'\n', &mut line)
            .map_err(ClientError::Broken)?;
        if line.last() == Some(&b'\n') {
            return serde_json::from_slice(&line).map_err(ClientError::Malformed);
        }
        if line.len() as u64 == MAX_REPLY_LINE {
            return Err(ClientError::TooLong);
        }
        Err(ClientError::Broken(io::ErrorKind::UnexpectedEof.into()))
    }

    /// All virtual services.
    ///
    /// # Errors
    ///
    /// Every [`ClientError`] except [`ClientError::Unreachable`].
    pub fn services(&mut self) -> Result<ServicesInfo, ClientError> {
        self.request(&Request::new(Operation::Services))?
            .into_result()
    }

    /// All connections, the parts put together.
    ///
    /// # Errors
    ///
    /// As for [`Client::services`].
    pub fn connections(&mut self) -> Result<Vec<ConnectionInfo>, ClientError> {
        let mut connections = Vec::new();
        let mut reply = self.request(&Request::new(Operation::Connections))?;
        loop {
            let more = reply.more;
            connections.append(&mut reply.into_result::<ConnectionsInfo>()?.connections);
            if !more {
                return Ok(connections);
            }
            reply = self.next_part()?;
        }
    }

    /// The timeouts.
    ///
    /// # Errors
    ///
    /// As for [`Client::services`].
    pub fn timeouts(&mut self) -> Result<TimeoutsInfo, ClientError> {
        self.request(&Request::new(Operation::Timeouts))?
            .into_result()
    }

    /// The director's state.
    ///
    /// # Errors
    ///
    /// As for [`Client::services`].
    pub fn status(&mut self) -> Result<StatusInfo, ClientError> {
        self.request(&Request::new(Operation::Status))?
            .into_result()
    }

    /// Changes the table.
    ///
    /// # Errors
    ///
    /// As for [`Client::services`]; [`ClientError::Refused`] says why nothing has changed.
    pub fn edit(&mut self, edit: Edit) -> Result<(), ClientError> {
        self.request(&Request::new(Operation::Edit(edit)))?
            .into_result()
    }

    /// Changes the table many times, in order, in as few requests as lines may be long. What came of each: `None`, or
    /// why it was refused.
    ///
    /// # Errors
    ///
    /// As for [`Client::services`], except for the refusal of a change; the changes before it have been carried out.
    pub fn restore(&mut self, edits: Vec<Edit>) -> Result<Vec<Option<ReplyError>>, ClientError> {
        let mut outcomes = Vec::with_capacity(edits.len());
        let mut edits = edits.into_iter().peekable();
        while edits.peek().is_some() {
            let mut length = 0;
            let mut part = Vec::new();
            while let Some(edit) = edits.next_if(|edit| {
                length += edit.length() + 1;
                part.is_empty() || length <= BATCH
            }) {
                part.push(edit);
            }
            let expected = part.len();
            let batch = Operation::Restore(Restoration { edits: part });
            let mut info: RestoreInfo = self.request(&Request::new(batch))?.into_result()?;
            if info.outcomes.len() != expected {
                return Err(ClientError::Incomplete);
            }
            outcomes.append(&mut info.outcomes);
        }
        Ok(outcomes)
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No connection to the director.
    #[error("can't reach the director at {address}: {source}")]
    Unreachable {
        /// Where it was looked for.
        address: SocketAddress,
        /// What the system says.
        source: io::Error,
    },
    /// The connection broke, or the director took longer than [`CLIENT_TIMEOUT`].
    #[error("the connection to the director broke: {0}")]
    Broken(#[source] io::Error),
    /// A line of more than [`MAX_REPLY_LINE`] bytes.
    #[error("the director's answer is too long")]
    TooLong,
    /// The line is no reply, or not the reply to this request.
    #[error("can't understand the director's answer: {0}")]
    Malformed(#[source] serde_json::Error),
    /// Not every change of a batch was answered.
    #[error("the director's answer is not complete")]
    Incomplete,
    /// The director refused.
    #[error("the director refused: {0}")]
    Refused(#[source] ReplyError),
}

/// Bytes of changes in one request; the rest of its line is short.
const BATCH: usize = MAX_REQUEST_LINE as usize - 1024;

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn client_puts_parts_together_over_an_abstract_socket() {
        let address =
            SocketAddress::Abstract(format!("lvs-protocol-{}", std::process::id()).into());
        let listener = address.bind().unwrap();
        let director = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            stream.read_until(b'\n', &mut line).unwrap();
            assert_eq!(Request::parse(&line).unwrap().op, Operation::Connections);
            let part = |more| Reply {
                more,
                ..Reply::success(&ConnectionsInfo::default())
            };
            for reply in [part(true), part(true), part(false)] {
                stream.get_mut().write_all(&reply.to_line()).unwrap();
            }
            line.clear();
            stream.read_until(b'\n', &mut line).unwrap();
            stream.get_mut().write_all(b"{\"ok\":tr").unwrap();
        });
        let mut client = Client::connect(&address).unwrap();
        assert!(client.connections().unwrap().is_empty());
        assert!(matches!(client.status(), Err(ClientError::Broken(_))));
        director.join().unwrap();
    }

    #[test]
    fn nobody_listening_is_unreachable() {
        let address = SocketAddress::parse(OsStr::new("@lvs-nobody-is-here"));
        let error = Client::connect(&address).unwrap_err().to_string();
        assert!(error.starts_with("can't reach the director at @lvs-nobody-is-here: "));
    }
}

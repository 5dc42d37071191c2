//! The listening side of the control socket.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use super::events::{self, EVENTS, Events};
use super::protocol::{ErrorKind, MAX_REQUEST_LINE, Operation, Reply, Request, SocketAddress};
use crate::notify::Event;

/// A question on its way to the control loop.
#[derive(Debug)]
pub struct Question {
    /// What is asked.
    pub operation: Operation,
    /// Where the answer goes; dropped, the asker is told that the director is stopping.
    pub answer: oneshot::Sender<Vec<Reply>>,
}

/// The control socket, listening. Dropping it removes the socket file, if it is one.
#[derive(Debug)]
pub struct ControlSocket {
    address: SocketAddress,
    task: tokio::task::AbortHandle,
    file: Option<PathBuf>,
}

impl ControlSocket {
    /// Listens at the address; questions arrive at the receiver, but for those for events, which are told from here. Must be called on the control thread's runtime.
    ///
    /// A socket file that a killed director left behind is replaced; one that somebody listens on is not.
    ///
    /// # Errors
    ///
    /// `AddrInUse` if a director runs here already; else what the system says.
    pub fn listen(
        address: &SocketAddress,
        events: Events,
    ) -> io::Result<(Self, mpsc::Receiver<Question>)> {
        let (listener, file) = bind(address)?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let (questions, receiver) = mpsc::channel(QUESTIONS);
        let task = tokio::spawn(accept(listener, questions, events)).abort_handle();
        let socket = Self {
            address: address.clone(),
            task,
            file,
        };
        Ok((socket, receiver))
    }

    /// Where it listens.
    pub fn address(&self) -> &SocketAddress {
        &self.address
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(file) = &self.file {
            // Somebody else removed it: then it is gone, as wanted.
            let _ = std::fs::remove_file(file);
        }
    }
}

fn bind(
    address: &SocketAddress,
) -> io::Result<(std::os::unix::net::UnixListener, Option<PathBuf>)> {
    let SocketAddress::Path(path) = address else {
        return Ok((address.bind()?, None));
    };
    let listener = match address.bind() {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(address, path) => {
            std::fs::remove_file(path)?;
            address.bind()?
        }
        other => other?,
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(OWNER_ONLY))?;
    Ok((listener, Some(path.clone())))
}

/// A socket file that refuses connections belongs to no living process.
fn is_abandoned(address: &SocketAddress, path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    let refused = address
        .connect()
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    is_socket && refused
}

async fn accept(listener: UnixListener, questions: mpsc::Sender<Question>, events: Events) {
    // Each is said once: a stranger must not be able to fill the log.
    let mut refused = BTreeSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match stranger(&stream) {
                None => {
                    tokio::spawn(serve(stream, questions.clone(), events.clone()));
                }
                Some(user) if refused.len() < MOST_STRANGERS && refused.insert(user) => {
                    warn!("control socket: refused a connection of user {user}");
                }
                Some(user) => debug!("control socket: refused a connection of user {user}"),
            },
            Err(error) => {
                // Out of descriptors, most likely: others will be closed meanwhile.
                warn!("control socket: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Abstract names have no file permissions, so the peer's user decides: the director's own and root are none.
fn stranger(stream: &UnixStream) -> Option<u32> {
    let own = rustix::process::geteuid().as_raw();
    // A peer that the kernel does not know is nobody's friend.
    let user = stream.peer_cred().map_or(u32::MAX, |peer| peer.uid());
    (user != own && user != 0).then_some(user)
}

async fn serve(stream: UnixStream, questions: mpsc::Sender<Question>, events: Events) {
    if let Err(error) = converse(stream, questions, events).await {
        debug!("control socket: {error}");
    }
}

async fn converse(
    stream: UnixStream,
    questions: mpsc::Sender<Question>,
    events: Events,
) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = (&mut read)
            .take(MAX_REQUEST_LINE)
            .read_until(b'\n', &mut line)
            .await?;
        if length == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') && length as u64 == MAX_REQUEST_LINE {
            let refusal = Reply::failure(ErrorKind::BadRequest, "the request line is too long");
            return write.write_all(&refusal.to_line()).await;
        }
        let replies = match Request::parse(&line) {
            Ok(Request {
                op: Operation::Other { op, .. },
                ..
            }) if op == EVENTS => return tell(read, write, events.subscribe()).await,
            Ok(request) => ask(&questions, request.op).await,
            Err(refusal) => vec![refusal],
        };
        for reply in &replies {
            write.write_all(&reply.to_line()).await?;
        }
    }
}

/// Until the asker hangs up. One that reads too slowly is told how much it missed, and nobody waits for it.
async fn tell(
    mut read: impl AsyncReadExt + Unpin,
    mut write: impl AsyncWriteExt + Unpin,
    mut events: broadcast::Receiver<Arc<Event>>,
) -> io::Result<()> {
    write
        .write_all(&events::remark("events from now on"))
        .await?;
    let mut ignored = [0; 64];
    loop {
        let line = tokio::select! {
            event = events.recv() => match event {
                Ok(event) => events::line(&event),
                Err(RecvError::Lagged(count)) => events::remark(&format!("{count} events were missed")),
                Err(RecvError::Closed) => return Ok(()),
            },
            said = read.read(&mut ignored) => match said? {
                0 => return Ok(()),
                _ => continue,
            },
        };
        write.write_all(&line).await?;
    }
}

async fn ask(questions: &mpsc::Sender<Question>, operation: Operation) -> Vec<Reply> {
    let stopping = || {
        vec![Reply::failure(
            ErrorKind::Internal,
            "the director is stopping",
        )]
    };
    let (answer, receiver) = oneshot::channel();
    let question = Question { operation, answer };
    if questions.send(question).await.is_err() {
        return stopping();
    }
    receiver.await.unwrap_or_else(|_| stopping())
}

/// Questions that may wait for the control loop; further askers wait for a place.
const QUESTIONS: usize = 64;

/// Users that are named in the log.
const MOST_STRANGERS: usize = 16;

const OWNER_ONLY: u32 = 0o600;

const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

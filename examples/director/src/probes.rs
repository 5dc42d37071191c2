//! The sockets of health checks: carries out the commands of `lvs_health::Monitor` and reports what happened.
//!
//! Each probe is a task of its own on the control thread. Timeouts are the monitor's; a task ends when it is told to.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::Arc;

use lvs_health::{Command, ConnectError, ProbeId, ReadError};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, Receiver, Sender, UnboundedReceiver, UnboundedSender};
use tokio::task::AbortHandle;

/// What happened to a probe's connection.
#[derive(Debug)]
pub enum Report {
    /// It stands, or not.
    Connected(ProbeId, Result<(), ConnectError>),
    /// The server said this.
    Data(ProbeId, Vec<u8>),
    /// It ended, in good order or not.
    Closed(ProbeId, Result<(), ReadError>),
}

/// The probes under way.
#[derive(Debug)]
pub struct Probes {
    running: HashMap<ProbeId, Running>,
    reports: Sender<Report>,
}

#[derive(Debug)]
struct Running {
    task: AbortHandle,
    output: UnboundedSender<bytes::Bytes>,
}

impl Probes {
    /// No probes yet, and where their reports arrive.
    pub fn new() -> (Self, Receiver<Report>) {
        // A server that sends without end waits for the monitor to have enough of it.
        let (reports, receiver) = mpsc::channel(REPORTS);
        let probes = Self {
            running: HashMap::new(),
            reports,
        };
        (probes, receiver)
    }

    /// Carries out one command. Must be called on the control thread's runtime.
    pub fn carry_out(&mut self, command: Command) {
        match command {
            Command::Connect {
                probe,
                transport: _, // every check that is built so far speaks over TCP
                destination,
                bind,
                bind_interface,
                mark,
            } => {
                let target = Target {
                    destination,
                    bind,
                    bind_interface,
                    mark,
                };
                let (output, input) = mpsc::unbounded_channel();
                let task = tokio::spawn(run(probe, target, input, self.reports.clone()));
                let running = Running {
                    task: task.abort_handle(),
                    output,
                };
                self.running.insert(probe, running);
            }
            Command::Send { probe, data } => {
                if let Some(running) = self.running.get(&probe) {
                    // A task that has ended has reported why.
                    let _ = running.output.send(data);
                }
            }
            Command::Close { probe } => {
                if let Some(running) = self.running.remove(&probe) {
                    running.task.abort();
                }
            }
            _ => {}
        }
    }
}

#[derive(Debug)]
struct Target {
    destination: SocketAddr,
    bind: Option<SocketAddr>,
    bind_interface: Option<Arc<str>>,
    mark: u32,
}

async fn run(
    probe: ProbeId,
    target: Target,
    mut input: UnboundedReceiver<bytes::Bytes>,
    reports: Sender<Report>,
) {
    // The receiver outlives all tasks but at the very end, when nobody wants to know.
    let report = async |what| drop(reports.send(what).await);
    let mut stream = match connect(&target).await {
        Ok(stream) => stream,
        Err(error) => return report(Report::Connected(probe, Err(error))).await,
    };
    report(Report::Connected(probe, Ok(()))).await;
    let mut buffer = vec![0; READ_BUFFER];
    loop {
        tokio::select! {
            data = input.recv() => {
                let Some(data) = data else { return };
                if let Err(error) = stream.write_all(&data).await {
                    return report(Report::Closed(probe, Err(ReadError::Write((&error).into())))).await;
                }
            }
            read = stream.read(&mut buffer) => match read {
                Ok(0) => return report(Report::Closed(probe, Ok(()))).await,
                Ok(length) => report(Report::Data(probe, buffer[..length].to_vec())).await,
                Err(error) => return report(Report::Closed(probe, Err(ReadError::Read((&error).into())))).await,
            },
        }
    }
}

/// Opens the socket in the order that [`Command::Connect`] asks for and waits until it stands.
async fn connect(target: &Target) -> Result<TcpStream, ConnectError> {
    let socket = open(target).map_err(|error| ConnectError::setup(&error))?;
    match socket.connect(&target.destination.into()) {
        Ok(()) => {}
        Err(error) if is_in_progress(&error) => {}
        Err(error) => return Err(ConnectError::immediate(&error)),
    }
    let stream = TcpStream::from_std(StdStream::from(socket))
        .map_err(|error| ConnectError::setup(&error))?;
    stream
        .writable()
        .await
        .map_err(|error| ConnectError::deferred(&error))?;
    match stream.take_error() {
        Ok(None) => Ok(stream),
        Ok(Some(error)) | Err(error) => Err(ConnectError::deferred(&error)),
    }
}

fn open(target: &Target) -> io::Result<Socket> {
    let domain = Domain::for_address(target.destination);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if target.mark != 0 {
        socket.set_mark(target.mark)?;
    }
    if let Some(interface) = &target.bind_interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    if let Some(bind) = target.bind {
        socket.bind(&bind.into())?;
    }
    Ok(socket)
}

fn is_in_progress(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error())
}

/// Reports that wait for the control loop; further probes wait for a place.
const REPORTS: usize = 1024;
const READ_BUFFER: usize = 16 * 1024;

//! Small HTTP servers and clients that say who answered.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Namespace;

/// A web server in a namespace. Each answer says its name, in the body and in `X-Server`; `/bytes/N` gives N
/// pseudo-random bytes. It stops when dropped.
#[derive(Debug)]
pub struct HttpServer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl HttpServer {
    /// Starts a server. Port 0 takes any free one.
    ///
    /// # Errors
    ///
    /// What the system refused.
    pub fn start(namespace: &Namespace, addr: SocketAddr, name: &str) -> io::Result<Self> {
        let listener = namespace.run(|| TcpListener::bind(addr))?;
        let shared = Arc::new(Shared {
            addr: listener.local_addr()?,
            name: name.to_owned(),
            stopped: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            connections: Mutex::default(),
        });
        let mut server = Self {
            shared,
            thread: None,
        };
        server.listen(listener)?;
        Ok(server)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.shared.addr
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Requests answered so far.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Stops listening and cuts all connections: the port is closed when this returns.
    pub fn stop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for stream in self.shared.connections().values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Listens again after [`stop`](Self::stop), at the same address in the given namespace.
    ///
    /// # Errors
    ///
    /// What the system refused.
    pub fn restart(&mut self, namespace: &Namespace) -> io::Result<()> {
        self.stop();
        let addr = self.shared.addr;
        self.listen(namespace.run(|| TcpListener::bind(addr))?)
    }

    fn listen(&mut self, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        self.shared.stopped.store(false, Ordering::Relaxed);
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name(shared.name.clone());
        self.thread = Some(thread.spawn(move || shared.accept(&listener))?);
        Ok(())
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// The server's name, from `X-Server`.
    pub server: String,
    /// The body's first 64 KiB.
    pub body: Vec<u8>,
    /// Length of the whole body in bytes.
    pub length: u64,
    /// Hash of the whole body; compare it with [`bytes_hash`].
    pub hash: u64,
}

/// Asks a server, from the calling thread's network namespace, over a new connection.
///
/// # Errors
///
/// What happened to the connection; a server that says nothing for `timeout` is timed out.
pub fn http_get(addr: SocketAddr, path: &str, timeout: Duration) -> io::Result<Response> {
    let stream = TcpStream::connect_timeout(&addr, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    (&stream).write_all(
        format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut reader = BufReader::with_capacity(CHUNK, &stream);
    let status = line(&mut reader)?;
    let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
    let mut response = Response {
        status: status.ok_or(io::ErrorKind::InvalidData)?,
        server: String::new(),
        body: Vec::new(),
        length: 0,
        hash: HASH_START,
    };
    let mut expected = None;
    loop {
        let header = line(&mut reader)?;
        match header.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("x-server") => {
                response.server = value.trim().to_owned();
            }
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                expected = value.trim().parse().ok();
            }
            Some(_) => {}
            None => break,
        }
    }
    loop {
        let chunk = reader.fill_buf()?;
        if chunk.is_empty() {
            break;
        }
        response.hash = hash(response.hash, chunk);
        let room = BODY_KEPT
            .saturating_sub(response.body.len())
            .min(chunk.len());
        response.body.extend_from_slice(&chunk[..room]);
        let length = chunk.len();
        response.length += length as u64;
        reader.consume(length);
    }
    if expected.is_some_and(|expected: u64| expected != response.length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(response)
}

/// Hash of the body that `/bytes/N` gives for this N.
pub fn bytes_hash(length: u64) -> u64 {
    let mut value = HASH_START;
    for_chunks(length, |chunk| {
        value = hash(value, chunk);
        Ok(())
    })
    .map_or(0, |()| value)
}

#[derive(Debug)]
struct Shared {
    addr: SocketAddr,
    name: String,
    stopped: AtomicBool,
    requests: AtomicU64,
    connections: Mutex<BTreeMap<u64, TcpStream>>,
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, BTreeMap<u64, TcpStream>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        let mut next = 0;
        while !self.stopped.load(Ordering::Relaxed) {
            let mut readable = [PollFd::new(listener, PollFlags::IN)];
            let _ = poll(&mut readable, Some(&PATIENCE));
            let Ok((stream, _)) = listener.accept() else {
                continue;
            };
            let Ok(copy) = stream.try_clone() else {
                continue;
            };
            next += 1;
            let number = next;
            self.connections().insert(number, copy);
            let shared = Arc::clone(self);
            let serve = move || {
                // A client that goes away is no concern of the server's.
                let _ = shared.serve(&stream);
                shared.connections().remove(&number);
            };
            if std::thread::Builder::new().spawn(serve).is_err() {
                self.connections().remove(&number);
            }
        }
        // A process being forked may hold a copy of the descriptor; this ends listening for all copies.
        let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Both);
    }

    /// One request, one answer.
    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut reader = BufReader::new(stream);
        let request = line(&mut reader)?;
        while !line(&mut reader)?.is_empty() {}
        let path = request.split(' ').nth(1).unwrap_or("/");
        let length = path
            .strip_prefix("/bytes/")
            .and_then(|length| length.parse::<u64>().ok());
        self.requests.fetch_add(1, Ordering::Relaxed);
        let body = format!("{}\n", self.name);
        let size = length.unwrap_or(body.len() as u64);
        let mut stream = stream;
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nX-Server: {}\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n",
            self.name
        )?;
        match length {
            Some(length) => for_chunks(length, |chunk| stream.write_all(chunk)),
            None => stream.write_all(body.as_bytes()),
        }?;
        // Half-closed, so that the client's last acknowledgement meets no closed socket.
        stream.shutdown(Shutdown::Write)?;
        let _ = stream.read(&mut [0; 16]);
        Ok(())
    }
}

fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if reader.take(LINE).read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.truncate(line.trim_end().len());
    Ok(line)
}

/// The bytes of `/bytes/N`, in pieces. The sequence depends on N, so answers can't be confused.
fn for_chunks(length: u64, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut state = length ^ HASH_START;
    let mut chunk = vec![0; CHUNK];
    let mut left = length;
    while left > 0 {
        for word in chunk.chunks_exact_mut(8) {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let size = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        each(&chunk[..size])?;
        left -= size as u64;
    }
    Ok(())
}

/// FNV-1a
fn hash(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

const HASH_START: u64 = 0xcbf2_9ce4_8422_2325;
const CHUNK: usize = 32 * 1024;
const BODY_KEPT: usize = 64 * 1024;
const LINE: u64 = 8192;
/// How often the listening thread looks whether it should stop.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

//! Where log lines go: the console, or syslog as keepalived does.

use std::io::{self, IsTerminal, Write};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Starts logging for the whole process. Without a syslog socket the console is used, and says so.
pub fn start(console: bool, detail: bool) {
    let level = if detail { Level::DEBUG } else { Level::INFO };
    if !console {
        match Syslog::connect() {
            Ok(syslog) => {
                tracing_subscriber::fmt()
                    .with_max_level(level)
                    .with_ansi(false)
                    .with_target(false)
                    .with_level(false)
                    .without_time()
                    .with_writer(syslog)
                    .init();
                return;
            }
            Err(error) => {
                eprintln!(
                    "director: no syslog at {SYSLOG_SOCKET} ({error}), logging to the console"
                );
            }
        }
    }
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .with_writer(io::stderr)
        .init();
}

/// An error with its sources, `what: why: why`.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Writes each event as one datagram in the traditional format, `<priority>director[pid]: text`.
#[derive(Debug, Clone)]
struct Syslog {
    socket: Arc<UnixDatagram>,
}

impl Syslog {
    fn connect() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(SYSLOG_SOCKET)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: Arc::new(socket),
        })
    }
}

impl<'a> MakeWriter<'a> for Syslog {
    type Writer = SyslogLine;

    fn make_writer(&'a self) -> SyslogLine {
        SyslogLine::new(Arc::clone(&self.socket), SEVERITY_INFO)
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> SyslogLine {
        let severity = match *meta.level() {
            Level::ERROR => SEVERITY_ERROR,
            Level::WARN => SEVERITY_WARNING,
            Level::INFO => SEVERITY_INFO,
            Level::DEBUG | Level::TRACE => SEVERITY_DEBUG,
        };
        SyslogLine::new(Arc::clone(&self.socket), severity)
    }
}

/// One line under way; sent when dropped. A full syslog loses the line rather than holding up the director.
#[derive(Debug)]
struct SyslogLine {
    socket: Arc<UnixDatagram>,
    text: Vec<u8>,
}

impl SyslogLine {
    fn new(socket: Arc<UnixDatagram>, severity: u8) -> Self {
        let priority = FACILITY_DAEMON | severity;
        let text = format!("<{priority}>director[{}]: ", std::process::id()).into_bytes();
        Self { socket, text }
    }
}

impl Write for SyslogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for SyslogLine {
    fn drop(&mut self) {
        let line = self.text.trim_ascii_end();
        // Nobody is left to tell about a failure of the log itself.
        let _ = self.socket.send(line);
    }
}

const SYSLOG_SOCKET: &str = "/dev/log";
const FACILITY_DAEMON: u8 = 3 << 3;
const SEVERITY_ERROR: u8 = 3;
const SEVERITY_WARNING: u8 = 4;
const SEVERITY_INFO: u8 = 6;
const SEVERITY_DEBUG: u8 = 7;

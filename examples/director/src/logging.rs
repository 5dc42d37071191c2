//! Where log lines go: the console, or syslog as keepalived does.

use std::io::{self, IsTerminal, Write};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Where log lines go, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogOptions {
    /// To the console (`-l`) rather than to syslog.
    pub console: bool,
    /// More of them (`-D`).
    pub detail: bool,
    /// What syslog files them under (`-S`).
    pub facility: Facility,
}

/// A facility of syslog (RFC 3164 section 4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facility(u8);

impl Facility {
    /// `daemon`, `user`, `local0` to `local7`, or 0 to 7 for the latter, as keepalived has it.
    ///
    /// # Errors
    ///
    /// It is none of these.
    pub fn parse(text: &str) -> Result<Self, String> {
        let local = text.strip_prefix("local").unwrap_or(text);
        match (text, local.as_bytes()) {
            ("daemon", _) => Ok(Self::default()),
            ("user", _) => Ok(Self(1)),
            (_, [digit @ b'0'..=b'7']) => Ok(Self(16 + digit - b'0')),
            _ => Err("0 to 7, local0 to local7, daemon or user is expected".to_owned()),
        }
    }
}

impl Default for Facility {
    /// `daemon`.
    fn default() -> Self {
        Self(3)
    }
}

/// Starts logging for the whole process. Without a syslog socket the console is used, and says so. A console that is the journal gets each
/// line's severity as the journal reads it.
pub fn start(options: LogOptions) {
    let level = if options.detail {
        Level::DEBUG
    } else {
        Level::INFO
    };
    if !options.console {
        match Syslog::connect(options.facility) {
            Ok(syslog) => {
                return start_bare(level, syslog);
            }
            Err(error) => {
                eprintln!(
                    "director: no syslog at {SYSLOG_SOCKET} ({error}), logging to the console"
                );
            }
        }
    }
    if is_journal() {
        return start_bare(level, Journal);
    }
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .with_writer(io::stderr)
        .init();
}

/// For a reader that puts time and severity to each line itself.
fn start_bare(level: Level, writer: impl for<'w> MakeWriter<'w> + Send + Sync + 'static) {
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_target(false)
        .with_level(false)
        .without_time()
        .with_writer(writer)
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
    facility: Facility,
}

impl Syslog {
    fn connect(facility: Facility) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(SYSLOG_SOCKET)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: Arc::new(socket),
            facility,
        })
    }
}

impl<'a> MakeWriter<'a> for Syslog {
    type Writer = SyslogLine;

    fn make_writer(&'a self) -> SyslogLine {
        SyslogLine::new(self, SEVERITY_INFO)
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> SyslogLine {
        SyslogLine::new(self, severity(meta))
    }
}

fn severity(meta: &Metadata<'_>) -> u8 {
    match *meta.level() {
        Level::ERROR => SEVERITY_ERROR,
        Level::WARN => SEVERITY_WARNING,
        Level::INFO => SEVERITY_INFO,
        Level::DEBUG | Level::TRACE => SEVERITY_DEBUG,
    }
}

/// Standard error that the journal reads: `<severity>` begins a line (sd-daemon(3)).
#[derive(Debug, Clone, Copy)]
struct Journal;

impl<'a> MakeWriter<'a> for Journal {
    type Writer = JournalLine;

    fn make_writer(&'a self) -> JournalLine {
        JournalLine(SEVERITY_INFO)
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> JournalLine {
        JournalLine(severity(meta))
    }
}

#[derive(Debug)]
struct JournalLine(u8);

impl Write for JournalLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut line = format!("<{}>", self.0).into_bytes();
        line.extend_from_slice(bytes);
        io::stderr().write_all(&line)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Whether standard error is the stream that systemd has said is the journal's: `JOURNAL_STREAM` is `DEVICE:INODE`.
fn is_journal() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else {
        return false;
    };
    rustix::fs::fstat(io::stderr())
        .is_ok_and(|stat| stream.to_str() == Some(&format!("{}:{}", stat.st_dev, stat.st_ino)))
}

/// One line under way; sent when dropped. A full syslog loses the line rather than holding up the director.
#[derive(Debug)]
struct SyslogLine {
    socket: Arc<UnixDatagram>,
    text: Vec<u8>,
}

impl SyslogLine {
    fn new(syslog: &Syslog, severity: u8) -> Self {
        let socket = Arc::clone(&syslog.socket);
        let priority = u16::from(syslog.facility.0) << 3 | u16::from(severity);
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
const SEVERITY_ERROR: u8 = 3;
const SEVERITY_WARNING: u8 = 4;
const SEVERITY_INFO: u8 = 6;
const SEVERITY_DEBUG: u8 = 7;

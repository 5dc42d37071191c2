//! Why an attempt failed, and how errors of the system are classified.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;

/// Why an attempt failed. The text is lower case and fits behind "check failed: ".
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Failure {
    /// The server refused the connection.
    ConnectRefused,
    /// The connection was reset or aborted before it stood.
    ConnectReset,
    /// No connection within the connect timeout.
    ConnectTimeout,
    /// The network or the host cannot be reached or is down.
    NetworkUnreachable,
    /// The connection failed in another way.
    ConnectFailed(SystemError),
    /// The check could not be run because of this host: no such source address, no permission, no descriptors.
    LocalError(SystemError),
    /// Writing the request failed.
    SendError(SystemError),
    /// The server was silent for longer than the timeout of one step.
    ReadTimeout,
    /// The attempt as a whole took longer than [`Timing::attempt_timeout`](crate::Timing::attempt_timeout).
    AttemptTimeout,
    /// Reading failed, for instance because the server reset the connection.
    ReadError(SystemError),
    /// The server closed the connection too early.
    ConnectionClosed,
    /// The stream ended, or the header limit was reached, before the end of the response header.
    NoData,
    /// The first line of the response has no well-formed status.
    BadStatusLine,
    /// The status of the response is not one of those wanted.
    BadStatus(u16),
    /// The MD5 digest of the body is another one.
    DigestMismatch,
    /// No regular expression matched, or one matched that must not.
    RegexMismatch,
    /// The TLS handshake failed; the reason in the words of the TLS library.
    TlsHandshake(Cow<'static, str>),
    /// The certificate is not one to be trusted; the reason in the words of the TLS library.
    TlsVerify(Cow<'static, str>),
    /// What came is not of the protocol, or longer than it may be.
    BadReply(Cow<'static, str>),
    /// The SMTP server greeted with this code.
    SmtpGreeting(u16),
    /// The SMTP server answered HELO with this code.
    SmtpHelo(u16),
    /// The DNS server answered with this response code.
    DnsRcode(u8),
    /// A UDP reply that must come did not come.
    UdpNoReply,
    /// A UDP reply is not what it must be.
    UdpMismatch,
    /// An ICMP error said that the destination is unreachable.
    IcmpUnreachable,
    /// What came back is not the reply to this echo request.
    PingMismatch,
    /// The script ended with this status.
    ScriptExit(u8),
    /// The script was ended by this signal.
    ScriptSignal(i32),
    /// The script took too long and was stopped.
    ScriptTimeout,
    /// The script could not be executed.
    ScriptSpawn(SystemError),
    /// The tracked file says that the server is down; its value.
    FileFault(i64),
    /// The BFD session is down.
    BfdDown,
    /// So many outcomes in a row that were reported from outside were failures.
    Passive(u32),
    /// A reason of a checker of your own.
    Other(Cow<'static, str>),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectRefused => f.write_str("connection refused"),
            Self::ConnectReset => f.write_str("connection reset while connecting"),
            Self::ConnectTimeout => f.write_str("connect timed out"),
            Self::NetworkUnreachable => f.write_str("network or host unreachable"),
            Self::ConnectFailed(error) => write!(f, "connect failed: {error}"),
            Self::LocalError(error) => write!(f, "local error: {error}"),
            Self::SendError(error) => write!(f, "send failed: {error}"),
            Self::ReadTimeout => f.write_str("timed out waiting for an answer"),
            Self::AttemptTimeout => f.write_str("attempt took too long"),
            Self::ReadError(error) => write!(f, "read failed: {error}"),
            Self::ConnectionClosed => f.write_str("connection closed by the server"),
            Self::NoData => f.write_str("no complete response header"),
            Self::BadStatusLine => f.write_str("malformed status line"),
            Self::BadStatus(status) => write!(f, "unexpected status {status}"),
            Self::DigestMismatch => f.write_str("body digest differs"),
            Self::RegexMismatch => f.write_str("body does not match"),
            Self::TlsHandshake(reason) => write!(f, "TLS handshake failed: {reason}"),
            Self::TlsVerify(reason) => write!(f, "certificate refused: {reason}"),
            Self::BadReply(reason) => write!(f, "bad reply: {reason}"),
            Self::SmtpGreeting(code) => write!(f, "SMTP greeting {code}"),
            Self::SmtpHelo(code) => write!(f, "SMTP code {code} after HELO"),
            Self::DnsRcode(code) => match code {
                1 => f.write_str("DNS answer FORMERR"),
                2 => f.write_str("DNS answer SERVFAIL"),
                3 => f.write_str("DNS answer NXDOMAIN"),
                4 => f.write_str("DNS answer NOTIMP"),
                5 => f.write_str("DNS answer REFUSED"),
                _ => write!(f, "DNS response code {code}"),
            },
            Self::UdpNoReply => f.write_str("no reply"),
            Self::UdpMismatch => f.write_str("unexpected reply"),
            Self::IcmpUnreachable => f.write_str("destination unreachable (ICMP)"),
            Self::PingMismatch => f.write_str("unexpected ICMP message"),
            Self::ScriptExit(code) => write!(f, "script ended with status {code}"),
            Self::ScriptSignal(signal) => write!(f, "script ended by signal {signal}"),
            Self::ScriptTimeout => f.write_str("script took too long and was stopped"),
            Self::ScriptSpawn(error) => write!(f, "script could not be executed: {error}"),
            Self::FileFault(value) => write!(f, "tracked file says {value}"),
            Self::BfdDown => f.write_str("BFD session is down"),
            Self::Passive(count) => write!(f, "{count} failures in a row seen in traffic"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// An error of the operating system, small enough to be copied and compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SystemError {
    kind: io::ErrorKind,
    errno: Option<i32>,
}

impl SystemError {
    /// The portable class of the error.
    pub fn kind(&self) -> io::ErrorKind {
        self.kind
    }

    /// The number the system gave; `None` when the error was not made by a system call.
    pub fn errno(&self) -> Option<i32> {
        self.errno
    }
}

impl From<&io::Error> for SystemError {
    fn from(error: &io::Error) -> Self {
        Self {
            kind: error.kind(),
            errno: error.raw_os_error(),
        }
    }
}

impl fmt::Display for SystemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errno {
            Some(errno) => write!(f, "{} (errno {errno})", self.kind),
            None => write!(f, "{}", self.kind),
        }
    }
}

impl Error for SystemError {}

/// How a connection did not come about.
///
/// The server's fault is a failure of the attempt; this host's fault ([`Local`](Self::Local)) means that the check was
/// not run. Use [`immediate`](Self::immediate), [`deferred`](Self::deferred) and [`setup`](Self::setup) to classify.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectError {
    /// ECONNREFUSED.
    Refused,
    /// ECONNRESET or ECONNABORTED.
    Reset,
    /// ENETUNREACH, EHOSTUNREACH, EHOSTDOWN or ENETDOWN.
    Unreachable,
    /// ETIMEDOUT.
    TimedOut,
    /// Any other error that a connection in progress ended with.
    Other(SystemError),
    /// TCP connected, but TLS did not; the reason in the words of the TLS library.
    Tls(String),
    /// The server showed a certificate that is not to be trusted.
    Certificate(String),
    /// A problem of this host; the check was not run.
    Local(SystemError),
}

impl ConnectError {
    /// Classifies the error of a `connect()` that failed at once: what is not known as the server's fault is this
    /// host's (EADDRNOTAVAIL, EADDRINUSE, EACCES, EPERM, EINVAL and so on).
    pub fn immediate(error: &io::Error) -> Self {
        Self::remote(error).unwrap_or_else(|| Self::Local(error.into()))
    }

    /// Classifies the SO_ERROR of a `connect()` that was in progress: every error is the server's fault.
    pub fn deferred(error: &io::Error) -> Self {
        Self::remote(error).unwrap_or_else(|| Self::Other(error.into()))
    }

    /// Classifies an error of the steps before `connect()` (socket, mark, interface, bind): always this host's fault.
    pub fn setup(error: &io::Error) -> Self {
        Self::Local(error.into())
    }

    fn remote(error: &io::Error) -> Option<Self> {
        Some(match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => Self::Reset,
            io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkDown => Self::Unreachable,
            io::ErrorKind::TimedOut => Self::TimedOut,
            _ if error.raw_os_error() == Some(EHOSTDOWN) => Self::Unreachable,
            _ => return None,
        })
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Refused => Self::ConnectRefused,
            ConnectError::Reset => Self::ConnectReset,
            ConnectError::Unreachable => Self::NetworkUnreachable,
            ConnectError::TimedOut => Self::ConnectTimeout,
            ConnectError::Other(error) => Self::ConnectFailed(error),
            ConnectError::Tls(reason) => Self::TlsHandshake(reason.into()),
            ConnectError::Certificate(reason) => Self::TlsVerify(reason.into()),
            ConnectError::Local(error) => Self::LocalError(error),
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Failure::from(self.clone()).fmt(f)
    }
}

impl Error for ConnectError {}

/// How a standing connection broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReadError {
    /// Reading failed.
    Read(SystemError),
    /// Writing failed.
    Write(SystemError),
    /// An ICMP error: destination unreachable, whatever its code.
    Unreachable,
    /// Another ICMP error: time exceeded, parameter problem.
    Icmp,
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Read(error) => Self::ReadError(error),
            ReadError::Write(error) => Self::SendError(error),
            ReadError::Unreachable => Self::IcmpUnreachable,
            ReadError::Icmp => Self::Other("an ICMP error came back".into()),
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Failure::from(*self).fmt(f)
    }
}

impl Error for ReadError {}

/// Linux; `std` has no [`io::ErrorKind`] for it.
const EHOSTDOWN: i32 = 112;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_errors_are_classified_as_keepalived_does() {
        use ConnectError as E;
        // errno, class when immediate, class when deferred; numbers of Linux.
        let other = |errno| SystemError::from(&io::Error::from_raw_os_error(errno));
        let table = [
            (111, E::Refused, E::Refused),
            (101, E::Unreachable, E::Unreachable),
            (113, E::Unreachable, E::Unreachable),
            (112, E::Unreachable, E::Unreachable),
            (100, E::Unreachable, E::Unreachable),
            (104, E::Reset, E::Reset),
            (103, E::Reset, E::Reset),
            (110, E::TimedOut, E::TimedOut),
            (99, E::Local(other(99)), E::Other(other(99))),
            (98, E::Local(other(98)), E::Other(other(98))),
            (13, E::Local(other(13)), E::Other(other(13))),
            (1, E::Local(other(1)), E::Other(other(1))),
            (22, E::Local(other(22)), E::Other(other(22))),
            (92, E::Local(other(92)), E::Other(other(92))),
        ];
        for (errno, immediate, deferred) in table {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!(E::immediate(&error), immediate, "errno {errno}");
            assert_eq!(E::deferred(&error), deferred, "errno {errno}");
            assert_eq!(E::setup(&error), E::Local(other(errno)), "errno {errno}");
        }
    }

    #[test]
    fn texts_are_lower_case_without_full_stop() {
        let error = SystemError::from(&io::Error::from_raw_os_error(99));
        assert_eq!(
            Failure::LocalError(error).to_string(),
            "local error: address not available (errno 99)"
        );
        assert_eq!(Failure::BadStatus(503).to_string(), "unexpected status 503");
    }
}

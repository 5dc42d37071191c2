//! `SMTP_CHECK`: greeting, HELO, QUIT.

use crate::{Attempt, Checker, Failure, Next, Outcome, Schedule, Start};
use std::error::Error;
use std::fmt;

/// Up when the server greets with 220, answers HELO with 250 and answers QUIT with anything.
///
/// Replies of several lines are understood (RFC 5321 section 4.2.1); a reply of more than 64 KiB is a failure.
#[doc(alias = "SMTP_CHECK")]
#[derive(Debug, Clone)]
pub struct SmtpCheck {
    helo: String,
    is_strict: bool,
    step: Step,
    line: Vec<u8>,
    received: usize,
}

impl SmtpCheck {
    /// What keepalived says in its HELO unless told otherwise.
    pub const DEFAULT_HELO: &str = "smtpchecker.keepalived.org";

    /// Introduces itself by this name.
    ///
    /// # Errors
    ///
    /// The name is empty, longer than 255 bytes, or contains white space or a control character.
    pub fn new(helo: impl Into<String>) -> Result<Self, InvalidHelo> {
        let helo = helo.into();
        let is_bad = |byte: u8| byte.is_ascii_control() || byte == b' ';
        if helo.is_empty() || helo.len() > 255 || helo.bytes().any(is_bad) {
            return Err(InvalidHelo);
        }
        Ok(Self {
            helo,
            is_strict: false,
            step: Step::Greeting,
            line: Vec::new(),
            received: 0,
        })
    }

    /// The historical reading: one line of at most 511 bytes, a space or the bare line end behind the code, so that
    /// `220-…` and `220` with CR LF fail.
    pub fn single_line(mut self) -> Self {
        self.is_strict = true;
        self
    }

    /// A line without its line end. `None`: more lines of this reply follow.
    fn judge(&mut self, line: &[u8]) -> Option<Next> {
        let line = match line.strip_suffix(b"\r") {
            Some(stripped) if !self.is_strict => stripped,
            _ => line,
        };
        if self.step == Step::Quit {
            return Some(Next::Done(Outcome::Up));
        }
        let Some((code, follows)) = self.code(line) else {
            let reason = "not an SMTP reply";
            return Some(Next::Done(Outcome::Down(Failure::BadReply(reason.into()))));
        };
        if follows {
            return None;
        }
        Some(match (self.step, code) {
            (Step::Greeting, 220) => {
                self.step = Step::Helo;
                Next::Send(format!("HELO {}\r\n", self.helo).into())
            }
            (Step::Greeting, code) => Next::Done(Outcome::Down(Failure::SmtpGreeting(code))),
            (_, 250) => {
                self.step = Step::Quit;
                Next::Send("QUIT\r\n".into())
            }
            (_, code) => Next::Done(Outcome::Down(Failure::SmtpHelo(code))),
        })
    }

    /// The code and whether another line follows.
    fn code(&self, line: &[u8]) -> Option<(u16, bool)> {
        let digits = line.get(..3)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let code = digits
            .iter()
            .fold(0, |n, digit| n * 10 + u16::from(digit - b'0'));
        match line.get(3) {
            None | Some(b' ') => Some((code, false)),
            Some(b'-') if !self.is_strict => Some((code, true)),
            Some(_) => None,
        }
    }
}

impl Default for SmtpCheck {
    fn default() -> Self {
        Self::new(Self::DEFAULT_HELO).expect("the default is a valid name")
    }
}

impl Checker for SmtpCheck {
    fn name(&self) -> &'static str {
        "SMTP_CHECK"
    }

    fn identity(&self) -> Option<String> {
        Some(format!("{} {}", self.helo, self.is_strict))
    }

    fn schedule(&self) -> Schedule {
        Schedule::Cycle
    }

    fn begin(&mut self, _: &Attempt) -> Start {
        self.step = Step::Greeting;
        self.line = Vec::new();
        self.received = 0;
        Start::default()
    }

    fn handle_connected(&mut self) -> Next {
        Next::Wait
    }

    fn handle_data(&mut self, data: &[u8]) -> Next {
        self.received += data.len();
        let limit = if self.is_strict { 511 } else { REPLY_LIMIT };
        if self.received > limit {
            let reason = "reply is too long";
            return Next::Done(Outcome::Down(Failure::BadReply(reason.into())));
        }
        self.line.extend_from_slice(data);
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let rest = self.line.split_off(end + 1);
            let mut line = std::mem::replace(&mut self.line, rest);
            line.pop();
            if let Some(next) = self.judge(&line) {
                // Nothing may come before the next command; what does is not looked at.
                self.line.clear();
                self.received = 0;
                return next;
            }
        }
        Next::Wait
    }
}

/// A name that cannot be said in HELO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidHelo;

impl fmt::Display for InvalidHelo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a HELO name is 1 to 255 bytes without white space and control characters")
    }
}

impl Error for InvalidHelo {}

/// Which reply is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Greeting,
    Helo,
    Quit,
}

const REPLY_LIMIT: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// What one attempt said and how it ended, with a server that sends these pieces, each after it was spoken to or
    /// the piece before was not enough, and then falls silent.
    fn dialogue(mut check: SmtpCheck, pieces: &[&str]) -> (String, Outcome) {
        check.begin(&Attempt::new("192.0.2.1:25".parse().unwrap(), 0));
        assert_eq!(check.handle_connected(), Next::Wait);
        let mut said = String::new();
        for piece in pieces {
            match check.handle_data(piece.as_bytes()) {
                Next::Send(data) => said.push_str(std::str::from_utf8(&data).unwrap()),
                Next::Done(outcome) => return (said, outcome),
                _ => {}
            }
        }
        (said, check.handle_timeout())
    }

    #[test]
    fn bytes_are_keepalived_s() {
        let (said, outcome) = dialogue(
            SmtpCheck::default(),
            &["220 x\r\n", "250 y\r\n", "221 z\r\n"],
        );
        assert_eq!(said, "HELO smtpchecker.keepalived.org\r\nQUIT\r\n");
        assert_eq!(outcome, Outcome::Up);
        let (said, _) = dialogue(SmtpCheck::new("mx.example").unwrap(), &["220 x\r\n"]);
        assert_eq!(said, "HELO mx.example\r\n");
    }

    #[test]
    fn verdicts_by_default_and_as_observed_of_keepalived() {
        let up = || Outcome::Up;
        let down = Outcome::Down;
        let bad = |reason: &'static str| down(Failure::BadReply(reason.into()));
        let garbled = || bad("not an SMTP reply");
        let long = format!("220 {}\r\n", "x".repeat(600));
        let endless = format!("220-{}", "x".repeat(70_000));
        let (ok, bye) = ("250 y\r\n", "221 z\r\n");
        // pieces, verdict by default, historical verdict. The historical reading wants replies without CR or with a text.
        let table: Vec<(Vec<&str>, Outcome, Outcome)> = vec![
            (vec!["220 x\r\n", ok, bye], up(), up()),
            (vec!["220 x\n", ok, bye], up(), up()),
            (vec!["22", "0 ", "x\r\n", ok, bye], up(), up()),
            (vec!["220-x\r\n220 x\r\n", ok, bye], up(), garbled()),
            (vec!["220-x\r\n", "220 x\r\n", ok, bye], up(), garbled()),
            (vec!["220\r\n", ok, bye], up(), garbled()),
            (vec!["220\n", ok, bye], up(), up()),
            (vec!["2200 x\r\n"], garbled(), garbled()),
            (vec![&long, ok, bye], up(), bad("reply is too long")),
            (
                vec!["220 x\r\n", "250-a\r\n250 b\r\n", bye],
                up(),
                garbled(),
            ),
            (
                vec!["550 no\r\n"],
                down(Failure::SmtpGreeting(550)),
                down(Failure::SmtpGreeting(550)),
            ),
            (
                vec!["220 x\r\n", "503 no\r\n"],
                down(Failure::SmtpHelo(503)),
                down(Failure::SmtpHelo(503)),
            ),
            (vec!["220 x\r\n", ok, "500\r\n"], up(), up()),
            (vec!["SSH-2.0-OpenSSH\r\n"], garbled(), garbled()),
            (
                vec![&endless],
                bad("reply is too long"),
                bad("reply is too long"),
            ),
            (
                vec!["220 x\r\n", ok],
                down(Failure::ReadTimeout),
                down(Failure::ReadTimeout),
            ),
        ];
        for (pieces, wanted, historical) in table {
            let (_, outcome) = dialogue(SmtpCheck::default(), &pieces);
            assert_eq!(outcome, wanted, "{pieces:?}");
            let (_, outcome) = dialogue(SmtpCheck::default().single_line(), &pieces);
            assert_eq!(outcome, historical, "{pieces:?}");
        }
    }

    #[test]
    fn a_name_cannot_smuggle_a_command() {
        for name in ["", "a b", "a\r\nMAIL FROM:<x>", &"x".repeat(256)] {
            assert!(SmtpCheck::new(name).is_err(), "{name:?}");
        }
    }
}

//! The client's side of SMTP (RFC 5321) for one mail: bytes in, bytes out.

use std::fmt;

use super::message::Message;

/// One mail on its way over one connection.
///
/// After the connection stands, and after every [`handle_data`](Self::handle_data), send what
/// [`poll_transmit`](Self::poll_transmit) gives; hang up when [`is_over`](Self::is_over).
#[derive(Debug)]
pub struct Conversation {
    stage: Stage,
    /// What comes after the reply to each stage.
    commands: std::vec::IntoIter<(Stage, String)>,
    line: Vec<u8>,
    lines: usize,
    outgoing: Option<String>,
    outcome: Option<Result<(), MailError>>,
}

/// What the server is expected to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Greeting,
    Helo,
    From,
    To,
    Data,
    Text,
    Quit,
    Over,
}

impl Stage {
    fn expected(self) -> u16 {
        match self {
            Self::Greeting => 220,
            Self::Helo | Self::From | Self::To | Self::Text => 250,
            Self::Data => 354,
            Self::Quit | Self::Over => 221,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Greeting => "the connection",
            Self::Helo => "HELO",
            Self::From => "MAIL FROM",
            Self::To => "RCPT TO",
            Self::Data => "DATA",
            Self::Text => "the message",
            Self::Quit | Self::Over => "QUIT",
        })
    }
}

impl Conversation {
    /// Waits for the server's greeting.
    pub fn new(helo: &str, message: &Message) -> Self {
        let mut commands = vec![
            (Stage::Helo, format!("HELO {helo}\r\n")),
            (
                Stage::From,
                format!("MAIL FROM:<{}>\r\n", message.envelope_from()),
            ),
        ];
        for to in message.envelope_to() {
            commands.push((Stage::To, format!("RCPT TO:<{to}>\r\n")));
        }
        commands.push((Stage::Data, "DATA\r\n".to_owned()));
        commands.push((Stage::Text, message.text()));
        commands.push((Stage::Quit, QUIT.to_owned()));
        Self {
            stage: Stage::Greeting,
            commands: commands.into_iter(),
            line: Vec::new(),
            lines: 0,
            outgoing: None,
            outcome: None,
        }
    }

    /// Bytes from the server, however they are cut.
    pub fn handle_data(&mut self, data: &[u8]) {
        for &byte in data {
            if self.is_over() {
                return;
            }
            if byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.handle_line(line.trim_ascii_end());
            } else if self.line.len() < LONGEST_LINE {
                self.line.push(byte);
            } else {
                self.give_up(MailError::Malformed(self.stage_name()));
            }
        }
    }

    /// Nothing came in time: says goodbye.
    pub fn handle_timeout(&mut self) {
        if matches!(self.stage, Stage::Quit) {
            self.stage = Stage::Over;
        } else {
            self.give_up(MailError::Timeout(self.stage_name()));
        }
    }

    /// The server hung up.
    pub fn handle_closed(&mut self) {
        if !matches!(self.stage, Stage::Quit | Stage::Over) {
            let name = self.stage_name();
            self.outcome.get_or_insert(Err(MailError::Closed(name)));
        }
        self.stage = Stage::Over;
    }

    /// What to send next.
    pub fn poll_transmit(&mut self) -> Option<String> {
        self.outgoing.take()
    }

    /// Whether nothing more will be said.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// What came of the mail; known as soon as the server has taken it or refused.
    pub fn outcome(&self) -> Option<&Result<(), MailError>> {
        self.outcome.as_ref()
    }

    fn handle_line(&mut self, line: &[u8]) {
        self.lines += 1;
        let code = line.get(..3).and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            digits
                .bytes()
                .all(|byte| byte.is_ascii_digit())
                .then_some(())?;
            digits.parse::<u16>().ok()
        });
        let Some(code) = code.filter(|_| self.lines <= MOST_LINES) else {
            self.give_up(MailError::Malformed(self.stage_name()));
            return;
        };
        // The last line of a reply counts.
        if line.get(3) == Some(&b'-') {
            return;
        }
        self.lines = 0;
        if code != self.stage.expected() {
            if self.stage == Stage::Quit {
                self.stage = Stage::Over;
                return;
            }
            self.give_up(MailError::Refused {
                stage: self.stage_name(),
                reply: String::from_utf8_lossy(line)
                    .chars()
                    .filter(|character| !character.is_control())
                    .collect(),
            });
            return;
        }
        if self.stage == Stage::Text {
            self.outcome = Some(Ok(()));
        }
        match self.commands.next() {
            Some((stage, command)) => {
                self.stage = stage;
                self.outgoing = Some(command);
            }
            None => self.stage = Stage::Over,
        }
    }

    fn give_up(&mut self, error: MailError) {
        self.outcome.get_or_insert(Err(error));
        if self.stage == Stage::Quit {
            self.stage = Stage::Over;
        } else {
            self.commands = Vec::new().into_iter();
            self.stage = Stage::Quit;
            self.outgoing = Some(QUIT.to_owned());
        }
    }

    fn stage_name(&self) -> String {
        self.stage.to_string()
    }
}

/// A mail was not taken. Each has the step at which it happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MailError {
    /// The server says no.
    #[error("the mail server refuses {stage}: {reply}")]
    Refused {
        /// What was refused.
        stage: String,
        /// In these words.
        reply: String,
    },
    /// What came is no reply of SMTP, or too long for one.
    #[error("what answers {0} is no mail server")]
    Malformed(String),
    /// No answer.
    #[error("the mail server does not answer {0} in time")]
    Timeout(String),
    /// The connection ended.
    #[error("the mail server hung up after {0}")]
    Closed(String),
}

const QUIT: &str = "QUIT\r\n";

/// RFC 5321 section 4.5.3.1.5 asks for 512.
const LONGEST_LINE: usize = 1024;
const MOST_LINES: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        Message {
            date: "Wed, 25 Nov 2026 10:00:00 +0000".to_owned(),
            from: "lvs@example.org".to_owned(),
            to: vec!["a@example.org".to_owned(), "B <b@example.org>".to_owned()],
            subject: "[r1] VRRP Instance VI_1 - Entering MASTER state".to_owned(),
            body: "=> VRRP Instance is now owning VRRP VIPs <=".to_owned(),
        }
    }

    /// What the client says to each of these replies.
    fn talk(replies: &[&str]) -> (Vec<String>, Conversation) {
        let mut conversation = Conversation::new("me.example.org", &message());
        let mut said = Vec::new();
        for reply in replies {
            conversation.handle_data(reply.as_bytes());
            said.extend(std::iter::from_fn(|| conversation.poll_transmit()));
        }
        (said, conversation)
    }

    #[test]
    fn a_mail_is_said_as_keepalived_says_it() {
        let (said, conversation) = talk(&[
            "220-hello\r\n220 there\r\n",
            "250 ok\r\n",
            "250 ok\r\n",
            "250 ok\r\n",
            "250 ok\r\n",
            "354 go on\r\n",
            "250 taken\r\n",
            "221 bye\r\n",
        ]);
        assert_eq!(
            said,
            [
                "HELO me.example.org\r\n",
                "MAIL FROM:<lvs@example.org>\r\n",
                "RCPT TO:<a@example.org>\r\n",
                "RCPT TO:<b@example.org>\r\n",
                "DATA\r\n",
                "Date: Wed, 25 Nov 2026 10:00:00 +0000\r\nFrom: lvs@example.org\r\n\
                 Subject: [r1] VRRP Instance VI_1 - Entering MASTER state\r\nX-Mailer: Keepalived\r\n\
                 To: a@example.org, B <b@example.org>\r\n\r\n=> VRRP Instance is now owning VRRP VIPs <=\r\n\r\n.\r\n",
                "QUIT\r\n",
            ]
        );
        assert!(conversation.is_over());
        assert_eq!(conversation.outcome(), Some(&Ok(())));
    }

    #[test]
    fn replies_may_come_in_any_pieces() {
        let mut conversation = Conversation::new("x", &message());
        for byte in b"220-a\n220 b\r" {
            conversation.handle_data(&[*byte]);
            assert_eq!(conversation.poll_transmit(), None);
        }
        conversation.handle_data(b"\n");
        assert_eq!(conversation.poll_transmit().unwrap(), "HELO x\r\n");
    }

    #[test]
    fn a_refusal_ends_with_quit_and_says_what_was_refused() {
        let (said, conversation) = talk(&[
            "220 x\n",
            "250 x\n",
            "250 x\n",
            "550 5.1.1 nobody\x07\r\n",
            "221 x\n",
        ]);
        assert_eq!(said.last().unwrap(), "QUIT\r\n");
        assert!(conversation.is_over());
        assert_eq!(
            conversation
                .outcome()
                .unwrap()
                .clone()
                .unwrap_err()
                .to_string(),
            "the mail server refuses RCPT TO: 550 5.1.1 nobody"
        );
    }

    #[test]
    fn garbage_silence_and_hanging_up_are_told_apart() {
        let endless = "x".repeat(5000);
        for garbage in ["HTTP/1.1 400\r\n", endless.as_str(), "\n"] {
            let (said, conversation) = talk(&[garbage]);
            assert_eq!(said, ["QUIT\r\n"]);
            assert_eq!(
                conversation.outcome(),
                Some(&Err(MailError::Malformed("the connection".to_owned())))
            );
        }
        let many = "220-x\n".repeat(200);
        assert!(matches!(
            talk(&[&many]).1.outcome(),
            Some(Err(MailError::Malformed(_)))
        ));
        let (_, mut silent) = talk(&["220 x\n"]);
        silent.handle_timeout();
        assert_eq!(silent.poll_transmit().unwrap(), "QUIT\r\n");
        assert_eq!(
            silent.outcome(),
            Some(&Err(MailError::Timeout("HELO".to_owned())))
        );
        silent.handle_timeout();
        assert!(silent.is_over());
        let (_, mut gone) = talk(&["220 x\n"]);
        gone.handle_closed();
        assert_eq!(
            gone.outcome(),
            Some(&Err(MailError::Closed("HELO".to_owned())))
        );
    }

    #[test]
    fn what_was_taken_stays_taken_whatever_comes_after() {
        let all = "220 x\n250 x\n250 x\n250 x\n250 x\n354 x\n250 x\n";
        let (_, mut conversation) = talk(&[all, "500 what?\n"]);
        conversation.handle_closed();
        assert_eq!(conversation.outcome(), Some(&Ok(())));
        assert!(conversation.is_over());
    }
}

//! Mail about what happened: who gets it, what it says, and how it is sent.
//!
//! [`Conversation`] is SMTP without a socket, [`Message`] the text, [`send`] brings one mail to the server.

mod conversation;
mod message;

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lvs_conf::model::Mail;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub use conversation::{Conversation, MailError};
pub use message::Message;

/// Where mail goes and what it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Name or address of the server.
    pub server: String,
    /// Its port.
    pub port: u16,
    /// What the director calls itself.
    pub helo: String,
    /// For each step of the conversation.
    pub timeout: Duration,
    /// Sender.
    pub from: String,
    /// Recipients, at least one.
    pub to: Vec<String>,
    /// Stands in front of every subject.
    pub router_id: String,
}

impl Settings {
    /// Of a configuration; `None` without a server or recipients.
    pub fn new(mail: &Mail, router_id: Option<&str>) -> Option<Self> {
        let server = mail.server.clone()?;
        if mail.to.is_empty() {
            return None;
        }
        let host = crate::disk::host_name();
        let host = if host.is_empty() { "localhost" } else { &host };
        Some(Self {
            server,
            port: mail.port,
            helo: mail.helo_name.clone().unwrap_or_else(|| host.to_owned()),
            timeout: mail.connect_timeout.max(Duration::from_secs(1)),
            from: mail.from.clone().unwrap_or_else(|| own_address(host)),
            to: mail.to.clone(),
            router_id: router_id.unwrap_or(host).to_owned(),
        })
    }

    /// A mail of now.
    pub fn message(&self, subject: &str, body: &str) -> Message {
        let seconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        Message {
            date: message::date(&super::sys::local_time(seconds)),
            from: self.from.clone(),
            to: self.to.clone(),
            subject: format!("[{}] {subject}", self.router_id),
            body: format!("=> {body} <="),
        }
    }
}

/// Brings one mail to the server: no second attempt, no encryption, no login.
///
/// # Errors
///
/// The server can't be reached or does not take it.
pub async fn send(settings: &Settings, message: &Message) -> Result<(), SendError> {
    let connect = TcpStream::connect((settings.server.as_str(), settings.port));
    let mut stream = match timeout(settings.timeout, connect).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(SendError::Connect(error)),
        Err(_) => return Err(SendError::Connect(io::ErrorKind::TimedOut.into())),
    };
    let mut conversation = Conversation::new(&settings.helo, message);
    let mut buffer = [0; 1024];
    while !conversation.is_over() {
        let step = async {
            if let Some(outgoing) = conversation.poll_transmit() {
                stream.write_all(outgoing.as_bytes()).await?;
            }
            stream.read(&mut buffer).await
        };
        match timeout(settings.timeout, step).await {
            Ok(Ok(count)) if count > 0 => {
                conversation.handle_data(buffer.get(..count).unwrap_or_default());
            }
            Ok(_) => conversation.handle_closed(),
            Err(_) => conversation.handle_timeout(),
        }
    }
    match conversation.outcome() {
        Some(Err(error)) => Err(SendError::Mail(error.clone())),
        Some(Ok(())) | None => Ok(()),
    }
}

/// A mail did not get to the server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No connection.
    #[error("the mail server can't be reached")]
    Connect(#[source] io::Error),
    /// It did not take the mail.
    #[error(transparent)]
    Mail(MailError),
}

/// keepalived's default sender.
fn own_address(host: &str) -> String {
    let uid = nix::unistd::geteuid();
    let name = nix::unistd::User::from_uid(uid).ok().flatten();
    let name = name.map_or_else(|| uid.to_string(), |user| user.name);
    format!("{name}@{host}")
}

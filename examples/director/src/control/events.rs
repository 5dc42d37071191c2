//! The operations `events` and `reload`.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use super::protocol::Reply;
use crate::notify::Event;

/// Name of the operation that tells what happens, from now on. Each line of the answer but the first is a [`TimedEvent`]; all have
/// [`more`](Reply::more) set, as the answer ends with the connection.
pub const EVENTS: &str = "events";

/// Name of the operation that reads the configuration again; answered by [`ReloadInfo`].
pub const RELOAD: &str = "reload";

/// Where events are told to whoever listens.
pub type Events = broadcast::Sender<Arc<Event>>;

/// A line of the answer to [`EVENTS`].
#[derive(Debug, Serialize)]
pub struct TimedEvent<'a> {
    /// Seconds since 1970.
    pub time: f64,
    /// In an operator's words.
    pub text: String,
    /// For programs.
    #[serde(flatten)]
    pub event: &'a Event,
}

/// The answer to [`RELOAD`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadInfo {
    /// Whether the file is in force.
    pub is_done: bool,
    /// What was done, or why nothing was.
    pub summary: String,
}

/// The line for an event that happens now.
pub(super) fn line(event: &Event) -> Vec<u8> {
    let reply = Reply::success(&TimedEvent {
        time: now(),
        text: event.to_string(),
        event,
    });
    Reply {
        more: true,
        ..reply
    }
    .to_line()
}

/// The line for something that is no event: the beginning, or a gap.
pub(super) fn remark(text: &str) -> Vec<u8> {
    let reply = Reply::success(&serde_json::json!({ "time": now(), "text": text }));
    Reply {
        more: true,
        ..reply
    }
    .to_line()
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

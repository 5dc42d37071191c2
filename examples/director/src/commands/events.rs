//! `director events` and `director reload`: what happens in the running director, and having it happen.

use std::io::{self, Write};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Map;

use super::STATUS_TROUBLE;
use crate::control::events::{EVENTS, RELOAD, ReloadInfo};
use crate::control::protocol::{Client, ClientError, Operation, Reply, Request, SocketAddress};
use crate::logging::chain;

/// Writes events as they happen, until the director ends. Returns the exit status: 0, or 2 if no director can be asked.
///
/// # Errors
///
/// Nothing can be written to `out` or `errors`.
pub fn follow(json: bool, out: &mut impl Write, errors: &mut impl Write) -> io::Result<u8> {
    let outcome = follow_with(|reply| {
        let result = reply.result.as_deref();
        let result = result.map_or("null", serde_json::value::RawValue::get);
        if json {
            writeln!(out, "{result}")?;
        } else if let Ok(shown) = serde_json::from_str::<Shown>(result) {
            let text = shown.text;
            writeln!(out, "{} {text}", time_of_day(shown.time))?;
        }
        out.flush()
    });
    match outcome {
        Ok(()) => Ok(0),
        Err(Trouble::Output(error)) => Err(error),
        Err(Trouble::Director(error)) => {
            writeln!(errors, "{}", chain(&error))?;
            Ok(STATUS_TROUBLE)
        }
    }
}

/// Has the running director read its file again. Returns the exit status: 0 it is in force, 1 it is not, 2 nobody can be asked.
///
/// # Errors
///
/// Nothing can be written to `out` or `errors`.
pub fn reload(json: bool, out: &mut impl Write, errors: &mut impl Write) -> io::Result<u8> {
    let asked = || -> Result<ReloadInfo, ClientError> {
        let mut client = Client::connect(&SocketAddress::from_env())?;
        client.set_patience(Some(RELOAD_PATIENCE))?;
        client.request(&request(RELOAD))?.into_result()
    };
    let info = match asked() {
        Ok(info) => info,
        Err(error) => {
            writeln!(errors, "{}", chain(&error))?;
            return Ok(STATUS_TROUBLE);
        }
    };
    if json {
        let text = serde_json::to_string(&info).map_err(io::Error::other)?;
        writeln!(out, "{text}")?;
    } else {
        writeln!(out, "{}", info.summary)?;
    }
    Ok(u8::from(!info.is_done))
}

enum Trouble {
    Output(io::Error),
    Director(ClientError),
}

fn follow_with(mut show: impl FnMut(&Reply) -> io::Result<()>) -> Result<(), Trouble> {
    let mut client = Client::connect(&SocketAddress::from_env()).map_err(Trouble::Director)?;
    let mut reply = client
        .request(&request(EVENTS))
        .map_err(Trouble::Director)?;
    client.set_patience(None).map_err(Trouble::Director)?;
    loop {
        if !reply.ok {
            let refused = reply.into_result::<()>();
            return refused.map_err(Trouble::Director);
        }
        // The first line says that it begins.
        show(&reply).map_err(Trouble::Output)?;
        if !reply.more {
            return Ok(());
        }
        reply = match client.next_part() {
            Ok(reply) => reply,
            // The director has ended.
            Err(ClientError::Broken(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(());
            }
            Err(error) => return Err(Trouble::Director(error)),
        };
    }
}

fn request(operation: &str) -> Request {
    Request::new(Operation::Other {
        op: operation.to_owned(),
        arguments: Map::new(),
    })
}

#[derive(Debug, Deserialize)]
struct Shown {
    time: f64,
    text: String,
}

/// Of the day, in UTC.
fn time_of_day(seconds: f64) -> String {
    // Times of this century fit, and a day's milliseconds all the more.
    let millis = (seconds * 1000.0) as u64 % 86_400_000;
    let (rest, milli) = (millis / 1000, millis % 1000);
    format!(
        "{:02}:{:02}:{:02}.{milli:03}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// Large files and many services take a while.
const RELOAD_PATIENCE: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_of_the_day() {
        assert_eq!(time_of_day(1_764_067_201.25), "10:40:01.250Z");
    }
}

//! What a service manager that started the director hears of it: systemd's protocol for `Type=notify`, which keepalived's
//! unit has.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::time::{ClockId, clock_gettime};
use tracing::debug;

/// How far the director is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It runs.
    Ready,
    /// It reads its file again.
    Reloading,
    /// It ends.
    Stopping,
}

/// Tells it to whoever asked by the variable `NOTIFY_SOCKET`. Nothing depends on whether it arrives.
pub fn tell(state: State) {
    let Some(address) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = send(address.as_encoded_bytes(), &text(state)) {
        debug!("the service manager was not told: {error}");
    }
}

fn send(address: &[u8], text: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    // Nobody who does not read keeps the director waiting.
    socket.set_nonblocking(true)?;
    let address = match address.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => {
            let path = std::str::from_utf8(address).map_err(io::Error::other)?;
            SocketAddr::from_pathname(path)?
        }
    };
    socket.send_to_addr(text.as_bytes(), &address)?;
    Ok(())
}

fn text(state: State) -> String {
    match state {
        State::Ready => "READY=1".to_owned(),
        State::Reloading => {
            let now = clock_gettime(ClockId::Monotonic);
            let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
            format!("RELOADING=1\nMONOTONIC_USEC={micros}")
        }
        State::Stopping => "STOPPING=1".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_addresses_are_reached_and_an_absent_one_is_an_error() {
        let path = std::env::temp_dir().join(format!("director-notify-{}", std::process::id()));
        let name = format!("director-notify-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let mut buffer = [0; 100];
        for (socket, address) in [
            (by_path, path.to_str().unwrap().to_owned()),
            (by_name, format!("@{name}")),
        ] {
            send(address.as_bytes(), &text(State::Ready)).unwrap();
            let length = socket.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"READY=1");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(send(path.as_os_str().as_encoded_bytes(), "READY=1").is_err());
    }
}

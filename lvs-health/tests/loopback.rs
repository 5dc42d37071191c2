//! The monitor against real sockets on 127.0.0.1, with a blocking driver on a few threads.

use lvs_health::{
    CheckerConfig, Command, ConnectError, ConnectOptions, Event, Failure, HttpCheck, HttpConfig,
    Monitor, ProbeId, ReadError, ServerConfig, ServerId, SystemError, TcpCheck, Timing, Url,
};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

enum Fact {
    Connected(ProbeId, Result<TcpStream, ConnectError>),
    Data(ProbeId, Vec<u8>),
    Closed(ProbeId, Result<(), ReadError>),
}

/// One thread per probe: connects, then reads until the end. Writing is done by the caller.
fn probe_thread(
    probe: ProbeId,
    destination: SocketAddr,
    facts: &Sender<Fact>,
) -> Result<(), ReadError> {
    let connected =
        TcpStream::connect(destination).and_then(|stream| Ok((stream.try_clone()?, stream)));
    let mut stream = match connected {
        Ok((writer, reader)) => {
            facts.send(Fact::Connected(probe, Ok(writer))).ok();
            reader
        }
        Err(error) => {
            facts
                .send(Fact::Connected(probe, Err(ConnectError::immediate(&error))))
                .ok();
            return Ok(());
        }
    };
    let mut buffer = [0; 2048];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => facts
                .send(Fact::Data(probe, buffer[..length].to_vec()))
                .ok(),
            Err(error) => return Err(ReadError::Read(SystemError::from(&error))),
        };
    }
}

fn drive(monitor: &mut Monitor, limit: Instant, mut seen: impl FnMut(Event) -> bool) {
    let (sender, facts): (Sender<Fact>, Receiver<Fact>) = channel();
    let mut sockets: HashMap<ProbeId, Option<TcpStream>> = HashMap::new();
    while Instant::now() < limit {
        while let Some(command) = monitor.poll_command() {
            match command {
                Command::Connect {
                    probe, destination, ..
                } => {
                    sockets.insert(probe, None);
                    let sender = sender.clone();
                    std::thread::spawn(move || {
                        let end = probe_thread(probe, destination, &sender);
                        sender.send(Fact::Closed(probe, end)).ok();
                    });
                }
                Command::Send { probe, data } => {
                    let written = sockets
                        .get_mut(&probe)
                        .and_then(Option::as_mut)
                        .map(|socket| socket.write_all(&data));
                    if let Some(Err(error)) = written {
                        let error = ReadError::Write(SystemError::from(&error));
                        monitor.handle_closed(Instant::now(), probe, Err(error));
                    }
                }
                Command::Close { probe } => {
                    // The reading thread shares the socket, so dropping this half alone would not end it.
                    if let Some(Some(socket)) = sockets.remove(&probe) {
                        socket.shutdown(std::net::Shutdown::Both).ok();
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        while let Some(event) = monitor.poll_event() {
            if seen(event) {
                return;
            }
        }
        let due = monitor.poll_timeout().map_or(limit, |due| due.min(limit));
        match facts.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(Fact::Connected(probe, result)) => {
                // A probe that was closed meanwhile has no place here; its socket is dropped.
                let result = result.map(|socket| {
                    if let Some(place) = sockets.get_mut(&probe) {
                        *place = Some(socket);
                    }
                });
                monitor.handle_connected(Instant::now(), probe, result);
            }
            Ok(Fact::Data(probe, data)) => monitor.handle_data(Instant::now(), probe, &data),
            Ok(Fact::Closed(probe, result)) => monitor.handle_closed(Instant::now(), probe, result),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                monitor.handle_timeout(Instant::now());
            }
        }
    }
    panic!("not done in time");
}

/// Answers every request with 200 or 500 and keeps what was asked.
fn http_server(
    works: &Arc<AtomicBool>,
    requests: &Arc<Mutex<Vec<String>>>,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (works, requests) = (Arc::clone(works), Arc::clone(requests));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut buffer = [0; 2048];
            let length = stream.read(&mut buffer).unwrap_or(0);
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            requests
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(text);
            let status = if works.load(Ordering::SeqCst) {
                "200 OK"
            } else {
                "500 Sorry"
            };
            write!(
                stream,
                "HTTP/1.0 {status}\r\nContent-Length: 5\r\n\r\nhello"
            )
            .ok();
        }
    });
    Ok(address)
}

fn quick(checker: impl lvs_health::Checker + 'static, destination: SocketAddr) -> ServerConfig {
    let timing = Timing {
        delay_loop: Duration::from_millis(100),
        delay_before_retry: Duration::from_millis(50),
        connect_timeout: Duration::from_millis(400),
        warmup: Duration::ZERO,
        ..Timing::default()
    };
    ServerConfig::new(vec![CheckerConfig {
        checker: Box::new(checker),
        connect: ConnectOptions::to(destination),
        timing,
        share: false,
    }])
}

#[test]
fn real_servers_come_and_go() {
    let works = Arc::new(AtomicBool::new(true));
    let requests = Arc::default();
    let web = http_server(&works, &requests).unwrap();
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();

    let page = || HttpCheck::new(HttpConfig::new(vec![Url::new("/status")])).unwrap();
    let mut monitor = Monitor::new(3);
    let now = Instant::now();
    let web_id = monitor.add_server(now, quick(page(), web));
    let closed_id = monitor.add_server(now, quick(TcpCheck, closed));
    let mute_id = monitor.add_server(now, quick(page(), mute.local_addr().unwrap()));
    let tcp_id = monitor.add_server(now, quick(TcpCheck, web));

    let limit = now + Duration::from_secs(20);
    let mut downs: HashMap<ServerId, (Failure, u32)> = HashMap::new();
    drive(&mut monitor, limit, |event| {
        match event {
            Event::CheckerUp { server, .. } if server == web_id => {
                works.store(false, Ordering::SeqCst);
            }
            Event::CheckerDown {
                server,
                failure,
                attempts,
                ..
            } => drop(downs.insert(server, (failure, attempts))),
            _ => {}
        }
        downs.len() == 3
    });
    assert_eq!(downs[&closed_id], (Failure::ConnectRefused, 1));
    assert_eq!(downs[&mute_id], (Failure::ReadTimeout, 1));
    assert_eq!(downs[&web_id], (Failure::BadStatus(500), 2));
    assert_eq!(monitor.is_up(tcp_id), Some(true));

    works.store(true, Ordering::SeqCst);
    drive(&mut monitor, limit, |event| {
        event == Event::ServerUp { server: web_id }
    });
    let expected =
        format!("GET /status HTTP/1.0\r\nUser-Agent: KeepAliveClient\r\nHost: {web}\r\n\r\n");
    let requests = requests.lock().unwrap();
    let asked: Vec<_> = requests.iter().filter(|text| !text.is_empty()).collect();
    assert!(
        asked.len() >= 4 && asked.iter().all(|text| **text == expected),
        "{asked:?}"
    );
}

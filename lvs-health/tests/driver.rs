//! The driver against real servers, good and hostile, on loopback.
#![cfg(all(feature = "tls", target_os = "linux"))]
#![allow(clippy::unwrap_used)] // helpers outside of tests are tests too

mod support;

use lvs_health::{
    BodyDigest, Checker, CheckerConfig, ConnectOptions, DnsCheck, DnsType, Driver, DriverOptions,
    Event, Exit, Failure, HttpCheck, HttpConfig, HttpTls, MiscCheck, Outcome, PassiveCheck,
    PingCheck, RunningScript, Script, ScriptEnd, ScriptRunner, ServerConfig, SmtpCheck, Sni,
    StatusSet, TcpCheck, Timing, TlsSettings, UdpCheck, UdpConfig, UdpPattern, UdpReply, Url,
};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};
use support::{certificates, serve, skip_without};

/// Every attempt begins a second after its checker was added: let them wait together.
macro_rules! together {
    ($($check:expr;)*) => {
        std::thread::scope(|scope| {
            $(scope.spawn(|| $check);)*
        })
    };
}

/// One attempt of this checker, and how long it took from its beginning.
fn attempt_with(
    options: DriverOptions,
    checker: impl Checker + 'static,
    connect: ConnectOptions,
) -> (Outcome, Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut driver = Driver::new(options).unwrap();
        let timing = Timing {
            delay_loop: Duration::from_secs(30),
            connect_timeout: Duration::from_millis(400),
            attempt_timeout: Some(Duration::from_millis(900)),
            local_error: lvs_health::LocalErrorPolicy::FailAfter(0),
            alpha: true,
            warmup: Duration::ZERO,
            ..Timing::default()
        };
        let checker = CheckerConfig::new(checker, connect, timing);
        let server = driver.add_server(ServerConfig::new(vec![checker]));
        let outcome = async {
            loop {
                match driver.next_event().await {
                    Event::CheckerUp { .. } => return Outcome::Up,
                    Event::CheckerDown { failure, .. } => return Outcome::Down(failure),
                    _ => {}
                }
            }
        };
        let outcome = tokio::time::timeout(Duration::from_secs(20), outcome).await;
        let outcome = outcome.expect("every attempt ends");
        let status = driver.monitor().checkers(server).next().unwrap();
        assert_eq!(driver.connections(), 0, "closed when it is over");
        (outcome, status.latency.unwrap())
    })
}

fn attempt(checker: impl Checker + 'static, to: SocketAddr) -> (Outcome, Duration) {
    attempt_with(DriverOptions::new(1), checker, ConnectOptions::to(to))
}

fn outcome(checker: impl Checker + 'static, to: SocketAddr) -> Outcome {
    attempt(checker, to).0
}

fn page(path: &str) -> HttpConfig {
    HttpConfig::new(vec![Url::new(path)])
}

fn http(config: HttpConfig) -> HttpCheck {
    HttpCheck::new(config).unwrap()
}

fn secure(config: HttpConfig, tls: HttpTls) -> HttpCheck {
    http(HttpConfig {
        tls: Some(tls),
        ..config
    })
}

fn down(failure: Failure) -> Outcome {
    Outcome::Down(failure)
}

#[test]
fn hostile_web_servers_are_named_and_take_no_longer_than_they_may() {
    let drip = serve(|mut stream| {
        for byte in b"HTTP/1.1 200 OK\r\nX: y".iter().cycle() {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let endless = serve(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        let chunk = [b'x'; 65536];
        while stream.write_all(&chunk).is_ok() {}
    });
    let garbage = serve(|mut stream| {
        let mut request = [0; 1024];
        let _ = stream.read(&mut request);
        let _ = stream.write_all(&[0x80; 4000]);
    });
    let huge = serve(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX: ");
        while stream.write_all(&[b'y'; 4096]).is_ok() {}
    });
    let reset = serve(|mut stream| {
        // Closing with something unread makes the kernel send a reset.
        let mut byte = [0];
        let _ = stream.read(&mut byte);
    });
    let half = serve(|mut stream| {
        let mut request = [0; 1024];
        let _ = stream.read(&mut request);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel");
        let _ = stream.shutdown(std::net::Shutdown::Write);
    });
    let mute = serve(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let silent_end = serve(drop);
    let around = serve(|mut stream| {
        let mut request = [0; 1024];
        let _ = stream.read(&mut request);
        let _ = stream.write_all(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n");
    });
    type Row = (&'static str, SocketAddr, fn(&Outcome) -> bool);
    let table: Vec<Row> = vec![
        ("drip", drip, |it| *it == down(Failure::AttemptTimeout)),
        ("endless", endless, |it| {
            *it == down(Failure::AttemptTimeout)
        }),
        ("garbage", garbage, |it| *it == down(Failure::NoData)),
        ("huge header", huge, |it| *it == down(Failure::NoData)),
        ("reset", reset, |it| {
            // Whether the reset overtakes the request or its answer is the kernel's to decide.
            matches!(it, Outcome::Down(Failure::ReadError(e)) if e.kind() == std::io::ErrorKind::ConnectionReset)
        }),
        ("mute", mute, |it| *it == down(Failure::ReadTimeout)),
        ("end", silent_end, |it| {
            matches!(it, Outcome::Down(Failure::NoData | Failure::ReadError(_)))
        }),
        ("redirect", around, |it| {
            *it == down(Failure::BadStatus(302))
        }),
        // A body that is too short is noted, and no failure, as keepalived has it.
        ("half", half, |it| *it == Outcome::Up),
    ];
    let before = resident();
    std::thread::scope(|scope| {
        for (name, to, is_right) in table {
            scope.spawn(move || {
                let (outcome, took) = attempt(http(page("/")), to);
                assert!(is_right(&outcome), "{name}: {outcome:?}");
                assert!(took < Duration::from_millis(1500), "{name}: {took:?}");
            });
        }
    });
    assert!(resident() < before + 64 * 1024 * 1024, "memory grows");
}

#[test]
fn refused_unreachable_and_impossible() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    assert_eq!(outcome(TcpCheck, closed), down(Failure::ConnectRefused));
    // A backlog that is full is as silent as a host that is not there.
    let full = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    rustix::net::bind(&full, &"127.0.0.1:0".parse::<SocketAddr>().unwrap()).unwrap();
    rustix::net::listen(&full, 0).unwrap();
    let address: SocketAddr = rustix::net::getsockname(&full).unwrap().try_into().unwrap();
    let _first = TcpStream::connect(address).unwrap();
    assert_eq!(outcome(TcpCheck, address), down(Failure::ConnectTimeout));

    let mut elsewhere = ConnectOptions::to(closed);
    elsewhere.bind = Some("192.0.2.77:0".parse().unwrap());
    let (outcome, _) = attempt_with(DriverOptions::new(1), TcpCheck, elsewhere.clone());
    assert!(
        matches!(outcome, Outcome::Down(Failure::LocalError(_))),
        "{outcome:?}"
    );
    elsewhere.bind = None;
    elsewhere.bind_interface = Some("no-such-if".into());
    let (outcome, _) = attempt_with(DriverOptions::new(1), TcpCheck, elsewhere);
    assert!(
        matches!(outcome, Outcome::Down(Failure::LocalError(_))),
        "{outcome:?}"
    );
}

#[test]
fn source_address_and_port_are_those_asked_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options = ConnectOptions::to(listener.local_addr().unwrap());
    let source: SocketAddr = "127.0.0.9:45871".parse().unwrap();
    options.bind = Some(source);
    options.bind_interface = Some("lo".into());
    let (outcome, _) = attempt_with(DriverOptions::new(1), TcpCheck, options);
    assert_eq!(outcome, Outcome::Up);
    assert_eq!(listener.accept().unwrap().1, source);
}

#[test]
fn nginx_is_up_and_its_faults_are_named() {
    if skip_without("nginx") {
        return;
    }
    let nginx = support::nginx();
    let with = |edit: &dyn Fn(&mut Url)| {
        let mut url = Url::new("/");
        edit(&mut url);
        http(HttpConfig::new(vec![url]))
    };
    let at = |path: &str| outcome(http(page(path)), nginx.http);
    let hello: BodyDigest = "5d41402abc4b2a76b9719d911017c592".parse().unwrap();
    let mut keeps_open = page("/");
    keeps_open.protocol = lvs_health::HttpProtocol::Http11;
    let mut missing = Url::new("/missing");
    missing.status = StatusSet::new([404..=404]).unwrap();
    let over_tls = |close_notify, to| {
        let tls = HttpTls {
            close_notify,
            ..HttpTls::default()
        };
        outcome(secure(page("/"), tls), to)
    };
    let refused = down(Failure::TlsHandshake("the answer is not TLS".into()));
    let wrong = BodyDigest([0; 16]);
    let other = || Some("other.example".to_owned());
    together! {
        assert_eq!(at("/"), Outcome::Up);
        assert_eq!(outcome(http(keeps_open.clone()), nginx.http), Outcome::Up);
        assert_eq!(at("/missing"), down(Failure::BadStatus(404)));
        assert_eq!(at("/broken"), down(Failure::BadStatus(500)));
        assert_eq!(outcome(with(&|url| url.digest = Some(hello)), nginx.http), Outcome::Up);
        assert_eq!(outcome(with(&|url| url.digest = Some(wrong)), nginx.http), down(Failure::DigestMismatch));
        assert_eq!(outcome(http(HttpConfig::new(vec![missing.clone()])), nginx.http), Outcome::Up);
        assert_eq!(outcome(with(&|url| url.virtualhost = other()), nginx.http), down(Failure::BadStatus(503)));
        assert_eq!(over_tls(false, nginx.https), Outcome::Up);
        assert_eq!(over_tls(true, nginx.https), Outcome::Up);
        assert_eq!(over_tls(false, nginx.http), refused);
    }
}

#[cfg(feature = "regex")]
#[test]
fn bodies_are_matched_without_their_chunks() {
    use lvs_health::{BodyPattern, RegexOptions};
    let chunked = serve(|mut stream| {
        let mut request = [0; 1024];
        let _ = stream.read(&mut request);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n");
        // Kept open: the last chunk is the end.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let mut url = Url::new("/");
    let pattern = |text| BodyPattern::new(text, RegexOptions::default()).unwrap();
    url.pattern = Some(pattern("^hello$"));
    assert_eq!(
        outcome(http(HttpConfig::new(vec![url.clone()])), chunked),
        Outcome::Up
    );
    url.pattern = Some(pattern("bye"));
    assert_eq!(
        outcome(http(HttpConfig::new(vec![url])), chunked),
        down(Failure::RegexMismatch)
    );
}

#[test]
fn tls_names_certificates_and_clients() {
    if skip_without("openssl") {
        return;
    }
    let dir = certificates();
    let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    let options = |identity: bool| {
        let mut options = DriverOptions::new(1);
        let tls = TlsSettings::new()
            .with_authorities(&read("ca.pem"))
            .unwrap();
        options.tls = match identity {
            true => tls
                .with_identity(&read("client.pem"), &read("client.key"))
                .unwrap(),
            false => tls,
        };
        options
    };
    let verified = |name: &str| {
        let tls = HttpTls {
            sni: Sni::Name(name.to_owned()),
            verify: true,
            ..HttpTls::default()
        };
        secure(page("/"), tls)
    };
    let any = || secure(page("/"), HttpTls::default());
    let ask =
        |identity, check, to| attempt_with(options(identity), check, ConnectOptions::to(to)).0;

    let good = support::tls_server(dir.path(), "server", &[]);
    assert_eq!(
        ask(false, verified("web.example"), good.address),
        Outcome::Up
    );
    let wrong_name = ask(false, verified("else.example"), good.address);
    assert!(
        matches!(&wrong_name, Outcome::Down(Failure::TlsVerify(text)) if text.contains("else.example")),
        "{wrong_name:?}"
    );
    let expired = support::tls_server(dir.path(), "expired", &[]);
    assert_eq!(
        ask(false, any(), expired.address),
        Outcome::Up,
        "keepalived does not verify"
    );
    let refused = ask(false, verified("web.example"), expired.address);
    assert!(
        matches!(&refused, Outcome::Down(Failure::TlsVerify(text)) if text.contains("expired")),
        "{refused:?}"
    );
    let stranger = support::tls_server(dir.path(), "self", &[]);
    assert_eq!(ask(false, any(), stranger.address), Outcome::Up);
    let refused = ask(false, verified("web.example"), stranger.address);
    assert!(
        matches!(&refused, Outcome::Down(Failure::TlsVerify(_))),
        "{refused:?}"
    );

    let ca = dir.path().join("ca.pem");
    let wants_client = [
        "-Verify",
        "1",
        "-verify_return_error",
        "-CAfile",
        ca.to_str().unwrap(),
    ];
    let strict = support::tls_server(dir.path(), "server", &wants_client);
    assert_eq!(ask(true, any(), strict.address), Outcome::Up);
    let without = ask(false, any(), strict.address);
    assert!(matches!(without, Outcome::Down(_)), "{without:?}");

    let mute = serve(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    assert_eq!(ask(false, any(), mute), down(Failure::ConnectTimeout));
    let closes = serve(drop);
    let closed = ask(false, any(), closes);
    assert!(
        matches!(
            closed,
            Outcome::Down(Failure::TlsHandshake(_) | Failure::ConnectReset)
        ),
        "{closed:?}"
    );
    let nobody = attempt_with(
        DriverOptions::new(1),
        verified("web.example"),
        ConnectOptions::to(good.address),
    )
    .0;
    assert!(
        matches!(nobody, Outcome::Down(Failure::TlsVerify(_))),
        "{nobody:?}"
    );

    let encrypted = TlsSettings::new().with_identity(
        &read("client.pem"),
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n",
    );
    assert!(encrypted.unwrap_err().to_string().contains("openssl pkey"));
    let not_its_key = TlsSettings::new().with_identity(&read("client.pem"), &read("server.key"));
    assert!(not_its_key.is_err());
}

#[test]
fn mail_servers() {
    let dialogue = |replies: &'static [&'static [u8]]| {
        serve(move |mut stream| {
            let mut said = [0; 256];
            for (at, reply) in replies.iter().enumerate() {
                if at > 0 && stream.read(&mut said).is_err() {
                    return;
                }
                let _ = stream.write_all(reply);
            }
            let _ = stream.read_to_end(&mut Vec::new());
        })
    };
    let good = dialogue(&[
        b"220-hi\r\n220 there\r\n",
        b"250-a\r\n250 b\r\n",
        b"221 bye\r\n",
    ]);
    assert_eq!(outcome(SmtpCheck::default(), good), Outcome::Up);
    let busy = dialogue(&[b"421 busy\r\n"]);
    assert_eq!(
        outcome(SmtpCheck::default(), busy),
        down(Failure::SmtpGreeting(421))
    );
    let mute = dialogue(&[b"220 hi\r\n"]);
    assert_eq!(
        outcome(SmtpCheck::default(), mute),
        down(Failure::ReadTimeout)
    );
    let closes = serve(|mut stream| {
        let _ = stream.write_all(b"220 hi\r\n");
        let mut said = [0; 256];
        let _ = stream.read(&mut said);
    });
    assert_eq!(
        outcome(SmtpCheck::default(), closes),
        down(Failure::ConnectionClosed)
    );
    if !skip_without("aiosmtpd") {
        let server = support::smtp_server();
        assert_eq!(outcome(SmtpCheck::default(), server.address), Outcome::Up);
    }
}

#[test]
fn name_servers() {
    let ask = |name: &str, to| outcome(DnsCheck::new(name, DnsType::A).unwrap(), to);
    let closed = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    assert_eq!(ask("web.example", closed), down(Failure::IcmpUnreachable));
    let garbage = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = garbage.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut query = [0; 512];
        let (length, from) = garbage.recv_from(&mut query).unwrap();
        garbage.send_to(b"junk", from).unwrap();
        query[2] |= 0x80;
        query[0] ^= 0xff;
        garbage.send_to(&query[..length], from).unwrap();
        query[0] ^= 0xff;
        garbage.send_to(&query[..length], from).unwrap();
    });
    assert_eq!(
        ask("web.example", address),
        Outcome::Up,
        "junk is waited past"
    );
    let mute = UdpSocket::bind("127.0.0.1:0").unwrap();
    assert_eq!(
        ask("web.example", mute.local_addr().unwrap()),
        down(Failure::ReadTimeout)
    );
    if !skip_without("dnsmasq") {
        let server = support::name_server();
        assert_eq!(ask("web.example", server.address), Outcome::Up);
        assert_eq!(
            ask("nowhere.example", server.address),
            down(Failure::DnsRcode(3))
        );
        assert_eq!(
            ask("refused.invalid", server.address),
            down(Failure::DnsRcode(5))
        );
    }
}

#[test]
fn datagrams_are_echoed_or_not() {
    let wants = |pattern: &str| {
        let pattern: UdpPattern = pattern.parse().unwrap();
        UdpCheck::new(UdpConfig {
            payload: "abc".into(),
            reply: Some(UdpReply::new(pattern)),
        })
    };
    let closed = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    assert_eq!(
        outcome(UdpCheck::new(UdpConfig::default()), closed),
        down(Failure::IcmpUnreachable)
    );
    let mute = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mute = mute.local_addr().map(|at| (mute, at)).unwrap();
    assert_eq!(
        outcome(UdpCheck::new(UdpConfig::default()), mute.1),
        Outcome::Up
    );
    assert_eq!(outcome(wants("61"), mute.1), down(Failure::UdpNoReply));
    if !skip_without("socat") {
        let echo = support::udp_echo();
        assert_eq!(outcome(wants("61x263"), echo.address), Outcome::Up);
        assert_eq!(
            outcome(wants("ff"), echo.address),
            down(Failure::UdpMismatch)
        );
    }
}

#[test]
fn loopback_answers_pings() {
    for to in ["127.0.0.1:0", "[::1]:0"] {
        match outcome(PingCheck::new(), to.parse().unwrap()) {
            Outcome::Up => {}
            Outcome::Down(Failure::LocalError(error)) => {
                println!("skipped: no ping sockets here ({error})");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn scripts_run_are_judged_and_are_stopped_with_all_they_started() {
    let dir = support::Dir::new("scripts");
    let script = |name: &str, text: &str| {
        let path = dir.path().join(name);
        support::write_program(&path, text);
        Script {
            program: path,
            arguments: vec!["one".into(), "two words".into()],
            user: None,
        }
    };
    let run = |script: Script, dynamic| {
        attempt(MiscCheck::new(script, dynamic), ([127, 0, 0, 1], 1).into())
    };
    let exits = |code: u8| script(&format!("exit{code}"), &format!("#!/bin/sh\nexit {code}\n"));
    let arguments = script(
        "arguments",
        "#!/bin/sh\n[ \"$#\" = 2 ] && [ \"$1\" = one ] && [ \"$2\" = 'two words' ]\n",
    );
    let own_group = script(
        "group",
        "#!/bin/sh\n[ \"$(ps -o pgid= -p $$ | tr -d ' ')\" = \"$$\" ]\n",
    );
    let descriptors = script(
        "fds",
        "#!/bin/sh\n[ \"$(ls /proc/self/fd | wc -l)\" -le 4 ]\n",
    );
    let killed = script("killed", "#!/bin/sh\nkill -9 $$\n");
    let plain = script("text", "[ \"$2\" = 'two words' ]\n");
    let no_ps = skip_without("ps");
    together! {
        assert_eq!(run(plain.clone(), false).0, Outcome::Up);
        assert_eq!(run(exits(0), false).0, Outcome::Up);
        assert_eq!(run(exits(3), false).0, down(Failure::ScriptExit(3)));
        assert_eq!(run(exits(4), true).0, Outcome::Up);
        assert_eq!(run(exits(1), true).0, down(Failure::ScriptExit(1)));
        assert_eq!(run(arguments.clone(), false).0, Outcome::Up);
        assert!(no_ps || run(own_group.clone(), false).0 == Outcome::Up);
        assert_eq!(run(descriptors.clone(), false).0, Outcome::Up);
        assert_eq!(run(killed.clone(), false).0, down(Failure::ScriptSignal(9)));
    }

    // The limit is 900 ms. A child that outlives its parent is ended too.
    let marker = dir.path().join("alive");
    let slow = script(
        "slow",
        &format!(
            "#!/bin/sh\n(sleep 3; touch {}) &\nsleep 100\n",
            marker.display()
        ),
    );
    let (outcome, took) = run(slow, false);
    assert_eq!(outcome, down(Failure::ScriptTimeout));
    assert!(
        took > Duration::from_millis(850) && took < Duration::from_millis(1500),
        "{took:?}"
    );
    let stubborn = script(
        "stubborn",
        "#!/bin/sh\ntrap '' TERM\nsleep 100 & wait; sleep 100\n",
    );
    let (outcome, took) = run(stubborn, false);
    assert_eq!(outcome, down(Failure::ScriptTimeout));
    assert!(
        took > Duration::from_millis(2800) && took < Duration::from_millis(4000),
        "{took:?}"
    );
    std::thread::sleep(Duration::from_millis(300));
    assert!(!marker.exists(), "what the script had started went on");

    let missing = Script {
        program: dir.path().join("missing"),
        arguments: Vec::new(),
        user: None,
    };
    let (outcome, _) = run(missing, false);
    assert!(
        matches!(&outcome, Outcome::Down(Failure::ScriptSpawn(e)) if e.errno() == Some(2)),
        "{outcome:?}"
    );
    let plain = dir.path().join("plain");
    std::fs::write(&plain, "#!/bin/sh\nexit 0\n").unwrap();
    let not_executable = Script {
        program: plain,
        arguments: Vec::new(),
        user: None,
    };
    let (outcome, _) = run(not_executable, true);
    assert!(
        matches!(&outcome, Outcome::Down(Failure::ScriptSpawn(e)) if e.errno() == Some(13)),
        "{outcome:?}"
    );
}

/// Ends scripts by what their name says, from a thread of its own.
#[derive(Debug)]
struct Actor;

#[derive(Debug)]
struct Played(Option<ScriptEnd>);

impl ScriptRunner for Actor {
    fn run(&mut self, script: &Script, end: ScriptEnd) -> Box<dyn RunningScript> {
        match script.program.to_str() {
            Some("good") => drop(std::thread::spawn(move || end.tell(Exit::Code(0)))),
            Some("slow") => return Box::new(Played(Some(end))),
            // Forgotten.
            _ => drop(end),
        }
        Box::new(Played(None))
    }
}

impl RunningScript for Played {
    fn terminate(&mut self) {
        if let Some(end) = self.0.take() {
            end.tell(Exit::Signal(15));
        }
    }
}

#[test]
fn scripts_can_be_run_by_somebody_else() {
    let run = |name: &str| {
        let script = Script {
            program: name.into(),
            arguments: Vec::new(),
            user: None,
        };
        let mut options = DriverOptions::new(1);
        options.script_runner = Some(Box::new(Actor));
        let connect = ConnectOptions::to(([127, 0, 0, 1], 1).into());
        attempt_with(options, MiscCheck::new(script, false), connect)
    };
    together! {
        assert_eq!(run("good").0, Outcome::Up);
        assert!(matches!(run("lost").0, Outcome::Down(Failure::ScriptSpawn(_))));
        {
            let (outcome, took) = run("slow");
            assert_eq!(outcome, down(Failure::ScriptTimeout));
            assert!(took >= Duration::from_millis(850), "{took:?}");
        };
    }
}

#[test]
fn many_scripts_wait_for_their_turn_and_leave_nothing() {
    let dir = support::Dir::new("turns");
    let log = dir.path().join("log");
    let program = dir.path().join("count");
    let text = format!(
        "#!/bin/sh\necho + >> {0}\nsleep 0.05\necho - >> {0}\n",
        log.display()
    );
    support::write_program(&program, &text);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut options = DriverOptions::new(1);
        options.scripts = 4;
        let mut driver = Driver::new(options).unwrap();
        let timing = Timing {
            warmup: Duration::ZERO,
            ..Timing::default()
        };
        for number in 0..40 {
            let script = Script {
                program: program.clone(),
                arguments: vec![number.to_string().into()],
                user: None,
            };
            let connect = ConnectOptions::to(([127, 0, 0, 1], 1).into());
            let checker =
                CheckerConfig::new(MiscCheck::new(script, false), connect, timing.clone());
            driver.add_server(ServerConfig::new(vec![checker]));
        }
        for _ in 0..40 {
            let event = tokio::time::timeout(Duration::from_secs(20), driver.next_event()).await;
            assert!(matches!(event, Ok(Event::CheckerUp { .. })), "{event:?}");
        }
    });
    let (mut running, mut most) = (0i32, 0);
    for line in std::fs::read_to_string(log).unwrap().lines() {
        running += if line == "+" { 1 } else { -1 };
        most = most.max(running);
    }
    assert!(most <= 4, "{most} at once");
    assert_eq!(zombies(), 0);
}

#[test]
fn driver_goes_on_where_a_dropped_future_was() {
    let server = serve(|mut stream| {
        let mut request = [0; 1024];
        let _ = stream.read(&mut request);
        std::thread::sleep(Duration::from_millis(100));
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello");
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let event = runtime.block_on(async {
        let mut driver = Driver::new(DriverOptions::new(1)).unwrap();
        let timing = Timing {
            warmup: Duration::ZERO,
            alpha: true,
            ..Timing::default()
        };
        let passive = PassiveCheck::new(1, Duration::from_secs(1));
        let connect = ConnectOptions::to(server);
        let checkers = vec![
            CheckerConfig::new(http(page("/")), connect.clone(), timing.clone()),
            CheckerConfig::new(passive, connect, Timing::default()),
        ];
        let id = driver.add_server(ServerConfig::new(checkers));
        let limit = Instant::now() + Duration::from_secs(10);
        loop {
            assert!(Instant::now() < limit);
            tokio::select! {
                event = driver.next_event() => match event {
                    Event::CheckerUp { .. } => driver.report(id, down(Failure::ConnectRefused)).unwrap(),
                    Event::ServerDown { failure, .. } => break failure,
                    _ => {}
                },
                () = tokio::time::sleep(Duration::from_millis(3)) => {}
            }
        }
    });
    assert_eq!(event, Failure::Passive(1));
}

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Children of this process that nobody has waited for.
fn zombies() -> usize {
    let me = std::process::id().to_string();
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let stats = all.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    let is_mine = |stat: &String| {
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or("")
            .split_whitespace()
            .collect();
        fields.first() == Some(&"Z") && fields.get(1) == Some(&me.as_str())
    };
    stats.filter(is_mine).count()
}

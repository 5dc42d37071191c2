//! Ten thousand checks in one thread: what a check costs, how much memory they take, how late they begin.
//!
//! `cargo run --release -p lvs-benches --bin health` checks 10 000 servers by TCP every 5 s, a thousand by HTTP and 250 by
//! TLS, each at an address of its own on loopback, and prints processor time of this process per check, user and kernel
//! apart. The servers are other processes. `--quick` is a tenth of that for 5 s, to see that it still runs. With an
//! argument `tcp` there are TCP checks only, for a comparison with other checkers.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lvs_health::{
    Checker, CheckerConfig, ConnectOptions, Driver, DriverOptions, Event, HttpCheck, HttpConfig,
    HttpTls, ServerConfig, TcpCheck, Timing, Url,
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("serve") => serve(),
        first => {
            let quick = arguments.iter().any(|argument| argument == "--quick");
            if let Err(error) = measure(quick, first == Some("tcp")) {
                eprintln!("{error}");
                std::process::exit(1);
            }
        }
    }
}

fn measure(quick: bool, only_tcp: bool) -> std::io::Result<()> {
    match netlab::enter() {
        Ok(_) => {
            let namespace = netlab::Namespace::new("checks")?;
            namespace.run(|| run(quick, only_tcp))
        }
        // Loopback will do: nothing is left there.
        Err(_) => run(quick, only_tcp),
    }
}

fn run(quick: bool, only_tcp: bool) -> std::io::Result<()> {
    let scale = if quick { 10 } else { 1 };
    let window = Duration::from_secs(if quick { 5 } else { 30 });
    let _servers = Servers::start(only_tcp)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut driver = Driver::new(DriverOptions::new(1))?;
        let mut number = 0;
        let mut add = |count: u32, port: u16, checker: &dyn Fn() -> Box<dyn Checker>| {
            for _ in 0..count {
                number += 1;
                let [_, high, middle, low] = u32::to_be_bytes(number);
                let address = Ipv4Addr::new(127, 1 + high, middle, low);
                let config = CheckerConfig {
                    checker: checker(),
                    connect: ConnectOptions::to(SocketAddr::from((address, port))),
                    timing: Timing {
                        delay_loop: INTERVAL,
                        warmup: INTERVAL,
                        ..Timing::default()
                    },
                    share: false,
                };
                driver.add_server(ServerConfig::new(vec![config]));
            }
        };
        add(10_000 / scale, TCP, &|| Box::new(TcpCheck));
        if !only_tcp {
            let page = |tls: Option<HttpTls>| {
                let config = HttpConfig {
                    tls,
                    ..HttpConfig::new(vec![Url::new("/")])
                };
                Box::new(HttpCheck::new(config).expect("it has a url and a path"))
            };
            add(1000 / scale, HTTP, &|| page(None));
            add(250 / scale, TLS, &|| page(Some(HttpTls::default())));
        }
        // The first attempts are spread over a second and an interval.
        let mut down = drive(&mut driver, INTERVAL + Duration::from_secs(2)).await;
        driver.take_lateness();
        let before = (processor_time(), driver.monitor().attempts());
        down += drive(&mut driver, window).await;
        let after = (processor_time(), driver.monitor().attempts());
        let attempts = after.1 - before.1;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / attempts as f64;
        let user = after.0.0 - before.0.0;
        let kernel = after.0.1 - before.0.1;
        println!(
            "{attempts} attempts in {} s: {:.1} us of user time each, {:.1} us in the kernel; {:.1} % of a processor",
            window.as_secs(),
            each(user),
            each(kernel),
            (user + kernel).as_secs_f64() / window.as_secs_f64() * 100.0
        );
        println!(
            "latest {:.1} ms after its time; {} MiB at most; {down} times a server was down",
            driver.take_lateness().as_secs_f64() * 1000.0,
            peak_memory() / 1024
        );
        Ok(())
    })
}

/// How many servers went down meanwhile.
async fn drive(driver: &mut Driver, time: Duration) -> u32 {
    let end = Instant::now() + time;
    let mut down = 0;
    while let Ok(event) = tokio::time::timeout_at(end.into(), driver.next_event()).await {
        down += u32::from(matches!(event, Event::ServerDown { .. }));
    }
    down
}

/// The other side, in processes of its own.
struct Servers(Vec<Child>);

impl Servers {
    fn start(only_tcp: bool) -> std::io::Result<Self> {
        let mut servers = Self(Vec::new());
        servers.0.push(
            Command::new(std::env::current_exe()?)
                .arg("serve")
                .stdin(Stdio::null())
                .spawn()?,
        );
        if !only_tcp {
            let directory = std::env::temp_dir().join(format!("lvs-checks-{}", std::process::id()));
            std::fs::create_dir_all(&directory)?;
            let openssl = |arguments: &str| {
                Command::new("openssl")
                    .args(arguments.split(' '))
                    .current_dir(&directory)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
            };
            openssl(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key -out cert -subj /CN=x",
            )?
            .wait()?;
            let server = openssl(&format!(
                "s_server -quiet -www -accept 0.0.0.0:{TLS} -cert cert -key key"
            ))?;
            servers.0.push(server);
            std::thread::sleep(Duration::from_millis(500));
            std::fs::remove_dir_all(&directory)?;
        }
        std::thread::sleep(Duration::from_millis(500));
        Ok(servers)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for server in &mut self.0 {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// Accepts without end; what is said on the port for HTTP is answered.
fn serve() {
    let listen = |port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("the port is free");
    let (tcp, http) = (listen(TCP), listen(HTTP));
    std::thread::spawn(move || {
        for mut stream in http.incoming().flatten() {
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        }
    });
    for stream in tcp.incoming() {
        drop(stream);
    }
}

/// User and kernel time of this process.
fn processor_time() -> (Duration, Duration) {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|field| field.parse().ok())
            .unwrap_or(0)
    };
    let time = |at| Duration::from_millis(10 * ticks(at));
    (time(11), time(12))
}

/// In KiB.
fn peak_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("VmHWM:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}

const INTERVAL: Duration = Duration::from_secs(5);
const TCP: u16 = 18_000;
const HTTP: u16 = 18_001;
const TLS: u16 = 18_002;

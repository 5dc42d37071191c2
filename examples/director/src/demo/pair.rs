//! The set-up `ha-pair`: two directors share an address, and one of them dies.

use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::thread;
use std::time::{Duration, Instant};

use netlab::{Bridge, HttpServer, Namespace};

use super::setup::{RealServer, holds_any, remove_state};
use super::{Running, Style};

/// The name of its directory.
pub(super) const NAME: &str = "ha-pair";

/// Shows it; returns how many things were not as they should be.
pub(super) fn show(workers: NonZeroU32) -> io::Result<u32> {
    let outcome = Show::new(workers).and_then(Show::run);
    remove_state();
    outcome
}

struct Show {
    style: Style,
    client: Namespace,
    workers: NonZeroU32,
    directors: [Host; 2],
    _switch: Namespace,
    _web: Vec<HttpServer>,
    _realservers: Vec<RealServer>,
    wrong: u32,
}

/// A director's host.
struct Host {
    name: &'static str,
    namespace: Namespace,
    process: Option<Running>,
}

impl Show {
    fn new(workers: NonZeroU32) -> io::Result<Self> {
        let style = Style::of_output();
        style.heading("HA pair: two directors share an address");
        let [client, switch] = ["client", "switch"].map(Namespace::new);
        let (client, switch) = (client?, switch?);
        let lan = Bridge::new(&switch, "lan")?;
        lan.attach(&client, "eth0", "10.65.32.100/23")?;
        let host = |name: &'static str, address| {
            let namespace = Namespace::new(name)?;
            lan.attach(&namespace, "bond0", address)?;
            Ok::<_, io::Error>(Host {
                name,
                namespace,
                process: None,
            })
        };
        let directors = [host("one", "10.65.32.1/23")?, host("two", "10.65.32.2/23")?];
        say!("{TOPOLOGY}");
        style.dim(CONFIG.trim_end());
        let (mut web, mut realservers) = (Vec::new(), Vec::new());
        for (name, address) in SERVERS {
            let namespace = Namespace::new(name)?;
            lan.attach(&namespace, "eth0", address)?;
            realservers.push(RealServer::start(&namespace, "dr", VIP)?);
            let any = SocketAddr::from(([0, 0, 0, 0], 80));
            web.push(HttpServer::start(&namespace, any, name)?);
        }
        Ok(Self {
            style,
            client,
            workers,
            directors,
            _switch: switch,
            _web: web,
            _realservers: realservers,
            wrong: 0,
        })
    }

    fn run(mut self) -> io::Result<u32> {
        self.start(0)?;
        self.start(1)?;
        let alone = self.wait_for((true, false), Duration::from_secs(10))?;
        self.expect(alone.is_some(), "the better one becomes active");
        self.wait_for_answer(Instant::now());
        self.requests();

        self.style.heading("kill -9 of `one`");
        let killed = Instant::now();
        self.directors[0].process = None;
        let silence = self.wait_for_answer(killed);
        say!("  answered again after {:.2} s", silence.as_secs_f32());
        // Three intervals and the skew time of priority 100.
        self.expect(
            silence < Duration::from_millis(3609 + 500),
            "the standby serves when its patience is over",
        );
        self.requests();

        self.style.heading("`one` returns, and becomes the standby");
        self.start(0)?;
        let settled = self.wait_for((false, true), Duration::from_secs(5))?;
        self.expect(
            settled.is_some(),
            "what the killed one had left is taken away",
        );
        // Longer than it would wait for an active one that is silent.
        thread::sleep(Duration::from_secs(4));
        self.expect(
            self.holders()? == (false, true),
            "nopreempt: the active one stays",
        );
        self.requests();

        self.style.heading("SIGTERM to `two`");
        let stopped = Instant::now();
        let ended = match self.directors[1].process.take() {
            Some(mut process) => process.terminate(Duration::from_secs(5)),
            None => false,
        };
        self.expect(ended, "the director ends cleanly");
        let silence = self.wait_for_answer(stopped);
        say!("  answered again after {:.2} s", silence.as_secs_f32());
        self.expect(
            silence < Duration::from_secs(1),
            "a clean stop moves the address within a second",
        );
        self.expect(
            self.holders()? == (true, false),
            "exactly one has the address",
        );
        self.requests();
        if self.wrong == 0 {
            self.style.good("everything was as it should be");
        }
        Ok(self.wrong)
    }

    fn start(&mut self, at: usize) -> io::Result<()> {
        let host = &mut self.directors[at];
        let more = ["-i", host.name];
        let process = Running::start(&host.namespace, self.workers, self.style, CONFIG, &more)?;
        host.process = Some(process);
        Ok(())
    }

    /// Who has the address.
    fn holders(&self) -> io::Result<(bool, bool)> {
        let vip: IpAddr = VIP.parse().map_err(io::Error::other)?;
        let [one, two] = &self.directors;
        let has = |host: &Host| holds_any(&host.namespace, &[vip]);
        Ok((has(one)?, has(two)?))
    }

    /// How long it took until exactly these have the address; `None` if it did not happen.
    fn wait_for(&self, holders: (bool, bool), patience: Duration) -> io::Result<Option<Duration>> {
        let started = Instant::now();
        while started.elapsed() < patience {
            if self.holders()? == holders {
                return Ok(Some(started.elapsed()));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(None)
    }

    /// Asks until there is an answer: how long after this instant it came.
    fn wait_for_answer(&self, since: Instant) -> Duration {
        let patience = Duration::from_millis(100);
        while since.elapsed() < Duration::from_secs(10) && self.ask(patience).is_err() {
            thread::sleep(Duration::from_millis(5));
        }
        since.elapsed()
    }

    fn ask(&self, patience: Duration) -> io::Result<String> {
        let vip = SocketAddr::new(VIP.parse().map_err(io::Error::other)?, 80);
        let response = self.client.http_get(vip, "/", patience)?;
        Ok(response.server)
    }

    /// Requests one after the other: servers must take turns.
    fn requests(&mut self) {
        // The director that has taken over checks its servers too.
        let end = Instant::now() + Duration::from_secs(5);
        let mut answers: Vec<String> = Vec::new();
        while Instant::now() < end {
            let asked = (0..REQUESTS).map(|_| self.ask(Duration::from_secs(3)));
            answers = asked.filter_map(Result::ok).collect();
            if answers.windows(2).all(|pair| pair[0] != pair[1]) {
                break;
            }
        }
        say!("  {REQUESTS} requests: {}", answers.join(" "));
        self.expect(answers.len() == REQUESTS, "every request was answered");
        let alternate = answers.windows(2).all(|pair| pair[0] != pair[1]);
        self.expect(alternate, "the servers take turns");
    }

    fn expect(&mut self, holds: bool, what: &str) {
        if !holds {
            self.wrong += 1;
            self.style.bad(&format!("not so: {what}"));
        }
    }
}

const VIP: &str = "10.65.33.139";

const REQUESTS: usize = 10;

const SERVERS: [(&str, &str); 2] = [("web1", "10.65.32.13/23"), ("web2", "10.65.32.14/23")];

const CONFIG: &str = include_str!("../../setups/ha-pair/keepalived.conf");

const TOPOLOGY: &str = "
  client 10.65.32.100 ─┬─ one 10.65.32.1, priority 150 ┐
                       ├─ two 10.65.32.2, priority 100 ┴ VIP 10.65.33.139
                       └─ web1 10.65.32.13, web2 10.65.32.14
";

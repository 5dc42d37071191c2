//! A recorded scenario: who was configured how, and what happened to them.

use crate::common;
use crate::lan::{Host, Station, Tap};
use crate::observed::Observed;
use lvs_vrrp::{
    Authentication, ChecksumSend, Config, Family, GroupConfig, Interval, Member, Preemption,
    Priority, Reach, ScriptConfig, Setup, Tracked, TrackedObject, Version, VirtualAddress,
    VirtualRouter, Vrid,
};
use sim::{Conditions, Network, Port};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// A scenario, ready to be played.
pub(crate) struct Scenario {
    pub(crate) name: String,
    /// Has a second capture, of LAN 1.
    pub(crate) second_lan: bool,
    setups: BTreeMap<char, Setup>,
    actions: Vec<(Duration, Action)>,
    /// Recorded advertisements of LAN 0: when, of whom, which of them.
    beats: Vec<(Duration, char, u8, usize)>,
    forwarding: bool,
}

#[derive(Clone, Debug)]
enum Action {
    Start(char),
    Crash(char),
    Stop(char),
    Reload(char),
    Link(char, String, bool),
    Part(char, bool),
    File(char, i32),
    Flag(char, bool),
    Remove(char),
    Inject(Vec<u8>),
}

/// All scenarios of the index.
pub(crate) fn all(folder: &Path) -> Vec<Scenario> {
    let index = common::table(&folder.join("index.tsv"));
    let timelines = common::table(&folder.join("timelines.tsv"));
    let frames = common::table(&folder.join("frames.tsv"));
    let names: Vec<_> = index
        .iter()
        .map(|row| row[0].trim_end_matches(".pcap").to_owned())
        .collect();
    index
        .iter()
        .filter(|row| !row[0].ends_with("-lan1.pcap"))
        .map(|row| {
            let name = row[0].trim_end_matches(".pcap");
            let second_lan = names.contains(&format!("{name}-lan1"));
            Scenario::read(folder, name, &row[2], second_lan, &timelines, &frames)
        })
        .collect()
}

impl Scenario {
    fn read(
        folder: &Path,
        name: &str,
        nodes: &str,
        second_lan: bool,
        timelines: &[Vec<String>],
        frames: &[Vec<String>],
    ) -> Self {
        let setups = nodes
            .split(" || ")
            .map(|node| {
                let (letter, text) = node.split_once(": ").unwrap();
                (letter.chars().next().unwrap(), setup(text))
            })
            .collect();
        let setups: BTreeMap<char, Setup> = setups;
        let rows: Vec<_> = timelines.iter().filter(|row| row[0] == name).collect();
        let wire: Vec<(Duration, char, u8, u8)> = frames
            .iter()
            .filter(|row| {
                row[4] == "advert"
                    && row[0].trim_end_matches(".pcap").trim_end_matches("-lan1") == name
            })
            .map(|row| {
                let node = row[3].chars().next().unwrap();
                let number = |at: usize| row[at].parse().unwrap();
                (millis(&row[2]), node, number(13), number(12))
            })
            .collect();
        let own_adverts = |node: char| {
            let own = wire.iter().filter(move |(_, sender, ..)| *sender == node);
            own.map(|(at, _, priority, _)| (*at, *priority))
        };
        let mut actions = Vec::new();
        let mut forwarding = false;
        for row in &rows {
            let time = millis(&row[1]);
            let node = row[2].chars().next().unwrap_or(' ');
            let action = match (row[3].as_str(), row[5].as_str(), row[6].as_str()) {
                ("program", "STATE", "STOPPING") => {
                    // What a program says is read late: its last word on the wire is not.
                    let near = own_adverts(node)
                        .find(|(at, priority)| *priority == 0 && at.abs_diff(time) < NEAR);
                    let time = near.map_or(time, |(at, _)| at - SHORTLY);
                    actions.push((time, Action::Stop(node)));
                    continue;
                }
                ("action", "process", "started") => {
                    // Its timers begin some time later; its first advertisement shows when.
                    let mut later = wire.iter().filter(|(at, ..)| *at > time);
                    let first = later.find(|(_, sender, ..)| *sender == node);
                    let begun = first
                        .and_then(|(at, _, _, vrid)| {
                            at.checked_sub(waits_at_start(&setups, node, *vrid))
                        })
                        .filter(|begun| (time..time + NEAR).contains(begun));
                    let time = begun.unwrap_or(time + Duration::from_millis(35));
                    actions.push((time, Action::Start(node)));
                    continue;
                }
                ("action", "process", text) if text.starts_with("SIGKILL") => Action::Crash(node),
                ("action", "process", text) if text.starts_with("SIGHUP") => {
                    actions.push((time + Duration::from_millis(5), Action::Reload(node)));
                    continue;
                }
                ("action", "link", text) => {
                    let (interface, up) = text.split_once(" set ").unwrap();
                    Action::Link(node, interface.to_owned(), up == "up")
                }
                ("action", "lan", text) => {
                    let node = text.strip_prefix("node ").unwrap().chars().next().unwrap();
                    Action::Part(node, text.contains("cut off"))
                }
                ("action", "tracked file", text) => {
                    let number = text.strip_prefix("set to '").unwrap();
                    Action::File(node, number.trim_end_matches('\'').parse().unwrap())
                }
                ("action", "flag file", text) => Action::Flag(node, text == "created"),
                ("action", "address", _) => Action::Remove(node),
                ("action", "sysctl", _) => {
                    forwarding = true;
                    continue;
                }
                _ => continue,
            };
            // One more beat may pass before a program looks at what was done to it.
            let soon = own_adverts(node).find(|(at, _)| *at > time && *at < time + SOON);
            let before = own_adverts(node).rfind(|(at, _)| *at <= time);
            let unmoved =
                soon.filter(|(_, priority)| before.is_some_and(|(_, old)| old == *priority));
            let time = match (&action, unmoved) {
                (Action::Link(..) | Action::File(..), Some((at, _))) => at + SHORTLY,
                _ => time,
            };
            actions.push((time, action));
        }
        let capture = common::pcap(&folder.join(format!("{name}.pcap")));
        let mut beats = Vec::new();
        let mut counts = BTreeMap::new();
        for row in frames {
            if row[0] != format!("{name}.pcap") || row[4] != "advert" {
                continue;
            }
            let (node, vrid) = (row[3].chars().next().unwrap(), row[12].parse().unwrap());
            if node == 'c' {
                let number: usize = row[1].parse().unwrap();
                actions.push((millis(&row[2]), Action::Inject(capture[number - 1].clone())));
            } else {
                let count: &mut usize = counts.entry((node, vrid)).or_default();
                *count += 1;
                beats.push((millis(&row[2]), node, vrid, *count));
            }
        }
        actions.sort_by_key(|(time, _)| *time);
        // Refused frames put off the recorded program's own, so its beats are no measure there.
        if actions
            .iter()
            .any(|(_, action)| matches!(action, Action::Inject(_)))
        {
            beats.clear();
        }
        Self {
            name: name.to_owned(),
            second_lan,
            setups,
            actions,
            beats,
            forwarding,
        }
    }

    /// Plays it.
    pub(crate) fn play(&self) -> Observed {
        let mut network = Network::new(0);
        let conditions = Conditions {
            delay: Duration::from_micros(50),
            ..Conditions::default()
        };
        let lans = [network.add_lan(conditions), network.add_lan(conditions)];
        let mut stations: Vec<Station> = Vec::new();
        let mut places: BTreeMap<char, usize> = BTreeMap::new();
        for name in self.setups.keys() {
            let mut host = Host::new(&mut network, *name, &lans);
            host.forwarding = self.forwarding;
            if self.name == "v2-owner-vip-is-only-address" && *name == 'a' {
                // Its only address is the virtual one.
                host.interfaces[0].addresses.truncate(1);
            }
            places.insert(*name, stations.len());
            stations.push(Station::Host(Box::new(host)));
        }
        let injector: Port = network.attach(lans[0]);
        for lan in lans {
            let port = network.attach(lan);
            stations.push(Station::Tap(Tap {
                port,
                frames: Vec::new(),
            }));
        }
        let mut reloads: BTreeMap<char, usize> = BTreeMap::new();
        let mut moments = vec![(Duration::ZERO, Duration::ZERO)];
        for (time, action) in &self.actions {
            self.wait(&mut network, &mut stations, *time, *moments.last().unwrap());
            moments.push((*time, network.elapsed()));
            let now = network.now();
            let host = |name: &char| places[name];
            match action {
                Action::Start(name) => {
                    let setup = self.setup(*name, *reloads.entry(*name).or_default());
                    let at = host(name);
                    stations[at].host().unwrap().start(now, setup);
                }
                Action::Reload(name) => {
                    let turn = reloads.entry(*name).or_default();
                    *turn += 1;
                    let setup = self.setup(*name, *turn);
                    let at = host(name);
                    stations[at].host().unwrap().reload(now, setup);
                }
                Action::Crash(name) => stations[host(name)].host().unwrap().crash(),
                Action::Stop(name) => stations[host(name)].host().unwrap().stop(now),
                Action::Link(name, interface, up) => {
                    let at = host(name);
                    let host = stations[at].host().unwrap();
                    host.set_link(now, &mut network, interface, *up);
                }
                Action::Part(name, cut) => {
                    let at = host(name);
                    let port = stations[at].host().unwrap().interfaces[0].port;
                    network.set_side(port, u32::from(*cut));
                }
                Action::File(name, number) => {
                    stations[host(name)]
                        .host()
                        .unwrap()
                        .set_file(now, "tf", *number);
                }
                Action::Flag(name, fails) => {
                    stations[host(name)].host().unwrap().scripts_fail = *fails;
                }
                Action::Remove(name) => {
                    let at = host(name);
                    let address = self.setups[name].virtual_routers[0].config.addresses[0].clone();
                    stations[at].host().unwrap().remove_address(now, &address);
                }
                Action::Inject(frame) => network.send(injector, frame),
            }
        }
        network.run(&mut stations, Duration::from_millis(200));
        Observed::played(&network, &stations, &moments)
    }

    /// Lets time pass until something was done to the recorded nodes: as long after the same advertisement as it was then. The
    /// recorded program's beat drifts by some milliseconds each time, and here it does not; but what was heard before must have
    /// been heard, and what was not must not.
    fn wait(
        &self,
        network: &mut Network,
        stations: &mut [Station],
        time: Duration,
        (then, done): (Duration, Duration),
    ) {
        let due = network.at(done + (time - then));
        let beat = self.beats.iter().rev().find(|(at, ..)| *at < time);
        if let Some((at, node, vrid, number)) = beat.filter(|(at, ..)| *at > then) {
            let patience = due + Duration::from_millis(300);
            let mut frames = usize::MAX;
            while network.now() < patience {
                let seen = crate::observed::seen(stations);
                let heard = if seen == frames {
                    None
                } else {
                    crate::observed::beat(stations, *node, *vrid, *number)
                };
                frames = seen;
                if let Some(heard) = heard {
                    let due = heard + (time - *at);
                    let wait = due.saturating_duration_since(network.now());
                    network.run(stations, wait);
                    return;
                }
                network.run(stations, Duration::from_millis(1));
            }
            return;
        }
        let wait = due.saturating_duration_since(network.now());
        network.run(stations, wait);
    }

    /// The configuration of a node after so many reloads. The index has the last one.
    fn setup(&self, name: char, reloads: usize) -> Setup {
        let mut setup = self.setups[&name].clone();
        let config = &mut setup.virtual_routers[0].config;
        let vips = |list: &[&str]| -> Vec<VirtualAddress> {
            list.iter().map(|each| vip(each, "e0")).collect()
        };
        match (self.name.as_str(), name, reloads) {
            ("v2-reload-add-vip", 'a', 0) => config.addresses = vips(&["192.0.2.100"]),
            ("v2-reload-lower-priority", 'a', 0) => config.priority = Priority::new(150).unwrap(),
            ("v2-reload-lower-priority", 'a', 1) => config.priority = Priority::new(80).unwrap(),
            ("v2-skip-check-adv-addr", 'a', 0) => config.addresses = vips(&["192.0.2.100"]),
            ("v2-skip-check-adv-addr", 'a', 1) => {
                config.addresses = vips(&["192.0.2.100", "192.0.2.101"]);
            }
            _ => {}
        }
        setup
    }
}

/// How long a node waits before its first advertisement if nobody stops it.
fn waits_at_start(setups: &BTreeMap<char, Setup>, node: char, vrid: u8) -> Duration {
    let setup = &setups[&node];
    let mut members = setup.virtual_routers.iter();
    let member = members.find(|member| member.config.vrid.get() == vrid);
    let config = &member.unwrap_or(&setup.virtual_routers[0]).config;
    if config.priority.is_owner() {
        return Duration::from_millis(2);
    }
    let router = VirtualRouter::new(config.clone()).unwrap();
    router.active_down_time() + config.startup_delay + SHORTLY
}

/// How late a program is read or begins.
const NEAR: Duration = Duration::from_millis(900);
/// Within this time it looks at what was done to it.
const SOON: Duration = Duration::from_millis(40);
const SHORTLY: Duration = Duration::from_millis(1);

pub(crate) fn millis(text: &str) -> Duration {
    Duration::from_secs_f64(text.parse::<f64>().unwrap() / 1000.0)
}

/// A word, or words in braces.
#[derive(Debug)]
enum Token {
    Word(String),
    Block(Vec<Self>),
}

fn tokens(words: &mut std::vec::IntoIter<String>) -> Vec<Token> {
    let mut list = Vec::new();
    while let Some(word) = words.next() {
        match word.as_str() {
            "{" => list.push(Token::Block(tokens(words))),
            "}" => break,
            _ => list.push(Token::Word(word)),
        }
    }
    list
}

/// Splits at blanks outside of quotes.
fn words(text: &str) -> Vec<String> {
    let mut list = vec![String::new()];
    let mut quoted = false;
    for letter in text.chars() {
        match letter {
            '"' => quoted = !quoted,
            ' ' if !quoted => list.push(String::new()),
            _ => list.last_mut().unwrap().push(letter),
        }
    }
    list
}

/// A cursor over the tokens of a block.
struct Reader<'a>(std::slice::Iter<'a, Token>);

impl<'a> Reader<'a> {
    fn word(&mut self) -> Option<&'a str> {
        match self.0.next()? {
            Token::Word(word) => Some(word),
            Token::Block(_) => panic!("a word expected"),
        }
    }

    fn block(&mut self) -> Self {
        match self.0.next() {
            Some(Token::Block(tokens)) => Reader(tokens.iter()),
            other => panic!("a block expected: {other:?}"),
        }
    }

    fn number<T: std::str::FromStr>(&mut self) -> T {
        self.word().unwrap().parse().ok().unwrap()
    }

    fn flag(&mut self) -> bool {
        self.word() == Some("true")
    }

    fn seconds(&mut self) -> Duration {
        Duration::from_secs_f64(self.number())
    }
}

/// The index's shortened keepalived.conf of one node.
fn setup(text: &str) -> Setup {
    let list = tokens(&mut words(text).into_iter());
    let mut reader = Reader(list.iter());
    let mut setup = Setup::default();
    let mut strict = false;
    let mut delay = Duration::ZERO;
    while let Some(word) = reader.word() {
        match word {
            "global_defs" => {
                let mut block = reader.block();
                while let Some(token) = block.0.next() {
                    let Token::Word(word) = token else { continue };
                    match word.as_str() {
                        "vrrp_strict" => strict = true,
                        "vrrp_startup_delay" => delay = block.seconds(),
                        "vrrp_garp_interval" => setup.pacing.arp = block.seconds(),
                        "vrrp_gna_interval" => setup.pacing.na = block.seconds(),
                        _ => {}
                    }
                }
            }
            "vrrp_script" => {
                let mut script = ScriptConfig::new(reader.word().unwrap());
                let mut block = reader.block();
                while let Some(word) = block.word() {
                    match word {
                        "interval" => script.interval = block.seconds(),
                        "fall" => script.fall = block.number(),
                        "rise" => script.rise = block.number(),
                        "weight" => {
                            let weight: i16 = block.number();
                            WEIGHT.with(|cell| cell.set(weight));
                        }
                        _ => {
                            block.word();
                        }
                    }
                }
                setup.scripts.push(script);
            }
            "track_file" => {
                reader.word();
                reader.block();
            }
            "vrrp_sync_group" => {
                let name = reader.word().unwrap().into();
                let mut block = reader.block();
                assert_eq!(block.word(), Some("group"));
                let mut members = block.block();
                setup.groups.push(GroupConfig {
                    name,
                    members: std::iter::from_fn(|| members.word().map(Into::into)).collect(),
                    track: Vec::new(),
                    member_weights: false,
                });
            }
            "instance" => {
                let name = reader.word().unwrap();
                let member = instance(name, reader.block(), strict, delay);
                setup.virtual_routers.push(member);
            }
            other => panic!("{other}"),
        }
    }
    setup
}

thread_local! {
    /// The weight of the one script that a scenario has.
    static WEIGHT: std::cell::Cell<i16> = const { std::cell::Cell::new(0) };
}

fn vip(text: &str, interface: &str) -> VirtualAddress {
    VirtualAddress {
        address: text.split('/').next().unwrap().parse().unwrap(),
        interface: interface.into(),
    }
}

fn instance(name: &str, mut block: Reader<'_>, strict: bool, delay: Duration) -> Member {
    let mut interface = "e0";
    let mut config = Config::new(Vrid::new(1).unwrap(), Family::V4, interface);
    // What keepalived does by default and this crate does better.
    config.answer_higher = false;
    config.announcements.after_rival = false;
    config.restore_removed = false;
    config.startup_delay = delay;
    let mut track = Vec::new();
    let mut seconds = 1.0_f64;
    while let Some(word) = block.word() {
        match word {
            "state" => {
                block.word();
            }
            "if" => interface = block.word().unwrap(),
            "vrid" => config.vrid = Vrid::new(block.number()).unwrap(),
            "version" => config.version = Version::new(block.number()).unwrap(),
            "priority" => config.priority = Priority::new(block.number()).unwrap(),
            "adv" => seconds = block.number(),
            "vips" => {
                let mut list = block.block();
                while let Some(word) = list.word() {
                    config.addresses.push(vip(word, interface));
                }
            }
            "excluded_vips" => {
                let mut list = block.block();
                while let Some(word) = list.word() {
                    if word == "dev" {
                        let device = list.word().unwrap();
                        config.excluded.last_mut().unwrap().interface = device.into();
                    } else {
                        config.excluded.push(vip(word, interface));
                    }
                }
            }
            "auth" => {
                let mut list = block.block();
                let (_, kind) = (list.word(), list.word().unwrap());
                let (_, pass) = (list.word(), list.word().unwrap());
                let padded = Authentication::pad(pass.as_bytes()).unwrap();
                config.authentication = match kind {
                    "AH" => Authentication::Header(padded),
                    _ => Authentication::Password(padded),
                };
            }
            "nopreempt" => config.preemption = Preemption::Off,
            "preempt_delay" => config.preemption = Preemption::After(block.seconds()),
            "garp_master_delay" => {
                config.announcements.delay = block.seconds();
                config.announcements.lower_priority_delay = config.announcements.delay;
            }
            "garp_master_repeat" => {
                config.announcements.repeat = block.number();
                config.announcements.lower_priority_repeat = config.announcements.repeat;
            }
            "garp_master_refresh" => config.announcements.refresh = block.seconds(),
            "garp_master_refresh_repeat" => config.announcements.refresh_repeat = block.number(),
            "higher_prio_send_advert" => config.answer_higher = block.flag(),
            "notify_priority_changes" => {
                block.flag();
            }
            "skip_check_adv_addr" => config.skip_known_addresses = true,
            "old_unicast_checksum" => config.checksum = ChecksumSend::GroupPseudoHeader,
            "use_vmac" | "vmac_xmit_base" => {}
            "virtual_routes" | "virtual_rules" => {
                block.block();
            }
            "unicast_src_ip" => {
                block.word();
            }
            "unicast_peer" => {
                let mut list = block.block();
                let peers = std::iter::from_fn(|| list.word());
                config.reach = Reach::Unicast {
                    peers: peers
                        .map(|peer| peer.parse::<IpAddr>().unwrap().into())
                        .collect(),
                    ttl: None,
                    check_source: false,
                };
            }
            "track_interface" => {
                let mut list = block.block();
                while let Some(word) = list.word() {
                    if word == "weight" {
                        let last: &mut Tracked = track.last_mut().unwrap();
                        last.weight = list.number();
                    } else {
                        track.push(Tracked::fault(TrackedObject::Interface(word.into())));
                    }
                }
            }
            "track_script" => {
                let name = block.block().word().unwrap();
                let weight = WEIGHT.with(std::cell::Cell::get);
                track.push(Tracked::weighted(
                    TrackedObject::Script(name.into()),
                    weight,
                ));
            }
            "track_file" => {
                let name = block.block().word().unwrap();
                track.push(Tracked::weighted(TrackedObject::File(name.into()), 1));
            }
            other => panic!("{other}"),
        }
    }
    config.interface = interface.into();
    config.family = crate::lan::family_of(
        &config
            .addresses
            .iter()
            .map(|each| each.address)
            .collect::<Vec<_>>(),
    );
    if config.family == Family::V6 {
        config.reach = Reach::multicast(Family::V6);
    }
    let interval = Duration::from_millis((seconds * 1000.0).round() as u64);
    config.interval = Interval::new(interval).unwrap();
    if strict {
        config = config.strict();
    }
    let mut member = Member::new(name, config);
    member.track = track;
    member
}

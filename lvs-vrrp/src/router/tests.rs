use super::*;
use crate::config::{
    Announcements, Authentication, Family, InterfaceName, LateActive, Priority, Reach, Vrid,
};
use crate::datagram::Datagram;
use crate::event::{NewActiveReason, RivalOutcome, StateChange};
use crate::wire::{
    self, AdvertPacket, AdvertRepr, ChecksumForm, Endpoints, Format, Ipv4Packet, Ipv4Repr,
};
use std::net::Ipv4Addr;

const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 12);
const LOWER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);
const HIGHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 13);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn us(us: u64) -> Duration {
    Duration::from_micros(us)
}

fn config(priority: u8) -> Config {
    let mut config = Config::new(Vrid::new(51).unwrap(), Family::V4, "e0");
    config.priority = Priority::new(priority).unwrap();
    config.addresses = vec![vip(100)];
    config
}

fn vip(last: u8) -> VirtualAddress {
    VirtualAddress {
        address: Ipv4Addr::new(192, 0, 2, last).into(),
        interface: "e0".into(),
    }
}

fn v3(priority: u8, centis: u16) -> Config {
    let mut config = config(priority);
    config.version = Version::V3;
    config.interval = Interval::from_centis(centis).unwrap();
    config
}

/// A router, the time, and what came out of it.
struct Lab {
    router: VirtualRouter,
    start: Instant,
    now: Instant,
    sent: Vec<Sent>,
    commands: Vec<Command>,
    events: Vec<Event>,
}

#[derive(Debug, Clone, PartialEq)]
struct Sent {
    at: Duration,
    priority: u8,
    to: IpAddr,
    identification: u16,
    interval: u16,
}

impl Lab {
    fn initialize(config: Config) -> Self {
        let mut router = VirtualRouter::new(config).unwrap();
        let start = Instant::now();
        router.handle_source(start, Some(OWN.into()));
        Self {
            router,
            start,
            now: start,
            sent: Vec::new(),
            commands: Vec::new(),
            events: Vec::new(),
        }
    }

    fn started(config: Config) -> Self {
        let mut lab = Self::initialize(config);
        lab.router.start(lab.now);
        lab.drain();
        lab
    }

    fn backup(config: Config) -> Self {
        let mut lab = Self::started(config);
        assert_eq!(lab.router.state(), State::Backup);
        lab.clear();
        lab
    }

    fn active(config: Config) -> Self {
        let mut lab = Self::started(config);
        lab.sleep(lab.router.active_down_time());
        assert_eq!(lab.router.state(), State::Active);
        lab.clear();
        lab
    }

    fn clear(&mut self) {
        self.sent.clear();
        self.commands.clear();
        self.events.clear();
    }

    fn drain(&mut self) {
        let mut buffer = Vec::new();
        while let Some(transmit) = self.router.poll_transmit(&mut buffer) {
            let ip = Ipv4Packet::new(&buffer).unwrap();
            let message = AdvertPacket::new(ip.payload()).unwrap();
            self.sent.push(Sent {
                at: self.now - self.start,
                priority: message.priority(),
                to: transmit.destination,
                identification: ip.identification(),
                interval: message.max_advert_interval(),
            });
        }
        while let Some(command) = self.router.poll_command() {
            self.commands.push(command);
        }
        while let Some(event) = self.router.poll_event() {
            self.events.push(event);
        }
    }

    /// Lets time pass, waking the machine when it asks for it.
    fn sleep(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(due) = self.router.poll_timeout().filter(|due| *due <= end) {
            self.now = due.max(self.now);
            self.router.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    /// Lets time pass without waking the machine.
    fn starve(&mut self, duration: Duration) {
        self.now += duration;
    }

    fn wake(&mut self) {
        self.router.handle_timeout(self.now);
        self.drain();
    }

    fn advert(&self, priority: u8, source: Ipv4Addr) -> Vec<u8> {
        let config = self.router.config();
        let format = match config.version {
            Version::V2 => Format::V2 {
                interval_secs: config.interval.whole_secs().unwrap(),
                auth_type: 0,
                auth_data: [0; 8],
            },
            Version::V3 => Format::V3 {
                max_advert_interval: config.interval.centis(),
            },
        };
        self.frame(priority, source, format)
    }

    fn frame(&self, priority: u8, source: Ipv4Addr, format: Format) -> Vec<u8> {
        let repr = AdvertRepr {
            vrid: self.router.config().vrid,
            priority,
            addresses: self.router.advertised.clone(),
            format,
        };
        packet(&repr, source)
    }

    fn hear(&mut self, priority: u8, source: Ipv4Addr) -> Result<Heard, Discard> {
        let packet = self.advert(priority, source);
        self.receive(&packet, self.now)
    }

    fn receive(&mut self, packet: &[u8], arrived: Instant) -> Result<Heard, Discard> {
        let result = self.router.handle_packet(
            self.now,
            &Received {
                arrived,
                datagram: Datagram::V4(packet),
            },
        );
        self.drain();
        result
    }

    fn left(&self) -> Duration {
        self.router.poll_timeout().unwrap() - self.now
    }

    fn announced(&self) -> usize {
        let announced = self
            .commands
            .iter()
            .filter(|command| matches!(command, Command::Announce(_)));
        announced.count()
    }

    fn changes(&self) -> Vec<&StateChange> {
        let changes = self.events.iter().filter_map(|event| match event {
            Event::StateChanged(change) => Some(change),
            _ => None,
        });
        changes.collect()
    }
}

fn packet(repr: &AdvertRepr, source: Ipv4Addr) -> Vec<u8> {
    let ends = Endpoints::V4 {
        source,
        destination: wire::GROUP_V4,
    };
    let mut packet = vec![0; 20 + repr.buffer_len()];
    Ipv4Repr {
        source,
        destination: wire::GROUP_V4,
        protocol: wire::PROTOCOL_VRRP,
        ttl: 255,
        identification: 1,
        payload_len: repr.buffer_len(),
    }
    .emit(&mut packet);
    repr.emit(&mut packet[20..], ends, ChecksumForm::PseudoHeader, None);
    packet
}

// ---- Start

#[test]
fn an_ordinary_router_starts_as_backup_and_waits_its_whole_master_down_time() {
    let mut lab = Lab::started(config(150));
    assert_eq!(
        lab.commands,
        [
            Command::RemoveRoutes,
            Command::RemoveAddresses(vec![vip(100)])
        ],
        "what an earlier run has left"
    );
    assert_eq!(lab.left(), us(3_414_062));
    lab.sleep(us(3_414_061));
    assert!(lab.sent.is_empty());
    lab.sleep(us(1));
    assert_eq!(lab.router.state(), State::Active);
    let change = lab.changes().last().copied().cloned().unwrap();
    assert_eq!(
        change.to_string(),
        "Active from Backup: no advertisement of anybody for 3.414s"
    );
    assert_eq!(
        change.reason.new_active_reason(),
        NewActiveReason::NoResponse
    );
}

#[test]
fn an_owner_starts_as_active() {
    let lab = Lab::started(config(255));
    assert_eq!(lab.router.state(), State::Active);
    assert_eq!(lab.sent.len(), 1);
    assert_eq!(lab.sent[0].priority, 255);
}

#[test]
fn a_router_without_source_address_starts_in_fault() {
    let mut router = VirtualRouter::new(config(255)).unwrap();
    let now = Instant::now();
    router.start(now);
    assert_eq!(router.state(), State::Fault);
    assert_eq!(router.poll_timeout(), None);
    router.handle_source(now, Some("fe80::1".parse().unwrap()));
    assert_eq!(
        router.state(),
        State::Fault,
        "an address of the other family is none"
    );
    router.handle_source(now, Some(OWN.into()));
    assert_eq!(
        router.state(),
        State::Backup,
        "after a fault an owner too waits"
    );
}

#[test]
fn an_owner_that_only_waited_for_a_script_is_active_at_once() {
    let mut lab = Lab::initialize(config(255));
    let script = TrackedObject::Script("chk".into());
    lab.router
        .handle_health(lab.now, script.clone(), Health::Unknown);
    lab.router.start(lab.now);
    lab.drain();
    assert_eq!(lab.router.state(), State::Initialize);
    assert!(lab.events.is_empty(), "waiting is silent");
    assert_eq!(lab.hear(90, HIGHER), Err(Discard::NotListening));
    lab.router.handle_health(lab.now, script, Health::Good);
    assert_eq!(lab.router.state(), State::Active);
}

#[test]
fn a_start_up_delay_keeps_quiet_and_moves_the_timers_to_its_end() {
    let mut slow = config(150);
    slow.startup_delay = ms(4000);
    let mut lab = Lab::backup(slow.clone());
    assert_eq!(lab.left(), ms(4000) + us(3_414_062));
    lab.sleep(ms(1000));
    assert_eq!(lab.hear(200, HIGHER), Err(Discard::StartingUp));
    assert_eq!(lab.left(), ms(3000) + us(3_414_062));
    lab.sleep(ms(3000));
    assert_eq!(lab.hear(200, HIGHER), Ok(Heard::Followed));
    slow.priority = Priority::OWNER;
    let lab = Lab::backup(slow);
    assert_eq!(lab.left(), ms(5000), "the delay and one interval");
}

// ---- Becoming Active

#[test]
fn the_advertisement_goes_out_before_the_addresses_come_in() {
    let mut config = config(100);
    config.accept = false;
    config.excluded = vec![vip(120)];
    let mut lab = Lab::backup(config);
    lab.sleep(us(3_609_375));
    let moved = vec![vip(100), vip(120)];
    assert_eq!(lab.sent.len(), 1);
    assert_eq!(
        lab.commands[..3],
        [
            Command::SetAcceptMode {
                accept: false,
                addresses: moved.clone()
            },
            Command::AddAddresses(moved),
            Command::AddRoutes,
        ]
    );
    let announced: Vec<_> = lab.commands[3..]
        .iter()
        .map(|command| match command {
            Command::Announce(announcement) => announcement.address,
            other => panic!("{other:?}"),
        })
        .collect();
    let round = [vip(100).address, vip(120).address];
    assert_eq!(announced, round.repeat(5), "five rounds over all addresses");
}

#[test]
fn addresses_are_announced_again_after_the_delay_and_with_every_refresh() {
    let mut config = config(255);
    config.announcements = Announcements {
        repeat: 3,
        delay: ms(2000),
        refresh: ms(3000),
        refresh_repeat: 2,
        ..Announcements::default()
    };
    let mut lab = Lab::started(config);
    let mut bursts = vec![(0, lab.announced())];
    for second in 1..=9 {
        lab.clear();
        lab.sleep(ms(1000));
        if lab.announced() > 0 {
            bursts.push((second, lab.announced()));
        }
    }
    assert_eq!(bursts, [(0, 3), (2, 3), (5, 2), (8, 2)]);
}

#[test]
fn advertisements_keep_their_beat_although_the_shell_is_a_little_late() {
    let mut lab = Lab::active(config(100));
    for _ in 0..5 {
        lab.starve(lab.left() + ms(30));
        lab.wake();
    }
    let first = lab.sent[0].at;
    let at: Vec<_> = lab.sent.iter().map(|sent| sent.at - first).collect();
    assert_eq!(at, [ms(0), ms(1000), ms(2000), ms(3000), ms(4000)]);
    let identifications: Vec<_> = lab.sent.iter().map(|sent| sent.identification).collect();
    assert_eq!(identifications, [2, 3, 4, 5, 6]);
}

#[test]
fn the_identification_is_never_zero() {
    let mut lab = Lab::active(config(100));
    lab.router.identification = u16::MAX - 1;
    lab.sleep(ms(2000));
    let identifications: Vec<_> = lab.sent.iter().map(|sent| sent.identification).collect();
    assert_eq!(identifications, [u16::MAX, 1]);
}

// ---- Backup

#[test]
fn a_backup_follows_who_is_better_and_ignores_who_is_not() {
    let mut lab = Lab::backup(config(100));
    lab.sleep(ms(1000));
    assert_eq!(lab.hear(100, LOWER), Ok(Heard::Followed));
    assert_eq!(lab.left(), us(3_609_375));
    lab.sleep(ms(1000));
    assert_eq!(lab.hear(200, HIGHER), Ok(Heard::Followed));
    assert_eq!(lab.left(), us(3_609_375));
    lab.sleep(ms(1000));
    assert_eq!(lab.hear(50, HIGHER), Err(Discard::LowerPriority(50)));
    assert_eq!(lab.left(), us(2_609_375), "the timer runs on");
    lab.sleep(ms(2000));
    assert_eq!(lab.hear(50, HIGHER), Err(Discard::LowerPriority(50)));
    lab.sleep(ms(610));
    let change = lab.changes().last().copied().cloned().unwrap();
    assert_eq!(
        change.to_string(),
        "Active from Backup: its priority 100 is better than 192.0.2.13 (priority 50)"
    );
}

#[test]
fn priority_zero_leaves_the_skew_time() {
    let mut lab = Lab::backup(config(100));
    assert_eq!(lab.hear(0, HIGHER), Ok(Heard::Resignation));
    assert_eq!(lab.left(), us(609_375));
    lab.sleep(us(609_375));
    let change = lab.changes()[0].clone();
    assert_eq!(
        change.to_string(),
        "Active from Backup: 192.0.2.13 left with priority 0"
    );
    assert_eq!(lab.router.statistics().priority_zero_received, 1);
}

#[test]
fn without_preemption_a_worse_router_is_followed() {
    let mut lab = Lab::backup(Config {
        preemption: Preemption::Off,
        ..config(150)
    });
    for _ in 0..10 {
        lab.sleep(ms(1000));
        assert_eq!(lab.hear(100, LOWER), Ok(Heard::Followed));
    }
    lab.sleep(us(3_414_062));
    assert_eq!(lab.router.state(), State::Active);
}

#[test]
fn a_closed_gate_holds_preemption_back_but_not_the_take_over_from_silence() {
    let mut lab = Lab::backup(config(150));
    lab.router.set_preempt_gate(lab.now, false);
    for _ in 0..10 {
        lab.sleep(ms(1000));
        assert_eq!(lab.hear(100, LOWER), Ok(Heard::Followed));
    }
    lab.router.set_preempt_gate(lab.now, true);
    lab.sleep(ms(1000));
    assert_eq!(lab.hear(100, LOWER), Err(Discard::LowerPriority(100)));
    lab.sleep(us(2_414_062));
    assert_eq!(lab.router.state(), State::Active);
    let mut owner = Lab::initialize(config(255));
    owner.router.set_preempt_gate(owner.now, false);
    owner.router.start(owner.now);
    assert_eq!(owner.router.state(), State::Backup);
    assert_eq!(owner.left(), us(3_003_906));
}

#[test]
fn a_preemption_delay_counts_from_the_first_lower_advertisement() {
    let mut lab = Lab::backup(Config {
        preemption: Preemption::After(ms(5000)),
        ..config(150)
    });
    lab.sleep(ms(200));
    for _ in 0..5 {
        assert_eq!(lab.hear(100, LOWER), Ok(Heard::Followed));
        lab.sleep(ms(1000));
    }
    assert_eq!(lab.hear(100, LOWER), Err(Discard::LowerPriority(100)));
    assert_eq!(
        lab.left(),
        us(2_414_062),
        "from the last one that was followed"
    );
    assert_eq!(lab.hear(160, HIGHER), Ok(Heard::Followed));
    assert_eq!(
        lab.router.preempt_delay_end(),
        None,
        "a better one ends the delay"
    );
    assert_eq!(lab.hear(100, LOWER), Ok(Heard::Followed), "it begins anew");
}

#[test]
fn a_change_of_priority_moves_a_backup_s_deadline() {
    let mut lab = Lab::backup(config(150));
    lab.hear(200, HIGHER).unwrap();
    lab.sleep(us(1_414_062));
    assert_eq!(lab.left(), ms(2000));
    lab.router.set_weight(lab.now, -60);
    assert_eq!(lab.left(), ms(2000) + us(234_375));
    lab.router.set_weight(lab.now, 0);
    assert_eq!(lab.left(), ms(2000));
    lab.drain();
    let event = Event::PriorityChanged {
        from: 150,
        to: 90,
        state: State::Backup,
    };
    assert!(lab.events.contains(&event));
}

#[test]
fn effective_priorities_stay_between_1_and_254_and_an_owner_s_never_changes() {
    let mut lab = Lab::backup(config(150));
    for (weight, effective) in [(500, 254), (-1000, 1), (i32::MAX, 254), (-50, 100)] {
        lab.router.set_weight(lab.now, weight);
        assert_eq!(lab.router.effective_priority(), effective);
    }
    let mut owner = Lab::active(config(255));
    owner.router.set_weight(owner.now, -100);
    assert_eq!(owner.router.effective_priority(), 255);
}

#[test]
fn version_3_learns_the_interval_of_whom_it_follows() {
    let mut lab = Lab::backup(v3(100, 30));
    let second = Format::V3 {
        max_advert_interval: 100,
    };
    let packet = lab.frame(150, HIGHER, second);
    assert_eq!(lab.receive(&packet, lab.now), Ok(Heard::Followed));
    assert_eq!(lab.left(), us(3_609_375));
    let lower = lab.frame(
        50,
        HIGHER,
        Format::V3 {
            max_advert_interval: 10,
        },
    );
    assert_eq!(
        lab.receive(&lower, lab.now),
        Err(Discard::LowerPriority(50))
    );
    assert_eq!(lab.left(), us(3_609_375), "not of whom it ignores");
    lab.sleep(us(3_609_375));
    lab.clear();
    lab.sleep(ms(900));
    assert_eq!(lab.sent.len(), 3, "its own interval while Active");
    let slow = lab.frame(
        150,
        HIGHER,
        Format::V3 {
            max_advert_interval: 500,
        },
    );
    assert_eq!(lab.receive(&slow, lab.now), Ok(Heard::Won));
    assert_eq!(lab.left(), us(18_046_875));
}

// ---- Active

#[test]
fn a_losing_advertisement_is_answered_and_the_addresses_are_announced() {
    for (priority, source) in [(90, HIGHER), (100, LOWER)] {
        let mut lab = Lab::active(config(100));
        lab.sleep(ms(10_500));
        lab.clear();
        assert_eq!(lab.hear(priority, source), Ok(Heard::Lost));
        assert_eq!(lab.sent.len(), 1, "one answer");
        assert_eq!(lab.announced(), 5);
        assert!(
            lab.events
                .iter()
                .any(|event| matches!(event, Event::LowerPriorityHeard { .. }))
        );
        lab.sleep(ms(4999));
        assert_eq!(lab.announced(), 5);
        lab.sleep(ms(1));
        assert_eq!(lab.announced(), 10);
        assert_eq!(lab.router.state(), State::Active);
    }
}

#[test]
fn a_winning_advertisement_is_yielded_to() {
    for (priority, source) in [(200, LOWER), (100, HIGHER)] {
        let mut lab = Lab::active(config(100));
        assert_eq!(lab.hear(priority, source), Ok(Heard::Won));
        assert_eq!(lab.router.state(), State::Backup);
        assert_eq!(
            lab.sent.len(),
            1,
            "one more, so that the other announces the addresses"
        );
        assert_eq!(
            lab.commands,
            [
                Command::RemoveRoutes,
                Command::RemoveAddresses(vec![vip(100)])
            ]
        );
        assert_eq!(lab.left(), us(3_609_375));
        let mut silent = Lab::active(Config {
            answer_higher: false,
            ..config(100)
        });
        silent.hear(priority, source).unwrap();
        assert!(silent.sent.is_empty());
    }
}

#[test]
fn priority_zero_to_an_active_router_is_answered() {
    let mut lab = Lab::active(config(100));
    assert_eq!(lab.hear(0, HIGHER), Ok(Heard::Lost));
    assert_eq!((lab.sent.len(), lab.announced()), (1, 5));
    let mut plain = config(100);
    plain.announcements.after_rival = false;
    let mut lab = Lab::active(plain);
    lab.hear(0, HIGHER).unwrap();
    assert_eq!((lab.sent.len(), lab.announced()), (1, 0));
}

#[test]
fn a_refused_advertisement_does_not_put_off_the_next_own_one() {
    let mut lab = Lab::active(config(100));
    let mut bad = lab.advert(200, HIGHER);
    *bad.last_mut().unwrap() ^= 1;
    for _ in 0..20 {
        lab.sleep(ms(200));
        assert_eq!(lab.receive(&bad, lab.now), Err(Discard::Checksum));
    }
    assert_eq!(lab.sent.len(), 4);
}

#[test]
fn strict_routers_say_nothing_to_a_loser() {
    let mut lab = Lab::active(config(100).strict());
    assert_eq!(lab.hear(90, HIGHER), Ok(Heard::Lost));
    assert_eq!((lab.sent.len(), lab.announced()), (0, 0));
}

#[test]
fn a_twin_decides_nothing() {
    let mut lab = Lab::active(config(100));
    assert_eq!(lab.hear(100, OWN), Ok(Heard::Twin));
    assert_eq!(lab.router.state(), State::Active);
    assert!(lab.sent.is_empty());
}

#[test]
fn shutdown_says_priority_zero_once_and_only_from_active() {
    let mut lab = Lab::active(config(100));
    lab.router.shutdown(lab.now);
    lab.drain();
    let priorities: Vec<_> = lab.sent.iter().map(|sent| sent.priority).collect();
    assert_eq!(priorities, [0]);
    assert_eq!(lab.router.state(), State::Initialize);
    assert_eq!(lab.router.poll_timeout(), None);
    lab.router.shutdown(lab.now);
    lab.drain();
    assert_eq!(lab.sent.len(), 1);
    let mut lab = Lab::backup(config(100));
    lab.router.shutdown(lab.now);
    lab.drain();
    assert!(lab.sent.is_empty());
    lab.router.start(lab.now);
    assert_eq!(lab.router.state(), State::Backup, "it can be started again");
}

#[test]
fn leaving_drops_announcements_that_were_not_made_yet() {
    let mut router = VirtualRouter::new(config(255)).unwrap();
    let now = Instant::now();
    router.handle_source(now, Some(OWN.into()));
    router.start(now);
    router.shutdown(now);
    let commands: Vec<_> = std::iter::from_fn(|| router.poll_command()).collect();
    assert!(
        !commands
            .iter()
            .any(|command| matches!(command, Command::Announce(_)))
    );
    assert!(matches!(commands.last(), Some(Command::RemoveAddresses(_))));
}

// ---- Fault

#[test]
fn a_fault_of_an_active_router_is_said_twice() {
    let mut lab = Lab::active(config(100));
    let interface = TrackedObject::Interface("e1".into());
    lab.router
        .handle_health(lab.now, interface.clone(), Health::Failed);
    lab.drain();
    let priorities: Vec<_> = lab.sent.iter().map(|sent| sent.priority).collect();
    assert_eq!(priorities, [0, 0]);
    assert_eq!(lab.router.statistics().priority_zero_sent, 1);
    assert_eq!(lab.router.state(), State::Fault);
    assert_eq!(lab.hear(50, LOWER), Err(Discard::NotListening));
    let change = lab.changes()[0].to_string();
    assert_eq!(change, "Fault from Active: interface e1 fails");
    lab.router.handle_health(lab.now, interface, Health::Good);
    assert_eq!(lab.router.state(), State::Backup);
    assert_eq!(lab.left(), us(3_609_375));
}

#[test]
fn every_fault_counts_by_itself() {
    let mut lab = Lab::backup(config(100));
    let [one, other] = ["e1", "e2"].map(|name| TrackedObject::Interface(name.into()));
    lab.router
        .handle_health(lab.now, one.clone(), Health::Failed);
    lab.router
        .handle_health(lab.now, other.clone(), Health::Failed);
    lab.router.handle_health(lab.now, one, Health::Good);
    assert_eq!(lab.router.state(), State::Fault);
    lab.router.handle_health(lab.now, other, Health::Good);
    assert_eq!(lab.router.state(), State::Backup);
}

#[test]
fn a_unicast_router_announces_its_own_address_after_a_fault() {
    let mut config = config(100);
    config.reach = Reach::Unicast {
        peers: vec![IpAddr::from(HIGHER).into()],
        ttl: None,
        check_source: false,
    };
    let mut lab = Lab::backup(config);
    let own = TrackedObject::Interface("e0".into());
    lab.router
        .handle_health(lab.now, own.clone(), Health::Failed);
    lab.router.handle_health(lab.now, own, Health::Good);
    lab.drain();
    let announcement = Announcement {
        address: OWN.into(),
        interface: "e0".into(),
    };
    assert_eq!(lab.commands, [Command::Announce(announcement)]);
}

#[test]
fn a_lost_source_address_is_a_fault_that_ipv4_still_says() {
    let mut lab = Lab::active(config(100));
    lab.router.handle_source(lab.now, Some(LOWER.into()));
    assert_eq!(
        lab.router.state(),
        State::Active,
        "another address is no fault"
    );
    lab.router.handle_source(lab.now, None);
    lab.drain();
    assert_eq!(lab.sent.len(), 2);
    assert_eq!(lab.router.state(), State::Fault);
}

// ---- Late

#[test]
fn what_arrived_in_time_was_in_time_although_it_is_read_late() {
    let mut lab = Lab::backup(config(100));
    lab.hear(150, HIGHER).unwrap();
    let adverts: Vec<_> = (1..=4)
        .map(|second| (lab.now + ms(second * 1000), lab.advert(150, HIGHER)))
        .collect();
    // The process sleeps for 4.5 s, past its deadline at 3.609 s, then reads its socket first.
    lab.starve(ms(4500));
    for (arrived, advert) in adverts {
        assert_eq!(lab.receive(&advert, arrived), Ok(Heard::Followed));
    }
    lab.wake();
    assert_eq!(lab.router.state(), State::Backup);
    assert_eq!(
        lab.left(),
        us(3_609_375) - ms(500),
        "from the last one's arrival"
    );
    lab.sleep(us(3_109_375));
    assert_eq!(
        lab.router.state(),
        State::Active,
        "silence is still silence"
    );
}

#[test]
fn a_backup_that_slept_through_its_deadline_listens_for_an_interval_first() {
    let mut lab = Lab::backup(config(100));
    lab.starve(ms(10_000));
    lab.wake();
    assert_eq!(lab.router.state(), State::Backup);
    assert_eq!(lab.left(), ms(1000) + us(609_375));
    lab.sleep(ms(500));
    assert_eq!(lab.hear(150, HIGHER), Ok(Heard::Followed));
    let mut alone = Lab::backup(config(100));
    alone.starve(ms(10_000));
    alone.wake();
    alone.starve(ms(10_000));
    alone.wake();
    assert_eq!(alone.router.state(), State::Active, "once only");
}

#[test]
fn an_active_router_that_slept_announces_again_or_yields_as_configured() {
    let mut lab = Lab::active(config(100));
    lab.starve(ms(6000));
    lab.wake();
    assert_eq!(lab.router.state(), State::Active);
    assert_eq!(lab.sent.len(), 1);
    assert!(lab.announced() >= 5);
    assert!(
        lab.events
            .iter()
            .any(|event| matches!(event, Event::Late { .. }))
    );
    let mut shy = Lab::active(Config {
        late: LateActive::YieldTo(Priority::new(200).unwrap()),
        ..config(100)
    });
    shy.starve(ms(6000));
    shy.wake();
    assert_eq!(shy.router.state(), State::Backup);
    assert!(shy.sent.is_empty(), "without a word");
}

// ---- Two owners

#[test]
fn of_two_owners_the_lower_address_yields_at_once() {
    let mut lab = Lab::started(config(255));
    lab.clear();
    assert_eq!(lab.hear(255, HIGHER), Ok(Heard::Won));
    assert_eq!(lab.router.state(), State::Backup);
    assert_eq!(lab.left(), us(3_003_906));
}

#[test]
fn the_higher_owner_insists_and_yields_to_a_deaf_one() {
    let mut lab = Lab::started(config(255));
    lab.clear();
    assert_eq!(lab.hear(255, LOWER), Ok(Heard::Lost));
    lab.sleep(ms(1000));
    assert_eq!(lab.router.state(), State::Active);
    assert_eq!(lab.hear(255, LOWER), Ok(Heard::Won), "it goes on");
    let outcomes: Vec<_> = lab
        .events
        .iter()
        .filter_map(|event| match event {
            Event::RivalOwner { outcome, .. } => Some(*outcome),
            _ => None,
        })
        .collect();
    assert_eq!(
        outcomes,
        [RivalOutcome::TheyShouldYield, RivalOutcome::WeLower]
    );
    assert_eq!(lab.router.effective_priority(), 254);
    assert_eq!(lab.left(), us(3_003_906), "timers stay an owner's");
    assert_eq!(lab.hear(255, LOWER), Ok(Heard::Followed));
    assert_eq!(lab.hear(100, LOWER), Err(Discard::LowerPriority(100)));
    assert_eq!(lab.router.effective_priority(), 255, "it is gone");
}

#[test]
fn an_owner_is_deaf_when_it_should_be() {
    let mut lab = Lab::started(Config {
        owner_ignores_adverts: true,
        ..config(255)
    });
    assert_eq!(lab.hear(255, HIGHER), Err(Discard::OwnerIsDeaf));
    assert_eq!(lab.hear(0, HIGHER), Err(Discard::OwnerIsDeaf));
}

// ---- Removed by others

#[test]
fn an_address_that_somebody_takes_away_is_set_again_until_it_is_too_often() {
    let mut lab = Lab::active(config(100));
    lab.router.handle_address_removed(lab.now, &vip(222));
    lab.drain();
    assert!(lab.events.is_empty(), "not ours");
    for _ in 0..5 {
        lab.clear();
        lab.router.handle_address_removed(lab.now, &vip(100));
        lab.drain();
        assert_eq!(lab.commands[0], Command::AddAddresses(vec![vip(100)]));
        assert_eq!((lab.announced(), lab.router.state()), (1, State::Active));
    }
    lab.router.handle_address_removed(lab.now, &vip(100));
    lab.drain();
    assert_eq!(lab.router.state(), State::Backup);
    assert_eq!(lab.sent.last().unwrap().priority, 0);
    assert_eq!(lab.left(), us(609_375));
}

#[test]
fn keepalived_s_way_is_to_step_down_for_a_skew_time() {
    let mut lab = Lab::active(Config {
        restore_removed: false,
        ..config(150)
    });
    lab.router.handle_route_removed(lab.now);
    lab.drain();
    assert_eq!(lab.router.state(), State::Backup);
    lab.sleep(us(414_062));
    assert_eq!(lab.router.state(), State::Active);
}

// ---- Reload

#[test]
fn an_equal_configuration_changes_nothing() {
    let mut lab = Lab::active(config(100));
    let due = lab.router.poll_timeout();
    lab.router.reconfigure(lab.now, config(100)).unwrap();
    lab.drain();
    assert!(lab.sent.is_empty() && lab.commands.is_empty() && lab.events.is_empty());
    assert_eq!(lab.router.poll_timeout(), due);
}

#[test]
fn a_reload_of_an_active_router_moves_only_what_differs() {
    let mut lab = Lab::active(config(100));
    let mut more = config(90);
    more.addresses = vec![vip(101), vip(102)];
    lab.router.reconfigure(lab.now, more).unwrap();
    lab.drain();
    let priorities: Vec<_> = lab.sent.iter().map(|sent| sent.priority).collect();
    assert_eq!(priorities, [100, 90], "once as before, once as it is now");
    assert_eq!(
        lab.commands[..2],
        [
            Command::RemoveAddresses(vec![vip(100)]),
            Command::AddAddresses(vec![vip(101), vip(102)]),
        ]
    );
    assert_eq!(lab.announced(), 10);
    assert_eq!(lab.router.state(), State::Active);
}

#[test]
fn a_reload_of_a_backup_keeps_its_deadline() {
    let mut lab = Lab::backup(config(100));
    lab.hear(200, HIGHER).unwrap();
    lab.sleep(ms(1000));
    let mut other = config(100);
    other.addresses.push(vip(101));
    lab.router.reconfigure(lab.now, other).unwrap();
    assert_eq!(lab.left(), us(2_609_375));
    let mut better = config(228);
    better.addresses.push(vip(101));
    lab.router.reconfigure(lab.now, better).unwrap();
    assert_eq!(lab.left(), us(2_609_375 - 500_000));
}

#[test]
fn a_router_does_not_become_another_one() {
    let mut lab = Lab::active(config(100));
    let mut other = config(100);
    other.vrid = Vrid::new(52).unwrap();
    assert_eq!(
        lab.router.reconfigure(lab.now, other),
        Err(ConfigError::OtherRouter)
    );
    let mut broken = config(100);
    broken.down_timer_adverts = 0;
    assert_eq!(
        lab.router.reconfigure(lab.now, broken),
        Err(ConfigError::DownTimer(0))
    );
}

// ---- Configuration

#[test]
fn inconsistent_configurations_are_refused() {
    let refused = |change: &dyn Fn(&mut Config)| {
        let mut config = config(100);
        change(&mut config);
        VirtualRouter::new(config).unwrap_err()
    };
    let half = Interval::from_centis(50).unwrap();
    assert_eq!(
        refused(&|config| config.interval = half),
        ConfigError::FractionalInterval(ms(500))
    );
    let long = Interval::from_centis(4100).unwrap();
    assert_eq!(
        refused(&|config| {
            config.version = Version::V3;
            config.interval = long;
        }),
        ConfigError::LongInterval(ms(41_000))
    );
    assert_eq!(
        refused(&|config| {
            config.version = Version::V3;
            config.authentication = Authentication::Password([1; 8]);
        }),
        ConfigError::Authentication
    );
    assert_eq!(
        refused(&|config| config.addresses[0].address = "::1".parse().unwrap()),
        ConfigError::Addresses
    );
    assert_eq!(
        refused(&|config| config.excluded = vec![vip(100)]),
        ConfigError::Repeated(vip(100).address)
    );
    let unicast: IpAddr = HIGHER.into();
    assert_eq!(
        refused(&|config| config.reach = Reach::Multicast { group: unicast }),
        ConfigError::Group(unicast)
    );
    let group: IpAddr = wire::GROUP_V4.into();
    assert_eq!(
        refused(&|config| {
            config.reach = Reach::Unicast {
                peers: vec![group.into()],
                ttl: None,
                check_source: false,
            };
        }),
        ConfigError::Peer(group)
    );
    assert_eq!(Authentication::pad(b"ninebytes"), None);
    assert_eq!(InterfaceName::from("e0").as_str(), "e0");
}

// ---- What the simulation found

#[test]
fn a_loser_s_short_interval_is_not_the_one_to_wait_by() {
    let mut lab = Lab::backup(v3(50, 100));
    let every = |centis| Format::V3 {
        max_advert_interval: centis,
    };
    let best = lab.frame(200, HIGHER, every(100));
    lab.receive(&best, lab.now).unwrap();
    lab.sleep(ms(500));
    // Another one became Active for a moment, lost, and is silent.
    let loser = lab.frame(100, LOWER, every(1));
    assert_eq!(lab.receive(&loser, lab.now), Ok(Heard::Followed));
    assert!(lab.left() > ms(3000));
    assert_eq!(
        lab.router.active_router().map(|(peer, _)| peer.priority),
        Some(200)
    );
    // When the best one really is gone, the other is followed in every respect.
    lab.sleep(ms(3500));
    lab.receive(&loser, lab.now).unwrap();
    assert!(lab.left() < ms(50));
}

#[test]
fn the_last_advertisement_before_yielding_has_the_better_one_s_interval() {
    let mut lab = Lab::active(v3(100, 1));
    let better = lab.frame(
        200,
        HIGHER,
        Format::V3 {
            max_advert_interval: 300,
        },
    );
    lab.receive(&better, lab.now).unwrap();
    let last = lab.sent.last().unwrap();
    assert_eq!((last.priority, last.interval), (100, 300));
}

#[test]
fn two_routers_with_an_authentication_header_that_count_alike_come_apart() {
    let config = |priority| Config {
        authentication: Authentication::Header(*b"k3yAH\0\0\0"),
        ..config(priority)
    };
    let mut one = VirtualRouter::new(config(100)).unwrap();
    let mut other = VirtualRouter::new(config(100)).unwrap();
    let start = Instant::now();
    one.handle_source(start, Some(LOWER.into()));
    other.handle_source(start, Some(HIGHER.into()));
    let now = start + us(3_609_375);
    for router in [&mut one, &mut other] {
        router.start(start);
        router.handle_timeout(now);
        assert_eq!(router.state(), State::Active);
    }
    // Each has sent number 1 and hears number 1.
    let exchange = |from: &mut VirtualRouter, to: &mut VirtualRouter| {
        let mut buffer = Vec::new();
        let mut last = None;
        while from.poll_transmit(&mut buffer).is_some() {
            let received = Received {
                arrived: now,
                datagram: Datagram::V4(&buffer),
            };
            last = Some(to.handle_packet(now, &received));
        }
        last
    };
    let refused = exchange(&mut other, &mut one);
    assert_eq!(refused, Some(Err(Discard::Replayed { got: 1, last: 1 })));
    assert_eq!(exchange(&mut one, &mut other), Some(Ok(Heard::Lost)));
    assert_eq!(exchange(&mut other, &mut one), Some(Ok(Heard::Won)));
    assert_eq!((one.state(), other.state()), (State::Backup, State::Active));
}

#[test]
fn who_resigned_is_not_followed_any_more() {
    let mut lab = Lab::backup(config(100));
    lab.hear(150, HIGHER).unwrap();
    lab.hear(0, HIGHER).unwrap();
    assert_eq!(lab.router.active_router(), None);
    assert_eq!(lab.left(), us(609_375));
    assert_eq!(lab.hear(120, LOWER), Ok(Heard::Followed));
    assert_eq!(lab.left(), us(3_609_375));
}

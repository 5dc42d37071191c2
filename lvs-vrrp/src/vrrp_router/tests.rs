use super::*;
use crate::announce::{Announcement, Pacing};
use crate::config::{Config, Priority, Vrid};
use crate::datagram::Datagram;
use crate::script::ScriptConfig;
use crate::track::Delays;
use crate::wire::{
    self, AdvertPacket, AdvertRepr, ChecksumForm, Endpoints, Format, Ipv4Packet, Ipv4Repr,
};
use std::net::Ipv4Addr;
use std::time::Duration;

const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// VRID and priority; its interface is named after the VRID, and so is it.
fn member(vrid: u8, priority: u8) -> Member {
    let interface = format!("e{vrid}");
    let mut config = Config::new(Vrid::new(vrid).unwrap(), Family::V4, interface.as_str());
    config.priority = Priority::new(priority).unwrap();
    config.addresses = vec![VirtualAddress {
        address: Ipv4Addr::new(198, 51, 100, vrid).into(),
        interface: interface.as_str().into(),
    }];
    Member::new(&format!("VI_{vrid}"), config)
}

fn group(members: &[u8]) -> GroupConfig {
    GroupConfig {
        name: "G".into(),
        members: members
            .iter()
            .map(|vrid| format!("VI_{vrid}").into())
            .collect(),
        track: Vec::new(),
        member_weights: false,
    }
}

fn setup(members: &[(u8, u8)]) -> Setup {
    Setup {
        virtual_routers: members
            .iter()
            .map(|(vrid, priority)| member(*vrid, *priority))
            .collect(),
        ..Setup::default()
    }
}

/// Two members in a group.
fn pair(priority: u8) -> Setup {
    Setup {
        groups: vec![group(&[1, 2])],
        ..setup(&[(1, priority), (2, priority)])
    }
}

struct Lab {
    all: VrrpRouter,
    now: Instant,
    sent: Vec<(u8, u8)>,
    tasks: Vec<Task>,
    notices: Vec<Notice>,
}

impl Lab {
    fn new(setup: Setup) -> Self {
        let now = Instant::now();
        Self {
            all: VrrpRouter::new(now, setup).unwrap(),
            now,
            sent: Vec::new(),
            tasks: Vec::new(),
            notices: Vec::new(),
        }
    }

    fn started(setup: Setup) -> Self {
        let mut lab = Self::new(setup);
        lab.reach();
        lab.all.start(lab.now);
        lab.drain();
        lab
    }

    /// Links are up, addresses are there.
    fn reach(&mut self) {
        let ids: Vec<_> = self.all.virtual_routers().map(|(id, _)| id).collect();
        for id in ids {
            let config = self.all.virtual_router(id).unwrap().config();
            let (interface, vrid) = (config.interface.clone(), config.vrid.get());
            self.all.handle_link(self.now, &interface, true);
            let source = Ipv4Addr::new(192, 0, 2, vrid).into();
            self.all.handle_source(self.now, id, Some(source));
        }
    }

    fn drain(&mut self) {
        let mut buffer = Vec::new();
        while let Some((_, _)) = self.all.poll_transmit(&mut buffer) {
            let ip = Ipv4Packet::new(&buffer).unwrap();
            let message = AdvertPacket::new(ip.payload()).unwrap();
            self.sent.push((message.vrid(), message.priority()));
        }
        while let Some(task) = self.all.poll_command() {
            self.tasks.push(task);
        }
        while let Some(notice) = self.all.poll_event() {
            self.notices.push(notice);
        }
    }

    fn clear(&mut self) {
        self.sent.clear();
        self.tasks.clear();
        self.notices.clear();
    }

    fn sleep(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(due) = self.all.poll_timeout().filter(|due| *due <= end) {
            self.now = due.max(self.now);
            self.all.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    fn hear(&mut self, vrid: u8, priority: u8) -> Result<Heard, Discard> {
        let (id, interface, addresses) = {
            let id = self.all.by_name(&format!("VI_{vrid}")).unwrap();
            let config = self.all.virtual_router(id).unwrap().config();
            (id, config.interface.clone(), config.advertised().unwrap())
        };
        let repr = AdvertRepr {
            vrid: Vrid::new(vrid).unwrap(),
            priority,
            addresses,
            format: Format::V2 {
                interval_secs: 1,
                auth_type: 0,
                auth_data: [0; 8],
            },
        };
        let ends = Endpoints::V4 {
            source: PEER,
            destination: wire::GROUP_V4,
        };
        let mut packet = vec![0; 20 + repr.buffer_len()];
        Ipv4Repr {
            source: PEER,
            destination: wire::GROUP_V4,
            protocol: wire::PROTOCOL_VRRP,
            ttl: 255,
            identification: 1,
            payload_len: repr.buffer_len(),
        }
        .emit(&mut packet);
        repr.emit(&mut packet[20..], ends, ChecksumForm::Message, None);
        let received = Received {
            arrived: self.now,
            datagram: Datagram::V4(&packet),
        };
        let heard = self.all.handle_packet(self.now, &interface, &received);
        self.drain();
        heard.map(|(heard_by, heard)| {
            assert_eq!(heard_by, id);
            heard
        })
    }

    fn state(&self, vrid: u8) -> State {
        let id = self.all.by_name(&format!("VI_{vrid}")).unwrap();
        self.all.virtual_router(id).unwrap().state()
    }

    fn states(&self) -> Vec<State> {
        let routers = self.all.virtual_routers();
        routers.map(|(_, router)| router.state()).collect()
    }

    /// State changes in keepalived's words, as its FIFO has them; silent ones in brackets.
    fn told(&self) -> Vec<String> {
        let told = self.notices.iter().filter_map(|notice| match notice {
            Notice::Router {
                name,
                event: Event::StateChanged(change),
                silent,
                ..
            } => {
                let word = change.to.keepalived_word();
                Some(if *silent {
                    format!("({name} {word})")
                } else {
                    format!("{name} {word}")
                })
            }
            Notice::Group { to, .. } => Some(format!("G {}", to.keepalived_word())),
            _ => None,
        });
        told.collect()
    }

    fn link(&mut self, interface: &str, up: bool) {
        self.all.handle_link(self.now, &interface.into(), up);
        self.drain();
    }
}

// ---- Groups

#[test]
fn a_group_becomes_active_when_the_last_member_would() {
    let mut lab = Lab::started(pair(100));
    assert_eq!(lab.told(), ["G BACKUP", "VI_1 BACKUP", "VI_2 BACKUP"]);
    lab.clear();
    for _ in 0..4 {
        lab.sleep(ms(1000));
        lab.hear(2, 150).unwrap();
    }
    // The first one's timer has ended; the second still hears its Active router.
    assert_eq!(lab.states(), [State::Backup, State::Backup]);
    let status = lab.all.group(lab.all.groups().next().unwrap()).unwrap();
    assert_eq!(
        status.waits_for,
        [lab.all.by_name("VI_2").unwrap()],
        "and it can be asked what it waits for"
    );
    assert!(lab.sent.is_empty());
    lab.sleep(ms(3609));
    assert_eq!(lab.states(), [State::Backup, State::Backup]);
    lab.sleep(ms(1));
    assert_eq!(lab.states(), [State::Active, State::Active]);
    assert_eq!(lab.sent, [(2, 100), (1, 100)]);
    assert_eq!(lab.told(), ["VI_2 MASTER", "VI_1 MASTER", "G MASTER"]);
}

#[test]
fn a_wish_ends_with_the_next_advertisement() {
    let mut lab = Lab::started(pair(100));
    lab.sleep(ms(2000));
    lab.hear(2, 150).unwrap();
    lab.sleep(ms(1700));
    lab.hear(1, 150).unwrap();
    lab.sleep(ms(1950));
    assert_eq!(
        lab.states(),
        [State::Backup, State::Backup],
        "the second would, the first no more"
    );
}

#[test]
fn a_group_yields_together_and_says_nothing() {
    let mut lab = Lab::started(pair(100));
    lab.sleep(ms(3700));
    assert_eq!(lab.states(), [State::Active, State::Active]);
    lab.clear();
    assert_eq!(lab.hear(1, 150), Ok(Heard::Won));
    assert_eq!(lab.states(), [State::Backup, State::Backup]);
    assert_eq!(lab.sent, [(1, 100)], "the answer to the better one only");
    assert_eq!(lab.told(), ["VI_1 BACKUP", "VI_2 BACKUP", "G BACKUP"]);
}

#[test]
fn a_group_faults_with_its_first_fault_and_recovers_with_its_last() {
    let mut lab = Lab::started(pair(100));
    lab.sleep(ms(3700));
    lab.clear();
    lab.link("e2", false);
    assert_eq!(lab.states(), [State::Fault, State::Fault]);
    assert_eq!(
        lab.sent,
        [(2, 0), (2, 0), (1, 0)],
        "twice by the broken one, once by the other"
    );
    assert_eq!(lab.told(), ["VI_2 FAULT", "VI_1 FAULT", "G FAULT"]);
    lab.clear();
    lab.link("e1", false);
    lab.link("e2", true);
    assert_eq!(lab.states(), [State::Fault, State::Fault]);
    assert!(lab.told().is_empty());
    lab.link("e1", true);
    assert_eq!(lab.states(), [State::Backup, State::Backup]);
    assert_eq!(lab.told(), ["VI_1 BACKUP", "VI_2 BACKUP", "G BACKUP"]);
}

#[test]
fn owners_start_a_group_as_active_only_if_all_are() {
    let lab = Lab::started(pair(255));
    assert_eq!(lab.states(), [State::Active, State::Active]);
    let mixed = Setup {
        groups: vec![group(&[1, 2])],
        ..setup(&[(1, 255), (2, 100)])
    };
    let lab = Lab::started(mixed);
    assert_eq!(lab.states(), [State::Backup, State::Backup]);
}

#[test]
fn a_member_that_waits_for_a_script_makes_the_group_wait() {
    let mut waiting = pair(100);
    waiting.scripts = vec![ScriptConfig::new("chk")];
    waiting.virtual_routers[1].track = vec![Tracked::fault(TrackedObject::Script("chk".into()))];
    let mut lab = Lab::started(waiting);
    assert_eq!(lab.states(), [State::Initialize, State::Initialize]);
    assert!(lab.told().is_empty());
    lab.sleep(ms(1));
    lab.all.handle_script_exit(lab.now, "chk", true);
    lab.drain();
    assert_eq!(lab.states(), [State::Backup, State::Backup]);
}

#[test]
fn a_losing_advertisement_makes_all_members_announce() {
    let mut lab = Lab::started(pair(100));
    lab.sleep(ms(20_000));
    lab.clear();
    assert_eq!(lab.hear(1, 50), Ok(Heard::Lost));
    let announced = |vrid: u8| {
        let address = IpAddr::from([198, 51, 100, vrid]);
        let is = |task: &&Task| matches!(task, Task::Router { command: Command::Announce(Announcement { address: of, .. }), .. } if *of == address);
        lab.tasks.iter().filter(is).count()
    };
    assert_eq!((announced(1), announced(2)), (5, 5));
}

#[test]
fn an_address_taken_away_for_good_moves_the_whole_group() {
    let mut stepping = pair(100);
    for member in &mut stepping.virtual_routers {
        member.config.restore_removed = false;
    }
    let mut lab = Lab::started(stepping);
    lab.sleep(ms(3700));
    lab.clear();
    let address = member(1, 100).config.addresses[0].clone();
    lab.all.handle_address_removed(lab.now, &address);
    lab.drain();
    assert_eq!(lab.states(), [State::Backup, State::Backup]);
    assert_eq!(lab.sent, [(1, 0), (2, 0)]);
    lab.sleep(ms(610));
    assert_eq!(lab.states(), [State::Active, State::Active]);
}

#[test]
fn a_reload_that_makes_a_group_of_unlike_members_unites_them() {
    let mut lab = Lab::started(setup(&[(1, 255), (2, 100)]));
    assert_eq!(lab.states(), [State::Active, State::Backup]);
    lab.clear();
    let united = Setup {
        groups: vec![group(&[1, 2])],
        ..setup(&[(1, 255), (2, 100)])
    };
    lab.all.reload(lab.now, united).unwrap();
    lab.drain();
    assert_eq!(lab.states(), [State::Backup, State::Backup]);
    assert_eq!(lab.sent, [(1, 0)]);
    lab.sleep(ms(3610));
    assert_eq!(lab.states(), [State::Active, State::Active]);
}

// ---- Tracking

#[test]
fn weights_add_up_and_faults_do_not() {
    let mut tracking = setup(&[(1, 100)]);
    tracking.scripts = vec![ScriptConfig::new("chk")];
    tracking.virtual_routers[0].track = vec![
        Tracked::weighted(TrackedObject::Script("chk".into()), 20),
        Tracked::weighted(TrackedObject::Interface("e9".into()), -30),
        Tracked::weighted(TrackedObject::File("tf".into()), 1),
        Tracked::fault(TrackedObject::Bfd("peer".into())),
    ];
    let mut lab = Lab::started(tracking);
    let id = lab.all.by_name("VI_1").unwrap();
    let priority = |lab: &Lab| lab.all.virtual_router(id).unwrap().effective_priority();
    assert_eq!(
        (lab.state(1), priority(&lab)),
        (State::Fault, 70),
        "no session is a fault, no interface costs"
    );
    lab.all.handle_bfd(lab.now, "peer", true);
    assert_eq!(lab.state(1), State::Backup);
    lab.sleep(ms(1));
    lab.all.handle_script_exit(lab.now, "chk", true);
    assert_eq!(priority(&lab), 90);
    lab.link("e9", true);
    assert_eq!(priority(&lab), 120);
    lab.all.handle_file(lab.now, "tf", 40);
    assert_eq!(priority(&lab), 160);
    lab.all.handle_file(lab.now, "tf", -1000);
    assert_eq!(lab.state(1), State::Fault);
    lab.all.handle_file(lab.now, "tf", 0);
    assert_eq!((lab.state(1), priority(&lab)), (State::Backup, 120));
}

#[test]
fn members_weights_become_faults_unless_the_group_wants_them() {
    let mut grouped = pair(100);
    grouped.virtual_routers[0].track = vec![
        Tracked::weighted(TrackedObject::Interface("e9".into()), -30),
        Tracked::weighted(TrackedObject::File("tf".into()), 1),
        Tracked::weighted(TrackedObject::File("tf2".into()), 2),
        Tracked::weighted(TrackedObject::Bfd("peer".into()), 2),
        Tracked::weighted(TrackedObject::Interface("e1".into()), 2),
    ];
    grouped.groups[0].track = vec![Tracked::weighted(TrackedObject::File("both".into()), 3)];
    let list = |setup: &Setup| -> Vec<(String, i16)> {
        let tracked = setup.tracked_by(&setup.virtual_routers[0]);
        let each = tracked
            .iter()
            .map(|each| (each.object.to_string(), each.weight));
        each.collect()
    };
    assert_eq!(
        list(&grouped),
        [
            ("interface e1".to_owned(), 0),
            ("file both".to_owned(), 3),
            ("interface e9".to_owned(), 0),
            ("file tf".to_owned(), 0),
        ]
    );
    grouped.groups[0].member_weights = true;
    assert_eq!(list(&grouped).len(), 6);
    grouped.virtual_routers[1].config.priority = Priority::OWNER;
    assert_eq!(list(&grouped)[1].1, 0, "owners do not weigh");
}

#[test]
fn a_link_that_flaps_is_no_fault_when_changes_must_last() {
    let mut slow = setup(&[(1, 100)]);
    let delays = Delays {
        up: ms(500),
        down: ms(100_000),
    };
    slow.interface_delays.insert("e1".into(), delays);
    let mut lab = Lab::started(slow);
    lab.link("e1", false);
    lab.sleep(ms(200));
    lab.link("e1", true);
    lab.sleep(ms(3000));
    assert_eq!(lab.state(1), State::Backup);
    lab.link("e1", false);
    lab.sleep(ms(1990));
    assert_eq!(lab.state(1), State::Active);
    lab.sleep(ms(10));
    assert_eq!(
        lab.state(1),
        State::Fault,
        "the delay ends before the others lose patience"
    );
}

#[test]
fn processes_are_counted() {
    let mut counting = setup(&[(1, 100)]);
    counting.processes = vec![ProcessConfig {
        name: "web".into(),
        quorum: 2,
        quorum_max: Some(3),
        delays: Delays {
            up: ms(0),
            down: ms(1000),
        },
    }];
    counting.virtual_routers[0].track = vec![Tracked::fault(TrackedObject::Process("web".into()))];
    let mut lab = Lab::started(counting);
    assert_eq!(lab.state(1), State::Initialize);
    lab.all.handle_process_count(lab.now, "web", 2);
    assert_eq!(lab.state(1), State::Backup);
    lab.all.handle_process_count(lab.now, "web", 4);
    lab.sleep(ms(999));
    assert_eq!(lab.state(1), State::Backup);
    lab.sleep(ms(1));
    assert_eq!(lab.state(1), State::Fault);
}

#[test]
fn scripts_are_asked_for_when_they_are_due() {
    let mut checking = setup(&[(1, 100)]);
    checking.scripts = vec![ScriptConfig::new("chk")];
    let mut lab = Lab::started(checking);
    lab.clear();
    for _ in 0..3 {
        lab.sleep(ms(900));
        lab.all.handle_script_exit(lab.now, "chk", true);
    }
    let runs = lab.tasks.iter().filter(|task| {
        matches!(
            task,
            Task::Script {
                command: ScriptCommand::Run,
                ..
            }
        )
    });
    assert_eq!(runs.count(), 3);
}

// ---- Announcements

#[test]
fn announcements_keep_the_interface_s_pace_and_end_with_the_state() {
    let mut paced = setup(&[(1, 255)]);
    paced.pacing = Pacing {
        arp: ms(100),
        na: ms(0),
    };
    for last in [201, 202] {
        paced.virtual_routers[0]
            .config
            .addresses
            .push(VirtualAddress {
                address: Ipv4Addr::new(198, 51, 100, last).into(),
                interface: "e1".into(),
            });
    }
    let mut lab = Lab::started(paced);
    let announced = |lab: &Lab| {
        let announce = |task: &&Task| {
            matches!(
                task,
                Task::Router {
                    command: Command::Announce(_),
                    ..
                }
            )
        };
        lab.tasks.iter().filter(announce).count()
    };
    assert_eq!(announced(&lab), 1);
    lab.sleep(ms(550));
    assert_eq!(announced(&lab), 6);
    lab.sleep(ms(900));
    assert_eq!(announced(&lab), 15, "none is lost");
    lab.sleep(ms(4000));
    lab.clear();
    lab.link("e1", false);
    lab.sleep(ms(2000));
    assert_eq!(announced(&lab), 0);
}

#[test]
fn what_a_reload_takes_away_is_not_announced_any_more() {
    let with = |lasts: &[u8]| {
        let mut paced = setup(&[(1, 255)]);
        paced.pacing.arp = ms(100);
        let vips = lasts.iter().map(|last| VirtualAddress {
            address: Ipv4Addr::new(198, 51, 100, *last).into(),
            interface: "e1".into(),
        });
        paced.virtual_routers[0].config.addresses = vips.collect();
        paced
    };
    let mut lab = Lab::started(with(&[201, 202]));
    lab.all.reload(lab.now, with(&[201])).unwrap();
    lab.drain();
    lab.clear();
    lab.sleep(ms(4000));
    let gone = IpAddr::from([198, 51, 100, 202]);
    let spoken = lab.tasks.iter().any(|task| {
        matches!(task, Task::Router { command: Command::Announce(announcement), .. } if announcement.address == gone)
    });
    assert!(!spoken && !lab.tasks.is_empty());
}

// ---- Reload

#[test]
fn what_is_the_same_goes_on() {
    let mut lab = Lab::started(setup(&[(1, 255), (2, 100)]));
    let due = lab.all.poll_timeout();
    lab.clear();
    let mut other = setup(&[(2, 100), (1, 255)]);
    other.virtual_routers[0].name = "renamed".into();
    lab.all.reload(lab.now, other).unwrap();
    lab.drain();
    assert!(lab.sent.is_empty() && lab.tasks.is_empty() && lab.notices.is_empty());
    assert_eq!(lab.all.poll_timeout(), due);
    assert_eq!(lab.state(1), State::Active);
    let id = lab.all.by_name("renamed").unwrap();
    assert_eq!(lab.all.virtual_routers().next().unwrap().0, id);
}

#[test]
fn what_is_gone_leaves_and_what_is_new_starts() {
    let mut lab = Lab::started(setup(&[(1, 255), (2, 255)]));
    lab.clear();
    lab.all
        .reload(lab.now, setup(&[(2, 255), (3, 255)]))
        .unwrap();
    lab.drain();
    assert_eq!(lab.sent, [(1, 0)]);
    assert_eq!(lab.told(), ["VI_1 INIT", "VI_3 FAULT"]);
    assert_eq!(lab.all.by_name("VI_1"), None);
    lab.reach();
    lab.drain();
    assert_eq!(lab.states(), [State::Active, State::Backup]);
}

#[test]
fn a_router_that_leaves_its_group_is_freed_of_its_faults() {
    let mut lab = Lab::started(pair(100));
    lab.link("e2", false);
    assert_eq!(lab.states(), [State::Fault, State::Fault]);
    lab.all
        .reload(lab.now, setup(&[(1, 100), (2, 100)]))
        .unwrap();
    assert_eq!(lab.states(), [State::Backup, State::Fault]);
    lab.all.reload(lab.now, pair(100)).unwrap();
    assert_eq!(lab.states(), [State::Fault, State::Fault]);
}

#[test]
fn the_same_identifier_twice_is_a_fault_of_the_second() {
    let mut twice = setup(&[(1, 100), (2, 100)]);
    twice.virtual_routers[1].config.vrid = Vrid::new(1).unwrap();
    twice.virtual_routers[1].config.interface = "e1".into();
    let mut lab = Lab::started(twice);
    assert_eq!(lab.states(), [State::Backup, State::Fault]);
    lab.clear();
    lab.all
        .reload(lab.now, setup(&[(1, 100), (2, 100)]))
        .unwrap();
    lab.reach();
    assert_eq!(lab.states(), [State::Backup, State::Backup]);
}

#[test]
fn setups_that_do_not_hang_together_are_refused_and_change_nothing() {
    let mut lab = Lab::started(pair(255));
    let mut unknown = pair(100);
    unknown.groups[0].members.push("VI_3".into());
    let mut twice = pair(100);
    twice.groups.push(GroupConfig {
        name: "G2".into(),
        ..group(&[1])
    });
    let mut names = setup(&[(1, 100), (2, 100)]);
    names.virtual_routers[1].name = "VI_1".into();
    let mut script = setup(&[(1, 100)]);
    script.virtual_routers[0].track = vec![Tracked::fault(TrackedObject::Script("no".into()))];
    let mut broken = setup(&[(1, 100)]);
    broken.virtual_routers[0].config.down_timer_adverts = 0;
    for (setup, message) in [
        (unknown, "G: there is no virtual router VI_3"),
        (twice, "VI_1 is in two sync groups"),
        (names, "the name VI_1 is used twice"),
        (script, "there is no script no"),
        (
            broken,
            "VI_1: 0 missed advertisements are not within 1 and 100",
        ),
    ] {
        let error = lab.all.reload(lab.now, setup).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(lab.states(), [State::Active, State::Active]);
    }
}

#[test]
fn shutdown_tells_of_routers_first_and_then_of_groups() {
    let mut lab = Lab::started(pair(255));
    lab.clear();
    lab.all.shutdown(lab.now);
    lab.drain();
    assert_eq!(lab.sent, [(1, 0), (2, 0)]);
    assert_eq!(lab.told(), ["VI_1 INIT", "VI_2 INIT", "G INIT"]);
    assert_eq!(lab.all.poll_timeout(), None);
}

#[test]
fn datagrams_find_their_router() {
    let mut lab = Lab::started(setup(&[(1, 100)]));
    let received = Received {
        arrived: lab.now,
        datagram: Datagram::V4(&[0x45; 10]),
    };
    let refused = lab.all.handle_packet(lab.now, &"e1".into(), &received);
    assert_eq!(refused, Err(Discard::TooShort));
    assert_eq!(lab.hear(1, 150), Ok(Heard::Followed));
    assert_eq!(lab.all.unknown_vrids(), 0);
}

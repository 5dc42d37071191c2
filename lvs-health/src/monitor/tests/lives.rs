//! What happens to checks in a longer life: sharing, suspension, reload, outcomes from outside, many at once.

use super::*;
use crate::{BfdCheck, FileCheck, PassiveCheck};

fn shared(timing: Timing) -> ServerConfig {
    let config = CheckerConfig {
        share: true,
        ..tcp(22, timing)
    };
    ServerConfig::new(vec![config])
}

#[test]
fn one_probe_speaks_for_all_servers_that_share_it() {
    let mut world = World::new();
    let one = world.monitor.add_server(world.now, shared(timing(4, 0, 1)));
    let other = world.monitor.add_server(world.now, shared(timing(4, 0, 1)));
    world.run(6.0, |at, _| if at > 4.0 { Reply::Refuse } else { OK });
    assert_eq!(world.attempts, ["@1", "@5"]);
    assert_eq!(
        world.story(),
        ["C0^1", "C0^1", "C0v5x1", "C0v5x1", "Sv5", "Sv5"]
    );
    assert_eq!(world.monitor.checkers(one).next().unwrap().servers, 2);
    // Who comes later knows at once.
    let late = world.monitor.add_server(world.now, shared(timing(4, 0, 1)));
    assert_eq!(world.monitor.is_up(late), Some(false));
    // Another timing is another check.
    world.monitor.add_server(world.now, shared(timing(5, 0, 1)));
    world.monitor.remove_server(one).unwrap();
    world.monitor.remove_server(other).unwrap();
    world.run(9.0, |_, _| OK);
    assert_eq!(world.monitor.is_up(late), Some(true));
    world.monitor.remove_server(late).unwrap();
    world.monitor.check_invariants();
}

#[test]
fn suspended_server_stays_as_it_is() {
    let mut world = World::new();
    let server = world.add(vec![tcp(22, timing(4, 0, 1))]);
    world.run(2.0, |_, _| OK);
    world
        .monitor
        .set_suspended(world.now, server, true)
        .unwrap();
    assert_eq!(world.monitor.poll_timeout(), None);
    world.run(100.0, |_, _| Reply::Refuse);
    assert_eq!(world.attempts, ["@1"]);
    assert_eq!(world.monitor.is_up(server), Some(true));
    world.now += Duration::from_secs(99);
    world
        .monitor
        .set_suspended(world.now, server, false)
        .unwrap();
    world.run(102.0, |_, _| Reply::Refuse);
    assert_eq!(
        world.monitor.is_up(server),
        Some(false),
        "looked at within a second"
    );
    assert_eq!(world.attempts.len(), 2);
}

#[test]
fn suspension_of_one_leaves_a_shared_check_to_the_others() {
    let mut world = World::new();
    let one = world.monitor.add_server(world.now, shared(timing(4, 0, 1)));
    let other = world.monitor.add_server(world.now, shared(timing(4, 0, 1)));
    world.monitor.set_suspended(world.now, one, true).unwrap();
    world.run(2.0, |_, _| Reply::Refuse);
    assert_eq!(world.story(), ["C0v1x1", "Sv1"], "said of the other alone");
    assert_eq!(world.monitor.is_up(other), Some(false));
    world.monitor.set_suspended(world.now, one, false).unwrap();
    world.run(2.0, |_, _| Reply::Refuse);
    assert_eq!(world.story()[2..], ["Sv1"], "told when it is resumed");
}

#[test]
fn change_of_configuration_keeps_what_is_known() {
    let mut world = World::new();
    let server = world.add(vec![tcp(22, timing(4, 0, 1)), tcp(23, timing(4, 0, 1))]);
    world.run(2.0, |_, _| Reply::Refuse);
    assert_eq!(world.monitor.is_up(server), Some(false));
    // The same checks under another timing, in another order: still down, no event.
    let config = ServerConfig::new(vec![tcp(23, timing(6, 1, 1)), tcp(22, timing(4, 0, 1))]);
    world
        .monitor
        .update_server(world.now, server, config)
        .unwrap();
    world.monitor.check_invariants();
    assert_eq!(world.story(), ["C0v1x1", "Sv1", "C1v1x1"]);
    assert_eq!(world.monitor.is_up(server), Some(false));
    // One that failed goes away, a new one counts as up until it has run.
    let config = ServerConfig::new(vec![tcp(22, timing(4, 0, 1)), tcp(24, timing(4, 0, 1))]);
    world
        .monitor
        .update_server(world.now, server, config)
        .unwrap();
    assert_eq!(world.monitor.is_up(server), Some(false), "22 is still down");
    let config = ServerConfig::new(vec![tcp(24, timing(4, 0, 1))]);
    world
        .monitor
        .update_server(world.now, server, config)
        .unwrap();
    assert_eq!(world.monitor.is_up(server), Some(true));
    world.run(1.9, |_, _| OK);
    assert_eq!(world.story()[3..], ["S^1"]);
    let gone = world.monitor.remove_server(server);
    assert_eq!(gone, Ok(()));
    let config = ServerConfig::new(Vec::new());
    assert_eq!(
        world.monitor.update_server(world.now, server, config),
        Err(UnknownServer)
    );
}

#[test]
fn outcomes_from_outside_count_at_once() {
    let mut world = World::new();
    let config = |checker: Box<dyn crate::Checker>| CheckerConfig {
        checker,
        ..tcp(22, timing(4, 3, 1))
    };
    let file = FileCheck {
        weight: 1,
        reverse: false,
    };
    let checkers = vec![config(Box::new(file)), config(Box::new(BfdCheck::new("b")))];
    let server = world.add(checkers);
    assert_eq!(world.monitor.poll_timeout(), None, "nothing is asked");
    let now = world.now;
    let tell = |world: &mut World, value| {
        let (outcome, adjustment) = file.judge(value);
        let told = world
            .monitor
            .handle_outcome(now, server, 0, outcome, adjustment);
        told.unwrap();
    };
    tell(&mut world, 5);
    tell(&mut world, 5);
    tell(&mut world, -3);
    let down = BfdCheck::judge(false);
    let told = world
        .monitor
        .handle_outcome(now, server, 1, down, Adjustment::None);
    told.unwrap();
    tell(&mut world, i64::from(i32::MIN));
    let up = BfdCheck::judge(true);
    let told = world
        .monitor
        .handle_outcome(now, server, 1, up, Adjustment::None);
    told.unwrap();
    tell(&mut world, 0);
    world.run(0.0, |_, _| OK);
    assert_eq!(
        world.story(),
        [
            "C0^0", "W5@0", "W-3@0", "C1v0x1", "Sv0", "C0v0x1", "W0@0", "C1^0", "C0^0", "S^0"
        ]
    );
    assert_eq!(
        world.failures(),
        [Failure::BfdDown, Failure::FileFault(i64::from(i32::MIN))]
    );
    let missing = world
        .monitor
        .handle_outcome(now, server, 2, Outcome::Up, Adjustment::None);
    assert_eq!(missing, Err(UnknownServer));
}

#[test]
fn failures_seen_in_traffic_take_a_server_out_for_a_while() {
    let mut world = World::new();
    let passive = PassiveCheck::new(3, Duration::from_secs(10));
    let checker = CheckerConfig {
        checker: Box::new(passive),
        ..tcp(22, timing(4, 0, 1))
    };
    let server = world.add(vec![checker]);
    let see = |world: &mut World, outcomes: &[bool]| {
        for up in outcomes {
            let outcome = match up {
                true => Outcome::Up,
                false => Outcome::Down(Failure::ConnectRefused),
            };
            world.monitor.report(world.now, server, outcome).unwrap();
        }
    };
    see(&mut world, &[false, false, true, false, false]);
    assert_eq!(world.monitor.is_up(server), Some(true), "not in a row");
    see(&mut world, &[false]);
    assert_eq!(world.monitor.is_up(server), Some(false));
    see(&mut world, &[true]);
    assert_eq!(
        world.monitor.is_up(server),
        Some(false),
        "its time is not over"
    );
    world.run(11.0, |_, _| OK);
    assert_eq!(world.story(), ["C0v0x1", "Sv0", "C0^10", "S^10"]);
    assert_eq!(world.failures(), [Failure::Passive(3)]);
    // The second and third time in a row are longer.
    see(&mut world, &[false; 3]);
    world.run(21.0, |_, _| OK);
    see(&mut world, &[false; 3]);
    world.run(60.0, |_, _| OK);
    assert_eq!(
        world.story()[4..],
        [
            "C0v10x1", "Sv10", "C0^20", "S^20", "C0v20x1", "Sv20", "C0^40", "S^40"
        ]
    );
}

#[test]
fn rise_asks_for_successes_in_a_row() {
    let mut world = World::new();
    let timing = Timing {
        rise: 3,
        ..timing(1, 0, 1)
    };
    world.add(vec![tcp(22, timing)]);
    world.run(9.0, |at, _| match at {
        at if at < 2.0 || at == 4.0 => Reply::Refuse,
        _ => OK,
    });
    assert_eq!(world.story(), ["C0v1x1", "Sv1", "C0^7", "S^7"]);
}

#[test]
fn jitter_spreads_intervals_and_slow_answers_do_not_stretch_them() {
    let mut world = World::new();
    let timing = Timing {
        base: IntervalBase::Start,
        jitter: 10,
        ..timing(10, 0, 1)
    };
    world.add(vec![tcp(22, timing)]);
    let mut starts = Vec::new();
    // Every attempt takes 2 s.
    world.run(1000.0, |at, _| {
        starts.push(at);
        Reply::Silent
    });
    let gaps: Vec<f64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(
        gaps.iter().all(|gap| (9.0..=11.0).contains(gap)),
        "{gaps:?}"
    );
    assert!(gaps.iter().any(|gap| *gap < 9.7) && gaps.iter().any(|gap| *gap > 10.3));
}

#[test]
fn what_is_due_at_once_is_spread_at_the_given_rate() {
    let start = Instant::now();
    let mut monitor = Monitor::new(1);
    monitor.set_start_rate(20_000);
    for port in 1..=1000 {
        monitor.add_server(start, ServerConfig::new(vec![tcp(port, timing(5, 0, 1))]));
    }
    let mut now = start;
    let (mut begun, mut first_burst) = (0, 0);
    while begun < 1000 {
        now = monitor.poll_timeout().unwrap();
        monitor.handle_timeout(now);
        while let Some(command) = monitor.poll_command() {
            if let Command::Connect { probe, .. } = command {
                begun += 1;
                monitor.handle_connected(now, probe, Ok(()));
            }
        }
        monitor.check_invariants();
        if first_burst == 0 {
            first_burst = begun;
        }
    }
    let took = now - start - Duration::from_secs(1);
    let wanted = Duration::from_micros(44_900)..=Duration::from_micros(50_000);
    assert!(wanted.contains(&took), "{took:?}");
    assert!(first_burst <= 101, "{first_burst}");
    assert_eq!(monitor.take_lateness(), Duration::ZERO);
    monitor.handle_timeout(now + Duration::from_secs(7));
    assert!(monitor.take_lateness() > Duration::from_secs(1));
}

//! A director's process between real TCP stacks, in network namespaces of its own; most tests run with one worker and
//! with two.
//!
//! Without the right to make namespaces the tests are skipped, and say so.

#![allow(clippy::unwrap_used)] // without the test harness clippy does not see that this is a test

mod asking;
mod command_line;
mod control;
mod devices;
mod editing;
mod forwarding;
mod ftp;
mod fullnat;
#[path = "../../../ipvsadm/tests/generated/mod.rs"]
mod generated;
mod groups;
mod habits;
mod health;
mod hosts;
mod hosts_own;
mod life;
mod marks;
mod methods;
mod mishaps;
mod notify;
mod pair;
mod place;
mod reloads;
mod routers;
mod selftest;
mod setups;
mod stage;
mod statics;
mod surroundings;
mod telling;
mod tunnels;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let mut arguments = Arguments::from_args();
    // Timings are part of what is tested: leave the directors some of the machine.
    arguments.test_threads.get_or_insert(2);
    let mut trials = command_line::trials();
    trials.extend(habits::plain_trials());
    match netlab::enter() {
        Ok(_) => {
            trials.extend(forwarding::trials());
            trials.extend(tunnels::trials());
            trials.extend(methods::trials());
            trials.extend(fullnat::trials());
            trials.extend(groups::trials());
            trials.extend(ftp::trials());
            trials.extend(devices::trials());
            trials.extend(life::trials());
            trials.extend(reloads::trials());
            trials.extend(marks::trials());
            trials.extend(surroundings::trials());
            trials.extend(statics::trials());
            trials.extend(editing::trials());
            trials.extend(telling::trials());
            trials.extend(asking::trials());
            trials.extend(health::trials());
            trials.extend(hosts::trials());
            trials.extend(hosts_own::trials());
            trials.extend(selftest::trials());
            trials.extend(setups::trials());
            trials.extend(pair::trials());
            trials.extend(notify::trials());
            trials.extend(routers::trials());
            trials.extend(control::trials());
            trials.extend(mishaps::trials());
            trials.extend(habits::trials());
        }
        Err(error) => println!("skipped: end-to-end tests need network namespaces: {error}"),
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    stage::clean_up();
    conclusion.exit();
}

/// A test that runs with one worker and with two.
fn with_workers(name: &'static str, test: fn(u32)) -> Vec<Trial> {
    [1, 2]
        .into_iter()
        .map(|workers| {
            Trial::test(format!("{name}::workers_{workers}"), move || {
                stage::DEVICE.set("auto");
                test(workers);
                Ok(())
            })
        })
        .collect()
}

/// A test that runs with one worker and with two, with packet rings and with AF_XDP sockets.
fn with_devices(name: &'static str, test: fn(u32)) -> Vec<Trial> {
    let mut trials = with_workers(name, test);
    if !stage::has_xdp() {
        println!("skipped: {name} with AF_XDP: BPF is not permitted");
        return trials;
    }
    trials.extend([1, 2].into_iter().map(|workers| {
        Trial::test(format!("{name}::xdp::workers_{workers}"), move || {
            stage::DEVICE.set("xdp");
            test(workers);
            Ok(())
        })
    }));
    trials
}

fn once(name: &'static str, test: fn()) -> Trial {
    Trial::test(name, move || {
        stage::DEVICE.set("auto");
        test();
        Ok(())
    })
}

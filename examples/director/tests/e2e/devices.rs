//! Which devices a director takes, what it says of that, and what is left of them.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use libtest_mimic::Trial;
use lvs_fwd::device::xdp::{self, PacketMemory, XdpClaim, XdpConfig, XdpError};
use netlab::Namespace;

use crate::stage::{Conf, DEVICE, Director, Stage, has_xdp, vip};
use crate::{once, with_workers};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![once(
        "without_bpf_auto_takes_rings_and_says_why",
        without_bpf_auto_takes_rings,
    )];
    for (name, test) in [
        ("pnet_shares_evenly", pnet_shares_evenly as fn(u32)),
        (
            "large_transfer_by_pnet_arrives_intact",
            large_transfer_by_pnet,
        ),
    ] {
        trials.extend(with_workers(name, test));
    }
    if has_xdp() {
        trials.extend([
            once("xdp_claim_takes_no_more_than_the_service", || {
                DEVICE.set("xdp");
                crate::forwarding::claim_takes_no_more_than_the_service();
            }),
            once("steering_programs_are_gone_after_a_kill", programs_are_gone),
            once("auto_says_what_it_takes_and_why", auto_says_why),
            once("xdp_refuses_what_it_can_not_carry", xdp_refuses),
            once(
                "an_interface_that_changes_is_opened_anew",
                interface_changes,
            ),
        ]);
    }
    trials
}

fn pnet_shares_evenly(workers: u32) {
    DEVICE.set("pnet");
    let stage = Stage::nat(2);
    let director = Director::start(&stage, &Conf::nat(2).text(), workers);
    assert_eq!(stage.spread(20), [10, 10]);
    assert!(director.log().contains("forwarding at ext0 by pnet, "));
}

/// Senders cut nothing, so that the device has to.
fn large_transfer_by_pnet(workers: u32) {
    DEVICE.set("pnet");
    let stage = Stage::nat(1);
    let _director = Director::start(&stage, &Conf::nat(1).text(), workers);
    let length = 20 << 20;
    let path = format!("/bytes/{length}");
    let response = stage
        .client
        .http_get(vip(), &path, Duration::from_secs(10))
        .unwrap();
    assert_eq!(response.hash, netlab::bytes_hash(length));
}

fn auto_says_why() {
    let stage = Stage::nat(1);
    let director = Director::start(&stage, &Conf::nat(1).text(), 1);
    let log = director.log();
    assert!(
        log.contains("devices: AF_XDP where the driver does not copy frames, else packet rings"),
        "{log}"
    );
    assert!(log.contains("forwarding at ext0 by ring, "), "{log}");
    assert!(
        log.contains("; not by xdp: its driver copies frames"),
        "{log}"
    );
    assert_eq!(stage.ask().unwrap(), "rs1");
}

/// As in a container or an unprivileged user namespace.
fn without_bpf_auto_takes_rings() {
    let stage = Stage::nat(1);
    let conf = Conf::nat(1).text();
    let director = Director::launch_without_bpf(&stage.director, &conf);
    director.wait_for_log("running ");
    let log = director.log();
    assert!(
        log.contains("devices: packet rings, because AF_XDP does not work: BPF is not permitted"),
        "{log}"
    );
    assert_eq!(stage.ask().unwrap(), "rs1");
    drop(director);
    DEVICE.set("xdp");
    let mut director = Director::launch_without_bpf(&stage.director, &conf);
    assert!(!director.wait().success());
    director.wait_for_log("BPF is not permitted");
    assert!(
        director
            .log()
            .contains("AF_XDP is asked for, and does not work here")
    );
}

fn programs_are_gone() {
    DEVICE.set("xdp");
    let stage = Stage::nat(1);
    let director = Director::start(&stage, &Conf::nat(1).text(), 2);
    assert_eq!(stage.ask().unwrap(), "rs1");
    assert!(matches!(
        try_to_open(&stage.director),
        Err(XdpError::Busy(_))
    ));
    director.kill();
    // The address is still there, and the host answers for it: nothing is taken from it any more.
    let outcome = stage
        .client
        .run(|| TcpStream::connect_timeout(&vip(), Duration::from_secs(2)));
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    try_to_open(&stage.director).unwrap();
    let _director = Director::start(&stage, &Conf::nat(1).text(), 1);
    assert_eq!(stage.ask().unwrap(), "rs1");
}

fn xdp_refuses() {
    DEVICE.set("xdp");
    let stage = Stage::nat(1);
    let mut netlink = stage.director.netlink().unwrap();
    let index = netlink.link_by_name("ext0").unwrap().index;
    netlink.set_mtu(index, 9000).unwrap();
    let mut director = Director::launch(&stage.director, &Conf::nat(1).text(), 1);
    assert!(!director.wait().success());
    director.wait_for_log("frames of an MTU of 9000 bytes are too large, 3818 bytes fit");
    assert!(
        director.log().contains("`--device auto` or `ring`"),
        "{}",
        director.log()
    );
}

fn interface_changes() {
    DEVICE.set("xdp");
    let stage = Stage::nat(1);
    let director = Director::start(&stage, &Conf::nat(1).text(), 2);
    assert_eq!(stage.ask().unwrap(), "rs1");
    for (namespace, name) in [(&stage.client, "eth0"), (&stage.director, "ext0")] {
        let mut netlink = namespace.netlink().unwrap();
        let index = netlink.link_by_name(name).unwrap().index;
        netlink.set_mtu(index, 2500).unwrap();
    }
    director.wait_for_log("interface ext0 has changed: opened anew");
    director.wait_until("the new devices", || {
        director.log().matches("forwarding at ext0 by xdp").count() == 2
    });
    assert_eq!(stage.ask().unwrap(), "rs1");
}

/// Opens the outer interface with a program of the test's own, for a moment.
fn try_to_open(namespace: &Namespace) -> Result<(), XdpError> {
    let mut netlink = namespace.netlink().unwrap();
    let link = netlink.link_by_name("ext0").unwrap();
    namespace.run(|| {
        let claim = XdpClaim::new()?;
        let config = XdpConfig::new(link.index, link.mac.unwrap(), link.mtu);
        xdp::open(&config, &claim, &[PacketMemory::new(1500, 4096)?]).map(drop)
    })
}

//! Real servers behind tunnels.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::stage::{Conf, Director, RealServer, Stage, VIP};
use crate::with_devices;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (name, test) in [
        ("tun_rr_shares_evenly", tun_rr_shares_evenly as fn(u32)),
        ("tun_and_dr_serve_one_address", tun_and_dr_serve_one_address),
        (
            "large_transfer_through_a_tunnel_arrives_intact",
            large_transfer_through_a_tunnel_arrives_intact,
        ),
    ] {
        trials.extend(with_devices(name, test));
    }
    trials
}

fn tunnel_conf(servers: usize) -> Conf {
    Conf {
        method: "TUN",
        ..Conf::direct(servers)
    }
}

fn tun_rr_shares_evenly(workers: u32) {
    let stage = Stage::answering("tun", 2);
    let director = Director::start(&stage, &tunnel_conf(2).text(), workers);
    assert_eq!(stage.spread(100), [50, 50]);
    // In this order: the last acknowledgements are still on their way, and are counted before they are unpacked.
    let unpacked: u64 = stage.realservers.iter().map(RealServer::unpacked).sum();
    let stats = director.service().stats;
    assert_eq!(
        (stats.conns, stats.outpkts),
        (100, 0),
        "replies do not come by"
    );
    assert!(
        (400..=stats.inpkts).contains(&unpacked),
        "{unpacked} of {stats:?}"
    );
}

/// Two blocks of the configuration, one method each.
fn tun_and_dr_serve_one_address(workers: u32) {
    let mut stage = Stage::one_lan(2);
    for (n, mode) in ["dr", "tun"].into_iter().enumerate() {
        let realserver = RealServer::start(&stage.servers[n].0, mode).unwrap();
        stage.realservers.push(realserver);
    }
    let mut conf = Conf::direct(1);
    conf.extra = format!(
        "virtual_server {VIP} 80 {{\n    delay_loop 1\n    lb_algo rr\n    lb_kind TUN\n    protocol TCP\n    \
         real_server 198.51.100.12 80 {{\n        weight 1\n    }}\n}}\n"
    );
    let director = Director::start(&stage, &conf.text(), workers);
    assert_eq!(stage.spread(100), [50, 50]);
    assert_eq!(stage.realservers[0].unpacked(), 0);
    assert!(stage.realservers[1].unpacked() >= 200);
    let listing = director.ipvsadm(&["-Ln"]);
    assert!(
        listing.contains("198.51.100.11:80             Route")
            && listing.contains("198.51.100.12:80             Tunnel"),
        "{listing}"
    );
}

/// An upload, because that is what goes through the tunnel. The client begins with packets that are too large for it.
fn large_transfer_through_a_tunnel_arrives_intact(workers: u32) {
    const WORDS: u64 = (50 << 20) / 8;
    let stage = Stage::answering("tun", 1);
    let mut conf = tunnel_conf(1);
    conf.extra = format!(
        "virtual_server {VIP} 9000 {{\n    lb_algo rr\n    lb_kind TUN\n    protocol TCP\n    \
         real_server 198.51.100.11 9000 {{\n        weight 1\n    }}\n}}\n"
    );
    let _director = Director::start(&stage, &conf.text(), workers);
    let listener = stage.servers[0]
        .0
        .run(|| TcpListener::bind("0.0.0.0:9000"))
        .unwrap();
    let sink = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        received
    });
    let mut stream = stage
        .client
        .run(|| TcpStream::connect(format!("{VIP}:9000")))
        .unwrap();
    stream
        .set_write_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let sent: Vec<u8> = (0..WORDS)
        .flat_map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        .collect();
    stream.write_all(&sent).unwrap();
    drop(stream);
    assert!(
        sink.join().unwrap() == sent,
        "what arrived is what was sent"
    );
    assert!(
        stage.realservers[0].unpacked() > (50 << 20) / 1440,
        "{} packets, each no longer than the tunnel allows",
        stage.realservers[0].unpacked()
    );
}

//! What is looked at and changed on hosts: `realserver` and `host`.

use std::fs;

use libtest_mimic::Trial;
use lvs_fwd::netlink::Address;
use netlab::Namespace;

use crate::once;
use crate::stage::{Conf, Director, RealServer, Stage, VIP, director_in};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        once(
            "realserver_gives_everything_back",
            realserver_gives_everything_back,
        ),
        once(
            "a_killed_realserver_is_given_back_by_the_next",
            a_killed_realserver_is_given_back_by_the_next,
        ),
        once(
            "realserver_check_names_each_fault",
            realserver_check_names_each_fault,
        ),
        once("host_check_names_each_fault", host_check_names_each_fault),
    ]
}

/// Settings and addresses that a real server changes.
fn picture(namespace: &Namespace) -> (Vec<String>, Vec<Address>) {
    let settings = [
        "all/arp_ignore",
        "all/arp_announce",
        "all/rp_filter",
        "eth0/rp_filter",
    ];
    let settings = namespace.run(|| {
        let read = |name: &&str| {
            let text = fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}")).unwrap();
            format!("{name}={}", text.trim())
        };
        settings.iter().map(read).collect()
    });
    (settings, namespace.netlink().unwrap().addresses().unwrap())
}

/// With the strictest settings that a distribution has.
fn strict_host() -> (Stage, Namespace) {
    let stage = Stage::one_lan(1);
    let host = stage.servers[0].0.clone();
    host.sysctl("net.ipv4.conf.all.rp_filter", "1").unwrap();
    host.sysctl("net.ipv4.conf.eth0.rp_filter", "0").unwrap();
    (stage, host)
}

fn realserver_gives_everything_back() {
    let (_stage, host) = strict_host();
    let before = picture(&host);
    for mode in ["dr", "tun"] {
        let realserver = match RealServer::start(&host, mode) {
            Ok(realserver) => realserver,
            Err(log) => {
                assert!(mode == "tun" && log.contains("/dev/net/tun"), "{log}");
                assert_eq!(before, picture(&host), "a start that fails changes nothing");
                return println!("skipped: no TUN device here: {log}");
            }
        };
        let (settings, addresses) = picture(&host);
        assert_eq!(settings[..2], ["all/arp_ignore=1", "all/arp_announce=2"]);
        assert!(
            addresses
                .iter()
                .any(|address| address.addr.to_string() == VIP)
        );
        if mode == "tun" {
            assert_eq!(settings[2], "all/rp_filter=0");
            assert_eq!(
                settings[3], "eth0/rp_filter=1",
                "eth0 is as strict as before"
            );
        }
        let second = RealServer::start(&host, mode).err().unwrap();
        assert!(second.contains("already"), "{second}");
        realserver.terminate();
        assert_eq!(before, picture(&host), "{mode}");
    }
}

fn a_killed_realserver_is_given_back_by_the_next() {
    let (_stage, host) = strict_host();
    let before = picture(&host);
    RealServer::start(&host, "dr").unwrap().kill();
    assert_ne!(before, picture(&host));
    let next = RealServer::start(&host, "dr").unwrap();
    // Somebody changes his mind meanwhile: that stays.
    host.sysctl("net.ipv4.conf.all.arp_announce", "1").unwrap();
    next.terminate();
    let (settings, addresses) = picture(&host);
    assert_eq!(addresses, before.1);
    assert_eq!(settings[0], before.0[0]);
    assert_eq!(settings[1], "all/arp_announce=1");
}

fn realserver_check_names_each_fault() {
    let (_stage, host) = strict_host();
    host.default_route("198.51.100.10").unwrap();
    let before = picture(&host);
    let (status, output) = RealServer::check(&host, "dr");
    assert_eq!(status, 1);
    for text in [
        &format!("error: {VIP}: no interface has this address")[..],
        "error: eth0: arp_ignore is 0",
        "error: eth0: arp_announce is 0",
        "do: sysctl -w net.ipv4.conf.all.arp_ignore=1",
    ] {
        assert!(output.contains(text), "{output}");
    }
    let (_, output) = RealServer::check(&host, "tun");
    assert!(
        output.contains("error: all: rp_filter is strict"),
        "{output}"
    );
    assert!(output.contains("nobody unpacks"), "{output}");
    assert_eq!(before, picture(&host), "a check changes nothing");

    let realserver = RealServer::start(&host, "dr").unwrap();
    let (status, output) = RealServer::check(&host, "dr");
    assert_eq!((status, &*output), (0, "nothing wrong was found\n"));
    realserver.terminate();

    host.add_address("eth0", &format!("{VIP}/24")).unwrap();
    let (_, output) = RealServer::check(&host, "dr");
    assert!(
        output.contains("it is at eth0, where the host answers"),
        "{output}"
    );
    host.add_address("lo", "203.0.113.9/24").unwrap();
    if let Ok(realserver) = RealServer::start(&host, "tun") {
        let (_, output) = RealServer::check(&host, "tun");
        assert!(!output.contains("rp_filter is strict"), "{output}");
        assert!(!output.contains("nobody unpacks"), "{output}");
        realserver.terminate();
    }
}

fn host_check_names_each_fault() {
    let stage = Stage::one_lan(1);
    let file = std::env::temp_dir().join(format!("director-e2e-host-{}.conf", std::process::id()));
    let look = |conf: &str| {
        fs::write(&file, conf).unwrap();
        let path = file.to_str().unwrap();
        let arguments = ["host", "--check", "-f", path];
        let (status, output, errors) = director_in(&stage.director, &arguments);
        assert_eq!(errors, "");
        (status, output)
    };
    let mut conf = Conf::direct(1);
    let (status, output) = look(&conf.text());
    assert_eq!(status, 0, "{output}");

    conf.method = "NAT";
    conf.servers.push(("192.0.2.99 80".into(), 1));
    stage.director.sysctl("net.ipv4.ip_forward", "0").unwrap();
    stage
        .director
        .sysctl("net.ipv4.conf.all.send_redirects", "1")
        .unwrap();
    stage
        .director
        .sysctl("net.ipv4.conf.all.rp_filter", "1")
        .unwrap();
    let (status, output) = look(&conf.text());
    assert_eq!(status, 1);
    for text in [
        "192.0.2.99:80: there is no way to this real server: no-route",
        "warning: net.ipv4.ip_forward: this host does not forward",
        "warning: ext0: NAT servers and clients share this interface",
        "warning: net.ipv4.conf.all.rp_filter",
        "can't be seen from here",
    ] {
        assert!(output.contains(text), "{text} in {output}");
    }

    // A DR server behind a router, an interface that is not there, an address that nobody holds.
    stage.director.default_route("198.51.100.10").unwrap();
    conf.method = "DR";
    let text = conf.text().replace("interface ext0", "interface ext9");
    let (_, output) = look(&text);
    for text in [
        "this one is behind 198.51.100.10 at ext0",
        "error: ext9: there is no such interface",
    ] {
        assert!(output.contains(text), "{text} in {output}");
    }
    let service = conf
        .text()
        .split_once("virtual_server")
        .unwrap()
        .1
        .to_owned();
    let (_, output) = look(&format!("virtual_server{service}"));
    assert!(
        output.contains("no vrrp_instance of the file holds"),
        "{output}"
    );
    let (status, _, errors) = director_in(&stage.director, &["host", "--check", "-f", "/nowhere"]);
    assert_eq!(status, 2);
    assert!(errors.contains("/nowhere"), "{errors}");
    fs::remove_file(&file).unwrap();

    let director = Director::start(&stage, &Conf::direct(1).text(), 1);
    let path = director.file.to_str().unwrap();
    let (_, output, _) = director.beside(&["host", "--check", "-f", path, "--json"]);
    assert!(output.contains("\"code\":\"running\""), "{output}");
}

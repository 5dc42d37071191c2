//! The connection table (`-L -c`).

use std::fmt::Write;

use crate::protocol::ConnectionInfo;

use super::names::Names;
use super::{protocol_name, socket};

/// The whole listing, in the order given. `engine` shows what persistence engines found; without `names` everything is a number.
pub fn listing(connections: &[ConnectionInfo], engine: bool, names: Option<&Names>) -> String {
    let mut text = String::from("IPVS connection entries\n");
    let destination = if engine {
        format!("{:<18} {:<16} pe_data", "destination", "pe name")
    } else {
        "destination".into()
    };
    text.push_str(&format!(
        "pro expire {:<11} {:<18} {:<18} {destination}\n",
        "state", "source", "virtual"
    ));
    for connection in connections {
        text.push_str(&line(connection, engine, names));
        text.push('\n');
    }
    text
}

fn line(connection: &ConnectionInfo, engine: bool, names: Option<&Names>) -> String {
    // The template of a firewall-mark service has no protocol that ports could be named for.
    let protocol = (connection.protocol != 0).then_some(connection.protocol);
    let destination = socket(connection.destination, protocol, names);
    let mut text = format!(
        "{:<3} {:<6} {:<11} {:<18} {:<18} ",
        protocol_name(connection.protocol),
        minutes(connection.expires),
        connection.state,
        socket(connection.client, protocol, names),
        socket(connection.vip, protocol, names),
    );
    let written = match connection.engine.as_ref().filter(|_| engine) {
        Some(engine) => {
            let data = engine.data.split_whitespace().next().unwrap_or_default();
            write!(text, "{destination:<16} {:<18} {data}", engine.name)
        }
        None => write!(text, "{destination}"),
    };
    debug_assert!(written.is_ok(), "a string takes all");
    text
}

/// Minutes are not limited to 59.
fn minutes(seconds: u64) -> String {
    format!("{:02}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::EngineInfo;

    fn entry(protocol: u8, expires: u64, state: &str, addresses: [&str; 3]) -> ConnectionInfo {
        let [client, vip, destination] = addresses.map(|address| address.parse().unwrap());
        ConnectionInfo {
            protocol,
            client,
            vip,
            destination,
            local: None,
            state: state.into(),
            expires,
            engine: None,
        }
    }

    #[test]
    fn entries_are_aligned_and_never_cut() {
        let entries = [
            entry(
                6,
                894,
                "ESTABLISHED",
                ["203.0.113.5:50000", "192.0.2.10:80", "10.0.0.11:8080"],
            ),
            entry(
                6,
                350,
                "ASSURED",
                ["203.0.113.5:0", "192.0.2.10:443", "10.0.0.21:443"],
            ),
            entry(
                17,
                299,
                "UDP",
                ["203.0.113.9:5060", "192.0.2.10:5060", "10.0.0.31:5060"],
            ),
            entry(
                6,
                119,
                "FIN_WAIT",
                [
                    "[2001:db8::9]:54321",
                    "[2001:db8::80]:80",
                    "[2001:db8:0:1::a]:80",
                ],
            ),
            entry(
                0,
                100,
                "NONE",
                ["203.0.113.5:0", "0.0.0.7:0", "10.0.0.31:0"],
            ),
            entry(
                132,
                61,
                "C-ECHOED",
                ["203.0.113.5:5000", "192.0.2.10:2944", "10.0.0.11:2944"],
            ),
            entry(
                6,
                7201,
                "ESTABLISHED",
                ["203.0.113.5:50001", "192.0.2.10:80", "10.0.0.11:8080"],
            ),
        ];
        assert_eq!(
            listing(&entries, false, None),
            "\
IPVS connection entries
pro expire state       source             virtual            destination
TCP 14:54  ESTABLISHED 203.0.113.5:50000  192.0.2.10:80      10.0.0.11:8080
TCP 05:50  ASSURED     203.0.113.5:0      192.0.2.10:443     10.0.0.21:443
UDP 04:59  UDP         203.0.113.9:5060   192.0.2.10:5060    10.0.0.31:5060
TCP 01:59  FIN_WAIT    [2001:db8::9]:54321 [2001:db8::80]:80  [2001:db8:0:1::a]:80
IP  01:40  NONE        203.0.113.5:0      0.0.0.7:0          10.0.0.31:0
SCTP 01:01  C-ECHOED    203.0.113.5:5000   192.0.2.10:2944    10.0.0.11:2944
TCP 120:01 ESTABLISHED 203.0.113.5:50001  192.0.2.10:80      10.0.0.11:8080
"
        );
    }

    #[test]
    fn engine_data_has_columns_of_its_own() {
        let plain = entry(
            6,
            60,
            "NONE",
            ["203.0.113.9:0", "192.0.2.10:80", "10.0.0.31:80"],
        );
        let mut sip = entry(
            17,
            360,
            "NONE",
            ["203.0.113.9:0", "192.0.2.10:5060", "10.0.0.31:5060"],
        );
        sip.engine = Some(EngineInfo {
            name: "sip".into(),
            data: "abc123@host and more".into(),
        });
        assert_eq!(
            listing(&[sip, plain], true, None),
            "\
IPVS connection entries
pro expire state       source             virtual            destination        pe name          pe_data
UDP 06:00  NONE        203.0.113.9:0      192.0.2.10:5060    10.0.0.31:5060   sip                abc123@host
TCP 01:00  NONE        203.0.113.9:0      192.0.2.10:80      10.0.0.31:80
"
        );
    }

    #[test]
    fn ports_have_names_unless_numbers_are_wanted() {
        let names = Names::new("http 80/tcp", "");
        let entry = entry(
            6,
            60,
            "NONE",
            ["203.0.113.9:80", "192.0.2.10:80", "10.0.0.31:81"],
        );
        assert_eq!(
            line(&entry, false, Some(&names)),
            "TCP 01:00  NONE        203.0.113.9:http   192.0.2.10:http    10.0.0.31:81"
        );
    }
}

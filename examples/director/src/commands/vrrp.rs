//! `director vrrp`: how the virtual routers of the running director stand.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::STATUS_TROUBLE;
use super::status::duration;
use crate::control::ask;
use crate::control::protocol::SocketAddress;
use crate::control::vrrp::{InstanceInfo, OPERATION, VrrpInfo};
use crate::logging::chain;

/// Writes a table, or one JSON object. Returns the exit status: 0, or 2 if no director can be asked.
///
/// # Errors
///
/// Nothing can be written to `out` or `errors`.
pub fn run(json: bool, out: &mut impl Write, errors: &mut impl Write) -> io::Result<u8> {
    let info: VrrpInfo = match ask(&SocketAddress::from_env(), OPERATION, &()) {
        Ok(info) => info,
        Err(error) => {
            writeln!(errors, "{}", chain(&error))?;
            return Ok(STATUS_TROUBLE);
        }
    };
    if json {
        let text = serde_json::to_string(&info).map_err(io::Error::other)?;
        writeln!(out, "{text}")?;
    } else {
        out.write_all(table(&info).as_bytes())?;
    }
    Ok(0)
}

/// A line for each, and below it what explains it.
fn table(info: &VrrpInfo) -> String {
    if info.instances.is_empty() {
        return "there is no vrrp_instance\n".to_owned();
    }
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(info.instances.iter().map(row));
    let widths: Vec<usize> = (0..HEADINGS.len())
        .map(|at| rows.iter().map(|row| row[at].chars().count()).max())
        .map(Option::unwrap_or_default)
        .collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
        if let Some(instance) = number.checked_sub(1).map(|at| &info.instances[at]) {
            for line in explanations(instance) {
                let _ = writeln!(text, "    {line}");
            }
        }
    }
    text
}

fn row(instance: &InstanceInfo) -> [String; 8] {
    let priority = match instance.priority == instance.base_priority {
        true => instance.priority.to_string(),
        false => format!("{} (of {})", instance.priority, instance.base_priority),
    };
    let active = match &instance.active_router {
        _ if instance.state == "MASTER" => "this one".to_owned(),
        Some(other) => format!("{} ({})", other.address, other.priority),
        None => "unknown".to_owned(),
    };
    let addresses: Vec<String> = instance
        .addresses
        .iter()
        .chain(&instance.excluded)
        .map(|address| address.address.to_string())
        .collect();
    [
        instance.name.clone(),
        instance.state.clone(),
        duration(instance.since / 1000),
        priority,
        instance.virtual_router_id.to_string(),
        instance.interface.clone(),
        active,
        addresses.join(" "),
    ]
}

fn explanations(instance: &InstanceInfo) -> Vec<String> {
    let mut lines = Vec::new();
    if !instance.reason.is_empty() {
        lines.push(format!("{} because: {}", instance.state, instance.reason));
    }
    // What made it what it is need not be said twice.
    let others = instance.waits_for.iter();
    let others = others.filter(|text| **text != instance.reason);
    lines.extend(others.map(|text| format!("waits: {text}")));
    lines.extend(instance.complaints.iter().cloned());
    lines
}

const HEADINGS: [&str; 8] = [
    "INSTANCE",
    "STATE",
    "SINCE",
    "PRIORITY",
    "VRID",
    "INTERFACE",
    "MASTER",
    "ADDRESSES",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::vrrp::{ActiveInfo, AddressInfo};

    #[test]
    fn table_says_who_is_master_and_why() {
        let instance = InstanceInfo {
            name: "VI_1".into(),
            state: "BACKUP".into(),
            since: 61_000,
            reason: "started".into(),
            waits_for: vec!["its preemption delay ends in 3.0s".into()],
            priority: 90,
            base_priority: 150,
            virtual_router_id: 51,
            version: 2,
            interface: "eth0".into(),
            source: None,
            interval: 1000,
            group: None,
            active_router: Some(ActiveInfo {
                address: "192.0.2.12".parse().unwrap(),
                priority: 100,
                heard: 10,
            }),
            addresses: vec![AddressInfo {
                address: "192.0.2.100".parse().unwrap(),
                interface: "eth0".into(),
            }],
            excluded: Vec::new(),
            complaints: Vec::new(),
            statistics: std::collections::BTreeMap::new(),
        };
        let info = VrrpInfo {
            instances: vec![instance],
        };
        assert_eq!(
            table(&info),
            "\
INSTANCE  STATE   SINCE      PRIORITY     VRID  INTERFACE  MASTER            ADDRESSES
VI_1      BACKUP  1 min 1 s  90 (of 150)  51    eth0       192.0.2.12 (100)  192.0.2.100
    BACKUP because: started
    waits: its preemption delay ends in 3.0s
"
        );
    }
}

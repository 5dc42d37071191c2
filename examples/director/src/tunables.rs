//! The kernel's tunables (`net.ipv4.vs.*`) by their names: in a file beside the configuration (`keepalived.sysctl`, written
//! as for `sysctl.d`), by `director set` and in `director show tunables`.

use std::str::FromStr;
use std::time::Duration;

use lvs_sched::{Defence, Tunables};

use crate::beside::Fault;

/// A tunable and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The tunable's name, without `net.ipv4.vs.`.
    pub name: &'static str,
    /// The value, as it is shown.
    pub value: String,
}

/// Reads a file of tunables: `name = value` a line, with or without `net.ipv4.vs.` before the name, points or slashes in
/// it, comments behind `#` or `;` at the beginning of a line. Of two settings of one name the later counts.
///
/// # Errors
///
/// Everything that is wrong, by line and column.
pub fn parse(text: &str) -> Result<Vec<Setting>, Vec<Fault>> {
    let (mut settings, mut faults) = (Vec::<Setting>::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()) {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        match parse_setting(line) {
            Ok(setting) => {
                settings.retain(|other| other.name != setting.name);
                settings.push(setting);
            }
            Err(fault) => faults.push(Fault {
                line: number,
                ..fault
            }),
        }
    }
    if faults.is_empty() {
        Ok(settings)
    } else {
        Err(faults)
    }
}

/// Reads `name=value`.
///
/// # Errors
///
/// What is wrong, by column.
pub fn parse_setting(line: &str) -> Result<Setting, Fault> {
    let Some((name, value)) = line.split_once('=') else {
        let hint = Some("write NAME = VALUE".to_owned());
        return Err(Fault::at(
            line,
            line.trim(),
            "there is no value".into(),
            hint,
        ));
    };
    let (name, value) = (name.trim(), value.trim());
    let Some(tunable) = find(name) else {
        let (message, hint) = match why_not(name) {
            Some(why) => (
                format!("`{name}` has no effect here: {why}"),
                "leave it out",
            ),
            None => (
                format!("`{name}` is no tunable"),
                "`director show tunables` lists the names",
            ),
        };
        return Err(Fault::at(line, name, message, Some(hint.to_owned())));
    };
    let mut tunables = Tunables::default();
    if !(tunable.set)(&mut tunables, value) {
        let message = format!("`{value}` is no value of {}", tunable.name);
        let hint = Some(format!("it is {}", tunable.values));
        return Err(Fault::at(line, value, message, hint));
    }
    Ok(Setting {
        name: tunable.name,
        value: (tunable.get)(&tunables),
    })
}

/// Sets it. `false` if the value is none of this tunable's; then nothing has changed.
pub fn set(tunables: &mut Tunables, setting: &Setting) -> bool {
    find(setting.name).is_some_and(|tunable| (tunable.set)(tunables, &setting.value))
}

/// What a tunable is without anybody's wish.
pub fn default_of(name: &'static str) -> Option<Setting> {
    let tunable = find(name)?;
    let value = (tunable.get)(&Tunables::default());
    Some(Setting { name, value })
}

/// All, in the order of their names.
pub fn all(tunables: &Tunables) -> Vec<Setting> {
    let all = TABLE.iter();
    all.map(|tunable| Setting {
        name: tunable.name,
        value: (tunable.get)(tunables),
    })
    .collect()
}

/// What it means and which values it has.
pub fn describe(name: &str) -> Option<(&'static str, &'static str)> {
    find(name).map(|tunable| (tunable.meaning, tunable.values))
}

/// Free memory and buffers of the machine, in pages of 4 KiB; `None` if the system does not tell.
pub fn free_pages() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kilobytes = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Some((kilobytes("MemFree:")? + kilobytes("Buffers:").unwrap_or(0)) / 4)
}

/// Why the kernel's tunable of this name is none here.
fn why_not(name: &str) -> Option<&'static str> {
    let name = name.replace('/', ".");
    match name.strip_prefix("net.ipv4.vs.").unwrap_or(&name) {
        "conntrack" => Some("netfilter tracks no connections on the data path"),
        "snat_reroute" => Some("replies are routed as packets of the director's own anyway"),
        "debug_level" => Some("`director why` and the log tell about packets"),
        "est_cpulist" | "est_nice" => Some("there are no threads for rates"),
        _ => None,
    }
}

fn find(name: &str) -> Option<&'static Tunable> {
    let name = name.replace('/', ".");
    let name = name
        .strip_prefix("net.ipv4.vs.")
        .or_else(|| {
            name.strip_prefix("net.ipv4.")
                .filter(|name| *name == PORT_START)
        })
        .unwrap_or(&name);
    TABLE.iter().find(|tunable| tunable.name == name)
}

#[derive(Debug)]
struct Tunable {
    name: &'static str,
    meaning: &'static str,
    values: &'static str,
    get: fn(&Tunables) -> String,
    set: fn(&mut Tunables, &str) -> bool,
}

/// Any integer, as the kernel takes it; 0 is off.
fn flag(value: &str) -> Option<bool> {
    value.parse::<i32>().ok().map(|value| value != 0)
}

fn defence(value: &str) -> Option<Defence> {
    value.parse().ok().and_then(Defence::from_number)
}

fn seconds(value: &str) -> Option<Duration> {
    value
        .parse::<u32>()
        .ok()
        .map(|seconds| Duration::from_secs(seconds.into()))
}

fn within<T: FromStr + PartialOrd>(value: &str, from: T, to: T) -> Option<T> {
    let value = value.parse().ok()?;
    (from <= value && value <= to).then_some(value)
}

fn threshold(value: &str) -> Option<(u32, u32)> {
    let mut numbers = value
        .split_whitespace()
        .map(|number| number.parse::<u32>().ok());
    let pair = (numbers.next()??, numbers.next()??);
    (numbers.next().is_none() && (pair.0 < pair.1 || pair.1 == 0)).then_some(pair)
}

/// A row: name, place in [`Tunables`], how a value is read, how it is written.
macro_rules! table {
    ($($name:literal $($field:ident).+ $values:literal $meaning:literal $read:expr, $write:expr;)*) => {
        &[$(Tunable {
            name: $name,
            meaning: $meaning,
            values: $values,
            get: |tunables| {
                let write: fn(_) -> String = $write;
                write(tunables.$($field).+)
            },
            set: |tunables, value| {
                let read: fn(&str) -> Option<_> = $read;
                read(value).map(|value| tunables.$($field).+ = value).is_some()
            },
        }),*]
    };
}

const TABLE: &[Tunable] = table! {
    "am_droprate" am_droprate "any integer" "drop_packet 3 drops one in so many" |text| text.parse().ok(), |value: i32| value.to_string();
    "amemthresh" amemthresh "any integer" "memory is low below so many pages" |text| text.parse().ok(), |value: i32| value.to_string();
    "backup_only" backup_only "0 or 1" "forward nothing, only follow another director" flag, bit;
    "cache_bypass" cache_bypass "0 or 1" "without a server, packets of a mark go on to where they were sent" flag, bit;
    "conn_reuse_mode" conn_reuse_mode "0 or a bit mask" "what a SYN on an ended connection does" |text| text.parse().ok(), |value: u32| value.to_string();
    "drop_entry" drop_entry "0 to 3" "thin out idle and half-open connections" defence, mode;
    "drop_packet" drop_packet "0 to 3" "drop a share of what would open a connection" defence, mode;
    "expire_nodest_conn" expire_nodest_conn "0 or 1" "connections of removed servers end" flag, bit;
    "expire_quiescent_template" expire_quiescent_template "0 or 1" "clients leave servers of weight 0" flag, bit;
    "ignore_tunneled" ignore_tunneled "0 or 1" "do not look at packets again after decapsulation" flag, bit;
    "ip_unprivileged_port_start" unprivileged_port_start "0 to 65535" "ports from here on may be data ports of an FTP service" |text| text.parse().ok(), |value: u16| value.to_string();
    "lblc_expiration" lblc_expiration "seconds" "age at which an unused mapping of lblc goes" seconds, |value: Duration| value.as_secs().to_string();
    "lblcr_expiration" lblcr_expiration "seconds" "the same for lblcr" seconds, |value: Duration| value.as_secs().to_string();
    "nat_icmp_send" nat_icmp_send "0 or 1" "tell a server that answers without a connection" flag, bit;
    "pmtu_disc" pmtu_disc "0 or 1" "refuse what is too large for a tunnel" flag, bit;
    "run_estimation" run_estimation "0 or 1" "estimate rates" flag, bit;
    "schedule_icmp" schedule_icmp "0 or 1" "ICMP errors open connections" flag, bit;
    "secure_tcp" secure_tcp "0 to 3" "TCP states that stand a flood" defence, mode;
    "sloppy_sctp" sloppy_sctp "0 or 1" "any SCTP packet opens a connection" flag, bit;
    "sloppy_tcp" sloppy_tcp "0 or 1" "any TCP segment opens a connection" flag, bit;
    "sync_persist_mode" sync.persist_mode "0 or 1" "synchronise of persistent services only the templates" flag, bit;
    "sync_ports" sync.ports "a power of two up to 64" "ports of the synchronisation" |text| within(text, 1, 64u8).filter(|ports| ports.is_power_of_two()), |value: u8| value.to_string();
    "sync_qlen_max" sync.qlen_max "a number, 0 leaves it to the synchronisation" "queued messages at most" |text| text.parse().ok().map(|most: u64| (most > 0).then_some(most)), |value: Option<u64>| value.unwrap_or(0).to_string();
    "sync_refresh_period" sync.refresh_period "seconds" "smallest change of a deadline that is told again" seconds, |value: Duration| value.as_secs().to_string();
    "sync_retries" sync.retries "0 to 3" "repetitions within the refresh period" |text| within(text, 0, 3u8), |value: u8| value.to_string();
    "sync_sock_size" sync.sock_size "bytes, 0 for the system's default" "socket buffer of the synchronisation" |text| text.parse().ok(), |value: u32| value.to_string();
    "sync_threshold" sync.threshold "two numbers, the first less than the second" "which packets of a connection synchronise it" threshold, |value: (u32, u32)| format!("{} {}", value.0, value.1);
    "sync_version" sync.version "0 or 1" "version of the synchronisation protocol" |text| within(text, 0, 1u8), |value: u8| value.to_string();
};

fn bit(value: bool) -> String {
    u8::from(value).to_string()
}

fn mode(value: Defence) -> String {
    (value as u8).to_string()
}

const PORT_START: &str = "ip_unprivileged_port_start";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tunable_takes_what_it_shows() {
        let mut tunables = Tunables::default();
        for setting in all(&Tunables::default()) {
            assert!(set(&mut tunables, &setting), "{setting:?}");
            assert_eq!(default_of(setting.name), Some(setting));
        }
        assert_eq!(tunables, Tunables::default());
        let names: Vec<_> = TABLE.iter().map(|tunable| tunable.name).collect();
        assert!(names.is_sorted());
    }

    #[test]
    fn names_are_written_as_for_sysctl() {
        let text = "# a comment\n; another\nnet.ipv4.vs.conn_reuse_mode = 2\nnet/ipv4/vs/sloppy_tcp=1\n\
                    expire_nodest_conn=5\nnet.ipv4.ip_unprivileged_port_start = 0\nsync_threshold = 3  50\n\
                    drop_entry = 1\ndrop_entry = 3\n";
        let mut tunables = Tunables::default();
        let settings = parse(text).unwrap();
        assert_eq!(settings.len(), 6);
        for setting in &settings {
            assert!(set(&mut tunables, setting));
        }
        assert_eq!(tunables.conn_reuse_mode, 2);
        assert!(tunables.sloppy_tcp && tunables.expire_nodest_conn);
        assert_eq!(tunables.unprivileged_port_start, 0);
        assert_eq!(tunables.drop_entry, Defence::Always);
    }

    #[test]
    fn faults_have_their_place() {
        let text = "net.ipv4.vs.sloppy = 1\ndrop_entry = 4\n  conn_reuse_mode\nsync_threshold = 50 3\nsync_ports=3";
        let shown: Vec<String> = parse(text)
            .unwrap_err()
            .iter()
            .map(|fault| format!("{}:{} {fault}", fault.line, fault.column))
            .collect();
        assert_eq!(
            shown,
            [
                "1:1 `net.ipv4.vs.sloppy` is no tunable; `director show tunables` lists the names",
                "2:14 `4` is no value of drop_entry; it is 0 to 3",
                "3:3 there is no value; write NAME = VALUE",
                "4:18 `50 3` is no value of sync_threshold; it is two numbers, the first less than the second",
                "5:12 `3` is no value of sync_ports; it is a power of two up to 64",
            ]
        );
    }
}

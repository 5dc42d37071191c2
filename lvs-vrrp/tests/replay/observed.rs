//! What was seen: advertisements, announcements, changes of state.

use crate::common;
use crate::lan::Station;
use crate::scenario::{Scenario, millis};
use lvs_vrrp::Family;
use lvs_vrrp::wire::{AdvertPacket, GratuitousArp, Ipv4Packet, PROTOCOL_AH, UnsolicitedNa};
use sim::Network;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// What one scenario showed.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    /// For each node and VRID: runs of equal advertisements.
    pub(crate) adverts: BTreeMap<(char, u8), Vec<Run>>,
    /// For each node and LAN: bursts of announcements.
    pub(crate) bursts: BTreeMap<(char, usize), Vec<Burst>>,
    /// For each node and virtual router: states in keepalived's words.
    pub(crate) states: BTreeMap<(char, String), Vec<(Duration, String)>>,
    /// When something was done: then, and here.
    moments: Vec<(Duration, Duration)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) what: String,
    pub(crate) first: Duration,
    pub(crate) count: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Burst {
    pub(crate) first: Duration,
    last: Duration,
    /// How often each address was announced.
    pub(crate) addresses: BTreeMap<String, usize>,
}

impl Observed {
    /// From the tables of a recording.
    pub(crate) fn recorded(folder: &Path, scenario: &Scenario) -> Self {
        let mut observed = Self::default();
        let frames = common::table(&folder.join("frames.tsv"));
        for row in &frames {
            let lan = match row[0].strip_prefix(&scenario.name) {
                Some(".pcap") => 0,
                Some("-lan1.pcap") if scenario.second_lan => 1,
                _ => continue,
            };
            let node = row[3].chars().next().unwrap();
            if node == 'c' {
                continue;
            }
            let at = millis(&row[2]);
            match row[4].as_str() {
                "advert" => {
                    let what = format!(
                        "v{} priority {} every {} of {}",
                        row[10], row[13], row[14], row[18]
                    );
                    observed.advert(at, node, row[12].parse().unwrap(), what);
                }
                "garp" | "una" => observed.announcement(at, node, lan, row[18].clone()),
                _ => {}
            }
        }
        for row in common::table(&folder.join("timelines.tsv")) {
            if row[0] == scenario.name && row[3] == "program" && row[5] == "STATE" && row[4] != "-"
            {
                let node = row[2].chars().next().unwrap();
                observed.state(millis(&row[1]), node, &row[4], &row[6]);
            }
        }
        observed
    }

    /// From a simulation.
    pub(crate) fn played(
        network: &Network,
        stations: &[Station],
        moments: &[(Duration, Duration)],
    ) -> Self {
        let mut observed = Self {
            moments: moments.to_vec(),
            ..Self::default()
        };
        let origin = network.at(Duration::ZERO);
        let taps = stations.iter().filter_map(|station| match station {
            Station::Tap(tap) => Some(tap),
            Station::Host(_) => None,
        });
        for (lan, tap) in taps.enumerate() {
            for (at, frame) in &tap.frames {
                let at = *at - origin;
                // Their MAC addresses are 11, 12, 13 for a, b, c.
                let node = char::from(b'a' + (frame[11] - 0x11));
                if node == 'c' {
                    continue;
                }
                if let Some(arp) = GratuitousArp::parse(frame) {
                    observed.announcement(at, node, lan, arp.address.to_string());
                } else if let Some(na) = UnsolicitedNa::parse(frame) {
                    observed.announcement(at, node, lan, na.address.to_string());
                } else {
                    let (vrid, what) = describe(frame);
                    observed.advert(at, node, vrid, what);
                }
            }
        }
        for station in stations {
            let Station::Host(host) = station else {
                continue;
            };
            for logged in &host.log {
                let word = logged.change.to.keepalived_word();
                if word != "INIT" {
                    observed.state(logged.at - origin, host.name, &logged.name, word);
                }
            }
        }
        observed
    }

    /// In one line: states, priorities with their counts, and sizes of bursts.
    pub(crate) fn summary(&self) -> String {
        let mut text = String::new();
        for ((node, router), states) in &self.states {
            let list: Vec<_> = states.iter().map(|(_, state)| state.as_str()).collect();
            text += &format!("{node} {router} {}; ", list.join(" "));
        }
        for ((node, vrid), runs) in &self.adverts {
            let list: Vec<_> = runs
                .iter()
                .map(|run| {
                    let priority = run.what.split(' ').nth(2).unwrap();
                    format!("{priority}x{}", run.count)
                })
                .collect();
            text += &format!("{node} {vrid} {}; ", list.join(" "));
        }
        for ((node, lan), bursts) in &self.bursts {
            let list: Vec<_> = bursts
                .iter()
                .map(|burst| burst.addresses.values().sum::<usize>().to_string())
                .collect();
            text += &format!("{node} LAN {lan} {}; ", list.join(" "));
        }
        text
    }

    fn advert(&mut self, at: Duration, node: char, vrid: u8, what: String) {
        let runs = self.adverts.entry((node, vrid)).or_default();
        match runs.last_mut() {
            Some(run) if run.what == what => run.count += 1,
            _ => runs.push(Run {
                what,
                first: at,
                count: 1,
            }),
        }
    }

    fn announcement(&mut self, at: Duration, node: char, lan: usize, address: String) {
        let bursts = self.bursts.entry((node, lan)).or_default();
        match bursts.last_mut() {
            Some(burst) if at < burst.last + Duration::from_millis(400) => {
                burst.last = at;
                *burst.addresses.entry(address).or_default() += 1;
            }
            _ => bursts.push(Burst {
                first: at,
                last: at,
                addresses: BTreeMap::from([(address, 1)]),
            }),
        }
    }

    fn state(&mut self, at: Duration, node: char, router: &str, state: &str) {
        let states = self.states.entry((node, router.to_owned())).or_default();
        // keepalived says FAULT twice.
        let again = state == "FAULT" && states.last().is_some_and(|(_, last)| last == state);
        if !again {
            states.push((at, state.to_owned()));
        }
    }

    /// Is this what was recorded? Returns the largest difference in time.
    pub(crate) fn compare(&self, recorded: &Self) -> Result<Duration, String> {
        let mut worst = Duration::ZERO;
        // Times are compared from the last thing on that was done to the nodes.
        let expected = |theirs: Duration| {
            let mut moments = self.moments.iter().rev();
            let (then, here) = moments.find(|(then, _)| *then <= theirs).unwrap();
            *here + (theirs - *then)
        };
        let mut close = |what: &str, ours: Duration, theirs: Duration, tolerance: Duration| {
            let apart = ours.abs_diff(expected(theirs));
            worst = worst.max(apart);
            if apart > tolerance {
                Err(format!("{what} at {ours:?} instead of {theirs:?}"))
            } else {
                Ok(())
            }
        };
        let list = |states: &[(Duration, String)]| -> Vec<String> {
            states.iter().map(|(_, state)| state.clone()).collect()
        };
        same_keys("states", &self.states, &recorded.states)?;
        for (key, theirs) in &recorded.states {
            let ours = &self.states[key];
            if list(ours) != list(theirs) {
                return Err(format!("states of {key:?}: {ours:?} instead of {theirs:?}"));
            }
            // What a program says is read late; the advertisements below are exact.
            for (turn, ((at, state), (then, _))) in ours.iter().zip(theirs).enumerate() {
                let then = expected(*then);
                // The first one may have been said before the timers began.
                let early = if turn == 0 { LATE_READING } else { TOLERANCE };
                if *at > then + early || *at + LATE_READING < then {
                    return Err(format!("{key:?} {state} at {at:?} instead of {then:?}"));
                }
            }
        }
        same_keys("advertisements", &self.adverts, &recorded.adverts)?;
        for (key, theirs) in &recorded.adverts {
            let ours = &self.adverts[key];
            let what =
                |runs: &[Run]| -> Vec<String> { runs.iter().map(|run| run.what.clone()).collect() };
            if what(ours) != what(theirs) {
                return Err(format!(
                    "advertisements of {key:?}: {ours:#?} instead of {theirs:#?}"
                ));
            }
            for (our, their) in ours.iter().zip(theirs) {
                // The recorded program's beat drifts by some milliseconds each time, ours does not.
                let zero = our.what.contains("priority 0 ");
                let slack = usize::from(!zero);
                if our.count.abs_diff(their.count) > slack {
                    return Err(format!("{key:?}: {our:?} instead of {their:?}"));
                }
                close(
                    &format!("{key:?} {}", our.what),
                    our.first,
                    their.first,
                    TOLERANCE,
                )?;
            }
        }
        if recorded.bursts.is_empty() {
            // One capture leaves ARP out.
            return Ok(worst);
        }
        same_keys("announcements", &self.bursts, &recorded.bursts)?;
        for (key, theirs) in &recorded.bursts {
            let ours = &self.bursts[key];
            let what = |bursts: &[Burst]| -> Vec<BTreeMap<String, usize>> {
                bursts.iter().map(|burst| burst.addresses.clone()).collect()
            };
            if what(ours) != what(theirs) {
                return Err(format!(
                    "announcements of {key:?}: {ours:#?} instead of {theirs:#?}"
                ));
            }
            for (our, their) in ours.iter().zip(theirs) {
                let what = format!("announcements of {key:?}");
                close(&what, our.first, their.first, ANNOUNCEMENT)?;
            }
        }
        Ok(worst)
    }
}

fn same_keys<K: Ord + std::fmt::Debug, V>(
    what: &str,
    ours: &BTreeMap<K, V>,
    theirs: &BTreeMap<K, V>,
) -> Result<(), String> {
    if ours.keys().eq(theirs.keys()) {
        return Ok(());
    }
    Err(format!(
        "{what} of {:?} instead of {:?}",
        ours.keys().collect::<Vec<_>>(),
        theirs.keys().collect::<Vec<_>>()
    ))
}

/// VRID and content of an advertisement, in the words of the table.
fn describe(frame: &[u8]) -> (u8, String) {
    let (family, message) = if frame[12..14] == [0x08, 0x00] {
        let ip = Ipv4Packet::new(&frame[14..]).unwrap();
        let skip = if ip.protocol() == PROTOCOL_AH { 24 } else { 0 };
        (
            Family::V4,
            &ip.as_bytes()[ip.header_len() + skip..ip.total_len()],
        )
    } else {
        (Family::V6, &frame[54..])
    };
    let packet = AdvertPacket::new(message).unwrap();
    let interval = match packet.version() {
        2 => format!("{} s", packet.interval_secs()),
        _ => format!("{} cs", packet.max_advert_interval()),
    };
    let addresses: Vec<_> = packet
        .addresses(family)
        .map(|each| each.to_string())
        .collect();
    let what = format!(
        "v{} priority {} every {interval} of {}",
        packet.version(),
        packet.priority(),
        addresses.join(" ")
    );
    (packet.vrid(), what)
}

/// The time of the so-and-so-many-th advertisement of a node on LAN 0.
pub(crate) fn beat(
    stations: &[Station],
    node: char,
    vrid: u8,
    number: usize,
) -> Option<std::time::Instant> {
    let tap = stations.iter().find_map(|station| match station {
        Station::Tap(tap) => Some(tap),
        Station::Host(_) => None,
    })?;
    let adverts = tap.frames.iter().filter(|(_, frame)| {
        let ours = char::from(b'a' + (frame[11].wrapping_sub(0x11))) == node;
        ours && GratuitousArp::parse(frame).is_none()
            && UnsolicitedNa::parse(frame).is_none()
            && describe(frame).0 == vrid
    });
    adverts.map(|(at, _)| *at).nth(number - 1)
}

/// How many frames LAN 0 has seen.
pub(crate) fn seen(stations: &[Station]) -> usize {
    let mut taps = stations.iter().filter_map(|station| match station {
        Station::Tap(tap) => Some(tap.frames.len()),
        Station::Host(_) => None,
    });
    taps.next().unwrap_or_default()
}

/// How far apart in time the same may happen.
const TOLERANCE: Duration = Duration::from_millis(150);

/// The recorded hosts were busy when addresses came in.
const ANNOUNCEMENT: Duration = Duration::from_millis(250);

/// How late a recorded program's words may have been read.
const LATE_READING: Duration = Duration::from_millis(450);

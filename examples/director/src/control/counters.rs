//! The data path's counters in the terms of the control socket, with words for people.

use ipvsadm::protocol::{Counter, DeviceCounters, WorkerCounters};
use lvs_fwd::claim::ClaimCounters;
use lvs_fwd::device;
use lvs_fwd::stats::{Counters, DropReason, Event, LeftReason};

/// Of one worker; `devices` has names and counters of what it reads from.
pub fn worker<'d>(
    number: usize,
    counters: &Counters,
    devices: impl Iterator<Item = (&'d str, device::DeviceCounters)>,
) -> WorkerCounters {
    let own = lvs_sched::DropReason::ALL.map(|reason| Counter {
        name: reason.name().to_owned(),
        text: balancer_text(reason).to_owned(),
        count: counters.balancer_drops(reason as u8),
    });
    let data_path = DropReason::ALL
        .into_iter()
        // The balancer's own reasons say it all.
        .filter(|reason| *reason != DropReason::Balancer)
        .map(|reason| Counter {
            name: reason.name().to_owned(),
            text: drop_text(reason),
            count: counters.drops(reason),
        });
    WorkerCounters {
        worker: u32::try_from(number).unwrap_or(u32::MAX),
        connections: 0,
        dropped: largest_first(own.into_iter().chain(data_path)),
        left: largest_first(LeftReason::ALL.into_iter().map(|reason| {
            let name = kebab(&format!("{reason:?}"));
            Counter {
                text: left_text(reason).unwrap_or(&name).to_owned(),
                count: counters.left(reason),
                name,
            }
        })),
        events: largest_first(Event::ALL.into_iter().map(|event| {
            let name = kebab(&format!("{event:?}"));
            Counter {
                text: name.replace('-', " "),
                count: counters.events(event),
                name,
            }
        })),
        devices: devices
            .map(|(name, counters)| device(name, counters))
            .collect(),
    }
}

/// Of the claim.
pub fn claimed(counters: &ClaimCounters) -> Vec<Counter> {
    let counter = |name: &str, text: &str, count| Counter {
        name: name.to_owned(),
        text: text.to_owned(),
        count,
    };
    largest_first([
        counter("to-services", "packets to services", counters.to_services),
        counter(
            "from-servers",
            "packets from NAT real servers",
            counters.from_servers,
        ),
        counter("errors", "ICMP errors about such packets", counters.errors),
    ])
}

/// Everything together.
pub fn total(workers: &[WorkerCounters]) -> WorkerCounters {
    let mut total = WorkerCounters::default();
    for worker in workers {
        total.connections += worker.connections;
        add(&mut total.dropped, &worker.dropped);
        add(&mut total.left, &worker.left);
        add(&mut total.events, &worker.events);
    }
    for list in [&mut total.dropped, &mut total.left, &mut total.events] {
        *list = largest_first(std::mem::take(list));
    }
    total
}

fn add(sum: &mut Vec<Counter>, counters: &[Counter]) {
    for counter in counters {
        match sum.iter_mut().find(|known| known.name == counter.name) {
            Some(known) => known.count += counter.count,
            None => sum.push(counter.clone()),
        }
    }
}

fn device(name: &str, counters: device::DeviceCounters) -> DeviceCounters {
    let counter = |name: &str, text: &str, count| Counter {
        name: name.to_owned(),
        text: text.to_owned(),
        count,
    };
    DeviceCounters {
        device: name.to_owned(),
        counters: largest_first([
            counter("received", "frames received", counters.received),
            counter("transmitted", "frames sent", counters.transmitted),
            counter(
                "overruns",
                "lost because the receive queue was full",
                counters.overruns,
            ),
            counter(
                "truncated",
                "dropped because they were longer than a slot",
                counters.truncated,
            ),
            counter(
                "malformed",
                "dropped because their offload metadata made no sense",
                counters.malformed,
            ),
            counter(
                "too-long",
                "not sent because they were too long",
                counters.too_long,
            ),
            counter(
                "no-buffers",
                "not sent because the send queue was full",
                counters.no_buffers,
            ),
            counter(
                "refused",
                "not sent because the system refused them",
                counters.refused,
            ),
        ]),
    }
}

/// In a stable order among equals.
fn largest_first(counters: impl IntoIterator<Item = Counter>) -> Vec<Counter> {
    let mut counters: Vec<Counter> = counters.into_iter().collect();
    counters.sort_by_key(|counter| std::cmp::Reverse(counter.count));
    counters
}

fn kebab(name: &str) -> String {
    let mut kebab = String::new();
    for character in name.chars() {
        if character.is_ascii_uppercase() && !kebab.is_empty() {
            kebab.push('-');
        }
        kebab.push(character.to_ascii_lowercase());
    }
    kebab
}

fn drop_text(reason: DropReason) -> String {
    match reason {
        DropReason::Malformed => "the transport header is cut short or the IP checksum is wrong",
        DropReason::MartianSource => "the sender's address can't be one",
        DropReason::Rejected => "refused with an ICMP error: no real server can be chosen",
        DropReason::NoVerdict => "the scheduler gave no answer (a fault of the director)",
        DropReason::BadVerdict => {
            "the scheduler's answer makes no sense for the packet (loopback, other family)"
        }
        DropReason::NoRoute => "no route to the next hop; the sender is told",
        DropReason::Blackhole => "a route says to discard it",
        DropReason::Prohibited => "a route forbids it; the sender is told",
        DropReason::NoPort => {
            "the route leaves by an interface where the director does not forward"
        }
        DropReason::ForwardingOff => {
            "a real server's packet of no connection, and ip_forward is off"
        }
        DropReason::TimeExceeded => "hops used up; the sender is told",
        DropReason::TooBig => "too big for the way and not to be fragmented; the sender is told",
        DropReason::HoldOverflow => "waited for a neighbour's hardware address, too many did",
        DropReason::NeighbourFailed => {
            "waited for a neighbour that does not answer ARP or ND; the sender is told"
        }
        DropReason::HandoffOverflow => "the queue of the worker that has the client was full",
        DropReason::NoHost => "for the host, and there is no way there, or none for its answers",
        DropReason::NoSource => {
            "to be sent through a tunnel, and no interface has an address to send from"
        }
        DropReason::FragmentOverlap => "a fragment that lies over another one of its datagram",
        DropReason::FragmentLost => "a fragment before others of its datagram, too many waited",
        DropReason::FragmentsIncomplete => {
            "a fragment of a datagram of which others did not come in time"
        }
        other => return other.name().replace('-', " "),
    }
    .to_owned()
}

fn balancer_text(reason: lvs_sched::DropReason) -> &'static str {
    match reason {
        lvs_sched::DropReason::TableFull => "the table of connections or templates is full",
        lvs_sched::DropReason::ServerRemoved => "the connection's real server was removed",
        lvs_sched::DropReason::NoServer => {
            "an ICMP error would have begun a connection, and no server can be chosen"
        }
        lvs_sched::DropReason::Defence => "thinned out in defence (drop_packet)",
        lvs_sched::DropReason::Engine => "the persistence engine found nothing to go by",
        lvs_sched::DropReason::Malformed => "an SCTP packet without a chunk",
        lvs_sched::DropReason::NoLocalPort => {
            "refused like \"no server\": no local address had a free port (FULLNAT)"
        }
        _ => "by the scheduler",
    }
}

fn left_text(reason: LeftReason) -> Option<&'static str> {
    Some(match reason {
        LeftReason::NotToUs => "broadcast, multicast or to another host",
        LeftReason::OwnFrame => "sent by the director itself",
        LeftReason::Vlan => "of a VLAN",
        LeftReason::NotIp => "neither IPv4 nor IPv6",
        LeftReason::Extensions => "IPv6 with extension headers that are not followed",
        LeftReason::Fragment => "a fragment of no service",
        LeftReason::OtherProtocol => "of no protocol that is balanced, nor an error about such",
        LeftReason::NotClaimed => "to no service and from no NAT real server",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_comes_first_and_workers_are_summed() {
        let one = worker(0, &Counters::new(), std::iter::empty());
        assert_eq!(
            one.dropped.len(),
            DropReason::ALL.len() - 1 + lvs_sched::DropReason::ALL.len()
        );
        let with = |counts: [u64; 2]| {
            let mut worker = one.clone();
            worker.dropped[0].count = counts[0];
            worker.dropped[3].count = counts[1];
            worker
        };
        let sum = total(&[with([1, 2]), with([0, 3])]);
        let counts: Vec<u64> = sum.dropped.iter().map(|counter| counter.count).collect();
        assert_eq!(counts[..3], [5, 1, 0]);
        assert_eq!(sum.dropped[0].name, one.dropped[3].name);
    }

    #[test]
    fn names_of_reasons_differ() {
        let counters = worker(0, &Counters::new(), std::iter::empty());
        for list in [&counters.left, &counters.events] {
            let mut names: Vec<&str> = list.iter().map(|counter| counter.name.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), list.len());
        }
        assert_eq!(kebab("IcmpSent"), "icmp-sent");
    }
}

//! Local addresses of services (`--get-laddr`), as the programs list them that have FULLNAT.

use crate::protocol::{ServiceAddress, ServiceId, ServiceInfo, ServicesInfo};

use super::endpoint;
use super::names::Names;
use super::services::service_order;

/// The services that have local addresses, or the one that is asked for, sorted; `None` if that does not exist. Without
/// `names` everything is a number.
pub fn listing(
    info: &ServicesInfo,
    only: Option<ServiceId>,
    names: Option<&Names>,
) -> Option<String> {
    let is_wanted = |service: &&ServiceInfo| match only {
        Some(id) => service.family == id.family && service.service == id.service,
        None => !service.locals.is_empty(),
    };
    let mut services: Vec<&ServiceInfo> = info.services.iter().filter(is_wanted).collect();
    if only.is_some() && services.is_empty() {
        return None;
    }
    services.sort_by_key(|service| service_order(service));
    let mut text = row("VIP:VPORT", "TOTAL", ["SNAT_IP", "CONFLICTS", "CONNS"]);
    for service in services {
        let name = match service.service {
            ServiceAddress::Address {
                protocol,
                address,
                port,
            } => endpoint(address, port, Some(protocol), names),
            ServiceAddress::Mark { mark } => format!("FWM {mark}"),
        };
        text.push_str(&row(&name, &service.locals.len().to_string(), [""; 3]));
        for local in &service.locals {
            let (address, conflicts, connections) = (
                local.address.to_string(),
                local.conflicts.to_string(),
                local.connections.to_string(),
            );
            text.push_str(&row("", "", [&address, &conflicts, &connections]));
        }
    }
    Some(text)
}

fn row(service: &str, count: &str, [address, conflicts, connections]: [&str; 3]) -> String {
    format!("{service:<20} {count:<8} {address:<20} {conflicts:<10} {connections:<10}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::services::tests::table;
    use crate::protocol::LocalAddressInfo;

    #[test]
    fn addresses_stand_below_their_service() {
        let mut info = table();
        let service = &mut info.services[0];
        let id = ServiceId {
            family: service.family,
            service: service.service,
        };
        for (last, connections) in [(200, 12), (201, 0)] {
            service.locals.push(LocalAddressInfo {
                address: std::net::IpAddr::from([10, 0, 0, last]),
                connections,
                conflicts: 3,
            });
        }
        let text = listing(&info, None, None).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(
            lines[0],
            "VIP:VPORT            TOTAL    SNAT_IP              CONFLICTS  CONNS     "
        );
        assert_eq!(lines[1].len(), lines[0].len());
        assert!(lines[1].trim_end().ends_with(" 2"));
        assert_eq!(
            lines[2],
            "                              10.0.0.200           3          12        "
        );
        assert_eq!(listing(&info, Some(id), None), Some(text));
        info.services.remove(0);
        assert_eq!(listing(&info, Some(id), None), None);
        assert_eq!(listing(&info, None, None).unwrap().lines().count(), 1);
    }
}

//! News in the log, one line each. The VRRP thread itself does not write: who reads the log may be slow.

use lvs_vrrp::{Event, State};
use tracing::{debug, info, warn};

use super::thread::{AddressChange, News};

/// Logs news, one line each.
pub fn log(news: &News) {
    match news {
        News::Held { .. } => {}
        News::Instance { name, event, .. } => match event {
            Event::Complaint(_)
            | Event::Late { .. }
            | Event::RivalOwner { .. }
            | Event::Restored { .. } => warn!("vrrp_instance {name}: {event}"),
            Event::StateChanged(change) if change.to == State::Fault => {
                warn!("vrrp_instance {name}: {event}");
            }
            Event::StateChanged(_)
            | Event::PriorityChanged { .. }
            | Event::NewActive { .. }
            | Event::WaitsForGroup => info!("vrrp_instance {name}: {event}"),
            _ => debug!("vrrp_instance {name}: {event}"),
        },
        News::Group { name, from, to } => info!("vrrp_sync_group {name}: {to} from {from}"),
        News::Address {
            address,
            prefix_len,
            change,
        } => {
            let prefix = prefix_len.map_or_else(String::new, |length| format!("/{length}"));
            let place = format!(
                "address {}{prefix} on {}",
                address.address, address.interface
            );
            match change {
                AddressChange::Added => info!("{place} added"),
                AddressChange::WasThere => info!("{place} is there already: taken over"),
                AddressChange::Removed => info!("{place} removed"),
                AddressChange::RemovedLeftover => {
                    info!("{place} was left by a director that ended early: removed");
                }
                AddressChange::RemovedForeign => {
                    warn!("{place} had been set by somebody else, but it moves by VRRP: removed");
                }
                AddressChange::Failed(why) => warn!("{place}: {why}"),
            }
        }
        News::Trouble(trouble) => warn!("{trouble}"),
        News::Session { name, is_up } => {
            info!(
                "bfd_instance {name} is {}",
                if *is_up { "up" } else { "down" }
            );
        }
        News::Object { object, health } => info!("{object}: {health:?}"),
    }
}

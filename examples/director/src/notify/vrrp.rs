//! VRRP's news in the words of notifications.

use lvs_vrrp::{Event as Happened, Reason, State, StateChange};

use super::event::{Event, VrrpChange, VrrpEvent, VrrpKind};
use crate::vrrp::News;

impl Event {
    /// What somebody outside may have to hear of, if anything.
    pub fn of_vrrp(news: &News) -> Option<Self> {
        let (kind, name, change, priority) = match news {
            News::Instance {
                name,
                event,
                priority,
                silent: false,
            } => (VrrpKind::Instance, name, change_of(event)?, *priority),
            News::Group { name, to, .. } => {
                let change = change_to(*to).unwrap_or(VrrpChange::Stop);
                (VrrpKind::Group, name, change, 0)
            }
            _ => return None,
        };
        Some(Self::Vrrp(VrrpEvent {
            kind,
            name: name.to_string(),
            change,
            priority,
        }))
    }
}

fn change_of(event: &Happened) -> Option<VrrpChange> {
    match event {
        Happened::StateChanged(StateChange { to, reason, .. }) => match (to, reason) {
            (State::Initialize, Reason::Removed) => Some(VrrpChange::Deleted),
            (State::Initialize, Reason::ShutDown) => Some(VrrpChange::Stop),
            (to, _) => change_to(*to),
        },
        Happened::PriorityChanged { state, .. } => match state {
            State::Active => Some(VrrpChange::MasterPriority),
            State::Backup => Some(VrrpChange::BackupPriority),
            State::Initialize | State::Fault => None,
        },
        Happened::LowerPriorityHeard { .. } => Some(VrrpChange::LowerPriorityHeard),
        _ => None,
    }
}

fn change_to(state: State) -> Option<VrrpChange> {
    match state {
        State::Active => Some(VrrpChange::Master),
        State::Backup => Some(VrrpChange::Backup),
        State::Fault => Some(VrrpChange::Fault),
        State::Initialize => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(event: Happened, silent: bool) -> News {
        News::Instance {
            name: "VI_1".into(),
            event,
            priority: 140,
            silent,
        }
    }

    fn moved(to: State, reason: Reason) -> Happened {
        Happened::StateChanged(StateChange {
            from: State::Backup,
            to,
            reason,
            priority: 140,
        })
    }

    #[test]
    fn changes_of_an_instance_have_keepalived_words() {
        let priority = |state| Happened::PriorityChanged {
            from: 150,
            to: 140,
            state,
        };
        for (event, line) in [
            (
                moved(State::Active, Reason::Owner),
                "INSTANCE \"VI_1\" MASTER 140",
            ),
            (
                moved(State::Backup, Reason::Started),
                "INSTANCE \"VI_1\" BACKUP 140",
            ),
            (
                moved(State::Fault, Reason::Group),
                "INSTANCE \"VI_1\" FAULT 140",
            ),
            (
                moved(State::Initialize, Reason::ShutDown),
                "INSTANCE \"VI_1\" STOP 140",
            ),
            (
                moved(State::Initialize, Reason::Removed),
                "INSTANCE \"VI_1\" DELETED 140",
            ),
            (
                priority(State::Active),
                "INSTANCE \"VI_1\" MASTER_PRIORITY 140",
            ),
            (
                priority(State::Backup),
                "INSTANCE \"VI_1\" BACKUP_PRIORITY 140",
            ),
        ] {
            let told = Event::of_vrrp(&instance(event, false)).unwrap();
            assert_eq!(told.line().unwrap(), line);
        }
        assert_eq!(
            Event::of_vrrp(&instance(priority(State::Fault), false)),
            None
        );
        assert_eq!(
            Event::of_vrrp(&instance(Happened::WaitsForGroup, false)),
            None
        );
    }

    #[test]
    fn what_only_joins_its_group_is_not_told() {
        let joins = instance(moved(State::Active, Reason::Group), true);
        assert_eq!(Event::of_vrrp(&joins), None);
    }

    #[test]
    fn groups_have_no_priority() {
        let group = |to| News::Group {
            name: "G1".into(),
            from: State::Backup,
            to,
        };
        let line = |to| Event::of_vrrp(&group(to)).unwrap().line().unwrap();
        assert_eq!(line(State::Active), "GROUP \"G1\" MASTER 0");
        assert_eq!(line(State::Initialize), "GROUP \"G1\" STOP 0");
    }
}

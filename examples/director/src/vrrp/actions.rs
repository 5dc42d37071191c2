//! What the machine has asked the host for and is not done yet: addresses wait until packets to them are claimed.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lvs_conf::model::VirtualAddress as ModelAddress;
use lvs_vrrp::{Announcement, VirtualAddress};
use tokio::sync::mpsc::UnboundedSender;

use super::host::Host;
use super::routes::Routes;
use super::thread::{Claims, News};

/// One step on the host.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    AddAddresses(Vec<Placed>),
    RemoveAddresses(Vec<Placed>),
    /// Packets to and from these addresses are dropped, or no more.
    Refuse(Vec<IpAddr>),
    Accept(Vec<IpAddr>),
    AddRoutes(Arc<str>, Routes),
    RemoveRoutes(Arc<str>, Routes),
    Announce(Announcement),
}

/// An address with its prefix length, label and so on, if the configuration says any.
pub(super) type Placed = (VirtualAddress, Option<ModelAddress>);

/// Steps in their order.
#[derive(Debug)]
pub(super) struct Actions {
    queue: VecDeque<Action>,
    claims: Claims,
    news: UnboundedSender<News>,
    /// Packets to these are taken from the host.
    claimed: BTreeSet<IpAddr>,
    number: u64,
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    until: Instant,
    asked: BTreeSet<IpAddr>,
}

impl Actions {
    pub(super) const fn new(claims: Claims, news: UnboundedSender<News>) -> Self {
        Self {
            queue: VecDeque::new(),
            claims,
            news,
            claimed: BTreeSet::new(),
            number: 0,
            waiting: None,
        }
    }

    pub(super) fn push(&mut self, action: Action) {
        self.queue.push_back(action);
    }

    /// The next step that may be done now. Addresses wait until packets to them are claimed, and everything behind waits with them.
    pub(super) fn next(&mut self, now: Instant, host: &Host) -> Option<Action> {
        let front = self.queue.front()?;
        if let (Action::AddAddresses(addresses), Claims::Awaited) = (front, self.claims) {
            let mut all = addresses.iter();
            if !all.all(|(address, _)| self.claimed.contains(&address.address)) {
                match &self.waiting {
                    Some(waiting) if now < waiting.until => return None,
                    Some(waiting) => {
                        let trouble = format!(
                            "packets to virtual addresses are not claimed after {PATIENCE:?}: the addresses are set nonetheless"
                        );
                        let _ = self.news.send(News::Trouble(trouble));
                        self.claimed.clone_from(&waiting.asked);
                        self.waiting = None;
                        return self.next(now, host);
                    }
                    None => {
                        self.ask(now, host);
                        return None;
                    }
                }
            }
        }
        self.queue.pop_front()
    }

    /// When waiting has no more sense.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.as_ref().map(|waiting| waiting.until)
    }

    /// What was asked for with this number is claimed.
    pub(super) fn confirm(&mut self, number: u64) {
        if let Some(waiting) = self.waiting.take_if(|waiting| waiting.number == number) {
            self.claimed = waiting.asked;
        }
    }

    /// Addresses went: packets to them are the host's again, or another's.
    pub(super) fn release(&mut self, host: &Host) {
        if self.claims == Claims::None || self.waiting.is_some() {
            return;
        }
        let wanted = self.wanted(host);
        if self.claimed.iter().any(|address| !wanted.contains(address)) {
            self.claimed.retain(|address| wanted.contains(address));
            self.number += 1;
            let addresses = self.claimed.clone();
            self.send(self.number, addresses);
        }
    }

    /// At the end nobody confirms anything.
    pub(super) const fn wait_no_more(&mut self) {
        self.claims = Claims::None;
    }

    fn ask(&mut self, now: Instant, host: &Host) {
        let asked = self.wanted(host);
        self.number += 1;
        self.waiting = Some(Waiting {
            number: self.number,
            until: now + PATIENCE,
            asked: asked.clone(),
        });
        self.send(self.number, asked);
    }

    /// What is set, and what shall be.
    fn wanted(&self, host: &Host) -> BTreeSet<IpAddr> {
        let mut wanted = host.held_addresses();
        for action in &self.queue {
            if let Action::AddAddresses(addresses) = action {
                wanted.extend(addresses.iter().map(|(address, _)| address.address));
            }
        }
        wanted
    }

    fn send(&mut self, number: u64, addresses: BTreeSet<IpAddr>) {
        // Who does not listen claims nothing either.
        if self.news.send(News::Held { number, addresses }).is_err() {
            self.claims = Claims::None;
        }
    }
}

/// How long a claim may take. An address without one is answered by the host, but it must move.
const PATIENCE: Duration = Duration::from_secs(1);

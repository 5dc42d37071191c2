//! States, each with the timers that make sense in it.

use crate::announce::Schedule;
use crate::config::Interval;
use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

/// State of a virtual router (RFC 9568, 6.4), with keepalived's Fault. `Display` writes the RFC's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Not started, shut down, or waiting for the first result of something that it tracks.
    Initialize,
    /// Listening to the Active router.
    #[doc(alias = "slave")]
    Backup,
    /// Responsible for the addresses.
    #[doc(alias = "master")]
    Active,
    /// Something that it needs is broken: it has no addresses, sends nothing and hears nothing.
    Fault,
}

impl State {
    /// The word that keepalived has for it in scripts, FIFO lines and mails.
    #[must_use]
    pub const fn keepalived_word(self) -> &'static str {
        match self {
            Self::Initialize => "INIT",
            Self::Backup => "BACKUP",
            Self::Active => "MASTER",
            Self::Fault => "FAULT",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Initialize => "Initialize",
            Self::Backup => "Backup",
            Self::Active => "Active",
            Self::Fault => "Fault",
        })
    }
}

/// The state with its data.
#[derive(Debug)]
pub(crate) enum Machine {
    /// Before `start`, after `shutdown`.
    Initialize,
    /// Started, but something has not reported yet.
    Waiting,
    Fault,
    Backup(Backup),
    Active(Active),
}

impl Machine {
    pub(crate) const fn state(&self) -> State {
        match self {
            Self::Initialize | Self::Waiting => State::Initialize,
            Self::Fault => State::Fault,
            Self::Backup(_) => State::Backup,
            Self::Active(_) => State::Active,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Backup {
    /// When it takes over.
    pub(crate) deadline: Instant,
    /// Why it will.
    pub(crate) cause: Cause,
    pub(crate) delay: PreemptDelay,
    /// Its timer has ended, and its sync group holds it back.
    pub(crate) wants_active: bool,
    /// It woke up late and has been given an interval to listen.
    pub(crate) listened: bool,
}

/// What a Backup's deadline follows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Nothing heard since this instant.
    Silence(Instant),
    /// Priority 0 of this router.
    Resignation(IpAddr),
    /// Own addresses were taken away by somebody; it tries again.
    Retry,
    /// It owns the addresses.
    Owner,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PreemptDelay {
    NotStarted,
    Until(Instant),
}

#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) next_advert: Instant,
    pub(crate) last_advert: Instant,
    pub(crate) announcements: Schedule,
    pub(crate) rival: Rival,
    /// Recent restorations of objects that somebody took away: how many, since when.
    pub(crate) restored: Option<(u8, Instant)>,
}

/// Another router that says it owns the addresses, seen by an owner of higher address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rival {
    None,
    /// It gets this many own advertisements to give in.
    Warned {
        adverts: u8,
        interval: Interval,
    },
    /// It should be silent by then.
    Watched {
        until: Instant,
    },
}

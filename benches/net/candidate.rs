//! What is compared.

use std::fmt;

use director::devices::Kind;

/// A way through the director's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Candidate {
    /// The kernel forwards.
    Forwarding,
    /// The kernel balances.
    Nftables,
    /// A program sends frames on before the kernel looks at them: the limit of all others.
    Redirect,
    /// The barest loop over a device.
    Barest(Kind),
    /// A director.
    Director {
        kind: Kind,
        method: Method,
        workers: u32,
    },
}

/// How the director forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Nat,
    DirectRoute,
    Tunnel,
}

impl Method {
    /// As in a configuration.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Nat => "NAT",
            Self::DirectRoute => "DR",
            Self::Tunnel => "TUN",
        }
    }
}

impl Candidate {
    /// All of them; the first is what the others are compared with.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = vec![Self::Forwarding, Self::Nftables, Self::Redirect];
        for kind in KINDS {
            all.push(Self::Barest(kind));
            for (method, workers) in [
                (Method::Nat, 1),
                (Method::Nat, 2),
                (Method::DirectRoute, 1),
                (Method::DirectRoute, 2),
                (Method::Tunnel, 1),
                (Method::Tunnel, 2),
            ]
            // The simplest device is no subject of its own.
            .into_iter()
            .take(if kind == Kind::Pnet { 1 } else { 6 })
            {
                all.push(Self::Director {
                    kind,
                    method,
                    workers,
                });
            }
        }
        all
    }

    /// Those that a word on the command line names: one, or all that begin with it.
    pub(crate) fn named(word: &str) -> Vec<Self> {
        let all = Self::all();
        match all.iter().find(|it| it.word() == word) {
            Some(one) => vec![*one],
            None => all
                .into_iter()
                .filter(|it| it.word().starts_with(word))
                .collect(),
        }
    }

    pub(crate) fn word(self) -> String {
        match self {
            Self::Forwarding => "forwarding".to_owned(),
            Self::Nftables => "nftables".to_owned(),
            Self::Redirect => "redirect".to_owned(),
            Self::Barest(kind) => format!("barest-{kind}"),
            Self::Director {
                kind,
                method,
                workers,
            } => {
                let method = method.word().to_lowercase();
                match workers {
                    1 => format!("director-{kind}-{method}"),
                    _ => format!("director-{kind}-{method}-{workers}"),
                }
            }
        }
    }

    /// The barest loop over a director's kind of device.
    pub(crate) fn limit(self) -> Option<Self> {
        match self {
            Self::Director { kind, .. } => Some(Self::Barest(kind)),
            _ => None,
        }
    }

    /// Whether connections work: replies come back through it, and checksums that senders leave to it are finished.
    pub(crate) fn is_two_way(self) -> bool {
        !matches!(
            self,
            Self::Redirect
                | Self::Director {
                    method: Method::DirectRoute | Method::Tunnel,
                    ..
                }
        )
    }

    /// Whether it is at the addresses of the servers; else at the virtual one.
    pub(crate) fn is_transparent(self) -> bool {
        matches!(self, Self::Forwarding | Self::Redirect | Self::Barest(_))
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forwarding => f.pad("kernel forwarding"),
            Self::Nftables => f.pad("nftables DNAT"),
            Self::Redirect => f.pad("bare XDP redirect"),
            Self::Barest(kind) => f.pad(&format!("barest {kind} loop")),
            Self::Director {
                kind,
                method,
                workers,
            } => {
                let threads = if *workers == 1 { "" } else { ", 2 workers" };
                f.pad(&format!("director, {kind}, {}{threads}", method.word()))
            }
        }
    }
}

const KINDS: [Kind; 3] = [Kind::Ring, Kind::Xdp, Kind::Pnet];

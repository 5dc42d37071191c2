//! What would happen to a packet, and why: a question of `director why`.

use std::net::SocketAddr;

use ipvsadm::protocol::ConnectionInfo;
use serde::{Deserialize, Serialize};

/// The name of the operation. Its arguments are a [`WhyQuestion`], its answer is a [`WhyAnswer`].
pub const OPERATION: &str = "why";

/// The packet that is asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyQuestion {
    /// IP protocol number.
    pub protocol: u8,
    /// Sender.
    pub source: SocketAddr,
    /// Receiver.
    pub destination: SocketAddr,
    /// The TCP flags as they stand in byte 13 of the header.
    #[serde(default)]
    pub tcp_flags: u8,
    /// IP length in bytes.
    pub length: u32,
    /// What follows the transport header, where it is known; persistence engines look at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Vec<u8>>,
}

/// What would happen to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyAnswer {
    /// The end of it.
    pub outcome: Outcome,
    /// What decided, in kebab case.
    pub reason: String,
    /// How it came to that, in order.
    pub steps: Vec<Step>,
    /// Number of the worker that has the client's connections.
    #[serde(default)]
    pub worker: Option<u32>,
    /// The service, as listings write it.
    #[serde(default)]
    pub service: Option<String>,
    /// Short name of the service's scheduler.
    #[serde(default)]
    pub scheduler: Option<String>,
    /// The connection that the packet meets.
    #[serde(default)]
    pub connection: Option<ConnectionInfo>,
    /// The persistence template that was found.
    #[serde(default)]
    pub template: Option<ConnectionInfo>,
    /// Where it goes: the real server with the port that is used there, or the client with an answer.
    #[serde(default)]
    pub target: Option<SocketAddr>,
    /// How it gets to the real server: `nat`, `direct-route`, `tunnel`, `full-nat`, `local`.
    #[serde(default)]
    pub method: Option<String>,
    /// Whom the frame is for on the link.
    #[serde(default)]
    pub next_hop: Option<NextHopInfo>,
}

/// The end of a packet's way here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// To a real server.
    Forwarded,
    /// A real server's answer, to the client.
    Answered,
    /// Sent on as by a router.
    Routed,
    /// Never taken from the host.
    Left,
    /// Taken from the host and given back.
    GivenBack,
    /// Its sender is told that it can't be served.
    Refused,
    /// Dropped without a word.
    Dropped,
    /// Can't be told.
    Unforeseen,
}

impl Outcome {
    /// Whether the packet gets to where its sender wants it.
    pub fn is_served(self) -> bool {
        matches!(self, Self::Forwarded | Self::Answered | Self::Routed)
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What was looked at.
    pub name: String,
    /// What was found, in words.
    pub text: String,
}

/// A neighbour on a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHopInfo {
    /// The interface.
    pub interface: String,
    /// The neighbour's address.
    pub address: std::net::IpAddr,
    /// Its hardware address, if it is known.
    #[serde(default)]
    pub mac: Option<String>,
    /// The largest IP packet that the link takes, in bytes.
    pub mtu: u32,
}

//! Frame in, frame out: what each forwarding method changes.
//!
//! These functions change bytes in place. They expect a frame whose [`Headers`](crate::wire::Headers) were
//! found and are [sound](crate::wire::Headers::is_sound); the engine has cut the padding. The Ethernet
//! header is not theirs: it is written when the next hop is known.

pub mod dr;
pub mod error;
pub mod fragment;
pub mod fullnat;
pub mod nat;
pub mod segment;
pub mod sequence;
pub mod tun;

//! What happens outside the director because of what happens inside: scripts, lines in named pipes, mail.
//!
//! Whoever has news, VRRP or health, tells a [`Notifier`] an [`Event`]; [`Actions`] is what a configuration wants to be done about each:
//!
//! ```text
//! VRRP, health ─Event─▶ Notifier ─┬─▶ Fifo          a line, at once, lost if nobody reads
//!                                 ├─▶ queue ─▶ scripts::Runner    one event of an object after the other
//!                                 └─▶ mail::send    one connection a mail
//! ```
//!
//! Arguments, lines and mails are keepalived's. What differs on purpose: scripts of successive events of one object do not overlap,
//! a reader of a pipe that has ended is started again by a reload, a pipe that somebody removed is made again, and mails of
//! the end get a second to be taken.
//!
//! [`scripts`] runs programs for whoever needs one, checks and notifications alike.

mod actions;
pub mod event;
pub mod fifo;
pub mod mail;
mod notifier;
mod queue;
pub mod scripts;
pub mod servers;
mod sys;
mod vrrp;

pub use actions::Actions;
pub use event::Event;
pub use notifier::Notifier;

#[cfg(test)]
mod place;
#[cfg(test)]
mod tests;

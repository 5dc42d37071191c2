//! What happens outside the director because of what happens inside: scripts that are run.
//!
//! [`scripts`] runs programs for whoever needs one, checks and notifications alike.

pub mod scripts;
mod sys;

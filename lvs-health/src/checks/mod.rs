//! The built-in checkers, one conversation each.

pub(crate) mod http;
pub(crate) mod tcp;

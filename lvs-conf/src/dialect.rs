//! Releases of keepalived whose behaviour differs.

/// Which release a text is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Dialect {
    /// keepalived 2.2.7: later keywords are unknown, and the first refusal ends the checks of the VRRP part.
    V2_2_7,
    /// The newest release, with every finding reported.
    #[default]
    Newest,
}

//! Connections: keys, states, table, and the index of their deadlines.

pub(crate) mod chunks;
pub(crate) mod index;
pub(crate) mod key;
pub(crate) mod state;
pub(crate) mod table;
pub(crate) mod wheel;

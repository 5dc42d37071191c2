//! A LAN in a box.

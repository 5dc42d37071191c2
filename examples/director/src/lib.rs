//! The director as a library: a keepalived.conf, run in user space.
//!
//! The libraries meet here and nowhere else. [`plan`] turns a configuration's model into what should be there; [`pools`]
//! lets health decide who stands in the scheduler's table, and [`edits`] and [`drains`] let operators; [`balance`] lets the data path ask the scheduler, [`ftp`] helps it with FTP, and [`tunnels`] say how to wrap;
//! [`beside`] reads the files beside it, rules of [`marks`] and [`tunables`]; [`data_path`] runs workers, claim and view, and [`mod@unreachable`] tells which servers it has no way to; [`explain`] tells why a packet goes where; [`app`] is the control loop around them. The binary adds the command line,
//! [`commands`] about files, hosts and the running director, [`realserver`] for the other side, and [`demo`].

pub mod acted_on;
pub mod addresses;
pub mod app;
pub mod balance;
pub mod beside;
pub mod checks;
pub mod claims;
pub mod cli;
pub mod commands;
pub mod config;
pub mod control;
pub mod data_path;
pub mod demo;
pub mod devices;
mod disk;
pub mod drains;
pub mod edits;
pub mod explain;
pub mod files;
pub mod findings;
pub mod ftp;
pub mod logging;
pub mod marks;
pub mod namespace;
pub mod notify;
pub mod pid_file;
pub mod ping_groups;
pub mod plan;
pub mod pools;
pub mod realserver;
pub mod service_manager;
mod settings;
pub mod statics;
mod sys;
pub mod tunables;
pub mod tunnels;
pub mod unreachable;
pub mod vrrp;
mod whole_file;

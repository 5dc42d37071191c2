//! Real network namespaces and links between them, for tests and demos, without external programs.
//!
//! A network is built from [`Namespace`]s (hosts), [`veth`] pairs (cables) and [`Bridge`]s (switches). There
//! are small HTTP servers and clients to send real traffic. Nothing has a name outside the process, nothing
//! is left behind, and nothing of the host is touched: [`enter`] first moves the process into a private
//! network namespace, with root's rights or, where unprivileged user namespaces are allowed, without.
//!
//! ```no_run
//! use std::time::Duration;
//! use netlab::{Bridge, HttpServer, Namespace};
//!
//! fn main() -> std::io::Result<()> {
//!     netlab::enter()?; // first of all, while there is only one thread
//!     let (switch, client, server) = (Namespace::new("switch")?, Namespace::new("client")?, Namespace::new("server")?);
//!     let lan = Bridge::new(&switch, "lan")?;
//!     lan.attach(&client, "eth0", "10.0.0.1/24")?;
//!     lan.attach(&server, "eth0", "10.0.0.2/24")?;
//!     let web = HttpServer::start(&server, "10.0.0.2:80".parse().expect("an address"), "rs1")?;
//!     let answer = client.http_get(web.addr(), "/", Duration::from_secs(1))?;
//!     assert_eq!(answer.server, "rs1");
//!     Ok(())
//! }
//! ```

mod http;
mod link;
mod namespace;
mod sys;
mod tunnel;

pub use http::{HttpServer, Response, bytes_hash, http_get};
pub use link::{Bridge, End, veth};
pub use namespace::{Namespace, Privilege, enter};
pub use tunnel::{Decapsulator, GUE_PORT, Unpacked};

//! keepalived.conf: a faithful tree, a typed model, and diagnostics with line, column and hint.
//!
//! The crate reads the language of keepalived as keepalived does, quirks of its lexer included, and says of everything
//! that it would not take as written where it stands, what becomes of it, and what was probably meant. It does no I/O:
//! the caller adds the text to a [`SourceMap`] and supplies included files through [`Files`].
//!
//! ```
//! use lvs_conf::{NoFiles, Options, SourceMap, load};
//! use lvs_conf::model::{Scheduler, ServiceAddress};
//!
//! let mut sources = SourceMap::new();
//! let main = sources.add("keepalived.conf", "
//! virtual_server 192.0.2.10 80 {
//!     lb_algo wrr
//!     lb_kind DR
//!     protcol TCP
//!     real_server 192.0.2.21 80 {
//!         weight 3
//!         TCP_CHECK {
//!             connect_timeout 3
//!         }
//!     }
//! }
//! ");
//! let loaded = load(&mut sources, main, &NoFiles, &Options::default());
//!
//! let first = &loaded.diagnostics[1];
//! assert_eq!(
//!     first.display(&sources).to_string(),
//!     "keepalived.conf:5:5: error: unknown keyword `protcol` in `virtual_server`; did you mean `protocol`?"
//! );
//! assert_eq!(loaded.exit_status(), 5);
//!
//! let server = &loaded.config.virtual_servers[0];
//! assert_eq!(server.scheduler, Scheduler::WeightedRoundRobin);
//! assert_eq!(server.real_servers[0].checkers[0].probe().connect_timeout.as_secs(), 3);
//! assert!(matches!(server.service, ServiceAddress::Address { port: Some(80), .. }));
//! ```
//!
//! # From text to model
//!
//! 1. [`lex`]: physical lines, comments, conditional lines, parameters, sequences, includes, braces, words. Every byte
//!    remembers where it stood; what came out of a parameter has the place of the reference.
//! 2. [`parse()`]: words to a [`tree`], driven by the one table in [`keywords`], with recovery after every mistake.
//! 3. [`lower()`]: the tree to the [`model`], where values are read and defaults and inheritance come in.
//!
//! All findings are [`Diagnostic`]s. [`exit_status`] is what keepalived's config test would exit with; findings that
//! depend on the machine (absent interfaces, scripts, accounts) are not this crate's.
//!
//! # What is left out
//!
//! Whether the machine has what the text names: interfaces, scripts, accounts, tables.
//!
//! # Features
//!
//! `render` (default): `Diagnostic::render` shows the source line with marks under the words.

pub mod diag;
mod dialect;
pub mod diff;
pub mod files;
mod format;
#[doc(hidden)]
pub mod fuzz;
pub mod keywords;
pub mod lex;
pub mod lint;
mod load;
mod lower;
pub mod model;
mod options;
mod parse;
mod print;
mod settings;
mod source;
pub mod tree;
pub mod verdict;

#[cfg(feature = "render")]
pub use annotate_snippets;
pub use diag::{Class, Code, Consequence, Diagnostic, Note, Severity, exit_status};
pub use dialect::Dialect;
pub use files::{FileError, Files, MapFiles, NoFiles};
pub use format::{format, format_bytes};
pub use lint::{Rule, lint};
pub use load::{Loaded, load, load_path};
pub use lower::lower;
pub use model::Config;
pub use options::{Machine, Mtus, Options};
pub use parse::{Parsed, parse};
pub use print::print;
pub use source::{Expansion, Position, Source, SourceId, SourceMap, Span};
pub use tree::Tree;

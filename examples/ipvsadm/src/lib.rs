//! The command `ipvsadm` as a library: same options, same exit statuses and the same listings to the byte as the
//! original, over a director's control socket instead of the kernel.
//!
//! [`args`] records exactly what was typed, [`command`] decides what it means, [`listing`] turns a director's answer
//! into text, and [`run`] joins them. [`protocol`] is what is said over the control socket, with a small client; it lives here
//! so that a program which only asks need not build a director.
//!
//! The table can be listed, saved, edited and restored. What is not here: `--start-daemon`, because this director has
//! no connection sync. FULLNAT, which the original does not know, has long options: `--fullnat`, `--add-laddr`, `--del-laddr`,
//! `--get-laddr`, `--laddr`. Where the original has no good answer
//! this one differs: `-R` skips lines that start with `#` and says on which line a command was refused, a netmask with
//! holes is refused, and `-h` and `-v` need no director.
//!
//! Names for addresses come from `/etc/hosts` and names for ports from `/etc/services`; no name server is asked, so a
//! listing without `-n` never hangs.
//!
//! ```
//! use ipvsadm::{args, command, listing::names::Names};
//!
//! let typed = args::parse(["-Ln", "--stats"])?;
//! let invocation = command::interpret(&typed, &Names::default())?;
//! assert!(matches!(invocation, command::Invocation::List(list) if list.stats && list.numeric));
//! # Ok::<(), args::UsageError>(())
//! ```

pub mod args;
pub mod command;
mod legal;
pub mod listing;
pub mod protocol;
mod refusal;
pub mod run;
mod values;

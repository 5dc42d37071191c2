//! Says what is wrong in a configuration file and what is left of it.
//!
//! ```text
//! cargo run -p lvs-conf --example explain -- /etc/keepalived/keepalived.conf
//! ```
//!
//! The exit status is that of keepalived's config test for the text. A second argument is the configuration id.

use std::io::Write as _;
use std::process::ExitCode;

use lvs_conf::annotate_snippets::Renderer;
use lvs_conf::{Config, NoFiles, Options, SourceMap, load};

/// Prints a line. A reader that has seen enough, such as `head`, is no failure.
macro_rules! say {
    ($($text:tt)*) => {{
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(path) = arguments.next() else {
        eprintln!("usage: explain FILE [ID]");
        return ExitCode::from(64);
    };
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) => {
            eprintln!("{path}: {error}");
            return ExitCode::from(4);
        }
    };
    let options = Options {
        config_id: arguments.next().unwrap_or_default(),
        ..Options::default()
    };
    let mut sources = SourceMap::new();
    let main = sources.add(path, bytes);
    let loaded = load(&mut sources, main, &NoFiles, &options);
    for diagnostic in &loaded.diagnostics {
        say!("{}\n", diagnostic.render(&sources, &Renderer::plain()));
    }
    summary(&loaded.config);
    ExitCode::from(loaded.exit_status())
}

fn summary(config: &Config) {
    for instance in &config.instances {
        say!(
            "instance {} id {} priority {} {:?} on {}: {} addresses",
            instance.name,
            instance.virtual_router_id,
            instance.priority,
            instance.state,
            instance.interface.as_deref().unwrap_or("-"),
            instance.virtual_addresses.len() + instance.excluded_addresses.len(),
        );
    }
    for group in &config.sync_groups {
        say!("sync group {}: {}", group.name, group.members.join(" "));
    }
    for server in &config.virtual_servers {
        say!(
            "virtual server {} {} {}",
            server.protocol,
            server.service,
            server.scheduler
        );
        for real in &server.real_servers {
            say!(
                "  -> {} {} weight {} checkers {}",
                real.address,
                real.method,
                real.weight,
                real.checkers.len()
            );
        }
    }
}

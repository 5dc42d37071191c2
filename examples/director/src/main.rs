//! The program `director`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;

use director::cli::{self, Invocation};
use director::commands::{
    self, STATUS_TROUBLE, by_hand, compare, completions, drain, events, format, genhash, health,
    host, lint, realserver, status, why,
};
use director::{app, config, demo, logging, namespace, vrrp};

fn main() -> ExitCode {
    let invocation = match cli::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(error) => {
            // There is no other place to complain about a closed standard error.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
        }
    };
    match invocation {
        Invocation::Check {
            file,
            config_id,
            json,
            namespace,
            log,
        } => {
            if let Some(name) = namespace
                && let Err(error) = namespace::enter(&name)
            {
                let _ = writeln!(
                    io::stderr(),
                    "can't enter the network namespace {name}: {error}"
                );
                return ExitCode::from(STATUS_TROUBLE);
            }
            let id = config_id.as_deref();
            exit(match (json, log) {
                (true, None) => config::check_json(&file, id, &mut io::stdout()),
                (false, None) => config::check(&file, id, &mut io::stderr()),
                (true, Some(log)) => {
                    append(&log).and_then(|mut log| config::check_json(&file, id, &mut log))
                }
                (false, Some(log)) => {
                    append(&log).and_then(|mut log| config::check(&file, id, &mut log))
                }
            })
        }
        Invocation::SignalNumber(number) => exit(writeln!(io::stdout(), "{number}").map(|()| 0)),
        Invocation::Format { files, mode } => {
            let mut worst = 0;
            for file in files {
                match format::run(&file, mode, &mut io::stdout(), &mut io::stderr()) {
                    Ok(status) => worst = worst.max(status),
                    Err(error) => return exit(Err(error)),
                }
            }
            ExitCode::from(worst)
        }
        Invocation::Lint {
            file,
            config_id,
            json,
        } => exit(lint::run(
            &file,
            config_id.as_deref(),
            json,
            &mut io::stdout(),
        )),
        Invocation::Plan {
            old,
            new,
            config_id,
            json,
        } => exit(compare::run(
            &old,
            &new,
            config_id.as_deref(),
            json,
            &mut io::stdout(),
            &mut io::stderr(),
        )),
        Invocation::RealServer(wanted) => ExitCode::from(realserver::run(&wanted)),
        Invocation::CheckRealServer { wanted, json } => exit(realserver::check(
            &wanted,
            json,
            &mut io::stdout(),
            &mut io::stderr(),
        )),
        Invocation::CheckHost {
            file,
            config_id,
            device,
            json,
        } => exit(host::check(
            &file,
            config_id.as_deref(),
            device,
            json,
            &mut io::stdout(),
            &mut io::stderr(),
        )),
        Invocation::Status(detail) => {
            exit(status::run(detail, &mut io::stdout(), &mut io::stderr()))
        }
        Invocation::Health(look) => exit(health::run(look, &mut io::stdout(), &mut io::stderr())),
        Invocation::GenHash(page) => {
            exit(genhash::run(&page, &mut io::stdout(), &mut io::stderr()))
        }
        Invocation::Vrrp { json } => exit(commands::vrrp::run(
            json,
            &mut io::stdout(),
            &mut io::stderr(),
        )),
        Invocation::Drain(command) => {
            exit(drain::run(&command, &mut io::stdout(), &mut io::stderr()))
        }
        Invocation::Marks(question) => exit(by_hand::marks(
            &question,
            &mut io::stdout(),
            &mut io::stderr(),
        )),
        Invocation::Tunables(settings) => exit(by_hand::tunables(
            settings,
            &mut io::stdout(),
            &mut io::stderr(),
        )),
        Invocation::Why { packet, json } => exit(why::run(
            &packet,
            json,
            &mut io::stdout(),
            &mut io::stderr(),
        )),
        Invocation::Completions(shell) => exit(
            io::stdout()
                .write_all(completions::script(shell, &cli::command()).as_bytes())
                .map(|()| 0),
        ),
        Invocation::Events { json } => {
            exit(events::follow(json, &mut io::stdout(), &mut io::stderr()))
        }
        Invocation::Reload { json } => {
            exit(events::reload(json, &mut io::stdout(), &mut io::stderr()))
        }
        Invocation::Demo { workers, setup } => demo::run(workers, setup.as_deref()),
        Invocation::Run(options) => {
            logging::start(options.log);
            ended(app::run(options))
        }
        Invocation::RunVrrp(options) => {
            logging::start(options.log);
            ended(vrrp::run(&options))
        }
    }
}

/// The status of a daemon that has ended, which says why to the log.
fn ended(outcome: Result<(), app::RunError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", logging::chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// The status of a command. Where nothing can be written there is nobody to tell, but it is no answer either.
/// As keepalived does: what an earlier test wrote stays.
fn append(log: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(log)
}

fn exit(outcome: io::Result<u8>) -> ExitCode {
    ExitCode::from(outcome.unwrap_or(STATUS_TROUBLE))
}

//! The program `director`.

use std::process::ExitCode;

use director::cli::{self, Invocation};
use director::{app, config, demo, logging};

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
        } => {
            let checked = if json {
                config::check_json(&file, config_id.as_deref(), &mut std::io::stdout())
            } else {
                config::check(&file, config_id.as_deref(), &mut std::io::stderr())
            };
            match checked {
                Ok(status) => ExitCode::from(status),
                Err(_) => ExitCode::FAILURE,
            }
        }
        Invocation::Demo { workers } => demo::run(workers),
        Invocation::Run(options) => {
            logging::start(options.log_console, options.log_detail);
            match app::run(options) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    tracing::error!("{}", logging::chain(&error));
                    ExitCode::FAILURE
                }
            }
        }
    }
}

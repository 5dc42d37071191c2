//! The words of `director drain`, `undrain` and `weight`.

use std::net::{IpAddr, SocketAddr};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::commands::drain::DrainCommand;
use crate::control::drain::{DrainAction, DrainQuestion};

/// The three subcommands.
pub(super) fn commands() -> [Command; 3] {
    let drain = Command::new("drain")
        .about("Give a real server no new connections and see who is left; without a server, list what is being drained")
        .after_help(
            "It keeps weight 0, whatever the configuration and checks say, until `director undrain`.\n\
             Exit status: 0 done, 1 with --wait: the end was forced, 2 it can't be done or told.",
        )
        .arg(server(false))
        .arg(service())
        .arg(
            Arg::new("deadline")
                .long("deadline")
                .value_name("SECONDS")
                .requires("server")
                .value_parser(value_parser!(u64))
                .help("End after so long whoever is left then"),
        )
        .arg(
            Arg::new("wait")
                .long("wait")
                .requires("server")
                .action(ArgAction::SetTrue)
                .help("Come back when nobody is left or the deadline has come"),
        )
        .arg(json());
    let undrain = Command::new("undrain")
        .about("Give a drained real server the weight again that it should have")
        .arg(server(true))
        .arg(service())
        .arg(json());
    let weight = Command::new("weight")
        .about("Give a real server another weight, until the configuration or a check changes it")
        .arg(server(true))
        .arg(
            Arg::new("weight")
                .value_name("WEIGHT")
                .required(true)
                .value_parser(value_parser!(u32))
                .help("0 is for no new connections"),
        )
        .arg(service())
        .arg(json());
    [drain, undrain, weight]
}

/// What one of them asks for.
pub(super) fn invocation(name: &str, matches: &ArgMatches) -> DrainCommand {
    let server = matches.get_one::<Server>("server").copied();
    let flag = |name: &str| matches!(matches.try_get_one::<bool>(name), Ok(Some(true)));
    let number = |name: &str| matches.try_get_one::<u64>(name).ok().flatten().copied();
    let action = match name {
        "undrain" => Some(DrainAction::Undrain),
        "weight" => Some(DrainAction::Weight {
            weight: matches.get_one::<u32>("weight").copied().unwrap_or(0),
        }),
        _ => server.map(|_| DrainAction::Drain {
            deadline: number("deadline"),
        }),
    };
    DrainCommand {
        question: DrainQuestion {
            action,
            server: server.map(|server| server.addr),
            port: server.and_then(|server| server.port),
            service: matches.get_one::<String>("service").cloned(),
        },
        wait: flag("wait"),
        json: flag("json"),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Server {
    addr: IpAddr,
    port: Option<u16>,
}

fn parse_server(text: &str) -> Result<Server, String> {
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Ok(Server {
            addr: addr.ip(),
            port: Some(addr.port()),
        });
    }
    let addr = text
        .parse()
        .map_err(|_| "it is ADDRESS or ADDRESS:PORT, [ADDRESS]:PORT in IPv6".to_owned())?;
    Ok(Server { addr, port: None })
}

fn server(required: bool) -> Arg {
    Arg::new("server")
        .value_name("SERVER")
        .required(required)
        .value_parser(parse_server)
        .help("ADDRESS:PORT, or ADDRESS for all its ports")
}

fn service() -> Arg {
    Arg::new("service")
        .long("service")
        .value_name("SERVICE")
        .help("Only in this virtual service: ADDRESS:PORT or a firewall mark")
}

fn json() -> Arg {
    super::json_flag("One JSON object instead of text")
}

#[cfg(test)]
mod tests {
    use super::super::{Invocation, parse};
    use super::*;

    fn of(words: &[&str]) -> DrainCommand {
        let words = ["director"].iter().chain(words);
        match parse(words) {
            Ok(Invocation::Drain(command)) => command,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn servers_are_drained_listed_and_taken_back() {
        assert_eq!(of(&["drain"]), DrainCommand::default());
        let command = of(&[
            "drain",
            "[fd00::1]:80",
            "--deadline",
            "30",
            "--wait",
            "--json",
            "--service",
            "5",
        ]);
        let question = DrainQuestion {
            action: Some(DrainAction::Drain { deadline: Some(30) }),
            server: Some("fd00::1".parse().unwrap()),
            port: Some(80),
            service: Some("5".into()),
        };
        assert_eq!(command.question, question);
        assert!(command.wait && command.json);
        let command = of(&["undrain", "10.0.0.1"]);
        assert_eq!(command.question.action, Some(DrainAction::Undrain));
        assert_eq!(command.question.port, None);
        let command = of(&["weight", "10.0.0.1:80", "7"]);
        assert_eq!(
            command.question.action,
            Some(DrainAction::Weight { weight: 7 })
        );
        for wrong in [
            &["undrain"][..],
            &["weight", "10.0.0.1:80"],
            &["weight", "10.0.0.1:80", "-1"],
            &["drain", "example"],
            &["drain", "--wait"],
            &["drain", "10.0.0.1", "--deadline", "soon"],
        ] {
            let words = ["director"].iter().chain(wrong);
            assert!(parse(words).is_err(), "{wrong:?}");
        }
    }
}

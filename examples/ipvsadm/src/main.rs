//! The binary.

use std::env;
use std::io;
use std::process::ExitCode;

use ipvsadm::listing::names::Names;
use ipvsadm::protocol::SocketAddress;
use ipvsadm::run::run;

fn main() -> ExitCode {
    let arguments = env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned());
    ExitCode::from(run(
        arguments,
        &SocketAddress::from_env(),
        &Names::system(),
        io::stdin().lock(),
        &mut io::stdout().lock(),
        &mut io::stderr().lock(),
    ))
}

//! Scripts of checks, run by who runs all of the director's scripts.

use std::io;

use lvs_health::{Exit, RunningScript, Script, ScriptEnd, ScriptRunner, SystemError};

use crate::notify::scripts::{self, Account, Command, Purpose, Runner, Ticket};

/// A [`Runner`] for the checks of servers.
#[derive(Debug, Clone)]
pub struct CheckScripts(Runner);

impl CheckScripts {
    /// By this runner. The number of checks that run at once is its own.
    pub fn new(runner: Runner) -> Self {
        Self(runner)
    }
}

impl ScriptRunner for CheckScripts {
    fn run(&mut self, script: &Script, end: ScriptEnd) -> Box<dyn RunningScript> {
        let command = Command {
            program: script.program.clone(),
            arguments: script.arguments.clone(),
            account: script.user.as_ref().map(|user| Account {
                uid: user.uid,
                gid: user.gid,
                groups: user.groups.clone(),
            }),
        };
        // The monitor watches the time.
        let ticket = self.0.run(Purpose::Check, command, None, move |ended| {
            end.tell(exit(ended.exit));
        });
        Box::new(Started(ticket))
    }
}

#[derive(Debug)]
struct Started(Ticket);

impl RunningScript for Started {
    fn terminate(&mut self) {
        self.0.terminate();
    }
}

fn exit(exit: scripts::Exit) -> Exit {
    match exit {
        scripts::Exit::Code(code) => Exit::Code(code),
        scripts::Exit::Signal(signal) => Exit::Signal(signal),
        scripts::Exit::NotStarted(error) => {
            Exit::NotStarted(SystemError::from(&io::Error::from(error)))
        }
    }
}

//! `director completions`: what a shell needs to complete this command line, from the table that the parser reads.

use std::fmt::Write as _;

use clap::{Arg, Command};

/// A shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shell {
    /// bash; zsh too, after `bashcompinit`.
    Bash,
    /// fish.
    Fish,
}

impl Shell {
    /// The names that [`from_word`](Self::from_word) takes.
    pub const NAMES: [&'static str; 3] = ["bash", "zsh", "fish"];

    /// By its name.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "bash" | "zsh" => Some(Self::Bash),
            "fish" => Some(Self::Fish),
            _ => None,
        }
    }
}

/// The script, to be sourced.
pub fn script(shell: Shell, command: &Command) -> String {
    match shell {
        Shell::Bash => bash(command),
        Shell::Fish => fish(command),
    }
}

fn bash(command: &Command) -> String {
    let mut cases = String::new();
    for sub in commands(command) {
        let words = words(sub).join(" ");
        // Writing to a string does not fail.
        let _ = writeln!(cases, "        {}) words='{words}' ;;", sub.get_name());
    }
    let all = words(command).join(" ");
    format!(
        "# bash completion for director; zsh: autoload -U bashcompinit && bashcompinit, then this\n\
         _director() {{\n    \
         local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} words\n    \
         case $before in\n        \
         {files}) COMPREPLY=($(compgen -f -- \"$current\")); return ;;\n    \
         esac\n    \
         case ${{COMP_WORDS[1]}} in\n\
         {cases}        *) words='{all}' ;;\n    \
         esac\n    \
         COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n    \
         case $current in\n        \
         -*) ;;\n        \
         *) [ \"$COMP_CWORD\" -gt 1 ] && COMPREPLY+=($(compgen -f -- \"$current\")) ;;\n    \
         esac\n\
         }}\n\
         complete -F _director director\n",
        files = FILE_OPTIONS.join("|"),
    )
}

fn fish(command: &Command) -> String {
    let mut text = String::from("# fish completion for director\n");
    let option = |condition: &str, argument: &Arg| {
        let mut line = format!("complete -c director{condition}");
        if let Some(short) = argument.get_short() {
            let _ = write!(line, " -s {short}");
        }
        if let Some(long) = argument.get_long() {
            let _ = write!(line, " -l {long}");
        }
        if argument.get_action().takes_values() && !argument.is_require_equals_set() {
            line.push_str(" -r");
        }
        let help = argument.get_help().map(ToString::to_string);
        let _ = writeln!(line, " -d '{}'", quoted(&help.unwrap_or_default()));
        line
    };
    for argument in options(command) {
        text += &option(" -n __fish_use_subcommand", argument);
    }
    for sub in commands(command) {
        let name = sub.get_name();
        let about = sub.get_about().map(ToString::to_string);
        let about = quoted(&about.unwrap_or_default());
        let _ = writeln!(
            text,
            "complete -c director -n __fish_use_subcommand -a {name} -d '{about}'"
        );
        for argument in options(sub) {
            let condition = format!(" -n '__fish_seen_subcommand_from {name}'");
            text += &option(&condition, argument);
        }
    }
    text
}

fn commands(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|sub| !sub.is_hide_set())
}

fn options(command: &Command) -> impl Iterator<Item = &Arg> {
    let all = command.get_arguments();
    all.filter(|argument| !argument.is_positional() && !argument.is_hide_set())
}

/// Subcommands and options of a command.
fn words(command: &Command) -> Vec<String> {
    let subs = commands(command).map(|sub| sub.get_name().to_owned());
    let long = options(command).filter_map(|argument| {
        let long = argument.get_long();
        let short = argument.get_short();
        long.map(|long| format!("--{long}"))
            .or_else(|| short.map(|short| format!("-{short}")))
    });
    subs.chain(long).collect()
}

fn quoted(text: &str) -> String {
    text.replace('\'', "\\'")
}

const FILE_OPTIONS: [&str; 5] = ["-f", "--use-file", "-p", "--pid", "--pcap"];

//! Counting processes by their names.

use std::collections::BTreeMap;
use std::fs;

use lvs_conf::model::{ParameterMatch, TrackProcess};

/// How many processes there are of each, in one pass over `/proc`.
pub(in super::super) fn count(wanted: &[TrackProcess]) -> BTreeMap<String, u32> {
    let mut counts: BTreeMap<String, u32> = wanted
        .iter()
        .map(|process| (process.name.clone(), 0))
        .collect();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let needs_line = |process: &TrackProcess| process.full_command || process.parameters.is_some();
    for entry in entries {
        let is_process = entry
            .file_name()
            .as_encoded_bytes()
            .iter()
            .all(u8::is_ascii_digit);
        if !is_process {
            continue;
        }
        let path = entry.path();
        let Ok(name) = fs::read_to_string(path.join("comm")) else {
            continue;
        };
        let name = name.trim_end_matches('\n');
        let mut line = None;
        for process in wanted {
            if !process.full_command && !has_name(process, name) {
                continue;
            }
            // Most have another name, and their command lines need not be read.
            if needs_line(process) && line.is_none() {
                line = fs::read(path.join("cmdline")).ok();
            }
            if matches(process, name, line.as_deref().unwrap_or_default()) {
                *counts.entry(process.name.clone()).or_default() += 1;
            }
        }
    }
    counts
}

/// The kernel keeps fifteen bytes of a name.
fn has_name(process: &TrackProcess, name: &str) -> bool {
    let wanted = process.command.first().map_or("", String::as_str);
    let base = wanted.rsplit('/').next().unwrap_or(wanted);
    base.get(..15).unwrap_or(base) == name
}

/// `line` has the program and its arguments, each ended by a zero byte.
fn matches(process: &TrackProcess, name: &str, line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\0").unwrap_or(line);
    let mut words = line.split(|byte| *byte == 0);
    let program = words.next().unwrap_or_default();
    let wanted = process.command.first().map_or("", String::as_str);
    let is_it = match process.full_command {
        true => program == wanted.as_bytes(),
        false => has_name(process, name),
    };
    let Some(how) = process.parameters else {
        return is_it;
    };
    let given: Vec<&[u8]> = words.collect();
    let expected: Vec<&[u8]> = process.command[1..].iter().map(String::as_bytes).collect();
    is_it
        && match how {
            ParameterMatch::Exact => given == expected,
            ParameterMatch::Initial => given.starts_with(&expected),
            ParameterMatch::Partial => match expected.split_last() {
                None => true,
                Some((last, first)) => {
                    given.starts_with(first)
                        && given
                            .get(first.len())
                            .is_some_and(|word| word.starts_with(last))
                }
            },
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(command: &[&str], parameters: Option<ParameterMatch>, full: bool) -> TrackProcess {
        TrackProcess {
            name: "p".into(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            parameters,
            weight: 0,
            reverse: false,
            quorum: 1,
            quorum_max: None,
            terminate_delay: std::time::Duration::ZERO,
            fork_delay: std::time::Duration::ZERO,
            full_command: full,
        }
    }

    #[test]
    fn names_and_arguments_are_compared_as_asked() {
        let line = b"/usr/sbin/nginx\0-g\0daemon off\0";
        for (wanted, expected) in [
            (process(&["nginx"], None, false), true),
            (process(&["ngin"], None, false), false),
            (process(&["nginx"], None, true), false),
            (process(&["/usr/sbin/nginx"], None, true), true),
            (
                process(&["nginx", "-g"], Some(ParameterMatch::Exact), false),
                false,
            ),
            (
                process(&["nginx", "-g"], Some(ParameterMatch::Initial), false),
                true,
            ),
            (
                process(
                    &["nginx", "-g", "daemon"],
                    Some(ParameterMatch::Partial),
                    false,
                ),
                true,
            ),
            (
                process(
                    &["nginx", "-g", "daemon off", "x"],
                    Some(ParameterMatch::Partial),
                    false,
                ),
                false,
            ),
        ] {
            assert_eq!(matches(&wanted, "nginx", line), expected, "{wanted:?}");
        }
    }

    #[test]
    fn this_process_is_found_once() {
        let own = fs::read_to_string("/proc/self/comm").unwrap();
        let wanted = process(&[own.trim_end()], None, false);
        assert!(count(&[wanted])["p"] >= 1);
        let none = process(&["no such program"], None, false);
        assert_eq!(count(&[none])["p"], 0);
    }
}

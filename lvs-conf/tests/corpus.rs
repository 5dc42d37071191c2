//! Real files, and what keepalived 2.2.7 said about them.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use lvs_conf::{Dialect, Machine, Mtus, NoFiles, Options, SourceMap, load, tree, verdict};

/// Accounts that the machine of the recorded verdicts had, as far as the files name them.
const ACCOUNTS: &[&str] = &["root", "nobody", "daemon"];

/// Where that machine had programs.
const PROGRAMS: &[&str] = &["/bin/", "/sbin/", "/usr/bin/", "/usr/sbin/"];

/// Exit status and complaints of every file, from the record.
fn recorded(folder: &std::path::Path) -> BTreeMap<String, (u8, String)> {
    let text =
        std::fs::read_to_string(folder.join("verdicts.tsv")).expect("the record can be read");
    text.lines()
        .skip(1)
        .map(|line| {
            let columns: Vec<_> = line.split('\t').collect();
            let status = columns[1].parse().expect("the status is a number");
            (columns[0].to_owned(), (status, columns[6].to_owned()))
        })
        .collect()
}

/// `kind(argument)@line` without the argument.
fn without_argument(complaint: &str) -> String {
    match (complaint.find('('), complaint.rfind(')')) {
        (Some(open), Some(close)) => {
            format!("{}{}", &complaint[..open], &complaint[close + 1..])
        }
        _ => complaint.to_owned(),
    }
}

#[test]
fn verdicts_are_those_of_keepalived_2_2_7() {
    let Some(folder) = common::shared("corpus/keepalived-conf") else {
        return;
    };
    let recorded = recorded(&folder);
    let options = Options {
        dialect: Dialect::V2_2_7,
        config_id: "node1".to_owned(),
        machine: Some(Machine {
            accounts: ACCOUNTS.iter().map(|name| (*name).to_owned()).collect(),
            program_directories: PROGRAMS.iter().map(|name| (*name).to_owned()).collect(),
            ..Machine::default()
        }),
        mtus: Mtus::all(1500),
        ..Options::default()
    };
    let (mut differing, mut arguments_differ) = (BTreeSet::new(), BTreeSet::new());
    let files = common::files(&folder);
    for (name, bytes) in &files {
        let (status, theirs) = &recorded[name];
        let mut sources = SourceMap::new();
        let id = sources.add(name.clone(), bytes.clone());
        let loaded = load(&mut sources, id, &NoFiles, &options);
        let (env, theirs): (Vec<&str>, Vec<&str>) = theirs
            .split("; ")
            .filter(|complaint| *complaint != "-")
            .partition(|complaint| complaint.starts_with("env:"));
        let ours: Vec<String> = verdict::complaints(&sources, &loaded.diagnostics)
            .iter()
            .map(ToString::to_string)
            .collect();
        let sorted = |complaints: Vec<String>| {
            let mut complaints = complaints;
            complaints.sort();
            complaints
        };
        let bare_ours = sorted(ours.iter().map(|c| without_argument(c)).collect());
        let bare_theirs = sorted(theirs.iter().map(|c| without_argument(c)).collect());
        let is_status_wrong = env.is_empty() && loaded.exit_status() != *status;
        if bare_ours != bare_theirs || is_status_wrong {
            println!(
                "{name}: exits {} and {status}\n  ours   {ours:?}\n  theirs {theirs:?}",
                loaded.exit_status()
            );
            differing.insert(name.as_str());
        }
        let theirs = sorted(theirs.iter().map(|c| (*c).to_owned()).collect());
        if sorted(ours.clone()) != theirs {
            println!("{name}:\n  ours   {:?}\n  theirs {theirs:?}", sorted(ours));
            arguments_differ.insert(name.as_str());
        }
    }
    println!(
        "{} files: {} agree, {} to the last argument",
        files.len(),
        files.len() - differing.len(),
        files.len() - arguments_differ.len()
    );
    assert_eq!(differing, BTreeSet::new());
    assert_eq!(arguments_differ, BTreeSet::new());
}

#[test]
fn every_file_prints_back_byte_for_byte_and_renders_whatever_is_found() {
    let Some(folder) = common::shared("corpus/keepalived-conf") else {
        return;
    };
    for (name, bytes) in common::files(&folder) {
        let mut sources = SourceMap::new();
        let id = sources.add(name.clone(), bytes.clone());
        assert_eq!(tree::print(&sources, id), bytes, "{name}");
        let loaded = load(&mut sources, id, &NoFiles, &Options::default());
        for diagnostic in &loaded.diagnostics {
            assert!(!diagnostic.display(&sources).to_string().is_empty());
            #[cfg(feature = "render")]
            diagnostic.render(&sources, &lvs_conf::annotate_snippets::Renderer::plain());
        }
    }
}

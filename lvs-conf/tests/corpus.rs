//! Real files, and what keepalived 2.2.7 said about them.

mod common;

use std::collections::BTreeSet;

use lvs_conf::{Class, Code, SourceMap, load};

/// Of 79 files that use nothing beyond what is evaluated here: those with the same unknown keywords, and those that are clean
/// for both or for neither. The others differ by release, by what was installed, or in the lines that keepalived misreads after
/// an unknown block.
const AGREEING_UNKNOWN: usize = 75;
const AGREEING_STATUS: usize = 73;
/// Those with exactly the same set of kinds of complaints that do not depend on the machine.
const AGREEING_KINDS: usize = 62;

#[test]
fn verdicts_agree_with_keepalived() {
    let Some(folder) = common::shared("corpus/keepalived-conf") else {
        return;
    };
    let verdicts = std::fs::read_to_string(folder.join("verdicts.tsv")).unwrap();
    let verdict = |name: &str| {
        verdicts
            .lines()
            .map(|line| line.split('\t').collect::<Vec<_>>())
            .find(|columns| columns[0] == name)
            .unwrap()
    };
    let (mut compared, mut unknown_agrees, mut status_agrees, mut kinds_agree) = (0, 0, 0, 0);
    for (name, bytes) in common::files(&folder) {
        let mut sources = SourceMap::new();
        let id = sources.add(name.clone(), bytes);
        let loaded = load(&sources, id);
        for diagnostic in &loaded.diagnostics {
            assert!(!diagnostic.display(&sources).to_string().is_empty());
        }
        if loaded
            .diagnostics
            .iter()
            .any(|d| d.code == Code::UnsupportedConstruct)
        {
            continue;
        }
        compared += 1;
        let columns = verdict(&name);
        let theirs: BTreeSet<u32> = columns[6]
            .split("; ")
            .filter(|kind| kind.starts_with("unknown-keyword("))
            .filter_map(|kind| kind.rsplit_once('@')?.1.parse().ok())
            .collect();
        let ours: BTreeSet<u32> = loaded
            .diagnostics
            .iter()
            .filter(|d| d.code == Code::UnknownKeyword)
            .map(|d| sources.position(d.span).line)
            .collect();
        if theirs == ours {
            unknown_agrees += 1;
        } else {
            println!("{name}: unknown keywords on {ours:?}, keepalived {theirs:?}");
        }
        let their_kinds: BTreeSet<&str> = columns[6]
            .split("; ")
            .filter(|kind| *kind != "-" && !kind.starts_with("env:"))
            .filter_map(|kind| kind.split(['(', '@']).next())
            .collect();
        let our_kinds: BTreeSet<&str> = loaded
            .diagnostics
            .iter()
            .filter(|d| d.class() != Class::Ok)
            .map(|d| d.code.as_str())
            .collect();
        kinds_agree += usize::from(their_kinds == our_kinds);
        // Complaints about the machine are left out; with them gone the text decides between clean and not.
        let clean = columns[5] == "0";
        if clean == (loaded.exit_status() == 0) {
            status_agrees += 1;
        } else {
            let codes: Vec<_> = loaded
                .diagnostics
                .iter()
                .filter(|d| d.class() != Class::Ok)
                .map(|d| d.display(&sources).to_string())
                .collect();
            println!("{name}: {codes:?}, keepalived {}", columns[6]);
        }
    }
    println!(
        "{compared} files compared, unknown keywords agree in {unknown_agrees}, \
         cleanliness in {status_agrees}, kinds in {kinds_agree}"
    );
    assert!(unknown_agrees >= AGREEING_UNKNOWN);
    assert!(status_agrees >= AGREEING_STATUS);
    assert!(kinds_agree >= AGREEING_KINDS);
}

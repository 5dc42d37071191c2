//! Lint over every file that we have.

mod common;

use std::collections::BTreeMap;

use lvs_conf::{NoFiles, Options, Rule, SourceMap, lint, load};

/// The names of the rules that fire.
fn fired(text: Vec<u8>) -> Vec<&'static str> {
    let mut sources = SourceMap::new();
    let main = sources.add("k.conf", text);
    let loaded = load(&mut sources, main, &NoFiles, &Options::default());
    let findings = lint(&sources, &loaded.tree, &loaded.config);
    findings.iter().map(|d| d.code.as_str()).collect()
}

#[test]
fn files_are_warned_of_and_can_be_silenced() {
    let Some(folder) = common::shared("corpus/keepalived-conf") else {
        return;
    };
    let files = common::files(&folder);
    let mut counts = BTreeMap::new();
    let rules: Vec<_> = Rule::ALL.iter().map(|rule| rule.as_str()).collect();
    let silence = format!("# lint: allow-file({})\n", rules.join(", "));
    for (name, bytes) in &files {
        let mut found = fired(bytes.clone());
        let mut silent = silence.clone().into_bytes();
        silent.extend_from_slice(bytes);
        assert_eq!(fired(silent), [] as [&str; 0], "{name}");
        found.sort_unstable();
        found.dedup();
        for rule in found {
            *counts.entry(rule).or_insert(0) += 1;
        }
    }
    // A rule that fires nearly everywhere is not listened to.
    for (rule, count) in counts {
        println!("{rule}: {count} of {}", files.len());
        assert!(count * 2 < files.len(), "{rule}");
    }
}

//! A model prints as a file that loads to an equal model.

mod common;
mod generated;

use lvs_conf::{Loaded, NoFiles, Options, Severity, SourceMap, load, print};
use proptest::prelude::*;

fn read(text: impl Into<Vec<u8>>) -> (SourceMap, Loaded) {
    let mut sources = SourceMap::new();
    let id = sources.add("x", text.into());
    let options = Options {
        config_id: "node1".to_owned(),
        ..Options::default()
    };
    let loaded = load(&mut sources, id, &NoFiles, &options);
    (sources, loaded)
}

/// Prints a loaded text and reads it again.
fn round_trip(loaded: &Loaded) -> Result<(), String> {
    let text = print(&loaded.config);
    let (sources, again) = read(text.clone());
    for diagnostic in &again.diagnostics {
        let old = loaded.diagnostics.iter().any(|d| d.code == diagnostic.code);
        if diagnostic.severity() == Severity::Error && !old {
            return Err(format!("{}\n{text}", diagnostic.display(&sources)));
        }
    }
    if again.config == loaded.config {
        return Ok(());
    }
    let (before, after) = (
        format!("{:#?}", loaded.config),
        format!("{:#?}", again.config),
    );
    let differing: Vec<_> = before
        .lines()
        .zip(after.lines())
        .filter(|(a, b)| a != b)
        .take(4)
        .collect();
    Err(format!("{differing:#?}\n{text}"))
}

#[test]
fn every_file_of_the_corpus_loads_the_same_after_printing() {
    let Some(folder) = common::shared("corpus/keepalived-conf") else {
        return;
    };
    let mut wrong = Vec::new();
    for (name, bytes) in common::files(&folder) {
        if let Err(why) = round_trip(&read(bytes).1) {
            wrong.push(format!("{name}: {why}"));
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.len(), wrong.join("\n"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn a_model_prints_as_a_file_that_loads_to_an_equal_model(sections in generated::sections()) {
        let (_, loaded) = read(sections.concat());
        if let Err(why) = round_trip(&loaded) {
            prop_assert!(false, "{why}");
        }
    }
}

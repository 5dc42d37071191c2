//! The configurations of the guide that the project starts from.

mod common;

use lvs_conf::{Code, Loaded, NoFiles, Options, SourceMap, load};

const NO_NAMES: &str = "write the address itself, names are not looked up";

fn setup(name: &str) -> Option<(SourceMap, Loaded)> {
    let folder = common::shared("guide/setups")?;
    let bytes = std::fs::read(folder.join(name)).expect("the file can be read");
    let mut sources = SourceMap::new();
    let id = sources.add(name, bytes);
    let loaded = load(&mut sources, id, &NoFiles, &Options::default());
    Some((sources, loaded))
}

/// Code, line, column and hint of every finding of one kind.
fn found(sources: &SourceMap, loaded: &Loaded, code: Code) -> Vec<(u32, u32, Option<String>)> {
    loaded
        .diagnostics
        .iter()
        .filter(|d| d.code == code)
        .map(|d| {
            let at = sources.position(d.span);
            (at.line, at.column, d.hint.clone())
        })
        .collect()
}

#[test]
fn every_setup_loads() {
    let Some(folder) = common::shared("guide/setups") else {
        return;
    };
    let files = common::files(&folder);
    assert_eq!(files.len(), 9);
    for (name, bytes) in files {
        let mut sources = SourceMap::new();
        let id = sources.add(name.clone(), bytes);
        let loaded = load(&mut sources, id, &NoFiles, &Options::default());
        let config = &loaded.config;
        let empty = config.instances.is_empty()
            && config.virtual_servers.is_empty()
            && config.scripts.is_empty()
            && name != "reference-sync-group.conf";
        assert!(!empty, "{name}");
    }
}

#[test]
fn placeholders_for_an_address_are_diagnosed() {
    let Some((sources, loaded)) = setup("nat.conf") else {
        return;
    };
    assert_eq!(
        found(&sources, &loaded, Code::VipAddressInvalid),
        [(18, 1, Some(NO_NAMES.to_owned()))]
    );
    assert_eq!(
        found(&sources, &loaded, Code::VsAddressInvalid),
        [(21, 16, Some(NO_NAMES.to_owned()))]
    );
    assert_eq!(
        found(&sources, &loaded, Code::UnknownKeyword),
        [
            (30, 1, Some("use `retry`".to_owned())),
            (39, 1, Some("use `retry`".to_owned()))
        ]
    );
    assert!(loaded.config.virtual_servers.is_empty());
    assert_eq!(loaded.config.instances.len(), 1);
}

#[test]
fn slips_of_the_reference_instance_are_found_with_their_hints() {
    let Some((sources, loaded)) = setup("reference-instance.conf") else {
        return;
    };
    let unknown = found(&sources, &loaded, Code::UnknownKeyword);
    assert_eq!((unknown[0].0, unknown[0].1), (1, 22));
    assert_eq!(
        unknown[1..],
        [
            (16, 1, Some("did you mean `auth_pass`?".to_owned())),
            (31, 1, Some("did you mean `preempt_delay`?".to_owned()))
        ]
    );
    assert_eq!(
        found(&sources, &loaded, Code::SourceAddressInvalid),
        [(9, 14, Some(NO_NAMES.to_owned()))]
    );
    let missing = found(&sources, &loaded, Code::MissingArgument);
    assert_eq!((missing.len(), missing[0].0, missing[0].1), (1, 32, 1));
    assert_eq!(loaded.exit_status(), 2);
    let instance = &loaded.config.instances[0];
    assert_eq!(instance.virtual_addresses.len(), 2);
    assert_eq!(instance.routes.len(), 4);
    assert!(instance.preempt, "nopreempt has no effect with MASTER");
    assert_eq!(instance.authentication, None);
}

#[test]
fn a_comment_with_slashes_is_the_first_statement_of_the_block() {
    let Some((sources, loaded)) = setup("reference-sync-group.conf") else {
        return;
    };
    let unknown = found(&sources, &loaded, Code::UnknownKeyword);
    assert_eq!(unknown.len(), 1);
    assert_eq!((unknown[0].0, unknown[0].1), (1, 24));
    assert_eq!(
        found(&sources, &loaded, Code::SyncGroupMemberUndefined).len(),
        2
    );
}

#[test]
fn direct_routing_resets_a_port_that_differs() {
    let Some((sources, loaded)) = setup("dr.conf") else {
        return;
    };
    assert_eq!(
        found(&sources, &loaded, Code::RsPortDiffersReset),
        [(60, 1, None)]
    );
    let servers = &loaded.config.virtual_servers;
    assert_eq!(servers.len(), 4);
    assert_eq!(servers[1].real_servers[1].address.port(), 443);
    assert_eq!(
        servers[1].real_servers[1].checkers[0]
            .probe()
            .destination
            .port(),
        443
    );
    assert_eq!(loaded.config.sync_groups[0].members.len(), 2);
}

#[test]
fn the_default_file_has_the_complaints_of_keepalived() {
    let Some((sources, loaded)) = setup("default.conf") else {
        return;
    };
    assert_eq!(
        found(&sources, &loaded, Code::NumberOutOfRange).len(),
        2,
        "intervals of zero"
    );
    assert_eq!(found(&sources, &loaded, Code::StrictStatePriority).len(), 1);
    assert_eq!(found(&sources, &loaded, Code::StrictAuth).len(), 1);
    assert_eq!(found(&sources, &loaded, Code::Deprecated).len(), 5);
    assert_eq!(loaded.config.virtual_servers.len(), 3);
    assert_eq!(loaded.exit_status(), 5);
}

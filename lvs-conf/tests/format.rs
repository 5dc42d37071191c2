//! Every file that we have keeps its meaning when it is formatted.

mod common;

use lvs_conf::{SourceMap, format, fuzz};

#[test]
fn files_mean_the_same_when_formatted() {
    for folder in ["corpus/keepalived-conf", "guide/setups"] {
        let Some(folder) = common::shared(folder) else {
            return;
        };
        let mut files = common::files(&folder);
        if let Ok(entries) = std::fs::read_dir(&folder) {
            for path in entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()) {
                files.extend(common::files(&path));
            }
        }
        assert!(!files.is_empty());
        for (name, bytes) in files {
            println!("{name}");
            fuzz::formatting(&bytes);
        }
    }
}

#[test]
fn a_grown_file_comes_out_in_one_layout() {
    let grown = "! Configuration File\n\n\nglobal_defs {\n   router_id LVS_1   # this node\n\n\n\n   notification_email { a@example.org\n b@example.org }\n}\n\
        vrrp_instance VI_1 {\n\tstate MASTER\n\tinterface   eth0\n@lb1\tpriority 150\n@lb2 priority 100\n\
        \tauthentication\n\t{\n\t\tauth_type PASS\n\t\tauth_pass \"a # b\"\n\t}\n  virtual_ipaddress { 10.0.0.1/24 dev eth0 }}\n";
    let mut sources = SourceMap::new();
    let id = sources.add("k.conf", grown);
    assert_eq!(
        format(&sources, id),
        r#"! Configuration File

global_defs {
    router_id LVS_1   # this node

    notification_email {
        a@example.org
        b@example.org
    }
}
vrrp_instance VI_1 {
    state MASTER
    interface   eth0
    @lb1	priority 150
    @lb2 priority 100
    authentication {
        auth_type PASS
        auth_pass "a # b"
    }
    virtual_ipaddress {
        10.0.0.1/24 dev eth0
    }
}
"#
    );
}

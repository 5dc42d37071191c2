//! What an operator types, without a running director.

use std::fs;
use std::path::PathBuf;

use libtest_mimic::Trial;

use crate::once;
use crate::stage::director;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        once("config_test_of_a_clean_file_is_silent_and_zero", clean_file),
        once(
            "config_test_shows_line_column_and_hint",
            error_in_the_middle,
        ),
        once("config_test_of_a_missing_file", missing_file),
        once("config_test_names_a_missing_interface", missing_interface),
        once("config_test_of_the_guides_configurations", guide),
        once("wrong_option_is_told", wrong_option),
    ]
}

struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("director-cli-{}-{name}.conf", std::process::id()));
        fs::write(&path, text).unwrap();
        Self(path)
    }

    fn test(&self) -> (i32, String) {
        director(&["-t", "-f", self.0.to_str().unwrap()])
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

const CLEAN: &str = "\
vrrp_instance VI_1 {
    interface lo
    virtual_router_id 51
    virtual_ipaddress {
        192.0.2.10/32 dev lo
    }
}
virtual_server 192.0.2.10 80 {
    delay_loop 6
    lb_algo wlc
    lb_kind NAT
    protocol TCP
    real_server 192.0.2.21 80 {
        TCP_CHECK {
            connect_timeout 3
        }
    }
}
";

fn clean_file() {
    let text = CLEAN.split_once("virtual_server ").unwrap().1;
    let file = File::new("clean", &format!("virtual_server {text}"));
    let (status, output) = file.test();
    assert_eq!(status, 0, "{output}");
    assert_eq!(output, format!("{}: ok\n", file.0.display()));
}

fn error_in_the_middle() {
    let file = File::new("error", &CLEAN.replace("lb_algo wlc", "lb_alog wlc"));
    let (status, output) = file.test();
    assert_eq!(status, 5, "{output}");
    assert!(
        output.contains("unknown keyword `lb_alog` in `virtual_server`"),
        "{output}"
    );
    assert!(output.contains("error.conf:10:5"), "{output}");
    assert!(
        output.contains("10 |     lb_alog wlc"),
        "the line itself: {output}"
    );
    assert!(output.contains("did you mean `lb_algo`?"), "{output}");
}

fn missing_file() {
    let (status, output) = director(&["-t", "-f", "/nonexistent/keepalived.conf"]);
    assert_eq!(status, 4);
    assert!(
        output.contains("can't read configuration file /nonexistent/keepalived.conf: no such file"),
        "{output}"
    );
}

fn missing_interface() {
    let file = File::new("interface", &CLEAN.replace(" lo\n", " nosuch0\n"));
    let (status, output) = file.test();
    assert_eq!(status, 5, "{output}");
    assert!(
        output.contains("vrrp_instance VI_1: interface nosuch0 does not exist on this host"),
        "{output}"
    );
}

fn wrong_option() {
    let (status, output) = director(&["--no-such-option"]);
    assert_eq!(status, 2);
    assert!(output.contains("--no-such-option"), "{output}");
}

/// The guide's files name interfaces of other hosts, so none is clean here; what is found is about the text.
fn guide() {
    let shared = std::env::var_os("LVS_SHARED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")),
        PathBuf::from,
    );
    let setups = shared.join("guide/setups");
    let Ok(files) = fs::read_dir(&setups) else {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "{} is missing: set LVS_SHARED",
            setups.display()
        );
        return println!("skipped: {} is missing", setups.display());
    };
    let mut count = 0;
    for file in files {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let (status, output) = director(&["-t", "-f", path.to_str().unwrap()]);
        // `debug` without its number stops keepalived.
        let expected = if name == "reference-instance.conf" {
            2
        } else {
            5
        };
        assert_eq!(status, expected, "{name}: {output}");
        if name == "reference-instance.conf" {
            assert!(output.contains("did you mean `auth_pass`?"), "{output}");
            assert!(output.contains("did you mean `preempt_delay`?"), "{output}");
        }
        count += 1;
    }
    assert!(count >= 9, "{count} files in {}", setups.display());
}

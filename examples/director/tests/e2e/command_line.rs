//! What an operator types, without a running director.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use libtest_mimic::Trial;

use crate::once;
use crate::stage::{director, director_texts};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        once("config_test_of_a_clean_file_is_silent_and_zero", clean_file),
        once(
            "config_test_shows_line_column_and_hint",
            error_in_the_middle,
        ),
        once("config_test_of_a_missing_file", missing_file),
        once("config_test_names_a_missing_interface", missing_interface),
        once("config_test_looks_at_scripts", scripts_are_looked_at),
        once("config_test_of_the_guides_configurations", guide),
        once("config_test_as_json", config_test_as_json),
        once("wrong_option_is_told", wrong_option),
        once("fmt_writes_the_canonical_layout", fmt_prints),
        once("fmt_checks_and_replaces_files", fmt_checks_and_replaces),
        once("fmt_of_a_missing_file", fmt_of_a_missing_file),
        once("lint_of_a_clean_file", lint_of_a_clean_file),
        once("lint_shows_complaints_first", lint_shows_complaints_first),
        once("lint_names_rules_that_can_be_silenced", lint_names_rules),
        once("lint_says_nothing_twice", lint_says_nothing_twice),
        once("plan_lists_changes_in_order", plan_lists_changes),
        once("plan_refuses_what_a_reload_refuses", plan_refuses),
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

fn scripts_are_looked_at() {
    let checked = |global: &str, script: &str, keyword: &str| {
        let text = format!(
            "global_defs {{\n script_user root\n {global}\n}}\nvirtual_server 192.0.2.10 80 {{\n lb_algo wlc\n lb_kind NAT\n \
             protocol TCP\n {} real_server 192.0.2.21 80 {{\n  {}\n }}\n}}\n",
            if keyword == "quorum_up" {
                format!("quorum_up {script}\n")
            } else {
                String::new()
            },
            if keyword == "misc_path" {
                format!("MISC_CHECK {{\n   misc_path {script}\n  }}")
            } else {
                String::new()
            },
        );
        File::new("scripts", &text).test()
    };
    let security = "enable_script_security";
    let (status, output) = checked(security, "/bin/true", "misc_path");
    assert_eq!(status, 0, "{output}");
    let (status, output) = checked("", "/bin/true", "quorum_up");
    assert_eq!(status, 6, "{output}");
    assert!(
        output.contains("`enable_script_security` is not set"),
        "{output}"
    );
    let (status, output) = checked("", "/nonexistent/script", "misc_path");
    assert_eq!(status, 5, "{output}");
    assert!(
        output
            .contains("misc_path is left out: /nonexistent/script can't be used: entity not found"),
        "{output}"
    );
    assert!(output.contains("scripts.conf:11:4"), "{output}");
    // Nothing depends on the status of a notify script: keepalived tells its log only.
    let (status, output) = checked("", "/nonexistent/script", "quorum_up");
    assert_eq!(status, 0, "{output}");
    assert!(output.contains("info: quorum_up is left out"), "{output}");
}

fn wrong_option() {
    let (status, output) = director(&["--no-such-option"]);
    assert_eq!(status, 2);
    assert!(output.contains("--no-such-option"), "{output}");
}

fn config_test_as_json() {
    let text = CLEAN
        .replace("interface lo", "interface nosuch0")
        .replace("dev lo", "dev nosuch1")
        .replace("lb_algo wlc", "lb_alog wlc");
    let file = File::new("json", &text);
    let path = file.0.to_str().unwrap();
    let (status, output, errors) = director_texts(&["-t", "--json", "-f", path]);
    assert_eq!((status, errors.as_str()), (5, ""));
    let findings: Vec<serde_json::Value> = output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let found: Vec<_> = findings
        .iter()
        .map(|finding| {
            assert_eq!(finding["file"], path);
            (
                finding["code"].as_str().unwrap(),
                finding["line"].as_u64().unwrap(),
                finding["column"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        found[found.len() - 2..],
        [("interface-missing", 2, 15), ("interface-missing", 5, 27)],
        "{output}"
    );
    assert!(found.contains(&("unknown-keyword", 10, 5)), "{output}");
    let last = findings.last().unwrap();
    assert_eq!(last["severity"], "error");
    assert_eq!(
        last["message"],
        "vrrp_instance VI_1: interface nosuch1 does not exist on this host"
    );
    let members = |finding: &serde_json::Value| {
        let object = finding.as_object().unwrap();
        object.keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(members(last), members(&findings[0]));

    let (status, output, _) = director_texts(&["-t", "--json", "-f", "/nonexistent/k.conf"]);
    assert_eq!(status, 4);
    assert!(
        output.starts_with(r#"{"code":"file-unreadable""#),
        "{output}"
    );
}

const MESSY: &str = "\
# the only service
virtual_server 192.0.2.10 80 {
  lb_algo    wlc
        lb_kind NAT   # behind us
  protocol TCP
real_server 192.0.2.21 80 {
weight 1
}
}
";

const TIDY: &str = "\
# the only service
virtual_server 192.0.2.10 80 {
    lb_algo wlc
    lb_kind NAT   # behind us
    protocol TCP
    real_server 192.0.2.21 80 {
        weight 1
    }
}
";

/// As far as blanks within lines go the layout is that of the library.
fn without_runs_of_blanks(text: &str) -> Vec<String> {
    let squeezed = |line: &str| {
        let indent = line.len() - line.trim_start().len();
        let words: Vec<&str> = line.split_whitespace().collect();
        " ".repeat(indent) + &words.join(" ")
    };
    text.lines().map(squeezed).collect()
}

fn fmt_prints() {
    let file = File::new("fmt", MESSY);
    let path = file.0.to_str().unwrap();
    let (status, output, errors) = director_texts(&["fmt", path]);
    assert_eq!((status, errors.as_str()), (0, ""));
    assert_eq!(
        without_runs_of_blanks(&output),
        without_runs_of_blanks(TIDY)
    );
    assert_eq!(
        fs::read_to_string(path).unwrap(),
        MESSY,
        "nothing is replaced"
    );
}

fn fmt_checks_and_replaces() {
    let file = File::new("fmt-write", MESSY);
    let path = file.0.to_str().unwrap();
    let link = File(file.0.with_extension("link"));
    let _ = fs::remove_file(&link.0);
    symlink(path, &link.0).unwrap();
    let linked = link.0.to_str().unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();

    let check = |path: &str| director_texts(&["fmt", "--check", path]);
    assert_eq!(check(path), (1, format!("{path}\n"), String::new()));
    let written = director_texts(&["fmt", "--write", linked]);
    assert_eq!(written, (0, String::new(), String::new()));
    let canonical = fs::read_to_string(path).unwrap();
    assert_eq!(
        without_runs_of_blanks(&canonical),
        without_runs_of_blanks(TIDY)
    );
    assert_eq!(check(path), (0, String::new(), String::new()));
    assert!(fs::symlink_metadata(linked).unwrap().is_symlink());
    let mode = fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
    let directory = fs::read_dir(file.0.parent().unwrap()).unwrap();
    let name = file.0.file_name().unwrap().to_str().unwrap();
    let left = directory
        .filter(|entry| {
            let other = entry.as_ref().unwrap().file_name();
            other.to_str().unwrap().starts_with(&format!("{name}."))
        })
        .count();
    assert_eq!(left, 0, "no temporary file stays");
    // What was printed from the new text is the text.
    assert_eq!(director_texts(&["fmt", path]).1, canonical);
}

fn fmt_of_a_missing_file() {
    let (status, output, errors) = director_texts(&["fmt", "--check", "/nonexistent/k.conf"]);
    assert_eq!((status, output.as_str()), (2, ""));
    assert!(
        errors.starts_with("/nonexistent/k.conf: no such file"),
        "{errors}"
    );
}

fn lint_of_a_clean_file() {
    let text = CLEAN.split_once("virtual_server ").unwrap().1;
    let file = File::new("lint", &format!("virtual_server {text}"));
    let path = file.0.to_str().unwrap();
    let linted = director_texts(&["lint", path]);
    assert_eq!(linted, (0, format!("{path}: ok\n"), String::new()));
    assert_eq!(
        director_texts(&["lint", "--json", path]),
        (0, String::new(), String::new())
    );
}

fn lint_shows_complaints_first() {
    let file = File::new("lint-error", &CLEAN.replace("lb_algo wlc", "lb_alog wlc"));
    let path = file.0.to_str().unwrap();
    let (status, output, _) = director_texts(&["lint", path]);
    assert_eq!(status, 5, "{output}");
    assert!(output.contains("10 |     lb_alog wlc"), "{output}");
    assert!(
        output.contains(&format!("{path}: keepalived complains about it")),
        "{output}"
    );
    let (status, output, _) = director_texts(&["lint", "/nonexistent/k.conf"]);
    assert_eq!(status, 4);
    assert!(output.contains("no such file"), "{output}");
}

fn lint_names_rules() {
    let text = CLEAN.split_once("virtual_server ").unwrap().1;
    let (service, _) = text.split_once("        TCP_CHECK").unwrap();
    let text = format!("virtual_server {service}    }}\n}}\n");
    let file = File::new("lint-rule", &text);
    let path = file.0.to_str().unwrap();
    let (status, output, _) = director_texts(&["lint", path]);
    assert_eq!(status, 1, "{output}");
    assert!(output.contains("warning[no-checker]"), "{output}");
    assert!(
        output.contains("6 |     real_server 192.0.2.21 80"),
        "{output}"
    );
    assert!(output.ends_with(&format!("{path}: 1 lint\n")), "{output}");
    assert_eq!(file.test().0, 0, "keepalived has nothing against it");

    let (status, output, _) = director_texts(&["lint", "--json", path]);
    let finding: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!((status, &finding["code"]), (1, &"no-checker".into()));
    assert_eq!(finding["line"], 6);

    fs::write(path, format!("# lint: allow-file(no-checker)\n{text}")).unwrap();
    let silenced = director_texts(&["lint", path]);
    assert_eq!(silenced, (0, format!("{path}: ok\n"), String::new()));
}

fn lint_says_nothing_twice() {
    let authentication = "    authentication {\n        auth_type PASS\n        auth_pass longer-than-that\n    }\n}\nvirtual_server ";
    let text = clean_router().replace("}\nvirtual_server ", authentication);
    let file = File::new("lint-twice", &text);
    let (status, output, _) = director_texts(&["lint", "--json", file.0.to_str().unwrap()]);
    assert_eq!(status, 5, "{output}");
    let about = |line: &&str| line.contains(r#""line":9,"#);
    assert_eq!(output.lines().filter(about).count(), 1, "{output}");
}

/// Clean on whatever host: nobody asks whether it has the interface.
fn clean_router() -> String {
    CLEAN
        .replace("interface lo", "interface eth0")
        .replace("dev lo", "dev eth0")
}

fn plan_lists_changes() {
    let clean = clean_router();
    let old = File::new("plan-old", &clean);
    let new = clean
        .replace("connect_timeout 3", "connect_timeout 4")
        .replace("192.0.2.10/32", "192.0.2.11/32")
        + "virtual_server 192.0.2.12 80 {\n    protocol TCP\n    lb_algo rr\n    lb_kind NAT\n    real_server 192.0.2.21 80 {\n    }\n}\n";
    let new = File::new("plan-new", &format!("net_namespace other\n{new}"));
    let [old, new] = [&old, &new].map(|file| file.0.to_str().unwrap());
    let (status, output, errors) = director_texts(&["plan", old, new]);
    assert_eq!((status, errors.as_str()), (1, ""));
    let expected = [
        "change net_namespace (needs a restart)",
        "remove address 192.0.2.10 on eth0 of IPv4 instance 51 on eth0",
        "add address 192.0.2.11 on eth0 of IPv4 instance 51 on eth0",
        "change TCP_CHECK 1 of server 192.0.2.21:80 of TCP 192.0.2.10:80",
        "add service TCP 192.0.2.12:80",
    ];
    // The library may find more to say of the instance.
    let lines: Vec<&str> = output
        .lines()
        .filter(|line| !line.starts_with("change IPv4 instance"))
        .collect();
    assert_eq!(lines, expected);
    let same = director_texts(&["plan", old, old]);
    assert_eq!(same, (0, String::new(), String::new()));
}

fn plan_refuses() {
    let clean = clean_router();
    let old = File::new("plan-good", &clean);
    let new = File::new("plan-worse", &clean.replace("lb_algo wlc", "lb_alog wlc"));
    let [old, new] = [&old, &new].map(|file| file.0.to_str().unwrap());
    let (status, output, errors) = director_texts(&["plan", old, new]);
    assert_eq!((status, output.as_str()), (2, ""), "{errors}");
    assert!(errors.contains("unknown keyword `lb_alog`"), "{errors}");
    assert!(
        errors.contains("a reload would refuse this file"),
        "{errors}"
    );
    let (status, output, _) = director_texts(&["plan", new, new]);
    assert_eq!((status, output.as_str()), (0, ""), "not worse than before");
    let (status, _, errors) = director_texts(&["plan", old, "/nonexistent/k.conf"]);
    assert_eq!(status, 2);
    assert!(errors.contains("/nonexistent/k.conf"), "{errors}");
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

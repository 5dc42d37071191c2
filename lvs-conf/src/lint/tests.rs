use super::*;
use crate::files::NoFiles;
use crate::load::load;
use crate::options::Options;

/// Rule and line of every finding.
fn lines(text: &str) -> Vec<(Rule, u32)> {
    let mut sources = SourceMap::new();
    let main = sources.add("k.conf", text);
    let loaded = load(&mut sources, main, &NoFiles, &Options::default());
    lint(&sources, &loaded.tree, &loaded.config)
        .iter()
        .map(|d| {
            assert_eq!(d.class(), crate::Class::Ok);
            assert_eq!(d.severity(), crate::Severity::Warning);
            assert!(d.hint.is_some());
            let Code::Lint(rule) = d.code else {
                panic!("{d:?}")
            };
            (rule, sources.position(d.span).line)
        })
        .collect()
}

/// The rule fires on the line that ends in `<-`, and not on the quiet text; comments silence it in every way.
#[track_caller]
fn rule(rule: Rule, fires: &str, quiet: &str) {
    let quiet = lines(quiet);
    assert!(quiet.iter().all(|(r, _)| *r != rule), "quiet: {quiet:?}");

    let expected = fires.lines().position(|l| l.ends_with("<-")).unwrap();
    let text = fires.replace("<-", "");
    let found: Vec<_> = lines(&text)
        .into_iter()
        .filter(|(r, _)| *r == rule)
        .map(|(_, line)| line as usize)
        .collect();
    assert_eq!(found, [expected + 1], "{rule}: {:?}", lines(&text));

    let silent = |text: String| {
        let found = lines(&text);
        let silent = found
            .iter()
            .all(|(r, _)| *r != rule && *r != Rule::UnknownRule);
        assert!(silent, "{rule} in\n{text}\n{found:?}");
    };
    silent(format!("# lint: allow-file({rule})\n{text}"));
    silent(fires.replace("<-", &format!(" # lint: allow({rule})")));
    let mut above: Vec<_> = text.lines().map(str::to_owned).collect();
    above.insert(expected, format!("! lint: allow(mixed-prefixes, {rule})"));
    silent(above.join("\n"));
    // The innermost block that a finding lies in, or whose head it is about.
    let opens = |line: &&str| line.trim_end().ends_with('{');
    let all: Vec<_> = text.lines().collect();
    let mut depth = 0i32;
    let block = if opens(&all[expected]) {
        Some(expected)
    } else {
        (0..expected).rev().find(|at| {
            depth += all[*at].matches('}').count() as i32;
            depth -= all[*at].matches('{').count() as i32;
            depth < 0 && opens(&all[*at])
        })
    };
    if let Some(block) = block {
        let mut inside = above.clone();
        inside.remove(expected);
        inside.insert(block + 1, format!("# why\n# lint: allow({rule})\n"));
        silent(inside.join("\n"));
        assert!(
            lines(&inside.join("\n").replace("lint:", "lnt:"))
                .iter()
                .any(|(r, _)| *r == rule)
        );
    }
}

fn service(settings: &str, servers: &str) -> String {
    format!(
        "virtual_server 192.0.2.10 80 {{\n{settings}\nlvs_method NAT\nprotocol TCP\n{servers}\n}}\n"
    )
}

fn instance(settings: &str) -> String {
    format!(
        "vrrp_instance a {{\ninterface eth0\nvirtual_router_id 5\npriority 100\n{settings}\nvirtual_ipaddress {{\n192.0.2.10/24\n}}\n}}\n"
    )
}

const CHECKED: &str = "real_server 192.0.2.21 80 {\nTCP_CHECK {\nconnect_timeout 3\n}\n}";

#[test]
fn check_differs() {
    let two = |second: &str| {
        let first = service("lb_algo rr", CHECKED);
        format!("{first}{}", service("", second).replace(".10 80", ".11 80"))
    };
    rule(
        Rule::CheckDiffers,
        &two("real_server 192.0.2.21 80 {<-\nTCP_CHECK {\nconnect_timeout 4\n}\n}")
            .replace("{<-", "{ <-"),
        &two(CHECKED),
    );
}

#[test]
fn no_checker() {
    rule(
        Rule::NoChecker,
        &service(
            "",
            "real_server 192.0.2.21 80 { <-\nweight 1\n}\nreal_server 192.0.2.22 80 {\n}",
        ),
        &service("", CHECKED),
    );
}

#[test]
fn check_of_other_protocol() {
    let text = service("", &CHECKED.replace("TCP_CHECK {", "TCP_CHECK { <-"));
    rule(
        Rule::CheckOfOtherProtocol,
        &text.replace("protocol TCP", "protocol UDP"),
        &text.replace("<-", ""),
    );
}

#[test]
fn slow_check() {
    rule(
        Rule::SlowCheck,
        &service("delay_loop 61 <-", CHECKED),
        &service("delay_loop 60", CHECKED),
    );
}

#[test]
fn timeout_exceeds_delay() {
    let text = |delay: &str| {
        let servers = CHECKED.replace("connect_timeout 3", "connect_timeout 3 <-");
        service(&format!("delay_loop {delay}"), &servers)
    };
    rule(
        Rule::TimeoutExceedsDelay,
        &text("3"),
        &text("4").replace("<-", ""),
    );
}

#[test]
fn dr_port_differs() {
    let text = service("", &CHECKED.replace("21 80 {", "21 8080 { <-"));
    rule(
        Rule::DrPortDiffers,
        &text.replace("NAT", "DR"),
        &text.replace("<-", ""),
    );
    let sorry = service("sorry_server 192.0.2.99 81 <-", CHECKED);
    rule(
        Rule::DrPortDiffers,
        &sorry
            .replace("lvs_method NAT\n", "")
            .replace(" {\nsorry", " {\nlvs_method DR\nsorry"),
        &sorry.replace("<-", ""),
    );
}

#[test]
fn quorum_without_notify() {
    let three = CHECKED.replace("TCP_CHECK", "weight 3\nTCP_CHECK");
    rule(
        Rule::QuorumWithoutNotify,
        &service("quorum 2 <-", &three),
        &service("quorum 2\nquorum_down /bin/alarm", &three),
    );
}

#[test]
fn quorum_unreachable() {
    let three = CHECKED.replace("TCP_CHECK", "weight 3\nTCP_CHECK");
    rule(
        Rule::QuorumUnreachable,
        &service("quorum 3 <-\nhysteresis 1", &three),
        &service("quorum 2\nhysteresis 1", &three),
    );
}

#[test]
fn all_weights_zero() {
    let text = |weight| {
        service("", &CHECKED.replace("TCP_CHECK", weight)).replace("10 80 {", "10 80 { <-")
    };
    rule(
        Rule::AllWeightsZero,
        &text("weight 0\nTCP_CHECK"),
        &text("TCP_CHECK").replace("<-", ""),
    );
}

#[test]
fn weight_without_effect() {
    let text = |scheduler: &str| {
        let other = CHECKED.replace(".21", ".22");
        let heavy = CHECKED.replace("TCP_CHECK", "weight 3 <-\nTCP_CHECK");
        service(
            &format!("lb_algo {scheduler}"),
            &format!("{other}\n{heavy}"),
        )
    };
    rule(
        Rule::WeightWithoutEffect,
        &text("rr"),
        &text("wrr").replace("<-", ""),
    );
}

#[test]
fn persistence_with_hash() {
    let text = |scheduler: &str| {
        service(
            &format!("lb_algo {scheduler}\npersistence_timeout 50 <-"),
            CHECKED,
        )
    };
    rule(
        Rule::PersistenceWithHash,
        &text("sh"),
        &text("wrr").replace("<-", ""),
    );
}

#[test]
fn sorry_is_vip() {
    rule(
        Rule::SorryIsVip,
        &service("sorry_server 192.0.2.10 80 <-", CHECKED),
        &service("sorry_server 192.0.2.99 80", CHECKED),
    );
}

#[test]
fn service_without_vip() {
    let text = |second: &str| {
        let second = service("", CHECKED).replace("192.0.2.10 80 {", second);
        format!("{}{}{second}", instance(""), service("", CHECKED))
    };
    rule(
        Rule::ServiceWithoutVip,
        &text("192.0.2.11 80 { <-"),
        &text("192.0.2.10 81 {"),
    );
    assert_eq!(lines(&instance("")), []);
}

#[test]
fn master_with_nopreempt() {
    rule(
        Rule::MasterWithNopreempt,
        &instance("state MASTER\nnopreempt <-"),
        &instance("state BACKUP\nnopreempt"),
    );
}

#[test]
fn two_masters() {
    rule(
        Rule::TwoMasters,
        &instance("@lb1 state MASTER\n@lb2 state MASTER <-"),
        &instance("@lb1 state MASTER\n@lb2 state BACKUP"),
    );
    let copy = instance("state MASTER <-")
        .replace("a {", "b {")
        .replace("eth0", "eth1");
    let both = format!("{}{copy}", instance("state MASTER"));
    rule(
        Rule::TwoMasters,
        &both,
        &both.replace("MASTER <-", "BACKUP"),
    );
}

#[test]
fn vrid_reused() {
    let second = |interface: &str, id: &str| {
        let copy = instance("")
            .replace("a {", "b {")
            .replace("eth0", interface);
        format!("{}{}", instance(""), copy.replace("router_id 5", id))
    };
    rule(
        Rule::VridReused,
        &second("eth1", "router_id 5 <-"),
        &second("eth1", "router_id 6"),
    );
}

#[test]
fn sync_group_states_differ() {
    let text = |state: &str| {
        let copy = instance(&format!("state {state}"))
            .replace("a {", "b {")
            .replace("id 5", "id 6");
        format!(
            "{}{copy}vrrp_sync_group g {{ <-\ngroup {{\na\nb\n}}\n}}\n",
            instance("state MASTER")
        )
    };
    rule(
        Rule::SyncGroupStatesDiffer,
        &text("BACKUP"),
        &text("MASTER").replace("<-", ""),
    );
}

#[test]
fn mixed_prefixes() {
    let text =
        |line: &str| instance("").replace("192.0.2.10/24", &format!("192.0.2.10/24\n{line}"));
    rule(
        Rule::MixedPrefixes,
        &text("192.0.2.11 dev eth0 <-"),
        &text("192.0.2.11/32\n2001:db8::1"),
    );
}

#[test]
fn strict_drops_traffic() {
    rule(
        Rule::StrictDropsTraffic,
        &instance("strict_mode <-"),
        &instance("strict_mode\nversion 3\naccept"),
    );
    rule(
        Rule::StrictDropsTraffic,
        &format!("global_defs {{\nvrrp_strict <-\n}}\n{}", instance("")),
        &format!("global_defs {{\nvrrp_strict off\n}}\n{}", instance("")),
    );
}

#[test]
fn passwords() {
    let text = |password: &str| {
        instance(&format!(
            "authentication {{\nauth_type PASS\nauth_pass {password}\n}}"
        ))
    };
    rule(
        Rule::PasswordTooLong,
        &text("abcdefghi <-"),
        &text("abcdefgh"),
    );
    rule(Rule::WellKnownPassword, &text("1111 <-"), &text("kD9x2"));
    rule(
        Rule::WellKnownPassword,
        &text("Password <-"),
        &text("passw0rd"),
    );
}

#[test]
fn script_security_off() {
    let text = |globals: &str| {
        format!(
            "global_defs {{\n{globals}\n}}\n{}",
            instance("notify_master /bin/x <-")
        )
    };
    rule(
        Rule::ScriptSecurityOff,
        &text("router_id a"),
        &text("enable_script_security").replace("<-", ""),
    );
}

#[test]
fn vrrp_scripts() {
    let text = |name: &str, setting: &str, tracked: &str| {
        format!(
            "vrrp_script {name}\nscript /bin/x\n{setting}\n}}\n{}",
            instance(&format!("track_script {{\n{tracked}\n}}"))
        )
    };
    rule(
        Rule::ScriptWithoutHysteresis,
        &text("s { <-", "rise 2", "s"),
        &text("s {", "fall 2", "s"),
    );
    rule(
        Rule::ScriptNotTracked,
        &text("s { <-", "fall 2", ""),
        &text("s {", "fall 2", "s weight 5"),
    );
}

#[test]
fn mail_without_server() {
    let globals =
        "global_defs {\nsmtp_server 192.0.2.25\nnotification_email {\na@example.org\n}\n}\n";
    rule(
        Rule::MailWithoutServer,
        &instance("smtp_alert <-"),
        &format!("{globals}{}", instance("smtp_alert")),
    );
    assert_eq!(lines(&instance("smtp_alert off")), []);
}

#[test]
fn comments_that_say_nothing_are_reported() {
    let mut sources = SourceMap::new();
    let main = sources.add(
        "k.conf",
        "# lint: allow(no-cheker)\n# lint allow(nothing)\n# lint: allow slow-check\na b # lint: allow(x)\n",
    );
    let loaded = load(&mut sources, main, &NoFiles, &Options::default());
    let findings: Vec<_> = lint(&sources, &loaded.tree, &loaded.config)
        .iter()
        .map(|d| d.display(&sources).to_string())
        .collect();
    assert_eq!(
        findings,
        [
            "k.conf:1:15: warning: lint has no rule `no-cheker`; did you mean `no-checker`?",
            "k.conf:3:1: warning: this comment for lint cannot be read; write `lint: allow(RULE, …)` or `lint: allow-file(RULE, …)`",
            "k.conf:4:19: warning: lint has no rule `x`; write `lint: allow(RULE, …)` or `lint: allow-file(RULE, …)`",
        ]
    );
}

#[test]
fn a_comment_above_a_block_is_for_its_first_line_only() {
    let found = lines(&format!(
        "# lint: allow(slow-check)\n{}",
        service("delay_loop 61", CHECKED)
    ));
    assert_eq!(found, [(Rule::SlowCheck, 3)]);
}

#[test]
fn a_silent_file_does_not_silence_the_files_that_it_includes() {
    let files = crate::MapFiles::new().with("a.conf", service("delay_loop 61", CHECKED));
    let mut sources = SourceMap::new();
    let main = sources.add("k.conf", "# lint: allow-file(slow-check)\ninclude a.conf\n");
    let loaded = load(&mut sources, main, &files, &Options::default());
    let findings = lint(&sources, &loaded.tree, &loaded.config);
    assert_eq!(findings.len(), 1);
    let source = sources.get(findings[0].span.source).unwrap();
    assert_eq!(source.name(), "a.conf");
}

#[test]
fn names_are_unique_kebab_case_and_in_the_table_of_the_module() {
    let table = include_str!("../lint.rs");
    for rule in Rule::ALL {
        assert!(table.contains(&format!("//! | `{rule}` | ")), "{rule}");
        assert_eq!(Rule::from_name(rule.as_str()), Some(*rule));
        assert!(Code::ALL.iter().all(|code| code.as_str() != rule.as_str()));
        let letters = |b: u8| b.is_ascii_lowercase() || b == b'-';
        assert!(rule.as_str().bytes().all(letters));
    }
}

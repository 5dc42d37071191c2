//! The most likely slips of the pen, and every word that is said about them.
#![cfg(feature = "render")]

use lvs_conf::annotate_snippets::Renderer;
use lvs_conf::{Class, NoFiles, Options, SourceMap, load};

/// What is said about a text, without what is only logged.
fn rendered(text: &str) -> String {
    let mut sources = SourceMap::new();
    let main = sources.add("keepalived.conf", text);
    let loaded = load(&mut sources, main, &NoFiles, &Options::default());
    let complaints = loaded.diagnostics.iter().filter(|d| d.class() != Class::Ok);
    let blocks: Vec<_> = complaints
        .map(|d| {
            assert!(d.hint.is_some(), "it does not say what to do: {d:?}");
            d.render(&sources, &Renderer::plain())
        })
        .collect();
    blocks.join("\n")
}

#[track_caller]
fn says(text: &str, expected: &str) {
    let rendered = rendered(text);
    assert_eq!(
        rendered.trim_end(),
        expected.trim_matches('\n'),
        "\n{rendered}"
    );
}

const SERVICE: &str = "virtual_server 192.0.2.10 80 {
    lvs_sched rr
    lvs_method NAT
    protocol TCP
    real_server 192.0.2.21 80 {
        weight 1
    }
}
";

fn service(from: &str, to: &str) -> String {
    assert!(SERVICE.contains(from));
    SERVICE.replace(from, to)
}

#[test]
fn a_brace_that_is_missing_at_the_end() {
    says(
        &service("    }\n}", "    }\n"),
        r#"
warning[unclosed-block]: the input ends inside a block
 --> keepalived.conf:8:1
  |
8 |
  | ^ expected `}`
  |
 ::: keepalived.conf:1:1
  |
1 | virtual_server 192.0.2.10 80 {
  | -------------- this block is not closed
  |
  = help: add a `}` where each of these blocks ends
"#,
    );
}

#[test]
fn a_brace_too_many() {
    says(
        &service("weight 1\n    }", "weight 1\n    }\n    }"),
        r#"
error[extra-close-brace]: `}` without a block to close
 --> keepalived.conf:9:1
  |
9 | }
  | ^ expected a keyword
  |
  = help: remove it, or look for a block above that ends too early
"#,
    );
}

#[test]
fn a_value_that_is_missing() {
    says(
        &service("weight 1", "weight"),
        r#"
error[missing-argument-fatal]: `weight` lacks an argument
 --> keepalived.conf:6:9
  |
6 |         weight
  |         ^^^^^^ expected `weight <UINT>`
  |
  = help: give it a value or remove the line, keepalived does not start with it; `weight`: share of the load, 0 = no new connections
"#,
    );
}

#[test]
fn a_keyword_that_is_misspelt() {
    says(
        &service("weight 1", "wieght 1"),
        r#"
error[unknown-keyword]: unknown keyword `wieght` in `real_server`
 --> keepalived.conf:6:9
  |
6 |         wieght 1
  |         ^^^^^^
  |
  = help: did you mean `weight`?
"#,
    );
}

#[test]
fn a_keyword_in_the_wrong_block() {
    says(
        &service("weight 1", "weight 1\n        lvs_sched rr"),
        r#"
error[unknown-keyword]: unknown keyword `lvs_sched` in `real_server`
 --> keepalived.conf:7:9
  |
7 |         lvs_sched rr
  |         ^^^^^^^^^
  |
  = help: `lvs_sched` belongs in `virtual_server`
"#,
    );
}

#[test]
fn an_address_that_is_none() {
    says(
        &service("192.0.2.10 80", "192.0.2.310 80"),
        r#"
error[vs-address-invalid]: `192.0.2.310` is not an address
 --> keepalived.conf:1:16
  |
1 | virtual_server 192.0.2.310 80 {
  |                ^^^^^^^^^^^ expected an IPv4 or IPv6 address in numbers
  |
  = help: `310` is more than 255
"#,
    );
}

#[test]
fn an_address_with_its_port() {
    says(
        &service("192.0.2.10 80", "192.0.2.10:80"),
        r#"
error[vs-address-invalid]: `192.0.2.10:80` is not an address
 --> keepalived.conf:1:16
  |
1 | virtual_server 192.0.2.10:80 {
  |                ^^^^^^^^^^^^^ expected an IPv4 or IPv6 address in numbers
  |
  = help: put a blank before the port: `192.0.2.10 80`
"#,
    );
}

#[test]
fn a_number_that_is_none() {
    says(
        &service("weight 1", "weight 1O"),
        r#"
error[invalid-number]: `1O` is not a number for `weight`
 --> keepalived.conf:6:16
  |
6 |         weight 1O
  |                ^^ expected decimal digits
  |
  = help: did you mean `10`?
"#,
    );
}

#[test]
fn a_name_given_twice() {
    says(
        "vrrp_instance a {\n    interface eth0\n    virtual_router_id 1\n    virtual_ipaddress {\n        192.0.2.1\n    }\n}\nvrrp_instance a {\n}\n",
        r#"
error[duplicate-vrrp-instance]: vrrp_instance `a` is defined twice, the second block is skipped
 --> keepalived.conf:8:15
  |
8 | vrrp_instance a {
  |               ^
  |
 ::: keepalived.conf:1:15
  |
1 | vrrp_instance a {
  |               - first defined here
  |
  = help: give it a name of its own
"#,
    );
}

#[test]
fn a_quote_that_stays_open() {
    says(
        &service(
            "weight 1",
            "weight 1\n        virtualhost \"www.example.org",
        ),
        r#"
error[argument-missing-ignored]: `virtualhost` lacks an argument
 --> keepalived.conf:7:9
  |
7 |         virtualhost "www.example.org
  |         ^^^^^^^^^^^ expected `virtualhost <STR>`
  |
  = help: give it a value; `virtualhost`: default host name of HTTP checks
error[unterminated-quote]: the line ends inside double quotes, words from the quote on are ignored
 --> keepalived.conf:7:21
  |
7 |         virtualhost "www.example.org
  |                     ^^^^^^^^^^^^^^^^ expected a closing `"` on the same line
  |
  = help: close the quote before the end of the line, or remove it
"#,
    );
}

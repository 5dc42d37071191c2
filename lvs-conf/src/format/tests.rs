use super::*;

#[track_caller]
fn gives(text: &str, expected: &str) {
    let mut sources = SourceMap::new();
    let id = sources.add("x", text);
    let formatted = format(&sources, id);
    assert_eq!(formatted, expected, "\n{formatted}");
    let again = sources.add("y", formatted);
    assert_eq!(format(&sources, again), expected, "not stable");
}

#[test]
fn blocks_are_indented_and_braces_stand_with_their_keywords() {
    gives(
        "vrrp_instance a\n\n{\n\tinterface eth0\r\nauthentication{ auth_type PASS }\n virtual_ipaddress {10.0.0.1\n10.0.0.2}}\n",
        "vrrp_instance a {\n    interface eth0\n    authentication {\n        auth_type PASS\n    }\n    virtual_ipaddress {\n        10.0.0.1\n        10.0.0.2\n    }\n}\n",
    );
}

#[test]
fn comments_keep_their_place() {
    gives(
        "# head  \nglobal_defs # defaults\n{  \n! own line\nrouter_id a#b\n # last\n} # end\n",
        "# head\nglobal_defs { # defaults\n    ! own line\n    router_id a #b\n    # last\n} # end\n",
    );
}

#[test]
fn a_line_has_room_for_one_comment() {
    gives("a # one\n{ # two\nb\n}\n", "a # one\n{ # two\n    b\n}\n");
    gives("a # one\n{ b # two\n}\n", "a { # one\n    b # two\n}\n");
}

#[test]
fn a_brace_after_a_comment_line_stays_where_it_is() {
    gives(
        "global_defs\n# why\n{\nrouter_id a\n}\n",
        "global_defs\n# why\n{\n    router_id a\n}\n",
    );
}

#[test]
fn blank_lines_are_squeezed() {
    gives("\n\na 1\n\n \t\n\nb 2\n\n\n", "a 1\n\nb 2\n");
    gives("", "");
    gives("\n\n", "");
}

#[test]
fn words_and_quotes_stay_as_typed() {
    gives(
        "  notify_master   \"/bin/x  'a  b'\"  root ",
        "notify_master   \"/bin/x  'a  b'\"  root\n",
    );
}

#[test]
fn what_is_evaluated_by_lines_is_not_cut() {
    gives(
        "a {\n$X=1 {\n@main b { c 1 }\n~SEQ(i, 3) d $i {}\ninclude  x{1,2}.conf\ne ${X} { f }\ng { @main 1\n}\n}\n",
        "a {\n    $X=1 {\n    @main b { c 1 }\n    ~SEQ(i, 3) d $i {}\n    include  x{1,2}.conf\n    e ${X} { f }\n    g { @main 1\n    }\n}\n",
    );
}

#[test]
fn definitions_of_several_lines_stay_exactly() {
    gives(
        "a {\n  $X= \\\n b {   \\\n  c 1\\\n }  \n  d\n }\n",
        "a {\n    $X= \\\n b {   \\\n  c 1\\\n }  \n    d\n}\n",
    );
    gives("$X=1 \\\n\n\na\n", "$X=1 \\\n\na\n");
}

#[test]
fn alternatives_for_two_nodes_open_one_block() {
    gives(
        "@a vrrp_instance x {\n@^a vrrp_instance y {\npriority 1\n}\nb\n",
        "@a vrrp_instance x {\n@^a vrrp_instance y {\n    priority 1\n}\nb\n",
    );
}

#[test]
fn unbalanced_braces_stay() {
    gives("a {\n}\n}\nb {\nc", "a {\n}\n}\nb {\n    c\n");
    gives("a { \"x }\n", "a { \"x }\n");
}

#[test]
fn a_line_that_is_cut_in_reading_leaves_the_file_alone() {
    let long = format!("  a {}\n", "x".repeat(1100));
    gives(&long, &long);
}

#[test]
fn lines_near_the_limit_do_not_grow_over_it() {
    let line = "x".repeat(1018);
    gives(
        &format!("a {{\nb {{\n{line}\n}}\n}}\n"),
        &format!("a {{\n    b {{\n{line}\n    }}\n}}\n"),
    );
}

#[test]
fn lines_with_control_characters_keep_them() {
    gives("  }%\u{c}", "}%\u{c}\n");
    gives("a {\n !\0\n", "a {\n    !\0\n");
}

#[test]
fn bytes_that_are_no_text_are_kept() {
    let mut sources = SourceMap::new();
    let id = sources.add("x", b"  router_id \xff\xfe\n".to_vec());
    assert_eq!(format_bytes(&sources, id), b"router_id \xff\xfe\n");
}

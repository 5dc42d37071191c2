use super::*;
use crate::source::SourceMap;

fn lex(text: &[u8]) -> (Vec<String>, Vec<Diagnostic>) {
    let mut map = SourceMap::new();
    let id = map.add("x", text);
    let mut diagnostics = Vec::new();
    let lines = lines(map.get(id).unwrap(), id, &mut diagnostics);
    let lines = lines
        .iter()
        .map(|l| String::from_utf8_lossy(l.bytes()).into_owned())
        .collect();
    (lines, diagnostics)
}

fn text(text: &str) -> Vec<String> {
    lex(text.as_bytes()).0
}

fn words(text: &str) -> Vec<String> {
    let mut map = SourceMap::new();
    let id = map.add("x", text);
    let lines = lines(map.get(id).unwrap(), id, &mut Vec::new());
    lines[0].words().words.into_iter().map(|w| w.text).collect()
}

#[test]
fn crlf_and_a_missing_last_line_end_change_nothing() {
    assert_eq!(text("a 1\r\nb 2\r\r\nc"), ["a 1", "b 2", "c"]);
}

#[test]
fn comments_start_in_the_middle_of_a_word() {
    assert_eq!(text("auth_pass p!ss\na#b"), ["auth_pass p", "a"]);
}

#[test]
fn quotes_protect_comment_characters_and_braces() {
    assert_eq!(text(r##"a "b#c!d{e}""##), [r##"a "b#c!d{e}""##]);
}

#[test]
fn single_quotes_protect_nothing() {
    assert_eq!(text("a 'b#c'"), ["a 'b"]);
    assert_eq!(text("a '{'"), ["a '", "{", "'"]);
}

#[test]
fn an_escaped_comment_character_loses_its_backslash_outside_quotes() {
    assert_eq!(text(r"a b\#c\!d"), ["a b#c!d"]);
    assert_eq!(text(r#"a "b\#c""#), [r#"a "b\#c""#]);
    assert_eq!(text(r"a b\\#c"), [r"a b\\"]);
}

#[test]
fn an_escaped_quote_does_not_toggle() {
    assert_eq!(text(r#"a \"b#c"#), [r#"a \"b"#]);
}

#[test]
fn blanks_before_a_final_backslash_are_removed() {
    assert_eq!(text("a b   \\"), ["a b\\"]);
    assert_eq!(text("a b # x \\"), ["a b"]);
}

#[test]
fn every_unquoted_brace_is_a_line_of_its_own() {
    assert_eq!(text("a{b}c"), ["a", "{", "b", "}", "c"]);
    assert_eq!(text("block { a 1 b 2 }"), ["block", "{", "a 1 b 2", "}"]);
}

#[test]
fn a_quote_inside_a_word_ends_it_and_starts_another() {
    assert_eq!(words(r#"x"a b"y"#), ["x", "a b", "y"]);
    assert_eq!(words(r#"k """#), ["k", ""]);
}

#[test]
fn an_open_quote_is_reported_and_drops_the_rest() {
    let (lines, diagnostics) = lex(b"a b \"c d");
    assert_eq!(lines, ["a b \"c d"]);
    assert_eq!(diagnostics[0].code, Code::UnterminatedQuote);
    assert_eq!(words("a b \"c d"), ["a", "b"]);
}

#[test]
fn quotes_in_the_comment_do_not_count() {
    assert!(lex(b"a # it's \"open").1.is_empty());
}

#[test]
fn a_line_of_1023_bytes_with_its_end_is_kept_and_one_more_is_not() {
    let exact = [vec![b'a'; 1022], b"\n".to_vec()].concat();
    assert!(lex(&exact).1.is_empty());
    let long = [vec![b'a'; 1022], b"bc\nd\n".to_vec()].concat();
    let (lines, diagnostics) = lex(&long);
    assert_eq!(lines, ["c", "d"]);
    assert_eq!(diagnostics[0].code, Code::LineTooLong);
}

#[test]
fn a_line_with_nul_is_ignored() {
    let (lines, diagnostics) = lex(b"a\0b\nc");
    assert_eq!(lines, ["c"]);
    assert_eq!(diagnostics[0].code, Code::NulByte);
}

#[test]
fn spans_point_into_the_source_even_after_a_deleted_backslash() {
    let mut map = SourceMap::new();
    let id = map.add("x", "  key a\\#b c");
    let lines = lines(map.get(id).unwrap(), id, &mut Vec::new());
    let words = lines[0].words().words;
    assert_eq!(words[1].text, "a#b");
    assert_eq!(map.text(words[1].span), b"a\\#b");
    assert_eq!(map.text(words[2].span), b"c");
}

#[test]
fn line_constructs_are_named_and_ignored() {
    for line in ["@main x", "$A=1", "~SEQ(a, 3) x $a", "include x.conf"] {
        let (lines, diagnostics) = lex(line.as_bytes());
        assert!(lines.is_empty(), "{line}");
        assert_eq!(diagnostics[0].code, Code::UnsupportedConstruct);
    }
    assert_eq!(text("include\n$A = 1\n$1=2"), ["include", "$A = 1", "$1=2"]);
}

fn script(text: &str) -> Result<Vec<String>, ScriptError> {
    let pieces = split_script(text.as_bytes(), Escapes::Process)?;
    Ok(pieces
        .into_iter()
        .map(|p| String::from_utf8_lossy(&p.bytes).into_owned())
        .collect())
}

#[test]
fn script_pieces_that_touch_form_one_word() {
    assert_eq!(script(r#"a"b c"'d' e"#).unwrap(), ["ab cd", "e"]);
    assert_eq!(script(r#"a '' b"#).unwrap(), ["a", "", "b"]);
}

#[test]
fn script_escapes_work_inside_and_outside_quotes() {
    assert_eq!(
        script(r#"\x41\102"\t\"" \cA \q"#).unwrap(),
        ["AB\t\"", "\u{1}", "q"]
    );
}

#[test]
fn script_quote_without_partner_is_an_error() {
    assert_eq!(script("a 'b"), Err(ScriptError::UnterminatedQuote(2)));
    assert_eq!(script("a\\"), Err(ScriptError::LoneBackslash));
}

#[test]
fn the_first_script_stage_copies_escapes() {
    let pieces = split_script(br#"x "a\"b""#, Escapes::Keep).unwrap();
    assert_eq!(pieces[1].bytes, br#"a\"b"#);
}

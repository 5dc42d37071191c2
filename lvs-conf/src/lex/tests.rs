use super::*;
use crate::diag::{Code, Consequence, Diagnostic};
use crate::dialect::Dialect;
use crate::files::{MapFiles, NoFiles};
use crate::options::Options;
use crate::source::SourceMap;

fn read(text: &[u8], files: &MapFiles, options: &Options) -> (Vec<String>, Vec<Diagnostic>) {
    let mut map = SourceMap::new();
    let main = map.add("/etc/keepalived/main.conf", text);
    let mut reader = Reader::new(&mut map, main, files, options);
    let mut lines = Vec::new();
    while let Some(line) = reader.next_line() {
        lines.push(String::from_utf8_lossy(line.bytes()).into_owned());
    }
    (lines, reader.diagnostics)
}

fn lex(text: &[u8]) -> (Vec<String>, Vec<Diagnostic>) {
    read(text, &MapFiles::new(), &Options::default())
}

fn text(text: &str) -> Vec<String> {
    lex(text.as_bytes()).0
}

/// As release 2.2.7 reads it.
fn old(text: &[u8]) -> Vec<String> {
    let options = Options {
        dialect: Dialect::V2_2_7,
        ..Options::default()
    };
    read(text, &MapFiles::new(), &options).0
}

/// For the configuration id `main`.
fn as_main(text: &str) -> Vec<String> {
    let options = Options {
        config_id: "main".to_owned(),
        ..Options::default()
    };
    read(text.as_bytes(), &MapFiles::new(), &options).0
}

fn with(files: &MapFiles, text: &str) -> (Vec<String>, Vec<Code>) {
    let (lines, diagnostics) = read(text.as_bytes(), files, &Options::default());
    (lines, diagnostics.iter().map(|d| d.code).collect())
}

/// The words of the only line.
fn words_of(map: &mut SourceMap, text: &str) -> Vec<Word> {
    let main = map.add("x", text);
    let options = Options::default();
    let mut reader = Reader::new(map, main, &NoFiles, &options);
    reader.next_line().unwrap().words().words
}

fn words(text: &str) -> Vec<String> {
    let words = words_of(&mut SourceMap::new(), text);
    words.into_iter().map(|w| w.text.into()).collect()
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
    let words = words_of(&mut map, "  key a\\#b c");
    assert_eq!(words[1].text, "a#b");
    assert_eq!(map.text(words[1].span), b"a\\#b");
    assert_eq!(map.text(words[2].span), b"c");
}

#[test]
fn words_out_of_a_parameter_stand_where_it_is_referred_to() {
    let mut map = SourceMap::new();
    let words = words_of(&mut map, "$A=one two\n  key x${A}y z\n");
    let texts: Vec<_> = words.iter().map(|w| w.text.as_str()).collect();
    assert_eq!(texts, ["key", "xone", "twoy", "z"]);
    assert_eq!(map.text(words[1].span), b"x${A}");
    assert_eq!(map.text(words[2].span), b"${A}y");
    assert_eq!(map.text(words[3].span), b"z");
    let expansion = map.expansions(words[1].span).next().unwrap();
    assert_eq!(expansion.name, "A");
    assert_eq!(map.text(expansion.definition), b"$A=one two");
}

#[test]
fn a_conditional_line_is_for_one_configuration_id_or_for_all_others() {
    let lines = as_main("@main a\n@other b\n@^main c\n@^other d\n@main {\n@main\n@Main e\n");
    assert_eq!(lines, ["a", "d", "{"]);
    assert_eq!(as_main("@main @main a"), ["@main a"]);
    assert_eq!(as_main("a @main b"), ["a @main b"]);
    assert_eq!(as_main("@!main a"), Vec::<String>::new());
    assert_eq!(as_main("@main $A=1\n@other $A=2\nx $A"), ["x 1"]);
    assert_eq!(as_main("$WHO=@main\n$WHO a"), ["a"]);
}

#[test]
fn references_are_replaced_where_the_language_says() {
    assert_eq!(
        text("$A=1\nx $A,$A) ${A}.2 $A.3 $AB"),
        ["x 1,1) 1.2 $A.3 $AB"]
    );
    assert_eq!(text("$A=1\nx \"$A y\" \"$A\""), ["x \"1 y\" \"$A\""]);
    assert_eq!(text("$A=1\n$A=2\nx $A"), ["x 2"]);
    assert_eq!(text("x $A\n$A = 1\n$1=2"), ["x $A", "$A = 1", "$1=2"]);
    assert_eq!(text("x ${A}"), ["x $", "{", "A", "}"]);
    assert_eq!(text("$A=\n$A\nx$A y"), ["x y"]);
}

#[test]
fn values_are_looked_at_again_with_what_names_stand_for_then() {
    assert_eq!(text("$B=$A\n$A=1\nx $B\n$A=2\nx $B"), ["x 1", "x 2"]);
    assert_eq!(text("$K=key\n$O={\n$K v $O"), ["key v", "{"]);
}

#[test]
fn comment_characters_come_out_of_predefined_names() {
    assert_eq!(text("$C=${_HASH}\n$C gone\nkept"), ["kept"]);
    assert_eq!(text("x \"a${_HASH}b${_BANG}\""), ["x \"a#b!\""]);
}

#[test]
fn predefined_names_know_the_directory_the_id_and_the_environment() {
    let options = Options {
        config_id: "n1".to_owned(),
        environment: [("HOME".to_owned(), "/root".to_owned())].into(),
        ..Options::default()
    };
    let read = |text: &str| read(text.as_bytes(), &MapFiles::new(), &options).0;
    assert_eq!(
        read("a ${_PWD} $_INSTANCE ${_ENV HOME} ${_ENV NONE}."),
        ["a /etc/keepalived n1 /root ."]
    );
    assert_eq!(read("$_INSTANCE=x\na $_INSTANCE"), ["a x"]);
    assert_eq!(old(b"a ${_ENV HOME}"), ["a $", "{", "_ENV HOME", "}"]);
}

#[test]
fn random_numbers_keep_their_range_and_can_be_repeated() {
    let seeded = |random_seed| {
        let options = Options {
            random_seed,
            ..Options::default()
        };
        read(b"~SEQ(i, 50) ${_RANDOM 3 5}", &MapFiles::new(), &options).0
    };
    assert!(
        seeded(1)
            .iter()
            .all(|n| matches!(n.as_str(), "3" | "4" | "5"))
    );
    assert_eq!(seeded(1), seeded(1));
    assert_ne!(seeded(1), seeded(2));
    let (_, diagnostics) = lex(b"a ${_RANDOM 5 3}\na ${_RANDOM x}");
    assert_eq!(diagnostics.len(), 2);
    assert!(diagnostics.iter().all(|d| d.code == Code::ParameterInvalid));
}

#[test]
fn a_definition_of_several_lines_replaces_the_end_of_a_line() {
    let body = "$CHECK= \\\n  TCP_CHECK { \\\n \\\n   retry $N \\ # note\n  }\n";
    let lines = text(&format!("$N=1\n{body}$N=2\nx $CHECK\nend"));
    // What stands behind the backslash, be it a comment, ends the definition.
    assert_eq!(lines, ["}", "x TCP_CHECK", "{", "retry 2\\", "end"]);
    let body = body.replace(" # note", "");
    let lines = text(&format!("{body}$N=2\nx $CHECK\nend"));
    assert_eq!(lines, ["x TCP_CHECK", "{", "retry 2", "}", "end"]);
    let (lines, diagnostics) = lex(b"$A=a \\\n b\n$A x");
    assert_eq!(lines, ["$A x"]);
    assert_eq!(diagnostics[0].code, Code::ParameterInvalid);
}

#[test]
fn definitions_of_several_lines_nest() {
    let text = text("$B=b1 \\\n b2\n$A=a1 \\\n x $B \\\n a2\n$A\nend");
    assert_eq!(text, ["a1", "x b1", "b2", "a2", "end"]);
}

#[test]
fn a_parameter_that_leads_back_to_itself_is_reported_and_kept() {
    for text in [
        "$A=$A\nx $A",
        "$A=$B\n$B=y $A\nx $A",
        "$A=a \\\n $A\nx $A",
        "$A=a \\\n $B\n$B=b \\\n $A\nx $A",
    ] {
        let (lines, diagnostics) = lex(text.as_bytes());
        assert!(!lines.is_empty(), "{text}");
        assert_eq!(diagnostics[0].code, Code::ParameterLoop, "{text}");
        assert_eq!(diagnostics.len(), 1, "{text}");
    }
}

#[test]
fn a_line_does_not_grow_beyond_its_limit() {
    let long = format!("$A={}\nx ${{A}} ${{A}} y", "a".repeat(600));
    let (lines, diagnostics) = lex(long.as_bytes());
    assert_eq!(diagnostics[0].code, Code::LineTooLong);
    assert!(lines[0].len() < 700);
}

#[test]
fn sequences_count_as_written() {
    assert_eq!(text("~SEQ(i, 3) a $i"), ["a 1", "a 2", "a 3"]);
    assert_eq!(text("~SEQ(i, -2) a $i"), ["a -1", "a -2"]);
    assert_eq!(text("~SEQ (i , 2, 0) a $i"), ["a 2", "a 1", "a 0"]);
    assert_eq!(text("~SEQ(i, 1, 3, 9) a${i}b"), ["a1b", "a4b", "a7b"]);
    assert_eq!(text("~SEQx(i, 9, 11) a $i"), ["a 9", "a a", "a b"]);
    assert_eq!(text("$N=0x2\n~SEQ(i, $N) a $i"), ["a 1", "a 2"]);
    assert_eq!(
        text("~SEQ(i, 2) ~SEQ(j, 2) $i $j"),
        ["1 1", "1 2", "2 1", "2 2"]
    );
    assert_eq!(text("~OTHER $A"), ["~OTHER $A"]);
}

#[test]
fn lists_give_values_to_one_or_several_names() {
    assert_eq!(text("~LST(i, a, b c) x $i"), ["x a", "x b", "x c"]);
    assert_eq!(
        text("~LST({i, j}, {a, 1}, {b}) x $i.$j ${i}-${j}"),
        ["x $i.1 a-1", "x $i. b-"]
    );
}

#[test]
fn sequences_that_cannot_be_read_are_reported() {
    for line in [
        "~SEQ(i, 1, 0, 3) x",
        "~SEQ(i, 1, -1, 3) x",
        "~SEQ(i, 3 x",
        "~SEQ(, 3) x",
        "~SEQx(i, -3) x",
        "~LST(i) x",
        "~LST({i}, {1, 2}) x",
        "~LST({i}) x",
        "~SEQ",
    ] {
        let (lines, diagnostics) = lex(line.as_bytes());
        assert!(lines.is_empty(), "{line}");
        assert_eq!(diagnostics[0].code, Code::SequenceInvalid, "{line}");
    }
}

#[test]
fn endless_repetition_ends() {
    let (_, diagnostics) = lex(b"~SEQ(i, 1000000000) ~SEQ(j, 1000000000) x");
    assert_eq!(diagnostics[0].code, Code::TooManyLines);
    assert_eq!(diagnostics.len(), 1);
}

#[test]
fn included_files_are_spliced_in_wherever_a_line_is_read() {
    let files = MapFiles::new()
        .with("/etc/keepalived/conf.d/b.conf", "b 1\n")
        .with("/etc/keepalived/conf.d/a.conf", "a {\n")
        .with("/etc/keepalived/conf.d/.hidden.conf", "hidden\n")
        .with(
            "/etc/keepalived/sub/one.conf",
            "include two.conf\nin $_PWD\n",
        )
        .with("/etc/keepalived/sub/two.conf", "two\n");
    let read = |text: &str| with(&files, text);
    assert_eq!(
        read("include conf.d/*.conf\n}"),
        (
            vec!["a".into(), "{".into(), "b 1".into(), "}".into()],
            vec![]
        )
    );
    assert_eq!(
        read("include sub/one.conf\nout $_PWD").0,
        ["two", "in /etc/keepalived/sub", "out /etc/keepalived"]
    );
    assert_eq!(
        read("include /etc/keepalived/sub/{two,two}.conf").0,
        ["two", "two"]
    );
    assert_eq!(read("$D=sub\ninclude ${D}/two.conf").0, ["two"]);
    assert_eq!(read("include\nincludex a b").0, ["include", "includex a b"]);
}

#[test]
fn an_include_that_finds_nothing_is_an_error_when_that_is_checked() {
    let files = MapFiles::new().with("/etc/keepalived/a/x.conf", "x\n");
    let worst = |line: &str| {
        let (_, diagnostics) = read(line.as_bytes(), &files, &Options::default());
        diagnostics.first().map(|d| (d.code, d.consequence))
    };
    let log = Some((Code::IncludeMissing, Consequence::Log));
    let fatal = Some((Code::IncludeMissing, Consequence::Fatal));
    for (line, expected) in [
        ("include none.conf", log),
        ("includer none.conf", log),
        ("includem none.conf", fatal),
        ("includem none/*", log),
        ("includew none/*", fatal),
        ("include a", log),
        ("includer a", fatal),
        ("include *", None),
        ("includeb a/{x,y}.conf", fatal),
        ("includem a/{x,y}.conf", log),
        ("includea a/x.conf", None),
        ("include \"a/x.conf\"", log),
    ] {
        assert_eq!(worst(line), expected, "{line}");
    }
}

#[test]
fn a_file_that_includes_itself_is_read_once() {
    let files = MapFiles::new()
        .with("/etc/keepalived/a.conf", "a\ninclude b.conf\n")
        .with("/etc/keepalived/b.conf", "b\ninclude a.conf\n");
    assert_eq!(
        with(&files, "include a.conf\ninclude a.conf"),
        (
            vec!["a".into(), "b".into(), "a".into(), "b".into()],
            vec![Code::IncludeLoop, Code::IncludeLoop]
        )
    );
    assert_eq!(with(&files, "include main.conf").1, [Code::IncludeLoop]);
}

#[test]
fn include_checks_follow_their_words() {
    let after = |words: &[&'static str]| IncludeChecks::default().after(words.iter().copied());
    assert_eq!(after(&[]).0, IncludeChecks::ALL);
    let (checks, wrong) = after(&["match", "+brace_match", "-read", "wildcard_match", "+what"]);
    assert!(checks.matches && checks.brace_match && !checks.read && !checks.wildcard_match);
    assert_eq!(wrong, ["wildcard_match", "+what"]);
}

#[test]
fn release_2_2_7_cuts_long_lines_ends_at_nul_and_keeps_a_backslash_of_the_comment() {
    let long = [vec![b'a'; 1023], b"bc\n".to_vec()].concat();
    let lines = old(&long);
    assert_eq!((lines[0].len(), lines[1].as_str()), (1023, "bc"));
    assert_eq!(old(b"a\0b\nc"), ["a", "c"]);
    assert_eq!(old(b"priority 100 # x \\"), ["priority 100\\"]);
}

#[test]
fn pieces_are_the_text() {
    let text = b"a {\r\n  b \"c d\"# e\n$A=x \\\n { \\\n}\n}\n";
    let kinds: Vec<_> = pieces(text)
        .filter(|piece| piece.kind != PieceKind::Blank)
        .map(|piece| (piece.kind, &text[piece.start..piece.end]))
        .collect();
    use PieceKind::{Close, Comment, Directive, LineEnd, Open, Word};
    assert_eq!(
        kinds,
        [
            (Word, &b"a"[..]),
            (Open, b"{"),
            (LineEnd, b"\r\n"),
            (Word, b"b"),
            (Word, b"\"c d\""),
            (Comment, b"# e"),
            (LineEnd, b"\n"),
            (Directive, b"$A=x \\"),
            (LineEnd, b"\n"),
            (Directive, b"{ \\"),
            (LineEnd, b"\n"),
            (Directive, b"}"),
            (LineEnd, b"\n"),
            (Close, b"}"),
            (LineEnd, b"\n"),
        ]
    );
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

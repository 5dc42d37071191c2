//! What holds for every text.

use lvs_conf::lex::Reader;
use lvs_conf::{NoFiles, Options, SourceMap, fuzz, tree};
use proptest::prelude::*;

/// Pieces that make blocks, constructs of the language, quotes and mistakes likely.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[ -~é注\\n]{0,12}",
        prop::sample::select(LINES).prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

const LINES: &[&str] = &[
    "global_defs {\n",
    "vrrp_instance a {\n",
    "virtual_server 10.0.0.1 80 {\n",
    "virtual_server group g {\n",
    "virtual_server_group g {\n10.0.0.1-9 80\n",
    "real_server 10.0.0.2 80 {\n",
    "HTTP_GET {\nurl {\npath /\n",
    "virtual_ipaddress {\n",
    "vrrp_script s {\nscript \"/bin/true 'x'\"\n",
    "vrrp_sync_group g {\ngroup {\na\n",
    "static_routes {\n10.0.0.0/8 via 10.0.0.1\n",
    "static_rules {\nfrom 10.0.0.0/8 table 5\n",
    "bfd_instance b {\nneighbor_ip 10.0.0.1\n",
    "track_script {\ns weight 2 reverse\n",
    "}\n",
    "{",
    "\"",
    "\\",
    "\\\n",
    "priority 1000\n",
    "advert_int 0.123456789\n",
    "notify_master \"a 'b\" c\n",
    "$A=1 $B\n",
    "$B=x \\\n y $A \\\n\n",
    "key $A\n",
    "${B}",
    "~SEQ(i, 3) $i $A\n",
    "~LST({i, j}, {1, 2}, {3}) ${i}.${j}\n",
    "@main ",
    "@^main ",
    "include a.conf\n",
    "includea {a,b}*.conf\n",
    "include_check match +read\n",
    "include ",
    "# a comment\n",
    "# lint: allow(slow-check, x)\n",
    "# lint: allow-file(no-checker)",
    " # one that goes on \\\n",
    "\n\n\n",
    "  ",
    "\r\n",
    "@other vrrp_instance b {\n",
    "weight 1 } real_server 10.0.0.3 80 {",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_keep_every_promise(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        fuzz::configuration(&bytes);
        fuzz::words(&bytes);
    }

    #[test]
    fn texts_keep_every_promise(text in text()) {
        fuzz::configuration(text.as_bytes());
        fuzz::words(text.as_bytes());
    }

    #[test]
    fn every_word_lies_in_the_source_and_on_characters(text in text()) {
        let mut sources = SourceMap::new();
        let id = sources.add("x", text.clone());
        let options = Options::default();
        let mut reader = Reader::new(&mut sources, id, &NoFiles, &options);
        while let Some(line) = reader.next_line() {
            for word in line.words().words {
                let (start, end) = (word.span.start as usize, word.span.end as usize);
                prop_assert!(start < end && end <= text.len());
                prop_assert!(text.is_char_boundary(start) && text.is_char_boundary(end));
            }
        }
    }

    #[test]
    fn lines_are_counted_as_by_the_standard_library(text in "[a{}\"#\\n\\r]{1,80}") {
        let mut sources = SourceMap::new();
        let id = sources.add("x", text.clone());
        let expected = text.strip_suffix('\n').unwrap_or(&text).split('\n').count();
        prop_assert_eq!(sources.get(id).unwrap().line_count(), expected);
    }

    #[test]
    fn any_bytes_print_back(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut sources = SourceMap::new();
        let id = sources.add("x", bytes.clone());
        prop_assert_eq!(tree::print(&sources, id), bytes);
    }
}

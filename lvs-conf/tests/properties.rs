//! What holds for every text.

use lvs_conf::lex::{Escapes, lines, split_script};
use lvs_conf::{SourceMap, load};
use proptest::prelude::*;

/// Pieces that make blocks, quotes and mistakes likely.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[ -~é注\\n]{0,12}",
        Just("vrrp_instance a {\n".to_owned()),
        Just("virtual_server 10.0.0.1 80 {\n".to_owned()),
        Just("real_server 10.0.0.2 80 {\n".to_owned()),
        Just("HTTP_GET {\nurl {\npath /\n".to_owned()),
        Just("virtual_ipaddress {\n".to_owned()),
        Just("}\n".to_owned()),
        Just("\"".to_owned()),
        Just("\\".to_owned()),
        Just("priority 1000\n".to_owned()),
        Just("advert_int 0.123456789\n".to_owned()),
        Just("notify_master \"a 'b\" c\n".to_owned()),
    ];
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut sources = SourceMap::new();
        let id = sources.add("x", bytes);
        let loaded = load(&sources, id);
        for diagnostic in &loaded.diagnostics {
            diagnostic.display(&sources).to_string();
            #[cfg(feature = "render")]
            diagnostic.render(&sources, &lvs_conf::annotate_snippets::Renderer::plain());
        }
    }

    #[test]
    fn no_text_panics_and_every_finding_lies_in_it(text in text()) {
        let mut sources = SourceMap::new();
        let id = sources.add("x", text.clone());
        let loaded = load(&sources, id);
        for diagnostic in &loaded.diagnostics {
            let span = diagnostic.span;
            prop_assert!(span.start <= span.end && span.end as usize <= text.len());
            #[cfg(feature = "render")]
            diagnostic.render(&sources, &lvs_conf::annotate_snippets::Renderer::plain());
        }
    }

    #[test]
    fn every_word_lies_in_the_source_and_on_characters(text in text()) {
        let mut sources = SourceMap::new();
        let id = sources.add("x", text.clone());
        for line in lines(sources.get(id).unwrap(), id, &mut Vec::new()) {
            for word in line.words().words {
                let (start, end) = (word.span.start as usize, word.span.end as usize);
                prop_assert!(start < end && end <= text.len());
                prop_assert!(text.is_char_boundary(start) && text.is_char_boundary(end));
            }
        }
    }

    #[test]
    fn words_keep_their_order(text in text()) {
        let mut sources = SourceMap::new();
        let id = sources.add("x", text);
        let mut last = 0;
        for line in lines(sources.get(id).unwrap(), id, &mut Vec::new()) {
            for word in line.words().words {
                prop_assert!(word.span.start >= last);
                last = word.span.end;
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
    fn script_pieces_lie_in_the_text(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        for escapes in [Escapes::Keep, Escapes::Process] {
            if let Ok(pieces) = split_script(&bytes, escapes) {
                let mut last = 0;
                for piece in pieces {
                    prop_assert!(last <= piece.start && piece.start < piece.end && piece.end <= bytes.len());
                    last = piece.end;
                }
            }
        }
    }
}

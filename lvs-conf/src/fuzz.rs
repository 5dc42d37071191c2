//! What must hold for every input, as plain functions: fuzz targets and property tests call the same ones.

use crate::diag::exit_status;
use crate::dialect::Dialect;
use crate::files::MapFiles;
use crate::format::format_bytes;
use crate::lex::{Escapes, PieceKind, pieces, split_script};
use crate::lint::lint;
use crate::load::load;
use crate::options::Options;
use crate::source::SourceMap;
use crate::tree;

/// Reads bytes as a configuration in both dialects and checks what holds for every text. The text may include itself and, as
/// `a.conf`, its second half. It is checked for what operators regret, and formatted.
///
/// # Panics
/// When something does not hold.
pub fn configuration(text: &[u8]) {
    let second_half = &text[text.len() / 2..];
    let files = MapFiles::new().with("a.conf", second_half);
    for dialect in [Dialect::Newest, Dialect::V2_2_7] {
        let options = Options {
            dialect,
            config_id: "main".to_owned(),
            ..Options::default()
        };
        let mut sources = SourceMap::new();
        let main = sources.add("main.conf", text);
        let loaded = load(&mut sources, main, &files, &options);
        let lints = lint(&sources, &loaded.tree, &loaded.config);
        assert_eq!(exit_status(&lints), 0, "lint says what keepalived does not");
        for diagnostic in loaded.diagnostics.iter().chain(&lints) {
            let spans = diagnostic.notes.iter().map(|note| note.span);
            for span in spans.chain([diagnostic.span]) {
                let source = sources.get(span.source).expect("spans are of the map");
                assert!(span.start <= span.end, "{diagnostic:?}");
                assert!(span.end as usize <= source.bytes().len(), "{diagnostic:?}");
            }
            assert!(!diagnostic.message.is_empty());
            assert!(!diagnostic.display(&sources).to_string().is_empty());
            #[cfg(feature = "render")]
            diagnostic.render(&sources, &annotate_snippets::Renderer::plain());
        }
        assert_eq!(tree::print(&sources, main), text);
        if dialect == Dialect::Newest && loaded.is_usable() {
            let printed = sources.add("printed.conf", crate::print(&loaded.config));
            let reread = load(&mut sources, printed, &files, &options);
            assert_eq!(
                reread.config, loaded.config,
                "printed, the model reads otherwise"
            );
        }
        let again = load(&mut sources, main, &files, &options);
        assert_eq!(again.config, loaded.config, "readings differ");
        assert_eq!(again.diagnostics, loaded.diagnostics);
    }
    formatting(text);
}

/// Cuts bytes into pieces and script words.
///
/// # Panics
/// When a piece is empty, or one does not start where the last one ended.
pub fn words(text: &[u8]) {
    let mut last = 0;
    for piece in pieces(text) {
        assert!(piece.start == last && piece.end > piece.start, "{piece:?}");
        last = piece.end;
    }
    assert_eq!(last, text.len());
    for escapes in [Escapes::Keep, Escapes::Process, Escapes::ProcessLongHex] {
        if let Ok(words) = split_script(text, escapes) {
            let mut last = 0;
            for word in words {
                assert!(last <= word.start && word.start < word.end && word.end <= text.len());
                last = word.end;
            }
        }
    }
}

/// Formats bytes as a configuration and reads the result: formatting again changes nothing, and model and findings are those
/// of the text as written.
///
/// # Panics
/// When something does not hold.
pub fn formatting(text: &[u8]) {
    let second_half = &text[text.len() / 2..];
    let files = MapFiles::new().with("a.conf", second_half);
    let mut sources = SourceMap::new();
    let main = sources.add("main.conf", text);
    let formatted = format_bytes(&sources, main);
    let twice = sources.add("main.conf", formatted.clone());
    assert_eq!(
        String::from_utf8_lossy(&format_bytes(&sources, twice)),
        String::from_utf8_lossy(&formatted),
        "formatting again changes the text"
    );
    let comments = |text: &[u8]| -> Vec<Vec<u8>> {
        pieces(text)
            .filter(|piece| piece.kind == PieceKind::Comment)
            .map(|piece| text[piece.start..piece.end].trim_ascii_end().to_vec())
            .collect()
    };
    assert_eq!(comments(&formatted), comments(text), "comments differ");
    for dialect in [Dialect::Newest, Dialect::V2_2_7] {
        let options = Options {
            dialect,
            config_id: "main".to_owned(),
            ..Options::default()
        };
        let read = |text: &[u8]| {
            let mut sources = SourceMap::new();
            let id = sources.add("main.conf", text);
            let loaded = load(&mut sources, id, &files, &options);
            let findings: Vec<_> = loaded
                .diagnostics
                .iter()
                .map(|d| (d.code, d.consequence, d.message.clone()))
                .collect();
            (loaded.config, findings)
        };
        let (config, findings) = read(text);
        let (config_then, findings_then) = read(&formatted);
        assert_eq!(findings, findings_then, "formatted, the findings differ");
        assert_eq!(config, config_then, "formatted, the model differs");
    }
}

//! The listing of the language that the table gives.

use std::fmt::Write as _;

use crate::lint::Rule;

use super::{Keyword, Place, Shape, Splitting, Status, at};

/// Every keyword of every block as Markdown (arguments, range, default, first release, meaning), and the rules of lint.
///
/// `lvs-conf/REFERENCE.md` is this text.
pub fn reference() -> String {
    let mut out = String::from(HEAD);
    for place in Place::ALL {
        let rows: Vec<_> = at(*place).filter(|row| is_shown(row)).collect();
        if rows.is_empty() {
            continue;
        }
        let title = match place {
            Place::Top => "Top level".to_owned(),
            Place::HttpUrl => "`url` of `HTTP_GET`".to_owned(),
            Place::SslUrl => "`url` of `SSL_GET`".to_owned(),
            Place::SmtpHost => "`host` of `SMTP_CHECK`".to_owned(),
            place => format!("`{place}`"),
        };
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            "\n## {title}\n\n| Keyword | Arguments | Range | Default | Since | Meaning |\n|---|---|---|---|---|---|\n"
        );
        for row in rows {
            let _ = writeln!(
                out,
                "| `{}` | {} | {} | {} | {} | {} |",
                row.name,
                arguments(row),
                row.range.map(|r| r.to_string()).unwrap_or_default(),
                default(row),
                row.since,
                meaning(row)
            );
        }
        let gone: Vec<_> = at(*place)
            .filter_map(|row| match row.status {
                Status::Unknown(what) => Some(format!("`{}`: {what}", row.name)),
                _ => None,
            })
            .collect();
        if !gone.is_empty() {
            let _ = write!(out, "\nNo keywords here: {}.\n", gone.join("; "));
        }
    }
    out.push_str(RULES);
    for rule in Rule::ALL {
        let _ = writeln!(
            out,
            "| `{rule}` | {} | {} |",
            rule.summary().trim_end_matches('.'),
            rule.advice()
        );
    }
    out
}

fn is_shown(row: &Keyword) -> bool {
    !matches!(row.status, Status::Unknown(_))
}

fn arguments(row: &Keyword) -> String {
    let args = if row.args.is_empty() {
        String::new()
    } else {
        format!("`{}` ", cell(row.args))
    };
    match row.shape {
        Shape::Leaf => args.trim_end().to_owned(),
        Shape::Block(_) => format!("{args}`{{ statements }}`"),
        Shape::Values => format!("{args}`{{ lines }}`"),
    }
}

fn default(row: &Keyword) -> String {
    let mut text = cell(&row.default.to_string());
    for part in [
        row.exception.to_owned(),
        row.bare
            .map(|args| format!("without argument: `{args}`"))
            .unwrap_or_default(),
    ] {
        if !part.is_empty() {
            text += if text.is_empty() { "" } else { "; " };
            text += &cell(&part);
        }
    }
    text
}

fn meaning(row: &Keyword) -> String {
    let mut text = cell(row.doc);
    match row.status {
        Status::Alias(name) => text = format!("same as `{name}`"),
        Status::Old(name) => text = format!("old spelling of `{name}`"),
        Status::Deprecated(what) => {
            let _ = write!(text, "; deprecated, {what}");
        }
        Status::Current | Status::Unknown(_) => {}
    }
    if row.first_wins {
        text.push_str("; the first one stays");
    }
    if row.splitting == Splitting::Script {
        text.push_str("; quoted as a script");
    }
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

const HEAD: &str = "\
# Keywords of keepalived.conf

Generated from the table in `src/keywords/table.rs`:
`UPDATE_REFERENCE=1 cargo test -p lvs-conf reference` writes this file anew.

`<x>` is required, `[x]` optional. BOOL is `on`, `true`, `yes` or `off`, `false`, `no`; an absent one is true. A keyword that is
given twice takes its last value unless the table says otherwise. *Since* is the first release that knows the keyword: `old`
is 1.1 or earlier, `unrel` later than 2.4.3.
";

const RULES: &str = "
## Rules of `lint`

What keepalived accepts and operators regret. `# lint: allow(RULE, …)` silences rules for the line that it is on or above, as the
first thing in a block for the block; `# lint: allow-file(RULE, …)` for the file.

| Rule | Fires on | What to do |
|---|---|---|
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/REFERENCE.md");
        let text = reference();
        if std::env::var_os("UPDATE_REFERENCE").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        assert!(
            std::fs::read_to_string(path).is_ok_and(|file| file == text),
            "REFERENCE.md is stale, write it anew with `UPDATE_REFERENCE=1 cargo test -p lvs-conf reference`"
        );
    }

    #[test]
    fn every_keyword_says_what_it_does_and_since_when() {
        for place in Place::ALL {
            for row in at(*place).filter(|row| is_shown(row)) {
                assert!(!row.doc.is_empty() && !row.since.is_empty(), "{}", row.name);
            }
        }
    }
}

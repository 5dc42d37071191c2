//! `HTTP_GET` and `SSL_GET`.

use super::{Draft, Target, Unset};
use crate::diag::{Code, Consequence, Diagnostic};
use crate::keywords::preset::preset;
use crate::lower::Context;
use crate::model::{Checker, HttpCheck, HttpVersion, Regex, Url};
use crate::settings::{Settings as _, settings};
use crate::tree::Statement;

settings! { HttpCheck {
    "enable_sni" => enable_sni,
    "fast_recovery" => fast_recovery,
    "tls_compliant" => tls_compliant,
} }

pub(super) fn http(
    cx: &mut Context,
    block: &Statement,
    target: &Target<'_>,
    mut draft: Draft,
) -> Option<Checker> {
    let mut check = HttpCheck {
        probe: draft.probe.clone(),
        version: HttpVersion::DEFAULT,
        enable_sni: false,
        sni_name: None,
        fast_recovery: false,
        tls_compliant: false,
        urls: Vec::new(),
    };
    let mut virtualhost = None;
    for statement in block.statements() {
        match statement.spec.canonical() {
            "url" => check.urls.extend(url(cx, statement)),
            "virtualhost" => virtualhost = cx.text(statement),
            "http_protocol" => {
                let of =
                    |word: &str| HttpVersion::from_word(if word == "1.0c" { "1.0C" } else { word });
                check.version = cx
                    .word_arg(statement, of, HttpVersion::ALL)
                    .unwrap_or(check.version);
            }
            "sni_name" => {
                check.enable_sni = true;
                check.sni_name = cx.text(statement);
            }
            _ => {
                if !draft.read(cx, statement) {
                    check.set(cx, statement);
                }
            }
        }
    }
    let unset = Unset {
        delay_before_retry: Some(preset!(duration, HttpGet, "delay_before_retry")),
        ..Unset::default()
    };
    check.probe = draft.finish(cx, block, unset)?;
    if check.urls.is_empty() {
        cx.push(
            Diagnostic::new(
                Code::HttpCheckWithoutUrl,
                Consequence::Drop,
                cx.whole(block),
                format!("{} without url is dropped", block.spec.name),
            )
            .expected("`url { path <STR> }`"),
        );
        return None;
    }
    check.urls.shrink_to_fit();
    let inherited = virtualhost.or_else(|| target.virtualhost.map(str::to_owned));
    for url in &mut check.urls {
        if url.virtualhost.is_none() {
            url.virtualhost.clone_from(&inherited);
        }
    }
    Some(if block.spec.name == "SSL_GET" {
        Checker::SslGet(check)
    } else {
        Checker::HttpGet(check)
    })
}

fn url(cx: &mut Context, block: &Statement) -> Option<Url> {
    let mut path = None;
    let mut digest = None;
    let mut status_codes = Vec::new();
    let mut virtualhost = None;
    let mut pattern = None;
    let mut regex = Regex {
        pattern: String::new(),
        negated: false,
        options: Vec::new(),
        min_offset: 0,
        max_offset: None,
        stack: None,
    };
    let mut tls_compliant = false;
    for statement in block.statements() {
        match statement.spec.canonical() {
            "path" => path = cx.text(statement),
            "digest" => {
                if digest.is_some() {
                    cx.given_before(statement);
                } else {
                    digest = self::digest(cx, statement);
                }
            }
            "status_code" => status_ranges(cx, statement, &mut status_codes),
            "virtualhost" => virtualhost = cx.text(statement),
            "regex" => pattern = self::pattern(cx, statement).or(pattern),
            "regex_no_match" => regex.negated = true,
            "regex_options" => regex
                .options
                .extend(statement.args.iter().map(|w| w.text.to_string())),
            "regex_min_offset" => cx.set(statement, &mut regex.min_offset),
            "regex_max_offset" => cx.set(statement, &mut regex.max_offset),
            "regex_stack" => regex.stack = stack(cx, statement),
            "tls_compliant" => cx.set(statement, &mut tls_compliant),
            _ => {}
        }
    }
    if status_codes.is_empty() {
        status_codes.push(Url::DEFAULT_STATUS);
    }
    status_codes.shrink_to_fit();
    if regex.max_offset.is_some_and(|max| regex.min_offset > max) {
        cx.report(
            Code::InvalidValue,
            Consequence::Log,
            block.keyword.span,
            "regex_min_offset exceeds regex_max_offset, both are reset",
        );
        (regex.min_offset, regex.max_offset) = (0, None);
    }
    let Some(path) = path else {
        cx.push(
            Diagnostic::new(
                Code::HttpUrlWithoutPath,
                Consequence::Drop,
                cx.whole(block),
                "url without path is dropped",
            )
            .expected("`path <STR>`"),
        );
        return None;
    };
    Some(Url {
        path,
        digest,
        status_codes,
        virtualhost,
        regex: pattern.map(|pattern| Regex { pattern, ..regex }),
        tls_compliant,
    })
}

fn stack(cx: &mut Context, statement: &Statement) -> Option<(u32, u32)> {
    let [start, most, ..] = &*statement.args else {
        return None;
    };
    let range = 0..=u64::from(u32::MAX);
    let start = cx.small("regex_stack", start, range.clone())?;
    let most = cx.small("regex_stack", most, range)?;
    if start > most {
        cx.invalid(
            statement.head(),
            "the stack starts larger than it may become",
            "`regex_stack <START> <MAX>`",
        );
        return None;
    }
    Some((start, most))
}

fn digest(cx: &mut Context, statement: &Statement) -> Option<[u8; 16]> {
    let word = statement.args.first()?;
    let mut digest = [0; 16];
    let text = word.text.as_bytes();
    let valid = text.len() == 32
        && digest.iter_mut().zip(text.chunks(2)).all(|(byte, pair)| {
            let nibble = |b: u8| char::from(b).to_digit(16);
            match (nibble(pair[0]), nibble(pair[1])) {
                (Some(high), Some(low)) => {
                    *byte = (high * 16 + low) as u8;
                    true
                }
                _ => false,
            }
        });
    if !valid {
        cx.push(
            Diagnostic::new(
                Code::DigestInvalid,
                Consequence::Ignore,
                word.span,
                format!("`{}` is not an MD5 digest", word.text),
            )
            .expected("32 hex digits"),
        );
    }
    valid.then_some(digest)
}

fn status_ranges(cx: &mut Context, statement: &Statement, ranges: &mut Vec<(u16, u16)>) {
    for word in &statement.args {
        let (from, to) = word
            .text
            .split_once('-')
            .unwrap_or((&word.text, &word.text));
        match (from.parse::<u16>(), to.parse::<u16>()) {
            (Ok(from), Ok(to)) if from <= to && from >= 100 && to <= 599 => ranges.push((from, to)),
            _ => cx.push(
                Diagnostic::new(
                    Code::InvalidValue,
                    Consequence::Ignore,
                    word.span,
                    format!("`{}` is not a status code or range", word.text),
                )
                .expected("100 to 599, `N` or `N-M`"),
            ),
        }
    }
}

fn pattern(cx: &mut Context, statement: &Statement) -> Option<String> {
    match statement.script_words() {
        Ok([_, word]) => Some(word.text.to_string()),
        Ok(_) => {
            cx.push(
                Diagnostic::new(
                    Code::InvalidValue,
                    Consequence::Ignore,
                    statement.head(),
                    "`regex` takes exactly one pattern",
                )
                .hint("put it in quotes"),
            );
            None
        }
        Err(error) => {
            cx.report(
                Code::UnterminatedScriptQuote,
                Consequence::Ignore,
                statement.head(),
                format!("`regex` is ignored: {error}"),
            );
            None
        }
    }
}

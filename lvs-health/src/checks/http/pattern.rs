//! A regular expression for a body, with the meaning that keepalived's library gives it.

use regex::bytes::{Regex, RegexBuilder};
use std::error::Error;
use std::fmt;

/// What a body must match, or must not.
///
/// The syntax is Perl's without look-around and back-references, matched in linear time whatever the body is. An empty
/// body never matches. `$` and `\Z` match at the end and before a line end there, as in Perl.
#[derive(Debug, Clone)]
pub struct BodyPattern {
    text: String,
    options: RegexOptions,
    negated: bool,
    min_offset: usize,
    max_offset: Option<usize>,
    regex: Regex,
}

/// keepalived's `regex_options`, as far as they change a meaning; all off by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RegexOptions {
    /// Letters of either case.
    pub caseless: bool,
    /// `$` does not match before a line end at the end of the body.
    pub dollar_endonly: bool,
    /// `.` matches line ends.
    pub dotall: bool,
    /// White space and comments in the pattern mean nothing.
    pub extended: bool,
    /// The match must begin in the first line.
    pub firstline: bool,
    /// `^` and `$` match at every line.
    pub multiline: bool,
    /// Repetition is as short as possible.
    pub ungreedy: bool,
    /// The body is UTF-8, and classes are Unicode's.
    pub utf: bool,
}

impl RegexOptions {
    /// Reads keepalived's words. Those that only tune or that mean nothing for a yes or no are known and without effect.
    ///
    /// # Errors
    ///
    /// A word is unknown; it is returned.
    pub fn from_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, UnknownOption> {
        let mut options = Self::default();
        for word in words {
            match word {
                "caseless" => options.caseless = true,
                "dollar_endonly" => options.dollar_endonly = true,
                "dotall" => options.dotall = true,
                "extended" => options.extended = true,
                "firstline" => options.firstline = true,
                "multiline" => options.multiline = true,
                "ungreedy" => options.ungreedy = true,
                "utf" | "ucp" => options.utf = true,
                word if WITHOUT_EFFECT.contains(&word) => {}
                word => return Err(UnknownOption(word.to_owned())),
            }
        }
        Ok(options)
    }
}

impl BodyPattern {
    /// The body must match this somewhere.
    ///
    /// # Errors
    ///
    /// The pattern is malformed, too large, or uses what cannot be matched in linear time.
    pub fn new(pattern: &str, options: RegexOptions) -> Result<Self, InvalidRegex> {
        let perl = perl_ends(pattern, options);
        let regex = RegexBuilder::new(&perl)
            .unicode(options.utf)
            .case_insensitive(options.caseless)
            .dot_matches_new_line(options.dotall)
            .ignore_whitespace(options.extended)
            .multi_line(options.multiline)
            .swap_greed(options.ungreedy)
            .build()
            .map_err(InvalidRegex)?;
        Ok(Self {
            text: pattern.to_owned(),
            options,
            negated: false,
            min_offset: 0,
            max_offset: None,
            regex,
        })
    }

    /// The body must not match (`regex_no_match`).
    pub fn negated(self) -> Self {
        Self {
            negated: true,
            ..self
        }
    }

    /// Matching begins at `min` bytes from the start of the body, and a match must begin at `max` or before. A `min`
    /// behind `max` means nothing, as in keepalived.
    pub fn within(self, min: usize, max: Option<usize>) -> Self {
        let (min_offset, max_offset) = match max {
            Some(max) if min > max => (0, None),
            max => (min, max),
        };
        Self {
            min_offset,
            max_offset,
            ..self
        }
    }

    /// Whether this body is a good one.
    pub fn accepts(&self, body: &[u8]) -> bool {
        self.is_match(body) != self.negated
    }

    fn is_match(&self, body: &[u8]) -> bool {
        if body.is_empty() || self.min_offset > body.len() {
            return false;
        }
        let Some(found) = self.regex.find_at(body, self.min_offset) else {
            return false;
        };
        let in_first_line = || body[..found.start()].iter().all(|byte| *byte != b'\n');
        self.max_offset.is_none_or(|max| found.start() <= max)
            && (!self.options.firstline || in_first_line())
    }
}

impl PartialEq for BodyPattern {
    fn eq(&self, other: &Self) -> bool {
        let key = |pattern: &Self| {
            (
                pattern.options,
                pattern.negated,
                pattern.min_offset,
                pattern.max_offset,
            )
        };
        self.text == other.text && key(self) == key(other)
    }
}

impl Eq for BodyPattern {}

/// A pattern that cannot be used, and why.
#[derive(Debug, Clone)]
pub struct InvalidRegex(regex::Error);

impl fmt::Display for InvalidRegex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The library draws the pattern on several lines; the last one has the reason.
        let text = self.0.to_string();
        let reason = text.lines().last().unwrap_or_default();
        let reason = reason.trim_start_matches("error: ");
        write!(f, "invalid regular expression: {reason}")
    }
}

impl Error for InvalidRegex {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

/// A word that is none of the options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownOption(pub String);

impl fmt::Display for UnknownOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown regex option {}", self.0)
    }
}

impl Error for UnknownOption {}

/// `$` outside of classes, and `\Z`, get Perl's meaning: the end, or before a line end there.
fn perl_ends(pattern: &str, options: RegexOptions) -> String {
    let dollar = if options.multiline {
        "$"
    } else if options.dollar_endonly {
        r"\z"
    } else {
        PERL_END
    };
    let mut perl = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    // How far into a class: its first character is never its end.
    let mut class: Option<usize> = None;
    while let Some(char) = chars.next() {
        match (char, class) {
            ('\\', _) => match chars.next() {
                Some('Z') if class.is_none() => perl.push_str(PERL_END),
                escaped => {
                    perl.push('\\');
                    perl.extend(escaped);
                }
            },
            ('$', None) => perl.push_str(dollar),
            ('[', None) => {
                perl.push('[');
                class = Some(0);
                continue;
            }
            (']', Some(0)) => perl.push_str(r"\]"),
            (']', Some(_)) => {
                perl.push(']');
                class = None;
                continue;
            }
            // In a Perl class these stand for themselves; here they would be nesting or set operations.
            ('[', Some(_)) => {
                if chars.as_str().starts_with(':') {
                    perl.push('[');
                    for char in chars.by_ref() {
                        perl.push(char);
                        if char == ']' {
                            break;
                        }
                    }
                } else {
                    perl.push_str(r"\[");
                }
            }
            ('&' | '~', Some(_)) => {
                perl.push('\\');
                perl.push(char);
            }
            ('^', Some(0)) => {
                perl.push('^');
                continue;
            }
            (char, _) => perl.push(char),
        }
        class = class.map(|at| at + 1);
    }
    perl
}

const PERL_END: &str = r"(?:\n?\z)";

const WITHOUT_EFFECT: [&str; 16] = [
    "allow_empty_class",
    "alt_bsux",
    "alt_circumflex",
    "alt_verbnames",
    "auto_callout",
    "dupnames",
    "match_unset_backref",
    "never_backslash_c",
    "never_ucp",
    "never_utf",
    "no_auto_capture",
    "no_auto_possess",
    "no_dotstar_anchor",
    "no_start_optimize",
    "use_offset_limit",
    "no_utf_check",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str, options: &str) -> BodyPattern {
        let options = RegexOptions::from_words(options.split_whitespace()).unwrap();
        BodyPattern::new(text, options).unwrap()
    }

    #[test]
    fn bodies_of_the_table() {
        let body = b"aaaa Hello World bbbb";
        let plain = |text| pattern(text, "");
        assert!(plain("Hello").accepts(body));
        assert!(!plain("hello").accepts(body));
        assert!(pattern("hello", "caseless").accepts(body));
        assert!(!plain("Hello").negated().accepts(body));
        assert!(plain("Nope").negated().accepts(body));
        assert!(plain("Hello").within(5, None).accepts(body));
        assert!(!plain("Hello").within(6, None).accepts(body));
        assert!(plain("Hello").within(0, Some(5)).accepts(body));
        assert!(!plain("Hello").within(0, Some(4)).accepts(body));
        assert!(
            plain("Hello").within(9, Some(4)).accepts(body),
            "min behind max"
        );
        for text in ["^aaaa", "bbbb$", "b+", "bbbb", "a+", r"bbbb\z", r"bbbb\Z"] {
            assert!(plain(text).accepts(body), "{text}");
        }
        assert!(!plain("HTTP/1.1 200").accepts(body));

        let body = b"Hello World";
        assert!(plain("World").within(6, None).accepts(body));
        assert!(!plain("World").within(7, None).accepts(body));
        assert!(plain("World").within(0, Some(6)).accepts(body));
        assert!(!plain("World").within(0, Some(5)).accepts(body));
        assert!(plain("^Hel").accepts(body));
        assert!(plain(r"ld\z").accepts(body));
        assert!(plain("^$").negated().accepts(body));
        assert!(!plain(".*").accepts(b""), "an empty body matches nothing");
        assert!(!plain("x").within(1000, None).accepts(body));
    }

    #[test]
    fn ends_and_classes_mean_what_they_mean_in_perl() {
        assert!(pattern("ok$", "").accepts(b"ok\n"));
        assert!(!pattern("ok$", "dollar_endonly").accepts(b"ok\n"));
        assert!(!pattern("ok$", "").accepts(b"ok\nmore\n"));
        assert!(pattern("ok$", "multiline").accepts(b"ok\nmore\n"));
        assert!(!pattern("more", "firstline").accepts(b"ok\nmore"));
        assert!(pattern("[$]5", "").accepts(b"$5"));
        assert!(pattern("[]x]y", "").accepts(b"]y"));
        assert!(pattern("[^]x]y", "").accepts(b"ay"));
        assert!(pattern("[[]", "").accepts(b"["));
        assert!(pattern("[[:digit:]&&]+!", "").accepts(b"4&!"));
        assert!(pattern(r"\$5", "").accepts(b"$5"));
        assert!(pattern("a.b", "dotall").accepts(b"a\nb"));
        assert!(pattern(r"\xff", "").accepts(&[0xff]), "bytes, unless utf");
    }

    #[test]
    fn what_cannot_be_matched_says_so() {
        let error = |text| BodyPattern::new(text, RegexOptions::default()).unwrap_err();
        assert!(
            error("l(?=d)").to_string().contains("look-around"),
            "{}",
            error("l(?=d)")
        );
        assert!(error(r"(a)\1").to_string().contains("backreferences"));
        assert!(error("(").to_string().contains("unclosed group"));
        let unknown = RegexOptions::from_words(["caseles"]);
        assert_eq!(unknown, Err(UnknownOption("caseles".to_owned())));
    }
}

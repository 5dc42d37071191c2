//! Model to text: a canonical keepalived.conf that loads to an equal model.
//!
//! What has its default value is not written. What is inherited is written where it takes effect.

use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

use crate::model::{Config, Route, Rule, Script};
use crate::settings::{Settings, user_words};

mod global;
mod lvs;
mod net;
mod track;
mod vrrp;

/// The configuration as a file.
///
/// ```
/// use lvs_conf::{NoFiles, Options, SourceMap, load, print};
///
/// let mut sources = SourceMap::new();
/// let id = sources.add("x", "global_defs {\n router_id   \"a\"\n # why not\n smtp_alert false }");
/// let options = Options::default();
/// let config = load(&mut sources, id, &NoFiles, &options).config;
/// let text = print(&config);
/// assert_eq!(text, "global_defs {\n    router_id a\n    smtp_alert false\n}\n");
/// let again = sources.add("y", text);
/// assert_eq!(load(&mut sources, again, &NoFiles, &options).config, config);
/// ```
pub fn print(config: &Config) -> String {
    let mut out = Writer::default();
    config.daemon.write(&Default::default(), &mut out);
    global::write(config, &mut out);
    track::write(config, &mut out);
    for group in &config.track_groups {
        out.block(format!("track_group {}", quoted(&group.name)), |out| {
            out.values("group", group.members.iter().map(|name| quoted(name)));
        });
    }
    net::statics(config, &mut out);
    for instance in &config.instances {
        vrrp::instance(instance, &config.global, &mut out);
    }
    for group in &config.sync_groups {
        vrrp::sync_group(group, &config.global, &mut out);
    }
    lvs::write(config, &mut out);
    out.text
}

/// As in `virtual_routes`, on one line.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&net::route(self))
    }
}

/// As in `virtual_rules`, on one line.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&net::rule(self))
    }
}

/// An address with its prefix length, which is left out if it is the whole address.
pub(crate) fn address_line(address: std::net::IpAddr, prefix_len: u8) -> String {
    let full = if address.is_ipv4() { 32 } else { 128 };
    if prefix_len == full {
        address.to_string()
    } else {
        format!("{address}/{prefix_len}")
    }
}

/// Text with indentation.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    text: String,
    depth: usize,
}

impl Writer {
    pub(crate) fn line(&mut self, line: impl fmt::Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{:1$}{line}", "", self.depth * 4);
    }

    /// A block with what `inside` writes.
    pub(crate) fn block(&mut self, head: impl fmt::Display, inside: impl FnOnce(&mut Self)) {
        if self.depth == 0 && !self.text.is_empty() {
            self.text.push('\n');
        }
        self.line(format_args!("{head} {{"));
        self.depth += 1;
        inside(self);
        self.depth -= 1;
        self.line("}");
    }

    /// The same, but nothing if `inside` writes nothing.
    pub(crate) fn block_unless_empty(&mut self, head: &str, inside: impl FnOnce(&mut Self)) {
        let mut body = Self {
            text: String::new(),
            depth: self.depth + 1,
        };
        inside(&mut body);
        if !body.text.is_empty() {
            self.block(head, |out| out.text.push_str(&body.text));
        }
    }

    /// A block with a line for each entry; nothing if there are none.
    pub(crate) fn values(&mut self, name: &str, entries: impl IntoIterator<Item = String>) {
        let mut entries = entries.into_iter().peekable();
        if entries.peek().is_some() {
            self.block(name, |out| entries.for_each(|entry| out.line(entry)));
        }
    }

    pub(crate) fn script(&mut self, name: &str, script: &Script) {
        let user = script
            .user
            .as_ref()
            .map(|user| format!(" {}", user_words(user)))
            .unwrap_or_default();
        self.line(format_args!("{name} {}{user}", command(&script.command)));
    }
}

/// A word of a line, in quotes if it would not survive without.
pub(crate) fn quoted(word: &str) -> String {
    let plain = !word.is_empty()
        && !word
            .bytes()
            .any(|byte| byte <= b' ' || matches!(byte, b'#' | b'!' | b'{' | b'}'));
    if plain {
        word.to_owned()
    } else {
        format!("\"{word}\"")
    }
}

/// A command for a keyword that splits its line as scripts: each argument for itself, all of them in double quotes.
fn command(words: &[String]) -> String {
    let mut text = String::from("\"");
    for (at, word) in words.iter().enumerate() {
        if at > 0 {
            text.push(' ');
        }
        let plain = !word.is_empty()
            && word
                .chars()
                .all(|c| c.is_alphanumeric() || "/._-+:=,%@<>*?|&;()[]#!{}".contains(c));
        if !plain {
            text.push('\'');
        }
        for c in word.chars() {
            match c {
                '\\' | '"' | '\'' => text.extend(['\\', c]),
                // A dollar would be a reference.
                c if c.is_control() && c.is_ascii() || c == '$' => {
                    let _ = write!(text, "\\{:03o}", u32::from(c));
                }
                c => text.push(c),
            }
        }
        if !plain {
            text.push('\'');
        }
    }
    text.push('"');
    text
}

/// A duration in seconds, as many decimals as needed.
pub(crate) struct Seconds(pub(crate) Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_micros(f, self.0.as_micros(), 1_000_000)
    }
}

/// A duration in milliseconds, as many decimals as needed.
pub(crate) struct Milliseconds(pub(crate) Duration);

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_micros(f, self.0.as_micros(), 1_000)
    }
}

fn write_micros(f: &mut fmt::Formatter<'_>, micros: u128, per: i64) -> fmt::Result {
    write_scaled(f, i128::try_from(micros).unwrap_or(i128::MAX), per)
}

/// A count divided by its unit (1, a thousand or a million), without trailing zeros.
pub(crate) fn write_scaled(f: &mut fmt::Formatter<'_>, count: i128, per: i64) -> fmt::Result {
    let per = i128::from(per);
    let (whole, rest) = (count / per, (count % per).abs());
    if rest == 0 {
        return write!(f, "{whole}");
    }
    let digits = if per == 1_000 { 3 } else { 6 };
    let fraction = format!("{rest:0digits$}");
    write!(f, "{whole}.{}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_no_needless_decimals() {
        assert_eq!(Seconds(Duration::from_millis(1_500)).to_string(), "1.5");
        assert_eq!(Seconds(Duration::from_secs(3)).to_string(), "3");
        assert_eq!(Seconds(Duration::from_micros(1)).to_string(), "0.000001");
        assert_eq!(
            Milliseconds(Duration::from_micros(10_500)).to_string(),
            "10.5"
        );
    }

    #[test]
    fn words_are_quoted_where_they_would_not_survive() {
        assert_eq!(quoted("a-b"), "a-b");
        assert_eq!(quoted(""), "\"\"");
        assert_eq!(quoted("p#ss"), "\"p#ss\"");
    }

    #[test]
    fn arguments_of_a_command_are_quoted_one_by_one() {
        let words = ["/bin/x", "a b", "it's", "$X"].map(str::to_owned);
        assert_eq!(command(&words), r#""/bin/x 'a b' 'it\'s' '\044X'""#);
    }
}

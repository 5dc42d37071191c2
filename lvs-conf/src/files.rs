//! How the reader asks for files: the crate itself opens none.

use std::collections::BTreeMap;
use std::fmt;

/// The files that a configuration may include. Paths are written with `/`.
pub trait Files {
    /// The bytes of a regular file.
    ///
    /// # Errors
    /// There is no such file, or it is not one that keepalived would read.
    fn read(&self, path: &str) -> Result<Vec<u8>, FileError>;

    /// The names in a directory, in any order; nothing for a directory that cannot be listed.
    fn list(&self, directory: &str) -> Vec<String>;
}

/// Why a file is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileError {
    /// There is none of this name.
    NotFound,
    /// A directory, a device or the like.
    NotRegular,
    /// It has an execute permission bit, which keepalived takes for a mistake.
    Executable,
    /// It cannot be read; the text is the system's.
    Unreadable(String),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("no such file"),
            Self::NotRegular => f.write_str("not a regular file"),
            Self::Executable => f.write_str("the file has an execute permission"),
            Self::Unreadable(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for FileError {}

/// No files: every include finds nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _: &str) -> Result<Vec<u8>, FileError> {
        Err(FileError::NotFound)
    }

    fn list(&self, _: &str) -> Vec<String> {
        Vec::new()
    }
}

/// Files in memory, by path.
#[derive(Debug, Clone, Default)]
pub struct MapFiles {
    files: BTreeMap<String, Vec<u8>>,
}

impl MapFiles {
    /// No files yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces a file.
    #[must_use]
    pub fn with(mut self, path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.into(), bytes.into());
        self
    }
}

impl Files for MapFiles {
    fn read(&self, path: &str) -> Result<Vec<u8>, FileError> {
        if let Some(bytes) = self.files.get(path) {
            return Ok(bytes.clone());
        }
        Err(if self.list(path).is_empty() {
            FileError::NotFound
        } else {
            FileError::NotRegular
        })
    }

    fn list(&self, directory: &str) -> Vec<String> {
        let prefix = match directory {
            "" | "." => String::new(),
            path => format!("{}/", path.trim_end_matches('/')),
        };
        let mut names: Vec<String> = self
            .files
            .keys()
            .filter_map(|path| path.strip_prefix(&prefix))
            .filter_map(|rest| rest.split('/').next())
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        names.dedup();
        names
    }
}

/// A path as it is seen from a directory; an empty one leaves it as it is.
pub(crate) fn join(directory: &str, path: &str) -> String {
    if path.starts_with('/') || directory.is_empty() {
        return path.to_owned();
    }
    format!("{}/{path}", directory.trim_end_matches('/'))
}

/// The files that a shell pattern names, in sorted order. A pattern without wildcard names itself, present or not.
///
/// `*`, `?` and `[...]` do not match a `/`, nor a dot at the start of a name.
pub fn glob(files: &dyn Files, pattern: &str) -> Vec<String> {
    if !has_wildcard(pattern) {
        return vec![pattern.replace('\\', "")];
    }
    let absolute = pattern.starts_with('/');
    let mut found = vec![if absolute { "/" } else { "" }.to_owned()];
    let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
    for (at, part) in parts.iter().enumerate() {
        let mut next = Vec::new();
        for directory in &found {
            let join = |name: &str| match directory.as_str() {
                "" => name.to_owned(),
                "/" => format!("/{name}"),
                _ => format!("{directory}/{name}"),
            };
            if has_wildcard(part) {
                let last = at + 1 == parts.len();
                let here = if directory.is_empty() { "." } else { directory };
                let mut names = files.list(here);
                names.sort();
                let matching = names.iter().filter(|name| matches(part, name));
                let paths = matching.map(|name| join(name));
                next.extend(paths.filter(|path| last || !files.list(path).is_empty()));
            } else {
                next.push(join(part));
            }
        }
        found = next;
    }
    found
}

/// Whether a pattern means more than its own text.
pub fn has_wildcard(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

/// Whether one component of a path fits one component of a pattern.
pub fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    // Where to go on when a later part does not fit: after the last star, one more character eaten.
    let mut retry: Option<(usize, usize)> = None;
    let (mut p, mut n) = (0, 0);
    while n < name.len() {
        match one(&pattern[p..], name[n]) {
            Fit::Star => {
                retry = Some((p + 1, n));
                p += 1;
                continue;
            }
            Fit::Yes(len) => {
                p += len;
                n += 1;
                continue;
            }
            Fit::No => {}
        }
        let Some((star, eaten)) = retry else {
            return false;
        };
        retry = Some((star, eaten + 1));
        (p, n) = (star, eaten + 1);
    }
    pattern[p..].iter().all(|c| *c == '*')
}

enum Fit {
    No,
    Star,
    /// And how many characters of the pattern did it.
    Yes(usize),
}

fn one(pattern: &[char], c: char) -> Fit {
    match pattern {
        [] => Fit::No,
        ['*', ..] => Fit::Star,
        ['?', ..] => Fit::Yes(1),
        ['\\', literal, ..] if *literal == c => Fit::Yes(2),
        ['[', rest @ ..] => {
            let negated = matches!(rest.first(), Some('!' | '^'));
            let set = &rest[usize::from(negated)..];
            // A `]` in the first place is a member.
            let Some(end) = set.iter().skip(1).position(|c| *c == ']').map(|at| at + 1) else {
                return if c == '[' { Fit::Yes(1) } else { Fit::No };
            };
            let mut members = &set[..end];
            let mut found = false;
            while let Some(first) = members.first() {
                if let [from, '-', to, rest @ ..] = members {
                    found |= (*from..=*to).contains(&c);
                    members = rest;
                } else {
                    found |= *first == c;
                    members = &members[1..];
                }
            }
            if found == negated {
                Fit::No
            } else {
                Fit::Yes(1 + usize::from(negated) + end + 1)
            }
        }
        [literal, ..] if *literal == c => Fit::Yes(1),
        [..] => Fit::No,
    }
}

/// The alternatives of `{a,b}` in a pattern, nested ones included; a pattern without them is its own only alternative.
///
/// `{}` and a brace without partner stand for themselves. At most 1000 alternatives are made.
pub fn alternatives(pattern: &str) -> Vec<String> {
    let mut done = Vec::new();
    let mut open = vec![pattern.to_owned()];
    while let Some(pattern) = open.pop() {
        let Some((from, to)) = outer_braces(&pattern) else {
            done.push(pattern);
            continue;
        };
        let (before, after) = (&pattern[..from], &pattern[to + 1..]);
        let choices = split_choices(&pattern[from + 1..to]);
        // The last one is taken from the stack first.
        for choice in choices.iter().rev() {
            open.push(format!("{before}{choice}{after}"));
        }
        if open.len() + done.len() > MAX_ALTERNATIVES {
            done.append(&mut open);
        }
    }
    done
}

/// The first brace expression: offsets of `{` and its `}`.
fn outer_braces(pattern: &str) -> Option<(usize, usize)> {
    let mut depth = 0;
    let mut start = None;
    for (at, byte) in pattern.bytes().enumerate() {
        match byte {
            b'{' if start.is_none() && pattern[at..].starts_with("{}") => {}
            b'{' => {
                start.get_or_insert(at);
                depth += 1;
            }
            b'}' if depth > 0 => {
                depth -= 1;
                if depth == 0 {
                    return start.map(|from| (from, at));
                }
            }
            _ => {}
        }
    }
    None
}

fn split_choices(text: &str) -> Vec<&str> {
    let mut choices = Vec::new();
    let (mut depth, mut from) = (0_usize, 0);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                choices.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    choices.push(&text[from..]);
    choices
}

const MAX_ALTERNATIVES: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_as_in_a_shell() {
        for (pattern, name, fits) in [
            ("*.conf", "a.conf", true),
            ("*.conf", ".a.conf", false),
            (".*.conf", ".a.conf", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "xxaxxbxx", false),
            ("?[a-c]", "xb", true),
            ("?[!a-c]", "xb", false),
            ("[]]", "]", true),
            ("[a", "[a", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("é?", "éé", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn patterns_walk_directories_and_sort() {
        let files = MapFiles::new()
            .with("/etc/b/2.conf", "")
            .with("/etc/a/1.conf", "")
            .with("/etc/a/.hidden.conf", "")
            .with("/etc/plain.conf", "")
            .with("rel/x.conf", "");
        assert_eq!(
            glob(&files, "/etc/*/*.conf"),
            ["/etc/a/1.conf", "/etc/b/2.conf"]
        );
        assert_eq!(glob(&files, "rel/*"), ["rel/x.conf"]);
        assert_eq!(glob(&files, "/etc/none"), ["/etc/none"]);
        assert!(glob(&files, "/none/*").is_empty());
        assert_eq!(files.read("/etc/a"), Err(FileError::NotRegular));
    }

    #[test]
    fn brace_alternatives_keep_their_order() {
        assert_eq!(alternatives("a{b,c{d,e}}f"), ["abf", "acdf", "acef"]);
        assert_eq!(alternatives("{}a{b"), ["{}a{b"]);
        assert!(alternatives(&"{a,b}".repeat(40)).len() <= MAX_ALTERNATIVES + 40);
    }
}

//! What a look at a host has found, in an operator's words.

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;

/// Something that an operator should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A name for programs, in kebab case.
    pub code: &'static str,
    /// Where: an interface, an address, a setting.
    pub place: String,
    /// What is so.
    pub what: String,
    /// What comes of it.
    pub consequence: String,
    /// What to do, as a command where there is one.
    pub cure: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It does not work like this.
    Error,
    /// It may not work, or not always.
    Warning,
    /// Nothing is wrong; it can't be seen from here, or is good to know.
    Note,
}

impl Severity {
    /// Whether something should be done.
    pub fn is_trouble(self) -> bool {
        self != Self::Note
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// A list of findings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings(pub Vec<Finding>);

impl Findings {
    /// Adds one.
    pub fn add(
        &mut self,
        (severity, code): (Severity, &'static str),
        place: impl Into<String>,
        what: impl Into<String>,
        consequence: impl Into<String>,
        cure: impl Into<String>,
    ) {
        self.0.push(Finding {
            severity,
            code,
            place: place.into(),
            what: what.into(),
            consequence: consequence.into(),
            cure: cure.into(),
        });
    }

    /// Writes them, the worst first: three lines each, or one JSON object a line. Returns the exit status: 1 if something
    /// should be done, else 0.
    ///
    /// # Errors
    ///
    /// Nothing can be written to `out`.
    pub fn write(mut self, json: bool, out: &mut impl Write) -> io::Result<u8> {
        self.0.sort_by_key(|finding| finding.severity);
        for finding in &self.0 {
            let Finding {
                severity,
                place,
                what,
                consequence,
                cure,
                ..
            } = finding;
            if json {
                let line = serde_json::to_string(finding).map_err(io::Error::other)?;
                writeln!(out, "{line}")?;
            } else {
                writeln!(
                    out,
                    "{severity}: {place}: {what}\n    so: {consequence}\n    do: {cure}"
                )?;
            }
        }
        let trouble = self.0.iter().any(|finding| finding.severity.is_trouble());
        if !json && !trouble {
            writeln!(out, "nothing wrong was found")?;
        }
        Ok(u8::from(trouble))
    }
}

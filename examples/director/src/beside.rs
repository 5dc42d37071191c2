//! The files beside the configuration: what a keepalived.conf has no words for.
//!
//! They have its name and another ending: beside `keepalived.conf` lie `keepalived.marks`, the [rules of
//! marks](crate::marks), and `keepalived.sysctl`, the [`tunables`]. Both may be missing. They are read together
//! with the configuration, and a fault in one of them is one of the whole.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use lvs_fwd::marks::MarkRule;

use crate::marks;
use crate::tunables::{self, Setting};

/// What the files beside a configuration ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Beside {
    /// Rules of marks, in their order.
    pub marks: Vec<MarkRule>,
    /// Tunables, each once.
    pub tunables: Vec<Setting>,
}

impl Beside {
    /// Reads the files beside this configuration.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with them.
    pub fn read(configuration: &Path) -> Result<Self, Vec<FileFault>> {
        let (mut beside, mut faults) = (Self::default(), Vec::new());
        let file = path(configuration, MARKS);
        match text(&file).and_then(|text| located(&file, marks::parse(&text))) {
            Ok(rules) => beside.marks = rules,
            Err(wrong) => faults.extend(wrong),
        }
        let file = path(configuration, TUNABLES);
        match text(&file).and_then(|text| located(&file, tunables::parse(&text))) {
            Ok(settings) => beside.tunables = settings,
            Err(wrong) => faults.extend(wrong),
        }
        if faults.is_empty() {
            Ok(beside)
        } else {
            Err(faults)
        }
    }
}

/// Something wrong in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl Fault {
    /// A fault at a part of a line.
    pub(crate) fn at(line: &str, part: &str, message: String, hint: Option<String>) -> Self {
        // The part is a slice of the line, or empty at its end.
        let offset = (part.as_ptr() as usize).saturating_sub(line.as_ptr() as usize);
        let before = line.get(..offset).unwrap_or(line);
        Self {
            line: 1,
            column: before.chars().count() + 1,
            message,
            hint,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// A fault, and the file that it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFault {
    file: PathBuf,
    fault: Fault,
}

impl FileFault {
    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What is wrong there; line 0 if the file can't be read.
    pub fn fault(&self) -> &Fault {
        &self.fault
    }
}

impl fmt::Display for FileFault {
    /// `file:line:column: message; hint`; a file that can't be read has no line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.fault.line > 0 {
            write!(f, "{}:{}:", self.fault.line, self.fault.column)?;
        }
        write!(f, " {}", self.fault)
    }
}

impl std::error::Error for FileFault {}

fn path(configuration: &Path, ending: &str) -> PathBuf {
    configuration.with_extension(ending)
}

fn text(file: &Path) -> Result<String, Vec<FileFault>> {
    let outcome = match std::fs::read(file) {
        Ok(bytes) => String::from_utf8(bytes).map_err(|_| "it is no text".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error.to_string()),
    };
    outcome.map_err(|why| {
        let fault = Fault {
            line: 0,
            column: 0,
            message: format!("can't be read: {why}"),
            hint: None,
        };
        vec![FileFault {
            file: file.to_owned(),
            fault,
        }]
    })
}

fn located<T>(file: &Path, outcome: Result<T, Vec<Fault>>) -> Result<T, Vec<FileFault>> {
    outcome.map_err(|faults| {
        let with_file = |fault| FileFault {
            file: file.to_owned(),
            fault,
        };
        faults.into_iter().map(with_file).collect()
    })
}

const MARKS: &str = "marks";
const TUNABLES: &str = "sysctl";

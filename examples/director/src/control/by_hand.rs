//! Marks and tunables of a running director: what `director mark`, `director set` and `director show` ask for.

use serde::{Deserialize, Serialize};

/// The name of the operation about marks. Its arguments are a [`MarksQuestion`], its answer is a [`MarksInfo`]: the rules as
/// they are afterwards.
pub const MARKS: &str = "marks";

/// The name of the operation about tunables. Its arguments are a [`TunablesQuestion`], its answer is a [`TunablesInfo`].
pub const TUNABLES: &str = "tunables";

/// What is to be done with the rules of marks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MarksQuestion {
    /// Delete all rules, before anything is added.
    #[serde(default)]
    pub flush: bool,
    /// Delete the first rule that is this one.
    #[serde(default)]
    pub delete: Option<String>,
    /// Add this rule.
    #[serde(default)]
    pub add: Option<String>,
    /// Before all others rather than behind them.
    #[serde(default)]
    pub first: bool,
}

/// The rules of marks in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MarksInfo {
    /// The rules.
    pub rules: Vec<MarkInfo>,
}

/// A rule of marks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkInfo {
    /// The rule as it is written.
    pub rule: String,
    /// Whether it comes from the file.
    pub from_file: bool,
    /// Whether a virtual service has its mark.
    pub served: bool,
}

/// What is to be set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TunablesQuestion {
    /// `NAME=VALUE`, all or nothing.
    #[serde(default)]
    pub set: Vec<String>,
}

/// All tunables, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TunablesInfo {
    /// The tunables.
    pub tunables: Vec<TunableInfo>,
}

/// A tunable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunableInfo {
    /// The kernel's name.
    pub name: String,
    /// The value.
    pub value: String,
    /// What it is without anybody's wish.
    pub default: String,
    /// What it does.
    pub meaning: String,
}

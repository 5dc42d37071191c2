//! The configuration in force, for the director's own commands: a question that `ipvsadm` does not ask.

use lvs_conf::Config;
use serde::{Deserialize, Serialize};

/// The name of the operation; answered by [`RunningConfig`].
pub const OPERATION: &str = "configuration";

/// The configuration of a running director.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningConfig {
    /// Its model, printed: parameters and includes are resolved.
    pub text: String,
    /// The faults of the file that it came from: code and message of each.
    pub errors: Vec<(String, String)>,
}

impl RunningConfig {
    /// Of this model and these faults.
    pub fn new(config: &Config, errors: Vec<(String, String)>) -> Self {
        Self {
            text: lvs_conf::print(config),
            errors,
        }
    }
}

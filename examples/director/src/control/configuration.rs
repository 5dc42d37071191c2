//! The configuration in force, for the director's own commands: a question that `ipvsadm` does not ask.

use ipvsadm::protocol::{Client, ClientError, Operation, Request, SocketAddress};
use lvs_conf::Config;
use serde::{Deserialize, Serialize};
use serde_json::Map;

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

/// Asks the director that listens there.
///
/// # Errors
///
/// Nobody listens, the conversation broke off, or the director is of another version.
pub fn ask(address: &SocketAddress) -> Result<RunningConfig, ClientError> {
    let operation = Operation::Other {
        op: OPERATION.into(),
        arguments: Map::new(),
    };
    Client::connect(address)?
        .request(&Request::new(operation))?
        .into_result()
}

//! Questions of the director's own commands, which `ipvsadm` does not ask.

use ipvsadm::protocol::{Client, ClientError, Operation, Request, SocketAddress};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Asks the director that listens there. The question is what stands beside the operation's name, `()` if there is nothing.
///
/// # Errors
///
/// Nobody listens, the conversation broke off, the director is of another version, or it refused.
pub fn ask<Q: Serialize, A: DeserializeOwned>(
    address: &SocketAddress,
    operation: &str,
    question: &Q,
) -> Result<A, ClientError> {
    let arguments = match serde_json::to_value(question) {
        Ok(Value::Object(arguments)) => arguments,
        _ => Map::new(),
    };
    let operation = Operation::Other {
        op: operation.into(),
        arguments,
    };
    Client::connect(address)?
        .request(&Request::new(operation))?
        .into_result()
}

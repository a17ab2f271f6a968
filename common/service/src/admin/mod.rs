//! The admin endpoint: a Unix socket in the state directory, one JSON object a line each way.
//!
//! ```text
//! > {"id": 1, "method": "status", "params": {}}
//! < {"id": 1, "result": {...}}          or  {"id": 1, "error": {"code": "...", "message": "..."}}
//! ```
//!
//! Requests of one connection are answered in order. Who may use it is decided by the file
//! permissions: the owner of the engine.

mod client;
mod server;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use client::AdminClient;
pub use server::{AdminHandler, AdminServer, blocking};

/// The name of the socket in the state directory.
pub const SOCKET: &str = "admin.sock";
/// The longest request line.
const REQUEST_MAX: usize = 1 << 20;
/// The longest answer line.
const ANSWER_MAX: usize = 64 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    id: u64,
    method: String,
    #[serde(default)]
    params: Value,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    id: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<AdminFault>,
}

/// Why a request was not done, as the engine says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct AdminFault {
    /// Whose fault it is.
    pub code: FaultCode,
    /// What happened and what helps.
    pub message: String,
}

impl AdminFault {
    /// A fault with its message.
    pub fn new(code: FaultCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Whose fault it is that a request was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultCode {
    /// The engine knows no such method, or the request is no request.
    BadRequest,
    /// What the request names is not there.
    NotFound,
    /// The state of things forbids it now.
    Conflict,
    /// The peer or a device can not be reached; a retry later may help.
    Unavailable,
    /// It was tried and failed.
    Failed,
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No engine listens; the operator starts it.
    #[error("no engine answers at {path:?} (is it running?): {source}")]
    NotRunning {
        /// The socket.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The connection failed in the middle; whether the request was done is not known.
    #[error("the engine did not answer: {0}")]
    Io(#[from] std::io::Error),
    /// The answer is none; the programs are of different versions.
    #[error("the engine answers something else: {0}")]
    Protocol(String),
    /// The engine refused or failed.
    #[error(transparent)]
    Fault(#[from] AdminFault),
}

#[cfg(test)]
mod tests;

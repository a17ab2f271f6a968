//! The command line's side: blocking.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{ANSWER_MAX, AdminError, Answer, Request};

/// A connection to the admin socket of an engine.
#[derive(Debug)]
pub struct AdminClient {
    stream: BufReader<UnixStream>,
    last: u64,
}

impl AdminClient {
    /// Connects to the socket ([`crate::config::Site::admin_socket`]); an answer may take
    /// `timeout`.
    ///
    /// # Errors
    /// [`AdminError::NotRunning`].
    pub fn connect(path: &Path, timeout: Duration) -> Result<Self, AdminError> {
        let connect = || {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            Ok(Self { stream: BufReader::new(stream), last: 0 })
        };
        connect().map_err(|source| AdminError::NotRunning { path: path.to_owned(), source })
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// [`AdminError`]; after anything but [`AdminError::Fault`] the connection is useless.
    pub fn call<T: DeserializeOwned>(
        &mut self,
        method: &str,
        params: impl Serialize,
    ) -> Result<T, AdminError> {
        let protocol = |error: serde_json::Error| AdminError::Protocol(error.to_string());
        self.last += 1;
        let params = serde_json::to_value(params).map_err(protocol)?;
        let request = Request { id: self.last, method: method.to_owned(), params };
        let mut line = serde_json::to_vec(&request).map_err(protocol)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        line.clear();
        (&mut self.stream).take(ANSWER_MAX as u64).read_until(b'\n', &mut line)?;
        if !line.ends_with(b"\n") {
            let end = std::io::ErrorKind::UnexpectedEof;
            return Err(AdminError::Io(end.into()));
        }
        let answer: Answer = serde_json::from_slice(&line).map_err(protocol)?;
        match answer {
            Answer { error: Some(fault), .. } => Err(fault.into()),
            Answer { id, .. } if id != self.last => {
                Err(AdminError::Protocol(format!("the answer to {id}, not to {}", self.last)))
            }
            Answer { result, .. } => {
                serde_json::from_value(result.unwrap_or(Value::Null)).map_err(protocol)
            }
        }
    }
}

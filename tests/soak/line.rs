//! A session that knows which errors are a server's right and which are its fault.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use dma::{Client, DmaError};
use tests::Operator;
use tests::wait::PATIENCE;

use crate::traffic::Traffic;

/// How long any one answer may take while 64 sessions work.
const HANG: std::time::Duration = PATIENCE.saturating_mul(3);

/// A control connection.
pub(crate) struct Line {
    client: Client,
    traffic: Arc<Traffic>,
    /// Something was sent that ends the session.
    over: bool,
}

impl Deref for Line {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Line {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Line {
    /// Dials and logs in.
    pub(crate) fn dial(operator: &Operator, traffic: &Arc<Traffic>) -> Self {
        let mut client = operator.dial();
        client.set_timeout(HANG);
        traffic.sessions.up();
        Self { client, traffic: Arc::clone(traffic), over: false }
    }

    /// From here on the server may close.
    pub(crate) fn may_end(&mut self) {
        self.over = true;
    }

    /// Does a step. An error that the server may answer is none here, and gives nothing.
    pub(crate) fn on<T>(
        &mut self,
        what: &str,
        step: impl FnOnce(&mut Client) -> Result<T, DmaError>,
    ) -> Option<T> {
        let outcome = step(&mut self.client);
        self.settle(what, outcome)
    }

    /// Judges the outcome of a step.
    pub(crate) fn settle<T>(&mut self, what: &str, outcome: Result<T, DmaError>) -> Option<T> {
        self.traffic.steps.up();
        let error = match outcome {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let gone = matches!(error, DmaError::Closed(_) | DmaError::Io(_));
        let fault = match &error {
            DmaError::Refused { .. }
            | DmaError::NotOpened { .. }
            | DmaError::Scsi { .. }
            | DmaError::NotInVersion(..)
            | DmaError::Halted { .. }
            | DmaError::Paused { .. }
            | DmaError::EndOfMedium { .. }
            | DmaError::Invalid(_) => false,
            _ => !(gone && self.over),
        };
        match fault {
            true => self.traffic.wrong(format!("{what} in {}: {error}", self.client.version())),
            false => self.traffic.refused.up(),
        }
        None
    }

    /// Says good bye, or does not.
    pub(crate) fn leave(self, politely: bool) {
        if politely {
            self.client.close();
        }
    }
}

//! The way to a device in this process.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use scsi::Sense;

use super::transport::{Data, ScsiCompletion, ScsiTransport, TransportError};
use crate::target::{Answer, Medium, TargetDrive, Transfer};
use crate::{Control, TapeError};

type Unit = dyn FnMut(&[u8], Transfer<'_>, &Control) -> Result<Answer, TapeError> + Send;

/// A transport that hands CDBs to a target in this process; no byte of a record is copied on the
/// way.
pub struct LocalTransport(Box<Unit>);

impl LocalTransport {
    /// The way to whatever executes CDBs.
    pub fn new<F>(unit: F) -> Self
    where
        F: FnMut(&[u8], Transfer<'_>, &Control) -> Result<Answer, TapeError> + Send + 'static,
    {
        Self(Box::new(unit))
    }

    /// The way to a drive, as the initiator `nexus`.
    pub fn drive<M: Medium + 'static>(drive: Arc<Mutex<TargetDrive<M>>>, nexus: u64) -> Self {
        Self::new(move |cdb, transfer, control| {
            let mut drive = drive.lock().unwrap_or_else(PoisonError::into_inner);
            drive.execute_cdb(nexus, cdb, transfer, control)
        })
    }
}

impl fmt::Debug for LocalTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalTransport")
    }
}

/// Fixed format, which every host reads, unless INFORMATION does not fit it.
fn encoded(sense: &Sense) -> Vec<u8> {
    match sense.information.map(i32::try_from) {
        Some(Err(_)) => sense.to_descriptor(),
        _ => sense.to_fixed().to_vec(),
    }
}

impl ScsiTransport for LocalTransport {
    fn execute(
        &mut self,
        cdb: &[u8],
        data: Data<'_>,
        timeout: Duration,
    ) -> Result<ScsiCompletion, TransportError> {
        let transfer = match data {
            Data::None => Transfer::None,
            Data::In(buffer) => Transfer::In(buffer),
            Data::Out(bytes) => Transfer::Out(bytes),
        };
        match (self.0)(cdb, transfer, &Control::within(timeout)) {
            Ok(Answer { status, sense, residual, .. }) => {
                let sense = sense.as_ref().map(encoded).unwrap_or_default();
                Ok(ScsiCompletion { status, sense, residual })
            }
            Err(TapeError::TimedOut) => Err(TransportError::TimedOut),
            Err(TapeError::Unreachable(text)) => Err(TransportError::NotSent(text)),
            Err(error) => Err(TransportError::Broken(error.to_string())),
        }
    }
}

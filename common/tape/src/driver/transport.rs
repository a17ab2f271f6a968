//! The seam between operations and devices.

use std::time::Duration;

/// The data phase of a command.
#[derive(Debug)]
pub enum Data<'a> {
    /// None.
    None,
    /// From the device, at most the length of the buffer.
    In(&'a mut [u8]),
    /// To the device.
    Out(&'a [u8]),
}

impl Data<'_> {
    /// The same data for one command more.
    pub fn again(&mut self) -> Data<'_> {
        match self {
            Self::None => Data::None,
            Self::In(buffer) => Data::In(buffer),
            Self::Out(bytes) => Data::Out(bytes),
        }
    }
}

/// How a command ended. Data, sense and residual may all be there: for tape a CHECK CONDITION with
/// data is the normal case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScsiCompletion {
    /// SAM status byte.
    pub status: u8,
    /// Sense data as the device sent it, empty with GOOD.
    pub sense: Vec<u8>,
    /// Bytes of the data phase offered less bytes moved; negative when the device had more.
    pub residual: i64,
}

/// A command without an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The device did not answer in time. Whether the command was executed is unknown.
    #[error("no answer in time")]
    TimedOut,
    /// The way broke. Whether the command was executed is unknown.
    #[error("the way to the device broke: {0}")]
    Broken(String),
    /// There is no way to the device now and nothing was sent. A retry helps once it is back.
    #[error("there is no way to the device: {0}")]
    NotSent(String),
}

/// A way to one logical unit. Reconnecting is its business, sending a command again is not.
pub trait ScsiTransport: Send {
    /// Sends one CDB of 6 to 16 bytes and waits for its end, at most `timeout`.
    fn execute(
        &mut self,
        cdb: &[u8],
        data: Data<'_>,
        timeout: Duration,
    ) -> Result<ScsiCompletion, TransportError>;

    /// The longest transfer of one command, in bytes.
    fn longest(&self) -> usize {
        usize::MAX
    }

    /// LOGICAL UNIT RESET (SAM-5 7.7).
    ///
    /// # Errors
    /// It was not done; not every transport can.
    fn reset(&mut self) -> Result<(), TransportError> {
        Err(TransportError::NotSent("this transport can not reset a device".to_owned()))
    }
}

impl<T: ScsiTransport + ?Sized> ScsiTransport for Box<T> {
    fn execute(
        &mut self,
        cdb: &[u8],
        data: Data<'_>,
        timeout: Duration,
    ) -> Result<ScsiCompletion, TransportError> {
        (**self).execute(cdb, data, timeout)
    }

    fn longest(&self) -> usize {
        (**self).longest()
    }

    fn reset(&mut self) -> Result<(), TransportError> {
        (**self).reset()
    }
}

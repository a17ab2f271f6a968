//! What can go wrong at a device. Filemarks, early warning and end of medium are not here: they
//! are values of the calls that meet them.

use scsi::Sense;

use crate::keys::KeyError;

/// A device call that did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TapeError {
    /// The device answered CHECK CONDITION; its fault, the medium's or ours by the sense key.
    #[error("the device reports {0}")]
    Check(Sense),
    /// BUSY or TASK SET FULL: a retry helps.
    #[error("the device is busy")]
    Busy,
    /// RESERVATION CONFLICT: another host owns the device; the operator releases it there.
    #[error("the device is reserved by another host")]
    ReservationConflict,
    /// The deadline passed before an answer came. What the command did is unknown.
    #[error("the device did not answer in time")]
    TimedOut,
    /// Cancelled by its token, at a record boundary.
    #[error("cancelled")]
    Cancelled,
    /// The way to the device broke under a command: whether it was done is not known, and the
    /// position could not be proven.
    #[error("the position of the tape is unknown: {0}")]
    PositionUnknown(String),
    /// The device can not be reached now; nothing was sent. A retry helps once it is back.
    #[error("the device can not be reached: {0}")]
    Unreachable(String),
    /// Another owner took the device over (a lease ended, the device was removed).
    #[error("the device is no longer ours: {0}")]
    Lost(String),
    /// The data on the tape needs a key that is not here, or can not be used. The operator brings
    /// it; a retry does not help.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl From<Sense> for TapeError {
    fn from(sense: Sense) -> Self {
        Self::Check(sense)
    }
}

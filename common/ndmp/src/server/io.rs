//! What goes in and out of a [`Session`](super::Session): plain values, no protocol in them.

use bytes::Bytes;

use crate::mover::MoverCommand;
use crate::tape::{DriveStep, Failure, StepResult};
use crate::wire::TapeOpenMode;

/// Something that the engine does for a session, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this over the control connection: one record, already marked.
    Send(Bytes),
    /// Close the control connection once everything before is sent. Outputs may follow, until
    /// [`Output::Finished`].
    Close,
    /// Do this with a device; exactly one [`DeviceReply`] goes to
    /// [`on_device`](super::Session::on_device).
    Device(DeviceRequest),
    /// Do this with the data connection; see [`MoverCommand`] for what comes back.
    Mover(MoverCommand),
    /// For the log of the engine.
    Log {
        /// How much it matters.
        level: LogLevel,
        /// One line. Never holds a secret.
        text: String,
    },
    /// The session holds no device and no data connection any more: drop it. The last output.
    Finished,
}

/// How much a line of [`Output::Log`] matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Somebody should look.
    Warn,
    /// What an operator wants to know.
    Info,
    /// Every request and its answer.
    Debug,
}

/// Something asked of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceRequest {
    /// Take the drive of this name for this session alone. Answered by `Done` or `Failed`
    /// (`NoDevice`, `Busy`, `Unreachable`...). Whether a medium is loaded and may be written does
    /// not matter here: the session asks that by a [`DriveStep::State`].
    OpenTape {
        /// As the client wrote it.
        name: String,
        /// What it will be used for.
        mode: TapeOpenMode,
    },
    /// Flush and give the drive back. Whatever the answer, it is no longer this session's.
    CloseTape,
    /// A step of the drive that is open. Answered by `Step`, whatever came of it.
    Drive(DriveStep),
    /// Take the changer or the drive of this name for CDBs. Answered like `OpenTape`.
    OpenScsi {
        /// As the client wrote it.
        name: String,
    },
    /// Give the SCSI device back.
    CloseScsi,
    /// Reset the SCSI device (LOGICAL UNIT RESET). Answered by `Done` or `Failed`.
    ResetScsi,
    /// Pass a CDB to the SCSI device. Answered by `Cdb` or `Failed`.
    ExecuteCdb(Cdb),
    /// Which drives are there. Answered by `Devices`.
    ListTapes,
    /// Which changers are there (and drives that take CDBs). Answered by `Devices`.
    ListScsi,
}

/// A CDB with its data (`NDMP_SCSI_EXECUTE_CDB`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cdb {
    /// The command, 1 to 64 bytes as the client sent them.
    pub cdb: Bytes,
    /// What goes to the device.
    pub data_out: Bytes,
    /// At most how many bytes are taken from it.
    pub data_in_max: u32,
    /// The client's time limit, `None` if it set none.
    pub timeout_ms: Option<u32>,
}

/// What a device answered to a [`Cdb`]. CHECK CONDITION is an answer, not a failure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CdbOutcome {
    /// SAM status byte.
    pub status: u8,
    /// How many bytes of `data_out` the device took.
    pub data_out_moved: u32,
    /// What came from the device.
    pub data_in: Bytes,
    /// Sense data in fixed format (70h), empty with GOOD.
    pub sense: Bytes,
}

/// A line of `NDMP_CONFIG_GET_TAPE_INFO` or `_SCSI_INFO`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceEntry {
    /// Vendor and product.
    pub model: String,
    /// The name to open it by.
    pub device: String,
    /// Pairs of name and value for people and for clients that look: `serial`, `library`,
    /// `address`...
    pub properties: Vec<(String, String)>,
}

/// The answer to a [`DeviceRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceReply {
    /// Done; there is nothing to tell.
    Done,
    /// Not done.
    Failed(Failure),
    /// Of [`DeviceRequest::Drive`].
    Step(StepResult),
    /// Of [`DeviceRequest::ExecuteCdb`].
    Cdb(CdbOutcome),
    /// Of the lists.
    Devices(Vec<DeviceEntry>),
}

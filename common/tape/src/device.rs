//! The two device traits and the values they speak in.

use std::time::Duration;

use bytes::Bytes;
use model::{Barcode, ElementAddress, ElementMap, ElementType, ObjectNumber};
use serde::{Deserialize, Serialize};

use crate::{Control, TapeError};

/// Who a device is, as INQUIRY and its VPD pages 80h and 83h say it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceIdentity {
    /// Vendor, up to 8 characters.
    pub vendor: String,
    /// Product, up to 16 characters.
    pub product: String,
    /// Revision, up to 4 characters.
    pub revision: String,
    /// Unit serial number; also the last part of the T10 identifier that READ ELEMENT STATUS
    /// reports for a drive.
    pub serial: String,
}

/// A CDB to be passed through as it is (NDMP SCSI_EXECUTE_CDB).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CdbRequest {
    /// 6 to 16 bytes.
    pub cdb: Vec<u8>,
    /// What goes to the device.
    pub data_out: Bytes,
    /// At most how many bytes are taken from the device.
    pub data_in_max: u32,
    /// The caller's time limit.
    pub timeout: Duration,
}

/// How a CDB ended: status, raw sense, signed residual and the data, all of them, since for tape
/// a CHECK CONDITION with data is the normal case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// SAM status byte: 00h GOOD, 02h CHECK CONDITION, 08h BUSY, 18h RESERVATION CONFLICT.
    pub status: u8,
    /// Sense data as the device sent it, empty with GOOD.
    pub sense: Vec<u8>,
    /// Bytes asked for less bytes moved; negative when the device had more.
    pub residual: i64,
    /// What came from the device.
    pub data_in: Vec<u8>,
}

impl Completion {
    /// CHECK CONDITION with this sense data, nothing moved.
    pub fn check(sense: scsi::Sense) -> Self {
        Self { status: 0x02, sense: sense.to_fixed().to_vec(), ..Self::default() }
    }
}

/// Where a tape stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Logical object number: records and filemarks before this place.
    pub object: ObjectNumber,
    /// Logical file identifier: filemarks before this place.
    pub file: u64,
    /// At the beginning of the partition.
    pub at_bot: bool,
    /// Beyond early warning.
    pub past_early_warning: bool,
    /// Objects still in the device's buffer and not on the medium.
    pub buffered_objects: u64,
}

/// What lies in a drive, `None` in [`DriveState::medium`] for an empty one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediumState {
    /// The volume tag, where the drive can tell (MAM 0806h).
    pub barcode: Option<Barcode>,
    /// Writing is refused (tab, WORM, or the drive can only read this medium).
    pub write_protected: bool,
    /// Bytes that fit from BOT to early warning, `None` if unknown.
    pub capacity: Option<u64>,
    /// Bytes that still fit after the current position, `None` if unknown.
    pub remaining: Option<u64>,
}

/// A drive at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveState {
    /// What is loaded and ready.
    pub medium: Option<MediumState>,
    /// Fixed block length in bytes, 0 for variable blocks.
    pub block_length: u32,
}

/// How a READ ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadEnd {
    /// A record of `length` bytes; the first `min(length, buffer)` of them are in the buffer. The
    /// tape stands behind it.
    Record {
        /// The length of the record on tape.
        length: usize,
    },
    /// A filemark was met; the tape stands behind it (SSC).
    Filemark,
    /// Nothing was ever written here; the tape stands at end of data.
    EndOfData,
}

/// How a WRITE or WRITE FILEMARKS ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteEnd {
    /// Written (to the drive's buffer; on tape only after filemarks not immediate).
    Written,
    /// Written, and the tape is at or beyond early warning.
    EarlyWarning,
    /// VOLUME OVERFLOW: **not** written, the medium is full.
    Overflow,
}

/// What SPACE counts (SSC-4 codes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpaceKind {
    /// Records; stops at filemarks.
    Records = 0,
    /// Filemarks.
    Filemarks = 1,
    /// To end of data; the count does not matter.
    EndOfData = 3,
}

/// Why SPACE stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpaceStop {
    /// The count was reached.
    Done,
    /// A filemark in the way of records. Forwards the tape stands behind it, backwards before it.
    Filemark,
    /// The beginning of the tape.
    BeginningOfTape,
    /// The end of data.
    EndOfData,
}

/// How a SPACE ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spaced {
    /// Objects of the asked kind not spaced over (0 when done), without sign.
    pub residual: u64,
    /// Why it stopped.
    pub stop: SpaceStop,
}

/// A tape drive: virtual, ghost or physical.
///
/// Object numbers count records and filemarks from BOT. A call that fails with
/// [`TapeError::Check`] leaves the tape where SSC-4 says. Unit attentions come back as
/// `Check` with key 06h from the call that meets them.
pub trait TapeDrive: Send {
    /// Who the drive is.
    fn identity(&self) -> DeviceIdentity;
    /// What is loaded. Never fails for an empty drive.
    fn state(&mut self, control: &Control) -> Result<DriveState, TapeError>;
    /// Where the tape stands (READ POSITION).
    fn position(&mut self, control: &Control) -> Result<Position, TapeError>;
    /// To BOT; flushes first.
    fn rewind(&mut self, control: &Control) -> Result<(), TapeError>;
    /// To a logical object; flushes first. Beyond the end of data is `Check` 08/00/05.
    fn locate(&mut self, object: ObjectNumber, control: &Control) -> Result<(), TapeError>;
    /// Over records or filemarks, backwards with a negative count.
    fn space(
        &mut self,
        kind: SpaceKind,
        count: i64,
        control: &Control,
    ) -> Result<Spaced, TapeError>;
    /// Reads the record here into `buffer`; a longer one is cut off and passed.
    fn read(&mut self, buffer: &mut [u8], control: &Control) -> Result<ReadEnd, TapeError>;
    /// Writes one record here; what followed on the tape is lost.
    fn write(&mut self, record: &[u8], control: &Control) -> Result<WriteEnd, TapeError>;
    /// Writes filemarks, not immediate: everything before is on the medium when this returns.
    /// A count of 0 only flushes.
    fn write_filemarks(&mut self, count: u32, control: &Control) -> Result<WriteEnd, TapeError>;
    /// Threads a medium that is present but unloaded.
    fn load(&mut self, control: &Control) -> Result<(), TapeError>;
    /// Flushes, rewinds and unthreads; the medium stays in the drive's element.
    fn unload(&mut self, control: &Control) -> Result<(), TapeError>;
    /// Passes a CDB through. `Err` only when the device did not answer it.
    fn execute(&mut self, request: &CdbRequest, control: &Control)
    -> Result<Completion, TapeError>;
}

/// One element as READ ELEMENT STATUS reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElementStatus {
    /// Its address.
    pub address: ElementAddress,
    /// Its type.
    pub kind: ElementType,
    /// Whether a cartridge is there.
    pub full: bool,
    /// Its volume tag, `None` for an empty element or an unreadable label.
    pub barcode: Option<Barcode>,
    /// Whether the arm can reach the cartridge (a loaded drive says no).
    pub accessible: bool,
    /// Import/export: placed there by the operator.
    pub imported: bool,
    /// The storage element that the cartridge came from.
    pub source: Option<ElementAddress>,
    /// ASC and ASCQ of an element in an abnormal state.
    pub exception: Option<(u8, u8)>,
    /// A drive's identity (DVCID).
    pub drive: Option<DeviceIdentity>,
}

/// A changer's elements, in ascending order of address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// How many of each type and where.
    pub map: ElementMap,
    /// Every element.
    pub elements: Vec<ElementStatus>,
}

/// A medium changer: virtual, ghost or physical.
pub trait MediumChanger: Send {
    /// Who the changer is.
    fn identity(&self) -> DeviceIdentity;
    /// All elements (READ ELEMENT STATUS).
    fn inventory(&mut self, control: &Control) -> Result<Inventory, TapeError>;
    /// Looks at every element anew (INITIALIZE ELEMENT STATUS).
    fn initialize(&mut self, control: &Control) -> Result<(), TapeError>;
    /// MOVE MEDIUM with the default transport element.
    fn move_medium(
        &mut self,
        from: ElementAddress,
        to: ElementAddress,
        control: &Control,
    ) -> Result<(), TapeError>;
    /// Passes a CDB through. `Err` only when the device did not answer it.
    fn execute(&mut self, request: &CdbRequest, control: &Control)
    -> Result<Completion, TapeError>;
}

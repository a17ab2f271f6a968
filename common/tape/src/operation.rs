//! The common vocabulary: one value for each thing that can be asked of a device, so that it can
//! be numbered, carried over the link, recorded and answered again.

use bytes::Bytes;
use model::{ElementAddress, ObjectNumber};

use crate::{
    CdbRequest, Completion, Control, DriveState, Inventory, MediumChanger, Position, ReadEnd,
    SpaceKind, Spaced, TapeDrive, TapeError, WriteEnd,
};

/// Something asked of a drive or a changer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// [`TapeDrive::state`].
    State,
    /// [`TapeDrive::position`].
    Position,
    /// [`TapeDrive::rewind`].
    Rewind,
    /// [`TapeDrive::locate`].
    Locate(ObjectNumber),
    /// [`TapeDrive::space`].
    Space(SpaceKind, i64),
    /// [`TapeDrive::read`] of at most so many bytes.
    Read(u32),
    /// [`TapeDrive::write`] of one record.
    Write(Bytes),
    /// [`TapeDrive::write_filemarks`].
    WriteFilemarks(u32),
    /// [`TapeDrive::load`].
    Load,
    /// [`TapeDrive::unload`].
    Unload,
    /// `execute` of either kind of device.
    Cdb(CdbRequest),
    /// [`MediumChanger::inventory`].
    Inventory,
    /// [`MediumChanger::initialize`].
    Initialize,
    /// [`MediumChanger::move_medium`].
    Move {
        /// Source element.
        from: ElementAddress,
        /// Destination element.
        to: ElementAddress,
    },
}

/// What came of an [`Operation`] that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done; there is nothing to tell.
    Done,
    /// Of `State`.
    State(DriveState),
    /// Of `Position`.
    Position(Position),
    /// Of `Space`.
    Spaced(Spaced),
    /// Of `Read`: how it ended and what was read (empty but for a record).
    Read(ReadEnd, Bytes),
    /// Of `Write` and `WriteFilemarks`.
    Written(WriteEnd),
    /// Of `Cdb`.
    Completion(Completion),
    /// Of `Inventory`.
    Inventory(Inventory),
}

impl Operation {
    /// Whether doing it twice differs from doing it once (it moves or changes the tape, or moves
    /// a cartridge). A CDB counts as such: what it does is its sender's business.
    pub fn has_effect(&self) -> bool {
        !matches!(self, Self::State | Self::Position | Self::Inventory)
    }
}

/// Does an operation on a drive. An operation for a changer is answered with
/// `Check` 05/20/00 (INVALID COMMAND OPERATION CODE), as the device itself would.
pub fn perform(
    drive: &mut dyn TapeDrive,
    operation: &Operation,
    control: &Control,
) -> Result<Outcome, TapeError> {
    match operation {
        Operation::State => drive.state(control).map(Outcome::State),
        Operation::Position => drive.position(control).map(Outcome::Position),
        Operation::Rewind => drive.rewind(control).map(|()| Outcome::Done),
        Operation::Locate(object) => drive.locate(*object, control).map(|()| Outcome::Done),
        Operation::Space(kind, count) => drive.space(*kind, *count, control).map(Outcome::Spaced),
        Operation::Read(max) => {
            let mut buffer = vec![0; *max as usize];
            let end = drive.read(&mut buffer, control)?;
            let length = match end {
                ReadEnd::Record { length } => length.min(buffer.len()),
                ReadEnd::Filemark | ReadEnd::EndOfData => 0,
            };
            buffer.truncate(length);
            Ok(Outcome::Read(end, buffer.into()))
        }
        Operation::Write(record) => drive.write(record, control).map(Outcome::Written),
        Operation::WriteFilemarks(n) => drive.write_filemarks(*n, control).map(Outcome::Written),
        Operation::Load => drive.load(control).map(|()| Outcome::Done),
        Operation::Unload => drive.unload(control).map(|()| Outcome::Done),
        Operation::Cdb(request) => drive.execute(request, control).map(Outcome::Completion),
        Operation::Inventory | Operation::Initialize | Operation::Move { .. } => {
            Err(TapeError::Check(scsi::Sense::INVALID_OPERATION_CODE))
        }
    }
}

/// Does an operation on a changer; one for a drive is answered as in [`perform`].
pub fn perform_changer(
    changer: &mut dyn MediumChanger,
    operation: &Operation,
    control: &Control,
) -> Result<Outcome, TapeError> {
    match operation {
        Operation::Inventory => changer.inventory(control).map(Outcome::Inventory),
        Operation::Initialize => changer.initialize(control).map(|()| Outcome::Done),
        Operation::Move { from, to } => {
            changer.move_medium(*from, *to, control).map(|()| Outcome::Done)
        }
        Operation::Cdb(request) => changer.execute(request, control).map(Outcome::Completion),
        _ => Err(TapeError::Check(scsi::Sense::INVALID_OPERATION_CODE)),
    }
}

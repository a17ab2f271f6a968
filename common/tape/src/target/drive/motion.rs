//! Moving the tape: what both faces do once the command is let in.

use model::ObjectNumber;
use scsi::{Destination, Sense};

use super::TargetDrive;
use crate::target::Medium;
use crate::target::fault::{FaultOperation, answer};
use crate::{Control, SpaceKind, SpaceStop, Spaced, TapeError};

impl<M: Medium> TargetDrive<M> {
    /// Makes what is buffered durable.
    pub(super) fn flush(&mut self) -> Result<(), TapeError> {
        let Some(medium) = &mut self.medium else { return Ok(()) };
        if self.buffered.0 > 0 {
            medium.flush().map_err(|error| self.write_failed(&error))?;
            self.buffered = (0, 0);
        }
        Ok(())
    }

    pub(super) fn rewind(&mut self, control: &Control) -> Result<(), TapeError> {
        self.ready()?;
        let lost = self.faults.before(FaultOperation::Rewind, control)?;
        self.flush()?;
        self.seek(0)?;
        answer(lost, ())
    }

    /// Moves to an object, or to the end of data if there are fewer; the new position.
    fn seek(&mut self, object: ObjectNumber) -> Result<ObjectNumber, TapeError> {
        let found = self.ready()?.locate(object);
        found.map_err(|error| self.read_failed(&error).into())
    }

    pub(super) fn go_to(&mut self, to: Destination, control: &Control) -> Result<(), TapeError> {
        self.ready()?;
        let lost = self.faults.before(FaultOperation::Locate, control)?;
        self.flush()?;
        let found = match to {
            Destination::Object(object) => self.seek(object)? == object,
            Destination::File(file) => {
                self.seek(0)?;
                let count = i64::try_from(file).unwrap_or(i64::MAX);
                self.space_raw(SpaceKind::Filemarks, count)?.stop == SpaceStop::Done
            }
            Destination::EndOfData => {
                self.space_raw(SpaceKind::EndOfData, 1)?;
                true
            }
        };
        match found {
            true => answer(lost, ()),
            false => Err(Sense::END_OF_DATA.into()),
        }
    }

    pub(super) fn space_over(
        &mut self,
        kind: SpaceKind,
        count: i64,
        control: &Control,
    ) -> Result<Spaced, TapeError> {
        self.ready()?;
        let lost = self.faults.before(FaultOperation::Space, control)?;
        self.flush()?;
        let spaced = match count {
            0 if kind != SpaceKind::EndOfData => Spaced { residual: 0, stop: SpaceStop::Done },
            _ => self.space_raw(kind, count)?,
        };
        answer(lost, spaced)
    }

    fn space_raw(&mut self, kind: SpaceKind, count: i64) -> Result<Spaced, TapeError> {
        let spaced = self.ready()?.space(kind, count);
        spaced.map_err(|error| self.read_failed(&error).into())
    }

    /// LOAD by an initiator: threads what is in the element, or rewinds what is threaded.
    pub(super) fn load_for(&mut self, nexus: u64, control: &Control) -> Result<(), TapeError> {
        if self.medium.is_some() {
            return self.rewind(control);
        }
        if self.cartridge.is_none() {
            return Err(Sense::MEDIUM_NOT_PRESENT.into());
        }
        let lost = self.faults.before(FaultOperation::Load, control)?;
        self.thread().map_err(|error| {
            tracing::warn!(cartridge = ?self.cartridge, %error, "threading a cartridge failed");
            error.load_sense()
        })?;
        self.nexuses.raise(Sense::MEDIUM_MAY_HAVE_CHANGED, Some(nexus));
        answer(lost, ())
    }

    /// UNLOAD by an initiator: the cartridge stays in the element.
    pub(super) fn unload_for(&mut self, control: &Control) -> Result<(), TapeError> {
        if self.cartridge.is_none() {
            return Err(Sense::MEDIUM_NOT_PRESENT.into());
        }
        if self.nexuses.removal_prevented() {
            return Err(Sense::MEDIUM_REMOVAL_PREVENTED.into());
        }
        if self.calibrating.0 > 0 {
            return Err(Sense::DRIVE_NOT_UNLOADED.into());
        }
        let lost = self.faults.before(FaultOperation::Unload, control)?;
        self.unthread()?;
        answer(lost, ())
    }
}

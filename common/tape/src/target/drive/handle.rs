//! The [`TapeDrive`] face of a drive, for one initiator.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::ObjectNumber;
use scsi::Destination;

use super::TargetDrive;
use crate::target::nexus::Access;
use crate::target::{Medium, MediumError, complete};
use crate::{
    CdbRequest, Completion, Control, DeviceIdentity, DriveState, Position, ReadEnd, SpaceKind,
    Spaced, TapeDrive, TapeError, WriteEnd,
};

/// A shared drive as one initiator uses it. No CDB lies between a call and the medium.
///
/// Every call but [`TapeDrive::identity`] begins as a command does: a unit attention waiting for
/// the initiator comes back as `Check` 06/xx from the first call (once each), then another's
/// reservation as [`TapeError::ReservationConflict`].
pub struct DriveHandle<M> {
    drive: Arc<Mutex<TargetDrive<M>>>,
    nexus: u64,
}

impl<M> Clone for DriveHandle<M> {
    fn clone(&self) -> Self {
        Self { drive: Arc::clone(&self.drive), nexus: self.nexus }
    }
}

/// Records that are written at once.
#[derive(Clone, Copy, Debug)]
pub struct WriteRun {
    /// Bytes of each.
    pub length: u32,
    /// How many at most; the one that meets early warning is the last.
    pub count: u64,
    /// Early warning does not end it.
    pub past_warning: bool,
}

impl<M: Medium> DriveHandle<M> {
    /// The drive as the initiator `nexus` uses it.
    pub fn new(drive: Arc<Mutex<TargetDrive<M>>>, nexus: u64) -> Self {
        Self { drive, nexus }
    }

    /// The drive itself, locked; short work only, since everyone else waits.
    pub fn lock(&self) -> MutexGuard<'_, TargetDrive<M>> {
        self.drive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The initiator's number.
    pub fn nexus(&self) -> u64 {
        self.nexus
    }

    /// Writes the records of a run, as that many WRITE commands would, with the bytes that `write`
    /// brings to the medium: it is told how many records. How many were written; 0 with
    /// [`WriteEnd::Overflow`].
    ///
    /// # Errors
    /// As of [`TapeDrive::write`]; nothing was written then.
    pub fn write_run(
        &self,
        run: WriteRun,
        control: &Control,
        write: impl FnOnce(&mut M, u64) -> Result<(), MediumError>,
    ) -> Result<(u64, WriteEnd), TapeError> {
        self.enter(Access::Write, control)?.write_run(run, control, write)
    }

    /// Lets a command in and gives the drive.
    fn enter(
        &self,
        access: Access,
        control: &Control,
    ) -> Result<MutexGuard<'_, TargetDrive<M>>, TapeError> {
        let mut drive = self.lock();
        drive.enter(self.nexus, access, control)?;
        Ok(drive)
    }
}

impl<M: Medium> TapeDrive for DriveHandle<M> {
    fn identity(&self) -> DeviceIdentity {
        self.lock().spec.identity.clone()
    }

    fn state(&mut self, control: &Control) -> Result<DriveState, TapeError> {
        let mut drive = self.enter(Access::Status, control)?;
        Ok(drive.glance())
    }

    fn position(&mut self, control: &Control) -> Result<Position, TapeError> {
        let mut drive = self.enter(Access::Read, control)?;
        let medium = drive.ready()?;
        let (object, file) = (medium.object(), medium.file());
        Ok(Position {
            object,
            file,
            at_bot: object == 0,
            past_early_warning: drive.past_early_warning(),
            buffered_objects: drive.buffered.0,
        })
    }

    fn rewind(&mut self, control: &Control) -> Result<(), TapeError> {
        self.enter(Access::Read, control)?.rewind(control)
    }

    fn locate(&mut self, object: ObjectNumber, control: &Control) -> Result<(), TapeError> {
        self.enter(Access::Read, control)?.go_to(Destination::Object(object), control)
    }

    fn space(
        &mut self,
        kind: SpaceKind,
        count: i64,
        control: &Control,
    ) -> Result<Spaced, TapeError> {
        self.enter(Access::Read, control)?.space_over(kind, count, control)
    }

    fn read(&mut self, buffer: &mut [u8], control: &Control) -> Result<ReadEnd, TapeError> {
        self.enter(Access::Read, control)?.read_record(buffer, control)
    }

    fn write(&mut self, record: &[u8], control: &Control) -> Result<WriteEnd, TapeError> {
        self.enter(Access::Write, control)?.write_record(record, control)
    }

    fn write_filemarks(&mut self, count: u32, control: &Control) -> Result<WriteEnd, TapeError> {
        self.enter(Access::Write, control)?.write_marks(count, false, control)
    }

    fn load(&mut self, control: &Control) -> Result<(), TapeError> {
        self.enter(Access::Write, control)?.load_for(self.nexus, control)
    }

    fn unload(&mut self, control: &Control) -> Result<(), TapeError> {
        self.enter(Access::Write, control)?.unload_for(control)
    }

    fn execute(
        &mut self,
        request: &CdbRequest,
        control: &Control,
    ) -> Result<Completion, TapeError> {
        complete(request, |transfer| {
            self.lock().execute_cdb(self.nexus, &request.cdb, transfer, control)
        })
    }
}

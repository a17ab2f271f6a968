//! A tape in a backend drive as the medium of a frontend drive.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use copy::Holder;
use model::{Barcode, ObjectNumber};
use scsi::{Cdb, Sense};
use service::messages;
use tape::target::{Medium, MediumError, Told};
use tape::{CdbRequest, Control, ReadEnd, SpaceKind, Spaced, TapeError, WriteEnd};

use super::access::{Access, Place, Reached};
use crate::engine::now_ms;
use crate::mounting::past_attentions;
use crate::mover::EngineDrive;

/// How long one command at the backend may take.
const COMMAND: Duration = Duration::from_secs(900);
/// How long a motion over a whole tape may take.
const MOTION: Duration = Duration::from_secs(4 * 3600);

/// 02/04/00: not ready, and nothing is said about the medium.
const UNREACHABLE: Sense = Sense::new(0x02, 0x04, 0x00);

/// One mount of a tape that lies in a backend drive. The drive may be exchanged under it: a copy is
/// left for the primary with the first write.
pub struct Switched {
    access: Arc<Access>,
    place: Place,
    barcode: Barcode,
    /// Gone once it was closed.
    at: Option<Reached>,
    object: ObjectNumber,
    file: u64,
    warned: bool,
    told: Told,
    protected: bool,
    /// Written and not flushed.
    dirty: bool,
    /// That it is written here was noted since it last moved or was flushed.
    noted: bool,
    /// The longest record that a reader expects.
    reading: Option<u32>,
}

/// What the frontend drive answers when the backend drive fails.
fn passed_on(error: TapeError) -> MediumError {
    match error {
        TapeError::Check(sense) => MediumError::Device(sense),
        TapeError::Busy | TapeError::ReservationConflict => MediumError::InUse(error.to_string()),
        TapeError::Key(_) => MediumError::Device(Sense::UNABLE_TO_DECRYPT),
        _ => MediumError::Device(UNREACHABLE),
    }
}

/// Whether an error says that this copy can not be relied on, and another may.
fn is_of_the_copy(error: &TapeError) -> bool {
    match error {
        TapeError::Check(sense) => matches!(sense.key, 0x02 | 0x03 | 0x04 | 0x0b),
        TapeError::TimedOut
        | TapeError::PositionUnknown(_)
        | TapeError::Unreachable(_)
        | TapeError::Lost(_)
        | TapeError::Key(_) => true,
        TapeError::Busy | TapeError::ReservationConflict | TapeError::Cancelled => false,
    }
}

impl Switched {
    /// Mounts a tape, or a copy of it, at a backend. Blocks as long as that takes.
    pub fn open(access: &Arc<Access>, place: Place, barcode: Barcode) -> Result<Self, MediumError> {
        let reached = access.reach(&place)?;
        let mut medium = Self {
            access: Arc::clone(access),
            place,
            barcode,
            at: Some(reached),
            object: 0,
            file: 0,
            warned: false,
            told: Told::default(),
            protected: false,
            dirty: false,
            noted: false,
            reading: None,
        };
        let opened = medium.go_to_bot();
        match opened {
            Ok(()) => Ok(medium),
            Err(error) => {
                medium.give_up();
                Err(error)
            }
        }
    }

    /// A new mount stands at BOT, wherever the drive was left.
    fn go_to_bot(&mut self) -> Result<(), MediumError> {
        self.motion(|drive, control| drive.rewind(control))?;
        let control = self.control(COMMAND);
        let state = self.drive()?.state(&control).map_err(passed_on)?;
        self.take_state(&state);
        Ok(())
    }

    fn take_state(&mut self, state: &tape::DriveState) {
        let Some(medium) = &state.medium else { return };
        self.told = Told { capacity: medium.capacity, remaining: medium.remaining };
        // A copy's tab says nothing about the primary.
        let primary = self.at.as_ref().is_some_and(|at| at.primary);
        self.protected = primary && medium.write_protected;
    }

    fn control(&self, limit: Duration) -> Control {
        Control::new(limit, self.access.stopping.clone())
    }

    /// The backend drive.
    pub(super) fn drive(&mut self) -> Result<&mut dyn EngineDrive, MediumError> {
        match &mut self.at {
            Some(at) => Ok(at.mounted.drive.as_mut()),
            None => Err(MediumError::Device(Sense::MEDIUM_NOT_PRESENT)),
        }
    }

    /// Who holds the data, for the planner. Of a copy nothing is said: it is left with the first
    /// write.
    pub(super) fn holder(&self) -> Holder {
        match &self.at {
            Some(at) if at.primary => at.mounted.drive.holder(),
            _ => Holder::LocalDrive,
        }
    }

    /// Whether it is the primary that is mounted.
    pub(super) fn is_primary(&self) -> bool {
        self.at.as_ref().is_some_and(|at| at.primary)
    }

    /// Whether a command would reach the backend drive now.
    pub(crate) fn is_reachable(&self) -> bool {
        self.at.as_ref().is_none_or(|at| at.mounted.drive.is_reachable())
    }

    /// Notes what a failed command says about the copy, and where the tape stands now.
    fn failed(&mut self, error: TapeError, reading: bool) -> MediumError {
        if reading
            && is_of_the_copy(&error)
            && let Some(at) = &self.at
        {
            self.access.avoid(&at.medium);
            let words: [(&str, &dyn Display); 3] =
                [("tape", &self.place.name), ("medium", &at.medium), ("cause", &error)];
            self.access.tell(messages::FRONTEND_READ_FAILED, &words, &self.place.name);
        }
        // What was met on the way moved the tape; a drive that is gone tells nothing.
        if matches!(error, TapeError::Check(_)) {
            drop(self.look());
        }
        passed_on(error)
    }

    /// Asks where the tape stands.
    pub(super) fn look(&mut self) -> Result<(), MediumError> {
        let control = self.control(COMMAND);
        let position = self.drive()?.position(&control).map_err(passed_on)?;
        (self.object, self.file) = (position.object, position.file);
        self.warned = position.past_early_warning;
        self.noted = false;
        Ok(())
    }

    /// Moves the tape and asks where it stands then.
    fn motion<T>(
        &mut self,
        motion: impl FnOnce(&mut dyn EngineDrive, &Control) -> Result<T, TapeError>,
    ) -> Result<T, MediumError> {
        self.still_current()?;
        let control = self.control(MOTION);
        let moved = motion(self.drive()?, &control);
        let moved = moved.map_err(|error| self.failed(error, true))?;
        self.look()?;
        Ok(moved)
    }

    /// A copy that was made stale while it was mounted is not read from a new place.
    fn still_current(&self) -> Result<(), MediumError> {
        let Some(at) = self.at.as_ref().filter(|at| !at.primary) else { return Ok(()) };
        match self.access.is_current(&self.place, at)? {
            true => Ok(()),
            false => Err(MediumError::Corrupt(format!("{} is stale", at.medium))),
        }
    }

    /// Gets ready for a write at the position: on the primary, and its copies noted as stale from
    /// here on, durably.
    pub(super) fn prepare_write(&mut self) -> Result<(), MediumError> {
        if !self.is_primary() {
            self.switch()?;
        }
        if self.noted {
            return Ok(());
        }
        let catalogue = &self.access.catalogue;
        let failed = |error: svs::SvsError| MediumError::Io(error.to_string());
        let facts = catalogue.medium_facts(&self.place.medium).map_err(failed)?;
        if facts.moved_to.is_some() && facts.freed.is_none() {
            // Which of the two is the tape is being decided.
            return Err(MediumError::Device(Sense::OPERATION_IN_PROGRESS));
        }
        // Under its own name: of a tape that was migrated, the drive knows only the other one.
        catalogue.touch(&self.place.medium, self.object, None, now_ms()).map_err(failed)?;
        self.noted = true;
        Ok(())
    }

    /// Leaves a copy for the primary, at the same object.
    fn switch(&mut self) -> Result<(), MediumError> {
        let object = self.object;
        let reached = self.access.reach_primary(&self.place).and_then(|mut reached| {
            let control = self.control(MOTION);
            let drive = &mut reached.mounted.drive;
            match past_attentions(|| drive.locate(object, &control)) {
                Ok(()) => Ok(reached),
                Err(error) => {
                    let cause = format!("{} at object {object}: {error}", reached.medium);
                    self.access.release(&self.place, reached);
                    Err(cause)
                }
            }
        });
        let reached = match reached {
            Ok(reached) => reached,
            Err(cause) => {
                self.access.note_device(&self.place, self.at.as_ref());
                let words: [(&str, &dyn Display); 2] =
                    [("tape", &self.place.name), ("cause", &cause)];
                self.access.tell(messages::FRONTEND_NO_PRIMARY, &words, &self.place.name);
                return Err(MediumError::Device(Sense::WRITE_PROTECTED));
            }
        };
        let (tape, medium) = (&self.place.name, &reached.medium);
        tracing::info!(%tape, %medium, object, "a write leaves the copy for the primary");
        if let Some(copy) = self.at.replace(reached) {
            self.access.release(&self.place, copy);
        }
        self.look()?;
        let control = self.control(COMMAND);
        let state = self.drive()?.state(&control).map_err(passed_on)?;
        self.take_state(&state);
        match self.protected {
            true => Err(MediumError::Device(Sense::WRITE_PROTECTED)),
            false => Ok(()),
        }
    }

    fn written(
        &mut self,
        end: Result<WriteEnd, TapeError>,
        objects: u64,
        files: u64,
    ) -> Result<(), MediumError> {
        match end {
            Ok(WriteEnd::Overflow) => {
                self.warned = true;
                drop(self.access.catalogue.set_full(&self.place.medium));
                Err(MediumError::Full)
            }
            Ok(end) => {
                let warned = end == WriteEnd::EarlyWarning;
                if warned && !self.warned {
                    drop(self.access.catalogue.set_full(&self.place.medium));
                }
                (self.object, self.file) = (self.object + objects, self.file + files);
                (self.warned, self.dirty) = (warned, true);
                Ok(())
            }
            Err(error) => Err(self.failed(error, false)),
        }
    }

    /// A range was written at the backend: what it wrote is flushed.
    pub(super) fn wrote_range(&mut self) -> Result<(), MediumError> {
        self.dirty = true;
        self.flush()?;
        self.look()
    }

    /// Reading ahead pays from here on.
    pub(crate) fn begin_reading(&mut self, record_max: u32) {
        self.reading = Some(record_max);
        if let Some(at) = &mut self.at {
            at.mounted.drive.begin_reading(record_max);
        }
    }

    /// What was read ahead is taken back.
    pub(crate) fn end_reading(&mut self, control: &Control) -> Result<(), TapeError> {
        if self.reading.take().is_none() {
            return Ok(());
        }
        let Some(at) = &mut self.at else { return Ok(()) };
        at.mounted.drive.end_reading(control)
    }

    /// Ends the mount without looking at what comes of it.
    fn give_up(&mut self) {
        if let Some(at) = self.at.take() {
            self.access.note_device(&self.place, None);
            self.access.release(&self.place, at);
        }
    }
}

impl Medium for Switched {
    fn barcode(&self) -> Barcode {
        self.barcode.clone()
    }

    fn capacity(&self) -> u64 {
        self.told.capacity.unwrap_or(0)
    }

    fn write_protected(&self) -> bool {
        self.protected
    }

    fn set_write_protected(&mut self, _protect: bool) -> Result<(), MediumError> {
        Err(MediumError::Device(Sense::INVALID_OPERATION_CODE))
    }

    fn object(&self) -> ObjectNumber {
        self.object
    }

    fn file(&self) -> u64 {
        self.file
    }

    fn used(&self) -> u64 {
        self.capacity().saturating_sub(self.told.remaining.unwrap_or(0))
    }

    fn recorded(&self) -> u64 {
        self.used()
    }

    fn locate(&mut self, object: ObjectNumber) -> Result<ObjectNumber, MediumError> {
        let moved = self.motion(|drive, control| match object {
            0 => drive.rewind(control),
            _ => match drive.locate(object, control) {
                Err(TapeError::Check(sense)) if sense.is(Sense::END_OF_DATA) => {
                    drive.space(SpaceKind::EndOfData, 1, control).map(drop)
                }
                other => other,
            },
        });
        moved.map(|()| self.object)
    }

    fn space(&mut self, kind: SpaceKind, count: i64) -> Result<Spaced, MediumError> {
        self.motion(|drive, control| drive.space(kind, count, control))
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<ReadEnd, MediumError> {
        let control = self.control(COMMAND);
        let end = self.drive()?.read(buffer, &control);
        let end = end.map_err(|error| self.failed(error, true))?;
        self.noted = false;
        match end {
            ReadEnd::Record { .. } => self.object += 1,
            ReadEnd::Filemark => (self.object, self.file) = (self.object + 1, self.file + 1),
            ReadEnd::EndOfData => {}
        }
        Ok(end)
    }

    fn write(&mut self, record: &[u8]) -> Result<(), MediumError> {
        self.prepare_write()?;
        let control = self.control(COMMAND);
        let end = self.drive()?.write(record, &control);
        self.written(end, 1, 0)
    }

    fn write_filemarks(&mut self, count: u32) -> Result<(), MediumError> {
        if count == 0 {
            return Ok(());
        }
        self.prepare_write()?;
        let control = self.control(COMMAND);
        let end = self.drive()?.write_filemarks(count, &control);
        self.written(end, count.into(), count.into())
    }

    fn erase(&mut self) -> Result<(), MediumError> {
        self.prepare_write()?;
        let control = self.control(MOTION);
        let request = CdbRequest {
            cdb: Cdb::Erase { long: true, immediate: false }.encode(),
            data_out: Bytes::new(),
            data_in_max: 0,
            timeout: MOTION,
        };
        let done = self.drive()?.execute(&request, &control);
        let done = done.map_err(|error| self.failed(error, false))?;
        match (done.status, Sense::parse(&done.sense)) {
            (0, _) => self.look(),
            (_, Some(sense)) => Err(self.failed(TapeError::Check(sense), false)),
            _ => Err(MediumError::InUse("the drive is busy or reserved".to_owned())),
        }
    }

    fn flush(&mut self) -> Result<(), MediumError> {
        if !self.dirty {
            return Ok(());
        }
        let control = self.control(COMMAND);
        let flushed = self.drive()?.write_filemarks(0, &control);
        flushed.map_err(|error| self.failed(error, false))?;
        (self.dirty, self.noted) = (false, false);
        Ok(())
    }

    fn warned(&self) -> Option<bool> {
        Some(self.warned)
    }

    fn told(&mut self) -> Option<Told> {
        let control = self.control(COMMAND);
        if let Ok(state) = self.drive().and_then(|drive| drive.state(&control).map_err(passed_on)) {
            self.take_state(&state);
        }
        Some(self.told)
    }

    fn attribute(&self, _id: u16) -> Option<Vec<u8>> {
        None
    }

    fn set_attribute(&mut self, _id: u16, _value: &[u8]) -> Result<(), MediumError> {
        Err(MediumError::Device(Sense::INVALID_OPERATION_CODE))
    }

    /// An error tells that something may be lost, once: the host can take the tape out then, even
    /// if the backend is gone for good.
    fn close(&mut self) -> Result<(), MediumError> {
        let flushed = self.flush();
        self.dirty = false;
        flushed?;
        self.give_up();
        Ok(())
    }
}

//! A drive of a frontend library as the engine holds it.

use std::time::Duration;

use copy::Holder;
use model::LibraryName;
use scsi::Sense;
use tape::target::{DriveHandle, Medium, MediumError};
use tape::{
    CdbRequest, Completion, Control, DeviceIdentity, DriveState, Position, ReadEnd, SpaceKind,
    Spaced, TapeDrive, TapeError, WriteEnd,
};

use super::medium::Switched;
use crate::mover::{
    EngineDrive, RangeEnd, RangeRequest, RangeTarget, RangeWritten, ReferenceSource, Segment,
};

/// How long a look at the drive may take.
const STEP: Duration = Duration::from_secs(900);

/// A drive of a frontend library, opened by one session.
pub struct FrontendDrive {
    library: LibraryName,
    handle: DriveHandle<Switched>,
}

impl FrontendDrive {
    /// The drive as a session uses it.
    pub fn new(library: LibraryName, handle: DriveHandle<Switched>) -> Self {
        Self { library, handle }
    }

    /// What is mounted, if something is.
    fn with<T>(&self, work: impl FnOnce(&mut Switched) -> T) -> Option<T> {
        self.handle.lock().medium_mut().map(work)
    }

    /// Works on the backend drive, and asks where the tape stands then.
    fn source<T>(
        &self,
        work: impl FnOnce(&mut dyn ReferenceSource) -> Result<T, TapeError>,
    ) -> Result<T, TapeError> {
        let no_medium = || TapeError::Check(Sense::MEDIUM_NOT_PRESENT);
        let worked = self.with(|medium| {
            let failed = |error: MediumError| TapeError::Check(error.read_sense());
            let drive = medium.drive().map_err(failed)?;
            let worked = work(drive.reference_source().ok_or_else(no_medium)?)?;
            medium.look().map_err(failed)?;
            Ok(worked)
        });
        worked.unwrap_or_else(|| Err(no_medium()))
    }
}

impl Drop for FrontendDrive {
    fn drop(&mut self) {
        let nexus = self.handle.nexus();
        self.handle.lock().forget_nexus(nexus);
    }
}

/// A backend whose data can be named is named through the frontend.
impl ReferenceSource for FrontendDrive {
    fn segment(&mut self, rest: u64) -> Result<Segment, TapeError> {
        // A read that a unit attention or another's reservation must stop, as any other read.
        self.handle.position(&Control::within(STEP))?;
        self.source(|source| source.segment(rest))
    }

    fn visible(&mut self, segment: &Segment, consumed: u64) -> Result<(u64, u64), TapeError> {
        self.source(|source| source.visible(segment, consumed))
    }

    fn advance(&mut self, segment: &Segment, consumed: u64) -> Result<Vec<u8>, TapeError> {
        self.source(|source| source.advance(segment, consumed))
    }
}

impl RangeTarget for FrontendDrive {
    fn write_range(
        &mut self,
        request: &RangeRequest,
        control: &Control,
        progress: &mut dyn FnMut(u64),
    ) -> RangeWritten {
        let failed =
            |error| RangeWritten { end: RangeEnd::Failed(error), bytes: 0, early_warning: false };
        if let Err(error) = self.handle.position(control) {
            return failed(error);
        }
        let written = self.with(|medium| {
            let refused = |error: MediumError| failed(TapeError::Check(error.write_sense()));
            if medium.write_protected() {
                return failed(Sense::WRITE_PROTECTED.into());
            }
            if let Err(error) = medium.prepare_write() {
                return refused(error);
            }
            let target = match medium.drive() {
                Ok(drive) => drive.range_target(),
                Err(error) => return refused(error),
            };
            let Some(target) = target else { return failed(Sense::ABORTED_COMMAND.into()) };
            let mut written = target.write_range(request, control, progress);
            // The drive above does not know that there is something to flush.
            if let Err(error) = medium.wrote_range() {
                written.end = RangeEnd::Failed(TapeError::Check(error.write_sense()));
            }
            written
        });
        written.unwrap_or_else(|| failed(Sense::MEDIUM_NOT_PRESENT.into()))
    }
}

impl EngineDrive for FrontendDrive {
    fn holder(&self) -> Holder {
        self.with(|medium| medium.holder()).unwrap_or(Holder::LocalDrive)
    }

    fn tape(&mut self) -> &mut dyn TapeDrive {
        self
    }

    fn medium_name(&mut self) -> String {
        match self.handle.lock().cartridge() {
            Some(barcode) => format!("{}/{barcode}", self.library),
            None => format!("{}/-", self.library),
        }
    }

    fn reset(&mut self, _control: &Control) -> Result<(), TapeError> {
        self.handle.lock().reset();
        Ok(())
    }

    fn is_reachable(&self) -> bool {
        self.with(|medium| medium.is_reachable()).unwrap_or(true)
    }

    fn begin_reading(&mut self, record_max: u32) {
        self.with(|medium| medium.begin_reading(record_max));
    }

    fn end_reading(&mut self, control: &Control) -> Result<(), TapeError> {
        self.with(|medium| medium.end_reading(control)).unwrap_or(Ok(()))
    }

    fn reference_source(&mut self) -> Option<&mut dyn ReferenceSource> {
        let named = self.with(|medium| {
            medium.is_primary() && medium.drive().is_ok_and(|it| it.reference_source().is_some())
        });
        named?.then_some(self as &mut dyn ReferenceSource)
    }

    fn range_target(&mut self) -> Option<&mut dyn RangeTarget> {
        let takes = self.with(|medium| {
            medium.is_primary() && medium.drive().is_ok_and(|it| it.range_target().is_some())
        });
        takes?.then_some(self as &mut dyn RangeTarget)
    }
}

/// Everything else that a tape drive does is the handle's.
impl TapeDrive for FrontendDrive {
    fn identity(&self) -> DeviceIdentity {
        self.handle.identity()
    }

    /// A tape that is here and could not be mounted anywhere is no empty drive: its error is told.
    fn state(&mut self, control: &Control) -> Result<DriveState, TapeError> {
        let state = self.handle.state(control)?;
        if state.medium.is_none() {
            let not_ready = self.handle.position(control);
            not_ready.or_else(|error| match error {
                TapeError::Check(sense) if sense.is(Sense::MEDIUM_NOT_PRESENT) => {
                    Ok(Position::default())
                }
                other => Err(other),
            })?;
        }
        Ok(state)
    }

    fn position(&mut self, control: &Control) -> Result<Position, TapeError> {
        self.handle.position(control)
    }

    fn rewind(&mut self, control: &Control) -> Result<(), TapeError> {
        self.handle.rewind(control)
    }

    fn locate(&mut self, object: u64, control: &Control) -> Result<(), TapeError> {
        self.handle.locate(object, control)
    }

    fn space(
        &mut self,
        kind: SpaceKind,
        count: i64,
        control: &Control,
    ) -> Result<Spaced, TapeError> {
        self.handle.space(kind, count, control)
    }

    fn read(&mut self, buffer: &mut [u8], control: &Control) -> Result<ReadEnd, TapeError> {
        self.handle.read(buffer, control)
    }

    fn write(&mut self, record: &[u8], control: &Control) -> Result<WriteEnd, TapeError> {
        self.handle.write(record, control)
    }

    fn write_filemarks(&mut self, count: u32, control: &Control) -> Result<WriteEnd, TapeError> {
        self.handle.write_filemarks(count, control)
    }

    fn load(&mut self, control: &Control) -> Result<(), TapeError> {
        self.handle.load(control)
    }

    fn unload(&mut self, control: &Control) -> Result<(), TapeError> {
        self.handle.unload(control)
    }

    fn execute(
        &mut self,
        request: &CdbRequest,
        control: &Control,
    ) -> Result<Completion, TapeError> {
        self.handle.execute(request, control)
    }
}

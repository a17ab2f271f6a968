//! A virtual drive as the engine holds it.

use std::time::Duration;

use copy::Holder;
use model::LibraryName;
use scsi::Sense;
use store::{Store, StoreError};
use tape::target::{DriveHandle, Medium, MediumError};
use tape::{
    CdbRequest, Completion, Control, DeviceIdentity, DriveState, Position, ReadEnd, SpaceKind,
    Spaced, TapeDrive, TapeError, WriteEnd,
};

use super::cartridge::StoreMedium;
use super::moved::VirtualMedium;
use crate::frontend::Switched;
use crate::mover::{EngineDrive, Extent, RangeTarget, ReferenceSource, Segment};

/// How long a look at the drive may take; it does not leave this process.
const STEP: Duration = Duration::from_secs(60);

/// A drive of a virtual library, opened by one session.
pub struct VirtualDrive {
    library: LibraryName,
    handle: DriveHandle<VirtualMedium>,
    store: Store,
}

impl VirtualDrive {
    /// The drive as a session uses it; its cartridges are in `store`.
    pub fn new(library: LibraryName, handle: DriveHandle<VirtualMedium>, store: Store) -> Self {
        Self { library, handle, store }
    }

    pub(super) fn handle(&self) -> &DriveHandle<VirtualMedium> {
        &self.handle
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Works on the medium that is threaded; with `of`, on no other one than that segment's.
    fn with_medium<T>(
        &mut self,
        of: Option<&Segment>,
        work: impl FnOnce(&mut StoreMedium) -> Result<T, MediumError>,
    ) -> Result<T, TapeError> {
        let mut drive = self.handle.lock();
        let medium = drive.medium_mut().ok_or(TapeError::Check(Sense::MEDIUM_NOT_PRESENT))?;
        let read_sense = |error: MediumError| TapeError::Check(error.read_sense());
        let medium = medium.own().map_err(read_sense)?;
        if of.is_some_and(|segment| segment.cartridge != medium.cartridge()) {
            return Err(TapeError::Check(Sense::MEDIUM_MAY_HAVE_CHANGED));
        }
        work(medium).map_err(|error| {
            tracing::error!(%error, "a virtual cartridge can not be read");
            TapeError::Check(error.read_sense())
        })
    }
}

impl VirtualDrive {
    /// Works on a tape elsewhere, if it is one that is threaded.
    fn moved<T>(&self, work: impl FnOnce(&mut Switched) -> T) -> Option<T> {
        match self.handle.lock().medium_mut() {
            Some(VirtualMedium::Moved(medium)) => Some(work(medium)),
            _ => None,
        }
    }
}

impl Drop for VirtualDrive {
    fn drop(&mut self) {
        let nexus = self.handle.nexus();
        self.handle.lock().forget_nexus(nexus);
    }
}

fn io(error: StoreError) -> MediumError {
    MediumError::Io(error.to_string())
}

impl ReferenceSource for VirtualDrive {
    fn segment(&mut self, rest: u64) -> Result<Segment, TapeError> {
        // A read that a unit attention or another's reservation must stop, as any other read.
        self.handle.position(&Control::within(STEP))?;
        self.with_medium(None, |medium| {
            let generation = medium.seal()?;
            let (cartridge, barcode) = (medium.cartridge(), medium.barcode());
            let image = medium.image();
            let here = image.place();
            let mark = image.filemark_after(here.object).map_err(io)?;
            let offset = here.byte.saturating_sub(rest);
            let extent = match generation {
                Some(generation) => Extent { generation, offset, length: mark.byte - offset },
                // A cartridge that was never written: any name does for no bytes.
                None => {
                    Extent { generation: model::GenerationId(model::Ulid(0)), offset, length: 0 }
                }
            };
            Ok(Segment { cartridge, barcode, extent })
        })
    }

    fn visible(&mut self, segment: &Segment, consumed: u64) -> Result<(u64, u64), TapeError> {
        self.with_medium(Some(segment), |medium| {
            let image = medium.image();
            let start = segment.extent.offset;
            let (first, _) = image.after_bytes(0, start).map_err(io)?;
            let (place, inside) = image.after_bytes(0, start + consumed).map_err(io)?;
            let end = match inside {
                0 => place,
                _ => image.place_of(place.object + 1).map_err(io)?,
            };
            let records = (end.object - end.file).saturating_sub(first.object - first.file);
            Ok((end.byte.saturating_sub(start), records))
        })
    }

    fn advance(&mut self, segment: &Segment, consumed: u64) -> Result<Vec<u8>, TapeError> {
        self.with_medium(Some(segment), |medium| {
            let image = medium.image();
            let end = segment.extent.offset + consumed;
            let (place, inside) = image.after_bytes(0, end).map_err(io)?;
            image.locate(place.object).map_err(io)?;
            if inside == 0 {
                return Ok(Vec::new());
            }
            let record = image.place_of(place.object + 1).map_err(io)?.byte - place.byte;
            let mut buffer = vec![0; record as usize];
            image.read(&mut buffer).map_err(io)?;
            Ok(buffer.split_off(inside as usize))
        })
    }
}

impl EngineDrive for VirtualDrive {
    /// A tape elsewhere is read and written record by record, whatever could name its data.
    fn holder(&self) -> Holder {
        self.moved(|_| Holder::LocalDrive).unwrap_or(Holder::Store)
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
        self.moved(|medium| medium.is_reachable()).unwrap_or(true)
    }

    fn begin_reading(&mut self, record_max: u32) {
        self.moved(|medium| medium.begin_reading(record_max));
    }

    fn end_reading(&mut self, control: &Control) -> Result<(), TapeError> {
        self.moved(|medium| medium.end_reading(control)).unwrap_or(Ok(()))
    }

    fn reference_source(&mut self) -> Option<&mut dyn ReferenceSource> {
        match self.moved(|_| ()) {
            None => Some(self),
            Some(()) => None,
        }
    }

    fn range_target(&mut self) -> Option<&mut dyn RangeTarget> {
        match self.moved(|_| ()) {
            None => Some(self),
            Some(()) => None,
        }
    }
}

/// Everything a tape drive does is the handle's.
impl TapeDrive for VirtualDrive {
    fn identity(&self) -> DeviceIdentity {
        self.handle.identity()
    }

    fn state(&mut self, control: &Control) -> Result<DriveState, TapeError> {
        self.handle.state(control)
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

//! Writes and dismounts are noted on their way, whoever makes them and whatever stands behind.
//!
//! The registry puts a [`WatchedDrive`] around every drive and a [`WatchedChanger`] around every
//! changer that it opens. Before the first write behind a motion the place is asked for, and what
//! the [`Watch`] says is waited for; the writes that follow cost a comparison.

use std::sync::Arc;

use copy::Holder;
use model::{Barcode, DeviceName, ElementAddress, ElementType, LibraryName};
use scsi::Sense;
use tape::{
    CdbRequest, Completion, Control, DeviceIdentity, DriveState, Inventory, MediumChanger,
    Position, ReadEnd, SpaceKind, Spaced, TapeDrive, TapeError, WriteEnd,
};

use super::registry::{Claimed, locked};
use super::{EngineChanger, Library};
use crate::ghost::ForeignStream;
use crate::mover::{
    Counters, EngineDrive, RangeEnd, RangeRequest, RangeTarget, RangeWritten, ReferenceSource, Run,
    Stop,
};

/// Written bytes that are not told of yet.
const TOLD_AFTER: u64 = 64 << 20;

/// Who wants to know.
pub trait Watch: Send + Sync {
    /// How many copies were ordered: what was noted before an order is noted again behind it.
    fn orders(&self) -> u64;
    /// A medium (`LIBRARY/BARCODE`) is going to be written from an object on. Returns when that is
    /// safely noted, and when the write may be made.
    ///
    /// # Errors
    /// It can not be noted, so it must not be written; for the log.
    fn will_write(&self, medium: &str, object: u64, nexus: u64) -> Result<(), String>;
    /// So much was written.
    fn written(&self, medium: &str, records: u64, bytes: u64);
    /// Early warning, or the end of the medium.
    fn full(&self, medium: &str);
    /// Tapes left their drives; returns when the changer may answer.
    fn dismounted(&self, library: &LibraryName, tapes: &[Barcode]);
}

/// What was noted of the medium in the drive.
struct Noted {
    medium: String,
    lowest: u64,
    orders: u64,
    full: bool,
}

/// A drive whose writes are noted.
pub(super) struct WatchedDrive {
    inner: Box<dyn EngineDrive>,
    watch: Arc<dyn Watch>,
    nexus: u64,
    noted: Option<Noted>,
    /// The tape has not gone back behind what was noted.
    covered: bool,
    records: u64,
    bytes: u64,
}

impl Drop for WatchedDrive {
    fn drop(&mut self) {
        self.tell();
    }
}

impl WatchedDrive {
    pub(super) fn new(inner: Box<dyn EngineDrive>, watch: Arc<dyn Watch>, nexus: u64) -> Self {
        Self { inner, watch, nexus, noted: None, covered: false, records: 0, bytes: 0 }
    }

    fn before_write(&mut self, control: &Control) -> Result<(), TapeError> {
        let orders = self.watch.orders();
        if self.covered && self.noted.as_ref().is_some_and(|noted| noted.orders == orders) {
            return Ok(());
        }
        let medium = self.inner.medium_name();
        if medium.ends_with("/-") {
            return Ok(());
        }
        // What the drive has to say first is the answer to the write.
        let object = self.inner.position(control)?.object;
        let before = self.noted.take().filter(|noted| noted.medium == medium);
        let full = before.as_ref().is_some_and(|noted| noted.full && object > 0);
        // What was noted before the last order says nothing about the time after it.
        let lowest = before.filter(|noted| noted.orders == orders).map(|noted| noted.lowest);
        if lowest.is_none_or(|lowest| lowest > object) {
            self.watch.will_write(&medium, object, self.nexus).map_err(unnoted)?;
        }
        let lowest = lowest.map_or(object, |lowest| lowest.min(object));
        self.noted = Some(Noted { medium, lowest, orders, full });
        self.covered = true;
        Ok(())
    }

    /// To be called before a write is answered. One that met an order on its way may have missed
    /// it: it is noted again.
    fn wrote(&mut self, records: u64, bytes: u64) -> Result<(), TapeError> {
        self.records += records;
        self.bytes += bytes;
        if self.bytes >= TOLD_AFTER {
            self.tell();
        }
        let orders = self.watch.orders();
        if let Some(noted) = self.noted.as_mut().filter(|noted| noted.orders != orders) {
            let noting = self.watch.will_write(&noted.medium, noted.lowest, self.nexus);
            noting.map_err(unnoted)?;
            noted.orders = orders;
        }
        Ok(())
    }

    fn warned(&mut self) {
        if let Some(noted) = &mut self.noted
            && !std::mem::replace(&mut noted.full, true)
        {
            self.watch.full(&noted.medium);
        }
    }

    fn tell(&mut self) {
        let (records, bytes) = (std::mem::take(&mut self.records), std::mem::take(&mut self.bytes));
        if let Some(noted) = self.noted.as_ref().filter(|_| records > 0) {
            self.watch.written(&noted.medium, records, bytes);
        }
    }

    fn ended(&mut self, end: WriteEnd) -> WriteEnd {
        if end != WriteEnd::Written {
            self.warned();
        }
        end
    }

    /// The medium may be another one now.
    fn forget(&mut self) {
        self.tell();
        self.noted = None;
        self.covered = false;
    }
}

fn unnoted(cause: String) -> TapeError {
    tracing::error!(cause, "a write is refused, since it can not be noted");
    Sense::INTERNAL_TARGET_FAILURE.into()
}

impl TapeDrive for WatchedDrive {
    fn identity(&self) -> DeviceIdentity {
        self.inner.identity()
    }

    fn state(&mut self, control: &Control) -> Result<DriveState, TapeError> {
        self.inner.state(control)
    }

    fn position(&mut self, control: &Control) -> Result<Position, TapeError> {
        self.inner.position(control)
    }

    fn rewind(&mut self, control: &Control) -> Result<(), TapeError> {
        self.covered = false;
        self.inner.rewind(control)
    }

    fn locate(&mut self, object: u64, control: &Control) -> Result<(), TapeError> {
        self.covered = false;
        self.inner.locate(object, control)
    }

    fn space(
        &mut self,
        kind: SpaceKind,
        count: i64,
        control: &Control,
    ) -> Result<Spaced, TapeError> {
        self.covered = false;
        self.inner.space(kind, count, control)
    }

    fn read(&mut self, buffer: &mut [u8], control: &Control) -> Result<ReadEnd, TapeError> {
        self.inner.read(buffer, control)
    }

    fn write(&mut self, record: &[u8], control: &Control) -> Result<WriteEnd, TapeError> {
        self.before_write(control)?;
        let end = self.inner.write(record, control)?;
        if end != WriteEnd::Overflow {
            self.wrote(1, record.len() as u64)?;
        }
        Ok(self.ended(end))
    }

    fn write_filemarks(&mut self, count: u32, control: &Control) -> Result<WriteEnd, TapeError> {
        if count > 0 {
            self.before_write(control)?;
        }
        let end = self.inner.write_filemarks(count, control)?;
        if count > 0 {
            self.wrote(0, 0)?;
        }
        self.tell();
        Ok(self.ended(end))
    }

    fn load(&mut self, control: &Control) -> Result<(), TapeError> {
        self.forget();
        self.inner.load(control)
    }

    fn unload(&mut self, control: &Control) -> Result<(), TapeError> {
        self.forget();
        self.inner.unload(control)
    }

    fn execute(
        &mut self,
        request: &CdbRequest,
        control: &Control,
    ) -> Result<Completion, TapeError> {
        if !scsi::writes_medium(&request.cdb) {
            self.covered = false;
            return self.inner.execute(request, control);
        }
        match self.before_write(control) {
            Ok(()) => {}
            Err(TapeError::Check(sense)) => return Ok(Completion::check(sense)),
            Err(error) => return Err(error),
        }
        // ERASE, FORMAT MEDIUM and SET CAPACITY leave the tape where it was; the place is asked
        // for again.
        self.covered = matches!(request.cdb.first(), Some(0x0a | 0x10 | 0x80 | 0x8a));
        let completion = self.inner.execute(request, control)?;
        self.wrote(u64::from(!request.data_out.is_empty()), request.data_out.len() as u64)?;
        // Fixed format sense data: the EOM bit.
        if let [0x70 | 0x71 | 0xf0 | 0xf1, _, flags, ..] = completion.sense[..]
            && flags & 0x40 != 0
        {
            self.warned();
        }
        Ok(completion)
    }
}

impl RangeTarget for WatchedDrive {
    fn write_range(
        &mut self,
        request: &RangeRequest,
        control: &Control,
        progress: &mut dyn FnMut(u64),
    ) -> RangeWritten {
        let failed =
            |error| RangeWritten { end: RangeEnd::Failed(error), bytes: 0, early_warning: false };
        if let Err(error) = self.before_write(control) {
            return failed(error);
        }
        let Some(target) = self.inner.range_target() else {
            return failed(Sense::INTERNAL_TARGET_FAILURE.into());
        };
        let written = target.write_range(request, control, progress);
        let records = written.bytes.div_ceil(u64::from(request.record_size.max(1)));
        if let Err(error) = self.wrote(records, written.bytes) {
            return RangeWritten { end: RangeEnd::Failed(error), ..written };
        }
        if written.early_warning || written.end == RangeEnd::Overflow {
            self.warned();
        }
        written
    }
}

impl EngineDrive for WatchedDrive {
    fn holder(&self) -> Holder {
        self.inner.holder()
    }

    fn tape(&mut self) -> &mut dyn TapeDrive {
        self
    }

    fn medium_name(&mut self) -> String {
        self.inner.medium_name()
    }

    fn reset(&mut self, control: &Control) -> Result<(), TapeError> {
        self.covered = false;
        self.inner.reset(control)
    }

    fn is_reachable(&self) -> bool {
        self.inner.is_reachable()
    }

    fn begin_reading(&mut self, record_max: u32) {
        self.inner.begin_reading(record_max);
    }

    fn end_reading(&mut self, control: &Control) -> Result<(), TapeError> {
        self.inner.end_reading(control)
    }

    fn reference_source(&mut self) -> Option<&mut dyn ReferenceSource> {
        // What it passes over it passes forwards.
        self.inner.reference_source()
    }

    fn write_stream(
        &mut self,
        stream: &mut ForeignStream,
        run: &Run,
        counters: &Counters,
    ) -> Option<Stop> {
        if !self.inner.takes_streams() {
            return None;
        }
        if let Err(error) = self.before_write(&run.control) {
            return Some(Stop::from_tape(&error));
        }
        let before = counters.get().0;
        let stop = self.inner.write_stream(stream, run, counters);
        let bytes = counters.get().0.saturating_sub(before);
        if let Err(error) = self.wrote(bytes.div_ceil(run.record_size.max(1) as u64), bytes) {
            return Some(Stop::from_tape(&error));
        }
        if stop == Some(Stop::EndOfMedium) {
            self.warned();
        }
        stop
    }

    fn takes_streams(&self) -> bool {
        self.inner.takes_streams()
    }

    fn range_target(&mut self) -> Option<&mut dyn RangeTarget> {
        match self.inner.range_target().is_some() {
            true => Some(self),
            false => None,
        }
    }
}

/// A changer whose dismounts are noted.
pub(super) struct WatchedChanger {
    inner: Box<dyn EngineChanger>,
    library: Arc<dyn Library>,
    watch: Arc<dyn Watch>,
    claimed: Arc<Claimed>,
}

impl WatchedChanger {
    pub(super) fn new(
        inner: Box<dyn EngineChanger>,
        library: Arc<dyn Library>,
        watch: Arc<dyn Watch>,
        claimed: Arc<Claimed>,
    ) -> Self {
        Self { inner, library, watch, claimed }
    }

    /// The tapes of these elements that are in drives.
    fn in_drives(&self, elements: &[ElementAddress]) -> Vec<Barcode> {
        let view = self.library.view();
        let all = view.into_iter().flat_map(|view| view.inventory.elements);
        let drives = all.filter(|element| {
            element.kind == ElementType::DataTransfer && elements.contains(&element.address)
        });
        drives.filter_map(|element| element.barcode).collect()
    }

    fn dismounted(&self, tapes: &[Barcode]) {
        if tapes.is_empty() {
            return;
        }
        // A dismount may wait for a copy, which needs the changer.
        let lend = |is_lent| {
            let name = DeviceName::changer(self.library.name().clone());
            if let Some(held) = locked(&self.claimed).get_mut(&name) {
                held.is_lent = is_lent;
            }
        };
        lend(true);
        self.watch.dismounted(self.library.name(), tapes);
        lend(false);
    }
}

/// The elements that a MOVE MEDIUM or an EXCHANGE MEDIUM (SMC-3) takes cartridges out of.
fn left_by(cdb: &[u8]) -> Vec<ElementAddress> {
    let address = |at: usize| Some(u16::from_be_bytes([*cdb.get(at)?, *cdb.get(at + 1)?]));
    let places: &[usize] = match cdb.first() {
        Some(0xa5) => &[4],
        Some(0xa6) => &[4, 6],
        _ => &[],
    };
    places.iter().filter_map(|at| address(*at)).collect()
}

impl MediumChanger for WatchedChanger {
    fn identity(&self) -> DeviceIdentity {
        self.inner.identity()
    }

    fn inventory(&mut self, control: &Control) -> Result<Inventory, TapeError> {
        self.inner.inventory(control)
    }

    fn initialize(&mut self, control: &Control) -> Result<(), TapeError> {
        self.inner.initialize(control)
    }

    fn move_medium(
        &mut self,
        from: ElementAddress,
        to: ElementAddress,
        control: &Control,
    ) -> Result<(), TapeError> {
        let tapes = self.in_drives(&[from]);
        self.inner.move_medium(from, to, control)?;
        self.dismounted(&tapes);
        Ok(())
    }

    fn execute(
        &mut self,
        request: &CdbRequest,
        control: &Control,
    ) -> Result<Completion, TapeError> {
        let from = left_by(&request.cdb);
        let tapes = if from.is_empty() { Vec::new() } else { self.in_drives(&from) };
        let completion = self.inner.execute(request, control)?;
        if completion.status == 0 {
            self.dismounted(&tapes);
        }
        Ok(completion)
    }
}

impl EngineChanger for WatchedChanger {
    fn reset(&mut self, control: &Control) -> Result<(), TapeError> {
        self.inner.reset(control)
    }
}

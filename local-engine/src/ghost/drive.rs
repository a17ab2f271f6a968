//! A ghost drive: every operation is done on the real device, now.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use copy::Holder;
use link::{Answer, CopyRange, LibraryReport, RangeSource, Work};
use model::{DeviceName, JobId, LibraryName, SiteName};
use ndmp::tape::{Failure, FailureKind};
use scsi::{DeviceType, Sense};
use svs::JobState;
use tape::{
    CdbRequest, Completion, Control, DeviceIdentity, DriveState, Operation, Outcome, Position,
    ReadEnd, SpaceKind, Spaced, TapeDrive, TapeError, WriteEnd,
};

use super::reading::Reading;
use super::writing::{ForeignStream, Writing};
use crate::device::failure;
use crate::engine::now_ms;
use crate::link::{LeaseHandle, RemoteSite};
use crate::mover::{
    Counters, EngineDrive, RangeEnd, RangeRequest, RangeTarget, RangeWritten, Run, Stop,
};

/// How long opening a device of another site may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);
/// How long freeing it may take; after that the lease runs out by itself.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(600);

/// A drive of a remote site, opened by one session.
pub(super) struct GhostDrive {
    library: LibraryName,
    site: Arc<RemoteSite>,
    site_name: SiteName,
    identity: DeviceIdentity,
    report: Arc<RwLock<LibraryReport>>,
    index: usize,
    lease: Option<LeaseHandle>,
    /// Restarts of the remote engine that this session knows of.
    restarts: u64,
    /// Reading ahead pays: the longest record expected.
    read_ahead: Option<u32>,
    reading: Option<Reading>,
}

impl GhostDrive {
    pub(super) fn open(
        library: LibraryName,
        site: &Arc<RemoteSite>,
        device: DeviceName,
        identity: DeviceIdentity,
        report: &Arc<RwLock<LibraryReport>>,
    ) -> Result<Self, Failure> {
        let unknown = || Failure::new(FailureKind::NoDevice, "the site was never met");
        let site_name = site.name().ok_or_else(unknown)?;
        let index = match device.role {
            model::DeviceRole::Drive(index) => usize::from(index),
            model::DeviceRole::Changer => 0,
        };
        let lease = match site.open(device, &Control::within(OPEN_TIMEOUT)) {
            Ok(lease) => Some(lease),
            // It can be opened and is not ready, as a device without power would be.
            Err(TapeError::Unreachable(cause)) => {
                tracing::warn!(%library, %cause, "a ghost drive was opened without its site");
                None
            }
            Err(error) => return Err(failure(&error)),
        };
        Ok(Self {
            library,
            site: Arc::clone(site),
            site_name,
            identity,
            report: Arc::clone(report),
            index,
            lease,
            restarts: site.restarts(),
            read_ahead: None,
            reading: None,
        })
    }

    fn work(
        &mut self,
        work: Work,
        control: &Control,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Answer, TapeError> {
        self.settle(control)?;
        // A range or a reading ahead proves the position by itself; everything else is told first
        // that the drive was reset.
        let told = match &work {
            Work::Operation(operation) => super::meets_attention(operation),
            _ => false,
        };
        let known = self.restarts;
        if told || !matches!(work, Work::Operation(_)) {
            self.restarts = self.site.restarts();
        }
        if told && known != self.restarts {
            return Err(TapeError::Check(Sense::new(0x06, 0x29, 0x00)));
        }
        let Some(lease) = &mut self.lease else {
            return Err(TapeError::Check(Sense::new(0x02, 0x04, 0x00)));
        };
        match lease.perform(work, control, progress)? {
            Answer::Failed(error) => Err(error),
            answer => Ok(answer),
        }
    }

    /// Takes back what was read ahead: the tape stands behind what was taken.
    fn settle(&mut self, control: &Control) -> Result<(), TapeError> {
        let (Some(reading), Some(lease)) = (self.reading.take(), &mut self.lease) else {
            return Ok(());
        };
        match reading.end(lease, control)? {
            None => Ok(()),
            Some(object) => {
                let locate = Work::Operation(Operation::Locate(object));
                match lease.perform(locate, control, &mut |_, _| {})? {
                    Answer::Failed(error) => Err(error),
                    _ => Ok(()),
                }
            }
        }
    }

    /// The next object of a stream that is read ahead.
    fn read_on(
        &mut self,
        record_max: u32,
        buffer: &mut [u8],
        control: &Control,
    ) -> Result<ReadEnd, TapeError> {
        loop {
            if self.reading.as_ref().is_some_and(|reading| reading.record_max() < record_max) {
                self.settle(control)?;
            }
            if self.reading.is_none() {
                let begin = self.expected_object(control)?;
                let lease = self.lease.as_ref();
                let lease = lease.ok_or(TapeError::Check(Sense::new(0x02, 0x04, 0x00)))?;
                self.reading = Some(Reading::begin(lease, record_max, begin, control)?);
            }
            let store = &self.site.ground().store;
            let (Some(reading), Some(lease)) = (&mut self.reading, &self.lease) else {
                return Err(unexpected());
            };
            match reading.next(lease, store, buffer, control)? {
                Some(end @ (ReadEnd::Filemark | ReadEnd::EndOfData)) => {
                    self.settle(control)?;
                    return Ok(end);
                }
                Some(end) => return Ok(end),
                // It ended before the tape did: a limit, or a link that broke.
                None => self.settle(control)?,
            }
        }
    }

    fn perform(&mut self, operation: Operation, control: &Control) -> Result<Outcome, TapeError> {
        match self.work(Work::Operation(operation), control, &mut |_, _| {})? {
            Answer::Outcome(outcome) => Ok(outcome),
            _ => Err(unexpected()),
        }
    }

    fn expected_object(&mut self, control: &Control) -> Result<u64, TapeError> {
        match self.lease.as_ref().and_then(LeaseHandle::expected_object) {
            Some(object) => Ok(object),
            None => Ok(self.position(control)?.object),
        }
    }

    /// Sends a range once its generations are at the site.
    fn send_range(
        &mut self,
        request: &RangeRequest,
        control: &Control,
        progress: &mut dyn FnMut(u64),
    ) -> Result<link::RangeResult, TapeError> {
        let job = request.job.as_ref();
        let id = job.map_or_else(|| JobId::generate(now_ms()), |job| job.id());
        loop {
            self.replicate(request, control)?;
            let extents = request.extents.iter().map(|extent| link::Extent {
                generation: extent.generation,
                first_object: 0,
                offset_in_object: extent.offset,
                length: extent.length,
            });
            let range = CopyRange {
                job: id,
                source: RangeSource::Extents(extents.collect()),
                record_size: request.record_size,
                pad_last: request.pad_last,
                flush: false,
                ignore_early_warning: request.ignore_early_warning,
                expected_object: self.expected_object(control)?,
            };
            let answer = self.work(Work::Copy(range), control, &mut |bytes, _| progress(bytes))?;
            match answer {
                // Freed there meanwhile: it goes there again.
                Answer::Copied(result) if result.end == link::RangeEnd::NotReplicated => {
                    for extent in &request.extents {
                        self.site.replicator().forget(extent.generation);
                    }
                }
                Answer::Copied(result) => return Ok(result),
                _ => return Err(unexpected()),
            }
        }
    }

    /// Waits until the site has every generation of the range.
    fn replicate(&self, request: &RangeRequest, control: &Control) -> Result<(), TapeError> {
        let job = request.job.as_ref();
        let mut waited = false;
        for extent in &request.extents {
            if self.site.replicator().is_done(extent.generation) {
                continue;
            }
            if let Some(job) = job {
                job.enter(JobState::WaitingReplication, Some("the data goes to the site first"));
            }
            waited = true;
            let mut tell = |text: String| {
                if let Some(job) = job {
                    job.tell(text);
                }
            };
            self.site.replicator().ensure(extent.generation, control, &mut tell)?;
        }
        if let Some(job) = job.filter(|_| waited) {
            job.enter(JobState::InProgress, None);
        }
        Ok(())
    }
}

fn unexpected() -> TapeError {
    TapeError::Lost("the remote gave another answer".into())
}

impl Drop for GhostDrive {
    fn drop(&mut self) {
        // Free at once for the next one, if the site can be reached.
        if let Some(lease) = self.lease.take()
            && self.site.is_up()
            && let Err(error) = lease.close(&Control::within(CLOSE_TIMEOUT))
        {
            tracing::warn!(library = %self.library, %error, "a ghost drive was not closed cleanly");
        }
    }
}

impl RangeTarget for GhostDrive {
    fn write_range(
        &mut self,
        request: &RangeRequest,
        control: &Control,
        progress: &mut dyn FnMut(u64),
    ) -> RangeWritten {
        let result = match self.send_range(request, control, progress) {
            Ok(result) => result,
            Err(error) => {
                let end = RangeEnd::Failed(error);
                return RangeWritten { end, bytes: 0, early_warning: false };
            }
        };
        let bytes = result.bytes;
        let end = match result.end {
            link::RangeEnd::Done => RangeEnd::Done,
            link::RangeEnd::EarlyWarning => RangeEnd::EarlyWarning,
            link::RangeEnd::Overflow => RangeEnd::Overflow,
            link::RangeEnd::MediaError(sense) => RangeEnd::Failed(TapeError::Check(sense)),
            link::RangeEnd::Cancelled => RangeEnd::Failed(TapeError::Cancelled),
            link::RangeEnd::NotReplicated | link::RangeEnd::NotMine => {
                let cause = "the medium is not the remote engine's to write";
                RangeEnd::Failed(TapeError::Lost(cause.into()))
            }
        };
        // Whether a range that is done ended beyond early warning: the next one says it.
        let early_warning = end == RangeEnd::EarlyWarning;
        RangeWritten { end, bytes, early_warning }
    }
}

impl EngineDrive for GhostDrive {
    fn holder(&self) -> Holder {
        Holder::RemoteDrive { site: self.site_name.clone(), reachable: self.site.is_up() }
    }

    fn tape(&mut self) -> &mut dyn TapeDrive {
        self
    }

    fn medium_name(&mut self) -> String {
        let report = self.report.read().unwrap_or_else(PoisonError::into_inner).clone();
        let drives = report.inventory.elements.iter();
        let element = report.drives.get(self.index).map(|drive| drive.element);
        let loaded = drives.filter(|e| Some(e.address) == element).find_map(|e| e.barcode.clone());
        let barcode = loaded.map_or_else(|| "-".to_owned(), |barcode| barcode.to_string());
        format!("{}/{barcode}", self.library)
    }

    fn begin_reading(&mut self, record_max: u32) {
        self.read_ahead = Some(record_max);
    }

    fn end_reading(&mut self, control: &Control) -> Result<(), TapeError> {
        self.read_ahead = None;
        self.settle(control)
    }

    fn takes_streams(&self) -> bool {
        self.lease.is_some()
    }

    fn write_stream(
        &mut self,
        stream: &mut ForeignStream,
        run: &Run,
        counters: &Counters,
    ) -> Option<Stop> {
        let expected = self.settle(&run.control).and_then(|()| self.expected_object(&run.control));
        let expected = match expected {
            Ok(expected) => expected,
            Err(error) => return Some(Stop::from_tape(&error)),
        };
        let (lease, site) = (self.lease.as_mut()?, &self.site_name);
        Some(Writing { stream, lease, site, run, counters }.run(expected))
    }

    fn range_target(&mut self) -> Option<&mut dyn RangeTarget> {
        Some(self)
    }
}

impl TapeDrive for GhostDrive {
    fn identity(&self) -> DeviceIdentity {
        self.identity.clone()
    }

    fn state(&mut self, control: &Control) -> Result<DriveState, TapeError> {
        match self.perform(Operation::State, control)? {
            Outcome::State(state) => Ok(state),
            _ => Err(unexpected()),
        }
    }

    fn position(&mut self, control: &Control) -> Result<Position, TapeError> {
        match self.perform(Operation::Position, control)? {
            Outcome::Position(position) => Ok(position),
            _ => Err(unexpected()),
        }
    }

    fn rewind(&mut self, control: &Control) -> Result<(), TapeError> {
        self.perform(Operation::Rewind, control).map(drop)
    }

    fn locate(&mut self, object: u64, control: &Control) -> Result<(), TapeError> {
        self.perform(Operation::Locate(object), control).map(drop)
    }

    fn space(
        &mut self,
        kind: SpaceKind,
        count: i64,
        control: &Control,
    ) -> Result<Spaced, TapeError> {
        match self.perform(Operation::Space(kind, count), control)? {
            Outcome::Spaced(spaced) => Ok(spaced),
            _ => Err(unexpected()),
        }
    }

    fn read(&mut self, buffer: &mut [u8], control: &Control) -> Result<ReadEnd, TapeError> {
        if let Some(record_max) = self.read_ahead {
            return self.read_on(record_max, buffer, control);
        }
        let max = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
        match self.perform(Operation::Read(max), control)? {
            Outcome::Read(end, data) if data.len() <= buffer.len() => {
                buffer[..data.len()].copy_from_slice(&data);
                Ok(end)
            }
            _ => Err(unexpected()),
        }
    }

    fn write(&mut self, record: &[u8], control: &Control) -> Result<WriteEnd, TapeError> {
        match self.perform(Operation::Write(Bytes::copy_from_slice(record)), control)? {
            Outcome::Written(end) => Ok(end),
            _ => Err(unexpected()),
        }
    }

    fn write_filemarks(&mut self, count: u32, control: &Control) -> Result<WriteEnd, TapeError> {
        match self.perform(Operation::WriteFilemarks(count), control)? {
            Outcome::Written(end) => Ok(end),
            _ => Err(unexpected()),
        }
    }

    fn load(&mut self, control: &Control) -> Result<(), TapeError> {
        self.perform(Operation::Load, control).map(drop)
    }

    fn unload(&mut self, control: &Control) -> Result<(), TapeError> {
        self.perform(Operation::Unload, control).map(drop)
    }

    fn execute(
        &mut self,
        request: &CdbRequest,
        control: &Control,
    ) -> Result<Completion, TapeError> {
        if !self.site.is_up() {
            return Ok(tape::target::offline(DeviceType::Tape, &self.identity, None, request));
        }
        match self.perform(Operation::Cdb(request.clone()), control) {
            Ok(Outcome::Completion(completion)) => Ok(completion),
            Ok(_) => Err(unexpected()),
            Err(TapeError::Check(sense)) => Ok(super::check_condition(sense)),
            Err(error) => Err(error),
        }
    }
}
